//! Bounds of one address: connections a second, at once, failed logins; and of all who are not authenticated.

use crate::client::{Client, own_address, plain};
use crate::server::{Server, eventually};
use std::net::IpAddr;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let server = Server::start(
        "[limits]
connections_per_second = 2
connections_burst = 5
auth_failures_delay_after = 4
auth_failures_refuse_after = 7
auth_refused_seconds = 3
",
    );
    server.ensure("alice@localhost");
    server
});

static CROWD: LazyLock<Server> = LazyLock::new(|| {
    let server = Server::start(
        "[limits]\nconnections_per_second = 10000\nconnections_burst = 10000\nunauthenticated_per_address_max = 10\nconnections_per_address_max = 15\n",
    );
    server.ensure("alice@localhost");
    server
});

/// A connection that is answered, or closed without a word.
fn answered(from: IpAddr, server: &Server) -> Option<Client> {
    let mut client = Client::try_connect(from, server.plain).ok()?;
    let _ = client.try_send(crate::client::header("localhost").as_bytes());
    let heard = client.hear_some();
    heard.contains("</stream:features>").then_some(client)
}

#[test]
fn a_burst_of_connections_is_taken_and_then_the_rate() {
    let from = own_address();
    let held: Vec<_> = (0..12).filter_map(|_| answered(from, &SERVER)).collect();
    assert!((5..=8).contains(&held.len()), "{} of 12", held.len());
    assert!(answered(own_address(), &SERVER).is_some(), "another address is free");
    let since = Instant::now();
    while answered(from, &SERVER).is_none() {
        assert!(since.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn only_so_many_of_one_address_are_not_authenticated() {
    let from = own_address();
    let held: Vec<_> = (0..12).filter_map(|_| answered(from, &CROWD)).collect();
    assert_eq!(held.len(), 10);
    assert!(answered(own_address(), &CROWD).is_some(), "another address is free");
    drop(held);
    eventually("places are free again", || answered(from, &CROWD).is_some());
}

#[test]
fn only_so_many_of_one_address_are_connected() {
    let from = own_address();
    let mut held = Vec::new();
    for n in 0..15 {
        let mut client = answered(from, &CROWD).unwrap_or_else(|| panic!("connection {n}"));
        client.scram("SCRAM-SHA-1", "alice", "alice", ("n,,", b"")).unwrap();
        held.push(client);
    }
    assert!(answered(from, &CROWD).is_none(), "the sixteenth");
    held.pop();
    eventually("a place is free again", || answered(from, &CROWD).is_some());
}

#[test]
fn the_listener_behind_a_proxy_counts_the_address_that_the_proxy_names() {
    let admitted = |named: &str| {
        let mut client = Client::connect(CROWD.proxied);
        client.send(format!("PROXY TCP4 {named} 192.0.2.1 4000 5222\r\n"));
        let _ = client.try_send(crate::client::header("localhost").as_bytes());
        let heard = client.hear_some();
        heard.contains("</stream:features>").then_some(client)
    };
    let held: Vec<_> = (0..12).filter_map(|_| admitted("192.0.2.7")).collect();
    assert_eq!(held.len(), 10);
    assert!(admitted("192.0.2.8").is_some());
}

// Who has one IPv6 address has a /64 of them.
#[test]
fn all_addresses_of_an_ipv6_prefix_of_64_bits_are_counted_as_one() {
    let admitted = |named: &str| {
        let mut client = Client::connect(CROWD.proxied);
        client.send(format!("PROXY TCP6 {named} 2001:db8::1 4000 5222\r\n"));
        let _ = client.try_send(crate::client::header("localhost").as_bytes());
        client.hear_some().contains("</stream:features>").then_some(client)
    };
    let held: Vec<_> = (1..=12).filter_map(|n| admitted(&format!("2001:db8:0:7:{n}::{n}"))).collect();
    assert_eq!(held.len(), 10);
    assert!(admitted("2001:db8:0:8::1").is_some(), "another network is free");
}

/// A wrong password; how long the answer takes, or nothing if the connection is refused.
fn fails(from: IpAddr, server: &Server) -> Option<Duration> {
    let mut client = Client::try_connect(from, server.direct).ok()?;
    let handshake = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| client.handshake("localhost", None)));
    handshake.ok()?;
    client.open("localhost");
    let since = Instant::now();
    client.send(format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        plain("", "guessed", "wrong")
    ));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("not-authorized"));
    Some(since.elapsed())
}

#[test]
fn many_failed_logins_from_one_address_are_delayed_and_then_it_is_refused_for_a_while() {
    // Slow enough for the rate of connections.
    let from = own_address();
    let pause = || std::thread::sleep(Duration::from_millis(520));
    let mut delays = Vec::new();
    for _ in 0..7 {
        delays.push(fails(from, &SERVER).expect("not refused yet").as_secs_f64());
        pause();
    }
    assert!(delays[..3].iter().all(|delay| *delay < 0.9), "{delays:?}");
    assert!(delays[3..6].iter().all(|delay| *delay >= 0.9), "{delays:?}");
    assert!(answered(from, &SERVER).is_none(), "refused");
    assert!(answered(own_address(), &SERVER).is_some(), "nobody else is");
    std::thread::sleep(Duration::from_millis(3_000));
    assert!(answered(from, &SERVER).is_some(), "for a while only");
}

#[test]
fn a_login_that_cannot_be_a_guess_does_not_count_as_one() {
    let from = own_address();
    for _ in 0..2 {
        let mut client = Client::connect_from(from, SERVER.plain);
        client.open("localhost");
        for _ in 0..2 {
            client.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='UNKNOWN'>=</auth>");
            assert_eq!(client.expect_sasl().err().as_deref(), Some("invalid-mechanism"));
        }
        client.send("</stream:stream>");
        std::thread::sleep(Duration::from_millis(520));
    }
    let mut client = Client::connect_from(from, SERVER.plain);
    client.open("localhost");
    let since = Instant::now();
    assert!(client.scram("SCRAM-SHA-1", "alice", "wrong", ("n,,", b"")).is_err());
    assert!(since.elapsed() < Duration::from_millis(900), "delayed: {:?}", since.elapsed());
}

#[test]
fn many_failed_logins_to_one_account_are_delayed_wherever_they_come_from_and_lock_nobody_out() {
    let server = Server::start(
        "[limits]\nconnections_per_second = 10000\nconnections_burst = 10000\nauth_failures_delay_after = 4\n",
    );
    server.ensure("target@localhost");
    let login = |name: &str, password: &str| {
        let mut client = Client::connect(server.plain);
        client.open("localhost");
        let since = Instant::now();
        (client.scram("SCRAM-SHA-1", name, password, ("n,,", b"")).is_ok(), since.elapsed())
    };
    // One that does not exist is treated alike.
    for name in ["target", "nobody"] {
        for _ in 0..4 {
            assert!(!login(name, "wrong").0);
        }
        let (good, took) = login(name, "wrong");
        assert!(!good && took >= Duration::from_millis(1_000), "{name}: {took:?}");
    }
    assert!(login("target", "target").0);
}

#[test]
fn failed_logins_end_the_connection_as_configured() {
    static SERVERS: LazyLock<[Server; 2]> = LazyLock::new(|| {
        [3, 5].map(|max| Server::start(&format!("[limits]\nrates = false\nauth_failures_per_connection_max = {max}\n")))
    });
    for (server, max) in SERVERS.iter().zip([3, 5]) {
        let mut client = Client::connect(server.plain);
        client.open("localhost");
        for _ in 0..max {
            let refused = client.scram("SCRAM-SHA-1", "nobody", "wrong", ("n,,", b""));
            assert_eq!(refused.err().as_deref(), Some("not-authorized"));
        }
        client.expect_error("policy-violation");
    }
}

#[test]
fn behind_a_proxy_few_connections_wait_for_their_header() {
    // A tenth of 200 files are strangers; those that cannot be told to go are twice as many at most.
    let server = Server::with_files(
        200,
        "[limits]\nrates = false\nunauthenticated_percent = 10\nfirst_byte_seconds = 60\nauthentication_seconds = 60\n",
    );
    let silent: Vec<Client> = (0..60).map(|_| Client::connect(server.proxied)).collect();
    let refused = || server.status()["counters"]["connections_refused"].as_u64().unwrap_or(0);
    eventually("the rest is refused", || refused() == 20);
    assert!(server.open_files() < 100, "{} files", server.open_files());
    drop(silent);
    // Their places are free again.
    eventually("a client behind the proxy is served", || {
        let mut client = Client::connect(server.proxied);
        let _ = client.try_send(b"PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n");
        let _ = client.try_send(crate::client::header("localhost").as_bytes());
        client.hear_some().contains("</stream:features>")
    });
}

#[test]
fn beyond_the_share_for_strangers_the_oldest_of_them_is_closed() {
    // A tenth of 200 files.
    let server = Server::with_files(200, "[limits]\nrates = false\nunauthenticated_percent = 10\n");
    let from = own_address();
    let mut held: Vec<Client> =
        (0..22).map(|n| answered(from, &server).unwrap_or_else(|| panic!("connection {n}"))).collect();
    for old in &mut held[..2] {
        assert!(old.ended_within(Duration::from_secs(5)), "it was one of the oldest");
    }
    for served in [2, 21] {
        held[served].send("</stream:stream>");
        assert_eq!(held[served].expect_end(), "</stream:stream>", "number {served} is served");
    }
    // Whoever is authenticated is no stranger.
    let mut alice = Client::available(&server, "alice", "r");
    let more: Vec<_> = (0..40).filter_map(|_| answered(from, &server)).collect();
    assert_eq!(more.len(), 40);
    assert_eq!(alice.sync(), "");
}
