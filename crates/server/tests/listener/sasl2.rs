//! SASL2 with what it carries: Bind 2, stream management, tokens. XEP-0388, XEP-0386, XEP-0198 §9, XEP-0484.

use crate::client::{Client, Scram, attribute, b64, between, condition, plain, unb64};
use crate::server::{Server, eventually};
use aws_lc_rs::hmac;
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("[limits]\nrates = false\n"));

const EXPRESSION: &str = "HT-SHA-256-EXPR";

/// A client under TLS at the features.
fn connected() -> Client {
    let mut client = Client::direct(&SERVER);
    client.open("localhost");
    client
}

fn agent(id: &str) -> String {
    format!("<user-agent id='{id}'><software>tests</software><device>bench</device></user-agent>")
}

/// `<authenticate/>` with PLAIN; the user's password is the name.
fn by_password(user: &str, more: &str) -> String {
    SERVER.ensure(&format!("{user}@localhost"));
    let initial = plain("", user, user);
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{initial}</initial-response>{more}</authenticate>"
    )
}

/// `<authenticate/>` with a token, bound to the client's connection.
fn by_token(client: &Client, user: &str, token: &str, fast: &str, more: &str) -> String {
    let bound = client.exporter();
    let key = hmac::Key::new(hmac::HMAC_SHA256, token.as_bytes());
    let hashed = hmac::sign(&key, &[&b"Initiator"[..], &bound].concat());
    let initial = b64([user.as_bytes(), b"\0", hashed.as_ref()].concat());
    format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{EXPRESSION}'><initial-response>{initial}</initial-response>{fast}{more}</authenticate>"
    )
}

const FAST: &str = "<fast xmlns='urn:xmpp:fast:0'/>";

fn asks_for_token() -> String {
    format!("<request-token xmlns='urn:xmpp:fast:0' mechanism='{EXPRESSION}'/>")
}

/// The success, or the failure's condition.
#[track_caller]
fn outcome(client: &mut Client, request: &str) -> Result<String, String> {
    client.send(request);
    let start = client.expect("<success xmlns='urn:xmpp:sasl:2'>|<failure xmlns='urn:xmpp:sasl:2'>");
    if start.contains("<success ") {
        Ok(start + &client.expect("</success>"))
    } else {
        Err(condition(&(start + &client.expect("</failure>"))))
    }
}

#[track_caller]
fn token_of(success: &str) -> String {
    let token = between(success, "<token xmlns='urn:xmpp:fast:0'", "/>");
    assert!(attribute(token, "expiry").starts_with("20"), "{token}");
    attribute(token, "token").to_owned()
}

#[test]
fn scram_in_sasl2_tells_the_identity_and_its_own_proof() {
    SERVER.ensure("scram@localhost");
    let mut client = connected();
    let bound = client.exporter();
    let mut scram = Scram::new("SCRAM-SHA-256-PLUS", "scram", "scram", ("p=tls-exporter,,", &bound));
    client.send(format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256-PLUS'><initial-response>{}</initial-response></authenticate>",
        b64(scram.first())
    ));
    let challenge = client.expect_sasl().unwrap();
    client.send(format!("<response xmlns='urn:xmpp:sasl:2'>{}</response>", b64(scram.last(&challenge))));
    let success = client.expect("</success>");
    assert_eq!(unb64(between(&success, "<additional-data>", "<")), scram.server_final().as_bytes());
    assert_eq!(between(&success, "<authorization-identifier>", "<"), "scram@localhost");
    // The features come at once, without a new header. XEP-0388 §2.6.1.
    let features = client.expect("</stream:features>");
    assert!(features.starts_with("<stream:features>") && features.contains("<bind "), "{features}");
    client.bind("here");
    assert_eq!(client.jid, "scram@localhost/here");
}

#[test]
fn sasl2_is_not_offered_or_taken_in_clear() {
    let mut client = Client::connect(SERVER.plain);
    assert!(!client.open("localhost").contains("urn:xmpp:sasl:2"));
    client.send("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='SCRAM-SHA-256'/>");
    assert!(client.expect("</failure>").contains("<encryption-required "));
}

#[test]
fn bind_2_binds_with_the_success() {
    let mut client = connected();
    let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>Tests</tag></bind>";
    let success =
        outcome(&mut client, &by_password("binds", &(agent("11111111-2222-4333-8444-555555555555") + bind))).unwrap();
    let jid = between(&success, "<authorization-identifier>", "<").to_owned();
    assert!(jid.starts_with("binds@localhost/Tests"), "{jid}");
    assert!(success.contains("<bound xmlns='urn:xmpp:bind:0'"), "{success}");
    client.expect("</stream:features>");
    client.send(format!("<message to='{jid}' id='me'><body>here</body></message>"));
    assert_eq!(attribute(&client.expect("</message>"), "from"), jid);
    // The same client gets the same resource again, and the old session ends.
    let mut again = connected();
    let success =
        outcome(&mut again, &by_password("binds", &(agent("11111111-2222-4333-8444-555555555555") + bind))).unwrap();
    assert_eq!(between(&success, "<authorization-identifier>", "<"), jid);
    client.expect_error("conflict");
}

#[test]
fn bind_2_enables_management_carbons_and_client_state_inline() {
    let mut client = connected();
    let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>all</tag><enable xmlns='urn:xmpp:sm:3' resume='true'/><enable xmlns='urn:xmpp:carbons:2'/><inactive xmlns='urn:xmpp:csi:0'/></bind>";
    let success = outcome(&mut client, &by_password("inline", bind)).unwrap();
    let enabled = between(&success, "<enabled xmlns='urn:xmpp:sm:3'", "/>");
    assert_eq!(attribute(enabled, "resume"), "true");
    let features = client.expect("</stream:features>");
    assert!(!features.contains("<bind ") && !features.contains("<sm "), "bound and managed already: {features}");
    client.send("<presence/><active xmlns='urn:xmpp:csi:0'/><r xmlns='urn:xmpp:sm:3'/>");
    client.expect("<a xmlns='urn:xmpp:sm:3' h='1'/>");
    // Carbons are on: what another resource sends comes here too.
    let mut other = Client::available(&SERVER, "inline", "other");
    other.send("<message to='somebody@localhost' type='chat' id='c'><body>copied</body></message>");
    let heard = client.expect("<body>copied</body>");
    assert!(heard.contains("<sent xmlns='urn:xmpp:carbons:2'>"), "{heard}");
}

#[test]
fn a_session_is_resumed_with_the_success() {
    let mut client = connected();
    let bind = "<bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3' resume='true'/></bind>";
    let success = outcome(&mut client, &by_password("resumer", bind)).unwrap();
    let id = attribute(between(&success, "<enabled xmlns='urn:xmpp:sm:3'", "/>"), "id").to_owned();
    let jid = between(&success, "<authorization-identifier>", "<").to_owned();
    client.expect("</stream:features>");
    client.send("<presence/>");
    client.sync();
    drop(client);
    eventually("it sleeps", || SERVER.sessions("resumer@localhost").iter().any(|(_, state)| state == "suspended"));
    let mut other = Client::available(&SERVER, "caller", "r");
    other.send("<message to='resumer@localhost' type='chat'><body>missed</body></message>");
    other.sync();

    let mut client = connected();
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='1'/>");
    let success = outcome(&mut client, &by_password("resumer", &(resume + bind))).unwrap();
    assert_eq!(attribute(between(&success, "<resumed xmlns='urn:xmpp:sm:3'", "/>"), "previd"), id);
    assert_eq!(between(&success, "<authorization-identifier>", "<"), jid);
    assert!(!success.contains("<bound "), "{success}");
    client.expect("<body>missed</body>");
}

#[test]
fn where_resumption_fails_inline_binding_goes_on() {
    let mut client = connected();
    let more = "<resume xmlns='urn:xmpp:sm:3' previd='nonsense' h='0'/><bind xmlns='urn:xmpp:bind:0'><enable xmlns='urn:xmpp:sm:3'/></bind>";
    let success = outcome(&mut client, &by_password("fresh", more)).unwrap();
    assert!(success.contains("<failed xmlns='urn:xmpp:sm:3'><item-not-found "), "{success}");
    assert!(success.contains("<bound xmlns='urn:xmpp:bind:0'"), "{success}");
    client.expect("</stream:features>");
    client.sync();
}

#[test]
fn a_token_is_given_used_rotated_and_invalidated() {
    let device = agent("aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee");
    let mut client = connected();
    let success = outcome(&mut client, &by_password("fast", &(device.clone() + &asks_for_token()))).unwrap();
    let first = token_of(&success);

    // Used, and a new one asked for: the server proves that it knows it too.
    let mut client = connected();
    let request = by_token(
        &client,
        "fast",
        &first,
        "<fast xmlns='urn:xmpp:fast:0' count='1'/>",
        &(device.clone() + &asks_for_token()),
    );
    let success = outcome(&mut client, &request).unwrap();
    let key = hmac::Key::new(hmac::HMAC_SHA256, first.as_bytes());
    let proof = hmac::sign(&key, &[&b"Responder"[..], &client.exporter()].concat());
    assert_eq!(unb64(between(&success, "<additional-data>", "<")), proof.as_ref());
    let second = token_of(&success);
    assert_ne!(second, first);

    // The first is good until the second is used: the client may never have heard of it.
    let mut client = connected();
    let request = by_token(&client, "fast", &first, FAST, &device);
    let success = outcome(&mut client, &request).unwrap();
    let third = token_of(&success);
    let mut client = connected();
    let request = by_token(&client, "fast", &third, FAST, &device);
    outcome(&mut client, &request).unwrap();
    for old in [&first, &second] {
        let mut client = connected();
        let request = by_token(&client, "fast", old, FAST, &device);
        assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("not-authorized"));
    }

    // Invalidated: it was the last time.
    let mut client = connected();
    let request = by_token(&client, "fast", &third, "<fast xmlns='urn:xmpp:fast:0' invalidate='true'/>", &device);
    outcome(&mut client, &request).unwrap();
    let mut client = connected();
    let request = by_token(&client, "fast", &third, FAST, &device);
    assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("credentials-expired"));
    // The password is good on the same stream. XEP-0484 §4.2.
    outcome(&mut client, &by_password("fast", "")).unwrap();
}

#[test]
fn a_token_of_another_client_connection_or_count_is_refused() {
    let device = agent("12345678-bbbb-4ccc-8ddd-eeeeeeeeeeee");
    let mut client = connected();
    let token = token_of(&outcome(&mut client, &by_password("strict", &(device.clone() + &asks_for_token()))).unwrap());
    let refused = |request: &dyn Fn(&Client) -> String| {
        let mut client = connected();
        let request = request(&client);
        assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("not-authorized"));
    };
    refused(&|client| by_token(client, "strict", &token, FAST, &agent("another-client")));
    refused(&|client| by_token(client, "somebody", &token, FAST, &device));
    // Made on another connection, so replayed.
    let old = by_token(&client, "strict", &token, FAST, &device);
    refused(&|_| old.clone());
    let counted = "<fast xmlns='urn:xmpp:fast:0' count='5'/>";
    let mut client = connected();
    let request = by_token(&client, "strict", &token, counted, &device);
    outcome(&mut client, &request).unwrap();
    refused(&|client| by_token(client, "strict", &token, counted, &device));
}

#[test]
fn tokens_go_when_the_password_changes() {
    let device = agent("99999999-bbbb-4ccc-8ddd-eeeeeeeeeeee");
    let mut client = connected();
    let token =
        token_of(&outcome(&mut client, &by_password("changes", &(device.clone() + &asks_for_token()))).unwrap());
    let answer = SERVER.ask(&serde_json::json!({"do": "user-passwd", "jid": "changes@localhost", "password": "new"}));
    assert_eq!(answer["is"], "done");
    let mut client = connected();
    let request = by_token(&client, "changes", &token, FAST, &device);
    assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("not-authorized"));
}

// XEP-0388 §2.4: "Servers MUST disconnect Clients immediately if any other traffic is received."
#[test]
fn nothing_but_a_response_is_taken_while_a_client_authenticates() {
    for other in [
        " ",
        "\n",
        "<presence/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
    ] {
        let mut client = connected();
        client.send("<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'/>");
        client.expect("<challenge xmlns='urn:xmpp:sasl:2'");
        client.send(other);
        client.expect_error("not-authorized");
    }
}

// XEP-0388 §2.6.1, §4.
#[test]
fn who_is_authenticated_does_not_authenticate_again() {
    let mut client = connected();
    outcome(&mut client, &by_password("again", "")).unwrap();
    client.expect("</stream:features>");
    client.send(by_password("again", ""));
    client.expect_error("unsupported-stanza-type");
}

// XEP-0386 §3.2: what waits is in the archive, and is not sent.
#[test]
fn what_waited_is_left_to_the_archive_of_a_client_that_binds_with_bind_2() {
    SERVER.ensure("waited@localhost");
    let mut writer = Client::available(&SERVER, "writes", "r");
    writer.send("<message to='waited@localhost' type='chat'><body>while you were away</body></message>");
    writer.sync();
    let mut client = connected();
    outcome(&mut client, &by_password("waited", "<bind xmlns='urn:xmpp:bind:0'/>")).unwrap();
    client.expect("</stream:features>");
    client.send("<presence/>");
    let heard = client.sync() + &client.sync();
    assert!(!heard.contains("<body>"), "{heard}");
    client.send("<iq type='set' id='a'><query xmlns='urn:xmpp:mam:2'/></iq>");
    client.expect("<body>while you were away</body>");
    client.expect("<fin ");
}

// XEP-0386 §3.2.
#[test]
fn a_bind_request_counts_for_nothing_where_the_password_is_wrong() {
    SERVER.ensure("nobind@localhost");
    let mut client = connected();
    let wrong = plain("", "nobind", "wrong");
    let request = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{wrong}</initial-response><bind xmlns='urn:xmpp:bind:0'/></authenticate>"
    );
    assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("not-authorized"));
    let success = outcome(&mut client, &by_password("nobind", "")).unwrap();
    assert_eq!(between(&success, "<authorization-identifier>", "<"), "nobind@localhost");
    assert!(SERVER.sessions("nobind@localhost").is_empty());
}

#[test]
fn a_failure_leaves_the_stream_for_another_try() {
    let mut client = connected();
    let wrong = plain("", "nobody", "wrong");
    let request = format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{wrong}</initial-response></authenticate>"
    );
    assert_eq!(outcome(&mut client, &request).err().as_deref(), Some("not-authorized"));
    outcome(&mut client, &by_password("tries", "")).unwrap();
}
