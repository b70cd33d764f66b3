//! HTTP to an authority: one request a connection, over TLS, within bounds.

use crate::certificates::{provider, read_chain};
use crate::client::trust::add_system;
use crate::config::Acme;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For one request and its answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes of an answer; a chain of certificates is the longest.
const ANSWER_BYTES_MAX: usize = 1 << 20;

type Wrong = Box<dyn std::error::Error + Send + Sync>;

pub struct Client {
    tls: TlsConnector,
}

impl Client {
    /// # Errors
    /// For people: the file of authorities cannot be used.
    pub fn new(acme: &Acme) -> Result<Client, String> {
        let mut roots = RootCertStore::empty();
        add_system(&mut roots);
        if let Some(file) = &acme.ca {
            for certificate in read_chain(file).map_err(|error| error.to_string())? {
                roots.add(certificate).map_err(|error| {
                    format!(
                        "{} holds a certificate that is no authority: {error}\ncorrect ca in [acme]",
                        file.display()
                    )
                })?;
            }
        }
        let tls = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .map_err(|error| format!("TLS cannot be set up: {error}"))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { tls: TlsConnector::from(Arc::new(tls)) })
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let tls = self.tls.clone();
        Box::pin(async move {
            match tokio::time::timeout(PATIENCE, exchange(tls, request)).await {
                Ok(answer) => answer.map(BytesResponse::from).map_err(Error::Other),
                Err(_) => Err(Error::Other("the authority does not answer".into())),
            }
        })
    }
}

async fn exchange(tls: TlsConnector, mut request: Request<BodyWrapper<Bytes>>) -> Result<Response<Full<Bytes>>, Wrong> {
    let uri = request.uri().clone();
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or("the authority has no https address")?;
    let host = host.trim_matches(['[', ']']).to_owned();
    let socket = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443)))
        .await
        .map_err(|error| format!("the authority {host} cannot be reached: {error}"))?;
    let secured = tls
        .connect(ServerName::try_from(host.clone())?, socket)
        .await
        .map_err(|error| format!("no TLS with the authority {host}: {error}"))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(secured)).await?;
    // It ends when the sender goes.
    tokio::spawn(connection);
    let authority = uri.authority().ok_or("the authority has no address")?;
    request.headers_mut().insert(header::HOST, authority.as_str().parse()?);
    *request.uri_mut() = uri.path_and_query().map_or("/", |it| it.as_str()).parse()?;
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, Full::new(body)))
}
