//! Attachments whose interface is gone: of a pod that died with its node, or whose DEL never came.
//!
//! An attachment that was made with an Ethernet address has a veth on this node, by a name that
//! follows from it. A veth goes with the pod's namespace, so without one there is no pod that could
//! use the address. Garbage collection by the runtime (CNI `GC`) finds the same; not all runtimes do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use control::AttachmentRef;

/// How long an interface must be missing: much longer than an ADD takes to make it.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// The attachments that are without an interface, and since when.
#[derive(Debug, Default)]
pub struct Absences {
    since: BTreeMap<AttachmentRef, Duration>,
}

impl Absences {
    /// Looks at the attachments that should have an interface and at the names of those that are
    /// there; returns the attachments that have been without for [`PATIENCE`].
    pub fn due(
        &mut self,
        attachments: impl Iterator<Item = AttachmentRef>,
        present: &BTreeSet<String>,
        now: Duration,
    ) -> Vec<AttachmentRef> {
        let absent: BTreeSet<_> = attachments
            .filter(|of| !present.contains(&of.host_veth()))
            .collect();
        self.since.retain(|of, _| absent.contains(of));
        for of in absent {
            self.since.entry(of).or_insert(now);
        }
        let due = self
            .since
            .iter()
            .filter(|(_, since)| now.saturating_sub(**since) >= PATIENCE);
        due.map(|(of, _)| of.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_that_is_missing_for_long_is_gone() {
        let [a, b] = ["a", "b"].map(|id| AttachmentRef::new(id, "eth0"));
        let mut absences = Absences::default();
        let mut due = |present: &[&AttachmentRef], now| {
            let present = present.iter().map(|of| of.host_veth()).collect();
            let all = [a.clone(), b.clone()].into_iter();
            absences.due(all, &present, Duration::from_secs(now))
        };
        assert_eq!(due(&[&b], 0), []);
        assert_eq!(due(&[&b], 119), []);
        assert_eq!(due(&[&b], 120), std::slice::from_ref(&a));
        // Seen again, if only once: from the beginning.
        assert_eq!(due(&[&a, &b], 121), []);
        assert_eq!(due(&[&b], 122), []);
        assert_eq!(due(&[&b], 241), []);
        assert_eq!(due(&[&b], 242), std::slice::from_ref(&a));
    }
}
