//! The command line of the lab.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow, bail};
use clap::{Subcommand, value_parser};
use hostnet::netns::NetNs;

use super::cleanup::Leftovers;
use super::examine::{Examination, examine};
use super::interrupt::{Interrupt, Interrupted};
use super::layout::{Layout, MAX_NODES, MAX_PODS};
use super::page;
use super::preflight;
use super::progress::Progress;
use super::report::Report;
use super::state::{LabLock, LabState};
use super::status;
use super::world::{World, WorldOptions};

/// Smallest MTU of the underlay: what is left of it for the pods must hold the smallest IPv6
/// packet that every link carries, 1280 bytes (RFC 8200 §5), and the encapsulation.
const MIN_UNDERLAY_MTU: i64 = 1280 + 70;
/// Largest MTU that a veth takes.
const MAX_UNDERLAY_MTU: i64 = 65_535;

/// Exit status of `exec` if the command could not be started, as shells have it.
const EXIT_CANNOT_EXECUTE: u8 = 126;
const EXIT_NO_SUCH_COMMAND: u8 = 127;

/// Build a cluster of network namespaces on this machine, try it, show what happened, remove it
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    build: BuildArgs,
    #[command(flatten)]
    show: ShowArgs,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build a cluster and leave it standing
    Up(BuildArgs),
    /// Run a command in a pod or on a node of the standing cluster
    Exec(ExecArgs),
    /// Show the nodes, links and pods of the standing cluster
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Try everything in the standing cluster and show what happened
    Show(ShowArgs),
    /// Remove the standing cluster, or what is left of one
    Down,
}

#[derive(Debug, clap::Args)]
struct BuildArgs {
    /// Number of nodes
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u16).range(2..=i64::from(MAX_NODES)))]
    nodes: u16,
    /// Number of pods on each node
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = value_parser!(u16).range(1..=i64::from(MAX_PODS)))]
    pods: u16,
    /// MTU of the network between the nodes
    #[arg(long, value_name = "BYTES", default_value_t = 1500, value_parser = value_parser!(u16).range(MIN_UNDERLAY_MTU..=MAX_UNDERLAY_MTU))]
    underlay_mtu: u16,
    /// Execute this plugin instead of this executable under the name weft-cni
    #[arg(long, value_name = "PATH")]
    cni: Option<PathBuf>,
    /// What the routers log, as in `weft run`; their last lines are shown if something fails
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Print one JSON document instead of the page
    #[arg(long)]
    json: bool,
    /// Do not measure TCP throughput
    #[arg(long)]
    no_throughput: bool,
}

#[derive(Debug, clap::Args)]
struct ExecArgs {
    /// A pod or a node, as `weft lab status` names them
    #[arg(value_name = "POD|NODE")]
    place: String,
    /// The command and its arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Does what the arguments say.
///
/// # Errors
/// The lab cannot run here, or could not be built or removed.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    preflight::check()?;
    let done = match &args.verb {
        None => once(&args.build, &args.show),
        Some(Verb::Up(build)) => up(build),
        Some(Verb::Exec(exec)) => execute(exec),
        Some(Verb::Status { json }) => status::print(&standing()?, *json),
        Some(Verb::Show(show)) => show_standing(show),
        Some(Verb::Down) => down(),
    };
    match done {
        Err(error) if error.is::<Interrupted>() => {
            eprintln!("interrupted; the lab is gone");
            Ok(ExitCode::from(Interrupt::EXIT))
        }
        done => done,
    }
}

/// Build, show, remove.
fn once(build: &BuildArgs, show: &ShowArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot catch signals")?;
    let mut progress = Progress::stderr();
    let lock = LabLock::take(Layout::DEFAULT_NAME)?;
    let examined = build_and_examine(build, show, &interrupt, &mut progress);
    drop(progress);
    lock.remove().context("cannot remove the lock")?;
    let (report, logs) = examined?;
    present(&report, show, &logs, false)
}

/// What was found in a lab that is gone again, and the ends of its logs if it did not work.
fn build_and_examine(
    build: &BuildArgs,
    show: &ShowArgs,
    interrupt: &Interrupt,
    progress: &mut Progress,
) -> anyhow::Result<(Report, String)> {
    clear_ground(progress)?;
    let world = World::build(&build.options(false), interrupt, progress)?;
    let examined = examine(&world, show.what(), interrupt, progress);
    let examined = with_logs(&world, examined);
    progress.step("taking the lab down");
    let removed = world.destroy();
    progress.finish();
    let examined = examined?;
    removed?;
    Ok(examined)
}

fn up(build: &BuildArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot catch signals")?;
    let mut progress = Progress::stderr();
    let lock = LabLock::take(Layout::DEFAULT_NAME)?;
    let built = clear_ground(&mut progress)
        .and_then(|()| World::build(&build.options(true), &interrupt, &mut progress));
    drop(progress);
    lock.remove().context("cannot remove the lock")?;
    let world = built?;
    status::print(&world, false)?;
    let addresses = world.pods.iter().map(|pod| pod.address.addr().to_string());
    print(&format!("\n{}", farewell(addresses, true)))?;
    Ok(ExitCode::SUCCESS)
}

fn show_standing(show: &ShowArgs) -> anyhow::Result<ExitCode> {
    let interrupt = Interrupt::install().context("cannot catch signals")?;
    let world = standing()?;
    let mut progress = Progress::stderr();
    let examined = examine(&world, show.what(), &interrupt, &mut progress);
    drop(progress);
    let (report, logs) = with_logs(&world, examined)?;
    present(&report, show, &logs, true)
}

/// The report, and if anything failed the ends of the routers' logs, with an error as well.
fn with_logs(world: &World, examined: anyhow::Result<Report>) -> anyhow::Result<(Report, String)> {
    match examined {
        Ok(report) if report.ok => Ok((report, String::new())),
        Ok(report) => Ok((report, world.log_tails())),
        Err(error) if error.is::<Interrupted>() => Err(error),
        Err(error) => Err(anyhow!("{error:#}\n{}", world.log_tails())),
    }
}

fn down() -> anyhow::Result<ExitCode> {
    let lock = LabLock::take(Layout::DEFAULT_NAME)?;
    let removed = remove_lab(&mut Progress::stderr());
    lock.remove().context("cannot remove the lock")?;
    removed?;
    Ok(ExitCode::SUCCESS)
}

fn remove_lab(progress: &mut Progress) -> anyhow::Result<()> {
    let leftovers = Leftovers::find(Layout::DEFAULT_NAME);
    if leftovers.is_empty() {
        progress.note("there is no lab here");
        return Ok(());
    }
    progress.step(format!("removing {}", leftovers.summary()));
    // A lab that is whole says goodbye in order; of any other, everything is removed as it is.
    let standing = LabState::load(Layout::DEFAULT_NAME).filter(LabState::is_up);
    match standing.map(|state| World::open(state, &weft())) {
        Some(Ok(world)) => world.destroy()?,
        Some(Err(_)) | None => leftovers.remove()?,
    }
    progress.finish();
    Ok(())
}

/// Becomes the command, inside the namespace. Only returns if that fails.
fn execute(exec: &ExecArgs) -> anyhow::Result<ExitCode> {
    let state = LabState::load(Layout::DEFAULT_NAME).context(NO_LAB)?;
    let layout = &state.layout;
    let places: Vec<_> = layout
        .nodes()
        .map(|node| (node.name, node.netns))
        .chain(layout.pods().map(|pod| (pod.name, pod.netns)))
        .chain([("underlay".to_owned(), layout.underlay_netns())])
        .collect();
    let Some((_, netns)) = places
        .iter()
        .find(|(name, netns)| [name, netns].contains(&&exec.place))
    else {
        let names: Vec<_> = places.iter().map(|(name, _)| name.as_str()).collect();
        bail!(
            "the lab has no {:?}; it has {}",
            exec.place,
            names.join(", ")
        );
    };
    let [program, arguments @ ..] = exec.command.as_slice() else {
        bail!("there is no command")
    };
    // execve keeps the namespace of the thread that calls it, and ends all others.
    let error =
        NetNs::open(&NetNs::path(netns))?.run(|| Command::new(program).args(arguments).exec())?;
    eprintln!("weft lab exec: {}: {error}", program.display());
    Ok(ExitCode::from(match error.kind() {
        io::ErrorKind::NotFound => EXIT_NO_SUCH_COMMAND,
        _ => EXIT_CANNOT_EXECUTE,
    }))
}

const NO_LAB: &str = "there is no lab here: build one with `weft lab up`";

/// The lab that an earlier `weft lab up` left standing.
fn standing() -> anyhow::Result<World> {
    let state = LabState::load(Layout::DEFAULT_NAME).context(NO_LAB)?;
    if !state.ready {
        bail!("the lab is not complete: wait for its builder, or remove it with `weft lab down`");
    }
    World::open(state, &weft())
}

/// Removes what a crashed lab left; a standing one is left alone. The caller has the lock.
fn clear_ground(progress: &mut Progress) -> anyhow::Result<()> {
    if LabState::load(Layout::DEFAULT_NAME).is_some_and(|state| state.detached && state.is_up()) {
        bail!(
            "a lab stands here already: look at it with `weft lab status` or `weft lab show`, \
             or remove it with `weft lab down`"
        );
    }
    let leftovers = Leftovers::find(Layout::DEFAULT_NAME);
    if !leftovers.is_empty() {
        progress.step(format!(
            "removing what an earlier lab left: {}",
            leftovers.summary()
        ));
        leftovers.remove()?;
    }
    Ok(())
}

/// Prints the report in the form that was asked for; what went wrong goes to standard error too.
fn present(report: &Report, show: &ShowArgs, logs: &str, stands: bool) -> anyhow::Result<ExitCode> {
    if show.json {
        print(&(serde_json::to_string_pretty(report)? + "\n"))?;
    } else {
        print(&page::render(report))?;
        if report.ok {
            let addresses = report.pods.iter().map(|pod| pod.address.addr().to_string());
            print(&format!("\n{}", farewell(addresses, stands)))?;
        }
    }
    if report.ok {
        return Ok(ExitCode::SUCCESS);
    }
    if show.json {
        eprint!("{}", page::verdict(report));
    }
    eprintln!("{logs}");
    eprintln!(
        "To look into it yourself: `weft lab up`, then `weft lab status` and `weft lab exec`."
    );
    Ok(ExitCode::FAILURE)
}

fn farewell(addresses: impl Iterator<Item = String>, stands: bool) -> String {
    page::farewell("node1-pod1", &addresses.last().unwrap_or_default(), stands)
}

/// To standard output; a reader that has gone is no failure of the lab.
fn print(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// This executable. In the process that executes it this link names the same file, also if a new
/// one has taken its name since.
fn weft() -> PathBuf {
    PathBuf::from("/proc/self/exe")
}

impl BuildArgs {
    fn options(&self, detached: bool) -> WorldOptions {
        WorldOptions {
            layout: Layout {
                name: Layout::DEFAULT_NAME.to_owned(),
                nodes: self.nodes,
                pods: self.pods,
                underlay_mtu: self.underlay_mtu,
            },
            weft: weft(),
            cni: self.cni.clone(),
            detached,
            router_args: self
                .log_level
                .iter()
                .flat_map(|level| ["--log-level".into(), level.into()])
                .collect(),
        }
    }
}

impl ShowArgs {
    const fn what(&self) -> Examination {
        Examination {
            skip_throughput: self.no_throughput,
        }
    }
}
