//! A client's stream, seen from the server: the states between header and close. RFC 6120 §4 to §7.

use crate::config::{Config, HostAuth, Tls};
use crate::crypto::Crypto;
use crate::event::{
    Account, AuthFailed, Authenticated, BindRequest, Bound, Event, Lookup, Managed, ResumeRequest, TlsInfo,
};
use crate::features;
use crate::frame::{Frames, Said, check_header};
use crate::management::{self, Counting};
use crate::register;
use crate::sasl::offer::Offer;
use crate::sasl::request::{BIND2, CSI, FAST, Request, resource};
use crate::sasl::token::{self, TokenChange, TokenWishes};
use crate::sasl::wire::{self, Profile, SASL2};
use crate::sasl::{self, Condition, Context, Exchange, Mechanism, Step};
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::stanza::{IqType, StanzaType};
use xmpp::write::Wire;
use xmpp::xml::{Frame, Header, Raw, escape_text};
use xmpp::{
    BareJid, Element, FullJid, Jid, Stamp, Stanza, StanzaCondition, StanzaError, StreamCondition, StreamFault, ns,
};

/// Failed authentications a connection; the last is answered and ends it. RFC 6120 §6.4.5: 2 to 5 retries.
pub const AUTH_ATTEMPTS_MAX: u8 = 3;
/// Iqs about registration a connection. XEP-0077 §3.1.
pub const REGISTRATIONS_MAX: u8 = 10;
/// Bind requests a connection. RFC 6120 §7.7.
pub const BINDS_MAX: u8 = 5;

/// One client's stream, from the first byte to the close tag. RFC 6120.
///
/// Pull-style: the caller feeds bytes and takes events one at a time, so that it can await between them.
/// ```ignore
/// let mut input: &[u8] = &buf[..n];
/// loop {
///     match stream.next(&mut input, &mut out) {
///         Ok(Some(event)) => …,      // may await; then call the method that the event names
///         Ok(None) => break,         // all of `input` is taken, or an answer is awaited (`is_waiting`)
///         Err(fault) => { stream.fail(&fault, &mut out); … } // write `out`, close
///     }
/// }
/// ```
/// When an answer comes later than the loop (`is_waiting`), keep what is left of `input` and call `next` again after
/// the answer, even with nothing new: the answer may set off further events.
pub struct ClientStream {
    config: Arc<Config>,
    crypto: Arc<dyn Crypto>,
    frames: Frames,
    stage: Stage,
    waits: Option<Wait>,
    /// Events that wait for `next`.
    events: VecDeque<Event>,
    /// Given by `next` when the events are taken, again and again.
    fault: Option<StreamFault>,
    encrypted: bool,
    host: Option<Box<str>>,
    /// The client's default `xml:lang`, where it is not ours.
    lang: Option<Box<str>>,
    /// Who it is, once authenticated.
    account: Option<BareJid>,
    /// Once bound.
    jid: Option<FullJid>,
    /// What only matters until a resource is bound.
    negotiation: Option<Box<Negotiation>>,
    /// Stream management is on.
    counting: Option<Counting>,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A header.
    Header,
    /// STARTTLS, SASL, registration.
    Negotiating,
    /// Binding or resumption.
    Binding,
    /// Stanzas.
    Bound,
    /// Nothing.
    Ended,
}

/// The answer that is awaited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wait {
    StartTls,
    Lookup,
    Password,
    Token,
    Register,
    Bind,
    Resume,
    Manage,
}

#[derive(Default)]
struct Negotiation {
    tls: Option<TlsInfo>,
    /// The header's, if it was an address.
    from: Option<Jid>,
    /// The header said a version: ours may too. RFC 6120 §4.7.5.
    silent_version: bool,
    attempt: Option<Attempt>,
    failures: u8,
    registrations: u8,
    binds: u8,
    /// The id of the iq that is being answered.
    iq: Box<str>,
    /// Authenticated with SASL2, what was asked for inline is being done.
    inline: Option<Inline>,
}

/// One authentication, in either profile.
struct Attempt {
    profile: Profile,
    mechanism: Mechanism,
    exchange: Exchange,
    /// Empty with [`Profile::Sasl`].
    request: Request,
    disabled: bool,
    /// UTC, as of the lookup.
    now: Stamp,
}

/// What SASL2's success will tell. XEP-0388 §2.6.1.
#[derive(Default)]
struct Inline {
    additional: Option<Vec<u8>>,
    changes: VecDeque<TokenChange>,
    /// A new token and when it expires.
    token: Option<(String, Stamp)>,
    resume: Option<ResumeRequest>,
    resume_failed: Option<(StanzaCondition, Option<u32>)>,
    bind: Option<BindRequest>,
    manage_asked: bool,
}

impl ClientStream {
    pub fn new(config: Arc<Config>, crypto: Arc<dyn Crypto>) -> ClientStream {
        ClientStream {
            frames: Frames::new(config.framing, config.limits_before_auth.clone(), ns::CLIENT),
            config,
            crypto,
            stage: Stage::Header,
            waits: None,
            events: VecDeque::new(),
            fault: None,
            encrypted: false,
            host: None,
            lang: None,
            account: None,
            jid: None,
            negotiation: Some(Box::default()),
            counting: None,
        }
    }

    /// The next thing that happened. Takes bytes from the front of `input`; what is to be written is appended to
    /// `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to [`ClientStream::fail`]. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
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
                // What was sent in clear must not be read as if it had come encrypted. RFC 6120 §5.4.3.3.
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

    /// What a session's frame means is given at once, what a negotiation's means is queued.
    fn take(&mut self, frame: Frame, input: &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        match (frame, self.stage) {
            (Frame::Element(raw), Stage::Bound) => return self.in_session(raw, out),
            (Frame::Element(raw), Stage::Binding) => self.binding(&raw, out)?,
            (Frame::Element(raw), Stage::Negotiating) => self.negotiating(&raw, input, out)?,
            (Frame::Header(header), Stage::Header) => self.header(header, out)?,
            (Frame::Close, _) => {
                self.stage = Stage::Ended;
                return Ok(Some(Event::Closed));
            }
            // Only in a framed stream, RFC 7395 §3.4.
            (Frame::Header(_), _) => {
                return Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is open already."));
            }
            (Frame::Element(_), _) => {
                return Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is not open."));
            }
        }
        Ok(None)
    }
}

/// Headers and features.
impl ClientStream {
    /// RFC 6120 §4.7.
    fn header(&mut self, header: Header, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let from = header.from.as_deref().filter(|from| !from.is_empty()).map(Jid::parse);
        let negotiation = self.negotiation.get_or_insert_default();
        negotiation.from = from.as_ref().and_then(|from| from.as_ref().ok()).cloned();
        negotiation.silent_version = header.version.is_none();
        check_header(&header, ns::CLIENT)?;

        let host = self.served(header.to.as_deref())?;
        if let Some(Err(_)) = from {
            return Err(StreamFault::Other(StreamCondition::ImproperAddressing, "The stream's 'from' is no address."));
        }
        self.check_from(&host)?;
        let lang = header.lang.filter(|lang| !lang.is_empty() && !lang.eq_ignore_ascii_case(&self.config.lang));
        self.lang = lang.map(Into::into);
        self.host = Some(host);
        self.open(out);
        if self.account.is_none() {
            self.stage = Stage::Negotiating;
            features::before_auth(out, &self.frames, &self.config, self.policy(), &self.offer(), self.encrypted);
        } else {
            self.stage = Stage::Binding;
            features::after_auth(out, &self.frames, &self.config, true, false);
        }
        Ok(())
    }

    /// The host that a header's `to` names. RFC 6120 §4.7.2, §4.9.3.6.
    fn served(&self, to: Option<&str>) -> Result<Box<str>, StreamFault> {
        let host: Box<str> = match to.filter(|to| !to.is_empty()) {
            None => self.config.default_host.clone().ok_or_else(|| StreamFault::HostUnknown("".into()))?,
            Some(to) if self.config.hosts.contains_key(to) => to.into(),
            Some(to) => xmpp::jid::prepare_domain(to).map_err(|_| StreamFault::ToMalformed)?.into(),
        };
        match self.config.hosts.contains_key(&host) && self.account().is_none_or(|account| account.domain() == &*host) {
            true => Ok(host),
            false => Err(StreamFault::HostUnknown(host)),
        }
    }

    /// A client's `from` is an address at the host, and its own. RFC 6120 §4.9.3.9, XEP-0388 §2.1.
    fn check_from(&self, host: &str) -> Result<(), StreamFault> {
        let Some(from) = self.negotiation.as_ref().and_then(|negotiation| negotiation.from.as_ref()) else {
            return Ok(());
        };
        let other = from.domain() != host
            || self.account().is_some_and(|account| from.local().is_some() && !from.same_bare(account));
        if other { Err(StreamFault::FromNotOurs(from.as_str().into())) } else { Ok(()) }
    }

    /// Writes our header.
    fn open(&mut self, out: &mut Vec<u8>) {
        let negotiation = self.negotiation.as_deref();
        let to = negotiation.and_then(|negotiation| negotiation.from.as_ref()).map(Jid::bare_str);
        let said = Said {
            // RFC 6120 §4.9.1.3.
            from: self.host.as_deref().or(self.config.default_host.as_deref()).unwrap_or_default(),
            to,
            version: !negotiation.is_some_and(|negotiation| negotiation.silent_version),
            lang: &self.config.lang,
        };
        self.frames.open(out, &*self.crypto, ns::CLIENT, &said);
    }

    /// The policy of the stream's host.
    fn policy(&self) -> &HostAuth {
        self.host.as_ref().and_then(|host| self.config.hosts.get(host)).expect("a header has named one of our hosts")
    }

    fn offer(&self) -> Offer {
        Offer::new(self.policy(), self.config.tls, self.tls())
    }

    fn tls(&self) -> Option<&TlsInfo> {
        self.negotiation.as_ref().and_then(|negotiation| negotiation.tls.as_ref())
    }

    fn negotiation(&mut self) -> &mut Negotiation {
        self.negotiation.get_or_insert_default()
    }

    /// Is this the answer that is awaited? An answer to a stream that has ended comes too late and counts nothing.
    fn answers(&mut self, wait: Wait) -> bool {
        if self.stage == Stage::Ended || self.fault.is_some() {
            return false;
        }
        assert_eq!(self.waits.take(), Some(wait), "an answer is given once, to the event that asks for it");
        true
    }
}

/// Before authentication: STARTTLS and registration.
impl ClientStream {
    fn negotiating(&mut self, raw: &Raw, input: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        match (raw.ns(), raw.name()) {
            (ns::SASL, "auth" | "response" | "abort") | (SASL2, "authenticate" | "response" | "abort") => {
                self.sasl(raw, out)
            }
            // "Servers MUST disconnect clients immediately if any other traffic is received." XEP-0388 §2.4.
            _ if self.negotiation().attempt.is_some() => Err(StreamFault::StanzaBeforeAuth),
            (ns::TLS, "starttls") => self.start_tls(input, out),
            (ns::CLIENT, "iq") if features::registers(self.policy(), self.encrypted) => self.register(raw, out),
            // XEP-0198 §3.
            (management::NS, "enable" | "resume") => {
                management::write_failed(out, StanzaCondition::UnexpectedRequest, None);
                Ok(())
            }
            _ => Err(StreamFault::StanzaBeforeAuth),
        }
    }

    /// RFC 6120 §5.4.2.
    fn start_tls(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(), StreamFault> {
        if self.encrypted || !matches!(self.config.tls, Tls::Required | Tls::Optional) {
            out.extend_from_slice(b"<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "STARTTLS was not offered."));
        }
        if !input.is_empty() || self.frames.is_mid_frame() {
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

    fn register(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let iq = raw.to_element();
        let request = register::read(&iq, self.host().unwrap_or_default()).ok_or(StreamFault::StanzaBeforeAuth)?;
        let id = iq.attribute("id").unwrap_or_default().to_owned();
        let negotiation = self.negotiation();
        negotiation.registrations += 1;
        if negotiation.registrations > REGISTRATIONS_MAX {
            return Err(StreamFault::Other(StreamCondition::PolicyViolation, "Too many requests for registration."));
        }
        negotiation.iq = id.as_str().into();
        match request {
            register::Request::Form => {
                self.frames.iq(out, "result", &id, |out| register::form().write(out, ns::CLIENT));
            }
            register::Request::Refused(error) => self.iq_error(&id, &error, out),
            register::Request::Submit(registration) => {
                self.waits = Some(Wait::Register);
                self.events.push_back(Event::Register(registration));
            }
        }
        Ok(())
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

    fn iq_error(&self, id: &str, error: &StanzaError, out: &mut Vec<u8>) {
        self.frames.iq(out, "error", id, |out| error.to_element().write(out, ns::CLIENT));
    }
}

/// Authentication. RFC 6120 §6, XEP-0388.
impl ClientStream {
    fn sasl(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        let element = raw.to_element();
        let Some(profile) = Profile::of(raw.ns()) else {
            return Err(StreamFault::StanzaBeforeAuth);
        };
        let attempt = self.negotiation().attempt.take();
        if attempt.as_ref().is_some_and(|attempt| attempt.profile != profile) {
            return Err(StreamFault::StanzaBeforeAuth);
        }
        match (raw.name(), attempt) {
            ("auth", attempt) => {
                // A new handshake discards the one that is under way. RFC 6120 §6.4.2.
                if attempt.is_some() && self.count_failure() {
                    return Ok(());
                }
                self.auth(&element, out);
            }
            ("authenticate", None) => self.authenticate(&element, out),
            ("response", Some(mut attempt)) => {
                let decoded = profile.decode(&zeroize::Zeroizing::new(element.text_content()));
                let exchange = attempt.exchange.take();
                let step = match decoded {
                    Ok(message) => {
                        let offer = self.offer();
                        sasl::respond(exchange, &message, &self.context(&attempt.request, &offer))
                    }
                    Err(condition) => condition.into(),
                };
                self.stepped(attempt, step, out);
            }
            ("abort", attempt) => {
                self.failed(profile, attempt.map(|attempt| attempt.mechanism), Condition::Aborted, None, out);
            }
            // No handshake is under way.
            ("response", None) => self.failed(profile, None, Condition::MalformedRequest, None, out),
            // XEP-0388 §2.4.
            _ => return Err(StreamFault::UnsupportedStanzaType(raw.name().into())),
        }
        Ok(())
    }

    /// `<auth/>`, RFC 6120 §6.4.2.
    fn auth(&mut self, element: &Element, out: &mut Vec<u8>) {
        let text = zeroize::Zeroizing::new(element.text_content());
        let initial = if text.is_empty() { Ok(None) } else { Profile::Sasl.decode(&text).map(Some) };
        let mechanism = element.attribute("mechanism").unwrap_or_default().to_owned();
        match initial {
            Ok(initial) => {
                let request = Request { mechanism, initial, ..Request::default() };
                self.begin(Profile::Sasl, request, out);
            }
            Err(condition) => self.failed(Profile::Sasl, Mechanism::from_name(&mechanism), condition, None, out),
        }
    }

    /// `<authenticate/>`, XEP-0388 §2.3.
    fn authenticate(&mut self, element: &Element, out: &mut Vec<u8>) {
        match Request::read(element) {
            Ok(request) => self.begin(Profile::Sasl2, request, out),
            Err(condition) => self.failed(Profile::Sasl2, None, condition, None, out),
        }
    }

    fn begin(&mut self, profile: Profile, request: Request, out: &mut Vec<u8>) {
        let offer = self.offer();
        match self.pick(profile, &request, &offer) {
            Ok(mechanism) => {
                let step = {
                    let context = self.context(&request, &offer);
                    sasl::start(mechanism, request.initial.as_deref().map(Vec::as_slice), &context)
                };
                let attempt = Attempt {
                    profile,
                    mechanism,
                    exchange: Exchange::Initial(mechanism),
                    request,
                    disabled: false,
                    now: Stamp::default(),
                };
                self.stepped(attempt, step, out);
            }
            Err(condition) => {
                self.failed(profile, Mechanism::from_name(&request.mechanism), condition, None, out);
            }
        }
    }

    /// Only what was offered, where it was offered.
    fn pick(&self, profile: Profile, request: &Request, offer: &Offer) -> Result<Mechanism, Condition> {
        let host = self.policy();
        if profile == Profile::Sasl2 && !offer.sasl2 {
            let hidden = host.sasl2 && !self.encrypted;
            return Err(if hidden { Condition::EncryptionRequired } else { Condition::InvalidMechanism });
        }
        if request.fast {
            let mechanism = Mechanism::from_name(&request.mechanism);
            return mechanism.filter(|mechanism| offer.fast.contains(mechanism)).ok_or(Condition::InvalidMechanism);
        }
        offer.pick(&request.mechanism, host, self.encrypted)
    }

    fn context<'a>(&'a self, request: &'a Request, offer: &'a Offer) -> Context<'a> {
        let from = self.negotiation.as_ref().and_then(|negotiation| negotiation.from.as_ref());
        Context {
            crypto: &*self.crypto,
            config: &self.config,
            host: self.host.as_deref().unwrap_or_default(),
            tls: self.tls(),
            from: from.filter(|_| self.encrypted),
            client: request.client(),
            offer,
        }
    }

    fn stepped(&mut self, mut attempt: Attempt, step: Step, out: &mut Vec<u8>) {
        match step {
            Step::Challenge(data, exchange) => {
                attempt.profile.challenge(out, &data);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Lookup(account, exchange) => {
                let (mechanism, client) = (attempt.mechanism, attempt.request.client().map(Into::into));
                self.events.push_back(Event::Lookup(Lookup { account, mechanism, client }));
                self.waits = Some(Wait::Lookup);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Check(check, exchange) => {
                self.events.push_back(Event::CheckPassword(*check));
                self.waits = Some(Wait::Password);
                attempt.exchange = exchange;
                self.negotiation().attempt = Some(attempt);
            }
            Step::Done { account, .. } if attempt.disabled => {
                let condition = Condition::AccountDisabled;
                self.failed(attempt.profile, Some(attempt.mechanism), condition, Some(account), out);
            }
            Step::Done { account, additional, token } => self.authenticated(attempt, account, additional, token, out),
            Step::Failed(condition, account) => {
                self.failed(attempt.profile, Some(attempt.mechanism), condition, account, out);
            }
        }
    }

    /// Answers [`Event::Lookup`]. `now` is UTC, for the expiry of tokens.
    pub fn looked_up(&mut self, account: Option<Account>, now: Stamp, out: &mut Vec<u8>) {
        if !self.answers(Wait::Lookup) {
            return;
        }
        let mut attempt = self.negotiation().attempt.take().expect("a lookup belongs to an attempt");
        attempt.now = now;
        attempt.disabled = account.as_ref().is_some_and(|account| account.disabled);
        let exchange = attempt.exchange.take();
        let offer = self.offer();
        let step = sasl::looked_up(exchange, account, now, &self.context(&attempt.request, &offer));
        self.stepped(attempt, step, out);
    }

    /// Answers [`Event::CheckPassword`].
    pub fn password_checked(&mut self, good: bool, out: &mut Vec<u8>) {
        if !self.answers(Wait::Password) {
            return;
        }
        let mut attempt = self.negotiation().attempt.take().expect("a check belongs to an attempt");
        let step = sasl::checked(attempt.exchange.take(), good);
        self.stepped(attempt, step, out);
    }

    /// Answers [`Event::Lookup`] or [`Event::CheckPassword`] when we cannot say: `temporary-auth-failure`.
    pub fn auth_unavailable(&mut self, out: &mut Vec<u8>) {
        let wait = if self.waits == Some(Wait::Password) { Wait::Password } else { Wait::Lookup };
        if !self.answers(wait) {
            return;
        }
        let attempt = self.negotiation().attempt.take().expect("a question belongs to an attempt");
        self.failed(attempt.profile, Some(attempt.mechanism), Condition::TemporaryAuthFailure, None, out);
    }

    /// Tells the failure. The stream and what was said before stay as they were. RFC 6120 §6.4.5, XEP-0388 §2.6.2.
    fn failed(
        &mut self,
        profile: Profile,
        mechanism: Option<Mechanism>,
        condition: Condition,
        account: Option<BareJid>,
        out: &mut Vec<u8>,
    ) {
        profile.failure(out, condition, None);
        self.events.push_back(Event::AuthFailed(AuthFailed { account, mechanism, condition }));
        self.count_failure();
    }

    /// Says whether it was one too many.
    fn count_failure(&mut self) -> bool {
        let negotiation = self.negotiation();
        negotiation.failures += 1;
        let too_many = negotiation.failures >= AUTH_ATTEMPTS_MAX;
        if too_many {
            self.fault = Some(StreamFault::TooManyAuthFailures);
        }
        too_many
    }

    fn authenticated(
        &mut self,
        mut attempt: Attempt,
        account: BareJid,
        additional: Option<Vec<u8>>,
        token: Option<Box<token::Used>>,
        out: &mut Vec<u8>,
    ) {
        let mechanism = attempt.mechanism;
        let agent = attempt.request.agent.take();
        let changes = match self.policy().fast {
            Some(fast) if attempt.profile == Profile::Sasl2 => {
                let client = agent.as_ref().and_then(|agent| agent.id.as_deref());
                let offered = self.offer().fast;
                let request = attempt.request.tokens.request.filter(|mechanism| offered.contains(mechanism));
                let wishes = TokenWishes { request, ..attempt.request.tokens };
                token::changes(token.map(|used| *used), wishes, client, fast, attempt.now, &*self.crypto)
            }
            _ => Ok(Vec::new()),
        };
        let changes = match changes {
            Ok(changes) => changes,
            Err(condition) => return self.failed(attempt.profile, Some(mechanism), condition, Some(account), out),
        };
        let client = agent.as_ref().and_then(|agent| agent.id.clone());
        self.account = Some(account.clone());
        self.events.push_back(Event::Authenticated(Authenticated { account, mechanism, agent }));
        match attempt.profile {
            Profile::Sasl => {
                wire::success(out, additional.as_deref());
                self.frames.restart();
                self.frames.set_limits(self.config.limits_after_auth.clone());
                self.stage = Stage::Header;
            }
            Profile::Sasl2 => {
                let bind = attempt.request.bind.take().map(|bind| BindRequest { client, ..bind });
                self.negotiation().inline = Some(Inline {
                    additional,
                    changes: changes.into(),
                    resume: attempt.request.resume.take(),
                    manage_asked: bind.as_ref().is_some_and(|bind| bind.management.is_some()),
                    bind,
                    ..Inline::default()
                });
                self.inline(out);
            }
        }
    }
}

/// What SASL2 carries inline: tokens, then resumption, then binding. XEP-0386 §3.2.
impl ClientStream {
    /// Asks for the next thing, or tells the success when all is done.
    fn inline(&mut self, out: &mut Vec<u8>) {
        let Some(inline) = self.negotiation.as_mut().and_then(|negotiation| negotiation.inline.as_mut()) else {
            return;
        };
        if let Some(change) = inline.changes.front() {
            self.events.push_back(match change {
                TokenChange::Put { token, .. } => Event::PutToken(token.clone()),
                TokenChange::Delete { client, mechanism } => {
                    Event::DeleteToken { client: client.clone(), mechanism: *mechanism }
                }
            });
            self.waits = Some(Wait::Token);
        } else if let Some(resume) = inline.resume.take() {
            self.events.push_back(Event::Resume(resume));
            self.waits = Some(Wait::Resume);
        } else if let Some(mut bind) = inline.bind.take() {
            let account = self.account.as_ref().expect("inline requests come after authentication");
            bind.resource = Some(resource(&bind, account, &self.config.secret, &*self.crypto).into());
            self.events.push_back(Event::Bind(bind));
            self.waits = Some(Wait::Bind);
        } else {
            let account = self.account.clone().expect("inline requests come after authentication");
            self.success(account.as_str(), out, |_, _| {});
            self.stage = Stage::Binding;
            features::after_auth(out, &self.frames, &self.config, true, false);
        }
    }

    /// `<success/>`, with what `told` adds. XEP-0388 §2.6.1.
    fn success(&mut self, identity: &str, out: &mut Vec<u8>, told: impl FnOnce(&Inline, &mut Vec<u8>)) {
        let Some(inline) = self.negotiation().inline.take() else {
            return;
        };
        wire::begin_success(out, inline.additional.as_deref(), identity);
        if let Some((condition, h)) = inline.resume_failed {
            management::write_failed(out, condition, h);
        }
        told(&inline, out);
        if let Some((token, expires)) = &inline.token {
            let token = Element::new("token", FAST).attr("expiry", expires.to_xmpp()).attr("token", token);
            token.write(out, SASL2);
        }
        out.extend_from_slice(wire::SUCCESS_END);
        self.frames.set_limits(self.config.limits_after_auth.clone());
    }

    fn is_inline(&self) -> bool {
        self.negotiation.as_ref().is_some_and(|negotiation| negotiation.inline.is_some())
    }

    /// Answers [`Event::PutToken`] and [`Event::DeleteToken`]. A token that could not be stored is not told; one that
    /// could not be deleted fails the authentication, as it must not stay good unnoticed (XEP-0484 §3.6).
    pub fn token_stored(&mut self, stored: bool, out: &mut Vec<u8>) {
        if !self.answers(Wait::Token) {
            return;
        }
        let Some(inline) = self.negotiation().inline.as_mut() else {
            return;
        };
        match inline.changes.pop_front() {
            Some(TokenChange::Put { token, tell: true }) if stored => {
                inline.token = Some((String::from_utf8_lossy(&token.secret.0).into_owned(), token.expires));
            }
            Some(TokenChange::Delete { .. }) if !stored => {
                return self.inline_failed(StanzaCondition::InternalServerError, out);
            }
            _ => {}
        }
        self.inline(out);
    }

    /// Authenticated, but what must come with the success cannot be: nothing has happened, the client may try again.
    fn inline_failed(&mut self, reason: StanzaCondition, out: &mut Vec<u8>) {
        self.negotiation().inline = None;
        let account = self.account.take();
        let condition = Condition::TemporaryAuthFailure;
        Profile::Sasl2.failure(out, condition, Some(reason));
        self.events.push_back(Event::AuthFailed(AuthFailed { account, mechanism: None, condition }));
        self.count_failure();
    }
}

/// Binding and resumption.
impl ClientStream {
    fn binding(&mut self, raw: &Raw, out: &mut Vec<u8>) -> Result<(), StreamFault> {
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
            return Err(StreamFault::StanzaBeforeBind);
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
            self.counting = managed.map(|_| Counting::default());
            features::after_auth(out, &self.frames, &self.config, false, self.counting.is_some());
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
        self.counting = Some(Counting::default());
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

/// The session: stanzas and the nonzas among them.
impl ClientStream {
    fn in_session(&mut self, raw: Raw, out: &mut Vec<u8>) -> Result<Option<Event>, StreamFault> {
        if Stanza::kind_of(&raw).is_some() {
            return self.stanza(raw, out);
        }
        Ok(match (raw.ns(), raw.name(), &mut self.counting) {
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
            self.counting = Some(Counting::default());
        }
    }

    /// Answers [`Event::Manage`].
    pub fn manage_refused(&mut self, condition: StanzaCondition, out: &mut Vec<u8>) {
        if self.answers(Wait::Manage) {
            management::write_failed(out, condition, None);
        }
    }
}

/// Sending.
impl ClientStream {
    /// A stanza was appended to `out`. With stream management, an `<r/>` follows now and then.
    pub fn sent(&mut self, out: &mut Vec<u8>) {
        if let Some(counting) = &mut self.counting {
            counting.sent(out);
        }
    }

    /// Nothing more is queued: ask for an acknowledgement of what was sent, unless one is awaited.
    pub fn drained(&mut self, out: &mut Vec<u8>) {
        if let Some(counting) = &mut self.counting {
            counting.drained(out);
        }
    }

    /// `<r/>` in any case, to see whether the client is there. Does nothing without stream management.
    pub fn request_ack(&mut self, out: &mut Vec<u8>) {
        if let Some(counting) = &mut self.counting {
            counting.request(out);
        }
    }

    /// `<a h=…/>`. Does nothing without stream management.
    pub fn write_ack(&mut self, h: u32, out: &mut Vec<u8>) {
        if self.counting.is_some() {
            management::write_ack(out, h);
        }
    }

    /// Ends the stream: our header if none was sent (RFC 6120 §4.9.1.2), the error, the close tag. Writes nothing
    /// between `<proceed/>` and `tls_up`, and nothing after a close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) {
        if self.may_write() {
            if !self.frames.opened {
                self.open(out);
            }
            self.frames.error(out, fault);
            self.frames.close(out);
        }
        self.end();
    }

    /// `</stream:stream>`, once. RFC 6120 §4.4.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        if self.may_write() && self.frames.opened {
            self.frames.close(out);
        }
        self.end();
    }

    /// Nothing goes out in clear behind `<proceed/>`, nothing at all behind a close tag.
    fn may_write(&self) -> bool {
        self.waits != Some(Wait::StartTls) && !self.frames.closed
    }

    fn end(&mut self) {
        self.stage = Stage::Ended;
        self.events.clear();
        self.counting = None;
    }
}

/// What is known.
impl ClientStream {
    /// Is an answer awaited? Then `next` takes nothing.
    pub fn is_waiting(&self) -> bool {
        self.waits.is_some()
    }

    /// Our domain, once the header has named it.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref().or_else(|| self.account.as_ref().map(|account| account.domain()))
    }

    /// Once authenticated.
    pub fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// Once bound.
    pub fn jid(&self) -> Option<&FullJid> {
        self.jid.as_ref()
    }

    pub fn is_encrypted(&self) -> bool {
        self.encrypted
    }

    pub fn is_authenticated(&self) -> bool {
        self.account.is_some()
    }

    pub fn is_managed(&self) -> bool {
        self.counting.is_some()
    }

    /// Was an `<r/>` sent that the client has not answered?
    pub fn awaits_ack(&self) -> bool {
        self.counting.as_ref().is_some_and(|counting| counting.awaits_ack)
    }

    /// Bytes held for a half-read element.
    pub fn held_bytes(&self) -> usize {
        self.frames.held_bytes()
    }

    /// For `xmpp::write::write_stanza`.
    pub fn wire(&self) -> Wire {
        match self.frames.framing() {
            crate::config::Framing::Tcp => Wire::Client,
            crate::config::Framing::WebSocket => Wire::WebSocket,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_session_costs_little() {
        // Half of it is the scanner.
        assert!(size_of::<ClientStream>() <= 384, "{} bytes", size_of::<ClientStream>());
    }
}
