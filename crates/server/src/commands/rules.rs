//! `waft rules`: the access rules of an account, in the running server.

use super::status::{connect, unexpected};
use super::{Failure, say};
use crate::admin::{Answer, Request};
use crate::cli::{self, Place};
use im::rules::document::Rule;
use im::rules::xml::{COMMON, NS};
use im::rules::{edit, short};
use serde_json::json;
use std::io::Read;
use std::path::Path;
use xmpp::{BareJid, Element};

pub fn rules(command: &cli::Rules) -> Result<(), Failure> {
    match command {
        cli::Rules::Show { jid, xml, json, place } => {
            let rules = ask(place, jid, false, &Element::new("rules", NS))?;
            let ruleset = rules.find("ruleset", COMMON).ok_or_else(unexpected)?;
            if *xml {
                say(String::from_utf8_lossy(&ruleset.to_bytes("")));
            } else {
                let sphere = rules.attribute("sphere").filter(|_| !json);
                sphere.iter().for_each(|sphere| say(format_args!("sphere: {sphere}")));
                ruleset.elements().for_each(|rule| print_rule(rule, *json));
            }
        }
        cli::Rules::Put { jid, id, values, place } => {
            let rule = short::rule(id, values).map_err(wrong)?;
            change(place, jid, rule.to_element())?;
            say(format_args!("{jid}: {}", short::line(&rule)));
        }
        cli::Rules::Remove { jid, id, place } => {
            change(place, jid, Element::new("remove", NS).attr("id", id))?;
            say(format_args!("{jid}: removed the rule {id}"));
        }
        cli::Rules::Set { jid, file, place } => {
            let text = read(file)?;
            let ruleset = Element::parse(text.trim().as_bytes(), "");
            let ruleset = ruleset.map_err(|error| Failure::Said(format!("{} is no XML: {error:?}", file.display())))?;
            change(place, jid, ruleset)?;
            say(format_args!("{jid}: replaced the rules"));
        }
        cli::Rules::Explain { jid, watcher, json, place } => {
            let view = ask(place, jid, false, &Element::new("view", NS).attr("jid", watcher.as_str()))?;
            if *json {
                say(explained(&view));
                return Ok(());
            }
            let said = |name: &str| view.attribute(name).unwrap_or_default().to_owned();
            say(format_args!("{watcher} of {jid}"));
            say(format_args!("  a request for subscription  {}", said("subscribe")));
            say(format_args!("  a message                   {}", said("message")));
            for exit in view.elements().filter(|child| child.is("exit", NS)) {
                let name = exit.attribute("name").unwrap_or_default();
                let part = exit.attribute("shape").map(|_| ", in part").unwrap_or_default();
                say(format_args!("  {name:<27} {}{part}", exit.attribute("handling").unwrap_or_default()));
            }
            for grant in ["publish", "read"] {
                let is_granted = view.find(grant, NS).is_some();
                say(format_args!("  may {grant:<23} {}", if is_granted { "yes" } else { "no" }));
            }
        }
    }
    Ok(())
}

/// What somebody may do and see, as an object.
fn explained(view: &Element) -> serde_json::Value {
    let said = |name: &str| view.attribute(name).unwrap_or_default();
    let exits = view.elements().filter(|child| child.is("exit", NS)).map(|exit| {
        let of = |name: &str| exit.attribute(name).unwrap_or_default().to_owned();
        (of("name"), json!({ "handling": of("handling"), "in_part": exit.attribute("shape").is_some() }))
    });
    json!({
        "watcher": said("jid"),
        "subscribe": said("subscribe"),
        "message": said("message"),
        "exits": exits.collect::<serde_json::Map<_, _>>(),
        "publish": view.find("publish", NS).is_some(),
        "read": view.find("read", NS).is_some(),
    })
}

/// A rule as a line, or as an object: `values` are those that `put` takes.
pub fn print_rule(rule: &Element, json: bool) {
    if !json {
        return say(line(rule));
    }
    let id = rule.attribute("id").unwrap_or_default();
    let is_view = [edit::BLOCKED, edit::SUBSCRIBERS].contains(&id);
    let mut values = serde_json::Map::new();
    for (name, value) in Rule::of(rule).map(|rule| short::values(&rule)).unwrap_or_default() {
        let all = values.entry(name).or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.push(value.into());
        }
    }
    say(json!({ "kind": "rule", "id": id, "view": is_view, "values": values }));
}

/// The rule as a line; those that are only shown by how many they name.
fn line(rule: &Element) -> String {
    let id = rule.attribute("id").unwrap_or_default();
    if [edit::BLOCKED, edit::SUBSCRIBERS].contains(&id) {
        let identity = rule.find("conditions", COMMON).and_then(|conditions| conditions.find("identity", COMMON));
        let many = identity.map_or(0, |identity| identity.elements().count());
        return format!(
            "{id}: {many} (the {})",
            if id == edit::BLOCKED { "block list" } else { "roster's subscriptions" }
        );
    }
    Rule::of(rule).map_or_else(|_| format!("{id}: not understood by this command"), |rule| short::line(&rule))
}

fn wrong(error: xmpp::StanzaError) -> Failure {
    Failure::Said(error.text.map_or_else(|| error.condition.name().to_owned(), |text| text.to_string()))
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = match file == Path::new("-") {
        true => std::io::stdin().read_to_string(&mut text).map(|_| ()),
        false => std::fs::read_to_string(file).map(|read| text = read),
    };
    read.map_err(|error| Failure::Said(format!("{} cannot be read: {error}", file.display())))?;
    Ok(text)
}

/// An edit of the rules as they are now.
fn change(place: &Place, jid: &BareJid, edit: Element) -> Result<(), Failure> {
    let rules = ask(place, jid, false, &Element::new("rules", NS))?;
    let etag = rules.attribute("etag").ok_or_else(unexpected)?;
    ask(place, jid, true, &Element::new("rules", NS).attr("etag", etag).child(edit)).map(|_| ())
}

fn ask(place: &Place, jid: &BareJid, set: bool, content: &Element) -> Result<Element, Failure> {
    let content = String::from_utf8_lossy(&content.to_bytes("")).into_owned();
    match connect(place)?.ask(&Request::Ask { jid: jid.to_string(), set, content })? {
        Answer::Told { content } => Element::parse(content.as_bytes(), "").map_err(|_| unexpected()),
        _ => Err(unexpected()),
    }
}
