//! Questions about a namespace's descriptor (ioctl_ns(2)).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Kind of the namespace that the descriptor stands for, as a `CLONE_NEW*` value.
///
/// The descriptor must be of nsfs: other files may give their own meaning to this request.
pub(crate) fn kind(fd: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    // SAFETY: NS_GET_NSTYPE takes no argument and touches no memory of ours; the borrow keeps the
    // descriptor open during the call.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::NS_GET_NSTYPE) };
    super::check(result)
}
