//! `DEL`: takes a pod's interface away and gives its address back.

use control::{Client, ClientError, DetachRequest, ErrorCode, pending};
use hostnet::Netlink;

use crate::env::Parameters;
use crate::error::{CniError, Code};
use crate::namespace::{self, Held};
use crate::veth;

/// Removes the interface, then releases the address, in this order: an address is never free
/// while a pod may still use it. Whatever is gone already is no error, and neither is an absent
/// namespace or router.
pub(crate) fn del(parameters: &Parameters, router: &Client) -> Result<String, CniError> {
    let attachment = &parameters.attachment;
    // If an ADD for the container is still at work, its undoing and ours would mix. A namespace
    // that is gone has nobody in it; one that stays busy is not waited for any longer.
    let _held = match &parameters.netns {
        Some(path) => namespace::open(path)
            .ok()
            .and_then(|ns| Held::wait(&ns).ok()),
        None => None,
    };
    let mut netlink =
        Netlink::open().map_err(|error| CniError::kernel("netlink cannot be opened", &error))?;
    let interface = match veth::remove(&mut netlink, attachment)? {
        true => "interface removed",
        false => "no interface left",
    };
    let address = release(router, &attachment.clone().into())?;
    Ok(format!("{interface}, {address}"))
}

/// Releases an address, or notes the release for the router to find.
pub(crate) fn release(router: &Client, request: &DetachRequest) -> Result<String, CniError> {
    let error = match router.detach(request) {
        Ok(detached) if detached.released.is_empty() => return Ok("no address held".to_owned()),
        Ok(detached) => {
            let released: Vec<_> = detached.released.iter().map(ToString::to_string).collect();
            return Ok(format!("{} released", released.join(", ")));
        }
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => {
            return Ok("no address held".to_owned());
        }
        Err(error) => error,
    };
    match pending::note(router.socket(), request) {
        Ok(_) => Ok(format!(
            "the release of the address is noted for later ({error})"
        )),
        Err(io) => Err(CniError::new(
            Code::TryAgainLater,
            "the address can neither be released nor noted for release",
            error.to_string(),
        )
        .and(&[format!(
            "{}: {io}",
            pending::directory(router.socket()).display()
        )])),
    }
}
