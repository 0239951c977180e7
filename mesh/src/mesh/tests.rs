//! One mesh against scripted peers. Whole clusters are simulated in the crate `sim`.

mod dialling;
mod handshake;
mod links;
mod membership;
mod neighbours;
mod sequences;
mod transport;

use std::collections::BTreeMap;

use super::*;
use crate::connection::Phase;
use crate::frame::{Deframer, Stage, emit, preamble};
use crate::hello::Hello;
use crate::message::{Message, Told};
use crate::peer::PeerState;
use crate::refusal::{Refusal, RefusalCode};

const S: fn(u64) -> Duration = Duration::from_secs;

fn node(number: u8, run: u64) -> Hello {
    Hello {
        id: PeerId([number; 8]),
        name: format!("n{number}").parse().unwrap(),
        public_key: [number; 32],
        run,
        control_port: 6783,
        vxlan_port: 6784,
        vni: wire::Vni::DEFAULT,
        mtu: 1450,
        version: "test".into(),
        sleeve_port: 6783,
        seen: None,
    }
}

const fn id(number: u8) -> PeerId {
    PeerId([number; 8])
}

/// The entry of a node that runs for the `run`th time and has these neighbours.
fn entry(number: u8, run: u64, neighbours: &[u8]) -> Entry {
    let mut entry = crate::entry::tests::entry(number);
    (entry.run, entry.version) = (run, run * 100);
    entry.neighbours = neighbours.iter().copied().map(id).collect();
    entry.neighbours.sort_unstable();
    entry
}

fn told(entry: Entry) -> Told {
    let bytes = Sealed::new(entry).bytes().to_vec();
    Told { idle: 0, bytes }
}

fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, number], 6783))
}

/// The mesh of node 5 and what it said, connection by connection.
struct Bench {
    mesh: Mesh,
    now: Duration,
    accepted: u64,
    heard: BTreeMap<ConnId, (Deframer, Vec<Message>)>,
    outputs: Vec<Output>,
}

impl Bench {
    fn new(targets: &[&str]) -> Self {
        let mut config = Config::new(node(5, 1), 42);
        config.targets = targets
            .iter()
            .map(|target| target.parse().unwrap())
            .collect();
        Self::with(config)
    }

    fn with(config: Config) -> Self {
        let mesh = Mesh::new(config, Duration::ZERO);
        Self {
            mesh,
            now: Duration::ZERO,
            accepted: 0,
            heard: BTreeMap::new(),
            outputs: Vec::new(),
        }
    }

    fn input(&mut self, input: Input) {
        self.mesh.handle(input, self.now);
        while let Some(output) = self.mesh.poll_output() {
            if let Output::Send { conn, bytes, .. } = &output {
                let (deframer, messages) = self.heard.entry(*conn).or_default();
                deframer.push(bytes);
                while let Some(message) = deframer.next_message(Stage::Established).unwrap() {
                    messages.push(message);
                }
            } else {
                self.outputs.push(output);
            }
        }
    }

    /// Lets time pass, timer by timer; nobody answers.
    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.mesh.poll_timeout().filter(|at| *at <= end) {
            assert!(at >= self.now || self.now == end, "a timer in the past");
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
        self.now = end;
        self.input(Input::Timeout);
    }

    fn take(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn messages(&mut self, conn: ConnId) -> Vec<Message> {
        std::mem::take(&mut self.heard.get_mut(&conn).unwrap().1)
    }

    fn say(&mut self, conn: ConnId, message: &Message) {
        let mut bytes = Vec::new();
        emit(message, &mut bytes);
        self.input(Input::Received { conn, bytes });
    }

    fn greet(&mut self, conn: ConnId, hello: &Hello) {
        self.input(Input::Received {
            conn,
            bytes: preamble().to_vec(),
        });
        self.say(conn, &Message::Hello(Box::new(hello.clone())));
    }

    fn accept(&mut self, number: u8) -> ConnId {
        let conn = ConnId::Accepted(self.accepted);
        self.accepted += 1;
        let remote = SocketAddr::from(([10, 0, 0, number], 40_000));
        self.input(Input::Accepted { conn, remote });
        conn
    }

    /// The whole handshake on an open connection.
    fn shake_hands(&mut self, conn: ConnId, hello: &Hello) {
        self.greet(conn, hello);
        let last = if hello.id < PeerId([5; 8]) {
            Message::Welcome
        } else {
            Message::Ready
        };
        self.say(conn, &last);
    }

    /// A peer that connected from outside, with no other neighbours.
    fn peer(&mut self, hello: &Hello) -> ConnId {
        let conn = self.accept(hello.id.0[0]);
        self.join(conn, hello);
        conn
    }

    /// The handshake, and what a peer says next.
    fn join(&mut self, conn: ConnId, hello: &Hello) {
        self.shake_hands(conn, hello);
        let mut entry = entry(hello.id.0[0], hello.run, &[5]);
        entry.name = hello.name.clone();
        self.tell(conn, [entry]);
    }

    fn tell(&mut self, conn: ConnId, entries: impl IntoIterator<Item = Entry>) {
        let told = entries.into_iter().map(told).collect();
        self.say(conn, &Message::Entries(told));
    }

    /// The entries that were sent on a connection within a time.
    fn entries(&mut self, conn: ConnId, within: Duration) -> Vec<Entry> {
        self.wait(within);
        let messages = self.messages(conn).into_iter();
        let told = messages.filter_map(|message| match message {
            Message::Entries(told) => Some(told),
            _ => None,
        });
        let read = |told: Told| Entry::clone(&Sealed::read(&told.bytes).unwrap());
        told.flatten().map(read).collect()
    }

    /// What was announced on a connection within a time.
    fn announced(&mut self, conn: ConnId, within: Duration) -> Vec<(PeerId, u64)> {
        self.wait(within);
        let messages = self.messages(conn).into_iter();
        let known = messages.filter_map(|message| match message {
            Message::Versions { buckets: 0, known } => Some(known),
            _ => None,
        });
        known.flatten().collect()
    }

    /// A neighbour announces an entry.
    fn announce(&mut self, conn: ConnId, entry: &Entry) {
        let (buckets, known) = (0, vec![(entry.id, entry.version)]);
        self.say(conn, &Message::Versions { buckets, known });
    }

    /// The dial that comes next, within a time.
    fn next_dial(&mut self, within: Duration) -> Option<(ConnId, Target)> {
        let end = self.now + within;
        loop {
            let at = self
                .outputs
                .iter()
                .position(|o| matches!(o, Output::Dial { .. }));
            if let Some(at) = at
                && let Output::Dial { conn, target, .. } = self.outputs.remove(at)
            {
                return Some((conn, target));
            }
            let at = self.mesh.poll_timeout().filter(|at| *at <= end)?;
            self.now = self.now.max(at);
            self.input(Input::Timeout);
        }
    }

    fn view(&self, number: u8) -> Option<PeerView> {
        let id = PeerId([number; 8]);
        self.mesh
            .peers(self.now)
            .into_iter()
            .find(|view| view.id == id)
    }

    fn links(&mut self) -> Vec<String> {
        let name = |output| match output {
            Output::Link(LinkChange::Up { name, path, .. }) => {
                Some(format!("{name} up {}", path.endpoint))
            }
            Output::Link(LinkChange::Down { name, .. }) => Some(format!("{name} down")),
            Output::Link(LinkChange::Left { name, .. }) => Some(format!("{name} left")),
            _ => None,
        };
        self.take().into_iter().filter_map(name).collect()
    }
}

fn refusal(messages: &[Message]) -> Option<RefusalCode> {
    messages.iter().find_map(|message| match message {
        Message::Refuse(refusal) => Some(refusal.code),
        _ => None,
    })
}
