//! Whom we believe and what we show: the TLS of streams between servers. RFC 6120 §13.7, XEP-0178.

use crate::certificates::anybody::Anybody;
use crate::certificates::{ALPN_SERVER, Certificates, names_of_server, provider, read_chain};
use crate::client::trust::add_system;
use crate::config::Federation;
use rustls::client::{ResolvesClientCert, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme};
use std::sync::Arc;
use stream::PeerCertificate;

/// The authorities for other servers' certificates, and our own certificates.
pub struct Trust {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
    certificates: Arc<Certificates>,
}

impl Trust {
    /// # Errors
    /// The file of authorities cannot be used.
    pub fn load(config: &Federation, certificates: Arc<Certificates>) -> Result<Trust, String> {
        let mut roots = RootCertStore::empty();
        if config.system_ca {
            add_system(&mut roots);
        }
        if let Some(file) = &config.ca {
            for authority in read_chain(file).map_err(|error| error.to_string())? {
                roots.add(authority).map_err(|error| {
                    format!("{} holds a certificate that is no authority: {error}\nname the certificates of those who sign other servers' certificates in s2s.ca", file.display())
                })?;
            }
        }
        Ok(Trust { roots, provider: provider(), certificates })
    }

    /// What a chain that the peer showed says of it. In both directions the purpose must be that of servers: such
    /// certificates are what authorities give to servers.
    pub fn judge(&self, chain: &[CertificateDer<'_>]) -> Option<PeerCertificate> {
        let own = chain.first()?;
        let valid = self.verify(chain);
        if let Err(error) = &valid {
            tracing::debug!(%error, "another server's certificate is not trusted");
        }
        Some(PeerCertificate { valid: valid.is_ok(), ..names_of_server(own) })
    }

    /// Does the chain lead to an authority, and is it in force?
    ///
    /// # Errors
    /// Why not, for people.
    pub fn verify(&self, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        self.verify_with(&self.roots, chain)
    }

    /// The same, to this authority alone.
    ///
    /// # Errors
    /// Why not, for people.
    pub fn verify_under(&self, authority: &CertificateDer<'_>, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone().into_owned()).map_err(|error| error.to_string())?;
        self.verify_with(&roots, chain)
    }

    fn verify_with(&self, roots: &RootCertStore, chain: &[CertificateDer<'_>]) -> Result<(), String> {
        let (own, others) = chain.split_first().ok_or("no certificate")?;
        let verified = ParsedCertificate::try_from(own).and_then(|parsed| {
            verify_server_cert_signed_by_trust_anchor(
                &parsed,
                roots,
                others,
                UnixTime::now(),
                self.provider.signature_verification_algorithms.all,
            )
        });
        verified.map_err(|error| error.to_string())
    }

    /// TLS of a stream that another server opens and that named `host`, or nobody yet.
    pub fn listening(&self, host: Option<&str>) -> Arc<rustls::ServerConfig> {
        self.certificates.servers(host)
    }

    /// TLS of a stream that we open for `host`; what the peer shows is judged afterwards.
    ///
    /// # Errors
    /// Only what a bug can cause.
    pub fn dialling(&self, host: &str, direct_tls: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody::new(self.provider.clone())))
            .with_client_cert_resolver(Arc::new(Own(self.certificates.own(host))));
        config.require_ems = true;
        config.resumption = rustls::client::Resumption::disabled();
        if direct_tls {
            config.alpn_protocols = vec![ALPN_SERVER.to_vec()];
        }
        Ok(Arc::new(config))
    }
}

/// The name that TLS asks for, in ASCII (RFC 6066 §3); a domain that has none asks for its address.
pub fn server_name(domain: &str) -> Option<ServerName<'static>> {
    ServerName::try_from(ascii(domain)?).ok()
}

/// A prepared domain with A-labels, a literal address without brackets.
pub fn ascii(domain: &str) -> Option<String> {
    if domain.is_ascii() {
        return Some(domain.trim_matches(['[', ']']).to_owned());
    }
    xmpp::jid::domain_to_ascii(domain)
}

/// Shows the host's certificate to whoever asks.
#[derive(Debug)]
struct Own(Option<Arc<CertifiedKey>>);

impl ResolvesClientCert for Own {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.clone().filter(|own| own.key.choose_scheme(schemes).is_some())
    }
    fn has_certs(&self) -> bool {
        self.0.is_some()
    }
}
