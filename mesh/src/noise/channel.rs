//! A control connection that only members can read.
//!
//! ```text
//! who accepts                                     who dialled
//!      | -- preamble, Noise: e --------------------> |   both preambles at once
//!      | <- preamble                                 |
//!      | <- Noise: e, ee, s, es, psk --------------  |   proves the password and its key
//!      | -- Noise: s, se --------------------------> |   proves both in return
//!      | <= records both ways =====================> |
//! ```
//!
//! Noise's `XXpsk2` with the side that accepts as initiator: it says nothing that belongs to it before
//! the other one has proven the password, and who listens on the wire learns nothing by which to try
//! passwords. A message is framed as on a plain connection, with kind 32; whoever does not like what
//! comes says why by a refusal (kind 2) in the clear, and hangs up. A record is its length (16 bits,
//! big-endian, authenticated) and that many bytes of ChaCha20-Poly1305, the last 16 of them the tag,
//! the nonce four zero bytes and the record's number.

use std::collections::BTreeSet;
use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::hmac;
use snow::HandshakeState;
use zeroize::{Zeroize as _, Zeroizing};

use super::random::Entropy;
use super::secret::{Fingerprint, Psk, Secrets};
use crate::frame::{self, PREAMBLE_LEN, VERSION, preamble};
use crate::message::{Message, kind};
use crate::refusal::{Refusal, RefusalCode};

const PATTERN: &str = "Noise_XXpsk2_25519_ChaChaPoly_BLAKE2s";
const PSK_PLACE: usize = 2;
const PROLOGUE: &[u8] = b"weft control 1";
/// The longest message before the handshake is over, kind included: a refusal.
const MAX_HANDSHAKE: usize = 1024;
/// Bytes of plain text in a record at most.
const MAX_RECORD: usize = 16 << 10;
const TAG_LEN: usize = 16;
const LENGTH_LEN: usize = 2;
/// Records after which a key is replaced by one that follows from it, so that one that leaks does not
/// open what came before.
const RECORDS_OF_A_KEY: u64 = 1024;

/// Which side of a connection this node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// It accepted the connection.
    Accepted,
    /// It dialled.
    Dialled,
}

/// Why a connection cannot be secured.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// Another protocol.
    #[error("the other side does not speak weft's control protocol")]
    NotWeft,
    /// No version in common.
    #[error(
        "the other side speaks versions {oldest} to {newest} of the control protocol, this node speaks {VERSION}: upgrade the older one"
    )]
    Version {
        /// The other side's oldest version.
        oldest: u16,
        /// The other side's newest version.
        newest: u16,
    },
    /// The other side has no password.
    #[error(
        "the peer is plain: it has no password, and this node has one; give all nodes the same"
    )]
    PeerIsPlain,
    /// The other side has another password.
    #[error("the password differs: give all nodes the same")]
    OtherPassword,
    /// The key of the other side is not one of those that are allowed.
    #[error("the node with the fingerprint {0} is not among those that --allow-identity names")]
    NotAllowed(Fingerprint),
    /// The other side refuses this node.
    #[error("the other side refuses: {0}")]
    Refused(Refusal),
    /// What came is no handshake, or a record was changed on the way.
    #[error("what came is not what a member sends")]
    Malformed,
}

impl ChannelError {
    /// What the other side is told.
    fn refusal(&self) -> Option<Refusal> {
        let (code, text) = match self {
            Self::Refused(_) => return None,
            Self::NotWeft | Self::Malformed => (RefusalCode::Malformed, "not a handshake"),
            Self::Version { .. } => (RefusalCode::Version, "no version of the protocol in common"),
            Self::PeerIsPlain => (
                RefusalCode::Plain,
                "this node has a password and yours has none: give all nodes the same password",
            ),
            Self::OtherPassword => (
                RefusalCode::Password,
                "the password differs: give all nodes the same password",
            ),
            Self::NotAllowed(_) => (
                RefusalCode::NotAllowed,
                "your key is not among those that --allow-identity names",
            ),
        };
        Some(Refusal::new(code, text))
    }
}

/// The handshake of one connection: bytes in, bytes out, and a pair of ciphers in the end.
pub struct Channel {
    side: Side,
    state: Box<HandshakeState>,
    passwords: Vec<Psk>,
    allowed: Option<BTreeSet<Fingerprint>>,
    received: Vec<u8>,
    greeted: bool,
    outgoing: Vec<u8>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel")
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}

/// A connection that is secured.
#[derive(Debug)]
pub struct Secured {
    /// The other side's static key, proven.
    pub public: [u8; 32],
    /// Which of the passwords both have.
    pub psk: Psk,
    /// For what is sent.
    pub sender: RecordSealer,
    /// For what is received; holds what has come already.
    pub receiver: RecordOpener,
}

impl Channel {
    /// Begins. `allowed` names the keys that are spoken to, if not all that have the password;
    /// `seed` is 32 random bytes.
    ///
    /// # Panics
    /// There is no password.
    pub fn new(
        side: Side,
        secrets: &Secrets,
        allowed: Option<BTreeSet<Fingerprint>>,
        seed: [u8; 32],
    ) -> Self {
        let params = PATTERN.parse().expect("the pattern is one of Noise's");
        let first = secrets.passwords.first().expect("there is a password");
        let builder = snow::Builder::with_resolver(params, Entropy::new(seed).resolver())
            .local_private_key(&secrets.private)
            .and_then(|b| b.prologue(PROLOGUE))
            .and_then(|b| b.psk(2, first.bytes()))
            .expect("each is set once");
        let state = match side {
            Side::Accepted => builder.build_initiator(),
            Side::Dialled => builder.build_responder(),
        };
        let mut channel = Self {
            side,
            state: Box::new(state.expect("the pattern has these keys")),
            passwords: secrets.passwords.clone(),
            allowed,
            received: Vec::new(),
            greeted: false,
            outgoing: preamble().to_vec(),
        };
        if side == Side::Accepted {
            channel.say();
        }
        channel
    }

    /// What is to be sent now, also after an error.
    pub fn outgoing(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.outgoing)
    }

    /// Takes received bytes, cut anywhere; returns the secured connection once it is one.
    ///
    /// # Errors
    /// The other side is no member, or refuses. What there is to tell it is in
    /// [`outgoing`](Self::outgoing).
    pub fn receive(&mut self, bytes: &[u8]) -> Result<Option<Secured>, ChannelError> {
        self.received.extend_from_slice(bytes);
        let result = self.advance();
        if let Err(error) = &result
            && let Some(refusal) = error.refusal()
        {
            self.refuse(refusal);
        }
        result
    }

    /// Tells the other side why: in the clear, unless it takes such a thing no more, being secured.
    fn refuse(&mut self, refusal: Refusal) {
        let secured = self.state.is_handshake_finished();
        let mut bytes = if secured {
            preamble().to_vec()
        } else {
            Vec::new()
        };
        frame::emit(&Message::Refuse(refusal), &mut bytes);
        if secured {
            let (sending, _) = self.split();
            bytes = RecordSealer(Ratchet::new(sending)).seal(&bytes);
        }
        self.outgoing.extend(bytes);
    }

    fn advance(&mut self) -> Result<Option<Secured>, ChannelError> {
        if !self.greeted && !self.greeting()? {
            return Ok(None);
        }
        while let Some((kind, body)) = self.next_message()? {
            match kind {
                kind::NOISE => {}
                kind::REFUSE => {
                    let refusal = Message::decode(kind, &body);
                    return Err(match refusal {
                        Ok(Message::Refuse(refusal)) => ChannelError::Refused(refusal),
                        _ => ChannelError::Malformed,
                    });
                }
                // What a node without a password begins with.
                kind::HELLO => return Err(ChannelError::PeerIsPlain),
                _ => return Err(ChannelError::Malformed),
            }
            let psk = self.hear(&body)?;
            // The side that accepted looks before it says who it is.
            if self.side == Side::Accepted {
                self.judge()?;
            }
            if self.state.is_my_turn() && !self.state.is_handshake_finished() {
                self.say();
            }
            if self.state.is_handshake_finished() {
                return self.secured(psk).map(Some);
            }
        }
        Ok(None)
    }

    fn greeting(&mut self) -> Result<bool, ChannelError> {
        let magic = &preamble()[..4];
        let begun = self.received.len().min(magic.len());
        if self.received[..begun] != magic[..begun] {
            return Err(ChannelError::NotWeft);
        }
        let Some(&[_, _, _, _, a, b, c, d]) = self.received.first_chunk::<PREAMBLE_LEN>() else {
            return Ok(false);
        };
        let (oldest, newest) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if !(oldest..=newest).contains(&VERSION) {
            return Err(ChannelError::Version { oldest, newest });
        }
        self.received.drain(..PREAMBLE_LEN);
        self.greeted = true;
        Ok(true)
    }

    /// The next message, kind and body.
    fn next_message(&mut self) -> Result<Option<(u8, Vec<u8>)>, ChannelError> {
        let Some((&[a, b, c, d, kind], rest)) = self.received.split_first_chunk::<5>() else {
            return Ok(None);
        };
        // A plain node's first message may be longer than any of the handshake.
        if kind == kind::HELLO {
            return Err(ChannelError::PeerIsPlain);
        }
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        if !(1..=MAX_HANDSHAKE).contains(&length) {
            return Err(ChannelError::Malformed);
        }
        let Some(body) = rest.get(..length - 1) else {
            return Ok(None);
        };
        let body = body.to_vec();
        self.received.drain(..4 + length);
        Ok(Some((kind, body)))
    }

    /// Reads a handshake message, with whichever password fits.
    fn hear(&mut self, body: &[u8]) -> Result<Psk, ChannelError> {
        let mut payload = [0; MAX_HANDSHAKE];
        for psk in &self.passwords {
            let set = self.state.set_psk(PSK_PLACE, psk.bytes());
            debug_assert!(set.is_ok(), "the place and the length are right");
            if self.state.read_message(body, &mut payload).is_ok() {
                // The first stays in use for what is said next.
                return Ok(psk.clone());
            }
            // Only the side that accepted can still choose: the other has used its first.
            if self.side == Side::Dialled {
                break;
            }
        }
        // Bytes that were damaged on the way look the same; TCP makes that rare.
        Err(ChannelError::OtherPassword)
    }

    fn say(&mut self) {
        let mut body = [0; MAX_HANDSHAKE];
        let written = self
            .state
            .write_message(&[], &mut body)
            .expect("it is this side's turn, and the buffer is long enough");
        let length = u32::try_from(written + 1).expect("a handshake message is short");
        self.outgoing.extend(length.to_be_bytes());
        self.outgoing.push(kind::NOISE);
        self.outgoing.extend(&body[..written]);
    }

    fn secured(&mut self, psk: Psk) -> Result<Secured, ChannelError> {
        let public = self.judge()?;
        let (sending, receiving) = self.split();
        Ok(Secured {
            public,
            psk,
            sender: RecordSealer(Ratchet::new(sending)),
            receiver: RecordOpener {
                ratchet: Ratchet::new(receiving),
                received: std::mem::take(&mut self.received),
            },
        })
    }

    /// The other side's key, if it is taken on.
    fn judge(&self) -> Result<[u8; 32], ChannelError> {
        let public = self.state.get_remote_static();
        let public = public.and_then(|key| key.try_into().ok());
        let public: [u8; 32] = public.ok_or(ChannelError::Malformed)?;
        let fingerprint = Fingerprint::of(&public);
        let allowed = self.allowed.as_ref();
        if allowed.is_some_and(|allowed| !allowed.contains(&fingerprint)) {
            return Err(ChannelError::NotAllowed(fingerprint));
        }
        Ok(public)
    }

    /// The keys to send and to receive with.
    fn split(&mut self) -> (Zeroizing<[u8; 32]>, Zeroizing<[u8; 32]>) {
        let (mut of_initiator, mut of_responder) = self.state.dangerously_get_raw_split();
        let keys = (Zeroizing::new(of_initiator), Zeroizing::new(of_responder));
        of_initiator.zeroize();
        of_responder.zeroize();
        match self.side {
            Side::Accepted => keys,
            Side::Dialled => (keys.1, keys.0),
        }
    }
}

/// A key, the number of the next record, and what replaces the key.
struct Ratchet {
    bytes: Zeroizing<[u8; 32]>,
    key: LessSafeKey,
    number: u64,
}

impl fmt::Debug for Ratchet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ratchet")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Ratchet {
    fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        Self {
            key: cipher(&bytes),
            bytes,
            number: 0,
        }
    }

    /// The key and the nonce of the next record.
    fn turn(&mut self) -> (&LessSafeKey, Nonce) {
        if self.number > 0 && self.number.is_multiple_of(RECORDS_OF_A_KEY) {
            let old = hmac::Key::new(hmac::HMAC_SHA256, &*self.bytes);
            let new = hmac::sign(&old, b"weft next record key");
            self.bytes.copy_from_slice(new.as_ref());
            self.key = cipher(&self.bytes);
        }
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_be_bytes());
        self.number += 1;
        (&self.key, Nonce::assume_unique_for_key(nonce))
    }
}

fn cipher(bytes: &[u8; 32]) -> LessSafeKey {
    let key = UnboundKey::new(&CHACHA20_POLY1305, bytes);
    LessSafeKey::new(key.expect("the key has 32 bytes"))
}

/// Makes records.
#[derive(Debug)]
pub struct RecordSealer(Ratchet);

impl RecordSealer {
    /// The records that carry these bytes.
    pub fn seal(&mut self, plain: &[u8]) -> Vec<u8> {
        let records = plain.len().div_ceil(MAX_RECORD);
        let mut out = Vec::with_capacity(plain.len() + records * (LENGTH_LEN + TAG_LEN));
        for chunk in plain.chunks(MAX_RECORD) {
            let length = u16::try_from(chunk.len() + TAG_LEN).expect("a record is short");
            let length = length.to_be_bytes();
            out.extend(length);
            let from = out.len();
            out.extend_from_slice(chunk);
            let (key, nonce) = self.0.turn();
            let tag = key
                .seal_in_place_separate_tag(nonce, Aad::from(length), &mut out[from..])
                .expect("a record is not too long");
            out.extend_from_slice(tag.as_ref());
        }
        out
    }
}

/// Reads records.
#[derive(Debug)]
pub struct RecordOpener {
    ratchet: Ratchet,
    received: Vec<u8>,
}

impl RecordOpener {
    /// Takes received bytes, cut anywhere, and returns what the records in them carry that are whole.
    /// Holds less than a record.
    ///
    /// # Errors
    /// A record was changed, left out or repeated: the connection is of no use any more.
    pub fn open(&mut self, bytes: &[u8]) -> Result<Vec<u8>, ChannelError> {
        self.received.extend_from_slice(bytes);
        let mut plain = Vec::new();
        let mut read = 0;
        while let Some((length, rest)) = self.received[read..].split_first_chunk_mut::<LENGTH_LEN>()
        {
            let size = usize::from(u16::from_be_bytes(*length));
            if !(TAG_LEN..=MAX_RECORD + TAG_LEN).contains(&size) {
                return Err(ChannelError::Malformed);
            }
            let Some(record) = rest.get_mut(..size) else {
                break;
            };
            let (key, nonce) = self.ratchet.turn();
            let opened = key
                .open_in_place(nonce, Aad::from(*length), record)
                .map_err(|_| ChannelError::Malformed)?;
            plain.extend_from_slice(opened);
            read += LENGTH_LEN + size;
        }
        self.received.drain(..read);
        Ok(plain)
    }
}

#[cfg(test)]
mod tests;
