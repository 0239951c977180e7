use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn secrets(n: u8, passwords: &[u8]) -> Secrets {
    let params = PATTERN.parse().unwrap();
    let builder = snow::Builder::with_resolver(params, Entropy::new([n; 32]).resolver());
    let pair = builder.generate_keypair().unwrap();
    Secrets {
        private: pair.private.try_into().unwrap(),
        public: pair.public.try_into().unwrap(),
        passwords: passwords.iter().map(|n| Psk::new([*n; 32])).collect(),
    }
}

fn channel(side: Side, n: u8, passwords: &[u8]) -> Channel {
    Channel::new(side, &secrets(n, passwords), None, [n + 100; 32])
}

type Ends = (Result<Secured, ChannelError>, Result<Secured, ChannelError>);

/// Carries bytes between both sides, `cut` at a time, until both have an end.
fn connect(mut accepted: Channel, mut dialled: Channel, cut: usize) -> (Ends, Vec<u8>, Vec<u8>) {
    let (mut a, mut d) = (None, None);
    let (mut from_accepted, mut from_dialled) = (Vec::new(), Vec::new());
    let mut done = (0, 0);
    for _ in 0..2000 {
        from_accepted.extend(accepted.outgoing());
        from_dialled.extend(dialled.outgoing());
        let next = |from: &[u8], done: &mut usize| {
            let end = from.len().min(*done + cut);
            let bytes = from[*done..end].to_vec();
            *done = end;
            bytes
        };
        let to_dialled = next(&from_accepted, &mut done.0);
        let to_accepted = next(&from_dialled, &mut done.1);
        if d.is_none() {
            d = dialled.receive(&to_dialled).transpose();
        }
        if a.is_none() {
            a = accepted.receive(&to_accepted).transpose();
        }
        if a.is_some() && d.is_some() {
            break;
        }
    }
    from_accepted.extend(accepted.outgoing());
    from_dialled.extend(dialled.outgoing());
    let ends = (
        a.expect("it comes to an end"),
        d.expect("it comes to an end"),
    );
    (ends, from_accepted, from_dialled)
}

#[test]
fn members_talk() {
    for cut in [1, 7, 4096] {
        let (accepted, dialled) = (
            channel(Side::Accepted, 1, &[1]),
            channel(Side::Dialled, 2, &[1]),
        );
        let ((a, d), ..) = connect(accepted, dialled, cut);
        let (mut a, mut d) = (a.unwrap(), d.unwrap());
        assert_eq!(a.public, secrets(2, &[]).public);
        assert_eq!(d.public, secrets(1, &[]).public);
        // Beyond the life of a key.
        for i in 0..2100_u32 {
            let text = i.to_be_bytes();
            assert_eq!(d.receiver.open(&a.sender.seal(&text)).unwrap(), text);
            assert_eq!(a.receiver.open(&d.sender.seal(&text)).unwrap(), text);
        }
        let long: Vec<u8> = (0..100_000_u32).map(|i| i.to_le_bytes()[0]).collect();
        let sealed = a.sender.seal(&long);
        let mut opened = Vec::new();
        for part in sealed.chunks(1000) {
            opened.extend(d.receiver.open(part).unwrap());
        }
        assert_eq!(opened, long);
    }
}

#[test]
fn who_dials_without_the_password_learns_nothing_and_is_told_why() {
    let (accepted, dialled) = (
        channel(Side::Accepted, 1, &[1]),
        channel(Side::Dialled, 2, &[2]),
    );
    let ((a, d), from_accepted, _) = connect(accepted, dialled, 4096);
    assert_eq!(a.unwrap_err(), ChannelError::OtherPassword);
    let Err(ChannelError::Refused(refusal)) = d else {
        panic!("{d:?}");
    };
    assert_eq!(refusal.code, RefusalCode::Password);
    // A preamble, a random number with its tag, and the refusal: no key, no name.
    let mut refused = Vec::new();
    frame::emit(&Message::Refuse(refusal), &mut refused);
    assert_eq!(
        from_accepted.len(),
        PREAMBLE_LEN + 5 + 32 + TAG_LEN + refused.len()
    );
    let public = secrets(1, &[]).public;
    assert!(!from_accepted.windows(32).any(|bytes| bytes == public));
}

#[test]
fn either_of_two_passwords_is_accepted() {
    for (of_accepted, of_dialled) in [(&[1, 2][..], &[2, 1][..]), (&[1, 2], &[2]), (&[2, 1], &[1])]
    {
        let accepted = channel(Side::Accepted, 1, of_accepted);
        let dialled = channel(Side::Dialled, 2, of_dialled);
        let ((a, d), ..) = connect(accepted, dialled, 4096);
        let (a, d) = (a.unwrap(), d.unwrap());
        assert_eq!(a.psk, Psk::new([of_dialled[0]; 32]));
        assert_eq!(a.psk, d.psk);
    }
}

/// A plain node waits for the reason: what it does not know it passes over.
#[test]
fn a_plain_node_takes_the_handshake_for_no_message_of_its_own() {
    let sent = channel(Side::Accepted, 1, &[1]).outgoing();
    let mut deframer = frame::Deframer::new();
    deframer.push(&sent);
    assert_eq!(
        deframer.next_message(frame::Stage::Handshake),
        Ok(Some(Message::Unknown(kind::NOISE)))
    );
}

#[test]
fn a_plain_node_is_told_that_there_is_a_password() {
    for side in [Side::Accepted, Side::Dialled] {
        let mut channel = channel(side, 1, &[1]);
        channel.outgoing();
        let mut plain = preamble().to_vec();
        plain.extend([0, 0, 4, 0, kind::HELLO]);
        assert_eq!(
            channel.receive(&plain).unwrap_err(),
            ChannelError::PeerIsPlain
        );
        let mut told = frame::Deframer::new();
        told.push(&preamble());
        told.push(&channel.outgoing());
        let Ok(Some(Message::Refuse(refusal))) = told.next_message(frame::Stage::Handshake) else {
            panic!("it is not told");
        };
        assert_eq!(refusal.code, RefusalCode::Plain);
    }
}

#[test]
fn a_stolen_password_is_not_enough_where_keys_are_named() {
    let allowed = BTreeSet::from([Fingerprint::of(&secrets(3, &[]).public)]);
    for n in [2, 3] {
        let own = secrets(1, &[1]);
        let accepted = Channel::new(Side::Accepted, &own, Some(allowed.clone()), [9; 32]);
        let ((a, d), ..) = connect(accepted, channel(Side::Dialled, n, &[1]), 4096);
        assert_eq!(a.is_ok(), n == 3);
        if n == 2 {
            assert!(matches!(a, Err(ChannelError::NotAllowed(_))));
            assert!(
                matches!(d, Err(ChannelError::Refused(r)) if r.code == RefusalCode::NotAllowed)
            );
        }
        // The same from the side that dials, which has the last word.
        let dialled = Channel::new(Side::Dialled, &own, Some(allowed.clone()), [9; 32]);
        let ((a, d), _, from_dialled) = connect(channel(Side::Accepted, n, &[1]), dialled, 4096);
        assert_eq!(d.is_ok(), n == 3);
        if n == 2 {
            let handshake = PREAMBLE_LEN + 5 + 32 + 32 + 2 * TAG_LEN;
            let mut told = frame::Deframer::new();
            let mut receiver = a.unwrap().receiver;
            told.push(&receiver.open(&from_dialled[handshake..]).unwrap());
            let told = told.next_message(frame::Stage::Handshake);
            assert!(
                matches!(told, Ok(Some(Message::Refuse(r))) if r.code == RefusalCode::NotAllowed)
            );
        }
    }
}

#[test]
fn records_are_neither_changed_nor_left_out_nor_repeated() {
    let make = || {
        let (accepted, dialled) = (
            channel(Side::Accepted, 1, &[1]),
            channel(Side::Dialled, 2, &[1]),
        );
        let ((a, d), ..) = connect(accepted, dialled, 4096);
        (a.unwrap().sender, d.unwrap().receiver)
    };
    let (mut sender, mut receiver) = make();
    let first = sender.seal(b"first");
    let second = sender.seal(b"second");
    assert_eq!(receiver.open(&second), Err(ChannelError::Malformed));
    let (_, mut receiver) = make();
    assert_eq!(receiver.open(&first).unwrap(), b"first");
    assert_eq!(receiver.open(&first), Err(ChannelError::Malformed));
    for at in 0..first.len() {
        let (_, mut receiver) = make();
        let mut changed = first.clone();
        changed[at] ^= 1;
        // A longer length waits for bytes that never come.
        assert!(
            receiver.open(&changed).is_ok_and(|plain| plain.is_empty()) || at >= 1,
            "{at}"
        );
    }
}

#[test]
fn another_protocol_or_version_is_named() {
    let mut accepted = channel(Side::Accepted, 1, &[1]);
    assert_eq!(
        accepted.receive(b"GET / HT").unwrap_err(),
        ChannelError::NotWeft
    );
    let mut accepted = channel(Side::Accepted, 1, &[1]);
    let error = accepted.receive(b"weft\xff\x00\xff\x01").unwrap_err();
    assert_eq!(
        error,
        ChannelError::Version {
            oldest: 0xff00,
            newest: 0xff01
        }
    );
}

proptest! {
    #[test]
    fn i6_any_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..3000), accepts: bool) {
        let side = if accepts { Side::Accepted } else { Side::Dialled };
        let mut channel = channel(side, 1, &[1]);
        prop_assert!(!matches!(channel.receive(&bytes), Ok(Some(_))));
        let mut greeted = preamble().to_vec();
        greeted.extend(&bytes);
        let mut channel = self::channel(side, 1, &[1]);
        prop_assert!(!matches!(channel.receive(&greeted), Ok(Some(_))));
        prop_assert!(channel.received.len() <= PREAMBLE_LEN + bytes.len());
    }

    #[test]
    fn i6_any_record_is_refused(bytes in prop::collection::vec(any::<u8>(), 18..3000)) {
        let mut receiver = RecordOpener { ratchet: Ratchet::new(Zeroizing::new([1; 32])), received: Vec::new() };
        prop_assert!(receiver.open(&bytes).map_or(true, |plain| plain.is_empty()));
    }
}
