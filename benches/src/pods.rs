//! Network namespaces that belong to a run and go with it.

use std::path::Path;
use std::{env, fs, io};

use anyhow::Context as _;
use hostnet::netns::{self, NetNs};

/// What the names of all namespaces and directories of this program begin with; the process's
/// number follows.
const PREFIX: &str = "weft-bench-";

/// The name of a namespace or directory of this run.
pub(crate) fn name(what: &str) -> String {
    format!("{PREFIX}{}-{what}", std::process::id())
}

/// Namespaces that stand in for pods. Removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Pods {
    names: Vec<String>,
}

impl Pods {
    /// Makes `count` of them.
    pub(crate) fn create(kind: &str, count: usize) -> anyhow::Result<Self> {
        let mut pods = Self::default();
        for number in 0..count {
            let name = name(&format!("{kind}{number}"));
            NetNs::create(&name)?;
            pods.names.push(name);
        }
        Ok(pods)
    }

    /// Their names, which serve as container identifiers too.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for name in &self.names {
            if let Err(error) = NetNs::remove(name) {
                eprintln!("weft-bench: {error}");
            }
        }
    }
}

/// Removes what a run that was killed has left behind.
pub(crate) fn remove_leftovers() -> anyhow::Result<()> {
    for name in leftovers(Path::new(netns::DIR))? {
        NetNs::remove(&name)?;
    }
    let directories = env::temp_dir();
    for name in leftovers(&directories)? {
        let path = directories.join(name);
        fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
    }
    Ok(())
}

/// The names in a directory that belong to runs which are no more.
fn leftovers(directory: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot list {}", directory.display()));
        }
    };
    Ok(entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| owner(name).is_some_and(|pid| !runs_a_bench(pid)))
        .collect())
}

/// The process that made a namespace or directory, by its name.
fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Whether this process runs this program, in whichever build.
fn runs_a_bench(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|path| path.file_name().map(Path::new) == Some(Path::new("weft-bench")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_program_have_an_owner() {
        assert_eq!(owner(&name("p0")), Some(std::process::id()));
        for foreign in [
            "blue",
            "weft-bench",
            "weft-bench-",
            "weft-bench-x-p0",
            "weft-lab-7-p0",
        ] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn what_dead_runs_left_is_found_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let dead = format!("{PREFIX}4194305-p0"); // above PID_MAX_LIMIT, so no process has it
        for name in [dead.as_str(), "weft-bench-x-p0", "other"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        assert_eq!(leftovers(directory.path()).unwrap(), [dead]);
        assert!(
            leftovers(&directory.path().join("missing"))
                .unwrap()
                .is_empty()
        );
    }
}
