//! `GC` (CNI 1.1.0): removes what belongs to attachments that are no more.

use control::{Client, GcRequest};
use hostnet::Netlink;

use crate::config::Config;
use crate::error::{CniError, Code};
use crate::veth;

/// Releases every address whose attachment the runtime does not list, and removes the interfaces
/// that are left of them. Goes on after an error, and reports all of them.
pub(crate) fn gc(config: &Config, router: &Client) -> Result<String, CniError> {
    // An absent list is not an empty one: it would take the network from every pod.
    let keep = config.valid_attachments.clone().ok_or_else(|| {
        let msg = "cni.dev/valid-attachments is missing";
        CniError::new(
            Code::InvalidConfig,
            msg,
            "GC needs the list of valid attachments",
        )
    })?;
    let kept = keep.len();
    let network = Some(config.name.clone());
    let collected = router.gc(&GcRequest { network, keep })?;
    let mut netlink =
        Netlink::open().map_err(|error| CniError::kernel("netlink cannot be opened", &error))?;
    let mut errors = Vec::new();
    for released in &collected.released {
        if let Err(error) = veth::remove(&mut netlink, &released.attachment) {
            errors.push(error.to_string());
        }
    }
    if errors.is_empty() {
        return Ok(format!(
            "released {}, kept {kept}",
            collected.released.len()
        ));
    }
    let msg = "some interfaces of released attachments cannot be removed";
    Err(CniError::new(Code::Kernel, msg, "").and(&errors))
}
