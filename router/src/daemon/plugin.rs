//! Installs the plugin once pods can be attached, and again if somebody removes it.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::http::metrics::Observed as _;
use crate::install::CniDirs;
use crate::node::Node;

/// Between looks whether pods can be attached.
const TURN: Duration = Duration::from_secs(1);
/// Between looks whether all is still there, in turns.
const LOOK_EVERY: u32 = 30;
/// Raised while it cannot be installed.
const CONDITION: &str = "cni_install";

/// Never returns. A node that is not ready any more keeps the plugin: it says so itself when it is
/// asked (`STATUS`), and pods of this node still have to be detached.
pub(super) async fn keep_plugin(node: Arc<Node>, dirs: CniDirs) -> &'static str {
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0u32;
    let mut was_ready = false;
    loop {
        turns.tick().await;
        turn = turn.wrapping_add(1);
        if was_ready && !turn.is_multiple_of(LOOK_EVERY) {
            continue;
        }
        if !was_ready && !node.readiness().await.reasons.is_empty() {
            continue;
        }
        let (dirs, socket) = (dirs.clone(), node.settings().socket.clone());
        let installed = tokio::task::spawn_blocking(move || dirs.install(&socket)).await;
        match installed {
            Ok(Ok(changed)) => {
                was_ready = true;
                node.clear(CONDITION, "");
                if changed {
                    tracing::info!("the plugin and its configuration are installed");
                }
            }
            Ok(Err(error)) => {
                was_ready = true;
                let error = format!("{:#}", anyhow::Error::from(error));
                node.raise(CONDITION, "", error);
            }
            Err(error) => tracing::error!(%error, "installing the plugin failed"),
        }
    }
}
