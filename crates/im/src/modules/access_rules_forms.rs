//! Access rules by forms, for clients that know no `urn:waft:rules:0`: XEP-0050 commands of the account.

use super::access_rules;
use super::commands::{Command, Filled, Shown, no_more};
use super::data_form::{field, form};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Iq, Module};
use crate::rules::document::Rule;
use crate::rules::edit::{self, Edit};
use crate::rules::short::{self, FIELDS, PARTS};
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
            more: no_more,
            at_once: true,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: PUT,
            name: "Add an access rule",
            form: put_form,
            done: put,
            more: no_more,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: EDIT,
            name: "Change an access rule",
            form: edit_form,
            done: put,
            more: chosen,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: REMOVE,
            name: "Remove an access rule",
            form: remove_form,
            done: remove,
            more: no_more,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
        Command {
            node: SPHERE,
            name: "Say where you are",
            form: sphere_form,
            done: sphere,
            more: no_more,
            at_once: false,
            at_host: false,
            offered: |_| true,
        },
    ],
    ..Module::EMPTY
};

const LIST: &str = "urn:waft:rules:0#list";
const PUT: &str = "urn:waft:rules:0#put";
const EDIT: &str = "urn:waft:rules:0#edit";
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

fn put_form(account: &mut Account) -> (Element, String) {
    (rule_form(PUT, None), edit::etag(account))
}

/// All that a rule can say, filled in with what the one that is there says.
fn rule_form(form_type: &str, rule: Option<&Rule>) -> Element {
    let said = rule.map(short::values).unwrap_or_default();
    let values = |var: &str| -> Vec<&str> {
        said.iter().filter(|(name, _)| *name == var).map(|(_, value)| value.as_str()).collect()
    };
    let fields = FIELDS.map(|(var, label)| options_of(field(var, values(var)), var).attr("label", label));
    let id = field("id", rule.map(|rule| &*rule.id)).attr("type", "text-single").attr("label", "Name of the rule");
    form("form", form_type)
        .child(Element::new("title", DATA_FORM).text("Access rule"))
        .child(id.child(Element::new("required", DATA_FORM)))
        // Says that this is the second form, if the first one was to choose the rule.
        .children_from(rule.map(|rule| field("chosen", [&*rule.id]).attr("type", "hidden")))
        .children_from(fields)
}

/// The kind of a field, and what may be chosen in it.
fn options_of(field: Element, var: &str) -> Element {
    use Delivery::{Deliver, Drop, Refuse, Store};
    use Handling::{Allow, Block, Confirm, PoliteBlock};
    match var {
        "subscribe" | "fetch" => {
            options(field.attr("type", "list-single"), [Block, Confirm, PoliteBlock, Allow].map(Handling::name))
        }
        "message" => options(field.attr("type", "list-single"), [Deliver, Store, Drop, Refuse].map(Delivery::name)),
        "shown" => options(field.attr("type", "list-multi"), PARTS),
        "watch" | "publish" | "read" => field.attr("type", "boolean"),
        "from" | "until" | "other-show" | "other-status" => field.attr("type", "text-single"),
        _ => field.attr("type", "text-multi"),
    }
}

fn edit_form(account: &mut Account) -> (Element, String) {
    (which(account, EDIT), edit::etag(account))
}

/// The rule that was chosen, to be changed.
fn chosen(account: &mut Account, filled: &Filled<'_>) -> Result<Option<Element>, StanzaError> {
    if filled.value("chosen").is_some() {
        return Ok(None);
    }
    known(account, filled)?;
    let id = filled.value("id").unwrap_or_default();
    let rule = account.rules.rules().iter().find(|rule| *rule.id == *id).ok_or(StanzaCondition::ItemNotFound)?;
    Ok(Some(rule_form(EDIT, Some(rule))))
}

/// A form that asks for one of the rules.
fn which(account: &Account, form_type: &str) -> Element {
    let ids = asked("id", "list-single", "Rule").child(Element::new("required", DATA_FORM));
    form("form", form_type).child(options(ids, account.rules.rules().iter().map(|rule| &*rule.id)))
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
    for (var, _) in FIELDS {
        // A client sends a box that is not ticked as well.
        let is_no = |value: &String| ["watch", "publish", "read"].contains(&var) && (value == "0" || value == "false");
        values
            .extend(filled.values(var).into_iter().filter(|value| !is_no(value)).map(|value| (var.to_owned(), value)));
    }
    let mut edit = Edit::put_rule(account, short::rule(&id, &values)?)?;
    // It was given another name.
    if let (Some(old), Some(rules)) = (filled.value("chosen").filter(|old| *old != id), &mut edit.rules) {
        rules.retain(|rule| *rule.id != *old);
    }
    edit::make(account, edit, Some(iq.stanza), iq.ticket, fx)?;
    access_rules::push(account, iq.session, fx);
    Ok(Shown::Note(format!("The rule \"{id}\" holds.")))
}

fn remove_form(account: &mut Account) -> (Element, String) {
    (which(account, REMOVE), edit::etag(account))
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
