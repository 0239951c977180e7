//! What a node knows about itself, for people, machines and the metrics page.
//!
//! Counters are totals since the router started. Sizes of address pools saturate at `u64::MAX`.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::{Mac, PeerId, PeerName};

use crate::TargetStatus;

/// Answer to `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the router's software.
    pub version: String,
    /// The node itself.
    pub node: NodeStatus,
    /// The overlay as this node forms it.
    pub overlay: OverlayStatus,
    /// Every peer and VTEP that is known, by name.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
    /// The session with each peer that has one; empty where all is in the clear.
    #[serde(default)]
    pub sessions: Vec<SessionStatus>,
    /// The addresses at which this node is told to find others.
    #[serde(default)]
    pub targets: Vec<TargetStatus>,
    /// The MAC table.
    #[serde(default)]
    pub macs: Vec<MacStatus>,
    /// The address pool.
    pub ipam: IpamStatus,
    /// Frames, bytes and drops by reason.
    #[serde(default)]
    pub counters: BTreeMap<String, u64>,
    /// What an operator should look at; empty when all is well.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The name that an operator gave, or the host's.
    pub name: PeerName,
    /// The identity that follows from the node's key.
    pub id: PeerId,
    /// The node's key as operators compare it: 64 hexadecimal digits.
    #[serde(default)]
    pub fingerprint: String,
    /// When the router started, in seconds since 1970-01-01 UTC.
    pub started_unix: u64,
    /// Where peers reach this node's data path.
    #[serde(default)]
    pub underlay: Vec<SocketAddr>,
    /// Where this node accepts control connections.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<SocketAddr>,
    /// Whether it has left the network (`weft leave`).
    #[serde(default)]
    pub left: bool,
    /// Whether it connects to nodes that others tell of.
    #[serde(default)]
    pub discovery: bool,
    /// Control connections in use.
    #[serde(default)]
    pub connections: u64,
    /// Most of them that are accepted.
    #[serde(default)]
    pub conn_limit: u64,
    /// Path of the control socket.
    pub socket: String,
    /// Directory of the state that survives a restart.
    pub state_dir: String,
}

/// The overlay as this node forms it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayStatus {
    /// Name of the bridge.
    pub bridge: String,
    /// The bridge's address.
    pub bridge_mac: Mac,
    /// The node's own addresses on the bridge: the pods' gateways.
    #[serde(default)]
    pub bridge_addresses: Vec<IpNet>,
    /// Name of the TAP port.
    pub tap: String,
    /// Number of TAP queues, and so of workers.
    pub queues: usize,
    /// The pods' MTU, in bytes of IP packet.
    pub mtu: u16,
    /// The underlay's MTU, in bytes of IP packet.
    pub underlay_mtu: u16,
    /// VXLAN network identifier, 24 bits.
    pub vni: u32,
    /// UDP port of VXLAN.
    pub vxlan_port: u16,
    /// UDP port of sleeve.
    #[serde(default)]
    pub sleeve_port: u16,
    /// Kernel features in use (`gso`, `gro`, `tso4`, ..).
    #[serde(default)]
    pub offloads: Vec<String>,
    /// Whether frames are sealed on the underlay.
    pub encrypted: bool,
    /// Networks that are excepted from that where the other side says so too.
    #[serde(default)]
    pub trusted_subnets: Vec<IpNet>,
}

/// A link to a peer or to a foreign VTEP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The peer's name; for a VTEP, or while the name is unknown, the address as it was given.
    pub name: String,
    /// The peer's identity; none for a VTEP, or before the first contact.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<PeerId>,
    /// Whether it speaks weft or only VXLAN.
    pub kind: PeerKind,
    /// Where its frames are sent: to its data path, or to a relay's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// The relay that its frames are sent to; none: they are sent to the peer itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Links that its frames cross: 1 is a direct one; none: no frames are sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hops: Option<u8>,
    /// The other end of the control connection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control: Option<SocketAddr>,
    /// The node that control messages for it are handed to; none: they go to it straight, or it is
    /// out of reach.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_via: Option<String>,
    /// Control connections that messages for it cross: 1 is one of this node's; none: they do not
    /// get there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_hops: Option<u32>,
    /// Version of its software.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether frames are sent to it.
    pub state: PeerState,
    /// Why it is not up, or what is remarkable though it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it has been in this state, in seconds.
    pub since_secs: u64,
    /// How frames travel.
    pub encapsulation: Encapsulation,
    /// The network that both sides trust, for which frames are in the clear though others are sealed;
    /// none: they are as [`OverlayStatus::encrypted`] says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<IpNet>,
    /// Largest inner IP packet that the link carries, in bytes.
    pub mtu: u16,
    /// Smoothed round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Probes of the last ones that were lost, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<u8>,
    /// Every way to the peer that is known, the one in use among them; none for a VTEP.
    #[serde(default)]
    pub ways: Vec<WayStatus>,
    /// Frames sent.
    pub tx_frames: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of inner frames sent.
    pub tx_bytes: u64,
    /// Bytes of inner frames received.
    pub rx_bytes: u64,
}

/// A session: the keys with which what goes to a peer is sealed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// The peer's identity.
    pub peer: PeerId,
    /// The cipher, `aes-256-gcm` or `chacha20-poly1305`.
    pub cipher: String,
    /// Seconds since its handshake; it is replaced after 120.
    pub age_secs: u64,
}

/// What is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerKind {
    /// Another weft router.
    Peer,
    /// Something that speaks VXLAN, such as the Linux kernel (`--vtep`).
    Vtep,
}

/// Whether a link carries frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// Not up yet; being tried.
    Connecting,
    /// Was tried or was up, and does not answer.
    Down,
    /// Frames are sent.
    Up,
    /// Frames are sent, and too many are lost, or only small ones get through.
    Degraded,
}

impl PeerState {
    /// All states, in the order in which they are counted.
    pub const ALL: [Self; 4] = [Self::Connecting, Self::Down, Self::Up, Self::Degraded];

    /// As status and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Down => "down",
            Self::Up => "up",
            Self::Degraded => "degraded",
        }
    }

    /// Whether frames are sent.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::Up | Self::Degraded)
    }
}

/// One way to a peer: an encapsulation, directly or through a relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WayStatus {
    /// How frames travel.
    pub encapsulation: Encapsulation,
    /// The relay; none: directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<String>,
    /// Whether frames take it.
    #[serde(default)]
    pub in_use: bool,
    /// The network that both sides trust, for which this way is in the clear though others are sealed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain: Option<IpNet>,
    /// Where datagrams go, once that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// What probes say of it.
    pub state: PeerState,
    /// Why it is not up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// How long it has been in this state, in seconds.
    pub since_secs: u64,
    /// Largest inner IP packet that gets through, in bytes; none: not found out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
    /// Smoothed round-trip time, in microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_us: Option<u64>,
    /// Probes of the last ones that were lost, in percent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_percent: Option<u8>,
}

/// How frames travel over a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Encapsulation {
    /// RFC 7348.
    Vxlan,
    /// Behind a header that names origin and destination, for relays and NAT.
    Sleeve,
}

impl Encapsulation {
    /// As status and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::Sleeve => "sleeve",
        }
    }
}

/// One entry of the MAC table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MacStatus {
    /// The station's address.
    pub mac: Mac,
    /// `local`, or the name of the peer behind which the station is.
    pub port: String,
    /// Time since the last frame from it, in seconds.
    pub age_secs: u64,
}

/// The address pool, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamStatus {
    /// The whole range of the overlay.
    pub range: IpNet,
    /// Whether this node can hand out an address now.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The peers among which the range was first split.
    #[serde(default)]
    pub seeds: Vec<PeerName>,
    /// The parts of the range that this node owns.
    #[serde(default)]
    pub owned: Vec<OwnedRange>,
    /// Addresses of this node's parts that are in use.
    pub used: u64,
    /// Addresses of this node's parts that are free.
    pub free: u64,
    /// Who holds what on this node.
    #[serde(default)]
    pub allocations: Vec<AllocationStatus>,
    /// Every node of the address plan.
    #[serde(default)]
    pub peers: Vec<IpamPeer>,
    /// Addresses that this node took over and that others have not confirmed yet.
    #[serde(default)]
    pub unconfirmed: u64,
    /// The nodes that have to confirm them.
    #[serde(default)]
    pub waiting: Vec<PeerName>,
    /// Addresses of this node that containers of other nodes hold: not handed out.
    #[serde(default)]
    pub blocked: Vec<BlockedRange>,
    /// Addresses of other nodes that containers of this node hold.
    #[serde(default)]
    pub estranged: Vec<EstrangedAddress>,
    /// Requests that wait for an address.
    #[serde(default)]
    pub pending: u64,
    /// Messages about addresses that this node sent since its start, one to all counted once.
    #[serde(default)]
    pub gossip_messages: u64,
    /// Their bytes.
    #[serde(default)]
    pub gossip_bytes: u64,
    /// What an operator should look at; also among the conditions of [`Status`].
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A node of the address plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpamPeer {
    /// Its name.
    pub name: PeerName,
    /// Addresses that it owns.
    pub owned: u64,
    /// Addresses that it had free when it last spoke; none: it has not spoken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub free: Option<u64>,
    /// Whether messages get to it.
    pub connected: bool,
    /// Whether it was declared gone and has not come back.
    pub gone: bool,
}

/// Addresses that containers of another node hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedRange {
    /// First and last address.
    pub range: String,
    /// The node that holds them.
    pub node: PeerName,
}

/// An address that a container holds here and another node owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EstrangedAddress {
    /// Which one.
    pub address: std::net::IpAddr,
    /// The container and its interface.
    pub holder: String,
}

/// A part of the range that this node owns.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnedRange {
    /// First and last address (`10.32.0.0-10.37.85.84`).
    pub range: String,
    /// Number of addresses.
    pub size: u64,
}

/// An address in use on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationStatus {
    /// The runtime's identifier; the router's own addresses have a name with a colon.
    pub container_id: String,
    /// Name of the interface inside the container.
    pub ifname: String,
    /// The address with the prefix length of the range.
    pub address: IpNet,
    /// The interface's Ethernet address, as it was made; none if the router was not told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
}

/// Something that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What kind of trouble, in one stable word.
    pub name: String,
    /// What it is about and what to do.
    pub message: String,
    /// Since when, in seconds since 1970-01-01 UTC.
    pub since: u64,
}
