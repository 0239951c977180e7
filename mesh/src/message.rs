//! What two nodes say to each other on a control connection.

mod bulk;

use prost::Message as _;
use wire::PeerId;

use crate::entry::{address_from_proto, address_to_proto};
use crate::frame::MAX_MESSAGE;
use crate::hello::{Hello, HelloError};
use crate::proto;
use crate::refusal::{MAX_INSTEAD, Refusal, RefusalCode};
use crate::roster::BUCKETS;

/// Largest gossip payload, in bytes: a whole message less what is before it.
pub const MAX_GOSSIP: usize = MAX_MESSAGE - 64;
/// Identities in one message at most; with their versions they take 64 KiB.
pub(crate) const MAX_IDS: usize = 4096;

/// Kinds of messages, the byte after the length. A number is never used again for another kind.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const REFUSE: u8 = 2;
    pub(crate) const READY: u8 = 3;
    pub(crate) const WELCOME: u8 = 4;
    // 5 and 6 were lists of peers and farewells in version 1, 9 was gossip.
    pub(crate) const PING: u8 = 7;
    pub(crate) const PONG: u8 = 8;
    pub(crate) const ENTRIES: u8 = 10;
    pub(crate) const DIGEST: u8 = 11;
    pub(crate) const BUCKETS: u8 = 12;
    pub(crate) const VERSIONS: u8 = 13;
    pub(crate) const ASK: u8 = 14;
    pub(crate) const NEED: u8 = 15;
    pub(crate) const PARCEL: u8 = 16;
    pub(crate) const BROADCAST: u8 = 17;
    pub(crate) const DOUBT: u8 = 18;
    /// The handshake of a [`Channel`](crate::Channel), before any other message. A node without a
    /// password passes it over, and waits for the reason that follows.
    pub(crate) const NOISE: u8 = 32;
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// First on every connection, from both sides.
    Hello(Box<Hello>),
    /// Why the sender closes the connection.
    Refuse(Refusal),
    /// The node with the larger identity takes the other one on.
    Ready,
    /// The node with the smaller identity takes this connection into use.
    Welcome,
    /// To be answered by a pong with the same number.
    Ping(u64),
    /// Answer to a ping.
    Pong(u64),
    /// Entries that are news to the receiver, as far as the sender knows.
    Entries(Vec<Told>),
    /// The sum over the sender's table. If the receiver's is another, it answers with the sums of
    /// its parts.
    Digest(u64),
    /// The sums of the parts of the sender's table. The receiver answers with the versions in those
    /// parts that differ.
    Buckets(Box<[u64; BUCKETS]>),
    /// Versions of all entries in some parts of the sender's table. The receiver sends what is older
    /// or missing, and asks for what is newer.
    Versions {
        /// Which parts: a bit for each.
        buckets: u64,
        /// Their entries.
        known: Vec<(PeerId, u64)>,
    },
    /// The sender wants the entries of these.
    Ask(Vec<PeerId>),
    /// Whether the sender needs this connection. At first it does.
    Need(bool),
    /// Bytes for one node, handed from node to node.
    Parcel(Parcel),
    /// Bytes for all nodes.
    Broadcast(Broadcast),
    /// The receiver is asked to look whether its neighbour of this identity still lives.
    Doubt(Doubt),
    /// A kind of a later version, to be passed over.
    Unknown(u8),
}

/// An entry on its way, not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Seconds for which its owner has been out of the sender's reach.
    pub idle: u32,
    /// As its owner wrote it.
    pub bytes: Vec<u8>,
}

/// Bytes for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// From whom.
    pub from: PeerId,
    /// To whom.
    pub to: PeerId,
    /// Connections that it may still cross.
    pub hops: u8,
    /// Which part of the program it is for.
    pub channel: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// Bytes for all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broadcast {
    /// From whom.
    pub origin: PeerId,
    /// The origin's number for it: greater than those of earlier ones, also of earlier runs.
    pub sequence: u64,
    /// Connections that it may still cross.
    pub hops: u8,
    /// Which part of the program it is for.
    pub channel: u8,
    /// Its bytes.
    pub payload: Vec<u8>,
}

/// A request to a neighbour of a node that may be dead, handed from node to node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// The neighbour.
    pub to: PeerId,
    /// Connections that it may still cross.
    pub hops: u8,
    /// The node that may be dead.
    pub about: PeerId,
}

/// Why a message cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Not Protocol Buffers, or of other types.
    #[error("the body does not decode")]
    Body(#[from] prost::DecodeError),
    /// A field has a value that it cannot have.
    #[error("a value cannot be")]
    Value(#[from] HelloError),
    /// Fewer bytes than the kind has.
    #[error("the body ends too early")]
    Short,
}

impl Message {
    /// What it is called.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Refuse(_) => "refuse",
            Self::Ready => "ready",
            Self::Welcome => "welcome",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Entries(_) => "entries",
            Self::Digest(_) => "digest",
            Self::Buckets(_) => "buckets",
            Self::Versions { .. } => "versions",
            Self::Ask(_) => "ask",
            Self::Need(_) => "need",
            Self::Parcel(_) => "parcel",
            Self::Broadcast(_) => "broadcast",
            Self::Doubt(_) => "doubt",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Whether it is carried for others, who repair what is lost.
    pub(crate) const fn is_cargo(&self) -> bool {
        matches!(self, Self::Parcel(_) | Self::Broadcast(_))
    }

    /// Kind and body, without the length before them.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put(out, kind::HELLO, &hello.to_proto()),
            Self::Refuse(refusal) => {
                let body = proto::Refusal {
                    code: refusal.code.number(),
                    text: refusal.text.clone(),
                    instead: refusal.instead.iter().map(address_to_proto).collect(),
                };
                put(out, kind::REFUSE, &body);
            }
            Self::Ready => out.push(kind::READY),
            Self::Welcome => out.push(kind::WELCOME),
            Self::Ping(nonce) => put(out, kind::PING, &proto::Ping { nonce: *nonce }),
            Self::Pong(nonce) => put(out, kind::PONG, &proto::Ping { nonce: *nonce }),
            Self::Unknown(kind) => out.push(*kind),
            Self::Entries(_)
            | Self::Digest(_)
            | Self::Buckets(_)
            | Self::Versions { .. }
            | Self::Ask(_)
            | Self::Need(_)
            | Self::Parcel(_)
            | Self::Broadcast(_)
            | Self::Doubt(_) => self.encode_bulk(out),
        }
    }

    /// Reads a body of this kind.
    pub(crate) fn decode(kind: u8, body: &[u8]) -> Result<Self, MessageError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(Box::new(Hello::from_proto(&proto::Hello::decode(body)?)?)),
            kind::REFUSE => {
                let refusal = proto::Refusal::decode(body)?;
                let code = RefusalCode::from_number(refusal.code);
                let instead = refusal.instead.iter().filter_map(address_from_proto);
                let instead = instead.take(MAX_INSTEAD).collect();
                Self::Refuse(Refusal {
                    instead,
                    ..Refusal::new(code, &refusal.text)
                })
            }
            kind::READY => Self::Ready,
            kind::WELCOME => Self::Welcome,
            kind::PING => Self::Ping(proto::Ping::decode(body)?.nonce),
            kind::PONG => Self::Pong(proto::Ping::decode(body)?.nonce),
            other => Self::decode_bulk(other, body)?,
        })
    }
}

fn put(out: &mut Vec<u8>, kind: u8, body: &impl prost::Message) {
    out.push(kind);
    out.extend_from_slice(&body.encode_to_vec());
}
