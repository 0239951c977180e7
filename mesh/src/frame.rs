//! Messages on a stream of bytes.
//!
//! Each side begins with eight bytes, then sends messages, each after its length:
//!
//! ```text
//! 'w' 'e' 'f' 't' | oldest version u16 | newest version u16          once
//! length u32 | kind u8 | body, length - 1 bytes                      each message
//! ```
//!
//! Numbers are big-endian. These eight bytes, the frame and the refusal (kind 2) stay the same in
//! all versions, so that two nodes that understand nothing else can tell each other so. The length
//! is judged before a byte of the body is kept: 4 KiB for most kinds and for anything before the
//! handshake is over, 128 KiB for entries and lists of identities, 1 MiB for what is carried for
//! others.

use crate::message::{Message, MessageError, kind};

/// Version of the protocol that this code speaks.
pub const VERSION: u16 = 2;
/// Largest message, kind and body, in bytes.
pub const MAX_MESSAGE: usize = 1 << 20;
/// Bytes with which each side of a connection begins.
pub const PREAMBLE_LEN: usize = 8;

const MAGIC: [u8; 4] = *b"weft";
/// Length and kind.
const HEADER_LEN: usize = 5;
/// For the kinds that are small, and for all kinds from a node that has not been taken on.
const MAX_SMALL: usize = 4 << 10;
/// Entries are sent in parts of 64 KiB, the last of which may be 8 KiB longer; 4,096 identities and
/// versions take 64 KiB.
const MAX_LIST: usize = 128 << 10;
/// Room for unread bytes that is kept, in bytes.
const KEPT: usize = 4 << 10;

/// Whether the handshake on the connection is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Not yet: the other side is anybody.
    Handshake,
    /// The peer has been taken on.
    Established,
}

/// Why a stream of bytes is not, or no longer, a control connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Another protocol.
    #[error("the other side does not speak weft's control protocol (it began with {0:02x?})")]
    NotWeft(Vec<u8>),
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
    /// A message that nobody sends.
    #[error("a message of {length} bytes of kind {kind} is over the limit of {limit}")]
    TooLarge {
        /// Kind of the message.
        kind: u8,
        /// Length announced.
        length: u32,
        /// Largest length taken.
        limit: usize,
    },
    /// A message without a kind.
    #[error("a message of 0 bytes has no kind")]
    Empty,
    /// A message that cannot be read.
    #[error("a message of kind {kind} cannot be read: {source}")]
    Message {
        /// Kind of the message.
        kind: u8,
        /// Why.
        source: MessageError,
    },
}

/// The bytes with which each side begins.
pub const fn preamble() -> [u8; PREAMBLE_LEN] {
    let [a, b] = VERSION.to_be_bytes();
    let [w, e, f, t] = MAGIC;
    [w, e, f, t, a, b, a, b]
}

/// Appends a message with its length.
///
/// The caller sees to it that payloads are within [`MAX_GOSSIP`](crate::MAX_GOSSIP) and lists come in
/// parts.
pub(crate) fn emit(message: &Message, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    message.encode(out);
    let length = u32::try_from(out.len() - start - 4).expect("messages are at most 1 MiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// Cuts received bytes into messages.
///
/// Holds at most one incomplete message and what was pushed after it; nothing is reserved for
/// bytes that have only been announced.
#[derive(Debug, Default)]
pub struct Deframer {
    buffer: Vec<u8>,
    /// Bytes at the start of the buffer that have been read.
    read: usize,
    greeted: bool,
}

impl Deframer {
    /// A deframer at the start of a connection.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes received bytes, cut anywhere.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        if self.buffer.is_empty() && self.buffer.capacity() > KEPT {
            // Large messages are rare, and connections may be many.
            self.buffer = Vec::new();
        }
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.buffer.len() - self.read
    }

    /// The next whole message, if there is one.
    ///
    /// # Errors
    /// The stream is not the protocol, or a message is too large: the connection is of no use after it,
    /// the next call may say anything. Or a message cannot be read ([`FrameError::Message`]): then the
    /// next call goes on behind it.
    pub fn next_message(&mut self, stage: Stage) -> Result<Option<Message>, FrameError> {
        if !self.greeted && !self.greeting()? {
            return Ok(None);
        }
        let rest = &self.buffer[self.read..];
        let Some((header, rest)) = rest.split_first_chunk::<HEADER_LEN>() else {
            // The length alone is enough to refuse an empty message.
            return if rest.starts_with(&[0; 4]) {
                Err(FrameError::Empty)
            } else {
                Ok(None)
            };
        };
        let [a, b, c, d, kind] = *header;
        let length = u32::from_be_bytes([a, b, c, d]);
        let limit = limit(kind, stage);
        let size = match usize::try_from(length) {
            Ok(0) => return Err(FrameError::Empty),
            Ok(size) if size <= limit => size,
            _ => {
                return Err(FrameError::TooLarge {
                    kind,
                    length,
                    limit,
                });
            }
        };
        let Some(body) = rest.get(..size - 1) else {
            return Ok(None);
        };
        let message = Message::decode(kind, body);
        self.read += 4 + size;
        message
            .map(Some)
            .map_err(|source| FrameError::Message { kind, source })
    }

    /// Reads the first eight bytes; says whether they have all come.
    fn greeting(&mut self) -> Result<bool, FrameError> {
        let held = &self.buffer[self.read..];
        let begun = held.len().min(MAGIC.len());
        if held[..begun] != MAGIC[..begun] {
            return Err(FrameError::NotWeft(held[..begun].to_vec()));
        }
        let Some(&[_, _, _, _, a, b, c, d]) = held.first_chunk::<PREAMBLE_LEN>() else {
            return Ok(false);
        };
        let (oldest, newest) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if !(oldest..=newest).contains(&VERSION) {
            return Err(FrameError::Version { oldest, newest });
        }
        self.read += PREAMBLE_LEN;
        self.greeted = true;
        Ok(true)
    }
}

/// Largest message of a kind, kind and body.
const fn limit(kind: u8, stage: Stage) -> usize {
    match (stage, kind) {
        (Stage::Handshake, _) => MAX_SMALL,
        (Stage::Established, kind::ENTRIES | kind::VERSIONS | kind::ASK) => MAX_LIST,
        (
            Stage::Established,
            kind::HELLO
            | kind::REFUSE
            | kind::READY
            | kind::WELCOME
            | kind::PING
            | kind::PONG
            | kind::DIGEST
            | kind::BUCKETS
            | kind::NEED
            | kind::DOUBT,
        ) => MAX_SMALL,
        // Payloads, and kinds of later versions, which are passed over whole.
        (Stage::Established, _) => MAX_MESSAGE,
    }
}

#[cfg(test)]
mod tests;
