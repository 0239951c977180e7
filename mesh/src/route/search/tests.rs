use proptest::prelude::*;

use super::*;

fn peer(n: usize) -> PeerId {
    PeerId(u64::try_from(n).unwrap().to_be_bytes())
}

fn number(peer: PeerId) -> usize {
    usize::try_from(u64::from_be_bytes(peer.0)).unwrap()
}

/// Nodes and the pairs of them that reach each other.
struct World {
    size: usize,
    edges: BTreeSet<(usize, usize)>,
}

impl World {
    fn edge(&self, a: usize, b: usize) -> bool {
        a != b && self.edges.contains(&(a.min(b), a.max(b)))
    }

    fn reach(&self, node: usize) -> Reach {
        let others = (0..self.size).filter(|other| *other != node);
        let (yes, no) = others.partition::<Vec<_>, _>(|other| self.edge(node, *other));
        let set = |list: Vec<usize>| list.into_iter().map(peer).collect();
        Reach::new(&set(yes), &set(no))
    }

    fn route(&self, from: usize, to: usize, shunned: &[usize]) -> Option<(usize, u8)> {
        let reaches: Vec<Reach> = (0..self.size).map(|node| self.reach(node)).collect();
        let others = (0..self.size).filter(|node| *node != from);
        let reach = others.clone().map(|node| (peer(node), &reaches[node]));
        let reach: BTreeMap<_, _> = reach.collect();
        let direct = others.filter(|node| self.edge(from, *node)).map(peer);
        let graph = Graph {
            me: peer(from),
            direct: &direct.collect(),
            reach: &reach,
        };
        let shunned: Vec<_> = shunned.iter().map(|node| peer(*node)).collect();
        let route = graph.route(peer(to), &shunned)?;
        Some((number(route.via), route.hops))
    }

    /// Distances from a node by Floyd and Warshall's relaxation, to judge the search by. `without`
    /// is not passed through.
    fn distance(&self, from: usize, to: usize, without: usize) -> Option<u8> {
        let mut far = vec![None; self.size];
        far[from] = Some(0_u8);
        for _ in 0..self.size {
            for a in (0..self.size).filter(|a| *a != without) {
                for b in 0..self.size {
                    if let Some(d) = far[a].filter(|_| self.edge(a, b)) {
                        far[b] = Some(far[b].map_or(d + 1, |old: u8| old.min(d + 1)));
                    }
                }
            }
        }
        far[to]
    }
}

fn world(size: usize, pairs: &[(usize, usize)]) -> World {
    let edges = pairs.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect();
    World { size, edges }
}

#[test]
fn a_chain_is_walked_and_its_break_ends_it() {
    let chain = world(5, &[(0, 1), (1, 2), (2, 3), (3, 4)]);
    assert_eq!(chain.route(0, 2, &[]), Some((1, 2)));
    assert_eq!(chain.route(0, 4, &[]), Some((1, 4)));
    assert_eq!(chain.route(0, 4, &[1]), None);
    assert_eq!(world(5, &[(0, 1), (1, 2), (3, 4)]).route(0, 4, &[]), None);
}

#[test]
fn both_ends_choose_the_same_relay_and_pairs_spread() {
    let mut pairs = Vec::new();
    for relay in 0..8 {
        for end in 8..40 {
            pairs.push((relay, end));
        }
    }
    let world = world(40, &pairs);
    let mut used = BTreeSet::new();
    for a in 8..40 {
        for b in a + 1..40 {
            let there = world.route(a, b, &[]).unwrap();
            assert_eq!(Some(there), world.route(b, a, &[]));
            used.insert(there.0);
        }
    }
    assert_eq!(used.len(), 8);
}

#[test]
fn one_side_that_does_not_reach_the_other_is_no_edge() {
    let reach = [Reach::default(), Reach::AllExcept(vec![peer(1)])];
    let reach = BTreeMap::from([(peer(1), &reach[0]), (peer(2), &reach[1])]);
    let direct = BTreeSet::from([peer(1)]);
    let graph = Graph {
        me: peer(0),
        direct: &direct,
        reach: &reach,
    };
    assert!(!graph.is_edge(peer(1), peer(2)));
    assert_eq!(graph.route(peer(2), &[]), None);
}

proptest! {
    #[test]
    fn routes_are_shortest_and_lead_there(
        size in 3..12_usize,
        pairs in prop::collection::btree_set((0..12_usize, 0..12_usize), 0..40),
    ) {
        let pairs: Vec<_> = pairs.into_iter().filter(|(a, b)| a != b && *a < size && *b < size).collect();
        let mut world = world(size, &pairs);
        // The two ends do not reach each other: else nobody would ask.
        world.edges.remove(&(0, 1));
        let found = world.route(0, 1, &[]);
        let relays = (2..size).filter(|relay| world.edge(0, *relay) && world.edge(*relay, 1));
        let one = Route::through_one(peer(0), peer(1), relays.map(peer));
        let by_one = one.map(|route| (number(route.via), route.hops));
        prop_assert_eq!(by_one, found.filter(|(_, hops)| *hops == 2));
        prop_assert_eq!(found.map(|(_, hops)| hops), world.distance(0, 1, size));
        if let Some((via, hops)) = found {
            prop_assert!(world.edge(0, via));
            prop_assert_eq!(world.distance(via, 1, 0), Some(hops - 1));
        }
    }
}
