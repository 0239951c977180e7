//! What is counted of handshakes.

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionCounters {
    /// Initiations sent, repeated ones included.
    pub initiations_sent: u64,
    /// Initiations answered.
    pub answered: u64,
    /// Sessions that this node began and the other side answered.
    pub completed: u64,
    /// Messages that are none.
    pub malformed: u64,
    /// Messages whose sender does not know this node's key, or that were damaged.
    pub unsigned: u64,
    /// Messages made without one of the passwords, or that were damaged.
    pub other_password: u64,
    /// Initiations of nodes that are not allowed.
    pub not_allowed: u64,
    /// Initiations seen before, or overtaken by a newer one.
    pub replayed: u64,
    /// Initiations that gave way to this node's own.
    pub crossed: u64,
    /// Answers that nothing waits for.
    pub unexpected: u64,
    /// Initiations that were answered by a cookie.
    pub cookies_sent: u64,
    /// Initiations that were one too many.
    pub overload: u64,
    /// Initiations of peers that there was no room for.
    pub table_full: u64,
    /// Handshakes that were given up.
    pub given_up: u64,
}

impl SessionCounters {
    /// All, with their names.
    pub fn each(&self) -> [(&'static str, u64); 14] {
        [
            ("handshake_initiations_sent", self.initiations_sent),
            ("handshake_answered", self.answered),
            ("handshake_completed", self.completed),
            ("handshake_malformed", self.malformed),
            ("handshake_unsigned", self.unsigned),
            ("handshake_other_password", self.other_password),
            ("handshake_not_allowed", self.not_allowed),
            ("handshake_replayed", self.replayed),
            ("handshake_crossed", self.crossed),
            ("handshake_unexpected", self.unexpected),
            ("handshake_cookies_sent", self.cookies_sent),
            ("handshake_overload", self.overload),
            ("handshake_table_full", self.table_full),
            ("handshake_given_up", self.given_up),
        ]
    }
}
