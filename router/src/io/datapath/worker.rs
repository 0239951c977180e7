//! One worker's loop.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use fastpath::{Counters, Datagram, Egress, Ingress, TrainLimits, VnetHdr};
use hostnet::poll::{PollFd, PollFlags, Waker, poll};
use hostnet::tap::{TapCapabilities, TapQueue};
use hostnet::udp::{RecvBatch, UdpSocket};

use super::Shared;
use super::sinks::{TapWriter, Underlay};

/// Reads from the TAP in one turn. With super-frames that is up to 4 MB, some milliseconds' work.
const TAP_BUDGET: usize = 64;
/// Receive calls on the underlay in one turn, each of up to a batch of runs.
const UDP_BUDGET: usize = 4;
/// Runs of datagrams in one receive call: with 64 KB each, half a megabyte, which fits the L2 cache.
const RUNS: usize = 8;
/// The longest read: the header, and a frame of 64 KB with its Ethernet header and VLAN tags.
const READ_LEN: usize = VnetHdr::LEN + 65_536 + 22;
/// How long a worker sleeps at most, so that its tick shows that it lives.
const SLEEP: Duration = Duration::from_secs(1);

/// The descriptors that a worker owns.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) queue: TapQueue,
    pub(super) rx: UdpSocket,
    pub(super) tx: Vec<UdpSocket>,
    pub(super) waker: Arc<Waker>,
}

#[derive(Debug)]
pub(super) struct Worker {
    parts: Parts,
    shared: Arc<Shared>,
    counters: Arc<Counters>,
    tick: Arc<AtomicU32>,
    egress: Egress,
    ingress: Ingress,
    buffer: Box<[u8]>,
    batch: RecvBatch,
}

impl Worker {
    pub(super) fn new(
        parts: Parts,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        tick: Arc<AtomicU32>,
        tap: TapCapabilities,
        limits: TrainLimits,
    ) -> Self {
        Self {
            egress: Egress::new(parts.tx.len(), limits),
            ingress: Ingress::new(tap.csum && tap.tso4 && tap.tso6, tap.uso),
            parts,
            shared,
            counters,
            tick,
            buffer: vec![0; READ_LEN].into_boxed_slice(),
            batch: RecvBatch::new(RUNS),
        }
    }

    pub(super) fn run(mut self) {
        while !self.shared.stop.load(Relaxed) {
            self.tick.store(self.shared.now(), Relaxed);
            let to_underlay = self.drain_tap();
            let to_tap = self.drain_underlay();
            if !to_underlay && !to_tap {
                self.sleep();
            }
        }
    }

    /// Waits until there is something to do.
    fn sleep(&self) {
        let Parts {
            queue, rx, waker, ..
        } = &self.parts;
        let mut ready = [queue.as_fd(), rx.as_fd(), waker.as_fd()]
            .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        if let Err(error) = poll(&mut ready, Some(SLEEP)) {
            tracing::error!(%error, "poll failed");
        }
        waker.reset();
    }

    /// Carries frames from the TAP to the underlay. Whether there were any.
    fn drain_tap(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let forwarding = shared.forwarding.load();
        let mut underlay = Underlay {
            sockets: &self.parts.tx,
            counters: &self.counters,
            segment: &shared.segment,
        };
        let mut tap = TapWriter {
            queue: &self.parts.queue,
            counters: &self.counters,
        };
        self.egress.begin(&forwarding, &shared.macs, shared.now());
        let mut any = false;
        for _ in 0..TAP_BUDGET {
            match self.parts.queue.read(&mut self.buffer) {
                Ok(len) => {
                    any = true;
                    let read = &mut self.buffer[..len];
                    let (macs, counters) = (&shared.macs, &*self.counters);
                    self.egress
                        .frame(read, &forwarding, macs, counters, &mut underlay, &mut tap);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    // EIO while the TAP is down, EBADFD when its interface was deleted: neither
                    // is this worker's to mend, and neither must make it spin.
                    tracing::debug!(%error, "read from the TAP failed");
                    break;
                }
            }
        }
        self.egress.flush(&mut underlay);
        any
    }

    /// Carries datagrams from the underlay to the TAP. Whether there were any.
    fn drain_underlay(&mut self) -> bool {
        let shared = Arc::clone(&self.shared);
        let forwarding = shared.forwarding.load();
        let mut tap = TapWriter {
            queue: &self.parts.queue,
            counters: &self.counters,
        };
        let mut any = false;
        for _ in 0..UDP_BUDGET {
            match self.parts.rx.recv_batch(&mut self.batch) {
                Ok(0) => break,
                Ok(_) => any = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => {
                    // An ICMP error for an earlier datagram, taken off the socket by this call.
                    tracing::debug!(%error, "receive from the underlay failed");
                    break;
                }
            }
            let received = self.batch.iter().map(|item| Datagram {
                bytes: item.bytes,
                segment: item.segment.map_or(0, usize::from),
                source: item.source,
            });
            let (macs, counters) = (&shared.macs, &*self.counters);
            self.ingress.batch(
                received,
                &forwarding,
                macs,
                counters,
                shared.now(),
                &mut tap,
            );
        }
        any
    }
}
