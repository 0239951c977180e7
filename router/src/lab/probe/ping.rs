//! ICMP echo (RFC 792) from a pod, with a raw socket.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use hostnet::netns::NetNs;
use socket2::{Domain, Protocol, Socket, Type};
use wire::checksum;

/// Bytes of an ICMP echo header.
pub const ICMP_HEADER: usize = 8;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER: usize = 20;
/// Bytes of data in a request, as ping(8) sends: with the headers a frame of 98 bytes.
pub const PAYLOAD: usize = 56;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
/// Largest IPv4 packet.
const MAX_PACKET: usize = 65_535;

/// Sends echo requests from one namespace and waits for the answers.
#[derive(Debug)]
pub struct Pinger {
    socket: Socket,
    /// Tells the answers to this pinger from those to others: a raw socket sees them all.
    identifier: u16,
    sequence: u16,
    buffer: Vec<u8>,
}

impl Pinger {
    /// A pinger in this namespace. `identifier` is its own among all in the namespace.
    pub fn open(netns: &NetNs, identifier: u16) -> anyhow::Result<Self> {
        let socket =
            netns.run(|| Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4)))??;
        Ok(Self {
            socket,
            identifier,
            sequence: 0,
            buffer: vec![0; MAX_PACKET],
        })
    }

    /// One round trip, if the answer comes within `patience`.
    pub fn ping(
        &mut self,
        target: Ipv4Addr,
        payload: usize,
        patience: Duration,
    ) -> io::Result<Option<Duration>> {
        // Before sending: on one node the answer is there when the call returns.
        let sent = Instant::now();
        let sequence = self.send(target, payload)?;
        let end = sent + patience;
        while let Some(answer) = self.receive(end)? {
            if answer.from == target && answer.sequence == sequence {
                return Ok(Some(sent.elapsed()));
            }
        }
        Ok(None)
    }

    /// Asks all targets at once, and those that stay silent again, `attempts` times in all: whether
    /// each answered. `patience` is the time for one attempt.
    pub fn reach(
        &mut self,
        targets: &[Ipv4Addr],
        attempts: u32,
        patience: Duration,
    ) -> io::Result<Vec<bool>> {
        let mut reached = vec![false; targets.len()];
        for _ in 0..attempts {
            for (target, _) in targets
                .iter()
                .zip(&reached)
                .filter(|(_, reached)| !**reached)
            {
                // No route or no neighbour: the target stays unreached, which is the answer.
                let _ = self.send(*target, PAYLOAD);
            }
            let end = Instant::now() + patience;
            while reached.contains(&false) {
                let Some(answer) = self.receive(end)? else {
                    break;
                };
                for (target, reached) in targets.iter().zip(&mut reached) {
                    *reached |= *target == answer.from;
                }
            }
            if !reached.contains(&false) {
                break;
            }
        }
        Ok(reached)
    }

    fn send(&mut self, target: Ipv4Addr, payload: usize) -> io::Result<u16> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = echo_request(self.identifier, self.sequence, payload);
        self.socket
            .send_to(&request, &SocketAddrV4::new(target, 0).into())?;
        Ok(self.sequence)
    }

    /// The next answer to this pinger; none if `end` comes first.
    fn receive(&mut self, end: Instant) -> io::Result<Option<Answer>> {
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.socket.set_read_timeout(Some(left))?;
            let len = match (&self.socket).read(&mut self.buffer) {
                Ok(len) => len,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            match Answer::parse(&self.buffer[..len]) {
                Some(answer) if answer.identifier == self.identifier => return Ok(Some(answer)),
                _ => {}
            }
        }
    }
}

/// An echo request whose data counts up, as ping(8) fills it.
fn echo_request(identifier: u16, sequence: u16, payload: usize) -> Vec<u8> {
    let mut packet = vec![ECHO_REQUEST, 0, 0, 0];
    packet.extend_from_slice(&identifier.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend((0..=u8::MAX).cycle().take(payload));
    let sum = checksum::checksum(&packet);
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// An echo reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Answer {
    from: Ipv4Addr,
    identifier: u16,
    sequence: u16,
}

impl Answer {
    /// Reads an IPv4 packet, as a raw socket delivers it; none if it is anything else.
    fn parse(packet: &[u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let from = packet.get(12..16)?.first_chunk::<4>()?;
        match packet.get(header..)? {
            [ECHO_REPLY, 0, _, _, i1, i0, s1, s0, ..] => Some(Self {
                from: Ipv4Addr::from(*from),
                identifier: u16::from_be_bytes([*i1, *i0]),
                sequence: u16::from_be_bytes([*s1, *s0]),
            }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_whole_and_its_answer_is_known_again() {
        let request = echo_request(0x1234, 7, PAYLOAD);
        assert_eq!(request.len(), ICMP_HEADER + PAYLOAD);
        assert_eq!(checksum::checksum(&request), 0);

        let mut packet = vec![
            0x45, 0, 0, 84, 0, 0, 0x40, 0, 64, 1, 0, 0, 10, 32, 0, 2, 10, 32, 0, 1,
        ];
        packet.extend_from_slice(&request);
        assert_eq!(Answer::parse(&packet), None, "a request is no answer");
        packet[IPV4_HEADER] = ECHO_REPLY;
        let answer = Answer {
            from: Ipv4Addr::new(10, 32, 0, 2),
            identifier: 0x1234,
            sequence: 7,
        };
        assert_eq!(Answer::parse(&packet), Some(answer));
        for len in 0..IPV4_HEADER + ICMP_HEADER {
            assert_eq!(Answer::parse(&packet[..len]), None, "{len} bytes");
        }
    }
}
