//! Socket calls on raw addresses and integer options.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::sockaddr::SockAddr;

/// Binds a socket to an address of any family.
pub(crate) fn bind(fd: BorrowedFd<'_>, address: &SockAddr) -> io::Result<()> {
    let pointer = address.bytes().as_ptr().cast::<libc::sockaddr>();
    // SAFETY: pointer and length describe the initialised bytes of `address`, which the kernel only
    // reads; it copies them before it looks at them, so that alignment does not matter.
    let result = unsafe { libc::bind(fd.as_raw_fd(), pointer, address.len()) };
    super::check(result).map(drop)
}

/// Sets an option whose value is an int.
pub(crate) fn set_option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let pointer = std::ptr::from_ref(&value).cast::<libc::c_void>();
    // SAFETY: pointer and length describe the int `value`, which the kernel only reads.
    let result = unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, pointer, INT_LEN) };
    super::check(result).map(drop)
}

/// Reads an option whose value is an int.
pub(crate) fn option(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    option: libc::c_int,
) -> io::Result<libc::c_int> {
    let (mut value, mut len) = (0, INT_LEN);
    let pointer = std::ptr::from_mut(&mut value).cast::<libc::c_void>();
    // SAFETY: pointer and length describe the int `value`, which the kernel writes no more than that
    // length of; `len` outlives the call.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, option, pointer, &raw mut len) };
    super::check(result).map(|_| value)
}

/// The socket's memory counters, by their `SK_MEMINFO_*` (linux/sock_diag.h).
pub(crate) fn memory_info(fd: BorrowedFd<'_>) -> io::Result<[u32; MEMINFO_VARS]> {
    let mut values = [0u32; MEMINFO_VARS];
    let mut len = MEMINFO_LEN;
    let pointer = values.as_mut_ptr().cast::<libc::c_void>();
    // SAFETY: pointer and length describe `values`, which is exclusive; the kernel writes no more
    // than `len` bytes, and any bytes are valid integers.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            pointer,
            &raw mut len,
        )
    };
    super::check(result).map(|_| values)
}

/// `SK_MEMINFO_VARS`: counters that there are.
const MEMINFO_VARS: usize = 9;
/// `SK_MEMINFO_DROPS`: packets that found no room in the receive buffer.
pub(crate) const MEMINFO_DROPS: usize = 8;
#[expect(clippy::cast_possible_truncation, reason = "36 bytes")]
const MEMINFO_LEN: libc::socklen_t = size_of::<[u32; MEMINFO_VARS]>() as libc::socklen_t;

/// Length of an int as the kernel wants it.
#[expect(clippy::cast_possible_truncation, reason = "an int has 4 bytes")]
const INT_LEN: libc::socklen_t = size_of::<libc::c_int>() as libc::socklen_t;
