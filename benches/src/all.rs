//! `weft-bench all`: everything one after the other into one record and one page.

use std::path::PathBuf;

use router::lab::interrupt::Interrupt;

use crate::record::Record;
use crate::{cni, mesh, mtu, overhead, pair, pods, report};

/// How much of it, and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A first look: fewer and shorter runs, whose figures are rough
    #[arg(long)]
    quick: bool,
    /// The record of every figure, for `weft-bench report` and `compare`
    #[arg(long, default_value = "weft-bench.json", value_name = "FILE")]
    out: PathBuf,
    /// The page
    #[arg(long, default_value = "weft-bench.html", value_name = "FILE")]
    html: PathBuf,
    /// Also write each plot as an SVG file into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

/// Measures, writes record and page, and fails if a check does.
pub(crate) fn run(args: &Args, interrupt: &Interrupt) -> anyhow::Result<()> {
    pods::remove_leftovers()?;
    let mut record = Record::new();
    let quick = args.quick;
    record.append(overhead::measure(
        &overhead::Args::of_all(quick),
        interrupt,
    )?);
    record.append(mtu::measure(&mtu::Args::of_all(quick), interrupt)?);
    record.append(pair::measure(&pair::Args::of_all(quick), interrupt)?);
    record.append(cni::measure(&cni::Args::of_all(quick), interrupt)?);
    record.append(mesh::measure(&mesh::Args::of_all(quick), interrupt)?);
    record.write(&args.out)?;
    println!("wrote {}", args.out.display());
    report::write(&record, &args.html, args.svg.as_deref())?;
    for not_run in &record.not_run {
        println!("not run: {}: {}", not_run.subject, not_run.reason);
    }
    record.verify()
}
