//! What tests do to a world: end routers in every way and start them again, and cut nodes off.

use std::collections::BTreeSet;
use std::ffi::OsString;

use anyhow::Context as _;
use hostnet::nft::{
    Base, Chain, ChainKind, Expr, Family, Field, Hook, HookPoint, Meta, Nft, Operator, Rule, Set,
    Step, Table, Verdict,
};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::World;

/// The table of a node that is cut off from others.
const PARTED: &str = "parted";
/// Before connection tracking (`NF_IP_PRI_RAW`): no packet of the others is seen by anything.
const RAW: i32 = -300;
/// `NFPROTO_IPV4`.
const IPV4: u8 = 2;

impl World {
    /// Ends a node's router with a signal and waits until it is gone. `node` is its place in
    /// [`World::nodes`].
    ///
    /// # Errors
    /// The router does not run, or cannot be ended.
    pub fn end_router(&mut self, node: usize, signal: Signal) -> anyhow::Result<()> {
        let name = self.nodes[node].layout.name.clone();
        let mut router = self.nodes[node]
            .router
            .take()
            .context("the router does not run")?;
        let pid = i32::try_from(router.id()).context("process number out of range")?;
        kill(Pid::from_raw(pid), signal)?;
        router.wait()?;
        self.state.routers.retain(|(of, _)| *of != name);
        self.save()
    }

    /// Sends a signal to a node's router that does not end it, such as SIGSTOP and SIGCONT. `node` is
    /// its place in [`World::nodes`].
    ///
    /// # Errors
    /// The router does not run.
    pub fn signal_router(&self, node: usize, signal: Signal) -> anyhow::Result<()> {
        let router = self.nodes[node].router.as_ref();
        let router = router.context("the router does not run")?;
        let pid = i32::try_from(router.id()).context("process number out of range")?;
        Ok(kill(Pid::from_raw(pid), signal)?)
    }

    /// Starts a router again that [`World::end_router`] had ended, as it was started before but with
    /// these further arguments.
    ///
    /// # Errors
    /// This process did not build the world, or the router cannot be executed.
    pub fn start_router_again(&mut self, node: usize, further: &[&str]) -> anyhow::Result<()> {
        let mut options = self
            .options
            .clone()
            .context("this process did not build the world")?;
        options
            .router_args
            .extend(further.iter().map(OsString::from));
        self.start_router(node, &options)
    }

    /// Cuts these nodes off from all others; among themselves they still reach each other. Packets
    /// that arrive from the other side are dropped by nftables on each node, and nobody is told.
    /// Takes the place of an earlier partition.
    ///
    /// # Errors
    /// The kernel refuses. What was put in place stays: see [`World::heal`].
    pub fn part(&self, apart: &BTreeSet<usize>) -> anyhow::Result<()> {
        for (number, node) in self.nodes.iter().enumerate() {
            let others = self.nodes.iter().enumerate();
            let beyond = others
                .filter(|(other, _)| apart.contains(other) != apart.contains(&number))
                .map(|(_, other)| other.layout.address.octets().to_vec());
            let steps = [Step::Replace(parted(beyond.collect()))];
            Nft::open_in(&node.netns)?.apply(&steps)?;
        }
        Ok(())
    }

    /// Undoes [`World::part`], if anything was parted.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn heal(&self) -> anyhow::Result<()> {
        for node in &self.nodes {
            let steps = [Step::Delete(Family::Inet, PARTED.to_owned())];
            Nft::open_in(&node.netns)?.apply(&steps)?;
        }
        Ok(())
    }
}

/// Drops whatever these IPv4 addresses send.
fn parted(addresses: BTreeSet<Vec<u8>>) -> Table {
    let set = "beyond".to_owned();
    Table {
        family: Family::Inet,
        name: PARTED.to_owned(),
        counters: Vec::new(),
        sets: vec![Set {
            name: set.clone(),
            key: vec![Field::Ipv4],
            elements: addresses,
        }],
        chains: vec![Chain {
            name: "prerouting".to_owned(),
            hook: Some(Hook {
                kind: ChainKind::Filter,
                at: HookPoint::PreRouting,
                priority: RAW,
            }),
            rules: vec![Rule(vec![
                Expr::Meta(Meta::NfProto),
                Expr::Compare(Operator::Is, vec![IPV4]),
                // The source (RFC 791 §3.1).
                Expr::Payload {
                    base: Base::Network,
                    offset: 12,
                    len: 4,
                    second: false,
                },
                Expr::Lookup { set, absent: false },
                Expr::Verdict(Verdict::Drop),
            ])],
        }],
    }
}
