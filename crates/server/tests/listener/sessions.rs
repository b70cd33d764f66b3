//! Binding and what a session may ask its server. RFC 6120 §7, RFC 3921 §3, XEP-0352.

use crate::client::{Client, attribute, between};
use crate::server::{Server, eventually};
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "
[host.\"localhost\"]
[host.\"rename.localhost\"]
resource_conflict = \"rename\"
[host.\"refuse.localhost\"]
resource_conflict = \"refuse\"
[host.\"quiet.localhost\"]
presence = false
[host.\"mute.localhost\"]
messages = false
[limits]
rates = false
sessions_per_account_max = 3
",
    )
});

const BIND: &str = "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>";

fn bound(host: &str, user: &str, resource: &str) -> Client {
    let (mut client, _) = Client::authenticated(&SERVER, user, host);
    client.bind(resource);
    client
}

#[test]
fn a_client_that_names_no_resource_is_given_one() {
    let (mut client, _) = Client::authenticated(&SERVER, "nameless", "localhost");
    client.send("<iq type='set' id='b1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    let heard = client.expect("</iq>");
    assert_eq!(attribute(&heard, "id"), "b1");
    let jid = between(&heard, "<jid>", "</jid>");
    assert!(jid.strip_prefix("nameless@localhost/").is_some_and(|resource| resource.len() >= 8), "{jid}");
}

#[test]
fn a_resource_that_cannot_be_one_is_a_bad_request_and_may_be_tried_again() {
    let (mut client, _) = Client::authenticated(&SERVER, "tries", "localhost");
    let long = "x".repeat(1_024);
    client.send(format!("<iq type='set' id='b1'>{BIND}<resource>{long}</resource></bind></iq>"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='error'") && heard.contains("<bad-request "), "{heard}");
    client.bind("good");
    assert_eq!(client.jid, "tries@localhost/good");
}

#[test]
fn binding_again_and_again_ends_the_stream() {
    let (mut client, _) = Client::authenticated(&SERVER, "again", "localhost");
    let long = "x".repeat(1_024);
    client.send(format!("<iq type='set' id='b1'>{BIND}<resource>{long}</resource></bind></iq>").repeat(10));
    client.expect_error("policy-violation");
}

#[test]
fn by_default_the_new_session_replaces_the_old_one() {
    let mut old = bound("localhost", "replace", "here");
    let mut new = bound("localhost", "replace", "here");
    assert_eq!(new.jid, "replace@localhost/here");
    old.expect_error("conflict");
    assert_eq!(new.sync(), "");
}

#[test]
fn where_the_host_renames_both_sessions_live() {
    let mut old = bound("rename.localhost", "renamed", "here");
    let mut new = bound("rename.localhost", "renamed", "here");
    assert_eq!(old.jid, "renamed@rename.localhost/here");
    assert_ne!(new.jid, old.jid);
    assert!(new.jid.starts_with("renamed@rename.localhost/"), "{}", new.jid);
    assert_eq!((old.sync(), new.sync()), (String::new(), String::new()));
}

#[test]
fn where_the_host_refuses_the_new_one_hears_conflict() {
    let mut old = bound("refuse.localhost", "refused", "here");
    let (mut new, _) = Client::authenticated(&SERVER, "refused", "refuse.localhost");
    new.send(format!("<iq type='set' id='b1'>{BIND}<resource>here</resource></bind></iq>"));
    let heard = new.expect("</iq>");
    assert!(heard.contains("type='error'") && heard.contains("<conflict "), "{heard}");
    new.bind("elsewhere");
    assert_eq!((old.sync(), new.sync()), (String::new(), String::new()));
}

#[test]
fn one_session_too_many_is_told_resource_constraint() {
    let mut three: Vec<Client> = ["a", "b", "c"].map(|resource| bound("localhost", "many", resource)).into();
    let (mut fourth, _) = Client::authenticated(&SERVER, "many", "localhost");
    fourth.send(format!("<iq type='set' id='b1'>{BIND}<resource>d</resource></bind></iq>"));
    let heard = fourth.expect("</iq>");
    assert!(heard.contains("type='error'") && heard.contains("<resource-constraint "), "{heard}");
    for client in &mut three {
        assert_eq!(client.sync(), "");
    }
    three.pop().unwrap().send("</stream:stream>");
    eventually("a place is free", || SERVER.sessions("many@localhost").len() == 2);
    fourth.bind("d");
}

#[test]
fn the_oldest_hibernated_session_makes_place_for_a_new_one() {
    for resource in ["a", "b", "c"] {
        let mut client = bound("localhost", "sleepy", resource);
        client.manage();
        drop(client);
        let jid = format!("sleepy@localhost/{resource}");
        eventually("it sleeps", || {
            SERVER.sessions("sleepy@localhost").iter().any(|(it, state)| *it == jid && state == "suspended")
        });
    }
    let mut fourth = bound("localhost", "sleepy", "d");
    assert_eq!(fourth.sync(), "");
    let sessions = SERVER.sessions("sleepy@localhost");
    assert!(!sessions.iter().any(|(jid, _)| jid.ends_with("/a")) && sessions.len() == 3, "{sessions:?}");
}

#[test]
fn nothing_but_binding_is_taken_before_it() {
    for stanza in [
        "<message to='a@localhost'><body>x</body></message>",
        "<presence/>",
        "<presence to='a@localhost' type='subscribe'/>",
        "<iq type='get' id='e' to='a@localhost'><query xmlns='jabber:iq:roster'/></iq>",
        "<iq type='result' id='e'/>",
    ] {
        let (mut client, _) = Client::authenticated(&SERVER, "early", "localhost");
        client.send(stanza);
        client.expect_error("not-authorized");
    }
    // What the server itself is asked is refused alone.
    let (mut client, _) = Client::authenticated(&SERVER, "early", "localhost");
    for asked in ["<query xmlns='jabber:iq:roster'/>", "<ping xmlns='urn:xmpp:ping'/>"] {
        client.send(format!("<iq type='get' id='e'>{asked}</iq>"));
        let refused = client.expect("</iq>");
        assert!(refused.contains("type='error'") && refused.contains("<not-authorized "), "{refused}");
    }
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    client.expect("<jid>early@localhost/");
}

#[test]
fn the_session_request_of_rfc_3921_is_answered_with_nothing() {
    let mut client = bound("localhost", "legacy", "here");
    client.send("<iq type='set' id='s1'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq>");
    let heard = client.expect(">");
    assert!(heard.contains("type='result'") && heard.contains("id='s1'"), "{heard}");
    client.manage();
    client.send(
        "<iq type='set' id='s2'><session xmlns='urn:ietf:params:xml:ns:xmpp-session'/></iq><r xmlns='urn:xmpp:sm:3'/>",
    );
    assert!(client.expect("<a xmlns='urn:xmpp:sm:3' h='1'/>").contains("id='s2'"));
}

#[test]
fn a_second_binding_on_a_bound_stream_is_refused() {
    let mut client = bound("localhost", "twice", "here");
    client.send(format!("<iq type='set' id='b2'>{BIND}<resource>other</resource></bind></iq>"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='error'"), "{heard}");
    assert_eq!(client.sync(), "");
}

#[test]
fn requests_are_answered_in_their_order_also_where_the_disk_is_waited_for() {
    let mut client = bound("localhost", "orderly", "here");
    for _ in 0..5 {
        client.send(
            "<iq type='set' id='o1'><vCard xmlns='vcard-temp'><FN>x</FN></vCard></iq>\
             <iq type='set' id='o2'><query xmlns='jabber:iq:private'><n xmlns='urn:n'/></query></iq>\
             <iq type='get' id='o3'><vCard xmlns='vcard-temp'/></iq>\
             <iq type='set' id='o4'><query xmlns='jabber:iq:roster'><item jid='a@localhost'/></query></iq>\
             <iq type='get' id='o5'><query xmlns='jabber:iq:private'><n xmlns='urn:n'/></query></iq>\
             <iq type='get' id='o6'><query xmlns='jabber:iq:version'/></iq>",
        );
        let heard = client.sync();
        let at: Vec<_> =
            (1..=6).map(|n| heard.find(&format!("id='o{n}'")).unwrap_or_else(|| panic!("o{n} in {heard}"))).collect();
        assert!(at.is_sorted(), "{heard}");
    }
}

#[test]
fn client_state_is_taken_without_a_word() {
    let mut client = bound("localhost", "state", "here");
    client.send("<presence/><inactive xmlns='urn:xmpp:csi:0'/><active xmlns='urn:xmpp:csi:0'/>");
    client.sync();
    assert_eq!(client.sync(), "");
}

// RFC 6120 §6.5.2.
#[test]
fn a_disabled_account_ends_its_streams_and_is_told_so_at_login() {
    let mut client = bound("localhost", "banned", "here");
    let ask = |disabled: bool| {
        let request = serde_json::json!({"do": "user-disable", "jid": "banned@localhost", "disabled": disabled});
        assert_eq!(SERVER.ask(&request)["is"], "done");
    };
    ask(true);
    client.expect_error("not-authorized");
    let log_in = || {
        let mut client = Client::connect(SERVER.plain);
        client.open("localhost");
        client.scram("SCRAM-SHA-1", "banned", "banned", ("n,,", b"")).map(drop)
    };
    assert_eq!(log_in(), Err("account-disabled".into()));
    // Who does not know the password learns nothing.
    let mut stranger = Client::connect(SERVER.plain);
    stranger.open("localhost");
    assert_eq!(stranger.scram("SCRAM-SHA-1", "banned", "guess", ("n,,", b"")).map(drop), Err("not-authorized".into()));
    ask(false);
    assert_eq!(log_in(), Ok(()));
}

#[test]
fn a_removed_account_ends_its_streams() {
    let mut client = bound("localhost", "removed", "here");
    let answer = SERVER.ask(&serde_json::json!({"do": "user-del", "jid": "removed@localhost"}));
    assert_eq!(answer["is"], "done");
    client.expect_error("not-authorized");
}

#[test]
fn a_service_that_the_host_switched_off_says_so() {
    let mut client = bound("quiet.localhost", "shy", "here");
    client.send("<presence to='a@quiet.localhost' type='subscribe' id='p'/>");
    assert!(client.expect("</presence>").contains("<service-unavailable "));
    client.send("<message to='shy@quiet.localhost/here'><body>but this</body></message>");
    client.expect("<body>but this</body>");
    let mut client = bound("mute.localhost", "mute", "here");
    client.send("<message to='mute@mute.localhost/here' id='m'><body>not this</body></message>");
    assert!(client.expect("</message>").contains("<service-unavailable "));
}
