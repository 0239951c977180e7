//! Counters of a worker and of a link. Each is written by few threads and read by the status page,
//! so relaxed atomics do.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident = $label:literal,)*) => {
        /// Why a frame or datagram went no further. Each reason has a counter, shown in
        /// `weft status` and in the metrics under its label.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(usize)]
        pub enum DropReason { $($(#[$doc])* $name,)* }

        impl DropReason {
            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The reason in the metrics.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

drop_reasons! {
    /// A frame from the TAP shorter than an Ethernet header.
    TapRunt = "tap_runt",
    /// The kernel's offload header does not fit its frame, or asks for what was not offered.
    TapBadOffload = "tap_bad_offload",
    /// A source address that is a group's, or all zero.
    TapBadSource = "tap_bad_source",
    /// Spanning tree, LLDP and other frames that never leave their link (IEEE 802.1Q table 8-1).
    LinkLocal = "link_local",
    /// The destination sits on this node's bridge, which has delivered the frame already.
    SamePort = "same_port",
    /// No peer to send to.
    NoPeer = "no_peer",
    /// Longer than the link takes, and not to be fragmented: the sender was told, if it may be.
    TooBig = "too_big",
    /// The underlay socket refused the datagram for the moment (ENOBUFS, EAGAIN).
    UnderlayBusy = "underlay_busy",
    /// The underlay refused the datagram as too long (EMSGSIZE).
    UnderlayTooBig = "underlay_too_big",
    /// The underlay has no way to the peer, or another send error.
    UnderlayError = "underlay_error",
    /// A datagram too short for its VXLAN header.
    VxlanTruncated = "vxlan_truncated",
    /// A datagram that is not VXLAN: its I flag is clear.
    VxlanNoVni = "vxlan_no_vni",
    /// A datagram of another virtual network.
    VxlanForeignVni = "vxlan_foreign_vni",
    /// A datagram too short for its sleeve header.
    SleeveTruncated = "sleeve_truncated",
    /// A sleeve datagram for this node of a kind that it does not know.
    SleeveUnknownKind = "sleeve_unknown_kind",
    /// A sleeve datagram whose origin is no peer to which there is a link.
    SleeveUnknownPeer = "sleeve_unknown_peer",
    /// A datagram to be relayed that has passed as many relays as it may.
    HopLimit = "hop_limit",
    /// A datagram to be relayed to a peer that sleeve does not reach from here.
    NoRoute = "no_route",
    /// A datagram to be relayed whose way leads back to where it came from: this node and the one
    /// before do not agree on the routes yet.
    RouteBack = "route_back",
    /// A probe for which the router's queue had no room.
    ProbeQueueFull = "probe_queue_full",
    /// A datagram from an address that is no peer's.
    UnknownSource = "unknown_source",
    /// A decapsulated frame shorter than an Ethernet header.
    PeerRunt = "peer_runt",
    /// A decapsulated frame whose source address is a group's, or all zero; a sealed probe in the name of
    /// another than who sealed it.
    PeerBadSource = "peer_bad_source",
    /// What was left of a sealed datagram of several frames when the length of one passed its end.
    PeerBadAggregate = "peer_bad_aggregate",
    /// A frame for a peer that there was no key for: it waited too long, newer ones took its place, or
    /// its link went.
    SealNoKey = "seal_no_key",
    /// A message of a handshake, or news of a key, that the session layer was too busy for.
    HandshakeQueueFull = "handshake_queue_full",
    /// A frame in the clear where all must be sealed.
    PlainRefused = "plain_refused",
    /// A sealed datagram too short for its counter and tag.
    SealTruncated = "seal_truncated",
    /// A sealed datagram from a peer with which there is no session.
    SealNoSession = "seal_no_session",
    /// A datagram sealed with a key that this node does not have, or has no more.
    SealUnknownEpoch = "seal_unknown_epoch",
    /// A sealed datagram that was forged or damaged.
    SealBadTag = "seal_bad_tag",
    /// A sealed datagram that was opened before.
    SealReplayed = "seal_replayed",
    /// A sealed datagram so late that it cannot be told from one that was opened before.
    SealTooOld = "seal_too_old",
    /// A TCP super-frame that a peer's kernel left whole, but whose checksum is wrong.
    PeerTooBig = "peer_too_big",
    /// The TAP refused the frame (it is down, or the kernel had no memory).
    TapRefused = "tap_refused",
    /// The kernel found the TAP's queue full: pods send faster than a worker reads.
    TapQueueFull = "tap_queue_full",
    /// The kernel found the receive buffer full: peers send faster than a worker reads. A train that
    /// the kernel joined counts once.
    UnderlayQueueFull = "underlay_queue_full",
}

/// A counter for each [`DropReason`].
#[derive(Debug)]
struct Drops([AtomicU64; DropReason::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; DropReason::ALL.len()])
    }
}

/// A worker's counters. Only the worker's own thread writes them.
#[derive(Debug, Default)]
pub struct Counters {
    drops: Drops,
    /// Frames read from the TAP, a super-frame counting once.
    pub(crate) tap_rx_frames: AtomicU64,
    /// Frames written to the TAP, a joined one counting once.
    pub(crate) tap_tx_frames: AtomicU64,
    /// Datagrams sent.
    pub(crate) tx_datagrams: AtomicU64,
    /// System calls that sent them.
    pub(crate) tx_trains: AtomicU64,
    /// Datagrams received.
    pub(crate) rx_datagrams: AtomicU64,
    /// Datagrams received that held several frames.
    pub(crate) rx_aggregates: AtomicU64,
    /// Datagrams of others that were passed on.
    pub(crate) relayed_datagrams: AtomicU64,
    /// Probes that arrived.
    pub(crate) probes: AtomicU64,
    /// Frames that went to all peers: broadcast, multicast, unknown unicast.
    pub(crate) flooded: AtomicU64,
    /// Questions for an address that went to its owner's node alone.
    pub(crate) asked_owner: AtomicU64,
    /// Questions for an address of this node, which went nowhere else.
    pub(crate) asked_here: AtomicU64,
    /// Questions for an address that went to all, because its owner's node has not answered.
    pub(crate) asked_all: AtomicU64,
    /// Multicast frames that went to those who want them, and not to all.
    pub(crate) multicast_selected: AtomicU64,
    /// What pods said of groups.
    pub(crate) group_messages: AtomicU64,
    /// What they said that was too much to look at.
    pub(crate) group_messages_lost: AtomicU64,
    /// Senders that were told that their packet is too big for its link.
    pub(crate) too_big_reports: AtomicU64,
    /// Frames whose checksum was completed here.
    pub(crate) checksums_completed: AtomicU64,
    /// Datagrams whose inner checksum was left partial: by a peer's kernel, or because they were sealed.
    pub(crate) partial_checksums: AtomicU64,
    /// Datagrams whose inner checksum is wrong; passed on unjoined, for the receiver to judge.
    pub(crate) bad_checksums: AtomicU64,
}

impl Counters {
    /// Counts `frames` that went no further.
    pub fn drop(&self, reason: DropReason, frames: u64) {
        add(&self.drops.0[reason as usize], frames);
    }

    /// Counts datagrams that were sent.
    pub fn sent_datagrams(&self, datagrams: u64) {
        add(&self.tx_datagrams, datagrams);
    }

    /// Counts system calls that sent datagrams.
    pub fn sent_trains(&self, trains: u64) {
        add(&self.tx_trains, trains);
    }

    /// Counts messages about groups that nobody has looked at.
    pub fn lost_group_messages(&self, messages: u64) {
        add(&self.group_messages_lost, messages);
    }

    /// Frames dropped for a reason so far.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops.0[reason as usize].load(Relaxed)
    }

    /// Every counter with its name; drops are named `drop_` and their label.
    pub fn each(&self, mut see: impl FnMut(&str, Option<DropReason>, u64)) {
        for (name, counter) in [
            ("tap_rx_frames", &self.tap_rx_frames),
            ("tap_tx_frames", &self.tap_tx_frames),
            ("tx_datagrams", &self.tx_datagrams),
            ("tx_trains", &self.tx_trains),
            ("rx_datagrams", &self.rx_datagrams),
            ("rx_aggregates", &self.rx_aggregates),
            ("relayed_datagrams", &self.relayed_datagrams),
            ("probes", &self.probes),
            ("flooded", &self.flooded),
            ("asked_owner", &self.asked_owner),
            ("asked_here", &self.asked_here),
            ("asked_all", &self.asked_all),
            ("multicast_selected", &self.multicast_selected),
            ("group_messages", &self.group_messages),
            ("group_messages_lost", &self.group_messages_lost),
            ("too_big_reports", &self.too_big_reports),
            ("checksums_completed", &self.checksums_completed),
            ("partial_checksums", &self.partial_checksums),
            ("bad_checksums", &self.bad_checksums),
        ] {
            see(name, None, counter.load(Relaxed));
        }
        for &reason in DropReason::ALL {
            see(reason.label(), Some(reason), self.dropped(reason));
        }
    }
}

/// Adds to a counter that only this thread writes: no locked instruction is needed.
pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// What crossed one link, counted in frames of the inner network. All workers write it, once for
/// each train.
#[derive(Debug, Default)]
pub struct LinkCounters {
    tx_frames: AtomicU64,
    tx_bytes: AtomicU64,
    rx_frames: AtomicU64,
    rx_bytes: AtomicU64,
    too_big: AtomicU64,
}

/// A reading of [`LinkCounters`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkTotals {
    /// Frames sent.
    pub tx_frames: u64,
    /// Bytes of these frames, Ethernet header included.
    pub tx_bytes: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Bytes of these frames, Ethernet header included.
    pub rx_bytes: u64,
    /// Datagrams that the underlay refused as too long.
    pub too_big: u64,
}

impl LinkCounters {
    pub(crate) fn sent(&self, frames: u64, bytes: u64) {
        self.tx_frames.fetch_add(frames, Relaxed);
        self.tx_bytes.fetch_add(bytes, Relaxed);
    }

    pub(crate) fn received(&self, frames: u64, bytes: u64) {
        self.rx_frames.fetch_add(frames, Relaxed);
        self.rx_bytes.fetch_add(bytes, Relaxed);
    }

    /// Counts datagrams that the underlay refused as too long.
    pub fn too_big(&self, datagrams: u64) {
        self.too_big.fetch_add(datagrams, Relaxed);
    }

    /// The counts so far.
    pub fn totals(&self) -> LinkTotals {
        LinkTotals {
            tx_frames: self.tx_frames.load(Relaxed),
            tx_bytes: self.tx_bytes.load(Relaxed),
            rx_frames: self.rx_frames.load(Relaxed),
            rx_bytes: self.rx_bytes.load(Relaxed),
            too_big: self.too_big.load(Relaxed),
        }
    }
}
