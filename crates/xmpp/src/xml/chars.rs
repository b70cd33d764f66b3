//! Which bytes and characters XML allows where: tables, and the loop that goes over plain bytes eight at a time.

use super::XmlFault;

/// What an ASCII byte is to a name. XML 1.0 (5th edition) §2.3, Namespaces §3.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// May start a name.
    Start,
    /// May stand in a name, not at its start.
    Inner,
    /// Ends a name.
    Stop,
    Colon,
    NonAscii,
}

const CLASSES: [Class; 256] = {
    let mut t = [Class::Stop; 256];
    let mut i = 0;
    while i < 256 {
        let b = i as u8;
        t[i] = if b >= 0x80 {
            Class::NonAscii
        } else if b.is_ascii_alphabetic() || b == b'_' {
            Class::Start
        } else if b.is_ascii_digit() || b == b'-' || b == b'.' {
            Class::Inner
        } else if b == b':' {
            Class::Colon
        } else {
            Class::Stop
        };
        i += 1;
    }
    t
};

#[inline(always)]
pub(super) fn class(b: u8) -> Class {
    CLASSES[b as usize]
}

/// NameStartChar without the colon, outside ASCII.
fn starts_name(c: char) -> bool {
    matches!(c as u32,
        0xC0..=0xD6 | 0xD8..=0xF6 | 0xF8..=0x2FF | 0x370..=0x37D | 0x37F..=0x1FFF | 0x200C..=0x200D
        | 0x2070..=0x218F | 0x2C00..=0x2FEF | 0x3001..=0xD7FF | 0xF900..=0xFDCF | 0xFDF0..=0xFFFD
        | 0x10000..=0xEFFFF)
}

/// NameChar, outside ASCII.
fn in_name(c: char) -> bool {
    starts_name(c) || matches!(c as u32, 0xB7 | 0x300..=0x36F | 0x203F..=0x2040)
}

/// Char. XML 1.0 §2.2.
pub(super) fn is_xml_char(c: char) -> bool {
    matches!(c as u32, 0x9 | 0xA | 0xD | 0x20..=0xD7FF | 0xE000..=0xFFFD | 0x10000..)
}

#[inline(always)]
pub(super) fn is_space(b: u8) -> bool {
    matches!(b, b' ' | b'\n' | b'\t' | b'\r')
}

/// The character at the start of `bytes`; `None` when it is cut off.
fn decode(bytes: &[u8]) -> Result<Option<char>, XmlFault> {
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(s) => s,
        Err(e) if e.valid_up_to() > 0 => std::str::from_utf8(&head[..e.valid_up_to()]).unwrap_or_default(),
        Err(e) if e.error_len().is_none() && head.len() < 4 => return Ok(None),
        Err(_) => return Err(NOT_UTF8),
    };
    Ok(valid.chars().next())
}

pub(super) const NOT_UTF8: XmlFault = XmlFault::Encoding("bytes that are not UTF-8");
const BAD_NAME: XmlFault = XmlFault::NotWellFormed("a name with a character that names do not have");

/// Goes over the characters of a qualified name from `pos` on; `start` is where the name began, `colon` where its
/// colon stands (0: none yet). Returns false when the bytes end first; `pos` says how far it came.
#[inline(always)]
pub(super) fn skip_name(buf: &[u8], pos: &mut usize, start: usize, colon: &mut usize) -> Result<bool, XmlFault> {
    loop {
        let rest = buf.get(*pos..).unwrap_or_default();
        let Some(plain) = rest.iter().position(|b| !matches!(class(*b), Class::Start | Class::Inner)) else {
            *pos = buf.len();
            return Ok(false);
        };
        *pos += plain;
        match class(buf[*pos]) {
            Class::Start | Class::Inner => *pos += 1,
            Class::Stop => return Ok(true),
            Class::Colon => {
                if *colon != 0 || *pos == start {
                    return Err(XmlFault::NotWellFormed("a colon that separates no prefix from a name"));
                }
                *colon = *pos;
                *pos += 1;
            }
            Class::NonAscii => match decode(&buf[*pos..])? {
                None => return Ok(false),
                Some(c) if in_name(c) => *pos += c.len_utf8(),
                Some(_) => return Err(BAD_NAME),
            },
        }
    }
}

/// The end of an ASCII name without colon at `at`; `None` if there is none, or if it may go on behind the bytes.
#[inline(always)]
pub(super) fn skip_plain_name(buf: &[u8], at: usize) -> Option<usize> {
    let rest = buf.get(at..)?;
    if class(*rest.first()?) != Class::Start {
        return None;
    }
    let len = rest.iter().position(|b| !matches!(class(*b), Class::Start | Class::Inner))?;
    Some(at + len)
}

/// Does `buf[at..end]` start as a name without colon does?
#[inline(always)]
fn starts_well(buf: &[u8], at: usize, end: usize) -> bool {
    if at >= end {
        return false;
    }
    match class(buf[at]) {
        Class::Start => true,
        Class::NonAscii => matches!(decode(&buf[at..end]), Ok(Some(c)) if starts_name(c)),
        _ => false,
    }
}

/// Checks what [`skip_name`] went over: both parts of a qualified name are there and start as names do.
#[inline(always)]
pub(super) fn check_name(buf: &[u8], start: usize, end: usize, colon: usize) -> Result<(), XmlFault> {
    if !starts_well(buf, start, end) || (colon != 0 && !starts_well(buf, colon + 1, end)) {
        return Err(BAD_NAME);
    }
    Ok(())
}

/// Is `name` a name without colon (NCName)?
pub(super) fn is_ncname(name: &str) -> bool {
    let mut chars = name.chars();
    let ascii = |c: char, start: bool| match class(c as u8) {
        Class::Start => true,
        Class::Inner => !start,
        _ => false,
    };
    chars.next().is_some_and(|c| if c.is_ascii() { ascii(c, true) } else { starts_name(c) })
        && chars.all(|c| if c.is_ascii() { ascii(c, false) } else { in_name(c) })
}

/// What one pass over the bytes of a whole frame tells; the tokeniser looks at markup only.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// There is a carriage return.
    pub returns: bool,
    /// There is a byte outside ASCII.
    pub high: bool,
}

/// Looks over the bytes of a whole frame.
///
/// # Errors
/// If there is a control character that XML forbids, or bytes are not UTF-8, or U+FFFE or U+FFFF.
pub(super) fn survey(bytes: &[u8]) -> Result<Survey, XmlFault> {
    // Thirty-two lanes, which the compiler makes vectors of.
    let (mut low, mut top) = ([0u8; 32], [0u8; 32]);
    let mut look = |block: &[u8; 32]| {
        for i in 0..32 {
            let b = block[i];
            low[i] |= u8::from(b < 0x20) & u8::from(b != b'\t') & u8::from(b != b'\n');
            top[i] |= b;
        }
    };
    let (blocks, rest) = bytes.as_chunks::<32>();
    blocks.iter().for_each(&mut look);
    match bytes.last_chunk::<32>() {
        Some(last) => look(last),
        None => {
            let mut block = [b' '; 32];
            block[..rest.len()].copy_from_slice(rest);
            look(&block);
        }
    }
    let low = low.iter().fold(0, |a, b| a | b) != 0;
    let top = top.iter().fold(0, |a, b| a | b);
    let mut survey = Survey { returns: false, high: top >= 0x80 };
    if low {
        if bytes.iter().any(|b| *b < 0x20 && !matches!(b, b'\t' | b'\n' | b'\r')) {
            return Err(FORBIDDEN_CHARACTER);
        }
        survey.returns = true;
    }
    if survey.high {
        check_utf8(bytes)?;
    }
    Ok(survey)
}

const FORBIDDEN_CHARACTER: XmlFault = XmlFault::NotWellFormed("a character that XML forbids");

/// Checks a whole frame in which bytes outside ASCII were seen: UTF-8, and no U+FFFE or U+FFFF.
fn check_utf8(bytes: &[u8]) -> Result<(), XmlFault> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(NOT_UTF8);
    }
    for at in memchr::memchr_iter(0xEF, bytes) {
        if let Some([0xBF, 0xBE | 0xBF]) = bytes.get(at + 1..at + 3) {
            return Err(FORBIDDEN_CHARACTER);
        }
    }
    Ok(())
}

/// In a namespace: a character that no URI has. It would let two parsers disagree on where the namespace ends.
pub(super) const IN_NO_URI: u8 = 1;
/// In a namespace: the start of a reference.
pub(super) const AMPERSAND: u8 = 2;

const NAMESPACE_FLAGS: [u8; 256] = {
    let mut t = [0; 256];
    let mut i = 0;
    while i <= 0x20 {
        t[i] = IN_NO_URI;
        i += 1;
    }
    let others = b"\"<>\\^`{|}\x7F";
    let mut i = 0;
    while i < others.len() {
        t[others[i] as usize] = IN_NO_URI;
        i += 1;
    }
    t[b'&' as usize] = AMPERSAND;
    t
};

/// What there is in a namespace's name, of [`IN_NO_URI`] and [`AMPERSAND`].
#[inline(always)]
pub(super) fn namespace_flags(ns: &[u8]) -> u8 {
    ns.iter().fold(0, |flags, b| flags | NAMESPACE_FLAGS[*b as usize])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_seen_wherever_it_stands() {
        for len in [1, 2, 31, 32, 33, 64, 70, 100] {
            for at in 0..len {
                for b in 0..0x80u8 {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = b;
                    let expected = match b {
                        b'\r' => Ok(Survey { returns: true, high: false }),
                        b'\t' | b'\n' | 0x20.. => Ok(Survey::default()),
                        _ => Err(FORBIDDEN_CHARACTER),
                    };
                    assert_eq!(survey(&bytes), expected, "{b} at {at} of {len}");
                }
                if at + 1 < len {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = 0xC3;
                    assert_eq!(survey(&bytes), Err(NOT_UTF8));
                    bytes[at + 1] = 0xA4;
                    assert_eq!(survey(&bytes), Ok(Survey { returns: false, high: true }));
                }
            }
        }
        assert_eq!(survey("\u{FFFD}\u{1FFFE}".as_bytes()), Ok(Survey { returns: false, high: true }));
        assert_eq!(survey("x\u{FFFE}".as_bytes()), Err(FORBIDDEN_CHARACTER));
        assert_eq!(survey("\u{FFFF}x".as_bytes()), Err(FORBIDDEN_CHARACTER));
    }

    #[test]
    fn names_without_colon_are_told_from_what_is_none() {
        for good in ["a", "_", "stanza-id", "x1.2", "ö", "a·"] {
            assert!(is_ncname(good), "{good}");
        }
        for bad in ["", "1a", "-a", "a:b", "a b", "·a", "a\u{d7}", "a<"] {
            assert!(!is_ncname(bad), "{bad}");
        }
    }
}
