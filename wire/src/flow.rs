//! The hash of a frame's flow: equal for all frames of a flow, spread over all 32 bits for
//! different ones, and the same on every node, architecture and run.
//!
//! A flow is the two MACs, the VLAN, and of IP the two addresses, the protocol and the two ports.
//! Fragments go without ports, so that those that have none go the way of the first, which has;
//! frames that are not IP go by MACs, VLAN and ethertype. The two directions hash differently.
//!
//! It chooses paths (the VXLAN source port, RFC 7348 §5), so whoever aims at a collision gains a
//! crowded path and nothing else; it needs no key.

use crate::checksum::{PROTOCOL_TCP, PROTOCOL_UDP};
use crate::ethernet::{self, ETHERTYPE_IPV4, ETHERTYPE_IPV6};

/// Protocols (IANA) whose first four bytes are the two ports, beside TCP and UDP: DCCP, SCTP and
/// UDP-Lite.
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

/// IPv6 extension headers (RFC 8200 §4) that are looked through.
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

/// Extension headers that are looked through before a packet counts as having no ports: more than
/// any RFC's recommended order has (RFC 8200 §4.1), few enough that no packet makes us walk far.
const MAX_EXTENSIONS: usize = 6;

/// Odd constants with bits well mixed: the fractions of the square roots of 2, 3, 5 and 7.
const K0: u64 = 0x6a09_e667_f3bc_c909;
const K1: u64 = 0xbb67_ae85_84ca_a73b;
const K2: u64 = 0x3c6e_f372_fe94_f82b;
const K3: u64 = 0xa54f_f53a_5f1d_36f1;

/// The hash of the flow that a frame belongs to. A frame without a whole Ethernet header hashes to
/// that of no flow.
#[inline]
pub fn hash(frame: &[u8]) -> u32 {
    let Some((header, _)) = frame.split_first_chunk::<{ ethernet::HEADER_LEN }>() else {
        return finish(K0);
    };
    let &[m0, m1, m2, m3, m4, m5, m6, m7, m8, m9, m10, m11, _, _] = header;
    let vlan = ethernet::vlan(frame).map_or(0, |vlan| u64::from(vlan) + 1);
    let (ethertype, payload) = ethernet::ethertype(frame).unwrap_or((0, frame.len()));
    let state = mix(
        K0 ^ u64::from_be_bytes([m0, m1, m2, m3, m4, m5, m6, m7]),
        K1,
    );
    let state = mix(
        state ^ (u64::from(u32::from_be_bytes([m8, m9, m10, m11])) << 32 | vlan << 16),
        K2 ^ u64::from(ethertype),
    );
    let packet = frame.get(payload..).unwrap_or_default();
    let state = match ethertype {
        ETHERTYPE_IPV4 => ipv4(state, packet),
        ETHERTYPE_IPV6 => ipv6(state, packet),
        _ => None,
    }
    .unwrap_or(state);
    finish(state)
}

/// A hash that both directions of a flow share: of the unordered pairs of MACs, addresses and
/// ports. It keeps a conversation on one queue; paths are chosen by [`hash`].
#[inline]
pub fn symmetric(frame: &[u8]) -> u32 {
    /// Equal for `(a, b)` and `(b, a)`.
    const fn pair(a: u64, b: u64) -> u64 {
        (a ^ b).wrapping_add((a.wrapping_add(b)).rotate_left(32))
    }
    let words = |bytes: &[u8]| -> u64 {
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().fold(K0, |state, word| {
            mix(state ^ u64::from(u32::from_be_bytes(*word)), K1)
        })
    };
    let Some((ethertype, at)) = ethernet::ethertype(frame) else {
        return finish(K0);
    };
    let packet = frame.get(at..).unwrap_or_default();
    let (addresses, protocol, ports) = match (ethertype, packet) {
        (ETHERTYPE_IPV4, [first, _, _, _, _, _, f0, f1, _, protocol, ..]) if packet.len() >= 20 => {
            let whole = u16::from_be_bytes([*f0, *f1]) & 0x3fff == 0;
            let at = usize::from(first & 0x0f) * 4;
            let ports = if whole {
                ports(*protocol, packet, at)
            } else {
                0
            };
            (
                pair(words(&packet[12..16]), words(&packet[16..20])),
                *protocol,
                ports,
            )
        }
        (ETHERTYPE_IPV6, [_, _, _, _, _, _, next, ..]) if packet.len() >= 40 => {
            let (protocol, ports) = ipv6_transport(packet, *next);
            (
                pair(words(&packet[8..24]), words(&packet[24..40])),
                protocol,
                ports,
            )
        }
        _ => (pair(words(&frame[..6]), words(&frame[6..12])), 0, 0),
    };
    let ports = pair(u64::from(ports >> 16), u64::from(ports & 0xffff));
    finish(mix(addresses ^ u64::from(protocol), K2) ^ mix(ports, K3))
}

/// `None` if the packet is too short to be IPv4.
#[inline]
fn ipv4(state: u64, packet: &[u8]) -> Option<u64> {
    let (header, _) = packet.split_first_chunk::<20>()?;
    let (&addresses, _) = header[12..].split_first_chunk::<8>()?;
    let protocol = header[9];
    // More fragments, or an offset.
    let fragment = u16::from_be_bytes([header[6], header[7]]) & 0x3fff != 0;
    let ports = match fragment {
        true => 0,
        false => ports(protocol, packet, usize::from(header[0] & 0x0f) * 4),
    };
    let state = mix(state ^ u64::from_be_bytes(addresses), K3);
    Some(mix(state ^ u64::from(ports), K1 ^ u64::from(protocol)))
}

/// `None` if the packet is too short to be IPv6.
#[inline]
fn ipv6(state: u64, packet: &[u8]) -> Option<u64> {
    let (header, _) = packet.split_first_chunk::<40>()?;
    let (addresses, _) = header[8..].as_chunks::<8>();
    let (protocol, ports) = ipv6_transport(packet, header[6]);
    let state = addresses.iter().fold(state, |state, word| {
        mix(state ^ u64::from_be_bytes(*word), K3)
    });
    Some(mix(state ^ u64::from(ports), K1 ^ u64::from(protocol)))
}

/// The upper layer's protocol and ports, behind the extension headers.
fn ipv6_transport(packet: &[u8], mut next: u8) -> (u8, u32) {
    let mut at = 40;
    for _ in 0..MAX_EXTENSIONS {
        let Some((&[following, len, f0, f1], _)) = packet
            .get(at..)
            .and_then(|rest| rest.split_first_chunk::<4>())
        else {
            break;
        };
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION => at += (usize::from(len) + 1) * 8,
            // The first fragment shows its upper layer, the others need not: all go without.
            FRAGMENT if u16::from_be_bytes([f0, f1]) & 0xfff9 != 0 => return (FRAGMENT, 0),
            FRAGMENT => at += 8,
            _ => return (next, ports(next, packet, at)),
        }
        next = following;
    }
    (next, 0)
}

/// Both ports as one number; 0 if the protocol has none or the packet ends before them.
#[inline]
fn ports(protocol: u8, packet: &[u8], at: usize) -> u32 {
    if !matches!(
        protocol,
        PROTOCOL_TCP | PROTOCOL_UDP | DCCP | SCTP | UDP_LITE
    ) {
        return 0;
    }
    match packet
        .get(at..)
        .and_then(|rest| rest.split_first_chunk::<4>())
    {
        Some((&ports, _)) => u32::from_be_bytes(ports),
        None => 0,
    }
}

/// Multiplies into 128 bits and folds them, so that every bit of the input reaches every other.
#[inline]
const fn mix(a: u64, b: u64) -> u64 {
    const LOW: u128 = u64::MAX as u128;
    let product = a as u128 * b as u128;
    (product & LOW) as u64 ^ (product >> 64) as u64
}

#[inline]
const fn finish(state: u64) -> u32 {
    (mix(state, K2) >> 32) as u32
}

#[cfg(test)]
mod tests;
