//! Who is asked for the Ethernet address of an IP address: address resolution without flooding.
//!
//! The address plan says which node an address belongs to. So a pod's ARP request or neighbour
//! solicitation goes to that node alone, and to no node if it is this one, whose bridge has asked its
//! pods already. An address may be elsewhere all the same: given by hand, claimed, or with a pod that
//! moved. So what stays unanswered is flooded when it is asked again, which a kernel does after a
//! second; and where the answer then comes from another node than the owner, that address is flooded
//! at once for as long as this goes on.
//!
//! Never directed are announcements, probes whether an address is free, and what a station says that
//! was not known to be here: all of them tell others where the sender is.

mod owners;
mod questions;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use wire::ethernet::{ETHERTYPE_ARP, ETHERTYPE_IPV6, HEADER_LEN};
use wire::{Mac, arp, ndp};

pub use owners::{OwnedRange, Owner, OwnerMap};
pub use questions::Questions;
use questions::Verdict;

use crate::forwarding::{Forwarding, Slot};

/// The address plan, and what was asked. Without a plan every question is flooded.
#[derive(Debug, Clone, Default)]
pub struct Resolver(Option<Plan>);

#[derive(Debug, Clone)]
struct Plan {
    owners: Arc<OwnerMap>,
    /// Shared by successive snapshots.
    questions: Arc<Questions>,
}

/// Where a question goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// To the owner of the address.
    Owner(Slot),
    /// To nobody: the address is this node's, and its pods have heard the question.
    Here,
    /// To all, for the owner has not answered, or somebody else has.
    All,
}

impl Resolver {
    /// A resolver by this plan.
    pub fn new(owners: Arc<OwnerMap>, questions: Arc<Questions>) -> Self {
        let known = !owners.is_empty();
        Self(known.then_some(Plan { owners, questions }))
    }

    /// Whom a frame from the TAP asks; none: it is no question, or the plan has no answer to it, so it
    /// goes where other frames go. `now` in seconds.
    pub(crate) fn ask(&self, frame: &[u8], forwarding: &Forwarding, now: u32) -> Option<Asked> {
        let plan = self.0.as_ref()?;
        let target = question(frame)?;
        let asker = wire::ethernet::src(frame)?;
        let to = match plan.owners.owner(target)? {
            // The bridge's own address is nowhere else.
            Owner::Me if is_own(target, forwarding) => return Some(Asked::Here),
            Owner::Me => Asked::Here,
            Owner::Peer(peer) => Asked::Owner(forwarding.peer(peer)?),
        };
        Some(match plan.questions.ask(asker, target, now) {
            Verdict::Owner => to,
            Verdict::All => Asked::All,
        })
    }

    /// Sees a frame that came by a link: it may be an answer.
    #[inline]
    pub(crate) fn see(&self, frame: &[u8], slot: Slot, forwarding: &Forwarding, now: u32) {
        if let Some(plan) = &self.0
            && may_answer(frame)
        {
            plan.answered(frame, slot, forwarding, now);
        }
    }
}

impl Plan {
    fn answered(&self, frame: &[u8], slot: Slot, forwarding: &Forwarding, now: u32) {
        let Some(target) = answer(frame) else {
            return;
        };
        let Some(asker) = wire::ethernet::dst(frame).filter(|asker| asker.is_unicast()) else {
            return;
        };
        let by_owner = match self.owners.owner(target) {
            Some(Owner::Peer(peer)) => forwarding.peer(peer) == Some(slot),
            Some(Owner::Me) | None => false,
        };
        self.questions.answered(asker, target, by_owner, now);
    }
}

/// The address that a frame asks for, on behalf of a station that has one. Tagged frames are another
/// network's, of which the plan says nothing.
fn question(frame: &[u8]) -> Option<IpAddr> {
    match ethertype(frame)? {
        ETHERTYPE_ARP => {
            let asked = arp::parse_packet(&frame[HEADER_LEN..]).ok()?;
            let asks = asked.operation == arp::Operation::Request
                && !asked.sender_ip.is_unspecified()
                && asked.sender_ip != asked.target_ip
                && Some(asked.sender_mac) == wire::ethernet::src(frame);
            asks.then_some(asked.target_ip.into())
        }
        ETHERTYPE_IPV6 => {
            let asked = ndp::solicitation(frame)?;
            let asks = !asked.source.is_unspecified() && asked.source != asked.target;
            asks.then_some(asked.target.into())
        }
        _ => None,
    }
}

/// The address that a frame tells the Ethernet address of.
fn answer(frame: &[u8]) -> Option<IpAddr> {
    match ethertype(frame)? {
        ETHERTYPE_ARP => {
            let told = arp::parse_packet(&frame[HEADER_LEN..]).ok()?;
            (told.operation == arp::Operation::Reply).then_some(told.sender_ip.into())
        }
        ETHERTYPE_IPV6 => ndp::advertisement(frame).map(IpAddr::from),
        _ => None,
    }
}

/// A glance that most frames do not pass.
#[inline]
fn may_answer(frame: &[u8]) -> bool {
    match ethertype(frame) {
        Some(ETHERTYPE_ARP) => true,
        Some(ETHERTYPE_IPV6) => frame.get(HEADER_LEN + 6) == Some(&wire::checksum::PROTOCOL_ICMPV6),
        _ => false,
    }
}

#[inline]
fn ethertype(frame: &[u8]) -> Option<u16> {
    let header = frame.first_chunk::<HEADER_LEN>()?;
    Some(u16::from_be_bytes([header[12], header[13]]))
}

fn is_own(target: IpAddr, forwarding: &Forwarding) -> bool {
    let own: Option<Ipv4Addr> = forwarding.own().and_then(|own| own.v4);
    own.is_some_and(|own| target == own)
}

/// Whether a frame to this group may be a question: `33:33:ff`, the solicited-node addresses (RFC 4291
/// §2.7.1, RFC 2464 §7), or a broadcast.
pub(crate) fn may_ask(dst: Mac) -> bool {
    dst.is_broadcast() || dst.0[..3] == [0x33, 0x33, 0xff]
}
