//! What can go wrong with the file, as an operator has to hear it.

use std::io;
use std::path::{Path, PathBuf};

use redb::{CommitError, DatabaseError, StorageError, TableError, TransactionError};

/// Why the store was not opened, or a batch not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody has the file open.
    #[error("{} is in use by another process: stop the other router, or give this one its own --state-dir", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// The content is not what was written.
    #[error(
        "{} is damaged ({detail}): it is the record of the addresses in use on this node, so put a good copy in its place, \
         or stop this node's containers, move the file away and start again",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: String,
    },
    /// Another release wrote it.
    #[error("{} has format {found}, and this weft knows {known}: run the release that wrote it, or a newer one", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: String,
        /// This release's.
        known: u32,
    },
    /// No space, or over quota.
    #[error("no disk space left for {}: free some; running containers are not affected", path.display())]
    Full {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Anything else that the operating system refuses.
    #[error("cannot read or write {}: check the disk, and that its directory is there and writable", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// redb refuses to go on after an earlier error.
    #[error("{} takes nothing more after an earlier error ({detail}): restart the router if this stays", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What redb said.
        detail: String,
    },
}

/// A [`StoreError`] that does not know yet which file it is about.
#[derive(Debug)]
pub(super) enum Refusal {
    InUse,
    Damaged(String),
    Format {
        found: u32,
        known: u32,
    },
    /// redb's own format, not that of our tables.
    OldDatabase(u8),
    Io(io::Error),
    Broken(String),
}

impl Refusal {
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the shape that map_err wants"
    )]
    pub(super) fn damaged(detail: impl ToString) -> Self {
        Self::Damaged(detail.to_string())
    }

    pub(super) fn at(self, path: &Path) -> StoreError {
        let path = path.to_owned();
        match self {
            Self::InUse => StoreError::InUse { path },
            Self::Damaged(detail) => StoreError::Damaged { path, detail },
            Self::Format { found, known } => StoreError::Format {
                path,
                found: found.to_string(),
                known,
            },
            Self::OldDatabase(found) => StoreError::Format {
                path,
                found: format!("redb {found}"),
                known: super::FORMAT,
            },
            Self::Io(source) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    StoreError::Full { path, source }
                }
                // Cut short, or pointing behind its own end.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData => StoreError::Damaged {
                    path,
                    detail: source.to_string(),
                },
                _ => StoreError::Io { path, source },
            },
            Self::Broken(detail) => StoreError::Broken { path, detail },
        }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<StorageError> for Refusal {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(error) => Self::Io(error),
            StorageError::Corrupted(detail) => Self::Damaged(detail),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<DatabaseError> for Refusal {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::InUse,
            DatabaseError::Storage(error) => error.into(),
            DatabaseError::UpgradeRequired(found) => Self::OldDatabase(found),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<TransactionError> for Refusal {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<CommitError> for Refusal {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Broken(other.to_string()),
        }
    }
}

/// A table that is missing or has other types was not written by this code.
impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}
