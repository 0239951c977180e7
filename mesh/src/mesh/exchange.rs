//! What nodes tell each other of others, and what they carry for others.
//!
//! A node tells of those peers only that it is connected to at that moment, with the address of that
//! connection. So what nobody can reach is soon told by nobody, and no address outlives its truth by
//! being repeated.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use wire::PeerId;

use super::handshake::control_address;
use super::{Mesh, Output, Timer};
use crate::connection::ConnId;
use crate::message::{Departure, KnownPeer, MAX_GOSSIP, Message};
use crate::peer::Peer;

/// Peers per message; keeps it within its limit of 128 KiB.
const PART: usize = 256;

impl Mesh {
    pub(super) fn schedule_exchange(&mut self, now: Duration) {
        let wait = self.rng.around(self.config.timing.exchange);
        self.timers.set(Timer::Exchange, now + wait);
    }

    /// Tells everything to one peer chosen at random.
    pub(super) fn exchange(&mut self, now: Duration) {
        let connected = self.peers.values().filter_map(|peer| peer.control);
        let connected: Vec<ConnId> = connected.collect();
        let chosen = self.rng.below(connected.len() as u64);
        if let Some(conn) = usize::try_from(chosen)
            .ok()
            .and_then(|chosen| connected.get(chosen))
        {
            self.tell_all_peers(*conn, now);
        }
        self.schedule_exchange(now);
    }

    /// Tells one peer of all others, and of those who left not long ago: it may have heard of them
    /// just before.
    pub(super) fn tell_all_peers(&mut self, to: ConnId, now: Duration) {
        let known = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.control != Some(to));
        let known: Vec<_> = known
            .filter_map(|(id, peer)| self.entry(*id, peer, to))
            .collect();
        for part in known.chunks(PART) {
            self.send(
                to,
                &Message::Peers {
                    known: part.to_vec(),
                    left: Vec::new(),
                },
            );
        }
        let left = self.departed.latest(PART, now);
        if !left.is_empty() {
            self.send(
                to,
                &Message::Peers {
                    known: Vec::new(),
                    left,
                },
            );
        }
    }

    /// Tells all others of one peer.
    pub(super) fn announce(&mut self, id: PeerId) {
        let others = self.peers.iter().filter(|(other, _)| **other != id);
        let others: Vec<ConnId> = others.filter_map(|(_, peer)| peer.control).collect();
        for conn in others {
            let entry = self
                .peers
                .get(&id)
                .and_then(|peer| self.entry(id, peer, conn));
            if let Some(entry) = entry {
                self.send(
                    conn,
                    &Message::Peers {
                        known: vec![entry],
                        left: Vec::new(),
                    },
                );
            }
        }
    }

    /// What `to` may be told of a peer: nothing, unless it is connected at an address that means
    /// the same to `to`.
    fn entry(&self, id: PeerId, peer: &Peer, to: ConnId) -> Option<KnownPeer> {
        let conn = peer.control?;
        let remote = self.connections.get(&conn)?.remote?;
        let address = control_address(conn, remote, peer.hello.as_ref()?)?;
        let reader = self.connections.get(&to)?.remote?;
        (!is_local(address.ip()) || is_local(reader.ip())).then(|| KnownPeer {
            id,
            name: peer.name.clone(),
            run: peer.run,
            addresses: vec![address],
        })
    }

    /// A peer tells of others.
    pub(super) fn learn(
        &mut self,
        conn: ConnId,
        known: Vec<KnownPeer>,
        left: &[Departure],
        now: Duration,
    ) {
        self.departs(left, now);
        let Some(reader) = self.connections.get(&conn).and_then(|c| c.remote) else {
            return;
        };
        if !self.config.discovery {
            return;
        }
        for entry in known {
            let me = &self.config.me;
            if entry.id != me.id
                && entry.name != me.name
                && !self.departed.contains(entry.id, entry.run, now)
            {
                self.learn_peer(entry, reader, now);
            }
        }
    }

    fn learn_peer(&mut self, entry: KnownPeer, reader: SocketAddr, now: Duration) {
        let KnownPeer {
            id,
            name,
            run,
            addresses,
        } = entry;
        let is_new = !self.peers.contains_key(&id);
        if is_new && self.peers.len() >= self.config.limits.peers {
            self.counters.peers_full += 1;
            return;
        }
        let peer = self
            .peers
            .entry(id)
            .or_insert_with(|| Peer::new(name, run, now));
        peer.known = now;
        let mut news = is_new;
        if peer.control.is_none() && peer.run != run {
            peer.run = run;
            news = true;
        }
        let lasts = self.config.timing.retry_rarely;
        for address in addresses.into_iter().take(self.config.limits.addresses) {
            let misleading = is_local(address.ip()) && !is_local(reader.ip());
            if misleading || self.myself.contains(address, now, lasts) {
                continue;
            }
            let (new, evicted) = peer.learn_address(address, self.config.limits.addresses, now);
            news |= new;
            self.counters.addresses_evicted += u64::from(evicted);
        }
        if is_new {
            self.timers
                .set(Timer::Peer(id), now + self.config.timing.rumour);
        }
        if news {
            self.retry_soon(id, now);
        }
    }

    pub(super) fn send_gossip(&mut self, to: Option<PeerId>, channel: u8, payload: Vec<u8>) {
        if payload.len() > MAX_GOSSIP {
            self.counters.gossip_too_large += 1;
            return;
        }
        let conns: Vec<ConnId> = match to {
            Some(id) => self
                .peers
                .get(&id)
                .and_then(|peer| peer.control)
                .into_iter()
                .collect(),
            None => self
                .peers
                .values()
                .filter_map(|peer| peer.control)
                .collect(),
        };
        if conns.is_empty() && to.is_some() {
            self.counters.gossip_undeliverable += 1;
        }
        let message = Message::Gossip { channel, payload };
        for conn in conns {
            self.counters.gossip_sent += 1;
            self.send(conn, &message);
        }
    }

    pub(super) fn gossip(&mut self, conn: ConnId, channel: u8, payload: Vec<u8>) {
        self.counters.gossip_received += 1;
        let hello = self
            .connections
            .get(&conn)
            .and_then(|connection| connection.hello.as_ref());
        if let Some(hello) = hello {
            let (from, name) = (hello.id, hello.name.clone());
            self.outputs.push_back(Output::Gossip {
                from,
                name,
                channel,
                payload,
            });
        }
    }
}

/// An address that means something on one machine or one wire only.
fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unicast_link_local(),
    }
}
