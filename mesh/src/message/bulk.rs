//! Bodies of the messages that are many or large: fields of fixed size one after the other, numbers
//! in big-endian order, laid out in `docs/wire-format.md`.

use wire::PeerId;

use super::{Broadcast, Doubt, MAX_IDS, Message, MessageError, Parcel, Told, kind};
use crate::entry::MAX_ENTRY;
use crate::roster::BUCKETS;

impl Message {
    pub(super) fn encode_bulk(&self, out: &mut Vec<u8>) {
        match self {
            Self::Entries(told) => {
                out.push(kind::ENTRIES);
                for Told { idle, bytes } in told {
                    out.extend_from_slice(&idle.to_be_bytes());
                    let len = u16::try_from(bytes.len()).expect("an entry has at most 8 KiB");
                    out.extend_from_slice(&len.to_be_bytes());
                    out.extend_from_slice(bytes);
                }
            }
            Self::Digest(total) => {
                out.push(kind::DIGEST);
                out.extend_from_slice(&total.to_be_bytes());
            }
            Self::Buckets(sums) => {
                out.push(kind::BUCKETS);
                out.extend(sums.iter().flat_map(|sum| sum.to_be_bytes()));
            }
            Self::Versions { buckets, known } => {
                out.push(kind::VERSIONS);
                out.extend_from_slice(&buckets.to_be_bytes());
                for (id, version) in known {
                    out.extend_from_slice(&id.0);
                    out.extend_from_slice(&version.to_be_bytes());
                }
            }
            Self::Ask(ids) => {
                out.push(kind::ASK);
                out.extend(ids.iter().flat_map(|id| id.0));
            }
            Self::Need(need) => out.extend([kind::NEED, u8::from(*need)]),
            Self::Parcel(parcel) => {
                out.push(kind::PARCEL);
                out.extend_from_slice(&parcel.from.0);
                out.extend_from_slice(&parcel.to.0);
                out.extend([parcel.hops, parcel.channel]);
                out.extend_from_slice(&parcel.payload);
            }
            Self::Broadcast(broadcast) => {
                out.push(kind::BROADCAST);
                out.extend_from_slice(&broadcast.origin.0);
                out.extend_from_slice(&broadcast.sequence.to_be_bytes());
                out.extend([broadcast.hops, broadcast.channel]);
                out.extend_from_slice(&broadcast.payload);
            }
            Self::Doubt(doubt) => {
                out.push(kind::DOUBT);
                out.extend_from_slice(&doubt.to.0);
                out.push(doubt.hops);
                out.extend_from_slice(&doubt.about.0);
            }
            Self::Hello(_)
            | Self::Refuse(_)
            | Self::Ready
            | Self::Welcome
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Unknown(_) => unreachable!("has a body of another form"),
        }
    }

    /// Bytes beyond the fields of this version are passed over.
    pub(super) fn decode_bulk(kind: u8, body: &[u8]) -> Result<Self, MessageError> {
        let mut body = Body(body);
        Ok(match kind {
            kind::ENTRIES => {
                let mut told = Vec::new();
                while !body.0.is_empty() {
                    let idle = u32::from_be_bytes(body.take()?);
                    let len = usize::from(u16::from_be_bytes(body.take()?));
                    let bytes = body.0.split_at_checked(len).ok_or(MessageError::Short)?;
                    body.0 = bytes.1;
                    // One that is too long is not kept, and not read later.
                    if len <= MAX_ENTRY {
                        let bytes = bytes.0.to_vec();
                        told.push(Told { idle, bytes });
                    }
                }
                Self::Entries(told)
            }
            kind::DIGEST => Self::Digest(body.number()?),
            kind::BUCKETS => {
                let mut sums = Box::new([0; BUCKETS]);
                for sum in &mut *sums {
                    *sum = body.number()?;
                }
                Self::Buckets(sums)
            }
            kind::VERSIONS => {
                let buckets = body.number()?;
                let pairs = body.0.as_chunks::<16>().0.iter().take(MAX_IDS);
                let known = pairs.filter_map(|pair| {
                    let [id, version] = pair.as_chunks::<8>().0 else {
                        return None;
                    };
                    Some((PeerId(*id), u64::from_be_bytes(*version)))
                });
                let known = known.collect();
                Self::Versions { buckets, known }
            }
            kind::ASK => {
                let ids = body.0.as_chunks::<8>().0.iter().take(MAX_IDS);
                Self::Ask(ids.copied().map(PeerId).collect())
            }
            kind::NEED => Self::Need(body.byte()? != 0),
            kind::PARCEL => Self::Parcel(Parcel {
                from: PeerId(body.take()?),
                to: PeerId(body.take()?),
                hops: body.byte()?,
                channel: body.byte()?,
                payload: body.0.to_vec(),
            }),
            kind::BROADCAST => Self::Broadcast(Broadcast {
                origin: PeerId(body.take()?),
                sequence: body.number()?,
                hops: body.byte()?,
                channel: body.byte()?,
                payload: body.0.to_vec(),
            }),
            kind::DOUBT => Self::Doubt(Doubt {
                to: PeerId(body.take()?),
                hops: body.byte()?,
                about: PeerId(body.take()?),
            }),
            other => Self::Unknown(other),
        })
    }
}

/// What is left of a body.
struct Body<'a>(&'a [u8]);

impl Body<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MessageError> {
        let (first, rest) = self.0.split_first_chunk().ok_or(MessageError::Short)?;
        self.0 = rest;
        Ok(*first)
    }

    fn number(&mut self) -> Result<u64, MessageError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn byte(&mut self) -> Result<u8, MessageError> {
        let [byte] = self.take()?;
        Ok(byte)
    }
}
