//! Addresses that turned out to lead back to this node.
//!
//! A node is told one of its own addresses sooner or later: the same list of targets for all nodes,
//! a name that stands for the whole cluster, loopback. Such an address is recognised by the identity
//! that answers there, and is not dialled again for a while, whatever name or peer it was tried for.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

/// A node has few addresses; the oldest makes room.
const CAPACITY: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Myself {
    /// Address and when it was last seen to be this node, oldest first.
    seen: VecDeque<(SocketAddr, Duration)>,
}

impl Myself {
    pub(crate) fn note(&mut self, address: SocketAddr, now: Duration) {
        self.seen.retain(|(known, _)| *known != address);
        if self.seen.len() >= CAPACITY {
            self.seen.pop_front();
        }
        self.seen.push_back((address, now));
    }

    /// Whether the address was seen to be this node within the last `lasts`.
    pub(crate) fn contains(&self, address: SocketAddr, now: Duration, lasts: Duration) -> bool {
        self.seen
            .iter()
            .any(|(known, at)| *known == address && *at + lasts > now)
    }

    pub(crate) fn list(&self, now: Duration, lasts: Duration) -> Vec<SocketAddr> {
        self.seen
            .iter()
            .filter(|(_, at)| *at + lasts > now)
            .map(|(address, _)| *address)
            .collect()
    }
}
