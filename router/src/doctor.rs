//! What `weft doctor` finds on a node, and what to do about it.
//!
//! Pure: what was seen in, findings out. `cli::doctor` looks.

use std::fmt;

use control::{PeerState, Status};

/// What was looked at.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Why `/dev/net/tun` cannot be opened, if it cannot.
    pub tun: Option<String>,
    /// Why nftables cannot be used, if it cannot.
    pub nftables: Option<String>,
    /// Whether the node forwards IPv4.
    pub forwarding: bool,
    /// Base chains of others that drop what they do not know at the forward hook.
    pub forward_drops: Vec<String>,
    /// Ports that the router needs and somebody else holds.
    pub ports: Vec<String>,
    /// Files in the runtime's configuration directory, sorted; none: there is no such directory.
    pub conflists: Option<Vec<String>>,
    /// Whether the plugin is in the runtime's directory.
    pub plugin: bool,
    /// Seconds since 1970 by the node's clock.
    pub clock: u64,
    /// What the router says, or why it does not.
    pub router: Option<Result<Status, String>>,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// As it should be.
    Good,
    /// Works, but not for everything.
    Remark,
    /// Pods will miss something.
    Bad,
}

/// One finding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub level: Level,
    /// What was found.
    pub what: String,
    /// What to do; empty if nothing.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match self.level {
            Level::Good => "ok  ",
            Level::Remark => "note",
            Level::Bad => "BAD ",
        };
        write!(f, "{mark} {}", self.what)?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "\n     {}", self.remedy)
        }
    }
}

/// 2026-01-01: certificates of a cluster that runs this are not valid before.
const EARLIEST: u64 = 1_767_225_600;
/// The configuration that the router installs.
const CONFLIST: &str = crate::install::CONFLIST;

/// All findings, the router's after the machine's.
pub fn examine(seen: &Seen) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut machine = |good: bool, level, what: &str, bad: String, remedy: &str| {
        found.push(if good {
            finding(Level::Good, what, "")
        } else {
            finding(level, bad, remedy)
        });
    };
    machine(
        seen.tun.is_none(),
        Level::Bad,
        "/dev/net/tun can be opened",
        format!("/dev/net/tun cannot be opened: {}", text(&seen.tun)),
        "modprobe tun; in a container the device must be mounted and allowed",
    );
    machine(
        seen.nftables.is_none(),
        Level::Bad,
        "nftables can be used",
        format!("nftables cannot be used: {}", text(&seen.nftables)),
        "modprobe nf_tables nft_masq; without it nothing is masqueraded and no pod is held to its \
         address",
    );
    machine(
        seen.forwarding,
        Level::Bad,
        "the node forwards IPv4",
        "the node does not forward IPv4: pods cannot leave the overlay".to_owned(),
        "sysctl -w net.ipv4.ip_forward=1, and in /etc/sysctl.d",
    );
    machine(
        seen.forward_drops.is_empty(),
        Level::Remark,
        "no firewall drops what it does not know when forwarding",
        format!(
            "what is forwarded is dropped unless a rule accepts it, by {}",
            seen.forward_drops.join(", ")
        ),
        "let the range of pods through in both directions, or pods cannot leave the overlay; Docker \
         and firewalld do this",
    );
    machine(
        seen.ports.is_empty(),
        Level::Bad,
        "the router's ports are free, or its own",
        format!("somebody else holds {}", seen.ports.join(", ")),
        "ss -lntup shows who; the ports can be changed on all nodes",
    );
    machine(
        seen.clock >= EARLIEST,
        Level::Bad,
        "the clock is set",
        "the clock is years behind".to_owned(),
        "set it: certificates of the API server are not valid yet by it",
    );
    found.extend(plugin(seen));
    match &seen.router {
        None => {}
        Some(Err(why)) => found.push(finding(
            Level::Bad,
            format!("the router does not answer: {why}"),
            "its log says why: journalctl -u weft, or kubectl -n kube-system logs daemonset/weft",
        )),
        Some(Ok(status)) => found.extend(router(status)),
    }
    found
}

fn plugin(seen: &Seen) -> Vec<Finding> {
    let Some(conflists) = &seen.conflists else {
        return vec![finding(
            Level::Remark,
            "there is no directory for networks of a container runtime",
            "nothing to do where no runtime is to use weft",
        )];
    };
    let mut found = Vec::new();
    match conflists.first().map(String::as_str) {
        Some(CONFLIST) => found.push(finding(
            Level::Good,
            "the runtime's network for pods is weft's",
            "",
        )),
        Some(other) if conflists.iter().any(|name| name == CONFLIST) => found.push(finding(
            Level::Bad,
            format!("the runtime takes {other} for its network, which comes before {CONFLIST}"),
            "remove the other provider, or rename its file",
        )),
        other => found.push(finding(
            Level::Remark,
            format!(
                "weft's network is not installed for the runtime{}",
                other.map_or_else(String::new, |other| format!(", which takes {other}"))
            ),
            "with --cni-conf-dir the router installs it once pods can be attached; or weft install-cni",
        )),
    }
    if !seen.plugin && conflists.iter().any(|name| name == CONFLIST) {
        found.push(finding(
            Level::Bad,
            "the plugin weft-cni is not where the runtime looks for it",
            "weft install-cni",
        ));
    }
    found
}

fn router(status: &Status) -> Vec<Finding> {
    let mut found = vec![finding(
        Level::Good,
        format!("the router {} answers", status.node.name),
        "",
    )];
    let ipam = &status.ipam;
    found.push(match (ipam.ready, &ipam.reason) {
        (true, _) => finding(
            Level::Good,
            format!("addresses of {} can be handed out", ipam.range),
            "",
        ),
        (false, why) => finding(
            Level::Bad,
            format!(
                "no address of {} can be handed out: {}",
                ipam.range,
                text(why)
            ),
            "weft status ipam shows who owns what; docs/troubleshooting.md has each reason",
        ),
    });
    let up = status
        .peers
        .iter()
        .filter(|peer| peer.state == PeerState::Up);
    found.push(finding(
        Level::Good,
        format!("{} of {} links are up", up.count(), status.peers.len()),
        "",
    ));
    for peer in status
        .peers
        .iter()
        .filter(|peer| peer.state != PeerState::Up)
    {
        found.push(finding(
            Level::Bad,
            format!("no link to {}: {}", peer.name, text(&peer.reason)),
            "TCP 6783 and UDP 6783 and 6784 must pass in both directions",
        ));
    }
    for condition in &status.conditions {
        found.push(finding(
            Level::Bad,
            format!("{}: {}", condition.name, condition.message),
            "",
        ));
    }
    found
}

fn finding(level: Level, what: impl Into<String>, remedy: &str) -> Finding {
    Finding {
        level,
        what: what.into(),
        remedy: remedy.to_owned(),
    }
}

fn text(why: &Option<String>) -> &str {
    why.as_deref().unwrap_or("no reason is known")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Seen {
        Seen {
            forwarding: true,
            conflists: Some(vec![CONFLIST.to_owned(), "87-podman.conflist".to_owned()]),
            plugin: true,
            clock: EARLIEST,
            ..Seen::default()
        }
    }

    fn bad(seen: &Seen) -> Vec<String> {
        let found = examine(seen).into_iter();
        found
            .filter(|finding| finding.level == Level::Bad)
            .map(|finding| finding.to_string())
            .collect()
    }

    #[test]
    fn a_healthy_node_has_nothing_to_do() {
        let found = examine(&healthy());
        assert!(
            found
                .iter()
                .all(|f| f.level == Level::Good && f.remedy.is_empty()),
            "{found:?}"
        );
    }

    #[test]
    fn each_fault_is_named_with_what_to_do() {
        type Harm = fn(&mut Seen);
        let harms: [(&str, Harm); 8] = [
            ("modprobe tun", |s| s.tun = Some("ENOENT".into())),
            ("modprobe nf_tables", |s| {
                s.nftables = Some("EOPNOTSUPP".into())
            }),
            ("ip_forward=1", |s| s.forwarding = false),
            ("TCP 6783", |s| s.ports = vec!["TCP 6783".into()]),
            ("years behind", |s| s.clock = 0),
            ("05-cilium.conflist", |s| {
                s.conflists = Some(vec!["05-cilium.conflist".into(), CONFLIST.into()]);
            }),
            ("weft install-cni", |s| s.plugin = false),
            ("journalctl", |s| {
                s.router = Some(Err("connection refused".into()))
            }),
        ];
        for (text, harm) in harms {
            let mut seen = healthy();
            harm(&mut seen);
            let found = bad(&seen);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].contains(text), "{text} is not in {found:?}");
        }
    }

    #[test]
    fn what_the_router_says_is_repeated() {
        let status = crate::status::sample::status();
        let seen = Seen {
            router: Some(Ok(status.clone())),
            ..healthy()
        };
        let found = bad(&seen).join("\n");
        for condition in &status.conditions {
            assert!(found.contains(&condition.message), "{found}");
        }
        for peer in status
            .peers
            .iter()
            .filter(|peer| peer.state != PeerState::Up)
        {
            assert!(
                found.contains(&format!("no link to {}", peer.name)),
                "{found}"
            );
        }
    }
}
