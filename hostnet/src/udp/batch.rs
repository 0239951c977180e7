//! What comes in one receive: datagrams, and trains that the kernel joined.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use nix::libc;

use crate::sockaddr::{Control, SockAddr};
use crate::sys::message::{MAX_MESSAGES, Slot};

/// Buffers for [`UdpSocket::recv_batch`](super::UdpSocket::recv_batch), made once.
pub struct RecvBatch {
    slots: Vec<Slot>,
    filled: usize,
}

/// What one receive brought: a datagram, or several of one sender that the kernel joined.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// The payload, of all datagrams one after the other.
    pub bytes: &'a [u8],
    /// Who sent it; IPv4 is plain, whichever the socket.
    pub source: SocketAddr,
    /// Length of each datagram but the last, which may be shorter; `None` means one datagram.
    pub segment: Option<u16>,
}

/// As [`Received`], to be worked on in place.
#[derive(Debug)]
pub struct ReceivedMut<'a> {
    /// The payload, of all datagrams one after the other.
    pub bytes: &'a mut [u8],
    /// Who sent it; IPv4 is plain, whichever the socket.
    pub source: SocketAddr,
    /// Length of each datagram but the last, which may be shorter; `None` means one datagram.
    pub segment: Option<u16>,
}

impl RecvBatch {
    /// Bytes that a joined train has at most.
    pub const SLOT_LEN: usize = 65_536;
    /// Most slots that one receive fills.
    pub const MAX_SLOTS: usize = MAX_MESSAGES;

    /// A batch of 1 to [`Self::MAX_SLOTS`] slots (other numbers are brought into that range), each
    /// for a whole train.
    pub fn new(slots: usize) -> Self {
        let slot = || Slot {
            buffer: vec![0; Self::SLOT_LEN].into_boxed_slice(),
            address: SockAddr::EMPTY,
            control: Control::EMPTY,
            len: 0,
            flags: 0,
        };
        Self {
            slots: (0..slots.clamp(1, Self::MAX_SLOTS))
                .map(|_| slot())
                .collect(),
            filled: 0,
        }
    }

    /// Lets `receive` fill slots, as many as it returns.
    pub(super) fn fill(
        &mut self,
        receive: impl FnOnce(&mut [Slot]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.filled = 0;
        self.filled = receive(&mut self.slots)?;
        Ok(self.filled)
    }

    /// What the last receive brought, in order. What has no internet address as its source, or was
    /// cut off, is left out; neither happens on an internet socket.
    pub fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.slots[..self.filled].iter().filter_map(|slot| {
            let (source, segment) = described(slot)?;
            Some(Received {
                bytes: &slot.buffer[..slot.len],
                source,
                segment,
            })
        })
    }

    /// As [`Self::iter`], for who works on the bytes where they are.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = ReceivedMut<'_>> {
        self.slots[..self.filled].iter_mut().filter_map(|slot| {
            let (source, segment) = described(slot)?;
            Some(ReceivedMut {
                bytes: &mut slot.buffer[..slot.len],
                source,
                segment,
            })
        })
    }

    /// Items that the last receive brought.
    pub fn len(&self) -> usize {
        self.filled
    }

    /// Whether the last receive brought nothing.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Items that one receive brings at most.
    pub fn capacity(&self) -> usize {
        self.slots.len()
    }
}

/// Sender and length of the datagrams in a slot, unless it was cut off.
fn described(slot: &Slot) -> Option<(SocketAddr, Option<u16>)> {
    if slot.flags & libc::MSG_TRUNC != 0 {
        return None;
    }
    // An int: udp(7).
    let segment = slot
        .control
        .find(libc::SOL_UDP, libc::UDP_GRO)
        .and_then(|data| data.first_chunk())
        .and_then(|data| u16::try_from(i32::from_ne_bytes(*data)).ok())
        .filter(|segment| *segment != 0 && usize::from(*segment) < slot.len);
    Some((slot.address.to_inet()?, segment))
}

impl Received<'_> {
    /// The datagrams, one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        let len = self.segment.map_or(self.bytes.len(), usize::from);
        // A datagram without payload is one datagram too.
        let empty = self.bytes.is_empty().then_some(self.bytes);
        empty.into_iter().chain(self.bytes.chunks(len.max(1)))
    }
}

impl fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecvBatch")
            .field("capacity", &self.capacity())
            .field("filled", &self.filled)
            .finish_non_exhaustive()
    }
}
