//! An account before there is one. XEP-0077 §3.1.

use crate::harness::*;
use stream::{Config, Tls};
use xmpp::StanzaCondition;

fn open() -> Config {
    let mut config = config();
    host(&mut config).registration_open = true;
    config
}

fn submit(inside: &str) -> String {
    format!("<iq type='set' id='r'><query xmlns='jabber:iq:register'>{inside}</query></iq>")
}

const FORM: &str = "<iq type='get' id='r'><query xmlns='jabber:iq:register'/></iq>";
const ROMEO: &str = "<username>Romeo</username><password>secret</password>";

#[test]
fn it_is_offered_where_it_is_open_and_no_network_sees_the_password() {
    let feature = "<register xmlns='http://jabber.org/features/iq-register'/>";
    assert!(Peer::new(open()).says(HEADER).contains(feature));
    assert!(!Peer::new(config()).says(HEADER).contains(feature));
    assert!(!Peer::clear(Config { tls: Tls::Required, ..open() }).says(HEADER).contains(feature));
    // Such a listener is on loopback, or a proxy ended TLS before it.
    assert!(Peer::clear(Config { tls: Tls::Optional, ..open() }).says(HEADER).contains(feature));
}

#[test]
fn the_form_asks_for_a_username_and_a_password() {
    let said = Peer::new(open()).open().says(FORM);
    assert!(said.starts_with("<iq type='result' id='r'><query xmlns='jabber:iq:register'>"), "{said}");
    assert!(said.ends_with("<username/><password/></query></iq>"), "{said}");
}

#[test]
fn what_is_submitted_is_prepared_and_the_outcome_told() {
    let mut peer = Peer::new(open()).open();
    assert_eq!(peer.says(&submit(ROMEO)), "<iq type='result' id='r'></iq>");
    assert_eq!(peer.events, ["Register romeo@capulet.example secret"]);
    peer.registers = Err(StanzaCondition::Conflict.into());
    let said = peer.says(&submit(ROMEO));
    assert!(said.starts_with("<iq type='error' id='r'><error type='cancel'><conflict "), "{said}");
    // And then authenticates on the same stream.
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
}

#[test]
fn what_cannot_be_an_account_is_not_acceptable() {
    for inside in [
        "",
        "<username>romeo</username>",
        "<password>x</password>",
        "<username/><password>x</password>",
        "<username>a b</username><password>x</password>",
        "<username>a@b</username><password>x</password>",
    ] {
        let mut peer = Peer::new(open()).open();
        let said = peer.says(&submit(inside));
        assert!(said.contains("<not-acceptable "), "{inside}: {said}");
        assert!(peer.events.is_empty(), "{inside}");
    }
    let said = Peer::new(open()).open().says(&submit("<remove/>"));
    assert!(said.contains("<unexpected-request "), "{said}");
}

#[test]
fn where_it_is_closed_an_iq_is_an_iq_before_authentication() {
    for what in [FORM.to_owned(), submit(ROMEO)] {
        let mut peer = Peer::new(config()).open();
        let refused = peer.says(&what);
        assert!(refused.contains("type='error'") && refused.contains("<not-authorized "), "{refused}");
        assert!(peer.fault.is_none() && peer.events.is_empty());
    }
}

#[test]
fn other_iqs_are_refused_where_it_is_open_too() {
    let mut peer = Peer::new(open()).open();
    let refused = peer.says("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    assert!(refused.contains("type='error' id='1'") && refused.contains("<not-authorized "), "{refused}");
    peer.says("<iq type='result' id='1'/>");
    assert_eq!(peer.condition(), "not-authorized");
}

#[test]
fn the_eleventh_request_ends_the_stream() {
    let mut peer = Peer::new(open()).open();
    for _ in 0..10 {
        peer.says(FORM);
        assert_eq!(peer.fault, None);
    }
    peer.says(FORM);
    assert_eq!(peer.condition(), "policy-violation");
}

/// Only with an invitation.
fn invited() -> Config {
    let mut config = config();
    host(&mut config).invitations = true;
    config
}

fn preauth(token: &str) -> String {
    format!("<iq type='set' id='p'><preauth xmlns='urn:xmpp:pars:0' token='{token}'/></iq>")
}

// XEP-0445 §3.
#[test]
fn that_invitations_count_is_said() {
    let said = Peer::new(invited()).says(HEADER);
    assert!(said.contains("<register xmlns='urn:xmpp:ibr-token:0'/>"), "{said}");
    assert!(said.contains("<register xmlns='http://jabber.org/features/iq-register'/>"), "{said}");
    assert!(!Peer::new(open()).says(HEADER).contains("ibr-token"));
    assert!(!Peer::clear(Config { tls: Tls::Required, ..invited() }).says(HEADER).contains("ibr-token"));
}

// XEP-0445 §4.
#[test]
fn whoever_shows_a_good_token_has_the_form_and_an_account() {
    let mut peer = Peer::new(invited()).open();
    assert_eq!(peer.says(&preauth("good")), "<iq type='result' id='p'></iq>");
    assert!(peer.says(FORM).contains("<username/><password/>"));
    assert_eq!(peer.says(&submit(ROMEO)), "<iq type='result' id='r'></iq>");
    assert_eq!(peer.events, ["Invited good", "Register romeo@capulet.example secret by good"]);
}

#[test]
fn whoever_shows_none_or_a_bad_one_has_neither() {
    let mut peer = Peer::new(invited()).open();
    assert!(peer.says(FORM).contains("<not-allowed "));
    assert!(peer.says(&preauth("bad")).contains("<item-not-found "));
    assert!(peer.says(&submit(ROMEO)).contains("<not-allowed "));
    // A good one is taken back by a bad one.
    peer.says(&preauth("good"));
    peer.says(&preauth("bad"));
    assert!(peer.says(&submit(ROMEO)).contains("<not-allowed "));
    assert_eq!(peer.events, ["Invited bad", "Invited good", "Invited bad"]);
}

#[test]
fn trying_tokens_for_ever_ends_the_stream() {
    let mut peer = Peer::new(invited()).open();
    let said: String = (0..=stream::client::REGISTRATIONS_MAX).map(|_| peer.says(&preauth("bad"))).collect();
    assert!(said.contains("<policy-violation "), "{said}");
}

#[test]
fn without_invitations_a_token_is_good_for_nothing() {
    let mut peer = Peer::new(open()).open();
    assert!(peer.says(&preauth("good")).contains("<service-unavailable "));
}
