//! Authentication, RFC 6120 §6, by mechanisms other than SCRAM; and what all have in common.

use crate::harness::*;
use stream::{Account, HostAuth, Mechanism};

fn with(mechanisms: &[Mechanism]) -> stream::Config {
    let mut config = config();
    *host(&mut config) = HostAuth { mechanisms: mechanisms.to_vec(), ..HostAuth::default() };
    config
}

#[test]
fn plain_succeeds_with_the_password() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&plain("juliet", PASSWORD));
    assert_eq!(said, "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></success>");
    assert_eq!(
        peer.events,
        [
            "Lookup juliet@capulet.example PLAIN",
            "CheckPassword juliet@capulet.example",
            "Authenticated juliet@capulet.example PLAIN"
        ]
    );
}

#[test]
fn plain_takes_names_in_any_case_and_its_own_authzid() {
    for authzid in ["", "juliet@capulet.example", "Juliet@CAPULET.example"] {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&auth("PLAIN", format!("{authzid}\0JULIET\0{PASSWORD}").as_bytes()));
        assert!(said.contains("<success"), "{authzid}: {said}");
    }
}

#[test]
fn unknown_users_and_wrong_passwords_look_alike() {
    let ask = |user: &str| {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&plain(user, "wrong"));
        let events: Vec<_> = peer.events.iter().map(|event| event.replace(user, "X")).collect();
        (said, events)
    };
    assert_eq!(ask("juliet"), ask("nobody"));
}

#[test]
fn the_password_of_made_up_keys_is_no_password() {
    let mut peer = Peer::new(config()).open();
    peer.accounts.clear();
    assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "not-authorized");
}

#[test]
fn row_1_an_authzid_that_names_another_is_refused_in_plain() {
    for authzid in [
        "romeo@capulet.example",
        "admin@capulet.example",
        "juliet@montague.example",
        "juliet@capulet.example/balcony",
        "capulet.example",
        "juliet",
        "@",
    ] {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&auth("PLAIN", format!("{authzid}\0juliet\0{PASSWORD}").as_bytes()));
        assert_eq!(failure(&said), "invalid-authzid", "{authzid}");
        assert_eq!(peer.events, ["AuthFailed invalid-authzid"], "{authzid}");
    }
}

#[test]
fn row_1_an_encrypted_header_that_names_another_is_refused() {
    let mut peer = Peer::new(config());
    peer.says(&HEADER.replace("to=", "from='romeo@capulet.example' to="));
    assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "invalid-authzid");
}

#[test]
fn malformed_messages_of_plain_are_refused() {
    for message in [&b"juliet"[..], b"\0juliet", b"\0juliet\0", b"\0\0pw", b"\0a\0b\0c", b"\0\xff\0b"] {
        let mut peer = Peer::new(config()).open();
        assert_eq!(failure(&peer.says(&auth("PLAIN", message))), "malformed-request", "{message:?}");
    }
    let mut peer = Peer::new(config()).open();
    assert_eq!(failure(&peer.says(&plain("not@local", PASSWORD))), "not-authorized");
}

#[test]
fn a_disabled_account_is_told_so_only_with_its_password() {
    let mut peer = Peer::new(config()).open();
    peer.accounts.get_mut(&jid(JULIET)).expect("juliet has an account").disabled = true;
    assert_eq!(failure(&peer.says(&plain("juliet", "wrong"))), "not-authorized");
    assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "account-disabled");
    assert!(!peer.stream.is_authenticated());
}

#[test]
fn a_store_that_fails_is_a_temporary_failure() {
    let mut peer = Peer::new(config()).open();
    peer.store_is_up = false;
    assert_eq!(failure(&peer.says(&plain("juliet", PASSWORD))), "temporary-auth-failure");
}

#[test]
fn base64_is_taken_in_its_one_form() {
    for bad in ["AGE", "AG E=", "AGEA\n", "====", "AGF=", "A-_A", "AA==AA=="] {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{bad}</auth>"));
        assert_eq!(failure(&said), "incorrect-encoding", "{bad}");
    }
}

#[test]
fn an_equals_sign_is_an_empty_response_and_nothing_is_none() {
    let mut peer = Peer::new(config()).open();
    assert_eq!(failure(&peer.says(&auth("PLAIN", b""))), "malformed-request");
    let said = peer.says("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>");
    assert_eq!(said, "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></challenge>");
    let response = plain("juliet", PASSWORD).replace("auth", "response").replace(" mechanism='PLAIN'", "");
    assert!(peer.says(&response).contains("<success"));
}

#[test]
fn an_abort_is_answered_with_aborted() {
    let mut peer = Peer::new(config()).open();
    peer.says(&auth("SCRAM-SHA-1", SCRAM_256.first().as_bytes()));
    assert_eq!(failure(&peer.says("<abort xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>")), "aborted");
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
}

#[test]
fn a_second_auth_discards_the_first() {
    let mut peer = Peer::new(config()).open();
    peer.says(&auth("SCRAM-SHA-1", SCRAM_256.first().as_bytes()));
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
}

#[test]
fn a_response_without_a_handshake_is_malformed() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>AAAA</response>");
    assert_eq!(failure(&said), "malformed-request");
}

#[test]
fn the_third_failure_ends_the_stream() {
    let mut peer = Peer::new(config()).open();
    peer.says(&plain("juliet", "1"));
    peer.says(&plain("juliet", "2"));
    assert_eq!(peer.fault, None);
    let said = peer.says(&plain("juliet", "3"));
    assert_eq!(failure(&said), "not-authorized");
    assert!(said.contains("<policy-violation "), "{said}");
    assert_eq!(peer.last(), "AuthFailed not-authorized", "the house hears of the last one too");
}

#[test]
fn handshakes_that_are_only_begun_are_counted() {
    let mut peer = Peer::new(config()).open();
    let first = auth("SCRAM-SHA-1", SCRAM_256.first().as_bytes());
    for _ in 0..3 {
        peer.says(&first);
        assert_eq!(peer.fault, None);
    }
    peer.says(&first);
    assert_eq!(peer.condition(), "policy-violation");
}

#[test]
fn row_22_mechanisms_that_were_not_offered_are_refused() {
    let all = [
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-1",
        "PLAIN",
        "EXTERNAL",
        "ANONYMOUS",
        "HT-SHA-256-NONE",
        "HT-SHA-256-EXPR",
        "HT-SHA-256-ENDP",
        "SCRAM-SHA-512",
        "DIGEST-MD5",
        "plain",
        "",
    ];
    let offered = [Mechanism::ScramSha256];
    for name in all.into_iter().filter(|name| *name != "SCRAM-SHA-256") {
        let mut peer = Peer::with_tls(with(&offered), certificate(&[JULIET], true)).open();
        let condition = failure(&peer.says(&auth(name, b"\0juliet\0r0m30myr0m30")));
        assert!(["invalid-mechanism", "mechanism-too-weak"].contains(&condition.as_str()), "{name}: {condition}");
        assert!(!peer.events.iter().any(|event| event.starts_with("Lookup")), "{name}");

        let mut peer = Peer::with_tls(with(&offered), certificate(&[JULIET], true)).open();
        let condition = failure(&peer.says(&authenticate(name, b"\0juliet\0r0m30myr0m30", "")));
        assert!(["invalid-mechanism", "mechanism-too-weak"].contains(&condition.as_str()), "{name}: {condition}");
    }
}

#[test]
fn anonymous_gives_a_random_name_that_cannot_be_chosen() {
    let config = with(&[Mechanism::Anonymous]);
    let mut peer = Peer::new(config.clone()).open();
    assert!(peer.says(&auth("ANONYMOUS", b"sirhc")).contains("<success"));
    let account = peer.stream.account().expect("the client is authenticated").clone();
    assert_eq!(account.local().map(str::len), Some(32));
    assert_eq!(account.domain(), HOST);

    let mut peer = Peer::new(config).open();
    assert_eq!(failure(&peer.says(&auth("ANONYMOUS", "x".repeat(256).as_bytes()))), "malformed-request");
}

#[test]
fn external_takes_the_one_address_of_the_certificate() {
    let config = || with(&[Mechanism::External, Mechanism::Plain]);
    for message in ["", JULIET, "JULIET@capulet.example"] {
        let mut peer = Peer::with_tls(config(), certificate(&[JULIET, "juliet@elsewhere.example"], true)).open();
        assert!(peer.says(&auth("EXTERNAL", message.as_bytes())).contains("<success"), "{message}");
        assert_eq!(peer.last(), "Authenticated juliet@capulet.example EXTERNAL");
    }
}

#[test]
fn external_with_several_addresses_must_say_which() {
    let mut config = with(&[Mechanism::External]);
    config.downgrade_protection = false;
    let mut peer = Peer::with_tls(config, certificate(&["romeo@capulet.example", JULIET], true)).open();
    assert_eq!(failure(&peer.says(&auth("EXTERNAL", b""))), "invalid-authzid");
    assert!(peer.says(&auth("EXTERNAL", JULIET.as_bytes())).contains("<success"));
}

#[test]
fn row_1_external_is_for_nobody_else() {
    let peer = || Peer::with_tls(with(&[Mechanism::External]), certificate(&[JULIET], true)).open();
    for authzid in ["romeo@capulet.example", "juliet@elsewhere.example", "juliet@capulet.example/x", "capulet.example"]
    {
        assert_eq!(failure(&peer().says(&auth("EXTERNAL", authzid.as_bytes()))), "invalid-authzid", "{authzid}");
    }
    let mut peer = peer();
    peer.accounts.clear();
    assert_eq!(failure(&peer.says(&auth("EXTERNAL", b""))), "not-authorized");
}

#[test]
fn external_is_only_offered_with_a_valid_certificate_that_names_an_address() {
    let offers = |info| {
        let mut peer = Peer::with_tls(with(&[Mechanism::External, Mechanism::Plain]), info);
        peer.says(HEADER).contains("<mechanism>EXTERNAL</mechanism>")
    };
    assert!(offers(certificate(&[JULIET], true)));
    assert!(!offers(certificate(&[JULIET], false)));
    assert!(!offers(certificate(&[], true)));
    assert!(!offers(tls()));
}

#[test]
fn an_account_with_keys_for_the_older_hash_alone_can_use_plain() {
    let mut peer = Peer::new(config()).open();
    let juliet = peer.accounts.get_mut(&jid(JULIET)).expect("juliet has an account");
    *juliet = Account { scram_sha256: None, ..juliet.clone() };
    assert!(peer.says(&plain("juliet", PASSWORD)).contains("<success"));
}

#[test]
fn after_success_there_is_no_second_authentication() {
    let mut peer = Peer::new(config()).authenticated();
    peer.says(&plain("juliet", PASSWORD));
    assert_eq!(peer.condition(), "unsupported-stanza-type");
}
