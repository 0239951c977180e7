//! Which of the machine's networks carries the overlay, and how large its packets are. Pure.

use std::net::IpAddr;

use ipnet::IpNet;
use wire::vxlan;

/// MTU that is assumed when nothing can be seen: Ethernet's (RFC 894).
const ASSUMED_MTU: u16 = 1500;

/// An interface that may be part of the underlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interface {
    /// Interface index.
    pub index: u32,
    /// Name, for the operator.
    pub name: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Addresses, without link-local ones.
    pub addresses: Vec<IpNet>,
}

/// A way to a named peer, or to the world if no peer is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Where to.
    pub to: IpAddr,
    /// Interface that the packets leave by.
    pub oif: u32,
    /// MTU of the route, if it has one of its own.
    pub mtu: Option<u32>,
}

/// The underlay as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Largest IP packet that every way takes, in bytes.
    pub mtu: u16,
    /// Bytes that the encapsulation takes of it.
    pub overhead: u16,
    /// This node's addresses on it.
    pub addresses: Vec<IpAddr>,
    /// What the finding rests on, for the log.
    pub reason: String,
}

impl Underlay {
    /// The pods' MTU that fits.
    pub fn overlay_mtu(&self) -> u16 {
        self.mtu.saturating_sub(self.overhead)
    }
}

/// Finds the underlay: the interfaces on the ways to the peers that are named, or else on the way
/// to the world, or else all that have an address. The smallest of them sets the MTU.
///
/// `interfaces` are those that are up, without loopback and without the overlay's own.
pub fn find(interfaces: &[Interface], to_peers: &[Way], to_world: &[Way]) -> Underlay {
    let known = |way: &&Way| {
        interfaces
            .iter()
            .any(|interface| interface.index == way.oif)
    };
    let ways = |ways: &[Way]| ways.iter().filter(known).copied().collect::<Vec<_>>();
    let (chosen, why) = match (ways(to_peers), ways(to_world)) {
        (peers, _) if !peers.is_empty() => (peers, "the way to the peers that are named"),
        (_, world) if !world.is_empty() => (world, "the default route"),
        _ => (Vec::new(), "the interfaces that have an address"),
    };
    let used: Vec<&Interface> = interfaces
        .iter()
        .filter(|interface| !interface.addresses.is_empty())
        .filter(|interface| {
            chosen.is_empty() || chosen.iter().any(|way| way.oif == interface.index)
        })
        .collect();
    let addresses: Vec<IpAddr> = used
        .iter()
        .flat_map(|interface| &interface.addresses)
        .map(IpNet::addr)
        .collect();
    let smallest = used
        .iter()
        .map(|interface| interface.mtu)
        .chain(chosen.iter().filter_map(|way| way.mtu))
        .min();
    let Some(smallest) = smallest else {
        return Underlay {
            mtu: ASSUMED_MTU,
            overhead: vxlan::OVERHEAD_IPV4,
            addresses,
            reason: "assumed, since no interface but loopback has an address".to_owned(),
        };
    };
    let six = to_peers.iter().any(|way| way.to.is_ipv6()) || !addresses.iter().any(IpAddr::is_ipv4);
    let names: Vec<_> = used
        .iter()
        .map(|interface| interface.name.as_str())
        .collect();
    Underlay {
        // An interface may take more than an IP packet can have, loopback's 65,536 for one.
        mtu: u16::try_from(smallest).unwrap_or(u16::MAX),
        overhead: if six {
            vxlan::OVERHEAD_IPV6
        } else {
            vxlan::OVERHEAD_IPV4
        },
        addresses,
        reason: format!("{why}: {}", names.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(index: u32, name: &str, mtu: u32, addresses: &[&str]) -> Interface {
        let addresses = addresses.iter().map(|text| text.parse().unwrap()).collect();
        Interface {
            index,
            name: name.to_owned(),
            mtu,
            addresses,
        }
    }

    fn way(to: &str, oif: u32, mtu: Option<u32>) -> Way {
        Way {
            to: to.parse().unwrap(),
            oif,
            mtu,
        }
    }

    fn machine() -> Vec<Interface> {
        vec![
            interface(2, "eth0", 1500, &["192.0.2.1/24", "2001:db8::1/64"]),
            interface(3, "eth1", 9001, &["10.0.0.1/24"]),
            interface(4, "wg0", 1420, &[]),
        ]
    }

    #[test]
    fn the_way_to_the_peers_beats_the_default_route() {
        let found = find(
            &machine(),
            &[way("10.0.0.2", 3, None)],
            &[way("198.51.100.1", 2, None)],
        );
        assert_eq!((found.mtu, found.overlay_mtu()), (9001, 8951));
        assert_eq!(found.addresses, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
        assert!(found.reason.contains("eth1"), "{}", found.reason);
    }

    #[test]
    fn the_smallest_of_several_ways_counts_routes_included() {
        let ways = [way("10.0.0.2", 3, None), way("192.0.2.2", 2, Some(1400))];
        assert_eq!(find(&machine(), &ways, &[]).mtu, 1400);
    }

    #[test]
    fn without_peers_the_default_route_and_without_that_all() {
        let world = [way("198.51.100.1", 3, None)];
        assert_eq!(find(&machine(), &[], &world).mtu, 9001);
        assert_eq!(find(&machine(), &[], &[]).mtu, 1500);
        let none = find(&[], &[way("10.0.0.2", 1, None)], &[]);
        assert_eq!((none.mtu, none.overlay_mtu()), (1500, 1450));
        assert!(none.reason.contains("assumed"), "{}", none.reason);
    }

    #[test]
    fn ipv6_takes_more() {
        let found = find(&machine(), &[way("2001:db8::2", 2, None)], &[]);
        assert_eq!(found.overlay_mtu(), 1430);
        let six_only = [interface(2, "eth0", 1500, &["2001:db8::1/64"])];
        assert_eq!(find(&six_only, &[], &[]).overlay_mtu(), 1430);
        let huge = [interface(2, "eth0", 65536, &["192.0.2.1/24"])];
        assert_eq!(find(&huge, &[], &[]).overlay_mtu(), 65485);
    }
}
