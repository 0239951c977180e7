//! `weft lab` as a person runs it: the real executable, real namespaces, real routers.
//!
//! Needs root, like the command itself. All tests use the one lab of the machine, so they take
//! turns.

#![expect(
    clippy::unwrap_used,
    reason = "a test that meets what it does not expect fails, wherever that is"
)]

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

static TURN: Mutex<()> = Mutex::new(());

/// One test's turn: nothing of a lab is there before it.
struct Turn {
    _guard: MutexGuard<'static, ()>,
}

impl Turn {
    fn take() -> Self {
        // A test that failed says so itself; the next one starts from what it left.
        let guard = TURN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let down = weft(&["lab", "down"]);
        assert!(
            down.status.success(),
            "these tests need root: {}",
            text(&down.stderr)
        );
        let turn = Self { _guard: guard };
        turn.assert_nothing_left();
        turn
    }

    /// Fails if anything of the lab is left.
    fn assert_nothing_left(&self) {
        assert_eq!(namespaces(), BTreeSet::new());
        assert_eq!(routers(), Vec::<String>::new());
        assert!(
            !Path::new("/run/weft-lab").exists(),
            "{:?}",
            fs::read_dir("/run/weft-lab")
        );
    }
}

/// The lab's namespaces; other tests may run at the same time and have theirs.
fn namespaces() -> BTreeSet<String> {
    fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with("weft-lab"))
        .collect()
}

/// Command lines of all processes that belong to the lab.
fn routers() -> Vec<String> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(" run ") && line.contains("/run/weft-lab/"))
        .collect()
}

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !happened() {
        assert!(Instant::now() < end, "waited in vain for: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(arguments).stdin(Stdio::null());
    command
}

fn weft(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Starts a lab and returns once it has said that it does `step`.
fn start_until(step: &str, arguments: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = command(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains(step) {
        let len = stderr.read_line(&mut said).unwrap();
        assert_ne!(len, 0, "the lab ended before {step:?}:\n{said}");
    }
    (child, stderr)
}

const SMALL: [&str; 7] = [
    "lab",
    "--json",
    "--nodes",
    "2",
    "--pods",
    "1",
    "--no-throughput",
];

/// Runs a small lab to its end: every pod must have reached every other.
fn assert_small_lab_works() -> Value {
    let output = weft(&SMALL);
    let stderr = text(&output.stderr);
    assert!(
        output.status.success(),
        "{stderr}\n{}",
        text(&output.stdout)
    );
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report:#}");
    let pairs = report["pings"]["pairs"].as_array().unwrap();
    assert_eq!(pairs.len(), 2);
    assert!(
        pairs.iter().all(|pair| pair["reached"] == true),
        "{report:#}"
    );
    report
}

#[test]
fn two_labs_one_after_the_other_reach_everyone_and_leave_nothing() {
    let turn = Turn::take();
    let report = assert_small_lab_works();
    turn.assert_nothing_left();

    let pods = report["pods"].as_array().unwrap();
    assert_eq!(pods[0]["mtu"], 1450);
    assert!(
        pods[0]["address"].as_str().unwrap().ends_with("/12"),
        "{report:#}"
    );
    assert_ne!(pods[0]["address"], pods[1]["address"]);
    assert_eq!(report["mtu"]["full_size"]["bytes"], 1450);

    // Each pod knows the other by the other's own address, across nodes.
    let neighbours = report["neighbours"].as_array().unwrap();
    assert_eq!(neighbours.len(), 2, "{report:#}");
    assert_eq!(neighbours[0]["mac"], pods[1]["mac"]);

    let frame = &report["frame"];
    assert_eq!(frame["len"], 148);
    let layers: Vec<_> = frame["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| {
            (
                layer["name"].as_str().unwrap(),
                layer["len"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        layers,
        [
            ("Ethernet", 14),
            ("IPv4", 20),
            ("UDP", 8),
            ("VXLAN", 8),
            ("Ethernet", 14),
            ("IPv4", 20),
            ("ICMP", 8),
            ("data", 56),
        ]
    );

    assert_small_lab_works();
    turn.assert_nothing_left();
}

#[test]
fn the_page_has_every_section_and_throughput() {
    let turn = Turn::take();
    let output = weft(&[
        "lab",
        "--nodes",
        "3",
        "--pods",
        "2",
        "--underlay-mtu",
        "1400",
    ]);
    let page = text(&output.stdout);
    assert!(output.status.success(), "{}\n{page}", text(&output.stderr));
    for part in [
        "6 pods on 3 nodes",
        "The network",
        "Everyone reaches everyone",
        "30 of 30 pairs",
        "Gbit/s",
        "MTU of 1350: the underlay's 1400 less 50",
        "148 bytes on the wire",
        "OK: 30 of 30",
        "weft lab up",
    ] {
        assert!(page.contains(part), "{part:?} is not on the page:\n{page}");
    }
    assert!(!page.contains('\u{1b}'), "colour without a terminal");
    turn.assert_nothing_left();
}

#[test]
fn a_lab_that_was_killed_at_any_step_is_cleared_away_by_the_next() {
    let turn = Turn::take();
    for step in ["starting a router", "attaching", "every pod pings"] {
        let (mut child, _stderr) = start_until(step, &SMALL);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(
            namespaces(),
            BTreeSet::new(),
            "killed at {step:?}, and it left nothing?"
        );
        wait_for("the routers of a killed lab to end by themselves", || {
            routers().is_empty()
        });
        assert_small_lab_works();
        turn.assert_nothing_left();
    }
}

#[test]
fn signals_take_the_lab_down() {
    let turn = Turn::take();
    for (step, signal) in [
        ("attaching", Signal::SIGINT),
        ("every pod pings", Signal::SIGTERM),
    ] {
        let (mut child, mut stderr) = start_until(step, &SMALL);
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        let mut said = String::new();
        while stderr.read_line(&mut said).unwrap() != 0 {}
        assert_eq!(child.wait().unwrap().code(), Some(130), "{step}: {said}");
        turn.assert_nothing_left();
    }
}

#[test]
fn a_standing_lab_can_be_looked_at_entered_and_removed() {
    let turn = Turn::take();
    let up = weft(&["lab", "up", "--nodes", "2", "--pods", "1"]);
    assert!(up.status.success(), "{}", text(&up.stderr));
    assert_eq!(routers().len(), 2);

    let status = weft(&["lab", "status", "--json"]);
    assert!(status.status.success(), "{}", text(&status.stderr));
    let status: Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["nodes"][0]["router"], "running");
    assert_eq!(status["nodes"][0]["links"][0], "node2 up");
    let address = status["pods"][1]["address"].as_str().unwrap();
    assert!(text(&weft(&["lab", "status"]).stdout).contains(address));

    let inside = weft(&[
        "lab",
        "exec",
        "node2-pod1",
        "--",
        "cat",
        "/proc/net/fib_trie",
    ]);
    assert!(inside.status.success());
    assert!(text(&inside.stdout).contains(address.split('/').next().unwrap()));
    assert_eq!(
        weft(&["lab", "exec", "node1", "--", "sh", "-c", "exit 7"])
            .status
            .code(),
        Some(7)
    );
    assert_eq!(
        weft(&["lab", "exec", "node1", "--", "/no/such"])
            .status
            .code(),
        Some(127)
    );
    let lost = weft(&["lab", "exec", "node9", "--", "true"]);
    assert!(
        !lost.status.success() && text(&lost.stderr).contains("node1-pod1"),
        "{}",
        text(&lost.stderr)
    );

    let second = weft(&SMALL);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("weft lab down"),
        "{}",
        text(&second.stderr)
    );
    assert_eq!(
        routers().len(),
        2,
        "the refused lab harmed the standing one"
    );

    let show = weft(&["lab", "show", "--json", "--no-throughput"]);
    assert!(show.status.success(), "{}", text(&show.stderr));

    let down = weft(&["lab", "down"]);
    assert!(down.status.success(), "{}", text(&down.stderr));
    turn.assert_nothing_left();
    assert!(
        weft(&["lab", "down"]).status.success(),
        "removing nothing is fine"
    );
    let gone = weft(&["lab", "status"]);
    assert!(!gone.status.success() && text(&gone.stderr).contains("weft lab up"));
}

#[test]
fn a_second_lab_is_refused_while_one_is_at_work() {
    let turn = Turn::take();
    let (mut first, mut stderr) = start_until("every pod pings", &SMALL);
    let second = weft(&SMALL);
    assert_eq!(second.status.code(), Some(1));
    let said = text(&second.stderr);
    assert!(
        said.contains("another `weft lab` is at work") && said.contains(&first.id().to_string()),
        "{said}"
    );
    let mut rest = String::new();
    while stderr.read_line(&mut rest).unwrap() != 0 {}
    assert!(
        first.wait().unwrap().success(),
        "the first lab was disturbed: {rest}"
    );
    turn.assert_nothing_left();
}

#[test]
fn a_router_that_dies_is_named_with_its_log() {
    let turn = Turn::take();
    let up = weft(&["lab", "up", "--nodes", "2", "--pods", "1"]);
    assert!(up.status.success(), "{}", text(&up.stderr));
    let state: Value =
        serde_json::from_slice(&fs::read("/run/weft-lab/lab.json").unwrap()).unwrap();
    let pid = state["routers"][1][1]["pid"].as_i64().unwrap();
    kill(Pid::from_raw(pid.try_into().unwrap()), Signal::SIGKILL).unwrap();
    wait_for("the router to die", || routers().len() == 1);

    let status = weft(&["lab", "status"]);
    assert_eq!(status.status.code(), Some(1), "{}", text(&status.stdout));
    let show = weft(&["lab", "show", "--no-throughput"]);
    let (page, said) = (text(&show.stdout), text(&show.stderr));
    assert_eq!(show.status.code(), Some(1), "{page}");
    assert!(page.contains("FAILED: 0 of 2 pairs"), "{page}");
    assert!(
        page.contains("the router of node2 does not answer"),
        "{page}"
    );
    assert!(
        page.contains("node1-pod1 did not reach node2-pod1"),
        "{page}"
    );
    assert!(
        said.contains("last lines of /run/weft-lab/node2/router.log"),
        "{said}"
    );
    assert!(weft(&["lab", "down"]).status.success());
    turn.assert_nothing_left();
}

#[test]
fn what_a_lab_lacks_is_said_before_anything_is_made() {
    let turn = Turn::take();
    let nobody = 65_534;
    // Where the executable lies nobody may be let in, such as below /root.
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).unwrap();
    let weft_for_all = dir.path().join("weft");
    fs::copy(env!("CARGO_BIN_EXE_weft"), &weft_for_all).unwrap();
    let mut lab = Command::new(&weft_for_all);
    let output = lab.arg("lab").uid(nobody).gid(nobody).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("CAP_NET_ADMIN") && said.contains("sudo weft lab"),
        "{said}"
    );
    for bad in [
        ["--nodes", "1"],
        ["--pods", "0"],
        ["--underlay-mtu", "900"],
        ["--nodes", "x"],
    ] {
        let output = weft(&["lab", bad[0], bad[1]]);
        assert_eq!(
            output.status.code(),
            Some(64),
            "{bad:?}: {}",
            text(&output.stderr)
        );
    }
    turn.assert_nothing_left();
}
