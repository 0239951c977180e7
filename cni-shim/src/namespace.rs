//! The pod's network namespace: opened, checked, and held against other calls.

use std::fs::{File, TryLockError};
use std::os::fd::AsFd;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hostnet::{NetNs, NetNsError};

use crate::error::{CniError, Code};

/// Opens the namespace at `CNI_NETNS`.
pub(crate) fn open(path: &Path) -> Result<NetNs, CniError> {
    NetNs::open(path).map_err(|error| match error {
        // Nothing was made and nothing needs to be removed, which is what the code says.
        NetNsError::Missing { .. } => CniError::new(
            Code::UnknownContainer,
            "CNI_NETNS does not exist",
            error.to_string(),
        ),
        NetNsError::NotANetNs { .. } => {
            let msg = "CNI_NETNS is not a network namespace";
            CniError::new(Code::InvalidEnvironment, msg, error.to_string())
        }
        error => CniError::kernel("CNI_NETNS cannot be opened", &error),
    })
}

/// Refuses the namespace that the plugin itself runs in: a pod that shares the host's network has
/// no interface of its own, and ours would take the host's default route.
pub(crate) fn refuse_own(pod: &NetNs, path: &Path) -> Result<(), CniError> {
    let own = NetNs::current()
        .map_err(|error| CniError::kernel("the own namespace cannot be opened", &error))?;
    if pod.same_as(&own) {
        return Err(CniError::new(
            Code::InvalidEnvironment,
            format!(
                "CNI_NETNS={} is the host's own network namespace",
                path.display()
            ),
            "a pod on the host's network is not attached to an overlay",
        ));
    }
    Ok(())
}

/// The right to change the attachments of one container.
///
/// It is an advisory lock (flock(2)) on the namespace itself, so it is there wherever the
/// namespace is, two paths to one namespace meet in it, and the kernel drops it with the process:
/// a plugin that is killed leaves nothing behind.
#[derive(Debug)]
pub(crate) struct Held {
    _file: File,
}

impl Held {
    /// Waits until no other call holds the namespace, but not forever.
    pub(crate) fn wait(ns: &NetNs) -> Result<Self, CniError> {
        let busy = |msg: &str| CniError::new(Code::TryAgainLater, msg, "");
        let fd = ns
            .as_fd()
            .try_clone_to_owned()
            .map_err(|error| CniError::kernel("the namespace's handle cannot be copied", &error))?;
        let file = File::from(fd);
        let until = Instant::now() + LONGEST_WAIT;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(busy("another call for this container is still at work"));
                }
                Err(TryLockError::Error(error)) => {
                    return Err(CniError::kernel("the namespace cannot be locked", &error));
                }
            }
        }
    }
}

/// Longer than any call should hold the lock: the router's deadline and then some.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Two calls for one container are rare, and then one of them is wrong.
const PAUSE: Duration = Duration::from_millis(2);
