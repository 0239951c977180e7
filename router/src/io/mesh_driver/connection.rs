//! One control connection: a task that reads, a task that writes, a queue between.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use mesh::{ConnId, Input, MAX_MESSAGE};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::Report;

/// Bytes read at a time.
pub(super) const READ_LEN: usize = 16 << 10;
/// Bytes that may wait for a peer: a few of the largest messages.
const QUEUE_BYTES: usize = 4 * MAX_MESSAGE;
/// What a message costs while it waits, beside its bytes: many are smaller than this.
const MESSAGE_COST: usize = 64;
/// How long the kernel may take to accept what is written, before the peer counts as stuck.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

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

    /// Hangs up now, whatever waits.
    pub(super) fn cut(self) {
        self.writer.abort();
    }

    /// Closes the queue; the task ends when all in it has been sent.
    pub(super) fn finish(self) -> JoinHandle<()> {
        self.writer
    }
}

/// Takes a stream apart into its queue and its reader, which reports to `reports`.
pub(super) fn split(
    conn: ConnId,
    stream: TcpStream,
    reports: mpsc::Sender<Report>,
) -> (Outgoing, JoinHandle<()>) {
    // Messages are small and answers are waited for.
    let _ = stream.set_nodelay(true);
    let (reading, writing) = stream.into_split();
    let (queue, queued) = mpsc::unbounded_channel();
    let waiting = Arc::new(AtomicUsize::new(0));
    let writer = tokio::spawn(write(
        conn,
        writing,
        queued,
        Arc::clone(&waiting),
        reports.clone(),
    ));
    let reader = tokio::spawn(read(conn, reading, reports));
    (
        Outgoing {
            queue,
            waiting,
            writer,
        },
        reader,
    )
}

async fn read(conn: ConnId, mut stream: OwnedReadHalf, reports: mpsc::Sender<Report>) {
    let mut buffer = vec![0; READ_LEN];
    let reason = loop {
        match stream.read(&mut buffer).await {
            Ok(0) => break "closed by the other side".to_owned(),
            Ok(len) => {
                let bytes = buffer[..len].to_vec();
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
    mut queue: mpsc::UnboundedReceiver<Vec<u8>>,
    waiting: Arc<AtomicUsize>,
    reports: mpsc::Sender<Report>,
) {
    while let Some(bytes) = queue.recv().await {
        let reason = match timeout(WRITE_DEADLINE, stream.write_all(&bytes)).await {
            Ok(Ok(())) => {
                waiting.fetch_sub(bytes.len() + MESSAGE_COST, Relaxed);
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("the peer did not read for {WRITE_DEADLINE:?}"),
        };
        let _ = reports
            .send(Report::Input(Input::Closed { conn, reason }))
            .await;
        return;
    }
    // Everything was sent: hang up.
    let _ = timeout(WRITE_DEADLINE, stream.shutdown()).await;
}
