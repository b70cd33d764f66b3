//! The rules on the wire and in the store: reading refuses what it does not know, as a rule that is read in part
//! could let through what its author forbade.

use super::document::*;
use super::shape::{Allowed, Names, Other, Pick, Picks, Shape};
use super::{Delivery, Handling};
use xmpp::{BareJid, Element, Stamp, StanzaCondition, StanzaError};

/// RFC 4745.
pub const COMMON: &str = "urn:ietf:params:xml:ns:common-policy";
/// RFC 5025.
pub const PRES: &str = "urn:ietf:params:xml:ns:pres-rules";
/// What neither of them has.
pub const NS: &str = "urn:waft:rules:0";

type Read<T> = Result<T, StanzaError>;

/// What is wrong with the document, for its author.
pub fn bad(why: impl Into<Box<str>>) -> StanzaError {
    StanzaError::from(StanzaCondition::NotAcceptable).with_text(why)
}

fn strange(what: &str, inside: &Element) -> StanzaError {
    bad(format!("<{what}/> in <{}/> is not known here", inside.name))
}

fn value(element: &Element) -> Read<Box<str>> {
    let text = element.text_content();
    let text = text.trim();
    if text.is_empty() || text.len() > VALUE_BYTES_MAX {
        return Err(bad(format!("<{}/> has no value, or too long a one", element.name)));
    }
    Ok(text.into())
}

fn truth(element: &Element) -> Read<bool> {
    match element.text_content().trim() {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(bad(format!("<{}/> is true or false", element.name))),
    }
}

/// A user's address: a URI of scheme `xmpp`, `pres` or `im`, or a bare JID.
pub fn who(id: &str) -> Read<BareJid> {
    let id = id.trim();
    let jid = ["xmpp:", "pres:", "im:"].iter().find_map(|scheme| id.strip_prefix(scheme)).unwrap_or(id);
    BareJid::parse(jid).map_err(|_| bad(format!("\"{id}\" is no address of a user")))
}

pub fn domain(text: &str) -> Read<Domain> {
    let text = text.trim();
    let (name, below) = text.strip_prefix("*.").map_or((text, false), |name| (name, true));
    let jid = BareJid::of_domain(name).map_err(|_| bad(format!("\"{text}\" is no domain")))?;
    Ok(Domain { name: jid.as_str().into(), below })
}

fn attribute<'a>(element: &'a Element, name: &str) -> Read<&'a str> {
    element.attribute(name).ok_or_else(|| bad(format!("<{}/> has no '{name}'", element.name)))
}

impl Document {
    /// The rules of `<ruleset/>`; the version is the caller's.
    ///
    /// # Errors
    /// `not-acceptable` with a text for whatever is not known or cannot be, `resource-constraint` for too much.
    pub fn of(ruleset: &Element) -> Read<Document> {
        let mut document = Document::default();
        for child in ruleset.elements() {
            if !child.is("rule", COMMON) {
                return Err(strange(&child.name, ruleset));
            }
            document.rules.push(Rule::of(child)?);
        }
        check(&document.rules)?;
        Ok(document)
    }

    pub fn to_element(&self) -> Element {
        Element::new("ruleset", COMMON).children_from(self.rules.iter().map(Rule::to_element))
    }
}

/// # Errors
/// As [`Document::of`], for the rules together.
pub fn check(rules: &[Rule]) -> Read<()> {
    let full = |what| StanzaError::from(StanzaCondition::ResourceConstraint).with_text(what);
    if rules.len() > RULES_MAX {
        return Err(full("Too many rules."));
    }
    if rules.iter().map(Rule::identities).sum::<usize>() > IDENTITIES_MAX {
        return Err(full("Too many identities in the rules."));
    }
    let mut ids: Vec<&str> = rules.iter().map(|rule| &*rule.id).collect();
    ids.sort_unstable();
    match ids.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(bad(format!("two rules have the id \"{}\"", twice[0]))),
        None => Ok(()),
    }
}

impl Rule {
    /// # Errors
    /// As [`Document::of`].
    pub fn of(element: &Element) -> Read<Rule> {
        let id = attribute(element, "id")?;
        if id.is_empty() || id.len() > VALUE_BYTES_MAX {
            return Err(bad("a rule's id is empty or too long"));
        }
        let mut rule = Rule { id: id.into(), ..Rule::default() };
        for child in element.elements() {
            match (&*child.ns, &*child.name) {
                (COMMON, "conditions") => rule.conditions = Conditions::of(child)?,
                (COMMON, "actions") => rule.actions = Actions::of(child)?,
                // An empty one grants nothing of what transformations can, as RFC 4745 §10 has it.
                (COMMON, "transformations") => rule.shape = Some(shape(child)?),
                (_, name) => return Err(strange(name, element)),
            }
        }
        Ok(rule)
    }

    fn identities(&self) -> usize {
        let weight = |identity: &Identity| match identity {
            Identity::Many(many) => 1 + many.except.len(),
            _ => 1,
        };
        self.conditions.identity.iter().flatten().map(weight).sum()
    }

    pub fn to_element(&self) -> Element {
        let mut element = Element::new("rule", COMMON).attr("id", &self.id);
        if self.conditions != Conditions::default() {
            element = element.child(self.conditions.to_element());
        }
        element = element.child(self.actions.to_element());
        match &self.shape {
            Some(shape) => element.child(shape_to_element(shape)),
            None => element,
        }
    }
}

impl Conditions {
    fn of(element: &Element) -> Read<Conditions> {
        let mut conditions = Conditions::default();
        for child in element.elements() {
            match (&*child.ns, &*child.name) {
                (COMMON, "identity") => {
                    conditions.identity.get_or_insert_default().extend(identities(child)?);
                }
                (COMMON, "sphere") => {
                    let values = attribute(child, "value")?;
                    if values.trim().is_empty() {
                        return Err(bad("<sphere/> has no value"));
                    }
                    conditions.sphere.get_or_insert_default().extend(values.split_whitespace().map(Into::into));
                }
                (COMMON, "validity") => conditions.validity.get_or_insert_default().extend(validity(child)?),
                (NS, "hours") => conditions.hours.get_or_insert_default().push(hours(child)?),
                (_, name) => return Err(strange(name, element)),
            }
        }
        Ok(conditions)
    }

    fn to_element(&self) -> Element {
        let mut element = Element::new("conditions", COMMON);
        if let Some(identity) = &self.identity {
            element =
                element.child(Element::new("identity", COMMON).children_from(identity.iter().map(identity_to_element)));
        }
        if let Some(sphere) = &self.sphere {
            element = element.child(Element::new("sphere", COMMON).attr("value", sphere.join(" ")));
        }
        if let Some(validity) = &self.validity {
            let span = |(from, until): &(Stamp, Stamp)| {
                [("from", from), ("until", until)].map(|(name, at)| Element::new(name, COMMON).text(at.to_xmpp()))
            };
            element = element.child(Element::new("validity", COMMON).children_from(validity.iter().flat_map(span)));
        }
        element.children_from(self.hours.iter().flatten().map(hours_to_element))
    }
}

fn identities(element: &Element) -> Read<Vec<Identity>> {
    let mut identities = Vec::new();
    for child in element.elements() {
        identities.push(match (&*child.ns, &*child.name) {
            (COMMON, "one") => Identity::One(who(attribute(child, "id")?)?),
            (COMMON, "many") => Identity::Many(many(child)?),
            (NS, "group") => {
                let name = child.attribute("name").filter(|name| !name.is_empty());
                Identity::Group(name.map(Into::into))
            }
            (NS, "unauthenticated") => Identity::Unauthenticated,
            (_, name) => return Err(strange(name, element)),
        });
    }
    Ok(identities)
}

fn many(element: &Element) -> Read<Many> {
    let domain_of = |element: &Element| element.attribute("domain").map(domain).transpose();
    let mut many = Many { domain: domain_of(element)?, except: Vec::new() };
    for child in element.elements() {
        if !child.is("except", COMMON) {
            return Err(strange(&child.name, element));
        }
        let except = match (child.attribute("id"), domain_of(child)?) {
            (Some(id), None) => Except::One(who(id)?),
            (None, Some(domain)) => Except::Domain(domain),
            _ => return Err(bad("<except/> has either 'id' or 'domain'")),
        };
        many.except.push(except);
    }
    Ok(many)
}

fn identity_to_element(identity: &Identity) -> Element {
    let id = |jid: &BareJid| format!("xmpp:{}", jid.as_str());
    match identity {
        Identity::One(who) => Element::new("one", COMMON).attr("id", id(who)),
        Identity::Many(many) => {
            let except = |except: &Except| match except {
                Except::One(who) => Element::new("except", COMMON).attr("id", id(who)),
                Except::Domain(domain) => Element::new("except", COMMON).attr("domain", domain.to_string()),
            };
            Element::new("many", COMMON)
                .attr_opt("domain", many.domain.as_ref().map(Domain::to_string))
                .children_from(many.except.iter().map(except))
        }
        Identity::Group(name) => Element::new("group", NS).attr_opt("name", name.as_ref()),
        Identity::Unauthenticated => Element::new("unauthenticated", NS),
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.below { write!(f, "*.{}", self.name) } else { f.write_str(&self.name) }
    }
}

/// `<from/>` and `<until/>` in turn. RFC 4745 §7.3.
fn validity(element: &Element) -> Read<Vec<(Stamp, Stamp)>> {
    let time = |child: &Element| {
        Stamp::from_xmpp(child.text_content().trim()).ok_or_else(|| bad(format!("<{}/> is no time", child.name)))
    };
    let times: Vec<&Element> = element.elements().collect();
    if times.is_empty() {
        return Err(bad("<validity/> has <from/> and <until/> in turn"));
    }
    let span = |pair: &[&Element]| match pair {
        [from, until] if from.is("from", COMMON) && until.is("until", COMMON) => Ok((time(from)?, time(until)?)),
        _ => Err(bad("<validity/> has <from/> and <until/> in turn")),
    };
    times.chunks(2).map(span).collect()
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

pub(super) fn hours(element: &Element) -> Read<Hours> {
    let no_time = || bad("<hours/> has 'from' and 'until' as 22:00, 'days' as mon tue, 'tzo' as +01:00");
    let minutes = |text: &str| {
        let (hour, minute) = text.split_once(':')?;
        let two = |part: &str| (part.len() == 2).then(|| part.parse::<u16>().ok())?;
        let (hour, minute) = (two(hour)?, two(minute)?);
        (hour < 24 && minute < 60).then_some(hour * 60 + minute)
    };
    let at = |name| attribute(element, name).and_then(|text| minutes(text).ok_or_else(no_time));
    let mut days = 0;
    for day in element.attribute("days").unwrap_or_default().split_whitespace() {
        let day = DAYS.iter().position(|name| *name == day).ok_or_else(no_time)?;
        days |= 1 << day;
    }
    let offset = match element.attribute("tzo").unwrap_or("Z") {
        "Z" => 0,
        tzo => {
            let (sign, rest) = tzo.split_at_checked(1).ok_or_else(no_time)?;
            let minutes = i16::try_from(minutes(rest).ok_or_else(no_time)?).map_err(|_| no_time())?;
            match sign {
                "+" => minutes,
                "-" => -minutes,
                _ => return Err(no_time()),
            }
        }
    };
    Ok(Hours { from: at("from")?, until: at("until")?, days: if days == 0 { ALL_DAYS } else { days }, offset })
}

pub(super) fn hours_to_element(hours: &Hours) -> Element {
    let time = |minutes: u16| format!("{:02}:{:02}", minutes / 60, minutes % 60);
    let named = DAYS.iter().enumerate().filter(|(day, _)| hours.days & (1 << day) != 0);
    let days: Vec<&str> = named.map(|(_, name)| *name).collect();
    let tzo = (hours.offset != 0)
        .then(|| format!("{}{}", if hours.offset < 0 { '-' } else { '+' }, time(hours.offset.unsigned_abs())));
    Element::new("hours", NS)
        .attr("from", time(hours.from))
        .attr("until", time(hours.until))
        .attr_opt("days", (hours.days != ALL_DAYS).then(|| days.join(" ")))
        .attr_opt("tzo", tzo)
}

impl Handling {
    pub fn name(self) -> &'static str {
        match self {
            Handling::Block => "block",
            Handling::Confirm => "confirm",
            Handling::PoliteBlock => "polite-block",
            Handling::Allow => "allow",
        }
    }

    pub fn from_name(name: &str) -> Option<Handling> {
        use Handling::*;
        [Block, Confirm, PoliteBlock, Allow].into_iter().find(|handling| handling.name() == name)
    }
}

impl Delivery {
    pub fn name(self) -> &'static str {
        match self {
            Delivery::Refuse => "refuse",
            Delivery::Drop => "drop",
            Delivery::Store => "store",
            Delivery::Deliver => "deliver",
        }
    }

    pub fn from_name(name: &str) -> Option<Delivery> {
        use Delivery::*;
        [Refuse, Drop, Store, Deliver].into_iter().find(|delivery| delivery.name() == name)
    }
}

impl Actions {
    fn of(element: &Element) -> Read<Actions> {
        let mut actions = Actions::default();
        for child in element.elements() {
            let handling = || {
                Handling::from_name(child.text_content().trim())
                    .ok_or_else(|| bad(format!("<{}/> is block, confirm, polite-block or allow", child.name)))
            };
            match (&*child.ns, &*child.name) {
                (PRES, "sub-handling") => actions.subscribe = Some(handling()?),
                (NS, "fetch") => actions.fetch = Some(handling()?),
                (NS, "watch") => actions.watch = Some(truth(child)?),
                (NS, "publish") => actions.publish = Some(truth(child)?),
                (NS, "read") => actions.read = Some(truth(child)?),
                (NS, "message") => {
                    let delivery = Delivery::from_name(child.text_content().trim());
                    actions.message =
                        Some(delivery.ok_or_else(|| bad("<message/> is deliver, store, drop or refuse"))?);
                }
                (_, name) => return Err(strange(name, element)),
            }
        }
        Ok(actions)
    }

    fn to_element(self) -> Element {
        let text = |name: &str, ns: &str, text: &str| Element::new(name, ns).text(text);
        let truth = |name, truth: Option<bool>| truth.map(|truth| text(name, NS, if truth { "true" } else { "false" }));
        let subscribe = self.subscribe.map(|handling| text("sub-handling", PRES, handling.name()));
        let fetch = self.fetch.map(|handling| text("fetch", NS, handling.name()));
        let message = self.message.map(|delivery| text("message", NS, delivery.name()));
        let grants = [truth("watch", self.watch), truth("publish", self.publish), truth("read", self.read)];
        let all = [subscribe, fetch, message].into_iter().chain(grants).flatten();
        Element::new("actions", COMMON).children_from(all)
    }
}

/// RPID's elements that have a permission of their own. RFC 5025 §3.3.2.
pub(super) const ATTRIBUTES: [&str; 11] = [
    "activities",
    "class",
    "deviceID",
    "mood",
    "place-is",
    "place-type",
    "privacy",
    "relationship",
    "sphere",
    "status-icon",
    "time-offset",
];

fn shape(element: &Element) -> Read<Shape> {
    let mut shape = Shape::default();
    for child in element.elements() {
        let name = &*child.name;
        match (&*child.ns, name) {
            (PRES, "provide-services") => shape.services.join(&picks(child, "all-services")?),
            (PRES, "provide-devices") => shape.devices.join(&picks(child, "all-devices")?),
            (PRES, "provide-persons") => shape.persons.join(&picks(child, "all-persons")?),
            (PRES, "provide-note") => shape.notes |= truth(child)?,
            (PRES, "provide-user-input") => match child.text_content().trim() {
                "false" => {}
                "bare" => shape.attributes.join(&Allowed::These([Box::from("user-input")].into())),
                "thresholds" | "full" => shape.idle = true,
                _ => return Err(bad("<provide-user-input/> is false, bare, thresholds or full")),
            },
            (PRES, "provide-all-attributes") => everything(&mut shape),
            (PRES, "provide-unknown-attribute") => {
                let named = format!("{{{}}}{}", attribute(child, "ns")?, attribute(child, "name")?);
                if truth(child)? {
                    shape.unknown.join(&Allowed::These([named.into()].into()));
                }
            }
            (NS, "provide-show") => shape.show |= truth(child)?,
            (NS, "provide-status") => shape.status |= truth(child)?,
            (NS, "provide-idle") => shape.idle |= truth(child)?,
            (NS, "provide-pep") => shape.pep.join(&nodes(child)?),
            (NS, "other-status") => shape.other = Some(other(child)?),
            (PRES, _) => {
                let known = name.strip_prefix("provide-").filter(|name| ATTRIBUTES.contains(name));
                let known = known.ok_or_else(|| strange(name, element))?;
                if truth(child)? {
                    shape.attributes.join(&Allowed::These([known.into()].into()));
                }
            }
            (_, name) => return Err(strange(name, element)),
        }
    }
    Ok(shape)
}

/// RFC 5025 §3.3.2.15: all attributes of what is shown, those too that nobody knows.
pub fn everything(shape: &mut Shape) {
    (shape.show, shape.status, shape.idle, shape.notes) = (true, true, true, true);
    (shape.attributes, shape.unknown) = (Allowed::All, Allowed::All);
}

fn picks(element: &Element, all: &str) -> Read<Picks> {
    let mut picks = Picks::default();
    for child in element.elements() {
        let pick = match (&*child.ns, &*child.name) {
            (PRES, name) if name == all => {
                picks = Allowed::All;
                continue;
            }
            (PRES, "class") => Pick::Class(value(child)?),
            (PRES, "occurrence-id") => Pick::Occurrence(value(child)?),
            (PRES, "service-uri") if all == "all-services" => Pick::Uri(value(child)?),
            (PRES, "service-uri-scheme") if all == "all-services" => Pick::Scheme(value(child)?),
            (PRES, "deviceID") if all == "all-devices" => Pick::DeviceId(value(child)?),
            (_, name) => return Err(strange(name, element)),
        };
        picks.join(&Allowed::These([pick].into()));
    }
    Ok(picks)
}

fn nodes(element: &Element) -> Read<Names> {
    let mut nodes = Names::default();
    for child in element.elements() {
        match (&*child.ns, &*child.name) {
            (NS, "all-nodes") => nodes = Allowed::All,
            (NS, "node") => nodes.join(&Allowed::These([value(child)?].into())),
            (_, name) => return Err(strange(name, element)),
        }
    }
    Ok(nodes)
}

fn other(element: &Element) -> Read<Other> {
    let mut other = Other::default();
    for child in element.elements() {
        match (&*child.ns, &*child.name) {
            (NS, "show") => other.show = Some(value(child)?),
            (NS, "status") => other.status = Some(value(child)?),
            (_, name) => return Err(strange(name, element)),
        }
    }
    // RFC 6121 §4.7.2.1.
    match other.show.as_deref() {
        None | Some("away" | "chat" | "dnd" | "xa") => Ok(other),
        Some(_) => Err(bad("<show/> is away, chat, dnd or xa")),
    }
}

fn shape_to_element(shape: &Shape) -> Element {
    let truth = |name: &str, ns: &str, holds: bool| holds.then(|| Element::new(name, ns).text("true"));
    let all = shape.attributes == Allowed::All && shape.unknown == Allowed::All;
    let all = all && shape.show && shape.status && shape.idle && shape.notes;
    let mut element = Element::new("transformations", COMMON)
        .children_from(picks_to_element("provide-services", "all-services", &shape.services))
        .children_from(picks_to_element("provide-devices", "all-devices", &shape.devices))
        .children_from(picks_to_element("provide-persons", "all-persons", &shape.persons));
    if all {
        element = element.child(Element::new("provide-all-attributes", PRES));
    } else {
        element = element
            .children_from(truth("provide-note", PRES, shape.notes))
            .children_from(truth("provide-show", NS, shape.show))
            .children_from(truth("provide-status", NS, shape.status))
            .children_from(truth("provide-idle", NS, shape.idle))
            .children_from(these(&shape.attributes).map(|name| match &**name {
                "user-input" => Element::new("provide-user-input", PRES).text("bare"),
                name => Element::new(&format!("provide-{name}"), PRES).text("true"),
            }))
            .children_from(these(&shape.unknown).filter_map(|named| {
                let (ns, name) = named.strip_prefix('{')?.rsplit_once('}')?;
                let element = Element::new("provide-unknown-attribute", PRES).attr("ns", ns).attr("name", name);
                Some(element.text("true"))
            }));
    }
    let node = |node: &str| Element::new("node", NS).text(node);
    element = match &shape.pep {
        Allowed::All => element.child(Element::new("provide-pep", NS).child(Element::new("all-nodes", NS))),
        Allowed::These(nodes) if nodes.is_empty() => element,
        Allowed::These(nodes) => {
            element.child(Element::new("provide-pep", NS).children_from(nodes.iter().map(|name| node(name))))
        }
    };
    let Some(other) = &shape.other else { return element };
    let said = |name: &str, text: &Option<Box<str>>| text.as_ref().map(|text| Element::new(name, NS).text(text));
    let other = [said("show", &other.show), said("status", &other.status)].into_iter().flatten();
    element.child(Element::new("other-status", NS).children_from(other))
}

fn these(names: &Names) -> impl Iterator<Item = &Box<str>> {
    match names {
        Allowed::All => None,
        Allowed::These(these) => Some(these),
    }
    .into_iter()
    .flatten()
}

fn picks_to_element(name: &str, all: &str, picks: &Picks) -> Option<Element> {
    let element = Element::new(name, PRES);
    match picks {
        Allowed::All => Some(element.child(Element::new(all, PRES))),
        Allowed::These(these) if these.is_empty() => None,
        Allowed::These(these) => Some(element.children_from(these.iter().map(|pick| {
            let (name, value) = match pick {
                Pick::Class(value) => ("class", value),
                Pick::Occurrence(value) => ("occurrence-id", value),
                Pick::Uri(value) => ("service-uri", value),
                Pick::Scheme(value) => ("service-uri-scheme", value),
                Pick::DeviceId(value) => ("deviceID", value),
            };
            Element::new(name, PRES).text(value)
        }))),
    }
}
