//! Access rules by forms, for clients that know no `urn:waft:rules:0`: XEP-0050 commands of the account.

use super::access_rules;
use super::commands::{Command, Filled, Shown};
use super::data_form::{field, form};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Iq, Module};
use crate::rules::edit::{self, Edit};
use crate::rules::short::{self, PARTS};
use crate::rules::{Delivery, Handling, change};
use xmpp::ns::DATA_FORM;
use xmpp::{Element, StanzaCondition, StanzaError};

pub static MODULE: Module = Module {
    name: "access rules by forms",
    commands: &[
        Command {
            node: LIST,
            name: "Show access rules",
            form: nothing,
            done: list,
            at_once: true,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: PUT,
            name: "Add or replace an access rule",
            form: put_form,
            done: put,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: REMOVE,
            name: "Remove an access rule",
            form: remove_form,
            done: remove,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: SPHERE,
            name: "Say where you are",
            form: sphere_form,
            done: sphere,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
    ],
    ..Module::EMPTY
};

const LIST: &str = "urn:waft:rules:0#list";
const PUT: &str = "urn:waft:rules:0#put";
const REMOVE: &str = "urn:waft:rules:0#remove";
const SPHERE: &str = "urn:waft:rules:0#sphere";

fn nothing(_: &mut Account) -> (Element, String) {
    (Element::new("x", DATA_FORM), String::new())
}

/// Rules as a table. XEP-0004 §3.4.
fn list(account: &mut Account, _: &Iq<'_>, _: &Filled<'_>, _: &mut Effects) -> Result<Shown, StanzaError> {
    let column = |var: &str, label: &str| {
        Element::new("field", DATA_FORM).attr("var", var).attr("label", label).attr("type", "text-single")
    };
    let reported =
        Element::new("reported", DATA_FORM).child(column("id", "Rule")).child(column("rule", "What it says"));
    let item =
        |id: &str, line: &str| Element::new("item", DATA_FORM).child(field("id", [id])).child(field("rule", [line]));
    let written = account.rules.rules().iter().map(|rule| item(&rule.id, &short::line(rule)));
    let blocked = format!("{} addresses of the block list; block", account.blocks.len());
    let subscribers = format!("{} subscribers of the roster; allow", account.roster.watchers().count());
    let shown = form("result", LIST)
        .child(reported)
        .child(item(edit::BLOCKED, &blocked))
        .children_from(written)
        .child(item(edit::SUBSCRIBERS, &subscribers));
    Ok(Shown::Form(shown))
}

fn asked(var: &str, kind: &str, label: &str) -> Element {
    field(var, []).attr("type", kind).attr("label", label)
}

fn options<'a>(field: Element, options: impl IntoIterator<Item = &'a str>) -> Element {
    let option = |text: &str| {
        Element::new("option", DATA_FORM).attr("label", text).child(Element::new("value", DATA_FORM).text(text))
    };
    field.children_from(options.into_iter().map(option))
}

/// What goes into a rule: (name in [`short::rule`], kind of field, label).
const FIELDS: [(&str, &str, &str); 17] = [
    ("who", "text-multi", "Whom it speaks of: addresses, domains, *.domain, group:NAME, roster, anonymous, everyone"),
    ("except", "text-multi", "But not these addresses and domains"),
    ("sphere", "text-multi", "Only while you are there"),
    ("hours", "text-multi", "Only at these hours: 22:00-07:00 +01:00"),
    ("from", "text-single", "Only from this time on: 2026-12-24T18:00:00Z"),
    ("until", "text-single", "Only until this time"),
    ("subscribe", "list-single", "Your presence"),
    ("fetch", "list-single", "Your presence, on request (else as above)"),
    ("message", "list-single", "Messages"),
    ("shown", "list-multi", "What of your presence (nothing chosen: all)"),
    ("resource", "text-multi", "Which resources (none: all)"),
    ("node", "text-multi", "Which personal events (PEP nodes)"),
    ("other-show", "text-single", "Another status instead: away, chat, dnd, xa"),
    ("other-status", "text-single", "Another text instead"),
    ("watch", "boolean", "May see who watches you"),
    ("publish", "boolean", "May publish presence for you"),
    ("read", "boolean", "May read your inbox"),
];

fn put_form(account: &mut Account) -> (Element, String) {
    use Delivery::{Deliver, Drop, Refuse, Store};
    use Handling::{Allow, Block, Confirm, PoliteBlock};
    let fields = FIELDS.map(|(var, kind, label)| {
        let field = asked(var, kind, label);
        match var {
            "subscribe" | "fetch" => options(field, [Block, Confirm, PoliteBlock, Allow].map(Handling::name)),
            "message" => options(field, [Deliver, Store, Drop, Refuse].map(Delivery::name)),
            "shown" => options(field, ["presence"].into_iter().chain(PARTS)),
            _ => field,
        }
    });
    let id = asked("id", "text-single", "Name of the rule").child(Element::new("required", DATA_FORM));
    let form =
        form("form", PUT).child(Element::new("title", DATA_FORM).text("Access rule")).child(id).children_from(fields);
    (form, edit::etag(account))
}

fn known(account: &Account, filled: &Filled<'_>) -> Result<(), StanzaError> {
    if filled.session == edit::etag(account) {
        return Ok(());
    }
    Err(StanzaError::from(StanzaCondition::Conflict).with_text("The rules were changed meanwhile."))
}

fn put(account: &mut Account, iq: &Iq<'_>, filled: &Filled<'_>, fx: &mut Effects) -> Result<Shown, StanzaError> {
    known(account, filled)?;
    let id = filled.value("id").unwrap_or_default();
    if [edit::BLOCKED, edit::SUBSCRIBERS].contains(&id.as_str()) {
        return Err(crate::rules::xml::bad("this rule is edited by the block list and the roster"));
    }
    let mut values = Vec::new();
    for (var, kind, _) in FIELDS {
        let is_no = |value: &String| kind == "boolean" && (value == "0" || value == "false");
        values
            .extend(filled.values(var).into_iter().filter(|value| !is_no(value)).map(|value| (var.to_owned(), value)));
    }
    let edit = Edit::put_rule(account, short::rule(&id, &values)?)?;
    edit::make(account, edit, Some(iq.stanza), iq.ticket, fx)?;
    access_rules::push(account, iq.session, fx);
    Ok(Shown::Note(format!("The rule \"{id}\" holds.")))
}

fn remove_form(account: &mut Account) -> (Element, String) {
    let ids = asked("id", "list-single", "Rule").child(Element::new("required", DATA_FORM));
    let ids = options(ids, account.rules.rules().iter().map(|rule| &*rule.id));
    (form("form", REMOVE).child(ids), edit::etag(account))
}

fn remove(account: &mut Account, iq: &Iq<'_>, filled: &Filled<'_>, fx: &mut Effects) -> Result<Shown, StanzaError> {
    known(account, filled)?;
    let id = filled.value("id").unwrap_or_default();
    let edit = Edit::remove(account, &id)?;
    edit::make(account, edit, Some(iq.stanza), iq.ticket, fx)?;
    access_rules::push(account, iq.session, fx);
    Ok(Shown::Note(format!("The rule \"{id}\" is gone.")))
}

fn sphere_form(account: &mut Account) -> (Element, String) {
    let now = account.rules.sphere().join(" ");
    let sphere = field("sphere", [now.as_str()]).attr("type", "text-single").attr("label", "Where you are: work, home");
    (form("form", SPHERE).child(sphere), edit::etag(account))
}

fn sphere(account: &mut Account, iq: &Iq<'_>, filled: &Filled<'_>, fx: &mut Effects) -> Result<Shown, StanzaError> {
    let text = filled.value("sphere").unwrap_or_default();
    let sphere: Vec<Box<str>> = text.split_whitespace().map(Into::into).collect();
    change::set_sphere(account, sphere, Some(iq.stanza), iq.ticket, fx);
    access_rules::push(account, iq.session, fx);
    Ok(Shown::Note(if text.is_empty() {
        "You are nowhere in particular.".into()
    } else {
        format!("You are at {text}.")
    }))
}
