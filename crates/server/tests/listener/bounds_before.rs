//! Bounds before authentication, on every listener. LIMITS: bytes, elements, depth, attributes, declarations, names.

use crate::client::{Client, header};
use crate::server::Server;
use std::ops::Add;
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[limits]
rates = false
before_auth_bytes_max = 12000
before_auth_elements_max = 20
before_auth_depth_max = 6
before_auth_attributes_max = 10
before_auth_declarations_max = 5
name_bytes_max = 100
attribute_bytes_max = 5000
",
    )
});

/// A client before authentication on each listener: in clear, and encrypted both ways.
fn everywhere(test: impl Fn(&str, Client)) {
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    test("plain", client);
    let mut client = Client::connect(SERVER.starttls);
    client.open("localhost");
    test("before STARTTLS", client);
    test("after STARTTLS", Client::starttls(&SERVER, "localhost").0);
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    test("direct TLS", client);
    let mut client = Client::connect(SERVER.proxied);
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 4000 5222\r\n");
    client.open("localhost");
    test("behind a proxy", client);
}

/// Breaks the bound with `text` on every listener: the stream ends and says which bound.
fn refused(text: &str, what: &str) {
    everywhere(|listener, mut client| {
        // What is not taken any more may break the connection: the error comes all the same.
        let _ = client.try_send(text.as_bytes());
        let heard = client.expect_error("policy-violation");
        assert!(heard.contains("<stanza-too-big xmlns='urn:xmpp:errors'/>"), "{listener}: {heard}");
        assert!(heard.contains(what), "{listener}: {what} in {heard}");
    });
}

/// Within the bound it is only not allowed here.
fn within(text: &str) {
    everywhere(|_, mut client| {
        client.send(text);
        client.expect_error("not-authorized");
    });
}

#[test]
fn row_5_bytes_are_bound_on_every_listener() {
    let element = |bytes: usize| format!("<a>{}</a>", "x".repeat(bytes - 7));
    within(&element(12_000));
    refused(&element(12_001), "at most 12000 allowed: element");
    // Not only when the end has come.
    refused(&format!("<a>{}", "x".repeat(12_000)), "at most 12000 allowed: element");
}

#[test]
fn elements() {
    within(&format!("<a>{}</a>", "<b/>".repeat(19)));
    refused(&format!("<a>{}", "<b/>".repeat(20)), "at most 20 allowed: elements");
}

#[test]
fn depth() {
    within(&format!("{}{}", "<a>".repeat(6), "</a>".repeat(6)));
    refused(&"<a>".repeat(7), "at most 6 allowed: depth");
}

#[test]
fn attributes() {
    let tag = |count: usize| format!("<a{}/>", (0..count).map(|n| format!(" a{n}='1'")).collect::<String>());
    within(&tag(10));
    refused(&tag(11), "at most 10 allowed: attributes");
}

#[test]
fn namespace_declarations() {
    let tag =
        |count: usize| format!("<a{}/>", (0..count).map(|n| format!(" xmlns:p{n}='urn:{n}'")).collect::<String>());
    within(&tag(5));
    refused(&tag(6), "at most 5 allowed: namespace declarations");
}

#[test]
fn one_name_and_one_attributes_value() {
    within(&format!("<{}/>", "n".repeat(100)));
    refused(&format!("<{}", "n".repeat(101)), "at most 100 allowed: name");
    refused(&format!("<a {}='1'/>", "n".repeat(101)), "at most 100 allowed: name");
    within(&format!("<a b='{}'/>", "v".repeat(5_000)));
    refused(&format!("<a b='{}", "v".repeat(5_001)), "at most 5000 allowed: attribute");
}

#[test]
fn the_header_is_bound_too() {
    for (text, what) in [
        (header("localhost").replace(" version='1.0' xml", &format!(" a='{}' xml", "v".repeat(6_000))), "attribute"),
        (
            header("localhost")
                .replace(" version='1.0' xml", &(0..12).map(|n| format!(" a{n}='1'")).collect::<String>().add(" xml")),
            "attributes",
        ),
    ] {
        let mut client = Client::connect(SERVER.plain);
        client.send(text);
        let heard = client.expect_error("policy-violation");
        assert!(heard.contains(what), "{heard}");
    }
}

#[test]
fn what_is_in_force_is_told() {
    let mut client = Client::connect(SERVER.plain);
    assert!(client.open("localhost").contains("<max-bytes>12000</max-bytes>"));
}
