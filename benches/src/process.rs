//! What the kernel says of one process, from /proc (proc_pid_status(5), proc_pid_stat(5)).

use std::fs;
use std::time::Duration;

use crate::cpu::TICKS_PER_SECOND;

/// `VmRSS` of a process, in bytes; `None` if there is no such process.
pub(crate) fn resident(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kilobytes * 1024)
}

/// Processor time of all of a process's threads since it began, to 10 ms; `None` if there is no
/// such process.
pub(crate) fn busy(pid: u32) -> Option<Duration> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
        .map(|ticks| Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

/// utime and stime of a line of /proc/PID/stat.
fn ticks(stat: &str) -> Option<u64> {
    // The name is in parentheses and may hold anything, so the fields are counted behind the last.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let rest = "S 1 2 3 0 -1 4194560 100 0 0 0 45 13 7 9 20 0 4 0 1000 5000 600";
        for name in ["weft", "a b) S 1 (c"] {
            assert_eq!(ticks(&format!("42 ({name}) {rest}")), Some(58));
        }
        assert_eq!(ticks("42 (weft) S 1 2"), None);
        assert_eq!(ticks(""), None);
    }

    #[test]
    fn this_process_has_memory_and_a_missing_one_has_nothing() {
        assert!(resident(std::process::id()).unwrap() > 100_000);
        assert!(busy(std::process::id()).is_some());
        // Above PID_MAX_LIMIT, so that no process has it.
        assert_eq!((resident(4_194_305), busy(4_194_305)), (None, None));
    }
}
