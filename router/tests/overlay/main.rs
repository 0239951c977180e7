//! Whole routers in network namespaces, against the kernel, its VXLAN device, tcpdump and other
//! people's CNI plugins. Needs root and /dev/net/tun; without them every test here fails.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect fails, wherever that is"
)]

#[path = "../../src/io/kube/apiserver.rs"]
mod apiserver;
mod chained;
mod churn;
mod cluster;
mod cni;
mod disk;
mod edges;
mod encrypted;
mod flat;
mod flood;
mod flow;
mod frames;
mod in_cluster;
mod ipam;
mod membership;
mod multicast;
mod order;
mod outside;
mod peers;
mod relay;
mod resolving;
mod restart;
mod runtime;
mod six;
mod spoofing;
mod stopped;
mod stream;
mod torture;
mod trusted;
mod underlay;
mod verbs;
mod vtep;
