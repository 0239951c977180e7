//! What the links are told at their start.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerId;

/// Everything that [`Links`](super::Links) need to begin.
#[derive(Debug, Clone)]
pub struct LinkConfig {
    /// This node.
    pub me: PeerId,
    /// Its run.
    pub run: u64,
    /// UDP port on which it receives sleeve: what others see instead tells of a NAT.
    pub sleeve_port: u16,
    /// Its own addresses, if they are known: another that is seen by others tells of a NAT.
    pub addresses: Vec<IpAddr>,
    /// MTU of the underlay's interface, in bytes.
    pub underlay_mtu: u16,
    /// Largest inner IP packet that its pods send, in bytes.
    pub mtu: u16,
    /// Whether frames are sealed: then sleeve alone is used, and takes more room.
    pub sealed: bool,
    /// Subnets of the underlay that this node trusts: though frames are sealed, those to and from a
    /// peer in one of them are in the clear, in VXLAN, if the peer trusts this node's address too.
    pub trusted: Vec<IpNet>,
    /// Seed of jitter and nonces.
    pub seed: u64,
    /// Sizes of the tables.
    pub limits: LinkLimits,
    /// Times and rates.
    pub timing: LinkTiming,
}

/// How much the tables hold. What happens when one is full stands with each.
#[derive(Debug, Clone)]
pub struct LinkLimits {
    /// Peers; one more is left out and counted.
    pub peers: usize,
    /// Addresses tried per peer and encapsulation; the one longest without an answer makes room.
    pub addresses: usize,
    /// Requests answered per second, of all peers together; more are dropped and counted.
    pub answers: u32,
    /// Requests answered per second, of one peer.
    pub answers_per_peer: u32,
}

impl Default for LinkLimits {
    fn default() -> Self {
        Self {
            peers: 5000,
            addresses: 8,
            // Twice what a thousand peers send that all see this node restart.
            answers: 2000,
            // A search for the path's MTU, and every way tried at once.
            answers_per_peer: 100,
        }
    }
}

/// Times and rates of probing.
#[derive(Debug, Clone)]
pub struct LinkTiming {
    /// Between probes on a link that carries traffic.
    pub busy: Duration,
    /// Between probes on an idle link, at the most often: among many nodes it is longer.
    pub idle: Duration,
    /// What a probe on an idle link costs: the links of a node have as many of these to share as its
    /// network has doublings of its size.
    pub idle_share: Duration,
    /// Between probes that keep a NAT's mapping: below the 30 s that some have (RFC 4787 §4.3 asks
    /// for two minutes).
    pub keep_alive: Duration,
    /// Between attempts on a way that is down, while the link carries traffic.
    pub retry: Duration,
    /// Longest wait for an answer; three measured round trips if that is less.
    pub answer: Duration,
    /// Shortest wait for an answer: a busy machine schedules no faster.
    pub answer_min: Duration,
    /// Silence after which a way is down.
    pub dead: Duration,
    /// Between tests whether a larger packet passes, while the link carries traffic.
    pub raise: Duration,
    /// How long a relay that does not deliver is not used for the same peer again.
    pub shun: Duration,
    /// How long a way must have been up until its earlier failures are forgotten.
    pub settled: Duration,
    /// Probes per second on idle links at most, all together: more are wanted only while many of them
    /// are in trouble.
    pub idle_rate: u32,
    /// Probes per second on links with traffic, all together.
    pub busy_rate: u32,
    /// Probes per second that are urgent, all together: first contact, and ways in trouble.
    pub urgent_rate: u32,
}

impl Default for LinkTiming {
    fn default() -> Self {
        Self {
            busy: Duration::from_secs(1),
            idle: Duration::from_secs(10),
            // Just enough for ten nodes to keep that.
            idle_share: Duration::from_millis(3250),
            keep_alive: Duration::from_secs(20),
            retry: Duration::from_secs(2),
            answer: Duration::from_millis(1000),
            answer_min: Duration::from_millis(300),
            dead: Duration::from_secs(3),
            raise: Duration::from_secs(15),
            shun: Duration::from_secs(30),
            settled: Duration::from_secs(60),
            idle_rate: 10,
            busy_rate: 50,
            urgent_rate: 200,
        }
    }
}

/// Spare ways are asked so many times more rarely than those in use, while nobody uses the link.
pub(super) const SPARE: u32 = 6;

impl LinkTiming {
    /// Between probes on an idle link of a node that has so many links.
    ///
    /// All idle links together get a probe each [`Self::idle_share`] for each doubling of the number
    /// of nodes, so that what a node sends at rest grows with the logarithm of that number.
    pub(super) fn idle_interval(&self, links: usize) -> Duration {
        let links = u32::try_from(links).unwrap_or(u32::MAX / 2).max(1);
        // In hundredths, on a straight line between two powers of two.
        let nodes = links + 1;
        let whole = nodes.ilog2();
        let beyond = (u64::from(nodes - (1 << whole)) * 100) >> whole;
        let doublings = whole * 100 + u32::try_from(beyond).unwrap_or(0);
        // The way in use, and the spare one.
        let probes = links + links / SPARE;
        self.idle.max(self.idle_share * 100 / doublings * probes)
    }
}

impl LinkConfig {
    /// The defaults for a node on an underlay of 1500 bytes, without a password.
    pub fn new(me: PeerId, run: u64, seed: u64) -> Self {
        Self {
            me,
            run,
            sleeve_port: 6783,
            addresses: Vec::new(),
            underlay_mtu: 1500,
            mtu: 1450,
            sealed: false,
            trusted: Vec::new(),
            seed,
            limits: LinkLimits::default(),
            timing: LinkTiming::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_on_idle_links_grow_with_the_logarithm_of_their_number() {
        let timing = LinkTiming::default();
        let interval = |nodes: usize| timing.idle_interval(nodes - 1).as_secs();
        assert_eq!([2, 5, 10].map(interval), [10, 10, 10]);
        assert_eq!([100, 1000, 5000].map(interval), [56, 380, 1551]);
        let rate =
            |nodes: usize| (nodes - 1) as f64 / timing.idle_interval(nodes - 1).as_secs_f64();
        for nodes in [20, 50, 100, 500, 1000, 5000] {
            let log = (nodes as f64).log2() / 10_f64.log2();
            assert!(rate(nodes) <= rate(10) * log, "{nodes} nodes");
        }
        // However many are said to be there.
        assert!(timing.idle_interval(usize::MAX) > timing.idle_interval(5000));
    }
}
