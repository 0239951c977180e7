//! The path of a known flow allocates nothing.

use fastpath::{Datagram, FrameSink, Train, TrainSink, VnetHdr};

use crate::frames::{Node, Tcp, endpoint, forwarding, read};

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

#[test]
fn a_known_flow_allocates_nothing() {
    let (mut a, mut b) = (
        Node::new(forwarding(1450, &[2])),
        Node::new(forwarding(1450, &[1])),
    );
    let tcp = Tcp::new(40 * 1_398);
    let mut bulk = read(tcp.header(1_398), &tcp.partial());
    let small = read(VnetHdr::PLAIN, &Tcp::new(64).frame());
    // Both ends learn, and every buffer is touched once.
    let run = a.read_tap([bulk.clone()]).remove(0).datagrams;
    b.receive(endpoint(1), std::slice::from_ref(&run));
    let bytes = run.concat();
    let received = Datagram {
        bytes: &bytes,
        segment: run[0].len(),
        source: endpoint(1),
    };

    let (mut nowhere, mut tap) = (Nowhere(0), Nowhere(0));
    let count = allocation_counter::measure(|| {
        for _ in 0..100 {
            let Node {
                egress,
                forwarding,
                macs,
                counters,
                now,
                ..
            } = &mut a;
            egress.begin(forwarding, macs, *now);
            egress.frame(
                &mut bulk,
                forwarding,
                macs,
                counters,
                &mut nowhere,
                &mut tap,
            );
            egress.frame(
                &mut small.clone()[..],
                forwarding,
                macs,
                counters,
                &mut nowhere,
                &mut tap,
            );
            egress.flush(&mut nowhere);
            let Node {
                ingress,
                forwarding,
                macs,
                counters,
                now,
                ..
            } = &mut b;
            ingress.batch([received], forwarding, macs, counters, *now, &mut nowhere);
        }
    });
    // The clone of the small read, which the engine completes in place, is the test's own.
    assert_eq!(count.count_total, 100);
    assert_eq!(nowhere.0, 100 * (41 + 42));
}
