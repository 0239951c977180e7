//! Data links that probes judge: what the links are told of peers, and what follows from what they
//! find out.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire::PeerId;

use super::{Mesh, Output};
use crate::link::{Gone, LinkChange, LinkInput, LinkOutput, LinkView, PeerFacts};
use crate::peer::{PeerState, Why};

impl Mesh {
    /// The links, by identity; none where nothing judges them.
    pub fn links(&self, now: Duration) -> Vec<LinkView> {
        let links = self.links.as_ref();
        links.map_or_else(Vec::new, |links| links.views(now))
    }

    /// Whether probes judge the links.
    pub(super) fn judges(&self) -> bool {
        self.links.is_some()
    }

    /// Hands the links an input, if there are any, and does what they want.
    pub(super) fn link_input(&mut self, input: LinkInput, now: Duration) {
        let Some(links) = &mut self.links else {
            return;
        };
        links.handle(input, now);
        while let Some(output) = self.links.as_mut().and_then(|links| links.poll_output()) {
            match output {
                LinkOutput::Probe(probe) => self.outputs.push_back(Output::Probe(probe)),
                LinkOutput::Link(change) => self.link_changed(change, now),
                LinkOutput::Reach(reach) => {
                    self.own.reach = reach;
                    self.own_changed(now);
                }
                LinkOutput::SleeveSeen(seen) => {
                    self.own.sleeve_seen = seen;
                    self.own_changed(now);
                }
            }
        }
    }

    /// Lets the links do what is due.
    pub(super) fn links_due(&mut self, now: Duration) {
        let due = self.links.as_ref().and_then(|links| links.poll_timeout());
        if due.is_some_and(|due| due <= now) {
            self.link_input(LinkInput::Timeout, now);
        }
    }

    /// Tells the links what is known of a peer.
    pub(super) fn tell_links(&mut self, id: PeerId, now: Duration) {
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        let entry = Arc::clone(&peer.entry);
        let remote = self.control.get(&id);
        let remote = remote.and_then(|conn| self.connections.get(conn)?.remote);
        let mut addresses = Vec::new();
        for address in remote.iter().chain(&entry.addresses).map(SocketAddr::ip) {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let facts = Arc::new(PeerFacts {
            name: entry.name.clone(),
            run: entry.run,
            addresses,
            vxlan_port: entry.vxlan_port,
            sleeve_port: entry.sleeve_port,
            sleeve_seen: entry.sleeve_seen,
            mtu: entry.mtu,
            reach: entry.reach.clone(),
        });
        self.tell_key(id, Some(entry.public_key));
        self.link_input(LinkInput::Peer { id, facts }, now);
    }

    /// Tells those who seal whose key is which.
    fn tell_key(&mut self, id: PeerId, public: Option<[u8; 32]>) {
        if self.links.as_ref().is_some_and(|links| links.are_sealed()) {
            self.outputs.push_back(Output::Key { id, public });
        }
    }

    /// Tells the links that a peer is no more.
    pub(super) fn forget_link(&mut self, id: PeerId, now: Duration) {
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        let why = match peer.gone.as_ref().map(|gone| gone.why) {
            Some(Why::Left) => Gone::Left,
            _ => Gone::Removed(format!(
                "another identity has the name {}, or it was forgotten",
                peer.entry.name
            )),
        };
        self.link_input(LinkInput::Gone { id, why }, now);
        self.tell_key(id, None);
    }

    /// This node leaves: all peers are forgotten.
    pub(super) fn leave_links(&mut self, now: Duration) {
        let ids: Vec<PeerId> = self.links(now).into_iter().map(|link| link.id).collect();
        for id in ids {
            let why = Gone::Left;
            self.link_input(LinkInput::Gone { id, why }, now);
            self.tell_key(id, None);
        }
    }

    fn link_changed(&mut self, change: LinkChange, now: Duration) {
        if let Some(peer) = self.roster.get_mut(change.id()) {
            match &change {
                LinkChange::Up { path, .. } => {
                    peer.endpoint = Some(path.endpoint);
                    peer.enter(PeerState::Up, now);
                }
                LinkChange::Down { reason, .. } => {
                    peer.reason = Some(reason.as_str().into());
                    peer.enter(PeerState::Down, now);
                }
                LinkChange::Left { .. } => {}
            }
        }
        if let LinkChange::Down { id, .. } = &change
            && let Some(conn) = self.control.get(id).copied()
        {
            // Its machine may be gone: the way of messages, too, is to be another soon.
            self.probe(conn, now);
        }
        self.outputs.push_back(Output::Link(change));
    }
}
