//! Making an account over XMPP, XEP-0077: open, closed, and not too often.

use crate::client::{Client, own_address};
use crate::server::Server;
use std::net::IpAddr;
use std::sync::LazyLock;

/// Registration has a limit per time: rates are in force, and each test comes from its own address.
static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start("[host.\"localhost\"]\n[host.\"open.localhost\"]\nregistration = \"open\"\n"));

const FORM: &str = "<iq type='get' id='r1'><query xmlns='jabber:iq:register'/></iq>";

fn submit(user: &str, password: &str) -> String {
    format!(
        "<iq type='set' id='r2'><query xmlns='jabber:iq:register'><username>{user}</username><password>{password}</password></query></iq>"
    )
}

fn tls(from: IpAddr, host: &str) -> (Client, String) {
    let mut client = Client::connect_from(from, SERVER.direct);
    client.handshake(host, None);
    let features = client.open(host);
    (client, features)
}

#[test]
fn where_it_is_open_a_stranger_fills_in_the_form_and_logs_in() {
    let (mut client, features) = tls(own_address(), "open.localhost");
    assert!(features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"), "{features}");
    client.send(FORM);
    let heard = client.expect("</iq>");
    assert!(heard.contains("<username/>") && heard.contains("<password/>"), "{heard}");
    client.send(submit("newcomer", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"));
    client.scram("SCRAM-SHA-256", "newcomer", "secret", ("n,,", b"")).unwrap();
    client.open("open.localhost");
    client.bind("here");
    assert_eq!(client.jid, "newcomer@open.localhost/here");
}

#[test]
fn row_43_one_address_makes_one_account_an_hour() {
    let from = own_address();
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("first", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"));
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("second", "secret"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='wait'") && heard.contains("<resource-constraint "), "{heard}");
    let (mut client, _) = tls(own_address(), "open.localhost");
    client.send(submit("second", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"), "from elsewhere");
}

#[test]
fn row_43_by_default_registration_is_closed() {
    let (mut client, features) = tls(own_address(), "localhost");
    assert!(!features.contains("iq-register"), "{features}");
    client.send(FORM);
    client.expect_error("not-authorized");
    let (mut client, _) = tls(own_address(), "localhost");
    client.send(submit("intruder", "secret"));
    client.expect_error("not-authorized");
}

#[test]
fn a_name_that_is_taken_or_impossible_costs_nothing_but_an_error() {
    SERVER.ensure("taken@open.localhost");
    let from = own_address();
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("taken", "secret"));
    assert!(client.expect("</iq>").contains("<conflict "));
    client.send(submit("not a name", "secret"));
    assert!(client.expect("</iq>").contains("<not-acceptable "));
    client.send(submit("", "secret"));
    assert!(client.expect("</iq>").contains("<not-acceptable "));
    client.send(submit("free", "secret"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='result'"), "a name that was taken used up no place: {heard}");
}

#[test]
fn asking_for_ever_ends_the_stream() {
    let (mut client, _) = tls(own_address(), "open.localhost");
    client.send(FORM.repeat(20));
    client.expect_error("policy-violation");
}

#[test]
fn nobody_registers_in_clear_where_tls_is_required() {
    let mut client = Client::connect(SERVER.starttls);
    assert!(!client.open("open.localhost").contains("iq-register"));
    client.send(submit("clear", "secret"));
    client.expect_error("not-authorized");
}

#[test]
fn row_24_a_password_change_names_the_sessions_own_account_alone() {
    SERVER.ensure("victim@localhost");
    let mut client = Client::session(&SERVER, "mallory", "here");
    for to in ["", " to='victim@localhost'", " to='localhost'"] {
        client.send(format!(
            "<iq type='set' id='c1'{to}><query xmlns='jabber:iq:register'><username>victim</username><password>stolen</password></query></iq>"
        ));
        let heard = client.expect("</iq>");
        assert!(heard.contains("type='error'"), "{heard}");
    }
    let mut victim = Client::session(&SERVER, "victim", "here");
    assert_eq!(victim.sync(), "", "the old password holds");
    client.send("<iq type='set' id='c2' to='localhost'><query xmlns='jabber:iq:register'><username>mallory</username><password>fresh</password></query></iq>");
    client.expect("id='c2'");
    client.sync();
    let mut again = Client::connect(SERVER.plain);
    again.open("localhost");
    again.scram("SCRAM-SHA-256", "mallory", "fresh", ("n,,", b"")).unwrap();
}

#[test]
fn who_removes_the_account_ends_its_streams() {
    let mut client = Client::session(&SERVER, "leaves", "here");
    client.send("<iq type='set' id='d1'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    let heard = client.expect_end();
    assert!(
        heard.contains("id='d1'") && heard.contains("<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'"),
        "{heard}"
    );
    let mut again = Client::connect(SERVER.plain);
    again.open("localhost");
    let refused = again.scram("SCRAM-SHA-256", "leaves", "leaves", ("n,,", b""));
    assert_eq!(refused.err().as_deref(), Some("not-authorized"));
}
