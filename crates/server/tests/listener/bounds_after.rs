//! Bounds of one stanza after authentication, and of its session's rates: bytes and stanzas a second.

use crate::client::Client;
use crate::server::Server;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]
rates = false
stanza_bytes_max = 20000
stanza_elements_max = 100
stanza_depth_max = 16
stanza_attributes_max = 16
stanza_declarations_max = 8
name_bytes_max = 100
attribute_bytes_max = 5000
",
    )
});

/// A session on each listener.
fn everywhere(test: impl Fn(&str, Client)) {
    // As long as the address in `message`.
    static NEXT: AtomicU32 = AtomicU32::new(100);
    let resource = || NEXT.fetch_add(1, Ordering::Relaxed).to_string();
    test("plain", Client::session(&SERVER, "bounds", &resource()));
    let mut direct = Client::direct(&SERVER);
    direct.open("localhost");
    let (starttls, _) = Client::starttls(&SERVER, "localhost");
    for (listener, mut client) in [("STARTTLS", starttls), ("direct TLS", direct)] {
        client.scram("SCRAM-SHA-1", "bounds", "bounds", ("n,,", b"")).unwrap();
        client.open("localhost");
        client.bind(&resource());
        test(listener, client);
    }
}

fn message(content: &str) -> String {
    format!("<message to='bounds@localhost/own'>{content}</message>")
}

fn refused(text: &str, what: &str) {
    everywhere(|listener, mut client| {
        let _ = client.try_send(text.replace("bounds@localhost/own", &client.jid).as_bytes());
        let heard = client.expect_error("policy-violation");
        assert!(heard.contains("<stanza-too-big xmlns='urn:xmpp:errors'/>"), "{listener}: {heard}");
        assert!(heard.contains(what), "{listener}: {what} in {heard}");
    });
}

fn delivered(text: &str) {
    everywhere(|_, mut client| {
        client.send(text.replace("bounds@localhost/own", &client.jid));
        client.expect("<message");
        client.expect("</message>");
    });
}

#[test]
fn bytes() {
    let empty = message("<body></body>").len();
    let stanza = |bytes: usize| message(&format!("<body>{}</body>", "x".repeat(bytes - empty)));
    delivered(&stanza(20_000));
    refused(&stanza(20_001), "at most 20000 allowed: element");
}

#[test]
fn elements() {
    delivered(&message(&format!("<a xmlns='urn:a'>{}</a>", "<b/>".repeat(98))));
    refused(&message(&format!("<a xmlns='urn:a'>{}</a>", "<b/>".repeat(99))), "at most 100 allowed: elements");
}

#[test]
fn depth() {
    let nested = |depth: usize| {
        message(&format!("<a xmlns='urn:a'>{}{}</a>", "<a>".repeat(depth - 2), "</a>".repeat(depth - 2)))
    };
    delivered(&nested(16));
    refused(&nested(17), "at most 16 allowed: depth");
}

#[test]
fn attributes_and_declarations() {
    let attributes = |count: usize| (0..count).map(|n| format!(" a{n}='1'")).collect::<String>();
    delivered(&message(&format!("<a xmlns='urn:a'{}/>", attributes(16))));
    refused(&message(&format!("<a xmlns='urn:a'{}/>", attributes(17))), "at most 16 allowed: attributes");
    let declarations = |count: usize| (0..count).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect::<String>();
    delivered(&message(&format!("<p0:a{}/>", declarations(8))));
    refused(&message(&format!("<p0:a{}/>", declarations(9))), "at most 8 allowed: namespace declarations");
}

#[test]
fn one_name_and_one_attributes_value() {
    refused(&message(&format!("<{}/>", "n".repeat(101))), "at most 100 allowed: name");
    delivered(&message(&format!("<a xmlns='urn:a' b='{}'/>", "v".repeat(5_000))));
    refused(&message(&format!("<a xmlns='urn:a' b='{}'/>", "v".repeat(5_001))), "at most 5000 allowed: attribute");
}

#[test]
fn what_is_in_force_is_told() {
    let (_, features) = Client::authenticated(&SERVER, "bounds", "localhost");
    assert!(features.contains("<max-bytes>20000</max-bytes>"), "{features}");
}

#[test]
fn what_higher_bounds_allow_is_kept_and_comes_out_again() {
    static HIGH: LazyLock<Server> = LazyLock::new(|| {
        Server::start(
            "[limits]
rates = false
stanza_bytes_max = 2000000
send_queue_bytes_max = 20000000
unacked_bytes_max = 20000000
stanza_elements_max = 50000
stanza_depth_max = 200
stanza_attributes_max = 300
name_bytes_max = 5000
attribute_bytes_max = 200000
",
        )
    });
    let attributes: String = (0..299).map(|n| format!(" a{n}='1'")).collect();
    let stanzas = [
        ("bytes", format!("<body>{}</body>", "x".repeat(900_000))),
        ("elements", format!("<a xmlns='urn:a'>{}</a>", "<b/>".repeat(40_000))),
        ("depth", format!("<a xmlns='urn:a'>{}x{}</a>", "<b>".repeat(197), "</b>".repeat(197))),
        ("attributes", format!("<a xmlns='urn:a'{attributes}/>")),
        ("names", format!("<n{} xmlns='urn:a' b='{}'/>", "n".repeat(4_000), "v".repeat(150_000))),
    ];
    HIGH.ensure("kept@localhost");
    let mut writer = Client::available(&HIGH, "big", "r");
    for (what, content) in &stanzas {
        writer.send(format!("<message to='kept@localhost' type='chat' id='{what}'>{content}</message>"));
    }
    assert_eq!(writer.sync(), "");
    // From the log, then from the archive; then live, and as a carbon.
    let mut reader = Client::session(&HIGH, "kept", "r");
    reader.send("<presence/>");
    for (what, _) in &stanzas {
        reader.expect(&format!("id='{what}'"));
        reader.expect("</message>");
    }
    // (A page has fewer of large messages.)
    let mut heard = String::new();
    let mut after = String::new();
    while !heard.contains("complete='true'") {
        reader.send(format!("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>50</max>{after}</set></query></iq>"));
        let page = reader.expect("</fin>");
        after = format!("<after>{}</after>", crate::client::between(&page, "<last>", "</last>"));
        heard += &page;
    }
    assert_eq!(heard.matches("<forwarded ").count(), stanzas.len());
    for (what, _) in &stanzas {
        assert!(heard.contains(&format!("id='{what}'")), "{what}");
    }
    reader.sync();
    let mut other = Client::session(&HIGH, "kept", "other");
    other.send(
        "<iq type='set' id='c'><enable xmlns='urn:xmpp:carbons:2'/></iq><presence><priority>-1</priority></presence>",
    );
    other.sync();
    for (what, content) in &stanzas {
        writer.send(format!("<message to='kept@localhost' type='chat' id='live-{what}'>{content}</message>"));
        reader.expect(&format!("id='live-{what}'"));
        other.expect(&format!("id='live-{what}'"));
    }
}

#[test]
fn one_who_passes_a_bound_disturbs_nobody() {
    let mut quiet = Client::available(&SERVER, "quiet", "r");
    let mut loud = Client::available(&SERVER, "loud", "r");
    loud.send(format!("<message to='quiet@localhost'><body>{}", "x".repeat(30_000)));
    loud.expect_error("policy-violation");
    assert_eq!(quiet.sync(), "");
}

/// Slow clients: 8 KiB and 20 stanzas a second after bursts of 16 KiB and 40 stanzas.
static RATES: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]
inbound_bytes_per_second = 8192
inbound_bytes_burst = 16384
stanzas_per_second = 20
stanzas_burst = 40
",
    )
});

#[test]
fn a_client_that_sends_too_many_bytes_is_read_slowly_and_nothing_is_lost() {
    let mut client = Client::available(&RATES, "bytes", "r");
    let since = Instant::now();
    let body = "x".repeat(4_000);
    for n in 0..10 {
        client.send(format!("<message to='bytes@localhost/r' id='b{n}'><body>{body}</body></message>"));
    }
    for n in 0..10 {
        client.expect(&format!("id='b{n}'"));
    }
    // 40 KiB: 16 at once, the rest at 8 a second.
    let took = since.elapsed().as_secs_f64();
    assert!((1.5..15.0).contains(&took), "took {took} s");
}

#[test]
fn a_client_that_sends_too_many_stanzas_is_read_slowly_and_nothing_is_lost() {
    let mut client = Client::available(&RATES, "stanzas", "r");
    let since = Instant::now();
    for n in 0..80 {
        client.send(format!("<iq type='get' id='i{n}'><ping xmlns='urn:xmpp:ping'/></iq>"));
    }
    for n in 0..80 {
        client.expect(&format!("id='i{n}'"));
    }
    // 80: 40 at once, the rest at 20 a second.
    let took = since.elapsed().as_secs_f64();
    assert!((1.2..15.0).contains(&took), "took {took} s");
}

#[test]
fn a_client_may_not_read_slowly_another_one() {
    let mut slow = Client::available(&RATES, "slowed", "r");
    slow.send("<iq type='get' id='i'><ping xmlns='urn:xmpp:ping'/></iq>".repeat(120));
    let since = Instant::now();
    let mut other = Client::available(&RATES, "unhurt", "r");
    other.sync();
    assert!(since.elapsed().as_secs_f64() < 4.0, "took {:?}", since.elapsed());
}

#[test]
fn a_stranger_sends_so_many_messages_a_minute() {
    static QUIET: LazyLock<Server> = LazyLock::new(|| Server::start("[limits]\nstranger_messages_per_minute = 5\n"));
    let mut victim = Client::available(&QUIET, "victim", "r");
    let mut pest = Client::available(&QUIET, "pest", "r");
    for n in 0..8 {
        pest.send(format!("<message to='victim@localhost' type='chat' id='p{n}'><body>psst {n}</body></message>"));
    }
    let mut heard: String = (5..8).map(|n| pest.expect(&format!("id='p{n}'"))).collect();
    heard += &pest.sync();
    assert_eq!(heard.matches("<policy-violation ").count(), 3, "{heard}");
    let heard = victim.expect("psst 4") + &victim.sync();
    assert_eq!(heard.matches("psst").count(), 5, "{heard}");
}

#[test]
fn a_session_writes_to_few_strangers_a_minute() {
    static STRANGERS: LazyLock<Server> = LazyLock::new(|| Server::start("[limits]\nstrangers_per_minute = 5\n"));
    let mut client = Client::available(&STRANGERS, "spammer", "r");
    for n in 0..5 {
        client.send(format!("<message to='stranger{n}@localhost' id='s{n}'><body>buy</body></message>"));
    }
    // Nobody of them exists; but they were tried.
    let heard = client.sync();
    assert!(!heard.contains("<policy-violation "), "{heard}");
    client.send("<message to='stranger6@localhost' id='s6'><body>buy</body></message>");
    let heard = client.sync();
    assert!(heard.contains("id='s6'") && heard.contains("type='error'"), "{heard}");
    assert!(heard.contains("<policy-violation ") || heard.contains("<resource-constraint "), "{heard}");
    // Those that it has written to are strangers no more; its own account never was.
    client.send("<message to='stranger1@localhost' id='s7'><body>again</body></message><message to='spammer@localhost/r' id='s8'><body>me</body></message>");
    let heard = client.sync();
    assert!(!heard.contains("<policy-violation ") && !heard.contains("<resource-constraint "), "{heard}");
    assert!(heard.contains("<body>me</body>"), "{heard}");
}
