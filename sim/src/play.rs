//! Plays a scenario for many seeds, and tells of the first that fails.

use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::Cluster;

/// Distance between the seeds of two rounds; more than any test has.
const ROUND: u64 = 1_000_000;
/// Plays so many times as many seeds: the same ones first, then others.
const ROUNDS: &str = "WEFT_SIM_ROUNDS";
/// Plays this seed alone.
const SEED: &str = "WEFT_SIM_SEED";

/// Plays a scenario once for each seed, on all processors.
///
/// `WEFT_SIM_ROUNDS=n` in the environment plays n times as many seeds: the same ones first, then
/// others. `WEFT_SIM_SEED=n` plays that one alone.
///
/// # Panics
/// A seed fails: the scenario says so, something in it panics, or it does not end within the
/// cluster's budget. The text has the seed, what was wrong, the last events before it, and the
/// command that repeats it.
#[track_caller]
pub fn run(seeds: Range<u64>, scenario: impl Fn(&mut Cluster) -> Result<(), String> + Sync) {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let all: Vec<u64> = match number(SEED) {
        Some(seed) => vec![seed],
        None => (0..number(ROUNDS).unwrap_or(1))
            .flat_map(|round| seeds.start + round * ROUND..seeds.end + round * ROUND)
            .collect(),
    };
    let repeat = repeat(Location::caller());
    let next = Mutex::new(all.into_iter());
    let failed = AtomicBool::new(false);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let Some(seed) = next.lock().ok().and_then(|mut seeds| seeds.next()) else {
                return;
            };
            let error = play(&mut Cluster::new(seed), &scenario).err();
            if let Some(error) = error {
                failed.store(true, Ordering::Relaxed);
                if let Ok(mut failures) = failures.lock() {
                    failures.push((seed, error));
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 1..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
        work();
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort();
    let Some((seed, error)) = failures.into_iter().next() else {
        return;
    };
    let mut cluster = Cluster::new(seed);
    cluster.write_trace();
    let again = play(&mut cluster, &scenario).err();
    assert_eq!(
        again.as_ref(),
        Some(&error),
        "seed {seed} does not repeat itself"
    );
    panic!(
        "seed {seed}: {error}\n{}again: {SEED}={seed} {repeat}",
        cluster.trace_end()
    );
}

/// Plays one seed. A panic is a failure like another.
fn play(
    cluster: &mut Cluster,
    scenario: &impl Fn(&mut Cluster) -> Result<(), String>,
) -> Result<(), String> {
    // Nobody looks at a cluster after a panic but for its trace.
    catch_unwind(AssertUnwindSafe(|| scenario(cluster)))
        .unwrap_or_else(|panic| Err(text(panic.as_ref())))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("panic without a text").to_owned()
}

/// The command that runs the calling test.
fn repeat(caller: &Location<'_>) -> String {
    let file = Path::new(caller.file()).file_stem();
    let file = file.and_then(|stem| stem.to_str()).unwrap_or_default();
    let current = thread::current();
    let test = current.name().filter(|name| *name != "main");
    format!(
        "cargo test -p sim --test {file} {}",
        test.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn complaint(scenario: impl Fn(&mut Cluster) -> Result<(), String> + Sync) -> String {
        let failed = catch_unwind(AssertUnwindSafe(|| run(7..8, scenario)));
        text(failed.expect_err("it fails").as_ref())
    }

    #[test]
    fn a_failure_names_its_seed_and_how_to_repeat_it() {
        let said = complaint(|_| Err("so".to_owned()));
        assert!(said.starts_with("seed 7: so\n"), "{said}");
        assert!(said.contains("again: WEFT_SIM_SEED=7 cargo test"), "{said}");
        assert!(complaint(|_| panic!("no")).starts_with("seed 7: no\n"));
    }

    #[test]
    fn what_does_not_end_has_failed() {
        let said = complaint(|cluster| {
            loop {
                cluster.run_for(Duration::from_secs(3600));
            }
        });
        assert!(said.contains("does not end"), "{said}");
        let said = complaint(|cluster| {
            cluster.budget.steps = 100;
            for number in cluster.add(5) {
                cluster.target(number, 0);
                cluster.start(number);
            }
            cluster.run_for(Duration::from_secs(60));
            Ok(())
        });
        assert!(said.contains("does not end: 101 steps"), "{said}");
        assert!(said.contains("starts, run"), "the trace is missing: {said}");
    }
}
