//! Processes that a lab started, told from strangers that got the same number later.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// How long a router has to end by itself: it says goodbye to its peers and syncs its store.
const GRACE: Duration = Duration::from_secs(8);
/// How long the kernel has to take a killed process apart.
const REAP: Duration = Duration::from_secs(2);
/// How long a child has to become the program that it was started as.
const EXEC: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(10);

/// One process: its number, when it started and what it runs. The number alone is used again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process's number.
    pub pid: i32,
    /// Start time in clock ticks since boot (proc(5), `/proc/PID/stat` field 22).
    pub start_time: u64,
    /// The executable, as `/proc/PID/exe` names it.
    pub executable: PathBuf,
}

impl ProcessId {
    /// The process that has this number now.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (_, start_time) = stat(pid)?;
        Ok(Self {
            pid,
            start_time,
            executable: executable(pid)?,
        })
    }

    /// The child that was started with `argument` among its arguments, once it runs its program.
    ///
    /// A start is reported when the child lets go of its parent's memory, which is a moment before
    /// the program and its arguments are in place (`exec_mmap`, linux/fs/exec.c): until then it
    /// looks like its parent, or like nothing.
    ///
    /// # Errors
    /// It ended at once, or did not become that program within seconds.
    pub fn started(pid: u32, argument: &OsStr) -> io::Result<Self> {
        let pid = i32::try_from(pid).map_err(io::Error::other)?;
        let end = Instant::now() + EXEC;
        while !has_argument(pid, argument) {
            if stat(pid)?.0 == 'Z' {
                return Err(io::Error::other(format!("process {pid} has ended")));
            }
            if Instant::now() > end {
                return Err(io::Error::other(format!(
                    "process {pid} did not become its program within {EXEC:?}: look at /proc/{pid}/stack"
                )));
            }
            thread::sleep(POLL);
        }
        Self::of(pid)
    }

    /// Whether this very process still runs; one that ended and waits for its parent does not.
    pub fn is_alive(&self) -> bool {
        stat(self.pid)
            .is_ok_and(|(state, start_time)| state != 'Z' && start_time == self.start_time)
            && executable(self.pid).is_ok_and(|executable| executable == self.executable)
    }

    /// Asks the processes to end, and ends those that do not; strangers are left alone.
    pub fn end_all(processes: &[Self]) -> Result<(), EndError> {
        for (signal, patience) in [(Signal::SIGTERM, GRACE), (Signal::SIGKILL, REAP)] {
            for process in processes.iter().filter(|process| process.is_alive()) {
                // The process may end between the look and the signal: that is what is wanted.
                let _ = kill(Pid::from_raw(process.pid), signal);
            }
            let end = Instant::now() + patience;
            while processes.iter().any(Self::is_alive) && Instant::now() < end {
                thread::sleep(POLL);
            }
        }
        let pids: Vec<_> = processes
            .iter()
            .filter(|process| process.is_alive())
            .map(|p| p.pid)
            .collect();
        if pids.is_empty() {
            Ok(())
        } else {
            Err(EndError { pids })
        }
    }
}

/// Processes that even SIGKILL did not end in time.
#[derive(Debug, thiserror::Error)]
#[error("processes {pids:?} do not end: look at /proc/PID/stack for what holds them in the kernel")]
pub struct EndError {
    pids: Vec<i32>,
}

/// The processes that live in the network namespace at this path and have `word` among their
/// arguments: routers of a lab that died before it could write down their numbers.
pub fn in_netns_with_argument(netns: &Path, word: &OsStr) -> Vec<ProcessId> {
    let Ok(namespace) = fs::metadata(netns) else {
        return Vec::new();
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|of| of.dev() == namespace.dev() && of.ino() == namespace.ino())
        })
        .filter(|pid| has_argument(*pid, word))
        .filter_map(|pid| ProcessId::of(pid).ok())
        .collect()
}

/// Whether a process has `word` among its arguments.
fn has_argument(pid: i32, word: &OsStr) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| {
        line.split(|&byte| byte == 0)
            .any(|argument| argument == word.as_encoded_bytes())
    })
}

/// State and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat: {text:?}")))
}

/// Fields 3 and 22. The second field is a name in parentheses that may itself hold spaces and
/// parentheses, so counting starts after the last one.
fn parse_stat(text: &str) -> Option<(char, u64)> {
    let (_, after_name) = text.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// What a process runs. A file that was replaced since, as by a new build, keeps its name here.
fn executable(pid: i32) -> io::Result<PathBuf> {
    let path = fs::read_link(format!("/proc/{pid}/exe"))?;
    Ok(
        match path
            .to_str()
            .and_then(|text| text.strip_suffix(" (deleted)"))
        {
            Some(name) => PathBuf::from(name),
            None => path,
        },
    )
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let tail = "S 1 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 1 2";
        assert_eq!(
            parse_stat(&format!("7 (a) (b c) {tail}")),
            Some(('S', 123_456))
        );
        for broken in ["", "7", "7 (a", "7 (a) S 1 2"] {
            assert_eq!(parse_stat(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_process_is_known_by_more_than_its_number() {
        let mut child = Command::new("/bin/sleep")
            .arg("60")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let process = ProcessId::started(child.id(), "60".as_ref()).unwrap();
        assert!(process.is_alive());

        let mut earlier = process.clone();
        earlier.start_time -= 1;
        let mut other = process.clone();
        other.executable = "/bin/true".into();
        assert!(!earlier.is_alive() && !other.is_alive());
        ProcessId::end_all(&[earlier, other]).unwrap();
        assert!(
            process.is_alive(),
            "a stranger with the same number was killed"
        );

        ProcessId::end_all(std::slice::from_ref(&process)).unwrap();
        assert!(!process.is_alive());
        let late = ProcessId::started(child.id(), "60".as_ref()).unwrap_err();
        assert!(late.to_string().contains("has ended"), "{late}");
        child.wait().unwrap();
    }
}
