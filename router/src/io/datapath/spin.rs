//! When a worker asks again and again whether there is work, instead of sleeping.
//!
//! A sleeping worker is woken within some tens of microseconds, which is most of a round trip between
//! nodes; a spinning one finds work at once, but keeps a core busy. So a worker spins only for a
//! moment after it last had work, while its work comes as fast as answers do and spinning finds some
//! of it ([`Habit`]), and only while the machine has a core that nobody wants for half of the time: the
//! cores' idle time, together with what was spun away, was at least that ([`FreeCore`]). It gives its
//! core away to whoever wants it. A router whose processor time is limited does not spin: it would be without later.

use std::fs;
use std::path::{Path, PathBuf};
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

    /// What of it there is to be where this process runs.
    pub(super) fn granted(self) -> Self {
        if self != Self::OFF && is_limited() {
            tracing::info!(
                window = ?self.window,
                "workers do not spin, for the router's control group has a limit of processor time (cpu.max): \
                 lift it, or set --spin to off"
            );
            return Self::OFF;
        }
        self
    }
}

/// Whether a worker's waits are of the kind that spinning shortens, as it sees from those behind it.
///
/// A wait that was short was for an answer, and the next will be. But where answers take longer than
/// the window it passes for nothing, so that a worker who has found nothing for some times leaves it
/// for many more, and tries again then. KVM decides in the same way whether a processor that halts is
/// to spin (`halt_poll_ns`, Documentation/virt/kvm/halt-polling.rst).
#[derive(Debug, Default)]
pub(super) struct Habit {
    /// Whether the last wait was short.
    short: bool,
    /// Spins in a row that found nothing.
    vain: u32,
    /// Waits to go by until the next try.
    rest: u32,
}

/// How a wait for work has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// Work was found by spinning.
    Spun,
    /// Spinning found none, and the worker slept; how long it was in all.
    InVain(Duration),
    /// The worker slept at once, for so long.
    Slept(Duration),
}

/// A wait is short up to this: a round trip between two nodes whose workers all sleep.
const SHORT: Duration = Duration::from_micros(200);
/// Spins in vain before a rest.
const TRIES: u32 = 16;
/// Waits that a rest lasts.
const REST: u32 = 64;

impl Habit {
    /// Whether to spin before the next sleep.
    pub(super) const fn spins(&self) -> bool {
        self.short && self.rest == 0
    }

    /// Learns from a wait.
    pub(super) fn waited(&mut self, wait: Wait) {
        match wait {
            Wait::Spun => (self.short, self.vain) = (true, 0),
            Wait::InVain(time) => (self.short, self.vain) = (time <= SHORT, self.vain + 1),
            Wait::Slept(time) => {
                self.short = time <= SHORT;
                self.rest = self.rest.saturating_sub(1);
            }
        }
        if self.vain >= TRIES {
            (self.vain, self.rest) = (0, REST);
        }
    }
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
/// How much of a core is to be spare: one half. Packets that come one at a time keep a small machine
/// half busy by waking those who wait for them, which spinning ends.
const SPARE: u32 = 2;
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
            self.free.store(spare >= elapsed / SPARE, Relaxed);
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

/// Whether a control group that this process is in has a limit of processor time.
fn is_limited() -> bool {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    limits(&groups).any(|path| fs::read_to_string(path).is_ok_and(|limit| is_limit(&limit)))
}

/// Where limits of a process with these groups are (cgroups(7)): those of its group and of all around
/// it. A container sees its own group as the first.
fn limits(groups: &str) -> impl Iterator<Item = PathBuf> {
    groups.lines().flat_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next().unwrap_or_default();
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "cpu.max"),
            _ => ("/sys/fs/cgroup/cpu", "cpu.cfs_quota_us"),
        };
        let has_cpu = controllers.is_empty() || controllers.split(',').any(|c| c == "cpu");
        let group = fields.next().filter(|_| has_cpu);
        let group = group.map(|group| Path::new(group.trim_start_matches('/')));
        let around = group.into_iter().flat_map(Path::ancestors);
        around.map(move |group| Path::new(root).join(group).join(file))
    })
}

/// `cpu.max` is "max" or microseconds, and a period; `cpu.cfs_quota_us` -1 or microseconds.
fn is_limit(text: &str) -> bool {
    let quota = text.split_whitespace().next();
    quota.is_some_and(|quota| quota.parse::<u64>().is_ok())
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
    fn a_worker_spins_while_answers_come_and_spinning_finds_them() {
        let mut habit = Habit::default();
        assert!(!habit.spins());
        habit.waited(Wait::Slept(SHORT * 2));
        assert!(!habit.spins());
        // Answers come while all sleep.
        habit.waited(Wait::Slept(SHORT));
        assert!(habit.spins());
        for _ in 1..TRIES {
            habit.waited(Wait::InVain(SHORT));
            assert!(habit.spins());
        }
        // One that is found makes good for those that were not.
        habit.waited(Wait::Spun);
        for _ in 1..TRIES {
            habit.waited(Wait::InVain(SHORT));
            assert!(habit.spins());
        }
        // Nothing is found.
        habit.waited(Wait::InVain(SHORT));
        for _ in 0..REST {
            assert!(!habit.spins());
            habit.waited(Wait::Slept(SHORT));
        }
        // Another try, until packets are rare.
        assert!(habit.spins());
        habit.waited(Wait::InVain(SHORT * 2));
        assert!(!habit.spins());
    }

    #[test]
    fn limits_of_processor_time_are_found_in_all_groups_around() {
        let paths = |groups| limits(groups).collect::<Vec<_>>();
        assert_eq!(
            paths("0::/kubepods/weft\n"),
            [
                "/sys/fs/cgroup/kubepods/weft/cpu.max",
                "/sys/fs/cgroup/kubepods/cpu.max",
                "/sys/fs/cgroup/cpu.max",
            ]
            .map(PathBuf::from)
        );
        assert_eq!(
            paths("4:memory:/a\n3:cpu,cpuacct:/\n1:name=systemd:/b\n"),
            ["/sys/fs/cgroup/cpu/cpu.cfs_quota_us"].map(PathBuf::from)
        );
        assert!(paths("").is_empty());
        assert!(is_limit("50000 100000\n") && is_limit("20000\n"));
        assert!(!is_limit("max 100000\n") && !is_limit("-1\n") && !is_limit(""));
    }

    #[test]
    fn idle_time_is_read() {
        let idle = parse("cpu  10 0 20 500 7 1 2 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        assert_eq!(idle, Some(Duration::from_millis(5070)));
        assert_eq!(parse("intr 1 2 3\n"), None);
        assert_eq!(parse("cpu  1 2 3\n"), None);
        assert!(idle_time().is_some());
    }

    #[test]
    fn a_core_is_free_when_idle_and_spun_time_make_up_half_of_one() {
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
        cores.add_spun(INTERVAL / 2 - Duration::from_nanos(1));
        assert!(!cores.is_free(start + INTERVAL));
        let cores = busy_since(Duration::MAX);
        cores.add_spun(INTERVAL / 2);
        assert!(cores.is_free(start + INTERVAL));
        // Not again, unless it is spun again; and not sooner than the next reading.
        assert!(cores.is_free(start + INTERVAL * 3 / 2));
        cores.meter.lock().unwrap().idle = Duration::MAX;
        assert!(!cores.is_free(start + INTERVAL * 2));
    }
}
