//! The messages of a handshake: made, read, and what follows from them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use snow::HandshakeState;
use wire::PeerId;
use zeroize::Zeroize as _;

use super::{Pending, Route, SessionOutput, SessionTiming, Sessions};
use crate::noise::cookie::{Admission, COOKIE_LIFE};
use crate::noise::datagram::{
    CHOICE_LEN, INITIATION, INITIATION_LEN, Macs, OFFER_LEN, Offer, Parsed, RESPONSE, RESPONSE_LEN,
    head, parse,
};
use crate::noise::keys::{AGGREGATES, CipherChoice, DirectionKey};
use crate::noise::random::Entropy;
use crate::noise::secret::{Psk, Secrets, identity};
use crate::noise::slots::{Session, Slots};

/// The handshake (Noise §9.4): IK, with the pre-shared key at the end of the first message.
const PATTERN: &str = "Noise_IKpsk1_25519_ChaChaPoly_BLAKE2s";
const PSK_PLACE: u8 = 1;
/// Begins what both sides hash before anything else, the identities after it.
const PROLOGUE: &[u8] = b"weft session 1";
/// Attempts for which the side with the smaller identity waits before it gives way after all: the
/// other side may not hear it.
const STUBBORN: u32 = 3;

impl Sessions {
    /// Sends an initiation in place of the one that waits, if any.
    pub(super) fn initiate(&mut self, id: PeerId, attempt: u32, until: Duration, now: Duration) {
        let Some(peer) = self.peers.get_mut(&id) else {
            return;
        };
        peer.epoch = free_epoch(peer.epoch, &peer.slots);
        self.number += 1;
        let offer = Offer {
            start: self.config.start,
            number: self.number,
            epoch: peer.epoch,
            ciphers: self.offered,
        };
        let Secrets {
            private, passwords, ..
        } = &self.config.secrets;
        let Some(psk) = passwords.first() else {
            return;
        };
        let mut state = builder(&mut self.entropy)
            .local_private_key(private)
            .and_then(|b| b.remote_public_key(&peer.public))
            .and_then(|b| b.psk(PSK_PLACE, psk.bytes()))
            .and_then(|b| {
                b.prologue(&prologue(self.config.id, id))
                    .and_then(|b| b.build_initiator())
            })
            .expect("the pattern has these keys");
        let index = u32::from_be_bytes(self.entropy.bytes());
        let mut message = head(INITIATION, index).to_vec();
        let mut noise = [0; INITIATION_LEN];
        let written = state
            .write_message(&offer.bytes(), &mut noise)
            .expect("the first message is this node's, and the buffer is long enough");
        message.extend(&noise[..written]);
        let cookie = peer.cookie.filter(|(_, at)| *at + COOKIE_LIFE > now);
        peer.addressee
            .sign(&mut message, cookie.as_ref().map(|(cookie, _)| cookie));
        debug_assert_eq!(message.len(), INITIATION_LEN);
        let mut mac1 = [0; 16];
        mac1.copy_from_slice(Macs { whole: &message }.mac1());

        let timing = &self.config.timing;
        let wait = timing.retry * 2_u32.pow(attempt.min(10));
        // A little more, so that two that began at once do not go on so.
        let wait =
            wait.min(timing.retry_max) + timing.retry.mul_f64(fraction(&mut self.entropy)) / 4;
        peer.pending = Some(Box::new(Pending {
            index,
            epoch: offer.epoch,
            state,
            mac1,
            attempt,
            again: now + wait,
            until,
        }));
        self.counters.initiations_sent += 1;
        self.outputs.push_back(SessionOutput::Send {
            to: id,
            route: Route::Link,
            message,
        });
        self.schedule(id, now);
    }

    pub(super) fn received(
        &mut self,
        from: PeerId,
        origin: SocketAddr,
        message: &[u8],
        now: Duration,
    ) {
        match parse(message) {
            Some(Parsed::Initiation { index, noise, macs }) => {
                self.initiation(from, origin, index, noise, macs, now);
            }
            Some(Parsed::Response { index, noise, macs }) => {
                self.response(from, index, noise, macs, now);
            }
            Some(Parsed::Cookie {
                index,
                nonce,
                sealed,
            }) => {
                self.cookie(from, index, nonce, sealed, now);
            }
            None => self.counters.malformed += 1,
        }
    }

    fn initiation(
        &mut self,
        from: PeerId,
        origin: SocketAddr,
        index: u32,
        noise: &[u8],
        macs: Macs<'_>,
        now: Duration,
    ) {
        if !self.me.is_signed(&macs) {
            self.counters.unsigned += 1;
            return;
        }
        match self.gate.admit(&macs, origin, &mut self.entropy, now) {
            Admission::Yes => {}
            Admission::AskCookie(cookie) => {
                self.counters.cookies_sent += 1;
                let message = self.me.reply(index, &macs, cookie, &mut self.entropy);
                return self.outputs.push_back(SessionOutput::Send {
                    to: from,
                    route: Route::Back(origin),
                    message,
                });
            }
            Admission::No => {
                self.counters.overload += 1;
                return;
            }
        }
        let Some((state, offer, psk)) = self.read_initiation(from, noise) else {
            self.counters.other_password += 1;
            return;
        };
        let public = state
            .get_remote_static()
            .and_then(|key| key.try_into().ok());
        let Some(public) = public.filter(|key| identity(key) == from && from != self.config.id)
        else {
            self.counters.unsigned += 1;
            return;
        };
        if !self.allows(&public) {
            self.counters.not_allowed += 1;
            return;
        }
        // Two keys with one identity cannot be come by; if somebody did, the first one has it.
        if self
            .peers
            .get(&from)
            .is_some_and(|peer| peer.public != public)
        {
            self.counters.unsigned += 1;
            return;
        }
        if !self.peers.contains_key(&from) {
            if self.peers.len() >= self.config.peers {
                self.counters.table_full += 1;
                return;
            }
            let peer = self.new_peer(public);
            self.peers.insert(from, peer);
        }
        let peer = self.peers.get_mut(&from).expect("it was just looked up");
        let newest = Some((offer.start, offer.number));
        if newest <= peer.newest {
            self.counters.replayed += 1;
            return;
        }
        peer.newest = newest;
        if self.config.id < from && peer.pending.as_ref().is_some_and(|p| p.attempt < STUBBORN) {
            self.counters.crossed += 1;
            return;
        }
        self.answer(from, origin, index, state, offer, psk, now);
    }

    /// Tries each password on an initiation.
    fn read_initiation(
        &mut self,
        from: PeerId,
        noise: &[u8],
    ) -> Option<(HandshakeState, Offer, Psk)> {
        let Secrets {
            private, passwords, ..
        } = &self.config.secrets;
        let prologue = prologue(from, self.config.id);
        passwords.iter().find_map(|psk| {
            let mut state = builder(&mut self.entropy)
                .local_private_key(private)
                .and_then(|b| b.psk(PSK_PLACE, psk.bytes()))
                .and_then(|b| b.prologue(&prologue).and_then(|b| b.build_responder()))
                .expect("the pattern has these keys");
            let mut offer = [0; OFFER_LEN];
            let read = state.read_message(noise, &mut offer).ok()?;
            (read == OFFER_LEN).then(|| (state, Offer::parse(&offer), psk.clone()))
        })
    }

    #[expect(clippy::too_many_arguments, reason = "what an initiation consists of")]
    fn answer(
        &mut self,
        id: PeerId,
        origin: SocketAddr,
        index: u32,
        mut state: HandshakeState,
        offer: Offer,
        psk: Psk,
        now: Duration,
    ) {
        let common = offer.ciphers & self.offered;
        let cipher = [CipherChoice::Aes256Gcm, CipherChoice::ChaCha20Poly1305]
            .into_iter()
            .find(|cipher| common & cipher.bit() != 0);
        let (Some(cipher), Some(peer)) = (cipher, self.peers.get_mut(&id)) else {
            return;
        };
        if offer.epoch == 0 {
            self.counters.malformed += 1;
            return;
        }
        // It gives way to the other side's.
        peer.pending = None;
        peer.epoch = free_epoch(peer.epoch, &peer.slots);
        let [high, low] = peer.epoch.to_be_bytes();
        let choice = cipher.bit() | self.offered & AGGREGATES;
        let mut noise = [0; RESPONSE_LEN];
        let written = state
            .write_message(&[high, low, choice], &mut noise)
            .expect("the second message is this node's, and the buffer is long enough");
        let mut message = head(RESPONSE, index).to_vec();
        message.extend(&noise[..written]);
        peer.addressee.sign(&mut message, None);
        debug_assert_eq!(message.len(), RESPONSE_LEN);
        let timing = &self.config.timing;
        let renew = timing.renew + timing.renew_other;
        let terms = Terms {
            cipher,
            sealing: Direction::new(offer.epoch, offer.ciphers),
            opening: Direction::new(peer.epoch, self.offered),
        };
        let session = session(state, false, terms, psk, renew, timing, now);
        peer.slots.answered(session);
        self.counters.answered += 1;
        // The keys first: what is sealed with them may follow the answer at once.
        self.tell(id, now);
        self.outputs.push_back(SessionOutput::Send {
            to: id,
            route: Route::Back(origin),
            message,
        });
    }

    fn response(&mut self, from: PeerId, index: u32, noise: &[u8], macs: Macs<'_>, now: Duration) {
        let peer = self.peers.get_mut(&from);
        let Some((peer, mut pending)) = peer.and_then(|peer| {
            let pending = peer.pending.take_if(|pending| pending.index == index)?;
            Some((peer, pending))
        }) else {
            self.counters.unexpected += 1;
            return;
        };
        let mut choice = [0; CHOICE_LEN];
        let read = if self.me.is_signed(&macs) {
            pending.state.read_message(noise, &mut choice).ok()
        } else {
            None
        };
        let [high, low, choice] = choice;
        let epoch = u16::from_be_bytes([high, low]);
        let cipher = CipherChoice::of_bit(choice & self.offered & !AGGREGATES);
        let (Some(CHOICE_LEN), Some(cipher), 1..) = (read, cipher, epoch) else {
            // Forged, or damaged: the true answer may still come.
            peer.pending = Some(pending);
            self.counters.unsigned += 1;
            return;
        };
        let timing = &self.config.timing;
        let psk = self.config.secrets.passwords.first().cloned();
        let psk = psk.expect("a handshake was begun with it");
        // Not all at the same moment, however many began at once.
        let renew = timing
            .renew
            .mul_f64(0.05f64.mul_add(-fraction(&mut self.entropy), 1.0));
        let terms = Terms {
            cipher,
            sealing: Direction::new(epoch, choice),
            opening: Direction::new(pending.epoch, self.offered),
        };
        let session = session(pending.state, true, terms, psk, renew, timing, now);
        peer.slots.completed(session);
        self.counters.completed += 1;
        self.tell(from, now);
        self.outputs.push_back(SessionOutput::Confirm(from));
    }

    fn cookie(&mut self, from: PeerId, index: u32, nonce: [u8; 12], sealed: &[u8], now: Duration) {
        let Some(peer) = self.peers.get_mut(&from) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(pending) = peer.pending.as_ref().filter(|p| p.index == index) else {
            self.counters.unexpected += 1;
            return;
        };
        let Some(cookie) = peer.addressee.read_reply(nonce, sealed, &pending.mac1) else {
            self.counters.unsigned += 1;
            return;
        };
        // With it, the next attempt is looked at. It keeps its time, or cookies would make haste.
        peer.cookie = Some((cookie, now));
    }
}

/// What both sides have agreed on.
#[derive(Clone, Copy)]
struct Terms {
    cipher: CipherChoice,
    sealing: Direction,
    opening: Direction,
}

/// What who opens has said: what it calls the key in headers, and whether it takes aggregates.
#[derive(Clone, Copy)]
struct Direction {
    epoch: u16,
    aggregates: bool,
}

impl Direction {
    const fn new(epoch: u16, said: u8) -> Self {
        let aggregates = said & AGGREGATES != 0;
        Self { epoch, aggregates }
    }
}

fn session(
    mut state: HandshakeState,
    began_here: bool,
    terms: Terms,
    psk: Psk,
    renew: Duration,
    timing: &SessionTiming,
    now: Duration,
) -> Session {
    let (mut of_initiator, mut of_responder) = state.dangerously_get_raw_split();
    let key = |direction: Direction, key| {
        Arc::new(DirectionKey {
            epoch: direction.epoch,
            cipher: terms.cipher,
            aggregates: direction.aggregates,
            key,
        })
    };
    let (sealing, opening) = if began_here {
        (of_initiator, of_responder)
    } else {
        (of_responder, of_initiator)
    };
    let session = Session {
        sealing: key(terms.sealing, sealing),
        opening: key(terms.opening, opening),
        psk,
        began: now,
        renew: now + renew,
        sealed_until: now + timing.seal,
        opened_until: now + timing.open,
    };
    of_initiator.zeroize();
    of_responder.zeroize();
    session
}

pub(super) fn builder(entropy: &mut Entropy) -> snow::Builder<'static> {
    let params = PATTERN.parse().expect("the pattern is one of Noise's");
    snow::Builder::with_resolver(params, entropy.resolver())
}

fn prologue(initiator: PeerId, responder: PeerId) -> Vec<u8> {
    [PROLOGUE, &initiator.0, &responder.0].concat()
}

/// The next epoch that no key in use has; 0 stands for none.
fn free_epoch(last: u16, slots: &Slots) -> u16 {
    let mut epoch = last;
    loop {
        epoch = epoch.wrapping_add(1);
        if epoch != 0 && !slots.has_epoch(epoch) {
            return epoch;
        }
    }
}

/// A number in [0, 1).
#[expect(
    clippy::cast_precision_loss,
    reason = "32 bits fit in the 53 of a float"
)]
fn fraction(entropy: &mut Entropy) -> f64 {
    (entropy.next_u64() >> 32) as f64 / (1_u64 << 32) as f64
}
