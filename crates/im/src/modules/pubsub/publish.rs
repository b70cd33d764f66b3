//! What the owner publishes and takes back: XEP-0060 §7.

use super::configuration::{flag, with_fields};
use super::errors::{bad, node_of, refused, unsupported};
use super::notify::{item, notify, notify_published, publisher};
use super::{EVENT, NS, PUBLISH_OPTIONS, commit};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq};
use crate::modules::{data_form, interest};
use crate::nodes::{self, Config, Published};
use std::sync::Arc;
use xmpp::{Element, Stanza, StanzaCondition, StanzaError};

/// §7.1. The answer names the items.
pub(super) fn publish(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let config = options(account, iq.child, name)?;
    let items = items_of(account, command, name, &config)?;
    if items.is_empty() {
        return Err(bad("item-required"));
    }
    let changes = nodes::publish(account, name, &config, &items)?;
    commit(account, changes, iq, fx);
    interest::look_around(account, fx);
    let publisher = publisher(account, name);
    let told: Vec<Element> = items.iter().filter_map(|(id, payload)| item(id, payload, publisher.as_deref())).collect();
    notify_published(account, name, told, fx);
    let ids = items.iter().map(|(id, _)| Element::new("item", NS).attr("id", id));
    let published = Element::new("publish", NS).attr("node", name).children_from(ids);
    Ok(Answer::Result(Some(Element::new("pubsub", NS).child(published))))
}

/// How the node is to be made, if it is not there yet. §7.1.5.
///
/// # Errors
/// `conflict` with `precondition-not-met` if an option is not known, cannot be had, or is not what the node has.
fn options(account: &Account, pubsub: &Element, name: &str) -> Result<Config, StanzaError> {
    let node = account.nodes.get(name).map(|node| &node.config);
    let Some(options) = pubsub.find("publish-options", NS) else {
        return Ok(node.cloned().unwrap_or_else(|| Config::of(name)));
    };
    let unmet = || refused(StanzaCondition::Conflict, "precondition-not-met");
    let form = data_form::submitted(options, &[PUBLISH_OPTIONS]).ok_or(StanzaCondition::BadRequest)?;
    let wanted = with_fields(node.cloned().unwrap_or_else(|| Config::of(name)), form).ok_or_else(unmet)?;
    match node {
        Some(node) if *node != wanted => Err(unmet()),
        _ => Ok(wanted),
    }
}

/// Ids and payloads. An item without an id is given one.
fn items_of(account: &Account, command: &Element, name: &str, config: &Config) -> Result<Vec<Published>, StanzaError> {
    let mut items: Vec<Published> = Vec::new();
    let most = account.policy.limits.pep_items_max;
    for (n, item) in command.elements().filter(|child| child.is("item", NS)).enumerate() {
        if n >= most {
            return Err(refused(StanzaCondition::NotAllowed, "max-items-exceeded").over("pep_items_max"));
        }
        let mut payloads = item.elements();
        let payload = payloads.next().ok_or_else(|| bad("payload-required"))?;
        let is_of_type = config.payload_type.is_empty() || *payload.ns == *config.payload_type;
        if payloads.next().is_some() || !is_of_type {
            // §7.1.3.6.
            return Err(bad("invalid-payload"));
        }
        let id = match item.attribute("id") {
            Some(id) => id.into(),
            None => unused_id(account, name, n),
        };
        items.retain(|(known, _)| *known != id);
        items.push((id, payload.to_bytes("")));
    }
    Ok(items)
}

fn unused_id(account: &Account, name: &str, n: usize) -> Box<str> {
    let known = |id: &str| account.nodes.get(name).is_some_and(|node| node.items.iter().any(|item| *item.id == *id));
    let ids = (account.now.utc.0 + n as i64..).map(|number| format!("{number:x}"));
    // There are fewer items than numbers.
    ids.into_iter().find(|id| !known(id)).unwrap_or_default().into()
}

/// §7.2.
pub(super) fn retract(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let item = command.find("item", NS).and_then(|item| item.attribute("id")).ok_or_else(|| bad("item-required"))?;
    if account.nodes.get(name).is_some_and(|node| !node.config.persist) {
        return Err(unsupported("persistent-items"));
    }
    let changes = nodes::retract(account, name, item)?;
    commit(account, changes, iq, fx);
    let tells = account.nodes.get(name).is_some_and(|node| node.config.notify_retract);
    if tells || command.attribute("notify").and_then(flag) == Some(true) {
        let retract = Element::new("retract", EVENT).attr("id", item);
        notify(account, name, Element::new("items", EVENT).attr("node", name).child(retract), fx);
    }
    Ok(Answer::Result(None))
}

/// Publishes what a client said in passing, by no iq to the node. See [`crate::modules::displayed`],
/// [`crate::modules::avatar`].
pub(in crate::modules) fn publish_aside(
    account: &mut Account,
    name: &str,
    id: &str,
    payload: &Element,
    bounce: Option<&Arc<Stanza>>,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let items = [(id.into(), payload.to_bytes(""))];
    let changes = nodes::publish(account, name, &Config::of(name), &items)?;
    if !changes.is_empty() {
        fx.commit(changes, bounce, &Default::default());
    }
    let told = items.iter().filter_map(|(id, payload)| item(id, payload, None)).collect();
    notify_published(account, name, told, fx);
    Ok(())
}
