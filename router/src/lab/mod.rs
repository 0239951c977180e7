//! `weft lab`: a whole cluster on one machine, in network namespaces, with nothing but this
//! executable and root.
//!
//! [`World`](world::World) builds and removes it, [`examine`] tries everything in it and makes a
//! [`Report`](report::Report), [`page`] prints that for a person. The namespace of the caller is
//! never touched, and nothing else is executed than `weft run` and `weft-cni`.

pub mod cleanup;
mod command;
pub mod examine;
pub mod interrupt;
pub mod layout;
pub mod page;
pub mod plugin;
pub mod preflight;
pub mod probe;
pub mod process;
pub mod progress;
pub mod report;
pub mod state;
mod status;
pub mod table;
pub mod torture;
pub mod world;

pub use command::{Args, run};
