//! SASL2 (XEP-0388) with Bind 2 (XEP-0386) and stream management inline (XEP-0198 §9).

use crate::harness::*;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use xmpp::StanzaCondition;

const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'><software>AwesomeXMPP</software>\
    <device>Kiva&apos;s Phone</device></user-agent>";
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>Awesome</tag></bind>";

fn bind_all() -> &'static str {
    "<bind xmlns='urn:xmpp:bind:0'><tag>Awesome</tag><enable xmlns='urn:xmpp:carbons:2'/>\
     <enable xmlns='urn:xmpp:sm:3' resume='true'/><inactive xmlns='urn:xmpp:csi:0'/></bind>"
}

#[test]
fn it_is_offered_with_what_can_be_had_inline() {
    let said = Peer::new(config()).says(HEADER);
    assert!(
        said.contains(
            "<authentication xmlns='urn:xmpp:sasl:2'><mechanism>SCRAM-SHA-256-PLUS</mechanism>\
         <mechanism>SCRAM-SHA-1-PLUS</mechanism><mechanism>SCRAM-SHA-256</mechanism><mechanism>SCRAM-SHA-1</mechanism>\
         <mechanism>PLAIN</mechanism><inline><sm xmlns='urn:xmpp:sm:3'/><bind xmlns='urn:xmpp:bind:0'><inline>\
         <feature var='urn:xmpp:carbons:2'/><feature var='urn:xmpp:csi:0'/><feature var='urn:xmpp:sm:3'/></inline>\
         </bind><fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-EXPR</mechanism>\
         <mechanism>HT-SHA-256-ENDP</mechanism><mechanism>HT-SHA-256-NONE</mechanism></fast></inline></authentication>"
        ),
        "{said}"
    );
    let mut without = config();
    host(&mut without).sasl2 = false;
    assert!(!Peer::new(without).says(HEADER).contains("urn:xmpp:sasl:2"));
}

#[test]
fn without_inline_requests_features_follow_the_success_and_no_restart() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(""));
    assert!(said.starts_with(
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>juliet@capulet.example</authorization-identifier>\
         </success><stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>"
    ), "{said}");
    peer.bound_here();
}

// XEP-0388 §2.4.
#[test]
fn white_space_while_a_client_authenticates_ends_the_stream() {
    for space in [" ", "\t", "\r\n", "\n "] {
        let mut peer = Peer::new(config()).open();
        let said = peer.says("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>");
        assert!(said.starts_with("<challenge "), "{said}");
        assert!(peer.says(space).contains("<not-authorized "), "{space:?}");
    }
    // Before and after there may be some, as on any stream.
    let mut peer = Peer::new(config()).open();
    peer.says(" \n ");
    let said = peer.says(&(authenticate_plain("") + "\n"));
    assert!(said.contains("<success "), "{said}");
    peer.says(" ");
    peer.bound_here();
}

// go-xmpp does so.
#[test]
fn a_line_that_ends_with_an_element_of_the_exchange_is_dropped() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&(authenticate("SCRAM-SHA-256", SCRAM_256.first().as_bytes(), BIND) + "\n"));
    assert!(said.starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"), "{said}");
    assert_eq!(peer.fault, None);
}

#[test]
fn scram_sends_its_signature_as_additional_data() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate("SCRAM-SHA-256", SCRAM_256.first().as_bytes(), BIND));
    assert!(said.starts_with("<challenge xmlns='urn:xmpp:sasl:2'>"), "{said}");
    let challenge = text(STANDARD.decode(inner(&said, "challenge").expect("a challenge comes")).expect("base64"));
    let last = STANDARD.encode(SCRAM_256.last(&*peer.crypto, &challenge));
    let said = peer.says(&format!("<response xmlns='urn:xmpp:sasl:2'>{last}</response>"));
    let data = inner(&said, "additional-data").expect("the success has data");
    assert!(text(STANDARD.decode(data).expect("base64")).starts_with("v="));
    assert!(said.contains("<bound xmlns='urn:xmpp:bind:0'></bound></success>"), "{said}");
}

#[test]
fn everything_is_done_in_one_round() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(&format!("{AGENT}{}", bind_all())));
    let full = peer.stream.jid().expect("the client is bound").to_string();
    let id = full.strip_prefix("juliet@capulet.example/Awesome/").expect("the tag stands first");
    assert_eq!(id.len(), 12);
    assert!(
        said.starts_with(&format!(
            "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>{full}</authorization-identifier>\
         <bound xmlns='urn:xmpp:bind:0'><enabled xmlns='urn:xmpp:sm:3' id='sm-1' resume='true' max='300'/></bound>\
         </success><stream:features><csi xmlns='urn:xmpp:csi:0'/>"
        )),
        "{said}"
    );
    assert_eq!(
        peer.last(),
        format!(
            "Bind Awesome/{id} client=d4565fa7-4d72-4749-b3d3-740edbf87770 carbons=true inactive=true management=true"
        )
    );
    peer.says("<presence/>");
    assert!(peer.last().starts_with("Stanza <presence"));
    assert!(peer.stream.is_managed());
}

#[test]
fn one_installation_has_the_same_resource_each_time_and_others_have_others() {
    let resource = |inside: &str| {
        let mut peer = Peer::new(config()).open();
        peer.says(&authenticate_plain(&format!("{inside}{BIND}")));
        peer.stream.jid().expect("the client is bound").to_string()
    };
    let other = AGENT.replace("d4565fa7", "e4565fa7");
    assert_eq!(resource(AGENT), resource(AGENT));
    assert_ne!(resource(AGENT), resource(&other));
    assert!(!resource(AGENT).contains("d4565fa7"));
    assert_ne!(resource(AGENT), resource(""));
}

#[test]
fn a_tag_that_cannot_be_a_resource_is_left_out() {
    for tag in ["a&#x9;b".to_owned(), "x".repeat(300), String::new()] {
        let mut peer = Peer::new(config()).open();
        peer.says(&authenticate_plain(&format!("<bind xmlns='urn:xmpp:bind:0'><tag>{tag}</tag></bind>")));
        let jid = peer.stream.jid().expect("the client is bound");
        assert_eq!(jid.resource_str().len(), 12, "{tag}");
    }
}

#[test]
fn management_that_the_house_does_not_grant_is_failed() {
    let mut peer = Peer::new(config()).open();
    peer.bind = Ok(None);
    let said = peer.says(&authenticate_plain(bind_all()));
    assert!(
        said.contains(
            "<bound xmlns='urn:xmpp:bind:0'><failed xmlns='urn:xmpp:sm:3'><internal-server-error \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed></bound>"
        ),
        "{said}"
    );
    assert!(said.contains("<stream:features><sm xmlns='urn:xmpp:sm:3'/>"), "{said}");
}

#[test]
fn a_session_is_resumed_inline_and_then_no_features_follow() {
    let mut peer = Peer::new(config()).open();
    peer.resumable.push(("sm-1".into(), "balcony".into(), 345));
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='sm-1' h='7'/>";
    let said = peer.says(&authenticate_plain(&format!("{resume}{}", bind_all())));
    assert_eq!(
        said,
        "<success xmlns='urn:xmpp:sasl:2'><authorization-identifier>juliet@capulet.example/balcony\
         </authorization-identifier><resumed xmlns='urn:xmpp:sm:3' h='345' previd='sm-1'/></success>"
    );
    assert_eq!(peer.last(), "Resume sm-1 h=7", "no bind is asked for");
}

#[test]
fn a_failed_resumption_goes_on_with_the_bind() {
    let mut peer = Peer::new(config()).open();
    let resume = "<resume xmlns='urn:xmpp:sm:3' previd='gone' h='7'/>";
    let said = peer.says(&authenticate_plain(&format!("{resume}{BIND}")));
    assert!(
        said.contains(
            "</authorization-identifier><failed xmlns='urn:xmpp:sm:3' h='3'><item-not-found \
         xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed><bound xmlns='urn:xmpp:bind:0'></bound></success>"
        ),
        "{said}"
    );
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate_plain(resume));
    assert!(said.contains("</failed></success><stream:features><bind "), "{said}");
}

#[test]
fn nothing_inline_is_done_when_authentication_fails() {
    let mut peer = Peer::new(config()).open();
    let said = peer.says(&authenticate("PLAIN", b"\0juliet\0wrong", bind_all()));
    assert_eq!(
        said,
        "<failure xmlns='urn:xmpp:sasl:2'><not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    );
    assert!(!peer.events.iter().any(|event| event.starts_with("Bind")));
    assert!(peer.says(&authenticate_plain("")).contains("<success"), "the client may try again");
}

#[test]
fn a_bind_that_is_refused_fails_the_authentication() {
    let mut peer = Peer::new(config()).open();
    peer.bind = Err(StanzaCondition::ResourceConstraint);
    let said = peer.says(&authenticate_plain(BIND));
    assert_eq!(
        said,
        "<failure xmlns='urn:xmpp:sasl:2'><temporary-auth-failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>\
         <resource-constraint xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failure>"
    );
    assert!(!peer.stream.is_authenticated());
    peer.says("<presence/>");
    assert_eq!(peer.condition(), "not-authorized");
}

#[test]
fn anything_else_during_authentication_ends_the_stream() {
    let begin = authenticate("SCRAM-SHA-256", SCRAM_256.first().as_bytes(), "");
    for other in [
        begin.clone(),
        plain("juliet", PASSWORD),
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>".into(),
        "<r xmlns='urn:xmpp:sm:3'/>".into(),
    ] {
        let mut peer = Peer::new(config()).open();
        peer.says(&begin);
        peer.says(&other);
        assert!(peer.fault.is_some(), "{other}");
    }
}

#[test]
fn an_abort_keeps_the_stream() {
    let mut peer = Peer::new(config()).open();
    peer.says(&authenticate("SCRAM-SHA-256", SCRAM_256.first().as_bytes(), ""));
    let said = peer.says("<abort xmlns='urn:xmpp:sasl:2'><text>changed my mind</text></abort>");
    assert_eq!(failure(&said), "aborted");
    assert!(peer.says(&authenticate_plain("")).contains("<success"));
}

#[test]
fn after_success_a_second_authenticate_is_a_stream_error() {
    for inside in ["", BIND] {
        let mut peer = Peer::new(config()).open();
        peer.says(&authenticate_plain(inside));
        peer.says(&authenticate_plain(""));
        assert!(peer.fault.is_some(), "{inside}");
    }
}

#[test]
fn limits_after_authentication_hold_after_the_success() {
    let mut peer = Peer::new(config()).open();
    peer.says(&authenticate_plain(BIND));
    peer.says(&format!("<message><body>{}</body></message>", "x".repeat(50_000)));
    assert_eq!(peer.fault, None);
}

#[test]
fn an_empty_initial_response_is_one() {
    let mut peer = Peer::with_tls(
        {
            let mut config = config();
            host(&mut config).mechanisms = vec![stream::Mechanism::External];
            config
        },
        certificate(&[JULIET], true),
    )
    .open();
    let said =
        peer.says("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='EXTERNAL'><initial-response/></authenticate>");
    assert!(said.contains("<authorization-identifier>juliet@capulet.example</authorization-identifier>"), "{said}");
}
