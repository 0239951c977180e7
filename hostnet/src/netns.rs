//! Network namespaces: make, open, enter, remove (network_namespaces(7)).
//!
//! A thread enters a namespace and stays there, so that work in another namespace is given to a
//! thread of its own: [`NetNs::run`]. The calling thread never moves.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::fstatfs;

use crate::netlink::{Netlink, NetlinkError};
use crate::sys;

/// Where named namespaces are: the place that iproute2 looks at (ip-netns(8)).
pub const DIR: &str = "/run/netns";

/// A network namespace that is kept alive by this handle.
#[derive(Debug)]
pub struct NetNs {
    fd: OwnedFd,
}

/// Why a namespace could not be made, opened, entered or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetNsError {
    /// Nothing is at this path.
    #[error("network namespace {} does not exist", path.display())]
    Missing {
        /// As asked for.
        path: PathBuf,
    },
    /// A file, but no handle of a network namespace.
    #[error("{} is not a network namespace", path.display())]
    NotANetNs {
        /// As asked for.
        path: PathBuf,
    },
    /// A namespace of this name exists.
    #[error(
        "network namespace {name} exists: remove it with `ip netns del {name}` or choose another name"
    )]
    Exists {
        /// As asked for.
        name: String,
    },
    /// A name that cannot be a file's.
    #[error(
        "{name:?} cannot name a network namespace: use 1 to 255 bytes without '/', and not '.' or '..'"
    )]
    BadName {
        /// As asked for.
        name: String,
    },
    /// Entering, making or mounting a namespace needs a capability that this process lacks.
    #[error("{action} network namespace {subject} needs CAP_SYS_ADMIN: run as root")]
    Denied {
        /// What was tried.
        action: &'static str,
        /// Name or path.
        subject: String,
    },
    /// A system call failed.
    #[error("{action} network namespace {subject}: {call}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Name or path.
        subject: String,
        /// Which call failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace was made, but its loopback interface could not be brought up.
    #[error("bring up lo in the new network namespace {name}")]
    Loopback {
        /// As asked for.
        name: String,
        /// The kernel's answer.
        source: Box<NetlinkError>,
    },
}

impl NetNs {
    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetNsError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace at a path, such as `/run/netns/blue` or `/proc/4711/ns/net`.
    pub fn open(path: &Path) -> Result<Self, NetNsError> {
        let failed = |call| move |source| error("open", &path.display(), call, source);
        // O_NONBLOCK: whoever passes the path may have named a FIFO, which must not stop us.
        let file = match OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(path)
        {
            Ok(file) => file,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Err(NetNsError::Missing {
                    path: path.to_owned(),
                });
            }
            Err(e) => return Err(failed("open")(e)),
        };
        let on_nsfs = fstatfs(&file)
            .map_err(|e| failed("fstatfs")(e.into()))?
            .filesystem_type()
            .0
            == libc::NSFS_MAGIC;
        if !on_nsfs
            || sys::namespace::kind(file.as_fd()).map_err(failed("ioctl NS_GET_NSTYPE"))?
                != libc::CLONE_NEWNET
        {
            return Err(NetNsError::NotANetNs {
                path: path.to_owned(),
            });
        }
        Ok(Self { fd: file.into() })
    }

    /// Makes a namespace with `lo` up, and names it so that `ip netns` knows it.
    pub fn create(name: &str) -> Result<Self, NetNsError> {
        check_name(name)?;
        let failed = |call| move |source| error("create", &name, call, source);
        share_dir().map_err(failed("prepare /run/netns"))?;
        let path = Self::path(name);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
        {
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(NetNsError::Exists {
                    name: name.to_owned(),
                });
            }
            Err(e) => return Err(failed("create its file")(e)),
        }
        let made = on_new_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|e| failed("unshare")(e.into()))?;
            Netlink::open()
                .and_then(|mut netlink| netlink.set_up(LOOPBACK))
                .map_err(|e| NetNsError::Loopback {
                    name: name.to_owned(),
                    source: Box::new(e),
                })?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                NO_TYPE,
                MsFlags::MS_BIND,
                NO_TYPE,
            )
            .map_err(|e| failed("mount")(e.into()))?;
            Self::current()
        });
        made.map_err(failed("start a thread"))
            .flatten()
            .inspect_err(|_| {
                // Nothing half made stays; the first error is the one to tell.
                let _ = Self::remove(name);
            })
    }

    /// Takes the name away; the namespace itself ends with its last process and handle. A name that
    /// does not exist is fine.
    pub fn remove(name: &str) -> Result<(), NetNsError> {
        check_name(name)?;
        let path = Self::path(name);
        match umount2(&path, MntFlags::MNT_DETACH) {
            // EINVAL: a plain file, left by a creation that was interrupted.
            Ok(()) | Err(Errno::ENOENT | Errno::EINVAL) => {}
            Err(e) => return Err(error("remove", &name, "umount", e.into())),
        }
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(error("remove", &name, "unlink", e))
            }
            _ => Ok(()),
        }
    }

    /// Where the namespace of this name is.
    pub fn path(name: &str) -> PathBuf {
        Path::new(DIR).join(name)
    }

    /// Whether both handles stand for one namespace.
    pub fn same_as(&self, other: &Self) -> bool {
        match (self.identity(), other.identity()) {
            (Some(mine), Some(theirs)) => mine == theirs,
            _ => false,
        }
    }

    /// Runs `f` on a new thread inside the namespace and waits for it. A process that `f` starts
    /// lives in the namespace; a socket it opens stays there. A panic in `f` goes on in the caller.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T, NetNsError> {
        let failed = |call| move |source| error("enter", &"by its handle", call, source);
        on_new_thread(|| {
            setns(&self.fd, CloneFlags::CLONE_NEWNET).map_err(|e| failed("setns")(e.into()))?;
            Ok(f())
        })
        .map_err(failed("start a thread"))?
    }

    /// Device and inode number, which identify a namespace (namespaces(7)).
    fn identity(&self) -> Option<(u64, u64)> {
        let file = File::from(self.fd.try_clone().ok()?);
        let meta = file.metadata().ok()?;
        Some((meta.dev(), meta.ino()))
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// `lo` is the first interface of every namespace (`LOOPBACK_IFINDEX`, linux/net/net_namespace.h).
const LOOPBACK: u32 = 1;

/// mount(2) without a file system type or data.
const NO_TYPE: Option<&Path> = None;

fn on_new_thread<T: Send>(f: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, f)?;
        Ok(thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Makes [`DIR`] a shared mount, as `ip netns` does: a name that is added or removed later shows in
/// other mount namespaces, and a removed namespace is not kept alive by a copy there.
fn share_dir() -> io::Result<()> {
    fs::create_dir_all(DIR)?;
    let share = || {
        mount(
            NO_TYPE,
            DIR,
            NO_TYPE,
            MsFlags::MS_SHARED | MsFlags::MS_REC,
            NO_TYPE,
        )
    };
    match share() {
        // EINVAL: not yet a mount point.
        Err(Errno::EINVAL) => {
            mount(
                Some(DIR),
                DIR,
                NO_TYPE,
                MsFlags::MS_BIND | MsFlags::MS_REC,
                NO_TYPE,
            )?;
            Ok(share()?)
        }
        other => Ok(other?),
    }
}

fn check_name(name: &str) -> Result<(), NetNsError> {
    let good = (1..=255).contains(&name.len())
        && !name.contains(['/', '\0'])
        && name != "."
        && name != "..";
    if good {
        Ok(())
    } else {
        Err(NetNsError::BadName {
            name: name.to_owned(),
        })
    }
}

fn error(
    action: &'static str,
    subject: &dyn fmt::Display,
    call: &'static str,
    source: io::Error,
) -> NetNsError {
    let subject = subject.to_string();
    if matches!(source.raw_os_error(), Some(libc::EPERM | libc::EACCES)) {
        NetNsError::Denied { action, subject }
    } else {
        NetNsError::Io {
            action,
            subject,
            call,
            source,
        }
    }
}
