//! Binding (RFC 6120 §7, XEP-0386) and resumption (XEP-0198 §5).

use super::{BINDS_MAX, ClientStream, Stage, Wait};
use crate::event::{BindRequest, Bound, Event};
use crate::features;
use crate::management;
use crate::sasl::request::{BIND2, CSI};
use std::sync::Arc;
use xmpp::xml::{Raw, escape_text};
use xmpp::{Element, FullJid, StanzaCondition, StanzaError, StreamCondition, StreamFault, ns};

impl ClientStream {
    pub(super) fn binding(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        match (raw.ns(), raw.name()) {
            (ns::CLIENT, "iq") => self.bind(&raw.to_element(), out),
            (ns::CLIENT, "message" | "presence") => Err(StreamFault::StanzaBeforeBind),
            (management::NS, "resume") => {
                match management::resume(|name| raw.attribute(name).map(|value| value.into_owned())) {
                    Some(resume) => {
                        self.waits = Some(Wait::Resume);
                        self.events.push_back(Event::Resume(resume));
                    }
                    None => management::write_failed(out, StanzaCondition::BadRequest, None),
                }
                Ok(())
            }
            // Only a bound stream can be managed. XEP-0198 §3.
            (management::NS, "enable" | "r") => {
                management::write_failed(out, StanzaCondition::UnexpectedRequest, None);
                Ok(())
            }
            // It was offered with the other features; there is no session yet that it could be about.
            (CSI, "active" | "inactive") => Ok(()),
            (_, other) => Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
    }

    /// RFC 6120 §7.6, §7.7.
    fn bind(&mut self, iq: &Element, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let bind = iq.find("bind", ns::BIND).filter(|_| iq.attribute("type") == Some("set"));
        let (Some(bind), Some(id)) = (bind, iq.attribute("id")) else {
            return self.too_early(iq, StreamFault::StanzaBeforeBind, out);
        };
        let asked = bind.find("resource", ns::BIND).map(Element::text_content).filter(|text| !text.is_empty());
        let resource = asked.map(|resource| xmpp::jid::prepare_resource(&resource)).transpose();
        let negotiation = self.negotiation();
        negotiation.binds += 1;
        if negotiation.binds > BINDS_MAX {
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "Too many bind requests."));
        }
        match resource {
            Ok(resource) => {
                negotiation.iq = id.into();
                self.waits = Some(Wait::Bind);
                let resource = resource.map(Into::into);
                self.events.push_back(Event::Bind(BindRequest { resource, ..BindRequest::default() }));
            }
            // §7.7.2.1
            Err(_) => self.iq_error(id, &StanzaCondition::BadRequest.into(), out),
        }
        Ok(())
    }

    /// Answers [`Event::Bind`].
    pub fn bound(&mut self, bound: Bound, out: &mut Vec<u8>) {
        if !self.answers(Wait::Bind) {
            return;
        }
        let Bound { jid, managed, more } = bound;
        if self.is_inline() {
            self.success(jid.as_str(), out, |inline, out| {
                out.extend_from_slice(b"<bound xmlns='urn:xmpp:bind:0'>");
                match &managed {
                    Some(managed) if inline.manage_asked => management::write_enabled(out, managed),
                    None if inline.manage_asked => {
                        management::write_failed(out, StanzaCondition::InternalServerError, None);
                    }
                    _ => {}
                }
                more.iter().for_each(|element| element.write(out, BIND2));
                out.extend_from_slice(b"</bound>");
            });
            self.counting = managed.map(|_| Arc::default());
            features::after_auth(out, &self.frames, &self.config, self.policy(), false, self.counting.is_some());
        } else {
            let id = std::mem::take(&mut self.negotiation().iq);
            self.frames.iq(out, "result", &id, |out| {
                out.extend_from_slice(b"<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><jid>");
                escape_text(out, jid.as_str());
                out.extend_from_slice(b"</jid></bind>");
            });
        }
        self.begin_session(jid);
    }

    fn begin_session(&mut self, jid: FullJid) {
        self.jid = Some(jid);
        self.stage = Stage::Bound;
        // An idle session keeps no more than it needs.
        self.negotiation = None;
        self.host = None;
        self.events.shrink_to_fit();
    }

    /// Answers [`Event::Bind`]. The client may try again; with Bind 2 its authentication has failed with it
    /// (`temporary-auth-failure` and the error's condition), as nothing else can be told there.
    pub fn bind_refused(&mut self, error: &StanzaError, out: &mut Vec<u8>) {
        if !self.answers(Wait::Bind) {
            return;
        }
        if self.is_inline() {
            return self.inline_failed(error.condition, out);
        }
        let id = std::mem::take(&mut self.negotiation().iq);
        self.iq_error(&id, error, out);
    }

    /// Answers [`Event::Resume`]: `h` stanzas of the client were handled. The caller then writes what is to be sent
    /// again, as after any `sent`.
    pub fn resumed(&mut self, jid: FullJid, id: &str, h: u32, out: &mut Vec<u8>) {
        if !self.answers(Wait::Resume) {
            return;
        }
        if self.is_inline() {
            // No features follow. XEP-0198 §9.2.
            self.success(jid.as_str(), out, |_, out| management::write_resumed(out, id, h));
        } else {
            management::write_resumed(out, id, h);
        }
        self.counting = Some(Arc::default());
        self.begin_session(jid);
    }

    /// Answers [`Event::Resume`]; `h` if the session is known but over. Usually `item-not-found`. XEP-0198 §5.
    pub fn resume_refused(&mut self, condition: StanzaCondition, h: Option<u32>, out: &mut Vec<u8>) {
        if !self.answers(Wait::Resume) {
            return;
        }
        match self.negotiation().inline.as_mut() {
            Some(inline) => {
                inline.resume_failed = Some((condition, h));
                self.inline(out);
            }
            None => management::write_failed(out, condition, h),
        }
    }
}
