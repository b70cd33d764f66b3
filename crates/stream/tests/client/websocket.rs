//! The same stream in WebSocket frames, RFC 7395.

use crate::harness::*;
use stream::{Config, Framing};
use xmpp::write::Wire;

const OPEN: &str = "<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='capulet.example' version='1.0'/>";

fn peer() -> Peer {
    Peer::new(Config { framing: Framing::WebSocket, ..config() })
}

#[test]
fn open_is_answered_with_open_and_features_that_stand_alone() {
    let said = peer().says(OPEN);
    assert!(said.starts_with("<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' id='"), "{said}");
    assert!(said.contains(" from='capulet.example' version='1.0' xml:lang='en'/>"), "{said}");
    assert!(said.contains("<stream:features xmlns:stream='http://etherx.jabber.org/streams'>"), "{said}");
    assert_eq!(peer().stream.wire(), Wire::WebSocket);
}

#[test]
fn a_stream_is_opened_again_after_authentication_and_closed() {
    let mut peer = peer();
    peer.says(OPEN);
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
    assert!(peer.says(OPEN).contains("<bind "));
    let said =
        peer.says("<iq xmlns='jabber:client' type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(said.starts_with("<iq xmlns='jabber:client' type='result' id='b'>"), "{said}");
    peer.says("<message xmlns='jabber:client'><body>hi</body></message>");
    assert!(peer.last().starts_with("Stanza <message"), "{}", peer.last());
    let said = peer.says("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
    assert_eq!(said, "<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>");
    assert_eq!(peer.last(), "Closed");
}

#[test]
fn errors_are_told_in_frames() {
    let mut peer = peer();
    let said = peer.says("<presence xmlns='jabber:client'/>");
    assert!(said.starts_with("<open "), "{said}");
    assert!(said.contains("<stream:error xmlns:stream='http://etherx.jabber.org/streams'>"), "{said}");
    assert!(said.ends_with("<close xmlns='urn:ietf:params:xml:ns:xmpp-framing'/>"), "{said}");
}
