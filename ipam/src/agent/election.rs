//! Agreement on the first division among a stated number of nodes: single-decree Paxos.
//!
//! `consensus=N` is given to exactly N nodes, the electors, whose names nobody has to know. A
//! division is decided when N/2 + 1 of them have accepted it, so two different ones never are. The
//! number is never derived from the nodes that are seen, and when more than N say to be electors,
//! nothing is decided and the operator is told: then two majorities need not overlap.
//!
//! The decided value is the list of electors that the proposer knew. What an elector has promised
//! and accepted is durable, so a restart does not make two electors of one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::PeerName;

use super::Agent;
use super::message::{Message, Step};
use crate::allocator::AllocateError;
use crate::ring::{Ring, Seeding};

/// How long a proposer that knows a majority waits for the other electors.
const GATHER: Duration = Duration::from_secs(5);
/// How long a proposal may take before it is made anew.
const PROPOSAL: Duration = Duration::from_secs(3);

/// A proposal's number; unique, because names are.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Ballot {
    pub(super) round: u64,
    pub(super) by: PeerName,
}

/// A node's part in the agreement.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Election {
    /// Durable: the highest ballot that was promised.
    pub(super) promised: Option<Ballot>,
    /// Durable: what was accepted last.
    pub(super) accepted: Option<(Ballot, Vec<PeerName>)>,
    proposal: Option<Proposal>,
    /// Since when a majority of electors is connected.
    gathered: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Proposal {
    ballot: Ballot,
    until: Duration,
    promises: BTreeMap<PeerName, Option<(Ballot, Vec<PeerName>)>>,
    /// What was asked to be accepted, once a majority has promised.
    value: Option<Vec<PeerName>>,
    accepted: BTreeSet<PeerName>,
}

impl Agent {
    /// Whether the first division is still to be agreed upon here.
    pub(super) fn is_electing(&self) -> bool {
        self.settings.consensus.is_some() && self.ring().is_undecided()
    }

    /// All electors that are known, this node included.
    fn electors(&self) -> BTreeSet<PeerName> {
        let others = self.peers.iter().filter(|(_, peer)| peer.electors > 0);
        let others = others.map(|(name, _)| name.clone());
        others.chain([self.me.clone()]).collect()
    }

    /// Whether not all electors are known.
    pub(super) fn lacks_electors(&self) -> bool {
        let wanted = self.settings.consensus.unwrap_or(0);
        self.is_electing() && (self.electors().len() as u128) < u128::from(wanted)
    }

    fn majority(&self) -> usize {
        let all = self.settings.consensus.unwrap_or(0) / 2 + 1;
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    /// Why the electors cannot agree, whatever they say.
    pub(super) fn election_fault(&self) -> Option<String> {
        let wanted = self.settings.consensus?;
        let electors = self.electors();
        if electors.len() as u128 > u128::from(wanted) {
            let names: Vec<&str> = electors.iter().map(PeerName::as_str).collect();
            return Some(format!(
                "{} nodes were started with --ipam-init consensus={wanted}: {}",
                names.len(),
                names.join(", ")
            ));
        }
        let other = self
            .peers
            .iter()
            .find(|(_, peer)| peer.electors > 0 && peer.electors != wanted)?;
        Some(format!(
            "this node was started with --ipam-init consensus={wanted}, {} with consensus={}",
            other.0, other.1.electors
        ))
    }

    /// What an allocation waits for while nothing is divided.
    pub(super) fn undivided(&self) -> AllocateError {
        let range = self.allocator.universe();
        let Some(wanted) = self.settings.consensus else {
            return AllocateError::Undecided { range };
        };
        let waiting = self.election_fault().unwrap_or_else(|| {
            let present: Vec<String> = self
                .electors()
                .iter()
                .filter(|name| **name == self.me || self.is_reachable(name))
                .map(ToString::to_string)
                .collect();
            format!(
                "waiting for {} of {wanted} nodes to agree, {} here: {}",
                self.majority(),
                present.len(),
                present.join(", ")
            )
        });
        AllocateError::Undivided { range, waiting }
    }

    /// Makes a proposal if this node is to: the one with the lowest name of those connected.
    pub(super) fn propose(&mut self, now: Duration) {
        if !self.is_electing() || self.election_fault().is_some() {
            return;
        }
        let present: BTreeSet<PeerName> = self
            .electors()
            .into_iter()
            .filter(|name| *name == self.me || self.is_reachable(name))
            .collect();
        if present.len() < self.majority() {
            self.election.gathered = None;
            return;
        }
        let since = *self.election.gathered.get_or_insert(now);
        let complete = Some(present.len()) == self.settings.consensus.map(|n| n as usize);
        if !complete && now.saturating_sub(since) < GATHER {
            return;
        }
        let running = self.election.proposal.as_ref();
        if present.first() != Some(&self.me) || running.is_some_and(|p| p.until > now) {
            return;
        }
        let highest = self.election.promised.as_ref().map_or(0, |b| b.round);
        let ballot = Ballot {
            round: highest.saturating_add(1),
            by: self.me.clone(),
        };
        self.election.proposal = Some(Proposal {
            ballot: ballot.clone(),
            until: now + PROPOSAL,
            promises: BTreeMap::new(),
            value: None,
            accepted: BTreeSet::new(),
        });
        self.tell_electors(&Step::Prepare(ballot.clone()));
        let me = self.me.clone();
        self.vote(&me, Step::Prepare(ballot), now);
    }

    /// A step of another elector.
    pub(super) fn elect(&mut self, from: &PeerName, electors: u32, step: Step, now: Duration) {
        self.peers.entry(from.clone()).or_default().electors = electors;
        if self.settings.consensus.is_none() {
            return;
        }
        if !self.ring().is_undecided() {
            // It has missed the decision.
            let all = self.ring().delta();
            self.tell(Some(from), &all);
            return;
        }
        if self.election_fault().is_none() {
            self.vote(from, step, now);
        }
    }

    fn vote(&mut self, from: &PeerName, step: Step, now: Duration) {
        match step {
            Step::Prepare(ballot) => {
                if self.election.promised.as_ref().is_some_and(|p| *p > ballot) {
                    return self.refuse_ballot(from, now);
                }
                self.election.promised = Some(ballot.clone());
                self.unsaved = true;
                let accepted = self.election.accepted.clone();
                self.reply(from, Step::Promise(ballot, accepted), now);
            }
            Step::Accept(ballot, value) => {
                if self.election.promised.as_ref().is_some_and(|p| *p > ballot) {
                    return self.refuse_ballot(from, now);
                }
                self.election.promised = Some(ballot.clone());
                self.election.accepted = Some((ballot.clone(), value));
                self.unsaved = true;
                self.reply(from, Step::Accepted(ballot), now);
            }
            Step::Promise(ballot, accepted) => self.promised(from, &ballot, accepted, now),
            Step::Accepted(ballot) => self.accepted(from, &ballot, now),
            Step::Refused(promised) => {
                // The next proposal is numbered above it.
                if self
                    .election
                    .promised
                    .as_ref()
                    .is_none_or(|p| *p < promised)
                {
                    self.election.promised = Some(promised);
                    self.unsaved = true;
                }
                self.election.proposal = None;
            }
        }
    }

    fn refuse_ballot(&mut self, from: &PeerName, now: Duration) {
        if let Some(promised) = self.election.promised.clone() {
            self.reply(from, Step::Refused(promised), now);
        }
    }

    fn reply(&mut self, to: &PeerName, step: Step, now: Duration) {
        if *to == self.me {
            self.vote(to, step, now);
        } else {
            let electors = self.settings.consensus.unwrap_or(0);
            self.send(Some(to), &Message::Elect { electors, step });
        }
    }

    fn tell_electors(&mut self, step: &Step) {
        let electors = self.settings.consensus.unwrap_or(0);
        let message = Message::Elect {
            electors,
            step: step.clone(),
        };
        for name in self.electors() {
            if name != self.me {
                self.send(Some(&name), &message);
            }
        }
    }

    fn promised(
        &mut self,
        from: &PeerName,
        ballot: &Ballot,
        accepted: Option<(Ballot, Vec<PeerName>)>,
        now: Duration,
    ) {
        let (majority, electors) = (self.majority(), self.electors());
        let Some(proposal) = self.election.proposal.as_mut() else {
            return;
        };
        if proposal.ballot != *ballot || proposal.value.is_some() {
            return;
        }
        proposal.promises.insert(from.clone(), accepted);
        if proposal.promises.len() < majority {
            return;
        }
        let earlier = proposal.promises.values().flatten().max();
        let value = match earlier {
            Some((_, value)) => value.clone(),
            None => electors.into_iter().collect(),
        };
        proposal.value = Some(value.clone());
        let step = Step::Accept(ballot.clone(), value);
        self.tell_electors(&step);
        let me = self.me.clone();
        self.vote(&me, step, now);
    }

    fn accepted(&mut self, from: &PeerName, ballot: &Ballot, now: Duration) {
        let majority = self.majority();
        let Some(proposal) = self.election.proposal.as_mut() else {
            return;
        };
        if proposal.ballot != *ballot {
            return;
        }
        proposal.accepted.insert(from.clone());
        let Some(value) = proposal.value.clone() else {
            return;
        };
        if proposal.accepted.len() < majority {
            return;
        }
        self.election.proposal = None;
        let seeded = Seeding::new(value)
            .ok()
            .and_then(|seeding| Ring::seeded(self.allocator.universe(), &seeding).ok());
        let mut ring = self.ring().clone();
        if let Some(seeded) = seeded
            && ring.merge(&seeded.delta()).is_ok()
        {
            self.set_ring(ring, now);
            let all = self.ring().delta();
            self.tell(None, &all);
            self.inquiry.start_over();
            self.pursue(now);
        }
    }
}
