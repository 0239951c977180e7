//! The sessions with one peer, so that one replaces another and no datagram is lost.
//!
//! - `current`: what this node seals with is its key.
//! - `previous`: the one before; the other side may still seal with it, or have done so.
//! - `next`: the other side began it. This node seals with it only after a datagram has come that is
//!   sealed with it: not before is it known that the other side has the key.
//!
//! All three are there to open with.

use std::sync::Arc;
use std::time::Duration;

use super::keys::{DirectionKey, SessionKeys};
use super::secret::Psk;

/// What one handshake brought forth.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub(super) sealing: Arc<DirectionKey>,
    pub(super) opening: Arc<DirectionKey>,
    /// The password that it rests on.
    pub(super) psk: Psk,
    pub(super) began: Duration,
    /// When it is to be replaced.
    pub(super) renew: Duration,
    /// From when on nothing is sealed with it.
    pub(super) sealed_until: Duration,
    /// From when on nothing is opened with it. Later, since clocks and ways differ.
    pub(super) opened_until: Duration,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    previous: Option<Session>,
    current: Option<Session>,
    next: Option<Session>,
}

impl Slots {
    /// This node began a session, and the other side has answered.
    pub(super) fn completed(&mut self, session: Session) {
        self.previous = self.current.replace(session);
    }

    /// The other side began a session, and this node answers.
    pub(super) fn answered(&mut self, session: Session) {
        self.next = Some(session);
    }

    /// A datagram came that is sealed under this node's `epoch`. Whether that changed anything.
    pub(super) fn used(&mut self, epoch: u16) -> bool {
        if !matches!(&self.next, Some(next) if next.opening.epoch == epoch) {
            return false;
        }
        self.previous = self.current.take();
        self.current = self.next.take();
        true
    }

    /// Drops what may be used no more. Whether that changed anything.
    pub(super) fn expire(&mut self, now: Duration) -> bool {
        self.retain(|session| session.opened_until > now)
    }

    /// Keeps the sessions that rest on one of these passwords. Whether that changed anything.
    pub(super) fn keep(&mut self, passwords: &[Psk]) -> bool {
        self.retain(|session| passwords.contains(&session.psk))
    }

    fn retain(&mut self, stays: impl Fn(&Session) -> bool) -> bool {
        let mut changed = false;
        for slot in [&mut self.previous, &mut self.current, &mut self.next] {
            if slot.as_ref().is_some_and(|session| !stays(session)) {
                *slot = None;
                changed = true;
            }
        }
        changed
    }

    /// The session to seal with.
    pub(super) fn sealing(&self, now: Duration) -> Option<&Session> {
        self.current
            .as_ref()
            .filter(|session| session.sealed_until > now)
    }

    /// When something ends or is to be renewed next, after `now`.
    pub(super) fn deadline(&self, now: Duration) -> Option<Duration> {
        let current = self.current.iter();
        let current = current.flat_map(|session| [session.renew, session.sealed_until]);
        let all = self.all().map(|session| session.opened_until);
        current.chain(all).filter(|at| *at > now).min()
    }

    pub(super) fn has_epoch(&self, epoch: u16) -> bool {
        self.all().any(|session| session.opening.epoch == epoch)
    }

    pub(super) fn keys(&self, now: Duration) -> SessionKeys {
        SessionKeys {
            sealing: self
                .sealing(now)
                .map(|session| Arc::clone(&session.sealing)),
            opening: self
                .all()
                .map(|session| Arc::clone(&session.opening))
                .collect(),
        }
    }

    fn all(&self) -> impl Iterator<Item = &Session> {
        [&self.previous, &self.current, &self.next]
            .into_iter()
            .flatten()
    }
}
