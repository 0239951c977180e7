//! Where this node is told to find others, over restarts.
//!
//! `--peer` names addresses at each start. `weft connect` adds to them and `weft forget` takes away
//! from both, for good: that is kept in the state directory. An address of `--peer` that was taken
//! back stays so for as long as the settings name it. A node that was told to leave stays away, over
//! restarts too, until `weft connect` brings it back.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use control::TargetSource;
use mesh::Target;
use serde::{Deserialize, Serialize};

use crate::durable;

/// Name of the file in the state directory.
const FILE: &str = "targets.json";
/// Most targets at a time: as many as the mesh takes.
const MOST: usize = 1024;

/// Why the targets were not changed. Nothing has.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// They would be more than the mesh dials.
    #[error("{count} targets are more than {MOST}")]
    TooMany {
        /// How many there would be.
        count: usize,
    },
    /// They cannot be made to survive a restart.
    #[error("the targets cannot be written to {}: {error}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The targets, kept in a file.
#[derive(Debug, Clone)]
pub struct TargetBook {
    file: PathBuf,
    /// Those of the settings.
    settings: BTreeSet<Target>,
    record: Record,
}

/// What the operator has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Record {
    left: bool,
    connect: BTreeSet<Target>,
    /// Those of the settings that were taken back.
    forget: BTreeSet<Target>,
}

impl Record {
    fn targets(&self, settings: &BTreeSet<Target>) -> BTreeSet<Target> {
        if self.left {
            return BTreeSet::new();
        }
        let settings = settings.difference(&self.forget);
        settings.chain(&self.connect).cloned().collect()
    }
}

/// As the file has it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Page {
    left: bool,
    connect: Vec<String>,
    forget: Vec<String>,
}

impl TargetBook {
    /// Reads what an earlier run wrote. A file that cannot be read is as good as none, and is said so
    /// in the log: a node that finds the network by its settings is better than one that does not
    /// start.
    pub fn load(state_dir: &Path, settings: impl IntoIterator<Item = Target>) -> Self {
        let file = state_dir.join(FILE);
        let page: io::Result<Page> =
            std::fs::read(&file).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let page = page.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::warn!(file = %file.display(), %error, "forgot the targets of weft connect");
            }
            Page::default()
        });
        let settings: BTreeSet<Target> = settings.into_iter().collect();
        let read = |list: &[String]| -> BTreeSet<Target> {
            list.iter().filter_map(|text| text.parse().ok()).collect()
        };
        let mut forget = read(&page.forget);
        // One that the settings do not name any more may be named anew.
        forget.retain(|target| settings.contains(target));
        let record = Record {
            left: page.left,
            connect: read(&page.connect),
            forget,
        };
        Self {
            file,
            settings,
            record,
        }
    }

    /// Whether the node was told to leave.
    pub const fn has_left(&self) -> bool {
        self.record.left
    }

    /// All that are to be dialled; none of a node that was told to leave.
    pub fn targets(&self) -> BTreeSet<Target> {
        self.record.targets(&self.settings)
    }

    /// Who named a target that is dialled.
    pub fn source(&self, target: &Target) -> TargetSource {
        if self.record.connect.contains(target) {
            TargetSource::Connect
        } else if self.settings.contains(target) {
            TargetSource::Settings
        } else {
            TargetSource::Cluster
        }
    }

    /// Adds targets, or puts them in the place of all that there are. A node that was told to leave
    /// comes back.
    ///
    /// # Errors
    /// They are too many, or the file cannot be written; nothing has changed.
    pub fn connect(
        &mut self,
        targets: &BTreeSet<Target>,
        replace: bool,
    ) -> Result<(), TargetError> {
        let mut record = self.record.clone();
        record.left = false;
        if replace {
            record.connect.clear();
            record.forget = self.settings.clone();
        }
        record.connect.extend(targets.iter().cloned());
        record.forget.retain(|target| !targets.contains(target));
        self.keep(record)
    }

    /// Takes targets back.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn forget(&mut self, targets: &BTreeSet<Target>) -> Result<(), TargetError> {
        let mut record = self.record.clone();
        record.connect.retain(|target| !targets.contains(target));
        let named = targets.iter().filter(|t| self.settings.contains(*t));
        record.forget.extend(named.cloned());
        self.keep(record)
    }

    /// Notes that the node leaves. What was connected to is forgotten with that.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn leave(&mut self) -> Result<(), TargetError> {
        self.keep(Record {
            left: true,
            ..Record::default()
        })
    }

    /// Takes back a change: all is as in this copy from before.
    ///
    /// # Errors
    /// The file cannot be written; nothing has changed.
    pub fn restore(&mut self, before: &Self) -> Result<(), TargetError> {
        self.keep(before.record.clone())
    }

    fn keep(&mut self, record: Record) -> Result<(), TargetError> {
        if record == self.record {
            return Ok(());
        }
        let count = record.targets(&self.settings).len();
        if count > MOST {
            return Err(TargetError::TooMany { count });
        }
        let write = |list: &BTreeSet<Target>| list.iter().map(ToString::to_string).collect();
        let page = Page {
            left: record.left,
            connect: write(&record.connect),
            forget: write(&record.forget),
        };
        let text = serde_json::to_vec_pretty(&page).map_err(io::Error::from);
        let kept = text.and_then(|text| durable::write(&self.file, &text));
        kept.map_err(|error| TargetError::Write {
            file: self.file.clone(),
            error,
        })?;
        self.record = record;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &[&str]) -> BTreeSet<Target> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    struct Bench {
        dir: tempfile::TempDir,
    }

    impl Bench {
        /// A restart with these settings.
        fn book(&self, settings: &[&str]) -> TargetBook {
            TargetBook::load(self.dir.path(), set(settings))
        }
    }

    fn bench() -> Bench {
        let dir = tempfile::tempdir().unwrap();
        Bench { dir }
    }

    #[test]
    fn what_is_connected_and_forgotten_survives_a_restart() {
        let bench = bench();
        let mut book = bench.book(&["a", "b"]);
        assert_eq!(book.targets(), set(&["a", "b"]));
        book.connect(&set(&["c", "a"]), false).unwrap();
        book.forget(&set(&["b", "z"])).unwrap();
        assert_eq!(book.targets(), set(&["a", "c"]));

        let book = bench.book(&["a", "b"]);
        assert_eq!(book.targets(), set(&["a", "c"]));
        assert_eq!(
            book.source(&"a".parse().unwrap()),
            TargetSource::Connect,
            "it stays when the settings name it no more"
        );
        assert_eq!(bench.book(&[]).targets(), set(&["a", "c"]));
    }

    #[test]
    fn a_forgotten_peer_of_the_settings_comes_back_by_name_or_by_new_settings() {
        let bench = bench();
        bench.book(&["a"]).forget(&set(&["a"])).unwrap();
        assert_eq!(bench.book(&["a"]).targets(), set(&[]));
        let mut book = bench.book(&["a"]);
        book.connect(&set(&["a"]), false).unwrap();
        assert_eq!(bench.book(&["a"]).targets(), set(&["a"]));

        bench.book(&["a"]).forget(&set(&["a"])).unwrap();
        // The settings without it, once, are a clean slate.
        bench.book(&["b"]).connect(&set(&["c"]), false).unwrap();
        assert_eq!(bench.book(&["a", "b"]).targets(), set(&["a", "b", "c"]));
    }

    #[test]
    fn replace_leaves_what_is_named_and_nothing_else() {
        let bench = bench();
        let mut book = bench.book(&["a", "b"]);
        book.connect(&set(&["c", "d"]), false).unwrap();
        book.connect(&set(&["b", "d"]), true).unwrap();
        assert_eq!(book.targets(), set(&["b", "d"]));
        assert_eq!(bench.book(&["a", "b"]).targets(), set(&["b", "d"]));
    }

    #[test]
    fn one_that_left_stays_away_until_it_is_told_to_connect() {
        let bench = bench();
        let mut book = bench.book(&["a"]);
        book.connect(&set(&["c"]), false).unwrap();
        book.leave().unwrap();
        let mut book = bench.book(&["a"]);
        assert!(book.has_left());
        assert_eq!(book.targets(), set(&[]));
        let away = book.clone();
        book.connect(&set(&["e"]), false).unwrap();
        book.restore(&away).unwrap();
        assert!(bench.book(&["a"]).has_left());
        book.connect(&set(&["d"]), false).unwrap();
        assert!(!book.has_left());
        assert_eq!(bench.book(&["a"]).targets(), set(&["a", "d"]));
    }

    #[test]
    fn a_damaged_file_costs_its_contents_only() {
        let bench = bench();
        std::fs::write(bench.dir.path().join(FILE), "{\"connect\": [1").unwrap();
        let mut book = bench.book(&["a"]);
        assert_eq!(book.targets(), set(&["a"]));
        book.connect(&set(&["b"]), false).unwrap();
        assert_eq!(bench.book(&["a"]).targets(), set(&["a", "b"]));
    }

    #[test]
    fn what_cannot_be_written_has_not_happened() {
        let mut book = TargetBook::load(Path::new("/proc/nowhere"), set(&["a"]));
        assert!(book.connect(&set(&["b"]), false).is_err());
        assert_eq!(book.targets(), set(&["a"]));
    }

    #[test]
    fn i6_targets_are_bounded() {
        let bench = bench();
        let mut book = bench.book(&["a"]);
        let many: Vec<String> = (0..MOST).map(|number| format!("n{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let error = book.connect(&set(&many), false).unwrap_err();
        assert!(error.to_string().contains("1025"), "{error}");
        book.connect(&set(&many), true).unwrap();
        assert_eq!(book.targets().len(), MOST);
    }
}
