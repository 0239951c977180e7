//! Whether this machine and this user can run a lab, asked before anything is made.

use std::fs::{self, File};
use std::io;

use super::layout::Layout;

/// Capabilities that a lab needs (`linux/capability.h`), with what for.
const NEEDED: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "make interfaces"),
    (13, "CAP_NET_RAW", "ping and capture"),
    (21, "CAP_SYS_ADMIN", "make network namespaces"),
];

const TUN: &str = "/dev/net/tun";
/// Entries that the IPv4 neighbour tables of all namespaces may hold together (arp(7)).
const NEIGHBOUR_LIMIT: &str = "/proc/sys/net/ipv4/neigh/default/gc_thresh3";
const DEFAULT_NEIGHBOUR_LIMIT: u32 = 1024;
const NEIGHBOUR_STATISTICS: &str = "/proc/net/stat/arp_cache";
/// Entries for what else the machine does meanwhile.
const NEIGHBOUR_MARGIN: u32 = 64;

/// Why a lab cannot run here.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// Not root, or a root without power.
    #[error(
        "weft lab needs {name} to {purpose}, and this process does not have it: run it as root \
         (`sudo weft lab`), in a container with --privileged"
    )]
    Capability {
        /// The capability.
        name: &'static str,
        /// What the lab does with it.
        purpose: &'static str,
    },
    /// No TAP devices.
    #[error(
        "weft lab needs {TUN}, which cannot be opened ({error}): load the module with \
         `modprobe tun`, or give the container `--device {TUN}`"
    )]
    Tun {
        /// What the kernel said.
        error: io::Error,
    },
    /// More pods than the kernel's table of neighbours holds.
    #[error(
        "{nodes} nodes with {pods} pods each, of which every one talks to every other, need \
         {needed} entries in the kernel's neighbour table, which has room for {room} in all \
         namespaces together: ask for fewer, or raise it with \
         `sysctl -w net.ipv4.neigh.default.gc_thresh3={raised}`"
    )]
    Neighbours {
        /// Nodes that were asked for.
        nodes: u16,
        /// Pods on each.
        pods: u16,
        /// Entries that their talk makes.
        needed: u32,
        /// Entries for which there is room.
        room: u32,
        /// A size that is enough.
        raised: u32,
    },
}

/// Fails with the remedy if a lab cannot run here.
pub fn check() -> Result<(), PreflightError> {
    // Unreadable without /proc only, where nothing else works either: then all is missing.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    check_capabilities(effective_capabilities(&status))?;
    File::options()
        .read(true)
        .write(true)
        .open(TUN)
        .map_err(|error| PreflightError::Tun { error })?;
    Ok(())
}

/// Fails if so many pods cannot all know each other: past the limit the kernel drops what they
/// send, and the lab would look broken.
pub fn check_size(layout: &Layout) -> Result<(), PreflightError> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    // Not to be seen in a namespace other than the first one, where it holds all the same.
    let limit = read(NEIGHBOUR_LIMIT)
        .trim()
        .parse()
        .unwrap_or(DEFAULT_NEIGHBOUR_LIMIT);
    let used = neighbours_in_use(&read(NEIGHBOUR_STATISTICS));
    check_neighbours(layout, limit.saturating_sub(used))
}

fn check_neighbours(layout: &Layout, room: u32) -> Result<(), PreflightError> {
    let all_to_all = |count: u32| count * count.saturating_sub(1);
    let (nodes, pods) = (u32::from(layout.nodes), u32::from(layout.pods));
    let needed = all_to_all(nodes * pods) + all_to_all(nodes);
    if needed + NEIGHBOUR_MARGIN <= room {
        return Ok(());
    }
    Err(PreflightError::Neighbours {
        nodes: layout.nodes,
        pods: layout.pods,
        needed,
        room,
        raised: (2 * needed).next_power_of_two(),
    })
}

/// The first number of the second line, in hexadecimal (`neigh_stat_seq_show`, net/core/neighbour.c).
fn neighbours_in_use(statistics: &str) -> u32 {
    let number = statistics
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    number
        .and_then(|hex| u32::from_str_radix(hex, 16).ok())
        .unwrap_or(0)
}

fn check_capabilities(effective: u64) -> Result<(), PreflightError> {
    match NEEDED
        .into_iter()
        .find(|(bit, ..)| effective >> bit & 1 == 0)
    {
        Some((_, name, purpose)) => Err(PreflightError::Capability { name, purpose }),
        None => Ok(()),
    }
}

/// The `CapEff` line of a `/proc/PID/status`; no capability if there is none.
fn effective_capabilities(status: &str) -> u64 {
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_that_the_neighbour_table_cannot_hold_is_refused_with_the_number() {
        let layout = |nodes, pods| Layout {
            name: String::new(),
            nodes,
            pods,
            underlay_mtu: 1500,
        };
        check_neighbours(&layout(3, 2), 1024).unwrap();
        check_neighbours(&layout(7, 4), 1024).unwrap();
        let text = check_neighbours(&layout(8, 4), 1024)
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("1048 entries") && text.contains("gc_thresh3=4096"),
            "{text}"
        );
        let statistics = "entries  allocs\n0000001f 00000925\n0000001f 00000838\n";
        assert_eq!(neighbours_in_use(statistics), 31);
        assert_eq!(neighbours_in_use(""), 0);
    }

    #[test]
    fn capabilities_are_read_and_the_missing_one_is_named() {
        let status = "Name:\tweft\nCapPrm:\t0000000000000000\nCapEff:\t0000000000203000\n";
        check_capabilities(effective_capabilities(status)).unwrap();
        let error =
            check_capabilities(effective_capabilities("CapEff:\t0000000000003000")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("CAP_SYS_ADMIN") && text.contains("sudo weft lab"),
            "{text}"
        );
        assert!(check_capabilities(effective_capabilities("garbage")).is_err());
    }
}
