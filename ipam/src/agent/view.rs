//! What an operator gets to see of an agent.

use wire::PeerName;

use super::Agent;
use crate::allocator::AllocateError;
use crate::range::Range;

/// Another node, or this one, in the address plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerSpace {
    /// Its name.
    pub name: PeerName,
    /// Addresses that it owns.
    pub owned: u128,
    /// Addresses that it had free when it last spoke; none: it did not.
    pub free: Option<u64>,
    /// Whether messages get to it.
    pub connected: bool,
    /// Whether it was declared gone and has not come back.
    pub gone: bool,
}

/// Something that an operator should look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// What kind, in one stable word.
    pub kind: &'static str,
    /// What it is about and what to do.
    pub message: String,
}

/// An agent at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentView {
    /// Every node of the plan, in the order of names.
    pub peers: Vec<PeerSpace>,
    /// Space taken over that is not confirmed.
    pub unconfirmed: Vec<Range>,
    /// Who has to confirm it.
    pub waiting: Vec<PeerName>,
    /// Own addresses that other nodes' containers hold, with the node.
    pub blocked: Vec<(Range, PeerName)>,
    /// Addresses of other nodes that containers hold here, with the text of the container.
    pub estranged: Vec<(u128, String)>,
    /// Windows in which this node wants space and has not got it.
    pub wanted: usize,
    /// What an operator should look at.
    pub notices: Vec<Notice>,
}

impl Agent {
    /// See [`AgentView`].
    pub fn view(&self) -> AgentView {
        let ring = self.ring();
        let owners = ring.owners();
        let mut names: Vec<&PeerName> = ring.roster().iter().map(|(name, _)| name).collect();
        names.extend(owners.keys());
        names.sort();
        names.dedup();
        let peers = names.into_iter().map(|name| {
            let (free, connected) = if *name == self.me {
                (Some(self.free()), true)
            } else {
                let peer = self.peers.get(name);
                (peer.and_then(|peer| peer.free), self.is_reachable(name))
            };
            let member = ring.roster().get(name);
            let gone = member.gone > 0 && !member.is_alive();
            PeerSpace {
                name: name.clone(),
                owned: owners.get(name).copied().unwrap_or(0),
                free: free.filter(|_| !gone),
                connected,
                gone,
            }
        });
        let blocked = self.blocked.iter().flat_map(|(holder, held)| {
            let mine = ring.owned_by(&self.me);
            let of_mine: Vec<Range> = held
                .iter()
                .flat_map(|run| mine.within(run).collect::<Vec<_>>())
                .collect();
            of_mine.into_iter().map(|range| (range, holder.clone()))
        });
        AgentView {
            peers: peers.collect(),
            unconfirmed: self.round.ranges.iter().collect(),
            waiting: self.unacknowledged(),
            blocked: blocked.collect(),
            estranged: self
                .allocator
                .estranged()
                .map(|(at, key)| (at, key.to_string()))
                .collect(),
            wanted: self.wants.len(),
            notices: self.notices(),
        }
    }

    fn notices(&self) -> Vec<Notice> {
        let mut notices = Vec::new();
        let address = |at: u128| self.allocator.universe().address(at);
        if self.ring().seedings().len() > 1 {
            let lists = self.ring().seedings().iter();
            let lists: Vec<String> = lists.map(ToString::to_string).collect();
            notices.push(Notice {
                kind: "ipam_seeded_apart",
                message: format!(
                    "rings that were seeded apart have met, among {}: each range has one owner now; \
                     containers that keep an address of another node are listed by weft status ipam",
                    lists.join(" and among ")
                ),
            });
        }
        let estranged: Vec<String> = self
            .allocator
            .estranged()
            .map(|(at, key)| {
                let owner = self.ring().owner_of(at).map_or("nobody", PeerName::as_str);
                format!("{} of {key} (owned by {owner})", address(at))
            })
            .collect();
        if !estranged.is_empty() {
            notices.push(Notice {
                kind: "ipam_estranged",
                message: format!(
                    "{} containers of this node have addresses that another node owns now; they keep \
                     them, replace the containers when you can: {}",
                    estranged.len(),
                    first_few(&estranged)
                ),
            });
        }
        let doubles: Vec<String> = self
            .doubles
            .iter()
            .filter_map(|(at, holder)| {
                let key = self.allocator.user_of(*at)?;
                Some(format!(
                    "{} of {key} here and of a container of node {holder}",
                    address(*at)
                ))
            })
            .collect();
        if !doubles.is_empty() {
            notices.push(Notice {
                kind: "ipam_double",
                message: format!(
                    "{} addresses are held by two containers, delete one of each: {}",
                    doubles.len(),
                    first_few(&doubles)
                ),
            });
        }
        let waiting = self.unacknowledged();
        if !waiting.is_empty() {
            let error = AllocateError::Unconfirmed {
                me: self.me.clone(),
                waiting,
            };
            notices.push(Notice {
                kind: "ipam_unconfirmed",
                message: format!("{error}: {}", error.remedy()),
            });
        }
        if let Some(fault) = self.election_fault().filter(|_| self.ring().is_undecided()) {
            notices.push(Notice {
                kind: "ipam_electors",
                message: format!("{fault}: start exactly that many, or use seed=NODE,NODE,.."),
            });
        }
        if let Some((peer, why)) = &self.refusal {
            notices.push(Notice {
                kind: "ipam_refused",
                message: format!("node {peer} sent an address plan that was refused: {why}"),
            });
        }
        notices
    }

    /// The allocator does not know why its space is small; this node does.
    pub(super) fn explained(&self, error: AllocateError) -> AllocateError {
        match error {
            AllocateError::Undecided { .. } => self.undivided(),
            AllocateError::Full { .. } | AllocateError::SubnetOfPeers { .. }
                if !self.round.ranges.is_empty() =>
            {
                AllocateError::Unconfirmed {
                    me: self.me.clone(),
                    waiting: self.unacknowledged(),
                }
            }
            other => other,
        }
    }
}

fn first_few(texts: &[String]) -> String {
    const SHOWN: usize = 10;
    let mut shown = texts[..texts.len().min(SHOWN)].join(", ");
    if let Some(more) = texts.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        shown.push_str(&format!(" and {more} more"));
    }
    shown
}
