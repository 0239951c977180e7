//! What becomes of a sleeve datagram that is for another node: it goes on to that node, or towards
//! it, with one less of its hop limit, and never back to where it came from.
//!
//! Nothing is copied and nothing looked into: a run of datagrams that go the same way leaves as a
//! train from where it was received.

use std::net::SocketAddr;

use wire::sleeve;

use crate::counters::DropReason;
use crate::forwarding::{Forwarding, Slot};
use crate::train::TrainLimits;

/// Datagrams at the start of a run with one verdict.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leading {
    pub(crate) bytes: usize,
    pub(crate) count: usize,
    pub(crate) verdict: Result<Hop, DropReason>,
}

/// Where they go next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Hop {
    pub(crate) slot: Slot,
    pub(crate) endpoint: SocketAddr,
}

/// The datagrams at the start of `run`, each of `segment` bytes but the last, that are for another
/// node and share a verdict: as many as make a train. Their hop limits are lowered. `None` if the
/// first is for this node, or no sleeve.
///
/// `source` sent the run, and is `known` for a peer or a relay.
pub(crate) fn leading(
    run: &mut [u8],
    segment: usize,
    source: SocketAddr,
    known: bool,
    forwarding: &Forwarding,
) -> Option<Leading> {
    let limits = TrainLimits::default();
    let mut leading: Option<Leading> = None;
    for datagram in run.chunks_mut(segment).take(limits.segments) {
        let Some(verdict) = judge(datagram, source, known, forwarding) else {
            break;
        };
        let leading = leading.get_or_insert(Leading {
            bytes: 0,
            count: 0,
            verdict: verdict.map(|(hop, _)| hop),
        });
        let bytes = leading.bytes + datagram.len();
        let fits = leading.count == 0 || bytes <= limits.bytes;
        if !fits || leading.verdict != verdict.map(|(hop, _)| hop) {
            break;
        }
        if let Ok((_, hop_limit)) = verdict {
            sleeve::set_hop_limit(datagram, hop_limit);
        }
        leading.bytes = bytes;
        leading.count += 1;
    }
    leading
}

/// Where one datagram goes and with which hop limit. `None` if it is for this node, or no sleeve.
fn judge(
    datagram: &[u8],
    source: SocketAddr,
    known: bool,
    forwarding: &Forwarding,
) -> Option<Result<(Hop, u8), DropReason>> {
    let (header, _) = sleeve::parse(datagram).ok()?;
    if header.destination == forwarding.me() {
        return None;
    }
    Some(onward(&header, source, known, forwarding))
}

fn onward(
    header: &sleeve::Header,
    source: SocketAddr,
    known: bool,
    forwarding: &Forwarding,
) -> Result<(Hop, u8), DropReason> {
    if forwarding.is_sealed() && header.kind == sleeve::Kind::PLAIN {
        return Err(DropReason::PlainRefused);
    }
    // Nobody outside of the mesh gets anything relayed.
    if !known {
        return Err(DropReason::UnknownSource);
    }
    let left = header.hop_limit.checked_sub(1);
    let left = left.ok_or(DropReason::HopLimit)?;
    let (slot, endpoint) = forwarding
        .relay(header.destination)
        .ok_or(DropReason::NoRoute)?;
    // A datagram of this node's own that comes in is on its way around, too.
    if endpoint == source || header.source == forwarding.me() {
        return Err(DropReason::RouteBack);
    }
    Ok((Hop { slot, endpoint }, left))
}
