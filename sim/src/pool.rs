//! A node's address pool with its disk.
//!
//! The allocator is the router's; the disk is a list of what has been made durable. As in the router,
//! an answer leaves only after its change is on the disk, and a crash loses all that is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipam::{Allocation, AllocationKey, Allocator, Change, Ring};
use ipnet::IpNet;
use wire::PeerName;

/// How long a released address rests.
const HOLD_DOWN: Duration = Duration::from_secs(30);

/// What survives a crash.
#[derive(Debug, Clone)]
struct Disk {
    ring: Ring,
    allocations: BTreeSet<(AllocationKey, IpNet)>,
    /// Released addresses, and when they may be used again.
    released: BTreeMap<IpAddr, Duration>,
}

/// The pool of one node.
#[derive(Debug)]
pub struct Pool {
    me: PeerName,
    /// The allocator of the process that runs.
    pub allocator: Allocator,
    disk: Disk,
}

impl Pool {
    /// A pool on an empty disk.
    pub fn new(me: PeerName, ring: Ring) -> Self {
        let allocator = Allocator::new(me.clone(), ring.clone(), HOLD_DOWN);
        let disk = Disk {
            ring,
            allocations: BTreeSet::new(),
            released: BTreeMap::new(),
        };
        Self {
            me,
            allocator,
            disk,
        }
    }

    /// Makes durable what happened; what is answered after it survives.
    pub fn sync(&mut self) {
        self.disk.ring = self.allocator.ring().clone();
        for change in self.allocator.drain_changes() {
            match change {
                Change::Allocated {
                    allocation: Allocation { key, address },
                    ..
                } => {
                    self.disk.released.remove(&address.addr());
                    self.disk.allocations.insert((key, address));
                }
                Change::Released {
                    allocation: Allocation { key, address },
                    reusable_at,
                } => {
                    self.disk.allocations.remove(&(key, address));
                    self.disk.released.insert(address.addr(), reusable_at);
                }
                Change::Reusable { address } => {
                    self.disk.released.remove(&address);
                }
            }
        }
    }

    /// Kills the process and starts it again: what is not on the disk never was.
    ///
    /// # Errors
    /// What is on the disk cannot be, which is a fault of the allocator.
    pub fn crash(&mut self) -> Result<(), String> {
        let disk = self.disk.clone();
        let allocations = disk.allocations.into_iter();
        let allocations = allocations.map(|(key, address)| Allocation { key, address });
        let (me, ring) = (self.me.clone(), disk.ring);
        self.allocator = Allocator::restore(me, ring, HOLD_DOWN, allocations, disk.released)
            .map_err(|error| format!("{} does not start again: {error}", self.me))?;
        Ok(())
    }
}
