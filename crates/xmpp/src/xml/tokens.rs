//! The tokeniser: checks one frame in one pass and notes what the rest of the server asks for.
//!
//! It works over the frame's bytes from its first `<` on and may be interrupted between any two of them; it then
//! goes on where it stopped, with the same bytes and more behind them. Its state is a handful of offsets and four
//! small stacks; nothing recurses.

use super::chars::{
    AMPERSAND, Class, IN_NO_URI, check_name, class, is_space, namespace_flags, skip_name, skip_plain_name,
};
use super::escape::{reference, unescape_attribute};
use super::tape::{CHILDREN_NOTED_MAX, ChildSpan, Children, Root, TapeNs};
use super::{Limits, XmlFault};
use crate::ns;
use memchr::{memchr, memchr3};
use smallvec::SmallVec;
use std::borrow::Cow;

/// Prefixes declared on open elements, in all: bounds the cost of looking one up.
pub(super) const PREFIXES_IN_SCOPE_MAX: usize = 64;
/// Children of one element that use prefixes declared outside of them: each is noted.
const OUTER_USERS_MAX: usize = 256;
/// Prefixes of the header and of a top-level tag are told apart by one bit each.
pub(super) const OUTER_PREFIXES_MAX: usize = 32;
const TOO_MANY_PREFIXES: XmlFault = XmlFault::TooBig { what: "namespace declarations", max: OUTER_PREFIXES_MAX };
/// `<?xml … ?>`.
const DECLARATION_BYTES_MAX: usize = 256;

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

/// Where the frame stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The first bytes of a stream: an XML declaration may stand here.
    VeryStart,
    /// The stream header is awaited.
    Start,
    /// Inside a stream.
    Stream,
    /// A frame on its own, RFC 7395.
    Framed,
    /// An element that is only read, not forwarded: its bytes need not be canonical.
    Tree,
}

pub(super) struct Context<'a> {
    pub limits: &'a Limits,
    pub outer: &'a Outer,
    pub place: Place,
}

/// What the frame turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Declaration,
    /// The start tag of the stream; `closed`: it is an empty element.
    Header {
        closed: bool,
    },
    Element,
    Close,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All bytes are taken and the frame is not whole.
    More,
    /// The frame ends before this position.
    Done(What, usize),
}

/// A namespace, without a copy of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ns {
    Empty,
    Xml,
    /// The default namespace around the frame.
    Outer,
    /// Of a prefix declared on the header.
    Header(u8),
    /// It was escaped: in `Work::owned`.
    Owned(u16),
    Span(u32, u32),
}

#[derive(Debug, Clone, Copy)]
struct DefaultNs {
    ns: Ns,
    content: bool,
    /// Declared where the payload does not see it: on the header, or on a top-level tag in the content namespace.
    outer: bool,
}

#[derive(Debug, Clone, Copy)]
struct Open {
    name_at: u32,
    name_len: u32,
    default: DefaultNs,
    /// How many prefixes were in scope outside this element.
    bindings: u16,
    /// Is it in the content namespace, and all around it?
    content: bool,
}

#[derive(Debug, Clone, Copy)]
struct Binding {
    at: u32,
    end: u32,
    ns: Ns,
    content: bool,
}

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

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// At the frame's first `<`.
    First,
    Text,
    /// At `<`, inside an element.
    Markup,
    CData,
    Name,
    /// In a tag, behind its name or an attribute.
    Between,
    AttrName,
    Equals,
    Quote,
    Value,
    EndTag,
    EndSpace,
    Declaration,
}

/// The tokeniser's state within one frame.
#[derive(Debug)]
pub(super) struct Work {
    pos: usize,
    stage: Stage,
    // The tag being read.
    tag_at: usize,
    colon: usize,
    name_end: usize,
    attr_at: usize,
    attr_colon: usize,
    attr_end: usize,
    value_at: usize,
    quote: u8,
    spaced: bool,
    /// Bit per hash of a name seen in this tag.
    seen: u64,
    declarations: u16,
    prefixed: u16,
    pub attrs: SmallVec<[Attr; 8]>,
    // What is open.
    /// Where the run of text began, to tell `]]>`.
    run_at: usize,
    open: SmallVec<[Open; 8]>,
    bindings: SmallVec<[Binding; 4]>,
    /// Of `bindings`, those on a top-level tag in the content namespace.
    root_bindings: usize,
    elements: u32,
    // What is noted.
    /// The bytes are not canonical. (Carriage returns are not looked for here.)
    pub rewrite: bool,
    /// Prefixes of outside that the child being read uses, one bit each: header, then top-level tag.
    outer_used: u64,
    /// The same, of the top-level tag itself.
    pub root_used: u64,
    /// Which child used which.
    pub children_used: Vec<(u32, u64)>,
    /// The first of them.
    pub children: Children,
    /// All of them.
    pub children_count: u32,
    owned: Vec<Box<str>>,
    root: Root,
}

macro_rules! not_well_formed {
    ($why:literal) => {
        return Err(XmlFault::NotWellFormed($why))
    };
}

impl Work {
    #[inline(always)]
    pub(super) fn new() -> Work {
        Work {
            pos: 0,
            stage: Stage::First,
            tag_at: 0,
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
            run_at: 0,
            open: SmallVec::new(),
            bindings: SmallVec::new(),
            root_bindings: 0,
            elements: 0,
            rewrite: false,
            outer_used: 0,
            root_used: 0,
            children_used: Vec::new(),
            children: SmallVec::new(),
            children_count: 0,
            owned: Vec::new(),
            root: Root::default(),
        }
    }

    /// Of a whole element: where its tag and payload lie.
    pub(super) fn root(&self) -> Root {
        self.root
    }

    pub(super) fn take_owned(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.owned)
    }

    /// Goes on over `buf`, which holds the frame from its first byte on.
    #[inline]
    pub(super) fn run(&mut self, buf: &[u8], cx: &Context<'_>) -> Result<Step, XmlFault> {
        let mut pos = self.pos;
        let mut stage = self.stage;
        macro_rules! more {
            ($stage:expr) => {{
                self.pos = pos;
                self.stage = $stage;
                return Ok(Step::More);
            }};
        }
        macro_rules! tag_done {
            ($empty:expr) => {{
                let header = matches!(cx.place, Place::VeryStart | Place::Start);
                self.finish_tag(buf, cx, pos, $empty && !header)?;
                if header {
                    return Ok(Step::Done(What::Header { closed: $empty }, pos));
                }
                if self.open.is_empty() {
                    return Ok(Step::Done(What::Element, pos));
                }
                self.run_at = pos;
                stage = if buf.get(pos) == Some(&b'<') { at_markup(buf, pos) } else { Stage::Text };
            }};
        }
        loop {
            #[cfg(test)]
            {
                STEPS.set(STEPS.get() + 1 + (pos - self.pos) as u64);
                self.pos = pos;
            }
            match stage {
                Stage::First => {
                    let Some(&second) = buf.get(1) else { more!(Stage::First) };
                    pos = 0;
                    stage = self.first(second, cx)?;
                }
                Stage::Text => {
                    match buf.get(pos..).and_then(|rest| memchr3(b'<', b'&', b'>', rest)) {
                        Some(plain) => pos += plain,
                        None => {
                            pos = buf.len();
                            more!(Stage::Text)
                        }
                    }
                    match buf[pos] {
                        b'<' => stage = at_markup(buf, pos),
                        b'&' => match reference(buf, pos)? {
                            Some((_, end)) => pos = end,
                            None => more!(Stage::Text),
                        },
                        _ => {
                            if pos >= self.run_at + 2 && buf[pos - 1] == b']' && buf[pos - 2] == b']' {
                                not_well_formed!("]]> in text")
                            }
                            pos += 1;
                        }
                    }
                }
                Stage::Markup => {
                    let Some(&second) = buf.get(pos + 1) else { more!(Stage::Markup) };
                    match second {
                        b'/' => stage = Stage::EndTag,
                        b'?' => return Err(PROCESSING_INSTRUCTION),
                        b'!' => {
                            const CDATA: &[u8] = b"<![CDATA[";
                            let have = &buf[pos..buf.len().min(pos + CDATA.len())];
                            if !CDATA.starts_with(have) {
                                return Err(XmlFault::Restricted("a comment or a document type"));
                            }
                            if have.len() < CDATA.len() {
                                more!(Stage::Markup)
                            }
                            self.rewrite = true;
                            pos += CDATA.len();
                            stage = Stage::CData;
                        }
                        _ => {
                            self.begin_tag(pos, cx)?;
                            match self.read_plain_tag(buf, cx) {
                                Some((end, empty)) => {
                                    pos = end;
                                    tag_done!(empty);
                                }
                                None => {
                                    self.forget_attributes();
                                    pos += 1;
                                    stage = Stage::Name;
                                }
                            }
                        }
                    }
                }
                Stage::CData => {
                    match buf.get(pos..).and_then(|rest| memchr(b']', rest)) {
                        Some(plain) => pos += plain,
                        None => {
                            pos = buf.len();
                            more!(Stage::CData)
                        }
                    }
                    match (buf.get(pos + 1), buf.get(pos + 2)) {
                        (Some(b']'), Some(b'>')) => {
                            pos += 3;
                            self.run_at = pos;
                            stage = Stage::Text;
                        }
                        (None, _) | (Some(b']'), None) => more!(Stage::CData),
                        _ => pos += 1,
                    }
                }
                Stage::Name => {
                    let start = self.tag_at + 1;
                    let whole = skip_name(buf, &mut pos, start, &mut self.colon)?;
                    if pos - start > cx.limits.name_bytes_max {
                        return Err(XmlFault::TooBig { what: "name", max: cx.limits.name_bytes_max });
                    }
                    if !whole {
                        more!(Stage::Name)
                    }
                    check_name(buf, start, pos, self.colon)?;
                    self.name_end = pos;
                    self.spaced = false;
                    stage = Stage::Between;
                }
                Stage::Between => {
                    let Some(&b) = buf.get(pos) else { more!(Stage::Between) };
                    match b {
                        b' ' | b'\t' | b'\n' | b'\r' => {
                            pos += 1;
                            match buf.get(pos) {
                                Some(b) if class(*b) == Class::Start => {
                                    self.attr_at = pos;
                                    self.attr_colon = 0;
                                    stage = Stage::AttrName;
                                }
                                _ => self.spaced = true,
                            }
                        }
                        b'>' | b'/' => {
                            let empty = b == b'/';
                            if empty {
                                match buf.get(pos + 1) {
                                    None => more!(Stage::Between),
                                    Some(b'>') => pos += 1,
                                    Some(_) => not_well_formed!("a slash inside a tag"),
                                }
                            }
                            pos += 1;
                            tag_done!(empty);
                        }
                        _ => {
                            if !self.spaced {
                                not_well_formed!("no white space before an attribute")
                            }
                            self.attr_at = pos;
                            self.attr_colon = 0;
                            stage = Stage::AttrName;
                        }
                    }
                }
                Stage::AttrName => {
                    let whole = skip_name(buf, &mut pos, self.attr_at, &mut self.attr_colon)?;
                    if pos - self.attr_at > cx.limits.name_bytes_max {
                        return Err(XmlFault::TooBig { what: "name", max: cx.limits.name_bytes_max });
                    }
                    if !whole {
                        more!(Stage::AttrName)
                    }
                    check_name(buf, self.attr_at, pos, self.attr_colon)?;
                    self.attr_end = pos;
                    self.note_attribute_name(buf, cx)?;
                    stage = match buf.get(pos..pos + 2) {
                        Some(&[b'=', quote @ (b'\'' | b'"')]) => {
                            pos += 2;
                            self.begin_value(pos, quote)
                        }
                        _ => Stage::Equals,
                    };
                }
                Stage::Equals => {
                    let Some(&b) = buf.get(pos) else { more!(Stage::Equals) };
                    match b {
                        b'=' => {
                            pos += 1;
                            stage = Stage::Quote;
                        }
                        _ if is_space(b) => pos += 1,
                        _ => not_well_formed!("an attribute without a value"),
                    }
                }
                Stage::Quote => {
                    let Some(&b) = buf.get(pos) else { more!(Stage::Quote) };
                    match b {
                        b'\'' | b'"' => {
                            pos += 1;
                            stage = self.begin_value(pos, b);
                        }
                        _ if is_space(b) => pos += 1,
                        _ => not_well_formed!("an attribute's value without quotes"),
                    }
                }
                Stage::Value => {
                    let found = buf.get(pos..).and_then(|rest| memchr3(self.quote, b'<', b'&', rest));
                    pos = found.map_or(buf.len(), |plain| pos + plain);
                    if pos - self.value_at > cx.limits.attribute_bytes_max {
                        return Err(XmlFault::TooBig { what: "attribute", max: cx.limits.attribute_bytes_max });
                    }
                    match buf.get(pos) {
                        None => more!(Stage::Value),
                        Some(b'&') => match reference(buf, pos)? {
                            Some((_, end)) => pos = end,
                            None => more!(Stage::Value),
                        },
                        Some(b'<') => not_well_formed!("< in an attribute"),
                        Some(_) => {
                            self.note_attribute(pos);
                            pos += 1;
                            self.spaced = false;
                            stage = Stage::Between;
                        }
                    }
                }
                Stage::EndTag => {
                    let name = match self.open.last() {
                        Some(open) => &buf[open.name_at as usize..][..open.name_len as usize],
                        None => cx.outer.qname.as_bytes(),
                    };
                    let have = &buf[pos + 2..buf.len().min(pos + 2 + name.len())];
                    if !name.starts_with(have) {
                        not_well_formed!("an end tag that does not match")
                    }
                    if have.len() < name.len() {
                        more!(Stage::EndTag)
                    }
                    // Where the end tag began.
                    self.tag_at = pos;
                    pos += 2 + name.len();
                    stage = Stage::EndSpace;
                }
                Stage::EndSpace => {
                    let Some(&b) = buf.get(pos) else { more!(Stage::EndSpace) };
                    match b {
                        b'>' => {
                            pos += 1;
                            if self.open.is_empty() {
                                return Ok(Step::Done(What::Close, pos));
                            }
                            self.close_element(pos)?;
                            if self.open.is_empty() {
                                return Ok(Step::Done(What::Element, pos));
                            }
                            self.run_at = pos;
                            stage = if buf.get(pos) == Some(&b'<') { at_markup(buf, pos) } else { Stage::Text };
                        }
                        _ if is_space(b) => pos += 1,
                        _ => not_well_formed!("an end tag that does not match"),
                    }
                }
                Stage::Declaration => {
                    // `<?x` and so on is told from other instructions as soon as it can be.
                    const BEGIN: &[u8] = b"<?xml";
                    let have = &buf[..buf.len().min(BEGIN.len())];
                    if !BEGIN.starts_with(have) || buf.get(BEGIN.len()).is_some_and(|b| !is_space(*b)) {
                        return Err(PROCESSING_INSTRUCTION);
                    }
                    pos = pos.max(BEGIN.len());
                    let found = buf.get(pos..).and_then(|rest| memchr(b'>', rest));
                    let end = found.map_or(buf.len(), |at| pos + at + 1);
                    if end > DECLARATION_BYTES_MAX {
                        return Err(XmlFault::TooBig { what: "XML declaration", max: DECLARATION_BYTES_MAX });
                    }
                    if found.is_none() {
                        pos = pos.min(buf.len());
                        more!(Stage::Declaration)
                    }
                    check_declaration(&buf[BEGIN.len()..end])?;
                    return Ok(Step::Done(What::Declaration, end));
                }
            }
        }
    }

    /// The stage for a frame whose second byte is `second`.
    fn first(&self, second: u8, cx: &Context<'_>) -> Result<Stage, XmlFault> {
        match second {
            b'?' if cx.place == Place::VeryStart => Ok(Stage::Declaration),
            b'?' => Err(PROCESSING_INSTRUCTION),
            b'!' => Err(XmlFault::Restricted("a comment, a document type or a CDATA section between elements")),
            b'/' if cx.place == Place::Stream => Ok(Stage::EndTag),
            b'/' => Err(XmlFault::NotWellFormed("an end tag without a start tag")),
            0 => Err(XmlFault::Encoding("UTF-16")),
            _ => Ok(Stage::Markup),
        }
    }

    #[inline(always)]
    fn begin_tag(&mut self, at: usize, cx: &Context<'_>) -> Result<(), XmlFault> {
        self.elements += 1;
        if self.elements > cx.limits.elements_max {
            return Err(XmlFault::TooBig { what: "elements", max: cx.limits.elements_max as usize });
        }
        if self.open.len() >= usize::from(cx.limits.depth_max) {
            return Err(XmlFault::TooBig { what: "depth", max: usize::from(cx.limits.depth_max) });
        }
        self.tag_at = at;
        self.colon = 0;
        self.forget_attributes();
        Ok(())
    }

    #[inline(always)]
    fn forget_attributes(&mut self) {
        self.seen = 0;
        self.declarations = 0;
        self.prefixed = 0;
        self.attrs.clear();
    }

    /// Reads, without a stop, a start tag that is whole and as most are: ASCII names without prefix, values without
    /// references, one space before each attribute. Gives where it ends and whether the element is empty; `None` of
    /// any other, well-formed or not, which then goes through the stages.
    #[inline(always)]
    fn read_plain_tag(&mut self, buf: &[u8], cx: &Context<'_>) -> Option<(usize, bool)> {
        let limits = cx.limits;
        let start = self.tag_at + 1;
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
            STEPS.set(STEPS.get() + 1 + memchr3(quote, b'<', b'&', &buf[value_at..]).unwrap_or(buf.len() - pos) as u64);
            let value_end = value_at + memchr3(quote, b'<', b'&', &buf[value_at..])?;
            if buf[value_end] != quote
                || value_end - value_at > limits.attribute_bytes_max
                || name_end - name_at > limits.name_bytes_max
            {
                return None;
            }
            (self.attr_at, self.attr_colon, self.attr_end) = (name_at, 0, name_end);
            self.value_at = value_at;
            self.note_attribute_name(buf, cx).ok()?;
            self.note_attribute(value_end);
            pos = value_end + 1;
        }
    }

    /// Counts the attribute whose name was read, then looks whether the tag has it already.
    #[inline(always)]
    fn note_attribute_name(&mut self, buf: &[u8], cx: &Context<'_>) -> Result<(), XmlFault> {
        let name = &buf[self.attr_at..self.attr_end];
        if name == b"xmlns" || (self.attr_colon != 0 && &buf[self.attr_at..self.attr_colon] == b"xmlns") {
            self.declarations += 1;
            if self.declarations > cx.limits.declarations_max {
                return Err(XmlFault::TooBig {
                    what: "namespace declarations",
                    max: usize::from(cx.limits.declarations_max),
                });
            }
        } else {
            self.prefixed += u16::from(self.attr_colon != 0);
            if self.attrs.len() + 1 - usize::from(self.declarations) > usize::from(cx.limits.attributes_max) {
                return Err(XmlFault::TooBig { what: "attributes", max: usize::from(cx.limits.attributes_max) });
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
    fn begin_value(&mut self, at: usize, quote: u8) -> Stage {
        self.quote = quote;
        self.value_at = at;
        Stage::Value
    }

    #[inline(always)]
    fn note_attribute(&mut self, value_end: usize) {
        self.attrs.push(Attr {
            name_at: self.attr_at as u32,
            name_end: self.attr_end as u32,
            colon: self.attr_colon as u32,
            value_at: self.value_at as u32,
            value_end: value_end as u32,
            // `finish_tag` finds the declarations among them.
            kind: if self.attr_colon == 0 { AttrKind::Plain } else { AttrKind::Prefixed },
        });
    }

    /// The start tag is whole: namespaces are resolved, and what is noted of it is noted.
    fn finish_tag(&mut self, buf: &[u8], cx: &Context<'_>, end: usize, empty: bool) -> Result<(), XmlFault> {
        let depth = self.open.len();
        let canonical = matches!(cx.place, Place::Stream | Place::Framed);
        let (mut default, parent_content) = match self.open.last() {
            Some(open) => (open.default, open.content),
            None => (DefaultNs { ns: Ns::Outer, content: cx.outer.default_is_content, outer: true }, true),
        };
        let bindings_before = self.bindings.len();
        let mut own_default = false;
        if self.declarations > 0 {
            for i in 0..self.attrs.len() {
                let attr = self.attrs[i];
                let name = &buf[attr.name_at as usize..attr.name_end as usize];
                if name == b"xmlns" {
                    let (ns, content) = self.declare(buf, &attr, b"")?;
                    default = DefaultNs { ns, content, outer: false };
                    own_default = true;
                    self.attrs[i].kind = AttrKind::Declaration;
                } else if attr.colon != 0 && &buf[attr.name_at as usize..attr.colon as usize] == b"xmlns" {
                    let (at, end) = (attr.colon + 1, attr.name_end);
                    let (ns, content) = self.declare(buf, &attr, &buf[at as usize..end as usize])?;
                    self.attrs[i].kind = AttrKind::Declaration;
                    if self.bindings.len() >= PREFIXES_IN_SCOPE_MAX {
                        return Err(XmlFault::TooBig { what: "prefixes in scope", max: PREFIXES_IN_SCOPE_MAX });
                    }
                    self.bindings.push(Binding { at, end, ns, content });
                }
            }
        }
        let name_at = self.tag_at + 1;
        let (ns, content) = if self.colon == 0 {
            (default.ns, default.content)
        } else {
            self.resolve_prefix(buf, cx, name_at, self.colon)?
        };
        if self.prefixed > 0 {
            self.check_prefixed_attributes(buf, cx)?;
        }
        let in_content = parent_content
            && content
            && (depth > 0 || ns == Ns::Outer || cx.outer.is_content(self.namespace(ns, buf, cx)));
        if canonical {
            if self.colon != 0 && in_content {
                return Err(XmlFault::CONTENT_PREFIXED);
            }
            if self.colon == 0 {
                if own_default && in_content {
                    // An explicit content namespace: on the top-level tag it may say `jabber:client`, which is
                    // what it means around the canonical bytes; below it is dropped.
                    self.rewrite |= depth > 0 || self.namespace(default.ns, buf, cx) != ns::CLIENT.as_bytes();
                } else if default.outer && !in_content {
                    // Inherits from outside of the bytes what may be another namespace at their next place.
                    self.rewrite = true;
                    default.outer = false;
                }
            }
        }
        if in_content {
            // Dropped, or on a tag that is rewritten.
            default.outer = true;
        }
        let local_at = if self.colon == 0 { name_at } else { self.colon + 1 };
        let tape_ns = self.tape_ns(ns, in_content);
        match depth {
            0 => {
                if in_content {
                    self.root_bindings = self.bindings.len();
                }
                self.root_used = std::mem::take(&mut self.outer_used);
                self.rewrite |= self.root_used != 0;
                self.root = Root {
                    name_at: local_at as u32,
                    name_len: (self.name_end - local_at) as u32,
                    ns: tape_ns,
                    tag_end: end as u32,
                    payload_end: end as u32,
                };
            }
            1 => {
                self.children_count += 1;
                if self.children.len() < CHILDREN_NOTED_MAX {
                    self.children.push(ChildSpan {
                        start: self.tag_at as u32,
                        end: end as u32,
                        name_at: (local_at - self.tag_at) as u16,
                        name_len: (self.name_end - local_at) as u16,
                        ns: tape_ns,
                    });
                }
            }
            _ => {}
        }
        if empty {
            self.unbind(bindings_before);
            if depth == 1 {
                self.end_child(end)?;
            }
        } else {
            self.open.push(Open {
                name_at: name_at as u32,
                name_len: (self.name_end - name_at) as u32,
                default,
                bindings: bindings_before as u16,
                content: in_content,
            });
        }
        Ok(())
    }

    /// The prefixes declared since there were `len` in scope are out of it.
    #[inline(always)]
    fn unbind(&mut self, len: usize) {
        if self.bindings.len() > len {
            self.bindings.truncate(len);
        }
    }

    #[inline(always)]
    fn end_child(&mut self, end: usize) -> Result<(), XmlFault> {
        let used = std::mem::take(&mut self.outer_used);
        if used != 0 {
            self.rewrite = true;
            if self.children_used.len() >= OUTER_USERS_MAX {
                return Err(XmlFault::TooBig { what: "children with prefixes of outside", max: OUTER_USERS_MAX });
            }
            self.children_used.push((self.children_count - 1, used));
        }
        if self.children_count as usize == self.children.len()
            && let Some(child) = self.children.last_mut()
        {
            child.end = end as u32;
        }
        Ok(())
    }

    #[inline(always)]
    fn close_element(&mut self, end: usize) -> Result<(), XmlFault> {
        if let Some(open) = self.open.pop() {
            self.unbind(usize::from(open.bindings));
        }
        match self.open.len() {
            0 => self.root.payload_end = self.tag_at as u32,
            1 => self.end_child(end)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads a declaration of `prefix` (empty: of the default namespace). Namespaces in XML §3, §5.
    fn declare(&mut self, buf: &[u8], attr: &Attr, prefix: &[u8]) -> Result<(Ns, bool), XmlFault> {
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
    fn resolve_prefix(
        &mut self,
        buf: &[u8],
        cx: &Context<'_>,
        at: usize,
        colon: usize,
    ) -> Result<(Ns, bool), XmlFault> {
        let prefix = &buf[at..colon];
        if prefix == b"xml" {
            return Ok((Ns::Xml, false));
        }
        let found = self.bindings.iter().enumerate().rev().find(|(_, b)| &buf[b.at as usize..b.end as usize] == prefix);
        if let Some((i, binding)) = found {
            if i < self.root_bindings {
                self.outer_used |= 1u64.checked_shl((OUTER_PREFIXES_MAX + i) as u32).ok_or(TOO_MANY_PREFIXES)?;
            }
            return Ok((binding.ns, binding.content));
        }
        match cx.outer.prefixes.iter().position(|(p, _)| p.as_bytes() == prefix) {
            Some(i) => {
                if i >= OUTER_PREFIXES_MAX {
                    return Err(TOO_MANY_PREFIXES);
                }
                self.outer_used |= 1 << i;
                Ok((Ns::Header(i as u8), is_content(cx.outer.prefixes[i].1.as_bytes())))
            }
            None => Err(XmlFault::Prefix("a prefix that is not declared")),
        }
    }

    /// Prefixed attributes: their prefixes are bound, and no two have the same expanded name.
    fn check_prefixed_attributes(&mut self, buf: &[u8], cx: &Context<'_>) -> Result<(), XmlFault> {
        let mut seen: SmallVec<[(Ns, u32, u32); 4]> = SmallVec::new();
        for i in 0..self.attrs.len() {
            let attr = self.attrs[i];
            if attr.kind != AttrKind::Prefixed {
                continue;
            }
            let (ns, _) = self.resolve_prefix(buf, cx, attr.name_at as usize, attr.colon as usize)?;
            let local = &buf[attr.colon as usize + 1..attr.name_end as usize];
            for &(other, at, end) in &seen {
                if &buf[at as usize..end as usize] == local
                    && self.namespace(other, buf, cx) == self.namespace(ns, buf, cx)
                {
                    return Err(TWICE);
                }
            }
            seen.push((ns, attr.colon + 1, attr.name_end));
        }
        Ok(())
    }

    fn namespace<'a>(&'a self, ns: Ns, buf: &'a [u8], cx: &'a Context<'_>) -> &'a [u8] {
        match ns {
            Ns::Empty => b"",
            Ns::Xml => ns::XML.as_bytes(),
            Ns::Outer => cx.outer.default_ns.as_bytes(),
            Ns::Header(i) => cx.outer.prefixes[usize::from(i)].1.as_bytes(),
            Ns::Owned(i) => self.owned[usize::from(i)].as_bytes(),
            Ns::Span(at, len) => &buf[at as usize..][..len as usize],
        }
    }

    /// As the tape keeps it. What the tape cannot say is in frames that are rewritten, and their tape is that of the
    /// canonical bytes.
    fn tape_ns(&self, ns: Ns, content: bool) -> TapeNs {
        match ns {
            _ if content => TapeNs::CONTENT,
            Ns::Xml => TapeNs::XML,
            Ns::Owned(i) => TapeNs::owned(usize::from(i)),
            Ns::Span(at, _) => TapeNs::declared_at(at),
            Ns::Empty | Ns::Outer | Ns::Header(_) => TapeNs::EMPTY,
        }
    }

    /// Of the header's tag: the prefixes declared on it, with their namespaces, the element's own namespace, and the
    /// default namespace.
    pub(super) fn header_names(&self, buf: &[u8], cx: &Context<'_>) -> HeaderNames {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let prefixes: Vec<_> = self
            .bindings
            .iter()
            .filter(|b| b.ns != Ns::Xml)
            .map(|b| (text(&buf[b.at as usize..b.end as usize]), text(self.namespace(b.ns, buf, cx))))
            .collect();
        let default = match self.open.last() {
            Some(open) => text(self.namespace(open.default.ns, buf, cx)),
            None => String::new(),
        };
        let name_at = self.tag_at + 1;
        let ns = match self.colon {
            0 => default.clone(),
            colon => {
                let prefix = &buf[name_at..colon];
                prefixes.iter().find(|(p, _)| p.as_bytes() == prefix).map(|(_, ns)| ns.clone()).unwrap_or_default()
            }
        };
        HeaderNames { qname: text(&buf[name_at..self.name_end]), ns, default, prefixes }
    }
}

/// At `<`: the stage, told from the next byte if it is there.
#[inline(always)]
fn at_markup(buf: &[u8], pos: usize) -> Stage {
    match buf.get(pos + 1) {
        Some(b'/') => Stage::EndTag,
        _ => Stage::Markup,
    }
}

pub(super) struct HeaderNames {
    pub qname: String,
    pub ns: String,
    pub default: String,
    pub prefixes: Vec<(String, String)>,
}

/// The prefixes that a mask of [`Work::children_used`] or [`Work::root_used`] names: indices into those of the header,
/// and into those of the top-level tag, in order of their declaration.
pub(super) fn used_prefixes(mask: u64) -> (impl Iterator<Item = usize>, impl Iterator<Item = usize>) {
    let bits = move |from: usize| (0..OUTER_PREFIXES_MAX).filter(move |i| mask >> (from + i) & 1 == 1);
    (bits(0), bits(OUTER_PREFIXES_MAX))
}

const PROCESSING_INSTRUCTION: XmlFault = XmlFault::Restricted("a processing instruction");
const TWICE: XmlFault = XmlFault::NotWellFormed("an attribute twice");

/// Checks `version='1.0' encoding='…' standalone='…'?>`. XML 1.0 §2.8; RFC 6120 §11.5, §11.6, §11.8.
fn check_declaration(rest: &[u8]) -> Result<(), XmlFault> {
    const BAD: XmlFault = XmlFault::NotWellFormed("an XML declaration that is none");
    let mut rest = rest.strip_suffix(b"?>").ok_or(BAD)?;
    // 0: version; 1: encoding or standalone; 2: standalone; 3: nothing more.
    let mut next = 0;
    loop {
        let spaced = rest.first().is_some_and(|b| is_space(*b));
        rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return if next > 0 { Ok(()) } else { Err(BAD) };
        }
        let len = rest.iter().position(|b| !matches!(class(*b), Class::Start)).ok_or(BAD)?;
        let (name, after) = rest.split_at(len);
        let after = after.trim_ascii_start().strip_prefix(b"=").ok_or(BAD)?.trim_ascii_start();
        let (&quote, after) = after.split_first().filter(|(q, _)| matches!(q, b'\'' | b'"')).ok_or(BAD)?;
        let end = memchr(quote, after).ok_or(BAD)?;
        let value = &after[..end];
        rest = &after[end + 1..];
        if !spaced {
            return Err(BAD);
        }
        next = match (name, next) {
            (b"version", 0) if value == b"1.0" => 1,
            (b"version", 0) => {
                return Err(XmlFault::NotWellFormed("an XML version other than 1.0"));
            }
            (b"encoding", 1) if value.eq_ignore_ascii_case(b"utf-8") => 2,
            (b"encoding", 1) => {
                return Err(XmlFault::Encoding("an encoding other than UTF-8 declared"));
            }
            // RFC 6120 §11.5 allows to ignore it.
            (b"standalone", 1 | 2) if matches!(value, b"yes" | b"no") => 3,
            _ => return Err(BAD),
        };
    }
}

#[cfg(test)]
thread_local! {
    /// How much work this thread's tokenisers did: steps, and bytes gone over.
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What it costs to tokenise a frame that comes in pieces of this size.
    fn cost(frame: &str, piece: usize) -> u64 {
        let outer = Outer::new(ns::CLIENT, ns::CLIENT);
        let limits = Limits { element_bytes_max: 1 << 24, attribute_bytes_max: 1 << 24, ..Limits::SERVER };
        let cx = Context { limits: &limits, outer: &outer, place: Place::Stream };
        let before = STEPS.get();
        let mut work = Work::new();
        for end in (piece..frame.len()).step_by(piece) {
            assert_eq!(work.run(&frame.as_bytes()[..end], &cx), Ok(Step::More), "{end}");
        }
        assert_eq!(work.run(frame.as_bytes(), &cx), Ok(Step::Done(What::Element, frame.len())));
        STEPS.get() - before
    }

    /// LIMITS.md §2 row 36.
    #[test]
    fn the_cost_is_linear_in_the_bytes_whichever_the_token_and_the_pieces() {
        let n = 100_000;
        let frames = [
            format!("<a>{}</a>", "x".repeat(n)),
            format!("<a>{}</a>", ">".repeat(n)),
            format!("<a>{}</a>", "]".repeat(n)),
            format!("<a>{}</a>", "&amp;".repeat(n / 5)),
            format!("<a>{}</a>", "ä".repeat(n / 2)),
            format!("<a><![CDATA[{}]]></a>", "]".repeat(n)),
            format!("<a><![CDATA[{}]]></a>", "]>".repeat(n / 2)),
            format!("<a b='{}'/>", "x".repeat(n)),
            format!("<a b='{}'/>", ">\"".repeat(n / 2)),
            format!("<a b='{}'/>", "&#65;".repeat(n / 5)),
            format!("<a{}/>", " ".repeat(n)),
            format!("<a b{}='c'/>", " ".repeat(n)),
            format!("<a b={}'c'/>", " ".repeat(n)),
            format!("<a></a{}>", " ".repeat(n)),
            format!("<a>{}</a>", "<b/>".repeat(9_999)),
            format!("<a>{}</a>", "<![CDATA[]]>".repeat(n / 12)),
            format!("<a>{}</a>", format!("<{0}></{0}>", "n".repeat(1_000)).repeat(n / 2_005)),
            format!("<a>{}</a>", format!("<b {}='' ü=''/>", "n".repeat(1_000)).repeat(n / 1_015)),
        ];
        for frame in &frames {
            let len = frame.len() as u64;
            let whole = cost(frame, frame.len());
            assert!(whole <= 3 * len, "{whole} for {len} bytes in one piece: {:.30}…", frame);
            for piece in [1, 2, 7, 1_000] {
                let cost = cost(frame, piece);
                assert!(cost <= 5 * len, "{cost} for {len} bytes in pieces of {piece}: {:.30}…", frame);
            }
        }
    }

    #[test]
    fn an_idle_scanner_and_a_tokeniser_are_small() {
        assert!(size_of::<super::super::Scanner>() <= 256, "{}", size_of::<super::super::Scanner>());
        assert!(size_of::<Work>() <= 1_536, "{}", size_of::<Work>());
    }
}
