//! Stream management at the session's end of it, XEP-0198: what was sent and not acknowledged, and resumption.

use crate::account::Account;
use crate::effects::{Delivery, EdgeItem, Effect, Effects, Managed};
use crate::inbox;
use crate::item::{EdgeRef, ManagementRequest, SessionId};
use crate::policy::Limits;
use crate::session::{self, Session};
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::{Stanza, StreamCondition, StreamFault};

/// Counters of one managed session. RFC numbers wrap at 2^32.
#[derive(Debug, Default)]
pub struct Management {
    /// `None`: acknowledgements only, no resumption.
    pub id: Option<Box<str>>,
    pub max_seconds: u32,
    /// Sent and not acknowledged, oldest first; bounded by `unacked_stanzas_max`, `unacked_bytes_max`.
    pub unacked: VecDeque<Delivery>,
    pub unacked_bytes: usize,
    /// The `h` the client acknowledged last.
    pub acked: u32,
    /// Inbound `h` when the stream was lost.
    pub received: u32,
    /// Monotonic milliseconds when a hibernated session ends.
    pub ends_at: Option<u64>,
    /// Monotonic milliseconds when the stream was lost.
    pub lost_at: Option<u64>,
    /// A new stream that resumes, and its `h`: it waits until the old stream has said what it received.
    pub successor: Option<(EdgeRef, u32)>,
}

/// What a queued stanza costs besides its own bytes.
const OVERHEAD_BYTES: usize = 128;

pub(crate) fn weight(stanza: &Stanza) -> usize {
    stanza.weight() + OVERHEAD_BYTES
}

impl Management {
    /// Our outbound counter: stanzas sent since management was enabled. XEP-0198 §4.
    pub fn sent(&self) -> u32 {
        self.acked.wrapping_add(self.unacked.len() as u32)
    }

    /// May so many bytes be queued? One stanza always may.
    pub(crate) fn fits(&self, weight: usize, limits: &Limits) -> bool {
        self.unacked.is_empty()
            || (self.unacked.len() < limits.unacked_stanzas_max
                && self.unacked_bytes + weight <= limits.unacked_bytes_max)
    }

    /// Queues what must be acknowledged; false if that would pass a bound (then it is not queued).
    pub fn push(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let weight = weight(&delivery.stanza);
        let fits = self.fits(weight, limits);
        if fits {
            self.unacked_bytes += weight;
            self.unacked.push_back(delivery);
        }
        fits
    }

    /// The client has handled `h` stanzas: those that this acknowledges now, oldest first.
    ///
    /// # Errors
    /// `AckTooHigh` if so many were never sent; nothing changes then. XEP-0198 §6.
    pub fn ack(&mut self, h: u32) -> Result<Vec<Delivery>, StreamFault> {
        let newly = h.wrapping_sub(self.acked) as usize;
        if newly > self.unacked.len() {
            return Err(StreamFault::AckTooHigh { h, sent: self.sent() });
        }
        self.acked = h;
        let acked: Vec<Delivery> = self.unacked.drain(..newly).collect();
        self.unacked_bytes = self.unacked_bytes.saturating_sub(acked.iter().map(|d| weight(&d.stanza)).sum());
        Ok(acked)
    }

    /// Forgets a stanza that was queued while no stream was there.
    pub fn forget_stanza(&mut self, stanza: &Arc<Stanza>) {
        let before = self.unacked.len();
        self.unacked.retain(|d| !Arc::ptr_eq(&d.stanza, stanza));
        let gone = (before - self.unacked.len()) * weight(stanza);
        self.unacked_bytes = self.unacked_bytes.saturating_sub(gone);
    }

    /// A delivery that did not reach the stream, and never will. If an `h` covered it, one more is acknowledged.
    pub fn forget(&mut self, delivery: &Delivery) {
        let same = |d: &Delivery| Arc::ptr_eq(&d.stanza, &delivery.stanza) && d.position == delivery.position;
        let at = self.unacked.iter().position(same).unwrap_or(0);
        if let Some(gone) = self.unacked.remove(at) {
            self.unacked_bytes = self.unacked_bytes.saturating_sub(weight(&gone.stanza));
        }
    }
}

/// Turns management on for a session whose stream asked. XEP-0198 §3.
pub(crate) fn enable(
    account: &Account,
    session: &mut Session,
    request: ManagementRequest,
    fx: &mut Effects,
) -> Managed {
    let limits = &account.policy.limits;
    let wanted = request.max.filter(|max| *max > 0).unwrap_or(limits.resume_seconds_default);
    let max = wanted.min(limits.resume_seconds_max);
    let id = (request.resume && max > 0).then_some(request.id);
    if let Some(id) = &id {
        fx.push(Effect::Resumable { id: id.clone(), yes: true });
    }
    session.management = Some(Management { id: id.clone(), max_seconds: max, ..Management::default() });
    Managed { id, max }
}

/// `<enable/>` on a stream that is bound. A second one ends the stream. XEP-0198 §3.
pub fn manage(account: &mut Account, id: SessionId, request: ManagementRequest, fx: &mut Effects) {
    let Some(index) = account.sessions.iter().position(|s| s.id == id) else {
        return;
    };
    let Some(edge) = account.sessions[index].edge else {
        return;
    };
    if account.sessions[index].management.is_some() {
        let fault = StreamFault::Other(StreamCondition::PolicyViolation, "stream management is enabled already");
        fx.edge(edge, EdgeItem::Close(fault));
        return;
    }
    let mut session = account.sessions.remove(index);
    let managed = enable(account, &mut session, request, fx);
    let in_ledger = session.in_ledger;
    account.sessions.insert(index, session);
    fx.edge(edge, EdgeItem::Managed(managed));
    if in_ledger {
        // The row names the resumption id.
        session::touch_ledger(account, id, fx);
    }
}

/// `<a h=…/>`: what the client has handled is delivered. XEP-0198 §4.
pub fn acked(account: &mut Account, id: SessionId, h: u32, fx: &mut Effects) {
    let Some(session) = account.session_mut(id) else {
        return;
    };
    let Some(management) = &mut session.management else {
        return;
    };
    match management.ack(h) {
        Ok(deliveries) => {
            inbox::taken(account, deliveries.iter().filter_map(|d| d.position), fx);
            inbox::go_on(account, id, fx);
        }
        Err(fault) => {
            if let Some(edge) = session.edge {
                fx.edge(edge, EdgeItem::Close(fault));
            }
        }
    }
}

/// The stream is lost and the session waits. At most `hibernated_per_account_max` do; the oldest goes first.
pub(crate) fn hibernate(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let now = account.now.mono_ms;
    let Some(management) = account.session_mut(id).and_then(|s| s.management.as_mut()) else {
        return;
    };
    if let Some((edge, h)) = management.successor.take() {
        take_over(account, id, edge, h, fx);
        return;
    }
    let ends_at = now + u64::from(management.max_seconds) * 1_000;
    management.ends_at = Some(ends_at);
    management.lost_at = Some(now);
    fx.push(Effect::WakeAt { mono_ms: ends_at });
    while account.sessions.iter().filter(|s| is_hibernated(s)).count()
        > account.policy.limits.hibernated_per_account_max
    {
        let Some(oldest) = oldest_hibernated(account) else {
            break;
        };
        session::end(account, oldest, fx);
    }
}

fn is_hibernated(session: &Session) -> bool {
    session.edge.is_none() && session.management.as_ref().is_some_and(|m| m.ends_at.is_some())
}

/// The session that has waited longest for its resumption.
pub(crate) fn oldest_hibernated(account: &Account) -> Option<SessionId> {
    let waiting = account.sessions.iter().filter(|s| is_hibernated(s));
    waiting.min_by_key(|s| s.management.as_ref().and_then(|m| m.lost_at)).map(|s| s.id)
}

/// Sessions whose time is over end. XEP-0198 §4.
pub(crate) fn end_overdue(account: &mut Account, fx: &mut Effects) {
    let now = account.now.mono_ms;
    let overdue =
        |s: &&Session| s.edge.is_none() && s.management.as_ref().and_then(|m| m.ends_at).is_some_and(|at| at <= now);
    let ids: Vec<SessionId> = account.sessions.iter().filter(overdue).map(|s| s.id).collect();
    for id in ids {
        session::end(account, id, fx);
    }
}

/// When the next hibernated session ends, monotonic milliseconds.
pub(crate) fn next_end(account: &Account) -> Option<u64> {
    let waiting = account.sessions.iter().filter(|s| is_hibernated(s));
    waiting.filter_map(|s| s.management.as_ref()?.ends_at).min()
}

/// `<resume/>`: a new stream takes a session over. XEP-0198 §5.
pub fn resume(account: &mut Account, edge: EdgeRef, id: &str, h: u32, fx: &mut Effects) {
    let owner = |s: &&mut Session| s.management.as_ref().is_some_and(|m| m.id.as_deref() == Some(id));
    let Some(session) = account.sessions.iter_mut().find(owner).filter(|s| !s.overrun) else {
        let received = account.ended.iter().find(|(ended, _)| **ended == *id).map(|(_, received)| *received);
        fx.edge(edge, EdgeItem::ResumeRefused { h: received });
        return;
    };
    let session_id = session.id;
    let Some(old) = session.edge else {
        take_over(account, session_id, edge, h, fx);
        return;
    };
    // The old stream says in `Detached` what it received; `hibernate` finds the successor then.
    let Some(management) = &mut session.management else {
        return;
    };
    match management.successor.replace((edge, h)) {
        Some((earlier, _)) => fx.edge(earlier, EdgeItem::Close(StreamFault::ReplacedByNewSession)),
        None => fx.edge(old, EdgeItem::Close(StreamFault::ReplacedByNewSession)),
    }
}

/// Nothing is attached any more: the new stream hears what its client did not handle.
fn take_over(account: &mut Account, id: SessionId, edge: EdgeRef, h: u32, fx: &mut Effects) {
    let now = account.now.mono_ms;
    let Some(session) = account.session_mut(id) else {
        return;
    };
    let Some(management) = &mut session.management else {
        return;
    };
    let deliveries = match management.ack(h) {
        Ok(deliveries) => deliveries,
        Err(fault) => {
            // The session keeps waiting for a client that can count.
            let ends_at = *management.ends_at.get_or_insert(now + u64::from(management.max_seconds) * 1_000);
            management.lost_at.get_or_insert(now);
            fx.edge(edge, EdgeItem::Close(fault));
            fx.push(Effect::WakeAt { mono_ms: ends_at });
            return;
        }
    };
    management.ends_at = None;
    management.lost_at = None;
    session.edge = Some(edge);
    // XEP-0352 §5.2: a resumed stream starts active.
    session.inactive = false;
    session.queued = management.unacked.len() as u64;
    let resumed = EdgeItem::Resumed {
        session: id,
        jid: session.jid.clone(),
        id: management.id.clone().unwrap_or_default(),
        received: management.received,
        sent: management.acked,
        stream: session.stream,
    };
    fx.edge(edge, resumed);
    for delivery in &management.unacked {
        fx.edge(edge, EdgeItem::Deliver(delivery.clone()));
    }
    inbox::taken(account, deliveries.iter().filter_map(|d| d.position), fx);
    inbox::go_on(account, id, fx);
}

/// The session ended: nobody can resume it. Gives what was not acknowledged, oldest first.
pub(crate) fn ended(account: &mut Account, management: Management, fx: &mut Effects) -> VecDeque<Delivery> {
    if let Some(id) = management.id {
        fx.push(Effect::Resumable { id: id.clone(), yes: false });
        if account.ended.len() >= ENDED_MAX {
            account.ended.pop_front();
        }
        account.ended.push_back((id, management.received));
    }
    if let Some((edge, _)) = management.successor {
        fx.edge(edge, EdgeItem::ResumeRefused { h: Some(management.received) });
    }
    management.unacked
}

/// Resumption ids of ended sessions that an account remembers, to tell a late client what was received.
const ENDED_MAX: usize = 8;
