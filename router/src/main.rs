//! The daemon and command line `weft`.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

/// The name under which this executable is the CNI plugin, so that one file is a whole node.
const PLUGIN: &str = "weft-cni";

fn main() -> ExitCode {
    let called = std::env::args_os().next().unwrap_or_default();
    if Path::new(&called).file_name() == Some(OsStr::new(PLUGIN)) {
        return cni_shim::process_main();
    }
    router::cli::main(std::env::args_os())
}
