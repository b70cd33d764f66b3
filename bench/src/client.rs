//! A client that costs little: raw bytes, ends of stanzas found by search, nothing parsed.

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use std::io;
use std::num::NonZeroU32;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpSocket;

pub trait Pipe: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Pipe for T {}

/// So many clients come from an address: where half of the ports of one are taken, the kernel looks long for another.
const EACH_ADDRESS: usize = 5_000;

/// How clients reach a server.
#[derive(Clone)]
pub struct Target {
    pub address: std::net::SocketAddr,
    pub domain: String,
    /// Direct TLS; else clear.
    pub tls: Option<Arc<rustls::ClientConfig>>,
    /// STARTTLS on the clear port (servers without direct TLS).
    pub starttls: bool,
    /// The address that clients come from.
    pub from: std::net::Ipv4Addr,
}

impl Target {
    /// For the n-th of thousands of clients, which come from several loopback addresses.
    pub fn of_client(&self, n: usize) -> Target {
        Target { from: std::net::Ipv4Addr::new(127, 0, 1, (1 + n / EACH_ADDRESS) as u8), ..self.clone() }
    }
}

/// How a client authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// As every peer can.
    ScramSha1,
    Plain,
    /// With a token of an earlier time, and the binding in the same step (XEP-0388, 0386, 0484).
    Fast,
}

const FAST: &str = "HT-SHA-256-NONE";
const SASL: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

pub struct Client {
    pub pipe: Box<dyn Pipe>,
    pub jid: String,
    pub buffer: Vec<u8>,
}

fn bad(what: &str, got: &[u8]) -> io::Error {
    io::Error::other(format!("expected {what}, got {:?}", String::from_utf8_lossy(&got[..got.len().min(400)])))
}

impl Client {
    /// A connection, and nothing said.
    pub async fn bare(target: &Target, jid: &str) -> io::Result<Client> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((target.from, 0).into())?;
        let tcp = socket.connect(target.address).await?;
        tcp.set_nodelay(true)?;
        Ok(Client { pipe: Box::new(tcp), jid: jid.to_owned(), buffer: Vec::new() })
    }

    async fn open(target: &Target) -> io::Result<Client> {
        let mut client = Client::bare(target, "").await?;
        if let Some(tls) = &target.tls {
            if target.starttls {
                client.header(target).await?;
                client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>").await?;
                client.until("<proceed").await?;
                client.buffer.clear();
            }
            let name = rustls::pki_types::ServerName::try_from(target.domain.clone()).map_err(io::Error::other)?;
            client.pipe = Box::new(tokio_rustls::TlsConnector::from(tls.clone()).connect(name, client.pipe).await?);
        }
        client.header(target).await?;
        Ok(client)
    }

    /// Connects, authenticates with SCRAM-SHA-1, binds.
    pub async fn login(target: &Target, user: &str, password: &str, resource: &str) -> io::Result<Client> {
        Client::enter(target, Mechanism::ScramSha1, user, password, resource).await
    }

    /// Connects, authenticates, binds. `secret`: the password, or the token of [`Mechanism::Fast`].
    pub async fn enter(
        target: &Target,
        mechanism: Mechanism,
        user: &str,
        secret: &str,
        resource: &str,
    ) -> io::Result<Client> {
        let mut client = Client::open(target).await?;
        match mechanism {
            Mechanism::ScramSha1 => client.scram(user, secret).await?,
            Mechanism::Plain => {
                let response = BASE64.encode(format!("\0{user}\0{secret}"));
                client.ask(&format!("<auth xmlns='{SASL}' mechanism='PLAIN'>{response}</auth>"), "<success").await?;
            }
            Mechanism::Fast => return client.fast(user, secret, resource).await,
        }
        client.header(target).await?;
        let bound = client
            .ask(
                &format!(
                    "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
                     <resource>{resource}</resource></bind></iq>"
                ),
                "</iq>",
            )
            .await?;
        client.jid = between(&bound, "<jid>", "</jid>")?;
        client
            .ask("<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>", "id='s'|id=\"s\"")
            .await?;
        Ok(client)
    }

    /// Logs in with the password to ask for a token.
    pub async fn token(target: &Target, user: &str, password: &str) -> io::Result<String> {
        let response = BASE64.encode(format!("\0{user}\0{password}"));
        let request = format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{FAST}'/>");
        let mut client = Client::open(target).await?;
        let answer = client.ask(&authenticate("PLAIN", &response, user, &request), "</success>").await?;
        let answer = between(&answer, "<token", ">")?;
        answer
            .split("token=")
            .nth(1)
            .and_then(|it| it.split(['\'', '"']).nth(1))
            .map(str::to_owned)
            .ok_or_else(|| bad("a token", answer.as_bytes()))
    }

    async fn fast(mut self, user: &str, token: &str, resource: &str) -> io::Result<Client> {
        let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
        let proof = hmac::sign(&key, b"Initiator");
        let response = BASE64.encode([user.as_bytes(), b"\0", proof.as_ref()].concat());
        let inline =
            format!("<bind xmlns='urn:xmpp:bind:0'><tag>{resource}</tag></bind><fast xmlns='urn:xmpp:fast:0'/>");
        let answer = self.ask(&authenticate(FAST, &response, user, &inline), "</stream:features>").await?;
        self.jid = between(&answer, "<authorization-identifier>", "</authorization-identifier>")?;
        Ok(self)
    }

    /// Becomes available.
    pub async fn come(&mut self) -> io::Result<()> {
        self.ask("<presence/>", "</presence>|/>").await?;
        self.buffer.clear();
        Ok(())
    }

    /// Registers by XEP-0077; an account that is there already is no error.
    pub async fn register(target: &Target, user: &str, password: &str) -> io::Result<()> {
        let mut client = Client::open(target).await?;
        client
            .ask(&format!("<iq type='set' id='r' to='{}'><query xmlns='jabber:iq:register'><username>{user}</username><password>{password}</password></query></iq>", target.domain), "id='r'|id=\"r\"")
            .await
            .map(|_| ())
    }

    async fn header(&mut self, target: &Target) -> io::Result<()> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
            target.domain
        );
        self.ask(&header, "</stream:features>").await.map(|_| ())
    }

    async fn scram(&mut self, user: &str, password: &str) -> io::Result<()> {
        let nonce = BASE64.encode(user.as_bytes());
        let first = format!("n={user},r={nonce}");
        let challenge = self
            .ask(
                &format!(
                    "<auth xmlns='{SASL}' mechanism='SCRAM-SHA-1'>{}</auth>",
                    BASE64.encode(format!("n,,{first}"))
                ),
                "</challenge>",
            )
            .await?;
        let text = inner(&challenge, "challenge");
        let server = BASE64
            .decode(text)
            .ok()
            .and_then(|b| String::from_utf8(b).ok())
            .ok_or_else(|| bad("a challenge", &challenge))?;
        let field = |key: &str| server.split(',').find_map(|f| f.strip_prefix(key)).unwrap_or_default().to_string();
        let (both, salt, rounds) = (
            field("r="),
            BASE64.decode(field("s=")).unwrap_or_default(),
            field("i=").parse().unwrap_or(NonZeroU32::MIN),
        );
        let mut salted = [0; 20];
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA1, rounds, &salt, password.as_bytes(), &mut salted);
        let mac = |key: &[u8], text: &[u8]| hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key), text);
        let key = mac(&salted, b"Client Key");
        let stored = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_ref());
        let bare = format!("c=biws,r={both}");
        let signature = mac(stored.as_ref(), format!("{first},{server},{bare}").as_bytes());
        let proof: Vec<u8> = key.as_ref().iter().zip(signature.as_ref()).map(|(a, b)| a ^ b).collect();
        self.ask(
            &format!(
                "<response xmlns='{SASL}'>{}</response>",
                BASE64.encode(format!("{bare},p={}", BASE64.encode(proof)))
            ),
            "<success",
        )
        .await?;
        Ok(())
    }

    pub async fn send(&mut self, text: &str) -> io::Result<()> {
        self.pipe.write_all(text.as_bytes()).await?;
        self.pipe.flush().await
    }

    /// Sends, and reads until one of the marks (`a|b`) has come; gives all read.
    pub async fn ask(&mut self, text: &str, marks: &str) -> io::Result<Vec<u8>> {
        self.buffer.clear();
        self.send(text).await?;
        self.until(marks).await?;
        Ok(std::mem::take(&mut self.buffer))
    }

    pub async fn until(&mut self, marks: &str) -> io::Result<()> {
        loop {
            if marks.split('|').any(|mark| memchr::memmem::find(&self.buffer, mark.as_bytes()).is_some()) {
                return Ok(());
            }
            for failure in ["<failure", "<stream:error", "<not-authorized"] {
                if memchr::memmem::find(&self.buffer, failure.as_bytes()).is_some() {
                    return Err(bad(marks, &self.buffer));
                }
            }
            let mut piece = [0; 16384];
            match self.pipe.read(&mut piece).await? {
                0 => return Err(bad(marks, &self.buffer)),
                n => self.buffer.extend_from_slice(&piece[..n]),
            }
        }
    }

    /// Reads once and counts how often `mark` came; a mark may be cut by the read.
    pub async fn count(&mut self, mark: &[u8], piece: &mut [u8]) -> io::Result<usize> {
        let n = self.pipe.read(piece).await?;
        if n == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut count = 0;
        let mut rest = &piece[..n];
        if !self.buffer.is_empty() {
            let held = self.buffer.len();
            let take = rest.len().min(mark.len() - 1);
            self.buffer.extend_from_slice(&rest[..take]);
            count += memchr::memmem::find_iter(&self.buffer, mark).filter(|at| *at < held).count();
        }
        count += memchr::memmem::find_iter(rest, mark).count();
        let keep = rest.len().min(mark.len() - 1);
        rest = &rest[rest.len() - keep..];
        self.buffer.clear();
        self.buffer.extend_from_slice(rest);
        Ok(count)
    }
}

/// SASL2 (XEP-0388); the user agent is the same for the same user.
fn authenticate(mechanism: &str, response: &str, user: &str, inline: &str) -> String {
    let number: u64 = user.bytes().fold(7, |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'><initial-response>{response}</initial-response>\
         <user-agent id='d4565fa7-4d72-4749-b3d3-{:012x}'/>{inline}</authenticate>",
        number & 0xffff_ffff_ffff
    )
}

fn between(bytes: &[u8], from: &str, to: &str) -> io::Result<String> {
    let text = String::from_utf8_lossy(bytes);
    let found = text.split_once(from).and_then(|(_, rest)| rest.split_once(to)).map(|(found, _)| found.to_owned());
    found.ok_or_else(|| bad(from, bytes))
}

fn inner<'a>(bytes: &'a [u8], name: &str) -> &'a str {
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    let from = text.find(&format!("<{name}")).and_then(|at| text[at..].find('>').map(|e| at + e + 1));
    match (from, text.find(&format!("</{name}>"))) {
        (Some(from), Some(to)) if from <= to => &text[from..to],
        _ => "",
    }
}

/// Accepts any certificate: these are servers that the bench itself started.
pub fn trusting() -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .expect("the default versions suit the default provider");
    let mut config = config.dangerous().with_custom_certificate_verifier(Arc::new(Any(provider))).with_no_client_auth();
    // Whole handshakes, of every server.
    config.resumption = rustls::client::Resumption::disabled();
    Arc::new(config)
}

#[derive(Debug)]
struct Any(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Any {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        m: &[u8],
        c: &rustls::pki_types::CertificateDer<'_>,
        d: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(m, c, d, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
