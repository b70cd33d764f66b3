//! Bytes in, frames out.

use super::canonical;
use super::chars::{is_space, survey};
use super::escape::unescape_attribute;
use super::namespaces::{OUTER_PREFIXES_MAX, Outer, PREFIXES_IN_SCOPE_MAX};
use super::tokens::{Context, Place, Step, What, Work};
use super::walk::Tag;
use super::{Frame, Header, Limits, Raw, Tape, XmlFault};
use crate::ns;
use bytes::Bytes;
use std::borrow::Cow;

/// Bytes in, frames out. Holds no buffer while nothing is half-read.
///
/// A frame that lies whole in one `input` is checked in place and copied once, into a buffer of its size. Of one that
/// does not, the bytes are held together with the tokeniser's state, so no byte is looked at again.
#[derive(Debug)]
pub struct Scanner {
    limits: Limits,
    outer: Outer,
    state: State,
    half: Option<Box<Half>>,
}

#[derive(Debug)]
enum State {
    /// See [`Place`].
    At(Place),
    /// The stream header was an empty element: its end comes next.
    EndedInHeader,
    Closed,
    Dead(XmlFault),
}

/// A frame that is begun and not whole.
#[derive(Debug)]
struct Half {
    bytes: Vec<u8>,
    work: Work,
    /// Those in force when it began.
    limits: Limits,
}

impl Scanner {
    /// A scanner that waits for a stream header. Its default content namespace comes from the header.
    pub fn new(limits: Limits) -> Scanner {
        Scanner { limits: bounded(limits), outer: NO_HEADER, state: State::At(Place::VeryStart), half: None }
    }

    /// A scanner inside a stream whose frames are whole elements with their own namespaces (RFC 7395 WebSocket);
    /// `content_ns` is what `jabber:client` is rewritten from.
    pub fn framed(limits: Limits, content_ns: &str) -> Scanner {
        let outer = Outer { content_ns: known(content_ns), ..NO_HEADER };
        Scanner { limits: bounded(limits), outer, state: State::At(Place::Framed), half: None }
    }

    /// A scanner inside a stream whose header declared `content_ns` and the prefix `stream`.
    pub(crate) fn inside(limits: Limits, content_ns: &'static str) -> Scanner {
        let mut outer = Outer::new(content_ns, content_ns);
        outer.prefixes = Cow::Borrowed(ONLY_STREAM);
        Scanner { limits: bounded(limits), outer, state: State::At(Place::Stream), half: None }
    }

    /// Other limits from the next top-level element on (after authentication).
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = bounded(limits);
    }

    /// Waits for a new stream header (stream restart after TLS or SASL). Of a framed stream, for a new frame.
    pub fn restart(&mut self) {
        self.half = None;
        if !matches!(self.state, State::At(Place::Framed)) {
            self.outer = NO_HEADER;
            self.state = State::At(Place::VeryStart);
        }
    }

    /// Takes bytes from the front of `input` up to the end of the first frame and gives it; `None` when all of
    /// `input` is taken and no frame is whole. White space between stanzas is skipped. `input` is advanced.
    ///
    /// # Errors
    /// [`XmlFault`]; the scanner is dead afterwards and gives the same fault again.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, XmlFault> {
        let result = self.scan(input);
        if let Err(fault) = &result {
            self.half = None;
            self.state = State::Dead(fault.clone());
        }
        result
    }

    /// Is a frame begun but not whole? (Anything unread behind `<starttls/>` counts too: ask before reading on.)
    pub fn is_mid_frame(&self) -> bool {
        self.half.is_some()
    }

    /// Bytes held for the half-read frame.
    pub fn held_bytes(&self) -> usize {
        self.half.as_ref().map_or(0, |half| half.bytes.len())
    }

    fn scan(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, XmlFault> {
        loop {
            let place = match &self.state {
                State::At(place) => *place,
                State::EndedInHeader => {
                    self.state = State::Closed;
                    return Ok(Some(Frame::Close));
                }
                State::Closed => {
                    skip_space(input);
                    return if input.is_empty() {
                        Ok(None)
                    } else {
                        Err(XmlFault::NotWellFormed("bytes behind the end of the stream"))
                    };
                }
                State::Dead(fault) => return Err(fault.clone()),
            };
            let frame = match self.half.take() {
                Some(half) => self.go_on(half, place, input)?,
                None => self.begin(place, input)?,
            };
            // An XML declaration gives no frame.
            if frame.is_some() || input.is_empty() {
                return Ok(frame);
            }
        }
    }

    /// No frame is begun: looks for one in `input`.
    fn begin(&mut self, place: Place, input: &mut &[u8]) -> Result<Option<Frame>, XmlFault> {
        let before = input.len();
        skip_space(input);
        // An XML declaration may stand before everything, white space included.
        let place = if place == Place::VeryStart && input.len() < before { Place::Start } else { place };
        if place == Place::Start {
            self.state = State::At(place);
        }
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        if first != b'<' {
            return Err(not_markup(first, place));
        }
        let max = self.limits.element_bytes_max;
        let view = &input[..input.len().min(max)];
        let mut work = Work::new();
        let step = work.run(view, &Context { limits: &self.limits, outer: &self.outer, place })?;
        match step {
            Step::Done(what, end) => {
                let frame = self.finish(&view[..end], &mut work, what, place, max)?;
                *input = &input[end..];
                Ok(frame)
            }
            Step::More if view.len() == max => Err(too_big(max)),
            Step::More => {
                let half = Half { bytes: view.to_vec(), work, limits: self.limits.clone() };
                self.half = Some(Box::new(half));
                *input = &[];
                Ok(None)
            }
        }
    }

    /// Goes on with a frame that was begun.
    fn go_on(&mut self, mut half: Box<Half>, place: Place, input: &mut &[u8]) -> Result<Option<Frame>, XmlFault> {
        let max = half.limits.element_bytes_max;
        let before = half.bytes.len();
        let take = input.len().min(max - before);
        half.bytes.extend_from_slice(&input[..take]);
        let step = half.work.run(&half.bytes, &Context { limits: &half.limits, outer: &self.outer, place })?;
        match step {
            Step::Done(what, end) => {
                let Half { bytes, work, .. } = &mut *half;
                let frame = self.finish(&bytes[..end], work, what, place, max)?;
                *input = &input[end - before..];
                Ok(frame)
            }
            Step::More if half.bytes.len() == max => Err(too_big(max)),
            Step::More => {
                self.half = Some(half);
                *input = &[];
                Ok(None)
            }
        }
    }

    /// The frame is whole.
    fn finish(
        &mut self,
        bytes: &[u8],
        work: &mut Work,
        what: What,
        place: Place,
        max: usize,
    ) -> Result<Option<Frame>, XmlFault> {
        work.rewrite |= survey(bytes)?.returns;
        let frame = match what {
            What::Declaration => {
                self.state = State::At(Place::Start);
                return Ok(None);
            }
            What::Close => {
                self.state = State::Closed;
                Frame::Close
            }
            What::Element => Frame::Element(raw(bytes, work, &self.outer, max)?),
            What::Header { closed } => {
                let names = work.header_names(bytes, &Context { limits: &self.limits, outer: &self.outer, place });
                self.outer = outer_of(&names.qname, &names.default, &names.prefixes);
                self.state = if closed { State::EndedInHeader } else { State::At(Place::Stream) };
                Frame::Header(header(bytes, names))
            }
        };
        Ok(Some(frame))
    }
}

/// Around a stream header, and around a frame on its own.
const NO_HEADER: Outer = Outer::new("", ns::CLIENT);

/// Offsets are 32 bits wide, those within names 16; masks of prefixes too have a width.
fn bounded(mut limits: Limits) -> Limits {
    limits.element_bytes_max = limits.element_bytes_max.min(1 << 30);
    limits.name_bytes_max = limits.name_bytes_max.min(60_000);
    limits.declarations_max = limits.declarations_max.min(OUTER_PREFIXES_MAX as u16);
    limits
}

const fn too_big(max: usize) -> XmlFault {
    XmlFault::TooBig { what: "element", max }
}

#[inline(always)]
fn skip_space(input: &mut &[u8]) {
    while let [b, rest @ ..] = *input
        && is_space(*b)
    {
        *input = rest;
    }
}

/// What stands where `<` should.
fn not_markup(first: u8, place: Place) -> XmlFault {
    match first {
        0 | 0xFE | 0xFF => XmlFault::Encoding("UTF-16, or bytes that are no text"),
        0x01..0x20 => XmlFault::NotWellFormed("a character that XML forbids"),
        _ if matches!(place, Place::Stream) => XmlFault::TextBetweenStanzas,
        _ => XmlFault::NotWellFormed("text before an element"),
    }
}

/// A string that lives as long as the program, where it is one of those that every stream has.
fn known(text: &str) -> Cow<'static, str> {
    match text {
        "" => Cow::Borrowed(""),
        "stream" => Cow::Borrowed("stream"),
        "stream:stream" => Cow::Borrowed("stream:stream"),
        "db" => Cow::Borrowed("db"),
        ns::CLIENT => Cow::Borrowed(ns::CLIENT),
        ns::SERVER => Cow::Borrowed(ns::SERVER),
        ns::COMPONENT => Cow::Borrowed(ns::COMPONENT),
        ns::STREAM => Cow::Borrowed(ns::STREAM),
        "jabber:server:dialback" => Cow::Borrowed("jabber:server:dialback"),
        _ => Cow::Owned(text.to_owned()),
    }
}

/// What nearly all headers declare.
const ONLY_STREAM: &[(Cow<'static, str>, Cow<'static, str>)] = &[(Cow::Borrowed("stream"), Cow::Borrowed(ns::STREAM))];

type Prefixes = Cow<'static, [(Cow<'static, str>, Cow<'static, str>)]>;

/// What the header declares. For the headers that most peers send this takes nothing from the heap.
fn outer_of(qname: &str, default_ns: &str, prefixes: &[(String, String)]) -> Outer {
    let prefixes: Prefixes = match prefixes {
        [(p, n)] if p == "stream" && n == ns::STREAM => Cow::Borrowed(ONLY_STREAM),
        _ => prefixes.iter().map(|(p, n)| (known(p), known(n))).collect(),
    };
    let is_content = matches!(default_ns, ns::CLIENT | ns::SERVER | ns::COMPONENT);
    Outer {
        qname: known(qname),
        default_ns: known(default_ns),
        default_is_content: is_content,
        content_ns: if is_content { known(default_ns) } else { Cow::Borrowed(ns::CLIENT) },
        prefixes,
    }
}

fn header(bytes: &[u8], names: super::tokens::HeaderNames) -> Header {
    let tag = Tag::read(bytes).map(|(tag, _)| tag);
    let read = |name: &str| tag.and_then(|t| t.attribute(name.as_bytes())).map(|v| unescape_attribute(v).into_owned());
    Header {
        name: tag.map_or_else(String::new, |t| String::from_utf8_lossy(t.local()).into_owned()),
        ns: names.ns,
        prefix: names.qname.split_once(':').map_or_else(String::new, |(prefix, _)| prefix.to_owned()),
        content_ns: names.default,
        from: read("from"),
        to: read("to"),
        id: read("id"),
        version: read("version"),
        lang: read("xml:lang"),
        prefixes: names.prefixes,
    }
}

/// The frame's own copy of its bytes, canonical, and what was noted about them.
fn raw(bytes: &[u8], work: &mut Work, outer: &Outer, bytes_max: usize) -> Result<Raw, XmlFault> {
    if !work.rewrite {
        return Ok(Raw { bytes: Bytes::copy_from_slice(bytes), tape: tape(work) });
    }
    const CANONICAL: Outer = Outer::new(ns::CLIENT, ns::CLIENT);
    let canonical = canonical::rewrite(bytes, work, outer, bytes_max)?;
    // Declarations and references were added, within bounds; all else was counted.
    let limits = Limits {
        element_bytes_max: bytes_max,
        elements_max: u32::MAX,
        depth_max: u16::MAX,
        attributes_max: u16::MAX,
        declarations_max: (3 * OUTER_PREFIXES_MAX + PREFIXES_IN_SCOPE_MAX) as u16,
        name_bytes_max: usize::MAX,
        attribute_bytes_max: usize::MAX,
    };
    let mut work = Work::new();
    let step = work.run(&canonical, &Context { limits: &limits, outer: &CANONICAL, place: Place::Stream })?;
    if step != Step::Done(What::Element, canonical.len()) || work.rewrite {
        debug_assert!(false, "canonical bytes are canonical: {}", String::from_utf8_lossy(&canonical));
        return Err(XmlFault::NotWellFormed("an element that has no canonical form"));
    }
    Ok(Raw { bytes: Bytes::from(canonical.into_boxed_slice()), tape: tape(&mut work) })
}

fn tape(work: &mut Work) -> Tape {
    let owned = work.take_owned();
    Tape {
        root: work.root(),
        children: std::mem::take(&mut work.children),
        children_count: work.children_count,
        owned: (!owned.is_empty()).then(|| owned.into()),
    }
}

/// Checks that `bytes` are one element and nothing else but white space; gives it without that.
pub(super) fn check_element<'a>(bytes: &'a [u8], default_ns: &str) -> Result<&'a [u8], XmlFault> {
    let bytes = bytes.trim_ascii();
    if bytes.first() != Some(&b'<') {
        return Err(XmlFault::NotWellFormed("no element"));
    }
    let max = Limits::OWN.element_bytes_max;
    if bytes.len() > max {
        return Err(too_big(max));
    }
    let outer = Outer { default_ns: known(default_ns), content_ns: Cow::Borrowed(ns::CLIENT), ..NO_HEADER };
    let own = bounded(Limits::OWN);
    let mut work = Work::new();
    match work.run(bytes, &Context { limits: &own, outer: &outer, place: Place::Tree })? {
        Step::Done(What::Element, end) if end == bytes.len() => {}
        Step::Done(..) => return Err(XmlFault::NotWellFormed("bytes behind the element")),
        Step::More => return Err(XmlFault::NotWellFormed("an element that does not end")),
    }
    survey(bytes)?;
    Ok(bytes)
}
