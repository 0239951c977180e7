//! The address plan under torture: `weft-bench torture --minutes N` does the same for longer.

use std::time::Duration;

use router::lab::interrupt::Interrupt;
use router::lab::torture::{ROUTER_ARGS, torture};

use crate::cluster::cluster;

/// Five nodes allocate and release without end while routers are killed, the underlay is parted, and
/// a node is removed and returned.
#[test]
fn i1_i2_i7_no_address_is_given_twice_or_lost() {
    let mut world = cluster(5, 0, &ROUTER_ARGS);
    let span = Duration::from_secs(60);
    let report = torture(&mut world, span, 1, &Interrupt::default());
    let report = report.unwrap_or_else(|error| panic!("{error:#}"));
    assert!(report.kills >= 3 && report.partitions >= 1, "{report:?}");
    assert!(report.removals >= 1, "{report:?}");
    assert!(
        report.tally.given > 500 && report.tally.confirmed > 0,
        "{report:?}"
    );
}
