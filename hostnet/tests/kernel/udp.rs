use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use hostnet::poll::{PollFd, PollFlags, poll};
use hostnet::udp::assert_port_free;
use hostnet::{BindError, Datagram, RecvBatch, UdpOptions, UdpSocket, VxlanOptions, sysctl};
use nix::errno::Errno;
use wire::Vni;

use crate::world::{World, net, pair, wait_for};

const A: [&str; 2] = ["10.9.0.1/24", "fd09::1/64"];
const B: [&str; 2] = ["10.9.0.2/24", "fd09::2/64"];

#[test]
fn a_train_arrives_joined_over_both_families() {
    let (a, b, _) = pair(&A, &B);
    let train: Vec<u8> = (0..10_500u32).map(|i| i.to_le_bytes()[0]).collect();
    let receiver = b.run(|| UdpSocket::bind(&UdpOptions::new(any(6784))).unwrap());
    assert!(receiver.capabilities().gro);
    for (i, any_v4) in [(0, true), (0, false), (1, false)] {
        let own = if any_v4 {
            SocketAddr::new(net(A[i]).addr(), 0)
        } else {
            any(0)
        };
        let sender = a.run(|| UdpSocket::bind(&UdpOptions::new(own)).unwrap());
        assert!(sender.capabilities().gso);
        let dest = SocketAddr::new(net(B[i]).addr(), 6784);
        sender.send_train(dest, &train, 1000).unwrap();
        let got = receive(&receiver, 11);
        assert!(got.joined > 0, "GRO joined nothing: {got:?}");
        // An IPv4 sender looks plain, whatever the sockets.
        assert_eq!(
            got.source,
            SocketAddr::new(net(A[i]).addr(), sender.local_addr().port())
        );
        let lens: Vec<_> = got.datagrams.iter().map(Vec::len).collect();
        assert_eq!(lens, [[1000; 10].as_slice(), &[500]].concat());
        assert_eq!(got.datagrams.concat(), train);
    }
}

#[test]
fn the_plain_path_sends_the_same_datagrams() {
    let (a, b, _) = pair(&A, &B);
    let train: Vec<u8> = (0..41_300u32).map(|i| i.to_le_bytes()[0]).collect();
    let options = UdpOptions {
        gro: false,
        recv_buffer: 1 << 20,
        ..UdpOptions::new(any(6784))
    };
    let receiver = b.run(|| UdpSocket::bind(&options).unwrap());
    assert!(!receiver.capabilities().gro);
    let sender = a.run(|| UdpSocket::bind(&UdpOptions::new(any(0))).unwrap());
    assert!(sender.disable_gso());
    assert!(!sender.disable_gso());
    assert!(!sender.capabilities().gso);
    for address in B {
        // More than one call's worth.
        sender
            .send_train(SocketAddr::new(net(address).addr(), 6784), &train, 1000)
            .unwrap();
        let got = receive(&receiver, 42);
        assert_eq!((got.joined, got.datagrams.len()), (0, 42));
        assert_eq!(got.datagrams.concat(), train);
    }
}

#[test]
fn a_batch_goes_to_several_peers_with_and_without_gso() {
    let (a, b, _) = pair(&A, &B);
    let ports = [6001, 6002];
    let options = |port| UdpOptions {
        recv_buffer: 1 << 20,
        ..UdpOptions::new(any(port))
    };
    let receivers = ports.map(|port| b.run(|| UdpSocket::bind(&options(port)).unwrap()));
    let sender = a.run(|| UdpSocket::bind(&UdpOptions::new(any(0))).unwrap());
    let payload = [9; 3000];
    // Every third is a train of three; the families alternate.
    let batch: Vec<_> = (0..80usize)
        .map(|i| Datagram {
            dest: SocketAddr::new(net(B[i % 2]).addr(), ports[i / 40]),
            bytes: if i % 3 == 0 {
                &payload
            } else {
                &payload[..100 + i]
            },
            segment: if i % 3 == 0 { 1000 } else { 0 },
        })
        .collect();
    for _ in 0..2 {
        assert_eq!(sender.send_batch(&batch).unwrap(), batch.len());
        for (receiver, batch) in receivers.iter().zip(batch.chunks(40)) {
            let datagrams = batch
                .iter()
                .map(|d| if d.segment == 0 { 1 } else { 3 })
                .sum();
            let mut got: Vec<_> = receive(receiver, datagrams)
                .datagrams
                .iter()
                .map(Vec::len)
                .collect();
            let mut wanted: Vec<_> = batch
                .iter()
                .flat_map(|d| {
                    if d.segment == 0 {
                        vec![d.bytes.len()]
                    } else {
                        vec![1000; 3]
                    }
                })
                .collect();
            got.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(got, wanted);
        }
        sender.disable_gso();
    }
    assert_eq!(sender.send_batch(&[]).unwrap(), 0);
}

#[test]
fn small_and_large_datagrams_arrive_whole() {
    let (a, b, _) = pair(&A, &B);
    let receiver = b.run(|| UdpSocket::bind(&UdpOptions::new(any(6784))).unwrap());
    let sender = a.run(|| UdpSocket::bind(&UdpOptions::new(any(0))).unwrap());
    let bytes = vec![1; 9000];
    // Fragmented on the way, because that is not forbidden here.
    for len in [0, 1, 1472, 9000] {
        for address in B {
            sender
                .send_train(SocketAddr::new(net(address).addr(), 6784), &bytes[..len], 0)
                .unwrap();
            assert_eq!(receive(&receiver, 1).datagrams, [&bytes[..len]]);
        }
    }
    let options = UdpOptions {
        dont_fragment: true,
        ..UdpOptions::new(any(0))
    };
    let strict = a.run(|| UdpSocket::bind(&options).unwrap());
    for (i, most) in [(0, 1472), (1, 1452)] {
        let dest = SocketAddr::new(net(B[i]).addr(), 6784);
        strict.send_train(dest, &bytes[..most], 0).unwrap();
        let error = strict.send_train(dest, &bytes[..=most], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(nix::libc::EMSGSIZE));
        assert_eq!(a.run(|| hostnet::udp::path_mtu(dest)).unwrap(), 1500);
        let batch = [most, most + 1, most].map(|len| Datagram {
            dest,
            bytes: &bytes[..len],
            segment: 0,
        });
        assert_eq!(strict.send_batch(&batch).unwrap(), 1);
        assert!(strict.send_batch(&batch[1..]).is_err());
    }
}

#[test]
fn a_full_buffer_sends_nothing_twice() {
    let (a, _b, _) = pair(&A, &B);
    let options = UdpOptions {
        send_buffer: 1,
        ..UdpOptions::new(any(0))
    };
    let sender = a.run(|| UdpSocket::bind(&options).unwrap());
    sender.disable_gso();
    // Nobody has this address: what is sent waits for it in the buffer.
    let nobody = "10.9.0.99:6784".parse().unwrap();
    let train = [7; 60_000];
    sender.send_train(nobody, &train, 1000).unwrap();
    let lost = sender.lost();
    assert!((1..60).contains(&lost), "{lost}");
    let error = sender.send_train(nobody, &train, 1000).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert_eq!(sender.lost(), lost);
}

/// Without `report_errors` the kernel says that all went well.
#[test]
fn a_datagram_that_the_devices_queue_drops_is_reported() {
    let (a, b, _) = pair(&A, &B);
    // Neighbours are known before: what waits for their address is sent later, by nobody's call.
    for (from, to) in A.iter().zip(&B) {
        let at = |address: &str, port| UdpOptions::new(SocketAddr::new(net(address).addr(), port));
        let receiver = b.run(|| UdpSocket::bind(&at(to, 6784)).unwrap());
        let sender = a.run(|| UdpSocket::bind(&at(from, 0)).unwrap());
        sender.send_train(receiver.local_addr(), &[1], 0).unwrap();
        receive(&receiver, 1);
    }
    let shape = "qdisc add dev a0 root tbf rate 8kbit burst 2kb limit 4kb";
    let tc = a.run(|| {
        std::process::Command::new("tc")
            .args(shape.split(' '))
            .status()
    });
    assert!(tc.expect("tc is installed (iproute2)").success());
    for (address, to) in A.iter().zip(&B) {
        let silent = UdpOptions::new(SocketAddr::new(net(address).addr(), 0));
        let telling = UdpOptions {
            report_errors: true,
            ..silent
        };
        let dest = SocketAddr::new(net(to).addr(), 6784);
        let lost = |options: &UdpOptions| {
            let socket = a.run(|| UdpSocket::bind(options).unwrap());
            let sent = (0..20).map(|_| socket.send_train(dest, &[0; 1000], 0));
            let errors: Vec<_> = sent.filter_map(Result::err).collect();
            let told = |e: &std::io::Error| e.raw_os_error() == Some(Errno::ENOBUFS as i32);
            assert!(errors.iter().all(told), "{errors:?}");
            errors.len()
        };
        assert_eq!(lost(&silent), 0, "{address}");
        assert!(lost(&telling) > 10, "{address}");
    }
}

/// What an earlier datagram met comes in the stead of a later one, which was not sent, and once.
#[test]
fn an_answer_by_icmp_is_told_and_cleared() {
    let (a, b, _) = pair(&A, &B);
    for (from, to) in A.iter().zip(&B) {
        let options = UdpOptions {
            report_errors: true,
            ..UdpOptions::new(SocketAddr::new(net(from).addr(), 0))
        };
        let socket = a.run(|| UdpSocket::bind(&options).unwrap());
        // Nobody listens there.
        let dest = SocketAddr::new(net(to).addr(), 6784);
        assert_eq!(socket.clear_errors(), 0);
        socket.send_train(dest, &[1], 0).unwrap();
        // On a busy machine the answer comes after the send buffer is full.
        let refused = wait_for("the port is refused", || {
            let error = socket.send_train(dest, &[2], 0).err();
            error.filter(|error| error.kind() != ErrorKind::WouldBlock)
        });
        assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
        assert!(socket.clear_errors() > 0);
        socket.send_train(dest, &[2], 0).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        let receiver = b.run(|| UdpSocket::bind(&UdpOptions::new(dest)).unwrap());
        socket.send_train_anew(dest, &[3], 0).unwrap();
        assert_eq!(socket.clear_errors(), 0);
        assert_eq!(receive(&receiver, 1).datagrams, [[3]]);
    }
}

#[test]
fn what_finds_no_room_is_counted() {
    let (a, b, _) = pair(&A, &B);
    let options = UdpOptions {
        recv_buffer: 4096,
        ..UdpOptions::new(any(6784))
    };
    let receiver = b.run(|| UdpSocket::bind(&options).unwrap());
    let sender = a.run(|| UdpSocket::bind(&UdpOptions::new(any(0))).unwrap());
    assert_eq!(receiver.dropped().unwrap(), 0);
    let dest = SocketAddr::new(net(B[0]).addr(), 6784);
    for _ in 0..100 {
        sender.send_train(dest, &[0; 1000], 0).unwrap();
    }
    wait_for("all have come or were dropped", || {
        (receiver.dropped().unwrap() > 50).then_some(())
    });
}

#[test]
fn nothing_there_is_would_block() {
    let world = World::new();
    let socket = world.run(|| UdpSocket::bind(&UdpOptions::new(any(0))).unwrap());
    let mut batch = RecvBatch::new(4);
    let error = socket.recv_batch(&mut batch).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(batch.is_empty() && batch.iter().next().is_none());
}

#[test]
fn buffers_are_as_large_as_asked_for() {
    let world = World::new();
    let options = UdpOptions {
        recv_buffer: 16 << 20,
        send_buffer: 8 << 20,
        ..UdpOptions::new(any(0))
    };
    let socket = world.run(|| UdpSocket::bind(&options).unwrap());
    // The kernel doubles them.
    assert_eq!(socket.buffers().unwrap(), (32 << 20, 16 << 20));
}

#[test]
fn a_port_in_use_is_named_with_a_remedy() {
    let world = World::new();
    let shared = UdpOptions {
        reuse_port: true,
        ..UdpOptions::new(any(6784))
    };
    let bind = |options: UdpOptions| world.run(|| UdpSocket::bind(&options));
    let _one = bind(shared).unwrap();
    let _two = bind(shared).unwrap();
    let errors = [
        bind(UdpOptions::new(any(6784))).unwrap_err(),
        // Sharing hides the other user of the port; this does not.
        world.run(|| assert_port_free(any(6784))).unwrap_err(),
        world
            .run(|| assert_port_free("127.0.0.1:6784".parse().unwrap()))
            .unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, BindError::InUse { .. }), "{error:?}");
        let text = error.to_string();
        assert!(
            text.contains("UDP port 6784 is in use") && text.contains("--vxlan-port"),
            "{text}"
        );
    }
    world.run(|| assert_port_free(any(6785))).unwrap();

    let mut netlink = world.netlink();
    let index = netlink
        .add_vxlan("vx0", &VxlanOptions::new(Vni::DEFAULT, 8472))
        .unwrap();
    netlink.set_up(index).unwrap();
    let error = bind(UdpOptions {
        reuse_port: true,
        ..UdpOptions::new(any(8472))
    })
    .unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }), "{error:?}");

    let error = bind(UdpOptions::new("192.0.2.1:6784".parse().unwrap())).unwrap_err();
    assert!(
        matches!(error, BindError::NoSuchAddress { .. }),
        "{error:?}"
    );
}

#[test]
fn a_dual_socket_serves_ipv4_where_ipv6_is_switched_off() {
    let world = World::new();
    let received = world.run(|| {
        sysctl::write("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
        let receiver = UdpSocket::bind(&UdpOptions::new(any(6784))).unwrap();
        let sender = UdpSocket::bind(&UdpOptions::new(any(0))).unwrap();
        sender
            .send_train("127.0.0.1:6784".parse().unwrap(), b"hello", 0)
            .unwrap();
        receive(&receiver, 1)
    });
    assert_eq!(received.datagrams, [b"hello"]);
    assert!(received.source.is_ipv4());
}

#[test]
fn ipv6_can_be_kept_to_itself() {
    let world = World::new();
    let only = UdpOptions {
        only_v6: true,
        ..UdpOptions::new(any(6784))
    };
    let _six = world.run(|| UdpSocket::bind(&only).unwrap());
    let _four =
        world.run(|| UdpSocket::bind(&UdpOptions::new("0.0.0.0:6784".parse().unwrap())).unwrap());
}

/// What came, datagram by datagram.
#[derive(Debug)]
struct Got {
    datagrams: Vec<Vec<u8>>,
    /// Items that the kernel had joined.
    joined: usize,
    source: SocketAddr,
}

/// Receives until so many datagrams are there.
fn receive(socket: &UdpSocket, wanted: usize) -> Got {
    let mut batch = RecvBatch::new(8);
    let mut got = Got {
        datagrams: Vec::new(),
        joined: 0,
        source: any(0),
    };
    let end = Instant::now() + Duration::from_secs(5);
    while got.datagrams.len() < wanted {
        let left = end.saturating_duration_since(Instant::now());
        assert!(
            !left.is_zero(),
            "{} of {wanted} datagrams",
            got.datagrams.len()
        );
        poll(
            &mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)],
            Some(left),
        )
        .unwrap();
        if socket.recv_batch(&mut batch).is_ok() {
            for item in batch.iter() {
                got.source = item.source;
                got.joined += usize::from(item.segment.is_some());
                got.datagrams.extend(item.datagrams().map(<[u8]>::to_vec));
            }
        }
    }
    got
}

fn any(port: u16) -> SocketAddr {
    format!("[::]:{port}").parse().unwrap()
}
