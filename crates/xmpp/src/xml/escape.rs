//! Escaping, and reading what is escaped.

use super::XmlFault;
use super::chars::is_xml_char;
use std::borrow::Cow;

/// What stands for this byte in text; `None`: itself.
const fn in_text(b: u8) -> Option<&'static str> {
    match b {
        b'&' => Some("&amp;"),
        b'<' => Some("&lt;"),
        b'>' => Some("&gt;"),
        b'\r' => Some("&#13;"),
        b'\t' | b'\n' => None,
        0..0x20 => Some("\u{FFFD}"),
        _ => None,
    }
}

/// What stands for this byte in a quoted attribute, whichever the quotes.
const fn in_attribute(b: u8) -> Option<&'static str> {
    match b {
        b'\'' => Some("&apos;"),
        b'"' => Some("&quot;"),
        b'\t' => Some("&#9;"),
        b'\n' => Some("&#10;"),
        _ => in_text(b),
    }
}

/// Bytes that are looked at more closely: those above, and the first of U+FFFE and U+FFFF.
const SPECIAL: [bool; 256] = {
    let mut t = [false; 256];
    let mut i = 0;
    while i < 256 {
        t[i] = i == 0xEF || in_attribute(i as u8).is_some();
        i += 1;
    }
    t
};

/// Escapes text for an element's content: the five entities where needed, and `\r`. A character that XML forbids
/// becomes U+FFFD, for what goes out always parses.
pub fn escape_text(out: &mut Vec<u8>, text: &str) {
    escape(out, text, in_text);
}

/// Escapes text for a quoted attribute, whichever the quotes: the five entities, and `\t \n \r`. A character that XML
/// forbids becomes U+FFFD.
pub fn escape_attribute(out: &mut Vec<u8>, text: &str) {
    escape(out, text, in_attribute);
}

#[inline(always)]
fn escape(out: &mut Vec<u8>, text: &str, with: fn(u8) -> Option<&'static str>) {
    let bytes = text.as_bytes();
    if !bytes.iter().fold(false, |any, b| any | SPECIAL[*b as usize]) {
        out.extend_from_slice(bytes);
        return;
    }
    let mut done = 0;
    for (i, &b) in bytes.iter().enumerate() {
        let (skip, by) = if b == 0xEF && matches!(bytes.get(i + 1..i + 3), Some([0xBF, 0xBE | 0xBF])) {
            (3, "\u{FFFD}")
        } else if let Some(by) = with(b) {
            (1, by)
        } else {
            continue;
        };
        out.extend_from_slice(&bytes[done..i]);
        out.extend_from_slice(by.as_bytes());
        done = i + skip;
    }
    out.extend_from_slice(&bytes[done..]);
}

/// Longest reference, `&` and `;` included: no legal one needs more unless it is padded with zeros.
const REFERENCE_BYTES_MAX: usize = 16;

/// Reads the reference at `pos`, where `&` stands: the character and the position behind `;`. `None` when it is cut off.
pub(super) fn reference(buf: &[u8], pos: usize) -> Result<Option<(char, usize)>, XmlFault> {
    let rest = &buf[pos + 1..];
    let numeric = match rest.first() {
        None => return Ok(None),
        Some(b) => *b == b'#',
    };
    let hex = numeric && rest.get(1) == Some(&b'x');
    let digits_at = usize::from(numeric) + usize::from(hex);
    let fits = |b: u8, first: bool| match (numeric, hex) {
        (true, true) => b.is_ascii_hexdigit(),
        (true, false) => b.is_ascii_digit(),
        _ => {
            b.is_ascii_alphabetic()
                || b == b'_'
                || b == b':'
                || b >= 0x80
                || (!first && matches!(b, b'0'..=b'9' | b'-' | b'.'))
        }
    };
    let mut at = digits_at;
    loop {
        match rest.get(at) {
            None => return Ok(None),
            Some(b';') if at > digits_at => break,
            // `&#` may yet become `&#x`.
            Some(&b) if fits(b, at == digits_at) => at += 1,
            Some(_) => {
                return Err(XmlFault::NotWellFormed("an ampersand that begins no reference"));
            }
        }
        if at + 2 > REFERENCE_BYTES_MAX {
            return Err(if numeric {
                XmlFault::TooBig { what: "character reference", max: REFERENCE_BYTES_MAX }
            } else {
                NOT_PREDEFINED
            });
        }
    }
    let name = std::str::from_utf8(&rest[digits_at..at]).map_err(|_| NOT_PREDEFINED)?;
    let c = if numeric {
        u32::from_str_radix(name, if hex { 16 } else { 10 })
            .ok()
            .and_then(char::from_u32)
            .filter(|c| is_xml_char(*c))
            .ok_or(XmlFault::NotWellFormed("a reference to a character that XML forbids"))?
    } else {
        match name {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "apos" => '\'',
            "quot" => '"',
            _ => return Err(NOT_PREDEFINED),
        }
    };
    Ok(Some((c, pos + at + 2)))
}

const NOT_PREDEFINED: XmlFault = XmlFault::Restricted("a reference to an entity that is not predefined");

/// The value of an attribute as an XML processor reports it: references replaced, white space made spaces (XML 1.0
/// §3.3.3). `raw` was checked by the tokeniser.
pub(crate) fn unescape_attribute(raw: &[u8]) -> Cow<'_, str> {
    if !raw.iter().fold(false, |any, b| any | (*b == b'&') | (*b < b' ')) {
        return text(raw);
    }
    Cow::Owned(unescape(raw, ' '))
}

/// Text as an XML processor reports it: references replaced, line ends made `\n` (XML 1.0 §2.11).
pub(super) fn unescape_text(raw: &[u8]) -> Cow<'_, str> {
    if memchr::memchr2(b'&', b'\r', raw).is_none() {
        return text(raw);
    }
    Cow::Owned(unescape(raw, '\n'))
}

/// What was checked to be UTF-8.
pub(super) fn text(raw: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(raw) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => String::from_utf8_lossy(raw),
    }
}

fn unescape(raw: &[u8], line_end: char) -> String {
    let attribute = line_end == ' ';
    let mut out = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        let b = raw[at];
        match b {
            b'&' => match reference(raw, at) {
                Ok(Some((c, end))) => {
                    out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    at = end;
                    continue;
                }
                _ => out.push(b),
            },
            b'\r' => {
                out.push(line_end as u8);
                if raw.get(at + 1) == Some(&b'\n') {
                    at += 1;
                }
            }
            b'\n' => out.push(line_end as u8),
            b'\t' if attribute => out.push(b' '),
            _ => out.push(b),
        }
        at += 1;
    }
    String::from_utf8(out).unwrap_or_else(|e| text(e.as_bytes()).into_owned())
}

/// Appends `raw` with `\r\n` and `\r` made `\n`.
pub(super) fn push_normal_lines(out: &mut Vec<u8>, raw: &[u8]) {
    let mut done = 0;
    for at in memchr::memchr_iter(b'\r', raw) {
        out.extend_from_slice(&raw[done..at]);
        if raw.get(at + 1) != Some(&b'\n') {
            out.push(b'\n');
        }
        done = at + 1;
    }
    out.extend_from_slice(&raw[done..]);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn escaped(text: &str) -> (String, String) {
        let (mut t, mut a) = (Vec::new(), Vec::new());
        escape_text(&mut t, text);
        escape_attribute(&mut a, text);
        (String::from_utf8(t).unwrap(), String::from_utf8(a).unwrap())
    }

    #[test]
    fn what_is_escaped_reads_back_the_same() {
        for text in ["", "plain", "<&>'\"", "tab\there", "line\nend\r\n\r", "ö😀&", "]]>", "a&amp;b"] {
            let (t, a) = escaped(text);
            assert_eq!(unescape_text(t.as_bytes()), text);
            assert_eq!(unescape_attribute(a.as_bytes()), text);
            assert!(!t.contains("]]>"));
        }
    }

    #[test]
    fn characters_that_xml_forbids_are_replaced() {
        assert_eq!(escaped("a\0b\u{FFFE}c\u{FFFF}\u{1}").0, "a\u{FFFD}b\u{FFFD}c\u{FFFD}\u{FFFD}");
        assert_eq!(escaped("\u{B}\u{FFFD}x").1, "\u{FFFD}\u{FFFD}x");
    }

    #[test]
    fn white_space_in_an_attribute_is_a_space_and_references_to_it_are_kept() {
        assert_eq!(unescape_attribute(b"a\tb\nc\r\nd\re&#9;&#10;&#13;"), "a b c d e\t\n\r");
        assert_eq!(unescape_text(b"a\tb\nc\r\nd\re&#13;"), "a\tb\nc\nd\ne\r");
    }

    #[test]
    fn references_are_read_refused_or_awaited() {
        let read = |s: &str| reference(s.as_bytes(), 0);
        assert_eq!(read("&lt;x"), Ok(Some(('<', 4))));
        assert_eq!(read("&#x1F600;"), Ok(Some(('😀', 9))));
        assert_eq!(read("&#0065;"), Ok(Some(('A', 7))));
        for cut in ["&", "&a", "&amp", "&#", "&#x", "&#x1", "&#12"] {
            assert_eq!(read(cut), Ok(None), "{cut}");
        }
        for bad in [
            "&;",
            "& ",
            "&#;",
            "&#x;",
            "&#xg;",
            "&#0;",
            "&#xD800;",
            "&#xFFFE;",
            "&#x110000;",
            "&#1;",
            "&a b;",
            "&#X41;",
            "&1;",
        ] {
            assert!(matches!(read(bad), Err(XmlFault::NotWellFormed(_))), "{bad}");
        }
        for restricted in ["&foo;", "&nbsp;", "&aaaaaaaaaaaaaaaaaaaaaaaaa", "&LT;", "&ö;"] {
            assert!(matches!(read(restricted), Err(XmlFault::Restricted(_))), "{restricted}");
        }
        assert!(matches!(read("&#00000000000000000000065;"), Err(XmlFault::TooBig { .. })));
    }

    #[test]
    fn line_ends_are_made_line_feeds() {
        let mut out = Vec::new();
        push_normal_lines(&mut out, b"\r\na\rb\n\r\r\nc\r");
        assert_eq!(out, b"\na\nb\n\n\nc\n");
    }
}
