//! The session: stanzas and the nonzas among them. RFC 6120 §8, XEP-0198 §4, XEP-0352.

use super::{ClientStream, Wait};
use crate::event::{Event, Managed};
use crate::management;
use crate::sasl::request::CSI;
use std::sync::Arc;
use xmpp::stanza::{IqType, StanzaType};
use xmpp::xml::Raw;
use xmpp::{FullJid, Jid, Stanza, StanzaCondition, StreamFault, ns};

impl ClientStream {
    pub(super) fn in_session(&mut self, raw: Raw, out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        if Stanza::kind_of(&raw).is_some() {
            return self.stanza(raw, out);
        }
        Ok(match (raw.ns(), raw.name(), &self.counting) {
            (management::NS, "a", Some(counting)) => {
                let h = management::handled(&raw)?;
                counting.acked(out);
                Some(Event::Acked(h))
            }
            (management::NS, "r", Some(_)) => Some(Event::AckRequested),
            (management::NS, "a", None) => None,
            (management::NS, "enable", None) => {
                self.waits = Some(Wait::Manage);
                Some(Event::Manage(management::enable(|name| raw.attribute(name).map(|value| value.into_owned()))))
            }
            // Once is enough (XEP-0198 §3), and a bound stream resumes nothing (§5).
            (management::NS, "enable" | "resume" | "r", _) => {
                management::write_failed(out, StanzaCondition::UnexpectedRequest, None);
                None
            }
            (CSI, "active", _) => Some(Event::ClientState { active: true }),
            (CSI, "inactive", _) => Some(Event::ClientState { active: false }),
            (_, other, _) => return Err(StreamFault::UnsupportedStanzaType(other.into())),
        })
    }

    /// RFC 6120 §8.1.2.1, §8.1.5.
    fn stanza(&mut self, raw: Raw, out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        let jid = self.jid.as_ref().expect("a session has an address");
        if let Some(from) = raw.attribute("from")
            && !is_own(&from, jid)
        {
            return Err(StreamFault::FromNotOurs(from.as_ref().into()));
        }
        let mut stanza = match Stanza::from_raw(raw) {
            Ok(stanza) => stanza,
            Err(mut fault) => {
                fault.stanza.from = Some(jid.clone().into());
                return Ok(Some(Event::BadStanza(fault)));
            }
        };
        stanza.from = Some(jid.clone().into());
        if stanza.lang.is_none() {
            stanza.lang = self.lang.clone();
        }
        // RFC 3921 §3, answered here while nobody counts.
        if self.counting.is_none() && is_session(&stanza) {
            self.frames.iq(out, "result", stanza.id.as_deref().unwrap_or_default(), |_| {});
            return Ok(None);
        }
        Ok(Some(Event::Stanza(stanza)))
    }

    /// Answers [`Event::Manage`].
    pub fn managed(&mut self, managed: &Managed, out: &mut Vec<u8>) {
        if self.answers(Wait::Manage) {
            management::write_enabled(out, managed);
            self.counting = Some(Arc::default());
        }
    }

    /// Answers [`Event::Manage`].
    pub fn manage_refused(&mut self, condition: StanzaCondition, out: &mut Vec<u8>) {
        if self.answers(Wait::Manage) {
            management::write_failed(out, condition, None);
        }
    }
}

/// Is this the session's full JID or its bare JID? RFC 6120 §8.1.2.1.
fn is_own(from: &str, jid: &FullJid) -> bool {
    let same = |said: &str| said == jid.as_str() || said == jid.bare_str();
    same(from) || Jid::parse(from).is_ok_and(|from| same(from.as_str()))
}

fn is_session(stanza: &Stanza) -> bool {
    stanza.kind == StanzaType::Iq(IqType::Set)
        && stanza.payload.first().is_some_and(|child| child.name == "session" && child.ns == ns::SESSION)
}
