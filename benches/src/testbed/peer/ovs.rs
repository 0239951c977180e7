//! Open vSwitch with its userspace datapath: a database and a switch on each node, the underlay on one
//! of its bridges and the pod with a VXLAN port on another (its manual, "Connecting VMs using tunnels
//! (userspace)").

use hostnet::ethtool::{self, Feature};
use hostnet::netlink::Netlink;
use ipnet::IpNet;
use router::lab::interrupt::Interrupt;

use super::super::{Testbed, link};
use super::wait_for;

/// The schema of its database, where Debian has it.
const SCHEMA: &str = "/usr/share/openvswitch/vswitch.ovsschema";

impl Testbed {
    pub(super) fn ovs(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let mtu = self.setup.kernel_mtu();
        for index in 0..2 {
            let number = self.sides[index].number;
            let directory = self.directory.path().join(format!("ovs{number}"));
            std::fs::create_dir(&directory)?;
            let at = |name: &str| directory.join(name).display().to_string();
            let run = directory.display().to_string();
            let environment = [("OVS_RUNDIR", run.as_str()), ("OVS_DBDIR", run.as_str())];
            let database = format!("unix:{}", at("db.sock"));
            self.call(index, "ovsdb-tool", &["create", &at("conf.db"), SCHEMA])?;
            let server = [
                at("conf.db"),
                format!("--remote=p{database}"),
                format!("--unixctl={}", at("ovsdb.ctl")),
            ];
            self.daemon(index, "ovsdb-server", &server, &environment)?;
            wait_for(&directory.join("db.sock"), interrupt)?;
            let vsctl = format!("--db={database}");
            self.call(
                index,
                "ovs-vsctl",
                &[&vsctl, "--timeout=10", "--no-wait", "init"],
            )?;
            let switch = [database, format!("--unixctl={}", at("vswitchd.ctl"))];
            self.daemon(index, "ovs-vswitchd", &switch, &environment)?;

            let side = &self.sides[index];
            side.plug(None, mtu)?;
            // Its datapath takes frames whose checksum is left to the device for damaged.
            side.pod
                .run(|| ethtool::set("eth0", Feature::TxChecksum, false))??;
            let remote = format!("options:remote_ip={}", self.setup.address(3 - number));
            let words = "--timeout=10 add-br under -- set bridge under datapath_type=netdev \
                 -- add-port under eth0 \
                 -- add-br over -- set bridge over datapath_type=netdev \
                 -- add-port over pod0 -- add-port over vx -- set interface vx type=vxlan \
                 options:key=1";
            let mut arguments: Vec<_> = words.split_whitespace().collect();
            arguments.insert(0, &vsctl);
            arguments.push(&remote);
            self.call(index, "ovs-vsctl", &arguments)?;

            let under = side.device("under", interrupt)?.index;
            let mut netlink = Netlink::open_in(&side.node)?;
            let address = IpNet::new(self.setup.address(number), 24)?;
            let eth0 = link(&side.node, "eth0")?.index;
            netlink.del_address(eth0, address)?;
            netlink.add_address(under, address)?;
            netlink.set_up(under)?;
            let mut inside = Netlink::open_in(&side.pod)?;
            let eth0 = link(&side.pod, "eth0")?.index;
            inside.add_address(eth0, IpNet::new(side.address, 12)?)?;
            inside.set_up(eth0)?;
        }
        Ok(())
    }
}
