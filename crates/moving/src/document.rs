//! A document of XEP-0227 cut into its parts, as it is read: a file may be far bigger than memory.
//!
//! It may have what streams may not: an XML declaration, comments, processing instructions. What it may not have is a
//! document type: entities could mean anything.

use std::io::BufRead;
use xmpp::Element;

/// Longest tag, text or element that is taken as one.
const PART_BYTES_MAX: usize = 64 << 20;

/// What comes next.
#[derive(Debug, PartialEq)]
pub enum Part {
    /// A start tag, without content; [`Document::whole`] takes the rest of it, else what is in it comes next.
    Start(Element),
    End,
    /// The end of the document.
    Over,
}

pub struct Document<R> {
    input: R,
    /// Start tags as they came, of elements that are open, with the declarations on them.
    open: Vec<Vec<(String, String)>>,
    /// The start tag that was given last, as it came.
    last: Vec<u8>,
    /// It was an empty element: its end comes next.
    ended: bool,
}

impl<R: BufRead> Document<R> {
    pub fn new(input: R) -> Document<R> {
        Document { input, open: Vec::new(), last: Vec::new(), ended: false }
    }

    /// The next start or end; text between them is passed over.
    ///
    /// # Errors
    /// For people: what is wrong with the document.
    pub fn next_part(&mut self) -> Result<Part, String> {
        if std::mem::take(&mut self.ended) {
            self.open.pop();
            return Ok(Part::End);
        }
        loop {
            let mut text = Vec::new();
            let Some(markup) = self.markup(&mut text)? else {
                return if self.open.is_empty() { Ok(Part::Over) } else { Err("it ends in the middle".into()) };
            };
            match markup {
                Markup::Start(tag) => {
                    let element = self.begun(&tag)?;
                    self.ended = tag.ends_with(b"/>");
                    self.last = tag;
                    return Ok(Part::Start(element));
                }
                Markup::End(_) => {
                    self.open.pop().ok_or("an end tag without a start")?;
                    return Ok(Part::End);
                }
                Markup::Text => {}
            }
        }
    }

    /// The element whose start was given last, with all that is in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn whole(&mut self) -> Result<Element, String> {
        let mut bytes = self.with_declarations(&self.last)?;
        let mut depth = usize::from(!std::mem::take(&mut self.ended));
        while depth > 0 {
            match self.markup(&mut bytes)?.ok_or("it ends in the middle")? {
                Markup::Start(tag) => {
                    depth += usize::from(!tag.ends_with(b"/>"));
                    bytes.extend_from_slice(&tag);
                }
                Markup::End(tag) => {
                    depth -= 1;
                    bytes.extend_from_slice(&tag);
                }
                Markup::Text => {}
            }
            if bytes.len() > PART_BYTES_MAX {
                return Err(format!("an element of more than {PART_BYTES_MAX} bytes"));
            }
        }
        self.open.pop();
        Element::parse(&bytes, "").map_err(|error| format!("{error:?}"))
    }

    /// The start tag as an empty element; it is open from here on.
    fn begun(&mut self, tag: &[u8]) -> Result<Element, String> {
        let own = declarations(tag)?;
        self.open.push(own);
        let mut whole = self.with_declarations(tag)?;
        if !whole.ends_with(b"/>") {
            whole.pop();
            whole.extend_from_slice(b"/>");
        }
        Element::parse(&whole, "").map_err(|error| format!("{error:?} in {}", String::from_utf8_lossy(tag)))
    }

    /// The tag with the declarations that are in force around it.
    fn with_declarations(&self, tag: &[u8]) -> Result<Vec<u8>, String> {
        let (own, around) = self.open.split_last().ok_or("nothing is open")?;
        let mut in_force: Vec<&(String, String)> = Vec::new();
        for declared in around.iter().flatten() {
            in_force.retain(|(name, _)| *name != declared.0);
            in_force.push(declared);
        }
        let name_bytes =
            1 + tag[1..].iter().take_while(|byte| !byte.is_ascii_whitespace() && !b"/>".contains(byte)).count();
        let mut out = tag[..name_bytes].to_vec();
        for (name, value) in in_force.into_iter().filter(|(name, _)| !own.iter().any(|(other, _)| other == name)) {
            out.extend_from_slice(format!(" {name}={value}").as_bytes());
        }
        out.extend_from_slice(&tag[name_bytes..]);
        Ok(out)
    }

    /// The next tag, comment or the like; text before it goes to `text`.
    fn markup(&mut self, text: &mut Vec<u8>) -> Result<Option<Markup>, String> {
        let failed = |error: std::io::Error| error.to_string();
        let before = text.len();
        self.input.read_until(b'<', text).map_err(failed)?;
        if text.last() != Some(&b'<') || text.len() == before {
            return Ok(None);
        }
        text.pop();
        let mut tag = vec![b'<'];
        loop {
            let read = self.input.read_until(b'>', &mut tag).map_err(failed)?;
            if read == 0 || tag.last() != Some(&b'>') {
                return Err("it ends in the middle of a tag".into());
            }
            if tag.len() > PART_BYTES_MAX {
                return Err(format!("a tag of more than {PART_BYTES_MAX} bytes"));
            }
            let complete = match &tag[..] {
                [b'<', b'!', b'-', b'-', ..] => tag.len() >= 7 && tag.ends_with(b"-->"),
                [b'<', b'?', ..] => tag.ends_with(b"?>"),
                tag if tag.starts_with(b"<![CDATA[") => tag.ends_with(b"]]>"),
                tag => !is_quoted(tag),
            };
            if complete {
                break;
            }
        }
        Ok(Some(match &tag[..] {
            [b'<', b'!', b'-', b'-', ..] | [b'<', b'?', ..] => Markup::Text,
            found if found.starts_with(b"<![CDATA[") => {
                text.extend_from_slice(found);
                Markup::Text
            }
            [b'<', b'!', ..] => return Err("it has a document type, which is not read".into()),
            [b'<', b'/', ..] => Markup::End(tag),
            _ => Markup::Start(tag),
        }))
    }
}

enum Markup {
    Start(Vec<u8>),
    End(Vec<u8>),
    Text,
}

/// Does the last `>` stand in the value of an attribute?
fn is_quoted(tag: &[u8]) -> bool {
    let mut quote = None;
    for byte in tag {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(*byte),
            (Some(open), byte) if open == *byte => quote = None,
            _ => {}
        }
    }
    quote.is_some()
}

/// The namespace declarations of a start tag: name, and value with its quotes.
fn declarations(tag: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = std::str::from_utf8(tag).map_err(|_| "it is not UTF-8")?;
    let mut found = Vec::new();
    let mut rest = text;
    // Names stand before each `=` that is outside quotes.
    while let Some(at) = rest.find('=') {
        let name = rest[..at].trim_end();
        let name = &name[name.rfind(char::is_whitespace).map_or(0, |space| space + 1)..];
        let value = rest[at + 1..].trim_start();
        let quote =
            value.chars().next().filter(|quote| matches!(quote, '"' | '\'')).ok_or("an attribute without quotes")?;
        let end = value[1..].find(quote).ok_or("an attribute without an end")? + 2;
        if name == "xmlns" || name.starts_with("xmlns:") {
            found.push((name.to_owned(), value[..end].to_owned()));
        }
        rest = &value[end..];
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document<&[u8]> {
        Document::new(text.as_bytes())
    }

    fn start(document: &mut Document<&[u8]>) -> Element {
        match document.next_part().expect("is XML") {
            Part::Start(element) => element,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn parts_come_one_after_the_other_with_the_namespaces_around_them() {
        let mut it = document(
            "<?xml version='1.0'?><!-- a > comment --><a xmlns='n:a' xmlns:x='n:x'>\n <b q='>'/>\
             <c><x:d x:e='1'>t<![CDATA[<&>]]></x:d></c></a>\n",
        );
        assert!(start(&mut it).is("a", "n:a"));
        assert_eq!(start(&mut it).attribute("q"), Some(">"));
        assert_eq!(it.next_part(), Ok(Part::End));
        assert!(start(&mut it).is("c", "n:a"));
        let whole = it.whole().expect("is XML");
        let inner = whole.elements().next().expect("has a child");
        assert!(inner.is("d", "n:x") && inner.attribute("{n:x}e") == Some("1"));
        assert_eq!(inner.text_content(), "t<&>");
        assert_eq!((it.next_part(), it.next_part()), (Ok(Part::End), Ok(Part::Over)));
    }

    #[test]
    fn what_is_no_document_is_refused() {
        for text in ["<a>", "<a><b></a", "<!DOCTYPE a [<!ENTITY e 'x'>]><a/>", "<a b=c/>", "<a b='/>"] {
            let mut it = document(text);
            let ends = (0..5).any(|_| it.next_part().is_err());
            assert!(ends, "{text}");
        }
        let mut it = document("<a><b><c></b></a>");
        start(&mut it);
        start(&mut it);
        assert!(it.whole().is_err());
    }
}
