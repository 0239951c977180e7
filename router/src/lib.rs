//! The router `weft run` and the command line around it.
//!
//! Where all crates meet: `mesh` says which peers there are, `ipam` which addresses, `fastpath`
//! carries the frames, `hostnet` speaks to the kernel. The split of the workspace goes on in here:
//! [`switch`] and [`status`] are pure, [`io`] touches the world, [`daemon`] ties them together.

pub mod absent;
pub mod attachments;
pub mod cli;
pub mod cluster;
pub mod daemon;
pub mod doctor;
pub mod durable;
pub mod host;
pub mod http;
pub mod identity;
pub mod install;
pub mod io;
pub mod lab;
pub mod lock;
pub mod memberships;
pub mod node;
pub mod password;
pub mod preflight;
pub mod remembered;
pub mod rules;
pub mod settings;
pub mod status;
pub mod switch;
pub mod targets;
