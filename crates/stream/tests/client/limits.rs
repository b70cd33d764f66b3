//! What a peer cannot do before it is authenticated and bound, and how much it can send. LIMITS rows 2, 27, 28.

use crate::harness::*;
use xmpp::StreamFault;
use xmpp::xml::Limits;

const STANZAS: [&str; 6] = [
    "<message to='romeo@montague.example'><body>hi</body></message>",
    "<presence/>",
    "<iq type='get' id='1' to='romeo@montague.example'><query xmlns='jabber:iq:version'/></iq>",
    "<iq type='get' id='1' to='juliet@capulet.example/orchard'><query xmlns='jabber:iq:version'/></iq>",
    "<iq type='get'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='result' id='1'/>",
];

/// To the server, or the own account. RFC 6120 §7.1.
const QUESTIONS: [&str; 3] = [
    "<iq type='get' id='q1'><query xmlns='jabber:iq:roster'/></iq>",
    "<iq type='get' id='q1' to='capulet.example'><query xmlns='jabber:iq:version'/></iq>",
    "<iq type='set' id='q1'><query xmlns='jabber:iq:roster'><item jid='nurse@capulet.example'/></query></iq>",
];

#[test]
fn row_27_no_stanza_is_taken_before_authentication() {
    for stanza in STANZAS {
        let mut peer = Peer::new(config()).open();
        peer.says(stanza);
        assert_eq!(peer.fault, Some(StreamFault::StanzaBeforeAuth), "{stanza}");
        assert_eq!(peer.condition(), "not-authorized");
        assert!(peer.events.is_empty(), "{stanza}");
    }
}

#[test]
fn row_27_what_the_server_is_asked_before_authentication_or_binding_is_refused_and_does_not_end_the_stream() {
    for mut peer in [Peer::new(config()).open(), Peer::new(config()).authenticated()] {
        peer.events.clear();
        for question in QUESTIONS {
            let answer = peer.says(question);
            assert!(answer.contains("type='error' id='q1'") && answer.contains("<not-authorized "), "{answer}");
        }
        assert!(peer.fault.is_none() && peer.events.is_empty(), "{:?}", peer.fault);
        // Ten are.
        for _ in QUESTIONS.len()..10 {
            peer.says(QUESTIONS[0]);
            assert!(peer.fault.is_none());
        }
        peer.says(QUESTIONS[0]);
        assert_eq!(peer.condition(), "not-authorized");
    }
}

#[test]
fn row_27_no_stanza_is_taken_while_authentication_is_under_way() {
    for stanza in STANZAS.into_iter().chain(QUESTIONS) {
        for begin in [
            auth("SCRAM-SHA-256", SCRAM_256.first().as_bytes()),
            authenticate("SCRAM-SHA-256", SCRAM_256.first().as_bytes(), ""),
        ] {
            let mut peer = Peer::new(config()).open();
            assert!(peer.says(&begin).contains("<challenge"));
            peer.says(stanza);
            assert_eq!(peer.condition(), "not-authorized", "{stanza}");
        }
    }
}

#[test]
fn row_27_no_stanza_is_taken_before_binding() {
    for stanza in STANZAS {
        let mut peer = Peer::new(config()).authenticated();
        peer.events.clear();
        peer.says(stanza);
        assert_eq!(peer.fault, Some(StreamFault::StanzaBeforeBind), "{stanza}");
        assert_eq!(peer.condition(), "not-authorized");
        assert!(peer.events.is_empty(), "{stanza}");
    }
}

#[test]
fn row_27_children_without_end_trip_the_element_limit() {
    let mut peer = Peer::new(config()).open();
    peer.says("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>");
    for _ in 0..40 {
        peer.says("<a/>");
    }
    assert_eq!(peer.condition(), "policy-violation");
}

#[test]
fn row_28_the_byte_limit_holds_while_the_element_is_read() {
    for (mut peer, max) in [(Peer::new(config()).open(), 10_000), (Peer::new(config()).bound(), 262_144)] {
        peer.says("<message><body>");
        let mut sent = 15;
        while peer.fault.is_none() {
            assert!(sent <= max + 1000, "{sent} bytes were taken");
            peer.says(&"x".repeat(1000));
            sent += 1000;
            assert!(peer.stream.held_bytes() <= max, "{} bytes are held", peer.stream.held_bytes());
        }
        assert_eq!(peer.condition(), "policy-violation");
        assert!(sent > max);
    }
}

#[test]
fn depth_and_attributes_are_limited_before_authentication() {
    let deep = "<a>".repeat(9);
    let wide: String = (0..33).map(|i| format!(" a{i}=''")).collect();
    for text in [deep, format!("<a{wide}/>")] {
        let mut peer = Peer::new(config()).open();
        peer.says(&text);
        assert_eq!(peer.condition(), "policy-violation", "{text}");
    }
}

#[test]
fn a_limit_that_is_configured_is_the_limit_that_is_advertised_and_applied() {
    let limits = Limits { element_bytes_max: 500, ..Limits::CLIENT };
    let mut peer =
        Peer::new(stream::Config { limits_after_auth: limits, idle_seconds: Some(77), ..config() }).authenticated();
    peer = peer.bound_here();
    assert!(peer.says(&format!("<message><body>{}</body></message>", "x".repeat(400))).is_empty());
    assert_eq!(peer.fault, None);
    peer.says(&format!("<message><body>{}</body></message>", "x".repeat(500)));
    assert_eq!(peer.condition(), "policy-violation");
}

#[test]
fn limits_are_advertised_on_both_sides_of_authentication() {
    let mut peer = Peer::new(stream::Config { idle_seconds: Some(77), ..config() });
    let limits = |bytes| {
        format!(
            "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>{bytes}</max-bytes>\
             <idle-seconds>77</idle-seconds></limits>"
        )
    };
    assert!(peer.says(HEADER).contains(&limits(10_000)));
    peer.says(&plain("juliet", PASSWORD));
    assert!(peer.says(HEADER).contains(&limits(262_144)));
}
