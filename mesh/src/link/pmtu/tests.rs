use proptest::prelude::*;

use super::*;

const WAIT: Duration = Duration::from_millis(300);
const VERIFY: Duration = Duration::from_secs(2);
const RAISE: Duration = Duration::from_secs(15);

/// A way that takes packets up to a size, and the probes on it.
struct Bench {
    pmtu: Pmtu,
    takes: u16,
    now: Duration,
    probes: u32,
    /// Whether the local kernel knows the path's MTU.
    kernel: Option<u16>,
}

impl Bench {
    fn new(ceiling: u16, takes: u16) -> Self {
        Self {
            pmtu: Pmtu::new(ceiling, 50),
            takes,
            now: Duration::from_secs(1),
            probes: 0,
            kernel: None,
        }
    }

    /// Sends what is to be sent and lets the waits run out. Returns how long that took.
    fn settle(&mut self) -> Duration {
        let start = self.now;
        while self.pmtu.is_due(self.now) {
            let sizes = self.pmtu.take(self.now, VERIFY, RAISE);
            assert!(sizes.len() <= 16, "{sizes:?}");
            self.probes += u32::try_from(sizes.len()).unwrap();
            let (mut lost, mut refused) = (Vec::new(), Vec::new());
            for size in sizes {
                match self.kernel {
                    Some(mtu) if size > mtu - 50 => refused.push((size, mtu)),
                    _ if size <= self.takes => self.pmtu.answered(size, self.now),
                    _ => lost.push(size),
                }
            }
            for (size, mtu) in refused {
                self.pmtu.refused(size, Some(mtu), self.now);
            }
            if !lost.is_empty() {
                self.now += WAIT;
            }
            for size in lost {
                self.pmtu.unanswered(size, self.now);
            }
        }
        self.now - start
    }

    fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(due) = self.pmtu.due().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.settle();
        }
        self.now = self.now.max(end);
    }
}

#[test]
fn a_healthy_way_costs_one_probe() {
    let mut bench = Bench::new(1450, 1450);
    assert_eq!(bench.pmtu.mtu(), None);
    bench.settle();
    assert_eq!((bench.pmtu.mtu(), bench.probes), (Some(1450), 1));
    bench.wait(Duration::from_secs(20));
    assert_eq!(bench.probes, 11, "one each two seconds");
}

#[test]
fn a_known_plateau_is_found_in_two_rounds() {
    for underlay in [9000, 1492, 1460, 1400, 1280] {
        let mut bench = Bench::new(8951, underlay - 50);
        let took = bench.settle();
        assert_eq!(bench.pmtu.mtu(), Some(underlay - 50));
        assert!(took <= 5 * WAIT, "{underlay}: {took:?}");
    }
}

#[test]
fn a_black_hole_is_left_within_a_second_of_its_test() {
    let mut bench = Bench::new(1450, 1450);
    bench.settle();
    bench.takes = 1333;
    bench.now += VERIFY;
    assert!(bench.pmtu.is_due(bench.now) && !bench.pmtu.is_failing());
    let took = bench.settle();
    assert_eq!(bench.pmtu.mtu(), Some(1333));
    assert!(took <= 4 * WAIT, "{took:?}");
}

#[test]
fn one_lost_test_changes_nothing() {
    let mut bench = Bench::new(1450, 1450);
    bench.settle();
    bench.now += VERIFY;
    assert_eq!(bench.pmtu.take(bench.now, VERIFY, RAISE), [1450]);
    bench.pmtu.unanswered(1450, bench.now);
    assert!(bench.pmtu.is_failing());
    bench.settle();
    assert_eq!(
        (bench.pmtu.mtu(), bench.pmtu.is_failing()),
        (Some(1450), false)
    );
}

#[test]
fn a_way_that_takes_more_again_is_noticed() {
    let mut bench = Bench::new(1450, 1300);
    bench.settle();
    assert_eq!(bench.pmtu.mtu(), Some(1300));
    bench.takes = 1400;
    bench.wait(RAISE + Duration::from_secs(3));
    assert_eq!(bench.pmtu.mtu(), Some(1400));
    bench.takes = 9000;
    bench.wait(RAISE + Duration::from_secs(3));
    assert_eq!(bench.pmtu.mtu(), Some(1450));
}

#[test]
fn the_interface_changes_both_ways() {
    let mut bench = Bench::new(1450, 8950);
    bench.settle();
    bench.pmtu.set_ceiling(8950, 50, bench.now);
    bench.settle();
    assert_eq!(bench.pmtu.mtu(), Some(8950));
    bench.pmtu.set_ceiling(1350, 50, bench.now);
    assert_eq!(bench.pmtu.mtu(), Some(1350), "at once");
}

#[test]
fn what_the_kernel_knows_shortens_the_search() {
    let mut bench = Bench::new(1450, 1450);
    bench.settle();
    (bench.takes, bench.kernel) = (1317, Some(1367));
    bench.now += VERIFY;
    let before = bench.probes;
    let took = bench.settle();
    assert_eq!(bench.pmtu.mtu(), Some(1317));
    assert!(
        took <= WAIT && bench.probes - before < 30,
        "{took:?}, {} probes",
        bench.probes
    );
}

#[test]
fn a_kernel_that_is_wrong_proves_nothing() {
    // ICMP that somebody forged: the kernel claims 600, and refuses what would pass.
    let mut bench = Bench::new(1450, 1450);
    bench.settle();
    bench.kernel = Some(1000);
    bench.now += VERIFY;
    bench.settle();
    assert_eq!(
        bench.pmtu.mtu(),
        Some(950),
        "the kernel lets no more through"
    );
    bench.kernel = None;
    bench.wait(RAISE + Duration::from_secs(3));
    assert_eq!(bench.pmtu.mtu(), Some(1450));
}

#[test]
fn below_the_floor_the_way_is_failing() {
    let mut bench = Bench::new(1450, 400);
    bench.settle();
    assert_eq!(
        (bench.pmtu.mtu(), bench.pmtu.is_failing()),
        (Some(FLOOR), true)
    );
    bench.takes = 700;
    bench.wait(Duration::from_secs(20));
    assert_eq!(
        (bench.pmtu.mtu(), bench.pmtu.is_failing()),
        (Some(700), false)
    );
}

proptest! {
    /// Any size between the floor and the ceiling is found to the byte, in bounded time.
    #[test]
    fn every_size_is_found(ceiling in FLOOR..=65485, takes in FLOOR..=65485, kernel: bool) {
        let mut bench = Bench::new(ceiling, takes);
        if kernel {
            bench.kernel = Some(takes + 50);
        }
        let took = bench.settle();
        prop_assert_eq!(bench.pmtu.mtu(), Some(takes.min(ceiling)));
        prop_assert!(took <= 7 * WAIT, "{:?}", took);
        prop_assert!(bench.probes <= 60, "{} probes", bench.probes);
    }

    /// Whatever is answered, lost and refused in whatever order: sizes stay within bounds, rounds
    /// are bounded, and a way that works in the end is found.
    #[test]
    fn i6_no_order_of_events_upsets_it(
        events in prop::collection::vec((0..6u8, any::<u16>(), any::<Option<u16>>()), 0..200),
        takes in FLOOR..=9000,
    ) {
        let mut bench = Bench::new(1450, takes);
        for (kind, size, hint) in events {
            bench.now += Duration::from_millis(u64::from(size % 512));
            match kind {
                0 => bench.pmtu.answered(size, bench.now),
                1 => bench.pmtu.unanswered(size, bench.now),
                2 => bench.pmtu.refused(size, hint, bench.now),
                3 => bench.pmtu.set_ceiling(size, 50, bench.now),
                4 => bench.pmtu.interrupt(bench.now),
                _ => {
                    let sizes = bench.pmtu.take(bench.now, VERIFY, RAISE);
                    prop_assert!(sizes.len() <= 16);
                    prop_assert!(sizes.iter().all(|size| (FLOOR..=65485).contains(size)));
                }
            }
        }
        bench.pmtu.set_ceiling(1440, 50, bench.now);
        bench.pmtu.set_ceiling(1450, 50, bench.now);
        bench.pmtu.interrupt(bench.now);
        bench.wait(Duration::from_secs(120));
        prop_assert_eq!(bench.pmtu.mtu(), Some(takes.min(1450)));
    }
}
