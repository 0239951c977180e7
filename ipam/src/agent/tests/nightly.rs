//! A cluster that grows every morning and shrinks every night, as autoscalers make it.

use std::time::Duration;

use super::world::{World, seeds};
use crate::ring::tests::name;

const NIGHTS: usize = 6;
const NODES: usize = 10;
const PODS: usize = 20;
/// What an orchestrator and the others need to notice and confirm.
const SOON: Duration = Duration::from_secs(5);

/// Each day's nodes are new ones and get a block each; in a week they get several times the range.
#[test]
fn i2_a_cluster_that_grows_and_shrinks_every_night_never_runs_out() {
    let mut world = World::of("10.0.0.0/20", &["base"], &["base"]);
    for night in 0..NIGHTS {
        let nodes: Vec<_> = (0..NODES).map(|node| format!("n{night}-{node}")).collect();
        for node in &nodes {
            world.start(node, seeds(&["base"]));
            world.pass(Duration::from_secs(1));
        }
        for node in &nodes {
            for pod in 0..PODS {
                let pod = format!("{node}-pod{pod}");
                world
                    .allocate_within(node, &pod, SOON)
                    .unwrap_or_else(|error| panic!("night {night}, {pod}: {error}"));
            }
        }
        for node in &nodes {
            world.crash(node);
        }
        for node in &nodes {
            world.remove("base", node);
        }
        world.pass(SOON);
        let owned = world.agent("base").ring().owned_by(&name("base")).size();
        assert_eq!(owned, 4096, "night {night}");
        assert!(world.agent("base").view().waiting.is_empty());
    }
}
