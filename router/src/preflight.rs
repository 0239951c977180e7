//! What must be so before anything is touched, checked at once and reported together, each fault
//! with its remedy.

use std::fmt::Display;
use std::fs::{self, DirBuilder, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use crate::settings::Settings;

/// The kernel's device for TUN and TAP.
const TUN: &str = "/dev/net/tun";

/// Why the router cannot run here, all of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot run here:\n  {}", .problems.join("\n  "))]
pub struct PreflightError {
    problems: Vec<String>,
}

/// Checks the machine, and makes the state directory.
///
/// # Errors
/// Something that the router needs is missing or taken.
pub fn check(settings: &Settings) -> Result<(), PreflightError> {
    let mut problems = Vec::new();
    if !hostnet::caps::has_net_admin() {
        problems.push(
            "the capability CAP_NET_ADMIN is missing: run as root, or give it with \
             `AmbientCapabilities=CAP_NET_ADMIN` (systemd), `--cap-add NET_ADMIN` (docker) or \
             securityContext.capabilities (Kubernetes)"
                .to_owned(),
        );
    }
    if let Some(problem) = tun_problem(OpenOptions::new().read(true).write(true).open(TUN)) {
        problems.push(problem);
    }
    if let Err(error) = writable(&settings.state_dir) {
        problems.push(format!(
            "the state directory {} cannot be written: {error}: mount it writable, or choose \
             another with --state-dir",
            settings.state_dir.display()
        ));
    }
    problems.extend(port_problems(settings));
    if problems.is_empty() {
        Ok(())
    } else {
        Err(PreflightError { problems })
    }
}

/// The address for everything that is reachable from outside: the one that was set, or all of both
/// families where the kernel has both.
pub fn listen_address(settings: &Settings) -> IpAddr {
    settings.listen.unwrap_or_else(|| {
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        match UdpSocket::bind(SocketAddr::new(any, 0)) {
            Ok(_) => any,
            Err(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        }
    })
}

fn tun_problem<T>(opened: io::Result<T>) -> Option<String> {
    let error = opened.err()?;
    let remedy = match error.kind() {
        io::ErrorKind::NotFound => {
            "load the kernel's module with `modprobe tun`; in a container, mount the device from \
             the host"
        }
        io::ErrorKind::PermissionDenied => "run as root, or allow the device to the container",
        _ => "load the kernel's module with `modprobe tun`",
    };
    Some(format!("{TUN} cannot be opened: {error}: {remedy}"))
}

fn writable(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    let probe = dir.join(".writable");
    fs::write(&probe, "")?;
    fs::remove_file(&probe)
}

/// Ports that somebody else has. They are free again at once, so another may still take one before
/// the router does; that is told then, only later.
fn port_problems(settings: &Settings) -> Vec<String> {
    let ip = listen_address(settings);
    let tcp = |address| TcpListener::bind(address).err();
    let udp = |address| UdpSocket::bind(address).err();
    let control = SocketAddr::new(ip, settings.control_port);
    let vxlan = SocketAddr::new(ip, settings.vxlan_port);
    let sleeve = SocketAddr::new(ip, settings.sleeve_port);
    let mut problems = Vec::new();
    let mut note = |error: Option<io::Error>, what: &dyn Display, remedy: &str| {
        if let Some(error) = error {
            problems.push(format!(
                "{what} cannot be used: {error}: {}",
                remedy_of(&error, remedy)
            ));
        }
    };
    note(
        tcp(control),
        &format_args!("TCP {control}, for other routers,"),
        "stop what uses it (`ss -ltnp`), or choose another with --control-port",
    );
    note(
        udp(vxlan),
        &format_args!("UDP {vxlan}, for frames,"),
        "stop what uses it (`ss -lunp`; a kernel VXLAN device is listed by `ip -d link show type \
         vxlan`), or choose another with --vxlan-port on all nodes",
    );
    note(
        udp(sleeve),
        &format_args!("UDP {sleeve}, for relayed frames and probes,"),
        "stop what uses it (`ss -lunp`), or choose another with --sleeve-port",
    );
    if let Some(address) = settings.metrics_address {
        note(
            tcp(address),
            &format_args!("TCP {address}, for metrics and health,"),
            "stop what uses it (`ss -ltnp`), or choose another with --metrics-address",
        );
    }
    problems
}

fn remedy_of(error: &io::Error, in_use: &str) -> String {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => {
            "this machine does not have the address: see `ip address`".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one".to_owned()
        }
        _ => in_use.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(line: &[&str]) -> Settings {
        use crate::settings::{Options, load};
        use clap::{Args as _, FromArgMatches as _};
        let command = Options::augment_args(clap::Command::new("weft").no_binary_name(true));
        let matches = command.try_get_matches_from(line).unwrap();
        let options = Options::from_arg_matches(&matches).unwrap();
        load(options, Some(Path::new("/dev/null")), "host-1").unwrap()
    }

    #[test]
    fn every_taken_port_is_named_with_its_flag() {
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap();
        let [frames, others] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
        let [control, metrics, vxlan, sleeve] = [
            tcp.local_addr(),
            metrics.local_addr(),
            frames.local_addr(),
            others.local_addr(),
        ]
        .map(Result::unwrap);
        let settings = settings(&[
            "--listen=127.0.0.1",
            &format!("--control-port={}", control.port()),
            &format!("--vxlan-port={}", vxlan.port()),
            &format!("--sleeve-port={}", sleeve.port()),
            &format!("--metrics-address={metrics}"),
        ]);
        let problems = port_problems(&settings);
        assert_eq!(problems.len(), 4, "{problems:?}");
        for (problem, address, flag) in [
            (&problems[0], control, "--control-port"),
            (&problems[1], vxlan, "--vxlan-port"),
            (&problems[2], sleeve, "--sleeve-port"),
            (&problems[3], metrics, "--metrics-address"),
        ] {
            assert!(problem.contains(&address.to_string()), "{problem}");
            assert!(problem.contains(flag), "{problem}");
        }
    }

    #[test]
    fn an_address_of_another_machine_is_not_in_use() {
        let problems = port_problems(&settings(&["--listen=192.0.2.1", "--metrics-address=off"]));
        assert_eq!(problems.len(), 3);
        assert!(
            problems[0].contains("does not have the address"),
            "{problems:?}"
        );
    }

    #[test]
    fn a_missing_device_and_a_foreign_state_directory() {
        let missing = tun_problem(fs::File::open("/nonexistent")).unwrap();
        assert!(missing.contains("modprobe tun"), "{missing}");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(writable(&file.join("state")).is_err());
        assert!(writable(&dir.path().join("made/state")).is_ok());
    }
}
