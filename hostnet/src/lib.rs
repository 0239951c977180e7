//! The kernel as weft needs it: namespaces, netlink, TAP, UDP in batches, packet sockets.
//!
//! Everything is blocking or non-blocking system calls; nothing here knows tokio, and nothing here
//! decides how packets go. A handle belongs to the network namespace of the thread that opened it
//! and keeps it, whichever thread uses it later: open inside [`netns::NetNs::run`], or with an
//! `open_in`.
//!
//! - [`netns`] makes, opens and enters network namespaces.
//! - [`netlink`] talks to the kernel about links, addresses, routes and neighbours; [`link`],
//!   [`addr`], [`route`] and [`neigh`] hold its requests by subject.
//! - [`plan`] turns "the bridge should look like this" into steps, and applies them.
//! - [`nft`] has nftables of one's own.
//! - [`tap`], [`udp`] and [`poll`] are the data path's own; they do not allocate per call.
//! - [`packet`] sends and receives raw frames, for announcements and captures.
//! - [`environment`] takes secrets out of sight.
//! - [`affinity`] keeps a thread on a processor, and [`schedule`] says how it competes for one.
//! - [`sysctl`] and [`caps`] read and set what has no netlink message.
//!
//! Requests with several fields are taken by reference, so that a caller can vary one and ask again.
//! Taking away what is gone, and adding an address or a route that is there exactly so, succeed; any
//! other clash is an error. A veth is made together with both of its indexes, and an error of the
//! kernel says what was asked for, of which object, in the kernel's own words.
//!
//! `unsafe` is confined to the private module `sys`: one operation per block.

pub mod addr;
pub mod affinity;
pub mod caps;
pub mod environment;
pub mod ethtool;
pub mod link;
pub mod neigh;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod packet;
pub mod plan;
pub mod poll;
pub mod route;
pub mod schedule;
mod sockaddr;
mod sys;
pub mod sysctl;
pub mod tap;
pub mod udp;

pub use link::{BridgeOptions, Link, LinkKind, LinkStats, VethPair, VethRequest, VxlanOptions};
pub use neigh::{Neighbour, NeighbourState};
pub use netlink::{Netlink, NetlinkError};
pub use netns::{NetNs, NetNsError};
pub use packet::{Packet, PacketSocket};
pub use poll::Waker;
pub use route::{Route, RouteTo};
pub use tap::{Offloads, Tap, TapCapabilities, TapError, TapOptions, TapQueue};
pub use udp::{BindError, Datagram, Received, RecvBatch, UdpCapabilities, UdpOptions, UdpSocket};
