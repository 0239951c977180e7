//! The path of a known flow allocates nothing, whatever the encapsulation.

use fastpath::{
    Arrival, ControlSink, Datagram, Encapsulation, FrameSink, Link, Outlets, Train, TrainSink,
    VnetHdr,
};

use crate::frames::{Node, POD_A, POD_B, Tcp, endpoint, peer, read, sleeve, snapshot};

/// Sinks that keep nothing.
struct Nowhere(usize);

impl TrainSink for Nowhere {
    fn send(&mut self, train: Train<'_>) {
        self.0 += train.count;
    }
}

impl FrameSink for Nowhere {
    fn deliver(&mut self, parts: &[&[u8]]) {
        self.0 += parts.len();
    }
}

impl ControlSink for Nowhere {
    fn probe(&mut self, _: Arrival<'_>) {
        self.0 += 1;
    }
}

/// A flow from node 1 to node 2 over this link's like, and from node 1's engine what it sends.
fn known_flow(to: &Link, from: Link) -> usize {
    let source = from.endpoint;
    let encapsulation = to.encapsulation;
    let mut a = Node::new(snapshot(peer(1), [to.clone()]));
    let mut b = Node::new(snapshot(peer(2), [from]));
    let tcp = Tcp::new(40 * 1_386);
    let mut bulk = read(tcp.header(1_386), &tcp.partial());
    let small = read(VnetHdr::PLAIN, &Tcp::new(64).frame());
    // Both ends learn, and every buffer is touched once.
    let run = a.read_tap([bulk.clone()]).remove(0).datagrams;
    b.receive_in(encapsulation, source, std::slice::from_ref(&run));
    let (segment, mut bytes) = (run[0].len(), run.concat());

    let (mut nowhere, mut tap) = (Nowhere(0), Nowhere(0));
    let count = allocation_counter::measure(|| {
        for _ in 0..100 {
            let reads = [&mut bulk[..], &mut small.clone()[..]];
            a.send(reads, &mut nowhere, &mut tap);
            receive(&mut b, &mut bytes, segment, source, encapsulation, &mut tap);
        }
    });
    // The clone of the small read, which the engine completes in place, is the test's own.
    assert_eq!(count.count_total, 100);
    assert_eq!(nowhere.0, 100 * 41);
    tap.0
}

fn receive(
    node: &mut Node,
    bytes: &mut [u8],
    segment: usize,
    source: std::net::SocketAddr,
    encapsulation: Encapsulation,
    tap: &mut Nowhere,
) -> usize {
    let received = Datagram {
        bytes,
        segment,
        source,
        encapsulation,
    };
    let (mut relayed, mut probes) = (Nowhere(0), Nowhere(0));
    node.take(
        [received],
        &mut Outlets {
            tap,
            underlay: &mut relayed,
            control: &mut probes,
        },
    );
    relayed.0
}

fn by_sleeve(to: u8) -> Link {
    Link {
        encapsulation: Encapsulation::Sleeve,
        ..Link::vxlan(Some(peer(to)), sleeve(to), 1438)
    }
}

#[test]
fn a_known_flow_allocates_nothing() {
    let vxlan = |n| Link::vxlan(Some(peer(n)), endpoint(n), 1450);
    // The offload header, the frame's headers, and 40 payloads.
    assert_eq!(known_flow(&vxlan(2), vxlan(1)), 100 * 42);
    assert_eq!(known_flow(&by_sleeve(2), by_sleeve(1)), 100 * 42);
}

/// Nor do small frames that share sealed datagrams.
#[test]
fn aggregates_allocate_nothing() {
    use std::sync::Arc;

    use fastpath::{Cipher, SealKey, Sealer};

    let sealer = Arc::new(Sealer::new());
    let key = SealKey::new(Cipher::Aes256Gcm, &[1; 32], 7).aggregating(true);
    sealer.set(Some(Arc::new(key)), [const { None }; 3]);
    let link = Link {
        sealer: Some(sealer),
        ..by_sleeve(2)
    };
    let mut node = Node::new(snapshot(peer(1), [link]).sealed());
    let mut reads = vec![read(VnetHdr::PLAIN, &Tcp::new(64).frame()); 50];
    node.read_tap(reads.clone());
    let (mut nowhere, mut tap) = (Nowhere(0), Nowhere(0));
    let count = allocation_counter::measure(|| {
        for _ in 0..100 {
            node.send(
                reads.iter_mut().map(Vec::as_mut_slice),
                &mut nowhere,
                &mut tap,
            );
        }
    });
    assert_eq!((count.count_total, nowhere.0), (0, 100 * 5));
}

/// Nor does a question that goes to the owner of the address, nor its answer.
#[test]
fn a_question_allocates_nothing() {
    use std::net::Ipv4Addr;
    use std::sync::Arc;

    use fastpath::{OwnedRange, Owner, OwnerMap, Questions, Resolver};
    use wire::arp::Arp;

    let mine = OwnedRange {
        first: Ipv4Addr::new(10, 32, 1, 0).into(),
        last: Ipv4Addr::new(10, 32, 1, 255).into(),
        owner: Owner::Peer(peer(2)),
    };
    let resolver = Resolver::new(
        Arc::new(OwnerMap::new([mine])),
        Arc::new(Questions::default()),
    );
    let link = Link::vxlan(Some(peer(2)), endpoint(2), 1450);
    let mut node = Node::new(snapshot(peer(1), [link]).with_resolver(resolver));
    let request = Arp::request(
        POD_A,
        Ipv4Addr::new(10, 32, 0, 7),
        Ipv4Addr::new(10, 32, 1, 9),
    );
    let mut asks = read(VnetHdr::PLAIN, &request.frame(wire::Mac::BROADCAST));
    let mut answer = [
        &wire::vxlan::header(1.try_into().unwrap())[..],
        &request.reply(POD_B).frame(POD_A),
    ]
    .concat();
    // The pod, the buffers and the other pod are known.
    node.read_tap([asks.clone(), asks.clone()]);
    node.receive(endpoint(2), &[vec![answer.clone()]]);
    let (mut nowhere, mut tap) = (Nowhere(0), Nowhere(0));
    let count = allocation_counter::measure(|| {
        for _ in 0..100 {
            node.send([&mut asks[..]], &mut nowhere, &mut tap);
            let len = answer.len();
            let encapsulation = Encapsulation::Vxlan;
            receive(
                &mut node,
                &mut answer,
                len,
                endpoint(2),
                encapsulation,
                &mut tap,
            );
        }
    });
    assert_eq!(count.count_total, 0);
    assert_eq!(nowhere.0, 100);
}

/// Nor does multicast to those who want it, a pod's report once there is room for it, or a flood.
#[test]
fn multicast_allocates_nothing() {
    use std::sync::Arc;

    use fastpath::GroupTable;
    use wire::Mac;

    let group = [Mac([0x01, 0, 0x5e, 1, 2, 3])];
    let links = (2..6).map(|n| Link::vxlan(Some(peer(n)), endpoint(n), 1450));
    let wanted = [(0, Some(&group[..])), (1, Some(&[][..])), (2, None)];
    let table = Arc::new(GroupTable::new([], wanted));
    let mut node = Node::new(snapshot(peer(1), links).with_groups(table));
    let frame = |dst: Mac| {
        let mut frame = Tcp::new(64).frame();
        frame[..6].copy_from_slice(&dst.0);
        read(VnetHdr::PLAIN, &frame)
    };
    let report = wire::membership::igmp_general_query(POD_A, 20, 125);
    let mut reads = [
        frame(group[0]),
        frame(Mac::BROADCAST),
        read(VnetHdr::PLAIN, &report),
    ];
    node.read_tap(reads.clone());
    let (mut nowhere, mut tap) = (Nowhere(0), Nowhere(0));
    let count = allocation_counter::measure(|| {
        for _ in 0..100 {
            let reads = reads.iter_mut().map(Vec::as_mut_slice);
            node.send(reads, &mut nowhere, &mut tap);
        }
    });
    assert_eq!(count.count_total, 0);
    assert_eq!(nowhere.0, 100 * (2 + 4 + 4));
}

#[test]
fn a_relay_allocates_nothing() {
    let mut relay = Node::new(snapshot(peer(2), [by_sleeve(1), by_sleeve(3)]));
    let datagram = [
        &wire::sleeve::Header::plain(peer(1), peer(3)).bytes()[..],
        &Tcp::new(1_386).frame(),
    ]
    .concat();
    let run = vec![datagram; 40];
    let (segment, bytes) = (run[0].len(), run.concat());
    let mut runs = vec![bytes; 100];
    let (mut tap, mut relayed) = (Nowhere(0), 0);
    let count = allocation_counter::measure(|| {
        for bytes in &mut runs {
            relayed += receive(
                &mut relay,
                bytes,
                segment,
                sleeve(1),
                Encapsulation::Sleeve,
                &mut tap,
            );
        }
    });
    assert_eq!(count.count_total, 0);
    assert_eq!((relayed, tap.0), (4000, 0));
}
