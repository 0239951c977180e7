use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;

use super::handshake::builder;
use super::*;
use crate::noise::datagram::{INITIATION, INITIATION_LEN, RESPONSE};
use crate::noise::keys::{DirectionKey, SessionKeys};
use crate::noise::secret::Secrets;

const S: fn(u64) -> Duration = Duration::from_secs;
const MS: fn(u64) -> Duration = Duration::from_millis;

fn key_pair(n: u8) -> ([u8; 32], [u8; 32]) {
    let mut entropy = Entropy::new([n; 32]);
    let pair = builder(&mut entropy).generate_keypair().unwrap();
    (
        pair.private.try_into().unwrap(),
        pair.public.try_into().unwrap(),
    )
}

fn psk(n: u8) -> Psk {
    Psk::new([n; 32])
}

fn config(n: u8, start: u64, passwords: &[u8]) -> SessionConfig {
    let (private, public) = key_pair(n);
    SessionConfig {
        id: identity(&public),
        secrets: Secrets {
            private,
            public,
            passwords: passwords.iter().map(|n| psk(*n)).collect(),
        },
        start,
        ciphers: vec![CipherChoice::Aes256Gcm],
        aggregates: true,
        allowed: None,
        seed: [n ^ u8::try_from(start % 256).unwrap(); 32],
        timing: SessionTiming::default(),
        peers: 8,
    }
}

/// What the network does to one message.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Arrives(Duration),
    Lost,
    Twice(Duration, Duration),
}

#[derive(Debug, Clone)]
enum Packet {
    Handshake(Vec<u8>),
    /// Something sealed with this key, or an empty frame that only shows the key.
    Sealed(Arc<DirectionKey>),
}

struct Node {
    sessions: Sessions,
    keys: BTreeMap<PeerId, SessionKeys>,
    used: HashSet<(PeerId, u16, [u8; 32])>,
}

impl Node {
    fn new(config: SessionConfig, now: Duration) -> Self {
        Self {
            sessions: Sessions::new(config, now),
            keys: BTreeMap::new(),
            used: HashSet::new(),
        }
    }
}

/// Nodes on a network whose every deed is given.
struct World {
    nodes: Vec<Node>,
    now: Duration,
    wire: BTreeMap<(Duration, u64), (usize, usize, Packet)>,
    sent: u64,
    fates: Vec<Fate>,
    handshakes: Vec<Vec<u8>>,
    /// Sealed datagrams that arrived and could not be opened; those that could.
    lost: u64,
    opened: u64,
}

impl World {
    fn new(configs: impl IntoIterator<Item = SessionConfig>, fates: &[Fate]) -> Self {
        let mut world = Self {
            nodes: configs
                .into_iter()
                .map(|config| Node::new(config, Duration::ZERO))
                .collect(),
            now: Duration::ZERO,
            wire: BTreeMap::new(),
            sent: 0,
            fates: fates.to_vec(),
            handshakes: Vec::new(),
            lost: 0,
            opened: 0,
        };
        world.acquaint();
        world
    }

    /// Gossip tells all of each other.
    fn acquaint(&mut self) {
        for node in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                let config = &self.nodes[other].sessions.config;
                let (id, public) = (config.id, config.secrets.public);
                self.tell(node, SessionInput::Peer { id, public });
            }
        }
    }

    fn id(&self, node: usize) -> PeerId {
        self.nodes[node].sessions.config.id
    }

    fn tell(&mut self, node: usize, input: SessionInput<'_>) {
        self.nodes[node].sessions.handle(input, self.now);
        while let Some(output) = self.nodes[node].sessions.poll_output() {
            match output {
                SessionOutput::Send { to, message, .. } => {
                    self.handshakes.push(message.clone());
                    self.send(node, to, &Packet::Handshake(message));
                }
                SessionOutput::Keys { id, keys } => {
                    self.nodes[node].keys.insert(id, keys);
                }
                SessionOutput::Confirm(id) => self.seal(node, id),
            }
        }
    }

    /// Handshakes have the fate that is given, sealed datagrams arrive.
    fn send(&mut self, from: usize, to: PeerId, packet: &Packet) {
        let Some(to) = (0..self.nodes.len()).find(|node| self.id(*node) == to) else {
            return;
        };
        let turn = usize::try_from(self.sent).unwrap();
        let fate = match packet {
            Packet::Sealed(_) => Fate::Arrives(MS(5)),
            Packet::Handshake(_) if self.fates.is_empty() => Fate::Arrives(MS(5)),
            Packet::Handshake(_) => self.fates[turn % self.fates.len()],
        };
        let arrivals = match fate {
            Fate::Arrives(after) => vec![after],
            Fate::Lost => vec![],
            Fate::Twice(first, second) => vec![first, second],
        };
        self.sent += 1;
        for (copy, after) in (0..).zip(arrivals) {
            let at = (self.now + after, self.sent * 2 + copy);
            self.wire.insert(at, (from, to, packet.clone()));
        }
    }

    /// A pod's frame: sealed, or wanting a session. Whether it left.
    fn frame(&mut self, from: usize, to: usize) -> bool {
        let id = self.id(to);
        let sealing = self.nodes[from]
            .keys
            .get(&id)
            .and_then(|k| k.sealing.clone());
        if sealing.is_some() {
            self.seal(from, id);
            self.tell(
                from,
                SessionInput::Active {
                    id,
                    sealed: 1,
                    opened: false,
                },
            );
            true
        } else {
            self.tell(from, SessionInput::Want(id));
            false
        }
    }

    fn seal(&mut self, from: usize, to: PeerId) {
        let keys = self.nodes[from].keys.get(&to);
        if let Some(key) = keys.and_then(|keys| keys.sealing.clone()) {
            self.send(from, to, &Packet::Sealed(key));
        }
    }

    fn deliver(&mut self, from: usize, to: usize, packet: Packet) {
        let source = self.id(from);
        match packet {
            Packet::Handshake(message) => {
                let origin = SocketAddr::from(([192, 0, 2, u8::try_from(from).unwrap()], 6783));
                let message = &message;
                self.tell(
                    to,
                    SessionInput::Received {
                        from: source,
                        origin,
                        message,
                    },
                );
            }
            Packet::Sealed(key) => {
                let keys = self.nodes[to].keys.get(&source);
                let opens = keys.is_some_and(|keys| keys.opening.iter().any(|open| **open == *key));
                if !opens {
                    self.lost += 1;
                    return self.tell(to, SessionInput::Lost(source));
                }
                self.opened += 1;
                self.tell(
                    to,
                    SessionInput::Active {
                        id: source,
                        sealed: 0,
                        opened: true,
                    },
                );
                if self.nodes[to].used.insert((source, key.epoch, key.key)) {
                    self.tell(
                        to,
                        SessionInput::Used {
                            id: source,
                            epoch: key.epoch,
                        },
                    );
                }
            }
        }
    }

    fn run(&mut self, until: Duration) {
        loop {
            let arrival = self.wire.first_key_value().map(|((at, _), _)| *at);
            let due = (0..self.nodes.len())
                .filter_map(|n| Some((self.nodes[n].sessions.poll_timeout()?, n)))
                .min();
            let next = arrival.into_iter().chain(due.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|at| *at <= until) else {
                break;
            };
            self.now = self.now.max(next);
            if arrival == Some(next) {
                let (_, (from, to, packet)) = self.wire.pop_first().unwrap();
                self.deliver(from, to, packet);
            } else if let Some((_, node)) = due {
                self.tell(node, SessionInput::Timeout);
            }
        }
        self.now = until;
    }

    /// Frames both ways every `gap` until then.
    fn traffic(&mut self, until: Duration, gap: Duration) {
        while self.now < until {
            self.frame(0, 1);
            self.frame(1, 0);
            self.run(self.now + gap);
        }
    }

    fn works(&mut self) -> bool {
        let opened = self.opened;
        let left = self.frame(0, 1) && self.frame(1, 0);
        self.run(self.now + S(1));
        left && self.opened >= opened + 2
    }

    fn counters(&self, node: usize) -> SessionCounters {
        self.nodes[node].sessions.counters()
    }
}

fn two() -> World {
    World::new([config(1, 1, &[1]), config(2, 1, &[1])], &[])
}

#[test]
fn a_frame_makes_a_session_in_one_round_trip() {
    let mut world = two();
    assert!(!world.frame(0, 1));
    world.run(MS(10));
    assert!(world.frame(0, 1), "the answer came after 10 ms");
    world.run(MS(16));
    assert!(world.frame(1, 0), "the confirmation came 5 ms later");
    world.run(MS(30));
    assert_eq!((world.opened, world.lost), (3, 0));
    let (a, b) = (world.counters(0), world.counters(1));
    assert_eq!((a.initiations_sent, a.completed, b.answered), (1, 1, 1));
    let view = world.nodes[0].sessions.view(world.id(1), S(2)).unwrap();
    assert_eq!(view.cipher, CipherChoice::Aes256Gcm);
    assert!(world.works());
}

/// Whoever begins: each is sent aggregates if it said that it takes them. A build that knows nothing of them
/// says nothing.
#[test]
fn a_peer_is_sent_aggregates_if_it_takes_them() {
    for takes in [[true, true], [true, false], [false, true], [false, false]] {
        let mut configs = [config(1, 1, &[1]), config(2, 1, &[1])];
        for (config, takes) in configs.iter_mut().zip(takes) {
            config.aggregates = takes;
        }
        let mut world = World::new(configs, &[]);
        world.frame(0, 1);
        world.run(S(1));
        assert!(world.works());
        for (node, peer) in [(0, 1), (1, 0)] {
            let keys = &world.nodes[node].keys[&world.id(peer)];
            assert_eq!(keys.sealing.as_ref().unwrap().aggregates, takes[peer]);
        }
    }
}

#[test]
fn who_answers_seals_nothing_before_it_has_heard_the_key_used() {
    let mut world = two();
    world.frame(0, 1);
    world.run(MS(6));
    let keys = &world.nodes[1].keys[&world.id(0)];
    assert!(keys.sealing.is_none() && keys.opening.len() == 1);
}

#[test]
fn ciphers_are_those_of_both() {
    let mut slow = config(2, 1, &[1]);
    slow.ciphers.clear();
    for configs in [[config(1, 1, &[1]), slow], {
        let mut slow = config(1, 1, &[1]);
        slow.ciphers.clear();
        [slow, config(2, 1, &[1])]
    }] {
        let mut world = World::new(configs, &[]);
        world.frame(0, 1);
        world.run(S(1));
        let view = world.nodes[0].sessions.view(world.id(1), S(1)).unwrap();
        assert_eq!(view.cipher, CipherChoice::ChaCha20Poly1305);
        assert!(world.works());
    }
}

#[test]
fn both_sides_at_once_end_with_one_session() {
    let mut world = two();
    world.frame(0, 1);
    world.frame(1, 0);
    world.run(S(1));
    assert!(world.works());
    let completed = world.counters(0).completed + world.counters(1).completed;
    assert_eq!(completed, 1);
    assert_eq!(world.counters(0).crossed + world.counters(1).crossed, 1);
}

#[test]
fn i5_sessions_are_replaced_under_traffic_without_a_loss() {
    let mut world = two();
    world.traffic(S(1300), MS(100));
    let completed = world.counters(0).completed + world.counters(1).completed;
    assert!((10..=13).contains(&completed), "{completed}");
    assert_eq!(world.lost, 0);
    for node in [0, 1] {
        let other = world.id(1 - node);
        let age = world.nodes[node]
            .sessions
            .view(other, world.now)
            .unwrap()
            .age;
        assert!(age < S(125), "{age:?}");
    }
}

/// Attempts to replace a session become rare while none gets through. When the network is well again
/// just before the session's end, the next one must not come too late.
#[test]
fn a_session_whose_replacement_was_held_up_does_not_end_first() {
    for early in 0..16 {
        let mut world = two();
        world.traffic(S(90), MS(50));
        world.fates = vec![Fate::Lost];
        world.traffic(S(169) - MS(250) * early, MS(50));
        world.fates.clear();
        let mut refused = 0;
        while world.now < S(180) {
            refused += u32::from(!world.frame(0, 1)) + u32::from(!world.frame(1, 0));
            world.run(world.now + MS(50));
        }
        assert_eq!((refused, world.lost), (0, 0), "{early}");
    }
}

#[test]
fn many_datagrams_replace_a_session_early() {
    let mut world = two();
    world.frame(0, 1);
    world.run(S(1));
    let id = world.id(1);
    world.tell(
        0,
        SessionInput::Active {
            id,
            sealed: 1 << 35,
            opened: false,
        },
    );
    world.run(S(2));
    assert_eq!(world.counters(0).completed, 2);
    assert!(world.works());
}

#[test]
fn a_session_that_nobody_uses_ends_and_comes_back_when_wanted() {
    let mut world = two();
    world.frame(0, 1);
    world.run(S(200));
    let keys = &world.nodes[0].keys[&world.id(1)];
    assert!(keys.sealing.is_none() && keys.opening.is_empty());
    assert_eq!(world.counters(0).completed, 1);
    assert!(
        world.nodes[0].sessions.poll_timeout().is_none(),
        "nothing is left to do"
    );
    world.frame(1, 0);
    world.run(S(201));
    assert!(world.works());
}

#[test]
fn a_peer_that_does_not_answer_is_given_up_and_tried_again_when_wanted() {
    let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[1])], &[Fate::Lost]);
    world.frame(0, 1);
    world.run(S(300));
    let sent = world.counters(0).initiations_sent;
    assert!((15..=30).contains(&sent), "{sent}");
    assert_eq!(world.counters(0).given_up, 1);
    world.fates.clear();
    world.frame(0, 1);
    world.run(S(301));
    assert!(world.works());
}

#[test]
fn i7_a_restarted_side_is_heard_again_at_once() {
    for restarted in [0, 1] {
        let mut world = two();
        world.traffic(S(2), MS(50));
        let n = u8::try_from(restarted).unwrap() + 1;
        world.nodes[restarted] = Node::new(config(n, 2, &[1]), world.now);
        world.acquaint();
        // The other side still seals with the old keys, and only it has something to say.
        let end = world.now + S(1);
        while world.now < end {
            world.frame(1 - restarted, restarted);
            world.run(world.now + MS(20));
        }
        assert!(world.lost <= 3, "{}", world.lost);
        assert!(world.works());
    }
}

/// Forged datagrams say that a session is lost, too: while the peer is heard nobody believes them.
#[test]
fn a_peer_that_is_heard_has_lost_nothing() {
    let mut world = two();
    world.traffic(S(3), MS(50));
    let sent =
        |world: &World| world.counters(0).initiations_sent + world.counters(1).initiations_sent;
    let before = sent(&world);
    let peer = world.id(1);
    for _ in 0..100 {
        world.tell(0, SessionInput::Lost(peer));
        world.traffic(world.now + MS(50), MS(50));
    }
    assert_eq!(sent(&world), before);
    // One that is silent is asked, and not often.
    world.run(world.now + S(6));
    for _ in 0..10 {
        world.tell(0, SessionInput::Lost(peer));
        world.run(world.now + MS(50));
    }
    assert_eq!(sent(&world), before + 1);
    assert!(world.works());
}

#[test]
fn a_replayed_initiation_is_dropped_over_the_senders_restart_too() {
    let mut world = two();
    world.frame(0, 1);
    world.run(S(1));
    world.nodes[0] = Node::new(config(1, 2, &[1]), world.now);
    world.acquaint();
    world.frame(0, 1);
    world.run(S(2));
    assert_eq!(world.counters(1).answered, 2);
    for message in world.handshakes.clone() {
        world.deliver(0, 1, Packet::Handshake(message.clone()));
        world.deliver(1, 0, Packet::Handshake(message));
    }
    world.run(S(3));
    assert_eq!(world.counters(1).answered, 2);
    assert_eq!(world.counters(1).replayed, 2);
    assert_eq!(world.counters(0).answered, 0);
    assert!(world.works());
}

#[test]
fn another_password_makes_no_session_and_no_answer() {
    let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[2])], &[]);
    world.frame(0, 1);
    world.run(S(5));
    assert!(world.counters(1).other_password >= 2);
    assert_eq!(world.counters(1).answered, 0);
    // Not a byte came back.
    assert!(
        world
            .handshakes
            .iter()
            .all(|message| message[0] == INITIATION)
    );
    assert!(!world.works());
}

#[test]
fn a_password_is_replaced_without_a_loss() {
    let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[1])], &[]);
    world.traffic(S(10), MS(100));
    // Each step on one node after the other, as an operator does it.
    for step in [&[1, 2][..], &[2, 1], &[2]] {
        for node in [0, 1] {
            let passwords = step.iter().map(|n| psk(*n)).collect();
            world.tell(node, SessionInput::Passwords(passwords));
            world.traffic(world.now + S(150), MS(100));
        }
    }
    assert_eq!(world.lost, 0);
    assert!(world.works());
}

#[test]
fn sessions_of_a_password_that_is_gone_end() {
    let mut world = two();
    world.frame(0, 1);
    world.run(S(1));
    assert!(world.works());
    world.tell(0, SessionInput::Passwords(vec![psk(9)]));
    let keys = &world.nodes[0].keys[&world.id(1)];
    assert!(keys.sealing.is_none() && keys.opening.is_empty());
    assert!(!world.works());
}

#[test]
fn a_stolen_password_is_not_enough_where_peers_are_named() {
    let mut strict = config(2, 1, &[1]);
    strict.allowed = Some(BTreeSet::from([Fingerprint::of(&key_pair(3).1)]));
    let mut world = World::new([config(1, 1, &[1]), strict, config(3, 1, &[1])], &[]);
    world.frame(0, 1);
    world.run(S(2));
    assert!(world.counters(1).not_allowed >= 1);
    assert_eq!(world.counters(1).answered, 0);
    world.frame(2, 1);
    world.run(S(3));
    assert_eq!(world.counters(1).answered, 1);
}

#[test]
fn a_key_under_anothers_identity_is_not_believed() {
    let mut world = two();
    let (id, _) = (world.id(1), ());
    let mut liar = config(3, 1, &[1]);
    liar.id = id;
    let target = world.id(0);
    let mut liar = Sessions::new(liar, Duration::ZERO);
    let public = key_pair(1).1;
    liar.handle(SessionInput::Peer { id: target, public }, Duration::ZERO);
    liar.handle(SessionInput::Want(target), Duration::ZERO);
    let Some(SessionOutput::Send { message, .. }) = liar.poll_output() else {
        panic!("nothing is sent");
    };
    world.deliver(1, 0, Packet::Handshake(message));
    assert_eq!(world.counters(0).unsigned, 1);
    assert_eq!(world.counters(0).answered, 0);
}

#[test]
fn i6_a_flood_costs_cookies_and_those_who_return_them_get_in() {
    let mut busy = config(2, 1, &[1]);
    busy.timing.initiations = 0;
    let mut world = World::new([config(1, 1, &[1]), busy], &[]);
    world.frame(0, 1);
    world.run(S(2));
    assert_eq!(world.counters(1).cookies_sent, 1);
    assert_eq!(world.counters(1).answered, 1);
    assert!(world.works());
}

#[test]
fn i6_the_peer_table_is_bounded() {
    let mut small = config(1, 1, &[1]);
    small.peers = 2;
    let mut world = World::new((1..=4).map(|n| config(n, 1, &[1])), &[]);
    let full = Node::new(small, Duration::ZERO);
    world.nodes[0] = full;
    for n in 1..4 {
        world.frame(n, 0);
    }
    world.run(S(1));
    assert_eq!(world.counters(0).answered, 2);
    assert!(world.counters(0).table_full >= 1);
    let gone = world.id(1);
    world.tell(0, SessionInput::Gone(gone));
    assert!(world.nodes[0].keys[&gone].opening.is_empty());
}

#[test]
fn a_damaged_answer_does_not_stop_the_true_one() {
    let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[1])], &[]);
    world.frame(0, 1);
    world.run(MS(6));
    let answer = world.handshakes[1].clone();
    assert_eq!(answer[0], RESPONSE);
    for at in 4..answer.len() - 16 {
        let mut damaged = answer.clone();
        damaged[at] ^= 1;
        world.deliver(1, 0, Packet::Handshake(damaged));
    }
    assert_eq!(world.counters(0).completed, 0);
    world.run(S(1));
    assert_eq!(world.counters(0).completed, 1);
    assert!(world.works());
}

fn fate() -> impl Strategy<Value = Fate> {
    let delay = || (1..2000_u64).prop_map(MS);
    prop_oneof![
        3 => (1..50_u64).prop_map(|ms| Fate::Arrives(MS(ms))),
        1 => delay().prop_map(Fate::Arrives),
        2 => Just(Fate::Lost),
        1 => (delay(), delay()).prop_map(|(a, b)| Fate::Twice(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However handshakes are lost, delayed, doubled and reordered: what one side seals while
    /// sessions replace each other, the other can open, and a session is there in the end.
    #[test]
    fn i5_no_schedule_loses_a_sealed_datagram(
        fates in prop::collection::vec(fate(), 1..40),
        gap in 20..700_u64,
        offset in 0..400_u64,
    ) {
        let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[1])], &fates);
        world.frame(0, 1);
        world.run(MS(offset));
        world.traffic(S(420), MS(gap));
        world.fates.clear();
        world.traffic(world.now + S(30), MS(gap));
        prop_assert!(world.works());
        prop_assert_eq!(world.lost, 0);
    }

    /// Restarts at any moment.
    #[test]
    fn i7_restarts_heal(
        fates in prop::collection::vec(fate(), 1..20),
        restarts in prop::collection::vec((0..2_usize, 1..4000_u64), 1..6),
    ) {
        let mut world = World::new([config(1, 1, &[1]), config(2, 1, &[1])], &fates);
        for (start, (node, after)) in (2..).zip(restarts) {
            world.traffic(world.now + MS(after), MS(50));
            let n = u8::try_from(node).unwrap() + 1;
            world.nodes[node] = Node::new(config(n, start, &[1]), world.now);
            world.acquaint();
        }
        world.fates.clear();
        world.traffic(world.now + S(15), MS(50));
        prop_assert!(world.works());
        let lost = world.lost;
        world.traffic(world.now + S(200), MS(500));
        prop_assert_eq!(world.lost, lost, "something is still lost");
    }

    #[test]
    fn i6_any_message_is_answered_or_refused(message in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut world = two();
        world.deliver(0, 1, Packet::Handshake(message));
        prop_assert_eq!(world.counters(1).answered, 0);
    }

    /// A changed bit anywhere in an initiation: no answer, and the true one is still taken.
    #[test]
    fn i6_a_changed_initiation_changes_nothing(at in 0..INITIATION_LEN - 16, bit in 0..8_u8) {
        let mut world = two();
        world.frame(0, 1);
        let mut message = world.handshakes[0].clone();
        message[at] ^= 1 << bit;
        world.deliver(0, 1, Packet::Handshake(message));
        prop_assert_eq!(world.counters(1).answered, 0);
        world.run(S(1));
        prop_assert_eq!(world.counters(1).answered, 1);
    }
}
