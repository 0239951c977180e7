//! Socket addresses and control messages as the bytes that the kernel reads and writes, built and
//! read without pointers (sockaddr: ip(7), ipv6(7), packet(7); control messages: cmsg(3)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use nix::libc;

/// A `sockaddr_in`, `sockaddr_in6` or `sockaddr_ll`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct SockAddr {
    /// Room for the longest of the three, `sockaddr_in6`.
    bytes: [u8; 28],
    len: u32,
}

impl SockAddr {
    /// Bytes that the kernel may write.
    pub(crate) const ROOM: u32 = 28;

    /// Room to receive an address into.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; 28],
        len: 0,
    };

    /// An address in its own family: IPv4 as `sockaddr_in`.
    pub(crate) fn new(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => {
                let mut this = Self::of_family(libc::AF_INET, 16);
                this.bytes[2..4].copy_from_slice(&v4.port().to_be_bytes());
                this.bytes[4..8].copy_from_slice(&v4.ip().octets());
                this
            }
            SocketAddr::V6(v6) => Self::v6(*v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id()),
        }
    }

    /// An address for an IPv6 socket: IPv4 as `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2).
    pub(crate) fn mapped(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(v4) => Self::v6(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0),
            SocketAddr::V6(_) => Self::new(address),
        }
    }

    /// A `sockaddr_ll` to bind a packet socket to one interface and ethertype.
    pub(crate) fn link(ifindex: u32, ethertype: u16) -> Self {
        let mut this = Self::of_family(libc::AF_PACKET, 20);
        this.bytes[2..4].copy_from_slice(&ethertype.to_be_bytes());
        this.bytes[4..8].copy_from_slice(&ifindex.to_ne_bytes());
        this
    }

    /// The IP address, unmapped; `None` for another family or a truncated one.
    pub(crate) fn to_inet(self) -> Option<SocketAddr> {
        let bytes = self.bytes();
        let family = libc::c_int::from(u16::from_ne_bytes(field(bytes, 0)?));
        let port = u16::from_be_bytes(field(bytes, 2)?);
        match family {
            libc::AF_INET => {
                let ip = Ipv4Addr::from(field::<4>(bytes, 4)?);
                Some(SocketAddrV4::new(ip, port).into())
            }
            libc::AF_INET6 => {
                let flow = u32::from_ne_bytes(field(bytes, 4)?);
                let ip = Ipv6Addr::from(field::<16>(bytes, 8)?);
                let scope = u32::from_ne_bytes(field(bytes, 24)?);
                Some(match ip.to_canonical() {
                    IpAddr::V4(ip) => SocketAddrV4::new(ip, port).into(),
                    IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
                })
            }
            _ => None,
        }
    }

    /// The `sll_pkttype` of a `sockaddr_ll`.
    pub(crate) fn packet_type(self) -> Option<u8> {
        let bytes = self.bytes();
        let family = u16::from_ne_bytes(field(bytes, 0)?);
        (libc::c_int::from(family) == libc::AF_PACKET).then(|| bytes.get(10).copied())?
    }

    /// The address itself.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len as usize]
    }

    /// Length of [`Self::bytes`], as the kernel counts it.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// All bytes, for the kernel to write.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Takes over the length that the kernel wrote.
    pub(crate) fn set_len(&mut self, len: u32) {
        self.len = len.min(Self::ROOM);
    }

    fn v6(ip: Ipv6Addr, port: u16, flowinfo: u32, scope: u32) -> Self {
        let mut this = Self::of_family(libc::AF_INET6, Self::ROOM);
        this.bytes[2..4].copy_from_slice(&port.to_be_bytes());
        this.bytes[4..8].copy_from_slice(&flowinfo.to_ne_bytes());
        this.bytes[8..24].copy_from_slice(&ip.octets());
        this.bytes[24..28].copy_from_slice(&scope.to_ne_bytes());
        this
    }

    fn of_family(family: libc::c_int, len: u32) -> Self {
        let family = u16::try_from(family).expect("address families are small numbers");
        let mut this = Self { len, ..Self::EMPTY };
        this.bytes[..2].copy_from_slice(&family.to_ne_bytes());
        this
    }
}

/// Control messages (`struct cmsghdr` with their data) to send or as received.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
pub(crate) struct Control {
    bytes: [u8; 64],
    len: usize,
}

impl Control {
    /// No control message.
    pub(crate) const EMPTY: Self = Self {
        bytes: [0; 64],
        len: 0,
    };

    /// One control message with a value of two bytes, as `UDP_SEGMENT` takes it.
    pub(crate) fn of_u16(level: libc::c_int, kind: libc::c_int, value: u16) -> Self {
        let mut this = Self::EMPTY;
        let end = HEADER_LEN + size_of::<u16>();
        this.bytes[..WORD].copy_from_slice(&end.to_ne_bytes());
        this.bytes[WORD..WORD + 4].copy_from_slice(&level.to_ne_bytes());
        this.bytes[WORD + 4..HEADER_LEN].copy_from_slice(&kind.to_ne_bytes());
        this.bytes[HEADER_LEN..end].copy_from_slice(&value.to_ne_bytes());
        this.len = end.next_multiple_of(WORD);
        this
    }

    /// The data of the first message of this level and kind.
    pub(crate) fn find(&self, level: libc::c_int, kind: libc::c_int) -> Option<&[u8]> {
        let mut rest = self.bytes();
        while rest.len() >= HEADER_LEN {
            let len = usize::from_ne_bytes(field(rest, 0)?);
            let data = rest.get(HEADER_LEN..len)?;
            let found = (
                libc::c_int::from_ne_bytes(field(rest, WORD)?),
                libc::c_int::from_ne_bytes(field(rest, WORD + 4)?),
            );
            if found == (level, kind) {
                return Some(data);
            }
            rest = rest.get(len.next_multiple_of(WORD)..)?;
        }
        None
    }

    /// The messages themselves.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }

    /// All bytes, for the kernel to write.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Takes over the length that the kernel wrote.
    pub(crate) fn set_len(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }
}

/// Control messages are aligned to, and begin with, a `size_t`.
const WORD: usize = size_of::<usize>();
/// Length, level, kind.
const HEADER_LEN: usize = WORD + 8;

/// `N` bytes at an offset, if they are there.
pub(crate) fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn addresses_round_trip(address: SocketAddr) {
            // A mapped address names the IPv4 host, and comes back as that.
            let plain = SocketAddr::new(address.ip().to_canonical(), address.port());
            prop_assert_eq!(SockAddr::new(plain).to_inet().unwrap(), plain);
            prop_assert_eq!(SockAddr::mapped(plain).to_inet().unwrap(), plain);
        }

        #[test]
        fn received_control_bytes_are_read_or_ignored(bytes: [u8; 64], len in 0usize..100, first in 0usize..80) {
            let mut control = Control::EMPTY;
            control.room().copy_from_slice(&bytes);
            control.room()[..WORD].copy_from_slice(&first.to_ne_bytes());
            control.set_len(len);
            control.find(libc::SOL_UDP, libc::UDP_GRO);
        }
    }

    #[test]
    fn a_control_message_is_found_by_level_and_kind() {
        let control = Control::of_u16(libc::SOL_UDP, libc::UDP_SEGMENT, 1400);
        assert_eq!(
            control.find(libc::SOL_UDP, libc::UDP_SEGMENT),
            Some(&1400u16.to_ne_bytes()[..])
        );
        assert_eq!(control.find(libc::SOL_UDP, libc::UDP_GRO), None);
        assert_eq!(control.find(libc::SOL_IP, libc::UDP_SEGMENT), None);
    }
}
