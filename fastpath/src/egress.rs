//! From the TAP to the underlay.

use std::sync::Arc;

use wire::{Mac, checksum, flow, membership, vxlan};

use crate::audience::Audience;
use crate::counters::{Counters, DropReason, add};
use crate::cut::{Sums, SuperFrame};
use crate::forwarding::{Encapsulation, Entry, Forwarding, Link, Slot};
use crate::ingress::{FrameSink, plain_header};
use crate::mac_table::{MacCache, MacTable, Port};
use crate::said::Said;
use crate::seal::{MAX_COUNTER, Seal, SealKey};
use crate::too_big::{Fragments, report};
use crate::train::{Outbox, TrainLimits, TrainSink};
use crate::vnet::{GsoType, VnetHdr};

/// One worker's side towards the underlay.
#[derive(Debug)]
pub struct Egress {
    outbox: Outbox,
    cache: MacCache,
    sockets: usize,
    header: [u8; vxlan::HEADER_LEN],
    now: u32,
    /// Whether nothing may leave in the clear.
    sealed: bool,
    /// Reports of packets too big that may still be sent within this second.
    reports: u32,
    /// Where segments are cut that are to be fragmented.
    scratch: Vec<u8>,
    /// What pods said of groups in this batch.
    said: Said,
}

/// Reports of packets too big in a second. A flow needs one; more are an attack, or a sender that
/// does not listen (RFC 1812 §4.3.2.8).
const REPORTS: u32 = 100;

impl Egress {
    /// An engine that spreads flows over `sockets` sending sockets (at least one).
    pub fn new(sockets: usize, limits: TrainLimits) -> Self {
        Self {
            outbox: Outbox::new(limits),
            cache: MacCache::new(),
            sockets: sockets.max(1),
            header: [0; vxlan::HEADER_LEN],
            now: 0,
            sealed: false,
            reports: REPORTS,
            scratch: Vec::new(),
            said: Said::default(),
        }
    }

    /// Begins a batch at `now`, seconds on the clock that the MAC table ages by.
    pub fn begin(&mut self, forwarding: &Forwarding, macs: &MacTable, now: u32) {
        self.cache.refresh(macs, now);
        self.header = vxlan::header(forwarding.vni());
        self.sealed = forwarding.is_sealed();
        self.said.clear();
        if now != self.now {
            self.reports = REPORTS;
        }
        self.now = now;
    }

    /// Takes one read from the TAP: a [`VnetHdr`] and a frame, which is completed in place. What
    /// there is to answer its sender goes to `tap`. Returns the number of datagrams that it made, a
    /// measure of the work done.
    pub fn frame(
        &mut self,
        read: &mut [u8],
        forwarding: &Forwarding,
        macs: &MacTable,
        counters: &Counters,
        sink: &mut impl TrainSink,
        tap: &mut impl FrameSink,
    ) -> usize {
        add(&counters.tap_rx_frames, 1);
        match self.switch(read, forwarding, macs, counters, sink, tap) {
            Ok(datagrams) => datagrams,
            Err(reason) => {
                counters.drop(reason, 1);
                0
            }
        }
    }

    /// Ends the batch: everything still held is sent.
    pub fn flush(&mut self, sink: &mut impl TrainSink) {
        self.outbox.flush(sink);
    }

    /// What pods have said of groups (IGMP and MLD) since the batch began, as frames.
    pub fn said(&self) -> impl Iterator<Item = &[u8]> {
        self.said.frames()
    }

    fn switch(
        &mut self,
        read: &mut [u8],
        forwarding: &Forwarding,
        macs: &MacTable,
        counters: &Counters,
        sink: &mut impl TrainSink,
        tap: &mut impl FrameSink,
    ) -> Result<usize, DropReason> {
        let Some((header, _)) = VnetHdr::parse(read) else {
            return Err(DropReason::TapBadOffload);
        };
        let frame = &mut read[VnetHdr::LEN..];
        let Some(&[d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, _, _]) = frame.first_chunk()
        else {
            return Err(DropReason::TapRunt);
        };
        let (dst, src) = (Mac([d0, d1, d2, d3, d4, d5]), Mac([s0, s1, s2, s3, s4, s5]));
        if !src.is_unicast() {
            return Err(DropReason::TapBadSource);
        }
        let new = self.cache.learn(macs, src, Port::Local, self.now);
        if dst.is_link_local() {
            return Err(DropReason::LinkLocal);
        }

        let known = if dst.is_unicast() {
            self.cache.lookup(macs, dst)
        } else {
            None
        };
        if known == Some(Port::Local) {
            return Err(DropReason::SamePort);
        }
        if header.gso == GsoType::None && header.needs_csum {
            let (start, offset) = (
                usize::from(header.csum_start),
                usize::from(header.csum_offset),
            );
            if !checksum::complete(frame, start, offset) {
                return Err(DropReason::TapBadOffload);
            }
            add(&counters.checksums_completed, 1);
        }
        let outgoing = match header.gso {
            GsoType::None => Outgoing::Whole(frame),
            _ => SuperFrame::new(&header, frame)
                .map(Outgoing::Cut)
                .ok_or(DropReason::TapBadOffload)?,
        };
        let socket = flow::hash(frame) as usize % self.sockets;

        if let Some(Port::Link(slot)) = known
            && let Some(entry) = forwarding.entry(slot)
        {
            let result = self.encapsulate(&outgoing, (slot, socket), entry, sink);
            if result == Err(DropReason::SealNoKey) {
                return self.hold(&header, frame, (slot, entry), counters, sink);
            }
            if result == Err(DropReason::TooBig)
                && let Some(own) = forwarding.own()
                && self.reports > 0
                && let Some(reply) = report(frame, longest(&entry.link), own)
            {
                self.reports -= 1;
                add(&counters.too_big_reports, 1);
                tap.deliver(&[&plain_header(), &reply]);
            }
            return result;
        }
        let said = match dst.is_multicast() && !dst.is_broadcast() {
            true => membership::parse(frame),
            false => None,
        };
        if said.is_some() {
            add(&counters.group_messages, 1);
            if !self.said.keep(frame) {
                counters.lost_group_messages(1);
            }
        }
        if forwarding.flood().is_empty() {
            return Err(DropReason::NoPeer);
        }
        let audience = match known {
            // Its link is gone since it was learned.
            Some(_) => Audience::All,
            None => Audience::of(
                frame,
                dst,
                new,
                said.as_ref(),
                forwarding,
                self.now,
                counters,
            ),
        };
        if audience == Audience::All {
            add(&counters.flooded, 1);
        }
        let (mut datagrams, mut refused) = (0, None);
        for slot in audience.slots(forwarding) {
            let Some(entry) = forwarding.entry(slot) else {
                continue;
            };
            // One link that is too narrow does not keep the frame from the others.
            match self.encapsulate(&outgoing, (slot, socket), entry, sink) {
                Ok(count) => datagrams += count,
                Err(DropReason::SealNoKey) => {
                    self.hold(&header, frame, (slot, entry), counters, sink)?;
                }
                Err(reason) => refused = Some(reason),
            }
        }
        refused.map_or(Ok(datagrams), Err)
    }

    /// Keeps a frame until there is a key to seal it with.
    fn hold(
        &mut self,
        header: &VnetHdr,
        frame: &[u8],
        (slot, entry): (Slot, &Entry),
        counters: &Counters,
        sink: &mut impl TrainSink,
    ) -> Result<usize, DropReason> {
        let (Some(sealer), Some(peer)) = (&entry.link.sealer, entry.link.peer) else {
            return Err(DropReason::PlainRefused);
        };
        // A checksum that was left to this node has been completed.
        let header = match header.gso {
            GsoType::None => plain_header(),
            _ => header.bytes(),
        };
        let gone = sealer.hold(&[&header, frame], self.now);
        if gone > 0 {
            counters.drop(DropReason::SealNoKey, gone);
        }
        if sealer.may_ask(self.now) {
            sink.want(peer);
        }
        // It may have come meanwhile, and nobody looks at what waits before the next one comes.
        self.release(slot, entry, counters, sink);
        Ok(0)
    }

    /// Sends what waited for a key on the links that have one now.
    pub fn resume(
        &mut self,
        forwarding: &Forwarding,
        counters: &Counters,
        sink: &mut impl TrainSink,
    ) {
        for &slot in forwarding.flood() {
            if let Some(entry) = forwarding.entry(slot) {
                self.release(slot, entry, counters, sink);
            }
        }
    }

    /// Sends what waited for the key of a link, if it has one.
    fn release(
        &mut self,
        slot: Slot,
        entry: &Entry,
        counters: &Counters,
        sink: &mut impl TrainSink,
    ) {
        let sealer = entry.link.sealer.as_ref();
        let Some(sealer) = sealer.filter(|sealer| sealer.is_usable()) else {
            return;
        };
        let (frames, stale) = sealer.release(self.now);
        if stale > 0 {
            counters.drop(DropReason::SealNoKey, stale);
        }
        for read in frames {
            let Some((header, frame)) = VnetHdr::parse(&read) else {
                continue;
            };
            let outgoing = match header.gso {
                GsoType::None => Some(Outgoing::Whole(frame)),
                _ => SuperFrame::new(&header, frame).map(Outgoing::Cut),
            };
            let socket = flow::hash(frame) as usize % self.sockets;
            let sent = outgoing
                .ok_or(DropReason::TapBadOffload)
                .and_then(|outgoing| self.encapsulate(&outgoing, (slot, socket), entry, sink));
            if let Err(reason) = sent {
                counters.drop(reason, 1);
            }
        }
    }

    /// Puts a frame into trains for a link, as however many datagrams it takes.
    fn encapsulate(
        &mut self,
        outgoing: &Outgoing<'_>,
        (slot, socket): (Slot, usize),
        entry: &Entry,
        sink: &mut impl TrainSink,
    ) -> Result<usize, DropReason> {
        let key = match entry.link.encapsulation {
            Encapsulation::Vxlan => (slot, socket),
            Encapsulation::Sleeve => (slot, 0),
        };
        let sealing = match &entry.link.sealer {
            // Whatever a link is said to be: VXLAN is in the clear, and so is what nobody seals.
            _ if self.sealed && entry.link.encapsulation == Encapsulation::Vxlan => {
                if !entry.link.is_plain_at(entry.link.endpoint.ip()) {
                    return Err(DropReason::PlainRefused);
                }
                None
            }
            None if self.sealed => return Err(DropReason::PlainRefused),
            None => None,
            Some(sealer) => Some(sealer.sealing().ok_or(DropReason::SealNoKey)?),
        };
        let longest = longest(&entry.link);
        if let Some(key) = sealing.as_ref().filter(|key| key.aggregates())
            && self.outbox.shares(longest, outgoing.len())
        {
            return self.share(outgoing, slot, longest, entry, key, sink);
        }
        let sealing = sealing.as_deref();
        match outgoing {
            Outgoing::Whole(frame) if frame.len() > longest => {
                self.fragment(frame, key, entry, sealing, sink)
            }
            Outgoing::Whole(frame) => {
                let mut seal = seal(sealing, 1)?;
                let header = &self.header;
                self.outbox.put(
                    key,
                    entry,
                    seal.as_mut(),
                    frame.len(),
                    header,
                    sink,
                    |room| {
                        room.copy_from_slice(frame);
                    },
                );
                Ok(1)
            }
            Outgoing::Cut(whole) if whole.len(0) > longest => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let mut datagrams = 0;
                for i in 0..whole.count() {
                    scratch.resize(whole.len(i), 0);
                    whole.write(i, &mut scratch, Sums::Complete);
                    datagrams += self.fragment(&scratch, key, entry, sealing, sink)?;
                }
                self.scratch = scratch;
                Ok(datagrams)
            }
            Outgoing::Cut(whole) => {
                let mut seal = seal(sealing, whole.count())?;
                // What a tag protects needs no sum, and the other side's kernel none to verify.
                let sums = match seal {
                    None => Sums::Complete,
                    Some(_) => Sums::Partial,
                };
                for i in 0..whole.count() {
                    let (header, len) = (&self.header, whole.len(i));
                    self.outbox
                        .put(key, entry, seal.as_mut(), len, header, sink, |room| {
                            whole.write(i, room, sums);
                        });
                }
                Ok(whole.count())
            }
        }
    }

    /// Puts a small frame, or small segments, into datagrams with others for the same peer.
    fn share(
        &mut self,
        outgoing: &Outgoing<'_>,
        slot: Slot,
        longest: usize,
        entry: &Entry,
        key: &Arc<SealKey>,
        sink: &mut impl TrainSink,
    ) -> Result<usize, DropReason> {
        let outbox = &mut self.outbox;
        match outgoing {
            Outgoing::Whole(frame) => {
                let len = frame.len();
                outbox.share(slot, entry, key, longest, len, sink, |room| {
                    room.copy_from_slice(frame);
                })?;
                Ok(1)
            }
            Outgoing::Cut(whole) => {
                // Before the first one leaves: a frame that waits for the next key waits whole.
                if key.sealed() + whole.count() as u64 > MAX_COUNTER {
                    return Err(DropReason::SealNoKey);
                }
                for i in 0..whole.count() {
                    let len = whole.len(i);
                    outbox.share(slot, entry, key, longest, len, sink, |room| {
                        whole.write(i, room, Sums::Partial);
                    })?;
                }
                Ok(whole.count())
            }
        }
    }

    fn fragment(
        &mut self,
        frame: &[u8],
        key: (Slot, usize),
        entry: &Entry,
        sealing: Option<&SealKey>,
        sink: &mut impl TrainSink,
    ) -> Result<usize, DropReason> {
        let fragments = Fragments::new(frame, longest(&entry.link)).ok_or(DropReason::TooBig)?;
        let mut seal = seal(sealing, fragments.count())?;
        for i in 0..fragments.count() {
            let (header, len) = (&self.header, fragments.len(i));
            self.outbox
                .put(key, entry, seal.as_mut(), len, header, sink, |room| {
                    fragments.write(i, room);
                });
        }
        Ok(fragments.count())
    }
}

/// What seals `count` datagrams, if they are to be sealed.
fn seal(sealing: Option<&SealKey>, count: usize) -> Result<Option<Seal<'_>>, DropReason> {
    match sealing {
        None => Ok(None),
        // One that is used up is as good as none.
        Some(key) => Seal::new(key, count).map(Some).ok_or(DropReason::SealNoKey),
    }
}

/// The longest frame, Ethernet header included, that a link takes.
fn longest(link: &Link) -> usize {
    usize::from(link.mtu) + wire::ethernet::HEADER_LEN
}

/// A frame on its way out.
#[derive(Debug)]
enum Outgoing<'a> {
    /// One that fits as it is.
    Whole(&'a [u8]),
    /// One to be cut.
    Cut(SuperFrame<'a>),
}

impl Outgoing<'_> {
    /// Bytes of the longest frame that leaves.
    fn len(&self) -> usize {
        match self {
            Self::Whole(frame) => frame.len(),
            Self::Cut(whole) => whole.len(0),
        }
    }
}
