//! Finds out which multicast groups the node's pods listen to, and tells the data path and the others.

use std::sync::Arc;
use std::time::Duration;

use mesh::Groups;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::memberships::{Memberships, queries};
use crate::node::Node;

/// Between changes at least, however fast pods come and go: joins are to count within a second.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest wait, so that it shows that the loop turns.
const TURN: Duration = Duration::from_secs(1);
/// Messages that are taken at once.
const BURST: usize = 1024;

/// Follows what pods say.
pub(super) async fn follow_groups(
    node: Arc<Node>,
    mut said: mpsc::Receiver<Vec<u8>>,
) -> &'static str {
    let ticker = node.loops().register("the group keeper");
    let mut memberships = Memberships::new(node.now());
    let mut told = Groups::All;
    let mut burst = Vec::new();
    loop {
        ticker.tick();
        let now = node.now();
        if memberships.take_due(now) {
            node.tell_pods(&queries(node.bridge_mac()));
        }
        let groups = memberships.groups(now);
        if groups != told {
            tracing::debug!(?groups, "the multicast groups of this node");
            node.set_groups([(None, groups.clone())]);
            node.mesh().groups(groups.clone()).await;
            told = groups;
        }
        let wait = memberships.next(now).saturating_sub(now).min(TURN);
        match timeout(wait, said.recv_many(&mut burst, BURST)).await {
            Ok(0) => return "the data path",
            Ok(_) => {
                let now = node.now();
                for message in burst.drain(..) {
                    memberships.hear(&message, now);
                }
                sleep(PAUSE).await;
            }
            Err(_) => {}
        }
    }
}
