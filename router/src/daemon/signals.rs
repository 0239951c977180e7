//! What ends the router.

use std::io::Read as _;

use anyhow::Context as _;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// What ends the router besides signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The end of standard input.
    pub with_stdin: bool,
}

/// The ways to be told to stop.
#[derive(Debug)]
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    stdin: Option<oneshot::Receiver<()>>,
}

impl Signals {
    pub(super) fn install(stop: &Stop) -> anyhow::Result<Self> {
        let terminate = signal(SignalKind::terminate()).context("catch SIGTERM")?;
        let interrupt = signal(SignalKind::interrupt()).context("catch SIGINT")?;
        let stdin = stop.with_stdin.then(watch_stdin).transpose()?;
        Ok(Self {
            terminate,
            interrupt,
            stdin,
        })
    }

    /// Waits until told to stop; says by what.
    pub(super) async fn next(&mut self) -> &'static str {
        let stdin = async {
            match &mut self.stdin {
                Some(end) => {
                    // The thread ends with the stream, either way.
                    let _ = end.await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
            () = stdin => "end of standard input",
        }
    }
}

/// A thread, since reading standard input cannot be interrupted; it ends with the process.
fn watch_stdin() -> anyhow::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    std::thread::Builder::new()
        .name("stdin".to_owned())
        .spawn(move || {
            let mut buffer = [0; 256];
            let mut stdin = std::io::stdin().lock();
            loop {
                match stdin.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                    Err(_) => break,
                }
            }
            // Nobody waits any more if the router is stopping already.
            let _ = sender.send(());
        })
        .context("start the thread that watches standard input")?;
    Ok(receiver)
}
