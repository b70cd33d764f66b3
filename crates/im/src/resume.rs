//! Stream management at the session's end of it, XEP-0198: how it begins, and resumption. [`management`]: what was sent and
//! not acknowledged.

mod management;
#[cfg(test)]
mod tests;

pub use management::Management;
pub(crate) use management::weight;

use crate::account::Account;
use crate::effects::{Delivery, EdgeItem, Effect, Effects, Managed};
use crate::item::{EdgeRef, ManagementRequest, SessionId, Ticket};
use crate::modules::{expiry, push};
use crate::session::{self, Session};
use crate::{inbox, late};
use std::collections::VecDeque;
use store::{Change, SessionRow};
use xmpp::{Stamp, StreamCondition, StreamFault};

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
    let location = account.policy.resume_location.clone().filter(|_| id.is_some());
    Managed { id, max, location }
}

/// `<enable/>` on a stream that is bound. A second one ends the stream. XEP-0198 §3.
pub fn manage(account: &mut Account, id: SessionId, request: ManagementRequest, fx: &mut Effects) {
    let Some(index) = account.sessions.iter().position(|s| s.id == id) else { return };
    let Some(edge) = account.sessions[index].edge else { return };
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
    late::follow(account, id, fx);
    if in_ledger {
        // The row names the resumption id.
        session::touch_ledger(account, id, fx);
    }
}

/// `<a h=…/>`: what the client has handled is delivered. XEP-0198 §4.
pub fn acked(account: &mut Account, id: SessionId, h: u32, fx: &mut Effects) {
    let Some(session) = account.session_mut(id) else { return };
    let Some(management) = &mut session.management else { return };
    match management.ack(h) {
        Ok(deliveries) => {
            inbox::taken(account, deliveries.iter().filter_map(|d| d.position), fx);
            inbox::go_on(account, id, fx);
            late::follow(account, id, fx);
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
    let Some(management) = account.session_mut(id).and_then(|s| s.management.as_mut()) else { return };
    if management.successor.is_some() {
        let behind = inbox::marks(account, fx);
        fx.commit(behind, None, &Ticket::default());
        take_over(account, id, fx);
        return;
    }
    let ends_at = now + u64::from(management.max_seconds) * 1_000;
    management.ends_at = Some(ends_at);
    management.lost_at = Some(now);
    management.sent_unacked = management.unacked.len();
    fx.push(Effect::WakeAt { mono_ms: ends_at });
    push::lost(account, id, fx);
    while account.sessions.iter().filter(|s| is_hibernated(s)).count()
        > account.policy.limits.hibernated_per_account_max
    {
        let Some(oldest) = oldest_hibernated(account) else {
            break;
        };
        fx.push(Effect::Limit("hibernated_per_account_max"));
        session::end(account, oldest, fx);
    }
}

/// All that the lost stream took in is done. Unless a new one has come, the ledger remembers how much that was.
pub(crate) fn settled(account: &mut Account, id: SessionId, received: u32, fx: &mut Effects) {
    let Some(session) = account.session_mut(id).filter(|s| is_hibernated(s)) else { return };
    let Some(management) = session.management.as_mut().filter(|m| m.received == received) else { return };
    management.settled = true;
    session::touch_ledger(account, id, fx);
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
        let received = received_by(account, id);
        fx.edge(edge, EdgeItem::ResumeRefused { h: received });
        return;
    };
    let (id, old) = (session.id, session.edge);
    let Some(management) = &mut session.management else { return };
    let earlier = management.successor.replace((edge, h)).map(|(edge, _)| edge);
    // The old stream says in `Detached` what it received; `hibernate` finds the successor then.
    if let Some(replaced) = earlier.or(old) {
        fx.edge(replaced, EdgeItem::Close(StreamFault::ReplacedByNewSession));
    }
    if old.is_none() && earlier.is_none() {
        forget_received(account, id, fx);
    }
}

/// Before the client can be told that more was received, the ledger says no more what it may say now. That does not pass
/// a full disk: after a crash the client would hear of less than it was told.
fn forget_received(account: &mut Account, id: SessionId, fx: &mut Effects) {
    // What was received is on its way to the disk: it is told behind that.
    let mut changes = inbox::marks(account, fx);
    let jid = account.jid.clone();
    let Some(session) = account.session_mut(id) else { return };
    let in_ledger = session.in_ledger;
    let resource = session.jid.resource_str().into();
    let Some(management) = &session.management else { return };
    if management.settled && in_ledger {
        changes.push(Change::ReceivedDelete { account: jid, resource });
    }
    fx.commit(changes, None, &Ticket::default());
    fx.push(Effect::TakeOver { session: id });
}

/// The ledger could not forget what was received: the session is not resumed, and the client hears how much that is.
pub(crate) fn not_taken_over(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(management) = account.session_mut(id).and_then(|s| s.management.as_mut()) else { return };
    let h = management.received_for_good();
    if let Some((edge, _)) = management.successor.take() {
        fx.edge(edge, EdgeItem::ResumeRefused { h });
    }
}

/// What a session had received that cannot be resumed any more: it ended lately, or with an earlier process.
fn received_by(account: &Account, id: &str) -> Option<u32> {
    let ended = account.ended.iter().find(|(ended, _)| **ended == *id).map(|(_, received)| *received);
    let of_before = || {
        let hash = SessionRow::hash_of_resume_id(id);
        account.ledger.iter().find(|row| row.resume_id_hash == hash)?.received
    };
    ended.or_else(of_before)
}

/// Nothing is attached any more: the new stream, if there is one, hears what its client did not handle.
pub(crate) fn take_over(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let now = account.now.mono_ms;
    let Some(session) = account.session_mut(id).filter(|s| s.edge.is_none()) else { return };
    let Some(management) = &mut session.management else { return };
    let Some((edge, h)) = management.successor.take() else { return };
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
    management.settled = false;
    let sent = management.sent_unacked.saturating_sub(deliveries.len());
    drop_overdue(account, id, sent, fx);
    let Some(session) = account.session_mut(id) else { return };
    let Some(management) = &mut session.management else { return };
    session.edge = Some(edge);
    // XEP-0352 §5.2: a resumed stream starts active.
    session.inactive = false;
    session.queued = management.unacked.len() as u64;
    session.written = 0;
    let resumed = EdgeItem::Resumed {
        session: id,
        jid: session.jid.clone(),
        id: management.id.clone().unwrap_or_default(),
        received: management.received,
        sent: management.acked,
        stream: session.stream,
    };
    let unacked = session.management.iter().flat_map(|m| m.unacked.iter().cloned()).collect::<Vec<_>>();
    fx.edge(edge, resumed);
    for (number, delivery) in (1..).zip(unacked) {
        fx.edge(edge, EdgeItem::Deliver { number, delivery });
    }
    session::release(account, id, fx);
    inbox::taken(account, deliveries.iter().filter_map(|d| d.position), fx);
    inbox::go_on(account, id, fx);
    late::follow(account, id, fx);
}

/// Messages whose time was over while they waited for a stream. The first `sent` may have been read before, and count.
fn drop_overdue(account: &mut Account, id: SessionId, sent: usize, fx: &mut Effects) {
    let Some(management) = account.session(id).and_then(|s| s.management.as_ref()) else { return };
    let waited: Vec<Delivery> =
        management.unacked.iter().skip(sent).filter(|d| d.position.is_some()).cloned().collect();
    for delivery in waited {
        let Some(position) = delivery.position else { continue };
        if !expiry::is_over(account, &delivery.stanza, Stamp(position), fx) {
            continue;
        }
        if let Some(management) = account.session_mut(id).and_then(|s| s.management.as_mut()) {
            management.forget(&delivery);
        }
        inbox::too_late(account, position, id, fx);
    }
}

/// The session ended: nobody can resume it. Gives what was not acknowledged, oldest first.
pub(crate) fn ended(account: &mut Account, management: Management, fx: &mut Effects) -> VecDeque<Delivery> {
    let received = management.received_for_good();
    if let Some(id) = management.id {
        fx.push(Effect::Resumable { id: id.clone(), yes: false });
        if let Some(received) = received {
            if account.ended.len() >= ENDED_MAX {
                account.ended.pop_front();
            }
            account.ended.push_back((id, received));
        }
    }
    if let Some((edge, _)) = management.successor {
        fx.edge(edge, EdgeItem::ResumeRefused { h: received });
    }
    management.unacked
}

/// Resumption ids of ended sessions that an account remembers, to tell a late client what was received.
const ENDED_MAX: usize = 8;
