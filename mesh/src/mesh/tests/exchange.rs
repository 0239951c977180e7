use super::*;

#[test]
fn one_address_is_enough_the_others_are_learned_and_dialled() {
    let mut bench = Bench::new(&["10.0.0.9"]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    bench.input(Input::Dialled {
        conn,
        remote: address(9),
    });
    bench.shake_hands(conn, &node(9, 1));
    bench.say(
        conn,
        &Message::Peers {
            known: vec![known(7, 1), known(5, 9)],
            left: vec![],
        },
    );
    let (conn, target) = bench.next_dial(S(1)).unwrap();
    assert_eq!(target.to_string(), "10.0.0.7:6783");
    bench.input(Input::Dialled {
        conn,
        remote: address(7),
    });
    bench.shake_hands(conn, &node(7, 1));
    assert_eq!(
        bench.links(),
        ["n9 up 10.0.0.9:6784", "n7 up 10.0.0.7:6784"]
    );
    assert_eq!(bench.next_dial(S(20)), None, "nobody else, and not myself");
}

#[test]
fn without_discovery_nothing_is_learned() {
    let mut config = Config::new(node(5, 1), 1);
    config.discovery = false;
    let mut bench = Bench::with(config);
    let conn = bench.peer(&node(9, 1));
    bench.say(
        conn,
        &Message::Peers {
            known: vec![known(7, 1)],
            left: vec![],
        },
    );
    assert_eq!(bench.next_dial(S(20)), None);
    assert_eq!(bench.view(7), None);
}

#[test]
fn a_newcomer_is_told_of_all_and_all_of_the_newcomer() {
    let mut bench = Bench::new(&[]);
    let first = bench.peer(&node(7, 1));
    bench.messages(first);
    let second = bench.peer(&node(9, 1));
    let told = |number| Message::Peers {
        known: vec![known(number, 1)],
        left: vec![],
    };
    assert_eq!(bench.messages(second).last(), Some(&told(7)));
    assert_eq!(bench.messages(first), [told(9)]);
}

#[test]
fn gossip_passes_through() {
    let mut bench = Bench::new(&[]);
    let a = bench.peer(&node(7, 1));
    let b = bench.peer(&node(9, 1));
    bench.messages(a);
    bench.messages(b);
    bench.take();
    let gossip = Message::Gossip {
        channel: 3,
        payload: b"ring".to_vec(),
    };
    bench.say(a, &gossip);
    assert_eq!(
        bench.take(),
        [Output::Gossip {
            from: PeerId([7; 8]),
            name: "n7".parse().unwrap(),
            channel: 3,
            payload: b"ring".to_vec()
        }]
    );
    let send = |to, len| Input::SendGossip {
        to,
        channel: 3,
        payload: vec![0; len],
    };
    bench.input(send(None, 4));
    bench.input(send(Some(PeerId([9; 8])), crate::MAX_GOSSIP));
    bench.input(send(Some(PeerId([8; 8])), 4));
    bench.input(send(None, crate::MAX_GOSSIP + 1));
    assert_eq!((bench.messages(a).len(), bench.messages(b).len()), (1, 2));
    let counters = bench.mesh.counters();
    assert_eq!(
        (counters.gossip_undeliverable, counters.gossip_too_large),
        (1, 1)
    );
}

#[test]
fn local_addresses_are_told_only_on_this_machine() {
    let mut bench = Bench::new(&[]);
    let local = ConnId::Accepted(1000);
    let remote = SocketAddr::from(([127, 0, 0, 1], 40_000));
    bench.input(Input::Accepted {
        conn: local,
        remote,
    });
    bench.shake_hands(local, &node(7, 1));
    let far = bench.peer(&node(9, 1));
    assert!(
        !bench
            .messages(far)
            .iter()
            .any(|message| matches!(message, Message::Peers { .. }))
    );
    assert!(
        bench
            .messages(local)
            .iter()
            .any(|message| matches!(message, Message::Peers { .. }))
    );
}

/// Found by the simulation: a node that had just heard of the leaver was told of the leave by nobody,
/// and dialled for a day.
#[test]
fn a_newcomer_is_told_who_left_not_long_ago() {
    let mut bench = Bench::new(&[]);
    let leaver = bench.peer(&node(9, 1));
    bench.say(leaver, &Message::Leave);
    let newcomer = bench.peer(&node(7, 1));
    let left = vec![Departure {
        id: PeerId([9; 8]),
        run: 1,
    }];
    let told = Message::Peers {
        known: vec![],
        left,
    };
    assert!(bench.messages(newcomer).contains(&told));
    // The other side of it: what was only heard of goes at once.
    let rumour = Message::Peers {
        known: vec![known(8, 1)],
        left: vec![],
    };
    bench.say(newcomer, &rumour);
    assert!(bench.view(8).is_some());
    let left = vec![Departure {
        id: PeerId([8; 8]),
        run: 1,
    }];
    let told = Message::Peers {
        known: vec![],
        left,
    };
    bench.say(newcomer, &told);
    assert_eq!(
        (bench.view(8), bench.links()),
        (
            None,
            vec![
                "n9 up 10.0.0.9:6784".into(),
                "n9 left".into(),
                "n7 up 10.0.0.7:6784".into()
            ]
        )
    );
}

#[test]
fn a_rumour_that_nobody_repeats_is_forgotten() {
    let mut bench = Bench::new(&[]);
    let peer = bench.peer(&node(9, 1));
    let rumour = Message::Peers {
        known: vec![known(8, 1)],
        left: vec![],
    };
    bench.say(peer, &rumour);
    for _ in 0..20 {
        bench.wait(S(30));
        assert!(bench.view(8).is_some() || bench.now >= S(600));
        bench.say(peer, &Message::Pong(0));
    }
    bench.wait(S(10));
    assert_eq!(bench.view(8), None);
}
