//! The data path's edge: workers, each an OS thread with a TAP queue, its UDP sockets, its buffers
//! and its counters, around the pure engine of `fastpath`.
//!
//! A worker sleeps in `poll` until the TAP, the underlay or its waker has something. It then drains
//! both in turn, a bounded number of reads at a time so that a busy direction cannot starve the
//! other, and goes back to sleep when neither had anything. Nothing here is async.

mod conversations;
mod keys;
mod links;
mod moderation;
mod probes;
mod schedule;
mod sinks;
mod spin;
mod worker;

use std::collections::BTreeMap;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use fastpath::{
    Counters, DropReason, Forwarding, LinkTotals, MacTable, OwnAddress, OwnerMap, Port,
    TrainLimits, VnetHdr,
};
use hostnet::netlink::Netlink;
use hostnet::poll::Waker;
use hostnet::tap::{Offloads, Tap, TapCapabilities, TapOptions, TapQueue};
use hostnet::udp::{UdpOptions, UdpSocket};
use mesh::Groups;
use tokio::sync::mpsc;
use wire::{Mac, PeerId, Vni};

use conversations::Conversations;
use keys::Sealers;
pub use keys::{QUEUE as SEAL_QUEUE, SealEvent, SealHandle};
use links::Links;
pub use links::{LinkKey, LinkTarget};
pub use probes::{ProbeArrival, ProbeSendError, Prober, QUEUE as PROBE_QUEUE};
pub use schedule::WORKER_NICE;
use sinks::Sockets;
use spin::FreeCore;
pub use spin::SpinPolicy;
use worker::Worker;

/// What the data path is made of.
#[derive(Debug, Clone)]
pub struct DatapathConfig {
    /// The TAP's name.
    pub tap: String,
    /// TAP queues, and so workers.
    pub queues: usize,
    /// The address, usually any, and the UDP port on which VXLAN arrives. It leaves from the same
    /// address and from ports of the kernel's choice.
    pub listen: SocketAddr,
    /// As `listen`, of sleeve, which leaves from there too.
    pub sleeve: SocketAddr,
    /// This node.
    pub me: PeerId,
    /// The virtual network.
    pub vni: Vni,
    /// How long a MAC is remembered after it was last seen.
    pub mac_age: Duration,
    /// Whether all is sealed: nothing leaves and nothing is taken in the clear but where a link says
    /// so.
    pub sealed: bool,
    /// Whether to ask the kernel for its offloads at all.
    pub offloads: bool,
    /// When workers ask for work instead of sleeping.
    pub spin: SpinPolicy,
    /// Nice value of the workers; none: as the calling thread.
    pub worker_nice: Option<i8>,
    /// Whether each worker stays on a processor of its own.
    pub pin_workers: bool,
}

/// MAC addresses that are remembered, in all: 64 bytes each make 4 MB.
const MAC_CAPACITY: usize = 65_536;
/// Messages about multicast groups that wait to be read; more are dropped and counted. A hundred pods
/// answer a query within two seconds, each with a message or two.
pub const SAID_QUEUE: usize = 512;
/// Sending sockets of a worker. Their ports spread flows over the underlay's ECMP paths and the
/// receivers' queues. With more, small packets of many flows would share fewer trains.
const SOCKETS: usize = 4;
/// Bytes that a receiving socket may hold: 50 ms of a 10 Gbit/s link, which is longer than a worker
/// is off its core on a busy node. The kernel counts twice what is asked for.
const RECEIVE_BUFFER: usize = 64 << 20;
/// Bytes that a sending socket may hold: 64 full trains.
const SEND_BUFFER: usize = 4 << 20;

/// The running data path.
#[derive(Debug)]
pub struct Datapath {
    /// The TAP's name.
    tap: String,
    shared: Arc<Shared>,
    links: Links,
    /// The workers' own, by which pods can be told something.
    queues: Arc<[TapQueue]>,
    prober: Prober,
    capabilities: Vec<String>,
    workers: Vec<Running>,
}

/// What workers and the control plane share.
#[derive(Debug)]
struct Shared {
    forwarding: ArcSwap<Forwarding>,
    macs: MacTable,
    stop: AtomicBool,
    /// Whether trains leave with `UDP_SEGMENT`; lowered by the first worker that is refused.
    segment: AtomicBool,
    conversations: Conversations,
    spin: SpinPolicy,
    free_core: FreeCore,
    /// Keys have come that frames wait for.
    resume: AtomicBool,
    started: Instant,
}

impl Shared {
    /// Seconds since the start: the MAC table's clock.
    #[expect(clippy::cast_possible_truncation, reason = "wraps after 136 years")]
    fn now(&self) -> u32 {
        self.started.elapsed().as_secs() as u32
    }
}

/// A worker's thread and what can be seen of it.
#[derive(Debug)]
struct Running {
    thread: JoinHandle<()>,
    waker: Arc<Waker>,
    counters: Arc<Counters>,
    /// Second of the last turn of its loop.
    tick: Arc<AtomicU32>,
}

/// A learned address, for the status page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MacView {
    /// The address.
    pub mac: Mac,
    /// The link behind which it is; `None` on this node.
    pub link: Option<LinkKey>,
    /// Since it was last seen.
    pub age: Duration,
}

impl Datapath {
    /// Opens the TAP and the sockets in the calling thread's network namespace and starts the
    /// workers. The TAP is down and on no bridge yet. Probes that arrive, news of keys, and what pods
    /// say of multicast groups go into the queues.
    ///
    /// # Errors
    /// The TAP cannot be made, or a port is taken; the text says what to do.
    pub fn start(
        config: &DatapathConfig,
        probes: &mpsc::Sender<ProbeArrival>,
        seals: &mpsc::Sender<SealEvent>,
        said: &mpsc::Sender<Vec<u8>>,
    ) -> anyhow::Result<Self> {
        hostnet::udp::assert_port_free(config.listen)?;
        hostnet::udp::assert_port_free(config.sleeve)?;
        let mut tap = Tap::open(&TapOptions {
            name: &config.tap,
            queues: config.queues,
            vnet_hdr: true,
            offloads: if config.offloads {
                Offloads::ALL
            } else {
                Offloads::NONE
            },
        })?;
        let tap_capabilities = tap.capabilities();
        let sealers = config.sealed.then(Arc::<Sealers>::default);
        let links = Links::new(config.vni, config.me, sealers.clone());
        let forwarding = links.initial();
        let started = Instant::now();
        let spin = config.spin.granted();
        let schedule = config.worker_nice.and_then(schedule::granted);
        let shared = Arc::new(Shared {
            forwarding: ArcSwap::from_pointee(forwarding),
            macs: MacTable::new(MAC_CAPACITY),
            stop: AtomicBool::new(false),
            segment: AtomicBool::new(config.offloads),
            resume: AtomicBool::new(false),
            conversations: Conversations::new(tap_capabilities.queues),
            spin,
            free_core: FreeCore::new(started),
            started,
        });

        let processors = match config.pin_workers {
            true => hostnet::affinity::allowed().context("ask which processors may be used")?,
            false => Vec::new(),
        };
        let mut capabilities = labels(tap_capabilities);
        capabilities.extend((!processors.is_empty()).then(|| "pinned".to_owned()));
        capabilities.extend((spin != SpinPolicy::OFF).then(|| "spin".to_owned()));
        capabilities.extend(schedule.map(|schedule| format!("nice={}", schedule.nice)));
        let (mut workers, mut prober) = (Vec::new(), None);
        let queues: Arc<[TapQueue]> = tap.take_queues().into();
        for own in 0..queues.len() {
            let sockets = open_sockets(config)?;
            if own == 0 {
                let (tx, rx) = (sockets.spread[0].capabilities(), &sockets.vxlan);
                shared.segment.store(config.offloads && tx.gso, Relaxed);
                capabilities.extend((config.offloads && tx.gso).then(|| "udp-gso".to_owned()));
                capabilities.extend(rx.capabilities().gro.then(|| "udp-gro".to_owned()));
            }
            prober.get_or_insert_with(|| Prober {
                vni: config.vni,
                me: config.me,
                shared: Arc::clone(&shared),
                vxlan: Arc::clone(&sockets.spread[0]),
                sleeve: Arc::clone(&sockets.sleeve),
                sealers: sealers.clone(),
                seals: seals.clone(),
            });
            let waker = Arc::new(Waker::new().context("make a worker's event descriptor")?);
            let counters = Arc::new(Counters::default());
            let tick = Arc::new(AtomicU32::new(0));
            let worker = Worker::new(
                worker::Parts {
                    queues: Arc::clone(&queues),
                    own,
                    sockets,
                    probes: probes.clone(),
                    seals: seals.clone(),
                    sealers: sealers.clone(),
                    said: said.clone(),
                    waker: Arc::clone(&waker),
                },
                Arc::clone(&shared),
                Arc::clone(&counters),
                Arc::clone(&tick),
                tap_capabilities,
                TrainLimits::default(),
            );
            // With more workers than processors some share one.
            let cpu = processors.get(own % processors.len().max(1)).copied();
            let thread = std::thread::Builder::new()
                .name(format!("worker-{own}"))
                .spawn(move || {
                    if let Some(cpu) = cpu
                        && let Err(error) = hostnet::affinity::pin(cpu)
                    {
                        tracing::warn!(cpu, %error, "a worker could not be pinned");
                    }
                    if let Some(schedule) = schedule
                        && let Err(error) = hostnet::schedule::batch(schedule)
                    {
                        tracing::warn!(?schedule, %error, "a worker is scheduled as any thread");
                    }
                    worker.run();
                })
                .context("start a worker thread")?;
            workers.push(Running {
                thread,
                waker,
                counters,
                tick,
            });
        }
        let prober = prober.context("the TAP has no queue")?;
        Ok(Self {
            tap: tap.name().to_owned(),
            shared,
            links,
            queues,
            prober,
            capabilities,
            workers,
        })
    }

    /// Says who tells pods that a packet is too big, once the bridge has an address.
    pub fn set_own(&self, own: OwnAddress) {
        self.links.set_own(own, |forwarding| {
            self.shared.forwarding.store(Arc::new(forwarding))
        });
    }

    /// Says who owns which addresses: whom pods' questions for them go to.
    pub fn set_owners(&self, owners: Arc<OwnerMap>) {
        self.links.set_owners(owners, |forwarding| {
            self.shared.forwarding.store(Arc::new(forwarding));
        });
    }

    /// Says which multicast groups nodes want; none of an identity: this node's pods.
    pub fn set_groups(&self, wanted: impl IntoIterator<Item = (Option<PeerId>, Groups)>) {
        self.links.set_groups(wanted, |forwarding| {
            self.shared.forwarding.store(Arc::new(forwarding));
        });
    }

    /// Sends a frame to this node's pods, as if another station had.
    ///
    /// # Errors
    /// The TAP does not take it: it is down, or the kernel has no memory.
    pub fn tell_pods(&self, frame: &[u8]) -> std::io::Result<()> {
        let header = VnetHdr::PLAIN.bytes();
        let parts = [IoSlice::new(&header), IoSlice::new(frame)];
        match self.queues.first() {
            Some(queue) => queue.write_vectored(&parts).map(drop),
            None => Ok(()),
        }
    }

    /// Replaces the links. MACs behind a link that is gone are forgotten.
    pub fn set_links(&self, targets: &[LinkTarget]) {
        self.links
            .replace(targets, &self.shared.macs, |forwarding| {
                self.shared.forwarding.store(Arc::new(forwarding));
            });
    }

    /// The session layer's hold; none where all is in the clear.
    pub fn seals(&self) -> Option<SealHandle> {
        Some(SealHandle {
            sealers: self.prober.sealers.clone()?,
            shared: Arc::clone(&self.shared),
            prober: self.prober.clone(),
            waker: Arc::clone(&self.workers.first()?.waker),
        })
    }

    /// Who sends probes, the way that frames go.
    pub fn prober(&self) -> Prober {
        self.prober.clone()
    }

    /// Forgets MACs that have not been seen for `age`. To be called every few seconds.
    #[expect(clippy::cast_possible_truncation, reason = "136 years")]
    pub fn expire_macs(&self, age: Duration) {
        self.shared
            .macs
            .expire(self.shared.now(), age.as_secs() as u32);
    }

    /// What crossed each link.
    pub fn links(&self) -> Vec<(LinkTarget, LinkTotals)> {
        self.links.totals()
    }

    /// The MAC table.
    pub fn macs(&self) -> Vec<MacView> {
        let entries = self.shared.macs.entries(self.shared.now());
        entries
            .into_iter()
            .map(|entry| MacView {
                mac: entry.mac,
                link: match entry.port {
                    Port::Local => None,
                    Port::Link(slot) => self.links.key(slot),
                },
                age: Duration::from_secs(u64::from(entry.age)),
            })
            .collect()
    }

    /// Number of learned MACs.
    pub fn mac_count(&self) -> usize {
        self.shared.macs.len()
    }

    /// All counters, summed over the workers. Drops are named `drop_` and their reason.
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let mut sums = BTreeMap::new();
        for worker in &self.workers {
            worker.counters.each(|name, reason, value| {
                let name = if reason.is_some() {
                    format!("drop_{name}")
                } else {
                    name.to_owned()
                };
                *sums.entry(name).or_insert(0) += value;
            });
        }
        sums.insert(
            format!("drop_{}", DropReason::TapQueueFull.label()),
            self.tap_dropped(),
        );
        if let Some(sealers) = &self.prober.sealers {
            let waited = format!("drop_{}", DropReason::SealNoKey.label());
            *sums.entry(waited).or_insert(0) += sealers.forsaken();
        }
        sums.insert("mac_table_refused".to_owned(), self.shared.macs.refused());
        sums.insert("mac_moves".to_owned(), self.shared.macs.moved());
        sums
    }

    /// Frames for the TAP that the kernel dropped because its queue was full.
    fn tap_dropped(&self) -> u64 {
        let stats = |netlink: &mut Netlink| Ok(netlink.link(&self.tap)?.map(|link| link.stats));
        match Netlink::open().and_then(|mut netlink| stats(&mut netlink)) {
            Ok(stats) => stats.map_or(0, |stats| stats.tx_dropped),
            Err(error) => {
                tracing::debug!(%error, "the TAP's counters cannot be read");
                0
            }
        }
    }

    /// Kernel features in use: `vnet-hdr`, `csum`, `tso4`, `tso6`, `tso-ecn`, `uso`,
    /// `udp-gso`, `udp-gro`; and `pinned` and `spin` where workers are told to.
    pub fn capabilities(&self) -> Vec<String> {
        let segment = self.shared.segment.load(Relaxed);
        self.capabilities
            .iter()
            .filter(|c| segment || *c != "udp-gso")
            .cloned()
            .collect()
    }

    /// Workers, and so TAP queues.
    pub fn queues(&self) -> usize {
        self.workers.len()
    }

    /// How long ago the slowest worker turned its loop. A sound one turns at least once a second.
    pub fn stalled_for(&self) -> Duration {
        let now = self.shared.now();
        let oldest = self
            .workers
            .iter()
            .map(|worker| worker.tick.load(Relaxed))
            .min();
        let dead = self
            .workers
            .iter()
            .any(|worker| worker.thread.is_finished());
        if dead {
            return Duration::MAX;
        }
        Duration::from_secs(u64::from(now.saturating_sub(oldest.unwrap_or(now))))
    }

    /// Stops the workers and closes everything; the TAP vanishes with its last queue.
    pub fn stop(self) {
        self.shared.stop.store(true, Relaxed);
        for worker in &self.workers {
            worker.waker.wake();
        }
        for worker in self.workers {
            if worker.thread.join().is_err() {
                tracing::error!("a worker had panicked");
            }
        }
    }
}

fn open_sockets(config: &DatapathConfig) -> anyhow::Result<Sockets> {
    let receives = |bind| UdpOptions {
        bind,
        reuse_port: true,
        recv_buffer: RECEIVE_BUFFER,
        send_buffer: 0,
        gro: config.offloads,
        dont_fragment: true,
        only_v6: false,
        // A socket that is polled for what arrives would be woken by errors too.
        report_errors: false,
    };
    let sends = UdpOptions {
        bind: SocketAddr::new(config.listen.ip(), 0),
        reuse_port: false,
        recv_buffer: 0,
        send_buffer: SEND_BUFFER,
        gro: false,
        report_errors: true,
        ..receives(config.listen)
    };
    let spread = (0..SOCKETS).map(|_| Ok(Arc::new(UdpSocket::bind(&sends)?)));
    Ok(Sockets {
        vxlan: UdpSocket::bind(&receives(config.listen))?,
        spread: spread.collect::<anyhow::Result<_>>()?,
        sleeve: Arc::new(UdpSocket::bind(&UdpOptions {
            send_buffer: SEND_BUFFER,
            ..receives(config.sleeve)
        })?),
    })
}

/// What the TAP's kernel granted, by name.
fn labels(tap: TapCapabilities) -> Vec<String> {
    let granted = [
        (tap.vnet_hdr, "vnet-hdr"),
        (tap.csum, "csum"),
        (tap.tso4, "tso4"),
        (tap.tso6, "tso6"),
        (tap.tso_ecn, "tso-ecn"),
        (tap.uso, "uso"),
    ];
    granted
        .into_iter()
        .filter(|(granted, _)| *granted)
        .map(|(_, name)| name.to_owned())
        .collect()
}
