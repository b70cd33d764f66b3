//! Forwarding bytes: what a stanza means on the stream it came by, it means on the one it leaves by.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use xmpp::write::{Additions, Wire, to_stored, write_stanza};
use xmpp::xml::{Frame, Limits, Raw, Scanner, XmlFault};
use xmpp::{Element, Stanza, ns};

const CLIENT: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";
const SERVER: &str = "<stream:stream xmlns='jabber:server' xmlns:stream='http://etherx.jabber.org/streams' xmlns:db='jabber:server:dialback'>";
const COMPONENT: &str = "<stream:stream xmlns='jabber:component:accept' xmlns:stream='http://etherx.jabber.org/streams'>";

fn frames(header: &str, bytes: &str) -> Result<Vec<Raw>, XmlFault> {
    let mut scanner = match header {
        "" => Scanner::framed(Limits::SERVER, ns::CLIENT),
        _ => Scanner::new(Limits::SERVER),
    };
    let all = format!("{header}{bytes}");
    let mut input = all.as_bytes();
    let mut out = Vec::new();
    while let Some(frame) = scanner.next(&mut input)? {
        match frame {
            Frame::Header(_) => {}
            Frame::Element(raw) => out.push(raw),
            Frame::Close => break,
        }
    }
    assert!(!scanner.is_mid_frame(), "whole frames only: {bytes}");
    Ok(out)
}

fn raw(header: &str, bytes: &str) -> Raw {
    let mut all = frames(header, bytes).unwrap();
    assert_eq!(all.len(), 1);
    all.remove(0)
}

fn stanza(header: &str, bytes: &str) -> Stanza {
    Stanza::from_raw(raw(header, bytes)).unwrap()
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
    assert_eq!(to_stored(&stanza), text.as_bytes());
    assert_eq!(
        stanza
            .payload
            .children()
            .map(|c| (c.name, c.ns))
            .collect::<Vec<_>>(),
        [("body", ns::CLIENT), ("x", "urn:y")]
    );
    assert_eq!(
        Element::parse(text.as_bytes(), ns::CLIENT).unwrap(),
        raw(CLIENT, text).to_element()
    );
    assert_eq!(
        written(&stanza, Wire::WebSocket),
        text.replace("<message", "<message xmlns='jabber:client'")
    );
    let _ = (SERVER, COMPONENT);
}
