//! The messages' bodies in Protocol Buffers (proto3), whose field numbers survive a rolling
//! upgrade: a field that a node does not know is passed over, one that is missing is zero.
//!
//! A number is never given to another field. Types of the domain are in `hello` and `message`.

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
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Refusal {
    #[prost(uint32, tag = "1")]
    pub(crate) code: u32,
    #[prost(string, tag = "2")]
    pub(crate) text: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Peers {
    #[prost(message, repeated, tag = "1")]
    pub(crate) known: Vec<KnownPeer>,
    #[prost(message, repeated, tag = "2")]
    pub(crate) left: Vec<Departure>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct KnownPeer {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(fixed64, tag = "3")]
    pub(crate) run: u64,
    #[prost(message, repeated, tag = "4")]
    pub(crate) addresses: Vec<Address>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Address {
    /// 4 or 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) ip: Vec<u8>,
    #[prost(uint32, tag = "2")]
    pub(crate) port: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Departure {
    #[prost(bytes = "vec", tag = "1")]
    pub(crate) id: Vec<u8>,
    #[prost(fixed64, tag = "2")]
    pub(crate) run: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(crate) struct Ping {
    #[prost(fixed64, tag = "1")]
    pub(crate) nonce: u64,
}
