//! `CHECK`: compares a pod's interface with what `ADD` answered.

use std::path::Path;

use control::{Attachment, Client, ClientError, ErrorCode};
use hostnet::{Link, LinkKind, Netlink};

use crate::add::{default_routes, with_gateway};
use crate::config::{Config, Role, Route};
use crate::env::Parameters;
use crate::error::{CniError, Code};
use crate::result::{Interface, PrevResult};
use crate::{namespace, veth};

/// Finds every difference, not only the first. Routes and addresses that other plugins added are
/// theirs to check.
pub(crate) fn check(
    parameters: &Parameters,
    config: &Config,
    router: &Client,
) -> Result<String, CniError> {
    let attachment = &parameters.attachment;
    let netns = parameters
        .netns
        .as_deref()
        .expect("CHECK was read with a namespace");
    let expected = Expected::read(config, &attachment.ifname, netns)?;
    let ns = namespace::open(netns)?;
    let known = match router.attachment(attachment) {
        Ok(known) => known,
        Err(ClientError::Api(error)) if error.code == ErrorCode::NotFound => {
            let msg = format!("the router does not know {attachment}");
            return Err(CniError::new(Code::NotAsAdded, msg, error.to_string()));
        }
        Err(error) => return Err(error.into()),
    };
    let mut host =
        Netlink::open().map_err(|error| CniError::kernel("netlink cannot be opened", &error))?;
    let mut pod = Netlink::open_in(&ns)
        .map_err(|error| CniError::kernel("netlink cannot be opened in the pod", &error))?;

    let mut faults = expected.compare_addresses_with(&known);
    let link = pod
        .link(&attachment.ifname)
        .map_err(|error| CniError::kernel("the pod's interfaces cannot be read", &error))?;
    let pod_index = link.as_ref().map(|link| link.index);
    match link {
        None => faults.push(format!("{} is not in the pod", attachment.ifname)),
        Some(link) => {
            faults.extend(expected.compare_link(&link));
            faults.extend(expected.compare_pod(&mut pod, &link, config, &known)?);
        }
    }
    let bridge = host.link(&known.bridge).map_err(|error| {
        CniError::kernel(format!("bridge {} cannot be read", known.bridge), &error)
    })?;
    match veth::find(&mut host, attachment)? {
        None => faults.push(format!("{} is not on the host", attachment.host_veth())),
        Some(link) => {
            if !link.up {
                faults.push(format!("{} is down", link.name));
            }
            if pod_index.is_some() && link.peer_index != pod_index {
                let ifname = &attachment.ifname;
                faults.push(format!("{} is not the other end of {ifname}", link.name));
            }
            if link.master.is_none() || link.master != bridge.map(|bridge| bridge.index) {
                faults.push(format!(
                    "{} is not on the bridge {}",
                    link.name, known.bridge
                ));
            }
        }
    }
    if faults.is_empty() {
        return Ok("as it was added".to_owned());
    }
    let msg = format!("{attachment} is not as it was added");
    Err(CniError::new(Code::NotAsAdded, msg, faults.join("; ")))
}

/// What `prevResult` says of the interface.
struct Expected {
    interface: Interface,
    addresses: Vec<ipnet::IpNet>,
    routes: Vec<Route>,
}

impl Expected {
    fn read(config: &Config, ifname: &str, netns: &Path) -> Result<Self, CniError> {
        let bad = |details: String| {
            CniError::new(
                Code::InvalidConfig,
                "CHECK needs the prevResult of the ADD",
                details,
            )
        };
        let raw = config
            .prev_result
            .clone()
            .ok_or_else(|| bad("it is missing".to_owned()))?;
        let prev = PrevResult::parse(raw)?;
        let is_ours = |interface: &Interface| {
            interface.name == ifname && Path::new(&interface.sandbox) == netns
        };
        let place = prev
            .interfaces
            .iter()
            .position(is_ours)
            .ok_or_else(|| bad(format!("it does not list {ifname} in {}", netns.display())))?;
        let on_it = prev.ips.iter().filter(|ip| ip.interface == Some(place));
        Ok(Self {
            interface: prev.interfaces[place].clone(),
            addresses: on_it.map(|ip| ip.address).collect(),
            routes: prev.routes,
        })
    }

    /// The router's view against the runtime's.
    fn compare_addresses_with(&self, known: &Attachment) -> Vec<String> {
        let lost = known
            .addresses
            .iter()
            .filter(|address| !self.addresses.contains(address));
        lost.map(|address| format!("the router gave {address}, prevResult does not have it"))
            .collect()
    }

    fn compare_link(&self, link: &Link) -> Vec<String> {
        let mut faults = Vec::new();
        let name = &link.name;
        if link.kind != Some(LinkKind::Veth) {
            faults.push(format!("{name} in the pod is not a veth"));
        }
        if !link.up {
            faults.push(format!("{name} in the pod is down"));
        }
        if let Some(mac) = self.interface.mac.filter(|mac| *mac != link.mac) {
            faults.push(format!(
                "{name} in the pod has the MAC {}, not {mac}",
                link.mac
            ));
        }
        if let Some(mtu) = self.interface.mtu.filter(|mtu| *mtu != link.mtu) {
            faults.push(format!(
                "{name} in the pod has an MTU of {}, not {mtu}",
                link.mtu
            ));
        }
        faults
    }

    /// Addresses and routes that this plugin set and that `prevResult` still lists.
    fn compare_pod(
        &self,
        pod: &mut Netlink,
        link: &Link,
        config: &Config,
        known: &Attachment,
    ) -> Result<Vec<String>, CniError> {
        let mut faults = Vec::new();
        let failed = |what: &'static str| {
            move |error| CniError::kernel(format!("the pod's {what} cannot be read"), &error)
        };
        let addresses = pod.addresses(link.index).map_err(failed("addresses"))?;
        for address in self
            .addresses
            .iter()
            .filter(|address| !addresses.contains(address))
        {
            faults.push(format!("{} in the pod does not have {address}", link.name));
        }
        let routes = pod.routes(Some(link.index)).map_err(failed("routes"))?;
        let ours = match (&config.routes, &config.role) {
            (Some(routes), _) => routes.clone(),
            // The routes are those that the other plugin named then, whatever it would name now.
            (None, Role::Delegating(_)) => self.routes.clone(),
            (None, _) => default_routes(&with_gateway(config.gateway, &known.gateways)),
        };
        let listed = self.routes.iter().filter(|listed| {
            ours.iter()
                .any(|own| own.dst == listed.dst && (own.gw.is_none() || own.gw == listed.gw))
        });
        for route in listed {
            let there = routes.iter().any(|found| {
                found.dst == route.dst && found.gateway == route.gw && found.oif == Some(link.index)
            });
            if !there {
                let via = route.gw.map(|gw| format!(" via {gw}")).unwrap_or_default();
                faults.push(format!("the pod has no route to {}{via}", route.dst));
            }
        }
        Ok(faults)
    }
}
