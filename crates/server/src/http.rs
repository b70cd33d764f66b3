//! What is asked of the server by HTTP, within bounds: one request a connection, answered whole.

use crate::edge::socket::Socket;
use crate::world::Listening;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// LIMITS: headers of a request, in bytes and number, and the time until they are there.
const HEADER_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

pub const TEXT: &str = "text/plain; charset=utf-8";

/// Answers until the task is ended; at most `connections_max` at once, later ones wait.
pub async fn serve<F, A>(listening: Listening, connections_max: usize, asked: F)
where
    F: Fn(Method, String) -> A + Clone + Send + Sync + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send,
{
    let places = Arc::new(tokio::sync::Semaphore::new(connections_max));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let socket = match listening.accept().await {
            Ok((Socket::Tcp(socket), _)) => socket,
            #[cfg(feature = "simulated")]
            Ok((Socket::Simulated(_), _)) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection for HTTP could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            let answered = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .max_buf_size(HEADER_BYTES_MAX)
                .max_headers(HEADERS_MAX)
                .keep_alive(false)
                .serve_connection(
                    TokioIo::new(socket),
                    hyper::service::service_fn(async |request: Request<Incoming>| {
                        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                        Ok::<_, Infallible>(asked(method, path).await)
                    }),
                );
            match tokio::time::timeout(REQUEST_TIMEOUT * 2, answered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request by HTTP came to nothing"),
                Err(_) => tracing::debug!("whoever asked by HTTP did not read the answer"),
            }
            drop(place);
        });
    }
}

pub fn answer(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}
