//! Tokens in place of passwords, XEP-0484.

use crate::harness::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::Ordering;
use stream::{Crypto, Hash, Mechanism, Token};
use xmpp::Stamp;

const AGENT: &str = "<user-agent id='phone'/>";

fn request(mechanism: &str) -> String {
    format!("{AGENT}<request-token xmlns='urn:xmpp:fast:0' mechanism='{mechanism}'/>")
}

/// What the client sends with a token.
fn hashed(crypto: &dyn Crypto, user: &str, token: &str, binding: &[u8]) -> Vec<u8> {
    let hash = crypto.hmac(Hash::Sha256, token.as_bytes(), &[b"Initiator", binding].concat());
    [user.as_bytes(), b"\0", &hash].concat()
}

impl Peer {
    fn fast_with(&mut self, mechanism: &str, token: &str, binding: &[u8], inside: &str) -> String {
        let message = hashed(&*self.crypto, "juliet", token, binding);
        self.says(&authenticate(mechanism, &message, inside))
    }

    fn fast(&mut self, token: &str, attributes: &str) -> String {
        let inside = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0' {attributes}/>");
        self.fast_with("HT-SHA-256-NONE", token, b"", &inside)
    }

    /// The same account on a new stream.
    fn again(self) -> Peer {
        let mut peer = Peer::new(config()).open();
        peer.accounts = self.accounts;
        peer.now = self.now;
        // Randomness goes on, it does not begin anew.
        peer.crypto.drawn.fetch_add(self.crypto.drawn.load(Ordering::Relaxed), Ordering::Relaxed);
        peer
    }
}

/// A client that has a token.
fn with_token() -> (Peer, String) {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(&request("HT-SHA-256-NONE")));
    let token = told(&said).expect("a token is told");
    (peer.again(), token)
}

fn told(said: &str) -> Option<String> {
    let (_, rest) = said.split_once("<token xmlns='urn:xmpp:fast:0'")?;
    let (_, rest) = rest.split_once(" token='")?;
    rest.split_once('\'').map(|(token, _)| token.to_owned())
}

#[test]
fn a_token_is_given_when_it_is_asked_for_and_stored() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(&request("HT-SHA-256-EXPR")));
    assert_eq!(peer.events[3], "PutToken phone HT-SHA-256-EXPR");
    assert_eq!(told(&said), Some(peer.token(Mechanism::HtSha256Expr)));
    assert!(said.contains("expiry='2026-12-13T00:00:00Z'"), "21 days later: {said}");
}

#[test]
fn without_a_clients_id_or_a_known_mechanism_or_a_store_there_is_no_token() {
    for (inside, stores) in [
        ("<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>".to_owned(), true),
        (request("SCRAM-SHA-256"), true),
        (request("HT-SHA-512-NONE"), true),
        (request("HT-SHA-256-NONE"), false),
    ] {
        let mut peer = Peer::new(config()).open();
        peer.stores = stores;
        let said = peer.says(&authenticate_plain(&inside));
        assert!(said.contains("<success"), "{inside}: {said}");
        assert_eq!(told(&said), None, "{inside}");
    }
}

#[test]
fn a_token_is_good_in_one_round_and_the_server_proves_itself_too() {
    for (mechanism, binding) in
        [("HT-SHA-256-NONE", &b""[..]), ("HT-SHA-256-EXPR", &[7; 32]), ("HT-SHA-256-ENDP", &[9; 32])]
    {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&authenticate_plain(&request(mechanism)));
        let token = told(&said).expect("a token is told");
        let mut peer = peer.again();
        let inside = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0'/>");
        let said = peer.fast_with(mechanism, &token, binding, &inside);
        let proof = peer.crypto.hmac(Hash::Sha256, token.as_bytes(), &[b"Responder", binding].concat());
        let data = inner(&said, "additional-data").expect("the success has data");
        assert_eq!(STANDARD.decode(data), Ok(proof), "{mechanism}");
        assert_eq!(
            peer.events,
            [
                format!("Lookup juliet@capulet.example {mechanism}"),
                format!("Authenticated juliet@capulet.example {mechanism}"),
            ]
        );
    }
}

#[test]
fn a_wrong_token_an_unknown_user_and_another_client_look_alike() {
    let (peer, token) = with_token();
    let mut peer = peer;
    let wrong = peer.fast("wrong", "");
    let mut peer = peer.again();
    let message = hashed(&*peer.crypto, "nobody", &token, b"");
    let inside = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0'/>");
    let unknown = peer.says(&authenticate("HT-SHA-256-NONE", &message, &inside));
    let other =
        peer.fast_with("HT-SHA-256-NONE", &token, b"", "<user-agent id='desk'/><fast xmlns='urn:xmpp:fast:0'/>");
    assert_eq!(failure(&wrong), "not-authorized");
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, other);
}

#[test]
fn a_token_is_good_for_its_mechanism_alone() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(&request("HT-SHA-256-EXPR")));
    let token = told(&said).expect("a token is told");
    let mut peer = peer.again();
    assert_eq!(failure(&peer.fast(&token, "")), "not-authorized");
    // Nor over another channel.
    let inside = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0'/>");
    assert_eq!(failure(&peer.fast_with("HT-SHA-256-EXPR", &token, &[8; 32], &inside)), "not-authorized");
}

#[test]
fn token_mechanisms_need_the_fast_element_and_it_needs_them() {
    let (mut peer, token) = with_token();
    assert_eq!(failure(&peer.fast_with("HT-SHA-256-NONE", &token, b"", AGENT)), "invalid-mechanism");
    let inside = format!("{AGENT}<fast xmlns='urn:xmpp:fast:0'/>");
    assert_eq!(failure(&peer.says(&authenticate_plain(&inside))), "invalid-mechanism");
}

#[test]
fn an_expired_token_is_told_so() {
    let (mut peer, token) = with_token();
    peer.now = Stamp(NOW.0 + 21 * DAY);
    assert_eq!(failure(&peer.fast(&token, "")), "credentials-expired");
}

#[test]
fn an_old_token_is_replaced_and_stays_good_until_the_new_one_is_used() {
    let (mut peer, first) = with_token();
    peer.now = Stamp(NOW.0 + 2 * DAY);
    let second = told(&peer.fast(&first, "")).expect("the token is rotated");
    // The client never heard of it, and comes with the first again: it gets a third, the second is void.
    let mut peer = peer.again();
    let third = told(&peer.fast(&first, "")).expect("the token is rotated again");
    let mut peer = peer.again();
    assert_eq!(failure(&peer.fast(&second, "")), "not-authorized");
    // Once the third is used, the first is void.
    let said = peer.fast(&third, "");
    assert!(said.contains("<success"), "{said}");
    assert_eq!(told(&said), None);
    let mut peer = peer.again();
    assert_eq!(failure(&peer.fast(&first, "")), "not-authorized");
    assert!(peer.fast(&third, "").contains("<success"));
}

#[test]
fn the_token_before_expires_too() {
    let (mut peer, first) = with_token();
    peer.now = Stamp(NOW.0 + 2 * DAY);
    peer.fast(&first, "");
    let mut peer = peer.again();
    peer.now = Stamp(NOW.0 + 22 * DAY);
    assert_eq!(failure(&peer.fast(&first, "")), "credentials-expired");
}

#[test]
fn a_count_must_grow() {
    let (mut peer, token) = with_token();
    assert!(peer.fast(&token, "count='5'").contains("<success"));
    for (count, good) in [("5", false), ("4", false), ("6", true)] {
        peer = peer.again();
        let said = peer.fast(&token, &format!("count='{count}'"));
        assert_eq!(said.contains("<success"), good, "{count}: {said}");
    }
    let mut peer = peer.again();
    assert_eq!(failure(&peer.fast(&token, "count='x'")), "malformed-request");
}

#[test]
fn a_client_that_logs_out_leaves_no_token() {
    for yes in ["true", "1"] {
        let (mut peer, token) = with_token();
        peer.now = Stamp(NOW.0 + 2 * DAY);
        let said = peer.fast(&token, &format!("invalidate='{yes}'"));
        assert!(said.contains("<success"), "{said}");
        assert_eq!(told(&said), None, "not even one that was due");
        assert_eq!(peer.last(), "PutToken phone HT-SHA-256-NONE");
        // Whoever has it hears that it is over; whoever guesses, that it is wrong. XEP-0484 §4.2.
        let mut peer = peer.again();
        assert_eq!(failure(&peer.fast(&token, "")), "credentials-expired");
        assert_eq!(failure(&peer.fast("a guess", "")), "not-authorized");
        // The same stream takes the password still.
        assert!(peer.says(&authenticate_plain(&request("HT-SHA-256-NONE"))).contains("<success"));
    }
}

#[test]
fn a_token_that_cannot_be_ended_fails_the_log_out() {
    let (mut peer, token) = with_token();
    peer.stores = false;
    assert_eq!(failure(&peer.fast(&token, "invalidate='true'")), "temporary-auth-failure");
    assert!(!peer.stream.is_authenticated());
}

#[test]
fn a_new_token_can_be_asked_for_while_the_old_is_invalidated() {
    let (mut peer, first) = with_token();
    let inside = format!("{}<fast xmlns='urn:xmpp:fast:0' invalidate='true'/>", request("HT-SHA-256-NONE"));
    let second = told(&peer.fast_with("HT-SHA-256-NONE", &first, b"", &inside)).expect("a token is told");
    let mut peer = peer.again();
    assert_eq!(failure(&peer.fast(&first, "")), "not-authorized");
    assert!(peer.fast(&second, "").contains("<success"));
}

#[test]
fn a_token_for_another_mechanism_can_be_asked_for_beside() {
    let (mut peer, first) = with_token();
    let inside = format!("{}<fast xmlns='urn:xmpp:fast:0'/>", request("HT-SHA-256-EXPR"));
    assert!(told(&peer.fast_with("HT-SHA-256-NONE", &first, b"", &inside)).is_some());
    let mut mechanisms: Vec<_> = peer.tokens().iter().map(|token: &Token| token.mechanism.name()).collect();
    mechanisms.sort_unstable();
    assert_eq!(mechanisms, ["HT-SHA-256-EXPR", "HT-SHA-256-NONE"]);
}

#[test]
fn where_fast_is_off_there_are_no_tokens() {
    let mut off = config();
    host(&mut off).fast = None;
    let mut peer = Peer::new(off.clone());
    assert!(!peer.says(HEADER).contains("urn:xmpp:fast:0"));
    assert_eq!(told(&peer.says(&authenticate_plain(&request("HT-SHA-256-NONE")))), None);
    let (with, token) = with_token();
    let mut peer = Peer::new(off).open();
    peer.accounts = with.accounts;
    assert_eq!(failure(&peer.fast(&token, "")), "invalid-mechanism");
}
