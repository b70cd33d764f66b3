//! What a client sends comes out right at the other, whatever was declared where. RFC 6120 §4.8, §8; LIMITS row 14.

use crate::client::{Client, attribute, between, header};
use crate::server::Server;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use xmpp::Element;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("[limits]\nrates = false\n"));

/// Reads a stanza as a client does that is in `jabber:client`, with `stream` bound and nothing else.
#[track_caller]
fn parsed(stanza: &str) -> Element {
    let (from, to) = (stanza.find("<message").expect("a message"), stanza.rfind("</message>").expect("its end"));
    Element::parse(&stanza.as_bytes()[from..to + "</message>".len()], "jabber:client")
        .unwrap_or_else(|fault| panic!("{fault:?} in {stanza}"))
}

/// Sends as one client and reads as the other; `{you}` is the reader.
#[track_caller]
fn through(sender: &mut Client, stanza: &str) -> Element {
    static READERS: AtomicU32 = AtomicU32::new(0);
    let mut reader = Client::available(&SERVER, &format!("reader{}", READERS.fetch_add(1, Ordering::Relaxed)), "r");
    sender.send(stanza.replace("{you}", &reader.jid));
    assert_eq!(sender.sync(), "", "{stanza}");
    // The reader's stream is whole: it goes on.
    let heard = reader.expect("</message>") + &reader.sync();
    let element = parsed(&heard);
    assert_eq!(element.ns.as_ref(), "jabber:client");
    assert_eq!(element.attribute("from"), Some(sender.jid.as_str()));
    element
}

/// A sender whose header declares more than it must.
fn sender(declarations: &str) -> Client {
    SERVER.ensure("sender@localhost");
    let header = header("localhost").replace("xmlns:stream=", &format!("{declarations} xmlns:stream="));
    let mut client = Client::connect(SERVER.plain);
    client.send(&header);
    client.expect("</stream:features>");
    client.scram("SCRAM-SHA-1", "sender", "sender", ("n,,", b"")).unwrap();
    client.send(&header);
    client.expect("</stream:features>");
    static RESOURCES: AtomicU32 = AtomicU32::new(0);
    client.bind(&format!("s{}", RESOURCES.fetch_add(1, Ordering::Relaxed)));
    client
}

#[test]
fn the_content_namespace_said_outright_is_the_same_as_said_not_at_all() {
    for stanza in [
        "<message to='{you}'><body>hello</body></message>",
        "<message xmlns='jabber:client' to='{you}'><body xmlns='jabber:client'>hello</body></message>",
    ] {
        let element = through(&mut sender(""), stanza);
        let body = element.find("body", "jabber:client").unwrap_or_else(|| panic!("{stanza}: {element:?}"));
        assert_eq!(body.text_content(), "hello", "{stanza}");
    }
}

#[test]
fn a_prefix_on_an_element_of_the_content_namespace_is_refused() {
    for stanza in [
        "<message to='a@localhost'><c:body xmlns:c='jabber:client'>hello</c:body></message>",
        "<c:message xmlns:c='jabber:client' to='a@localhost'><c:body>hello</c:body></c:message>",
    ] {
        let mut client = sender("");
        client.send(stanza);
        client.expect_error("bad-namespace-prefix");
    }
}

#[test]
fn prefixes_bound_on_the_stream_or_on_the_stanza_reach_the_other_side() {
    let element = through(
        &mut sender("xmlns:far='urn:far'"),
        "<message to='{you}'><far:thing far:kind='x'><far:inner/></far:thing></message>",
    );
    let thing = element.find("thing", "urn:far").unwrap_or_else(|| panic!("{element:?}"));
    assert_eq!(thing.attribute("{urn:far}kind"), Some("x"));
    assert!(thing.find("inner", "urn:far").is_some());

    let element = through(
        &mut sender(""),
        "<message xmlns:near='urn:near' to='{you}'><near:thing/><near:other near:a='1'/></message>",
    );
    assert!(element.find("thing", "urn:near").is_some() && element.find("other", "urn:near").is_some());

    // The same prefix means another thing further in.
    let element = through(
        &mut sender("xmlns:p='urn:one'"),
        "<message to='{you}'><p:a xmlns:p='urn:two'/><p:b><p:c xmlns:p='urn:three'/></p:b></message>",
    );
    assert!(element.find("a", "urn:two").is_some(), "{element:?}");
    assert!(element.find("b", "urn:one").is_some_and(|b| b.find("c", "urn:three").is_some()), "{element:?}");
}

#[test]
fn the_default_namespace_of_another_holds_inside_and_the_content_namespace_within_it() {
    let element = through(
        &mut sender(""),
        "<message to='{you}'><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='jabber:client' from='a@b'><body>in</body></message></forwarded><plain xmlns=''><deep/></plain></message>",
    );
    let inner = element.find("forwarded", "urn:xmpp:forward:0").and_then(|it| it.find("message", "jabber:client"));
    assert_eq!(inner.and_then(|it| it.find("body", "jabber:client")).map(Element::text_content).as_deref(), Some("in"));
    assert!(element.find("plain", "").is_some_and(|it| it.find("deep", "").is_some()), "{element:?}");
}

#[test]
fn the_language_of_stanza_and_child_is_kept() {
    let element = through(
        &mut sender(""),
        "<message to='{you}' xml:lang='cs'><body>a</body><body xml:lang='de'>b</body></message>",
    );
    assert_eq!(element.attribute("xml:lang"), Some("cs"));
    let bodies: Vec<_> =
        element.elements().filter(|it| &*it.name == "body").map(|it| it.attribute("xml:lang")).collect();
    assert_eq!(bodies, [None, Some("de")]);
}

// RFC 6120 §8.1.5: also where all streams here are in the same language, as what is kept may be read elsewhere.
#[test]
fn the_language_of_the_senders_stream_is_written_to_what_is_delivered_kept_and_found_again() {
    SERVER.ensure("kept@localhost");
    let mut client = sender("");
    client.send("<message to='kept@localhost' type='chat'><body>a</body></message>");
    client.sync();
    let mut reader = Client::session(&SERVER, "kept", "r");
    reader.send("<presence/>");
    let element = parsed(&reader.expect("</message>"));
    assert_eq!(element.attribute("xml:lang"), Some("en"), "{element:?}");
    reader.send("<iq type='set' id='q'><query xmlns='urn:xmpp:mam:2'/></iq>");
    let found = reader.expect("</forwarded>");
    assert_eq!(attribute(between(&found, "<message xmlns='jabber:client'", "<body>"), "xml:lang"), "en", "{found}");
}

#[test]
fn row_14_reserved_prefixes_and_white_space_in_attributes_stay_what_they_were() {
    let element =
        through(&mut sender(""), "<message to='{you}'><a xmlns='urn:a' b='1&#10;2&#9;3&#13;4'/><xml:x/></message>");
    assert_eq!(element.find("a", "urn:a").and_then(|it| it.attribute("b")), Some("1\n2\t3\r4"));
    assert!(element.find("x", "http://www.w3.org/XML/1998/namespace").is_some(), "{element:?}");
    // A literal line break in an attribute is a space, XML §3.3.3; in text it is a line break.
    let element = through(&mut sender(""), "<message to='{you}'><a xmlns='urn:a' b='1\n2'>3\r\n4&#13;</a></message>");
    let a = element.find("a", "urn:a").unwrap();
    assert_eq!(a.attribute("b"), Some("1 2"));
    assert_eq!(a.text_content(), "3\n4\r");
}

#[test]
fn row_14_what_is_escaped_quoted_or_in_cdata_stays_text() {
    let element = through(
        &mut sender(""),
        "<message to='{you}' id='a&apos;b&quot;c&lt;d&amp;e'><body>&lt;/message>&amp;amp; <![CDATA[<b>&amp;]]> ]]&gt; &#x1F600;</body><a xmlns='urn:a' q=\"it's\" p='say \"x\"'/></message>",
    );
    assert_eq!(element.attribute("id"), Some("a'b\"c<d&e"));
    assert_eq!(element.find("body", "jabber:client").unwrap().text_content(), "</message>&amp; <b>&amp; ]]> 😀");
    let a = element.find("a", "urn:a").unwrap();
    assert_eq!((a.attribute("q"), a.attribute("p")), (Some("it's"), Some("say \"x\"")));
}

#[test]
fn row_14_a_stanza_that_waited_comes_out_as_it_went_in() {
    // From the log, not from memory.
    SERVER.ensure("waits@localhost");
    let mut client = sender("xmlns:far='urn:far'");
    client.send("<message to='waits@localhost' type='chat' xml:lang='cs'><body>a&#13;b</body><far:x far:y='1&#10;2'/><xml:z/></message>");
    client.sync();
    let mut reader = Client::session(&SERVER, "waits", "r");
    reader.send("<presence/>");
    reader.expect("<message");
    let element = parsed(&format!("<message{}", reader.expect("</message>")));
    assert_eq!(element.attribute("xml:lang"), Some("cs"));
    assert_eq!(element.find("body", "jabber:client").unwrap().text_content(), "a\rb");
    assert_eq!(element.find("x", "urn:far").and_then(|it| it.attribute("{urn:far}y")), Some("1\n2"));
    assert!(element.find("delay", "urn:xmpp:delay").is_some());
    reader.sync();
}
