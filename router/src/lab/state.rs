//! What a lab writes down about itself, so that a later command can find it and a later run can
//! clear it away; and the lock that keeps two runs apart.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use wire::Mac;

use super::layout::{self, Layout};
use super::process::ProcessId;

/// What a lab is, as `lab.json` in its directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabState {
    /// Nodes, pods, names.
    pub layout: Layout,
    /// Whether it was meant to outlive the command that made it.
    pub detached: bool,
    /// Whether it was complete.
    pub ready: bool,
    /// The routers that were started so far, with the name of their node.
    pub routers: Vec<(String, ProcessId)>,
    /// The pods that were attached so far.
    pub pods: Vec<PodState>,
}

/// A pod that `weft-cni` attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodState {
    /// Its name.
    pub name: String,
    /// Its address with the prefix length of the overlay's range.
    pub address: IpNet,
    /// Its gateway: the bridge's address on its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<std::net::IpAddr>,
    /// The address of its interface.
    pub mac: Mac,
}

impl LabState {
    /// Where a lab writes it.
    fn path(lab: &str) -> PathBuf {
        layout::dir_of(lab).join("lab.json")
    }

    /// Reads what a lab wrote; none if there is no lab, or it died while writing its first word.
    pub fn load(lab: &str) -> Option<Self> {
        serde_json::from_slice(&fs::read(Self::path(lab)).ok()?).ok()
    }

    /// Replaces what the lab wrote. A reader sees the old or the new text, never half of one.
    pub fn save(&self) -> io::Result<()> {
        let path = Self::path(&self.layout.name);
        let new = path.with_extension("json.new");
        fs::write(&new, serde_json::to_vec_pretty(self)?)?;
        fs::rename(new, path)
    }

    /// Whether the lab is complete and at least one of its routers runs.
    pub fn is_up(&self) -> bool {
        self.ready && self.routers.iter().any(|(_, process)| process.is_alive())
    }
}

/// The right to make or remove the lab of one name, until dropped.
#[derive(Debug)]
pub struct LabLock {
    file: File,
    path: PathBuf,
}

/// Why the lock was not to be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error(
        "another `weft lab` is at work here{}: wait for it to end, or end it with Ctrl-C",
        holder.as_ref().map(|pid| format!(" (process {pid})")).unwrap_or_default()
    )]
    Held {
        /// The number of that process, if it wrote it down.
        holder: Option<String>,
    },
    /// The file cannot be made.
    #[error("cannot lock {}: {error}", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
}

impl LabLock {
    /// Takes the lock, or fails at once.
    pub fn take(lab: &str) -> Result<Self, LockError> {
        let dir = layout::dir_of(lab);
        let path = dir.join("lock");
        let io = |error| LockError::Io {
            path: path.clone(),
            error,
        };
        loop {
            fs::create_dir_all(&dir).map_err(io)?;
            let opened = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path);
            let mut file = match opened {
                Ok(file) => file,
                // The holder before removed the directory in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(io(error)),
            };
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let holder = fs::read_to_string(&path).ok();
                    let holder = holder.map(|text| text.trim().to_owned());
                    return Err(LockError::Held {
                        holder: holder.filter(|pid| !pid.is_empty()),
                    });
                }
                Err(TryLockError::Error(error)) => return Err(io(error)),
            }
            if is_same_file(&file, &path) {
                file.set_len(0).map_err(io)?;
                writeln!(file, "{}", std::process::id()).map_err(io)?;
                return Ok(Self { file, path });
            }
            // The holder before removed the file while this one waited: it locks nothing.
        }
    }

    /// Removes the lock's file too, and the lab's directory if nothing else is in it.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        if let Some(dir) = self.path.parent() {
            // Not empty: a detached lab lives there.
            let _ = fs::remove_dir(dir);
        }
        self.file.unlock()
    }
}

/// Whether an open file is still the one at the path.
fn is_same_file(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::metadata(path)) {
        (Ok(open), Ok(named)) => open.dev() == named.dev() && open.ino() == named.ino(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name of a lab that only this test has.
    fn name(of: &str) -> String {
        format!("weft-test-{of}-{}", std::process::id())
    }

    #[test]
    fn the_lock_is_exclusive_names_its_holder_and_can_be_taken_again() {
        let lab = name("lock");
        let lock = LabLock::take(&lab).unwrap();
        let refused = LabLock::take(&lab).unwrap_err();
        let pid = std::process::id().to_string();
        assert!(matches!(&refused, LockError::Held { holder: Some(holder) } if *holder == pid));
        assert!(refused.to_string().contains(&pid), "{refused}");
        lock.remove().unwrap();
        assert!(!layout::dir_of(&lab).exists());
        LabLock::take(&lab).unwrap().remove().unwrap();
    }

    #[test]
    fn state_round_trips_and_a_torn_file_is_no_lab() {
        let lab = name("state");
        fs::create_dir_all(layout::dir_of(&lab)).unwrap();
        let layout = Layout {
            name: lab.clone(),
            nodes: 2,
            pods: 1,
            underlay_mtu: 1500,
        };
        let process = ProcessId {
            pid: 1,
            start_time: 7,
            executable: "/sbin/weft".into(),
        };
        let state = LabState {
            layout,
            detached: true,
            ready: true,
            routers: vec![("node1".to_owned(), process)],
            pods: vec![PodState {
                name: "node1-pod1".to_owned(),
                address: "10.32.0.2/12".parse().unwrap(),
                gateway: Some("10.32.0.1".parse().unwrap()),
                mac: Mac([2, 0, 0, 0, 0, 1]),
            }],
        };
        state.save().unwrap();
        assert_eq!(LabState::load(&lab), Some(state.clone()));
        assert!(!state.is_up(), "process 1 is not what the state says");
        fs::write(LabState::path(&lab), "{\"layout\": {").unwrap();
        assert_eq!(LabState::load(&lab), None);
        fs::remove_dir_all(layout::dir_of(&lab)).unwrap();
    }
}
