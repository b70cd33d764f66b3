//! SCRAM, RFC 5802: proofs, channel binding, downgrades.

use crate::harness::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::sync::atomic::Ordering;
use stream::{Crypto, Hash, HostAuth, Mechanism};

#[test]
fn every_variant_succeeds_with_the_password() {
    for (mechanism, gs2, binding) in [
        ("SCRAM-SHA-1", "n,,", &b""[..]),
        ("SCRAM-SHA-256", "n,,", b""),
        ("SCRAM-SHA-256", "n,a=juliet@capulet.example,", b""),
        ("SCRAM-SHA-1-PLUS", "p=tls-exporter,,", &[7; 32]),
        ("SCRAM-SHA-256-PLUS", "p=tls-exporter,,", &[7; 32]),
        ("SCRAM-SHA-256-PLUS", "p=tls-server-end-point,,", &[9; 32]),
    ] {
        let mut peer = Peer::new(config()).open();
        let said = peer.scram(&Scram { mechanism, gs2, binding, ..SCRAM_256 });
        assert!(said.contains("<success"), "{mechanism} {gs2}: {said}");
        let signature = inner(&said, "success").expect("the success has data");
        let signature = text(STANDARD.decode(signature).expect("it is base64"));
        assert!(signature.starts_with("v="), "{signature}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_user_look_alike() {
    let ask = |user: &'static str, password: &'static str| {
        let mut peer = Peer::new(config()).open();
        let first = Scram { user, password, ..SCRAM_256 };
        let said = peer.says(&auth(first.mechanism, first.first().as_bytes()));
        let challenge = inner(&said, "challenge").expect("a challenge comes");
        let challenge = text(STANDARD.decode(challenge).expect("it is base64"));
        let shape: Vec<_> = challenge.split(',').map(|part| (part[..2].to_owned(), part.len())).collect();
        let said = peer.scram(&first);
        (shape, said)
    };
    let (wrong, unknown) = (ask("juliet", "wrong"), ask("nobody", PASSWORD));
    assert_eq!(failure(&wrong.1), "not-authorized");
    assert_eq!(wrong.1, unknown.1);
    // Salts of other lengths are old accounts'.
    assert_eq!(wrong.0.len(), unknown.0.len());
}

#[test]
fn an_unknown_user_has_the_same_salt_each_time_and_another_than_others() {
    let salt = |user: &'static str| {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&auth("SCRAM-SHA-256", Scram { user, ..SCRAM_256 }.first().as_bytes()));
        let challenge = text(STANDARD.decode(inner(&said, "challenge").expect("a challenge comes")).expect("base64"));
        challenge.split(',').nth(1).expect("the salt is second").to_owned()
    };
    assert_eq!(salt("nobody"), salt("nobody"));
    assert_ne!(salt("nobody"), salt("noone"));
    assert_eq!(STANDARD.decode(&salt("nobody")[2..]).map(|salt| salt.len()), Ok(16));
}

#[test]
fn row_1_an_authzid_that_names_another_is_refused_in_the_gs2_header() {
    for authzid in ["romeo@capulet.example", "admin@capulet.example", "juliet@montague.example", "juliet"] {
        let mut peer = Peer::new(config()).open();
        let gs2 = format!("n,a={authzid},");
        let said = peer.scram(&Scram { gs2: &gs2, ..SCRAM_256 });
        assert_eq!(failure(&said), "invalid-authzid", "{authzid}");
    }
}

#[test]
fn row_9_proofs_are_compared_in_constant_time() {
    let mut peer = Peer::new(config()).open();
    peer.scram(&Scram { password: "wrong", ..SCRAM_256 });
    assert_eq!(peer.crypto.comparisons.load(Ordering::Relaxed), 1);
    peer.says(&plain("juliet", "wrong"));
    assert_eq!(peer.crypto.comparisons.load(Ordering::Relaxed), 2);
}

#[test]
fn y_is_a_downgrade_when_plus_was_offered_and_fine_when_not() {
    let y = Scram { gs2: "y,,", ..SCRAM_256 };
    assert_eq!(failure(&Peer::new(config()).open().scram(&y)), "not-authorized");
    let mut config = config();
    host(&mut config).mechanisms = vec![Mechanism::ScramSha256];
    assert!(Peer::new(config).open().scram(&y).contains("<success"));
}

#[test]
fn the_channel_must_be_the_same() {
    let plus = Scram { mechanism: "SCRAM-SHA-256-PLUS", gs2: "p=tls-exporter,,", binding: &[8; 32], ..SCRAM_256 };
    assert_eq!(failure(&Peer::new(config()).open().scram(&plus)), "not-authorized");
    // The data of one type under the name of another.
    let swapped = Scram { gs2: "p=tls-server-end-point,,", binding: &[7; 32], ..plus };
    assert_eq!(failure(&Peer::new(config()).open().scram(&swapped)), "not-authorized");
}

#[test]
fn the_flag_must_fit_the_mechanism_and_the_binding_be_offered() {
    for (mechanism, gs2) in [
        ("SCRAM-SHA-256-PLUS", "n,,"),
        ("SCRAM-SHA-256-PLUS", "y,,"),
        ("SCRAM-SHA-256-PLUS", "p=tls-unique,,"),
        ("SCRAM-SHA-256", "p=tls-exporter,,"),
        ("SCRAM-SHA-256", "x,,"),
        ("SCRAM-SHA-256", ",,"),
        ("SCRAM-SHA-256", "n,b=x,"),
    ] {
        let mut peer = Peer::new(config()).open();
        let said = peer.scram(&Scram { mechanism, gs2, ..SCRAM_256 });
        assert_eq!(failure(&said), "malformed-request", "{mechanism} {gs2}");
    }
}

#[test]
fn malformed_first_messages_are_refused() {
    for first in [
        "n,,m=x,n=juliet,r=abc",
        "n,,r=abc,n=juliet",
        "n,,n=juliet",
        "n,,n=,r=abc",
        "n,,n=juliet,r=",
        "n,,n=juliet,r=a b",
        "n,,n=a=41,r=abc",
        "n=juliet,r=abc",
        "",
    ] {
        let mut peer = Peer::new(config()).open();
        assert_eq!(failure(&peer.says(&auth("SCRAM-SHA-256", first.as_bytes()))), "malformed-request", "{first}");
    }
}

#[test]
fn bent_last_messages_are_refused() {
    type Bend = fn(&str) -> String;
    let bends: [(&str, Bend); 8] = [
        ("not-authorized", |last| last.replace("r=client-nonce", "r=another-nonce")),
        ("not-authorized", |last| last.replacen(",p=", "x,p=", 1)),
        ("not-authorized", |last| last.replace("c=biws", "c=eSws")),
        ("not-authorized", |last| format!("{},p=AAAA", last.rsplit_once(",p=").expect("a proof is there").0)),
        ("malformed-request", |last| last.rsplit_once(",p=").expect("a proof is there").0.into()),
        ("malformed-request", |last| last.replace("c=", "d=")),
        ("malformed-request", |last| last.replace("c=biws", "c=biw")),
        ("malformed-request", |_| String::new()),
    ];
    for (condition, bend) in bends {
        let mut peer = Peer::new(config()).open();
        let said = peer.says(&auth("SCRAM-SHA-256", SCRAM_256.first().as_bytes()));
        let challenge = text(STANDARD.decode(inner(&said, "challenge").expect("a challenge comes")).expect("base64"));
        let last = bend(&SCRAM_256.last(&*peer.crypto, &challenge));
        let response = STANDARD.encode(&last);
        let said = peer.says(&format!("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{response}</response>"));
        assert_eq!(failure(&said), condition, "{last}");
    }
}

#[test]
fn what_was_offered_is_told_in_the_challenge() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&auth("SCRAM-SHA-256", SCRAM_256.first().as_bytes()));
    let challenge = text(STANDARD.decode(inner(&said, "challenge").expect("a challenge comes")).expect("base64"));
    let offered = "PLAIN\x1eSCRAM-SHA-1\x1eSCRAM-SHA-1-PLUS\x1eSCRAM-SHA-256\x1eSCRAM-SHA-256-PLUS\
        \x1ftls-exporter\x1etls-server-end-point";
    let digest = STANDARD.encode(peer.crypto.digest(Hash::Sha256, offered.as_bytes()));
    assert!(challenge.ends_with(&format!(",i=16,h={digest}")), "{challenge}");
}

#[test]
fn an_account_without_keys_for_the_mechanism_is_as_unknown() {
    let mut peer = Peer::new(config()).open();
    peer.accounts.get_mut(&jid(JULIET)).expect("juliet has an account").scram_sha1 = None;
    assert_eq!(failure(&peer.scram(&Scram { mechanism: "SCRAM-SHA-1", ..SCRAM_256 })), "not-authorized");
}

#[test]
fn bindings_are_announced_only_beside_mechanisms_that_bind() {
    let said = Peer::new(config()).says(HEADER);
    assert!(said.contains(
        "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-exporter'/>\
         <channel-binding type='tls-server-end-point'/></sasl-channel-binding>"
    ));
    let mut plain = config();
    *host(&mut plain) = HostAuth { mechanisms: vec![Mechanism::Plain], ..HostAuth::default() };
    assert!(!Peer::new(plain).says(HEADER).contains("sasl-cb"));
}
