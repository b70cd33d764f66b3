//! Headers, stream errors, the end of a stream. RFC 6120 §4, §11.

use crate::client::{Client, attribute, between, header, plain};
use crate::server::Server;
use std::sync::LazyLock;
use std::time::Duration;

static SERVER: LazyLock<Server> =
    LazyLock::new(|| Server::start("[host.\"localhost\"]\n[host.\"second.localhost\"]\n[limits]\nrates = false\n"));

/// A header with parts of its own.
fn odd_header(parts: &str) -> String {
    format!("<?xml version='1.0'?><stream:stream {parts}>")
}

const NAMESPACES: &str = "xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'";

/// Says `text` first of all, on a new connection: our header comes, then this error. RFC 6120 §4.9.1.
#[track_caller]
fn fails_at_once(text: impl AsRef<[u8]>, condition: &str) -> String {
    let mut client = Client::connect(SERVER.plain);
    client.send(text);
    let heard = client.expect_error(condition);
    assert!(heard.starts_with("<?xml version='1.0'?><stream:stream "), "a header comes first: {heard}");
    heard
}

#[test]
fn the_header_names_the_host_and_an_unguessable_id() {
    let mut ids = std::collections::HashSet::new();
    for _ in 0..8 {
        let mut client = Client::connect(SERVER.plain);
        let heard = client.open("LOCALHOST");
        let header = between(&heard, "<stream:stream", ">");
        assert_eq!(attribute(header, "from"), "localhost");
        assert_eq!(attribute(header, "version"), "1.0");
        assert_eq!(attribute(header, "xml:lang"), "en");
        let id = attribute(header, "id");
        assert!(id.len() >= 22, "128 bits: {id}");
        assert!(ids.insert(id.to_owned()), "{id} came twice");
    }
}

#[test]
fn a_header_without_to_is_answered_by_the_first_host() {
    let mut client = Client::connect(SERVER.plain);
    client.send(odd_header(&format!("version='1.0' {NAMESPACES}")));
    let heard = client.expect("</stream:features>");
    assert_eq!(attribute(&heard, "from"), "localhost");
}

#[test]
fn errors_of_the_header_are_told_behind_our_own() {
    for (parts, condition) in [
        (
            "to='localhost' version='1.0' xmlns='jabber:client' xmlns:stream='http://example.org/streams'",
            "invalid-namespace",
        ),
        (
            "to='localhost' version='1.0' xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams'",
            "invalid-namespace",
        ),
        (
            "to='localhost' version='1.0' xmlns='http://example.org/' xmlns:stream='http://etherx.jabber.org/streams'",
            "invalid-namespace",
        ),
        (&format!("to='localhost' version='0.9' {NAMESPACES}"), "unsupported-version"),
        (&format!("to='localhost' {NAMESPACES}"), "unsupported-version"),
        (&format!("to='elsewhere.example' version='1.0' {NAMESPACES}"), "host-unknown"),
        (&format!("to='local host' version='1.0' {NAMESPACES}"), "improper-addressing"),
        (&format!("to='localhost' from='a@elsewhere.example' version='1.0' {NAMESPACES}"), "invalid-from"),
        (&format!("to='localhost' from='@@' version='1.0' {NAMESPACES}"), "improper-addressing"),
    ] {
        let heard = fails_at_once(odd_header(parts), condition);
        assert_eq!(attribute(&heard, "from"), "localhost", "RFC 6120 §4.9.1.3: {parts}");
    }
}

// RFC 6120 §4.8.5, §4.9.3.2.
#[test]
fn another_prefix_for_the_streams_namespace_is_refused() {
    let header = "<?xml version='1.0'?><foobar:stream to='localhost' version='1.0' xmlns='jabber:client' \
        xmlns:foobar='http://etherx.jabber.org/streams'>";
    fails_at_once(header, "bad-namespace-prefix");
    let none = "<stream to='localhost' version='1.0' xmlns='http://etherx.jabber.org/streams'>";
    fails_at_once(none, "bad-namespace-prefix");
}

#[test]
fn what_is_no_stream_at_all_is_told_so() {
    for (text, condition) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "not-well-formed"),
        (b"<?xml version='1.0'?><message/>", "invalid-namespace"),
        (b"<stream:stream>", "not-well-formed"),
        (b"<?xml version='1.0' encoding='UTF-16'?><a/>", "unsupported-encoding"),
        (b"\xfe\xff\x00<\x00a", "unsupported-encoding"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "not-well-formed"),
        (b"<?xml version='1.1'?><a/>", "not-well-formed"),
        (b"<!-- --><a/>", "restricted-xml"),
    ] {
        let mut client = Client::connect(SERVER.plain);
        client.send(text);
        client.expect_error(condition);
    }
}

#[test]
fn every_fault_of_the_xml_ends_the_stream_with_its_condition() {
    for (text, condition) in [
        (&b"<!DOCTYPE a>"[..], "restricted-xml"),
        (b"<!-- a comment -->", "restricted-xml"),
        (b"<?a processing instruction?>", "restricted-xml"),
        (b"<message><body>&alias;</body></message>", "restricted-xml"),
        (b"<a><b></a>", "not-well-formed"),
        (b"<x:a/>", "not-well-formed"),
        (b"<a b='1' b='2'/>", "not-well-formed"),
        (b"<a b=1/>", "not-well-formed"),
        (b"<a>\x00</a>", "not-well-formed"),
        (b"<a>\xc3(</a>", "unsupported-encoding"),
        (b"text <a/>", "bad-format"),
        (b"<a xmlns='urn:example'/>", "not-authorized"),
    ] {
        let mut client = Client::connect(SERVER.plain);
        client.open("localhost");
        client.send(text);
        client.expect_error(condition);
    }
    // The same for one who is authenticated; what is only unknown has its own condition.
    for (text, condition) in [
        (&b"<!DOCTYPE a>"[..], "restricted-xml"),
        (b"<message><!-- a comment --></message>", "restricted-xml"),
        (b"<message><body>&alias;</body></message>", "restricted-xml"),
        (b"<message><x:a/></message>", "not-well-formed"),
        (b"<message><body>\xff</body></message>", "unsupported-encoding"),
        (b"text <message/>", "bad-format"),
        (b"<unknown/>", "unsupported-stanza-type"),
        (b"<message xmlns='jabber:server'/>", "unsupported-stanza-type"),
        (b"<message xmlns='urn:example'/>", "unsupported-stanza-type"),
    ] {
        let mut client = Client::session(&SERVER, "xml", "r");
        client.send(text);
        client.expect_error(condition);
    }
}

#[test]
fn a_from_that_is_not_the_sessions_own_ends_the_stream() {
    for from in ["bob@localhost", "from@localhost/other", "localhost", "from@second.localhost", "@@"] {
        let mut client = Client::session(&SERVER, "from", "here");
        client.send(format!("<message from='{from}' to='bob@localhost'><body>not me</body></message>"));
        client.expect_error("invalid-from");
    }
    let mut client = Client::session(&SERVER, "from", "here");
    for from in ["from@localhost", "from@localhost/here", "From@LOCALHOST/here"] {
        client.send(format!("<message from='{from}' to='from@localhost/here' id='m'><body>me</body></message>"));
        let heard = client.expect("</message>");
        assert_eq!(attribute(&heard, "from"), "from@localhost/here");
    }
}

#[test]
fn an_orderly_close_is_answered_at_every_stage() {
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.send("</stream:stream>");
    assert_eq!(client.expect_end(), "</stream:stream>");

    let (mut client, _) = Client::authenticated(&SERVER, "closing", "localhost");
    client.send("</stream:stream>");
    assert_eq!(client.expect_end(), "</stream:stream>");

    let mut client = Client::available(&SERVER, "closing", "here");
    client.send("<message to='closing@localhost/here'><body>last</body></message></stream:stream>");
    let heard = client.expect_end();
    assert!(heard.ends_with("</stream:stream>") && !heard.contains("error"), "{heard}");
    crate::server::eventually("the session goes", || SERVER.sessions("closing@localhost").is_empty());
}

#[test]
fn an_orderly_close_under_tls_ends_with_close_notify() {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client.send("</stream:stream>");
    // rustls makes an error of an end without close_notify; reading would then end without this text being the last.
    assert_eq!(client.expect_end(), "</stream:stream>");
    let tls = client.tls.as_mut().unwrap();
    assert!(tls.process_new_packets().unwrap().peer_has_closed());
}

#[test]
fn a_peer_that_tells_an_error_is_let_go() {
    let error = "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>";
    // RFC 6120 §4.9.1.1: an error is not answered with one.
    for end in ["", "</stream:stream>"] {
        let mut client = Client::available(&SERVER, "errs", "here");
        client.send([error, end].concat());
        assert_eq!(client.expect_end(), "</stream:stream>");
    }
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.send(error);
    assert_eq!(client.expect_end(), "</stream:stream>");
}

#[test]
fn white_space_between_stanzas_is_nothing_and_keeps_the_stream() {
    let mut client = Client::available(&SERVER, "space", "here");
    for space in [" ", "\n", "\r\n\t ", &" ".repeat(5_000)] {
        client.send(space);
        assert_eq!(client.sync(), "");
    }
}

#[test]
fn stanzas_cut_anywhere_are_the_same_stanzas() {
    let mut client = Client::connect(SERVER.plain);
    SERVER.ensure("cut@localhost");
    for byte in header("localhost").bytes() {
        client.send([byte]);
    }
    client.expect("</stream:features>");
    client.scram("SCRAM-SHA-1", "cut", "cut", ("n,,", b"")).unwrap();
    client.open("localhost");
    client.bind("here");
    let stanza = "<message to='cut@localhost/here' id='é'><body>grüße ☃ 😀</body></message>";
    for byte in stanza.bytes() {
        client.send([byte]);
    }
    let heard = client.expect("</message>");
    assert!(heard.contains("<body>grüße ☃ 😀</body>"), "{heard}");
}

#[test]
fn a_client_that_shouts_on_after_the_error_still_hears_it() {
    let mut client = Client::session(&SERVER, "shouts", "here");
    client.send("<unknown/>");
    client.send("<message to='a@localhost'><body>and on</body></message>".repeat(200));
    client.expect_error("unsupported-stanza-type");
}

#[test]
fn the_language_of_the_stream_is_that_of_its_stanzas() {
    SERVER.ensure("lang@localhost");
    let mut client = Client::connect(SERVER.plain);
    let german = header("localhost").replace("xml:lang='en'", "xml:lang='de'");
    client.send(&german);
    client.expect("</stream:features>");
    client.scram("SCRAM-SHA-1", "lang", "lang", ("n,,", b"")).unwrap();
    client.send(&german);
    client.expect("</stream:features>");
    client.bind("here");
    client.send("<message to='lang@localhost/here'><body>Guten Tag</body></message>");
    assert!(client.expect("</message>").contains("xml:lang='de'"));
    client.send("<message to='lang@localhost/here' xml:lang='fr'><body>Bonjour</body></message>");
    let heard = client.expect("</message>");
    assert!(heard.contains("xml:lang='fr'") && !heard.contains("xml:lang='de'"), "{heard}");
}

#[test]
fn each_host_has_its_own_accounts() {
    SERVER.ensure("twin@localhost");
    let mut client = Client::direct(&SERVER);
    client.open("second.localhost");
    client.send(format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{}</auth>",
        plain("", "twin", "twin")
    ));
    assert_eq!(client.expect_sasl().err().as_deref(), Some("not-authorized"));
    // And a stream that was authenticated for one does not open to the other.
    let mut client = Client::connect(SERVER.plain);
    client.open("localhost");
    client.scram("SCRAM-SHA-1", "twin", "twin", ("n,,", b"")).unwrap();
    client.send(header("second.localhost"));
    client.expect_error("host-unknown");
}

#[test]
fn the_features_say_what_there_is_at_each_stage() {
    let mut client = Client::connect(SERVER.plain);
    let heard = client.open("localhost");
    assert!(heard.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{heard}");
    assert!(heard.contains("<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>300</idle-seconds></limits>"), "{heard}");
    assert!(!heard.contains("<bind ") && !heard.contains("<register "), "{heard}");

    let (_, heard) = Client::starttls(&SERVER, "localhost");
    for mark in [
        "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/><channel-binding type='tls-server-end-point'/></sasl-channel-binding>",
        "<authentication xmlns='urn:xmpp:sasl:2'>",
        "<bind xmlns='urn:xmpp:bind:0'>",
        "<fast xmlns='urn:xmpp:fast:0'>",
        "<sm xmlns='urn:xmpp:sm:3'/>",
    ] {
        assert!(heard.contains(mark), "{mark} in {heard}");
    }
    assert!(!heard.contains("<starttls"), "{heard}");
    assert!(!heard.contains("compression"), "row 12: {heard}");

    let (_, heard) = Client::authenticated(&SERVER, "features", "localhost");
    for mark in [
        "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>",
        "<session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session>",
        "<sm xmlns='urn:xmpp:sm:3'/>",
        "<csi xmlns='urn:xmpp:csi:0'/>",
        "<ver xmlns='urn:xmpp:features:rosterver'/>",
        "<sub xmlns='urn:xmpp:features:pre-approval'/>",
        "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1'",
        "<max-bytes>262144</max-bytes>",
    ] {
        assert!(heard.contains(mark), "{mark} in {heard}");
    }
    assert!(!heard.contains("mechanism"), "{heard}");
}

// XEP-0115 §5.1, §6.3.
#[test]
fn the_hash_among_the_features_is_that_of_what_the_streams_own_domain_is() {
    use aws_lc_rs::digest;
    let server = Server::start(
        "[host.\"localhost\"]\n[host.\"second.localhost\"]\nexternal_services = [\"stun:stun.example.org\"]\n",
    );
    let mut seen = Vec::new();
    for domain in ["localhost", "second.localhost"] {
        let (mut client, features) = Client::authenticated(&server, "hashed", domain);
        let caps = between(&features, "<c xmlns='http://jabber.org/protocol/caps'", "/>").to_owned();
        let (node, ver) = (attribute(&caps, "node").to_owned(), attribute(&caps, "ver").to_owned());
        client.bind("here");
        client.send(format!(
            "<iq type='get' id='i' to='{domain}'><query xmlns='http://jabber.org/protocol/disco#info' node='{node}#{ver}'/></iq>"
        ));
        let answer = client.expect("</iq>");
        let start = answer.find("<query").expect("an answer");
        let query = answer[start..].trim_end_matches("</iq>");
        let info = xmpp::Element::parse(query.as_bytes(), xmpp::ns::CLIENT).expect("an element");
        let input = im::modules::caps::verification_input(&info);
        let digest = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, input.as_bytes());
        assert_eq!(ver, crate::client::b64(digest), "{domain}: {input}");
        seen.push(ver);
    }
    assert_ne!(seen[0], seen[1]);
}

#[test]
fn a_stanza_for_a_domain_that_is_nobodys_comes_back() {
    let mut client = Client::available(&SERVER, "foreign", "here");
    client.send("<iq type='get' id='f1' to='somebody@elsewhere.example'><query xmlns='jabber:iq:version'/></iq>");
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='error'") && heard.contains("<remote-server-not-found "), "{heard}");
    client.send("<message id='f2' to='somebody@elsewhere.example'><body>hello</body></message>");
    let heard = client.expect("</message>");
    assert!(heard.contains("type='error'") && heard.contains("<remote-server-not-found "), "{heard}");
    assert_eq!(attribute(&heard, "from"), "somebody@elsewhere.example");
}

#[test]
fn a_stanza_in_form_but_wrong_is_answered_and_the_stream_goes_on() {
    let mut client = Client::available(&SERVER, "wrong", "here");
    for (stanza, end, condition) in [
        ("<iq type='get' id='w1' to='@@'><a xmlns='urn:example'/></iq>", "</iq>", "jid-malformed"),
        ("<iq type='query' id='w2'><a xmlns='urn:example'/></iq>", "</iq>", "bad-request"),
        ("<iq type='get' id='w3'/>", "</iq>", "bad-request"),
        ("<iq type='get' id='w4'><a xmlns='urn:example'/><b xmlns='urn:example'/></iq>", "</iq>", "bad-request"),
        ("<message to='@@' id='w5'><body>x</body></message>", "</message>", "jid-malformed"),
    ] {
        client.send(stanza);
        let heard = client.expect(end);
        assert!(heard.contains("type='error'") && heard.contains(&format!("<{condition} ")), "{stanza}: {heard}");
    }
    assert_eq!(client.sync(), "");
}

#[test]
fn a_connection_that_breaks_off_ends_its_session() {
    let client = Client::available(&SERVER, "breaks", "here");
    drop(client);
    crate::server::eventually("the session goes", || SERVER.sessions("breaks@localhost").is_empty());
    let mut half = Client::session(&SERVER, "breaks", "here");
    half.send("<message to='breaks@localhost'><body>half");
    half.tcp.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(half.ended_within(Duration::from_secs(10)));
    crate::server::eventually("the session goes", || SERVER.sessions("breaks@localhost").is_empty());
}
