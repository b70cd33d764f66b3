//! Push notifications, XEP-0357, with a small app server: a component that speaks what the XEP asks of one.

use crate::client::{Client, attribute, between};
use crate::components::{handshake, header};
use crate::server::{Server, eventually, free_address};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::LazyLock;

const SECRET: &str = "a shared secret";

/// A server with app servers of these domains at one address.
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
        let domains: String = ["push-a.localhost", "push-b.localhost", "push-c.localhost"].map(component).concat();
        let server = Server::prepare(&format!("[limits]\nrates = false\n{domains}"), |folder| {
            std::fs::write(folder.join("component.secret"), SECRET).unwrap();
        });
        House { server, at }
    }
}

static HOUSE: LazyLock<House> = LazyLock::new(House::start);

/// Knows its nodes, and the secret of each; answers each publication. XEP-0357 §7, §7.1.
struct AppServer {
    domain: &'static str,
    stream: Client,
    nodes: HashMap<String, String>,
    /// Its own trouble, which will pass.
    is_down: bool,
}

impl AppServer {
    fn connect(house: &House, domain: &'static str) -> AppServer {
        let mut stream = Client::connect(house.at);
        stream.send(header(domain));
        let answer = stream.expect("<stream:stream") + &stream.expect(">");
        stream.send(handshake(attribute(&answer, "id"), SECRET));
        stream.expect("<handshake/>");
        AppServer { domain, stream, nodes: HashMap::new(), is_down: false }
    }

    /// A client of the maker's: what it is to enable.
    fn register(&mut self, node: &str) -> String {
        self.nodes.insert(node.to_owned(), format!("secret of {node}"));
        format!(
            "<iq type='set' id='enable'><enable xmlns='urn:xmpp:push:0' jid='{}' node='{node}'>\
             <x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>http://jabber.org/protocol/pubsub#publish-options</value></field>\
             <field var='secret'><value>secret of {node}</value></field></x></enable></iq>",
            self.domain
        )
    }

    /// The next notification: its node, and how many messages it says wait. It is answered.
    fn notified(&mut self) -> (String, u32) {
        self.stream.expect("<iq ");
        let iq = self.stream.expect("</iq>");
        let publish = between(&iq, "<publish", ">");
        let node = attribute(publish, "node").to_owned();
        let notification = between(&iq, "<notification xmlns='urn:xmpp:push:0'>", "</notification>");
        let count = between(notification, "<field var='message-count'>", "</field>");
        let count = between(count, "<value>", "</value>").parse().expect("a number");
        let given = iq.contains("<field var='secret'>").then(|| between(&iq, "<field var='secret'>", "</field>"));
        let error = if self.is_down {
            Some("type='wait'><recipient-unavailable")
        } else if !self.nodes.contains_key(&node) {
            Some("type='cancel'><item-not-found")
        } else if given != Some(format!("<value>{}</value>", self.nodes[&node]).as_str()) {
            Some("type='auth'><forbidden")
        } else {
            None
        };
        let (kind, content) = match error {
            Some(error) => ("error", format!("<error {error} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>")),
            None => ("result", String::new()),
        };
        let (from, to, id) = (attribute(&iq, "to"), attribute(&iq, "from"), attribute(&iq, "id"));
        assert!(!iq.contains("hush"), "nothing of what was said: {iq}");
        self.stream.send(format!("<iq type='{kind}' from='{from}' to='{to}' id='{id}'>{content}</iq>"));
        (node, count)
    }

    /// Nothing more came before this.
    fn hears_nothing_more(&mut self) {
        let ping = format!(
            "<iq type='get' from='{}' to='localhost' id='quiet'><ping xmlns='urn:xmpp:ping'/></iq>",
            self.domain
        );
        self.stream.send(ping);
        let before = self.stream.expect("id='quiet'");
        assert!(!before.contains("<notification"), "{before}");
    }
}

/// A phone that has enabled push, and whose connection then broke.
fn sleeping_phone(house: &House, user: &str, enable: &str) {
    let mut phone = Client::available(&house.server, user, "phone");
    phone.manage();
    phone.send(enable);
    phone.expect("type='result'");
    phone.sync();
    drop(phone);
    eventually("the phone sleeps", || {
        house.server.sessions(&format!("{user}@localhost")).iter().any(|(_, state)| state == "suspended")
    });
}

fn message(to: &str, content: &str) -> String {
    format!("<message to='{to}@localhost' type='chat' id='m'>{content}</message>")
}

#[test]
fn a_client_without_a_stream_is_woken_for_messages_and_calls_and_for_nothing_else() {
    let mut app = AppServer::connect(&HOUSE, "push-a.localhost");
    let enable = app.register("n1");
    sleeping_phone(&HOUSE, "woken", &enable);
    let mut romeo = Client::available(&HOUSE.server, "waker", "here");
    let composing = "<composing xmlns='http://jabber.org/protocol/chatstates'/>";
    romeo.send(message("woken", composing));
    romeo.sync();
    app.hears_nothing_more();
    romeo.send(message("woken", "<body>hush</body>"));
    let (node, count) = app.notified();
    assert!(node == "n1" && count >= 1, "{node} {count}");
    // XEP-0353 §3.
    let call = "<propose xmlns='urn:xmpp:jingle-message:0' id='call'>\
        <description xmlns='urn:xmpp:jingle:apps:rtp:1' media='audio'/></propose><store xmlns='urn:xmpp:hints'/>";
    romeo.send(message("woken", call));
    assert_eq!(app.notified().0, "n1");
    app.hears_nothing_more();
    // Whoever is there again needs no waking.
    let mut phone = Client::available(&HOUSE.server, "woken", "phone");
    phone.send(app.register("n1"));
    phone.expect("type='result'");
    romeo.send(message("woken", "<body>hush</body>"));
    phone.expect("<body>hush</body>");
    app.hears_nothing_more();
}

// §7.1.
#[test]
fn a_registration_ends_by_an_error_that_will_not_pass_alone_and_its_owner_sees_it() {
    let mut app = AppServer::connect(&HOUSE, "push-b.localhost");
    let enable = app.register("n2");
    sleeping_phone(&HOUSE, "seen", &enable);
    let mut laptop = Client::session(&HOUSE.server, "seen", "laptop");
    let mut registrations = || {
        laptop.send("<iq type='get' id='r'><registrations xmlns='urn:waft:push-registrations:0'/></iq>");
        laptop.sync()
    };
    let shown = "<registration jid='push-b.localhost' node='n2' errors='0'/>";
    assert!(registrations().contains(shown), "no secret, and no error yet");
    let mut romeo = Client::available(&HOUSE.server, "teller", "here");
    app.is_down = true;
    romeo.send(message("seen", "<body>hush</body>"));
    app.notified();
    eventually("the error is counted", || registrations().contains("node='n2' errors='1'"));
    app.is_down = false;
    romeo.send(message("seen", "<body>hush</body>"));
    app.notified();
    eventually("what passed is forgotten", || registrations().contains(shown));
    app.nodes.clear();
    romeo.send(message("seen", "<body>hush</body>"));
    app.notified();
    eventually("it is not registered any more", || !registrations().contains("<registration "));
    let log = HOUSE.server.log();
    assert!(log.contains("push to push-b.localhost") && log.contains("item-not-found"), "{log}");
    romeo.send(message("seen", "<body>hush</body>"));
    romeo.sync();
    app.hears_nothing_more();
}

#[test]
fn a_registration_outlives_the_server() {
    let mut house = House::start();
    let mut app = AppServer::connect(&house, "push-c.localhost");
    let enable = app.register("n3");
    sleeping_phone(&house, "lasting", &enable);
    house.server.signal("KILL");
    house.server.ended();
    house.server.restart();
    let nodes = app.nodes;
    let mut app = AppServer { nodes, ..AppServer::connect(&house, "push-c.localhost") };
    let mut romeo = Client::available(&house.server, "waker", "here");
    romeo.send(message("lasting", "<body>hush</body>"));
    assert_eq!(app.notified(), ("n3".to_owned(), 1));
}
