//! A client's end and the house's end of one stream, both simple.

use crate::fake::Fake;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::collections::HashMap;
use std::sync::Arc;
use stream::{
    Account, Bound, ClientCert, ClientStream, Config, Crypto, Event, Hash, HostAuth, Managed, Mechanism, Tls, TlsInfo,
    Token, scram_keys,
};
use xmpp::{BareJid, FullJid, Stamp, StanzaCondition, StanzaError, StreamFault};

pub const HOST: &str = "capulet.example";
pub const JULIET: &str = "juliet@capulet.example";
pub const PASSWORD: &str = "r0m30myr0m30";
/// 2026-11-22.
pub const NOW: Stamp = Stamp(1_795_305_600_000_000);
pub const DAY: i64 = 86_400_000_000;
pub const HEADER: &str = "<?xml version='1.0'?><stream:stream to='capulet.example' version='1.0' \
    xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
pub const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";

/// A configuration with one host. Few iterations, as tests prove logic.
pub fn config() -> Config {
    Config {
        hosts: HashMap::from([(HOST.into(), HostAuth::default())]),
        default_host: Some(HOST.into()),
        tls: Tls::Direct,
        secret: b"a secret of the server".to_vec(),
        iterations_sha1: 16,
        iterations_sha256: 16,
        idle_seconds: None,
        ..Config::default()
    }
}

pub fn host(config: &mut Config) -> &mut HostAuth {
    config.hosts.get_mut(HOST).expect("the host is configured")
}

pub fn tls() -> TlsInfo {
    TlsInfo { exporter: Some([7; 32]), server_end_point: Some(vec![9; 32]), ..TlsInfo::default() }
}

pub fn certificate(addresses: &[&str], valid: bool) -> TlsInfo {
    let xmpp_addresses = addresses.iter().map(|address| address.to_string()).collect();
    TlsInfo { client_certificate: Some(ClientCert { xmpp_addresses, valid }), ..tls() }
}

pub fn jid(text: &str) -> BareJid {
    BareJid::parse(text).expect("the test's JID is right")
}

pub struct Peer {
    pub stream: ClientStream,
    pub crypto: Arc<Fake>,
    pub accounts: HashMap<BareJid, Account>,
    pub now: Stamp,
    /// Everything that happened, as the tests like to read it.
    pub events: Vec<String>,
    pub fault: Option<StreamFault>,
    /// The house answers a bind with this.
    pub bind: Result<Option<Managed>, StanzaCondition>,
    /// Sessions that can be resumed: id, resource, h.
    pub resumable: Vec<(String, String, u32)>,
    pub stores: bool,
    pub registers: Result<(), StanzaError>,
    pub store_is_up: bool,
    /// Bytes given to the stream at a time.
    pub chunk: usize,
}

impl Peer {
    /// A stream on which TLS is up already.
    pub fn new(config: Config) -> Peer {
        Peer::with_tls(config, tls())
    }

    pub fn with_tls(config: Config, info: TlsInfo) -> Peer {
        let mut peer = Peer::clear(config);
        peer.stream.tls_up(info);
        peer
    }

    pub fn clear(config: Config) -> Peer {
        let crypto = Arc::new(Fake::default());
        let keys = |hash| scram_keys(&*crypto, hash, PASSWORD, b"salt of juliet's", 16);
        let juliet = Account { scram_sha1: keys(Hash::Sha1), scram_sha256: keys(Hash::Sha256), ..Account::default() };
        Peer {
            stream: ClientStream::new(Arc::new(config), crypto.clone()),
            crypto,
            accounts: HashMap::from([(jid(JULIET), juliet)]),
            now: NOW,
            events: Vec::new(),
            fault: None,
            bind: Ok(Some(Managed { id: Some("sm-1".into()), max: Some(300), location: None })),
            resumable: Vec::new(),
            stores: true,
            registers: Ok(()),
            store_is_up: true,
            chunk: usize::MAX,
        }
    }

    /// With the header sent and answered.
    pub fn open(mut self) -> Peer {
        self.says(HEADER);
        assert_eq!(self.fault, None);
        self
    }

    /// Authenticated with SASL, the second header sent and answered.
    pub fn authenticated(mut self) -> Peer {
        if self.stream.host().is_none() {
            self = self.open();
        }
        let said = self.says(&plain("juliet", PASSWORD));
        assert!(said.contains("<success"), "{said}");
        self.open()
    }

    /// Bound as `juliet@capulet.example/balcony`.
    pub fn bound(self) -> Peer {
        self.authenticated().bound_here()
    }

    /// The same for a client that is authenticated already.
    pub fn bound_here(mut self) -> Peer {
        self.says("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>balcony</resource></bind></iq>");
        self.events.clear();
        self
    }

    /// The client says something; what it is answered. The house answers what it is asked.
    pub fn says(&mut self, text: &str) -> String {
        self.says_bytes(text.as_bytes())
    }

    pub fn says_bytes(&mut self, bytes: &[u8]) -> String {
        let mut out = Vec::new();
        let chunk = self.chunk.min(bytes.len().max(1));
        for mut input in bytes.chunks(chunk) {
            loop {
                match self.stream.next(&mut input, &mut out) {
                    Ok(Some(event)) => self.happens(event, &mut out),
                    Ok(None) => break,
                    Err(fault) => {
                        self.stream.fail(&fault, &mut out);
                        self.fault = Some(fault);
                        return text(out);
                    }
                }
            }
        }
        text(out)
    }

    fn happens(&mut self, event: Event, out: &mut Vec<u8>) {
        let told = match event {
            Event::StartTls => "StartTls".into(),
            Event::Lookup(lookup) => {
                let account = self.accounts.get(&lookup.account).cloned();
                match self.store_is_up {
                    true => self.stream.looked_up(account, self.now, out),
                    false => self.stream.auth_unavailable(out),
                }
                format!("Lookup {} {}", lookup.account, lookup.mechanism.name())
            }
            Event::CheckPassword(check) => {
                let good = check.run(&*self.crypto);
                self.stream.password_checked(good, out);
                format!("CheckPassword {}", check.account)
            }
            Event::Authenticated(who) => format!("Authenticated {} {}", who.account, who.mechanism.name()),
            Event::AuthFailed(failed) => format!("AuthFailed {}", failed.condition.name()),
            Event::PutToken(token) => {
                let told = format!("PutToken {} {}", token.client, token.mechanism.name());
                if self.stores {
                    let tokens = self.tokens();
                    tokens.retain(|old| old.mechanism != token.mechanism || old.client != token.client);
                    tokens.push(token);
                }
                self.stream.token_stored(self.stores, out);
                told
            }
            Event::Invited(token) => {
                let known = &*token == "good";
                self.stream.admitted(if known { Ok(()) } else { Err(xmpp::StanzaCondition::ItemNotFound.into()) }, out);
                format!("Invited {token}")
            }
            Event::Register(registration) => {
                let token = registration.token.as_deref().map(|token| format!(" by {token}")).unwrap_or_default();
                let told = format!("Register {} {}{token}", registration.account, &*registration.password);
                self.stream.registered(self.registers.clone(), out);
                told
            }
            Event::Bind(request) => {
                let resource = request.resource.clone().unwrap_or_else(|| "chosen".into());
                match &self.bind {
                    Ok(managed) => {
                        let jid = self.full(&resource);
                        let managed = managed.clone().filter(|_| request.management.is_some());
                        self.stream.bound(Bound { jid, managed, more: Vec::new() }, out);
                    }
                    Err(condition) => self.stream.bind_refused(&(*condition).into(), out),
                }
                format!(
                    "Bind {} client={} carbons={} inactive={} management={}",
                    request.resource.as_deref().unwrap_or("-"),
                    request.client.as_deref().unwrap_or("-"),
                    request.carbons,
                    request.inactive,
                    request.management.is_some(),
                )
            }
            Event::Resume(resume) => {
                let found = self.resumable.iter().find(|(id, _, _)| **id == *resume.id).cloned();
                match found {
                    Some((id, resource, h)) => {
                        let jid = self.full(&resource);
                        self.stream.resumed(jid, &id, h, out);
                    }
                    None => self.stream.resume_refused(StanzaCondition::ItemNotFound, Some(3), out),
                }
                format!("Resume {} h={}", resume.id, resume.h)
            }
            Event::Manage(request) => {
                let id = request.resume.then(|| "sm-2".into());
                self.stream.managed(&Managed { id, max: request.max, location: None }, out);
                format!("Manage resume={} max={:?}", request.resume, request.max)
            }
            Event::Stanza(stanza) => {
                let bytes = xmpp::write::to_stored(&stanza);
                format!("Stanza {}", String::from_utf8_lossy(&bytes))
            }
            Event::BadStanza(fault) => format!("BadStanza {}", fault.error.condition.name()),
            Event::Acked(h) => format!("Acked {h}"),
            Event::AckRequested => {
                self.stream.write_ack(5, out);
                "AckRequested".into()
            }
            Event::ClientState { active } => format!("ClientState {active}"),
            Event::Closed => {
                self.stream.close(out);
                "Closed".into()
            }
        };
        self.events.push(told);
    }

    pub fn tokens(&mut self) -> &mut Vec<Token> {
        &mut self.accounts.get_mut(&jid(JULIET)).expect("juliet has an account").tokens
    }

    pub fn token(&mut self, mechanism: Mechanism) -> String {
        let token = self.tokens().iter().find(|token| token.mechanism == mechanism).expect("a token was stored");
        String::from_utf8(token.secret.0.clone()).expect("tokens are text")
    }

    fn full(&self, resource: &str) -> FullJid {
        let account = self.stream.account().expect("the client is authenticated");
        account.with_resource(resource).expect("the resource is right")
    }

    /// The last that happened.
    pub fn last(&self) -> &str {
        self.events.last().map_or("", String::as_str)
    }

    /// The stream error's condition.
    pub fn condition(&self) -> &'static str {
        self.fault.as_ref().map_or("none", |fault| fault.condition().name())
    }

    /// A whole exchange with SCRAM; `c` and what follows may be bent by `scram`.
    pub fn scram(&mut self, scram: &Scram<'_>) -> String {
        let said = self.says(&auth(scram.mechanism, scram.first().as_bytes()));
        let Some(challenge) = inner(&said, "challenge") else {
            return said;
        };
        let challenge = text(STANDARD.decode(challenge).expect("a challenge is base64"));
        let last = scram.last(&*self.crypto, &challenge);
        self.says(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>", STANDARD.encode(last)))
    }
}

/// The client's side of SCRAM.
#[derive(Clone)]
pub struct Scram<'a> {
    pub mechanism: &'a str,
    pub user: &'a str,
    pub password: &'a str,
    /// With commas, e.g. `n,,` or `p=tls-exporter,,`.
    pub gs2: &'a str,
    pub binding: &'a [u8],
}

pub const SCRAM_256: Scram<'static> =
    Scram { mechanism: "SCRAM-SHA-256", user: "juliet", password: PASSWORD, gs2: "n,,", binding: b"" };

impl Scram<'_> {
    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n={},r=client-nonce", self.user)
    }

    pub fn last(&self, crypto: &dyn Crypto, challenge: &str) -> String {
        let hash = if self.mechanism.contains("256") { Hash::Sha256 } else { Hash::Sha1 };
        let value = |name: &str| {
            let found = challenge.split(',').find_map(|part| part.strip_prefix(name));
            found.expect("the challenge has the attribute").to_owned()
        };
        let salt = STANDARD.decode(value("s=")).expect("a salt is base64");
        let iterations = value("i=").parse().expect("iterations are a number");
        let salted = crypto.pbkdf2(hash, self.password.as_bytes(), &salt, iterations);
        let client_key = crypto.hmac(hash, &salted, b"Client Key");
        let stored_key = crypto.digest(hash, &client_key);
        let binding = STANDARD.encode([self.gs2.as_bytes(), self.binding].concat());
        let without_proof = format!("c={binding},r={}", value("r="));
        let message = format!("{},{challenge},{without_proof}", self.first_bare());
        let signature = crypto.hmac(hash, &stored_key, message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(&signature).map(|(key, signature)| key ^ signature).collect();
        format!("{without_proof},p={}", STANDARD.encode(proof))
    }
}

/// `<auth/>` with an initial response.
pub fn auth(mechanism: &str, initial: &[u8]) -> String {
    let initial = if initial.is_empty() { "=".into() } else { STANDARD.encode(initial) };
    format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{initial}</auth>")
}

pub fn plain(user: &str, password: &str) -> String {
    auth("PLAIN", format!("\0{user}\0{password}").as_bytes())
}

/// `<authenticate/>` with PLAIN and what else is asked for.
pub fn authenticate_plain(inside: &str) -> String {
    authenticate("PLAIN", format!("\0juliet\0{PASSWORD}").as_bytes(), inside)
}

pub fn authenticate(mechanism: &str, initial: &[u8], inside: &str) -> String {
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{}</initial-response>\
         {inside}</authenticate>",
        STANDARD.encode(initial)
    )
}

/// The text inside the first element of that name.
pub fn inner(said: &str, name: &str) -> Option<String> {
    let (_, rest) = said.split_once(&format!("<{name}"))?;
    let (_, rest) = rest.split_once('>')?;
    rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner.to_owned())
}

pub fn text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).expect("a stream is UTF-8")
}

/// The condition in `<failure/>`.
pub fn failure(said: &str) -> String {
    let inside = inner(said, "failure").unwrap_or_else(|| panic!("no failure in {said}"));
    inside.trim_start_matches('<').split([' ', '/']).next().unwrap_or_default().to_owned()
}
