//! Whether this machine and this user can run a lab, asked before anything is made.

use std::fs::{self, File};
use std::io;

/// Capabilities that a lab needs (`linux/capability.h`), with what for.
const NEEDED: [(u32, &str, &str); 3] = [
    (12, "CAP_NET_ADMIN", "make interfaces"),
    (13, "CAP_NET_RAW", "ping and capture"),
    (21, "CAP_SYS_ADMIN", "make network namespaces"),
];

const TUN: &str = "/dev/net/tun";

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
        "weft lab needs {TUN}, which cannot be opened ({source}): load the module with \
         `modprobe tun`, or give the container `--device {TUN}`"
    )]
    Tun {
        /// What the kernel said.
        source: io::Error,
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
        .map_err(|source| PreflightError::Tun { source })?;
    Ok(())
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
