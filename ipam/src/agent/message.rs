//! What agents say to each other, and its form in bytes (Protocol Buffers).

use prost::Message as _;
use wire::PeerName;

use super::election::Ballot;
use crate::message::DecodeError;
use crate::range::Range;
use crate::range_set::RangeSet;
use crate::ring::{Delta, Digest};

/// Most runs of addresses in a message; more come from a fault.
const MAX_RUNS: usize = 1 << 16;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// "This is what I know; what do you know beyond?"
    Sync {
        digest: Digest,
        /// The sender's life; 0: it has not chosen one.
        life: u32,
        /// The number of `consensus=N`; 0: none.
        electors: u32,
        free: u64,
    },
    /// The answer to a sync.
    Answer {
        delta: Delta,
        digest: Digest,
        /// The life of the reader that the sender knows of.
        life: u32,
        /// Whether the sender itself knows nothing from before its start.
        fresh: bool,
        /// Whether the sender may allocate.
        admitted: bool,
        electors: u32,
        free: u64,
    },
    /// News.
    Update { delta: Delta, free: u64 },
    /// "Give me space."
    Request {
        window: Range,
        size: u64,
        /// Somebody waits for an address.
        urgent: bool,
        life: u32,
    },
    /// "I have none."
    Denied { window: Range, free: u64 },
    /// "I have taken this over; what do you say?"
    Confirm { round: u64, delta: Delta },
    /// "I know that, and this is all I know of it." With what the sender's containers hold of
    /// other nodes' space.
    Ack {
        round: u64,
        delta: Delta,
        held: RangeSet,
    },
    /// What the sender's containers hold of other nodes' space.
    Held {
        held: RangeSet,
        /// The life in which it says so.
        life: u32,
    },
    /// "Do your containers still hold addresses of mine?"
    Recall,
    /// A step of the agreement on the first division.
    Elect {
        /// Number of electors that the sender was told.
        electors: u32,
        step: Step,
    },
}

/// Steps of single-decree agreement (Lamport, Paxos Made Simple, §2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// Phase 1a.
    Prepare(Ballot),
    /// Phase 1b, with what was accepted before.
    Promise(Ballot, Option<(Ballot, Vec<PeerName>)>),
    /// Phase 2a.
    Accept(Ballot, Vec<PeerName>),
    /// Phase 2b.
    Accepted(Ballot),
    /// The ballot is too low: this one was promised.
    Refused(Ballot),
}

#[derive(Clone, PartialEq, prost::Message)]
struct Envelope {
    #[prost(oneof = "Body", tags = "1, 2, 3, 4, 5, 6, 7, 8, 9, 10")]
    body: Option<Body>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Body {
    #[prost(message, tag = "1")]
    Sync(SyncMessage),
    #[prost(message, tag = "2")]
    Answer(AnswerMessage),
    #[prost(message, tag = "3")]
    Update(UpdateMessage),
    #[prost(message, tag = "4")]
    Request(RequestMessage),
    #[prost(message, tag = "5")]
    Denied(DeniedMessage),
    #[prost(message, tag = "6")]
    Confirm(ConfirmMessage),
    #[prost(message, tag = "7")]
    Ack(AckMessage),
    #[prost(message, tag = "8")]
    Held(HeldMessage),
    #[prost(message, tag = "9")]
    Elect(ElectMessage),
    #[prost(message, tag = "10")]
    Recall(RecallMessage),
}

#[derive(Clone, PartialEq, prost::Message)]
struct SyncMessage {
    #[prost(bytes = "vec", tag = "1")]
    digest: Vec<u8>,
    #[prost(uint32, tag = "2")]
    life: u32,
    #[prost(uint32, tag = "3")]
    electors: u32,
    #[prost(uint64, tag = "4")]
    free: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AnswerMessage {
    #[prost(bytes = "vec", tag = "1")]
    delta: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    digest: Vec<u8>,
    #[prost(uint32, tag = "3")]
    life: u32,
    #[prost(bool, tag = "4")]
    fresh: bool,
    #[prost(uint32, tag = "5")]
    electors: u32,
    #[prost(uint64, tag = "6")]
    free: u64,
    #[prost(bool, tag = "7")]
    admitted: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UpdateMessage {
    #[prost(bytes = "vec", tag = "1")]
    delta: Vec<u8>,
    #[prost(uint64, tag = "2")]
    free: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestMessage {
    #[prost(message, optional, tag = "1")]
    window: Option<Run>,
    #[prost(uint64, tag = "2")]
    size: u64,
    #[prost(bool, tag = "3")]
    urgent: bool,
    #[prost(uint32, tag = "4")]
    life: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct DeniedMessage {
    #[prost(message, optional, tag = "1")]
    window: Option<Run>,
    #[prost(uint64, tag = "2")]
    free: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ConfirmMessage {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(bytes = "vec", tag = "2")]
    delta: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct AckMessage {
    #[prost(uint64, tag = "1")]
    round: u64,
    #[prost(bytes = "vec", tag = "2")]
    delta: Vec<u8>,
    #[prost(message, repeated, tag = "3")]
    held: Vec<Run>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HeldMessage {
    #[prost(message, repeated, tag = "1")]
    held: Vec<Run>,
    #[prost(uint32, tag = "2")]
    life: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RecallMessage {}

#[derive(Clone, PartialEq, prost::Message)]
struct ElectMessage {
    #[prost(uint32, tag = "1")]
    electors: u32,
    /// 1 prepare, 2 promise, 3 accept, 4 accepted, 5 refused.
    #[prost(uint32, tag = "2")]
    step: u32,
    #[prost(message, optional, tag = "3")]
    ballot: Option<BallotMessage>,
    #[prost(message, optional, tag = "4")]
    accepted: Option<BallotMessage>,
    #[prost(string, repeated, tag = "5")]
    value: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct BallotMessage {
    #[prost(uint64, tag = "1")]
    pub(super) round: u64,
    #[prost(string, tag = "2")]
    pub(super) by: String,
}

/// First and last address, 16 bytes each, big-endian.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Run {
    #[prost(bytes = "vec", tag = "1")]
    first: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    last: Vec<u8>,
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let body = match self {
            Self::Sync {
                digest,
                life,
                electors,
                free,
            } => Body::Sync(SyncMessage {
                digest: digest.encode(),
                life: *life,
                electors: *electors,
                free: *free,
            }),
            Self::Answer {
                delta,
                digest,
                life,
                fresh,
                admitted,
                electors,
                free,
            } => Body::Answer(AnswerMessage {
                delta: delta.encode(),
                digest: digest.encode(),
                life: *life,
                fresh: *fresh,
                admitted: *admitted,
                electors: *electors,
                free: *free,
            }),
            Self::Update { delta, free } => Body::Update(UpdateMessage {
                delta: delta.encode(),
                free: *free,
            }),
            Self::Request {
                window,
                size,
                urgent,
                life,
            } => Body::Request(RequestMessage {
                window: Some(write_run(*window)),
                size: *size,
                urgent: *urgent,
                life: *life,
            }),
            Self::Denied { window, free } => Body::Denied(DeniedMessage {
                window: Some(write_run(*window)),
                free: *free,
            }),
            Self::Confirm { round, delta } => Body::Confirm(ConfirmMessage {
                round: *round,
                delta: delta.encode(),
            }),
            Self::Ack { round, delta, held } => Body::Ack(AckMessage {
                round: *round,
                delta: delta.encode(),
                held: write_runs(held),
            }),
            Self::Held { held, life } => Body::Held(HeldMessage {
                held: write_runs(held),
                life: *life,
            }),
            Self::Recall => Body::Recall(RecallMessage {}),
            Self::Elect { electors, step } => Body::Elect(write_step(*electors, step)),
        };
        Envelope { body: Some(body) }.encode_to_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let envelope =
            Envelope::decode(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))?;
        let Some(body) = envelope.body else {
            return Err(DecodeError::Malformed(
                "it is of an unknown kind".to_owned(),
            ));
        };
        Ok(match body {
            Body::Sync(m) => Self::Sync {
                digest: Digest::decode(&m.digest)?,
                life: m.life,
                electors: m.electors,
                free: m.free,
            },
            Body::Answer(m) => Self::Answer {
                delta: Delta::decode(&m.delta)?,
                digest: Digest::decode(&m.digest)?,
                life: m.life,
                fresh: m.fresh,
                admitted: m.admitted,
                electors: m.electors,
                free: m.free,
            },
            Body::Update(m) => Self::Update {
                delta: Delta::decode(&m.delta)?,
                free: m.free,
            },
            Body::Request(m) => Self::Request {
                window: read_run(&m.window.unwrap_or_default())?,
                size: m.size,
                urgent: m.urgent,
                life: m.life,
            },
            Body::Denied(m) => Self::Denied {
                window: read_run(&m.window.unwrap_or_default())?,
                free: m.free,
            },
            Body::Confirm(m) => Self::Confirm {
                round: m.round,
                delta: Delta::decode(&m.delta)?,
            },
            Body::Ack(m) => Self::Ack {
                round: m.round,
                delta: Delta::decode(&m.delta)?,
                held: read_runs(&m.held)?,
            },
            Body::Held(m) => Self::Held {
                held: read_runs(&m.held)?,
                life: m.life,
            },
            Body::Recall(RecallMessage {}) => Self::Recall,
            Body::Elect(m) => Self::Elect {
                electors: m.electors,
                step: read_step(m)?,
            },
        })
    }
}

fn write_step(electors: u32, step: &Step) -> ElectMessage {
    let (step, ballot, accepted) = match step {
        Step::Prepare(ballot) => (1, ballot, None),
        Step::Promise(ballot, accepted) => (2, ballot, accepted.clone()),
        Step::Accept(ballot, value) => (3, ballot, Some((ballot.clone(), value.clone()))),
        Step::Accepted(ballot) => (4, ballot, None),
        Step::Refused(ballot) => (5, ballot, None),
    };
    let (accepted, value) = accepted.unzip();
    ElectMessage {
        electors,
        step,
        ballot: Some(write_ballot(ballot)),
        accepted: accepted.as_ref().map(write_ballot),
        value: write_names(&value.unwrap_or_default()),
    }
}

fn read_step(m: ElectMessage) -> Result<Step, DecodeError> {
    let ballot = read_ballot(&m.ballot.unwrap_or_default())?;
    let value = read_names(&m.value)?;
    Ok(match m.step {
        1 => Step::Prepare(ballot),
        2 => {
            let accepted = m.accepted.map(|a| read_ballot(&a)).transpose()?;
            Step::Promise(ballot, accepted.map(|accepted| (accepted, value)))
        }
        3 => Step::Accept(ballot, value),
        4 => Step::Accepted(ballot),
        5 => Step::Refused(ballot),
        other => return Err(bad("step", other.to_string())),
    })
}

pub(super) fn write_ballot(ballot: &Ballot) -> BallotMessage {
    BallotMessage {
        round: ballot.round,
        by: ballot.by.as_str().to_owned(),
    }
}

pub(super) fn read_ballot(m: &BallotMessage) -> Result<Ballot, DecodeError> {
    let by = read_name(&m.by)?;
    Ok(Ballot { round: m.round, by })
}

pub(super) fn write_names(names: &[PeerName]) -> Vec<String> {
    names.iter().map(|name| name.as_str().to_owned()).collect()
}

pub(super) fn read_names(names: &[String]) -> Result<Vec<PeerName>, DecodeError> {
    names.iter().map(|name| read_name(name)).collect()
}

pub(super) fn read_name(name: &str) -> Result<PeerName, DecodeError> {
    name.parse()
        .map_err(|e: wire::peer::ParsePeerNameError| bad("peer", e.to_string()))
}

pub(super) fn write_runs(set: &RangeSet) -> Vec<Run> {
    set.iter().take(MAX_RUNS).map(write_run).collect()
}

pub(super) fn read_runs(runs: &[Run]) -> Result<RangeSet, DecodeError> {
    if runs.len() > MAX_RUNS {
        return Err(bad("runs", format!("{}, more than {MAX_RUNS}", runs.len())));
    }
    runs.iter().map(read_run).collect()
}

fn write_run(range: Range) -> Run {
    Run {
        first: range.first().to_be_bytes().to_vec(),
        last: range.last().to_be_bytes().to_vec(),
    }
}

fn read_run(run: &Run) -> Result<Range, DecodeError> {
    let number = |bytes: &[u8]| <[u8; 16]>::try_from(bytes).map(u128::from_be_bytes).ok();
    number(&run.first)
        .zip(number(&run.last))
        .and_then(|(first, last)| Range::new(first, last))
        .ok_or_else(|| bad("run", "is no run of addresses".to_owned()))
}

fn bad(field: &'static str, value: String) -> DecodeError {
    DecodeError::BadField { field, value }
}
