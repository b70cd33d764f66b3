//! Reading bytes that the tokeniser has checked: events, without checks and without copies.

use super::chars::is_space;
use memchr::{memchr, memchr3, memmem};

pub(crate) enum Event<'a> {
    Start(Tag<'a>),
    /// Raw: still escaped.
    Text(&'a [u8]),
    CData(&'a [u8]),
    End,
}

/// A start tag.
#[derive(Clone, Copy)]
pub(crate) struct Tag<'a> {
    /// With its prefix, if it has one.
    pub qname: &'a [u8],
    /// Everything between name and `>` or `/>`.
    attrs: &'a [u8],
    /// `<a/>`: no end follows.
    pub empty: bool,
}

impl<'a> Tag<'a> {
    /// Reads the start tag at the start of `bytes`; also says how long it is.
    pub(crate) fn read(bytes: &'a [u8]) -> Option<(Tag<'a>, usize)> {
        let mut end = 1;
        loop {
            end += memchr3(b'>', b'\'', b'"', bytes.get(end..)?)?;
            if bytes[end] == b'>' {
                break;
            }
            end += 1 + memchr(bytes[end], bytes.get(end + 1..)?)? + 1;
        }
        Some((Tag::of(&bytes[..=end]), end + 1))
    }

    /// Of exactly the bytes of a start tag.
    pub(crate) fn of(bytes: &'a [u8]) -> Tag<'a> {
        let inner = bytes.get(1..bytes.len().saturating_sub(1)).unwrap_or_default();
        let (inner, empty) = match inner.strip_suffix(b"/") {
            Some(inner) => (inner, true),
            None => (inner, false),
        };
        let name_len = inner.iter().position(|b| is_space(*b)).unwrap_or(inner.len());
        Tag { qname: &inner[..name_len], attrs: &inner[name_len..], empty }
    }

    pub(crate) fn prefix(&self) -> Option<&'a [u8]> {
        memchr(b':', self.qname).map(|at| &self.qname[..at])
    }

    pub(crate) fn local(&self) -> &'a [u8] {
        memchr(b':', self.qname).map_or(self.qname, |at| &self.qname[at + 1..])
    }

    /// The raw value of this tag's declaration of `prefix`.
    pub(crate) fn declaration_of(&self, prefix: &[u8]) -> Option<&'a [u8]> {
        self.attributes().find(|(name, _)| name.strip_prefix(b"xmlns:") == Some(prefix)).map(|(_, value)| value)
    }

    /// (qualified name, raw value), in their order.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes { rest: self.attrs }
    }

    /// The raw value of the attribute with this qualified name.
    pub(crate) fn attribute(&self, qname: &[u8]) -> Option<&'a [u8]> {
        self.attributes().find(|(name, _)| *name == qname).map(|(_, value)| value)
    }
}

pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.rest.trim_ascii_start();
        let name_len = rest.iter().position(|b| *b == b'=' || is_space(*b))?;
        let name = &rest[..name_len];
        let quote_at = name_len + rest[name_len..].iter().position(|b| matches!(b, b'\'' | b'"'))?;
        let value = &rest[quote_at + 1..];
        let len = memchr(rest[quote_at], value)?;
        self.rest = &value[len + 1..];
        Some((name, &value[..len]))
    }
}

/// The events of checked bytes; of others it gives some, and ends.
pub(crate) struct Walker<'a> {
    bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Walker<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Walker<'a> {
        Walker { bytes, at: 0 }
    }
}

impl<'a> Iterator for Walker<'a> {
    type Item = Event<'a>;

    fn next(&mut self) -> Option<Event<'a>> {
        let rest = self.bytes.get(self.at..).filter(|r| !r.is_empty())?;
        if rest[0] != b'<' {
            let len = memchr(b'<', rest).unwrap_or(rest.len());
            self.at += len;
            return Some(Event::Text(&rest[..len]));
        }
        match rest.get(1)? {
            b'/' => {
                self.at += memchr(b'>', rest)? + 1;
                Some(Event::End)
            }
            b'!' => {
                let inner = rest.strip_prefix(b"<![CDATA[")?;
                let len = memmem::find(inner, b"]]>")?;
                self.at += 9 + len + 3;
                Some(Event::CData(&inner[..len]))
            }
            _ => {
                let (tag, len) = Tag::read(rest)?;
                self.at += len;
                Some(Event::Start(tag))
            }
        }
    }
}

/// Length of the element at the start of `bytes`.
pub(crate) fn element_len(bytes: &[u8]) -> Option<usize> {
    let mut walker = Walker::new(bytes);
    let mut depth = 0usize;
    loop {
        match walker.next()? {
            Event::Start(tag) => depth += usize::from(!tag.empty),
            Event::End => depth = depth.checked_sub(1)?,
            _ => {}
        }
        if depth == 0 {
            return Some(walker.at);
        }
    }
}
