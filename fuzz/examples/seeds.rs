//! Writes the seeds of all targets, as the crates themselves make them: `cargo run --example seeds`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use mesh::{
    Channel, Config, ConnId, Entry, Groups, Hello, Input, Mesh, Output, Psk, Reach, Sealed,
    Secrets, SessionConfig, SessionInput, SessionOutput, SessionTiming, Sessions, Side,
};
use wire::probe::{Probe, ProbeKind};
use wire::sleeve::Header;
use wire::{Mac, PeerId, Vni, arp, checksum, ethernet, ndp, vxlan};

const ME: PeerId = PeerId([0xee; 8]);
const PEER: PeerId = PeerId([1; 8]);
const POD: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn main() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let dir = seeds.join(target);
        fs::create_dir_all(&dir).expect("the directory can be made");
        fs::write(dir.join(name), bytes).expect("the file can be written");
    };
    for (name, frame) in frames() {
        write("wire", name, &frame);
        let read = [&[0; 10][..], &frame].concat();
        for how in 0..4 {
            let length = u16::try_from(read.len()).expect("it is short");
            let input = [&[how][..], &length.to_be_bytes(), &read].concat();
            write("egress", &format!("{name}-{how}"), &input);
        }
        let in_vxlan = [&vxlan::header(Vni::DEFAULT)[..], &frame].concat();
        let in_sleeve = [&Header::plain(PEER, ME).bytes()[..], &frame].concat();
        let onward = [&Header::plain(PEER, PeerId([3; 8])).bytes()[..], &frame].concat();
        write(
            "ingress",
            &format!("{name}-vxlan"),
            &[&[8, 0, 0], &in_vxlan[..]].concat(),
        );
        write(
            "ingress",
            &format!("{name}-trusted"),
            &[&[9, 0, 0], &in_vxlan[..]].concat(),
        );
        write(
            "ingress",
            &format!("{name}-sleeve"),
            &[&[10, 0, 0], &in_sleeve[..]].concat(),
        );
        write(
            "ingress",
            &format!("{name}-relayed"),
            &[&[10, 0, 0], &onward[..]].concat(),
        );
        write(
            "ingress",
            &format!("{name}-sealed"),
            &[&[64 | 16 | 3, 0, 0], &frame[..]].concat(),
        );
        let length = u16::try_from(frame.len())
            .expect("it is short")
            .to_be_bytes();
        let part = [&length[..], &frame].concat();
        write(
            "ingress",
            &format!("{name}-aggregate"),
            &[&[128 | 64 | 16 | 3, 0, 0], &part[..], &part, &[0; 7]].concat(),
        );
    }
    // A train of segments that are joined, and the super-frame that it is cut from.
    let segments: Vec<Vec<u8>> = (0..3).map(|i| tcp(1 + i * 100, 100)).collect();
    let datagrams = segments
        .iter()
        .map(|frame| [&vxlan::header(Vni::DEFAULT)[..], frame].concat());
    let run: Vec<Vec<u8>> = datagrams.collect();
    let length = u16::try_from(run[0].len())
        .expect("it is short")
        .to_be_bytes();
    write(
        "ingress",
        "train",
        &[&[8, length[0], length[1]], &run.concat()[..]].concat(),
    );
    let whole = tcp(1, 3000);
    // NEEDS_CSUM, TCP over IPv4, headers of 54 bytes, segments of 1000, checksum at 34 + 16.
    let header = [1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0];
    let read = [&header[..], &whole].concat();
    let length = u16::try_from(read.len())
        .expect("it is short")
        .to_be_bytes();
    for how in 0..4 {
        let input = [&[how][..], &length, &read].concat();
        write("egress", &format!("super-frame-{how}"), &input);
    }
    let size = 68;
    let request = Probe {
        kind: ProbeKind::Request,
        size,
        source: PEER,
        destination: ME,
        run: 1,
        nonce: 2,
    };
    let kind = ProbeKind::Reply {
        observed: SocketAddr::from(([192, 0, 2, 1], 6783)),
        plain: true,
    };
    for (name, probe) in [("request", request), ("reply", Probe { kind, ..request })] {
        write("links", name, &[&[1][..], &probe.frame()].concat());
        write(
            "links",
            &format!("{name}-vxlan"),
            &[&[2][..], &probe.frame()].concat(),
        );
        write(
            "links",
            &format!("{name}-body"),
            &[&[9][..], &probe.frame()[14..]].concat(),
        );
    }
    write("entry", "entry", Sealed::new(entry()).bytes());
    write("entry", "target", b"node-1.example:6783");
    let greeting = greeting();
    write("control", "hello", &[&[0][..], &greeting[8..]].concat());
    let told = [&[10, 0, 0][..], Sealed::new(entry()).bytes()].concat();
    write(
        "control",
        "entries",
        &[&[1][..], &framed(10, &body_of_entries())].concat(),
    );
    write("control", "entries-body", &[&[3][..], &told].concat());
    for kind in [2, 7, 8, 11, 12, 13, 14, 15, 16, 17, 18] {
        let body = [kind; 24];
        write(
            "control",
            &format!("kind-{kind}"),
            &[&[1][..], &framed(kind, &body)].concat(),
        );
    }
    for (side, how) in [(Side::Dialled, 0xfc), (Side::Accepted, 0xfd)] {
        let said = channel(side);
        let name = if how & 1 == 0 { "dialled" } else { "accepted" };
        write("channel", name, &[&[how][..], &said[8..]].concat());
    }
    write(
        "channel",
        "refusal",
        &[&[0xfc][..], &framed(2, b"\x08\x07\x12\x02no")].concat(),
    );
    let initiation = initiation();
    for how in 0..4 {
        write(
            "handshake",
            &format!("initiation-{how}"),
            &[&[how][..], &initiation].concat(),
        );
    }
    for (name, kind, len) in [("response", 2, 91), ("cookie", 3, 52)] {
        let mut message = vec![0; len];
        message[0] = kind;
        write("handshake", name, &[&[2][..], &message].concat());
    }
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let v4 = Ipv4Addr::new(10, 32, 0, 7);
    vec![
        ("arp", arp::announcement(POD, v4).to_vec()),
        ("na", ndp::unsolicited_na(POD, v4.to_ipv6_mapped()).to_vec()),
        (
            "igmp",
            wire::membership::igmp_general_query(POD, 10, 125).to_vec(),
        ),
        (
            "mld",
            wire::membership::mld_general_query(POD, 10, 125).to_vec(),
        ),
        ("tcp", tcp(1, 20)),
        ("vlan", {
            let mut frame = tcp(1, 20);
            frame.splice(12..12, [0x81, 0, 0, 7]);
            frame
        }),
    ]
}

/// A segment of a flow, its checksums right.
fn tcp(sequence: u32, len: usize) -> Vec<u8> {
    let (from, to) = (Ipv4Addr::new(10, 32, 0, 7), Ipv4Addr::new(10, 32, 0, 8));
    let mut ip = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0];
    ip.extend(from.octets().iter().chain(&to.octets()));
    let total = u16::try_from(40 + len).expect("it is short");
    ip[2..4].copy_from_slice(&total.to_be_bytes());
    let sum = checksum::checksum(&ip);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    let mut segment = vec![0x9c, 0x40, 0, 80];
    segment.extend(sequence.to_be_bytes());
    segment.extend([0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    segment.resize(20 + len, 7);
    let pseudo = checksum::pseudo_header_v4(from, to, 6, total - 20);
    let sum = !checksum::fold(checksum::sum(pseudo, &segment));
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    let header = ethernet::header(Mac([2, 0, 0, 0, 0, 8]), POD, 0x0800);
    [&header[..], &ip, &segment].concat()
}

fn entry() -> Entry {
    Entry {
        id: PEER,
        version: 3,
        run: 1,
        left: false,
        name: "n1".parse().expect("a name"),
        public_key: [1; 32],
        addresses: vec![SocketAddr::from(([192, 0, 2, 1], 6783))],
        vxlan_port: 6784,
        sleeve_port: 6783,
        sleeve_seen: None,
        mtu: 1450,
        software: "0.1.0".to_owned(),
        neighbours: vec![PeerId([9; 8])],
        reach: Reach::default(),
        groups: Groups::All,
    }
}

/// `docs/wire-format.md`: idle 4, length 2, the entry.
fn body_of_entries() -> Vec<u8> {
    let entry = Sealed::new(entry());
    let length = u16::try_from(entry.bytes().len()).expect("it is short");
    [&[0; 4][..], &length.to_be_bytes(), entry.bytes()].concat()
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 1).expect("it is short");
    [&length.to_be_bytes()[..], &[kind], body].concat()
}

/// What a node says first.
fn greeting() -> Vec<u8> {
    let me = Hello {
        id: PEER,
        name: "n1".parse().expect("a name"),
        public_key: [1; 32],
        run: 1,
        control_port: 6783,
        vxlan_port: 6784,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: "0.1.0".to_owned(),
        sleeve_port: 6783,
        seen: None,
    };
    let mut mesh = Mesh::new(Config::new(me, 1), Duration::ZERO);
    let conn = ConnId::Accepted(0);
    let remote = SocketAddr::from(([192, 0, 2, 9], 40_000));
    mesh.handle(Input::Accepted { conn, remote }, Duration::ZERO);
    let mut said = Vec::new();
    while let Some(output) = mesh.poll_output() {
        if let Output::Send { bytes, .. } = output {
            said.extend(bytes);
        }
    }
    said
}

fn secrets(private: [u8; 32], public: [u8; 32]) -> Secrets {
    Secrets {
        private,
        public,
        // Not the targets'.
        passwords: vec![Psk::new([99; 32])],
    }
}

/// What one side of a control connection says to another with the same, wrong password.
fn channel(side: Side) -> Vec<u8> {
    let other = match side {
        Side::Accepted => Side::Dialled,
        Side::Dialled => Side::Accepted,
    };
    let mut one = Channel::new(side, &secrets([3; 32], [4; 32]), None, [5; 32]);
    let mut two = Channel::new(other, &secrets([3; 32], [4; 32]), None, [6; 32]);
    let mut said = Vec::new();
    for _ in 0..4 {
        let out = one.outgoing();
        let _ = two.receive(&out);
        said.extend(out);
        let _ = one.receive(&two.outgoing());
    }
    said
}

/// Bob's initiation to Alice (RFC 7748 §6.1), with another password than hers.
fn initiation() -> Vec<u8> {
    let hex = |text: &str| -> [u8; 32] {
        let byte = |i: usize| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).expect("hexadecimal");
        std::array::from_fn(byte)
    };
    let alice = hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a");
    let bob = hex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f");
    let private = hex("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb");
    let id = |public: &[u8; 32]| {
        let hash = ring::digest::digest(&ring::digest::SHA256, public);
        PeerId(*hash.as_ref().first_chunk().expect("32 bytes"))
    };
    let config = SessionConfig {
        id: id(&bob),
        secrets: secrets(private, bob),
        start: 1,
        ciphers: Vec::new(),
        aggregates: true,
        allowed: None,
        seed: [9; 32],
        timing: SessionTiming::default(),
        peers: 4,
    };
    let mut sessions = Sessions::new(config, Duration::ZERO);
    let to = id(&alice);
    let peer = SessionInput::Peer {
        id: to,
        public: alice,
    };
    sessions.handle(peer, Duration::ZERO);
    sessions.handle(SessionInput::Want(to), Duration::ZERO);
    let mut messages = std::iter::from_fn(|| sessions.poll_output());
    messages
        .find_map(|output| match output {
            SessionOutput::Send { message, .. } => Some(message),
            _ => None,
        })
        .expect("it is sent at once")
}
