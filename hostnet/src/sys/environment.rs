//! The process's environment, as the kernel shows it to others.

use std::ffi::CStr;

use nix::libc;

/// Overwrites a variable's value with zeros where it lies, and takes the variable away.
///
/// No other thread may run, since any could be reading the environment.
pub(crate) fn wipe(name: &CStr) {
    // SAFETY: the name ends with a zero; nobody changes the environment meanwhile, as no other thread
    // runs.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return;
    }
    // SAFETY: getenv returns a string of the environment, which ends with a zero.
    let len = unsafe { libc::strlen(value) };
    // SAFETY: these are the string's bytes, writable as the environment is (environ(7)), and nobody
    // has a reference to them: std copies what it returns.
    unsafe { value.write_bytes(0, len) };
    // SAFETY: as for getenv.
    unsafe { libc::unsetenv(name.as_ptr()) };
}
