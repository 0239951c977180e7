//! Ctrl-C and friends: turned into a flag that every wait of the lab looks at, so that the lab is
//! taken down by the same code whether it ends well, badly or early.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

/// How long a wait may go on after Ctrl-C before it notices.
const SLICE: Duration = Duration::from_millis(20);

/// Whether the person at the keyboard has had enough.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

/// The wait was cut short by SIGINT, SIGTERM or SIGHUP.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

impl Interrupt {
    /// Exit status of a command that SIGINT ended, as shells report it.
    pub const EXIT: u8 = 130;

    /// Catches the signals from now on until the process ends.
    pub fn install() -> io::Result<Self> {
        let interrupt = Self::default();
        let flag = Arc::clone(&interrupt.0);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let entered = runtime.enter();
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut terminations = signal(SignalKind::terminate())?;
        let mut hangups = signal(SignalKind::hangup())?;
        drop(entered);
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    loop {
                        tokio::select! {
                            _ = interrupts.recv() => {}
                            _ = terminations.recv() => {}
                            _ = hangups.recv() => {}
                        }
                        flag.store(true, Ordering::Relaxed);
                    }
                });
            })?;
        Ok(interrupt)
    }

    /// Fails once a signal has come.
    pub fn check(&self) -> Result<(), Interrupted> {
        if self.0.load(Ordering::Relaxed) {
            Err(Interrupted)
        } else {
            Ok(())
        }
    }

    /// Sleeps, but not past a signal.
    pub fn sleep(&self, duration: Duration) -> Result<(), Interrupted> {
        let end = Instant::now() + duration;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            thread::sleep(left.min(SLICE));
        }
    }
}
