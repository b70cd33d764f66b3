//! Before authentication: STARTTLS (RFC 6120 §5) and registration (XEP-0077 §3.1).

use super::{ClientStream, EARLY_IQS_MAX, Stage, Wait};
use crate::config::Tls;
use crate::event::{Event, TlsInfo};
use crate::sasl::wire::SASL2;
use crate::{features, management, register};
use xmpp::xml::Raw;
use xmpp::{Element, StanzaCondition, StanzaError, StreamCondition, StreamFault, ns};

impl ClientStream {
    pub(super) fn negotiating(&mut self, raw: &Raw, input: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        match (raw.ns(), raw.name()) {
            (ns::SASL, "auth" | "response" | "abort") | (SASL2, "authenticate" | "response" | "abort") => {
                self.sasl(raw, out)
            }
            // "Servers MUST disconnect clients immediately if any other traffic is received." XEP-0388 §2.4.
            _ if self.negotiation().attempt.is_some() => Err(StreamFault::StanzaBeforeAuth),
            (ns::TLS, "starttls") => self.start_tls(input, out),
            // While TLS is required there is nothing else to be had. RFC 6120 §5.4.1.
            (ns::CLIENT, "iq") if self.encrypted || self.config.tls != Tls::Required => self.early(raw, out),
            // XEP-0198 §3.
            (management::NS, "enable" | "resume") => {
                management::write_failed(out, StanzaCondition::UnexpectedRequest, None);
                Ok(())
            }
            _ => Err(StreamFault::StanzaBeforeAuth),
        }
    }

    /// RFC 6120 §5.4.2. White space that came along with the element is dropped, see [`ClientStream::next`].
    fn start_tls(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.encrypted || !matches!(self.config.tls, Tls::Required | Tls::Optional) {
            out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "STARTTLS was not offered."));
        }
        if !is_space(input) || self.frames.is_mid_frame() {
            return Err(StreamFault::PlaintextBehindStartTls);
        }
        out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        self.waits = Some(Wait::StartTls);
        self.events.push_back(Event::StartTls);
        Ok(())
    }

    /// Answers [`Event::StartTls`]; or, with `Tls::Direct`, comes before the first `next`.
    pub fn tls_up(&mut self, info: TlsInfo) {
        if self.waits.is_some() && !self.answers(Wait::StartTls) {
            return;
        }
        // What was said in clear is forgotten. RFC 6120 §5.4.3.3.
        if self.stage != Stage::Header {
            self.frames.restart();
        }
        self.stage = Stage::Header;
        self.host = None;
        self.lang = None;
        self.encrypted = true;
        let negotiation = self.negotiation();
        negotiation.from = None;
        negotiation.tls = Some(info);
    }

    /// An iq before authentication: about registration, or too early.
    fn early(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let iq = raw.to_element();
        let registers = features::registers(self.policy(), self.encrypted, self.config.tls);
        match register::read(&iq, self.host().unwrap_or_default()).filter(|_| registers) {
            Some(request) => self.register(&iq, request, out),
            None => self.too_early(&iq, StreamFault::StanzaBeforeAuth, out),
        }
    }

    /// What a client asks its server before it may is refused (RFC 6120 §8.3.3.12), and does not end the stream: that is
    /// for stanzas to anybody else (§7.1). Nothing of it is looked at.
    ///
    /// # Errors
    /// `fault` for any other stanza, and for too many.
    pub(super) fn too_early(&mut self, iq: &Element, fault: StreamFault, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let asks = matches!(iq.attribute("type"), Some("get" | "set"));
        let is_own = |to: &str| Some(to) == self.host() || self.account().is_some_and(|account| account.as_str() == to);
        let Some(id) = iq.attribute("id").filter(|_| asks && iq.attribute("to").is_none_or(is_own)) else {
            return Err(fault);
        };
        let negotiation = self.negotiation();
        negotiation.early_iqs += 1;
        if negotiation.early_iqs > EARLY_IQS_MAX {
            return Err(fault);
        }
        self.iq_error(id, &StanzaCondition::NotAuthorized.into(), out);
        Ok(())
    }

    fn register(&mut self, iq: &Element, request: register::Request, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let id = iq.attribute("id").unwrap_or_default().to_owned();
        let negotiation = self.negotiation();
        negotiation.registrations += 1;
        if negotiation.registrations > super::REGISTRATIONS_MAX {
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "Too many requests for registration."));
        }
        negotiation.iq = id.as_str().into();
        let admitted = self.policy().registration_open || self.negotiation().admitted;
        match request {
            register::Request::Invited(token) if self.policy().invitations => {
                let negotiation = self.negotiation();
                (negotiation.invitation, negotiation.admitted) = (Some(token.clone()), false);
                self.waits = Some(Wait::Invited);
                self.events.push_back(Event::Invited(token));
            }
            register::Request::Invited(_) => self.iq_error(&id, &StanzaCondition::ServiceUnavailable.into(), out),
            register::Request::Form | register::Request::Submit(_) if !admitted => {
                let why = "Accounts are made here with an invitation.";
                self.iq_error(&id, &StanzaError::from(StanzaCondition::NotAllowed).with_text(why), out);
            }
            register::Request::Form => {
                self.frames.iq(out, "result", &id, |out| register::form().write(out, ns::CLIENT));
            }
            register::Request::Refused(error) => self.iq_error(&id, &error, out),
            register::Request::Submit(mut registration) => {
                let negotiation = self.negotiation();
                registration.token = negotiation.invitation.clone().filter(|_| negotiation.admitted);
                self.waits = Some(Wait::Register);
                self.events.push_back(Event::Register(registration));
            }
        }
        Ok(())
    }

    /// Answers [`Event::Invited`]: an error if the token is good for nothing.
    pub fn admitted(&mut self, outcome: Result<(), StanzaError>, out: &mut Vec<u8>) {
        if !self.answers(Wait::Invited) {
            return;
        }
        let negotiation = self.negotiation();
        let id = std::mem::take(&mut negotiation.iq);
        negotiation.admitted = outcome.is_ok();
        match outcome {
            Ok(()) => self.frames.iq(out, "result", &id, |_| {}),
            Err(error) => self.iq_error(&id, &error, out),
        }
    }

    /// Answers [`Event::Register`].
    pub fn registered(&mut self, outcome: Result<(), StanzaError>, out: &mut Vec<u8>) {
        if !self.answers(Wait::Register) {
            return;
        }
        let id = std::mem::take(&mut self.negotiation().iq);
        match outcome {
            Ok(()) => self.frames.iq(out, "result", &id, |_| {}),
            Err(error) => self.iq_error(&id, &error, out),
        }
    }

    pub(super) fn iq_error(&self, id: &str, error: &StanzaError, out: &mut Vec<u8>) {
        self.frames.iq(out, "error", id, |out| error.to_element().write(out, ns::CLIENT));
    }
}

/// White space that a client may have ended an element with.
pub(super) fn is_space(input: &[u8]) -> bool {
    const SPACE_MAX: usize = 8;
    input.len() <= SPACE_MAX && input.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
}
