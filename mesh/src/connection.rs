//! One control connection, from its dial to its end.

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use wire::PeerId;

use crate::config::Timing;
use crate::dial::Candidate;
use crate::frame::{Deframer, Stage};
use crate::hello::Hello;
use crate::target::Target;

/// Names a connection. Whoever opens it gives the number: the mesh those it dials, the driver those
/// that it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConnId {
    /// Dialled by this node.
    Dialled(u64),
    /// Accepted by this node.
    Accepted(u64),
}

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dialled(n) => write!(f, "dialled {n}"),
            Self::Accepted(n) => write!(f, "accepted {n}"),
        }
    }
}

/// How far a connection is.
///
/// Both sides say hello at once. Then the node with the larger identity says that it is ready, and
/// the one with the smaller identity, which thereby knows both opinions, takes the connection into
/// use with a welcome; if it has one with that peer already, the new one replaces it, since a node
/// does not dial a peer that it is connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The driver is connecting.
    Dialling,
    /// Open, nothing heard.
    Hello,
    /// This node has the smaller identity and waits for the other one to be ready.
    Ready,
    /// This node has the larger identity, is ready, and waits for the welcome.
    Welcome,
    /// In use.
    Established,
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) phase: Phase,
    /// For whom it was dialled.
    pub(crate) candidate: Option<Candidate>,
    /// What was dialled.
    pub(crate) dialled: Option<Target>,
    /// The other side's address, once it is connected.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) deframer: Deframer,
    /// The other side's key, where a handshake below the messages has proven it.
    pub(crate) proven: Option<[u8; 32]>,
    /// What the other side said of itself.
    pub(crate) hello: Option<Box<Hello>>,
    /// When it came into being, or into use.
    pub(crate) since: Duration,
    pub(crate) heard: Duration,
    /// Silence allowed at this moment.
    pub(crate) patience: Duration,
    pub(crate) next_ping: Duration,
    pub(crate) rtt: Option<Duration>,
    /// Whether the other side has said on it what its entry is. Until then what is known of it may be
    /// old, and nothing is reached through it.
    pub(crate) introduced: bool,
    /// Whether this node needs it, as it told the other side; at first it does.
    pub(crate) needed: bool,
    /// Whether the other side needs it, as that one told.
    pub(crate) needed_there: bool,
    /// When it may be closed, if nobody needs it until then.
    pub(crate) spare_at: Option<Duration>,
    /// Whether news are not told on it: nobody needs it, and there is another way for them.
    pub(crate) quiet: bool,
    /// Whose entries are to be sent on it: the other side has asked for them, or cannot have them.
    pub(crate) owed: BTreeSet<PeerId>,
}

impl Connection {
    pub(crate) fn new(
        phase: Phase,
        dial: Option<(Candidate, Target)>,
        remote: Option<SocketAddr>,
        now: Duration,
    ) -> Self {
        let (candidate, dialled) = dial.unzip();
        Self {
            phase,
            candidate,
            dialled,
            remote,
            deframer: Deframer::new(),
            proven: None,
            hello: None,
            since: now,
            heard: now,
            patience: Duration::ZERO,
            next_ping: Duration::MAX,
            rtt: None,
            introduced: false,
            needed: true,
            needed_there: true,
            spare_at: None,
            quiet: false,
            owed: BTreeSet::new(),
        }
    }

    pub(crate) const fn stage(&self) -> Stage {
        match self.phase {
            Phase::Established => Stage::Established,
            Phase::Dialling | Phase::Hello | Phase::Ready | Phase::Welcome => Stage::Handshake,
        }
    }

    /// Something arrived.
    pub(crate) const fn hear(&mut self, now: Duration, timing: &Timing) {
        self.heard = now;
        self.patience = timing.dead;
    }

    /// When an established connection wants attention.
    pub(crate) fn deadline(&self) -> Duration {
        let deadline = self.next_ping.min(self.heard + self.patience);
        self.spare_at.map_or(deadline, |spare| spare.min(deadline))
    }

    /// Whether one of the two sides needs it.
    pub(crate) const fn is_needed(&self) -> bool {
        self.needed || self.needed_there
    }
}
