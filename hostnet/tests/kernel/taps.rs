use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use hostnet::poll::{PollFd, PollFlags, poll};
use hostnet::tap::VNET_HDR_LEN;
use hostnet::{
    BridgeOptions, LinkKind, Neighbour, NeighbourState, Offloads, Tap, TapError, TapOptions,
    TapQueue, UdpOptions, UdpSocket,
};
use wire::Mac;

use crate::world::{World, ip, net, wait_for};

const OPTIONS: TapOptions<'static> = TapOptions {
    name: "tap0",
    queues: 1,
    vnet_hdr: true,
    offloads: Offloads::ALL,
};

/// `virtio_net_hdr.gso_type` of linux/virtio_net.h.
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;

#[test]
fn a_tap_has_what_the_kernel_grants_and_goes_when_closed() {
    let world = World::new();
    let mut netlink = world.netlink();
    let mut tap = world.run(|| {
        Tap::open(&TapOptions {
            queues: 2,
            ..OPTIONS
        })
        .unwrap()
    });
    let granted = tap.capabilities();
    assert!(
        granted.vnet_hdr && granted.csum && granted.tso4 && granted.tso6,
        "{granted:?}"
    );
    assert_eq!((tap.name(), granted.queues), ("tap0", 2));
    let queues = tap.take_queues();
    assert_eq!((queues.len(), tap.take_queues().len()), (2, 0));
    drop(tap);
    let link = netlink
        .link("tap0")
        .unwrap()
        .expect("it lives as long as a queue");
    assert_eq!((link.kind, link.up), (Some(LinkKind::Tun), false));
    netlink.set_txqlen(link.index, 4000).unwrap();
    assert_eq!(netlink.link("tap0").unwrap().unwrap().tx_queue_len, 4000);
    drop(queues);
    wait_for("the TAP to go", || {
        netlink.link("tap0").unwrap().is_none().then_some(())
    });
}

#[test]
fn a_plain_tap_has_no_header() {
    let world = World::new();
    let tap = world.run(|| {
        Tap::open(&TapOptions {
            name: "tap%d",
            vnet_hdr: false,
            ..OPTIONS
        })
        .unwrap()
    });
    let granted = tap.capabilities();
    assert_eq!(tap.name(), "tap0");
    assert!(!granted.vnet_hdr && !granted.csum && !granted.tso4 && granted.queues == 1);
}

#[test]
fn reading_nothing_and_writing_while_down_are_not_fatal() {
    let world = World::new();
    let queue = world
        .run(|| Tap::open(&OPTIONS).unwrap())
        .take_queues()
        .remove(0);
    let mut buffer = [0; 2048];
    assert_eq!(
        queue.write(&buffer[..100]).unwrap_err().raw_os_error(),
        Some(nix::libc::EIO)
    );
    let mut netlink = world.netlink();
    let index = netlink.link("tap0").unwrap().unwrap().index;
    netlink.set_no_link_local(index).unwrap();
    netlink.set_up(index).unwrap();
    assert_eq!(
        queue.read(&mut buffer).unwrap_err().kind(),
        ErrorKind::WouldBlock
    );
    assert_eq!(queue.write(&buffer[..100]).unwrap(), 100);
}

#[test]
fn errors_say_what_to_do() {
    let world = World::new();
    let _tap = world.run(|| Tap::open(&OPTIONS).unwrap());
    world
        .netlink()
        .add_bridge("weft", &BridgeOptions::default())
        .unwrap();
    let error = |options: TapOptions<'_>| world.run(|| Tap::open(&options).unwrap_err());
    let taken = error(TapOptions {
        name: "weft",
        ..OPTIONS
    });
    assert!(matches!(taken, TapError::NameTaken { .. }), "{taken:?}");
    let used = error(OPTIONS);
    assert!(matches!(used, TapError::InUse { .. }), "{used:?}");
    let bad = error(TapOptions {
        name: "much-too-long-name",
        ..OPTIONS
    });
    assert!(matches!(bad, TapError::BadName { .. }), "{bad:?}");
    for error in [taken, used] {
        assert!(error.to_string().contains("--tap"), "{error}");
    }
}

/// Two TAPs whose frames are carried from one to the other: the kernel's TCP sends super-frames into
/// the one, and takes them from the other.
#[test]
fn super_frames_are_read_and_written_back() {
    for (a_net, b_net, gso) in [
        ("10.9.0.1/24", "10.9.0.2/24", GSO_TCPV4),
        ("fd09::1/64", "fd09::2/64", GSO_TCPV6),
    ] {
        let (a, b) = (World::new(), World::new());
        let (a_queue, b_queue) = (up(&a, a_net), up(&b, b_net));
        let listener = b.run(|| TcpListener::bind(SocketAddr::new(net(b_net).addr(), 7)).unwrap());
        let server = listener.local_addr().unwrap();
        let done = AtomicBool::new(false);
        let supers = thread::scope(|scope| {
            let wire = scope.spawn(|| carry(&a_queue, &b_queue, gso, &done));
            let sent: Vec<u8> = (0..4_000_000u32)
                .map(|i| i.to_le_bytes()[(i % 3) as usize])
                .collect();
            let mut client =
                a.run(|| TcpStream::connect_timeout(&server, Duration::from_secs(5)).unwrap());
            let (mut accepted, _) = listener.accept().unwrap();
            let copy = sent.clone();
            let writer = scope.spawn(move || client.write_all(&copy).unwrap());
            let mut received = Vec::new();
            accepted
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let result = accepted.read_to_end(&mut received);
            done.store(true, Ordering::Relaxed);
            writer.join().unwrap();
            result.unwrap();
            assert!(
                received == sent,
                "{} of {} bytes",
                received.len(),
                sent.len()
            );
            wire.join().unwrap()
        });
        assert!(supers > 0, "no super-frame of kind {gso}");
    }
}

#[test]
fn a_udp_train_is_read_whole_where_the_kernel_can() {
    let world = World::new();
    let queue = up(&world, "10.9.0.1/24");
    let granted = world
        .run(|| {
            Tap::open(&TapOptions {
                name: "other",
                ..OPTIONS
            })
            .unwrap()
        })
        .capabilities();
    assert!(granted.uso, "Linux 6.2 and later have USO: {granted:?}");
    let socket =
        world.run(|| UdpSocket::bind(&UdpOptions::new("10.9.0.1:0".parse().unwrap())).unwrap());
    // Nobody answers for it.
    let mut netlink = world.netlink();
    let index = netlink.link("tap0").unwrap().unwrap().index;
    let (peer, mac) = (ip("10.9.0.2"), Mac([2, 0, 0, 0, 0, 2]));
    netlink.add_neighbour(index, peer, mac).unwrap();
    let known = netlink.neighbours(index).unwrap();
    let wanted = Neighbour {
        address: peer,
        mac,
        state: NeighbourState::Permanent,
    };
    assert!(known.contains(&wanted), "{known:?}");
    socket
        .send_train(SocketAddr::new(peer, 9), &[7; 3500], 1000)
        .unwrap();
    let mut buffer = vec![0; 70_000];
    let len = wait_for("the train", || {
        let len = queue.read(&mut buffer).ok()?;
        (buffer[1] == GSO_UDP_L4).then_some(len)
    });
    assert_eq!(len, VNET_HDR_LEN + 14 + 20 + 8 + 3500);
    assert_eq!(u16::from_ne_bytes([buffer[4], buffer[5]]), 1000);
}

/// The one queue of a TAP that is up, with an address.
fn up(world: &World, address: &str) -> TapQueue {
    let queue = world
        .run(|| Tap::open(&OPTIONS).unwrap())
        .take_queues()
        .remove(0);
    let mut netlink = world.netlink();
    let index = netlink.link("tap0").unwrap().unwrap().index;
    netlink.add_address(index, net(address)).unwrap();
    netlink.set_up(index).unwrap();
    queue
}

/// Carries frames both ways until done, and returns how many were super-frames of this kind.
fn carry(a: &TapQueue, b: &TapQueue, gso: u8, done: &AtomicBool) -> usize {
    let mut buffer = vec![0; 70_000];
    let mut supers = 0;
    while !done.load(Ordering::Relaxed) {
        let mut fds = [a, b].map(|queue| PollFd::new(queue.as_fd(), PollFlags::POLLIN));
        poll(&mut fds, Some(Duration::from_millis(20))).unwrap();
        for (from, to) in [(a, b), (b, a)] {
            while let Ok(len) = from.read(&mut buffer) {
                supers += usize::from(len > 2000 && buffer[1] & 0x7f == gso);
                assert_eq!(to.write(&buffer[..len]).unwrap(), len);
            }
        }
    }
    supers
}
