//! From an open connection to one in use.
//!
//! ```text
//! smaller identity                       larger identity
//!        | -------------- Hello ------------->  |   both at once
//!        | <------------- Hello --------------  |
//!        | <------------- Ready --------------  |   "I take you on"
//!        | ------------- Welcome ------------>  |   "this one is in use"
//! ```
//!
//! Either side may refuse instead, and says why. Only the smaller identity puts a connection into
//! use, so that two dials that cross end in one connection, the same on both sides.

use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output, Timer};
use crate::condition::ConditionKind;
use crate::connection::{ConnId, Connection, Phase};
use crate::hello::Hello;
use crate::message::Message;
use crate::noise::Fingerprint;
use crate::refusal::{Refusal, RefusalCode};

/// What is wrong with an introduction, and what to tell the operator of it.
struct Objection {
    refusal: Refusal,
    condition: Option<(ConditionKind, String)>,
}

impl Objection {
    fn new(code: RefusalCode, text: &str) -> Self {
        Self {
            refusal: Refusal::new(code, text),
            condition: None,
        }
    }

    fn about(mut self, kind: ConditionKind, subject: &impl ToString) -> Self {
        self.condition = Some((kind, subject.to_string()));
        self
    }
}

impl Mesh {
    pub(super) fn accepted(&mut self, conn: ConnId, remote: SocketAddr, now: Duration) {
        self.counters.accepted += 1;
        let limits = &self.config.limits;
        let refusal = if self.left {
            Some(Refusal::new(
                RefusalCode::Leaving,
                "this node has left the network",
            ))
        } else if self.handshakes >= limits.handshakes {
            self.counters.refused_busy += 1;
            Some(Refusal::new(
                RefusalCode::Busy,
                "too many connections, try again later",
            ))
        } else {
            None
        };
        self.introduce(conn, remote);
        if let Some(refusal) = refusal {
            // It never enters the table: nothing but these outputs is left of it.
            return self.end(conn, &refusal, now);
        }
        self.connections
            .insert(conn, Connection::new(Phase::Hello, None, Some(remote), now));
        self.handshakes += 1;
        self.timers
            .set(Timer::Connection(conn), now + self.config.timing.handshake);
    }

    /// The other side has introduced itself.
    pub(super) fn hello(&mut self, conn: ConnId, hello: Box<Hello>, now: Duration) {
        let Some(remote) = self.connections.get(&conn).and_then(|c| c.remote) else {
            return;
        };
        if let Err(objection) = self.judge(conn, &hello, remote, now) {
            if objection.refusal.code == RefusalCode::Myself {
                self.met_myself(conn, now);
            }
            return self.object(conn, objection, now);
        }
        let id = hello.id;
        if matches!(conn, ConnId::Dialled(_)) && self.is_connected(id, hello.run) {
            // Two addresses of one node. A node that lost its connection would not know this.
            self.attempt_succeeded(conn, id, now);
            let text = format!("already connected to {}", hello.name);
            return self.end(conn, &Refusal::new(RefusalCode::Replaced, &text), now);
        }
        self.learn_where_i_am(conn, &hello, now);
        let mine = matches!(conn, ConnId::Dialled(_)) || self.control.contains_key(&id);
        if !mine && !self.make_way(now) {
            self.counters.refused_full += 1;
            let text = format!(
                "node {} has all the {} control connections that it accepts (--conn-limit)",
                self.config.me.name, self.config.limits.connections
            );
            let refusal = Refusal {
                instead: self.instead(),
                ..Refusal::new(RefusalCode::Busy, &text)
            };
            return self.end(conn, &refusal, now);
        }
        let i_choose = self.config.me.id < id;
        if let Some(connection) = self.connections.get_mut(&conn) {
            connection.hello = Some(hello);
            connection.phase = if i_choose {
                Phase::Ready
            } else {
                Phase::Welcome
            };
        }
        if !i_choose {
            self.send(conn, &Message::Ready);
        }
    }

    /// The other side takes this node on; being the smaller, this one decides.
    pub(super) fn ready(&mut self, conn: ConnId, now: Duration) {
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        let (Some(hello), Some(remote)) = (connection.hello.clone(), connection.remote) else {
            return;
        };
        // Another node of that name may have come first since the introduction.
        if let Err(objection) = self.judge(conn, &hello, remote, now) {
            return self.object(conn, objection, now);
        }
        self.send(conn, &Message::Welcome);
        self.establish(conn, now);
    }

    /// Takes a connection into use.
    pub(super) fn establish(&mut self, conn: ConnId, now: Duration) {
        let connection = self.connections.get(&conn);
        let Some(hello) = connection.and_then(|connection| connection.hello.clone()) else {
            return;
        };
        let id = hello.id;
        if self.roster.get(id).is_none() && !self.make_room(now) {
            self.counters.refused_busy += 1;
            let refusal = Refusal::new(RefusalCode::Busy, "the table of peers is full");
            return self.end(conn, &refusal, now);
        }
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.phase = Phase::Established;
        connection.since = now;
        connection.hear(now, &self.config.timing);
        // At a moment of its own, so that the pings of many connections are spread.
        connection.next_ping = now + self.rng.up_to(self.config.timing.ping);
        if matches!(conn, ConnId::Accepted(_)) {
            self.handshakes -= 1;
        }
        self.counters.established += 1;
        self.schedule_attention(conn);
        self.attempt_succeeded(conn, id, now);
        self.adopt(conn, &hello, now);
    }

    /// Makes the connection its peer's.
    fn adopt(&mut self, conn: ConnId, hello: &Hello, now: Duration) {
        let id = hello.id;
        if let Some(old) = self.control.insert(id, conn) {
            self.counters.replaced += 1;
            let refusal = Refusal::new(RefusalCode::Replaced, "replaced by a newer connection");
            self.end(old, &refusal, now);
        }
        self.reviving.remove(&id);
        self.timers
            .cancel(&Timer::Dial(crate::dial::Candidate::Peer(id)));
        if let Some(dialling) = self.dialled.get_mut(&id) {
            dialling.failure = None;
        }
        self.own_changed(now);
        self.rethink(now);
        // It may have another address than before.
        self.refresh_link(id, now);
        self.dial_remembered_once_more(now);
        self.begin_exchange(conn, self.me() < id, now);
    }

    /// A neighbour has said what its entry is.
    pub(super) fn introduced(&mut self, conn: ConnId, id: PeerId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let hello = connection.hello.as_ref();
        let itself = hello.is_some_and(|hello| hello.id == id);
        if !itself || std::mem::replace(&mut connection.introduced, true) {
            return;
        }
        self.roster.connect(id, now);
        self.vouch(id, now);
        self.follow(now);
        if let Some(name) = self.name_of(id).filter(|_| self.is_told(id)) {
            self.outputs.push_back(Output::Connected { id, name });
        }
    }

    /// The other side says how it sees this node.
    fn learn_where_i_am(&mut self, conn: ConnId, hello: &Hello, now: Duration) {
        let Some(seen) = hello.seen else { return };
        let (address, reached) = match conn {
            ConnId::Accepted(_) => (seen, true),
            ConnId::Dialled(_) if self.config.me.control_port == 0 => return,
            ConnId::Dialled(_) => {
                let port = self.config.me.control_port;
                (SocketAddr::new(seen.ip(), port), false)
            }
        };
        if self.sightings.note(address, reached, now) {
            if self.roster.own().addresses.is_empty() {
                // Nobody but its neighbours knows where it is.
                self.own_changed_much(now);
            } else {
                self.own_changed(now);
            }
        }
    }

    /// The other side refuses this node, or says why it ends the connection.
    pub(super) fn refused(&mut self, conn: ConnId, refusal: &Refusal, now: Duration) {
        let Some(connection) = self.connections.get(&conn) else {
            return;
        };
        if refusal.code == RefusalCode::Leaving {
            return self.told_to_leave(conn, now);
        }
        let remote = connection
            .remote
            .map_or_else(String::new, |remote| remote.to_string());
        let dialled = matches!(conn, ConnId::Dialled(_));
        if connection.phase != Phase::Established {
            self.counters.refused_by_peer += 1;
        }
        let me = &self.config.me;
        let about = match refusal.code {
            RefusalCode::Name => Some((ConditionKind::DuplicateName, me.name.to_string())),
            RefusalCode::Identity => Some((ConditionKind::DuplicateIdentity, me.id.to_string())),
            RefusalCode::Network => Some((ConditionKind::OtherNetwork, remote.clone())),
            RefusalCode::Version => Some((ConditionKind::OtherVersion, remote.clone())),
            RefusalCode::Plain | RefusalCode::Password | RefusalCode::NotAllowed => {
                Some((ConditionKind::OtherPassword, remote.clone()))
            }
            RefusalCode::Myself
            | RefusalCode::Busy
            | RefusalCode::Malformed
            | RefusalCode::Replaced
            | RefusalCode::Silent
            | RefusalCode::Leaving
            | RefusalCode::Spare
            | RefusalCode::Other(_) => None,
        };
        if let Some((kind, subject)) = about {
            let message = format!("{remote} refuses this node: {refusal}");
            self.raise(kind, subject, message, now);
        }
        let reason = format!("refused by {remote}: {refusal}");
        self.outputs.push_back(Output::Close {
            conn,
            reason: reason.clone(),
        });
        self.gone(conn, &reason, refusal.code.is_lasting(), now);
        if dialled && self.config.discovery {
            for address in &refusal.instead {
                self.remember(*address, now);
            }
        }
    }

    /// The other side says on this connection that it leaves.
    fn told_to_leave(&mut self, conn: ConnId, now: Duration) {
        self.outputs.push_back(Output::Close {
            conn,
            reason: "the peer leaves".to_owned(),
        });
        self.gone(conn, "the peer has left the network", false, now);
    }

    /// Whether the node may be taken on.
    fn judge(
        &mut self,
        conn: ConnId,
        hello: &Hello,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<(), Objection> {
        let me = &self.config.me;
        let (name, id) = (&hello.name, hello.id);
        if id == me.id && hello.run == me.run {
            return Err(Objection::new(
                RefusalCode::Myself,
                "this address is my own",
            ));
        }
        let known_key = self.roster.get(id).map(|peer| peer.entry.public_key);
        if id == me.id || known_key.is_some_and(|key| key != hello.public_key) {
            let text = format!(
                "node {name} at {remote} has the identity {id} of another node: one state directory is a copy of the other; delete the copy and restart that node"
            );
            return Err(Objection::new(RefusalCode::Identity, &text)
                .about(ConditionKind::DuplicateIdentity, &id));
        }
        let proven = self.connections.get(&conn).and_then(|c| c.proven);
        if proven.is_some_and(|key| key != hello.public_key || Fingerprint::of(&key).id() != id) {
            let text =
                format!("node {name} at {remote} gives the identity {id}, which is not its own");
            return Err(Objection::new(RefusalCode::Identity, &text));
        }
        if hello.vni != me.vni {
            let text = format!(
                "node {name} at {remote} is on VNI {}, node {} on VNI {}: give them the same --vni",
                hello.vni, me.name, me.vni
            );
            return Err(Objection::new(RefusalCode::Network, &text)
                .about(ConditionKind::OtherNetwork, name));
        }
        if let Some(holder) = self.holder(name, id) {
            let text = format!(
                "two nodes are named {name}: {}, and {id} at {remote}; give one of them another --name",
                self.describe(holder)
            );
            // The newcomer may be the same machine that has lost its state.
            self.spread_doubt(holder, now);
            return Err(
                Objection::new(RefusalCode::Name, &text).about(ConditionKind::DuplicateName, name)
            );
        }
        Ok(())
    }

    /// Refuses a node, and tells the operator if only he can mend it.
    fn object(&mut self, conn: ConnId, objection: Objection, now: Duration) {
        let Objection { refusal, condition } = objection;
        if let Some((kind, subject)) = condition {
            self.counters.refused += 1;
            self.raise(kind, subject, refusal.text.clone(), now);
        }
        self.end(conn, &refusal, now);
    }

    fn is_connected(&self, id: PeerId, run: u64) -> bool {
        let connection = self.control.get(&id);
        let connection = connection.and_then(|conn| self.connections.get(conn));
        let hello = connection.and_then(|connection| connection.hello.as_ref());
        hello.is_some_and(|hello| hello.run == run)
    }
}
