//! Which bytes and characters XML allows where: tables, and the loop that goes over plain bytes eight at a time.

use super::XmlFault;

/// What an ASCII byte is to a name. XML 1.0 (5th edition) §2.3, Namespaces §3.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Class {
    /// Ends a name.
    Stop,
    /// May start a name.
    Start,
    /// May stand in a name, not at its start.
    Inner,
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
    while let Some(&b) = buf.get(*pos) {
        match class(b) {
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
    Ok(false)
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

const ONES: u64 = 0x0101_0101_0101_0101;
const TOPS: u64 = 0x8080_8080_8080_8080;

#[inline(always)]
fn zero_bytes(v: u64) -> u64 {
    v.wrapping_sub(ONES) & !v & TOPS
}

/// Position of the first byte from `pos` on that is `a`, `b`, `c` or a control character, or the length of `buf`.
/// The high bits of what it read are added to `high`, so that the caller knows whether all was ASCII.
#[inline(always)]
pub(super) fn skip_plain(buf: &[u8], mut pos: usize, a: u8, b: u8, c: u8, high: &mut u64) -> usize {
    let (wa, wb, wc) = (ONES * u64::from(a), ONES * u64::from(b), ONES * u64::from(c));
    let mut words = 0u32;
    while let Some(word) = buf.get(pos..).and_then(|rest| rest.first_chunk::<8>()) {
        let w = u64::from_le_bytes(*word);
        *high |= w;
        let controls = w.wrapping_sub(ONES * 0x20) & !w & TOPS;
        let hits = zero_bytes(w ^ wa) | zero_bytes(w ^ wb) | zero_bytes(w ^ wc) | controls;
        if hits != 0 {
            // The lowest hit is exact; those above it may come from a borrow.
            return pos + (hits.trailing_zeros() / 8) as usize;
        }
        pos += 8;
        words += 1;
        if words >= 4 {
            pos = skip_blocks(buf, pos, a, b, c, high);
            words = 0;
        }
    }
    while let Some(&x) = buf.get(pos) {
        if x == a || x == b || x == c || x < 0x20 {
            return pos;
        }
        *high |= u64::from(x & 0x80);
        pos += 1;
    }
    pos
}

/// Skips whole blocks of 32 plain bytes: the compiler turns the inner loop into vector instructions.
fn skip_blocks(buf: &[u8], mut pos: usize, a: u8, b: u8, c: u8, high: &mut u64) -> usize {
    while let Some(block) = buf.get(pos..).and_then(|rest| rest.first_chunk::<32>()) {
        let mut hit = false;
        let mut top = 0u8;
        for &x in block {
            hit |= (x == a) | (x == b) | (x == c) | (x < 0x20);
            top |= x;
        }
        if hit {
            break;
        }
        *high |= u64::from(top & 0x80);
        pos += 32;
    }
    pos
}

/// Did [`skip_plain`] see a byte outside ASCII?
#[inline(always)]
pub(super) fn saw_high(high: u64) -> bool {
    high & TOPS != 0
}

/// Checks a whole frame in which bytes outside ASCII were seen: UTF-8, and no U+FFFE or U+FFFF.
pub(super) fn check_utf8(bytes: &[u8]) -> Result<(), XmlFault> {
    if std::str::from_utf8(bytes).is_err() {
        return Err(NOT_UTF8);
    }
    for at in memchr::memchr_iter(0xEF, bytes) {
        if let Some([0xBF, 0xBE | 0xBF]) = bytes.get(at + 1..at + 3) {
            return Err(XmlFault::NotWellFormed("a character that XML forbids"));
        }
    }
    Ok(())
}

const IN_NO_URI: [bool; 256] = {
    let mut t = [false; 256];
    let mut i = 0;
    while i <= 0x20 {
        t[i] = true;
        i += 1;
    }
    let others = b"\"<>\\^`{|}\x7F";
    let mut i = 0;
    while i < others.len() {
        t[others[i] as usize] = true;
        i += 1;
    }
    t
};

/// A namespace name is a URI reference: what no URI has in it would let two parsers disagree on where it ends.
pub(super) fn check_namespace(ns: &[u8]) -> Result<(), XmlFault> {
    if ns.iter().fold(false, |bad, b| bad | IN_NO_URI[*b as usize]) {
        return Err(XmlFault::NotWellFormed("a namespace with a character that no URI has"));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn plain_bytes_end_at_the_first_special_byte_wherever_it_stands() {
        for len in 0..140 {
            for at in 0..len {
                for special in [b'<', b'&', b'>', 0x00, 0x1F, b'\n'] {
                    let mut buf = vec![b'a'; len];
                    buf[at] = special;
                    let mut high = 0;
                    assert_eq!(skip_plain(&buf, 0, b'<', b'&', b'>', &mut high), at, "{len} {at} {special}");
                    assert!(!saw_high(high));
                }
            }
            let mut high = 0;
            assert_eq!(skip_plain(&vec![0xFF; len], 0, b'<', b'&', b'>', &mut high), len);
            assert_eq!(saw_high(high), len > 0);
        }
    }

    #[test]
    fn every_byte_value_is_plain_or_special_alike_in_words_blocks_and_tails() {
        for x in 0..=255u8 {
            let special = x < 0x20 || matches!(x, b'<' | b'&' | b'>');
            for at in [0, 3, 7, 8, 33, 40, 70, 99] {
                let mut buf = vec![b'z'; 100];
                buf[at] = x;
                let mut high = 0;
                let end = skip_plain(&buf, 0, b'<', b'&', b'>', &mut high);
                assert_eq!(end, if special { at } else { 100 }, "{x} at {at}");
                assert_eq!(saw_high(high), x >= 0x80);
            }
        }
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
