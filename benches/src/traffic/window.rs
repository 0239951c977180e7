//! UDP packets without loss: the sender waits for the receiver, so that what is measured is what
//! passes and not how much is thrown away. Both are threads of this process, and what the receiver
//! has counted is its acknowledgement.

use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use hostnet::poll::{PollFd, PollFlags, poll};
use hostnet::udp::{self, Datagram, RecvBatch, UdpOptions};

use super::{Arrived, BATCH, Ends};

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Until {
    /// After so many packets.
    Packets(u64),
    /// When the time is up.
    Elapsed(Duration),
}

/// Packets on their way at most, for full speed: twice what one call sends, so that both sides are
/// busy, and little enough for every socket buffer on the way.
pub(crate) const WINDOW: usize = 2 * BATCH;
/// A packet that has not come by then is lost.
const LOST: Duration = Duration::from_millis(100);

/// Sends packets of `payload` bytes, of one flow, at most `window` (2 to [`WINDOW`]) at a time.
pub(crate) fn windowed(
    ends: Ends<'_>,
    payload: usize,
    window: usize,
    until: Until,
) -> anyhow::Result<Arrived> {
    let options = UdpOptions {
        gro: false,
        recv_buffer: 4 << 20,
        ..UdpOptions::new(SocketAddr::new(ends.address, 0))
    };
    let receiver = ends.to.run(|| udp::UdpSocket::bind(&options))??;
    let from = UdpOptions {
        gro: false,
        ..UdpOptions::new(SocketAddr::from(([0, 0, 0, 0], 0)))
    };
    let sender = ends.from.run(|| udp::UdpSocket::bind(&from))??;
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    let this = thread::current();
    let (sent, elapsed) = thread::scope(|scope| {
        scope.spawn(|| receive(&receiver, &received, &stop, &this));
        let done = send(
            &sender,
            receiver.local_addr(),
            payload,
            window,
            until,
            &received,
        );
        stop.store(true, Relaxed);
        done
    });
    let packets = received.into_inner();
    Ok(Arrived {
        bytes: packets * payload as u64,
        packets,
        sent,
        elapsed,
    })
}

/// Returns how many packets went out, and the time until the last of them came or was lost.
fn send(
    sender: &udp::UdpSocket,
    dest: SocketAddr,
    payload: usize,
    window: usize,
    until: Until,
    received: &AtomicU64,
) -> (u64, Duration) {
    let bytes = vec![0x33; payload];
    let datagram = Datagram {
        dest,
        bytes: &bytes,
        segment: 0,
    };
    // Half a window at a time: one packet a call would measure calls.
    let batch = vec![datagram; (window / 2).clamp(1, BATCH)];
    let (half, window) = (batch.len(), window as u64);
    let started = Instant::now();
    let (mut sent, mut lost) = (0, 0);
    let (mut heard, mut at) = (0, started);
    loop {
        let now = Instant::now();
        let arrived = received.load(Relaxed);
        if arrived > heard {
            (heard, at) = (arrived, now);
        } else if now - at > LOST {
            lost = sent - arrived;
            at = now;
        }
        let under_way = sent.saturating_sub(arrived + lost);
        let left = match until {
            Until::Packets(count) => count - sent,
            Until::Elapsed(duration) if now < started + duration => u64::MAX,
            Until::Elapsed(_) => 0,
        };
        if left == 0 && under_way == 0 {
            return (sent, now - started);
        }
        let room = usize::try_from(left.min(window.saturating_sub(under_way))).unwrap_or(half);
        if room >= half || (room > 0 && left < half as u64) {
            // A full buffer: nothing went out, and the next turn tries anew.
            let went = sender.send_batch(&batch[..room.min(half)]).unwrap_or(0);
            sent += went as u64;
            if went > 0 {
                continue;
            }
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

fn receive(receiver: &udp::UdpSocket, received: &AtomicU64, stop: &AtomicBool, sender: &Thread) {
    let mut batch = RecvBatch::new(BATCH);
    while !stop.load(Relaxed) {
        match receiver.recv_batch(&mut batch) {
            Ok(packets) => {
                received.fetch_add(packets as u64, Relaxed);
                sender.unpark();
            }
            Err(_) => {
                let mut ready = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut ready, Some(Duration::from_millis(10)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hostnet::netns::NetNs;

    #[test]
    fn over_loopback_every_packet_arrives() {
        let here = NetNs::current().unwrap();
        let ends = Ends {
            from: &here,
            to: &here,
            address: [127, 0, 0, 1].into(),
        };
        let arrived = windowed(ends, 100, WINDOW, Until::Packets(1001)).unwrap();
        assert_eq!((arrived.sent, arrived.packets), (1001, 1001));
        assert_eq!(arrived.bytes, 100_100);
        let few = windowed(ends, 100, 4, Until::Packets(7)).unwrap();
        assert_eq!((few.sent, few.packets), (7, 7));
        let timed = windowed(ends, 100, WINDOW, Until::Elapsed(Duration::from_millis(20))).unwrap();
        assert!(timed.packets > 0);
        assert_eq!(timed.sent, timed.packets);
    }
}
