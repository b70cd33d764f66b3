//! Forwarding bytes: what a stanza means on the stream it came by, it means on the one it leaves by.

use crate::common::{CLIENT, CLIENT_OUT, COMPONENT, FRAMED, PREFIX_FREE, SERVER, Stream};
use xmpp::write::{Additions, Wire, to_stored, write_stanza};
use xmpp::xml::{Limits, Raw, Scanner, XmlFault};
use xmpp::{Element, Jid, Stamp, Stanza, ns};

fn raw(stream: Stream, bytes: &str) -> Raw {
    let mut all = stream.scan(bytes.as_bytes()).unwrap();
    assert_eq!(all.len(), 1, "{bytes}");
    all.remove(0)
}

/// The canonical bytes of an element that came by this stream.
fn canonical(stream: Stream, bytes: &str) -> String {
    String::from_utf8(raw(stream, bytes).bytes().to_vec()).unwrap()
}

fn stanza(stream: Stream, bytes: &str) -> Stanza {
    Stanza::from_raw(raw(stream, bytes)).unwrap()
}

fn written(stanza: &Stanza, wire: Wire) -> String {
    let mut out = Vec::new();
    write_stanza(&mut out, stanza, None, &Additions::default(), wire);
    String::from_utf8(out).unwrap()
}

#[test]
fn a_plain_message_is_forwarded_as_it_came() {
    let text = "<message from='a@b/c' to='d@e' id='1' type='chat' xml:lang='en'><body>hi &amp; there</body><x xmlns='urn:y'/></message>";
    let stanza = stanza(CLIENT, text);
    assert_eq!(written(&stanza, Wire::Client), text);
    assert_eq!(written(&stanza, Wire::Server), text);
    assert_eq!(written(&stanza, Wire::Component), text);
    assert_eq!(written(&stanza, Wire::WebSocket), text.replace("<message", "<message xmlns='jabber:client'"));
    assert_eq!(to_stored(&stanza), text.as_bytes());
    assert_eq!(canonical(CLIENT, text), text);
}

#[test]
fn a_frame_is_copied_once_into_a_buffer_of_its_size_and_the_payload_is_that_copy() {
    let mut scanner = Scanner::new(Limits::CLIENT);
    scanner.next(&mut CLIENT_OUT.header.as_bytes()).unwrap();
    let text = b"<message to='a@b'><body>hi</body><x xmlns='urn:x'/></message><iq/>";
    let mut input = &text[..];
    let Ok(Some(xmpp::xml::Frame::Element(raw))) = scanner.next(&mut input) else { panic!("an element") };
    let inside = text.as_ptr_range();
    assert!(!inside.contains(&raw.bytes().as_ptr()), "no slice of the input");
    assert_eq!(raw.bytes().len(), text.len() - b"<iq/>".len());
    let tag_len = b"<message to='a@b'>".len();
    let payload_at = raw.bytes()[tag_len..].as_ptr();
    let stanza = Stanza::from_raw(raw).unwrap();
    assert_eq!(stanza.payload.bytes().as_ptr(), payload_at);
    let copy = stanza.clone();
    assert_eq!(copy.payload.bytes().as_ptr(), payload_at);
    assert_eq!(copy.payload.without(|_| false).bytes().as_ptr(), payload_at);
    assert_eq!(copy.payload.child("x", "urn:x").unwrap().raw.as_ptr(), stanza.payload.bytes()[15..].as_ptr());
}

// --- The canonical form ---

#[test]
fn prefixes_of_the_header_are_declared_where_they_are_used() {
    assert_eq!(
        canonical(CLIENT, "<message><h:x/><y xmlns='urn:y' h:a='b'/><z/></message>"),
        "<message><h:x xmlns:h='urn:header'/><y xmlns:h='urn:header' xmlns='urn:y' h:a='b'/><z/></message>"
    );
    assert_eq!(
        canonical(CLIENT, "<h:result id='1'>key</h:result>"),
        "<h:result xmlns:h='urn:header' id='1'>key</h:result>"
    );
    assert_eq!(
        canonical(CLIENT, "<stream:error><x xmlns='urn:x'/></stream:error>"),
        "<stream:error xmlns:stream='http://etherx.jabber.org/streams'><x xmlns='urn:x'/></stream:error>"
    );
}

#[test]
fn prefixes_of_the_stanzas_tag_are_declared_where_they_are_used() {
    let stanza = stanza(
        CLIENT,
        "<message xmlns:p='urn:p' xmlns:q='urn:q'><a xmlns='urn:a'><p:b/></a><p:c q:d='1'/><e/></message>",
    );
    assert_eq!(
        stanza.payload.bytes(),
        "<a xmlns:p='urn:p' xmlns='urn:a'><p:b/></a><p:c xmlns:p='urn:p' xmlns:q='urn:q' q:d='1'/><e/>"
    );
    assert!(stanza.payload.has("c", "urn:p"));
}

#[test]
fn foreign_attributes_travel_with_their_declarations() {
    let text = "<message p:a='1' xmlns:p='urn:p' xml:space='preserve' xml:lang='en' unknown='x' h:b='it&apos;s'/>";
    let stanza = stanza(CLIENT, text);
    assert_eq!(
        stanza.foreign.as_deref(),
        Some(" p:a='1' xmlns:p='urn:p' xml:space='preserve' h:b='it&apos;s' xmlns:h='urn:header'")
    );
    assert_eq!(
        written(&stanza, Wire::Server),
        "<message xml:lang='en' p:a='1' xmlns:p='urn:p' xml:space='preserve' h:b='it&apos;s' xmlns:h='urn:header'/>"
    );
    assert_eq!(Stanza::parse(&to_stored(&stanza)).unwrap(), stanza);
}

#[test]
fn an_explicit_content_namespace_is_that_of_the_stream() {
    for (stream, text) in [
        (CLIENT, "<message><body xmlns='jabber:client'>x</body></message>"),
        (CLIENT, "<message xmlns='jabber:client'><body xmlns='jabber:client'>x</body></message>"),
        (SERVER, "<message xmlns='jabber:server'><body xmlns='jabber:server'>x</body></message>"),
        (SERVER, "<message><body xmlns='jabber:client'>x</body></message>"),
        (COMPONENT, "<message><body xmlns='jabber:component:accept'>x</body></message>"),
        // No extension may have it, and on the next stream it would be content.
        (CLIENT, "<message><body xmlns='jabber:server'>x</body></message>"),
    ] {
        let stanza = stanza(stream, text);
        assert_eq!(stanza.payload.bytes(), "<body>x</body>", "{text}");
        assert!(stanza.payload.has("body", ns::CLIENT));
    }
}

#[test]
fn an_explicit_content_namespace_inside_a_foreign_wrapper_is_untouched() {
    for inner in ["jabber:client", "jabber:server", "jabber:component:accept"] {
        let text = format!(
            "<message><forwarded xmlns='urn:xmpp:forward:0'><message xmlns='{inner}'><body/></message></forwarded></message>"
        );
        for stream in [CLIENT, SERVER, COMPONENT] {
            let stanza = stanza(stream, &text);
            for wire in [Wire::Client, Wire::Server, Wire::Component] {
                assert_eq!(written(&stanza, wire), text);
            }
        }
    }
}

#[test]
fn what_inherits_the_content_namespace_inside_a_foreign_wrapper_says_so() {
    let text = "<message><f:forwarded xmlns:f='urn:xmpp:forward:0'><message><body/></message></f:forwarded></message>";
    for (stream, ns) in [(CLIENT, ns::CLIENT), (SERVER, ns::SERVER), (COMPONENT, ns::COMPONENT)] {
        assert_eq!(canonical(stream, text), text.replace("0'><message>", &format!("0'><message xmlns='{ns}'>")));
    }
}

#[test]
fn cdata_and_carriage_returns_are_written_as_weak_parsers_read_them() {
    assert_eq!(
        canonical(
            CLIENT,
            "<message><![CDATA[<x>&amp;]]>\r\n<body\r>a\rb&#13;c]]<![CDATA[]]>&gt;<![CDATA[\r]]>></body ></message>"
        ),
        "<message>&lt;x&gt;&amp;amp;\n<body>a\nb&#13;c]]&gt;\n&gt;</body></message>"
    );
    assert_eq!(canonical(CLIENT, "<a b='1\r\n2'/>"), "<a b='1\n2'/>");
}

#[test]
fn the_namespace_of_a_websockets_stanza_stands_on_its_tag_only() {
    let text = "<message xmlns='jabber:client' to='a@b'><body>x</body></message>";
    let raw = raw(FRAMED, text);
    assert_eq!((raw.ns(), raw.bytes().as_ref()), (ns::CLIENT, text.as_bytes()));
    let stanza = Stanza::from_raw(raw).unwrap();
    assert_eq!(written(&stanza, Wire::Client), "<message to='a@b'><body>x</body></message>");
    assert_eq!(written(&stanza, Wire::WebSocket), text);
}

#[test]
fn a_stream_without_content_namespace_has_stanzas_that_say_theirs() {
    let stanza = stanza(PREFIX_FREE, "<message xmlns='jabber:client'><body>x</body></message>");
    assert_eq!(stanza.payload.bytes(), "<body>x</body>");
    let other = raw(PREFIX_FREE, "<features><x/></features>");
    assert_eq!((other.name(), other.ns()), ("features", ns::STREAM));
    assert_eq!(other.bytes(), "<features xmlns='http://etherx.jabber.org/streams'><x/></features>");
    assert!(Stanza::kind_of(&raw(PREFIX_FREE, "<message/>")).is_none());
}

#[test]
fn a_stanza_in_another_streams_content_namespace_is_none() {
    for (stream, ns) in
        [(CLIENT, ns::SERVER), (CLIENT, ns::COMPONENT), (SERVER, ns::COMPONENT), (CLIENT, ""), (CLIENT, "urn:x")]
    {
        let raw = raw(stream, &format!("<message xmlns='{ns}'/>"));
        assert_eq!((raw.ns(), Stanza::kind_of(&raw)), (ns, None));
    }
}

#[test]
fn the_canonical_form_too_keeps_the_limit() {
    let limits = Limits { element_bytes_max: 2_000, ..Limits::BEFORE_AUTH };
    let long = format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' xmlns:h='urn:{}'>",
        "x".repeat(500)
    );
    for growing in [
        "<message><a h:b=''/><a h:b=''/><a h:b=''/><a h:b=''/></message>".to_owned(),
        format!("<m><![CDATA[{}]]></m>", "&".repeat(1_000)),
    ] {
        let mut scanner = Scanner::new(limits.clone());
        scanner.next(&mut long.as_bytes()).unwrap();
        assert_eq!(
            scanner.next(&mut growing.as_bytes()),
            Err(XmlFault::TooBig { what: "element", max: 2_000 }),
            "{growing}"
        );
    }
}

#[test]
fn each_use_of_an_outer_prefix_is_declared_once_a_child_however_many_there_are() {
    let children = "<h:a h:b=''><h:c/></h:a>".repeat(100);
    let payload = stanza(CLIENT, &format!("<message>{children}</message>")).payload;
    assert_eq!(payload.bytes(), &children.replace("<h:a", "<h:a xmlns:h='urn:header'"));
    assert_eq!(payload.children().filter(|c| c.is("a", "urn:header")).count(), 100);
}

// --- What the server adds ---

#[test]
fn additions_stand_behind_the_payload() {
    let by = Jid::parse("juliet@example.com").unwrap();
    let more = Additions { stanza_id: Some((42, by.clone())), delay: Some((by.clone(), Stamp(1_000_000))) };
    let mut out = Vec::new();
    let stanza = stanza(CLIENT, "<message to='a@b'><body>x</body></message>");
    write_stanza(&mut out, &stanza, Some(&by), &more, Wire::Client);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "<message to='juliet@example.com'><body>x</body><stanza-id xmlns='urn:xmpp:sid:0' id='000000000000002a' by='juliet@example.com'/>\
         <delay xmlns='urn:xmpp:delay' from='juliet@example.com' stamp='1970-01-01T00:00:01Z'/></message>"
    );
    let mut out = Vec::new();
    let empty = stanza_of("<presence/>");
    write_stanza(&mut out, &empty, None, &Additions { stanza_id: Some((u64::MAX, by)), delay: None }, Wire::Client);
    assert_eq!(
        out,
        b"<presence><stanza-id xmlns='urn:xmpp:sid:0' id='ffffffffffffffff' by='juliet@example.com'/></presence>"
    );
}

fn stanza_of(text: &str) -> Stanza {
    Stanza::parse(text.as_bytes()).unwrap()
}

#[test]
fn what_stands_in_attributes_is_escaped() {
    let mut stanza = stanza_of("<message id='a&#10;&lt;&apos;&quot;&amp;&#9;&#13;' xml:lang='x&quot;y'/>");
    assert_eq!(stanza.id.as_deref(), Some("a\n<'\"&\t\r"));
    stanza.to = Some(Jid::parse("room@muc.example/it's <me> & \"you\"").unwrap());
    let out = written(&stanza, Wire::Client);
    assert_eq!(
        out,
        "<message to='room@muc.example/it&apos;s &lt;me&gt; &amp; &quot;you&quot;' \
         id='a&#10;&lt;&apos;&quot;&amp;&#9;&#13;' xml:lang='x&quot;y'/>"
    );
    assert_eq!(stanza_of(&out), stanza);
}

/// LIMITS.md §2 row 14.
#[test]
fn reserved_prefixes_survive_trees_and_forwarding() {
    let text = "<message><xml:x xml:space='preserve'><y xmlns='urn:y' xml:lang='de'/></xml:x></message>";
    let stanza = stanza(CLIENT, text);
    assert_eq!(written(&stanza, Wire::Client), text);
    let child = stanza.payload.child("x", ns::XML).unwrap().to_element();
    assert_eq!(
        String::from_utf8(child.to_bytes(ns::CLIENT)).unwrap(),
        &text["<message>".len()..text.len() - "</message>".len()]
    );
}

// --- Payloads ---

#[test]
fn children_are_found_by_name_and_namespace_whichever_way_they_are_declared() {
    let payload = stanza(
        CLIENT,
        "<message>text<body/><p:a xmlns:p='urn:p'/><a xmlns=\"urn:q\"><a xmlns='urn:inner'/></a> <b xmlns=''/>\
         <c xmlns='urn:x&amp;y'/><xml:d/><body xml:lang='de'>2</body></message>",
    )
    .payload;
    let names: Vec<_> = payload.children().map(|c| (c.name, c.ns)).collect();
    assert_eq!(
        names,
        [
            ("body", ns::CLIENT),
            ("a", "urn:p"),
            ("a", "urn:q"),
            ("b", ""),
            ("c", "urn:x&y"),
            ("d", ns::XML),
            ("body", ns::CLIENT)
        ]
    );
    assert_eq!(payload.child("a", "urn:q").unwrap().raw, b"<a xmlns=\"urn:q\"><a xmlns='urn:inner'/></a>");
    assert!(!payload.has("a", "urn:inner"));
    assert_eq!(payload.first().unwrap().name, "body");
    assert_eq!(payload.children().last().unwrap().attribute("xml:lang").as_deref(), Some("de"));
}

#[test]
fn children_beyond_the_noted_ones_are_found_too() {
    let children: String = (0..100).map(|i| format!("t<c{i} xmlns='urn:{i}'><d/></c{i}>")).collect();
    let payload = stanza(CLIENT, &format!("<message>{children}<p:last xmlns:p='urn:p'/> </message>")).payload;
    assert_eq!((payload.children().count(), payload.children_count()), (101, 101));
    assert!(payload.has("c99", "urn:99"));
    assert!(payload.has("last", "urn:p"));
    assert_eq!(payload.child("c77", "urn:77").unwrap().raw, b"<c77 xmlns='urn:77'><d/></c77>");
    let cut = payload.without(|c| c.name.len() == 3);
    assert_eq!((cut.children().count(), cut.children_count()), (11, 11));
}

#[test]
fn every_child_that_is_to_go_is_cut_and_all_else_stays() {
    let payload = stanza_of(
        "<message><stanza-id xmlns='urn:xmpp:sid:0' by='me'/>a<body>x</body><stanza-id xmlns='urn:xmpp:sid:0' by='me'/>\
         <x xmlns='urn:&amp;'/>b<stanza-id xmlns='urn:xmpp:sid:0' by='you'/></message>",
    )
    .payload;
    let cut = payload.without(|c| c.is("stanza-id", ns::SID) && c.attribute("by").as_deref() == Some("me"));
    assert_eq!(cut.bytes(), "a<body>x</body><x xmlns='urn:&amp;'/>b<stanza-id xmlns='urn:xmpp:sid:0' by='you'/>");
    assert_eq!(
        cut.children().map(|c| (c.name, c.ns)).collect::<Vec<_>>(),
        [("body", ns::CLIENT), ("x", "urn:&"), ("stanza-id", ns::SID)]
    );
    assert!(payload.without(|_| true).children().next().is_none());
    assert!(stanza_of("<message><a/></message>").payload.without(|_| true).is_empty());
}

#[test]
fn elements_are_added_at_the_end() {
    let payload = stanza_of("<message><body>x</body></message>").payload;
    let more = payload
        .with([Element::new("delay", ns::DELAY).attr("stamp", "s"), Element::new("thread", ns::CLIENT).text("t")]);
    assert_eq!(more.bytes(), "<body>x</body><delay xmlns='urn:xmpp:delay' stamp='s'/><thread>t</thread>");
    assert_eq!(
        more.children().map(|c| (c.name, c.ns)).collect::<Vec<_>>(),
        [("body", ns::CLIENT), ("delay", ns::DELAY), ("thread", ns::CLIENT)]
    );
    assert_eq!(payload.with([]).bytes().as_ptr(), payload.bytes().as_ptr());
}
