//! sendmsg(2), sendmmsg(2), recvmsg(2) and recvmmsg(2) without allocation.
//!
//! The arrays that the kernel wants are built on the stack for each call, from borrowed slices: so
//! no structure of ours holds pointers, and all of them stay `Send`. Calls never block: they pass
//! `MSG_DONTWAIT`, except [`recv`], which follows the socket's own mode.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

use crate::sockaddr::{Control, SockAddr};

/// Most messages that one call passes: bounds the stack the arrays take (about 5 KB). As many as the
/// datagrams of a train, so that one that arrives in pieces is received at once.
pub(crate) const MAX_MESSAGES: usize = 64;

/// A message to send.
#[derive(Clone, Copy)]
pub(crate) struct Outgoing<'a> {
    pub(crate) address: &'a SockAddr,
    pub(crate) control: &'a Control,
    pub(crate) bytes: &'a [u8],
}

/// A place to receive a message into.
pub(crate) struct Slot {
    pub(crate) buffer: Box<[u8]>,
    pub(crate) address: SockAddr,
    pub(crate) control: Control,
    /// Bytes of `buffer` that the last receive filled.
    pub(crate) len: usize,
    /// `MSG_*` of the last receive.
    pub(crate) flags: libc::c_int,
}

/// Sends one message; a datagram goes whole or not at all.
pub(crate) fn send(fd: BorrowedFd<'_>, message: &Outgoing<'_>) -> io::Result<()> {
    let mut iovec = read_only(message.bytes);
    let header = outgoing_header(message, &mut iovec);
    // SAFETY: the header's pointers come from slices that `message` borrows and from `iovec` above,
    // with their own lengths; the kernel only reads what they point to.
    let result = unsafe { libc::sendmsg(fd.as_raw_fd(), &raw const header, SEND_FLAGS) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends up to [`MAX_MESSAGES`] messages and returns how many went out: an error of any but the
/// first is not reported, and shows as a smaller number.
pub(crate) fn send_many(fd: BorrowedFd<'_>, messages: &[Outgoing<'_>]) -> io::Result<usize> {
    let mut iovecs = [EMPTY; MAX_MESSAGES];
    let mut headers = no_headers();
    let mut count = 0;
    for ((message, iovec), header) in messages.iter().zip(&mut iovecs).zip(&mut headers) {
        *iovec = read_only(message.bytes);
        header.msg_hdr = outgoing_header(message, iovec);
        count += 1;
    }
    // SAFETY: the first `count` headers point into slices that `messages` borrows and into `iovecs`,
    // with their own lengths; the kernel writes nothing but the headers' `msg_len`.
    let result = unsafe { libc::sendmmsg(fd.as_raw_fd(), headers.as_mut_ptr(), count, SEND_FLAGS) };
    super::check(result).map(to_usize)
}

/// Receives one message into the slot, waiting as the socket's mode says.
pub(crate) fn recv(fd: BorrowedFd<'_>, slot: &mut Slot) -> io::Result<()> {
    let mut iovec = writable(&mut slot.buffer);
    let mut header = incoming_header(&mut slot.address, &mut slot.control, &mut iovec);
    // SAFETY: the header's pointers come from the slot, which is borrowed exclusively, and from
    // `iovec`, with their own lengths; any bytes are valid in all of them.
    let result = unsafe { libc::recvmsg(fd.as_raw_fd(), &raw mut header, 0) };
    slot.len = usize::try_from(result).map_err(|_| io::Error::last_os_error())?;
    accept(slot, &header);
    Ok(())
}

/// Receives up to [`MAX_MESSAGES`] messages that are there already, and returns how many.
pub(crate) fn recv_many(fd: BorrowedFd<'_>, slots: &mut [Slot]) -> io::Result<usize> {
    let mut iovecs = [EMPTY; MAX_MESSAGES];
    let mut headers = no_headers();
    let mut count = 0;
    for ((slot, iovec), header) in slots.iter_mut().zip(&mut iovecs).zip(&mut headers) {
        *iovec = writable(&mut slot.buffer);
        header.msg_hdr = incoming_header(&mut slot.address, &mut slot.control, iovec);
        count += 1;
    }
    let flags = libc::MSG_DONTWAIT;
    let pointer = headers.as_mut_ptr();
    let no_timeout = std::ptr::null_mut();
    // SAFETY: the first `count` headers point into slots, which are borrowed exclusively, and into
    // `iovecs`, with their own lengths; any bytes are valid in all of them. The timeout may be null.
    let result = unsafe { libc::recvmmsg(fd.as_raw_fd(), pointer, count, flags, no_timeout) };
    let received = super::check(result).map(to_usize)?;
    for (slot, header) in slots.iter_mut().zip(&headers).take(received) {
        slot.len = header.msg_len as usize;
        accept(slot, &header.msg_hdr);
    }
    Ok(received)
}

/// Takes one message off the socket's error queue and throws it away. `WouldBlock` when there is
/// none.
pub(crate) fn discard_error(fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut header = no_header();
    // SAFETY: the header names no buffer at all, so that the kernel writes nothing but its flags.
    let result = unsafe {
        libc::recvmsg(
            fd.as_raw_fd(),
            &raw mut header,
            libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// `MSG_NOSIGNAL` is for the day a stream socket comes by; datagrams never raise SIGPIPE.
const SEND_FLAGS: libc::c_int = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;

/// A vector of nothing, to fill arrays.
const EMPTY: libc::iovec = libc::iovec {
    iov_base: std::ptr::null_mut(),
    iov_len: 0,
};

fn read_only(bytes: &[u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }
}

fn writable(bytes: &mut [u8]) -> libc::iovec {
    libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    }
}

fn outgoing_header(message: &Outgoing<'_>, iovec: &mut libc::iovec) -> libc::msghdr {
    let mut header = no_header();
    header.msg_name = message.address.bytes().as_ptr().cast_mut().cast();
    header.msg_namelen = message.address.len();
    header.msg_iov = iovec;
    header.msg_iovlen = 1;
    let control = message.control.bytes();
    if !control.is_empty() {
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
    }
    header
}

fn incoming_header(
    address: &mut SockAddr,
    control: &mut Control,
    iovec: &mut libc::iovec,
) -> libc::msghdr {
    let mut header = no_header();
    let room = address.room();
    header.msg_namelen = SockAddr::ROOM;
    header.msg_name = room.as_mut_ptr().cast();
    header.msg_iov = iovec;
    header.msg_iovlen = 1;
    let room = control.room();
    header.msg_controllen = room.len();
    header.msg_control = room.as_mut_ptr().cast();
    header
}

/// Takes over what the kernel wrote into a header.
fn accept(slot: &mut Slot, header: &libc::msghdr) {
    slot.address.set_len(header.msg_namelen);
    slot.control.set_len(header.msg_controllen);
    slot.flags = header.msg_flags;
    // A call with MSG_TRUNC may report more than the buffer holds.
    slot.len = slot.len.min(slot.buffer.len());
}

fn no_header() -> libc::msghdr {
    // SAFETY: `msghdr` holds integers and raw pointers only, for which zero bytes are valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn no_headers() -> [libc::mmsghdr; MAX_MESSAGES] {
    // SAFETY: `mmsghdr` holds integers and raw pointers only, for which zero bytes are valid.
    unsafe { MaybeUninit::zeroed().assume_init() }
}

fn to_usize(count: libc::c_int) -> usize {
    usize::try_from(count).expect("negative results were errors")
}
