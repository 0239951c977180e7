//! What a handshake message must show before it is worth a computation: that its sender knows whom it
//! speaks to, and, when there are many, that it receives at the address that it sends from. As
//! WireGuard does it (Donenfeld, "WireGuard: next generation kernel network tunnel", §5.3 and §5.4.7),
//! with HMAC-SHA-256 and ChaCha20-Poly1305.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hmac;

use super::datagram::{COOKIE, COOKIE_NONCE_LEN, MAC_LEN, Macs, head};
use super::random::Entropy;

/// How long a cookie is taken, and the secret behind it kept.
pub(super) const COOKIE_LIFE: Duration = Duration::from_secs(120);

/// The codes that belong to messages for the owner of a public key.
pub(super) struct Addressee {
    mac1: hmac::Key,
    cookie: LessSafeKey,
}

impl std::fmt::Debug for Addressee {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Addressee(..)")
    }
}

pub(super) type Cookie = [u8; MAC_LEN];

impl Addressee {
    pub(super) fn new(public: &[u8; 32]) -> Self {
        let derive = |label: &[u8]| {
            let mut context = Context::new(&SHA256);
            context.update(label);
            context.update(public);
            context.finish()
        };
        let cookie = UnboundKey::new(&CHACHA20_POLY1305, derive(b"weft cookie 1").as_ref());
        Self {
            mac1: hmac::Key::new(hmac::HMAC_SHA256, derive(b"weft mac 1").as_ref()),
            cookie: LessSafeKey::new(cookie.expect("the key has 32 bytes")),
        }
    }

    /// Appends both codes to a message.
    pub(super) fn sign(&self, message: &mut Vec<u8>, cookie: Option<&Cookie>) {
        let mac1 = short(&self.mac1, message);
        message.extend(mac1);
        let mac2 = cookie.map_or([0; MAC_LEN], |cookie| {
            short(&hmac::Key::new(hmac::HMAC_SHA256, cookie), message)
        });
        message.extend(mac2);
    }

    /// Whether the sender knew whom it speaks to.
    pub(super) fn is_signed(&self, macs: &Macs<'_>) -> bool {
        same(&short(&self.mac1, macs.before_mac1()), macs.mac1())
    }

    /// A cookie for the sender of a message.
    pub(super) fn reply(
        &self,
        index: u32,
        macs: &Macs<'_>,
        cookie: Cookie,
        entropy: &mut Entropy,
    ) -> Vec<u8> {
        let nonce: [u8; COOKIE_NONCE_LEN] = entropy.bytes();
        let mut sealed = cookie.to_vec();
        self.cookie
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(macs.mac1()),
                &mut sealed,
            )
            .expect("16 bytes are not too long");
        [&head(COOKIE, index)[..], &nonce, &sealed].concat()
    }

    /// The cookie in a reply to a message that ended with this `mac1`.
    pub(super) fn read_reply(
        &self,
        nonce: [u8; COOKIE_NONCE_LEN],
        sealed: &[u8],
        mac1: &[u8],
    ) -> Option<Cookie> {
        let mut sealed = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = self
            .cookie
            .open_in_place(nonce, Aad::from(mac1), &mut sealed);
        (*opened.ok()?).try_into().ok()
    }
}

/// How much work this node lets handshakes make, and whom it asks for a cookie.
#[derive(Debug)]
pub(super) struct Gate {
    /// Made anew every [`COOKIE_LIFE`]; the one before is still taken.
    secrets: [[u8; 32]; 2],
    since: Duration,
    /// Initiations that may still be looked at without a cookie, and since when that counts.
    tokens: f64,
    filled: Duration,
    per_second: f64,
    senders: HashMap<IpAddr, (f64, Duration)>,
}

/// Initiations a second of one address that has a cookie, and how many at once (WireGuard's values).
const SENDER_RATE: f64 = 20.0;
const SENDER_BURST: f64 = 5.0;
/// Addresses that are remembered; when they are more, all are forgotten, which lets each send another
/// burst.
const SENDERS: usize = 4096;

/// What becomes of an initiation.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// It is looked at.
    Yes,
    /// Its sender is to prove that it receives at its address.
    AskCookie(Cookie),
    /// It is one too many.
    No,
}

impl Gate {
    pub(super) fn new(per_second: u32, entropy: &mut Entropy, now: Duration) -> Self {
        let per_second = f64::from(per_second);
        Self {
            secrets: [entropy.bytes(), entropy.bytes()],
            since: now,
            tokens: per_second,
            filled: now,
            per_second,
            senders: HashMap::new(),
        }
    }

    /// Judges an initiation that is signed.
    pub(super) fn admit(
        &mut self,
        macs: &Macs<'_>,
        from: SocketAddr,
        entropy: &mut Entropy,
        now: Duration,
    ) -> Admission {
        let elapsed = now.saturating_sub(self.filled).as_secs_f64();
        self.filled = now;
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Admission::Yes;
        }
        if now.saturating_sub(self.since) >= COOKIE_LIFE {
            self.secrets = [entropy.bytes(), self.secrets[0]];
            self.since = now;
        }
        let cookies = self.secrets.map(|secret| cookie(&secret, from));
        let holds = |cookie: &Cookie| {
            let key = hmac::Key::new(hmac::HMAC_SHA256, cookie);
            same(&short(&key, macs.before_mac2()), macs.mac2())
        };
        if !cookies.iter().any(holds) {
            return Admission::AskCookie(cookies[0]);
        }
        if self.senders.len() >= SENDERS {
            self.senders.clear();
        }
        let (tokens, filled) = self.senders.entry(from.ip()).or_insert((SENDER_BURST, now));
        let elapsed = now.saturating_sub(*filled).as_secs_f64();
        *filled = now;
        *tokens = (*tokens + elapsed * SENDER_RATE).min(SENDER_BURST);
        if *tokens < 1.0 {
            return Admission::No;
        }
        *tokens -= 1.0;
        Admission::Yes
    }
}

/// What only this node can tell of an address.
fn cookie(secret: &[u8; 32], from: SocketAddr) -> Cookie {
    let ip = match from.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    short(
        &key,
        &[&ip.octets()[..], &from.port().to_be_bytes()].concat(),
    )
}

fn short(key: &hmac::Key, message: &[u8]) -> [u8; MAC_LEN] {
    let tag = hmac::sign(key, message);
    *tag.as_ref().first_chunk().expect("SHA-256 has 32 bytes")
}

/// Compares in a time that does not tell where they differ.
fn same(a: &[u8; MAC_LEN], b: &[u8]) -> bool {
    let differ = a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b));
    differ == 0 && a.len() == b.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::noise::datagram::{INITIATION, INITIATION_LEN, Parsed, parse};

    const FROM: fn(u8) -> SocketAddr = |n| SocketAddr::from(([192, 0, 2, n], 6783));

    fn message(to: &Addressee, cookie: Option<&Cookie>) -> Vec<u8> {
        let mut message = head(INITIATION, 7).to_vec();
        message.resize(INITIATION_LEN - 2 * MAC_LEN, 5);
        to.sign(&mut message, cookie);
        message
    }

    fn macs(message: &[u8]) -> Macs<'_> {
        match parse(message) {
            Some(Parsed::Initiation { macs, .. }) => macs,
            other => panic!("{other:?}"),
        }
    }

    /// The bytes that `docs/wire-format.md` shows, made by another implementation (Python's hashlib and
    /// cryptography).
    #[test]
    fn codes_and_cookies_are_as_documented() {
        let addressee = Addressee::new(&[7; 32]);
        let mut message = vec![2, 0, 0, 0, 1, 2, 3, 4];
        message.extend(0..0x33_u8);
        let len = message.len();
        addressee.sign(&mut message, Some(&[9; 16]));
        let (mac1, mac2) = message[len..].split_at(MAC_LEN);
        assert_eq!(
            mac1,
            [
                0x0d, 0x99, 0x11, 0xc2, 0xac, 0xf4, 0x86, 0x93, 0xb3, 0x0a, 0xdf, 0xf3, 0x00, 0x5b,
                0xb1, 0xea
            ]
        );
        assert_eq!(
            mac2,
            [
                0x95, 0xb2, 0x65, 0x20, 0xbc, 0xd2, 0x13, 0xb4, 0xb6, 0xe4, 0x04, 0xfc, 0x60, 0x8e,
                0xdb, 0x49
            ]
        );
        assert!(matches!(
            parse(&message),
            Some(Parsed::Response {
                index: 0x0102_0304,
                ..
            })
        ));
        let nonce = std::array::from_fn(|i| 0x10 + u8::try_from(i).unwrap());
        let sealed = [
            0x59, 0x47, 0x2c, 0x72, 0x45, 0xca, 0x99, 0x1e, 0x2f, 0x18, 0x9f, 0x57, 0x48, 0x9c,
            0x8b, 0xba, 0x12, 0x59, 0x7e, 0x94, 0xbc, 0x64, 0xc7, 0xb1, 0x1c, 0xea, 0xe5, 0xf3,
            0x85, 0x3b, 0x09, 0x7d,
        ];
        assert_eq!(addressee.read_reply(nonce, &sealed, mac1), Some([9; 16]));
        let page = include_str!("../../../docs/wire-format.md");
        for bytes in [mac1, mac2, &sealed[..16], &sealed[16..]] {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(page.contains(&hex.join(" ")), "{}", hex.join(" "));
        }
    }

    #[test]
    fn only_who_knows_the_key_can_sign() {
        let to = Addressee::new(&[1; 32]);
        let mut message = message(&to, None);
        assert!(to.is_signed(&macs(&message)));
        assert!(!Addressee::new(&[2; 32]).is_signed(&macs(&message)));
        message[20] ^= 1;
        assert!(!to.is_signed(&macs(&message)));
    }

    #[test]
    fn under_load_a_cookie_admits_the_address_that_received_it() {
        let to = Addressee::new(&[1; 32]);
        let mut entropy = Entropy::new([3; 32]);
        let now = Duration::from_secs(9);
        let mut gate = Gate::new(4, &mut entropy, now);
        let plain = message(&to, None);
        for _ in 0..4 {
            assert_eq!(
                gate.admit(&macs(&plain), FROM(1), &mut entropy, now),
                Admission::Yes
            );
        }
        let Admission::AskCookie(cookie) = gate.admit(&macs(&plain), FROM(1), &mut entropy, now)
        else {
            panic!("no cookie is asked for");
        };
        let reply = to.reply(7, &macs(&plain), cookie, &mut entropy);
        let Some(Parsed::Cookie {
            index: 7,
            nonce,
            sealed,
        }) = parse(&reply)
        else {
            panic!("no cookie");
        };
        assert_eq!(to.read_reply(nonce, sealed, &[0; 16]), None);
        let cookie = to.read_reply(nonce, sealed, macs(&plain).mac1()).unwrap();
        let again = message(&to, Some(&cookie));
        // From elsewhere it is of no use.
        let elsewhere = gate.admit(&macs(&again), FROM(2), &mut entropy, now);
        assert!(matches!(elsewhere, Admission::AskCookie(_)));
        for _ in 0..5 {
            assert_eq!(
                gate.admit(&macs(&again), FROM(1), &mut entropy, now),
                Admission::Yes
            );
        }
        assert_eq!(
            gate.admit(&macs(&again), FROM(1), &mut entropy, now),
            Admission::No
        );
        // After a second there is room again for those without one.
        let later = now + Duration::from_secs(1);
        assert_eq!(
            gate.admit(&macs(&plain), FROM(3), &mut entropy, later),
            Admission::Yes
        );
    }

    #[test]
    fn a_cookie_ends() {
        let to = Addressee::new(&[1; 32]);
        let mut entropy = Entropy::new([3; 32]);
        let mut gate = Gate::new(0, &mut entropy, Duration::ZERO);
        let plain = message(&to, None);
        let Admission::AskCookie(cookie) =
            gate.admit(&macs(&plain), FROM(1), &mut entropy, Duration::ZERO)
        else {
            panic!("no cookie is asked for");
        };
        let again = message(&to, Some(&cookie));
        for (seconds, taken) in [(0, true), (130, true), (260, false)] {
            let now = Duration::from_secs(seconds);
            let admission = gate.admit(&macs(&again), FROM(1), &mut entropy, now);
            assert_eq!(admission == Admission::Yes, taken, "{seconds}");
        }
    }
}
