//! The CNI plugin `weft-cni` as a program of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    cni_shim::process_main()
}
