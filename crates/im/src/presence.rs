//! Presence, RFC 6121 §4: initial, broadcast, probe, directed, unavailable.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{Ingress, SessionId, Ticket};
use crate::modules::fetch;
use crate::modules::solicited;
use crate::roster::Roster;
use crate::session::{self, Session};
use crate::subscription::{self, Act};
use crate::view::{self, Class, Exit, View, view};
use crate::ways::{Flow, Passage};
use crate::{block, inbox, roles, watchers};
use std::sync::Arc;
use store::{Change, SessionRow};
use xmpp::{BareJid, Element, FullJid, Jid, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

/// What the account itself generates enters by no stream.
pub const OWN: Ingress = Ingress { stream: 0, ordinal: 0 };

/// Longest status kept with the last activity, in bytes.
const STATUS_BYTES_MAX: usize = 1023;

/// available, unavailable and probe from the own client, with and without `to`.
///
/// # Errors
/// `service-unavailable` if the host has no presence service; what the client says of its priority counts for messages
/// all the same. `resource-constraint` for directed presence to more than `directed_max` entities.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(kind) = passage.stanza.kind else { return Ok(Flow::Next) };
    let Some(id) = passage.session else { return Ok(Flow::Done) };
    match (kind, passage.stanza.to.is_some()) {
        (PresenceType::Available, false) => available(account, id, passage, fx)?,
        (PresenceType::Unavailable, false) => unavailable(account, id, passage, fx)?,
        (PresenceType::Available | PresenceType::Unavailable, true) => directed(account, id, kind, passage, fx)?,
        // A client need not probe, but may. RFC 6121 §4.3.
        // Of an account it is a fetch; of one resource, or an occupant of a room, it stays what it is. Whoever is politely
        // blocked is not asked: nobody is here for him.
        (PresenceType::Probe | PresenceType::Error, true) if view::is_away_for(account, &passage.to) => {}
        (PresenceType::Probe, true) if account.policy.presence && is_of_another_account(account, &passage.to) => {
            fetch::probe(account, id, passage, fx);
        }
        (PresenceType::Probe | PresenceType::Error, true) if account.policy.presence => tell_on(passage, fx),
        (PresenceType::Probe | PresenceType::Error, _) => {}
        _ => {}
    }
    Ok(Flow::Next)
}

/// available, unavailable, probe, error from others.
///
/// # Errors
/// None.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(kind) = passage.stanza.kind else { return Ok(Flow::Next) };
    if Act::of(passage.stanza.kind).is_some() {
        return Ok(Flow::Next);
    }
    if !account.policy.presence {
        return Ok(Flow::Done);
    }
    match kind {
        PresenceType::Probe => probed(account, passage, fx),
        PresenceType::Unavailable => {
            fetch::heard(account, &passage.stanza);
            forget_directed(account, passage);
            deliver(account, passage, fx);
        }
        _ => {
            fetch::heard(account, &passage.stanza);
            deliver(account, passage, fx);
        }
    }
    Ok(Flow::Done)
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
    tell_change(account, session.presence.as_ref(), &stanza, &session.directed, fx);
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
        tell_change(account, before.as_ref(), &stanza, &directed, fx);
        if was_available && account.policy.presence {
            let own = Jid::from(account.jid.clone());
            session::deliver_where(account, Session::hears_presence, &stanza, Some(&own), fx);
        }
        any_left |= was_available;
    }
    if any_left {
        changes.extend(left(account, String::new()));
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
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

/// Initial presence, or a change of it. RFC 6121 §4.2.2, §4.4.2.
fn available(account: &mut Account, id: SessionId, passage: &Passage, fx: &mut Effects) -> Result<(), StanzaError> {
    if account.session(id).is_some_and(|session| !session.roles.presentity) {
        return available_unseen(account, id, passage, fx);
    }
    let stanza = passage.stanza.clone();
    let is_first = account.sessions.iter().all(|session| !session.is_available());
    let now = account.now.utc;
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
        write_ledger(account, id, passage, fx);
        watchers::notified(account);
        tell_watchers(account, before.as_ref(), &stanza, fx);
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
    let asked =
        |contact: &&BareJid| !account.blocks.blocks(contact) && !view::as_subscriber(account, contact).is_away();
    for contact in account.roster.contacts().filter(asked) {
        probe(account, contact, fx);
    }
    if is_first {
        subscription::repeat_requests(account, fx);
    }
}

/// The end of a presence session; the resource stays connected. RFC 6121 §4.5.2.
fn unavailable(account: &mut Account, id: SessionId, passage: &Passage, fx: &mut Effects) -> Result<(), StanzaError> {
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
    tell_change(account, before.as_ref(), &passage.stanza, &directed, fx);
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
    if account.policy.presence { Ok(()) } else { Err(StanzaCondition::ServiceUnavailable.into()) }
}

fn is_of_another_account(account: &Account, to: &Jid) -> bool {
    to.is_bare() && to.local().is_some() && !to.same_bare(&account.jid)
}

/// Presence for one entity. It is remembered, so that the entity hears when the resource is gone. RFC 6121 §4.6.3.
fn directed(
    account: &mut Account,
    id: SessionId,
    kind: PresenceType,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    if !account.policy.presence {
        return Err(StanzaCondition::ServiceUnavailable.into());
    }
    let max = account.policy.limits.directed_max;
    let view = view(account, &passage.to, Exit::Directed);
    if !view.shows() && kind == PresenceType::Available {
        let why = "Your access rules hide you from this address.";
        return Err(StanzaError::from(StanzaCondition::NotAcceptable).with_text(why));
    }
    // The own resources hear of each other without it.
    let is_own = passage.to.same_bare(&account.jid);
    let Some(session) = account.session_mut(id) else { return Ok(()) };
    let known = session.directed.iter().position(|to| *to == passage.to);
    match (kind, known) {
        (PresenceType::Available, None) if !is_own => {
            if session.directed.len() >= max {
                return Err(
                    StanzaError::from(StanzaCondition::ResourceConstraint).with_text("Directed presence to too many.")
                );
            }
            session.directed.push(passage.to.clone());
            write_ledger(account, id, passage, fx);
        }
        (PresenceType::Unavailable, Some(at)) => {
            let parted = session.directed.swap_remove(at);
            if session.parted.len() >= solicited::PARTED_MAX {
                session.parted.pop_front();
            }
            session.parted.push_back(parted);
            session::touch_ledger(account, id, fx);
        }
        _ => {}
    }
    let stanza = view.shape.as_ref().map_or_else(|| passage.stanza.clone(), |shape| shape.presence(&passage.stanza));
    fx.push(Effect::Tell { to: passage.to.clone(), stanza, ingress: passage.ingress, ticket: passage.ticket.clone() });
    Ok(())
}

/// A probe of somebody who wants to know who is there. RFC 6121 §4.3.2, §4.6.6.
fn probed(account: &mut Account, passage: &Passage, fx: &mut Effects) {
    let Some(from) = passage.stanza.from.clone() else { return };
    let is_asked = |session: &&Session| passage.to.is_bare() || *session.jid == passage.to;
    let mut answers = Vec::new();
    let view = view(account, &from, Exit::Probe);
    if view.shows() || view.is_away() {
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
        watchers::refused(account, &from, fx);
        let shared =
            account.sessions.iter().filter(is_asked).filter(|s| s.directed.iter().any(|to| to.same_bare(&from)));
        answers.extend(shared.map(|session| plain(PresenceType::Available, &session.jid)));
        // A rule that asks the owner suspends a subscription that there is, and does not end it: "unsubscribed" would,
        // on the other side alone.
        let is_suspended = view.handling == crate::rules::Handling::Confirm && account.roster.subscription(&from).from;
        if answers.is_empty() && is_suspended {
            answers.push(mirrored(Stanza::presence(PresenceType::Unavailable).with_from(passage.to.clone()), passage));
        }
        // To whoever waits for an answer, silence is none; "unsubscribed" would be one.
        if answers.is_empty() && !account.roster.subscription(&from).pending_in {
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

/// To the bare JID: to all available resources; to a full JID: to that resource. RFC 6121 §8.5.2.1.2, §8.5.3.1.
fn deliver(account: &mut Account, passage: &mut Passage, fx: &mut Effects) {
    if !account.policy.client_presence {
        return;
    }
    let to = passage.to.clone();
    // A broadcast has no `to` of its own.
    let rewritten = (passage.stanza.to.as_ref() != Some(&to)).then_some(&to);
    if to.is_bare() {
        session::deliver_where(account, Session::hears_presence, &passage.stanza, rewritten, fx);
    } else {
        session::deliver_where(account, |s| *s.jid == to && s.roles.watcher, &passage.stanza, rewritten, fx);
    }
}

/// Who is gone need not hear that we are. RFC 6121 §4.6.1.
fn forget_directed(account: &mut Account, passage: &Passage) {
    let Some(from) = &passage.stanza.from else { return };
    for session in &mut account.sessions {
        if passage.to.is_bare() || *session.jid == passage.to {
            session.directed.retain(|to| to != from);
        }
    }
}

/// A session's presence was `before` and is `after`: each class of watchers hears what it is shown of that.
fn tell_watchers(account: &Account, before: Option<&Arc<Stanza>>, after: &Arc<Stanza>, fx: &mut Effects) {
    for Class { view, watchers } in view::classes(account, Exit::Broadcast) {
        if let Some(stanza) = view::change_for(&view, before, after) {
            fan(account, &stanza, watchers, fx);
        }
    }
}

/// A session is gone: its watchers hear of it if it was available to them, and whom it sent directed presence.
fn tell_change(
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

fn tell(to: &Jid, stanza: Stanza, ingress: Ingress, ticket: &Ticket, fx: &mut Effects) {
    fx.push(Effect::Tell { to: to.clone(), stanza: Arc::new(stanza), ingress, ticket: ticket.clone() });
}

fn tell_on(passage: &Passage, fx: &mut Effects) {
    fx.push(Effect::Tell {
        to: passage.to.clone(),
        stanza: passage.stanza.clone(),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
}

/// "Who is there?", from bare JID to bare JID. RFC 6121 §4.3.1.
fn probe(account: &Account, contact: &BareJid, fx: &mut Effects) {
    let stanza = Stanza::presence(PresenceType::Probe).with_from(account.jid.clone()).with_to(contact.clone());
    tell(contact, stanza, OWN, &Ticket::default(), fx);
}

fn plain(kind: PresenceType, from: &FullJid) -> Stanza {
    Stanza::presence(kind).with_from(from.clone())
}

/// Puts the session in the ledger: at once if it is not there, else with the next batch.
fn write_ledger(account: &mut Account, id: SessionId, passage: &Passage, fx: &mut Effects) {
    let epoch = account.epoch;
    let Some(session) = account.session_mut(id) else { return };
    if std::mem::replace(&mut session.in_ledger, true) {
        session::touch_ledger(account, id, fx);
        return;
    }
    let row = session.ledger_row(epoch);
    fx.commit(vec![Change::SessionPut { account: account.jid.clone(), row }], Some(&passage.stanza), &passage.ticket);
}

/// Notes when the last resource left. XEP-0012 §4.
fn left(account: &mut Account, status: String) -> Vec<Change> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, START, Scene, account, account_with, bare, contact, jid};
    use proptest::prelude::*;
    use std::collections::{BTreeSet, VecDeque};
    use store::AccountRecord;

    fn record() -> AccountRecord {
        let roster = vec![
            contact("romeo@example.net", "both"),
            contact("mercutio@example.com", "from"),
            contact("nurse@example.com", "to"),
            contact("paris@example.com", "none"),
        ];
        AccountRecord { created: START, roster_version: 1, roster, ..AccountRecord::default() }
    }

    fn juliet() -> Scene {
        account_with("juliet@example.com", record())
    }

    /// (address, type) of what was told.
    fn kinds(fx: &Fx) -> Vec<(String, String)> {
        let kind = |xml: &str| {
            xml.split("type='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap_or("available").to_owned()
        };
        fx.told().into_iter().map(|(to, xml)| (to, kind(&xml))).collect()
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(to, kind)| ((*to).to_owned(), (*kind).to_owned())).collect()
    }

    #[test]
    fn initial_presence_goes_to_watchers_and_own_resources_and_contacts_are_probed() {
        let mut juliet = juliet().connected("balcony").with("chamber", 3).connected("cellar");
        let fx = juliet.sends("balcony", "<presence id='p1'><show>away</show></presence>");
        assert_eq!(
            kinds(&fx),
            pairs(&[
                ("mercutio@example.com", "available"),
                ("romeo@example.net", "available"),
                ("nurse@example.com", "probe"),
                ("romeo@example.net", "probe"),
            ])
        );
        assert!(fx.told()[2].1.contains("from='juliet@example.com'"), "probes come from the bare JID");
        assert_eq!(fx.delivered("chamber").len(), 1);
        let own = fx.delivered("balcony");
        assert!(own[0].contains("from='juliet@example.com/balcony'") && own[0].contains("to='juliet@example.com'"));
        assert!(own[1].contains("from='juliet@example.com/chamber'") && own.len() == 2);
        assert!(fx.delivered("cellar").is_empty());
    }

    // CLUSTER rule 11.
    #[test]
    fn each_change_of_presence_has_the_next_number() {
        let mut juliet = juliet().connected("balcony").with("chamber", 0);
        let mut numbers = vec![juliet.presence_counter];
        for xml in ["<presence/>", "<presence><show>away</show></presence>", "<presence type='unavailable'/>"] {
            juliet.sends("balcony", xml);
            numbers.push(juliet.presence_counter);
        }
        juliet.sends("balcony", "<presence to='romeo@example.net/orchard'/>");
        juliet.closes("chamber");
        numbers.push(juliet.presence_counter);
        assert_eq!(numbers, [0, 1, 2, 3, 4]);
    }

    #[test]
    fn a_broadcast_is_one_fan_of_one_stanza() {
        let mut juliet = juliet().with("balcony", 0);
        let fx = juliet.sends("balcony", "<presence><show>dnd</show></presence>");
        let fans: Vec<_> =
            fx.list.iter().filter(|e| matches!(e, Effect::Fan { targets, .. } if targets.len() == 2)).collect();
        assert_eq!(fans.len(), 1);
        assert_eq!(fx.told().len(), 2, "nobody is probed again");
    }

    #[test]
    fn the_first_broadcast_waits_for_the_row_of_the_ledger() {
        let mut juliet = juliet().connected("balcony");
        let fx = juliet.sends("balcony", "<presence/>");
        let Effect::Commit { changes, .. } = &fx.list[0] else { panic!("no commit before the rest: {:?}", fx.list) };
        assert!(
            matches!(&changes[..], [Change::SessionPut { row, .. }] if &*row.resource == "balcony" && row.epoch == 7 && !row.presence.is_empty())
        );
        let fx = juliet.sends("balcony", "<presence><show>away</show></presence>");
        assert!(!matches!(fx.list[0], Effect::Commit { .. }), "later ones do not");
        assert!(juliet.sessions[0].ledger_touched);
    }

    #[test]
    fn unavailable_is_told_with_its_status_to_watchers_and_all_own_resources() {
        let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
        let fx = juliet.sends("balcony", "<presence type='unavailable'><status>going on vacation</status></presence>");
        assert_eq!(kinds(&fx), pairs(&[("mercutio@example.com", "unavailable"), ("romeo@example.net", "unavailable")]));
        assert!(fx.told()[0].1.contains("going on vacation"));
        assert_eq!(fx.written_to(), ["balcony", "chamber"]);
        assert!(matches!(&fx.commits()[..], [Change::SessionDelete { .. }]), "another resource is still there");
        let fx = juliet.sends("chamber", "<presence type='unavailable'><status>me too</status></presence>");
        assert!(
            fx.commits()
                .iter()
                .any(|c| matches!(c, Change::LastActivity { left: START, status, .. } if &**status == "me too"))
        );
    }

    #[test]
    fn presence_after_unavailable_is_initial_presence_again() {
        let mut juliet = juliet().with("balcony", 0);
        juliet.sends("balcony", "<presence type='unavailable'/>");
        let fx = juliet.sends("balcony", "<presence/>");
        assert!(kinds(&fx).contains(&("romeo@example.net".into(), "probe".into())));
    }

    #[test]
    fn unavailable_from_a_resource_that_was_not_available_tells_nobody() {
        let mut juliet = juliet().connected("balcony").with("chamber", 0);
        let fx = juliet.sends("balcony", "<presence type='unavailable'/>");
        assert!(fx.is_empty(), "{fx:?}");
    }

    #[test]
    fn a_stream_that_closes_tells_watchers_and_addressees() {
        let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
        juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'/>");
        juliet.sends("balcony", "<presence to='romeo@example.net/orchard'/>");
        let fx = juliet.closes("balcony");
        assert_eq!(
            kinds(&fx),
            pairs(&[
                ("mercutio@example.com", "unavailable"),
                ("romeo@example.net", "unavailable"),
                ("room@chat.example.com/juliet", "unavailable"),
            ])
        );
        assert!(fx.told()[0].1.contains("from='juliet@example.com/balcony'"));
        assert_eq!(fx.written_to(), ["chamber"]);
        assert!(fx.in_order(|e| matches!(e, Effect::Fan { .. }), |e| matches!(e, Effect::Commit { .. })));
    }

    #[test]
    fn when_the_last_resource_leaves_the_time_is_noted() {
        let mut juliet = juliet().with("balcony", 0).connected("chamber");
        let fx = juliet.closes("balcony");
        assert!(fx.commits().iter().any(|c| matches!(c, Change::LastActivity { left: START, .. })));
        assert_eq!(juliet.last_activity, Some((START, "".into())));
    }

    #[test]
    fn directed_presence_is_told_once_and_ends_with_directed_unavailable() {
        let mut juliet = juliet().connected("balcony");
        let fx = juliet.sends(
            "balcony",
            "<presence to='room@chat.example.com/juliet'><x xmlns='http://jabber.org/protocol/muc'/></presence>",
        );
        assert_eq!(fx.told_to(), ["room@chat.example.com/juliet"]);
        assert!(
            fx.told()[0].1.contains("from='juliet@example.com/balcony'") && fx.told()[0].1.contains("protocol/muc")
        );
        assert!(
            matches!(&fx.commits()[..], [Change::SessionPut { row, .. }] if row.directed == [jid("room@chat.example.com/juliet")])
        );
        juliet.sends("balcony", "<presence to='room@chat.example.com/juliet' type='unavailable'/>");
        assert!(juliet.closes("balcony").told().is_empty());
    }

    #[test]
    fn directed_presence_does_not_make_a_watcher() {
        let mut juliet = juliet().with("balcony", 0);
        juliet.sends("balcony", "<presence to='paris@example.com'/>");
        let fx = juliet.sends("balcony", "<presence><show>away</show></presence>");
        assert!(!fx.told_to().contains(&"paris@example.com".to_owned()));
        let fx = juliet.sends("balcony", "<presence type='unavailable'/>");
        assert!(fx.told_to().contains(&"paris@example.com".to_owned()));
    }

    #[test]
    fn who_went_away_itself_need_not_be_told() {
        let mut juliet = juliet().with("balcony", 0);
        juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'/>");
        juliet.receive(
            "<presence from='room@chat.example.com/juliet' to='juliet@example.com/balcony' type='unavailable'/>",
        );
        assert!(juliet.sessions[0].directed.is_empty());
    }

    #[test]
    fn directed_presence_to_more_than_the_limit_is_refused() {
        let mut juliet = juliet().policy(|p| p.limits.directed_max = 1).with("balcony", 0);
        juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>");
        let fx = juliet.sends("balcony", "<presence to='b@chat.example.com/juliet'/>");
        assert!(fx.told().is_empty());
        assert!(fx.delivered("balcony")[0].contains("<resource-constraint"));
        assert_eq!(juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>").told().len(), 1);
    }

    #[test]
    fn presence_from_others_is_delivered_to_all_available_resources_unchanged() {
        let mut juliet = juliet().with("balcony", -1).with("chamber", 0).connected("cellar");
        for kind in ["", " type='unavailable'", " type='error'"] {
            let fx =
                juliet.receive(&format!("<presence from='stranger@example.org/x'{kind}><show>away</show></presence>"));
            assert_eq!(fx.written_to(), ["balcony", "chamber"], "{kind}");
            assert!(fx.delivered("balcony")[0].contains("to='juliet@example.com'"));
        }
    }

    #[test]
    fn a_broadcast_that_arrives_without_to_gets_the_bare_jid() {
        let mut juliet = juliet().with("balcony", 0);
        let stanza = Arc::new(crate::testing::stanza("<presence from='romeo@example.net/orchard'/>"));
        let to = juliet.jid.clone().into();
        let fx = juliet.item(crate::Item::Inbound { stanza, to, ingress: OWN, ticket: Ticket::default() });
        assert!(fx.delivered("balcony")[0].contains("to='juliet@example.com'"));
    }

    #[test]
    fn presence_for_a_full_jid_reaches_that_resource_even_if_it_is_only_connected() {
        let mut juliet = juliet().with("balcony", 0).connected("cellar");
        let fx = juliet.receive("<presence from='romeo@example.net/orchard' to='juliet@example.com/cellar'/>");
        assert_eq!(fx.written_to(), ["cellar"]);
        assert!(juliet.receive("<presence from='romeo@example.net/orchard' to='juliet@example.com/gone'/>").is_empty());
    }

    fn probe(scene: &mut Scene, from: &str, to: &str) -> Vec<(String, String)> {
        scene.receive(&format!("<presence from='{from}' to='{to}' type='probe' id='probe1'/>")).told()
    }

    #[test]
    fn a_probe_of_a_watcher_is_answered_with_the_presence_of_each_available_resource() {
        let mut juliet = juliet().connected("balcony").connected("chamber").connected("cellar");
        juliet.sends("balcony", "<presence id='hzf1v27k'/>");
        juliet.sends("chamber", "<presence id='ps6t1fu3'><show>away</show></presence>");
        let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com");
        assert_eq!(told.len(), 2);
        assert!(told[0].1.contains("from='juliet@example.com/balcony'") && told[0].1.contains("id='hzf1v27k'"));
        assert!(told[1].1.contains("from='juliet@example.com/chamber'") && told[1].1.contains("<show>away</show>"));
        assert!(told.iter().all(|(to, xml)| to == "romeo@example.net" && xml.contains("to='romeo@example.net'")));
    }

    #[test]
    fn a_probe_of_a_watcher_when_nobody_is_there_is_answered_unavailable_since_when() {
        let mut juliet = account_with(
            "juliet@example.com",
            AccountRecord { last_activity: Some((START, "secret".into())), ..record() },
        );
        let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com");
        assert_eq!(told.len(), 1);
        let xml = &told[0].1;
        assert!(
            xml.contains("type='unavailable'")
                && xml.contains("from='juliet@example.com'")
                && xml.contains("id='probe1'"),
            "{xml}"
        );
        assert!(xml.contains("stamp='2026-01-01T00:00:00Z'") && !xml.contains("secret"), "{xml}");
    }

    #[test]
    fn a_probe_of_one_resource_tells_only_that_it_is_there() {
        let mut juliet = juliet().connected("balcony").with("chamber", 0);
        juliet.sends("balcony", "<presence id='p'><show>away</show></presence>");
        let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com/balcony");
        assert_eq!(told.len(), 1);
        assert!(told[0].1.contains("from='juliet@example.com/balcony'") && !told[0].1.contains("show"));
        let told = probe(&mut juliet, "romeo@example.net", "juliet@example.com/gone");
        assert!(told[0].1.contains("type='unavailable'"));
    }

    #[test]
    fn a_probe_of_a_stranger_is_answered_unsubscribed_from_the_bare_jid() {
        let mut juliet = juliet().with("balcony", 0);
        for stranger in ["nurse@example.com", "paris@example.com", "stranger@example.org"] {
            for to in ["juliet@example.com", "juliet@example.com/balcony"] {
                let told = probe(&mut juliet, stranger, to);
                assert_eq!(told.len(), 1);
                let xml = &told[0].1;
                assert!(
                    xml.contains("type='unsubscribed'")
                        && xml.contains("from='juliet@example.com'")
                        && xml.contains("id='probe1'")
                );
            }
        }
    }

    #[test]
    fn a_probe_of_one_who_waits_for_an_answer_is_not_answered() {
        let mut juliet = juliet().with("balcony", 0);
        juliet.receive("<presence from='benvolio@example.net' type='subscribe'/>");
        assert!(probe(&mut juliet, "benvolio@example.net", "juliet@example.com").is_empty());
    }

    #[test]
    fn a_probe_of_an_addressee_is_answered_with_mere_availability_of_the_resource_that_addressed_it() {
        let mut juliet = juliet().with("balcony", 0).with("chamber", 0);
        juliet.sends("balcony", "<presence to='room@chat.example.com/juliet'><show>away</show></presence>");
        let told = probe(&mut juliet, "room@chat.example.com/juliet", "juliet@example.com/balcony");
        assert_eq!(told.len(), 1);
        assert!(told[0].1.contains("from='juliet@example.com/balcony'") && !told[0].1.contains("show"));
        let told = probe(&mut juliet, "room@chat.example.com/juliet", "juliet@example.com/chamber");
        assert!(told[0].1.contains("type='unsubscribed'"));
    }

    #[test]
    fn a_client_may_probe_and_fetches_thereby_what_it_does_not_probe_itself() {
        let mut juliet = juliet().with("balcony", 0);
        let fx = juliet.sends("balcony", "<presence to='romeo@example.net' type='probe'/>");
        assert_eq!(kinds(&fx), pairs(&[("romeo@example.net", "get")]));
        let fx = juliet.sends("balcony", "<presence to='romeo@example.net/orchard' type='probe'/>");
        assert_eq!(kinds(&fx), pairs(&[("romeo@example.net/orchard", "probe")]));
        assert!(juliet.sends("balcony", "<presence type='probe'/>").is_empty());
    }

    #[test]
    fn a_host_without_presence_service_answers_service_unavailable_and_still_delivers_messages() {
        let mut juliet = juliet().policy(|p| p.presence = false).connected("balcony");
        let fx = juliet.sends("balcony", "<presence><priority>5</priority></presence>");
        assert!(fx.told().is_empty() && fx.commits().is_empty());
        assert!(fx.delivered("balcony")[0].contains("<service-unavailable"));
        assert!(juliet.sessions[0].takes_messages());
        for stanza in ["<presence to='romeo@example.net'/>", "<presence type='unavailable'/>"] {
            let fx = juliet.sends("balcony", stanza);
            assert!(fx.told().is_empty() && fx.delivered("balcony")[0].contains("<service-unavailable"));
        }
        assert!(juliet.receive("<presence from='romeo@example.net/orchard'/>").is_empty());
        assert!(juliet.receive("<presence from='romeo@example.net' type='probe'/>").is_empty());
    }

    fn row(resource: &str, presence: &str, directed: &[&str]) -> SessionRow {
        SessionRow {
            resource: resource.into(),
            epoch: 6,
            resume_id_hash: Vec::new(),
            presence: presence.into(),
            directed: directed.iter().map(|to| jid(to)).collect(),
            since: START,
            received: None,
        }
    }

    #[test]
    fn sessions_that_a_crash_left_are_told_of_as_gone_when_their_window_is_over() {
        let sessions = vec![row("balcony", "<presence/>", &["room@chat.example.com/juliet"]), row("cellar", "", &[])];
        let mut juliet = account_with("juliet@example.com", AccountRecord { sessions, ..record() }).with("chamber", 0);
        let fx = juliet.item(crate::Item::LedgerExpired);
        assert_eq!(
            kinds(&fx),
            pairs(&[
                ("mercutio@example.com", "unavailable"),
                ("romeo@example.net", "unavailable"),
                ("room@chat.example.com/juliet", "unavailable"),
            ])
        );
        assert!(fx.told()[0].1.contains("from='juliet@example.com/balcony'"));
        assert_eq!(fx.written_to(), ["chamber"]);
        assert_eq!(fx.commits().iter().filter(|c| matches!(c, Change::SessionDelete { .. })).count(), 2);
        assert!(juliet.ledger.is_empty());
    }

    #[test]
    fn a_resource_that_is_back_after_a_crash_is_gone_only_for_whom_it_has_not_addressed_again() {
        let directed = ["a@chat.example.com/juliet", "b@chat.example.com/juliet"];
        let sessions = vec![row("balcony", "<presence/>", &directed)];
        let mut juliet = account_with("juliet@example.com", AccountRecord { sessions, ..record() }).with("balcony", 0);
        juliet.sends("balcony", "<presence to='a@chat.example.com/juliet'/>");
        let fx = juliet.item(crate::Item::LedgerExpired);
        assert_eq!(kinds(&fx), pairs(&[("b@chat.example.com/juliet", "unavailable")]));
        assert!(fx.commits().is_empty(), "the row is the new session's");
    }

    #[test]
    fn a_removed_account_parts_from_all_contacts() {
        let mut juliet = juliet().with("balcony", 0);
        juliet.receive("<presence from='benvolio@example.net' type='subscribe'/>");
        let mut fx = Effects::default();
        leave_all_rosters(&mut juliet, &mut fx);
        let told: Vec<(String, PresenceType)> = fx
            .list
            .iter()
            .flat_map(|effect| match effect {
                Effect::Tell { to, stanza, .. } => vec![(to.to_string(), stanza.kind)],
                Effect::Fan { stanza, targets } => targets.iter().map(|to| (to.to_string(), stanza.kind)).collect(),
                _ => Vec::new(),
            })
            .filter_map(|(to, kind)| match kind {
                StanzaType::Presence(kind) => Some((to, kind)),
                _ => None,
            })
            .collect();
        let expected = [
            ("mercutio@example.com", PresenceType::Unavailable),
            ("romeo@example.net", PresenceType::Unavailable),
            ("benvolio@example.net", PresenceType::Unsubscribed),
            ("mercutio@example.com", PresenceType::Unsubscribed),
            ("nurse@example.com", PresenceType::Unsubscribe),
            ("romeo@example.net", PresenceType::Unsubscribe),
            ("romeo@example.net", PresenceType::Unsubscribed),
        ];
        assert_eq!(told, expected.map(|(to, kind)| (to.to_owned(), kind)));
        assert!(juliet.roster.is_empty());
    }

    #[test]
    fn nobody_who_is_blocked_is_told_or_probed() {
        let mut juliet =
            account_with("juliet@example.com", AccountRecord { blocks: vec![jid("romeo@example.net")], ..record() })
                .connected("balcony");
        let fx = juliet.sends("balcony", "<presence/>");
        assert!(!fx.told_to().contains(&"romeo@example.net".to_owned()));
    }

    #[test]
    fn a_status_is_kept_up_to_its_limit() {
        let mut juliet = account("juliet@example.com").with("balcony", 0);
        let long = "é".repeat(STATUS_BYTES_MAX);
        juliet.sends("balcony", &format!("<presence type='unavailable'><status>{long}</status></presence>"));
        let kept = juliet.last_activity.as_ref().map(|(_, status)| status.len());
        assert_eq!(kept, Some(STATUS_BYTES_MAX - 1));
        assert_eq!(juliet.jid, bare("juliet@example.com"));
    }

    // ---- what two accounts' clients know of each other ----

    /// What one side does.
    #[derive(Debug, Clone)]
    enum Does {
        /// A stanza of one resource; `%` is the contact.
        Sends(usize, &'static str),
        Closes(usize),
    }

    const RESOURCES: [&str; 2] = ["a", "b"];
    const NAMES: [&str; 2] = ["romeo@example.net", "juliet@example.com"];

    fn does() -> impl Strategy<Value = Does> {
        let sends = prop::sample::select(vec![
            "<presence/>",
            "<presence/>",
            "<presence><show>away</show></presence>",
            "<presence type='unavailable'/>",
            "<presence to='%'/>",
            "<presence to='%' type='subscribe'/>",
            "<presence to='%' type='subscribed'/>",
            "<presence to='%' type='subscribed'/>",
            "<presence to='%' type='unsubscribe'/>",
            "<presence to='%' type='unsubscribed'/>",
            "<presence to='%' type='probe'/>",
            "<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='%' subscription='remove'/></query></iq>",
            "<iq type='set' id='1'><block xmlns='urn:xmpp:blocking'><item jid='%'/></block></iq>",
            "<iq type='set' id='1'><unblock xmlns='urn:xmpp:blocking'><item jid='%'/></unblock></iq>",
            "<iq type='set' id='1'><unblock xmlns='urn:xmpp:blocking'/></iq>",
        ]);
        prop_oneof![
            8 => (0..2usize, sends).prop_map(|(resource, xml)| Does::Sends(resource, xml)),
            1 => (0..2usize).prop_map(Does::Closes),
        ]
    }

    /// Two accounts, and for each resource of each which resources of the other its client takes to be there.
    struct Pair {
        scenes: [Scene; 2],
        known: [[BTreeSet<String>; 2]; 2],
    }

    impl Pair {
        fn new() -> Pair {
            Pair { scenes: NAMES.map(|name| account(name).connected("a").connected("b")), known: Default::default() }
        }

        fn act(&mut self, side: usize, act: &Does) {
            let fx = match act {
                Does::Sends(resource, xml) => {
                    let contact = NAMES[1 - side];
                    self.scenes[side].sends(RESOURCES[*resource], &xml.replace('%', contact))
                }
                Does::Closes(resource) => self.scenes[side].closes(RESOURCES[*resource]),
            };
            let mut under_way = VecDeque::new();
            self.happened(side, fx, &mut under_way);
            while let Some((to, xml)) = under_way.pop_front() {
                let fx = self.scenes[to].receive(&xml);
                self.happened(to, fx, &mut under_way);
            }
            if let Does::Closes(resource) = act {
                let scene = std::mem::replace(&mut self.scenes[side], account(NAMES[side]));
                self.scenes[side] = scene.connected(RESOURCES[*resource]);
            }
        }

        fn happened(&mut self, side: usize, fx: Fx, under_way: &mut VecDeque<(usize, String)>) {
            // RFC 6121 §3.3.3: who asks no more knows that it sees nothing any more.
            let is_blind = !self.scenes[side].roster.subscription(&jid(NAMES[1 - side])).to && self.blocks(side);
            for (at, resource) in RESOURCES.iter().enumerate() {
                let known = &mut self.known[side][at];
                for xml in fx.delivered(resource) {
                    let stanza = crate::testing::stanza(&xml);
                    let from = stanza.from.clone().filter(|from| from.bare_str() == NAMES[1 - side]);
                    match (stanza.kind, from) {
                        (StanzaType::Presence(PresenceType::Available), Some(from)) => {
                            known.insert(from.to_string());
                        }
                        (StanzaType::Presence(PresenceType::Unavailable), Some(from)) if from.is_bare() => {
                            known.clear()
                        }
                        (StanzaType::Presence(PresenceType::Unavailable), Some(from)) => {
                            known.remove(from.as_str());
                        }
                        _ => {}
                    }
                }
                let session = self.scenes[side].sessions.iter().find(|s| s.jid.resource_str() == *resource);
                if is_blind || !session.is_some_and(Session::is_available) {
                    known.clear();
                }
            }
            under_way.extend(fx.told().into_iter().map(|(to, xml)| (usize::from(to.starts_with(NAMES[1])), xml)));
        }

        fn blocks(&self, side: usize) -> bool {
            self.scenes[side].blocks.blocks(&jid(NAMES[1 - side]))
        }

        fn check(&self) -> Result<(), TestCaseError> {
            for side in 0..2 {
                if self.blocks(side) {
                    continue;
                }
                let (watcher, other) = (&self.scenes[side], &self.scenes[1 - side]);
                let contact = jid(NAMES[1 - side]);
                let hidden = self.blocks(1 - side);
                let is_there = |s: &&Session| s.is_available();
                let directed = |s: &&Session| s.directed.iter().any(|to| to.bare_str() == NAMES[side]);
                let sees = watcher.roster.subscription(&contact).to && !hidden;
                let must: BTreeSet<String> =
                    other.sessions.iter().filter(|s| sees && is_there(s)).map(|s| s.jid.to_string()).collect();
                let may: BTreeSet<String> = other
                    .sessions
                    .iter()
                    .filter(|s| !hidden && (sees && is_there(s) || directed(s)))
                    .map(|s| s.jid.to_string())
                    .collect();
                for (known, resource) in self.known[side].iter().zip(RESOURCES) {
                    let session = watcher.sessions.iter().find(|s| s.jid.resource_str() == resource);
                    if session.is_some_and(Session::is_available) {
                        prop_assert!(must.is_subset(known), "{resource} of {side} misses some: {known:?}, {must:?}");
                        prop_assert!(known.is_subset(&may), "{resource} of {side} sees ghosts: {known:?}, {may:?}");
                    }
                }
            }
            Ok(())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        /// When nothing is under way, each available resource knows of all resources of the contact that it may see,
        /// and of no ghosts.
        #[test]
        fn clients_know_who_is_there_after_whatever_either_side_does(
            acts in prop::collection::vec((0..2usize, does()), 1..40),
        ) {
            let mut pair = Pair::new();
            for (side, act) in acts {
                pair.act(side, &act);
                pair.check().map_err(|error| TestCaseError::fail(format!("after {act:?} of {side}: {error}")))?;
            }
        }
    }
}
