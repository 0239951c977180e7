//! TAP devices: Ethernet frames between the kernel's bridge and this process (linux/if_tun.h).
//!
//! A TAP lives as long as one of its queues is open. Features that the kernel lacks are left out one
//! by one, and [`Tap::capabilities`] says what is left.

use std::fs::OpenOptions;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

use crate::netlink::check_name;
use crate::sys::tun::{self, InterfaceRequest};

/// Length of the header before each frame when [`TapCapabilities::vnet_hdr`]: a `virtio_net_hdr`
/// without buffer count (virtio 1.1 §5.1.6), in host order.
pub const VNET_HDR_LEN: usize = 10;

/// How a TAP is to be.
#[derive(Debug, Clone, Copy)]
pub struct TapOptions<'a> {
    /// Interface name; a `%d` in it becomes the first free number.
    pub name: &'a str,
    /// Queues, each for one thread. More than one makes a multi-queue device.
    pub queues: usize,
    /// Put a `virtio_net_hdr` before each frame, which offloads need.
    pub vnet_hdr: bool,
    /// What the reader can deal with, so that the kernel leaves it undone.
    pub offloads: Offloads,
}

/// Work that the kernel leaves to the reader of a TAP (`TUN_F_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offloads {
    /// Frames may come with an unfinished checksum. All others need this one.
    pub csum: bool,
    /// Frames of up to 64 KB of TCP over IPv4.
    pub tso4: bool,
    /// Frames of up to 64 KB of TCP over IPv6.
    pub tso6: bool,
    /// Those also with ECN's CWR.
    pub tso_ecn: bool,
    /// Frames of up to 64 KB of UDP datagrams over either (Linux 6.2).
    pub uso: bool,
}

impl Offloads {
    /// Everything.
    pub const ALL: Self = Self {
        csum: true,
        tso4: true,
        tso6: true,
        tso_ecn: true,
        uso: true,
    };
    /// Complete frames only.
    pub const NONE: Self = Self {
        csum: false,
        tso4: false,
        tso6: false,
        tso_ecn: false,
        uso: false,
    };

    fn flags(self) -> libc::c_uint {
        [
            (self.csum, libc::TUN_F_CSUM),
            (self.tso4, libc::TUN_F_TSO4),
            (self.tso6, libc::TUN_F_TSO6),
            (self.tso_ecn, libc::TUN_F_TSO_ECN),
            // The kernel takes these two together or not at all.
            (self.uso, libc::TUN_F_USO4 | libc::TUN_F_USO6),
        ]
        .into_iter()
        .filter(|(wanted, _)| self.csum && *wanted)
        .fold(0, |flags, (_, flag)| flags | flag)
    }

    /// The next smaller set to ask for when the kernel refuses this one.
    fn less(self) -> Option<Self> {
        if self.uso {
            Some(Self { uso: false, ..self })
        } else if self.tso_ecn {
            Some(Self {
                tso_ecn: false,
                ..self
            })
        } else if self.tso4 || self.tso6 {
            Some(Self {
                tso4: false,
                tso6: false,
                ..self
            })
        } else {
            self.csum.then_some(Self::NONE)
        }
    }
}

/// What a TAP can do on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one feature of the kernel"
)]
pub struct TapCapabilities {
    /// A `virtio_net_hdr` of [`VNET_HDR_LEN`] bytes is before each frame, in both directions.
    pub vnet_hdr: bool,
    /// As in [`Offloads`].
    pub csum: bool,
    /// As in [`Offloads`].
    pub tso4: bool,
    /// As in [`Offloads`].
    pub tso6: bool,
    /// As in [`Offloads`].
    pub tso_ecn: bool,
    /// As in [`Offloads`].
    pub uso: bool,
    /// Queues that were opened.
    pub queues: usize,
}

/// Why there is no TAP.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel's TUN driver is not reachable.
    #[error(
        "/dev/net/tun is missing: load the kernel module `tun`, or pass the device into the container"
    )]
    NoDriver,
    /// The kernel refused for lack of a capability.
    #[error("TAP {name} needs CAP_NET_ADMIN: run as root")]
    Denied {
        /// The interface.
        name: String,
    },
    /// The TAP exists and its queue is open elsewhere.
    #[error(
        "TAP {name} is in use by another process: stop that one, or choose another name with --tap"
    )]
    InUse {
        /// The interface.
        name: String,
    },
    /// An interface of this name exists and is not such a TAP.
    #[error(
        "{name} exists and is no TAP of the kind that is needed: delete it, or choose another name with --tap"
    )]
    NameTaken {
        /// The interface.
        name: String,
    },
    /// A name that no interface can have.
    #[error("{name:?} cannot name a TAP: use 1 to 15 bytes without '/', ':' and white space")]
    BadName {
        /// As asked for.
        name: String,
    },
    /// Another failure.
    #[error("open TAP {name}: {call}")]
    Io {
        /// The interface.
        name: String,
        /// What failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// A TAP device, and the queues of it that nobody has taken yet.
#[derive(Debug)]
pub struct Tap {
    name: String,
    capabilities: TapCapabilities,
    queues: Vec<TapQueue>,
}

impl Tap {
    /// Opens a TAP in the calling thread's namespace, and makes it if it does not exist. It starts
    /// down, and goes when its last queue is closed.
    pub fn open(options: &TapOptions<'_>) -> Result<Self, TapError> {
        let wanted = options.queues.max(1);
        let mut flags = BASE_FLAGS;
        if options.vnet_hdr {
            flags |= flag(libc::IFF_VNET_HDR);
        }
        if wanted > 1 {
            flags |= flag(libc::IFF_MULTI_QUEUE);
        }
        let (first, name) = open_queue(options.name, flags)?;
        let mut queues = vec![first];
        while queues.len() < wanted {
            match open_queue(&name, flags) {
                Ok((queue, _)) => queues.push(queue),
                // As many as the kernel gives (MAX_TAP_QUEUES) will do.
                Err(TapError::Io { source, .. }) if source.raw_os_error() == Some(libc::E2BIG) => {
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        let offloads = if options.vnet_hdr {
            set_header(&queues[0])
                .map_err(|source| io_error(&name, "fix the header's length", source))?;
            negotiate(&queues[0], options.offloads)
                .map_err(|source| io_error(&name, "set offloads", source))?
        } else {
            Offloads::NONE
        };
        let Offloads {
            csum,
            tso4,
            tso6,
            tso_ecn,
            uso,
        } = offloads;
        let capabilities = TapCapabilities {
            vnet_hdr: options.vnet_hdr,
            csum,
            tso4,
            tso6,
            tso_ecn,
            uso,
            queues: queues.len(),
        };
        Ok(Self {
            name,
            capabilities,
            queues,
        })
    }

    /// The interface's name, as the kernel gave it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the kernel granted.
    pub fn capabilities(&self) -> TapCapabilities {
        self.capabilities
    }

    /// Hands the queues over, one for each thread; later calls find none.
    pub fn take_queues(&mut self) -> Vec<TapQueue> {
        std::mem::take(&mut self.queues)
    }
}

/// One queue of a TAP: reads and writes whole frames, and never waits.
#[derive(Debug)]
pub struct TapQueue {
    fd: OwnedFd,
}

impl TapQueue {
    /// Reads one frame, with the header before it if there is one, and returns the length of both.
    /// `WouldBlock` when none is there; a frame that is longer than the buffer is cut off. An
    /// interface that is down gives EIO.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(nix::unistd::read(&self.fd, buffer)?)
    }

    /// Writes one frame, with the header before it if there is one. An interface that is down
    /// gives EIO, which is not fatal.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(nix::unistd::write(&self.fd, bytes)?)
    }

    /// Writes one frame from several places, the header first.
    pub fn write_vectored(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(nix::sys::uio::writev(&self.fd, parts)?)
    }

    /// Changes which offloads the kernel leaves undone, for the whole device.
    pub fn set_offloads(&self, offloads: Offloads) -> io::Result<()> {
        tun::set_offload(self.fd.as_fd(), offloads.flags())
    }
}

impl AsFd for TapQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

const BASE_FLAGS: u16 = flag(libc::IFF_TAP) | flag(libc::IFF_NO_PI);

/// An `IFF_*` in the width of `ifr_flags`.
const fn flag(value: libc::c_int) -> u16 {
    (value & 0xffff) as u16
}

/// Asks for the offloads, and for fewer until the kernel agrees.
fn negotiate(queue: &TapQueue, mut offloads: Offloads) -> io::Result<Offloads> {
    // Nothing works without checksums.
    if !offloads.csum {
        offloads = Offloads::NONE;
    }
    loop {
        match (queue.set_offloads(offloads), offloads.less()) {
            (Ok(()), _) => return Ok(offloads),
            (Err(e), Some(less)) if e.raw_os_error() == Some(libc::EINVAL) => offloads = less,
            (Err(e), _) => return Err(e),
        }
    }
}

/// A device that was left persistent may have kept another length.
fn set_header(queue: &TapQueue) -> io::Result<()> {
    let len = libc::c_int::try_from(VNET_HDR_LEN).map_err(io::Error::other)?;
    tun::set_header_len(queue.fd.as_fd(), len)
}

fn open_queue(name: &str, flags: u16) -> Result<(TapQueue, String), TapError> {
    check_name(name).map_err(|_| TapError::BadName {
        name: name.to_owned(),
    })?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/net/tun")
        .map_err(|source| match source.raw_os_error() {
            Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
            Some(libc::EPERM | libc::EACCES) => TapError::Denied {
                name: name.to_owned(),
            },
            _ => io_error(name, "open /dev/net/tun", source),
        })?;
    let mut request = InterfaceRequest::new(name, flags);
    tun::set_interface(file.as_fd(), &mut request).map_err(|source| {
        let name = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EPERM) => TapError::Denied { name },
            Some(libc::EBUSY) => TapError::InUse { name },
            Some(libc::EINVAL | libc::EEXIST) => TapError::NameTaken { name },
            _ => io_error(&name, "TUNSETIFF", source),
        }
    })?;
    let name = crate::netlink::text(&request.name);
    Ok((TapQueue { fd: file.into() }, name))
}

fn io_error(name: &str, call: &'static str, source: io::Error) -> TapError {
    TapError::Io {
        name: name.to_owned(),
        call,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fewer_offloads_are_asked_for_one_by_one_down_to_none() {
        let mut sets = vec![Offloads::ALL];
        while let Some(less) = sets.last().and_then(|set| set.less()) {
            sets.push(less);
        }
        let flags: Vec<_> = sets.iter().map(|set| set.flags()).collect();
        assert_eq!(flags, [0x6f, 0x0f, 0x07, 0x01, 0]);
    }

    #[test]
    fn nothing_is_offloaded_without_checksums() {
        assert_eq!(
            Offloads {
                csum: false,
                ..Offloads::ALL
            }
            .flags(),
            0
        );
    }
}
