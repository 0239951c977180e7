use std::fs;
use std::path::Path;
use std::process::Command;

use hostnet::{NetNs, NetNsError, Netlink, caps, sysctl};

use crate::world::{World, fresh_name};

#[test]
fn a_namespace_is_made_entered_and_removed() {
    let world = World::new();
    let here = NetNs::current().unwrap();
    assert!(!here.same_as(&world.ns));
    assert!(world.run(|| NetNs::current().unwrap().same_as(&world.ns)));
    assert!(
        NetNs::open(&NetNs::path(&world.name))
            .unwrap()
            .same_as(&world.ns)
    );
    // The calling thread has not moved.
    assert!(here.same_as(&NetNs::current().unwrap()));

    let links = world.netlink().links().unwrap();
    assert_eq!(links.len(), 1);
    assert!(links[0].name == "lo" && links[0].up, "{:?}", links[0]);

    NetNs::remove(&world.name).unwrap();
    NetNs::remove(&world.name).unwrap();
    assert!(!NetNs::path(&world.name).exists());
    let error = NetNs::open(&NetNs::path(&world.name)).unwrap_err();
    assert!(matches!(error, NetNsError::Missing { .. }), "{error}");
}

#[test]
fn a_child_process_lives_in_the_namespace() {
    let world = World::new();
    let child = world.run(|| {
        Command::new("readlink")
            .arg("/proc/self/ns/net")
            .output()
            .unwrap()
    });
    let inside = world.run(|| fs::read_link("/proc/thread-self/ns/net").unwrap());
    assert_eq!(
        String::from_utf8(child.stdout).unwrap().trim(),
        inside.to_str().unwrap()
    );
}

#[test]
fn a_panic_inside_comes_out() {
    let world = World::new();
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        world.run(|| panic!("on purpose"));
    }));
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
}

#[test]
fn what_is_no_namespace_is_refused() {
    let error = |path: &str| NetNs::open(Path::new(path)).unwrap_err();
    assert!(matches!(
        error("/run/netns/no-such-namespace"),
        NetNsError::Missing { .. }
    ));
    assert!(matches!(error("/dev/null/x"), NetNsError::Missing { .. }));
    for path in ["/dev/null", "/proc/self/status", "/proc/self/ns/mnt", "/"] {
        let error = error(path);
        assert_eq!(
            error.to_string(),
            format!("{path} is not a network namespace")
        );
    }
}

#[test]
fn a_name_is_taken_once_and_must_be_a_file_name() {
    let world = World::new();
    let error = NetNs::create(&world.name).unwrap_err();
    assert!(
        matches!(&error, NetNsError::Exists { name } if *name == world.name),
        "{error}"
    );
    // The first one is unharmed.
    world.run(|| ());
    for name in ["", ".", "..", "a/b", &"x".repeat(256)] {
        let error = NetNs::create(name).unwrap_err();
        assert!(matches!(error, NetNsError::BadName { .. }), "{error}");
        assert!(NetNs::remove(name).is_err());
    }
}

#[test]
fn a_half_made_namespace_can_be_removed() {
    // The first one makes the directory.
    let _world = World::new();
    let name = fresh_name();
    fs::write(NetNs::path(&name), "").unwrap();
    NetNs::remove(&name).unwrap();
    assert!(!NetNs::path(&name).exists());
}

#[test]
fn sysctls_are_those_of_the_namespace() {
    let world = World::new();
    world.run(|| {
        let name = sysctl::interface(sysctl::Family::V4, "lo", "forwarding");
        assert_eq!(sysctl::read(&name).unwrap(), "0");
        assert!(sysctl::write(&name, "1").unwrap());
        assert!(!sysctl::write(&name, "1").unwrap());
        assert_eq!(sysctl::read(&name).unwrap(), "1");
        let error = sysctl::read("net/ipv4/conf/gone/forwarding").unwrap_err();
        assert_eq!(
            error.to_string(),
            "read sysctl net/ipv4/conf/gone/forwarding"
        );
    });
    let other = World::new();
    assert_eq!(
        other.run(|| sysctl::read("net/ipv4/conf/lo/forwarding").unwrap()),
        "0"
    );
}

#[test]
fn tests_run_with_the_capabilities_they_need() {
    assert!(caps::has_net_admin());
    assert!(caps::has_sys_admin());
    Netlink::open().unwrap();
}
