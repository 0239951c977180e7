//! What is known of the link to one peer.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use wire::PeerId;

use super::budget::Bucket;
use super::change::{Encapsulation, Path};
use super::config::{LinkLimits, LinkTiming};
use super::facts::PeerFacts;
use super::links::Consent;
use super::view::LinkState;
use super::way::Way;
use crate::route::Route;

/// Relays shunned at a time for one peer; the one whose time ends first makes room.
const SHUNNED: usize = 8;
/// Traffic that was reported this long ago is still going on: reports come every second.
const RECENT: Duration = Duration::from_secs(3);
/// A link that answered this long ago is in two-way use.
const CONVERSATION: Duration = Duration::from_secs(10);

/// The ways to a peer, best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Vxlan,
    Sleeve,
    Relay,
    /// A shorter way through others that is being tried: it never carries frames, but takes the
    /// relay's place.
    Trial,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Vxlan, Self::Sleeve, Self::Relay, Self::Trial];

    pub(super) const fn encapsulation(self) -> Encapsulation {
        match self {
            Self::Vxlan => Encapsulation::Vxlan,
            Self::Sleeve | Self::Relay | Self::Trial => Encapsulation::Sleeve,
        }
    }
}

/// What traffic a link carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Traffic {
    None,
    /// Frames are sent and none come, as when something is flooded.
    OneWay,
    BothWays,
}

/// A way through others.
#[derive(Debug)]
pub(super) struct Relay {
    pub(super) route: Route,
    pub(super) way: Way,
}

/// What the data path was told last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Up(Path, Option<SocketAddr>, Option<IpAddr>),
    Down(String),
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) facts: Arc<PeerFacts>,
    pub(super) vxlan: Way,
    pub(super) sleeve: Way,
    pub(super) relay: Option<Box<Relay>>,
    /// See [`Kind::Trial`].
    pub(super) trial: Option<Box<Relay>>,
    /// Relays that did not deliver, and until when they are not used.
    pub(super) shunned: Vec<(PeerId, Duration)>,
    /// When relays are looked for again.
    pub(super) seek_at: Duration,
    /// Searches since the last way that worked.
    pub(super) sought: u32,
    /// Why VXLAN may not be used, and until when that is so at least.
    pub(super) barred: Option<(String, Duration)>,
    /// What is agreed on frames in the clear, and when the probe left whose answer says so.
    pub(super) consent: Consent,
    pub(super) consent_asked: Duration,
    pub(super) chosen: Option<Kind>,
    pub(super) told: Told,
    pub(super) state: LinkState,
    pub(super) since: Duration,
    /// When frames were last reported to be sent, and to come.
    sent: Option<Duration>,
    heard: Option<Duration>,
    /// Whether its control path was lost.
    pub(super) doubted: bool,
    pub(super) answers: Bucket,
    /// Addresses at which it is in the index of the links.
    pub(super) at: Vec<IpAddr>,
}

impl Peer {
    pub(super) fn new(
        facts: Arc<PeerFacts>,
        vxlan: Way,
        sleeve: Way,
        limits: &LinkLimits,
        now: Duration,
    ) -> Self {
        let rate = limits.answers_per_peer;
        Self {
            facts,
            vxlan,
            sleeve,
            relay: None,
            trial: None,
            shunned: Vec::new(),
            seek_at: now,
            sought: 0,
            barred: None,
            consent: Consent::None,
            consent_asked: Duration::ZERO,
            chosen: None,
            told: Told::Nothing,
            state: LinkState::Connecting,
            since: now,
            sent: None,
            heard: None,
            doubted: false,
            answers: Bucket::new(rate, rate),
            at: Vec::new(),
        }
    }

    pub(super) fn way(&self, kind: Kind) -> Option<&Way> {
        match kind {
            Kind::Vxlan => Some(&self.vxlan),
            Kind::Sleeve => Some(&self.sleeve),
            Kind::Relay => self.relay.as_ref().map(|relay| &relay.way),
            Kind::Trial => self.trial.as_ref().map(|relay| &relay.way),
        }
    }

    pub(super) fn way_mut(&mut self, kind: Kind) -> Option<&mut Way> {
        match kind {
            Kind::Vxlan => Some(&mut self.vxlan),
            Kind::Sleeve => Some(&mut self.sleeve),
            Kind::Relay => self.relay.as_mut().map(|relay| &mut relay.way),
            Kind::Trial => self.trial.as_mut().map(|relay| &mut relay.way),
        }
    }

    /// The relay that a way leads through.
    pub(super) fn via(&self, kind: Kind) -> Option<PeerId> {
        let relay = match kind {
            Kind::Vxlan | Kind::Sleeve => None,
            Kind::Relay => self.relay.as_ref(),
            Kind::Trial => self.trial.as_ref(),
        };
        relay.map(|relay| relay.route.via)
    }

    /// The way that frames take.
    pub(super) fn chosen_way(&self) -> Option<&Way> {
        self.way(self.chosen?)
    }

    /// Whether a direct way carries frames and gives no cause for worry.
    pub(super) fn is_well(&self) -> bool {
        let well = |way: &Way| way.is_usable() && way.misses() < 2;
        (self.barred.is_none() && well(&self.vxlan)) || well(&self.sleeve)
    }

    pub(super) fn traffic(&self, now: Duration) -> Traffic {
        let within = |at: Option<Duration>, span| at.is_some_and(|at| at + span > now);
        if !within(self.sent, RECENT) {
            Traffic::None
        } else if within(self.heard, CONVERSATION) {
            Traffic::BothWays
        } else {
            Traffic::OneWay
        }
    }

    /// Notes traffic. What begins, or gets no answer any more, is looked at at once.
    pub(super) fn note_traffic(&mut self, sent: u64, received: u64, now: Duration) {
        let before = self.traffic(now);
        if sent > 0 {
            self.sent = Some(now);
        }
        if received > 0 {
            self.heard = Some(now);
        }
        let (after, chosen) = (self.traffic(now), self.chosen);
        let silent = sent > 0 && received == 0 && before == Traffic::BothWays;
        let begins = before == Traffic::None && after != Traffic::None;
        if silent || begins {
            self.hurry_consent();
        }
        if let Some(way) = chosen.and_then(|kind| self.way_mut(kind)) {
            if silent || begins {
                way.hurry();
            }
            if begins {
                way.pmtu.doubt(now);
            }
        }
    }

    /// What was agreed on frames in the clear is asked for again.
    pub(super) const fn hurry_consent(&mut self) {
        if matches!(self.consent, Consent::Given { .. }) {
            self.sleeve.hurry();
        }
    }

    /// A relay did not deliver.
    pub(super) fn shun(&mut self, relay: PeerId, timing: &LinkTiming, now: Duration) {
        if self.shunned.len() >= SHUNNED {
            self.shunned.remove(0);
        }
        self.shunned.push((relay, now + timing.shun));
    }
}
