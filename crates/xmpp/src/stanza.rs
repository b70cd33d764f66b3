//! Message, presence and iq: the start tag parsed, the payload left as it came.

mod payload;

pub use payload::{Child, Payload};

use crate::error::{StanzaCondition, StanzaError};
use crate::jid::Jid;
use crate::ns;
use crate::xml::{Element, Frame, Limits, Raw, Scanner, Tag, XmlFault, unescape_attribute};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Message,
    Presence,
    Iq,
}

/// RFC 6121 §5.2.2. An unknown type is `normal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType {
    Normal,
    Chat,
    Groupchat,
    Headline,
    Error,
}

/// RFC 6121 §4.7.1; no `type` is `Available`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceType {
    Available,
    Unavailable,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
    Probe,
    Error,
}

/// RFC 6120 §8.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IqType {
    Get,
    Set,
    Result,
    Error,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaType {
    Message(MessageType),
    Presence(PresenceType),
    Iq(IqType),
}

impl StanzaType {
    pub fn kind(self) -> Kind {
        match self {
            StanzaType::Message(_) => Kind::Message,
            StanzaType::Presence(_) => Kind::Presence,
            StanzaType::Iq(_) => Kind::Iq,
        }
    }
}

impl Kind {
    /// The element's name.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Message => "message",
            Kind::Presence => "presence",
            Kind::Iq => "iq",
        }
    }
}

/// A stanza. Cheap to clone: the payload is shared.
#[derive(Debug, Clone)]
pub struct Stanza {
    pub kind: StanzaType,
    pub from: Option<Jid>,
    pub to: Option<Jid>,
    /// Unescaped. RFC 6120 §8.1.3.
    pub id: Option<Box<str>>,
    /// `xml:lang`, unescaped.
    pub lang: Option<Box<str>>,
    /// Attributes of other namespaces on the start tag, with their declarations, as they came: ` a:b='c' xmlns:a='d'`
    /// or nothing. Unknown unprefixed attributes are dropped.
    pub foreign: Option<Box<str>>,
    pub payload: Payload,
}

/// Why an element is no stanza that can be routed. Carries what an error answer needs.
#[derive(Debug)]
pub struct StanzaFault {
    pub error: StanzaError,
    /// The stanza as far as it could be read, `to` left out when that was what was wrong.
    pub stanza: Stanza,
}

impl Stanza {
    /// Is this a stanza by name, in the content namespace?
    pub fn kind_of(raw: &Raw) -> Option<Kind> {
        if !raw.is_in_content() {
            return None;
        }
        match raw.name_bytes() {
            b"message" => Some(Kind::Message),
            b"presence" => Some(Kind::Presence),
            b"iq" => Some(Kind::Iq),
            _ => None,
        }
    }

    /// Reads the start tag. A `from` is parsed too. The payload is the raw element's bytes, not a copy.
    ///
    /// # Errors
    /// `jid-malformed` for a bad `to` or `from` (RFC 6120 §8.3.3.8), `bad-request` for an iq without id, with a
    /// type that is none, or with other than one child in get or set (RFC 6120 §8.2.3), and for a presence type
    /// that is none (RFC 6121 §4.7.1); also for an element that is no stanza at all.
    pub fn from_raw(raw: Raw) -> Result<Stanza, Box<StanzaFault>> {
        let kind = Stanza::kind_of(&raw);
        let mut error = None;
        let mut refuse = |condition: StanzaCondition| {
            error.get_or_insert(condition);
        };
        let mut stanza = Stanza::of(StanzaType::Message(MessageType::Normal));
        let mut stanza_type = None;
        let tag = raw.tag();
        for (name, value) in tag.attributes() {
            match name {
                b"from" | b"to" => match Jid::parse(&unescape_attribute(value)) {
                    Ok(jid) if name == b"to" => stanza.to = Some(jid),
                    Ok(jid) => stanza.from = Some(jid),
                    Err(_) => refuse(StanzaCondition::JidMalformed),
                },
                b"id" => stanza.id = Some(unescape_attribute(value).into()),
                b"type" => stanza_type = Some(unescape_attribute(value)),
                b"xml:lang" => stanza.lang = Some(unescape_attribute(value).into()),
                _ if name.contains(&b':') && !name.starts_with(b"xmlns:") => {
                    stanza.foreign.get_or_insert_with(|| foreign(&tag));
                }
                _ => {}
            }
        }
        match kind {
            None => refuse(StanzaCondition::BadRequest),
            Some(Kind::Message) => stanza.kind = StanzaType::Message(message_type(stanza_type.as_deref())),
            Some(Kind::Presence) => {
                let read = presence_type(stanza_type.as_deref());
                stanza.kind = StanzaType::Presence(read.unwrap_or(PresenceType::Available));
                if read.is_none() {
                    refuse(StanzaCondition::BadRequest);
                }
            }
            Some(Kind::Iq) => {
                let read = iq_type(stanza_type.as_deref());
                stanza.kind = StanzaType::Iq(read.unwrap_or(IqType::Get));
                let one_child = raw.tape.children_count == 1 || matches!(read, Some(IqType::Result | IqType::Error));
                if read.is_none() || stanza.id.is_none() || !one_child {
                    refuse(StanzaCondition::BadRequest);
                }
            }
        }
        drop(stanza_type);
        stanza.payload = Payload::of_raw(raw);
        match error {
            None => Ok(stanza),
            Some(condition) => Err(Box::new(StanzaFault { error: condition.into(), stanza })),
        }
    }

    /// Parses a whole stanza in `jabber:client` (stored rows, tests).
    ///
    /// # Errors
    /// As [`Stanza::from_raw`]; `not-acceptable` for bytes that are no element (RFC 6120 §11.3).
    pub fn parse(bytes: &[u8]) -> Result<Stanza, Box<StanzaFault>> {
        match Raw::parse(bytes) {
            Ok(raw) => Stanza::from_raw(raw),
            Err(_) => {
                let stanza = Stanza::of(StanzaType::Message(MessageType::Normal));
                Err(Box::new(StanzaFault { error: StanzaCondition::NotAcceptable.into(), stanza }))
            }
        }
    }

    fn of(kind: StanzaType) -> Stanza {
        Stanza { kind, from: None, to: None, id: None, lang: None, foreign: None, payload: Payload::default() }
    }

    pub fn message(kind: MessageType) -> Stanza {
        Stanza::of(StanzaType::Message(kind))
    }

    pub fn presence(kind: PresenceType) -> Stanza {
        Stanza::of(StanzaType::Presence(kind))
    }

    pub fn iq(kind: IqType, id: &str) -> Stanza {
        Stanza::of(StanzaType::Iq(kind)).with_id(id)
    }

    pub fn with_from(mut self, from: impl Into<Jid>) -> Stanza {
        self.from = Some(from.into());
        self
    }

    pub fn with_to(mut self, to: impl Into<Jid>) -> Stanza {
        self.to = Some(to.into());
        self
    }

    pub fn with_id(mut self, id: &str) -> Stanza {
        self.id = Some(id.into());
        self
    }

    /// Replaces the payload by these children.
    pub fn with_children(mut self, children: impl IntoIterator<Item = Element>) -> Stanza {
        self.payload = Payload::of(children);
        self
    }

    pub fn is_message(&self) -> bool {
        matches!(self.kind, StanzaType::Message(_))
    }

    pub fn is_presence(&self) -> bool {
        matches!(self.kind, StanzaType::Presence(_))
    }

    pub fn is_iq(&self) -> bool {
        matches!(self.kind, StanzaType::Iq(_))
    }

    pub fn is_error(&self) -> bool {
        matches!(
            self.kind,
            StanzaType::Message(MessageType::Error)
                | StanzaType::Presence(PresenceType::Error)
                | StanzaType::Iq(IqType::Error)
        )
    }

    /// May an error be sent in answer? Not to an error, nor to an iq result. RFC 6120 §8.3.1, §8.2.3.
    pub fn may_be_answered_with_error(&self) -> bool {
        !self.is_error() && !matches!(self.kind, StanzaType::Iq(IqType::Result))
    }

    /// The `type` attribute as written, `None` where the default says it (`available`, `normal`).
    pub fn type_str(&self) -> Option<&'static str> {
        Some(match self.kind {
            StanzaType::Message(MessageType::Normal) | StanzaType::Presence(PresenceType::Available) => return None,
            StanzaType::Message(MessageType::Chat) => "chat",
            StanzaType::Message(MessageType::Groupchat) => "groupchat",
            StanzaType::Message(MessageType::Headline) => "headline",
            StanzaType::Presence(PresenceType::Unavailable) => "unavailable",
            StanzaType::Presence(PresenceType::Subscribe) => "subscribe",
            StanzaType::Presence(PresenceType::Subscribed) => "subscribed",
            StanzaType::Presence(PresenceType::Unsubscribe) => "unsubscribe",
            StanzaType::Presence(PresenceType::Unsubscribed) => "unsubscribed",
            StanzaType::Presence(PresenceType::Probe) => "probe",
            StanzaType::Iq(IqType::Get) => "get",
            StanzaType::Iq(IqType::Set) => "set",
            StanzaType::Iq(IqType::Result) => "result",
            StanzaType::Message(MessageType::Error)
            | StanzaType::Presence(PresenceType::Error)
            | StanzaType::Iq(IqType::Error) => "error",
        })
    }

    /// `<iq type='result'>` with `from` and `to` swapped; `None` content is an empty result.
    pub fn result(&self, content: Option<Element>) -> Stanza {
        self.answer(StanzaType::Iq(IqType::Result)).with_children(content)
    }

    /// The stanza as an error, `from` and `to` swapped, the sender's payload not included (RFC 6120 §8.3.1 allows).
    /// `None` if it must not be answered.
    pub fn error(&self, error: &StanzaError) -> Option<Stanza> {
        if !self.may_be_answered_with_error() {
            return None;
        }
        let kind = match self.kind {
            StanzaType::Message(_) => StanzaType::Message(MessageType::Error),
            StanzaType::Presence(_) => StanzaType::Presence(PresenceType::Error),
            StanzaType::Iq(_) => StanzaType::Iq(IqType::Error),
        };
        Some(self.answer(kind).with_children([error.to_element()]))
    }

    /// An empty stanza back to the sender, with the same id.
    fn answer(&self, kind: StanzaType) -> Stanza {
        Stanza { from: self.to.clone(), to: self.from.clone(), id: self.id.clone(), ..Stanza::of(kind) }
    }

    /// Value of `<priority/>`, 0 when absent or no number; clamped to -128..=127. RFC 6121 §4.7.2.3.
    pub fn priority(&self) -> i8 {
        let Some(child) = self.payload.child("priority", ns::CLIENT) else {
            return 0;
        };
        let text = child.to_element().text_content();
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        match text.parse::<i64>() {
            Ok(n) => n.clamp(i8::MIN.into(), i8::MAX.into()) as i8,
            Err(e) => match e.kind() {
                std::num::IntErrorKind::PosOverflow => i8::MAX,
                std::num::IntErrorKind::NegOverflow => i8::MIN,
                _ => 0,
            },
        }
    }

    /// Rough bytes on the wire, for queues.
    pub fn weight(&self) -> usize {
        let jid = |jid: &Option<Jid>| jid.as_ref().map_or(0, |j| j.as_str().len() + 8);
        let text = |text: &Option<Box<str>>| text.as_ref().map_or(0, |t| t.len() + 12);
        // `<presence type='unsubscribed'>` and `</presence>`.
        48 + jid(&self.from)
            + jid(&self.to)
            + text(&self.id)
            + text(&self.lang)
            + text(&self.foreign)
            + self.payload.len()
    }
}

/// Equal as stanzas: the payloads byte by byte.
impl PartialEq for Stanza {
    fn eq(&self, other: &Stanza) -> bool {
        self.kind == other.kind
            && self.from == other.from
            && self.to == other.to
            && self.id == other.id
            && self.lang == other.lang
            && self.foreign == other.foreign
            && self.payload.bytes() == other.payload.bytes()
    }
}

fn message_type(text: Option<&str>) -> MessageType {
    match text {
        Some("chat") => MessageType::Chat,
        Some("groupchat") => MessageType::Groupchat,
        Some("headline") => MessageType::Headline,
        Some("error") => MessageType::Error,
        _ => MessageType::Normal,
    }
}

fn presence_type(text: Option<&str>) -> Option<PresenceType> {
    Some(match text {
        None => PresenceType::Available,
        Some("unavailable") => PresenceType::Unavailable,
        Some("subscribe") => PresenceType::Subscribe,
        Some("subscribed") => PresenceType::Subscribed,
        Some("unsubscribe") => PresenceType::Unsubscribe,
        Some("unsubscribed") => PresenceType::Unsubscribed,
        Some("probe") => PresenceType::Probe,
        Some("error") => PresenceType::Error,
        Some(_) => return None,
    })
}

fn iq_type(text: Option<&str>) -> Option<IqType> {
    Some(match text? {
        "get" => IqType::Get,
        "set" => IqType::Set,
        "result" => IqType::Result,
        "error" => IqType::Error,
        _ => return None,
    })
}

/// The prefixed attributes of a start tag but `xml:lang`, and the declarations of their prefixes, with a space before each.
fn foreign(tag: &Tag<'_>) -> Box<str> {
    let mut out = Vec::new();
    let mut declared: Vec<&[u8]> = Vec::new();
    let mut push = |name: &[u8], value: &[u8]| {
        let quote = if value.contains(&b'\'') { b'"' } else { b'\'' };
        out.push(b' ');
        out.extend_from_slice(name);
        out.extend_from_slice(&[b'=', quote]);
        out.extend_from_slice(value);
        out.push(quote);
    };
    for (name, value) in tag.attributes() {
        let Some(colon) = memchr::memchr(b':', name) else {
            continue;
        };
        let prefix = &name[..colon];
        if prefix == b"xmlns" || name == b"xml:lang" {
            continue;
        }
        push(name, value);
        if let Some(ns) = tag.declaration_of(prefix)
            && !declared.contains(&prefix)
        {
            declared.push(prefix);
            push(&[b"xmlns:", prefix].concat(), ns);
        }
    }
    String::from_utf8_lossy(&out).into()
}

impl Raw {
    /// Parses one whole element in `jabber:client`.
    ///
    /// # Errors
    /// [`XmlFault`], as the scanner with [`Limits::SERVER`].
    pub fn parse(bytes: &[u8]) -> Result<Raw, XmlFault> {
        let mut input = bytes;
        let mut scanner = Scanner::inside(Limits::OWN, ns::CLIENT);
        match scanner.next(&mut input)? {
            Some(Frame::Element(raw)) if input.trim_ascii().is_empty() => Ok(raw),
            _ => Err(XmlFault::NotWellFormed("not one element")),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;
    use crate::write::{Additions, Wire, write_stanza};
    use crate::xml::TREES_BUILT;

    fn parse(text: &str) -> Stanza {
        Stanza::parse(text.as_bytes()).unwrap()
    }

    fn refused(text: &str) -> (StanzaCondition, Stanza) {
        let fault = Stanza::parse(text.as_bytes()).unwrap_err();
        (fault.error.condition, fault.stanza)
    }

    fn written(stanza: &Stanza) -> String {
        let mut out = Vec::new();
        write_stanza(&mut out, stanza, None, &Additions::default(), Wire::Client);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_is_written_as_it_goes_is_what_a_tree_would_be() {
        let query = Element::new("query", "a&b").attr("ver", "1");
        let item = Element::new("item", "a&b").text("x");
        let large = Payload::of_large(&query, 0, |out| (0..40).for_each(|_| item.write(out, "a&b")));
        let tree = Payload::of([query.clone().children_from((0..40).map(|_| item.clone()))]);
        assert_eq!(large.bytes(), tree.bytes());
        assert_eq!(large.children_count(), 1);
        assert_eq!(large.first().map(|it| it.to_element()), tree.first().map(|it| it.to_element()));
        assert_eq!(large.first().map(|it| it.ns.to_owned()).as_deref(), Some("a&b"));
        assert_eq!(Payload::of_large(&query, 0, |_| ()).bytes(), Payload::of([query]).bytes());
    }

    #[test]
    fn routing_a_payload_that_no_module_reads_builds_no_tree() {
        let before = TREES_BUILT.get();
        let stanza = parse("<message to='a@b'><body>x</body><x xmlns='urn:x' by='me'><y/></x></message>");
        assert!(stanza.payload.has("x", "urn:x"));
        assert_eq!(stanza.payload.child("x", "urn:x").unwrap().attribute("by").unwrap(), "me");
        let stanza = Stanza { payload: stanza.payload.without(|c| c.attribute("by").is_some()), ..stanza };
        assert_eq!(written(&stanza), "<message to='a@b'><body>x</body></message>");
        assert_eq!(TREES_BUILT.get(), before);
        stanza.payload.first().unwrap().to_element();
        assert_eq!(TREES_BUILT.get(), before + 1);
    }

    #[test]
    fn types_are_read_and_written() {
        for (name, types) in [
            ("message", &["chat", "groupchat", "headline", "error"][..]),
            ("presence", &["unavailable", "subscribe", "subscribed", "unsubscribe", "unsubscribed", "probe", "error"]),
            ("iq", &["result", "error"]),
        ] {
            for kind in types {
                let text = format!("<{name} id='1' type='{kind}'/>");
                assert_eq!(parse(&text).type_str(), Some(*kind));
                assert_eq!(written(&parse(&text)), text);
            }
        }
        assert_eq!(parse("<message/>").kind, StanzaType::Message(MessageType::Normal));
        assert_eq!(parse("<presence/>").kind, StanzaType::Presence(PresenceType::Available));
        assert_eq!(written(&parse("<message type='normal'/>")), "<message/>");
        // RFC 6121 §5.2.2.
        assert_eq!(parse("<message type='unheard-of'/>").kind, StanzaType::Message(MessageType::Normal));
    }

    #[test]
    fn a_bad_address_is_jid_malformed_and_left_out() {
        let (condition, stanza) = refused("<message to='@' from='a@b/c' id='1' type='chat'><body/></message>");
        assert_eq!(condition, StanzaCondition::JidMalformed);
        assert_eq!((stanza.to, stanza.from.unwrap().as_str(), stanza.id.as_deref()), (None, "a@b/c", Some("1")));
        assert_eq!(refused("<iq from='a@' id='1' type='result'/>").0, StanzaCondition::JidMalformed);
        assert_eq!(refused("<presence to=''/>").0, StanzaCondition::JidMalformed);
    }

    #[test]
    fn iqs_have_an_id_a_type_and_in_requests_one_child() {
        for bad in [
            "<iq type='get'><a/></iq>",
            "<iq id='1'><a/></iq>",
            "<iq id='1' type='GET'><a/></iq>",
            "<iq id='1' type='get'/>",
            "<iq id='1' type='set'>text</iq>",
            "<iq id='1' type='set'><a/><b/></iq>",
        ] {
            let (condition, stanza) = refused(bad);
            assert_eq!(condition, StanzaCondition::BadRequest, "{bad}");
            assert!(stanza.may_be_answered_with_error());
        }
        for good in [
            "<iq id='1' type='get'><a/></iq>",
            "<iq id='1' type='set'> <a><b/><c/></a> </iq>",
            "<iq id='1' type='result'/>",
            "<iq id='1' type='result'><a/></iq>",
            "<iq id='1' type='error'><a/><error type='cancel'/></iq>",
            "<iq id='' type='result'/>",
        ] {
            parse(good);
        }
    }

    #[test]
    fn a_presence_type_that_is_none_is_a_bad_request() {
        assert_eq!(refused("<presence type='away'/>").0, StanzaCondition::BadRequest);
        assert_eq!(refused("<presence type=''/>").0, StanzaCondition::BadRequest);
        assert_eq!(refused("<presence type='available'/>").0, StanzaCondition::BadRequest);
    }

    #[test]
    fn what_is_no_stanza_is_refused() {
        assert_eq!(refused("<a xmlns='urn:x'/>").0, StanzaCondition::BadRequest);
        assert_eq!(refused("<messages/>").0, StanzaCondition::BadRequest);
        assert_eq!(refused("<message xmlns='urn:x'/>").0, StanzaCondition::BadRequest);
        for broken in ["", "x", "<message>", "<message/><message/>", "<message/>x", "<message", "</stream:stream>"] {
            assert_eq!(refused(broken).0, StanzaCondition::NotAcceptable, "{broken}");
        }
    }

    #[test]
    fn errors_go_back_without_the_payload_and_never_to_errors_or_results() {
        let iq = parse("<iq from='a@b/c' to='d@e' id='&lt;1&gt;' type='set'><x xmlns='urn:x'/></iq>");
        let error = iq.error(&StanzaCondition::ServiceUnavailable.into()).unwrap();
        assert_eq!(
            written(&error),
            "<iq from='d@e' to='a@b/c' id='&lt;1&gt;' type='error'><error type='cancel'>\
             <service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        );
        assert!(error.error(&StanzaCondition::BadRequest.into()).is_none());
        assert!(parse("<iq id='1' type='result'/>").error(&StanzaCondition::BadRequest.into()).is_none());
        assert!(parse("<message type='error'/>").error(&StanzaCondition::BadRequest.into()).is_none());
        assert!(parse("<presence type='probe'/>").error(&StanzaCondition::BadRequest.into()).unwrap().is_error());
    }

    #[test]
    fn results_go_back_with_the_same_id() {
        let iq = parse("<iq from='a@b/c' to='d@e' id='1' type='get'><x xmlns='urn:x'/></iq>");
        assert_eq!(written(&iq.result(None)), "<iq from='d@e' to='a@b/c' id='1' type='result'/>");
        let content = Element::new("x", "urn:x").attr("y", "z");
        assert_eq!(
            written(&iq.result(Some(content))),
            "<iq from='d@e' to='a@b/c' id='1' type='result'><x xmlns='urn:x' y='z'/></iq>"
        );
    }

    #[test]
    fn the_priority_is_a_number_in_its_bounds_or_0() {
        for (text, priority) in [
            ("", 0),
            ("<priority>5</priority>", 5),
            ("<priority>\n -128 </priority>", -128),
            ("<priority>128</priority>", 127),
            ("<priority>-129</priority>", -128),
            ("<priority>99999999999999999999999</priority>", 127),
            ("<priority>-99999999999999999999999</priority>", -128),
            ("<priority>five</priority>", 0),
            ("<priority/>", 0),
            ("<priority>1<x/>2</priority>", 12),
            ("<priority xmlns='urn:x'>5</priority>", 0),
        ] {
            assert_eq!(parse(&format!("<presence>{text}</presence>")).priority(), priority, "{text}");
        }
    }

    #[test]
    fn the_weight_is_not_below_what_is_written_without_escapes() {
        for text in [
            "<presence type='unsubscribed'/>",
            "<message from='a@b/c' to='d@e' id='1' xml:lang='en'><body>x</body></message>",
        ] {
            assert!(parse(text).weight() >= text.len());
        }
    }

    #[test]
    fn stanzas_are_built_by_value() {
        let juliet = Jid::parse("juliet@example.com/balcony").unwrap();
        let stanza = Stanza::message(MessageType::Chat)
            .with_from(juliet.clone())
            .with_to(juliet)
            .with_id("1")
            .with_children([Element::new("body", ns::CLIENT).text("a < b")]);
        assert_eq!(
            written(&stanza),
            "<message from='juliet@example.com/balcony' to='juliet@example.com/balcony' id='1' type='chat'><body>a &lt; b</body></message>"
        );
        assert_eq!(parse(&written(&stanza)), stanza);
        assert_eq!(written(&Stanza::iq(IqType::Get, "&")), "<iq id='&amp;' type='get'/>");
        assert_eq!(written(&Stanza::presence(PresenceType::Unavailable)), "<presence type='unavailable'/>");
    }
}
