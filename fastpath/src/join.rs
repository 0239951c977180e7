//! Joining consecutive segments of a flow into one frame, under the rules of the kernel's own
//! receive offload (`inet_gro_receive`, `tcp_gro_receive`, `udp_gro_receive`).
//!
//! Nothing is copied: a joined frame is the headers of its first segment, rewritten, and
//! references to the payloads where they were received. A joined frame tells the kernel that its
//! checksum needs no look (`NEEDS_CSUM`), so every segment's is verified before it is joined, unless
//! it was left partial: there is nothing to verify then.

use arrayvec::ArrayVec;
use wire::checksum;
use wire::ethernet::{ETHERTYPE_ARP, HEADER_LEN};

use crate::counters::{Counters, add};
use crate::dissect::{
    ACK, ECE, PSH, TCP, TCP_CHECKSUM, TCP_FLAGS, Transport, UDP_CHECKSUM, UDP_LENGTH, Verified,
    Version, be16, be32, pseudo_sum, put_ipv4_checksum, put16,
};
use crate::ingress::{FrameSink, plain_header};
use crate::vnet::{GsoType, VnetHdr};

/// Most segments in one frame: what a full `UDP_GRO` run holds.
const MAX_SEGMENTS: usize = 64;
/// Most parts of a frame: the [`VnetHdr`], the headers, and a payload of each segment.
pub const MAX_PARTS: usize = 2 + MAX_SEGMENTS;
/// Flows that are joined side by side. When all are taken the oldest is delivered.
const FLOWS: usize = 8;
/// Ethernet 14, IPv6 40 and the longest TCP header 60.
pub(crate) const MAX_HEADERS: usize = HEADER_LEN + 40 + 60;

/// Joins the frames of one batch.
#[derive(Debug)]
pub(crate) struct Joiner<'a> {
    /// Runs under way, the oldest first.
    flows: ArrayVec<Flow<'a>, FLOWS>,
    tcp: bool,
    udp: bool,
    /// Whether the TAP completes checksums.
    csum: bool,
}

/// A run of segments.
#[derive(Debug)]
struct Flow<'a> {
    /// The first segment, whole.
    first: &'a [u8],
    /// Its layout.
    layout: Transport,
    /// Payloads, that of the first segment included.
    payloads: ArrayVec<&'a [u8], MAX_SEGMENTS>,
    /// Bytes of them all.
    bytes: usize,
    /// Flags of the last segment.
    flags: u8,
    /// Whether the first segment's checksum was left partial. That of a run of several always is.
    partial: bool,
    /// Whether the second segment had the first one's IPv4 identification.
    same_id: bool,
}

impl<'a> Flow<'a> {
    fn begin(frame: &'a [u8], layout: Transport, partial: bool) -> Self {
        let mut payloads = ArrayVec::new();
        payloads.push(&frame[layout.payload..layout.end]);
        Self {
            first: frame,
            layout,
            payloads,
            bytes: layout.payload_len(),
            flags: if layout.protocol == TCP {
                frame[layout.at + TCP_FLAGS]
            } else {
                0
            },
            partial,
            same_id: false,
        }
    }

    /// Whether the frame belongs to the same connection: addresses and ports.
    fn same_flow(&self, frame: &[u8], layout: &Transport) -> bool {
        self.layout.version == layout.version && self.layout.protocol == layout.protocol && {
            // Addresses and ports lie side by side: no IP options, no extension headers.
            let key = match layout.version {
                Version::V4 => HEADER_LEN + 12..HEADER_LEN + 24,
                Version::V6 => HEADER_LEN + 8..HEADER_LEN + 44,
            };
            self.first[key.clone()] == frame[key]
        }
    }

    /// Whether the frame may follow as the next segment.
    fn takes(&self, frame: &[u8], layout: &Transport) -> bool {
        let mss = self.layout.payload_len();
        let at = layout.at;
        layout.payload == self.layout.payload
            && layout.payload_len() <= mss
            && self.bytes == self.payloads.len() * mss
            && !self.payloads.is_full()
            && self.layout.payload - HEADER_LEN + self.bytes + layout.payload_len()
                <= usize::from(u16::MAX)
            && self.first[..HEADER_LEN] == frame[..HEADER_LEN]
            && self.same_network_header(frame)
            && (layout.protocol != TCP || {
                let first = self.first;
                // Of the flags only PSH may differ, and a segment that had it was the last.
                self.flags & PSH == 0
                    && (first[at + TCP_FLAGS] ^ frame[at + TCP_FLAGS]) & !PSH == 0
                    && be32(frame, at + 4)
                        == be32(first, at + 4).wrapping_add(truncated(self.bytes))
                    // Acknowledgement, header length, window and options.
                    && first[at + 8..at + 13] == frame[at + 8..at + 13]
                    && first[at + 14..at + 16] == frame[at + 14..at + 16]
                    && first[at + 20..layout.payload] == frame[at + 20..layout.payload]
            })
    }

    /// Whether the IP headers differ only in what cutting would make different.
    fn same_network_header(&self, frame: &[u8]) -> bool {
        let (first, ip) = (self.first, HEADER_LEN);
        match self.layout.version {
            Version::V4 => {
                let id = |frame: &[u8]| u16::from_be_bytes([frame[ip + 4], frame[ip + 5]]);
                let dont_fragment = first[ip + 6] & 0x40 != 0;
                let step = id(frame).wrapping_sub(id(first));
                // A constant identification means nothing where DF is set (RFC 6864 §4.1); all
                // segments do as the second did.
                let follows = match (self.payloads.len(), step) {
                    (1, 0) => dont_fragment,
                    (1, step) => step == 1,
                    (_, 0) => self.same_id,
                    (count, step) => usize::from(step) == count && !self.same_id,
                };
                // Type of service with ECN; flags and offset; time to live and protocol.
                follows
                    && first[ip + 1] == frame[ip + 1]
                    && first[ip + 6..ip + 10] == frame[ip + 6..ip + 10]
            }
            // Version, traffic class and flow label; next header and hop limit.
            Version::V6 => {
                first[ip..ip + 4] == frame[ip..ip + 4]
                    && first[ip + 6..ip + 8] == frame[ip + 6..ip + 8]
            }
        }
    }

    fn take(&mut self, frame: &'a [u8], layout: &Transport) {
        let id = HEADER_LEN + 4..HEADER_LEN + 6;
        self.same_id = layout.version == Version::V4 && self.first[id.clone()] == frame[id];
        self.payloads.push(&frame[layout.payload..layout.end]);
        self.bytes += layout.payload_len();
        if layout.protocol == TCP {
            self.flags = frame[layout.at + TCP_FLAGS];
        }
    }

    /// Delivers the run.
    fn depart(self, counters: &Counters, sink: &mut impl FrameSink) {
        if self.payloads.len() > 1 {
            let mut headers = [0; MAX_HEADERS];
            let headers = &mut headers[..self.layout.payload];
            headers.copy_from_slice(&self.first[..self.layout.payload]);
            let vnet = self.join_headers(headers).bytes();
            let mut parts: ArrayVec<&[u8], MAX_PARTS> = ArrayVec::new();
            parts.push(&vnet);
            parts.push(headers);
            parts.extend(self.payloads.iter().copied());
            sink.deliver(&parts);
        } else if self.partial {
            sink.deliver(&[&self.layout.partial_header().bytes(), self.first]);
        } else {
            sink.deliver(&[&plain_header(), self.first]);
        }
        add(&counters.tap_tx_frames, 1);
    }

    /// Rewrites the first segment's headers for the whole run.
    fn join_headers(&self, headers: &mut [u8]) -> VnetHdr {
        let Transport {
            version,
            protocol,
            at,
            payload,
            ..
        } = self.layout;
        let ip = HEADER_LEN;
        match version {
            Version::V4 => {
                put16(headers, ip + 2, truncated16(payload - ip + self.bytes));
                put_ipv4_checksum(headers, ip, 20);
            }
            Version::V6 => put16(headers, ip + 4, truncated16(payload - ip - 40 + self.bytes)),
        }
        let (gso, csum_offset) = if protocol == TCP {
            headers[at + TCP_FLAGS] |= self.flags & PSH;
            let gso = match version {
                Version::V4 => GsoType::TcpV4,
                Version::V6 => GsoType::TcpV6,
            };
            (gso, TCP_CHECKSUM)
        } else {
            put16(
                headers,
                at + UDP_LENGTH,
                truncated16(payload - at + self.bytes),
            );
            (GsoType::Udp, UDP_CHECKSUM)
        };
        let pseudo = pseudo_sum(headers, version, ip, protocol, payload - at + self.bytes);
        put16(headers, at + csum_offset, checksum::fold(pseudo));
        VnetHdr {
            needs_csum: true,
            gso,
            ecn: false,
            hdr_len: truncated16(payload),
            gso_size: truncated16(self.layout.payload_len()),
            csum_start: truncated16(at),
            csum_offset: truncated16(csum_offset),
        }
    }
}

impl<'a> Joiner<'a> {
    /// A joiner for a TAP that takes joined TCP and UDP frames and completes checksums, or not.
    pub(crate) fn new(tcp: bool, udp: bool, csum: bool) -> Self {
        Self {
            flows: ArrayVec::new(),
            tcp,
            udp,
            csum,
        }
    }

    /// Takes a frame that a peer sent: it is joined to its flow's run, begins one, or is delivered.
    pub(crate) fn push(&mut self, frame: &'a [u8], counters: &Counters, sink: &mut impl FrameSink) {
        let Some(layout) = Transport::parse(frame) else {
            self.push_other(frame, counters, sink);
            return;
        };
        let verified = layout.verify(frame);
        match verified {
            Verified::Partial => add(&counters.partial_checksums, 1),
            Verified::Bad => add(&counters.bad_checksums, 1),
            Verified::Good | Verified::Absent => {}
        }
        let partial = verified == Verified::Partial;
        let sound = self.joinable(frame, &layout) && (partial || verified == Verified::Good);

        let known = self
            .flows
            .iter()
            .position(|flow| flow.same_flow(frame, &layout));
        if let Some(known) = known {
            let flow = &mut self.flows[known];
            if sound && flow.takes(frame, &layout) {
                flow.take(frame, &layout);
                return;
            }
            self.flows.remove(known).depart(counters, sink);
        }
        if !sound {
            self.deliver_alone(frame, partial.then_some(layout), counters, sink);
            return;
        }
        if self.flows.is_full() {
            self.flows.remove(0).depart(counters, sink);
        }
        self.flows.push(Flow::begin(frame, layout, partial));
    }

    /// Delivers every run.
    pub(crate) fn flush(&mut self, counters: &Counters, sink: &mut impl FrameSink) {
        for flow in self.flows.drain(..) {
            flow.depart(counters, sink);
        }
    }

    /// A frame of which no run is made: with VLAN tags or IP options, a fragment, or not TCP or UDP.
    fn push_other(&mut self, frame: &[u8], counters: &Counters, sink: &mut impl FrameSink) {
        // It may be a fragment of a flow that is being joined, and must not overtake it.
        if be16(frame, 12) != Some(ETHERTYPE_ARP) {
            self.flush(counters, sink);
        }
        let partial =
            Transport::find(frame).filter(|layout| layout.verify(frame) == Verified::Partial);
        if partial.is_some() {
            add(&counters.partial_checksums, 1);
        }
        self.deliver_alone(frame, partial, counters, sink);
    }

    /// Whether a segment of this kind may be part of a run at all.
    fn joinable(&self, frame: &[u8], layout: &Transport) -> bool {
        let kind = if layout.protocol == TCP {
            // ACK alone or with PSH and ECE: never SYN, FIN, RST, URG or CWR, and no NS bit.
            let at = layout.at;
            self.tcp && frame[at + TCP_FLAGS] & !(PSH | ECE) == ACK && frame[at + 12] & 0x0f == 0
        } else {
            self.udp
        };
        // A joined frame's IPv4 header gets a checksum of its own, which must hide no wrong one.
        let header = HEADER_LEN..HEADER_LEN + 20;
        let intact = layout.version == Version::V6
            || checksum::fold(checksum::sum(0, &frame[header])) == 0xffff;
        kind && intact && layout.payload_len() > 0
    }

    /// Delivers a frame as it is; `partial` is the layout of one whose checksum was left partial.
    fn deliver_alone(
        &self,
        frame: &[u8],
        partial: Option<Transport>,
        counters: &Counters,
        sink: &mut impl FrameSink,
    ) {
        match partial {
            None => sink.deliver(&[&plain_header(), frame]),
            Some(layout) if self.csum => {
                sink.deliver(&[&layout.partial_header().bytes(), frame]);
            }
            Some(layout) => {
                let sum = !checksum::fold(checksum::sum(0, &frame[layout.at..layout.end]));
                let sum = if layout.protocol == TCP {
                    sum
                } else {
                    checksum::nonzero(sum)
                };
                let at = layout.checksum_at();
                let parts = [
                    &plain_header()[..],
                    &frame[..at],
                    &sum.to_be_bytes(),
                    &frame[at + 2..],
                ];
                sink.deliver(&parts);
            }
        }
        add(&counters.tap_tx_frames, 1);
    }
}

/// A length that [`Flow::takes`] has bounded by the 16 bits of its field.
#[expect(
    clippy::cast_possible_truncation,
    reason = "bounded by the callers to 65,535"
)]
fn truncated16(len: usize) -> u16 {
    debug_assert!(len <= usize::from(u16::MAX));
    len as u16
}

/// A length as a step of the TCP sequence number.
#[expect(clippy::cast_possible_truncation, reason = "at most 65,535")]
fn truncated(len: usize) -> u32 {
    len as u32
}
