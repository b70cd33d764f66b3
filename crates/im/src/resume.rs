//! Stream management at the session's end of it, XEP-0198: what was sent and not acknowledged, and resumption.

use crate::account::Account;
use crate::effects::{Delivery, EdgeItem, Effect, Effects, Managed};
use crate::item::{EdgeRef, ManagementRequest, SessionId, Ticket};
use crate::modules::{expiry, push};
use crate::policy::Limits;
use crate::session::{self, Session};
use crate::{inbox, late};
use std::collections::VecDeque;
use std::sync::Arc;
use store::{Change, SessionRow};
use xmpp::{MessageType, PresenceType, Stamp, Stanza, StanzaType, StreamCondition, StreamFault};

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
    /// There is no stream, and all that the last one took in is done: `received` is what a client may be told after a
    /// crash.
    pub settled: bool,
    /// So many of the unacknowledged, from the front, may have been sent; what is behind waits for a stream.
    pub sent_unacked: usize,
    /// Monotonic milliseconds when a hibernated session ends.
    pub ends_at: Option<u64>,
    /// Monotonic milliseconds when the stream was lost.
    pub lost_at: Option<u64>,
    /// A new stream that resumes, and its `h`: it waits until the old stream has said what it received, or until the
    /// ledger has forgotten that.
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

    /// What a client that cannot resume may be told that was received. Nothing, if it was not told of everything that
    /// became of it: a message whose error still waits here would count as done, and nobody would know that it was not.
    pub(crate) fn received_for_good(&self) -> Option<u32> {
        let is_refusal = |it: &Delivery| it.stanza.kind == StanzaType::Message(MessageType::Error);
        (!self.unacked.iter().any(is_refusal)).then_some(self.received)
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

    /// Queues what waits for a stream to come. Of one resource's presence only the last counts.
    pub(crate) fn push_unsent(&mut self, delivery: Delivery, limits: &Limits) -> bool {
        let is_broadcast = |stanza: &Stanza| {
            use PresenceType::{Available, Unavailable};
            matches!(stanza.kind, StanzaType::Presence(Available | Unavailable))
        };
        let to = |d: &Delivery| d.to.clone().or_else(|| d.stanza.to.clone());
        if is_broadcast(&delivery.stanza) {
            let same = |d: &Delivery| {
                is_broadcast(&d.stanza) && d.stanza.from == delivery.stanza.from && to(d) == to(&delivery)
            };
            let earlier = self.unacked.iter().skip(self.sent_unacked).position(same);
            if let Some(gone) = earlier.and_then(|at| self.unacked.remove(self.sent_unacked + at)) {
                self.unacked_bytes = self.unacked_bytes.saturating_sub(weight(&gone.stanza));
            }
        }
        self.push(delivery, limits)
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
    let waits = |m: &&mut Management| m.received == received && m.successor.is_none();
    let Some(management) = session.management.as_mut().filter(waits) else { return };
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
    let Some(management) = &mut session.management else { return };
    if std::mem::take(&mut management.settled) && in_ledger {
        changes.push(Change::ReceivedDelete { account: jid, resource });
    }
    fx.commit(changes, None, &Ticket::default());
    fx.push(Effect::TakeOver { session: id });
}

/// The ledger could not forget what was received: the session is not resumed, and the client hears how much that is.
pub(crate) fn not_taken_over(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(management) = account.session_mut(id).and_then(|s| s.management.as_mut()) else { return };
    // All that the stream had taken in was done before it was lost, else the commit would have passed.
    management.settled = true;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{DetachReason, Item};
    use crate::testing::{Fx, Scene, account, account_with};
    use proptest::prelude::*;
    use store::AccountRecord;
    use xmpp::write::Additions;
    use xmpp::{MessageType, Stanza};

    const NEW: EdgeRef = EdgeRef(900);
    const JULIET: &str = "juliet@capulet.example";

    fn asked(resume: bool, max: Option<u32>) -> ManagementRequest {
        ManagementRequest { resume, max, id: "sm1".into() }
    }

    /// Juliet at home, with stream management; resumption id `sm1`.
    fn juliet() -> Scene {
        let mut juliet = account(JULIET).with("home", 0);
        let session = juliet.id("home");
        juliet.item(Item::Manage { session, request: asked(true, None) });
        juliet
    }

    fn chat(body: &str) -> String {
        format!("<message from='romeo@montague.example/x' type='chat'><body>{body}</body></message>")
    }

    fn presence(status: &str) -> String {
        format!("<presence from='romeo@montague.example/x'><status>{status}</status></presence>")
    }

    // XEP-0198 §5: "the 'h' attribute … if the server still knows".
    #[test]
    fn after_a_crash_a_client_hears_how_much_of_what_it_sent_was_done_before() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        juliet.loses("home", 0, 5);
        // Not as long as something is on its way to the disk.
        assert!(rows(&juliet.after_ms(1_000)).iter().all(|row| row.received.is_none()));
        juliet.item(Item::Settled { session, received: 5 });
        let row = rows(&juliet.after_ms(1_000)).remove(0);
        assert_eq!(row.received, Some(5));

        let row = SessionRow { epoch: row.epoch - 1, ..row };
        let mut after = account_with(JULIET, AccountRecord { sessions: vec![row], ..AccountRecord::default() });
        assert_eq!(refused(&resumes(&mut after, 0)), Some(Some(5)));
        let other = after.item(Item::Resume { edge: NEW, id: "sm2".into(), h: 0 });
        assert_eq!(refused(&other), Some(None));
    }

    #[test]
    fn the_ledger_forgets_what_was_received_before_a_client_that_resumed_is_told_more() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        juliet.loses("home", 0, 5);
        juliet.item(Item::Settled { session, received: 5 });
        juliet.after_ms(1_000);
        let fx = resumes(&mut juliet, 0);
        let forgets = |it: &Change| matches!(it, Change::ReceivedDelete { resource, .. } if &**resource == "home");
        assert!(fx.commits().iter().any(forgets));
        let is_resumed = |e: &Effect| matches!(e, Effect::Edge { item: EdgeItem::Resumed { .. }, .. });
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), is_resumed));
        // What settles late is of a stream that is gone.
        juliet.item(Item::Settled { session, received: 5 });
        assert!(rows(&juliet.after_ms(1_000)).is_empty());
    }

    // On a full disk: after a crash it would hear of less than it was told.
    #[test]
    fn where_the_ledger_cannot_forget_the_client_is_not_resumed_and_hears_what_was_received() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        juliet.receive(&chat("1"));
        juliet.loses("home", 0, 5);
        juliet.item(Item::Settled { session, received: 5 });
        juliet.after_ms(1_000);
        let mut fx = Effects::default();
        let now = juliet.now;
        juliet.account.step(Item::Resume { edge: NEW, id: "sm1".into(), h: 0 }, now, &mut fx);
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        let fx = juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        assert_eq!((refused(&fx), resumed(&fx)), (Some(Some(5)), None));
        juliet.item(Item::CommitFailed {
            bounce: None,
            error: store::StoreError::Full,
            ticket: Ticket::default(),
            stored: None,
        });
        assert_eq!(rows(&juliet.after_ms(1_000)).remove(0).received, Some(5), "as it was before");
        assert_eq!(resumed(&resumes(&mut juliet, 0)), Some((5, 0)), "it may try again");
    }

    #[test]
    fn of_two_streams_that_resume_while_the_ledger_is_written_the_later_one_wins() {
        let mut juliet = juliet();
        juliet.loses("home", 0, 5);
        let mut fx = Effects::default();
        let now = juliet.now;
        for edge in [NEW, EdgeRef(901)] {
            juliet.account.step(Item::Resume { edge, id: "sm1".into(), h: 0 }, now, &mut fx);
        }
        assert_eq!(fx.list.iter().filter(|e| matches!(e, Effect::TakeOver { .. })).count(), 1);
        let closed = |e: &Effect| {
            matches!(e, Effect::Edge { edge: NEW, item: EdgeItem::Close(StreamFault::ReplacedByNewSession) })
        };
        assert!(fx.list.iter().any(closed));
        let session = juliet.id("home");
        assert_eq!(resumed(&juliet.item(Item::TakeOver { session })), Some((5, 0)));
        assert_eq!(juliet.sessions[0].edge, Some(EdgeRef(901)));
    }

    fn rows(fx: &Fx) -> Vec<SessionRow> {
        let put = |change| match change {
            Change::SessionPut { row, .. } => Some(row),
            _ => None,
        };
        fx.commits().into_iter().filter_map(put).collect()
    }

    fn resumes(juliet: &mut Scene, h: u32) -> Fx {
        juliet.item(Item::Resume { edge: NEW, id: "sm1".into(), h })
    }

    fn resumed(fx: &Fx) -> Option<(u32, u32)> {
        fx.edge_items().iter().find_map(|(_, item)| match item {
            EdgeItem::Resumed { received, sent, .. } => Some((*received, *sent)),
            _ => None,
        })
    }

    fn refused(fx: &Fx) -> Option<Option<u32>> {
        fx.edge_items().iter().find_map(|(_, item)| match item {
            EdgeItem::ResumeRefused { h } => Some(*h),
            _ => None,
        })
    }

    fn faults(fx: &Fx) -> Vec<StreamFault> {
        let fault = |(_, item): (String, &EdgeItem)| match item {
            EdgeItem::Close(fault) => Some(fault.clone()),
            _ => None,
        };
        fx.edge_items().into_iter().filter_map(fault).collect()
    }

    fn bodies(fx: &Fx, resource: &str) -> Vec<String> {
        let cut = |xml: String| {
            let (_, tail) = xml.split_once("<body>")?;
            tail.split_once("</body>").map(|(body, _)| body.to_owned())
        };
        fx.delivered(resource).into_iter().filter_map(cut).collect()
    }

    // XEP-0198 §3.
    #[test]
    fn enabling_is_answered_with_an_id_and_the_time_that_the_server_waits() {
        for (request, id, max) in [
            (asked(true, None), Some("sm1"), 300),
            (asked(true, Some(60)), Some("sm1"), 60),
            (asked(true, Some(100_000)), Some("sm1"), 900),
            (asked(false, None), None, 300),
        ] {
            let mut juliet = account(JULIET).with("home", 0);
            let session = juliet.id("home");
            let fx = juliet.item(Item::Manage { session, request });
            match &fx.edge_items()[..] {
                [(_, EdgeItem::Managed(managed))] => assert_eq!((managed.id.as_deref(), managed.max), (id, max)),
                other => panic!("{other:?}"),
            }
            let resumable = fx.list.iter().any(|e| matches!(e, Effect::Resumable { yes: true, .. }));
            assert_eq!(resumable, id.is_some());
        }
    }

    // XEP-0198 §3: "SHOULD respond with a stream error".
    #[test]
    fn enabling_twice_ends_the_stream() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        let fx = juliet.item(Item::Manage { session, request: asked(true, None) });
        assert!(matches!(faults(&fx)[..], [StreamFault::Other(StreamCondition::PolicyViolation, _)]));
    }

    // XEP-0198 §6.
    #[test]
    fn acknowledging_what_was_never_sent_ends_the_stream() {
        let mut juliet = juliet();
        juliet.receive(&chat("1"));
        assert_eq!(faults(&juliet.acks("home", 2)), [StreamFault::AckTooHigh { h: 2, sent: 1 }]);
        assert_eq!(faults(&juliet.acks("home", u32::MAX)), [StreamFault::AckTooHigh { h: u32::MAX, sent: 1 }]);
        assert!(faults(&juliet.acks("home", 1)).is_empty());
        // Acknowledging less than before is acknowledging nearly all numbers.
        assert_eq!(faults(&juliet.acks("home", 0)), [StreamFault::AckTooHigh { h: 0, sent: 1 }]);
    }

    #[test]
    fn what_is_acknowledged_is_taken_with_the_next_batch() {
        let mut juliet = juliet();
        let first = juliet.receive(&chat("1")).appended()[0].position;
        let second = juliet.receive(&chat("2")).appended()[0].position;
        assert!(juliet.acks("home", 1).taken().is_empty());
        assert!(juliet.after_ms(999).taken().is_empty());
        assert_eq!(juliet.after_ms(1).taken(), [first]);
        assert!(juliet.inbox.is_pending(second));
    }

    // XEP-0198 §7.
    #[test]
    fn a_session_that_lost_its_stream_is_still_there() {
        let mut juliet = juliet();
        let fx = juliet.loses("home", 0, 3);
        assert!(fx.told_to().is_empty() && fx.commits().is_empty());
        assert!(juliet.sessions[0].is_available() && juliet.sessions[0].edge.is_none());
    }

    #[test]
    fn a_session_that_closed_its_stream_is_not() {
        for reason in [DetachReason::Closed, DetachReason::Fault] {
            let mut juliet = juliet();
            let (session, edge) = (juliet.id("home"), juliet.edge("home"));
            let fx = juliet.item(Item::Detached { session, edge, reason, deliveries: 0, received: 0 });
            assert!(juliet.sessions.is_empty());
            assert!(fx.list.iter().any(|e| matches!(e, Effect::Resumable { yes: false, .. })));
        }
    }

    #[test]
    fn without_resumption_a_lost_stream_ends_the_session() {
        let mut juliet = account(JULIET).with("home", 0);
        let session = juliet.id("home");
        juliet.item(Item::Manage { session, request: asked(false, None) });
        juliet.loses("home", 0, 0);
        assert!(juliet.sessions.is_empty());
    }

    // XEP-0198 §5.
    #[test]
    fn a_resumed_session_is_given_in_order_what_it_did_not_handle() {
        let mut juliet = juliet();
        juliet.receive(&chat("1"));
        juliet.receive(&chat("2"));
        juliet.receive(&presence("3"));
        juliet.loses("home", 3, 17);
        assert!(juliet.receive(&chat("4")).written_to().is_empty());
        let fx = resumes(&mut juliet, 1);
        assert_eq!(resumed(&fx), Some((17, 1)));
        assert_eq!(fx.written_to(), ["home", "home", "home"]);
        let wire = fx.delivered("home");
        assert!(wire[0].contains("<body>2</body>"), "{wire:?}");
        assert!(wire[1].contains("<status>3</status>"), "{wire:?}");
        assert!(wire[2].contains("<body>4</body>"), "{wire:?}");
        let is_resumed = |e: &Effect| matches!(e, Effect::Edge { edge: NEW, item: EdgeItem::Resumed { .. } });
        assert!(fx.in_order(is_resumed, |e| matches!(e, Effect::Edge { item: EdgeItem::Deliver { .. }, .. })));
        assert_eq!(juliet.sessions[0].edge, Some(NEW));
        assert_eq!(juliet.sessions[0].queued, 3);
        // And the counters go on.
        juliet.receive(&chat("5"));
        assert!(faults(&juliet.acks("home", 5)).is_empty());
        assert_eq!(faults(&juliet.acks("home", 6)), [StreamFault::AckTooHigh { h: 6, sent: 5 }]);
    }

    #[test]
    fn a_message_that_is_sent_again_carries_the_same_stanza_id() {
        let mut juliet = juliet();
        let fx = juliet.receive(&chat("1"));
        let first = fx.delivered("home").remove(0);
        juliet.loses("home", 1, 0);
        assert_eq!(resumes(&mut juliet, 0).delivered("home"), [first]);
    }

    // XEP-0023, XEP-0079 §3.3.2: "if the message would be delivered … after the specified datetime".
    #[test]
    fn a_message_whose_time_is_over_before_the_stream_is_resumed_is_not_given_any_more() {
        let short = chat("short").replace("</body>", "</body><x xmlns='jabber:x:expire' seconds='60'/>");
        let mut juliet = juliet();
        juliet.receive(&short.replace("short", "sent"));
        juliet.loses("home", 1, 0);
        let position = juliet.receive(&short).appended()[0].position;
        juliet.receive(&chat("long"));
        juliet.after_ms(61_000);
        let fx = resumes(&mut juliet, 0);
        assert_eq!(bodies(&fx, "home"), ["sent", "long"], "what may have been read counts, and comes again");
        assert!(faults(&juliet.acks("home", 2)).is_empty());
        assert_eq!(faults(&juliet.acks("home", 3)), [StreamFault::AckTooHigh { h: 3, sent: 2 }]);
        assert!(juliet.after_ms(1_000).taken().contains(&position));
    }

    #[test]
    fn what_a_client_handled_before_it_lost_the_stream_is_taken() {
        let mut juliet = juliet();
        let position = juliet.receive(&chat("1")).appended()[0].position;
        juliet.loses("home", 1, 0);
        let fx = resumes(&mut juliet, 1);
        assert!(fx.written_to().is_empty());
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
    }

    #[test]
    fn of_presence_that_waits_for_a_stream_only_the_last_of_a_resource_is_kept() {
        let mut juliet = juliet();
        juliet.receive(&presence("sent"));
        juliet.loses("home", 1, 0);
        juliet.receive(&presence("here"));
        juliet.receive("<presence from='nurse@capulet.example/x'/>");
        juliet.receive(&chat("1"));
        juliet.receive(&presence("away"));
        let wire = resumes(&mut juliet, 0).delivered("home");
        let statuses: Vec<bool> = wire.iter().map(|xml| xml.contains("<status>here")).collect();
        assert_eq!(statuses, [false; 4], "{wire:?}");
        assert!(wire[0].contains("<status>sent") && wire[3].contains("<status>away"), "{wire:?}");
        assert!(faults(&juliet.acks("home", 4)).is_empty());
    }

    // XEP-0352 §5.2.
    #[test]
    fn a_resumed_stream_is_active() {
        let mut juliet = juliet().having("home", |s| s.inactive = true);
        juliet.loses("home", 0, 0);
        resumes(&mut juliet, 0);
        assert!(!juliet.sessions[0].inactive);
    }

    // XEP-0198 §5: "SHOULD send a 'conflict' stream error and close that stream".
    #[test]
    fn a_stream_that_is_still_open_is_closed_before_its_session_is_resumed() {
        let mut juliet = juliet();
        juliet.receive(&chat("1"));
        let old = juliet.edge("home");
        let fx = resumes(&mut juliet, 0);
        assert_eq!(faults(&fx), [StreamFault::ReplacedByNewSession]);
        assert_eq!(resumed(&fx), None);
        // What comes meanwhile is not lost, nor out of order.
        juliet.receive(&chat("2"));
        let session = juliet.id("home");
        let reason = DetachReason::Fault;
        let fx = juliet.item(Item::Detached { session, edge: old, reason, deliveries: 1, received: 5 });
        assert_eq!(resumed(&fx), Some((5, 0)));
        assert_eq!(bodies(&fx, "home"), ["1", "2"]);
        assert_eq!(juliet.sessions[0].edge, Some(NEW));
    }

    #[test]
    fn of_two_streams_that_resume_at_once_the_later_one_wins() {
        let mut juliet = juliet();
        let old = juliet.edge("home");
        resumes(&mut juliet, 0);
        let fx = juliet.item(Item::Resume { edge: EdgeRef(901), id: "sm1".into(), h: 0 });
        assert!(matches!(
            fx.list[..],
            [Effect::Edge { edge: NEW, item: EdgeItem::Close(StreamFault::ReplacedByNewSession) }]
        ));
        let session = juliet.id("home");
        let reason = DetachReason::Fault;
        juliet.item(Item::Detached { session, edge: old, reason, deliveries: 0, received: 0 });
        assert_eq!(juliet.sessions[0].edge, Some(EdgeRef(901)));
    }

    #[test]
    fn an_unknown_id_is_not_resumed() {
        let mut juliet = juliet();
        let fx = juliet.item(Item::Resume { edge: NEW, id: "other".into(), h: 0 });
        assert_eq!(refused(&fx), Some(None));
        assert_eq!(juliet.sessions.len(), 1);
    }

    // XEP-0198 §5, example 14.
    #[test]
    fn a_client_that_comes_too_late_hears_what_was_received() {
        let mut juliet = juliet();
        juliet.loses("home", 0, 23);
        assert_eq!(juliet.after_ms(299_999).told_to().len(), 0);
        assert_eq!(juliet.sessions.len(), 1);
        juliet.after_ms(1);
        assert!(juliet.sessions.is_empty());
        assert_eq!(refused(&resumes(&mut juliet, 0)), Some(Some(23)));
    }

    #[test]
    fn whoever_was_not_told_of_an_error_hears_nothing_of_what_was_received() {
        let mut juliet = juliet();
        let session = juliet.id("home");
        juliet.loses("home", 0, 23);
        juliet
            .receive("<message type='error' id='m23' from='romeo@montague.example' to='juliet@capulet.example/home'/>");
        juliet.item(Item::Settled { session, received: 23 });
        let rows = rows(&juliet.after_ms(1_000));
        assert!(rows.iter().all(|row| row.received.is_none()), "{rows:?}");
        juliet.after_ms(300_000);
        assert_eq!(refused(&resumes(&mut juliet, 0)), Some(None));
    }

    #[test]
    fn resuming_with_a_count_too_high_ends_the_new_stream_and_leaves_the_session() {
        let mut juliet = juliet();
        juliet.loses("home", 0, 0);
        let fx = resumes(&mut juliet, 9);
        assert_eq!(faults(&fx), [StreamFault::AckTooHigh { h: 9, sent: 0 }]);
        assert!(juliet.sessions[0].edge.is_none());
        assert_eq!(resumed(&resumes(&mut juliet, 0)), Some((0, 0)));
    }

    // LIMITS.md: 8 hibernated sessions.
    #[test]
    fn of_too_many_waiting_sessions_the_oldest_ends() {
        let mut juliet = account(JULIET);
        for n in 0..9 {
            let resource = format!("r{n}");
            juliet = juliet.with(&resource, 0);
            let session = juliet.id(&resource);
            let id = format!("sm-{n}").into();
            juliet.item(Item::Manage { session, request: ManagementRequest { resume: true, max: None, id } });
            juliet.now.mono_ms += 1;
            juliet.loses(&resource, 0, 0);
        }
        assert_eq!(juliet.sessions.len(), 8);
        assert!(juliet.sessions.iter().all(|s| s.jid.resource_str() != "r0"));
    }

    // XEP-0198 §4: "delivery to an alternate resource".
    #[test]
    fn what_an_ended_session_did_not_acknowledge_is_read_for_another_resource() {
        let mut juliet = juliet().with("phone", -1);
        let after = juliet.receive(&chat("1")).appended()[0].position - 1;
        juliet.loses("home", 1, 0);
        let juliet = juliet.having("phone", |s| s.priority = 0);
        let mut juliet = juliet;
        let fx = juliet.after_ms(300_000);
        assert!(
            fx.list.iter().any(|e| matches!(e, Effect::ReadPending { after: a, .. } if *a == after)),
            "{:?}",
            fx.list
        );
    }

    // XEP-0198 §4, RFC 6121 §8.5.3.2.3.
    #[test]
    fn an_iq_that_an_ended_session_did_not_acknowledge_is_answered_with_an_error() {
        let mut juliet = juliet().having("home", |s| s.directed.push(crate::testing::jid("romeo@montague.example/x")));
        let iq = "<iq type='get' id='i1' from='romeo@montague.example/x' to='juliet@capulet.example/home'>\
            <query xmlns='jabber:iq:version'/></iq>";
        assert_eq!(juliet.receive(iq).written_to(), ["home"]);
        juliet.loses("home", 1, 0);
        let fx = juliet.after_ms(300_000);
        let told = fx.told();
        let error = told.iter().find(|(_, xml)| xml.starts_with("<iq")).expect("an answer");
        assert_eq!(error.0, "romeo@montague.example/x");
        assert!(error.1.contains("<service-unavailable") && error.1.contains("id='i1'"), "{error:?}");
    }

    #[test]
    fn presence_that_an_ended_session_did_not_acknowledge_is_dropped() {
        let mut juliet = juliet().with("phone", 0);
        juliet.receive(&presence("here"));
        juliet.loses("home", 1, 0);
        let fx = juliet.after_ms(300_000);
        assert!(fx.delivered("phone").iter().all(|xml| !xml.contains("<status>here")), "{:?}", fx.list);
    }

    #[test]
    fn what_was_queued_before_management_was_enabled_is_not_counted() {
        let mut juliet = account(JULIET).with("home", 0);
        let early = juliet.receive(&chat("1")).appended()[0].position;
        let session = juliet.id("home");
        juliet.item(Item::Manage { session, request: asked(true, None) });
        juliet.receive(&chat("2"));
        assert_eq!(faults(&juliet.acks("home", 2)), [StreamFault::AckTooHigh { h: 2, sent: 1 }]);
        let edge = juliet.edge("home");
        juliet.item(Item::Written { session, edge, deliveries: 1 });
        assert_eq!(juliet.after_ms(1_000).taken(), [early]);
    }

    /// What a client and the wire between may do.
    #[derive(Debug, Clone)]
    enum Act {
        Send,
        /// The client reads so many and acknowledges all it read.
        Read(u8),
        Ack,
        Lose,
        Resume,
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            4 => Just(Act::Send),
            3 => (0u8..5).prop_map(Act::Read),
            2 => Just(Act::Ack),
            1 => Just(Act::Lose),
            1 => Just(Act::Resume),
        ];
        proptest::collection::vec(act, 1..200)
    }

    proptest! {
        // The model: a sequence of numbers, how many the client has read, how many of these it acknowledged.
        #[test]
        fn every_stanza_is_handled_once_and_in_order_whatever_breaks(acts in acts(), start in any::<u32>()) {
            let limits = Limits::default();
            let mut management = Management { acked: start, ..Management::default() };
            let (mut sent, mut handled): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
            // On the wire, not read yet.
            let mut wire: VecDeque<u32> = VecDeque::new();
            let mut connected = true;
            let number = |d: &Delivery| d.stanza.id.as_deref().and_then(|id| id.parse::<u32>().ok()).expect("a number");
            for act in acts {
                match act {
                    Act::Send => {
                        let n = sent.len() as u32;
                        let stanza = Arc::new(Stanza::message(MessageType::Chat).with_id(&n.to_string()));
                        let delivery = Delivery { stanza, to: None, more: Additions::default(), position: None };
                        prop_assert!(management.push(delivery, &limits));
                        sent.push(n);
                        if connected {
                            wire.push_back(n);
                        }
                    }
                    Act::Read(count) => {
                        for _ in 0..count {
                            handled.extend(wire.pop_front());
                        }
                    }
                    Act::Ack if connected => {
                        let h = start.wrapping_add(handled.len() as u32);
                        let acked = management.ack(h);
                        prop_assert!(acked.is_ok());
                        prop_assert!(management.ack(h.wrapping_add(management.unacked.len() as u32 + 1)).is_err());
                    }
                    Act::Lose => {
                        connected = false;
                        wire.clear();
                    }
                    Act::Resume if !connected => {
                        let h = start.wrapping_add(handled.len() as u32);
                        prop_assert!(management.ack(h).is_ok());
                        prop_assert_eq!(management.acked, h);
                        wire.extend(management.unacked.iter().map(number));
                        connected = true;
                    }
                    Act::Ack | Act::Resume => {}
                }
                prop_assert_eq!(management.sent(), start.wrapping_add(sent.len() as u32));
                let bytes: usize = management.unacked.iter().map(|d| weight(&d.stanza)).sum();
                prop_assert_eq!(management.unacked_bytes, bytes);
                prop_assert_eq!(&handled[..], &sent[..handled.len()]);
            }
        }
    }
}
