//! Processor time of the whole machine, from /proc/stat: forwarding in the kernel is nobody's own
//! time, so that only the sum over everything tells what a byte costs.

use std::time::Duration;

use anyhow::Context as _;

/// Busy time of all cores since boot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CpuTime {
    ticks: u64,
}

/// `USER_HZ`, the unit of /proc/stat and /proc/PID/stat: 100 on every architecture that Rust's std supports.
pub(crate) const TICKS_PER_SECOND: u64 = 100;

impl CpuTime {
    /// Reads it.
    pub(crate) fn now() -> anyhow::Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all cores")
    }

    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        // user nice system idle iowait irq softirq steal (proc(5)); steal was somebody else's.
        let fields: Vec<u64> = line
            .split_whitespace()
            .map_while(|f| f.parse().ok())
            .collect();
        let busy = [0, 1, 2, 5, 6].map(|i| fields.get(i).copied());
        Some(Self {
            ticks: busy.into_iter().sum::<Option<u64>>()?,
        })
    }

    /// Busy time since an earlier reading.
    pub(crate) fn since(self, before: Self) -> Duration {
        Duration::from_millis(self.ticks.saturating_sub(before.ticks) * 1000 / TICKS_PER_SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_neither_idle_nor_stolen() {
        let at = |text| CpuTime::parse(text).unwrap();
        let before = at("cpu  10 0 20 500 7 1 2 9 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n");
        let after = at("cpu  60 0 40 900 9 2 31 99 0 0\n");
        assert_eq!(after.since(before), Duration::from_secs(1));
        assert!(CpuTime::parse("intr 1 2 3\n").is_none());
        assert!(CpuTime::parse("cpu  1 2 3\n").is_none());
    }
}
