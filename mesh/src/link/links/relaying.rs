//! Ways through others, for peers that are not reached directly.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::PeerId;

use super::{Links, Timer};
use crate::link::peer::{Kind, Peer, Relay};
use crate::link::view::LinkState;
use crate::link::way::Way;
use crate::route::{Graph, Reach, Route};

/// Between searches for a relay of one peer: each looks at all nodes.
const SEEK: Duration = Duration::from_secs(1);
/// A peer that no relay reaches is most likely dead: the time doubles, up to 32 seconds.
const MAX_DOUBLINGS: u32 = 5;
/// Between searches for a shorter way than the one that works.
const SHORTEN: Duration = Duration::from_secs(10);

impl Links {
    /// Finds, changes or ends the relay of a peer.
    pub(super) fn relay(&mut self, id: PeerId, peer: &mut Peer, now: Duration) {
        peer.shunned.retain(|(_, until)| *until > now);
        for kind in [Kind::Relay, Kind::Trial] {
            if let Some(via) = peer.via(kind)
                && (self.sleeve_of(via).is_none() || failed(peer, kind))
            {
                *slot(peer, kind) = None;
                peer.seek_at = now;
            }
        }
        if !self.wants_relay(peer) {
            // The relay carries frames until the direct way is trusted.
            if peer.chosen != Some(Kind::Relay) {
                peer.relay = None;
            }
            peer.trial = None;
            // The next trouble does not wait for what the last one left behind.
            peer.seek_at = now;
            return;
        }
        if peer
            .trial
            .as_ref()
            .is_some_and(|trial| trial.way.is_trusted())
        {
            peer.relay = peer.trial.take();
        }
        if peer.trial.is_some() || peer.seek_at > now {
            return;
        }
        let (route, hops) = self.routes(id, peer);
        if let (Some(relay), Some(hops)) = (&mut peer.relay, hops) {
            relay.route.hops = hops;
        }
        let hops = peer.relay.as_ref().map(|relay| relay.route.hops);
        let doublings = peer.sought.min(MAX_DOUBLINGS);
        let wait = if hops.is_some() {
            SHORTEN
        } else {
            SEEK * (1 << doublings)
        };
        peer.seek_at = now + wait;
        peer.sought = peer.sought.saturating_add(1);
        let shorter = route.filter(|route| hops.is_none_or(|hops| route.hops < hops));
        if let Some(route) = shorter {
            let way = self.through(&route, peer, now);
            let relay = Some(Box::new(Relay { route, way }));
            if hops.is_some() {
                peer.trial = relay;
            } else {
                peer.relay = relay;
            }
        }
    }

    /// When relays are looked for again, if one is wanted.
    pub(super) fn next_search(&self, peer: &Peer) -> Option<Duration> {
        let wanted = peer.trial.is_none() && self.wants_relay(peer);
        wanted.then_some(peer.seek_at)
    }

    /// Others may have become a way to peers that have none.
    pub(super) fn seek_again(&mut self, now: Duration) {
        let wanting = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.chosen.is_none() || peer.relay.is_some());
        for (id, peer) in wanting {
            // A relay that did not deliver may have found a way meanwhile.
            if peer.chosen.is_none() {
                peer.shunned.clear();
            }
            peer.seek_at = peer.seek_at.min(now + SEEK);
            self.timers.bring_forward(Timer::Peer(*id), peer.seek_at);
        }
    }

    /// Whether no direct way is known to work. One that has not had its time to answer is waited
    /// for.
    fn wants_relay(&self, peer: &Peer) -> bool {
        let untried = |way: &Way| {
            way.state() == LinkState::Connecting && way.misses() == 0 && !way.candidates.is_empty()
        };
        !peer.is_well() && !untried(&peer.sleeve) && (self.is_barred(peer) || !untried(&peer.vxlan))
    }

    /// Sleeve reaches a peer no more, or elsewhere: ways through it change.
    pub(super) fn relay_changed(&mut self, id: PeerId, now: Duration) {
        for other in &self.relayed {
            let through = |peer: &Peer| {
                let via = [Kind::Relay, Kind::Trial].map(|kind| peer.via(kind));
                via.contains(&Some(id))
            };
            if self.peers.get(other).is_some_and(|peer| through(peer)) {
                self.timers.set(Timer::Peer(*other), now);
            }
        }
    }

    /// The shortest way to a peer, and how many links the present one crosses.
    ///
    /// Most ways have one relay, which is found by a look at the peers; only where there is none is the
    /// whole graph built and searched.
    fn routes(&self, id: PeerId, peer: &Peer) -> (Option<Route>, Option<u8>) {
        let me = self.config.me;
        let reaches = |relay: &Peer, by: PeerId| {
            peer.facts.reach.contains(by) && relay.facts.reach.contains(id)
        };
        let is_shunned = |by: PeerId| peer.shunned.iter().any(|(relay, _)| *relay == by);
        let relays = self
            .direct()
            .filter(|(by, relay)| reaches(relay, *by) && !is_shunned(*by));
        let shortest = Route::through_one(me, id, relays.map(|(by, _)| by))
            .or_else(|| self.search(id, peer, &self.direct().map(|(by, _)| by).collect(), true));

        let present = peer.via(Kind::Relay).and_then(|by| {
            let relay = self.peers.get(&by)?;
            if reaches(relay, by) {
                return Some(2);
            }
            let route = self.search(id, peer, &BTreeSet::from([by]), false)?;
            Some(route.hops)
        });
        (shortest, present)
    }

    /// Peers that this node reaches directly over sleeve and that reach it.
    fn direct(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        let me = self.config.me;
        let peers = self.peers.iter().map(|(id, peer)| (*id, &**peer));
        peers.filter(move |(_, peer)| peer.sleeve.is_alive() && peer.facts.reach.contains(me))
    }

    /// The shortest way to a peer that begins with one of `direct`.
    fn search(
        &self,
        id: PeerId,
        peer: &Peer,
        direct: &BTreeSet<PeerId>,
        shun: bool,
    ) -> Option<Route> {
        if direct.is_empty() {
            return None;
        }
        let others = self.peers.iter().map(|(id, peer)| (*id, &peer.facts.reach));
        let mut reach: BTreeMap<PeerId, &Reach> = others.collect();
        reach.insert(id, &peer.facts.reach);
        let graph = Graph {
            me: self.config.me,
            direct,
            reach: &reach,
        };
        let shunned = peer.shunned.iter().filter(|_| shun);
        let shunned: Vec<PeerId> = shunned.map(|(relay, _)| *relay).collect();
        graph.route(id, &shunned)
    }

    /// A way along a route, of which nothing is known yet.
    fn through(&self, route: &Route, peer: &Peer, now: Duration) -> Way {
        let endpoint = self.sleeve_of(route.via);
        let overhead = self.overhead(Kind::Relay.encapsulation(), endpoint);
        Way::new(self.ceiling(overhead, peer), overhead, now)
    }
}

fn failed(peer: &Peer, kind: Kind) -> bool {
    peer.way(kind)
        .is_some_and(|way| way.state() == LinkState::Down)
}

const fn slot(peer: &mut Peer, kind: Kind) -> &mut Option<Box<Relay>> {
    if matches!(kind, Kind::Trial) {
        &mut peer.trial
    } else {
        &mut peer.relay
    }
}
