//! Binding and what a bound client says. RFC 6120 §7, §8.1.2.1; XEP-0352.

use crate::harness::*;
use xmpp::StanzaCondition;

const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";

#[test]
fn a_resource_is_asked_for_or_left_to_the_server() {
    let asked = |inside: &str| {
        let mut peer = Peer::new(config()).authenticated();
        peer.says(&format!(
            "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{inside}</bind></iq>"
        ));
        peer.last().split(' ').nth(1).unwrap_or_default().to_owned()
    };
    assert_eq!(asked("<resource>balcony</resource>"), "balcony");
    assert_eq!(asked("<resource/>"), "-");
    assert_eq!(asked(""), "-");
}

#[test]
fn a_resource_that_cannot_be_one_is_a_bad_request_and_may_be_asked_again() {
    let mut peer = Peer::new(config()).authenticated();
    let said = peer.says(
        "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>a&#x9;b</resource></bind></iq>",
    );
    assert!(said.starts_with("<iq type='error' id='b'><error type='modify'><bad-request "), "{said}");
    assert!(peer.says(BIND).contains("<jid>juliet@capulet.example/chosen</jid>"));
    assert_eq!(peer.stream.jid().map(|jid| jid.to_string()).as_deref(), Some("juliet@capulet.example/chosen"));
    assert_eq!(peer.stream.account(), Some(&jid(JULIET)));
}

#[test]
fn a_refused_bind_is_told_and_five_are_enough() {
    let mut peer = Peer::new(config()).authenticated();
    peer.bind = Err(StanzaCondition::ResourceConstraint);
    let said = peer.says(BIND);
    assert!(said.starts_with("<iq type='error' id='b'><error type='wait'><resource-constraint "), "{said}");
    for _ in 0..4 {
        peer.says(BIND);
        assert_eq!(peer.fault, None);
    }
    peer.says(BIND);
    assert_eq!(peer.condition(), "policy-violation");
}

#[test]
fn stanzas_get_the_full_jid_as_from_whatever_own_address_they_had() {
    for from in
        ["", "from='juliet@capulet.example'", "from='juliet@capulet.example/balcony'", "from='JULIET@capulet.example'"]
    {
        let mut peer = Peer::new(config()).bound();
        peer.says(&format!("<presence {from}/>"));
        assert_eq!(peer.events, ["Stanza <presence from='juliet@capulet.example/balcony'/>"], "{from}");
    }
}

#[test]
fn the_streams_language_is_that_of_its_stanzas() {
    let lang = |stream: &str, stanza: &str| {
        let mut peer = Peer::new(config()).open();
        peer.says(&plain("juliet", PASSWORD));
        peer.says(&HEADER.replace("to=", &format!("{stream} to=")));
        peer = peer.bound_here();
        peer.says(&format!("<message {stanza}/>"));
        peer.last()
            .split_once("xml:lang='")
            .and_then(|(_, rest)| rest.split_once('\''))
            .map(|(lang, _)| lang.to_owned())
    };
    assert_eq!(lang("xml:lang='de'", "").as_deref(), Some("de"));
    assert_eq!(lang("xml:lang='de'", "xml:lang='it'").as_deref(), Some("it"));
    assert_eq!(lang("xml:lang='en'", "").as_deref(), Some("en"), "also where it is our own");
    assert_eq!(lang("", ""), None);
}

#[test]
fn a_wrong_stanza_is_the_houses_to_answer_in_order() {
    let mut peer = Peer::new(config()).bound();
    peer.says("<message to='@'/><iq type='get'><a xmlns='b'/></iq><presence/>");
    assert_eq!(peer.events[..2], ["BadStanza jid-malformed", "BadStanza bad-request"]);
    assert!(peer.events[2].starts_with("Stanza <presence"));
}

#[test]
fn client_state_is_told() {
    let mut peer = Peer::new(config()).bound();
    peer.says("<inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>");
    assert_eq!(peer.events, ["ClientState false", "ClientState true"]);
}

#[test]
fn the_servers_caps_stand_among_the_features() {
    let caps = "<c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/>";
    let mut config = config();
    host(&mut config).caps = caps.into();
    let mut peer = Peer::new(config).open();
    peer.says(&plain("juliet", PASSWORD));
    let said = peer.says(HEADER);
    assert!(said.contains(&format!("<sub xmlns='urn:xmpp:features:pre-approval'/>{caps}")), "{said}");
    assert!(said.contains("<csi xmlns='urn:xmpp:csi:0'/><ver xmlns='urn:xmpp:features:rosterver'/>"), "{said}");
}

#[test]
fn an_answer_that_comes_after_the_end_counts_nothing() {
    let mut peer = Peer::new(config()).authenticated();
    let mut out = Vec::new();
    let event = peer.stream.next(&mut BIND.as_bytes(), &mut out);
    assert!(matches!(event, Ok(Some(stream::Event::Bind(_)))));
    assert!(peer.stream.is_waiting());
    peer.stream.fail(&xmpp::StreamFault::NegotiationTimeout, &mut out);
    let written = out.len();
    let jid = jid(JULIET).with_resource("late").expect("the resource is right");
    peer.stream.bound(jid.into(), &mut out);
    assert_eq!(out.len(), written);
}

#[test]
fn while_an_answer_is_awaited_nothing_is_taken() {
    let mut peer = Peer::new(config()).authenticated();
    let mut out = Vec::new();
    let both = format!("{BIND}<presence/>");
    let mut input = both.as_bytes();
    assert!(matches!(peer.stream.next(&mut input, &mut out), Ok(Some(stream::Event::Bind(_)))));
    assert!(matches!(peer.stream.next(&mut input, &mut out), Ok(None)));
    assert_eq!(input, b"<presence/>");
    let jid = jid(JULIET).with_resource("balcony").expect("the resource is right");
    peer.stream.bound(jid.into(), &mut out);
    assert!(matches!(peer.stream.next(&mut input, &mut out), Ok(Some(stream::Event::Stanza(_)))));
}
