//! What an operator should know and only an operator can mend.

use std::collections::BTreeMap;
use std::time::Duration;

/// Kinds of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConditionKind {
    /// Two nodes have one name.
    DuplicateName,
    /// Two nodes have one identity.
    DuplicateIdentity,
    /// A node of another VXLAN network.
    OtherNetwork,
    /// A node that speaks other versions of the protocol.
    OtherVersion,
    /// A node with another password, without one where this one has one, or of which only this is
    /// known that it is not to be spoken to.
    OtherPassword,
}

impl ConditionKind {
    /// The kind's name, as status and metrics show it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DuplicateName => "duplicate_name",
            Self::DuplicateIdentity => "duplicate_identity",
            Self::OtherNetwork => "other_network",
            Self::OtherVersion => "other_version",
            Self::OtherPassword => "other_password",
        }
    }
}

/// A condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// What kind.
    pub kind: ConditionKind,
    /// Whom it concerns: a node's name, an identity or an address. One condition per kind and
    /// subject.
    pub subject: String,
    /// What is the matter, and the remedy.
    pub message: String,
    /// How long it has been so.
    pub since: Duration,
}

/// The conditions that hold, each until it has not been seen again for a while.
#[derive(Debug)]
pub(crate) struct Conditions {
    open: BTreeMap<(ConditionKind, String), Open>,
    capacity: usize,
    lasts: Duration,
}

#[derive(Debug)]
struct Open {
    message: String,
    raised: Duration,
    seen: Duration,
}

impl Open {
    fn condition(&self, key: &(ConditionKind, String), now: Duration) -> Condition {
        Condition {
            kind: key.0,
            subject: key.1.clone(),
            message: self.message.clone(),
            since: now.saturating_sub(self.raised),
        }
    }
}

impl Conditions {
    pub(crate) const fn new(capacity: usize, lasts: Duration) -> Self {
        Self {
            open: BTreeMap::new(),
            capacity,
            lasts,
        }
    }

    /// Notes a condition. Returns it if it is new or says something new, and the one that made
    /// room for it.
    pub(crate) fn raise(
        &mut self,
        kind: ConditionKind,
        subject: String,
        message: String,
        now: Duration,
    ) -> (Option<Condition>, Option<Condition>) {
        let key = (kind, subject);
        if let Some(open) = self.open.get_mut(&key) {
            open.seen = now;
            if open.message == message {
                return (None, None);
            }
            open.message = message;
            return (Some(open.condition(&key, now)), None);
        }
        let evicted = if self.open.len() >= self.capacity {
            self.take_oldest(now)
        } else {
            None
        };
        let open = Open {
            message,
            raised: now,
            seen: now,
        };
        let raised = open.condition(&key, now);
        self.open.insert(key, open);
        (Some(raised), evicted)
    }

    /// Takes a condition that is over.
    pub(crate) fn take_over(&mut self, now: Duration) -> Option<Condition> {
        if self.next()? > now {
            None
        } else {
            self.take_oldest(now)
        }
    }

    /// When the next one is over.
    pub(crate) fn next(&self) -> Option<Duration> {
        self.open.values().map(|open| open.seen + self.lasts).min()
    }

    pub(crate) fn list(&self, now: Duration) -> Vec<Condition> {
        self.open
            .iter()
            .map(|(key, open)| open.condition(key, now))
            .collect()
    }

    /// Takes the condition that has not been seen for longest.
    fn take_oldest(&mut self, now: Duration) -> Option<Condition> {
        let key = self
            .open
            .iter()
            .min_by_key(|(_, open)| open.seen)?
            .0
            .clone();
        let open = self.open.remove(&key)?;
        Some(open.condition(&key, now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn raise(conditions: &mut Conditions, subject: &str, now: u64) -> (bool, Option<String>) {
        let (raised, evicted) = conditions.raise(
            ConditionKind::DuplicateName,
            subject.into(),
            "m".into(),
            S(now),
        );
        (raised.is_some(), evicted.map(|c| c.subject))
    }

    #[test]
    fn told_once_and_over_when_not_seen_again() {
        let mut conditions = Conditions::new(2, S(10));
        assert_eq!(raise(&mut conditions, "a", 0), (true, None));
        assert_eq!(raise(&mut conditions, "a", 5), (false, None));
        assert_eq!(conditions.take_over(S(14)), None);
        assert_eq!(conditions.next(), Some(S(15)));
        assert_eq!(conditions.take_over(S(15)).unwrap().since, S(15));
        assert_eq!(conditions.list(S(15)), []);
    }

    #[test]
    fn the_one_not_seen_for_longest_makes_room() {
        let mut conditions = Conditions::new(2, S(10));
        raise(&mut conditions, "a", 0);
        raise(&mut conditions, "b", 1);
        raise(&mut conditions, "a", 2);
        assert_eq!(raise(&mut conditions, "c", 3), (true, Some("b".into())));
        assert_eq!(conditions.list(S(3)).len(), 2);
    }
}
