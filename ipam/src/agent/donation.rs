//! Space from where it is to where it is needed: requests, gifts, and giving back.
//!
//! A node asks before it runs out, one peer at a time: the reachable owner that said to have most
//! free addresses. The donor gives one CIDR block, at most half of what it has free, by a claim in
//! its own ring that it tells to all. A node that has much more free space than use for a long
//! time gives blocks back to a neighbour in the ring, so that they coalesce.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::PeerName;

use super::Agent;
use super::message::Message;
use crate::range::Range;
use crate::roster::Member;

/// Size of a first block, in addresses: twice the pods that a Kubernetes node runs at most.
const BLOCK: u128 = 256;
/// Largest block asked for: a 16th of the default range.
const MAX_BLOCK: u128 = 1 << 16;
/// Fewer free addresses than this, and more are asked for: several starts of pods at once, while
/// an answer takes milliseconds.
const LOW_WATER: u128 = 64;
/// How long a peer may take to answer a request before another is asked.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a peer that had nothing to give is not asked again while nobody waits.
const DENIED: Duration = Duration::from_secs(30);
/// The same while a container waits.
const DENIED_URGENT: Duration = Duration::from_millis(900);
/// How long a window is asked for after a caller has last said that it waits.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long space has to be unused before it is given back.
const IDLE: Duration = Duration::from_secs(600);
/// Most windows that are asked for at a time: the range, and subnets that callers wait for.
const MAX_WINDOWS: usize = 16;

/// What this node needs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Wants {
    /// In which windows, and until when somebody waits.
    windows: BTreeMap<Range, Option<Duration>>,
    /// Who was asked for what, and until when an answer is waited for.
    asked: Option<(PeerName, Range, Duration)>,
    /// Since when there is much more space than use.
    idle_since: Option<Duration>,
}

impl Wants {
    pub(super) fn is_empty(&self) -> bool {
        self.windows.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.windows.len()
    }
}

impl Agent {
    /// Somebody waits for an address in this window.
    pub(super) fn want(&mut self, window: Range, now: Duration) {
        if self.wants.windows.len() < MAX_WINDOWS || self.wants.windows.contains_key(&window) {
            let before = self.wants.windows.insert(window, Some(now + PATIENCE));
            if before.flatten().is_none() {
                // Who had no reserve to give may have one address for a container that waits.
                for peer in self.peers.values_mut() {
                    peer.denied_until = None;
                }
            }
        }
        self.ask(now);
        self.schedule(now);
    }

    /// Asks for more before there is none.
    pub(super) fn look_ahead(&mut self, now: Duration) {
        let home = Range::of(self.home());
        // A small range is not shared out in reserves.
        let low = LOW_WATER.min(home.size() / 16);
        if !self.is_admitted()
            || self.leaving
            || self.allocator.free().size_within(home) >= low.max(1)
            || self.ring().is_undecided()
            || !self.round.ranges.is_empty()
        {
            return;
        }
        self.wants.windows.entry(home).or_insert(None);
        self.ask(now);
        self.schedule(now);
    }

    /// Sends the next request, if one is due and somebody can be asked.
    pub(super) fn ask(&mut self, now: Duration) {
        if !self.is_admitted() || self.leaving || self.wants.is_empty() {
            return;
        }
        self.forget_who_left(now);
        if let Some((peer, _, until)) = &self.wants.asked {
            if *until > now && self.is_reachable(peer) {
                return;
            }
            let peer = peer.clone();
            self.wants.asked = None;
            self.rest(&peer, now);
        }
        // Those for whom somebody waits come first.
        let mut windows: Vec<(Range, bool)> = self
            .wants
            .windows
            .iter()
            .map(|(w, u)| (*w, u.is_some()))
            .collect();
        windows.sort_by_key(|(_, urgent)| !urgent);
        for (window, urgent) in windows {
            let Some(peer) = self.donor(window, now) else {
                continue;
            };
            let owned = self.ring().owned_by(&self.me).size();
            let size = owned.clamp(BLOCK, MAX_BLOCK);
            let message = Message::Request {
                window,
                size: u64::try_from(size).unwrap_or(u64::MAX),
                urgent,
                life: self.life(),
            };
            self.wants.asked = Some((peer.clone(), window, now + ANSWER));
            self.send(Some(&peer), &message);
            return;
        }
    }

    /// Callers give up; the reserve is wanted all the same.
    fn forget_who_left(&mut self, now: Duration) {
        let home = Range::of(self.home());
        self.wants.windows.retain(|window, until| {
            if until.is_some_and(|until| until < now) {
                *until = None;
                return *window == home;
            }
            true
        });
    }

    /// The reachable peer with most free space, as far as is known.
    fn donor(&self, window: Range, now: Duration) -> Option<PeerName> {
        let roster = self.ring().roster();
        let mut best: Option<(u128, PeerName)> = None;
        for (name, owned) in self.ring().owners_within(window) {
            let Some(peer) = self.peers.get(name) else {
                continue;
            };
            let resting = peer.denied_until.is_some_and(|until| until > now);
            if !peer.reachable || resting || !roster.is_alive(name) {
                continue;
            }
            let free = peer.free.map_or(owned, u128::from).min(owned);
            if best.as_ref().is_none_or(|(most, _)| free > *most) {
                best = Some((free, name.clone()));
            }
        }
        best.map(|(_, name)| name)
    }

    fn rest(&mut self, peer: &PeerName, now: Duration) {
        let urgent = self.wants.windows.values().any(Option::is_some);
        let rest = if urgent { DENIED_URGENT } else { DENIED };
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.denied_until = Some(now + rest);
        }
    }

    /// A peer has nothing to give.
    pub(super) fn denied(&mut self, from: &PeerName, free: u64, now: Duration) {
        self.peers.entry(from.clone()).or_default().free = Some(free);
        self.rest(from, now);
        if self
            .wants
            .asked
            .as_ref()
            .is_some_and(|(peer, ..)| peer == from)
        {
            self.wants.asked = None;
        }
    }

    /// After a change of the ring: what was wanted may be there.
    pub(super) fn check_wants(&mut self, now: Duration) {
        let free = self.allocator.free();
        let had = self.wants.windows.len();
        self.wants
            .windows
            .retain(|window, _| free.lowest_within(*window).is_none());
        let satisfied = self.wants.windows.len() < had;
        if satisfied {
            self.wants.asked = None;
            self.look_ahead(now);
        }
    }

    /// A peer asks for space.
    pub(super) fn donate(
        &mut self,
        to: &PeerName,
        window: Range,
        size: u64,
        urgent: bool,
        life: u32,
        now: Duration,
    ) {
        self.allocator.expire(now);
        let mut ring = self.ring().clone();
        let noted = ring.note(to, Member { life, gone: 0 });
        let asker = ring.roster().get(to);
        let welcome = self.is_admitted() && asker.is_alive() && asker.life == life;
        // A claim of one address is not held up by a hold-down: as for a container of this node.
        let block = match window.size() {
            1 if urgent && self.allocator.may_give(window.first()) => Some(window),
            1 => None,
            _ => self.block_for(window, u128::from(size), urgent),
        };
        if let Some(block) = block.filter(|_| welcome)
            && let Ok(mut gift) = ring.give(block, &self.me, to)
        {
            // Whoever hears of the gift hears of its owner: a take-over has to ask it.
            gift.roster.note(to, asker);
            self.set_ring(ring, now);
            self.tell(None, &gift);
            return;
        }
        if noted {
            self.set_ring(ring, now);
        }
        let free = self.free();
        self.send(Some(to), &Message::Denied { window, free });
    }

    /// The highest free CIDR block in a window, of at most half of what is free; this node itself
    /// allocates from the lowest.
    fn block_for(&self, window: Range, size: u128, urgent: bool) -> Option<Range> {
        let free = self.allocator.free();
        let mut half = free.size() / 2;
        if urgent {
            half = free.size().div_ceil(2);
        }
        let most = size.min(half);
        let mut width = most.checked_ilog2().map(|bits| 1u128 << bits)?;
        let runs: Vec<Range> = free.within(window).collect();
        loop {
            for run in runs.iter().rev() {
                let end = (run.last().checked_add(1)? / width) * width;
                if let Some(first) = end.checked_sub(width)
                    && first >= run.first()
                {
                    return Range::new(first, end - 1);
                }
            }
            width /= 2;
            if width == 0 {
                return None;
            }
        }
    }

    /// Whether there is space that may be given back after a time.
    pub(super) fn is_idle(&self) -> bool {
        self.wants.idle_since.is_some() || self.spare() > 0
    }

    /// How much more this node has than it uses. Seeds keep what they have: it is the reserve that
    /// others ask for.
    fn spare(&self) -> u128 {
        let seed = self
            .ring()
            .seedings()
            .iter()
            .any(|s| s.peers().contains(&self.me));
        if seed || !self.is_admitted() {
            return 0;
        }
        let usage = self.allocator.usage();
        let keep = (2 * usage.used).max(BLOCK);
        // Twice that, so that a node at the edge does not give and ask in turns.
        if usage.free > 2 * keep {
            usage.free - keep
        } else {
            0
        }
    }

    /// Makes one claim of neighbouring ones, and gives idle space back.
    pub(super) fn tidy(&mut self, now: Duration) {
        let mut ring = self.ring().clone();
        if self.is_admitted()
            && let Ok(delta) = ring.coalesce(&self.me)
            && !delta.is_empty()
        {
            self.set_ring(ring, now);
            self.tell(None, &delta);
        }
        let spare = self.spare();
        if spare == 0 {
            self.wants.idle_since = None;
            return;
        }
        let since = *self.wants.idle_since.get_or_insert(now);
        if now.saturating_sub(since) < IDLE {
            return;
        }
        let universe = self.allocator.universe().range();
        let Some(block) = self.block_for(universe, spare, false) else {
            return;
        };
        let Some(to) = self.reserve_for(block) else {
            return;
        };
        let mut ring = self.ring().clone();
        if let Ok(gift) = ring.give(block, &self.me, &to) {
            self.set_ring(ring, now);
            self.tell(None, &gift);
        }
    }

    /// Who gets a block back: the seed beside it, or the seed that is known to have least.
    fn reserve_for(&self, block: Range) -> Option<PeerName> {
        let ring = self.ring();
        let able = |name: &PeerName| {
            self.is_reachable(name)
                && ring.roster().is_alive(name)
                && ring.seedings().iter().any(|s| s.peers().contains(name))
        };
        let beside = [block.first().checked_sub(1), block.last().checked_add(1)];
        let mut beside = beside
            .into_iter()
            .flatten()
            .filter_map(|at| ring.owner_of(at));
        if let Some(owner) = beside.find(|owner| able(owner)) {
            return Some(owner.clone());
        }
        let able = self.peers.iter().filter(|(name, _)| able(name));
        able.min_by_key(|(_, peer)| peer.free.unwrap_or(0))
            .map(|(name, _)| name.clone())
    }
}
