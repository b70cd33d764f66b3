//! What a node is configured as: the form of XEP-0060 §8.2, shown and taken.

use super::errors::refused;
use super::{META_DATA, NODE_CONFIG, OWNER};
use crate::account::Account;
use crate::module::{Answer, Handled};
use crate::modules::data_form;
use crate::nodes::{Access, Config, GROUPS_MAX, Node, SendLast, TEXT_BYTES_MAX};
use xmpp::ns::DATA_FORM;
use xmpp::{Element, StanzaCondition, StanzaError};

/// Fields whose one value is told and taken, and nothing else; with their types. XEP-0060 §16.4.4.
const FIXED: &[(&str, &str, &str)] = &[
    ("pubsub#publish_model", "list-single", "publishers"),
    ("pubsub#deliver_payloads", "boolean", "1"),
    ("pubsub#notification_type", "list-single", "headline"),
    ("pubsub#notify_sub", "boolean", "0"),
    ("pubsub#subscribe", "boolean", "1"),
    ("pubsub#presence_based_delivery", "boolean", "0"),
    ("pubsub#tempsub", "boolean", "0"),
    ("pubsub#node_type", "list-single", "leaf"),
    ("pubsub#purge_offline", "boolean", "0"),
    ("pubsub#item_expire", "text-single", "max"),
];

pub(super) fn flag(value: &str) -> Option<bool> {
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
pub(super) fn with_fields(mut config: Config, form: &Element) -> Option<Config> {
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
            "pubsub#notify_config" => config.notify_config = flag(&value)?,
            "pubsub#send_last_published_item" => config.send_last = SendLast::named(&value)?,
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

/// The form of XEP-0060 §8.2, filled in. `kind`: `form` or `result`.
pub(super) fn config_form(kind: &str, config: &Config) -> Element {
    let flag = |value: bool| if value { "1" } else { "0" }.to_owned();
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
        ("pubsub#notify_config", "boolean", flag(config.notify_config)),
    ];
    let fields = fields.iter().map(|(var, kind, value)| data_form::field(var, [value.as_str()]).attr("type", kind));
    let fixed = FIXED.iter().map(|(var, kind, value)| {
        let options = if *kind == "list-single" { one_of(&[*value]) } else { Vec::new() };
        data_form::field(var, [*value]).attr("type", *kind).children_from(options)
    });
    let last =
        data_form::field("pubsub#send_last_published_item", [config.send_last.name()]).attr("type", "list-single");
    let last = last.children_from(one_of(&SendLast::ALL.map(SendLast::name)));
    let form = data_form::form(kind, NODE_CONFIG).child(access).child(groups).child(reply).child(last);
    form.children_from(fields).children_from(fixed)
}

/// A submitted configuration applied to `config`.
///
/// # Errors
/// `not-acceptable` for what cannot be had, `bad-request` for a form that is none.
pub(super) fn submitted(config: Config, configure: &Element) -> Result<Config, StanzaError> {
    let form = data_form::submitted(configure, &[NODE_CONFIG]).ok_or(StanzaCondition::BadRequest)?;
    let access = data_form::value(form, "pubsub#access_model");
    if access.is_some_and(|access| Access::named(&access).is_none()) {
        // §8.1.2.
        return Err(refused(StanzaCondition::NotAcceptable, "unsupported-access-model"));
    }
    with_fields(config, form).ok_or_else(|| StanzaCondition::NotAcceptable.into())
}

/// §8.3.
pub(super) fn default() -> Handled {
    let default = Element::new("default", OWNER).child(config_form("form", &Config::default()));
    Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(default))))
}

/// What whoever sees a node may know of it. How many others are told of it is not for everybody. §5.4.
pub(super) fn meta_data(account: &Account, node: &Node) -> Element {
    let config = &node.config;
    let items_max = config.items_max.map_or("max".into(), |max| max.to_string());
    let owner = account.jid.as_str();
    let fields = [
        ("pubsub#title", "text-single", &*config.title),
        ("pubsub#description", "text-single", &config.description),
        ("pubsub#type", "text-single", &config.payload_type),
        ("pubsub#creator", "jid-single", owner),
        ("pubsub#owner", "jid-multi", owner),
        ("pubsub#publisher", "jid-multi", owner),
        ("pubsub#access_model", "list-single", config.access.name()),
        ("pubsub#publish_model", "list-single", "publishers"),
        ("pubsub#max_items", "text-single", &items_max),
    ];
    let said = fields.into_iter().filter(|(.., value)| !value.is_empty());
    let fields = said.map(|(var, kind, value)| data_form::field(var, [value]).attr("type", kind));
    data_form::form("result", META_DATA).children_from(fields)
}
