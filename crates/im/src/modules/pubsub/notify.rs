//! Events: who is told of what, and what was published last. XEP-0163 §4.3.

use super::EVENT;
use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::modules::plain;
use crate::nodes::{self, Access, Config, SPACE, SendLast, item_key};
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
    let config = account.nodes.get(name).map(|node| node.config.clone()).unwrap_or_else(|| Config::of(name));
    if config.deliver {
        notify(account, name, &config, Element::new("items", EVENT).attr("node", name).children_from(items), fx);
    }
}

/// Tells the own available resources that want to know of the node, and those of contacts who see it. XEP-0163 §4.3.
pub(super) fn notify(account: &mut Account, name: &str, config: &Config, content: Element, fx: &mut Effects) {
    let wants = |session: &&session::Session| session.is_available() && session.interest.wants(name);
    let sessions: Vec<(SessionId, Jid)> =
        account.sessions.iter().filter(wants).map(|session| (session.id, session.jid.clone().into())).collect();
    let contacts: Vec<Jid> = match config.access {
        Access::Whitelist => Vec::new(),
        _ => account
            .clients
            .wanting(name)
            .filter(|client| nodes::sees(account, client, name, config, Exit::PepEvent))
            .cloned()
            .collect(),
    };
    if sessions.is_empty() && contacts.is_empty() {
        return;
    }
    let event = Stanza::message(MessageType::Headline)
        .with_from(account.jid.clone())
        .with_children([Element::new("event", EVENT).child(content)]);
    let event = Arc::new(event);
    for (id, to) in sessions {
        let delivery = Delivery { stanza: event.clone(), to: Some(to), more: Default::default(), position: None };
        session::deliver(account, id, delivery, fx);
    }
    if !contacts.is_empty() {
        fx.push(Effect::Fan { stanza: event, targets: contacts });
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
        session::deliver(account, id, plain(Arc::new(event.with_to(to.clone()))), fx);
    }
}

/// The same for a contact's client that has come. XEP-0163 §4.3.4; `asked` is from it.
pub(in crate::modules) fn send_last_to_contact(account: &Account, asked: &Arc<Stanza>, fx: &mut Effects) {
    let Some(client) = &asked.from else { return };
    let wanted = account.nodes.iter().filter(|(name, node)| {
        node.config.send_last == SendLast::OnPresence
            && node.config.deliver
            && account.clients.wants(client, name)
            && nodes::sees(account, client, name, &node.config, Exit::PepEvent)
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
        node.is_some_and(|(name, node)| nodes::sees(account, client, name, &node.config, Exit::PepEvent))
    };
    let found: Vec<_> = found.iter().filter(is_seen).cloned().collect();
    for event in last_events(account, &found) {
        fx.push(Effect::Fan { stanza: Arc::new(event), targets: vec![client.clone()] });
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
