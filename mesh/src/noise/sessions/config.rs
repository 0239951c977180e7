//! What sessions are made with.

use std::collections::BTreeSet;
use std::time::Duration;

use wire::PeerId;

use crate::noise::keys::CipherChoice;
use crate::noise::secret::{Fingerprint, Secrets};

/// What [`Sessions`](super::Sessions) needs to begin.
#[derive(Debug)]
pub struct SessionConfig {
    /// This node.
    pub id: PeerId,
    /// Its keys and passwords.
    pub secrets: Secrets,
    /// Number of this start of the node. It must be larger than at any earlier start with the same
    /// keys, or peers take what this node begins for a replay.
    pub start: u64,
    /// The ciphers that are fast here. ChaCha20-Poly1305 is taken in any case.
    pub ciphers: Vec<CipherChoice>,
    /// Whether this node takes several frames in one datagram.
    pub aggregates: bool,
    /// The peers that are spoken to; none: all who have the password.
    pub allowed: Option<BTreeSet<Fingerprint>>,
    /// Random bytes from the kernel.
    pub seed: [u8; 32],
    /// Times and rates.
    pub timing: SessionTiming,
    /// Peers remembered. One more that only an initiation tells of is not answered.
    pub peers: usize,
}

/// Times and rates of sessions.
#[derive(Debug, Clone)]
pub struct SessionTiming {
    /// Age at which a session in use is replaced, by the side that began it.
    pub renew: Duration,
    /// How much later the other side does it, should the first not.
    pub renew_other: Duration,
    /// Age from which nothing is sealed with it.
    pub seal: Duration,
    /// Age from which nothing is opened with it.
    pub open: Duration,
    /// Datagrams sealed after which it is replaced.
    pub datagrams: u64,
    /// First wait for an answer; doubled each time.
    pub retry: Duration,
    /// Longest wait for an answer.
    pub retry_max: Duration,
    /// How long an answer is waited for after the last frame that wanted a session.
    pub patience: Duration,
    /// A session is in use if something crossed it within this time.
    pub idle: Duration,
    /// At least so long between sessions that are begun because what a peer sealed cannot be opened.
    pub mend: Duration,
    /// Initiations a second that are looked at without a cookie.
    pub initiations: u32,
}

impl SessionTiming {
    /// As ever, but sessions in use are replaced after this time, at most that of the default.
    pub fn renewed_after(renew: Duration) -> Self {
        let usual = Self::default();
        let sooner = usual.renew.saturating_sub(renew);
        Self {
            renew,
            seal: usual.seal - sooner,
            open: usual.open - sooner,
            ..usual
        }
    }
}

impl Default for SessionTiming {
    fn default() -> Self {
        Self {
            renew: Duration::from_secs(120),
            renew_other: Duration::from_secs(15),
            seal: Duration::from_secs(170),
            open: Duration::from_secs(190),
            // Of the 2^36 that a key may seal.
            datagrams: 1 << 35,
            retry: Duration::from_millis(250),
            retry_max: Duration::from_secs(5),
            // WireGuard's REKEY_ATTEMPT_TIME.
            patience: Duration::from_secs(90),
            idle: Duration::from_secs(60),
            mend: Duration::from_secs(2),
            // Half a millisecond each: a tenth of a core.
            initiations: 200,
        }
    }
}
