//! Whole routers in network namespaces, against the kernel, its VXLAN device, tcpdump and other
//! people's CNI plugins. Needs root and /dev/net/tun; without them every test here fails.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect fails, wherever that is"
)]

mod chained;
mod cluster;
mod edges;
mod flat;
mod flow;
mod frames;
mod ipam;
mod order;
mod peers;
mod relay;
mod restart;
mod six;
mod stream;
mod vtep;
