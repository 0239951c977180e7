//! Addresses as numbers: the 128-bit space, ranges in it, and the range that a ring divides.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// An IP version. Inside a ring an address is only a number; the family says how to write it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// 32-bit addresses, numbers 0 to 2^32 - 1.
    V4,
    /// 128-bit addresses.
    V6,
}

impl Family {
    /// The family of this address.
    pub fn of(address: IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    /// Bits in an address.
    pub fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }

    /// The address with this number. Bits beyond the family's are ignored.
    pub fn address(self, number: u128) -> IpAddr {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "an IPv4 number has 32 bits"
            )]
            Self::V4 => Ipv4Addr::from_bits(number as u32).into(),
            Self::V6 => Ipv6Addr::from_bits(number).into(),
        }
    }
}

/// The number of an address, in its own family's space.
pub(crate) fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_bits().into(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// A run of addresses, both ends included, so that it can end at the last address there is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Range {
    first: u128,
    last: u128,
}

impl Range {
    /// From `first` to `last`, or nothing if they are in the wrong order.
    pub fn new(first: u128, last: u128) -> Option<Self> {
        (first <= last).then_some(Self { first, last })
    }

    /// One address.
    pub fn single(address: u128) -> Self {
        Self {
            first: address,
            last: address,
        }
    }

    /// All addresses of a network, its first and last included.
    pub fn of(net: IpNet) -> Self {
        Self {
            first: number(net.network()),
            last: number(net.broadcast()),
        }
    }

    /// Lowest address.
    pub fn first(&self) -> u128 {
        self.first
    }

    /// Highest address.
    pub fn last(&self) -> u128 {
        self.last
    }

    /// How many addresses; the whole 128-bit space counts one too few (2^128 has no `u128`).
    pub fn size(&self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether the address is inside.
    pub fn contains(&self, address: u128) -> bool {
        (self.first..=self.last).contains(&address)
    }

    /// Whether all of `other` is inside.
    pub fn covers(&self, other: &Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// What both have.
    pub fn overlap(&self, other: &Self) -> Option<Self> {
        Self::new(self.first.max(other.first), self.last.min(other.last))
    }

    /// Without its first and last address: the hosts of a subnet.
    pub fn hosts(&self) -> Option<Self> {
        Self::new(self.first.checked_add(1)?, self.last.checked_sub(1)?)
    }

    /// Lower and upper half, the lower one smaller by one if the size is odd; a single address
    /// has no halves. Halves of a CIDR block are CIDR blocks.
    pub fn halves(&self) -> Option<(Self, Self)> {
        let last_of_lower = self.first + (self.last - self.first).checked_sub(1)? / 2;
        Some((
            Self {
                first: self.first,
                last: last_of_lower,
            },
            Self {
                first: last_of_lower + 1,
                last: self.last,
            },
        ))
    }

    /// As text: `10.32.0.0-10.35.255.255`.
    pub fn text(&self, family: Family) -> String {
        format!(
            "{}-{}",
            family.address(self.first),
            family.address(self.last)
        )
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}-{:#x}", self.first, self.last)
    }
}

/// The range of addresses that one ring divides: a network with room for at least two hosts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Universe(IpNet);

impl Universe {
    /// Checks a network that is to be divided.
    pub fn new(net: IpNet) -> Result<Self, UniverseError> {
        if net != net.trunc() {
            return Err(UniverseError::HostBits {
                net,
                network: net.trunc(),
            });
        }
        if net.prefix_len() == 0 || net.addr().is_multicast() || net.addr().is_loopback() {
            return Err(UniverseError::NotUnicast { net });
        }
        let longest = Self::longest_prefix(Family::of(net.addr()));
        if net.prefix_len() > longest {
            return Err(UniverseError::TooSmall { net, longest });
        }
        Ok(Self(net))
    }

    /// The longest prefix that leaves two hosts beside the reserved first and last address.
    pub fn longest_prefix(family: Family) -> u8 {
        family.bits() - 2
    }

    /// As a network.
    pub fn net(&self) -> IpNet {
        self.0
    }

    /// Which family its addresses are of.
    pub fn family(&self) -> Family {
        Family::of(self.0.addr())
    }

    /// As a run of addresses, the reserved first and last included.
    pub fn range(&self) -> Range {
        Range::of(self.0)
    }

    /// The number of an address, if it is of this family and inside.
    pub fn number(&self, address: IpAddr) -> Option<u128> {
        self.0.contains(&address).then(|| number(address))
    }

    /// The address with this number.
    pub fn address(&self, number: u128) -> IpAddr {
        self.family().address(number)
    }
}

impl fmt::Display for Universe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Universe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A network that cannot be the range of an overlay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UniverseError {
    /// Bits are set behind the prefix.
    #[error("range {net} has bits set behind its prefix: write {network}")]
    HostBits {
        /// What was given.
        net: IpNet,
        /// The network it lies in.
        network: IpNet,
    },
    /// No room for hosts.
    #[error("range {net} has no room for hosts: use a prefix of /{longest} or shorter")]
    TooSmall {
        /// What was given.
        net: IpNet,
        /// Longest prefix of this family that has room.
        longest: u8,
    },
    /// Addresses that no container can have.
    #[error(
        "range {net} is no range of host addresses: use a private one, for example 10.32.0.0/12 or fd00:1::/64"
    )]
    NotUnicast {
        /// What was given.
        net: IpNet,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    proptest! {
        #[test]
        fn numbers_round_trip(v4: u32, v6: u128) {
            for address in [IpAddr::from(Ipv4Addr::from_bits(v4)), Ipv6Addr::from_bits(v6).into()] {
                prop_assert_eq!(Family::of(address).address(number(address)), address);
            }
        }

        #[test]
        fn halves_are_the_whole(first: u128, span: u128) {
            let last = first.saturating_add(span);
            let whole = Range::new(first, last).unwrap();
            match whole.halves() {
                None => prop_assert_eq!(first, last),
                Some((lower, upper)) => {
                    prop_assert_eq!((lower.first(), upper.last()), (first, last));
                    prop_assert_eq!(lower.last() + 1, upper.first());
                    prop_assert!(upper.size().abs_diff(lower.size()) <= 1);
                }
            }
        }
    }

    #[test]
    fn halves_of_a_block_are_blocks() {
        let (lower, upper) = Range::of(net("10.32.0.0/12")).halves().unwrap();
        assert_eq!(lower, Range::of(net("10.32.0.0/13")));
        assert_eq!(upper, Range::of(net("10.40.0.0/13")));
        assert_eq!(Range::single(7).halves(), None);
    }

    #[test]
    fn hosts_leave_out_both_ends() {
        let hosts = Range::of(net("10.32.0.0/30")).hosts().unwrap();
        assert_eq!(hosts.text(Family::V4), "10.32.0.1-10.32.0.2");
        assert_eq!(Range::of(net("10.32.0.0/31")).hosts(), None);
        assert_eq!(Range::of(net("0.0.0.0/32")).hosts(), None);
    }

    #[test]
    fn universes() {
        for good in [
            "10.32.0.0/12",
            "10.32.0.0/30",
            "fd00:1::/64",
            "fd00::/126",
            "10.0.0.0/8",
        ] {
            assert_eq!(Universe::new(net(good)).unwrap().to_string(), good);
        }
        for (bad, says) in [
            ("10.32.0.1/12", "write 10.32.0.0/12"),
            ("10.32.0.0/31", "/30 or shorter"),
            ("fd00::/127", "/126 or shorter"),
            ("0.0.0.0/0", "no range of host addresses"),
            ("224.0.0.0/4", "no range of host addresses"),
            ("127.0.0.0/8", "no range of host addresses"),
        ] {
            let text = Universe::new(net(bad)).unwrap_err().to_string();
            assert!(text.contains(says) && text.contains(bad), "{text}");
        }
    }

    #[test]
    fn an_address_of_the_other_family_is_outside() {
        let universe = Universe::new(net("10.32.0.0/12")).unwrap();
        assert_eq!(
            universe.number("10.32.0.7".parse().unwrap()),
            Some(0x0a20_0007)
        );
        assert_eq!(universe.number("10.48.0.0".parse().unwrap()), None);
        assert_eq!(universe.number("::a20:7".parse().unwrap()), None);
    }
}
