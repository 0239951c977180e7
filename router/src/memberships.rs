//! The multicast groups that this node's pods listen to, as a switch finds out that listens along (RFC
//! 4541).
//!
//! Pure: what pods say and the time in, groups and the moment to ask out. Pods say that they want a group
//! when they join it, and then only when they are asked. So the node asks its own pods, each node for
//! itself, and forgets what was not repeated. A group that a pod leaves is asked for soon: others may
//! still want it.
//!
//! A node wants all groups while it cannot tell which: until its pods have answered for the first
//! time, when there are too many, and while one of its pods is a multicast router, which is to see all
//! groups and all reports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use fastpath::is_selective;
use mesh::Groups;
use wire::Mac;
use wire::membership::{
    Interest, Message, group_mac, igmp_general_query, mld_general_query, parse,
};

/// Between queries (RFC 3376 §8.2), in seconds.
const INTERVAL: u8 = 125;
/// How long pods may take to answer. Not the 10 s of RFC 3376 §8.3: those of one node are few.
const RESPONSE: Duration = Duration::from_secs(2);
/// How long a group is remembered that no pod repeats (RFC 3376 §8.4): two queries may be lost.
const LIFE: Duration = Duration::from_secs(2 * INTERVAL as u64 + 10);
/// When the second query follows the first of all, and how often a leave may cause one.
const SOON: Duration = Duration::from_secs(5);
/// What an answer may take beside the time that pods have, on a busy machine.
const SLACK: Duration = Duration::from_secs(3);
/// Groups that are remembered; a node with more wants all.
const CAPACITY: usize = 1024;

/// What pods have said.
#[derive(Debug)]
pub struct Memberships {
    /// Until when each group counts.
    groups: BTreeMap<IpAddr, Duration>,
    /// Until when all groups are wanted.
    all_until: Duration,
    /// When pods were asked last, and when they are next.
    asked: Option<Duration>,
    due: Duration,
}

impl Memberships {
    /// Nothing is known, at `now`, and pods are to be asked.
    pub fn new(now: Duration) -> Self {
        Self {
            groups: BTreeMap::new(),
            all_until: now + SOON + RESPONSE + SLACK,
            asked: None,
            due: now,
        }
    }

    /// A pod has said something: an Ethernet frame.
    pub fn hear(&mut self, frame: &[u8], now: Duration) {
        match parse(frame) {
            Some(Message::Report(report)) => {
                report.for_each(|interest| self.note(interest, now));
            }
            Some(Message::Router) => self.want_all(now),
            None => {}
        }
    }

    /// Whether pods are to be asked now, by [`queries`]. Who is told so has done it.
    pub fn take_due(&mut self, now: Duration) -> bool {
        let due = now >= self.due;
        if due {
            // The first query may come before there is anybody to hear it.
            let first = self.asked.replace(now).is_none();
            self.due = now
                + match first {
                    true => SOON,
                    false => Duration::from_secs(INTERVAL.into()),
                };
        }
        due
    }

    /// What this node wants.
    pub fn groups(&mut self, now: Duration) -> Groups {
        self.groups.retain(|_, until| *until > now);
        if now < self.all_until {
            return Groups::All;
        }
        let macs = self.groups.keys().filter_map(|group| group_mac(*group));
        Groups::new(macs)
    }

    /// When [`Memberships::take_due`] or [`Memberships::groups`] may say something else without
    /// anything being heard.
    pub fn next(&self, now: Duration) -> Duration {
        let ends = self.groups.values().copied().chain([self.all_until]);
        ends.filter(|end| *end > now)
            .chain([self.due])
            .min()
            .unwrap_or(self.due)
    }

    fn note(&mut self, Interest { group, wanted }: Interest, now: Duration) {
        // What everybody gets need not be remembered.
        if !group_mac(group).is_some_and(is_selective) {
            return;
        }
        if wanted {
            if self.groups.len() >= CAPACITY && !self.groups.contains_key(&group) {
                return self.want_all(now);
            }
            self.groups.insert(group, now + LIFE);
        } else if let Some(until) = self.groups.get_mut(&group) {
            let soonest = self.asked.map_or(now, |asked| now.max(asked + SOON));
            self.due = self.due.min(soonest);
            *until = (*until).min(self.due.max(now) + RESPONSE + SLACK);
        }
    }

    fn want_all(&mut self, now: Duration) {
        self.all_until = self.all_until.max(now + LIFE);
    }
}

/// The frames that ask all pods for all their groups, from an Ethernet address that is neither the
/// bridge's nor anybody else's: the kernel takes its own as the sign of a loop. The high link-local
/// address that follows from it lets any multicast router win the election of a querier (RFC 3810
/// §7.6.2), which asks for itself.
pub fn queries(bridge: Mac) -> [Vec<u8>; 2] {
    let [_, b, c, d, e, f] = bridge.0;
    let mac = Mac([0xfe, b, c ^ 0x40, d, e, f]);
    let milliseconds = u16::try_from(RESPONSE.as_millis()).unwrap_or(u16::MAX);
    let tenths = u8::try_from(milliseconds / 100).unwrap_or(u8::MAX);
    [
        igmp_general_query(mac, tenths, INTERVAL).to_vec(),
        mld_general_query(mac, milliseconds, INTERVAL).to_vec(),
    ]
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use wire::checksum::checksum;

    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    /// An IGMPv2 message.
    fn says(kind: u8, group: Ipv4Addr) -> Vec<u8> {
        let mut igmp = [&[kind, 0, 0, 0][..], &group.octets()].concat();
        let sum = checksum(&igmp);
        igmp[2..4].copy_from_slice(&sum.to_be_bytes());
        let mut frame =
            wire::ethernet::header(Mac([1, 0, 0x5e, 0, 0, 2]), Mac([2; 6]), 0x0800).to_vec();
        frame.extend([
            0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0, 10, 32, 0, 7, 224, 0, 0, 2,
        ]);
        frame.extend(igmp);
        frame
    }

    const JOIN: u8 = 0x16;
    const LEAVE: u8 = 0x17;

    fn group(n: u16) -> Ipv4Addr {
        let [a, b] = n.to_be_bytes();
        Ipv4Addr::new(239, 1, a, b)
    }

    fn only(groups: &[u16]) -> Groups {
        Groups::new(groups.iter().map(|n| group_mac(group(*n).into()).unwrap()))
    }

    /// Memberships whose pods have answered, at 10 s.
    fn settled() -> Memberships {
        let mut of = Memberships::new(S(0));
        assert!(of.take_due(S(0)) && !of.take_due(S(4)) && of.take_due(S(5)));
        assert_eq!(of.groups(S(9)), Groups::All);
        assert_eq!(of.groups(S(10)), only(&[]));
        of
    }

    #[test]
    fn a_group_counts_at_once_and_as_long_as_it_is_repeated() {
        let mut of = settled();
        of.hear(&says(JOIN, group(1)), S(20));
        assert_eq!(of.groups(S(20)), only(&[1]));
        assert!(!of.take_due(S(129)) && of.take_due(S(130)));
        of.hear(&says(JOIN, group(1)), S(132));
        assert_eq!(of.groups(S(390)), only(&[1]));
        assert_eq!(of.next(S(390)), S(255));
        assert_eq!(of.groups(S(392)), only(&[]));
    }

    #[test]
    fn a_leave_is_believed_if_nobody_else_answers() {
        let mut of = settled();
        for n in [1, 2] {
            of.hear(&says(JOIN, group(n)), S(20));
        }
        for n in [1, 2, 3] {
            of.hear(&says(LEAVE, group(n)), S(30));
        }
        assert_eq!(of.groups(S(30)), only(&[1, 2]));
        assert!(of.take_due(S(30)));
        of.hear(&says(JOIN, group(2)), S(32));
        assert_eq!(of.groups(S(35)), only(&[2]));
        // Leaves in a row ask once in five seconds.
        for second in 36..60 {
            of.hear(&says(JOIN, group(1)), S(second));
            of.hear(&says(LEAVE, group(1)), S(second));
            assert_eq!(
                of.take_due(S(second)),
                [36, 41, 46, 51, 56].contains(&second)
            );
        }
    }

    #[test]
    fn a_multicast_router_gets_everything() {
        let mut of = settled();
        of.hear(&says(0x11, Ipv4Addr::UNSPECIFIED), S(20));
        assert_eq!(of.groups(S(20)), Groups::All);
        assert_eq!(of.groups(S(20) + LIFE), only(&[]));
    }

    #[test]
    fn what_everybody_gets_is_not_told() {
        let mut of = settled();
        of.hear(&says(JOIN, Ipv4Addr::new(224, 0, 0, 251)), S(20));
        of.hear(&says(JOIN, Ipv4Addr::new(10, 0, 0, 1)), S(20));
        of.hear(b"no frame at all", S(20));
        assert_eq!(of.groups(S(20)), only(&[]));
        assert!(of.groups.is_empty());
    }

    /// I6: a pod that joins more groups than there is room for costs its node all multicast, no more.
    #[test]
    fn i6_too_many_groups_are_all_groups() {
        let mut of = settled();
        for n in 0..257 {
            of.hear(&says(JOIN, group(n)), S(20));
        }
        assert_eq!(of.groups(S(20)), Groups::All, "more than can be told");
        for n in 257..5000 {
            of.hear(&says(JOIN, group(n)), S(20));
        }
        assert_eq!(of.groups.len(), CAPACITY);
        assert_eq!(of.groups(S(20) + LIFE), only(&[]));
    }

    #[test]
    fn queries_come_from_nobodys_address() {
        let bridge = Mac([0xfe, 1, 2, 3, 4, 5]);
        for query in queries(bridge) {
            assert_eq!(parse(&query), Some(Message::Router));
            assert_ne!(wire::ethernet::src(&query), Some(bridge));
        }
    }
}
