//! Traffic between two namespaces: TCP streams, small UDP packets, round trips. Each run is bounded
//! in time and counts what arrived.

mod window;

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hostnet::netns::NetNs;
use hostnet::udp::{self, Datagram, RecvBatch, UdpOptions};

pub(crate) use window::{Until, WINDOW, windowed};

/// Where a run's packets go from and to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends<'a> {
    /// The sender's namespace.
    pub(crate) from: &'a NetNs,
    /// The receiver's.
    pub(crate) to: &'a NetNs,
    /// The receiver's address.
    pub(crate) address: IpAddr,
}

/// What arrived within a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrived {
    /// Bytes of payload.
    pub(crate) bytes: u64,
    /// Packets received; 0 for TCP.
    pub(crate) packets: u64,
    /// Packets sent; 0 for TCP.
    pub(crate) sent: u64,
    /// The time that the run took.
    pub(crate) elapsed: Duration,
}

/// What one write hands to the kernel.
const BLOCK: usize = 128 * 1024;
/// Connecting, and the longest that a receiver waits for the next byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// Packets in one call of a UDP sender.
const BATCH: usize = 32;

/// `streams` TCP connections at once, for `duration`.
pub(crate) fn tcp(ends: Ends<'_>, streams: usize, duration: Duration) -> anyhow::Result<Arrived> {
    let listener = ends
        .to
        .run(|| TcpListener::bind((ends.address, 0)))?
        .context("listen")?;
    let target = listener.local_addr()?;
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let sender = ends
            .from
            .run(|| TcpStream::connect_timeout(&target, PATIENCE))?;
        let sender = sender.with_context(|| format!("connect to {target}"))?;
        pairs.push((sender, listener.accept()?.0));
    }
    let (stop, bytes) = (AtomicBool::new(false), AtomicU64::new(0));
    let started = Instant::now();
    let elapsed = thread::scope(|scope| {
        for (sender, receiver) in pairs {
            let (stop, bytes) = (&stop, &bytes);
            scope.spawn(move || pour(sender, stop));
            scope.spawn(move || drain(receiver, bytes));
        }
        thread::sleep(duration);
        // What is still on its way when the time is up does not count.
        let elapsed = started.elapsed();
        let arrived = bytes.load(Relaxed);
        stop.store(true, Relaxed);
        (arrived, elapsed)
    });
    Ok(Arrived {
        bytes: elapsed.0,
        packets: 0,
        sent: 0,
        elapsed: elapsed.1,
    })
}

fn pour(mut stream: TcpStream, stop: &AtomicBool) {
    let block = vec![0x55; BLOCK];
    // A connection that breaks shows in the bytes that arrive.
    let _ = stream.set_write_timeout(Some(PATIENCE));
    while !stop.load(Relaxed) && stream.write(&block).is_ok() {}
}

fn drain(mut stream: TcpStream, bytes: &AtomicU64) {
    let mut buffer = vec![0; BLOCK];
    let _ = stream.set_read_timeout(Some(PATIENCE));
    while let Ok(len) = stream.read(&mut buffer)
        && len > 0
    {
        bytes.fetch_add(len as u64, Relaxed);
    }
}

/// UDP packets of `payload` bytes on `flows` flows, as fast as one thread sends, for `duration`.
pub(crate) fn udp(
    ends: Ends<'_>,
    flows: usize,
    payload: usize,
    duration: Duration,
) -> anyhow::Result<Arrived> {
    let any = SocketAddr::new(ends.address, 0);
    let options = UdpOptions {
        gro: false,
        recv_buffer: 4 << 20,
        ..UdpOptions::new(any)
    };
    let receiver = ends.to.run(|| udp::UdpSocket::bind(&options))??;
    let target = receiver.local_addr();
    let from = UdpOptions {
        gro: false,
        ..UdpOptions::new(SocketAddr::from(([0, 0, 0, 0], 0)))
    };
    let senders = (0..flows)
        .map(|_| Ok(ends.from.run(|| udp::UdpSocket::bind(&from))??))
        .collect::<anyhow::Result<Vec<_>>>()?;

    let stop = AtomicBool::new(false);
    let started = Instant::now();
    let (sent, (packets, elapsed)) = thread::scope(|scope| {
        let receiving = scope.spawn(|| count(&receiver, &stop));
        let sent = send(&senders, target, payload, started + duration);
        let elapsed = started.elapsed();
        thread::sleep(Duration::from_millis(50));
        stop.store(true, Relaxed);
        let packets = receiving
            .join()
            .map_err(|_| io::Error::other("the receiver panicked"));
        packets.map(|packets| (sent, (packets, elapsed)))
    })?;
    Ok(Arrived {
        bytes: packets * payload as u64,
        packets,
        sent,
        elapsed,
    })
}

/// Sends on each flow in turn, a batch of packets at a time.
fn send(senders: &[udp::UdpSocket], dest: SocketAddr, payload: usize, end: Instant) -> u64 {
    let bytes = vec![0x33; payload];
    let batch = [Datagram {
        dest,
        bytes: &bytes,
        segment: 0,
    }; BATCH];
    let mut sent = 0;
    for sender in senders.iter().cycle() {
        if Instant::now() >= end {
            break;
        }
        // A full buffer: the packets are not sent, and the next turn tries anew.
        sent += sender.send_batch(&batch).unwrap_or(0) as u64;
    }
    sent
}

fn count(receiver: &udp::UdpSocket, stop: &AtomicBool) -> u64 {
    use std::os::fd::AsFd as _;

    use hostnet::poll::{PollFd, PollFlags, poll};
    let mut batch = RecvBatch::new(BATCH);
    let mut packets = 0;
    while !stop.load(Relaxed) {
        match receiver.recv_batch(&mut batch) {
            Ok(received) => packets += received as u64,
            Err(_) => {
                let mut ready = [PollFd::new(receiver.as_fd(), PollFlags::POLLIN)];
                let _ = poll(&mut ready, Some(Duration::from_millis(10)));
            }
        }
    }
    packets
}

/// Round trips of one small UDP packet at a time, for `duration`, against a thread that answers.
pub(crate) fn round_trips(ends: Ends<'_>, duration: Duration) -> anyhow::Result<Vec<Duration>> {
    let server = ends.to.run(|| UdpSocket::bind((ends.address, 0)))??;
    let target = server.local_addr()?;
    let client = ends.from.run(|| UdpSocket::bind(("0.0.0.0", 0)))??;
    client.connect(target)?;
    client.set_read_timeout(Some(Duration::from_millis(500)))?;
    server.set_read_timeout(Some(Duration::from_millis(100)))?;
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 64];
            while !stop.load(Relaxed) {
                if let Ok((len, from)) = server.recv_from(&mut buffer) {
                    let _ = server.send_to(&buffer[..len], from);
                }
            }
        });
        let mut times = Vec::new();
        let end = Instant::now() + duration;
        let mut answer = [0; 64];
        while Instant::now() < end {
            let sent = Instant::now();
            client.send(&[0; 32])?;
            match client.recv(&mut answer) {
                Ok(_) => times.push(sent.elapsed()),
                // Lost: not a round trip.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    stop.store(true, Relaxed);
                    return Err(error.into());
                }
            }
        }
        stop.store(true, Relaxed);
        Ok(times)
    })
}
