//! TCP connections between machines, as a program sees them.
//!
//! Bytes arrive in order, cut anywhere, after a time of their own for each piece, so that what is
//! sent on two connections arrives in any order. While two machines cannot reach each other nothing
//! arrives and nothing is said; what was sent waits, as TCP would send it again. So it does for a
//! process that is stopped.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use mesh::{ConnId, SplitMix64};

/// Which of the two ends of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Dialler,
    Acceptor,
}

impl Side {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::Dialler => Self::Acceptor,
            Self::Acceptor => Self::Dialler,
        }
    }
}

/// What arrives at an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    Bytes(Vec<u8>),
    /// The connection is over for both, and why.
    End(&'static str),
    /// The connection is over for this end, and the other end does not know.
    Lost,
}

impl Arrival {
    const fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::End(_) | Self::Lost => 0,
        }
    }
}

/// One end.
#[derive(Debug)]
pub(crate) struct End {
    pub(crate) node: usize,
    /// The run of the process that holds it: a later one knows nothing of it.
    pub(crate) run: u64,
    /// Its number there.
    pub(crate) conn: ConnId,
    /// Nothing arrives here before this time, or it would overtake.
    not_before: Duration,
    /// On its way to this end, in the order in which it was sent.
    coming: VecDeque<Arrival>,
    /// Bytes of it.
    waiting: usize,
}

impl End {
    pub(crate) const fn new(node: usize, run: u64, conn: ConnId, opened: Duration) -> Self {
        Self {
            node,
            run,
            conn,
            not_before: opened,
            coming: VecDeque::new(),
            waiting: 0,
        }
    }

    /// Sends something to this end, which reads no faster than this many bytes per second. Returns
    /// when it arrives.
    pub(crate) fn push(
        &mut self,
        arrival: Arrival,
        now: Duration,
        latency: Duration,
        rate: Option<u32>,
    ) -> Duration {
        let len = arrival.len();
        self.waiting += len;
        self.not_before = (now + latency).max(self.not_before);
        if let Some(rate) = rate {
            self.not_before += Duration::from_secs(len as u64) / rate.max(1);
        }
        self.coming.push_back(arrival);
        self.not_before
    }

    pub(crate) fn pop(&mut self) -> Option<Arrival> {
        let arrival = self.coming.pop_front()?;
        self.waiting -= arrival.len();
        Some(arrival)
    }

    pub(crate) fn clear(&mut self) {
        self.coming.clear();
        self.waiting = 0;
    }

    /// How much is on its way, in pieces and in bytes.
    pub(crate) fn coming(&self) -> (usize, usize) {
        (self.coming.len(), self.waiting)
    }
}

/// A connection.
#[derive(Debug)]
pub(crate) struct Pipe {
    pub(crate) dialler: End,
    pub(crate) acceptor: End,
}

impl Pipe {
    pub(crate) const fn end(&self, side: Side) -> &End {
        match side {
            Side::Dialler => &self.dialler,
            Side::Acceptor => &self.acceptor,
        }
    }

    pub(crate) const fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Dialler => &mut self.dialler,
            Side::Acceptor => &mut self.acceptor,
        }
    }
}

/// All connections.
#[derive(Debug, Default)]
pub(crate) struct Network {
    pub(crate) pipes: BTreeMap<u64, Pipe>,
    next: u64,
}

impl Network {
    pub(crate) fn open(&mut self, dialler: End, acceptor: End) -> u64 {
        let number = self.next;
        self.next += 1;
        self.pipes.insert(number, Pipe { dialler, acceptor });
        number
    }
}

/// From 0.1 to 30 ms, mostly short: machines of one site, with some farther away.
pub(crate) fn latency(rng: &mut SplitMix64) -> Duration {
    let span = Duration::from_millis([1, 1, 1, 5, 30][usize::try_from(rng.below(5)).unwrap_or(0)]);
    Duration::from_micros(100) + rng.up_to(span)
}
