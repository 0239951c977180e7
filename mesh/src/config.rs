//! What a mesh is told at its start.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::hello::Hello;
use crate::link::LinkConfig;
use crate::shelf::Shelf;
use crate::target::Target;

/// Everything that a [`Mesh`](crate::Mesh) needs to begin.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, as it introduces itself.
    pub me: Hello,
    /// Version of its first entry: more than an earlier run has used, as milliseconds since 1970 are
    /// unless the clock was set back; then others tell, and it costs a moment.
    pub born: u64,
    /// Addresses that the operator named; one of one node is enough. Those beyond
    /// [`Limits::targets`] are left out and counted.
    pub targets: Vec<Target>,
    /// Addresses of nodes that an earlier run knew. They are dialled until one answers. Those
    /// beyond [`Limits::remembered`] are left out.
    pub remembered: Vec<SocketAddr>,
    /// Whether peers that others tell of are dialled. Without it only `targets` are; connections
    /// from others are accepted all the same.
    pub discovery: bool,
    /// Whether it begins outside of the network, as after [`Input::Leave`](crate::Input::Leave).
    pub away: bool,
    /// Seed of the jitter.
    pub seed: u64,
    /// What judges the links by probes. None, where there is no data path: a link is up as long as the
    /// control path is.
    pub links: Option<LinkConfig>,
    /// Where several meshes of one process keep entries together.
    pub shelf: Option<Arc<Shelf>>,
    /// Sizes of the tables.
    pub limits: Limits,
    /// Times.
    pub timing: Timing,
}

impl Config {
    /// The defaults for a node: no target, discovery on.
    pub fn new(me: Hello, seed: u64) -> Self {
        Self {
            me,
            born: 1,
            targets: Vec::new(),
            remembered: Vec::new(),
            discovery: true,
            away: false,
            seed,
            links: None,
            shelf: None,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// How much the tables hold. What happens when one is full stands with each.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Peers known. A new one takes the place of the one that has been out of reach longest; if none
    /// is, it is left out.
    pub peers: usize,
    /// Connections in use (`--conn-limit`). When one more comes in, one that nobody needs makes
    /// room; if there is none, it is refused, and told of others. Those that this node needs itself
    /// are dialled all the same.
    pub connections: usize,
    /// Accepted connections that have not finished their handshake; one more is refused. They cost
    /// 4 KiB of unread bytes each and anybody can open one, so there are few.
    pub handshakes: usize,
    /// Dials under way at a time; the others wait their turn.
    pub dials: usize,
    /// Targets that the operator named; more are left out.
    pub targets: usize,
    /// Addresses remembered from an earlier run, and those that a node that is full names instead of
    /// itself.
    pub remembered: usize,
    /// Conditions open at a time; the one not seen for longest makes room.
    pub conditions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The scale that the simulation is run to.
            peers: 5000,
            // Weave's value. A node in a network of 5,000 needs 16.
            connections: 200,
            handshakes: 256,
            dials: 32,
            targets: 1024,
            remembered: 64,
            conditions: 64,
        }
    }
}

/// The times that shape the mesh.
#[derive(Debug, Clone)]
pub struct Timing {
    /// From a connection's opening to the end of its handshake. Weave's value.
    pub handshake: Duration,
    /// Between pings on a connection. Connections are few, so that this can be short.
    pub ping: Duration,
    /// Silence after which a connection is dead: two pings unanswered.
    pub dead: Duration,
    /// Silence allowed to a connection of which there is reason to doubt: another node of the same name
    /// comes, its peer's data link is down, or something was handed to a neighbour that is silent.
    pub probe: Duration,
    /// A neighbour that has been silent for this long is asked for a sign of life when something is
    /// handed to it for another node: what is handed to one that does not run is lost.
    pub quiet: Duration,
    /// How long a data link outlives the control path to its peer.
    pub grace: Duration,
    /// How long a peer must be out of reach until others are told: a way round is mostly found
    /// sooner.
    pub settle: Duration,
    /// How long a connection that neither side needs is kept.
    pub linger: Duration,
    /// Entries that have changed are announced within this time, all in one message.
    pub flush: Duration,
    /// What others ask for is sent within this time, all in one message.
    pub answer: Duration,
    /// An entry that was asked for and has not come within this time is asked for elsewhere.
    pub ask: Duration,
    /// Shortest time between two versions of the own entry.
    pub publish: Duration,
    /// First wait before dialling again. Weave's value, as is the growth by half.
    pub retry: Duration,
    /// Longest wait.
    pub retry_max: Duration,
    /// Wait for a target that turned out to be this node.
    pub retry_rarely: Duration,
    /// A connection that lived this long was a good one: the back-off starts anew after it.
    pub settled: Duration,
    /// What many nodes do at the same news, each does within this time, at its own moment.
    pub spread: Duration,
    /// How much longer the node with the larger identity waits before it dials, so that as a rule
    /// one side of a pair dials; it does dial, since the other may not be able to.
    pub yield_to_smaller: Duration,
    /// Between comparisons of the whole table with one neighbour chosen at random, which repair what
    /// was lost on the way.
    pub digest: Duration,
    /// All nodes together try one peer that is out of reach this often.
    pub revive: Duration,
    /// A peer that has been out of reach for this long is forgotten.
    pub forget: Duration,
    /// How long a node that left or was forgotten is remembered, so that late news do not bring it
    /// back.
    pub departed: Duration,
    /// A condition that has not been seen again for this long is over.
    pub condition: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping: Duration::from_secs(10),
            dead: Duration::from_secs(25),
            probe: Duration::from_secs(5),
            quiet: Duration::from_secs(2),
            grace: Duration::from_secs(60),
            settle: Duration::from_secs(5),
            linger: Duration::from_secs(10),
            flush: Duration::from_millis(100),
            answer: Duration::from_millis(10),
            ask: Duration::from_secs(2),
            publish: Duration::from_secs(1),
            retry: Duration::from_secs(2),
            retry_max: Duration::from_secs(60),
            retry_rarely: Duration::from_secs(600),
            settled: Duration::from_secs(60),
            spread: Duration::from_secs(1),
            yield_to_smaller: Duration::from_secs(3),
            digest: Duration::from_secs(30),
            revive: Duration::from_secs(1),
            forget: Duration::from_secs(24 * 3600),
            departed: Duration::from_secs(3600),
            condition: Duration::from_secs(600),
        }
    }
}
