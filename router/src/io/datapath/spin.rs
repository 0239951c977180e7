//! When a worker asks again and again whether there is work, instead of sleeping.
//!
//! A sleeping worker is woken within some tens of microseconds, which is most of a round trip between
//! nodes; a spinning one finds work at once, but keeps a core busy. So a worker spins only for a
//! moment after it last had work, and only while the machine has a core that nobody wants: the cores'
//! idle time, together with what was spun away, was at least one core's. It gives its core away to
//! whoever wants it.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// What the operator wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpinPolicy {
    /// How long a worker spins after it last had work; zero: never.
    pub window: Duration,
}

impl SpinPolicy {
    /// Never.
    pub const OFF: Self = Self {
        window: Duration::ZERO,
    };
    /// For as long as an answer takes within a rack.
    pub const AUTO: Self = Self {
        window: Duration::from_micros(50),
    };
}

/// Whether the machine has a core to spare, as all workers see it.
#[derive(Debug)]
pub(super) struct FreeCore {
    free: AtomicBool,
    /// Nanoseconds that workers have spun since the meter was read.
    spun: AtomicU64,
    meter: Mutex<Meter>,
}

/// Idle time of all cores, at the last reading.
#[derive(Debug, Clone, Copy)]
struct Meter {
    read_at: Instant,
    idle: Duration,
}

/// How often the meter is read. Often enough that a load that comes up is not hindered for long;
/// reading costs about 50 us.
const INTERVAL: Duration = Duration::from_millis(200);
/// `USER_HZ`, the unit of /proc/stat: 100 on every architecture that Rust's std supports.
const TICKS_PER_SECOND: u64 = 100;

impl FreeCore {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            free: AtomicBool::new(false),
            spun: AtomicU64::new(0),
            meter: Mutex::new(Meter {
                read_at: now,
                idle: idle_time().unwrap_or_default(),
            }),
        }
    }

    /// Whether a worker may spin now. Reads the meter when that is due and no other worker does.
    pub(super) fn is_free(&self, now: Instant) -> bool {
        let mut meter = match self.meter.try_lock() {
            Ok(meter) => meter,
            Err(TryLockError::Poisoned(poisoned)) => PoisonError::into_inner(poisoned),
            Err(TryLockError::WouldBlock) => return self.free.load(Relaxed),
        };
        let elapsed = now.saturating_duration_since(meter.read_at);
        if elapsed >= INTERVAL {
            // Without the figures nothing is known to be free.
            let idle = idle_time().unwrap_or_default();
            let spun = Duration::from_nanos(self.spun.swap(0, Relaxed));
            let spare = idle.saturating_sub(meter.idle) + spun;
            self.free.store(spare >= elapsed, Relaxed);
            *meter = Meter { read_at: now, idle };
        }
        self.free.load(Relaxed)
    }

    /// Says that a worker has spun for so long in vain.
    pub(super) fn add_spun(&self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.spun.fetch_add(nanos, Relaxed);
    }
}

/// Idle time of all cores since boot.
fn idle_time() -> Option<Duration> {
    parse(&fs::read_to_string("/proc/stat").ok()?)
}

/// The fourth figure of the line of all cores; waiting for a disk is the fifth (proc(5)).
fn parse(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let mut figures = line.split_whitespace().skip(3);
    let mut next = || figures.next()?.parse::<u64>().ok();
    let ticks = next()?.saturating_add(next()?);
    Some(Duration::from_millis(
        ticks.saturating_mul(1000 / TICKS_PER_SECOND),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read() {
        let idle = parse("cpu  10 0 20 500 7 1 2 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        assert_eq!(idle, Some(Duration::from_millis(5070)));
        assert_eq!(parse("intr 1 2 3\n"), None);
        assert_eq!(parse("cpu  1 2 3\n"), None);
        assert!(idle_time().is_some());
    }

    #[test]
    fn a_core_is_free_when_idle_and_spun_time_make_up_one() {
        let start = Instant::now();
        let busy_since = |idle: Duration| {
            let cores = FreeCore::new(start);
            cores.meter.lock().unwrap().idle = idle;
            cores
        };
        // Nobody has been idle for so long: everything looks busy.
        let cores = busy_since(Duration::MAX);
        assert!(!cores.is_free(start + INTERVAL));
        // What was spun away would have been idle.
        let cores = busy_since(Duration::MAX);
        cores.add_spun(INTERVAL);
        assert!(cores.is_free(start + INTERVAL));
        // Not again, unless it is spun again; and not sooner than the next reading.
        assert!(cores.is_free(start + INTERVAL * 3 / 2));
        cores.meter.lock().unwrap().idle = Duration::MAX;
        assert!(!cores.is_free(start + INTERVAL * 2));
    }
}
