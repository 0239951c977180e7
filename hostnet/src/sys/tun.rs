//! Requests to a TUN/TAP descriptor (linux/if_tun.h).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// `struct ifreq` as `TUNSETIFF` reads and writes it: a name, and the flags at the union's start.
#[repr(C, align(8))]
pub(crate) struct InterfaceRequest {
    /// NUL-terminated; the kernel writes the final name back (`%d` becomes a number).
    pub(crate) name: [u8; libc::IFNAMSIZ],
    /// `IFF_*` of linux/if_tun.h.
    flags: u16,
    /// The rest of the union, which this request ignores.
    unused: [u8; 22],
}

impl InterfaceRequest {
    /// A request for an interface of this name, which is cut off to what a name may have.
    pub(crate) fn new(name: &str, flags: u16) -> Self {
        let mut this = Self {
            name: [0; libc::IFNAMSIZ],
            flags,
            unused: [0; 22],
        };
        let len = name.len().min(libc::IFNAMSIZ - 1);
        this.name[..len].copy_from_slice(&name.as_bytes()[..len]);
        this
    }
}

// The kernel copies a whole `struct ifreq` in and out, so that ours must not be smaller.
const _: () = assert!(size_of::<InterfaceRequest>() >= size_of::<libc::ifreq>());

/// Attaches the descriptor of `/dev/net/tun` to an interface, which is made if it is missing.
pub(crate) fn set_interface(fd: BorrowedFd<'_>, request: &mut InterfaceRequest) -> io::Result<()> {
    // SAFETY: the kernel reads and writes one `struct ifreq` behind the pointer, which is exclusive
    // and, by the assertion above, large enough.
    let result =
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, std::ptr::from_mut(request)) };
    super::check(result).map(drop)
}

/// Says which offloads (`TUN_F_*`) the reader of the descriptor can deal with.
pub(crate) fn set_offload(fd: BorrowedFd<'_>, offloads: libc::c_uint) -> io::Result<()> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value, as an unsigned long.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETOFFLOAD,
            libc::c_ulong::from(offloads),
        )
    };
    super::check(result).map(drop)
}

/// Fixes the length of the header before each frame, in bytes.
pub(crate) fn set_header_len(fd: BorrowedFd<'_>, len: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int behind the pointer, which lives until the call returns.
    let result = unsafe {
        libc::ioctl(
            fd.as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            std::ptr::from_ref(&len),
        )
    };
    super::check(result).map(drop)
}
