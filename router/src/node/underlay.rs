//! The underlay, which may change while the router runs: another MTU, another address.

use std::sync::Arc;

use super::{Node, lock};
use crate::host::Underlay;

/// Raised while the pods' MTU is more than the underlay takes.
const MTU_CONDITION: &str = "mtu_too_large";

impl Node {
    /// The underlay as it was last seen.
    pub fn underlay(&self) -> Underlay {
        lock(&self.underlay).clone()
    }

    /// Looks at the underlay, and follows what has changed. The pods' MTU
    /// stays what it was: it is theirs since their start, and who sends too much is told.
    pub async fn look_at_underlay(&self) {
        let (host, towards) = (Arc::clone(&self.host), Arc::clone(&self.facts.towards));
        let looked = tokio::task::spawn_blocking(move || lock(&host).underlay(&towards)).await;
        let found = match looked {
            // While an interface is down nothing is to be learned of it.
            Ok(Ok(found)) if found.addresses.is_empty() => return,
            Ok(Ok(found)) => Underlay {
                // What encapsulation takes of it follows from the settings, which stay.
                overhead: self.facts.underlay.overhead,
                ..found
            },
            Ok(Err(error)) => {
                tracing::debug!(error = format!("{error:#}"), "cannot look at the underlay");
                return;
            }
            Err(error) => {
                tracing::error!(%error, "a look at the underlay failed");
                return;
            }
        };
        let before = std::mem::replace(&mut *lock(&self.underlay), found.clone());
        if (before.mtu, &before.addresses) == (found.mtu, &found.addresses) {
            return;
        }
        tracing::info!(
            before = before.mtu,
            mtu = found.mtu,
            addresses = ?found.addresses,
            found = found.reason,
            "the underlay has changed"
        );
        self.change_links(|switch| switch.set_underlay_mtu(found.mtu));
        self.mesh.underlay(found.mtu, found.addresses).await;
        self.judge_mtu();
    }

    /// Tells the operator if the pods' MTU does not fit the underlay.
    pub fn judge_mtu(&self) {
        let (underlay, mtu) = (self.underlay(), self.facts.mtu);
        let fits = underlay.overlay_mtu();
        if mtu <= fits {
            return self.clear(MTU_CONDITION, "");
        }
        let remedy = match self.settings.mtu {
            Some(_) => format!("set --mtu to {fits} or less, or leave it out"),
            None => format!(
                "give the underlay back its {}, or restart the router and then the pods",
                mtu.saturating_add(underlay.overhead)
            ),
        };
        let message = format!(
            "the pods' MTU of {mtu} does not fit the underlay's of {} less {} for the \
             encapsulation, so that their packets are fragmented or refused: {remedy}",
            underlay.mtu, underlay.overhead
        );
        self.raise(MTU_CONDITION, "", message);
    }
}
