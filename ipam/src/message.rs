//! Rings in bytes, for gossip and for the disk: Protocol Buffers, whose numbered fields let
//! versions mix while a cluster is upgraded.

use std::collections::BTreeSet;

use ipnet::IpNet;
use prost::Message;
use wire::PeerName;

use crate::range::{Range, Universe};
use crate::ring::{Claim, Delta, Digest, MAX_TOKENS, Ring, Seeding, Segment};
use crate::roster::{MAX_MEMBERS, Member, Roster};

/// Bytes that are no delta or digest of a ring.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not Protocol Buffers at all.
    #[error("ring message is malformed: {0}")]
    Malformed(String),
    /// A field holds what it cannot hold.
    #[error("ring message has a bad {field}: {value}")]
    BadField {
        /// Which one.
        field: &'static str,
        /// What is wrong with it.
        value: String,
    },
}

#[derive(Clone, PartialEq, Message)]
struct DeltaMessage {
    #[prost(string, tag = "1")]
    universe: String,
    /// Owners, which segments name by their place here: a name is longer than a number.
    #[prost(string, repeated, tag = "2")]
    owners: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    segments: Vec<SegmentMessage>,
    #[prost(message, repeated, tag = "4")]
    seedings: Vec<SeedingMessage>,
    #[prost(message, repeated, tag = "5")]
    members: Vec<MemberMessage>,
}

#[derive(Clone, PartialEq, Message)]
struct MemberMessage {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint32, tag = "2")]
    life: u32,
    #[prost(uint32, tag = "3")]
    gone: u32,
}

#[derive(Clone, PartialEq, Message)]
struct SegmentMessage {
    /// Distance from the end of the segment before (or from the universe's start), and number of
    /// addresses less one: small numbers in ordinary rings, and order comes by itself.
    #[prost(bytes = "vec", tag = "1")]
    gap: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    more: Vec<u8>,
    #[prost(uint32, tag = "3")]
    owner: u32,
    #[prost(uint32, tag = "4")]
    epoch: u32,
    #[prost(uint64, tag = "5")]
    version: u64,
}

#[derive(Clone, PartialEq, Message)]
struct SeedingMessage {
    #[prost(string, repeated, tag = "1")]
    peers: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct DigestMessage {
    #[prost(string, tag = "1")]
    universe: String,
    #[prost(fixed64, tag = "2")]
    seedings: u64,
    #[prost(fixed64, repeated, tag = "3")]
    parts: Vec<u64>,
    #[prost(fixed64, repeated, tag = "4")]
    roster: Vec<u64>,
}

impl Delta {
    /// In bytes.
    pub fn encode(&self) -> Vec<u8> {
        let owners: BTreeSet<&str> = self
            .segments
            .iter()
            .map(|s| s.claim.owner.as_str())
            .collect();
        let owners: Vec<&str> = owners.into_iter().collect();
        let mut next = self.universe.range().first();
        let mut segments = Vec::with_capacity(self.segments.len());
        for Segment { range, claim } in &self.segments {
            let place = owners
                .binary_search(&claim.owner.as_str())
                .expect("all owners are listed");
            segments.push(SegmentMessage {
                gap: short(range.first() - next),
                more: short(range.last() - range.first()),
                owner: u32::try_from(place).expect("fewer owners than tokens"),
                epoch: claim.epoch,
                version: claim.version,
            });
            // The last segment may end at the last address there is; then nothing follows.
            next = range.last().saturating_add(1);
        }
        let seedings = self
            .seedings
            .iter()
            .map(|seeding| SeedingMessage {
                peers: seeding
                    .peers()
                    .iter()
                    .map(|peer| peer.as_str().to_owned())
                    .collect(),
            })
            .collect();
        let members = self.roster.iter().map(|(name, member)| MemberMessage {
            name: name.as_str().to_owned(),
            life: member.life,
            gone: member.gone,
        });
        let members = members.collect();
        let universe = self.universe.to_string();
        let owners = owners.into_iter().map(str::to_owned).collect();
        DeltaMessage {
            universe,
            owners,
            segments,
            seedings,
            members,
        }
        .encode_to_vec()
    }

    /// Reads what [`Delta::encode`] wrote, here or in another release.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = DeltaMessage::decode(bytes).map_err(malformed)?;
        let universe = read_universe(&message.universe)?;
        let owners = read_peers(&message.owners)?;
        if message.segments.len() > MAX_TOKENS {
            let count = message.segments.len();
            return Err(bad("segments", format!("{count}, more than {MAX_TOKENS}")));
        }
        let mut segments = Vec::with_capacity(message.segments.len());
        let mut next = Some(universe.range().first());
        for segment in &message.segments {
            let range = read_range(next, segment, universe)?;
            let owner = usize::try_from(segment.owner)
                .ok()
                .and_then(|place| owners.get(place));
            let Some(owner) = owner.cloned() else {
                return Err(bad(
                    "owner",
                    format!("{} of {}", segment.owner, owners.len()),
                ));
            };
            let claim = Claim {
                epoch: segment.epoch,
                version: segment.version,
                owner,
            };
            segments.push(Segment { range, claim });
            next = range.last().checked_add(1);
        }
        let mut seedings = BTreeSet::new();
        for seeding in &message.seedings {
            let peers = read_peers(&seeding.peers)?;
            seedings.insert(Seeding::new(peers).map_err(|e| bad("seeding", e.to_string()))?);
        }
        if message.members.len() > MAX_MEMBERS {
            let count = message.members.len();
            return Err(bad("members", format!("{count}, more than {MAX_MEMBERS}")));
        }
        let mut roster = Roster::new();
        for MemberMessage { name, life, gone } in &message.members {
            let name = name
                .parse()
                .map_err(|e: wire::peer::ParsePeerNameError| bad("member", e.to_string()))?;
            let (life, gone) = (*life, *gone);
            roster.note(&name, Member { life, gone });
        }
        Ok(Self {
            universe,
            segments,
            seedings,
            roster,
        })
    }
}

impl Digest {
    /// In bytes.
    pub fn encode(&self) -> Vec<u8> {
        DigestMessage {
            universe: self.universe.to_string(),
            seedings: self.seedings,
            parts: self.parts.clone(),
            roster: self.roster.clone(),
        }
        .encode_to_vec()
    }

    /// Reads what [`Digest::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let message = DigestMessage::decode(bytes).map_err(malformed)?;
        Ok(Self {
            universe: read_universe(&message.universe)?,
            seedings: message.seedings,
            parts: message.parts,
            roster: message.roster,
        })
    }
}

impl Ring {
    /// The whole ring in bytes, for the disk.
    pub fn encode(&self) -> Vec<u8> {
        self.delta().encode()
    }

    /// Reads what [`Ring::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let delta = Delta::decode(bytes)?;
        let mut ring = Self::undecided(delta.universe());
        ring.merge(&delta)
            .map_err(|e| DecodeError::Malformed(e.to_string()))?;
        Ok(ring)
    }
}

/// A number without its leading zero bytes.
fn short(number: u128) -> Vec<u8> {
    let zeros = number.leading_zeros() / 8;
    number.to_be_bytes()[zeros as usize..].to_vec()
}

fn read_short(field: &'static str, bytes: &[u8]) -> Result<u128, DecodeError> {
    let mut number = [0; 16];
    let Some(start) = number.len().checked_sub(bytes.len()) else {
        return Err(bad(field, format!("{} bytes, at most 16", bytes.len())));
    };
    number[start..].copy_from_slice(bytes);
    Ok(u128::from_be_bytes(number))
}

fn read_range(
    next: Option<u128>,
    segment: &SegmentMessage,
    universe: Universe,
) -> Result<Range, DecodeError> {
    let gap = read_short("gap", &segment.gap)?;
    let more = read_short("size", &segment.more)?;
    next.and_then(|next| next.checked_add(gap))
        .and_then(|first| Range::new(first, first.checked_add(more)?))
        .filter(|range| universe.range().covers(range))
        .ok_or_else(|| bad("segment", format!("ends outside {universe}")))
}

fn read_universe(text: &str) -> Result<Universe, DecodeError> {
    let wrong = |why: String| bad("range", format!("{text:?}: {why}"));
    let net: IpNet = text
        .parse()
        .map_err(|e: ipnet::AddrParseError| wrong(e.to_string()))?;
    Universe::new(net).map_err(|e| wrong(e.to_string()))
}

fn read_peers(names: &[String]) -> Result<Vec<PeerName>, DecodeError> {
    names
        .iter()
        .map(|name| {
            name.parse()
                .map_err(|e: wire::peer::ParsePeerNameError| bad("peer", e.to_string()))
        })
        .collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err wants"
)]
fn malformed(error: prost::DecodeError) -> DecodeError {
    DecodeError::Malformed(error.to_string())
}

fn bad(field: &'static str, value: String) -> DecodeError {
    DecodeError::BadField { field, value }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::tests::{any_delta, any_ring, name, universe};

    proptest! {
        #[test]
        fn deltas_round_trip(delta in any_delta()) {
            prop_assert_eq!(Delta::decode(&delta.encode()).unwrap(), delta);
        }

        #[test]
        fn rings_and_digests_round_trip(ring in any_ring()) {
            let digest = ring.digest();
            prop_assert_eq!(Digest::decode(&digest.encode()).unwrap(), digest);
            prop_assert_eq!(Ring::decode(&ring.encode()).unwrap(), ring);
        }

        /// Any bytes are read or refused, and what is read is a delta that can be merged.
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(delta) = Delta::decode(&bytes) {
                let mut ring = Ring::undecided(delta.universe());
                ring.merge(&delta).unwrap();
            }
            let _ = Digest::decode(&bytes);
        }

        /// As above, for bytes that are nearly right.
        #[test]
        fn damaged_deltas_are_read_or_refused(
            delta in any_delta(),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        ) {
            let mut bytes = delta.encode();
            for (place, value) in damage {
                let place = place.index(bytes.len());
                bytes[place] = value;
            }
            if let Ok(delta) = Delta::decode(&bytes) {
                let mut ring = Ring::undecided(delta.universe());
                ring.merge(&delta).unwrap();
                prop_assert_eq!(Delta::decode(&delta.encode()).unwrap(), delta);
            }
        }
    }

    #[test]
    fn refusals_name_the_field() {
        let message =
            |universe: &str, owners: &[&str], segments: Vec<SegmentMessage>| DeltaMessage {
                universe: universe.to_owned(),
                owners: owners.iter().map(|&name| name.to_owned()).collect(),
                segments,
                seedings: vec![],
                members: vec![],
            };
        let segment = |gap: &[u8], more: &[u8], owner| SegmentMessage {
            gap: gap.to_vec(),
            more: more.to_vec(),
            owner,
            epoch: 0,
            version: 1,
        };
        for (message, says) in [
            (message("10.0.0.0/33", &[], vec![]), "bad range"),
            (message("10.0.0.1/8", &[], vec![]), "bad range"),
            (message("10.0.0.0/28", &["-"], vec![]), "bad peer"),
            (
                message("10.0.0.0/28", &["a"], vec![segment(&[], &[], 1)]),
                "bad owner",
            ),
            (
                message("10.0.0.0/28", &["a"], vec![segment(&[16], &[], 0)]),
                "bad segment",
            ),
            (
                message("10.0.0.0/28", &["a"], vec![segment(&[1], &[15], 0)]),
                "bad segment",
            ),
            (
                message("10.0.0.0/28", &["a"], vec![segment(&[255; 16], &[], 0)]),
                "bad segment",
            ),
            (
                message("10.0.0.0/28", &["a"], vec![segment(&[1; 17], &[], 0)]),
                "bad gap",
            ),
        ] {
            let error = Delta::decode(&message.encode_to_vec())
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{error}");
        }
        assert!(matches!(
            Delta::decode(&[0xff]),
            Err(DecodeError::Malformed(_))
        ));
    }

    /// What gossip costs: a ring of the size of the cluster, not of the range.
    #[test]
    fn a_ring_of_a_thousand_blocks_is_small() {
        let universe = universe("10.32.0.0/12");
        let seeding = Seeding::new((0..1000).map(|i| name(&format!("node-{i:04}")))).unwrap();
        let bytes = Ring::seeded(universe, &seeding).unwrap().encode().len();
        // 11 bytes for a name in each of three lists, 11 for a segment, 6 for a member.
        assert!(bytes < 52_000, "{bytes} bytes");
    }
}
