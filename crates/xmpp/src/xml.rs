//! From bytes to elements: the scanner, its limits, and the small tree that modules read.
//!
//! The scanner takes bytes in any cut and gives whole top-level elements. It checks well-formedness, namespaces,
//! restricted XML (RFC 6120 §11) and limits *while* it tokenises. It never recurses.

use bytes::Bytes;

/// What the scanner counts while it tokenises. All inclusive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one top-level element, start tag to end tag.
    pub element_bytes_max: usize,
    /// Elements within one top-level element, itself included.
    pub elements_max: u32,
    pub depth_max: u16,
    pub attributes_max: u16,
    /// Namespace declarations a tag.
    pub declarations_max: u16,
    pub name_bytes_max: usize,
    pub attribute_bytes_max: usize,
}

impl Limits {
    /// Before authentication: 10,000 B, 32 elements, depth 8, 32 attributes, 8 declarations.
    pub const BEFORE_AUTH: Limits = Limits { element_bytes_max: 10_000, elements_max: 32, depth_max: 8, attributes_max: 32, declarations_max: 8, name_bytes_max: 1024, attribute_bytes_max: 32 * 1024 };
    /// After authentication on a client's stream: 262,144 B, 10,000 elements, depth 64, 64 attributes, 16 declarations.
    pub const CLIENT: Limits = Limits { element_bytes_max: 262_144, elements_max: 10_000, depth_max: 64, attributes_max: 64, declarations_max: 16, name_bytes_max: 1024, attribute_bytes_max: 32 * 1024 };
    /// After authentication on a server's or component's stream: 524,288 B.
    pub const SERVER: Limits = Limits { element_bytes_max: 524_288, ..Limits::CLIENT };
}

/// Why bytes are refused; each maps to one stream condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XmlFault {
    NotWellFormed(&'static str),
    /// Comment, processing instruction, DTD, entity reference. RFC 6120 §11.1.
    Restricted(&'static str),
    /// Not UTF-8, or an XML declaration that names another encoding. RFC 6120 §11.6.
    Encoding(&'static str),
    /// A prefix that is not declared, or declared against the rules.
    Prefix(&'static str),
    TooBig { what: &'static str, max: usize },
    /// Text that is not white space between stanzas. RFC 6120 §4.9.3.1 bad-format / invalid-xml.
    TextBetweenStanzas,
}

/// What the scanner gives.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    /// `<stream:stream …>`. The attributes are unescaped.
    Header(Header),
    /// A whole top-level element.
    Element(Raw),
    /// `</stream:stream>`.
    Close,
}

/// A stream header. RFC 6120 §4.7.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Header {
    /// Local name and namespace of the root element; who reads them decides (`stream` in [`crate::ns::STREAM`] is right).
    pub name: String,
    pub ns: String,
    /// The default namespace declared: `jabber:client`, `jabber:server`, …
    pub content_ns: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub version: Option<String>,
    pub lang: Option<String>,
    /// The other prefixes declared on the header: (prefix, namespace). Bounded by `declarations_max`.
    pub prefixes: Vec<(String, String)>,
}

/// A whole top-level element as it came, with what one pass over it noted. One right-sized buffer, never a slice of
/// a read buffer.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub(crate) bytes: Bytes,
    pub(crate) tape: Tape,
}

/// Offsets into [`Raw::bytes`]; filled by the scanner. (The scanner's author lays this out.)
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Tape {}

impl Raw {
    /// Local name of the element.
    pub fn name(&self) -> &str { todo!() }
    /// Its namespace, resolved.
    pub fn ns(&self) -> &str { todo!() }
    /// The bytes of the whole element, canonical: default namespace = the content namespace, all other prefixes
    /// that it uses declared inside.
    pub fn bytes(&self) -> &Bytes { &self.bytes }
    /// An unprefixed attribute of the start tag, unescaped.
    pub fn attribute(&self, name: &str) -> Option<std::borrow::Cow<'_, str>> { let _ = name; todo!() }
    /// The whole as a tree, for nonzas (SASL, SM, …).
    pub fn to_element(&self) -> Element { todo!() }
}

/// Bytes in, frames out. Holds no buffer while nothing is half-read.
#[derive(Debug)]
pub struct Scanner { _private: () }

impl Scanner {
    /// A scanner that waits for a stream header. Its default content namespace comes from the header.
    pub fn new(limits: Limits) -> Scanner { let _ = limits; todo!() }
    /// A scanner inside a stream whose frames are whole elements with their own namespaces (RFC 7395 WebSocket);
    /// `content_ns` is what `jabber:client` is rewritten from.
    pub fn framed(limits: Limits, content_ns: &str) -> Scanner { let _ = (limits, content_ns); todo!() }
    /// Other limits from the next top-level element on (after authentication).
    pub fn set_limits(&mut self, limits: Limits) { let _ = limits; todo!() }
    /// Waits for a new stream header (stream restart after TLS or SASL).
    pub fn restart(&mut self) { todo!() }
    /// Takes bytes from the front of `input` up to the end of the first frame and gives it; `None` when all of
    /// `input` is taken and no frame is whole. White space between stanzas is skipped. `input` is advanced.
    ///
    /// # Errors
    /// [`XmlFault`]; the scanner is dead afterwards and gives the same fault again.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, XmlFault> { let _ = input; todo!() }
    /// Is a frame begun but not whole? (Anything unread behind `<starttls/>` counts too: ask before reading on.)
    pub fn is_mid_frame(&self) -> bool { todo!() }
    /// Bytes held for the half-read frame.
    pub fn held_bytes(&self) -> usize { todo!() }
}

/// A small tree for what modules read and build. Namespaces are resolved; prefixes are gone.
#[derive(Clone, PartialEq)]
pub struct Element {
    pub name: Box<str>,
    pub ns: std::sync::Arc<str>,
    /// Unprefixed attributes, and prefixed ones as `{namespace}name` except `xml:lang`, which is `xml:lang`. Unescaped.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Node { Element(Element), Text(Box<str>) }

impl Element {
    pub fn new(name: &str, ns: &str) -> Element { let _ = (name, ns); todo!() }
    // builders, by value
    pub fn attr(self, name: &str, value: impl AsRef<str>) -> Element { let _ = (name, value); todo!() }
    pub fn attr_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Element { let _ = (name, value); todo!() }
    pub fn child(self, child: Element) -> Element { let _ = child; todo!() }
    pub fn children_from(self, children: impl IntoIterator<Item = Element>) -> Element { let _ = children; todo!() }
    pub fn text(self, text: impl AsRef<str>) -> Element { let _ = text; todo!() }
    // readers
    pub fn is(&self, name: &str, ns: &str) -> bool { let _ = (name, ns); todo!() }
    pub fn attribute(&self, name: &str) -> Option<&str> { let _ = name; todo!() }
    pub fn elements(&self) -> impl Iterator<Item = &Element> { self.nodes.iter().filter_map(|n| match n { Node::Element(e) => Some(e), Node::Text(_) => None }) }
    pub fn find(&self, name: &str, ns: &str) -> Option<&Element> { let _ = (name, ns); todo!() }
    /// All text directly inside, joined.
    pub fn text_content(&self) -> String { todo!() }
    /// Parses one whole element (stored rows, tests). `content_ns` is the default namespace around it.
    ///
    /// # Errors
    /// [`XmlFault`], as the scanner with [`Limits::SERVER`].
    pub fn parse(bytes: &[u8], content_ns: &str) -> Result<Element, XmlFault> { let _ = (bytes, content_ns); todo!() }
    /// Writes the element for a place where `around_ns` is the default namespace. Escapes `\t \n \r` in attributes.
    pub fn write(&self, out: &mut Vec<u8>, around_ns: &str) { let _ = (out, around_ns); todo!() }
    pub fn to_bytes(&self, around_ns: &str) -> Vec<u8> { let mut v = Vec::new(); self.write(&mut v, around_ns); v }
}

impl std::fmt::Debug for Element { fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str(&String::from_utf8_lossy(&self.to_bytes(""))) } }

/// Escapes text for an element's content or a quoted attribute: the five entities, and `\t \n \r` in attributes.
pub fn escape_text(out: &mut Vec<u8>, text: &str) { let _ = (out, text); todo!() }
pub fn escape_attribute(out: &mut Vec<u8>, text: &str) { let _ = (out, text); todo!() }
