//! Who a pod thinks is at an address: its kernel's neighbour table.

use std::net::IpAddr;

use anyhow::Context;
use hostnet::netlink::Netlink;
use wire::Mac;

use crate::lab::layout::IFNAME;
use crate::lab::report::NeighbourReport;
use crate::lab::world::{Pod, World};

/// What a pod's table holds of other pods, in the order of the pods.
pub fn of(pod: &Pod, world: &World) -> anyhow::Result<Vec<NeighbourReport>> {
    let mut netlink = Netlink::open_in(&pod.netns)?;
    let link = netlink
        .link(IFNAME)?
        .with_context(|| format!("{} has no {IFNAME}", pod.layout.name))?;
    let table: Vec<_> = netlink.neighbours(link.index)?;
    Ok(world
        .pods
        .iter()
        .filter_map(|other| {
            let address: IpAddr = other.address.addr();
            let entry = table.iter().find(|entry| entry.address == address)?;
            let mac = Some(entry.mac).filter(|mac| *mac != Mac::ZERO)?;
            Some(NeighbourReport {
                pod: pod.layout.name.clone(),
                neighbour: other.layout.name.clone(),
                address,
                mac,
                is_own: mac == other.mac,
            })
        })
        .collect())
}

/// The MTU of a pod's interface.
pub fn mtu(pod: &Pod) -> anyhow::Result<u16> {
    let mut netlink = Netlink::open_in(&pod.netns)?;
    let link = netlink
        .link(IFNAME)?
        .with_context(|| format!("{} has no {IFNAME}", pod.layout.name))?;
    Ok(u16::try_from(link.mtu).unwrap_or(u16::MAX))
}
