//! Raw frames on an interface (packet(7)): for announcements and captures, not for the data path.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::libc;
use socket2::{Domain, Socket, Type};

use crate::poll::{PollFd, PollFlags, poll};
use crate::sockaddr::{Control, SockAddr, field};
use crate::sys::message::{self, Slot};
use crate::sys::socket;

/// A socket that sends and receives all frames of one interface.
pub struct PacketSocket {
    socket: Socket,
    slot: Slot,
}

/// A frame as it crossed the interface.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// From the Ethernet header on, VLAN tag included.
    pub bytes: &'a [u8],
    /// This machine sent it through the interface.
    pub outgoing: bool,
    /// Longer than the socket's buffer, and cut off.
    pub truncated: bool,
}

impl PacketSocket {
    /// Opens a socket on an interface of the calling thread's namespace.
    pub fn bind(ifindex: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing: no frame of another interface comes in before the bind.
        let kind = Type::RAW.nonblocking();
        let socket = Socket::new(Domain::from(libc::AF_PACKET), kind, None)?;
        // The kernel takes the outermost VLAN tag out of the frame, and tells it here.
        socket::set_option(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_AUXDATA, 1)?;
        socket::bind(socket.as_fd(), &SockAddr::link(ifindex, ALL_ETHERTYPES))?;
        let slot = Slot {
            buffer: vec![0; BUFFER_LEN].into_boxed_slice(),
            address: SockAddr::EMPTY,
            control: Control::EMPTY,
            len: 0,
            flags: 0,
        };
        Ok(Self { socket, slot })
    }

    /// Sends a frame, from its Ethernet header on. ENETDOWN while the interface is down.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }

    /// Waits for the next frame; `None` after the timeout.
    pub fn recv(&mut self, timeout: Duration) -> io::Result<Option<Packet<'_>>> {
        let end = Instant::now() + timeout;
        loop {
            match message::recv(self.socket.as_fd(), &mut self.slot) {
                Ok(()) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    poll(
                        &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                        Some(left),
                    )?;
                }
                Err(e) => return Err(e),
            }
        }
        self.restore_tag();
        let slot = &self.slot;
        Ok(Some(Packet {
            bytes: &slot.buffer[..slot.len],
            outgoing: slot.address.packet_type() == Some(libc::PACKET_OUTGOING),
            truncated: slot.flags & libc::MSG_TRUNC != 0,
        }))
    }

    /// Puts the VLAN tag back to where it was on the wire, after both addresses (IEEE 802.1Q §9.3).
    fn restore_tag(&mut self) {
        let slot = &mut self.slot;
        let tag = slot
            .control
            .find(libc::SOL_PACKET, libc::PACKET_AUXDATA)
            .and_then(vlan_tag);
        if let Some(tag) = tag
            && slot.len >= ADDRESSES_LEN
        {
            let len = (slot.len + tag.len()).min(slot.buffer.len());
            slot.buffer
                .copy_within(ADDRESSES_LEN..len - tag.len(), ADDRESSES_LEN + tag.len());
            slot.buffer[ADDRESSES_LEN..ADDRESSES_LEN + tag.len()].copy_from_slice(&tag);
            slot.len = len;
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for PacketSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PacketSocket")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// A frame of 64 KB, as segmentation offload makes them, with its header and a tag.
const BUFFER_LEN: usize = 65_536 + 64;
/// `ETH_P_ALL` of linux/if_ether.h.
const ALL_ETHERTYPES: u16 = 3;
/// Destination and source.
const ADDRESSES_LEN: usize = 12;

/// The tag of a `struct tpacket_auxdata` (linux/if_packet.h), if the frame had one.
fn vlan_tag(auxdata: &[u8]) -> Option<[u8; 4]> {
    let status = u32::from_ne_bytes(field(auxdata, 0)?);
    if status & TP_STATUS_VLAN_VALID == 0 {
        return None;
    }
    let control = u16::from_ne_bytes(field(auxdata, 16)?);
    let ethertype = u16::from_ne_bytes(field(auxdata, 18)?);
    let [a, b] = ethertype.to_be_bytes();
    let [c, d] = control.to_be_bytes();
    Some([a, b, c, d])
}

/// linux/if_packet.h; `TP_STATUS_VLAN_TPID_VALID` comes with it since Linux 3.14.
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
