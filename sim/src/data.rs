//! Datagrams: probes and frames on their way, and what a data path does with them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh::link::{Activity, Arrived, LinkInput, ProbeToSend, SendError};
use mesh::{DirectionKey, Encapsulation, Input};
use wire::probe::{self, Probe, ProbeKind};
use wire::{PeerId, ethernet, sleeve, vxlan};

use crate::Cluster;
use crate::cluster::Event;
use crate::network::latency;
use crate::node::Link;
use crate::underlay::VXLAN_PORT;

/// MTU of the machines' own interfaces.
const INTERFACE_MTU: u16 = 1500;
/// Datagrams that wait for a process that is stopped; more are lost, as from a socket's buffer.
const BUFFER: usize = 256;
/// Between reports of traffic to the mesh.
const REPORT: Duration = Duration::from_secs(1);

/// A datagram on its way.
#[derive(Debug, Clone)]
pub(crate) struct Datagram {
    pub(crate) encapsulation: Encapsulation,
    /// Whence it seems to come.
    pub(crate) from: SocketAddr,
    pub(crate) source: PeerId,
    pub(crate) destination: PeerId,
    pub(crate) hop_limit: u8,
    /// The network made two of it, and this is the second: the data path does not look for that.
    pub(crate) double: bool,
    /// The key that it is sealed with, if it is.
    pub(crate) sealed: Option<Arc<DirectionKey>>,
    pub(crate) body: Body,
}

#[derive(Debug, Clone)]
pub(crate) enum Body {
    Probe(Vec<u8>),
    /// The number of a frame, and the length of the packet in it.
    Frame(u64, u16),
    /// Of sessions.
    Handshake(Vec<u8>),
    /// Only shows its key.
    Empty,
}

impl Datagram {
    /// Length of the IP packet that it is, or will be when it is sealed, in bytes.
    fn packet_len(&self, sealed: bool) -> u16 {
        let overhead = match self.encapsulation {
            Encapsulation::Vxlan => vxlan::OVERHEAD_IPV4,
            Encapsulation::Sleeve => sleeve::OVERHEAD_IPV4,
        };
        let inner = match &self.body {
            Body::Probe(frame) => frame.len() - ethernet::HEADER_LEN,
            Body::Frame(_, len) => usize::from(*len),
            Body::Handshake(message) => message.len(),
            Body::Empty => 0,
        };
        let seal = if sealed { sleeve::SEAL_LEN } else { 0 };
        u16::try_from(inner + seal)
            .unwrap_or(u16::MAX)
            .saturating_add(overhead)
    }
}

impl Cluster {
    /// A pod of a node sends a frame to all nodes; returns its number among the
    /// [frames](Self::frames).
    pub fn broadcast(&mut self, from: usize) -> u64 {
        let to: Vec<PeerId> = self.nodes()[from].links.keys().copied().collect();
        self.send_frame(from, &to)
    }

    /// A pod of a node sends a frame to a pod of another, as large as the link takes.
    pub fn unicast(&mut self, from: usize, to: usize) -> u64 {
        let id = self.nodes()[to].hello.id;
        self.send_frame(from, &[id])
    }

    fn send_frame(&mut self, from: usize, to: &[PeerId]) -> u64 {
        let now = self.now();
        let numbers = to.iter().filter_map(|id| self.owner(*id));
        let numbers: Vec<usize> = numbers.collect();
        let number = self.frames.send(from, numbers.into_iter(), now);
        for id in to {
            let Some(link) = self.nodes()[from].links.get(id) else {
                continue;
            };
            let (path, source) = (link.path.clone(), self.nodes()[from].hello.id);
            let datagram = Datagram {
                encapsulation: path.encapsulation,
                from: path.endpoint,
                source,
                destination: *id,
                hop_limit: sleeve::HOP_LIMIT,
                double: false,
                sealed: None,
                body: Body::Frame(number, path.mtu),
            };
            self.crossed(from, *id, 1, 0);
            self.transmit_sealed(from, path.endpoint, datagram);
        }
        number
    }

    /// The machine that has an identity now.
    fn owner(&self, id: PeerId) -> Option<usize> {
        self.identities.get(&id).copied()
    }

    pub(crate) fn send_probe(&mut self, from: usize, probe: ProbeToSend) {
        let ProbeToSend {
            encapsulation,
            to,
            endpoint,
            nonce,
            frame,
        } = probe;
        let seals = self.seals(from);
        let datagram = Datagram {
            encapsulation,
            from: endpoint,
            source: self.nodes()[from].hello.id,
            destination: to,
            hop_limit: sleeve::HOP_LIMIT,
            double: false,
            sealed: None,
            body: Body::Probe(frame),
        };
        let len = datagram.packet_len(seals);
        let error = if seals && encapsulation == Encapsulation::Vxlan {
            SendError::Other("VXLAN is in the clear".to_owned())
        } else if seals && self.key_for(from, to).is_none() {
            self.want_session(from, to, endpoint);
            SendError::Other("no session with the peer yet".to_owned())
        } else if len > INTERFACE_MTU {
            SendError::TooBig(Some(INTERFACE_MTU))
        } else {
            self.node(from).traffic.probe(len);
            return self.transmit_sealed(from, endpoint, datagram);
        };
        let failed = LinkInput::SendFailed {
            id: to,
            nonce,
            error,
        };
        self.input(from, Input::Link(failed));
    }

    /// Takes a datagram through NATs and the underlay.
    pub(crate) fn transmit(&mut self, from: usize, to: SocketAddr, mut datagram: Datagram) {
        let now = self.now();
        let encapsulation = datagram.encapsulation;
        let Some((to, source)) = self.underlay.route(from, encapsulation, to, now) else {
            return;
        };
        let rule = self.underlay.rule(from, to);
        let lost = rule.lost > 0 && self.rng.below(1000) < rule.lost;
        if !rule.lets(encapsulation)
            || datagram.packet_len(datagram.sealed.is_some()) > rule.mtu
            || lost
        {
            return;
        }
        datagram.from = source;
        if rule.twice > 0 && self.rng.below(1000) < rule.twice {
            let mut double = datagram.clone();
            double.double = true;
            self.on_its_way(to, rule.jitter, double);
        }
        self.on_its_way(to, rule.jitter, datagram);
    }

    fn on_its_way(&mut self, to: usize, jitter: Duration, datagram: Datagram) {
        let mut at = self.now() + latency(&mut self.rng);
        if !jitter.is_zero() {
            at += self.rng.up_to(jitter);
        }
        let slot = self.datagrams.put(datagram);
        self.schedule(at, Event::Datagram { to, slot });
    }

    pub(crate) fn datagram(&mut self, to: usize, slot: usize) {
        let Some(datagram) = self.datagrams.take(slot) else {
            return;
        };
        let node = self.node(to);
        if node.mesh.is_none() || !node.powered {
            return;
        }
        if node.stopped {
            if node.buffer.len() < BUFFER {
                node.buffer.push_back(datagram);
            }
            return;
        }
        self.received(to, datagram);
    }

    pub(crate) fn received(&mut self, at: usize, datagram: Datagram) {
        if datagram.destination != self.nodes()[at].hello.id {
            return self.relay(at, datagram);
        }
        let datagram = if self.seals(at) {
            let Some(datagram) = self.open(at, datagram) else {
                return;
            };
            datagram
        } else {
            datagram
        };
        let now = self.now();
        match datagram.body {
            Body::Probe(frame) if self.nodes()[at].judges => self.input(
                at,
                Input::Link(LinkInput::Probe(Arrived {
                    encapsulation: datagram.encapsulation,
                    from: datagram.from,
                    relayed: datagram.hop_limit < sleeve::HOP_LIMIT,
                    frame,
                })),
            ),
            Body::Probe(frame) => self.answer(at, datagram.encapsulation, datagram.from, &frame),
            Body::Frame(number, _) => {
                // Of a peer that the data path does not know it takes nothing.
                if self.nodes()[at].links.contains_key(&datagram.source) {
                    self.crossed(at, datagram.source, 0, 1);
                    if !datagram.double {
                        self.frames.arrive(number, at, now);
                    }
                }
            }
            Body::Handshake(_) | Body::Empty => {}
        }
    }

    /// Answers a probe as the mesh does, for a node whose own links are not simulated.
    fn answer(&mut self, at: usize, encapsulation: Encapsulation, from: SocketAddr, frame: &[u8]) {
        let Ok(request) = probe::parse(frame) else {
            return;
        };
        if request.kind != ProbeKind::Request {
            return;
        }
        let reply = Probe {
            kind: ProbeKind::Reply {
                observed: from,
                plain: false,
            },
            source: request.destination,
            destination: request.source,
            ..request
        };
        let endpoint = match encapsulation {
            Encapsulation::Vxlan => SocketAddr::new(from.ip(), VXLAN_PORT),
            Encapsulation::Sleeve => from,
        };
        self.send_probe(
            at,
            ProbeToSend {
                encapsulation,
                to: request.source,
                endpoint,
                nonce: request.nonce,
                frame: reply.frame(),
            },
        );
    }

    /// What the packet engine does with a datagram for another.
    fn relay(&mut self, at: usize, mut datagram: Datagram) {
        if datagram.encapsulation == Encapsulation::Vxlan {
            return;
        }
        let Some(Link { path, sleeve, .. }) = self.nodes()[at].links.get(&datagram.destination)
        else {
            return;
        };
        let further = (path.next_hop != datagram.destination).then_some(path.endpoint);
        let Some(to) = sleeve.or(further).filter(|to| *to != datagram.from) else {
            return;
        };
        if datagram.hop_limit <= 1 {
            let now = self.now();
            return self.frames.circulate(now, at);
        }
        datagram.hop_limit -= 1;
        self.transmit(at, to, datagram);
    }

    fn crossed(&mut self, at: usize, peer: PeerId, sent: u64, received: u64) {
        let node = self.node(at);
        let crossed = node.crossed.entry(peer).or_default();
        *crossed = (crossed.0 + sent, crossed.1 + received);
        self.report_soon(at);
    }

    pub(crate) fn report_soon(&mut self, at: usize) {
        let now = self.now();
        let node = self.node(at);
        if !std::mem::replace(&mut node.reports, true) {
            self.schedule(now + REPORT, Event::Report { node: at });
        }
    }

    /// Tells the mesh what crossed the links.
    pub(crate) fn report(&mut self, at: usize) {
        let node = self.node(at);
        node.reports = false;
        let crossed = std::mem::take(&mut node.crossed);
        self.report_sessions(at);
        let list =
            crossed
                .into_iter()
                .map(|(id, (sent, received))| Activity { id, sent, received });
        self.input(at, Input::Link(LinkInput::Activity(list.collect())));
    }
}

/// Datagrams on their way, by the number of their place.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    places: Vec<Option<Datagram>>,
    free: Vec<usize>,
}

impl Datagrams {
    fn put(&mut self, datagram: Datagram) -> usize {
        match self.free.pop() {
            Some(place) => {
                self.places[place] = Some(datagram);
                place
            }
            None => {
                self.places.push(Some(datagram));
                self.places.len() - 1
            }
        }
    }

    fn take(&mut self, place: usize) -> Option<Datagram> {
        let datagram = self.places.get_mut(place)?.take()?;
        self.free.push(place);
        Some(datagram)
    }
}
