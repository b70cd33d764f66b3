//! What watches a server from outside: `/metrics` (OpenMetrics), `/healthz` and `/readyz`, on a listener of their own.
//!
//! Figures are read when somebody asks, from what the house counts anyway: nothing is paid for on the way of a stanza.

use crate::config::Config;
use crate::house::House;
use crate::world::Listening;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Who asks at once; later ones wait.
const CONNECTIONS_MAX: usize = 16;
/// LIMITS: headers of a request, in bytes and number, and the time until they are there.
const HEADER_BYTES_MAX: usize = 8 * 1024;
const HEADERS_MAX: usize = 64;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// The store answers within this time, or the server is not well.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Answers until the task is ended.
pub async fn serve(house: Arc<House>, listening: Listening) {
    let places = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let socket = match listening.accept().await {
            Ok((crate::edge::socket::Socket::Tcp(socket), _)) => socket,
            #[cfg(feature = "simulated")]
            Ok((crate::edge::socket::Socket::Simulated(_), _)) => continue,
            Err(error) => {
                tracing::warn!(%error, "a connection for metrics could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let house = house.clone();
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
                        Ok::<_, Infallible>(answer(&house, request.method(), request.uri().path()).await)
                    }),
                );
            match tokio::time::timeout(REQUEST_TIMEOUT * 2, answered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "a request for metrics came to nothing"),
                Err(_) => tracing::debug!("whoever asked for metrics did not read them"),
            }
            drop(place);
        });
    }
}

async fn answer(house: &House, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, OPEN_METRICS, metrics(house)),
        (&Method::GET | &Method::HEAD, "/healthz") => told(healthy(house).await),
        (&Method::GET | &Method::HEAD, "/readyz") => told(healthy(house).await.and_then(|()| ready(house))),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_string())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_string()),
    };
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response.headers_mut().insert(header::CACHE_CONTROL, header::HeaderValue::from_static("no-store"));
    response
}

fn told(state: Result<(), &'static str>) -> (StatusCode, &'static str, String) {
    match state {
        Ok(()) => (StatusCode::OK, TEXT, "ok\n".into()),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{why}\n")),
    }
}

/// Does it work, down to the store? If not, it should be started anew.
async fn healthy(house: &House) -> Result<(), &'static str> {
    match tokio::time::timeout(STORE_TIMEOUT, house.store.accounts("", "", 1)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(_)) => Err("the store cannot be read"),
        Err(_) => Err("the store does not answer"),
    }
}

/// May clients be sent here?
fn ready(house: &House) -> Result<(), &'static str> {
    if house.draining.load(Ordering::Acquire) { Err("the server is stopping") } else { Ok(()) }
}

type Labels = Vec<(&'static str, String)>;
type Counts = Family<Labels, Counter>;
type Gauges = Family<Labels, Gauge>;

/// All figures, as OpenMetrics text.
fn metrics(house: &House) -> String {
    let mut registry = Registry::with_prefix("waft");
    let config = house.config.read().clone();
    process(&mut registry, house, &config);
    sessions(&mut registry, house);
    store(&mut registry, house);
    links(&mut registry, house);
    events(&mut registry, house);
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, &registry);
    text
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge = Gauge::<i64>::default();
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter = Counter::<u64, AtomicU64>::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn process(registry: &mut Registry, house: &House, config: &Config) {
    let hosts: Vec<&str> = config.hosts.iter().map(|host| &*host.domain).collect();
    let about = Info::new(vec![("version", env!("CARGO_PKG_VERSION").to_string()), ("hosts", hosts.join(" "))]);
    registry.register("server", "The version that runs, and the domains it serves", about);
    let uptime = Gauge::<i64>::default();
    uptime.set(i64::try_from(house.started.elapsed().as_secs()).unwrap_or(i64::MAX));
    registry.register_with_unit("uptime", "Since the server was started", Unit::Seconds, uptime);
    if let Some(bytes) = resident_bytes() {
        gauge(registry, "resident_memory_bytes", "Memory of the process", bytes);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge(registry, "open_files", "Files and sockets that the process has open", files.count() as u64);
        gauge(registry, "open_files_max", "How many it may open", crate::listen::files_max() as u64);
    }
}

/// Of the process, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kb| kb * 1024)
}

fn sessions(registry: &mut Registry, house: &House) {
    gauge(registry, "streams", "Streams of clients that are open", house.edges.len() as u64);
    let by_state = Gauges::default();
    let cells = house.accounts_in_memory();
    gauge(registry, "accounts_in_memory", "Accounts that are held in memory", cells.len() as u64);
    for state in ["available", "connected", "suspended"] {
        by_state.get_or_create(&vec![("state", state.into())]).set(0);
    }
    for cell in cells {
        let states = cell.cell.peek(|resident| {
            resident
                .account
                .sessions
                .iter()
                .map(|session| match (&session.edge, session.is_available()) {
                    (None, _) => "suspended",
                    (Some(_), true) => "available",
                    (Some(_), false) => "connected",
                })
                .collect::<Vec<_>>()
        });
        for state in states.into_iter().flatten() {
            by_state.get_or_create(&vec![("state", state.into())]).inc();
        }
    }
    registry.register("sessions", "Bound resources, by what they are", by_state);
}

fn store(registry: &mut Registry, house: &House) {
    let figures = house.store.figures();
    gauge(registry, "accounts", "Accounts in the store", figures.accounts);
    gauge(registry, "store_queue", "Changes that wait for a commit", figures.queued_changes);
    gauge(registry, "store_bytes", "Bytes of the store's file", figures.file_bytes);
    gauge(registry, "inbox_records", "Messages in all logs", figures.inbox_records);
    counter(registry, "store_commits", "Commits that reached the disk", figures.commits);
    counter(registry, "store_changes", "Changes in them", figures.changes);
    gauge(registry, "store_quarantined", "Rows that could not be read and were set aside", figures.quarantined);
    if let Some(last) = figures.last_commit {
        gauge(
            registry,
            "store_last_commit_timestamp_seconds",
            "When the last one did",
            last.0.unsigned_abs() / 1_000_000,
        );
    }
}

fn links(registry: &mut Registry, house: &House) {
    let Some(federation) = house.federation.get() else { return };
    let (open, queued) = (Gauges::default(), Gauge::<i64>::default());
    for link in federation.shown() {
        open.get_or_create(&vec![("direction", link.direction), ("trust", link.trust)]).inc();
        queued.inc_by(i64::try_from(link.queue).unwrap_or(i64::MAX));
    }
    registry.register("s2s_links", "Pairs of domains, by how they are connected and what proves the other", open);
    registry.register("s2s_queue", "Stanzas that wait to go to other domains", queued);
}

/// What the house counts by name.
fn events(registry: &mut Registry, house: &House) {
    let events = Counts::default();
    let mut counted: Vec<(&'static str, u64)> =
        house.counters.iter().map(|entry| (*entry.key(), entry.value().load(Ordering::Relaxed))).collect();
    counted.sort_unstable();
    for (name, count) in counted {
        events.get_or_create(&vec![("event", name.to_string())]).inc_by(count);
    }
    registry.register("events", "Things that happened, by name: logins, refusals, bounds that were hit", events);
}
