//! What encryption costs: a datagram sealed and opened, small, full-size and as a train, and a handshake
//! from the first frame that wants a session to the keys on both sides.

use std::hint::black_box;
use std::net::SocketAddr;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fastpath::{Cipher, OpenKey, SealKey};
use mesh::{
    CipherChoice, Fingerprint, Psk, Secrets, SessionConfig, SessionInput, SessionOutput,
    SessionTiming, Sessions,
};
use wire::PeerId;
use wire::sleeve::{Header, Kind, SEAL_LEN};

/// Datagrams of a train.
const TRAIN: usize = 44;

/// A sleeve datagram around a frame of this length, not sealed yet.
fn datagram(frame: usize) -> Vec<u8> {
    let header = Header {
        kind: Kind::SEALED,
        epoch: 7,
        ..Header::plain(PeerId([1; 8]), PeerId([2; 8]))
    };
    let mut datagram = header.bytes().to_vec();
    datagram.resize(datagram.len() + SEAL_LEN + frame, 0);
    datagram
}

fn seal(c: &mut Criterion) {
    for cipher in Cipher::ALL {
        for (name, frame, count) in [("64", 64, 1), ("1400", 1400, 1), ("train", 1428, TRAIN)] {
            let mut group = c.benchmark_group(format!("{}/{name}", cipher.label()));
            group.throughput(Throughput::Bytes((frame * count) as u64));
            let one = datagram(frame);
            let len = one.len();
            let mut train = one.repeat(count);
            let fresh = || {
                let seal = SealKey::new(cipher, &[7; 32], 7);
                let open = OpenKey::new(cipher, &[7; 32], 7);
                (seal, open)
            };
            let claimed = u32::try_from(count).expect("a train is short");
            group.bench_function("seal", |bench| {
                let (key, _) = fresh();
                bench.iter(|| {
                    let mut claim = key.claim(claimed).expect("it is not used up");
                    for datagram in train.chunks_mut(len) {
                        key.seal(black_box(datagram), &mut claim);
                    }
                });
            });
            group.bench_function("open", |bench| {
                let (seal, open) = fresh();
                bench.iter_batched_ref(
                    || {
                        let mut train = one.repeat(count);
                        let mut claim = seal.claim(claimed).expect("it is not used up");
                        for datagram in train.chunks_mut(len) {
                            seal.seal(datagram, &mut claim);
                        }
                        train
                    },
                    |train| {
                        for datagram in train.chunks_mut(len) {
                            let opened = open.open(black_box(datagram)).expect("it is whole");
                            black_box(opened);
                        }
                    },
                    // Few wait at once, or the oldest were behind the replay window.
                    BatchSize::NumIterations(16),
                );
            });
            group.finish();
        }
    }
}

fn sessions(n: u8) -> (Sessions, PeerId, [u8; 32]) {
    let params = "Noise_IK_25519_ChaChaPoly_BLAKE2s".parse();
    let pair = snow::Builder::new(params.expect("the pattern is one of Noise's"))
        .generate_keypair()
        .expect("the kernel gives random bytes");
    let public: [u8; 32] = pair.public.try_into().expect("a key has 32 bytes");
    let id = Fingerprint::of(&public).id();
    let config = SessionConfig {
        id,
        secrets: Secrets {
            private: pair.private.try_into().expect("a key has 32 bytes"),
            public,
            passwords: vec![Psk::new([9; 32])],
        },
        start: 1,
        ciphers: vec![CipherChoice::Aes256Gcm],
        aggregates: true,
        allowed: None,
        seed: [n; 32],
        timing: SessionTiming {
            initiations: u32::MAX,
            ..SessionTiming::default()
        },
        peers: 8,
    };
    (Sessions::new(config, Duration::ZERO), id, public)
}

/// The next handshake message.
fn message(of: &mut Sessions) -> Vec<u8> {
    loop {
        match of.poll_output().expect("there is a message") {
            SessionOutput::Send { message, .. } => return message,
            SessionOutput::Keys { .. } | SessionOutput::Confirm(_) => {}
        }
    }
}

fn handshake(c: &mut Criterion) {
    let origin = SocketAddr::from(([192, 0, 2, 1], 6783));
    let ((mut a, id_a, public_a), (mut b, id_b, public_b)) = (sessions(1), sessions(2));
    let now = Duration::ZERO;
    c.bench_function("handshake, both sides", |bench| {
        bench.iter(|| {
            // As peers that have just met.
            for (sessions, id, public) in [(&mut a, id_b, public_b), (&mut b, id_a, public_a)] {
                sessions.handle(SessionInput::Peer { id, public }, now);
            }
            a.handle(SessionInput::Want(id_b), now);
            let received = |from, message: &[u8], to: &mut Sessions| {
                to.handle(
                    SessionInput::Received {
                        from,
                        origin,
                        message,
                    },
                    now,
                );
            };
            let initiation = message(&mut a);
            received(id_a, &initiation, &mut b);
            let response = message(&mut b);
            received(id_b, &response, &mut a);
            assert!(a.view(id_b, now).is_some(), "there is a session");
            a.handle(SessionInput::Gone(id_b), now);
            b.handle(SessionInput::Gone(id_a), now);
            while a.poll_output().is_some() || b.poll_output().is_some() {}
        });
    });
}

criterion_group!(benches, seal, handshake);
criterion_main!(benches);
