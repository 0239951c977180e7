//! The host's side of a pod's veth pair: found by name, known by alias.

use control::AttachmentRef;
use hostnet::{Link, LinkKind, Netlink};

use crate::error::{CniError, Code};

/// The attachment's interface on the host. `None` if there is none, an error if the name is
/// somebody else's.
pub(crate) fn find(
    netlink: &mut Netlink,
    attachment: &AttachmentRef,
) -> Result<Option<Link>, CniError> {
    let name = attachment.host_veth();
    let found = netlink
        .link(&name)
        .map_err(|error| CniError::kernel(format!("interface {name} cannot be read"), &error))?;
    match found {
        Some(link) if !is_of(&link, attachment) => Err(CniError::new(
            Code::Kernel,
            format!("interface {name} is not this container's"),
            format!(
                "its alias is {:?}; remove it if nobody uses it",
                link.alias.unwrap_or_default()
            ),
        )),
        found => Ok(found),
    }
}

/// Removes the attachment's interface, both ends. False if there was none; one of somebody else's
/// is left alone.
pub(crate) fn remove(netlink: &mut Netlink, attachment: &AttachmentRef) -> Result<bool, CniError> {
    let failed = |doing: &str, error| {
        CniError::kernel(
            format!("interface {} cannot be {doing}", attachment.host_veth()),
            &error,
        )
    };
    let found = netlink
        .link(&attachment.host_veth())
        .map_err(|error| failed("read", error))?;
    let Some(link) = found.filter(|link| is_of(link, attachment)) else {
        return Ok(false);
    };
    match netlink.delete_link(link.index) {
        Ok(()) => Ok(true),
        // The namespace is being torn down at the same moment, and takes the pair with it.
        Err(error) => match netlink.link_by_index(link.index) {
            Ok(None) => Ok(false),
            _ => Err(failed("removed", error)),
        },
    }
}

/// An interface of ours without an alias is what a killed call left between making the pair and
/// naming it.
fn is_of(link: &Link, attachment: &AttachmentRef) -> bool {
    link.kind == Some(LinkKind::Veth)
        && link
            .alias
            .as_ref()
            .is_none_or(|alias| *alias == attachment.alias())
}
