//! Frames to feed the engine with, built by pnet, which is not the engine's own judge.

use std::net::{IpAddr, SocketAddr};

use fastpath::{
    Arrival, ControlSink, Counters, Datagram, Egress, Encapsulation, Forwarding, FrameSink,
    GsoType, Ingress, Link, MacTable, Outlets, OwnAddress, Slot, TapTakes, Train, TrainLimits,
    TrainSink, VnetHdr,
};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::MutableIpv4Packet;
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::tcp::MutableTcpPacket;
use pnet_packet::udp::MutableUdpPacket;
use wire::{Mac, PeerId, Vni, checksum};

pub(crate) const POD_A: Mac = Mac([0x02, 0, 0, 0, 0, 0x0a]);
pub(crate) const POD_B: Mac = Mac([0x02, 0, 0, 0, 0, 0x0b]);

/// The overlay's own address on the node under test.
pub(crate) const OWN: OwnAddress = OwnAddress {
    mac: Mac([0x02, 0, 0, 0, 0, 1]),
    v4: Some(std::net::Ipv4Addr::new(10, 32, 0, 1)),
};

pub(crate) fn endpoint(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 6784))
}

/// Where a node has its sleeve.
pub(crate) fn sleeve(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 6783))
}

pub(crate) fn peer(n: u8) -> PeerId {
    PeerId([n; 8])
}

/// The node under test.
pub(crate) const ME: PeerId = PeerId([0xee; 8]);

/// A snapshot with a VXLAN link of this inner MTU for each number; the slot is its place.
pub(crate) fn forwarding(mtu: u16, peers: &[u8]) -> Forwarding {
    snapshot(
        ME,
        peers
            .iter()
            .map(|&n| Link::vxlan(Some(peer(n)), endpoint(n), mtu)),
    )
}

/// A snapshot of the node `me` with these links; the slot is the link's place.
pub(crate) fn snapshot(me: PeerId, links: impl IntoIterator<Item = Link>) -> Forwarding {
    Forwarding::new(Vni::DEFAULT, me, Some(OWN), (0 as Slot..).zip(links))
}

/// What a train was, kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) endpoint: SocketAddr,
    pub(crate) encapsulation: Encapsulation,
    pub(crate) socket: usize,
    pub(crate) datagrams: Vec<Vec<u8>>,
}

#[derive(Debug, Default)]
pub(crate) struct Underlay(pub(crate) Vec<Sent>);

impl TrainSink for Underlay {
    fn send(&mut self, train: Train<'_>) {
        let datagrams: Vec<_> = train
            .bytes
            .chunks(train.segment)
            .map(<[u8]>::to_vec)
            .collect();
        assert_eq!(datagrams.len(), train.count);
        assert!(train.count <= 64 && train.bytes.len() <= 65_507);
        self.0.push(Sent {
            endpoint: train.endpoint,
            encapsulation: train.encapsulation,
            socket: train.socket,
            datagrams,
        });
    }
}

#[derive(Debug, Default)]
pub(crate) struct Tap(pub(crate) Vec<Vec<u8>>);

impl FrameSink for Tap {
    fn deliver(&mut self, parts: &[&[u8]]) {
        self.0.push(parts.concat());
    }
}

/// Probes that arrived: how, whence, whether relayed, and what.
#[derive(Debug, Default)]
pub(crate) struct Probes(pub(crate) Vec<(Encapsulation, SocketAddr, bool, Vec<u8>)>);

impl ControlSink for Probes {
    fn probe(&mut self, probe: Arrival<'_>) {
        self.0.push((
            probe.encapsulation,
            probe.source,
            probe.relayed,
            probe.frame.to_vec(),
        ));
    }
}

/// All that came of a batch of receives.
#[derive(Debug, Default)]
pub(crate) struct Came {
    pub(crate) tap: Tap,
    pub(crate) relayed: Underlay,
    pub(crate) probes: Probes,
}

/// One node's engine.
pub(crate) struct Node {
    pub(crate) egress: Egress,
    pub(crate) ingress: Ingress,
    pub(crate) macs: MacTable,
    pub(crate) counters: Counters,
    pub(crate) forwarding: Forwarding,
    pub(crate) now: u32,
    /// What the egress side answered the pods.
    pub(crate) answers: Tap,
}

impl Node {
    pub(crate) fn new(forwarding: Forwarding) -> Self {
        Self {
            egress: Egress::new(4, TrainLimits::default()),
            ingress: Ingress::new(TapTakes {
                csum: true,
                tcp: true,
                udp: true,
            }),
            macs: MacTable::new(1024),
            counters: Counters::default(),
            forwarding,
            now: 1,
            answers: Tap::default(),
        }
    }

    /// One batch of reads from the TAP.
    pub(crate) fn read_tap(&mut self, reads: impl IntoIterator<Item = Vec<u8>>) -> Vec<Sent> {
        let (mut underlay, mut answers) = (Underlay::default(), std::mem::take(&mut self.answers));
        let mut reads: Vec<_> = reads.into_iter().collect();
        let reads = reads.iter_mut().map(Vec::as_mut_slice);
        self.send(reads, &mut underlay, &mut answers);
        self.answers = answers;
        underlay.0
    }

    /// One batch of reads from the TAP, into any sinks.
    pub(crate) fn send<'a>(
        &mut self,
        reads: impl IntoIterator<Item = &'a mut [u8]>,
        underlay: &mut impl TrainSink,
        answers: &mut impl FrameSink,
    ) {
        let Self {
            egress,
            forwarding,
            macs,
            counters,
            now,
            ..
        } = self;
        egress.begin(forwarding, macs, *now);
        for read in reads {
            egress.frame(read, forwarding, macs, counters, underlay, answers);
        }
        egress.flush(underlay);
    }

    /// Sends what waited for keys.
    pub(crate) fn resume(&mut self, underlay: &mut impl TrainSink) {
        let Self {
            egress,
            forwarding,
            macs,
            counters,
            now,
            ..
        } = self;
        egress.begin(forwarding, macs, *now);
        egress.resume(forwarding, counters, underlay);
        egress.flush(underlay);
    }

    /// One batch of VXLAN receives, each of them a run of datagrams as `UDP_GRO` delivers it.
    pub(crate) fn receive(&mut self, from: SocketAddr, runs: &[Vec<Vec<u8>>]) -> Vec<Vec<u8>> {
        let came = self.receive_in(Encapsulation::Vxlan, from, runs);
        assert_eq!((came.relayed.0, came.probes.0), (vec![], vec![]));
        came.tap.0
    }

    /// One batch of receives in an encapsulation.
    pub(crate) fn receive_in(
        &mut self,
        encapsulation: Encapsulation,
        source: SocketAddr,
        runs: &[Vec<Vec<u8>>],
    ) -> Came {
        let mut runs: Vec<_> = runs
            .iter()
            .map(|run| (run[0].len(), run.concat()))
            .collect();
        let received = runs.iter_mut().map(|(segment, bytes)| Datagram {
            bytes,
            segment: *segment,
            source,
            encapsulation,
        });
        let mut came = Came::default();
        self.take(
            received,
            &mut Outlets {
                tap: &mut came.tap,
                underlay: &mut came.relayed,
                control: &mut came.probes,
            },
        );
        came
    }

    /// One batch of receives, into any sinks.
    pub(crate) fn take<'a>(
        &mut self,
        received: impl IntoIterator<Item = Datagram<'a>>,
        out: &mut Outlets<'_, impl FrameSink, impl TrainSink, impl ControlSink>,
    ) {
        let Self {
            ingress,
            forwarding,
            macs,
            counters,
            now,
            ..
        } = self;
        ingress.batch(received, forwarding, macs, counters, *now, out);
    }
}

/// A read from the TAP: the offload header and a frame.
pub(crate) fn read(header: VnetHdr, frame: &[u8]) -> Vec<u8> {
    [&header.bytes()[..], frame].concat()
}

/// The fields of a TCP segment that matter to cutting and joining.
#[derive(Debug, Clone)]
pub(crate) struct Tcp {
    pub(crate) v6: bool,
    pub(crate) src: Mac,
    pub(crate) dst: Mac,
    pub(crate) port: u16,
    pub(crate) sequence: u32,
    pub(crate) flags: u8,
    pub(crate) id: u16,
    pub(crate) options: usize,
    pub(crate) payload: Vec<u8>,
}

impl Tcp {
    pub(crate) fn new(payload: usize) -> Self {
        Self {
            v6: false,
            src: POD_A,
            dst: POD_B,
            port: 40_000,
            sequence: 0xffff_f000,
            flags: 0x10,
            id: 0xfff0,
            options: 12,
            payload: (0..payload).map(|i| (i % 251) as u8).collect(),
        }
    }

    /// The frame, its checksum holding only the pseudo header's sum.
    pub(crate) fn partial(&self) -> Vec<u8> {
        let transport = 20 + self.options;
        let mut packet = vec![0; transport + self.payload.len()];
        let mut tcp = MutableTcpPacket::new(&mut packet).unwrap();
        tcp.set_source(self.port);
        tcp.set_destination(80);
        tcp.set_sequence(self.sequence);
        tcp.set_acknowledgement(7);
        tcp.set_data_offset(u8::try_from(transport / 4).unwrap());
        tcp.set_flags(self.flags);
        tcp.set_window(512);
        packet[20..transport].fill(1);
        packet[transport..].copy_from_slice(&self.payload);
        ip_frame(self.v6, (self.src, self.dst), 6, self.id, packet, 16)
    }

    /// The frame, complete.
    pub(crate) fn frame(&self) -> Vec<u8> {
        complete(self.partial(), self.v6, 16)
    }

    pub(crate) fn header(&self, mss: u16) -> VnetHdr {
        let at = if self.v6 { 54 } else { 34 };
        VnetHdr {
            needs_csum: true,
            gso: match (self.payload.len() > usize::from(mss), self.v6) {
                (false, _) => GsoType::None,
                (true, false) => GsoType::TcpV4,
                (true, true) => GsoType::TcpV6,
            },
            ecn: false,
            hdr_len: at + 20 + u16::try_from(self.options).unwrap(),
            gso_size: mss,
            csum_start: at,
            csum_offset: 16,
        }
    }
}

/// A UDP frame, its checksum holding only the pseudo header's sum.
pub(crate) fn udp_partial(v6: bool, id: u16, ports: (u16, u16), payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; 8 + payload.len()];
    let len = u16::try_from(packet.len()).unwrap();
    let mut udp = MutableUdpPacket::new(&mut packet).unwrap();
    udp.set_source(ports.0);
    udp.set_destination(ports.1);
    udp.set_length(len);
    packet[8..].copy_from_slice(payload);
    ip_frame(v6, (POD_A, POD_B), 17, id, packet, 6)
}

/// Completes a partial checksum.
pub(crate) fn complete(mut frame: Vec<u8>, v6: bool, offset: usize) -> Vec<u8> {
    assert!(checksum::complete(
        &mut frame,
        if v6 { 54 } else { 34 },
        offset
    ));
    frame
}

fn ip_frame(
    v6: bool,
    macs: (Mac, Mac),
    protocol: u8,
    id: u16,
    mut inner: Vec<u8>,
    sum: usize,
) -> Vec<u8> {
    let (source, destination): (IpAddr, IpAddr) = if v6 {
        ("fd00::a".parse().unwrap(), "fd00::b".parse().unwrap())
    } else {
        ("10.32.0.10".parse().unwrap(), "10.32.0.11".parse().unwrap())
    };
    let next = if protocol == 6 {
        IpNextHeaderProtocols::Tcp
    } else {
        IpNextHeaderProtocols::Udp
    };
    let (pseudo, mut ip) = match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let len = u16::try_from(inner.len()).unwrap();
            let mut bytes = vec![0; 20];
            let mut ip = MutableIpv4Packet::new(&mut bytes).unwrap();
            ip.set_version(4);
            ip.set_header_length(5);
            ip.set_total_length(20 + len);
            ip.set_identification(id);
            ip.set_flags(2);
            ip.set_ttl(64);
            ip.set_next_level_protocol(next);
            ip.set_source(source);
            ip.set_destination(destination);
            let sum = pnet_packet::ipv4::checksum(&ip.to_immutable());
            ip.set_checksum(sum);
            (
                checksum::pseudo_header_v4(source, destination, protocol, len),
                bytes,
            )
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let len = u16::try_from(inner.len()).unwrap();
            let mut bytes = vec![0; 40];
            let mut ip = MutableIpv6Packet::new(&mut bytes).unwrap();
            ip.set_version(6);
            ip.set_flow_label(0x12345);
            ip.set_payload_length(len);
            ip.set_next_header(next);
            ip.set_hop_limit(64);
            ip.set_source(source);
            ip.set_destination(destination);
            (
                checksum::pseudo_header_v6(source, destination, protocol, len.into()),
                bytes,
            )
        }
        _ => unreachable!("both addresses are of one family"),
    };
    inner[sum..sum + 2].copy_from_slice(&checksum::fold(pseudo).to_be_bytes());
    let mut frame = [&macs.1.0[..], &macs.0.0[..]].concat();
    frame.extend(if v6 { [0x86, 0xdd] } else { [0x08, 0x00] });
    frame.append(&mut ip);
    frame.append(&mut inner);
    frame
}
