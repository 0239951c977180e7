//! What comes on a control connection before the handshake is over, on either side, cut anywhere. Nobody
//! without the password gets through, and little is kept.
//!
//! The first byte: bit 0 the side that dialled, the rest where the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mesh::{Channel, Psk, Secrets, Side, preamble};

fuzz_target!(|bytes: &[u8]| {
    let Some((&how, rest)) = bytes.split_first() else {
        return;
    };
    let side = if how & 1 == 0 {
        Side::Accepted
    } else {
        Side::Dialled
    };
    let secrets = Secrets {
        private: [1; 32],
        public: [2; 32],
        passwords: vec![Psk::new([7; 32]), Psk::new([8; 32])],
    };
    let mut channel = Channel::new(side, &secrets, None, [9; 32]);
    let stream = [&preamble()[..], rest].concat();
    // With the preamble, and without.
    let stream = if how & 2 == 0 { &stream[..] } else { rest };
    for part in stream.chunks(usize::from(how >> 2).max(1)) {
        match channel.receive(part) {
            Ok(secured) => assert!(secured.is_none(), "nobody has the password"),
            Err(_) => break,
        }
    }
    assert!(channel.outgoing().len() < 4096);
});
