//! The torture test of the address plan, for as long as is asked for.

use std::time::Duration;

use hostnet::caps;
use router::lab::interrupt::Interrupt;
use router::lab::layout::Layout;
use router::lab::progress::Progress;
use router::lab::torture::{ROUTER_ARGS, torture};
use router::lab::world::{World, WorldOptions};

use crate::binaries::Binaries;

/// Flags of `weft-bench torture`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How long
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    minutes: u32,

    /// Routers
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(3..=20))]
    nodes: u16,

    /// What the choices are made from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    if !caps::has_net_admin() {
        anyhow::bail!(
            "making network namespaces needs CAP_NET_ADMIN and CAP_SYS_ADMIN: run as root"
        );
    }
    let options = WorldOptions {
        layout: Layout {
            name: format!("torture{}", std::process::id()),
            nodes: args.nodes,
            pods: 0,
            underlay_mtu: 1500,
        },
        weft: Binaries::own()?.weft,
        cni: None,
        detached: false,
        router_args: ROUTER_ARGS.iter().map(Into::into).collect(),
    };
    let mut world = World::build(&options, interrupt, &mut Progress::silent())?;
    let span = Duration::from_secs(60) * args.minutes;
    let report = torture(&mut world, span, args.seed, interrupt)?;
    let tally = report.tally;
    println!(
        "{} routers for {} minutes, seed {}: no address was given twice, none was lost\n",
        args.nodes, args.minutes, args.seed
    );
    for (what, count) in [
        ("addresses given", tally.given),
        ("taken back", tally.returned),
        ("confirmed", tally.confirmed),
        ("requests that failed", tally.failed),
        ("routers killed", report.kills.into()),
        ("partitions", report.partitions.into()),
        ("removals and returns", report.removals.into()),
    ] {
        println!("{what:22}{count:>9}");
    }
    world.destroy()
}
