//! Addresses, names and header formats of the overlay.
//!
//! Everything here is pure: bytes in, values out, and back. Parsers never panic on any input and
//! never allocate; a format that cannot be read is an error that names the field.

pub mod mac;
pub mod peer;
pub mod vxlan;

pub use mac::Mac;
pub use peer::{PeerId, PeerName};
pub use vxlan::Vni;
