//! The address plan under torture: real routers that hand out and take back addresses without end
//! while they are killed, cut off from each other, declared gone and brought back.
//!
//! A *clerk* for each node does what a container runtime does, over the control socket. All clerks
//! write into one *ledger*, which notices at once when an address is given twice, and at the end is
//! compared with what the nodes say they hold: no address twice (I1), none lost (I2, I7).

mod clerk;
mod ledger;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use control::{Client, IpamStatus, RemoveRequest};
use mesh::SplitMix64;
use nix::sys::signal::Signal;

use self::clerk::Clerk;
use self::ledger::Ledger;
pub use self::ledger::Tally;
use super::interrupt::Interrupt;
use super::world::World;
use crate::node::BRIDGE_HOLDER;

/// What routers are to be started with: a range so small that space has to move all the time, and a
/// rest so short that addresses are used again at once.
pub const ROUTER_ARGS: [&str; 4] = ["--range", "10.32.0.0/23", "--ipam-hold-down", "1s"];

/// How long one request may take.
const REQUEST: Duration = Duration::from_secs(2);
/// How long the cluster may take to settle when all is well again.
const SETTLE: Duration = Duration::from_secs(60);
/// How often one node is removed and returned.
const REMOVE_EVERY: Duration = Duration::from_secs(30);

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Report {
    /// What the clerks did.
    pub tally: Tally,
    /// Routers killed.
    pub kills: u32,
    /// Times that the underlay was parted.
    pub partitions: u32,
    /// Nodes removed and returned.
    pub removals: u32,
}

/// Tortures a world of at least three nodes, without pods of its own, started with
/// [`ROUTER_ARGS`]. The same seed makes the same choices, though not the same run.
///
/// # Errors
/// An invariant is broken, or the cluster does not settle: the text says what and which seed.
pub fn torture(
    world: &mut World,
    span: Duration,
    seed: u64,
    interrupt: &Interrupt,
) -> anyhow::Result<Report> {
    let ledger = Arc::new(Ledger::default());
    let mut torturer = Torturer {
        clerks: (0..world.nodes.len())
            .map(|node| Staffed::start(world, node, &ledger, seed))
            .collect(),
        ledger,
        random: SplitMix64::new(seed),
        report: Report::default(),
        world,
    };
    let tortured = torturer.run(span, interrupt);
    tortured.with_context(|| format!("seed {seed}, {:?}", torturer.report))?;
    torturer.report.tally = torturer.ledger.tally();
    Ok(torturer.report)
}

/// A clerk at work.
struct Staffed {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Clerk>>,
}

impl Staffed {
    fn start(world: &World, node: usize, ledger: &Arc<Ledger>, seed: u64) -> Self {
        let client = Client::new(&world.nodes[node].layout.socket, REQUEST);
        Self::resume(Clerk::new(node, client, Arc::clone(ledger), seed))
    }

    fn resume(mut clerk: Clerk) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !told.load(Relaxed) {
                clerk.turn();
            }
            clerk
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn dismiss(&mut self) -> anyhow::Result<Clerk> {
        self.stop.store(true, Relaxed);
        let thread = self.thread.take().context("the clerk does not work")?;
        thread.join().map_err(|_| anyhow::anyhow!("a clerk failed"))
    }
}

impl Drop for Staffed {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

struct Torturer<'a> {
    world: &'a mut World,
    clerks: Vec<Staffed>,
    ledger: Arc<Ledger>,
    random: SplitMix64,
    report: Report,
}

impl Torturer<'_> {
    fn run(&mut self, span: Duration, interrupt: &Interrupt) -> anyhow::Result<()> {
        let end = Instant::now() + span;
        let mut removal = Instant::now() + span.min(REMOVE_EVERY) / 2;
        while Instant::now() < end {
            interrupt.check()?;
            if Instant::now() >= removal {
                self.remove_and_return()?;
                removal += REMOVE_EVERY;
            } else if self.random.below(3) == 0 {
                self.part(interrupt)?;
            } else {
                let node = self.any_node();
                self.kill(node)?;
            }
            self.pause(800, interrupt)?;
            self.ledger.verdict()?;
        }
        self.settle(interrupt)
    }

    fn any_node(&mut self) -> usize {
        let nodes = self.world.nodes.len() as u64;
        usize::try_from(self.random.below(nodes)).unwrap_or(0)
    }

    fn pause(&mut self, most_ms: u64, interrupt: &Interrupt) -> anyhow::Result<()> {
        interrupt.sleep(Duration::from_millis(self.random.below(most_ms)))?;
        Ok(())
    }

    /// Kills a router in the middle of its work, and starts it again.
    fn kill(&mut self, node: usize) -> anyhow::Result<()> {
        self.world.end_router(node, Signal::SIGKILL)?;
        self.report.kills += 1;
        self.start(node)
    }

    fn start(&mut self, node: usize) -> anyhow::Result<()> {
        // The first was named nobody, because all others dial it.
        let other = self.world.nodes[1].layout.address.to_string();
        let further = ["--peer", other.as_str()];
        let further = if node == 0 { &further[..] } else { &[] };
        self.world.start_router_again(node, further)
    }

    /// Parts the underlay for a while, in which routers may be killed too.
    fn part(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        let apart = [self.any_node(), self.any_node()];
        self.world.part(&apart.into())?;
        self.report.partitions += 1;
        self.pause(2500, interrupt)?;
        if self.random.below(2) == 0 {
            let node = self.any_node();
            self.kill(node)?;
        }
        self.pause(2500, interrupt)?;
        self.world.heal()
    }

    /// A node dies with its containers, is declared gone, and comes back with its old disk.
    fn remove_and_return(&mut self) -> anyhow::Result<()> {
        self.wait("all are ready before a removal", |status| {
            status
                .iter()
                .all(|ipam| ipam.ready && ipam.waiting.is_empty())
        })?;
        let gone = self.any_node();
        let name = self.world.nodes[gone].layout.name.parse()?;
        let mut clerk = self.clerks[gone].dismiss()?;
        self.world.end_router(gone, Signal::SIGKILL)?;
        clerk.containers_died();
        let heir = (gone + 1) % self.world.nodes.len();
        let client = Client::new(&self.world.nodes[heir].layout.socket, REQUEST);
        let request = RemoveRequest { name };
        let end = Instant::now() + SETTLE;
        while let Err(error) = client.remove(&request) {
            if Instant::now() > end {
                bail!("{} cannot be removed: {error}", request.name);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.wait_but(
            gone,
            "the removal is known to all and confirmed",
            |status| {
                status.iter().all(|ipam| {
                    let gone = ipam.peers.iter().find(|peer| peer.name == request.name);
                    gone.is_some_and(|peer| peer.gone && peer.owned == 0) && ipam.waiting.is_empty()
                })
            },
        )?;
        self.report.removals += 1;
        self.start(gone)?;
        // Its runtime releases what the dead containers held, and asks for others: where nearly all
        // is in use, space moves to those for whom somebody waits.
        self.clerks[gone] = Staffed::resume(clerk);
        self.wait("the node is back", |status| {
            status.iter().all(|ipam| ipam.ready)
        })
    }

    /// All works again, everybody is idle, and the books are compared.
    fn settle(&mut self, interrupt: &Interrupt) -> anyhow::Result<()> {
        self.world.heal()?;
        for clerk in &mut self.clerks {
            clerk.stop.store(true, Relaxed);
        }
        let mut clerks = Vec::new();
        for clerk in &mut self.clerks {
            clerks.push(clerk.dismiss()?);
        }
        self.wait("all are ready at the end", |status| {
            status
                .iter()
                .all(|ipam| ipam.ready && ipam.waiting.is_empty())
        })?;
        for clerk in &mut clerks {
            interrupt.check()?;
            clerk.make_certain(SETTLE)?;
        }
        self.ledger.verdict()?;
        let what = "all agree who owns what, and every address is used or free";
        self.wait(what, |status| {
            // The bridge of a node that was removed keeps its address.
            let only_bridges = |ipam: &IpamStatus| {
                let mut held = ipam.estranged.iter();
                held.all(|held| held.holder.contains(BRIDGE_HOLDER))
            };
            let mut pairs = status.windows(2);
            pairs.all(|two| owners(&two[0]) == owners(&two[1]))
                && status.iter().all(only_bridges)
                && ledger::whole(status) == ledger::HOSTS
        })?;
        let status = self.status(None)?;
        self.ledger.compare(&status)
    }

    fn status(&self, without: Option<usize>) -> anyhow::Result<Vec<IpamStatus>> {
        let nodes = self.world.nodes.iter().enumerate();
        let nodes = nodes.filter(|(number, _)| Some(*number) != without);
        nodes.map(|(_, node)| Ok(node.status()?.ipam)).collect()
    }

    fn wait(&self, what: &str, holds: impl Fn(&[IpamStatus]) -> bool) -> anyhow::Result<()> {
        self.wait_for(None, what, holds)
    }

    fn wait_but(
        &self,
        without: usize,
        what: &str,
        holds: impl Fn(&[IpamStatus]) -> bool,
    ) -> anyhow::Result<()> {
        self.wait_for(Some(without), what, holds)
    }

    fn wait_for(
        &self,
        without: Option<usize>,
        what: &str,
        holds: impl Fn(&[IpamStatus]) -> bool,
    ) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLE;
        loop {
            self.ledger.verdict()?;
            let status = self.status(without);
            if status.as_ref().is_ok_and(|status| holds(status)) {
                return Ok(());
            }
            if Instant::now() > end {
                bail!(
                    "not within {SETTLE:?}: {what}: {}\n{}",
                    brief(status),
                    self.world.log_tails()
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

fn owners(ipam: &IpamStatus) -> Vec<(&str, u64)> {
    let peers = ipam.peers.iter();
    peers.map(|peer| (peer.name.as_str(), peer.owned)).collect()
}

/// What matters of each node, for whoever has to understand a failure.
fn brief(status: anyhow::Result<Vec<IpamStatus>>) -> String {
    let nodes = match status {
        Ok(nodes) => nodes,
        Err(error) => return format!("{error:#}"),
    };
    let line = |ipam: &IpamStatus| {
        format!(
            "\n  ready {} ({:?}), used {}, free {}, waiting {:?}, estranged {:?}, blocked {:?}, \
             owners {:?}",
            ipam.ready,
            ipam.reason,
            ipam.used,
            ipam.free,
            ipam.waiting,
            ipam.estranged,
            ipam.blocked,
            owners(ipam)
        )
    };
    nodes.iter().map(line).collect()
}
