//! One way to a peer: an encapsulation, directly or through a relay, and what its probes say.

use std::net::SocketAddr;
use std::time::Duration;

use super::budget::Urgency;
use super::candidates::Candidates;
use super::config::LinkTiming;
use super::meter::Meter;
use super::pmtu::Pmtu;
use super::view::{LinkState, Quality};

/// Probes that wait for an answer, or whose answer may still come; the oldest makes room.
const OUTSTANDING: usize = 24;
/// How long an answer that comes late is still known: it tells that the way is slow, not down.
const LATE: Duration = Duration::from_secs(5);
/// Probes in a row without an answer, at least, before a way is down.
const MISSES: u32 = 3;
/// Share of lost probes, in percent, from which a way is degraded. TCP is slow long before
/// (RFC 3649 §1), but a few in a hundred can be chance.
const LOSSY: u8 = 20;
/// Answers in a row that a way that was down owes before it is taken for a better one again; each
/// further failure within [`LinkTiming::settled`] adds one.
const TRUST: u32 = 2;
/// No way owes more.
const TRUST_MAX: u32 = 8;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Whether the way is alive; small.
    Alive,
    /// Whether an inner packet of this size passes.
    Size(u16),
    /// Whether the peer is at this address.
    Address,
}

/// A probe that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) nonce: u64,
    pub(super) at: Duration,
    /// When it counts as lost.
    pub(super) expires: Duration,
    pub(super) expired: bool,
    pub(super) endpoint: SocketAddr,
    pub(super) purpose: Purpose,
}

#[derive(Debug, Clone)]
pub(super) struct Way {
    pub(super) candidates: Candidates,
    pub(super) pmtu: Pmtu,
    pub(super) meter: Meter,
    state: LinkState,
    since: Duration,
    /// Why it is not up.
    reason: Option<String>,
    outstanding: Vec<Sent>,
    /// Probes in a row without an answer.
    misses: u32,
    /// When the first of them was sent.
    silent_from: Duration,
    /// Answers in a row.
    streak: u32,
    last_answer: Option<Duration>,
    /// When the last probe that was answered had been sent.
    last_answered: Option<Duration>,
    last_sent: Option<Duration>,
    /// Failures until it was well for long, and when the last one was.
    failures: u32,
    failed: Duration,
    /// When it came up.
    alive_since: Duration,
    /// The last error of the kernel, until an answer comes.
    error: Option<String>,
    /// A place in the budget, and the sort of it.
    pub(super) place: Option<(Duration, Urgency)>,
    /// The next probe is due whatever the rhythm.
    hurried: bool,
    /// When an address that the peer was heard from was last tried.
    pub(super) learned: Option<Duration>,
}

/// What an answer or its absence did to a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing that others see.
    None,
    CameUp,
    WentDown,
}

impl Way {
    pub(super) fn new(ceiling: u16, overhead: u16, now: Duration) -> Self {
        Self {
            candidates: Candidates::default(),
            pmtu: Pmtu::new(ceiling, overhead),
            meter: Meter::default(),
            state: LinkState::Connecting,
            since: now,
            reason: None,
            outstanding: Vec::new(),
            misses: 0,
            silent_from: now,
            streak: 0,
            last_answer: None,
            last_answered: None,
            last_sent: None,
            failures: 0,
            failed: now,
            alive_since: now,
            error: None,
            place: None,
            hurried: false,
            learned: None,
        }
    }

    pub(super) const fn state(&self) -> LinkState {
        self.state
    }

    pub(super) const fn since(&self) -> Duration {
        self.since
    }

    pub(super) fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    pub(super) const fn misses(&self) -> u32 {
        self.misses
    }

    /// Whether probes come back.
    pub(super) const fn is_alive(&self) -> bool {
        matches!(self.state, LinkState::Up | LinkState::Degraded)
    }

    /// Whether frames can take it: probes come back, and it is known how large they may be.
    pub(super) const fn is_usable(&self) -> bool {
        self.is_alive() && self.pmtu.mtu().is_some()
    }

    /// Whether it has been well for long enough to leave another way for it.
    pub(super) fn is_trusted(&self) -> bool {
        let owed = match self.failures {
            0 => 1,
            failures => (TRUST + failures - 1).min(TRUST_MAX),
        };
        self.is_usable() && self.misses == 0 && self.streak >= owed
    }

    /// Whether it may be about to fail: the next probe is sent without waiting for its turn.
    pub(super) const fn is_suspect(&self) -> bool {
        self.misses > 0
    }

    /// Whether it has been heard after a time.
    pub(super) fn heard_after(&self, time: Duration) -> bool {
        self.last_answer.is_some_and(|at| at > time)
    }

    /// Whether a probe was answered that was sent at a time, or later: then what was sent at that
    /// time and larger was lost for its size, and is not just late.
    pub(super) fn answers_what_is_sent_at(&self, time: Duration) -> bool {
        self.last_answered.is_some_and(|at| at >= time)
    }

    /// Since when nothing has been heard.
    pub(super) const fn silent_from(&self) -> Duration {
        self.silent_from
    }

    pub(super) const fn last_sent(&self) -> Option<Duration> {
        self.last_sent
    }

    pub(super) fn quality(&self) -> Quality {
        Quality {
            rtt: self.meter.smoothed(),
            rtt_min: self.meter.min(),
            loss: self.meter.loss(),
            mtu: self.pmtu.mtu(),
        }
    }

    /// Lets the next probe leave at once, unless the last one has only just left.
    pub(super) const fn hurry(&mut self) {
        self.hurried = true;
    }

    pub(super) const fn is_hurried(&self) -> bool {
        self.hurried
    }

    /// How long to wait for an answer.
    pub(super) fn patience(&self, timing: &LinkTiming) -> Duration {
        self.meter.smoothed().map_or(timing.answer, |rtt| {
            (rtt * 3).clamp(timing.answer_min, timing.answer)
        })
    }

    /// Notes a probe that is being sent.
    pub(super) fn send(&mut self, sent: Sent) {
        if self.outstanding.len() >= OUTSTANDING {
            self.outstanding.remove(0);
        }
        if !matches!(sent.purpose, Purpose::Size(_)) {
            self.last_sent = Some(sent.at);
            self.hurried = false;
        }
        self.outstanding.push(sent);
    }

    /// When the next probe counts as lost.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        let open = self.outstanding.iter().filter(|sent| !sent.expired);
        open.map(|sent| sent.expires).min()
    }

    /// The probe that an answer belongs to.
    pub(super) fn take(&mut self, nonce: u64) -> Option<Sent> {
        let at = self
            .outstanding
            .iter()
            .position(|sent| sent.nonce == nonce)?;
        Some(self.outstanding.remove(at))
    }

    /// Probes that are lost by now.
    pub(super) fn take_expired(&mut self, now: Duration) -> Vec<Sent> {
        self.outstanding.retain(|sent| sent.at + LATE > now);
        let mut lost = Vec::new();
        for sent in &mut self.outstanding {
            if !sent.expired && sent.expires <= now {
                sent.expired = true;
                lost.push(*sent);
            }
        }
        lost
    }

    /// This node did not run for a while: probes that were under way have as much longer.
    pub(super) fn forgive(&mut self, span: Duration) {
        for sent in &mut self.outstanding {
            sent.at += span;
            sent.expires += span;
        }
    }

    /// All that was under way is of no interest any more.
    pub(super) fn abandon(&mut self) {
        self.outstanding.clear();
        self.place = None;
    }

    /// An answer came to a probe that was sent to the address in use.
    pub(super) fn answered(&mut self, sent: &Sent, now: Duration) -> Change {
        let rtt = now.saturating_sub(sent.at);
        if sent.purpose == Purpose::Alive && !sent.expired {
            self.meter.answered(rtt);
        } else {
            self.meter.round_trip(rtt);
        }
        self.misses = 0;
        self.error = None;
        self.last_answer = Some(now);
        self.last_answered = self.last_answered.max(Some(sent.at));
        if !matches!(sent.purpose, Purpose::Size(_)) {
            self.streak = self.streak.saturating_add(1);
        }
        if self.is_alive() {
            return Change::None;
        }
        self.enter(LinkState::Up, None, now);
        self.alive_since = now;
        self.streak = 1;
        Change::CameUp
    }

    /// No answer came to a probe that asked whether the way is alive. `lost` says why it would be
    /// down.
    pub(super) fn missed(
        &mut self,
        sent: &Sent,
        lost: &str,
        dead: Duration,
        timing: &LinkTiming,
        now: Duration,
    ) -> Change {
        // One that was sent before the last answer was lost alone.
        let late = self.last_answer.is_some_and(|at| at >= sent.at);
        if sent.purpose == Purpose::Alive {
            self.meter.lost();
        }
        if late {
            return Change::None;
        }
        if self.misses == 0 {
            self.silent_from = sent.at;
        }
        self.misses = self.misses.saturating_add(1);
        self.streak = 0;
        let silent = now.saturating_sub(self.silent_from);
        if self.state == LinkState::Down || self.misses < MISSES || silent < dead {
            return Change::None;
        }
        self.fail(lost, timing, now);
        Change::WentDown
    }

    /// The kernel cannot send there.
    pub(super) fn failed_to_send(&mut self, error: String) {
        self.error = Some(error);
    }

    /// The way is of no use: nothing comes back, or it may not be used.
    pub(super) fn fail(&mut self, lost: &str, timing: &LinkTiming, now: Duration) {
        if self.is_alive() {
            self.distrust(timing, now);
        } else {
            self.failures = self.failures.max(1);
        }
        let reason = self.error.clone().unwrap_or_else(|| lost.to_owned());
        self.enter(LinkState::Down, Some(reason), now);
        self.streak = 0;
        self.meter.forget_loss();
        self.pmtu.interrupt(now);
        self.candidates.deselect();
    }

    /// It failed: it is not taken for a better one again before it has proven itself.
    pub(super) fn distrust(&mut self, timing: &LinkTiming, now: Duration) {
        self.forget_old_failures(timing, now);
        self.failures = self.failures.saturating_add(1);
        self.failed = now;
    }

    fn forget_old_failures(&mut self, timing: &LinkTiming, now: Duration) {
        if self.is_alive() && self.failed.max(self.alive_since) + timing.settled <= now {
            self.failures = 0;
        }
    }

    /// The peer is another run: what the last one did counts no more.
    pub(super) const fn forget_failures(&mut self) {
        self.failures = 0;
    }

    /// Frames go to another address of the peer from now on.
    pub(super) fn move_to(&mut self, endpoint: SocketAddr, now: Duration) {
        self.candidates.select(endpoint);
        self.meter.forget();
        self.pmtu.interrupt(now);
        self.misses = 0;
    }

    /// Up or degraded, by what is measured.
    pub(super) fn judge(&mut self, timing: &LinkTiming, now: Duration) {
        if !self.is_alive() {
            return;
        }
        let loss = self.meter.loss().filter(|loss| *loss >= LOSSY);
        // Loss explains large packets that vanish, too.
        if let Some(loss) = loss {
            let reason = format!("{loss} % of probes are lost");
            self.enter(LinkState::Degraded, Some(reason), now);
        } else if self.pmtu.is_failing() {
            let reason = "only small packets pass".to_owned();
            self.enter(LinkState::Degraded, Some(reason), now);
        } else {
            self.enter(LinkState::Up, None, now);
        }
        self.forget_old_failures(timing, now);
    }

    fn enter(&mut self, state: LinkState, reason: Option<String>, now: Duration) {
        if self.state != state {
            self.state = state;
            self.since = now;
        }
        self.reason = reason;
    }
}
