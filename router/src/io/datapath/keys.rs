//! Keys between the session layer and the workers: what is seen of them leaves the workers by a bounded
//! queue, and the sealers that workers use are found here by peer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fastpath::{KeyNews, Sealer};
use hostnet::poll::Waker;
use wire::PeerId;
use wire::sleeve::{Header, Kind};

use super::Shared;
use super::probes::Prober;

/// Events that wait for the session layer; more are dropped and counted, and come again by themselves:
/// frames ask again, initiations are repeated.
pub const QUEUE: usize = 1024;

/// What workers see of keys.
#[derive(Debug)]
pub enum SealEvent {
    /// A frame waits for a session with this peer.
    Want(PeerId),
    /// A probe was to go to this peer, which there is no session with, at this address of its own or of
    /// a relay's.
    WantAt(PeerId, SocketAddr),
    /// A key was used, or is missing.
    News(PeerId, KeyNews),
    /// A message of a handshake, of which nothing is proven.
    Handshake {
        /// Who made it, as the header says.
        from: PeerId,
        /// Where it came from on the underlay.
        origin: SocketAddr,
        /// What follows the header.
        message: Vec<u8>,
    },
}

/// The sealers of all peers that have a link or a session; where this node has no password, none.
#[derive(Debug, Default)]
pub(super) struct Sealers {
    known: Mutex<BTreeMap<PeerId, Arc<Sealer>>>,
    /// Frames that waited for the key of a peer that has no link any more.
    forsaken: AtomicU64,
}

impl Sealers {
    /// The sealer of a peer, a new one without keys if it has none.
    pub(super) fn get(&self, peer: PeerId) -> Arc<Sealer> {
        Arc::clone(self.lock().entry(peer).or_default())
    }

    /// The sealer of a peer, if it has one.
    pub(super) fn find(&self, peer: PeerId) -> Option<Arc<Sealer>> {
        self.lock().get(&peer).cloned()
    }

    /// Forgets those without a key that nothing else holds.
    pub(super) fn tidy(&self) {
        self.lock().retain(|_, sealer| {
            let used = Arc::strong_count(sealer) > 1 || !sealer.is_empty();
            if !used {
                // A worker may have held a frame on a link that was just gone.
                self.forsaken.fetch_add(sealer.forsake(), Relaxed);
            }
            used
        });
    }

    /// Drops and counts the frames that wait for the key of a peer whose link is gone.
    pub(super) fn forsake(&self, peer: PeerId) {
        if let Some(sealer) = self.find(peer) {
            self.forsaken.fetch_add(sealer.forsake(), Relaxed);
        }
    }

    /// Frames that were dropped so.
    pub(super) fn forsaken(&self) -> u64 {
        self.forsaken.load(Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Arc<Sealer>>> {
        // Every change leaves the table whole.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The session layer's hold on the data path.
#[derive(Debug, Clone)]
pub struct SealHandle {
    pub(super) sealers: Arc<Sealers>,
    pub(super) shared: Arc<Shared>,
    pub(super) prober: Prober,
    pub(super) waker: Arc<Waker>,
}

impl SealHandle {
    /// The sealer of a peer.
    pub fn sealer(&self, peer: PeerId) -> Arc<Sealer> {
        self.sealers.get(peer)
    }

    /// Forgets sealers that are of no use any more. To be called every few seconds.
    pub fn tidy(&self) {
        self.sealers.tidy();
    }

    /// Lets the frames that wait leave for those peers that have a key now.
    pub fn resume(&self) {
        self.shared.resume.store(true, Relaxed);
        self.waker.wake();
    }

    /// Sends a message of a handshake to an address of the peer or of a relay.
    pub fn send_handshake(&self, to: PeerId, at: SocketAddr, message: &[u8]) {
        let header = Header {
            kind: Kind::HANDSHAKE,
            ..Header::plain(self.prober.me, to)
        };
        self.send(to, at, &[&header.bytes()[..], message].concat());
    }

    /// Sends an empty sealed frame, by which the peer learns that this node has the key.
    pub fn confirm(&self, to: PeerId, at: SocketAddr) {
        if let Some(datagram) = self.sealer(to).datagram(self.prober.me, to, &[]) {
            self.send(to, at, &datagram);
        }
    }

    /// Where frames for a peer go.
    pub fn endpoint(&self, peer: PeerId) -> Option<SocketAddr> {
        let forwarding = self.shared.forwarding.load();
        Some(forwarding.link(forwarding.peer(peer)?)?.endpoint)
    }

    fn send(&self, to: PeerId, at: SocketAddr, datagram: &[u8]) {
        if let Err(error) = self.prober.send_sleeve(at, datagram) {
            tracing::debug!(%to, %at, %error, "a handshake was not sent");
        }
    }
}
