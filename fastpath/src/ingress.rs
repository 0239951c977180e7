//! From the underlay to the TAP.

use std::net::SocketAddr;
use std::sync::Arc;

use wire::ethernet::{HEADER_LEN, VLAN_TAG_LEN};
use wire::probe::Probe;
use wire::vxlan::{self, VxlanError};
use wire::{PeerId, aggregate, probe, sleeve};

use crate::counters::{Counters, DropReason, add};
use crate::forwarding::{Encapsulation, Forwarding, Slot};
use crate::join::Joiner;
use crate::mac_table::{MacCache, MacTable, Port};
use crate::seal::Sealer;
use crate::train::{Train, TrainSink};
use crate::vnet::VnetHdr;
use crate::{oversized, relay};

/// One receive: a datagram, or with `UDP_GRO` a run of equal ones.
#[derive(Debug)]
pub struct Datagram<'a> {
    /// The bytes received. What is relayed is changed in place.
    pub bytes: &'a mut [u8],
    /// Bytes of each datagram but the last, which may be shorter; 0 if there is just one.
    pub segment: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// Which socket it came to.
    pub encapsulation: Encapsulation,
}

/// Takes frames for the TAP.
pub trait FrameSink {
    /// Writes one frame, given in parts: the [`VnetHdr`] first. At most [`crate::MAX_PARTS`]
    /// parts. Failures are the sink's to count.
    fn deliver(&mut self, parts: &[&[u8]]);
}

/// Takes what is for the router itself.
pub trait ControlSink {
    /// Takes a probe, or drops it and counts.
    fn probe(&mut self, probe: Arrival<'_>);
    /// Takes a message of a handshake, or drops it and counts. Nothing of it is proven: neither who
    /// made it nor that it is one. A sink without keys has no use for it.
    fn handshake(&mut self, _from: PeerId, _origin: SocketAddr, _message: &[u8]) {}
    /// Takes news of the keys for a peer.
    fn keys(&mut self, _peer: PeerId, _news: KeyNews) {}
    /// The keys for a peer that has no link: by probes it gets one.
    fn sealer(&self, _peer: PeerId) -> Option<Arc<Sealer>> {
        None
    }
}

/// What was seen of the keys for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyNews {
    /// The key of this epoch has opened its first datagram.
    Used(u16),
    /// A datagram is sealed with a key that is not here.
    Lost,
}

/// A frame for the router itself.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    /// How it was wrapped.
    pub encapsulation: Encapsulation,
    /// Whence it came: its origin, or the last relay.
    pub source: SocketAddr,
    /// Whether it passed a relay.
    pub relayed: bool,
    /// The inner frame.
    pub frame: &'a [u8],
}

/// Where the output of a batch goes.
#[derive(Debug)]
pub struct Outlets<'a, Tap, Underlay, Control> {
    /// Frames for this node.
    pub tap: &'a mut Tap,
    /// Datagrams for others.
    pub underlay: &'a mut Underlay,
    /// Probes.
    pub control: &'a mut Control,
}

/// One worker's side towards the TAP.
#[derive(Debug, Default)]
pub struct Ingress {
    cache: MacCache,
    takes: TapTakes,
    /// Where super-frames are cut that a TAP without offloads does not take.
    scratch: Vec<u8>,
}

/// What a TAP takes with work left undone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TapTakes {
    /// Frames whose checksum is partial. Without it the sums that a peer left so are completed
    /// here.
    pub csum: bool,
    /// TCP super-frames. Without it each segment is written by itself.
    pub tcp: bool,
    /// Runs of UDP datagrams. Without it each is written by itself.
    pub udp: bool,
}

impl Ingress {
    /// An engine for a TAP that takes this.
    pub fn new(takes: TapTakes) -> Self {
        Self {
            cache: MacCache::new(),
            takes,
            scratch: Vec::new(),
        }
    }

    /// Joins no more: the TAP was seen to refuse joined frames. Whether that is a change.
    pub fn stop_joining(&mut self) -> bool {
        let joined = self.takes.tcp || self.takes.udp;
        self.takes = TapTakes {
            tcp: false,
            udp: false,
            ..self.takes
        };
        joined
    }

    /// Takes a batch of receives at `now` (seconds on the MAC table's clock) and delivers every
    /// frame in it before it returns.
    pub fn batch<'a>(
        &mut self,
        received: impl IntoIterator<Item = Datagram<'a>>,
        forwarding: &Forwarding,
        macs: &MacTable,
        counters: &Counters,
        now: u32,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        self.cache.refresh(macs, now);
        let TapTakes { csum, tcp, udp } = self.takes;
        let mut batch = Batch {
            cache: &mut self.cache,
            scratch: &mut self.scratch,
            joiner: Joiner::new(tcp, udp, csum),
            tcp,
            forwarding,
            macs,
            counters,
            now,
            tally: Tally::default(),
        };
        for mut run in received {
            if run.segment == 0 {
                run.segment = run.bytes.len().max(1);
            }
            match run.encapsulation {
                Encapsulation::Vxlan => batch.vxlan(run, out),
                Encapsulation::Sleeve => batch.sleeve(run, out),
            }
            batch.count();
        }
        batch.joiner.flush(counters, out.tap);
    }
}

/// One batch under way.
struct Batch<'b, 'a> {
    cache: &'b mut MacCache,
    scratch: &'b mut Vec<u8>,
    joiner: Joiner<'a>,
    /// Whether the TAP takes TCP super-frames.
    tcp: bool,
    forwarding: &'b Forwarding,
    macs: &'b MacTable,
    counters: &'b Counters,
    now: u32,
    tally: Tally,
}

/// What came by one link and is not counted yet.
#[derive(Debug, Default)]
struct Tally {
    slot: Slot,
    datagrams: u64,
    frames: u64,
    bytes: u64,
}

/// What a datagram held.
#[derive(Debug, Clone, Copy)]
enum Content<'a> {
    /// A pod's frame, and the link that it came by.
    Frame(Slot, &'a [u8]),
    /// A frame for the router itself.
    Probe(&'a [u8]),
    /// No frame: its sender shows that it has the key, and no more.
    Nothing,
}

impl<'a> Batch<'_, 'a> {
    /// A run of VXLAN datagrams.
    fn vxlan(
        &mut self,
        Datagram {
            bytes,
            segment,
            source,
            ..
        }: Datagram<'a>,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        let slot = self.forwarding.source(source.ip());
        // Only a link whose other end is a kernel's VXLAN device brings more than its MTU. The bridge
        // lets a VLAN tag pass beyond it.
        let longest = slot
            .and_then(|slot| self.forwarding.link(slot))
            .filter(|link| link.encapsulation == Encapsulation::Vxlan)
            .map_or(usize::MAX, |link| {
                usize::from(link.mtu) + HEADER_LEN + VLAN_TAG_LEN
            });
        let bytes: &'a [u8] = bytes;
        if self.forwarding.is_sealed() && slot.is_none() {
            let datagrams = bytes.chunks(segment).len() as u64;
            return self.counters.drop(DropReason::PlainRefused, datagrams);
        }
        for datagram in bytes.chunks(segment) {
            let opened = vxlan_frame(datagram, self.forwarding).and_then(|frame| {
                if let Some(probe) = for_the_router(frame)? {
                    return Ok(Content::Probe(probe));
                }
                let slot = slot.ok_or(DropReason::UnknownSource)?;
                self.learn(frame, slot)?;
                Ok(Content::Frame(slot, frame))
            });
            let arrival = |frame| Arrival {
                encapsulation: Encapsulation::Vxlan,
                source,
                relayed: false,
                frame,
            };
            self.pass_on(opened, longest, arrival, out);
        }
    }

    /// A run of sleeve datagrams: those for this node are opened, the others go on as trains.
    fn sleeve(
        &mut self,
        Datagram {
            bytes,
            segment,
            source,
            ..
        }: Datagram<'a>,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        let known = self.forwarding.is_neighbour(source.ip());
        let mut rest = bytes;
        while !rest.is_empty() {
            let relayed = relay::leading(rest, segment, source, known, self.forwarding);
            if let Some(onward) = relayed {
                let (bytes, behind) = std::mem::take(&mut rest).split_at_mut(onward.bytes);
                rest = behind;
                match onward.verdict {
                    Ok(hop) => {
                        add(&self.counters.relayed_datagrams, onward.count as u64);
                        out.underlay.send(Train {
                            slot: hop.slot,
                            endpoint: hop.endpoint,
                            encapsulation: Encapsulation::Sleeve,
                            socket: 0,
                            segment,
                            count: onward.count,
                            bytes,
                        });
                    }
                    Err(reason) => self.counters.drop(reason, onward.count as u64),
                }
                continue;
            }
            let len = segment.min(rest.len());
            let (datagram, behind) = std::mem::take(&mut rest).split_at_mut(len);
            rest = behind;
            let Ok((header, _)) = sleeve::parse(datagram) else {
                self.counters.drop(DropReason::SleeveTruncated, 1);
                continue;
            };
            let relayed = header.hop_limit != sleeve::HOP_LIMIT;
            let opened = match header.kind {
                sleeve::Kind::SEALED => self.open_sealed(&header, datagram, out.control),
                sleeve::Kind::AGGREGATE => {
                    match self.unseal(&header, datagram, out.control) {
                        Ok((slot, frames)) => self.pass_on_all(slot, frames, out),
                        Err(reason) => self.counters.drop(reason, 1),
                    }
                    continue;
                }
                sleeve::Kind::HANDSHAKE => {
                    let message = &datagram[sleeve::HEADER_LEN..];
                    out.control.handshake(header.source, source, message);
                    continue;
                }
                _ => self.open_plain(&header, &datagram[sleeve::HEADER_LEN..], known),
            };
            let arrival = |frame| Arrival {
                encapsulation: Encapsulation::Sleeve,
                source,
                relayed,
                frame,
            };
            self.pass_on(opened, usize::MAX, arrival, out);
        }
    }

    /// Opens a sealed datagram for this node: the link to its sender, if there is one, and its text. That
    /// it opens is proof of its sender, wherever it came from.
    fn unseal(
        &mut self,
        header: &sleeve::Header,
        datagram: &'a mut [u8],
        control: &mut impl ControlSink,
    ) -> Result<(Option<Slot>, &'a [u8]), DropReason> {
        let slot = self.forwarding.peer(header.source);
        let link = slot.and_then(|slot| self.forwarding.link(slot));
        let unlinked;
        let sealer = match link {
            Some(link) => link.sealer.as_ref(),
            None => {
                unlinked = control.sealer(header.source);
                unlinked.as_ref()
            }
        };
        let sealer = sealer.ok_or(DropReason::SealNoSession)?;
        let opened = sealer.open(header.epoch, datagram).inspect_err(|reason| {
            if matches!(
                reason,
                DropReason::SealNoSession | DropReason::SealUnknownEpoch
            ) && sealer.may_ask(self.now)
            {
                control.keys(header.source, KeyNews::Lost);
            }
        })?;
        if opened.first {
            control.keys(header.source, KeyNews::Used(header.epoch));
        }
        Ok((slot, opened.frame))
    }

    /// Opens a sealed datagram with one frame, or none.
    fn open_sealed(
        &mut self,
        header: &sleeve::Header,
        datagram: &'a mut [u8],
        control: &mut impl ControlSink,
    ) -> Result<Content<'a>, DropReason> {
        let (slot, frame) = self.unseal(header, datagram, control)?;
        if frame.is_empty() {
            return Ok(Content::Nothing);
        }
        if let Some(frame) = for_the_router(frame)? {
            // Whoever has a session speaks for itself alone.
            let forged = |probe: Probe| probe.source != header.source;
            if probe::parse(frame).is_ok_and(forged) {
                return Err(DropReason::PeerBadSource);
            }
            return Ok(Content::Probe(frame));
        }
        let slot = slot.ok_or(DropReason::SleeveUnknownPeer)?;
        self.learn(frame, slot)?;
        Ok(Content::Frame(slot, frame))
    }

    /// Opens a plain sleeve datagram for this node.
    fn open_plain(
        &mut self,
        header: &sleeve::Header,
        payload: &'a [u8],
        known: bool,
    ) -> Result<Content<'a>, DropReason> {
        let frame = match header.kind {
            sleeve::Kind::PLAIN if self.forwarding.is_sealed() => {
                return Err(DropReason::PlainRefused);
            }
            sleeve::Kind::PLAIN => payload,
            _ => return Err(DropReason::SleeveUnknownKind),
        };
        if let Some(probe) = for_the_router(frame)? {
            return Ok(Content::Probe(probe));
        }
        if !known {
            return Err(DropReason::UnknownSource);
        }
        let slot = self.forwarding.peer(header.source);
        let slot = slot.ok_or(DropReason::SleeveUnknownPeer)?;
        self.learn(frame, slot)?;
        Ok(Content::Frame(slot, frame))
    }

    /// Hands on the frames of an aggregate. Those for the router itself come alone.
    fn pass_on_all(
        &mut self,
        slot: Option<Slot>,
        text: &'a [u8],
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        add(&self.counters.rx_aggregates, 1);
        let Some(slot) = slot else {
            return self.counters.drop(DropReason::SleeveUnknownPeer, 1);
        };
        self.tally(slot);
        self.tally.datagrams += 1;
        for frame in aggregate::frames(text) {
            let taken = match frame {
                Err(_) => Err(DropReason::PeerBadAggregate),
                Ok(frame) => match for_the_router(frame) {
                    Ok(None) => self.learn(frame, slot).map(|()| frame),
                    Ok(Some(_)) => Err(DropReason::LinkLocal),
                    Err(reason) => Err(reason),
                },
            };
            match taken {
                Ok(frame) => self.deliver(slot, frame, usize::MAX, out),
                Err(reason) => self.counters.drop(reason, 1),
            }
        }
    }

    /// Learns that a frame's source is behind a link.
    fn learn(&mut self, frame: &[u8], slot: Slot) -> Result<(), DropReason> {
        let src = wire::ethernet::src(frame).ok_or(DropReason::PeerRunt)?;
        if !src.is_unicast() {
            return Err(DropReason::PeerBadSource);
        }
        self.cache.learn(self.macs, src, Port::Link(slot), self.now);
        Ok(())
    }

    /// Hands on what a datagram held. `longest` is the most bytes of a frame that its sender cannot
    /// have left whole for somebody else to cut.
    fn pass_on(
        &mut self,
        opened: Result<Content<'a>, DropReason>,
        longest: usize,
        arrival: impl FnOnce(&'a [u8]) -> Arrival<'a>,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        let (slot, frame) = match opened {
            Ok(Content::Frame(slot, frame)) => (slot, frame),
            Ok(Content::Probe(frame)) => {
                add(&self.counters.probes, 1);
                out.control.probe(arrival(frame));
                return;
            }
            Ok(Content::Nothing) => return,
            Err(reason) => {
                self.counters.drop(reason, 1);
                return;
            }
        };
        self.tally(slot);
        self.tally.datagrams += 1;
        self.deliver(slot, frame, longest, out);
    }

    /// Counts for this link from now on.
    fn tally(&mut self, slot: Slot) {
        if self.tally.slot != slot {
            self.count();
            self.tally.slot = slot;
        }
    }

    /// Hands on a pod's frame; `longest` as above.
    fn deliver(
        &mut self,
        slot: Slot,
        frame: &'a [u8],
        longest: usize,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        self.tally.frames += 1;
        self.tally.bytes += frame.len() as u64;
        let forwarding = self.forwarding;
        forwarding.resolver().see(frame, slot, forwarding, self.now);
        // Only TCP beyond it can be a super-frame that was left whole; anything else is the bridge's
        // to judge, whose MTU may be larger than this link's.
        if frame.len() <= longest || !oversized::may_be(frame) {
            self.joiner.push(frame, self.counters, out.tap);
            return;
        }
        // It must not overtake what its flow has sent before.
        self.joiner.flush(self.counters, out.tap);
        let mtu = self.forwarding.link(slot).map_or(u16::MAX, |link| link.mtu);
        let delivered =
            oversized::deliver(frame, mtu, self.tcp, self.scratch, self.counters, out.tap);
        if let Err(reason) = delivered {
            self.counters.drop(reason, 1);
        }
    }

    /// Counts what came by one link.
    fn count(&mut self) {
        let Tally {
            slot,
            datagrams,
            frames,
            bytes,
        } = std::mem::take(&mut self.tally);
        add(&self.counters.rx_datagrams, datagrams);
        if frames == 0 {
            return;
        }
        if let Some(link) = self.forwarding.link(slot) {
            link.counters.received(frames, bytes);
        }
    }
}

/// The frame in a VXLAN datagram of our network.
fn vxlan_frame<'a>(datagram: &'a [u8], forwarding: &Forwarding) -> Result<&'a [u8], DropReason> {
    let (vni, frame) = vxlan::parse(datagram).map_err(|error| match error {
        VxlanError::Truncated(_) => DropReason::VxlanTruncated,
        VxlanError::NoVni(_) => DropReason::VxlanNoVni,
    })?;
    if vni != forwarding.vni() {
        return Err(DropReason::VxlanForeignVni);
    }
    Ok(frame)
}

/// A frame that is not for the bridge: a probe; other frames that never leave their link do not get
/// here, and are not let in.
fn for_the_router(frame: &[u8]) -> Result<Option<&[u8]>, DropReason> {
    match wire::ethernet::dst(frame) {
        None => Err(DropReason::PeerRunt),
        Some(dst) if !dst.is_link_local() => Ok(None),
        Some(_) if probe::is_probe(frame) => Ok(Some(frame)),
        Some(_) => Err(DropReason::LinkLocal),
    }
}

/// The header of a frame with nothing left undone.
pub(crate) fn plain_header() -> [u8; VnetHdr::LEN] {
    VnetHdr::PLAIN.bytes()
}
