//! The address pool of this node, as the rest of the router sees it.
//!
//! One thread owns the allocator and its store. Requests queue up for it; it takes all that are
//! there, works on them in memory, writes what changed with one sync, and only then answers. So
//! an address that was answered survives a crash, and a hundred pods that start together cost one
//! sync. An address out of own space waits for nobody. When there is none, the agent asks other
//! nodes, and the request waits in the thread until its deadline; what the agent says to others
//! leaves after the sync, too.

mod engine;
mod error;
mod plan;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use control::{IpamStatus, Left, Removed};
use fastpath::OwnerMap;
use ipam::AllocationKey;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};
use wire::{PeerId, PeerName};

use self::engine::Engine;
pub use self::error::IpamError;
pub use crate::io::ipam_store::StoreError;
use crate::io::mesh_driver::MeshHandle;

/// The mesh's channel for what agents say.
pub const CHANNEL: u8 = 1;

/// Messages to other nodes that may wait. What is beyond is dropped, and repaired by digest.
const OUTBOX: usize = 4096;

/// Between looks at the clock: what the agent repeats, it repeats each second.
const TICK: Duration = Duration::from_millis(250);

/// How much longer than its deadline a caller waits for the answer that says why.
const GRACE: Duration = Duration::from_millis(500);

/// Requests that may wait. Callers beyond it wait to put theirs in, each to its own deadline.
const QUEUE: usize = 1024;

/// Most requests answered by one sync: bounds how long the first of them waits for the others.
const BATCH: usize = 256;

/// Time for requests whose caller names none. A sync takes milliseconds; a disk that takes longer
/// than this is as good as gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the range is first divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IpamInit {
    /// Nobody has said: what an earlier run decided, or nothing.
    Undecided,
    /// Among these nodes, which all nodes name alike.
    Seed(Vec<PeerName>),
    /// Among those that agree, this many being asked.
    Consensus(u32),
}

/// What the address pool needs to know.
#[derive(Debug, Clone)]
pub struct IpamOptions {
    /// This node.
    pub me: PeerName,
    /// The overlay's range.
    pub range: IpNet,
    /// How it is first divided.
    pub init: IpamInit,
    /// Where the store is.
    pub state_dir: PathBuf,
    /// How long a released address rests.
    pub hold_down: Duration,
    /// Whether other nodes are named to connect to.
    pub expects_peers: bool,
    /// Where addresses come from unless a subnet is asked for; none: the whole range.
    pub default_subnet: Option<IpNet>,
}

/// Opens the store and starts the thread.
///
/// # Errors
/// The range or the list of seeds cannot be, or the store cannot be opened: in use by another
/// process, damaged, not accessible. A store of another node or range is no error: it is served,
/// and nothing new is handed out (see [`IpamError::OtherRange`], [`IpamError::OtherNode`]).
pub fn start(options: IpamOptions) -> anyhow::Result<IpamHandle> {
    let (outbox, outgoing) = mpsc::channel(OUTBOX);
    let mut engine = Engine::open(options, outbox).context("cannot start the address pool")?;
    let owners = engine.owners();
    let (requests, mut queue) = mpsc::channel::<Request>(QUEUE);
    std::thread::Builder::new()
        .name("ipam".to_owned())
        .spawn(move || {
            let mut batch = Vec::with_capacity(BATCH);
            while queue.blocking_recv_many(&mut batch, BATCH) > 0 {
                if let Some(closed) = engine.run(&mut batch) {
                    // The file is free when the caller hears of it.
                    drop(engine);
                    let _ = closed.send(());
                    return;
                }
            }
        })
        .context("cannot start the thread of the address pool")?;
    let clock = requests.downgrade();
    std::thread::Builder::new()
        .name("ipam-clock".to_owned())
        .spawn(move || {
            loop {
                std::thread::park_timeout(TICK);
                let Some(requests) = clock.upgrade() else {
                    return;
                };
                // A full queue is looked at anyway; a closed one needs no clock.
                if let Err(mpsc::error::TrySendError::Closed(_)) = requests.try_send(Request::Tick)
                {
                    return;
                }
            }
        })
        .context("cannot start the clock of the address pool")?;
    let outgoing = Arc::new(Mutex::new(Some(outgoing)));
    Ok(IpamHandle {
        requests,
        outgoing,
        owners,
    })
}

/// What goes to the mesh, in its order.
#[derive(Debug)]
enum Letter {
    /// A message.
    Message {
        to: Option<PeerId>,
        payload: Vec<u8>,
    },
    /// Somebody waits until all before this has been handed to the mesh.
    Passed(oneshot::Sender<()>),
}

/// The way to the address pool. When the last handle is dropped, the pool ends.
#[derive(Debug, Clone)]
pub struct IpamHandle {
    requests: mpsc::Sender<Request>,
    /// Until the mesh is there to take them.
    outgoing: Arc<Mutex<Option<mpsc::Receiver<Letter>>>>,
    owners: watch::Receiver<Arc<OwnerMap>>,
}

impl IpamHandle {
    /// An address for `key`: the lowest free one of `subnet` (the whole range unless given), or
    /// exactly `address`. It is on the disk when this returns. A key that asks again gets what it
    /// has.
    ///
    /// # Errors
    /// See [`IpamError`]. After [`IpamError::Deadline`] the address may be held all the same:
    /// ask again, or release it.
    pub async fn allocate(
        &self,
        key: AllocationKey,
        subnet: Option<IpNet>,
        address: Option<IpAddr>,
        deadline: Duration,
    ) -> Result<IpNet, IpamError> {
        let until = Instant::now() + deadline;
        let asked = self.ask(deadline + GRACE, |reply| Request::Allocate {
            key,
            subnet,
            address,
            until,
            reply,
        });
        match asked.await {
            Err(IpamError::Deadline { .. }) => Err(IpamError::Deadline { deadline }),
            answered => answered?,
        }
    }

    /// Everything that `key` has goes out of use, and is returned; nothing for an unknown key.
    ///
    /// # Errors
    /// The store fails, or does not answer within 10 s.
    pub async fn release(&self, key: AllocationKey) -> Result<Vec<IpNet>, IpamError> {
        self.ask(PATIENCE, |reply| Request::Release { key, reply })
            .await?
    }

    /// What `key` has: the address that it got first, if it has several.
    ///
    /// # Errors
    /// The pool does not answer within 10 s, or has ended.
    pub async fn lookup(&self, key: AllocationKey) -> Result<Option<IpNet>, IpamError> {
        self.ask(PATIENCE, |reply| Request::Lookup { key, reply })
            .await
    }

    /// The range, what this node owns of it, and who uses what.
    ///
    /// # Errors
    /// The pool does not answer within 10 s, or has ended.
    pub async fn status(&self) -> Result<IpamStatus, IpamError> {
        self.ask(PATIENCE, |reply| Request::Status { reply }).await
    }

    /// Sends what there is to say to other nodes over this mesh from now on.
    pub fn carry(&self, mesh: MeshHandle) {
        let taken = self
            .outgoing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(mut outgoing) = taken {
            tokio::spawn(async move {
                while let Some(letter) = outgoing.recv().await {
                    let (to, payload) = match letter {
                        Letter::Message { to, payload } => (to, payload),
                        Letter::Passed(waiting) => {
                            // Whoever waited may have given up.
                            let _ = waiting.send(());
                            continue;
                        }
                    };
                    if let Err(error) = mesh.gossip(to, CHANNEL, payload).await {
                        tracing::error!(%error, "the address plan was not told on");
                    }
                }
            });
        }
    }

    /// Which nodes own which addresses, as far as they can be talked to, and as it changes.
    pub fn owners(&self) -> watch::Receiver<Arc<OwnerMap>> {
        self.owners.clone()
    }

    /// Messages get to another node, straight or through others.
    pub async fn reachable(&self, id: PeerId, name: PeerName) {
        self.tell(Some((name.clone(), id)), ipam::Input::Reachable(name))
            .await;
    }

    /// Messages do not get to another node.
    pub async fn unreachable(&self, name: PeerName) {
        self.tell(None, ipam::Input::Unreachable(name)).await;
    }

    /// A control connection with another node has begun.
    pub async fn neighbour(&self, id: PeerId, name: PeerName) {
        self.tell(Some((name.clone(), id)), ipam::Input::Neighbour(name))
            .await;
    }

    /// Another node has said something.
    pub async fn gossip(&self, id: PeerId, from: PeerName, payload: Vec<u8>) {
        let of = Some((from.clone(), id));
        self.tell(of, ipam::Input::Gossip { from, payload }).await;
    }

    async fn tell(&self, of: Option<(PeerName, PeerId)>, input: ipam::Input) {
        // A pool that has ended needs to hear nothing.
        let _ = self.requests.send(Request::Mesh { of, input }).await;
    }

    /// A node is gone for good: this one takes over what it owns.
    ///
    /// # Errors
    /// It is connected or not known, or the store fails.
    pub async fn remove(&self, name: PeerName) -> Result<Removed, IpamError> {
        self.ask(PATIENCE, |reply| Request::Remove { name, reply })
            .await?
    }

    /// This node is about to leave: gives away what nobody uses here, and returns when that is on the
    /// disk and on its way to the others.
    ///
    /// # Errors
    /// The store fails, or does not answer within 10 s.
    pub async fn hand_over(&self) -> Result<Left, IpamError> {
        let (waiting, passed) = oneshot::channel();
        let left = self
            .ask(PATIENCE, |reply| Request::HandOver { reply, waiting })
            .await??;
        // An error says that the mesh or the outbox is not there: then there is nobody to tell.
        let _ = tokio::time::timeout(GRACE, passed).await;
        Ok(left)
    }

    /// Ends the pool and closes its file, whatever handles there still are. Requests behind this
    /// one are refused.
    ///
    /// # Errors
    /// The pool does not answer within 10 s, or has ended already.
    pub async fn close(&self) -> Result<(), IpamError> {
        self.ask(PATIENCE, |reply| Request::Close { reply }).await
    }

    async fn ask<T>(
        &self,
        deadline: Duration,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, IpamError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests
                .send(request(reply))
                .await
                .map_err(|_| IpamError::Stopped)?;
            answer.await.map_err(|_| IpamError::Stopped)
        };
        let answered = tokio::time::timeout(deadline, asked).await;
        answered.unwrap_or(Err(IpamError::Deadline { deadline }))
    }
}

/// What the thread is asked. A request whose reply nobody waits for any more is not carried out.
#[derive(Debug)]
enum Request {
    Allocate {
        key: AllocationKey,
        subnet: Option<IpNet>,
        address: Option<IpAddr>,
        /// When the caller wants to know at the latest.
        until: Instant,
        reply: oneshot::Sender<Result<IpNet, IpamError>>,
    },
    Release {
        key: AllocationKey,
        reply: oneshot::Sender<Result<Vec<IpNet>, IpamError>>,
    },
    Lookup {
        key: AllocationKey,
        reply: oneshot::Sender<Option<IpNet>>,
    },
    Remove {
        name: PeerName,
        reply: oneshot::Sender<Result<Removed, IpamError>>,
    },
    HandOver {
        reply: oneshot::Sender<Result<Left, IpamError>>,
        /// Told when what there is to say about it has been handed to the mesh.
        waiting: oneshot::Sender<()>,
    },
    Mesh {
        /// Whose name goes with which identity.
        of: Option<(PeerName, PeerId)>,
        input: ipam::Input,
    },
    Tick,
    Status {
        reply: oneshot::Sender<IpamStatus>,
    },
    Close {
        reply: oneshot::Sender<()>,
    },
}
