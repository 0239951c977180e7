//! What network namespaces count of trouble with packet sizes and losses: /proc/net/snmp, which shows
//! the namespace of the thread that reads it.

use std::fs;

use anyhow::Context as _;
use hostnet::netns::NetNs;

/// Sums over namespaces since they were made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Events {
    /// TCP segments that were sent again (`RetransSegs`).
    pub(crate) retransmissions: u64,
    /// IPv4 fragments that were made (`FragCreates`).
    pub(crate) fragments: u64,
    /// ICMP messages that a destination cannot be reached, which "fragmentation needed" is one of
    /// (RFC 792), that came in (`InDestUnreachs`).
    pub(crate) unreachable: u64,
}

impl Events {
    /// Of all these namespaces together.
    pub(crate) fn of<'a>(namespaces: impl IntoIterator<Item = &'a NetNs>) -> anyhow::Result<Self> {
        let mut sum = Self::default();
        for namespace in namespaces {
            let text = namespace
                .run(|| fs::read_to_string("/proc/thread-self/net/snmp"))?
                .context("read /proc/net/snmp")?;
            let one = Self::parse(&text).context("/proc/net/snmp lacks what was looked for")?;
            sum.retransmissions += one.retransmissions;
            sum.fragments += one.fragments;
            sum.unreachable += one.unreachable;
        }
        Ok(sum)
    }

    fn parse(text: &str) -> Option<Self> {
        Some(Self {
            retransmissions: value(text, "Tcp:", "RetransSegs")?,
            fragments: value(text, "Ip:", "FragCreates")?,
            unreachable: value(text, "Icmp:", "InDestUnreachs")?,
        })
    }

    /// What was counted since an earlier reading.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            retransmissions: self.retransmissions.saturating_sub(before.retransmissions),
            fragments: self.fragments.saturating_sub(before.fragments),
            unreachable: self.unreachable.saturating_sub(before.unreachable),
        }
    }
}

/// A protocol has a line of names and, right after it, a line of values.
fn value(text: &str, protocol: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with(protocol));
    let (names, values) = (lines.next()?, lines.next()?);
    let at = names.split_whitespace().position(|word| word == name)?;
    values.split_whitespace().nth(at)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_their_names() {
        let text = "Ip: Forwarding FragOKs FragCreates\nIp: 1 2 3\n\
                    Icmp: InMsgs InDestUnreachs\nIcmp: 4 5\nIcmpMsg: InType3\nIcmpMsg: 6\n\
                    Tcp: MaxConn RetransSegs\nTcp: -1 7\n";
        let events = Events::parse(text).unwrap();
        let expected = Events {
            retransmissions: 7,
            fragments: 3,
            unreachable: 5,
        };
        assert_eq!(events, expected);
        assert_eq!(events.since(expected), Events::default());
        assert_eq!(Events::parse("Ip: FragCreates\n"), None);
        assert_eq!(Events::parse(""), None);
    }

    #[test]
    fn this_kernel_has_them() {
        Events::of([&NetNs::current().unwrap()]).unwrap();
    }
}
