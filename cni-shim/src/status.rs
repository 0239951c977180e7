//! `STATUS` (CNI 1.1.0): whether a pod could be added now.

use control::Client;

use crate::config::{Config, Role};
use crate::error::{CniError, Code};

/// Asks the router whether it is there and, if that is its task, can hand out addresses.
pub(crate) fn status(config: &Config, router: &Client) -> Result<String, CniError> {
    // The router forwards the pods' frames itself: where it does not answer, pods are cut off.
    let status = router.status().map_err(|error| {
        CniError::new(
            Code::LimitedConnectivity,
            "the router does not answer",
            error.to_string(),
        )
    })?;
    let gives = !matches!(config.role, Role::Delegating(_));
    if gives && !status.ipam.ready {
        let reason = status
            .ipam
            .reason
            .unwrap_or_else(|| "it does not say why".to_owned());
        let msg = format!("no address of {} can be handed out now", status.ipam.range);
        return Err(CniError::new(Code::Unavailable, msg, reason));
    }
    Ok(format!("ready on node {}", status.node.name))
}
