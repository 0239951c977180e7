//! A cluster on one machine: nodes and pods as network namespaces, wired as real ones would be.
//!
//! ```text
//!   weft-lab-node1-pod1   weft-lab-node1-pod2         weft-lab-node2-pod1   ..
//!        eth0 \              / eth0                        eth0 |
//!      veth by weft-cni    veth by weft-cni              veth by weft-cni
//!          ┌───\────────────/────────┐               ┌──────────|───────────┐
//!          │   bridge weft           │               │     bridge weft      │
//!          │   TAP weft-tap          │               │     TAP weft-tap     │
//!          │   weft run --name node1 │               │     weft run ..      │
//!          │   eth0 10.99.0.1        │               │     eth0 10.99.0.2   │
//!          └────────|────────────────┘               └──────────|───────────┘
//!               weft-lab-node1                             weft-lab-node2
//!          ┌────────|───────────────────────────────────────────|───────────┐
//!          │      node1             bridge underlay           node2         │
//!          └────────────────────────────────────────────────────────────────┘
//!                                  weft-lab-underlay
//! ```
//!
//! Nothing is made in the namespace of the caller. A world that is not detached dies with its
//! owner: by [`World::destroy`], on drop, and when the owner is killed its routers end by
//! themselves, because their standard input is a pipe that only the owner holds.

mod faults;

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use control::{Client, Status};
use hostnet::link::{BridgeOptions, VethRequest};
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;
use ipnet::{IpNet, Ipv4Net};
use wire::Mac;

use super::cleanup::{Leftovers, counted};
use super::interrupt::Interrupt;
use super::layout::{
    self, IFNAME, Layout, NodeLayout, PodLayout, UNDERLAY_BRIDGE, UNDERLAY_PREFIX,
};
use super::plugin::Plugin;
use super::preflight;
use super::process::ProcessId;
use super::progress::Progress;
use super::state::{LabState, PodState};

/// How long the routers have to find each other. It takes well under a second; a machine that is
/// busy with a build needs more.
const JOIN_DEADLINE: Duration = Duration::from_secs(30);
/// How long the first router may take to start before the others are started anyway.
const START_PATIENCE: Duration = Duration::from_secs(2);
/// How long one status request may take.
const STATUS_DEADLINE: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// Lines of a router's log that go with an error.
const LOG_TAIL: usize = 15;

/// What to build.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// Nodes, pods, names.
    pub layout: Layout,
    /// The executable `weft`.
    pub weft: PathBuf,
    /// The plugin; none: `weft` itself, executed as `weft-cni`.
    pub cni: Option<PathBuf>,
    /// Whether the world outlives its owner.
    pub detached: bool,
    /// Further arguments for every router.
    pub router_args: Vec<OsString>,
}

/// Nodes and pods that exist.
#[derive(Debug)]
pub struct World {
    /// The nodes in order.
    pub nodes: Vec<Node>,
    /// The pods of all nodes, in the order of the nodes.
    pub pods: Vec<Pod>,
    state: LabState,
    plugin: Plugin,
    /// What it was built from, if this process built it.
    options: Option<WorldOptions>,
    standing: bool,
}

/// A namespace with an interface on the underlay and a router.
#[derive(Debug)]
pub struct Node {
    /// Its names and addresses.
    pub layout: NodeLayout,
    /// Its network namespace.
    pub netns: NetNs,
    /// The router, if this process started it.
    router: Option<Child>,
}

/// A namespace that `weft-cni` attached to its node.
#[derive(Debug)]
pub struct Pod {
    /// Its names.
    pub layout: PodLayout,
    /// Its network namespace.
    pub netns: NetNs,
    /// Its address with the prefix length of the overlay's range.
    pub address: IpNet,
    /// Next hop of its default route.
    pub gateway: Option<std::net::IpAddr>,
    /// The address of its interface.
    pub mac: Mac,
}

impl World {
    /// Builds a world in which every router has found every other and every pod is attached. What
    /// cannot be completed is removed again, and the error ends with the routers' logs.
    ///
    /// The caller holds the [`LabLock`](super::state::LabLock) of the same name, and has removed
    /// what an earlier world of that name left.
    pub fn build(
        options: &WorldOptions,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> anyhow::Result<Self> {
        preflight::check_size(&options.layout)?;
        let mut world = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
            state: LabState {
                layout: options.layout.clone(),
                detached: options.detached,
                ready: false,
                routers: Vec::new(),
                pods: Vec::new(),
            },
            plugin: Plugin::new(options.cni.as_deref(), &options.weft),
            options: Some(options.clone()),
            standing: true,
        };
        match world.construct(options, interrupt, progress) {
            Ok(()) => Ok(world),
            Err(error) => {
                let logs = if interrupt.check().is_err() {
                    String::new()
                } else {
                    world.log_tails()
                };
                progress.step("taking the lab down");
                let removed = world.destroy();
                let error = if logs.is_empty() {
                    error
                } else {
                    anyhow!("{error:#}\n{logs}")
                };
                Err(match removed {
                    Ok(()) => error,
                    Err(left) => error.context(left),
                })
            }
        }
    }

    /// The world of this name that another process built and left standing.
    pub fn open(state: LabState, weft: &Path) -> anyhow::Result<Self> {
        let open = |name: &str| {
            NetNs::open(&NetNs::path(name)).with_context(|| format!("the lab has lost {name}"))
        };
        let nodes = state
            .layout
            .nodes()
            .map(|layout| {
                Ok(Node {
                    netns: open(&layout.netns)?,
                    layout,
                    router: None,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let pods = state
            .layout
            .pods()
            .filter_map(|layout| {
                let pod = state.pods.iter().find(|pod| pod.name == layout.name)?;
                Some((layout, pod))
            })
            .map(|(layout, pod)| {
                Ok(Pod {
                    netns: open(&layout.netns)?,
                    layout,
                    address: pod.address,
                    gateway: pod.gateway,
                    mac: pod.mac,
                })
            })
            .collect::<anyhow::Result<_>>()?;
        let plugin = Plugin::new(None, weft);
        Ok(Self {
            nodes,
            pods,
            state,
            plugin,
            options: None,
            standing: true,
        })
    }

    /// The shape that was asked for.
    pub const fn layout(&self) -> &Layout {
        &self.state.layout
    }

    /// The node that a pod runs on.
    pub fn node_of(&self, pod: &Pod) -> &Node {
        &self.nodes[usize::from(pod.layout.node) - 1]
    }

    /// Detaches the pods, ends the routers and removes every trace.
    pub fn destroy(mut self) -> anyhow::Result<()> {
        self.tear_down()
    }

    /// The end of each router's log, for a person who wants to know what went wrong.
    pub fn log_tails(&self) -> String {
        let tails: Vec<_> = self
            .nodes
            .iter()
            .filter_map(|node| {
                let text = fs::read_to_string(&node.layout.log).ok()?;
                let lines: Vec<_> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(LOG_TAIL)..];
                Some(format!(
                    "--- last lines of {}:\n{}",
                    node.layout.log.display(),
                    if tail.is_empty() {
                        "(nothing)".to_owned()
                    } else {
                        tail.join("\n")
                    }
                ))
            })
            .collect();
        tails.join("\n")
    }

    fn construct(
        &mut self,
        options: &WorldOptions,
        interrupt: &Interrupt,
        progress: &mut Progress,
    ) -> anyhow::Result<()> {
        let layout = &options.layout;
        fs::create_dir_all(layout.dir())
            .with_context(|| format!("cannot make {}", layout.dir().display()))?;
        self.save()?;

        progress.step(format!(
            "making {} on one network",
            counted(usize::from(layout.nodes), "node")
        ));
        self.make_nodes(layout, interrupt)?;

        progress.step("starting a router on each");
        for index in 0..self.nodes.len() {
            self.start_router(index, options)?;
            if index == 0 {
                // All others dial it: if it listens before, nobody has to try twice.
                self.wait_answering(index, interrupt)?;
            }
        }

        progress.step("waiting for the routers to find each other");
        self.wait_joined(interrupt, progress)?;

        progress.step(format!(
            "attaching {} with {}",
            counted(usize::from(layout.nodes) * usize::from(layout.pods), "pod"),
            self.plugin
        ));
        for pod in layout.pods() {
            interrupt.check()?;
            progress.detail(&pod.name);
            self.attach(pod)?;
        }
        self.state.ready = true;
        self.save()?;
        progress.finish();
        Ok(())
    }

    fn make_nodes(&mut self, layout: &Layout, interrupt: &Interrupt) -> anyhow::Result<()> {
        let underlay = NetNs::create(&layout.underlay_netns())?;
        let mut netlink = Netlink::open_in(&underlay)?;
        let bridge = netlink.add_bridge(
            UNDERLAY_BRIDGE,
            &BridgeOptions {
                mac: None,
                mtu: layout.underlay_mtu,
                alias: None,
            },
        )?;
        netlink.set_up(bridge)?;
        for node in layout.nodes() {
            interrupt.check()?;
            let netns = NetNs::create(&node.netns)?;
            netlink.add_veth(&VethRequest {
                host: &node.name,
                mtu: layout.underlay_mtu,
                host_mac: None,
                master: Some(bridge),
                hairpin: false,
                host_up: true,
                peer_name: IFNAME,
                peer_ns: Some(&netns),
                peer_mac: None,
                alias: None,
            })?;
            let mut inside = Netlink::open_in(&netns)?;
            let link = inside
                .link(IFNAME)?
                .with_context(|| format!("{} has no {IFNAME}", node.name))?;
            inside.add_address(
                link.index,
                Ipv4Net::new(node.address, UNDERLAY_PREFIX)?.into(),
            )?;
            inside.set_up(link.index)?;
            fs::create_dir_all(&node.dir)
                .with_context(|| format!("cannot make {}", node.dir.display()))?;
            self.nodes.push(Node {
                layout: node,
                netns,
                router: None,
            });
        }
        Ok(())
    }

    fn start_router(&mut self, index: usize, options: &WorldOptions) -> anyhow::Result<()> {
        let seeds: Vec<_> = options.layout.nodes().map(|node| node.name).collect();
        let first = options.layout.node(1);
        let Node {
            layout: node,
            netns,
            router,
        } = &mut self.nodes[index];
        let log = File::create(&node.log)
            .with_context(|| format!("cannot make {}", node.log.display()))?;
        let output = log
            .try_clone()
            .context("cannot use the router's log twice")?;

        let mut command = Command::new(&options.weft);
        command.arg0("weft");
        command
            .arg("run")
            .args(["--config", "/dev/null", "--name", &node.name]);
        command
            .arg("--socket")
            .arg(&node.socket)
            .arg("--state-dir")
            .arg(&node.state_dir);
        if !options.router_args.iter().any(|arg| arg == "--ipam-init") {
            command
                .arg("--ipam-init")
                .arg(format!("seed={}", seeds.join(",")));
        }
        if node.number != first.number {
            command.arg("--peer").arg(first.address.to_string());
        }
        if !options.detached {
            command.arg("--exit-with-stdin");
        }
        command.args(&options.router_args);
        // What is set for a router of this machine is not meant for the lab's.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("WEFT_")) {
                command.env_remove(name);
            }
        }
        // A process group of its own: Ctrl-C is for the lab, which then ends the routers in order.
        command
            .stdin(if options.detached {
                Stdio::null()
            } else {
                Stdio::piped()
            })
            .stdout(output)
            .stderr(log)
            .process_group(0);
        let child = netns
            .run(|| command.spawn())?
            .with_context(|| format!("cannot execute {}", options.weft.display()))?;
        let pid = child.id();
        *router = Some(child);
        let process = ProcessId::started(pid, node.socket.as_os_str())
            .with_context(|| format!("the router of {} did not start", node.name))?;
        self.state.routers.push((node.name.clone(), process));
        self.save()
    }

    /// Waits until a router has started so far that it answers, or until it is clear that it is
    /// slow: the next wait will tell.
    fn wait_answering(&mut self, index: usize, interrupt: &Interrupt) -> anyhow::Result<()> {
        let end = Instant::now() + START_PATIENCE;
        let node = &mut self.nodes[index];
        while node.status().is_err() && Instant::now() < end {
            node.check_running()?;
            interrupt.sleep(POLL)?;
        }
        Ok(())
    }

    /// Waits until every router has a link to every other and can hand out addresses.
    fn wait_joined(&mut self, interrupt: &Interrupt, progress: &Progress) -> anyhow::Result<()> {
        let end = Instant::now() + JOIN_DEADLINE;
        let others = self.nodes.len() - 1;
        loop {
            let mut waiting = None;
            for node in &mut self.nodes {
                node.check_running()?;
                if let Some(reason) = node.unready(others) {
                    waiting = Some(format!("{}: {reason}", node.layout.name));
                    break;
                }
            }
            let Some(reason) = waiting else { return Ok(()) };
            progress.detail(&reason);
            if Instant::now() > end {
                bail!("the routers did not find each other within {JOIN_DEADLINE:?}: {reason}");
            }
            interrupt.sleep(POLL)?;
        }
    }

    fn attach(&mut self, layout: PodLayout) -> anyhow::Result<()> {
        let netns = NetNs::create(&layout.netns)?;
        let node = &self.nodes[usize::from(layout.node) - 1];
        let attached = self.plugin.add(&node.layout, &node.netns, &layout)?;
        self.state.pods.push(PodState {
            name: layout.name.clone(),
            address: attached.address,
            gateway: attached.gateway,
            mac: attached.mac,
        });
        self.save()?;
        self.pods.push(Pod {
            layout,
            netns,
            address: attached.address,
            gateway: attached.gateway,
            mac: attached.mac,
        });
        Ok(())
    }

    fn save(&self) -> anyhow::Result<()> {
        self.state.save().with_context(|| {
            format!(
                "cannot write in {}",
                layout::dir_of(&self.state.layout.name).display()
            )
        })
    }

    fn tear_down(&mut self) -> anyhow::Result<()> {
        self.standing = false;
        let mut problems = Vec::new();
        for pod in &self.pods {
            let node = self.node_of(pod);
            if let Err(error) = self.plugin.del(&node.layout, &node.netns, &pod.layout) {
                problems.push(format!("{error:#}"));
            }
        }
        // SIGTERM, all at once, and then the reaping that only their parent can do.
        let routers: Vec<_> = self
            .state
            .routers
            .iter()
            .map(|(_, process)| process.clone())
            .collect();
        if let Err(error) = ProcessId::end_all(&routers) {
            problems.push(error.to_string());
        }
        for child in self
            .nodes
            .iter_mut()
            .filter_map(|node| node.router.as_mut())
        {
            drop(child.stdin.take());
            if let Err(error) = child.try_wait() {
                problems.push(error.to_string());
            }
        }
        self.nodes.clear();
        self.pods.clear();
        if let Err(error) = Leftovers::find(&self.state.layout.name).remove() {
            problems.push(error.to_string());
        }
        // Empty unless the caller's lock lies in it, and then the caller's to remove.
        let _ = fs::remove_dir(layout::dir_of(&self.state.layout.name));
        if problems.is_empty() {
            Ok(())
        } else {
            Err(anyhow!(problems.join("; ")))
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if self.standing && !self.state.detached {
            // Nobody is left to hear of it; the next lab finds what remains.
            let _ = self.tear_down();
        }
    }
}

impl Node {
    /// What the router says about itself.
    pub fn status(&self) -> Result<Status, control::ClientError> {
        Client::new(&self.layout.socket, STATUS_DEADLINE).status()
    }

    /// Fails if the router has ended.
    fn check_running(&mut self) -> anyhow::Result<()> {
        match self
            .router
            .as_mut()
            .map(Child::try_wait)
            .transpose()?
            .flatten()
        {
            Some(status) => bail!("the router of {} ended with {status}", self.layout.name),
            None => Ok(()),
        }
    }

    /// Why this node cannot do its work yet; none if it can.
    fn unready(&self, peers: usize) -> Option<String> {
        let status = match self.status() {
            Ok(status) => status,
            Err(error) => return Some(error.to_string()),
        };
        let up = status
            .peers
            .iter()
            .filter(|peer| peer.state.is_open())
            .count();
        if up < peers {
            let reason = status
                .peers
                .iter()
                .find(|peer| !peer.state.is_open())
                .and_then(|peer| Some(format!(" ({}: {})", peer.name, peer.reason.as_ref()?)))
                .unwrap_or_default();
            return Some(format!("{up} of {} up{reason}", counted(peers, "peer")));
        }
        if !status.ipam.ready {
            let reason = status
                .ipam
                .reason
                .unwrap_or_else(|| "no reason given".to_owned());
            return Some(format!("cannot hand out addresses: {reason}"));
        }
        None
    }
}
