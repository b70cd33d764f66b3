//! A change of the rules: whoever sees something else now is told, before the change is acknowledged.

use super::document::{Document, Rule};
use super::{Away, Handling, KEY, Rules, sphere};
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::inbox;
use crate::item::{SessionId, Ticket};
use crate::presence;
use crate::session::{self, Session};
use crate::subscription::{self, Act};
use crate::view::{self, Exit, View, view};
use crate::ways::Passage;
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::{BareJid, Jid, PresenceType, Stanza};

/// What the account's watchers were shown at a time.
pub struct Shown {
    by_watcher: Vec<(BareJid, View)>,
    presences: Vec<(SessionId, Arc<Stanza>)>,
}

impl Shown {
    pub fn now(account: &Account) -> Shown {
        let watchers = account.roster.watchers().filter(|watcher| !account.blocks.blocks(watcher));
        let by_watcher = watchers.map(|who| (who.clone(), view(account, who, Exit::Broadcast))).collect();
        Shown { by_watcher, presences: presences(account) }
    }

    fn presence_of(&self, id: SessionId) -> Option<&Arc<Stanza>> {
        self.presences.iter().find(|(session, _)| *session == id).map(|(_, presence)| presence)
    }
}

fn presences(account: &Account) -> Vec<(SessionId, Arc<Stanza>)> {
    account.sessions.iter().filter_map(|session| Some((session.id, session.presence.clone()?))).collect()
}

/// The user is elsewhere now. RFC 4745 §7.2.
pub fn set_sphere(
    account: &mut Account,
    sphere: Vec<Box<str>>,
    bounce: Option<&Arc<Stanza>>,
    ticket: &Ticket,
    fx: &mut Effects,
) {
    let before = Shown::now(account);
    let document = account.rules.document().cloned().unwrap_or_default();
    account.rules = Rules::of(document, sphere, account.rules.away());
    account.sphere = sphere::heard(account, None);
    let mut told = Effects::default();
    retell(account, before, &mut told);
    fx.commit(vec![stored(account)], bounce, ticket);
    fx.list.append(&mut told.list);
    wake(account, fx);
}

/// Time has passed: rules that hold at some times only may say something else. `before` is what was shown.
pub fn tick(account: &mut Account, fx: &mut Effects) {
    let Some(then) = account.rules.told_at() else { return wake(account, fx) };
    if account.rules.next_edge(then).is_none_or(|edge| edge > account.now.utc) {
        return wake(account, fx);
    }
    let now = std::mem::replace(&mut account.now.utc, then);
    let before = Shown::now(account);
    account.now.utc = now;
    retell_by_itself(account, before, fx);
    // What was held back is let in, if it may be now.
    inbox::flush_waiting(account, fx);
    wake(account, fx);
}

/// Nobody has changed the rules; what they say is something else than it was.
fn retell_by_itself(account: &mut Account, before: Shown, fx: &mut Effects) {
    let away = account.rules.away();
    let mut told = Effects::default();
    retell(account, before, &mut told);
    if account.rules.away() != away {
        fx.commit(vec![stored(account)], None, &Ticket::default());
    }
    fx.list.append(&mut told.list);
}

/// Presence has changed, and with it where the user is: `before` is what was shown, of the presence that there was.
pub fn moved(account: &mut Account, sphere: Vec<Box<str>>, before: Shown, fx: &mut Effects) {
    account.sphere = sphere;
    retell_by_itself(account, before, fx);
    inbox::flush_waiting(account, fx);
}

/// A part of the presence is gone, or was published: is the user elsewhere now?
pub fn look_at_sphere(account: &mut Account, fx: &mut Effects) {
    let sphere = sphere::heard(account, None);
    if sphere != account.sphere {
        let before = Shown::now(account);
        moved(account, sphere, before, fx);
    }
}

/// A first session is here: what is said from now on is said as the rules are now.
pub fn begin(account: &mut Account, fx: &mut Effects) {
    if account.sessions.len() == 1 {
        account.rules.told(account.now.utc);
    }
    wake(account, fx);
}

/// Asks to be woken when the rules next say something else, as long as somebody is here.
pub fn wake(account: &mut Account, fx: &mut Effects) {
    let now = account.now;
    if account.sessions.is_empty() || account.rules.document().is_none() {
        return;
    }
    if let Some(edge) = account.rules.next_edge(now.utc) {
        let ms = u64::try_from((edge.0 - now.utc.0).div_euclid(1_000) + 1).unwrap_or(1);
        fx.push(Effect::WakeAt { mono_ms: now.mono_ms.saturating_add(ms) });
    }
}

fn stored(account: &Account) -> Change {
    let value = account.rules.to_stored();
    Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key: KEY.into(), value }
}

/// Replaces the rules; gives the change that stores them, which the caller commits with those in `fx`, before what
/// the watchers hear.
pub fn replace(account: &mut Account, rules: Vec<Rule>, fx: &mut Effects) -> Change {
    let before = Shown::now(account);
    let version = account.rules.version() + 1;
    let sphere = account.rules.sphere().to_vec();
    let away = away_after(account, &rules);
    account.rules = Rules::of(Document { version, rules }, sphere, away);
    account.sphere = sphere::heard(account, None);
    retell(account, before, fx);
    settle(account, fx);
    stored(account)
}

/// The time at which those who are politely blocked saw the user leave stands still from the first such rule on.
fn away_after(account: &Account, rules: &[Rule]) -> Away {
    let is_polite = |rule: &Rule| {
        [rule.actions.subscribe, rule.actions.fetch].contains(&Some(Handling::PoliteBlock)) || rule.shape.is_some()
    };
    if !rules.iter().any(is_polite) {
        return Away::default();
    }
    if account.rules.rules().iter().any(is_polite) {
        return account.rules.away();
    }
    let is_there = account.sessions.iter().any(Session::is_available);
    let since = if is_there { Some((account.now.utc, Box::default())) } else { account.last_activity.clone() };
    Away { since, ..Away::default() }
}

/// Exactly those watchers hear something whose view has changed: what they see now, or that it is gone.
fn retell(account: &mut Account, before: Shown, fx: &mut Effects) {
    let mut classes: Vec<(View, View, Vec<Jid>)> = Vec::new();
    let mut away = account.rules.away();
    let has_rules = account.rules.document().is_some();
    let now = presences(account);
    let is_still = now.len() == before.presences.len()
        && now.iter().zip(&before.presences).all(|(is, was)| is.0 == was.0 && Arc::ptr_eq(&is.1, &was.1));
    let Shown { by_watcher, .. } = &before;
    for (watcher, old) in by_watcher {
        let (watcher, old) = (watcher.clone(), old.clone());
        let new = view(account, &watcher, Exit::Broadcast);
        if new.is_away() {
            if view::sessions(account, &old).next().is_some() {
                away.by_watcher.insert(watcher.as_str().into(), account.now.utc);
            }
        } else if has_rules {
            away.by_watcher.remove(watcher.as_str());
        }
        if is_still && old.same_class(&new) {
            continue;
        }
        match classes.iter_mut().find(|(from, to, _)| from.same_class(&old) && to.same_class(&new)) {
            Some((.., watchers)) => watchers.push(watcher.into()),
            None => classes.push((old, new, vec![watcher.into()])),
        }
    }
    account.rules.set_away(away);
    account.rules.told(account.now.utc);
    for (old, new, watchers) in classes {
        for session in &account.sessions {
            let was = before.presence_of(session.id).and_then(|presence| view::presence_for(&old, presence));
            let is = session.presence.as_ref().and_then(|presence| view::presence_for(&new, presence));
            let stanza = match (was, is) {
                (Some(was), Some(is)) if was.payload.bytes() == is.payload.bytes() => continue,
                (_, Some(is)) => is,
                (Some(was), None) => Arc::new(view::gone(&was)),
                (None, None) => continue,
            };
            presence::fan(account, &stanza, watchers.clone(), fx);
        }
    }
    take_back_directed(account, fx);
}

/// Whoever a rule now hides the account from, by name, sees those leave that addressed him.
fn take_back_directed(account: &mut Account, fx: &mut Effects) {
    let mut gone = Vec::new();
    for session in &account.sessions {
        let hidden = session.directed.iter().filter(|to| !view(account, to, Exit::Directed).shows());
        let hidden: Vec<Jid> = hidden.cloned().collect();
        if !hidden.is_empty() {
            gone.push((session.id, session.jid.clone(), hidden));
        }
    }
    for (id, jid, hidden) in gone {
        if let Some(session) = account.session_mut(id) {
            session.directed.retain(|to| !hidden.contains(to));
        }
        session::touch_ledger(account, id, fx);
        let stanza = Arc::new(Stanza::presence(PresenceType::Unavailable).with_from(jid));
        presence::fan(account, &stanza, hidden, fx);
    }
}

/// Subscriptions follow the rules: those that are now refused end, requests that wait are answered. RFC 5025 §3.2.1.
///
/// Only what a rule says at all times counts: one that holds for hours or in a sphere suspends what is seen, and ends
/// no subscription.
fn settle(account: &mut Account, fx: &mut Effects) {
    let lasting = |who: &Jid| super::decide_lasting(account, who).and_then(|decision| decision.subscribe);
    let mut acts: Vec<(BareJid, Act)> = Vec::new();
    for item in account.roster.all().filter(|item| !account.blocks.blocks(&item.jid)) {
        let state = item.subscription;
        match lasting(&item.jid) {
            Some(Handling::Block) if state.from || state.pending_in || state.approved => {
                acts.push((item.jid.clone(), Act::Unsubscribed));
            }
            Some(Handling::PoliteBlock | Handling::Allow) if state.pending_in => {
                acts.push((item.jid.clone(), Act::Subscribed));
            }
            _ => {}
        }
    }
    for (contact, act) in acts {
        act_as_user(account, &contact, act, fx);
    }
}

/// As if the user's client had sent it. What cannot be done is left: the roster is full.
pub fn act_as_user(account: &mut Account, contact: &BareJid, act: Act, fx: &mut Effects) {
    let stanza = subscription::managing(&account.jid, contact, act, None);
    let mut passage = Passage::of(account, Arc::new(stanza));
    passage.to = contact.clone().into();
    let _ = subscription::outbound(account, &mut passage, fx);
}
