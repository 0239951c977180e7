//! Several frames in one sealed datagram, as the plaintext of a sleeve datagram of the kind
//! [`AGGREGATE`](crate::sleeve::Kind::AGGREGATE).
//!
//! ```text
//! length, 2 bytes | frame | length, 2 bytes | frame | ... | zeros
//! ```
//!
//! Lengths are big-endian and count the frame's bytes. One of zero ends it, as does a rest that has no room
//! for a length: what is behind is padding.

/// Bytes of the length before each frame.
pub const LENGTH_LEN: usize = 2;

/// The frames in a plaintext, in their order.
///
/// One whose length passes the end is an error, and the last that comes.
pub fn frames(plaintext: &[u8]) -> Frames<'_> {
    Frames { rest: plaintext }
}

/// See [`frames`].
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    rest: &'a [u8],
}

/// A frame of `length` bytes of which only `left` are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("frame of {length} bytes in an aggregate that has {left} left")]
pub struct CutShortError {
    /// What its length says.
    pub length: usize,
    /// What is behind it.
    pub left: usize,
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], CutShortError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (&length, behind) = std::mem::take(&mut self.rest).split_first_chunk::<LENGTH_LEN>()?;
        let length = usize::from(u16::from_be_bytes(length));
        if length == 0 {
            return None;
        }
        let Some((frame, rest)) = behind.split_at_checked(length) else {
            let left = behind.len();
            return Some(Err(CutShortError { length, left }));
        };
        self.rest = rest;
        Some(Ok(frame))
    }
}

impl std::iter::FusedIterator for Frames<'_> {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_frame_that_passes_the_end_is_the_last() {
        let mut read = frames(&[0, 1, 7, 0, 3, 8, 9]);
        assert_eq!(read.next(), Some(Ok(&[7][..])));
        assert_eq!(read.next(), Some(Err(CutShortError { length: 3, left: 2 })));
        assert_eq!(read.next(), None);
    }

    proptest! {
        #[test]
        fn what_was_put_in_comes_out_and_padding_does_not(
            put in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 0..20),
            padding in 0..40_usize,
        ) {
            let mut plaintext = Vec::new();
            for frame in &put {
                plaintext.extend(u16::try_from(frame.len()).unwrap().to_be_bytes());
                plaintext.extend(frame);
            }
            plaintext.resize(plaintext.len() + padding, 0);
            let read: Result<Vec<_>, _> = frames(&plaintext).collect();
            prop_assert_eq!(read.unwrap(), put);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let mut seen = 0;
            for frame in frames(&bytes) {
                match frame {
                    Ok(frame) => {
                        prop_assert!(!frame.is_empty());
                        seen += LENGTH_LEN + frame.len();
                    }
                    Err(CutShortError { length, left }) => {
                        prop_assert!(length > left);
                        seen += LENGTH_LEN + left;
                    }
                }
            }
            prop_assert!(seen <= bytes.len());
        }
    }
}
