//! The crate against the running kernel, in namespaces of its own. Needs root and /dev/net/tun.
#![expect(
    clippy::unwrap_used,
    clippy::unwrap_in_result,
    reason = "a helper that fails has failed its test"
)]

mod links;
mod namespaces;
mod nft;
mod packets;
mod plans;
mod routes;
mod taps;
mod udp;
mod world;
