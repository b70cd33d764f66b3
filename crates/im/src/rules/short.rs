//! Rules in short, one text a value: for forms and the command line.

use super::document::{Actions, Conditions, Except, Hours, Identity, Many, Rule};
use super::shape::{Allowed, Pick, Shape};
use super::xml::{self, bad};
use super::{Delivery, Handling};
use std::fmt::Write;
use xmpp::{Stamp, StanzaError};

/// What [`identity`] understands; what `but` leaves out follows, with commas.
pub const WHO: &str = "an address, a domain, *.domain, group:NAME, roster, authenticated, anonymous, everyone, nobody; after \
                       a domain or authenticated: but ADDRESS, DOMAIN";
/// What [`hours`] understands.
pub const HOURS: &str = "22:00-07:00, 22:00-07:00 +01:00 or 22:00-07:00 +01:00 mon tue";

/// All that a rule can say: (name in [`rule`], what it is). Each name but those of actions, `from`, `until` and the other
/// status may come several times.
pub const FIELDS: [(&str, &str); 28] = [
    ("who", "Whom it speaks of: address, domain, *.domain, group:NAME, roster, authenticated, anonymous, everyone"),
    ("except", "But not these addresses and domains"),
    ("sphere", "Only while you are there"),
    ("hours", "Only at these hours: 22:00-07:00 +01:00 mon tue"),
    ("from", "Only from this time on: 2026-12-24T18:00:00Z"),
    ("until", "Only until this time"),
    ("valid", "Only in these spans: FROM/UNTIL"),
    ("subscribe", "Your presence"),
    ("fetch", "Your presence, on request (else as above)"),
    ("message", "Messages"),
    ("shown", "What of your presence (nothing chosen here and below: all)"),
    ("resource", "Which resources, and published tuples by their ids (none: all)"),
    ("class", "Which tuples by class"),
    ("uri", "Which tuples by contact address"),
    ("scheme", "Which tuples by scheme of the contact: tel, sip, xmpp"),
    ("device", "Which devices by device id"),
    ("device-name", "Which devices by their ids in the document"),
    ("device-class", "Which devices by class"),
    ("person", "Which persons by their ids in the document"),
    ("person-class", "Which persons by class"),
    ("attribute", "Which details: activities, mood, place-is, place-type, privacy, sphere, time-offset, user-input …"),
    ("extension", "Which extensions: {namespace}name"),
    ("node", "Which personal events (PEP nodes)"),
    ("other-show", "Another status instead: available, away, chat, dnd, xa"),
    ("other-status", "Another text instead"),
    ("watch", "May see who watches you"),
    ("publish", "May publish presence for you"),
    ("read", "May read your inbox"),
];

/// A rule by its values: (name, value), names as in [`FIELDS`]; a name may come several times.
///
/// # Errors
/// `not-acceptable` with a text for what is not understood.
pub fn rule(id: &str, values: &[(String, String)]) -> Result<Rule, StanzaError> {
    if id.is_empty() || id.len() > super::document::VALUE_BYTES_MAX {
        return Err(bad("a rule needs an id"));
    }
    let mut rule = Rule { id: id.into(), ..Rule::default() };
    let (mut who, mut except, mut span) = (Vec::new(), Vec::new(), (None, None));
    for (name, value) in values {
        if value.is_empty() || value.len() > super::document::VALUE_BYTES_MAX {
            return Err(bad(format!("{name} has no value, or too long a one")));
        }
        let Rule { conditions, actions, shape, .. } = &mut rule;
        match name.as_str() {
            "who" => who.push(value.as_str()),
            "except" => except.push(excepted(value)?),
            "sphere" => conditions.sphere.get_or_insert_default().extend(value.split_whitespace().map(Into::into)),
            "hours" => conditions.hours.get_or_insert_default().push(hours(value)?),
            "from" => span.0 = Some(time(value)?),
            "until" => span.1 = Some(time(value)?),
            "valid" => {
                let (from, until) = value.split_once('/').ok_or_else(|| bad("valid is FROM/UNTIL"))?;
                conditions.validity.get_or_insert_default().push((time(from)?, time(until)?));
            }
            "subscribe" | "fetch" | "message" | "watch" | "publish" | "read" => act(actions, name, value)?,
            _ => show_part(shape, name, value)?,
        }
    }
    if span != (None, None) {
        let (from, until) = (span.0.unwrap_or(time(FIRST)?), span.1.unwrap_or(time(LAST)?));
        rule.conditions.validity.get_or_insert_default().push((from, until));
    }
    // Whoever names no resource means all of them.
    let names_none = values.iter().any(|(name, value)| name == "shown" && value == NO_RESOURCE);
    if let Some(shape) = &mut rule.shape
        && shape.services.is_empty()
        && !names_none
    {
        shape.services = Allowed::All;
    }
    rule.conditions.identity = identities(&who, except)?;
    Ok(rule)
}

/// Words of `who` that might be a domain: `domain:roster`.
const WORDS: [&str; 5] = ["roster", "authenticated", "anonymous", "everyone", "nobody"];
const FIRST: &str = "0001-01-01T00:00:00Z";
const LAST: &str = "9999-12-31T23:59:59Z";
/// Of `shown`: not even that anybody is there.
const NO_RESOURCE: &str = "no-resource";

fn time(text: &str) -> Result<Stamp, StanzaError> {
    Stamp::from_xmpp(text).ok_or_else(|| bad(format!("\"{text}\" is no time")))
}

fn act(actions: &mut Actions, name: &str, value: &str) -> Result<(), StanzaError> {
    let wrong = || bad(format!("{name} is not \"{value}\""));
    let handling = || Handling::from_name(value).ok_or_else(wrong);
    let truth = || match value {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(bad(format!("{name} is true or false"))),
    };
    match name {
        "subscribe" => actions.subscribe = Some(handling()?),
        "fetch" => actions.fetch = Some(handling()?),
        "message" => actions.message = Some(Delivery::from_name(value).ok_or_else(wrong)?),
        "watch" => actions.watch = Some(truth()?),
        "publish" => actions.publish = Some(truth()?),
        _ => actions.read = Some(truth()?),
    }
    Ok(())
}

fn show_part(shape: &mut Option<Shape>, name: &str, value: &str) -> Result<(), StanzaError> {
    let set = shape.get_or_insert_default();
    let one = || Allowed::These([Box::<str>::from(value)].into());
    let pick = |kind: fn(Box<str>) -> Pick| Allowed::These([kind(value.into())].into());
    match name {
        "shown" => shown(set, value)?,
        "resource" => set.services.join(&pick(Pick::Occurrence)),
        "class" => set.services.join(&pick(Pick::Class)),
        "uri" => set.services.join(&pick(Pick::Uri)),
        "scheme" => set.services.join(&pick(Pick::Scheme)),
        "device" => set.devices.join(&pick(Pick::DeviceId)),
        "device-name" => set.devices.join(&pick(Pick::Occurrence)),
        "device-class" => set.devices.join(&pick(Pick::Class)),
        "person" => set.persons.join(&pick(Pick::Occurrence)),
        "person-class" => set.persons.join(&pick(Pick::Class)),
        "attribute" if xml::ATTRIBUTES.contains(&value) || value == "user-input" => set.attributes.join(&one()),
        "attribute" => return Err(bad(format!("attribute is one of user-input, {}", xml::ATTRIBUTES.join(", ")))),
        "extension" if value.starts_with('{') && value.contains('}') => set.unknown.join(&one()),
        "extension" => return Err(bad("extension is {namespace}name")),
        "node" => set.pep.join(&one()),
        "other-show" => set.other.get_or_insert_default().show = show(value)?,
        "other-status" => set.other.get_or_insert_default().status = Some(value.into()),
        _ => return Err(bad(format!("a rule has no \"{name}\""))),
    }
    Ok(())
}

/// Whom the rule speaks of. `except` is left out of each that can leave out somebody.
fn identities(who: &[&str], except: Vec<Except>) -> Result<Option<Vec<Identity>>, StanzaError> {
    match who {
        [] => return Err(bad(format!("whom does the rule speak of? {WHO}"))),
        ["everyone"] if except.is_empty() => return Ok(None),
        // Nobody is excepted from what has no identity: those who are authenticated can be.
        ["everyone"] => {
            return Ok(Some(vec![Identity::Many(Many { domain: None, except }), Identity::Unauthenticated]));
        }
        ["nobody"] => return Ok(Some(Vec::new())),
        _ if who.contains(&"everyone") || who.contains(&"nobody") => {
            return Err(bad("\"everyone\" and \"nobody\" stand alone"));
        }
        _ => {}
    }
    let mut identities = who.iter().map(|one| identity(one)).collect::<Result<Vec<_>, _>>()?;
    for identity in &mut identities {
        match identity {
            Identity::Many(many) => many.except.extend(except.iter().cloned()),
            _ if except.is_empty() => {}
            _ => return Err(bad("\"except\" goes with domains, authenticated and everyone")),
        }
    }
    Ok(Some(identities))
}

/// # Errors
/// `not-acceptable` for what is none of [`WHO`].
pub fn identity(text: &str) -> Result<Identity, StanzaError> {
    // (A group may have any name.)
    if let Some(group) = text.strip_prefix("group:") {
        return Ok(Identity::Group(Some(group.into())));
    }
    let (text, but) = text.split_once(" but ").unwrap_or((text, ""));
    let except =
        but.split(',').map(str::trim).filter(|one| !one.is_empty()).map(excepted).collect::<Result<Vec<_>, _>>()?;
    let identity = match text.trim() {
        "roster" => Identity::Group(None),
        "authenticated" => Identity::Many(Many::default()),
        "anonymous" => Identity::Unauthenticated,
        text => match excepted(text.strip_prefix("domain:").unwrap_or(text))? {
            Except::One(who) => Identity::One(who),
            Except::Domain(domain) => Identity::Many(Many { domain: Some(domain), except: Vec::new() }),
        },
    };
    match identity {
        Identity::Many(many) => Ok(Identity::Many(Many { except, ..many })),
        _ if !except.is_empty() => Err(bad("\"but\" goes with domains and authenticated")),
        other => Ok(other),
    }
}

fn excepted(text: &str) -> Result<Except, StanzaError> {
    if text.contains('@') { xml::who(text).map(Except::One) } else { xml::domain(text).map(Except::Domain) }
}

fn show(text: &str) -> Result<Option<Box<str>>, StanzaError> {
    match text {
        "available" => Ok(None),
        "away" | "chat" | "dnd" | "xa" => Ok(Some(text.into())),
        _ => Err(bad("other-show is available, away, chat, dnd or xa")),
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
pub const PARTS: [&str; 11] =
    ["all", "presence", NO_RESOURCE, "show", "status", "idle", "notes", "attributes", "devices", "persons", "nodes"];

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
        // RFC 5025 §3.3.2.15.
        "attributes" => xml::everything(shape),
        "devices" => shape.devices = Allowed::All,
        "persons" => shape.persons = Allowed::All,
        "nodes" => shape.pep = Allowed::All,
        // Nothing but that somebody is there, or not even that.
        "presence" | NO_RESOURCE => {}
        _ => return Err(bad(format!("shown is one of {}", PARTS.join(", ")))),
    }
    Ok(())
}

/// The values of a rule: [`rule`] makes the same of them.
pub fn values(rule: &Rule) -> Vec<(&'static str, String)> {
    let mut out: Vec<(&'static str, String)> = Vec::new();
    let Conditions { identity, sphere, validity, hours } = &rule.conditions;
    match identity.as_deref() {
        None => out.push(("who", "everyone".into())),
        Some([]) => out.push(("who", "nobody".into())),
        Some(some) => out.extend(some.iter().map(|identity| ("who", identity_text(identity)))),
    }
    out.extend(sphere.iter().flatten().map(|sphere| ("sphere", sphere.to_string())));
    out.extend(hours.iter().flatten().map(|hours| ("hours", hours_text(hours))));
    let span = |(from, until): &(Stamp, Stamp)| format!("{}/{}", from.to_xmpp(), until.to_xmpp());
    out.extend(validity.iter().flatten().map(|it| ("valid", span(it))));
    let Actions { subscribe, fetch, watch, publish, read, message } = rule.actions;
    let handling = |name, handling: Option<Handling>| handling.map(|handling| (name, handling.name().to_owned()));
    out.extend([handling("subscribe", subscribe), handling("fetch", fetch)].into_iter().flatten());
    out.extend(message.map(|delivery| ("message", delivery.name().to_owned())));
    let grants = [("watch", watch), ("publish", publish), ("read", read)];
    out.extend(grants.into_iter().filter_map(|(name, grant)| Some((name, grant?.to_string()))));
    if let Some(shape) = &rule.shape {
        shape_values(shape, &mut out);
    }
    out
}

fn shape_values(shape: &Shape, out: &mut Vec<(&'static str, String)>) {
    let Shape { services, devices, persons, show, status, idle, notes, attributes, unknown, pep, other } = shape;
    match services {
        Allowed::All => out.push(("shown", "presence".into())),
        services if services.is_empty() => out.push(("shown", NO_RESOURCE.into())),
        Allowed::These(_) => {}
    }
    let all = *attributes == Allowed::All && *unknown == Allowed::All && *show && *status && *idle && *notes;
    let parts = [("attributes", all), ("show", *show && !all), ("status", *status && !all), ("idle", *idle && !all)];
    let parts = parts.into_iter().chain([("notes", *notes && !all), ("devices", *devices == Allowed::All)]);
    let parts = parts.chain([("persons", *persons == Allowed::All), ("nodes", *pep == Allowed::All)]);
    out.extend(parts.filter(|(_, holds)| *holds).map(|(part, _)| ("shown", part.to_owned())));
    for (picks, [occurrence, class, uri]) in [
        (services, ["resource", "class", "uri"]),
        (devices, ["device-name", "device-class", "device"]),
        (persons, ["person", "person-class", "person"]),
    ] {
        let Allowed::These(these) = picks else { continue };
        out.extend(these.iter().map(|pick| match pick {
            Pick::Occurrence(id) => (occurrence, id.to_string()),
            Pick::Class(class_name) => (class, class_name.to_string()),
            Pick::Uri(text) | Pick::DeviceId(text) => (uri, text.to_string()),
            Pick::Scheme(scheme) => ("scheme", scheme.to_string()),
        }));
    }
    for (names, name) in [(attributes, "attribute"), (unknown, "extension"), (pep, "node")] {
        if let Allowed::These(these) = names {
            out.extend(these.iter().map(|one| (name, one.to_string())));
        }
    }
    if let Some(other) = other {
        out.push(("other-show", other.show.as_deref().unwrap_or("available").to_owned()));
        out.extend(other.status.iter().map(|status| ("other-status", status.to_string())));
    }
}

fn identity_text(identity: &Identity) -> String {
    match identity {
        Identity::One(who) => who.as_str().to_owned(),
        Identity::Many(Many { domain, except }) => {
            let domain = match domain.as_ref().map(ToString::to_string) {
                None => "authenticated".to_owned(),
                Some(word) if WORDS.contains(&word.as_str()) => format!("domain:{word}"),
                Some(domain) => domain,
            };
            let except: Vec<String> = except
                .iter()
                .map(|one| match one {
                    Except::One(who) => who.as_str().to_owned(),
                    Except::Domain(domain) => domain.to_string(),
                })
                .collect();
            if except.is_empty() { domain } else { format!("{domain} but {}", except.join(", ")) }
        }
        Identity::Group(Some(group)) => format!("group:{group}"),
        Identity::Group(None) => "roster".into(),
        Identity::Unauthenticated => "anonymous".into(),
    }
}

fn hours_text(hours: &Hours) -> String {
    let element = xml::hours_to_element(hours);
    let of = |name: &str| element.attribute(name).unwrap_or_default();
    let all = [format!("{}-{}", of("from"), of("until")), of("tzo").to_owned(), of("days").to_owned()];
    all.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

/// A line for people: all that the rule says.
pub fn line(rule: &Rule) -> String {
    let mut out = format!("{}: {}", rule.id, who(&rule.conditions));
    for (name, value) in values(rule).iter().filter(|(name, _)| *name != "who") {
        let _ = write!(out, "; {name} {value}");
    }
    out
}

/// Whom a rule speaks of, in words.
pub fn who(conditions: &Conditions) -> String {
    match conditions.identity.as_deref() {
        None => "everyone".into(),
        Some([]) => "nobody".into(),
        Some(identities) => identities.iter().map(identity_text).collect::<Vec<_>>().join("; "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_of(values: &[(&str, &str)]) -> Result<Rule, StanzaError> {
        let values: Vec<_> = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        rule("r", &values)
    }

    #[test]
    fn who_names_no_resource_means_all_and_who_names_one_that_one() {
        let shape = |values: &[(&str, &str)]| made_of(values).expect("a rule").shape.expect("a shape");
        assert_eq!(shape(&[("who", "roster"), ("shown", "show")]).services, Allowed::All);
        let one = shape(&[("who", "roster"), ("shown", "show"), ("resource", "desk")]).services;
        assert_eq!(one, Allowed::These([Pick::Occurrence("desk".into())].into()));
        assert!(shape(&[("who", "roster"), ("shown", "no-resource")]).services.is_empty());
    }

    #[test]
    fn from_and_until_are_each_enough() {
        let at = |text| Stamp::from_xmpp(text).expect("a time");
        let rule = made_of(&[("who", "everyone"), ("until", "2026-12-24T18:00:00Z")]).expect("a rule");
        assert_eq!(rule.conditions.validity, Some(vec![(at(FIRST), at("2026-12-24T18:00:00Z"))]));
        let rule = made_of(&[("who", "everyone"), ("from", "2026-12-24T18:00:00Z")]).expect("a rule");
        assert_eq!(rule.conditions.validity, Some(vec![(at("2026-12-24T18:00:00Z"), at(LAST))]));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for values in [
            &[("subscribe", "allow")][..],
            &[("who", "everyone"), ("who", "roster")],
            &[("who", "roster"), ("except", "a.example")],
            &[("who", "anonymous but a.example")],
            &[("who", "everyone"), ("hours", "25:00-07:00")],
            &[("who", "everyone"), ("valid", "today")],
            &[("who", "everyone"), ("message", "eat")],
            &[("who", "everyone"), ("attribute", "colour")],
            &[("who", "everyone"), ("extension", "x")],
            &[("who", "everyone"), ("other-show", "gone")],
            &[("who", "everyone"), ("node", "")],
            &[("who", "everyone"), ("colour", "red")],
        ] {
            assert!(made_of(values).is_err(), "{values:?}");
        }
    }
}
