//! Whom this node talks to of its own accord: few, however many there are.
//!
//! Messages get to every *reachable* node. Digests are exchanged with *neighbours* only, the nodes
//! at the other end of a control connection. One exchange makes two rings equal, so what one node
//! knows gets from neighbour to neighbour to all, and what is sent when nothing happens does not
//! grow with the number of nodes.
//!
//! Of two admitted neighbours that connect, the one with the lower name begins. A node that is not
//! admitted asks by itself, one neighbour after the other: the first answer to a node with an empty
//! disk is the whole ring, the next ones are short.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::PeerName;

use super::{Agent, REPEAT};

/// Nodes that one which is not admitted asks at a time, if it only lacks what changed while it was
/// away.
const FANOUT: usize = 3;

/// How long a node leaves it to the one with the lowest name to ask all others, where nobody is
/// admitted; then it asks them itself.
const ROLL_CALL: Duration = Duration::from_secs(10);

/// Nodes asked in a second whether they are electors too.
const ELECTORS_AT_ONCE: usize = 16;

/// What is known of another node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Peer {
    /// Messages get to it.
    pub(super) reachable: bool,
    /// It is, or was, at the other end of a control connection of this node.
    pub(super) neighbour: bool,
    /// Its free addresses, when it last spoke.
    pub(super) free: Option<u64>,
    /// It has no space to give, as it said; not asked again before this time.
    pub(super) denied_until: Option<Duration>,
    /// What it was told by `consensus=N`; 0: nothing.
    pub(super) electors: u32,
}

/// Whom a node that is not admitted has asked, and who has answered.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Inquiry {
    /// In the last second.
    asked: BTreeMap<PeerName, Asked>,
    /// Who has answered and recorded this node's life.
    heard: BTreeSet<PeerName>,
    /// Since when there has been somebody to ask.
    since: Option<Duration>,
    /// Who was sent the last digest.
    last: Option<PeerName>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Asked {
    /// When it may be asked again.
    until: Duration,
    answered: bool,
}

impl Inquiry {
    /// What was asked is of no use any more: the question has changed.
    pub(super) fn start_over(&mut self) {
        self.asked.clear();
        self.heard.clear();
    }

    pub(super) fn heard(&mut self, from: &PeerName) {
        self.heard.insert(from.clone());
    }

    pub(super) fn has_heard(&self, name: &PeerName) -> bool {
        self.heard.contains(name)
    }

    pub(super) fn answered(&mut self, by: &PeerName) {
        if let Some(asked) = self.asked.get_mut(by) {
            asked.answered = true;
        }
    }

    fn waiting(&self) -> usize {
        self.asked.values().filter(|asked| !asked.answered).count()
    }
}

impl Agent {
    pub(super) fn reachable(&mut self, peer: &PeerName, now: Duration) {
        // One that was alone and is no more has come back.
        self.leaving &= !self.within_reach().is_empty();
        self.peers.entry(peer.clone()).or_default().reachable = true;
        self.ask_to_confirm(peer);
        self.compare_held(peer);
        self.pursue(now);
        self.ask(now);
        self.schedule(now);
    }

    pub(super) fn unreachable(&mut self, peer: PeerName, now: Duration) {
        self.inquiry.asked.remove(&peer);
        let peer = self.peers.entry(peer).or_default();
        (peer.reachable, peer.neighbour) = (false, false);
        self.pursue(now);
        self.ask(now);
    }

    pub(super) fn neighbour(&mut self, peer: &PeerName, now: Duration) {
        let known = self.peers.entry(peer.clone()).or_default();
        known.neighbour = true;
        // An earlier question may be lost.
        self.inquiry.asked.remove(peer);
        if self.is_admitted() && self.me < *peer {
            self.sync(peer);
        }
        self.reachable(peer, now);
    }

    /// Asks as many nodes as may be asked at a time for the way in.
    pub(super) fn pursue(&mut self, now: Duration) {
        if self.is_admitted() {
            return;
        }
        self.inquiry.asked.retain(|_, asked| asked.until > now);
        self.inquiry.since.get_or_insert(now);
        let limit = if self.is_fresh() { 1 } else { FANOUT };
        for _ in 0..limit.saturating_sub(self.inquiry.waiting()) {
            let Some(next) = self.next_to_ask(now) else {
                return;
            };
            self.sync(&next);
            let until = now + REPEAT;
            let asked = Asked {
                until,
                answered: false,
            };
            self.inquiry.asked.insert(next.clone(), asked);
            self.inquiry.last = Some(next);
        }
    }

    /// Who may admit this node and has not been asked a moment ago: a neighbour; or a seed, whose
    /// word counts at the very beginning; or, if nobody seems to be admitted, all that live.
    fn next_to_ask(&self, now: Duration) -> Option<PeerName> {
        let seeds = self.ring().seedings();
        let is_seed = |name: &PeerName| seeds.iter().any(|s| s.peers().contains(name));
        let one_of = |may: &dyn Fn(&PeerName, &Peer) -> bool| {
            let able = self.peers.iter().filter(|(name, peer)| {
                peer.reachable && may(name, peer) && !self.inquiry.asked.contains_key(*name)
            });
            next_after(able.map(|(name, _)| name), self.inquiry.last.as_ref()).cloned()
        };
        let near = one_of(&|_, peer| peer.neighbour);
        if near.is_some() {
            return near;
        }
        let known = |name: &PeerName, peer: &Peer| peer.neighbour || is_seed(name);
        let lost = !self
            .peers
            .iter()
            .any(|(name, peer)| peer.reachable && known(name, peer));
        if self.is_fresh() {
            return one_of(&|name, _| lost || is_seed(name));
        }
        let waited = self
            .inquiry
            .since
            .is_some_and(|since| now >= since + ROLL_CALL);
        let roster = self.ring().roster();
        let calls = waited || lost || {
            let mut others = self.peers.iter().filter(|(_, peer)| peer.reachable);
            others.all(|(name, _)| self.me < *name)
        };
        one_of(&|name, _| calls && !self.inquiry.has_heard(name) && roster.is_alive(name))
    }

    /// A digest to the neighbour after the one that had the last.
    pub(super) fn sync_next(&mut self) {
        let neighbours = self.peers.iter().filter(|(_, peer)| peer.neighbour);
        let neighbours: Vec<&PeerName> = neighbours.map(|(name, _)| name).collect();
        let last = self.inquiry.last.as_ref();
        if let Some(next) = next_after(neighbours, last).cloned() {
            self.sync(&next);
            self.inquiry.last = Some(next);
        }
    }

    /// Asks those of whom it is not known whether they are electors.
    pub(super) fn look_for_electors(&mut self) {
        if !self.lacks_electors() {
            return;
        }
        let silent = self
            .peers
            .iter()
            .filter(|(_, p)| p.reachable && p.electors == 0);
        let silent: Vec<PeerName> = silent.map(|(name, _)| name.clone()).collect();
        let mut last = self.inquiry.last.clone();
        for _ in 0..silent.len().min(ELECTORS_AT_ONCE) {
            let Some(next) = next_after(&silent, last.as_ref()) else {
                break;
            };
            self.sync(next);
            last = Some(next.clone());
        }
        self.inquiry.last = last;
    }

    pub(super) fn within_reach(&self) -> Vec<PeerName> {
        let reachable = self.peers.iter().filter(|(_, peer)| peer.reachable);
        reachable.map(|(name, _)| name.clone()).collect()
    }

    pub(super) fn is_reachable(&self, name: &PeerName) -> bool {
        self.peers.get(name).is_some_and(|peer| peer.reachable)
    }
}

/// The first of these sorted names that comes after `last`, in a circle.
pub(super) fn next_after<'a>(
    names: impl IntoIterator<Item = &'a PeerName>,
    last: Option<&PeerName>,
) -> Option<&'a PeerName> {
    let mut names = names.into_iter().peekable();
    let first = names.peek().copied();
    names
        .find(|name| last.is_none_or(|last| *name > last))
        .or(first)
}
