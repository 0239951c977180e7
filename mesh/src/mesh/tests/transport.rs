use super::*;
use crate::message::{Broadcast, Doubt, Parcel};

/// 5 with the neighbours 7 and 9, and 20 behind 9.
fn three() -> (Bench, ConnId, ConnId) {
    let mut bench = Bench::new(&[]);
    let a = bench.peer(&node(7, 1));
    let b = bench.peer(&node(9, 1));
    bench.tell(b, [entry(9, 2, &[5, 20]), entry(20, 1, &[9])]);
    bench.wait(Duration::from_millis(100));
    for conn in [a, b] {
        bench.messages(conn);
    }
    bench.take();
    (bench, a, b)
}

fn parcel(from: u8, to: u8, hops: u8) -> Parcel {
    Parcel {
        from: id(from),
        to: id(to),
        hops,
        channel: 3,
        payload: b"ring".to_vec(),
    }
}

fn broadcast(origin: u8, sequence: u64, hops: u8) -> Broadcast {
    Broadcast {
        origin: id(origin),
        sequence,
        hops,
        channel: 3,
        payload: b"ring".to_vec(),
    }
}

fn gossip_of(outputs: &[Output]) -> Vec<String> {
    let told = outputs.iter().filter_map(|output| match output {
        Output::Gossip { name, channel, .. } => Some(format!("{name} {channel}")),
        _ => None,
    });
    told.collect()
}

/// What was carried on a connection.
fn cargo(bench: &mut Bench, conn: ConnId) -> Vec<Message> {
    let messages = bench.messages(conn).into_iter();
    messages.filter(Message::is_cargo).collect()
}

#[test]
fn what_is_for_one_node_is_handed_on_and_delivered() {
    let (mut bench, a, b) = three();
    bench.say(a, &Message::Parcel(parcel(7, 5, 9)));
    assert_eq!(gossip_of(&bench.take()), ["n7 3"]);
    bench.say(a, &Message::Parcel(parcel(7, 20, 9)));
    assert_eq!(cargo(&mut bench, b), [Message::Parcel(parcel(7, 20, 8))]);
    let send = |to: u8| Input::SendGossip {
        to: Some(id(to)),
        channel: 3,
        payload: b"ring".to_vec(),
    };
    bench.input(send(20));
    assert_eq!(cargo(&mut bench, b), [Message::Parcel(parcel(5, 20, 32))]);
    bench.input(send(7));
    assert_eq!(cargo(&mut bench, a), [Message::Parcel(parcel(5, 7, 32))]);
    bench.input(send(99));
    assert_eq!(bench.mesh.counters().gossip_undeliverable, 1);
    // One that nobody knows says nothing.
    bench.say(a, &Message::Parcel(parcel(99, 5, 9)));
    assert_eq!(gossip_of(&bench.take()), [""; 0]);
    assert_eq!(bench.mesh.counters().gossip_unknown, 1);
}

/// What is handed to a neighbour that does not run is lost, so that this is found out within seconds
/// and not within the silence that is allowed to one that nobody needs at the moment.
#[test]
fn a_silent_neighbour_is_found_out_by_what_is_handed_to_it() {
    let (mut bench, a, b) = three();
    bench.wait(S(3));
    bench.messages(b);
    let send = Input::SendGossip {
        to: Some(id(20)),
        channel: 3,
        payload: b"ring".to_vec(),
    };
    bench.input(send.clone());
    let messages = bench.messages(b);
    let pings = |messages: &[Message]| {
        let ping = |message: &&Message| matches!(message, Message::Ping(_));
        messages.iter().filter(ping).count()
    };
    assert_eq!(pings(&messages), 1, "{messages:?}");
    // However much follows, one question is enough.
    for _ in 0..10 {
        bench.input(send.clone());
    }
    assert_eq!(pings(&bench.messages(b)), 0);
    bench.say(a, &Message::Ping(1));
    bench.wait(S(5));
    assert_eq!(refusal(&bench.messages(b)), Some(RefusalCode::Silent));
    assert!(bench.mesh.neighbours().eq([id(7)]));
}

#[test]
fn i3_nothing_circulates() {
    let (mut bench, a, b) = three();
    // Never back, and not for ever.
    bench.say(b, &Message::Parcel(parcel(7, 20, 9)));
    bench.say(a, &Message::Parcel(parcel(7, 20, 1)));
    bench.say(a, &Message::Parcel(parcel(7, 20, 0)));
    assert_eq!(
        (cargo(&mut bench, a), cargo(&mut bench, b)),
        (vec![], vec![])
    );
    assert_eq!(bench.mesh.counters().gossip_undeliverable, 3);
    // A peer cannot give a message a longer life than others do.
    bench.say(a, &Message::Parcel(parcel(7, 20, 255)));
    assert_eq!(cargo(&mut bench, b), [Message::Parcel(parcel(7, 20, 31))]);
    bench.say(a, &Message::Broadcast(broadcast(20, 1, 1)));
    assert_eq!(gossip_of(&bench.take()), ["n20 3"]);
    assert_eq!(cargo(&mut bench, b), []);
}

#[test]
fn i3_what_is_for_all_goes_to_all_once() {
    let (mut bench, a, b) = three();
    bench.say(a, &Message::Broadcast(broadcast(20, 1, 9)));
    bench.say(b, &Message::Broadcast(broadcast(20, 1, 9)));
    bench.say(b, &Message::Broadcast(broadcast(20, 2, 9)));
    assert_eq!(gossip_of(&bench.take()), ["n20 3", "n20 3"]);
    assert_eq!(
        cargo(&mut bench, a),
        [Message::Broadcast(broadcast(20, 2, 8))]
    );
    assert_eq!(
        cargo(&mut bench, b),
        [Message::Broadcast(broadcast(20, 1, 8))]
    );
    assert_eq!(bench.mesh.counters().gossip_repeated, 1);
    // Its own comes back to it by others, and says nothing new.
    let all = Input::SendGossip {
        to: None,
        channel: 3,
        payload: b"ring".to_vec(),
    };
    bench.input(all);
    let mine = Message::Broadcast(broadcast(5, 1 << 16, 32));
    let sent = vec![mine.clone()];
    assert_eq!(
        (cargo(&mut bench, a), cargo(&mut bench, b)),
        (sent.clone(), sent)
    );
    bench.say(a, &mine);
    assert_eq!(gossip_of(&bench.take()), [""; 0]);
    assert_eq!(cargo(&mut bench, b), []);
    // Nor does one of nobody.
    bench.say(a, &Message::Broadcast(broadcast(99, 1, 9)));
    assert_eq!(
        (gossip_of(&bench.take()).len(), cargo(&mut bench, b).len()),
        (0, 0)
    );
}

#[test]
fn the_largest_payload_fits_and_one_more_byte_does_not() {
    let (mut bench, a, _) = three();
    let send = |len| Input::SendGossip {
        to: Some(id(7)),
        channel: 3,
        payload: vec![0; len],
    };
    bench.input(send(crate::MAX_GOSSIP));
    bench.input(send(crate::MAX_GOSSIP + 1));
    assert_eq!(cargo(&mut bench, a).len(), 1);
    assert_eq!(bench.mesh.counters().gossip_too_large, 1);
}

#[test]
fn cargo_is_marked_as_such() {
    let mut bench = Bench::new(&[]);
    bench.peer(&node(9, 1));
    let gossip = Input::SendGossip {
        to: None,
        channel: 1,
        payload: vec![],
    };
    bench.mesh.handle(gossip, bench.now);
    let marks: Vec<bool> = std::iter::from_fn(|| bench.mesh.poll_output())
        .filter_map(|output| match output {
            Output::Send { cargo, .. } => Some(cargo),
            _ => None,
        })
        .collect();
    assert_eq!(marks, [true]);
}

#[test]
fn a_doubt_makes_a_neighbour_look() {
    let (mut bench, a, b) = three();
    let doubt = |to, about| {
        Message::Doubt(Doubt {
            to: id(to),
            hops: 5,
            about: id(about),
        })
    };
    bench.say(a, &doubt(5, 9));
    assert!(matches!(bench.messages(b)[..], [Message::Ping(_)]));
    bench.wait(S(5));
    assert!(!bench.view(9).unwrap().connected && bench.view(7).unwrap().connected);
    // Handed on to another's neighbour.
    let (mut bench, a, b) = three();
    bench.say(a, &doubt(20, 9));
    let handed = Message::Doubt(Doubt {
        to: id(20),
        hops: 4,
        about: id(9),
    });
    assert_eq!(bench.messages(b), [handed]);
}
