//! What is carried for other parts of the program: to one node, handed on along the shortest way that
//! is known, or to all, each handing on what it sees for the first time.
//!
//! Nothing is kept or sent again: those who gossip repair what is lost.

use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output};
use crate::connection::ConnId;
use crate::message::{Broadcast, Doubt, MAX_GOSSIP, Message, Parcel};

/// Connections that a message may cross: several times the diameter of a network of 5,000.
const MAX_HOPS: u8 = 32;

impl Mesh {
    pub(super) fn send_gossip(
        &mut self,
        to: Option<PeerId>,
        channel: u8,
        payload: Vec<u8>,
        now: Duration,
    ) {
        if payload.len() > MAX_GOSSIP {
            self.counters.gossip_too_large += 1;
            return;
        }
        let me = self.me();
        let Some(to) = to else {
            let sequence = self.own.sequence;
            self.own.sequence += 1;
            let broadcast = Broadcast {
                origin: me,
                sequence,
                hops: MAX_HOPS,
                channel,
                payload,
            };
            self.counters.gossip_sent += 1;
            return self.flood(broadcast, None);
        };
        match self.way(to) {
            Some(conn) if !self.own.muted => {
                self.counters.gossip_sent += 1;
                let parcel = Parcel {
                    from: me,
                    to,
                    hops: MAX_HOPS,
                    channel,
                    payload,
                };
                self.hand_on(conn, parcel, now);
            }
            _ => self.counters.gossip_undeliverable += 1,
        }
    }

    /// Hands a message to a neighbour, and sees to it that it is found out soon if that one does not
    /// run: until then all that leads through it is lost.
    fn hand_on(&mut self, conn: ConnId, parcel: Parcel, now: Duration) {
        self.send(conn, &Message::Parcel(parcel));
        let quiet = self.config.timing.quiet;
        let connection = self.connections.get(&conn);
        if connection.is_some_and(|connection| now >= connection.heard + quiet) {
            self.probe(conn, now);
        }
    }

    /// Bytes for one node came.
    pub(super) fn parcel(&mut self, conn: ConnId, mut parcel: Parcel, now: Duration) {
        if parcel.to == self.me() {
            return self.deliver(parcel.from, parcel.channel, parcel.payload);
        }
        parcel.hops = parcel.hops.min(MAX_HOPS).saturating_sub(1);
        // Never back: the two ends of that connection see the network differently, for a moment.
        match self.way(parcel.to).filter(|way| *way != conn) {
            Some(way) if parcel.hops > 0 => {
                self.counters.gossip_carried += 1;
                self.hand_on(way, parcel, now);
            }
            _ => self.counters.gossip_undeliverable += 1,
        }
    }

    /// Bytes for all nodes came.
    pub(super) fn broadcast(&mut self, conn: ConnId, mut broadcast: Broadcast) {
        let Broadcast {
            origin, sequence, ..
        } = broadcast;
        // What is noted of origins has a bound because the table of peers has.
        if origin == self.me() || !self.is_known(origin) {
            self.counters.gossip_unknown += u64::from(origin != self.me());
            return;
        }
        if !self.seen.note(origin, sequence) {
            self.counters.gossip_repeated += 1;
            return;
        }
        broadcast.hops = broadcast.hops.min(MAX_HOPS).saturating_sub(1);
        if broadcast.hops > 0 {
            self.flood(broadcast.clone(), Some(conn));
        }
        self.deliver(origin, broadcast.channel, broadcast.payload);
    }

    /// Sends to all neighbours but the one it came from.
    fn flood(&mut self, broadcast: Broadcast, from: Option<ConnId>) {
        if from.is_none() && self.own.muted {
            return;
        }
        let origin = broadcast.origin;
        let to = self.control.iter();
        let to = to.filter(|(id, conn)| **id != origin && Some(**conn) != from);
        let to: Vec<ConnId> = to.map(|(_, conn)| *conn).collect();
        let message = Message::Broadcast(broadcast);
        for conn in to {
            self.counters.gossip_carried += u64::from(from.is_some());
            self.send(conn, &message);
        }
    }

    fn deliver(&mut self, from: PeerId, channel: u8, payload: Vec<u8>) {
        let heard = self
            .roster
            .get(from)
            .filter(|peer| !peer.rival && peer.gone.is_none());
        match heard.map(|peer| peer.entry.name.clone()) {
            Some(name) if !self.own.muted => {
                self.counters.gossip_received += 1;
                self.outputs.push_back(Output::Gossip {
                    from,
                    name,
                    channel,
                    payload,
                });
            }
            _ => self.counters.gossip_unknown += 1,
        }
    }

    /// Asks the neighbours of a node whether it still lives: another claims its name.
    pub(super) fn spread_doubt(&mut self, about: PeerId, now: Duration) {
        let again = self.config.timing.probe;
        let doubted = |(id, at): (PeerId, Duration)| id == about && now < at + again;
        if self.own.doubted.is_some_and(doubted) {
            return;
        }
        self.own.doubted = Some((about, now));
        if let Some(conn) = self.control.get(&about).copied() {
            return self.probe(conn, now);
        }
        let Some(entry) = self.roster.entry(about) else {
            return;
        };
        for to in entry.neighbours.clone() {
            let doubt = Doubt {
                to,
                hops: MAX_HOPS,
                about,
            };
            if let Some(conn) = self.way(to) {
                self.send(conn, &Message::Doubt(doubt));
            }
        }
    }

    /// Somebody doubts that a neighbour of this or of another node lives.
    pub(super) fn doubt(&mut self, conn: ConnId, mut doubt: Doubt, now: Duration) {
        if doubt.to == self.me() {
            if let Some(conn) = self.control.get(&doubt.about).copied() {
                self.probe(conn, now);
            }
            return;
        }
        doubt.hops = doubt.hops.min(MAX_HOPS).saturating_sub(1);
        if let Some(way) = self
            .way(doubt.to)
            .filter(|way| *way != conn && doubt.hops > 0)
        {
            self.send(way, &Message::Doubt(doubt));
        }
    }

    /// The connection that leads to a node.
    fn way(&self, to: PeerId) -> Option<ConnId> {
        if let Some(conn) = self.control.get(&to) {
            return Some(*conn);
        }
        let next = self.roster.next_hop(to)?;
        self.control.get(&next).copied()
    }
}
