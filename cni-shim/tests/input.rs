//! Whatever stands in the environment and on standard input: an answer or an error with a code,
//! never a crash.

mod common;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use common::{Namespace, Node, nowhere};
use proptest::prelude::*;
use serde_json::{Value, json};

#[test]
fn bad_input_has_its_code() {
    let node = Node::new();
    let pod = Namespace::new();
    let good = node.config("1.1.0");
    let with = |key: &str, value: Value| {
        let mut config = good.clone();
        config[key] = value;
        config.to_string().into_bytes()
    };
    for (stdin, code, names) in [
        (b"".to_vec(), 6, "EOF"),
        (b"{\"cniVersion\": \"1.1.0\", ".to_vec(), 6, "EOF"),
        (b"[]".to_vec(), 6, "object"),
        (b"\xff\xfe".to_vec(), 6, "decoded"),
        (b"[".repeat(100_000), 6, "recursion"),
        (
            with("cniVersion", json!("0.2.0")),
            1,
            "0.3.1, 0.4.0, 1.0.0, 1.1.0",
        ),
        (with("name", json!("a/b")), 7, "name"),
        (with("mtu", json!("big")), 7, "mtu"),
        (with("ipMasq", json!(true)), 2, "ipMasq=true"),
        (
            with("ipam", json!({"type": "no-such-plugin"})),
            7,
            "ipam.type=\"no-such-plugin\" is not installed",
        ),
        (
            with("ipam", json!({"type": "../../bin/sh"})),
            7,
            "ipam.type",
        ),
        (with("prevResult", json!({"ips": 7})), 7, "prevResult"),
        (vec![b' '; (8 << 20) + 1], 5, "longer than 8388608 bytes"),
    ] {
        node.pod_call("ADD", "c1", &pod)
            .run_with(&stdin)
            .assert_error(code, names);
    }
    for (name, value) in [
        ("CNI_COMMAND", "LIST"),
        ("CNI_CONTAINERID", ""),
        ("CNI_CONTAINERID", "../x"),
        ("CNI_IFNAME", ""),
        ("CNI_IFNAME", "eth0/1"),
        ("CNI_IFNAME", "an-interface-name"),
        ("CNI_NETNS", ""),
        ("CNI_ARGS", "no-equals-sign"),
        ("CNI_ARGS", "A=B"),
    ] {
        node.pod_call("ADD", "c1", &pod)
            .env(name, value)
            .run()
            .assert_error(4, name);
    }
    assert_eq!(node.router.requests("/v1/attach"), [Value::Null; 0]);
    node.assert_nothing_left(&pod);
}

#[test]
fn errors_are_in_the_version_of_the_configuration() {
    let node = Node::new();
    let pod = Namespace::new();
    for version in common::VERSIONS {
        let call = node
            .pod_call("ADD", "c1", &pod)
            .version(version)
            .with("mtu", json!(1));
        let error = call.run();
        error.assert_error(7, "mtu");
        let found = error.json();
        assert_eq!(found["cniVersion"], version);
        let keys: Vec<_> = found.as_object().unwrap().keys().cloned().collect();
        assert_eq!(keys, ["cniVersion", "code", "details", "msg"]);
    }
}

/// Calls the plugin in this process; the pod's namespace does not exist, nor does a router.
fn answer(env: &BTreeMap<&str, OsString>, stdin: &[u8]) -> (u8, Vec<u8>, String) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let lookup = |name: &str| match name {
        "WEFT_SOCKET" => Some(dir.path().join("weft.sock").into_os_string()),
        name => env.get(name).cloned(),
    };
    let status = cni_shim::main_entry(&[], &lookup, &mut &*stdin, &mut stdout, &mut stderr);
    (
        status,
        stdout,
        String::from_utf8_lossy(&stderr).into_owned(),
    )
}

fn assert_answered((status, stdout, stderr): &(u8, Vec<u8>, String)) {
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    if *status == 0 {
        return;
    }
    assert_eq!(*status, 1);
    let error: Value = serde_json::from_slice(stdout).expect("an error is JSON");
    let code = error["code"].as_u64().expect("an error has a code");
    assert!(matches!(code, 1..=7 | 11 | 50 | 51 | 100..=103), "{error}");
    assert!(
        !error["msg"]
            .as_str()
            .expect("an error has a message")
            .is_empty()
    );
}

#[test]
fn i6_a_line_break_in_a_value_makes_no_second_log_line() {
    let mut env = environment("ADD");
    env.insert("CNI_NETNS", "/run/netns/\n\x01weft-cni: forged".into());
    assert_answered(&answer(&env, br#"{"cniVersion": "1.1.0", "name": "pods"}"#));
}

fn environment(verb: &'static str) -> BTreeMap<&'static str, OsString> {
    BTreeMap::from([
        ("CNI_COMMAND", verb.into()),
        ("CNI_CONTAINERID", "c1".into()),
        ("CNI_IFNAME", "eth0".into()),
        ("CNI_NETNS", nowhere().into()),
    ])
}

const VERBS: [&str; 6] = ["ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_bytes_on_standard_input(verb in prop::sample::select(&VERBS[..]), bytes: Vec<u8>) {
        assert_answered(&answer(&environment(verb), &bytes));
    }

    #[test]
    fn any_damage_to_a_good_configuration(
        verb in prop::sample::select(&VERBS[..]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        whole: bool,
    ) {
        let mut bytes = json!({
            "cniVersion": "1.1.0", "name": "pods", "mtu": 1450, "hairpinMode": true,
            "dns": {"nameservers": ["10.96.0.10"]}, "routes": [{"dst": "0.0.0.0/0"}],
            "runtimeConfig": {"ips": ["10.32.0.7/12"], "mac": "02:00:00:00:00:07"},
            "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
            "prevResult": {
                "interfaces": [{"name": "eth0", "sandbox": nowhere()}],
                "ips": [{"address": "10.32.0.7/12", "interface": 0}],
            },
        })
        .to_string()
        .into_bytes();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            bytes[place] = byte;
        }
        if !whole {
            bytes.truncate(cut.index(bytes.len()));
        }
        assert_answered(&answer(&environment(verb), &bytes));
    }

    #[test]
    fn any_bytes_in_the_environment(
        verb in prop::sample::select(&VERBS[..]),
        name in prop::sample::select(vec![
            "CNI_COMMAND", "CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS", "CNI_ARGS",
        ]),
        value: Vec<u8>,
    ) {
        let mut env = environment(verb);
        // A path that exists would be opened.
        let value = if name == "CNI_NETNS" { [b"/run/netns/\x01", &value[..]].concat() } else { value };
        env.insert(name, OsString::from_vec(value));
        assert_answered(&answer(&env, br#"{"cniVersion": "1.1.0", "name": "pods"}"#));
    }
}
