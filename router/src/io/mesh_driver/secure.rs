//! The secure channel of control connections, between the mesh's messages and TCP: where this node
//! has a password, no connection gets to the mesh before its other side has proven to have it too.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Channel, ChannelError, Fingerprint, Secrets, Secured, Side};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;

use super::Report;
use super::connection::Line;

/// What a node proves, and whom it takes on.
#[derive(Clone)]
pub struct ControlKeys {
    /// Its key pair and the passwords.
    pub secrets: Secrets,
    /// The nodes that are taken on; none: all that have the password.
    pub allowed: Option<BTreeSet<Fingerprint>>,
}

impl fmt::Debug for ControlKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlKeys").finish_non_exhaustive()
    }
}

/// Why a connection was not secured.
#[derive(Debug, thiserror::Error)]
pub(super) enum SecureError {
    /// The other side is no member, or says that this node is none.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The connection broke.
    #[error("the connection ended in the handshake: {0}")]
    Io(#[from] io::Error),
}

/// How long the other side of a connection that came in may take to prove that it is a member.
const PROOF: Duration = Duration::from_secs(10);
/// Connections that came in and have not proven it yet; one more is closed.
pub(super) const UNPROVEN: usize = 256;
/// More than the whole handshake, which a member sends in two parts.
const READ_LEN: usize = 2048;

/// Lets the other side of a connection that came in prove that it is a member.
pub(super) fn prove(
    mut stream: TcpStream,
    remote: SocketAddr,
    unproven: Arc<Semaphore>,
    keys: Arc<ControlKeys>,
    reports: mpsc::Sender<Report>,
) {
    let Ok(permit) = unproven.try_acquire_owned() else {
        tracing::debug!(%remote, "too many control connections are unproven: closing one more");
        return;
    };
    tokio::spawn(async move {
        let _permit = permit;
        let report = match timeout(PROOF, secure(&mut stream, Side::Accepted, &keys)).await {
            Ok(Ok(secured)) => {
                let secured = Some(Box::new(secured));
                Report::Secured(Line { stream, secured }, remote)
            }
            Ok(Err(error)) => Report::Refused(remote, error),
            // It said nothing at all, or not all: nothing to tell anybody.
            Err(_) => return,
        };
        // The driver is gone only when the router ends.
        let _ = reports.send(report).await;
    });
}

/// Carries out the handshake. The caller sets the time that it may take.
pub(super) async fn secure(
    stream: &mut TcpStream,
    side: Side,
    keys: &ControlKeys,
) -> Result<Secured, SecureError> {
    let mut seed = [0; 32];
    let filled = SystemRandom::new().fill(&mut seed);
    filled.map_err(|_| io::Error::other("the kernel gave no random bytes"))?;
    let mut channel = Channel::new(side, &keys.secrets, keys.allowed.clone(), seed);
    let mut buffer = [0; READ_LEN];
    loop {
        stream.write_all(&channel.outgoing()).await?;
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        match channel.receive(&buffer[..read]) {
            Ok(None) => {}
            Ok(Some(secured)) => {
                stream.write_all(&channel.outgoing()).await?;
                return Ok(secured);
            }
            Err(error) => {
                // Why, for the other side; it may have gone.
                let _ = stream.write_all(&channel.outgoing()).await;
                let _ = stream.shutdown().await;
                drain(stream).await;
                return Err(error.into());
            }
        }
    }
}

/// Reads what the other side has still sent, a little: a connection that is closed with unread bytes
/// is reset, and a reset can overtake the refusal.
async fn drain(stream: &mut TcpStream) {
    let mut buffer = [0; READ_LEN];
    for _ in 0..16 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
}
