//! Stream management between servers, XEP-0198, and marks.

use crate::harness::*;
use stream::Verdict;

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
const SM: &str = "<sm xmlns='urn:xmpp:sm:3'><optional/></sm>";
const MARKS: &str = "<marks xmlns='urn:waft:marks:0'/>";
const VALID: &str = "<db:result from='montague.example' to='capulet.example' type='valid'/>";

/// Another server's stream to us, authenticated by dialback.
fn proved() -> In {
    let mut side = In::open(None);
    side.says(&result(THERE, HERE, "key"));
    side.judged(THERE, HERE, Verdict::Valid);
    side
}

/// Our stream to another server, authenticated by dialback.
fn proving(features: &str) -> Out {
    let mut side = Out::open(&format!("{DIALBACK}{features}"));
    side.authenticates();
    side.hears(VALID);
    side
}

fn asks(side: &mut Out, resume: Option<(&str, u32)>) -> String {
    let mut out = Vec::new();
    match resume {
        Some((id, h)) => side.stream.resume(id, h, &mut out),
        None => side.stream.enable(&mut out),
    };
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn a_stream_that_is_proved_by_dialback_was_told_of_acknowledgements_before() {
    let mut side = In::encrypted(None);
    let features = side.says(HEADER);
    assert!(features.contains("<sm xmlns='urn:xmpp:sm:3'/>") && features.contains(MARKS), "{features}");
}

#[test]
fn a_peer_enables_acknowledgements_once() {
    let mut side = proved();
    let answer = side.says(ENABLE);
    assert_eq!(answer, "<enabled xmlns='urn:xmpp:sm:3' id='again' resume='true' max='60'/>");
    assert!(side.says(ENABLE).contains("<unexpected-request"), "once");
    side.says("<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='3'/>");
    assert_eq!(side.events[2..], ["manage true", "AckRequested", "Acked(3)"]);
}

#[test]
fn nobody_enables_acknowledgements_before_authentication() {
    let mut side = In::open(None);
    assert!(side.says(ENABLE).contains("<unexpected-request"));
    assert_eq!(side.events, [""; 0]);
    side.says("<r xmlns='urn:xmpp:sm:3'/>");
    assert!(side.fault.is_some(), "nothing is counted");
}

#[test]
fn a_peer_resumes_what_is_known_and_nothing_else() {
    let mut side = proved();
    assert!(side.says("<resume xmlns='urn:xmpp:sm:3' h='1' previd='other'/>").contains("<item-not-found"));
    let answer = side.says("<resume xmlns='urn:xmpp:sm:3' h='1' previd='again'/>");
    assert_eq!(answer, "<resumed xmlns='urn:xmpp:sm:3' h='7' previd='again'/>");
}

#[test]
fn we_enable_what_is_offered_and_only_when_authenticated() {
    let mut side = Out::open(&format!("{DIALBACK}{SM}"));
    assert_eq!(asks(&mut side, None), "");
    let mut side = proving(SM);
    assert_eq!(asks(&mut side, None), ENABLE);
    assert_eq!(asks(&mut side, None), "", "once");
    side.hears("<enabled xmlns='urn:xmpp:sm:3' id='i' resume='true' max='30'/>");
    assert_eq!(side.last(), "enabled Some(\"i\") Some(30)");
    assert_eq!(asks(&mut proving(""), None), "");
}

#[test]
fn an_id_without_resumption_resumes_nothing() {
    let mut side = proving(SM);
    asks(&mut side, None);
    side.hears("<enabled xmlns='urn:xmpp:sm:3' id='i'/>");
    assert_eq!(side.last(), "enabled None None");
}

#[test]
fn after_a_resumption_that_failed_acknowledgements_are_enabled_afresh() {
    let mut side = proving(SM);
    assert_eq!(asks(&mut side, Some(("i", 4))), "<resume xmlns='urn:xmpp:sm:3' h='4' previd='i'/>");
    side.hears(
        "<failed xmlns='urn:xmpp:sm:3' h='2'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>",
    );
    assert_eq!(side.last(), "not managed Some(2)");
    assert_eq!(asks(&mut side, None), ENABLE);
}

#[test]
fn an_answer_that_nobody_asked_for_ends_the_stream() {
    let mut side = proving(SM);
    side.hears("<enabled xmlns='urn:xmpp:sm:3'/>");
    assert!(side.fault.is_some());
}

#[test]
fn a_message_s_mark_comes_before_it() {
    let mut side = proved();
    let mut out = Vec::new();
    stream::server::marks::write_mark(&mut out, -5);
    side.says(&String::from_utf8(out).expect("UTF-8"));
    side.says(&message("romeo@montague.example", "juliet@capulet.example"));
    assert_eq!(side.events[2..], ["Mark(-5)", "stanza from romeo@montague.example"]);
    assert!(proving(MARKS).stream.takes_marks() && !proving("").stream.takes_marks());
}

#[test]
fn a_mark_that_is_no_number_ends_the_stream() {
    let mut side = proved();
    side.says("<mark xmlns='urn:waft:marks:0' id='x'/>");
    assert!(side.fault.is_some());
}
