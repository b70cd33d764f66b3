//! `/metrics`, `/healthz`, `/readyz`.

use crate::client::Client;
use crate::server::{PATIENCE, Server, eventually, free_address};
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

/// The whole answer.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut socket = TcpStream::connect(address).expect("it listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("it can wait");
    socket.write_all(request.as_bytes()).expect("it is taken");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("it answers");
    answer
}

pub fn get(address: SocketAddr, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

#[test]
fn figures_and_health_are_told_over_http_and_nothing_else() {
    let address = free_address();
    let _server = Server::start(&format!("[metrics]\naddress = \"{address}\"\n"));
    let metrics = get(address, "/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200 "), "{metrics}");
    assert!(metrics.contains("application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("waft_sessions{state=\"available\"} 0\n"), "{metrics}");
    assert!(metrics.trim_end().ends_with("# EOF"), "{metrics}");
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/readyz").starts_with("HTTP/1.1 200 "));
    assert!(get(address, "/%2e%2e/etc/passwd").starts_with("HTTP/1.1 404 "));
    assert!(
        ask(address, "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            .starts_with("HTTP/1.1 405 ")
    );
}

#[test]
fn a_request_with_too_many_headers_is_refused() {
    let address = free_address();
    let _server = Server::start(&format!("[metrics]\naddress = \"{address}\"\n"));
    let headers: String = (0..100).map(|n| format!("X-{n}: 1\r\n")).collect();
    let answer = ask(address, &format!("GET /metrics HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n"));
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    // Others are answered.
    assert!(get(address, "/healthz").starts_with("HTTP/1.1 200 "));
}

/// The value of a figure, by its name and labels.
fn value(metrics: &str, name: &str) -> f64 {
    let line = metrics.lines().find(|line| line.rsplit_once(' ').is_some_and(|(it, _)| it == name));
    let value = line.and_then(|line| line.rsplit_once(' ')).and_then(|(_, value)| value.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in {metrics}"))
}

#[test]
fn what_clients_do_is_seen_in_the_figures() {
    let address = free_address();
    let server = Server::start(&format!("[metrics]\naddress = \"{address}\"\n"));
    for limit in ["connections_per_second", "s2s_queue_stanzas_max", "idle_close_seconds"] {
        assert_eq!(value(&get(address, "/metrics"), &format!("waft_limits_hit_total{{limit=\"{limit}\"}}")), 0.0);
    }
    server.ensure("juliet@localhost");
    let mut juliet = Client::available(&server, "juliet", "balcony");
    for _ in 0..16 {
        juliet.send("<message to='juliet@localhost' type='chat'><body>dost thou love me?</body></message>");
    }
    juliet.sync();
    let mut stranger = Client::connect(server.plain);
    stranger.open("localhost");
    assert!(stranger.scram("SCRAM-SHA-256", "juliet", "wrong", ("n,,", b"")).is_err());
    eventually("the stanzas are done", || value(&get(address, "/metrics"), "waft_stanza_seconds_count") >= 2.0);
    let metrics = get(address, "/metrics");
    assert!(value(&metrics, "waft_stanzas_total{set=\"client_messages\"}") >= 16.0);
    assert!(value(&metrics, "waft_stanzas_total{set=\"client_presence\"}") >= 1.0);
    assert_eq!(value(&metrics, "waft_stanzas_total{set=\"server_messages\"}"), 0.0);
    assert_eq!(value(&metrics, "waft_logins_total"), 1.0);
    assert_eq!(value(&metrics, "waft_auth_failures_total"), 1.0);
    assert_eq!(value(&metrics, "waft_sessions{state=\"available\"}"), 1.0);
    assert!(value(&metrics, "waft_commit_seconds_count") >= 1.0);
    assert_eq!(value(&metrics, "waft_login_seconds_count"), 1.0);
    assert!(value(&metrics, "waft_certificate_end_timestamp_seconds{domain=\"localhost\"}") > 1e9);
}

/// Names of figures in an expression of Prometheus.
fn named(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    expression.split(|c: char| !is_part(c)).filter(|word| word.starts_with("waft_")).map(str::to_owned).collect()
}

#[test]
fn every_figure_that_the_dashboard_names_is_told_from_the_start() {
    let address = free_address();
    let _server = Server::start(&format!("[metrics]\naddress = \"{address}\"\n"));
    let metrics = get(address, "/metrics");
    let told: BTreeSet<&str> = metrics.lines().filter_map(|line| line.split([' ', '{']).next()).collect();
    // Its labels appear with the first link, or the first row that cannot be read.
    let described = |name: &str| metrics.contains(&format!("# TYPE {name} "));
    let dashboard = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/grafana/waft.json"))
        .expect("it is in the repository");
    let dashboard: serde_json::Value = serde_json::from_str(&dashboard).expect("it is JSON");
    let mut seen = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let names = named(target["expr"].as_str().expect("an expression"));
            assert!(!names.is_empty(), "{target}");
            seen.extend(names);
        }
    }
    assert!(seen.len() > 20, "{seen:?}");
    for name in &seen {
        assert!(told.contains(name.as_str()) || described(name), "{name} is not in {metrics}");
    }
    let variable = dashboard["templating"]["list"][1]["query"].as_str().expect("a query");
    assert!(named(variable).iter().all(|name| told.contains(name.as_str())), "{variable}");
}
