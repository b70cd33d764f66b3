//! The stream of an external component, in the namespace `jabber:component:accept`. XEP-0114.
//!
//! A component is a service of its own domain that runs beside the server. It knows a secret, proves it with a
//! *handshake*, and may then write in the name of anybody at its domain, and of nobody else.

use crate::config::Framing;
use crate::crypto::{Crypto, Hash};
use crate::event::Secret;
use crate::frame::{Frames, Said, check_header};
use crate::server::peer_error;
use std::collections::HashMap;
use std::sync::Arc;
use xmpp::stanza::StanzaFault;
use xmpp::xml::{Frame, Header, Limits, Raw};
use xmpp::{Jid, Stanza, StanzaCondition, StreamCondition, StreamFault, ns};

/// What the streams of components share. Immutable; a changed configuration is a new value for later streams.
#[derive(Debug, Clone)]
pub struct ComponentConfig {
    /// By prepared domain: the secret that the component knows, too.
    pub components: HashMap<Box<str>, Secret>,
    pub limits_before_auth: Limits,
    pub limits_after_auth: Limits,
    pub lang: Box<str>,
}

impl Default for ComponentConfig {
    /// No components, the limits of streams between servers.
    fn default() -> ComponentConfig {
        ComponentConfig {
            components: HashMap::new(),
            limits_before_auth: Limits::BEFORE_AUTH,
            limits_after_auth: Limits::SERVER,
            lang: "en".into(),
        }
    }
}

/// What happened, or what the stream must be told.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one event is there at a time, and most are stanzas")]
pub enum ComponentEvent {
    /// The handshake was good. *Answer*: `accept`, or `fail` when the domain is taken already. Until then the stream
    /// takes no input.
    Proved(Box<str>),
    /// `from` is of the component's domain, and there is a `to`.
    Stanza(Stanza),
    /// Of the component's domain, but wrong: answer it with the error.
    BadStanza(Box<StanzaFault>),
    /// The peer's stream error. `Closed` follows, or the end of the connection.
    PeerError(Box<str>),
    /// `</stream:stream>`: `close`. Nothing comes after it.
    Closed,
}

/// A component's stream, from its first byte to the close tag.
pub struct ComponentStream {
    config: Arc<ComponentConfig>,
    crypto: Arc<dyn Crypto>,
    frames: Frames,
    stage: Stage,
    fault: Option<StreamFault>,
    /// Of our header; the handshake is about it.
    id: String,
    /// Whom the header names; believed from `Stage::Open` on.
    domain: Option<Box<str>>,
    /// The header named a version, which XEP-0114 does not ask for.
    versioned: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Handshake,
    /// `Proved` is out.
    Waiting,
    Open,
    Ended,
}

impl ComponentStream {
    pub fn new(config: Arc<ComponentConfig>, crypto: Arc<dyn Crypto>) -> ComponentStream {
        let frames = Frames::new(Framing::Tcp, config.limits_before_auth.clone(), ns::COMPONENT);
        ComponentStream {
            config,
            crypto,
            frames,
            stage: Stage::Header,
            fault: None,
            id: String::new(),
            domain: None,
            versioned: false,
        }
    }

    /// The next event out of `input`; what is to be written is appended to `out`, also when `None` comes back.
    ///
    /// # Errors
    /// What ends the stream: give it to `fail`. The stream is dead afterwards.
    pub fn next(&mut self, input: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<ComponentEvent>, StreamFault> {
        loop {
            if let Some(fault) = &self.fault {
                return Err(fault.clone());
            }
            match self.stage {
                Stage::Ended => {
                    *input = &[];
                    return Ok(None);
                }
                Stage::Waiting => return Ok(None),
                Stage::Header | Stage::Handshake | Stage::Open => {}
            }
            let taken = match self.frames.next(input) {
                Ok(None) => return Ok(None),
                Ok(Some(frame)) => self.take(frame, out),
                Err(fault) => Err(fault),
            };
            match taken {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(fault) => self.fault = Some(fault),
            }
        }
    }

    fn take(&mut self, frame: Frame, out: &mut Vec<u8>) -> Result<Option<ComponentEvent>, StreamFault> {
        match (frame, self.stage) {
            (Frame::Element(raw), Stage::Open) => self.element(raw).map(Some),
            (Frame::Element(raw), Stage::Handshake) => self.handshake(&raw).map(Some),
            (Frame::Header(header), Stage::Header) => self.header(header, out).map(|()| None),
            (Frame::Close, _) => {
                self.stage = Stage::Ended;
                Ok(Some(ComponentEvent::Closed))
            }
            (Frame::Header(_) | Frame::Element(_), _) => {
                Err(StreamFault::Other(StreamCondition::BadFormat, "The stream is not where this may come."))
            }
        }
    }

    /// XEP-0114 §3: `to` is the component's own name; no version is needed.
    fn header(&mut self, mut header: Header, out: &mut Vec<u8>) -> Result<(), StreamFault> {
        self.versioned = header.version.is_some();
        header.version.get_or_insert_with(|| "1.0".into());
        check_header(&header, ns::COMPONENT)?;
        let said = header.to.as_deref().unwrap_or_default();
        let domain = match xmpp::jid::prepare_domain(said) {
            Ok(domain) => Box::<str>::from(domain),
            Err(_) if said.is_empty() => return Err(StreamFault::HostUnknown("".into())),
            Err(_) => return Err(StreamFault::ToMalformed),
        };
        if !self.config.components.contains_key(&domain) {
            return Err(StreamFault::HostUnknown(domain));
        }
        self.domain = Some(domain);
        self.open(out);
        if self.versioned {
            // RFC 6120 §4.3.2: who says version 1.0 waits for features.
            self.frames.begin_features(out);
            out.extend_from_slice(crate::frame::FEATURES_END);
        }
        self.stage = Stage::Handshake;
        Ok(())
    }

    fn open(&mut self, out: &mut Vec<u8>) {
        let said = Said {
            from: self.domain.as_deref().unwrap_or_default(),
            to: None,
            version: self.versioned,
            lang: &self.config.lang,
        };
        self.id = self.frames.open(out, &*self.crypto, ns::COMPONENT, &said);
    }

    /// XEP-0114 §3: `SHA1(id + secret)`, in lower-case hexadecimal digits.
    fn handshake(&mut self, raw: &Raw) -> Result<ComponentEvent, StreamFault> {
        // The scanner names the content namespace of any stream `jabber:client`.
        if raw.ns() != ns::CLIENT || raw.name() != "handshake" {
            return Err(StreamFault::StanzaBeforeAuth);
        }
        let domain = self.domain.clone().expect("the header has named one of the components");
        let secret = self.config.components.get(&domain).expect("the header has named one of the components");
        let expected = digest(&*self.crypto, &self.id, secret);
        let said = raw.to_element().text_content();
        if !self.crypto.eq_constant_time(said.trim().as_bytes(), expected.as_bytes()) {
            return Err(wrong_secret());
        }
        self.stage = Stage::Waiting;
        Ok(ComponentEvent::Proved(domain))
    }

    /// Answers [`ComponentEvent::Proved`].
    pub fn accept(&mut self, out: &mut Vec<u8>) {
        if self.stage == Stage::Waiting {
            self.frames.set_limits(self.config.limits_after_auth.clone());
            out.extend_from_slice(b"<handshake/>");
            self.stage = Stage::Open;
        }
    }

    fn element(&self, raw: Raw) -> Result<ComponentEvent, StreamFault> {
        if Stanza::kind_of(&raw).is_some() {
            return self.stanza(raw);
        }
        match (raw.ns(), raw.name()) {
            (ns::STREAM, "error") => Ok(ComponentEvent::PeerError(peer_error(&raw))),
            (_, other) => Err(StreamFault::UnsupportedStanzaType(other.into())),
        }
    }

    /// XEP-0114 §3: "All stanzas sent to the server MUST possess a 'from' attribute and a 'to' attribute", and `from`
    /// is of the component's domain. Without a `to` the stanza is refused, not the stream: many people speak through it.
    fn stanza(&self, raw: Raw) -> Result<ComponentEvent, StreamFault> {
        let from = raw
            .attribute("from")
            .ok_or(StreamFault::Other(StreamCondition::ImproperAddressing, "A component's stanza needs a 'from'."))?;
        let is_ours = Jid::parse(&from).is_ok_and(|from| Some(from.domain()) == self.domain.as_deref());
        if !is_ours {
            return Err(StreamFault::FromNotOurs(from.as_ref().into()));
        }
        drop(from);
        Ok(match Stanza::from_raw(raw) {
            Ok(stanza) if stanza.to.is_none() => {
                ComponentEvent::BadStanza(Box::new(StanzaFault { error: StanzaCondition::BadRequest.into(), stanza }))
            }
            Ok(stanza) => ComponentEvent::Stanza(stanza),
            Err(fault) => ComponentEvent::BadStanza(fault),
        })
    }

    /// Ends the stream with an error and the close tag.
    pub fn fail(&mut self, fault: &StreamFault, out: &mut Vec<u8>) {
        if !self.frames.closed {
            if !self.frames.opened {
                self.open(out);
            }
            self.frames.end(out, Some(fault));
        }
        self.stage = Stage::Ended;
    }

    /// `</stream:stream>`, once.
    pub fn close(&mut self, out: &mut Vec<u8>) {
        self.frames.end(out, None);
        self.stage = Stage::Ended;
    }

    /// The domain that the stream speaks for, once it was accepted.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref().filter(|_| self.stage == Stage::Open)
    }

    pub fn is_waiting(&self) -> bool {
        self.stage == Stage::Waiting
    }
}

/// What a stream ends with whose handshake was wrong; it counts as a guess.
pub fn wrong_secret() -> StreamFault {
    StreamFault::Other(StreamCondition::NotAuthorized, "The handshake is not the one of this component's secret.")
}

fn digest(crypto: &dyn Crypto, id: &str, secret: &Secret) -> String {
    // Wiped when dropped: the secret stands in it.
    let text = zeroize::Zeroizing::new([id.as_bytes(), &secret.0].concat());
    let hash = crypto.digest(Hash::Sha1, &text);
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;

    const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' \
        xmlns:stream='http://etherx.jabber.org/streams' to='plays.shakespeare.example'>";

    struct Side {
        stream: ComponentStream,
        crypto: Arc<Fake>,
        events: Vec<String>,
        fault: Option<StreamFault>,
    }

    impl Side {
        fn new() -> Side {
            let components = [("plays.shakespeare.example".into(), Secret(b"secret".to_vec()))].into();
            let config = ComponentConfig { components, ..ComponentConfig::default() };
            let crypto = Arc::new(Fake::default());
            let stream = ComponentStream::new(Arc::new(config), crypto.clone());
            Side { stream, crypto, events: Vec::new(), fault: None }
        }

        fn says(&mut self, text: &str) -> String {
            let (mut input, mut out) = (text.as_bytes(), Vec::new());
            loop {
                match self.stream.next(&mut input, &mut out) {
                    Ok(Some(event)) => self.events.push(match event {
                        ComponentEvent::Proved(domain) => format!("proved {domain}"),
                        ComponentEvent::Stanza(stanza) => {
                            format!("{} from {}", stanza.kind.kind().name(), stanza.from.expect("checked"))
                        }
                        ComponentEvent::BadStanza(fault) => format!("bad {}", fault.error.condition.name()),
                        ComponentEvent::PeerError(condition) => format!("error {condition}"),
                        ComponentEvent::Closed => "closed".into(),
                    }),
                    Ok(None) => break,
                    Err(fault) => {
                        self.stream.fail(&fault, &mut out);
                        self.fault = Some(fault);
                        break;
                    }
                }
            }
            String::from_utf8(out).expect("what we write is UTF-8")
        }

        fn handshake(&self, secret: &str) -> String {
            let digest = digest(&*self.crypto, &self.stream.id, &Secret(secret.into()));
            format!("<handshake>{digest}</handshake>")
        }

        /// Proved, accepted.
        fn open() -> Side {
            let mut side = Side::new();
            side.says(HEADER);
            side.says(&side.handshake("secret"));
            let mut out = Vec::new();
            side.stream.accept(&mut out);
            assert_eq!(out, b"<handshake/>");
            side.events.clear();
            side
        }
    }

    #[test]
    fn the_header_is_answered_in_the_components_name_with_an_id() {
        let mut side = Side::new();
        let answer = side.says(HEADER);
        assert!(answer.contains("xmlns='jabber:component:accept'"), "{answer}");
        assert!(answer.contains("from='plays.shakespeare.example'") && answer.contains(" id='"), "{answer}");
        assert!(!answer.contains("version='1.0' ") && !answer.contains("features"), "{answer}");
    }

    // XEP-0114 §3, the numbers of its example: SHA1("3BF96D32" + "secret") by another implementation.
    #[test]
    fn the_handshake_is_the_digest_of_id_and_secret() {
        let digest = digest(&Fake::default(), "3BF96D32", &Secret(b"secret".to_vec()));
        assert_eq!(digest, "b09ea9b3b7f586be8a08d0a3dd7466f110aeb136");
    }

    #[test]
    fn a_component_that_proves_its_secret_is_taken_when_the_caller_accepts_it() {
        let mut side = Side::new();
        side.says(HEADER);
        assert_eq!(side.says(&side.handshake("secret")), "");
        assert_eq!(side.events, ["proved plays.shakespeare.example"]);
        assert!(side.stream.is_waiting() && side.stream.domain().is_none());
        // What came behind the handshake waits for the answer.
        side.says("<message from='a@plays.shakespeare.example' to='b@c.example'/>");
        assert_eq!(side.events.len(), 1);
        side.stream.accept(&mut Vec::new());
        assert_eq!(side.stream.domain(), Some("plays.shakespeare.example"));
    }

    #[test]
    fn a_wrong_handshake_ends_the_stream_with_not_authorized_and_is_compared_in_constant_time() {
        let mut side = Side::new();
        side.says(HEADER);
        let answer = side.says(&side.handshake("guess"));
        assert!(answer.contains("<not-authorized") && answer.ends_with("</stream:stream>"), "{answer}");
        assert_eq!(side.fault, Some(wrong_secret()));
        assert_eq!(side.crypto.comparisons.load(std::sync::atomic::Ordering::Relaxed), 1);
    }

    #[test]
    fn a_stanza_before_the_handshake_ends_the_stream() {
        let mut side = Side::new();
        side.says(HEADER);
        let answer = side.says("<message from='a@plays.shakespeare.example' to='b@c.example'/>");
        assert!(answer.contains("<not-authorized"), "{answer}");
    }

    // XEP-0114 §3: header errors come behind an opening tag.
    #[test]
    fn a_component_that_is_not_configured_is_host_unknown() {
        let mut side = Side::new();
        let answer = side.says(&HEADER.replace("plays", "other"));
        assert!(answer.contains("<stream:stream") && answer.contains("<host-unknown"), "{answer}");
        let mut side = Side::new();
        let answer = side.says(&HEADER.replace(" to='plays.shakespeare.example'", ""));
        assert!(answer.contains("<host-unknown"), "{answer}");
    }

    #[test]
    fn a_stream_of_another_namespace_is_refused() {
        let mut side = Side::new();
        let answer = side.says(&HEADER.replace("jabber:component:accept", "jabber:client"));
        assert!(answer.contains("<invalid-namespace"), "{answer}");
    }

    #[test]
    fn a_header_with_a_version_is_followed_by_features() {
        let mut side = Side::new();
        let answer = side.says(&HEADER.replace("to=", "version='1.0' to="));
        assert!(answer.contains("version='1.0'") && answer.contains("<stream:features></stream:features>"), "{answer}");
    }

    #[test]
    fn stanzas_of_anybody_at_the_domain_are_taken() {
        let mut side = Side::open();
        side.says(
            "<message from='a@plays.shakespeare.example/x' to='b@c.example'/>\
             <presence from='plays.shakespeare.example' to='b@c.example'/>",
        );
        assert_eq!(
            side.events,
            ["message from a@plays.shakespeare.example/x", "presence from plays.shakespeare.example"]
        );
    }

    #[test]
    fn a_stanza_of_another_domain_ends_the_stream() {
        for from in ["a@shakespeare.example", "a@sub.plays.shakespeare.example", "b@c.example", "@"] {
            let mut side = Side::open();
            let answer = side.says(&format!("<message from='{from}' to='b@c.example'/>"));
            assert!(answer.contains("<invalid-from"), "{from}: {answer}");
        }
        let mut side = Side::open();
        let answer = side.says("<message to='b@c.example'/>");
        assert!(answer.contains("<improper-addressing"), "{answer}");
    }

    #[test]
    fn a_stanza_without_a_good_to_is_refused_and_the_stream_goes_on() {
        let mut side = Side::open();
        side.says("<message from='a@plays.shakespeare.example'/>");
        side.says("<message from='a@plays.shakespeare.example' to='@'/>");
        side.says("<message from='a@plays.shakespeare.example' to='b@c.example'/>");
        assert_eq!(side.events, ["bad bad-request", "bad jid-malformed", "message from a@plays.shakespeare.example"]);
    }

    // LIMITS: before the handshake as before authentication, after it as for servers.
    #[test]
    fn a_stanza_that_is_too_big_ends_the_stream_before_and_after_the_handshake() {
        let big = |bytes: usize| {
            format!(
                "<message from='a@plays.shakespeare.example' to='b@c.example'><body>{}</body></message>",
                "x".repeat(bytes)
            )
        };
        let mut side = Side::new();
        side.says(HEADER);
        assert!(side.says(&big(10_000)).contains("<policy-violation"));
        let mut side = Side::open();
        side.says(&big(500_000));
        assert_eq!(side.events.len(), 1);
        assert!(side.says(&big(524_288)).contains("<policy-violation"));
    }

    #[test]
    fn what_is_no_stanza_ends_the_stream_and_errors_are_told() {
        let mut side = Side::open();
        assert!(side.says("<db:result xmlns:db='jabber:server:dialback'/>").contains("<unsupported-stanza-type"));
        let mut side = Side::open();
        side.says(
            "<stream:error><system-shutdown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
        );
        assert_eq!(side.events, ["error system-shutdown", "closed"]);
    }
}
