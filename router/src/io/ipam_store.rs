//! The disk side of the address pool: `ipam.redb` in the state directory.
//!
//! One redb file holds the ring, the addresses in use and those held down. A commit is one
//! transaction and one `fdatasync`: when `Store::commit` returns, the batch survives `kill -9`
//! and power loss; when it fails, none of it counts and the store has to be opened again. redb
//! checksums every page; opening walks all of them, so that damage is found at the start and not
//! when an address is handed out twice.

mod error;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ipam::{Allocation, AllocationKey, Family, Ring, Universe};
use ipnet::IpNet;
use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition};
use wire::PeerName;

use self::error::Refusal;
pub use self::error::StoreError;

/// The file's name in the state directory.
pub(super) const FILE: &str = "ipam.redb";

/// Raised when a release writes what older ones cannot read.
const FORMAT: u32 = 1;

/// redb's page cache. All of a node's state is smaller: 100,000 addresses take about 15 MB on
/// disk, a usual node's few hundred far less than 1 MB.
const CACHE: usize = 4 << 20;

/// `format` (u32, big-endian), `node`, `range` (both text), `ring` ([`Ring::encode`]),
/// `agent` ([`ipam::Agent::state`]).
const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Family (4 or 6) and address to container id, interface name, prefix length.
const USED: TableDefinition<'_, (u8, u128), (&str, &str, u8)> = TableDefinition::new("used");

/// Family and address to the time when it may be used again, in milliseconds since 1970-01-01 UTC.
const RELEASED: TableDefinition<'_, (u8, u128), u64> = TableDefinition::new("released");

/// All that the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stored {
    /// The node whose state this is.
    pub(super) node: PeerName,
    /// The ring, which names its range.
    pub(super) ring: Ring,
    /// What the agent keeps beside it; empty in a new file.
    pub(super) agent: Vec<u8>,
    /// Addresses in use, in their order.
    pub(super) allocations: Vec<Allocation>,
    /// Addresses held down, and when they may be used again, in milliseconds since 1970-01-01 UTC.
    pub(super) released: Vec<(IpAddr, u64)>,
}

/// One thing to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Write {
    /// The address is in use, and no longer held down.
    Used(Allocation),
    /// The address is out of use, and held down.
    Released {
        /// Which one.
        address: IpAddr,
        /// In milliseconds since 1970-01-01 UTC.
        reusable_unix_ms: u64,
    },
    /// A hold-down is over.
    Reusable {
        /// Which address.
        address: IpAddr,
    },
    /// The ring changed, or what the agent keeps beside it.
    Ring(Ring, Vec<u8>),
}

/// An open store. The file is locked until it is dropped.
pub(super) struct Store {
    database: Database,
    path: PathBuf,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of a state directory and reads it; makes an empty one, with an undecided
    /// ring, for `node` and `range` if there is none.
    ///
    /// # Errors
    /// See [`StoreError`]. A file that is there is never replaced or cut.
    pub(super) fn open(
        state_dir: &Path,
        node: &PeerName,
        range: Universe,
    ) -> Result<(Self, Stored), StoreError> {
        let path = state_dir.join(FILE);
        let fail = |refusal: Refusal| refusal.at(&path);
        if !path.try_exists().map_err(|error| fail(error.into()))? {
            create(state_dir, &path, node, range).map_err(fail)?;
        }
        // redb does not promise never to panic on a file that was damaged with intent or by a
        // disk; a panic here says the same as an error.
        let opened = catch_unwind(AssertUnwindSafe(|| {
            let mut database = builder().open(&path)?;
            database.check_integrity()?;
            let stored = read(&database)?;
            Ok((database, stored))
        }));
        let opened = opened.unwrap_or_else(|_| Err(Refusal::damaged("reading it failed midway")));
        let (database, stored) = opened.map_err(fail)?;
        Ok((Self { database, path }, stored))
    }

    /// Where the file is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a batch, all or nothing, and waits until it is on the disk.
    ///
    /// # Errors
    /// After one, the store takes nothing more: drop it and open it again.
    pub(super) fn commit(&self, writes: &[Write]) -> Result<(), StoreError> {
        write(&self.database, writes).map_err(|refusal| refusal.at(&self.path))
    }

    /// Forgets everything and starts over, for this node and range. For a state that holds no
    /// container's address.
    ///
    /// # Errors
    /// As for [`commit`](Self::commit).
    pub(super) fn reset(&self, node: &PeerName, range: Universe) -> Result<(), StoreError> {
        write_empty(&self.database, node, range).map_err(|refusal| refusal.at(&self.path))
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Makes the file under another name first: a file with the right name is always a whole one.
fn create(dir: &Path, path: &Path, node: &PeerName, range: Universe) -> Result<(), Refusal> {
    let draft = path.with_extension("redb.new");
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
        // What a crash left, or nothing.
        _ => {}
    }
    let written = builder()
        .create(&draft)
        .map_err(Refusal::from)
        .and_then(|database| {
            write_empty(&database, node, range)?;
            drop(database);
            fs::rename(&draft, path)?;
            // The name is durable only when its directory is.
            File::open(dir)?.sync_all()?;
            Ok(())
        });
    if written.is_err() {
        // It is incomplete; and on a full disk it may take the space that is missing.
        let _ = fs::remove_file(&draft);
    }
    written
}

fn write_empty(database: &Database, node: &PeerName, range: Universe) -> Result<(), Refusal> {
    let transaction = database.begin_write()?;
    transaction.delete_table(USED)?;
    transaction.delete_table(RELEASED)?;
    transaction.open_table(USED)?;
    transaction.open_table(RELEASED)?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT.to_be_bytes().as_slice())?;
        meta.insert("node", node.as_str().as_bytes())?;
        meta.insert("range", range.to_string().as_bytes())?;
        meta.insert("ring", Ring::undecided(range).encode().as_slice())?;
        meta.insert("agent", [].as_slice())?;
    }
    transaction.commit()?;
    Ok(())
}

fn write(database: &Database, writes: &[Write]) -> Result<(), Refusal> {
    let transaction = database.begin_write()?;
    {
        let mut used = transaction.open_table(USED)?;
        let mut released = transaction.open_table(RELEASED)?;
        for write in writes {
            match write {
                Write::Used(Allocation { key, address }) => {
                    let at = cell(address.addr());
                    released.remove(at)?;
                    let value = (key.container_id(), key.ifname(), address.prefix_len());
                    used.insert(at, value)?;
                }
                Write::Released {
                    address,
                    reusable_unix_ms,
                } => {
                    used.remove(cell(*address))?;
                    released.insert(cell(*address), reusable_unix_ms)?;
                }
                Write::Reusable { address } => {
                    released.remove(cell(*address))?;
                }
                Write::Ring(ring, agent) => {
                    let mut meta = transaction.open_table(META)?;
                    meta.insert("ring", ring.encode().as_slice())?;
                    meta.insert("agent", agent.as_slice())?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Stored, Refusal> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let field = |name: &str| -> Result<Vec<u8>, Refusal> {
        match meta.get(name)? {
            Some(value) => Ok(value.value().to_vec()),
            None => Err(Refusal::damaged(format!("it has no {name}"))),
        }
    };
    let format = field("format")?;
    let Ok(format) = <[u8; 4]>::try_from(format).map(u32::from_be_bytes) else {
        return Err(Refusal::damaged("its format is not a number"));
    };
    if format != FORMAT {
        return Err(Refusal::Format {
            found: format,
            known: FORMAT,
        });
    }
    let node = parsed("node", field("node")?)?;
    let net: IpNet = parsed("range", field("range")?)?;
    let range = Universe::new(net).map_err(Refusal::damaged)?;
    let ring = Ring::decode(&field("ring")?).map_err(Refusal::damaged)?;
    if ring.universe() != range {
        let theirs = ring.universe();
        return Err(Refusal::damaged(format!(
            "its range is {range}, its ring's {theirs}"
        )));
    }
    let agent = field("agent")?;
    let mut allocations = Vec::new();
    for entry in transaction.open_table(USED)?.iter()? {
        let (at, value) = entry?;
        let (container_id, ifname, prefix_len) = value.value();
        let key = AllocationKey::new(container_id, ifname).map_err(Refusal::damaged)?;
        let address = IpNet::new(address(at.value())?, prefix_len).map_err(Refusal::damaged)?;
        allocations.push(Allocation { key, address });
    }
    let mut released = Vec::new();
    for entry in transaction.open_table(RELEASED)?.iter()? {
        let (at, reusable_unix_ms) = entry?;
        released.push((address(at.value())?, reusable_unix_ms.value()));
    }
    Ok(Stored {
        node,
        ring,
        agent,
        allocations,
        released,
    })
}

fn parsed<T>(name: &str, bytes: Vec<u8>) -> Result<T, Refusal>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text = String::from_utf8(bytes).map_err(Refusal::damaged)?;
    text.parse()
        .map_err(|error| Refusal::damaged(format!("its {name}: {error}")))
}

/// An address as the tables have it.
fn cell(address: IpAddr) -> (u8, u128) {
    match address {
        IpAddr::V4(v4) => (4, v4.to_bits().into()),
        IpAddr::V6(v6) => (6, v6.to_bits()),
    }
}

fn address((family, number): (u8, u128)) -> Result<IpAddr, Refusal> {
    match (family, u32::try_from(number)) {
        (4, Ok(_)) => Ok(Family::V4.address(number)),
        (6, _) => Ok(Family::V6.address(number)),
        _ => Err(Refusal::damaged(format!(
            "address {number:#x} of family {family}"
        ))),
    }
}
