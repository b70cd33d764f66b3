//! What the own sessions say of themselves. RFC 6121 §4.2, §4.4, §4.5.

use super::{contacts, ledger, plain, shown};
use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{SessionId, Ticket};
use crate::rules::change::{self, Shown};
use crate::rules::sphere;
use crate::session::{self, Session};
use crate::ways::Passage;
use crate::{inbox, roles, subscription, view, watchers};
use std::sync::Arc;
use store::Change;
use xmpp::{BareJid, Jid, PresenceType, Stanza, StanzaCondition, StanzaError, ns};

/// Longest status kept with the last activity, in bytes.
pub(super) const STATUS_BYTES_MAX: usize = 1023;

/// Initial presence, or a change of it. RFC 6121 §4.2.2, §4.4.2.
pub(super) fn available(
    account: &mut Account,
    id: SessionId,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    if account.session(id).is_some_and(|session| !session.roles.presentity) {
        return available_unseen(account, id, passage, fx);
    }
    let stanza = passage.stanza.clone();
    let is_first = account.sessions.iter().all(|session| !session.is_available());
    let now = account.now.utc;
    // Where the user is may be said by the presence itself: then it is shown as the rules are there.
    let moved = sphere::moves(account, id, &stanza).map(|sphere| (sphere, Shown::now(account)));
    let Some(session) = account.session_mut(id) else { return Ok(()) };
    let is_initial = !session.is_available();
    let took_messages = session.takes_messages();
    session.priority = stanza.priority();
    let before = session.presence.replace(stanza.clone());
    session.presence_at = now;
    let takes_messages = session.takes_messages();
    if account.policy.presence {
        account.presence_counter += 1;
        // After a crash the ledger tells who must hear that the resource is gone; so the row stands before anybody
        // hears that it is there. DESIGN.md D11.
        ledger::write(account, id, passage, fx);
        watchers::notified(account);
        match moved {
            Some((sphere, shown)) => change::moved(account, sphere, shown, fx),
            None => shown::tell_watchers(account, before.as_ref(), &stanza, fx),
        }
        let own = Jid::from(account.jid.clone());
        session::deliver_where(account, Session::hears_presence, &stanza, Some(&own), fx);
        if is_initial && account.session(id).is_some_and(|session| session.roles.watcher) {
            greet(account, id, is_first, fx);
        }
    }
    if takes_messages && !took_messages {
        inbox::flush(account, id, fx);
    }
    if account.policy.presence { Ok(()) } else { Err(StanzaCondition::ServiceUnavailable.into()) }
}

/// A session that is no presentity is there, and nobody is shown it. See [`crate::roles`].
///
/// # Errors
/// `not-allowed` if it has no part in presence at all; for messages it is there nevertheless.
fn available_unseen(
    account: &mut Account,
    id: SessionId,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let is_first = account.sessions.iter().all(|session| !session.is_available() && !session.unseen);
    let Some(session) = account.session_mut(id) else { return Ok(()) };
    let took_messages = session.takes_messages();
    let is_initial = !std::mem::replace(&mut session.unseen, true);
    session.priority = passage.stanza.priority();
    let (takes_messages, watches) = (session.takes_messages(), session.roles.watcher);
    if is_initial && watches && account.policy.presence {
        greet(account, id, is_first, fx);
    }
    if takes_messages && !took_messages {
        inbox::flush(account, id, fx);
    }
    if watches { Ok(()) } else { Err(roles::missing()) }
}

/// What a resource learns when it becomes available: the own other resources, requests that wait, and by probes all
/// its contacts. RFC 6121 §4.2.2, §4.3.1, §3.1.3.
fn greet(account: &mut Account, id: SessionId, is_first: bool, fx: &mut Effects) {
    let own = Jid::from(account.jid.clone());
    let others: Vec<Arc<Stanza>> = account
        .sessions
        .iter()
        .filter(|session| session.id != id)
        .filter_map(|session| session.presence.clone())
        .collect();
    for stanza in others {
        session::deliver(
            account,
            id,
            Delivery { stanza, to: Some(own.clone()), more: Default::default(), position: None },
            fx,
        );
    }
    subscription::deliver_requests(account, id, fx);
    // A probe would tell whoever is politely blocked that somebody is here.
    let asked = |account: &Account, contact: &BareJid| {
        !account.blocks.blocks(contact) && !view::as_subscriber(account, contact).is_away()
    };
    contacts::greet(account, id, asked, fx);
    if is_first {
        subscription::repeat_requests(account, fx);
    }
}

/// The end of a presence session; the resource stays connected. RFC 6121 §4.5.2.
pub(super) fn unavailable(
    account: &mut Account,
    id: SessionId,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let Some(session) = account.session_mut(id) else { return Ok(()) };
    session.unseen = false;
    let before = session.presence.take();
    let was_available = before.is_some();
    session.priority = 0;
    let directed = std::mem::take(&mut session.directed);
    let was_in_ledger = std::mem::take(&mut session.in_ledger);
    let resource: Box<str> = session.jid.resource_str().into();
    account.presence_counter += 1;
    if was_available {
        watchers::notified(account);
    }
    shown::tell_change(account, before.as_ref(), &passage.stanza, &directed, fx);
    let mut changes = Vec::new();
    if was_available {
        if account.policy.presence {
            let own = Jid::from(account.jid.clone());
            session::deliver_where(
                account,
                |s| s.hears_presence() || (s.id == id && s.roles.watcher),
                &passage.stanza,
                Some(&own),
                fx,
            );
        }
        changes.extend(left(account, status(&passage.stanza)));
    }
    if was_in_ledger {
        changes.push(Change::SessionDelete { account: account.jid.clone(), resource });
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &passage.ticket);
    }
    contacts::settle(account);
    change::look_at_sphere(account, fx);
    if account.policy.presence { Ok(()) } else { Err(StanzaCondition::ServiceUnavailable.into()) }
}

/// The session ended (already taken out of the account): tell who saw it. RFC 6121 §4.5, §4.6.
///
/// Its row of the ledger is deleted by the caller, behind this.
pub fn session_ended(account: &mut Account, session: Session, fx: &mut Effects) {
    account.presence_counter += 1;
    let was_available = session.is_available();
    let stanza = Arc::new(plain(PresenceType::Unavailable, &session.jid));
    if was_available {
        watchers::notified(account);
    }
    shown::tell_change(account, session.presence.as_ref(), &stanza, &session.directed, fx);
    if was_available {
        if account.policy.presence {
            let own = Jid::from(account.jid.clone());
            session::deliver_where(account, Session::hears_presence, &stanza, Some(&own), fx);
        }
        let changes = left(account, String::new());
        if !changes.is_empty() {
            fx.commit(changes, None, &Ticket::default());
        }
    }
    contacts::settle(account);
    change::look_at_sphere(account, fx);
}

/// Notes when the last resource left. XEP-0012 §4.
pub(super) fn left(account: &mut Account, status: String) -> Vec<Change> {
    if account.sessions.iter().any(Session::is_available) {
        return Vec::new();
    }
    let left = account.now.utc;
    let status: Box<str> = status.into();
    account.last_activity = Some((left, status.clone()));
    let mut changes = vec![Change::LastActivity { account: account.jid.clone(), left, status }];
    changes.extend(watchers::settle(account));
    changes
}

fn status(stanza: &Stanza) -> String {
    let mut text =
        stanza.payload.child("status", ns::CLIENT).map(|child| child.to_element().text_content()).unwrap_or_default();
    if text.len() > STATUS_BYTES_MAX {
        let end = (0..=STATUS_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
