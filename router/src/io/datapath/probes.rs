//! Probes between the mesh and the underlay: those that arrive leave the workers by a bounded queue,
//! those to be sent leave by the sockets that pods' frames use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fastpath::{Arrival, ControlSink, Counters, DropReason, Encapsulation};
use hostnet::udp::UdpSocket;
use nix::errno::Errno;
use tokio::sync::mpsc;
use wire::{PeerId, Vni, sleeve, vxlan};

/// Probes that wait for the mesh; more are dropped and counted. A second's worth of those that
/// hundreds of peers send when this node restarts.
pub const QUEUE: usize = 512;

/// A probe that arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeArrival {
    /// How it was wrapped.
    pub encapsulation: Encapsulation,
    /// Whence it came: its origin, or the last relay.
    pub source: SocketAddr,
    /// Whether it passed a relay.
    pub relayed: bool,
    /// The inner frame, for which `wire::probe::is_probe` holds.
    pub frame: Vec<u8>,
}

/// A worker's end of the queue, for one batch.
#[derive(Debug)]
pub(super) struct ProbeQueue<'a> {
    pub(super) queue: &'a mpsc::Sender<ProbeArrival>,
    pub(super) counters: &'a Counters,
}

impl ControlSink for ProbeQueue<'_> {
    fn probe(&mut self, probe: Arrival<'_>) {
        let arrival = ProbeArrival {
            encapsulation: probe.encapsulation,
            source: probe.source,
            relayed: probe.relayed,
            frame: probe.frame.to_vec(),
        };
        if self.queue.try_send(arrival).is_err() {
            self.counters.drop(DropReason::ProbeQueueFull, 1);
        }
    }
}

/// Sends probes.
#[derive(Debug, Clone)]
pub struct Prober {
    pub(super) vni: Vni,
    pub(super) me: PeerId,
    pub(super) vxlan: Arc<UdpSocket>,
    pub(super) sleeve: Arc<UdpSocket>,
}

/// Why a probe was not sent.
#[derive(Debug, thiserror::Error)]
pub enum ProbeSendError {
    /// It is longer than the way takes.
    #[error("longer than the way takes{}", mtu.map(|mtu| format!(", {mtu} bytes")).unwrap_or_default())]
    TooBig {
        /// MTU of the way in bytes, as far as the kernel knows it.
        mtu: Option<u16>,
    },
    /// The kernel's answer.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Prober {
    /// Sends a probe's frame for the peer `to` to an endpoint: the peer's own, or a relay's. Never
    /// waits.
    ///
    /// # Errors
    /// The kernel does not send it.
    pub fn send(
        &self,
        encapsulation: Encapsulation,
        to: PeerId,
        endpoint: SocketAddr,
        frame: &[u8],
    ) -> Result<(), ProbeSendError> {
        let (socket, datagram) = match encapsulation {
            Encapsulation::Vxlan => (&self.vxlan, [&vxlan::header(self.vni)[..], frame].concat()),
            Encapsulation::Sleeve => {
                let header = sleeve::Header::plain(self.me, to).bytes();
                (&self.sleeve, [&header[..], frame].concat())
            }
        };
        let sent = socket.send_train_anew(endpoint, &datagram, 0);
        sent.map_err(|error| {
            if error.raw_os_error() == Some(Errno::EMSGSIZE as i32) {
                let mtu = hostnet::udp::path_mtu(endpoint).ok();
                ProbeSendError::TooBig { mtu }
            } else {
                error.into()
            }
        })
    }
}
