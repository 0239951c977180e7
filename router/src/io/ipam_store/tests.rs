//! What is acknowledged is there after any crash, what is damaged is never believed.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use redb::StorageBackend;

use super::*;

fn name(text: &str) -> PeerName {
    text.parse().unwrap()
}

fn range() -> Universe {
    Universe::new("10.32.0.0/12".parse().unwrap()).unwrap()
}

fn ring() -> Ring {
    let seeding = ipam::Seeding::new([name("a"), name("b")]).unwrap();
    Ring::seeded(range(), &seeding).unwrap()
}

fn open(dir: &Path) -> Result<(Store, Stored), StoreError> {
    Store::open(dir, &name("a"), range())
}

fn used(host: u8, container: u32) -> Write {
    Write::Used(Allocation {
        key: AllocationKey::new(format!("c{container}"), "eth0").unwrap(),
        address: IpNet::new([10, 32, 0, host].into(), 12).unwrap(),
    })
}

fn released(host: u8, at: u64) -> Write {
    Write::Released {
        address: [10, 32, 0, host].into(),
        reusable_unix_ms: at,
    }
}

/// What a file that took these batches says.
fn expected<'a>(batches: impl IntoIterator<Item = &'a Vec<Write>>) -> Stored {
    let mut state = Stored {
        node: name("a"),
        ring: Ring::undecided(range()),
        agent: Vec::new(),
        allocations: Vec::new(),
        released: Vec::new(),
    };
    let mut used = BTreeMap::new();
    let mut released = BTreeMap::new();
    for write in batches.into_iter().flatten() {
        match write {
            Write::Used(allocation) => {
                released.remove(&allocation.address.addr());
                used.insert(allocation.address.addr(), allocation.clone());
            }
            Write::Released {
                address,
                reusable_unix_ms,
            } => {
                used.remove(address);
                released.insert(*address, *reusable_unix_ms);
            }
            Write::Reusable { address } => {
                released.remove(address);
            }
            Write::Ring(ring, agent) => {
                (state.ring, state.agent) = (ring.clone(), agent.clone());
            }
        }
    }
    state.allocations = used.into_values().collect();
    state.released = released.into_iter().collect();
    state
}

fn any_batches() -> impl Strategy<Value = Vec<Vec<Write>>> {
    let write = prop_oneof![
        4 => (0u8..20, 0u32..9).prop_map(|(host, container)| used(host, container)),
        3 => (0u8..20, 0u64..9).prop_map(|(host, at)| released(host, at)),
        1 => (0u8..20).prop_map(|host| Write::Reusable { address: [10, 32, 0, host].into() }),
        1 => Just(Write::Ring(ring(), vec![7])),
    ];
    prop::collection::vec(prop::collection::vec(write, 1..6), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// What was committed is read back, also when the file is opened anew after each batch.
    #[test]
    fn batches_are_read_back(batches in any_batches(), reopen: bool) {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, stored) = open(dir.path()).unwrap();
        prop_assert_eq!(stored, expected([]));
        for (i, batch) in batches.iter().enumerate() {
            store.commit(batch).unwrap();
            if reopen {
                drop(store);
                let stored;
                (store, stored) = open(dir.path()).unwrap();
                prop_assert_eq!(stored, expected(&batches[..=i]));
            }
        }
        drop(store);
        prop_assert_eq!(open(dir.path()).unwrap().1, expected(&batches));
    }
}

/// IPv6 addresses are kept as such, beside IPv4 ones with the same number.
#[test]
fn both_families_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    let v6: IpAddr = "::a20:1".parse().unwrap();
    let key = AllocationKey::new("c9", "eth0").unwrap();
    let address = IpNet::new(v6, 64).unwrap();
    store
        .commit(&[used(1, 1), Write::Used(Allocation { key, address })])
        .unwrap();
    store
        .commit(&[Write::Released {
            address: v6,
            reusable_unix_ms: 7,
        }])
        .unwrap();
    drop(store);
    let stored = open(dir.path()).unwrap().1;
    assert_eq!(stored.allocations.len(), 1);
    assert_eq!(stored.released, [(v6, 7)]);
}

#[test]
fn reset_starts_over() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    store
        .commit(&[used(1, 1), released(2, 9), Write::Ring(ring(), vec![7])])
        .unwrap();
    let other = Universe::new("10.64.0.0/16".parse().unwrap()).unwrap();
    store.reset(&name("z"), other).unwrap();
    drop(store);
    // The name and range given apply to a new file alone.
    let stored = open(dir.path()).unwrap().1;
    assert_eq!(
        (stored.node, stored.ring),
        (name("z"), Ring::undecided(other))
    );
    assert!(stored.allocations.is_empty() && stored.released.is_empty());
}

#[test]
fn a_second_process_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    let error = open(dir.path()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, StoreError::InUse { .. }), "{text}");
    assert!(
        text.contains("ipam.redb") && text.contains("--state-dir"),
        "{text}"
    );
    drop(store);
    open(dir.path()).unwrap();
}

#[test]
fn a_missing_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let error = open(&dir.path().join("nowhere")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error}");
    assert!(error.to_string().contains("nowhere/ipam.redb"), "{error}");
}

#[test]
fn a_draft_left_by_a_crash_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("ipam.redb.new"), "half").unwrap();
    open(dir.path()).unwrap();
    assert!(!dir.path().join("ipam.redb.new").exists());
}

#[test]
fn a_newer_format_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path()).unwrap();
    let transaction = store.database.begin_write().unwrap();
    let format = 2u32.to_be_bytes();
    transaction
        .open_table(META)
        .unwrap()
        .insert("format", format.as_slice())
        .unwrap();
    transaction.commit().unwrap();
    drop(store);
    let error = open(dir.path()).unwrap_err();
    assert!(matches!(error, StoreError::Format { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("has format 2, and this weft knows 1"),
        "{error}"
    );
}

#[test]
fn what_is_no_store_is_refused_and_kept() {
    for content in [
        &b""[..],
        b"\0",
        b"not a database",
        &[0; 4096],
        &[0xff; 100_000],
    ] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE);
        fs::write(&path, content).unwrap();
        let error = open(dir.path()).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StoreError::Damaged { .. }), "{text}");
        assert!(
            text.contains("ipam.redb") && text.contains("move the file away"),
            "{text}"
        );
        assert_eq!(fs::read(&path).unwrap(), content, "it was overwritten");
    }
}

/// A file with some history: tables with more than one page, pages freed and used again.
fn busy_file(dir: &Path) -> Stored {
    let (store, _) = open(dir).unwrap();
    store.commit(&[Write::Ring(ring(), vec![7])]).unwrap();
    for i in 0..40u8 {
        let batch: Vec<Write> = (0..6).map(|j| used(i * 6 + j, u32::from(i))).collect();
        store.commit(&batch).unwrap();
        store.commit(&[released(i * 3, i.into())]).unwrap();
    }
    drop(store);
    open(dir).unwrap().1
}

/// Wherever a file is damaged, opening it either notices or reads exactly what was written.
#[test]
fn damage_is_noticed_or_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let stored = busy_file(dir.path());
    let path = dir.path().join(FILE);
    let good = fs::read(&path).unwrap();
    let mut noticed = 0;
    // A prime's distance reaches most pages, at a different place in each.
    const STEP: usize = 1009;
    for at in (0..good.len()).step_by(STEP) {
        let mut bad = good.clone();
        bad[at] ^= 1 << (at % 8);
        fs::write(&path, &bad).unwrap();
        match open(dir.path()) {
            Ok((_, read)) => assert_eq!(read, stored, "byte {at} was believed"),
            Err(error) => {
                assert!(error.to_string().contains("ipam.redb"), "{error}");
                noticed += 1;
            }
        }
    }
    assert!(
        noticed > 10,
        "of {} damaged files, {noticed} were noticed",
        good.len() / STEP
    );
    for length in (0..good.len()).step_by(good.len() / 30) {
        fs::write(&path, &good[..length]).unwrap();
        match open(dir.path()) {
            Ok((_, read)) => assert_eq!(read, stored, "cut at {length}"),
            Err(error) => assert!(
                matches!(error, StoreError::Damaged { .. }),
                "{length}: {error}"
            ),
        }
    }
}

/// A disk that remembers what is not synced yet, and dies at a chosen operation.
#[derive(Debug, Clone, Default)]
struct FaultyDisk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    /// What a reader sees.
    view: Vec<u8>,
    /// What survives for sure.
    durable: Vec<u8>,
    /// What came since the last sync.
    pending: Vec<Operation>,
    operations: usize,
    dies_at: Option<usize>,
}

#[derive(Debug)]
enum Operation {
    Write(usize, Vec<u8>),
    SetLen(usize),
}

impl FaultyDisk {
    fn of(image: Vec<u8>, dies_at: Option<usize>) -> Self {
        let durable = image.clone();
        Self(Arc::new(Mutex::new(DiskState {
            view: image,
            durable,
            dies_at,
            ..Default::default()
        })))
    }

    #[expect(clippy::unwrap_in_result, reason = "a poisoned lock is a failed test")]
    fn counted(&self) -> io::Result<std::sync::MutexGuard<'_, DiskState>> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        if state.dies_at.is_some_and(|at| state.operations > at) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(state)
    }

    /// What is on the disk after a power loss: of what was not synced some is there, some not,
    /// some in part. `seed` chooses.
    fn after_power_loss(&self, seed: u64) -> Vec<u8> {
        let state = self.0.lock().unwrap();
        let mut image = state.durable.clone();
        let mut random = seed;
        for operation in &state.pending {
            // A step of Knuth's MMIX generator.
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let keep = (random >> 33) % 4;
            match operation {
                Operation::SetLen(length) if keep > 0 => image.resize(*length, 0),
                Operation::Write(at, data) if keep > 0 => {
                    // Sectors are whole, writes of several sectors are not.
                    let whole = if keep == 1 {
                        data.len() / 2 / 512 * 512
                    } else {
                        data.len()
                    };
                    if image.len() < at + whole {
                        image.resize(at + whole, 0);
                    }
                    image[*at..at + whole].copy_from_slice(&data[..whole]);
                }
                _ => {}
            }
        }
        image
    }
}

#[expect(
    clippy::unwrap_in_result,
    reason = "a test's disk: its faults are chosen, not met"
)]
impl StorageBackend for FaultyDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let from = usize::try_from(offset).unwrap();
        let bytes = state.view.get(from..from + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.counted()?;
        let len = usize::try_from(len).unwrap();
        state.view.resize(len, 0);
        state.pending.push(Operation::SetLen(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.counted()?;
        state.durable = state.view.clone();
        state.pending.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.counted()?;
        let at = usize::try_from(offset).unwrap();
        if state.view.len() < at + data.len() {
            state.view.resize(at + data.len(), 0);
        }
        state.view[at..at + data.len()].copy_from_slice(data);
        state.pending.push(Operation::Write(at, data.to_vec()));
        Ok(())
    }
}

/// Power is lost, or the disk fills up, at each operation in turn: everything acknowledged is
/// there, and the batch under way is there wholly or not at all.
#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    let fresh = {
        let disk = FaultyDisk::default();
        let database = builder().create_with_backend(disk.clone()).unwrap();
        write_empty(&database, &name("a"), range()).unwrap();
        drop(database);
        disk.after_power_loss(0)
    };
    let batches: Vec<Vec<Write>> = (0..12u8)
        .map(|i| {
            vec![
                used(i, i.into()),
                released(i / 2, 5),
                used(i + 100, 7),
                Write::Ring(ring(), vec![7]),
            ]
        })
        .collect();
    let states: Vec<Stored> = (0..=batches.len())
        .map(|n| expected(&batches[..n]))
        .collect();
    let mut dies_at = 0;
    loop {
        let disk = FaultyDisk::of(fresh.clone(), Some(dies_at));
        let mut acknowledged = 0;
        if let Ok(database) = builder().create_with_backend(disk.clone()) {
            for batch in &batches {
                if write(&database, batch).is_err() {
                    break;
                }
                acknowledged += 1;
            }
        }
        let mut images: Vec<Vec<u8>> = (0..8).map(|seed| disk.after_power_loss(seed)).collect();
        // A full disk, or kill -9: all that was written is seen.
        images.push(disk.0.lock().unwrap().view.clone());
        for image in images {
            let database = builder()
                .create_with_backend(FaultyDisk::of(image, None))
                .unwrap();
            let read = read(&database).unwrap();
            let whole = read == states[acknowledged]
                || states
                    .get(acknowledged + 1)
                    .is_some_and(|next| read == *next);
            assert!(
                whole,
                "died at operation {dies_at} after {acknowledged} batches: {read:?}"
            );
        }
        if acknowledged == batches.len() {
            break;
        }
        dies_at += 1;
    }
    assert!(
        dies_at > 2 * batches.len(),
        "a batch takes at least a write and a sync"
    );
}

/// A real full disk: a small tmpfs, in a mount namespace of its own.
#[test]
fn a_full_disk_is_an_error_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let thread = std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNS).expect("this test needs root: it mounts a small disk");
        let none = None::<&str>;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(
            Some("tmpfs"),
            &path,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=3m"),
        )
        .unwrap();
        let (mut store, _) = open(&path).unwrap();
        fs::write(path.join("ballast"), vec![0; 512 << 10]).unwrap();
        let mut acknowledged = Vec::new();
        let batch = |i: u32| -> Vec<Write> {
            (0..200)
                .map(|j| {
                    let key = AllocationKey::new(format!("{:0>200}", i * 200 + j), "eth0").unwrap();
                    let host = Family::V4.address(u128::from(0x0a20_0000 + i * 200 + j));
                    Write::Used(Allocation {
                        key,
                        address: IpNet::new(host, 12).unwrap(),
                    })
                })
                .collect()
        };
        let mut failures = 0;
        for i in 0..100 {
            match store.commit(&batch(i)) {
                Ok(()) => acknowledged.push(batch(i)),
                Err(error) => {
                    failures += 1;
                    assert!(matches!(error, StoreError::Full { .. }), "{error}");
                    assert!(error.to_string().contains("free some"), "{error}");
                    drop(store);
                    let stored;
                    (store, stored) = open(&path).expect("a full disk can still be read");
                    assert_eq!(stored.allocations, expected(&acknowledged).allocations);
                    // Room again: the store goes on.
                    if failures == 1 {
                        fs::remove_file(path.join("ballast")).unwrap();
                    }
                }
            }
        }
        assert!(
            failures > 1 && acknowledged.len() > 2,
            "{failures}, {}",
            acknowledged.len()
        );
    });
    thread.join().unwrap();
}
