//! Probes that come in: requests are answered, answers are taken for what was asked.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;
use wire::probe::{self, Probe, ProbeKind};

use super::Links;
use super::Timer;
use crate::link::budget::Urgency;
use crate::link::change::Encapsulation;
use crate::link::input::{Arrived, SendError};
use crate::link::output::{LinkOutput, ProbeToSend};
use crate::link::peer::{Kind, Peer};
use crate::link::way::{Change, Purpose, Sent};

/// Between probes of one kind to addresses that one peer's datagrams came from: who forges them makes this node
/// send no more.
const LEARN: Duration = Duration::from_millis(500);

impl Links {
    pub(super) fn arrived(&mut self, arrived: &Arrived, now: Duration) {
        let probe = match probe::parse(&arrived.frame) {
            Ok(probe) if probe.destination == self.config.me => probe,
            Ok(_) | Err(_) => {
                self.counters.malformed += 1;
                return;
            }
        };
        let id = probe.source;
        let Some(mut peer) = self.peers.remove(&id) else {
            self.counters.unknown_peer += 1;
            return;
        };
        let from = SocketAddr::new(arrived.from.ip().to_canonical(), arrived.from.port());
        match probe.kind {
            ProbeKind::Request => self.request(&mut peer, &probe, from, arrived, now),
            ProbeKind::Reply { observed, plain } => {
                self.reply(&mut peer, &probe, (observed, plain), arrived, now);
            }
        }
        self.peers.insert(id, peer);
        self.timers.set(Timer::Peer(id), now);
    }

    /// Answers a request, and takes note of where it came from.
    fn request(
        &mut self,
        peer: &mut Peer,
        probe: &Probe,
        from: SocketAddr,
        arrived: &Arrived,
        now: Duration,
    ) {
        let encapsulation = arrived.encapsulation;
        let vxlan = encapsulation == Encapsulation::Vxlan;
        let elsewhere = || self.config.sealed && self.plain_at(peer) != Some(from.ip());
        if vxlan && (self.is_barred(peer) || elsewhere()) {
            self.counters.answers_barred += 1;
            return;
        }
        if !peer.answers.take(now) || !self.answers.take(now) {
            self.counters.answers_limited += 1;
            return;
        }
        // VXLAN's source port is the flow's and receives nothing; the answer tries the way back
        // that frames take.
        let endpoint = if vxlan {
            SocketAddr::new(from.ip(), peer.facts.vxlan_port)
        } else {
            from
        };
        let answer = Probe {
            kind: ProbeKind::Reply {
                observed: from,
                // What came by a relay came from the relay's address.
                plain: !vxlan && !arrived.relayed && self.trusts(from.ip()).is_some(),
            },
            source: self.config.me,
            destination: probe.source,
            ..*probe
        };
        self.counters.answers_sent += 1;
        self.outputs.push_back(LinkOutput::Probe(ProbeToSend {
            encapsulation,
            to: probe.source,
            endpoint,
            nonce: probe.nonce,
            frame: answer.frame(),
        }));
        if !arrived.relayed {
            let kind = if vxlan { Kind::Vxlan } else { Kind::Sleeve };
            self.learn(probe.source, peer, kind, endpoint, now);
        }
    }

    /// A peer is heard from an address. If that is not the one in use, it is asked there.
    fn learn(
        &mut self,
        id: PeerId,
        peer: &mut Peer,
        kind: Kind,
        address: SocketAddr,
        now: Duration,
    ) {
        let capacity = self.config.limits.addresses;
        let Some(way) = peer.way_mut(kind) else {
            return;
        };
        if way.candidates.current() == Some(address) {
            return;
        }
        let (_, evicted) = way.candidates.learn(address, capacity);
        self.counters.addresses_evicted += u64::from(evicted);
        // A peer that was asked before it knew this node is there, and may not speak again for long.
        let (purpose, urgency) = match way.candidates.current() {
            Some(_) => (Purpose::Address, Urgency::Busy),
            None => (Purpose::Alive, Urgency::Urgent),
        };
        // Each kind by itself: behind a NAT the one that is heard first may be the one that does not work.
        if way.learned.is_some_and(|at| at + LEARN > now) {
            return;
        }
        let place = self.budget.of(urgency).take(now);
        if place || purpose == Purpose::Alive {
            way.learned = Some(now);
        }
        if place {
            self.ask(id, peer, kind, address, purpose, now);
        } else if purpose == Purpose::Alive {
            way.hurry();
        }
    }

    /// Takes an answer for what was asked.
    fn reply(
        &mut self,
        peer: &mut Peer,
        probe: &Probe,
        (observed, plain): (SocketAddr, bool),
        arrived: &Arrived,
        now: Duration,
    ) {
        let mut found = None;
        for kind in Kind::ALL {
            let Some(way) = peer.way_mut(kind) else {
                continue;
            };
            // An answer to a direct question that came through a relay was asked through it: at
            // that address is another node now.
            let fits = kind.encapsulation() == arrived.encapsulation
                && (kind > Kind::Sleeve || !arrived.relayed);
            if fits && let Some(sent) = way.take(probe.nonce) {
                found = Some((kind, sent));
                break;
            }
        }
        let Some((kind, sent)) = found.filter(|_| probe.run == self.config.run) else {
            self.counters.stray_answers += 1;
            return;
        };
        self.counters.answers_received += 1;
        if kind == Kind::Sleeve && self.seen.note(probe.source, observed) {
            self.tell_seen();
        }
        self.credit(probe.source, peer, kind, &sent, now);
        if kind == Kind::Sleeve {
            self.hear_consent(peer, &sent, observed, plain, now);
        }
    }

    /// What an answer says of its way.
    fn credit(&mut self, id: PeerId, peer: &mut Peer, kind: Kind, sent: &Sent, now: Duration) {
        let direct = kind <= Kind::Sleeve;
        let mut moved = false;
        let Some(way) = peer.way_mut(kind) else {
            return;
        };
        if direct {
            way.candidates.answered(sent.endpoint, now);
            match way.candidates.current() {
                None => {
                    way.move_to(sent.endpoint, now);
                }
                Some(current) if current == sent.endpoint => {}
                // The address in use fails, and this one works.
                Some(_) if way.is_suspect() => {
                    way.move_to(sent.endpoint, now);
                    self.counters.moved += 1;
                    moved = true;
                }
                // Both may work: whether the one in use does is to be seen now.
                Some(_) => {
                    way.hurry();
                    return;
                }
            }
        }
        let change = way.answered(sent, now);
        if let Purpose::Size(size) = sent.purpose {
            way.pmtu.answered(size, now);
        }
        if change == Change::CameUp && direct {
            // What kept one from the peer most likely kept the other.
            let other = if kind == Kind::Vxlan {
                &mut peer.sleeve
            } else {
                &mut peer.vxlan
            };
            if !other.is_alive() {
                other.hurry();
            }
        }
        if kind == Kind::Sleeve && (change == Change::CameUp || moved) {
            self.reach_changed(now);
            self.relay_changed(id, now);
        }
    }

    /// The kernel did not send a probe.
    pub(super) fn send_failed(&mut self, id: PeerId, nonce: u64, error: SendError, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        for kind in Kind::ALL {
            let Some(way) = peer.way_mut(kind) else {
                continue;
            };
            let Some(sent) = way.take(nonce) else {
                continue;
            };
            match (sent.purpose, error) {
                (Purpose::Size(size), SendError::TooBig(mtu)) => way.pmtu.refused(size, mtu, now),
                (_, SendError::TooBig(_)) => {}
                (purpose, SendError::Other(text)) => {
                    way.failed_to_send(text);
                    // So it is with one that is too large for a device close by (ENOBUFS).
                    if purpose != Purpose::Address {
                        // It counts as lost when its time is over, like any other.
                        way.send(sent);
                    }
                }
            }
            break;
        }
        self.timers.set(Timer::Peer(id), now);
    }
}
