//! Which probe leaves when.
//!
//! What a link is used for sets its rhythm. Every probe then takes a place in the node's budget, in
//! which idle links wait for each other; a link with traffic waits only for others with traffic, and
//! one in trouble for neither. Idle links are asked the more rarely the more there are.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;
use wire::probe::{self, Probe, ProbeKind};

use super::{Consent, Links};
use crate::link::budget::Urgency;
use crate::link::config::SPARE;
use crate::link::output::{LinkOutput, ProbeToSend};
use crate::link::peer::{Kind, Peer, Traffic};
use crate::link::view::LinkState;
use crate::link::way::{Purpose, Sent, Way};

/// Addresses that are asked at once when a way is tried for the first time, and later.
const FIRST: usize = 4;
const LATER: usize = 2;
/// A peer that went down is asked often for this long: most come back soon.
const RESTART: Duration = Duration::from_secs(30);
/// Between tests of the size on a link with traffic.
const VERIFY: Duration = Duration::from_secs(2);
/// On others, in intervals between their probes: ten minutes in a small network (RFC 8899 §5.1.1).
const VERIFY_IDLE: u32 = 60;
/// Between probes to a way that came back, until it is trusted.
const TRUST: Duration = Duration::from_millis(500);

impl Links {
    /// Sends what is due for a peer. Returns when to look at it again.
    pub(super) fn probe(&mut self, id: PeerId, peer: &mut Peer, now: Duration) -> Option<Duration> {
        let mut next = peer.barred.as_ref().map(|(_, until)| *until);
        for kind in Kind::ALL {
            let due = self.probe_way(id, peer, kind, now);
            let expiry = peer.way(kind).and_then(Way::next_expiry);
            next = [next, due, expiry].into_iter().flatten().min();
        }
        next
    }

    fn probe_way(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        kind: Kind,
        now: Duration,
    ) -> Option<Duration> {
        if kind == Kind::Vxlan && self.is_barred(peer) {
            return None;
        }
        let way = peer.way(kind)?;
        let wait = if kind <= Kind::Sleeve && way.candidates.is_empty() {
            None
        } else {
            let (due, urgency) = self.rhythm(peer, kind, way, now);
            self.wait_or_send(id, peer, kind, due, urgency, now)
        };
        let size = self.test_size(id, peer, kind, now);
        [wait, size].into_iter().flatten().min()
    }

    /// When the next probe of a way is due, and how much so.
    fn rhythm(&self, peer: &Peer, kind: Kind, way: &Way, now: Duration) -> (Duration, Urgency) {
        let timing = &self.config.timing;
        let traffic = peer.traffic(now);
        let idle = self.idle_interval();
        // Of links in trouble those that are used come first: when half of all peers vanish at once,
        // the others are judged no later for it.
        let trouble = match traffic {
            Traffic::BothWays | Traffic::OneWay => Urgency::Urgent,
            Traffic::None => Urgency::Idle,
        };
        let Some(last) = way.last_sent() else {
            let urgency = match kind {
                Kind::Vxlan => Urgency::Urgent,
                Kind::Sleeve if self.config.sealed => Urgency::Urgent,
                Kind::Sleeve => Urgency::Busy,
                Kind::Relay | Kind::Trial => trouble.max(Urgency::Busy),
            };
            return (now, urgency);
        };
        if way.is_hurried() {
            return (last + timing.answer_min, Urgency::Urgent);
        }
        let after = |interval: Duration, urgency| (last + self.jitter(last, interval), urgency);
        // What was agreed rests on the sealed way, whether frames take it or not.
        let agreed = kind == Kind::Sleeve && matches!(peer.consent, Consent::Given { .. });
        let chosen = peer.chosen == Some(kind) || agreed;
        let better = peer.chosen.is_none_or(|chosen| kind < chosen) || kind == Kind::Trial;
        match way.state() {
            LinkState::Connecting => (last + timing.answer_min, trouble.max(Urgency::Busy)),
            _ if way.is_alive() && way.is_suspect() => (last + way.patience(timing), trouble),
            _ if way.is_alive() && better && !chosen && !way.is_trusted() => {
                (last + TRUST, Urgency::Busy)
            }
            _ if way.is_alive() && chosen => {
                let (interval, urgency) = match traffic {
                    Traffic::BothWays => (timing.busy, Urgency::Busy),
                    Traffic::OneWay => (timing.busy * 2, Urgency::Busy),
                    // A tenth is left for the jitter.
                    Traffic::None if self.is_translated(kind, way) => {
                        (idle.min(timing.keep_alive * 9 / 10), Urgency::Busy)
                    }
                    // It is not to stay so for want of a look.
                    Traffic::None if way.state() == LinkState::Degraded => {
                        (timing.retry, Urgency::Idle)
                    }
                    Traffic::None => (idle, Urgency::Idle),
                };
                after(interval, urgency)
            }
            // The way in use is in trouble: does this one work?
            _ if peer
                .chosen_way()
                .is_some_and(|chosen| chosen.is_suspect() && last < chosen.silent_from()) =>
            {
                (now, trouble)
            }
            LinkState::Down if better => match traffic {
                Traffic::BothWays | Traffic::OneWay => after(timing.retry, Urgency::Busy),
                Traffic::None if way.since() + RESTART > now => after(timing.retry, Urgency::Idle),
                Traffic::None => after(idle, Urgency::Idle),
            },
            _ => after(idle * SPARE, Urgency::Idle),
        }
    }

    fn idle_interval(&self) -> Duration {
        // The one that is looked at is not in the table meanwhile.
        self.config.timing.idle_interval(self.peers.len() + 1)
    }

    /// Whether a NAT is between this node and the end of a way, so that its mapping must be kept.
    fn is_translated(&self, kind: Kind, way: &Way) -> bool {
        kind == Kind::Sleeve && (self.translated.is_some() || way.candidates.is_learned())
    }

    /// Sends a probe if it is due and has a place in the budget, or says when that is so.
    fn wait_or_send(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        kind: Kind,
        due: Duration,
        urgency: Urgency,
        now: Duration,
    ) -> Option<Duration> {
        if due > now {
            return Some(due);
        }
        let endpoint = self.endpoint(peer, kind);
        let way = peer.way_mut(kind)?;
        let mut targets: Vec<(SocketAddr, Purpose)> = Vec::new();
        targets.extend(endpoint.map(|endpoint| (endpoint, Purpose::Alive)));
        if kind <= Kind::Sleeve {
            let others = match (endpoint, way.last_sent()) {
                (Some(_), _) if way.is_suspect() => 1,
                (Some(_), _) => 0,
                (None, None) => FIRST,
                (None, Some(_)) => LATER,
            };
            let purpose = if endpoint.is_some() {
                Purpose::Address
            } else {
                Purpose::Alive
            };
            let others = way.candidates.next(others);
            targets.extend(others.into_iter().map(|other| (other, purpose)));
        }
        let count = u32::try_from(targets.len()).unwrap_or(u32::MAX);
        if count == 0 {
            return None;
        }
        let place = match way.place {
            Some((at, sort)) if sort >= urgency => at,
            _ => self.budget.of(urgency).reserve(count, now),
        };
        if place > now {
            way.place = Some((place, urgency));
            return Some(place);
        }
        way.place = None;
        for (endpoint, purpose) in targets {
            self.ask(id, peer, kind, endpoint, purpose, now);
        }
        // What comes next is seen with the answer, or without it.
        let (due, _) = self.rhythm(peer, kind, peer.way(kind)?, now);
        Some(due)
    }

    /// Tests what size a way takes, if that is due.
    fn test_size(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        kind: Kind,
        now: Duration,
    ) -> Option<Duration> {
        let busy = peer.chosen == Some(kind) && peer.traffic(now) != Traffic::None;
        let endpoint = self.endpoint(peer, kind)?;
        let rarely = self.idle_interval() * VERIFY_IDLE;
        let spread = self.jitter(now, rarely);
        let way = peer
            .way_mut(kind)
            .filter(|way| way.is_alive() && !way.is_suspect())?;
        let (verify, raise) = if busy {
            (VERIFY, self.config.timing.raise)
        } else {
            (spread, spread)
        };
        if busy {
            way.pmtu.hasten(now, verify, raise);
        }
        if !way.pmtu.is_due(now) {
            return way.pmtu.due();
        }
        let first = way.pmtu.mtu().is_none();
        let sizes = way.pmtu.take(now, verify, raise);
        let due = way.pmtu.due();
        // Sizes of one round belong together: they leave at once, and others wait for longer. The first
        // ones go with the probe that found the way: what many new ways cost keeps no later one waiting.
        if !first {
            let urgency = if busy { Urgency::Busy } else { Urgency::Idle };
            let count = u32::try_from(sizes.len()).unwrap_or(u32::MAX);
            self.budget.of(urgency).reserve(count, now);
        }
        for size in sizes {
            self.ask(id, peer, kind, endpoint, Purpose::Size(size), now);
        }
        // A small one beside them tells lost for their size from late.
        if peer.way(kind)?.last_sent() != Some(now) {
            self.ask(id, peer, kind, endpoint, Purpose::Alive, now);
        }
        due
    }

    /// Sends one request.
    pub(super) fn ask(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        kind: Kind,
        endpoint: SocketAddr,
        purpose: Purpose,
        now: Duration,
    ) {
        let nonce = self.rng.next_u64();
        let Some(way) = peer.way_mut(kind) else {
            return;
        };
        let small = u16::try_from(probe::MIN_LEN).unwrap_or(u16::MAX);
        let header = u16::try_from(wire::ethernet::HEADER_LEN).unwrap_or(u16::MAX);
        let size = match purpose {
            Purpose::Size(size) => size.saturating_add(header).max(small),
            Purpose::Alive | Purpose::Address => small,
        };
        let expires = now + way.patience(&self.config.timing);
        way.send(Sent {
            nonce,
            at: now,
            expires,
            expired: false,
            endpoint,
            purpose,
        });
        let request = Probe {
            kind: ProbeKind::Request,
            size,
            source: self.config.me,
            destination: id,
            run: self.config.run,
            nonce,
        };
        self.counters.requests_sent += 1;
        self.outputs.push_back(LinkOutput::Probe(ProbeToSend {
            encapsulation: kind.encapsulation(),
            to: id,
            endpoint,
            nonce,
            frame: request.frame(),
        }));
    }

    /// An interval, a tenth longer or shorter, or a half if it is a long one, so that nodes that began
    /// together drift apart. The same for the same probe however often it is asked for.
    fn jitter(&self, last: Duration, interval: Duration) -> Duration {
        let seed = self.config.seed ^ u64::try_from(last.as_nanos()).unwrap_or(u64::MAX);
        let mut rng = crate::rng::SplitMix64::new(seed);
        if interval <= self.config.timing.idle * SPARE {
            interval * 9 / 10 + rng.up_to(interval / 5)
        } else {
            // A long one is for many links, which may have come up together.
            interval / 2 + rng.up_to(interval)
        }
    }
}
