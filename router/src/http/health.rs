//! Whether the router lives, and whether pods can be attached: two questions that are kept apart,
//! since restarting a router that merely waits for others helps nobody.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A loop that has not turned for this long hangs: ten times what a sound one takes at most.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The loops of the router, each with the time of its last turn.
#[derive(Debug, Clone)]
pub struct Loops {
    started: Instant,
    loops: Arc<Mutex<Vec<Ticking>>>,
}

/// A loop's name, and when it turned last, in milliseconds since the start.
type Ticking = (&'static str, Arc<AtomicU64>);

/// The handle with which one loop shows that it turns.
#[derive(Debug, Clone)]
pub struct Ticker {
    started: Instant,
    last: Arc<AtomicU64>,
}

impl Default for Loops {
    fn default() -> Self {
        Self {
            started: Instant::now(),
            loops: Arc::default(),
        }
    }
}

impl Loops {
    /// Registers a loop, which has turned just now and must do so at least every few seconds.
    pub fn register(&self, name: &'static str) -> Ticker {
        let ticker = Ticker {
            started: self.started,
            last: Arc::default(),
        };
        ticker.tick();
        // A list of entries is whole after each push, so what a panicking thread left is good.
        let mut loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops.push((name, Arc::clone(&ticker.last)));
        ticker
    }

    /// The loops that have not turned for longer than `patience`, each with its silence.
    pub fn stalled(&self, patience: Duration) -> Vec<(&'static str, Duration)> {
        let now = self.started.elapsed();
        let loops = self.loops.lock().unwrap_or_else(PoisonError::into_inner);
        loops
            .iter()
            .map(|(name, last)| {
                (
                    *name,
                    now.saturating_sub(Duration::from_millis(last.load(Relaxed))),
                )
            })
            .filter(|(_, silence)| *silence > patience)
            .collect()
    }
}

impl Ticker {
    /// The loop has turned.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "584 million years of milliseconds"
    )]
    pub fn tick(&self) {
        self.last
            .store(self.started.elapsed().as_millis() as u64, Relaxed);
    }
}

/// An answer to a probe: well, or every reason why not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Health {
    /// What is wrong; empty when all is well.
    pub reasons: Vec<String>,
}

impl Health {
    /// Whether all is well.
    pub fn is_well(&self) -> bool {
        self.reasons.is_empty()
    }

    /// The body of the answer, a line for each reason.
    pub fn text(&self) -> String {
        if self.is_well() {
            "ok\n".to_owned()
        } else {
            self.reasons.join("\n") + "\n"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_turn_is_named() {
        let loops = Loops::default();
        let (a, _b) = (loops.register("a"), loops.register("b"));
        assert_eq!(loops.stalled(PATIENCE), []);
        std::thread::sleep(Duration::from_millis(30));
        a.tick();
        let names: Vec<_> = loops
            .stalled(Duration::from_millis(20))
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(names, ["b"]);
    }

    #[test]
    fn reasons_are_lines() {
        assert_eq!(Health::default().text(), "ok\n");
        let ill = Health {
            reasons: vec!["a".to_owned(), "b".to_owned()],
        };
        assert_eq!(ill.text(), "a\nb\n");
    }
}
