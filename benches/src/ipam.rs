//! The address pool as the router runs it, thread, disk and sync: how long one address takes, and
//! how many there are in a second when many are asked for at once.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use ipam::AllocationKey;
use router::io::ipam_service::{self, IpamHandle, IpamInit, IpamOptions};
use router::lab::interrupt::Interrupt;
use tempfile::TempDir;

use crate::latency::{Latency, Micros};

/// More than any disk needs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Flags of `weft-bench ipam`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Addresses asked for, one after the other and then all at once
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    addresses: u32,

    /// Where the record is kept while it is measured [default: a temporary directory]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Runs the verb.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Runtime::new().context("start a runtime")?;
    let dir = match &args.dir {
        Some(dir) => TempDir::new_in(dir),
        None => TempDir::new(),
    };
    let dir = dir.context("cannot make a directory")?;
    println!(
        "{} addresses, each durable before it is answered\n",
        args.addresses
    );
    println!(
        "{:20}{:>10}{:>12}{:>12}",
        "at a time", "p50", "p99", "a second"
    );
    runtime.block_on(async {
        let pool = ipam_service::start(IpamOptions {
            me: "bench".parse()?,
            range: "10.32.0.0/12".parse()?,
            init: IpamInit::Seed(vec!["bench".parse()?]),
            state_dir: dir.path().to_owned(),
            hold_down: Duration::from_secs(60),
            expects_peers: false,
            default_subnet: None,
        })?;
        for at_a_time in [1, 16, 256, args.addresses] {
            interrupt.check()?;
            let (latency, rate) = measure(&pool, at_a_time, args.addresses).await?;
            println!(
                "{at_a_time:<20}{:>10}{:>12}{rate:>12.0}",
                Micros(latency.p50_ns),
                Micros(latency.p99_ns)
            );
        }
        pool.close().await?;
        Ok(())
    })
}

/// Allocates so many addresses, that many at a time, and releases them again.
async fn measure(
    pool: &IpamHandle,
    at_a_time: u32,
    addresses: u32,
) -> anyhow::Result<(Latency, f64)> {
    let key = move |i: u32| AllocationKey::new(format!("bench-{at_a_time}-{i}"), "eth0");
    let began = Instant::now();
    let tasks: Vec<_> = (0..at_a_time)
        .map(|first| {
            let pool = pool.clone();
            tokio::spawn(async move {
                let mut took = Vec::new();
                for i in (first..addresses).step_by(at_a_time as usize) {
                    let asked = Instant::now();
                    pool.allocate(key(i)?, None, None, DEADLINE).await?;
                    took.push(asked.elapsed());
                }
                anyhow::Ok(took)
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let span = began.elapsed();
    let mut releases = Vec::new();
    for i in 0..addresses {
        let (pool, key) = (pool.clone(), key(i)?);
        releases.push(tokio::spawn(async move { pool.release(key).await }));
    }
    for release in releases {
        release.await??;
    }
    let latency = Latency::of(took).context("nothing was measured")?;
    Ok((latency, f64::from(addresses) / span.as_secs_f64()))
}
