//! The Ethernet II header and its VLAN tags (IEEE 802.3-2018 §3.1, IEEE 802.1Q-2018 §9).
//!
//! ```text
//! +--------+--------+- - - - - - - -+-----------+---------
//! |  dst 6 | src 6  | tag 4 (0 to 2)| ethertype | payload
//! +--------+--------+- - - - - - - -+-----------+---------
//! ```
//!
//! A tag is the ethertype 0x8100 or 0x88a8 and two bytes: priority 3 bits, DEI 1, VLAN 12.

use crate::Mac;

/// Bytes of an untagged header.
pub const HEADER_LEN: usize = 14;
/// Bytes that a VLAN tag adds.
pub const VLAN_TAG_LEN: usize = 4;
/// Tags that are looked through: a customer's within a provider's (IEEE 802.1ad). A third is a
/// payload like any other, so that no frame makes its reader walk a chain.
pub const MAX_VLAN_TAGS: usize = 2;

/// IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// A customer VLAN tag (802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// A provider VLAN tag (802.1ad).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// The destination address, unless the frame is shorter than a header.
#[inline]
pub fn dst(frame: &[u8]) -> Option<Mac> {
    let (header, _) = frame.split_first_chunk::<HEADER_LEN>()?;
    Some(Mac([
        header[0], header[1], header[2], header[3], header[4], header[5],
    ]))
}

/// The source address, unless the frame is shorter than a header.
#[inline]
pub fn src(frame: &[u8]) -> Option<Mac> {
    let (header, _) = frame.split_first_chunk::<HEADER_LEN>()?;
    Some(Mac([
        header[6], header[7], header[8], header[9], header[10], header[11],
    ]))
}

/// The ethertype behind the VLAN tags, and the offset of the payload that it describes.
///
/// `None` if the frame ends before that. Values below 0x0600 are the length field of an IEEE 802.3
/// frame and come back as they are.
#[inline]
pub fn ethertype(frame: &[u8]) -> Option<(u16, usize)> {
    let mut payload = HEADER_LEN;
    for _ in 0..MAX_VLAN_TAGS {
        let ethertype = u16_at(frame, payload - 2)?;
        if !is_vlan(ethertype) {
            return Some((ethertype, payload));
        }
        payload += VLAN_TAG_LEN;
    }
    Some((u16_at(frame, payload - 2)?, payload))
}

/// The VLAN of the outermost tag: `None` for an untagged frame.
#[inline]
pub fn vlan(frame: &[u8]) -> Option<u16> {
    if !is_vlan(u16_at(frame, HEADER_LEN - 2)?) {
        return None;
    }
    Some(u16_at(frame, HEADER_LEN)? & 0x0fff)
}

/// Whether a tag follows this ethertype.
#[inline]
pub const fn is_vlan(ethertype: u16) -> bool {
    matches!(ethertype, ETHERTYPE_VLAN | ETHERTYPE_QINQ)
}

/// The bytes of an untagged header.
pub const fn header(dst: Mac, src: Mac, ethertype: u16) -> [u8; HEADER_LEN] {
    let ([d0, d1, d2, d3, d4, d5], [s0, s1, s2, s3, s4, s5]) = (dst.0, src.0);
    let [t0, t1] = ethertype.to_be_bytes();
    [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1]
}

#[inline]
fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let (&value, _) = bytes.get(at..)?.split_first_chunk::<2>()?;
    Some(u16::from_be_bytes(value))
}

#[cfg(test)]
mod tests {
    use pnet_packet::ethernet::EthernetPacket;
    use proptest::prelude::*;

    use super::*;

    const TAGGED: [u8; 18] = [
        0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // dst
        0x02, 0x42, 0xac, 0x11, 0x00, 0x02, // src
        0x81, 0x00, 0x20, 0x64, // priority 1, VLAN 100
        0x08, 0x00, // IPv4
    ];

    #[test]
    fn fields_of_a_tagged_frame() {
        assert_eq!(dst(&TAGGED), Some(Mac::BROADCAST));
        assert_eq!(src(&TAGGED).unwrap().to_string(), "02:42:ac:11:00:02");
        assert_eq!(ethertype(&TAGGED), Some((ETHERTYPE_IPV4, 18)));
        assert_eq!(vlan(&TAGGED), Some(100));
        assert_eq!(ethertype(&TAGGED[..17]), None);
    }

    #[test]
    fn two_tags_are_looked_through_and_a_third_is_not() {
        let mut frame = vec![0; 12];
        frame.extend([0x88, 0xa8, 0, 7, 0x81, 0x00, 0, 8, 0x86, 0xdd]);
        assert_eq!(
            (ethertype(&frame), vlan(&frame)),
            (Some((ETHERTYPE_IPV6, 22)), Some(7))
        );
        let at = frame.len() - 2;
        frame.splice(at.., [0x81, 0x00, 0, 9, 0x86, 0xdd]);
        assert_eq!(ethertype(&frame), Some((ETHERTYPE_VLAN, 22)));
    }

    #[test]
    fn a_frame_shorter_than_its_header_has_no_fields() {
        for len in 0..HEADER_LEN {
            let frame = &TAGGED[..len];
            assert_eq!(
                (dst(frame), src(frame), ethertype(frame)),
                (None, None, None),
                "{len}"
            );
        }
    }

    proptest! {
        #[test]
        fn pnet_reads_what_header_writes(dst: [u8; 6], src: [u8; 6], ethertype: u16) {
            let bytes = header(Mac(dst), Mac(src), ethertype);
            let judge = EthernetPacket::new(&bytes).unwrap();
            prop_assert_eq!(judge.get_destination().octets(), dst);
            prop_assert_eq!(judge.get_source().octets(), src);
            prop_assert_eq!(judge.get_ethertype().0, ethertype);
        }

        #[test]
        fn any_bytes_agree_with_pnet(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let judge = EthernetPacket::new(&bytes);
            prop_assert_eq!(dst(&bytes).map(|mac| mac.0), judge.as_ref().map(|j| j.get_destination().octets()));
            prop_assert_eq!(src(&bytes).map(|mac| mac.0), judge.as_ref().map(|j| j.get_source().octets()));
            if let Some((_, payload)) = ethertype(&bytes) {
                prop_assert!(payload <= bytes.len());
            }
            let _ = vlan(&bytes);
        }
    }
}
