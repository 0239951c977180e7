//! Carries the mesh's control connections over TCP.
//!
//! One task owns the [`Mesh`] and nothing else does; a reader and a writer task per connection move
//! bytes. Nothing here waits for a peer: what a peer is slow to read piles up in a queue of bounded
//! size, and a peer that lets it fill, or that a write cannot reach within its deadline, loses its
//! connection while everybody else goes on. Nor does the mesh wait for the router: what the router
//! is slow to take piles up in a `Backlog`.

mod backlog;
mod connection;
mod listener;
mod secure;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::link::{Activity, Arrived, LinkInput, LinkView, ProbeToSend, SendError};
use mesh::{
    ConditionChange, ConnId, Counters, DialError, Encapsulation, Groups, Input, LinkChange,
    MAX_GOSSIP, Mesh, Output, PeerView, Psk, Secured, Side, Target, TargetView,
};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};
use wire::{PeerId, PeerName};

use crate::io::datapath::{ProbeArrival, ProbeSendError, Prober};
use crate::switch;
use backlog::Backlog;
use connection::Outgoing;
pub use secure::ControlKeys;
use secure::{SecureError, secure};

/// What the mesh tells the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MeshEvent {
    /// A data link changed. Only the last change of each peer is sure to be told.
    Link(LinkChange),
    /// The multicast groups that a peer wants changed. Only the last word on each peer is sure to be told.
    Groups {
        /// Identity.
        id: PeerId,
        /// What it wants.
        groups: Groups,
    },
    /// Messages get to a peer from now on, or do not any more. Only the last word on each name is sure
    /// to be told.
    Reachable {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
        /// Whether they do.
        reachable: bool,
    },
    /// A control connection with a peer is in use, the first or a new one.
    Connected {
        /// Identity.
        id: PeerId,
        /// Name.
        name: PeerName,
    },
    /// Gossip for another part of the program. Dropped when the router is far behind: those who
    /// gossip repair what is lost.
    Gossip {
        /// Identity of the sender.
        from: PeerId,
        /// Its name.
        name: PeerName,
        /// Which part it is for.
        channel: u8,
        /// The bytes.
        payload: Vec<u8>,
    },
    /// A condition for the operator began or ended.
    Condition(ConditionChange),
    /// The key of a peer that frames are sealed for, or none: the peer is no more. Only the last word
    /// on each peer is sure to be told.
    Key {
        /// Identity, which is not checked to follow from the key.
        id: PeerId,
        /// The static public key.
        public: Option<[u8; 32]>,
    },
}

/// What the mesh knows, at one moment.
#[derive(Debug, Clone)]
pub struct MeshView {
    /// All peers, by identity.
    pub peers: Vec<PeerView>,
    /// All targets.
    pub targets: Vec<TargetView>,
    /// The links that probes judge.
    pub links: Vec<LinkView>,
    /// Whether this node has left the network.
    pub left: bool,
    /// Counts since the start.
    pub counters: Counters,
    /// Connections of peers that did not read what was sent to them.
    pub cut_off: u64,
    /// Messages carried for others that were dropped because much waited for a peer already.
    pub cargo_dropped: u64,
    /// Gossip that the router did not take in time.
    pub gossip_dropped: u64,
}

/// A payload that no message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "gossip of {len} bytes on channel {channel} is over the limit of {MAX_GOSSIP}: send it in parts"
)]
pub struct GossipTooLarge {
    /// Its channel.
    pub channel: u8,
    /// Its length in bytes.
    pub len: usize,
}

/// Speaks to the running mesh.
#[derive(Debug, Clone)]
pub struct MeshHandle {
    asks: mpsc::Sender<Ask>,
    address: SocketAddr,
}

/// What the mesh's task is asked.
#[derive(Debug)]
enum Ask {
    View(oneshot::Sender<MeshView>),
    Addresses(oneshot::Sender<Vec<SocketAddr>>),
    Tell(Input),
    /// The passwords are others now.
    Passwords(Vec<Psk>),
    /// Answered when every peer has been told, or has had its time.
    Leave(oneshot::Sender<()>),
}

/// What connections report.
#[derive(Debug)]
enum Report {
    Input(Input),
    /// A peer does not read what is sent to it.
    Stuck(ConnId, String),
    /// A dial succeeded; the connection is to be taken over.
    Dialled(ConnId, Line, SocketAddr),
    /// A connection came in.
    Accepted(TcpStream, SocketAddr),
    /// A connection came in, and its other side is a member.
    Secured(Line, SocketAddr),
    /// One whose other side is not.
    Refused(SocketAddr, SecureError),
}

/// A connection and, where this node has a password, what secures it.
#[derive(Debug)]
struct Line {
    stream: TcpStream,
    secured: Option<Box<Secured>>,
}

/// Questions that wait; who asks more waits too.
const ASKS: usize = 256;
/// Reports that wait, each of at most [`connection::READ_LEN`] bytes; readers wait when they are
/// more, and TCP makes the peers wait.
const REPORTS: usize = 1024;
/// How long a name may take to be resolved and connected to, all its addresses together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// How long one of them may take, so that one that is silent does not use up the others' time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// How long peers may take to hear a farewell.
const FAREWELL: Duration = Duration::from_secs(2);
/// How long the other side of a connection that came in may take to prove that it is a member.
const PROOF: Duration = Duration::from_secs(10);
/// Connections that came in and have not proven it yet; one more is closed.
const UNPROVEN: usize = 256;
/// Addresses of a name that are tried in one dial; the next dial begins with another.
const MAX_ADDRESSES: usize = 4;

/// How probes get to the underlay and from there.
#[derive(Debug)]
pub struct Underlay {
    /// Sends them.
    pub prober: Prober,
    /// Those that arrive.
    pub arriving: mpsc::Receiver<ProbeArrival>,
}

/// Listens on `listen` and starts the mesh, in the calling task's runtime. With `keys`, connections
/// are secured, and only members' get to the mesh. Without an underlay no probe is sent.
///
/// # Errors
/// The port cannot be had; the text names it and the remedy.
pub fn start(
    mut config: mesh::Config,
    listen: SocketAddr,
    keys: Option<ControlKeys>,
    events: mpsc::Sender<MeshEvent>,
    underlay: Option<Underlay>,
) -> anyhow::Result<MeshHandle> {
    let listener = listener::bind(listen)?;
    let address = listener.local_addr()?;
    if listen.port() == 0 {
        config.me.control_port = address.port();
    }
    let (asks, inbox) = mpsc::channel(ASKS);
    let (reports, reported) = mpsc::channel(REPORTS);
    let accepting = tokio::spawn(listener::accept(listener, reports.clone()));
    let started = Instant::now();
    let (prober, arriving) = match underlay {
        Some(Underlay { prober, arriving }) => (Some(prober), arriving),
        None => (None, mpsc::channel(1).1),
    };
    let driver = Driver {
        prober,
        mesh: Mesh::new(config, Duration::ZERO),
        started,
        connections: HashMap::new(),
        _accepting: AbortOnDrop(accepting),
        accepted: 0,
        keys: keys.map(Arc::new),
        unproven: Arc::new(Semaphore::new(UNPROVEN)),
        dials: 0,
        cut_off: 0,
        cargo_dropped: 0,
        reports,
        backlog: Backlog::default(),
    };
    tokio::spawn(driver.run(inbox, reported, arriving, events));
    Ok(MeshHandle { asks, address })
}

impl MeshHandle {
    /// The address that the mesh listens on, with its real port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the mesh knows; none if it has ended.
    pub async fn view(&self) -> Option<MeshView> {
        let (answer, asked) = oneshot::channel();
        self.asks.send(Ask::View(answer)).await.ok()?;
        asked.await.ok()
    }

    /// All peers, by identity; none if the mesh has ended.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.view().await.map(|view| view.peers).unwrap_or_default()
    }

    /// Addresses with which a later run finds the network again; none if the mesh has ended.
    pub async fn addresses(&self) -> Option<Vec<SocketAddr>> {
        let (answer, asked) = oneshot::channel();
        self.asks.send(Ask::Addresses(answer)).await.ok()?;
        asked.await.ok()
    }

    /// The underlay is another than before: the largest packet of its interfaces, in bytes, and this
    /// node's addresses on it.
    pub async fn underlay(&self, mtu: u16, addresses: Vec<IpAddr>) {
        self.tell(Input::Link(LinkInput::UnderlayMtu(mtu))).await;
        self.tell(Input::Link(LinkInput::Addresses(addresses)))
            .await;
    }

    /// Names a target.
    pub async fn connect(&self, target: Target) {
        self.tell(Input::Connect(target)).await;
    }

    /// Takes a target back. A connection that it led to stays.
    pub async fn forget(&self, target: Target) {
        self.tell(Input::Forget(target)).await;
    }

    /// Sends gossip to one peer, or to all that can be reached.
    ///
    /// # Errors
    /// It is larger than a message.
    pub async fn gossip(
        &self,
        to: Option<PeerId>,
        channel: u8,
        payload: Vec<u8>,
    ) -> Result<(), GossipTooLarge> {
        if payload.len() > MAX_GOSSIP {
            return Err(GossipTooLarge {
                channel,
                len: payload.len(),
            });
        }
        self.tell(Input::SendGossip {
            to,
            channel,
            payload,
        })
        .await;
        Ok(())
    }

    /// Tells all which multicast groups this node wants.
    pub async fn groups(&self, groups: Groups) {
        self.tell(Input::Groups(groups)).await;
    }

    /// Tells what crossed the links, and which were refused a datagram as too long.
    pub async fn traffic(&self, activity: Vec<Activity>, too_big: Vec<(PeerId, Encapsulation)>) {
        if !activity.is_empty() {
            self.tell(Input::Link(LinkInput::Activity(activity))).await;
        }
        for (id, encapsulation) in too_big {
            self.tell(Input::Link(LinkInput::TooBig { id, encapsulation }))
                .await;
        }
    }

    /// Changes the passwords: the first is used, all are accepted. Connections that rest on none of
    /// them end.
    pub async fn set_passwords(&self, passwords: Vec<Psk>) {
        // A mesh that has ended needs no password.
        let _ = self.asks.send(Ask::Passwords(passwords)).await;
    }

    /// Tells all peers that this node leaves, and waits until they know or have had their time.
    pub async fn leave(&self) {
        let (answer, asked) = oneshot::channel();
        if self.asks.send(Ask::Leave(answer)).await.is_ok() {
            // An error says that the mesh has ended, which is what was asked for.
            let _ = asked.await;
        }
    }

    async fn tell(&self, input: Input) {
        // A mesh that has ended needs no input.
        let _ = self.asks.send(Ask::Tell(input)).await;
    }
}

/// The task that owns the mesh.
struct Driver {
    mesh: Mesh,
    prober: Option<Prober>,
    started: Instant,
    connections: HashMap<ConnId, Open>,
    /// Holds the port for as long as the mesh runs.
    _accepting: AbortOnDrop,
    accepted: u64,
    keys: Option<Arc<ControlKeys>>,
    unproven: Arc<Semaphore>,
    dials: usize,
    cut_off: u64,
    cargo_dropped: u64,
    reports: mpsc::Sender<Report>,
    backlog: Backlog,
}

/// A connection that is open, or is being dialled.
struct Open {
    /// None while it is being dialled.
    outgoing: Option<Outgoing>,
    /// The password that it rests on, if any.
    psk: Option<Psk>,
    /// Ends the dial or the reader when it is dropped.
    _task: AbortOnDrop,
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Driver {
    async fn run(
        mut self,
        mut asks: mpsc::Receiver<Ask>,
        mut reports: mpsc::Receiver<Report>,
        mut arriving: mpsc::Receiver<ProbeArrival>,
        events: mpsc::Sender<MeshEvent>,
    ) {
        loop {
            self.carry_out();
            let due = self
                .mesh
                .poll_timeout()
                .map_or(Duration::from_secs(3600), |due| {
                    due.saturating_sub(self.started.elapsed())
                });
            tokio::select! {
                ask = asks.recv() => match ask {
                    Some(Ask::View(answer)) => {
                        // Whoever asked may have gone.
                        let _ = answer.send(self.view());
                    }
                    Some(Ask::Addresses(answer)) => {
                        let _ = answer.send(self.mesh.addresses());
                    }
                    Some(Ask::Tell(input)) => self.handle(input),
                    Some(Ask::Passwords(passwords)) => self.set_passwords(passwords),
                    Some(Ask::Leave(answer)) => {
                        self.leave().await;
                        let _ = answer.send(());
                    }
                    None => return,
                },
                report = reports.recv() => match report {
                    Some(report) => self.take(report),
                    None => return,
                },
                Some(probe) = arriving.recv() => self.handle(Input::Link(arrived(probe))),
                permit = events.reserve(), if !self.backlog.is_empty() => match permit {
                    Ok(permit) => {
                        if let Some(event) = self.backlog.pop() {
                            permit.send(event);
                        }
                    }
                    // Nobody wants to know any more: the router is ending.
                    Err(_) => self.backlog = Backlog::default(),
                },
                () = sleep(due) => self.handle(Input::Timeout),
            }
        }
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn handle(&mut self, input: Input) {
        let now = self.now();
        self.mesh.handle(input, now);
    }

    fn view(&self) -> MeshView {
        let now = self.now();
        MeshView {
            peers: self.mesh.peers(now),
            targets: self.mesh.targets(now),
            links: self.mesh.links(now),
            left: self.mesh.has_left(),
            counters: self.mesh.counters(),
            cut_off: self.cut_off,
            cargo_dropped: self.cargo_dropped,
            gossip_dropped: self.backlog.dropped(),
        }
    }

    fn take(&mut self, report: Report) {
        match report {
            Report::Input(input) => {
                // What a connection said before the mesh closed it is late.
                let known = match &input {
                    Input::DialFailed { conn, .. } | Input::Closed { conn, .. } => {
                        self.connections.remove(conn).is_some()
                    }
                    Input::Received { conn, .. } => self.connections.contains_key(conn),
                    _ => true,
                };
                if known {
                    self.handle(input);
                }
            }
            Report::Stuck(conn, reason) => {
                if self.connections.remove(&conn).is_some() {
                    tracing::warn!(%conn, reason, "cutting off a peer that does not read");
                    self.cut_off += 1;
                    self.handle(Input::Closed { conn, reason });
                }
            }
            Report::Dialled(conn, line, remote) => {
                if self.connections.contains_key(&conn) {
                    self.open(conn, line, Input::Dialled { conn, remote });
                }
            }
            Report::Accepted(stream, remote) => match &self.keys {
                None => self.accept(
                    Line {
                        stream,
                        secured: None,
                    },
                    remote,
                ),
                Some(keys) => {
                    let (unproven, keys) = (Arc::clone(&self.unproven), Arc::clone(keys));
                    prove(stream, remote, unproven, keys, self.reports.clone());
                }
            },
            Report::Secured(line, remote) => self.accept(line, remote),
            Report::Refused(remote, error) => self.refused(remote, &error),
        }
    }

    /// Carries out what the mesh wants, until it wants no more.
    fn carry_out(&mut self) {
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Dial {
                    conn,
                    target,
                    avoid,
                } => self.dial(conn, target, avoid),
                Output::Send { conn, bytes, cargo } => self.send(conn, bytes, cargo),
                Output::Close { conn, reason } => {
                    tracing::debug!(%conn, reason, "closing a control connection");
                    // Dropping its queue lets the writer send what is in it and hang up.
                    self.connections.remove(&conn);
                }
                Output::Link(change) => self.backlog.push(MeshEvent::Link(change)),
                Output::Groups { id, groups } => {
                    self.backlog.push(MeshEvent::Groups { id, groups });
                }
                Output::Probe(probe) => self.probe(&probe),
                Output::Reachable { id, name } => {
                    let reachable = true;
                    self.backlog.push(MeshEvent::Reachable {
                        id,
                        name,
                        reachable,
                    });
                }
                Output::Unreachable { id, name } => {
                    let reachable = false;
                    self.backlog.push(MeshEvent::Reachable {
                        id,
                        name,
                        reachable,
                    });
                }
                Output::Connected { id, name } => {
                    self.backlog.push(MeshEvent::Connected { id, name });
                }
                Output::Gossip {
                    from,
                    name,
                    channel,
                    payload,
                } => {
                    self.backlog.push(MeshEvent::Gossip {
                        from,
                        name,
                        channel,
                        payload,
                    });
                }
                Output::Key { id, public } => self.backlog.push(MeshEvent::Key { id, public }),
                Output::Condition(change) => self.backlog.push(MeshEvent::Condition(change)),
            }
        }
    }

    fn probe(&mut self, probe: &ProbeToSend) {
        let Some(prober) = &self.prober else {
            return;
        };
        let encapsulation = switch::encapsulation(probe.encapsulation);
        let sent = prober.send(encapsulation, probe.to, probe.endpoint, &probe.frame);
        let Err(error) = sent else {
            return;
        };
        let error = match error {
            ProbeSendError::TooBig { mtu } => SendError::TooBig(mtu),
            // The buffer is full, as the peer's may be: like a probe that is lost on the way.
            ProbeSendError::Io(error) if error.kind() == ErrorKind::WouldBlock => return,
            error => SendError::Other(error.to_string()),
        };
        self.handle(Input::Link(LinkInput::SendFailed {
            id: probe.to,
            nonce: probe.nonce,
            error,
        }));
    }

    fn accept(&mut self, line: Line, remote: SocketAddr) {
        let conn = ConnId::Accepted(self.accepted);
        self.accepted += 1;
        self.open(conn, line, Input::Accepted { conn, remote });
    }

    /// Takes a connection into use, and tells the mesh by `news`.
    fn open(&mut self, conn: ConnId, line: Line, news: Input) {
        let Line { stream, secured } = line;
        let proven = secured.as_ref().map(|secured| secured.public);
        let psk = secured.as_ref().map(|secured| secured.psk.clone());
        let (outgoing, reader) = connection::split(conn, stream, secured, self.reports.clone());
        let open = Open {
            outgoing: Some(outgoing),
            psk,
            _task: AbortOnDrop(reader),
        };
        self.connections.insert(conn, open);
        self.handle(news);
        if let Some(public) = proven {
            self.handle(Input::Proven { conn, public });
        }
    }

    /// The operator is told of what only he can mend.
    fn refused(&mut self, remote: SocketAddr, error: &SecureError) {
        match error {
            SecureError::Channel(error) => {
                let reason = error.to_string();
                self.handle(Input::Unproven { remote, reason });
            }
            SecureError::Io(error) => {
                tracing::debug!(%remote, %error, "a control connection was not secured");
            }
        }
    }

    fn set_passwords(&mut self, passwords: Vec<Psk>) {
        let Some(keys) = &mut self.keys else {
            return;
        };
        let mut ended: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, open)| {
                open.psk
                    .as_ref()
                    .is_some_and(|psk| !passwords.contains(psk))
            })
            .map(|(conn, _)| *conn)
            .collect();
        ended.sort_unstable();
        Arc::make_mut(keys).secrets.passwords = passwords;
        for conn in ended {
            self.connections.remove(&conn);
            let reason = "its password is accepted no more".to_owned();
            self.handle(Input::Closed { conn, reason });
        }
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>, cargo: bool) {
        let Some(outgoing) = self
            .connections
            .get(&conn)
            .and_then(|open| open.outgoing.as_ref())
        else {
            return;
        };
        // What others have sent must not cost this peer its connection.
        if cargo && outgoing.is_busy() {
            self.cargo_dropped += 1;
            return;
        }
        if let Err(reason) = outgoing.push(bytes) {
            tracing::warn!(%conn, %reason, "cutting off a peer that does not read");
            self.cut_off += 1;
            if let Some(outgoing) = self
                .connections
                .remove(&conn)
                .and_then(|open| open.outgoing)
            {
                outgoing.cut();
            }
            self.handle(Input::Closed {
                conn,
                reason: reason.to_string(),
            });
        }
    }

    fn dial(&mut self, conn: ConnId, target: Target, avoid: Vec<SocketAddr>) {
        let reports = self.reports.clone();
        let keys = self.keys.clone();
        let first = self.dials;
        self.dials = first.wrapping_add(1);
        let task = tokio::spawn(async move {
            let reached = async {
                let (stream, remote) = reach(&target, &avoid, first).await?;
                let line = secure_dialled(stream, remote, keys.as_deref(), &reports).await?;
                Ok((line, remote))
            };
            let report = match timeout(DIAL_DEADLINE, reached).await {
                Ok(Ok((line, remote))) => Report::Dialled(conn, line, remote),
                Ok(Err(error)) => Report::Input(Input::DialFailed { conn, error }),
                Err(_) => {
                    let error = DialError::Failed(format!("{target}: no answer in time"));
                    Report::Input(Input::DialFailed { conn, error })
                }
            };
            // The driver is gone only when the router ends.
            let _ = reports.send(report).await;
        });
        self.connections.insert(
            conn,
            Open {
                outgoing: None,
                psk: None,
                _task: AbortOnDrop(task),
            },
        );
    }

    /// Says farewell, and gives every peer the time to hear it.
    async fn leave(&mut self) {
        self.handle(Input::Leave);
        let mut last_words = Vec::new();
        while let Some(output) = self.mesh.poll_output() {
            match output {
                Output::Send { conn, bytes, cargo } => self.send(conn, bytes, cargo),
                Output::Close { conn, .. } => {
                    let open = self.connections.remove(&conn);
                    last_words.extend(open.and_then(|open| open.outgoing).map(Outgoing::finish));
                }
                // The router goes on without the others.
                Output::Link(change) => self.backlog.push(MeshEvent::Link(change)),
                Output::Unreachable { id, name } => {
                    let reachable = false;
                    self.backlog.push(MeshEvent::Reachable {
                        id,
                        name,
                        reachable,
                    });
                }
                _ => {}
            }
        }
        let spoken = async {
            for writer in last_words {
                // A writer that failed has said all that it could.
                let _ = writer.await;
            }
        };
        if timeout(FAREWELL, spoken).await.is_err() {
            tracing::warn!("some peers did not take the farewell in time");
        }
    }
}

fn arrived(probe: ProbeArrival) -> LinkInput {
    LinkInput::Probe(Arrived {
        encapsulation: match probe.encapsulation {
            fastpath::Encapsulation::Vxlan => Encapsulation::Vxlan,
            fastpath::Encapsulation::Sleeve => Encapsulation::Sleeve,
        },
        from: probe.source,
        relayed: probe.relayed,
        frame: probe.frame,
    })
}

/// Lets the other side of a connection that came in prove that it is a member.
fn prove(
    mut stream: TcpStream,
    remote: SocketAddr,
    unproven: Arc<Semaphore>,
    keys: Arc<ControlKeys>,
    reports: mpsc::Sender<Report>,
) {
    let Ok(permit) = unproven.try_acquire_owned() else {
        tracing::debug!(%remote, "too many control connections are unproven: closing one more");
        return;
    };
    tokio::spawn(async move {
        let _permit = permit;
        let report = match timeout(PROOF, secure(&mut stream, Side::Accepted, &keys)).await {
            Ok(Ok(secured)) => {
                let secured = Some(Box::new(secured));
                Report::Secured(Line { stream, secured }, remote)
            }
            Ok(Err(error)) => Report::Refused(remote, error),
            // It said nothing at all, or not all: nothing to tell anybody.
            Err(_) => return,
        };
        // The driver is gone only when the router ends.
        let _ = reports.send(report).await;
    });
}

/// Secures a connection that this node dialled, if it is to be.
async fn secure_dialled(
    mut stream: TcpStream,
    remote: SocketAddr,
    keys: Option<&ControlKeys>,
    reports: &mpsc::Sender<Report>,
) -> Result<Line, DialError> {
    let Some(keys) = keys else {
        return Ok(Line {
            stream,
            secured: None,
        });
    };
    match secure(&mut stream, Side::Dialled, keys).await {
        Ok(secured) => Ok(Line {
            stream,
            secured: Some(Box::new(secured)),
        }),
        Err(error) => {
            let text = format!("{remote}: {error}");
            let _ = reports.send(Report::Refused(remote, error)).await;
            Err(DialError::Failed(text))
        }
    }
}

/// Connects to the first address of a target that answers, each dial beginning with another.
async fn reach(
    target: &Target,
    avoid: &[SocketAddr],
    first: usize,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let failed = |text: String| DialError::Failed(format!("{target}: {text}"));
    let found = tokio::net::lookup_host((target.host(), target.port())).await;
    let found = found.map_err(|error| failed(format!("cannot be resolved: {error}")))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() {
        return Err(failed("has no address".to_owned()));
    }
    let wanted = addresses.iter().filter(|address| !avoid.contains(address));
    let mut wanted: Vec<_> = wanted.copied().collect();
    if let Some(first) = first.checked_rem(wanted.len()) {
        wanted.rotate_left(first);
    }
    wanted.truncate(MAX_ADDRESSES);
    let mut last = DialError::OnlyMyself;
    for address in wanted {
        match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = failed(format!("{address}: {error}")),
            Err(_) => last = failed(format!("{address}: no answer within {CONNECT_DEADLINE:?}")),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests;
