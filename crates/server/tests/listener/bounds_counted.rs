//! Every bound that a peer hits is counted by the name of its option: `waft_limits_hit` of /metrics, `limit …` in the
//! status. The other files say what the peer hears.

use crate::client::{Client, own_address};
use crate::server::{Server, eventually, free_address};
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]
rates = false
roster_items_max = 1
groups_per_item_max = 1
block_items_max = 1
requests_max = 1
vcard_bytes_max = 1024
private_bytes_max = 1024
pep_nodes_max = 1
pep_items_max = 2
pep_item_bytes_max = 1024
sessions_per_account_max = 2
hibernated_per_account_max = 0
offline_messages_max = 1
unacked_stanzas_max = 16
",
    )
});

pub fn hit(server: &Server, limit: &str) -> u64 {
    server.status()["counters"][format!("limit {limit}")].as_u64().unwrap_or(0)
}

/// What is said is over this limit, and counted so.
#[track_caller]
pub fn counts(server: &Server, limit: &str, does: impl FnOnce()) {
    let before = hit(server, limit);
    does();
    eventually(&format!("{limit} is counted"), || hit(server, limit) > before);
}

fn attributes(count: usize) -> String {
    (0..count).map(|n| format!(" a{n}='1'")).collect()
}

fn declarations(count: usize) -> String {
    (0..count).map(|n| format!(" xmlns:p{n}='u'")).collect()
}

#[test]
fn bounds_before_authentication_are_counted() {
    for (limit, text) in [
        ("before_auth_bytes_max", format!("<a>{}", "x".repeat(20_000))),
        ("before_auth_elements_max", format!("<a>{}", "<b/>".repeat(40))),
        ("before_auth_depth_max", "<a>".repeat(10)),
        ("before_auth_attributes_max", format!("<a{}/>", attributes(40))),
        ("before_auth_declarations_max", format!("<a{}/>", declarations(10))),
        ("name_bytes_max", format!("<{}", "n".repeat(2_000))),
    ] {
        counts(&SERVER, limit, || {
            let mut client = Client::connect(SERVER.plain);
            client.open("localhost");
            let _ = client.try_send(text.as_bytes());
            client.expect_error("policy-violation");
        });
    }
}

#[test]
fn bounds_of_a_stanza_are_counted() {
    for (limit, text) in [
        ("stanza_bytes_max", format!("<message><body>{}", "x".repeat(300_000))),
        ("stanza_elements_max", format!("<message>{}", "<b/>".repeat(10_001))),
        ("stanza_depth_max", format!("<message>{}", "<a>".repeat(70))),
        ("stanza_attributes_max", format!("<message><a{}/>", attributes(70))),
        ("stanza_declarations_max", format!("<message><a{}/>", declarations(20))),
        ("attribute_bytes_max", format!("<message><a b='{}", "v".repeat(40_000))),
    ] {
        counts(&SERVER, limit, || {
            let mut client = Client::session(&SERVER, "stanzas", "r");
            let _ = client.try_send(text.as_bytes());
            client.expect_error("policy-violation");
        });
    }
}

#[test]
fn bounds_of_an_account_are_counted() {
    let mut alice = Client::available(&SERVER, "counted", "r");
    let big = "x".repeat(2_000);
    let item = |jid: &str, groups: &str| {
        format!("<iq type='set' id='r'><query xmlns='jabber:iq:roster'><item jid='{jid}'>{groups}</item></query></iq>")
    };
    let publish = |node: &str, items: &str| {
        format!(
            "<iq type='set' id='p'><pubsub xmlns='http://jabber.org/protocol/pubsub'><publish node='{node}'>{items}</publish></pubsub></iq>"
        )
    };
    alice.send(item("one@localhost", ""));
    alice.send("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='spam@localhost'/></block></iq>");
    alice.send(publish("one", "<item id='1'><x xmlns='u'/></item>"));
    alice.sync();
    for (limit, text) in [
        ("roster_items_max", item("two@localhost", "")),
        ("groups_per_item_max", item("one@localhost", "<group>a</group><group>b</group>")),
        (
            "block_items_max",
            "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='more@localhost'/></block></iq>".into(),
        ),
        ("vcard_bytes_max", format!("<iq type='set' id='v'><vCard xmlns='vcard-temp'><NOTE>{big}</NOTE></vCard></iq>")),
        (
            "private_bytes_max",
            format!("<iq type='set' id='x'><query xmlns='jabber:iq:private'><a xmlns='u'>{big}</a></query></iq>"),
        ),
        ("pep_nodes_max", publish("two", "<item id='1'><x xmlns='u'/></item>")),
        ("pep_item_bytes_max", publish("one", &format!("<item id='1'><x xmlns='u'>{big}</x></item>"))),
    ] {
        counts(&SERVER, limit, || {
            alice.send(text);
            let heard = alice.sync();
            assert!(heard.contains("type='error'"), "{limit}: {heard}");
        });
    }
    counts(&SERVER, "requests_max", || {
        for n in 0..2 {
            let mut other = Client::available(&SERVER, &format!("asks{n}"), "r");
            other.send("<presence to='counted@localhost' type='subscribe'/>");
            other.sync();
        }
    });
    counts(&SERVER, "offline_messages_max", || {
        SERVER.ensure("absent@localhost");
        for n in 0..2 {
            alice.send(format!("<message to='absent@localhost' type='chat' id='{n}'><body>{n}</body></message>"));
        }
        alice.expect("<service-unavailable");
    });
}

#[test]
fn bounds_of_sessions_are_counted() {
    counts(&SERVER, "sessions_per_account_max", || {
        let _held: Vec<Client> = (0..2).map(|n| Client::session(&SERVER, "sessions", &format!("r{n}"))).collect();
        let (mut third, _) = Client::authenticated(&SERVER, "sessions", "localhost");
        third.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
        third.expect("<resource-constraint");
    });
    counts(&SERVER, "hibernated_per_account_max", || {
        let mut client = Client::session(&SERVER, "hibernates", "r");
        client.manage();
        client.sync();
    });
    counts(&SERVER, "unacked_stanzas_max", || {
        let mut client = Client::available(&SERVER, "forgets", "r");
        client.manage();
        let mut other = Client::available(&SERVER, "writes", "r");
        other.send("<message to='forgets@localhost/r' type='chat'><composing xmlns='http://jabber.org/protocol/chatstates'/></message>".repeat(17));
        client.expect_error("resource-constraint");
    });
}

#[test]
fn bounds_of_time_are_counted() {
    let server = Server::start(
        "[limits]\nrates = false\nfirst_byte_seconds = 1\ntls_handshake_seconds = 1\nauthentication_seconds = 2\nidle_ping_seconds = 1\nidle_close_seconds = 1\nack_seconds = 1\n",
    );
    counts(&server, "first_byte_seconds", || drop(Client::connect(server.plain).expect_end()));
    counts(&server, "authentication_seconds", || {
        let mut client = Client::connect(server.plain);
        client.open("localhost");
        client.expect_error("connection-timeout");
    });
    counts(&server, "tls_handshake_seconds", || {
        let mut client = Client::connect(server.direct);
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
        client.expect_end();
    });
    counts(&server, "idle_close_seconds", || {
        let mut client = Client::session(&server, "idle", "r");
        client.expect_error("connection-timeout");
    });
}

#[test]
fn bounds_of_rate_and_of_addresses_are_counted() {
    let server = Server::start(
        "[limits]\nconnections_per_second = 1\nconnections_burst = 6\nauth_failures_per_connection_max = 1\nauth_failures_delay_after = 1\nauth_failures_refuse_after = 2\nstanzas_per_second = 100\nstanzas_burst = 5\ninbound_bytes_burst = 10000\nstrangers_per_minute = 1\n",
    );
    server.ensure("alice@localhost");
    let from = own_address();
    counts(&server, "connections_per_second", || {
        for _ in 0..8 {
            drop(Client::try_connect(from, server.plain));
        }
    });
    let guesser = own_address();
    let guess = || {
        let mut client = Client::connect_from(guesser, server.plain);
        client.open("localhost");
        client.scram("SCRAM-SHA-1", "alice", "wrong", ("n,,", b"")).unwrap_err();
        client.expect_end();
    };
    counts(&server, "auth_failures_per_connection_max", guess);
    assert!(hit(&server, "auth_failures_delay_after") > 0);
    guess();
    counts(&server, "auth_failures_refuse_after", || {
        let _ = Client::try_connect(guesser, server.plain).map(|mut client| client.expect_end());
    });
    let mut alice = Client::available(&server, "alice", "r");
    counts(&server, "stanzas_per_second", || {
        for n in 0..20 {
            alice.send(format!("<iq type='get' id='{n}'><ping xmlns='urn:xmpp:ping'/></iq>"));
        }
    });
    counts(&server, "inbound_bytes_per_second", || {
        alice.send(format!("<message to='alice@localhost/r'><body>{}</body></message>", "x".repeat(30_000)));
    });
    counts(&server, "strangers_per_minute", || {
        for n in 0..3 {
            alice.send(format!("<message to='s{n}@localhost' type='chat' id='s{n}'><body>x</body></message>"));
        }
        alice.expect("<policy-violation");
    });
}

#[test]
fn a_roster_has_so_many_bytes() {
    let server = Server::start("[limits]\nrates = false\nroster_bytes_max = 65536\n");
    let mut alice = Client::available(&server, "alice", "r");
    let mut set = |jid: &str, letter: &str| {
        let groups: String = (10..40).map(|n| format!("<group>{n}{}</group>", letter.repeat(1_000))).collect();
        alice.send(format!(
            "<iq type='set' id='{jid}'><query xmlns='jabber:iq:roster'><item jid='{jid}@localhost'>{groups}</item></query></iq>"
        ));
        alice.sync()
    };
    for jid in ["one", "two"] {
        assert!(!set(jid, "x").contains("<error"));
    }
    counts(&server, "roster_bytes_max", || {
        let refused = set("three", "x");
        assert!(refused.contains("<resource-constraint") && refused.contains("The roster is full."), "{refused}");
    });
    // What is there may be changed.
    assert!(!set("two", "y").contains("<error"));
    alice.send("<presence type='subscribe' to='four@localhost'/>");
    assert!(!alice.sync().contains("<resource-constraint"), "there is room for an address");
}

/// Romeo, who sees Juliet, fetches until he may not; gives the answer that said so.
#[track_caller]
fn fetches_too_often(config: &str) -> String {
    let server = Server::start(&format!("[limits]\n{config}\n"));
    let mut juliet = Client::available(&server, "juliet", "home");
    let mut romeo = Client::available(&server, "romeo", "garden");
    romeo.send("<presence type='subscribe' to='juliet@localhost'/>");
    juliet.expect("type='subscribe'");
    juliet.send("<presence type='subscribed' to='romeo@localhost'/>");
    romeo.expect("from='juliet@localhost/home'");
    let mut answer = String::new();
    counts(&server, "fetches_per_minute", || {
        // A second or two may pass: a bucket of two does not fill meanwhile.
        for n in 0..4 {
            romeo
                .send(format!("<iq type='get' id='f{n}' to='juliet@localhost'><fetch xmlns='urn:waft:fetch:0'/></iq>"));
            answer = romeo.expect("</iq>");
        }
    });
    // Nobody else waits for that.
    juliet.sync();
    answer
}

#[test]
fn a_watcher_that_fetches_too_often_is_told_to_wait() {
    let answer = fetches_too_often("fetches_per_minute = 2");
    assert!(answer.contains("<resource-constraint") && answer.contains("type='wait'"), "{answer}");
}

#[test]
fn a_domain_that_fetches_too_often_is_told_to_wait() {
    let answer = fetches_too_often("fetches_per_domain_per_minute = 2");
    assert!(answer.contains("<resource-constraint") && answer.contains("type='wait'"), "{answer}");
}

#[test]
fn directed_presence_to_more_than_so_many_is_refused_and_counted() {
    let server = Server::start("[limits]\nrates = false\ndirected_presence_max = 2\n");
    let mut juliet = Client::available(&server, "juliet", "home");
    counts(&server, "directed_presence_max", || {
        for n in 0..3 {
            juliet.send(format!("<presence to='s{n}@localhost/x' id='p{n}'/>"));
        }
        let heard = juliet.expect("</presence>");
        assert!(heard.contains("<resource-constraint") && heard.contains("id='p2'"), "{heard}");
    });
    juliet.sync();
}

#[test]
fn bounds_are_told_over_http() {
    let address = free_address();
    let server = Server::start(&format!("[metrics]\naddress = \"{address}\"\n[limits]\nrates = false\n"));
    let mut client = Client::connect(server.plain);
    client.open("localhost");
    let _ = client.try_send("<a>".repeat(10).as_bytes());
    client.expect_error("policy-violation");
    eventually("it is counted", || {
        crate::metrics::get(address, "/metrics").contains("waft_limits_hit_total{limit=\"before_auth_depth_max\"} 1\n")
    });
}
