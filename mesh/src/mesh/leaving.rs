//! This node leaves, and may come back.

use std::time::Duration;

use super::{LinkChange, Mesh, Output, SWEEP, Timer};
use crate::choice::Nearest;
use crate::connection::Phase;
use crate::entry::{Entry, Sealed};
use crate::message::{Message, Told};
use crate::pace::Pace;
use crate::peer::PeerState;
use crate::refusal::{Refusal, RefusalCode};
use crate::roster::Roster;
use crate::timers::Timers;

impl Mesh {
    /// Tells all that this node is no longer part of the network, and closes everything.
    pub(super) fn leave(&mut self, now: Duration) {
        if self.left {
            return;
        }
        self.left = true;
        let mut entry = Entry::clone(self.roster.own());
        entry.version = entry.version.saturating_add(1);
        entry.left = true;
        let entry = Sealed::new(entry);
        let bytes = entry.bytes().to_vec();
        let farewell = Message::Entries(vec![Told { idle: 0, bytes }]);
        let refusal = Refusal::new(RefusalCode::Leaving, "this node leaves");
        for (conn, connection) in std::mem::take(&mut self.connections) {
            if connection.phase == Phase::Established {
                self.send(conn, &farewell);
            }
            if connection.phase != Phase::Dialling {
                self.send(conn, &Message::Refuse(refusal.clone()));
            }
            let reason = refusal.text.clone();
            self.outputs.push_back(Output::Close { conn, reason });
        }
        for (id, peer) in self.roster.iter() {
            let name = &peer.entry.name;
            if peer.told {
                let name = name.clone();
                self.outputs.push_back(Output::Unreachable { id, name });
            }
            if peer.state == PeerState::Up && self.links.is_none() {
                let name = name.clone();
                self.outputs
                    .push_back(Output::Link(LinkChange::Left { id, name }));
            }
        }
        self.leave_links(now);
        self.roster = Roster::new(entry);
        self.nearest = Nearest::new();
        self.control.clear();
        self.wanted.clear();
        self.dialled.clear();
        self.reviving.clear();
        self.targets.clear();
        self.waiting.clear();
        self.news.clear();
        self.asked.clear();
        self.timers = Timers::new();
        (self.dials, self.handshakes) = (0, 0);
        self.own.pace = Pace::new(now);
        self.own.spread = self.roster.own().version;
    }

    /// The operator wants this node in the network again.
    pub(super) fn come_back(&mut self, now: Duration) {
        if !self.left {
            return;
        }
        self.left = false;
        let mut entry = Entry::clone(self.roster.own());
        entry.version = entry.version.saturating_add(1);
        entry.left = false;
        entry.neighbours.clear();
        self.roster.set_own(Sealed::new(entry));
        self.schedule_digest(now);
        self.timers.set(Timer::Sweep, now + SWEEP);
    }
}
