//! A stream that we opened: the initiating server's side, and the receiving server's when it asks for a verdict.

use super::dialback::{self, Name, Verdict, What};
use super::marks::{self, Managing};
use super::{Pair, PeerCertificate, ServerConfig, peer_error};
use crate::config::{Framing, Tls};
use crate::crypto::Crypto;
use crate::frame::{Frames, check_header, default_lang};
use crate::management;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use xmpp::stanza::StanzaFault;
use xmpp::xml::{Frame, Header, Raw};
use xmpp::{Element, Stanza, StanzaCondition, StreamCondition, StreamFault, ns};

/// Questions of ours that are out at once on one stream, of either kind.
pub const QUESTIONS_MAX: usize = 64;

/// A key that a stream from elsewhere gave us, to be verified with those who should have made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// The pair that the key is for: from the other domain to ours.
    pub pair: Pair,
    /// Of the stream on which it was given.
    pub id: Box<str>,
    pub key: Box<str>,
}

/// What happened. Only `StartTls` holds the stream.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one event is there at a time, and most are stanzas")]
pub enum OutEvent {
    /// The peer said `<proceed/>`: do the handshake. *Answer*: `tls_up`.
    StartTls,
    /// Negotiated: `authenticate`, or `verify` without it.
    Ready,
    /// Stanzas of this pair are taken by the peer.
    Authenticated(Pair),
    /// They are not. The stream stays, for other pairs.
    Refused(Pair, StanzaCondition),
    /// The answer to `verify`.
    Verified(Verify, Verdict),
    /// On a stream that carries both directions: of the inverse of a pair of ours.
    Stanza(Stanza),
    BadStanza(Box<StanzaFault>),
    /// `<enabled/>`, the answer to `enable`: what comes from now on counts. With an id the stream can be resumed, for
    /// `max` seconds if it says so.
    Enabled {
        id: Option<Box<str>>,
        max: Option<u32>,
    },
    /// `<resumed/>`: so many were handled.
    Resumed(u32),
    /// Not enabled, or not resumed; then perhaps with the number of those that were handled.
    NotManaged(Option<u32>),
    Managing(Managing),
    PeerError(Box<str>),
    Closed,
}

/// Our stream to another server.
pub struct OutgoingStream {
    config: Arc<ServerConfig>,
    crypto: Arc<dyn Crypto>,
    /// What the header says.
    pair: Pair,
    /// The peer's certificate must prove that it is `pair.to`.
    strict: bool,
    frames: Frames,
    stage: Stage,
    waits_for_tls: bool,
    events: VecDeque<OutEvent>,
    fault: Option<StreamFault>,
    encrypted: bool,
    certificate: Option<PeerCertificate>,
    /// Of the peer's header.
    id: String,
    /// The peer's default `xml:lang`, where it is not ours.
    lang: Option<Box<str>>,
    /// The peer's header declares dialback.
    speaks_dialback: bool,
    offer: Offer,
    /// Pairs whose keys are being judged.
    asked: Vec<Pair>,
    verifying: Vec<Verify>,
    pairs: BTreeSet<Pair>,
    bidi: bool,
    /// EXTERNAL was tried, and failed.
    external_failed: bool,
    managed: Managed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Begin,
    Header,
    Features,
    /// `<starttls/>` is out.
    Tls,
    /// EXTERNAL is out.
    Sasl,
    Open,
    Ended,
}

/// What the peer's last features offer.
#[derive(Debug, Clone, Copy, Default)]
pub struct Offer {
    pub starttls: bool,
    pub external: bool,
    pub dialback: bool,
    /// By a feature, not only by the header.
    pub dialback_told: bool,
    pub dialback_errors: bool,
    pub bidi: bool,
    /// XEP-0198.
    pub management: bool,
    /// Messages are known by their marks.
    pub marks: bool,
}

/// Stream management, XEP-0198 §3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Managed {
    No,
    /// `<enable/>` or `<resume/>` is out.
    Asked,
    Yes,
}

impl OutgoingStream {
    /// `strict`: only a certificate that proves the peer's domain will do. Call `start` next.
    pub fn new(config: Arc<ServerConfig>, crypto: Arc<dyn Crypto>, pair: Pair, strict: bool) -> OutgoingStream {
        let frames = Frames::new(Framing::Tcp, config.limits_before_auth.clone(), ns::SERVER);
        OutgoingStream {
            config,
            crypto,
            pair,
            strict,
            frames,
            stage: Stage::Begin,
            waits_for_tls: false,
            events: VecDeque::new(),
            fault: None,
            encrypted: false,
            certificate: None,
            id: String::new(),
            lang: None,
            speaks_dialback: false,
            offer: Offer::default(),
            asked: Vec::new(),
            verifying: Vec::new(),
            pairs: BTreeSet::new(),
            bidi: false,
            external_failed: false,
            managed: Managed::No,
        }
    }

    /// Says the header. With direct TLS, `tls_up` comes before it.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        self.frames.initiate(out, &self.pair.from, &self.pair.to, &self.config.lang);
        self.stage = Stage::Header;
    }

    /// The next event out of `input`; what is to be written is appended to `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to `fail`. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<OutEvent>, StreamFault> {
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
            let taken = match self.waits_for_tls {
                // What was sent in clear must not be read as if it had come encrypted. RFC 6120 §5.4.3.3.
                true if !input.is_empty() => Err(StreamFault::PlaintextBehindStartTls),
                true => return Ok(None),
                false => self.frames.next(input),
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

    fn take(&mut self, frame: Frame, input: &[u8], out: &mut Vec<u8>) -> Result<Option<OutEvent>, StreamFault> {
        match (frame, self.stage) {
            (Frame::Close, _) => {
                self.stage = Stage::Ended;
                Ok(Some(OutEvent::Closed))
            }
            (Frame::Element(raw), _) if raw.ns() == ns::STREAM && raw.name() == "error" => {
                Ok(Some(OutEvent::PeerError(peer_error(&raw))))
            }
            (Frame::Header(header), Stage::Header) => self.header(&header).map(|()| None),
            (Frame::Element(raw), Stage::Features) => self.features(&raw, out).map(|()| None),
            (Frame::Element(raw), Stage::Tls) => self.proceeds(&raw, input),
            (Frame::Element(raw), Stage::Sasl) => self.sasl(&raw, out),
            (Frame::Element(raw), Stage::Open) => self.element(raw),
            (Frame::Header(_) | Frame::Element(_), _) => {
                Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is not where this may come."))
            }
        }
    }

    fn header(&mut self, header: &Header) -> Result<(), StreamFault> {
        check_header(header, ns::SERVER)?;
        self.id = header
            .id
            .clone()
            .filter(|id| !id.is_empty())
            .ok_or(StreamFault::Other(StreamCondition::BadFormat, "The answer to a stream header needs an id."))?;
        self.speaks_dialback = header.prefixes.iter().any(|(_, ns)| ns == dialback::NS);
        self.lang = default_lang(header).filter(|lang| !lang.eq_ignore_ascii_case(&self.config.lang));
        self.stage = Stage::Features;
        Ok(())
    }

    fn features(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if raw.ns() != ns::STREAM || raw.name() != "features" {
            return Err(StreamFault::UnsupportedStanzaType(raw.name().into()));
        }
        let features = raw.to_element();
        let dialback = features.find("dialback", dialback::FEATURE_NS);
        self.offer = Offer {
            starttls: features.find("starttls", ns::TLS).is_some(),
            external: features.find("mechanisms", ns::SASL).is_some_and(has_external),
            dialback: dialback.is_some() || self.speaks_dialback,
            dialback_told: dialback.is_some(),
            dialback_errors: dialback.is_some_and(|it| it.find("errors", dialback::FEATURE_NS).is_some()),
            bidi: features.find("bidi", "urn:xmpp:features:bidi").is_some(),
            management: features.find("sm", xmpp::ns::SM).is_some(),
            marks: features.find("marks", marks::NS).is_some(),
        };
        if !self.encrypted {
            if self.offer.starttls && self.config.tls != Tls::Absent {
                out.extend_from_slice(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
                self.stage = Stage::Tls;
                return Ok(());
            }
            if self.config.tls == Tls::Required {
                return Err(StreamFault::TlsRequired);
            }
        }
        if self.strict && !self.is_certified() {
            return Err(StreamFault::Other(
                StreamCondition::PolicyViolation,
                "The certificate does not prove the domain.",
            ));
        }
        self.stage = Stage::Open;
        match self.pairs.contains(&self.pair) {
            // Behind EXTERNAL's success.
            true => self.events.push_back(OutEvent::Authenticated(self.pair.clone())),
            false => {
                if self.offer.bidi && self.config.bidi {
                    out.extend_from_slice(b"<bidi xmlns='urn:xmpp:bidi'/>");
                    self.bidi = true;
                }
                self.events.push_back(OutEvent::Ready);
            }
        }
        Ok(())
    }

    fn proceeds(&mut self, raw: &Raw, input: &[u8]) -> Result<Option<OutEvent>, StreamFault> {
        match (raw.ns(), raw.name()) {
            (ns::TLS, "proceed") if !input.is_empty() => Err(StreamFault::PlaintextBehindStartTls),
            (ns::TLS, "proceed") => {
                self.waits_for_tls = true;
                Ok(Some(OutEvent::StartTls))
            }
            (ns::TLS, "failure") => Err(StreamFault::TlsRequired),
            (_, other) => Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
    }

    /// Answers [`OutEvent::StartTls`], and says the header again; or, with direct TLS, comes before `start`.
    pub fn tls_up(&mut self, certificate: Option<PeerCertificate>, out: &mut Vec<u8>) {
        self.encrypted = true;
        self.certificate = certificate;
        if std::mem::take(&mut self.waits_for_tls) {
            self.frames.restart();
            self.start(out);
        }
    }

    /// Proves the header's pair, as the peer offers: by certificate, else by dialback. `Authenticated` or `Refused`
    /// will come.
    pub fn authenticate(&mut self, out: &mut Vec<u8>) {
        if self.stage != Stage::Open || self.pairs.contains(&self.pair) {
            return;
        }
        // A restart would forget what was asked, so questions go first.
        if self.offer.external && !self.external_failed && self.asked.is_empty() && self.verifying.is_empty() {
            out.extend_from_slice(b"<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>");
            out.extend_from_slice(STANDARD.encode(&*self.pair.from).as_bytes());
            out.extend_from_slice(b"</auth>");
            self.stage = Stage::Sasl;
            return;
        }
        self.prove(self.pair.clone(), out);
    }

    /// The same for another pair, by dialback. XEP-0220 §2.6.
    pub fn prove(&mut self, pair: Pair, out: &mut Vec<u8>) {
        if self.stage != Stage::Open || self.pairs.contains(&pair) || self.asked.contains(&pair) {
            return;
        }
        if !self.offer.dialback || !self.config.dialback {
            self.events.push_back(OutEvent::Refused(pair, StanzaCondition::NotAuthorized));
            return;
        }
        if self.asked.len() >= QUESTIONS_MAX {
            self.events.push_back(OutEvent::Refused(pair, StanzaCondition::ResourceConstraint));
            return;
        }
        let key = dialback::key(&*self.crypto, &self.config.secret, &pair, &self.id);
        dialback::write_result(out, &pair, &key);
        self.asked.push(pair);
    }

    /// Asks whether a key is theirs. `Verified` will come.
    pub fn verify(&mut self, verify: Verify, out: &mut Vec<u8>) {
        if self.stage != Stage::Open || self.verifying.len() >= QUESTIONS_MAX {
            let verdict = Verdict::Error(StanzaCondition::ResourceConstraint);
            self.events.push_back(OutEvent::Verified(verify, verdict));
            return;
        }
        dialback::write_verify(out, &verify.pair.inverse(), &verify.id, &verify.key);
        self.verifying.push(verify);
    }

    fn sasl(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<Option<OutEvent>, StreamFault> {
        match (raw.ns(), raw.name()) {
            (ns::SASL, "success") => {
                self.frames.restart();
                self.pairs.insert(self.pair.clone());
                self.frames.set_limits(self.config.limits_after_auth.clone());
                self.start(out);
                Ok(None)
            }
            (ns::SASL, "challenge") => {
                out.extend_from_slice(b"<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</response>");
                Ok(None)
            }
            (ns::SASL, "failure") => {
                self.external_failed = true;
                self.stage = Stage::Open;
                self.prove(self.pair.clone(), out);
                Ok(None)
            }
            (dialback::NS, _) => self.said(raw),
            (_, other) => Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
    }

    fn element(&mut self, raw: Raw) -> Result<Option<OutEvent>, StreamFault> {
        if Stanza::kind_of(&raw).is_some() {
            if !self.bidi || self.pairs.is_empty() {
                return Err(StreamFault::StanzaBeforeAuth);
            }
            let back: Vec<Pair> = self.pairs.iter().map(Pair::inverse).collect();
            return Ok(Some(match super::stanza(raw, &back, self.lang.as_deref())? {
                Ok(stanza) => OutEvent::Stanza(stanza),
                Err(fault) => OutEvent::BadStanza(fault),
            }));
        }
        if let Some(managing) = marks::read(&raw, self.managed == Managed::Yes)? {
            return Ok(Some(OutEvent::Managing(managing)));
        }
        match (raw.ns(), raw.name()) {
            (dialback::NS, _) => self.said(&raw),
            (management::NS, "enabled" | "resumed" | "failed") if self.managed == Managed::Asked => {
                self.answered(&raw).map(Some)
            }
            (_, other) => Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
    }

    /// XEP-0198 §3, §5.
    fn answered(&mut self, raw: &Raw) -> Result<OutEvent, StreamFault> {
        self.managed = Managed::Yes;
        let number = |name| raw.attribute(name).and_then(|value| value.parse().ok());
        Ok(match raw.name() {
            "enabled" => {
                let resumable = raw.attribute("resume").is_some_and(|value| management::boolean(&value));
                let id = raw.attribute("id").filter(|id| resumable && !id.is_empty());
                OutEvent::Enabled { id: id.map(|id| id.into_owned().into()), max: number("max") }
            }
            "resumed" => OutEvent::Resumed(management::handled(raw)?),
            _ => {
                self.managed = Managed::No;
                OutEvent::NotManaged(number("h"))
            }
        })
    }

    /// Asks for acknowledgements, where the peer has them; `false`: it has not. What is sent from now on counts.
    pub fn enable(&mut self, out: &mut Vec<u8>) -> bool {
        let may = self.may_manage();
        if may {
            marks::write_enable(out);
            self.managed = Managed::Asked;
        }
        may
    }

    /// Goes on with an earlier stream, of which `h` stanzas were handled here. XEP-0198 §5.
    pub fn resume(&mut self, id: &str, h: u32, out: &mut Vec<u8>) -> bool {
        let may = self.may_manage();
        if may {
            marks::write_resume(out, id, h);
            self.managed = Managed::Asked;
        }
        may
    }

    fn may_manage(&self) -> bool {
        let offered = self.offer.management && self.config.management;
        offered && self.managed == Managed::No && self.stage == Stage::Open && !self.pairs.is_empty()
    }

    /// Does the peer know messages by their marks?
    pub fn takes_marks(&self) -> bool {
        self.offer.marks
    }

    /// Only answers, and only to what was asked on this stream. LIMITS.md §2 row 20.
    fn said(&mut self, raw: &Raw) -> Result<Option<OutEvent>, StreamFault> {
        let said = dialback::read(raw)?;
        let asked = said.pair.inverse();
        match (said.name, said.what) {
            (Name::Result, What::Answer(verdict)) => {
                let at = self.asked.iter().position(|pair| *pair == asked).ok_or_else(dialback::unsolicited)?;
                self.asked.swap_remove(at);
                Ok(Some(match verdict {
                    Verdict::Valid => {
                        self.frames.set_limits(self.config.limits_after_auth.clone());
                        self.pairs.insert(asked.clone());
                        OutEvent::Authenticated(asked)
                    }
                    Verdict::Invalid => OutEvent::Refused(asked, StanzaCondition::NotAuthorized),
                    Verdict::Error(condition) => OutEvent::Refused(asked, condition),
                }))
            }
            (Name::Verify, What::Answer(verdict)) => {
                let back = &said.pair;
                let at = self
                    .verifying
                    .iter()
                    .position(|verify| verify.pair == *back && *verify.id == *said.id)
                    .ok_or_else(dialback::unsolicited)?;
                Ok(Some(OutEvent::Verified(self.verifying.swap_remove(at), verdict)))
            }
            // On a stream with both directions the peer may prove further pairs; we take them on streams of its own.
            (_, What::Key(_)) => Err(dialback::unsolicited()),
        }
    }

    /// Ends the stream with an error and the close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) {
        if !self.waits_for_tls {
            self.frames.end(out, Some(fault));
        }
        self.end();
    }

    /// `</stream:stream>`, once.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if !self.waits_for_tls {
            self.frames.end(out, None);
        }
        self.end();
    }

    /// The same, and what the peer says before its own close tag is still taken. RFC 6120 §4.4.
    pub fn say_close(&mut self, out: &mut Vec<u8>) {
        if !self.waits_for_tls {
            self.frames.end(out, None);
        }
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.events.clear();
    }

    pub fn offer(&self) -> Offer {
        self.offer
    }

    /// EXTERNAL was tried, and refused.
    pub fn external_failed(&self) -> bool {
        self.external_failed
    }

    pub fn is_waiting(&self) -> bool {
        self.waits_for_tls
    }

    pub fn is_authenticated(&self, pair: &Pair) -> bool {
        self.pairs.contains(pair)
    }

    /// Is it negotiated so far that `authenticate` and `verify` do something?
    pub fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// Does the peer's certificate prove its domain?
    pub fn is_certified(&self) -> bool {
        self.certificate.as_ref().is_some_and(|certificate| certificate.speaks_for(&self.pair.to))
    }

    pub fn is_bidirectional(&self) -> bool {
        self.bidi && !self.pairs.is_empty()
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    /// May further domains of ours be proved here? XEP-0220 §2.6.1.
    pub fn takes_more_senders(&self) -> bool {
        // That its header declares the namespace says little: ejabberd's does, and answers no key.
        self.offer.dialback_told && self.config.dialback
    }

    /// May further target domains be proved here? XEP-0220 §2.6.2.
    pub fn takes_more_targets(&self) -> bool {
        self.offer.dialback_errors
    }

    /// Questions of ours without an answer.
    pub fn questions(&self) -> usize {
        self.asked.len() + self.verifying.len()
    }
}

fn has_external(mechanisms: &Element) -> bool {
    mechanisms.elements().any(|it| &*it.name == "mechanism" && it.text_content().trim() == "EXTERNAL")
}
