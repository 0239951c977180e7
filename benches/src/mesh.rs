//! `weft-bench mesh`: how long real routers take until each has a link to each, when all start at once
//! and when one more comes.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hostnet::link::VethRequest;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use hostnet::{Route, sysctl};
use ipnet::{IpNet, Ipv4Net};
use router::lab::interrupt::Interrupt;
use tempfile::TempDir;

use crate::bar::Bar;
use crate::binaries::Binaries;
use crate::cpu::CpuTime;
use crate::pods;
use crate::record::{Bench, Case, Metric, Output, Record};
use crate::table::Table;
use crate::testbed::weft;

/// How many routers, how often.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Numbers of routers
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [3, 10, 25, 50],
        value_parser = clap::value_parser!(u8).range(2..=100)
    )]
    routers: Vec<u8>,
    /// Times that each cluster is built
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=50))]
    rounds: u16,
    /// Three and ten routers only
    #[arg(long)]
    quick: bool,
    #[command(flatten)]
    output: Output,
}

/// How long all may take, on a machine that is slow or busy.
const DEADLINE: Duration = Duration::from_secs(120);
/// How long a router has to end by itself before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Measures, and prints the table.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let record = measure(args, interrupt)?;
    args.output.finish(&record, |record| {
        let tables = Table::of(record, Bench::Mesh);
        tables.iter().map(Table::text).collect()
    })
}

impl Args {
    /// For `weft-bench all`.
    pub(crate) fn of_all(quick: bool) -> Self {
        Self {
            routers: vec![3, 10, 25, 50],
            rounds: 3,
            quick,
            output: Output::default(),
        }
    }
}

pub(crate) fn measure(args: &Args, interrupt: &Interrupt) -> anyhow::Result<Record> {
    let binaries = Binaries::own()?;
    let sizes = if args.quick {
        &[3, 10]
    } else {
        &args.routers[..]
    };
    let mut record = Record::new();
    let bar = Bar::new("mesh", sizes.len() * usize::from(args.rounds));
    for round in 1..=args.rounds {
        for &size in sizes {
            interrupt.check()?;
            bar.next(format!("round {round}: {size} routers"));
            let mut cluster = Cluster::new(size)?;
            let busy = CpuTime::now()?;
            let all = cluster
                .join(1..size, &binaries, interrupt)
                .with_context(|| format!("{} routers", size - 1))?;
            let busy = CpuTime::now()?.since(busy);
            let one = cluster
                .join(size..size + 1, &binaries, interrupt)
                .with_context(|| format!("router {size}"))?;
            // The one that comes last is not among those that started at once.
            push(&mut record, size - 1, Metric::Join, all);
            push(&mut record, size - 1, Metric::JoinCpu, busy);
            push(&mut record, size, Metric::JoinOne, one);
        }
    }
    Ok(record)
}

fn push(record: &mut Record, routers: u8, metric: Metric, time: Duration) {
    let case = Case {
        bench: Bench::Mesh,
        setting: "real routers on one machine, from start to a full mesh of links".to_owned(),
        subject: "weft".to_owned(),
        load: String::new(),
        metric,
        x: Some(f64::from(routers)),
    };
    record.push(case, time.as_secs_f64());
}

/// Nodes and a network between them. Removed when dropped.
#[derive(Debug)]
struct Cluster {
    directory: TempDir,
    /// The network, then the nodes.
    names: Vec<String>,
    nodes: Vec<NetNs>,
    routers: Vec<Child>,
}

impl Cluster {
    /// The network and `size` nodes, without routers.
    ///
    /// The network is routed, as in a data centre where each node has a link of its own. On one Ethernet
    /// every node would have each other one in the kernel's neighbour table, which all namespaces
    /// share, and which holds 1024 (`gc_thresh3`): fewer than fifty nodes take.
    fn new(size: u8) -> anyhow::Result<Self> {
        let mut cluster = Self {
            directory: TempDir::with_prefix(pods::name("mesh-")).context("make a directory")?,
            names: Vec::new(),
            nodes: Vec::new(),
            routers: Vec::new(),
        };
        let network = cluster.namespace("net")?;
        network.run(|| sysctl::write("net/ipv4/ip_forward", "1"))??;
        let mut netlink = Netlink::open_in(&network)?;
        for number in 1..=size {
            let node = cluster.namespace(&format!("n{number}"))?;
            let outside = format!("n{number}");
            netlink.add_veth(&VethRequest {
                host_up: true,
                peer_ns: Some(&node),
                ..VethRequest::new(&outside, "eth0", 1500)
            })?;
            let oif = index(&mut netlink, &outside)?;
            netlink.add_address(oif, alone(GATEWAY))?;
            netlink.add_route(&Route {
                dst: alone(address(number)),
                gateway: None,
                oif: Some(oif),
                src: None,
                onlink: false,
            })?;
            let mut inside = Netlink::open_in(&node)?;
            let eth0 = index(&mut inside, "eth0")?;
            inside.add_address(eth0, alone(address(number)))?;
            inside.set_up(eth0)?;
            inside.add_route(&Route {
                onlink: true,
                ..Route::default_via(GATEWAY.into(), eth0)
            })?;
            cluster.nodes.push(node);
        }
        Ok(cluster)
    }

    fn namespace(&mut self, what: &str) -> anyhow::Result<NetNs> {
        let name = pods::name(what);
        let namespace = NetNs::create(&name)?;
        self.names.push(name);
        Ok(namespace)
    }

    /// Starts routers, all at once, and waits until every router has a link to every other.
    fn join(
        &mut self,
        numbers: std::ops::Range<u8>,
        binaries: &Binaries,
        interrupt: &Interrupt,
    ) -> anyhow::Result<Duration> {
        let started = Instant::now();
        for number in numbers {
            let arguments = [
                format!("--name=n{number}"),
                "--ipam-init=seed=n1".to_owned(),
                // All know the first one; it finds nobody at its own address.
                format!("--peer={}", address(if number == 1 { 2 } else { 1 })),
            ];
            let node = &self.nodes[usize::from(number) - 1];
            let router = weft::start(&binaries.weft, node, &self.router(number), &arguments)?;
            self.routers.push(router);
        }
        let others = self.routers.len() - 1;
        for number in (1..).take(self.routers.len()) {
            weft::wait(
                &self.router(number),
                started + DEADLINE,
                interrupt,
                |status| weft::links(status) == others,
            )?;
        }
        Ok(started.elapsed())
    }

    fn router(&self, number: u8) -> PathBuf {
        self.directory.path().join(number.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // All are told before the first is waited for.
        for router in &mut self.routers {
            drop(router.stdin.take());
        }
        let end = Instant::now() + GRACE;
        for router in &mut self.routers {
            while matches!(router.try_wait(), Ok(None)) && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
            // Both do nothing to a process that has ended.
            let _ = router.kill();
            let _ = router.wait();
        }
        for name in &self.names {
            if let Err(error) = NetNs::remove(name) {
                eprintln!("weft-bench: {error}");
            }
        }
    }
}

/// The network's end of each node's link.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

fn alone(address: Ipv4Addr) -> IpNet {
    Ipv4Net::from(address).into()
}

fn index(netlink: &mut Netlink, name: &str) -> anyhow::Result<u32> {
    Ok(netlink.link(name)?.context("the veth is gone")?.index)
}

/// Inside the cluster's own namespaces.
const fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 98, 0, number)
}
