//! A cluster in virtual time.
//!
//! **Role.** Runs the very state machines that the router runs, many of them, over a network that
//! has latency, loses connections, falls into parts and comes back, with machines that crash, stop
//! and return. A day passes in a blink, and the same seed gives the same day.
//!
//! **Inputs.** A seed, and what a test does to the [`Cluster`]. **Outputs.** What each node's data
//! path was told, and [checks](check) of the invariants that must hold.
//!
//! A scenario is a function of a cluster; [`run`] plays it for many seeds. When one fails it is
//! played again with its trace written down, and the end of the trace is shown.

pub mod check;
mod cluster;
mod network;
mod node;
pub mod plan;
pub mod pool;
mod trace;

use std::ops::Range;

pub use cluster::Cluster;
pub use node::{Node, hello};

/// Distance between the seeds of two rounds; more than any test has.
const ROUND: u64 = 1_000_000;

/// Plays a scenario once for each seed.
///
/// With `WEFT_SIM_ROUNDS=n` in the environment, n times as many seeds are played: the same ones
/// first, then others.
///
/// # Panics
/// A seed fails. The text has the seed, what was wrong, and the last events before it.
pub fn run(seeds: Range<u64>, scenario: impl Fn(&mut Cluster) -> Result<(), String>) {
    let rounds = std::env::var("WEFT_SIM_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let all = (0..rounds.unwrap_or(1)).flat_map(|round| {
        let from = round * ROUND;
        seeds.start + from..seeds.end + from
    });
    for seed in all {
        if let Err(error) = scenario(&mut Cluster::new(seed)) {
            let mut cluster = Cluster::new(seed);
            cluster.write_trace();
            let again = scenario(&mut cluster).err();
            assert_eq!(
                again.as_ref(),
                Some(&error),
                "seed {seed} does not repeat itself"
            );
            panic!("seed {seed}: {error}\n{}", cluster.trace_end());
        }
    }
}
