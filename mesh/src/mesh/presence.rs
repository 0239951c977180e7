//! What follows from who can be reached: what the other parts of the program are told, what becomes
//! of data links, and of two nodes with one name.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, PeerName};

use super::{ConditionKind, Mesh, Output, Timer, is_local};
use crate::entry::Entry;
use crate::groups::Groups;
use crate::link::{LinkChange, LinkInput, Path};
use crate::peer::{Peer, PeerState, PeerView, Why};

impl Mesh {
    /// Follows what has become of the table.
    pub(super) fn follow(&mut self, now: Duration) {
        loop {
            let changes = self.roster.take_changes();
            if changes.is_empty() {
                return;
            }
            self.rethink(now);
            for (id, reachable) in changes {
                if reachable {
                    self.found(id, now);
                } else {
                    self.lost(id, now);
                }
            }
        }
    }

    /// A peer can be reached.
    fn found(&mut self, id: PeerId, now: Duration) {
        self.nearest.insert(self.me(), id);
        self.revival.reset();
        if self.roster.get(id).is_some_and(|peer| peer.doubted) {
            // Two that meet after a while apart have old news of the others, and newer ones in a
            // moment.
            let wait = self.scaled(self.config.timing.publish);
            return self.timers.set(Timer::Peer(id), now + wait);
        }
        self.timers.cancel(&Timer::Peer(id));
        if let Some(name) = self.name_of(id) {
            self.settle_name(&name, now);
        }
        self.tell(id);
        self.tell_groups(id);
        self.refresh_link(id, now);
    }

    /// A peer cannot be reached any more.
    fn lost(&mut self, id: PeerId, now: Duration) {
        self.nearest.remove(self.me(), id);
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        let (gone, name) = (peer.gone.is_some(), peer.entry.name.clone());
        if gone {
            self.farewell(id, now);
        } else {
            self.timers
                .set(Timer::Peer(id), now + self.config.timing.settle);
            self.revival.reset();
            self.schedule_revival(now);
            self.retry_targets(id, now);
            self.link_input(LinkInput::Doubt(id), now);
        }
        self.settle_name(&name, now);
    }

    /// A peer's entry has changed.
    pub(super) fn entry_changed(&mut self, id: PeerId, before: Option<&Entry>, now: Duration) {
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        if peer.gone.is_some() {
            return self.farewell(id, now);
        }
        let entry = Arc::clone(&peer.entry);
        let renamed = before.is_some_and(|before| before.name != entry.name);
        let changed = before.is_some_and(|before| renamed || before.mtu != entry.mtu);
        if renamed && let Some(before) = before {
            self.untell_as(id, &before.name);
            self.settle_name(&before.name, now);
        }
        if let Some(peer) = self.roster.get_mut(id)
            && before.is_some_and(|before| before.run != peer.entry.run)
        {
            // Nothing about another life of it is old news.
            peer.doubted = false;
        }
        if before.is_none() || renamed {
            let name = self.name_of(id);
            if let Some(name) = name {
                self.settle_name(&name, now);
            }
            self.tell(id);
        }
        if before.is_none() {
            self.schedule_revival(now);
        }
        if before.is_none_or(|before| before.groups != entry.groups) {
            self.tell_groups(id);
        }
        if before.is_some_and(|before| before.addresses != entry.addresses) {
            self.retry_soon(id, now);
        }
        // A restarted peer's entry comes before it counts as reached: what changed is not forgotten.
        if let Some(peer) = self.roster.get_mut(id) {
            peer.stale |= changed;
        }
        // Most news are of control connections, which a link knows nothing of.
        if before.is_none_or(|before| !entry.links_like(before)) {
            self.refresh_link(id, now);
        }
    }

    /// A peer is gone: those who knew it are told.
    pub(super) fn farewell(&mut self, id: PeerId, now: Duration) {
        self.untell(id);
        self.tell_groups(id);
        self.timers.cancel(&Timer::Peer(id));
        let Some(peer) = self.roster.get_mut(id) else {
            return;
        };
        let why = peer.gone.as_ref().map(|gone| gone.why);
        let (name, was) = (peer.entry.name.clone(), peer.state);
        peer.enter(PeerState::Connecting, now);
        peer.endpoint = None;
        if self.judges() {
            self.forget_link(id, now);
        } else if was == PeerState::Up {
            let change = if why == Some(Why::Left) {
                LinkChange::Left { id, name }
            } else {
                let reason = format!("another identity has the name {name}");
                LinkChange::Down { id, name, reason }
            };
            self.outputs.push_back(Output::Link(change));
        }
        self.orphan_targets(id, now);
    }

    /// A peer has been out of reach for a while.
    pub(super) fn attend_peer(&mut self, id: PeerId, now: Duration) {
        let timing = &self.config.timing;
        let (settle, grace) = (timing.settle, timing.grace);
        let Some(peer) = self.roster.get_mut(id) else {
            return;
        };
        if peer.is_reachable() {
            peer.doubted = false;
            return self.found(id, now);
        }
        let Some(lost) = peer.lost.as_ref().filter(|_| peer.gone.is_none()) else {
            return;
        };
        let lost = lost.at;
        let name = peer.entry.name.clone();
        if now < lost + settle {
            return self.timers.set(Timer::Peer(id), lost + settle);
        }
        peer.doubted = true;
        self.untell(id);
        self.tell_groups(id);
        // The same machine with a new key: nobody will hear of this one again.
        if self.holder(&name, id).is_some() {
            self.roster.bury(id, Why::Superseded, now);
            return self.farewell(id, now);
        }
        if self.judges() {
            // Its link is as good as its probes say (I5).
            return;
        }
        if now < lost + grace {
            return self.timers.set(Timer::Peer(id), lost + grace);
        }
        let Some(peer) = self.roster.get_mut(id) else {
            return;
        };
        if peer.state == PeerState::Up {
            let reason = match &peer.reason {
                Some(reason) => reason.to_string(),
                None => "nobody has a connection with it".to_owned(),
            };
            peer.reason = Some(reason.as_str().into());
            peer.enter(PeerState::Down, now);
            self.outputs
                .push_back(Output::Link(LinkChange::Down { id, name, reason }));
        }
    }

    /// Makes the link what the peer's entry and connection say, if it can be reached; or tells those
    /// who judge it.
    pub(super) fn refresh_link(&mut self, id: PeerId, now: Duration) {
        let endpoint = self.endpoint(id);
        let judges = self.judges();
        let trusted = |peer: &&mut Peer| peer.is_reachable() && !peer.doubted;
        let Some(peer) = self.roster.get_mut(id).filter(trusted) else {
            return;
        };
        if judges {
            return self.tell_links(id, now);
        }
        let Some(endpoint) = endpoint else { return };
        if peer.state == PeerState::Up && peer.endpoint == Some(endpoint) && !peer.stale {
            return;
        }
        peer.endpoint = Some(endpoint);
        peer.stale = false;
        peer.enter(PeerState::Up, now);
        let up = LinkChange::Up {
            id,
            name: peer.entry.name.clone(),
            path: Path::vxlan(id, endpoint, peer.entry.mtu),
            sleeve: None,
            plain: None,
        };
        self.outputs.push_back(Output::Link(up));
    }

    /// Where a peer receives VXLAN: at the address of its control connection, or at the first that
    /// its entry gives.
    fn endpoint(&self, id: PeerId) -> Option<SocketAddr> {
        let entry = &self.roster.get(id)?.entry;
        let direct = self.control.get(&id);
        let direct = direct.and_then(|conn| self.connections.get(conn)?.remote);
        let ip = direct.map(|remote| remote.ip()).or_else(|| {
            let here = self.sightings.any_local();
            let usable = |address: &&SocketAddr| here || !is_local(address.ip());
            entry.addresses.iter().find(usable).map(SocketAddr::ip)
        });
        Some(SocketAddr::new(ip?, entry.vxlan_port))
    }

    /// The name of a node, this one included.
    pub(super) fn name_of(&self, id: PeerId) -> Option<PeerName> {
        self.roster.entry(id).map(|entry| entry.name.clone())
    }

    /// Tells the other parts of the program that a peer can be reached.
    fn tell(&mut self, id: PeerId) {
        let muted = self.own.muted;
        let Some(peer) = self.roster.get(id) else {
            return;
        };
        let heard = peer.is_reachable() && !peer.doubted && !peer.rival;
        if !heard || peer.told || muted {
            return;
        }
        let name = peer.entry.name.clone();
        // One of that name that was lost a moment ago is it no more.
        for other in self.roster.namesakes(&name) {
            if other != id {
                self.untell(other);
            }
        }
        if let Some(peer) = self.roster.get_mut(id) {
            peer.told = true;
        }
        self.outputs.push_back(Output::Reachable { id, name });
    }

    /// Tells the data path which groups a peer wants.
    fn tell_groups(&mut self, id: PeerId) {
        let Some(peer) = self.roster.get_mut(id) else {
            return;
        };
        let groups = match peer.is_reachable() && !peer.doubted && peer.gone.is_none() {
            true => peer.entry.groups.clone(),
            false => Groups::All,
        };
        let selective = groups != Groups::All;
        if std::mem::replace(&mut peer.selective, selective) || selective {
            self.outputs.push_back(Output::Groups { id, groups });
        }
    }

    /// Whether the other parts of the program know that messages get to a peer.
    pub(super) fn is_told(&self, id: PeerId) -> bool {
        self.roster.get(id).is_some_and(|peer| peer.told)
    }

    fn untell(&mut self, id: PeerId) {
        if let Some(name) = self.name_of(id) {
            self.untell_as(id, &name);
        }
    }

    /// As [`Self::untell`], of a peer that was told by this name.
    fn untell_as(&mut self, id: PeerId, name: &PeerName) {
        if let Some(peer) = self.roster.get_mut(id).filter(|peer| peer.told) {
            peer.told = false;
            let name = name.clone();
            self.outputs.push_back(Output::Unreachable { id, name });
        }
    }

    /// Another node that can be reached, or this one, and has this name.
    pub(super) fn holder(&self, name: &PeerName, other_than: PeerId) -> Option<PeerId> {
        let me = &self.config.me;
        if *name == me.name && me.id != other_than {
            return Some(me.id);
        }
        let namesakes = self.roster.namesakes(name).into_iter();
        namesakes
            .filter(|id| *id != other_than)
            .find(|id| self.is_reachable(*id))
    }

    /// Of all nodes with one name that can be reached, the one with the smallest identity is heard;
    /// all of them keep their data links, and the operator is told (I5).
    pub(super) fn settle_name(&mut self, name: &PeerName, now: Duration) {
        let me = self.me();
        let mut holders = self.roster.namesakes(name);
        holders.retain(|id| self.is_reachable(*id));
        if *name == self.config.me.name && !self.left {
            holders.push(me);
        }
        let first = holders.iter().min().copied();
        for id in holders.iter().copied().filter(|id| *id != me) {
            let rival = Some(id) != first;
            if let Some(peer) = self.roster.get_mut(id) {
                peer.rival = rival;
            }
            if rival {
                self.untell(id);
            } else {
                self.tell(id);
            }
        }
        if holders.len() > 1 {
            let list: Vec<String> = holders.iter().map(|id| self.describe(*id)).collect();
            let text = format!(
                "{} nodes are named {name}: {}; give all but one of them another --name",
                holders.len(),
                list.join(", and ")
            );
            self.raise(ConditionKind::DuplicateName, name.to_string(), text, now);
        }
        if *name == self.config.me.name {
            self.mute(first != Some(me));
        }
    }

    /// What this node says would be taken for the words of another, or no longer.
    fn mute(&mut self, muted: bool) {
        if std::mem::replace(&mut self.own.muted, muted) == muted {
            return;
        }
        let all: Vec<PeerId> = self.roster.iter().map(|(id, _)| id).collect();
        for id in all {
            if muted {
                self.untell(id);
            } else {
                self.tell(id);
            }
        }
    }

    /// A node for the operator: its identity, and where it is.
    pub(super) fn describe(&self, id: PeerId) -> String {
        if id == self.me() {
            return format!("{id} (this node)");
        }
        let remote = self.control.get(&id);
        let remote = remote.and_then(|conn| self.connections.get(conn)?.remote);
        let listed = || self.roster.get(id)?.entry.addresses.first().copied();
        match remote.or_else(listed) {
            Some(address) => format!("{id} at {address}"),
            None => id.to_string(),
        }
    }

    pub(super) fn view(&self, id: PeerId, peer: &Peer, now: Duration) -> PeerView {
        let connection = self.control.get(&id);
        let connection = connection.and_then(|conn| self.connections.get(conn));
        let via = self.roster.next_hop(id).filter(|hop| *hop != id);
        let failure = || self.dialled.get(&id)?.failure.clone();
        let reason = peer.reason.as_ref().map(ToString::to_string);
        PeerView {
            name: peer.entry.name.clone(),
            id,
            endpoint: peer.endpoint,
            control: connection
                .and_then(|connection| connection.remote)
                .or_else(|| peer.entry.addresses.first().copied()),
            connected: connection.is_some(),
            hops: self.roster.hops(id),
            via: via.and_then(|hop| self.name_of(hop)),
            state: peer.state,
            // Why it was lost says more than the dials that failed since.
            reason: if peer.is_reachable() {
                None
            } else {
                reason.or_else(failure)
            },
            since: now.saturating_sub(peer.since),
            mtu: Some(peer.entry.mtu),
            rtt: connection.and_then(|connection| connection.rtt),
            version: Some(peer.entry.software.clone()),
        }
    }
}
