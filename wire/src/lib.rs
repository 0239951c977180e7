//! Addresses, names and header formats of the overlay.
//!
//! Everything here is pure: bytes in, values out, and back. Parsers never panic on any input and
//! never allocate (but for [`decode`], which writes text for people); a format that cannot be read
//! is an error that names the field.

pub mod aggregate;
pub mod arp;
pub mod checksum;
pub mod decode;
pub mod ethernet;
pub mod flow;
pub mod mac;
pub mod membership;
pub mod ndp;
pub mod peer;
pub mod probe;
pub mod sleeve;
pub mod vxlan;

pub use mac::Mac;
pub use peer::{PeerId, PeerName};
pub use vxlan::Vni;
