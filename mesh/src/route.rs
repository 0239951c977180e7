//! Which nodes reach which directly, and so the way through others.

mod reach;

pub use reach::{MAX_REACH, Reach};
