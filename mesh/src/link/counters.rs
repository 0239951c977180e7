//! What is counted.

/// Counts since the start. All that a table or a rule turns away is counted here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Requests sent.
    pub requests_sent: u64,
    /// Answers sent.
    pub answers_sent: u64,
    /// Answers to this node's requests.
    pub answers_received: u64,
    /// Requests that no answer came to in time.
    pub unanswered: u64,
    /// Probes that cannot be read, or are for another node.
    pub malformed: u64,
    /// Probes of peers that are not known.
    pub unknown_peer: u64,
    /// Answers to what was not asked, or too late.
    pub stray_answers: u64,
    /// Requests not answered: too many.
    pub answers_limited: u64,
    /// Requests not answered: they came over VXLAN, which is not used with the peer.
    pub answers_barred: u64,
    /// Addresses of peers that made room for another.
    pub addresses_evicted: u64,
    /// Peers whose frames go to another address than before.
    pub moved: u64,
    /// Ways that went down.
    pub ways_lost: u64,
    /// Relays that did not deliver.
    pub relays_shunned: u64,
    /// Peers left out because the table was full.
    pub peers_full: u64,
}

impl LinkCounters {
    /// Names, as metrics and status show them, and values.
    pub fn named(&self) -> [(&'static str, u64); 14] {
        [
            ("link_requests_sent", self.requests_sent),
            ("link_answers_sent", self.answers_sent),
            ("link_answers_received", self.answers_received),
            ("link_unanswered", self.unanswered),
            ("link_malformed", self.malformed),
            ("link_unknown_peer", self.unknown_peer),
            ("link_stray_answers", self.stray_answers),
            ("link_answers_limited", self.answers_limited),
            ("link_answers_barred", self.answers_barred),
            ("link_addresses_evicted", self.addresses_evicted),
            ("link_moved", self.moved),
            ("link_ways_lost", self.ways_lost),
            ("link_relays_shunned", self.relays_shunned),
            ("link_peers_full", self.peers_full),
        ]
    }
}
