//! One router to a state directory and to a socket.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

/// A lock file that is held until it is dropped; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

/// Why a lock is not held.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process holds it.
    #[error("another router ({holder}) uses {what} {}: stop it, or give this one another with {flag}", path.display())]
    Held {
        /// What the lock stands for.
        what: &'static str,
        /// What is shared.
        path: PathBuf,
        /// The process that holds it, as it wrote itself down.
        holder: String,
        /// The flag that chooses another.
        flag: &'static str,
    },
    /// The file cannot be made or locked.
    #[error("cannot lock {}: {error}: is its directory writable?", path.display())]
    Io {
        /// The lock file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Lock {
    /// Takes the lock `file`, which stands for `path`, the `what` that `flag` chooses.
    ///
    /// # Errors
    /// Another process holds it, or the file cannot be made.
    pub fn take(
        file: &Path,
        what: &'static str,
        path: &Path,
        flag: &'static str,
    ) -> Result<Self, LockError> {
        let io = |error| LockError::Io {
            path: file.to_owned(),
            error,
        };
        let open = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(file);
        match Flock::lock(open.map_err(io)?, FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // Who holds it is for the message alone; the lock is held without it too.
                let _ = file.set_len(0);
                let _ = writeln!(file, "process {}", std::process::id());
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut holder = String::new();
                let _ = file.rewind();
                let _ = file.take(100).read_to_string(&mut holder);
                let holder = match holder.trim() {
                    "" => "its process is unknown".to_owned(),
                    holder => holder.to_owned(),
                };
                Err(LockError::Held {
                    what,
                    path: path.to_owned(),
                    holder,
                    flag,
                })
            }
            Err((_, errno)) => Err(io(errno.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_the_holder_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("lock");
        let take = || Lock::take(&file, "the state directory", dir.path(), "--state-dir");
        let held = take().unwrap();
        let text = take().unwrap_err().to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("--state-dir"), "{text}");
        drop(held);
        take().unwrap();
    }
}
