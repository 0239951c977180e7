//! Probes between the mesh and the underlay: those that arrive leave the workers by a bounded queue,
//! those to be sent leave by the sockets that pods' frames use.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use fastpath::{Arrival, ControlSink, Counters, DropReason, Encapsulation, KeyNews, Sealer};
use hostnet::udp::UdpSocket;
use mesh::MAX_DATAGRAM;
use nix::errno::Errno;
use tokio::sync::mpsc;
use wire::{PeerId, Vni, sleeve, vxlan};

use super::Shared;
use super::keys::{SealEvent, Sealers};

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
    pub(super) seals: &'a mpsc::Sender<SealEvent>,
    pub(super) sealers: Option<&'a Sealers>,
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

    fn handshake(&mut self, from: PeerId, origin: SocketAddr, message: &[u8]) {
        // What is longer is none, and is not worth a copy.
        let message = message[..message.len().min(MAX_DATAGRAM + 1)].to_vec();
        let event = SealEvent::Handshake {
            from,
            origin,
            message,
        };
        if self.seals.try_send(event).is_err() {
            self.counters.drop(DropReason::HandshakeQueueFull, 1);
        }
    }

    fn keys(&mut self, peer: PeerId, news: KeyNews) {
        if self.seals.try_send(SealEvent::News(peer, news)).is_err() {
            self.counters.drop(DropReason::HandshakeQueueFull, 1);
        }
    }

    fn sealer(&self, peer: PeerId) -> Option<Arc<Sealer>> {
        self.sealers?.find(peer)
    }
}

/// Sends probes.
#[derive(Debug, Clone)]
pub struct Prober {
    pub(super) vni: Vni,
    pub(super) me: PeerId,
    pub(super) vxlan: Arc<UdpSocket>,
    pub(super) sleeve: Arc<UdpSocket>,
    pub(super) shared: Arc<Shared>,
    /// What seals probes, where nothing may leave in the clear.
    pub(super) sealers: Option<Arc<Sealers>>,
    pub(super) seals: mpsc::Sender<SealEvent>,
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
    /// Nothing may leave in the clear there, and VXLAN is.
    #[error("VXLAN is in the clear, which the password forbids")]
    Plain,
    /// There is no session with the peer yet; one is being made.
    #[error("no session with the peer yet")]
    NoSession,
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
        let (socket, datagram) = match (encapsulation, &self.sealers) {
            (Encapsulation::Vxlan, Some(_)) if !self.allows_vxlan(to, endpoint) => {
                return Err(ProbeSendError::Plain);
            }
            (Encapsulation::Sleeve, Some(sealers)) => {
                let sealed = sealers.get(to).datagram(self.me, to, frame);
                let Some(datagram) = sealed else {
                    // A full queue has news enough; the next probe asks again.
                    let _ = self.seals.try_send(SealEvent::WantAt(to, endpoint));
                    return Err(ProbeSendError::NoSession);
                };
                (&self.sleeve, datagram)
            }
            (Encapsulation::Vxlan, _) => {
                (&self.vxlan, [&vxlan::header(self.vni)[..], frame].concat())
            }
            (Encapsulation::Sleeve, None) => {
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

    /// Whether a probe may leave in the clear, as the frames of pods do: workers and probes go by the
    /// same word.
    fn allows_vxlan(&self, to: PeerId, endpoint: SocketAddr) -> bool {
        self.shared
            .forwarding
            .load()
            .allows_vxlan(to, endpoint.ip())
    }

    /// Sends a whole sleeve datagram.
    pub(super) fn send_sleeve(&self, endpoint: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        self.sleeve.send_train_anew(endpoint, datagram, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I6: probes that the mesh does not take in time are counted and dropped, the oldest stay, and
    /// what comes once there is room again is taken.
    #[test]
    fn i6_probes_beyond_the_queue_are_counted_and_dropped() {
        let (queue, mut waiting) = mpsc::channel(QUEUE);
        let (seals, _) = mpsc::channel(1);
        let counters = Counters::default();
        let mut probes = ProbeQueue {
            queue: &queue,
            seals: &seals,
            sealers: None,
            counters: &counters,
        };
        let mut arrive = |number: usize| {
            probes.probe(Arrival {
                encapsulation: Encapsulation::Vxlan,
                source: ([192, 0, 2, 1], 6784).into(),
                relayed: false,
                frame: &number.to_be_bytes(),
            });
        };
        for number in 0..QUEUE + 3 {
            arrive(number);
        }
        assert_eq!(counters.dropped(DropReason::ProbeQueueFull), 3);
        let first = waiting.try_recv().unwrap();
        assert_eq!(first.frame, 0_usize.to_be_bytes());
        arrive(7);
        assert_eq!(counters.dropped(DropReason::ProbeQueueFull), 3);
        drop(waiting);
        arrive(8);
        assert_eq!(counters.dropped(DropReason::ProbeQueueFull), 4);
    }
}
