//! One control connection: a task that reads, a task that writes, a queue between.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mesh::{ConnId, Input, MAX_MESSAGE, RecordOpener, RecordSealer, Secured};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::Report;

/// Bytes read at a time.
pub(super) const READ_LEN: usize = 16 << 10;
/// Bytes that may wait for a peer: a few of the largest messages.
const QUEUE_BYTES: usize = 4 * MAX_MESSAGE;
/// What a message costs while it waits, beside its bytes: many are smaller than this.
const MESSAGE_COST: usize = 64;
/// Bytes that a peer may send at once before it is read no faster than [`RATE`]: the tables of a
/// network of 5,000 nodes twice over.
const ALLOWANCE: f64 = 8e6;
/// Bytes read per second of a peer that sends without end: what it says in excess waits on its side,
/// and the others are heard.
const RATE: f64 = 2e6;
/// How long the kernel may take to accept what is written, before the peer counts as stuck.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// A connection and, where this node has a password, what secures it.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) stream: TcpStream,
    pub(super) secured: Option<Box<Secured>>,
}

/// The queue of a connection. Dropping it sends what is in it and then hangs up.
#[derive(Debug)]
pub(super) struct Outgoing {
    queue: mpsc::UnboundedSender<Vec<u8>>,
    /// Bytes in the queue, which bounds it: messages differ too much in size to count them.
    waiting: Arc<AtomicUsize>,
    writer: JoinHandle<()>,
}

/// The peer does not take what is sent to it.
#[derive(Debug)]
pub(super) struct QueueFull;

impl fmt::Display for QueueFull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "the peer does not read: over {} MiB wait for it",
            QUEUE_BYTES >> 20
        )
    }
}

impl Outgoing {
    /// Queues bytes, unless too many wait already.
    pub(super) fn push(&self, bytes: Vec<u8>) -> Result<(), QueueFull> {
        let len = bytes.len() + MESSAGE_COST;
        if self.waiting.load(Relaxed) + len > QUEUE_BYTES {
            return Err(QueueFull);
        }
        self.waiting.fetch_add(len, Relaxed);
        // The writer ends first only when the connection is broken, which the reader reports.
        let _ = self.queue.send(bytes);
        Ok(())
    }

    /// Whether so much waits that what can be done without is better left out.
    pub(super) fn is_busy(&self) -> bool {
        self.waiting.load(Relaxed) > QUEUE_BYTES / 2
    }

    /// Hangs up now, whatever waits.
    pub(super) fn cut(self) {
        self.writer.abort();
    }

    /// Closes the queue; the task ends when all in it has been sent.
    pub(super) fn finish(self) -> JoinHandle<()> {
        self.writer
    }
}

/// Takes a stream apart into its queue and its reader, which reports to `reports`. What is secured is
/// sealed last and opened first.
pub(super) fn split(
    conn: ConnId,
    stream: TcpStream,
    secured: Option<Box<Secured>>,
    reports: mpsc::Sender<Report>,
) -> (Outgoing, JoinHandle<()>) {
    // Messages are small and answers are waited for.
    let _ = stream.set_nodelay(true);
    let (reading, writing) = stream.into_split();
    let (sealer, opener) = secured
        .map(|secured| (secured.sender, secured.receiver))
        .unzip();
    let (queue, queued) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(write(
        conn,
        writing,
        sealer,
        queued,
        Arc::clone(&waiting),
        reports.clone(),
    ));
    let reader = tokio::spawn(read(conn, reading, opener, reports));
    (
        Outgoing {
            queue,
            waiting,
            writer,
        },
        reader,
    )
}

async fn read(
    conn: ConnId,
    mut stream: OwnedReadHalf,
    mut opener: Option<RecordOpener>,
    reports: mpsc::Sender<Report>,
) {
    let mut buffer = vec![0; READ_LEN];
    let mut pace = Pace::default();
    // First what came together with the handshake.
    let mut early = opener.is_some();
    let reason = loop {
        let read = if early {
            Ok(1)
        } else {
            stream.read(&mut buffer).await
        };
        match read {
            Ok(0) => break "closed by the other side".to_owned(),
            Ok(len) => {
                let received = if early { &[] } else { &buffer[..len] };
                early = false;
                sleep(pace.take(received.len(), Instant::now())).await;
                let bytes = match &mut opener {
                    None => received.to_vec(),
                    Some(opener) => match opener.open(received) {
                        Ok(bytes) => bytes,
                        Err(error) => break error.to_string(),
                    },
                };
                if reports
                    .send(Report::Input(Input::Received { conn, bytes }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => break error.to_string(),
        }
    };
    // The driver is gone only when the router ends.
    let _ = reports
        .send(Report::Input(Input::Closed { conn, reason }))
        .await;
}

async fn write(
    conn: ConnId,
    mut stream: OwnedWriteHalf,
    mut sealer: Option<RecordSealer>,
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    reports: mpsc::Sender<Report>,
) {
    while let Some(bytes) = queue.recv().await {
        let cost = bytes.len() + MESSAGE_COST;
        let bytes = match &mut sealer {
            None => bytes,
            Some(sealer) => sealer.seal(&bytes),
        };
        let report = match timeout(WRITE_DEADLINE, stream.write_all(&bytes)).await {
            Ok(Ok(())) => {
                waiting.fetch_sub(cost, Relaxed);
                continue;
            }
            Ok(Err(error)) => {
                let reason = error.to_string();
                Report::Input(Input::Closed { conn, reason })
            }
            Err(_) => {
                let reason = format!("the peer did not read for {WRITE_DEADLINE:?}");
                Report::Stuck(conn, reason)
            }
        };
        let _ = reports.send(report).await;
        return;
    }
    // Everything was sent: hang up.
    let _ = timeout(WRITE_DEADLINE, stream.shutdown()).await;
}

/// How fast a peer may be heard.
#[derive(Debug)]
struct Pace {
    allowance: f64,
    at: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            allowance: ALLOWANCE,
            at: None,
        }
    }
}

impl Pace {
    /// Takes note of what was read; says how long to wait before it is handed on.
    fn take(&mut self, len: usize, now: Instant) -> Duration {
        let since = self.at.map_or(Duration::ZERO, |at| now - at);
        self.at = Some(now);
        let gained = self.allowance + since.as_secs_f64() * RATE;
        self.allowance = gained.min(ALLOWANCE) - len as f64;
        Duration::from_secs_f64((-self.allowance).max(0.0) / RATE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_slowed_down_and_a_burst_is_not() {
        let mut pace = Pace::default();
        let start = Instant::now();
        for _ in 0..400 {
            assert_eq!(pace.take(READ_LEN, start), Duration::ZERO);
        }
        let mut now = start;
        let mut read = 0;
        while now < start + Duration::from_secs(20) {
            now += pace.take(READ_LEN, now) + Duration::from_micros(1);
            read += READ_LEN;
        }
        let rate = read as f64 / 20.0;
        assert!((1.5e6..2.5e6).contains(&rate), "{rate} bytes per second");
        // After a rest it may speak again.
        assert_eq!(
            pace.take(READ_LEN, now + Duration::from_secs(5)),
            Duration::ZERO
        );
    }
}
