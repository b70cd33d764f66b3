//! STARTTLS, RFC 6120 §5: nothing in clear comes in or goes out behind it. LIMITS rows 18 and 19.

use crate::harness::*;
use stream::{Config, Tls};

fn clear(tls: Tls) -> Peer {
    Peer::clear(Config { tls, ..config() }).open()
}

#[test]
fn row_19_whatever_stands_behind_starttls_is_fatal_and_no_proceed_is_said() {
    for behind in [
        "<message to='romeo@montague.example'/>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>",
        HEADER,
        "         ",
        "\n<presence/>",
        "\u{16}",
        "<mess",
        "<",
        "</stream:stream>",
    ] {
        let mut peer = clear(Tls::Required);
        let said = peer.says(&format!("{STARTTLS}{behind}"));
        assert!(!said.contains("proceed"), "{behind}: {said}");
        assert_eq!(peer.fault, Some(xmpp::StreamFault::PlaintextBehindStartTls), "{behind}");
        assert!(peer.events.is_empty(), "{behind}");
    }
}

// go-xmpp does so.
#[test]
fn a_line_that_ends_with_starttls_is_dropped_and_is_no_part_of_what_comes_encrypted() {
    for end in ["\n", "\r\n", " "] {
        let mut peer = clear(Tls::Required);
        assert!(peer.says(&format!("{STARTTLS}{end}")).ends_with("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        assert_eq!(peer.fault, None);
        peer.stream.tls_up(tls());
        // White space before an XML declaration would be no XML.
        assert!(peer.says(HEADER).contains("<mechanisms"), "{end:?}");
    }
}

#[test]
fn row_18_nothing_is_read_or_written_in_clear_behind_proceed() {
    for late in ["<presence/>", " ", "\u{16}"] {
        let mut peer = clear(Tls::Required);
        assert!(peer.says(STARTTLS).ends_with("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"));
        assert_eq!(peer.says(late), "");
        assert_eq!(peer.fault, Some(xmpp::StreamFault::PlaintextBehindStartTls));
    }
    let mut peer = clear(Tls::Required);
    peer.says(STARTTLS);
    let mut out = Vec::new();
    peer.stream.fail(&xmpp::StreamFault::NegotiationTimeout, &mut out);
    peer.stream.close(&mut out);
    assert_eq!(text(out), "");
}

#[test]
fn what_was_said_in_clear_is_forgotten() {
    let mut peer = Peer::clear(Config { tls: Tls::Required, ..config() });
    peer.says(
        "<stream:stream from='romeo@capulet.example' to='capulet.example' version='1.0' xml:lang='it' \
         xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>",
    );
    peer.says(STARTTLS);
    peer.stream.tls_up(tls());
    assert_eq!(peer.stream.host(), None);
    assert!(!peer.says(HEADER).contains("romeo"));
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
}

#[test]
fn while_tls_is_required_there_is_no_authentication() {
    let mut peer = clear(Tls::Required);
    assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "encryption-required");
    assert_eq!(failure(&peer.scram(&SCRAM_256)), "encryption-required");
}

#[test]
fn where_tls_is_optional_scram_works_in_clear_and_plain_does_not() {
    for tls in [Tls::Optional, Tls::Absent] {
        let mut peer = clear(tls);
        assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "encryption-required");
        assert!(!peer.events.iter().any(|event| event.starts_with("CheckPassword")));
        assert!(peer.scram(&SCRAM_256).contains("<success"));
    }
}

#[test]
fn sasl2_is_refused_in_clear() {
    let mut peer = clear(Tls::Optional);
    assert_eq!(failure(&peer.says(&authenticate_plain(""))), "encryption-required");
}

#[test]
fn starttls_is_refused_where_it_was_not_offered() {
    for mut peer in [clear(Tls::Absent), Peer::new(config()).open()] {
        let said = peer.says(STARTTLS);
        assert!(said.starts_with("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{said}");
        assert!(said.ends_with("</stream:stream>"), "{said}");
        assert!(peer.events.is_empty());
    }
}

#[test]
fn optional_tls_is_offered_as_optional() {
    let mut peer = Peer::clear(Config { tls: Tls::Optional, ..config() });
    let said = peer.says(HEADER);
    assert!(said.contains("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"), "{said}");
    assert!(said.contains("<mechanism>SCRAM-SHA-256</mechanism>"), "{said}");
    assert!(!said.contains("PLAIN") && !said.contains("PLUS") && !said.contains("sasl:2"), "{said}");
}
