//! Counting and acknowledging, XEP-0198: the nonzas, and when to ask. The queues are the account's.

use crate::event::{ManageRequest, Managed, ResumeRequest};
use crate::frame::attribute;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use xmpp::xml::Raw;
use xmpp::{StanzaCondition, StreamCondition, StreamFault, ns};

/// An acknowledgement is asked for after so many stanzas, also while more are queued.
pub(crate) const STANZAS_PER_REQUEST: u32 = 10;

/// What was sent and not yet asked about. The stream's reader and whoever writes share it: an acknowledgement that comes
/// while something is written is followed by a request of one of the two.
#[derive(Debug, Default)]
pub struct Counting {
    /// Stanzas sent since the last `<r/>`.
    unasked: AtomicU32,
    /// An `<r/>` is out and has no answer.
    awaits_ack: AtomicBool,
}

// (In one order for all: who counts looks whether an answer is awaited, and who hears the answer what was counted.)
impl Counting {
    /// One stanza more was written; asks for an acknowledgement every so often.
    pub fn sent(&self, out: &mut Vec<u8>) {
        if self.unasked.fetch_add(1, Ordering::SeqCst) + 1 >= STANZAS_PER_REQUEST {
            self.ask(out);
        }
    }

    /// Nothing more is queued: asks for an acknowledgement of what was sent, unless one is awaited.
    pub fn drained(&self, out: &mut Vec<u8>) {
        if self.unasked.load(Ordering::SeqCst) > 0 {
            self.ask(out);
        }
    }

    /// The client answered; what was sent meanwhile is asked for at once.
    pub(crate) fn acked(&self, out: &mut Vec<u8>) {
        self.awaits_ack.store(false, Ordering::SeqCst);
        self.drained(out);
    }

    /// Asks in any case.
    pub fn request(&self, out: &mut Vec<u8>) {
        self.awaits_ack.store(true, Ordering::SeqCst);
        self.write_request(out);
    }

    pub fn awaits_ack(&self) -> bool {
        self.awaits_ack.load(Ordering::SeqCst)
    }

    fn ask(&self, out: &mut Vec<u8>) {
        if !self.awaits_ack.swap(true, Ordering::SeqCst) {
            self.write_request(out);
        }
    }

    fn write_request(&self, out: &mut Vec<u8>) {
        self.unasked.store(0, Ordering::SeqCst);
        out.extend_from_slice(b"<r xmlns='urn:xmpp:sm:3'/>");
    }
}

pub(crate) fn write_ack(out: &mut Vec<u8>, h: u32) {
    out.extend_from_slice(b"<a xmlns='urn:xmpp:sm:3'");
    attribute(out, "h", &h.to_string());
    out.extend_from_slice(b"/>");
}

/// §3.
pub(crate) fn write_enabled(out: &mut Vec<u8>, managed: &Managed) {
    out.extend_from_slice(b"<enabled xmlns='urn:xmpp:sm:3'");
    if let Some(id) = &managed.id {
        attribute(out, "id", id);
        attribute(out, "resume", "true");
        if let Some(max) = managed.max {
            attribute(out, "max", &max.to_string());
        }
        if let Some(location) = &managed.location {
            attribute(out, "location", location);
        }
    }
    out.extend_from_slice(b"/>");
}

/// §5.
pub(crate) fn write_resumed(out: &mut Vec<u8>, id: &str, h: u32) {
    out.extend_from_slice(b"<resumed xmlns='urn:xmpp:sm:3'");
    attribute(out, "h", &h.to_string());
    attribute(out, "previd", id);
    out.extend_from_slice(b"/>");
}

/// §6; `h` where the session is known but over (§5).
pub(crate) fn write_failed(out: &mut Vec<u8>, condition: StanzaCondition, h: Option<u32>) {
    out.extend_from_slice(b"<failed xmlns='urn:xmpp:sm:3'");
    if let Some(h) = h {
        attribute(out, "h", &h.to_string());
    }
    out.extend_from_slice(b"><");
    out.extend_from_slice(condition.name().as_bytes());
    out.extend_from_slice(b" xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
}

/// `<enable/>`. What is no boolean or no number counts as not said.
pub(crate) fn enable(attribute: impl Fn(&str) -> Option<String>) -> ManageRequest {
    ManageRequest {
        resume: attribute("resume").is_some_and(|value| boolean(&value)),
        max: attribute("max").and_then(|max| max.parse().ok()),
    }
}

/// `<resume/>`; `None` if `previd` or `h` is missing or wrong.
pub(crate) fn resume(attribute: impl Fn(&str) -> Option<String>) -> Option<ResumeRequest> {
    Some(ResumeRequest { id: attribute("previd")?.into(), h: attribute("h")?.parse().ok()? })
}

/// The `h` of `<a/>`.
///
/// # Errors
/// `bad-format` without one: nothing that is counted could be trusted any more.
pub(crate) fn handled(raw: &Raw) -> Result<u32, StreamFault> {
    raw.attribute("h")
        .and_then(|h| h.parse().ok())
        .ok_or(StreamFault::Other(StreamCondition::BadFormat, "An <a/> needs an 'h' that is a number below 2^32."))
}

/// xs:boolean.
pub(crate) fn boolean(text: &str) -> bool {
    matches!(text.trim_ascii(), "true" | "1")
}

/// `<sm/>` among the features. §2.
pub(crate) const FEATURE: &[u8] = b"<sm xmlns='urn:xmpp:sm:3'/>";
pub(crate) const NS: &str = ns::SM;

#[cfg(test)]
mod tests {
    use super::*;

    const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

    fn written(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).expect("nonzas are UTF-8")
    }

    #[test]
    fn an_acknowledgement_is_asked_for_when_the_queue_is_empty() {
        let counting = Counting::default();
        assert_eq!(written(|out| counting.sent(out)), "");
        assert_eq!(written(|out| counting.drained(out)), R);
        assert_eq!(written(|out| counting.drained(out)), "");
    }

    #[test]
    fn only_one_request_is_out_at_a_time_and_the_rest_is_asked_for_by_its_answer() {
        let counting = Counting::default();
        let text = written(|out| (0..25).for_each(|_| counting.sent(out)));
        assert_eq!(text, R);
        assert_eq!(written(|out| counting.drained(out)), "");
        assert_eq!(written(|out| counting.acked(out)), R);
        assert_eq!(written(|out| counting.acked(out)), "");
    }

    #[test]
    fn without_resumption_no_id_is_told() {
        assert_eq!(written(|out| write_enabled(out, &Managed::default())), "<enabled xmlns='urn:xmpp:sm:3'/>");
        let managed = Managed { id: Some("a&b".into()), max: Some(300), location: Some("[::1]:5222".into()) };
        assert_eq!(
            written(|out| write_enabled(out, &managed)),
            "<enabled xmlns='urn:xmpp:sm:3' id='a&amp;b' resume='true' max='300' location='[::1]:5222'/>"
        );
    }
}
