//! vpncloud as a switch, with its own encryption: its TAP is a port of the bridge.

use hostnet::Route;
use hostnet::netlink::Netlink;
use router::lab::interrupt::Interrupt;

use super::super::{Testbed, link};
use super::MTU;

const PORT: u16 = 3210;

impl Testbed {
    pub(super) fn vpncloud(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        for index in 0..2 {
            let side = &self.sides[index];
            let other = self.setup.address(3 - side.number);
            // It looks for its own address by a route to the internet, and gives up without one.
            let eth0 = link(&side.node, "eth0")?.index;
            Netlink::open_in(&side.node)?.add_route(&Route::default_via(other, eth0))?;
            let arguments = [
                "--type=tap",
                "--device=tap0",
                "--mode=switch",
                "--password=bench",
                &format!("--listen={PORT}"),
                &format!("--connect={other}:{PORT}"),
                "--no-port-forwarding",
            ];
            self.daemon(index, "vpncloud", &arguments, &[])?;
        }
        for side in &self.sides {
            let tap = side.device("tap0", interrupt)?;
            side.bridge(tap.index, MTU)?;
        }
        Ok(())
    }
}
