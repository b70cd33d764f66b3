//! What a stanza carries: bytes, and where its children lie in them.

use crate::ns;
use crate::xml::{CHILDREN_NOTED_MAX, ChildSpan, Children, Element, Raw, Tag, build, element_len, unescape_attribute};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;

/// Everything between start and end tag, as it came, in a *canonical context*: default namespace = content namespace,
/// every other prefix declared inside. Shared; clones copy no bytes.
#[derive(Debug, Clone, Default)]
pub struct Payload {
    bytes: Bytes,
    /// What `children` calls the offset of the first byte.
    base: u32,
    /// The first children; those behind them are looked for when somebody asks.
    children: Children,
    children_count: u32,
    /// Namespaces of children that are written with references.
    owned: Option<Arc<[Box<str>]>>,
}

/// A direct child, read in place.
#[derive(Debug, Clone, Copy)]
pub struct Child<'a> {
    /// Local name.
    pub name: &'a str,
    pub ns: &'a str,
    /// Start tag to end tag, in the canonical context.
    pub raw: &'a [u8],
}

impl<'a> Child<'a> {
    /// The child as a tree.
    pub fn to_element(&self) -> Element {
        build(self.raw, ns::CLIENT).unwrap_or_else(|| Element::new("empty", ""))
    }

    /// An attribute of the child's start tag, unescaped, without building a tree. Unprefixed, or `xml:lang`.
    pub fn attribute(&self, name: &str) -> Option<Cow<'a, str>> {
        let (tag, _) = Tag::read(self.raw)?;
        tag.attribute(name.as_bytes()).map(unescape_attribute)
    }

    pub fn is(&self, name: &str, ns: &str) -> bool {
        self.name == name && self.ns == ns
    }

    /// The child at the start of `raw`, read from its tag.
    fn read(raw: &'a [u8]) -> Option<Child<'a>> {
        let raw = &raw[..element_len(raw)?];
        let (tag, _) = Tag::read(raw)?;
        let declared = match tag.prefix() {
            None => tag.attribute(b"xmlns").unwrap_or(ns::CLIENT.as_bytes()),
            Some(b"xml") => ns::XML.as_bytes(),
            Some(prefix) => tag.declaration_of(prefix).unwrap_or_default(),
        };
        let text = |b| std::str::from_utf8(b).unwrap_or_default();
        Some(Child { name: text(tag.local()), ns: text(declared), raw })
    }
}

impl Payload {
    /// Of a top-level element in the content namespace; its bytes are not copied.
    pub(super) fn of_raw(raw: Raw) -> Payload {
        let Raw { mut bytes, tape } = raw;
        let (start, end) = (tape.root.tag_end, tape.root.payload_end);
        if start >= end {
            return Payload::default();
        }
        bytes.truncate(end as usize);
        let _ = bytes.split_to(start as usize);
        Payload { bytes, base: start, children: tape.children, children_count: tape.children_count, owned: tape.owned }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// How many child elements there are.
    pub fn children_count(&self) -> usize {
        self.children_count as usize
    }

    /// The direct children that are elements, in their order.
    pub fn children(&self) -> impl Iterator<Item = Child<'_>> {
        let noted = (0..self.children.len()).filter_map(|i| self.noted(i));
        let all_noted = self.children_count as usize <= self.children.len();
        let mut rest: &[u8] = match self.children.last() {
            Some(last) if !all_noted => self.bytes.get((last.end - self.base) as usize..).unwrap_or_default(),
            _ => &[],
        };
        noted.chain(std::iter::from_fn(move || {
            rest = &rest[memchr::memchr(b'<', rest)?..];
            let child = Child::read(rest)?;
            rest = &rest[child.raw.len()..];
            Some(child)
        }))
    }

    #[inline]
    fn noted(&self, i: usize) -> Option<Child<'_>> {
        let span = self.children.get(i)?;
        let raw = self.bytes.get((span.start - self.base) as usize..(span.end - self.base) as usize)?;
        let name = raw.get(usize::from(span.name_at)..usize::from(span.name_at) + usize::from(span.name_len))?;
        let ns = span.ns.resolve(&self.bytes, self.base, self.owned.as_deref().unwrap_or_default());
        Some(Child { name: std::str::from_utf8(name).ok()?, ns, raw })
    }

    /// The first child of this name and namespace.
    pub fn child(&self, name: &str, ns: &str) -> Option<Child<'_>> {
        self.children().find(|c| c.is(name, ns))
    }

    pub fn has(&self, name: &str, ns: &str) -> bool {
        self.child(name, ns).is_some()
    }

    /// The first child element (of an iq: the command).
    pub fn first(&self) -> Option<Child<'_>> {
        self.children().next()
    }

    /// The same without the children for which `cut` says true. Copies only when something is cut.
    pub fn without(&self, mut cut: impl FnMut(&Child<'_>) -> bool) -> Payload {
        let mut kept: Option<Vec<u8>> = None;
        // How far the bytes are in `kept`, or stay where they are.
        let mut done = 0;
        let mut at = 0;
        for child in self.children() {
            // Children lie in their order, with text between them.
            at += memchr::memchr(b'<', &self.bytes[at..]).unwrap_or(0);
            if cut(&child) {
                kept.get_or_insert_with(|| Vec::with_capacity(self.bytes.len()))
                    .extend_from_slice(&self.bytes[done..at]);
                done = at + child.raw.len();
            }
            at += child.raw.len();
        }
        match kept {
            None => self.clone(),
            Some(mut kept) => {
                kept.extend_from_slice(&self.bytes[done..]);
                Payload::of_bytes(kept)
            }
        }
    }

    /// With elements added at the end.
    pub fn with(&self, more: impl IntoIterator<Item = Element>) -> Payload {
        let mut more = more.into_iter().peekable();
        if more.peek().is_none() {
            return self.clone();
        }
        let mut bytes = Vec::with_capacity(self.bytes.len() + 256);
        bytes.extend_from_slice(&self.bytes);
        more.for_each(|e| e.write(&mut bytes, ns::CLIENT));
        Payload::of_bytes(bytes)
    }

    pub fn of(children: impl IntoIterator<Item = Element>) -> Payload {
        let mut bytes = Vec::new();
        children.into_iter().for_each(|e| e.write(&mut bytes, ns::CLIENT));
        Payload::of_bytes(bytes)
    }

    /// One element that may be large: what is between its tags is written as it goes, in its namespace, without a tree of
    /// it. `element` is the element without that. `bytes` is how many there will be, about.
    pub fn of_large(element: &Element, bytes: usize, inside: impl FnOnce(&mut Vec<u8>)) -> Payload {
        let mut out = Vec::with_capacity(bytes);
        element.write_around(&mut out, ns::CLIENT, inside);
        let mut owned = Vec::new();
        let children: Children = ChildSpan::of_tag(&out, 0, out.len(), &mut owned).into_iter().collect();
        let children_count = children.len() as u32;
        let bytes = Bytes::from(out.into_boxed_slice());
        Payload { bytes, base: 0, children, children_count, owned: (!owned.is_empty()).then(|| owned.into()) }
    }

    /// The bytes, in the canonical context of `jabber:client`.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Of bytes that are canonical: cut from a payload, or written by us.
    fn of_bytes(bytes: Vec<u8>) -> Payload {
        let mut children = Children::new();
        let mut owned: Vec<Box<str>> = Vec::new();
        let mut children_count = 0;
        let mut at = 0;
        while let Some(found) = memchr::memchr(b'<', &bytes[at..]) {
            at += found;
            let Some(child) = ChildSpan::read(&bytes, at, &mut owned) else {
                break;
            };
            children_count += 1;
            at = child.end as usize;
            if children.len() < CHILDREN_NOTED_MAX {
                children.push(child);
            }
        }
        let bytes = Bytes::from(bytes.into_boxed_slice());
        Payload { bytes, base: 0, children, children_count, owned: (!owned.is_empty()).then(|| owned.into()) }
    }
}
