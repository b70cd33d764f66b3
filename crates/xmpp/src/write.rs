//! From stanzas to bytes, for each kind of stream: a start tag, the payload as it came, what the server adds.

use crate::jid::Jid;
use crate::stamp::Stamp;
use crate::stanza::Stanza;

/// Whose content namespace the stream speaks. `jabber:client` ↔ `jabber:server` ↔ component: children that name the
/// content namespace explicitly are rewritten when crossing.
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
    /// `<stanza-id xmlns='urn:xmpp:sid:0' id='…' by='…'/>`, XEP-0359: position in the log of `by`.
    pub stanza_id: Option<(i64, Jid)>,
    /// `<delay xmlns='urn:xmpp:delay' from='…' stamp='…'/>`, XEP-0203.
    pub delay: Option<(Jid, Stamp)>,
}

/// Appends the stanza's bytes to `out`. `to` replaces the stanza's own when given.
pub fn write_stanza(out: &mut Vec<u8>, stanza: &Stanza, to: Option<&Jid>, more: &Additions, wire: Wire) {
    let _ = (out, stanza, to, more, wire);
    todo!()
}

/// The stanza's bytes for the store: in `jabber:client`, as [`Stanza::parse`] reads them.
pub fn to_stored(stanza: &Stanza) -> Vec<u8> {
    let mut out = Vec::with_capacity(stanza.weight());
    write_stanza(&mut out, stanza, None, &Additions::default(), Wire::Client);
    out
}
