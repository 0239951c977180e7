//! The thread's side: requests in, durable changes out, answers last.

use std::net::IpAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use control::{AllocationStatus, IpamStatus, OwnedRange};
use ipam::{Allocation, AllocationKey, Allocator, Change, Ring, Seeding, Universe};
use ipnet::IpNet;
use tokio::sync::oneshot;

use super::error::chain;
use super::{IpamError, IpamInit, IpamOptions, Request};
use crate::io::ipam_store::{Store, StoreError, Stored, Write};

/// The allocator, its store, and what they are for.
///
/// Between two batches the allocator's state is what the store has. When a batch cannot be
/// written, its changes are taken back and the store is closed; the next batch opens it again and
/// believes what it says.
#[derive(Debug)]
pub(super) struct Engine {
    options: IpamOptions,
    range: Universe,
    seeding: Option<Seeding>,
    /// `now` of the allocator counts from here.
    start: Instant,
    allocator: Allocator,
    store: Option<Store>,
    /// The store's last failure; none if the last write succeeded.
    failure: Option<IpamError>,
    /// Why nothing new is handed out: the store is of another node or range.
    foreign: Option<IpamError>,
}

/// An answer that waits until the batch is on the disk.
enum Answer {
    Allocated(
        oneshot::Sender<Result<IpNet, IpamError>>,
        Result<IpNet, IpamError>,
    ),
    Released(
        oneshot::Sender<Result<Vec<IpNet>, IpamError>>,
        Result<Vec<IpNet>, IpamError>,
    ),
}

impl Engine {
    pub(super) fn open(options: IpamOptions) -> anyhow::Result<Self> {
        let range = Universe::new(options.range)?;
        let seeding = match &options.init {
            IpamInit::Undecided => None,
            IpamInit::Seed(peers) => Some(Seeding::new(peers.iter().cloned())?),
        };
        if let Some(seeding) = &seeding {
            // Before anything is touched: a list that does not fit is a mistake in the settings.
            Ring::seeded(range, seeding)?;
        }
        let start = Instant::now();
        let mut engine = Self {
            allocator: Allocator::new(
                options.me.clone(),
                Ring::undecided(range),
                options.hold_down,
            ),
            options,
            range,
            seeding,
            start,
            store: None,
            failure: None,
            foreign: None,
        };
        engine
            .reopen()
            .map_err(|error| anyhow::anyhow!(chain(&error)))?;
        engine
            .seed()
            .context("cannot write the first division of the range")?;
        Ok(engine)
    }

    /// Works on a batch and answers it. Returns whom to tell when everything is closed, if that
    /// was asked for.
    pub(super) fn run(&mut self, batch: &mut Vec<Request>) -> Option<oneshot::Sender<()>> {
        let mut answers = Vec::new();
        // Reads come after the writes of their batch, so that they never tell what is not durable.
        let mut reads = Vec::new();
        let mut close = None;
        let writes = |r: &Request| matches!(r, Request::Allocate { .. } | Request::Release { .. });
        let writable = if batch.iter().any(writes) {
            self.writable()
        } else {
            Ok(())
        };
        for request in batch.drain(..) {
            match request {
                Request::Allocate { reply, .. } if reply.is_closed() => {}
                Request::Release { reply, .. } if reply.is_closed() => {}
                Request::Allocate {
                    key,
                    subnet,
                    address,
                    reply,
                } => {
                    let allocated = writable
                        .clone()
                        .and_then(|()| self.allocate(&key, subnet, address));
                    answers.push(Answer::Allocated(reply, allocated));
                }
                Request::Release { key, reply } => {
                    let now = self.start.elapsed();
                    let released = writable.clone().map(|()| self.allocator.release(&key, now));
                    answers.push(Answer::Released(reply, released));
                }
                Request::Close { reply } => close = Some(reply),
                Request::Lookup { .. } | Request::Status { .. } => reads.push(request),
            }
        }
        self.settle(answers);
        for read in reads {
            self.answer(read);
        }
        close
    }

    fn allocate(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        address: Option<IpAddr>,
    ) -> Result<IpNet, IpamError> {
        let now = self.start.elapsed();
        match (&self.foreign, address) {
            (Some(foreign), _) => self
                .allocator
                .lookup_in(key, subnet)
                .ok_or_else(|| foreign.clone()),
            (None, Some(address)) => Ok(self.allocator.claim(key, subnet, address, now)?),
            (None, None) => Ok(self.allocator.allocate(key, subnet, now)?),
        }
    }

    /// Makes the batch durable and sends its answers.
    fn settle(&mut self, answers: Vec<Answer>) {
        let changes = self.allocator.drain_changes();
        let written = self.write(&changes);
        if let Err(error) = &written {
            tracing::error!(%error, "addresses cannot be recorded; requests are refused");
            self.allocator.undo(&changes);
            self.failure = Some(error.clone());
            // redb takes nothing more after an error until it is opened again.
            self.store = None;
        }
        // Whoever gave up waiting will ask again or release.
        for answer in answers {
            match answer {
                Answer::Allocated(reply, allocated) => {
                    let _ = reply.send(written.clone().and(allocated));
                }
                Answer::Released(reply, released) => {
                    let _ = reply.send(written.clone().and(released));
                }
            }
        }
    }

    fn write(&mut self, changes: &[Change]) -> Result<(), IpamError> {
        // Ends of hold-downs alone are not worth a sync; they are found when the store is read.
        if changes
            .iter()
            .all(|change| matches!(change, Change::Reusable { .. }))
        {
            return Ok(());
        }
        let (now, unix_ms) = (self.start.elapsed(), unix_ms());
        let writes: Vec<Write> = changes
            .iter()
            .map(|change| match change {
                Change::Allocated { allocation, .. } => Write::Used(allocation.clone()),
                Change::Released {
                    allocation: Allocation { address, .. },
                    reusable_at,
                } => {
                    let rest = millis(reusable_at.saturating_sub(now));
                    let reusable_unix_ms = unix_ms.saturating_add(rest);
                    Write::Released {
                        address: address.addr(),
                        reusable_unix_ms,
                    }
                }
                Change::Reusable { address } => Write::Reusable { address: *address },
            })
            .collect();
        match &self.store {
            Some(store) => Ok(store.commit(&writes)?),
            None => Err(self.failure.clone().unwrap_or(IpamError::Stopped)),
        }
    }

    /// Opens the store again if a failure closed it.
    fn writable(&mut self) -> Result<(), IpamError> {
        if self.store.is_some() {
            return Ok(());
        }
        let reopened = self
            .reopen()
            .map_err(IpamError::from)
            .and_then(|()| self.seed());
        match &reopened {
            Ok(()) => tracing::info!("the record of addresses is open again"),
            Err(error) => {
                self.store = None;
                self.failure = Some(error.clone());
            }
        }
        reopened
    }

    /// Reads the store and puts its state in place of the allocator's.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let (store, stored) = Store::open(&self.options.state_dir, &self.options.me, self.range)?;
        let Stored {
            mut node,
            mut ring,
            mut allocations,
            mut released,
        } = stored;
        let other = node != self.options.me || ring.universe() != self.range;
        // The router's own addresses (their container ids have a colon) are easily made anew.
        let used = allocations
            .iter()
            .filter(|a| !a.key.container_id().contains(':'))
            .count();
        if other && used == 0 {
            tracing::info!(
                was = %node, was_range = %ring.universe(), node = %self.options.me, range = %self.range,
                "the node's name or range has changed and no container has an address: starting over"
            );
            store.reset(&self.options.me, self.range)?;
            node = self.options.me.clone();
            ring = Ring::undecided(self.range);
            allocations.clear();
            released.clear();
        }
        self.foreign = if ring.universe() != self.range {
            Some(IpamError::OtherRange {
                stored: ring.universe(),
                wanted: self.range,
                used,
            })
        } else if node != self.options.me {
            let wanted = self.options.me.clone();
            Some(IpamError::OtherNode {
                stored: node.clone(),
                wanted,
                used,
            })
        } else {
            None
        };
        if let Some(foreign) = &self.foreign {
            tracing::error!(error = %foreign, remedy = foreign.remedy(), "no addresses are handed out");
        }
        let (now, unix_ms, hold_down) = (self.start.elapsed(), unix_ms(), self.options.hold_down);
        let released = released.into_iter().map(|(address, reusable_unix_ms)| {
            // A clock that was set back must not hold an address for longer than ever intended.
            let rest = Duration::from_millis(reusable_unix_ms.saturating_sub(unix_ms));
            (address, now + rest.min(hold_down))
        });
        self.allocator =
            Allocator::restore(node, ring, hold_down, allocations, released).map_err(|error| {
                StoreError::Damaged {
                    path: store.path().to_owned(),
                    detail: error.to_string(),
                }
            })?;
        self.store = Some(store);
        self.failure = None;
        Ok(())
    }

    /// Divides a range that nobody has divided, if the settings say how.
    fn seed(&mut self) -> Result<(), IpamError> {
        let (Some(seeding), Some(store), None) = (&self.seeding, &self.store, &self.foreign) else {
            return Ok(());
        };
        if self.allocator.ring().is_undecided()
            && let Ok(ring) = Ring::seeded(self.range, seeding)
        {
            store.commit(&[Write::Ring(ring.clone())])?;
            tracing::info!(range = %self.range, seeds = %seeding, "the range is divided");
            self.allocator.set_ring(ring);
        } else if let Some(note) = self.other_seeding() {
            tracing::warn!("{note}");
        }
        Ok(())
    }

    /// The ring was divided among others than the settings name now.
    fn other_seeding(&self) -> Option<String> {
        let named = self.seeding.as_ref()?;
        let used = self.allocator.ring().seedings();
        if used.is_empty() || used.contains(named) {
            return None;
        }
        let used: Vec<String> = used.iter().map(ToString::to_string).collect();
        Some(format!(
            "the range was first divided among {}, and that stays: --ipam-init seed={named} is not used",
            used.join(" and among ")
        ))
    }

    fn answer(&self, read: Request) {
        // Whoever gave up waiting does not miss the answer.
        match read {
            Request::Lookup { key, reply } => {
                let _ = reply.send(self.allocator.lookup(&key).first().copied());
            }
            Request::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Request::Allocate { .. } | Request::Release { .. } | Request::Close { .. } => {}
        }
    }

    fn status(&self) -> IpamStatus {
        let ring = self.allocator.ring();
        let family = ring.universe().family();
        let owned = ring.owned_by(self.allocator.me());
        let usage = self.allocator.usage();
        let unable = self
            .foreign
            .clone()
            .or_else(|| self.failure.clone())
            .or_else(|| self.allocator.available().err().map(IpamError::from));
        let seeds = ring
            .seedings()
            .first()
            .map(|seeding| seeding.peers().to_vec());
        IpamStatus {
            range: ring.universe().net(),
            ready: unable.is_none(),
            reason: match unable {
                Some(error) => Some(match error.remedy() {
                    remedy if remedy.is_empty() => error.to_string(),
                    remedy => format!("{error}: {remedy}"),
                }),
                None => self.other_seeding(),
            },
            seeds: seeds.unwrap_or_default(),
            owned: owned
                .iter()
                .map(|range| OwnedRange {
                    range: range.text(family),
                    size: count(range.size()),
                })
                .collect(),
            used: count(usage.used),
            // Those at rest are handed out when no other is left.
            free: count(usage.free.saturating_add(usage.cooling)),
            allocations: self
                .allocator
                .allocations()
                .map(|(key, address)| AllocationStatus {
                    container_id: key.container_id().to_owned(),
                    ifname: key.ifname().to_owned(),
                    address,
                })
                .collect(),
        }
    }
}

/// A number for people: 2^64 - 1 stands for more, as an IPv6 range has.
fn count(number: u128) -> u64 {
    number.try_into().unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

/// The wall clock, which is only used to carry a hold-down over a restart.
fn unix_ms() -> u64 {
    // A clock before 1970 counts as 1970.
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, millis)
}
