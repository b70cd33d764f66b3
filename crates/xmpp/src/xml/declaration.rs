//! The XML declaration that may stand before a stream.

use super::XmlFault;
use super::chars::{Class, class, is_space};
use memchr::memchr;

/// Checks `version='1.0' encoding='…' standalone='…'?>`. XML 1.0 §2.8; RFC 6120 §11.5, §11.6, §11.8.
pub(super) fn check_declaration(rest: &[u8]) -> Result<(), XmlFault> {
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
