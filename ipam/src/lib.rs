//! The ring: a CRDT of address ranges, and the allocator that hands out single addresses from
//! the part of it that this node owns.
//!
//! The overlay's range (10.32.0.0/12 by default) is a [`Universe`]. A [`Ring`] says for each of
//! its addresses which peer owns it, or that it is undecided. Every node keeps a copy; copies
//! are merged in any order, any number of times, and end equal. An [`Allocator`] gives addresses
//! out of the ranges that its own node owns, so that an allocation never asks the network.
//!
//! Everything here is a value: no clock, no file, no socket. Time comes in as `now`, a monotonic
//! time since an arbitrary start; what has to be made durable comes out as [`Change`]s. Addresses
//! are 128 bits wide inside, so that IPv4 and IPv6 are one code, with one ring for each range.
//! `docs/ipam.md` has the algorithm, its invariants and why they hold.

mod agent;
mod allocator;
mod message;
mod range;
mod range_set;
mod ring;
mod roster;
mod space;

pub use agent::{
    Agent, AgentSettings, AgentView, HandedOver, Input, Notice, Outgoing, PeerSpace, RemoveError,
    Removed,
};
pub use allocator::{
    AllocateError, Allocation, AllocationKey, Allocator, Change, KeyError, RestoreError, Usage,
};
pub use message::DecodeError;
pub use range::{Family, Range, Universe, UniverseError};
pub use range_set::RangeSet;
pub use ring::{
    Claim, Delta, Digest, EditError, MergeError, Reassigned, Ring, SeedError, Seeding, Segment,
};
pub use roster::{Member, Roster};
