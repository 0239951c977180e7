//! How a thread competes with others for a processor (sched(7), sched_setattr(2)).

use std::io;
use std::time::Duration;

use nix::libc;

use crate::sys;

/// How a thread that works through batches is scheduled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From -20, the largest share of a processor, to 19, the smallest; beyond, the kernel takes the
    /// nearest. Less than the thread has takes `CAP_SYS_NICE`.
    pub nice: i8,
    /// How long it runs at once where others want the processor. The shorter, the sooner it is its
    /// turn. The kernel makes 0.1 to 100 ms of it, and one before Linux 6.12 takes its own.
    pub slice: Duration,
}

/// Has the calling thread scheduled so, with `SCHED_BATCH`: it does not take the processor from whoever
/// woke it, which may be about to give it more to do.
///
/// # Errors
/// EPERM: no `CAP_SYS_NICE`, or a seccomp filter. Nothing has changed then.
pub fn batch(schedule: Schedule) -> io::Result<()> {
    sys::schedule::set(&libc::sched_attr {
        size: 0,
        sched_policy: u32::try_from(libc::SCHED_BATCH).map_err(io::Error::other)?,
        sched_flags: 0,
        sched_nice: schedule.nice.into(),
        sched_priority: 0,
        sched_runtime: u64::try_from(schedule.slice.as_nanos()).unwrap_or(u64::MAX),
        sched_deadline: 0,
        sched_period: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nice value and policy of the calling thread, fields 19 and 41 of proc_pid_stat(5).
    fn seen() -> (i8, i32) {
        let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let behind_name = stat.rsplit_once(") ").unwrap().1;
        let fields: Vec<_> = behind_name.split(' ').collect();
        (
            fields[19 - 3].parse().unwrap(),
            fields[41 - 3].parse().unwrap(),
        )
    }

    #[test]
    fn a_thread_is_scheduled_in_batches_and_others_are_not() {
        let before = seen();
        let slice = Duration::from_micros(300);
        std::thread::spawn(move || {
            batch(Schedule { nice: -10, slice }).unwrap();
            assert_eq!(seen(), (-10, libc::SCHED_BATCH));
            batch(Schedule { nice: 3, slice }).unwrap();
            assert_eq!(seen(), (3, libc::SCHED_BATCH));
        })
        .join()
        .unwrap();
        assert_eq!(seen(), before);
        assert_ne!(before, (-10, libc::SCHED_BATCH));
    }
}
