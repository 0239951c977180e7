//! Control connections: what a router's driver and its machine do for it.

use std::net::SocketAddr;
use std::time::Duration;

use mesh::{ConnId, DialError, Input, MAX_MESSAGE, Target};

use crate::Cluster;
use crate::cluster::Event;
use crate::network::{Arrival, End, Pipe, Side, latency};

/// After this time the driver gives up a dial that nobody answers.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that wait for a peer that does not read, as in the driver: then it is cut off. What is
/// carried for others is dropped at half of it.
const QUEUE: usize = 4 * MAX_MESSAGE;

impl Cluster {
    pub(crate) fn dial(
        &mut self,
        number: usize,
        conn: ConnId,
        target: &Target,
        avoid: &[SocketAddr],
    ) {
        let now = self.now();
        self.trace
            .note(now, || format!("{number}: {conn} to {target}"));
        self.peak.dial(now.as_secs());
        let address = target.literal();
        if address.is_some_and(|address| avoid.contains(&address)) {
            let error = DialError::OnlyMyself;
            return self.input(number, Input::DialFailed { conn, error });
        }
        let run = self.nodes()[number].hello.run;
        // An address that no machine has is one that does not answer.
        let to = address.and_then(|address| self.underlay.dial(number, address));
        let to = to.unwrap_or(usize::MAX);
        let at = now + latency(&mut self.rng);
        let node = number;
        self.schedule(
            at,
            Event::Knock {
                node,
                run,
                conn,
                to,
            },
        );
    }

    pub(crate) fn knock(&mut self, number: usize, run: u64, conn: ConnId, to: usize) {
        let now = self.now();
        let answer = |outcome| Event::Dialled {
            node: number,
            run,
            conn,
            outcome,
        };
        let alive = self.nodes().get(to).is_some_and(|node| node.powered);
        if !alive || !self.underlay.carries_tcp(number, to) {
            let outcome = Err("no answer in time".to_owned());
            return self.schedule(now + DIAL_DEADLINE, answer(outcome));
        }
        let back = now + latency(&mut self.rng);
        if self.nodes()[to].mesh.is_none() {
            let outcome = Err("connection refused".to_owned());
            return self.schedule(back, answer(outcome));
        }
        // A process that is stopped does not accept, but its machine completes connections.
        let remote = self.underlay.appears(number, to);
        let node = self.node(to);
        let accepted = ConnId::Accepted(node.accepted);
        node.accepted += 1;
        let acceptor = End::new(to, node.hello.run, accepted, now);
        let dialler = End::new(number, run, conn, back);
        let pipe = self.network.open(dialler, acceptor);
        self.node(to).conns.insert(accepted, (pipe, Side::Acceptor));
        self.schedule(back, answer(Ok(pipe)));
        let port = 40_000 + u16::try_from(pipe % 20_000).unwrap_or(0);
        let remote = SocketAddr::from((remote, port));
        self.input(
            to,
            Input::Accepted {
                conn: accepted,
                remote,
            },
        );
    }

    pub(crate) fn dialled(&mut self, number: usize, conn: ConnId, outcome: Result<u64, String>) {
        let failed = match outcome {
            Ok(pipe) => match self.network.pipes.get(&pipe).map(|pipe| pipe.acceptor.node) {
                Some(to) => {
                    self.node(number).conns.insert(conn, (pipe, Side::Dialler));
                    let remote = self.nodes()[to].control();
                    return self.input(number, Input::Dialled { conn, remote });
                }
                None => "reset by peer".to_owned(),
            },
            Err(error) => error,
        };
        let error = DialError::Failed(failed);
        self.input(number, Input::DialFailed { conn, error });
    }

    pub(crate) fn send(&mut self, number: usize, conn: ConnId, bytes: &[u8], cargo: bool) {
        let Some((pipe, side)) = self.nodes()[number].conns.get(&conn).copied() else {
            return;
        };
        let to = side.other();
        let open = self.network.pipes.get(&pipe);
        let (_, waiting) = open.map_or((0, 0), |pipe| pipe.end(to).coming());
        if cargo && waiting > QUEUE / 2 {
            return;
        }
        if waiting > QUEUE {
            self.node(number).conns.remove(&conn);
            self.post(pipe, to, Arrival::End("connection reset"));
            let reason = "does not read what is sent to it".to_owned();
            return self.input(number, Input::Closed { conn, reason });
        }
        let second = self.now().as_secs();
        self.peak.message(second);
        self.node(number).traffic.message(bytes.len());
        // TCP keeps no borders between what is sent.
        let cut = if self.thorough {
            self.rng.below(2 * bytes.len() as u64)
        } else {
            0
        };
        let cut = usize::try_from(cut).unwrap_or(0).min(bytes.len());
        let (first, second) = bytes.split_at(cut);
        for part in [first, second] {
            if !part.is_empty() {
                self.post(pipe, to, Arrival::Bytes(part.to_vec()));
            }
        }
    }

    pub(crate) fn close(&mut self, number: usize, conn: ConnId, reason: &str) {
        let now = self.now();
        self.trace
            .note(now, || format!("{number}: closes {conn}: {reason}"));
        if let Some((pipe, side)) = self.node(number).conns.remove(&conn) {
            self.post(pipe, side.other(), Arrival::End("end of stream"));
        }
    }

    /// Sends something to an end of a connection.
    pub(crate) fn post(&mut self, pipe: u64, to: Side, arrival: Arrival) {
        let (now, latency) = (self.now(), latency(&mut self.rng));
        let Some(open) = self.network.pipes.get(&pipe) else {
            return;
        };
        let rate = self.nodes()[open.end(to).node].reads;
        let Some(open) = self.network.pipes.get_mut(&pipe) else {
            return;
        };
        let at = open.end_mut(to).push(arrival, now, latency, rate);
        self.schedule(at, arrive(pipe, to));
    }

    /// What waited for an end of a connection gets there at this time.
    pub(crate) fn read_on(&mut self, pipe: u64, side: Side, at: Duration) {
        let open = self.network.pipes.get(&pipe);
        let (pieces, _) = open.map_or((0, 0), |pipe| pipe.end(side).coming());
        for _ in 0..pieces {
            self.schedule(at, arrive(pipe, side));
        }
    }

    pub(crate) fn arrive(&mut self, number: u64, side: Side) {
        let Some(pipe) = self.network.pipes.get(&number) else {
            return;
        };
        let (from, to) = (pipe.end(side.other()).node, pipe.end(side).node);
        let held = self.holds(pipe.end(side)).then_some(pipe.end(side).conn);
        if !self.underlay.carries_tcp(from, to) || (held.is_some() && self.nodes()[to].stopped) {
            // It stays where it is: until the network heals, or the process goes on.
            return;
        }
        let Some(pipe) = self.network.pipes.get_mut(&number) else {
            return;
        };
        let Some(arrival) = pipe.end_mut(side).pop() else {
            return;
        };
        match (arrival, held) {
            (Arrival::Bytes(bytes), Some(conn)) => {
                self.input(to, Input::Received { conn, bytes });
            }
            // Nobody holds this end any more: its machine says so, if it runs.
            (Arrival::Bytes(_), None) => {
                if self.nodes()[to].powered {
                    self.post(number, side.other(), Arrival::End("reset by peer"));
                }
            }
            (Arrival::End(reason), _) => {
                self.network.pipes.remove(&number);
                self.lose(to, held, reason);
            }
            (Arrival::Lost, _) => {
                self.lose(to, held, "reset on the way");
                let other = self.network.pipes.get(&number);
                let other = other.map(|pipe| pipe.end(side.other()));
                if !other.is_some_and(|other| self.holds(other)) {
                    self.network.pipes.remove(&number);
                }
            }
        }
    }

    /// Whether both routers hold a connection.
    pub(crate) fn is_held(&self, pipe: &Pipe) -> bool {
        self.holds(&pipe.dialler) && self.holds(&pipe.acceptor)
    }

    /// Whether the router that opened this end still holds it.
    fn holds(&self, end: &End) -> bool {
        let node = &self.nodes()[end.node];
        node.mesh.is_some() && node.hello.run == end.run && node.conns.contains_key(&end.conn)
    }

    /// A connection is over for the router that holds it.
    fn lose(&mut self, number: usize, held: Option<ConnId>, reason: &str) {
        let Some(conn) = held else { return };
        let now = self.now();
        self.node(number).conns.remove(&conn);
        self.trace
            .note(now, || format!("{number}: {conn} ends: {reason}"));
        let reason = reason.to_owned();
        self.input(number, Input::Closed { conn, reason });
    }
}

const fn arrive(pipe: u64, side: Side) -> Event {
    let acceptor = matches!(side, Side::Acceptor);
    Event::Arrive { pipe, acceptor }
}
