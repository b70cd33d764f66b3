//! What is counted between servers: acknowledgements (XEP-0198) and the marks by which a message that is sent again
//! is known.
//!
//! XEP-0198 says what the other side has handled as long as the stream can be resumed. When it cannot, a message may
//! come twice. So a waft that offers [`FEATURE`] is told the mark of each message before it, `<mark xmlns=… id='7'/>`:
//! the same whenever the message is sent again. Other servers never see one.

use crate::frame::attribute;
use crate::management;
use xmpp::xml::Raw;
use xmpp::{StreamCondition, StreamFault};

pub(crate) const NS: &str = "urn:waft:marks:0";
pub(crate) const FEATURE: &[u8] = b"<marks xmlns='urn:waft:marks:0'/>";

/// What the other side said of the counting, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Managing {
    /// `<a h=…/>`: it has handled so many.
    Acked(u32),
    /// `<r/>`: call [`write_ack`] soon.
    AckRequested,
    /// The next stanza is a message that is known by this number, from whoever sent it.
    Mark(i64),
}

/// `<a/>`, `<r/>` or a mark; `None` for anything else. `counts`: stream management is enabled.
///
/// # Errors
/// An `h` or an `id` that is no number.
pub(crate) fn read(raw: &Raw, counts: bool) -> Result<Option<Managing>, StreamFault> {
    Ok(match (raw.ns(), raw.name()) {
        (management::NS, "a") if counts => Some(Managing::Acked(management::handled(raw)?)),
        (management::NS, "r") if counts => Some(Managing::AckRequested),
        (NS, "mark") => {
            let id = raw.attribute("id").and_then(|id| id.parse().ok());
            Some(Managing::Mark(id.ok_or(StreamFault::Other(StreamCondition::BadFormat, "A mark is a number."))?))
        }
        _ => None,
    })
}

/// Answers [`Managing::AckRequested`].
pub fn write_ack(out: &mut Vec<u8>, h: u32) {
    management::write_ack(out, h);
}

/// `<r/>`.
pub fn write_request(out: &mut Vec<u8>) {
    out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
}

/// The mark of the message that comes next.
pub fn write_mark(out: &mut Vec<u8>, id: i64) {
    out.extend_from_slice(b"<mark xmlns='urn:waft:marks:0'");
    attribute(out, "id", &id.to_string());
    out.extend_from_slice(b"/>");
}

pub(crate) fn write_enable(out: &mut Vec<u8>) {
    out.extend_from_slice(b"<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
}

pub(crate) fn write_resume(out: &mut Vec<u8>, id: &str, h: u32) {
    out.extend_from_slice(b"<resume xmlns='urn:xmpp:sm:3'");
    attribute(out, "h", &h.to_string());
    attribute(out, "previd", id);
    out.extend_from_slice(b"/>");
}
