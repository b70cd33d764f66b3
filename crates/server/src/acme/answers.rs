//! What an authority finds when it asks whether a name is ours: HTTP-01 (RFC 8555 §8.3), TLS-ALPN-01 (RFC 8737).

use crate::edge::socket::Socket;
use crate::edge::wire::Wire;
use crate::http;
use crate::world::Listening;
use hyper::{Method, StatusCode};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

/// The ALPN protocol of an authority that looks. RFC 8737 §3.
pub const ALPN: &[u8] = b"acme-tls/1";

/// Where the authority looks by HTTP. RFC 8555 §8.3.
const PATH: &str = "/.well-known/acme-challenge/";
/// Connections at once; later ones wait.
const CONNECTIONS_MAX: usize = 64;

/// What is answered now: nothing, unless a certificate is being got.
#[derive(Default)]
pub struct Answers {
    /// By token.
    texts: RwLock<HashMap<String, String>>,
    /// By name.
    certificates: RwLock<HashMap<String, Arc<CertifiedKey>>>,
}

impl fmt::Debug for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Answers")
    }
}

/// One answer; goes when this is dropped.
pub struct Answering {
    answers: Arc<Answers>,
    token: Option<String>,
    name: Option<String>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            self.answers.texts.write().remove(token);
        }
        if let Some(name) = &self.name {
            self.answers.certificates.write().remove(name);
        }
    }
}

impl Answers {
    /// HTTP-01: whoever asks for the token gets the text.
    pub fn by_http(self: &Arc<Answers>, token: &str, text: &str) -> Answering {
        self.texts.write().insert(token.to_owned(), text.to_owned());
        Answering { answers: self.clone(), token: Some(token.to_owned()), name: None }
    }

    /// TLS-ALPN-01: whoever asks for the name by [`ALPN`] is shown a certificate with the digest. RFC 8737 §3.
    ///
    /// # Errors
    /// For people: no such certificate can be made.
    pub fn by_tls(self: &Arc<Answers>, name: &str, digest: &[u8]) -> Result<Answering, String> {
        let certificate = challenge_certificate(name, digest)
            .map_err(|error| format!("no certificate for the challenge can be made: {error}"))?;
        self.certificates.write().insert(name.to_owned(), Arc::new(certificate));
        Ok(Answering { answers: self.clone(), token: None, name: Some(name.to_owned()) })
    }

    /// Does a client ask for a challenge? Then what it is shown: nothing, if none is going on.
    pub fn shown(&self, hello: &ClientHello<'_>) -> Option<Option<Arc<CertifiedKey>>> {
        let mut protocols = hello.alpn().into_iter().flatten();
        // RFC 8737 §3: this protocol alone.
        (protocols.next() == Some(ALPN) && protocols.next().is_none()).then(|| {
            let name = hello.server_name()?.to_ascii_lowercase();
            self.certificates.read().get(&name).cloned()
        })
    }
}

impl ResolvesServerCert for Answers {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown(&hello).flatten()
    }
}

fn challenge_certificate(name: &str, digest: &[u8]) -> Result<CertifiedKey, Box<dyn std::error::Error>> {
    let mut parameters = rcgen::CertificateParams::new(vec![name.to_owned()])?;
    parameters.custom_extensions = vec![rcgen::CustomExtension::new_acme_identifier(digest)];
    let key = rcgen::KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    let secret = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let signing = crate::certificates::provider().key_provider.load_private_key(secret)?;
    Ok(CertifiedKey::new(vec![CertificateDer::from(certificate.der().to_vec())], signing))
}

/// Answers by HTTP until the task is ended.
pub async fn serve_http(answers: Arc<Answers>, listening: Listening) {
    http::serve(listening, CONNECTIONS_MAX, move |method, path| {
        let answers = answers.clone();
        async move {
            let token = path.strip_prefix(PATH);
            let text = token.and_then(|token| answers.texts.read().get(token).cloned());
            match (method, text) {
                (Method::GET | Method::HEAD, Some(text)) => {
                    http::answer(StatusCode::OK, "application/octet-stream", text)
                }
                (Method::GET | Method::HEAD, None) => {
                    http::answer(StatusCode::NOT_FOUND, http::TEXT, "there is nothing here\n".into())
                }
                _ => http::answer(StatusCode::METHOD_NOT_ALLOWED, http::TEXT, "only GET and HEAD\n".into()),
            }
        }
    })
    .await;
}

/// Answers by TLS until the task is ended.
pub async fn serve_tls(answers: Arc<Answers>, listening: Listening, patience: Duration) {
    let builder = ServerConfig::builder_with_provider(crate::certificates::provider())
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]);
    let Ok(builder) = builder else { return };
    let mut config = builder.with_no_client_auth().with_cert_resolver(answers);
    config.alpn_protocols = vec![ALPN.to_vec()];
    let config = Arc::new(config);
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listening.accept().await {
            Ok((socket, _)) => {
                let config = config.clone();
                tokio::spawn(async move {
                    let _ = tokio::time::timeout(patience, shake_hands(socket, config)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection of an authority could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// The certificate is all that the authority wants to see. RFC 8737 §3.
async fn shake_hands(socket: Socket, config: Arc<ServerConfig>) -> std::io::Result<()> {
    let mut wire = Wire::new(socket);
    wire.start_tls(config).map_err(std::io::Error::other)?;
    poll_fn(|cx| wire.poll_handshake(cx)).await?;
    wire.say_goodbye();
    poll_fn(|cx| wire.poll_flush(cx)).await
}
