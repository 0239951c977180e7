//! Random schedules: messages late and lost, links that break and heal, machines that crash and
//! return, with their disk or without, routers that restart beside their containers, nodes that
//! are removed while they are down. After each step I1 and I2 hold; after everything has healed
//! all nodes agree.
//!
//! The schedules keep to what the protocol rests on: a node that is removed is down; a machine
//! that crashes loses its containers; a disk is lost only of a node whose life all that run know,
//! and of one at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Without;
use super::world::{World, key};
use crate::ring::tests::name;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SEEDS: u64 = 2000;
const STEPS: usize = 150;

/// splitmix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 33) as usize % bound
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.below(NAMES.len())]
    }
}

struct Schedule {
    world: World,
    random: Random,
    /// Addresses of containers that run, by node.
    live: BTreeMap<&'static str, BTreeMap<String, u128>>,
    /// A node that lost its disk and is not back yet.
    forgetful: Option<&'static str>,
    pods: usize,
}

impl Schedule {
    fn new(seed: u64, without: Option<Without>) -> Self {
        let mut world = World::of("10.0.0.0/26", &NAMES, &["a", "b", "c"]);
        world.without(without);
        Self {
            world,
            random: Random(seed),
            live: BTreeMap::new(),
            forgetful: None,
            pods: 0,
        }
    }

    fn step(&mut self) -> String {
        let node = self.random.name();
        let other = self.random.name();
        let up = self.world.is_up(node);
        match self.random.below(40) {
            0 if up => {
                self.live.remove(node);
                self.world.crash(node);
                format!("{node} crashes")
            }
            1 | 2 if !up => {
                self.world.restart(node);
                format!("{node} returns")
            }
            3 if up => {
                self.world.crash(node);
                self.world.restart(node);
                format!("the router of {node} restarts")
            }
            4 if up && self.may_forget(node) => {
                self.live.remove(node);
                self.world.crash(node);
                self.world.lose_disk(node);
                self.forgetful = Some(node);
                format!("{node} loses its disk")
            }
            5 if node != other => {
                self.world.cut(node, other);
                format!("{node} and {other} are cut")
            }
            6 | 7 if node != other => {
                self.world.heal(node, other);
                format!("{node} and {other} are linked")
            }
            8 if up && !self.world.is_up(other) => {
                self.world.ask(node, |agent, now| {
                    let _ = agent.remove(&name(other), now);
                });
                format!("{node} removes {other}")
            }
            9..=12 if up => {
                self.pods += 1;
                let pod = format!("pod{}", self.pods);
                if let Ok(net) = self.world.allocate_unchecked(node, &pod) {
                    let at = self.world.agent(node).allocator().universe();
                    let at = at.number(net.addr()).unwrap();
                    self.live.entry(node).or_default().insert(pod, at);
                }
                format!("{node} allocates")
            }
            13 if up => {
                if let Some((pod, _)) = self.live.entry(node).or_default().pop_first() {
                    self.world.ask(node, |agent, now| {
                        agent.release(&key(&pod), now);
                    });
                }
                format!("{node} releases")
            }
            14 | 15 => {
                self.world.advance(Duration::from_secs(2));
                "time passes".to_owned()
            }
            n => {
                self.world.deliver_any(n + self.random.below(1 << 16));
                "a message arrives".to_owned()
            }
        }
    }

    fn may_forget(&mut self, node: &str) -> bool {
        if let Some(forgetful) = self.forgetful {
            let back = self.world.is_up(forgetful) && self.world.agent(forgetful).is_admitted();
            if !back {
                return false;
            }
            self.forgetful = None;
        }
        let member = |at: &str| self.world.agent(at).ring().roster().get(&name(node));
        // What it is known by survives only on the disks of nodes that run now.
        let all_up = NAMES.iter().all(|at| self.world.is_up(at));
        all_up
            && self.world.agent(node).is_admitted()
            && NAMES.iter().all(|at| member(at) == member(node))
    }

    fn check(&self) -> Result<(), String> {
        let mut taken: BTreeMap<u128, &str> = BTreeMap::new();
        for node in NAMES.iter().filter(|node| self.world.is_up(node)) {
            let agent = self.world.agent(node);
            let usable = agent.usable();
            let mut mine: BTreeSet<u128> = usable
                .iter()
                .flat_map(|run| run.first()..=run.last())
                .collect();
            mine.extend(self.live.get(node).into_iter().flat_map(BTreeMap::values));
            for at in mine {
                if let Some(first) = taken.insert(at, node) {
                    return Err(format!("I1: {at:#x} is of {first} and of {node}"));
                }
            }
            if agent.ring().ranges().any(|(_, claim)| claim.is_none()) && agent.is_admitted() {
                return Err(format!("I2: {node} has a range that nobody owns"));
            }
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), String> {
        for node in NAMES {
            if !self.world.is_up(node) {
                self.world.restart(node);
            }
            for other in NAMES {
                if node < other {
                    self.world.heal(node, other);
                }
            }
        }
        self.world.pass_unchecked(Duration::from_secs(200));
        self.check()?;
        let first = self.world.agent("a").ring();
        for node in NAMES {
            let agent = self.world.agent(node);
            if agent.ring() != first {
                return Err(format!("{node} and a differ:\n{:?}{first:?}", agent.ring()));
            }
            if !agent.is_admitted() || !agent.view().waiting.is_empty() {
                return Err(format!("{node} still waits: {:?}", agent.view()));
            }
        }
        Ok(())
    }
}

fn play(seed: u64, without: Option<Without>) -> Result<(), String> {
    let mut schedule = Schedule::new(seed, without);
    let mut trace = Vec::new();
    for _ in 0..STEPS {
        trace.push(schedule.step());
        schedule
            .check()
            .map_err(|error| format!("seed {seed}: {error}\n{}", trace.join("\n")))?;
    }
    schedule
        .end()
        .map_err(|error| format!("seed {seed}, healed: {error}\n{}", trace.join("\n")))
}

/// `WEFT_SIM_ROUNDS=n` in the environment plays n times as many seeds.
#[test]
fn i1_i2_and_agreement_in_random_schedules() {
    let rounds: u64 = std::env::var("WEFT_SIM_ROUNDS")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(1);
    for seed in 0..SEEDS * rounds {
        if let Err(error) = play(seed, None) {
            panic!("{error}");
        }
    }
}

/// The schedules are wild enough to miss what is taken out.
#[test]
fn what_is_taken_out_is_missed() {
    for without in [Without::Epochs, Without::Confirmation] {
        let found = (0..SEEDS).any(|seed| play(seed, Some(without)).is_err());
        assert!(found, "no schedule misses {without:?}");
    }
}
