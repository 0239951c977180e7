//! The running node: what the control interface, the probes and the daemon's tasks act upon.
//!
//! One value that all of them share. Parts that must not be changed by two at once have a lock of
//! their own, held for as long as the change takes and never across another part's.

mod gateway;
mod membership;
mod observed;
mod underlay;

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use control::{
    ApiError, AttachRequest, Attachment, AttachmentRef, Collected, Condition, ConnectRequest,
    DetachRequest, Detached, ForgetRequest, GcRequest, Left, NodeStatus, OverlayStatus,
    ReleasedAttachment, RemoveRequest, Removed, SessionStatus, Status, Targets, pending,
};
use fastpath::{LinkTotals, OwnerMap};
use hostnet::nft::NftError;
use ipam::AllocationKey;
use ipnet::IpNet;
use mesh::{Fingerprint, Groups};
use tokio::sync::watch;
use tokio::time::timeout;
use wire::{Mac, PeerId};

use crate::absent::Absences;
use crate::attachments::Attachments;
use crate::host::{Host, Underlay};
use crate::http::ControlService;
use crate::http::health::Loops;
use crate::io::datapath::{Datapath, LinkTarget};
use crate::io::ipam_service::IpamHandle;
use crate::io::mesh_driver::{MeshHandle, MeshView};
use crate::io::rules_keeper::RulesKeeper;
use crate::io::sessions::{SessionsHandle, SessionsView};
use crate::remembered::Remembered;
use crate::rules::GuardedPod;
use crate::settings::Settings;
use crate::status::{Parts, assemble};
use crate::switch::Switch;
use crate::targets::TargetBook;

/// Who holds the bridge's own address. The colon keeps it apart from containers, whose identifiers
/// have none.
pub const BRIDGE_HOLDER: &str = "weft:bridge";
/// How long an attach may wait for an address: less than the interface's own deadline, so that the
/// reason arrives.
pub const ATTACH_DEADLINE: Duration = Duration::from_secs(8);
/// Raised while the rules for packets are not in place.
pub const RULES_CONDITION: &str = "packet_rules";
/// How long another part may take to say how it is.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);
/// Attachments are changed one at a time within a shard; different ones rarely share one.
const SHARDS: usize = 64;

/// What the node found out about itself at its start.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its identity.
    pub id: PeerId,
    /// Its key, as operators compare it.
    pub fingerprint: Fingerprint,
    /// The bridge's Ethernet address.
    pub bridge_mac: Mac,
    /// The underlay as it was found.
    pub underlay: Underlay,
    /// The pods' MTU.
    pub mtu: u16,
    /// Address and port on which other routers are accepted.
    pub control: SocketAddr,
    /// Addresses on the way to which the underlay is.
    pub towards: Arc<[IpAddr]>,
}

/// The node.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    facts: Facts,
    /// As it is now; the facts have it as it was.
    underlay: Mutex<Underlay>,
    started: Instant,
    started_unix: u64,
    host: Arc<Mutex<Host>>,
    datapath: Mutex<Option<Datapath>>,
    mesh: MeshHandle,
    ipam: IpamHandle,
    sessions: Option<SessionsHandle>,
    switch: Mutex<Switch>,
    conditions: Mutex<BTreeMap<(String, String), Condition>>,
    targets: tokio::sync::Mutex<TargetBook>,
    remembered: Arc<Mutex<Remembered>>,
    attachments: Mutex<Attachments>,
    absences: Mutex<Absences>,
    shards: Vec<tokio::sync::Mutex<()>>,
    /// The bridge's addresses, once it has them. The lock is for the one who gives them.
    gateways: watch::Sender<Vec<IpNet>>,
    gateway_lock: tokio::sync::Mutex<()>,
    loops: Loops,
    /// None where the kernel has no nftables.
    rules: Option<Arc<Mutex<RulesKeeper>>>,
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeParts {
    /// The settings.
    pub settings: Settings,
    /// What was found out.
    pub facts: Facts,
    /// When it started: the zero of its monotonic time.
    pub started: Instant,
    /// The machine.
    pub host: Host,
    /// The data path.
    pub datapath: Datapath,
    /// The peers.
    pub mesh: MeshHandle,
    /// The addresses.
    pub ipam: IpamHandle,
    /// The sessions with peers, if this node has a password.
    pub sessions: Option<SessionsHandle>,
    /// The composition of links.
    pub switch: Switch,
    /// Where others are to be found.
    pub targets: TargetBook,
    /// Where they were found before.
    pub remembered: Remembered,
    /// What is known of attachments.
    pub attachments: Attachments,
    /// The rules for packets, if the kernel has any.
    pub rules: Option<RulesKeeper>,
}

impl Node {
    /// Puts a node together.
    pub fn new(parts: NodeParts) -> Self {
        let left = parts.targets.has_left();
        let node = Self {
            settings: parts.settings,
            underlay: Mutex::new(parts.facts.underlay.clone()),
            facts: parts.facts,
            started: parts.started,
            started_unix: unix_now().saturating_sub(parts.started.elapsed().as_secs()),
            host: Arc::new(Mutex::new(parts.host)),
            datapath: Mutex::new(Some(parts.datapath)),
            mesh: parts.mesh,
            ipam: parts.ipam,
            sessions: parts.sessions,
            switch: Mutex::new(parts.switch),
            conditions: Mutex::default(),
            targets: tokio::sync::Mutex::new(parts.targets),
            remembered: Arc::new(Mutex::new(parts.remembered)),
            attachments: Mutex::new(parts.attachments),
            absences: Mutex::default(),
            shards: std::iter::repeat_with(Default::default)
                .take(SHARDS)
                .collect(),
            gateways: watch::Sender::new(Vec::new()),
            gateway_lock: tokio::sync::Mutex::default(),
            loops: Loops::default(),
            rules: parts.rules.map(|rules| Arc::new(Mutex::new(rules))),
        };
        if left {
            node.tell_left();
        }
        node
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The loops whose turning is the router's health.
    pub fn loops(&self) -> &Loops {
        &self.loops
    }

    /// The peers.
    pub fn mesh(&self) -> &MeshHandle {
        &self.mesh
    }

    /// The sessions with peers, if this node has a password.
    pub fn sessions(&self) -> Option<&SessionsHandle> {
        self.sessions.as_ref()
    }

    /// The addresses.
    pub fn ipam(&self) -> &IpamHandle {
        &self.ipam
    }

    /// Monotonic time since the start.
    pub fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Changes the composition of links and hands the data path what comes of it.
    pub fn change_links(&self, change: impl FnOnce(&mut Switch)) {
        let mut switch = lock(&self.switch);
        change(&mut switch);
        let links = switch.links();
        if let Some(datapath) = &*lock(&self.datapath) {
            datapath.set_links(&links);
        }
    }

    /// Hands the data path who owns which addresses.
    pub fn set_owners(&self, owners: Arc<OwnerMap>) {
        if let Some(datapath) = &*lock(&self.datapath) {
            datapath.set_owners(owners);
        }
    }

    /// Hands the data path which multicast groups nodes want; none of an identity: this node's pods.
    pub fn set_groups(&self, wanted: impl IntoIterator<Item = (Option<PeerId>, Groups)>) {
        if let Some(datapath) = &*lock(&self.datapath) {
            datapath.set_groups(wanted);
        }
    }

    /// Sends frames to this node's pods. That one is lost is no matter: they are sent again.
    pub fn tell_pods(&self, frames: &[Vec<u8>]) {
        if let Some(datapath) = &*lock(&self.datapath) {
            for frame in frames {
                if let Err(error) = datapath.tell_pods(frame) {
                    tracing::debug!(%error, "the TAP did not take a frame for the pods");
                }
            }
        }
    }

    /// The bridge's Ethernet address.
    pub fn bridge_mac(&self) -> Mac {
        self.facts.bridge_mac
    }

    /// Raises a condition, or says it anew.
    pub fn raise(&self, name: &str, subject: &str, message: String) {
        tracing::warn!(condition = name, subject, message, "needs attention");
        let mut conditions = lock(&self.conditions);
        let key = (name.to_owned(), subject.to_owned());
        let since = conditions
            .get(&key)
            .map_or_else(unix_now, |condition| condition.since);
        conditions.insert(
            key,
            Condition {
                name: name.to_owned(),
                message,
                since,
            },
        );
    }

    /// A condition is over.
    pub fn clear(&self, name: &str, subject: &str) {
        if lock(&self.conditions)
            .remove(&(name.to_owned(), subject.to_owned()))
            .is_some()
        {
            tracing::info!(condition = name, subject, "is over");
        }
    }

    /// What crossed each link so far, while the data path runs.
    pub fn link_totals(&self) -> Option<Vec<(LinkTarget, LinkTotals)>> {
        lock(&self.datapath).as_ref().map(Datapath::links)
    }

    /// Forgets MACs that have been silent for too long.
    pub fn expire_macs(&self) {
        if let Some(datapath) = &*lock(&self.datapath) {
            datapath.expire_macs(self.settings.mac_age);
        }
    }

    /// Whether the data path works no more and cannot be mended from inside.
    pub fn datapath_is_dead(&self) -> bool {
        lock(&self.datapath)
            .as_ref()
            .is_some_and(|datapath| datapath.stalled_for() == Duration::MAX)
    }

    /// Carries out the releases that were noted while the router was away.
    pub async fn release_pending(&self) {
        let socket = &self.settings.socket;
        let listing = match pending::list(socket) {
            Ok(listing) => listing,
            Err(error) => {
                let dir = pending::directory(socket);
                tracing::warn!(dir = %dir.display(), %error, "cannot read the pending releases");
                return;
            }
        };
        for (file, error) in listing.unreadable {
            tracing::warn!(file = %file.display(), %error, "cannot read a pending release");
        }
        for pending in listing.pending {
            let request = pending.request;
            match self.detach(request.clone()).await {
                Ok(_) => tracing::info!(
                    container = request.container_id,
                    interface = request.ifname,
                    "carried out a pending release"
                ),
                Err(error) => tracing::warn!(
                    container = request.container_id,
                    interface = request.ifname,
                    %error,
                    "a pending release failed"
                ),
            }
        }
    }

    /// Releases what attachments hold whose interface has been gone for long.
    pub async fn release_absent(&self) {
        let host = Arc::clone(&self.host);
        let veths = tokio::task::spawn_blocking(move || lock(&host).veths()).await;
        let Ok(Ok(veths)) = veths else { return };
        let expected: Vec<_> = lock(&self.attachments)
            .iter()
            .filter(|(_, entry)| entry.mac.is_some())
            .map(|(of, _)| of.clone())
            .collect();
        let due = lock(&self.absences).due(expected.into_iter(), &veths, self.now());
        for of in due {
            let _one_at_a_time = self.shard(&of).await;
            let (container, interface) = (&of.container_id, &of.ifname);
            match self.release(&of).await {
                Ok(released) => tracing::info!(
                    container,
                    interface,
                    ?released,
                    "released what a pod held whose interface is gone"
                ),
                Err(error) => tracing::warn!(
                    container, interface, %error,
                    "cannot release what a pod held whose interface is gone"
                ),
            }
        }
    }

    /// Stops the data path. Frames are dropped by the kernel from here on.
    pub fn stop_datapath(&self) {
        let datapath = lock(&self.datapath).take();
        if let Some(datapath) = datapath {
            datapath.stop();
        }
    }

    /// Removes the bridge if no pod is on it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn lower_bridge(&self) -> anyhow::Result<bool> {
        lock(&self.host).lower_bridge()
    }

    /// Brings the rules for packets back, if somebody changed them.
    pub async fn assert_rules(&self) {
        let Some(mended) = self.change_rules(RulesKeeper::assert).await else {
            return;
        };
        self.clear(RULES_CONDITION, "");
        if mended {
            tracing::info!("the rules for packets were put in place");
        }
    }

    /// Takes the rules for packets away.
    pub async fn withdraw_rules(&self) {
        self.change_rules(RulesKeeper::withdraw).await;
    }

    /// Changes the rules. That the kernel refuses is a condition, not an error of the caller: pods
    /// can talk without rules, and the operator decides whether they should.
    async fn change_rules<T: Send + 'static>(
        &self,
        change: impl FnOnce(&mut RulesKeeper) -> Result<T, NftError> + Send + 'static,
    ) -> Option<T> {
        let rules = Arc::clone(self.rules.as_ref()?);
        let changed = tokio::task::spawn_blocking(move || change(&mut lock(&rules))).await;
        match changed {
            Ok(Ok(value)) => Some(value),
            Ok(Err(error)) => {
                let cause = std::error::Error::source(&error)
                    .map_or_else(String::new, |cause| format!(": {cause}"));
                let message = format!(
                    "the rules for packets are not in place: {error}{cause}. Until they are, nothing \
                     is masqueraded and no pod is held to its address"
                );
                let key = (RULES_CONDITION.to_owned(), String::new());
                let said = lock(&self.conditions).get(&key).cloned();
                if said.is_none_or(|said| said.message != message) {
                    self.raise(RULES_CONDITION, "", message);
                }
                None
            }
            Err(error) => {
                tracing::error!(%error, "a change of the rules failed");
                None
            }
        }
    }

    /// What the rules have dropped, by counter.
    async fn dropped_by_rules(&self) -> BTreeMap<String, u64> {
        let Some(rules) = self.rules.clone() else {
            return BTreeMap::new();
        };
        let read = tokio::task::spawn_blocking(move || lock(&rules).dropped()).await;
        match read {
            Ok(Ok(dropped)) => dropped,
            _ => BTreeMap::new(),
        }
    }

    fn attached(&self, addresses: Vec<IpNet>, gateways: &[IpNet]) -> Attachment {
        Attachment {
            addresses,
            gateways: gateways.iter().map(IpNet::addr).collect(),
            range: vec![self.settings.range],
            mtu: self.facts.mtu,
            bridge: self.settings.bridge.clone(),
        }
    }

    async fn shard(&self, of: &AttachmentRef) -> tokio::sync::MutexGuard<'_, ()> {
        let mut hasher = DefaultHasher::new();
        (&of.container_id, &of.ifname).hash(&mut hasher);
        let index = usize::try_from(hasher.finish() % SHARDS as u64).unwrap_or(0);
        self.shards[index].lock().await
    }

    /// Releases what an attachment holds. The caller has its shard.
    async fn release(&self, of: &AttachmentRef) -> Result<Vec<IpNet>, ApiError> {
        let released = self.ipam.release(key(of)?).await?;
        lock(&self.attachments).remove([of]);
        let gone = of.clone();
        self.change_rules(move |rules| rules.remove(&gone)).await;
        if let Err(error) = self.forget_pending(of) {
            tracing::warn!(container = of.container_id, %error, "cannot forget a pending release");
        }
        Ok(released)
    }

    /// Forgets the pending release of an attachment; says whether there was one.
    fn forget_pending(&self, of: &AttachmentRef) -> std::io::Result<bool> {
        match pending::find(&self.settings.socket, &of.clone().into())? {
            Some(pending) => pending::forget(&pending).map(|()| true),
            None => Ok(false),
        }
    }

    fn node_status(&self, mesh: &MeshView) -> NodeStatus {
        let underlay = self.underlay().addresses.into_iter();
        NodeStatus {
            name: self.settings.name.clone(),
            id: self.facts.id,
            fingerprint: self.facts.fingerprint.to_string(),
            started_unix: self.started_unix,
            underlay: underlay
                .map(|address| SocketAddr::new(address, self.settings.vxlan_port))
                .collect(),
            control: Some(self.facts.control),
            left: mesh.left,
            discovery: self.settings.discovery,
            connections: mesh.peers.iter().filter(|peer| peer.connected).count() as u64,
            conn_limit: self.settings.conn_limit as u64,
            socket: self.settings.socket.display().to_string(),
            state_dir: self.settings.state_dir.display().to_string(),
        }
    }
}

impl ControlService for Node {
    async fn attach(&self, request: AttachRequest) -> Result<Attachment, ApiError> {
        let end = Instant::now() + ATTACH_DEADLINE;
        let of = AttachmentRef::new(&request.container_id, &request.ifname);
        let key = key(&of)?;
        let _one_at_a_time = self.shard(&of).await;
        // An old release must not take the address that is handed out now.
        if pending::find(&self.settings.socket, &of.clone().into()).is_ok_and(|p| p.is_some()) {
            self.release(&of).await?;
        }
        let foreign = !request.addresses.is_empty();
        let addresses = if foreign {
            check_foreign(&request.addresses)?;
            request.addresses.clone()
        } else {
            self.ensure_gateway(left(end)).await?;
            let address = self
                .ipam
                .allocate(key, request.subnet, request.address, left(end))
                .await?;
            vec![address]
        };
        lock(&self.attachments).insert(&request, &addresses);
        // From here on the bridge keeps its address (`renew_gateway`); before, it may have changed.
        let gateways = match foreign {
            true => self.gateways.borrow().clone(),
            false => self.ensure_gateway(left(end)).await?,
        };
        if let Some(mac) = request.mac {
            // Before the interface is there: it never sends a frame that is not judged.
            let pod = GuardedPod::new(&of, mac, &addresses);
            self.change_rules(move |rules| rules.add(of, pod)).await;
        }
        Ok(self.attached(addresses, &gateways))
    }

    async fn detach(&self, request: DetachRequest) -> Result<Detached, ApiError> {
        let of = AttachmentRef::new(&request.container_id, &request.ifname);
        let _one_at_a_time = self.shard(&of).await;
        Ok(Detached {
            released: self.release(&of).await?,
        })
    }

    async fn attachment(&self, of: AttachmentRef) -> Result<Attachment, ApiError> {
        let address = self.ipam.lookup(key(&of)?).await?;
        let gateways = self.gateways.borrow().clone();
        let addresses = match address {
            Some(address) => Some(vec![address]),
            None => lock(&self.attachments)
                .get(&of)
                .filter(|entry| entry.foreign)
                .map(|entry| entry.addresses.clone()),
        };
        match addresses {
            Some(addresses) => Ok(self.attached(addresses, &gateways)),
            None => Err(ApiError::not_found(
                format!(
                    "interface {} of container {} holds no address",
                    of.ifname, of.container_id
                ),
                "it was never attached on this node, or was detached",
            )),
        }
    }

    async fn gc(&self, request: GcRequest) -> Result<Collected, ApiError> {
        let status = self.ipam.status().await?;
        let held = status
            .allocations
            .into_iter()
            .map(|held| AttachmentRef::new(held.container_id, held.ifname));
        let mut all: BTreeSet<_> = held.collect();
        all.extend(lock(&self.attachments).iter().map(|(of, _)| of.clone()));
        let mut released = Vec::new();
        for of in all {
            let ours = of.container_id.contains(':');
            let judged = request
                .network
                .as_deref()
                .is_none_or(|network| lock(&self.attachments).is_of(&of, network));
            if ours || !judged || request.keep.contains(&of) {
                continue;
            }
            let _one_at_a_time = self.shard(&of).await;
            let addresses = self.release(&of).await?;
            released.push(ReleasedAttachment {
                attachment: of,
                addresses,
            });
        }
        Ok(Collected { released })
    }

    async fn remove(&self, request: RemoveRequest) -> Result<Removed, ApiError> {
        let peers = timeout(REPORT_DEADLINE, self.mesh.peers())
            .await
            .map_err(|_| silent("mesh"))?;
        let reachable = peers
            .iter()
            .any(|peer| peer.name == request.name && peer.hops.is_some());
        let name = request.name.clone();
        if !reachable {
            // Others may not have been told yet; the operator has said that it is over.
            self.ipam.unreachable(name.clone()).await;
        }
        Ok(self.ipam.remove(name).await?)
    }

    async fn connect(&self, request: ConnectRequest) -> Result<Targets, ApiError> {
        self.connect_targets(request).await
    }

    async fn forget(&self, request: ForgetRequest) -> Result<Targets, ApiError> {
        self.forget_targets(request).await
    }

    async fn leave(&self) -> Result<Left, ApiError> {
        self.leave_network().await
    }

    async fn status(&self) -> Result<Status, ApiError> {
        let book = self.targets.lock().await.clone();
        let mut ipam = timeout(REPORT_DEADLINE, self.ipam.status())
            .await
            .map_err(|_| silent("address pool"))??;
        let dropped = self.dropped_by_rules().await;
        for held in &mut ipam.allocations {
            let of = AttachmentRef::new(&held.container_id, &held.ifname);
            held.mac = if of.container_id == BRIDGE_HOLDER {
                Some(self.facts.bridge_mac)
            } else {
                lock(&self.attachments).mac(&of)
            };
        }
        let mesh = timeout(REPORT_DEADLINE, self.mesh.view()).await;
        let Ok(Some(mesh)) = mesh else {
            return Err(silent("mesh"));
        };
        let (links, macs, mut counters, offloads, queues) = match &*lock(&self.datapath) {
            Some(datapath) => (
                datapath.links(),
                datapath.macs(),
                datapath.counters(),
                datapath.capabilities(),
                datapath.queues(),
            ),
            None => return Err(ApiError::not_ready("the router is shutting down", "")),
        };
        let overlay = OverlayStatus {
            bridge: self.settings.bridge.clone(),
            bridge_mac: self.facts.bridge_mac,
            bridge_addresses: self.gateways.borrow().clone(),
            tap: self.settings.tap.clone(),
            queues,
            mtu: self.facts.mtu,
            underlay_mtu: self.underlay().mtu,
            vni: self.settings.vni.get(),
            vxlan_port: self.settings.vxlan_port,
            sleeve_port: self.settings.sleeve_port,
            offloads,
            encrypted: self.sessions.is_some(),
            trusted_subnets: self.settings.trusted_subnets.clone(),
        };
        let sessions = match &self.sessions {
            Some(sessions) => sessions.view().await,
            None => SessionsView::default(),
        };
        if self.sessions.is_some() {
            let counted = sessions.counters.each();
            counters.extend(counted.map(|(name, value)| (name.to_owned(), value)));
        }
        counters.extend(
            mesh.counters
                .named()
                .map(|(name, value)| (name.to_owned(), value)),
        );
        counters.insert("mesh_cut_off".to_owned(), mesh.cut_off);
        counters.insert("mesh_cargo_dropped".to_owned(), mesh.cargo_dropped);
        counters.insert("mesh_gossip_dropped".to_owned(), mesh.gossip_dropped);
        let drops = dropped.into_iter();
        counters.extend(drops.map(|(name, packets)| (format!("drop_{name}"), packets)));
        let mut conditions: Vec<_> = lock(&self.conditions).values().cloned().collect();
        conditions.extend(ipam.conditions.iter().cloned());
        let mut status = assemble(Parts {
            node: self.node_status(&mesh),
            overlay,
            peers: &mesh.peers,
            targets: &mesh.targets,
            book: &book,
            judged: &mesh.links,
            switch: &lock(&self.switch),
            links: &links,
            macs: &macs,
            ipam,
            counters,
            conditions,
            now: self.now(),
        });
        let sessions = sessions.sessions.into_iter();
        status.sessions = sessions
            .map(|(peer, session)| SessionStatus {
                peer,
                cipher: session.cipher.label().to_owned(),
                age_secs: session.age.as_secs(),
            })
            .collect();
        Ok(status)
    }
}

fn silent(part: &str) -> ApiError {
    ApiError::internal(
        format!("the {part} does not answer within {REPORT_DEADLINE:?}"),
        "see the router's log; a restart loses no pod",
    )
}

/// Who holds the bridge's own address.
///
/// # Errors
/// Never for a valid interface name.
pub fn bridge_key(bridge: &str) -> Result<AllocationKey, ApiError> {
    AllocationKey::new(BRIDGE_HOLDER, bridge)
        .map_err(|error| ApiError::bad_request(error.to_string(), ""))
}

fn key(of: &AttachmentRef) -> Result<AllocationKey, ApiError> {
    AllocationKey::new(&of.container_id, &of.ifname)
        .map_err(|error| ApiError::bad_request(error.to_string(), ""))
}

/// Addresses of another giver that an interface can have.
fn check_foreign(addresses: &[IpNet]) -> Result<(), ApiError> {
    let most = AttachRequest::MAX_FOREIGN_ADDRESSES;
    if addresses.len() > most {
        return Err(ApiError::bad_request(
            format!(
                "{} addresses are too many for an interface",
                addresses.len()
            ),
            format!("give at most {most}"),
        ));
    }
    let bad = |address: &&IpNet| address.addr().is_multicast() || address.addr().is_unspecified();
    match addresses.iter().find(bad) {
        Some(address) => Err(ApiError::bad_request(
            format!("{address} is not an address that an interface can have"),
            "see the IPAM plugin that gave it",
        )),
        None => Ok(()),
    }
}

fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now())
}

/// Addresses of this node at a port, for the switch to know itself by.
pub fn at_port(addresses: Vec<IpAddr>, port: u16) -> impl Iterator<Item = SocketAddr> {
    addresses
        .into_iter()
        .map(move |address| SocketAddr::new(address, port))
}

fn unix_now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}

/// What these locks guard is whole after each statement, so what a panicking thread left is good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
