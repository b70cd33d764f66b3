//! Making an account over XMPP, XEP-0077: open, closed, and not too often.

use crate::client::{Client, own_address};
use crate::server::{Server, eventually};
use std::net::IpAddr;
use std::sync::LazyLock;

/// Registration has a limit per time: rates are in force, and each test comes from its own address.
static SERVER: LazyLock<Server> = LazyLock::new(|| {
    Server::start(
        "[host.\"localhost\"]\n[host.\"open.localhost\"]\nregistration = \"open\"\n\
        [host.\"club.localhost\"]\nregistration = \"invite\"\nuser_invites = true\n\
        [admin]\naccounts = [\"boss@club.localhost\"]\n[limits]\ninvited_registrations_per_hour = 2\ninvites_per_account_max = 2\n[account_class.guest]\nroster_items_max = 1\ninvites = false\n[account_class.gone]\nexpires_days = 0\n",
    )
});

const FORM: &str = "<iq type='get' id='r1'><query xmlns='jabber:iq:register'/></iq>";

fn submit(user: &str, password: &str) -> String {
    format!(
        "<iq type='set' id='r2'><query xmlns='jabber:iq:register'><username>{user}</username><password>{password}</password></query></iq>"
    )
}

fn tls(from: IpAddr, host: &str) -> (Client, String) {
    let mut client = Client::connect_from(from, SERVER.direct);
    client.handshake(host, None);
    let features = client.open(host);
    (client, features)
}

#[test]
fn where_it_is_open_a_stranger_fills_in_the_form_and_logs_in() {
    let (mut client, features) = tls(own_address(), "open.localhost");
    assert!(features.contains("<register xmlns='http://jabber.org/features/iq-register'/>"), "{features}");
    client.send(FORM);
    let heard = client.expect("</iq>");
    assert!(heard.contains("<username/>") && heard.contains("<password/>"), "{heard}");
    client.send(submit("newcomer", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"));
    client.scram("SCRAM-SHA-256", "newcomer", "secret", ("n,,", b"")).unwrap();
    client.open("open.localhost");
    client.bind("here");
    assert_eq!(client.jid, "newcomer@open.localhost/here");
}

#[test]
fn row_43_one_address_makes_one_account_an_hour() {
    let from = own_address();
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("first", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"));
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("second", "secret"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='wait'") && heard.contains("<resource-constraint "), "{heard}");
    let (mut client, _) = tls(own_address(), "open.localhost");
    client.send(submit("second", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"), "from elsewhere");
}

#[test]
fn row_43_by_default_registration_is_closed() {
    let (mut client, features) = tls(own_address(), "localhost");
    assert!(!features.contains("iq-register"), "{features}");
    for request in [FORM.to_owned(), submit("intruder", "secret")] {
        client.send(request);
        let refused = client.expect("</iq>");
        assert!(refused.contains("type='error'") && refused.contains("<not-authorized "), "{refused}");
    }
}

#[test]
fn a_name_that_is_taken_or_impossible_costs_nothing_but_an_error() {
    SERVER.ensure("taken@open.localhost");
    let from = own_address();
    let (mut client, _) = tls(from, "open.localhost");
    client.send(submit("taken", "secret"));
    assert!(client.expect("</iq>").contains("<conflict "));
    client.send(submit("not a name", "secret"));
    assert!(client.expect("</iq>").contains("<not-acceptable "));
    client.send(submit("", "secret"));
    assert!(client.expect("</iq>").contains("<not-acceptable "));
    client.send(submit("free", "secret"));
    let heard = client.expect("</iq>");
    assert!(heard.contains("type='result'"), "a name that was taken used up no place: {heard}");
}

#[test]
fn asking_for_ever_ends_the_stream() {
    let (mut client, _) = tls(own_address(), "open.localhost");
    client.send(FORM.repeat(20));
    client.expect_error("policy-violation");
}

#[test]
fn nobody_registers_in_clear_where_tls_is_required() {
    let mut client = Client::connect(SERVER.starttls);
    assert!(!client.open("open.localhost").contains("iq-register"));
    client.send(submit("clear", "secret"));
    client.expect_error("not-authorized");
}

#[test]
fn row_24_a_password_change_names_the_sessions_own_account_alone() {
    SERVER.ensure("victim@localhost");
    let mut client = Client::session(&SERVER, "mallory", "here");
    for to in ["", " to='victim@localhost'", " to='localhost'"] {
        client.send(format!(
            "<iq type='set' id='c1'{to}><query xmlns='jabber:iq:register'><username>victim</username><password>stolen</password></query></iq>"
        ));
        let heard = client.expect("</iq>");
        assert!(heard.contains("type='error'"), "{heard}");
    }
    let mut victim = Client::session(&SERVER, "victim", "here");
    assert_eq!(victim.sync(), "", "the old password holds");
    client.send("<iq type='set' id='c2' to='localhost'><query xmlns='jabber:iq:register'><username>mallory</username><password>fresh</password></query></iq>");
    client.expect("id='c2'");
    client.sync();
    let mut again = Client::connect(SERVER.plain);
    again.open("localhost");
    again.scram("SCRAM-SHA-256", "mallory", "fresh", ("n,,", b"")).unwrap();
}

#[test]
fn who_removes_the_account_ends_its_streams() {
    let mut client = Client::session(&SERVER, "leaves", "here");
    client.send("<iq type='set' id='d1'><query xmlns='jabber:iq:register'><remove/></query></iq>");
    let heard = client.expect_end();
    assert!(
        heard.contains("id='d1'") && heard.contains("<not-authorized xmlns='urn:ietf:params:xml:ns:xmpp-streams'"),
        "{heard}"
    );
    let mut again = Client::connect(SERVER.plain);
    again.open("localhost");
    let refused = again.scram("SCRAM-SHA-256", "leaves", "leaves", ("n,,", b""));
    assert_eq!(refused.err().as_deref(), Some("not-authorized"));
}

/// Makes an invitation; gives its link and token.
fn invite(wish: serde_json::Value) -> (String, String) {
    let mut request = serde_json::json!({ "do": "invite-create" });
    request.as_object_mut().expect("an object").extend(wish.as_object().expect("an object").clone());
    let answer = SERVER.ask(&request);
    let uri = answer["uri"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
    let token = uri.split("preauth=").nth(1).and_then(|it| it.split(';').next()).expect("a token").to_owned();
    (uri, token)
}

fn preauth(token: &str) -> String {
    format!("<iq type='set' id='p1'><preauth xmlns='urn:xmpp:pars:0' token='{token}'/></iq>")
}

/// Makes an account by an invitation; gives what was answered.
fn come(from: IpAddr, token: &str, user: &str) -> (Client, String) {
    let (mut client, _) = tls(from, "club.localhost");
    client.send(preauth(token));
    assert!(client.expect("</iq>").contains("type='result'"));
    client.send(submit(user, "secret"));
    let heard = client.expect("</iq>");
    (client, heard)
}

fn log_in(client: &mut Client, user: &str) -> Result<(), String> {
    client.scram("SCRAM-SHA-256", user, "secret", ("n,,", b"")).map(|_| ())
}

/// A session of an account of the club.
fn session_at(user: &str, password: &str) -> Client {
    let mut client = Client::connect(SERVER.plain);
    client.open("club.localhost");
    client.scram("SCRAM-SHA-256", user, password, ("n,,", b"")).unwrap_or_else(|why| panic!("{user}: {why}"));
    client.open("club.localhost");
    client.bind("here");
    client
}

// XEP-0445.
#[test]
fn row_43_an_invitation_makes_one_account_and_nobody_comes_without() {
    let (uri, token) = invite(serde_json::json!({ "domain": "club.localhost" }));
    assert_eq!(uri, format!("xmpp:club.localhost?register;preauth={token}"));
    let (mut client, features) = tls(own_address(), "club.localhost");
    assert!(features.contains("<register xmlns='urn:xmpp:ibr-token:0'/>"), "{features}");
    client.send(submit("intruder", "secret"));
    assert!(client.expect("</iq>").contains("<not-allowed "));
    client.send(preauth("nonsense"));
    assert!(client.expect("</iq>").contains("<item-not-found "));
    let (mut client, heard) = come(own_address(), &token, "invited");
    assert!(heard.contains("type='result'"), "{heard}");
    log_in(&mut client, "invited").unwrap();
    let (mut client, _) = tls(own_address(), "club.localhost");
    client.send(preauth(&token));
    assert!(client.expect("</iq>").contains("<item-not-found "), "it was used");
}

#[test]
fn an_invitation_whose_registration_fails_can_be_used_again() {
    let (_, token) = invite(serde_json::json!({ "domain": "club.localhost" }));
    SERVER.ensure("taken@club.localhost");
    let (mut client, heard) = come(own_address(), &token, "taken");
    assert!(heard.contains("<conflict "), "{heard}");
    client.send(submit("not-taken", "secret"));
    assert!(client.expect("</iq>").contains("type='result'"));
}

// XEP-0401 §6.2.
#[test]
fn a_name_that_somebody_was_invited_under_is_kept_for_them() {
    let (uri, token) = invite(serde_json::json!({ "domain": "club.localhost", "username": "reserved" }));
    assert_eq!(uri, format!("xmpp:reserved@club.localhost?register;preauth={token}"));
    let (_, other) = invite(serde_json::json!({ "domain": "club.localhost" }));
    let (_, heard) = come(own_address(), &other, "reserved");
    assert!(heard.contains("<conflict "), "{heard}");
    let (_, heard) = come(own_address(), &token, "another");
    assert!(heard.contains("<not-allowed "), "{heard}");
    let (_, heard) = come(own_address(), &token, "reserved");
    assert!(heard.contains("type='result'"), "{heard}");
}

#[test]
fn row_43_tokens_cannot_be_tried_for_ever() {
    let (mut client, _) = tls(own_address(), "club.localhost");
    let before = SERVER.status()["counters"]["invitations_refused"].as_u64().unwrap_or(0);
    client.send(preauth("guess").repeat(20));
    client.expect_error("policy-violation");
    let after = SERVER.status()["counters"]["invitations_refused"].as_u64().unwrap_or(0);
    assert!(after - before >= 10, "{before} {after}");
}

// XEP-0401 §5.1, §5.5; XEP-0379.
#[test]
fn who_comes_by_a_users_link_and_the_user_are_each_others_contacts() {
    SERVER.ensure("romeo@club.localhost");
    let mut romeo = session_at("romeo", "romeo");
    romeo.send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq><presence/>");
    romeo.sync();
    romeo.send("<iq type='get' id='d1' to='club.localhost'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>");
    assert!(romeo.expect("</iq>").contains("node='urn:xmpp:invite#invite'"));
    romeo.send("<iq type='set' id='c1' to='club.localhost'><command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite' action='execute'/></iq>");
    let heard = romeo.expect("</iq>");
    assert!(heard.contains("status='completed'") && heard.contains("var='expire'"), "{heard}");
    let token = heard.split("preauth=").nth(1).and_then(|it| it.split(';').next()).expect("a token").to_owned();
    assert!(heard.contains(&format!("xmpp:romeo@club.localhost?roster;preauth={token};ibr=y")), "{heard}");
    let (_, told) = come(own_address(), &token, "friend");
    assert!(told.contains("type='result'"), "{told}");
    let push = romeo.expect("subscription='both'");
    assert!(push.contains("jid='friend@club.localhost'"), "{push}");
    let mut friend = session_at("friend", "secret");
    friend.send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>");
    let roster = friend.expect("</iq>");
    assert!(roster.contains("jid='romeo@club.localhost'") && roster.contains("subscription='both'"), "{roster}");
    friend.send("<presence/>");
    assert!(friend.expect("from='romeo@club.localhost").contains("<presence"));
}

// XEP-0401 §5.4.
#[test]
fn an_administrator_makes_an_invitation_for_an_account_by_a_form() {
    SERVER.ensure("boss@club.localhost");
    let mut boss = session_at("boss", "boss");
    boss.send("<iq type='get' id='d1' to='club.localhost'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>");
    let listed = boss.expect("</iq>");
    for node in ["urn:xmpp:invite#invite'", "urn:xmpp:invite#create-account'"] {
        assert!(listed.contains(node), "{node} in {listed}");
    }
    let command = |inside: &str| {
        format!(
            "<iq type='set' id='c1' to='club.localhost'><command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#create-account'>{inside}</command></iq>"
        )
    };
    boss.send(command(""));
    let asked = boss.expect("</iq>");
    assert!(asked.contains("status='executing'") && asked.contains("var='username'"), "{asked}");
    boss.send(command(
        "<x xmlns='jabber:x:data' type='submit'><field var='username'><value>clerk</value></field><field var='roster-subscription'><value>1</value></field></x>",
    ));
    let made = boss.expect("</iq>");
    assert!(made.contains("status='completed'") && made.contains("urn:xmpp:invite#invitation"), "{made}");
    let token = made.split("preauth=").nth(1).and_then(|it| it.split('<').next()).expect("a token").to_owned();
    assert!(made.contains(&format!("xmpp:clerk@club.localhost?register;preauth={token}</value>")), "{made}");
    let (_, heard) = come(own_address(), &token, "clerk");
    assert!(heard.contains("type='result'"), "{heard}");
    let mut clerk = session_at("clerk", "secret");
    eventually("they are contacts", || {
        clerk.send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>");
        clerk.expect("id='r1'");
        clerk.sync().contains("subscription='both'")
    });
}

#[test]
fn row_43_one_address_makes_so_many_accounts_by_invitations() {
    let (_, token) = invite(serde_json::json!({ "domain": "club.localhost", "uses": 5 }));
    let from = own_address();
    for (user, made) in [("pupil-1", true), ("pupil-2", true), ("pupil-3", false)] {
        let (_, heard) = come(from, &token, user);
        assert_eq!(heard.contains("type='result'"), made, "{heard}");
        assert_eq!(heard.contains("<resource-constraint "), !made, "{heard}");
    }
    let (_, heard) = come(own_address(), &token, "pupil-3");
    assert!(heard.contains("type='result'"), "from elsewhere: {heard}");
}

#[test]
fn a_user_has_so_many_invitations_out() {
    SERVER.ensure("host@club.localhost");
    let mut client = session_at("host", "host");
    for (id, made) in [("i1", true), ("i2", true), ("i3", false)] {
        client.send(format!("<iq type='set' id='{id}' to='club.localhost'><command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite' action='execute'/></iq>"));
        let heard = client.expect("</iq>");
        assert_eq!(heard.contains("status='completed'"), made, "{heard}");
        assert_eq!(heard.contains("<resource-constraint "), !made, "{heard}");
    }
}

// XEP-0379 §3.5.
#[test]
fn who_has_an_account_already_becomes_a_contact_by_the_link_and_only_once() {
    SERVER.ensure("benvolio@club.localhost");
    let inviter = "benvolio@club.localhost";
    let (_, token) = invite(serde_json::json!({ "domain": "club.localhost", "inviter": inviter }));
    let mut benvolio = session_at("benvolio", "benvolio");
    benvolio.send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq><presence/>");
    benvolio.sync();
    for (guest, welcome) in [("mercutio", true), ("paris", false)] {
        SERVER.ensure(&format!("{guest}@localhost"));
        let mut guest_client = Client::available(&SERVER, guest, "here");
        guest_client.send("<iq type='get' id='r1'><query xmlns='jabber:iq:roster'/></iq>");
        guest_client.sync();
        guest_client.send(format!(
            "<presence type='subscribe' to='{inviter}'><preauth xmlns='urn:xmpp:pars:0' token='{token}'/></presence>"
        ));
        if welcome {
            guest_client.expect("type='subscribe'");
            guest_client.expect("type='subscribed'");
        } else {
            // As without a token: the user is asked.
            assert!(benvolio.expect("type='subscribe'").contains("from='paris@localhost'"));
        }
    }
}

#[test]
fn an_invited_account_has_the_limits_of_its_class() {
    let (_, token) = invite(serde_json::json!({ "domain": "club.localhost", "class": "guest" }));
    let (_, heard) = come(own_address(), &token, "visitor");
    assert!(heard.contains("type='result'"), "{heard}");
    let mut visitor = session_at("visitor", "secret");
    for (id, contact, taken) in [("a", "one", true), ("b", "two", false)] {
        visitor.send(format!(
            "<iq type='set' id='{id}'><query xmlns='jabber:iq:roster'><item jid='{contact}@localhost'/></query></iq>"
        ));
        let heard = visitor.expect(&format!("id='{id}'"));
        let heard = heard + &visitor.sync();
        assert_eq!(!heard.contains("<resource-constraint "), taken, "{heard}");
    }
    visitor.send("<iq type='set' id='c1' to='club.localhost'><command xmlns='http://jabber.org/protocol/commands' node='urn:xmpp:invite#invite' action='execute'/></iq>");
    assert!(visitor.expect("</iq>").contains("type='error'"), "guests invite nobody");
    let unknown = SERVER.ask(&serde_json::json!({ "do": "invite-create", "domain": "club.localhost", "class": "x" }));
    assert!(unknown["why"].as_str().is_some_and(|why| why.contains("no class x")), "{unknown}");
}

#[test]
fn an_account_whose_time_is_over_is_disabled() {
    SERVER.ensure("old@club.localhost");
    let mut client = session_at("old", "old");
    assert_eq!(client.sync(), "");
    let put = SERVER.ask(&serde_json::json!({ "do": "user-class", "jid": "old@club.localhost", "class": "gone" }));
    assert_eq!(put["is"], "done", "{put}");
    let (mut again, _) = tls(own_address(), "club.localhost");
    let refused = again.scram("SCRAM-SHA-256", "old", "old", ("n,,", b""));
    assert_eq!(refused.err().as_deref(), Some("account-disabled"));
    // Whoever is there must go, too.
    client.expect_error("not-authorized");
    let listed = || SERVER.ask(&serde_json::json!({ "do": "user-list", "host": "club.localhost", "after": "" }));
    eventually("it is listed as disabled", || {
        listed()["users"].as_array().is_some_and(|users| {
            users.iter().any(|user| user["jid"] == "old@club.localhost" && user["disabled"] == true)
        })
    });
}

#[test]
fn invitations_are_listed_and_taken_back() {
    let (_, token) = invite(serde_json::json!({ "domain": "club.localhost", "uses": 7 }));
    let list = SERVER.ask(&serde_json::json!({ "do": "invite-list" }));
    assert!(!list.to_string().contains(&token), "nobody is told a token again: {list}");
    let mine =
        list["invites"].as_array().and_then(|all| all.iter().find(|it| it["uses_left"] == 7)).expect("it is there");
    let revoked = SERVER.ask(&serde_json::json!({ "do": "invite-revoke", "id": mine["id"] }));
    assert_eq!(revoked["is"], "done", "{revoked}");
    let (mut client, _) = tls(own_address(), "club.localhost");
    client.send(preauth(&token));
    assert!(client.expect("</iq>").contains("<item-not-found "));
}

#[test]
fn where_registration_is_closed_nobody_is_invited() {
    let refused = SERVER.ask(&serde_json::json!({ "do": "invite-create", "domain": "localhost" }));
    assert!(refused["why"].as_str().is_some_and(|why| why.contains("registration = \"invite\"")), "{refused}");
}
