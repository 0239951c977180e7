//! Frames of pods, and where they arrived.

use std::collections::BTreeMap;
use std::time::Duration;

/// All frames that were sent.
#[derive(Debug, Default)]
pub struct Frames {
    next: u64,
    sent: BTreeMap<u64, Frame>,
    /// The first that did what none may do.
    fault: Option<String>,
}

/// A frame.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The machine whose pod sent it.
    pub from: usize,
    /// When.
    pub at: Duration,
    /// Machines that a copy was made for, and when it arrived.
    pub copies: BTreeMap<usize, Option<Duration>>,
}

impl Frames {
    pub(crate) fn send(
        &mut self,
        from: usize,
        to: impl Iterator<Item = usize>,
        at: Duration,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let copies = to.map(|to| (to, None)).collect();
        self.sent.insert(number, Frame { from, at, copies });
        number
    }

    /// A copy arrived that the network did not double.
    pub(crate) fn arrive(&mut self, number: u64, to: usize, at: Duration) {
        let Some(frame) = self.sent.get_mut(&number) else {
            return;
        };
        let from = frame.from;
        let fault = match frame.copies.get_mut(&to) {
            Some(arrived @ None) => {
                *arrived = Some(at);
                return;
            }
            Some(Some(_)) => "arrived twice at",
            None => "was not for, and arrived at,",
        };
        let text = || format!("I3: at {at:?} frame {number} of {from} {fault} {to}");
        self.fault.get_or_insert_with(text);
    }

    /// A datagram's hop limit ran out: it went round and round.
    pub(crate) fn circulate(&mut self, at: Duration, by: usize) {
        let text = || format!("I3: at {at:?} the hop limit of a datagram ran out at {by}");
        self.fault.get_or_insert_with(text);
    }

    /// Something came in the clear that was to be sealed.
    pub(crate) fn come_in_the_clear(&mut self, at: Duration, to: usize) {
        let text = || format!("I4: at {at:?} something reached {to} in the clear");
        self.fault.get_or_insert_with(text);
    }

    /// A frame, until it is forgotten.
    pub fn get(&self, number: u64) -> Option<&Frame> {
        self.sent.get(&number)
    }

    /// Forgets all that were sent before this time: what is on its way from then on is no more.
    pub fn forget_before(&mut self, time: Duration) {
        self.sent.retain(|_, frame| frame.at >= time);
    }

    /// I3: each frame arrived at most once at each machine, and nothing circulated. I4: where links are
    /// sealed, nothing came in the clear.
    ///
    /// # Errors
    /// Names the first of which that is not so.
    pub fn check(&self) -> Result<(), String> {
        self.fault.clone().map_or(Ok(()), Err)
    }
}
