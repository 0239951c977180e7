//! Which TAP queue each conversation leaves by.
//!
//! A TAP with several queues hands out a flow's frames on the queue that last *wrote* the other
//! direction of that flow, and before that on one of its own choice. A flow that changed its queue,
//! and so its worker, could overtake itself. So what was seen to leave by a queue is answered by that
//! queue; what was not yet goes by a hash that is the same for both directions.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Conversations that are remembered: 8 bytes each make 512 KB. One that meets another in its place
/// forgets that one, which may then change its queue once.
const PLACES: usize = 65_536;

/// The memory, shared by all workers of a TAP.
#[derive(Debug)]
pub(super) struct Conversations {
    /// In each place the hash of a conversation and, above it, its queue plus one; 0 for none.
    places: Box<[AtomicU64]>,
    queues: usize,
}

impl Conversations {
    /// For a TAP with so many queues. With one there is nothing to remember.
    pub(super) fn new(queues: usize) -> Self {
        let places = if queues > 1 { PLACES } else { 0 };
        Self {
            places: (0..places).map(|_| AtomicU64::new(0)).collect(),
            queues: queues.max(1),
        }
    }

    /// Whether there is a choice of queues at all.
    pub(super) fn matter(&self) -> bool {
        self.queues > 1
    }

    /// A frame of the conversation with this hash left by this queue.
    pub(super) fn left_by(&self, hash: u32, queue: usize) {
        if let Some(place) = self.place(hash) {
            let entry = (queue as u64 + 1) << 32 | u64::from(hash);
            // Written only when it changes: workers share the cache line.
            if place.load(Relaxed) != entry {
                place.store(entry, Relaxed);
            }
        }
    }

    /// The queue by which to hand over a frame of the conversation with this hash.
    pub(super) fn queue(&self, hash: u32) -> usize {
        let entry = self.place(hash).map_or(0, |place| place.load(Relaxed));
        match usize::try_from(entry >> 32) {
            Ok(queue @ 1..) if entry & u64::from(u32::MAX) == u64::from(hash) => queue - 1,
            _ => hash as usize % self.queues,
        }
    }

    fn place(&self, hash: u32) -> Option<&AtomicU64> {
        self.places.get(hash as usize % PLACES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_goes_where_the_question_left() {
        let memory = Conversations::new(4);
        assert!(memory.matter());
        assert_eq!(memory.queue(7), 3);
        memory.left_by(7, 2);
        assert_eq!(memory.queue(7), 2);
        // The kernel has moved it after a pause.
        memory.left_by(7, 0);
        assert_eq!(memory.queue(7), 0);
        // Hash 0 is a hash like any other.
        memory.left_by(0, 3);
        assert_eq!(memory.queue(0), 3);
    }

    #[test]
    fn one_in_the_place_of_another_is_not_taken_for_it() {
        let memory = Conversations::new(4);
        memory.left_by(5, 3);
        assert_eq!(memory.queue(5 + 65_536), 1);
        memory.left_by(5 + 65_536, 2);
        assert_eq!(memory.queue(5), 1);
    }

    #[test]
    fn one_queue_needs_no_memory() {
        let memory = Conversations::new(1);
        assert!(!memory.matter());
        memory.left_by(5, 0);
        assert_eq!(memory.queue(5), 0);
    }
}
