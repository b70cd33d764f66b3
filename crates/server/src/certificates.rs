//! Certificates and TLS: one certificate a host, self-signed until the operator gives one, replaced while serving.
//!
//! ```text
//! Certificates::load(&Config) -> Result<Certificates, CertificateError>    makes self-signed ones where none is
//!     .reload(&Config) -> Result<(), CertificateError>     new connections see the new ones; on error all stays
//!     .starttls(to) / .direct() -> Offer                   take one a connection
//! Offer { config: Arc<rustls::ServerConfig> }
//!     .end_point(sni) -> Option<Arc<[u8]>>                 tls-server-end-point of the certificate that was shown
//!     .client_jids(host, chain) -> Option<Vec<BareJid>>    whom a client certificate speaks for; None: not valid
//! ```
//!
//! TLS 1.2 (only with the extended master secret, RFC 7627) and 1.3, by rustls on aws-lc-rs. Tickets are stateless.

pub mod anybody;
pub mod shown;
pub mod watch;

use crate::acme;
use crate::acme::answers::Answers;
use crate::acme::keeper::Renewals;
use crate::config::{AcmeChallenge, Config, Host, HostOptions};
use crate::data;
use anybody::Anybody;
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, NoServerSessionStorage, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use xmpp::BareJid;

/// The ALPN protocol of direct TLS. XEP-0368 §3.
pub const ALPN_CLIENT: &[u8] = b"xmpp-client";

/// The ALPN protocol of direct TLS between servers. XEP-0368 §3.
pub const ALPN_SERVER: &[u8] = b"xmpp-server";

/// What is wrong with a certificate or key, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateError(pub String);

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for CertificateError {}

/// All hosts' certificates as they are now.
pub struct Certificates {
    ticketer: Arc<dyn ProducesTickets>,
    current: RwLock<Arc<Current>>,
    /// What an authority of certificates is answered.
    pub answers: Arc<Answers>,
    /// What becomes of certificates that such an authority gives.
    pub renewals: Arc<Renewals>,
}

/// The certificates of one moment; never changed, only replaced.
struct Current {
    hosts: Vec<HostTls>,
    direct: Arc<ServerConfig>,
}

struct HostTls {
    domain: Box<str>,
    end_point: Option<Arc<[u8]>>,
    /// Judges client certificates; `None`: this host accepts none.
    clients: Option<Arc<dyn ClientCertVerifier>>,
    /// For STARTTLS to this host; shows its certificate where the client names no other by SNI.
    starttls: Arc<ServerConfig>,
    /// The same to other servers: each is asked for its certificate.
    servers: Arc<ServerConfig>,
    certificate: Arc<CertifiedKey>,
}

impl Certificates {
    /// Reads every host's certificate; where there is none, makes a self-signed one. Blocks on files.
    ///
    /// # Errors
    /// The first certificate, key or authority that cannot be used.
    pub fn load(config: &Config) -> Result<Certificates, CertificateError> {
        let ticketer = rustls::crypto::aws_lc_rs::Ticketer::new()
            .map_err(|error| CertificateError(format!("no key for session tickets: {error}")))?;
        let answers = Arc::new(Answers::default());
        let current = RwLock::new(Arc::new(Current::load(config, &ticketer, &answers)?));
        Ok(Certificates { ticketer, current, answers, renewals: Arc::default() })
    }

    /// Reads all again; connections from now on see the new ones.
    ///
    /// # Errors
    /// As [`Certificates::load`]; then the old ones stay.
    pub fn reload(&self, config: &Config) -> Result<(), CertificateError> {
        let new = Arc::new(Current::load(config, &self.ticketer, &self.answers)?);
        *self.current.write() = new;
        Ok(())
    }

    /// When each domain's certificate ends, seconds since the epoch.
    pub fn ends(&self) -> Vec<(Box<str>, i64)> {
        let current = self.current.read().clone();
        let end = |host: &HostTls| {
            let (_, parsed) = X509Certificate::from_der(host.certificate.cert.first()?).ok()?;
            Some((host.domain.clone(), parsed.validity().not_after.timestamp()))
        };
        current.hosts.iter().filter_map(end).collect()
    }

    /// For a stream that asked for STARTTLS; `to` is the host its header named.
    pub fn starttls(&self, to: Option<&str>) -> Offer {
        let current = self.current.read().clone();
        let host = to.and_then(|to| current.position(to)).unwrap_or(0);
        Offer { config: current.hosts[host].starttls.clone(), current, host }
    }

    /// For another server's stream, which named `to`, or nobody yet.
    pub fn servers(&self, to: Option<&str>) -> Arc<ServerConfig> {
        let current = self.current.read().clone();
        current.hosts[to.and_then(|to| current.position(to)).unwrap_or(0)].servers.clone()
    }

    /// A host's certificate and key, to show to another server.
    pub fn own(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let current = self.current.read().clone();
        current.position(host).map(|at| current.hosts[at].certificate.clone())
    }

    /// For a connection with TLS from the first byte, ALPN `xmpp-client`. XEP-0368.
    pub fn direct(&self) -> Offer {
        let current = self.current.read().clone();
        Offer { config: current.direct.clone(), current, host: 0 }
    }
}

/// What one connection is offered; keeps the certificates of its moment.
#[derive(Clone)]
pub struct Offer {
    pub config: Arc<ServerConfig>,
    current: Arc<Current>,
    /// Whose certificate is shown without SNI.
    host: usize,
}

impl Offer {
    /// The channel binding `tls-server-end-point` (RFC 5929 §4) of the certificate that was shown. `sni` is the name
    /// that the client asked for, as rustls tells it. `None` if the certificate's signature has no such hash.
    pub fn end_point(&self, sni: Option<&str>) -> Option<Arc<[u8]>> {
        let at = sni.and_then(|name| self.current.position(name)).unwrap_or(self.host);
        self.current.hosts[at].end_point.clone()
    }

    /// The accounts of `host` that a client certificate names (XmppAddr, RFC 6120 §13.7.1.4), provided that the host's
    /// `client_ca` vouches for it; XEP-0178 §2. That the client holds the key was verified in the handshake. `None`:
    /// the certificate is not valid here.
    pub fn client_jids(&self, host: &str, chain: &[CertificateDer<'_>]) -> Option<Vec<BareJid>> {
        let verifier = self.current.hosts[self.current.position(host)?].clients.as_ref()?;
        let (own, others) = chain.split_first()?;
        if let Err(error) = verifier.verify_client_cert(own, others, UnixTime::now()) {
            tracing::debug!(host, %error, "client certificate refused");
            return None;
        }
        let jids = xmpp_addresses(own).into_iter().filter_map(|address| BareJid::parse(&address).ok());
        Some(
            jids.filter(|jid| {
                jid.local().is_some() && self.current.position(jid.domain()) == self.current.position(host)
            })
            .collect(),
        )
    }
}

impl Current {
    fn load(
        config: &Config,
        ticketer: &Arc<dyn ProducesTickets>,
        answers: &Arc<Answers>,
    ) -> Result<Current, CertificateError> {
        let provider = provider();
        let mut loaded = Vec::new();
        for host in &certified(config) {
            let certificate = Arc::new(load_host(config, host, &provider)?);
            let clients =
                host.options.client_ca.as_deref().map(|file| load_authorities(file, &provider)).transpose()?;
            loaded.push((host.domain.clone(), certificate, clients));
        }
        let shown: Arc<[(Box<str>, Arc<CertifiedKey>)]> =
            loaded.iter().map(|(domain, certificate, _)| (domain.clone(), certificate.clone())).collect();
        // Clients are asked for a certificate only where one can count.
        let hints: Vec<rustls::DistinguishedName> = loaded
            .iter()
            .filter_map(|(_, _, clients)| clients.as_ref())
            .flat_map(|it| it.root_hint_subjects().to_vec())
            .collect();
        let asks = loaded.iter().any(|(_, _, clients)| clients.is_some());
        let verifier =
            asks.then(|| Arc::new(Anybody::asked_for(provider.clone(), hints)) as Arc<dyn ClientCertVerifier>);

        let anybody: Arc<dyn ClientCertVerifier> = Arc::new(Anybody::new(provider.clone()));
        let build = |fallback: usize,
                     alpn: &[&[u8]],
                     verifier: Option<&Arc<dyn ClientCertVerifier>>|
         -> Result<Arc<ServerConfig>, CertificateError> {
            let builder = ServerConfig::builder_with_provider(provider.clone())
                .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
                .map_err(|error| CertificateError(format!("TLS cannot be set up: {error}")))?;
            let answers = alpn.contains(&acme::answers::ALPN).then(|| answers.clone());
            let builder = match verifier {
                Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
                None => builder.with_no_client_auth(),
            };
            let mut server = builder.with_cert_resolver(Arc::new(BySni { shown: shown.clone(), fallback, answers }));
            server.require_ems = true;
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.ticketer = ticketer.clone();
            server.send_tls13_tickets = 1;
            server.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
            Ok(Arc::new(server))
        };
        let proves = config.uses_acme() && config.acme.challenge == AcmeChallenge::TlsAlpn01;
        let protocols: &[&[u8]] = if proves { &[ALPN_CLIENT, acme::answers::ALPN] } else { &[ALPN_CLIENT] };
        let direct = build(0, protocols, verifier.as_ref())?;
        let hosts = loaded
            .into_iter()
            .enumerate()
            .map(|(at, (domain, certificate, clients))| {
                let end_point = certificate.cert.first().and_then(end_point_hash);
                let starttls = build(at, &[], verifier.as_ref())?;
                let servers = build(at, &[ALPN_SERVER], Some(&anybody))?;
                Ok(HostTls { domain, end_point, clients, starttls, servers, certificate })
            })
            .collect::<Result<Vec<_>, CertificateError>>()?;
        Ok(Current { hosts, direct })
    }

    fn position(&self, name: &str) -> Option<usize> {
        position(self.hosts.iter().map(|host| &*host.domain), name)
    }
}

/// Which of the domains a name means: as it is, or prepared (an A-label, upper case, a final dot).
fn position<'d>(domains: impl Iterator<Item = &'d str> + Clone, name: &str) -> Option<usize> {
    domains.clone().position(|domain| domain == name).or_else(|| {
        let prepared = xmpp::jid::prepare_domain(name).ok()?;
        domains.clone().position(|domain| domain == prepared)
    })
}

/// The only provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Shows the certificate of the host that the client asks for, else that of the fallback.
#[derive(Debug)]
struct BySni {
    shown: Arc<[(Box<str>, Arc<CertifiedKey>)]>,
    fallback: usize,
    /// To an authority that looks whether a name is ours (RFC 8737).
    answers: Option<Arc<Answers>>,
}

impl ResolvesServerCert for BySni {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if let Some(shown) = self.answers.as_ref().and_then(|answers| answers.shown(&hello)) {
            return shown;
        }
        let at = hello
            .server_name()
            .and_then(|name| position(self.shown.iter().map(|(domain, _)| &**domain), name))
            .unwrap_or(self.fallback);
        self.shown.get(at).map(|(_, certificate)| certificate.clone())
    }
}

/// Whose certificates there are: the hosts', and where other servers are spoken with also the components'.
fn certified(config: &Config) -> Vec<Host> {
    let mut all = config.hosts.clone();
    if config.federates() {
        all.extend(config.components.iter().map(|component| Host {
            domain: component.domain().into(),
            options: HostOptions {
                certificate: component.certificate.clone(),
                key: component.key.clone(),
                acme: component.acme,
                ..HostOptions::default()
            },
        }));
    }
    all
}

/// Where a host's certificate and key are: as configured, else what an authority gave, else in the data folder.
pub fn paths(config: &Config, host: &Host) -> (PathBuf, PathBuf) {
    let folder = config.certificates_folder();
    if host.options.acme {
        let both = acme::file(config, &host.domain);
        if both.exists() {
            return (both.clone(), both);
        }
    }
    match (&host.options.certificate, &host.options.key) {
        (Some(certificate), Some(key)) => (certificate.clone(), key.clone()),
        _ => (folder.join(format!("{}.pem", host.domain)), folder.join(format!("{}.key", host.domain))),
    }
}

fn load_host(config: &Config, host: &Host, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let (certificate, key) = paths(config, host);
    let configured = host.options.certificate.is_some();
    if !configured && (!certificate.exists() || is_worn_out(&certificate)) {
        make_self_signed(&host.domain, &certificate, &key)?;
        tracing::info!(host = %host.domain, file = %certificate.display(), "made a self-signed certificate");
    }
    let loaded = read_pair(&certificate, &key, provider)?;
    warn_about(host, &certificate, &key, &loaded);
    Ok(loaded)
}

/// What would keep a server from starting: every certificate, key and authority that cannot be used. Writes nothing.
pub fn check(config: &Config) -> Vec<CertificateError> {
    let provider = provider();
    let mut wrong = Vec::new();
    for host in &certified(config) {
        let (certificate, key) = paths(config, host);
        if (host.options.certificate.is_some() || certificate.exists())
            && let Err(error) = read_pair(&certificate, &key, &provider)
        {
            wrong.push(error);
        }
        if let Some(Err(error)) = host.options.client_ca.as_deref().map(|file| load_authorities(file, &provider)) {
            wrong.push(error);
        }
    }
    wrong
}

/// Do a chain and a key (PEM) belong together, and can they be used?
///
/// # Errors
/// Why not, for people.
pub fn check_pair(chain: &str, key: &str) -> Result<(), String> {
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the certificates cannot be read: {error}"))?;
    let own = chain.first().ok_or("there is no certificate in it")?;
    X509Certificate::from_der(own).map_err(|error| format!("the first certificate is damaged: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| format!("no key: {error}"))?;
    let key = provider().key_provider.load_private_key(key).map_err(|error| error.to_string())?;
    CertifiedKey::new(chain, key).keys_match().map_err(|error| error.to_string())
}

/// Reads a chain and its key.
fn read_pair(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let chain = read_chain(certificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        CertificateError(format!("{} holds no private key that can be read: {error}\nit must be a PEM file with a PRIVATE KEY, readable for the user that runs waft", key.display()))
    })?;
    let signing = provider.key_provider.load_private_key(secret).map_err(|error| {
        CertificateError(format!(
            "the key {} cannot be used: {error}\nuse an ECDSA (P-256, P-384), Ed25519 or RSA (2048 bits or more) key",
            key.display()
        ))
    })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => Ok(pair),
        Err(_) => Err(CertificateError(format!(
            "the certificate {} and the key {} do not belong together\nname the key that the certificate was made for",
            certificate.display(),
            key.display()
        ))),
    }
}

/// Reads the certificates of a PEM file, at least one.
///
/// # Errors
/// Says what is wrong with the file.
pub fn read_chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |what: String| {
        CertificateError(format!(
            "{}: {what}\nit must be a PEM file with one or more CERTIFICATEs, the host's own first",
            file.display()
        ))
    };
    let chain = CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(format!("the certificates cannot be read: {error}")))?;
    let Some(own) = chain.first() else {
        return Err(wrong("there is no certificate in it".into()));
    };
    X509Certificate::from_der(own).map_err(|error| wrong(format!("the first certificate is damaged: {error}")))?;
    Ok(chain)
}

fn load_authorities(
    file: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    for authority in read_chain(file)? {
        roots.add(authority).map_err(|error| CertificateError(format!("{} holds a certificate that is no authority: {error}\nname the certificates of those who sign your clients' certificates", file.display())))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .map_err(|error| CertificateError(format!("{} cannot be used for client certificates: {error}\nname the certificates of those who sign your clients' certificates", file.display())))
}

/// Tells the operator what clients will dislike.
fn warn_about(host: &Host, certificate: &Path, key: &Path, loaded: &CertifiedKey) {
    use std::os::unix::fs::MetadataExt;
    if let Ok(found) = std::fs::metadata(key)
        && found.mode() & 0o007 != 0
    {
        tracing::warn!(key = %key.display(), "the private key can be read by everybody on this machine; close it: chmod o= {}", key.display());
    }
    let Some((_, parsed)) = loaded.cert.first().and_then(|own| X509Certificate::from_der(own).ok()) else {
        return;
    };
    let validity = parsed.validity();
    let life = validity.not_after.timestamp() - validity.not_before.timestamp();
    let left = validity.not_after.timestamp() - now_seconds();
    let days = left / 86_400;
    if left < 0 {
        tracing::warn!(host = %host.domain, certificate = %certificate.display(), "the certificate has expired; clients will refuse it: renew it");
    } else if left < (14 * 86_400).min(life / 4) {
        tracing::warn!(host = %host.domain, certificate = %certificate.display(), days, "the certificate expires soon; renew it");
    }
    if host.domain.is_ascii() && !covers(&parsed, &host.domain) {
        tracing::warn!(host = %host.domain, certificate = %certificate.display(), "the certificate does not name the host; clients will refuse it");
    }
}

/// Does the certificate name the domain: a DNS name (also a wildcard for one label), an address, or an XmppAddr?
fn covers(certificate: &X509Certificate<'_>, domain: &str) -> bool {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return false;
    };
    names.value.general_names.iter().any(|name| match name {
        GeneralName::DNSName(name) => {
            name.eq_ignore_ascii_case(domain)
                || name.strip_prefix("*.").is_some_and(|rest| {
                    domain.split_once('.').is_some_and(|(_, parent)| parent.eq_ignore_ascii_case(rest))
                })
        }
        GeneralName::IPAddress(bytes) => {
            ip_of(bytes).is_some_and(|ip| domain.trim_matches(['[', ']']).parse() == Ok(ip))
        }
        GeneralName::OtherName(..) => xmpp_address(name).is_some_and(|jid| jid == domain),
        _ => false,
    })
}

fn ip_of(bytes: &[u8]) -> Option<std::net::IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(std::net::IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from))
        .ok()
}

/// id-on-xmppAddr, RFC 6120 §13.7.1.4.
const XMPP_ADDR: &str = "1.3.6.1.5.5.7.8.5";

/// id-on-dnsSRV, RFC 4985.
const SRV_NAME: &str = "1.3.6.1.5.5.7.8.7";

/// The names of another server's certificate. Whether its chain is good is another question.
pub fn names_of_server(certificate: &CertificateDer<'_>) -> stream::PeerCertificate {
    let mut out = stream::PeerCertificate::default();
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return out };
    let Ok(Some(names)) = parsed.subject_alternative_name() else { return out };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(name) => out.dns_names.push(name.to_string()),
            GeneralName::OtherName(oid, value) if oid.to_id_string() == SRV_NAME => {
                out.srv_names.extend(text_of(value, 0x16).map(str::to_string));
            }
            GeneralName::OtherName(..) => out.xmpp_addresses.extend(xmpp_address(name).map(str::to_string)),
            _ => {}
        }
    }
    out
}

/// All XmppAddr of a certificate, as they stand there.
fn xmpp_addresses(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let Ok(Some(names)) = parsed.subject_alternative_name() else {
        return Vec::new();
    };
    names.value.general_names.iter().filter_map(xmpp_address).map(str::to_string).collect()
}

/// The JID of an `otherName` of type XmppAddr: `[0] EXPLICIT UTF8String`.
fn xmpp_address<'n>(name: &GeneralName<'n>) -> Option<&'n str> {
    let GeneralName::OtherName(oid, value) = name else {
        return None;
    };
    if oid.to_id_string() != XMPP_ADDR {
        return None;
    }
    utf8_string(value)
}

fn utf8_string(der: &[u8]) -> Option<&str> {
    text_of(der, 0x0C)
}

/// The text of a DER string with this tag (UTF8String, IA5String), bare or in an explicit `[0]`.
fn text_of(der: &[u8], string: u8) -> Option<&str> {
    let (tag, content, rest) = der_value(der)?;
    if !rest.is_empty() {
        return None;
    }
    match tag {
        0xA0 => {
            let (tag, text, []) = der_value(content)? else {
                return None;
            };
            if tag != string {
                return None;
            }
            std::str::from_utf8(text).ok()
        }
        tag if tag == string => std::str::from_utf8(content).ok(),
        _ => None,
    }
}

/// Tag, content and what follows of one DER value, with lengths up to 65,535 bytes.
fn der_value(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    Some((tag, rest.get(..length)?, rest.get(length..)?))
}

/// The hash of `tls-server-end-point`: that of the certificate's signature, SHA-256 instead of MD5 and SHA-1.
/// RFC 5929 §4.1.
fn end_point_hash(certificate: &CertificateDer<'static>) -> Option<Arc<[u8]>> {
    use aws_lc_rs::digest;
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let algorithm = x509_parser::signature_algorithm::SignatureAlgorithm::try_from(&parsed.signature_algorithm);
    let name = match algorithm {
        Ok(x509_parser::signature_algorithm::SignatureAlgorithm::RSASSA_PSS(parameters)) => {
            parameters.hash_algorithm_oid().to_id_string()
        }
        _ => parsed.signature_algorithm.algorithm.to_id_string(),
    };
    let hash = match name.as_str() {
        // MD5, SHA-1 and SHA-256: with RSA, with ECDSA, alone.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.10045.4.1"
        | "1.3.14.3.2.26"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.3.2"
        | "2.16.840.1.101.3.4.2.1" => &digest::SHA256,
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" | "2.16.840.1.101.3.4.2.2" => &digest::SHA384,
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" | "2.16.840.1.101.3.4.2.3" => &digest::SHA512,
        _ => return None,
    };
    Some(digest::digest(hash, certificate).as_ref().into())
}

/// Marks what waft made itself and may replace.
const ORGANISATION: &str = "waft self-signed";
/// Clients pin what they once trusted, so it stays long.
const SELF_SIGNED_YEARS: i64 = 10;

/// Did waft make this certificate, and does it end within 30 days?
fn is_worn_out(file: &Path) -> bool {
    let Ok(chain) = read_chain(file) else {
        return false;
    };
    let Some((_, parsed)) = chain.first().and_then(|own| X509Certificate::from_der(own).ok()) else {
        return false;
    };
    let ours = parsed.subject().iter_organization().any(|name| name.as_str() == Ok(ORGANISATION))
        && parsed.subject() == parsed.issuer();
    ours && parsed.validity().not_after.timestamp() - now_seconds() < 30 * 86_400
}

fn now_seconds() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64)
}

/// Makes a key and a self-signed certificate that names the domain (DNS name or address, and XmppAddr).
fn make_self_signed(domain: &str, certificate: &Path, key: &Path) -> Result<(), CertificateError> {
    make_self_signed_until(domain, certificate, key, now_seconds() + SELF_SIGNED_YEARS * 31_557_600)
}

fn make_self_signed_until(
    domain: &str,
    certificate: &Path,
    key: &Path,
    not_after: i64,
) -> Result<(), CertificateError> {
    let made = self_signed(domain, not_after).map_err(|error| CertificateError(format!("a self-signed certificate for {domain} cannot be made: {error}\nset certificate and key in [host.\"{domain}\"]")))?;
    let written = certificate
        .parent()
        .map_or(Ok(()), data::make_subfolder)
        .and_then(|()| data::write_secret(key, made.1.as_bytes()))
        .and_then(|()| data::write_secret(certificate, made.0.as_bytes()));
    written.map_err(|error| CertificateError(format!("the self-signed certificate {} cannot be written: {error}\nlet the user that runs waft write in that folder", certificate.display())))
}

/// Certificate and key, PEM.
fn self_signed(domain: &str, not_after: i64) -> Result<(String, String), rcgen::Error> {
    use rcgen::{
        CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
        OtherNameValue, SanType,
    };
    let mut parameters = CertificateParams::default();
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, domain);
    subject.push(DnType::OrganizationName, ORGANISATION);
    parameters.distinguished_name = subject;
    match domain.trim_matches(['[', ']']).parse() {
        Ok(address) => parameters.subject_alt_names.push(SanType::IpAddress(address)),
        // A name beyond ASCII stands in the XmppAddr alone.
        Err(_) if domain.is_ascii() => parameters.subject_alt_names.push(SanType::DnsName(domain.try_into()?)),
        Err(_) => {}
    }
    let oid = XMPP_ADDR.split('.').filter_map(|part| part.parse().ok()).collect();
    parameters.subject_alt_names.push(SanType::OtherName((oid, OtherNameValue::Utf8String(domain.to_string()))));
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let at = |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds.max(0).unsigned_abs());
    parameters.not_before = at(now_seconds() - 86_400);
    parameters.not_after = at(not_after);
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok((certificate.pem(), key.serialize_pem()))
}

#[cfg(test)]
mod tests;
