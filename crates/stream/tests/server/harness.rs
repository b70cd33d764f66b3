//! One side of a stream, driven by strings.

use crate::fake::Fake;
use std::sync::Arc;
use stream::server::{InEvent, IncomingStream, OutEvent, OutgoingStream, Pair, PeerCertificate, ServerConfig};
use stream::{Crypto, Tls, Verdict};
use xmpp::StreamFault;

pub const HERE: &str = "capulet.example";
pub const THERE: &str = "montague.example";
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' \
    from='montague.example' to='capulet.example' version='1.0'>";
pub const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
pub const SUCCESS: &str = "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></success>";

pub fn config() -> ServerConfig {
    ServerConfig {
        hosts: [HERE.into(), "verona.example".into()].into(),
        secret: b"of capulet".to_vec(),
        tls: Tls::Direct,
        ..ServerConfig::default()
    }
}

pub fn certificate(name: &str) -> Option<PeerCertificate> {
    Some(PeerCertificate { valid: true, dns_names: vec![name.into()], ..PeerCertificate::default() })
}

pub fn external(authzid: &str) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(authzid);
    let text = if text.is_empty() { "=" } else { &text };
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'>{text}</auth>")
}

pub fn result(from: &str, to: &str, key: &str) -> String {
    format!("<db:result from='{from}' to='{to}'>{key}</db:result>")
}

pub fn message(from: &str, to: &str) -> String {
    format!("<message from='{from}' to='{to}'><body>hi</body></message>")
}

pub fn crypto() -> Arc<dyn Crypto> {
    Arc::new(Fake::default())
}

/// Another server's stream to us.
pub struct In {
    pub stream: IncomingStream,
    pub events: Vec<String>,
    pub fault: Option<StreamFault>,
}

impl In {
    /// TLS is up, with this certificate.
    pub fn encrypted(certificate: Option<PeerCertificate>) -> In {
        let mut side = In::with(config());
        side.stream.tls_up(certificate);
        side
    }

    pub fn with(config: ServerConfig) -> In {
        let stream = IncomingStream::new(Arc::new(config), crypto());
        In { stream, events: Vec::new(), fault: None }
    }

    /// … and the header is said.
    pub fn open(certificate: Option<PeerCertificate>) -> In {
        let mut side = In::encrypted(certificate);
        side.says(HEADER);
        side
    }

    /// Gives what comes back, a fault's last words included.
    pub fn says(&mut self, text: &str) -> String {
        let mut out = Vec::new();
        let mut input = text.as_bytes();
        loop {
            match self.stream.next(&mut input, &mut out) {
                Ok(Some(event)) => self.note(event, &mut out),
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

    fn note(&mut self, event: InEvent, out: &mut Vec<u8>) {
        self.events.push(match event {
            InEvent::StartTls => "starttls".into(),
            InEvent::External(pair) => {
                self.stream.external(true, out);
                format!("external {pair}")
            }
            InEvent::Dialback { pair, key, certified, .. } => format!("dialback {pair} {key} {certified}"),
            InEvent::Authenticated(pair) => format!("authenticated {pair}"),
            InEvent::Stanza(stanza) => format!("stanza from {}", stanza.from.expect("checked")),
            InEvent::BadStanza(fault) => format!("bad stanza {}", fault.error.condition.name()),
            InEvent::Manage { resume } => {
                let id = resume.then(|| "again".into());
                self.stream.managed(&stream::event::Managed { id, max: Some(60), location: None }, out);
                format!("manage {resume}")
            }
            InEvent::Resume(request) => {
                match &*request.id {
                    "again" => self.stream.resumed("again", 7, out),
                    _ => self.stream.resume_refused(None, out),
                }
                format!("resume {} {}", request.id, request.h)
            }
            InEvent::Managing(managing) => format!("{managing:?}"),
            InEvent::PeerError(condition) => format!("peer error {condition}"),
            InEvent::Closed => "closed".into(),
        });
    }

    pub fn judged(&mut self, from: &str, to: &str, verdict: Verdict) -> String {
        let mut out = Vec::new();
        self.stream.dialback(&Pair::new(from, to), verdict, &mut out);
        let text = String::from_utf8(out).expect("what we write is UTF-8");
        text + &self.says("")
    }
}

/// Our stream to another server.
pub struct Out {
    pub stream: OutgoingStream,
    pub events: Vec<String>,
    pub fault: Option<StreamFault>,
}

pub const ANSWER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:server' \
    xmlns:db='jabber:server:dialback' xmlns:stream='http://etherx.jabber.org/streams' \
    id='D60000229F' from='montague.example' to='capulet.example' version='1.0'>";

pub fn features(inner: &str) -> String {
    format!("{ANSWER}<stream:features>{inner}</stream:features>")
}

pub const DIALBACK: &str = "<dialback xmlns='urn:xmpp:features:dialback'><errors/></dialback>";
pub const EXTERNAL: &str =
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>EXTERNAL</mechanism></mechanisms>";

impl Out {
    pub fn new(config: ServerConfig, strict: bool) -> Out {
        let stream = OutgoingStream::new(Arc::new(config), crypto(), Pair::new(HERE, THERE), strict);
        Out { stream, events: Vec::new(), fault: None }
    }

    /// TLS is up, the features are read.
    pub fn open(inner: &str) -> Out {
        let mut side = Out::new(config(), false);
        let mut out = Vec::new();
        side.stream.tls_up(None, &mut out);
        side.stream.start(&mut out);
        side.hears(&features(inner));
        side
    }

    pub fn hears(&mut self, text: &str) -> String {
        let mut out = Vec::new();
        let mut input = text.as_bytes();
        loop {
            match self.stream.next(&mut input, &mut out) {
                Ok(Some(event)) => self.events.push(match event {
                    OutEvent::StartTls => "starttls".into(),
                    OutEvent::Ready => "ready".into(),
                    OutEvent::Authenticated(pair) => format!("authenticated {pair}"),
                    OutEvent::Refused(pair, condition) => format!("refused {pair} {}", condition.name()),
                    OutEvent::Verified(verify, verdict) => {
                        format!("verified {} {} {verdict:?}", verify.pair, verify.id)
                    }
                    OutEvent::Stanza(stanza) => format!("stanza from {}", stanza.from.expect("checked")),
                    OutEvent::BadStanza(_) => "bad stanza".into(),
                    OutEvent::Enabled { id, max } => format!("enabled {id:?} {max:?}"),
                    OutEvent::Resumed(h) => format!("resumed {h}"),
                    OutEvent::NotManaged(h) => format!("not managed {h:?}"),
                    OutEvent::Managing(managing) => format!("{managing:?}"),
                    OutEvent::PeerError(condition) => format!("peer error {condition}"),
                    OutEvent::Closed => "closed".into(),
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

    pub fn authenticates(&mut self) -> String {
        let mut out = Vec::new();
        self.stream.authenticate(&mut out);
        String::from_utf8(out).expect("what we write is UTF-8")
    }

    pub fn last(&self) -> &str {
        self.events.last().map_or("", String::as_str)
    }
}
