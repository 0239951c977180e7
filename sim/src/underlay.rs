//! What becomes of packets between machines: what is blocked, lost, late or too large on the way,
//! and the addresses that a NAT puts in the place of others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mesh::Encapsulation;

use crate::node::{address, machine_at};

/// UDP port on which every machine receives VXLAN.
pub(crate) const VXLAN_PORT: u16 = 6784;
/// UDP port on which every machine receives sleeve, and from which it sends it.
pub(crate) const SLEEVE_PORT: u16 = 6783;
/// One of those from which VXLAN is sent: another for each flow.
const FLOW_PORT: u16 = 50_000;
/// How long a NAT remembers what nobody uses (RFC 4787 §4.3 asks for more, some do no more).
const MAPPING: Duration = Duration::from_secs(30);

/// What becomes of packets from one machine to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether TCP passes. It needs both directions.
    pub tcp: bool,
    /// Whether VXLAN passes.
    pub vxlan: bool,
    /// Whether sleeve passes.
    pub sleeve: bool,
    /// Datagrams of a thousand that are lost.
    pub lost: u64,
    /// Datagrams of a thousand that arrive twice.
    pub twice: u64,
    /// Added to the time on the way at random, so that datagrams overtake each other.
    pub jitter: Duration,
    /// Larger IP packets vanish, in bytes. TCP finds that out by itself.
    pub mtu: u16,
}

impl Rule {
    /// Everything passes.
    pub const OPEN: Self = Self {
        tcp: true,
        vxlan: true,
        sleeve: true,
        lost: 0,
        twice: 0,
        jitter: Duration::ZERO,
        mtu: 1500,
    };

    /// Nothing passes.
    pub const SHUT: Self = Self {
        tcp: false,
        vxlan: false,
        sleeve: false,
        ..Self::OPEN
    };

    pub(crate) const fn lets(&self, encapsulation: Encapsulation) -> bool {
        match encapsulation {
            Encapsulation::Vxlan => self.vxlan,
            Encapsulation::Sleeve => self.sleeve,
        }
    }
}

/// A device with one address outside, for the machines behind it. It lets in from where a machine
/// has sent to (RFC 4787 §5: address- and port-dependent filtering), and has no way from behind it
/// to its own outer address.
#[derive(Debug)]
struct Nat {
    outside: Ipv4Addr,
    /// Another outer port for each destination (RFC 4787 §4.1).
    symmetric: bool,
    mappings: BTreeMap<(SocketAddr, Option<SocketAddr>), Mapping>,
    next: u16,
}

#[derive(Debug)]
struct Mapping {
    port: u16,
    node: usize,
    /// To whom it is open, until when.
    open: BTreeMap<SocketAddr, Duration>,
}

/// The network between the machines.
#[derive(Debug)]
pub(crate) struct Underlay {
    pub(crate) default: Rule,
    rules: BTreeMap<(usize, usize), Rule>,
    /// Machines that are cut off from all others but each other.
    half: BTreeSet<usize>,
    nats: Vec<Nat>,
    /// Behind which a machine is.
    behind: BTreeMap<usize, usize>,
}

impl Underlay {
    pub(crate) const fn new() -> Self {
        Self {
            default: Rule::OPEN,
            rules: BTreeMap::new(),
            half: BTreeSet::new(),
            nats: Vec::new(),
            behind: BTreeMap::new(),
        }
    }

    pub(crate) fn rule(&self, from: usize, to: usize) -> Rule {
        if self.half.contains(&from) != self.half.contains(&to) {
            return Rule::SHUT;
        }
        let own = self.rules.get(&(from, to)).copied();
        own.unwrap_or(self.default)
    }

    pub(crate) fn change(&mut self, from: usize, to: usize, change: impl FnOnce(&mut Rule)) {
        if from != to {
            change(self.rules.entry((from, to)).or_insert(self.default));
        }
    }

    pub(crate) fn halve(&mut self, half: BTreeSet<usize>) {
        self.half = half;
    }

    /// All rules are the default again. NATs stay.
    pub(crate) fn clear(&mut self) {
        self.rules.clear();
        self.half.clear();
    }

    /// Puts machines behind a new NAT.
    pub(crate) fn translate(&mut self, nodes: &[usize], symmetric: bool) {
        let number = self.nats.len();
        let host = u8::try_from(number + 1).expect("fewer NATs than addresses");
        self.nats.push(Nat {
            outside: Ipv4Addr::new(203, 0, 113, host),
            symmetric,
            mappings: BTreeMap::new(),
            next: 20_000,
        });
        self.behind.extend(nodes.iter().map(|node| (*node, number)));
    }

    /// All NATs forget, as when they restart; new mappings have other ports.
    pub(crate) fn forget_mappings(&mut self) {
        for nat in &mut self.nats {
            nat.mappings.clear();
        }
    }

    /// Whether two machines see each other's own addresses.
    fn is_plain(&self, a: usize, b: usize) -> bool {
        self.behind.get(&a) == self.behind.get(&b)
    }

    /// Whether a machine is behind a NAT.
    pub(crate) fn is_translated(&self, node: usize) -> bool {
        self.behind.contains_key(&node)
    }

    /// Whether any machine is behind a NAT.
    pub(crate) fn has_nat(&self) -> bool {
        !self.behind.is_empty()
    }

    /// Whether a TCP connection between two machines works.
    pub(crate) fn carries_tcp(&self, a: usize, b: usize) -> bool {
        self.rule(a, b).tcp && self.rule(b, a).tcp
    }

    /// The machine that accepts what another dials: NATs let nobody in.
    pub(crate) fn dial(&self, from: usize, to: SocketAddr) -> Option<usize> {
        machine_at(to.ip()).filter(|to| self.sees(from, *to))
    }

    /// The address under which a machine appears to another.
    pub(crate) fn appears(&self, from: usize, to: usize) -> Ipv4Addr {
        match self.behind.get(&from) {
            Some(nat) if !self.is_plain(from, to) => self.nats[*nat].outside,
            _ => address(from),
        }
    }

    /// Where a datagram comes out and whence it seems to come; none: nowhere.
    pub(crate) fn route(
        &mut self,
        from: usize,
        encapsulation: Encapsulation,
        to: SocketAddr,
        now: Duration,
    ) -> Option<(usize, SocketAddr)> {
        let (port, wanted) = match encapsulation {
            Encapsulation::Vxlan => (FLOW_PORT, VXLAN_PORT),
            Encapsulation::Sleeve => (SLEEVE_PORT, SLEEVE_PORT),
        };
        let mut source = SocketAddr::from((address(from), port));
        let inside = machine_at(to.ip()).filter(|to| self.sees(from, *to));
        let near = inside.is_some_and(|to| self.is_plain(from, to));
        if let Some(nat) = self.behind.get(&from).filter(|_| !near) {
            source = self.nats[*nat].send(from, source, to, now);
        }
        let reached = match inside {
            Some(number) => (to.port() == wanted).then_some(number),
            None => self
                .nats
                .iter()
                .find_map(|nat| nat.receive(source, to, now))
                .filter(|_| encapsulation == Encapsulation::Sleeve),
        };
        reached
            .filter(|number| *number != from)
            .map(|number| (number, source))
    }

    /// Whether a machine's own address leads to it from another.
    fn sees(&self, from: usize, to: usize) -> bool {
        !self.behind.contains_key(&to) || self.is_plain(from, to)
    }
}

impl Nat {
    /// The source that a datagram leaves with.
    fn send(&mut self, node: usize, from: SocketAddr, to: SocketAddr, now: Duration) -> SocketAddr {
        let key = (from, self.symmetric.then_some(to));
        let next = &mut self.next;
        let mapping = self.mappings.entry(key).or_insert_with(|| {
            *next = next.wrapping_add(1).max(1024);
            Mapping {
                port: *next,
                node,
                open: BTreeMap::new(),
            }
        });
        mapping.open.retain(|_, until| *until > now);
        mapping.open.insert(to, now + MAPPING);
        SocketAddr::from((self.outside, mapping.port))
    }

    /// The machine that a datagram to the outer address is for.
    fn receive(&self, from: SocketAddr, to: SocketAddr, now: Duration) -> Option<usize> {
        if to.ip() != IpAddr::V4(self.outside) {
            return None;
        }
        let open = |mapping: &&Mapping| {
            mapping.port == to.port() && mapping.open.get(&from).is_some_and(|until| *until > now)
        };
        self.mappings
            .values()
            .find(open)
            .map(|mapping| mapping.node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nat_lets_in_from_where_was_sent_to_and_forgets() {
        let mut underlay = Underlay::new();
        underlay.translate(&[1], false);
        let now = Duration::ZERO;
        let sleeve = Encapsulation::Sleeve;
        let to = |number| SocketAddr::from((address(number), SLEEVE_PORT));
        assert_eq!(underlay.route(0, sleeve, to(1), now), None);
        let (reached, outer) = underlay.route(1, sleeve, to(0), now).expect("goes out");
        assert_eq!((reached, outer.ip()), (0, IpAddr::from([203, 0, 113, 1])));
        assert_eq!(
            underlay.route(0, sleeve, outer, now),
            Some((1, to(0))),
            "the answer comes in"
        );
        assert_eq!(underlay.route(2, sleeve, outer, now), None, "from another");
        assert_eq!(underlay.route(0, sleeve, outer, now + MAPPING), None);
        let (_, again) = underlay.route(1, sleeve, to(2), now).expect("goes out");
        assert_eq!(again, outer, "one outer port for all destinations");
        assert_eq!(underlay.dial(0, to(1)), None);
        assert_eq!(underlay.dial(1, to(0)), Some(0));
    }

    #[test]
    fn a_symmetric_nat_has_a_port_for_each_destination() {
        let mut underlay = Underlay::new();
        underlay.translate(&[1, 3], true);
        let (now, sleeve) = (Duration::ZERO, Encapsulation::Sleeve);
        let to = |number| SocketAddr::from((address(number), SLEEVE_PORT));
        let (_, first) = underlay.route(1, sleeve, to(0), now).expect("goes out");
        let (_, second) = underlay.route(1, sleeve, to(2), now).expect("goes out");
        assert_ne!(first, second);
        assert_eq!(underlay.route(1, sleeve, to(3), now), Some((3, to(1))));
    }
}
