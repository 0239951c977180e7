//! Which links want which multicast groups.
//!
//! Nodes tell each other the groups that their pods listen to. A frame to a group that anybody has told
//! of goes to those who have told of it, and to those who want all groups; a frame to any other group
//! goes to all. What a station may listen to without ever saying so (RFC 4541 §2.1.2) always goes to all.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use wire::Mac;
use wire::ethernet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};

use crate::forwarding::Slot;

/// Groups that are known at most; frames to others go to all.
const CAPACITY: usize = 4096;

/// Who wants what.
#[derive(Debug, Clone, Default)]
pub struct GroupTable {
    listeners: HashMap<Mac, Vec<Slot>, RandomState>,
    /// Those that want all groups.
    all: Vec<Slot>,
}

impl GroupTable {
    /// A table of what each link wants, these groups or, by none, all of them; and of this node's own
    /// groups, of which all have been told.
    pub fn new<'a>(
        own: impl IntoIterator<Item = Mac>,
        links: impl IntoIterator<Item = (Slot, Option<&'a [Mac]>)>,
    ) -> Self {
        let mut table = Self::default();
        for group in own {
            table.room_for(group);
        }
        for (slot, groups) in links {
            match groups {
                None => table.all.push(slot),
                Some(groups) => {
                    for &group in groups {
                        if let Some(listeners) = table.room_for(group)
                            && listeners.last() != Some(&slot)
                        {
                            listeners.push(slot);
                        }
                    }
                }
            }
        }
        table
    }

    /// Those who want frames to this group, beside those who want all; none if nobody has told of it.
    pub fn listeners(&self, group: Mac) -> Option<&[Slot]> {
        self.listeners.get(&group).map(Vec::as_slice)
    }

    /// Those who want all groups.
    pub fn all(&self) -> &[Slot] {
        &self.all
    }

    fn room_for(&mut self, group: Mac) -> Option<&mut Vec<Slot>> {
        if self.listeners.len() >= CAPACITY && !self.listeners.contains_key(&group) {
            return None;
        }
        Some(self.listeners.entry(group).or_default())
    }
}

/// Whether frames to this Ethernet address may be kept from those who did not ask for them. Not those of
/// 224.0.0.0/24 (RFC 4541 §2.1.2) and of the groups that protocols have for their own in every scope of
/// IPv6 (ff02::1 and others, RFC 4291 §2.7.1), nor solicited-node addresses: there are as many of those
/// as there are pods, and few frames to them.
pub fn is_selective(group: Mac) -> bool {
    match group.0 {
        [0x01, 0x00, 0x5e, 0, 0, _] => false,
        [0x01, 0x00, 0x5e, high, ..] => high < 0x80,
        [0x33, 0x33, 0xff, ..] | [0x33, 0x33, 0, 0, 0, _] => false,
        [0x33, 0x33, ..] => true,
        _ => false,
    }
}

/// Whether a frame is IP multicast that may be kept from those who did not ask for it.
pub(crate) fn may_select(frame: &[u8], dst: Mac) -> bool {
    let wanted = match dst.0[0] {
        0x01 => ETHERTYPE_IPV4,
        _ => ETHERTYPE_IPV6,
    };
    is_selective(dst)
        && wire::ethernet::ethertype(frame).is_some_and(|(ethertype, _)| ethertype == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(n: u16) -> Mac {
        let [a, b] = n.to_be_bytes();
        Mac([0x01, 0, 0x5e, 1, a, b])
    }

    #[test]
    fn i6_groups_beyond_the_bound_are_everybodys() {
        let many: Vec<_> = (0..5000).map(group).collect();
        let table = GroupTable::new([group(4999)], [(3, Some(&many[..])), (4, None)]);
        assert_eq!(table.listeners(group(0)), Some(&[3][..]));
        assert_eq!(table.listeners(group(4999)), Some(&[3][..]));
        assert_eq!(table.listeners(group(4998)), None);
        assert_eq!((table.listeners.len(), table.all()), (CAPACITY, &[4][..]));
    }

    #[test]
    fn what_stations_need_not_ask_for_is_everybodys() {
        for (text, selective) in [
            ("01:00:5e:00:00:fb", false),
            ("01:00:5e:01:00:fb", true),
            ("01:00:5e:80:01:01", false),
            ("33:33:00:00:00:01", false),
            ("33:33:00:00:00:fb", false),
            ("33:33:ff:00:00:01", false),
            ("33:33:00:01:00:02", true),
            ("01:1b:19:00:00:00", false),
            ("ff:ff:ff:ff:ff:ff", false),
        ] {
            assert_eq!(is_selective(text.parse().unwrap()), selective, "{text}");
        }
    }
}
