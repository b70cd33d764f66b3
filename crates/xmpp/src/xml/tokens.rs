//! The tokeniser: checks one frame in one pass and notes what the rest of the server asks for.
//!
//! It works over the frame's bytes from its first `<` on and may be interrupted between any two of them; it then
//! goes on where it stopped, with the same bytes and more behind them. Its state is a handful of offsets and four
//! small stacks; nothing recurses.

use super::chars::{Class, check_name, class, is_space, skip_name};
use super::declaration::check_declaration;
use super::escape::reference;
use super::namespaces::{Binding, DefaultNs, Ns, Outer, Scope};
use super::start_tag::{AttrKind, StartTag};
use super::tape::{CHILDREN_NOTED_MAX, ChildSpan, Children, Root};
use super::{Limits, XmlFault};
use crate::ns;
use memchr::{memchr, memchr3};
use smallvec::SmallVec;

/// Children of one element that use prefixes declared outside of them: each is noted.
const OUTER_USERS_MAX: usize = 256;
/// `<?xml … ?>`.
const DECLARATION_BYTES_MAX: usize = 256;

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
    tag: StartTag,
    // What is open.
    /// Where the run of text began, to tell `]]>`.
    run_at: usize,
    open: SmallVec<[Open; 8]>,
    scope: Scope,
    elements: u32,
    // What is noted.
    /// The bytes are not canonical. (Carriage returns are not looked for here.)
    pub rewrite: bool,
    /// Prefixes of outside that the top-level tag uses, as in [`Scope::outer_used`].
    pub root_used: u64,
    /// Which child used which.
    pub children_used: Vec<(u32, u64)>,
    /// The first of them.
    pub children: Children,
    /// All of them.
    pub children_count: u32,
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
            tag: StartTag::new(),
            run_at: 0,
            open: SmallVec::new(),
            scope: Scope::new(),
            elements: 0,
            rewrite: false,
            root_used: 0,
            children_used: Vec::new(),
            children: SmallVec::new(),
            children_count: 0,
            root: Root::default(),
        }
    }

    /// Of a whole element: where its tag and payload lie.
    pub(super) fn root(&self) -> Root {
        self.root
    }

    pub(super) fn take_owned(&mut self) -> Vec<Box<str>> {
        std::mem::take(&mut self.scope.owned)
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
                note_steps(1 + (pos - self.pos) as u64);
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
                            match self.tag.read_plain(buf, cx.limits) {
                                Some((end, empty)) => {
                                    pos = end;
                                    tag_done!(empty);
                                }
                                None => {
                                    self.tag.forget_attributes();
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
                    let start = self.tag.at + 1;
                    let whole = skip_name(buf, &mut pos, start, &mut self.tag.colon)?;
                    if pos - start > cx.limits.name_bytes_max {
                        return Err(XmlFault::TooBig { what: "name", max: cx.limits.name_bytes_max });
                    }
                    if !whole {
                        more!(Stage::Name)
                    }
                    check_name(buf, start, pos, self.tag.colon)?;
                    self.tag.name_end = pos;
                    self.tag.spaced = false;
                    stage = Stage::Between;
                }
                Stage::Between => {
                    let Some(&b) = buf.get(pos) else { more!(Stage::Between) };
                    match b {
                        b' ' | b'\t' | b'\n' | b'\r' => {
                            pos += 1;
                            match buf.get(pos) {
                                Some(b) if class(*b) == Class::Start => {
                                    self.tag.begin_attribute(pos);
                                    stage = Stage::AttrName;
                                }
                                _ => self.tag.spaced = true,
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
                            if !self.tag.spaced {
                                not_well_formed!("no white space before an attribute")
                            }
                            self.tag.begin_attribute(pos);
                            stage = Stage::AttrName;
                        }
                    }
                }
                Stage::AttrName => {
                    let whole = skip_name(buf, &mut pos, self.tag.attr_at, &mut self.tag.attr_colon)?;
                    if pos - self.tag.attr_at > cx.limits.name_bytes_max {
                        return Err(XmlFault::TooBig { what: "name", max: cx.limits.name_bytes_max });
                    }
                    if !whole {
                        more!(Stage::AttrName)
                    }
                    check_name(buf, self.tag.attr_at, pos, self.tag.attr_colon)?;
                    self.tag.attr_end = pos;
                    self.tag.note_attribute_name(buf, cx.limits)?;
                    stage = match buf.get(pos..pos + 2) {
                        Some(&[b'=', quote @ (b'\'' | b'"')]) => {
                            pos += 2;
                            self.tag.begin_value(pos, quote);
                            Stage::Value
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
                            self.tag.begin_value(pos, b);
                            stage = Stage::Value;
                        }
                        _ if is_space(b) => pos += 1,
                        _ => not_well_formed!("an attribute's value without quotes"),
                    }
                }
                Stage::Value => {
                    let found = buf.get(pos..).and_then(|rest| memchr3(self.tag.quote, b'<', b'&', rest));
                    pos = found.map_or(buf.len(), |plain| pos + plain);
                    if pos - self.tag.value_at > cx.limits.attribute_bytes_max {
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
                            self.tag.note_attribute(pos);
                            pos += 1;
                            self.tag.spaced = false;
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
                    self.tag.at = pos;
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
        self.tag.begin(at);
        Ok(())
    }

    /// The start tag is whole: namespaces are resolved, and what is noted of it is noted.
    fn finish_tag(&mut self, buf: &[u8], cx: &Context<'_>, end: usize, empty: bool) -> Result<(), XmlFault> {
        let depth = self.open.len();
        let canonical = matches!(cx.place, Place::Stream | Place::Framed);
        let (mut default, parent_content) = match self.open.last() {
            Some(open) => (open.default, open.content),
            None => (DefaultNs { ns: Ns::Outer, content: cx.outer.default_is_content, outer: true }, true),
        };
        let bindings_before = self.scope.bindings.len();
        let mut own_default = false;
        if self.tag.declarations > 0 {
            for i in 0..self.tag.attrs.len() {
                let attr = self.tag.attrs[i];
                let name = &buf[attr.name_at as usize..attr.name_end as usize];
                if name == b"xmlns" {
                    let (ns, content) = self.scope.declare(buf, &attr, b"")?;
                    default = DefaultNs { ns, content, outer: false };
                    own_default = true;
                    self.tag.attrs[i].kind = AttrKind::Declaration;
                } else if attr.colon != 0 && &buf[attr.name_at as usize..attr.colon as usize] == b"xmlns" {
                    let (at, end) = (attr.colon + 1, attr.name_end);
                    let (ns, content) = self.scope.declare(buf, &attr, &buf[at as usize..end as usize])?;
                    self.tag.attrs[i].kind = AttrKind::Declaration;
                    self.scope.bind(Binding { at, end, ns, content })?;
                }
            }
        }
        let name_at = self.tag.at + 1;
        let (ns, content) = if self.tag.colon == 0 {
            (default.ns, default.content)
        } else {
            self.scope.resolve_prefix(buf, cx.outer, name_at, self.tag.colon)?
        };
        if self.tag.prefixed > 0 {
            self.scope.check_prefixed_attributes(buf, cx.outer, &self.tag.attrs)?;
        }
        let in_content = parent_content
            && content
            && (depth > 0 || ns == Ns::Outer || cx.outer.is_content(self.scope.namespace(ns, buf, cx.outer)));
        if canonical {
            if self.tag.colon != 0 && in_content {
                return Err(XmlFault::CONTENT_PREFIXED);
            }
            if self.tag.colon == 0 {
                if own_default && in_content {
                    // An explicit content namespace: on the top-level tag it may say `jabber:client`, which is
                    // what it means around the canonical bytes; below it is dropped.
                    self.rewrite |=
                        depth > 0 || self.scope.namespace(default.ns, buf, cx.outer) != ns::CLIENT.as_bytes();
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
        let local_at = if self.tag.colon == 0 { name_at } else { self.tag.colon + 1 };
        let tape_ns = ns.on_tape(in_content);
        match depth {
            0 => {
                if in_content {
                    self.scope.top_level = self.scope.bindings.len();
                }
                self.root_used = std::mem::take(&mut self.scope.outer_used);
                self.rewrite |= self.root_used != 0;
                self.root = Root {
                    name_at: local_at as u32,
                    name_len: (self.tag.name_end - local_at) as u32,
                    ns: tape_ns,
                    tag_end: end as u32,
                    payload_end: end as u32,
                };
            }
            1 => {
                self.children_count += 1;
                if self.children.len() < CHILDREN_NOTED_MAX {
                    self.children.push(ChildSpan {
                        start: self.tag.at as u32,
                        end: end as u32,
                        name_at: (local_at - self.tag.at) as u16,
                        name_len: (self.tag.name_end - local_at) as u16,
                        ns: tape_ns,
                    });
                }
            }
            _ => {}
        }
        if empty {
            self.scope.unbind(bindings_before);
            if depth == 1 {
                self.end_child(end)?;
            }
        } else {
            self.open.push(Open {
                name_at: name_at as u32,
                name_len: (self.tag.name_end - name_at) as u32,
                default,
                bindings: bindings_before as u16,
                content: in_content,
            });
        }
        Ok(())
    }

    #[inline(always)]
    fn end_child(&mut self, end: usize) -> Result<(), XmlFault> {
        let used = std::mem::take(&mut self.scope.outer_used);
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
            self.scope.unbind(usize::from(open.bindings));
        }
        match self.open.len() {
            0 => self.root.payload_end = self.tag.at as u32,
            1 => self.end_child(end)?,
            _ => {}
        }
        Ok(())
    }

    /// Of the header's tag: the prefixes declared on it, with their namespaces, the element's own namespace, and the
    /// default namespace.
    pub(super) fn header_names(&self, buf: &[u8], cx: &Context<'_>) -> HeaderNames {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        let prefixes: Vec<_> = self
            .scope
            .bindings
            .iter()
            .filter(|b| b.ns != Ns::Xml)
            .map(|b| (text(&buf[b.at as usize..b.end as usize]), text(self.scope.namespace(b.ns, buf, cx.outer))))
            .collect();
        let default = match self.open.last() {
            Some(open) => text(self.scope.namespace(open.default.ns, buf, cx.outer)),
            None => String::new(),
        };
        let name_at = self.tag.at + 1;
        let ns = match self.tag.colon {
            0 => default.clone(),
            colon => {
                let prefix = &buf[name_at..colon];
                prefixes.iter().find(|(p, _)| p.as_bytes() == prefix).map(|(_, ns)| ns.clone()).unwrap_or_default()
            }
        };
        HeaderNames { qname: text(&buf[name_at..self.tag.name_end]), ns, default, prefixes }
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

const PROCESSING_INSTRUCTION: XmlFault = XmlFault::Restricted("a processing instruction");

#[cfg(test)]
thread_local! {
    /// How much work this thread's tokenisers did: steps, and bytes gone over.
    static STEPS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
}

/// Counts work.
#[cfg(test)]
pub(super) fn note_steps(steps: u64) {
    STEPS.set(STEPS.get() + steps);
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
