//! The search for the largest packet that a way takes, by probes alone (RFC 8899).
//!
//! Sizes are those of the inner IP packet. A size is proven by an answer to a probe of that size.
//! One that is not answered, while small probes are, starts a search: several sizes at once, then
//! several between the largest that was answered and the smallest that was not, until they meet.
//! Several at once find any size in three or four rounds, each as long as one probe's wait; a router
//! that traffic is lost at has no time for one size after another. What the kernel says (EMSGSIZE)
//! shortens the search and proves nothing.

use std::time::Duration;

use wire::sleeve;

/// Smallest packet that a search goes down to: what the most that is put around it, sealed sleeve over
/// IPv6, leaves of a packet that every IPv4 host takes (576 bytes, RFC 791 §3.1).
pub(super) const FLOOR: u16 = 576 - sleeve::OVERHEAD_IPV6 - SEAL;
#[expect(clippy::cast_possible_truncation, reason = "24 bytes")]
const SEAL: u16 = sleeve::SEAL_LEN as u16;
/// Largest packet that any encapsulation leaves room for in a datagram.
const LIMIT: u16 = 65535 - wire::vxlan::OVERHEAD_IPV4;
/// Sizes of one round.
const ROUND: u16 = 8;

/// MTUs of underlays that are seen in practice, in bytes: jumbo frames, Ethernet, PPPoE, tunnels,
/// clouds, IPv6's minimum (RFC 1191 §7.1, brought up to date).
const PLATEAUS: [u16; 14] = [
    65535, 32000, 16384, 9000, 8000, 4464, 1500, 1492, 1480, 1460, 1420, 1400, 1280, 576,
];

#[derive(Debug, Clone)]
pub(super) struct Pmtu {
    /// Largest size that is wanted.
    ceiling: u16,
    /// Bytes between a size here and the underlay's.
    overhead: u16,
    /// Largest size that was answered, and is believed.
    proven: Option<u16>,
    /// The proven size is in doubt: it was not answered, or the way is another.
    doubted: bool,
    /// Not even [`FLOOR`] passes.
    stuck: bool,
    search: Option<Search>,
    /// When the proven size is tested next.
    verify: Duration,
    /// When a larger one is tried next.
    raise: Duration,
}

#[derive(Debug, Clone, Default)]
struct Search {
    /// Largest size answered; 0: none.
    low: u16,
    /// Smallest size known not to pass.
    high: u16,
    /// Sizes of this round that are to be sent.
    to_send: Vec<u16>,
    /// Sizes of this round that are sent and neither answered nor given up.
    open: Vec<u16>,
    /// Whether plateaus have been tried.
    refined: bool,
}

impl Pmtu {
    pub(super) fn new(ceiling: u16, overhead: u16) -> Self {
        Self {
            ceiling: ceiling.clamp(FLOOR, LIMIT),
            overhead,
            proven: None,
            doubted: false,
            stuck: false,
            search: None,
            verify: Duration::ZERO,
            raise: Duration::ZERO,
        }
    }

    /// Largest packet that the way takes; None before the first test has ended.
    pub(super) const fn mtu(&self) -> Option<u16> {
        self.proven
    }

    /// Whether full packets are known not to pass, and what passes is being looked for.
    pub(super) const fn is_failing(&self) -> bool {
        self.stuck || (self.search.is_some() && self.doubted)
    }

    /// Brings the next tests forward to be no farther away than this: traffic has come to a way whose
    /// last test was for an idle one.
    pub(super) fn hasten(&mut self, now: Duration, verify: Duration, raise: Duration) {
        self.verify = self.verify.min(now + verify);
        self.raise = self.raise.min(now + raise);
    }

    /// Whether a test is to be sent now.
    pub(super) fn is_due(&self, now: Duration) -> bool {
        self.due().is_some_and(|due| due <= now)
    }

    /// When a test is to be sent. None while one is under way.
    pub(super) fn due(&self) -> Option<Duration> {
        match &self.search {
            Some(search) if search.to_send.is_empty() => None,
            Some(_) => Some(Duration::ZERO),
            None if self.proven.is_some_and(|proven| proven < self.ceiling) => {
                Some(self.verify.min(self.raise))
            }
            None => Some(self.verify),
        }
    }

    /// Sizes to send now. Each is to be answered by [`Pmtu::answered`] or [`Pmtu::unanswered`].
    /// The next test of the proven size comes after `verify`, of a larger one after `raise`.
    pub(super) fn take(&mut self, now: Duration, verify: Duration, raise: Duration) -> Vec<u16> {
        if !self.is_due(now) {
            return Vec::new();
        }
        if let Some(search) = &mut self.search {
            let sizes = std::mem::take(&mut search.to_send);
            search.open.extend(&sizes);
            return sizes;
        }
        self.verify = now + verify;
        match self.proven {
            Some(proven) if proven < self.ceiling && self.raise <= now => {
                self.raise = now + raise;
                // Whatever more the way takes, one byte more is in it; the ceiling is often all.
                vec![proven + 1, self.ceiling]
            }
            Some(proven) => vec![proven],
            None => vec![self.ceiling],
        }
    }

    /// A packet of this size arrived.
    pub(super) fn answered(&mut self, size: u16, now: Duration) {
        // It may have been sent when more was wanted than now.
        let size = size.clamp(FLOOR, self.ceiling);
        self.stuck = false;
        let Some(search) = &mut self.search else {
            if self.proven.is_none_or(|proven| size >= proven) {
                let larger = self.proven.is_some_and(|proven| size > proven);
                self.proven = Some(size);
                self.doubted = false;
                if larger && size < self.ceiling {
                    self.begin(size, self.ceiling + 1, now);
                }
            }
            return;
        };
        search.low = search.low.max(size);
        if search.low >= search.high {
            // A probe that was lost by chance had looked like one too large.
            search.high = self.ceiling + 1;
        }
        search.open.retain(|open| *open > size);
        search.to_send.retain(|unsent| *unsent > size);
        self.step(now);
    }

    /// No answer to a packet of this size came in time, though small ones were answered.
    pub(super) fn unanswered(&mut self, size: u16, now: Duration) {
        let Some(search) = &mut self.search else {
            match self.proven {
                // A larger size was tried, and does not pass.
                Some(proven) if size > proven => {}
                _ => {
                    self.doubted = true;
                    self.begin(0, self.ceiling + 1, now);
                }
            }
            return;
        };
        if let Some(at) = search.open.iter().position(|open| *open == size) {
            search.open.remove(at);
            if size > search.low {
                search.high = search.high.min(size);
            }
            self.step(now);
        }
    }

    /// No answer came, but none came to small ones either: it is tested again when they are.
    pub(super) fn postpone(&mut self, size: u16) {
        match &mut self.search {
            Some(search) => {
                if let Some(at) = search.open.iter().position(|open| *open == size) {
                    search.open.remove(at);
                    search.to_send.push(size);
                }
            }
            None => self.verify = Duration::ZERO,
        }
    }

    /// The kernel refuses packets of this size, and may know how large they may be.
    pub(super) fn refused(&mut self, size: u16, underlay: Option<u16>, now: Duration) {
        if let Some(limit) = underlay.map(|mtu| mtu.saturating_sub(self.overhead).max(FLOOR))
            && limit < size
            && self.search.is_some()
            && let Some(search) = &mut self.search
        {
            search.high = search.high.min(limit + 1);
            search.to_send.retain(|unsent| *unsent <= limit);
            if search.low < limit
                && !search.open.contains(&limit)
                && !search.to_send.contains(&limit)
            {
                search.to_send.push(limit);
            }
        }
        self.unanswered(size, now);
    }

    /// The data path was refused a packet, or the way is another: the proven size is tested now.
    pub(super) fn doubt(&mut self, now: Duration) {
        self.verify = now;
    }

    /// The local interface or the peer takes another size.
    pub(super) fn set_ceiling(&mut self, ceiling: u16, overhead: u16, now: Duration) {
        let ceiling = ceiling.clamp(FLOOR, LIMIT);
        self.overhead = overhead;
        if ceiling == self.ceiling {
            return;
        }
        if ceiling < self.ceiling {
            self.proven = self.proven.map(|proven| proven.min(ceiling));
            self.verify = now;
        } else {
            self.raise = now;
        }
        self.ceiling = ceiling;
        if self.search.is_some() {
            let low = self.search.as_ref().map_or(0, |search| search.low);
            self.begin(low.min(ceiling), ceiling + 1, now);
        }
    }

    /// The way was down: all is to be tested again when it is back, and what was proven is a guess
    /// that holds until then.
    pub(super) fn interrupt(&mut self, now: Duration) {
        self.search = None;
        self.doubted = false;
        self.verify = now;
    }

    fn begin(&mut self, low: u16, high: u16, now: Duration) {
        self.search = Some(Search {
            low,
            high,
            ..Search::default()
        });
        self.step(now);
    }

    /// Goes on with the search: a new round if the last one is over, or its end.
    fn step(&mut self, now: Duration) {
        let Some(search) = &mut self.search else {
            return;
        };
        if search.low >= self.ceiling {
            let low = search.low;
            return self.finish(low, now);
        }
        if !search.open.is_empty() || !search.to_send.is_empty() {
            return;
        }
        let low = search.low.max(FLOOR - 1);
        if search.high <= low + 1 {
            let low = search.low;
            return self.finish(low, now);
        }
        let sizes = if search.refined {
            spread(low, search.high)
        } else {
            search.refined = true;
            plateaus(low, search.high, self.overhead)
        };
        search.to_send = sizes;
    }

    fn finish(&mut self, low: u16, now: Duration) {
        self.search = None;
        self.doubted = false;
        self.stuck = low < FLOOR;
        self.proven = Some(low.max(FLOOR));
        // A probe may have been lost by chance: one byte more is tried again soon.
        self.raise = now + Duration::from_secs(2);
    }
}

/// Known sizes between a size that passes and one that does not, and the largest that may.
fn plateaus(low: u16, high: u16, overhead: u16) -> Vec<u16> {
    let known = PLATEAUS
        .iter()
        .map(|mtu| mtu.saturating_sub(overhead))
        .filter(|size| *size > low && *size < high - 1);
    let mut sizes: Vec<u16> = known.chain([high - 1]).collect();
    if low < FLOOR {
        sizes.push(FLOOR);
    }
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

/// Sizes evenly between a size that passes and one that does not.
fn spread(low: u16, high: u16) -> Vec<u16> {
    let span = u32::from(high - low);
    let parts = span.min(u32::from(ROUND) + 1);
    (1..parts)
        .filter_map(|part| u16::try_from(u32::from(low) + span * part / parts).ok())
        .collect()
}

#[cfg(test)]
mod tests;
