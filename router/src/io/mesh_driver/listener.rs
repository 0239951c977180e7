//! Accepts control connections, not faster than they can be looked at.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::Report;

/// Connections taken at once before the rate holds (Weave's values, as is the next).
const BURST: u32 = 20;
/// Between connections from then on.
const INTERVAL: Duration = Duration::from_millis(50);
/// Connections that the kernel keeps waiting for us.
const BACKLOG: i32 = 1024;
/// After a failure that concerns the process, such as too many open files.
const PAUSE: Duration = Duration::from_millis(200);

/// Binds the control port.
///
/// # Errors
/// Somebody else has it, or the address is not this machine's.
pub(super) fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let listening = || -> std::io::Result<TcpListener> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )?;
        // A restart must not wait for the last run's connections to be forgotten.
        socket.set_reuse_address(true)?;
        if let IpAddr::V6(v6) = address.ip() {
            socket.set_only_v6(!v6.is_unspecified())?;
        }
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    listening().with_context(|| {
        format!(
            "listen on {address} for other routers: stop what holds TCP port {}, or choose another \
             with --control-port (or --listen)",
            address.port()
        )
    })
}

/// Accepts until the driver is gone.
pub(super) async fn accept(listener: TcpListener, reports: mpsc::Sender<Report>) {
    // A bucket of BURST tokens, one more each INTERVAL: `full` is when it is full again.
    let mut full = Instant::now();
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                failing = false;
                if reports
                    .send(Report::Accepted(stream, remote))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                // One line for as long as it lasts.
                if !failing {
                    tracing::warn!(%error, "cannot accept control connections");
                }
                failing = true;
                sleep(PAUSE).await;
            }
        }
        full = full.max(Instant::now()) + INTERVAL;
        sleep_until(full - INTERVAL * BURST).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    /// I6: however many knock at once, they are taken in no faster than one after the other, and none
    /// is turned away: the kernel keeps them waiting.
    #[tokio::test]
    async fn i6_connections_are_accepted_at_a_bounded_rate() {
        const MORE: u32 = 10;
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let (reports, mut accepted) = mpsc::channel(1024);
        let accepting = tokio::spawn(accept(listener, reports));
        let start = Instant::now();
        let mut open = Vec::new();
        for _ in 0..BURST + MORE {
            open.push(TcpStream::connect(address).await.unwrap());
        }
        for number in 1..=BURST + MORE {
            assert!(matches!(accepted.recv().await, Some(Report::Accepted(..))));
            let least = INTERVAL * number.saturating_sub(BURST + 1);
            assert!(
                start.elapsed() >= least,
                "the {number}. after {:?}",
                start.elapsed()
            );
        }
        accepting.abort();
    }
}
