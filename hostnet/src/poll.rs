//! Waiting for several descriptors, and waking a thread that waits.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

pub use nix::poll::{PollFd, PollFlags};

/// Waits until a descriptor is ready, and returns how many are; 0 after the timeout, `None` waits for
/// ever. A signal ends the wait early, as if nothing were ready: the caller's loop comes round anyway.
pub fn poll(fds: &mut [PollFd<'_>], timeout: Option<Duration>) -> io::Result<usize> {
    match nix::poll::ppoll(fds, timeout.map(TimeSpec::from_duration), None) {
        Ok(count) => Ok(usize::try_from(count).unwrap_or(0)),
        Err(Errno::EINTR) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

/// Has the kernel end the calling thread's waits when their time is over, not up to 50 us later
/// (`PR_SET_TIMERSLACK`).
pub fn wait_exactly() -> io::Result<()> {
    Ok(nix::sys::prctl::set_timerslack(1)?)
}

/// Wakes a thread that polls it, from any thread (eventfd(2)).
#[derive(Debug)]
pub struct Waker {
    event: EventFd,
}

impl Waker {
    /// A waker that nobody has woken yet.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self {
            event: EventFd::from_value_and_flags(0, flags)?,
        })
    }

    /// Makes it readable until [`Self::reset`]; calls before that count as one.
    pub fn wake(&self) {
        // EAGAIN: the counter is full, so that it is readable already.
        let _ = self.event.write(1);
    }

    /// Makes it wait again, and returns whether it had been woken.
    pub fn reset(&self) -> bool {
        self.event.read().is_ok()
    }
}

impl AsFd for Waker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waker_wakes_once_until_it_is_reset() {
        let waker = Waker::new().unwrap();
        let ready = |timeout| {
            let mut fds = [PollFd::new(waker.as_fd(), PollFlags::POLLIN)];
            poll(&mut fds, Some(timeout)).unwrap()
        };
        assert_eq!(ready(Duration::ZERO), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                waker.wake();
                waker.wake();
            });
            assert_eq!(ready(Duration::from_secs(10)), 1);
        });
        assert!(waker.reset());
        assert!(!waker.reset());
        assert_eq!(ready(Duration::ZERO), 0);
    }
}
