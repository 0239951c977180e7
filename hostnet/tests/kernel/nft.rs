use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::process::Command;
use std::time::Duration;

use hostnet::nft::{
    Base, Chain, ChainKind, Counted, Elements, Expr, Family, Field, Hook, HookPoint, Meta, Nft,
    Operator, Rule, Set, Step, Table, Verdict, plan,
};

use crate::world::{World, pair};

/// Drops what comes from addresses in a set, and counts it.
fn block(addresses: &[[u8; 4]]) -> Table {
    Table {
        family: Family::Inet,
        name: "block".to_owned(),
        counters: vec!["blocked".to_owned()],
        sets: vec![Set {
            name: "sources".to_owned(),
            key: vec![Field::Ipv4],
            elements: addresses.iter().map(|a| a.to_vec()).collect(),
        }],
        chains: vec![Chain {
            name: "in".to_owned(),
            hook: Some(Hook {
                kind: ChainKind::Filter,
                at: HookPoint::PreRouting,
                priority: -250,
            }),
            rules: vec![Rule(vec![
                Expr::Meta(Meta::NfProto),
                Expr::Compare(Operator::Is, vec![2]),
                Expr::Payload {
                    base: Base::Network,
                    offset: 12,
                    len: 4,
                    second: false,
                },
                Expr::Lookup {
                    set: "sources".to_owned(),
                    absent: false,
                },
                Expr::Count("blocked".to_owned()),
                Expr::Verdict(Verdict::Drop),
            ])],
        }],
    }
}

fn nft(world: &World) -> Nft {
    Nft::open_in(&world.ns).unwrap()
}

fn planned(nft: &mut Nft, table: &Table) -> Vec<Step> {
    let observed = nft.observe(table.family, &table.name).unwrap();
    plan(observed.as_ref(), table)
}

/// The ruleset as the program of the distribution sees it.
fn shown(world: &World) -> String {
    let list = || {
        Command::new("nft")
            .args(["list", "ruleset"])
            .output()
            .unwrap()
    };
    let output = world.run(list);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_table_is_made_once_and_taken_away() {
    let world = World::new();
    let mut nft = nft(&world);
    assert_eq!(nft.observe(Family::Inet, "block").unwrap(), None);
    for table in [block(&[[192, 0, 2, 1], [192, 0, 2, 2]]), block(&[])] {
        let steps = planned(&mut nft, &table);
        nft.apply(&steps).unwrap();
        assert_eq!(planned(&mut nft, &table), [], "it is as it should be");
        assert_eq!(
            nft.observe(Family::Inet, "block").unwrap(),
            Some(table.as_observed())
        );
    }
    let text = shown(&world);
    assert!(
        text.contains("ip saddr @sources counter name \"blocked\" drop"),
        "{text}"
    );
    let delete = Step::Delete(Family::Inet, "block".to_owned());
    nft.apply(std::slice::from_ref(&delete)).unwrap();
    nft.apply(&[delete]).unwrap();
    assert_eq!(nft.observe(Family::Inet, "block").unwrap(), None);
    assert_eq!(nft.counters(Family::Inet, "block").unwrap().len(), 0);
}

#[test]
fn rules_hold_and_count() {
    let (a, b, _pair) = pair(&["192.0.2.1/24", "192.0.2.3/24"], &["192.0.2.2/24"]);
    let bind =
        |world: &World, address: &'static str| world.run(move || UdpSocket::bind(address).unwrap());
    let (good, bad) = (bind(&a, "192.0.2.1:0"), bind(&a, "192.0.2.3:0"));
    let receiver = bind(&b, "192.0.2.2:7");
    receiver
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let mut nft = nft(&b);
    nft.apply(&[Step::Replace(block(&[[192, 0, 2, 3]]))])
        .unwrap();
    bad.send_to(b"bad", "192.0.2.2:7").unwrap();
    good.send_to(b"good", "192.0.2.2:7").unwrap();
    let mut buffer = [0; 16];
    let (len, _) = receiver.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..len], b"good");
    let counted = nft.counters(Family::Inet, "block").unwrap();
    assert_eq!(
        counted["blocked"],
        Counted {
            packets: 1,
            bytes: 20 + 8 + 3
        }
    );
}

/// Counters go on where only elements change.
#[test]
fn elements_come_and_go_alone() {
    let world = World::new();
    let mut nft = nft(&world);
    let many: Vec<[u8; 4]> = (0..1200u16)
        .map(|n| [10, 0, (n >> 8) as u8, (n & 255) as u8])
        .collect();
    nft.apply(&[Step::Replace(block(&many[..1000]))]).unwrap();
    let steps = planned(&mut nft, &block(&many[100..]));
    assert!(
        matches!(&steps[..], [Step::DelElements(_), Step::AddElements(_)]),
        "{steps:?}"
    );
    nft.apply(&steps).unwrap();
    assert_eq!(planned(&mut nft, &block(&many[100..])), []);
}

/// All or nothing.
#[test]
fn a_transaction_that_fails_changes_nothing() {
    let world = World::new();
    let mut nft = nft(&world);
    nft.apply(&[Step::Replace(block(&[[10, 0, 0, 1]]))])
        .unwrap();
    let elements = |last: u8| Elements {
        family: Family::Inet,
        table: "block".to_owned(),
        set: "sources".to_owned(),
        keys: BTreeSet::from([vec![10, 0, 0, last]]),
    };
    let error = nft
        .apply(&[
            Step::AddElements(elements(2)),
            Step::DelElements(elements(9)),
        ])
        .unwrap_err();
    assert!(error.is_missing(), "{error}");
    assert_eq!(planned(&mut nft, &block(&[[10, 0, 0, 1]])), []);
    // And the socket is good for the next one.
    nft.apply(&[Step::AddElements(elements(2))]).unwrap();
    assert_eq!(
        planned(&mut nft, &block(&[[10, 0, 0, 1], [10, 0, 0, 2]])),
        []
    );
}

/// Whatever somebody does to the table is seen, and what they do to others is not our affair.
#[test]
fn a_table_that_was_tampered_with_is_noticed() {
    let harms = [
        "delete table inet block",
        "flush table inet block",
        "flush ruleset",
        "add rule inet block in drop",
        "add element inet block sources { 10.9.9.9 }",
        "flush set inet block sources",
        "add chain inet block more",
    ];
    for harm in harms {
        let world = World::new();
        let mut nft = nft(&world);
        let table = block(&[[10, 0, 0, 1]]);
        nft.apply(&[Step::Replace(table.clone())]).unwrap();
        let run = |command: &str| {
            let command = command.to_owned();
            let output = world.run(move || Command::new("nft").arg(command).output().unwrap());
            assert!(output.status.success(), "{output:?}");
        };
        run("add table inet other");
        assert_eq!(planned(&mut nft, &table), []);
        run(harm);
        let steps = planned(&mut nft, &table);
        assert!(!steps.is_empty(), "{harm} was not noticed");
        nft.apply(&steps).unwrap();
        assert_eq!(planned(&mut nft, &table), [], "{harm} was not mended");
        if harm != "flush ruleset" {
            assert!(shown(&world).contains("table inet other"));
        }
    }
}

#[test]
fn firewalls_that_drop_by_policy_are_found() {
    let world = World::new();
    let mut nft = nft(&world);
    let rules = "
        table ip filter { 
            chain FORWARD { type filter hook forward priority 0; policy drop; }
            chain INPUT { type filter hook input priority 0; policy drop; }
        }
        table inet good {
            chain forward { type filter hook forward priority 0; policy accept; }
        }";
    assert_eq!(nft.forward_drops().unwrap(), [""; 0]);
    let output = world.run(|| Command::new("nft").arg(rules).output().unwrap());
    assert!(output.status.success(), "{output:?}");
    assert_eq!(nft.forward_drops().unwrap(), ["ip filter FORWARD"]);
}
