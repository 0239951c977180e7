//! Who gets a frame whose destination is a group's, or not known: all, unless something is known of
//! those who want it.

use wire::Mac;

use crate::counters::{Counters, add};
use crate::forwarding::{Forwarding, Slot};
use crate::resolver::{Asked, may_ask};

/// Links to which a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience {
    /// All.
    All,
    /// One.
    One(Slot),
    /// None: it is for this node alone, whose bridge has delivered it.
    Nobody,
}

impl Audience {
    /// The audience of a frame from the TAP, which is counted. `new` says that its sender was not
    /// known to be here: then all others are to learn it too.
    pub(crate) fn of(
        frame: &[u8],
        dst: Mac,
        new: bool,
        forwarding: &Forwarding,
        now: u32,
        counters: &Counters,
    ) -> Self {
        let asked = match may_ask(dst) && !new {
            true => forwarding.resolver().ask(frame, forwarding, now),
            false => None,
        };
        let (audience, counter) = match asked {
            Some(Asked::Owner(slot)) => (Self::One(slot), &counters.asked_owner),
            Some(Asked::Here) => (Self::Nobody, &counters.asked_here),
            Some(Asked::All) => (Self::All, &counters.asked_all),
            None => return Self::All,
        };
        add(counter, 1);
        audience
    }

    /// The links.
    pub(crate) fn slots<'a>(&'a self, forwarding: &'a Forwarding) -> &'a [Slot] {
        match self {
            Self::All => forwarding.flood(),
            Self::One(slot) => std::slice::from_ref(slot),
            Self::Nobody => &[],
        }
    }
}
