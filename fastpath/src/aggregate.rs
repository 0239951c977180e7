//! An aggregate under way: a sealed datagram that takes small frames until it is full or no more come.
//!
//! Small packets cost what their datagrams cost: a seal, an opening, and the kernel's work for each on the
//! underlay. A batch often has several for one peer, and they share a datagram if the peer takes
//! that. Nothing waits for it: whoever ends the batch ends the aggregate.

use std::sync::Arc;

use wire::aggregate::LENGTH_LEN;
use wire::sleeve::{HEADER_LEN, Kind, SEAL_LEN, TAG_LEN};

use crate::seal::{Claim, SEALED_FRAME_AT, SealKey};

/// The longest frame that shares a datagram on a link whose longest frame is this: two must fit.
pub(crate) const fn longest(frame: usize) -> usize {
    (frame / 2).saturating_sub(LENGTH_LEN)
}

/// Bytes of a datagram on a link whose longest frame is this.
pub(crate) const fn full(frame: usize) -> usize {
    HEADER_LEN + SEAL_LEN + frame
}

/// An aggregate under way at the end of a train's buffer.
#[derive(Debug)]
pub(crate) struct Aggregate {
    key: Arc<SealKey>,
    /// One counter.
    claim: Claim,
    /// The plain header of the link.
    header: [u8; HEADER_LEN],
    /// Where the datagram begins in the buffer.
    from: usize,
    /// Where the next frame goes.
    at: usize,
    /// Where its text must end.
    end: usize,
    frames: usize,
}

/// What an aggregate has become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Finished {
    /// Bytes of the datagram.
    pub(crate) len: usize,
    /// Bytes of its frames.
    pub(crate) frame_bytes: usize,
    /// The frames in it.
    pub(crate) frames: usize,
}

impl Aggregate {
    /// An empty one that begins at `from` and has at most `most` bytes, tag included.
    pub(crate) fn new(
        key: &Arc<SealKey>,
        claim: Claim,
        header: [u8; HEADER_LEN],
        from: usize,
        most: usize,
    ) -> Self {
        Self {
            key: Arc::clone(key),
            claim,
            header,
            from,
            at: from + SEALED_FRAME_AT,
            end: from + most - TAG_LEN,
            frames: 0,
        }
    }

    /// Whether a frame of this length fits, to be sealed with this key.
    pub(crate) fn takes(&self, key: &Arc<SealKey>, frame_len: usize) -> bool {
        Arc::ptr_eq(&self.key, key) && self.at + LENGTH_LEN + frame_len <= self.end
    }

    /// Puts in a frame, which `fill` writes. It fits.
    pub(crate) fn put(
        &mut self,
        buffer: &mut [u8],
        frame_len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) {
        let length = u16::try_from(frame_len).expect("it shares a datagram");
        let room = &mut buffer[self.at..][..LENGTH_LEN + frame_len];
        room[..LENGTH_LEN].copy_from_slice(&length.to_be_bytes());
        fill(&mut room[LENGTH_LEN..]);
        self.at += LENGTH_LEN + frame_len;
        self.frames += 1;
    }

    /// Seals it. If it is `full`, no more than an eighth of it is padded, so that the datagrams of a train
    /// are equal. A single frame goes like any other.
    pub(crate) fn finish(mut self, buffer: &mut [u8], full: bool) -> Finished {
        let text = self.from + SEALED_FRAME_AT;
        let frame_bytes = self.at - text - self.frames * LENGTH_LEN;
        let kind = if self.frames == 1 {
            buffer.copy_within(text + LENGTH_LEN..self.at, text);
            self.at -= LENGTH_LEN;
            Kind::SEALED
        } else {
            if full && self.end - self.at <= (self.end - text) / 8 {
                // What an earlier train has left here is none of the peer's business.
                buffer[self.at..self.end].fill(0);
                self.at = self.end;
            }
            Kind::AGGREGATE
        };
        let datagram = &mut buffer[self.from..self.at + TAG_LEN];
        datagram[..HEADER_LEN].copy_from_slice(&self.key.header(kind, &self.header));
        self.key.seal(datagram, &mut self.claim);
        Finished {
            len: datagram.len(),
            frame_bytes,
            frames: self.frames,
        }
    }
}
