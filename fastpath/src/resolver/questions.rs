//! What was asked and not answered.
//!
//! A table of fixed size that all workers share: sets of atomic words, each a question's tag, second
//! and kind. Two questions with one tag are taken for one, which costs a flood; a question that finds
//! no room is flooded, as all were without the table. So nothing that a pod asks can keep another
//! from being heard, and nothing here waits or allocates.

use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use foldhash::fast::RandomState;
use wire::Mac;

/// Whom to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The owner of the address alone.
    Owner,
    /// All.
    All,
}

/// The table.
#[derive(Debug)]
pub struct Questions {
    sets: Box<[[AtomicU64; WAYS]]>,
    hasher: RandomState,
}

/// Sets, a power of two, of so many ways: 4,096 questions, 32 KB. A pod resolves a few addresses a
/// second, and answered questions leave at once.
const SETS: usize = 1 << 10;
const WAYS: usize = 4;
/// How long a question counts as the first of a row, in seconds. Kernels repeat each second, three
/// times; others take more time.
const ROW: u32 = 10;
/// How long it is remembered that an address was not at its owner's, in seconds after an answer last
/// said so. An answer of the owner says otherwise at once.
const ELSEWHERE: u32 = 600;

/// What a word remembers, in its two lowest bits. A word of zero is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A station asked the owner of an address.
    Asked = 1,
    /// An address is not where its owner is.
    Elsewhere = 2,
}

/// Bits of a word for kind and second; the tag has the others. The second wraps after 34 years.
const KIND_BITS: u32 = 2;
const SECOND_BITS: u32 = 30;

impl Default for Questions {
    fn default() -> Self {
        let free = || [const { AtomicU64::new(0) }; WAYS];
        Self {
            sets: std::iter::repeat_with(free).take(SETS).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Questions {
    /// A station asks for an address at `now`, in seconds.
    pub(crate) fn ask(&self, asker: Mac, target: IpAddr, now: u32) -> Verdict {
        if let Some((_, word)) = self.find(Kind::Elsewhere, Mac::ZERO, target)
            && age(word, now) <= ELSEWHERE
        {
            return Verdict::All;
        }
        match self.find(Kind::Asked, asker, target) {
            Some((slot, word)) => match age(word, now) {
                0 => Verdict::Owner,
                1..=ROW => Verdict::All,
                _ => {
                    // Who else has changed it meanwhile has begun the row.
                    let again = with_second(word, now);
                    let _ = slot.compare_exchange(word, again, Relaxed, Relaxed);
                    Verdict::Owner
                }
            },
            None if self.insert(Kind::Asked, asker, target, now) => Verdict::Owner,
            None => Verdict::All,
        }
    }

    /// An answer about an address has come to a station, from its owner's node or from another.
    pub(crate) fn answered(&self, asker: Mac, target: IpAddr, by_owner: bool, now: u32) {
        let asked = self.find(Kind::Asked, asker, target);
        if let Some((slot, word)) = asked {
            let _ = slot.compare_exchange(word, 0, Relaxed, Relaxed);
        }
        match (self.find(Kind::Elsewhere, Mac::ZERO, target), by_owner) {
            (Some((slot, word)), true) => {
                let _ = slot.compare_exchange(word, 0, Relaxed, Relaxed);
            }
            (Some((slot, word)), false) => {
                let again = with_second(word, now);
                let _ = slot.compare_exchange(word, again, Relaxed, Relaxed);
            }
            // Nobody's answer to no question is no news.
            (None, false) if asked.is_some() => {
                self.insert(Kind::Elsewhere, Mac::ZERO, target, now);
            }
            (None, _) => {}
        }
    }

    /// What is remembered of a station and an address.
    fn find(&self, kind: Kind, asker: Mac, target: IpAddr) -> Option<(&AtomicU64, u64)> {
        let (set, tag) = self.place(kind, asker, target);
        set.iter().find_map(|slot| {
            let word = slot.load(Relaxed);
            (word != 0 && word & !second_mask() == tag).then_some((slot, word))
        })
    }

    /// Takes a free word, or one that has had its time. Whether there was one.
    fn insert(&self, kind: Kind, asker: Mac, target: IpAddr, now: u32) -> bool {
        let (set, tag) = self.place(kind, asker, target);
        let new = with_second(tag, now);
        set.iter().any(|slot| {
            let word = slot.load(Relaxed);
            let life = if word & KIND_MASK == Kind::Asked as u64 {
                ROW
            } else {
                ELSEWHERE
            };
            let free = word == 0 || age(word, now) > life;
            free && slot.compare_exchange(word, new, Relaxed, Relaxed).is_ok()
        })
    }

    /// The set of a question, and its word but for the second.
    fn place(&self, kind: Kind, asker: Mac, target: IpAddr) -> (&[AtomicU64; WAYS], u64) {
        let hash = self.hasher.hash_one((asker, target));
        let tag = hash & !(second_mask() | KIND_MASK) | kind as u64;
        // Bits that the tag does not have.
        let [low, high, ..] = hash.to_le_bytes();
        let set = usize::from(u16::from_le_bytes([low, high])) % SETS;
        (&self.sets[set], tag)
    }
}

const KIND_MASK: u64 = (1 << KIND_BITS) - 1;

const fn second_mask() -> u64 {
    ((1 << SECOND_BITS) - 1) << KIND_BITS
}

fn with_second(word: u64, now: u32) -> u64 {
    word & !second_mask() | (u64::from(now) << KIND_BITS) & second_mask()
}

/// Seconds since a word was written. A worker may lag a second behind another.
fn age(word: u64, now: u32) -> u32 {
    let written = (word & second_mask()) >> KIND_BITS;
    let age = u64::from(now).wrapping_sub(written) & (second_mask() >> KIND_BITS);
    match u32::try_from(age) {
        Ok(age) if age < 1 << (SECOND_BITS - 1) => age,
        _ => 0,
    }
}
