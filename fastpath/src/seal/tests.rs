use proptest::prelude::*;
use wire::PeerId;
use wire::sleeve::{Header, Kind};

use super::*;
use crate::aggregate::Aggregate;

const KEY: [u8; 32] = [7; 32];
const EPOCH: u16 = 0x0203;

fn header() -> Header {
    Header {
        kind: Kind::SEALED,
        epoch: EPOCH,
        ..Header::plain(PeerId([1; 8]), PeerId([2; 8]))
    }
}

fn pair(cipher: Cipher) -> (SealKey, OpenKey) {
    (
        SealKey::new(cipher, &KEY, EPOCH),
        OpenKey::new(cipher, &KEY, EPOCH),
    )
}

fn sealed(key: &SealKey, frame: &[u8]) -> Vec<u8> {
    let header = Header {
        epoch: key.epoch(),
        ..header()
    };
    let mut datagram = header.bytes().to_vec();
    datagram.extend([0; COUNTER_LEN]);
    datagram.extend(frame);
    datagram.extend([0; TAG_LEN]);
    key.seal(&mut datagram, &mut key.claim(1).unwrap());
    datagram
}

fn sealer(key: OpenKey) -> Sealer {
    let sealer = Sealer::new();
    sealer.set(None, [Some(Arc::new(key)), None, None]);
    sealer
}

/// The bytes that `docs/wire-format.md` shows. The ciphertexts were made by another implementation
/// (Python's `cryptography`) from key, nonce and associated data as documented.
#[test]
fn datagrams_are_as_documented() {
    let frame: Vec<u8> = (0..20).collect();
    for (cipher, ciphertext) in [
        (Cipher::Aes256Gcm, AES_VECTOR),
        (Cipher::ChaCha20Poly1305, CHACHA_VECTOR),
    ] {
        let (seal, open) = pair(cipher);
        seal.claim(0x0102).unwrap();
        let mut datagram = sealed(&seal, &frame);
        let mut expected = vec![2, 16, 2, 3];
        expected.extend([1; 8]);
        expected.extend([2; 8]);
        expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
        expected.extend(ciphertext);
        assert_eq!(datagram, expected);
        assert_eq!(open.open(&mut datagram).unwrap().frame, frame);
    }
}

/// As above, with two frames and three bytes of padding inside.
#[test]
fn an_aggregate_is_as_documented() {
    let (seal, open) = pair(Cipher::Aes256Gcm);
    seal.claim(0x0102).unwrap();
    let seal = Arc::new(seal);
    let frames: [Vec<u8>; 2] = [(0..14).collect(), (16..31).collect()];
    let plain = Header::plain(PeerId([1; 8]), PeerId([2; 8])).bytes();
    let mut buffer = vec![0xff; 100];
    let most = SEALED_FRAME_AT + 36 + TAG_LEN;
    let claim = seal.claim(1).unwrap();
    let mut aggregate = Aggregate::new(&seal, claim, plain, 0, most);
    for frame in &frames {
        assert!(aggregate.takes(&seal, frame.len()));
        aggregate.put(&mut buffer, frame.len(), |room| room.copy_from_slice(frame));
    }
    assert!(!aggregate.takes(&seal, 2));
    let finished = aggregate.finish(&mut buffer, true);
    assert_eq!((finished.frames, finished.frame_bytes), (2, 29));
    let mut expected = vec![4, 16, 2, 3];
    expected.extend([1; 8]);
    expected.extend([2; 8]);
    expected.extend([0, 0, 0, 0, 0, 0, 1, 2]);
    expected.extend(AGGREGATE_VECTOR);
    buffer.truncate(finished.len);
    assert_eq!(buffer, expected);
    let text: &[u8] = open.open(&mut buffer).unwrap().frame;
    let read: Result<Vec<_>, _> = wire::aggregate::frames(text).collect();
    assert_eq!(read.unwrap(), frames);
}

#[rustfmt::skip]
const AGGREGATE_VECTOR: [u8; 52] = [
    0x32, 0x6f, 0x06, 0xa9, 0x7e, 0xc3, 0x82, 0x3a, 0xb8, 0x14, 0x19, 0x9a, 0xd5,
    0x91, 0x2b, 0xf0, 0xbe, 0xe1, 0xb5, 0x38, 0x26, 0x73, 0x2f, 0x44, 0xd9, 0x59,
    0x80, 0x8c, 0x56, 0xd0, 0x2d, 0xa0, 0xee, 0x2e, 0x19, 0xae, 0x59, 0x69, 0x28,
    0xa9, 0x30, 0xf6, 0x54, 0x30, 0x95, 0xe3, 0x1d, 0x3d, 0x91, 0x69, 0x92, 0x5e,
];

#[rustfmt::skip]
const AES_VECTOR: [u8; 36] = [
    0x32, 0x60, 0x04, 0xab, 0x78, 0xc5, 0x80, 0x38, 0xb6, 0x1a, 0x1b, 0x98,
    0xd3, 0x97, 0x29, 0xf2, 0xae, 0xff, 0xb7, 0x3a, 0x8f, 0xc2, 0x7a, 0x9b,
    0xd0, 0xeb, 0x91, 0x0c, 0xad, 0x0f, 0x45, 0x99, 0x95, 0xd0, 0x36, 0xe5,
];
#[rustfmt::skip]
const CHACHA_VECTOR: [u8; 36] = [
    0xe3, 0xcf, 0x4f, 0x11, 0xf0, 0x2d, 0xcf, 0x49, 0x7e, 0x55, 0x5d, 0x11,
    0x26, 0xa9, 0x81, 0xf8, 0x89, 0x37, 0x21, 0xd9, 0xb3, 0x46, 0xbd, 0x0a,
    0xed, 0xfd, 0x89, 0x19, 0x63, 0x77, 0xd1, 0xde, 0xbf, 0x6e, 0x31, 0x88,
];

#[test]
fn opens_what_was_sealed_and_tells_the_first() {
    for cipher in Cipher::ALL {
        let (seal, open) = pair(cipher);
        let sealer = sealer(open);
        for (number, len) in [0, 1, 14, 64, 1414, 9000].into_iter().enumerate() {
            let frame: Vec<u8> = (0..len).map(|i: usize| i.to_le_bytes()[0]).collect();
            let mut datagram = sealed(&seal, &frame);
            assert_eq!(datagram.len(), HEADER_LEN + SEAL_LEN + len);
            let opened = sealer.open(EPOCH, &mut datagram).unwrap();
            assert_eq!(opened.frame, frame);
            assert_eq!(opened.first, number == 0);
        }
    }
}

#[test]
fn a_relay_may_lower_the_hop_limit_and_change_nothing_else() {
    for at in 0..HEADER_LEN + SEAL_LEN + 5 {
        let (seal, open) = pair(Cipher::Aes256Gcm);
        let mut datagram = sealed(&seal, b"frame");
        datagram[at] ^= 0x10;
        let result = open.open(&mut datagram).map(|opened| opened.frame.to_vec());
        if at == 1 {
            assert_eq!(result, Ok(b"frame".to_vec()));
        } else if (HEADER_LEN..HEADER_LEN + 4).contains(&at) {
            // The counter's high bytes: beyond the last that a key may have.
            assert_eq!(result, Err(DropReason::SealTooOld), "{at}");
        } else {
            assert_eq!(result, Err(DropReason::SealBadTag), "{at}");
        }
    }
}

#[test]
fn a_forged_datagram_changes_no_state() {
    let (seal, open) = pair(Cipher::ChaCha20Poly1305);
    let good = sealed(&seal, b"frame");
    let mut forged = good.clone();
    // A counter far ahead would move the window if it were believed.
    forged[HEADER_LEN + 5] = 0xff;
    assert_eq!(open.open(&mut forged), Err(DropReason::SealBadTag));
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(open.open(&mut flipped), Err(DropReason::SealBadTag));
    assert_eq!(open.opened(), 0);
    assert_eq!(open.open(&mut good.clone()).unwrap().frame, b"frame");
    assert_eq!(open.open(&mut good.clone()), Err(DropReason::SealReplayed));
    for len in 0..good.len() {
        let reason = open.open(&mut good[..len].to_vec()).unwrap_err();
        let expected = if len < HEADER_LEN + SEAL_LEN {
            DropReason::SealTruncated
        } else {
            DropReason::SealReplayed
        };
        assert_eq!(reason, expected, "{len}");
    }
}

#[test]
fn keys_are_told_apart_by_their_epoch() {
    let sealer = Sealer::new();
    let seal = |key, epoch| SealKey::new(Cipher::Aes256Gcm, &[key; 32], epoch);
    let open = |key, epoch| Some(Arc::new(OpenKey::new(Cipher::Aes256Gcm, &[key; 32], epoch)));
    let (old, new) = (seal(1, 1), seal(2, 2));
    let mut first = sealed(&old, b"old");
    assert_eq!(sealer.open(1, &mut first), Err(DropReason::SealNoSession));
    sealer.set(Some(Arc::new(new)), [open(1, 1), None, open(2, 2)]);
    assert_eq!(sealer.open(1, &mut first).unwrap().frame, b"old");
    let new = sealer.sealing().unwrap();
    assert_eq!((new.epoch(), new.sealed()), (2, 0));
    new.claim(1).unwrap();
    let second = sealed(&new, b"new");
    let as_if = |epoch| {
        sealer
            .open(epoch, &mut second.clone())
            .map(|o| o.frame.to_vec())
    };
    assert_eq!(as_if(3), Err(DropReason::SealUnknownEpoch));
    assert_eq!(as_if(1), Err(DropReason::SealBadTag));
    assert_eq!(as_if(2), Ok(b"new".to_vec()));
}

#[test]
fn a_key_that_is_used_up_seals_no_more() {
    let (seal, _) = pair(Cipher::Aes256Gcm);
    let mut last = 0;
    while let Some(claim) = seal.claim(1 << 31) {
        last = claim.end;
    }
    assert_eq!(last, MAX_COUNTER);
    assert!(seal.claim(1).is_none());
    assert!(seal.claim(u32::MAX).is_none());
    assert!(seal.claim(1).is_none(), "a counter must never come back");
}

#[test]
fn keys_stay_out_of_logs() {
    let (seal, open) = pair(Cipher::Aes256Gcm);
    let text = format!("{seal:?} {open:?}");
    assert!(text.contains("epoch") && !text.contains("7, 7"), "{text}");
}

proptest! {
    #[test]
    fn i6_any_bytes_are_opened_or_refused(mut bytes: Vec<u8>, epoch: u16) {
        let (_, open) = pair(Cipher::Aes256Gcm);
        prop_assert!(sealer(open).open(epoch, &mut bytes).is_err());
    }
}
