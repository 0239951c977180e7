//! The address plan over the real mesh: nodes that crash and return, with their disk or without,
//! networks that fall apart and heal, nodes that are removed. I1 and I2 hold all the time, and each
//! heal ends in one agreed ring.
//!
//! The schedules keep to what the plan rests on: a node that is removed is down, its containers too;
//! a disk is lost only of a node whose life all others know, and of one at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use ipam::AllocationKey;
use sim::plan::Plan;
use sim::{Cluster, run};

const NODES: usize = 5;
const SEEDS: usize = 3;
const RANGE: &str = "10.32.0.0/24";
const STEPS: usize = 25;

/// Addresses of containers that run, by node.
type Live = BTreeMap<usize, BTreeMap<AllocationKey, u128>>;

struct Schedule<'a> {
    cluster: &'a mut Cluster,
    plan: Plan,
    live: Live,
    /// A node that lost its disk and is not back yet.
    forgetful: Option<usize>,
    made: usize,
}

impl<'a> Schedule<'a> {
    fn new(cluster: &'a mut Cluster) -> Result<Self, String> {
        let nodes = cluster.add(NODES);
        for number in nodes.clone().skip(1) {
            cluster.target(number, 0);
            cluster.target(0, number);
        }
        let seeds: Vec<_> = nodes.clone().take(SEEDS).collect();
        let seeds: Vec<_> = seeds
            .iter()
            .map(|n| cluster.nodes()[*n].hello.name.clone())
            .collect();
        let plan = Plan::new(RANGE, &seeds)?;
        for number in nodes {
            cluster.start(number);
        }
        let mut schedule = Self {
            cluster,
            plan,
            live: Live::new(),
            forgetful: None,
            made: 0,
        };
        schedule.pass(Duration::from_secs(8))?;
        for number in 0..NODES {
            let agent = schedule.plan.agent(number);
            if !agent.is_some_and(ipam::Agent::is_admitted) {
                return Err(format!("{number} is not admitted after 8 s"));
            }
        }
        Ok(schedule)
    }

    fn is_up(&self, number: usize) -> bool {
        self.cluster.nodes()[number].is_in()
    }

    /// Lets time pass and looks at it from time to time.
    fn pass(&mut self, span: Duration) -> Result<(), String> {
        let end = self.cluster.now() + span;
        while self.cluster.now() < end {
            self.plan.run_for(self.cluster, Duration::from_millis(100));
            self.check()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), String> {
        let node = self.cluster.below(NODES);
        let up = self.is_up(node);
        match self.cluster.below(16) {
            0 if up => self.crash(node),
            1 | 2 if !up => self.cluster.start(node),
            3 if up => {
                // The router alone: its containers run on.
                self.cluster.crash(node);
                self.cluster.start(node);
            }
            4 if up && self.may_forget(node) => {
                self.crash(node);
                self.plan.run_for(self.cluster, Duration::from_millis(20));
                self.plan.lose_disk(node);
                self.forgetful = Some(node);
            }
            5 => {
                let other = self.cluster.below(NODES);
                self.cluster.partition(&[node, other]);
            }
            6 | 7 => self.cluster.heal(),
            8 => self.remove(node),
            9 => self.cluster.reset_any(),
            10 | 11 if up => self.release(node),
            _ if up => {
                for _ in 0..=self.cluster.below(12) {
                    self.allocate(node)?;
                }
            }
            _ => {}
        }
        let span = self.cluster.rng.up_to(Duration::from_secs(2));
        self.pass(span)
    }

    fn crash(&mut self, node: usize) {
        self.live.remove(&node);
        self.cluster.crash(node);
    }

    fn may_forget(&mut self, node: usize) -> bool {
        if let Some(forgetful) = self.forgetful {
            let back = self.plan.agent(forgetful);
            if !back.is_some_and(ipam::Agent::is_admitted) {
                return false;
            }
            self.forgetful = None;
        }
        let name = &self.cluster.nodes()[node].hello.name;
        let known: Vec<_> = self
            .plan
            .agents()
            .map(|(_, agent)| agent.ring().roster().get(name))
            .collect();
        let admitted = self.plan.agent(node).is_some_and(ipam::Agent::is_admitted);
        admitted && known.len() == NODES && known.windows(2).all(|two| two[0] == two[1])
    }

    /// An operator sees a node that is down, and removes it at another.
    fn remove(&mut self, at: usize) {
        let down: Vec<usize> = (0..NODES).filter(|node| !self.is_up(*node)).collect();
        let Some(gone) = self.cluster.pick(&down) else {
            return;
        };
        let name = self.cluster.nodes()[gone].hello.name.clone();
        self.plan.ask(self.cluster, at, |agent, now| {
            // While it seems to be connected it is refused.
            let _ = agent.remove(&name, now);
        });
    }

    fn allocate(&mut self, node: usize) -> Result<(), String> {
        self.made += 1;
        let key = AllocationKey::new(format!("pod-{}", self.made), "eth0")
            .map_err(|error| error.to_string())?;
        if let Some(Ok(net)) = self.plan.allocate(self.cluster, node, &key) {
            let agent = self.plan.agent(node).ok_or("it answered")?;
            let universe = agent.allocator().universe();
            let at = universe.number(net.addr()).ok_or("of another range")?;
            self.live.entry(node).or_default().insert(key, at);
        }
        Ok(())
    }

    fn release(&mut self, node: usize) {
        let live = self.live.entry(node).or_default();
        if let Some(key) = live.keys().next().cloned() {
            live.remove(&key);
            self.plan.ask(self.cluster, node, |agent, now| {
                agent.release(&key, now);
            });
        }
    }

    fn check(&self) -> Result<(), String> {
        let now = self.cluster.now();
        let mut taken = BTreeMap::new();
        for (node, agent) in self.plan.agents() {
            let usable = agent.usable();
            let mut mine: Vec<u128> = usable.iter().flat_map(|r| r.first()..=r.last()).collect();
            mine.extend(self.live.get(&node).into_iter().flat_map(BTreeMap::values));
            for at in mine {
                if let Some(first) = taken.insert(at, node) {
                    return Err(format!(
                        "I1: at {now:?} {at:#x} is of {first} and of {node}\n{:?}{:?}",
                        self.plan.agent(first).map(ipam::Agent::ring),
                        agent.ring()
                    ));
                }
            }
            if agent.is_admitted() && agent.ring().ranges().any(|(_, claim)| claim.is_none()) {
                return Err(format!(
                    "I2: at {now:?} {node} has a range that nobody owns"
                ));
            }
            for (key, at) in self.live.get(&node).into_iter().flatten() {
                let held = agent.allocator().lookup(key);
                let number = |net: &ipnet::IpNet| agent.allocator().universe().number(net.addr());
                if !held.iter().any(|net| number(net) == Some(*at)) {
                    return Err(format!("I7: at {now:?} {node} forgot what {key} holds"));
                }
            }
        }
        Ok(())
    }

    /// Everything works again: all agree.
    fn end(&mut self) -> Result<(), String> {
        self.cluster.heal();
        for node in 0..NODES {
            if !self.is_up(node) {
                self.cluster.start(node);
            }
        }
        self.pass(Duration::from_secs(150))?;
        let first = self.plan.agent(0).ok_or("node 0 does not run")?;
        for (node, agent) in self.plan.agents() {
            if agent.ring() != first.ring() {
                let rings = format!("{:?}{:?}", agent.ring(), first.ring());
                return Err(format!("{node} and 0 differ:\n{rings}"));
            }
            let view = agent.view();
            if !agent.is_admitted() || !view.waiting.is_empty() {
                return Err(format!("{node} still waits: {view:?}"));
            }
        }
        Ok(())
    }
}

#[test]
fn i1_i2_i7_hold_and_all_agree_after_each_heal() {
    run(3000..4000, |cluster| {
        let mut schedule = Schedule::new(cluster)?;
        for _ in 0..STEPS {
            schedule.step()?;
        }
        schedule.end()
    });
}
