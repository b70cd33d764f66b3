//! Trees as an independent parser sees them.

use rxml::{Event, Options, Parse, Parser, WithOptions};
use std::collections::BTreeMap;
use xmpp::xml::{Frame, Limits, Node, Raw, Scanner, XmlFault};
use xmpp::{Element, ns};

#[derive(Debug, Clone, PartialEq)]
pub enum Tree {
    Element {
        ns: String,
        name: String,
        /// (namespace, name) to value.
        attributes: BTreeMap<(String, String), String>,
        nodes: Vec<Tree>,
    },
    Text(String),
}

impl Tree {
    pub fn of(element: &Element) -> Tree {
        let attribute = |(name, value): &(Box<str>, Box<str>)| {
            let key = match name.strip_prefix('{').and_then(|n| n.split_once('}')) {
                Some((ns, name)) => (ns.to_owned(), name.to_owned()),
                None if &**name == "xml:lang" => (ns::XML.to_owned(), "lang".to_owned()),
                None => (String::new(), name.to_string()),
            };
            (key, value.to_string())
        };
        let node = |node: &Node| match node {
            Node::Element(e) => Tree::of(e),
            Node::Text(t) => Tree::Text(t.to_string()),
        };
        Tree::Element {
            ns: element.ns.to_string(),
            name: element.name.to_string(),
            attributes: element.attributes.iter().map(attribute).collect(),
            nodes: element.nodes.iter().map(node).collect(),
        }
    }

    pub fn is_element(&self) -> bool {
        matches!(self, Tree::Element { .. })
    }

    /// A top-level element with what is in the content namespace, and all around it too, in `to` instead. On a stream
    /// of `content_ns`, that is.
    pub fn with_content(self, content_ns: &str, to: &str) -> Tree {
        match &self {
            Tree::Element { ns, .. } if ns == ns::CLIENT || ns == content_ns => self.content_to(to),
            _ => self,
        }
    }

    fn content_to(self, to: &str) -> Tree {
        match self {
            Tree::Element { ns, name, attributes, nodes } if is_content(&ns) => {
                let nodes = nodes.into_iter().map(|n| n.content_to(to)).collect();
                Tree::Element { ns: to.to_owned(), name, attributes, nodes }
            }
            other => other,
        }
    }
}

pub fn is_content(ns: &str) -> bool {
    [ns::CLIENT, ns::SERVER, ns::COMPONENT].contains(&ns)
}

/// The root element of a document, if the independent parser takes it.
pub fn oracle(document: &[u8]) -> Option<Tree> {
    let options = Options { max_token_length: 1 << 20, ..Options::default() };
    let mut parser = Parser::with_options(options);
    let mut input = document;
    let mut open: Vec<Tree> = Vec::new();
    let mut root = None;
    loop {
        match parser.parse(&mut input, true).ok()? {
            None => return root,
            Some(Event::XmlDeclaration(..)) => {}
            Some(Event::StartElement(_, (ns, name), attributes)) => {
                let attributes = attributes
                    .iter()
                    .map(|((ns, name), v)| ((ns.to_string(), name.to_string()), v.to_string()))
                    .collect();
                open.push(Tree::Element { ns: ns.to_string(), name: name.to_string(), attributes, nodes: Vec::new() });
            }
            Some(Event::EndElement(_)) => {
                let done = open.pop()?;
                match open.last_mut() {
                    Some(Tree::Element { nodes, .. }) => nodes.push(done),
                    _ => root = Some(done),
                }
            }
            Some(Event::Text(_, text)) => {
                if let Some(Tree::Element { nodes, .. }) = open.last_mut() {
                    match nodes.last_mut() {
                        Some(Tree::Text(last)) => last.push_str(&text),
                        _ if text.is_empty() => {}
                        _ => nodes.push(Tree::Text(text)),
                    }
                }
            }
        }
    }
}

/// A kind of stream: its content namespace, and how it begins and ends.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub content_ns: &'static str,
    pub header: &'static str,
    pub end: &'static str,
}

pub const CLIENT: Stream = Stream {
    content_ns: ns::CLIENT,
    header: "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:header'>",
    end: "</stream:stream>",
};
pub const SERVER: Stream = Stream {
    content_ns: ns::SERVER,
    header: "<?xml version='1.0'?><stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:header'>",
    end: "</stream:stream>",
};
pub const COMPONENT: Stream = Stream {
    content_ns: ns::COMPONENT,
    header: "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:header' xmlns='jabber:component:accept'>",
    end: "</stream:stream>",
};
/// As we begin streams: nothing but the stream's own prefix is declared.
pub const CLIENT_OUT: Stream = Stream {
    header: "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    ..CLIENT
};
pub const SERVER_OUT: Stream = Stream {
    header: "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'>",
    ..SERVER
};
pub const COMPONENT_OUT: Stream = Stream {
    header: "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>",
    ..COMPONENT
};
/// RFC 7395: the frame alone.
pub const FRAMED: Stream = Stream { content_ns: ns::CLIENT, header: "", end: "" };
/// RFC 6120 §4.8.2: no content namespace declared on the header.
pub const PREFIX_FREE: Stream = Stream {
    content_ns: ns::CLIENT,
    header: "<stream xmlns='http://etherx.jabber.org/streams' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:header'>",
    end: "</stream>",
};

impl Stream {
    pub fn scanner(&self) -> Scanner {
        match self.header {
            "" => Scanner::framed(Limits::SERVER, self.content_ns),
            _ => Scanner::new(Limits::SERVER),
        }
    }

    /// The elements that the scanner takes from this stream; a fault also if the last is not whole.
    pub fn scan(&self, bytes: &[u8]) -> Result<Vec<Raw>, XmlFault> {
        let mut scanner = self.scanner();
        let all = [self.header.as_bytes(), bytes].concat();
        let mut input = &all[..];
        let mut out = Vec::new();
        while let Some(frame) = scanner.next(&mut input)? {
            match frame {
                Frame::Header(_) => {}
                Frame::Element(raw) => out.push(raw),
                Frame::Close => return Err(XmlFault::NotWellFormed("the stream ended")),
            }
        }
        match scanner.is_mid_frame() {
            true => Err(XmlFault::NotWellFormed("cut off")),
            false => Ok(out),
        }
    }

    /// The elements that the independent parser takes from this stream; of a frame, the frame.
    pub fn oracle(&self, bytes: &[u8]) -> Option<Vec<Tree>> {
        let mut all = [self.header.as_bytes(), bytes, self.end.as_bytes()].concat();
        // The first step of reading XML, §2.11, of which it does one part wrong: a carriage return in an attribute.
        let mut after_return = false;
        all.retain_mut(|b| {
            let keep = *b != b'\n' || !after_return;
            after_return = *b == b'\r';
            if after_return {
                *b = b'\n';
            }
            keep
        });
        // It takes white space before the root element behind an XML declaration only.
        let root = oracle(all.trim_ascii_start())?;
        match root {
            root if self.header.is_empty() => Some(vec![root]),
            Tree::Element { nodes, .. } => Some(nodes),
            Tree::Text(_) => None,
        }
    }
}
