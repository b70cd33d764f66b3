//! Stream management, XEP-0198: enabling, acknowledging, resuming.

use crate::client::{Client, attribute, between};
use crate::server::{Server, eventually};
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]\nrates = false\nresume_seconds_default = 60\nresume_seconds_max = 90\n\
         [host.\"localhost\"]\nresume_location = \"[2001:db8::1]:5222\"\n",
    )
});

const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

fn ack(h: u32) -> String {
    format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>")
}

fn resume(id: &str, h: u32) -> String {
    format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='{h}'/>")
}

fn message(to: &str, body: &str) -> String {
    format!("<message to='{to}' type='chat' id='{body}'><body>{body}</body></message>")
}

fn sleeps(jid: &str) {
    let bare = jid.split('/').next().unwrap();
    eventually("the session sleeps", || {
        SERVER.sessions(bare).iter().any(|(it, state)| it == jid && state == "suspended")
    });
}

#[test]
fn enabling_gives_an_id_a_time_and_counts_from_zero() {
    let mut client = Client::available(&SERVER, "enables", "here");
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='30'/>");
    let heard = client.expect("<enabled xmlns='urn:xmpp:sm:3'") + &client.expect("/>");
    assert_eq!((attribute(&heard, "resume"), attribute(&heard, "max")), ("true", "30"));
    assert!(attribute(&heard, "id").len() >= 22, "unguessable: {heard}");
    // §3.
    assert_eq!(attribute(&heard, "location"), "[2001:db8::1]:5222");
    client.send(R);
    client.expect(&ack(0));
    client.sync();
    client.send(message("enables@localhost/here", "one") + " " + R);
    client.expect(&ack(2));
}

#[test]
fn a_client_gets_no_more_time_than_the_server_gives() {
    let mut client = Client::available(&SERVER, "greedy", "here");
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='100000'/>");
    let heard = client.expect("<enabled xmlns='urn:xmpp:sm:3'") + &client.expect("/>");
    assert_eq!(attribute(&heard, "max"), "90");
    let mut client = Client::available(&SERVER, "greedy", "there");
    client.send("<enable xmlns='urn:xmpp:sm:3'/>");
    assert_eq!(client.expect("/>"), "<enabled xmlns='urn:xmpp:sm:3'/>");
}

#[test]
fn enabling_twice_or_before_binding_fails() {
    let mut client = Client::available(&SERVER, "twice", "here");
    client.manage();
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    client.expect(
        "<failed xmlns='urn:xmpp:sm:3'><unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
    );
    assert_eq!(client.sync(), "");
    let (mut client, _) = Client::authenticated(&SERVER, "twice", "localhost");
    client.send("<enable xmlns='urn:xmpp:sm:3'/>");
    client.expect("<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.send("<enable xmlns='urn:xmpp:sm:3'/>");
    client.expect("<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
}

#[test]
fn the_server_asks_for_acknowledgement_of_what_it_sent() {
    let mut client = Client::available(&SERVER, "asked", "here");
    client.manage();
    client.send(message("asked@localhost/here", "one"));
    client.expect("</message>");
    client.expect(R);
    client.send(ack(1));
    // Acknowledging more than was sent ends the stream. XEP-0198 §6.
    client.send(ack(9));
    let heard = client.expect_error("undefined-condition");
    assert!(heard.contains("<handled-count-too-high xmlns='urn:xmpp:sm:3' h='9' send-count='1'/>"), "{heard}");
}

#[test]
fn the_error_of_a_stanza_comes_before_its_acknowledgement() {
    // Else a server that dies in between has acknowledged a message that nobody has and nobody was told of.
    let mut client = Client::available(&SERVER, "refused", "here");
    client.manage();
    let mut errors = 0;
    for round in 1..=100 {
        let each = (0..30).map(|n| message(&format!("nobody{round}-{n}@localhost"), "x"));
        client.send(each.collect::<String>() + R);
        let heard = client.expect("<a xmlns='urn:xmpp:sm:3' h='") + &client.expect("/>");
        errors += heard.matches("type='error'").count();
        let acked: usize = attribute(&heard[heard.rfind("<a ").unwrap()..], "h").parse().unwrap();
        assert!(errors >= acked, "round {round}: {acked} acknowledged after {errors} errors");
        client.send(ack(errors as u32));
    }
}

#[test]
fn who_closes_hears_the_errors_of_what_is_acknowledged() {
    for round in 0..20 {
        let mut client = Client::available(&SERVER, "closes", "here");
        client.manage();
        let each = (0..30).map(|n| message(&format!("nobody-closes{round}-{n}@localhost"), "x"));
        client.send(each.collect::<String>() + "</stream:stream>");
        let heard = client.expect_end();
        let last = &heard[heard.rfind("<a ").expect("the last word on what was handled")..];
        let acked: usize = attribute(last, "h").parse().unwrap();
        let errors = heard.matches("type='error'").count();
        assert!(errors >= acked, "{acked} acknowledged after {errors} errors");
    }
}

#[test]
fn a_count_that_is_none_ends_the_stream() {
    for h in ["x", "-1", "4294967296", ""] {
        let mut client = Client::available(&SERVER, "nocount", "here");
        client.manage();
        client.send(format!("<a xmlns='urn:xmpp:sm:3' h='{h}'/>"));
        client.expect_error("bad-format");
    }
}

#[test]
fn a_resumed_stream_goes_on_where_the_broken_one_was() {
    let mut client = Client::available(&SERVER, "resumes", "here");
    let id = client.manage();
    let jid = client.jid.clone();
    client.send(message("resumes@localhost/here", "one") + &message("resumes@localhost/here", "two"));
    client.expect("<body>two</body>");
    drop(client);
    sleeps(&jid);

    // Meanwhile somebody writes.
    let mut other = Client::available(&SERVER, "writes", "here");
    other.send(message("resumes@localhost", "three"));
    other.sync();

    let (mut client, _) = Client::authenticated(&SERVER, "resumes", "localhost");
    client.send(resume(&id, 1));
    let heard = client.expect("<resumed xmlns='urn:xmpp:sm:3'") + &client.expect("/>");
    assert_eq!((attribute(&heard, "h"), attribute(&heard, "previd")), ("2", id.as_str()));
    // One was handled: two and three come, in order, and no other.
    let heard = client.expect("<body>two</body>");
    assert!(!heard.contains("<body>one</body>"), "{heard}");
    client.expect("<body>three</body>");
    client.send(message("resumes@localhost/here", "four"));
    client.expect("<body>four</body>");
    client.send(R);
    client.expect(&ack(3));
}

#[test]
fn no_stanza_after_a_resumption_is_taken_for_one_from_before() {
    // Stanzas before management counted must not lend their numbers to those after the resumption.
    let mut client = Client::available(&SERVER, "numbers", "here");
    for n in 0..10 {
        client.send(message("numbers@localhost/here", &format!("before{n}")));
        client.expect(&format!("<body>before{n}</body>"));
    }
    let id = client.manage();
    let jid = client.jid.clone();
    client.send(message("numbers@localhost/here", "managed"));
    client.expect("<body>managed</body>");
    drop(client);
    sleeps(&jid);
    let (mut client, _) = Client::authenticated(&SERVER, "numbers", "localhost");
    client.send(resume(&id, 1));
    client.expect("<resumed ");
    for n in 0..20 {
        client.send(message("numbers@localhost/here", &format!("after{n}")));
        client.expect(&format!("<body>after{n}</body>"));
    }
}

#[test]
fn what_is_sent_again_after_a_resumption_comes_once() {
    let mut client = Client::available(&SERVER, "resends", "here");
    let id = client.manage();
    let jid = client.jid.clone();
    let mut reader = Client::available(&SERVER, "resendee", "here");
    client.send(message("resendee@localhost", "once"));
    reader.expect("<body>once</body>");
    drop(client);
    sleeps(&jid);
    let (mut client, _) = Client::authenticated(&SERVER, "resends", "localhost");
    client.send(resume(&id, 0));
    client.expect("<resumed xmlns='urn:xmpp:sm:3' h='1'");
    client.send(message("resendee@localhost", "twice"));
    reader.expect("<body>twice</body>");
    assert!(!reader.sync().contains("<body>"));
}

#[test]
fn a_stream_may_be_resumed_while_the_old_connection_is_still_there() {
    let mut old = Client::available(&SERVER, "moves", "here");
    let id = old.manage();
    let (mut new, _) = Client::authenticated(&SERVER, "moves", "localhost");
    new.send(resume(&id, 0));
    new.expect("<resumed xmlns='urn:xmpp:sm:3'");
    new.expect("/>");
    old.expect_error("conflict");
    assert_eq!(SERVER.sessions("moves@localhost").len(), 1);
    new.send(message("moves@localhost/here", "alive"));
    new.expect("<body>alive</body>");
}

#[test]
fn an_id_that_is_unknown_or_anothers_resumes_nothing_and_binding_goes_on() {
    let mut victim = Client::available(&SERVER, "victim", "here");
    let id = victim.manage();
    let (mut thief, _) = Client::authenticated(&SERVER, "thief", "localhost");
    for (id, h) in [(id.as_str(), 0), ("nonsense", 0)] {
        thief.send(resume(id, h));
        let heard = thief.expect("</failed>");
        assert!(heard.contains("<item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/>"), "{heard}");
    }
    thief.send("<resume xmlns='urn:xmpp:sm:3'/>");
    assert!(thief.expect("</failed>").contains("<bad-request "));
    thief.bind("here");
    assert_eq!(victim.sync(), "");
}

#[test]
fn a_stream_that_was_closed_in_order_cannot_be_resumed() {
    let mut client = Client::available(&SERVER, "closed", "here");
    let id = client.manage();
    client.send("</stream:stream>");
    client.expect_end();
    let (mut client, _) = Client::authenticated(&SERVER, "closed", "localhost");
    client.send(resume(&id, 0));
    assert!(client.expect("</failed>").contains("<item-not-found "));
}

#[test]
fn resuming_with_a_count_too_high_ends_the_stream_or_fails() {
    let mut client = Client::available(&SERVER, "toohigh", "here");
    let id = client.manage();
    let jid = client.jid.clone();
    drop(client);
    sleeps(&jid);
    let (mut client, _) = Client::authenticated(&SERVER, "toohigh", "localhost");
    client.send(resume(&id, 77));
    let heard = client.expect_error("undefined-condition");
    assert!(heard.contains("<handled-count-too-high "), "{heard}");
}

#[test]
fn what_was_not_acknowledged_is_kept_when_the_session_ends_for_good() {
    // Nobody acknowledges; the time for resumption is a second.
    let mut client = Client::available(&SERVER, "forgets", "here");
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true' max='1'/>");
    client.expect("<enabled ");
    client.expect("/>");
    let mut other = Client::available(&SERVER, "sends", "here");
    other.send(message("forgets@localhost", "kept"));
    other.sync();
    client.expect("<body>kept</body>");
    drop(client);
    eventually("the session ends", || SERVER.sessions("forgets@localhost").is_empty());
    let mut client = Client::session(&SERVER, "forgets", "again");
    client.send("<presence/>");
    let heard = client.expect("<body>kept</body>") + &client.expect("</message>");
    assert!(heard.contains("<delay xmlns='urn:xmpp:delay'"), "{heard}");
    assert_eq!(between(&heard, "id='", "'"), between(&heard, "id='", "'"));
}

#[test]
fn a_request_in_clear_without_management_is_refused() {
    let mut client = Client::available(&SERVER, "without", "here");
    client.send(R);
    client.expect("<unexpected-request xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>");
    client.send(ack(3));
    assert_eq!(client.sync(), "");
}

#[test]
fn an_acknowledgement_says_that_what_must_last_is_on_disk() {
    let mut client = Client::available(&SERVER, "lasting", "here");
    client.manage();
    SERVER.ensure("away@localhost");
    for n in 1..=20u32 {
        client.send(message("away@localhost", &format!("m{n}")) + R);
        client.expect(&ack(n));
    }
    let mut away = Client::session(&SERVER, "away", "back");
    away.send("<presence/>");
    for n in 1..=20u32 {
        away.expect(&format!("<body>m{n}</body>"));
    }
}

// CLUSTER rule 10: an id of before a restart is never taken for one of after it.
#[test]
fn a_resumption_id_says_how_often_the_store_was_opened() {
    let mut server = Server::start("[limits]\nrates = false\n");
    let epoch = |server: &Server| {
        let mut client = Client::available(server, "epochs", "here");
        let id = client.manage();
        u64::from_str_radix(id.split('-').next().unwrap(), 16).unwrap()
    };
    let first = epoch(&server);
    server.signal("KILL");
    server.ended();
    server.restart();
    assert_eq!(epoch(&server), first + 1);
}
