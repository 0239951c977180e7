//! Speaks to the task that owns the mesh.

use std::net::{IpAddr, SocketAddr};

use mesh::link::{Activity, LinkInput, LinkView};
use mesh::{Counters, Encapsulation, Groups, Input, MAX_GOSSIP, PeerView, Psk, Target, TargetView};
use tokio::sync::{mpsc, oneshot};
use wire::PeerId;

/// A payload that no message can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "gossip of {len} bytes on channel {channel} is over the limit of {MAX_GOSSIP}: send it in parts"
)]
pub struct GossipTooLarge {
    /// Its channel.
    pub channel: u8,
    /// Its length in bytes.
    pub len: usize,
}

/// Speaks to the running mesh.
#[derive(Debug, Clone)]
pub struct MeshHandle {
    pub(super) asks: mpsc::Sender<Ask>,
    pub(super) address: SocketAddr,
}

impl MeshHandle {
    /// The address that the mesh listens on, with its real port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the mesh knows; none if it has ended.
    pub async fn view(&self) -> Option<MeshView> {
        let (answer, asked) = oneshot::channel();
        self.asks.send(Ask::View(answer)).await.ok()?;
        asked.await.ok()
    }

    /// All peers, by identity; none if the mesh has ended.
    pub async fn peers(&self) -> Vec<PeerView> {
        self.view().await.map(|view| view.peers).unwrap_or_default()
    }

    /// Addresses with which a later run finds the network again; none if the mesh has ended.
    pub async fn addresses(&self) -> Option<Vec<SocketAddr>> {
        let (answer, asked) = oneshot::channel();
        self.asks.send(Ask::Addresses(answer)).await.ok()?;
        asked.await.ok()
    }

    /// The underlay is another than before: the largest packet of its interfaces, in bytes, and this
    /// node's addresses on it.
    pub async fn underlay(&self, mtu: u16, addresses: Vec<IpAddr>) {
        self.tell(Input::Link(LinkInput::UnderlayMtu(mtu))).await;
        self.tell(Input::Link(LinkInput::Addresses(addresses)))
            .await;
    }

    /// Names a target.
    pub async fn connect(&self, target: Target) {
        self.tell(Input::Connect(target)).await;
    }

    /// Takes a target back. A connection that it led to stays.
    pub async fn forget(&self, target: Target) {
        self.tell(Input::Forget(target)).await;
    }

    /// Sends gossip to one peer, or to all that can be reached.
    ///
    /// # Errors
    /// It is larger than a message.
    pub async fn gossip(
        &self,
        to: Option<PeerId>,
        channel: u8,
        payload: Vec<u8>,
    ) -> Result<(), GossipTooLarge> {
        if payload.len() > MAX_GOSSIP {
            return Err(GossipTooLarge {
                channel,
                len: payload.len(),
            });
        }
        self.tell(Input::SendGossip {
            to,
            channel,
            payload,
        })
        .await;
        Ok(())
    }

    /// Tells all which multicast groups this node wants.
    pub async fn groups(&self, groups: Groups) {
        self.tell(Input::Groups(groups)).await;
    }

    /// Tells what crossed the links, and which were refused a datagram as too long.
    pub async fn traffic(&self, activity: Vec<Activity>, too_big: Vec<(PeerId, Encapsulation)>) {
        if !activity.is_empty() {
            self.tell(Input::Link(LinkInput::Activity(activity))).await;
        }
        for (id, encapsulation) in too_big {
            self.tell(Input::Link(LinkInput::TooBig { id, encapsulation }))
                .await;
        }
    }

    /// Changes the passwords: the first is used, all are accepted. Connections that rest on none of
    /// them end.
    pub async fn set_passwords(&self, passwords: Vec<Psk>) {
        // A mesh that has ended needs no password.
        let _ = self.asks.send(Ask::Passwords(passwords)).await;
    }

    /// Tells all peers that this node leaves, and waits until they know or have had their time.
    pub async fn leave(&self) {
        let (answer, asked) = oneshot::channel();
        if self.asks.send(Ask::Leave(answer)).await.is_ok() {
            // An error says that the mesh has ended, which is what was asked for.
            let _ = asked.await;
        }
    }

    async fn tell(&self, input: Input) {
        // A mesh that has ended needs no input.
        let _ = self.asks.send(Ask::Tell(input)).await;
    }
}

/// What the mesh knows, at one moment.
#[derive(Debug, Clone)]
pub struct MeshView {
    /// All peers, by identity.
    pub peers: Vec<PeerView>,
    /// All targets.
    pub targets: Vec<TargetView>,
    /// The links that probes judge.
    pub links: Vec<LinkView>,
    /// Whether this node has left the network.
    pub left: bool,
    /// Counts since the start.
    pub counters: Counters,
    /// Connections of peers that did not read what was sent to them.
    pub cut_off: u64,
    /// Messages carried for others that were dropped because much waited for a peer already.
    pub cargo_dropped: u64,
    /// Gossip that the router did not take in time.
    pub gossip_dropped: u64,
}

/// What the mesh's task is asked.
#[derive(Debug)]
pub(super) enum Ask {
    View(oneshot::Sender<MeshView>),
    Addresses(oneshot::Sender<Vec<SocketAddr>>),
    Tell(Input),
    /// The passwords are others now.
    Passwords(Vec<Psk>),
    /// Answered when every peer has been told, or has had its time.
    Leave(oneshot::Sender<()>),
}
