//! Who was told to have which address, as the runtimes of all nodes together know it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::bail;
use control::IpamStatus;

/// Addresses of the range (a /23) less its first and last.
pub(super) const HOSTS: u64 = 510;

/// What the clerks did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    /// Addresses given.
    pub given: u64,
    /// Addresses taken back.
    pub returned: u64,
    /// Requests that failed, because a router was killed or cut off or there was no space.
    pub failed: u64,
    /// Times that a container's address was asked for again, and was the same.
    pub confirmed: u64,
}

#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    /// Addresses of containers that run: node, container.
    held: BTreeMap<IpAddr, (usize, String)>,
    tally: Tally,
    /// The first thing that was wrong.
    fault: Option<String>,
}

impl Ledger {
    /// A container runs with this address from now on.
    pub(super) fn given(&self, address: IpAddr, node: usize, container: &str) {
        let mut books = self.books();
        books.tally.given += 1;
        let holder = (node, container.to_owned());
        if let Some(other) = books.held.insert(address, holder) {
            books.fault.get_or_insert(format!(
                "I1: {address} was given to {container} of node {node} while {} of node {} has it",
                other.1, other.0
            ));
        }
    }

    /// A container with this address runs no more; its address may be given to others from now on.
    pub(super) fn ended(&self, address: IpAddr) {
        self.books().held.remove(&address);
    }

    /// A container asked again, and was told this.
    pub(super) fn confirmed(&self, address: IpAddr, told: Option<IpAddr>, container: &str) {
        let mut books = self.books();
        books.tally.confirmed += 1;
        if told != Some(address) {
            books.fault.get_or_insert(format!(
                "I7: {container} was given {address}, and is told {told:?} now"
            ));
        }
    }

    pub(super) fn returned(&self) {
        self.books().tally.returned += 1;
    }

    pub(super) fn failed(&self) {
        self.books().tally.failed += 1;
    }

    pub(super) fn tally(&self) -> Tally {
        self.books().tally
    }

    /// Fails if anything was wrong.
    pub(super) fn verdict(&self) -> anyhow::Result<()> {
        match &self.books().fault {
            Some(fault) => bail!("{fault}"),
            None => Ok(()),
        }
    }

    /// Compares the books with what all nodes say, while nothing is under way: each has exactly the
    /// addresses that its containers have, and all addresses have one owner.
    pub(super) fn compare(&self, nodes: &[IpamStatus]) -> anyhow::Result<()> {
        let books = self.books();
        let mut said = BTreeMap::new();
        for (node, ipam) in nodes.iter().enumerate() {
            for held in &ipam.allocations {
                let address = held.address.addr();
                let holder = (node, held.container_id.clone());
                if let Some(other) = said.insert(address, holder.clone()) {
                    bail!("I1: {address} is held by {holder:?} and by {other:?}");
                }
            }
        }
        // The bridges' own addresses are asked for by nobody.
        said.retain(|_, (_, container)| !container.contains(':'));
        if said != books.held {
            let missing: Vec<_> = books
                .held
                .iter()
                .filter(|held| !contains(&said, held))
                .collect();
            let leaked: Vec<_> = said
                .iter()
                .filter(|held| !contains(&books.held, held))
                .collect();
            bail!("I7: the nodes have forgotten {missing:?}, and keep {leaked:?} for nobody");
        }
        let whole = whole(nodes);
        if whole != HOSTS {
            bail!("I2: {whole} addresses are used or free of {HOSTS}");
        }
        Ok(())
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // Whole after each statement, so what a clerk that panicked left is good.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Addresses that nodes use or have free.
pub(super) fn whole(nodes: &[IpamStatus]) -> u64 {
    nodes.iter().map(|ipam| ipam.used + ipam.free).sum()
}

type Held = BTreeMap<IpAddr, (usize, String)>;

fn contains(all: &Held, (address, holder): &(&IpAddr, &(usize, String))) -> bool {
    all.get(address) == Some(holder)
}
