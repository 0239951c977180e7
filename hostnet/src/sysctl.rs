//! Kernel settings below `/proc/sys/net`, which show the calling thread's namespace.

use std::fs;
use std::io;
use std::path::Path;

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{action} sysctl {name}")]
pub struct SysctlError {
    /// "read" or "write".
    pub action: &'static str,
    /// The setting, as a path below `/proc/sys`.
    pub name: String,
    /// The kernel's answer.
    pub source: io::Error,
}

/// An address family that has settings per interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Below `net/ipv4`.
    V4,
    /// Below `net/ipv6`.
    V6,
}

/// Name of an interface's setting: `interface(Family::V6, "eth0", "accept_dad")`. The interface may
/// also be `all` or `default`.
pub fn interface(family: Family, interface: &str, setting: &str) -> String {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    format!("net/{family}/conf/{interface}/{setting}")
}

/// Reads a setting, without its newline. The name is a path below `/proc/sys`, with slashes, because
/// an interface's name may have dots: `net/ipv4/ip_forward`.
pub fn read(name: &str) -> Result<String, SysctlError> {
    let value = fs::read_to_string(path(name)).map_err(|source| failed("read", name, source))?;
    Ok(value.trim_end().to_owned())
}

/// Writes a setting, unless it has the value already: where `/proc/sys` is read-only, as in many
/// containers, a right value is no error. Returns whether it changed.
pub fn write(name: &str, value: &str) -> Result<bool, SysctlError> {
    if read(name)? == value {
        return Ok(false);
    }
    fs::write(path(name), value).map_err(|source| failed("write", name, source))?;
    Ok(true)
}

/// Whether the namespace has IPv6 at all.
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

fn path(name: &str) -> impl AsRef<Path> {
    Path::new("/proc/sys").join(name)
}

fn failed(action: &'static str, name: &str, source: io::Error) -> SysctlError {
    SysctlError {
        action,
        name: name.to_owned(),
        source,
    }
}
