//! A flood of handshakes: nobody can make a node compute without end, nor keep members out.

use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use hostnet::netlink::Netlink;
use mesh::{
    MAX_DATAGRAM, Psk, Secrets, SessionConfig, SessionInput, SessionOutput, SessionTiming, Sessions,
};
use nix::sys::signal::Signal;
use router::identity::Identity;
use router::lab::layout::IFNAME;
use router::lab::world::World;
use wire::sleeve::{Header, Kind};

use crate::cluster::{Stranger, assert_all_reach, cluster, counter, eventually};
use crate::encrypted::{Password, is_up, status};
use crate::flow::Flow;

/// Addresses and ports that it comes from.
const SOURCES: u8 = 64;
/// Handshakes that are made beforehand, each of another node.
const MESSAGES: u8 = 200;
/// Datagrams in a burst, and the time between two: 4000 a second.
const BURST: usize = 40;
const PAUSE: Duration = Duration::from_millis(10);
/// Initiations a second that a node looks at without a cookie, and at first as many at once.
const LOOKED_AT: u64 = 200;

/// The first message of a handshake as a node with another password makes it: whole, for this node, and
/// signed as by all who know its public key.
fn initiation(to: &Identity, number: u8) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let Identity {
        public,
        private,
        id,
    } = Identity::load_or_create(dir.path()).unwrap();
    let config = SessionConfig {
        id,
        secrets: Secrets {
            private,
            public,
            passwords: vec![Psk::new([number; 32])],
        },
        start: 1,
        ciphers: Vec::new(),
        aggregates: true,
        allowed: None,
        seed: [number; 32],
        timing: SessionTiming::default(),
        peers: 1,
    };
    let now = Duration::ZERO;
    let mut sessions = Sessions::new(config, now);
    let peer = SessionInput::Peer {
        id: to.id,
        public: to.public,
    };
    sessions.handle(peer, now);
    sessions.handle(SessionInput::Want(to.id), now);
    let Some(SessionOutput::Send { message, .. }) = sessions.poll_output() else {
        panic!("nothing is sent");
    };
    assert_eq!(message.len(), MAX_DATAGRAM);
    let header = Header {
        kind: Kind::HANDSHAKE,
        ..Header::plain(id, to.id)
    };
    [&header.bytes()[..], &message].concat()
}

/// A machine on the underlay that has many addresses, and a socket at each.
fn sources(world: &World) -> (Stranger, Vec<UdpSocket>) {
    let stranger = Stranger::join(world, 100);
    let mut netlink = Netlink::open_in(&stranger.netns).unwrap();
    let link = netlink.link(IFNAME).unwrap().unwrap().index;
    let hosts = (0..SOURCES).map(|n| 101 + n);
    let sockets = hosts.map(|host| {
        let address = format!("10.99.0.{host}/24").parse().unwrap();
        netlink.add_address(link, address).unwrap();
        let bind = || UdpSocket::bind(SocketAddr::from(([10, 99, 0, host], 0))).unwrap();
        stranger.netns.run(bind).unwrap()
    });
    let sockets = sockets.collect();
    (stranger, sockets)
}

#[test]
fn a_flood_of_handshakes_is_answered_with_cookies_and_stops_nobody() {
    let password = Password::new("a long password for tests\n");
    let mut world = cluster(3, 1, &password.args());
    let layout = world.nodes[0].layout.clone();
    let target = Identity::load_or_create(&layout.state_dir).unwrap();
    let messages: Vec<_> = (0..MESSAGES).map(|n| initiation(&target, n)).collect();
    let (_stranger, sockets) = sources(&world);
    world.end_router(2, Signal::SIGTERM).unwrap();
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    flow.goes_on("at first");
    let before = status(&world, 0);

    let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
    let began = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let to = SocketAddr::from((layout.address, 6783));
            let pairs = messages.iter().cycle().zip(sockets.iter().cycle());
            for (number, (message, socket)) in pairs.enumerate() {
                if number % BURST == 0 {
                    std::thread::sleep(PAUSE);
                    if stop.load(Relaxed) {
                        break;
                    }
                }
                // A full buffer on the way is a datagram less.
                sent.fetch_add(u64::from(socket.send_to(message, to).is_ok()), Relaxed);
            }
        });
        let grown = |name: &str| counter(&status(&world, 0), name) - before.counters[name];
        eventually("there is a flood", || {
            grown("handshake_cookies_sent") > 2000
        });
        // The third has no session with anybody, and gets one in the middle of it.
        world.start_router_again(2, &[]).unwrap();
        eventually("a member gets in", || {
            is_up(&world, 2, 0) && is_up(&world, 0, 2) && is_up(&world, 2, 1)
        });
        assert_all_reach(&world);
        flow.goes_on("in the flood");
        stop.store(true, Relaxed);
    });
    let (sent, elapsed) = (sent.load(Relaxed), began.elapsed());
    let after = status(&world, 0);
    let grown = |name: &str| counter(&after, name) - before.counters[name];
    let computed = grown("handshake_other_password");
    let most = LOOKED_AT * (elapsed.as_secs() + 2);
    assert!(computed <= most, "{computed} of {sent}, not {most}");
    let cookies = grown("handshake_cookies_sent");
    assert!(cookies > computed, "{cookies} cookies for {sent}");
    assert!(sent > 2 * most.min(2000), "{sent}");
    // Nobody is remembered for it.
    assert_eq!(after.sessions.len(), 2);
    flow.end();
}
