//! Stream management, XEP-0198, without SASL2.

use crate::harness::*;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true' max='600'/>";
const UNEXPECTED: &str = "<failed xmlns='urn:xmpp:sm:3'><unexpected-request \
    xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>";

fn managed() -> Peer {
    let mut peer = Peer::new(config()).bound();
    let said = peer.says(ENABLE);
    assert_eq!(said, "<enabled xmlns='urn:xmpp:sm:3' id='sm-2' resume='true' max='600'/>");
    peer.events.clear();
    peer
}

#[test]
fn it_is_enabled_on_a_bound_stream() {
    let mut peer = Peer::new(config()).bound();
    assert!(!peer.stream.is_managed());
    peer.says(ENABLE);
    assert_eq!(peer.events, ["Manage resume=true max=Some(600)"]);
    assert!(peer.stream.is_managed());
    let mut peer = Peer::new(config()).bound();
    assert_eq!(peer.says("<enable xmlns='urn:xmpp:sm:3'/>"), "<enabled xmlns='urn:xmpp:sm:3'/>");
}

#[test]
fn out_of_order_it_is_unexpected_and_recoverable() {
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='x' h='0'/>";
    for (mut peer, what) in [
        (Peer::new(config()).open(), ENABLE),
        (Peer::new(config()).open(), resume),
        (Peer::new(config()).authenticated(), ENABLE),
        (managed(), ENABLE),
        (managed(), resume),
        (Peer::new(config()).bound(), resume),
        (Peer::new(config()).bound(), "<r xmlns='urn:xmpp:sm:3'/>"),
    ] {
        assert_eq!(peer.says(what), UNEXPECTED, "{what}");
        assert_eq!(peer.fault, None, "{what}");
    }
}

#[test]
fn acknowledgements_are_asked_and_told() {
    let mut peer = managed();
    assert_eq!(peer.says("<r xmlns='urn:xmpp:sm:3'/>"), "<a xmlns='urn:xmpp:sm:3' h='5'/>");
    peer.says("<a xmlns='urn:xmpp:sm:3' h='4294967295'/>");
    assert_eq!(peer.events, ["AckRequested", "Acked 4294967295"]);
}

#[test]
fn an_acknowledgement_without_a_number_ends_the_stream() {
    for bad in ["", "h=''", "h='-1'", "h='4294967296'", "h='x'"] {
        let mut peer = managed();
        peer.says(&format!("<a xmlns='urn:xmpp:sm:3' {bad}/>"));
        assert_eq!(peer.condition(), "bad-format", "{bad}");
    }
}

#[test]
fn what_is_written_is_asked_about_when_the_queue_is_empty() {
    let mut peer = managed();
    let mut out = Vec::new();
    let counting = peer.stream.counting().expect("it is managed").clone();
    counting.sent(&mut out);
    assert!(out.is_empty());
    counting.drained(&mut out);
    assert_eq!(out, b"<r xmlns='urn:xmpp:sm:3'/>");
    assert!(peer.stream.awaits_ack());
    peer.says("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    assert!(!peer.stream.awaits_ack());
}

#[test]
fn unmanaged_streams_neither_ask_nor_tell() {
    let mut peer = Peer::new(config()).bound();
    let mut out = Vec::new();
    assert!(peer.stream.counting().is_none());
    peer.stream.request_ack(&mut out);
    peer.stream.write_ack(1, &mut out);
    assert!(out.is_empty());
    assert_eq!(peer.says("<a xmlns='urn:xmpp:sm:3' h='1'/>"), "");
    assert_eq!(peer.events, [""; 0]);
}

#[test]
fn a_session_is_resumed_in_place_of_binding() {
    let mut peer = Peer::new(config()).authenticated();
    peer.resumable.push(("sm-1".into(), "balcony".into(), 8));
    let said = peer.says("<resume xmlns='urn:xmpp:sm:3' previd='sm-1' h='3'/>");
    assert_eq!(said, "<resumed xmlns='urn:xmpp:sm:3' h='8' previd='sm-1'/>");
    assert_eq!(peer.last(), "Resume sm-1 h=3");
    peer.says("<presence/>");
    assert!(peer.last().contains("from='juliet@capulet.example/balcony'"));
    assert!(peer.stream.is_managed());
}

#[test]
fn after_a_failed_resumption_the_client_may_bind() {
    let mut peer = Peer::new(config()).authenticated();
    let said = peer.says("<resume xmlns='urn:xmpp:sm:3' previd='gone' h='3'/>");
    assert_eq!(
        said,
        "<failed xmlns='urn:xmpp:sm:3' h='3'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>"
    );
    let said = peer.says("<resume xmlns='urn:xmpp:sm:3' previd='gone'/>");
    assert!(said.contains("<bad-request "), "{said}");
    peer.bound_here();
}

#[test]
fn a_session_iq_counts_when_stanzas_count() {
    let mut peer = managed();
    peer.says("<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    assert!(peer.last().starts_with("Stanza <iq"));
}
