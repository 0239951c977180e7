//! Joining consecutive segments of a flow into one frame, under the rules of the kernel's own
//! receive offload (`inet_gro_receive`, `tcp_gro_receive`, `udp_gro_receive`).
//!
//! Nothing is copied: a joined frame is the headers of its first segment, rewritten, and
//! references to the payloads where they were received. A joined frame tells the kernel that its
//! checksum needs no look (`NEEDS_CSUM`), so every segment's is verified before it is joined.

use wire::checksum;
use wire::ethernet::HEADER_LEN;

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
    flows: [Flow<'a>; FLOWS],
    /// Where the next new flow goes.
    next: usize,
    offloads: bool,
    udp_offload: bool,
}

/// A run of segments.
#[derive(Debug, Clone, Copy)]
struct Flow<'a> {
    /// The first segment, whole.
    first: &'a [u8],
    /// Its layout.
    layout: Transport,
    /// Payloads, that of the first segment included.
    payloads: [&'a [u8]; MAX_SEGMENTS],
    /// How many; none means that the place is free.
    count: usize,
    /// Bytes of them all.
    bytes: usize,
    /// Flags of the last segment.
    flags: u8,
    /// Whether the segments' checksums were left partial.
    partial: bool,
}

impl<'a> Flow<'a> {
    const FREE: Self = Self {
        first: &[],
        layout: Transport {
            version: Version::V4,
            protocol: 0,
            at: 0,
            payload: 0,
            end: 0,
        },
        payloads: [&[]; MAX_SEGMENTS],
        count: 0,
        bytes: 0,
        flags: 0,
        partial: false,
    };

    fn begin(&mut self, frame: &'a [u8], layout: Transport, partial: bool) {
        self.first = frame;
        self.layout = layout;
        self.payloads[0] = &frame[layout.payload..layout.end];
        self.count = 1;
        self.bytes = layout.payload_len();
        self.flags = if layout.protocol == TCP {
            frame[layout.at + TCP_FLAGS]
        } else {
            0
        };
        self.partial = partial;
    }

    /// Whether the frame belongs to the same connection: addresses and ports.
    fn same_flow(&self, frame: &[u8], layout: &Transport) -> bool {
        self.count > 0
            && self.layout.version == layout.version
            && self.layout.protocol == layout.protocol
            && {
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
            && self.bytes == self.count * mss
            && self.count < MAX_SEGMENTS
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
                // A constant identification means nothing where DF is set (RFC 6864 §4.1).
                let follows = usize::from(step) == self.count || (dont_fragment && step == 0);
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
        self.payloads[self.count] = &frame[layout.payload..layout.end];
        self.count += 1;
        self.bytes += layout.payload_len();
        if layout.protocol == TCP {
            self.flags = frame[layout.at + TCP_FLAGS];
        }
    }

    /// Delivers the run and frees the place.
    fn depart(&mut self, counters: &Counters, sink: &mut impl FrameSink) {
        match std::mem::take(&mut self.count) {
            0 => return,
            1 if self.partial => {
                sink.deliver(&[&partial_header(&self.layout).bytes(), self.first]);
            }
            1 => sink.deliver(&[&plain_header(), self.first]),
            count => {
                let layout = self.layout;
                let mut headers = [0; MAX_HEADERS];
                let headers = &mut headers[..layout.payload];
                headers.copy_from_slice(&self.first[..layout.payload]);
                let vnet = self.join_headers(headers).bytes();
                let mut parts: [&[u8]; MAX_PARTS] = [&[]; MAX_PARTS];
                parts[0] = &vnet;
                parts[1] = headers;
                parts[2..2 + count].copy_from_slice(&self.payloads[..count]);
                sink.deliver(&parts[..2 + count]);
            }
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
    pub(crate) fn new(offloads: bool, udp_offload: bool) -> Self {
        Self {
            flows: [Flow::FREE; FLOWS],
            next: 0,
            offloads,
            udp_offload,
        }
    }

    /// Takes a frame that a peer sent: it is joined to its flow's run, begins one, or is delivered.
    pub(crate) fn push(&mut self, frame: &'a [u8], counters: &Counters, sink: &mut impl FrameSink) {
        let Some(layout) = Transport::parse(frame) else {
            // It may be a fragment of a flow that is being joined, and must not overtake it.
            if matches!(be16(frame, 12), Some(ethertype) if ethertype != wire::ethernet::ETHERTYPE_ARP)
            {
                self.flush(counters, sink);
            }
            sink.deliver(&[&plain_header(), frame]);
            add(&counters.tap_tx_frames, 1);
            return;
        };
        let joinable = self.joinable(frame, &layout);
        let verified = layout.verify(frame);
        match verified {
            Verified::Partial => add(&counters.partial_checksums, 1),
            Verified::Bad => add(&counters.bad_checksums, 1),
            Verified::Good | Verified::Absent => {}
        }
        let partial = verified == Verified::Partial;
        let sound = joinable && (partial || verified == Verified::Good);

        let known = self
            .flows
            .iter_mut()
            .find(|flow| flow.same_flow(frame, &layout));
        if let Some(flow) = known {
            if sound && flow.partial == partial && flow.takes(frame, &layout) {
                flow.take(frame, &layout);
                return;
            }
            flow.depart(counters, sink);
        }
        if !sound {
            self.deliver_alone(frame, &layout, partial, sink);
            add(&counters.tap_tx_frames, 1);
            return;
        }
        let place = match self.flows.iter().position(|flow| flow.count == 0) {
            Some(free) => free,
            None => {
                let oldest = self.next;
                self.next = (self.next + 1) % FLOWS;
                self.flows[oldest].depart(counters, sink);
                oldest
            }
        };
        self.flows[place].begin(frame, layout, partial);
    }

    /// Delivers every run.
    pub(crate) fn flush(&mut self, counters: &Counters, sink: &mut impl FrameSink) {
        for flow in &mut self.flows {
            flow.depart(counters, sink);
        }
    }

    /// Whether a segment of this kind may be part of a run at all.
    fn joinable(&self, frame: &[u8], layout: &Transport) -> bool {
        let kind = if layout.protocol == TCP {
            // ACK alone or with PSH and ECE: never SYN, FIN, RST, URG or CWR, and no NS bit.
            let at = layout.at;
            self.offloads
                && frame[at + TCP_FLAGS] & !(PSH | ECE) == ACK
                && frame[at + 12] & 0x0f == 0
        } else {
            self.udp_offload
        };
        kind && layout.payload_len() > 0
    }

    fn deliver_alone(
        &self,
        frame: &[u8],
        layout: &Transport,
        partial: bool,
        sink: &mut impl FrameSink,
    ) {
        if !partial {
            sink.deliver(&[&plain_header(), frame]);
        } else if self.offloads {
            sink.deliver(&[&partial_header(layout).bytes(), frame]);
        } else {
            let mut field = [0; 2];
            let sum = !checksum::fold(checksum::sum(0, &frame[layout.at..layout.end]));
            put16(
                &mut field,
                0,
                if sum == 0 && layout.protocol != TCP {
                    0xffff
                } else {
                    sum
                },
            );
            let at = layout.checksum_at();
            sink.deliver(&[&plain_header(), &frame[..at], &field, &frame[at + 2..]]);
        }
    }
}

/// Says that the kernel is to complete the frame's checksum if it must, as it would have to if
/// the frame had come from a local socket.
fn partial_header(layout: &Transport) -> VnetHdr {
    VnetHdr {
        needs_csum: true,
        csum_start: truncated16(layout.at),
        csum_offset: truncated16(layout.checksum_at() - layout.at),
        ..VnetHdr::PLAIN
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
