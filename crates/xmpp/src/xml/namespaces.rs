//! Namespaces in scope where the tokeniser stands: what is declared, what a prefix means, and which prefixes are bound
//! outside of the payload. Namespaces in XML 1.0.

use super::XmlFault;
use super::chars::{AMPERSAND, IN_NO_URI, namespace_flags};
use super::escape::unescape_attribute;
use super::start_tag::{Attr, AttrKind, TWICE};
use super::tape::TapeNs;
use crate::ns;
use smallvec::SmallVec;
use std::borrow::Cow;

/// Prefixes declared on open elements, in all: bounds the cost of looking one up.
pub(super) const PREFIXES_IN_SCOPE_MAX: usize = 64;
/// Prefixes of the header and of a top-level tag are told apart by one bit each.
pub(super) const OUTER_PREFIXES_MAX: usize = 32;
const TOO_MANY_PREFIXES: XmlFault = XmlFault::TooBig { what: "namespace declarations", max: OUTER_PREFIXES_MAX };

const XMLNS: &[u8] = b"http://www.w3.org/2000/xmlns/";

/// What stands around a frame: the stream header, or what takes its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Outer {
    /// Qualified name of the header, for its end tag; empty where there is none.
    pub qname: Cow<'static, str>,
    pub default_ns: Cow<'static, str>,
    /// Is the default namespace the content namespace?
    pub default_is_content: bool,
    /// The namespace that, beside `jabber:client`, is that of the content.
    pub content_ns: Cow<'static, str>,
    pub prefixes: Cow<'static, [(Cow<'static, str>, Cow<'static, str>)]>,
}

impl Outer {
    /// Without a header.
    pub(super) const fn new(default_ns: &'static str, content_ns: &'static str) -> Outer {
        Outer {
            qname: Cow::Borrowed(""),
            default_ns: Cow::Borrowed(default_ns),
            default_is_content: !default_ns.is_empty(),
            content_ns: Cow::Borrowed(content_ns),
            prefixes: Cow::Borrowed(&[]),
        }
    }

    /// Is a top-level element of this namespace in that of the content?
    pub(super) fn is_content(&self, ns: &[u8]) -> bool {
        ns == ns::CLIENT.as_bytes() || ns == self.content_ns.as_bytes()
    }
}

/// Is this the content namespace of some stream? Below a stanza's tag all of them mean the same: the content namespace
/// of the stream that the stanza is on. (No extension may have one, RFC 6120 §8.4, and what is foreign on one stream
/// would be content on the next.)
pub(super) fn is_content(ns: &[u8]) -> bool {
    [ns::CLIENT, ns::SERVER, ns::COMPONENT].iter().any(|c| c.as_bytes() == ns)
}

/// A namespace, without a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ns {
    Empty,
    Xml,
    /// The default namespace around the frame.
    Outer,
    /// Of a prefix declared on the header.
    Header(u8),
    /// It was escaped: in [`Scope::owned`].
    Owned(u16),
    Span(u32, u32),
}

impl Ns {
    /// As the tape keeps it. What the tape cannot say is in frames that are rewritten, and their tape is that of the
    /// canonical bytes.
    pub(super) fn on_tape(self, content: bool) -> TapeNs {
        match self {
            _ if content => TapeNs::CONTENT,
            Ns::Xml => TapeNs::XML,
            Ns::Owned(i) => TapeNs::owned(usize::from(i)),
            Ns::Span(at, _) => TapeNs::declared_at(at),
            Ns::Empty | Ns::Outer | Ns::Header(_) => TapeNs::EMPTY,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub(super) struct DefaultNs {
    pub ns: Ns,
    pub content: bool,
    /// Declared where the payload does not see it: on the header, or on a top-level tag in the content namespace.
    pub outer: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Binding {
    pub at: u32,
    pub end: u32,
    pub ns: Ns,
    pub content: bool,
}

/// What the open elements have declared, and what was used of it.
#[derive(Debug)]
pub(super) struct Scope {
    pub bindings: SmallVec<[Binding; 4]>,
    /// Of `bindings`, those on a top-level tag in the content namespace.
    pub top_level: usize,
    /// Prefixes of outside that the child being read uses, one bit each: header, then top-level tag.
    pub outer_used: u64,
    /// Namespaces that were escaped.
    pub owned: Vec<Box<str>>,
}

impl Scope {
    #[inline(always)]
    pub(super) fn new() -> Scope {
        Scope { bindings: SmallVec::new(), top_level: 0, outer_used: 0, owned: Vec::new() }
    }

    /// # Errors
    /// Too many are in scope.
    pub(super) fn bind(&mut self, binding: Binding) -> Result<(), XmlFault> {
        if self.bindings.len() >= PREFIXES_IN_SCOPE_MAX {
            return Err(XmlFault::TooBig { what: "prefixes in scope", max: PREFIXES_IN_SCOPE_MAX });
        }
        self.bindings.push(binding);
        Ok(())
    }

    /// The prefixes declared since there were `len` in scope are out of it.
    #[inline(always)]
    pub(super) fn unbind(&mut self, len: usize) {
        if self.bindings.len() > len {
            self.bindings.truncate(len);
        }
    }

    /// Reads a declaration of `prefix` (empty: of the default namespace). Namespaces in XML §3, §5.
    pub(super) fn declare(&mut self, buf: &[u8], attr: &Attr, prefix: &[u8]) -> Result<(Ns, bool), XmlFault> {
        let (at, end) = (attr.value_at, attr.value_end);
        let raw = &buf[at as usize..end as usize];
        let mut flags = namespace_flags(raw);
        let unescaped = (flags & AMPERSAND != 0).then(|| unescape_attribute(raw));
        let value = unescaped.as_ref().map_or(raw, |u| u.as_bytes());
        if prefix == b"xmlns" {
            return Err(XmlFault::Prefix("the prefix xmlns declared"));
        }
        if (prefix == b"xml") != (value == ns::XML.as_bytes()) {
            return Err(XmlFault::Prefix(
                "the prefix xml bound to another namespace, or its namespace to another prefix",
            ));
        }
        if prefix == b"xml" {
            return Ok((Ns::Xml, false));
        }
        if value == XMLNS {
            return Err(XmlFault::Prefix("the namespace of xmlns declared"));
        }
        if value.is_empty() {
            if !prefix.is_empty() {
                return Err(XmlFault::Prefix("a prefix undeclared"));
            }
            return Ok((Ns::Empty, false));
        }
        if unescaped.is_some() {
            flags |= namespace_flags(value);
        }
        if flags & IN_NO_URI != 0 {
            return Err(XmlFault::NotWellFormed("a namespace with a character that no URI has"));
        }
        let content = is_content(value);
        match unescaped {
            None => Ok((Ns::Span(at, end - at), content)),
            Some(value) => {
                if self.owned.len() >= usize::from(u16::MAX) {
                    return Err(XmlFault::TooBig { what: "escaped namespaces", max: usize::from(u16::MAX) });
                }
                self.owned.push(value.into());
                Ok((Ns::Owned(self.owned.len() as u16 - 1), content))
            }
        }
    }

    /// The namespace that `buf[at..colon]` is bound to, and whether that is the content's. Notes the use of a prefix
    /// that is bound outside of the payload.
    pub(super) fn resolve_prefix(
        &mut self,
        buf: &[u8],
        outer: &Outer,
        at: usize,
        colon: usize,
    ) -> Result<(Ns, bool), XmlFault> {
        let prefix = &buf[at..colon];
        if prefix == b"xml" {
            return Ok((Ns::Xml, false));
        }
        let found = self.bindings.iter().enumerate().rev().find(|(_, b)| &buf[b.at as usize..b.end as usize] == prefix);
        if let Some((i, binding)) = found {
            if i < self.top_level {
                self.outer_used |= 1u64.checked_shl((OUTER_PREFIXES_MAX + i) as u32).ok_or(TOO_MANY_PREFIXES)?;
            }
            return Ok((binding.ns, binding.content));
        }
        match outer.prefixes.iter().position(|(p, _)| p.as_bytes() == prefix) {
            Some(i) => {
                if i >= OUTER_PREFIXES_MAX {
                    return Err(TOO_MANY_PREFIXES);
                }
                self.outer_used |= 1 << i;
                Ok((Ns::Header(i as u8), is_content(outer.prefixes[i].1.as_bytes())))
            }
            None => Err(XmlFault::Prefix("a prefix that is not declared")),
        }
    }

    /// Prefixed attributes: their prefixes are bound, and no two have the same expanded name.
    pub(super) fn check_prefixed_attributes(
        &mut self,
        buf: &[u8],
        outer: &Outer,
        attrs: &[Attr],
    ) -> Result<(), XmlFault> {
        let mut seen: SmallVec<[(Ns, u32, u32); 4]> = SmallVec::new();
        for attr in attrs.iter().filter(|attr| attr.kind == AttrKind::Prefixed) {
            let (ns, _) = self.resolve_prefix(buf, outer, attr.name_at as usize, attr.colon as usize)?;
            let local = &buf[attr.colon as usize + 1..attr.name_end as usize];
            for &(other, at, end) in &seen {
                if &buf[at as usize..end as usize] == local
                    && self.namespace(other, buf, outer) == self.namespace(ns, buf, outer)
                {
                    return Err(TWICE);
                }
            }
            seen.push((ns, attr.colon + 1, attr.name_end));
        }
        Ok(())
    }

    pub(super) fn namespace<'a>(&'a self, ns: Ns, buf: &'a [u8], outer: &'a Outer) -> &'a [u8] {
        match ns {
            Ns::Empty => b"",
            Ns::Xml => ns::XML.as_bytes(),
            Ns::Outer => outer.default_ns.as_bytes(),
            Ns::Header(i) => outer.prefixes[usize::from(i)].1.as_bytes(),
            Ns::Owned(i) => self.owned[usize::from(i)].as_bytes(),
            Ns::Span(at, len) => &buf[at as usize..][..len as usize],
        }
    }
}

/// The prefixes that a mask of [`Scope::outer_used`] names: indices into those of the header,
/// and into those of the top-level tag, in order of their declaration.
pub(super) fn used_prefixes(mask: u64) -> (impl Iterator<Item = usize>, impl Iterator<Item = usize>) {
    let bits = move |from: usize| (0..OUTER_PREFIXES_MAX).filter(move |i| mask >> (from + i) & 1 == 1);
    (bits(0), bits(OUTER_PREFIXES_MAX))
}
