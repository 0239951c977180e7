//! What goes wrong: nothing is left half made, every fault has its code, and `DEL` always ends.

mod common;

use std::fs::{File, OpenOptions};
use std::path::Path;
use std::time::{Duration, Instant};

use common::router::Mode;
use common::{BRIDGE, Namespace, Node, finish, nowhere};
use control::{AttachmentRef, ErrorCode};
use hostnet::VethRequest;
use serde_json::{Value, json};

#[test]
fn a_router_that_refuses_leaves_nothing() {
    for (refusal, code) in [
        (ErrorCode::BadRequest, 7),
        (ErrorCode::Conflict, 102),
        (ErrorCode::Deadline, 11),
        (ErrorCode::Internal, 102),
        (ErrorCode::NoSpace, 11),
        (ErrorCode::NotReady, 11),
    ] {
        let node = Node::new();
        let pod = Namespace::new();
        node.router.set_mode(Mode::Refuse(refusal));
        let outcome = node.pod_call("ADD", "c1", &pod).run();
        outcome.assert_error(
            code,
            &format!("the router refuses ({refusal}): the test wants it so"),
        );
        outcome.assert_error(code, "change the test");
        if matches!(refusal, ErrorCode::Deadline | ErrorCode::Internal) {
            // The router may hold an address all the same, and refuses to release it, too.
            let pending = node.pending().remove(0);
            assert_eq!(pending.container_id, "c1");
            std::fs::remove_dir_all(control::pending::directory(&node.socket())).unwrap();
        }
        node.assert_nothing_left(&pod);
    }
}

#[test]
fn a_router_that_is_absent_leaves_nothing() {
    let node = Node::new();
    let pod = Namespace::new();
    node.router.stop();
    node.pod_call("ADD", "c1", &pod)
        .run()
        .assert_error(11, "is `weft run` running?");
    node.assert_nothing_left(&pod);
}

/// The address was given, but the answer was lost.
#[test]
fn a_router_that_hangs_up_gets_the_address_back() {
    let node = Node::new();
    let pod = Namespace::new();
    node.router.set_mode(Mode::HangUp);
    node.pod_call("ADD", "c1", &pod)
        .run()
        .assert_error(102, "no usable answer");
    assert_eq!(node.router.requests("/v1/detach").len(), 1);
    assert_eq!(node.router.held(), []);
    // It cannot be known whether that was heard, so it is written down too.
    assert_eq!(node.pending(), [AttachmentRef::new("c1", "eth0").into()]);
    assert_eq!(
        (node.host.links(), pod.links()),
        (vec![BRIDGE.to_owned()], vec![])
    );
}

#[test]
fn a_router_that_hangs_is_given_up_in_time() {
    let node = Node::new();
    let pod = Namespace::new();
    node.router.set_mode(Mode::Hang);
    let started = Instant::now();
    let add = node.pod_call("ADD", "c1", &pod).start();
    let other = Namespace::new();
    let del = node.pod_call("DEL", "c2", &other).run();
    del.assert_silent_success();
    assert!(del.stderr.contains("noted for later"), "{del:?}");
    assert!(
        started.elapsed() < Duration::from_secs(8),
        "DEL took {:?}",
        started.elapsed()
    );
    finish(add).assert_error(11, "did not answer within 10s");
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "ADD took {:?}",
        started.elapsed()
    );
    let pending: Vec<_> = node.pending().into_iter().map(|r| r.container_id).collect();
    assert_eq!(pending.len(), 2, "{pending:?}");
    assert_eq!(
        (node.host.links(), pod.links()),
        (vec![BRIDGE.to_owned()], vec![])
    );
}

#[test]
fn a_failure_after_the_address_leaves_nothing() {
    type Setup = fn(&Node);
    let nothing: Setup = |_| {};
    let cases: [(Setup, Value, u64, &str); 9] = [
        (
            |node| node.router.answer_with("bridge", json!("other")),
            json!({}),
            100,
            "bridge other does not exist",
        ),
        (
            |node| node.router.answer_with("bridge", json!("lo")),
            json!({}),
            100,
            "lo is not a bridge",
        ),
        (
            |node| node.router.answer_with("addresses", json!([])),
            json!({}),
            102,
            "the router gave no address",
        ),
        (
            nothing,
            json!({"bridge": "cni0"}),
            7,
            "the router's bridge is \"weft\"",
        ),
        (
            nothing,
            json!({"mtu": 9000}),
            7,
            "the overlay carries 1450 bytes",
        ),
        (
            |node| {
                node.router
                    .answer_with("addresses", json!(["fd00:77::7/64"]))
            },
            json!({"mtu": 1279}),
            7,
            "IPv6 needs 1280 bytes",
        ),
        // The kernel refuses these in the middle, with the interface made and an address set.
        (
            |node| {
                node.router
                    .answer_with("addresses", json!(["10.32.0.7/12", "ff02::1/64"]));
            },
            json!({}),
            100,
            "cannot set an address of eth0",
        ),
        (
            nothing,
            json!({"routes": [
                {"dst": "198.51.100.0/24"}, {"dst": "198.51.100.0/24", "gw": "10.32.0.9"},
            ]}),
            100,
            "cannot add a route through eth0",
        ),
        (
            |node| node.router.answer_with("mtu", json!(67)),
            json!({}),
            100,
            "the veth pair cannot be made",
        ),
    ];
    for (setup, config, code, text) in cases {
        let node = Node::new();
        let pod = Namespace::new();
        setup(&node);
        let mut call = node.pod_call("ADD", "c1", &pod);
        for (key, value) in config.as_object().unwrap() {
            call = call.with(key, value.clone());
        }
        call.run().assert_error(code, text);
        node.assert_nothing_left(&pod);
        // And after the DEL that a runtime must send.
        node.pod_call("DEL", "c1", &pod)
            .run()
            .assert_silent_success();
        node.assert_nothing_left(&pod);
    }
}

#[test]
fn an_interface_name_that_is_taken_is_left_alone() {
    let node = Node::new();
    let pod = Namespace::new();
    let result = node.add("c1", &pod);
    let before = pod.link("eth0").unwrap();
    // The same container again, and another one in the same namespace.
    for id in ["c1", "c2"] {
        let outcome = node.pod_call("ADD", id, &pod).run();
        outcome.assert_error(4, "CNI_IFNAME=\"eth0\" is taken");
    }
    assert_eq!(
        node.router.requests("/v1/attach").len(),
        1,
        "nothing was asked for"
    );
    assert_eq!(
        node.router.requests("/v1/detach").len(),
        0,
        "and nothing released"
    );
    assert_eq!(pod.link("eth0").unwrap().mac, before.mac);
    let check = node
        .pod_call("CHECK", "c1", &pod)
        .with("prevResult", result);
    check.run().assert_silent_success();
    // The DEL for the second container does not harm the first.
    node.pod_call("DEL", "c2", &pod)
        .run()
        .assert_silent_success();
    check.run().assert_silent_success();
}

#[test]
fn two_adds_for_one_container_at_once() {
    let node = Node::new();
    let pod = Namespace::new();
    let calls: Vec<_> = (0..6)
        .map(|_| node.pod_call("ADD", "c1", &pod).start())
        .collect();
    let outcomes: Vec<_> = calls.into_iter().map(finish).collect();
    let (made, refused): (Vec<_>, Vec<_>) = outcomes.iter().partition(|o| o.status == 0);
    assert_eq!(made.len(), 1, "{outcomes:?}");
    for outcome in refused {
        outcome.assert_error(4, "is taken");
    }
    assert_eq!(node.router.held(), [AttachmentRef::new("c1", "eth0")]);
    let check = node
        .pod_call("CHECK", "c1", &pod)
        .with("prevResult", made[0].result());
    check.run().assert_silent_success();
}

#[test]
fn a_namespace_that_is_none_is_refused() {
    let node = Node::new();
    let pod = Namespace::new();
    let at = |verb, path: &Path| {
        node.pod_call(verb, "c1", &pod)
            .env("CNI_NETNS", path.to_str().unwrap())
            .run()
    };
    at("ADD", nowhere()).assert_error(3, "wcni-nowhere does not exist");
    at("ADD", Path::new("/etc/hostname"))
        .assert_error(4, "/etc/hostname is not a network namespace");
    at("ADD", Path::new("/proc/self/ns/mnt")).assert_error(4, "is not a network namespace");
    at("ADD", node.dir.path()).assert_error(4, "is not a network namespace");
    at("ADD", &node.host.path()).assert_error(4, "the host's own network namespace");
    assert_eq!(node.router.requests("/v1/attach"), [Value::Null; 0]);
    node.assert_nothing_left(&pod);
}

#[test]
fn a_namespace_that_is_replaced_takes_its_old_interface_along() {
    let node = Node::new();
    let (old, new) = (Namespace::new(), Namespace::new());
    node.add("c1", &old);
    let result = node.add("c1", &new);
    assert_eq!(result["ips"][0]["address"], "10.32.0.7/12");
    assert_eq!(old.links(), [""; 0], "the address is in one namespace only");
    assert_eq!(new.links(), ["eth0"]);
    node.pod_call("DEL", "c1", &new)
        .run()
        .assert_silent_success();
    node.assert_nothing_left(&new);
}

#[test]
fn an_interface_of_somebody_else_is_left_alone() {
    let node = Node::new();
    let pod = Namespace::new();
    let name = AttachmentRef::new("c1", "eth0").host_veth();
    let theirs = VethRequest {
        host: &name,
        mtu: 1500,
        host_mac: None,
        master: None,
        hairpin: false,
        host_up: false,
        peer_name: "theirs",
        peer_ns: None,
        peer_mac: None,
        alias: Some("weft:other/eth0"),
    };
    node.host.netlink().add_veth(&theirs).unwrap();
    let outcome = node.pod_call("ADD", "c1", &pod).run();
    outcome.assert_error(100, "weft:other/eth0");
    node.pod_call("DEL", "c1", &pod)
        .run()
        .assert_silent_success();
    assert!(node.host.link(&name).is_some());
}

/// Killed between making the pair and giving it its alias.
#[test]
fn an_interface_without_alias_is_what_a_killed_call_left() {
    let node = Node::new();
    let (old, pod) = (Namespace::new(), Namespace::new());
    let name = AttachmentRef::new("c1", "eth0").host_veth();
    let half = VethRequest {
        host: &name,
        mtu: 1450,
        host_mac: None,
        master: None,
        hairpin: false,
        host_up: true,
        peer_name: "eth0",
        peer_ns: Some(&old.ns),
        peer_mac: None,
        alias: None,
    };
    node.host.netlink().add_veth(&half).unwrap();
    node.add("c1", &pod);
    assert_eq!(old.links(), [""; 0]);
    node.pod_call("DEL", "c1", &pod)
        .run()
        .assert_silent_success();
    node.host.netlink().add_veth(&half).unwrap();
    node.pod_call("DEL", "c1", &old)
        .run()
        .assert_silent_success();
    node.assert_nothing_left(&old);
}

#[test]
fn a_result_that_cannot_be_written_is_undone() {
    let node = Node::new();
    let pod = Namespace::new();
    let full: File = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let outcome = node.pod_call("ADD", "c1", &pod).run_into(full);
    assert_eq!(outcome.status, 1);
    assert!(outcome.stderr.contains("error 5 after"), "{outcome:?}");
    node.assert_nothing_left(&pod);
}

#[test]
fn del_with_the_namespace_gone() {
    let node = Node::new();
    let pod = Namespace::new();
    node.add("c1", &pod);
    let del = node.pod_call("DEL", "c1", &pod);
    drop(pod);
    // The kernel takes a namespace down some time after its last user, and the pair with it.
    del.run().assert_silent_success();
    del.run().assert_silent_success();
    let other = Namespace::new();
    node.assert_nothing_left(&other);
}

#[test]
fn del_with_the_router_down_is_written_down() {
    let node = Node::new();
    let pod = Namespace::new();
    node.add("c1", &pod);
    node.router.stop();
    let outcome = node.pod_call("DEL", "c1", &pod).run();
    outcome.assert_silent_success();
    assert!(outcome.stderr.contains("noted for later"), "{outcome:?}");
    assert_eq!(
        (node.host.links(), pod.links()),
        (vec![BRIDGE.to_owned()], vec![])
    );
    assert_eq!(node.pending(), [AttachmentRef::new("c1", "eth0").into()]);
    node.pod_call("DEL", "c1", &pod)
        .run()
        .assert_silent_success();
    assert_eq!(node.pending().len(), 1);
}

#[test]
fn del_that_can_neither_release_nor_note_says_so() {
    let node = Node::new();
    let pod = Namespace::new();
    // Not even root makes a directory inside a file.
    let socket = "/dev/null/weft.sock";
    let outcome = node
        .pod_call("DEL", "c1", &pod)
        .with("socket", json!(socket))
        .run();
    outcome.assert_error(11, "/dev/null/pending-detach");
}

#[test]
fn del_waits_for_an_add_that_is_still_at_work() {
    let node = Node::new();
    let pod = Namespace::new();
    for _ in 0..10 {
        let add = node.pod_call("ADD", "c1", &pod).start();
        let del = node.pod_call("DEL", "c1", &pod).start();
        finish(add);
        finish(del).assert_silent_success();
        // Whichever came first, one more DEL, as runtimes send it, leaves nothing.
        node.pod_call("DEL", "c1", &pod)
            .run()
            .assert_silent_success();
        node.assert_nothing_left(&pod);
    }
}
