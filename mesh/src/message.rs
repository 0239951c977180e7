//! What two nodes say to each other on a control connection.

use std::net::{IpAddr, SocketAddr};

use prost::Message as _;
use wire::{PeerId, PeerName};

use crate::frame::MAX_MESSAGE;
use crate::hello::{Hello, HelloError, array};
use crate::proto;
use crate::refusal::{Refusal, RefusalCode};

/// Largest gossip payload, in bytes: a whole message less its kind and channel.
pub const MAX_GOSSIP: usize = MAX_MESSAGE - 2;

/// Kinds of messages, the byte after the length. A number is never used again for another kind.
pub(crate) mod kind {
    pub(crate) const HELLO: u8 = 1;
    pub(crate) const REFUSE: u8 = 2;
    pub(crate) const READY: u8 = 3;
    pub(crate) const WELCOME: u8 = 4;
    pub(crate) const PEERS: u8 = 5;
    pub(crate) const LEAVE: u8 = 6;
    pub(crate) const PING: u8 = 7;
    pub(crate) const PONG: u8 = 8;
    pub(crate) const GOSSIP: u8 = 9;
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
    /// Peers that the sender is connected to, and some that left.
    Peers {
        /// Connected to the sender at this moment.
        known: Vec<KnownPeer>,
        /// Left the network.
        left: Vec<Departure>,
    },
    /// The sender leaves the network.
    Leave,
    /// To be answered by a pong with the same number.
    Ping(u64),
    /// Answer to a ping.
    Pong(u64),
    /// Bytes for another part of the program.
    Gossip {
        /// Which part.
        channel: u8,
        /// Its bytes.
        payload: Vec<u8>,
    },
    /// A kind of a later version, to be passed over.
    Unknown(u8),
}

/// A peer that a node tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownPeer {
    /// Identity.
    pub id: PeerId,
    /// Name.
    pub name: PeerName,
    /// Its present run.
    pub run: u64,
    /// Where its control port may be reached, best first.
    pub addresses: Vec<SocketAddr>,
}

/// A node that left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Departure {
    /// Identity.
    pub id: PeerId,
    /// The run that ended.
    pub run: u64,
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
    /// Gossip without its channel.
    #[error("gossip of 0 bytes has no channel")]
    NoChannel,
}

impl Message {
    /// What it is called.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Refuse(_) => "refuse",
            Self::Ready => "ready",
            Self::Welcome => "welcome",
            Self::Peers { .. } => "peers",
            Self::Leave => "leave",
            Self::Ping(_) => "ping",
            Self::Pong(_) => "pong",
            Self::Gossip { .. } => "gossip",
            Self::Unknown(_) => "unknown",
        }
    }

    /// Kind and body, without the length before them.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Hello(hello) => put(out, kind::HELLO, &hello.to_proto()),
            Self::Refuse(refusal) => {
                let body = proto::Refusal {
                    code: refusal.code.number(),
                    text: refusal.text.clone(),
                };
                put(out, kind::REFUSE, &body);
            }
            Self::Ready => out.push(kind::READY),
            Self::Welcome => out.push(kind::WELCOME),
            Self::Peers { known, left } => {
                let body = proto::Peers {
                    known: known.iter().map(KnownPeer::to_proto).collect(),
                    left: left
                        .iter()
                        .map(|d| proto::Departure {
                            id: d.id.0.to_vec(),
                            run: d.run,
                        })
                        .collect(),
                };
                put(out, kind::PEERS, &body);
            }
            Self::Leave => out.push(kind::LEAVE),
            Self::Ping(nonce) => put(out, kind::PING, &proto::Ping { nonce: *nonce }),
            Self::Pong(nonce) => put(out, kind::PONG, &proto::Ping { nonce: *nonce }),
            Self::Gossip { channel, payload } => {
                out.push(kind::GOSSIP);
                out.push(*channel);
                out.extend_from_slice(payload);
            }
            Self::Unknown(kind) => out.push(*kind),
        }
    }

    /// Reads a body of this kind.
    pub(crate) fn decode(kind: u8, body: &[u8]) -> Result<Self, MessageError> {
        Ok(match kind {
            kind::HELLO => Self::Hello(Box::new(Hello::from_proto(&proto::Hello::decode(body)?)?)),
            kind::REFUSE => {
                let refusal = proto::Refusal::decode(body)?;
                let code = RefusalCode::from_number(refusal.code);
                Self::Refuse(Refusal::new(code, &refusal.text))
            }
            kind::READY => Self::Ready,
            kind::WELCOME => Self::Welcome,
            kind::PEERS => {
                let peers = proto::Peers::decode(body)?;
                Self::Peers {
                    known: peers
                        .known
                        .iter()
                        .map(KnownPeer::from_proto)
                        .collect::<Result<_, _>>()?,
                    left: peers
                        .left
                        .iter()
                        .map(|d| {
                            Ok(Departure {
                                id: PeerId(array("id", &d.id)?),
                                run: d.run,
                            })
                        })
                        .collect::<Result<_, HelloError>>()?,
                }
            }
            kind::LEAVE => Self::Leave,
            kind::PING => Self::Ping(proto::Ping::decode(body)?.nonce),
            kind::PONG => Self::Pong(proto::Ping::decode(body)?.nonce),
            kind::GOSSIP => {
                let (channel, payload) = body.split_first().ok_or(MessageError::NoChannel)?;
                Self::Gossip {
                    channel: *channel,
                    payload: payload.to_vec(),
                }
            }
            other => Self::Unknown(other),
        })
    }
}

fn put(out: &mut Vec<u8>, kind: u8, body: &impl prost::Message) {
    out.push(kind);
    out.extend_from_slice(&body.encode_to_vec());
}

impl KnownPeer {
    fn to_proto(&self) -> proto::KnownPeer {
        let address = |address: &SocketAddr| proto::Address {
            ip: match address.ip() {
                IpAddr::V4(ip) => ip.octets().to_vec(),
                IpAddr::V6(ip) => ip.octets().to_vec(),
            },
            port: address.port().into(),
        };
        proto::KnownPeer {
            id: self.id.0.to_vec(),
            name: self.name.as_str().to_owned(),
            run: self.run,
            addresses: self.addresses.iter().map(address).collect(),
        }
    }

    fn from_proto(peer: &proto::KnownPeer) -> Result<Self, HelloError> {
        Ok(Self {
            id: PeerId(array("id", &peer.id)?),
            name: peer.name.parse().map_err(HelloError::Name)?,
            run: peer.run,
            // An address of a family or port that this version cannot dial is passed over.
            addresses: peer.addresses.iter().filter_map(address).collect(),
        })
    }
}

fn address(address: &proto::Address) -> Option<SocketAddr> {
    let port = u16::try_from(address.port).ok().filter(|port| *port != 0)?;
    let ip = if let Ok(ip) = <[u8; 4]>::try_from(&address.ip[..]) {
        IpAddr::from(ip)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&address.ip[..]).ok()?).to_canonical()
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(SocketAddr::new(ip, port))
}
