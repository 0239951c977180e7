//! Where the engine's output goes: trains to the underlay's sockets, frames to the TAP.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use fastpath::{Counters, DropReason, FrameSink, MAX_PARTS, Train, TrainSink};
use hostnet::poll::{PollFd, PollFlags};
use hostnet::tap::TapQueue;
use hostnet::udp::UdpSocket;
use nix::errno::Errno;

/// Sends trains through a worker's sockets.
#[derive(Debug)]
pub(super) struct Underlay<'a> {
    pub(super) sockets: &'a [UdpSocket],
    pub(super) counters: &'a Counters,
    /// Whether the kernel cuts trains (`UDP_SEGMENT`).
    pub(super) segment: &'a AtomicBool,
}

/// How long a worker waits for room in a socket's buffer. Longer, and received frames would wait
/// with it; no wait, and a burst would be lost that the device drains within microseconds.
const ROOM_WITHIN: Duration = Duration::from_millis(2);

impl TrainSink for Underlay<'_> {
    fn send(&mut self, train: Train<'_>) {
        let sent = if train.count > 1 && self.segment.load(Relaxed) {
            match self.patiently(&train, train.bytes, train.segment) {
                // Either the kernel cuts no trains, or a datagram is too long: one by one tells.
                Err(error) if refuses_trains(&error) => self.one_by_one(&train, Some(&error)),
                Err(error) => {
                    self.counters.drop(reason(&error), train.count as u64);
                    0
                }
                Ok(()) => {
                    self.counters.tx_trains.fetch_add(1, Relaxed);
                    train.count
                }
            }
        } else {
            self.one_by_one(&train, None)
        };
        self.counters.tx_datagrams.fetch_add(sent as u64, Relaxed);
    }
}

impl Underlay<'_> {
    /// The plain path: a system call for each datagram. Returns how many were sent.
    fn one_by_one(&self, train: &Train<'_>, refused: Option<&io::Error>) -> usize {
        let mut sent = 0;
        for datagram in train.bytes.chunks(train.segment) {
            match self.patiently(train, datagram, 0) {
                Ok(()) => sent += 1,
                Err(error) => self.counters.drop(reason(&error), 1),
            }
        }
        self.counters.tx_trains.fetch_add(sent as u64, Relaxed);
        if let Some(error) = refused
            && sent > 0
            && self.segment.swap(false, Relaxed)
        {
            tracing::warn!(%error, "the kernel refuses UDP_SEGMENT: datagrams are sent one by one");
        }
        sent
    }

    fn patiently(&self, train: &Train<'_>, bytes: &[u8], segment: usize) -> io::Result<()> {
        let socket = &self.sockets[train.socket % self.sockets.len()];
        let segment = u16::try_from(segment).unwrap_or(0);
        match socket.send_train(train.endpoint, bytes, segment) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let mut room = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                hostnet::poll::poll(&mut room, Some(ROOM_WITHIN))?;
                socket.send_train(train.endpoint, bytes, segment)
            }
            // An ICMP error that answers an earlier datagram; this one was not tried yet.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                socket.send_train(train.endpoint, bytes, segment)
            }
            result => result,
        }
    }
}

/// EIO: the device completes no checksums (before Linux 6.11). EINVAL: no `UDP_SEGMENT`, or, before
/// Linux 6.13, a segment longer than the path's MTU.
fn refuses_trains(error: &io::Error) -> bool {
    [
        Errno::EIO,
        Errno::EINVAL,
        Errno::ENOPROTOOPT,
        Errno::EMSGSIZE,
    ]
    .iter()
    .any(|errno| error.raw_os_error() == Some(*errno as i32))
}

fn reason(error: &io::Error) -> DropReason {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => DropReason::UnderlayBusy,
        Some(Errno::EMSGSIZE) => DropReason::UnderlayTooBig,
        _ => DropReason::UnderlayError,
    }
}

/// Writes frames to a TAP queue.
#[derive(Debug)]
pub(super) struct TapWriter<'a> {
    pub(super) queue: &'a TapQueue,
    pub(super) counters: &'a Counters,
}

impl FrameSink for TapWriter<'_> {
    fn deliver(&mut self, parts: &[&[u8]]) {
        let mut slices = [IoSlice::new(&[]); MAX_PARTS];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        // A TAP that is down answers EIO, one without memory ENOBUFS or EAGAIN: the frame is lost,
        // as it would be on a wire that is unplugged.
        if self.queue.write_vectored(&slices[..parts.len()]).is_err() {
            self.counters.drop(DropReason::TapRefused, 1);
        }
    }
}
