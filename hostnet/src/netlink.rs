//! A netlink route socket (rtnetlink(7)): one request at a time, answered before the next.
//!
//! Requests are built with the types of `netlink-packet-route`. Answers are read attribute by
//! attribute, for what is needed alone: a newer kernel that adds or widens another attribute then
//! cannot make an answer unreadable, and reading costs little where a CNI call has milliseconds.

use std::fmt;
use std::io;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_ACK_TLVS, NLM_F_CAPPED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST,
    NLMSG_ALIGNTO, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::netns::{NetNs, NetNsError};
use crate::sockaddr::field;

/// A socket to the kernel's routing family, in the namespace of the thread that opened it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    /// Number of the last request; its answers carry it.
    sequence: u32,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// Why a request to the kernel did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum NetlinkError {
    /// No socket.
    #[error("open a netlink socket")]
    Open {
        /// The kernel's answer.
        source: io::Error,
    },
    /// The namespace could not be entered to open the socket there.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The kernel refused; its extended acknowledgement is in the text where it gave one.
    #[error("{operation}: {}{}{}", errno.desc(), Detail(detail.as_deref()), Remedy(*errno))]
    Refused {
        /// What was asked for, and of which object: "add veth vw1234".
        operation: String,
        /// The kernel's error.
        errno: Errno,
        /// The kernel's own words, if any.
        detail: Option<String>,
    },
    /// The answer did not come in time.
    #[error("{operation}: no answer from the kernel within {} s", TIMEOUT.as_secs())]
    Timeout {
        /// What was asked for, and of which object.
        operation: String,
    },
    /// Sending or receiving failed.
    #[error("{operation}: netlink socket failed")]
    Io {
        /// What was asked for, and of which object.
        operation: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The answer is not what rtnetlink(7) says.
    #[error("{operation}: the kernel's answer cannot be read ({field})")]
    Malformed {
        /// What was asked for, and of which object.
        operation: String,
        /// The part that is wrong or missing.
        field: &'static str,
    },
    /// A name that no interface can have.
    #[error(
        "{name:?} cannot name an interface: use 1 to 15 bytes without '/', ':' and white space"
    )]
    BadName {
        /// As asked for.
        name: String,
    },
}

impl NetlinkError {
    /// The kernel's error number, when it refused.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Refused { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// Whether the object was there already.
    pub fn is_exists(&self) -> bool {
        self.errno() == Some(Errno::EEXIST)
    }

    /// Whether the object, or the interface it belongs to, is not there.
    pub fn is_missing(&self) -> bool {
        matches!(
            self.errno(),
            Some(Errno::ENODEV | Errno::ENOENT | Errno::ESRCH | Errno::EADDRNOTAVAIL)
        )
    }
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || {
            let socket = Socket::new(NETLINK_ROUTE)?;
            // Port 0 is the kernel.
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_ext_ack(true)?;
            // Without the request's echo in errors; and, since Linux 4.20, dumps filtered by the
            // kernel. Both only save work.
            let _ = socket.set_cap_ack(true);
            let _ = socket.set_netlink_get_strict_chk(true);
            let timeout =
                TimeVal::seconds(i64::try_from(TIMEOUT.as_secs()).expect("a few seconds"));
            setsockopt(&socket, sockopt::ReceiveTimeout, &timeout)?;
            Ok(socket)
        };
        let socket = open().map_err(|source| NetlinkError::Open { source })?;
        Ok(Self {
            socket,
            sequence: 0,
            request: Vec::new(),
            answer: vec![0; ANSWER_LEN],
        })
    }

    /// Opens a socket in another namespace, and leaves the calling thread where it is.
    pub fn open_in(ns: &NetNs) -> Result<Self, NetlinkError> {
        ns.run(Self::open)?
    }

    /// Asks for a change, or for one object; every message before the acknowledgement goes to `each`.
    pub(crate) fn request(
        &mut self,
        operation: fmt::Arguments<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
        mut each: impl FnMut(&Answer<'_>) -> Result<(), &'static str>,
    ) -> Result<(), NetlinkError> {
        self.exchange(operation, message, flags | NLM_F_ACK, &mut each)
            .map(drop)
    }

    /// Asks for all objects of a kind and makes a list of those that `each` takes. A list that
    /// changed while it was told is asked for again.
    pub(crate) fn dump<T>(
        &mut self,
        operation: fmt::Arguments<'_>,
        message: &RouteNetlinkMessage,
        mut each: impl FnMut(&Answer<'_>) -> Result<Option<T>, &'static str>,
    ) -> Result<Vec<T>, NetlinkError> {
        let mut found = Vec::new();
        for _ in 0..DUMP_ATTEMPTS {
            found.clear();
            let mut take = |answer: &Answer<'_>| {
                found.extend(each(answer)?);
                Ok(())
            };
            if self.exchange(operation, message.clone(), NLM_F_DUMP, &mut take)? {
                return Ok(found);
            }
        }
        // A table that never rests: what was told last is as true as a list of it can be.
        Ok(found)
    }

    /// Sends a request and reads its answers up to the acknowledgement or the end of the dump.
    /// Returns whether the dump, if it was one, was consistent.
    fn exchange(
        &mut self,
        operation: fmt::Arguments<'_>,
        message: RouteNetlinkMessage,
        flags: u16,
        each: &mut dyn FnMut(&Answer<'_>) -> Result<(), &'static str>,
    ) -> Result<bool, NetlinkError> {
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock => NetlinkError::Timeout {
                operation: operation.to_string(),
            },
            _ => NetlinkError::Io {
                operation: operation.to_string(),
                source,
            },
        };
        let malformed = |field| NetlinkError::Malformed {
            operation: operation.to_string(),
            field,
        };
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        self.request.clear();
        self.request.resize(message.buffer_len(), 0);
        message.serialize(&mut self.request);
        retry(|| self.socket.send(&self.request, 0)).map_err(failed)?;

        let mut consistent = true;
        loop {
            let len = retry(|| self.socket.recv(&mut &mut self.answer[..], libc::MSG_TRUNC))
                .map_err(failed)?;
            let mut rest = self
                .answer
                .get(..len)
                .ok_or_else(|| malformed("truncated"))?;
            while !rest.is_empty() {
                let answer = Answer::first(rest).ok_or_else(|| malformed("header"))?;
                rest = rest
                    .get(answer.len.next_multiple_of(ALIGN)..)
                    .unwrap_or_default();
                // Left over from a request that timed out.
                if answer.sequence != self.sequence {
                    continue;
                }
                consistent &= !answer.is_interrupted();
                match answer.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = answer.code().ok_or_else(|| malformed("error code"))?;
                        return if code == 0 {
                            Ok(consistent)
                        } else {
                            Err(NetlinkError::Refused {
                                operation: operation.to_string(),
                                errno: Errno::from_raw(-code),
                                detail: answer.detail(),
                            })
                        };
                    }
                    NLMSG_NOOP => {}
                    NLMSG_OVERRUN => return Err(malformed("overrun")),
                    _ => each(&answer).map_err(malformed)?,
                }
            }
        }
    }
}

/// One message of an answer.
pub(crate) struct Answer<'a> {
    /// `RTM_*`, or one of the `NLMSG_*` below.
    pub(crate) kind: u16,
    flags: u16,
    /// Number of the request that it answers.
    pub(crate) sequence: u32,
    /// In bytes, without what fills up to the next.
    pub(crate) len: usize,
    /// What follows the header.
    pub(crate) payload: &'a [u8],
}

impl<'a> Answer<'a> {
    /// The first message of a buffer (`struct nlmsghdr`, host order).
    pub(crate) fn first(bytes: &'a [u8]) -> Option<Self> {
        let len = usize::try_from(u32::from_ne_bytes(field(bytes, 0)?)).ok()?;
        Some(Self {
            kind: u16::from_ne_bytes(field(bytes, 4)?),
            flags: u16::from_ne_bytes(field(bytes, 6)?),
            sequence: u32::from_ne_bytes(field(bytes, 8)?),
            len,
            payload: bytes.get(HEADER_LEN..len)?,
        })
    }

    /// The attributes after a fixed header of this many bytes, as kind and value.
    pub(crate) fn attributes(
        &self,
        header: usize,
    ) -> impl Iterator<Item = (u16, &'a [u8])> + use<'a> {
        attributes(self.payload.get(header..).unwrap_or_default())
    }

    /// Whether the list changed while it was told.
    pub(crate) const fn is_interrupted(&self) -> bool {
        self.flags & NLM_F_DUMP_INTR != 0
    }

    /// Zero, or a negative error number; a `NLMSG_DONE` may come without.
    pub(crate) fn code(&self) -> Option<i32> {
        match field(self.payload, 0) {
            Some(code) => Some(i32::from_ne_bytes(code)),
            None => (self.kind == NLMSG_DONE).then_some(0),
        }
    }

    /// The text of an extended acknowledgement (linux/netlink.h `NLMSGERR_ATTR_MSG`).
    fn detail(&self) -> Option<String> {
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let skipped = match self.kind {
            NLMSG_DONE => 4,
            // The request's header, and the rest of it unless that was capped.
            _ if self.flags & NLM_F_CAPPED != 0 => 4 + HEADER_LEN,
            _ => 4 + usize::try_from(u32::from_ne_bytes(field(self.payload, 4)?)).ok()?,
        };
        let rest = self.payload.get(skipped.next_multiple_of(ALIGN)..)?;
        attributes(rest)
            .find(|(kind, _)| *kind == ATTR_MSG)
            .map(|(_, value)| text(value))
    }
}

/// A nest of attributes, as kind and value; stops at the first that is cut off.
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(bytes).map_while(Result::ok).map(|nla| {
        // The iterator has checked the length; `value()` would borrow the item.
        let (kind, len) = (nla.kind(), usize::from(nla.length()));
        (kind, &nla.into_inner()[ATTRIBUTE_HEADER_LEN..len])
    })
}

/// A NUL-terminated text.
pub(crate) fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
}

/// An integer in host order; a field too short is no value.
pub(crate) fn int(value: &[u8]) -> Option<u32> {
    field(value, 0).map(u32::from_ne_bytes)
}

/// Refuses what the kernel would refuse with less clear words (`dev_valid_name`).
pub(crate) fn check_name(name: &str) -> Result<(), NetlinkError> {
    let good = (1..libc::IFNAMSIZ).contains(&name.len())
        && name != "."
        && name != ".."
        && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace());
    if good {
        Ok(())
    } else {
        Err(NetlinkError::BadName {
            name: name.to_owned(),
        })
    }
}

/// The kernel answers at once, but may wait for other holders of its lock: on a busy node, for
/// seconds while interfaces come and go.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Above the 32 KiB that the kernel fills at most in a dump's part (`NLMSG_GOODSIZE`).
const ANSWER_LEN: usize = 64 * 1024;
/// Dumps are interrupted by a change next to them; five in a row means a storm.
const DUMP_ATTEMPTS: usize = 5;

/// `struct nlattr`.
const ATTRIBUTE_HEADER_LEN: usize = 4;
/// `struct nlmsghdr`.
const HEADER_LEN: usize = 16;
const ALIGN: usize = NLMSG_ALIGNTO as usize;
const NLMSG_NOOP: u16 = 1;
pub(crate) const NLMSG_ERROR: u16 = 2;
pub(crate) const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;
const ATTR_MSG: u16 = 1;

/// Calls again when a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The kernel's words in brackets, or nothing.
struct Detail<'a>(Option<&'a str>);

impl fmt::Display for Detail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |text| write!(f, " ({text})"))
    }
}

/// What to do about an error, where the error alone says it.
struct Remedy(Errno);

impl fmt::Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::EPERM => f.write_str(": this needs CAP_NET_ADMIN in the namespace"),
            _ => Ok(()),
        }
    }
}
