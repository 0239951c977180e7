//! What a node without a password takes on a control connection: the introduction, and every message
//! after it, entries of other nodes among them. It never panics, and what it sends and keeps is bounded.
//!
//! The first byte: bit 0 behind an introduction that is as it should be, bit 1 the bytes are messages
//! without their lengths: a kind, 2 bytes of length, and the body.

#![no_main]

use std::net::SocketAddr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use mesh::link::LinkConfig;
use mesh::{Config, ConnId, Hello, Input, Mesh, Output, preamble};
use wire::{PeerId, Vni};

/// Messages that bytes are read as, at most: more say nothing new.
const MESSAGES: usize = 64;

fn hello(n: u8) -> Hello {
    Hello {
        id: PeerId([n; 8]),
        name: format!("n{n}").parse().expect("a name"),
        public_key: [n; 32],
        run: n.into(),
        control_port: 6783,
        vxlan_port: 6784,
        vni: Vni::DEFAULT,
        mtu: 1450,
        version: String::new(),
        sleeve_port: 6783,
        seen: None,
    }
}

fn mesh(n: u8) -> Mesh {
    let me = hello(n);
    let links = LinkConfig::new(me.id, me.run, 1);
    let mut config = Config::new(me, 1);
    config.links = Some(links);
    Mesh::new(config, Duration::ZERO)
}

/// Lets time pass, and counts what is sent.
fn drain(mesh: &mut Mesh) -> (Vec<u8>, usize) {
    let (mut sent, mut outputs) = (Vec::new(), 0);
    while let Some(output) = mesh.poll_output() {
        outputs += 1;
        if let Output::Send { bytes, .. } = output {
            sent.extend(bytes);
        }
    }
    (sent, outputs)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, mut rest)) = bytes.split_first() else {
        return;
    };
    let now = Duration::from_secs(1);
    let mut mesh = mesh(5);
    let conn = ConnId::Accepted(0);
    let remote = SocketAddr::from(([192, 0, 2, 9], 40_000));
    mesh.handle(Input::Accepted { conn, remote }, now);
    drain(&mut mesh);
    let mut stream = Vec::new();
    if how & 1 != 0 {
        // As another mesh says it.
        let mut other = self::mesh(9);
        let dialled = ConnId::Accepted(0);
        other.handle(
            Input::Accepted {
                conn: dialled,
                remote,
            },
            now,
        );
        let (greeting, _) = drain(&mut other);
        stream.extend(greeting);
        // The larger identity is ready when it has heard the other.
        stream.extend([0, 0, 0, 1, 3]);
    } else {
        stream.extend(preamble());
    }
    if how & 2 == 0 {
        stream.extend(rest);
    } else {
        for _ in 0..MESSAGES {
            let Some((&[kind, high, low], behind)) = rest.split_first_chunk() else {
                break;
            };
            let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len());
            let (body, behind) = behind.split_at(len);
            rest = behind;
            let length = u32::try_from(len + 1).expect("it is short");
            stream.extend(length.to_be_bytes());
            stream.push(kind);
            stream.extend(body);
        }
    }
    let came = stream.len();
    mesh.handle(
        Input::Received {
            conn,
            bytes: stream,
        },
        now,
    );
    let (sent, outputs) = drain(&mut mesh);
    assert!(sent.len() <= 4096 + 64 * came, "{} for {came}", sent.len());
    assert!(outputs <= 256 + came, "{outputs} for {came}");
    // What is due because of it is done without trouble, too.
    for _ in 0..8 {
        let Some(due) = mesh.poll_timeout() else {
            break;
        };
        mesh.handle(Input::Timeout, due.max(now));
        drain(&mut mesh);
    }
    assert!(mesh.peers(now).len() <= came);
});
