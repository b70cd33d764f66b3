//! What is noted of a top-level element while it is tokenised: offsets into its bytes.

use super::escape::unescape_attribute;
use super::walk::{Tag, element_len};
use crate::ns;
use smallvec::SmallVec;

/// The top-level element's own tag.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Root {
    /// Local name.
    pub name_at: u32,
    pub name_len: u32,
    pub ns: TapeNs,
    /// Behind the start tag.
    pub tag_end: u32,
    /// At the end tag; `tag_end` of an empty element.
    pub payload_end: u32,
}

/// Namespace of an element as the tape keeps it, in four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct TapeNs(u32);

impl TapeNs {
    pub(crate) const CONTENT: TapeNs = TapeNs(0);
    pub(super) const EMPTY: TapeNs = TapeNs(1);
    pub(super) const XML: TapeNs = TapeNs(2);
    /// The rest is the offset of the declaration's value in the frame, which is never that small; with this bit, an
    /// index into what was escaped.
    const OWNED: u32 = 1 << 31;

    /// One that is written with references: an index into those.
    pub(super) fn owned(index: usize) -> TapeNs {
        TapeNs(Self::OWNED | index as u32)
    }

    /// One whose declaration's value begins here.
    pub(super) fn declared_at(at: u32) -> TapeNs {
        TapeNs(at)
    }

    /// The namespace, in a frame whose byte `base` is the first of `bytes`.
    pub(crate) fn resolve<'a>(self, bytes: &'a [u8], base: u32, owned: &'a [Box<str>]) -> &'a str {
        match self {
            TapeNs::CONTENT => ns::CLIENT,
            TapeNs::EMPTY => "",
            TapeNs::XML => ns::XML,
            TapeNs(i) if i & Self::OWNED != 0 => owned.get((i & !Self::OWNED) as usize).map_or("", |s| s),
            TapeNs(at) => {
                let at = at.wrapping_sub(base) as usize;
                let value = bytes.get(at..).unwrap_or_default();
                let quote = bytes.get(at.wrapping_sub(1)).copied().unwrap_or(b'\'');
                let end = memchr::memchr(quote, value).unwrap_or(0);
                std::str::from_utf8(&value[..end]).unwrap_or_default()
            }
        }
    }
}

/// A direct child of a top-level element: offsets from the frame's start, and its local name's from its own.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct ChildSpan {
    pub start: u32,
    pub end: u32,
    pub name_at: u16,
    pub name_len: u16,
    pub ns: TapeNs,
}

impl ChildSpan {
    /// Of the element at `at` in canonical bytes. A namespace that is written with references goes to `owned`.
    pub(crate) fn read(bytes: &[u8], at: usize, owned: &mut Vec<Box<str>>) -> Option<ChildSpan> {
        let end = at + element_len(bytes.get(at..)?)?;
        ChildSpan::of_tag(bytes, at, end, owned)
    }

    /// The same of an element whose end is known.
    pub(crate) fn of_tag(bytes: &[u8], at: usize, end: usize, owned: &mut Vec<Box<str>>) -> Option<ChildSpan> {
        let (tag, _) = Tag::read(bytes.get(at..)?)?;
        let declaration = match tag.prefix() {
            None => tag.attribute(b"xmlns"),
            Some(prefix) => tag.declaration_of(prefix),
        };
        let ns = match declaration {
            Some(b"") => TapeNs::EMPTY,
            Some(value) if value.contains(&b'&') => {
                owned.push(unescape_attribute(value).into());
                TapeNs::owned(owned.len() - 1)
            }
            // The value is a part of `bytes`.
            Some(value) => TapeNs::declared_at((value.as_ptr().addr() - bytes.as_ptr().addr()) as u32),
            None if tag.prefix() == Some(b"xml") => TapeNs::XML,
            None => TapeNs::CONTENT,
        };
        let name_at = tag.prefix().map_or(1, |p| p.len() + 2);
        Some(ChildSpan {
            start: at as u32,
            end: end as u32,
            name_at: name_at as u16,
            name_len: tag.local().len() as u16,
            ns,
        })
    }
}

/// The first children of a top-level element; more than these are looked for when somebody asks.
pub(crate) const CHILDREN_NOTED_MAX: usize = 32;
pub(crate) type Children = SmallVec<[ChildSpan; 6]>;
