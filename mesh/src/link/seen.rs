//! How others see this node's sleeve: a NAT shows as another address or port than its own.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use wire::PeerId;

/// Peers whose last word counts. A few agree as well as many.
const WITNESSES: usize = 16;

#[derive(Debug, Default)]
pub(super) struct Seen {
    by: BTreeMap<PeerId, SocketAddr>,
    /// What most say.
    agreed: Option<SocketAddr>,
}

impl Seen {
    /// A peer says whence this node's sleeve came to it. Returns whether the common view changed.
    ///
    /// A NAT with a mapping per destination (RFC 4787 §4.1) shows each peer another port: then the
    /// view that is held stays for as long as any peer still shares it.
    pub(super) fn note(&mut self, peer: PeerId, address: SocketAddr) -> bool {
        if !self.by.contains_key(&peer) && self.by.len() >= WITNESSES {
            return false;
        }
        self.by.insert(peer, address);
        self.agree()
    }

    /// A peer is gone, or no longer reached directly.
    pub(super) fn forget(&mut self, peer: PeerId) -> bool {
        self.by.remove(&peer).is_some() && self.agree()
    }

    /// The common view, if it is another than the node's own of itself.
    pub(super) fn translated(&self, own: &[IpAddr], port: u16) -> Option<SocketAddr> {
        self.agreed.filter(|seen| {
            let ip = seen.ip().to_canonical();
            seen.port() != port || !(own.is_empty() || own.contains(&ip))
        })
    }

    fn agree(&mut self) -> bool {
        let mut votes: BTreeMap<SocketAddr, usize> = BTreeMap::new();
        for address in self.by.values() {
            *votes.entry(*address).or_default() += 1;
        }
        let held = self.agreed.and_then(|address| votes.get(&address)).copied();
        let best = votes.iter().max_by_key(|(_, votes)| **votes);
        let agreed = match (best, held) {
            (Some((_, votes)), Some(held)) if *votes <= held => self.agreed,
            (Some((address, _)), _) => Some(*address),
            (None, _) => None,
        };
        std::mem::replace(&mut self.agreed, agreed) != agreed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 8])
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, 1], port))
    }

    #[test]
    fn most_decide_and_a_tie_changes_nothing() {
        let mut seen = Seen::default();
        assert!(seen.note(peer(1), at(1)));
        assert!(!seen.note(peer(2), at(2)));
        assert_eq!(seen.translated(&[], 6783), Some(at(1)));
        assert!(seen.note(peer(3), at(2)));
        assert_eq!(seen.translated(&[], 6783), Some(at(2)));
        assert!(!seen.forget(peer(3)));
        assert!(seen.forget(peer(2)));
        assert!(seen.forget(peer(1)));
        assert_eq!(seen.translated(&[], 6783), None);
    }

    #[test]
    fn its_own_address_is_no_translation() {
        let mut seen = Seen::default();
        seen.note(peer(1), at(6783));
        assert_eq!(seen.translated(&[], 6783), None);
        assert_eq!(seen.translated(&[at(0).ip()], 6783), None);
        let inside = IpAddr::from([192, 168, 1, 2]);
        assert_eq!(seen.translated(&[inside], 6783), Some(at(6783)));
    }

    #[test]
    fn i6_witnesses_are_bounded() {
        let mut seen = Seen::default();
        for n in 0..=255 {
            seen.note(peer(n), at(n.into()));
        }
        assert_eq!(seen.by.len(), WITNESSES);
    }
}
