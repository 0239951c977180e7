//! What becomes of a data link when its control connection is lost (I5).

use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output, Timer};
use crate::connection::{ConnId, Phase};
use crate::dial::Candidate;
use crate::hello::Hello;
use crate::link::LinkChange;
use crate::message::{Departure, Message};
use crate::peer::{Peer, PeerState};
use crate::refusal::{Refusal, RefusalCode};

impl Mesh {
    /// The connection in use with a peer is gone. Its link stays up for the grace.
    pub(super) fn control_lost(
        &mut self,
        id: PeerId,
        reason: &str,
        lived: Duration,
        now: Duration,
    ) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.control = None;
        peer.known = now;
        peer.reason = Some(reason.to_owned());
        if self.departed.contains(id, peer.run, now) {
            return self.remove_left(id, now);
        }
        if lived >= self.config.timing.settled {
            peer.dialling.backoff.reset();
        }
        self.timers
            .set(Timer::Peer(id), now + self.config.timing.grace);
        self.schedule_peer(id, now);
    }

    /// A peer's grace is over, or it has been gone for so long that it is forgotten.
    pub(super) fn attend_peer(&mut self, id: PeerId, now: Duration) {
        let timing = &self.config.timing;
        let Some(peer) = self
            .peers
            .get_mut(&id)
            .filter(|peer| peer.control.is_none())
        else {
            return;
        };
        let rumour = peer.state == PeerState::Connecting;
        let forgotten = peer.known + if rumour { timing.rumour } else { timing.forget };
        if now >= forgotten {
            return self.remove(id, now);
        }
        self.timers.set(Timer::Peer(id), forgotten);
        if peer.state == PeerState::Up {
            let reason = peer
                .reason
                .clone()
                .unwrap_or_else(|| "not connected".to_owned());
            peer.enter(PeerState::Down, Some(reason.clone()), now);
            let down = LinkChange::Down {
                id,
                name: peer.name.clone(),
                reason,
            };
            self.outputs.push_back(Output::Link(down));
        }
    }

    /// The other side says on this connection that it leaves.
    pub(super) fn told_to_leave(&mut self, conn: ConnId, now: Duration) {
        let hello = self
            .connections
            .get(&conn)
            .and_then(|connection| connection.hello.clone());
        self.outputs.push_back(Output::Close {
            conn,
            reason: "the peer leaves".to_owned(),
        });
        if let Some(hello) = hello {
            self.departs(
                &[Departure {
                    id: hello.id,
                    run: hello.run,
                }],
                now,
            );
        }
        self.gone(conn, "the peer has left the network", false, now);
    }

    /// Nodes have left, as they say themselves or as others do. The others are told of those that
    /// were known here, once.
    pub(super) fn departs(&mut self, departures: &[Departure], now: Duration) {
        let mut left = Vec::new();
        for departure in departures {
            let Departure { id, run } = *departure;
            if id == self.config.me.id || !self.departed.note(id, run, now) {
                continue;
            }
            let Some(peer) = self.peers.get(&id).filter(|peer| peer.run == run) else {
                continue;
            };
            left.push(*departure);
            // One that is connected says so itself, or closes the connection in a moment.
            if peer.control.is_none() {
                self.remove_left(id, now);
            }
        }
        if left.is_empty() {
            return;
        }
        let told = |(id, _): &(&PeerId, &Peer)| !left.iter().any(|departure| departure.id == **id);
        let others = self.peers.iter().filter(told);
        let others: Vec<ConnId> = others.filter_map(|(_, peer)| peer.control).collect();
        let message = Message::Peers {
            known: Vec::new(),
            left,
        };
        for conn in others {
            self.send(conn, &message);
        }
    }

    /// A node with a new identity takes over a name: nodes that had it and are not connected were
    /// the same node before it lost its state.
    pub(super) fn supersede(&mut self, hello: &Hello, now: Duration) {
        let same = self.peers.iter().filter(|(id, peer)| {
            **id != hello.id && peer.name == hello.name && peer.control.is_none()
        });
        let same: Vec<(PeerId, u64)> = same.map(|(id, peer)| (*id, peer.run)).collect();
        for (id, run) in same {
            self.departed.note(id, run, now);
            if self
                .peers
                .get(&id)
                .is_some_and(|peer| peer.state == PeerState::Up)
            {
                let reason = format!("node {} has the new identity {}", hello.name, hello.id);
                let down = LinkChange::Down {
                    id,
                    name: hello.name.clone(),
                    reason,
                };
                self.outputs.push_back(Output::Link(down));
            }
            self.remove(id, now);
        }
    }

    /// Makes room for one more peer, at the cost of the one that has been out of reach longest.
    pub(super) fn make_room(&mut self, now: Duration) -> bool {
        if self.peers.len() < self.config.limits.peers {
            return true;
        }
        let idle = self.peers.iter().filter(|(_, peer)| {
            peer.control.is_none() && peer.pending.is_empty() && peer.state != PeerState::Up
        });
        let Some(id) = idle.min_by_key(|(_, peer)| peer.known).map(|(id, _)| *id) else {
            return false;
        };
        self.counters.peers_evicted += 1;
        self.remove(id, now);
        true
    }

    /// This node leaves.
    pub(super) fn leave(&mut self) {
        if self.left {
            return;
        }
        self.left = true;
        for (conn, connection) in std::mem::take(&mut self.connections) {
            match connection.phase {
                Phase::Dialling => {}
                Phase::Established => self.send(conn, &Message::Leave),
                Phase::Hello | Phase::Ready | Phase::Welcome => {
                    let refusal = Refusal::new(RefusalCode::Leaving, "this node leaves");
                    self.send(conn, &Message::Refuse(refusal));
                }
            }
            let reason = "this node leaves".to_owned();
            self.outputs.push_back(Output::Close { conn, reason });
        }
        for (id, peer) in std::mem::take(&mut self.peers) {
            if peer.state == PeerState::Up {
                self.outputs.push_back(Output::Link(LinkChange::Left {
                    id,
                    name: peer.name,
                }));
            }
        }
        self.targets.clear();
        self.waiting.clear();
        self.timers = crate::timers::Timers::new();
        (self.dials, self.handshakes) = (0, 0);
    }

    fn remove_left(&mut self, id: PeerId, now: Duration) {
        if let Some(peer) = self
            .peers
            .get(&id)
            .filter(|peer| peer.state == PeerState::Up)
        {
            let left = LinkChange::Left {
                id,
                name: peer.name.clone(),
            };
            self.outputs.push_back(Output::Link(left));
        }
        self.remove(id, now);
    }

    /// Forgets a peer. Targets that led to it are dialled on their own again.
    fn remove(&mut self, id: PeerId, now: Duration) {
        let candidate = Candidate::Peer(id);
        if let Some(peer) = self.peers.remove(&id)
            && peer.dialling.queued
        {
            self.waiting.retain(|waiting| *waiting != candidate);
        }
        self.timers.cancel(&Timer::Peer(id));
        self.timers.cancel(&Timer::Dial(candidate));
        let orphans = self
            .targets
            .iter_mut()
            .filter(|(_, entry)| entry.peer == Some(id));
        let mut due = Vec::new();
        for (target, entry) in orphans {
            entry.peer = None;
            due.push(target.clone());
        }
        for target in due {
            let wait = self.rng.around(self.config.timing.retry);
            self.timers
                .set(Timer::Dial(Candidate::Target(target)), now + wait);
        }
    }
}
