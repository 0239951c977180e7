use clap::{Args, Command, FromArgMatches};
use proptest::prelude::*;

use super::*;

fn flags(line: &[&str]) -> Options {
    let command = Options::augment_args(Command::new("weft").no_binary_name(true));
    Options::from_arg_matches(&command.try_get_matches_from(line).unwrap()).unwrap()
}

/// The settings that these flags and this file's text make.
fn settings(line: &[&str], file: &str) -> Result<Settings, SettingsError> {
    let path = Path::new("/etc/weft/test.toml");
    let (lower, unknown) = read_file(path, file)?;
    validate::validate(&flags(line).or(lower), "host-1", unknown).map_err(|problems| {
        SettingsError::Wrong {
            file: Some(path.to_owned()),
            problems,
        }
    })
}

fn refusal(line: &[&str], file: &str) -> String {
    settings(line, file).unwrap_err().to_string()
}

#[test]
fn flags_environment_and_file_agree() {
    let command = Options::augment_args(Command::new("weft"));
    let mut count = 0;
    for arg in command.get_arguments() {
        let key = arg.get_id().as_str();
        assert_eq!(arg.get_long().unwrap(), key.replace('_', "-"));
        let env = arg
            .get_env()
            .unwrap_or_else(|| panic!("{key} has no variable"));
        assert_eq!(
            env.to_str().unwrap(),
            format!("WEFT_{}", key.to_uppercase())
        );
        let (read, unknown) = read_file(Path::new("f"), &format!("{key} = \"x\"")).unwrap();
        assert_eq!(unknown, [], "the file does not know {key}");
        assert_ne!(
            read,
            Options::default(),
            "the file's key {key} goes nowhere"
        );
        assert_eq!(
            read.clone().or(Options::default()),
            read,
            "{key} is lost in the merge"
        );
        assert_eq!(
            Options::default().or(read.clone()),
            read,
            "{key} is lost in the merge"
        );
        count += 1;
    }
    assert!(count > 20);
}

#[test]
fn defaults() {
    let settings = settings(&[], "").unwrap();
    assert_eq!(settings.name.as_str(), "host-1");
    assert_eq!(settings.socket, Path::new("/run/weft/weft.sock"));
    assert_eq!(settings.range.to_string(), "10.32.0.0/12");
    assert_eq!((settings.control_port, settings.vxlan_port), (6783, 6784));
    assert_eq!(settings.sleeve_port, 6783);
    assert_eq!(
        settings.metrics_address,
        Some("0.0.0.0:6782".parse().unwrap())
    );
    assert_eq!(
        (settings.mtu, settings.queues, settings.listen),
        (None, None, None)
    );
    assert!(settings.discovery && settings.offloads && settings.seeds.is_empty());
}

#[test]
fn a_number_of_electors_is_no_list_of_seeds() {
    let settings = settings(&["--ipam-init", "consensus=3"], "").unwrap();
    assert_eq!((settings.consensus, settings.seeds.len()), (Some(3), 0));
}

#[test]
fn the_plugin_is_installed_whole_or_not() {
    let both = [
        "--cni-bin-dir=/opt/cni/bin",
        "--cni-conf-dir=/etc/cni/net.d",
    ];
    let dirs = settings(&both, "").unwrap().cni_dirs.unwrap();
    assert_eq!(dirs.bin, Path::new("/opt/cni/bin"));
    assert_eq!(settings(&[], "").unwrap().cni_dirs, None);
    for (line, key) in both.iter().zip(["cni_bin_dir", "cni_conf_dir"]) {
        assert!(refusal(&[*line], "").contains(key));
    }
    assert!(refusal(&["--cni-bin-dir=bin", "--cni-conf-dir=/c"], "").contains("absolute"));
}

#[test]
fn a_cluster_brings_its_own_defaults() {
    let plain = settings(&[], "").unwrap();
    assert!(!plain.kubernetes && !plain.cluster_divides && !plain.spoof_guard && plain.masquerade);
    let cluster = settings(&["--kubernetes"], "").unwrap();
    assert!(cluster.kubernetes && cluster.cluster_divides && cluster.spoof_guard);
    let own = settings(
        &["--kubernetes", "--ipam-init=seed=a", "--spoof-guard=off"],
        "",
    )
    .unwrap();
    assert!(!own.cluster_divides && !own.spoof_guard && own.seeds.len() == 1);
    let choice = |text: &str| {
        settings(&["--kubernetes", "--node-address", text], "")
            .unwrap()
            .node_address
            .unwrap()
    };
    assert_eq!(
        choice("192.0.2.9/24"),
        NodeAddressChoice::Within("192.0.2.0/24".parse().unwrap())
    );
    assert_eq!(
        choice("eth1"),
        NodeAddressChoice::Interface("eth1".to_owned())
    );
    for line in [
        &["--ipam-init", "cluster"][..],
        &["--node-address", "eth1"],
        &["--kubernetes", "--node-address", "a b"],
    ] {
        let text = refusal(line, "");
        let key = line[line.len() - 2]
            .trim_start_matches("--")
            .replace('-', "_");
        assert!(text.contains(&key), "{text}");
    }
}

#[test]
fn flag_beats_file_and_file_beats_default() {
    let file = "mtu = 1400\nvni = 7\npeer = [\"a\", \"b:1\"]\nno_discovery = true";
    let settings = settings(&["--mtu", "9000", "--peer", "c,d", "--peer=[::1]:9"], file).unwrap();
    assert_eq!(settings.mtu, Some(9000));
    assert_eq!(settings.vni.get(), 7);
    let peers: Vec<_> = settings.peers.iter().map(ToString::to_string).collect();
    assert_eq!(
        peers,
        ["c:6783", "d:6783", "[::1]:9"],
        "the flag's list replaces the file's"
    );
    assert!(!settings.discovery);
}

#[test]
fn ports_of_peers_follow_the_ports_of_this_node() {
    let line = [
        "--control-port=7000",
        "--vxlan-port=8472",
        "--peer=a",
        "--vtep=10.0.0.1",
    ];
    let settings = settings(&line, "").unwrap();
    assert_eq!(settings.peers[0].to_string(), "a:7000");
    assert_eq!(settings.vteps[0].to_string(), "10.0.0.1:8472");
    assert_eq!(settings.sleeve_port, 7000);
}

#[test]
fn a_blank_value_is_not_set() {
    let settings = settings(&["--mtu=", "--peer=", "--name", " "], "mtu = 1400").unwrap();
    assert_eq!(settings.mtu, Some(1400));
    assert_eq!(settings.name.as_str(), "host-1");
    assert!(settings.peers.is_empty());
}

#[test]
fn a_bare_no_discovery_takes_no_value() {
    assert!(
        !settings(&["--no-discovery", "--mtu", "1400"], "")
            .unwrap()
            .discovery
    );
    assert!(
        settings(&["--no-discovery=false"], "no_discovery = true")
            .unwrap()
            .discovery
    );
}

#[test]
fn all_faults_are_reported_at_once_with_their_origin() {
    let text = refusal(
        &["--mtu", "99", "--peer", "a:0"],
        "range = \"10.32.0.1/12\"\nmtuu = 3\nbridge = \"a-name-of-16-bytes\"",
    );
    assert_eq!(
        text,
        "5 settings are wrong:
  mtuu (/etc/weft/test.toml): there is no such key; did you mean mtu?
  bridge = \"a-name-of-16-bytes\" (/etc/weft/test.toml): not a device name: use 1 to 15 letters, digits, '-', '_' or '.'
  peer = \"a:0\" (--peer or WEFT_PEER): port \"0\" is not a number from 1 to 65535
  range = \"10.32.0.1/12\" (/etc/weft/test.toml): has bits set behind the prefix: write 10.32.0.0/12
  mtu = \"99\" (--mtu or WEFT_MTU): use a number from 576 to 65485, or auto"
    );
}

#[test]
fn an_unknown_key_names_the_nearest_or_lists_all() {
    assert!(refusal(&[], "vxlan-port = 1").contains("did you mean vxlan_port?"));
    assert!(refusal(&[], "peers = []").contains("did you mean peer?"));
    let text = refusal(&[], "[orchestrator]\nx = 1");
    assert!(
        text.contains("orchestrator") && text.contains("the keys are name, state_dir,"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_not_toml_is_shown_where() {
    let text = refusal(&[], "mtu = 1400\nname = = 3\n");
    assert!(
        text.contains("/etc/weft/test.toml") && text.contains("line 2"),
        "{text}"
    );
    let text = refusal(&[], "mtu = [1400]\n");
    assert!(
        text.contains("line 1") && text.contains("a text, a number"),
        "{text}"
    );
}

#[test]
fn a_named_file_must_exist() {
    let file = Path::new("/nonexistent/weft.toml");
    let error = load(Options::default(), Some(file), "host-1").unwrap_err();
    assert!(
        error.to_string().contains("/nonexistent/weft.toml"),
        "{error}"
    );
}

#[test]
fn values_that_cannot_be() {
    for (flag, value, says) in [
        ("--name", "a b", "node name"),
        ("--state-dir", "var", "absolute"),
        ("--socket", "/run/weft/", "name the socket"),
        ("--bridge", "a/b", "device name"),
        ("--tap", "weft%d", "device name"),
        ("--tap", "weft", "must differ"),
        ("--vxlan-port", "0", "1 to 65535"),
        ("--vxlan-port", "6783", "must differ"),
        ("--sleeve-port", "65536", "1 to 65535"),
        ("--sleeve-port", "6784", "must differ"),
        ("--vni", "16777216", "VNI"),
        ("--control-port", "x", "1 to 65535"),
        ("--control-port", "6782", "must differ"),
        ("--listen", "eth0", "IP address"),
        ("--listen", "224.0.0.1", "multicast"),
        ("--metrics-address", ":6782", "ADDRESS:PORT"),
        ("--range", "10.32.0.0", "CIDR"),
        ("--range", "10.32.0.0/30", "8 to 29"),
        ("--range", "0.0.0.0/0", "8 to 29"),
        ("--range", "224.0.0.0/8", "unicast"),
        ("--range", "127.0.0.0/8", "unicast"),
        ("--ipam-init", "a,b", "seed="),
        ("--ipam-init", "seed=", "node name"),
        ("--ipam-init", "consensus=0", "consensus=3"),
        ("--ipam-init", "consensus=many", "consensus=3"),
        ("--ipam-init", "seed=a,b,a", "listed twice"),
        ("--ipam-init", "cluster", "set --kubernetes too"),
        (
            "--ipam-default-subnet",
            "10.32.0.1/16",
            "write 10.32.0.0/16",
        ),
        ("--ipam-default-subnet", "10.32.0.0/31", "/30 or shorter"),
        (
            "--ipam-default-subnet",
            "10.0.0.0/16",
            "subnet of 10.32.0.0/12",
        ),
        (
            "--ipam-default-subnet",
            "fd00::/64",
            "subnet of 10.32.0.0/12",
        ),
        ("--ipam-hold-down", "0s", "1s to 7days"),
        ("--mac-age", "long", "1s to 7days"),
        ("--mtu", "65486", "576 to 65485"),
        ("--queues", "0", "1 to 256"),
        ("--offloads", "maybe", "on or off"),
        ("--spin", "long", "off, auto, or a duration"),
        ("--spin", "1s", "at most 10ms"),
        ("--worker-nice", "-21", "a number from -20 to 19"),
        ("--worker-nice", "low", "off or a number"),
        ("--pin-workers", "cpu0", "on or off"),
        ("--log-level", "loud", "error, warn"),
        ("--peer", "a,a:6783", "listed twice"),
        ("--vtep", "[::1", "brackets"),
        ("--trusted-subnets", "10.0.0.0", "write it as 10.0.0.0/8"),
        ("--trusted-subnets", "10.0.0.1/8", "write 10.0.0.0/8"),
        ("--trusted-subnets", "::/0", "trusts every network"),
        ("--trusted-subnets", "10.0.0.0/8,10.0.0.0/8", "listed twice"),
    ] {
        let text = refusal(&[flag, value], "");
        assert!(text.contains(says), "{flag} {value}: {text}");
        assert!(
            text.contains(flag.trim_start_matches('-').replace('-', "_").as_str()),
            "{text}"
        );
    }
    let text = refusal(&["--range", "10.0.0.0/29", "--ipam-init", "seed=a,b,c"], "");
    assert!(text.contains("too many"), "{text}");
}

#[test]
fn effective_settings_are_a_file_that_makes_the_same_settings() {
    for line in [
        &[][..],
        &[
            "--name=n",
            "--peer=a,[2001:db8::1]:7",
            "--vtep=h",
            "--ipam-init=seed=a,b",
            "--mtu=1376",
            "--trusted-subnets=10.0.0.0/8,fd00::/8",
        ],
        &[
            "--metrics-address=off",
            "--listen=::1",
            "--queues=2",
            "--offloads=off",
            "--spin=20us",
            "--worker-nice=-3",
            "--pin-workers=on",
            "--no-discovery",
        ],
        &[
            "--range=fd00:32::/64",
            "--mac-age=90s",
            "--spin=off",
            "--worker-nice=off",
            "--log-level=mesh=debug,info",
            "--vni=0",
        ],
    ] {
        let first = settings(line, "").unwrap();
        assert_eq!(settings(&[], &first.to_toml()).unwrap(), first, "{line:?}");
    }
}

proptest! {
    #[test]
    fn any_file_is_read_or_refused(text in "[a-z_=\\[\\]\"0-9, \n.#-]{0,200}") {
        let _ = settings(&[], &text);
    }

    #[test]
    fn distance_is_a_metric_and_zero_for_the_same(a in "[a-c_]{0,6}", b in "[a-c_]{0,6}") {
        prop_assert_eq!(distance(&a, &b), distance(&b, &a));
        prop_assert_eq!(distance(&a, &b) == 0, a == b);
        prop_assert!(distance(&a, &b) <= a.len().max(b.len()));
    }
}
