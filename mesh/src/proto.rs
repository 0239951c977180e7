//! The messages' bodies in Protocol Buffers (proto3), whose field numbers survive a rolling
//! upgrade: a field that a node does not know is passed over, one that is missing is zero.
//!
//! A number is never given to another field. Types of the domain are in `hello`, `entry` and `message`.

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Hello {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) public_key: Vec<u8>,
    #[prost(fixed64, tag = "4")]
    pub(crate) run: u64,
    #[prost(uint32, tag = "5")]
    pub(crate) control_port: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) vxlan_port: u32,
    #[prost(uint32, tag = "7")]
    pub(crate) vni: u32,
    #[prost(uint32, tag = "8")]
    pub(crate) mtu: u32,
    #[prost(string, tag = "9")]
    pub(crate) version: String,
    #[prost(uint32, tag = "10")]
    pub(crate) sleeve_port: u32,
    #[prost(message, optional, tag = "11")]
    pub(crate) seen: Option<Address>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) text: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) instead: Vec<Address>,
}

/// What follows identity, version and run in an entry.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Entry {
    #[prost(bool, tag = "1")]
    pub(crate) left: bool,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) public_key: Vec<u8>,
    #[prost(message, repeated, tag = "4")]
    pub(crate) addresses: Vec<Address>,
    #[prost(uint32, tag = "5")]
    pub(crate) vxlan_port: u32,
    #[prost(uint32, tag = "6")]
    pub(crate) sleeve_port: u32,
    #[prost(message, optional, tag = "7")]
    pub(crate) sleeve_seen: Option<Address>,
    #[prost(uint32, tag = "8")]
    pub(crate) mtu: u32,
    #[prost(string, tag = "9")]
    pub(crate) software: String,
    /// Identities of eight bytes each.
    #[prost(bytes = "vec", tag = "10")]
    pub(crate) neighbours: Vec<u8>,
    /// Whether `reach` lists those that are reached; else those that are not.
    #[prost(bool, tag = "11")]
    pub(crate) reach_only: bool,
    #[prost(bytes = "vec", tag = "12")]
    pub(crate) reach: Vec<u8>,
    /// Whether `groups` lists all; else the node wants all there are.
    #[prost(bool, tag = "13")]
    pub(crate) groups_known: bool,
    /// Addresses of six bytes each.
    #[prost(bytes = "vec", tag = "14")]
    pub(crate) groups: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Address {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ping {
    #[prost(fixed64, tag = "1")]
    pub(crate) nonce: u64,
}
