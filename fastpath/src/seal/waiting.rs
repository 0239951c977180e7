//! Frames that wait for a key.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Frames that wait for one peer: what a pod sends in the round trip that a session takes.
const FRAMES: usize = 32;
/// Bytes of them, but for the last, which may be longer: a TCP sender's first window, some times over.
const BYTES: usize = 64 << 10;
/// Seconds after which a frame is of no use: its sender has sent it again.
const PATIENCE: u32 = 3;

#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    frames: VecDeque<(u32, Box<[u8]>)>,
    bytes: usize,
}

impl Waiting {
    /// Keeps a frame, given in parts. The oldest make room; returns how many did.
    pub(super) fn push(&self, parts: &[&[u8]], now: u32) -> u64 {
        let mut queue = self.lock();
        let frame: Box<[u8]> = parts.concat().into();
        let mut gone = 0;
        while queue.frames.len() >= FRAMES
            || (queue.bytes + frame.len() > BYTES && !queue.frames.is_empty())
        {
            if let Some((_, oldest)) = queue.frames.pop_front() {
                queue.bytes -= oldest.len();
                gone += 1;
            }
        }
        queue.bytes += frame.len();
        queue.frames.push_back((now, frame));
        gone
    }

    /// Takes all, oldest first; with how many had waited too long.
    pub(super) fn take(&self, now: u32) -> (Vec<Box<[u8]>>, u64) {
        let mut queue = self.lock();
        let before = queue.frames.len();
        queue.bytes = 0;
        let fresh = std::mem::take(&mut queue.frames)
            .into_iter()
            .filter(|(since, _)| now.saturating_sub(*since) <= PATIENCE)
            .map(|(_, frame)| frame);
        let fresh: Vec<_> = fresh.collect();
        let stale = before - fresh.len();
        (fresh, stale as u64)
    }

    /// Drops all; returns how many.
    pub(super) fn clear(&self) -> u64 {
        let dropped = std::mem::take(&mut *self.lock());
        dropped.frames.len() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Every change leaves the queue whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i6_few_frames_wait_and_none_for_long() {
        let waiting = Waiting::default();
        let gone: u64 = (0..40_u8).map(|i| waiting.push(&[&[i], &[0; 9]], 0)).sum();
        assert_eq!(gone, 8);
        let (frames, stale) = waiting.take(1);
        assert_eq!((frames.len(), stale), (FRAMES, 0));
        assert_eq!((frames[0][0], frames[31][0]), (8, 39));
        for _ in 0..10 {
            waiting.push(&[&[0; 15 << 10]], 5);
        }
        assert_eq!(waiting.take(9), (Vec::new(), 4));
        assert_eq!(waiting.push(&[&[0; 300 << 10]], 9), 0, "one always waits");
        assert_eq!((waiting.clear(), waiting.clear()), (1, 0));
        assert_eq!(
            waiting.push(&[&[0; 40 << 10]], 9),
            0,
            "its bytes are gone too"
        );
        assert_eq!(waiting.push(&[&[0; 20 << 10]], 9), 0);
    }
}
