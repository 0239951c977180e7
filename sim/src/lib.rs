//! A cluster in virtual time.
//!
//! **Role.** Runs the very state machines that the router runs, many of them, over a network that
//! has latency, loses connections, falls into parts and comes back, with machines that crash, stop
//! and return. Probes and pods' frames cross it as datagrams, which are lost, doubled, overtake each
//! other, are too large, are blocked one way or both, and pass through NATs. A day passes in a blink,
//! and the same seed gives the same day.
//!
//! **Inputs.** A seed, and what a test does to the [`Cluster`]. **Outputs.** What each node's data
//! path was told, and [checks](check) of the invariants that must hold.
//!
//! A scenario is a function of a cluster; [`run`] plays it for many seeds. When one fails it is
//! played again with its trace written down, and the end of the trace is shown. A scenario that does
//! not come to its end within its [`Budget`] has failed, too.

mod agenda;
pub mod check;
mod cluster;
mod control;
mod data;
mod frames;
mod network;
mod node;
pub mod plan;
mod play;
pub mod pool;
pub mod scale;
mod sealing;
mod trace;
mod traffic;
mod underlay;

pub use cluster::{Budget, Cluster};
pub use frames::{Frame, Frames};
pub use node::{Link, Node, hello};
pub use play::run;
pub use traffic::{Peak, Traffic};
pub use underlay::Rule;
