//! Events: who is told of what, and what was published last. XEP-0163 §4.3.

use super::{EVENT, NS};
use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::Iq;
use crate::nodes::{self, SPACE, SendLast, item_key};
use crate::session;
use crate::view::Exit;
use std::sync::Arc;
use xmpp::ns::DELAY;
use xmpp::{Element, Jid, MessageType, Stanza};

/// Items of nodes that a resource is told when it becomes available.
const LAST_MAX: usize = 32;

/// `<item/>` with its payload, in the namespace of events. `None` if the payload cannot be read.
pub(super) fn item(id: &str, payload: &[u8], publisher: Option<&str>) -> Option<Element> {
    let payload = Element::parse(payload, "").ok()?;
    Some(Element::new("item", EVENT).attr("id", id).attr_opt("publisher", publisher).child(payload))
}

/// Whom the node's items name as the one who published them. §7.1.2.3.
pub(super) fn publisher(account: &Account, name: &str) -> Option<String> {
    let names = account.nodes.get(name).is_some_and(|node| node.config.names_publisher);
    names.then(|| account.jid.as_str().to_owned())
}

pub(super) fn notify_published(account: &mut Account, name: &str, items: Vec<Element>, fx: &mut Effects) {
    if account.nodes.get(name).is_some_and(|node| node.config.deliver) {
        notify(account, name, Element::new("items", EVENT).attr("node", name).children_from(items), fx);
    }
}

/// Whom an event is for.
#[derive(Debug, Default)]
pub(super) struct Recipients {
    sessions: Vec<SessionId>,
    others: Vec<Jid>,
}

impl Recipients {
    /// One subscriber, by the address that it gave.
    pub(super) fn one(account: &Account, who: Jid) -> Recipients {
        if !who.same_bare(&account.jid) {
            return Recipients { sessions: Vec::new(), others: vec![who] };
        }
        let is_meant = |session: &&session::Session| *session.jid == who || who.is_bare() && hears_all(session);
        let sessions = account.sessions.iter().filter(is_meant).map(|session| session.id).collect();
        Recipients { sessions, others: Vec::new() }
    }
}

/// Does the session hear what is for the bare JID? RFC 6121 §8.5.2.1.1.
fn hears_all(session: &session::Session) -> bool {
    session.is_available() && session.priority >= 0
}

/// Who is to be told of the node: the own available resources and the clients of contacts that want to, and who has
/// subscribed to it; of all these, who sees it now. XEP-0163 §4.3.
///
/// Who has subscribed by a bare JID, of which there are clients that want to be told, is told by these (§4.3.2).
pub(super) fn recipients(account: &Account, name: &str) -> Recipients {
    let Some(node) = account.nodes.get(name) else { return Recipients::default() };
    let (own, others): (Vec<&Jid>, Vec<&Jid>) = node.subscribers.iter().partition(|who| who.same_bare(&account.jid));
    let wants = |session: &&session::Session| session.is_available() && session.interest.wants(name);
    let mut sessions: Vec<SessionId> = account.sessions.iter().filter(wants).map(|session| session.id).collect();
    let is_wanted = !sessions.is_empty();
    for who in own.into_iter().filter(|who| !(who.is_bare() && is_wanted)) {
        let more = Recipients::one(account, who.clone()).sessions;
        sessions.extend(more.into_iter().filter(|id| !sessions.contains(id)).collect::<Vec<_>>());
    }
    let mut clients: Vec<Jid> = Vec::new();
    if node.is_shared() {
        let sees = |who: &&Jid| nodes::sees(account, who, name, node, Exit::PepEvent);
        clients.extend(account.clients.wanting(name).filter(sees).cloned());
        let is_told = |who: &&Jid| {
            let mut wanting = clients.iter();
            if who.is_bare() {
                wanting.any(|client| client.same_bare(who))
            } else {
                wanting.any(|client| client == *who)
            }
        };
        let more: Vec<Jid> = others.into_iter().filter(sees).filter(|who| !is_told(who)).cloned().collect();
        clients.extend(more);
    }
    Recipients { sessions, others: clients }
}

/// Tells all whom it is for.
pub(super) fn notify(account: &mut Account, name: &str, content: Element, fx: &mut Effects) {
    let recipients = recipients(account, name);
    tell(account, recipients, content, fx);
}

pub(super) fn tell(account: &mut Account, to: Recipients, content: Element, fx: &mut Effects) {
    if to.sessions.is_empty() && to.others.is_empty() {
        return;
    }
    let event = Stanza::message(MessageType::Headline)
        .with_from(account.jid.clone())
        .with_children([Element::new("event", EVENT).child(content)]);
    tell_all(account, to, &Arc::new(event), fx);
}

fn tell_all(account: &mut Account, to: Recipients, event: &Arc<Stanza>, fx: &mut Effects) {
    for id in to.sessions {
        let Some(jid) = account.session(id).map(|session| Jid::from(session.jid.clone())) else { continue };
        let delivery = Delivery { stanza: event.clone(), to: Some(jid), more: Default::default(), position: None };
        session::deliver(account, id, delivery, fx);
    }
    if !to.others.is_empty() {
        fx.push(Effect::Fan { stanza: event.clone(), targets: to.others });
    }
}

/// What was published last at each node that the session's client wants to know of, when it has become available.
/// XEP-0163 §4.3.4.
pub(in crate::modules) fn send_last(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(session) = account.session(id) else { return };
    let wanted = account.nodes.iter().filter(|(name, node)| {
        node.config.send_last == SendLast::OnPresence && node.config.deliver && session.interest.wants(name)
    });
    let keys: Vec<Box<str>> =
        wanted.filter_map(|(name, node)| Some(item_key(name, &node.items.last()?.id))).take(LAST_MAX).collect();
    let Some(presence) = session.presence.clone().filter(|_| !keys.is_empty()) else { return };
    let query = Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys };
    fx.push(Effect::Query { query, iq: presence, session: Some(id), then: tell_last });
}

fn tell_last(account: &mut Account, _: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let (QueryAnswer::Blobs(found), Some(id)) = (came, session) else { return };
    let Some(to) = account.session(id).map(|session| Jid::from(session.jid.clone())) else { return };
    for event in last_events(account, &found) {
        session::deliver(account, id, Delivery::plain(Arc::new(event.with_to(to.clone()))), fx);
    }
}

/// The same for a contact's client that has come. XEP-0163 §4.3.4; `asked` is from it.
pub(in crate::modules) fn send_last_to_contact(account: &Account, asked: &Arc<Stanza>, fx: &mut Effects) {
    let Some(client) = &asked.from else { return };
    let wanted = account.nodes.iter().filter(|(name, node)| {
        node.config.send_last == SendLast::OnPresence
            && node.config.deliver
            && account.clients.wants(client, name)
            && nodes::sees(account, client, name, node, Exit::PepEvent)
    });
    let keys: Vec<Box<str>> =
        wanted.filter_map(|(name, node)| Some(item_key(name, &node.items.last()?.id))).take(LAST_MAX).collect();
    if !keys.is_empty() {
        let query = Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys };
        fx.push(Effect::Query { query, iq: asked.clone(), session: None, then: tell_last_to_contact });
    }
}

fn tell_last_to_contact(
    account: &mut Account,
    asked: &Arc<Stanza>,
    _: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let (QueryAnswer::Blobs(found), Some(client)) = (came, &asked.from) else { return };
    // As it is now: the store took its time.
    let is_seen = |(key, _): &&(Box<str>, Vec<u8>)| {
        let node = key.split_once('\u{1f}').and_then(|(name, _)| Some((name, account.nodes.get(name)?)));
        node.is_some_and(|(name, node)| nodes::sees(account, client, name, node, Exit::PepEvent))
    };
    let found: Vec<_> = found.iter().filter(is_seen).cloned().collect();
    for event in last_events(account, &found) {
        fx.push(Effect::Fan { stanza: Arc::new(event), targets: vec![client.clone()] });
    }
}

/// The same for who has just subscribed by this iq. XEP-0060 §6.1.7.
pub(super) fn send_last_to_subscriber(account: &Account, name: &str, iq: &Iq<'_>, fx: &mut Effects) {
    let node = account.nodes.get(name).filter(|node| node.config.send_last != SendLast::Never && node.config.deliver);
    let Some(last) = node.and_then(|node| node.items.last()) else { return };
    let keys = vec![item_key(name, &last.id)];
    let query = Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys };
    fx.push(Effect::Query { query, iq: iq.stanza.clone(), session: iq.session, then: tell_last_to_subscriber });
}

fn tell_last_to_subscriber(
    account: &mut Account,
    iq: &Arc<Stanza>,
    _: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let (QueryAnswer::Blobs(found), Some(pubsub)) = (came, iq.payload.first().map(|child| child.to_element())) else {
        return;
    };
    let command = pubsub.find("subscribe", NS);
    let named = command.and_then(|command| Some((command.attribute("node")?, command.attribute("jid")?)));
    let Some((name, who)) = named.and_then(|(name, who)| Some((name, Jid::parse(who).ok()?))) else { return };
    // As it is now: the store took its time.
    let is_seen = account.nodes.get(name).is_some_and(|node| {
        let is_own = who.same_bare(&account.jid);
        node.subscribers.contains(&who) && (is_own || nodes::sees(account, &who, name, node, Exit::PepEvent))
    });
    if is_seen {
        for event in last_events(account, &found) {
            tell_all(account, Recipients::one(account, who.clone()), &Arc::new(event), fx);
        }
    }
}

/// An event for each item that was published last and is there still.
fn last_events(account: &Account, found: &[(Box<str>, Vec<u8>)]) -> Vec<Stanza> {
    let event = |(key, payload): &(Box<str>, Vec<u8>)| {
        let (name, item_id) = key.split_once('\u{1f}')?;
        let node = account.nodes.get(name)?;
        let published = node.items.iter().find(|item| *item.id == *item_id)?.published;
        let item = item(item_id, payload, publisher(account, name).as_deref())?;
        let items = Element::new("items", EVENT).attr("node", name).child(item);
        let delay = Element::new("delay", DELAY).attr("stamp", published.to_xmpp());
        let event = Stanza::message(MessageType::Headline).with_from(account.jid.clone());
        Some(event.with_children([Element::new("event", EVENT).child(items), delay]))
    };
    found.iter().filter_map(event).collect()
}
