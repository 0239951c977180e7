//! `weft doctor`: looks at this node and says what is wrong with it and what to do.

use std::fs::{self, OpenOptions};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::Client;
use hostnet::nft::{Family, Nft, NftError};
use hostnet::sysctl;

use super::router::RouterArgs;
use crate::doctor::{Level, Seen, examine};
use crate::install::PLUGIN;

/// How long the router may take to answer.
const DEADLINE: Duration = Duration::from_secs(5);

/// Flags of `weft doctor`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,

    /// Where the container runtime finds plugins
    #[arg(
        long,
        env = "WEFT_CNI_BIN_DIR",
        value_name = "DIR",
        default_value = "/opt/cni/bin"
    )]
    bin_dir: PathBuf,

    /// Where the container runtime finds networks
    #[arg(
        long,
        env = "WEFT_CNI_CONF_DIR",
        value_name = "DIR",
        default_value = "/etc/cni/net.d"
    )]
    conf_dir: PathBuf,

    /// TCP port of the connections between routers
    #[arg(
        long,
        env = "WEFT_CONTROL_PORT",
        value_name = "PORT",
        default_value_t = 6783
    )]
    control_port: u16,

    /// UDP port of the data path
    #[arg(
        long,
        env = "WEFT_VXLAN_PORT",
        value_name = "PORT",
        default_value_t = 6784
    )]
    vxlan_port: u16,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let found = examine(&look(args));
    for finding in &found {
        println!("{finding}");
    }
    if found.iter().any(|finding| finding.level == Level::Bad) {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

fn look(args: &Args) -> Seen {
    let router = Client::new(args.router.socket(), DEADLINE).status();
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/net/tun");
    let (nftables, forward_drops) = match nftables() {
        Ok(drops) => (None, drops),
        Err(error) => (Some(error.to_string()), Vec::new()),
    };
    Seen {
        tun: tun.err().map(|error| error.to_string()),
        nftables,
        forwarding: sysctl::read("net/ipv4/ip_forward").is_ok_and(|value| value == "1"),
        forward_drops,
        // A router that runs has them.
        ports: match router {
            Ok(_) => Vec::new(),
            Err(_) => ports(args),
        },
        conflists: conflists(args),
        plugin: args.bin_dir.join(PLUGIN).is_file(),
        clock: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs(),
        router: Some(router.map_err(|error| error.to_string())),
    }
}

fn nftables() -> Result<Vec<String>, NftError> {
    let mut nft = Nft::open()?;
    nft.observe(Family::Bridge, "weft")?;
    nft.forward_drops()
}

fn ports(args: &Args) -> Vec<String> {
    let any = Ipv4Addr::UNSPECIFIED;
    let mut held = Vec::new();
    if TcpListener::bind((any, args.control_port)).is_err() {
        held.push(format!("TCP {}", args.control_port));
    }
    for port in [args.control_port, args.vxlan_port] {
        if UdpSocket::bind((any, port)).is_err() {
            held.push(format!("UDP {port}"));
        }
    }
    held
}

/// The files that a runtime would look at, in its order.
fn conflists(args: &Args) -> Option<Vec<String>> {
    let entries = fs::read_dir(&args.conf_dir).ok()?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let counts = |name: &String| {
        let kinds = [".conflist", ".conf", ".json"];
        kinds.iter().any(|kind| name.ends_with(kind))
    };
    let mut names: Vec<_> = names.filter(counts).collect();
    names.sort();
    Some(names)
}
