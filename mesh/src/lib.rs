//! Peers, links and gossip as a state machine.
//!
//! **Role.** A node knows one address of one other node; this crate turns that into control
//! connections to every node, and tells the data path which peers exist and where their data goes.
//! It also carries gossip for others (the address ring) without reading it.
//!
//! **Inputs.** What happened to connections, bytes received, what the operator asks, and `now`: a
//! monotonic time since a start that the caller chose. **Outputs.** Connections to open, bytes to
//! send, connections to close, changes of links, gossip received, conditions for the operator.
//! There is no socket, clock, thread or global here: [`Mesh::handle`], [`Mesh::poll_output`] and
//! [`Mesh::poll_timeout`] are all.
//!
//! **Invariants**, with the numbers of the design's list where it has one:
//!
//! - I5: what happens on a control connection never takes a working data link down at once. A lost
//!   connection leaves the link up for [`Timing::grace`]; only a peer that says that it leaves, or
//!   whose name passes to another identity, is removed at once.
//! - I6: every table has a bound ([`Limits`]), a policy when full and a counter ([`Counters`]); no
//!   bytes that a peer sends can panic, nor make this crate allocate more than they are long.
//! - At most one control connection per peer is in use on both sides. The node with the smaller
//!   identity chooses, the other follows, so both agree whatever arrives in whatever order.

mod asked;
mod backoff;
mod choice;
mod condition;
mod config;
mod connection;
mod counters;
mod dial;
mod entry;
mod frame;
mod groups;
mod hello;
pub mod link;
mod mesh;
mod message;
mod myself;
mod noise;
mod pace;
mod peer;
mod proto;
mod refusal;
mod rng;
mod roster;
pub mod route;
mod seen;
mod shelf;
mod sightings;
mod target;
mod timers;

pub use backoff::Backoff;
pub use choice::FULL_MESH;
pub use condition::{Condition, ConditionKind};
pub use config::{Config, Limits, Timing};
pub use connection::ConnId;
pub use counters::Counters;
pub use dial::{DialError, TargetState, TargetView};
pub use entry::{Entry, EntryError, MAX_ENTRY, Sealed, Stamp};
pub use frame::{Deframer, FrameError, MAX_MESSAGE, PREAMBLE_LEN, Stage, VERSION, preamble};
pub use groups::{Groups, MAX_GROUPS};
pub use hello::{Hello, HelloError};
pub use link::{Encapsulation, LinkChange, Path};
pub use mesh::{ConditionChange, Input, Mesh, Output};
pub use message::{Broadcast, Doubt, MAX_GOSSIP, Message, MessageError, Parcel, Told};
pub use noise::{
    Channel, ChannelError, CipherChoice, DirectionKey, Fingerprint, MAX_DATAGRAM,
    ParseFingerprintError, Psk, RecordOpener, RecordSealer, Route, Secrets, Secured, SessionConfig,
    SessionCounters, SessionInput, SessionKeys, SessionOutput, SessionTiming, SessionView,
    Sessions, Side, Whereabouts,
};
pub use peer::{PeerState, PeerView};
pub use refusal::{Refusal, RefusalCode};
pub use rng::SplitMix64;
pub use route::Reach;
pub use shelf::Shelf;
pub use target::{DEFAULT_PORT, ParseTargetError, Target};
