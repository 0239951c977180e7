//! One TCP connection between two namespaces, filled for a while.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use hostnet::netns::NetNs;

use crate::lab::interrupt::Interrupt;

/// What one write hands to the kernel: enough for a few of the largest segments.
const BLOCK: usize = 256 * 1024;
/// How long connecting, and a standstill of the data, may last.
const PATIENCE: Duration = Duration::from_secs(3);

/// What arrived, and in how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes of data that the receiver read.
    pub bytes: u64,
    /// From the connection's beginning to the last byte.
    pub elapsed: Duration,
}

impl Transfer {
    /// Gigabits of data in a second.
    #[expect(clippy::cast_precision_loss, reason = "nobody counts 2^53 bytes here")]
    pub fn gbit_per_s(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

/// Sends from one namespace to `address` in another for `duration`.
pub fn tcp(
    from: &NetNs,
    to: &NetNs,
    address: IpAddr,
    duration: Duration,
    interrupt: &Interrupt,
) -> anyhow::Result<Transfer> {
    let listener = to
        .run(|| TcpListener::bind((address, 0)))?
        .context("cannot listen")?;
    let target = listener.local_addr()?;
    let sender = from
        .run(|| TcpStream::connect_timeout(&target, PATIENCE))?
        .with_context(|| format!("cannot connect to {target}"))?;
    // The handshake is over, so the connection is waiting to be accepted.
    let (receiver, _) = listener.accept()?;
    let started = Instant::now();
    thread::scope(|scope| {
        let receiving = scope.spawn(|| receive(receiver));
        let sent = send(sender, duration, interrupt);
        let bytes = receiving
            .join()
            .map_err(|_| io::Error::other("the receiver panicked"))??;
        let elapsed = started.elapsed();
        sent.context("cannot send")?;
        Ok(Transfer { bytes, elapsed })
    })
}

fn send(mut stream: TcpStream, duration: Duration, interrupt: &Interrupt) -> io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let block = vec![0x77; BLOCK];
    let end = Instant::now() + duration;
    while Instant::now() < end && interrupt.check().is_ok() {
        match stream.write(&block) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)
}

fn receive(mut stream: TcpStream) -> io::Result<u64> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut buffer = vec![0; BLOCK];
    let mut total = 0;
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(len) => total += len as u64,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(io::Error::new(
                    ErrorKind::TimedOut,
                    format!("nothing arrived for {PATIENCE:?}, after {total} bytes"),
                ));
            }
            Err(error) => return Err(error),
        }
    }
}
