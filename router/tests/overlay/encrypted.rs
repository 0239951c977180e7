//! With a password, what crosses the underlay says nothing of the pods, and nothing gets in that a
//! member has not sealed.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use control::{Encapsulation, PeerState, Status};
use nix::sys::signal::Signal;
use router::lab::layout::IFNAME;
use router::lab::world::World;
use wire::Mac;
use wire::ethernet::header;
use wire::sleeve::{self, Kind};

use crate::cluster::{
    Stranger, assert_all_reach, cluster, counter, eventually, packets, pings, receive, v4,
};
use crate::flow::Flow;
use crate::relay::{move_behind_nat, part, relayed_by, way};

/// Bytes that no other traffic carries.
pub(crate) const MARK: &[u8] = b"weft-test-pods-secret-bytes";
/// The local experimental ethertypes.
const MARKED: u16 = 0x88b5;
const NUMBERED: u16 = 0x88b6;
const DIRECT: Option<(Encapsulation, Option<String>)> = Some((Encapsulation::Sleeve, None));

/// A password file that is gone with the test.
pub(crate) struct Password {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Password {
    pub(crate) fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let password = Self { _dir: dir, path };
        password.write(text);
        password
    }

    fn write(&self, text: &str) {
        let new = self.path.with_extension("new");
        fs::File::create(&new)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, &self.path).unwrap();
    }

    pub(crate) fn args(&self) -> [&str; 2] {
        ["--password-file", self.path.to_str().unwrap()]
    }
}

/// Sends marked frames from the first pod to the last, by unicast and to all.
pub(crate) fn send_marks(world: &World) {
    let (from, to) = (&world.pods[0], world.pods.last().unwrap());
    let socket = packets(&from.netns, IFNAME);
    for dst in [to.mac, Mac::BROADCAST] {
        let mut frame = header(dst, from.mac, MARKED).to_vec();
        for _ in 0..4 {
            frame.extend(MARK);
        }
        socket.send(&frame).unwrap();
    }
}

/// What crosses a node's underlay interface while `during` runs.
pub(crate) fn capture(
    world: &mut World,
    node: usize,
    during: impl FnOnce(&mut World),
) -> Vec<Vec<u8>> {
    let mut socket = packets(&world.nodes[node].netns, IFNAME);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let capturing = scope.spawn(|| {
            let mut frames = Vec::new();
            while !stop.load(Relaxed) {
                if let Some(packet) = socket.recv(Duration::from_millis(100)).unwrap() {
                    frames.push(packet.bytes.to_vec());
                }
            }
            frames
        });
        during(world);
        std::thread::sleep(Duration::from_millis(300));
        stop.store(true, Relaxed);
        capturing.join().unwrap()
    })
}

pub(crate) fn holding(frames: &[Vec<u8>], text: &[u8]) -> usize {
    let has = |frame: &&Vec<u8>| frame.windows(text.len()).any(|bytes| bytes == text);
    frames.iter().filter(has).count()
}

pub(crate) fn status(world: &World, node: usize) -> Status {
    world.nodes[node].status().unwrap()
}

/// Whether the link from one node to another is open.
pub(crate) fn is_up(world: &World, from: usize, to: usize) -> bool {
    let name = &world.nodes[to].layout.name;
    world.nodes[from].status().is_ok_and(|status| {
        let mut peers = status.peers.iter();
        peers.any(|peer| peer.name == *name && peer.state == PeerState::Up)
    })
}

/// The pods talk while routers start, run, restart and stop.
fn live(world: &mut World) {
    let marks = |world: &World, times: u32| {
        for _ in 0..times {
            send_marks(world);
            std::thread::sleep(Duration::from_millis(25));
        }
    };
    // From before the first router, to after the last.
    for node in [0, 1] {
        world.end_router(node, Signal::SIGTERM).unwrap();
    }
    marks(world, 4);
    for node in [0, 1] {
        world.start_router_again(node, &[]).unwrap();
        marks(world, 10);
    }
    eventually("the routers find each other", || {
        send_marks(world);
        is_up(world, 0, 1) && is_up(world, 1, 0)
    });
    assert_all_reach(world);
    marks(world, 60);
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        world.end_router(1, signal).unwrap();
        marks(world, 10);
        world.start_router_again(1, &[]).unwrap();
        marks(world, 20);
        eventually("the routers find each other again", || {
            send_marks(world);
            is_up(world, 0, 1) && is_up(world, 1, 0)
        });
        assert_all_reach(world);
    }
    marks(world, 10);
    for node in [0, 1] {
        world.end_router(node, Signal::SIGTERM).unwrap();
        marks(world, 4);
    }
    for node in [0, 1] {
        world.start_router_again(node, &[]).unwrap();
    }
    eventually("all is well in the end", || {
        is_up(world, 0, 1) && is_up(world, 1, 0)
    });
}

#[test]
fn i4_nothing_of_a_pod_is_readable_on_the_underlay() {
    let password = Password::new("a long password for tests\n");
    let [flag, path] = password.args();
    let mut world = cluster(2, 1, &[flag, path, "--rekey-interval", "1s"]);
    let frames = capture(&mut world, 0, live);
    assert!(frames.len() > 100, "{} frames crossed", frames.len());
    assert_eq!(holding(&frames, MARK), 0);
    // Nor the address of a pod's interface, nor a name: control is sealed too.
    for pod in &world.pods {
        assert_eq!(holding(&frames, &pod.mac.0), 0);
    }
    let name = world.nodes[1].layout.name.clone();
    assert_eq!(holding(&frames, name.as_bytes()), 0);

    let status = status(&world, 0);
    assert!(status.overlay.encrypted);
    assert_eq!((status.overlay.mtu, status.sessions.len()), (1414, 1));
    assert_eq!(status.node.fingerprint[..16], status.node.id.to_string());
    assert_eq!(counter(&status, "drop_plain_refused"), 0);
    let identity = Path::new(&status.node.state_dir).join("identity.key");
    let mode = fs::metadata(identity).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

/// The same way of looking finds them where there is no password.
#[test]
fn without_a_password_the_same_bytes_are_found() {
    let mut world = cluster(2, 1, &[]);
    let frames = capture(&mut world, 0, live);
    assert!(holding(&frames, MARK) > 0);
    assert!(holding(&frames, &world.pods[1].mac.0) > 0);
    let name = world.nodes[1].layout.name.clone();
    assert!(holding(&frames, name.as_bytes()) > 0);
    assert!(!status(&world, 0).overlay.encrypted);
}

/// Keys change twenty times under a steady stream: every frame arrives, and arrives once.
#[test]
fn no_frame_is_lost_when_keys_are_replaced() {
    let password = Password::new("a long password for tests\n");
    let [flag, path] = password.args();
    let world = cluster(2, 1, &[flag, path, "--rekey-interval", "1s"]);
    let (from, to) = (&world.pods[0], &world.pods[1]);
    assert!(pings(&from.netns, v4(to), 56));
    let sending = packets(&from.netns, IFNAME);
    let mut receiving = packets(&to.netns, IFNAME);
    let before = counter(&status(&world, 0), "handshake_completed")
        + counter(&status(&world, 1), "handshake_completed");
    let rotations = || {
        let completed = |node| counter(&status(&world, node), "handshake_completed");
        completed(0) + completed(1) - before
    };
    let (mut sent, mut seen) = (0_u32, BTreeSet::new());
    let source = from.mac.0;
    let mut take = |patience| {
        let ours = |frame: &[u8]| frame[12..14] == NUMBERED.to_be_bytes() && frame[6..12] == source;
        let frame = receive(&mut receiving, patience, ours);
        frame.map(|frame| {
            let number = u32::from_be_bytes(*frame[14..].first_chunk().unwrap());
            assert!(seen.insert(number), "{number} arrived twice");
        })
    };
    let end = Instant::now() + Duration::from_secs(40);
    while rotations() < 5 {
        assert!(Instant::now() < end, "{} rotations", rotations());
        for _ in 0..200 {
            let mut frame = header(to.mac, from.mac, NUMBERED).to_vec();
            frame.extend(sent.to_be_bytes());
            frame.extend([0; 100]);
            sending.send(&frame).unwrap();
            sent += 1;
            while take(Duration::from_millis(1)).is_some() {}
        }
    }
    while take(Duration::from_secs(1)).is_some() {}
    let lost: Vec<_> = (0..sent).filter(|number| !seen.contains(number)).collect();
    assert_eq!(lost, [0_u32; 0], "of {sent}");
    for node in [0, 1] {
        for (name, value) in status(&world, node).counters {
            let failed = name.starts_with("drop_seal") && name != "drop_seal_no_session";
            assert!(!failed || value == 0, "{name} {value}");
        }
    }
}

/// Frames that come in bursts share datagrams: all arrive, once and in their order.
#[test]
fn frames_of_a_burst_share_datagrams_and_arrive_in_order() {
    let password = Password::new("a long password for tests\n");
    let world = cluster(2, 1, &password.args());
    let (from, to) = (&world.pods[0], &world.pods[1]);
    assert!(pings(&from.netns, v4(to), 56));
    let sending = packets(&from.netns, IFNAME);
    let mut receiving = packets(&to.netns, IFNAME);
    let source = from.mac.0;
    let mut next = 0_u32;
    for _ in 0..100 {
        for number in next..next + 100 {
            let mut frame = header(to.mac, from.mac, NUMBERED).to_vec();
            frame.extend(number.to_be_bytes());
            frame.extend([0; 50]);
            sending.send(&frame).unwrap();
        }
        for number in next..next + 100 {
            let ours =
                |frame: &[u8]| frame[12..14] == NUMBERED.to_be_bytes() && frame[6..12] == source;
            let frame = receive(&mut receiving, Duration::from_secs(5), ours);
            let frame = frame.unwrap_or_else(|| panic!("{number} did not arrive"));
            assert_eq!(frame[14..18], number.to_be_bytes());
        }
        next += 100;
    }
    let shared = counter(&status(&world, 1), "rx_aggregates");
    assert!((1..5_000).contains(&shared), "{shared}");
}

/// What a relay passes on it cannot read, and pods that talk through it do so like others.
#[test]
fn i4_a_relay_forwards_what_it_cannot_read() {
    let password = Password::new("a long password for tests\n");
    let mut world = cluster(3, 1, &password.args());
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    flow.goes_on("directly");
    part(&world, 0, 2, "");
    eventually("both relay through the second", || {
        let through = relayed_by(&world, 1);
        way(&world, 0, 2) == through && way(&world, 2, 0) == through
    });
    flow.goes_on("through the relay");
    // The restarted node makes its session with the far one through the relay alone.
    let frames = capture(&mut world, 1, |world| {
        world.end_router(0, Signal::SIGKILL).unwrap();
        send_marks(world);
        world.start_router_again(0, &[]).unwrap();
        eventually("the relay is found again", || {
            send_marks(world);
            let through = relayed_by(world, 1);
            way(world, 0, 2) == through && way(world, 2, 0) == through
        });
        assert_all_reach(world);
        send_marks(world);
    });
    flow.goes_on("through the relay again");
    flow.end();
    assert!(counter(&status(&world, 1), "relayed_datagrams") > 0);
    assert_eq!(holding(&frames, MARK), 0);
    assert_eq!(holding(&frames, &world.pods[2].mac.0), 0);
}

/// Through NAT sessions are made, and kept, as links are.
#[test]
fn a_node_behind_nat_has_sessions_with_all() {
    let password = Password::new("a long password for tests\n");
    let [flag, path] = password.args();
    let mut world = cluster(3, 1, &[flag, path, "--rekey-interval", "2s"]);
    world.end_router(2, Signal::SIGKILL).unwrap();
    let gateway = move_behind_nat(&world, 2, 77);
    world.start_router_again(2, &[]).unwrap();
    eventually("all reach the third and it reaches them", || {
        [(0, 2), (1, 2), (2, 0), (2, 1)]
            .iter()
            .all(|&(a, b)| way(&world, a, b) == DIRECT)
    });
    assert_all_reach(&world);
    let flow = Flow::start(&world.pods[0], &world.pods[2]);
    let replaced = counter(&status(&world, 2), "handshake_answered")
        + counter(&status(&world, 2), "handshake_completed");
    eventually("keys are replaced", || {
        let status = status(&world, 2);
        let now = counter(&status, "handshake_answered") + counter(&status, "handshake_completed");
        now > replaced + 4
    });
    flow.goes_on("with new keys");
    flow.end();
    drop(gateway);
}

/// Who has another password, or none, is refused, and both sides say why.
#[test]
fn mixed_networks_are_refused_by_both_sides() {
    let (one, other) = (
        Password::new("a long password for tests\n"),
        Password::new("quite another password\n"),
    );
    let mut world = cluster(2, 1, &[]);
    for (of_second, why) in [
        (None, "give all nodes the same"),
        (Some(&other), "the password differs"),
    ] {
        for (node, password) in [(0, Some(&one)), (1, of_second)] {
            world.end_router(node, Signal::SIGTERM).unwrap();
            let args = password.map(Password::args);
            let args = args.as_ref().map_or(&[][..], |args| &args[..]);
            world.start_router_again(node, args).unwrap();
        }
        eventually("both say why", || {
            [0, 1].iter().all(|&node| {
                world.nodes[node].status().is_ok_and(|status| {
                    let mut conditions = status.conditions.iter();
                    conditions.any(|condition| condition.message.contains(why))
                })
            })
        });
        for _ in 0..10 {
            send_marks(&world);
        }
        assert!(!is_up(&world, 0, 1) && !is_up(&world, 1, 0));
        assert!(!pings(&world.pods[0].netns, v4(&world.pods[1]), 56));
        for node in [0, 1] {
            let peers = status(&world, node).peers;
            let known = peers.iter().any(|peer| peer.id.is_some());
            assert!(!known, "a stranger's name or identity is known: {peers:?}");
        }
    }
}

/// A password is not enough where members are named.
#[test]
fn a_node_that_is_not_named_is_refused_though_it_has_the_password() {
    let password = Password::new("a long password for tests\n");
    let mut world = cluster(2, 1, &password.args());
    let [first, second] = [0, 1].map(|node| status(&world, node).node.fingerprint);
    world.end_router(0, Signal::SIGTERM).unwrap();
    let allowed = ["--allow-identity", second.as_str()];
    world.start_router_again(0, &allowed).unwrap();
    eventually("those who are named meet", || {
        is_up(&world, 0, 1) && is_up(&world, 1, 0)
    });
    world.end_router(0, Signal::SIGTERM).unwrap();
    world.end_router(1, Signal::SIGTERM).unwrap();
    world
        .start_router_again(0, &["--allow-identity", first.as_str()])
        .unwrap();
    world.start_router_again(1, &[]).unwrap();
    eventually("both say why", || {
        [0, 1].iter().all(|&node| {
            world.nodes[node].status().is_ok_and(|status| {
                let mut conditions = status.conditions.iter();
                conditions.any(|condition| condition.message.contains("--allow-identity"))
            })
        })
    });
    assert!(!is_up(&world, 0, 1) && !is_up(&world, 1, 0));
}

/// From one password to the next while a flow goes on.
#[test]
fn the_password_is_replaced_without_an_outage() {
    let files = [
        Password::new("the old password of tests\n"),
        Password::new("the old password of tests\n"),
    ];
    let mut world = cluster(2, 1, &[]);
    for (node, file) in files.iter().enumerate() {
        world.end_router(node, Signal::SIGTERM).unwrap();
        let [flag, path] = file.args();
        let args = [flag, path, "--rekey-interval", "1s"];
        world.start_router_again(node, &args).unwrap();
    }
    eventually("they meet", || is_up(&world, 0, 1) && is_up(&world, 1, 0));
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    let began = Instant::now();
    for text in [
        "the old password of tests\nthe new password of tests\n",
        "the new password of tests\nthe old password of tests\n",
        "the new password of tests\n",
    ] {
        for file in &files {
            file.write(text);
            // Read every five seconds; the two need not do it together.
            std::thread::sleep(Duration::from_millis(6500));
            flow.goes_on("between two steps");
        }
    }
    let elapsed = began.elapsed().as_secs();
    for node in [0, 1] {
        let since = status(&world, node).peers[0].since_secs;
        assert!(
            since >= elapsed,
            "the link is up for {since} s of {elapsed}"
        );
    }
    assert!(is_up(&world, 0, 1) && is_up(&world, 1, 0));
    flow.end();
}

/// Whatever a stranger sends changes nothing but counters.
#[test]
fn what_is_replayed_forged_or_cut_changes_nothing() {
    let password = Password::new("a long password for tests\n");
    let mut world = cluster(2, 1, &password.args());
    let frames = capture(&mut world, 1, |world| {
        for _ in 0..20 {
            send_marks(world);
            // The frames of one burst share datagrams.
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_all_reach(world);
    });
    // Behind the headers of Ethernet, IPv4 and UDP.
    let to = world.nodes[1].layout.address;
    let sealed: Vec<&[u8]> = frames
        .iter()
        .filter(|frame| frame.len() > 42 && frame[30..34] == to.octets())
        .map(|frame| &frame[42..])
        .filter(|datagram| {
            sleeve::parse(datagram)
                .is_ok_and(|(header, _)| [Kind::SEALED, Kind::AGGREGATE].contains(&header.kind))
        })
        .collect();
    assert!(sealed.len() > 10, "{} datagrams", sealed.len());

    let stranger = Stranger::join(&world, 200);
    let socket = stranger
        .netns
        .run(|| UdpSocket::bind("0.0.0.0:0"))
        .unwrap()
        .unwrap();
    let target = SocketAddr::from((to, 6783));
    let send = |bytes: &[u8]| {
        // An empty buffer of the receiver's is a datagram less, which the counters tell.
        socket.send_to(bytes, target).unwrap();
    };
    let peer = |world: &World| status(world, 1).peers[0].address;
    // From a peer that is silent, what cannot be opened is a reason to make a session.
    let flow = Flow::start(&world.pods[0], &world.pods[1]);
    std::thread::sleep(Duration::from_secs(2));
    flow.goes_on("at first");
    let (before, address) = (status(&world, 1), peer(&world));
    for datagram in &sealed {
        send(datagram);
        let mut flipped = datagram.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        // A counter that was not seen yet, or it counts as a replay.
        flipped[20..28].copy_from_slice(&(1_u64 << 30).to_be_bytes());
        send(&flipped);
        let mut renamed = datagram.to_vec();
        renamed[2] ^= 0x55;
        send(&renamed);
        let mut plain = datagram.to_vec();
        plain[0] = Kind::PLAIN.0;
        plain[2..4].fill(0);
        send(&plain);
        send(&datagram[..40]);
        send(&datagram[..19]);
        let mut handshake = datagram.to_vec();
        handshake[0] = Kind::HANDSHAKE.0;
        send(&handshake);
        let mut unknown = datagram.to_vec();
        unknown[4] ^= 0xff;
        send(&unknown);
    }
    let grown = |name: &str| {
        eventually(name, || {
            let now = counter(&status(&world, 1), name);
            now >= before.counters[name] + sealed.len() as u64 / 2
        });
    };
    for name in [
        "drop_seal_replayed",
        "drop_seal_bad_tag",
        "drop_seal_unknown_epoch",
        "drop_plain_refused",
        "drop_seal_truncated",
        "drop_sleeve_truncated",
        "drop_seal_no_session",
        "handshake_malformed",
    ] {
        grown(name);
    }
    flow.goes_on("all the same");
    flow.end();
    assert_eq!(peer(&world), address, "the peer has moved");
    let after = status(&world, 1);
    assert_eq!(
        counter(&after, "handshake_completed") + counter(&after, "handshake_answered"),
        counter(&before, "handshake_completed") + counter(&before, "handshake_answered"),
        "a session was made anew"
    );
    assert!(is_up(&world, 0, 1) && is_up(&world, 1, 0));
}
