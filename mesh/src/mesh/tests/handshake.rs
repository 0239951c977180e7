use super::*;

#[test]
fn the_smaller_identity_waits_for_ready_and_welcomes() {
    let mut bench = Bench::new(&[]);
    let conn = bench.accept(9);
    bench.greet(conn, &node(9, 1));
    assert!(matches!(bench.messages(conn)[..], [Message::Hello(_)]));
    assert_eq!(bench.links(), [""; 0]);
    bench.say(conn, &Message::Ready);
    let messages = bench.messages(conn);
    assert!(
        matches!(
            messages[..],
            [Message::Welcome, Message::Entries(_), Message::Digest(_)]
        ),
        "{messages:?}"
    );
    bench.tell(conn, [entry(9, 1, &[])]);
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
}

#[test]
fn the_larger_identity_is_ready_and_waits_for_the_welcome() {
    let mut bench = Bench::new(&[]);
    let conn = bench.accept(1);
    bench.greet(conn, &node(1, 1));
    assert!(matches!(
        bench.messages(conn)[..],
        [Message::Hello(_), Message::Ready]
    ));
    assert_eq!(bench.links(), [""; 0]);
    bench.say(conn, &Message::Welcome);
    assert!(matches!(bench.messages(conn)[..], [Message::Entries(_)]));
    bench.tell(conn, [entry(1, 1, &[])]);
    assert_eq!(bench.links(), ["n1 up 10.0.0.1:6784"]);
    let view = bench.view(1).unwrap();
    assert!(view.connected && view.state == PeerState::Up && view.mtu == Some(1450));
}

#[test]
fn messages_out_of_place_end_the_connection() {
    let early = [
        Message::Ready,
        Message::Welcome,
        Message::Ping(1),
        Message::Digest(1),
        Message::Entries(vec![]),
        Message::Ask(vec![]),
        Message::Need(true),
    ];
    for message in &early {
        let mut bench = Bench::new(&[]);
        let conn = bench.accept(9);
        bench.input(Input::Received {
            conn,
            bytes: preamble().to_vec(),
        });
        bench.say(conn, message);
        assert_eq!(
            refusal(&bench.messages(conn)),
            Some(RefusalCode::Malformed),
            "{message:?}"
        );
    }
    for message in [
        Message::Welcome,
        Message::Hello(Box::new(node(9, 1))),
        Message::Ping(0),
    ] {
        let mut bench = Bench::new(&[]);
        let conn = bench.accept(9);
        bench.greet(conn, &node(9, 1));
        bench.say(conn, &message);
        assert_eq!(
            refusal(&bench.messages(conn)),
            Some(RefusalCode::Malformed),
            "{message:?}"
        );
    }
}

#[test]
fn crossing_dials_end_in_one_connection_and_no_flap() {
    // This node has the smaller identity and chooses the last one that is ready.
    let mut bench = Bench::new(&["10.0.0.9"]);
    let (mine, _) = bench.next_dial(S(1)).unwrap();
    let theirs = bench.accept(9);
    bench.input(Input::Dialled {
        conn: mine,
        remote: address(9),
    });
    bench.greet(mine, &node(9, 1));
    bench.greet(theirs, &node(9, 1));
    bench.say(theirs, &Message::Ready);
    bench.say(mine, &Message::Ready);
    assert_eq!(
        refusal(&bench.messages(theirs)),
        Some(RefusalCode::Replaced)
    );
    assert!(bench.messages(mine).contains(&Message::Welcome));
    bench.tell(mine, [entry(9, 1, &[5])]);
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
    assert_eq!(bench.next_dial(S(20)), None, "no more dials");

    // With the larger identity it follows, whatever order things arrive in.
    let mut bench = Bench::new(&["10.0.0.1"]);
    let (mine, _) = bench.next_dial(S(1)).unwrap();
    let theirs = bench.accept(1);
    bench.input(Input::Dialled {
        conn: mine,
        remote: address(1),
    });
    bench.greet(mine, &node(1, 1));
    bench.greet(theirs, &node(1, 1));
    bench.say(mine, &Message::Welcome);
    bench.input(Input::Closed {
        conn: mine,
        reason: "replaced".into(),
    });
    bench.say(theirs, &Message::Welcome);
    bench.tell(theirs, [entry(1, 1, &[5])]);
    assert_eq!(bench.links(), ["n1 up 10.0.0.1:6784"]);
    assert_eq!(bench.next_dial(S(20)), None);
}

#[test]
fn a_second_address_of_a_connected_node_is_not_connected_twice() {
    let mut bench = Bench::new(&["10.0.0.9", "nine.example"]);
    let (first, _) = bench.next_dial(S(1)).unwrap();
    let (second, named) = bench.next_dial(S(1)).unwrap();
    bench.input(Input::Dialled {
        conn: first,
        remote: address(9),
    });
    bench.join(first, &node(9, 1));
    bench.input(Input::Dialled {
        conn: second,
        remote: address(9),
    });
    bench.greet(second, &node(9, 1));
    assert_eq!(
        refusal(&bench.messages(second)),
        Some(RefusalCode::Replaced)
    );
    assert_eq!(bench.next_dial(S(20)), None);
    let view = bench
        .mesh
        .targets(bench.now)
        .into_iter()
        .find(|view| view.target == named);
    assert_eq!(view.unwrap().state, TargetState::Peer(PeerId([9; 8])));
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
}

#[test]
fn a_restarted_peer_replaces_its_old_connection_at_once() {
    let mut bench = Bench::new(&[]);
    let old = bench.peer(&node(9, 1));
    bench.take();
    let new = bench.peer(&node(9, 2));
    assert_eq!(refusal(&bench.messages(old)), Some(RefusalCode::Replaced));
    assert!(bench.messages(new).contains(&Message::Welcome));
    let outputs = bench.take();
    assert!(
        outputs
            .iter()
            .any(|o| matches!(o, Output::Connected { .. })),
        "others begin anew"
    );
    assert!(
        !outputs.iter().any(|o| matches!(o, Output::Link(_))),
        "the link never went away"
    );
}

#[test]
fn a_restart_with_lost_state_takes_over_the_name() {
    let mut bench = Bench::new(&[]);
    let old = bench.peer(&node(9, 1));
    bench.input(Input::Closed {
        conn: old,
        reason: "gone".into(),
    });
    let mut reborn = node(8, 1);
    reborn.name = "n9".parse().unwrap();
    bench.take();
    bench.peer(&reborn);
    // Whoever goes by names hears that the new one can be reached, and nothing after it.
    let told: Vec<_> = bench
        .take()
        .into_iter()
        .filter(|o| matches!(o, Output::Reachable { .. } | Output::Unreachable { .. }))
        .collect();
    let name: PeerName = "n9".parse().unwrap();
    let lost = Output::Unreachable {
        id: id(9),
        name: name.clone(),
    };
    assert_eq!(told, [lost, Output::Reachable { id: id(8), name }]);
    bench.wait(S(6));
    assert_eq!(bench.links(), ["n9 down"]);
    assert_eq!(
        (bench.view(9), bench.mesh.conditions(bench.now).len()),
        (None, 0)
    );
}

#[test]
fn two_nodes_with_one_name_are_named_and_the_first_stays() {
    let mut bench = Bench::new(&[]);
    let first = bench.peer(&node(9, 1));
    let mut second = node(8, 1);
    second.name = "n9".parse().unwrap();
    bench.wait(S(1));
    bench.take();
    bench.messages(first);
    let conn = bench.peer(&second);
    assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Name));
    let conditions = bench.mesh.conditions(bench.now);
    assert_eq!(conditions[0].kind, ConditionKind::DuplicateName);
    for part in [
        "0909090909090909",
        "0808080808080808",
        "10.0.0.9",
        "10.0.0.8",
        "--name",
    ] {
        assert!(
            conditions[0].message.contains(part),
            "{part}: {}",
            conditions[0].message
        );
    }
    // The holder lives: it answers the ping and keeps its connection.
    let pings = bench.messages(first);
    let [Message::Ping(nonce)] = pings[..] else {
        panic!("{pings:?}")
    };
    bench.say(first, &Message::Pong(nonce));
    bench.wait(S(9));
    assert!(bench.view(9).unwrap().connected);

    // The holder is a relic: silent for five seconds, and the newcomer has the name.
    bench.say(first, &Message::Pong(nonce));
    bench.peer(&second);
    bench.wait(S(5));
    assert!(!bench.view(9).unwrap().connected);
    bench.peer(&second);
    assert!(bench.view(8).unwrap().connected);
    bench.wait(S(6));
    assert!(bench.view(9).is_none());
    // The condition ends when it has not been seen for ten minutes.
    bench.wait(S(700));
    assert_eq!(bench.mesh.conditions(bench.now), []);
}

#[test]
fn the_neighbours_of_a_far_holder_of_a_name_are_asked_whether_it_lives() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.tell(conn, [entry(9, 2, &[5, 20]), entry(20, 1, &[9])]);
    bench.wait(S(1));
    bench.messages(conn);
    let mut second = node(8, 1);
    second.name = "n20".parse().unwrap();
    let newcomer = bench.peer(&second);
    assert_eq!(refusal(&bench.messages(newcomer)), Some(RefusalCode::Name));
    let doubt = crate::message::Doubt {
        to: id(9),
        hops: 32,
        about: id(20),
    };
    assert_eq!(bench.messages(conn), [Message::Doubt(doubt)]);
    // Not each time.
    bench.peer(&second);
    assert_eq!(bench.messages(conn), []);
    // They find that it does not.
    bench.tell(conn, [entry(9, 3, &[5])]);
    bench.peer(&second);
    assert!(bench.view(8).unwrap().connected);
}

#[test]
fn a_node_with_my_name_or_identity_or_network_is_refused() {
    let mut namesake = node(9, 1);
    namesake.name = "n5".parse().unwrap();
    let copy = node(5, 2);
    let mut foreign = node(9, 1);
    foreign.vni = 7.try_into().unwrap();
    for (hello, code) in [
        (namesake, RefusalCode::Name),
        (copy, RefusalCode::Identity),
        (foreign, RefusalCode::Network),
    ] {
        let mut bench = Bench::new(&[]);
        let conn = bench.accept(9);
        bench.greet(conn, &hello);
        assert_eq!(refusal(&bench.messages(conn)), Some(code));
        assert_eq!(bench.mesh.conditions(bench.now).len(), 1);
        assert_eq!(bench.mesh.peers(bench.now), []);
    }
}

#[test]
fn a_lasting_refusal_is_shown_and_not_retried_quickly() {
    let mut bench = Bench::new(&["10.0.0.9"]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    bench.input(Input::Dialled {
        conn,
        remote: address(9),
    });
    bench.input(Input::Received {
        conn,
        bytes: preamble().to_vec(),
    });
    let refuse = Refusal::new(RefusalCode::Network, "you are on VNI 1, I on 7");
    bench.say(conn, &Message::Refuse(refuse));
    let reason = bench.mesh.targets(bench.now)[0].reason.clone().unwrap();
    assert_eq!(reason, "refused by 10.0.0.9:6783: you are on VNI 1, I on 7");
    assert_eq!(bench.next_dial(S(29)), None);
    assert!(bench.next_dial(S(62)).is_some());
}

#[test]
fn pings_keep_a_connection_and_silence_ends_it() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    for _ in 0..10 {
        bench.wait(S(10));
        let messages = bench.messages(conn);
        let ping = messages.iter().find_map(|message| match message {
            Message::Ping(nonce) => Some(*nonce),
            _ => None,
        });
        bench.now += Duration::from_millis(3);
        bench.say(conn, &Message::Pong(ping.expect("one ping per 10 s")));
    }
    assert!(bench.view(9).unwrap().rtt.unwrap() >= Duration::from_millis(3));
    bench.say(conn, &Message::Ping(77));
    assert_eq!(bench.messages(conn).last(), Some(&Message::Pong(77)));
    bench.wait(S(26));
    assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Silent));
}

#[test]
fn a_silent_stranger_is_cut_off_after_ten_seconds() {
    let mut bench = Bench::new(&[]);
    let conn = bench.accept(9);
    bench.wait(S(10));
    assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Silent));
}
