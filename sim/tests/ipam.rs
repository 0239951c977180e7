//! Address pools of several nodes, with crashes, in any order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ipam::{AllocationKey, Ring, Seeding, Universe};
use sim::pool::Pool;
use sim::{Cluster, run};
use wire::PeerName;

/// Pods that live, with the address that each was given, and on which node.
type Pods = BTreeMap<AllocationKey, (usize, IpAddr)>;

fn name(number: usize) -> PeerName {
    format!("node-{number}").parse().expect("a node's name")
}

/// Pools of up to eight nodes over a range that they use up; those after the first few are no seeds
/// and know nothing.
fn pools(cluster: &mut Cluster) -> Result<Vec<Pool>, String> {
    let net = "10.32.0.0/25".parse().map_err(|error| format!("{error}"))?;
    let universe = Universe::new(net).map_err(|error| error.to_string())?;
    let seeds = 1 + cluster.below(5);
    let seeding = Seeding::new((0..seeds).map(name)).map_err(|error| error.to_string())?;
    let seeded = Ring::seeded(universe, &seeding).map_err(|error| error.to_string())?;
    let all = 0..seeds + cluster.below(4);
    let ring = |number| {
        if number < seeds {
            seeded.clone()
        } else {
            Ring::undecided(universe)
        }
    };
    Ok(all
        .map(|number| Pool::new(name(number), ring(number)))
        .collect())
}

/// I2: every address has at most one owner, the same for all who know one.
fn one_owner(pools: &[Pool]) -> Result<(), String> {
    let range = pools[0].allocator.universe().range();
    let mut known = BTreeMap::new();
    for pool in pools {
        let mut next = range.first();
        for (part, claim) in pool.allocator.ring().ranges() {
            if part.first() != next {
                return Err(format!(
                    "the ring of {} has a gap before {part:?}",
                    pool.allocator.me()
                ));
            }
            next = part.last() + 1;
            let Some(claim) = claim else { continue };
            for address in part.first()..=part.last() {
                let first = known.entry(address).or_insert(&claim.owner);
                if *first != &claim.owner {
                    return Err(format!("{first} and {} own {address}", claim.owner));
                }
            }
        }
        if next != range.last() + 1 {
            return Err(format!("the ring of {} ends early", pool.allocator.me()));
        }
    }
    Ok(())
}

/// I1 and I7: no address is held by two live pods, and each node knows the pods that it answered.
fn one_holder(pools: &[Pool], pods: &Pods) -> Result<(), String> {
    let mut holders = BTreeMap::new();
    for (key, (number, address)) in pods {
        if let Some(other) = holders.insert(address, key) {
            return Err(format!("{address} is held by {other} and {key}"));
        }
        let held = pools[*number].allocator.lookup(key);
        if held.iter().all(|net| net.addr() != *address) {
            return Err(format!("node-{number} forgot that {key} holds {address}"));
        }
    }
    Ok(())
}

#[test]
fn i1_i2_i7_no_address_is_held_twice_or_forgotten() {
    run(0..300, |cluster| {
        let mut pools = pools(cluster)?;
        let mut pods = Pods::new();
        let mut now = Duration::ZERO;
        for step in 0..400 {
            now += cluster.rng.up_to(Duration::from_secs(4));
            let number = cluster.below(pools.len());
            match cluster.below(10) {
                0 => pools[number].crash()?,
                1 => {
                    // Another node's ring arrives, be it old news.
                    let from = cluster.below(pools.len());
                    let delta = pools[from].allocator.ring().delta();
                    let mut ring = pools[number].allocator.ring().clone();
                    ring.merge(&delta).map_err(|error| error.to_string())?;
                    pools[number].allocator.set_ring(ring);
                    pools[number].sync();
                }
                2..=4 => {
                    let mine: Vec<&AllocationKey> = pods
                        .iter()
                        .filter(|(_, pod)| pod.0 == number)
                        .map(|pod| pod.0)
                        .collect();
                    let Some(key) = cluster.pick(&mine).cloned() else {
                        continue;
                    };
                    pods.remove(&key);
                    pools[number].allocator.release(&key, now);
                    if cluster.below(8) == 0 {
                        // The release is lost, and the runtime asks again after the crash.
                        pools[number].crash()?;
                        pools[number].allocator.release(&key, now);
                    }
                    pools[number].sync();
                }
                _ => {
                    let key = AllocationKey::new(format!("pod-{step}"), "eth0")
                        .map_err(|error| error.to_string())?;
                    let answer = pools[number].allocator.allocate(&key, None, now);
                    if cluster.below(8) == 0 {
                        // Before it was durable: nobody was told.
                        pools[number].crash()?;
                        continue;
                    }
                    pools[number].sync();
                    if let Ok(net) = answer {
                        pods.insert(key, (number, net.addr()));
                    }
                }
            }
            one_holder(&pools, &pods)?;
        }
        one_owner(&pools)
    });
}

#[test]
fn i2_all_learn_the_division_and_all_of_it_can_be_used() {
    run(1000..1100, |cluster| {
        let mut pools = pools(cluster)?;
        // Everybody hears from the first, some several times.
        let delta = pools[0].allocator.ring().delta();
        for pool in &mut pools {
            for _ in 0..=cluster.below(2) {
                let mut ring = pool.allocator.ring().clone();
                ring.merge(&delta).map_err(|error| error.to_string())?;
                pool.allocator.set_ring(ring);
            }
        }
        one_owner(&pools)?;
        let mut given = 0;
        for (number, pool) in pools.iter_mut().enumerate() {
            for pod in 0.. {
                let key = AllocationKey::new(format!("pod-{number}-{pod}"), "eth0")
                    .map_err(|error| error.to_string())?;
                match pool.allocator.allocate(&key, None, Duration::ZERO) {
                    Ok(_) => given += 1,
                    Err(_) => break,
                }
            }
        }
        // 128 addresses less the network's own and broadcast.
        if given == 126 {
            Ok(())
        } else {
            Err(format!("{given} addresses were given"))
        }
    });
}
