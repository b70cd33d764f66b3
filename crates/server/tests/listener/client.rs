//! A client that says exactly what it is told, byte by byte, and reads with a deadline.

use crate::server::{PATIENCE, Server};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};
use socket2::{Domain, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub struct Client {
    pub tcp: TcpStream,
    pub tls: Option<Box<ClientConnection>>,
    /// Read and not yet looked at.
    seen: Vec<u8>,
    /// All that was said, for whoever reads a failed test.
    transcript: String,
    eof: bool,
    /// Full, once bound.
    pub jid: String,
    pings: u32,
}

/// An address that no other client of these tests connects from: limits per address are then one test's alone.
pub fn own_address() -> IpAddr {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    IpAddr::V4(Ipv4Addr::new(127, 32 + (n >> 16) as u8, (n >> 8) as u8, n as u8))
}

pub fn b64(text: impl AsRef<[u8]>) -> String {
    BASE64.encode(text)
}

/// `[authzid] NUL authcid NUL password`, in base64.
pub fn plain(authzid: &str, user: &str, password: &str) -> String {
    b64(format!("{authzid}\0{user}\0{password}"))
}

/// Connecting.
impl Client {
    /// From an address of its own.
    pub fn connect(to: SocketAddr) -> Client {
        Client::connect_from(own_address(), to)
    }

    pub fn connect_from(from: IpAddr, to: SocketAddr) -> Client {
        Client::try_connect(from, to).expect("loopback connects")
    }

    pub fn try_connect(from: IpAddr, to: SocketAddr) -> std::io::Result<Client> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::new(from, 0).into())?;
        socket.connect(&to.into())?;
        let tcp: TcpStream = socket.into();
        tcp.set_nodelay(true)?;
        Ok(Client {
            tcp,
            tls: None,
            seen: Vec::new(),
            transcript: String::new(),
            eof: false,
            jid: String::new(),
            pings: 0,
        })
    }

    /// TLS from the first byte.
    pub fn direct(server: &Server) -> Client {
        let mut client = Client::connect(server.direct);
        client.handshake("localhost", None);
        client
    }

    /// STARTTLS on the listener that requires it, up to the features that follow, which it gives.
    pub fn starttls(server: &Server, host: &str) -> (Client, String) {
        let mut client = Client::connect(server.starttls);
        client.open(host);
        client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
        client.handshake(host, None);
        let features = client.open(host);
        (client, features)
    }

    pub fn handshake(&mut self, name: &str, identity: Option<Identity>) {
        self.handshake_with(tls_config(identity), name);
    }

    pub fn handshake_with(&mut self, config: ClientConfig, name: &str) {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("the configuration is complete");
        self.tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        while tls.is_handshaking() {
            tls.complete_io(&mut self.tcp).expect("the handshake succeeds");
        }
        self.tls = Some(Box::new(tls));
    }
}

/// A certificate and its key.
pub type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

pub fn tls_config(identity: Option<Identity>) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)));
    let mut config = match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("certificate and key fit"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"xmpp-client".to_vec()];
    config
}

/// The server's certificate is its own affair here.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Saying and hearing.
impl Client {
    #[track_caller]
    pub fn send(&mut self, text: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(text.as_ref()) {
            panic!("cannot send: {error}\n{}", self.transcript);
        }
    }

    /// # Errors
    /// The server has closed the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.note("→ ", bytes);
        match &mut self.tls {
            None => self.tcp.write_all(bytes),
            Some(tls) => {
                // rustls holds only so much at once.
                for piece in bytes.chunks(16 * 1024) {
                    tls.writer().write_all(piece)?;
                    while tls.wants_write() {
                        tls.write_tls(&mut self.tcp)?;
                    }
                }
                Ok(())
            }
        }
    }

    /// The connection itself, for what is to be said and heard otherwise. In clear.
    pub fn socket(&self) -> TcpStream {
        self.tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        self.tcp.try_clone().expect("it is shared")
    }

    fn note(&mut self, who: &str, bytes: &[u8]) {
        let text = String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]);
        self.transcript.push_str(&format!("{who}{text}\n"));
    }

    /// Reads until `mark` has come, or one of those between bars; gives all up to its end.
    #[track_caller]
    pub fn expect(&mut self, mark: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let marks = mark.split('|').filter_map(|mark| Some(find(&self.seen, mark.as_bytes())? + mark.len()));
            if let Some(end) = marks.min() {
                let rest = self.seen.split_off(end);
                let head = std::mem::replace(&mut self.seen, rest);
                return String::from_utf8(head).expect("the server speaks UTF-8");
            }
            assert!(!self.eof, "the stream ended without {mark:?}; transcript:\n{}", self.transcript);
            assert!(self.read_before(deadline), "{mark:?} never came; transcript:\n{}", self.transcript);
        }
    }

    /// Reads until the server closes the connection; gives what came.
    #[track_caller]
    pub fn expect_end(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.eof {
            assert!(self.read_before(deadline), "the connection is not closed; transcript:\n{}", self.transcript);
        }
        String::from_utf8(std::mem::take(&mut self.seen)).expect("the server speaks UTF-8")
    }

    /// The stream must end with this error and an orderly close; gives all that came.
    #[track_caller]
    pub fn expect_error(&mut self, condition: &str) -> String {
        let text = self.expect_end();
        let mark = format!("<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'");
        assert!(text.contains(&mark), "no {condition}; transcript:\n{}", self.transcript);
        assert!(
            text.ends_with("</stream:error></stream:stream>"),
            "no orderly close; transcript:\n{}",
            self.transcript
        );
        text
    }

    /// Reads once, until the deadline; false if it passed.
    fn read_before(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.tcp.set_read_timeout(Some(left.max(Duration::from_millis(1)))).expect("a timeout can be set");
        let mut piece = [0; 16 * 1024];
        let read = match &mut self.tls {
            None => self.tcp.read(&mut piece),
            Some(tls) => read_tls(tls, &mut self.tcp, &mut piece),
        };
        match read {
            Ok(0) => self.eof = true,
            Ok(n) => {
                self.note("← ", &piece[..n]);
                self.seen.extend_from_slice(&piece[..n]);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return Instant::now() < deadline;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            // A reset ends it as well.
            Err(_) => self.eof = true,
        }
        true
    }

    /// What comes within this time.
    pub fn hear(&mut self, time: Duration) -> String {
        let deadline = Instant::now() + time;
        while !self.eof && self.read_before(deadline) {}
        String::from_utf8(std::mem::take(&mut self.seen)).expect("the server speaks UTF-8")
    }

    /// Waits for something, or the end, and gives it.
    pub fn hear_some(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while !self.eof && self.seen.is_empty() && self.read_before(deadline) {}
        self.hear(Duration::from_millis(1))
    }

    /// Has the server closed the connection?
    pub fn ended_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while !self.eof && self.read_before(deadline) {}
        self.eof
    }

    /// Raw bytes to the end of the connection, whatever they are.
    pub fn tcp_end(&mut self) -> Vec<u8> {
        self.tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        let mut bytes = Vec::new();
        let _ = self.tcp.read_to_end(&mut bytes);
        bytes
    }

    pub fn transcript(&self) -> &str {
        &self.transcript
    }
}

fn read_tls(tls: &mut ClientConnection, tcp: &mut TcpStream, piece: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match tls.reader().read(piece) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => return other,
        }
        if tls.read_tls(tcp)? == 0 {
            return Ok(0);
        }
        tls.process_new_packets().map_err(|error| std::io::Error::new(ErrorKind::InvalidData, error))?;
        while tls.wants_write() {
            tls.write_tls(tcp)?;
        }
    }
}

fn find(text: &[u8], mark: &[u8]) -> Option<usize> {
    text.windows(mark.len()).position(|window| window == mark)
}

/// Streams.
impl Client {
    /// Opens a stream to `host`; gives header and features.
    #[track_caller]
    pub fn open(&mut self, host: &str) -> String {
        self.send(header(host));
        self.expect("</stream:features>")
    }

    /// SASL by SCRAM; gives the failure's condition if it fails. `binding` is the GS2 flag with its data.
    pub fn scram(
        &mut self,
        mechanism: &str,
        user: &str,
        password: &str,
        binding: (&str, &[u8]),
    ) -> Result<String, String> {
        let mut scram = Scram::new(mechanism, user, password, binding);
        self.send(format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='{mechanism}'>{}</auth>",
            b64(scram.first())
        ));
        let challenge = self.expect_sasl()?;
        self.send(format!(
            "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{}</response>",
            b64(scram.last(&challenge))
        ));
        let last = self.expect_sasl()?;
        assert_eq!(last, scram.server_final(), "the server proves that it knows the keys");
        Ok(challenge)
    }

    /// Challenge or success, decoded; or the failure's condition.
    pub fn expect_sasl(&mut self) -> Result<String, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let text = String::from_utf8_lossy(&self.seen).into_owned();
            for (name, good) in [("challenge", true), ("success", true), ("failure", false)] {
                let end = format!("</{name}>");
                if let Some(at) = text.find(&end) {
                    let element = self.expect(&end);
                    assert_eq!(element.len(), at + end.len());
                    return if good { Ok(decoded(between(&element, "'>", "</"))) } else { Err(condition(&element)) };
                }
            }
            assert!(!self.eof, "the stream ended; transcript:\n{}", self.transcript);
            assert!(self.read_before(deadline), "no answer; transcript:\n{}", self.transcript);
        }
    }

    /// Authenticates on the plain listener, up to the features after it, which it gives. The account is made if need be.
    pub fn authenticated(server: &Server, user: &str, host: &str) -> (Client, String) {
        server.ensure(&format!("{user}@{host}"));
        let mut client = Client::connect(server.plain);
        client.open(host);
        client.scram("SCRAM-SHA-1", user, user, ("n,,", b"")).unwrap_or_else(|why| panic!("{user}: {why}"));
        let features = client.open(host);
        (client, features)
    }

    #[track_caller]
    pub fn bind(&mut self, resource: &str) {
        self.send(format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>{resource}</resource></bind></iq>"
        ));
        let answer = self.expect("</iq>");
        self.jid = between(&answer, "<jid>", "</jid>").to_owned();
    }

    /// A bound session on the plain listener, that says no presence.
    pub fn session(server: &Server, user: &str, resource: &str) -> Client {
        let (mut client, _) = Client::authenticated(server, user, "localhost");
        client.bind(resource);
        client
    }

    /// An available session.
    pub fn available(server: &Server, user: &str, resource: &str) -> Client {
        let mut client = Client::session(server, user, resource);
        client.send("<presence/>");
        client.sync();
        client
    }

    /// Waits until all before is done; gives what came meanwhile.
    #[track_caller]
    pub fn sync(&mut self) -> String {
        self.pings += 1;
        let id = format!("sync-{}", self.pings);
        self.send(format!("<iq type='get' id='{id}'><ping xmlns='urn:xmpp:ping'/></iq>"));
        let before = self.expect(&format!("id='{id}'"));
        let rest = self.expect(">");
        if !rest.ends_with("/>") {
            self.expect("</iq>");
        }
        before[..before.rfind("<iq").expect("the mark stands in an iq")].to_owned()
    }

    /// `<enable/>` with resumption; gives the id.
    pub fn manage(&mut self) -> String {
        self.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
        self.expect("<enabled ");
        let enabled = self.expect("/>");
        attribute(&enabled, "id").to_owned()
    }
}

/// A stream header, as clients send it.
pub fn header(host: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream to='{host}' version='1.0' xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    )
}

/// What stands between the first `start` and the next `end`.
#[track_caller]
pub fn between<'t>(text: &'t str, start: &str, end: &str) -> &'t str {
    let from = text.find(start).unwrap_or_else(|| panic!("no {start:?} in {text:?}")) + start.len();
    let to = text[from..].find(end).unwrap_or_else(|| panic!("no {end:?} in {text:?}"));
    &text[from..from + to]
}

/// The value of the first attribute of that name.
#[track_caller]
pub fn attribute<'t>(text: &'t str, name: &str) -> &'t str {
    let text_of = format!(" {name}='");
    match text.strip_prefix(&text_of[1..]) {
        Some(rest) => &rest[..rest.find('\'').expect("a quote ends it")],
        None => between(text, &text_of, "'"),
    }
}

/// The name of the first child of an error or failure.
#[track_caller]
pub fn condition(element: &str) -> String {
    let at = element.find('>').unwrap_or_else(|| panic!("no tag in {element:?}"));
    let child = &element[at + 1..];
    let name = child.trim_start_matches('<');
    name[..name.find([' ', '/', '>']).unwrap_or(name.len())].to_owned()
}

fn decoded(text: &str) -> String {
    let bytes =
        if text == "=" { Vec::new() } else { BASE64.decode(text).unwrap_or_else(|_| panic!("no base64: {text:?}")) };
    String::from_utf8(bytes).expect("SCRAM is text")
}

pub fn unb64(text: &str) -> Vec<u8> {
    BASE64.decode(text).unwrap_or_else(|_| panic!("no base64: {text:?}"))
}

/// The client's side of SCRAM, RFC 5802.
pub struct Scram {
    sha256: bool,
    password: String,
    gs2: String,
    bound: Vec<u8>,
    bare: String,
    server_final: String,
}

impl Scram {
    pub fn new(mechanism: &str, user: &str, password: &str, (gs2, data): (&str, &[u8])) -> Scram {
        static NONCE: AtomicU32 = AtomicU32::new(0);
        let nonce = NONCE.fetch_add(1, Ordering::Relaxed);
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Scram {
            sha256: mechanism.starts_with("SCRAM-SHA-256"),
            password: password.into(),
            gs2: gs2.into(),
            bound: [gs2.as_bytes(), data].concat(),
            bare: format!("n={user},r=client-nonce-{nonce}"),
            server_final: String::new(),
        }
    }

    pub fn first(&self) -> String {
        format!("{}{}", self.gs2, self.bare)
    }

    pub fn last(&mut self, server_first: &str) -> String {
        let field = |name: &str| {
            server_first.split(',').find_map(|field| field.strip_prefix(name)).expect("a field").to_owned()
        };
        let without_proof = format!("c={},r={}", b64(&self.bound), field("r="));
        let message = format!("{},{server_first},{without_proof}", self.bare);
        let salted = self.pbkdf2(&unb64(&field("s=")), field("i=").parse().expect("a number"));
        let client_key = self.hmac(&salted, b"Client Key");
        let signature = self.hmac(&self.digest(&client_key), message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        let server_key = self.hmac(&salted, b"Server Key");
        self.server_final = format!("v={}", b64(self.hmac(&server_key, message.as_bytes())));
        format!("{without_proof},p={}", b64(proof))
    }

    pub fn server_final(&self) -> &str {
        &self.server_final
    }

    fn pbkdf2(&self, salt: &[u8], rounds: u32) -> Vec<u8> {
        use aws_lc_rs::pbkdf2;
        let (algorithm, length) =
            if self.sha256 { (pbkdf2::PBKDF2_HMAC_SHA256, 32) } else { (pbkdf2::PBKDF2_HMAC_SHA1, 20) };
        let mut out = vec![0; length];
        pbkdf2::derive(algorithm, rounds.try_into().expect("rounds"), salt, self.password.as_bytes(), &mut out);
        out
    }

    fn hmac(&self, key: &[u8], message: &[u8]) -> Vec<u8> {
        use aws_lc_rs::hmac;
        let algorithm = if self.sha256 { hmac::HMAC_SHA256 } else { hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY };
        hmac::sign(&hmac::Key::new(algorithm, key), message).as_ref().to_vec()
    }

    fn digest(&self, message: &[u8]) -> Vec<u8> {
        use aws_lc_rs::digest;
        let algorithm = if self.sha256 { &digest::SHA256 } else { &digest::SHA1_FOR_LEGACY_USE_ONLY };
        digest::digest(algorithm, message).as_ref().to_vec()
    }
}

/// TLS's exporter of this connection, RFC 9266.
impl Client {
    pub fn exporter(&self) -> Vec<u8> {
        let tls = self.tls.as_ref().expect("TLS is up");
        tls.export_keying_material(vec![0; 32], b"EXPORTER-Channel-Binding", Some(b"")).expect("the handshake is done")
    }
}
