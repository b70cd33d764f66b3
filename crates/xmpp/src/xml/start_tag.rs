//! The start tag being read: its name, its attributes, and the limits on them.

use super::chars::skip_plain_name;
use super::{Limits, XmlFault};
use memchr::memchr3;
use smallvec::SmallVec;

pub(super) const TWICE: XmlFault = XmlFault::NotWellFormed("an attribute twice");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AttrKind {
    Plain,
    Prefixed,
    /// `xmlns` or `xmlns:…`.
    Declaration,
}

/// An attribute of the tag being read: offsets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attr {
    pub name_at: u32,
    pub name_end: u32,
    /// 0: none.
    pub colon: u32,
    pub value_at: u32,
    pub value_end: u32,
    pub kind: AttrKind,
}

/// A start tag that is not whole yet, or was the last: offsets into the frame.
#[derive(Debug)]
pub(super) struct StartTag {
    /// Its `<`; of an end tag, too.
    pub at: usize,
    /// 0: none.
    pub colon: usize,
    pub name_end: usize,
    // The attribute being read.
    pub attr_at: usize,
    pub attr_colon: usize,
    pub attr_end: usize,
    pub value_at: usize,
    pub quote: u8,
    /// White space was read before what comes.
    pub spaced: bool,
    /// Bit per hash of a name seen in this tag.
    seen: u64,
    pub declarations: u16,
    /// Attributes with a prefix, declarations not counted.
    pub prefixed: u16,
    pub attrs: SmallVec<[Attr; 8]>,
}

impl StartTag {
    #[inline(always)]
    pub(super) fn new() -> StartTag {
        StartTag {
            at: 0,
            colon: 0,
            name_end: 0,
            attr_at: 0,
            attr_colon: 0,
            attr_end: 0,
            value_at: 0,
            quote: 0,
            spaced: false,
            seen: 0,
            declarations: 0,
            prefixed: 0,
            attrs: SmallVec::new(),
        }
    }

    /// Another begins at `at`.
    #[inline(always)]
    pub(super) fn begin(&mut self, at: usize) {
        self.at = at;
        self.colon = 0;
        self.forget_attributes();
    }

    #[inline(always)]
    pub(super) fn begin_attribute(&mut self, at: usize) {
        self.attr_at = at;
        self.attr_colon = 0;
    }

    #[inline(always)]
    pub(super) fn forget_attributes(&mut self) {
        self.seen = 0;
        self.declarations = 0;
        self.prefixed = 0;
        self.attrs.clear();
    }

    /// Reads, without a stop, a start tag that is whole and as most are: ASCII names without prefix, values without
    /// references, one space before each attribute. Gives where it ends and whether the element is empty; `None` of
    /// any other, well-formed or not, which then goes through the stages.
    #[inline(always)]
    pub(super) fn read_plain(&mut self, buf: &[u8], limits: &Limits) -> Option<(usize, bool)> {
        let start = self.at + 1;
        let mut pos = skip_plain_name(buf, start)?;
        if pos - start > limits.name_bytes_max {
            return None;
        }
        self.name_end = pos;
        loop {
            match (buf.get(pos)?, buf.get(pos + 1)) {
                (b'>', _) => return Some((pos + 1, false)),
                (b'/', Some(b'>')) => return Some((pos + 2, true)),
                (b' ', Some(b'/' | b'>')) => {
                    pos += 1;
                    continue;
                }
                (b' ', Some(_)) => {}
                _ => return None,
            }
            let name_at = pos + 1;
            let name_end = skip_plain_name(buf, name_at)?;
            let Some(&[b'=', quote @ (b'\'' | b'"')]) = buf.get(name_end..name_end + 2) else {
                return None;
            };
            let value_at = name_end + 2;
            #[cfg(test)]
            super::tokens::note_steps(
                1 + memchr3(quote, b'<', b'&', &buf[value_at..]).unwrap_or(buf.len() - pos) as u64,
            );
            let value_end = value_at + memchr3(quote, b'<', b'&', &buf[value_at..])?;
            if buf[value_end] != quote
                || value_end - value_at > limits.attribute_bytes_max
                || name_end - name_at > limits.name_bytes_max
            {
                return None;
            }
            (self.attr_at, self.attr_colon, self.attr_end) = (name_at, 0, name_end);
            self.value_at = value_at;
            self.note_attribute_name(buf, limits).ok()?;
            self.note_attribute(value_end);
            pos = value_end + 1;
        }
    }

    /// Counts the attribute whose name was read, then looks whether the tag has it already.
    #[inline(always)]
    pub(super) fn note_attribute_name(&mut self, buf: &[u8], limits: &Limits) -> Result<(), XmlFault> {
        let name = &buf[self.attr_at..self.attr_end];
        if name == b"xmlns" || (self.attr_colon != 0 && &buf[self.attr_at..self.attr_colon] == b"xmlns") {
            self.declarations += 1;
            if self.declarations > limits.declarations_max {
                let max = usize::from(limits.declarations_max);
                return Err(XmlFault::TooBig { what: "namespace declarations", max });
            }
        } else {
            self.prefixed += u16::from(self.attr_colon != 0);
            if self.attrs.len() + 1 - usize::from(self.declarations) > usize::from(limits.attributes_max) {
                return Err(XmlFault::TooBig { what: "attributes", max: usize::from(limits.attributes_max) });
            }
        }
        let (first, last) = (name[0], name[name.len() - 1]);
        let bit = 1u64 << ((usize::from(first) * 7 + usize::from(last) * 3 + name.len()) & 63);
        if self.seen & bit != 0 && self.attrs.iter().any(|a| &buf[a.name_at as usize..a.name_end as usize] == name) {
            return Err(TWICE);
        }
        self.seen |= bit;
        Ok(())
    }

    #[inline(always)]
    pub(super) fn begin_value(&mut self, at: usize, quote: u8) {
        self.quote = quote;
        self.value_at = at;
    }

    #[inline(always)]
    pub(super) fn note_attribute(&mut self, value_end: usize) {
        self.attrs.push(Attr {
            name_at: self.attr_at as u32,
            name_end: self.attr_end as u32,
            colon: self.attr_colon as u32,
            value_at: self.value_at as u32,
            value_end: value_end as u32,
            // Which of them are declarations is found when the tag is whole.
            kind: if self.attr_colon == 0 { AttrKind::Plain } else { AttrKind::Prefixed },
        });
    }
}
