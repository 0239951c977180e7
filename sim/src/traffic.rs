//! What routers send, counted.

/// Bytes of IP and TCP headers that each message on a control connection costs at least.
const TCP: u64 = 40;

/// What one router has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Messages on control connections.
    pub messages: u64,
    /// Their bytes, headers included.
    pub message_bytes: u64,
    /// Probes and answers to them.
    pub probes: u64,
    /// Their bytes, headers included.
    pub probe_bytes: u64,
}

impl Traffic {
    pub(crate) fn message(&mut self, bytes: usize) {
        self.messages += 1;
        self.message_bytes += bytes as u64 + TCP;
    }

    pub(crate) fn probe(&mut self, bytes: u16) {
        self.probes += 1;
        self.probe_bytes += u64::from(bytes);
    }

    /// What came since an earlier count.
    #[must_use]
    pub const fn since(&self, earlier: &Self) -> Self {
        Self {
            messages: self.messages - earlier.messages,
            message_bytes: self.message_bytes - earlier.message_bytes,
            probes: self.probes - earlier.probes,
            probe_bytes: self.probe_bytes - earlier.probe_bytes,
        }
    }

    /// Bytes of both.
    pub const fn bytes(&self) -> u64 {
        self.message_bytes + self.probe_bytes
    }

    /// Numbers of both.
    pub const fn count(&self) -> u64 {
        self.messages + self.probes
    }
}

/// The busiest second of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Peak {
    second: u64,
    messages: u64,
    dials: u64,
    /// Most messages that all routers sent in a second.
    pub most_messages: u64,
    /// Most dials that all routers began in a second.
    pub most_dials: u64,
}

impl Peak {
    fn at(&mut self, second: u64) {
        if self.second != second {
            (self.second, self.messages, self.dials) = (second, 0, 0);
        }
    }

    pub(crate) fn message(&mut self, second: u64) {
        self.at(second);
        self.messages += 1;
        self.most_messages = self.most_messages.max(self.messages);
    }

    pub(crate) fn dial(&mut self, second: u64) {
        self.at(second);
        self.dials += 1;
        self.most_dials = self.most_dials.max(self.dials);
    }
}
