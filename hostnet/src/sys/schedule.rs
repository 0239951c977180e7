//! How a thread is scheduled (sched_setattr(2)).

use std::io;

use nix::libc;

/// Gives the calling thread these attributes; the size in them is filled in here.
pub(crate) fn set(attributes: &libc::sched_attr) -> io::Result<()> {
    let size = u32::try_from(size_of::<libc::sched_attr>()).map_err(io::Error::other)?;
    let attributes = libc::sched_attr {
        size,
        ..*attributes
    };
    let (this_thread, flags): (libc::pid_t, libc::c_uint) = (0, 0);
    // SAFETY: the kernel reads `size` bytes behind the pointer, which is the whole of a value that
    // lives until the call is over.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sched_setattr,
            this_thread,
            &raw const attributes,
            flags,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
