//! What is counted.

/// Counts since the start. All that a table or a rule turns away is counted here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dials begun.
    pub dials: u64,
    /// Dials that reached nobody.
    pub dials_failed: u64,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections refused because too many were in their handshake, or the table of peers was full.
    pub refused_busy: u64,
    /// Connections refused at [`Limits::connections`](crate::Limits::connections).
    pub refused_full: u64,
    /// Connections refused for what the other side is: version, network, identity, name.
    pub refused: u64,
    /// Connections on which the other side refused this node.
    pub refused_by_peer: u64,
    /// Connections to this node itself.
    pub dialled_myself: u64,
    /// Handshakes completed.
    pub established: u64,
    /// Connections replaced by a newer one with the same peer.
    pub replaced: u64,
    /// Connections closed because nobody needed them.
    pub spared: u64,
    /// Messages that cannot be read or were out of place.
    pub malformed: u64,
    /// Connections closed for silence.
    pub silent: u64,
    /// Messages of unknown kinds passed over.
    pub unknown_messages: u64,
    /// Peers left out because the table was full.
    pub peers_full: u64,
    /// Peers that were out of reach and made room for another.
    pub peers_evicted: u64,
    /// Targets left out because the table was full.
    pub targets_full: u64,
    /// Versions of the own entry.
    pub published: u64,
    /// Entries sent.
    pub entries_sent: u64,
    /// Entries received that were news.
    pub entries_taken: u64,
    /// Entries received that were none.
    pub entries_known: u64,
    /// Versions that neighbours announced and this node had.
    pub announced_known: u64,
    /// Entries that were asked for and came too late, or not: another neighbour was asked.
    pub entries_late: u64,
    /// Entries that were refused: they have another key than the one of that identity.
    pub entries_refused: u64,
    /// Entries that cannot be read.
    pub malformed_entries: u64,
    /// Tables of neighbours that were found to be another than this node's.
    pub repairs: u64,
    /// Gossip messages sent.
    pub gossip_sent: u64,
    /// Gossip messages received.
    pub gossip_received: u64,
    /// Gossip messages handed on to others.
    pub gossip_carried: u64,
    /// Broadcasts that had come already.
    pub gossip_repeated: u64,
    /// Gossip messages dropped: there is no way to their peer, or they have gone too far.
    pub gossip_undeliverable: u64,
    /// Gossip messages dropped: their origin is not known, or is not the first of its name.
    pub gossip_unknown: u64,
    /// Gossip messages not sent: over [`MAX_GOSSIP`](crate::MAX_GOSSIP).
    pub gossip_too_large: u64,
}

impl Counters {
    /// Names, as metrics and status show them, and values.
    pub fn named(&self) -> [(&'static str, u64); 33] {
        [
            ("mesh_dials", self.dials),
            ("mesh_dials_failed", self.dials_failed),
            ("mesh_accepted", self.accepted),
            ("mesh_refused_busy", self.refused_busy),
            ("mesh_refused_full", self.refused_full),
            ("mesh_refused", self.refused),
            ("mesh_refused_by_peer", self.refused_by_peer),
            ("mesh_dialled_myself", self.dialled_myself),
            ("mesh_established", self.established),
            ("mesh_replaced", self.replaced),
            ("mesh_spared", self.spared),
            ("mesh_malformed", self.malformed),
            ("mesh_silent", self.silent),
            ("mesh_unknown_messages", self.unknown_messages),
            ("mesh_peers_full", self.peers_full),
            ("mesh_peers_evicted", self.peers_evicted),
            ("mesh_targets_full", self.targets_full),
            ("mesh_published", self.published),
            ("mesh_entries_sent", self.entries_sent),
            ("mesh_entries_taken", self.entries_taken),
            ("mesh_entries_known", self.entries_known),
            ("mesh_announced_known", self.announced_known),
            ("mesh_entries_late", self.entries_late),
            ("mesh_entries_refused", self.entries_refused),
            ("mesh_malformed_entries", self.malformed_entries),
            ("mesh_repairs", self.repairs),
            ("mesh_gossip_sent", self.gossip_sent),
            ("mesh_gossip_received", self.gossip_received),
            ("mesh_gossip_carried", self.gossip_carried),
            ("mesh_gossip_repeated", self.gossip_repeated),
            ("mesh_gossip_undeliverable", self.gossip_undeliverable),
            ("mesh_gossip_unknown", self.gossip_unknown),
            ("mesh_gossip_too_large", self.gossip_too_large),
        ]
    }
}
