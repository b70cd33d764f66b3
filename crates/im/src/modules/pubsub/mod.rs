//! Personal Eventing, XEP-0163, and Persistent Storage of Private Data, XEP-0223.
//!
//! Every account is a publish-subscribe service (XEP-0060) that its own clients publish to. Others see of a node what its
//! access model and [`crate::view`] allow; to whoever sees nothing there is no service. A publication that asks for what
//! cannot be had fails, so that nothing becomes public by being misunderstood. What a node is and holds stands in
//! [`crate::nodes`], who wants to be told of it in [`super::interest`].
//!
//! A request comes to one of the four handlers below, by its type and namespace, and goes on to the file of what it asks
//! for: `publish` (§7), `owner` (§8, with the form in `configuration`), `items` (§6.5), `subscriptions` and `affiliations`
//! (§5.6, §6.1, §8.8; §5.7, §8.9). `errors` says who may, by [`crate::nodes::sees`], and has the refusals. The node is
//! changed by [`crate::nodes`], which gives what is to be committed; what has happened goes to `notify`, which looks who
//! sees the node now and sends the events.

mod affiliations;
mod configuration;
mod errors;
mod items;
mod notify;
mod owner;
mod publish;
mod subscriptions;

use self::errors::{is_seen, may_know, must_own, unsupported};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Handled, Iq, Module, Who, xep};
use crate::modules::avatar;
use crate::view::Exit;
use store::Change;
use xmpp::{IqType, StanzaCondition};

pub(super) use self::notify::{send_last, send_last_to_contact};
pub(super) use self::publish::publish_aside;

pub const NS: &str = "http://jabber.org/protocol/pubsub";
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
const META_DATA: &str = "http://jabber.org/protocol/pubsub#meta-data";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";

pub static MODULE: Module = Module {
    name: "pubsub",
    specs: &[
        xep(60, "1.28.0")
            .without("all but an account's own nodes; options of subscriptions, publishers besides the owner"),
        xep(163, "1.2.2").without("access model authorize, the publishing resource in events"),
        xep(223, "1.1.1"),
    ],
    // COMPAT: XEP-0163 before 1.2 had the identity at the host, and clients of Smack still look there whether accounts'
    // nodes can have a white list, for OpenPGP's keys. All but the first, which would be a service at the host (XEP-0060
    // §5.1): there is none, and the same clients would take it for one.
    host_features: FEATURES.split_at(1).1,
    account_features: FEATURES,
    identities: &[("pubsub", "pep")],
    account_iq: &[
        (IqType::Get, NS, "pubsub", Who::Viewer(Exit::OpenNode), get),
        (IqType::Set, NS, "pubsub", Who::Viewer(Exit::OpenNode), set),
        (IqType::Get, OWNER, "pubsub", Who::Viewer(Exit::OpenNode), owner::get),
        (IqType::Set, OWNER, "pubsub", Who::Viewer(Exit::OpenNode), owner::set),
    ],
    account_nodes: |account, viewer| {
        let seen = account.nodes.iter().filter(|(name, node)| is_seen(account, viewer, name, node));
        seen.map(|(name, node)| (name.to_owned(), node.config.title.to_string())).collect()
    },
    account_node_items: |account, viewer, name| {
        let node = account.nodes.get(name).filter(|node| is_seen(account, viewer, name, node))?;
        Some(node.items.iter().map(|item| item.id.to_string()).collect())
    },
    account_node_form: |account, name| Some(configuration::meta_data(account, account.nodes.get(name)?)),
    ..Module::EMPTY
};

/// XEP-0060 §10. The first is the protocol.
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
    "http://jabber.org/protocol/pubsub#member-affiliation",
    "http://jabber.org/protocol/pubsub#meta-data",
    "http://jabber.org/protocol/pubsub#modify-affiliations",
    "http://jabber.org/protocol/pubsub#multi-items",
    "http://jabber.org/protocol/pubsub#persistent-items",
    "http://jabber.org/protocol/pubsub#presence-notifications",
    "http://jabber.org/protocol/pubsub#presence-subscribe",
    "http://jabber.org/protocol/pubsub#publish",
    PUBLISH_OPTIONS,
    "http://jabber.org/protocol/pubsub#pubsub-on-a-jid",
    "http://jabber.org/protocol/pubsub#purge-nodes",
    "http://jabber.org/protocol/pubsub#retract-items",
    "http://jabber.org/protocol/pubsub#retrieve-affiliations",
    "http://jabber.org/protocol/pubsub#retrieve-default",
    "http://jabber.org/protocol/pubsub#retrieve-items",
    "http://jabber.org/protocol/pubsub#retrieve-subscriptions",
    "http://jabber.org/protocol/pubsub#rsm",
    "http://jabber.org/protocol/pubsub#subscribe",
];

/// Anybody may ask to be told, or to be told no more; the rest is the owner's.
fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(command) = iq.child.elements().find(|child| *child.ns == *NS) else {
        may_know(account, iq)?;
        return Err(StanzaCondition::BadRequest.into());
    };
    match &*command.name {
        "subscribe" => return subscriptions::subscribe(account, iq, command, fx),
        "unsubscribe" => return subscriptions::unsubscribe(account, iq, command, fx),
        "options" => {
            may_know(account, iq)?;
            return Err(unsupported("subscription-options"));
        }
        _ => must_own(account, iq)?,
    }
    match &*command.name {
        "publish" => publish::publish(account, iq, command, fx),
        "retract" => publish::retract(account, iq, command, fx),
        "create" => owner::create(account, iq, command, fx),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

fn get(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(command) = iq.child.elements().find(|child| *child.ns == *NS) else {
        may_know(account, iq)?;
        return Err(StanzaCondition::BadRequest.into());
    };
    match &*command.name {
        "items" => return items::items(account, iq, command, fx),
        "subscriptions" => return subscriptions::own(account, iq, command),
        "affiliations" => return affiliations::own(account, iq, command),
        _ => may_know(account, iq)?,
    }
    Err(match &*command.name {
        "options" => unsupported("subscription-options"),
        // Of subscriptions (§6.4); that of nodes is the owner's.
        "default" => unsupported("retrieve-default-sub"),
        _ => StanzaCondition::FeatureNotImplemented.into(),
    })
}

fn commit(account: &mut Account, changes: Vec<Change>, iq: &Iq<'_>, fx: &mut Effects) {
    if !changes.is_empty() {
        fx.commit(changes, Some(iq.stanza), iq.ticket);
        avatar::changed(account, fx);
    }
}

#[cfg(test)]
mod tests;
