//! Commands that are acts on the running server: sessions, rosters, domains, announcements, what waits and what was
//! refused. Each prints lines for people, or with `--json` what the server said.

use super::{Failure, say, status::connect, status::unexpected};
use crate::admin::acts::Act;
use crate::admin::{Answer, Request};
use crate::cli::{self, ActPlace};
use crate::house::adhoc::plain;
use serde_json::Value;

/// A value as lines: a list an entry a line, an object a name a line.
pub fn lines(value: &Value) -> Vec<String> {
    match value {
        Value::Array(list) => list.iter().map(entry).collect(),
        Value::Object(map) => {
            let line = |(name, value): (&String, &Value)| match value {
                Value::Array(list) if list.iter().any(Value::is_object) => {
                    let inner = list.iter().map(|it| format!("  {}", entry(it)));
                    std::iter::once(name.replace('_', " ")).chain(inner).collect::<Vec<_>>()
                }
                value => vec![format!("{:<18} {}", name.replace('_', " "), plain(value))],
            };
            map.iter().flat_map(line).collect()
        }
        other => vec![plain(other)],
    }
}

/// An entry of a list: what it is called, then what else is known and not nothing.
fn entry(value: &Value) -> String {
    let Value::Object(map) = value else { return plain(value) };
    let first = ["jid", "domain", "local"].into_iter().find(|name| map.contains_key(*name));
    let head = first.and_then(|name| map.get(name)).map(plain).unwrap_or_default();
    let is_nothing =
        |value: &Value| value.is_null() || *value == Value::Bool(false) || value.as_array().is_some_and(Vec::is_empty);
    let rest = map.iter().filter(|(name, value)| Some(name.as_str()) != first && !is_nothing(value));
    let rest: Vec<String> = rest.map(|(name, value)| format!("{} {}", name.replace('_', " "), plain(value))).collect();
    if rest.is_empty() { head } else { format!("{head}  {}", rest.join(", ")) }
}

/// Asks the running server, and prints what it says.
pub fn act(act: Act, place: &ActPlace) -> Result<(), Failure> {
    let Answer::Value { value } = connect(&place.place)?.ask(&Request::Act { act: act.clone() })? else {
        return Err(unexpected());
    };
    if place.json {
        say(&value);
    } else if let Some(sentence) = sentence(&act, &value) {
        say(sentence);
    } else {
        lines(&value).into_iter().for_each(say);
    }
    Ok(())
}

/// What was done, where it is said in a sentence.
fn sentence(act: &Act, value: &Value) -> Option<String> {
    let number = |name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
    let notes = || match value.get("notes").and_then(Value::as_array) {
        Some(notes) => notes.iter().map(|note| format!("\nnote: {}", plain(note))).collect(),
        None => String::new(),
    };
    Some(match act {
        Act::SessionEnd { jid } => match number("ended") {
            0 => format!("no session of {jid} is there"),
            1 => "1 session ended".into(),
            several => format!("{several} sessions ended"),
        },
        Act::Announce { .. } => format!("told {} accounts that are there", number("accounts")),
        Act::RosterPut { jid, contact, both: false, .. } => format!("{contact} is in the roster of {jid}"),
        Act::RosterPut { jid, contact, both: true, .. } => format!("{jid} and {contact} see each other's presence"),
        Act::RosterRemove { jid, contact, both: false } => format!("{contact} is not in the roster of {jid} any more"),
        Act::RosterRemove { jid, contact, both: true } => format!("{jid} and {contact} are no contacts any more"),
        Act::DomainAdd { domain, .. } => format!("{domain} is served from now on{}", notes()),
        Act::DomainRemove { domain } => format!("{domain} is not served any more; its accounts stay{}", notes()),
        Act::Drain { on: true } => {
            format!("draining: no new connections are taken; {} streams stay", number("streams"))
        }
        Act::Drain { on: false } => "connections are taken again".into(),
        Act::Block { domain, blocked: true } => format!("{domain} is not spoken with any more"),
        Act::Block { domain, blocked: false } => format!("{domain} is spoken with again"),
        Act::Limits if value.as_object().is_some_and(serde_json::Map::is_empty) => {
            "no bound was met since the start".into()
        }
        Act::Blocked if value.as_array().is_some_and(Vec::is_empty) => "none was blocked at run time".into(),
        Act::Notices | Act::NoticeSet { .. } if value.as_object().is_some_and(serde_json::Map::is_empty) => {
            "nothing is told".into()
        }
        _ => return None,
    })
}

pub fn session(command: &cli::Session) -> Result<(), Failure> {
    match command {
        cli::Session::End { jid, place } => act(Act::SessionEnd { jid: jid.to_string() }, place),
        cli::Session::List { of, place } => {
            let Answer::Sessions { sessions } = connect(&place.place)?.ask(&Request::Sessions)? else {
                return Err(unexpected());
            };
            let wanted = |jid: &str| {
                let bare = jid.split('/').next().unwrap_or_default();
                of.as_deref()
                    .is_none_or(|of| bare == of || bare.split_once('@').is_some_and(|(_, domain)| domain == of))
            };
            for session in sessions.into_iter().filter(|it| wanted(&it.jid)) {
                if place.json {
                    say(serde_json::to_string(&session).map_err(Failure::said)?);
                } else {
                    let priority = session.priority.map(|it| format!(" priority {it}")).unwrap_or_default();
                    say(format_args!("{} {}{priority}", session.jid, session.state));
                }
            }
            Ok(())
        }
    }
}

pub fn roster(command: &cli::Roster) -> Result<(), Failure> {
    match command {
        cli::Roster::List { jid, place } => act(Act::RosterList { jid: jid.to_string() }, place),
        cli::Roster::Put { jid, contact, name, group, both, place } => {
            let (jid, contact) = (jid.to_string(), contact.to_string());
            act(Act::RosterPut { jid, contact, name: name.clone(), groups: group.clone(), both: *both }, place)
        }
        cli::Roster::Remove { jid, contact, both, place } => {
            act(Act::RosterRemove { jid: jid.to_string(), contact: contact.to_string(), both: *both }, place)
        }
    }
}

pub fn domain(command: &cli::Domain) -> Result<(), Failure> {
    match command {
        cli::Domain::List { place } => act(Act::DomainList, place),
        cli::Domain::Add { domain, set, place } => {
            act(Act::DomainAdd { domain: domain.clone(), options: set.clone() }, place)
        }
        cli::Domain::Remove { domain, place } => act(Act::DomainRemove { domain: domain.clone() }, place),
    }
}

pub fn notice(command: &cli::Notice) -> Result<(), Failure> {
    match command {
        cli::Notice::Show(place) => act(Act::Notices, place),
        cli::Notice::Set { occasion, text, subject, place } => {
            let (subject, text) = (subject.clone(), Some(text.clone()));
            act(Act::NoticeSet { occasion: *occasion, subject, text }, place)
        }
        cli::Notice::Remove { occasion, place } => {
            act(Act::NoticeSet { occasion: *occasion, subject: None, text: None }, place)
        }
    }
}

pub fn announce(arguments: &cli::Announce) -> Result<(), Failure> {
    let cli::Announce { text, subject, domain, place } = arguments;
    act(Act::Announce { domain: domain.clone(), subject: subject.clone(), text: text.clone() }, place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_shown_in_lines() {
        let value = json!([{ "jid": "a@x", "name": null, "groups": [], "subscription": "both", "asked": false }]);
        assert_eq!(lines(&value), ["a@x  subscription both"]);
        let value = json!({ "store_changes": 3, "clients": [{ "jid": "a@x/y", "bytes": 7 }], "domains": [] });
        assert_eq!(lines(&value), ["clients", "  a@x/y  bytes 7", "domains            ", "store changes      3"]);
    }
}
