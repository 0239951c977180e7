//! Connects to a target.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::{ConnId, DialError, Input, Side, Target};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::Report;
use super::connection::Line;
use super::secure::{ControlKeys, secure};

/// How long a name may take to be resolved and connected to, all its addresses together.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// How long one of them may take, so that one that is silent does not use up the others' time.
const CONNECT_DEADLINE: Duration = Duration::from_secs(4);
/// Addresses of a name that are tried in one dial; the next dial begins with another.
const MAX_ADDRESSES: usize = 4;

/// What the mesh wants to be connected to.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) conn: ConnId,
    pub(super) target: Target,
    /// Addresses of this node itself.
    pub(super) avoid: Vec<SocketAddr>,
    /// With which of a name's addresses to begin: another in each dial.
    pub(super) first: usize,
}

impl Dial {
    /// Connects, secures the connection if there are keys, and reports it or why there is none.
    pub(super) async fn carry_out(
        self,
        keys: Option<Arc<ControlKeys>>,
        reports: mpsc::Sender<Report>,
    ) {
        let Self {
            conn,
            target,
            avoid,
            first,
        } = self;
        let reached = async {
            let (stream, remote) = reach(&target, &avoid, first).await?;
            let line = secure_dialled(stream, remote, keys.as_deref(), &reports).await?;
            Ok((line, remote))
        };
        let report = match timeout(DIAL_DEADLINE, reached).await {
            Ok(Ok((line, remote))) => Report::Dialled(conn, line, remote),
            Ok(Err(error)) => Report::Input(Input::DialFailed { conn, error }),
            Err(_) => {
                let error = DialError::Failed(format!("{target}: no answer in time"));
                Report::Input(Input::DialFailed { conn, error })
            }
        };
        // The driver is gone only when the router ends.
        let _ = reports.send(report).await;
    }
}

/// Secures a connection that this node dialled, if it is to be.
async fn secure_dialled(
    mut stream: TcpStream,
    remote: SocketAddr,
    keys: Option<&ControlKeys>,
    reports: &mpsc::Sender<Report>,
) -> Result<Line, DialError> {
    let Some(keys) = keys else {
        return Ok(Line {
            stream,
            secured: None,
        });
    };
    match secure(&mut stream, Side::Dialled, keys).await {
        Ok(secured) => Ok(Line {
            stream,
            secured: Some(Box::new(secured)),
        }),
        Err(error) => {
            let text = format!("{remote}: {error}");
            let _ = reports.send(Report::Refused(remote, error)).await;
            Err(DialError::Failed(text))
        }
    }
}

/// Connects to the first address of a target that answers, each dial beginning with another.
async fn reach(
    target: &Target,
    avoid: &[SocketAddr],
    first: usize,
) -> Result<(TcpStream, SocketAddr), DialError> {
    let failed = |text: String| DialError::Failed(format!("{target}: {text}"));
    let found = tokio::net::lookup_host((target.host(), target.port())).await;
    let found = found.map_err(|error| failed(format!("cannot be resolved: {error}")))?;
    let addresses: Vec<_> = found.collect();
    if addresses.is_empty() {
        return Err(failed("has no address".to_owned()));
    }
    let wanted = addresses.iter().filter(|address| !avoid.contains(address));
    let mut wanted: Vec<_> = wanted.copied().collect();
    if let Some(first) = first.checked_rem(wanted.len()) {
        wanted.rotate_left(first);
    }
    wanted.truncate(MAX_ADDRESSES);
    let mut last = DialError::OnlyMyself;
    for address in wanted {
        match timeout(CONNECT_DEADLINE, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok((stream, address)),
            Ok(Err(error)) => last = failed(format!("{address}: {error}")),
            Err(_) => last = failed(format!("{address}: no answer within {CONNECT_DEADLINE:?}")),
        }
    }
    Err(last)
}
