//! A stream that another server opened: the receiving server's side, and the authoritative server's.
//!
//! It is authenticated for exactly the pairs that were verified, by SASL EXTERNAL or by dialback, and takes stanzas of
//! no others. LIMITS.md §2 rows 7 and 20.

use super::dialback::{self, Name, Verdict, What};
use super::marks::{self, Managing};
use super::{BIDI, BIDI_FEATURE, Pair, PeerCertificate, ServerConfig, peer_error};
use crate::config::{Framing, Tls};
use crate::crypto::Crypto;
use crate::event::{Managed, ResumeRequest};
use crate::frame::{FEATURES_END, Frames, Said, check_header, default_lang};
use crate::management;
use crate::sasl::Condition;
use crate::sasl::wire::{Profile, success};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use xmpp::stanza::StanzaFault;
use xmpp::xml::{Frame, Header, Raw};
use xmpp::{Stanza, StanzaCondition, StreamCondition, StreamFault, ns};

/// Keys of one stream that are being verified at once. LIMITS.md §1.
pub const VERIFICATIONS_MAX: usize = 8;
/// Pairs of one stream.
pub const PAIRS_MAX: usize = 1_000;
/// Failed attempts at SASL; dialback may follow them.
const AUTH_ATTEMPTS_MAX: u8 = 3;

/// What happened, or what the stream must be told. Those that say *answer* by `StartTls`, `External`, `Manage` and
/// `Resume` hold the stream; `Dialback` does not: several may be out.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one event is there at a time, and most are stanzas")]
pub enum InEvent {
    /// `<proceed/>` is in `out`: write it, then do the handshake. *Answer*: `tls_up`.
    StartTls,
    /// The certificate proves the pair. *Answer*: `external`, whether policy allows it.
    External(Pair),
    /// A key to verify with the authoritative server of `pair.from`, unless `certified`: then the certificate has
    /// proved it already and only policy is to be asked. *Answer*, whenever it comes: `dialback`.
    Dialback {
        pair: Pair,
        key: Box<str>,
        id: Box<str>,
        certified: bool,
    },
    /// The stream speaks for this pair from now on.
    Authenticated(Pair),
    /// Of a verified pair.
    Stanza(Stanza),
    /// Of a verified pair, but wrong: answer its sender.
    BadStanza(Box<StanzaFault>),
    /// Stanzas are to be acknowledged. *Answer*: `managed`. They count from here.
    Manage {
        resume: bool,
    },
    /// An earlier stream is to go on. *Answer*: `resumed` or `resume_refused`.
    Resume(ResumeRequest),
    Managing(Managing),
    /// The peer's stream error. `Closed` follows, or the end of the connection.
    PeerError(Box<str>),
    /// `</stream:stream>`: `close`. Nothing comes after it.
    Closed,
}

/// Another server's stream, from its first byte to the close tag.
pub struct IncomingStream {
    config: Arc<ServerConfig>,
    crypto: Arc<dyn Crypto>,
    frames: Frames,
    stage: Stage,
    waits: Option<Wait>,
    events: VecDeque<InEvent>,
    fault: Option<StreamFault>,
    encrypted: bool,
    certificate: Option<PeerCertificate>,
    /// Of our header; dialback keys are about it.
    id: String,
    /// The peer's default `xml:lang`, where it is not ours.
    lang: Option<Box<str>>,
    /// Who the header says it is; not believed.
    from: Option<Box<str>>,
    to: Option<Box<str>>,
    pairs: BTreeSet<Pair>,
    /// Keys that are being verified.
    asked: Vec<Pair>,
    failures: u8,
    /// EXTERNAL without an initial response was challenged.
    challenged: bool,
    external: Option<Pair>,
    bidi: bool,
    managed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Open,
    Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    StartTls,
    External,
    Manage,
}

impl IncomingStream {
    pub fn new(config: Arc<ServerConfig>, crypto: Arc<dyn Crypto>) -> IncomingStream {
        let frames = Frames::new(Framing::Tcp, config.limits_before_auth.clone(), ns::SERVER);
        IncomingStream {
            config,
            crypto,
            frames,
            stage: Stage::Header,
            waits: None,
            events: VecDeque::new(),
            fault: None,
            encrypted: false,
            certificate: None,
            id: String::new(),
            lang: None,
            from: None,
            to: None,
            pairs: BTreeSet::new(),
            asked: Vec::new(),
            failures: 0,
            challenged: false,
            external: None,
            bidi: false,
            managed: false,
        }
    }

    /// The next event out of `input`; what is to be written is appended to `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to `fail`. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<InEvent>, StreamFault> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            if self.stage == Stage::Ended {
                *input = &[];
                return Ok(None);
            }
            let taken = match self.waits {
                Some(Wait::StartTls) if !input.is_empty() => Err(StreamFault::PlaintextBehindStartTls),
                Some(_) => return Ok(None),
                None => self.frames.next(input),
            };
            let taken = match taken {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => self.take(frame, input, out),
                Err(fault) => Err(fault),
            };
            match taken {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    fn take(&mut self, frame: Frame, input: &[u8], out: &mut Vec<u8>) -> Result<Option<InEvent>, StreamFault> {
        match (frame, self.stage) {
            (Frame::Element(raw), Stage::Open) => self.element(raw, input, out),
            (Frame::Header(header), Stage::Header) => self.header(header, out).map(|()| None),
            (Frame::Close, _) => {
                self.stage = Stage::Ended;
                Ok(Some(InEvent::Closed))
            }
            (Frame::Header(_) | Frame::Element(_), _) => {
                Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is not where this may come."))
            }
        }
    }

    /// RFC 6120 §4.7.
    fn header(&mut self, header: Header, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        check_header(&header, ns::SERVER)?;
        let prepare = |said: &Option<String>, fault: StreamFault| match said.as_deref().filter(|said| !said.is_empty())
        {
            None => Ok(None),
            Some(said) => xmpp::jid::prepare_domain(said).map(|domain| Some(Box::from(domain))).map_err(|_| fault),
        };
        let improper = StreamFault::Other(StreamCondition::ImproperAddressing, "The stream's 'from' is no domain.");
        let from: Option<Box<str>> = prepare(&header.from, improper)?;
        let to = prepare(&header.to, StreamFault::ToMalformed)?.ok_or_else(|| StreamFault::HostUnknown("".into()))?;
        if !self.config.hosts.contains(&to) {
            return Err(StreamFault::HostUnknown(to));
        }
        // Nobody else may say that it is us.
        if let Some(from) = from.as_ref().filter(|from| self.config.hosts.contains(*from)) {
            return Err(StreamFault::FromNotOurs(from.clone()));
        }
        // After SASL the same pair speaks on.
        if let Some(pair) = &self.external
            && (from.as_ref() != Some(&pair.from) || to != pair.to)
        {
            return Err(StreamFault::FromNotOurs(from.unwrap_or_default()));
        }
        self.lang = default_lang(&header).filter(|lang| !lang.eq_ignore_ascii_case(&self.config.lang));
        self.from = from;
        self.to = Some(to);
        self.open(out);
        self.stage = Stage::Open;
        self.features(out);
        Ok(())
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        let said = Said {
            from: self.to.as_deref().unwrap_or_default(),
            to: self.from.as_deref(),
            version: true,
            lang: &self.config.lang,
        };
        self.id = self.frames.open(out, &*self.crypto, ns::SERVER, &said);
    }

    /// XEP-0178 §3 step 9, XEP-0220 §2.4, XEP-0288 §2.1.
    fn features(&self, out: &mut Vec<u8>) {
        self.frames.begin_features(out);
        match self.config.tls {
            Tls::Required if !self.encrypted => {
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>");
            }
            Tls::Optional if !self.encrypted => {
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            }
            Tls::Required | Tls::Optional | Tls::Direct | Tls::Absent => {}
        }
        if self.may_authenticate() {
            if self.offers_external() {
                out.extend_from_slice(
                    b"<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>",
                );
            }
            if self.config.bidi && !self.bidi && self.pairs.is_empty() {
                out.extend_from_slice(BIDI_FEATURE);
            }
            if self.config.dialback {
                out.extend_from_slice(dialback::FEATURE);
            }
            // Behind dialback no features come again, so these are told now.
            if self.config.management {
                out.extend_from_slice(management::FEATURE);
                out.extend_from_slice(marks::FEATURE);
            }
        }
        out.extend_from_slice(FEATURES_END);
    }

    /// While TLS is required nothing else is to be had. RFC 6120 §5.4.1.
    fn may_authenticate(&self) -> bool {
        self.encrypted || self.config.tls != Tls::Required
    }

    fn offers_external(&self) -> bool {
        self.pairs.is_empty() && self.from.as_deref().is_some_and(|from| self.is_certified(from))
    }

    /// Does the peer's certificate prove this domain?
    pub fn is_certified(&self, domain: &str) -> bool {
        self.certificate.as_ref().is_some_and(|certificate| certificate.speaks_for(domain))
    }

    fn element(&mut self, raw: Raw, input: &[u8], out: &mut Vec<u8>) -> Result<Option<InEvent>, StreamFault> {
        if Stanza::kind_of(&raw).is_some() {
            if self.pairs.is_empty() {
                return Err(StreamFault::StanzaBeforeAuth);
            }
            return Ok(Some(match super::stanza(raw, &self.pairs, self.lang.as_deref())? {
                Ok(stanza) => InEvent::Stanza(stanza),
                Err(fault) => InEvent::BadStanza(fault),
            }));
        }
        if !self.pairs.is_empty()
            && let Some(managing) = marks::read(&raw, self.managed)?
        {
            return Ok(Some(InEvent::Managing(managing)));
        }
        match (raw.ns(), raw.name()) {
            (management::NS, "enable" | "resume") if self.config.management => self.manages(&raw, out),
            (ns::TLS, "starttls") => self.start_tls(input, out)?,
            (ns::SASL, "auth" | "response" | "abort") => self.sasl(&raw, out)?,
            (dialback::NS, _) if self.config.dialback => return self.said(&raw, out),
            (BIDI, "bidi") if self.config.bidi && self.may_authenticate() && self.pairs.is_empty() => self.bidi = true,
            (ns::STREAM, "error") => return Ok(Some(InEvent::PeerError(peer_error(&raw)))),
            (_, other) if self.pairs.is_empty() => {
                return Err(StreamFault::UnsupportedStanzaType(other.into()));
            }
            (_, other) => return Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
        Ok(None)
    }

    /// XEP-0198 §3, §5: once, and not before authentication.
    fn manages(&mut self, raw: &Raw, out: &mut Vec<u8>) {
        let attribute = |name: &str| raw.attribute(name).map(|value| value.into_owned());
        let event = match raw.name() {
            "enable" => Some(InEvent::Manage { resume: management::enable(attribute).resume }),
            _ => management::resume(attribute).map(InEvent::Resume),
        };
        match event.filter(|_| !self.managed && !self.pairs.is_empty()) {
            Some(event) => {
                self.waits = Some(Wait::Manage);
                self.events.push_back(event);
            }
            None => management::write_failed(out, StanzaCondition::UnexpectedRequest, None),
        }
    }

    /// Answers [`InEvent::Manage`].
    pub fn managed(&mut self, managed: &Managed, out: &mut Vec<u8>) {
        if self.waits == Some(Wait::Manage) {
            self.waits = None;
            self.managed = true;
            management::write_enabled(out, managed);
        }
    }

    /// Answers [`InEvent::Resume`]: so many were handled.
    pub fn resumed(&mut self, id: &str, h: u32, out: &mut Vec<u8>) {
        if self.waits == Some(Wait::Manage) {
            self.waits = None;
            self.managed = true;
            management::write_resumed(out, id, h);
        }
    }

    /// Answers [`InEvent::Resume`]: it is not known, or over; then `h` were handled.
    pub fn resume_refused(&mut self, h: Option<u32>, out: &mut Vec<u8>) {
        if self.waits == Some(Wait::Manage) {
            self.waits = None;
            management::write_failed(out, StanzaCondition::ItemNotFound, h);
        }
    }

    /// RFC 6120 §5.4.2.
    fn start_tls(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.encrypted || !matches!(self.config.tls, Tls::Required | Tls::Optional) || !self.pairs.is_empty() {
            out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "STARTTLS was not offered."));
        }
        if !input.is_empty() || self.frames.is_mid_frame() {
            return Err(StreamFault::PlaintextBehindStartTls);
        }
        out.extend_from_slice(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        self.waits = Some(Wait::StartTls);
        self.events.push_back(InEvent::StartTls);
        Ok(())
    }

    /// Answers [`InEvent::StartTls`]; or, with `Tls::Direct`, comes before the first `next`.
    pub fn tls_up(&mut self, certificate: Option<PeerCertificate>) {
        self.waits = None;
        if self.stage != Stage::Header {
            self.frames.restart();
        }
        // What was said in clear is forgotten. RFC 6120 §5.4.3.3.
        self.stage = Stage::Header;
        self.from = None;
        self.asked.clear();
        self.bidi = false;
        self.encrypted = true;
        self.certificate = certificate;
    }

    /// RFC 6120 §6, XEP-0178 §3.
    fn sasl(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let refuse = |this: &mut IncomingStream, out: &mut Vec<u8>, condition| {
            Profile::Sasl.failure(out, condition, None);
            this.challenged = false;
            this.failures += 1;
            if this.failures >= AUTH_ATTEMPTS_MAX { Err(StreamFault::TooManyAuthFailures) } else { Ok(()) }
        };
        let response = match raw.name() {
            "auth" if self.pairs.is_empty() && !self.challenged => {
                if raw.attribute("mechanism").as_deref() != Some("EXTERNAL") || !self.offers_external() {
                    return refuse(self, out, Condition::InvalidMechanism);
                }
                let text = raw.to_element().text_content();
                if text.is_empty() {
                    self.challenged = true;
                    Profile::Sasl.challenge(out, b"");
                    return Ok(());
                }
                text
            }
            "response" if self.challenged => raw.to_element().text_content(),
            "abort" if self.challenged => return refuse(self, out, Condition::Aborted),
            _ => return Err(StreamFault::StanzaBeforeAuth),
        };
        let authzid = match Profile::Sasl.decode(&response) {
            Ok(bytes) => bytes,
            Err(condition) => return refuse(self, out, condition),
        };
        let (Some(from), Some(to)) = (self.from.clone(), self.to.clone()) else {
            return refuse(self, out, Condition::NotAuthorized);
        };
        let is_own = authzid.is_empty()
            || std::str::from_utf8(&authzid)
                .is_ok_and(|said| xmpp::jid::prepare_domain(said).is_ok_and(|said| *said == *from));
        if !is_own {
            return refuse(self, out, Condition::InvalidAuthzid);
        }
        self.challenged = false;
        let pair = Pair { from, to };
        self.external = Some(pair.clone());
        self.waits = Some(Wait::External);
        self.events.push_back(InEvent::External(pair));
        Ok(())
    }

    /// Answers [`InEvent::External`].
    pub fn external(&mut self, allowed: bool, out: &mut Vec<u8>) {
        if self.waits != Some(Wait::External) || self.stage == Stage::Ended {
            return;
        }
        self.waits = None;
        let Some(pair) = self.external.clone() else { return };
        if !allowed {
            self.external = None;
            Profile::Sasl.failure(out, Condition::NotAuthorized, None);
            self.fault = Some(StreamFault::Other(StreamCondition::PolicyViolation, "This domain is not served."));
            return;
        }
        success(out, None);
        self.frames.restart();
        self.stage = Stage::Header;
        self.add(pair);
    }

    fn add(&mut self, pair: Pair) {
        self.frames.set_limits(self.config.limits_after_auth.clone());
        self.pairs.insert(pair.clone());
        self.events.push_back(InEvent::Authenticated(pair));
    }

    /// XEP-0220 §2.2, §2.3.
    fn said(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<Option<InEvent>, StreamFault> {
        let said = dialback::read(raw)?;
        let What::Key(key) = said.what else {
            // We ask nothing on a stream that the peer opened.
            return Err(dialback::unsolicited());
        };
        let back = said.pair.inverse();
        let id = (said.name == Name::Verify).then_some(said.id.as_str());
        let refused = if !self.may_authenticate() {
            Some(StanzaCondition::PolicyViolation)
        } else if !self.config.hosts.contains(&said.pair.to) {
            Some(StanzaCondition::ItemNotFound)
        } else {
            None
        };
        if let Some(condition) = refused {
            dialback::write_answer(out, said.name, &back, id, Verdict::Error(condition));
            return Ok(None);
        }
        match said.name {
            Name::Verify => {
                // The key was given by us to the server that asks, if it is ours at all.
                let ours = dialback::key(&*self.crypto, &self.config.secret, &back, &said.id);
                let same = self.crypto.eq_constant_time(ours.as_bytes(), key.as_bytes());
                let verdict = if same { Verdict::Valid } else { Verdict::Invalid };
                dialback::write_answer(out, Name::Verify, &back, id, verdict);
                Ok(None)
            }
            Name::Result => self.asks_for(said.pair, key, out),
        }
    }

    fn asks_for(&mut self, pair: Pair, key: String, out: &mut Vec<u8>) -> Result<Option<InEvent>, StreamFault> {
        let refused = if self.pairs.contains(&pair) {
            Some(Verdict::Valid)
        } else if self.config.hosts.contains(&pair.from) {
            Some(Verdict::Error(StanzaCondition::NotAcceptable))
        } else if self.asked.len() >= VERIFICATIONS_MAX || self.pairs.len() >= PAIRS_MAX || self.asked.contains(&pair) {
            Some(Verdict::Error(StanzaCondition::ResourceConstraint))
        } else {
            None
        };
        if let Some(verdict) = refused {
            dialback::write_answer(out, Name::Result, &pair.inverse(), None, verdict);
            return Ok(None);
        }
        self.asked.push(pair.clone());
        let certified = self.is_certified(&pair.from);
        Ok(Some(InEvent::Dialback { pair, key: key.into(), id: self.id.as_str().into(), certified }))
    }

    /// Answers [`InEvent::Dialback`]. Says whether anybody still waited for it: an answer to what was never asked, or
    /// was asked before TLS, changes nothing.
    pub fn dialback(&mut self, pair: &Pair, verdict: Verdict, out: &mut Vec<u8>) -> bool {
        let Some(at) = self.asked.iter().position(|asked| asked == pair) else { return false };
        if self.stage == Stage::Ended || self.fault.is_some() {
            return false;
        }
        self.asked.swap_remove(at);
        dialback::write_answer(out, Name::Result, &pair.inverse(), None, verdict);
        if verdict == Verdict::Valid {
            self.add(pair.clone());
        }
        true
    }

    /// Ends the stream with an error: our header if none was sent, the error, the close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) {
        if self.may_write() {
            if !self.frames.opened {
                self.open(out);
            }
            self.frames.end(out, Some(fault));
        }
        self.end();
    }

    /// `</stream:stream>`, once.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.may_write() {
            self.frames.end(out, None);
        }
        self.end();
    }

    fn may_write(&self) -> bool {
        self.waits != Some(Wait::StartTls) && !self.frames.closed
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.events.clear();
    }

    /// Is an answer awaited that holds the stream?
    pub fn is_waiting(&self) -> bool {
        self.waits.is_some()
    }

    /// The host that the header named.
    pub fn host(&self) -> Option<&str> {
        self.to.as_deref()
    }

    /// Who the header says it is; not proved.
    pub fn claimed(&self) -> Option<&str> {
        self.from.as_deref()
    }

    /// What it speaks for.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.iter()
    }

    /// May stanzas go back on it, to the domains that it speaks for? XEP-0288.
    pub fn is_bidirectional(&self) -> bool {
        self.bidi && !self.pairs.is_empty()
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    pub fn verifications(&self) -> usize {
        self.asked.len()
    }
}
