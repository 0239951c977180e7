//! Trains: runs of datagrams to one endpoint, all equally long but for the last, which one
//! `sendmsg` with `UDP_SEGMENT` can send.
//!
//! A train may carry segments of several super-frames and of several flows. Frames of one flow go
//! through one socket, thus into one train after the other, and keep their order.

use std::net::SocketAddr;
use std::sync::Arc;

use wire::aggregate::LENGTH_LEN;
use wire::{PeerId, sleeve, vxlan};

use crate::aggregate::{self, Aggregate, Finished};
use crate::counters::{DropReason, LinkCounters};
use crate::forwarding::{Encapsulation, Entry, Link, Slot};
use crate::seal::{SEALED_FRAME_AT, Seal, SealKey};

/// What the socket can take in one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrainLimits {
    /// Datagrams: 64 is the limit of older kernels (`UDP_MAX_SEGMENTS`).
    pub segments: usize,
    /// Bytes: the payload of the largest UDP datagram over IPv4, 65,535 - 20 - 8.
    pub bytes: usize,
}

impl Default for TrainLimits {
    fn default() -> Self {
        Self {
            segments: 64,
            bytes: 65_507,
        }
    }
}

/// A run of datagrams to send.
#[derive(Debug, Clone, Copy)]
pub struct Train<'a> {
    /// The link it goes out on.
    pub slot: Slot,
    /// Where to.
    pub endpoint: SocketAddr,
    /// How its frames are wrapped.
    pub encapsulation: Encapsulation,
    /// Which of VXLAN's sending sockets to use: the flow's hash modulo their number. Sleeve has one,
    /// the one that receives it, so that NAT on the way keeps one mapping.
    pub socket: usize,
    /// Bytes of each datagram but the last, which may be shorter.
    pub segment: usize,
    /// Number of datagrams, at least one.
    pub count: usize,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
}

/// Takes trains. Failures are the sink's to count.
pub trait TrainSink {
    /// Sends a train, or drops it and counts.
    fn send(&mut self, train: Train<'_>);
    /// A frame waits for a key to seal it with for this peer. A sink without keys is never told.
    fn want(&mut self, _peer: PeerId) {}
}

/// Trains being put together, one for each link and socket in use.
#[derive(Debug)]
pub(crate) struct Outbox {
    open: Vec<OpenTrain>,
    /// Indices of those that are not empty, in the order in which they were begun.
    begun: Vec<usize>,
    limits: TrainLimits,
}

#[derive(Debug)]
struct OpenTrain {
    key: (Slot, usize),
    endpoint: SocketAddr,
    encapsulation: Encapsulation,
    /// Bytes of a datagram that are not the frame's.
    overhead: usize,
    /// Of the link; none before the first use.
    counters: Option<Arc<LinkCounters>>,
    segment: usize,
    count: usize,
    len: usize,
    /// The frames in these datagrams, and their bytes.
    frames: u64,
    frame_bytes: u64,
    /// What is behind them, and takes more frames.
    aggregate: Option<Aggregate>,
    /// The last datagram was shorter: nothing may follow it.
    closed: bool,
    buffer: Box<[u8]>,
}

/// Trains open at once. A key that meets another in its place sends that one's train first.
const OPEN: usize = 64;

impl Outbox {
    pub(crate) fn new(limits: TrainLimits) -> Self {
        let limits = TrainLimits {
            segments: limits.segments.max(1),
            bytes: limits.bytes.clamp(1, BUFFER),
        };
        let open = (0..OPEN)
            .map(|_| OpenTrain {
                key: (0, 0),
                endpoint: SocketAddr::from(([0, 0, 0, 0], 0)),
                encapsulation: Encapsulation::Vxlan,
                overhead: 0,
                counters: None,
                segment: 0,
                count: 0,
                len: 0,
                frames: 0,
                frame_bytes: 0,
                aggregate: None,
                closed: false,
                // Zeroed memory that is not touched costs no page.
                buffer: vec![0; BUFFER].into_boxed_slice(),
            })
            .collect();
        Self {
            open,
            begun: Vec::with_capacity(OPEN),
            limits,
        }
    }

    /// Puts a frame of `frame_len` bytes, which `fill` writes, behind its encapsulation into a train: to
    /// go out on a link through one of the sockets, sealed if there is a seal.
    #[expect(clippy::too_many_arguments, reason = "what a datagram is made of")]
    pub(crate) fn put(
        &mut self,
        (slot, socket): (Slot, usize),
        Entry { link, header }: &Entry,
        seal: Option<&mut Seal<'_>>,
        frame_len: usize,
        vxlan: &[u8; vxlan::HEADER_LEN],
        sink: &mut impl TrainSink,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let overhead = match (link.encapsulation, &seal) {
            (Encapsulation::Vxlan, _) => vxlan::HEADER_LEN,
            (Encapsulation::Sleeve, None) => sleeve::HEADER_LEN,
            (Encapsulation::Sleeve, Some(_)) => sleeve::HEADER_LEN + sleeve::SEAL_LEN,
        };
        let len = overhead + frame_len;
        let train = self.train((slot, socket), link, overhead, len, sink);
        let datagram = train.add(&Finished {
            len,
            frame_bytes: frame_len,
            frames: 1,
        });
        match (link.encapsulation, seal) {
            (Encapsulation::Vxlan, _) => fill(put_header(datagram, vxlan)),
            (Encapsulation::Sleeve, None) => fill(put_header(datagram, header)),
            (Encapsulation::Sleeve, Some(seal)) => {
                put_header(datagram, &seal.header(header));
                fill(&mut datagram[SEALED_FRAME_AT..][..frame_len]);
                seal.close(datagram);
            }
        }
    }

    /// Puts a small frame into a sealed datagram that it may share with others for the same peer.
    /// `longest` is the longest frame that the link takes.
    ///
    /// # Errors
    /// The key is used up.
    #[expect(clippy::too_many_arguments, reason = "what a datagram is made of")]
    pub(crate) fn share(
        &mut self,
        slot: Slot,
        Entry { link, header }: &Entry,
        key: &Arc<SealKey>,
        longest: usize,
        frame_len: usize,
        sink: &mut impl TrainSink,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), DropReason> {
        let full = aggregate::full(self.longest(longest));
        let train = &mut self.open[index((slot, 0))];
        let mut most = full;
        if train.is_for((slot, 0), link) {
            if let Some(aggregate) = &mut train.aggregate
                && aggregate.takes(key, frame_len)
            {
                aggregate.put(&mut train.buffer, frame_len, fill);
                return Ok(());
            }
            train.finish(true);
            // No datagram is longer than its train's first. Where that is short, another train begins.
            let has_room = train.segment >= aggregate::full(frame_len + LENGTH_LEN);
            if train.count > 0 && !train.closed && train.segment >= full / 2 && has_room {
                most = full.min(train.segment);
            }
        }
        let claim = key.claim(1).ok_or(DropReason::SealNoKey)?;
        let train = self.train((slot, 0), link, aggregate::full(0), most, sink);
        let mut aggregate = Aggregate::new(key, claim, *header, train.len, most);
        aggregate.put(&mut train.buffer, frame_len, fill);
        train.aggregate = Some(aggregate);
        Ok(())
    }

    /// Whether a frame of this length may share a datagram on a link whose longest frame is this.
    pub(crate) fn shares(&self, longest: usize, frame_len: usize) -> bool {
        frame_len <= aggregate::longest(self.longest(longest))
    }

    /// The longest frame that a sealed datagram takes, on a link that takes this one.
    fn longest(&self, link: usize) -> usize {
        link.min(self.limits.bytes.saturating_sub(aggregate::full(0)))
    }

    /// The train that the next datagram of `len` bytes for a link and socket goes into.
    fn train(
        &mut self,
        key: (Slot, usize),
        link: &Link,
        overhead: usize,
        len: usize,
        sink: &mut impl TrainSink,
    ) -> &mut OpenTrain {
        let index = index(key);
        let train = &mut self.open[index];
        train.finish(false);
        let fits = train.is_for(key, link)
            && train.overhead == overhead
            && !train.closed
            && len <= train.segment
            && train.count < self.limits.segments
            && train.len + len <= self.limits.bytes;
        if train.count > 0 && !fits {
            train.depart(sink);
            self.begun.retain(|&begun| begun != index);
        }
        if train.count == 0 {
            self.begun.push(index);
            train.key = key;
            train.endpoint = link.endpoint;
            train.encapsulation = link.encapsulation;
            train.overhead = overhead;
            train.counters = Some(Arc::clone(&link.counters));
        }
        train
    }

    /// Sends all that was begun.
    pub(crate) fn flush(&mut self, sink: &mut impl TrainSink) {
        for index in self.begun.drain(..) {
            self.open[index].depart(sink);
        }
    }
}

impl OpenTrain {
    fn is_for(&self, key: (Slot, usize), link: &Link) -> bool {
        self.key == key
            && self.endpoint == link.endpoint
            && self.encapsulation == link.encapsulation
    }

    /// Seals the datagram that takes more frames, if there is one.
    fn finish(&mut self, full: bool) {
        if let Some(aggregate) = self.aggregate.take() {
            let finished = aggregate.finish(&mut self.buffer, full);
            self.add(&finished);
        }
    }

    /// Makes the next bytes of the buffer a datagram, and returns them.
    fn add(&mut self, datagram: &Finished) -> &mut [u8] {
        if self.count == 0 {
            self.segment = datagram.len;
        }
        self.closed = datagram.len < self.segment;
        self.count += 1;
        self.frames += datagram.frames as u64;
        self.frame_bytes += datagram.frame_bytes as u64;
        let from = self.len;
        self.len += datagram.len;
        &mut self.buffer[from..self.len]
    }

    fn depart(&mut self, sink: &mut impl TrainSink) {
        self.finish(false);
        sink.send(Train {
            slot: self.key.0,
            endpoint: self.endpoint,
            encapsulation: self.encapsulation,
            socket: self.key.1,
            segment: self.segment,
            count: self.count,
            bytes: &self.buffer[..self.len],
        });
        if let Some(counters) = self.counters.take() {
            counters.sent(self.frames, self.frame_bytes);
        }
        self.count = 0;
        self.len = 0;
        self.frames = 0;
        self.frame_bytes = 0;
    }
}

/// Which of the open trains serves a link and socket.
fn index((slot, socket): (Slot, usize)) -> usize {
    (usize::from(slot).wrapping_mul(17) + socket) % OPEN
}

/// Writes a header, whose length is known here, and returns the room behind it.
fn put_header<'a, const LEN: usize>(datagram: &'a mut [u8], header: &[u8; LEN]) -> &'a mut [u8] {
    let (room, frame) = datagram.split_at_mut(LEN);
    room.copy_from_slice(header);
    frame
}

/// A datagram's most and a train's most.
const BUFFER: usize = 65_535;
