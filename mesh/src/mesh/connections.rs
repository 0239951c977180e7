//! What is said on connections, and how they end.

use std::time::Duration;

use super::{ConditionKind, Mesh, Output, Timer};
use crate::connection::{ConnId, Phase};
use crate::frame::{FrameError, emit, preamble};
use crate::message::Message;
use crate::refusal::{Refusal, RefusalCode};

impl Mesh {
    /// Bytes arrived.
    pub(super) fn received(&mut self, conn: ConnId, bytes: &[u8], now: Duration) {
        // Bytes of a connection that has been closed meanwhile are of no interest.
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        connection.hear(now, &self.config.timing);
        connection.deframer.push(bytes);
        // A message may close its own connection, so each one looks it up again.
        while let Some(connection) = self.connections.get_mut(&conn) {
            let established = connection.phase == Phase::Established;
            match connection.deframer.next_message(connection.stage()) {
                Ok(Some(message)) => self.message(conn, message, now),
                Ok(None) => break,
                // What one message says is no reason to do without the next (I5).
                Err(FrameError::Message { .. }) if established => self.counters.malformed += 1,
                Err(error) => self.unreadable(conn, &error, now),
            }
        }
    }

    /// One message, in the phase that its connection is in.
    fn message(&mut self, conn: ConnId, message: Message, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        match (connection.phase, message) {
            (Phase::Hello, Message::Hello(hello)) => self.hello(conn, hello, now),
            (Phase::Ready, Message::Ready) => self.ready(conn, now),
            (Phase::Welcome, Message::Welcome) => self.establish(conn, now),
            (_, Message::Refuse(refusal)) => self.refused(conn, &refusal, now),
            (_, Message::Unknown(_)) => self.counters.unknown_messages += 1,
            (Phase::Established, message) => self.established_message(conn, message, now),
            (
                phase,
                message @ (Message::Hello(_)
                | Message::Ready
                | Message::Welcome
                | Message::Ping(_)
                | Message::Pong(_)
                | Message::Entries(_)
                | Message::Digest(_)
                | Message::Buckets(_)
                | Message::Versions { .. }
                | Message::Ask(_)
                | Message::Need(_)
                | Message::Parcel(_)
                | Message::Broadcast(_)
                | Message::Doubt(_)),
            ) => {
                self.counters.malformed += 1;
                let text = format!("{} in phase {phase:?} is out of place", message.name());
                self.end(conn, &Refusal::new(RefusalCode::Malformed, &text), now);
            }
        }
    }

    /// One message of a peer that has been taken on. None is a reason to close its connection (I5).
    fn established_message(&mut self, conn: ConnId, message: Message, now: Duration) {
        match message {
            Message::Ping(nonce) => self.send(conn, &Message::Pong(nonce)),
            Message::Pong(nonce) => {
                // The nonce is the time of the ping. A peer that makes one up shows a false time
                // for itself, no more.
                if let Some(connection) = self.connections.get_mut(&conn) {
                    connection.rtt = now.checked_sub(Duration::from_micros(nonce));
                }
            }
            Message::Entries(told) => self.learn(conn, told, now),
            Message::Digest(total) => self.digest(conn, total),
            Message::Buckets(sums) => self.buckets(conn, &sums),
            Message::Versions { buckets, known } => self.versions(conn, buckets, known, now),
            Message::Ask(ids) => self.asked(conn, ids, now),
            Message::Need(need) => self.needed(conn, need, now),
            Message::Parcel(parcel) => self.parcel(conn, parcel, now),
            Message::Broadcast(broadcast) => self.broadcast(conn, broadcast),
            Message::Doubt(doubt) => self.doubt(conn, doubt, now),
            Message::Hello(_)
            | Message::Ready
            | Message::Welcome
            | Message::Refuse(_)
            | Message::Unknown(_) => self.counters.malformed += 1,
        }
    }

    /// The stream cannot be read any further: this connection ends, and nothing else does (I5).
    fn unreadable(&mut self, conn: ConnId, error: &FrameError, now: Duration) {
        let code = match error {
            FrameError::Version { .. } => {
                self.counters.refused += 1;
                if let Some(remote) = self.connections.get(&conn).and_then(|c| c.remote) {
                    let message = format!("{remote}: {error}");
                    let subject = remote.ip().to_string();
                    self.raise(ConditionKind::OtherVersion, subject, message, now);
                }
                RefusalCode::Version
            }
            FrameError::NotWeft(_)
            | FrameError::TooLarge { .. }
            | FrameError::Empty
            | FrameError::Message { .. } => {
                self.counters.malformed += 1;
                RefusalCode::Malformed
            }
        };
        self.end(conn, &Refusal::new(code, &error.to_string()), now);
    }

    /// A connection's time has come: its handshake took too long, it was silent for too long, nobody
    /// needs it, or a ping is due.
    pub(super) fn attend(&mut self, conn: ConnId, now: Duration) {
        let timing = &self.config.timing;
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        if connection.phase != Phase::Established {
            self.counters.silent += 1;
            let text = format!("no handshake within {} s", timing.handshake.as_secs());
            return self.end(conn, &Refusal::new(RefusalCode::Silent, &text), now);
        }
        if now >= connection.heard + connection.patience {
            self.counters.silent += 1;
            let silence = now.saturating_sub(connection.heard).as_secs();
            let text = format!("nothing heard on the control connection for {silence} s");
            return self.end(conn, &Refusal::new(RefusalCode::Silent, &text), now);
        }
        if now >= connection.next_ping {
            connection.next_ping = now + timing.ping;
            let nonce = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
            self.send(conn, &Message::Ping(nonce));
        }
        self.look_at_spare(conn, now);
        self.schedule_attention(conn);
    }

    pub(super) fn schedule_attention(&mut self, conn: ConnId) {
        if let Some(connection) = self.connections.get(&conn) {
            self.timers
                .set(Timer::Connection(conn), connection.deadline());
        }
    }

    /// Finds out soon whether the other side of a connection still lives.
    pub(super) fn probe(&mut self, conn: ConnId, now: Duration) {
        let Some(connection) = self.connections.get_mut(&conn) else {
            return;
        };
        let patience = now.saturating_sub(connection.heard) + self.config.timing.probe;
        if connection.patience > patience {
            connection.patience = patience;
            connection.next_ping = now;
            self.schedule_attention(conn);
        }
    }

    /// Closes a connection and tells the other side why.
    pub(super) fn end(&mut self, conn: ConnId, refusal: &Refusal, now: Duration) {
        self.send(conn, &Message::Refuse(refusal.clone()));
        self.outputs.push_back(Output::Close {
            conn,
            reason: refusal.text.clone(),
        });
        self.gone(conn, &refusal.text, refusal.code.is_lasting(), now);
    }

    /// A connection is no more. `lasting`: asking again soon is pointless.
    pub(super) fn gone(&mut self, conn: ConnId, reason: &str, lasting: bool, now: Duration) {
        let Some(connection) = self.connections.remove(&conn) else {
            return;
        };
        self.timers.cancel(&Timer::Connection(conn));
        self.asked.closed(conn, now);
        self.wait_for_answers();
        match (connection.phase, conn) {
            (Phase::Dialling, _) => self.dials -= 1,
            (Phase::Established, _) | (_, ConnId::Dialled(_)) => {}
            (Phase::Hello | Phase::Ready | Phase::Welcome, ConnId::Accepted(_)) => {
                self.handshakes -= 1;
            }
        }
        let spare = !connection.is_needed();
        let peer = connection.hello.map(|hello| hello.id);
        if let Some(candidate) = connection.candidate {
            self.attempt_failed(&candidate, reason, lasting, now);
        }
        if let Some(id) = peer {
            if self.control.get(&id) == Some(&conn) {
                let lived = now.saturating_sub(connection.since);
                self.control_lost(id, reason, lived, spare, now);
            } else {
                self.schedule_peer(id, now);
                self.retry_targets(id, now);
            }
        }
        self.dial_waiting(now);
    }

    pub(super) fn send(&mut self, conn: ConnId, message: &Message) {
        let mut bytes = Vec::new();
        emit(message, &mut bytes);
        let cargo = message.is_cargo();
        self.outputs.push_back(Output::Send { conn, bytes, cargo });
    }

    /// Begins a connection: who we are, and how we see the other side.
    pub(super) fn introduce(&mut self, conn: ConnId, remote: std::net::SocketAddr) {
        let mut hello = self.config.me.clone();
        hello.seen = Some(remote);
        let mut bytes = preamble().to_vec();
        emit(&Message::Hello(Box::new(hello)), &mut bytes);
        let cargo = false;
        self.outputs.push_back(Output::Send { conn, bytes, cargo });
    }
}
