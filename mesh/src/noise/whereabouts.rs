//! Where peers may be that there is neither a session nor a link with: where probes were to go.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

/// Addresses of one peer: as many as are probed at once, and a relay's. The oldest gives way.
const ADDRESSES: usize = 5;
/// For how long one counts after it was last to be probed. Probes of a way that does not work leave
/// every few seconds.
const FRESH: Duration = Duration::from_secs(15);

/// Addresses by peer, with when each was last to be probed. Bounded by the peers that are probed.
#[derive(Debug, Default)]
pub struct Whereabouts(HashMap<PeerId, Vec<(SocketAddr, Duration)>>);

impl Whereabouts {
    /// A probe was to go there.
    pub fn note(&mut self, peer: PeerId, at: SocketAddr, now: Duration) {
        let known = self.0.entry(peer).or_default();
        known.retain(|(known, _)| *known != at);
        if known.len() >= ADDRESSES {
            known.remove(0);
        }
        known.push((at, now));
    }

    /// Where a peer may be.
    pub fn of(&self, peer: PeerId, now: Duration) -> Vec<SocketAddr> {
        let known = self.0.get(&peer).into_iter().flatten();
        let fresh = known.filter(|(_, since)| since.saturating_add(FRESH) > now);
        fresh.map(|(at, _)| *at).collect()
    }

    /// Whether there is any such place.
    pub fn knows(&self, peer: PeerId, now: Duration) -> bool {
        !self.of(peer, now).is_empty()
    }

    /// The peer is no more.
    pub fn forget(&mut self, peer: PeerId) {
        self.0.remove(&peer);
    }

    /// Forgets what is old.
    pub fn tidy(&mut self, now: Duration) {
        self.0.retain(|_, known| {
            known.retain(|(_, since)| since.saturating_add(FRESH) > now);
            !known.is_empty()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_few_places_count_for_a_while() {
        let mut whereabouts = Whereabouts::default();
        let (peer, at) = (PeerId([1; 8]), |port| {
            SocketAddr::from(([192, 0, 2, 1], port))
        });
        for port in 1..=7 {
            whereabouts.note(peer, at(port), Duration::from_secs(port.into()));
        }
        whereabouts.note(peer, at(4), Duration::from_secs(8));
        let now = Duration::from_secs(9);
        assert_eq!(
            whereabouts.of(peer, now),
            [at(3), at(5), at(6), at(7), at(4)]
        );
        let now = Duration::from_secs(22);
        assert_eq!(whereabouts.of(peer, now), [at(4)]);
        whereabouts.tidy(Duration::from_secs(30));
        assert!(whereabouts.0.is_empty());
        assert!(!whereabouts.knows(peer, now));
    }
}
