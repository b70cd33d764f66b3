//! From stanzas to bytes, for each kind of stream: a start tag, the payload as it came, what the server adds.
//!
//! Payloads are canonical (see [`crate::xml::Raw`]): what is in the content namespace says so nowhere, so it is in
//! that of the stream that it is written to, as RFC 6120 §4.8.3 wants.

use crate::jid::Jid;
use crate::ns;
use crate::stamp::Stamp;
use crate::stanza::Stanza;
use crate::xml::escape_attribute;
use std::io::Write;

/// Whose content namespace the stream speaks: `jabber:client`, `jabber:server` or a component's. The payload's
/// children in the content namespace take that of the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    Client,
    /// RFC 7395: each stanza carries its own `xmlns='jabber:client'`.
    WebSocket,
    Server,
    Component,
}

/// What the server appends before the end tag.
#[derive(Debug, Clone, Default)]
pub struct Additions {
    /// `<stanza-id xmlns='urn:xmpp:sid:0' id='…' by='…'/>`, XEP-0359: in the archive of `by`, as sixteen hexadecimal
    /// digits.
    pub stanza_id: Option<(u64, Jid)>,
    /// `<delay xmlns='urn:xmpp:delay' from='…' stamp='…'/>`, XEP-0203.
    pub delay: Option<(Jid, Stamp)>,
}

/// Appends the stanza's bytes to `out`. `to` replaces the stanza's own when given.
pub fn write_stanza(out: &mut Vec<u8>, stanza: &Stanza, to: Option<&Jid>, more: &Additions, wire: Wire) {
    let name = stanza.kind.kind().name();
    out.push(b'<');
    out.extend_from_slice(name.as_bytes());
    if wire == Wire::WebSocket {
        attribute(out, b" xmlns='", ns::CLIENT);
    }
    if let Some(from) = &stanza.from {
        attribute(out, b" from='", from.as_str());
    }
    if let Some(to) = to.or(stanza.to.as_ref()) {
        attribute(out, b" to='", to.as_str());
    }
    if let Some(id) = &stanza.id {
        attribute(out, b" id='", id);
    }
    if let Some(kind) = stanza.type_str() {
        attribute(out, b" type='", kind);
    }
    if let Some(lang) = &stanza.lang {
        attribute(out, b" xml:lang='", lang);
    }
    if let Some(foreign) = &stanza.foreign {
        out.extend_from_slice(foreign.as_bytes());
    }
    if stanza.payload.is_empty() && more.stanza_id.is_none() && more.delay.is_none() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    out.extend_from_slice(stanza.payload.bytes());
    if let Some((id, by)) = &more.stanza_id {
        out.extend_from_slice(b"<stanza-id xmlns='urn:xmpp:sid:0' id='");
        write!(out, "{id:016x}").expect("a Vec takes all that is written to it");
        attribute(out, b"' by='", by.as_str());
        out.extend_from_slice(b"/>");
    }
    if let Some((from, stamp)) = &more.delay {
        attribute(out, b"<delay xmlns='urn:xmpp:delay' from='", from.as_str());
        attribute(out, b" stamp='", &stamp.to_xmpp());
        out.extend_from_slice(b"/>");
    }
    out.extend_from_slice(b"</");
    out.extend_from_slice(name.as_bytes());
    out.push(b'>');
}

/// `before` ends in the opening quote.
fn attribute(out: &mut Vec<u8>, before: &[u8], value: &str) {
    out.extend_from_slice(before);
    escape_attribute(out, value);
    out.push(b'\'');
}

/// The stanza's bytes for the store: in `jabber:client`, as [`Stanza::parse`] reads them.
pub fn to_stored(stanza: &Stanza) -> Vec<u8> {
    let mut out = Vec::with_capacity(stanza.weight());
    write_stanza(&mut out, stanza, None, &Additions::default(), Wire::Client);
    out
}
