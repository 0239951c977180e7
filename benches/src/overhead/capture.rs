//! Lengths of what leaves through an interface, by a packet socket and by the interface's counter.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow};
use hostnet::PacketSocket;
use hostnet::netlink::Netlink;
use hostnet::netns::NetNs;

/// A capture that runs.
#[derive(Debug)]
pub(super) struct Capture<'a> {
    netns: &'a NetNs,
    interface: String,
    stop: Arc<AtomicBool>,
    seen: Arc<AtomicU64>,
    thread: JoinHandle<std::io::Result<Lengths>>,
}

/// How many packets of each length were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lengths(BTreeMap<u64, u64>);

/// How long a packet may take from the counter to the socket, or the other way round.
const SETTLE: Duration = Duration::from_millis(20);
/// How long it may take to read a handful of packets on a busy machine.
const PATIENCE: Duration = Duration::from_millis(500);

impl<'a> Capture<'a> {
    pub(super) fn start(netns: &'a NetNs, interface: &str) -> anyhow::Result<Self> {
        let index = index(netns, interface)?;
        let mut socket = netns.run(|| PacketSocket::bind(index))??;
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = thread::spawn(move || {
            let mut lengths = Lengths::default();
            loop {
                match socket.recv(SETTLE)? {
                    Some(packet) if packet.outgoing => {
                        lengths.add(packet.bytes.len() as u64);
                        count.fetch_add(1, Relaxed);
                    }
                    Some(_) => {}
                    None if until.load(Relaxed) => return Ok(lengths),
                    None => {}
                }
            }
        });
        Ok(Self {
            netns,
            interface: interface.to_owned(),
            stop,
            seen,
            thread,
        })
    }

    /// Waits until it has seen so many packets in all. Its buffer holds few long ones, and what comes
    /// faster than it reads is lost to it.
    pub(super) fn wait_for(&self, packets: u64) {
        let end = Instant::now() + PATIENCE;
        while self.seen.load(Relaxed) < packets && Instant::now() < end {
            thread::sleep(Duration::from_micros(200));
        }
    }

    /// The interface's counter.
    pub(super) fn sent_bytes(&self) -> anyhow::Result<u64> {
        thread::sleep(SETTLE);
        let mut netlink = Netlink::open_in(self.netns)?;
        let link = netlink.link(&self.interface)?;
        Ok(link.context("the interface is gone")?.stats.tx_bytes)
    }

    /// What was seen.
    pub(super) fn finish(self) -> anyhow::Result<Lengths> {
        self.stop.store(true, Relaxed);
        let lengths = self.thread.join();
        Ok(lengths.map_err(|_| anyhow!("the capture panicked"))??)
    }
}

impl Lengths {
    fn add(&mut self, length: u64) {
        *self.0.entry(length).or_default() += 1;
    }

    /// Of all packets.
    pub(super) fn bytes(&self) -> u64 {
        self.0
            .iter()
            .map(|(length, packets)| length * packets)
            .sum()
    }

    /// Of those packets that are not `run` ones alike: what the run sent is all of one length, and
    /// there are more of them than of anything else.
    pub(super) fn bytes_besides(&self, run: u64) -> u64 {
        let most = self.0.iter().max_by_key(|(_, packets)| **packets);
        let of_run = most.map_or(0, |(length, packets)| length * run.min(*packets));
        self.bytes() - of_run
    }
}

fn index(netns: &NetNs, interface: &str) -> anyhow::Result<u32> {
    let link = Netlink::open_in(netns)?.link(interface)?;
    Ok(link
        .with_context(|| format!("there is no {interface}"))?
        .index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_of_the_run_is_told_by_its_length() {
        let mut lengths = Lengths::default();
        for _ in 0..200 {
            lengths.add(114);
        }
        for length in [42, 42, 1500] {
            lengths.add(length);
        }
        assert_eq!(lengths.bytes(), 200 * 114 + 84 + 1500);
        assert_eq!(lengths.bytes_besides(200), 84 + 1500);
        // One that happens to be as long as the run's is still not of it.
        lengths.add(114);
        assert_eq!(lengths.bytes_besides(200), 84 + 1500 + 114);
        assert_eq!(Lengths::default().bytes_besides(200), 0);
    }
}
