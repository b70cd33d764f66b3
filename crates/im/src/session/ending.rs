//! A session's stream is lost or closed, and the session ends or waits.

use super::Session;
use crate::account::Account;
use crate::effects::{Delivery, EdgeItem, Effect, Effects};
use crate::inbox;
use crate::item::{DetachReason, EdgeRef, SessionId, Ticket};
use crate::modules::push;
use crate::presence;
use crate::resume;
use store::Change;
use xmpp::StreamFault;

/// Ends sessions, and their streams with `fault`.
pub(super) fn close_where(
    account: &mut Account,
    which: impl Fn(&Session) -> bool,
    fault: &StreamFault,
    fx: &mut Effects,
) {
    let ids: Vec<SessionId> = account.sessions.iter().filter(|s| which(s)).map(|s| s.id).collect();
    for id in ids {
        let Some(session) = account.session_mut(id) else { continue };
        session.overrun = true;
        if let Some(edge) = session.edge.take() {
            fx.edge(edge, EdgeItem::Close(fault.clone()));
        }
        end(account, id, fx);
    }
}

/// A step ended in its middle: what is stored counts, and the session that asked for it is not gone on with.
pub fn panicked(account: &mut Account, id: Option<SessionId>, stored: store::AccountRecord, fx: &mut Effects) {
    account.restore_for_sessions(stored, fx);
    if let Some(id) = id {
        close_where(account, |s| s.id == id, &StreamFault::InternalError, fx);
    }
    for session in account.sessions.iter_mut().filter(|s| s.in_ledger) {
        session.ledger_touched = true;
    }
    account.watchers.again(account.now.mono_ms);
    inbox::batch_soon(account, fx);
}

/// The stream is gone: the session ends, or waits for resumption. XEP-0198 §7.
///
/// `deliveries` of those queued to the stream were written to it, `received` stanzas were taken in from it.
pub fn detached(
    account: &mut Account,
    id: SessionId,
    edge: EdgeRef,
    reason: DetachReason,
    deliveries: u64,
    received: u32,
    fx: &mut Effects,
) {
    inbox::written(account, id, edge, deliveries, fx);
    let Some(session) = account.session_mut(id) else { return };
    if session.edge != Some(edge) {
        return;
    }
    session.edge = None;
    let resumable = match &mut session.management {
        Some(management) => {
            management.received = received;
            management.id.is_some() && (reason == DetachReason::Lost || management.successor.is_some())
        }
        None => false,
    };
    if resumable {
        // What was queued before management was enabled is nobody's to acknowledge.
        let unwritten: Vec<Delivery> = session.unwritten.drain(..).map(|(_, delivery)| delivery).collect();
        resume::hibernate(account, id, fx);
        if !unwritten.is_empty() {
            inbox::return_untaken(account, id, unwritten, fx);
        }
    } else {
        push::lost(account, id, fx);
        end(account, id, fx);
    }
}

/// Ends a session for good: presence unavailable (`presence::session_ended`), the row of the ledger, and what it had
/// not taken goes elsewhere (`inbox::return_untaken`). RFC 6121 §4.5, XEP-0198 §4.
///
/// Its stream, if there is one still, was told by the caller.
pub fn end(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(index) = account.sessions.iter().position(|s| s.id == id) else { return };
    let mut session = account.sessions.remove(index);
    let mut untaken: Vec<Delivery> = session.unwritten.drain(..).map(|(_, delivery)| delivery).collect();
    if let Some(management) = session.management.take() {
        untaken.extend(resume::ended(account, management, fx));
    }
    let in_ledger = session.in_ledger;
    let resource: Box<str> = session.jid.resource_str().into();
    presence::session_ended(account, session, fx);
    let mut changes = inbox::marks(account, fx);
    if in_ledger {
        changes.push(Change::SessionDelete { account: account.jid.clone(), resource });
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
    inbox::return_untaken(account, id, untaken, fx);
}

/// Ends the sessions that passed a bound in this step.
pub(crate) fn end_overrun(account: &mut Account, fx: &mut Effects) {
    while std::mem::take(&mut account.overrun) {
        close_where(account, |s| s.overrun, &StreamFault::SlowReader, fx);
        fx.push(Effect::Count("sessions_overrun"));
    }
}

/// Ends all sessions, or that of one resource.
pub fn kick(account: &mut Account, resource: Option<&str>, fault: StreamFault, fx: &mut Effects) {
    close_where(account, |s| resource.is_none_or(|r| s.jid.resource_str() == r), &fault, fx);
}

#[cfg(test)]
mod tests {
    use crate::item::DetachReason;
    use crate::item::EdgeRef;
    use crate::item::Item;
    use crate::session::testing::{closed, juliet};
    use store::Change;
    use xmpp::StreamFault;

    // RFC 6121 §4.5.
    #[test]
    fn a_session_that_closes_its_stream_ends() {
        let mut juliet = juliet().with("home", 0).with("phone", 0);
        let fx = juliet.closes("home");
        assert_eq!(juliet.sessions.len(), 1);
        assert!(fx.delivered("phone")[0].contains("type='unavailable'"), "{:?}", fx.list);
        let deleted = |c: &Change| matches!(c, Change::SessionDelete { resource, .. } if **resource == *"home");
        assert!(fx.commits().iter().any(deleted));
    }

    #[test]
    fn a_stream_that_is_not_the_sessions_any_more_ends_nothing() {
        let mut juliet = juliet().with("home", 0);
        let session = juliet.id("home");
        let reason = DetachReason::Lost;
        let fx = juliet.item(Item::Detached { session, edge: EdgeRef(1), reason, deliveries: 0, received: 0 });
        assert!(fx.is_empty());
        assert_eq!(juliet.sessions.len(), 1);
    }

    #[test]
    fn kicking_a_resource_leaves_the_others() {
        let mut juliet = juliet().with("home", 0).with("phone", 0);
        let fault = StreamFault::Other(xmpp::StreamCondition::PolicyViolation, "by the operator");
        let fx = juliet.item(Item::Kick { resource: Some("home".into()), fault: fault.clone() });
        assert_eq!(closed(&fx), [("home".to_owned(), fault.clone())]);
        let fx = juliet.item(Item::Kick { resource: None, fault: fault.clone() });
        assert_eq!(closed(&fx), [("phone".to_owned(), fault)]);
        assert!(juliet.sessions.is_empty());
    }
}
