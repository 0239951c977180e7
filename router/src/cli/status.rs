//! `weft status`: what a node knows about itself, for people or as JSON.

mod network;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use control::{IpamStatus, OverlayStatus, PeerStatus, SessionStatus, Status};

use super::complain;
use super::router::RouterArgs;

/// Flags of `weft status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    router: RouterArgs,

    /// Only this part
    #[arg(value_enum)]
    part: Option<Part>,

    /// How to print it
    #[arg(long, short, value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The other nodes: who they are, and how control messages get to them
    Peers,
    /// Every way to every node: encapsulation, state, reason, since when, MTU, round trip, loss
    Links,
    /// Which way frames and control messages take to each node
    Routes,
    /// The addresses at which this node looks for others, who named them, and what became of it
    Targets,
    /// The address plan: ranges, owners, what is used, free, quarantined and waited for
    Ipam,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For machines
    Json,
}

pub(super) fn run(args: &Args) -> ExitCode {
    let status = match args.router.client().status() {
        Ok(status) => status,
        Err(error) => {
            complain(error);
            return ExitCode::FAILURE;
        }
    };
    match args.output {
        Format::Text => print!("{}", page(&status, args.part)),
        Format::Json => match json(&status, args.part) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                complain(format_args!(
                    "the status cannot be written as JSON: {error}"
                ));
                return ExitCode::FAILURE;
            }
        },
    }
    ExitCode::SUCCESS
}

fn json(status: &Status, part: Option<Part>) -> serde_json::Result<String> {
    match part {
        Some(Part::Ipam) => serde_json::to_string_pretty(&status.ipam),
        Some(Part::Peers) => serde_json::to_string_pretty(&status.peers),
        Some(Part::Links) => serde_json::to_string_pretty(&network::links(status)),
        Some(Part::Routes) => serde_json::to_string_pretty(&network::routes(status)),
        Some(Part::Targets) => serde_json::to_string_pretty(&status.targets),
        None => serde_json::to_string_pretty(status),
    }
}

/// The whole or a part for people.
fn page(status: &Status, part: Option<Part>) -> String {
    let mut out = String::new();
    let written = match part {
        None => {
            let now = SystemTime::now().duration_since(UNIX_EPOCH);
            write_all(&mut out, status, now.unwrap_or_default().as_secs())
        }
        Some(Part::Peers) => network::write_peers(&mut out, status),
        Some(Part::Links) => network::write_links(&mut out, status),
        Some(Part::Routes) => network::write_routes(&mut out, status),
        Some(Part::Targets) => network::write_targets(&mut out, status),
        Some(Part::Ipam) => write_plan(&mut out, &status.ipam),
    };
    // Writing to a text does not fail.
    let _ = written;
    out
}

fn write_plan(out: &mut String, ipam: &IpamStatus) -> fmt::Result {
    write_pool(out, ipam)?;
    if ipam.pending > 0 {
        writeln!(out, "           {} requests wait", ipam.pending)?;
    }
    if ipam.unconfirmed > 0 {
        writeln!(
            out,
            "           {} taken over, waiting for {}",
            ipam.unconfirmed,
            join(&ipam.waiting)
        )?;
    }
    writeln!(out, "owners")?;
    for peer in &ipam.peers {
        let free = peer
            .free
            .map_or_else(|| "?".to_owned(), |free| free.to_string());
        let state = match (peer.gone, peer.connected) {
            (true, _) => "gone",
            (false, true) => "connected",
            (false, false) => "out of reach",
        };
        writeln!(
            out,
            "           {:<20} {:>10} owned {free:>10} free  {state}",
            peer.name, peer.owned
        )?;
    }
    for blocked in &ipam.blocked {
        writeln!(
            out,
            "quarantine {} held by containers of {}",
            blocked.range, blocked.node
        )?;
    }
    for held in &ipam.estranged {
        writeln!(
            out,
            "quarantine {} held by {}, owned by another node",
            held.address, held.holder
        )?;
    }
    for condition in &ipam.conditions {
        writeln!(out, "condition  {}: {}", condition.name, condition.message)?;
    }
    Ok(())
}

/// The status for people. `now` is in seconds since 1970-01-01 UTC.
fn write_all(out: &mut String, status: &Status, now: u64) -> fmt::Result {
    let node = &status.node;
    let uptime = span(now.saturating_sub(node.started_unix));
    writeln!(
        out,
        "node       {}, identity {}, weft {}",
        node.name, node.id, status.version
    )?;
    writeln!(out, "           fingerprint {}", node.fingerprint)?;
    writeln!(out, "           up {uptime}, state in {}", node.state_dir)?;
    if !node.underlay.is_empty() {
        writeln!(out, "           reached at {}", join(&node.underlay))?;
    }
    writeln!(out, "health     {}", health(status))?;
    write_overlay(out, &status.overlay)?;
    write_pool(out, &status.ipam)?;
    let local = status.macs.iter().filter(|mac| mac.port == "local").count();
    writeln!(
        out,
        "macs       {local} on this node, {} elsewhere",
        status.macs.len() - local
    )?;
    write_flooding(out, &status.counters)?;
    write_network(out, status)?;
    write_peers(out, status)?;

    let drops: Vec<_> = status
        .counters
        .iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("drop_")?, value)))
        .filter(|(_, value)| **value > 0)
        .collect();
    if !drops.is_empty() {
        let drops: Vec<_> = drops
            .iter()
            .map(|(reason, value)| format!("{reason} {value}"))
            .collect();
        writeln!(out, "\ndropped    {}", drops.join(", "))?;
    }
    for condition in &status.conditions {
        let since = span(now.saturating_sub(condition.since));
        writeln!(out, "\nattention  {}, for {since}:", condition.name)?;
        writeln!(out, "           {}", condition.message)?;
    }
    Ok(())
}

/// How many frames went to all, and how many did not have to.
fn write_flooding(out: &mut String, counters: &BTreeMap<String, u64>) -> fmt::Result {
    let count = |name: &str| counters.get(name).copied().unwrap_or_default();
    writeln!(
        out,
        "flooding   {} frames to all, {} of multicast to listeners",
        count("flooded"),
        count("multicast_selected")
    )?;
    writeln!(
        out,
        "           addresses asked of their owners {}, of this node {}, of all {}",
        count("asked_owner"),
        count("asked_here"),
        count("asked_all")
    )
}

fn write_overlay(out: &mut String, overlay: &OverlayStatus) -> fmt::Result {
    let OverlayStatus {
        bridge,
        bridge_mac,
        tap,
        queues,
        mtu,
        underlay_mtu,
        ..
    } = overlay;
    let addresses = match overlay.bridge_addresses.as_slice() {
        [] => "no address yet".to_owned(),
        addresses => join(addresses),
    };
    writeln!(
        out,
        "overlay    bridge {bridge} ({bridge_mac}), {addresses}"
    )?;
    let workers = if *queues == 1 {
        "1 queue".to_owned()
    } else {
        format!("{queues} queues")
    };
    let offloads = match overlay.offloads.as_slice() {
        [] => "none".to_owned(),
        offloads => offloads.join(" "),
    };
    writeln!(out, "           tap {tap}, {workers}, offloads {offloads}")?;
    writeln!(
        out,
        "           VXLAN to UDP {}, VNI {}, sleeve to UDP {}, {}",
        overlay.vxlan_port,
        overlay.vni,
        overlay.sleeve_port,
        match (overlay.encrypted, overlay.trusted_subnets.as_slice()) {
            (false, _) => "not encrypted".to_owned(),
            (true, []) => "encrypted".to_owned(),
            (true, trusted) => format!("encrypted but in trusted subnets ({})", join(trusted)),
        }
    )?;
    writeln!(out, "           MTU {mtu} on an underlay of {underlay_mtu}")
}

fn write_pool(out: &mut String, ipam: &IpamStatus) -> fmt::Result {
    let state = match (&ipam.reason, ipam.ready) {
        (None, true) => "ready".to_owned(),
        (None, false) => "not ready".to_owned(),
        (Some(reason), true) => format!("ready, but {reason}"),
        (Some(reason), false) => format!("not ready: {reason}"),
    };
    writeln!(out, "addresses  {}, {state}", ipam.range)?;
    writeln!(
        out,
        "           {} in use and {} free on this node",
        ipam.used, ipam.free
    )?;
    if !ipam.owned.is_empty() {
        let owned: Vec<_> = ipam
            .owned
            .iter()
            .take(4)
            .map(|owned| owned.range.as_str())
            .collect();
        let more = match ipam.owned.len() - owned.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        writeln!(out, "           owns {}{more}", owned.join(", "))?;
    }
    if !ipam.seeds.is_empty() {
        writeln!(out, "           first split among {}", join(&ipam.seeds))?;
    }
    Ok(())
}

/// In one line, what somebody wants to know who was woken up.
fn health(status: &Status) -> String {
    let count = |open: bool| {
        let peers = status.peers.iter();
        peers.filter(|peer| peer.state.is_open() == open).count()
    };
    let degraded = |peer: &&PeerStatus| peer.state == control::PeerState::Degraded;
    let degraded = status.peers.iter().filter(degraded).count();
    let mut faults = Vec::new();
    if status.node.left {
        faults.push("this node has left the network".to_owned());
    }
    if count(false) > 0 {
        faults.push(format!(
            "{} of {} links not up",
            count(false),
            status.peers.len()
        ));
    }
    if degraded > 0 {
        faults.push(format!("{degraded} of {} degraded", status.peers.len()));
    }
    if !status.ipam.ready {
        faults.push("no addresses for new pods".to_owned());
    }
    match status.conditions.len() {
        0 => {}
        1 => faults.push("1 thing needs attention, see the end".to_owned()),
        many => faults.push(format!("{many} things need attention, see the end")),
    }
    match (faults.is_empty(), status.peers.len()) {
        (true, 0) => "good, with no other node".to_owned(),
        (true, 1) => "good, the link is up".to_owned(),
        (true, links) => format!("good, all {links} links are up"),
        (false, _) => faults.join("; "),
    }
}

fn write_network(out: &mut String, status: &Status) -> fmt::Result {
    let node = &status.node;
    let targets = match status.targets.len() {
        1 => "1 target".to_owned(),
        many => format!("{many} targets"),
    };
    writeln!(
        out,
        "network    {targets}, discovery {}, {} control connections of {} at most",
        if node.discovery { "on" } else { "off" },
        node.connections,
        node.conn_limit
    )
}

fn write_peers(out: &mut String, status: &Status) -> fmt::Result {
    if status.peers.is_empty() {
        return writeln!(out, "peers      none");
    }
    let mut rows = vec![
        [
            "PEER", "STATE", "FOR", "ADDRESS", "VIA", "MTU", "RTT", "SENT", "RECEIVED", "REASON",
        ]
        .map(str::to_owned),
    ];
    rows.extend(network::sorted(status).into_iter().map(|peer| {
        let dash = || "-".to_owned();
        [
            peer.name.clone(),
            peer.state.as_str().to_owned(),
            span(peer.since_secs),
            peer.address
                .map_or_else(dash, |address| address.to_string()),
            via(peer, &status.sessions),
            if peer.mtu == 0 {
                dash()
            } else {
                peer.mtu.to_string()
            },
            peer.rtt_us.map_or_else(dash, rtt),
            peer.tx_frames.to_string(),
            peer.rx_frames.to_string(),
            peer.reason.clone().unwrap_or_default(),
        ]
    }));
    writeln!(out)?;
    write_table(out, &rows)
}

/// How frames get to a peer: `vxlan`, `sleeve by node-3`, `sleeve, key 15s`, `vxlan, plain (trusted
/// subnet 10.0.0.0/8)`.
fn via(peer: &PeerStatus, sessions: &[SessionStatus]) -> String {
    let mut text = network::wrapped(peer.encapsulation, peer.via.as_deref());
    if let Some(subnet) = peer.plain {
        let _ = write!(text, ", {}", network::plain(subnet));
        return text;
    }
    let session = sessions.iter().find(|one| Some(one.peer) == peer.id);
    if let Some(session) = session {
        let _ = write!(text, ", key {}", span(session.age_secs));
    }
    text
}

fn write_table<const N: usize>(out: &mut String, rows: &[[String; N]]) -> fmt::Result {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    for row in rows {
        let mut line = String::new();
        for (width, cell) in widths.iter().zip(row) {
            write!(line, "{cell:width$}  ")?;
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A span of time in its two largest units.
fn span(secs: u64) -> String {
    let (days, hours, minutes) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{secs}s"),
        (0, 0, _) => format!("{minutes}m{:02}s", secs % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A round-trip time, whole above 10 ms.
fn rtt(micros: u64) -> String {
    if micros < 10_000 {
        format!("{}.{:02}ms", micros / 1000, micros % 1000 / 10)
    } else {
        format!("{}ms", micros / 1000)
    }
}

fn join<T: fmt::Display>(list: &[T]) -> String {
    list.iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_for_people() {
        let mut page = String::new();
        write_all(&mut page, &crate::status::sample::status(), 1_000_090).unwrap();
        let expected = "\
node       node-1, identity 0101010101010101, weft 0.1.0
           fingerprint 0101010101010101010101010101010101010101010101010101010101010101
           up 1m30s, state in /var/lib/weft
           reached at 192.0.2.1:6784
health     1 of 3 links not up; 1 thing needs attention, see the end
overlay    bridge weft (02:00:00:00:00:01), 10.32.0.1/12
           tap weft-tap, 2 queues, offloads tso udp-gso
           VXLAN to UDP 6784, VNI 1, sleeve to UDP 6783, not encrypted
           MTU 1450 on an underlay of 1500
addresses  10.32.0.0/12, ready
           2 in use and 524286 free on this node
           owns 10.32.0.0-10.39.255.255
           first split among node-1, node-2
macs       1 on this node, 1 elsewhere
flooding   7 frames to all, 3 of multicast to listeners
           addresses asked of their owners 5, of this node 0, of all 1
network    1 target, discovery on, 1 control connections of 200 at most

PEER            STATE  FOR    ADDRESS           VIA    MTU   RTT     SENT  RECEIVED  REASON
node-3          down   1m15s  192.0.2.172:6784  vxlan  1450  -       0     0         no reply on UDP 6784 and 6783
192.0.2.7:8472  up     1m30s  192.0.2.7:8472    vxlan  1450  -       0     0
node-2          up     1m15s  192.0.2.171:6784  vxlan  1450  0.31ms  10    8

dropped    no_peer 3

attention  duplicate_name, for 1m00s:
           192.0.2.9 is called node-1 too: rename one of them
";
        assert_eq!(page, expected, "\n{page}");
    }

    #[test]
    fn with_a_password_the_age_of_keys_is_shown() {
        let mut status = crate::status::sample::status();
        status.overlay.encrypted = true;
        let peer = status.peers[1].id.unwrap();
        status.peers[1].encapsulation = control::Encapsulation::Sleeve;
        let cipher = "aes-256-gcm".to_owned();
        status.sessions = vec![SessionStatus {
            peer,
            cipher,
            age_secs: 75,
        }];
        let page = page(&status, None);
        assert!(page.contains("sleeve to UDP 6783, encrypted\n"), "{page}");
        assert!(page.contains("  sleeve, key 1m15s  "), "{page}");
    }

    #[test]
    fn i8_a_link_that_is_excepted_from_encryption_says_so() {
        let mut status = crate::status::sample::status();
        status.overlay.encrypted = true;
        status.overlay.trusted_subnets = vec!["192.0.2.0/24".parse().unwrap()];
        status.peers[1].plain = Some("192.0.2.0/24".parse().unwrap());
        let page = page(&status, None);
        let overlay = "encrypted but in trusted subnets (192.0.2.0/24)\n";
        assert!(page.contains(overlay), "{page}");
        let link = "  vxlan, plain (trusted subnet 192.0.2.0/24)  ";
        assert!(page.contains(link), "{page}");
    }

    #[test]
    fn spans_and_times() {
        for (secs, shown) in [
            (0, "0s"),
            (59, "59s"),
            (61, "1m01s"),
            (3661, "1h01m"),
            (90_000, "1d01h"),
        ] {
            assert_eq!(span(secs), shown);
        }
        assert_eq!(rtt(90), "0.09ms");
        assert_eq!(rtt(12_345), "12ms");
    }
}
