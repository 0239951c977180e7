//! One worker's loop.

use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use fastpath::{
    Counters, Datagram, DropReason, Egress, Encapsulation, Forwarding, Ingress, Outlets, TapTakes,
    TrainLimits, VnetHdr,
};
use hostnet::poll::{PollFd, PollFlags, Waker, poll};
use hostnet::tap::{TapCapabilities, TapQueue};
use hostnet::udp::RecvBatch;
use tokio::sync::mpsc;
use wire::flow;

use super::Shared;
use super::keys::{SealEvent, Sealers};
use super::moderation::Moderation;
use super::probes::{ProbeArrival, ProbeQueue};
use super::sinks::{Sockets, TapWriter, Underlay};
use super::spin::{Habit, Wait};

/// Reads from the TAP in one turn.
const TAP_BUDGET: u32 = 64;
/// Datagrams that these may make: 64 full super-frames at the ordinary MTU, some milliseconds' work.
/// A pod that asks for tiny segments gets no more.
const DATAGRAM_BUDGET: usize = 64 * 46;
/// Receive calls on the underlay in one turn.
const UDP_BUDGET: usize = 4;
/// Runs of datagrams in one receive call. Small packets of many flows are runs of one each, and many
/// in a call save calls. Full runs are 64 KB each, and what is received must still be in the core's
/// cache (1 MB and up) when it is written to the TAP.
const SMALL_RUNS: usize = 64;
const FULL_RUNS: usize = 4;
/// Mean bytes of a run from which on runs count as full.
const FULL: usize = 8 << 10;
/// The longest read: the header, and a frame of 64 KB with its Ethernet header and VLAN tags.
const READ_LEN: usize = VnetHdr::LEN + 65_536 + 22;
/// Datagrams that are sent at once, without waiting for more.
const HALF_TRAIN: usize = 32;
/// How long a worker sleeps at most, so that its tick shows that it lives.
const SLEEP: Duration = Duration::from_secs(1);

/// The descriptors that a worker uses.
#[derive(Debug)]
pub(super) struct Parts {
    /// All queues of the TAP; the worker reads its own and writes to any.
    pub(super) queues: Arc<[TapQueue]>,
    /// Which is its own.
    pub(super) own: usize,
    pub(super) sockets: Sockets,
    /// Where probes go.
    pub(super) probes: mpsc::Sender<ProbeArrival>,
    /// Where news of keys go.
    pub(super) seals: mpsc::Sender<SealEvent>,
    /// The keys of all peers, where nothing may leave in the clear.
    pub(super) sealers: Option<Arc<Sealers>>,
    /// Where goes what pods say of multicast groups.
    pub(super) said: mpsc::Sender<Vec<u8>>,
    pub(super) waker: Arc<Waker>,
}

impl Parts {
    /// Where trains leave, for the length of one batch.
    fn underlay<'a>(
        &'a self,
        forwarding: &'a Forwarding,
        counters: &'a Counters,
        segment: &'a AtomicBool,
    ) -> Underlay<'a> {
        Underlay::new(&self.sockets, forwarding, counters, &self.seals, segment)
    }
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
    /// For small runs and for full ones; which is used next follows from what came last.
    batches: [RecvBatch; 2],
    full: bool,
    moderation: Moderation,
    /// What the kernel had dropped for want of room in the receive buffers when it was last asked.
    dropped: [u32; 2],
    habit: Habit,
}

/// What may be read.
#[derive(Debug, Clone, Copy)]
struct Ready {
    tap: bool,
    vxlan: bool,
    sleeve: bool,
}

impl Ready {
    fn any(self) -> bool {
        self.tap || self.vxlan || self.sleeve
    }
}

/// What spinning has come to.
#[derive(Debug, Clone, Copy)]
enum Spun {
    /// The policy or the machine did not allow it.
    Not,
    /// There is something to do.
    Found(Ready),
    /// There was nothing.
    InVain,
}

/// The TAP's interface was deleted: there is nothing left to read from or write to.
#[derive(Debug)]
struct TapGone;

impl Worker {
    pub(super) fn new(
        parts: Parts,
        shared: Arc<Shared>,
        counters: Arc<Counters>,
        tick: Arc<AtomicU32>,
        tap: TapCapabilities,
        limits: TrainLimits,
    ) -> Self {
        let takes = TapTakes {
            csum: tap.csum,
            tcp: tap.csum && tap.tso4 && tap.tso6,
            udp: tap.uso,
        };
        Self {
            egress: Egress::new(parts.sockets.spread.len(), limits),
            ingress: Ingress::new(takes),
            parts,
            shared,
            counters,
            tick,
            buffer: vec![0; READ_LEN].into_boxed_slice(),
            batches: [RecvBatch::new(SMALL_RUNS), RecvBatch::new(FULL_RUNS)],
            full: false,
            moderation: Moderation::new(Instant::now()),
            dropped: [0; 2],
            habit: Habit::default(),
        }
    }

    /// Runs until told to stop, or until the TAP is gone; who looks at the thread sees which.
    pub(super) fn run(mut self) {
        if let Err(error) = hostnet::poll::wait_exactly() {
            tracing::debug!(%error, "short waits may be longer");
        }
        let mut ready = Ready {
            tap: true,
            vxlan: true,
            sleeve: true,
        };
        while !self.shared.stop.load(Relaxed) {
            let now = self.shared.now();
            if self.tick.swap(now, Relaxed) != now {
                self.count_dropped();
            }
            let worked = ready.any();
            if self.shared.resume.load(Relaxed) && self.shared.resume.swap(false, Relaxed) {
                self.resume();
            }
            // What stopped at its budget goes on next turn, without asking the kernel.
            ready.tap = ready.tap && self.drain_tap();
            ready.vxlan = ready.vxlan && self.drain_underlay(Encapsulation::Vxlan);
            ready.sleeve = ready.sleeve && self.drain_underlay(Encapsulation::Sleeve);
            if ready.any() {
                continue;
            }
            let began = Instant::now();
            let spun = match worked && self.habit.spins() {
                true => self.spin(began),
                false => Spun::Not,
            };
            if let Spun::Found(now) = spun {
                self.habit.waited(Wait::Spun);
                ready = now;
                continue;
            }
            match self.sleep() {
                Ok(now) => {
                    ready = now;
                    let time = began.elapsed();
                    self.habit.waited(match spun {
                        Spun::InVain => Wait::InVain(time),
                        Spun::Not | Spun::Found(_) => Wait::Slept(time),
                    });
                }
                Err(TapGone) => {
                    tracing::error!("the TAP was deleted: this worker ends");
                    return;
                }
            }
        }
    }

    /// Counts what the kernel has dropped for want of room since this was last asked, once a second.
    fn count_dropped(&mut self) {
        let Sockets { vxlan, sleeve, .. } = &self.parts.sockets;
        for (socket, before) in [vxlan, &**sleeve].into_iter().zip(&mut self.dropped) {
            if let Ok(dropped) = socket.dropped() {
                let since = dropped.wrapping_sub(*before);
                *before = dropped;
                let counters: &Counters = &self.counters;
                counters.drop(DropReason::UnderlayQueueFull, u64::from(since));
            }
        }
    }

    /// Asks for a moment whether there is something to do, if the policy and the machine allow it.
    fn spin(&self, began: Instant) -> Spun {
        let window = self.shared.spin.window;
        if window.is_zero() || !self.shared.free_core.is_free(began) {
            return Spun::Not;
        }
        loop {
            // That the TAP is gone is for the wait that follows to say.
            let Ok(ready) = self.wait(Duration::ZERO) else {
                return Spun::InVain;
            };
            let elapsed = began.elapsed();
            let found = ready.any();
            if found || elapsed >= window || self.shared.stop.load(Relaxed) {
                self.shared.free_core.add_spun(elapsed);
                return match found {
                    true => Spun::Found(ready),
                    false => Spun::InVain,
                };
            }
            // Whoever else wants this core has it.
            std::thread::yield_now();
        }
    }

    /// Waits until there is something to do.
    fn sleep(&self) -> Result<Ready, TapGone> {
        self.wait(SLEEP)
    }

    /// Waits for so long at most.
    fn wait(&self, longest: Duration) -> Result<Ready, TapGone> {
        let Parts {
            queues,
            own,
            sockets,
            waker,
            ..
        } = &self.parts;
        let mut polled = [
            queues[*own].as_fd(),
            sockets.vxlan.as_fd(),
            sockets.sleeve.as_fd(),
            waker.as_fd(),
        ]
        .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
        if let Err(error) = poll(&mut polled, Some(longest)) {
            tracing::error!(%error, "poll failed");
        }
        let [tap, vxlan, sleeve, woken] =
            polled.map(|fd| fd.revents().unwrap_or(PollFlags::empty()));
        // A TAP that is down shows no error here, only one that is no more.
        if tap.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL) {
            return Err(TapGone);
        }
        if !woken.is_empty() {
            waker.reset();
        }
        Ok(Ready {
            tap: !tap.is_empty(),
            vxlan: !vxlan.is_empty(),
            sleeve: !sleeve.is_empty(),
        })
    }

    /// Sends the frames that waited for a key that is there now.
    fn resume(&mut self) {
        let Self {
            parts,
            shared,
            counters,
            egress,
            ..
        } = self;
        let forwarding = shared.forwarding.load();
        let mut underlay = parts.underlay(&forwarding, counters, &shared.segment);
        egress.begin(&forwarding, &shared.macs, shared.now());
        egress.resume(&forwarding, counters, &mut underlay);
        egress.flush(&mut underlay);
    }

    /// Carries frames from the TAP to the underlay. Whether there may be more.
    fn drain_tap(&mut self) -> bool {
        let Self {
            parts,
            shared,
            counters,
            egress,
            buffer,
            moderation,
            ..
        } = self;
        let forwarding = shared.forwarding.load();
        let mut underlay = parts.underlay(&forwarding, counters, &shared.segment);
        let mut tap = TapWriter::new(&parts.queues, &shared.conversations, counters);
        egress.begin(&forwarding, &shared.macs, shared.now());
        let (mut reads, mut datagrams) = (0, 0);
        let (mut patient, mut counted) = (true, 0);
        let more = loop {
            if reads == TAP_BUDGET || datagrams >= DATAGRAM_BUDGET {
                break true;
            }
            match parts.queues[parts.own].read(buffer) {
                Ok(len) => {
                    let read = &mut buffer[..len];
                    if shared.conversations.matter()
                        && let Some(frame) = read.get(VnetHdr::LEN..)
                    {
                        let conversation = flow::symmetric(frame);
                        shared.conversations.left_by(conversation, parts.own);
                    }
                    let macs = &shared.macs;
                    datagrams +=
                        egress.frame(read, &forwarding, macs, counters, &mut underlay, &mut tap);
                    reads += 1;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    moderation.count(reads - counted, Instant::now());
                    counted = reads;
                    match moderation.hold() {
                        // Once in a turn, and only for a train that is not half full yet.
                        Some(hold) if patient && datagrams < HALF_TRAIN => {
                            patient = false;
                            wait_for(&parts.waker, hold);
                        }
                        _ => break false,
                    }
                }
                Err(error) => {
                    // EIO while the TAP is down, EBADFD when it is gone, which poll tells.
                    tracing::debug!(%error, "read from the TAP failed");
                    break false;
                }
            }
        };
        egress.flush(&mut underlay);
        for message in egress.said() {
            if parts.said.try_send(message.to_vec()).is_err() {
                counters.lost_group_messages(1);
            }
        }
        more
    }

    /// Carries datagrams from the underlay to the TAP, or on to other peers. Whether there may be
    /// more.
    fn drain_underlay(&mut self, encapsulation: Encapsulation) -> bool {
        let Self {
            parts,
            shared,
            counters,
            ingress,
            batches,
            full,
            ..
        } = self;
        let forwarding = shared.forwarding.load();
        let mut underlay = parts.underlay(&forwarding, counters, &shared.segment);
        let mut tap = TapWriter::new(&parts.queues, &shared.conversations, counters);
        let mut control = ProbeQueue {
            queue: &parts.probes,
            seals: &parts.seals,
            sealers: parts.sealers.as_deref(),
            counters,
        };
        let socket = match encapsulation {
            Encapsulation::Vxlan => &parts.sockets.vxlan,
            Encapsulation::Sleeve => &*parts.sockets.sleeve,
        };
        let mut more = true;
        for _ in 0..UDP_BUDGET {
            let batch = &mut batches[usize::from(*full)];
            match socket.recv_batch(batch) {
                Ok(received) => {
                    more = received == batch.capacity();
                    let bytes: usize = batch.iter().map(|item| item.bytes.len()).sum();
                    *full = bytes >= received * FULL;
                }
                Err(error) => {
                    if error.kind() != ErrorKind::WouldBlock {
                        // An ICMP error for an earlier datagram, taken off the socket by this call.
                        tracing::debug!(%error, "receive from the underlay failed");
                    }
                    more = false;
                    break;
                }
            }
            let received = batch.iter_mut().map(|item| Datagram {
                bytes: item.bytes,
                segment: item.segment.map_or(0, usize::from),
                source: item.source,
                encapsulation,
            });
            ingress.batch(
                received,
                &forwarding,
                &shared.macs,
                counters,
                shared.now(),
                &mut Outlets {
                    tap: &mut tap,
                    underlay: &mut underlay,
                    control: &mut control,
                },
            );
            if !more {
                break;
            }
        }
        if tap.refused_joined && ingress.stop_joining() {
            tracing::warn!("the TAP refuses joined frames: each is written by itself from now on");
        }
        more
    }
}

/// Sleeps, unless woken.
fn wait_for(waker: &Waker, time: Duration) {
    let mut woken = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
    // Not having waited does no harm.
    let _ = poll(&mut woken, Some(time));
}
