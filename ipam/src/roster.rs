//! Who takes part, and in which life: what a node that restarts, or is declared gone, is known by.
//!
//! A life is one run of a node's router, counted by the node itself. Declaring a node gone names
//! the life that was known; a later life of the same node takes part again. Both counters only
//! grow and are merged by maximum, so rosters have the laws that rings have.

use std::collections::BTreeMap;

use wire::PeerName;

/// Most nodes that a roster takes in: several times the clusters that are aimed at.
pub(crate) const MAX_MEMBERS: usize = 1 << 14;

/// A node that was named, as a seed, and has not been heard of.
pub(crate) const NAMED: u32 = 1;

/// One node's entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Member {
    /// Its latest life that is known; 1 is a seed that was never heard of.
    pub life: u32,
    /// Its latest life that was declared gone.
    pub gone: u32,
}

impl Member {
    /// Whether it counts as taking part: not declared gone, or back since.
    pub fn is_alive(self) -> bool {
        self.life > self.gone
    }

    fn join(&mut self, other: Self) -> bool {
        let before = *self;
        self.life = self.life.max(other.life);
        self.gone = self.gone.max(other.gone);
        *self != before
    }
}

/// All nodes that ever took part.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Roster(BTreeMap<PeerName, Member>);

impl Roster {
    /// Nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// A node's entry; zeros for one that nobody has heard of.
    pub fn get(&self, name: &PeerName) -> Member {
        self.0.get(name).copied().unwrap_or_default()
    }

    /// Whether the node takes part.
    pub fn is_alive(&self, name: &PeerName) -> bool {
        self.get(name).is_alive()
    }

    /// All that take part, but for one.
    pub fn alive_but<'a>(&'a self, me: &'a PeerName) -> impl Iterator<Item = &'a PeerName> + 'a {
        let alive = self.0.iter().filter(|(_, member)| member.is_alive());
        alive.map(|(name, _)| name).filter(move |name| *name != me)
    }

    /// All entries, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&PeerName, Member)> + '_ {
        self.0.iter().map(|(name, member)| (name, *member))
    }

    /// How many nodes it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Raises an entry; returns whether that is news.
    pub(crate) fn note(&mut self, name: &PeerName, member: Member) -> bool {
        if member == Member::default() {
            return false;
        }
        self.0.entry(name.clone()).or_default().join(member)
    }

    /// How many nodes there would be with those of another roster.
    pub(crate) fn len_with(&self, other: &Self) -> usize {
        self.len()
            + other
                .0
                .keys()
                .filter(|name| !self.0.contains_key(*name))
                .count()
    }

    /// Takes in another roster; returns whether it said anything new.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let mut news = false;
        for (name, member) in other.iter() {
            news |= self.note(name, member);
        }
        news
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&PeerName) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
}

impl FromIterator<(PeerName, Member)> for Roster {
    fn from_iter<I: IntoIterator<Item = (PeerName, Member)>>(entries: I) -> Self {
        let mut roster = Self::new();
        for (name, member) in entries {
            roster.note(&name, member);
        }
        roster
    }
}
