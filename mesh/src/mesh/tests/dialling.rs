use super::*;

#[test]
fn back_off_grows_and_keeps_trying() {
    let mut bench = Bench::new(&["seed"]);
    let mut times = Vec::new();
    for _ in 0..20 {
        let (conn, target) = bench.next_dial(S(120)).unwrap();
        assert_eq!(target.to_string(), "seed:6783");
        times.push(bench.now);
        let error = DialError::Failed("connection refused".into());
        bench.input(Input::DialFailed { conn, error });
    }
    let waits: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits[0] >= S(1) && waits[0] <= S(3), "{waits:?}");
    assert!(waits.iter().all(|wait| *wait <= S(90)));
    assert!(waits[15..].iter().all(|wait| *wait >= S(30)), "{waits:?}");
    let view = &bench.mesh.targets(bench.now)[0];
    assert_eq!(view.reason.as_deref(), Some("connection refused"));
}

#[test]
fn i_recognise_myself_and_do_not_try_again_soon() {
    let mut bench = Bench::new(&["10.0.0.5", "cluster.example"]);
    let mut dials = BTreeMap::new();
    for _ in 0..2 {
        let (conn, target) = bench.next_dial(S(1)).unwrap();
        dials.insert(target.to_string(), conn);
    }
    let literal = dials["10.0.0.5:6783"];
    bench.input(Input::Dialled {
        conn: literal,
        remote: address(5),
    });
    let accepted = bench.accept(5);
    bench.greet(literal, &node(5, 1));
    bench.greet(accepted, &node(5, 1));
    assert_eq!(refusal(&bench.messages(literal)), Some(RefusalCode::Myself));
    assert_eq!(bench.mesh.counters().dialled_myself, 1);
    assert_eq!(bench.mesh.conditions(bench.now), []);
    // The name goes on, with this address to be avoided, until nothing else is left of it.
    let named = dials["cluster.example:6783"];
    bench.input(Input::DialFailed {
        conn: named,
        error: DialError::Failed("refused".into()),
    });
    bench.take();
    let (conn, target) = bench.next_dial(S(5)).unwrap();
    assert_eq!(target.to_string(), "cluster.example:6783");
    bench.input(Input::DialFailed {
        conn,
        error: DialError::OnlyMyself,
    });
    assert!(
        bench
            .mesh
            .targets(bench.now)
            .iter()
            .all(|view| view.state == TargetState::Myself)
    );
    assert_eq!(bench.next_dial(S(250)), None);
    assert!(
        bench.next_dial(S(700)).is_some(),
        "some day the name may mean somebody else"
    );
}

#[test]
fn dials_avoid_what_is_myself() {
    let mut bench = Bench::new(&["10.0.0.5"]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    bench.input(Input::Dialled {
        conn,
        remote: address(5),
    });
    bench.greet(conn, &node(5, 1));
    bench.take();
    bench.input(Input::Connect("cluster.example".parse().unwrap()));
    bench.wait(S(1));
    let avoids = |o: &Output| matches!(o, Output::Dial { avoid, .. } if *avoid == [address(5)]);
    assert!(bench.take().iter().any(avoids));
    // Nor is it learned as the address of another.
    let peer = bench.peer(&node(9, 1));
    let mut confused = entry(7, 1, &[9]);
    confused.addresses = vec![address(5)];
    bench.tell(peer, [entry(9, 2, &[5, 7]), confused]);
    bench.take();
    bench.wait(S(5));
    assert!(
        !bench
            .take()
            .iter()
            .any(|o| matches!(o, Output::Dial { .. }))
    );
}

/// A machine tells others on it of loopback, and of nothing else.
#[test]
fn local_addresses_are_for_this_machine() {
    let local = SocketAddr::from(([127, 0, 0, 1], 6783));
    for here in [false, true] {
        let mut bench = Bench::new(&[]);
        let conn = bench.accept(9);
        let mut hello = node(9, 1);
        hello.seen = here.then_some(local);
        bench.join(conn, &hello);
        let mut other = entry(7, 1, &[9]);
        other.addresses = vec![SocketAddr::from(([127, 0, 0, 1], 7777))];
        bench.tell(conn, [entry(9, 2, &[5, 7]), other]);
        assert_eq!(bench.next_dial(S(5)).is_some(), here);
        assert_eq!(bench.view(7).unwrap().endpoint.is_some(), here);
    }
}

#[test]
fn another_node_at_a_known_address_is_another_node() {
    let mut bench = Bench::new(&[]);
    let seed = bench.peer(&node(6, 1));
    bench.tell(seed, [entry(6, 2, &[5, 9]), entry(9, 1, &[6])]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    bench.input(Input::Dialled {
        conn,
        remote: address(9),
    });
    bench.join(conn, &node(8, 1));
    let views = (bench.view(8).unwrap(), bench.view(9).unwrap());
    assert!(views.0.connected && !views.1.connected);
    let failure = &bench.mesh.dialled[&id(9)].failure;
    assert_eq!(failure.as_deref(), Some("another node answers there"));
}

#[test]
fn dials_wait_for_their_turn() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.dials = 2;
    config.targets = ["a", "b", "c", "d"]
        .iter()
        .map(|t| t.parse().unwrap())
        .collect();
    let mut bench = Bench::with(config);
    bench.wait(S(1));
    let first = bench.next_dial(S(0)).unwrap().0;
    bench.next_dial(S(0)).unwrap();
    assert_eq!(bench.next_dial(S(0)), None);
    bench.input(Input::DialFailed {
        conn: first,
        error: DialError::Failed("x".into()),
    });
    assert!(bench.next_dial(S(0)).is_some());
    assert_eq!(bench.next_dial(S(0)), None);
}

#[test]
fn forgotten_targets_are_not_dialled() {
    let mut bench = Bench::new(&["seed"]);
    bench.input(Input::Forget("seed".parse().unwrap()));
    assert_eq!(bench.next_dial(S(100)), None);
}
