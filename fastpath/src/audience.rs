//! Who gets a frame whose destination is a group's, or not known: all, unless something is known of
//! those who want it.

use wire::Mac;
use wire::membership::Message;

use crate::counters::{Counters, add};
use crate::forwarding::{Forwarding, Slot};
use crate::groups::may_select;
use crate::resolver::{Asked, may_ask};

/// Links to which a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Audience<'a> {
    /// All.
    All,
    /// One.
    One(Slot),
    /// None: it is for this node alone, whose bridge has delivered it.
    Nobody,
    /// Those who want this group, and those who want all groups.
    Listeners(&'a [Slot], &'a [Slot]),
}

impl<'a> Audience<'a> {
    /// The audience of a frame from the TAP, which is counted. `new` says that its sender was not
    /// known to be here: then all others are to learn it too. `said` is what it says of groups.
    pub(crate) fn of(
        frame: &[u8],
        dst: Mac,
        new: bool,
        said: Option<&Message<'_>>,
        forwarding: &'a Forwarding,
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
            None => (
                Self::of_group(frame, dst, said, forwarding),
                &counters.multicast_selected,
            ),
        };
        if asked.is_some() || audience != Self::All {
            add(counter, 1);
        }
        audience
    }

    fn of_group(
        frame: &[u8],
        dst: Mac,
        said: Option<&Message<'_>>,
        forwarding: &'a Forwarding,
    ) -> Self {
        let groups = forwarding.groups();
        match said {
            // A report heard by stations that would report the same keeps them silent, and their node
            // would not know of them (RFC 4541 §2.1.1). Those who want all groups need none.
            Some(Message::Report(_)) => Self::Listeners(&[], groups.all()),
            Some(Message::Router) => Self::All,
            None if may_select(frame, dst) => match groups.listeners(dst) {
                Some(listeners) => Self::Listeners(listeners, groups.all()),
                None => Self::All,
            },
            None => Self::All,
        }
    }

    /// The links.
    pub(crate) fn slots(&'a self, forwarding: &'a Forwarding) -> impl Iterator<Item = Slot> + 'a {
        let (some, more) = match self {
            Self::All => (forwarding.flood(), &[][..]),
            Self::One(slot) => (std::slice::from_ref(slot), &[][..]),
            Self::Nobody => (&[][..], &[][..]),
            Self::Listeners(some, more) => (*some, *more),
        };
        some.iter().chain(more).copied()
    }
}
