//! Which nodes reach which directly, and so the way through others.

mod reach;
mod search;

pub use reach::{MAX_REACH, Reach};
pub use search::{Graph, Route};
