//! Personal Eventing, XEP-0163, and Persistent Storage of Private Data, XEP-0223.
//!
//! Every account is a publish-subscribe service (XEP-0060) that its own clients publish to. Others see of a node what its
//! access model and [`crate::view`] allow; to whoever sees nothing there is no service. A publication that asks for what
//! cannot be had fails, so that nothing becomes public by being misunderstood. What a node is and holds stands in
//! [`crate::nodes`], who wants to be told of it in [`super::interest`].
//!
//! A request comes to one of the four handlers below, by its type and namespace, and goes on to the file of what it asks
//! for: `publish` (§7), `owner` (§8), `items` (§6.5), `configuration` (the form of §8.2). These decide with
//! [`crate::nodes::sees`] who may, change the node by [`crate::nodes`], commit, and hand what has happened to `notify`,
//! which looks who sees the node now and sends the events. `errors` has the refusals.

mod configuration;
mod errors;
mod items;
mod notify;
mod owner;
mod publish;

use self::items::is_seen;
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Handled, Iq, Module, Who, xep};
use crate::modules::unknown;
use crate::view::Exit;
use store::Change;
use xmpp::{IqType, StanzaCondition};

pub(super) use self::notify::{send_last, send_last_to_contact};
pub(super) use self::publish::publish_aside;

pub const NS: &str = "http://jabber.org/protocol/pubsub";
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

pub static MODULE: Module = Module {
    name: "pubsub",
    specs: &[
        xep(60, "1.28.0")
            .without("all but an account's own nodes; subscriptions to one node, publishers besides the owner"),
        xep(163, "1.2.2").without("access model authorize, names on the whitelist"),
        xep(223, "1.1.1"),
    ],
    // (COMPAT: XEP-0163 before 1.2 had the identity at the host, and some clients still look there.)
    account_features: FEATURES,
    identities: &[("pubsub", "pep")],
    account_iq: &[
        (IqType::Get, NS, "pubsub", Who::Viewer(Exit::OpenNode), get),
        (IqType::Set, NS, "pubsub", Who::Owner, set),
        (IqType::Get, OWNER, "pubsub", Who::Owner, owner::get),
        (IqType::Set, OWNER, "pubsub", Who::Owner, owner::set),
    ],
    account_nodes: |account, viewer| {
        let seen = account.nodes.iter().filter(|(name, node)| is_seen(account, viewer, name, node));
        seen.map(|(name, node)| (name.to_owned(), node.config.title.to_string())).collect()
    },
    account_node_items: |account, viewer, name| {
        let node = account.nodes.get(name).filter(|node| is_seen(account, viewer, name, node))?;
        Some(node.items.iter().map(|item| item.id.to_string()).collect())
    },
    ..Module::EMPTY
};

/// XEP-0060 §10.
const FEATURES: &[&str] = &[
    NS,
    "http://jabber.org/protocol/pubsub#access-open",
    "http://jabber.org/protocol/pubsub#access-presence",
    "http://jabber.org/protocol/pubsub#access-roster",
    "http://jabber.org/protocol/pubsub#access-whitelist",
    "http://jabber.org/protocol/pubsub#auto-create",
    "http://jabber.org/protocol/pubsub#auto-subscribe",
    "http://jabber.org/protocol/pubsub#config-node",
    "http://jabber.org/protocol/pubsub#config-node-max",
    "http://jabber.org/protocol/pubsub#create-and-configure",
    "http://jabber.org/protocol/pubsub#create-nodes",
    "http://jabber.org/protocol/pubsub#delete-items",
    "http://jabber.org/protocol/pubsub#delete-nodes",
    "http://jabber.org/protocol/pubsub#filtered-notifications",
    "http://jabber.org/protocol/pubsub#item-ids",
    "http://jabber.org/protocol/pubsub#last-published",
    "http://jabber.org/protocol/pubsub#multi-items",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#presence-notifications",
    "http://jabber.org/protocol/pubsub#publish",
    PUBLISH_OPTIONS,
    "http://jabber.org/protocol/pubsub#purge-nodes",
    "http://jabber.org/protocol/pubsub#retract-items",
    "http://jabber.org/protocol/pubsub#retrieve-default",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#rsm",
];

fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *NS).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "publish" => publish::publish(account, iq, command, fx),
        "retract" => publish::retract(account, iq, command, fx),
        "create" => owner::create(account, iq, command, fx),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

fn get(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(command) = iq.child.elements().find(|child| *child.ns == *NS) else {
        return Err(if iq.session.is_some() { StanzaCondition::BadRequest.into() } else { unknown() });
    };
    if iq.session.is_none() {
        items::may_have(account, iq.from, command)?;
    }
    match &*command.name {
        "items" => items::items(account, iq, command, fx),
        "default" => configuration::default(NS),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

fn commit(changes: Vec<Change>, iq: &Iq<'_>, fx: &mut Effects) {
    if !changes.is_empty() {
        fx.commit(changes, Some(iq.stanza), iq.ticket);
    }
}

#[cfg(test)]
mod tests;
