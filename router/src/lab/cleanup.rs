//! Finds and removes what a lab left behind, whoever made it and however it ended.
//!
//! Only what provably belongs to the lab is touched: namespaces with its names, routers that its
//! `lab.json` recorded and that are still the same processes, or that run in its namespaces with
//! its sockets as arguments. Interfaces need no care: they vanish with their namespaces.

use std::fs;
use std::io;

use hostnet::netns::{self, NetNs};

use super::layout::{self, Layout};
use super::process::{self, ProcessId};
use super::state::LabState;

/// What is left of a lab.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Leftovers {
    lab: String,
    namespaces: Vec<String>,
    routers: Vec<ProcessId>,
    files: bool,
}

/// What could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("the lab {lab} could not be removed completely: {}", problems.join("; "))]
pub struct CleanupError {
    lab: String,
    problems: Vec<String>,
}

impl Leftovers {
    /// Looks for what the lab of this name left.
    pub fn find(lab: &str) -> Self {
        let namespaces = lab_netns(lab);
        let mut routers: Vec<_> = LabState::load(lab)
            .map(|state| {
                state
                    .routers
                    .into_iter()
                    .map(|(_, process)| process)
                    .collect()
            })
            .unwrap_or_default();
        // Any number of nodes may have been asked for: the names of the namespaces tell.
        let names = Layout {
            name: lab.to_owned(),
            nodes: layout::MAX_NODES,
            pods: 1,
            underlay_mtu: 0,
        };
        for node in names
            .nodes()
            .filter(|node| namespaces.contains(&node.netns))
        {
            routers.extend(process::in_netns_with_argument(
                &NetNs::path(&node.netns),
                node.socket.as_os_str(),
            ));
        }
        routers.retain(ProcessId::is_alive);
        routers.sort_by_key(|process| process.pid);
        routers.dedup();
        let files = lab_files(lab).next().is_some();
        Self {
            lab: lab.to_owned(),
            namespaces,
            routers,
            files,
        }
    }

    /// Whether there is nothing to remove.
    pub fn is_empty(&self) -> bool {
        self.namespaces.is_empty() && self.routers.is_empty() && !self.files
    }

    /// In a few words, for the person who waits.
    pub fn summary(&self) -> String {
        format!(
            "{} and {}",
            counted(self.namespaces.len(), "namespace"),
            counted(self.routers.len(), "router")
        )
    }

    /// Removes all of it. What fails does not keep the rest from being removed.
    pub fn remove(self) -> Result<(), CleanupError> {
        let mut problems = Vec::new();
        if let Err(error) = ProcessId::end_all(&self.routers) {
            problems.push(error.to_string());
        }
        for name in &self.namespaces {
            if let Err(error) = NetNs::remove(name) {
                problems.push(error.to_string());
            }
        }
        for entry in lab_files(&self.lab) {
            let path = entry.path();
            let removed = match entry.file_type() {
                Ok(kind) if kind.is_dir() => fs::remove_dir_all(&path),
                _ => fs::remove_file(&path),
            };
            match removed {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    problems.push(format!("{}: {error}", path.display()));
                }
                _ => {}
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(CleanupError {
                lab: self.lab,
                problems,
            })
        }
    }
}

/// The lab's namespaces that exist, by name.
fn lab_netns(lab: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(netns::DIR) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| Layout::owns_netns(lab, name))
        .collect();
    names.sort();
    names
}

/// What is in the lab's directory, except for the lock that its remover holds.
fn lab_files(lab: &str) -> impl Iterator<Item = fs::DirEntry> {
    fs::read_dir(layout::dir_of(lab))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name() != "lock")
}

/// `1 router`, `2 routers`.
pub fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    /// Removes what the test has made of its lab and its stranger, also if it fails. The processes
    /// end with their input.
    struct Remove<'a> {
        node: &'a str,
        stranger: &'a str,
        lab: &'a str,
    }

    impl Drop for Remove<'_> {
        fn drop(&mut self) {
            let _ = NetNs::remove(self.node);
            let _ = NetNs::remove(self.stranger);
            let _ = fs::remove_dir_all(layout::dir_of(self.lab));
        }
    }

    #[test]
    fn a_dead_labs_things_go_and_a_strangers_stay() {
        let lab = format!("weft-test-left-{}", std::process::id());
        let layout = Layout {
            name: lab.clone(),
            nodes: 1,
            pods: 1,
            underlay_mtu: 1500,
        };
        let node = layout.node(1);
        let stranger = format!("{lab}-mine");
        assert!(Leftovers::find(&lab).is_empty());

        let _remove = Remove {
            node: &node.netns,
            stranger: &stranger,
            lab: &lab,
        };
        let netns = NetNs::create(&node.netns).expect("needs root");
        NetNs::create(&stranger).unwrap();
        fs::create_dir_all(&node.dir).unwrap();
        // A router that the lab did not live to record: it has the node's socket as an argument.
        let spawn = |marker: &std::ffi::OsStr| {
            let mut command = Command::new("/bin/sh");
            command
                .args(["-c", "read _"])
                .arg(marker)
                .stdin(Stdio::piped());
            let child = netns.run(|| command.spawn()).unwrap().unwrap();
            ProcessId::started(child.id(), marker).unwrap();
            child
        };
        let mut router = spawn(node.socket.as_os_str());
        let mut visitor = spawn("somebody's shell".as_ref());

        let leftovers = Leftovers::find(&lab);
        assert_eq!(leftovers.summary(), "1 namespace and 1 router");
        leftovers.remove().unwrap();
        assert!(!router.wait().unwrap().success());
        assert!(
            visitor.try_wait().unwrap().is_none(),
            "a visitor was killed"
        );
        assert!(!NetNs::path(&node.netns).exists() && NetNs::path(&stranger).exists());
        assert!(Leftovers::find(&lab).is_empty());

        visitor.kill().unwrap();
        visitor.wait().unwrap();
        // Nothing is left in it.
        fs::remove_dir(layout::dir_of(&lab)).unwrap();
    }
}
