//! Rules in short, one text a value: for forms and the command line.

use super::document::{Actions, Conditions, Except, Hours, Identity, Many, Rule};
use super::shape::{Allowed, Pick, Shape};
use super::xml::{self, bad};
use super::{Delivery, Handling};
use std::fmt::Write;
use xmpp::{Stamp, StanzaError};

/// What [`identity`] understands.
pub const WHO: &str = "an address, a domain, *.domain, group:NAME, roster, authenticated, anonymous, everyone";
/// What [`hours`] understands.
pub const HOURS: &str = "22:00-07:00, 22:00-07:00 +01:00 or 22:00-07:00 +01:00 mon tue";

/// A rule by its values: (name, value), names as in [`FIELDS`]; a name may come several times.
///
/// # Errors
/// `not-acceptable` with a text for what is not understood.
pub fn rule(id: &str, values: &[(String, String)]) -> Result<Rule, StanzaError> {
    if id.is_empty() || id.len() > super::document::VALUE_BYTES_MAX {
        return Err(bad("a rule needs an id"));
    }
    let mut rule = Rule { id: id.into(), ..Rule::default() };
    let (mut identities, mut except, mut everyone) = (Vec::new(), Vec::new(), false);
    let (mut from, mut until) = (None, None);
    for (name, value) in values {
        let Rule { conditions, actions, shape, .. } = &mut rule;
        let handling = || Handling::from_name(value).ok_or_else(|| bad(format!("{name} is not \"{value}\"")));
        let truth = || match value.as_str() {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" => Ok(false),
            _ => Err(bad(format!("{name} is true or false"))),
        };
        let time = || Stamp::from_xmpp(value).ok_or_else(|| bad(format!("\"{value}\" is no time")));
        match name.as_str() {
            "who" if value == "everyone" => everyone = true,
            "who" => identities.push(identity(value)?),
            "except" => except.push(excepted(value)?),
            "sphere" => conditions.sphere.get_or_insert_default().push(value.as_str().into()),
            "hours" => conditions.hours.get_or_insert_default().push(hours(value)?),
            "from" => from = Some(time()?),
            "until" => until = Some(time()?),
            "subscribe" => actions.subscribe = Some(handling()?),
            "fetch" => actions.fetch = Some(handling()?),
            "message" => {
                let delivery = Delivery::from_name(value);
                actions.message = Some(delivery.ok_or_else(|| bad(format!("message is not \"{value}\"")))?);
            }
            "watch" => actions.watch = Some(truth()?),
            "publish" => actions.publish = Some(truth()?),
            "read" => actions.read = Some(truth()?),
            "shown" => shown(shape.get_or_insert_default(), value)?,
            "resource" => {
                let picks = Allowed::These([Pick::Occurrence(value.as_str().into())].into());
                shape.get_or_insert_default().services.join(&picks);
            }
            "node" => shape.get_or_insert_default().pep.join(&Allowed::These([value.as_str().into()].into())),
            "other-show" => shape.get_or_insert_default().other.get_or_insert_default().show = Some(show(value)?),
            "other-status" => {
                shape.get_or_insert_default().other.get_or_insert_default().status = Some(value.as_str().into());
            }
            _ => return Err(bad(format!("a rule has no \"{name}\""))),
        }
    }
    if from.is_some() || until.is_some() {
        rule.conditions.validity = Some(vec![(from.unwrap_or(Stamp(i64::MIN)), until.unwrap_or(Stamp(i64::MAX)))]);
    }
    // Whoever names no resource means all of them.
    if let Some(shape) = &mut rule.shape
        && shape.services.is_empty()
    {
        shape.services = Allowed::All;
    }
    for identity in &mut identities {
        match identity {
            Identity::Many(many) => many.except.clone_from(&except),
            _ if except.is_empty() => {}
            _ => return Err(bad("\"except\" goes with domains, authenticated and everyone")),
        }
    }
    rule.conditions.identity = match (everyone, identities.is_empty()) {
        // Nobody is excepted from what has no identity: those who are authenticated can be.
        (true, true) if except.is_empty() => None,
        (true, true) => Some(vec![Identity::Many(Many { domain: None, except }), Identity::Unauthenticated]),
        (false, false) => Some(identities),
        (true, false) => return Err(bad("\"everyone\" stands alone")),
        (false, true) => return Err(bad(format!("whom does the rule speak of? {WHO}"))),
    };
    Ok(rule)
}

/// # Errors
/// `not-acceptable` for what is none of [`WHO`].
pub fn identity(text: &str) -> Result<Identity, StanzaError> {
    Ok(match text {
        "roster" => Identity::Group(None),
        "authenticated" => Identity::Many(Many::default()),
        "anonymous" => Identity::Unauthenticated,
        _ => match text.strip_prefix("group:") {
            Some(group) => Identity::Group(Some(group.into())),
            None => match excepted(text)? {
                Except::One(who) => Identity::One(who),
                Except::Domain(domain) => Identity::Many(Many { domain: Some(domain), except: Vec::new() }),
            },
        },
    })
}

fn excepted(text: &str) -> Result<Except, StanzaError> {
    if text.contains('@') { xml::who(text).map(Except::One) } else { xml::domain(text).map(Except::Domain) }
}

fn show(text: &str) -> Result<Box<str>, StanzaError> {
    match text {
        "away" | "chat" | "dnd" | "xa" => Ok(text.into()),
        _ => Err(bad("other-show is away, chat, dnd or xa")),
    }
}

fn hours(text: &str) -> Result<Hours, StanzaError> {
    let wrong = || bad(format!("hours are written {HOURS}"));
    let mut words = text.split_whitespace().peekable();
    let (from, until) = words.next().and_then(|span| span.split_once('-')).ok_or_else(wrong)?;
    let tzo = words.next_if(|word| word.starts_with(['+', '-', 'Z']));
    let days: Vec<&str> = words.collect();
    let element = xmpp::Element::new("hours", xml::NS)
        .attr("from", from)
        .attr("until", until)
        .attr("days", days.join(" "))
        .attr_opt("tzo", tzo);
    xml::hours(&element).map_err(|_| wrong())
}

/// What `shown` may be.
pub const PARTS: [&str; 7] = ["all", "show", "status", "idle", "notes", "devices", "nodes"];

fn shown(shape: &mut Shape, part: &str) -> Result<(), StanzaError> {
    match part {
        "all" => {
            xml::everything(shape);
            (shape.services, shape.devices, shape.persons) = (Allowed::All, Allowed::All, Allowed::All);
            shape.pep = Allowed::All;
        }
        "show" => shape.show = true,
        "status" => shape.status = true,
        "idle" => shape.idle = true,
        "notes" => shape.notes = true,
        "devices" => shape.devices = Allowed::All,
        "nodes" => shape.pep = Allowed::All,
        // Nothing but that somebody is there.
        "presence" => {}
        _ => return Err(bad(format!("shown is one of presence, {}", PARTS.join(", ")))),
    }
    Ok(())
}

/// A line for people.
pub fn line(rule: &Rule) -> String {
    let mut out = format!("{}: {}", rule.id, who(&rule.conditions));
    let Actions { subscribe, fetch, watch, publish, read, message } = rule.actions;
    let mut say = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            let _ = write!(out, "; {name} {value}");
        }
    };
    let granted = |grant: Option<bool>| grant.map(|grant| if grant { "granted" } else { "not granted" });
    say("subscribe", subscribe.map(Handling::name));
    say("fetch", fetch.map(Handling::name));
    say("message", message.map(Delivery::name));
    say("watch", granted(watch));
    say("publish", granted(publish));
    say("read", granted(read));
    say("shown", rule.shape.as_ref().map(|_| "in part"));
    say("only", (!rule.conditions.are_lasting()).then_some("at times"));
    out
}

/// Whom a rule speaks of, in words.
pub fn who(conditions: &Conditions) -> String {
    let Some(identities) = &conditions.identity else { return "everyone".into() };
    let except = |many: &Many| match many.except.len() {
        0 => String::new(),
        several => format!(" (but {several})"),
    };
    let named = |identity: &Identity| match identity {
        Identity::One(who) => who.as_str().to_owned(),
        Identity::Many(many) => {
            let domain = many.domain.as_ref().map_or_else(|| "authenticated".to_owned(), ToString::to_string);
            domain + &except(many)
        }
        Identity::Group(Some(group)) => format!("group:{group}"),
        Identity::Group(None) => "roster".into(),
        Identity::Unauthenticated => "anonymous".into(),
    };
    identities.iter().map(named).collect::<Vec<_>>().join(", ")
}
