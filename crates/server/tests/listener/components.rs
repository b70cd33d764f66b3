//! Components (XEP-0114) through their own listener: bytes as a component writes them.

use crate::client::{Client, attribute, own_address};
use crate::server::{Server, eventually, free_address};
use std::net::SocketAddr;
use std::sync::LazyLock;
use stream::Crypto;

const SECRET: &str = "a shared secret";

/// A server with components of these domains at one address, and small bounds.
struct House {
    server: Server,
    at: SocketAddr,
}

impl House {
    fn start() -> House {
        let at = free_address();
        let component = |domain: &str| {
            format!(
                "[[component]]\ndomain = \"{domain}\"\nsecret = \"{{folder}}/component.secret\"\naddress = \"{at}\"\n"
            )
        };
        let limits = "[limits]\nrates = false\ncomponent_stanza_bytes_max = 20000\nstanza_elements_max = 100\nstanza_depth_max = 16\n\
            stanza_attributes_max = 16\nstanza_declarations_max = 8\nname_bytes_max = 100\nattribute_bytes_max = 5000\n\
            component_queue_stanzas_max = 16\nfirst_byte_seconds = 1\nauthentication_seconds = 10\n";
        let domains: String =
            ["a", "b", "c", "d", "e", "f", "g", "h"].map(|it| component(&format!("{it}.localhost"))).concat();
        let server = Server::prepare(&format!("{limits}{domains}"), |folder| {
            std::fs::write(folder.join("component.secret"), format!("{SECRET}\n")).unwrap();
        });
        House { server, at }
    }

    /// A stream whose header is answered; gives the id.
    fn open(&self, domain: &str) -> (Client, String) {
        let mut client = Client::connect(self.at);
        client.send(header(domain));
        let answer = client.expect("<stream:stream").to_owned() + &client.expect(">");
        let id = attribute(&answer, "id").to_owned();
        (client, id)
    }

    /// One that has proved its secret.
    fn component(&self, domain: &str) -> Client {
        let (mut client, id) = self.open(domain);
        client.send(handshake(&id, SECRET));
        client.expect("<handshake/>");
        client
    }
}

static HOUSE: LazyLock<House> = LazyLock::new(House::start);

pub fn header(domain: &str) -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams' to='{domain}'>"
    )
}

pub fn handshake(id: &str, secret: &str) -> String {
    let digest = server::crypto::AwsLc.digest(stream::Hash::Sha1, format!("{id}{secret}").as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("<handshake>{digest}</handshake>")
}

/// What the kernel took for the component is done for its sender.
#[test]
fn a_message_to_a_component_is_acknowledged_when_it_is_with_it() {
    let mut component = HOUSE.component("h.localhost");
    let mut alice = Client::session(&HOUSE.server, "acknowledged", "home");
    alice.manage();
    alice.send("<message to='bot@h.localhost' type='chat'><body>hi</body></message><r xmlns='urn:xmpp:sm:3'/>");
    component.expect("<body>hi</body>");
    alice.expect("h='1'");
}

#[test]
fn a_component_and_a_client_talk_in_the_namespace_of_each() {
    let mut component = HOUSE.component("a.localhost");
    let mut juliet = Client::session(&HOUSE.server, "juliet-a", "balcony");
    juliet.send("<message to='bot@a.localhost/x' type='chat' id='1'><body>hi</body></message>");
    let heard = component.expect("</message>");
    assert!(heard.contains("from='juliet-a@localhost/balcony'") && heard.contains("<body>hi</body>"), "{heard}");
    component.send(
        "<message from='bot@a.localhost/x' to='juliet-a@localhost/balcony' type='chat'><body>ho</body>\
         <x xmlns='jabber:component:accept'/></message>",
    );
    let heard = juliet.expect("</message>");
    assert!(heard.contains("<body>ho</body>") && !heard.contains("component:accept"), "{heard}");
}

#[test]
fn what_is_no_good_component_is_told_so_and_ended() {
    let (mut client, id) = HOUSE.open("b.localhost");
    client.send(handshake(&id, "a guess"));
    client.expect_error("not-authorized");
    // The digest of another stream's id.
    let (mut client, _) = HOUSE.open("b.localhost");
    client.send(handshake(&id, SECRET));
    client.expect_error("not-authorized");
    let mut client = Client::connect(HOUSE.at);
    client.send(header("unknown.localhost"));
    client.expect_error("host-unknown");
    let mut client = Client::connect(HOUSE.at);
    client.send(header("b.localhost").replace("jabber:component:accept", "jabber:client"));
    client.expect_error("invalid-namespace");
    let (mut client, _) = HOUSE.open("b.localhost");
    client.send("<message from='x@b.localhost' to='juliet-a@localhost'/>");
    client.expect_error("not-authorized");
}

#[test]
fn a_component_speaks_for_its_own_domain_alone() {
    for from in ["localhost", "juliet-a@localhost", "x@sub.c.localhost", "x@d.localhost"] {
        let mut component = HOUSE.component("c.localhost");
        component.send(format!("<message from='{from}' to='juliet-a@localhost'><body>forged</body></message>"));
        component.expect_error("invalid-from");
        let free = || HOUSE.server.status()["components"].to_string().contains("\"domain\":\"c.localhost\",\"queue\"");
        eventually("the domain is free again", free);
    }
}

// LIMITS.md §2 row 5: every bound is in force on this listener too.
#[test]
fn every_bound_of_a_stanza_ends_the_stream() {
    let message = |content: &str| format!("<message from='x@d.localhost' to='nobody@localhost'>{content}</message>");
    for (what, text) in [
        ("bytes", message(&"x".repeat(20_000))),
        ("elements", message(&"<a/>".repeat(100))),
        ("depth", message(&format!("{}{}", "<a>".repeat(16), "</a>".repeat(16)))),
        ("attributes", message(&format!("<a {}/>", (0..17).map(|n| format!("a{n}='1' ")).collect::<String>()))),
        ("declarations", message(&format!("<a {}/>", (0..9).map(|n| format!("xmlns:a{n}='u' ")).collect::<String>()))),
        ("name", message(&format!("<{}/>", "a".repeat(101)))),
        ("attribute", message(&format!("<a b='{}'/>", "x".repeat(5_001)))),
    ] {
        let mut component = HOUSE.component("d.localhost");
        let _ = component.try_send(text.as_bytes());
        let heard = component.expect_error("policy-violation");
        assert!(heard.contains("too-big") || heard.contains("policy-violation"), "{what}: {heard}");
        let free = || HOUSE.server.status()["components"].to_string().contains("\"domain\":\"d.localhost\",\"queue\"");
        eventually("the domain is free again", free);
    }
    // Before the handshake the smaller ones hold.
    let (mut client, _) = HOUSE.open("d.localhost");
    let _ = client.try_send(format!("<handshake>{}</handshake>", "0".repeat(10_001)).as_bytes());
    client.expect_error("policy-violation");
}

#[test]
fn a_silent_connection_and_one_that_does_not_prove_itself_are_ended() {
    let mut silent = Client::connect_from(own_address(), HOUSE.at);
    silent.expect_error("connection-timeout");
    let (mut slow, _) = HOUSE.open("e.localhost");
    slow.expect_error("connection-timeout");
}

#[test]
fn a_component_that_takes_nothing_fills_its_bounded_queue_and_senders_hear_it() {
    let component = HOUSE.component("f.localhost");
    let mut juliet = Client::session(&HOUSE.server, "juliet-f", "balcony");
    let body = "x".repeat(15_000);
    // More than the kernel and the socket's share take; every one is answered or waits.
    let queued = || {
        let status = HOUSE.server.status();
        let of = |it: &&serde_json::Value| it["domain"] == "f.localhost";
        status["components"].as_array().unwrap().iter().find(of).unwrap()["queue"].as_u64().unwrap()
    };
    let mut refused = String::new();
    for n in 0..2_000 {
        juliet.send(format!("<message to='bot@f.localhost' type='chat' id='m{n}'><body>{body}</body></message>"));
        if n % 8 == 7 {
            refused = juliet.sync();
            // (What came at once may find the queue full that is written out a moment later.)
            if refused.contains("resource-constraint") && (0..20).all(|_| queued() > 0) {
                break;
            }
        }
    }
    assert!(refused.contains("resource-constraint") && refused.contains("type='wait'"), "{refused:.300}");
    assert!(crate::bounds_counted::hit(&HOUSE.server, "component_queue_stanzas_max") > 0);
    // When it is gone, what waited comes back.
    drop(component);
    juliet.expect("remote-server-timeout");
}

#[test]
fn the_operator_sees_which_components_are_there() {
    let of = |domain: &str| {
        let status = HOUSE.server.status();
        status["components"].as_array().unwrap().iter().find(|it| it["domain"] == domain).unwrap().clone()
    };
    assert!(of("g.localhost").get("connected").is_none());
    let component = HOUSE.component("g.localhost");
    eventually("it is shown", || of("g.localhost").get("connected").is_some());
    drop(component);
    eventually("it is shown as gone", || of("g.localhost").get("connected").is_none());
}

// RFC 2779 §2.2.5, §3.2.3: hundreds of subscribers, each of whom hears of a change once.
#[test]
fn three_hundred_subscribers_hear_of_one_change_once_each() {
    let at = free_address();
    let config = format!(
        "[limits]\nrates = false\n[[component]]\ndomain = \"g.localhost\"\n\
         secret = \"{{folder}}/component.secret\"\naddress = \"{at}\"\n"
    );
    let server = Server::prepare(&config, |folder| {
        std::fs::write(folder.join("component.secret"), format!("{SECRET}\n")).unwrap();
    });
    let house = House { server, at };
    let mut component = house.component("g.localhost");
    let mut juliet = Client::available(&house.server, "juliet", "balcony");
    juliet.send(
        "<iq type='set' id='r'><rules xmlns='urn:waft:rules:0' etag='*'>\
         <rule xmlns='urn:ietf:params:xml:ns:common-policy' id='all'><actions>\
         <sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>allow</sub-handling></actions></rule></rules></iq>",
    );
    juliet.expect("id='r'");
    for n in 0..300 {
        component.send(format!("<presence type='subscribe' from='u{n}@g.localhost' to='juliet@localhost'/>"));
        component.expect(&format!("to='u{n}@g.localhost'"));
        component.expect("from='juliet@localhost/balcony'");
    }
    juliet.sync();
    juliet.send("<presence><status>one change</status></presence>");
    juliet.sync();
    component
        .send("<iq type='get' id='behind' from='u0@g.localhost' to='localhost'><ping xmlns='urn:xmpp:ping'/></iq>");
    let heard = component.expect("id='behind'");
    assert_eq!(heard.matches("<status>one change</status>").count(), 300);
    for n in 0..300 {
        let told = heard.split("</presence>").filter_map(|it| it.rsplit("<presence ").next());
        let told = told.filter(|it| it.contains("one change"));
        assert_eq!(told.filter(|it| it.contains(&format!("to='u{n}@g.localhost'"))).count(), 1, "u{n}");
    }
}
