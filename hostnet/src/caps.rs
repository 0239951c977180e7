//! What the calling thread may do (capabilities(7)).

use std::fs;

/// Whether the thread has `CAP_NET_ADMIN` in its user namespace, without which nothing of this crate
/// can change anything.
pub fn has_net_admin() -> bool {
    has(CAP_NET_ADMIN)
}

/// Whether the thread has `CAP_SYS_ADMIN`, which entering and making namespaces needs.
pub fn has_sys_admin() -> bool {
    has(CAP_SYS_ADMIN)
}

/// linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;

fn has(capability: u32) -> bool {
    // A process without /proc cannot do what follows either.
    let status = fs::read_to_string("/proc/thread-self/status").unwrap_or_default();
    effective(&status).is_some_and(|set| set >> capability & 1 == 1)
}

fn effective(status: &str) -> Option<u64> {
    let set = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(set.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_effective_set_is_read() {
        assert_eq!(
            effective("Name:\tweft\nCapPrm:\t0\nCapEff:\t0000000000001000\n"),
            Some(1 << 12)
        );
        assert_eq!(effective("Name:\tweft\n"), None);
        assert_eq!(effective("CapEff:\tmany\n"), None);
    }
}
