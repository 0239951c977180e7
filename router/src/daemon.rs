//! `weft run` from start to end: what is opened in which order, which tasks run, and how it stops.
//!
//! Everything is checked before anything is touched; what a failed start has made is taken away
//! again. What must outlive the router (pods on the bridge, addresses, identity) is left as it is
//! and adopted by the next run (I7).

mod fabric;
mod groups;
mod plugin;
mod signals;
mod tasks;
mod traffic;

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use mesh::link::LinkConfig;
use mesh::{Fingerprint, Psk, Secrets, SessionConfig, SessionTiming};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::attachments::Attachments;
use crate::host::{Host, Underlay};
use crate::http::bounded::Bounded;
use crate::http::creds::PeerUid;
use crate::http::{api, metrics, socket};
use crate::identity::{self, Identity};
use crate::io::datapath::{Datapath, DatapathConfig, PROBE_QUEUE, SAID_QUEUE, SEAL_QUEUE};
use crate::io::ipam_service::{self, IpamHandle, IpamInit, IpamOptions};
use crate::io::kube::{Cluster, Division, first_division};
use crate::io::mesh_driver::{self, ControlKeys, MeshEvent, MeshHandle};
use crate::io::rules_keeper::RulesKeeper;
use crate::io::sessions::{self, SessionsHandle};
use crate::lock::Lock;
use crate::node::{Facts, Node, NodeParts, RULES_CONDITION, at_port, bridge_key};
use crate::password::{self, PasswordError};
use crate::preflight::{self, listen_address};
use crate::remembered::Remembered;
use crate::rules::{GuardedPod, RuleSettings};
use crate::settings::{Endpoint, Settings};
use crate::switch::Switch;
use crate::targets::TargetBook;
use signals::Signals;
pub use signals::Stop;

/// Threads of the control plane. The data path has its own.
const CONTROL_THREADS: usize = 2;
/// Mesh events that wait for the node; the mesh waits when they are more.
const EVENTS: usize = 1024;
/// Bytes that sealed sleeve takes from the underlay's MTU beyond what VXLAN does, over IPv4 as over
/// IPv6: 12 of header, 8 of counter, 16 of tag.
const SEALED_OVERHEAD: u16 = 36;
/// How long names of peers are looked up for, to see which way they are.
const LOOKUP: Duration = Duration::from_secs(2);
/// How long the kernel may take to remove the TAP of a process that was killed.
const TAP_GONE: Duration = Duration::from_secs(1);
/// Peers with which there can be sessions: as many as there can be links.
const MAX_SESSIONS: usize = 8192;
/// How long each step of the shutdown may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// Most data path workers that are started unasked: beyond it, a node's underlay is the limit.
const MAX_AUTO_QUEUES: usize = 8;

/// Runs the router until it is told to stop. `password` is what the environment held, if anything.
///
/// # Errors
/// It cannot start, or one of its parts failed for good.
pub fn run(
    settings: Settings,
    password: Option<Zeroizing<String>>,
    stop: Stop,
) -> anyhow::Result<()> {
    preflight::check(&settings)?;
    let passwords = passwords(&settings, password)?;
    if let (false, Some(vtep)) = (passwords.is_empty(), settings.vteps.first()) {
        anyhow::bail!(
            "--vtep {vtep} speaks VXLAN, which is in the clear, and there is a password: leave one out"
        );
    }
    if let (true, Some(subnet)) = (passwords.is_empty(), settings.trusted_subnets.first()) {
        anyhow::bail!(
            "--trusted-subnets {subnet} excepts a network from encryption, and there is no password, so \
             that all is in the clear: set --password-file, or leave it out"
        );
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("start the control plane's threads")?;
    let result = runtime.block_on(serve(settings, passwords, stop));
    // A look-up of a name may still be in the resolver, which cannot be interrupted.
    runtime.shutdown_background();
    result
}

/// What is held for as long as the router runs.
struct Held {
    /// In the order in which they were taken.
    _locks: [Lock; 2],
    control: UnixListener,
    metrics: Option<TcpListener>,
    identity: Identity,
}

async fn serve(settings: Settings, passwords: Vec<Psk>, stop: Stop) -> anyhow::Result<()> {
    let started = Instant::now();
    let mut signals = Signals::install(&stop)?;
    let socket_path = settings.socket.clone();
    let held = hold(&settings).await?;
    let id = held.identity.id;
    let (events, inbox) = mpsc::channel(EVENTS);
    let (saying, said) = mpsc::channel(SAID_QUEUE);
    let mut host = Host::open(&settings, id)?;
    let secrets = secrets(&held.identity, passwords);
    let began = tokio::select! {
        began = begin(&settings, &held.identity, secrets, &mut host, events, &saying) => began.map(Some),
        reason = signals.next() => {
            tracing::info!(reason, "told to stop while starting");
            Ok(None)
        }
    };
    let begun = match began {
        Ok(Some(begun)) => begun,
        stopped => {
            if let Err(error) = host.undo() {
                tracing::warn!(error = format!("{error:#}"), "cannot remove the bridge");
            }
            remove_socket(&socket_path);
            return stopped.map(drop);
        }
    };
    let cluster = begun.cluster.clone();
    let node = Arc::new(assemble(&settings, begun, host, started));
    // Before anything is answered: an address that a DEL gave back may be asked for next.
    node.release_pending().await;
    node.assert_rules().await;

    let (closing, closed) = watch::channel(false);
    let mut tasks = JoinSet::new();
    tasks::spawn(&mut tasks, &node, inbox, said);
    if let Some(dirs) = settings.cni_dirs.clone() {
        tasks.spawn(plugin::keep_plugin(Arc::clone(&node), dirs));
    }
    if let Some(cluster) = cluster {
        tasks.spawn(fabric::follow_cluster(Arc::clone(&node), cluster));
    }
    serve_control(&mut tasks, &node, held.control, closed.clone());
    if let Some(listener) = held.metrics {
        serve_metrics(&mut tasks, &node, listener, closed);
    }
    tracing::info!(
        name = %settings.name, %id, bridge = settings.bridge, version = env!("CARGO_PKG_VERSION"),
        "the router runs"
    );

    let failed = tokio::select! {
        reason = signals.next() => {
            tracing::info!(reason, "stopping");
            None
        }
        Some(ended) = tasks.join_next() => Some(match ended {
            Ok(name) => anyhow::anyhow!("{name} has ended, which it never should"),
            Err(error) => anyhow::anyhow!("a task has failed: {error}"),
        }),
    };
    let _ = closing.send(true);
    farewell(&node, tasks).await;
    remove_socket(&socket_path);
    failed.map_or(Ok(()), Err)
}

/// Takes what only one router can have, and opens what can be refused.
async fn hold(settings: &Settings) -> anyhow::Result<Held> {
    let state_lock = Lock::take(
        &settings.state_dir.join("lock"),
        "the state directory",
        &settings.state_dir,
        "--state-dir",
    )?;
    if let Some(dir) = settings.socket.parent() {
        socket::make_dir(dir)
            .with_context(|| format!("make the control socket's directory {}", dir.display()))?;
    }
    let mut lock_file = settings.socket.clone().into_os_string();
    lock_file.push(".lock");
    let socket_lock = Lock::take(
        Path::new(&lock_file),
        "the control socket",
        &settings.socket,
        "--socket",
    )?;
    let identity = Identity::load_or_create(&settings.state_dir)?;
    let metrics = match settings.metrics_address {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address} for metrics: choose another with --metrics-address")
        })?),
        None => None,
    };
    let control = socket::bind(&settings.socket)?;
    Ok(Held {
        _locks: [state_lock, socket_lock],
        control,
        metrics,
        identity,
    })
}

/// What a start brings forth.
struct Begun {
    facts: Facts,
    own: Vec<IpAddr>,
    datapath: Datapath,
    mesh: MeshHandle,
    ipam: IpamHandle,
    cluster: Option<Cluster>,
    sessions: Option<SessionsHandle>,
    targets: TargetBook,
    remembered: Remembered,
}

/// Starts the parts, each after those it needs.
async fn begin(
    settings: &Settings,
    identity: &Identity,
    secrets: Option<Secrets>,
    host: &mut Host,
    events: mpsc::Sender<MeshEvent>,
    saying: &mpsc::Sender<Vec<u8>>,
) -> anyhow::Result<Begun> {
    let cluster = match settings.kubernetes {
        true => Some(Cluster::infer().await?),
        false => None,
    };
    let division = match &cluster {
        Some(cluster) if settings.cluster_divides => {
            let (me, range) = (&settings.name, settings.range);
            Some(first_division(cluster, me, range, &settings.state_dir).await?)
        }
        _ => None,
    };
    let ipam = start_ipam(settings, division)?;
    let gateway = match bridge_key(&settings.bridge) {
        Ok(key) => ipam.lookup(key).await.ok().flatten(),
        Err(_) => None,
    };

    wait_for_tap(settings, host).await?;
    let peers = look_up(settings.peers.iter().chain(&settings.vteps)).await;
    let mut underlay = host.underlay(&peers)?;
    if secrets.is_some() {
        underlay.overhead += SEALED_OVERHEAD;
    }
    let mtu = settings.mtu.unwrap_or_else(|| underlay.overlay_mtu());
    tracing::info!(
        underlay_mtu = underlay.mtu,
        mtu,
        found = underlay.reason,
        "the underlay was found"
    );
    host.raise_bridge(mtu, gateway.into_iter().collect())?;
    if settings.masquerade {
        host.forward(settings.range);
    }

    let listen = listen_address(settings);
    let (probes, arriving) = mpsc::channel(PROBE_QUEUE);
    let config = DatapathConfig {
        tap: settings.tap.clone(),
        queues: queues(settings),
        listen: SocketAddr::new(listen, settings.vxlan_port),
        sleeve: SocketAddr::new(listen, settings.sleeve_port),
        me: identity.id,
        vni: settings.vni,
        mac_age: settings.mac_age,
        sealed: secrets.is_some(),
        offloads: settings.offloads,
        spin: settings.spin,
        worker_nice: settings.worker_nice,
        pin_workers: settings.pin_workers,
    };
    let (seals, seal_events) = mpsc::channel(SEAL_QUEUE);
    let datapath = Datapath::start(&config, &probes, &seals, saying)?;
    let control = SocketAddr::new(listen, settings.control_port);
    let allowed = &settings.allow_identity;
    let keys = secrets.map(|secrets| ControlKeys {
        secrets,
        allowed: (!allowed.is_empty()).then(|| allowed.clone()),
    });
    let sessions = match (&keys, datapath.seals()) {
        (Some(keys), Some(handle)) => {
            let config = session_config(settings, identity, keys)?;
            Some(sessions::start(config, handle, seal_events))
        }
        _ => None,
    };
    let targets = TargetBook::load(&settings.state_dir, named(settings)?);
    let remembered = Remembered::load(&settings.state_dir);
    let joined = async {
        host.join_tap()?;
        let mut config = mesh_config(settings, identity, &underlay, mtu, keys.is_some())?;
        find_others(&mut config, &targets, &remembered);
        let probed = mesh_driver::Underlay {
            prober: datapath.prober(),
            arriving,
        };
        let mesh = mesh_driver::start(config, control, keys, events, Some(probed))?;
        anyhow::Ok((mesh, host.bridge_mac()?, host.own_addresses()?))
    };
    let (mesh, bridge_mac, own) = match joined.await {
        Ok(joined) => joined,
        Err(error) => {
            datapath.stop();
            return Err(error);
        }
    };
    ipam.carry(mesh.clone());
    let facts = Facts {
        id: identity.id,
        fingerprint: Fingerprint::of(&identity.public),
        bridge_mac,
        underlay,
        mtu,
        control,
        towards: peers.into(),
    };
    Ok(Begun {
        facts,
        own,
        datapath,
        mesh,
        ipam,
        cluster,
        sessions,
        targets,
        remembered,
    })
}

/// Puts the node together.
fn assemble(settings: &Settings, begun: Begun, host: Host, started: Instant) -> Node {
    let Begun {
        facts,
        own,
        datapath,
        mesh,
        ipam,
        cluster: _,
        sessions,
        targets,
        remembered,
    } = begun;
    let own = [settings.vxlan_port, settings.sleeve_port]
        .into_iter()
        .flat_map(|port| at_port(own.clone(), port));
    let vteps = settings.vteps.clone();
    let switch = Switch::new(
        facts.underlay.mtu,
        settings.vxlan_port,
        own,
        vteps,
        started.elapsed(),
    );
    let attachments = Attachments::load(&settings.state_dir);
    let rules = open_rules(settings, &attachments);
    let no_rules = rules.as_ref().err().map(ToString::to_string);
    let switch = if sessions.is_some() {
        switch.sealed(settings.sleeve_port)
    } else {
        switch
    };
    let node = Node::new(NodeParts {
        settings: settings.clone(),
        facts,
        started,
        host,
        datapath,
        mesh,
        ipam,
        sessions,
        switch,
        targets,
        remembered,
        attachments,
        rules: rules.ok(),
    });
    if let Some(message) = no_rules {
        node.raise(RULES_CONDITION, "", message);
    }
    node.judge_mtu();
    node
}

/// The rules for packets, for the pods that are there already.
fn open_rules(
    settings: &Settings,
    attachments: &Attachments,
) -> Result<RulesKeeper, hostnet::nft::NftError> {
    let rules = RuleSettings {
        bridge: settings.bridge.clone(),
        range: settings.range,
        ports: vec![settings.vxlan_port, settings.sleeve_port],
        masquerade: settings.masquerade,
        spoof_guard: settings.spoof_guard,
    };
    let guarded = attachments.iter().filter_map(|(of, entry)| {
        let pod = GuardedPod::new(of, entry.mac?, &entry.addresses);
        Some((of.clone(), pod))
    });
    RulesKeeper::open(rules, guarded.collect())
}

/// Waits until the TAP of a router that was killed a moment ago is gone.
///
/// # Errors
/// It stays, so its router lives.
async fn wait_for_tap(settings: &Settings, host: &mut Host) -> anyhow::Result<()> {
    let end = Instant::now() + TAP_GONE;
    while let Some(tap) = host.tap_in_use()? {
        if Instant::now() > end {
            anyhow::bail!(
                "the TAP {tap} is in use: another router runs with the bridge {} here; stop it, or \
                 choose others with --bridge and --tap",
                settings.bridge
            );
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Stops everything in the order in which others are least surprised: peers are told first, so
/// that they stop sending; then the data path; then the bridge, unless pods are on it.
async fn farewell(node: &Arc<Node>, mut tasks: JoinSet<&'static str>) {
    if timeout(FAREWELL, node.mesh().leave()).await.is_err() {
        tracing::warn!("could not tell the peers in time");
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    if let Err(error) = node.ipam().close().await {
        tracing::warn!(%error, "the address pool does not end");
    }
    let stopping = Arc::clone(node);
    let stopped = tokio::task::spawn_blocking(move || {
        stopping.stop_datapath();
        stopping.lower_bridge()
    });
    match timeout(FAREWELL, stopped).await {
        Ok(Ok(Ok(true))) => {
            tracing::info!("the bridge is removed");
            node.withdraw_rules().await;
        }
        Ok(Ok(Ok(false))) => {}
        Ok(Ok(Err(error))) => {
            tracing::warn!(error = format!("{error:#}"), "cannot remove the bridge");
        }
        Ok(Err(error)) => tracing::error!(%error, "the shutdown failed"),
        Err(_) => tracing::error!("the data path does not stop"),
    }
}

fn remove_socket(path: &Path) {
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove the control socket");
    }
}

fn serve_control(
    tasks: &mut JoinSet<&'static str>,
    node: &Arc<Node>,
    listener: UnixListener,
    closed: watch::Receiver<bool>,
) {
    let own_uid = nix::unistd::geteuid().as_raw();
    let app =
        api::router(Arc::clone(node), own_uid).into_make_service_with_connect_info::<PeerUid>();
    let listener = Bounded::new(listener, api::MAX_CONNECTIONS, api::CONNECTION_LIFETIME);
    tasks.spawn(async move {
        let served = axum::serve(listener, app)
            .with_graceful_shutdown(is_true(closed))
            .await;
        log_end("the control interface", served)
    });
}

fn serve_metrics(
    tasks: &mut JoinSet<&'static str>,
    node: &Arc<Node>,
    listener: TcpListener,
    closed: watch::Receiver<bool>,
) {
    let app = metrics::router(Arc::clone(node));
    let listener = Bounded::new(
        listener,
        metrics::MAX_CONNECTIONS,
        metrics::CONNECTION_LIFETIME,
    );
    tasks.spawn(async move {
        let served = axum::serve(listener, app)
            .with_graceful_shutdown(is_true(closed))
            .await;
        log_end("the metrics server", served)
    });
}

fn log_end(name: &'static str, served: std::io::Result<()>) -> &'static str {
    if let Err(error) = served {
        tracing::error!(%error, server = name, "a server failed");
    }
    name
}

async fn is_true(mut flag: watch::Receiver<bool>) {
    // The sender lives as long as the router; if it is gone, so is the router.
    let _ = flag.wait_for(|value| *value).await;
}

fn start_ipam(settings: &Settings, division: Option<Division>) -> anyhow::Result<IpamHandle> {
    let others = division.as_ref().is_some_and(|division| division.others);
    let init = if let Some(division) = division {
        IpamInit::Seed(division.seeds)
    } else if let Some(count) = settings.consensus {
        IpamInit::Consensus(count)
    } else if settings.seeds.is_empty() {
        IpamInit::Undecided
    } else {
        IpamInit::Seed(settings.seeds.clone())
    };
    ipam_service::start(IpamOptions {
        me: settings.name.clone(),
        range: settings.range,
        init,
        state_dir: settings.state_dir.clone(),
        hold_down: settings.ipam_hold_down,
        expects_peers: others || !settings.peers.is_empty(),
        default_subnet: settings.default_subnet,
    })
}

fn mesh_config(
    settings: &Settings,
    identity: &Identity,
    underlay: &Underlay,
    mtu: u16,
    sealed: bool,
) -> anyhow::Result<mesh::Config> {
    let me = mesh::Hello {
        id: identity.id,
        name: settings.name.clone(),
        public_key: identity.public,
        run: random()?,
        control_port: settings.control_port,
        vxlan_port: settings.vxlan_port,
        vni: settings.vni,
        mtu,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        sleeve_port: settings.sleeve_port,
        seen: None,
    };
    let links = LinkConfig {
        sleeve_port: settings.sleeve_port,
        addresses: underlay.addresses.clone(),
        underlay_mtu: underlay.mtu,
        mtu,
        sealed,
        trusted: settings.trusted_subnets.clone(),
        ..LinkConfig::new(me.id, me.run, random()?)
    };
    let mut config = mesh::Config::new(me, random()?);
    config.links = Some(links);
    // A clock before 1970 counts as 1970; then the other nodes tell.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH);
    config.born = u64::try_from(clock.unwrap_or_default().as_millis()).unwrap_or(u64::MAX);
    config.discovery = settings.discovery;
    config.limits.connections = settings.conn_limit;
    Ok(config)
}

/// What sessions with peers are made by.
fn session_config(
    settings: &Settings,
    identity: &Identity,
    keys: &ControlKeys,
) -> anyhow::Result<SessionConfig> {
    let mut seed = [0; 32];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| anyhow::anyhow!("the kernel gave no random bytes"))?;
    Ok(SessionConfig {
        id: identity.id,
        secrets: keys.secrets.clone(),
        start: identity::next_start(&settings.state_dir)?,
        ciphers: sessions::fast_ciphers(),
        aggregates: true,
        allowed: keys.allowed.clone(),
        seed,
        timing: SessionTiming::renewed_after(settings.rekey_interval),
        peers: MAX_SESSIONS,
    })
}

/// The keys of the passwords that were given, stretched; empty: the network is plain.
fn passwords(
    settings: &Settings,
    given: Option<Zeroizing<String>>,
) -> Result<Vec<Psk>, PasswordError> {
    match (&settings.password_file, given) {
        (Some(_), Some(_)) => Err(PasswordError::Twice),
        (Some(file), None) => password::read(file),
        (None, Some(text)) => password::stretch_all(&text, password::VARIABLE),
        (None, None) => Ok(Vec::new()),
    }
}

/// What secures this node's conversations, if it has a password.
fn secrets(identity: &Identity, passwords: Vec<Psk>) -> Option<Secrets> {
    (!passwords.is_empty()).then(|| Secrets {
        private: identity.private,
        public: identity.public,
        passwords,
    })
}

/// The nodes that the settings name.
fn named(settings: &Settings) -> anyhow::Result<Vec<mesh::Target>> {
    let peers = settings.peers.iter();
    let targets = peers.map(|peer| Ok(peer.to_string().parse()?));
    targets.collect()
}

/// Where the mesh looks for other nodes, if it does.
fn find_others(config: &mut mesh::Config, targets: &TargetBook, remembered: &Remembered) {
    config.away = targets.has_left();
    config.targets = targets.targets().into_iter().collect();
    if config.discovery {
        config.remembered = remembered.addresses().to_vec();
    }
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the kernel gave no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}

fn queues(settings: &Settings) -> usize {
    settings.queues.unwrap_or_else(|| {
        std::thread::available_parallelism().map_or(1, |cpus| cpus.get().min(MAX_AUTO_QUEUES))
    })
}

/// The addresses of these endpoints, as far as they can be had in a short time.
async fn look_up(endpoints: impl Iterator<Item = &Endpoint>) -> Vec<IpAddr> {
    let mut names = JoinSet::new();
    let mut addresses = Vec::new();
    for endpoint in endpoints {
        match endpoint.address() {
            Some(address) => addresses.push(address.ip()),
            None => {
                let (host, port) = (endpoint.host.clone(), endpoint.port);
                names.spawn(async move {
                    let found = timeout(LOOKUP, tokio::net::lookup_host((host, port))).await;
                    found.ok()?.ok()?.next().map(|address| address.ip())
                });
            }
        }
    }
    while let Some(found) = names.join_next().await {
        addresses.extend(found.ok().flatten());
    }
    addresses
}
