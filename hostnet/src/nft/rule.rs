//! Rules as lists of expressions, and their bytes.
//!
//! Values pass through registers. The first field that is loaded lies in the first 16 bytes, a second
//! one behind it, so that the two together are a key of a set (`NFT_REG32_00`, `NFT_REG32_04`).

use super::message::{Attributes, attributes};

/// What a rule does with a packet: each expression in order, until one does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule(pub Vec<Expr>);

/// One step of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// Load what the kernel knows of a packet into the first place.
    Meta(Meta),
    /// Load bytes of the packet into the first place, or the second.
    Payload {
        /// Where the offset counts from.
        base: Base,
        /// In bytes.
        offset: u32,
        /// In bytes, at most 16.
        len: u32,
        /// Whether it goes behind what was loaded before.
        second: bool,
    },
    /// Keep only these bits of the first place.
    Mask(Vec<u8>),
    /// Go on if the first place compares so.
    Compare(Operator, Vec<u8>),
    /// Go on if what was loaded is in a set, or is not.
    Lookup {
        /// The set.
        set: String,
        /// Whether it must not be in there.
        absent: bool,
    },
    /// Count in a counter of the table.
    Count(String),
    /// Do not track the connection.
    NoTrack,
    /// Give the packet the address of the interface that it leaves by, with a random port.
    Masquerade,
    /// Decide.
    Verdict(Verdict),
}

/// What the kernel knows of a packet (`enum nft_meta_keys`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Meta {
    /// Ethernet type, two bytes in network order.
    Protocol = 1,
    /// Name of the interface it came in by, 16 bytes.
    InName = 6,
    /// Name of the interface it leaves by, 16 bytes.
    OutName = 7,
    /// 2 for IPv4, 10 for IPv6; one byte.
    NfProto = 15,
    /// Protocol above IP; one byte.
    L4Proto = 16,
}

/// Where an offset counts from (`enum nft_payload_bases`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Base {
    /// The Ethernet header.
    Link = 0,
    /// The IP header, or what is in its place.
    Network = 1,
    /// The header above IP.
    Transport = 2,
}

/// How two values compare (`enum nft_cmp_ops`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Operator {
    /// Equal.
    Is = 0,
    /// Not equal.
    IsNot = 1,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Nobody sees it any more.
    Drop,
    /// This chain has no objection.
    Accept,
}

/// What a part of a set's key is: a number for the program `nft`, which shows it, and a length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// An interface's name.
    Interface,
    /// An Ethernet address.
    Ether,
    /// An IPv4 address.
    Ipv4,
    /// An IPv6 address.
    Ipv6,
}

impl Field {
    /// Bytes that it takes in a key.
    pub const fn size(self) -> u32 {
        match self {
            Self::Interface | Self::Ipv6 => 16,
            Self::Ether => 8,
            Self::Ipv4 => 4,
        }
    }

    /// The number by which `nft` shows it (its `enum datatypes`).
    pub(super) const fn shown_as(self) -> u32 {
        match self {
            Self::Ipv4 => 7,
            Self::Ipv6 => 8,
            Self::Ether => 9,
            Self::Interface => 41,
        }
    }
}

/// `NFT_REG_1`: 16 bytes from the first word on.
const FIRST: u32 = 1;
/// `NFT_REG32_04`: the word after those.
const SECOND: u32 = 12;
/// `NFT_REG_VERDICT`.
const VERDICT: u32 = 0;
/// `NFT_OBJECT_COUNTER`.
pub(super) const COUNTER: u32 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`.
const FULLY_RANDOM: u32 = 1 << 4;
/// `NFTA_LIST_ELEM`.
pub(super) const LIST_ELEM: u16 = 1;
/// `NFTA_DATA_VALUE`.
pub(super) const DATA_VALUE: u16 = 1;

impl Rule {
    /// Identifies the rule: kept with it in the kernel, so that what is there can be compared without
    /// being understood. FNV-1a, 64 bits, of its bytes.
    pub fn digest(&self) -> u64 {
        let bytes = attributes(|attributes| self.encode(attributes));
        bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// As a list of expressions (`NFTA_RULE_EXPRESSIONS`).
    pub(super) fn encode(&self, list: &mut Attributes<'_>) {
        for expr in &self.0 {
            list.nest(LIST_ELEM, |element| {
                element.text(1, expr.name());
                element.nest(2, |data| expr.encode(data));
            });
        }
    }
}

impl Expr {
    const fn name(&self) -> &'static str {
        match self {
            Self::Meta(_) => "meta",
            Self::Payload { .. } => "payload",
            Self::Mask(_) => "bitwise",
            Self::Compare(..) => "cmp",
            Self::Lookup { .. } => "lookup",
            Self::Count(_) => "objref",
            Self::NoTrack => "notrack",
            Self::Masquerade => "masq",
            Self::Verdict(_) => "immediate",
        }
    }

    fn encode(&self, data: &mut Attributes<'_>) {
        match self {
            Self::Meta(key) => {
                data.be32(1, FIRST);
                data.be32(2, *key as u32);
            }
            Self::Payload {
                base,
                offset,
                len,
                second,
            } => {
                data.be32(1, if *second { SECOND } else { FIRST });
                data.be32(2, *base as u32);
                data.be32(3, *offset);
                data.be32(4, *len);
            }
            Self::Mask(mask) => {
                data.be32(1, FIRST);
                data.be32(2, FIRST);
                data.be32(3, u32::try_from(mask.len()).unwrap_or(u32::MAX));
                data.nest(4, |mask_| mask_.bytes(DATA_VALUE, mask));
                data.nest(5, |xor| xor.bytes(DATA_VALUE, &vec![0; mask.len()]));
            }
            Self::Compare(operator, value) => {
                data.be32(1, FIRST);
                data.be32(2, *operator as u32);
                data.nest(3, |operand| operand.bytes(DATA_VALUE, value));
            }
            Self::Lookup { set, absent } => {
                data.text(1, set);
                data.be32(2, FIRST);
                data.be32(5, u32::from(*absent));
            }
            Self::Count(counter) => {
                data.be32(1, COUNTER);
                data.text(2, counter);
            }
            Self::NoTrack => {}
            Self::Masquerade => data.be32(1, FULLY_RANDOM),
            Self::Verdict(verdict) => {
                let code: u32 = match verdict {
                    Verdict::Drop => 0,
                    Verdict::Accept => 1,
                };
                data.be32(1, VERDICT);
                data.nest(2, |value| value.nest(2, |verdict| verdict.be32(1, code)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_that_differ_have_different_digests() {
        let name = |text: &str| {
            Rule(vec![
                Expr::Meta(Meta::InName),
                Expr::Compare(Operator::Is, text.into()),
                Expr::Verdict(Verdict::Drop),
            ])
        };
        assert_eq!(name("vw").digest(), name("vw").digest());
        assert_ne!(name("vw").digest(), name("vx").digest());
    }
}
