//! The thread's side: requests and messages in, durable changes out, answers and messages last.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::{
    AllocationStatus, BlockedRange, Condition, EstrangedAddress, IpamPeer, IpamStatus, Left,
    OwnedRange, Removed,
};
use fastpath::OwnerMap;
use ipam::{
    Agent, AgentSettings, AllocateError, Allocation, AllocationKey, Allocator, Change, Input,
    Notice, Ring, Seeding, Universe,
};
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use wire::{PeerId, PeerName};

use super::error::chain;
use super::plan::owners;
use super::{IpamError, IpamInit, IpamOptions, Letter, Request};
use crate::io::ipam_store::{Store, StoreError, Stored, Write};

/// Between attempts to write to a disk that was full or failing, while nobody asks for anything.
const RETRY: Duration = Duration::from_secs(1);

/// The agent, its store, and what they are for.
///
/// Between two batches the agent's state is what the store has. When a batch cannot be
/// written, its changes are taken back and the store is closed; the next batch opens it again and
/// believes what it says.
#[derive(Debug)]
pub(super) struct Engine {
    options: IpamOptions,
    range: Universe,
    seeding: Option<Seeding>,
    /// `now` of the allocator counts from here.
    start: Instant,
    agent: Agent,
    /// Callers for whom there is no address yet.
    waiting: Vec<Waiting>,
    /// The nodes that can be talked to, and what the mesh knows them by.
    peers: BTreeMap<PeerName, PeerId>,
    /// Who is asked for which addresses, and whether that may have changed.
    owners: watch::Sender<Arc<OwnerMap>>,
    replanned: bool,
    outbox: mpsc::Sender<Letter>,
    sent: u64,
    sent_bytes: u64,
    /// What an operator should look at, by its kind, and since when in seconds since 1970.
    notices: BTreeMap<&'static str, (String, u64)>,
    store: Option<Store>,
    /// The store's last failure; none if the last write succeeded.
    failure: Option<IpamError>,
    /// When it is tried again whether the store can be written, if nothing else is to be written.
    retry_at: Instant,
    /// Why nothing new is handed out: the store is of another node or range.
    foreign: Option<IpamError>,
}

/// Somebody who waits for an address.
#[derive(Debug)]
struct Waiting {
    key: AllocationKey,
    subnet: Option<IpNet>,
    address: Option<IpAddr>,
    until: Instant,
    reply: oneshot::Sender<Result<IpNet, IpamError>>,
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
    Removed(
        oneshot::Sender<Result<Removed, IpamError>>,
        Result<Removed, IpamError>,
    ),
    HandedOver(
        oneshot::Sender<Result<Left, IpamError>>,
        Result<Left, IpamError>,
        oneshot::Sender<()>,
    ),
}

impl Engine {
    pub(super) fn open(options: IpamOptions, outbox: mpsc::Sender<Letter>) -> anyhow::Result<Self> {
        let range = Universe::new(options.range)?;
        let seeding = match &options.init {
            IpamInit::Undecided | IpamInit::Consensus(_) => None,
            IpamInit::Seed(peers) => Some(Seeding::new(peers.iter().cloned())?),
        };
        if let Some(seeding) = &seeding {
            // Before anything is touched: a list that does not fit is a mistake in the settings.
            Ring::seeded(range, seeding)?;
        }
        let start = Instant::now();
        let empty = Allocator::new(
            options.me.clone(),
            Ring::undecided(range),
            options.hold_down,
        );
        let settings = AgentSettings::default();
        let mut engine = Self {
            agent: Agent::start(empty, &[], settings, Duration::ZERO)?,
            waiting: Vec::new(),
            peers: BTreeMap::new(),
            owners: watch::Sender::default(),
            replanned: true,
            outbox,
            sent: 0,
            sent_bytes: 0,
            notices: BTreeMap::new(),
            options,
            range,
            seeding,
            start,
            store: None,
            failure: None,
            retry_at: start,
            foreign: None,
        };
        engine
            .reopen()
            .map_err(|error| anyhow::anyhow!(chain(&error)))?;
        // The life of this run, and the first division: before anybody is answered.
        engine.settle(Vec::new());
        if let Some(failure) = &engine.failure {
            anyhow::bail!("cannot write the first division of the range: {failure}");
        }
        Ok(engine)
    }

    /// Works on a batch and answers it. Returns whom to tell when everything is closed, if that
    /// was asked for.
    pub(super) fn run(&mut self, batch: &mut Vec<Request>) -> Option<oneshot::Sender<()>> {
        let mut answers = Vec::new();
        // Reads come after the writes of their batch, so that they never tell what is not durable.
        let mut reads = Vec::new();
        let mut close = None;
        let writes = |r: &Request| matches!(r, Request::Lookup { .. } | Request::Status { .. });
        let writable = if batch.iter().all(writes) {
            Ok(())
        } else {
            self.writable()
        };
        for request in batch.drain(..) {
            match request {
                Request::Allocate { reply, .. } if reply.is_closed() => {}
                Request::Release { reply, .. } if reply.is_closed() => {}
                Request::Allocate {
                    key,
                    subnet,
                    address,
                    until,
                    reply,
                } => match &writable {
                    Ok(()) => self.waiting.push(Waiting {
                        key,
                        subnet,
                        address,
                        until,
                        reply,
                    }),
                    Err(error) => answers.push(Answer::Allocated(reply, Err(error.clone()))),
                },
                Request::Release { key, reply } => {
                    let now = self.start.elapsed();
                    let released = writable.clone().map(|()| self.agent.release(&key, now));
                    let on_link = |nets: Vec<IpNet>| nets.into_iter().map(|net| self.on_link(net));
                    let released = released.map(|nets| on_link(nets).collect());
                    answers.push(Answer::Released(reply, released));
                }
                Request::Remove { name, reply } => {
                    let removed = writable.clone().and_then(|()| self.remove(&name));
                    answers.push(Answer::Removed(reply, removed));
                }
                Request::HandOver { reply, waiting } => {
                    let left = writable.clone().and_then(|()| self.hand_over());
                    answers.push(Answer::HandedOver(reply, left, waiting));
                }
                Request::Mesh { of, input } => {
                    if let Some((name, id)) = of {
                        self.replanned |= self.peers.insert(name, id) != Some(id);
                    }
                    if let Input::Unreachable(name) = &input {
                        self.replanned |= self.peers.remove(name).is_some();
                    }
                    self.hear(input, &writable);
                }
                Request::Tick => {
                    self.note();
                    let now = self.start.elapsed();
                    if self.agent.poll_timeout() <= now {
                        self.hear(Input::Timeout, &writable);
                    }
                }
                Request::Close { reply } => close = Some(reply),
                Request::Lookup { .. } | Request::Status { .. } => reads.push(request),
            }
        }
        self.serve_waiting(&writable, &mut answers);
        self.settle(answers);
        self.count_foreign();
        self.tell_owners();
        for read in reads {
            self.answer(read);
        }
        close
    }

    /// What comes from others is taken only if it can be recorded; they repeat it.
    fn hear(&mut self, input: Input, writable: &Result<(), IpamError>) {
        if writable.is_ok() && self.foreign.is_none() {
            self.agent.handle(input, self.start.elapsed());
        }
    }

    fn remove(&mut self, name: &PeerName) -> Result<Removed, IpamError> {
        if let Some(foreign) = &self.foreign {
            return Err(foreign.clone());
        }
        let removed = self.agent.remove(name, self.start.elapsed())?;
        tracing::warn!(
            peer = %name, addresses = %removed.taken, waiting = removed.waiting.len(),
            unheard = ?removed.unheard,
            "a node was declared gone; its addresses are taken over"
        );
        Ok(Removed {
            taken: count(removed.taken),
            waiting: removed.waiting,
            unheard: removed.unheard,
        })
    }

    fn hand_over(&mut self) -> Result<Left, IpamError> {
        if let Some(foreign) = &self.foreign {
            return Err(foreign.clone());
        }
        let handed = self.agent.hand_over(self.start.elapsed());
        tracing::info!(given = %handed.given, kept = %handed.kept, "gave the address space away");
        Ok(Left {
            given: count(handed.given),
            kept: count(handed.kept),
        })
    }

    /// Gives addresses to those who wait, in their order, and the reason to those whose time is up.
    fn serve_waiting(&mut self, writable: &Result<(), IpamError>, answers: &mut Vec<Answer>) {
        let now = Instant::now();
        for waiting in std::mem::take(&mut self.waiting) {
            if waiting.reply.is_closed() {
                continue;
            }
            let allocated = writable
                .clone()
                .and_then(|()| self.allocate(&waiting.key, waiting.subnet, waiting.address));
            match allocated {
                Err(IpamError::Allocate(error)) if may_change(&error) && now < waiting.until => {
                    self.waiting.push(waiting);
                }
                allocated => answers.push(Answer::Allocated(waiting.reply, allocated)),
            }
        }
    }

    fn allocate(
        &mut self,
        key: &AllocationKey,
        subnet: Option<IpNet>,
        address: Option<IpAddr>,
    ) -> Result<IpNet, IpamError> {
        let now = self.start.elapsed();
        let allocated = match (&self.foreign, address) {
            (Some(foreign), _) => self
                .agent
                .lookup_in(key, subnet)
                .ok_or_else(|| foreign.clone())?,
            (None, Some(address)) => self.agent.claim(key, subnet, address, now)?,
            (None, None) => self.agent.allocate(key, subnet, now)?,
        };
        Ok(self.on_link(allocated))
    }

    /// An address with the prefix length of the whole range that is served, which is on-link for
    /// every container, whatever part of it was asked for.
    fn on_link(&self, address: IpNet) -> IpNet {
        let range = self.agent.ring().universe().net();
        IpNet::new(address.addr(), range.prefix_len()).unwrap_or(address)
    }

    /// Makes the batch durable and sends its answers.
    fn settle(&mut self, answers: Vec<Answer>) {
        let changes = self.agent.drain_changes();
        let changed = self.agent.take_unsaved();
        self.replanned |= changed;
        let retry = self.failure.is_some() && Instant::now() >= self.retry_at;
        let plan = (changed || retry) && self.foreign.is_none();
        let written = self.write(&changes, plan);
        if let Err(error) = &written {
            if self.failure.is_none() {
                tracing::error!(%error, "addresses cannot be recorded; requests are refused");
            }
            self.agent.undo(&changes);
            self.failure = Some(error.clone());
            self.retry_at = Instant::now() + RETRY;
            // redb takes nothing more after an error until it is opened again.
            self.store = None;
        }
        self.send(written.is_ok());
        // Whoever gave up waiting will ask again or release.
        for answer in answers {
            match answer {
                Answer::Allocated(reply, allocated) => {
                    let _ = reply.send(written.clone().and(allocated));
                }
                Answer::Released(reply, released) => {
                    let _ = reply.send(written.clone().and(released));
                }
                Answer::Removed(reply, removed) => {
                    let _ = reply.send(written.clone().and(removed));
                }
                Answer::HandedOver(reply, left, waiting) => {
                    let _ = reply.send(written.clone().and(left));
                    // Behind all that was sent above. Where it has no place, nobody waits for long.
                    let _ = self.outbox.try_send(Letter::Passed(waiting));
                }
            }
        }
    }

    /// Hands over what the agent wants to say; what is not on the disk is not said.
    fn send(&mut self, durable: bool) {
        while let Some(message) = self.agent.poll_output() {
            let to = match &message.to {
                None => None,
                Some(name) => match self.peers.get(name) {
                    Some(id) => Some(*id),
                    None => continue,
                },
            };
            if !durable || self.foreign.is_some() {
                continue;
            }
            let bytes = message.payload.len() as u64;
            let payload = message.payload;
            // A full outbox loses it, as a broken connection does.
            if self
                .outbox
                .try_send(Letter::Message { to, payload })
                .is_ok()
            {
                self.sent += 1;
                self.sent_bytes += bytes;
            }
        }
    }

    /// Who is asked for which addresses, as it changes.
    pub(super) fn owners(&self) -> watch::Receiver<Arc<OwnerMap>> {
        self.owners.subscribe()
    }

    fn tell_owners(&mut self) {
        if !std::mem::take(&mut self.replanned) {
            return;
        }
        let owners = match self.foreign {
            None => owners(self.agent.ring(), self.agent.me(), &self.peers),
            // This is another range's plan.
            Some(_) => OwnerMap::default(),
        };
        self.owners.send_if_modified(|told| {
            let changed = **told != owners;
            if changed {
                *told = Arc::new(owners);
            }
            changed
        });
    }

    /// Tells the log what is new to look at, and remembers since when.
    fn note(&mut self) {
        let mut notices = BTreeMap::new();
        let mut current = self.agent.view().notices;
        let unable = [
            ("ipam_foreign", self.foreign.as_ref()),
            ("ipam_disk", self.failure.as_ref()),
        ];
        current.extend(unable.into_iter().filter_map(|(kind, error)| {
            let message = text(error?);
            Some(Notice { kind, message })
        }));
        for notice in current {
            let since = match self.notices.get(notice.kind) {
                Some((_, since)) => *since,
                None => {
                    tracing::warn!(condition = notice.kind, "{}", notice.message);
                    unix_ms() / 1000
                }
            };
            notices.insert(notice.kind, (notice.message, since));
        }
        self.notices = notices;
    }

    fn write(&mut self, changes: &[Change], plan: bool) -> Result<(), IpamError> {
        // Ends of hold-downs alone are not worth a sync; they are found when the store is read.
        let slight = |change: &Change| matches!(change, Change::Reusable { .. });
        if !plan && changes.iter().all(slight) {
            return Ok(());
        }
        let (now, unix_ms) = (self.start.elapsed(), unix_ms());
        let plan = plan.then(|| Write::Ring(self.agent.ring().clone(), self.agent.state()));
        let changes = changes.iter();
        let writes: Vec<Write> = changes
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
            .chain(plan)
            .collect();
        match &self.store {
            Some(store) => store.commit(&writes)?,
            None => return Err(self.failure.clone().unwrap_or(IpamError::Stopped)),
        }
        if self.failure.take().is_some() {
            tracing::info!("addresses are recorded again");
        }
        Ok(())
    }

    /// Opens the store again if a failure closed it.
    fn writable(&mut self) -> Result<(), IpamError> {
        if self.store.is_some() {
            return Ok(());
        }
        let reopened = self.reopen().map_err(IpamError::from);
        if let Err(error) = &reopened {
            self.store = None;
            self.failure = Some(error.clone());
        }
        reopened
    }

    /// Says how many containers still stand in the way of the settings.
    fn count_foreign(&mut self) {
        let left = containers(self.agent.allocator().allocations().map(|(key, _)| key));
        if let Some(IpamError::OtherRange { used, .. } | IpamError::OtherNode { used, .. }) =
            &mut self.foreign
        {
            *used = left;
        }
    }

    /// Reads the store and puts its state in place of the allocator's.
    fn reopen(&mut self) -> Result<(), StoreError> {
        let (store, stored) = Store::open(&self.options.state_dir, &self.options.me, self.range)?;
        let Stored {
            mut node,
            mut ring,
            mut agent,
            mut allocations,
            mut released,
        } = stored;
        let other = node != self.options.me || ring.universe() != self.range;
        let used = containers(allocations.iter().map(|held| &held.key));
        if other && used == 0 {
            tracing::info!(
                was = %node, was_range = %ring.universe(), node = %self.options.me, range = %self.range,
                "the node's name or range has changed and no container has an address: starting over"
            );
            store.reset(&self.options.me, self.range)?;
            node = self.options.me.clone();
            ring = Ring::undecided(self.range);
            agent.clear();
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
        let damaged = |detail: String| StoreError::Damaged {
            path: store.path().to_owned(),
            detail,
        };
        let allocator = Allocator::restore(node, ring, hold_down, allocations, released)
            .map_err(|error| damaged(error.to_string()))?;
        let settings = match &self.foreign {
            Some(_) => AgentSettings::default(),
            None => AgentSettings {
                seeding: self.seeding.clone(),
                consensus: match self.options.init {
                    IpamInit::Consensus(count) => Some(count),
                    IpamInit::Undecided | IpamInit::Seed(_) => None,
                },
                expects_peers: self.options.expects_peers,
                default_subnet: self.options.default_subnet,
            },
        };
        self.agent = Agent::start(allocator, &agent, settings, now)
            .map_err(|error| damaged(error.to_string()))?;
        for name in self.peers.keys() {
            self.agent.handle(Input::Reachable(name.clone()), now);
        }
        if let Some(note) = self.other_seeding() {
            tracing::warn!("{note}");
        }
        self.store = Some(store);
        self.replanned = true;
        Ok(())
    }

    /// The ring was divided among others than the settings name now.
    fn other_seeding(&self) -> Option<String> {
        let named = self.seeding.as_ref()?;
        let used = self.agent.ring().seedings();
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
                let held = self.agent.allocator().lookup(&key).first().copied();
                let _ = reply.send(held.map(|net| self.on_link(net)));
            }
            Request::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Request::Allocate { .. }
            | Request::Release { .. }
            | Request::Remove { .. }
            | Request::HandOver { .. }
            | Request::Mesh { .. }
            | Request::Tick
            | Request::Close { .. } => {}
        }
    }

    fn status(&self) -> IpamStatus {
        let allocator = self.agent.allocator();
        let ring = self.agent.ring();
        let family = ring.universe().family();
        let owned = ring.owned_by(self.agent.me());
        let usage = allocator.usage();
        let view = self.agent.view();
        let unable = self
            .foreign
            .clone()
            .or_else(|| self.failure.clone())
            .or_else(|| self.agent.available().err().map(IpamError::from));
        let seeds = ring
            .seedings()
            .first()
            .map(|seeding| seeding.peers().to_vec());
        IpamStatus {
            range: ring.universe().net(),
            ready: unable.is_none(),
            reason: match unable {
                Some(error) => Some(text(&error)),
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
            allocations: allocator
                .allocations()
                .map(|(key, address)| AllocationStatus {
                    container_id: key.container_id().to_owned(),
                    ifname: key.ifname().to_owned(),
                    address: self.on_link(address),
                    mac: None,
                })
                .collect(),
            peers: view
                .peers
                .into_iter()
                .map(|peer| IpamPeer {
                    name: peer.name,
                    owned: count(peer.owned),
                    free: peer.free,
                    connected: peer.connected,
                    gone: peer.gone,
                })
                .collect(),
            unconfirmed: count(view.unconfirmed.iter().map(ipam::Range::size).sum()),
            waiting: view.waiting,
            blocked: view
                .blocked
                .into_iter()
                .map(|(range, node)| BlockedRange {
                    range: range.text(family),
                    node,
                })
                .collect(),
            estranged: view
                .estranged
                .into_iter()
                .map(|(at, holder)| EstrangedAddress {
                    address: family.address(at),
                    holder,
                })
                .collect(),
            pending: self.waiting.len() as u64,
            gossip_messages: self.sent,
            gossip_bytes: self.sent_bytes,
            conditions: self
                .notices
                .iter()
                .map(|(kind, (message, since))| Condition {
                    name: (*kind).to_owned(),
                    message: message.clone(),
                    since: *since,
                })
                .collect(),
        }
    }
}

/// Whether a refusal can be over when others have answered, or a container has gone.
fn may_change(error: &AllocateError) -> bool {
    matches!(
        error,
        AllocateError::Undecided { .. }
            | AllocateError::Undivided { .. }
            | AllocateError::NotAdmitted { .. }
            | AllocateError::Unconfirmed { .. }
            | AllocateError::NothingOwned { .. }
            | AllocateError::SubnetOfPeers { .. }
            | AllocateError::Full { .. }
            // Its owner is asked for it.
            | AllocateError::AddressOfPeer { .. }
    )
}

/// An error with what can be done about it.
fn text(error: &IpamError) -> String {
    match error.remedy() {
        remedy if remedy.is_empty() => error.to_string(),
        remedy => format!("{error}: {remedy}"),
    }
}

/// How many addresses containers have. The router's own, whose container ids have a colon, are
/// easily made anew.
fn containers<'a>(keys: impl Iterator<Item = &'a AllocationKey>) -> usize {
    keys.filter(|key| !key.container_id().contains(':')).count()
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
