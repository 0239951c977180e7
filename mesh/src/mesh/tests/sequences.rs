//! Any inputs in any order.

use proptest::prelude::*;

use super::*;
use crate::message::{Broadcast, Doubt, Parcel};

/// Something that a driver, a peer or an operator does, possibly out of place.
fn anything() -> impl Strategy<Value = Step> {
    let hello = (0u8..8, 0u64..3, 0u8..8).prop_map(|(number, run, name)| {
        let mut hello = node(number, run);
        hello.name = format!("n{name}").parse().unwrap();
        Message::Hello(Box::new(hello))
    });
    let neighbours = || prop::collection::vec(0u8..8, 0..4);
    let entries = (0u8..8, 1u64..4, 0u8..8, any::<bool>(), neighbours()).prop_map(
        |(number, run, name, left, neighbours)| {
            let mut entry = entry(number, run, &neighbours);
            entry.name = format!("n{name}").parse().unwrap();
            entry.left = left;
            entry.version += u64::from(left);
            Message::Entries(vec![told(entry)])
        },
    );
    let versions = (0u8..8, 0u64..400).prop_map(|(number, version)| Message::Versions {
        buckets: u64::MAX,
        known: vec![(id(number), version)],
    });
    let parcel = (0u8..8, 0u8..8, any::<u8>()).prop_map(|(from, to, hops)| {
        Message::Parcel(Parcel {
            from: id(from),
            to: id(to),
            hops,
            channel: 1,
            payload: vec![1],
        })
    });
    let broadcast = (0u8..8, 0u64..9, any::<u8>()).prop_map(|(origin, sequence, hops)| {
        let (origin, channel, payload) = (id(origin), 1, vec![1]);
        Message::Broadcast(Broadcast {
            origin,
            sequence,
            hops,
            channel,
            payload,
        })
    });
    let doubt = (0u8..8, 0u8..8, any::<u8>()).prop_map(|(to, about, hops)| {
        Message::Doubt(Doubt {
            to: id(to),
            hops,
            about: id(about),
        })
    });
    let code = (0u32..12).prop_map(RefusalCode::from_number);
    let message = prop_oneof![
        4 => hello,
        4 => Just(Message::Ready),
        4 => Just(Message::Welcome),
        6 => entries,
        1 => any::<u64>().prop_map(Message::Digest),
        1 => any::<u64>().prop_map(|sum| Message::Buckets(Box::new([sum; 64]))),
        1 => versions,
        1 => (0u8..8).prop_map(|number| Message::Ask(vec![id(number)])),
        2 => any::<bool>().prop_map(Message::Need),
        2 => parcel,
        2 => broadcast,
        1 => doubt,
        1 => code.prop_map(|code| Message::Refuse(Refusal::new(code, "no"))),
        1 => any::<u64>().prop_map(Message::Ping),
        1 => any::<u64>().prop_map(Message::Pong),
    ];
    prop_oneof![
        4 => (0u8..8).prop_map(Step::Accept),
        4 => (0u8..8).prop_map(Step::Dialled),
        2 => Just(Step::DialFailed),
        20 => (any::<prop::sample::Index>(), message).prop_map(|(conn, m)| Step::Say(conn, m)),
        1 => (any::<prop::sample::Index>(), any::<Vec<u8>>()).prop_map(|(c, b)| Step::Bytes(c, b)),
        2 => any::<prop::sample::Index>().prop_map(Step::Close),
        4 => (0u64..100_000).prop_map(|ms| Step::Wait(Duration::from_millis(ms))),
        1 => (0u8..8, any::<bool>()).prop_map(|(number, add)| Step::Target(number, add)),
        1 => prop::option::of(0u8..8).prop_map(Step::Gossip),
        1 => Just(Step::Leave),
    ]
}

#[derive(Debug, Clone)]
enum Step {
    Accept(u8),
    /// The oldest dial that has no answer.
    Dialled(u8),
    DialFailed,
    /// On any connection that ever was.
    Say(prop::sample::Index, Message),
    Bytes(prop::sample::Index, Vec<u8>),
    Close(prop::sample::Index),
    Wait(Duration),
    Target(u8, bool),
    Gossip(Option<u8>),
    Leave,
}

proptest! {
    /// I6: whatever is done in whatever order, nothing panics, no table grows over its bound, the
    /// counts of what is under way are true, and no timer is left behind.
    #[test]
    fn i6_any_sequence_of_inputs_leaves_the_tables_consistent(
        steps in prop::collection::vec(anything(), 1..120),
    ) {
        let mut config = Config::new(node(5, 1), 1);
        config.limits.peers = 4;
        config.limits.connections = 3;
        config.limits.handshakes = 3;
        config.limits.dials = 2;
        config.targets = vec!["10.0.0.1".parse().unwrap(), "seed".parse().unwrap()];
        let mut bench = Bench::with(config);
        let mut conns = Vec::new();
        for step in steps {
            match step {
                Step::Accept(number) => {
                    let conn = bench.accept(number);
                    bench.input(Input::Received { conn, bytes: preamble().to_vec() });
                    conns.push(conn);
                }
                Step::Dialled(number) => {
                    if let Some((conn, _)) = bench.next_dial(Duration::ZERO) {
                        bench.input(Input::Dialled { conn, remote: address(number) });
                        bench.input(Input::Received { conn, bytes: preamble().to_vec() });
                        conns.push(conn);
                    }
                }
                Step::DialFailed => {
                    if let Some((conn, _)) = bench.next_dial(Duration::ZERO) {
                        bench.input(Input::DialFailed { conn, error: DialError::Failed("x".into()) });
                    }
                }
                Step::Say(conn, message) if !conns.is_empty() => {
                    bench.say(*conn.get(&conns), &message);
                }
                Step::Bytes(conn, bytes) if !conns.is_empty() => {
                    bench.input(Input::Received { conn: *conn.get(&conns), bytes });
                }
                Step::Close(conn) if !conns.is_empty() => {
                    bench.input(Input::Closed { conn: *conn.get(&conns), reason: "x".into() });
                }
                Step::Say(..) | Step::Bytes(..) | Step::Close(_) => {}
                Step::Wait(span) => bench.wait(span),
                Step::Target(number, true) => bench.input(Input::Connect(address(number).into())),
                Step::Leave => bench.input(Input::Leave),
                Step::Gossip(to) => bench.input(Input::SendGossip {
                    to: to.map(id),
                    channel: 1,
                    payload: vec![1],
                }),
                Step::Target(number, false) => bench.input(Input::Forget(address(number).into())),
            }
            check(&bench);
        }
    }
}

/// What holds between any two inputs.
fn check(bench: &Bench) {
    let mesh = &bench.mesh;
    let limits = &mesh.config.limits;
    assert!(mesh.roster.len() <= limits.peers);
    let phase = |wanted: fn(&Connection) -> bool| {
        mesh.connections
            .values()
            .filter(|connection| wanted(connection))
            .count()
    };
    assert_eq!(
        mesh.dials,
        phase(|connection| connection.phase == Phase::Dialling)
    );
    let accepted = |(conn, connection): &(&ConnId, &Connection)| {
        matches!(conn, ConnId::Accepted(_)) && connection.phase != Phase::Established
    };
    assert_eq!(
        mesh.handshakes,
        mesh.connections.iter().filter(accepted).count()
    );
    assert!(mesh.dials <= limits.dials && mesh.handshakes <= limits.handshakes);
    assert_eq!(
        mesh.control.len(),
        phase(|connection| connection.phase == Phase::Established),
        "one connection per peer is in use"
    );
    for (id, conn) in &mesh.control {
        let hello = mesh.connections[conn].hello.as_ref().unwrap();
        assert_eq!(hello.id, *id);
    }
    for (conn, connection) in &mesh.connections {
        let waits = mesh.timers.get(&Timer::Connection(*conn)).is_some();
        assert_eq!(waits, connection.phase != Phase::Dialling);
        if !connection.owed.is_empty() {
            assert!(mesh.timers.get(&Timer::Answer).is_some());
        }
    }
    assert!(mesh.news.is_empty() || mesh.timers.get(&Timer::Flush).is_some());
    let mut lost = false;
    for (id, peer) in mesh.roster.iter() {
        let reachable = peer.is_reachable();
        assert_eq!(peer.lost.is_none(), reachable);
        assert!(!reachable || peer.gone.is_none());
        assert!(!peer.told || peer.gone.is_none());
        if reachable {
            let heard = !peer.doubted && !peer.rival && !mesh.own.muted;
            assert_eq!(peer.told, heard, "{id}");
            assert!(!peer.doubted || mesh.timers.get(&Timer::Peer(id)).is_some());
            assert!(
                mesh.control
                    .contains_key(&mesh.roster.next_hop(id).unwrap())
            );
        }
        lost |= !reachable && peer.gone.is_none();
    }
    assert!(
        !lost || mesh.timers.get(&Timer::Revive).is_some(),
        "given up"
    );
    for (target, entry) in &mesh.targets {
        let dial = Timer::Dial(Candidate::Target(target.clone()));
        let tried = entry.dialling.conn.is_some()
            || entry.dialling.queued
            || mesh.timers.get(&dial).is_some();
        let near =
            |id| mesh.is_reachable(id) || mesh.control.contains_key(&id) || mesh.is_pending(id);
        assert!(
            tried || entry.peer.is_some_and(near),
            "{target} is given up"
        );
    }
}
