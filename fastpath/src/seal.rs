//! Sealing: sleeve datagrams that only their destination can read.
//!
//! ```text
//! header, 20 bytes | counter, 8 bytes | ciphertext, as long as the frame | tag, 16 bytes
//! ```
//!
//! A [`SealKey`] or [`OpenKey`] serves one direction between two peers for as long as one session
//! lasts; all workers share it. The nonce is four zero bytes and the counter, which no two datagrams
//! under a key have in common; the header is authenticated, its hop limit read as zero since relays
//! change it. Nothing is padded: the frame's length can be seen from the outside.
//!
//! A [`Sealer`] holds the keys for one peer: at most one to seal with and three to open with, so that
//! a session can be replaced while datagrams of the old one are still on their way and before the
//! other side has begun to use the new one.

mod waiting;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use arc_swap::{ArcSwap, ArcSwapOption};
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use wire::PeerId;
use wire::sleeve::{self, COUNTER_LEN, HEADER_LEN, SEAL_LEN, TAG_LEN};

use crate::counters::DropReason;
use waiting::Waiting;
use window::Window;

/// Offset of the ciphertext in a sealed datagram.
pub(crate) const SEALED_FRAME_AT: usize = HEADER_LEN + COUNTER_LEN;

/// Datagrams that one key may seal. A session is replaced long before: 2^36 in its two minutes
/// would be 570 million a second. The bound is that of the replay window's block numbers, and keeps
/// AES-GCM's chance of a forgery from plain traffic analysis below 2^-40 (NIST SP 800-38D appendix C).
pub const MAX_COUNTER: u64 = 1 << 36;

/// An AEAD (RFC 5116), as two peers agree on one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cipher {
    /// AES-256-GCM: faster where the CPU has instructions for it.
    Aes256Gcm,
    /// ChaCha20-Poly1305 (RFC 8439): fast everywhere.
    ChaCha20Poly1305,
}

impl Cipher {
    /// All, in the order in which one is preferred that is as fast as another.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::ChaCha20Poly1305];

    /// What the operator reads.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "aes-256-gcm",
            Self::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }

    fn key(self, bytes: &[u8; 32]) -> LessSafeKey {
        let algorithm = match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        LessSafeKey::new(
            UnboundKey::new(algorithm, bytes).expect("both ciphers' keys have 32 bytes"),
        )
    }
}

/// Seals what goes to one peer.
pub struct SealKey {
    key: LessSafeKey,
    cipher: Cipher,
    epoch: u16,
    aggregates: bool,
    next: AtomicU64,
}

/// Counters for datagrams that are about to be sealed, each to be used once.
#[derive(Debug)]
pub struct Claim {
    next: u64,
    end: u64,
}

impl SealKey {
    /// The key under which the peer knows `epoch`.
    pub fn new(cipher: Cipher, bytes: &[u8; 32], epoch: u16) -> Self {
        Self {
            key: cipher.key(bytes),
            cipher,
            epoch,
            aggregates: false,
            next: AtomicU64::new(0),
        }
    }

    /// The same, for a peer that says whether it takes several frames in one datagram. Without its
    /// word it gets one in each.
    pub fn aggregating(self, aggregates: bool) -> Self {
        Self { aggregates, ..self }
    }

    /// Whether the peer takes several frames in one datagram.
    pub fn aggregates(&self) -> bool {
        self.aggregates
    }

    /// What the header says of the key.
    pub fn epoch(&self) -> u16 {
        self.epoch
    }

    /// The AEAD.
    pub fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Datagrams sealed so far, and so the next counter.
    pub fn sealed(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// The header of a datagram of this kind, from that of a plain one.
    pub(crate) fn header(&self, kind: sleeve::Kind, plain: &[u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
        let mut header = *plain;
        header[0] = kind.0;
        header[2..4].copy_from_slice(&self.epoch.to_be_bytes());
        header
    }

    /// Counters for `count` datagrams; none once the key is used up.
    ///
    /// Workers share the counter, so one that cuts a super-frame takes all that it needs at once. It
    /// cannot come round: the 32 bits of `count` would have to be used up another 2^32 times.
    pub fn claim(&self, count: u32) -> Option<Claim> {
        let count = u64::from(count);
        let next = self.next.fetch_add(count, Relaxed);
        let end = next.saturating_add(count);
        (end <= MAX_COUNTER).then_some(Claim { next, end })
    }

    /// Seals a datagram in place: its header is written, its frame lies behind the place of the
    /// counter, and there is room for the tag behind it.
    ///
    /// # Panics
    /// The claim is used up, or the datagram is shorter than header, counter and tag.
    pub fn seal(&self, datagram: &mut [u8], claim: &mut Claim) {
        assert!(claim.next < claim.end, "every datagram has its counter");
        let counter = claim.next;
        claim.next += 1;
        let associated = associated_data(datagram);
        let (head, rest) = datagram.split_at_mut(SEALED_FRAME_AT);
        head[HEADER_LEN..].copy_from_slice(&counter.to_be_bytes());
        let (frame, tag) = rest.split_at_mut(rest.len() - TAG_LEN);
        let made = self
            .key
            .seal_in_place_separate_tag(nonce(counter), Aad::from(associated), frame)
            .expect("a frame is shorter than what the ciphers take");
        tag.copy_from_slice(made.as_ref());
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealKey")
            .field("cipher", &self.cipher)
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// A key with counters that were taken from it: what a frame's datagrams are sealed with.
#[derive(Debug)]
pub(crate) struct Seal<'a> {
    key: &'a SealKey,
    claim: Claim,
}

impl<'a> Seal<'a> {
    /// For `count` datagrams; none once the key is used up.
    pub(crate) fn new(key: &'a SealKey, count: usize) -> Option<Self> {
        let claim = key.claim(u32::try_from(count).ok()?)?;
        Some(Self { key, claim })
    }

    /// The header of a datagram, from that of a plain one.
    pub(crate) fn header(&self, plain: &[u8; HEADER_LEN]) -> [u8; HEADER_LEN] {
        self.key.header(sleeve::Kind::SEALED, plain)
    }

    /// Seals a datagram.
    pub(crate) fn close(&mut self, datagram: &mut [u8]) {
        self.key.seal(datagram, &mut self.claim);
    }
}

/// Opens what one peer has sealed.
pub struct OpenKey {
    key: LessSafeKey,
    epoch: u16,
    window: Window,
    opened: AtomicU64,
}

impl OpenKey {
    /// The key that this node named `epoch`.
    pub fn new(cipher: Cipher, bytes: &[u8; 32], epoch: u16) -> Self {
        Self {
            key: cipher.key(bytes),
            epoch,
            window: Window::new(),
            opened: AtomicU64::new(0),
        }
    }

    /// What the header says of the key.
    pub fn epoch(&self) -> u16 {
        self.epoch
    }

    /// Datagrams opened so far.
    pub fn opened(&self) -> u64 {
        self.opened.load(Relaxed)
    }

    /// Opens a datagram in place and returns its frame. The first that a key opens says that the
    /// other side uses it.
    ///
    /// # Errors
    /// It is cut short, forged, or was opened before. What is in the buffer then is of no use.
    pub fn open<'a>(&self, datagram: &'a mut [u8]) -> Result<Opened<'a>, DropReason> {
        if datagram.len() < HEADER_LEN + SEAL_LEN {
            return Err(DropReason::SealTruncated);
        }
        let associated = associated_data(datagram);
        let (head, rest) = datagram.split_at_mut(SEALED_FRAME_AT);
        let counter = *head
            .last_chunk::<COUNTER_LEN>()
            .expect("the head ends with the counter");
        let counter = u64::from_be_bytes(counter);
        // Before the costly part: what was seen, or is too old to tell, need not be opened.
        self.window.check(counter)?;
        let frame = self
            .key
            .open_in_place(nonce(counter), Aad::from(associated), rest)
            .map_err(|_| DropReason::SealBadTag)?;
        // Another worker may have opened a copy in the meantime.
        self.window.take(counter)?;
        let first = self.opened.fetch_add(1, Relaxed) == 0;
        Ok(Opened { frame, first })
    }
}

impl fmt::Debug for OpenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenKey")
            .field("epoch", &self.epoch)
            .finish_non_exhaustive()
    }
}

/// What was in a sealed datagram.
#[derive(Debug, PartialEq, Eq)]
pub struct Opened<'a> {
    /// The frame.
    pub frame: &'a mut [u8],
    /// Whether it is the first that this key has opened.
    pub first: bool,
}

/// Keys to open with: of the session before, the present one and the next.
pub const OPEN_KEYS: usize = 3;

/// The keys for one peer. Workers read them without a lock; the control plane replaces them.
#[derive(Debug)]
pub struct Sealer {
    sealing: ArcSwapOption<SealKey>,
    opening: ArcSwap<[Option<Arc<OpenKey>>; OPEN_KEYS]>,
    waiting: Waiting,
    /// The second at which the control plane was last told that a key is missing, and one more.
    asked: AtomicU32,
}

impl Default for Sealer {
    fn default() -> Self {
        Self {
            sealing: ArcSwapOption::empty(),
            opening: ArcSwap::from_pointee([const { None }; OPEN_KEYS]),
            waiting: Waiting::default(),
            asked: AtomicU32::new(0),
        }
    }
}

impl Sealer {
    /// No keys yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes over the keys. The order of those to open with means nothing.
    pub fn set(&self, sealing: Option<Arc<SealKey>>, opening: [Option<Arc<OpenKey>>; OPEN_KEYS]) {
        // The other side may answer with the new session as soon as it hears from it.
        self.opening.store(Arc::new(opening));
        self.sealing.store(sealing);
    }

    /// Whether there is a key to seal with that is not used up.
    pub(crate) fn is_usable(&self) -> bool {
        let key = self.sealing.load();
        key.as_ref().is_some_and(|key| key.sealed() < MAX_COUNTER)
    }

    /// The key to seal with; none while there is no session.
    pub fn sealing(&self) -> Option<Arc<SealKey>> {
        self.sealing.load_full()
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        let opens = self.opening.load().iter().any(Option::is_some);
        !opens && self.sealing.load().is_none()
    }

    /// Whether the control plane is to be told that a key is missing: once a second, however many
    /// datagrams say so, true ones or forged.
    pub(crate) fn may_ask(&self, now: u32) -> bool {
        let now = now.wrapping_add(1);
        self.asked.load(Relaxed) != now && self.asked.swap(now, Relaxed) != now
    }

    /// A whole datagram with this frame inside, for the peer `to`; none while there is no session.
    pub fn datagram(&self, me: PeerId, to: PeerId, frame: &[u8]) -> Option<Vec<u8>> {
        let key = self.sealing()?;
        let mut seal = Seal::new(&key, 1)?;
        let header = seal.header(&sleeve::Header::plain(me, to).bytes());
        let parts = [&header[..], &[0; COUNTER_LEN], frame, &[0; TAG_LEN]];
        let mut datagram = parts.concat();
        seal.close(&mut datagram);
        Some(datagram)
    }

    /// Keeps a read from the TAP until there is a key; returns how many of those that waited gave way.
    pub(crate) fn hold(&self, read: &[&[u8]], now: u32) -> u64 {
        self.waiting.push(read, now)
    }

    /// Takes what waited; with how many have waited too long.
    pub(crate) fn release(&self, now: u32) -> (Vec<Box<[u8]>>, u64) {
        self.waiting.take(now)
    }

    /// Drops what waits: there is no link to the peer any more. Returns how many frames that were.
    pub fn forsake(&self) -> u64 {
        self.waiting.clear()
    }

    /// Opens a datagram that [`sleeve::parse`] has read as sealed under `epoch`.
    ///
    /// # Errors
    /// There is no session, or not this one, or it is as [`OpenKey::open`] says.
    pub fn open<'a>(&self, epoch: u16, datagram: &'a mut [u8]) -> Result<Opened<'a>, DropReason> {
        let keys = self.opening.load();
        let mut known = keys.iter().flatten().peekable();
        if known.peek().is_none() {
            return Err(DropReason::SealNoSession);
        }
        let key = known
            .find(|key| key.epoch == epoch)
            .ok_or(DropReason::SealUnknownEpoch)?;
        key.open(datagram)
    }
}

/// The header, its hop limit read as zero.
fn associated_data(datagram: &[u8]) -> [u8; HEADER_LEN] {
    let (header, _) = sleeve::parse(datagram).expect("a sealed datagram begins with its header");
    header.associated_data()
}

/// Four zero bytes and the counter, big-endian.
fn nonce(counter: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[NONCE_LEN - COUNTER_LEN..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests;
