//! n2n: a supernode on the first node, an edge on each, and the pods routed through their TAPs.

use std::net::IpAddr;

use router::lab::interrupt::Interrupt;

use super::super::Testbed;
use super::MTU;

/// Where the supernode listens, in a namespace that has no other service.
const PORT: u16 = 7654;

impl Testbed {
    pub(super) fn n2n(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.daemon(0, "supernode", &["-l", &PORT.to_string()], &[])?;
        let supernode = format!("{}:{PORT}", self.setup.address(1));
        let mtu = MTU.to_string();
        for index in 0..2 {
            let address = format!("10.97.0.{}", index + 1);
            let arguments = [
                "-d",
                "tap0",
                "-a",
                &address,
                "-s",
                "255.255.255.0",
                "-c",
                "bench",
                "-k",
                "bench",
                "-l",
                &supernode,
                "-M",
                &mtu,
                "-r",
            ];
            self.daemon(index, "edge", &arguments, &[])?;
        }
        for side in &mut self.sides {
            let tap = side.device("tap0", interrupt)?;
            let gateway = IpAddr::from([10, 97, 0, 3 - side.number]);
            side.route(tap.index, Some(gateway), MTU)?;
        }
        Ok(())
    }
}
