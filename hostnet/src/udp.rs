//! UDP sockets for the data path: trains out (`UDP_SEGMENT`), batches in (`UDP_GRO`).
//!
//! Sending and receiving never wait and never allocate. A socket of `[::]` also serves IPv4, whose
//! addresses look plain on this side.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use crate::sockaddr::{Control, SockAddr};
use crate::sys::message::{self, MAX_MESSAGES, Outgoing};
use crate::sys::socket::{self, option, set_option};

mod batch;

pub use batch::{Received, ReceivedMut, RecvBatch};

/// Most datagrams in a train: `UDP_MAX_SEGMENTS` of kernels before 6.9, which newer ones exceed.
pub const MAX_SEGMENTS: usize = 64;

/// Most payload bytes of one send: 65,535 minus IPv4 and UDP headers.
pub const MAX_TRAIN: usize = 65_507;

/// How a socket is to be.
#[derive(Debug, Clone, Copy)]
pub struct UdpOptions {
    /// Own address and port. `[::]` serves IPv4 too, unless `only_v6`; where IPv6 is off it becomes
    /// `0.0.0.0`.
    pub bind: SocketAddr,
    /// Share the port with other sockets that say so, of the same user.
    pub reuse_port: bool,
    /// Wanted receive buffer in bytes, 0 for the system's default. Beyond `net.core.rmem_max` only
    /// with `CAP_NET_ADMIN`.
    pub recv_buffer: usize,
    /// Wanted send buffer in bytes, 0 for the system's default. Beyond `net.core.wmem_max` only with
    /// `CAP_NET_ADMIN`.
    pub send_buffer: usize,
    /// Let the kernel join datagrams of one flow and size on receive, if it can.
    pub gro: bool,
    /// Never fragment: a datagram above the MTU of the interface is EMSGSIZE, and one that is too long
    /// further on is lost. What ICMP says of the path is not believed (`IP_PMTUDISC_PROBE`): anybody
    /// can forge it, and the kernel would remember it for ten minutes. Otherwise the kernel
    /// fragments, and lets routers do so.
    pub dont_fragment: bool,
    /// Keep IPv4 off an IPv6 socket.
    pub only_v6: bool,
    /// Tell of datagrams that the device's queue had no room for (ENOBUFS), of which the kernel says
    /// nothing otherwise, and of ICMP answers: each makes a later call fail in its own stead. See
    /// [`UdpSocket::clear_errors`].
    pub report_errors: bool,
}

impl UdpOptions {
    /// A plain socket on an address: port not shared, default buffers, GRO, fragments allowed.
    pub fn new(bind: SocketAddr) -> Self {
        Self {
            bind,
            reuse_port: false,
            recv_buffer: 0,
            send_buffer: 0,
            gro: true,
            dont_fragment: false,
            only_v6: false,
            report_errors: false,
        }
    }
}

/// What a socket can do on this kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpCapabilities {
    /// The kernel cuts a train into datagrams (`UDP_SEGMENT`, Linux 4.18).
    pub gso: bool,
    /// The kernel joins datagrams on receive (`UDP_GRO`, Linux 5.0).
    pub gro: bool,
}

/// Why a socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Another socket has the port.
    #[error(
        "UDP port {} is in use at {} (by another router, or a kernel VXLAN device): stop that one, or choose another port with --vxlan-port",
        address.port(), address.ip()
    )]
    InUse {
        /// As asked for.
        address: SocketAddr,
    },
    /// No interface has this address.
    #[error("no interface has the address {}: use one of this machine's, or leave it out", address.ip())]
    NoSuchAddress {
        /// As asked for.
        address: SocketAddr,
    },
    /// The port needs a privilege.
    #[error("UDP port {} needs CAP_NET_BIND_SERVICE: run as root, or choose a port above 1023", address.port())]
    Denied {
        /// As asked for.
        address: SocketAddr,
    },
    /// Another failure.
    #[error("open a UDP socket at {address}: {call}")]
    Io {
        /// As asked for.
        address: SocketAddr,
        /// What failed.
        call: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
}

/// Fails if any socket, or kernel device, has this UDP port. Sockets of one user that share a port
/// bind beside each other without complaint, even in two processes: this is asked before them.
pub fn assert_port_free(address: SocketAddr) -> Result<(), BindError> {
    open(&UdpOptions {
        gro: false,
        ..UdpOptions::new(address)
    })
    .map(drop)
}

/// The MTU of the way to a destination, in bytes, as far as the kernel knows it: that of the
/// interface, or less. In the calling thread's namespace; sends nothing.
///
/// # Errors
/// There is no way, or no socket.
pub fn path_mtu(dest: SocketAddr) -> io::Result<u16> {
    let socket = Socket::new(Domain::for_address(dest), Type::DGRAM, Some(Protocol::UDP))?;
    socket.connect(&dest.into())?;
    let (level, name) = if dest.is_ipv4() {
        (libc::IPPROTO_IP, libc::IP_MTU)
    } else {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU)
    };
    let mtu = option(socket.as_fd(), level, name)?;
    // The loopback interface has 65,536.
    Ok(u16::try_from(mtu).unwrap_or(u16::MAX))
}

/// A datagram, or a train of them, to one destination.
#[derive(Debug, Clone, Copy)]
pub struct Datagram<'a> {
    /// Where to.
    pub dest: SocketAddr,
    /// The payload.
    pub bytes: &'a [u8],
    /// Length of each datagram of the train but the last; 0, or no less than all bytes, means one.
    pub segment: u16,
}

/// A UDP socket that does not block.
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    /// IPv4 destinations must be mapped.
    v6: bool,
    gso: AtomicBool,
    gro: bool,
    /// Datagrams of trains sent in pieces that could not follow the first ones.
    lost: AtomicU64,
}

impl UdpSocket {
    /// Opens and binds a socket in the calling thread's namespace.
    pub fn bind(options: &UdpOptions) -> Result<Self, BindError> {
        let (socket, address) = open(options)?;
        let failed = |call| {
            move |source| BindError::Io {
                address,
                call,
                source,
            }
        };
        let v6 = address.is_ipv6();
        set_fragmenting(&socket, v6, options.dont_fragment)
            .map_err(failed("set path MTU discovery"))?;
        set_buffers(&socket, options).map_err(failed("set buffer sizes"))?;
        if options.report_errors {
            set_reporting(&socket, v6).map_err(failed("have errors reported"))?;
        }
        // A value of zero changes nothing, but is refused where the option is not known.
        let gso = set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let gro =
            options.gro && set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        let local = socket
            .local_addr()
            .map_err(failed("read its address"))?
            .as_socket()
            .expect("an internet socket has an internet address");
        Ok(Self {
            socket,
            local,
            v6,
            gso: AtomicBool::new(gso),
            gro,
            lost: AtomicU64::new(0),
        })
    }

    /// Sends the bytes to one destination, cut into datagrams of `segment` bytes (the last may be
    /// shorter); 0, or no less than all bytes, sends one. At most [`MAX_SEGMENTS`] and [`MAX_TRAIN`].
    ///
    /// An error means that nothing went out, so that another try sends no datagram twice.
    /// `WouldBlock` means that the send buffer is full; EIO (no checksum offload on the way) and
    /// EINVAL or EMSGSIZE (too many segments, or longer than the path MTU) call for
    /// [`Self::disable_gso`] and another try, which is the caller's decision. Without GSO the
    /// datagrams go one by one in as few calls as possible; what cannot follow the first ones then
    /// is lost, and counted in [`Self::lost`].
    pub fn send_train(&self, dest: SocketAddr, train: &[u8], segment: u16) -> io::Result<()> {
        let datagram = Datagram {
            dest,
            bytes: train,
            segment,
        };
        if datagram.is_single() || self.gso.load(Ordering::Relaxed) {
            let address = self.encode(dest);
            let control = datagram.control();
            let outgoing = Outgoing {
                address: &address,
                control: &control,
                bytes: train,
            };
            return message::send(self.socket.as_fd(), &outgoing);
        }
        self.send_pieces(&datagram)
    }

    /// As [`Self::send_train`], but an error that may answer an earlier datagram, and came in the stead
    /// of this one, is thrown away with all that wait, and the train is sent again.
    pub fn send_train_anew(&self, dest: SocketAddr, train: &[u8], segment: u16) -> io::Result<()> {
        let sent = self.send_train(dest, train, segment);
        let own = |error: &io::Error| {
            let own = [libc::EAGAIN, libc::ENOBUFS, libc::ENOMEM];
            own.map(Some).contains(&error.raw_os_error())
        };
        match sent {
            Err(error) if !own(&error) => {
                self.clear_errors();
                self.send_train(dest, train, segment)
            }
            sent => sent,
        }
    }

    /// Sends datagrams and trains in as few calls as possible, and returns how many went out. An
    /// error says that the first did not; that of a later one comes when it is tried again as first.
    pub fn send_batch(&self, batch: &[Datagram<'_>]) -> io::Result<usize> {
        let gso = self.gso.load(Ordering::Relaxed);
        let mut sent = 0;
        while sent < batch.len() {
            let rest = &batch[sent..];
            // Without GSO a train is on its own.
            let plain = if gso {
                rest.len()
            } else {
                rest.iter().take_while(|d| d.is_single()).count()
            };
            let chunk = &rest[..plain.min(MAX_MESSAGES)];
            let result = match chunk {
                [] => self.send_pieces(&rest[0]).map(|()| 1),
                chunk => self.send_chunk(chunk),
            };
            match result {
                Ok(count) => {
                    sent += count;
                    if count < chunk.len() {
                        break;
                    }
                }
                Err(e) if sent == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(sent)
    }

    /// Receives what is there, up to the batch's size, and returns how many items came.
    /// `WouldBlock` when nothing is there.
    pub fn recv_batch(&self, batch: &mut RecvBatch) -> io::Result<usize> {
        batch.fill(|slots| message::recv_many(self.socket.as_fd(), slots))
    }

    /// What the kernel can do for this socket.
    pub fn capabilities(&self) -> UdpCapabilities {
        UdpCapabilities {
            gso: self.gso.load(Ordering::Relaxed),
            gro: self.gro,
        }
    }

    /// Sends trains datagram by datagram from now on. Returns whether that is a change, so that it
    /// is logged once.
    pub fn disable_gso(&self) -> bool {
        self.gso.swap(false, Ordering::Relaxed)
    }

    /// Datagrams of trains sent without GSO that were dropped because the send buffer was full, or
    /// for another error, after the first ones of their train went out.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The address that the socket is bound to, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Sizes that the kernel granted to the receive and the send buffer, in bytes (it doubles what
    /// was asked for, socket(7)).
    pub fn buffers(&self) -> io::Result<(usize, usize)> {
        Ok((
            self.socket.recv_buffer_size()?,
            self.socket.send_buffer_size()?,
        ))
    }

    /// Datagrams that found no room in the receive buffer since the socket was opened; a joined
    /// train counts once. Wraps.
    pub fn dropped(&self) -> io::Result<u32> {
        let counters = socket::memory_info(self.socket.as_fd())?;
        Ok(counters[socket::MEMINFO_DROPS])
    }

    /// Throws away what waits on the socket's error queue, and returns how much it was. With
    /// [`UdpOptions::report_errors`] a failed send may mean an answer to an earlier datagram: then
    /// there is something here, and nothing was sent yet.
    pub fn clear_errors(&self) -> usize {
        let discard = || message::discard_error(self.socket.as_fd());
        (0..MAX_ERRORS).take_while(|_| discard().is_ok()).count()
    }

    /// The error that waits on the socket, such as an ICMP answer to an earlier datagram; taking it
    /// clears it.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        self.socket.take_error()
    }

    fn encode(&self, dest: SocketAddr) -> SockAddr {
        if self.v6 {
            SockAddr::mapped(dest)
        } else {
            SockAddr::new(dest)
        }
    }

    /// Sends up to [`MAX_MESSAGES`] datagrams or trains, the latter with GSO.
    fn send_chunk(&self, chunk: &[Datagram<'_>]) -> io::Result<usize> {
        let mut addresses = [SockAddr::EMPTY; MAX_MESSAGES];
        let mut controls = [Control::EMPTY; MAX_MESSAGES];
        for ((datagram, address), control) in chunk.iter().zip(&mut addresses).zip(&mut controls) {
            *address = self.encode(datagram.dest);
            *control = datagram.control();
        }
        let mut messages = [Outgoing {
            address: &SockAddr::EMPTY,
            control: &Control::EMPTY,
            bytes: &[],
        }; MAX_MESSAGES];
        let parts = chunk.iter().zip(&addresses).zip(&controls);
        for (message, ((datagram, address), control)) in messages.iter_mut().zip(parts) {
            *message = Outgoing {
                address,
                control,
                bytes: datagram.bytes,
            };
        }
        message::send_many(self.socket.as_fd(), &messages[..chunk.len()])
    }

    /// Sends a train without GSO. An error after the first datagrams would make the caller send them
    /// again: the rest is lost instead.
    fn send_pieces(&self, train: &Datagram<'_>) -> io::Result<()> {
        let address = self.encode(train.dest);
        let segment = usize::from(train.segment);
        let total = train.bytes.len().div_ceil(segment);
        let mut sent = 0;
        while sent < total {
            let mut messages = [Outgoing {
                address: &address,
                control: &Control::EMPTY,
                bytes: &[],
            }; MAX_MESSAGES];
            let mut count = 0;
            let rest = train.bytes[sent * segment..].chunks(segment);
            for (message, bytes) in messages.iter_mut().zip(rest) {
                message.bytes = bytes;
                count += 1;
            }
            match message::send_many(self.socket.as_fd(), &messages[..count]) {
                Ok(count) => sent += count,
                Err(e) if sent == 0 => return Err(e),
                Err(_) => {
                    let left = u64::try_from(total - sent).unwrap_or(u64::MAX);
                    self.lost.fetch_add(left, Ordering::Relaxed);
                    break;
                }
            }
        }
        Ok(())
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local", &self.local)
            .field("capabilities", &self.capabilities())
            .finish_non_exhaustive()
    }
}

impl Datagram<'_> {
    fn is_single(&self) -> bool {
        self.segment == 0 || usize::from(self.segment) >= self.bytes.len()
    }

    fn control(&self) -> Control {
        if self.is_single() {
            Control::EMPTY
        } else {
            Control::of_u16(libc::SOL_UDP, libc::UDP_SEGMENT, self.segment)
        }
    }
}

/// Opens and binds, and returns the address that was bound in the end.
fn open(options: &UdpOptions) -> Result<(Socket, SocketAddr), BindError> {
    let wanted = options.bind;
    match open_at(wanted, options) {
        // A kernel without IPv6, or one where it is switched off.
        Err(BindError::Io { source, .. })
            if wanted.ip().is_unspecified()
                && wanted.is_ipv6()
                && !options.only_v6
                && source.raw_os_error() == Some(libc::EAFNOSUPPORT) =>
        {
            open_at(
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, wanted.port())),
                options,
            )
        }
        result => result,
    }
}

fn open_at(address: SocketAddr, options: &UdpOptions) -> Result<(Socket, SocketAddr), BindError> {
    let failed = |call| {
        move |source| BindError::Io {
            address,
            call,
            source,
        }
    };
    let domain = Domain::for_address(address);
    // socket2 adds SOCK_CLOEXEC.
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))
        .map_err(failed("socket"))?;
    if address.is_ipv6() {
        let only = options.only_v6 || !address.ip().is_unspecified();
        socket
            .set_only_v6(only)
            .map_err(failed("set IPV6_V6ONLY"))?;
    }
    if options.reuse_port {
        socket
            .set_reuse_port(true)
            .map_err(failed("set SO_REUSEPORT"))?;
    }
    socket
        .bind(&address.into())
        .map_err(|source| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => BindError::InUse { address },
            Some(libc::EADDRNOTAVAIL) => BindError::NoSuchAddress { address },
            Some(libc::EACCES | libc::EPERM) => BindError::Denied { address },
            _ => BindError::Io {
                address,
                call: "bind",
                source,
            },
        })?;
    Ok((socket, address))
}

/// Says whether datagrams may be fragmented; on an IPv6 socket for IPv4 too, which it may serve.
fn set_fragmenting(socket: &Socket, v6: bool, never: bool) -> io::Result<()> {
    let fd = socket.as_fd();
    let (v4_value, v6_value) = if never {
        (libc::IP_PMTUDISC_PROBE, libc::IPV6_PMTUDISC_PROBE)
    } else {
        (libc::IP_PMTUDISC_DONT, libc::IPV6_PMTUDISC_DONT)
    };
    set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, v4_value)?;
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, v6_value)?;
    }
    Ok(())
}

/// Has the kernel tell of drops and ICMP errors (ip(7), `IP_RECVERR`).
fn set_reporting(socket: &Socket, v6: bool) -> io::Result<()> {
    let fd = socket.as_fd();
    set_option(fd, libc::IPPROTO_IP, libc::IP_RECVERR, 1)?;
    if v6 {
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_RECVERR, 1)?;
    }
    Ok(())
}

/// Most messages that are taken off an error queue at once; whoever sends ICMP errors decides how
/// many there are.
const MAX_ERRORS: usize = 64;

/// Asks for buffer sizes, beyond the system's limit where that is allowed.
fn set_buffers(socket: &Socket, options: &UdpOptions) -> io::Result<()> {
    if options.recv_buffer != 0
        && setsockopt(socket, sockopt::RcvBufForce, &options.recv_buffer).is_err()
    {
        socket.set_recv_buffer_size(options.recv_buffer)?;
    }
    if options.send_buffer != 0
        && setsockopt(socket, sockopt::SndBufForce, &options.send_buffer).is_err()
    {
        socket.set_send_buffer_size(options.send_buffer)?;
    }
    Ok(())
}
