//! A disk that is full, seen from the plugin: an error with words, nothing half-done, and all goes on
//! when there is room again.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use control::{AttachRequest, Client, DetachRequest};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::{assert_all_reach, cluster, eventually, pings, v4};
use crate::cni::held;
use crate::runtime::PodNs;

#[test]
fn a_full_disk_refuses_new_pods_and_keeps_the_others() {
    let mut world = cluster(1, 2, &["--ipam-hold-down", "1s"]);
    let state = world.nodes[0].layout.state_dir.clone();
    world.end_router(0, Signal::SIGTERM).unwrap();
    let disk = SmallDisk::under(&state);
    world.start_router_again(0, &[]).unwrap();
    let node = &world.nodes[0];
    let ready = || node.status().is_ok_and(|status| status.ipam.ready);
    eventually("the router is back", ready);
    let config = json!({"type": "weft-cni", "socket": node.layout.socket});

    let before = PodNs::new();
    let result = before.call(&node.netns, "ADD", &config, None).expect_json();
    let client = Client::new(&node.layout.socket, Duration::from_secs(10));
    let refused = PodNs::new();
    let mut filler = 0;
    let refusal = loop {
        // The store's file has room of its own for a while, and gives some back when it fails.
        disk.fill();
        while client.attach(&request(filler)).is_ok() {
            filler += 1;
            assert!(filler < 100_000, "the disk never filled up");
        }
        let added = refused.call(&node.netns, "ADD", &config, None);
        if added.code().is_some() {
            break added;
        }
        refused.call(&node.netns, "DEL", &config, None).expect_ok();
    };
    refusal.expect_error(102, "no disk space left");
    let mut inside = hostnet::netlink::Netlink::open_in(&refused.netns).unwrap();
    assert!(inside.link("eth0").unwrap().is_none());
    // Those that are there notice nothing.
    assert!(pings(&before.netns, v4(&world.pods[0]), 56));
    before
        .call(&node.netns, "CHECK", &config, Some(&result))
        .expect_ok();
    assert_all_reach(&world);

    disk.free();
    let added = refused
        .call(&node.netns, "ADD", &config, None)
        .expect_json();
    assert_ne!(added["ips"], result["ips"], "I1");
    assert!(pings(&refused.netns, v4(&world.pods[1]), 56));
    eventually("ready again", ready);

    for pod in [&before, &refused] {
        pod.call(&node.netns, "DEL", &config, None).expect_ok();
    }
    for number in 0..=filler {
        let AttachRequest {
            container_id,
            ifname,
            ..
        } = request(number);
        let request = DetachRequest {
            container_id,
            ifname,
        };
        client.detach(&request).unwrap();
    }
    eventually("all addresses are back", || {
        held(&world).len() == world.pods.len()
    });
}

/// A tmpfs of a few megabytes over a directory, with what was in it; gone when dropped.
struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    fn under(at: &Path) -> Self {
        let kept = tempfile::tempdir().unwrap();
        copy(at, kept.path());
        let options = Some("size=6m");
        mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), options).unwrap();
        copy(kept.path(), at);
        Self { at: at.to_owned() }
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Takes all that is left.
    fn fill(&self) {
        let mut options = OpenOptions::new();
        let mut ballast = options
            .create(true)
            .append(true)
            .open(self.ballast())
            .unwrap();
        let full = loop {
            if let Err(error) = ballast.write_all(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(full.kind(), ErrorKind::StorageFull);
    }

    fn free(&self) {
        fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The router may still have files open there.
        umount2(&self.at, MntFlags::MNT_DETACH).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn request(number: u32) -> AttachRequest {
    AttachRequest {
        container_id: format!("{number:0>200}"),
        ifname: "eth0".to_owned(),
        ..AttachRequest::default()
    }
}
