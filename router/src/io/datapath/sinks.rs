//! Where the engine's output goes: trains to the underlay's sockets, frames to the TAP.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use arrayvec::ArrayVec;
use fastpath::{
    Counters, DropReason, Encapsulation, Forwarding, FrameSink, MAX_PARTS, Train, TrainSink,
    VnetHdr,
};
use hostnet::poll::{PollFd, PollFlags};
use hostnet::tap::TapQueue;
use hostnet::udp::UdpSocket;
use nix::errno::Errno;
use tokio::sync::mpsc;
use wire::{PeerId, flow};

use super::keys::SealEvent;

use super::conversations::Conversations;

/// A worker's sockets.
#[derive(Debug)]
pub(super) struct Sockets {
    /// Receives VXLAN.
    pub(super) vxlan: UdpSocket,
    /// Send VXLAN, at least one: each from a port of its own.
    pub(super) spread: Vec<Arc<UdpSocket>>,
    /// Sends and receives sleeve.
    pub(super) sleeve: Arc<UdpSocket>,
}

impl Sockets {
    /// The one that a train leaves by.
    fn of(&self, train: &Train<'_>) -> &UdpSocket {
        match train.encapsulation {
            Encapsulation::Vxlan => &self.spread[train.socket % self.spread.len()],
            Encapsulation::Sleeve => &self.sleeve,
        }
    }
}

/// Sends trains through a worker's sockets, for the length of one batch.
#[derive(Debug)]
pub(super) struct Underlay<'a> {
    sockets: &'a Sockets,
    forwarding: &'a Forwarding,
    counters: &'a Counters,
    seals: &'a mpsc::Sender<SealEvent>,
    /// Whether the kernel cuts trains (`UDP_SEGMENT`).
    segment: &'a AtomicBool,
    /// What is left of the time that this batch may wait for room.
    patience: Duration,
}

/// How long a worker waits in a batch for room in sockets' buffers. Longer, and received frames
/// would wait with it; no wait, and a burst would be lost that the device drains within microseconds.
const PATIENCE: Duration = Duration::from_millis(2);

impl<'a> Underlay<'a> {
    pub(super) fn new(
        sockets: &'a Sockets,
        forwarding: &'a Forwarding,
        counters: &'a Counters,
        seals: &'a mpsc::Sender<SealEvent>,
        segment: &'a AtomicBool,
    ) -> Self {
        Self {
            sockets,
            forwarding,
            counters,
            seals,
            segment,
            patience: PATIENCE,
        }
    }
}

impl TrainSink for Underlay<'_> {
    fn want(&mut self, peer: PeerId) {
        if self.seals.try_send(SealEvent::Want(peer)).is_err() {
            self.counters.drop(DropReason::HandshakeQueueFull, 1);
        }
    }

    fn send(&mut self, train: Train<'_>) {
        let sent = if train.count > 1 && self.segment.load(Relaxed) {
            match self.patiently(&train, train.bytes, train.segment) {
                // Either the kernel cuts no trains, or a datagram is too long: one by one tells.
                Err(error) if refuses_trains(&error) => self.one_by_one(&train, Some(&error)),
                Err(error) => {
                    self.refused(&train, &error, train.count);
                    0
                }
                Ok(()) => {
                    self.counters.sent_trains(1);
                    train.count
                }
            }
        } else {
            self.one_by_one(&train, None)
        };
        self.counters.sent_datagrams(sent as u64);
    }
}

impl Underlay<'_> {
    /// The plain path: a system call for each datagram. Returns how many were sent.
    fn one_by_one(&mut self, train: &Train<'_>, refused: Option<&io::Error>) -> usize {
        let mut sent = 0;
        for (number, datagram) in train.bytes.chunks(train.segment).enumerate() {
            match self.patiently(train, datagram, 0) {
                Ok(()) => {
                    // It is the train that was refused, not a datagram of this length.
                    if let (0, Some(error)) = (number, refused)
                        && error.raw_os_error() != Some(Errno::EMSGSIZE as i32)
                        && self.segment.swap(false, Relaxed)
                    {
                        tracing::warn!(
                            %error, "the kernel refuses UDP_SEGMENT: datagrams are sent one by one"
                        );
                    }
                    sent += 1;
                }
                Err(error) => self.refused(train, &error, 1),
            }
        }
        self.counters.sent_trains(sent as u64);
        sent
    }

    fn refused(&self, train: &Train<'_>, error: &io::Error, datagrams: usize) {
        let reason = reason(error);
        self.counters.drop(reason, datagrams as u64);
        if reason == DropReason::UnderlayTooBig
            && let Some(link) = self.forwarding.link(train.slot)
        {
            link.counters.too_big(datagrams as u64);
        }
    }

    fn patiently(&mut self, train: &Train<'_>, bytes: &[u8], segment: usize) -> io::Result<()> {
        let socket = self.sockets.of(train);
        let segment = u16::try_from(segment).unwrap_or(0);
        match socket.send_train_anew(train.endpoint, bytes, segment) {
            Err(error) if error.kind() == ErrorKind::WouldBlock && !self.patience.is_zero() => {
                let began = Instant::now();
                let mut room = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                hostnet::poll::poll(&mut room, Some(self.patience))?;
                self.patience = self.patience.saturating_sub(began.elapsed());
                socket.send_train(train.endpoint, bytes, segment)
            }
            result => result,
        }
    }
}

/// EIO: the device completes no checksums (before Linux 6.11). EINVAL: no `UDP_SEGMENT`, or, before
/// Linux 6.13, a segment longer than the path's MTU, which is EMSGSIZE since.
fn refuses_trains(error: &io::Error) -> bool {
    [
        Errno::EIO,
        Errno::EINVAL,
        Errno::ENOPROTOOPT,
        Errno::EMSGSIZE,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => DropReason::UnderlayBusy,
        Some(Errno::EMSGSIZE) => DropReason::UnderlayTooBig,
        _ => DropReason::UnderlayError,
    }
}

/// Writes frames to the TAP.
///
/// A frame goes to the queue of its conversation, whichever worker received it (see
/// [`Conversations`]).
#[derive(Debug)]
pub(super) struct TapWriter<'a> {
    queues: &'a [TapQueue],
    conversations: &'a Conversations,
    counters: &'a Counters,
    /// Whether a joined frame was refused as such.
    pub(super) refused_joined: bool,
}

impl<'a> TapWriter<'a> {
    pub(super) fn new(
        queues: &'a [TapQueue],
        conversations: &'a Conversations,
        counters: &'a Counters,
    ) -> Self {
        Self {
            queues,
            conversations,
            counters,
            refused_joined: false,
        }
    }

    fn write(&mut self, queue: &TapQueue, slices: &[IoSlice<'_>], joined: bool) {
        // A TAP that is down answers EIO, one without memory ENOBUFS or EAGAIN: the frame is lost,
        // as it would be on a wire that is unplugged.
        if let Err(error) = queue.write_vectored(slices) {
            self.refused_joined |= joined && error.kind() == ErrorKind::InvalidInput;
            self.counters.drop(DropReason::TapRefused, 1);
        }
    }
}

impl FrameSink for TapWriter<'_> {
    fn deliver(&mut self, parts: &[&[u8]]) {
        let queue = match (self.queues, parts) {
            ([one], _) | ([one, ..], [] | [_]) => one,
            // The headers that the hash reads are all in the first part behind the offload header.
            (queues, [_, frame, ..]) => &queues[self.conversations.queue(flow::symmetric(frame))],
            ([], _) => return,
        };
        let joined = parts
            .first()
            .and_then(|header| VnetHdr::parse(header))
            .is_some_and(|(header, _)| header.gso != fastpath::GsoType::None);
        if let [header, frame] = parts {
            self.write(queue, &[IoSlice::new(header), IoSlice::new(frame)], joined);
            return;
        }
        let slices: ArrayVec<_, MAX_PARTS> = parts.iter().map(|part| IoSlice::new(part)).collect();
        self.write(queue, &slices, joined);
    }
}
