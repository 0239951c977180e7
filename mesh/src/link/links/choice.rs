//! Which way frames take: the best that is trusted, and no other while that works.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wire::PeerId;

use super::consent::UNTRUSTED;
use super::waiting::lost;
use super::{Consent, Links, Timer};
use crate::link::change::{Encapsulation, LinkChange, Path};
use crate::link::peer::{Kind, Peer, Told};
use crate::link::view::LinkState;
use crate::link::way::Way;

/// Unanswered probes after which another way that does answer is taken at once.
const ENOUGH: u32 = 3;
/// Peers that share an address are kept from VXLAN for this long at least.
const BARRED: Duration = Duration::from_secs(60);

impl Links {
    /// Chooses the way of a peer's frames, and says so if that is news.
    pub(super) fn choose(&mut self, id: PeerId, peer: &mut Peer, now: Duration) {
        let best = self.best(peer);
        if let (Some(old), Some(new)) = (peer.chosen, best)
            && new > old
        {
            if let Some(left) = peer.way_mut(old).filter(|left| left.is_alive()) {
                left.distrust(&self.config.timing, now);
            }
            // As a spare it was asked rarely: what took the better way may have taken it since.
            if let Some(taken) = peer.way_mut(new) {
                taken.hurry();
            }
        }
        if best.is_some() {
            peer.sought = 0;
        }
        if best.is_some() != peer.chosen.is_some() {
            self.reach_changed(now);
        }
        peer.chosen = best;
        let (state, told) = match peer.chosen {
            Some(kind) => {
                let state = peer.way(kind).map_or(LinkState::Down, Way::state);
                match self.path(id, peer, kind) {
                    Some(path) => {
                        let (sleeve, plain) = (self.sleeve_if_alive(peer), self.plain_at(peer));
                        (state, Told::Up(path, sleeve, plain))
                    }
                    None => return,
                }
            }
            None if self.may_come_up(peer) => (LinkState::Connecting, Told::Nothing),
            None => (LinkState::Down, Told::Down(self.why_down(peer))),
        };
        if peer.state != state && !(told == Told::Nothing && peer.state == LinkState::Down) {
            peer.state = state;
            peer.since = now;
        }
        // A link that was up or down is not said to be unknown.
        if told == peer.told || told == Told::Nothing {
            return;
        }
        let reworded = matches!((&told, &peer.told), (Told::Down(_), Told::Down(_)));
        peer.told = told.clone();
        let name = peer.facts.name.clone();
        match told {
            Told::Up(path, sleeve, plain) => self.link(LinkChange::Up {
                id,
                name,
                path,
                sleeve,
                plain,
            }),
            Told::Down(reason) if !reworded => self.link(LinkChange::Down { id, name, reason }),
            Told::Down(_) | Told::Nothing => {}
        }
    }

    fn best(&self, peer: &Peer) -> Option<Kind> {
        let kinds = [Kind::Vxlan, Kind::Sleeve, Kind::Relay];
        let usable = |kind: &Kind| {
            let barred = *kind == Kind::Vxlan && self.is_barred(peer);
            !barred && peer.way(*kind).is_some_and(Way::is_usable)
        };
        let trusted = kinds
            .iter()
            .copied()
            .find(|kind| usable(kind) && peer.way(*kind).is_some_and(Way::is_trusted));
        if let Some(current) = peer.chosen.filter(usable) {
            let way = peer.way(current)?;
            let better = trusted.filter(|kind| *kind < current);
            let instead = kinds.iter().copied().find(|kind| {
                usable(kind)
                    && peer.way(*kind).is_some_and(|other| {
                        !other.is_suspect() && other.heard_after(way.silent_from())
                    })
            });
            let failing = way.misses() >= ENOUGH;
            return better
                .or_else(|| instead.filter(|_| failing))
                .or(Some(current));
        }
        let first = trusted.or_else(|| kinds.iter().copied().find(usable))?;
        // At first contact all ways are tried at once: a better one has its time to answer.
        let answering = |way: &Way| {
            let asked = way.state() == LinkState::Connecting && !way.candidates.is_empty();
            (asked && way.misses() == 0) || (way.is_alive() && !way.is_usable())
        };
        // Frames in the clear are agreed upon over a link that is up.
        let barred = self.config.sealed || peer.barred.is_some();
        let wait = peer.told == Told::Nothing
            && ((first > Kind::Vxlan && !barred && answering(&peer.vxlan))
                || (first > Kind::Sleeve && answering(&peer.sleeve)));
        (!wait).then_some(first)
    }

    fn path(&self, id: PeerId, peer: &Peer, kind: Kind) -> Option<Path> {
        let way = peer.way(kind)?;
        let relay = peer.relay.as_ref().filter(|_| kind == Kind::Relay);
        Some(Path {
            encapsulation: kind.encapsulation(),
            endpoint: self.endpoint(peer, kind)?,
            next_hop: relay.map_or(id, |relay| relay.route.via),
            hops: relay.map_or(1, |relay| relay.route.hops),
            mtu: way.pmtu.mtu()?,
            reason: self.why_not_better(peer, kind),
        })
    }

    /// Why a better way than this one is not taken.
    fn why_not_better(&self, peer: &Peer, kind: Kind) -> Option<String> {
        match kind {
            Kind::Vxlan => None,
            Kind::Sleeve => Some(match (&peer.barred, peer.consent) {
                (_, Consent::None) if self.config.sealed => "frames are sealed".to_owned(),
                (_, Consent::Refused) => UNTRUSTED.to_owned(),
                (Some((why, _)), _) => why.clone(),
                (None, _) => why_not(peer, Kind::Vxlan),
            }),
            Kind::Relay | Kind::Trial => Some(why_not(peer, Kind::Sleeve)),
        }
    }

    fn sleeve_if_alive(&self, peer: &Peer) -> Option<SocketAddr> {
        self.endpoint(peer, Kind::Sleeve)
            .filter(|_| peer.sleeve.is_alive())
    }

    /// Whether a way has not had its time to answer yet.
    fn may_come_up(&self, peer: &Peer) -> bool {
        let vxlan_barred = self.is_barred(peer);
        let may = |way: &Way| {
            let asked = way.state() == LinkState::Connecting && !way.candidates.is_empty();
            asked || (way.is_alive() && !way.is_usable())
        };
        (!vxlan_barred && may(&peer.vxlan))
            || may(&peer.sleeve)
            || peer
                .relay
                .as_ref()
                .is_some_and(|relay| relay.way.is_alive())
    }

    fn why_down(&self, peer: &Peer) -> String {
        let vxlan_barred = self.is_barred(peer);
        let sleeve = why_not(peer, Kind::Sleeve);
        if vxlan_barred {
            return sleeve;
        }
        let vxlan = why_not(peer, Kind::Vxlan);
        if vxlan == sleeve {
            vxlan
        } else if vxlan == lost(peer, Kind::Vxlan) && sleeve == lost(peer, Kind::Sleeve) {
            format!("{vxlan} and {}", peer.facts.sleeve_port)
        } else {
            format!("{vxlan}; {sleeve}")
        }
    }

    /// Keeps peers that share an address from VXLAN: what comes from there could be either's.
    pub(super) fn bar(&mut self, id: PeerId, peer: &mut Peer, now: Duration) {
        let shared = addresses(peer).into_iter().find_map(|ip| {
            let others = self.at.get(&ip)?;
            let other = others.iter().find(|other| **other != id)?;
            let name = &self.peers.get(other)?.facts.name;
            Some(format!("{ip} is the address of {name} too"))
        });
        if let Some(why) = shared {
            if peer.barred.is_none() {
                peer.vxlan.fail(&why, &self.config.timing, now);
                peer.vxlan.abandon();
            }
            peer.barred = Some((why, now + BARRED));
        } else if peer.barred.as_ref().is_some_and(|(_, until)| *until <= now) {
            peer.barred = None;
            peer.vxlan.hurry();
        }
    }

    /// Notes that a peer is no more at the one addresses, but at the others. Others that turn out to
    /// share one are looked at.
    pub(super) fn index(&mut self, id: PeerId, old: &[IpAddr], new: &[IpAddr], now: Duration) {
        for ip in old.iter().filter(|ip| !new.contains(ip)) {
            if let Some(peers) = self.at.get_mut(ip) {
                peers.remove(&id);
                if peers.is_empty() {
                    self.at.remove(ip);
                }
            }
        }
        for ip in new.iter().filter(|ip| !old.contains(ip)) {
            let peers = self.at.entry(*ip).or_default();
            if peers.insert(id) && peers.len() > 1 {
                for peer in peers.iter() {
                    self.timers.set(Timer::Peer(*peer), now);
                }
            }
        }
    }
}

/// Addresses at which a peer was found directly.
pub(super) fn addresses(peer: &Peer) -> Vec<IpAddr> {
    let ways = [&peer.vxlan, &peer.sleeve].into_iter();
    let alive = ways.filter(|way| way.is_alive());
    let mut addresses: Vec<IpAddr> = alive
        .filter_map(|way| way.candidates.current())
        .map(|endpoint| endpoint.ip())
        .collect();
    addresses.dedup();
    addresses
}

/// Why a direct way is not taken.
fn why_not(peer: &Peer, kind: Kind) -> String {
    let Some(way) = peer.way(kind) else {
        return String::new();
    };
    if way.candidates.is_empty() {
        return "no address is known".to_owned();
    }
    match way.reason() {
        Some(reason) if !way.is_alive() => reason.to_owned(),
        _ if way.is_alive() => format!(
            "{} has just come back",
            match kind.encapsulation() {
                Encapsulation::Vxlan => "VXLAN",
                Encapsulation::Sleeve => "sleeve",
            }
        ),
        _ => lost(peer, kind),
    }
}
