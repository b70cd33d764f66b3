//! Bounds of time: first byte, TLS handshake, authentication, silence, an acknowledgement that does not come.

use crate::client::Client;
use crate::server::{Server, eventually};
use std::io::Read;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

/// A first byte within a second, TLS within two, a login within three.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]\nrates = false\nfirst_byte_seconds = 1\ntls_handshake_seconds = 2\nauthentication_seconds = 3\n",
    )
});

/// Pinged after six seconds, closed after eight; an acknowledgement within two, something taken within two.
static SILENCE: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]\nrates = false\nidle_ping_seconds = 6\nidle_close_seconds = 2\nack_seconds = 2\nwrite_seconds = 2\n\
         send_queue_bytes_max = 30000000\nsend_queue_stanzas_max = 100000\n",
    )
});

/// The time is up between these seconds; the machine may be busy.
fn between(since: Instant, least: f64, most: f64) {
    let took = since.elapsed().as_secs_f64();
    assert!(took >= least && took <= most, "took {took} s, not {least} to {most}");
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let closed = || SERVER.status()["counters"]["timeouts_first_byte"].as_u64().unwrap_or(0);
    let before = closed();
    for listener in [SERVER.plain, SERVER.starttls] {
        let since = Instant::now();
        Client::connect(listener).expect_error("connection-timeout");
        between(since, 0.9, 6.0);
    }
    for listener in [SERVER.direct, SERVER.proxied] {
        let since = Instant::now();
        assert_eq!(Client::connect(listener).expect_end(), "");
        between(since, 0.9, 6.0);
    }
    // Nobody else on this server is silent: it was this bound and no later one. (The last is counted behind its end.)
    eventually("all four are counted", || closed() == before + 4);
}

#[test]
fn a_connection_that_breaks_off_within_the_tls_handshake_is_closed() {
    // The first bytes of a ClientHello.
    let since = Instant::now();
    let mut client = Client::connect(SERVER.direct);
    client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
    client.expect_end();
    between(since, 1.9, 8.0);
    let since = Instant::now();
    let mut client = Client::connect(SERVER.starttls);
    client.open("localhost");
    client.send("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.expect("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    client.send(b"\x16\x03\x01\x02\x00\x01");
    assert_eq!(client.expect_end(), "", "nothing in clear behind <proceed/>");
    between(since, 1.9, 8.0);
}

#[test]
fn a_stream_that_is_not_authenticated_in_time_is_closed_however_busy_it_is() {
    let since = Instant::now();
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.expect_error("connection-timeout");
    between(since, 2.9, 9.0);
    let since = Instant::now();
    let (mut client, _) = Client::starttls(&SERVER, "localhost");
    while !client.ended_within(Duration::from_millis(100)) {
        let _ = client.try_send(b" ");
        assert!(since.elapsed() < Duration::from_secs(10));
    }
    between(since, 2.9, 9.0);
    let since = Instant::now();
    let mut client = Client::direct(&SERVER);
    client.expect_error("connection-timeout");
    between(since, 2.9, 9.0);
}

#[test]
fn an_authenticated_stream_is_not_bound_by_the_time_to_authenticate() {
    let mut client = Client::available(&SERVER, "stays", "r");
    assert!(!client.ended_within(Duration::from_millis(4_000)));
    assert_eq!(client.sync(), "");
}

#[test]
fn a_silent_client_is_pinged_and_then_closed() {
    let mut client = Client::available(&SILENCE, "silent", "r");
    let since = Instant::now();
    client.expect("<ping xmlns='urn:xmpp:ping'/>");
    between(since, 5.5, 10.0);
    client.expect_error("connection-timeout");
    between(since, 7.5, 14.0);
    eventually("the session goes", || SILENCE.sessions("silent@localhost").is_empty());
}

#[test]
fn a_client_that_answers_the_ping_stays() {
    let mut client = Client::available(&SILENCE, "answers", "r");
    let ping = client.expect("</iq>");
    let id = crate::client::attribute(&ping[ping.rfind("<iq").unwrap()..], "id").to_owned();
    client.send(format!("<iq type='result' id='{id}' to='localhost'/>"));
    assert!(!client.ended_within(Duration::from_secs(4)));
    assert_eq!(client.sync(), "");
}

#[test]
fn a_silent_client_with_management_is_asked_for_an_acknowledgement_and_its_session_can_be_resumed() {
    let mut client = Client::available(&SILENCE, "manages", "r");
    let id = client.manage();
    let since = Instant::now();
    client.expect("<r xmlns='urn:xmpp:sm:3'/>");
    between(since, 5.5, 10.0);
    assert!(client.ended_within(Duration::from_secs(12)));
    eventually("the session sleeps", || {
        SILENCE.sessions("manages@localhost").iter().any(|(_, state)| state == "suspended")
    });
    let (mut client, _) = Client::authenticated(&SILENCE, "manages", "localhost");
    client.send(format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>"));
    client.expect("<resumed xmlns='urn:xmpp:sm:3'");
}

#[test]
fn a_half_open_connection_is_found_by_an_acknowledgement_that_does_not_come() {
    let mut client = Client::available(&SILENCE, "halfopen", "r");
    client.manage();
    let mut other = Client::available(&SILENCE, "talks", "r");
    let since = Instant::now();
    other.send("<message to='halfopen@localhost'><body>there?</body></message>");
    client.expect("<r xmlns='urn:xmpp:sm:3'/>");
    assert!(client.ended_within(Duration::from_secs(20)));
    // Long before the silence would have been noticed.
    between(since, 1.8, 5.5);
    eventually("the session sleeps", || {
        SILENCE.sessions("halfopen@localhost").iter().any(|(_, state)| state == "suspended")
    });
}

/// Some of what is there, and nothing for a fifth of a second.
fn take_slowly(client: &Client, bytes: usize) {
    client.socket().read_exact(&mut vec![0; bytes]).expect("there is more than that");
    std::thread::sleep(Duration::from_millis(200));
}

/// Asks for more than the buffers of any kernel hold.
fn ask_for_much(client: &mut Client) {
    let question = "<iq type='get' id='q'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
    client.send(question);
    let answer = client.expect("</iq>").len();
    client.send(question.repeat((24 << 20) / answer));
}

#[test]
fn a_client_that_takes_nothing_is_given_up_and_one_that_takes_little_is_not() {
    let given_up = || SILENCE.status()["counters"]["timeouts_write"].as_u64().unwrap_or(0);
    let (mut takes_nothing, mut takes_little) =
        (Client::available(&SILENCE, "takesnothing", "r"), Client::available(&SILENCE, "takeslittle", "r"));
    ask_for_much(&mut takes_nothing);
    ask_for_much(&mut takes_little);
    let since = Instant::now();
    while given_up() == 0 {
        take_slowly(&takes_little, 320 << 10);
        assert!(since.elapsed() < Duration::from_secs(20), "it is not given up");
    }
    // Long before the silence would have been noticed.
    between(since, 0.0, 5.5);
    eventually("the session goes", || SILENCE.sessions("takesnothing@localhost").is_empty());
    while since.elapsed() < Duration::from_secs(5) {
        take_slowly(&takes_little, 320 << 10);
    }
    assert_eq!((given_up(), SILENCE.sessions("takeslittle@localhost").len()), (1, 1));
}

#[test]
fn a_client_that_is_not_read_as_it_takes_little_is_not_silent() {
    let server = Server::start("[limits]\nrates = false\nidle_ping_seconds = 2\nidle_close_seconds = 1\n");
    let mut client = Client::available(&server, "busy", "r");
    ask_for_much(&mut client);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(5) {
        take_slowly(&client, 16 << 10);
    }
    assert_eq!(server.sessions("busy@localhost").len(), 1);
}

#[test]
fn a_client_that_is_bound_to_nothing_is_not_kept_for_ever() {
    let (mut client, _) = Client::authenticated(&SILENCE, "unbound", "localhost");
    let since = Instant::now();
    client.expect_error("connection-timeout");
    between(since, 5.5, 14.0);
}
