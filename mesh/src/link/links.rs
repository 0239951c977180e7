//! The state machine: inputs in, outputs out.
//!
//! The rules are in the modules below it, by what they are about: `arrival` (probes that come in),
//! `probing` (which probe leaves when), `waiting` (answers that do not come), `relaying` (ways
//! through others), `choice` (which way frames take),
//! `consent` (whether frames may be in the clear where others are sealed) and `told` (what others are
//! told).

mod arrival;
mod choice;
mod consent;
mod probing;
mod relaying;
mod told;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wire::{PeerId, sleeve, vxlan};

use self::choice::addresses;
pub(crate) use self::consent::Consent;
use self::consent::UNTRUSTED;
use super::budget::{Bucket, Budget};
use super::change::{Encapsulation, LinkChange};
use super::config::LinkConfig;
use super::counters::LinkCounters;
use super::facts::{Activity, Gone, PeerFacts};
use super::input::LinkInput;
use super::output::LinkOutput;
use super::peer::{Kind, Peer, Told};
use super::seen::Seen;
use super::view::{LinkState, LinkView, Quality, WayView};
use super::way::Way;
use crate::rng::SplitMix64;
use crate::route::Reach;
use crate::timers::Timers;

/// Bytes that sealing adds to a sleeve datagram: the counter and the tag.
const SEAL: u16 = 24;
/// A router that is called this much later than it asked for did not run: what was on its way
/// meanwhile is not lost.
const STALL: Duration = Duration::from_millis(500);

/// A peer is not looked at more often than this on its own account.
const TICK: Duration = Duration::from_millis(1);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Peer(PeerId),
    Reach,
}

/// The links as one node sees them.
///
/// After each [`Links::handle`], [`Links::poll_output`] is called until it says None.
#[derive(Debug)]
pub struct Links {
    config: LinkConfig,
    rng: SplitMix64,
    timers: Timers<Timer>,
    peers: BTreeMap<PeerId, Box<Peer>>,
    /// Peers with a way through others, or one that is tried.
    relayed: BTreeSet<PeerId>,
    /// Peers by the address at which a way of theirs works.
    at: BTreeMap<IpAddr, BTreeSet<PeerId>>,
    budget: Budget,
    answers: Bucket,
    seen: Seen,
    /// Where others see this node's sleeve, as told last.
    translated: Option<SocketAddr>,
    /// Whom this node reaches, as told last, and when.
    reach: Reach,
    reach_told: Option<Duration>,
    counters: LinkCounters,
    outputs: VecDeque<LinkOutput>,
}

impl Links {
    /// No links yet.
    pub fn new(config: LinkConfig) -> Self {
        let timing = &config.timing;
        Self {
            rng: SplitMix64::new(config.seed),
            timers: Timers::new(),
            peers: BTreeMap::new(),
            relayed: BTreeSet::new(),
            at: BTreeMap::new(),
            budget: Budget::new(timing.idle_rate, timing.busy_rate, timing.urgent_rate),
            answers: Bucket::new(config.limits.answers, config.limits.answers),
            seen: Seen::default(),
            translated: None,
            reach: Reach::default(),
            reach_told: None,
            counters: LinkCounters::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// Takes an input, and runs what is due.
    pub fn handle(&mut self, input: LinkInput, now: Duration) {
        self.forgive(now);
        match input {
            LinkInput::Peer { id, facts } => self.know(id, facts, now),
            LinkInput::Gone { id, why } => self.gone(id, why, now),
            LinkInput::Doubt(id) => self.doubt(id, now),
            LinkInput::Probe(arrived) => self.arrived(&arrived, now),
            LinkInput::SendFailed { id, nonce, error } => self.send_failed(id, nonce, error, now),
            LinkInput::Activity(list) => self.activity(&list, now),
            LinkInput::TooBig { id, encapsulation } => self.too_big(id, encapsulation, now),
            LinkInput::UnderlayMtu(mtu) => self.underlay_mtu(mtu, now),
            LinkInput::Addresses(addresses) => self.addresses(addresses, now),
            LinkInput::Timeout => {}
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Peer(id) => self.attend(id, now),
                Timer::Reach => self.tell_reach(now),
            }
        }
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// When [`LinkInput::Timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.timers.next()
    }

    /// Whether frames are sealed.
    pub const fn are_sealed(&self) -> bool {
        self.config.sealed
    }

    /// Whether frames can be sent to a peer: it is alive, whatever becomes of its control path.
    pub fn is_up(&self, id: PeerId) -> bool {
        self.peers
            .get(&id)
            .is_some_and(|peer| peer.chosen.is_some())
    }

    /// The link to a peer.
    pub fn view(&self, id: PeerId, now: Duration) -> Option<LinkView> {
        let peer = self.peers.get(&id)?;
        let way = |kind| {
            let way = peer.way(kind)?;
            let via = peer.via(kind);
            let endpoint = match via {
                Some(via) => self.sleeve_of(via),
                None => way.candidates.current().or_else(|| way.candidates.first()),
            };
            let clear = kind == Kind::Vxlan && self.config.sealed;
            let (plain, sealed) = match (clear, peer.consent) {
                (false, _) => (None, None),
                (true, Consent::Given { there, .. }) => (self.trusts(there), None),
                (true, Consent::None) => (None, Some("not used: frames are sealed".to_owned())),
                (true, Consent::Refused) => (None, Some(format!("not used: {UNTRUSTED}"))),
            };
            let (state, reason) = match sealed {
                Some(reason) => (LinkState::Down, Some(reason)),
                None => (way.state(), way.reason().map(str::to_owned)),
            };
            Some(WayView {
                encapsulation: kind.encapsulation(),
                relay: via,
                chosen: peer.chosen == Some(kind),
                plain,
                endpoint,
                state,
                reason,
                since: now.saturating_sub(way.since()),
                quality: way.quality(),
            })
        };
        let (path, reason) = match &peer.told {
            Told::Nothing => (None, None),
            Told::Up(path, ..) => (Some(path.clone()), None),
            Told::Down(reason) => (None, Some(reason.clone())),
        };
        let chosen = peer.chosen_way();
        Some(LinkView {
            id,
            name: peer.facts.name.clone(),
            path,
            state: peer.state,
            reason: reason.or_else(|| chosen.and_then(Way::reason).map(str::to_owned)),
            since: now.saturating_sub(peer.since),
            quality: chosen.map_or_else(Quality::default, Way::quality),
            ways: Kind::ALL.into_iter().filter_map(way).collect(),
        })
    }

    /// All links, by identity.
    pub fn views(&self, now: Duration) -> Vec<LinkView> {
        let ids = self.peers.keys();
        ids.filter_map(|id| self.view(*id, now)).collect()
    }

    /// Counts since the start.
    pub const fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// A peer is known, or known better.
    fn know(&mut self, id: PeerId, facts: Arc<PeerFacts>, now: Duration) {
        if id == self.config.me {
            return;
        }
        if !self.peers.contains_key(&id) && self.peers.len() >= self.config.limits.peers {
            self.counters.peers_full += 1;
            return;
        }
        // What it reaches opens ways through it, and to it.
        let old = self.peers.get(&id).map(|peer| &peer.facts.reach);
        if old.unwrap_or(&Reach::default()) != &facts.reach {
            self.seek_again(now);
        }
        let peer = self.peers.entry(id).or_insert_with(|| {
            let way = || Way::new(facts.mtu, vxlan::OVERHEAD_IPV4, now);
            let peer = Peer::new(Arc::clone(&facts), way(), way(), &self.config.limits, now);
            Box::new(peer)
        });
        let restarted = peer.facts.run != facts.run;
        let back = std::mem::take(&mut peer.doubted);
        for kind in Kind::ALL {
            let Some(way) = peer.way_mut(kind) else {
                continue;
            };
            if restarted {
                way.forget_failures();
            }
            // Its control path is back: so may be what was down, which idle is asked rarely.
            if restarted || (back && way.state() == LinkState::Down) {
                way.hurry();
            }
        }
        peer.facts = facts;
        let Some(mut peer) = self.peers.remove(&id) else {
            return;
        };
        if restarted {
            // What another run of it had agreed to counts no more.
            self.agree(&mut peer, Consent::None, now);
        }
        let capacity = self.config.limits.addresses;
        let vxlan = self.vxlan_addresses(&peer);
        peer.vxlan.candidates.tell(vxlan, capacity);
        let facts = &peer.facts;
        let own = facts.addresses.iter().map(|ip| ip.to_canonical());
        let own = own.map(|ip| SocketAddr::new(ip, facts.sleeve_port));
        let sleeve = facts.sleeve_seen.into_iter().chain(own);
        let sleeve = sleeve.filter(|address| address.port() != 0);
        peer.sleeve.candidates.tell(sleeve, capacity);
        self.peers.insert(id, peer);
        self.timers.set(Timer::Peer(id), now);
    }

    /// A peer is to be forgotten.
    fn gone(&mut self, id: PeerId, why: Gone, now: Duration) {
        let Some(peer) = self.peers.remove(&id) else {
            return;
        };
        self.timers.cancel(&Timer::Peer(id));
        self.relayed.remove(&id);
        self.index(id, &peer.at, &[], now);
        if self.seen.forget(id) {
            self.tell_seen();
        }
        self.reach_changed(now);
        let name = peer.facts.name.clone();
        match (why, peer.told) {
            (Gone::Left, _) => self.link(LinkChange::Left { id, name }),
            (Gone::Removed(reason), Told::Up(..)) => {
                self.link(LinkChange::Down { id, name, reason });
            }
            (Gone::Removed(_), Told::Nothing | Told::Down(_)) => {}
        }
        self.relay_changed(id, now);
    }

    fn doubt(&mut self, id: PeerId, now: Duration) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.doubted = true;
            if let Some(way) = peer.chosen.and_then(|kind| peer.way_mut(kind)) {
                way.hurry();
            }
            peer.hurry_consent();
            self.timers.set(Timer::Peer(id), now);
        }
    }

    fn activity(&mut self, list: &[Activity], now: Duration) {
        for activity in list {
            if let Some(peer) = self.peers.get_mut(&activity.id) {
                peer.note_traffic(activity.sent, activity.received, now);
                self.timers.set(Timer::Peer(activity.id), now);
            }
        }
    }

    /// The data path was refused a frame that should have passed.
    fn too_big(&mut self, id: PeerId, encapsulation: Encapsulation, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        let chosen = peer
            .chosen
            .filter(|kind| kind.encapsulation() == encapsulation);
        if let Some(way) = chosen.and_then(|kind| peer.way_mut(kind)) {
            way.pmtu.doubt(now);
            self.timers.set(Timer::Peer(id), now);
        }
    }

    fn underlay_mtu(&mut self, mtu: u16, now: Duration) {
        if std::mem::replace(&mut self.config.underlay_mtu, mtu) == mtu {
            return;
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            self.timers.set(Timer::Peer(id), now);
        }
    }

    /// This node did not run for a while, and did not read what came in: nothing of it is lost.
    fn forgive(&mut self, now: Duration) {
        let Some(late) = self.timers.next().and_then(|due| now.checked_sub(due)) else {
            return;
        };
        if late > STALL {
            for peer in self.peers.values_mut() {
                for kind in Kind::ALL {
                    if let Some(way) = peer.way_mut(kind) {
                        way.forgive(late);
                    }
                }
            }
        }
    }

    /// Sees to it that the largest packets that are wanted on each way are looked for.
    fn fit(&self, peer: &mut Peer, now: Duration) {
        for kind in Kind::ALL {
            let endpoint = self.endpoint(peer, kind);
            let Some(way) = peer.way(kind) else {
                continue;
            };
            let endpoint = endpoint.or_else(|| way.candidates.first());
            let overhead = self.overhead(kind.encapsulation(), endpoint);
            let ceiling = self.ceiling(overhead, peer);
            if let Some(way) = peer.way_mut(kind) {
                way.pmtu.set_ceiling(ceiling, overhead, now);
            }
        }
    }

    /// Largest packet that the underlay's interface leaves room for and both sides want.
    fn ceiling(&self, overhead: u16, peer: &Peer) -> u16 {
        let room = self.config.underlay_mtu.saturating_sub(overhead);
        room.min(self.config.mtu).min(peer.facts.mtu)
    }

    /// Bytes that an encapsulation takes from the underlay's MTU on the way to an endpoint.
    fn overhead(&self, encapsulation: Encapsulation, endpoint: Option<SocketAddr>) -> u16 {
        let v6 = endpoint.is_some_and(|endpoint| !endpoint.ip().to_canonical().is_ipv4());
        match (encapsulation, v6) {
            (Encapsulation::Vxlan, false) => vxlan::OVERHEAD_IPV4,
            (Encapsulation::Vxlan, true) => vxlan::OVERHEAD_IPV6,
            (Encapsulation::Sleeve, v6) => {
                let plain = if v6 {
                    sleeve::OVERHEAD_IPV6
                } else {
                    sleeve::OVERHEAD_IPV4
                };
                plain + if self.config.sealed { SEAL } else { 0 }
            }
        }
    }

    /// Where datagrams for a way go, if it is known to work.
    fn endpoint(&self, peer: &Peer, kind: Kind) -> Option<SocketAddr> {
        match kind {
            Kind::Vxlan => peer.vxlan.candidates.current(),
            Kind::Sleeve => peer.sleeve.candidates.current(),
            Kind::Relay | Kind::Trial => self.sleeve_of(peer.via(kind)?),
        }
    }

    /// Where sleeve reaches a peer directly.
    fn sleeve_of(&self, id: PeerId) -> Option<SocketAddr> {
        let sleeve = &self.peers.get(&id)?.sleeve;
        sleeve.candidates.current().filter(|_| sleeve.is_alive())
    }

    /// All that is due for a peer.
    fn attend(&mut self, id: PeerId, now: Duration) {
        // It is taken out of the table meanwhile, since others are looked at.
        let Some(mut peer) = self.peers.remove(&id) else {
            return;
        };
        self.expire(id, &mut peer, now);
        self.review_consent(&mut peer, now);
        self.fit(&mut peer, now);
        self.bar(id, &mut peer, now);
        self.relay(id, &mut peer, now);
        let chosen = peer.chosen;
        let mut next = self.probe(id, &mut peer, now);
        self.choose(id, &mut peer, now);
        if peer.chosen != chosen {
            // What is due next was found for the way that was in use until now.
            next = Some(now);
        }
        let at = addresses(&peer);
        let before = std::mem::replace(&mut peer.at, at.clone());
        self.index(id, &before, &at, now);
        if peer.relay.is_some() || peer.trial.is_some() {
            self.relayed.insert(id);
        } else {
            self.relayed.remove(&id);
        }
        let search = self.next_search(&peer);
        self.peers.insert(id, peer);
        if let Some(next) = [next, search].into_iter().flatten().min() {
            let next = next.max(now + TICK);
            self.timers.bring_forward(Timer::Peer(id), next);
        }
    }

    fn link(&mut self, change: LinkChange) {
        self.outputs.push_back(LinkOutput::Link(change));
    }
}

#[cfg(test)]
mod tests;
