use super::*;

#[test]
fn i5_a_message_that_cannot_be_read_costs_nothing_else() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.links();
    for _ in 0..40 {
        // A ping whose body is none.
        let bytes = vec![0, 0, 0, 3, 7, 0x0a, 0xff];
        bench.input(Input::Received { conn, bytes });
        // And one that does not belong here.
        bench.say(conn, &Message::Welcome);
        bench.messages(conn);
        bench.say(conn, &Message::Ping(3));
        assert_eq!(bench.messages(conn), [Message::Pong(3)]);
    }
    assert_eq!(bench.links(), [""; 0]);
    assert!(bench.view(9).unwrap().connected);
    assert_eq!(bench.mesh.counters().malformed, 80);
}

#[test]
fn i5_a_broken_stream_costs_the_connection_and_not_the_link() {
    let mut bench = Bench::new(&[]);
    let mut conn = bench.peer(&node(9, 1));
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
    // Again and again for ten minutes: as often as it comes back, it sends rubbish.
    for _ in 0..40 {
        let bytes = vec![0; 4];
        bench.input(Input::Received { conn, bytes });
        assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Malformed));
        let view = bench.view(9).unwrap();
        assert!(!view.connected && view.state == PeerState::Up);
        assert!(view.reason.unwrap().contains("has no kind"));
        bench
            .outputs
            .retain(|output| matches!(output, Output::Link(_) | Output::Dial { .. }));
        conn = bench
            .next_dial(S(59))
            .expect("dialled again within the grace")
            .0;
        let remote = address(9);
        bench.input(Input::Dialled { conn, remote });
        bench.join(conn, &node(9, 1));
        bench.wait(S(2));
        bench.messages(conn);
    }
    assert_eq!(bench.links(), [""; 0]);
    assert_eq!(bench.mesh.counters().malformed, 40);
}

#[test]
fn i5_a_lost_connection_has_its_grace_then_the_link_goes_down() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.take();
    bench.input(Input::Closed {
        conn,
        reason: "reset".into(),
    });
    bench.wait(S(4));
    let told = |o: &Output| matches!(o, Output::Unreachable { .. });
    assert!(!bench.take().iter().any(told), "a way round may be found");
    bench.wait(S(2));
    assert!(bench.take().iter().any(told));
    bench.wait(S(53));
    assert_eq!(bench.links(), [""; 0]);
    bench.wait(S(1));
    assert_eq!(bench.links(), ["n9 down"]);
    let view = bench.view(9).unwrap();
    assert_eq!(
        (view.state, view.reason.as_deref()),
        (PeerState::Down, Some("reset"))
    );
    bench.peer(&node(9, 1));
    bench.wait(S(1));
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
}

/// Found in namespaces: the entry of a restarted peer came before it counted as reached, and its new
/// MTU was never told, because the link was still up.
#[test]
fn what_a_restarted_peer_changed_is_told_though_its_link_never_went_down() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.take();
    bench.input(Input::Closed {
        conn,
        reason: "reset".into(),
    });
    let conn = bench.accept(9);
    bench.shake_hands(conn, &node(9, 2));
    let mut changed = entry(9, 2, &[5]);
    changed.mtu = 1300;
    bench.tell(conn, [changed]);
    let mtus: Vec<u16> = bench
        .take()
        .into_iter()
        .filter_map(|output| match output {
            Output::Link(LinkChange::Up { path, .. }) => Some(path.mtu),
            _ => None,
        })
        .collect();
    assert_eq!(mtus, [1300]);
}

/// The control connection is lost, the way through others is not: nothing is noticed.
#[test]
fn i5_a_peer_that_others_reach_is_up() {
    let mut bench = Bench::new(&[]);
    let witness = bench.peer(&node(7, 1));
    let lost = bench.peer(&node(9, 1));
    bench.tell(witness, [entry(7, 2, &[5, 9]), entry(9, 2, &[5, 7])]);
    bench.take();
    bench.input(Input::Closed {
        conn: lost,
        reason: "reset".into(),
    });
    for _ in 0..10 {
        bench.wait(S(10));
        bench.say(witness, &Message::Pong(0));
    }
    let noticed = |o: &Output| matches!(o, Output::Link(_) | Output::Unreachable { .. });
    assert!(!bench.take().iter().any(noticed));
    let view = bench.view(9).unwrap();
    assert_eq!((view.state, view.hops), (PeerState::Up, Some(2)));
}

#[test]
fn a_leave_is_at_once_and_is_passed_on() {
    let mut bench = Bench::new(&[]);
    let witness = bench.peer(&node(7, 1));
    let leaver = bench.peer(&node(9, 1));
    bench.wait(S(1));
    bench.messages(witness);
    bench.links();
    let mut farewell = entry(9, 1, &[]);
    (farewell.left, farewell.version) = (true, 101);
    bench.tell(leaver, [farewell.clone()]);
    assert_eq!(bench.links(), ["n9 left"]);
    let leaving = Refusal::new(RefusalCode::Leaving, "this node leaves");
    bench.say(leaver, &Message::Refuse(leaving));
    assert_eq!(bench.view(9), None);
    assert_eq!(bench.announced(witness, S(1)), [(id(9), 101)]);
    bench.say(witness, &Message::Ask(vec![id(9)]));
    let passed_on = bench.entries(witness, S(1));
    assert!(passed_on.contains(&farewell), "{passed_on:?}");
    // Late news of it do not bring it back; they are answered.
    bench.tell(witness, [entry(9, 1, &[7])]);
    assert_eq!(bench.view(9), None);
    assert_eq!(bench.entries(witness, S(1)), [farewell]);
    // A new run is welcome.
    bench.tell(witness, [entry(9, 2, &[])]);
    assert!(bench.view(9).is_some());
}

#[test]
fn a_leaver_that_could_not_tell_me_is_removed_on_the_word_of_others() {
    let mut bench = Bench::new(&[]);
    let witness = bench.peer(&node(7, 1));
    bench.peer(&node(9, 1));
    bench.links();
    let mut farewell = entry(9, 1, &[]);
    (farewell.left, farewell.version) = (true, 101);
    bench.tell(witness, [farewell]);
    assert_eq!(bench.links(), ["n9 left"]);
}

#[test]
fn i_leave_with_a_word_to_all_and_may_come_back() {
    let mut bench = Bench::new(&["seed"]);
    let peer = bench.peer(&node(9, 1));
    let stranger = bench.accept(7);
    bench.take();
    bench.messages(peer);
    bench.input(Input::Leave);
    let messages = bench.messages(peer);
    let [Message::Entries(last), Message::Refuse(why)] = &messages[..] else {
        panic!("{messages:?}")
    };
    let farewell = Sealed::read(&last[0].bytes).unwrap();
    assert!(farewell.left && farewell.id == id(5) && why.code == RefusalCode::Leaving);
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
    assert_eq!(bench.mesh.targets(bench.now), []);

    bench.input(Input::Connect("10.0.0.9".parse().unwrap()));
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    let remote = address(9);
    bench.input(Input::Dialled { conn, remote });
    bench.join(conn, &node(9, 1));
    let mine = bench.entries(conn, S(1));
    assert!(
        mine.iter()
            .all(|entry| entry.version > farewell.version && !entry.left)
    );
    assert_eq!(bench.links(), ["n9 up 10.0.0.9:6784"]);
}

/// As after a restart: it is not in the network until it is told to be.
#[test]
fn one_that_begins_away_dials_and_accepts_nobody_until_it_is_told_to() {
    let mut config = Config::new(node(5, 1), 1);
    config.targets = vec!["10.0.0.9".parse().unwrap()];
    config.away = true;
    let mut bench = Bench::with(config);
    assert_eq!(bench.next_dial(S(100)), None);
    let conn = bench.accept(7);
    assert_eq!(refusal(&bench.messages(conn)), Some(RefusalCode::Leaving));
    bench.input(Input::Connect("10.0.0.8".parse().unwrap()));
    let (_, target) = bench.next_dial(S(2)).unwrap();
    assert_eq!(target.to_string(), "10.0.0.8:6783");
    assert!(!bench.mesh.has_left());
}

#[test]
fn i6_handshakes_and_targets_are_bounded() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.handshakes = 2;
    config.limits.targets = 1;
    config.limits.remembered = 3;
    config.targets = vec!["a".parse().unwrap(), "b".parse().unwrap()];
    config.remembered = (10..20).map(address).collect();
    let mut bench = Bench::with(config);
    assert_eq!(bench.mesh.counters().targets_full, 1);
    assert_eq!(bench.mesh.targets.len(), 4);
    bench.accept(20);
    bench.accept(21);
    let over = bench.accept(22);
    assert_eq!(refusal(&bench.messages(over)), Some(RefusalCode::Busy));
}
