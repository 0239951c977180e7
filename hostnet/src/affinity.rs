//! On which processors a thread may run (sched_setaffinity(2)).

use std::io;

use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// The processors that the calling thread may run on, lowest number first.
pub fn allowed() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(SELF)?;
    Ok((0..CpuSet::count())
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect())
}

/// Keeps the calling thread on one processor. EINVAL if it is not among those that it may use.
pub fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    Ok(sched_setaffinity(SELF, &set)?)
}

/// The calling thread, to calls that take a number.
const SELF: Pid = Pid::from_raw(0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_has_one_processor_and_others_keep_theirs() {
        let before = allowed().unwrap();
        let last = *before.last().unwrap();
        std::thread::spawn(move || {
            pin(last).unwrap();
            assert_eq!(allowed().unwrap(), [last]);
            assert!(pin(CpuSet::count()).is_err());
        })
        .join()
        .unwrap();
        assert_eq!(allowed().unwrap(), before);
    }
}
