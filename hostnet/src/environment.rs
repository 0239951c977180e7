//! Secrets that come by the environment, which the kernel shows in `/proc/PID/environ` to whoever may
//! look into the process.

use std::ffi::{CString, OsString};
use std::io;

/// Takes a variable out of the environment for good: the copy that the kernel shows is overwritten.
///
/// # Errors
/// Other threads run already, or the name cannot be a variable's.
pub fn take(name: &str) -> io::Result<Option<OsString>> {
    let threads = std::fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        return Err(io::Error::other(format!(
            "{threads} threads run: a variable can only be taken by the first"
        )));
    }
    let value = std::env::var_os(name);
    crate::sys::environment::wipe(&CString::new(name)?);
    Ok(value)
}
