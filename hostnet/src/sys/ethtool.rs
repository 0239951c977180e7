//! The ioctl of ethtool(8) for one on-or-off setting (linux/ethtool.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// `struct ethtool_value`.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Value {
    /// `ETHTOOL_G*` or `ETHTOOL_S*`.
    command: u32,
    /// The setting.
    data: u32,
}

/// `struct ifreq` as `SIOCETHTOOL` reads it: a name, and a pointer at the union's start.
#[repr(C)]
struct Request {
    name: [u8; libc::IFNAMSIZ],
    value: *mut Value,
    unused: [u8; 16],
}

// The kernel copies a whole `struct ifreq` in, so that ours must not be smaller.
const _: () = assert!(size_of::<Request>() >= size_of::<libc::ifreq>());

/// Sets what the command names to `data`. The descriptor is any socket.
pub(crate) fn set(fd: BorrowedFd<'_>, name: &str, command: u32, data: u32) -> io::Result<()> {
    let mut value = Value { command, data };
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        value: std::ptr::from_mut(&mut value),
        unused: [0; 16],
    };
    let len = name.len().min(libc::IFNAMSIZ - 1);
    request.name[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: the kernel reads one `struct ifreq` behind the pointer, large enough by the assertion
    // above, and through it one `struct ethtool_value`; both live until the call returns.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::SIOCETHTOOL,
            std::ptr::from_mut(&mut request),
        )
    };
    super::check(result).map(drop)
}
