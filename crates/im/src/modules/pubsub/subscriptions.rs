//! Subscriptions to one node, for who is not told by presence and capabilities alone: XEP-0060 §5.6, §6.1, §6.2, §8.8.
//!
//! There is one state, `subscribed`: who may see a node may subscribe to it, and nobody else. An address has one
//! subscription to a node, so that there are no SubIDs, and no options.

use super::errors::{bad, may_know, may_see, node_of, seen_node, unsupported};
use super::notify::{self, Recipients};
use super::{EVENT, NS, OWNER, commit};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq};
use crate::nodes;
use xmpp::{Element, Jid, StanzaCondition, StanzaError};

/// The address that is to be subscribed. §6.1.3.1.
fn address(command: &Element) -> Result<Jid, StanzaError> {
    let text = command.attribute("jid").ok_or_else(|| bad("jid-required"))?;
    Jid::parse(text).map_err(|_| bad("invalid-jid"))
}

fn subscription(ns: &str, who: &Jid, state: &str) -> Element {
    Element::new("subscription", ns).attr("jid", who.as_str()).attr("subscription", state)
}

fn told(name: &str, who: &Jid, state: &str) -> Handled {
    let subscription = subscription(NS, who, state).attr("node", name);
    Ok(Answer::Result(Some(Element::new("pubsub", NS).child(subscription))))
}

/// §6.1. The last published item follows the answer (§6.1.7).
pub(super) fn subscribe(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = seen_node(account, iq, command)?;
    let who = address(command)?;
    if !who.same_bare(iq.from) {
        return Err(bad("invalid-jid"));
    }
    if iq.child.find("options", NS).is_some_and(|options| options.elements().next().is_some()) {
        // §6.3.7: it would be taken for granted.
        return Err(unsupported("subscription-options"));
    }
    let is_new = account.nodes.get(name).is_some_and(|node| !node.subscribers.contains(&who));
    let changes = nodes::subscribe(account, name, &who)?;
    commit(account, changes, iq, fx);
    if is_new {
        notify::send_last_to_subscriber(account, name, iq, fx);
    }
    told(name, &who, "subscribed")
}

/// §6.2. Who has a subscription may end it, whatever became of the node's access model.
pub(super) fn unsubscribe(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = command.attribute("node").unwrap_or_default();
    let who = address(command);
    let is_subscribed =
        |who: &Jid| account.nodes.get(name).is_some_and(|node| node.subscribers.iter().any(|known| known == who));
    if iq.session.is_none() && !who.as_ref().is_ok_and(|who| who.same_bare(iq.from) && is_subscribed(who)) {
        may_see(account, iq.from, name)?;
    }
    let name = node_of(command)?;
    let who = who?;
    if !who.same_bare(iq.from) {
        return Err(StanzaCondition::Forbidden.into());
    }
    let changes = nodes::unsubscribe(account, name, &who)?;
    commit(account, changes, iq, fx);
    told(name, &who, "none")
}

/// What the asker is subscribed to, under all its addresses; at one node, or all. §5.6.
pub(super) fn own(account: &mut Account, iq: &Iq<'_>, command: &Element) -> Handled {
    let only = command.attribute("node");
    let nodes = account.nodes.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let own = nodes.flat_map(|(name, node)| {
        let own = node.subscribers.iter().filter(|who| who.same_bare(iq.from));
        own.map(move |who| subscription(NS, who, "subscribed").attr("node", name))
    });
    let own: Vec<Element> = own.collect();
    if own.is_empty() {
        may_know(account, iq)?;
    }
    let subscriptions = Element::new("subscriptions", NS).attr_opt("node", only).children_from(own);
    Ok(Answer::Result(Some(Element::new("pubsub", NS).child(subscriptions))))
}

/// All subscriptions to a node, for its owner. §8.8.1.
pub(super) fn list(account: &Account, command: &Element) -> Handled {
    let name = node_of(command)?;
    let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
    let all = node.subscribers.iter().map(|who| subscription(OWNER, who, "subscribed"));
    let all = Element::new("subscriptions", OWNER).attr("node", name).children_from(all);
    Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(all))))
}

/// The owner ends subscriptions: all that are named, or none. Nobody is subscribed who has not asked. §8.8.2, §8.8.3.
///
/// # Errors
/// `not-acceptable` for one that cannot be what it is to be.
pub(super) fn modify(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
    let mut gone: Vec<Jid> = Vec::new();
    for entry in command.elements().filter(|child| child.is("subscription", OWNER)) {
        let who = address(entry)?;
        let is_there = node.subscribers.contains(&who);
        match entry.attribute("subscription") {
            Some("none") if is_there && !gone.contains(&who) => gone.push(who),
            Some("none") | None => {}
            Some("subscribed") if is_there => {}
            Some(_) => return Err(StanzaCondition::NotAcceptable.into()),
        }
    }
    let mut changes = Vec::new();
    for who in &gone {
        // (The last row that is written says it all.)
        changes = nodes::unsubscribe(account, name, who)?;
    }
    commit(account, changes, iq, fx);
    for who in gone {
        let content = subscription(EVENT, &who, "none").attr("node", name);
        notify::tell(account, Recipients::one(account, who), content, fx);
    }
    Ok(Answer::Result(None))
}
