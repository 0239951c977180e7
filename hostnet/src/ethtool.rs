//! Offloads of an interface, on or off (ethtool(8) `-K`): benches and tests turn them off to make
//! frames cross a veth as they would cross a wire.

use std::io;
use std::os::fd::AsFd as _;

use socket2::{Domain, Socket, Type};

use crate::sys::ethtool;

/// An offload; the values are linux/ethtool.h's `ETHTOOL_S*` commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Feature {
    /// Checksums of sent packets are left to the device.
    TxChecksum = 0x17,
    /// TCP super-frames are handed to the device whole.
    Tso = 0x1f,
    /// Super-frames of every kind are cut just before the device.
    Gso = 0x24,
    /// Received segments are joined.
    Gro = 0x2c,
}

/// Turns an offload of an interface of the calling thread's namespace on or off.
///
/// # Errors
/// There is no such interface, it cannot do this, or the caller lacks `CAP_NET_ADMIN`.
pub fn set(interface: &str, feature: Feature, on: bool) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    ethtool::set(socket.as_fd(), interface, feature as u32, u32::from(on))
}
