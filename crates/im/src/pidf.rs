//! Presence as a document: PIDF (RFC 3863), with the data model of RFC 4479 and the status of RFC 4480.
//!
//! Pure functions: one presence stanza to one tuple, and back; what makes a published tuple acceptable. Which of them a
//! watcher gets is decided in [`crate::tuples`].

use std::hash::{DefaultHasher, Hash, Hasher};
use xmpp::xml::Node;
use xmpp::{Element, Jid, PresenceType, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

pub const NS: &str = "urn:ietf:params:xml:ns:pidf";
/// RFC 4480.
pub const RPID: &str = "urn:ietf:params:xml:ns:pidf:rpid";
/// RFC 4479.
pub const DATA_MODEL: &str = "urn:ietf:params:xml:ns:pidf:data-model";
/// Last User Interaction in Presence, XEP-0319.
const IDLE: &str = "urn:xmpp:idle:1";

/// Longest id of a published element, in bytes.
const ID_BYTES_MAX: usize = 64;

/// A tuple as waft makes it from a presence stanza.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tuple {
    pub id: Box<str>,
    /// A message would be delivered there now. RFC 2778 §2.4.
    pub open: bool,
    /// `chat`, `away`, `xa`, `dnd`. RFC 8048 §5.2.
    pub show: Option<Box<str>>,
    /// RFC 6121 §4.7.2.3.
    pub priority: Option<i8>,
    /// A URI.
    pub contact: Option<String>,
    /// (language, text).
    pub notes: Vec<(Option<Box<str>>, String)>,
    /// Since when nobody has touched the device. XEP-0319.
    pub idle_since: Option<Stamp>,
    /// When it became what it is.
    pub at: Option<Stamp>,
}

impl Tuple {
    /// What a presence stanza of a resource says. Whether it is open is the account's to say.
    pub fn of(presence: &Stanza) -> Tuple {
        let text = |name: &str| presence.payload.child(name, ns::CLIENT).map(|it| it.to_element().text_content());
        let available = presence.kind == StanzaType::Presence(PresenceType::Available);
        let show = text("show").filter(|show| available && matches!(&**show, "chat" | "away" | "xa" | "dnd"));
        let notes = presence
            .payload
            .children()
            .filter(|child| child.is("status", ns::CLIENT))
            .map(|child| child.to_element())
            .map(|status| (status.attribute("xml:lang").map(Into::into), status.text_content()))
            .filter(|(_, text)| !text.is_empty())
            .collect();
        let idle = presence.payload.child("idle", IDLE);
        Tuple {
            show: show.map(Into::into),
            priority: available.then(|| presence.priority()),
            notes,
            idle_since: idle.and_then(|it| Stamp::from_xmpp(&it.attribute("since")?)),
            ..Tuple::default()
        }
    }

    /// RFC 3863 §4.1; its children in the order of the schema.
    pub fn to_element(&self) -> Element {
        let show = self.show.as_deref().map(|show| Element::new("show", ns::CLIENT).text(show));
        let status = Element::new("status", NS).child(basic(self.open)).children_from(show);
        let idle = self
            .idle_since
            .map(|since| Element::new("user-input", RPID).attr("last-input", since.to_xmpp()).text("idle"));
        let exact = self.priority.map(|priority| Element::new("priority", ns::CLIENT).text(priority.to_string()));
        let contact = self.contact.as_deref().map(|uri| {
            let priority = self.priority.filter(|priority| *priority >= 0).map(qvalue);
            Element::new("contact", NS).attr_opt("priority", priority).text(uri)
        });
        let notes = self
            .notes
            .iter()
            .map(|(lang, text)| Element::new("note", NS).attr_opt("xml:lang", lang.as_deref()).text(text));
        let at = self.at.map(|at| Element::new("timestamp", NS).text(at.to_xmpp()));
        Element::new("tuple", NS)
            .attr("id", &self.id)
            .child(status)
            .children_from(idle)
            .children_from(exact)
            .children_from(contact)
            .children_from(notes)
            .children_from(at)
    }

    /// The tuple of a document, of waft or of somebody else.
    pub fn parse(element: &Element) -> Tuple {
        let status = element.find("status", NS);
        let open =
            status.and_then(|it| it.find("basic", NS)).is_some_and(|basic| basic.text_content().trim() == "open");
        let show = status.and_then(|it| it.find("show", ns::CLIENT)).map(|it| it.text_content().into());
        let priority = element.find("priority", ns::CLIENT).and_then(|it| it.text_content().trim().parse().ok());
        let notes = element.elements().filter(|it| it.is("note", NS));
        let idle = element.find("user-input", RPID).and_then(|it| Stamp::from_xmpp(it.attribute("last-input")?));
        Tuple {
            id: element.attribute("id").unwrap_or_default().into(),
            open,
            show,
            priority,
            contact: element.find("contact", NS).map(|it| it.text_content().trim().to_owned()),
            notes: notes.map(|it| (it.attribute("xml:lang").map(Into::into), it.text_content())).collect(),
            idle_since: idle,
            at: timestamp(element),
        }
    }

    /// The stanza that a client is told instead of the tuple. RFC 8048 §5.3: open is available; what is closed and yet has
    /// a priority is a resource that takes no messages.
    pub fn to_presence(&self, presentity: &Jid) -> Stanza {
        let from = self.contact.as_deref().and_then(jid_of_uri).filter(|jid| jid.same_bare(presentity));
        let from = from.unwrap_or_else(|| presentity.clone());
        let is_there = (self.open || self.priority.is_some()) && !from.is_bare();
        let kind = if is_there { PresenceType::Available } else { PresenceType::Unavailable };
        let show = self.show.as_deref().filter(|_| is_there).map(|show| Element::new("show", ns::CLIENT).text(show));
        let status = self
            .notes
            .iter()
            .map(|(lang, text)| Element::new("status", ns::CLIENT).attr_opt("xml:lang", lang.as_deref()).text(text));
        let priority = self.priority.filter(|priority| is_there && *priority != 0);
        let priority = priority.map(|priority| Element::new("priority", ns::CLIENT).text(priority.to_string()));
        let idle = self.idle_since.filter(|_| is_there);
        let idle = idle.map(|since| Element::new("idle", IDLE).attr("since", since.to_xmpp()));
        let delay = self.at.map(|at| Element::new("delay", ns::DELAY).attr("stamp", at.to_xmpp()));
        let children = show.into_iter().chain(status).chain(priority).chain(idle).chain(delay);
        Stanza::presence(kind).with_from(from).with_children(children)
    }
}

/// What a person does who shows this, for the `<person/>` of the document. RFC 4480 §3.2.
pub fn person(show: &str) -> Option<Element> {
    let activity = match show {
        "away" | "xa" => "away",
        "dnd" => "busy",
        _ => return None,
    };
    let activities = Element::new("activities", RPID).child(Element::new(activity, RPID));
    Some(Element::new("person", DATA_MODEL).attr("id", "person").child(activities))
}

/// A document about one presentity. RFC 3863 §4.1.1.
pub fn document(presentity: &Jid, parts: impl IntoIterator<Item = Element>) -> Element {
    Element::new("presence", NS).attr("entity", format!("pres:{}", presentity.bare_str())).children_from(parts)
}

pub fn basic(open: bool) -> Element {
    Element::new("basic", NS).text(if open { "open" } else { "closed" })
}

/// An id for what has a name, which tells nothing of the name. RFC 3863 §4.1.2: unique in the document, the same in later
/// ones.
pub fn opaque_id(salt: impl Hash, name: &str) -> Box<str> {
    let mut hasher = DefaultHasher::new();
    (salt, name).hash(&mut hasher);
    format!("t{:016x}", hasher.finish()).into()
}

/// -: 0 to 127 as 0 to 1. RFC 8048 §5.2, note 6.
fn qvalue(priority: i8) -> String {
    format!("{:.3}", f64::from(priority.max(0)) / 127.0)
}

/// `xmpp:local@domain/resource`. RFC 5122.
pub fn uri_of(jid: &Jid) -> String {
    let mut uri = String::from("xmpp:");
    for byte in jid.as_str().bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@/!$&'()*+,;=:".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push_str(&format!("%{byte:02X}"));
        }
    }
    uri
}

/// The address in an `xmpp:`, `im:` or `pres:` URI.
pub fn jid_of_uri(uri: &str) -> Option<Jid> {
    let (scheme, rest) = uri.split_once(':')?;
    if !["xmpp", "im", "pres"].iter().any(|ours| scheme.eq_ignore_ascii_case(ours)) {
        return None;
    }
    let path = rest.split(['?', '#']).next()?;
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte == b'%' {
            let (digits, tail) = tail.split_at_checked(2)?;
            bytes.push(u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?);
            rest = tail;
        } else {
            bytes.push(*byte);
        }
    }
    Jid::parse(&String::from_utf8(bytes).ok()?).ok()
}

pub fn timestamp(element: &Element) -> Option<Stamp> {
    element.find("timestamp", NS).and_then(|it| Stamp::from_xmpp(it.text_content().trim()))
}

/// Where a tuple can be reached, and whether that is this account: so says its contact, or that it has none.
pub fn is_about(element: &Element, presentity: &Jid) -> bool {
    match element.find("contact", NS) {
        Some(contact) => jid_of_uri(contact.text_content().trim()).is_some_and(|jid| jid.same_bare(presentity)),
        None => true,
    }
}

/// Makes a `<tuple/>`, `<person/>` or `<device/>` fit to be stored: with a timestamp, in the order of the schema. What is
/// of no namespace that is known here stays as it came (RFC 3863 §4.2.4).
///
/// # Errors
/// `bad-request` for another element, without a usable id, or for a tuple without a status.
pub fn accepted(element: &Element, now: Stamp) -> Result<Element, StanzaError> {
    let bad = |why: &str| Err(StanzaError::from(StanzaCondition::BadRequest).with_text(why));
    let is_tuple = element.is("tuple", NS);
    if !is_tuple && !element.is("person", DATA_MODEL) && !element.is("device", DATA_MODEL) {
        return bad("neither a tuple nor a person nor a device");
    }
    let id = element.attribute("id").unwrap_or_default();
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if id.is_empty()
        || id.len() > ID_BYTES_MAX
        || !id.chars().all(letters)
        || !id.starts_with(|c: char| c.is_ascii_alphabetic())
    {
        return bad("an id of letters, digits, - and _ is needed, with a letter first");
    }
    if !is_tuple {
        return Ok(element.clone());
    }
    let Some(status) = element.find("status", NS) else { return bad("a tuple has a status") };
    let basic = status.find("basic", NS).map(|basic| basic.text_content());
    if basic.is_some_and(|basic| !matches!(basic.trim(), "open" | "closed")) {
        return bad("the basic status is open or closed");
    }
    let mut sorted = element.clone();
    sorted.nodes.retain(|node| matches!(node, Node::Element(_)));
    if timestamp(element).is_none() {
        sorted.nodes.retain(|node| !matches!(node, Node::Element(it) if it.is("timestamp", NS)));
        sorted = sorted.child(Element::new("timestamp", NS).text(now.to_xmpp()));
    }
    let rank = |node: &Node| match node {
        Node::Element(it) if *it.ns != *NS => 1,
        Node::Element(it) => match &*it.name {
            "status" => 0,
            "contact" => 2,
            "note" => 3,
            _ => 4,
        },
        Node::Text(_) => 5,
    };
    sorted.nodes.sort_by_key(rank);
    Ok(sorted)
}

/// A tuple with another basic status.
pub fn with_basic(mut element: Element, open: bool) -> Element {
    for node in &mut element.nodes {
        if let Node::Element(status) = node
            && status.is("status", NS)
        {
            status.nodes.retain(|node| !matches!(node, Node::Element(it) if it.is("basic", NS)));
            status.nodes.insert(0, Node::Element(basic(open)));
        }
    }
    element
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, jid, stanza};

    fn xml(element: &Element) -> String {
        String::from_utf8(element.to_bytes("")).expect("UTF-8")
    }

    fn element(text: &str) -> Element {
        Element::parse(text.as_bytes(), "").expect("well-formed")
    }

    // RFC 8048 §5.2, RFC 3863 §4.4.
    #[test]
    fn a_presence_stanza_becomes_a_tuple_in_the_order_of_the_schema() {
        let presence = stanza(
            "<presence from='juliet@capulet.example/balcony'><show>away</show><status xml:lang='it'>al balcone</status>\
             <priority>127</priority><idle xmlns='urn:xmpp:idle:1' since='2026-01-01T00:00:00Z'/></presence>",
        );
        let mut tuple = Tuple::of(&presence);
        tuple.id = "t1".into();
        tuple.open = true;
        tuple.contact = Some(uri_of(&jid("juliet@capulet.example/balcony")));
        tuple.at = Some(START);
        assert_eq!(
            xml(&tuple.to_element()),
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='t1'><status><basic>open</basic>\
             <show xmlns='jabber:client'>away</show></status>\
             <user-input xmlns='urn:ietf:params:xml:ns:pidf:rpid' last-input='2026-01-01T00:00:00Z'>idle</user-input>\
             <priority xmlns='jabber:client'>127</priority>\
             <contact priority='1.000'>xmpp:juliet@capulet.example/balcony</contact>\
             <note xml:lang='it'>al balcone</note><timestamp>2026-01-01T00:00:00Z</timestamp></tuple>"
        );
        assert_eq!(Tuple::parse(&tuple.to_element()), tuple);
    }

    // RFC 8048 §5.3.
    #[test]
    fn a_tuple_becomes_the_stanza_it_came_from() {
        let came = "<presence from='juliet@capulet.example/balcony'><show>dnd</show><status>hush</status>\
             <priority>-1</priority></presence>";
        let mut tuple = Tuple::of(&stanza(came));
        tuple.contact = Some(uri_of(&jid("juliet@capulet.example/balcony")));
        let told = tuple.to_presence(&jid("juliet@capulet.example"));
        assert_eq!(Tuple::of(&told), Tuple { contact: None, ..tuple });
        assert_eq!(told.from, Some(jid("juliet@capulet.example/balcony")));
        assert_eq!(told.kind, StanzaType::Presence(PresenceType::Available));
    }

    #[test]
    fn a_tuple_that_names_another_entity_speaks_for_the_presentity_alone() {
        let tuple = Tuple { open: true, contact: Some("xmpp:romeo@montague.example/x".into()), ..Tuple::default() };
        let told = tuple.to_presence(&jid("juliet@capulet.example"));
        assert_eq!(told.from, Some(jid("juliet@capulet.example")));
        assert_eq!(told.kind, StanzaType::Presence(PresenceType::Unavailable));
    }

    #[test]
    fn an_address_survives_as_a_uri() {
        for address in ["juliet@capulet.example", "juliet@capulet.example/am Balkon?", "ü@b.example/é#1%"] {
            let uri = uri_of(&jid(address));
            assert!(uri.is_ascii() && !uri.contains([' ', '?', '#']), "{uri}");
            assert_eq!(jid_of_uri(&uri), Some(jid(address)));
        }
        assert_eq!(jid_of_uri("pres:juliet@capulet.example?x=y"), Some(jid("juliet@capulet.example")));
        for none in ["tel:+1", "juliet@capulet.example", "xmpp:%zz", "xmpp:%e9", "sip:juliet@capulet.example"] {
            assert_eq!(jid_of_uri(none), None, "{none}");
        }
    }

    // RFC 3863 §4.2.4, §4.4.
    #[test]
    fn what_is_published_gets_a_time_and_keeps_what_is_not_known_here() {
        let tuple = element(
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='desk'><note>n</note><x xmlns='u:x'>y</x>\
             <contact>tel:+1</contact><status><basic>open</basic></status></tuple>",
        );
        assert_eq!(
            xml(&accepted(&tuple, START).expect("good")),
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='desk'><status><basic>open</basic></status>\
             <x xmlns='u:x'>y</x><contact>tel:+1</contact><note>n</note>\
             <timestamp>2026-01-01T00:00:00Z</timestamp></tuple>"
        );
    }

    #[test]
    fn what_is_no_tuple_is_not_accepted() {
        for bad in [
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf'><status/></tuple>",
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='1a'><status/></tuple>",
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='a b'><status/></tuple>",
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='a'/>",
            "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='a'><status><basic>ajar</basic></status></tuple>",
            "<tuple xmlns='u:x' id='a'><status/></tuple>",
        ] {
            assert!(accepted(&element(bad), START).is_err(), "{bad}");
        }
    }
}
