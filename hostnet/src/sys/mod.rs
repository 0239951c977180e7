//! The system calls that no safe wrapper covers.
//!
//! Each function is one call: it takes borrowed descriptors and slices, returns [`std::io::Result`],
//! and leaves every decision to its caller. Everything that can be done with safe code (building
//! addresses and control messages, reading them) is done outside.
#![expect(
    unsafe_code,
    reason = "the one module that may call the kernel by pointer"
)]

pub(crate) mod environment;
pub(crate) mod ethtool;
pub(crate) mod message;
pub(crate) mod namespace;
pub(crate) mod schedule;
pub(crate) mod socket;
pub(crate) mod tun;

use std::io;

/// The `-1 and errno` of a system call as a [`Result`].
fn check(result: nix::libc::c_int) -> io::Result<nix::libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
