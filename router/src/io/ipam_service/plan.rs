//! The address plan as the data path needs it: who is asked for which addresses.

use std::collections::BTreeMap;

use fastpath::{OwnedRange, Owner, OwnerMap};
use ipam::Ring;
use wire::{PeerId, PeerName};

/// The owners that a ring names, as far as the mesh knows them. What another owns is asked of all.
pub(super) fn owners(ring: &Ring, me: &PeerName, peers: &BTreeMap<PeerName, PeerId>) -> OwnerMap {
    let family = ring.universe().family();
    let ranges = ring.ranges().filter_map(|(range, claim)| {
        let name = &claim?.owner;
        let owner = match name == me {
            true => Owner::Me,
            false => Owner::Peer(*peers.get(name)?),
        };
        Some(OwnedRange {
            first: family.address(range.first()),
            last: family.address(range.last()),
            owner,
        })
    });
    OwnerMap::new(ranges)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use ipam::{Seeding, Universe};

    use super::*;

    fn name(text: &str) -> PeerName {
        text.parse().unwrap()
    }

    #[test]
    fn owners_are_known_by_what_the_mesh_calls_them() {
        for (range, outside) in [("10.32.0.0/16", "10.33.0.0"), ("fd00:1::/64", "fd00:2::")] {
            let universe = Universe::new(range.parse().unwrap()).unwrap();
            let nodes = ["a", "b", "c", "d"].map(name);
            let ring = Ring::seeded(universe, &Seeding::new(nodes.clone()).unwrap()).unwrap();
            let peers = BTreeMap::from([
                (name("b"), PeerId([2; 8])),
                (name("d"), PeerId([4; 8])),
                (name("e"), PeerId([5; 8])),
            ]);
            let owners = owners(&ring, &name("a"), &peers);
            for (range, claim) in ring.ranges() {
                let wanted = match claim.unwrap().owner.as_str() {
                    "a" => Some(Owner::Me),
                    "b" => Some(Owner::Peer(PeerId([2; 8]))),
                    "d" => Some(Owner::Peer(PeerId([4; 8]))),
                    _ => None,
                };
                for at in [range.first(), range.last()] {
                    assert_eq!(owners.owner(universe.address(at)), wanted);
                }
            }
            assert_eq!(owners.owner(outside.parse::<IpAddr>().unwrap()), None);
            assert!(super::owners(&Ring::undecided(universe), &name("a"), &peers).is_empty());
        }
    }
}
