//! `weft-bench report`: one HTML page out of records, with plots and nothing to be fetched when it is
//! looked at.

mod lines;
mod page;
mod plots;
mod rows;
mod style;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

use crate::record::Record;

/// Where from and where to.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What `--out` wrote; several are put together
    #[arg(required = true, value_name = "RECORD")]
    records: Vec<PathBuf>,
    /// The page
    #[arg(long, default_value = "weft-bench.html", value_name = "FILE")]
    html: PathBuf,
    /// Also write each plot as an SVG file into this directory
    #[arg(long, value_name = "DIR")]
    svg: Option<PathBuf>,
}

/// Reads the records, writes the page.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    let mut whole: Option<Record> = None;
    for path in &args.records {
        let record = Record::read(path)?;
        match &mut whole {
            None => whole = Some(record),
            Some(whole) => {
                ensure!(
                    whole.machine == record.machine,
                    "{} is of another machine than {}: use `weft-bench compare` for two machines",
                    path.display(),
                    args.records[0].display()
                );
                whole.append(record);
            }
        }
    }
    let record = whole.context("no record was given")?;
    write(&record, &args.html, args.svg.as_deref())
}

/// Writes the page, and the plots if there is a directory for them.
pub(crate) fn write(record: &Record, html: &Path, svg: Option<&Path>) -> anyhow::Result<()> {
    let plots = plots::all(record)?;
    if let Some(directory) = svg {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        for plot in &plots {
            let path = directory.join(&plot.name).with_extension("svg");
            fs::write(&path, &plot.svg)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    fs::write(html, page::render(record, &plots)?)
        .with_context(|| format!("cannot write {}", html.display()))?;
    println!("wrote {}", html.display());
    Ok(())
}
