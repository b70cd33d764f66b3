//! What watches a server from outside: `/metrics` (OpenMetrics), `/healthz` and `/readyz`, on a listener of their own.
//!
//! Figures are read when somebody asks, from what the house counts anyway: nothing is paid for on the way of a stanza.

use crate::certificates::Certificates;
use crate::config::Config;
use crate::house::House;
use crate::http::{self, TEXT};
use crate::world::Listening;
use crate::{latency, limits_hit, log};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Response, StatusCode};
use im::operations::Operation;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Who asks at once; later ones wait.
const CONNECTIONS_MAX: usize = 16;
/// The store answers within this time, or the server is not well.
const STORE_TIMEOUT: Duration = Duration::from_secs(5);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Answers until the task is ended.
pub async fn serve(house: Arc<House>, certificates: Arc<Certificates>, listening: Listening) {
    http::serve(listening, CONNECTIONS_MAX, move |method, path| {
        let (house, certificates) = (house.clone(), certificates.clone());
        async move { answer(&house, &certificates, &method, &path).await }
    })
    .await;
}

async fn answer(house: &House, certificates: &Certificates, method: &Method, path: &str) -> Response<Full<Bytes>> {
    let (status, kind, text) = match (method, path) {
        (&Method::GET | &Method::HEAD, "/metrics") => (StatusCode::OK, OPEN_METRICS, metrics(house, certificates)),
        (&Method::GET | &Method::HEAD, "/healthz") => told(healthy(house).await),
        (&Method::GET | &Method::HEAD, "/readyz") => told(healthy(house).await.and_then(|()| ready(house))),
        (&Method::GET | &Method::HEAD, _) => {
            (StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_string())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_string()),
    };
    http::answer(status, kind, text)
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
pub fn metrics(house: &House, certificates: &Certificates) -> String {
    let mut registry = Registry::with_prefix("waft");
    let config = house.config.read().clone();
    process(&mut registry, house, &config);
    sessions(&mut registry, house);
    store(&mut registry, house);
    links(&mut registry, house);
    certificates_end(&mut registry, certificates);
    times(&mut registry);
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
    gauge(registry, "client_queue", "Stanzas that wait to be written to clients", house.edges.queued() as u64);
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
    let (open, queued) = (Gauges::default(), Gauge::<i64>::default());
    for direction in ["out", "in", "both", "none"] {
        open.get_or_create(&vec![("direction", direction.into()), ("trust", "none".into())]).set(0);
    }
    for link in house.federation.get().map(|federation| federation.shown()).unwrap_or_default() {
        open.get_or_create(&vec![("direction", link.direction), ("trust", link.trust)]).inc();
        queued.inc_by(i64::try_from(link.queue).unwrap_or(i64::MAX));
    }
    registry.register("s2s_links", "Pairs of domains, by how they are connected and what proves the other", open);
    registry.register("s2s_queue", "Stanzas that wait to go to other domains", queued);
    let waiting = house.components.list().iter().map(|component| component.shown().queue).sum();
    gauge(registry, "component_queue", "Stanzas that wait to go to components", waiting);
}

/// What operators are warned of before it happens.
fn certificates_end(registry: &mut Registry, certificates: &Certificates) {
    let ends = Gauges::default();
    for (domain, end) in certificates.ends() {
        ends.get_or_create(&vec![("domain", domain.into())]).set(end);
    }
    registry.register("certificate_end_timestamp_seconds", "When a domain's certificate ends", ends);
}

fn times(registry: &mut Registry) {
    let stanzas =
        "From a client's stanza having come to all that it sets off being on disk and queued; of one in eight";
    registry.register("stanza_seconds", stanzas, latency::STANZAS.seen());
    registry.register("commit_seconds", "From changes being queued to their being on disk", latency::COMMITS.seen());
    registry.register("login_seconds", "From a connection to its being authenticated", latency::LOGINS.seen());
}

/// What the house counts by name. Operators ask for some of it by names of their own; these are there from the start.
fn events(registry: &mut Registry, house: &House) {
    let mut counted: BTreeMap<&'static str, u64> =
        house.counters.iter().map(|entry| (*entry.key(), entry.value().load(Ordering::Relaxed))).collect();
    counted.insert("panics", log::panics());
    let of = |name: &str| counted.get(name).copied().unwrap_or(0);
    let sets = Counts::default();
    for operation in Operation::ALL {
        let set = operation.name().trim_start_matches("operations_");
        sets.get_or_create(&vec![("set", set.to_owned())]).inc_by(of(operation.name()));
    }
    registry.register(
        "stanzas",
        "Stanzas by operation set: from clients, and between servers in both directions",
        sets,
    );
    counter(registry, "logins", "Streams of clients that were authenticated", of("logins"));
    counter(registry, "auth_failures", "Authentications of clients that failed", of("auth_failures"));
    let hit = Counts::default();
    for (name, count) in limits_hit::all(house) {
        hit.get_or_create(&vec![("limit", name.to_owned())]).inc_by(count);
    }
    registry.register("limits_hit", "How often a peer hit a limit, by the option that sets it", hit);
    let events = Counts::default();
    for (name, count) in &counted {
        events.get_or_create(&vec![("event", (*name).to_owned())]).inc_by(*count);
    }
    registry.register("events", "All that is counted, by name; what has not happened yet is not there", events);
}
