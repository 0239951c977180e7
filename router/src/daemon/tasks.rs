//! The router's own loops, beside those of its parts. Each returns only when it cannot go on; the
//! daemon then stops, and whoever watches it starts it anew.

use std::sync::Arc;
use std::time::Duration;

use control::ErrorCode;
use mesh::{ConditionChange, LinkChange};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};
use zeroize::Zeroizing;

use super::groups::follow_groups;
use super::traffic::Traffic;
use crate::io::ipam_service::CHANNEL;
use crate::io::mesh_driver::MeshEvent;
use crate::node::Node;
use crate::password;
use crate::settings::Endpoint;

/// Between turns of the loops that tick.
const TURN: Duration = Duration::from_secs(1);
/// Between looks at the MAC table for silent stations, at the rules for packets, and at where other
/// nodes are, in turns.
const EXPIRE_EVERY: u32 = 5;
/// Between looks for releases that a DEL noted because the router was slow, and for attachments
/// whose interface is gone, in turns.
const PENDING_EVERY: u32 = 30;
/// Between changes of the data path's address plan, at least.
const BURST: Duration = Duration::from_millis(50);
/// Between look-ups of the VTEPs' names.
const LOOKUP_EVERY: Duration = Duration::from_secs(60);
/// Between looks at the password file.
const PASSWORD_EVERY: Duration = Duration::from_secs(5);
/// How long one look-up may take.
const LOOKUP: Duration = Duration::from_secs(10);
/// Between looks whether the bridge's address still belongs to this node.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// How long the bridge's address is waited for at a time.
const GATEWAY: Duration = Duration::from_secs(5);

/// Starts the loops.
pub(super) fn spawn(
    tasks: &mut JoinSet<&'static str>,
    node: &Arc<Node>,
    inbox: mpsc::Receiver<MeshEvent>,
    said: mpsc::Receiver<Vec<u8>>,
) {
    tasks.spawn(follow_mesh(Arc::clone(node), inbox));
    tasks.spawn(keep_house(Arc::clone(node)));
    tasks.spawn(keep_gateway(Arc::clone(node)));
    tasks.spawn(follow_names(Arc::clone(node)));
    tasks.spawn(follow_password(Arc::clone(node)));
    tasks.spawn(watch_sessions(Arc::clone(node)));
    tasks.spawn(follow_plan(Arc::clone(node)));
    tasks.spawn(follow_groups(Arc::clone(node), said));
    tasks.spawn(follow_underlay(Arc::clone(node)));
}

/// Sees whether the sessions' task turns, where there is one. Without it no key is replaced, and every
/// sealed link ends within minutes.
async fn watch_sessions(node: Arc<Node>) -> &'static str {
    let Some(sessions) = node.sessions() else {
        return std::future::pending().await;
    };
    let ticker = node.loops().register("the sessions");
    while sessions.turns().await {
        ticker.tick();
        tokio::time::sleep(TURN).await;
    }
    "the sessions"
}

/// Hands on what the mesh says: links to the data path, conditions to the operator.
async fn follow_mesh(node: Arc<Node>, mut inbox: mpsc::Receiver<MeshEvent>) -> &'static str {
    let ticker = node.loops().register("the mesh's follower");
    // VTEPs are there from the start, and the mesh may have nothing to say for a while.
    node.change_links(|_| ());
    loop {
        ticker.tick();
        match timeout(TURN, inbox.recv()).await {
            Err(_) => {}
            Ok(None) => return "the mesh",
            Ok(Some(event)) => take_burst(&node, event, &mut inbox).await,
        }
    }
}

/// Takes an event. What nodes want changes at many at once, when they start or an application does:
/// what is there already is handed on together.
async fn take_burst(node: &Node, event: MeshEvent, inbox: &mut mpsc::Receiver<MeshEvent>) {
    let mut wanted = Vec::new();
    let mut next = Some(event);
    while let Some(MeshEvent::Groups { id, groups }) = next {
        wanted.push((Some(id), groups));
        next = inbox.try_recv().ok();
    }
    if !wanted.is_empty() {
        node.set_groups(wanted);
    }
    if let Some(event) = next {
        take(node, event).await;
    }
}

async fn take(node: &Node, event: MeshEvent) {
    match event {
        MeshEvent::Groups { id, groups } => node.set_groups([(Some(id), groups)]),
        MeshEvent::Link(change) => take_link(node, change),
        MeshEvent::Key { id, public } => match (node.sessions(), public) {
            (Some(sessions), Some(public)) => sessions.peer(id, public).await,
            (Some(sessions), None) => sessions.gone(id).await,
            (None, _) => {}
        },
        MeshEvent::Reachable {
            id,
            name,
            reachable: true,
        } => node.ipam().reachable(id, name).await,
        MeshEvent::Reachable {
            name,
            reachable: false,
            ..
        } => node.ipam().unreachable(name).await,
        MeshEvent::Connected { id, name } => node.ipam().neighbour(id, name).await,
        MeshEvent::Gossip {
            from,
            name,
            channel: CHANNEL,
            payload,
        } => node.ipam().gossip(from, name, payload).await,
        MeshEvent::Gossip { name, channel, .. } => {
            tracing::debug!(peer = %name, channel, "gossip for nobody here");
        }
        MeshEvent::Condition(ConditionChange::Raised(condition)) => {
            node.raise(
                condition.kind.as_str(),
                &condition.subject,
                condition.message,
            );
        }
        MeshEvent::Condition(ConditionChange::Over(condition)) => {
            node.clear(condition.kind.as_str(), &condition.subject);
        }
    }
}

fn take_link(node: &Node, change: LinkChange) {
    match change {
        LinkChange::Up {
            id,
            name,
            path,
            sleeve,
            plain,
        } => {
            tracing::info!(
                peer = %name,
                %id,
                encapsulation = %path.encapsulation,
                endpoint = %path.endpoint,
                hops = path.hops,
                mtu = path.mtu,
                reason = path.reason,
                plain = plain.map(tracing::field::display),
                "link up"
            );
            node.change_links(|switch| switch.peer_up(id, name, path, sleeve, plain));
        }
        LinkChange::Down { id, name, reason } => {
            tracing::warn!(peer = %name, %id, reason, "link down");
            node.change_links(|switch| switch.peer_gone(id));
        }
        LinkChange::Left { id, name } => {
            tracing::info!(peer = %name, %id, "peer left");
            node.change_links(|switch| switch.peer_gone(id));
        }
    }
}

/// Hands on who owns which addresses. The ring changes in bursts while nodes join: what came
/// meanwhile is handed on at once.
async fn follow_plan(node: Arc<Node>) -> &'static str {
    let mut owners = node.ipam().owners();
    owners.mark_changed();
    loop {
        if owners.changed().await.is_err() {
            return "the address pool";
        }
        let latest = Arc::clone(&owners.borrow_and_update());
        node.set_owners(latest);
        tokio::time::sleep(BURST).await;
    }
}

/// Small recurring work.
async fn keep_house(node: Arc<Node>) -> &'static str {
    let ticker = node.loops().register("the housekeeper");
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut turn = 0u32;
    let mut traffic = Traffic::default();
    loop {
        turns.tick().await;
        ticker.tick();
        turn = turn.wrapping_add(1);
        if node.datapath_is_dead() {
            return "the data path";
        }
        if let Some(totals) = node.link_totals() {
            let (activity, too_big) = traffic.since(totals);
            node.mesh().traffic(activity, too_big).await;
        }
        if turn.is_multiple_of(EXPIRE_EVERY) {
            node.remember_peers().await;
            node.expire_macs();
            node.assert_rules().await;
        }
        if turn.is_multiple_of(PENDING_EVERY) {
            node.release_pending().await;
            node.release_absent().await;
        }
    }
}

/// Looks at the underlay's interfaces: a smaller MTU is noticed by what is sent, a larger one is not.
async fn follow_underlay(node: Arc<Node>) -> &'static str {
    let ticker = node.loops().register("the underlay's follower");
    let mut turns = interval(TURN);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        ticker.tick();
        node.look_at_underlay().await;
    }
}

/// Gives the bridge its address as soon as there is one, and another where that is lost.
async fn keep_gateway(node: Arc<Node>) -> &'static str {
    let mut told = String::new();
    loop {
        let kept = match node.ensure_gateway(GATEWAY).await {
            Ok(_) => {
                tokio::time::sleep(RENEW_EVERY).await;
                node.renew_gateway(GATEWAY).await
            }
            Err(error) => Err(error),
        };
        match kept {
            Ok(()) => told.clear(),
            Err(error) => {
                let text = error.to_string();
                if text != told {
                    tracing::warn!(reason = text, "the bridge has no address yet");
                    told = text;
                }
                if error.code != ErrorCode::Deadline {
                    tokio::time::sleep(TURN).await;
                }
            }
        }
    }
}

/// Takes over what is written into the password file while the router runs, so that a cluster can pass
/// from one password to the next without a restart.
async fn follow_password(node: Arc<Node>) -> &'static str {
    let (Some(file), Some(sessions)) = (&node.settings().password_file, node.sessions()) else {
        return std::future::pending().await;
    };
    let mut last = tokio::fs::read(file).await.ok().map(Zeroizing::new);
    let mut turns = interval(PASSWORD_EVERY);
    loop {
        turns.tick().await;
        let now = match tokio::fs::read(file).await {
            Ok(now) => Some(Zeroizing::new(now)),
            Err(error) => {
                tracing::warn!(file = %file.display(), %error, "cannot read the password file");
                continue;
            }
        };
        if now == last {
            continue;
        }
        last = now;
        let path = file.clone();
        match tokio::task::spawn_blocking(move || password::read(&path)).await {
            Ok(Ok(passwords)) => {
                let accepted = passwords.len();
                tracing::info!(accepted, "the passwords are others from now on");
                node.mesh().set_passwords(passwords.clone()).await;
                sessions.set_passwords(passwords).await;
            }
            Ok(Err(error)) => tracing::error!(%error, "the passwords stay as they were"),
            Err(error) => tracing::error!(%error, "the password was not read"),
        }
    }
}

/// Looks up the VTEPs that were given by name, again and again: names move.
async fn follow_names(node: Arc<Node>) -> &'static str {
    let names: Vec<Endpoint> = node
        .settings()
        .vteps
        .iter()
        .filter(|endpoint| endpoint.address().is_none())
        .cloned()
        .collect();
    if names.is_empty() {
        return std::future::pending().await;
    }
    let mut turns = interval(LOOKUP_EVERY);
    loop {
        turns.tick().await;
        for endpoint in &names {
            let target = (endpoint.host.as_str(), endpoint.port);
            let resolved = match timeout(LOOKUP, tokio::net::lookup_host(target)).await {
                Ok(Ok(mut found)) => found
                    .next()
                    .ok_or_else(|| "its name has no address".to_owned()),
                Ok(Err(error)) => Err(format!("its name cannot be looked up: {error}")),
                Err(_) => Err("its name was not looked up in time".to_owned()),
            };
            if let Err(reason) = &resolved {
                tracing::warn!(vtep = %endpoint, reason, "cannot look up a VTEP");
            }
            let now = node.now();
            node.change_links(|switch| {
                switch.vtep_resolved(endpoint, resolved, now);
            });
        }
    }
}
