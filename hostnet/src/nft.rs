//! nftables over netlink (linux/netfilter/nf_tables.h): whole tables as data, put in place
//! atomically, compared with what the kernel has, and taken away. No program of the host is called.
//!
//! A [`Table`] says everything about itself. [`Nft::observe`] looks at what is there, [`plan`] decides
//! without touching anything, and [`Nft::apply`] does it in one transaction of the kernel: packets see
//! the old rules or the new ones. Only tables that are named are ever touched.

mod message;
mod rule;
mod socket;

use std::collections::{BTreeMap, BTreeSet};

pub use rule::{Base, Expr, Field, Meta, Operator, Rule, Verdict};
pub use socket::{Counted, Nft, NftError};

/// The address family of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 and IPv6 (`NFPROTO_INET`).
    Inet,
    /// Frames on bridges (`NFPROTO_BRIDGE`).
    Bridge,
}

/// A table with everything in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its family.
    pub family: Family,
    /// Its name, unique in the family.
    pub name: String,
    /// Counters that rules refer to by name.
    pub counters: Vec<String>,
    /// Sets that rules refer to by name.
    pub sets: Vec<Set>,
    /// Chains in the order in which they refer to each other: a chain comes after those it jumps to.
    pub chains: Vec<Chain>,
}

/// A set of keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Set {
    /// Its name, unique in the table.
    pub name: String,
    /// What a key is made of, in order.
    pub key: Vec<Field>,
    /// The keys. Each field of a key begins at a multiple of four bytes, as in the registers.
    pub elements: BTreeSet<Vec<u8>>,
}

/// A chain of rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in the table.
    pub name: String,
    /// Where packets enter it; none: where a rule jumps to it.
    pub hook: Option<Hook>,
    /// Its rules in order. A packet that leaves the last one is accepted.
    pub rules: Vec<Rule>,
}

/// Where packets enter a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hook {
    /// What the chain may do.
    pub kind: ChainKind,
    /// The place.
    pub at: HookPoint,
    /// The order among the chains at this place, lowest first.
    pub priority: i32,
}

/// What a chain may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ChainKind {
    /// Accept and drop.
    Filter,
    /// Translate addresses; sees the first packet of a connection.
    Nat,
}

/// The hooks that `inet` and `bridge` share (linux/netfilter.h, linux/netfilter_bridge.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookPoint {
    /// Whatever comes in.
    PreRouting,
    /// What this machine sends itself.
    Output,
    /// Whatever goes out.
    PostRouting,
}

/// What is there of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Observed {
    /// Chains by name with their hooks, the kind apart, which the kernel keeps as it is.
    pub chains: BTreeMap<String, Option<(HookPoint, i32)>>,
    /// Digests of the rules of each chain, in order.
    pub rules: BTreeMap<String, Vec<u64>>,
    /// Elements of the sets.
    pub sets: BTreeMap<String, BTreeSet<Vec<u8>>>,
}

/// One change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Put the table in place of whatever has its name.
    Replace(Table),
    /// Add elements to a set.
    AddElements(Elements),
    /// Take elements out of a set.
    DelElements(Elements),
    /// Delete the table, if it is there.
    Delete(Family, String),
}

/// Elements of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elements {
    /// The table's family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// The set.
    pub set: String,
    /// The keys.
    pub keys: BTreeSet<Vec<u8>>,
}

/// The steps from what is there to what should be: none if nothing is to be done, elements alone
/// where the rest is as it should be, or else the whole table.
pub fn plan(observed: Option<&Observed>, wanted: &Table) -> Vec<Step> {
    let Some(observed) = observed else {
        return vec![Step::Replace(wanted.clone())];
    };
    if !same_rules(observed, wanted) {
        return vec![Step::Replace(wanted.clone())];
    }
    let none = BTreeSet::new();
    let mut steps = Vec::new();
    for set in &wanted.sets {
        let has = observed.sets.get(&set.name).unwrap_or(&none);
        let elements = |keys: BTreeSet<Vec<u8>>| Elements {
            family: wanted.family,
            table: wanted.name.clone(),
            set: set.name.clone(),
            keys,
        };
        let missing: BTreeSet<_> = set.elements.difference(has).cloned().collect();
        let surplus: BTreeSet<_> = has.difference(&set.elements).cloned().collect();
        if !surplus.is_empty() {
            steps.push(Step::DelElements(elements(surplus)));
        }
        if !missing.is_empty() {
            steps.push(Step::AddElements(elements(missing)));
        }
    }
    steps
}

fn same_rules(observed: &Observed, wanted: &Table) -> bool {
    let chains = wanted.chains.iter().map(|chain| {
        let hook = chain.hook.map(|hook| (hook.at, hook.priority));
        (chain.name.clone(), hook)
    });
    let rules = |chain: &Chain| {
        let digests: Vec<u64> = chain.rules.iter().map(Rule::digest).collect();
        let has = observed.rules.get(&chain.name).cloned().unwrap_or_default();
        has == digests
    };
    let sets: BTreeSet<_> = wanted.sets.iter().map(|set| &set.name).collect();
    observed.chains == chains.collect()
        && wanted.chains.iter().all(rules)
        && observed.sets.keys().collect::<BTreeSet<_>>() == sets
}

impl Table {
    /// What [`Nft::observe`] would find right after the table was put in place.
    pub fn as_observed(&self) -> Observed {
        let hook = |chain: &Chain| chain.hook.map(|hook| (hook.at, hook.priority));
        let digests = |chain: &Chain| chain.rules.iter().map(Rule::digest).collect::<Vec<_>>();
        Observed {
            chains: self
                .chains
                .iter()
                .map(|chain| (chain.name.clone(), hook(chain)))
                .collect(),
            rules: self
                .chains
                .iter()
                .filter(|chain| !chain.rules.is_empty())
                .map(|chain| (chain.name.clone(), digests(chain)))
                .collect(),
            sets: self
                .sets
                .iter()
                .map(|set| (set.name.clone(), set.elements.clone()))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        Table {
            family: Family::Bridge,
            name: "t".into(),
            counters: vec!["c".into()],
            sets: vec![Set {
                name: "s".into(),
                key: vec![Field::Ipv4],
                elements: BTreeSet::from([vec![10, 0, 0, 1], vec![10, 0, 0, 2]]),
            }],
            chains: vec![Chain {
                name: "in".into(),
                hook: Some(Hook {
                    kind: ChainKind::Filter,
                    at: HookPoint::PreRouting,
                    priority: 0,
                }),
                rules: vec![Rule(vec![Expr::Verdict(Verdict::Drop)])],
            }],
        }
    }

    #[test]
    fn what_is_as_it_should_be_is_left_alone() {
        let wanted = table();
        assert_eq!(plan(Some(&wanted.as_observed()), &wanted), []);
    }

    #[test]
    fn only_elements_change_where_only_they_differ() {
        let wanted = table();
        let mut there = wanted.as_observed();
        let set = there.sets.get_mut("s").unwrap();
        set.remove(&vec![10, 0, 0, 1]);
        set.insert(vec![10, 0, 0, 3]);
        let elements = |key: [u8; 4]| Elements {
            family: Family::Bridge,
            table: "t".into(),
            set: "s".into(),
            keys: BTreeSet::from([key.to_vec()]),
        };
        assert_eq!(
            plan(Some(&there), &wanted),
            [
                Step::DelElements(elements([10, 0, 0, 3])),
                Step::AddElements(elements([10, 0, 0, 1])),
            ]
        );
    }

    #[test]
    fn anything_else_that_differs_replaces_the_table() {
        let wanted = table();
        let whole = [Step::Replace(wanted.clone())];
        assert_eq!(plan(None, &wanted), whole);
        type Harm = fn(&mut Observed);
        let other = || Some((HookPoint::PreRouting, 1));
        let mut moved = wanted.as_observed();
        moved.chains.insert("in".into(), other());
        let mut more = wanted.as_observed();
        more.chains.insert("other".into(), None);
        let harms: [Harm; 3] = [
            |o| o.rules.clear(),
            |o| o.rules.get_mut("in").unwrap().push(7),
            |o| o.sets.clear(),
        ];
        for there in [moved, more] {
            assert_eq!(plan(Some(&there), &wanted), whole);
        }
        for harm in harms {
            let mut there = wanted.as_observed();
            harm(&mut there);
            assert_eq!(plan(Some(&there), &wanted), whole);
        }
    }
}
