//! Any inputs in any order.

use proptest::prelude::*;

use super::*;

/// Something that a driver, a peer or an operator does, possibly out of place.
fn anything() -> impl Strategy<Value = Step> {
    let hello = (0u8..8, 0u64..3, 0u8..8).prop_map(|(number, run, name)| {
        let mut hello = node(number, run);
        hello.name = format!("n{name}").parse().unwrap();
        Message::Hello(Box::new(hello))
    });
    let peers = (0u8..8, 0u64..3, any::<bool>()).prop_map(|(number, run, left)| {
        let departure = Departure {
            id: PeerId([number; 8]),
            run,
        };
        let left = if left { vec![departure] } else { vec![] };
        Message::Peers {
            known: vec![known(number, run)],
            left,
        }
    });
    let code = (0u32..12).prop_map(RefusalCode::from_number);
    let message = prop_oneof![
        4 => hello,
        4 => Just(Message::Ready),
        4 => Just(Message::Welcome),
        2 => peers,
        1 => code.prop_map(|code| Message::Refuse(Refusal::new(code, "no"))),
        1 => Just(Message::Leave),
        1 => any::<u64>().prop_map(Message::Ping),
        1 => any::<u64>().prop_map(Message::Pong),
        1 => any::<u8>().prop_map(|channel| Message::Gossip { channel, payload: vec![1] }),
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
        config.limits.connections = 8;
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
                Step::Target(number, false) => bench.input(Input::Forget(address(number).into())),
            }
            check(&bench.mesh);
        }
    }
}

/// What holds between any two inputs.
fn check(mesh: &Mesh) {
    let limits = &mesh.config.limits;
    assert!(mesh.peers.len() <= limits.peers && mesh.connections.len() <= limits.connections);
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
    for (conn, connection) in &mesh.connections {
        let id = connection.hello.as_ref().map(|hello| hello.id);
        let peer = id.and_then(|id| mesh.peers.get(&id));
        if connection.phase == Phase::Established {
            assert_eq!(
                peer.unwrap().control,
                Some(*conn),
                "one connection per peer is in use"
            );
        }
        let waits = mesh.timers.get(&Timer::Connection(*conn)).is_some();
        assert_eq!(waits, connection.phase != Phase::Dialling);
    }
    for (id, peer) in &mesh.peers {
        let pending = peer.pending.iter().chain(&peer.control);
        assert!(
            pending
                .clone()
                .all(|conn| mesh.connections.contains_key(conn))
        );
        let dial = Timer::Dial(Candidate::Peer(*id));
        let tried = peer.dialling.conn.is_some()
            || peer.dialling.queued
            || mesh.timers.get(&dial).is_some()
            || pending.count() > 0;
        let named = mesh.targets.values().any(|entry| entry.peer == Some(*id));
        assert!(
            tried || (peer.addresses.is_empty() && !named),
            "{id} is given up"
        );
        assert!(peer.control.is_some() || mesh.timers.get(&Timer::Peer(*id)).is_some());
    }
    for (target, entry) in &mesh.targets {
        let dial = Timer::Dial(Candidate::Target(target.clone()));
        let tried = entry.dialling.conn.is_some()
            || entry.dialling.queued
            || mesh.timers.get(&dial).is_some();
        let known = entry.peer.is_some_and(|id| mesh.peers.contains_key(&id));
        assert!(tried || known, "{target} is given up");
    }
}
