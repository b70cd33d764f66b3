//! What the account's watchers are told of it: broadcasts, what changes with a subscription or the block list, answers
//! to probes. Each passes [`crate::view`].

use super::contacts::probe;
use super::{OWN, plain, tell};
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::{Ingress, Ticket};
use crate::roster::Roster;
use crate::session::{self, Session};
use crate::subscription::{self, Act};
use crate::view::{self, Class, Exit, View, view};
use crate::ways::Passage;
use crate::{block, watchers};
use std::sync::Arc;
use xmpp::{BareJid, Element, Jid, PresenceType, Stanza, ns};

/// A session's presence was `before` and is `after`: each class of watchers hears what it is shown of that.
pub(super) fn tell_watchers(account: &Account, before: Option<&Arc<Stanza>>, after: &Arc<Stanza>, fx: &mut Effects) {
    for Class { view, watchers } in view::classes(account) {
        if let Some(stanza) = view::change_for(&view, before, after) {
            fan(account, &stanza, watchers, fx);
        }
    }
}

/// A session is gone: its watchers hear of it if it was available to them, and whom it sent directed presence.
pub(super) fn tell_change(
    account: &Account,
    before: Option<&Arc<Stanza>>,
    after: &Arc<Stanza>,
    directed: &[Jid],
    fx: &mut Effects,
) {
    if before.is_some() {
        tell_watchers(account, before, after, fx);
    }
    let is_told = |to: &Jid| {
        before.is_some()
            && account.roster.subscription(to).from
            && view::change_for(&view(account, to, Exit::Broadcast), before, after).is_some()
    };
    let others = directed.iter().filter(|to| !account.blocks.blocks(to) && !is_told(to));
    for Class { view, watchers } in by_class(others.map(|to| (view(account, to, Exit::Directed), to.clone()))) {
        if view.shows() {
            let shaped = view.shape.as_ref().map_or_else(|| after.clone(), |shape| shape.presence(after));
            fan(account, &shaped, watchers, fx);
        }
    }
}

/// One stanza to many, if the host has a presence service.
pub(crate) fn fan(account: &Account, stanza: &Arc<Stanza>, targets: Vec<Jid>, fx: &mut Effects) {
    if !targets.is_empty() && account.policy.presence {
        fx.push(Effect::Fan { stanza: stanza.clone(), targets });
    }
}

/// Shows the presence of all available resources to one contact that may see it now. RFC 6121 §3.1.5.
pub fn show_to(account: &Account, contact: &BareJid, ingress: Ingress, ticket: &Ticket, fx: &mut Effects) {
    let view = view(account, contact, Exit::Broadcast);
    let presences = account.sessions.iter().filter_map(|session| session.presence.as_ref());
    for presence in presences.filter_map(|presence| view::presence_for(&view, presence)) {
        tell(contact, presence.as_ref().clone().with_to(contact.clone()), ingress, ticket, fx);
    }
}

/// Tells a contact that may see no more of the account that all its resources are gone, directed presence or not.
/// RFC 6121 §3.2.2, §3.3.3, §4.6.1.
pub fn hide_from(account: &mut Account, contact: &BareJid, ingress: Ingress, ticket: &Ticket, fx: &mut Effects) {
    let mut forgot = Vec::new();
    // Whoever was shown nothing is told nothing.
    let view = view::as_subscriber(account, contact);
    for session in &mut account.sessions {
        let before = session.directed.len();
        session.directed.retain(|to| !to.same_bare(contact));
        let had_directed = session.directed.len() < before;
        if had_directed {
            forgot.push(session.id);
        }
        let was_shown = session.presence.as_ref().is_some_and(|presence| view.shows_session(presence));
        if was_shown || had_directed {
            let stanza = plain(PresenceType::Unavailable, &session.jid).with_to(contact.clone());
            tell(contact, stanza, ingress, ticket, fx);
        }
    }
    for id in forgot {
        session::touch_ledger(account, id, fx);
    }
}

/// Whoever a new entry of the block list stands for sees all resources leave. To be called before the entry is in the
/// list. XEP-0191 §3.3.
pub fn conceal_from(account: &mut Account, entry: &Jid, fx: &mut Effects) {
    // Nothing of them is let in from now on.
    let contacts: Vec<BareJid> =
        account.roster.contacts().filter(|it| block::matches(entry, it) || entry.same_bare(it)).cloned().collect();
    contacts.iter().for_each(|contact| account.contacts.forget(contact));
    let classes = seen_by(account, entry);
    let mut forgot = Vec::new();
    let mut fans = Vec::new();
    for session in &mut account.sessions {
        let gone = Arc::new(plain(PresenceType::Unavailable, &session.jid));
        let before = fans.len();
        if session.is_available() {
            let shown = |class: &Class| {
                Some((view::change_for(&class.view, session.presence.as_ref(), &gone)?, class.watchers.clone()))
            };
            fans.extend(classes.iter().filter_map(shown));
        }
        let (told, kept): (Vec<Jid>, Vec<Jid>) = session.directed.drain(..).partition(|to| block::matches(entry, to));
        session.directed = kept;
        if !told.is_empty() {
            forgot.push(session.id);
        }
        let is_told =
            |to: &Jid| fans[before..].iter().flat_map(|(_, to)| to).any(|told| told.as_str() == to.bare_str());
        let more: Vec<Jid> = told.into_iter().filter(|to| !is_told(to)).collect();
        fans.push((gone, more));
    }
    for (stanza, targets) in fans {
        fan(account, &stanza, targets, fx);
    }
    for id in forgot {
        session::touch_ledger(account, id, fx);
    }
}

/// Whoever an entry stood for that is no longer in the block list sees all resources again. XEP-0191 §3.4.
///
/// What the own resources knew of the contacts among them is out of date, as nothing was let in meanwhile: it ends here
/// and is asked for anew. DESIGN.md D7.
pub fn reveal_to(account: &mut Account, entry: &Jid, fx: &mut Effects) {
    let presences: Vec<Arc<Stanza>> = account.sessions.iter().filter_map(|session| session.presence.clone()).collect();
    if presences.is_empty() || !account.policy.presence {
        return;
    }
    let classes = seen_by(account, entry);
    for presence in &presences {
        for class in &classes {
            if let Some(shown) = view::presence_for(&class.view, presence) {
                fan(account, &shown, class.watchers.clone(), fx);
            }
        }
    }
    let stands_for = |contact: &&BareJid| block::matches(entry, contact) || entry.same_bare(contact);
    let contacts: Vec<BareJid> = account.roster.contacts().filter(stands_for).cloned().collect();
    for contact in contacts {
        let who = if entry.same_bare(&contact) { entry.clone() } else { contact.clone().into() };
        if account.blocks.blocks(&who) {
            continue;
        }
        let gone = Stanza::presence(PresenceType::Unavailable).with_from(who).with_to(account.jid.clone());
        session::deliver_where(account, Session::hears_presence, &Arc::new(gone), None, fx);
        probe(account, &contact, fx);
    }
}

/// The watchers that an entry of the block list stands for, as far as no other entry does, by what they see. One
/// resource of a watcher (an entry with a resourcepart) is a watcher too.
fn seen_by(account: &Account, entry: &Jid) -> Vec<Class> {
    let watchers = account
        .roster
        .watchers()
        .filter_map(|watcher| {
            if block::matches(entry, watcher) {
                Some(Jid::from(watcher.clone()))
            } else {
                entry.same_bare(watcher).then(|| entry.clone())
            }
        })
        .map(|watcher| (view(account, &watcher, Exit::Broadcast), watcher))
        .filter(|(view, _)| view.shows());
    by_class(watchers)
}

/// Who sees the same, together.
fn by_class(watchers: impl Iterator<Item = (View, Jid)>) -> Vec<Class> {
    let mut classes: Vec<Class> = Vec::new();
    for (view, watcher) in watchers {
        match classes.iter_mut().find(|class| class.view.same_class(&view)) {
            Some(class) => class.watchers.push(watcher),
            None => classes.push(Class { view, watchers: vec![watcher] }),
        }
    }
    classes
}

/// The account is removed: unavailable, unsubscribe and unsubscribed to all contacts, both ways. RFC 6121 §2.5.2.
///
/// The roster is empty afterwards.
pub fn leave_all_rosters(account: &mut Account, fx: &mut Effects) {
    for session in &account.sessions {
        let gone = Arc::new(plain(PresenceType::Unavailable, &session.jid));
        tell_change(account, session.presence.as_ref(), &gone, &[], fx);
    }
    for item in std::mem::take(&mut account.roster).all() {
        for act in subscription::to_part(item.subscription) {
            tell(&item.jid, subscription::managing(&account.jid, &item.jid, act, None), OWN, &Ticket::default(), fx);
        }
    }
    account.roster = Roster::default();
}

/// A probe of somebody who wants to know who is there. RFC 6121 §4.3.2, §4.6.6.
///
/// From a bare JID a server asks on behalf of a subscription (§4.3.1). If there is none it is told so (rule 1), also where
/// the access rules would show him everything: else one roster would have it for ever and the other not, and what he was
/// shown would never change. A client that asks by itself, from its full JID, fetches, and the rules alone decide.
pub(super) fn probed(account: &mut Account, passage: &Passage, fx: &mut Effects) {
    let Some(from) = passage.stanza.from.clone() else { return };
    let is_asked = |session: &&Session| passage.to.is_bare() || *session.jid == passage.to;
    let mut answers = Vec::new();
    let view = view(account, &from, Exit::Probe);
    let may_know = view.shows() || view.is_away();
    let is_owner = from.same_bare(&account.jid);
    let subscription = account.roster.subscription(&from);
    if may_know && (subscription.from || is_owner || !from.is_bare()) {
        let there = account
            .sessions
            .iter()
            .filter(is_asked)
            .filter_map(|session| Some((&session.jid, view::presence_for(&view, session.presence.as_ref()?)?)));
        if passage.to.is_bare() {
            answers.extend(there.map(|(_, presence)| Stanza::clone(&presence)));
        } else {
            // Of one resource only that it is there.
            answers.extend(there.map(|(jid, _)| plain(PresenceType::Available, jid)));
        }
        // An account's own probe is answered alike whether the house had to look or not: see `House::tell`.
        if answers.is_empty() && passage.ingress == OWN {
            answers.push(Stanza::presence(PresenceType::Unavailable).with_from(passage.to.clone()));
        }
        if answers.is_empty() {
            answers.push(mirrored(last_seen(account, &passage.to, &view, &from), passage));
        }
    } else {
        if !may_know {
            watchers::refused(account, &from, fx);
        }
        let shared =
            account.sessions.iter().filter(is_asked).filter(|s| s.directed.iter().any(|to| to.same_bare(&from)));
        answers.extend(shared.map(|session| plain(PresenceType::Available, &session.jid)));
        // A rule that asks the owner suspends a subscription that there is, and does not end it: "unsubscribed" would,
        // on the other side alone.
        let is_suspended = view.handling == crate::rules::Handling::Confirm && subscription.from;
        if answers.is_empty() && is_suspended {
            answers.push(mirrored(Stanza::presence(PresenceType::Unavailable).with_from(passage.to.clone()), passage));
        }
        // To whoever waits for an answer, silence is none; "unsubscribed" would be one.
        if answers.is_empty() && !subscription.pending_in {
            let stanza = subscription::managing(&account.jid, &from.to_bare(), Act::Unsubscribed, None);
            tell(&from.to_bare(), mirrored(stanza, passage), passage.ingress, &passage.ticket, fx);
            return;
        }
    }
    for stanza in answers {
        tell(&from, stanza.with_to(from.clone()), passage.ingress, &passage.ticket, fx);
    }
}

/// Unavailable since when, without saying why. RFC 6121 §4.3.2, rule 3.
fn last_seen(account: &Account, who: &Jid, view: &View, watcher: &Jid) -> Stanza {
    let stanza = Stanza::presence(PresenceType::Unavailable).with_from(who.clone());
    match view::last_seen(account, view, watcher) {
        Some((at, _)) => stanza.with_children([Element::new("delay", ns::DELAY).attr("stamp", at.to_xmpp())]),
        None => stanza,
    }
}

/// RFC 6121 §4.3.2.1.
fn mirrored(stanza: Stanza, passage: &Passage) -> Stanza {
    match passage.stanza.id.as_deref() {
        Some(id) => stanza.with_id(id),
        None => stanza,
    }
}
