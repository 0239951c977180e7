//! The command line as a person or a script meets it: exit statuses, what goes where, and which
//! setting wins.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::process::{Command, Output};

fn weft(line: &[&str], env: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft"))
        .args(line)
        .env_clear()
        .envs(env.iter().copied())
        .output()
        .unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// A configuration file that is gone with the value.
fn file(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let file = file("name = \"file\"\nvni = 1\nmtu = 1400\ntap = \"tap-file\"\n");
    let config = file.path().to_str().unwrap();
    let env = [
        ("WEFT_NAME", "env"),
        ("WEFT_VNI", "2"),
        ("WEFT_CONFIG", config),
        ("WEFT_TAP", ""),
    ];
    let output = weft(&["run", "--check", "--name", "flag"], &env);
    assert!(output.status.success(), "{}", stderr(&output));
    let settings = stdout(&output);
    for line in [
        "name = \"flag\"",
        "vni = 2",
        "mtu = 1400",
        "tap = \"tap-file\"",
        "bridge = \"weft\"",
    ] {
        assert!(
            settings.lines().any(|l| l == line),
            "no {line} in\n{settings}"
        );
    }
}

#[test]
fn a_checked_configuration_checks_again_to_itself() {
    let line = [
        "run",
        "--check",
        "--name=a",
        "--peer=b,[::1]:7",
        "--ipam-init=seed=a,b",
    ];
    let first = stdout(&weft(&line, &[("WEFT_CONFIG", "/dev/null")]));
    let file = file(&first);
    let again = weft(
        &["run", "--check", "--config", file.path().to_str().unwrap()],
        &[],
    );
    assert_eq!(stdout(&again), first);
}

#[test]
fn what_cannot_be_ends_with_64_and_says_everything_on_standard_error() {
    let env = [("WEFT_CONFIG", "/dev/null"), ("WEFT_RANGE", "10.32.0.0/33")];
    let output = weft(&["run", "--check", "--name=a", "--mtu=1", "--vni=x"], &env);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(stdout(&output), "");
    let said = stderr(&output);
    for word in [
        "3 settings are wrong",
        "--mtu or WEFT_MTU",
        "--range or WEFT_RANGE",
        "vni",
    ] {
        assert!(said.contains(word), "no {word} in\n{said}");
    }
    for line in [&["run", "--nonsense"][..], &["nonsense"], &[]] {
        assert_eq!(weft(line, &[]).status.code(), Some(64), "{line:?}");
    }
    let missing = weft(&["run", "--check", "--config", "/nonexistent.toml"], &[]);
    assert_eq!(missing.status.code(), Some(64));
    assert!(stderr(&missing).contains("/nonexistent.toml"));
}

#[test]
fn help_and_version_are_not_errors() {
    for line in [
        &["--help"][..],
        &["run", "--help"],
        &["status", "--help"],
        &["--version"],
    ] {
        let output = weft(line, &[]);
        assert!(
            output.status.success() && !output.stdout.is_empty(),
            "{line:?}"
        );
    }
    let help = stdout(&weft(&["run", "--help"], &[]));
    assert!(
        help.contains("WEFT_VXLAN_PORT") && !help.contains("exit-with-stdin"),
        "{help}"
    );
}

#[test]
fn status_without_a_router_says_so() {
    let output = weft(&["status", "--socket", "/nonexistent/weft.sock"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let said = stderr(&output);
    assert!(
        said.contains("/nonexistent/weft.sock") && said.contains("weft run"),
        "{said}"
    );
}

#[test]
fn called_weft_cni_it_is_the_plugin() {
    use std::os::unix::process::CommandExt as _;
    let output = Command::new(env!("CARGO_BIN_EXE_weft"))
        .arg0("/opt/cni/bin/weft-cni")
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .output()
        .unwrap();
    assert!(stdout(&output).contains("supportedVersions"), "{output:?}");
}

#[test]
fn the_plugin_is_installed_and_removed_by_hand() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = [
        "--bin-dir",
        dir.path().to_str().unwrap(),
        "--conf-dir",
        dir.path().to_str().unwrap(),
    ];
    let run = |verb: &str| weft(&[&[verb], &dirs[..]].concat(), &[]);
    for said in ["installed", "installed already"] {
        let output = run("install-cni");
        assert!(output.status.success(), "{}", stderr(&output));
        assert_eq!(stdout(&output).trim(), said);
    }
    // What is installed is the plugin.
    let plugin = Command::new(dir.path().join("weft-cni"))
        .env_clear()
        .env("CNI_COMMAND", "VERSION")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(stdout(&plugin).contains("supportedVersions"), "{plugin:?}");
    assert!(dir.path().join("10-weft.conflist").is_file());
    assert!(run("uninstall-cni").status.success());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let missing = weft(&["install-cni", "--bin-dir", "/nowhere"], &[]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(stderr(&missing).contains("/nowhere/weft-cni"));
}

/// Each line of its findings begins with how bad it is, and a bad one makes it fail.
#[test]
fn the_doctor_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("weft.sock");
    let output = weft(&["doctor", "--socket", socket.to_str().unwrap()], &[]);
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let router = text
        .lines()
        .find(|line| line.contains("the router does not answer"));
    assert!(
        router.is_some_and(|line| line.starts_with("BAD ")),
        "{text}"
    );
}
