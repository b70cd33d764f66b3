//! From bytes to elements: the scanner, its limits, and the small tree that modules read.
//!
//! The scanner takes bytes in any cut and gives whole top-level elements. It checks well-formedness, namespaces,
//! restricted XML (RFC 6120 §11) and limits *while* it tokenises. It never recurses.
//!
//! - `scanner`: where frames begin and end, and what is held of one that is half read.
//! - `tokens`: the tokeniser, one pass over the bytes of a frame; `start_tag`, `namespaces` and `declaration` are its parts.
//! - `tape`: what it notes.
//! - `canonical`: rewriting the few frames whose bytes would mean something else on another stream.
//! - `walk`: reading checked bytes again, in place.
//! - `element`: the tree.
//! - `chars`, `escape`: characters, names, references.

mod canonical;
mod chars;
mod declaration;
mod element;
mod escape;
mod namespaces;
mod scanner;
mod start_tag;
mod tape;
mod tokens;
mod walk;

#[cfg(test)]
pub(crate) use element::TREES_BUILT;
pub(crate) use element::build;
pub use element::{Element, Node};
pub(crate) use escape::unescape_attribute;
pub use escape::{escape_attribute, escape_text};
pub use scanner::Scanner;
pub(crate) use tape::{CHILDREN_NOTED_MAX, ChildSpan, Children};
pub(crate) use walk::{Tag, element_len};

use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// What the scanner counts while it tokenises. All inclusive.
///
/// Beside these, at most 64 prefixes may be in scope at any place, and at most 256 children of an element may use
/// prefixes that are declared outside of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one top-level element, start tag to end tag, as it comes and in canonical form.
    pub element_bytes_max: usize,
    /// Elements within one top-level element, itself included.
    pub elements_max: u32,
    pub depth_max: u16,
    /// Attributes a tag, declarations not counted.
    pub attributes_max: u16,
    /// Namespace declarations a tag; not above 32.
    pub declarations_max: u16,
    pub name_bytes_max: usize,
    pub attribute_bytes_max: usize,
}

impl Limits {
    /// Before authentication: 10,000 B, 32 elements, depth 8, 32 attributes, 8 declarations.
    pub const BEFORE_AUTH: Limits = Limits {
        element_bytes_max: 10_000,
        elements_max: 32,
        depth_max: 8,
        attributes_max: 32,
        declarations_max: 8,
        name_bytes_max: 1024,
        attribute_bytes_max: 32 * 1024,
    };
    /// After authentication on a client's stream: 262,144 B, 10,000 elements, depth 64, 64 attributes, 16 declarations.
    pub const CLIENT: Limits = Limits {
        element_bytes_max: 262_144,
        elements_max: 10_000,
        depth_max: 64,
        attributes_max: 64,
        declarations_max: 16,
        name_bytes_max: 1024,
        attribute_bytes_max: 32 * 1024,
    };
    /// After authentication on a server's or component's stream: 524,288 B.
    pub const SERVER: Limits = Limits { element_bytes_max: 524_288, ..Limits::CLIENT };
    /// What was checked when it came, with the limits of its stream, and that we keep or have wrapped since: the most
    /// that any stream may be given, and some. A depth that the stack bears.
    pub const OWN: Limits = Limits {
        element_bytes_max: 64 << 20,
        elements_max: 2_000_000,
        depth_max: 288,
        attributes_max: 2_048,
        declarations_max: 512,
        name_bytes_max: 65_536,
        attribute_bytes_max: 8 << 20,
    };
}

/// Why bytes are refused; each maps to one stream condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum XmlFault {
    NotWellFormed(&'static str),
    /// Comment, processing instruction, DTD, entity reference. RFC 6120 §11.1.
    Restricted(&'static str),
    /// Not UTF-8, or an XML declaration that names another encoding. RFC 6120 §11.6.
    Encoding(&'static str),
    /// A prefix that is not declared, or declared against the rules; or [`XmlFault::CONTENT_PREFIXED`].
    Prefix(&'static str),
    TooBig {
        what: &'static str,
        max: usize,
    },
    /// Text that is not white space between stanzas. RFC 6120 §4.9.3.1 bad-format / invalid-xml.
    TextBetweenStanzas,
}

impl XmlFault {
    /// An element of the content namespace must have no prefix. RFC 6120 §4.8.5.
    pub const CONTENT_PREFIXED: XmlFault = XmlFault::Prefix("a prefix on an element of the content namespace");
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
    /// Of the root element; empty if it has none. RFC 6120 §4.8.5.
    pub prefix: String,
    /// The default namespace declared: `jabber:client`, `jabber:server`, …; empty if none is.
    pub content_ns: String,
    pub from: Option<String>,
    pub to: Option<String>,
    pub id: Option<String>,
    pub version: Option<String>,
    pub lang: Option<String>,
    /// The prefixes declared on the header: (prefix, namespace). Bounded by `declarations_max`.
    pub prefixes: Vec<(String, String)>,
}

/// A whole top-level element, with what one pass over it noted. One right-sized buffer, never a slice of a read buffer.
///
/// Its bytes are canonical: the default namespace around them is `jabber:client`, whatever the content namespace of
/// the stream they came by, and every prefix that a child uses is declared within that child.
#[derive(Debug, Clone, PartialEq)]
pub struct Raw {
    pub(crate) bytes: Bytes,
    pub(crate) tape: Tape,
}

/// Offsets into [`Raw::bytes`]; filled by the scanner.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tape {
    pub root: tape::Root,
    /// The first [`CHILDREN_NOTED_MAX`] direct children.
    pub children: Children,
    pub children_count: u32,
    /// Namespaces of children that are written with references.
    pub owned: Option<Arc<[Box<str>]>>,
}

impl Raw {
    /// Local name of the element.
    pub fn name(&self) -> &str {
        std::str::from_utf8(self.name_bytes()).unwrap_or_default()
    }

    /// Its namespace, resolved; `jabber:client` for the content namespace of any stream.
    pub fn ns(&self) -> &str {
        self.tape.root.ns.resolve(&self.bytes, 0, self.tape.owned.as_deref().unwrap_or_default())
    }

    /// The bytes of the whole element, canonical: default namespace = the content namespace, all other prefixes
    /// that it uses declared inside.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// An unprefixed attribute of the start tag, unescaped; also `xml:lang`.
    pub fn attribute(&self, name: &str) -> Option<Cow<'_, str>> {
        self.tag().attribute(name.as_bytes()).map(unescape_attribute)
    }

    /// The whole as a tree, for nonzas (SASL, SM, …).
    pub fn to_element(&self) -> Element {
        build(&self.bytes, crate::ns::CLIENT).unwrap_or_else(|| Element::new("empty", ""))
    }

    pub(crate) fn is_in_content(&self) -> bool {
        self.tape.root.ns == tape::TapeNs::CONTENT
    }

    pub(crate) fn name_bytes(&self) -> &[u8] {
        let root = &self.tape.root;
        self.bytes.get(root.name_at as usize..(root.name_at + root.name_len) as usize).unwrap_or_default()
    }

    pub(crate) fn tag(&self) -> Tag<'_> {
        Tag::of(&self.bytes[..self.tape.root.tag_end as usize])
    }
}
