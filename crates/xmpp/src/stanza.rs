//! Message, presence and iq: the start tag parsed, the payload left as it came.

use crate::error::StanzaError;
use crate::jid::Jid;
use crate::xml::{Element, Raw};
use bytes::Bytes;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind { Message, Presence, Iq }

/// RFC 6121 §5.2.2. An unknown type is `normal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MessageType { Normal, Chat, Groupchat, Headline, Error }

/// RFC 6121 §4.7.1; no `type` is `Available`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PresenceType { Available, Unavailable, Subscribe, Subscribed, Unsubscribe, Unsubscribed, Probe, Error }

/// RFC 6120 §8.2.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IqType { Get, Set, Result, Error }

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StanzaType { Message(MessageType), Presence(PresenceType), Iq(IqType) }

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
    /// `type` as it came, when it is none of RFC 6121 (messages only: treated as normal, §5.2.2).
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
    pub fn kind_of(raw: &Raw) -> Option<Kind> { let _ = raw; todo!() }
    /// Reads the start tag. A `from` is parsed too.
    ///
    /// # Errors
    /// `jid-malformed` for a bad `to` or `from` (RFC 6120 §8.3.3.8), `bad-request` for an iq without id, with a
    /// type that is none, or with other than one child in get or set (RFC 6120 §8.2.3), and for a presence type
    /// that is none (RFC 6121 §4.7.1).
    pub fn from_raw(raw: Raw) -> Result<Stanza, Box<StanzaFault>> { let _ = raw; todo!() }
    /// Parses a whole stanza in `jabber:client` (stored rows, tests).
    pub fn parse(bytes: &[u8]) -> Result<Stanza, Box<StanzaFault>> { let _ = bytes; todo!() }

    pub fn message(kind: MessageType) -> Stanza { let _ = kind; todo!() }
    pub fn presence(kind: PresenceType) -> Stanza { let _ = kind; todo!() }
    pub fn iq(kind: IqType, id: &str) -> Stanza { let _ = (kind, id); todo!() }
    // builders, by value
    pub fn with_from(self, from: impl Into<Jid>) -> Stanza { let _ = from.into(); todo!() }
    pub fn with_to(self, to: impl Into<Jid>) -> Stanza { let _ = to.into(); todo!() }
    pub fn with_id(self, id: &str) -> Stanza { let _ = id; todo!() }
    /// Replaces the payload by these children.
    pub fn with_children(self, children: impl IntoIterator<Item = Element>) -> Stanza { let _ = children; todo!() }

    pub fn is_message(&self) -> bool { matches!(self.kind, StanzaType::Message(_)) }
    pub fn is_presence(&self) -> bool { matches!(self.kind, StanzaType::Presence(_)) }
    pub fn is_iq(&self) -> bool { matches!(self.kind, StanzaType::Iq(_)) }
    pub fn is_error(&self) -> bool { matches!(self.kind, StanzaType::Message(MessageType::Error) | StanzaType::Presence(PresenceType::Error) | StanzaType::Iq(IqType::Error)) }
    /// May an error be sent in answer? Not to an error, nor to an iq result. RFC 6120 §8.3.1, §8.2.3.
    pub fn may_be_answered_with_error(&self) -> bool { !self.is_error() && !matches!(self.kind, StanzaType::Iq(IqType::Result)) }
    /// The `type` attribute as written, `None` where the default says it (`available`, `normal`).
    pub fn type_str(&self) -> Option<&'static str> { todo!() }

    /// `<iq type='result'>` with `from` and `to` swapped; `None` content is an empty result.
    pub fn result(&self, content: Option<Element>) -> Stanza { let _ = content; todo!() }
    /// The stanza as an error, `from` and `to` swapped, the sender's payload not included (RFC 6120 §8.3.1 allows).
    /// `None` if it must not be answered.
    pub fn error(&self, error: &StanzaError) -> Option<Stanza> { let _ = error; todo!() }
    /// Value of `<priority/>`, 0 when absent or no number; clamped to -128..=127. RFC 6121 §4.7.2.3.
    pub fn priority(&self) -> i8 { todo!() }
    /// Rough bytes on the wire, for queues.
    pub fn weight(&self) -> usize { todo!() }
}

/// Everything between start and end tag, as it came, in a *canonical context*: default namespace = content namespace,
/// every other prefix declared inside. Shared; clones copy no bytes.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    // (The scanner's author lays this out: Bytes, direct children's spans, names and namespaces, and whether a child
    // names the content namespace explicitly.)
    _bytes: Bytes,
}

/// A direct child, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    pub name: &'a str,
    pub ns: &'a str,
    pub raw: &'a [u8],
}

impl Child<'_> {
    /// The child as a tree.
    pub fn to_element(&self) -> Element { todo!() }
    /// An attribute of the child's start tag, unescaped, without building a tree.
    pub fn attribute(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> { let _ = name; todo!() }
}

impl Payload {
    pub fn is_empty(&self) -> bool { todo!() }
    /// Length in bytes.
    pub fn len(&self) -> usize { todo!() }
    pub fn children(&self) -> impl Iterator<Item = Child<'_>> { std::iter::empty() }
    pub fn child(&self, name: &str, ns: &str) -> Option<Child<'_>> { let _ = (name, ns); todo!() }
    pub fn has(&self, name: &str, ns: &str) -> bool { self.child(name, ns).is_some() }
    /// The first child element (of an iq: the command).
    pub fn first(&self) -> Option<Child<'_>> { todo!() }
    /// The same without the children for which `cut` says true. Copies only when something is cut.
    pub fn without(&self, cut: impl FnMut(&Child<'_>) -> bool) -> Payload { let _ = cut; todo!() }
    /// With elements added at the end.
    pub fn with(&self, more: impl IntoIterator<Item = Element>) -> Payload { let _ = more; todo!() }
    pub fn of(children: impl IntoIterator<Item = Element>) -> Payload { let _ = children; todo!() }
    /// The bytes, in the canonical context of `jabber:client`.
    pub fn bytes(&self) -> &Bytes { todo!() }
}
