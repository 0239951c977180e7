//! What pods said of groups within a batch, kept for the router to read.

/// Messages of one batch that are kept, and bytes of them all; what is more is not kept. A pod says what
/// it wants in one or two messages, and repeats them.
const MESSAGES: usize = 64;
const BYTES: usize = 64 << 10;

/// The messages.
#[derive(Debug, Default)]
pub(crate) struct Said {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Said {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    /// Keeps a frame. Whether there was room.
    pub(crate) fn keep(&mut self, frame: &[u8]) -> bool {
        let room = self.ends.len() < MESSAGES && self.bytes.len() + frame.len() <= BYTES;
        if room {
            self.bytes.extend_from_slice(frame);
            self.ends.push(self.bytes.len());
        }
        room
    }

    /// The frames, in their order.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(&0).chain(&self.ends);
        starts
            .zip(&self.ends)
            .map(|(&start, &end)| &self.bytes[start..end])
    }
}
