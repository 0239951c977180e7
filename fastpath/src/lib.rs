//! The packet engine: what happens between a read from the TAP and a send to the underlay, and
//! back.
//!
//! Everything here is pure. [`Egress`] takes frames as the TAP gives them, up to 64 KB with a
//! [`VnetHdr`] that says what the kernel left undone, decides where they go, cuts them into frames
//! of the inner MTU, encapsulates each and hands out *trains*: runs of equal datagrams to one
//! endpoint that one system call can send. [`Ingress`] takes received datagrams, opens them and
//! joins consecutive segments of a flow into frames that one write hands to the TAP. Sockets,
//! clocks and threads belong to the caller, who lends a sink and passes the time in.
//!
//! A frame never raises an error: it is forwarded, or it is dropped for a [`DropReason`] that is
//! counted. Nothing on the path of a known flow allocates or takes a lock.

mod aggregate;
mod audience;
mod counters;
mod cut;
mod dissect;
mod egress;
mod forwarding;
mod groups;
mod ingress;
mod join;
mod mac_table;
mod oversized;
mod relay;
mod resolver;
mod said;
mod seal;
mod too_big;
mod train;
mod vnet;

pub use counters::{Counters, DropReason, LinkCounters, LinkTotals};
pub use egress::Egress;
pub use forwarding::{Encapsulation, Forwarding, Link, Slot};
pub use groups::{GroupTable, is_selective};
pub use ingress::{Arrival, ControlSink, Datagram, FrameSink, Ingress, KeyNews, Outlets, TapTakes};
pub use join::MAX_PARTS;
pub use mac_table::{MacCache, MacEntry, MacTable, Port};
pub use resolver::{OwnedRange, Owner, OwnerMap, Questions, Resolver};
pub use seal::{Cipher, Claim, MAX_COUNTER, OPEN_KEYS, OpenKey, Opened, SealKey, Sealer};
pub use too_big::OwnAddress;
pub use train::{Train, TrainLimits, TrainSink};
pub use vnet::{GsoType, VnetHdr};
