//! Carries the mesh's control connections over TCP.
//!
//! One task owns the [`Mesh`] and nothing else does; a reader and a writer task per connection move
//! bytes. Nothing here waits for a peer: what a peer is slow to read piles up in a queue of bounded
//! size, and a peer that lets it fill, or that a write cannot reach within its deadline, loses its
//! connection while everybody else goes on. Nor does the mesh wait for the router: what the router
//! is slow to take piles up in a `Backlog`.

mod backlog;
mod connection;
mod dial;
mod event;
mod handle;
mod listener;
mod secure;

use std::collections::HashMap;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mesh::link::{Arrived, LinkInput, ProbeToSend, SendError};
use mesh::{ConnId, Encapsulation, Input, Mesh, Output, Psk, Target};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use crate::io::datapath::{ProbeArrival, ProbeSendError, Prober};
use crate::switch;
use backlog::Backlog;
use connection::{Line, Outgoing};
use dial::Dial;
pub use event::MeshEvent;
use handle::Ask;
pub use handle::{GossipTooLarge, MeshHandle, MeshView};
pub use secure::ControlKeys;
use secure::{SecureError, UNPROVEN, prove};

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

/// Questions that wait; who asks more waits too.
const ASKS: usize = 256;
/// Reports that wait, each of at most [`connection::READ_LEN`] bytes; readers wait when they are
/// more, and TCP makes the peers wait.
const REPORTS: usize = 1024;
/// How long peers may take to hear a farewell.
const FAREWELL: Duration = Duration::from_secs(2);

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
                Output::Probe(probe) => self.probe(&probe),
                output => self.tell(output),
            }
        }
    }

    fn tell(&mut self, output: Output) {
        if let Some(event) = MeshEvent::of(output) {
            self.backlog.push(event);
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
            // The data path has not heard yet, or has heard already, that it may, or may no more.
            ProbeSendError::Plain => return,
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
        let first = self.dials;
        self.dials = first.wrapping_add(1);
        let dial = Dial {
            conn,
            target,
            avoid,
            first,
        };
        let task = tokio::spawn(dial.carry_out(self.keys.clone(), self.reports.clone()));
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
                // The router goes on without the others, and needs to know of it.
                output => self.tell(output),
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

#[cfg(test)]
mod tests;
