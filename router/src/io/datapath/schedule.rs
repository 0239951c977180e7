//! How workers compete with pods for processors.
//!
//! The kernel switches frames before any thread gets to run; a worker is a thread among others, and
//! waits for its turn behind every pod that computes. So it has a larger share, in shorter slices, that
//! its turn comes soon. But it does not interrupt who wakes it: a pod that sends a packet is about to
//! send the next, and both cross in one batch.

use std::thread;
use std::time::Duration;

use hostnet::schedule::{Schedule, batch};

/// Nice value of workers unless the operator says otherwise: nine times the share of a thread at 0.
/// Between containers the shares of their groups count, and this only within the router's own.
pub const WORKER_NICE: i8 = -10;
/// Ten trains of 64 KB.
const SLICE: Duration = Duration::from_micros(300);

/// What the kernel lets workers have of what they are to have.
pub(super) fn granted(nice: i8) -> Option<Schedule> {
    lowered(nice, tried)
}

fn lowered(nice: i8, ask: impl Fn(Schedule) -> std::io::Result<()>) -> Option<Schedule> {
    let wanted = Schedule { nice, slice: SLICE };
    let Err(error) = ask(wanted) else {
        return Some(wanted);
    };
    // The rest takes no capability, unless the router itself was started with a larger nice value.
    let rest = Schedule { nice: 0, ..wanted };
    let granted = ask(rest).is_ok().then_some(rest);
    tracing::info!(
        %error, wanted = nice, ?granted,
        "workers have no nice value of their own: give the router CAP_SYS_NICE, or set --worker-nice to 0 or off"
    );
    granted
}

/// Asks on a thread that ends with the question.
fn tried(schedule: Schedule) -> std::io::Result<()> {
    let asking = thread::spawn(move || batch(schedule));
    asking
        .join()
        .unwrap_or_else(|_| Err(std::io::Error::other("the thread that asked is gone")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_granted_is_lowered() {
        let with = |nice| Schedule { nice, slice: SLICE };
        assert_eq!(granted(-3), Some(with(-3)));
        let refused = || Err(std::io::ErrorKind::PermissionDenied.into());
        let without_capability = |schedule: Schedule| match schedule.nice {
            0 => Ok(()),
            _ => refused(),
        };
        assert_eq!(lowered(-3, without_capability), Some(with(0)));
        assert_eq!(lowered(-3, |_| refused()), None);
    }
}
