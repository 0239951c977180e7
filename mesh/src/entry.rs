//! What one node says of itself to all others.
//!
//! An entry is written by its owner alone. Whoever hands it on hands on the very bytes, so that
//! nodes of an older version carry fields that they do not know, and two nodes with the same version
//! of an entry have the same entry.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use prost::Message as _;
use wire::{PeerId, PeerName};

use crate::groups::Groups;
use crate::hello::{HelloError, array, port};
use crate::proto;
use crate::refusal::printable;
use crate::rng::mix;
use crate::route::Reach;

/// Largest entry, in bytes: 256 neighbours (2 KiB), a [`Reach`] (2 KiB), 256 groups (1.5 KiB), 8
/// addresses and the rest, with room for fields of later versions.
pub const MAX_ENTRY: usize = 8 << 10;
/// Neighbours that an entry lists at most; a node has no more connections than that.
pub(crate) const MAX_NEIGHBOURS: usize = 256;
/// Addresses that an entry lists at most.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// Identity, version and run, before the body.
const HEADER_LEN: usize = 24;
/// Longest software version kept, in bytes.
const MAX_VERSION_TEXT: usize = 64;

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Whose it is.
    pub id: PeerId,
    /// Grows with each change; the greater one counts.
    pub version: u64,
    /// Which life of the node wrote it.
    pub run: u64,
    /// The node has left the network: nothing else of the entry counts.
    pub left: bool,
    /// Name.
    pub name: PeerName,
    /// Static public key.
    pub public_key: [u8; 32],
    /// Where it accepts control connections, as others have seen it, best first.
    pub addresses: Vec<SocketAddr>,
    /// UDP port on which it receives VXLAN.
    pub vxlan_port: u16,
    /// UDP port on which it receives sleeve; 0: it does not.
    pub sleeve_port: u16,
    /// Whence its sleeve is seen to come, if not from its own address and port.
    pub sleeve_seen: Option<SocketAddr>,
    /// Largest IP packet of the overlay that it takes, in bytes.
    pub mtu: u16,
    /// Software version, for the operator.
    pub software: String,
    /// Nodes that it has a control connection with, in ascending order.
    pub neighbours: Vec<PeerId>,
    /// Whom its sleeve reaches directly.
    pub reach: Reach,
    /// Multicast groups that its pods listen to.
    pub groups: Groups,
}

/// An entry and the bytes that it was written as.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    entry: Entry,
    bytes: Box<[u8]>,
}

/// What can be seen of an entry without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Stamp {
    /// Whose it is.
    pub id: PeerId,
    /// Its version.
    pub version: u64,
    /// Which life of the node wrote it.
    pub run: u64,
}

impl Stamp {
    /// Reads the first bytes of an entry; None if there are too few.
    pub fn peek(bytes: &[u8]) -> Option<Self> {
        let [id, version, run] = bytes.first_chunk::<HEADER_LEN>()?.as_chunks::<8>().0 else {
            return None;
        };
        Some(Self {
            id: PeerId(*id),
            version: u64::from_be_bytes(*version),
            run: u64::from_be_bytes(*run),
        })
    }

    /// Whether it replaces `other`, of the same owner. Two runs meet in one version only if two
    /// nodes have one identity; then all take the same of them.
    pub fn replaces(&self, other: &Self) -> bool {
        (self.version, self.run) > (other.version, other.run)
    }
}

impl Sealed {
    /// Writes an entry down.
    pub fn new(mut entry: Entry) -> Arc<Self> {
        entry.addresses.truncate(MAX_ADDRESSES);
        entry.neighbours.truncate(MAX_NEIGHBOURS);
        entry.software = printable(&entry.software, MAX_VERSION_TEXT);
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&entry.id.0);
        bytes.extend_from_slice(&entry.version.to_be_bytes());
        bytes.extend_from_slice(&entry.run.to_be_bytes());
        bytes.extend_from_slice(&body(&entry).encode_to_vec());
        Arc::new(Self {
            entry,
            bytes: bytes.into(),
        })
    }

    /// Reads one.
    ///
    /// # Errors
    /// It is too short or too long, is not Protocol Buffers, or has a value that cannot be.
    pub fn read(bytes: &[u8]) -> Result<Arc<Self>, EntryError> {
        if bytes.len() > MAX_ENTRY {
            return Err(EntryError::Length(bytes.len()));
        }
        let stamp = Stamp::peek(bytes).ok_or(EntryError::Length(bytes.len()))?;
        let entry = parse(stamp, &proto::Entry::decode(&bytes[HEADER_LEN..])?)?;
        Ok(Arc::new(Self {
            entry,
            bytes: bytes.into(),
        }))
    }

    /// Identity, version and run.
    pub const fn stamp(&self) -> Stamp {
        Stamp {
            id: self.entry.id,
            version: self.entry.version,
            run: self.entry.run,
        }
    }

    /// As it was written.
    pub const fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl std::ops::Deref for Sealed {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        &self.entry
    }
}

impl Entry {
    /// Whether it lists this node as a neighbour.
    pub fn lists(&self, peer: PeerId) -> bool {
        !self.left && self.neighbours.binary_search(&peer).is_ok()
    }

    /// Whether another version says the same of all that the data link to this node depends on.
    pub(crate) fn links_like(&self, other: &Self) -> bool {
        let ports = |entry: &Self| (entry.run, entry.vxlan_port, entry.sleeve_port, entry.mtu);
        ports(self) == ports(other)
            && self.name == other.name
            && self.sleeve_seen == other.sleeve_seen
            && self.addresses == other.addresses
            && self.reach == other.reach
    }
}

/// Why an entry cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Too short or too long.
    #[error("an entry of {0} bytes cannot be: it has 24 to {MAX_ENTRY}")]
    Length(usize),
    /// Not Protocol Buffers, or of other types.
    #[error("the entry does not decode")]
    Body(#[from] prost::DecodeError),
    /// A field has a value that it cannot have.
    #[error("a value of the entry cannot be")]
    Value(#[from] HelloError),
}

/// A number that two nodes have in common if and, as good as, only if they have the same version of
/// an entry. Sums of it tell whether two tables are equal.
pub(crate) fn fingerprint(id: PeerId, version: u64) -> u64 {
    mix(u64::from_be_bytes(id.0) ^ mix(version))
}

fn body(entry: &Entry) -> proto::Entry {
    let (reach_only, reach) = match &entry.reach {
        Reach::AllExcept(list) => (false, list),
        Reach::Only(list) => (true, list),
    };
    let (groups_known, groups) = match &entry.groups {
        Groups::All => (false, Vec::new()),
        Groups::Only(list) => (true, list.iter().flat_map(|mac| mac.0).collect()),
    };
    proto::Entry {
        left: entry.left,
        name: entry.name.as_str().to_owned(),
        public_key: entry.public_key.to_vec(),
        addresses: entry.addresses.iter().map(address_to_proto).collect(),
        vxlan_port: entry.vxlan_port.into(),
        sleeve_port: entry.sleeve_port.into(),
        sleeve_seen: entry.sleeve_seen.as_ref().map(address_to_proto),
        mtu: entry.mtu.into(),
        software: entry.software.clone(),
        neighbours: join(&entry.neighbours),
        reach_only,
        reach: join(reach),
        groups_known,
        groups,
    }
}

fn parse(stamp: Stamp, body: &proto::Entry) -> Result<Entry, EntryError> {
    let reach = split(&body.reach);
    let reach = if body.reach_only {
        Reach::Only(reach)
    } else {
        Reach::AllExcept(reach)
    };
    let mut neighbours = split(&body.neighbours);
    neighbours.sort_unstable();
    neighbours.dedup();
    neighbours.truncate(MAX_NEIGHBOURS);
    let addresses = body.addresses.iter().filter_map(address_from_proto);
    Ok(Entry {
        id: stamp.id,
        version: stamp.version,
        run: stamp.run,
        left: body.left,
        name: body.name.parse().map_err(HelloError::Name)?,
        public_key: array("public_key", &body.public_key)?,
        addresses: addresses.take(MAX_ADDRESSES).collect(),
        vxlan_port: port("vxlan_port", body.vxlan_port)?,
        sleeve_port: port("sleeve_port", body.sleeve_port)?,
        sleeve_seen: body.sleeve_seen.as_ref().and_then(address_from_proto),
        mtu: port("mtu", body.mtu)?,
        software: printable(&body.software, MAX_VERSION_TEXT),
        neighbours,
        reach: reach.normalised(),
        groups: if body.groups_known {
            Groups::read(&body.groups)
        } else {
            Groups::All
        },
    })
}

fn join(ids: &[PeerId]) -> Vec<u8> {
    ids.iter().flat_map(|id| id.0).collect()
}

fn split(bytes: &[u8]) -> Vec<PeerId> {
    bytes
        .as_chunks::<8>()
        .0
        .iter()
        .copied()
        .map(PeerId)
        .collect()
}

pub(crate) fn address_to_proto(address: &SocketAddr) -> proto::Address {
    proto::Address {
        ip: match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        },
        port: address.port().into(),
    }
}

/// An address of a family or port that this version cannot dial is passed over.
pub(crate) fn address_from_proto(address: &proto::Address) -> Option<SocketAddr> {
    let port = u16::try_from(address.port).ok().filter(|port| *port != 0)?;
    let ip = if let Ok(ip) = <[u8; 4]>::try_from(&address.ip[..]) {
        IpAddr::from(ip)
    } else {
        IpAddr::from(<[u8; 16]>::try_from(&address.ip[..]).ok()?).to_canonical()
    };
    (!ip.is_unspecified() && !ip.is_multicast()).then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
pub(crate) mod tests;
