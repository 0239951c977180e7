//! What each encapsulation adds to a frame, by the formats of its headers.

use wire::{ethernet, sleeve, vxlan};

/// How a pod's frame crosses the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encapsulation {
    /// As it is.
    None,
    Vxlan(Family),
    Sleeve(Family),
    /// Sleeve with a counter and a tag.
    Sealed(Family),
}

/// Of the underlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// What stands before and after the frame, in the order of the wire, with its bytes.
pub(crate) const PARTS: [&str; 6] = [
    "outer Ethernet",
    "outer IP",
    "outer UDP",
    "VXLAN or sleeve",
    "counter",
    "tag",
];

/// IPv4 without options (RFC 791), IPv6 without extensions (RFC 8200), UDP (RFC 768).
const IPV4: usize = 20;
const IPV6: usize = 40;
const UDP: usize = 8;
/// The shortest Ethernet frame without its FCS: shorter ones are padded (IEEE 802.3 §4.2.3.3).
const SHORTEST: usize = 60;
/// What a line is busy with besides the frame: preamble 8, FCS 4, gap 12 (IEEE 802.3 §4.2.3).
const LINE: usize = 24;
/// Headers of a UDP packet in a pod.
pub(crate) const INNER: usize = ethernet::HEADER_LEN + IPV4 + UDP;

impl Encapsulation {
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::Vxlan(Family::V4),
        Self::Vxlan(Family::V6),
        Self::Sleeve(Family::V4),
        Self::Sleeve(Family::V6),
        Self::Sealed(Family::V4),
        Self::Sealed(Family::V6),
    ];

    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::None => "no overlay",
            Self::Vxlan(Family::V4) => "VXLAN over IPv4",
            Self::Vxlan(Family::V6) => "VXLAN over IPv6",
            Self::Sleeve(Family::V4) => "sleeve over IPv4",
            Self::Sleeve(Family::V6) => "sleeve over IPv6",
            Self::Sealed(Family::V4) => "sealed sleeve over IPv4",
            Self::Sealed(Family::V6) => "sealed sleeve over IPv6",
        }
    }

    /// Bytes of each of [`PARTS`].
    pub(crate) const fn parts(self) -> [usize; 6] {
        let (header, family, seal) = match self {
            Self::None => return [0; 6],
            Self::Vxlan(family) => (vxlan::HEADER_LEN, family, [0, 0]),
            Self::Sleeve(family) => (sleeve::HEADER_LEN, family, [0, 0]),
            Self::Sealed(family) => (
                sleeve::HEADER_LEN,
                family,
                [sleeve::COUNTER_LEN, sleeve::TAG_LEN],
            ),
        };
        let ip = match family {
            Family::V4 => IPV4,
            Family::V6 => IPV6,
        };
        [ethernet::HEADER_LEN, ip, UDP, header, seal[0], seal[1]]
    }

    /// Bytes that a pod's frame of `frame` bytes has on the underlay, from the Ethernet header on and
    /// without FCS, as an interface counts them.
    pub(crate) fn on_wire(self, frame: usize) -> usize {
        frame + self.parts().into_iter().sum::<usize>()
    }

    /// Of the time that a line is busy with such a frame, the share that moves a UDP payload.
    #[expect(clippy::cast_precision_loss, reason = "no frame has 2^52 bytes")]
    pub(crate) fn goodput_share(self, frame: usize) -> f64 {
        let line = self.on_wire(frame).max(SHORTEST) + LINE;
        frame.saturating_sub(INNER) as f64 / line as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_formats() {
        let added: Vec<_> = Encapsulation::ALL
            .map(|encapsulation| encapsulation.on_wire(1000) - 1000)
            .into();
        assert_eq!(added, [0, 50, 70, 62, 82, 86, 106]);
        // What the pods' MTU gives up is the same but for which Ethernet header it has: the inner one
        // is inside the outer IP packet.
        let overhead =
            |encapsulation: Encapsulation| u16::try_from(encapsulation.on_wire(0)).unwrap();
        assert_eq!(
            overhead(Encapsulation::Vxlan(Family::V4)),
            vxlan::OVERHEAD_IPV4
        );
        assert_eq!(
            overhead(Encapsulation::Vxlan(Family::V6)),
            vxlan::OVERHEAD_IPV6
        );
        assert_eq!(
            overhead(Encapsulation::Sleeve(Family::V4)),
            sleeve::OVERHEAD_IPV4
        );
        assert_eq!(
            overhead(Encapsulation::Sleeve(Family::V6)),
            sleeve::OVERHEAD_IPV6
        );
    }

    #[test]
    fn goodput_counts_padding_preamble_fcs_and_gap() {
        // A frame of 60 bytes occupies the line for 84; 18 of them are payload.
        let share = Encapsulation::None.goodput_share(60);
        assert!((share - 18.0 / 84.0).abs() < 1e-12);
        let padded = Encapsulation::None.goodput_share(50);
        assert!((padded - 8.0 / 84.0).abs() < 1e-12);
        let vxlan = Encapsulation::Vxlan(Family::V4).goodput_share(1464);
        assert!((vxlan - 1422.0 / 1538.0).abs() < 1e-12);
        assert!(Encapsulation::None.goodput_share(0).abs() < 1e-12);
    }
}
