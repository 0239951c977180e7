//! The engine from outside: reads from a TAP in, trains out; received runs in, frames out.

#![expect(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test that meets what it does not expect fails, wherever that is"
)]

mod aggregate;
mod allocation;
mod frames;
mod groups;
mod offload;
mod resolving;
mod sealed;
mod sleeve;
mod switching;
mod too_big;
