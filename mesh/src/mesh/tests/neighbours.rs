use super::*;

/// In the middle of the others, so that the circle of 5 does not lead to it.
const DOOR: u8 = 50;

/// 5 in a network of many, all of which are reached through its door.
fn crowd(bench: &mut Bench, door: ConnId, count: u8) {
    let others: Vec<u8> = (20..20 + count).filter(|other| *other != DOOR).collect();
    let mut list = others.clone();
    list.push(5);
    bench.tell(door, [entry(DOOR, 2, &list)]);
    bench.tell(door, others.iter().map(|number| entry(*number, 1, &[DOOR])));
}

/// Answers all dials of the next time as the nodes that they are for.
fn answer(bench: &mut Bench, within: Duration) -> Vec<(u8, ConnId)> {
    let end = bench.now + within;
    let mut answered = Vec::new();
    while let Some((conn, target)) = bench.next_dial(end.saturating_sub(bench.now)) {
        let remote = target.literal().unwrap();
        let IpAddr::V4(ip) = remote.ip() else {
            panic!("{ip}", ip = remote.ip())
        };
        let number = ip.octets()[3];
        bench.input(Input::Dialled { conn, remote });
        bench.shake_hands(conn, &node(number, 1));
        answered.push((number, conn));
    }
    answered
}

/// 5 in a network of many, with its door and with those that it has chosen.
fn newcomer() -> (Bench, ConnId, Vec<(u8, ConnId)>) {
    let mut bench = Bench::new(&[]);
    let door = bench.peer(&node(DOOR, 1));
    crowd(&mut bench, door, 60);
    let answered = answer(&mut bench, S(1));
    (bench, door, answered)
}

#[test]
fn a_newcomer_connects_with_few_and_lets_go_of_its_door() {
    let (mut bench, door, answered) = newcomer();
    // Four in the circle and two at random.
    assert_eq!(answered.len(), 6, "{answered:?}");
    for number in [21, 20, 79, 78] {
        let known = answered.iter().any(|(other, _)| *other == number);
        assert!(known, "{number} of {answered:?}");
    }
    // Nobody needs the door, and there are other ways: it is closed after a while.
    for (number, conn) in &answered {
        bench.tell(*conn, [entry(*number, 2, &[5, DOOR])]);
    }
    bench.wait(S(1));
    assert!(bench.messages(door).contains(&Message::Need(false)));
    assert!(
        bench.view(DOOR).unwrap().connected,
        "the other side needs it"
    );
    bench.say(door, &Message::Need(false));
    for _ in 0..4 {
        bench.wait(S(5));
        for (_, conn) in &answered {
            bench.say(*conn, &Message::Pong(0));
        }
        bench.say(door, &Message::Pong(0));
    }
    assert_eq!(refusal(&bench.messages(door)), Some(RefusalCode::Spare));
    assert_eq!(bench.view(DOOR).unwrap().hops, Some(2));
    assert_eq!(bench.mesh.counters().spared, 1);
}

#[test]
fn what_nobody_needs_is_told_nothing_until_it_is_needed_again() {
    let (mut bench, door, answered) = newcomer();
    for (number, conn) in &answered {
        bench.tell(*conn, [entry(*number, 2, &[5, DOOR])]);
    }
    bench.wait(S(1));
    let (_, other) = answered[0];
    let news = |version| {
        let mut news = entry(70, 1, &[DOOR]);
        news.version = version;
        news
    };
    bench.messages(door);
    bench.tell(other, [news(101)]);
    assert_eq!(
        bench.announced(door, S(1)),
        [(id(70), 101)],
        "it is needed there"
    );
    bench.say(door, &Message::Need(false));
    bench.messages(door);
    bench.tell(other, [news(102)]);
    assert_eq!(bench.announced(door, S(1)), []);
    // What it has missed is found.
    bench.say(door, &Message::Need(true));
    let total = bench.mesh.roster.total();
    assert!(bench.messages(door).contains(&Message::Digest(total)));
    bench.tell(other, [news(103)]);
    assert_eq!(bench.announced(door, S(1)), [(id(70), 103)]);
}

#[test]
fn a_connection_that_is_the_only_way_to_somebody_is_kept() {
    let (mut bench, door, answered) = newcomer();
    // As their entries say, they have no way to the others but through this node.
    for (number, conn) in &answered {
        bench.tell(*conn, [entry(*number, 2, &[5])]);
    }
    bench.say(door, &Message::Need(false));
    for _ in 0..20 {
        bench.wait(S(5));
        bench.say(door, &Message::Pong(0));
        for (_, conn) in &answered {
            bench.say(*conn, &Message::Pong(0));
        }
    }
    assert!(bench.view(DOOR).unwrap().connected);
}

#[test]
fn those_that_do_not_answer_have_others_in_their_place() {
    let mut bench = Bench::new(&[]);
    let door = bench.peer(&node(DOOR, 1));
    crowd(&mut bench, door, 60);
    // Nobody answers; the door talks.
    let mut tried = BTreeMap::<u8, u32>::new();
    let end = bench.now + S(300);
    while bench.now < end {
        bench.say(door, &Message::Pong(0));
        if let Some((conn, target)) = bench.next_dial(S(5)) {
            let IpAddr::V4(ip) = target.literal().unwrap().ip() else {
                panic!("{target}")
            };
            *tried.entry(ip.octets()[3]).or_default() += 1;
            let error = DialError::Failed("no answer".into());
            bench.input(Input::DialFailed { conn, error });
        } else {
            bench.now += S(5);
        }
    }
    assert!(tried.len() > 30, "{tried:?}");
    assert!(tried.values().all(|count| *count < 30), "{tried:?}");
    assert!(
        bench.view(DOOR).unwrap().connected,
        "its only foothold is kept"
    );
}

#[test]
fn one_more_than_the_limit_is_told_of_others() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.connections = 2;
    let mut bench = Bench::with(config);
    let first = bench.peer(&node(7, 1));
    let second = bench.peer(&node(9, 1));
    bench.messages(first);
    let third = bench.accept(8);
    bench.greet(third, &node(8, 1));
    let messages = bench.messages(third);
    let Some(Message::Refuse(refused)) = messages.last() else {
        panic!("{messages:?}")
    };
    assert_eq!(refused.code, RefusalCode::Busy);
    assert!(refused.text.contains("--conn-limit"), "{}", refused.text);
    assert_eq!(bench.mesh.counters().refused_full, 1);
    let mut instead = refused.instead.clone();
    instead.sort_unstable();
    assert_eq!(instead, [address(7), address(9)]);
    // The same peer may come again.
    let again = bench.peer(&node(9, 2));
    assert_eq!(
        refusal(&bench.messages(second)),
        Some(RefusalCode::Replaced)
    );
    assert!(bench.view(9).unwrap().connected);
    let _ = again;
}

/// The limit is for those who come: whom this node needs itself it connects with.
#[test]
fn at_the_limit_a_node_dials_all_the_same() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.connections = 1;
    config.targets = vec!["10.0.0.9".parse().unwrap()];
    let mut bench = Bench::with(config);
    bench.peer(&node(7, 1));
    let (conn, _) = bench.next_dial(S(2)).unwrap();
    let remote = address(9);
    bench.input(Input::Dialled { conn, remote });
    bench.join(conn, &node(9, 1));
    assert!(bench.view(7).unwrap().connected && bench.view(9).unwrap().connected);
}

#[test]
fn one_that_is_refused_tries_the_others_it_is_told_of() {
    let mut bench = Bench::new(&["10.0.0.9"]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    let remote = address(9);
    bench.input(Input::Dialled { conn, remote });
    bench.greet(conn, &node(9, 1));
    let refuse = Refusal {
        instead: vec![address(7), address(8)],
        ..Refusal::new(RefusalCode::Busy, "full")
    };
    bench.say(conn, &Message::Refuse(refuse));
    let (conn, target) = bench.next_dial(S(1)).unwrap();
    assert!(["10.0.0.7:6783", "10.0.0.8:6783"].contains(&target.to_string().as_str()));
    let remote = target.literal().unwrap();
    let IpAddr::V4(ip) = remote.ip() else {
        panic!("{remote}")
    };
    bench.input(Input::Dialled { conn, remote });
    bench.join(conn, &node(ip.octets()[3], 1));
    // They are not the operator's targets.
    let named: Vec<String> = bench
        .mesh
        .targets(bench.now)
        .iter()
        .map(|t| t.target.to_string())
        .collect();
    assert_eq!(named, ["10.0.0.9:6783"]);
    // The other may know nodes that the first does not.
    let mut dialled = once_more(&mut bench);
    dialled.retain(|again| again.to_string() != named[0]);
    assert!(dialled.len() == 1 && dialled[0] != target, "{dialled:?}");
}

/// Where a node that has a connection still looks for others, in vain: at each address once.
fn once_more(bench: &mut Bench) -> Vec<Target> {
    let mut dialled = Vec::new();
    // For longer a neighbour that says nothing is not taken for alive.
    let end = bench.now + S(18);
    while let Some((conn, target)) = bench.next_dial(end.saturating_sub(bench.now)) {
        dialled.push(target);
        let error = DialError::Failed("no route".into());
        bench.input(Input::DialFailed { conn, error });
    }
    assert!(bench.mesh.targets.values().all(|entry| !entry.remembered));
    dialled
}

#[test]
fn remembered_addresses_are_dialled_until_one_answers_and_then_once() {
    let mut config = Config::new(node(5, 1), 1);
    config.remembered = (6..=9).map(address).collect();
    let mut bench = Bench::with(config);
    let (conn, target) = bench.next_dial(S(1)).unwrap();
    let error = DialError::Failed("no route".into());
    bench.input(Input::DialFailed { conn, error });
    let (conn, second) = bench.next_dial(S(1)).unwrap();
    assert_ne!(target, second);
    let remote = second.literal().unwrap();
    bench.input(Input::Dialled { conn, remote });
    let IpAddr::V4(ip) = remote.ip() else {
        panic!("{remote}")
    };
    bench.join(conn, &node(ip.octets()[3], 1));
    bench.take();
    assert_eq!(bench.next_dial(S(4)), None);
    assert_eq!(bench.mesh.targets(bench.now), []);
    assert_eq!(bench.mesh.addresses(), [remote]);
    // Where all have started together, who answered may know few others.
    let mut others: Vec<Target> = (6..=9).map(address).map(Target::from).collect();
    others.retain(|target| *target != second);
    let mut dialled = once_more(&mut bench);
    dialled.sort();
    assert_eq!(dialled, others);
}

/// All nodes together try one that is out of reach once a second, not each of them.
#[test]
fn peers_out_of_reach_are_tried_by_turns() {
    let mut bench = Bench::new(&[]);
    let door = bench.peer(&node(DOOR, 1));
    crowd(&mut bench, door, 60);
    bench.tell(door, (100..104).map(|number| entry(number, 1, &[])));
    let mut tried = 0;
    let end = bench.now + S(1200);
    while bench.now < end {
        bench.say(door, &Message::Pong(0));
        let Some((conn, target)) = bench.next_dial(S(5)) else {
            bench.now += S(5);
            continue;
        };
        let IpAddr::V4(ip) = target.literal().unwrap().ip() else {
            panic!("{target}")
        };
        tried += u32::from(ip.octets()[3] >= 100);
        let error = DialError::Failed("no answer".into());
        bench.input(Input::DialFailed { conn, error });
    }
    assert!((10..35).contains(&tried), "{tried} in 1200 s by one of 62");
}
