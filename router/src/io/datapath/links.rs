//! The links that workers may use, and the slots under which they know them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastpath::{
    Encapsulation, Forwarding, GroupTable, Link, LinkCounters, LinkTotals, MacTable, OwnAddress,
    OwnerMap, Questions, Resolver, Slot,
};
use mesh::Groups;
use wire::{Mac, PeerId, Vni};

use super::keys::Sealers;

/// Whom a link leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LinkKey {
    /// Another router.
    Peer(PeerId),
    /// An endpoint that speaks VXLAN and nothing else.
    Vtep(SocketAddr),
}

/// A link that the control plane wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkTarget {
    /// Whom it leads to.
    pub key: LinkKey,
    /// Where its datagrams go: to the other end, or to a relay.
    pub endpoint: SocketAddr,
    /// The relay; none: the other end itself.
    pub via: Option<PeerId>,
    /// How they are wrapped.
    pub encapsulation: Encapsulation,
    /// Largest inner IP packet that fits, in bytes.
    pub mtu: u16,
    /// Where sleeve reaches the peer directly: for what others send through this node.
    pub sleeve: Option<SocketAddr>,
    /// Addresses from which its datagrams may come, besides that of a direct endpoint.
    pub sources: Vec<IpAddr>,
    /// Where all is sealed: the peer's address, to and from which frames may be in the clear all the
    /// same, in VXLAN.
    pub plain: Option<IpAddr>,
}

impl LinkTarget {
    /// A direct link in VXLAN.
    pub fn vxlan(key: LinkKey, endpoint: SocketAddr, mtu: u16) -> Self {
        Self {
            key,
            endpoint,
            via: None,
            encapsulation: Encapsulation::Vxlan,
            mtu,
            sleeve: None,
            sources: Vec::new(),
            plain: None,
        }
    }
}

/// The highest slot: more links than a mesh has peers, and a snapshot's list stays small.
const MAX_SLOT: Slot = 8191;

/// The table. Bounded by the number of slots, 8,192; a link beyond it is left out and logged.
#[derive(Debug)]
pub(super) struct Links {
    vni: Vni,
    me: PeerId,
    /// What seals each peer's frames; none: they are in the clear.
    sealers: Option<Arc<Sealers>>,
    known: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    own: Option<OwnAddress>,
    owners: Arc<OwnerMap>,
    /// What was asked, whatever the plan was then.
    questions: Arc<Questions>,
    /// The multicast groups that this node's pods listen to.
    own_groups: Groups,
    /// Those of other nodes. Whoever is not here wants all.
    groups: BTreeMap<PeerId, Vec<Mac>>,
    links: BTreeMap<LinkKey, Known>,
    /// Where the search for a free slot begins: behind the last one given, so that a slot rests for
    /// as long as it can before it means somebody else.
    next: Slot,
}

impl State {
    fn group_table(&self) -> GroupTable {
        let own = match &self.own_groups {
            Groups::All => &[][..],
            Groups::Only(groups) => groups,
        };
        let links = self.links.values().map(|link| {
            let wanted = match link.target.key {
                LinkKey::Peer(id) => self.groups.get(&id).map(Vec::as_slice),
                LinkKey::Vtep(_) => None,
            };
            (link.slot, wanted)
        });
        GroupTable::new(own.iter().copied(), links)
    }
}

#[derive(Debug)]
struct Known {
    slot: Slot,
    target: LinkTarget,
    counters: Arc<LinkCounters>,
}

impl Links {
    pub(super) fn new(vni: Vni, me: PeerId, sealers: Option<Arc<Sealers>>) -> Self {
        Self {
            vni,
            me,
            sealers,
            known: Mutex::default(),
        }
    }

    /// Takes over `targets`, keeping slots and counters of links that stay.
    pub(super) fn replace(
        &self,
        targets: &[LinkTarget],
        macs: &MacTable,
        publish: impl FnOnce(Forwarding),
    ) {
        let mut state = self.lock();
        let state = &mut *state;
        let known = &mut state.links;
        let mut gone = Vec::new();
        let wanted: BTreeSet<_> = targets.iter().map(|target| target.key).collect();
        known.retain(|key, link| {
            let stays = wanted.contains(key);
            if !stays {
                gone.push((*key, link.slot));
            }
            stays
        });
        let mut taken: BTreeSet<_> = known.values().map(|link| link.slot).collect();
        for target in targets {
            if let Some(link) = known.get_mut(&target.key) {
                link.target = target.clone();
                continue;
            }
            let free = |slot: &Slot| !taken.contains(slot);
            let Some(slot) = (state.next..=MAX_SLOT).chain(0..state.next).find(free) else {
                tracing::warn!(endpoint = %target.endpoint, "no slot free for a link: left out");
                continue;
            };
            state.next = if slot == MAX_SLOT { 0 } else { slot + 1 };
            taken.insert(slot);
            // A worker with an old snapshot may have learned for the slot's last owner after it left.
            macs.forget_link(slot);
            let counters = Arc::default();
            known.insert(
                target.key,
                Known {
                    slot,
                    target: target.clone(),
                    counters,
                },
            );
        }
        publish(self.snapshot(state));
        for (key, slot) in gone {
            macs.forget_link(slot);
            if let (Some(sealers), LinkKey::Peer(peer)) = (&self.sealers, key) {
                sealers.forsake(peer);
            }
        }
    }

    /// Takes over the overlay's own address.
    pub(super) fn set_own(&self, own: OwnAddress, publish: impl FnOnce(Forwarding)) {
        let mut state = self.lock();
        state.own = Some(own);
        publish(self.snapshot(&state));
    }

    /// The snapshot before any link.
    pub(super) fn initial(&self) -> Forwarding {
        self.snapshot(&State::default())
    }

    /// Takes over who owns which addresses.
    pub(super) fn set_owners(&self, owners: Arc<OwnerMap>, publish: impl FnOnce(Forwarding)) {
        let mut state = self.lock();
        state.owners = owners;
        publish(self.snapshot(&state));
    }

    /// Notes which multicast groups nodes want; none of an identity: this node's pods. Published once
    /// for all.
    pub(super) fn set_groups(
        &self,
        wanted: impl IntoIterator<Item = (Option<PeerId>, Groups)>,
        publish: impl FnOnce(Forwarding),
    ) {
        let mut state = self.lock();
        for wants in wanted {
            match wants {
                (None, groups) => state.own_groups = groups,
                (Some(id), Groups::All) => {
                    state.groups.remove(&id);
                }
                (Some(id), Groups::Only(groups)) => {
                    state.groups.insert(id, groups);
                }
            }
        }
        publish(self.snapshot(&state));
    }

    fn snapshot(&self, state: &State) -> Forwarding {
        let links = state.links.values().map(
            |Known {
                 slot,
                 target,
                 counters,
             }| {
                let link = Link {
                    peer: match target.key {
                        LinkKey::Peer(peer) => Some(peer),
                        LinkKey::Vtep(_) => None,
                    },
                    endpoint: target.endpoint,
                    encapsulation: target.encapsulation,
                    mtu: target.mtu,
                    sleeve: target.sleeve,
                    sources: target.sources.clone(),
                    plain: target.plain,
                    sealer: match (&self.sealers, target.key) {
                        (Some(sealers), LinkKey::Peer(peer)) => Some(sealers.get(peer)),
                        (None, _) | (_, LinkKey::Vtep(_)) => None,
                    },
                    counters: Arc::clone(counters),
                };
                (*slot, link)
            },
        );
        let resolver = Resolver::new(Arc::clone(&state.owners), Arc::clone(&state.questions));
        let forwarding = Forwarding::new(self.vni, self.me, state.own, links)
            .with_resolver(resolver)
            .with_groups(Arc::new(state.group_table()));
        if self.sealers.is_some() {
            forwarding.sealed()
        } else {
            forwarding
        }
    }

    pub(super) fn key(&self, slot: Slot) -> Option<LinkKey> {
        self.lock()
            .links
            .iter()
            .find(|(_, link)| link.slot == slot)
            .map(|(key, _)| *key)
    }

    pub(super) fn totals(&self) -> Vec<(LinkTarget, LinkTotals)> {
        self.lock()
            .links
            .values()
            .map(|link| (link.target.clone(), link.counters.totals()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change leaves the state whole, so what a panicking thread left is good.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use fastpath::Port;
    use wire::Mac;

    use super::*;

    fn target(n: u8) -> LinkTarget {
        let endpoint = SocketAddr::from(([192, 0, 2, n], 6784));
        LinkTarget::vxlan(LinkKey::Peer(PeerId([n; 8])), endpoint, 1450)
    }

    #[test]
    fn slots_stay_with_their_links_and_macs_go_with_them() {
        let (links, macs) = (
            Links::new(Vni::DEFAULT, PeerId([0xee; 8]), None),
            MacTable::new(16),
        );
        let mut published = Vec::new();
        links.replace(&[target(1), target(2)], &macs, |f| published.push(f));
        let two = published[0].source(target(2).endpoint.ip()).unwrap();
        macs.learn(Mac([2; 6]), Port::Link(two), 0);
        macs.learn(Mac([4; 6]), Port::Link(1 - two), 0);

        links.replace(&[target(2), target(3)], &macs, |f| published.push(f));
        assert_eq!(published[1].source(target(2).endpoint.ip()), Some(two));
        assert_eq!(published[1].source(target(1).endpoint.ip()), None);
        assert_eq!(macs.lookup(Mac([2; 6])), Some(Port::Link(two)));
        assert_eq!(macs.lookup(Mac([4; 6])), None);
        // The slot that was freed rests.
        assert_eq!(
            (links.key(1 - two), links.key(2)),
            (None, Some(target(3).key))
        );
        assert_eq!(published[1].flood().len(), 2);
    }

    /// What waits for a key when its link goes is dropped and counted.
    #[test]
    fn i6_frames_that_wait_on_a_link_that_goes_are_counted() {
        struct Nowhere;
        impl fastpath::TrainSink for Nowhere {
            fn send(&mut self, _: fastpath::Train<'_>) {}
        }
        impl fastpath::FrameSink for Nowhere {
            fn deliver(&mut self, _: &[&[u8]]) {}
        }
        let sealers = Arc::<Sealers>::default();
        let links = Links::new(Vni::DEFAULT, PeerId([0xee; 8]), Some(Arc::clone(&sealers)));
        let macs = MacTable::new(16);
        let sealed = LinkTarget {
            encapsulation: Encapsulation::Sleeve,
            ..target(1)
        };
        let mut forwarding = links.initial();
        links.replace(&[sealed], &macs, |snapshot| forwarding = snapshot);
        let mut egress = fastpath::Egress::new(1, fastpath::TrainLimits::default());
        let counters = fastpath::Counters::default();
        egress.begin(&forwarding, &macs, 1);
        for _ in 0..3 {
            let frame = wire::arp::announcement(Mac([2; 6]), [10, 32, 0, 7].into());
            let mut read = [&fastpath::VnetHdr::PLAIN.bytes()[..], &frame].concat();
            egress.frame(
                &mut read,
                &forwarding,
                &macs,
                &counters,
                &mut Nowhere,
                &mut Nowhere,
            );
        }
        assert_eq!(sealers.forsaken(), 0);
        links.replace(&[], &macs, |_| ());
        assert_eq!(sealers.forsaken(), 3);
        links.replace(&[], &macs, |_| ());
        sealers.tidy();
        assert_eq!(sealers.forsaken(), 3);
    }

    /// What a peer wants is known by its identity, whether it has a link already or not.
    #[test]
    fn groups_stay_with_their_nodes() {
        let links = Links::new(Vni::DEFAULT, PeerId([0xee; 8]), None);
        let macs = MacTable::new(16);
        let group = Mac([1, 0, 0x5e, 1, 2, 3]);
        let tables = || links.lock().group_table();
        let wants = |n: u8, groups| (Some(PeerId([n; 8])), groups);
        links.set_groups(
            [wants(2, Groups::new([group])), wants(3, Groups::new([]))],
            |_| (),
        );
        links.replace(&[target(1), target(2), target(3)], &macs, |_| ());
        let slots = |table: &GroupTable| {
            (
                table.listeners(group).map(<[Slot]>::to_vec),
                table.all().to_vec(),
            )
        };
        assert_eq!(slots(&tables()), (Some(vec![1]), vec![0]));
        links.set_groups([wants(2, Groups::All)], |_| ());
        assert_eq!(slots(&tables()), (None, vec![0, 1]));
        links.set_groups([(None, Groups::new([group]))], |_| ());
        assert_eq!(slots(&tables()), (Some(vec![]), vec![0, 1]));
    }
}
