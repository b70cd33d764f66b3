//! Rewriting a checked frame into a canonical context: default namespace = the content namespace, no other prefix
//! in scope around the payload. A rare path; most stanzas are canonical as they come.
//!
//! - CDATA sections become escaped text, and line ends `\n`, because weak parsers differ there.
//! - Prefixes that are bound on the stream header or on the top-level tag are declared again on each direct child that
//!   uses them (RFC 6120 §4.8.5, last paragraph).
//! - An explicit content namespace on an element that is in the content namespace anyway is dropped.
//! - An element inside of a foreign wrapper that inherits the default namespace from around the frame says it itself.

use super::XmlFault;
use super::escape::{escape_attribute, escape_text, push_normal_lines, unescape_attribute};
use super::namespaces::{Outer, is_content, used_prefixes};
use super::tokens::Work;
use super::walk::{Event, Tag, Walker};
use smallvec::SmallVec;
use std::borrow::Cow;

/// What the rewriter knows of an open element. The same facts as the tokeniser has.
struct Open<'a> {
    qname: &'a [u8],
    default: DefaultNs<'a>,
    content: bool,
}

#[derive(Clone)]
struct DefaultNs<'a> {
    ns: Cow<'a, str>,
    /// Not declared within the canonical payload.
    outer: bool,
}

/// Writes `bytes`, which `work` has checked, in canonical form. Not longer than `bytes_max`.
pub(super) fn rewrite(bytes: &[u8], work: &Work, outer: &Outer, bytes_max: usize) -> Result<Vec<u8>, XmlFault> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 8 + 64);
    let mut open: SmallVec<[Open<'_>; 8]> = SmallVec::new();
    let mut used = work.children_used.iter().peekable();
    let mut child = 0;
    let mut root_tag: Option<Tag<'_>> = None;
    for event in Walker::new(bytes) {
        match event {
            Event::Text(raw) => write_text(&mut out, raw),
            Event::CData(raw) => {
                let mut plain = Vec::with_capacity(raw.len());
                push_normal_lines(&mut plain, raw);
                escape_text(&mut out, &String::from_utf8_lossy(&plain));
            }
            Event::End => {
                if let Some(done) = open.pop() {
                    out.extend_from_slice(b"</");
                    out.extend_from_slice(done.qname);
                    out.push(b'>');
                }
            }
            Event::Start(tag) => {
                let depth = open.len();
                let (around, parent_content) = match open.last() {
                    Some(o) => (o.default.clone(), o.content),
                    None => (DefaultNs { ns: Cow::Borrowed(&*outer.default_ns), outer: true }, true),
                };
                let mut default = match tag.attribute(b"xmlns") {
                    Some(value) => DefaultNs { ns: unescape_attribute(value), outer: false },
                    None => around,
                };
                // Prefixes of the content namespace were refused where they would matter.
                let inherits = tag.prefix().is_none();
                let content = parent_content
                    && inherits
                    && match depth {
                        0 if default.outer => outer.default_is_content,
                        0 => outer.is_content(default.ns.as_bytes()),
                        _ => is_content(default.ns.as_bytes()),
                    };
                out.push(b'<');
                out.extend_from_slice(tag.qname);
                if content {
                    default.outer = true;
                } else if inherits && default.outer {
                    write_declaration(&mut out, None, &default.ns);
                    default.outer = false;
                }
                match depth {
                    0 => {
                        declare_used(&mut out, work.root_used, outer, None);
                        root_tag = Some(tag);
                    }
                    1 => {
                        if let Some((_, mask)) = used.next_if(|(i, _)| *i == child) {
                            declare_used(&mut out, *mask, outer, root_tag.as_ref());
                        }
                        child += 1;
                    }
                    _ => {}
                }
                for (name, value) in tag.attributes() {
                    if name == b"xmlns" && content {
                        continue;
                    }
                    out.push(b' ');
                    out.extend_from_slice(name);
                    write_value(&mut out, value);
                }
                if tag.empty {
                    out.extend_from_slice(b"/>");
                } else {
                    out.push(b'>');
                    open.push(Open { qname: tag.qname, default, content });
                }
            }
        }
        if out.len() > bytes_max {
            return Err(XmlFault::TooBig { what: "element", max: bytes_max });
        }
    }
    Ok(out)
}

/// Declares the prefixes in `mask` with the namespaces that they have outside.
fn declare_used(out: &mut Vec<u8>, mask: u64, outer: &Outer, root_tag: Option<&Tag<'_>>) {
    let (header, root) = used_prefixes(mask);
    for i in header {
        if let Some((prefix, ns)) = outer.prefixes.get(i) {
            write_declaration(out, Some(prefix.as_bytes()), ns);
        }
    }
    for i in root {
        let declared =
            root_tag.and_then(|tag| tag.attributes().filter_map(|(n, v)| Some((n.strip_prefix(b"xmlns:")?, v))).nth(i));
        if let Some((prefix, value)) = declared {
            write_declaration(out, Some(prefix), &unescape_attribute(value));
        }
    }
}

fn write_declaration(out: &mut Vec<u8>, prefix: Option<&[u8]>, ns: &str) {
    out.extend_from_slice(b" xmlns");
    if let Some(prefix) = prefix {
        out.push(b':');
        out.extend_from_slice(prefix);
    }
    out.extend_from_slice(b"='");
    escape_attribute(out, ns);
    out.push(b'\'');
}

/// As it came, but for line ends; `>` is escaped, for a CDATA section before it may have ended in `]]`.
fn write_text(out: &mut Vec<u8>, raw: &[u8]) {
    let mut done = 0;
    for at in memchr::memchr_iter(b'>', raw) {
        push_normal_lines(out, &raw[done..at]);
        out.extend_from_slice(b"&gt;");
        done = at + 1;
    }
    push_normal_lines(out, &raw[done..]);
}

fn write_value(out: &mut Vec<u8>, raw: &[u8]) {
    let quote = if memchr::memchr(b'\'', raw).is_some() { b'"' } else { b'\'' };
    out.extend_from_slice(&[b'=', quote]);
    push_normal_lines(out, raw);
    out.push(quote);
}
