//! Answers that do not come.

use std::time::Duration;

use wire::PeerId;

use super::Links;
use crate::link::peer::{Kind, Peer};
use crate::link::view::LinkState;
use crate::link::way::{Change, Purpose, Sent};

/// An address that was answered this long ago is tried first when the one in use fails.
const FRESH: Duration = Duration::from_secs(10);

impl Links {
    /// Judges the ways of a peer by what was not answered until now.
    pub(super) fn expire(&mut self, id: PeerId, peer: &mut Peer, now: Duration) {
        for kind in Kind::ALL {
            let lost = peer.way_mut(kind).map(|way| way.take_expired(now));
            for sent in lost.unwrap_or_default() {
                self.counters.unanswered += 1;
                self.miss(id, peer, kind, &sent, now);
            }
            if let Some(way) = peer.way_mut(kind) {
                way.judge(&self.config.timing, now);
            }
        }
    }

    fn miss(&mut self, id: PeerId, peer: &mut Peer, kind: Kind, sent: &Sent, now: Duration) {
        let reason = lost(peer, kind);
        let timing = &self.config.timing;
        let Some(way) = peer.way_mut(kind) else {
            return;
        };
        // A probe to an address that is not in use says nothing of the one that is.
        let current = way.candidates.current();
        if kind <= Kind::Sleeve && current.is_some_and(|current| current != sent.endpoint) {
            return;
        }
        match sent.purpose {
            Purpose::Address => {}
            Purpose::Size(size) if way.answers_what_is_sent_at(sent.at) => {
                way.pmtu.unanswered(size, now);
            }
            // Nothing else came back either: that is no question of size.
            Purpose::Size(size) => way.pmtu.postpone(size),
            Purpose::Alive => {
                // Other relays may be better than one of which nothing is known yet.
                let fresh = kind > Kind::Sleeve && way.state() == LinkState::Connecting;
                let dead = if fresh { timing.dead / 2 } else { timing.dead };
                let change = way.missed(sent, &reason, dead, timing, now);
                let other = way.candidates.alternative(now.saturating_sub(FRESH));
                if let Some(other) = other.filter(|_| way.is_alive() && way.is_suspect()) {
                    way.move_to(other, now);
                    self.counters.moved += 1;
                    self.relay_changed(id, now);
                }
                if change == Change::WentDown {
                    self.went_down(id, peer, kind, now);
                }
            }
        }
    }

    fn went_down(&mut self, id: PeerId, peer: &mut Peer, kind: Kind, now: Duration) {
        self.counters.ways_lost += 1;
        match kind {
            Kind::Vxlan => {}
            Kind::Sleeve => {
                self.reach_changed(now);
                self.relay_changed(id, now);
                if self.seen.forget(id) {
                    self.tell_seen();
                }
            }
            Kind::Relay | Kind::Trial => {
                if let Some(via) = peer.via(kind) {
                    peer.shun(via, &self.config.timing, now);
                    self.counters.relays_shunned += 1;
                }
            }
        }
    }
}

/// Why a way would be down.
pub(super) fn lost(peer: &Peer, kind: Kind) -> String {
    match kind {
        Kind::Vxlan => format!("no reply on UDP {}", peer.facts.vxlan_port),
        Kind::Sleeve => format!("no reply on UDP {}", peer.facts.sleeve_port),
        Kind::Relay | Kind::Trial => "no reply through the relay".to_owned(),
    }
}
