//! Events on their way to the router.

use std::collections::VecDeque;

use mesh::{ConditionChange, ConditionKind};
use wire::{PeerId, PeerName};

use super::MeshEvent;

/// Gossip messages that wait; one more is dropped and counted.
const MAX_GOSSIP_WAITING: usize = 256;

/// Events that wait for the router to take them.
///
/// Bounded without ever losing a state: an event that says the last word on something takes the
/// place of an earlier one on the same thing, so that there is at most one per peer and kind and one
/// per condition; gossip, which is repaired by those who gossip, has a limit.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    events: VecDeque<MeshEvent>,
    gossip: usize,
    dropped: u64,
}

/// What an event has the last word on.
#[derive(PartialEq, Eq)]
enum Subject<'a> {
    Link(PeerId),
    Groups(PeerId),
    Reachable(&'a PeerName),
    Connected(PeerId),
    Key(PeerId),
    Condition(ConditionKind, &'a str),
}

impl Backlog {
    pub(super) fn push(&mut self, event: MeshEvent) {
        match subject(&event) {
            Some(subject_of_new) => {
                let same = |old: &MeshEvent| subject(old).as_ref() == Some(&subject_of_new);
                if let Some(old) = self.events.iter().position(same) {
                    self.events.remove(old);
                }
            }
            None if self.gossip >= MAX_GOSSIP_WAITING => {
                self.dropped += 1;
                return;
            }
            None => self.gossip += 1,
        }
        self.events.push_back(event);
    }

    pub(super) fn pop(&mut self) -> Option<MeshEvent> {
        let event = self.events.pop_front()?;
        if matches!(event, MeshEvent::Gossip { .. }) {
            self.gossip -= 1;
        }
        Some(event)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Gossip messages dropped since the start.
    pub(super) const fn dropped(&self) -> u64 {
        self.dropped
    }
}

fn subject(event: &MeshEvent) -> Option<Subject<'_>> {
    match event {
        MeshEvent::Link(change) => Some(Subject::Link(change.id())),
        MeshEvent::Groups { id, .. } => Some(Subject::Groups(*id)),
        // Those who are told go by names: of two identities with one name, one after the other, only
        // the last counts.
        MeshEvent::Reachable { name, .. } => Some(Subject::Reachable(name)),
        MeshEvent::Connected { id, .. } => Some(Subject::Connected(*id)),
        MeshEvent::Key { id, .. } => Some(Subject::Key(*id)),
        MeshEvent::Condition(
            ConditionChange::Raised(condition) | ConditionChange::Over(condition),
        ) => Some(Subject::Condition(condition.kind, &condition.subject)),
        MeshEvent::Gossip { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use mesh::LinkChange;

    use super::*;

    fn left(number: u8) -> MeshEvent {
        let name = format!("n{number}").parse().unwrap();
        MeshEvent::Link(LinkChange::Left {
            id: PeerId([number; 8]),
            name,
        })
    }

    fn down(number: u8) -> MeshEvent {
        let name = format!("n{number}").parse().unwrap();
        let reason = "x".to_owned();
        MeshEvent::Link(LinkChange::Down {
            id: PeerId([number; 8]),
            name,
            reason,
        })
    }

    #[test]
    fn the_last_word_counts_and_comes_in_its_order() {
        let mut backlog = Backlog::default();
        for event in [down(1), left(2), left(1)] {
            backlog.push(event);
        }
        let taken = [backlog.pop(), backlog.pop(), backlog.pop()];
        assert_eq!(taken, [Some(left(2)), Some(left(1)), None]);
    }

    #[test]
    fn gossip_is_dropped_when_the_router_is_far_behind() {
        let mut backlog = Backlog::default();
        let gossip = || MeshEvent::Gossip {
            from: PeerId([1; 8]),
            name: "n1".parse().unwrap(),
            channel: 0,
            payload: Vec::new(),
        };
        for _ in 0..MAX_GOSSIP_WAITING + 3 {
            backlog.push(gossip());
        }
        backlog.push(left(1));
        assert_eq!(backlog.dropped(), 3);
        for _ in 0..MAX_GOSSIP_WAITING {
            assert_eq!(backlog.pop(), Some(gossip()));
        }
        assert_eq!((backlog.pop(), backlog.is_empty()), (Some(left(1)), true));
        backlog.push(gossip());
        assert_eq!(backlog.dropped(), 3);
    }
}
