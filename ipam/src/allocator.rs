//! Single addresses for containers, out of what this node owns.

mod error;
mod key;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerName;

pub use self::error::{AllocateError, RestoreError};
pub use self::key::{AllocationKey, KeyError};
use crate::range::{Range, Universe};
use crate::range_set::RangeSet;
use crate::ring::Ring;
use crate::space::Space;

/// An address in use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Allocation {
    /// Who uses it.
    pub key: AllocationKey,
    /// The address, with the prefix length of the subnet that it was asked for.
    pub address: IpNet,
}

/// Something that has to be made durable, in this order, before the answer that caused it leaves.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Change {
    /// An address came into use; if it was held down, it is no longer.
    Allocated {
        /// Which one, and whose.
        allocation: Allocation,
        /// Until when it was held down, on the clock of `now`.
        held_down_until: Option<Duration>,
    },
    /// An address went out of use and is held down.
    Released {
        /// Which one, and whose it was.
        allocation: Allocation,
        /// When it may be used again, on the clock of `now`.
        reusable_at: Duration,
    },
    /// A hold-down is over. Losing this costs nothing: the record is found expired when read.
    Reusable {
        /// Which address.
        address: IpAddr,
    },
}

/// How many addresses, reserved ones left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Owned by this node.
    pub owned: u128,
    /// In use by containers of this node.
    pub used: u128,
    /// Held down after a release: the next to be used when `free` is 0.
    pub cooling: u128,
    /// Owned, and neither used nor cooling.
    pub free: u128,
}

/// Hands out the addresses that this node owns, each to one container interface at a time.
///
/// `now` is a monotonic time since an arbitrary start, the same for all calls.
///
/// A1: an address has at most one key. A2: an address handed out is owned by this node at that
/// moment, lies in the subnet asked for, and is neither the first nor the last address of the
/// subnet or of the universe. A3: a key that asks again gets what it has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Allocator {
    me: PeerName,
    ring: Ring,
    hold_down: Duration,
    space: Space,
    /// Owned addresses that are not to be handed out for now.
    withheld: RangeSet,
    /// What each key has, at most one address for each subnet.
    held: BTreeMap<AllocationKey, Vec<IpNet>>,
    used: BTreeMap<u128, AllocationKey>,
    changes: Vec<Change>,
}

impl Allocator {
    /// An allocator for the node `me`, which holds a released address down for `hold_down`.
    pub fn new(me: PeerName, ring: Ring, hold_down: Duration) -> Self {
        let universe = ring.universe().range();
        let hosts = universe.hosts().expect("a universe has at least two hosts");
        let mut new = Self {
            me,
            ring,
            hold_down,
            space: Space::new(hosts),
            withheld: RangeSet::new(),
            held: BTreeMap::new(),
            used: BTreeMap::new(),
            changes: Vec::new(),
        };
        new.update_space();
        new
    }

    /// An allocator that goes on from what was made durable: addresses in use, and released ones
    /// with the time when they may be used again.
    pub fn restore(
        me: PeerName,
        ring: Ring,
        hold_down: Duration,
        allocations: impl IntoIterator<Item = Allocation>,
        released: impl IntoIterator<Item = (IpAddr, Duration)>,
    ) -> Result<Self, RestoreError> {
        let mut new = Self::new(me, ring, hold_down);
        let universe = new.universe();
        let inside = |address| {
            universe.number(address).ok_or(RestoreError::Outside {
                address,
                range: universe,
            })
        };
        for Allocation { key, address } in allocations {
            let number = inside(address.addr())?;
            if let Some(other) = new.used.insert(number, key.clone()) {
                return Err(RestoreError::Twice {
                    address: address.addr(),
                    first: other,
                    second: key,
                });
            }
            new.space.take(number);
            new.held.entry(key).or_default().push(address);
        }
        for (address, reusable_at) in released {
            let number = inside(address)?;
            if let Some(key) = new.used.get(&number) {
                return Err(RestoreError::ReleasedInUse {
                    address,
                    key: key.clone(),
                });
            }
            new.space.give_back(number, reusable_at);
        }
        Ok(new)
    }

    /// The node that this allocator is for.
    pub fn me(&self) -> &PeerName {
        &self.me
    }

    /// The ring as this node knows it.
    pub fn ring(&self) -> &Ring {
        &self.ring
    }

    /// The range that the ring divides.
    pub fn universe(&self) -> Universe {
        self.ring.universe()
    }

    /// Puts another state of the same universe's ring in place. Addresses in use stay in use,
    /// also those in ranges that are no longer this node's.
    pub fn set_ring(&mut self, ring: Ring) {
        debug_assert_eq!(ring.universe(), self.ring.universe());
        self.ring = ring;
        self.update_space();
    }

    /// Sets which owned addresses are not to be handed out for now: others may hold them.
    pub fn set_withheld(&mut self, withheld: RangeSet) {
        if withheld != self.withheld {
            self.withheld = withheld;
            self.update_space();
        }
    }

    /// What may be handed out or given away now: owned, not withheld, not reserved, not in use and
    /// not at rest.
    pub fn free(&self) -> &RangeSet {
        self.space.free()
    }

    /// Whether this address is owned, neither withheld nor reserved, and not in use; it may be at
    /// rest.
    pub(crate) fn may_give(&self, address: u128) -> bool {
        self.space.owned().contains(address) && !self.used.contains_key(&address)
    }

    /// Addresses in use here that another node owns, with their keys.
    pub fn estranged(&self) -> impl Iterator<Item = (u128, &AllocationKey)> + '_ {
        let mine = |at: u128| self.ring.owner_of(at) == Some(&self.me);
        self.used
            .iter()
            .filter(move |(at, _)| !mine(**at))
            .map(|(at, key)| (*at, key))
    }

    /// Who has an address here.
    pub fn user_of(&self, address: u128) -> Option<&AllocationKey> {
        self.used.get(&address)
    }

    /// The lowest free address of `subnet` (the whole universe unless given) for `key`, or the
    /// one that `key` has there already.
    pub fn allocate(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        now: Duration,
    ) -> Result<IpNet, AllocateError> {
        let subnet = self.subnet(subnet)?;
        if let Some(held) = self.held_in(key, subnet) {
            return Ok(held);
        }
        self.expire(now);
        let window = Range::of(subnet)
            .hosts()
            .expect("a subnet has at least two hosts");
        match self.space.next_within(window) {
            Some(number) => Ok(self.take(key, number, subnet)),
            None => Err(self.why_none(subnet, window)),
        }
    }

    /// This very address for `key`, in `subnet` (the whole universe unless given).
    ///
    /// A hold-down does not stand in the way: who names an address has a reason to want this one.
    pub fn claim(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        address: IpAddr,
        now: Duration,
    ) -> Result<IpNet, AllocateError> {
        let subnet = self.subnet(subnet)?;
        if let Some(has) = self.held_in(key, subnet) {
            if has.addr() == address {
                return Ok(has);
            }
            return Err(AllocateError::HoldsAnother {
                key: key.clone(),
                has,
                wanted: address,
            });
        }
        let Some(number) = self
            .universe()
            .number(address)
            .filter(|_| subnet.contains(&address))
        else {
            return Err(AllocateError::AddressOutside { address, subnet });
        };
        let window = Range::of(subnet)
            .hosts()
            .expect("a subnet has at least two hosts");
        if !window.contains(number) || !self.hosts().contains(number) {
            return Err(AllocateError::AddressReserved { address, subnet });
        }
        if let Some(by) = self.used.get(&number) {
            return Err(AllocateError::AddressInUse {
                address,
                by: by.clone(),
            });
        }
        match self.ring.owner_of(number) {
            Some(owner) if *owner == self.me => {}
            Some(owner) => {
                return Err(AllocateError::AddressOfPeer {
                    address,
                    owner: owner.clone(),
                });
            }
            None => {
                return Err(AllocateError::Undecided {
                    range: self.universe(),
                });
            }
        }
        if self.withheld.contains(number) {
            return Err(AllocateError::AddressWithheld { address });
        }
        self.expire(now);
        Ok(self.take(key, number, subnet))
    }

    /// Everything that `key` has goes out of use; what it was is returned. Unknown keys have
    /// nothing.
    pub fn release(&mut self, key: &AllocationKey, now: Duration) -> Vec<IpNet> {
        self.expire(now);
        let released = self.held.remove(key).unwrap_or_default();
        let reusable_at = now.saturating_add(self.hold_down);
        for net in &released {
            let number = self.held_number(*net);
            self.used.remove(&number);
            self.space.give_back(number, reusable_at);
            let allocation = Allocation {
                key: key.clone(),
                address: *net,
            };
            self.changes.push(Change::Released {
                allocation,
                reusable_at,
            });
        }
        released
    }

    /// What `key` has, oldest first.
    pub fn lookup(&self, key: &AllocationKey) -> &[IpNet] {
        self.held.get(key).map_or(&[], Vec::as_slice)
    }

    /// What `key` has in `subnet` (the whole universe unless given).
    pub fn lookup_in(&self, key: &AllocationKey, subnet: Option<IpNet>) -> Option<IpNet> {
        self.held_in(key, subnet.unwrap_or(self.universe().net()))
    }

    /// All addresses in use, in the order of keys.
    pub fn allocations(&self) -> impl Iterator<Item = (&AllocationKey, IpNet)> + '_ {
        self.held
            .iter()
            .flat_map(|(key, nets)| nets.iter().map(move |&net| (key, net)))
    }

    /// How much is owned, used and free.
    pub fn usage(&self) -> Usage {
        Usage {
            owned: self.space.owned().size(),
            used: self.used.len() as u128,
            cooling: self.space.cooling() as u128,
            free: self.space.free().size(),
        }
    }

    /// What happened since the last call and has to be made durable.
    pub fn drain_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.changes)
    }

    /// Takes back the changes of the last [`drain_changes`](Self::drain_changes), which could not be
    /// made durable: everything is as before the calls that caused them.
    pub fn undo(&mut self, changes: &[Change]) {
        for change in changes.iter().rev() {
            match change {
                Change::Allocated {
                    allocation: Allocation { key, address },
                    held_down_until,
                } => {
                    let number = self.held_number(*address);
                    self.used.remove(&number);
                    if let Some(nets) = self.held.get_mut(key) {
                        nets.retain(|net| net != address);
                        if nets.is_empty() {
                            self.held.remove(key);
                        }
                    }
                    match held_down_until {
                        Some(until) => self.space.give_back(number, *until),
                        None => self.space.free_again(number),
                    }
                }
                Change::Released {
                    allocation: Allocation { key, address },
                    ..
                } => {
                    let number = self.held_number(*address);
                    self.space.take(number);
                    self.used.insert(number, key.clone());
                    // In front, because the last change is undone first.
                    self.held
                        .entry(key.clone())
                        .or_default()
                        .insert(0, *address);
                }
                // Time does not come back: the hold-down is over with or without its record.
                Change::Reusable { .. } => {}
            }
        }
    }

    /// Whether the next [`allocate`](Self::allocate) in this subnet would give an address, and if
    /// not, what it would say.
    pub fn available(&self, subnet: IpNet) -> Result<(), AllocateError> {
        let subnet = self.subnet(Some(subnet))?;
        let window = Range::of(subnet)
            .hosts()
            .expect("a subnet has at least two hosts");
        match self.space.next_within(window) {
            Some(_) => Ok(()),
            None => Err(self.why_none(subnet, window)),
        }
    }

    fn held_number(&self, address: IpNet) -> u128 {
        self.universe()
            .number(address.addr())
            .expect("what is held is in the universe")
    }

    fn update_space(&mut self) {
        let mut owned = self.ring.owned_by(&self.me);
        owned.remove_all(&self.withheld);
        self.space.set_owned(&owned, self.used.keys().copied());
    }

    fn hosts(&self) -> Range {
        self.universe()
            .range()
            .hosts()
            .expect("a universe has at least two hosts")
    }

    fn subnet(&self, subnet: Option<IpNet>) -> Result<IpNet, AllocateError> {
        let universe = self.universe();
        let Some(subnet) = subnet else {
            return Ok(universe.net());
        };
        if subnet != subnet.trunc() {
            return Err(AllocateError::SubnetHostBits {
                subnet,
                network: subnet.trunc(),
            });
        }
        if !universe.net().contains(&subnet) {
            return Err(AllocateError::SubnetOutside {
                subnet,
                range: universe,
            });
        }
        let longest = Universe::longest_prefix(universe.family());
        if subnet.prefix_len() > longest {
            return Err(AllocateError::SubnetTooSmall { subnet, longest });
        }
        Ok(subnet)
    }

    fn held_in(&self, key: &AllocationKey, subnet: IpNet) -> Option<IpNet> {
        self.lookup(key)
            .iter()
            .copied()
            .find(|net| net.trunc() == subnet)
    }

    fn take(&mut self, key: &AllocationKey, number: u128, subnet: IpNet) -> IpNet {
        let address = IpNet::new(self.universe().address(number), subnet.prefix_len())
            .expect("a subnet's own prefix length");
        let held_down_until = self.space.take(number);
        self.used.insert(number, key.clone());
        self.held.entry(key.clone()).or_default().push(address);
        let allocation = Allocation {
            key: key.clone(),
            address,
        };
        self.changes.push(Change::Allocated {
            allocation,
            held_down_until,
        });
        address
    }

    /// Ends the hold-downs whose time has come; the other operations do so by themselves.
    pub fn expire(&mut self, now: Duration) {
        for number in self.space.expire(now) {
            let address = self.universe().address(number);
            self.changes.push(Change::Reusable { address });
        }
    }

    /// Why there is no address in `subnet`, whose hosts are `window`.
    fn why_none(&self, subnet: IpNet, window: Range) -> AllocateError {
        let range = self.universe();
        if self.ring.is_undecided() {
            return AllocateError::Undecided { range };
        }
        let owners: Vec<PeerName> = self.ring.owners().into_keys().cloned().collect();
        if !owners.contains(&self.me) {
            return AllocateError::NothingOwned {
                me: self.me.clone(),
                range,
                owners,
            };
        }
        let mine = self.space.owned().size_within(window);
        if mine == 0 {
            return AllocateError::SubnetOfPeers {
                me: self.me.clone(),
                subnet,
            };
        }
        AllocateError::Full {
            subnet,
            mine,
            elsewhere: window.size() - mine,
        }
    }
}
