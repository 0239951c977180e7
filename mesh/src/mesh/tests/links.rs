use super::*;

#[test]
fn i5_a_malformed_message_costs_the_connection_and_not_the_link() {
    let mut bench = Bench::new(&[]);
    let mut conn = bench.peer(&node(9, 1));
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
    // Again and again for ten minutes: as often as it comes back, it sends rubbish.
    for _ in 0..40 {
        bench.input(Input::Received {
            conn,
            bytes: vec![0, 0, 0, 2, 5, 0xff],
        });
        assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Malformed));
        let view = bench.view(9).unwrap();
        assert!(!view.connected && view.state == PeerState::Up);
        assert!(view.reason.unwrap().contains("kind 5 cannot be read"));
        bench
            .outputs
            .retain(|output| !matches!(output, Output::Close { .. }));
        conn = bench
            .next_dial(S(59))
            .expect("dialled again within the grace")
            .0;
        bench.input(Input::Dialled {
            conn,
            remote: address(9),
        });
        bench.shake_hands(conn, &node(9, 1));
    }
    assert_eq!(bench.links(), [""; 0]);
    assert_eq!(bench.mesh.counters().malformed, 40);
}

#[test]
fn i5_a_lost_connection_has_its_grace_then_the_link_goes_down() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.links();
    bench.input(Input::Closed {
        conn,
        reason: "reset".into(),
    });
    bench.wait(S(59));
    assert_eq!(bench.links(), [""; 0]);
    bench.wait(S(1));
    assert_eq!(bench.links(), ["n9 down"]);
    let view = bench.view(9).unwrap();
    assert_eq!(
        (view.state, view.reason.as_deref()),
        (PeerState::Down, Some("reset"))
    );
    bench.peer(&node(9, 1));
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
}

#[test]
fn a_leave_is_at_once_and_is_passed_on() {
    let mut bench = Bench::new(&[]);
    let witness = bench.peer(&node(7, 1));
    let leaver = bench.peer(&node(9, 1));
    bench.messages(witness);
    bench.links();
    bench.say(leaver, &Message::Leave);
    assert_eq!(bench.links(), ["n9 left"]);
    let left = vec![Departure {
        id: PeerId([9; 8]),
        run: 1,
    }];
    assert_eq!(
        bench.messages(witness),
        [Message::Peers {
            known: vec![],
            left: left.clone()
        }]
    );
    // Late news of it do not bring it back; told again, nobody is told again.
    bench.say(
        witness,
        &Message::Peers {
            known: vec![known(9, 1)],
            left,
        },
    );
    assert_eq!((bench.view(9), bench.messages(witness)), (None, vec![]));
    // A new run is welcome.
    bench.say(
        witness,
        &Message::Peers {
            known: vec![known(9, 2)],
            left: vec![],
        },
    );
    assert!(bench.view(9).is_some());
}

#[test]
fn a_leaver_that_could_not_tell_me_is_removed_on_the_word_of_others() {
    let mut bench = Bench::new(&[]);
    let witness = bench.peer(&node(7, 1));
    let lost = bench.peer(&node(9, 1));
    bench.links();
    let left = vec![
        Departure {
            id: PeerId([9; 8]),
            run: 1,
        },
        Departure {
            id: PeerId([5; 8]),
            run: 1,
        },
    ];
    bench.say(
        witness,
        &Message::Peers {
            known: vec![],
            left,
        },
    );
    assert!(
        bench.view(9).unwrap().connected,
        "its own connection counts for more"
    );
    bench.input(Input::Closed {
        conn: lost,
        reason: "end of stream".into(),
    });
    assert_eq!(bench.links(), ["n9 left"]);
}

#[test]
fn i_leave_with_a_word_to_all() {
    let mut bench = Bench::new(&["seed"]);
    let peer = bench.peer(&node(9, 1));
    let stranger = bench.accept(7);
    bench.take();
    bench.input(Input::Leave);
    assert_eq!(bench.messages(peer).last(), Some(&Message::Leave));
    assert_eq!(
        refusal(&bench.messages(stranger)),
        Some(RefusalCode::Leaving)
    );
    assert_eq!(bench.links(), ["n9 left"]);
    let late = bench.accept(8);
    assert_eq!(refusal(&bench.messages(late)), Some(RefusalCode::Leaving));
    assert_eq!(
        (bench.mesh.poll_timeout(), bench.mesh.has_left()),
        (None, true)
    );
}

#[test]
fn i6_tables_are_bounded() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.peers = 2;
    config.limits.handshakes = 2;
    config.limits.targets = 1;
    config.limits.addresses = 2;
    config.targets = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    let mut bench = Bench::with(config);
    assert_eq!(bench.mesh.counters().targets_full, 1);

    let first = bench.peer(&node(6, 1));
    let second = bench.peer(&node(7, 1));
    bench.say(
        first,
        &Message::Peers {
            known: vec![known(8, 1)],
            left: vec![],
        },
    );
    assert_eq!((bench.view(8), bench.mesh.counters().peers_full), (None, 1));
    let third = bench.peer(&node(9, 1));
    assert_eq!(refusal(&bench.messages(third)), Some(RefusalCode::Busy));

    let mut many = known(7, 1);
    many.addresses = (1..=4).map(address).collect();
    bench.say(
        first,
        &Message::Peers {
            known: vec![many],
            left: vec![],
        },
    );
    assert!(bench.mesh.counters().addresses_evicted > 0);

    // A peer that is down makes room for one that is there.
    bench.input(Input::Closed {
        conn: second,
        reason: "gone".into(),
    });
    for _ in 0..4 {
        bench.wait(S(20));
        bench.say(first, &Message::Ping(0));
    }
    bench.peer(&node(9, 1));
    assert!(bench.view(9).unwrap().connected && bench.view(7).is_none());
    assert_eq!(bench.mesh.counters().peers_evicted, 1);

    bench.accept(20);
    bench.accept(21);
    let over = bench.accept(22);
    assert_eq!(refusal(&bench.messages(over)), Some(RefusalCode::Busy));
}

#[test]
fn a_peer_that_never_returns_is_forgotten() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.input(Input::Closed {
        conn,
        reason: "gone".into(),
    });
    let mut dials = 0;
    while bench.view(9).is_some() {
        let Some((conn, _)) = bench.next_dial(S(3600)) else {
            break;
        };
        dials += 1;
        bench.input(Input::DialFailed {
            conn,
            error: DialError::Failed("no route".into()),
        });
    }
    assert!(
        bench.now >= S(24 * 3600) && bench.now < S(25 * 3600),
        "{:?}",
        bench.now
    );
    assert!((100..400).contains(&dials), "{dials} dials in a day");
    assert_eq!(bench.view(9), None);
}
