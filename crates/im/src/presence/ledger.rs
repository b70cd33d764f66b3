//! The session ledger: who must be told that a resource is gone, should the server not live to do it. DESIGN.md D11.

use super::{own, plain, shown};
use crate::account::Account;
use crate::effects::Effects;
use crate::item::{SessionId, Ticket};
use crate::session::{self, Session};
use crate::view::{Exit, view};
use crate::ways::Passage;
use std::sync::Arc;
use store::{Change, SessionRow};
use xmpp::{Jid, PresenceType, Stanza};

/// Puts the session in the ledger: at once if it is not there, else with the next batch.
pub(super) fn write(account: &mut Account, id: SessionId, passage: &Passage, fx: &mut Effects) {
    let epoch = account.epoch;
    let Some(session) = account.session_mut(id) else { return };
    if std::mem::replace(&mut session.in_ledger, true) {
        session::touch_ledger(account, id, fx);
        return;
    }
    let row = session.ledger_row(epoch);
    fx.commit(vec![Change::SessionPut { account: account.jid.clone(), row }], Some(&passage.stanza), &passage.ticket);
}

/// The window of sessions that an earlier process left is over. DESIGN.md D11.
///
/// A resource that is there again is not told of as gone, but for those who knew only of the old one.
pub fn ledger_expired(account: &mut Account, fx: &mut Effects) {
    let rows = std::mem::take(&mut account.ledger);
    let mut changes = Vec::new();
    let mut any_left = false;
    for row in rows {
        let Ok(jid) = account.jid.with_resource(&row.resource) else { continue };
        let SessionRow { resource, presence, mut directed, .. } = row;
        let successor = account.sessions.iter().find(|session| session.jid == jid);
        let is_back = successor.is_some_and(Session::is_available);
        let was_available = !presence.is_empty() && !is_back;
        if let Some(successor) = successor {
            let sees_it = |to: &Jid| {
                is_back && account.roster.subscription(to).from && view(account, to, Exit::Broadcast).shows()
            };
            directed.retain(|to| !successor.directed.contains(to) && !sees_it(to));
        }
        // The row is the new session's as soon as that has one.
        if successor.is_none_or(|session| !session.in_ledger) {
            changes.push(Change::SessionDelete { account: account.jid.clone(), resource });
        }
        let stanza = Arc::new(plain(PresenceType::Unavailable, &jid));
        // A row that cannot be read tells at least that the resource was there.
        let shown = || Stanza::parse(&presence).unwrap_or_else(|_| plain(PresenceType::Available, &jid));
        let before = was_available.then(|| Arc::new(shown()));
        shown::tell_change(account, before.as_ref(), &stanza, &directed, fx);
        if was_available && account.policy.presence {
            let own = Jid::from(account.jid.clone());
            session::deliver_where(account, Session::hears_presence, &stanza, Some(&own), fx);
        }
        any_left |= was_available;
    }
    if any_left {
        changes.extend(own::left(account, String::new()));
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
}
