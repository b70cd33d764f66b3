//! Stream headers, and what ends a stream at once. RFC 6120 §4.7, §4.9.

use crate::harness::*;

fn header(attributes: &str) -> String {
    format!("<stream:stream {attributes} xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>")
}

/// Says `text` to a new stream: the answer and the stream error's condition.
fn refused(text: &str) -> (String, &'static str) {
    let mut peer = Peer::new(config());
    let said = peer.says(text);
    assert!(peer.fault.is_some(), "{text} is refused");
    let condition = peer.condition();
    // Our header, the error, the close tag, whatever came before. RFC 6120 §4.9.1.2.
    let (head, error) = said.split_once("<stream:error>").expect("an error is told");
    assert!(head.starts_with("<?xml version='1.0'?><stream:stream xmlns='jabber:client'"), "{head}");
    assert!(error.starts_with(&format!("<{condition} ")), "{error}");
    assert!(error.ends_with("</stream:error></stream:stream>"), "{error}");
    assert_eq!(peer.says("<presence/>"), "", "nothing follows");
    (head.to_owned(), condition)
}

#[test]
fn the_answer_has_a_new_unguessable_id_each_time() {
    let id = |peer: &mut Peer| {
        let said = peer.says(HEADER);
        said.split_once(" id='").and_then(|(_, rest)| rest.split_once('\'')).map(|(id, _)| id.to_owned())
    };
    let mut peer = Peer::new(config());
    let first = id(&mut peer).expect("the header has an id");
    assert_eq!(first.len(), 22, "128 bits in base64");
    peer.says(&plain("juliet", PASSWORD));
    assert_ne!(Some(first), id(&mut peer));
}

#[test]
fn the_clients_from_is_answered_with_to_as_a_bare_jid() {
    let mut peer = Peer::new(config());
    let said = peer.says(&header("from='Juliet@capulet.example/x' to='capulet.example' version='1.0'"));
    assert!(said.contains(" to='juliet@capulet.example'"), "{said}");
    let said = Peer::new(config()).says(HEADER);
    assert!(!said.contains(" to='"), "{said}");
}

#[test]
fn a_lower_version_is_answered_with_ours_and_a_higher_minor_too() {
    for version in ["1.0", "1.99", "2.0"] {
        let said = Peer::new(config()).says(&header(&format!("to='capulet.example' version='{version}'")));
        assert!(said.contains(" version='1.0'"), "{version}: {said}");
        assert!(said.contains("<stream:features>"), "{version}: {said}");
    }
}

#[test]
fn version_0_9_is_refused_without_a_version_in_the_answer() {
    let (head, condition) = refused(&header("to='capulet.example'"));
    assert_eq!(condition, "unsupported-version");
    assert!(!head.contains(" version='1.0' "), "{head}");
    assert_eq!(refused(&header("to='capulet.example' version='x'")).1, "unsupported-version");
}

#[test]
fn a_foreign_host_is_unknown_and_answered_in_our_name() {
    let (head, condition) = refused(&header("to='montague.example' version='1.0'"));
    assert_eq!(condition, "host-unknown");
    assert!(head.contains(" from='capulet.example'"), "{head}");
}

#[test]
fn without_a_default_host_an_unknown_one_is_answered_in_nobodys_name() {
    let mut peer = Peer::new(stream::Config { default_host: None, ..config() });
    let said = peer.says(&header("version='1.0'"));
    assert_eq!(peer.condition(), "host-unknown");
    assert!(said.contains(" from=''"), "{said}");
}

#[test]
fn a_header_without_to_is_for_the_default_host() {
    for to in ["", "to=''"] {
        let mut peer = Peer::new(config());
        let said = peer.says(&header(&format!("{to} version='1.0'")));
        assert!(said.contains(" from='capulet.example'"), "{said}");
        assert_eq!(peer.stream.host(), Some(HOST));
    }
}

#[test]
fn a_host_is_recognised_in_any_case() {
    let mut peer = Peer::new(config());
    peer.says(&header("to='CAPULET.example' version='1.0'"));
    assert_eq!(peer.stream.host(), Some(HOST));
}

#[test]
fn addresses_that_are_none_are_improper() {
    assert_eq!(refused(&header("to='a b' version='1.0'")).1, "improper-addressing");
    assert_eq!(refused(&header("to='capulet.example' from='@' version='1.0'")).1, "improper-addressing");
}

#[test]
fn a_from_of_another_domain_is_invalid() {
    assert_eq!(refused(&header("to='capulet.example' from='a@montague.example' version='1.0'")).1, "invalid-from");
}

#[test]
fn wrong_namespaces_are_refused() {
    let wrong_stream = "<stream:stream to='capulet.example' version='1.0' xmlns='jabber:client' \
        xmlns:stream='http://wrong.namespace.example.org/'>";
    assert_eq!(refused(wrong_stream).1, "invalid-namespace");
    let wrong_content = "<stream:stream to='capulet.example' version='1.0' xmlns='jabber:server' \
        xmlns:stream='http://etherx.jabber.org/streams'>";
    assert_eq!(refused(wrong_content).1, "invalid-namespace");
}

#[test]
fn what_is_no_stream_is_refused() {
    for (text, condition) in [
        ("GET / HTTP/1.1\r\n\r\n", "not-well-formed"),
        ("<!DOCTYPE x><x/>", "restricted-xml"),
        ("<?xml version='1.0' encoding='latin1'?>", "unsupported-encoding"),
        ("<a></b>", "invalid-namespace"),
        ("\u{fffe}", "not-well-formed"),
    ] {
        let mut peer = Peer::new(config());
        let said = peer.says(text);
        assert!(said.contains("<stream:error>"), "{text}: {said}");
        assert_eq!(peer.condition(), condition, "{text}");
    }
}

#[test]
fn a_wrong_root_element_is_refused() {
    let root = "<stream:flow to='capulet.example' version='1.0' xmlns='jabber:client' \
        xmlns:stream='http://etherx.jabber.org/streams'>";
    let mut peer = Peer::new(config());
    peer.says(root);
    assert!(peer.fault.is_some());
}

#[test]
fn faults_in_the_stream_are_told_with_their_condition() {
    for (text, condition) in [
        ("<message><body>No closing tag!</message>", "not-well-formed"),
        ("<message><!-- comment --></message>", "restricted-xml"),
        ("<message><body>&foo;</body></message>", "restricted-xml"),
        ("<message><x:body/></message>", "not-well-formed"),
        ("text", "bad-format"),
        ("<foo/>", "unsupported-stanza-type"),
        ("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "unsupported-stanza-type"),
        ("<message from='romeo@montague.example'/>", "invalid-from"),
        ("<message from='juliet@capulet.example/other'/>", "invalid-from"),
        ("<message from='@'/>", "invalid-from"),
    ] {
        let mut peer = Peer::new(config()).bound();
        let said = peer.says(text);
        assert!(said.ends_with("</stream:error></stream:stream>"), "{text}: {said}");
        assert_eq!(peer.condition(), condition, "{text}");
        assert_eq!(peer.events, [""; 0], "{text}");
    }
}

#[test]
fn bytes_that_are_not_utf_8_are_refused() {
    let mut peer = Peer::new(config()).bound();
    peer.says_bytes(b"<message><body>\xc3\x28</body></message>");
    assert_eq!(peer.condition(), "unsupported-encoding");
}

#[test]
fn the_house_may_end_a_stream_with_any_fault_once() {
    let mut peer = Peer::new(config()).bound();
    let mut out = Vec::new();
    peer.stream.fail(&xmpp::StreamFault::SystemShutdown, &mut out);
    peer.stream.fail(&xmpp::StreamFault::SystemShutdown, &mut out);
    peer.stream.close(&mut out);
    let said = text(out);
    assert!(said.starts_with("<stream:error><system-shutdown "), "{said}");
    assert_eq!(said.matches("</stream:stream>").count(), 1);
}

#[test]
fn white_space_between_stanzas_is_skipped_and_between_two_streams_too() {
    let mut peer = Peer::new(config()).open();
    peer.says(&format!("{}\n \n", plain("juliet", PASSWORD)));
    let said = peer.says(&format!("\r\n{HEADER}"));
    assert_eq!(peer.fault, None, "{said}");
    assert!(said.contains("<bind "), "{said}");
}

#[test]
fn after_authentication_the_header_must_name_the_same_host_and_user() {
    let again = |attributes: &str| {
        let mut peer = Peer::new(stream::Config {
            hosts: ["capulet.example", "montague.example"]
                .map(|host| (host.into(), stream::HostAuth::default()))
                .into(),
            ..config()
        })
        .open();
        peer.says(&plain("juliet", PASSWORD));
        peer.says(&header(attributes));
        peer.condition()
    };
    assert_eq!(again("to='montague.example' version='1.0'"), "host-unknown");
    assert_eq!(again("to='capulet.example' from='romeo@capulet.example' version='1.0'"), "invalid-from");
    assert_eq!(again("to='capulet.example' from='juliet@capulet.example' version='1.0'"), "none");
}
