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
    /// Connections refused because a table was full.
    pub refused_busy: u64,
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
    /// Connections closed for a message that cannot be read or was out of place.
    pub malformed: u64,
    /// Connections closed for silence.
    pub silent: u64,
    /// Messages of unknown kinds passed over.
    pub unknown_messages: u64,
    /// Peers left out because the table was full.
    pub peers_full: u64,
    /// Peers that were down and made room for another.
    pub peers_evicted: u64,
    /// Known addresses that made room for another.
    pub addresses_evicted: u64,
    /// Targets left out because the table was full.
    pub targets_full: u64,
    /// Gossip messages sent.
    pub gossip_sent: u64,
    /// Gossip messages received.
    pub gossip_received: u64,
    /// Gossip messages not sent: the peer has no control connection.
    pub gossip_undeliverable: u64,
    /// Gossip messages not sent: over [`MAX_GOSSIP`](crate::MAX_GOSSIP).
    pub gossip_too_large: u64,
}

impl Counters {
    /// Names, as metrics and status show them, and values.
    pub fn named(&self) -> [(&'static str, u64); 20] {
        [
            ("mesh_dials", self.dials),
            ("mesh_dials_failed", self.dials_failed),
            ("mesh_accepted", self.accepted),
            ("mesh_refused_busy", self.refused_busy),
            ("mesh_refused", self.refused),
            ("mesh_refused_by_peer", self.refused_by_peer),
            ("mesh_dialled_myself", self.dialled_myself),
            ("mesh_established", self.established),
            ("mesh_replaced", self.replaced),
            ("mesh_malformed", self.malformed),
            ("mesh_silent", self.silent),
            ("mesh_unknown_messages", self.unknown_messages),
            ("mesh_peers_full", self.peers_full),
            ("mesh_peers_evicted", self.peers_evicted),
            ("mesh_addresses_evicted", self.addresses_evicted),
            ("mesh_targets_full", self.targets_full),
            ("mesh_gossip_sent", self.gossip_sent),
            ("mesh_gossip_received", self.gossip_received),
            ("mesh_gossip_undeliverable", self.gossip_undeliverable),
            ("mesh_gossip_too_large", self.gossip_too_large),
        ]
    }
}
