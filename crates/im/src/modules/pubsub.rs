//! Personal Eventing, XEP-0163, and Persistent Storage of Private Data, XEP-0223.
//!
//! Every account is a publish-subscribe service (XEP-0060) that its own clients publish to. Others see of a node what its
//! access model and [`crate::view`] allow; to whoever sees nothing there is no service. A publication that asks for what
//! cannot be had fails, so that nothing becomes public by being misunderstood. What a node is and holds stands in
//! [`crate::nodes`], who wants to be told of it in [`super::interest`].

use super::data_form;
use super::rsm;
use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, interest, unexpected, unknown};
use crate::nodes::{self, Access, Config, ERRORS, GROUPS_MAX, Published, SPACE, SendLast, TEXT_BYTES_MAX, item_key};
use crate::rules::Handling;
use crate::session;
use crate::view::{Exit, view};
use std::sync::Arc;
use store::Change;
use xmpp::ns::{DATA_FORM, DELAY};
use xmpp::{Element, IqType, Jid, MessageType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "http://jabber.org/protocol/pubsub";
const OWNER: &str = "http://jabber.org/protocol/pubsub#owner";
const EVENT: &str = "http://jabber.org/protocol/pubsub#event";
const NODE_CONFIG: &str = "http://jabber.org/protocol/pubsub#node_config";
const PUBLISH_OPTIONS: &str = "http://jabber.org/protocol/pubsub#publish-options";
/// Bytes of payloads in one answer; what is beyond is asked for page by page. XEP-0060 §6.5.4.
const ANSWER_BYTES_MAX: usize = 192 << 10;
/// Items of nodes that a resource is told when it becomes available.
const LAST_MAX: usize = 32;

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
        (IqType::Get, OWNER, "pubsub", Who::Owner, owner_get),
        (IqType::Set, OWNER, "pubsub", Who::Owner, owner_set),
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

fn bad(application: &'static str) -> StanzaError {
    StanzaError::from(StanzaCondition::BadRequest).with_application(application, ERRORS)
}

fn node_of(command: &Element) -> Result<&str, StanzaError> {
    command.attribute("node").ok_or_else(|| bad("nodeid-required"))
}

fn commit(changes: Vec<Change>, iq: &Iq<'_>, fx: &mut Effects) {
    if !changes.is_empty() {
        fx.commit(changes, Some(iq.stanza), iq.ticket);
    }
}

// ---- configuration ----

/// Fields whose one value is told and taken, and nothing else; with their types. XEP-0060 §16.4.4.
const FIXED: &[(&str, &str, &str)] = &[
    ("pubsub#publish_model", "list-single", "publishers"),
    ("pubsub#deliver_payloads", "boolean", "1"),
    ("pubsub#notification_type", "list-single", "headline"),
    ("pubsub#notify_config", "boolean", "0"),
    ("pubsub#purge_offline", "boolean", "0"),
    ("pubsub#item_expire", "text-single", "max"),
];

fn flag(value: &str) -> Option<bool> {
    match value {
        "1" | "true" => Some(true),
        "0" | "false" => Some(false),
        _ => None,
    }
}

/// A line of text that people or clients gave.
fn text(value: &str) -> Option<Box<str>> {
    (value.len() <= TEXT_BYTES_MAX).then(|| value.into())
}

/// The configuration with the form's fields applied. `None` if one of them is not known or cannot have that value.
fn with_fields(mut config: Config, form: &Element) -> Option<Config> {
    for field in form.elements().filter(|child| child.is("field", DATA_FORM)) {
        let var = field.attribute("var")?;
        let value = field.find("value", DATA_FORM).map(Element::text_content).unwrap_or_default();
        match var {
            "FORM_TYPE" => {}
            "pubsub#access_model" => config.access = Access::named(&value)?,
            "pubsub#roster_groups_allowed" => {
                let groups = field.elements().filter(|child| child.is("value", DATA_FORM)).map(Element::text_content);
                config.groups = groups.filter(|group| !group.is_empty()).map(Into::into).collect();
                if config.groups.len() > GROUPS_MAX || config.groups.iter().any(|it| it.len() > TEXT_BYTES_MAX) {
                    return None;
                }
            }
            "pubsub#title" => config.title = text(&value)?,
            "pubsub#description" => config.description = text(&value)?,
            "pubsub#type" => config.payload_type = text(&value)?,
            // Only the owner publishes.
            "pubsub#itemreply" => {
                config.names_publisher = match value.as_str() {
                    "owner" | "publisher" => true,
                    "none" => false,
                    _ => return None,
                }
            }
            "pubsub#persist_items" => config.persist = flag(&value)?,
            "pubsub#deliver_notifications" => config.deliver = flag(&value)?,
            "pubsub#notify_retract" => config.notify_retract = flag(&value)?,
            "pubsub#notify_delete" => config.notify_delete = flag(&value)?,
            "pubsub#max_items" if value == "max" => config.items_max = None,
            "pubsub#max_items" => config.items_max = Some(value.parse().ok().filter(|max: &usize| *max > 0)?),
            "pubsub#send_last_published_item" => {
                config.send_last = match value.as_str() {
                    "never" | "on_sub" => SendLast::Never,
                    "on_sub_and_presence" => SendLast::OnPresence,
                    _ => return None,
                }
            }
            _ => {
                let (_, _, only) = FIXED.iter().find(|(known, ..)| *known == var)?;
                let same = value == *only || flag(&value).is_some_and(|value| flag(only) == Some(value));
                if !same {
                    return None;
                }
            }
        }
    }
    Some(config)
}

/// The form of XEP-0060 §8.2, filled in.
fn config_form(config: &Config) -> Element {
    let flag = |value: bool| if value { "1" } else { "0" }.to_owned();
    let send_last = match config.send_last {
        SendLast::Never => "never",
        SendLast::OnPresence => "on_sub_and_presence",
    };
    let one_of = |values: &[&str]| {
        let option =
            |value: &&str| Element::new("option", DATA_FORM).child(Element::new("value", DATA_FORM).text(*value));
        values.iter().map(option).collect::<Vec<_>>()
    };
    let access = data_form::field("pubsub#access_model", [config.access.name()]);
    let access = access.attr("type", "list-single").children_from(one_of(&Access::ALL.map(Access::name)));
    let groups = data_form::field("pubsub#roster_groups_allowed", config.groups.iter().map(|group| &**group));
    let groups = groups.attr("type", "list-multi");
    let reply = if config.names_publisher { "publisher" } else { "none" };
    let reply = data_form::field("pubsub#itemreply", [reply]).attr("type", "list-single");
    let reply = reply.children_from(one_of(&["owner", "publisher", "none"]));
    let fields = [
        ("pubsub#title", "text-single", config.title.to_string()),
        ("pubsub#description", "text-single", config.description.to_string()),
        ("pubsub#type", "text-single", config.payload_type.to_string()),
        ("pubsub#persist_items", "boolean", flag(config.persist)),
        ("pubsub#max_items", "text-single", config.items_max.map_or("max".into(), |max| max.to_string())),
        ("pubsub#deliver_notifications", "boolean", flag(config.deliver)),
        ("pubsub#notify_retract", "boolean", flag(config.notify_retract)),
        ("pubsub#notify_delete", "boolean", flag(config.notify_delete)),
    ];
    let fields = fields.iter().map(|(var, kind, value)| data_form::field(var, [value.as_str()]).attr("type", kind));
    let fixed = FIXED.iter().map(|(var, kind, value)| {
        let options = if *kind == "list-single" { one_of(&[*value]) } else { Vec::new() };
        data_form::field(var, [*value]).attr("type", *kind).children_from(options)
    });
    let last = data_form::field("pubsub#send_last_published_item", [send_last]).attr("type", "list-single");
    let last = last.children_from(one_of(&["never", "on_sub_and_presence"]));
    let form = data_form::form("form", NODE_CONFIG).child(access).child(groups).child(reply).child(last);
    form.children_from(fields).children_from(fixed)
}

/// A submitted configuration applied to `config`.
///
/// # Errors
/// `not-acceptable` for what cannot be had, `bad-request` for a form that is none.
fn submitted(config: Config, configure: &Element) -> Result<Config, StanzaError> {
    let form = data_form::submitted(configure, &[NODE_CONFIG]).ok_or(StanzaCondition::BadRequest)?;
    with_fields(config, form).ok_or_else(|| StanzaCondition::NotAcceptable.into())
}

// ---- publish, retract, create ----

fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *NS).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "publish" => publish(account, iq, command, fx),
        "retract" => retract(account, iq, command, fx),
        "create" => create(account, iq, command, fx),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

/// §7.1. The answer names the items.
fn publish(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let config = options(account, iq.child, name)?;
    let items = items_of(account, command, name)?;
    if items.is_empty() {
        return Err(bad("item-required"));
    }
    let changes = nodes::publish(account, name, &config, &items)?;
    commit(changes, iq, fx);
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
    let unmet = || StanzaError::from(StanzaCondition::Conflict).with_application("precondition-not-met", ERRORS);
    let form = data_form::submitted(options, &[PUBLISH_OPTIONS]).ok_or(StanzaCondition::BadRequest)?;
    let wanted = with_fields(node.cloned().unwrap_or_else(|| Config::of(name)), form).ok_or_else(unmet)?;
    match node {
        Some(node) if *node != wanted => Err(unmet()),
        _ => Ok(wanted),
    }
}

/// Ids and payloads. An item without an id is given one.
fn items_of(account: &Account, command: &Element, name: &str) -> Result<Vec<Published>, StanzaError> {
    let mut items: Vec<Published> = Vec::new();
    let most = account.policy.limits.pep_items_max;
    for (n, item) in command.elements().filter(|child| child.is("item", NS)).enumerate() {
        if n >= most {
            return Err(StanzaError::from(StanzaCondition::NotAllowed)
                .with_application("max-items-exceeded", ERRORS)
                .over("pep_items_max"));
        }
        let mut payloads = item.elements();
        let payload = payloads.next().ok_or_else(|| bad("payload-required"))?;
        if payloads.next().is_some() {
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
fn retract(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let item = command.find("item", NS).and_then(|item| item.attribute("id")).ok_or_else(|| bad("item-required"))?;
    let changes = nodes::retract(account, name, item)?;
    commit(changes, iq, fx);
    let config = account.nodes.get(name).map(|node| node.config.clone()).unwrap_or_default();
    if config.notify_retract || command.attribute("notify").and_then(flag) == Some(true) {
        let retract = Element::new("retract", EVENT).attr("id", item);
        notify(account, name, &config, Element::new("items", EVENT).attr("node", name).child(retract), fx);
    }
    Ok(Answer::Result(None))
}

/// §8.1, §8.1.3.
fn create(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let nameless = || StanzaError::from(StanzaCondition::NotAcceptable).with_application("nodeid-required", ERRORS);
    let name = command.attribute("node").ok_or_else(nameless)?;
    let config = match iq.child.find("configure", NS) {
        Some(configure) if configure.elements().next().is_some() => submitted(Config::of(name), configure)?,
        _ => Config::of(name),
    };
    let changes = nodes::create(account, name, config)?;
    commit(changes, iq, fx);
    interest::look_around(account, fx);
    Ok(Answer::Result(None))
}

// ---- retrieve ----

/// `None`: the owner.
fn is_seen(account: &Account, viewer: Option<&Jid>, name: &str, node: &nodes::Node) -> bool {
    viewer.is_none_or(|viewer| nodes::sees(account, viewer, name, &node.config, Exit::PepItems))
}

/// May somebody else have the items of this node? §6.5.9.
///
/// # Errors
/// What is amiss, for those who may know that there is an account; for everybody else, that of one that does not exist.
fn may_have(account: &Account, watcher: &Jid, command: &Element) -> Result<(), StanzaError> {
    let name = command.attribute("node").filter(|_| command.name == "items".into());
    let node = name.and_then(|name| account.nodes.get(name));
    if name.zip(node).is_some_and(|(name, node)| is_seen(account, Some(watcher), name, node)) {
        return Ok(());
    }
    let view = view(account, watcher, Exit::PepItems);
    if view.handling < Handling::PoliteBlock {
        return Err(unknown());
    }
    let refused = |condition, application| StanzaError::from(condition).with_application(application, ERRORS);
    // Who is politely blocked, or is shown a part, knows of nothing else.
    let is_whole = view.shows() && view.shape.is_none();
    Err(match node.map(|node| node.config.access).filter(|_| is_whole) {
        _ if name.is_none() => StanzaCondition::Forbidden.into(),
        Some(Access::Roster) => refused(StanzaCondition::NotAuthorized, "not-in-roster-group"),
        Some(Access::Whitelist) => refused(StanzaCondition::NotAllowed, "closed-node"),
        None | Some(Access::Open | Access::Presence) => StanzaCondition::ItemNotFound.into(),
    })
}

fn get(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(command) = iq.child.elements().find(|child| *child.ns == *NS) else {
        return Err(if iq.session.is_some() { StanzaCondition::BadRequest.into() } else { unknown() });
    };
    if iq.session.is_none() {
        may_have(account, iq.from, command)?;
    }
    match &*command.name {
        "items" => items(account, iq, command, fx),
        "default" => default(NS),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

/// §6.5: all, the most recent, some by id, or a page; the last published last.
fn items(account: &mut Account, iq: &Iq<'_>, command: &Element, _: &mut Effects) -> Handled {
    let wanted = Wanted::of(account, iq.child, command)?;
    let keys = wanted.ids.iter().map(|id| item_key(wanted.node, id)).collect();
    Ok(Answer::Query(Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys }, show_items))
}

/// The items that a request wants.
struct Wanted<'a> {
    node: &'a str,
    ids: Vec<Box<str>>,
    /// Index of the first, and how many there are in all; when not all are told.
    part: Option<(usize, usize)>,
}

impl<'a> Wanted<'a> {
    fn of(account: &Account, pubsub: &Element, command: &'a Element) -> Result<Wanted<'a>, StanzaError> {
        let name = node_of(command)?;
        let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
        let named: Vec<&str> = command.elements().filter_map(|item| item.attribute("id")).collect();
        let bad_request = || StanzaError::from(StanzaCondition::BadRequest);
        let newest = match command.attribute("max_items") {
            Some(max) => Some(max.parse::<usize>().map_err(|_| bad_request())?),
            None => None,
        };
        let all: Vec<&nodes::Item> =
            node.items.iter().filter(|item| named.is_empty() || named.contains(&&*item.id)).collect();
        let from = newest.map_or(0, |newest| all.len().saturating_sub(newest));
        let (mut from, mut to) = (from, all.len());
        let mut backwards = newest.is_some();
        if let Some(set) = pubsub.find("set", rsm::NS) {
            let at = |name: &str| -> Result<Option<usize>, StanzaError> {
                let Some(id) = set.find(name, rsm::NS).map(Element::text_content).filter(|id| !id.is_empty()) else {
                    return Ok(None);
                };
                let at = all.iter().position(|item| *item.id == *id);
                Ok(Some(at.ok_or(StanzaCondition::ItemNotFound)?))
            };
            from = at("after")?.map_or(from, |at| at + 1);
            to = at("before")?.unwrap_or(to).max(from);
            backwards = set.find("before", rsm::NS).is_some();
            if let Some(max) = set.find("max", rsm::NS) {
                let max: usize = max.text_content().trim().parse().map_err(|_| bad_request())?;
                if backwards {
                    from = from.max(to.saturating_sub(max));
                } else {
                    to = to.min(from.saturating_add(max));
                }
            }
        }
        let part = &all[from..to];
        let mut bytes = 0;
        let mut fits = |item: &&&nodes::Item| {
            bytes += item.bytes + item.id.len();
            bytes <= ANSWER_BYTES_MAX || bytes == item.bytes + item.id.len()
        };
        let count = match backwards {
            true => part.iter().rev().take_while(&mut fits).count(),
            false => part.iter().take_while(&mut fits).count(),
        };
        let shown = if backwards { &part[part.len() - count..] } else { &part[..count] };
        let first = if backwards { to - count } else { from };
        let ids = shown.iter().map(|item| item.id.clone()).collect();
        let is_part = count < all.len() || pubsub.find("set", rsm::NS).is_some();
        Ok(Wanted { node: name, ids, part: is_part.then_some((first, all.len())) })
    }
}

fn show_items(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let found = match came {
        QueryAnswer::Blobs(found) => Ok(found),
        other => Err(unexpected(other)),
    };
    let content = found.and_then(|found| {
        let pubsub = iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element();
        let command = pubsub.find("items", NS).ok_or(StanzaCondition::BadRequest)?;
        // As the node was when the store was asked: an item that went since is not in `found`.
        let node = node_of(command)?;
        let publisher = publisher(account, node);
        let items =
            found.iter().filter_map(|(key, payload)| item(key.split_once('\u{1f}')?.1, payload, publisher.as_deref()));
        let items: Vec<Element> = items.map(|item| in_namespace(item, NS)).collect();
        let wanted = Wanted::of(account, &pubsub, command).ok();
        let set = wanted.and_then(|wanted| wanted.part).map(|(index, count)| {
            let id = |item: Option<&Element>| item.and_then(|item| item.attribute("id")).map(str::to_owned);
            let first =
                id(items.first()).map(|id| Element::new("first", rsm::NS).attr("index", index.to_string()).text(id));
            let last = id(items.last()).map(|id| Element::new("last", rsm::NS).text(id));
            let count = Element::new("count", rsm::NS).text(count.to_string());
            Element::new("set", rsm::NS).children_from(first).children_from(last).child(count)
        });
        let items = Element::new("items", NS).attr("node", node).children_from(items);
        Ok(Element::new("pubsub", NS).child(items).children_from(set))
    });
    answer(account, iq, session, content.map(Some), fx);
}

/// §8.3; for `NS` and for the owner.
fn default(ns: &str) -> Handled {
    let default = Element::new("default", ns).child(config_form(&Config::default()));
    Ok(Answer::Result(Some(Element::new("pubsub", ns).child(default))))
}

// ---- what an owner does ----

fn owner_get(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "configure" => {
            let name = node_of(command)?;
            let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
            let configure = Element::new("configure", OWNER).attr("node", name).child(config_form(&node.config));
            Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(configure))))
        }
        "default" => default(OWNER),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

fn owner_set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    let name = node_of(command)?;
    match &*command.name {
        "configure" => {
            let form = command.find("x", DATA_FORM).ok_or(StanzaCondition::BadRequest)?;
            let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
            if form.attribute("type") != Some("cancel") {
                let config = submitted(node.config.clone(), command)?;
                let changes = nodes::configure(account, name, config)?;
                commit(changes, iq, fx);
                interest::look_around(account, fx);
            }
        }
        "purge" => {
            let changes = nodes::purge(account, name)?;
            commit(changes, iq, fx);
            let config = account.nodes.get(name).map(|node| node.config.clone()).unwrap_or_default();
            notify(account, name, &config, Element::new("purge", EVENT).attr("node", name), fx);
        }
        "delete" => {
            let config = account.nodes.get(name).map(|node| node.config.clone());
            let changes = nodes::delete(account, name)?;
            commit(changes, iq, fx);
            if let Some(config) = config.filter(|config| config.notify_delete) {
                notify(account, name, &config, Element::new("delete", EVENT).attr("node", name), fx);
            }
        }
        _ => return Err(StanzaCondition::FeatureNotImplemented.into()),
    }
    Ok(Answer::Result(None))
}

// ---- events ----

/// `<item/>` with its payload, in the namespace of events. `None` if the payload cannot be read.
fn item(id: &str, payload: &[u8], publisher: Option<&str>) -> Option<Element> {
    let payload = Element::parse(payload, "").ok()?;
    Some(Element::new("item", EVENT).attr("id", id).attr_opt("publisher", publisher).child(payload))
}

/// Whom the node's items name as the one who published them. §7.1.2.3.
fn publisher(account: &Account, name: &str) -> Option<String> {
    let names = account.nodes.get(name).is_some_and(|node| node.config.names_publisher);
    names.then(|| account.jid.as_str().to_owned())
}

fn in_namespace(element: Element, ns: &str) -> Element {
    Element { ns: ns.into(), ..element }
}

/// Publishes without being asked by an iq: what a client said in passing. See [`super::displayed`].
pub(super) fn publish_aside(
    account: &mut Account,
    name: &str,
    id: &str,
    payload: &Element,
    bounce: Option<&Arc<Stanza>>,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let items = [(id.into(), payload.to_bytes(""))];
    let changes = nodes::publish(account, name, &Config::private(), &items)?;
    if !changes.is_empty() {
        fx.commit(changes, bounce, &Default::default());
    }
    let told = items.iter().filter_map(|(id, payload)| item(id, payload, None)).collect();
    notify_published(account, name, told, fx);
    Ok(())
}

fn notify_published(account: &mut Account, name: &str, items: Vec<Element>, fx: &mut Effects) {
    let config = account.nodes.get(name).map(|node| node.config.clone()).unwrap_or_else(|| Config::of(name));
    if config.deliver {
        notify(account, name, &config, Element::new("items", EVENT).attr("node", name).children_from(items), fx);
    }
}

/// Tells the own available resources that want to know of the node, and those of contacts who see it. XEP-0163 §4.3.
fn notify(account: &mut Account, name: &str, config: &Config, content: Element, fx: &mut Effects) {
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
pub(super) fn send_last(account: &mut Account, id: SessionId, fx: &mut Effects) {
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
        session::deliver(account, id, super::plain(Arc::new(event.with_to(to.clone()))), fx);
    }
}

/// The same for a contact's client that has come. XEP-0163 §4.3.4; `asked` is from it.
pub(super) fn send_last_to_contact(account: &Account, asked: &Arc<Stanza>, fx: &mut Effects) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account, contact};
    use std::collections::BTreeMap;
    use store::SETTINGS;

    const NODE: &str = "urn:example:rooms";
    const PRIVATE: &str = "<field var='pubsub#persist_items'><value>true</value></field>\
        <field var='pubsub#max_items'><value>max</value></field>\
        <field var='pubsub#send_last_published_item'><value>never</value></field>\
        <field var='pubsub#access_model'><value>whitelist</value></field>";

    /// An account and what its store holds.
    struct Stage {
        scene: Scene,
        blobs: BTreeMap<(Box<str>, Box<str>), Vec<u8>>,
    }

    impl Stage {
        fn new() -> Stage {
            let scene = account("juliet@capulet.example").with("balcony", 0).with("chamber", 0);
            let mut stage = Stage { scene, blobs: BTreeMap::new() };
            for resource in ["balcony", "chamber"] {
                stage.wants(resource, NODE);
            }
            stage
        }

        fn wants(&mut self, resource: &str, node: &str) {
            let caps =
                "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";
            self.scene.sends(resource, caps);
            let info = format!(
                "<iq type='result' id='waft-interest-1'><query xmlns='http://jabber.org/protocol/disco#info'>\
                 <feature var='{node}+notify'/></query></iq>"
            );
            let fx = self.scene.sends(resource, &info);
            self.settle(fx);
        }

        /// What a step gave, with the store's answers to what it asked.
        fn settle(&mut self, fx: Fx) -> Vec<(String, String)> {
            let mut heard = Vec::new();
            for change in fx.commits() {
                match change {
                    Change::BlobPut { space, key, value, .. } => drop(self.blobs.insert((space, key), value)),
                    Change::BlobDelete { space, key, .. } => drop(self.blobs.remove(&(space, key))),
                    _ => {}
                }
            }
            for resource in ["balcony", "chamber"] {
                heard.extend(fx.delivered(resource).into_iter().map(|xml| (resource.to_owned(), xml)));
            }
            for effect in fx.list {
                let Effect::Query { query: Query::Blobs { space, keys, .. }, iq, session, then } = effect else {
                    continue;
                };
                let found = keys.into_iter().filter_map(|key| {
                    let value = self.blobs.get(&(space.clone(), key.clone()))?.clone();
                    Some((key, value))
                });
                let answer = QueryAnswer::Blobs(found.collect());
                let fx = self.scene.item(Item::Answered { iq, session, answer, then });
                heard.extend(self.settle(fx));
            }
            heard
        }

        fn asks(&mut self, kind: &str, ns: &str, content: &str) -> Vec<(String, String)> {
            let iq = format!("<iq type='{kind}' id='p1'><pubsub xmlns='{ns}'>{content}</pubsub></iq>");
            let fx = self.scene.sends("balcony", &iq);
            self.settle(fx)
        }

        fn publishes(&mut self, id: &str, options: &str) -> Vec<(String, String)> {
            let options = format!(
                "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                 <value>{PUBLISH_OPTIONS}</value></field>{options}</x></publish-options>"
            );
            let item = format!("<item id='{id}'><conference xmlns='{NODE}' name='{id}'/></item>");
            self.asks("set", NS, &format!("<publish node='{NODE}'>{item}</publish>{options}"))
        }

        fn items(&mut self, content: &str) -> String {
            self.asks("get", NS, content).pop().expect("an answer").1
        }
    }

    fn ids(answer: &str) -> Vec<&str> {
        answer.split("<item id='").skip(1).filter_map(|rest| rest.split('\'').next()).collect()
    }

    // XEP-0223 §1.2: example 2; XEP-0060 §7.1.2.
    #[test]
    fn what_is_published_is_told_to_the_own_resources_and_answered_behind_the_commit() {
        let mut stage = Stage::new();
        let heard = stage.publishes("room@muc.example", PRIVATE);
        let event = |resource: &str| {
            (
                resource.to_owned(),
                format!(
                    "<message from='juliet@capulet.example' to='juliet@capulet.example/{resource}' type='headline'>\
                 <event xmlns='{EVENT}'><items node='{NODE}'><item id='room@muc.example'>\
                 <conference xmlns='{NODE}' name='room@muc.example'/></item></items></event></message>"
                ),
            )
        };
        assert_eq!(heard[0], event("balcony"));
        assert_eq!(heard[2], event("chamber"));
        assert!(heard[1].1.contains(&format!(
            "type='result'><pubsub xmlns='{NS}'><publish node='{NODE}'><item id='room@muc.example'/></publish></pubsub>"
        )));
        let stored = stage.items(&format!("<items node='{NODE}'/>"));
        assert!(stored.contains(&format!("<conference xmlns='{NODE}' name='room@muc.example'/>")), "{stored}");
    }

    #[test]
    fn who_does_not_want_to_know_is_not_told() {
        let mut stage = Stage::new();
        stage.scene.sends("chamber", "<presence/>");
        let heard = stage.publishes("1", PRIVATE);
        assert_eq!(heard.iter().filter(|(resource, _)| resource == "chamber").count(), 0, "{heard:?}");
    }

    // LIMITS.md §2 row 17; XEP-0060 §7.1.5.
    #[test]
    fn options_are_honoured_or_the_publication_fails() {
        for (options, succeeds) in [
            (PRIVATE, true),
            ("", true),
            ("<field var='pubsub#access_model'><value>open</value></field>", true),
            ("<field var='pubsub#access_model'><value>presence</value></field>", true),
            ("<field var='pubsub#access_model'><value>roster</value></field>", true),
            ("<field var='pubsub#access_model'><value>authorize</value></field>", false),
            ("<field var='pubsub#itemreply'><value>publisher</value></field>", true),
            ("<field var='pubsub#publish_model'><value>open</value></field>", false),
            ("<field var='pubsub#max_items'><value>0</value></field>", false),
            ("<field var='pubsub#something_else'><value>1</value></field>", false),
        ] {
            let mut stage = Stage::new();
            let heard = stage.publishes("1", options);
            assert_eq!(heard.iter().any(|(_, xml)| xml.contains("type='result'")), succeeds, "{options} {heard:?}");
            if !succeeds {
                let error = &heard[0].1;
                assert!(error.contains("<conflict") && error.contains("<precondition-not-met"), "{error}");
                assert_eq!(stage.blobs.len(), 0);
            }
        }
    }

    #[test]
    fn a_node_that_is_otherwise_configured_takes_no_publication_until_it_is_configured_anew() {
        let mut stage = Stage::new();
        stage.publishes("1", "");
        assert!(stage.publishes("2", PRIVATE)[0].1.contains("<precondition-not-met"));
        let configure = format!(
            "<configure node='{NODE}'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>{NODE_CONFIG}</value></field>{PRIVATE}</x></configure>"
        );
        assert!(stage.asks("set", OWNER, &configure)[0].1.contains("type='result'"));
        stage.publishes("2", PRIVATE);
        assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["1", "2"]);
    }

    #[test]
    fn a_node_of_one_item_keeps_the_last() {
        let mut stage = Stage::new();
        stage.publishes("1", "");
        stage.publishes("2", "");
        assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["2"]);
        assert_eq!(stage.blobs.iter().filter(|((space, _), _)| &**space == SPACE).count(), 1);
    }

    // XEP-0060 §6.5.
    #[test]
    fn items_are_told_by_number_by_id_and_page_by_page() {
        let mut stage = Stage::new();
        for id in ["a", "b", "c", "d"] {
            stage.publishes(id, PRIVATE);
        }
        let set = |content: &str| format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>");
        let items = format!("<items node='{NODE}'/>");
        for (request, expected) in [
            (items.clone(), vec!["a", "b", "c", "d"]),
            (format!("<items node='{NODE}' max_items='2'/>"), vec!["c", "d"]),
            (format!("<items node='{NODE}'><item id='b'/><item id='x'/></items>"), vec!["b"]),
            (format!("{items}{}", set("<max>3</max>")), vec!["a", "b", "c"]),
            (format!("{items}{}", set("<max>3</max><after>c</after>")), vec!["d"]),
            (format!("{items}{}", set("<max>2</max><before/>")), vec!["c", "d"]),
            (format!("{items}{}", set("<max>2</max><before>c</before>")), vec!["a", "b"]),
        ] {
            let answer = stage.items(&request);
            assert_eq!(ids(&answer), expected, "{request}");
        }
        let page = stage.items(&format!("{items}{}", set("<max>1</max><after>a</after>")));
        assert!(page.contains("<first index='1'>b</first><last>b</last><count>4</count>"), "{page}");
        let gone = stage.items(&format!("{items}{}", set("<after>x</after>")));
        assert!(gone.contains("<item-not-found"), "{gone}");
    }

    #[test]
    fn an_answer_is_cut_to_its_bound_and_says_so() {
        let mut stage = Stage::new();
        let text = "x".repeat(60 << 10);
        for id in ["a", "b", "c", "d"] {
            let item = format!("<item id='{id}'><note xmlns='urn:n'>{text}</note></item>");
            stage.asks("set", NS, &format!("<publish node='n'>{item}</publish>"));
            if id == "a" {
                let form = format!(
                    "<configure node='n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                     <value>{NODE_CONFIG}</value></field>{PRIVATE}</x></configure>"
                );
                stage.asks("set", OWNER, &form);
            }
        }
        let answer = stage.items("<items node='n'/>");
        assert_eq!(ids(&answer), ["a", "b", "c"]);
        assert!(answer.contains("<last>c</last><count>4</count>"));
    }

    // XEP-0060 §7.2, §8.4, §8.5.
    #[test]
    fn items_and_nodes_go_and_the_own_resources_hear_of_it() {
        let mut stage = Stage::new();
        stage.publishes("1", PRIVATE);
        stage.publishes("2", PRIVATE);
        let heard = stage.asks("set", NS, &format!("<retract node='{NODE}'><item id='1'/></retract>"));
        assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<retract id='1'/>")), "{heard:?}");
        assert!(
            stage.asks("set", NS, &format!("<retract node='{NODE}'><item id='1'/></retract>"))[0]
                .1
                .contains("<item-not-found")
        );
        let heard = stage.asks("set", OWNER, &format!("<purge node='{NODE}'/>"));
        assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<purge node=")), "{heard:?}");
        let heard = stage.asks("set", OWNER, &format!("<delete node='{NODE}'/>"));
        assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<delete node=")), "{heard:?}");
        assert_eq!(stage.blobs.len(), 0);
        assert!(stage.items(&format!("<items node='{NODE}'/>")).contains("<item-not-found"));
    }

    // XEP-0163 §4.3.3, §4.3.4.
    #[test]
    fn a_resource_that_becomes_available_is_told_the_last_item_where_the_node_says_so() {
        for (options, told) in [("", 1), (PRIVATE, 0)] {
            let mut stage = Stage::new();
            stage.publishes("1", options);
            stage.scene.sends("chamber", "<presence type='unavailable'/>");
            let caps =
                "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";
            let fx = stage.scene.sends("chamber", caps);
            let heard = stage.settle(fx);
            let events = heard.iter().filter(|(_, xml)| xml.contains("<event ")).collect::<Vec<_>>();
            assert_eq!(events.len(), told, "{events:?}");
            assert!(
                events.iter().all(|(r, xml)| r == "chamber" && xml.contains("<delay xmlns='urn:xmpp:delay' stamp="))
            );
            let fx = stage.scene.sends("chamber", caps);
            assert!(stage.settle(fx).iter().all(|(_, xml)| !xml.contains("<event ")));
        }
    }

    #[test]
    fn what_is_published_is_there_after_a_restart() {
        let mut stage = Stage::new();
        stage.publishes("1", PRIVATE);
        let settings = stage.blobs.iter().filter(|((space, _), _)| **space == *SETTINGS);
        let settings = settings.map(|((_, key), value)| (key.clone(), value.clone())).collect();
        let stored = store::AccountRecord { settings, ..Default::default() };
        stage.scene = crate::testing::account_with("juliet@capulet.example", stored).with("balcony", 0);
        assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["1"]);
    }

    // XEP-0490 §4.5.
    #[test]
    fn a_marker_for_the_own_clients_is_cut_out_of_the_message_and_published() {
        let mut stage = Stage::new();
        stage.wants("chamber", crate::modules::displayed::NS);
        let marker = "<displayed xmlns='urn:xmpp:mds:displayed:0'>\
            <stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='0f71'/></displayed>";
        let shown = "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>";
        let fx =
            stage.scene.sends("balcony", &format!("<message to='romeo@montague.example'>{shown}{marker}</message>"));
        let told = fx.told();
        assert!(told[0].1.contains(shown) && !told[0].1.contains("mds"), "{told:?}");
        assert!(fx.appended().iter().all(|record| !String::from_utf8_lossy(&record.stanza).contains("mds")));
        stage.settle(fx);
        let answer = stage.items("<items node='urn:xmpp:mds:displayed:0'/>");
        assert!(answer.contains(&format!("<item id='romeo@montague.example'>{marker}</item>")), "{answer}");
        let nothing_else =
            stage.scene.sends("balcony", &format!("<message to='romeo@montague.example'>{marker}</message>"));
        assert!(nothing_else.told().is_empty() && nothing_else.delivered("balcony")[0].contains("<bad-request"));
    }

    fn with_access(model: &str) -> String {
        format!(
            "<field var='pubsub#access_model'><value>{model}</value></field>\
             <field var='pubsub#roster_groups_allowed'><value>Friends</value></field>"
        )
    }

    /// Romeo is a friend, the nurse is a contact; nobody knows Tybalt.
    fn with_contacts() -> Stage {
        let friend = store::RosterItem { groups: vec!["Friends".into()], ..contact("romeo@montague.example", "both") };
        let roster = vec![friend, contact("nurse@capulet.example", "from")];
        let stored = store::AccountRecord { roster, ..Default::default() };
        let scene = crate::testing::account_with("juliet@capulet.example", stored).with("balcony", 0);
        Stage { scene, blobs: BTreeMap::new() }
    }

    fn told(fx: Fx, stage: &mut Stage) -> Vec<String> {
        let mut all: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
        for effect in fx.list {
            if let Effect::Query { query: Query::Blobs { space, keys, .. }, iq, session, then } = effect {
                let found = keys.into_iter().filter_map(|key| {
                    let value = stage.blobs.get(&(space.clone(), key.clone()))?.clone();
                    Some((key, value))
                });
                let answer = QueryAnswer::Blobs(found.collect());
                let fx = stage.scene.item(Item::Answered { iq, session, answer, then });
                all.extend(fx.told().into_iter().map(|(_, xml)| xml));
            }
        }
        all
    }

    // XEP-0060 §4.5, §6.5.9.
    #[test]
    fn who_sees_a_node_is_what_its_access_model_says() {
        let heard = |access: &str, watcher: &str, node: &str| {
            let mut stage = with_contacts();
            stage.publishes("1", &with_access(access));
            let fx = stage.scene.receive(&format!(
                "<iq type='get' id='d' from='{watcher}/x'><pubsub xmlns='{NS}'><items node='{node}'/></pubsub></iq>"
            ));
            told(fx, &mut stage).pop().expect("an answer")
        };
        let (romeo, nurse, tybalt) = ("romeo@montague.example", "nurse@capulet.example", "tybalt@capulet.example");
        for (access, watcher, expected) in [
            ("open", romeo, "<item id='1'>"),
            ("open", tybalt, "<item id='1'>"),
            ("presence", nurse, "<item id='1'>"),
            ("presence", tybalt, "<service-unavailable "),
            ("roster", romeo, "<item id='1'>"),
            ("roster", nurse, "<not-in-roster-group "),
            ("roster", tybalt, "<service-unavailable "),
            ("whitelist", romeo, "<closed-node "),
            ("whitelist", tybalt, "<service-unavailable "),
        ] {
            let answer = heard(access, watcher, NODE);
            assert!(answer.contains(expected), "{access} {watcher}: {answer}");
        }
        assert!(heard("open", romeo, "nothing").contains("<item-not-found "));
        assert!(heard("open", tybalt, "nothing").contains("<service-unavailable "));
        // A rule and the block list say more than the node.
        let mut stage = with_contacts();
        stage.publishes("1", &with_access("open"));
        stage.scene.sends(
            "balcony",
            &format!("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{tybalt}'/></block></iq>"),
        );
        let fx = stage.scene.receive(&format!(
            "<iq type='get' id='d' from='{tybalt}/x'><pubsub xmlns='{NS}'><items node='{NODE}'/></pubsub></iq>"
        ));
        assert!(fx.told()[0].1.contains("<service-unavailable "));
    }

    // LIMITS.md §2 row 17.
    #[test]
    fn what_clients_keep_for_themselves_is_private_though_they_do_not_say_so() {
        let mut stage = with_contacts();
        stage.asks(
            "set",
            NS,
            "<publish node='urn:xmpp:bookmarks:1'><item id='a'><conference xmlns='x'/></item></publish>",
        );
        let fx = stage.scene.receive(&format!(
            "<iq type='get' id='d' from='romeo@montague.example/x'><pubsub xmlns='{NS}'>\
             <items node='urn:xmpp:bookmarks:1'/></pubsub></iq>"
        ));
        assert!(fx.told()[0].1.contains("<closed-node "), "{:?}", fx.told());
        assert_eq!(Config::of("urn:xmpp:avatar:metadata").access, Access::Presence);
    }

    const COMES: &str = "<presence from='romeo@montague.example/orchard'>\
        <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";

    fn interested(number: u32) -> String {
        format!(
            "<iq type='result' id='waft-interest-{number}' from='romeo@montague.example/orchard' \
             to='juliet@capulet.example'><query xmlns='http://jabber.org/protocol/disco#info'>\
             <feature var='{NODE}+notify'/></query></iq>"
        )
    }

    // XEP-0163 §4.3.
    #[test]
    fn a_contacts_client_is_asked_what_it_wants_and_told_that_and_no_more() {
        let mut stage = with_contacts();
        stage.publishes("1", "");
        let asked = stage.scene.receive(COMES).told();
        assert!(asked.iter().any(|(to, xml)| to == "romeo@montague.example/orchard" && xml.contains("node='n#1'")));
        // What was published last, as it has just come.
        let fx = stage.scene.receive(&interested(1));
        let last = told(fx, &mut stage);
        assert!(last.len() == 1 && last[0].contains("<item id='1'>") && last[0].contains("<delay "), "{last:?}");
        // The same again is no news.
        assert!(stage.scene.receive(COMES).told().is_empty());
        assert!(stage.scene.receive(&interested(1)).told().is_empty());
        let event = |stage: &mut Stage, node: &str, options: &str| {
            let fx = stage.scene.sends("balcony", &format!(
                "<iq type='set' id='p'><pubsub xmlns='{NS}'><publish node='{node}'><item id='2'><a xmlns='b'/></item>\
                 </publish>{options}</pubsub></iq>"
            ));
            fx.told().into_iter().filter(|(_, xml)| xml.contains("<event ")).map(|(to, _)| to).collect::<Vec<_>>()
        };
        assert_eq!(event(&mut stage, NODE, ""), ["romeo@montague.example/orchard"]);
        assert!(event(&mut stage, "urn:other", "").is_empty());
        // No subscription, no events; nor for a client that has gone.
        stage.scene.receive("<presence from='romeo@montague.example/orchard' type='unavailable'/>");
        assert!(event(&mut stage, NODE, "").is_empty());
        stage.scene.receive(COMES);
        stage.scene.receive(&interested(2));
        assert_eq!(event(&mut stage, NODE, "").len(), 1);
        stage.scene.sends("balcony", "<presence type='unsubscribed' to='romeo@montague.example'/>");
        assert!(event(&mut stage, NODE, "").is_empty());
    }

    #[test]
    fn contacts_that_were_there_before_the_first_node_are_told_too() {
        let mut stage = with_contacts();
        assert!(stage.scene.receive(COMES).told().is_empty());
        stage.publishes("1", "");
        let last = {
            let fx = stage.scene.receive(&interested(1));
            told(fx, &mut stage)
        };
        assert!(last.len() == 1 && last[0].contains("<item id='1'>"), "{last:?}");
    }

    #[test]
    fn an_answer_that_was_not_asked_for_says_nothing() {
        let mut stage = with_contacts();
        stage.publishes("1", "");
        assert!(stage.scene.receive(&interested(1)).told().is_empty());
        stage.scene.receive(COMES);
        assert!(stage.scene.receive(&interested(7)).told().is_empty());
        assert_eq!(stage.scene.clients.wanting(NODE).count(), 0);
    }

    // XEP-0060 §5.2; nothing of it for strangers.
    #[test]
    fn private_nodes_are_shown_to_their_owner_alone() {
        let mut stage = Stage::new();
        stage.publishes("1", PRIVATE);
        let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
        let fx = stage.scene.sends("balcony", &format!("<iq type='get' id='d'>{items}</iq>"));
        assert!(fx.delivered("balcony")[0].contains(&format!("node='{NODE}'")));
        for request in [format!("<items node='{NODE}'/>"), "<items node='nothing'/>".to_owned()] {
            let iq = format!(
                "<iq type='get' id='d' from='romeo@montague.example/x'><pubsub xmlns='{NS}'>{request}</pubsub></iq>"
            );
            let told = stage.scene.receive(&iq).told();
            assert!(told[0].1.contains("<service-unavailable"), "{told:?}");
        }
    }
}
