//! The plugin as IPAM plugin of another one, such as `macvlan` or `bridge`: addresses of the
//! overlay's range without an interface (CNI 1.1.0 §4, "Plugin Delegation").

use control::{AttachRequest, Client, ClientError, ErrorCode};
use serde_json::{Value, json};

use crate::add::{default_routes, with_gateway, with_next_hops};
use crate::config::Config;
use crate::del;
use crate::env::Parameters;
use crate::error::{CniError, Code};
use crate::result::{PrevResult, ip_entry};

/// Gets the addresses. Returns the result and what is said about it.
pub(crate) fn add(
    parameters: &Parameters,
    config: &Config,
    router: &Client,
    release: &Client,
) -> Result<(Value, String), CniError> {
    let attachment = &parameters.attachment;
    let request = AttachRequest {
        container_id: attachment.container_id.clone(),
        ifname: attachment.ifname.clone(),
        netns: None,
        network: Some(config.name.clone()),
        pod: parameters.args.pod.clone(),
        subnet: config.subnet,
        address: config.address.or(parameters.args.address),
        mac: None,
        addresses: Vec::new(),
    };
    let given = match router.attach(&request) {
        Ok(given) => given,
        Err(error) if crate::add::nothing_was_given(&error) => return Err(error.into()),
        Err(error) => {
            let undone = del::release(release, &attachment.clone().into());
            let undone: Vec<_> = undone.err().iter().map(ToString::to_string).collect();
            return Err(CniError::from(error).and(&undone));
        }
    };
    let gateways = with_gateway(config.gateway, &given.gateways);
    let routes = match &config.routes {
        // With the next hop: the plugin above looks for them as they are given, when it checks.
        Some(routes) => with_next_hops(routes.clone(), &gateways),
        None => default_routes(&gateways),
    };
    let ips: Vec<_> = given
        .addresses
        .iter()
        .map(|address| ip_entry(config.version, *address, &gateways))
        .collect();
    let summary: Vec<_> = given.addresses.iter().map(ToString::to_string).collect();
    let result = json!({
        "cniVersion": config.version.as_str(), "ips": ips, "routes": routes, "dns": {},
    });
    Ok((result, format!("{} for another plugin", summary.join(", "))))
}

/// Whether the router still holds the addresses, and `prevResult`, if there is one, has them.
pub(crate) fn check(
    parameters: &Parameters,
    config: &Config,
    router: &Client,
) -> Result<String, CniError> {
    let attachment = &parameters.attachment;
    let known = match router.attachment(attachment) {
        Ok(known) => known,
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => {
            let msg = format!("the router does not know {attachment}");
            return Err(CniError::new(Code::NotAsAdded, msg, error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(prev) = config.prev_result.clone().map(PrevResult::parse) {
        let prev = prev?;
        let lost = known
            .addresses
            .iter()
            .find(|address| !prev.ips.iter().any(|ip| ip.address == **address));
        if let Some(address) = lost {
            let msg = format!("{attachment} is not as it was added");
            let why = format!("the router gave {address}, prevResult does not have it");
            return Err(CniError::new(Code::NotAsAdded, msg, why));
        }
    }
    Ok("as it was added".to_owned())
}

/// Releases the addresses.
pub(crate) fn del(parameters: &Parameters, router: &Client) -> Result<String, CniError> {
    del::release(router, &parameters.attachment.clone().into())
}
