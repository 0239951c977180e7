//! What an agent keeps over a restart beside ring and allocations: addresses that others hold,
//! its votes in the agreement on the first division, and of which end of its own it knows.

use prost::Message as _;

use super::Agent;
use super::message::{
    BallotMessage, Run, read_ballot, read_name, read_names, read_runs, write_ballot, write_names,
    write_runs,
};
use crate::message::DecodeError;

#[derive(Clone, PartialEq, prost::Message)]
struct StateMessage {
    #[prost(message, repeated, tag = "1")]
    blocked: Vec<BlockedMessage>,
    #[prost(message, optional, tag = "2")]
    promised: Option<BallotMessage>,
    #[prost(message, optional, tag = "3")]
    accepted: Option<BallotMessage>,
    #[prost(string, repeated, tag = "4")]
    value: Vec<String>,
    #[prost(uint32, tag = "5")]
    answered_gone: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct BlockedMessage {
    #[prost(string, tag = "1")]
    holder: String,
    #[prost(message, repeated, tag = "2")]
    held: Vec<Run>,
}

impl Agent {
    /// In bytes, for the disk; [`Agent::ring`] is stored beside it.
    pub fn state(&self) -> Vec<u8> {
        let blocked = self.blocked.iter().map(|(holder, held)| BlockedMessage {
            holder: holder.as_str().to_owned(),
            held: write_runs(held),
        });
        let accepted = self.election.accepted.as_ref();
        StateMessage {
            blocked: blocked.collect(),
            promised: self.election.promised.as_ref().map(write_ballot),
            accepted: accepted.map(|(ballot, _)| write_ballot(ballot)),
            value: accepted.map_or_else(Vec::new, |(_, value)| write_names(value)),
            answered_gone: self.answered_gone,
        }
        .encode_to_vec()
    }

    pub(super) fn restore(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let state =
            StateMessage::decode(bytes).map_err(|e| DecodeError::Malformed(e.to_string()))?;
        for BlockedMessage { holder, held } in &state.blocked {
            self.blocked.insert(read_name(holder)?, read_runs(held)?);
        }
        self.answered_gone = state.answered_gone;
        self.election.promised = state.promised.as_ref().map(read_ballot).transpose()?;
        let value = read_names(&state.value)?;
        self.election.accepted = match &state.accepted {
            Some(ballot) => Some((read_ballot(ballot)?, value)),
            None => None,
        };
        Ok(())
    }
}
