//! Handshakes: who is who, and the keys that follow (Noise, revision 34, by `snow`).
//!
//! Two uses, with the same static keys and the same password:
//!
//! - [`Sessions`] makes keys for datagrams between any two peers, by messages that travel like frames,
//!   through relays too: `IKpsk1`, one round trip, the responder's public key known from gossip.
//! - [`Channel`] secures a control connection, on which the other side's key may not be known yet:
//!   `XXpsk2`, with the side that accepts as Noise's initiator, so that it shows nothing but a random
//!   number before the side that dialled has proven the password.
//!
//! The password enters both as a pre-shared key ([`Psk`]), stretched by the caller. Why these patterns,
//! and what they protect against whom, is in `docs/security.md`.

mod channel;
mod cookie;
mod datagram;
mod keys;
mod random;
mod secret;
mod sessions;
mod slots;
mod whereabouts;

pub use channel::{Channel, ChannelError, RecordOpener, RecordSealer, Secured, Side};
pub use datagram::MAX_DATAGRAM;
pub use keys::{CipherChoice, DirectionKey, SessionKeys};
pub use secret::{Fingerprint, ParseFingerprintError, Psk, Secrets};
pub use sessions::{
    Route, SessionConfig, SessionCounters, SessionInput, SessionOutput, SessionTiming, SessionView,
    Sessions,
};
pub use whereabouts::Whereabouts;
