//! Frames in the clear where others are sealed: between two addresses that both sides trust.
//!
//! Each side says for itself what it trusts, and nobody can say it for it: the word is in its sealed
//! answer to a probe that came straight to it, and is about the address that it saw the probe come
//! from. So both sides speak of the addresses that are in use now, as they are seen from the other
//! side. What was agreed rests on the sealed way between the two: it ends as soon as that way fails or
//! leads elsewhere, when this node loses the address, when the peer is another run, and when an answer
//! says so. Then frames are sealed, which they can be at any moment.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::{Links, Timer};
use crate::link::candidates::Candidates;
use crate::link::peer::Peer;
use crate::link::way::Sent;

/// Unanswered probes of the sealed way in a row that end what was agreed. One is chance.
const SILENT: u32 = 2;

/// What the operator reads of a peer that this node trusts in vain.
pub(super) const UNTRUSTED: &str = "frames are sealed: the peer does not trust this node's address";

/// What is agreed with a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Consent {
    /// Nothing: this node does not trust where the peer is, or the peer has not answered yet.
    None,
    /// Nothing: the peer does not trust where it sees this node.
    Refused,
    /// Frames may cross in the clear.
    Given {
        /// The peer's address.
        there: IpAddr,
        /// This node's, as the peer sees it.
        here: IpAddr,
    },
}

impl Links {
    /// The subnet, of those that this node trusts, in which an address is; none where nothing is
    /// sealed.
    pub(super) fn trusts(&self, address: IpAddr) -> Option<IpNet> {
        let address = address.to_canonical();
        let mut trusted = self.config.trusted.iter().filter(|_| self.config.sealed);
        trusted.find(|subnet| subnet.contains(&address)).copied()
    }

    /// Where a peer's frames may come from, and go to, in the clear, though others are sealed.
    pub(super) fn plain_at(&self, peer: &Peer) -> Option<IpAddr> {
        match peer.consent {
            Consent::Given { there, .. } if self.config.sealed && peer.barred.is_none() => {
                Some(there)
            }
            _ => None,
        }
    }

    /// Whether VXLAN may not be used with a peer: it is in the clear, and names no sender.
    pub(super) fn is_barred(&self, peer: &Peer) -> bool {
        peer.barred.is_some() || (self.config.sealed && self.plain_at(peer).is_none())
    }

    /// Where a peer's VXLAN may be: where its entry says, or where both sides trust.
    pub(super) fn vxlan_addresses(&self, peer: &Peer) -> Vec<SocketAddr> {
        let agreed = match peer.consent {
            Consent::Given { there, .. } => Some(there),
            Consent::None | Consent::Refused => None,
        };
        let named = peer.facts.addresses.iter().copied();
        let addresses: Vec<IpAddr> = match self.config.sealed {
            true => agreed.into_iter().collect(),
            false => named.collect(),
        };
        let at = |ip: IpAddr| SocketAddr::new(ip.to_canonical(), peer.facts.vxlan_port);
        addresses.into_iter().map(at).collect()
    }

    /// A sealed answer came straight from where the peer's sleeve is in use, to a probe that it saw
    /// come from `observed`; `plain` is the peer's word.
    pub(super) fn hear_consent(
        &self,
        peer: &mut Peer,
        sent: &Sent,
        observed: SocketAddr,
        plain: bool,
        now: Duration,
    ) {
        let elsewhere = peer.sleeve.candidates.current() != Some(sent.endpoint);
        // One that was overtaken tells of what was.
        if !self.config.sealed || elsewhere || sent.at < peer.consent_asked {
            return;
        }
        peer.consent_asked = sent.at;
        let there = sent.endpoint.ip().to_canonical();
        let here = observed.ip().to_canonical();
        let consent = match (self.trusts(there), plain) {
            (None, _) => Consent::None,
            (Some(_), false) => Consent::Refused,
            (Some(_), true) => Consent::Given { there, here },
        };
        self.agree(peer, consent, now);
    }

    /// Ends what was agreed if what it rests on is no more.
    pub(super) fn review_consent(&self, peer: &mut Peer, now: Duration) {
        let Consent::Given { there, .. } = peer.consent else {
            return;
        };
        let current = peer.sleeve.candidates.current();
        let stands = peer.sleeve.is_alive()
            && peer.sleeve.misses() < SILENT
            && current.is_some_and(|current| current.ip().to_canonical() == there);
        if !stands {
            self.agree(peer, Consent::None, now);
        }
    }

    /// Takes over what is agreed; VXLAN begins anew with it.
    pub(super) fn agree(&self, peer: &mut Peer, consent: Consent, now: Duration) {
        let before = std::mem::replace(&mut peer.consent, consent);
        if before == consent {
            return;
        }
        if matches!(before, Consent::Given { .. }) {
            peer.vxlan
                .fail("frames are sealed", &self.config.timing, now);
            peer.vxlan.abandon();
            peer.vxlan.candidates = Candidates::default();
        }
        if matches!(consent, Consent::Given { .. }) {
            let endpoints = self.vxlan_addresses(peer);
            let capacity = self.config.limits.addresses;
            peer.vxlan.candidates.tell(endpoints, capacity);
            peer.vxlan.hurry();
        }
    }

    /// This node's addresses are others now. As for one that it has lost: whence what it sends comes
    /// from now on, and through which networks, nobody knows yet.
    pub(super) fn addresses(&mut self, addresses: Vec<IpAddr>, now: Duration) {
        let old = std::mem::replace(&mut self.config.addresses, addresses);
        self.tell_seen();
        let mut lost = old.iter().map(IpAddr::to_canonical).collect::<Vec<_>>();
        lost.retain(|old| {
            !self
                .config
                .addresses
                .iter()
                .any(|new| new.to_canonical() == *old)
        });
        let rests = |peer: &Peer| matches!(peer.consent, Consent::Given { here, .. } if lost.contains(&here));
        let ids = self.peers.iter().filter(|(_, peer)| rests(peer));
        for id in ids.map(|(id, _)| *id).collect::<Vec<_>>() {
            if let Some(mut peer) = self.peers.remove(&id) {
                self.agree(&mut peer, Consent::None, now);
                // Answers that are on their way are about the old address.
                peer.consent_asked = now;
                self.peers.insert(id, peer);
                self.timers.set(Timer::Peer(id), now);
            }
        }
    }
}
