//! Probes: frames by which two routers try the way between them, in the encapsulation that pods'
//! frames take.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |        inner Ethernet header, 14 bytes: destination           |
//! |        01:80:c2:00:00:0e, source, ethertype 88b5              |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |    version    |     kind      |             size              |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |                   source peer, 8 bytes                        |
//! |                   destination peer, 8 bytes                   |
//! |                   run, 8 bytes                                |
//! |                   nonce, 8 bytes                              |
//! |                   observed address, 16 bytes                  |
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |         observed port         |  zeros, up to size
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+- - - -
//! ```
//!
//! A reply has one byte more, 1, if its sender lets frames come in the clear from the observed address.
//!
//! The destination is a group that no bridge lets pass (IEEE 802.1Q-2018 table 8-1) and that the
//! packet engine takes from no pod, so that a pod can neither see a probe nor forge one. The
//! ethertype is the one for local experiments (IEEE 802 §9.2).

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use crate::ethernet::{self, HEADER_LEN};
use crate::{Mac, PeerId};

/// Destination of every probe: the nearest bridge.
pub const GROUP: Mac = Mac([0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e]);
/// Local experimental ethertype 1.
pub const ETHERTYPE: u16 = 0x88b5;
/// The format of this page.
pub const VERSION: u8 = 1;
/// Bytes of a probe's frame without padding, its Ethernet header included.
pub const MIN_LEN: usize = HEADER_LEN + BODY_LEN;

const BODY_LEN: usize = 54;
const REQUEST: u8 = 1;
const REPLY: u8 = 2;
/// Behind the body of a reply: frames may come in the clear.
const PLAIN: u8 = 1;

/// A probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Question or answer.
    pub kind: ProbeKind,
    /// Bytes of the request's frame, its Ethernet header included. A request is padded to it; a
    /// reply tells what arrived, and is short itself. At least [`MIN_LEN`].
    pub size: u16,
    /// Who sends it.
    pub source: PeerId,
    /// Whom it is for: another drops it.
    pub destination: PeerId,
    /// Which life of the requester sent it.
    pub run: u64,
    /// The requester's number for it.
    pub nonce: u64,
}

/// Question or answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeKind {
    /// To be answered.
    Request,
    /// The answer, with the request's size, run and nonce.
    Reply {
        /// Whence the request came, as its receiver saw it.
        observed: SocketAddr,
        /// Whether the receiver, which seals what it sends, would take and send frames in the clear
        /// there. A word that counts only where it was sealed itself.
        plain: bool,
    },
}

/// Why a probe's frame cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProbeError {
    /// Fewer bytes than every probe has.
    #[error("probe of {0} bytes is shorter than {MIN_LEN}")]
    Truncated(usize),
    /// A format of a later version.
    #[error("probe of version {0}, not {VERSION}")]
    Version(u8),
    /// Neither request nor reply.
    #[error("probe of kind {0}, neither request (1) nor reply (2)")]
    Kind(u8),
    /// A request that arrived with another length than it was sent with, or a size that none has.
    #[error("probe of size {size} in a frame of {len} bytes")]
    Size {
        /// The field.
        size: u16,
        /// The frame's bytes.
        len: usize,
    },
}

/// Whether a frame is a probe, of whatever version.
#[inline]
pub fn is_probe(frame: &[u8]) -> bool {
    let Some(header) = frame.first_chunk::<HEADER_LEN>() else {
        return false;
    };
    header[..6] == GROUP.0 && header[12..] == ETHERTYPE.to_be_bytes()
}

/// The source address of a peer's probes. No bridge ever learns it.
pub fn source_mac(peer: PeerId) -> Mac {
    let [a, b, c, d, e, f, _, _] = peer.0;
    Mac::local([a, b, c, d, e, f])
}

impl Probe {
    /// The frame: of `size` bytes if this is a request, else of [`MIN_LEN`] or one more.
    pub fn frame(&self) -> Vec<u8> {
        let (kind, len, observed, plain) = match self.kind {
            ProbeKind::Request => (REQUEST, usize::from(self.size), None, false),
            ProbeKind::Reply { observed, plain } => (REPLY, MIN_LEN, Some(observed), plain),
        };
        let ip = match observed.map(|observed| observed.ip()) {
            None => Ipv6Addr::UNSPECIFIED,
            Some(IpAddr::V4(ip)) => ip.to_ipv6_mapped(),
            Some(IpAddr::V6(ip)) => ip,
        };
        let port = observed.map_or(0, |observed| observed.port());
        let mut frame = Vec::with_capacity(len.max(MIN_LEN));
        frame.extend(ethernet::header(GROUP, source_mac(self.source), ETHERTYPE));
        frame.extend([VERSION, kind]);
        frame.extend(self.size.to_be_bytes());
        frame.extend(self.source.0);
        frame.extend(self.destination.0);
        frame.extend(self.run.to_be_bytes());
        frame.extend(self.nonce.to_be_bytes());
        frame.extend(ip.octets());
        frame.extend(port.to_be_bytes());
        frame.extend(plain.then_some(PLAIN));
        frame.resize(len.max(frame.len()), 0);
        frame
    }
}

/// Reads a frame for which [`is_probe`] holds. Padding is not looked at.
///
/// # Errors
/// The frame is too short, of another version or kind, or not as long as it says.
pub fn parse(frame: &[u8]) -> Result<Probe, ProbeError> {
    let body = frame
        .get(HEADER_LEN..)
        .and_then(<[u8]>::first_chunk::<BODY_LEN>)
        .ok_or(ProbeError::Truncated(frame.len()))?;
    if body[0] != VERSION {
        return Err(ProbeError::Version(body[0]));
    }
    let size = u16::from_be_bytes([body[2], body[3]]);
    let kind = match body[1] {
        REQUEST => ProbeKind::Request,
        REPLY => {
            let ip = Ipv6Addr::from(field::<16>(body, 36)).to_canonical();
            let port = u16::from_be_bytes([body[52], body[53]]);
            ProbeKind::Reply {
                observed: SocketAddr::new(ip, port),
                plain: frame.get(MIN_LEN) == Some(&PLAIN),
            }
        }
        other => return Err(ProbeError::Kind(other)),
    };
    let len = frame.len();
    if usize::from(size) < MIN_LEN || (kind == ProbeKind::Request && usize::from(size) != len) {
        return Err(ProbeError::Size { size, len });
    }
    Ok(Probe {
        kind,
        size,
        source: PeerId(field(body, 4)),
        destination: PeerId(field(body, 12)),
        run: u64::from_be_bytes(field(body, 20)),
        nonce: u64::from_be_bytes(field(body, 28)),
    })
}

/// The bytes of a field of the body.
fn field<const LEN: usize>(body: &[u8; BODY_LEN], at: usize) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    bytes.copy_from_slice(&body[at..at + LEN]);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FROM: PeerId = PeerId([0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18]);
    const TO: PeerId = PeerId([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28]);

    fn request(size: u16) -> Probe {
        Probe {
            kind: ProbeKind::Request,
            size,
            source: FROM,
            destination: TO,
            run: 0x3132_3334_3536_3738,
            nonce: 0x4142_4344_4546_4748,
        }
    }

    fn reply(size: u16, observed: &str) -> Probe {
        Probe {
            kind: ProbeKind::Reply {
                observed: observed.parse().unwrap(),
                plain: false,
            },
            source: TO,
            destination: FROM,
            ..request(size)
        }
    }

    /// The reply that `docs/wire-format.md` shows, to a request of 1464 bytes.
    #[rustfmt::skip]
    const REPLY_TO_1464: [u8; MIN_LEN] = [
        0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e, 0x22, 0x22, 0x23, 0x24, 0x25, 0x26, 0x88, 0xb5,
        0x01, 0x02, 0x05, 0xb8,
        0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
        0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18,
        0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38,
        0x41, 0x42, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48,
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xc0, 0x00, 0x02, 0x01,
        0x1a, 0x7f,
    ];

    #[test]
    fn bytes_match_the_documented_diagram() {
        let probe = reply(1464, "192.0.2.1:6783");
        assert_eq!(probe.frame(), REPLY_TO_1464);
        assert_eq!(parse(&REPLY_TO_1464), Ok(probe));
        assert!(is_probe(&REPLY_TO_1464));
        let frame = request(68).frame();
        assert_eq!(
            frame[..18],
            *b"\x01\x80\xc2\x00\x00\x0e\x12\x12\x13\x14\x15\x16\x88\xb5\x01\x01\x00\x44"
        );
        assert_eq!(frame[50..], [0; 18]);
    }

    #[test]
    fn consent_to_frames_in_the_clear_is_one_byte_more() {
        let observed = "192.0.2.1:6783".parse().unwrap();
        let kind = ProbeKind::Reply {
            observed,
            plain: true,
        };
        let probe = Probe {
            kind,
            ..reply(1464, "192.0.2.1:6783")
        };
        let mut frame = probe.frame();
        assert_eq!(frame, [&REPLY_TO_1464[..], &[1]].concat());
        assert_eq!(parse(&frame), Ok(probe));
        // Anything else is none.
        frame[MIN_LEN] = 2;
        assert_eq!(parse(&frame), Ok(reply(1464, "192.0.2.1:6783")));
    }

    #[test]
    fn no_bridge_lets_a_probe_pass() {
        assert!(GROUP.is_link_local());
        assert!(source_mac(PeerId([0xff; 8])).is_unicast());
    }

    #[test]
    fn other_frames_are_no_probes() {
        let frame = request(68).frame();
        for at in (0..6).chain(12..14) {
            let mut other = frame.clone();
            other[at] ^= 1;
            assert!(!is_probe(&other), "byte {at}");
        }
        assert!(!is_probe(&frame[..13]));
    }

    #[test]
    fn refusals_name_the_fault() {
        let frame = request(100).frame();
        assert_eq!(parse(&frame[..67]), Err(ProbeError::Truncated(67)));
        assert_eq!(
            parse(&frame[..99]),
            Err(ProbeError::Size { size: 100, len: 99 })
        );
        let with = |at: usize, value: u8| {
            let mut frame = frame.clone();
            frame[at] = value;
            parse(&frame)
        };
        assert_eq!(with(14, 2), Err(ProbeError::Version(2)));
        assert_eq!(with(15, 3), Err(ProbeError::Kind(3)));
        let mut tiny = reply(68, "[::1]:1").frame();
        tiny[17] = 67;
        assert_eq!(parse(&tiny), Err(ProbeError::Size { size: 67, len: 68 }));
    }

    proptest! {
        #[test]
        fn parse_after_emit_is_the_identity(
            size in 68_u16.., run: u64, nonce: u64, reply: bool, ip: [u8; 16], port: u16, plain: bool,
        ) {
            let observed = SocketAddr::new(Ipv6Addr::from(ip).to_canonical(), port);
            let kind = if reply { ProbeKind::Reply { observed, plain } } else { ProbeKind::Request };
            let probe = Probe { kind, run, nonce, ..request(size) };
            let frame = probe.frame();
            prop_assert!(is_probe(&frame));
            let len = if reply { MIN_LEN + usize::from(plain) } else { usize::from(size) };
            prop_assert_eq!(frame.len(), len);
            prop_assert_eq!(parse(&frame), Ok(probe));
        }

        #[test]
        fn any_bytes_are_read_or_refused(tail: Vec<u8>, head in 0..=MIN_LEN) {
            let mut bytes = request(68).frame();
            bytes.truncate(head);
            bytes.extend(tail);
            let _ = is_probe(&bytes);
            if let Ok(probe) = parse(&bytes) {
                prop_assert!(usize::from(probe.size) >= MIN_LEN);
            }
        }
    }
}
