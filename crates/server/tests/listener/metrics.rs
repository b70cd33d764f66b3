//! `/metrics`, `/healthz`, `/readyz`.

use crate::server::{PATIENCE, Server, free_address};
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

fn get(address: SocketAddr, path: &str) -> String {
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
