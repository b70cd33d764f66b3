//! Whose certificates count: the system's authorities and the local server's own; or one file; or, loudly, anybody's.

use crate::certificates::anybody::Anybody;
use crate::certificates::{ALPN_CLIENT, provider, read_chain};
use crate::cli;
use crate::config::Sources;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where systems keep their authorities; the first that is there counts.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
];

/// The TLS of a client that logs in to `domain`.
///
/// # Errors
/// For people: a file that was named and cannot be used.
pub fn tls(arguments: &cli::Client, domain: &str) -> Result<Arc<ClientConfig>, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    let mut tls = if arguments.insecure {
        eprintln!(
            "WARNING: --insecure: the server's certificate is not checked. Whoever is on the way can read and change everything, your password included."
        );
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody::new(provider))).with_no_client_auth()
    } else {
        builder.with_root_certificates(roots(arguments, domain)?).with_no_client_auth()
    };
    tls.require_ems = true;
    if arguments.direct_tls {
        tls.alpn_protocols = vec![ALPN_CLIENT.to_vec()];
    }
    Ok(Arc::new(tls))
}

fn roots(arguments: &cli::Client, domain: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    if let Some(file) = &arguments.ca {
        for certificate in read_chain(file).map_err(|error| error.to_string())? {
            roots.add(certificate).map_err(|error| format!("{} holds a certificate that cannot be trusted: {error}\nname a PEM file of authorities with --ca FILE", file.display()))?;
        }
        return Ok(roots);
    }
    add_system(&mut roots);
    add_local(&mut roots, arguments.data.as_deref(), domain)?;
    Ok(roots)
}

pub fn add_system(roots: &mut RootCertStore) {
    let named = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let Some(file) = named.or_else(|| SYSTEM_BUNDLES.iter().map(PathBuf::from).find(|file| file.exists())) else {
        return;
    };
    if let Ok(certificates) = CertificateDer::pem_file_iter(&file) {
        // A bundle has certificates that rustls does not take; the others count.
        roots.add_parsable_certificates(certificates.flatten());
    }
}

/// The certificate of the server whose data folder lies on this machine, if it can be read.
fn add_local(roots: &mut RootCertStore, data: Option<&Path>, domain: &str) -> Result<(), String> {
    let folder = match data {
        Some(folder) => folder.join("certificates"),
        None => match Sources::default().load() {
            Ok(config) => config.certificates_folder(),
            Err(_) => return Ok(()),
        },
    };
    let file = folder.join(format!("{domain}.pem"));
    match read_chain(&file) {
        Ok(chain) => {
            if let Some(own) = chain.into_iter().next() {
                roots
                    .add(own)
                    .map_err(|error| format!("the certificate {} cannot be trusted: {error}", file.display()))?;
            }
            Ok(())
        }
        Err(_) if data.is_none() || !file.exists() => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a failed handshake means, and what to do.
pub fn explain(error: &rustls::Error, domain: &str) -> String {
    match error {
        rustls::Error::InvalidCertificate(why) => format!(
            "the server's certificate for {domain} is not trusted: {why}\nif the server is on this machine, name its data folder with --data DIR; else name a file with its certificate or authority with --ca FILE"
        ),
        other => format!("TLS with the server failed: {other}"),
    }
}
