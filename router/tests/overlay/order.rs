//! No packet overtakes another of its flow: numbered packets of many flows, both ways at once, over
//! several queues, workers and sockets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hostnet::affinity;
use hostnet::netlink::Netlink;
use router::lab::world::{Pod, World};

use crate::cluster::{cluster, counter, eventually};

/// Flows from each pod over each family.
const FLOWS: usize = 12;
const LOAD: Duration = Duration::from_secs(2);
/// A receiver that waits so long has seen all there is.
const QUIET: Duration = Duration::from_millis(300);

/// Workers and senders stay on their processors: a veth queues packets by the sender's processor,
/// and so reorders what a thread sends while it moves, with and without an overlay.
#[test]
fn no_packet_overtakes_another_of_its_flow() {
    for args in [
        &["--queues", "4", "--pin-workers", "on"][..],
        &["--queues", "4", "--pin-workers", "on", "--offloads", "off"],
    ] {
        let world = cluster(2, 1, args);
        let families = [addresses(&world, v4), addresses(&world, v6)];
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut receiving = Vec::new();
            let mut sending = Vec::new();
            for [a, b] in families {
                // Each side sends from the port that the other side sends to, so that the two
                // directions are one conversation, whose queue the kernel may want to change.
                let bind = |pod: usize, address| -> Vec<_> {
                    let flows = 0..FLOWS;
                    flows
                        .map(|flow| bind(&world.pods[pod], address, flow))
                        .collect()
                };
                let (of_a, of_b) = (bind(0, a), bind(1, b));
                greet(&of_a, &of_b, [a, b]);
                for (sockets, to) in [(of_a, b), (of_b, a)] {
                    let receivers: Vec<_> =
                        sockets.iter().map(|s| s.try_clone().unwrap()).collect();
                    let stop = &stop;
                    receiving.push(scope.spawn(move || receive(&receivers, stop)));
                    sending.push(scope.spawn(move || send(&sockets, to)));
                }
            }
            for sender in sending {
                sender.join().unwrap();
            }
            std::thread::sleep(QUIET);
            stop.store(true, Relaxed);
            for receiver in receiving {
                for (flow, seen) in receiver.join().unwrap() {
                    assert!(seen.packets > 100, "{args:?}: flow {flow} brought {seen:?}");
                    assert_eq!(
                        seen.overtaken, 0,
                        "{args:?}: packets of flow {flow} were overtaken: {seen:?}"
                    );
                }
            }
        });
        let status = world.nodes[0].status().unwrap();
        assert!(counter(&status, "tx_datagrams") > 1000);
        assert_eq!(status.overlay.queues, 4);
    }
}

/// What arrived of a flow.
#[derive(Debug, Default)]
struct Seen {
    packets: u64,
    /// Packets whose number was not higher than all before.
    overtaken: u64,
    next: u64,
}

/// One side begins each conversation, the other answers, as in any protocol.
fn greet(first: &[UdpSocket], second: &[UdpSocket], [a, b]: [IpAddr; 2]) {
    for (flow, (first, second)) in first.iter().zip(second).enumerate() {
        for (from, to, address) in [(first, second, b), (second, first, a)] {
            let mut buffer = [0; 8];
            eventually("a greeting arrives", || {
                let sent = from.send_to(&[0; 8], SocketAddr::new(address, port(flow)));
                std::thread::sleep(Duration::from_millis(2));
                sent.is_ok() && to.recv(&mut buffer).is_ok()
            });
        }
    }
}

/// Sends numbered packets on all sockets in turn.
fn send(sockets: &[UdpSocket], to: IpAddr) {
    // All senders on one processor, which they share with a worker.
    affinity::pin(affinity::allowed().unwrap()[0]).unwrap();
    let end = Instant::now() + LOAD;
    let mut payload = [0u8; 200];
    for number in 1u64.. {
        for (flow, socket) in sockets.iter().enumerate() {
            payload[..8].copy_from_slice(&number.to_be_bytes());
            // A full buffer: the number is missing, which is not out of order.
            let _ = socket.send_to(&payload, SocketAddr::new(to, port(flow)));
        }
        if Instant::now() > end {
            break;
        }
        // In bursts, so that everybody gets to run.
        if number.is_multiple_of(16) {
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn receive(sockets: &[UdpSocket], stop: &AtomicBool) -> BTreeMap<usize, Seen> {
    let mut flows: BTreeMap<usize, Seen> = BTreeMap::new();
    let mut buffer = [0; 256];
    while !stop.load(Relaxed) {
        let mut nothing = true;
        for (flow, socket) in sockets.iter().enumerate() {
            while let Ok(len) = socket.recv(&mut buffer) {
                nothing = false;
                let number = buffer[..len].first_chunk().copied();
                let number = u64::from_be_bytes(number.expect("packets are numbered"));
                let seen = flows.entry(flow).or_default();
                // A greeting that was late has no number.
                seen.packets += u64::from(number > 0);
                seen.overtaken += u64::from(number > 0 && number < seen.next);
                seen.next = seen.next.max(number + 1);
            }
        }
        if nothing {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    flows
}

/// A socket of a flow; it neither waits to send nor to receive.
fn bind(pod: &Pod, address: IpAddr, flow: usize) -> UdpSocket {
    let socket = pod.netns.run(|| UdpSocket::bind((address, port(flow))));
    let socket = socket.unwrap().unwrap();
    socket.set_nonblocking(true).unwrap();
    socket
}

fn port(flow: usize) -> u16 {
    20_000 + u16::try_from(flow).unwrap()
}

fn addresses(world: &World, of: fn(&Pod) -> IpAddr) -> [IpAddr; 2] {
    [of(&world.pods[0]), of(&world.pods[1])]
}

fn v4(pod: &Pod) -> IpAddr {
    pod.address.addr()
}

/// Gives the pod an IPv6 address beside the one of the overlay, and waits until it may be used.
fn v6(pod: &Pod) -> IpAddr {
    let address = IpAddr::from([0xfd77, 0, 0, 0, 0, 0, 0, pod.layout.node]);
    let mut netlink = Netlink::open_in(&pod.netns).unwrap();
    let eth0 = netlink.link("eth0").unwrap().unwrap().index;
    netlink
        .add_address(eth0, format!("{address}/64").parse().unwrap())
        .unwrap();
    eventually("the IPv6 address is not tentative any more", || {
        let bound = pod.netns.run(|| UdpSocket::bind((address, 9)));
        bound.unwrap().is_ok()
    });
    address
}
