//! Agents that talk to each other in virtual time, one file a subject.

mod conflict;
mod consensus;
mod model;
mod nightly;
mod schedules;
mod space;
mod takeover;
mod world;

/// A part of the protocol that is taken out, to see that the model check misses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Without {
    /// A take-over is a later version in the same epoch.
    Epochs,
    /// A take-over is used before others have acknowledged it.
    Confirmation,
    /// A node that returns allocates before it has heard from another.
    Admission,
}
