//! What follows from the cluster's nodes: whom to connect to, at which address, and who is gone.
//!
//! Pure: the nodes as the API server tells them in, decisions out. `io::kube` watches, asks and tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use wire::PeerName;

/// How long a node must have been absent before its addresses are taken over: longer than it takes
/// to delete a node and make it anew, well below the minute within which they are to be back.
pub const GRACE: Duration = Duration::from_secs(20);

/// A node, as far as it is of interest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// `metadata.uid`: another for every node that ever had the name.
    pub uid: String,
    /// `status.addresses` that are IP addresses, in order.
    pub addresses: Vec<NodeAddress>,
    /// The condition `NetworkUnavailable`, if the node has it.
    pub network_unavailable: Option<bool>,
}

/// An address of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeAddress {
    /// Whether it is the cluster's own (`InternalIP`) or the world's (`ExternalIP`).
    pub internal: bool,
    /// The address.
    pub address: IpAddr,
}

/// The nodes of the cluster by name.
pub type Nodes = BTreeMap<String, NodeFacts>;

/// The address at which a node is reached.
///
/// With `within`, its first address in there. Otherwise its first internal address of the family that
/// `like`, this node's own first one, has; then any internal one; then any.
pub fn address_of(node: &NodeFacts, within: Option<IpNet>, like: Option<IpAddr>) -> Option<IpAddr> {
    let all = || node.addresses.iter();
    if let Some(within) = within {
        let found = all().find(|has| within.contains(&has.address));
        return found.map(|has| has.address);
    }
    let internal = || all().filter(|has| has.internal).map(|has| has.address);
    let alike = |address: &IpAddr| like.is_none_or(|like| like.is_ipv4() == address.is_ipv4());
    internal()
        .find(alike)
        .or_else(|| internal().next())
        .or_else(|| all().next().map(|has| has.address))
}

/// Whom to connect to: every other node by name. A node without a usable address is left out.
pub fn peers(me: &str, nodes: &Nodes, within: Option<IpNet>) -> BTreeMap<String, IpAddr> {
    let like = nodes
        .get(me)
        .and_then(|node| address_of(node, within, None));
    nodes
        .iter()
        .filter(|(name, _)| *name != me)
        .filter_map(|(name, node)| Some((name.clone(), address_of(node, within, like)?)))
        .collect()
}

/// The members of the address plan whose node is gone, and since when.
#[derive(Debug)]
pub struct Departures {
    grace: Duration,
    since: BTreeMap<PeerName, Duration>,
}

impl Departures {
    /// With so much time for a node to come back, usually [`GRACE`].
    pub const fn new(grace: Duration) -> Self {
        Self {
            grace,
            since: BTreeMap::new(),
        }
    }

    /// Looks at the nodes and at the members of the address plan; returns the members that have been
    /// absent for that long.
    ///
    /// A list that lacks this node itself says that something is wrong with it, or with this node: it
    /// proves nobody's absence.
    pub fn due(
        &mut self,
        me: &str,
        nodes: &Nodes,
        members: &[PeerName],
        now: Duration,
    ) -> Vec<PeerName> {
        if !nodes.contains_key(me) {
            self.since.clear();
            return Vec::new();
        }
        let absent: BTreeSet<_> = members
            .iter()
            .filter(|name| !nodes.contains_key(name.as_str()))
            .collect();
        self.since.retain(|name, _| absent.contains(name));
        for name in absent {
            self.since.entry(name.clone()).or_insert(now);
        }
        let is_due = |since: &Duration| now.saturating_sub(*since) >= self.grace;
        let due = self.since.iter().filter(|(_, since)| is_due(since));
        due.map(|(name, _)| name.clone()).collect()
    }
}

/// Key in the cluster's record under which a node's UID stands.
pub fn node_key(name: &str) -> String {
    format!("node.{name}")
}

/// Key under which the name of the node stands that takes over what the node with this UID had.
pub fn heir_key(uid: &str) -> String {
    format!("heir.{uid}")
}

/// What is to be done about a member whose node is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Task {
    /// It is not known to have been a node of this cluster: an operator's affair.
    NotOurs,
    /// Another node has taken it upon itself.
    Theirs(String),
    /// Nobody has: write this node down as the heir, and look again.
    Claim {
        /// Of the node that is gone.
        uid: String,
    },
    /// This node is the heir.
    Ours {
        /// Of the node that is gone.
        uid: String,
    },
}

/// Decides by the cluster's record. An heir whose own node is gone is none.
pub fn task(record: &BTreeMap<String, String>, name: &str, me: &str, nodes: &Nodes) -> Task {
    let Some(uid) = record.get(&node_key(name)).cloned() else {
        return Task::NotOurs;
    };
    match record.get(&heir_key(&uid)) {
        Some(heir) if heir == me => Task::Ours { uid },
        Some(heir) if nodes.contains_key(heir) => Task::Theirs(heir.clone()),
        _ => Task::Claim { uid },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(uid: &str, addresses: &[(bool, &str)]) -> NodeFacts {
        NodeFacts {
            uid: uid.into(),
            addresses: addresses
                .iter()
                .map(|(internal, address)| NodeAddress {
                    internal: *internal,
                    address: address.parse().unwrap(),
                })
                .collect(),
            network_unavailable: None,
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_address_is_internal_and_of_this_nodes_family() {
        let both = node(
            "1",
            &[
                (false, "198.51.100.1"),
                (true, "fd00::1"),
                (true, "192.0.2.1"),
            ],
        );
        assert_eq!(
            address_of(&both, None, Some(ip("10.0.0.1"))),
            Some(ip("192.0.2.1"))
        );
        assert_eq!(
            address_of(&both, None, Some(ip("fd00::9"))),
            Some(ip("fd00::1"))
        );
        assert_eq!(address_of(&both, None, None), Some(ip("fd00::1")));
        let within = |net: &str| address_of(&both, Some(net.parse().unwrap()), None);
        assert_eq!(within("198.51.100.0/24"), Some(ip("198.51.100.1")));
        assert_eq!(
            within("203.0.113.0/24"),
            None,
            "a wish that cannot be met is no licence"
        );
        let external = node("2", &[(false, "198.51.100.1")]);
        assert_eq!(
            address_of(&external, None, Some(ip("10.0.0.1"))),
            Some(ip("198.51.100.1"))
        );
        assert_eq!(address_of(&node("3", &[]), None, None), None);
    }

    #[test]
    fn everybody_else_is_a_peer() {
        let nodes = Nodes::from([
            ("a".into(), node("1", &[(true, "192.0.2.1")])),
            (
                "b".into(),
                node("2", &[(true, "fd00::2"), (true, "192.0.2.2")]),
            ),
            ("c".into(), node("3", &[])),
        ]);
        assert_eq!(
            peers("a", &nodes, None),
            BTreeMap::from([("b".to_owned(), ip("192.0.2.2"))])
        );
    }

    fn names(list: &[&str]) -> Vec<PeerName> {
        list.iter().map(|name| name.parse().unwrap()).collect()
    }

    #[test]
    fn a_member_is_gone_when_it_was_absent_for_long_enough() {
        let mut departures = Departures::new(GRACE);
        let mut nodes = Nodes::from([("a".into(), node("1", &[])), ("b".into(), node("2", &[]))]);
        let members = names(&["a", "b", "c"]);
        let at = Duration::from_secs;
        assert_eq!(departures.due("a", &nodes, &members, at(100)), []);
        assert_eq!(departures.due("a", &nodes, &members, at(119)), []);
        assert_eq!(
            departures.due("a", &nodes, &members, at(120)),
            names(&["c"])
        );
        // It comes back for a moment: all over again.
        nodes.insert("c".into(), node("3", &[]));
        assert_eq!(departures.due("a", &nodes, &members, at(121)), []);
        nodes.remove("c");
        assert_eq!(departures.due("a", &nodes, &members, at(122)), []);
        assert_eq!(departures.due("a", &nodes, &members, at(141)), []);
        // A list without this node proves nothing, not even for how long.
        assert_eq!(departures.due("a", &Nodes::new(), &members, at(200)), []);
        assert_eq!(departures.due("a", &nodes, &members, at(201)), []);
        assert_eq!(
            departures.due("a", &nodes, &members, at(221)),
            names(&["c"])
        );
    }

    #[test]
    fn one_node_is_the_heir() {
        let nodes = Nodes::from([("a".into(), node("1", &[])), ("b".into(), node("2", &[]))]);
        let mut record = BTreeMap::new();
        assert_eq!(task(&record, "c", "a", &nodes), Task::NotOurs);
        record.insert(node_key("c"), "33".to_owned());
        let uid = || "33".to_owned();
        assert_eq!(task(&record, "c", "a", &nodes), Task::Claim { uid: uid() });
        record.insert(heir_key("33"), "b".to_owned());
        assert_eq!(task(&record, "c", "a", &nodes), Task::Theirs("b".into()));
        assert_eq!(task(&record, "c", "b", &nodes), Task::Ours { uid: uid() });
        // An heir that is gone itself.
        record.insert(heir_key("33"), "d".to_owned());
        assert_eq!(task(&record, "c", "a", &nodes), Task::Claim { uid: uid() });
        // A node of the same name that came after is somebody else.
        record.insert(node_key("c"), "44".to_owned());
        record.insert(heir_key("33"), "b".to_owned());
        assert_eq!(
            task(&record, "c", "a", &nodes),
            Task::Claim {
                uid: "44".to_owned()
            }
        );
    }
}
