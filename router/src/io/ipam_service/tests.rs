//! The pool with its thread and its file: restarts, crashes, full disks, changed settings.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use control::{ApiError, ErrorCode};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use super::*;
use crate::io::ipam_store::FILE;

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(20);
/// For what will not be had.
const BRIEFLY: Duration = Duration::from_millis(300);

fn options(dir: &Path) -> IpamOptions {
    IpamOptions {
        me: "a".parse().unwrap(),
        range: "10.32.0.0/12".parse().unwrap(),
        // Alone, so that it waits for nobody.
        init: seeds(&["a"]),
        state_dir: dir.to_owned(),
        hold_down: MINUTE,
        expects_peers: false,
        default_subnet: None,
    }
}

fn seeds(names: &[&str]) -> IpamInit {
    IpamInit::Seed(names.iter().map(|name| name.parse().unwrap()).collect())
}

fn key(i: usize) -> AllocationKey {
    AllocationKey::new(format!("c{i}"), "eth0").unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

async fn get(ipam: &IpamHandle, i: usize) -> Result<IpNet, IpamError> {
    ipam.allocate(key(i), None, None, SOON).await
}

#[tokio::test]
async fn a_restart_keeps_addresses_and_hold_downs() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    for i in 1..=4 {
        assert_eq!(
            get(&ipam, i).await.unwrap(),
            net(&format!("10.32.0.{i}/12"))
        );
    }
    assert_eq!(ipam.release(key(2)).await.unwrap(), [net("10.32.0.2/12")]);
    assert_eq!(ipam.release(key(2)).await.unwrap(), []);
    let before = ipam.status().await.unwrap();
    ipam.close().await.unwrap();
    assert!(matches!(get(&ipam, 9).await, Err(IpamError::Stopped)));

    let ipam = start(options(dir.path())).unwrap();
    assert_eq!(ipam.status().await.unwrap(), before);
    assert_eq!(
        ipam.lookup(key(3)).await.unwrap(),
        Some(net("10.32.0.3/12"))
    );
    assert_eq!(ipam.lookup(key(2)).await.unwrap(), None);
    assert_eq!(get(&ipam, 1).await.unwrap(), net("10.32.0.1/12"));
    assert_eq!(
        get(&ipam, 5).await.unwrap(),
        net("10.32.0.5/12"),
        ".2 rests still"
    );
}

#[tokio::test]
async fn a_hold_down_ends() {
    let dir = tempfile::tempdir().unwrap();
    let hold_down = Duration::from_millis(100);
    let ipam = start(IpamOptions {
        hold_down,
        ..options(dir.path())
    })
    .unwrap();
    get(&ipam, 1).await.unwrap();
    ipam.release(key(1)).await.unwrap();
    tokio::time::sleep(hold_down * 2).await;
    assert_eq!(get(&ipam, 2).await.unwrap(), net("10.32.0.1/12"));
    ipam.release(key(2)).await.unwrap();
    ipam.close().await.unwrap();
    tokio::time::sleep(hold_down * 2).await;
    let ipam = start(IpamOptions {
        hold_down,
        ..options(dir.path())
    })
    .unwrap();
    assert_eq!(get(&ipam, 3).await.unwrap(), net("10.32.0.1/12"));
}

/// A clock that stands far in the past or future, or a shorter setting, does not hold an address
/// for longer than the setting.
#[tokio::test]
async fn a_hold_down_never_grows_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let long = Duration::from_secs(365 * 86_400);
    let ipam = start(IpamOptions {
        hold_down: long,
        ..options(dir.path())
    })
    .unwrap();
    get(&ipam, 1).await.unwrap();
    ipam.release(key(1)).await.unwrap();
    ipam.close().await.unwrap();
    let hold_down = Duration::from_millis(1);
    let ipam = start(IpamOptions {
        hold_down,
        ..options(dir.path())
    })
    .unwrap();
    tokio::time::sleep(hold_down * 20).await;
    assert_eq!(get(&ipam, 2).await.unwrap(), net("10.32.0.1/12"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_get_different_addresses() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    let asked: Vec<_> = (0..200)
        .map(|i| {
            let ipam = ipam.clone();
            tokio::spawn(async move { (i, get(&ipam, i).await.unwrap()) })
        })
        .collect();
    let mut given = BTreeSet::new();
    for task in asked {
        let (i, address) = task.await.unwrap();
        given.insert(address);
        assert_eq!(ipam.lookup(key(i)).await.unwrap(), Some(address));
    }
    assert_eq!(given.len(), 200);
    assert_eq!(
        (given.first(), given.last()),
        (Some(&net("10.32.0.1/12")), Some(&net("10.32.0.200/12")))
    );
    let status = ipam.status().await.unwrap();
    assert_eq!((status.used, status.allocations.len()), (200, 200));
    ipam.close().await.unwrap();
    let ipam = start(options(dir.path())).unwrap();
    assert_eq!(ipam.status().await.unwrap(), status);
}

/// What has been answered is in the file at that moment: a copy of it is what kill -9 leaves.
#[tokio::test]
async fn an_answer_survives_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    for i in 1..20 {
        let address = get(&ipam, i).await.unwrap();
        let after = tempfile::tempdir().unwrap();
        fs::copy(dir.path().join(FILE), after.path().join(FILE)).unwrap();
        let survivor = start(options(after.path())).unwrap();
        assert_eq!(survivor.lookup(key(i)).await.unwrap(), Some(address));
        let next = get(&survivor, 1000).await.unwrap();
        assert_eq!(next, net(&format!("10.32.0.{}/12", i + 1)));
    }
}

#[tokio::test]
async fn status_says_what_there_is() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    get(&ipam, 1).await.unwrap();
    let status = ipam.status().await.unwrap();
    assert!(status.ready && status.reason.is_none(), "{status:?}");
    assert_eq!(status.range, net("10.32.0.0/12"));
    assert_eq!(
        status.seeds.iter().map(|s| s.as_str()).collect::<Vec<_>>(),
        ["a"]
    );
    assert_eq!(status.owned.len(), 1);
    assert_eq!(
        (status.owned[0].range.as_str(), status.owned[0].size),
        ("10.32.0.0-10.47.255.255", 1 << 20)
    );
    // The first and last address of the range are nobody's.
    assert_eq!((status.used, status.free), (1, (1 << 20) - 3));
    let has = &status.allocations[0];
    assert_eq!(
        (has.container_id.as_str(), has.ifname.as_str(), has.address),
        ("c1", "eth0", net("10.32.0.1/12"))
    );
}

#[tokio::test]
async fn refusals_over_the_control_socket() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    let claim =
        |i, address: &str| ipam.allocate(key(i), None, Some(address.parse().unwrap()), SOON);
    claim(1, "10.32.0.7").await.unwrap();
    for (refused, code, remedy) in [
        (
            claim(2, "10.32.0.7").await,
            ErrorCode::Conflict,
            "delete container c1",
        ),
        (
            claim(2, "10.0.0.7").await,
            ErrorCode::BadRequest,
            "10.32.0.0/12",
        ),
    ] {
        let error = ApiError::from(refused.unwrap_err());
        assert_eq!(error.code, code, "{error}");
        assert!(error.remedy.contains(remedy), "{error}");
    }
}

/// A pool that does not answer is an error at the deadline, never a hang: also when its queue is
/// full.
#[tokio::test]
async fn a_silent_pool_is_an_error_at_the_deadline() {
    let (requests, _unread) = mpsc::channel(1);
    let outgoing = Arc::default();
    let owners = watch::Sender::default().subscribe();
    let ipam = IpamHandle {
        requests,
        outgoing,
        owners,
    };
    for _ in 0..3 {
        let asked = ipam.allocate(key(1), None, None, Duration::from_millis(10));
        let error = ApiError::from(asked.await.unwrap_err());
        assert_eq!(error.code, ErrorCode::Deadline);
        assert!(error.message.contains("10ms"), "{error}");
    }
}

#[tokio::test]
async fn without_a_seed_list_nothing_is_handed_out_until_there_is_one() {
    let dir = tempfile::tempdir().unwrap();
    let undecided = || IpamOptions {
        init: IpamInit::Undecided,
        ..options(dir.path())
    };
    let ipam = start(undecided()).unwrap();
    let asked = ipam.allocate(key(1), None, None, BRIEFLY).await;
    let error = ApiError::from(asked.unwrap_err());
    assert_eq!(error.code, ErrorCode::NotReady);
    let status = ipam.status().await.unwrap();
    assert!(!status.ready && status.reason.unwrap().contains("--ipam-init seed="));
    ipam.close().await.unwrap();

    let ipam = start(options(dir.path())).unwrap();
    get(&ipam, 1).await.unwrap();
    ipam.close().await.unwrap();

    // What was decided once stays, with or without the list.
    let ipam = start(undecided()).unwrap();
    assert_eq!(get(&ipam, 2).await.unwrap(), net("10.32.0.2/12"));
}

#[tokio::test]
async fn a_node_outside_the_list_waits_for_one_that_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(IpamOptions {
        init: seeds(&["x", "y"]),
        ..options(dir.path())
    })
    .unwrap();
    let asked = ipam.allocate(key(1), None, None, BRIEFLY).await;
    let error = ApiError::from(asked.unwrap_err());
    assert_eq!(error.code, ErrorCode::NotReady);
    assert!(error.message.contains("waiting for x, y"), "{error}");
    let status = ipam.status().await.unwrap();
    assert!(!status.ready && status.owned.is_empty(), "{status:?}");
}

#[tokio::test]
async fn another_list_later_changes_nothing_and_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    let before = ipam.status().await.unwrap();
    ipam.close().await.unwrap();
    let ipam = start(IpamOptions {
        init: seeds(&["a", "b", "c"]),
        ..options(dir.path())
    })
    .unwrap();
    let status = ipam.status().await.unwrap();
    assert_eq!((status.owned, status.ready), (before.owned, true));
    let reason = status.reason.unwrap();
    assert!(
        reason.contains("divided among a,") && reason.contains("seed=a,b,c"),
        "{reason}"
    );
}

#[tokio::test]
async fn another_range_or_name_hands_out_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    let bridge = AllocationKey::new("weft:bridge", "weft").unwrap();
    ipam.allocate(bridge.clone(), None, None, SOON)
        .await
        .unwrap();
    let address = get(&ipam, 1).await.unwrap();
    ipam.close().await.unwrap();

    let range = net("10.64.0.0/16");
    let other_range = IpamOptions {
        range,
        ..options(dir.path())
    };
    let other_name = IpamOptions {
        me: "z".parse().unwrap(),
        init: seeds(&["z"]),
        ..options(dir.path())
    };
    for (options, remedy) in [
        (other_range.clone(), "--range 10.32.0.0/12"),
        (other_name, "--name a"),
    ] {
        let ipam = start(options).unwrap();
        let error = ApiError::from(get(&ipam, 2).await.unwrap_err());
        assert_eq!(error.code, ErrorCode::NotReady);
        assert!(
            error.message.contains('1') && error.remedy.contains(remedy),
            "{error}"
        );
        let status = ipam.status().await.unwrap();
        assert!(!status.ready && status.reason.unwrap().contains(remedy));
        assert_eq!(
            get(&ipam, 1).await.unwrap(),
            address,
            "what is held is served"
        );
        assert_eq!(ipam.lookup(key(1)).await.unwrap(), Some(address));
        ipam.close().await.unwrap();
    }

    let ipam = start(options(dir.path())).unwrap();
    assert_eq!(
        ipam.lookup(key(1)).await.unwrap(),
        Some(address),
        "back as it was"
    );
    ipam.close().await.unwrap();

    // When the last container has gone, the new setting holds; the bridge gets a new address.
    let ipam = start(other_range.clone()).unwrap();
    ipam.release(key(1)).await.unwrap();
    ipam.close().await.unwrap();
    let ipam = start(other_range).unwrap();
    assert_eq!(ipam.lookup(bridge).await.unwrap(), None);
    assert_eq!(get(&ipam, 1).await.unwrap(), net("10.64.0.1/16"));
}

#[tokio::test]
async fn settings_that_cannot_be_are_refused_before_anything_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let refused = |options: IpamOptions| format!("{:#}", start(options).unwrap_err());
    for (options, says) in [
        (
            IpamOptions {
                range: net("10.32.0.1/12"),
                ..options(dir.path())
            },
            "write 10.32.0.0/12",
        ),
        (
            IpamOptions {
                range: net("10.32.0.0/31"),
                ..options(dir.path())
            },
            "/30 or shorter",
        ),
        (
            IpamOptions {
                init: seeds(&[]),
                ..options(dir.path())
            },
            "list of seeds is empty",
        ),
        (
            IpamOptions {
                range: net("10.0.0.0/30"),
                init: seeds(&["a", "b", "c", "d", "e"]),
                ..options(dir.path())
            },
            "too few for 5 seeds",
        ),
    ] {
        let text = refused(options);
        assert!(text.contains(says), "{text}");
    }
    assert!(!dir.path().join(FILE).exists());
}

#[tokio::test]
async fn a_store_that_cannot_be_opened_names_file_and_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let ipam = start(options(dir.path())).unwrap();
    let text = format!("{:#}", start(options(dir.path())).unwrap_err());
    assert!(
        text.contains("ipam.redb is in use by another process"),
        "{text}"
    );
    ipam.close().await.unwrap();
    fs::write(dir.path().join(FILE), "garbage").unwrap();
    let text = format!("{:#}", start(options(dir.path())).unwrap_err());
    assert!(
        text.contains("ipam.redb is damaged") && text.contains("move the file away"),
        "{text}"
    );
}

/// A caller that has given up gets no address that nobody would give back.
#[test]
fn what_nobody_waits_for_is_not_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = Engine::open(options(dir.path()), mpsc::channel(1).0).unwrap();
    let (reply, gone) = oneshot::channel();
    drop(gone);
    let mut batch = vec![Request::Allocate {
        key: key(1),
        subnet: None,
        address: None,
        until: Instant::now() + SOON,
        reply,
    }];
    engine.run(&mut batch);
    let (reply, mut answer) = oneshot::channel();
    engine.run(&mut vec![Request::Lookup { key: key(1), reply }]);
    assert_eq!(answer.try_recv().unwrap(), None);
}

/// On a full disk callers get an error, nothing is handed out, what is held stays known, and all
/// goes on by itself when there is room.
#[test]
fn a_full_disk_refuses_and_recovers() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let test = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root: it mounts a small disk");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=4m"),
        )
        .unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let ipam = start(options(&path)).unwrap();
            let ballast = path.join("ballast");
            let mut held = Vec::new();
            for i in 0..50 {
                held.push(get(&ipam, i).await.unwrap());
            }
            // Takes all that is left.
            let _ = fs::write(&ballast, vec![0; 4 << 20]);
            let mut i = 50;
            let error = loop {
                match get(&ipam, i).await {
                    Ok(address) => held.push(address),
                    Err(error) => break error,
                }
                i += 1;
                assert!(i < 100_000, "the disk never filled up");
            };
            assert!(matches!(error, IpamError::Store(_)), "{error}");
            assert!(error.to_string().contains("no disk space left"), "{error}");
            assert_eq!(ipam.lookup(key(i)).await.unwrap(), None, "rolled back");
            assert_eq!(ipam.lookup(key(7)).await.unwrap(), Some(held[7]));
            let status = ipam.status().await.unwrap();
            assert_eq!(status.used, i as u64);
            assert!(!status.ready && status.reason.unwrap().contains("no disk space left"));

            fs::remove_file(&ballast).unwrap();
            let next = get(&ipam, 200_000).await.unwrap();
            assert!(!held.contains(&next));
            assert!(ipam.status().await.unwrap().ready);
            ipam.close().await.unwrap();
            let ipam = start(options(&path)).unwrap();
            for (i, address) in held.iter().enumerate() {
                assert_eq!(ipam.lookup(key(i)).await.unwrap(), Some(*address));
            }
        });
    });
    test.join().unwrap();
}
