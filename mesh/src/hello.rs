//! How a node introduces itself, the first message on a connection.

use std::net::SocketAddr;

use wire::peer::ParsePeerNameError;
use wire::{PeerId, PeerName, Vni};

use crate::entry::{address_from_proto, address_to_proto};
use crate::proto;
use crate::refusal::printable;

/// Longest software version kept, in bytes.
const MAX_VERSION_TEXT: usize = 64;

/// What a node says of itself.
///
/// Its address is left out on purpose: a node does not know how others reach it. The other side
/// takes it from the connection, together with the ports given here, and says it in return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Identity; follows from `public_key`, which the handshake of encrypted connections proves.
    pub id: PeerId,
    /// Name, unique in the network.
    pub name: PeerName,
    /// Static public key.
    pub public_key: [u8; 32],
    /// Chosen at random at each start: tells a restarted node from a second connection.
    pub run: u64,
    /// TCP port on which it accepts control connections; 0: none.
    pub control_port: u16,
    /// UDP port on which it receives VXLAN.
    pub vxlan_port: u16,
    /// VXLAN network.
    pub vni: Vni,
    /// Largest IP packet of the overlay that it takes over a direct link, in bytes.
    pub mtu: u16,
    /// Software version, for the operator.
    pub version: String,
    /// UDP port on which it receives sleeve; 0: it does not.
    pub sleeve_port: u16,
    /// How it sees the other side of this connection: where it reached it, if it dialled, or whence
    /// it came.
    pub seen: Option<SocketAddr>,
}

/// Why an introduction cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HelloError {
    /// A field of fixed size has another one.
    #[error("field {field} has {len} bytes instead of {expected}")]
    Length {
        /// The field.
        field: &'static str,
        /// Bytes that it has.
        len: usize,
        /// Bytes that it must have.
        expected: usize,
    },
    /// The name is none.
    #[error("field name")]
    Name(#[source] ParsePeerNameError),
    /// A number is out of range.
    #[error("field {field} has the value {value}, which is out of range")]
    Range {
        /// The field.
        field: &'static str,
        /// Its value.
        value: u32,
    },
}

impl Hello {
    pub(crate) fn to_proto(&self) -> proto::Hello {
        proto::Hello {
            id: self.id.0.to_vec(),
            name: self.name.as_str().to_owned(),
            public_key: self.public_key.to_vec(),
            run: self.run,
            control_port: self.control_port.into(),
            vxlan_port: self.vxlan_port.into(),
            vni: self.vni.get(),
            mtu: self.mtu.into(),
            version: printable(&self.version, MAX_VERSION_TEXT),
            sleeve_port: self.sleeve_port.into(),
            seen: self.seen.as_ref().map(address_to_proto),
        }
    }

    pub(crate) fn from_proto(hello: &proto::Hello) -> Result<Self, HelloError> {
        let vxlan_port = port("vxlan_port", hello.vxlan_port)?;
        if vxlan_port == 0 {
            return Err(HelloError::Range {
                field: "vxlan_port",
                value: 0,
            });
        }
        Ok(Self {
            id: PeerId(array("id", &hello.id)?),
            name: hello.name.parse().map_err(HelloError::Name)?,
            public_key: array("public_key", &hello.public_key)?,
            run: hello.run,
            control_port: port("control_port", hello.control_port)?,
            vxlan_port,
            vni: hello.vni.try_into().map_err(|_| HelloError::Range {
                field: "vni",
                value: hello.vni,
            })?,
            mtu: port("mtu", hello.mtu)?,
            version: printable(&hello.version, MAX_VERSION_TEXT),
            sleeve_port: port("sleeve_port", hello.sleeve_port)?,
            seen: hello.seen.as_ref().and_then(address_from_proto),
        })
    }
}

/// A number of 16 bits, which protobuf sends as 32.
pub(crate) fn port(field: &'static str, value: u32) -> Result<u16, HelloError> {
    value
        .try_into()
        .map_err(|_| HelloError::Range { field, value })
}

/// A field of `N` bytes.
pub(crate) fn array<const N: usize>(
    field: &'static str,
    bytes: &[u8],
) -> Result<[u8; N], HelloError> {
    bytes.try_into().map_err(|_| HelloError::Length {
        field,
        len: bytes.len(),
        expected: N,
    })
}
