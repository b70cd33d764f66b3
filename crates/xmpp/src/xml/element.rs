//! The small tree that modules read and build.

use super::XmlFault;
use super::chars::is_ncname;
use super::escape::{escape_attribute, escape_text, unescape_attribute, unescape_text};
use super::scanner::check_element;
use super::walk::{Event, Tag, Walker};
use crate::ns;
use std::borrow::Cow;
use std::sync::Arc;

/// A small tree for what modules read and build. Namespaces are resolved; prefixes are gone.
#[derive(Clone, PartialEq)]
pub struct Element {
    pub name: Box<str>,
    pub ns: Arc<str>,
    /// Unprefixed attributes, and prefixed ones as `{namespace}name` except `xml:lang`, which is `xml:lang`. Unescaped.
    pub attributes: Vec<(Box<str>, Box<str>)>,
    pub nodes: Vec<Node>,
}

#[derive(Clone, PartialEq, Debug)]
pub enum Node {
    Element(Element),
    Text(Box<str>),
}

impl Element {
    pub fn new(name: &str, ns: &str) -> Element {
        debug_assert!(is_ncname(name), "an element's name is a name: {name:?}");
        Element { name: name.into(), ns: ns.into(), attributes: Vec::new(), nodes: Vec::new() }
    }

    /// Sets an attribute; one of the same name is replaced. `name` as in [`Element::attributes`].
    pub fn attr(mut self, name: &str, value: impl AsRef<str>) -> Element {
        let value = value.as_ref().into();
        match self.attributes.iter_mut().find(|(n, _)| **n == *name) {
            Some((_, old)) => *old = value,
            None => self.attributes.push((name.into(), value)),
        }
        self
    }

    pub fn attr_opt(self, name: &str, value: Option<impl AsRef<str>>) -> Element {
        match value {
            Some(value) => self.attr(name, value),
            None => self,
        }
    }

    pub fn child(mut self, child: Element) -> Element {
        self.nodes.push(Node::Element(child));
        self
    }

    pub fn children_from(mut self, children: impl IntoIterator<Item = Element>) -> Element {
        self.nodes.extend(children.into_iter().map(Node::Element));
        self
    }

    /// Adds text at the end.
    pub fn text(mut self, text: impl AsRef<str>) -> Element {
        push_text(&mut self.nodes, text.as_ref());
        self
    }

    pub fn is(&self, name: &str, ns: &str) -> bool {
        *self.name == *name && *self.ns == *ns
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| **n == *name).map(|(_, value)| &**value)
    }

    pub fn elements(&self) -> impl Iterator<Item = &Element> {
        self.nodes.iter().filter_map(|n| match n {
            Node::Element(e) => Some(e),
            Node::Text(_) => None,
        })
    }

    /// The first child element of this name and namespace.
    pub fn find(&self, name: &str, ns: &str) -> Option<&Element> {
        self.elements().find(|e| e.is(name, ns))
    }

    /// All text directly inside, joined.
    pub fn text_content(&self) -> String {
        self.nodes
            .iter()
            .filter_map(|n| match n {
                Node::Text(t) => Some(&**t),
                Node::Element(_) => None,
            })
            .collect()
    }

    /// Parses one whole element (stored rows, tests). `content_ns` is the default namespace around it.
    ///
    /// # Errors
    /// [`XmlFault`], as the scanner with [`super::Limits::OWN`].
    pub fn parse(bytes: &[u8], content_ns: &str) -> Result<Element, XmlFault> {
        let element = check_element(bytes, content_ns)?;
        build(element, content_ns).ok_or(XmlFault::NotWellFormed("no element"))
    }

    /// Writes the element for a place where `around_ns` is the default namespace. Escapes `\t \n \r` in attributes.
    ///
    /// Recurses as deep as the tree is; trees are read from bytes whose depth the scanner bounds.
    pub fn write(&self, out: &mut Vec<u8>, around_ns: &str) {
        let inner_ns = self.write_tag(out, around_ns);
        if self.nodes.is_empty() {
            out.extend_from_slice(b"/>");
            return;
        }
        out.push(b'>');
        for node in &self.nodes {
            match node {
                Node::Element(e) => e.write(out, inner_ns),
                Node::Text(t) => escape_text(out, t),
            }
        }
        self.write_end(out);
    }

    /// Its tags, and between them what `inside` writes, instead of what is in it.
    pub(crate) fn write_around(&self, out: &mut Vec<u8>, around_ns: &str, inside: impl FnOnce(&mut Vec<u8>)) {
        self.write_tag(out, around_ns);
        out.push(b'>');
        let empty = out.len();
        inside(out);
        if out.len() == empty {
            out.truncate(empty - 1);
            out.extend_from_slice(b"/>");
        } else {
            self.write_end(out);
        }
    }

    /// The start tag but for what ends it. Gives the default namespace inside.
    fn write_tag<'a>(&'a self, out: &mut Vec<u8>, around_ns: &'a str) -> &'a str {
        out.push(b'<');
        // The namespace of the prefix `xml` can be declared for no other, nor be the default.
        let xml = *self.ns == *ns::XML;
        if xml {
            out.extend_from_slice(b"xml:");
        }
        out.extend_from_slice(self.name.as_bytes());
        let inner_ns = if xml || *self.ns == *around_ns {
            around_ns
        } else {
            out.extend_from_slice(b" xmlns='");
            escape_attribute(out, &self.ns);
            out.push(b'\'');
            &self.ns
        };
        for (i, (name, value)) in self.attributes.iter().enumerate() {
            write_attribute(out, i, name, value);
        }
        inner_ns
    }

    fn write_end(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(if *self.ns == *ns::XML { b"</xml:" } else { b"</" });
        out.extend_from_slice(self.name.as_bytes());
        out.push(b'>');
    }

    pub fn to_bytes(&self, around_ns: &str) -> Vec<u8> {
        let mut v = Vec::new();
        self.write(&mut v, around_ns);
        v
    }
}

fn write_attribute(out: &mut Vec<u8>, i: usize, name: &str, value: &str) {
    out.push(b' ');
    match name.strip_prefix('{').and_then(|n| n.split_once('}')) {
        Some((ns::XML, local)) => {
            out.extend_from_slice(b"xml:");
            out.extend_from_slice(local.as_bytes());
        }
        // `{}name` is an attribute in no namespace.
        Some(("", local)) => out.extend_from_slice(local.as_bytes()),
        Some((attr_ns, local)) => {
            let prefix = format!("n{i}");
            out.extend_from_slice(b"xmlns:");
            out.extend_from_slice(prefix.as_bytes());
            out.extend_from_slice(b"='");
            escape_attribute(out, attr_ns);
            out.extend_from_slice(b"' ");
            out.extend_from_slice(prefix.as_bytes());
            out.push(b':');
            out.extend_from_slice(local.as_bytes());
        }
        None => {
            debug_assert!(name == "xml:lang" || (name != "xmlns" && is_ncname(name)), "an attribute's name: {name:?}");
            out.extend_from_slice(name.as_bytes());
        }
    }
    out.extend_from_slice(b"='");
    escape_attribute(out, value);
    out.push(b'\'');
}

impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.to_bytes("")))
    }
}

fn push_text(nodes: &mut Vec<Node>, text: &str) {
    if text.is_empty() {
        return;
    }
    if let Some(Node::Text(last)) = nodes.last_mut() {
        let mut joined = String::with_capacity(last.len() + text.len());
        joined.push_str(last);
        joined.push_str(text);
        *last = joined.into();
        return;
    }
    nodes.push(Node::Text(text.into()));
}

#[cfg(test)]
thread_local! {
    /// How many trees this thread built from bytes.
    pub(crate) static TREES_BUILT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
}

/// An element that is open while a tree is built.
struct Unfinished {
    element: Element,
    /// Text that is not yet a node: joins what references, CDATA and line ends cut.
    text: String,
    default_ns: Arc<str>,
    /// How many prefixes were bound outside.
    prefixes: usize,
}

/// The tree of the first element in `bytes`, which the tokeniser has checked. `None` of bytes that hold no element.
pub(crate) fn build(bytes: &[u8], default_ns: &str) -> Option<Element> {
    #[cfg(test)]
    TREES_BUILT.with(|n| n.set(n.get() + 1));
    let mut open: Vec<Unfinished> = Vec::new();
    let mut prefixes: Vec<(&[u8], Arc<str>)> = Vec::new();
    let outer: Arc<str> = default_ns.into();
    for event in Walker::new(bytes) {
        match event {
            Event::Text(raw) => {
                if let Some(top) = open.last_mut() {
                    top.text.push_str(&unescape_text(raw));
                }
            }
            Event::CData(raw) => {
                if let Some(top) = open.last_mut() {
                    let mut plain = Vec::with_capacity(raw.len());
                    super::escape::push_normal_lines(&mut plain, raw);
                    top.text.push_str(&String::from_utf8_lossy(&plain));
                }
            }
            Event::Start(tag) => {
                let prefixes_before = prefixes.len();
                let around = open.last().map_or(&outer, |o| &o.default_ns);
                let (element, default_ns) = start(&tag, around, &mut prefixes);
                if let Some(top) = open.last_mut() {
                    top.flush();
                }
                let begun = Unfinished { element, text: String::new(), default_ns, prefixes: prefixes_before };
                if tag.empty {
                    prefixes.truncate(prefixes_before);
                    match open.last_mut() {
                        Some(top) => top.element.nodes.push(Node::Element(begun.element)),
                        None => return Some(begun.element),
                    }
                } else {
                    open.push(begun);
                }
            }
            Event::End => {
                let mut done = open.pop()?;
                done.flush();
                prefixes.truncate(done.prefixes);
                match open.last_mut() {
                    Some(top) => top.element.nodes.push(Node::Element(done.element)),
                    None => return Some(done.element),
                }
            }
        }
    }
    None
}

impl Unfinished {
    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.element.nodes.push(Node::Text(std::mem::take(&mut self.text).into()));
        }
    }
}

/// The element of a start tag, without content, and the default namespace within. Binds the prefixes that it declares.
fn start<'a>(tag: &Tag<'a>, around: &Arc<str>, prefixes: &mut Vec<(&'a [u8], Arc<str>)>) -> (Element, Arc<str>) {
    let mut default_ns = around.clone();
    let mut count = 0;
    for (name, value) in tag.attributes() {
        if name == b"xmlns" {
            let value = unescape_attribute(value);
            if *value != **around {
                default_ns = value.into();
            }
        } else if let Some(prefix) = name.strip_prefix(b"xmlns:") {
            prefixes.push((prefix, unescape_attribute(value).into()));
        } else {
            count += 1;
        }
    }
    let bound = |prefix: &[u8]| -> Arc<str> {
        if prefix == b"xml" {
            return ns::XML.into();
        }
        prefixes.iter().rev().find(|(p, _)| *p == prefix).map_or_else(|| "".into(), |(_, ns)| ns.clone())
    };
    let mut attributes = Vec::with_capacity(count);
    for (name, value) in tag.attributes() {
        if name == b"xmlns" || name.starts_with(b"xmlns:") {
            continue;
        }
        let key: Cow<'_, str> = match memchr::memchr(b':', name) {
            Some(colon) if name != b"xml:lang" => {
                Cow::Owned(format!("{{{}}}{}", bound(&name[..colon]), String::from_utf8_lossy(&name[colon + 1..])))
            }
            _ => String::from_utf8_lossy(name),
        };
        attributes.push((key.into(), unescape_attribute(value).into()));
    }
    let ns = match tag.prefix() {
        Some(prefix) => bound(prefix),
        None => default_ns.clone(),
    };
    (Element { name: String::from_utf8_lossy(tag.local()).into(), ns, attributes, nodes: Vec::new() }, default_ns)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn parse(text: &str) -> Element {
        Element::parse(text.as_bytes(), ns::CLIENT).unwrap()
    }

    fn written(element: &Element, around: &str) -> String {
        String::from_utf8(element.to_bytes(around)).unwrap()
    }

    #[test]
    fn namespaces_are_resolved_and_prefixes_are_gone() {
        let e = parse(
            "<p:a xmlns:p='urn:p' xmlns='urn:d' p:x='1' y='2' xml:lang='en' xml:id='3'><b/><p:c><d xmlns=''/></p:c></p:a>",
        );
        assert!(e.is("a", "urn:p"));
        assert_eq!(e.attribute("{urn:p}x"), Some("1"));
        assert_eq!(e.attribute("y"), Some("2"));
        assert_eq!(e.attribute("xml:lang"), Some("en"));
        assert_eq!(e.attribute("{http://www.w3.org/XML/1998/namespace}id"), Some("3"));
        assert!(e.find("b", "urn:d").is_some());
        assert!(e.find("c", "urn:p").unwrap().find("d", "").is_some());
        assert_eq!(parse("<a><b/></a>").elements().next().unwrap().ns.as_ref(), ns::CLIENT);
    }

    #[test]
    fn text_is_unescaped_joined_and_split_by_elements_only() {
        let e = parse("<a>x &amp; <![CDATA[<y>\r\n]]>\rz<b>not this</b>&#x1F600;</a>");
        assert_eq!(e.text_content(), "x & <y>\n\nz😀");
        assert_eq!(e.nodes.len(), 3);
    }

    #[test]
    fn what_is_written_is_read_back_the_same_wherever_it_stands() {
        let elements = [
            Element::new("a", ""),
            Element::new("a", ns::CLIENT).attr("b", "\t\n\r<>&'\"").text("\r\n<]]>&"),
            Element::new("a", "urn:a&b").child(Element::new("b", "urn:a&b").child(Element::new("c", ""))),
            Element::new("a", "urn:x")
                .attr("{urn:y}b", "1")
                .attr("{urn:z}b", "2")
                .attr("xml:lang", "en")
                .attr("b", "3"),
            Element::new("x", ns::XML)
                .attr("{http://www.w3.org/XML/1998/namespace}space", "preserve")
                .child(Element::new("y", "urn:y")),
        ];
        for e in &elements {
            for around in ["", ns::CLIENT, ns::SERVER, "urn:x", "urn:a&b"] {
                let bytes = e.to_bytes(around);
                assert_eq!(&Element::parse(&bytes, around).unwrap(), e, "{}", String::from_utf8_lossy(&bytes));
            }
        }
    }

    #[test]
    fn a_namespace_is_declared_only_where_it_changes() {
        let e = Element::new("a", "urn:a")
            .child(Element::new("b", "urn:a"))
            .child(Element::new("c", "urn:c"))
            .child(Element::new("d", ""));
        assert_eq!(written(&e, ns::CLIENT), "<a xmlns='urn:a'><b/><c xmlns='urn:c'/><d xmlns=''/></a>");
        assert_eq!(written(&e, "urn:a"), "<a><b/><c xmlns='urn:c'/><d xmlns=''/></a>");
    }

    #[test]
    fn builders_replace_attributes_and_join_text() {
        let e = Element::new("a", "")
            .attr("b", "1")
            .attr("b", "2")
            .attr_opt("c", Some("3"))
            .attr_opt("d", None::<&str>)
            .text("x")
            .text("")
            .text("y")
            .children_from([Element::new("e", ""), Element::new("f", "")]);
        assert_eq!(written(&e, ""), "<a b='2' c='3'>xy<e/><f/></a>");
        assert_eq!(format!("{e:?}"), written(&e, ""));
    }

    #[test]
    fn one_element_and_nothing_else_is_parsed() {
        assert!(Element::parse(b" \n<a/>\t", "").is_ok());
        for bad in
            ["", " ", "x", "<a", "<a>", "<a/><b/>", "<a/>x", "x<a/>", "</a>", "<p:a/>", "<?xml version='1.0'?><a/>"]
        {
            assert!(Element::parse(bad.as_bytes(), "").is_err(), "{bad}");
        }
        let deep = "<a>".repeat(300) + &"</a>".repeat(300);
        assert!(matches!(Element::parse(deep.as_bytes(), ""), Err(XmlFault::TooBig { .. })));
    }

    /// LIMITS.md §2 row 29.
    #[test]
    fn the_deepest_tree_is_cloned_compared_written_and_dropped_on_a_small_stack() {
        let depth = usize::from(super::super::Limits::OWN.depth_max);
        let text = format!("{}{}", "<a b='c'>x".repeat(depth), "</a>".repeat(depth));
        std::thread::Builder::new()
            // A quarter of what a runtime's thread has.
            .stack_size(512 * 1024)
            .spawn(move || {
                let e = parse(&text);
                let copy = e.clone();
                assert!(e == copy);
                assert_eq!(written(&copy, ns::CLIENT), text);
                drop(copy);
            })
            .unwrap()
            .join()
            .unwrap();
    }

    #[test]
    fn bytes_that_were_never_checked_build_something_or_nothing_but_do_not_panic() {
        for bytes in [
            "",
            "<",
            "<a",
            "<a b",
            "<a b=",
            "<a b='",
            "</",
            "</a>",
            "<>",
            "<a><",
            "<a></b>",
            "<![CDATA[",
            "<a>&#xFFFFFFFF;</a>",
            "<a:b:c d:e:f=''/>",
            "=''",
        ] {
            build(bytes.as_bytes(), "");
        }
    }
}
