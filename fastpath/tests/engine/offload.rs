//! Cutting and joining: a super-frame that crosses is what it was; every segment on the wire is
//! what the kernel would have sent.

use crate::frames::{Node, Sent, Tcp, complete, endpoint, forwarding, read, udp_partial};
use fastpath::{GsoType, VnetHdr};
use pnet_packet::Packet as _;
use pnet_packet::ethernet::EthernetPacket;
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::tcp::TcpPacket;
use proptest::prelude::*;
use wire::checksum;

/// Carries reads of one node's TAP to another's.
fn cross(reads: Vec<Vec<u8>>) -> (Vec<Sent>, Vec<Vec<u8>>) {
    let mut a = Node::new(forwarding(1450, &[2]));
    let mut b = Node::new(forwarding(1450, &[1]));
    let sent = a.read_tap(reads);
    let runs: Vec<_> = sent.iter().map(|train| train.datagrams.clone()).collect();
    let written = b.receive(endpoint(1), &runs);
    (sent, written)
}

#[test]
fn segments_are_what_the_kernel_would_have_sent() {
    let tcp = Tcp {
        flags: 0x18,
        ..Tcp::new(3_000)
    };
    let (sent, _) = cross(vec![read(tcp.header(1_398), &tcp.partial())]);
    let datagrams: Vec<_> = sent.into_iter().flat_map(|train| train.datagrams).collect();
    assert_eq!(datagrams.len(), 3);
    let mut stream: Vec<u8> = Vec::new();
    for (i, datagram) in datagrams.iter().enumerate() {
        let ethernet = EthernetPacket::new(&datagram[8..]).unwrap();
        let ip = Ipv4Packet::new(ethernet.payload()).unwrap();
        let segment = TcpPacket::new(ip.payload()).unwrap();
        assert_eq!(usize::from(ip.get_total_length()), datagram.len() - 8 - 14);
        assert_eq!(ip.get_identification(), 0xfff0 + i as u16);
        assert_eq!(ip.get_checksum(), pnet_packet::ipv4::checksum(&ip));
        let sum =
            pnet_packet::tcp::ipv4_checksum(&segment, &ip.get_source(), &ip.get_destination());
        assert_eq!(segment.get_checksum(), sum);
        assert_eq!(segment.get_sequence(), 0xffff_f000 + i as u32 * 1_398);
        assert_eq!(segment.get_flags(), if i == 2 { 0x18 } else { 0x10 });
        stream.extend(segment.payload());
    }
    assert_eq!(stream, tcp.payload);
}

#[test]
fn congestion_window_reduced_is_said_once() {
    let tcp = Tcp {
        flags: 0x90,
        ..Tcp::new(3_000)
    };
    let header = VnetHdr {
        ecn: true,
        ..tcp.header(1_398)
    };
    let (sent, written) = cross(vec![read(header, &tcp.partial())]);
    let flags: Vec<_> = sent
        .iter()
        .flat_map(|t| &t.datagrams)
        .map(|d| d[8 + 34 + 13])
        .collect();
    assert_eq!(flags, [0x90, 0x10, 0x10]);
    // The segment with CWR is never part of a run.
    assert_eq!(written.len(), 2);
}

#[test]
fn segments_of_several_super_frames_share_a_train() {
    let first = Tcp::new(4 * 1_398);
    let second = Tcp {
        sequence: first.sequence.wrapping_add(4 * 1_398),
        id: first.id.wrapping_add(4),
        ..first.clone()
    };
    let reads = [&first, &second].map(|tcp| read(tcp.header(1_398), &tcp.partial()));
    let (sent, written) = cross(reads.to_vec());
    assert_eq!(
        sent.iter()
            .map(|train| train.datagrams.len())
            .collect::<Vec<_>>(),
        [8]
    );
    assert_eq!(written.len(), 1);
}

/// The kernel's VXLAN device over veth leaves the inner sum to a device that does not compute it.
#[test]
fn a_sum_left_partial_by_a_peers_kernel_reaches_the_pod_as_such() {
    let tcp = Tcp::new(500);
    let mut b = Node::new(forwarding(1450, &[1]));
    let datagram = [&wire::vxlan::header(wire::Vni::DEFAULT)[..], &tcp.partial()].concat();
    let written = b.receive(endpoint(1), &[vec![datagram.clone()]]);
    let header = VnetHdr {
        csum_start: 34,
        csum_offset: 16,
        needs_csum: true,
        ..VnetHdr::PLAIN
    };
    assert_eq!(written, [read(header, &tcp.partial())]);
    // Where the TAP takes no such frame, the sum is completed here.
    b.ingress = fastpath::Ingress::default();
    let written = b.receive(endpoint(1), &[vec![datagram]]);
    assert_eq!(written, [read(VnetHdr::PLAIN, &tcp.frame())]);
}

/// The kernel's VXLAN device over veth hands over its super-frames uncut, too.
#[test]
fn a_super_frame_that_a_peers_kernel_left_whole_reaches_the_pod() {
    for v6 in [false, true] {
        let tcp = Tcp {
            v6,
            flags: 0x18,
            ..Tcp::new(20_000)
        };
        let mut b = Node::new(forwarding(1450, &[1]));
        let datagram = [&wire::vxlan::header(wire::Vni::DEFAULT)[..], &tcp.partial()].concat();
        let written = b.receive(endpoint(1), &[vec![datagram.clone()]]);
        let mss = 1450 - if v6 { 40 } else { 20 } - 32;
        assert_eq!(written, [read(tcp.header(mss), &tcp.partial())]);
        // Where the TAP takes no such frame, it is cut here.
        b.ingress = fastpath::Ingress::default();
        let written = b.receive(endpoint(1), &[vec![datagram]]);
        assert_eq!(written.len(), 20_000usize.div_ceil(usize::from(mss)));
        let payloads = written.iter().flat_map(|frame| {
            assert!(frame.len() <= 10 + 1464);
            &frame[10 + tcp.frame().len() - 20_000..]
        });
        assert!(payloads.eq(&tcp.payload));
    }
    // What is not TCP is handed on as it is: the bridge may take more than this link.
    let mut b = Node::new(forwarding(1300, &[1]));
    let udp = complete(udp_partial(false, 1, (1, 2), &[0; 1400]), false, 6);
    let datagram = [&wire::vxlan::header(wire::Vni::DEFAULT)[..], &udp].concat();
    assert_eq!(
        b.receive(endpoint(1), &[vec![datagram]]),
        [read(VnetHdr::PLAIN, &udp)]
    );
}

#[test]
fn a_corrupt_segment_is_not_hidden_in_a_run() {
    let tcp = Tcp::new(4 * 1_000);
    let mut a = Node::new(forwarding(1450, &[2]));
    let mut b = Node::new(forwarding(1450, &[1]));
    let mut run = a
        .read_tap([read(tcp.header(1_000), &tcp.partial())])
        .remove(0)
        .datagrams;
    *run[1].last_mut().unwrap() ^= 1;
    let corrupt = run[1][8..].to_vec();
    let written = b.receive(endpoint(1), &[run]);
    assert_eq!(written.len(), 3);
    assert_eq!(written[1], read(VnetHdr::PLAIN, &corrupt));
}

#[test]
fn what_ends_a_run() {
    let next = |tcp: &Tcp, change: &dyn Fn(&mut Tcp)| {
        let mut next = Tcp {
            sequence: tcp.sequence.wrapping_add(1_000),
            id: tcp.id.wrapping_add(1),
            ..tcp.clone()
        };
        change(&mut next);
        next
    };
    type Change<'a> = &'a dyn Fn(&mut Tcp);
    let cases: &[(&str, Change<'_>, usize)] = &[
        ("nothing", &|_| {}, 1),
        ("a gap", &|t| t.sequence += 1, 2),
        ("a jump of the identification", &|t| t.id += 5, 2),
        ("FIN", &|t| t.flags |= 1, 2),
        ("RST", &|t| t.flags |= 4, 2),
        ("URG", &|t| t.flags |= 0x20, 2),
        ("ECE on one of them", &|t| t.flags |= 0x40, 2),
        ("other options", &|t| t.options = 0, 2),
        ("a pure acknowledgement", &|t| t.payload.clear(), 2),
        ("a longer segment", &|t| t.payload.push(1), 2),
        ("another port", &|t| t.port += 1, 2),
        (
            "a shorter segment, as the last",
            &|t| t.payload.truncate(10),
            1,
        ),
    ];
    for (what, change, frames) in cases {
        for v6 in [false, true] {
            let first = Tcp {
                v6,
                ..Tcp::new(1_000)
            };
            let second = next(&first, change);
            if v6 && what.contains("identification") {
                continue;
            }
            let run = |tcp: &Tcp| {
                vec![[&wire::vxlan::header(wire::Vni::DEFAULT)[..], &tcp.frame()].concat()]
            };
            let mut b = Node::new(forwarding(1450, &[1]));
            let written = b.receive(endpoint(1), &[run(&first), run(&second)]);
            assert_eq!(written.len(), *frames, "{what}, v6 {v6}");
            if *frames == 2 {
                // In order, and untouched.
                let expected = [&first, &second].map(|tcp| read(VnetHdr::PLAIN, &tcp.frame()));
                let ports = first.port != second.port;
                assert!(ports || written == expected, "{what}, v6 {v6}");
            }
        }
    }
}

/// Receives the frames, each in a datagram, and says how many are written.
fn written(frames: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let runs: Vec<_> = frames
        .iter()
        .map(|frame| vec![[&wire::vxlan::header(wire::Vni::DEFAULT)[..], frame].concat()])
        .collect();
    Node::new(forwarding(1450, &[1])).receive(endpoint(1), &runs)
}

/// Three segments in a row of one flow.
fn three(v6: bool) -> Vec<Tcp> {
    let segment = |i: u32| Tcp {
        v6,
        sequence: 1_000 + i * 500,
        id: 40 + i as u16,
        ..Tcp::new(500)
    };
    (0..3).map(segment).collect()
}

/// The kernel's `inet_gro_receive`, `ipv6_gro_receive` and `tcp_gro_receive` flush on each of these.
#[test]
fn headers_that_differ_end_a_run() {
    // Offset of the byte in the frame, and what is changed in it.
    let v4 = [
        ("another source MAC", 11, 0x01),
        ("congestion experienced", 15, 0x03),
        ("another class of service", 15, 0x20),
        ("fragments allowed", 20, 0x40),
        ("another time to live", 22, 0x01),
        ("another acknowledgement", 34 + 11, 0x01),
        ("a reserved bit", 34 + 12, 0x01),
        ("CWR", 34 + 13, 0x80),
        ("SYN", 34 + 13, 0x02),
        ("another window", 34 + 15, 0x01),
        ("another option", 34 + 20, 0x02),
    ];
    let v6 = [
        ("another class of traffic", 15, 0x20),
        ("another flow label", 17, 0x01),
        ("another hop limit", 21, 0x01),
        ("another acknowledgement", 54 + 11, 0x01),
    ];
    for (is_v6, changes) in [(false, &v4[..]), (true, &v6[..])] {
        let whole: Vec<_> = three(is_v6).iter().map(Tcp::frame).collect();
        assert_eq!(written(&whole).len(), 1, "v6 {is_v6}");
        for (what, at, bits) in changes {
            let mut frames: Vec<_> = three(is_v6).iter().map(Tcp::partial).collect();
            frames[1][*at] ^= bits;
            if !is_v6 {
                frames[1][24..26].fill(0);
                let sum = checksum::checksum(&frames[1][14..34]);
                frames[1][24..26].copy_from_slice(&sum.to_be_bytes());
            }
            let frames: Vec<_> = frames.into_iter().map(|f| complete(f, is_v6, 16)).collect();
            let written = written(&frames);
            // The third has the sequence number that follows the second, not the first.
            assert_eq!(written.len(), 3, "{what}, v6 {is_v6}");
            assert_eq!(written[1], read(VnetHdr::PLAIN, &frames[1]), "{what}");
        }
    }
}

#[test]
fn a_wrong_ipv4_checksum_is_not_hidden_in_a_run() {
    let mut frames: Vec<_> = three(false).iter().map(Tcp::frame).collect();
    frames[1][24] ^= 1;
    let written = written(&frames);
    assert_eq!(written.len(), 3);
    assert_eq!(written[1], read(VnetHdr::PLAIN, &frames[1]));
}

#[test]
fn identifications_count_up_or_stand_still_but_not_both() {
    for (ids, frames) in [
        ([7, 8, 9], 1),
        ([7, 7, 7], 1),
        ([7, 7, 9], 2),
        ([7, 8, 7], 2),
        ([0xffff, 0, 1], 1),
    ] {
        let segments = three(false).into_iter().zip(ids);
        let segments: Vec<_> = segments
            .map(|(tcp, id)| Tcp { id, ..tcp }.frame())
            .collect();
        assert_eq!(written(&segments).len(), frames, "{ids:?}");
    }
}

#[test]
fn a_push_ends_a_run_and_the_next_begins_another() {
    let mut segments = three(false);
    segments[0].flags |= 0x08;
    let frames: Vec<_> = segments.iter().map(Tcp::frame).collect();
    let written = written(&frames);
    assert_eq!(written.len(), 2);
    assert_eq!(written[0], read(VnetHdr::PLAIN, &frames[0]));
}

/// `udp_gro_receive`: equal lengths but for the last, a checksum, and something in it.
#[test]
fn what_ends_a_run_of_datagrams() {
    for v6 in [false, true] {
        let datagram =
            |i: u16, len: usize| complete(udp_partial(v6, i, (5_000, 53), &vec![3; len]), v6, 6);
        let lens = |lens: [usize; 3]| -> Vec<_> {
            (0..).zip(lens).map(|(i, len)| datagram(i, len)).collect()
        };
        assert_eq!(written(&lens([400, 400, 400])).len(), 1, "v6 {v6}");
        assert_eq!(written(&lens([400, 400, 90])).len(), 1, "v6 {v6}");
        assert_eq!(written(&lens([400, 90, 90])).len(), 2, "v6 {v6}");
        assert_eq!(written(&lens([400, 401, 401])).len(), 2, "v6 {v6}");
        assert_eq!(written(&lens([0, 0, 0])).len(), 3, "v6 {v6}");
        // Zero says that there is no checksum, which nobody can verify.
        let at = if v6 { 54 } else { 34 };
        let mut frames = lens([400, 400, 400]);
        frames[1][at + 6..at + 8].fill(0);
        assert_eq!(written(&frames).len(), 3, "v6 {v6}");
    }
}

proptest! {
    /// Cutting, then joining, is the identity, whatever the sizes, flags and family.
    #[test]
    fn tcp_cut_then_joined_is_the_same(
        v6: bool,
        len in 1usize..62_000,
        mss in 600u16..=1_350,
        push: bool,
        options in 0usize..=10,
        sequence: u32,
        id: u16,
    ) {
        let tcp = Tcp {
            v6, sequence, id, options: options * 4,
            flags: if push { 0x18 } else { 0x10 },
            ..Tcp::new(len)
        };
        prop_assume!(len <= 60 * usize::from(mss));
        let given = read(tcp.header(mss), &tcp.partial());
        let (sent, written) = cross(vec![given.clone()]);
        let datagrams = sent.iter().map(|train| train.datagrams.len()).sum::<usize>();
        prop_assert_eq!(datagrams, len.div_ceil(usize::from(mss)));
        let given_header = VnetHdr::parse(&given).unwrap().0;
        if given_header.gso == GsoType::None {
            prop_assert_eq!(written, [read(VnetHdr::PLAIN, &tcp.frame())]);
        } else {
            prop_assert_eq!(written.len(), 1);
            prop_assert_eq!(&written[0], &given);
        }
    }

    /// The same for UDP, and a run of datagrams on the wire is complete and right in itself.
    #[test]
    fn udp_cut_then_joined_is_the_same(
        v6: bool,
        len in 1usize..20_000,
        size in 400u16..1_400,
        id: u16,
    ) {
        let payload: Vec<u8> = (0..len).map(|i| (i % 253) as u8).collect();
        let frame = udp_partial(v6, id, (5_000, 53), &payload);
        let at = if v6 { 54 } else { 34 };
        let whole = len <= usize::from(size);
        let header = VnetHdr {
            needs_csum: true,
            gso: if whole { GsoType::None } else { GsoType::Udp },
            ecn: false,
            hdr_len: at + 8,
            gso_size: size,
            csum_start: at,
            csum_offset: 6,
        };
        let (sent, written) = cross(vec![read(header, &frame)]);
        if whole {
            prop_assert_eq!(written, [read(VnetHdr::PLAIN, &complete(frame, v6, 6))]);
        } else {
            prop_assert_eq!(written, [read(header, &frame)]);
            for (i, datagram) in sent.iter().flat_map(|train| &train.datagrams).enumerate() {
                let from = i * usize::from(size);
                let part = &payload[from..(from + usize::from(size)).min(len)];
                let alone = udp_partial(v6, id.wrapping_add(i as u16), (5_000, 53), part);
                prop_assert_eq!(&datagram[8..], complete(alone, v6, 6));
            }
        }
    }

    /// Any mix of flows arrives whole and in order within each flow.
    #[test]
    fn mixed_flows_keep_their_order(
        order in proptest::collection::vec((0u16..12, 1usize..4_000, any::<bool>()), 1..60),
    ) {
        let mut sequences = [100u32; 12];
        let mut ids = [0u16; 12];
        let mut streams: Vec<Vec<u8>> = vec![Vec::new(); 12];
        let mut reads = Vec::new();
        for (flow, len, push) in order {
            let f = usize::from(flow);
            let mut tcp = Tcp {
                port: 20_000 + flow,
                sequence: sequences[f],
                id: ids[f],
                flags: if push { 0x18 } else { 0x10 },
                ..Tcp::new(len)
            };
            tcp.payload.iter_mut().for_each(|b| *b = b.wrapping_add(flow as u8));
            sequences[f] += len as u32;
            ids[f] = ids[f].wrapping_add(len.div_ceil(1_300) as u16);
            streams[f].extend(&tcp.payload);
            reads.push(read(tcp.header(1_300), &tcp.partial()));
        }
        let (_, written) = cross(reads);
        let mut got: Vec<Vec<u8>> = vec![Vec::new(); 12];
        for frame in &written {
            let (_, frame) = VnetHdr::parse(frame).unwrap();
            let ip = Ipv4Packet::new(&frame[14..]).unwrap();
            let segment = TcpPacket::new(ip.payload()).unwrap();
            let flow = usize::from(segment.get_source() - 20_000);
            prop_assert_eq!(segment.get_sequence(), 100 + got[flow].len() as u32);
            got[flow].extend(segment.payload());
        }
        prop_assert_eq!(got, streams);
    }
}
