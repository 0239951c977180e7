//! Pods on bridges, which the kernel's VXLAN device, the bare underlay or a daemon's TAP joins.

use hostnet::link::{BridgeOptions, VethRequest, VxlanOptions};
use hostnet::netlink::Netlink;
use ipnet::IpNet;
use wire::Vni;

use super::{Overlay, Side, Testbed, link};

/// What the kernel uses when it is told nothing is 8472, from before there was a standard.
const VXLAN_PORT: u16 = 4789;

impl Testbed {
    /// A bridge on each node, the pod on it, and the overlay's device or the bare underlay.
    pub(super) fn kernel(&self) -> anyhow::Result<()> {
        let mtu = self.setup.kernel_mtu();
        for side in &self.sides {
            let eth0 = link(&side.node, "eth0")?.index;
            let port = if self.setup.overlay == Overlay::None {
                eth0
            } else {
                let options = VxlanOptions {
                    local: Some(self.setup.address(side.number)),
                    remote: Some(self.setup.address(3 - side.number)),
                    dev: Some(eth0),
                    mtu,
                    ..VxlanOptions::new(Vni::DEFAULT, VXLAN_PORT)
                };
                Netlink::open_in(&side.node)?.add_vxlan("vx0", &options)?
            };
            side.bridge(port, mtu)?;
        }
        Ok(())
    }
}

impl Side {
    /// A bridge with a port and the pod.
    pub(super) fn bridge(&self, port: u32, mtu: u16) -> anyhow::Result<()> {
        let mut netlink = Netlink::open_in(&self.node)?;
        let options = BridgeOptions {
            mtu,
            ..BridgeOptions::default()
        };
        let bridge = netlink.add_bridge("br0", &options)?;
        netlink.set_up(bridge)?;
        netlink.set_master(port, Some(bridge))?;
        netlink.set_up(port)?;
        self.plug(Some(bridge), mtu)?;
        let mut inside = Netlink::open_in(&self.pod)?;
        let eth0 = link(&self.pod, "eth0")?.index;
        inside.add_address(eth0, IpNet::new(self.address, 12)?)?;
        Ok(inside.set_up(eth0)?)
    }

    /// The pod's veth, up on the node's side, where it is called `pod0`.
    pub(super) fn plug(&self, master: Option<u32>, mtu: u16) -> anyhow::Result<()> {
        Netlink::open_in(&self.node)?.add_veth(&VethRequest {
            master,
            host_up: true,
            peer_ns: Some(&self.pod),
            ..VethRequest::new("pod0", "eth0", mtu)
        })?;
        Ok(())
    }
}
