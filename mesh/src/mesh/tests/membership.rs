use super::*;

#[test]
fn one_address_is_enough_the_others_are_learned_and_dialled() {
    let mut bench = Bench::new(&["10.0.0.9"]);
    let (conn, _) = bench.next_dial(S(1)).unwrap();
    let remote = address(9);
    bench.input(Input::Dialled { conn, remote });
    bench.join(conn, &node(9, 1));
    bench.tell(conn, [entry(9, 2, &[5, 7]), entry(7, 1, &[9])]);
    let (conn, target) = bench.next_dial(S(1)).unwrap();
    assert_eq!(target.to_string(), "10.0.0.7:6783");
    let remote = address(7);
    bench.input(Input::Dialled { conn, remote });
    bench.join(conn, &node(7, 1));
    assert_eq!(
        bench.links(),
        ["n9 up 10.0.0.9:6784", "n7 up 10.0.0.7:6784"]
    );
    assert_eq!(bench.next_dial(S(20)), None, "nobody else, and not myself");
}

#[test]
fn without_discovery_others_are_known_and_not_dialled() {
    let mut config = Config::new(node(5, 1), 1);
    config.discovery = false;
    let mut bench = Bench::with(config);
    let conn = bench.peer(&node(9, 1));
    bench.tell(conn, [entry(9, 2, &[5, 7]), entry(7, 1, &[9])]);
    assert_eq!(bench.next_dial(S(20)), None);
    let view = bench.view(7).unwrap();
    assert_eq!(
        (view.hops, view.via),
        (Some(2), Some("n9".parse().unwrap()))
    );
    assert_eq!(view.state, PeerState::Up);
}

/// With three neighbours, which have said what they say at first.
fn among_three() -> (Bench, [ConnId; 3]) {
    let mut bench = Bench::new(&[]);
    let conns = [7, 8, 9].map(|number| bench.peer(&node(number, 1)));
    bench.wait(S(2));
    for conn in conns {
        bench.messages(conn);
    }
    (bench, conns)
}

#[test]
fn news_are_announced_to_all_but_the_one_they_came_from() {
    let (mut bench, [a, b, c]) = among_three();
    bench.tell(a, [entry(20, 1, &[7])]);
    // One that tells them itself meanwhile need not be told.
    bench.tell(b, [entry(20, 1, &[7])]);
    assert_eq!(bench.announced(a, S(1)), []);
    assert_eq!(bench.announced(b, S(0)), []);
    assert_eq!(bench.announced(c, S(0)), [(id(20), 100)]);
    // Nor need one that announces them, and who asks is answered.
    let mut newer = entry(20, 1, &[7, 8]);
    newer.version += 1;
    bench.tell(a, [newer.clone()]);
    bench.announce(b, &newer);
    assert_eq!(bench.announced(b, S(1)), []);
    assert_eq!(bench.announced(c, S(0)), [(id(20), 101)]);
    bench.say(c, &Message::Ask(vec![id(20)]));
    assert_eq!(bench.entries(c, Duration::from_millis(10)), [newer.clone()]);
    // Who is behind is told.
    bench.tell(b, [entry(20, 1, &[7])]);
    assert_eq!(bench.entries(b, S(1)), [newer]);
    assert_eq!(bench.entries(a, S(0)), []);
}

#[test]
fn what_several_announce_is_asked_of_one_and_then_of_the_next() {
    let (mut bench, [a, b, c]) = among_three();
    let news = entry(20, 1, &[7]);
    let ask = [Message::Ask(vec![id(20)])];
    bench.announce(a, &news);
    bench.announce(b, &news);
    bench.announce(c, &news);
    assert_eq!(bench.messages(a), ask);
    // What it answers cannot be read, and the next goes.
    let mut unreadable = told(news.clone());
    unreadable.bytes.push(0xff);
    bench.say(a, &Message::Entries(vec![unreadable]));
    assert_eq!(bench.mesh.counters().malformed_entries, 1);
    bench.wait(S(3));
    assert!(bench.messages(b).contains(&ask[0]));
    let reason = "reset".to_owned();
    bench.input(Input::Closed { conn: b, reason });
    assert!(bench.messages(c).contains(&ask[0]), "at once");
    bench.tell(c, [news.clone()]);
    assert!(bench.view(20).is_some());
    assert_eq!(bench.mesh.counters().entries_late, 2);
    bench.wait(S(1));
    bench.messages(a);
    // What is known is not asked for.
    bench.announce(a, &news);
    assert!(!bench.messages(a).contains(&ask[0]));
    assert_eq!(bench.mesh.counters().announced_known, 1);
}

#[test]
fn equal_tables_cost_one_number_and_others_what_differs() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.peer(&node(200, 1));
    bench.wait(S(2));
    bench.messages(conn);
    let total = bench.mesh.roster.total();
    bench.say(conn, &Message::Digest(total));
    assert_eq!(bench.messages(conn), []);
    bench.say(conn, &Message::Digest(total ^ 1));
    let sums = *bench.mesh.roster.buckets();
    assert_eq!(bench.messages(conn), [Message::Buckets(Box::new(sums))]);
    // Part 50 (200 / 4) is another there.
    let mut theirs = sums;
    theirs[50] ^= 1;
    bench.say(conn, &Message::Buckets(Box::new(theirs)));
    let known = vec![(id(200), 100)];
    let buckets = 1 << 50;
    let answer = Message::Versions { buckets, known };
    assert_eq!(bench.messages(conn), [answer]);
    // It has an older one, and one that this node lacks.
    let known = vec![(id(200), 99), (id(201), 5)];
    bench.say(conn, &Message::Versions { buckets, known });
    assert_eq!(bench.messages(conn), [Message::Ask(vec![id(201)])]);
    assert_eq!(bench.entries(conn, S(1)), [entry(200, 1, &[5])]);
    bench.say(conn, &Message::Ask(vec![id(200), id(77)]));
    assert_eq!(bench.entries(conn, S(1)), [entry(200, 1, &[5])]);
}

#[test]
fn an_earlier_life_of_mine_does_not_count_for_more_than_this_one() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.wait(S(2));
    bench.messages(conn);
    let mut earlier = entry(5, 7, &[]);
    earlier.version = 1_000_000;
    bench.tell(conn, [earlier]);
    let [mine] = &bench.entries(conn, S(1))[..] else {
        panic!("one entry")
    };
    assert_eq!((mine.id, mine.run, mine.version), (id(5), 1, 1_000_001));
    assert_eq!(mine.neighbours, [id(9)]);
    assert_eq!(bench.mesh.conditions(bench.now), []);
    // Again and again: it lives, and is another node. The answers become rare.
    for version in 1_000_002..1_000_020 {
        let mut other = entry(5, 7, &[]);
        other.version = version;
        bench.tell(conn, [other]);
    }
    let kinds: Vec<_> = bench
        .mesh
        .conditions(bench.now)
        .into_iter()
        .map(|c| c.kind)
        .collect();
    assert_eq!(kinds, [ConditionKind::DuplicateIdentity]);
    assert!(bench.entries(conn, S(5)).len() <= 1);
}

#[test]
fn i6_entries_that_cannot_be_are_counted_and_cost_nothing_else() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.links();
    let rubbish = Told {
        idle: 0,
        bytes: vec![0xff; 40],
    };
    let short = Told {
        idle: 0,
        bytes: vec![1],
    };
    let mut forged = entry(9, 9, &[5]);
    forged.public_key = [1; 32];
    let messages = vec![rubbish, short, told(forged), told(entry(20, 1, &[9]))];
    bench.say(conn, &Message::Entries(messages));
    let counters = bench.mesh.counters();
    assert_eq!(
        (counters.malformed_entries, counters.entries_refused),
        (2, 1)
    );
    assert!(bench.view(9).unwrap().connected && bench.view(20).is_some());
}

#[test]
fn i6_the_table_is_bounded() {
    let mut config = Config::new(node(5, 1), 1);
    config.limits.peers = 2;
    let mut bench = Bench::with(config);
    let first = bench.peer(&node(6, 1));
    bench.peer(&node(7, 1));
    bench.tell(first, [entry(8, 1, &[])]);
    assert_eq!((bench.view(8), bench.mesh.counters().peers_full), (None, 1));
    let third = bench.peer(&node(9, 1));
    assert_eq!(refusal(&bench.messages(third)), Some(RefusalCode::Busy));
    // One that is out of reach makes room.
    bench.input(Input::Closed {
        conn: first,
        reason: "gone".into(),
    });
    bench.wait(S(20));
    bench.wait(S(50));
    bench.peer(&node(9, 1));
    assert!(bench.view(9).unwrap().connected && bench.view(6).is_none());
    assert!(bench.mesh.counters().peers_evicted > 0);
}

#[test]
fn a_peer_that_never_returns_is_forgotten_by_all_at_once() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    // Others know that this one has been out of reach for 23 hours.
    let idle = 23 * 3600;
    let mut lost = told(entry(8, 1, &[]));
    lost.idle = idle;
    bench.say(conn, &Message::Entries(vec![lost]));
    assert!(bench.view(8).is_some());
    let mut dials = 0;
    while bench.view(8).is_some() {
        bench.now += S(10);
        bench.say(conn, &Message::Pong(0));
        bench.input(Input::Timeout);
        while let Some((conn, _)) = bench.next_dial(S(0)) {
            dials += 1;
            let error = DialError::Failed("no route".into());
            bench.input(Input::DialFailed { conn, error });
        }
    }
    assert!((S(3600)..S(3700)).contains(&bench.now), "{:?}", bench.now);
    assert!((30..100).contains(&dials), "{dials} dials in an hour");
    // Late news do not bring it back; it does itself.
    bench.tell(conn, [entry(8, 1, &[])]);
    assert_eq!(bench.view(8), None);
    bench.tell(conn, [entry(8, 2, &[])]);
    assert!(bench.view(8).is_some());
}

#[test]
fn the_own_entry_says_where_others_see_this_node() {
    let mut bench = Bench::new(&[]);
    let conn = bench.accept(9);
    let mut hello = node(9, 1);
    hello.seen = Some(SocketAddr::from(([192, 0, 2, 5], 7000)));
    bench.join(conn, &hello);
    let entries = bench.entries(conn, S(2));
    let mine = entries.iter().rfind(|entry| entry.id == id(5)).unwrap();
    assert_eq!(mine.addresses, [hello.seen.unwrap()]);
    assert_eq!(mine.neighbours, [id(9)]);
}

#[test]
fn a_name_may_change() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.links();
    let mut renamed = entry(9, 2, &[5]);
    renamed.name = "other".parse().unwrap();
    bench.tell(conn, [renamed]);
    let outputs = bench.take();
    let told = |output: &Output| matches!(output, Output::Unreachable { name, .. } if name.as_str() == "n9");
    assert!(outputs.iter().any(told), "{outputs:?}");
    let told = |output: &Output| matches!(output, Output::Reachable { name, .. } if name.as_str() == "other");
    assert!(outputs.iter().any(told), "{outputs:?}");
    let up = |output: &Output| matches!(output, Output::Link(LinkChange::Up { name, .. }) if name.as_str() == "other");
    assert!(outputs.iter().any(up), "{outputs:?}");
}

#[test]
fn of_two_nodes_with_one_name_the_first_is_heard_and_both_keep_their_links() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.tell(conn, [entry(9, 2, &[5, 6, 7]), entry(7, 1, &[9])]);
    bench.take();
    // They joined at two ends of the network at the same time.
    let mut twin = entry(6, 1, &[9]);
    twin.name = "n7".parse().unwrap();
    bench.tell(conn, [twin.clone()]);
    let outputs = bench.take();
    let link = |output: &Output| matches!(output, Output::Link(LinkChange::Down { .. }));
    assert!(!outputs.iter().any(link));
    let of = |outputs: &[Output]| -> Vec<String> {
        let told = outputs.iter().filter_map(|output| match output {
            Output::Reachable { id, .. } => Some(format!("{id} can")),
            Output::Unreachable { id, .. } => Some(format!("{id} cannot")),
            _ => None,
        });
        told.collect()
    };
    assert_eq!(
        of(&outputs),
        ["0707070707070707 cannot", "0606060606060606 can"]
    );
    let condition = &bench.mesh.conditions(bench.now)[0];
    assert_eq!(condition.kind, ConditionKind::DuplicateName);
    for part in ["0707070707070707", "0606060606060606", "--name"] {
        assert!(condition.message.contains(part), "{}", condition.message);
    }
    assert_eq!(bench.view(6).unwrap().state, PeerState::Up);
    assert_eq!(bench.view(7).unwrap().state, PeerState::Up);
    // What the second says is not taken for the first one's words.
    let parcel = crate::message::Parcel {
        from: id(7),
        to: id(5),
        hops: 3,
        channel: 1,
        payload: vec![],
    };
    bench.say(conn, &Message::Parcel(parcel));
    assert_eq!(bench.mesh.counters().gossip_unknown, 1);
    // The first gets another name: the second is heard.
    twin.version += 1;
    twin.name = "of-its-own".parse().unwrap();
    bench.tell(conn, [twin]);
    assert_eq!(
        of(&bench.take()),
        [
            "0606060606060606 cannot",
            "0707070707070707 can",
            "0606060606060606 can"
        ]
    );
}

#[test]
fn one_of_my_name_that_comes_first_silences_me_while_it_is_there() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    bench.tell(conn, [entry(9, 2, &[4, 5])]);
    let mut twin = entry(4, 1, &[9]);
    twin.name = "n5".parse().unwrap();
    bench.tell(conn, [twin.clone()]);
    let gossip = || Input::SendGossip {
        to: Some(id(9)),
        channel: 1,
        payload: vec![],
    };
    bench.messages(conn);
    bench.input(gossip());
    assert_eq!(bench.messages(conn), []);
    assert_eq!(bench.view(9).unwrap().state, PeerState::Up);
    twin.version += 1;
    twin.left = true;
    bench.tell(conn, [twin]);
    bench.messages(conn);
    bench.input(gossip());
    assert!(matches!(bench.messages(conn)[..], [Message::Parcel(_)]));
}

/// The groups that a peer wants are told when its entry says so; all, once it is not heard any more.
#[test]
fn groups_that_a_peer_wants_are_told_while_it_is_heard() {
    let mut bench = Bench::new(&[]);
    let conn = bench.peer(&node(9, 1));
    let groups = |outputs: Vec<Output>| -> Vec<Groups> {
        let of_9 = |output| match output {
            Output::Groups { id, groups } if id == PeerId([9; 8]) => Some(groups),
            _ => None,
        };
        outputs.into_iter().filter_map(of_9).collect()
    };
    assert_eq!(groups(bench.take()), [], "all is what is taken for granted");
    let some = Groups::new([wire::Mac([1, 0, 0x5e, 1, 2, 3])]);
    let mut said = entry(9, 2, &[5]);
    said.groups = some.clone();
    bench.tell(conn, [said.clone()]);
    assert_eq!(groups(bench.take()), [some]);
    said.version += 1;
    bench.tell(conn, [said]);
    assert_eq!(groups(bench.take()), []);
    let reason = "gone".to_owned();
    bench.input(Input::Closed { conn, reason });
    bench.wait(S(30));
    assert_eq!(groups(bench.take()), [Groups::All]);
}
