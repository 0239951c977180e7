//! From the underlay to the TAP.

use std::net::SocketAddr;

use wire::Mac;
use wire::ethernet::{HEADER_LEN, VLAN_TAG_LEN};
use wire::vxlan::{self, VxlanError};

use crate::counters::{Counters, DropReason, add};
use crate::forwarding::{Forwarding, Slot};
use crate::join::Joiner;
use crate::mac_table::{MacCache, MacTable, Port};
use crate::oversized;
use crate::vnet::VnetHdr;

/// One receive: a datagram, or with `UDP_GRO` a run of equal ones.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// The bytes received.
    pub bytes: &'a [u8],
    /// Bytes of each datagram but the last, which may be shorter; 0 if there is just one.
    pub segment: usize,
    /// Who sent it.
    pub source: SocketAddr,
}

/// Takes frames for the TAP.
pub trait FrameSink {
    /// Writes one frame, given in parts: the [`VnetHdr`] first. At most [`crate::MAX_PARTS`]
    /// parts. Failures are the sink's to count.
    fn deliver(&mut self, parts: &[&[u8]]);
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
        sink: &mut impl FrameSink,
    ) {
        self.cache.refresh(macs, now);
        let TapTakes { csum, tcp, udp } = self.takes;
        let mut joiner = Joiner::new(tcp, udp, csum);
        for run in received {
            let segment = if run.segment == 0 {
                run.bytes.len().max(1)
            } else {
                run.segment
            };
            let (mut frames, mut bytes) = (0, 0);
            let Some(slot) = forwarding.source(run.source.ip()) else {
                counters.drop(
                    DropReason::UnknownSource,
                    run.bytes.chunks(segment).len() as u64,
                );
                continue;
            };
            // The bridge lets a VLAN tag pass beyond its MTU.
            let mtu = forwarding.link(slot).map_or(u16::MAX, |link| link.mtu);
            let longest = usize::from(mtu) + HEADER_LEN + VLAN_TAG_LEN;
            for datagram in run.bytes.chunks(segment) {
                match self.open(datagram, slot, forwarding, macs, now) {
                    Ok(frame) => {
                        frames += 1;
                        bytes += frame.len() as u64;
                        // Only TCP beyond it can be a super-frame that was left whole; anything else
                        // is the bridge's to judge, whose MTU may be larger than this link's.
                        if frame.len() <= longest || !oversized::may_be(frame) {
                            joiner.push(frame, counters, sink);
                            continue;
                        }
                        // It must not overtake what its flow has sent before.
                        joiner.flush(counters, sink);
                        let scratch = &mut self.scratch;
                        if let Err(reason) =
                            oversized::deliver(frame, mtu, tcp, scratch, counters, sink)
                        {
                            counters.drop(reason, 1);
                        }
                    }
                    Err(reason) => counters.drop(reason, 1),
                }
            }
            add(&counters.rx_datagrams, frames);
            if let Some(link) = forwarding.link(slot) {
                link.counters.received(frames, bytes);
            }
        }
        joiner.flush(counters, sink);
    }

    fn open<'a>(
        &mut self,
        datagram: &'a [u8],
        slot: Slot,
        forwarding: &Forwarding,
        macs: &MacTable,
        now: u32,
    ) -> Result<&'a [u8], DropReason> {
        let (vni, frame) = vxlan::parse(datagram).map_err(|error| match error {
            VxlanError::Truncated(_) => DropReason::VxlanTruncated,
            VxlanError::NoVni(_) => DropReason::VxlanNoVni,
        })?;
        if vni != forwarding.vni() {
            return Err(DropReason::VxlanForeignVni);
        }
        let Some(&[_, _, _, _, _, _, s0, s1, s2, s3, s4, s5, _, _]) = frame.first_chunk() else {
            return Err(DropReason::PeerRunt);
        };
        let src = Mac([s0, s1, s2, s3, s4, s5]);
        if !src.is_unicast() {
            return Err(DropReason::PeerBadSource);
        }
        self.cache.learn(macs, src, Port::Link(slot), now);
        Ok(frame)
    }
}

/// The header of a frame with nothing left undone.
pub(crate) fn plain_header() -> [u8; VnetHdr::LEN] {
    VnetHdr::PLAIN.bytes()
}
