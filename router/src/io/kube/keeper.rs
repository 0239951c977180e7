//! Keeps this node in line with the cluster: watches the nodes, and does what follows from them.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::time::{MissedTickBehavior, interval};
use wire::PeerName;

use super::api::{ApiFailure, Cluster, facts, with_causes};
use crate::cluster::{Departures, Nodes, Task, heir_key, node_key, peers, task};

/// What the cluster decides about. The router, but for tests.
pub trait Fabric: Send + Sync {
    /// Connect to a node.
    fn connect(&self, address: IpAddr) -> impl Future<Output = ()> + Send;

    /// Do not try to connect to it any more.
    fn forget(&self, address: IpAddr) -> impl Future<Output = ()> + Send;

    /// The members of the address plan that are not wholly gone, without this node.
    fn members(&self) -> impl Future<Output = Vec<PeerName>> + Send;

    /// A member is gone for good. Says whether nothing of it is left to be taken over.
    fn remove(&self, name: PeerName) -> impl Future<Output = Result<bool, String>> + Send;

    /// Whether pods can be attached.
    fn is_ready(&self) -> impl Future<Output = bool> + Send;

    /// How it goes with the API server.
    fn report(&self, report: Report);
}

/// How it goes with the API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// All is well.
    Well,
    /// Something failed, and will be tried again.
    Trouble(String),
}

/// What the keeper goes by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeeperOptions {
    /// This node's name.
    pub me: PeerName,
    /// Where other nodes' addresses are to lie.
    pub within: Option<IpNet>,
    /// How long one watch may last, in seconds. A connection that is silently dead is noticed 5 s
    /// after that.
    pub watch_secs: u32,
    /// Between looks at what is to be done.
    pub turn: Duration,
    /// How long a node must be gone before others have its addresses.
    pub grace: Duration,
    /// How long after an error the watch is held to be in trouble. One that works may have nothing
    /// to tell; one that does not fails again within this, the longest pause between attempts.
    pub quiet: Duration,
}

/// Never returns.
pub async fn keep<F: Fabric>(cluster: Cluster, options: KeeperOptions, fabric: &F) {
    let (store, writer) = reflector::store();
    let config = watcher::Config::default().timeout(options.watch_secs);
    let stream = watcher(cluster.nodes(), config)
        .default_backoff()
        .modify(|node: &mut Node| {
            // The largest parts, and nobody here reads them.
            node.metadata.managed_fields = None;
            node.metadata.annotations = None;
            if let Some(status) = &mut node.status {
                status.images = None;
                status.volumes_in_use = None;
                status.volumes_attached = None;
            }
        })
        .reflect(writer);
    let mut stream = pin!(stream);
    let departures = Departures::new(options.grace);
    let mut keeper = Keeper {
        cluster,
        options,
        fabric,
        store,
        started: Instant::now(),
        listed: false,
        failed: None,
        connected: BTreeMap::new(),
        registered: None,
        told_available: false,
        departures,
        inherited: BTreeSet::new(),
    };
    let mut turns = interval(keeper.options.turn);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = stream.next() => keeper.take(event),
            _ = turns.tick() => keeper.turn().await,
        }
    }
}

struct Keeper<'a, F> {
    cluster: Cluster,
    options: KeeperOptions,
    fabric: &'a F,
    store: Store<Node>,
    started: Instant,
    /// Whether there has been a whole list of the nodes.
    listed: bool,
    /// The watch's last error, unless something came after it.
    failed: Option<(Instant, String)>,
    /// The peers that the mesh was told of.
    connected: BTreeMap<String, IpAddr>,
    /// The UID of this node that is in the record.
    registered: Option<String>,
    told_available: bool,
    departures: Departures,
    /// Nodes of which this one is the heir and whose entries in the record are to go.
    inherited: BTreeSet<(PeerName, String)>,
}

impl<F: Fabric> Keeper<'_, F> {
    fn take(&mut self, event: Option<watcher::Result<watcher::Event<Node>>>) {
        match event {
            Some(Ok(event)) => {
                self.listed |= matches!(event, watcher::Event::InitDone);
                self.failed = None;
            }
            Some(Err(error)) => self.failed = Some((Instant::now(), with_causes(&error))),
            // A watch has no end; if it had one, the turns would go on with what is known.
            None => self.failed = Some((Instant::now(), "the watch has ended".to_owned())),
        }
    }

    async fn turn(&mut self) {
        let quiet = self.options.quiet;
        let recent = self.failed.as_ref().filter(|(at, _)| at.elapsed() < quiet);
        let mut trouble = recent.map(|(_, why)| format!("the nodes cannot be watched: {why}"));
        if self.listed {
            let nodes: Nodes = self.store.state().iter().filter_map(|n| facts(n)).collect();
            self.follow(&nodes).await;
            for result in [
                self.register(&nodes).await,
                self.tell_available(&nodes).await,
                self.inherit(&nodes).await,
            ] {
                if let Err(error) = result {
                    trouble.get_or_insert_with(|| error.to_string());
                }
            }
        }
        self.fabric
            .report(trouble.map_or(Report::Well, Report::Trouble));
    }

    /// Tells the mesh whom to connect to. A list that lacks this node itself is not believed.
    async fn follow(&mut self, nodes: &Nodes) {
        if !nodes.contains_key(self.options.me.as_str()) {
            return;
        }
        let wanted = peers(self.options.me.as_str(), nodes, self.options.within);
        for (name, address) in &self.connected {
            if wanted.get(name) != Some(address) {
                tracing::info!(node = name, %address, "forgetting a node");
                self.fabric.forget(*address).await;
            }
        }
        for (name, address) in &wanted {
            if self.connected.get(name) != Some(address) {
                tracing::info!(node = name, %address, "connecting to a node");
                self.fabric.connect(*address).await;
            }
        }
        self.connected = wanted;
    }

    /// Writes down which Node this router runs on, so that its end can be told from that of another
    /// with its name.
    async fn register(&mut self, nodes: &Nodes) -> Result<(), ApiFailure> {
        let me = self.options.me.as_str();
        let Some(own) = nodes.get(me).filter(|own| !own.uid.is_empty()) else {
            return Ok(());
        };
        if self.registered.as_ref() == Some(&own.uid) {
            return Ok(());
        }
        let change = (node_key(me), Some(own.uid.as_str()));
        match self.cluster.change_record(None, &[change]).await {
            Ok(()) => self.registered = Some(own.uid.clone()),
            // The range was divided in another way; then nobody inherits by it either.
            Err(ApiFailure::NotFound { .. }) => self.registered = Some(own.uid.clone()),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn tell_available(&mut self, nodes: &Nodes) -> Result<(), ApiFailure> {
        let me = self.options.me.as_str();
        let Some(own) = nodes.get(me) else {
            return Ok(());
        };
        let said = own.network_unavailable == Some(false);
        if said || (self.told_available && own.network_unavailable.is_none()) {
            return Ok(());
        }
        if !self.fabric.is_ready().await {
            return Ok(());
        }
        self.cluster.network_is_available(me).await?;
        self.told_available = true;
        Ok(())
    }

    /// Takes over what deleted nodes had, each by exactly one node.
    async fn inherit(&mut self, nodes: &Nodes) -> Result<(), ApiFailure> {
        let now = self.started.elapsed();
        let members = self.fabric.members().await;
        let me = self.options.me.clone();
        let me = me.as_str();
        let due = self.departures.due(me, nodes, &members, now);
        self.sign_off(&members).await?;
        if due.is_empty() {
            return Ok(());
        }
        // As it is now, not as it was when the watch last spoke.
        let Some(record) = self.cluster.record().await? else {
            return Ok(());
        };
        for name in due {
            match task(&record.data, name.as_str(), me, nodes) {
                Task::NotOurs | Task::Theirs(_) => {}
                Task::Claim { uid } => {
                    let change = (heir_key(&uid), Some(me));
                    let version = record.version.as_deref();
                    match self.cluster.change_record(version, &[change]).await {
                        Ok(()) => tracing::info!(node = %name, uid, "this node is the heir"),
                        // Another one was faster, at this or at something else.
                        Err(ApiFailure::Conflict) => {}
                        Err(error) => return Err(error),
                    }
                    // The version has changed: the rest is for the next turn.
                    return Ok(());
                }
                Task::Ours { uid } => self.take_over(name, uid).await?,
            }
        }
        Ok(())
    }

    async fn take_over(&mut self, name: PeerName, uid: String) -> Result<(), ApiFailure> {
        // The fence: a node that has returned meanwhile keeps what it has.
        if self.cluster.node_exists(name.as_str()).await? {
            return Ok(());
        }
        match self.fabric.remove(name.clone()).await {
            Ok(_) => {
                self.inherited.insert((name, uid));
            }
            Err(reason) => {
                tracing::warn!(node = %name, reason, "a deleted node's addresses stay with it");
            }
        }
        Ok(())
    }

    /// Takes nodes out of the record that have nothing left.
    async fn sign_off(&mut self, members: &[PeerName]) -> Result<(), ApiFailure> {
        let over = self
            .inherited
            .iter()
            .find(|(name, _)| !members.contains(name));
        let Some((name, uid)) = over.cloned() else {
            return Ok(());
        };
        if let Some(record) = self.cluster.record().await? {
            let mut changes = vec![(heir_key(&uid), None)];
            if record.data.get(&node_key(name.as_str())) == Some(&uid) {
                changes.push((node_key(name.as_str()), None));
            }
            let version = record.version.as_deref();
            match self.cluster.change_record(version, &changes).await {
                Ok(()) => tracing::info!(node = %name, "a deleted node's addresses are taken over"),
                Err(ApiFailure::Conflict) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.inherited.remove(&(name, uid));
        Ok(())
    }
}
