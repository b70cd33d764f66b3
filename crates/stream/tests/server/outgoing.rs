//! How we open a stream, and what the other server may answer.

use crate::harness::*;
use stream::{Pair, ServerConfig, Tls, Verify};
use xmpp::StreamFault;

fn verify(id: &str) -> Verify {
    Verify { pair: Pair::new("escalus.example", HERE), id: id.into(), key: "key".into() }
}

fn asks(side: &mut Out, id: &str) -> String {
    let mut out = Vec::new();
    side.stream.verify(verify(id), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

const VALID: &str = "<db:result from='montague.example' to='capulet.example' type='valid'/>";

#[test]
fn tls_comes_first_and_the_header_is_said_again() {
    let mut side = Out::new(ServerConfig { tls: Tls::Required, ..config() }, false);
    let mut out = Vec::new();
    side.stream.start(&mut out);
    let header = String::from_utf8(out).expect("UTF-8");
    assert!(
        header.contains("xmlns:db='jabber:server:dialback' from='capulet.example' to='montague.example' version='1.0'")
    );
    assert_eq!(side.hears(&features(&format!("{STARTTLS}{DIALBACK}"))), STARTTLS);
    side.hears("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(side.events, ["starttls"]);
    let mut out = Vec::new();
    side.stream.tls_up(None, &mut out);
    assert_eq!(String::from_utf8(out).expect("UTF-8"), header);
    side.hears(&features(DIALBACK));
    assert_eq!(side.last(), "ready");
}

#[test]
fn a_server_without_tls_is_left() {
    let mut side = Out::new(ServerConfig { tls: Tls::Required, ..config() }, false);
    side.stream.start(&mut Vec::new());
    side.hears(&features(DIALBACK));
    assert_eq!(side.fault, Some(StreamFault::TlsRequired));
}

#[test]
fn bytes_behind_proceed_are_fatal() {
    let mut side = Out::new(ServerConfig { tls: Tls::Required, ..config() }, false);
    side.stream.start(&mut Vec::new());
    side.hears(&features(STARTTLS));
    side.hears(&format!("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>{VALID}"));
    assert_eq!(side.fault, Some(StreamFault::PlaintextBehindStartTls));
}

#[test]
fn where_only_certificates_count_the_certificate_must_name_the_domain() {
    for (name, good) in [(THERE, true), ("escalus.example", false)] {
        let mut side = Out::new(config(), true);
        side.stream.tls_up(certificate(name), &mut Vec::new());
        side.stream.start(&mut Vec::new());
        side.hears(&features(EXTERNAL));
        assert_eq!(side.fault.is_none(), good, "{name}");
    }
}

#[test]
fn external_is_preferred_and_dialback_follows_its_failure() {
    let mut side = Out::open(&format!("{EXTERNAL}{DIALBACK}"));
    assert_eq!(side.authenticates(), external(HERE));
    let said = side.hears("<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><not-authorized/></failure>");
    assert!(said.starts_with("<db:result from='capulet.example' to='montague.example'>"), "{said}");
    side.hears(VALID);
    assert_eq!(side.last(), "authenticated capulet.example to montague.example");
}

#[test]
fn after_external_the_stream_begins_anew() {
    let mut side = Out::open(EXTERNAL);
    side.authenticates();
    assert!(side.hears(SUCCESS).starts_with("<?xml version='1.0'?><stream:stream"));
    side.hears(&features(""));
    assert_eq!(side.last(), "authenticated capulet.example to montague.example");
}

#[test]
fn a_refusal_says_why() {
    let mut side = Out::open(DIALBACK);
    side.authenticates();
    side.hears(
        "<db:result from='montague.example' to='capulet.example' type='error'><error type='cancel'>\
         <item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></db:result>",
    );
    assert_eq!(side.last(), "refused capulet.example to montague.example item-not-found");
    assert!(!side.stream.is_authenticated(&Pair::new(HERE, THERE)));
}

#[test]
fn results_and_verdicts_that_were_not_asked_for_end_the_stream() {
    let unsolicited = [
        // Never asked.
        VALID.to_owned(),
        "<db:verify from='montague.example' to='capulet.example' id='1' type='valid'/>".to_owned(),
        // For another id, another pair.
        "<db:verify from='escalus.example' to='capulet.example' id='2' type='valid'/>".to_owned(),
        "<db:verify from='escalus.example' to='verona.example' id='1' type='valid'/>".to_owned(),
        // Questions, in the wrong direction.
        result(THERE, HERE, "key"),
        "<db:verify from='montague.example' to='capulet.example' id='1'>key</db:verify>".to_owned(),
    ];
    for text in unsolicited {
        let mut side = Out::open(DIALBACK);
        asks(&mut side, "1");
        side.hears(&text);
        assert!(side.fault.is_some(), "{text}");
        assert_eq!(side.events, ["ready"], "{text}");
    }
}

#[test]
fn a_verdict_counts_once() {
    let mut side = Out::open(DIALBACK);
    assert_eq!(asks(&mut side, "1"), "<db:verify from='capulet.example' to='escalus.example' id='1'>key</db:verify>");
    let verdict = "<db:verify from='escalus.example' to='capulet.example' id='1' type='valid'/>";
    side.hears(verdict);
    assert_eq!(side.last(), "verified escalus.example to capulet.example 1 Valid");
    side.hears(verdict);
    assert!(side.fault.is_some());
}

#[test]
fn on_a_stream_of_one_direction_no_stanza_comes_back() {
    let mut side = Out::open(DIALBACK);
    side.authenticates();
    side.hears(VALID);
    side.hears(&message("romeo@montague.example", "juliet@capulet.example"));
    assert_eq!(side.fault, Some(StreamFault::StanzaBeforeAuth));
}

#[test]
fn on_a_stream_of_both_directions_only_the_inverse_pair_comes_back() {
    let bidi = format!("{DIALBACK}<bidi xmlns='urn:xmpp:features:bidi'/>");
    let mut side = Out::open(&bidi);
    side.authenticates();
    side.hears(VALID);
    side.hears(&message("romeo@montague.example", "juliet@capulet.example"));
    assert_eq!(side.last(), "stanza from romeo@montague.example");
    side.hears(&message("romeo@montague.example", "benvolio@verona.example"));
    assert!(matches!(side.fault, Some(StreamFault::FromNotOurs(_))));
}

#[test]
fn the_peer_s_stream_error_is_told() {
    let mut side = Out::open(DIALBACK);
    side.hears(
        "<stream:error><host-unknown xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
    );
    assert_eq!(side.events, ["ready", "peer error host-unknown", "closed"]);
}
