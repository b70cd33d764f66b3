//! What another server may do on its stream to us, and what not.

use crate::harness::*;
use std::collections::BTreeSet;
use stream::{ServerConfig, Tls, Verdict};
use xmpp::StanzaCondition;

const BOTH: &str = "montague.example to capulet.example";

#[test]
fn in_clear_only_starttls_is_offered_and_taken() {
    let required = || In::with(ServerConfig { tls: Tls::Required, ..config() });
    let mut side = required();
    let features = side.says(HEADER);
    assert!(features.contains("<required/></starttls></stream:features>"), "{features}");
    let answer = side.says(&result(THERE, HERE, "key"));
    assert!(answer.contains("type='error'") && answer.contains("<policy-violation"), "{answer}");
    assert_eq!(side.says(STARTTLS), "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    assert_eq!(side.events, ["starttls"]);

    for early in [message("romeo@montague.example", "juliet@capulet.example"), external(THERE)] {
        let mut side = required();
        side.says(HEADER);
        let answer = side.says(&early);
        assert!(side.stream.pairs().next().is_none() && !answer.contains("<success"), "{answer}");
    }
}

#[test]
fn bytes_behind_starttls_are_fatal() {
    let mut side = In::with(ServerConfig { tls: Tls::Required, ..config() });
    side.says(HEADER);
    let answer = side.says(&format!("{STARTTLS}{}", result(THERE, HERE, "key")));
    assert!(side.fault.is_some() && !answer.contains("<proceed"), "{answer}");
}

#[test]
fn external_is_offered_only_to_whom_the_certificate_names() {
    let mut named = In::encrypted(certificate(THERE));
    assert!(named.says(HEADER).contains("<mechanism>EXTERNAL</mechanism>"));
    for other in [certificate("verona.example"), certificate("sub.montague.example"), None] {
        let mut side = In::encrypted(other);
        assert!(!side.says(HEADER).contains("EXTERNAL"));
        let answer = side.says(&external(THERE));
        assert!(answer.contains("<invalid-mechanism/>"), "{answer}");
        assert!(side.stream.pairs().next().is_none());
    }
}

#[test]
fn external_authenticates_exactly_the_pair_of_the_header() {
    let mut side = In::open(certificate(THERE));
    assert!(side.says(&external(THERE)).contains(SUCCESS));
    assert_eq!(side.events, [format!("external {BOTH}"), format!("authenticated {BOTH}")]);
    let features = side.says(HEADER);
    assert!(features.contains("id=") && !features.contains("EXTERNAL"), "{features}");
    side.says(&message("romeo@montague.example/x", "juliet@capulet.example"));
    assert_eq!(side.events.last().expect("a stanza"), "stanza from romeo@montague.example/x");
    let answer = side.says(&message("romeo@montague.example", "benvolio@verona.example"));
    assert!(answer.contains("<invalid-from"), "{answer}");
}

#[test]
fn external_without_initial_response_is_challenged() {
    let mut side = In::open(certificate(THERE));
    let challenge = side.says("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='EXTERNAL'/>");
    assert_eq!(challenge, "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'></challenge>");
    let success = side.says("<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>=</response>");
    assert!(success.contains(SUCCESS), "{success}");
}

#[test]
fn another_identity_than_the_header_s_is_refused_and_after_three_times_the_stream_ends() {
    let mut side = In::open(certificate(THERE));
    for _ in 0..2 {
        let answer = side.says(&external("verona.example"));
        assert!(answer.contains("<invalid-authzid/>"), "{answer}");
    }
    side.says(&external("verona.example"));
    assert!(side.fault.is_some());
}

#[test]
fn after_external_the_header_must_name_the_same_pair() {
    let mut side = In::open(certificate(THERE));
    side.says(&external(THERE));
    let other = HEADER.replace("montague", "escalus");
    assert!(side.says(&other).contains("<invalid-from"));
}

#[test]
fn a_key_that_is_good_opens_the_pair_and_no_other() {
    let mut side = In::open(None);
    assert_eq!(side.says(&result(THERE, HERE, "key")), "");
    assert_eq!(side.events, [format!("dialback {BOTH} key false")]);
    let answer = side.judged(THERE, HERE, Verdict::Valid);
    assert_eq!(answer, "<db:result from='capulet.example' to='montague.example' type='valid'/>");
    side.says(&message("romeo@montague.example", "juliet@capulet.example"));
    assert_eq!(side.events.last().expect("a stanza"), "stanza from romeo@montague.example");
    let answer = side.says(&message("mercutio@escalus.example", "juliet@capulet.example"));
    assert!(answer.contains("<invalid-from"), "{answer}");
}

#[test]
fn a_stanza_before_the_verdict_ends_the_stream() {
    let mut side = In::open(None);
    side.says(&result(THERE, HERE, "key"));
    let answer = side.says(&message("romeo@montague.example", "juliet@capulet.example"));
    assert!(answer.contains("<not-authorized"), "{answer}");
    assert_eq!(side.judged(THERE, HERE, Verdict::Valid), "", "too late");
}

#[test]
fn a_key_that_is_not_good_opens_nothing() {
    let mut side = In::open(None);
    side.says(&result(THERE, HERE, "forged"));
    let answer = side.judged(THERE, HERE, Verdict::Invalid);
    assert_eq!(answer, "<db:result from='capulet.example' to='montague.example' type='invalid'/>");
    assert!(side.says(&message("romeo@montague.example", "juliet@capulet.example")).contains("<not-authorized"));
}

#[test]
fn what_could_not_be_judged_is_an_error_and_leaves_the_stream() {
    let mut side = In::open(None);
    side.says(&result(THERE, HERE, "key"));
    let answer = side.judged(THERE, HERE, Verdict::Error(StanzaCondition::RemoteServerTimeout));
    assert!(answer.contains("type='error'") && answer.contains("<remote-server-timeout"), "{answer}");
    side.says(&result(THERE, HERE, "key"));
    assert_eq!(side.events.len(), 2, "it may be asked again");
}

#[test]
fn a_certificate_that_names_the_sender_spares_the_call_back() {
    let mut side = In::open(certificate(THERE));
    side.says(&result(THERE, HERE, "key"));
    assert_eq!(side.events, [format!("dialback {BOTH} key true")]);
    side.says(&result("escalus.example", HERE, "key"));
    assert_eq!(side.events[1], "dialback escalus.example to capulet.example key false");
}

#[test]
fn answers_that_nobody_asked_for_end_the_stream() {
    for kind in ["valid", "invalid", "error"] {
        for name in ["result", "verify"] {
            let mut side = In::open(None);
            side.says(&result(THERE, HERE, "key"));
            let text = format!("<db:{name} from='{THERE}' to='{HERE}' id='1' type='{kind}'/>");
            let answer = side.says(&text);
            assert!(answer.contains("<stream:error>"), "{name} {kind}: {answer}");
            assert_eq!(side.judged(THERE, HERE, Verdict::Valid), "");
        }
    }
}

#[test]
fn a_verdict_for_what_was_not_asked_changes_nothing() {
    let mut side = In::open(None);
    side.says(&result(THERE, HERE, "key"));
    assert_eq!(side.judged("escalus.example", HERE, Verdict::Valid), "");
    assert_eq!(side.judged(THERE, "verona.example", Verdict::Valid), "");
    assert!(side.stream.pairs().next().is_none());
}

#[test]
fn what_was_asked_before_tls_is_forgotten() {
    let mut side = In::with(ServerConfig { tls: Tls::Optional, ..config() });
    side.says(HEADER);
    side.says(&result(THERE, HERE, "key"));
    side.says(STARTTLS);
    side.stream.tls_up(None);
    assert_eq!(side.judged(THERE, HERE, Verdict::Valid), "");
    assert!(side.stream.pairs().next().is_none());
}

#[test]
fn only_our_own_keys_are_confirmed() {
    // XEP-0185 with the secret of the test's configuration.
    let ours = {
        let mut out = Out::open(DIALBACK);
        let said = out.authenticates();
        let at = said.find('>').expect("a tag") + 1;
        said[at..].split('<').next().expect("a key").to_owned()
    };
    let verify = |from: &str, to: &str, id: &str, key: &str| {
        let mut side = In::open(None);
        side.says(&format!("<db:verify from='{from}' to='{to}' id='{id}'>{key}</db:verify>"))
    };
    let valid = verify(THERE, HERE, "D60000229F", &ours);
    assert_eq!(valid, "<db:verify from='capulet.example' to='montague.example' id='D60000229F' type='valid'/>");
    for wrong in [
        verify("escalus.example", HERE, "D60000229F", &ours),
        verify(THERE, "verona.example", "D60000229F", &ours),
        verify(THERE, HERE, "D6000022A0", &ours),
        verify(THERE, HERE, "D60000229F", &ours.replace('a', "b")),
        verify(THERE, HERE, "D60000229F", ""),
    ] {
        assert!(wrong.contains("type='invalid'"), "{wrong}");
    }
    assert!(verify(THERE, "elsewhere.example", "1", &ours).contains("<item-not-found"));
}

#[test]
fn the_ninth_key_at_once_is_too_many() {
    let mut side = In::open(None);
    for number in 0..8 {
        assert_eq!(side.says(&result(&format!("{number}.example"), HERE, "key")), "");
    }
    let answer = side.says(&result("8.example", HERE, "key"));
    assert!(answer.contains("<resource-constraint"), "{answer}");
    side.judged("3.example", HERE, Verdict::Invalid);
    assert_eq!(side.says(&result("8.example", HERE, "key")), "");
}

#[test]
fn a_domain_that_is_not_ours_is_not_found_and_the_stream_stays() {
    let mut side = In::open(None);
    let answer = side.says(&result(THERE, "elsewhere.example", "key"));
    assert!(answer.contains("from='elsewhere.example'") && answer.contains("<item-not-found"), "{answer}");
    assert!(side.fault.is_none());
}

#[test]
fn nobody_may_say_that_it_is_us() {
    let mut side = In::encrypted(certificate(HERE));
    assert!(side.says(&HEADER.replace("from='montague.example'", "from='capulet.example'")).contains("<invalid-from"));
    let mut side = In::open(certificate(HERE));
    assert!(side.says(&result(HERE, "verona.example", "key")).contains("<not-acceptable"));
}

#[test]
fn a_header_for_no_host_of_ours_is_refused() {
    let mut side = In::encrypted(None);
    assert!(side.says(&HEADER.replace("to='capulet.example'", "to='elsewhere.example'")).contains("<host-unknown"));
    let mut side = In::encrypted(None);
    assert!(side.says(&HEADER.replace("to='capulet.example'", "")).contains("<host-unknown"));
    let mut side = In::encrypted(None);
    assert!(side.says(&HEADER.replace("jabber:server'", "jabber:client'")).contains("<invalid-namespace"));
}

#[test]
fn a_stanza_that_is_none_is_for_its_sender() {
    let mut side = In::open(certificate(THERE));
    side.says(&result(THERE, HERE, "key"));
    side.judged(THERE, HERE, Verdict::Valid);
    side.says("<iq from='romeo@montague.example' to='capulet.example' type='get'/>");
    assert_eq!(side.events.last().expect("an event"), "bad stanza bad-request");
    assert!(side.fault.is_none());
}

#[test]
fn both_directions_are_had_only_when_asked_for_and_after_authentication() {
    let mut side = In::encrypted(certificate(THERE));
    assert!(side.says(HEADER).contains("<bidi xmlns='urn:xmpp:features:bidi'/>"));
    side.says("<bidi xmlns='urn:xmpp:bidi'/>");
    assert!(!side.stream.is_bidirectional());
    side.says(&external(THERE));
    assert!(side.stream.is_bidirectional());
}

/// LIMITS §2 rows 7 and 20: whatever is said in whatever order, stanzas are taken of verified pairs only.
#[test]
fn the_pairs_taken_are_exactly_the_pairs_verified() {
    let froms = ["montague.example", "escalus.example", "sub.montague.example"];
    let tos = [HERE, "verona.example", "elsewhere.example"];
    for seed in 0..400_u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        let mut draw = |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        let mut side = In::open(certificate("escalus.example"));
        let (mut asked, mut verified) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..30 {
            let pair = (froms[draw(3)], tos[draw(3)]);
            match draw(4) {
                0 => {
                    side.says(&result(pair.0, pair.1, "key"));
                    if pair.1 != "elsewhere.example" && !verified.contains(&pair) {
                        asked.insert(pair);
                    }
                }
                1 => {
                    let verdict = if draw(2) == 0 { Verdict::Valid } else { Verdict::Invalid };
                    side.judged(pair.0, pair.1, verdict);
                    if asked.remove(&pair) && verdict == Verdict::Valid {
                        verified.insert(pair);
                    }
                }
                2 if draw(10) == 0 => {
                    let stanza = message(&format!("a@{}", pair.0), &format!("b@{}", pair.1));
                    side.says(&stanza);
                    assert_eq!(side.fault.is_none(), verified.contains(&pair), "seed {seed}: {pair:?} of {verified:?}");
                    if side.fault.is_some() {
                        break;
                    }
                }
                _ => {}
            }
        }
        let had: BTreeSet<_> = side.stream.pairs().map(|pair| (&*pair.from, &*pair.to)).collect();
        assert_eq!(had, verified, "seed {seed}");
    }
}
