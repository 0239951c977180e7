//! What a mesh is told at its start.

use std::time::Duration;

use crate::hello::Hello;
use crate::target::Target;

/// Everything that a [`Mesh`](crate::Mesh) needs to begin.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node, as it introduces itself.
    pub me: Hello,
    /// Addresses that the operator named; one of one node is enough. Those beyond
    /// [`Limits::targets`] are left out and counted.
    pub targets: Vec<Target>,
    /// Whether peers that others tell of are learned and dialled. Without it only `targets` are
    /// dialled; connections from others are accepted all the same.
    pub discovery: bool,
    /// Seed of the jitter.
    pub seed: u64,
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
            targets: Vec::new(),
            discovery: true,
            seed,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// How much the tables hold. What happens when one is full stands with each.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Peers known. A peer that connects takes the place of the one that has been down longest; if
    /// none is down, it is refused. A peer that is only heard of is left out.
    pub peers: usize,
    /// Control addresses kept per peer; the one confirmed longest ago makes room.
    pub addresses: usize,
    /// Connections of all kinds. One more that comes in is refused, and no more are dialled.
    pub connections: usize,
    /// Accepted connections that have not finished their handshake; one more is refused. They cost
    /// 4 KiB of unread bytes each and anybody can open one, so there are few.
    pub handshakes: usize,
    /// Dials under way at a time; the others wait their turn.
    pub dials: usize,
    /// Targets that the operator named; more are left out.
    pub targets: usize,
    /// Nodes remembered as having left; the oldest makes room.
    pub departed: usize,
    /// Conditions open at a time; the one not seen for longest makes room.
    pub conditions: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // The scale that the simulation is run to.
            peers: 5000,
            addresses: 8,
            // Every peer, and as many again in handshakes and dials as these allow.
            connections: 5000 + 256 + 32,
            handshakes: 256,
            dials: 32,
            targets: 1024,
            departed: 5000,
            conditions: 64,
        }
    }
}

/// The times that shape the mesh.
#[derive(Debug, Clone)]
pub struct Timing {
    /// From a connection's opening to the end of its handshake. Weave's value.
    pub handshake: Duration,
    /// Between pings on a connection. Weave's value.
    pub ping: Duration,
    /// Silence after which a connection is dead: two pings unanswered.
    pub dead: Duration,
    /// Silence allowed to a connection that stands in the way of another node of the same name.
    pub probe: Duration,
    /// How long a data link outlives its control connection.
    pub grace: Duration,
    /// First wait before dialling again. Weave's value, as is the growth by half.
    pub retry: Duration,
    /// Longest wait, for targets and for peers that were lost a short time ago.
    pub retry_max: Duration,
    /// Longest wait for a peer that has been down for long, and for a target that turned out to be
    /// this node.
    pub retry_rarely: Duration,
    /// A connection that lived this long was a good one: the back-off starts anew after it.
    pub settled: Duration,
    /// Learned peers are dialled within this time, each at its own moment.
    pub spread: Duration,
    /// How much longer the node with the larger identity waits before it dials, so that as a rule
    /// one side of a pair dials; it does dial, since the other may not be able to.
    pub yield_to_smaller: Duration,
    /// Between exchanges of the whole list of peers with one neighbour chosen at random, which
    /// repairs what was lost on the way.
    pub exchange: Duration,
    /// A peer that has been unreachable for this long is forgotten.
    pub forget: Duration,
    /// A peer that was never connected is forgotten when nobody has told of it for this long.
    pub rumour: Duration,
    /// How long a node that left is remembered, so that late news do not bring it back.
    pub departed: Duration,
    /// A condition that has not been seen again for this long is over.
    pub condition: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            ping: Duration::from_secs(30),
            dead: Duration::from_secs(60),
            probe: Duration::from_secs(5),
            grace: Duration::from_secs(60),
            retry: Duration::from_secs(2),
            retry_max: Duration::from_secs(60),
            retry_rarely: Duration::from_secs(600),
            settled: Duration::from_secs(60),
            spread: Duration::from_secs(1),
            yield_to_smaller: Duration::from_secs(3),
            exchange: Duration::from_secs(60),
            forget: Duration::from_secs(24 * 3600),
            // Ten exchanges: a node that is connected to anybody would have been told of.
            rumour: Duration::from_secs(600),
            departed: Duration::from_secs(600),
            condition: Duration::from_secs(600),
        }
    }
}
