//! The whole of RFC 6120 §9.1, from clear text to messages.

use crate::harness::*;
use stream::Tls;

#[test]
fn the_flow_of_rfc_6120_section_9_1_ends_with_a_message() {
    let mut peer = Peer::clear(stream::Config { tls: Tls::Required, ..config() });
    let said = peer.says(
        "<?xml version='1.0'?><stream:stream from='juliet@capulet.example' to='capulet.example' version='1.0' \
         xml:lang='en' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    let (header, features) = said.split_once("<stream:features>").expect("features follow the header");
    assert!(header.starts_with("<?xml version='1.0'?><stream:stream xmlns='jabber:client' "), "{header}");
    assert!(header.contains(" from='capulet.example' to='juliet@capulet.example' version='1.0' xml:lang='en'>"));
    assert_eq!(
        features,
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>\
         <limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes></limits></stream:features>"
    );

    assert_eq!(peer.says(STARTTLS), "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(peer.last(), "StartTls");
    peer.stream.tls_up(tls());

    let said = peer.says(HEADER);
    assert!(said.contains(
        "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-256-PLUS</mechanism>\
         <mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>\
         <mechanism>PLAIN</mechanism></mechanisms>"
    ));
    assert!(!said.contains("starttls"));

    let said = peer.scram(&SCRAM_256);
    assert!(said.starts_with("<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>"), "{said}");
    assert_eq!(peer.last(), "Authenticated juliet@capulet.example SCRAM-SHA-256");

    let said = peer.says(HEADER);
    assert!(said.contains(
        "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><required/></bind>\
         <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session><sm xmlns='urn:xmpp:sm:3'/>"
    ));
    let said = peer.says("<iq id='tn281v37' type='set'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert_eq!(
        said,
        "<iq type='result' id='tn281v37'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
         <jid>juliet@capulet.example/chosen</jid></bind></iq>"
    );
    peer.says("<message to='romeo@example.net' type='chat' id='1'><body>Art thou not Romeo?</body></message>");
    assert!(peer.last().starts_with("Stanza <message"), "{}", peer.last());
    assert!(peer.last().contains("from='juliet@capulet.example/chosen'"));

    assert_eq!(peer.says("</stream:stream>"), "</stream:stream>");
    assert_eq!(peer.last(), "Closed");
    assert_eq!(peer.says("<presence/>"), "");
    assert_eq!(peer.fault, None);
}

#[test]
fn older_clients_may_ask_for_a_session() {
    let mut peer = Peer::new(config()).bound();
    let said = peer.says("<iq type='set' id='s'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    assert_eq!(said, "<iq type='result' id='s'></iq>");
    assert_eq!(peer.events, [""; 0]);
}
