//! What the model of RFC 2778 has and XMPP has not, between accounts and over restarts: grants, spheres, pseudonyms, copies
//! of presence, leases, old clients' privacy lists. RFC 2779 §2.3, §3.3, §5.1.

use crate::client::{Client, attribute, between};
use crate::rules::{asks, available, bare, handling, one, put, rule, server, session, subscribe};
use crate::server::{Server, free_address};
use std::time::Duration;

const NS: &str = "xmlns='urn:waft:rules:0'";
const WATCHERS: &str = "<query xmlns='urn:waft:watchers:0'/>";
const FETCH: &str = "<fetch xmlns='urn:waft:fetch:0'/>";
const TUPLES: &str = "xmlns='urn:waft:tuples:0'";
const LEASES: &str = "xmlns='urn:waft:leases:0'";

fn tuple(id: &str, contact: &str) -> String {
    format!(
        "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='{id}'><status><basic>open</basic></status>\
         <contact>{contact}</contact></tuple>"
    )
}

fn publish(content: &str) -> String {
    format!("<publish {TUPLES} expires='600'>{content}</publish>")
}

/// The row of one watcher in a list.
fn row(list: &str, who: &str) -> String {
    between(list, &format!("jid='{who}'"), "/>").to_owned()
}

// RFC 2779 §2.3.4.
#[test]
fn another_principal_publishes_when_a_rule_grants_it_and_is_named_in_the_tuple() {
    let mut juliet = available("grants@a.rules/home");
    let (mut nurse, mut peter) = (available("nurse1@a.rules/x"), available("peter1@a.rules/x"));
    let (mut far, mut romeo) = (available("far1@b.rules/x"), available("romeo1@b.rules/x"));
    subscribe(&mut romeo, &mut juliet);
    let (who, names) = (bare(&juliet), format!("{}{}", one(&nurse), one(&far)));
    let wants = publish(&tuple("desk", "tel:+39-02-55"));
    assert!(asks(&mut nurse, "set", &who, &wants).contains("<service-unavailable "));
    put(&mut juliet, &rule("p", &names, &format!("<publish {NS}>true</publish>"), ""));
    let answer = asks(&mut nurse, "set", &who, &wants);
    assert_eq!(attribute(&answer, "type"), "result", "{answer}");
    let tag = attribute(&answer, "etag").to_owned();
    let seen = asks(&mut romeo, "get", &who, FETCH);
    let desk = between(&seen, "id='desk'", "</tuple>");
    assert!(desk.contains(&format!(">{}</publisher>", bare(&nurse))), "{seen}");
    let listed = asks(&mut juliet, "get", "", &format!("<publications {TUPLES}/>"));
    assert!(listed.contains(&format!("publisher='{}'", bare(&nurse))), "{listed}");
    // Nobody else, also not with her tag; nobody takes her id; and of another domain nobody, grant or not.
    let with_tag = format!("<publish {TUPLES} expires='0' etag='{tag}'/>");
    assert!(asks(&mut peter, "set", &who, &with_tag).contains("<service-unavailable "));
    assert!(asks(&mut juliet, "set", "", &with_tag).contains("<precondition-failed "));
    assert!(asks(&mut juliet, "set", "", &wants).contains("<id-taken "));
    assert!(asks(&mut far, "set", &who, &publish(&tuple("far", "tel:+1"))).contains("<service-unavailable "));
    assert!(!asks(&mut romeo, "get", &who, FETCH).contains("id='far'"));
    // The grant is taken back: what stands, stands until it is over; nothing more is taken.
    put(&mut juliet, "<remove xmlns='urn:waft:rules:0' id='p'/>");
    assert!(asks(&mut nurse, "set", &who, &with_tag).contains("<service-unavailable "));
}

// RFC 2778 §2.3; RFC 3858 §3.
#[test]
fn another_watcher_sees_more_of_the_list_by_a_grant() {
    let mut juliet = available("watched@a.rules/home");
    let (mut nurse, mut peter) = (available("nurse2@a.rules/x"), available("peter2@a.rules/x"));
    let mut romeo = available("romeo2@b.rules/x");
    for watcher in [&mut nurse, &mut peter, &mut romeo] {
        subscribe(watcher, &mut juliet);
    }
    let who = bare(&juliet);
    let sees = |watcher: &mut Client| {
        let list = asks(watcher, "get", &who, WATCHERS);
        ["nurse2@", "peter2@", "romeo2@"].map(|name| list.contains(&format!("jid='{name}")))
    };
    assert_eq!(sees(&mut nurse), [true, false, false]);
    put(&mut juliet, &rule("w", &format!("{}{}", one(&nurse), one(&romeo)), &format!("<watch {NS}>true</watch>"), ""));
    assert_eq!(sees(&mut nurse), [true, true, true]);
    assert_eq!(sees(&mut peter), [false, true, false]);
    // To another domain none of it goes.
    assert_eq!(sees(&mut romeo), [false, false, false]);
    put(&mut juliet, "<remove xmlns='urn:waft:rules:0' id='w'/>");
    assert_eq!(sees(&mut nurse), [true, false, false]);
}

// RFC 2779 §5.1.12: by this server, by what the other domain proved itself with, or as nobody in particular.
#[test]
fn each_watcher_is_listed_with_how_it_was_authenticated() {
    let mut juliet = available("proofs@a.rules/home");
    put(&mut juliet, &rule("all", "", &handling("allow"), ""));
    let (mut near, mut far) = (available("near3@a.rules/x"), available("far3@b.rules/x"));
    for watcher in [&mut near, &mut far] {
        watcher.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
        watcher.expect("type='subscribed'");
    }
    let mut guest = crate::rules::guest();
    guest.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
    guest.expect("type='subscribed'");
    let list = asks(&mut juliet, "get", "", WATCHERS);
    assert_eq!(attribute(&row(&list, &bare(&near)), "auth"), "server", "{list}");
    assert_eq!(attribute(&row(&list, &bare(&far)), "auth"), "dialback", "{list}");
    let of_guest = list.split("<row ").find(|row| row.contains("@guests.rules'")).unwrap();
    assert_eq!(attribute(of_guest, "auth"), "anonymous", "{list}");
}

// XEP-0016, XEP-0191: an old client's list, the block list and the rules are views of the same.
#[test]
fn an_old_client_edits_its_privacy_list_and_block_list_and_rules_show_it() {
    let mut juliet = available("old@a.rules/home");
    let (mut romeo, mut tybalt) = (available("romeo4@b.rules/x"), available("tybalt4@b.rules/x"));
    for watcher in [&mut romeo, &mut tybalt] {
        subscribe(watcher, &mut juliet);
        watcher.expect(&format!("from='{}'", juliet.jid));
    }
    let privacy = |content: &str| format!("<query xmlns='jabber:iq:privacy'>{content}</query>");
    let names = asks(&mut juliet, "get", "", &privacy(""));
    assert!(names.contains("<default name='rules'/>") && names.contains("<list name='rules'/>"), "{names}");
    let list = format!(
        "<list name='rules'><item type='jid' value='{}' action='deny' order='1'/>\
         <item type='jid' value='{}' action='deny' order='2'><presence-out/></item>\
         <item type='group' value='Work' action='deny' order='3'><message/></item>\
         <item action='allow' order='4'/></list>",
        bare(&tybalt),
        bare(&romeo)
    );
    let answer = asks(&mut juliet, "set", "", &privacy(&list));
    assert_eq!(attribute(&answer, "type"), "result", "{answer}");
    romeo.expect("type='unavailable'");
    tybalt.expect("type='unavailable'");
    let blocked = asks(&mut juliet, "get", "", "<blocklist xmlns='urn:xmpp:blocking'/>");
    assert!(blocked.contains(&bare(&tybalt)) && !blocked.contains(&bare(&romeo)), "{blocked}");
    let rules = asks(&mut juliet, "get", "", &format!("<rules {NS}/>"));
    let of_presence = between(&rules, "id='privacy-presence-out'", "</rule>");
    assert!(of_presence.contains(&one(&romeo)) && of_presence.contains(">polite-block<"), "{rules}");
    assert!(between(&rules, "id='privacy-message'", "</rule>").contains("name='Work'"), "{rules}");
    tybalt.send(format!("<message type='chat' id='m' to='{}'><body>dog</body></message>", bare(&juliet)));
    assert!(tybalt.expect("</message>").contains("<service-unavailable "));
    // The other way about: what is unblocked is gone from the list, a rule that goes is, too.
    asks(&mut juliet, "set", "", "<unblock xmlns='urn:xmpp:blocking'/>");
    put(&mut juliet, "<remove xmlns='urn:waft:rules:0' id='privacy-presence-out'/>");
    romeo.expect(&format!("from='{}'", juliet.jid));
    let shown = asks(&mut juliet, "get", "", &privacy("<list name='rules'/>"));
    assert!(!shown.contains("@b.rules") && shown.contains("value='Work'"), "{shown}");
    // What does not map is refused, with words, and changes nothing.
    for item in [
        "<item type='subscription' value='none' action='deny' order='1'/>",
        "<item type='jid' value='x@b.rules' action='allow' order='1'/><item action='deny' order='2'/>",
        "<item type='jid' value='x@b.rules' action='deny' order='1'><iq/></item>",
    ] {
        let answer = asks(&mut juliet, "set", "", &privacy(&format!("<list name='rules'>{item}</list>")));
        assert!(answer.contains("<feature-not-implemented ") && answer.contains("<text "), "{item}: {answer}");
    }
    let answer = asks(&mut juliet, "set", "", &privacy("<list name='another'/>"));
    assert!(answer.contains("<feature-not-implemented "), "{answer}");
    assert_eq!(
        asks(&mut juliet, "get", "", &privacy("<list name='rules'/>")).split("<query").nth(1),
        shown.split("<query").nth(1)
    );
}

// RFC 4745 §7.2, RFC 5025 §3.1.2, RFC 4480 §3.11.
#[test]
fn the_sphere_that_presence_names_decides_who_sees_it() {
    let mut juliet = available("spheres@a.rules/home");
    let mut romeo = available("romeo5@b.rules/x");
    subscribe(&mut romeo, &mut juliet);
    romeo.expect(&format!("from='{}'", juliet.jid));
    let everywhere = format!("<identity>{}</identity>", one(&romeo));
    for (id, conditions, name) in
        [("home", format!("{everywhere}<sphere value='home'/>"), "allow"), ("else", everywhere.clone(), "polite-block")]
    {
        put(
            &mut juliet,
            &format!(
                "<rule xmlns='urn:ietf:params:xml:ns:common-policy' id='{id}'><conditions>{conditions}</conditions>\
                 <actions>{}</actions></rule>",
                handling(name)
            ),
        );
    }
    romeo.expect("type='unavailable'");
    juliet.send(
        "<presence><status>supper</status><sphere xmlns='urn:ietf:params:xml:ns:pidf:rpid'><home/></sphere></presence>",
    );
    romeo.expect("<status>supper</status>");
    juliet.send(
        "<presence><status>a meeting</status><sphere xmlns='urn:ietf:params:xml:ns:pidf:rpid'>work</sphere></presence>",
    );
    let heard = romeo.expect("type='unavailable'");
    assert!(!heard.contains("meeting"), "{heard}");
    assert!(!romeo.sync().contains("meeting"));
}

// RFC 2779 §3.3: a client's copy is marked, and said to be good or replaced; a server's is kept up to date.
#[test]
fn a_copy_is_good_until_what_it_is_of_changes() {
    let mut juliet = available("copies@a.rules/home");
    let mut romeo = available("romeo6@b.rules/x");
    subscribe(&mut romeo, &mut juliet);
    let first = asks(&mut romeo, "get", &bare(&juliet), FETCH);
    let version = attribute(between(&first, "<fetch ", ">").trim_end(), "version").to_owned();
    let known = format!("<fetch xmlns='urn:waft:fetch:0' version='{version}'/>");
    let again = asks(&mut romeo, "get", &bare(&juliet), &known);
    assert!(again.contains("unchanged='true'") && !again.contains("<tuple"), "{again}");
    // What he may not see any more is no copy that is still good.
    put(&mut juliet, &rule("p", &one(&romeo), &handling("polite-block"), ""));
    let changed = asks(&mut romeo, "get", &bare(&juliet), &known);
    assert!(changed.contains("<basic>closed</basic>") && !changed.contains("unchanged"), "{changed}");
}

#[test]
fn a_further_client_is_shown_the_contacts_and_no_other_server_is_asked_again() {
    let mut romeo = available("romeo7@b.rules/x");
    let mut juliet = available("caches@a.rules/home");
    subscribe(&mut juliet, &mut romeo);
    juliet.expect(&format!("from='{}'", romeo.jid));
    romeo.send("<presence><show>xa</show><status>in the garden</status></presence>");
    juliet.expect("in the garden");
    let probes = || server("b.rules").status()["counters"]["operations_server_presence"].as_u64().unwrap_or(0);
    let before = probes();
    let mut phone = session("caches@a.rules/phone");
    phone.send("<presence/>");
    // The own other resource, and him.
    phone.expect(&format!("from='{}'", juliet.jid));
    let heard = phone.expect("in the garden");
    assert!(heard.contains(&format!("from='{}'", romeo.jid)), "{heard}");
    assert_eq!(probes(), before, "nobody was asked");
    // And it is the latest that the next one is shown.
    romeo.send("<presence type='unavailable'/>");
    phone.expect("type='unavailable'");
    let mut tablet = session("caches@a.rules/tablet");
    tablet.send("<presence/>");
    tablet.sync();
    assert!(!tablet.hear(Duration::from_millis(200)).contains("romeo7@"));
}

// RFC 2779 §8.1.1 A3, §5.1.11, §5.1.13.
#[test]
fn who_subscribes_under_another_name_is_listed_by_it_shown_presence_and_can_be_blocked() {
    let (ours, theirs) = (free_address(), free_address());
    let start = |own: &str, other: &str, here, there| {
        Server::start(&format!(
            "[host.\"{own}\"]\n[limits]\nrates = false\n[s2s.domain.\"{other}\"]\naddress = \"{there}\"\n\
             [[listen]]\nkind = \"s2s\"\naddress = \"{here}\"\n"
        ))
    };
    let capulet = start("capulet.test", "montague.test", ours, theirs);
    let mut montague = start("montague.test", "capulet.test", theirs, ours);
    let log_in = |server: &Server, user: &str, host: &str| {
        let (mut client, _) = Client::authenticated(server, user, host);
        client.bind("x");
        client.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>");
        client.sync();
        client
    };
    let mut juliet = log_in(&capulet, "juliet", "capulet.test");
    let mut romeo = log_in(&montague, "romeo", "montague.test");
    romeo.send(format!("<presence type='subscribe' to='juliet@capulet.test'><pseudonym {LEASES}/></presence>"));
    let request = juliet.expect("</presence>");
    let name = attribute(&request, "from").to_owned();
    assert!(name.starts_with('~') && name.ends_with("@montague.test") && !request.contains("romeo"), "{request}");
    juliet.send(format!("<presence type='subscribed' to='{name}'/>"));
    romeo.expect("type='subscribed'");
    romeo.expect("from='juliet@capulet.test/x'");
    let list = asks(&mut juliet, "get", "", WATCHERS);
    assert!(row(&list, &name).contains("pseudonym='true'") && !list.contains("romeo"), "{list}");
    // His server forgets nothing of it when it is killed, and asks about her under the same name.
    montague.signal("KILL");
    montague.ended();
    juliet.send("<presence><show>dnd</show></presence>");
    montague.restart();
    let mut romeo = log_in(&montague, "romeo", "montague.test");
    romeo.expect("<show>dnd</show>");
    juliet.send("<presence><show>chat</show></presence>");
    romeo.expect("<show>chat</show>");
    // Letters do not reach him by it.
    juliet.send(format!("<message type='chat' id='m' to='{name}'><body>who is there?</body></message>"));
    let refused = juliet.expect("</message>");
    assert!(refused.contains("<service-unavailable ") && refused.contains(&format!("from='{name}'")), "{refused}");
    asks(&mut juliet, "set", "", &format!("<block xmlns='urn:xmpp:blocking'><item jid='{name}'/></block>"));
    romeo.expect("type='unavailable'");
    juliet.send("<presence><show>away</show></presence>");
    juliet.sync();
    assert!(!romeo.sync().contains("<show>away</show>"));
    assert!(!juliet.transcript().contains("romeo"), "she never heard who it is");
}

// RFC 3859 §3.4.1.
#[test]
fn a_lease_is_the_same_after_both_servers_were_killed_and_is_ended_with_a_reason() {
    let (ours, theirs) = (free_address(), free_address());
    let start = |own: &str, other: &str, here, there| {
        Server::start(&format!(
            "[host.\"{own}\"]\n[limits]\nrates = false\n[s2s.domain.\"{other}\"]\naddress = \"{there}\"\n\
             [[listen]]\nkind = \"s2s\"\naddress = \"{here}\"\n"
        ))
    };
    let mut capulet = start("capulet.test", "montague.test", ours, theirs);
    let mut montague = start("montague.test", "capulet.test", theirs, ours);
    let log_in = |server: &Server, user: &str, host: &str| {
        let (mut client, _) = Client::authenticated(server, user, host);
        client.bind("x");
        client.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq><presence/>");
        client.sync();
        client
    };
    let mut juliet = log_in(&capulet, "juliet", "capulet.test");
    let mut romeo = log_in(&montague, "romeo", "montague.test");
    romeo.send(format!(
        "<presence type='subscribe' to='juliet@capulet.test'><lease {LEASES} seconds='7200'/></presence>"
    ));
    juliet.expect("</presence>");
    juliet.send(format!(
        "<presence type='subscribed' to='romeo@montague.test'><lease {LEASES} seconds='600'/></presence>"
    ));
    romeo.expect("type='subscribed'");
    let until = attribute(&romeo.expect("</presence>"), "until").to_owned();
    juliet.sync();
    for server in [&mut capulet, &mut montague] {
        server.signal("KILL");
        server.ended();
        server.restart();
    }
    let mut juliet = log_in(&capulet, "juliet", "capulet.test");
    let mut romeo = log_in(&montague, "romeo", "montague.test");
    romeo.expect("from='juliet@capulet.test/x'");
    let status = asks(&mut romeo, "get", "", &format!("<status {LEASES} jid='juliet@capulet.test'/>"));
    assert!(status.contains(&format!("<granted seconds='600' until='{until}'/>")), "{status}");
    assert!(status.contains("<held seconds='600'") && !status.contains("drift"), "{status}");
    juliet.send(format!(
        "<presence type='unsubscribed' to='romeo@montague.test'><lease {LEASES} seconds='0' reason='giveup'/></presence>"
    ));
    romeo.expect("type='unsubscribed'");
    assert!(romeo.expect("</presence>").contains("reason='giveup'"));
    let status = asks(&mut romeo, "get", "", &format!("<status {LEASES} jid='juliet@capulet.test'/>"));
    assert!(!status.contains("to='true'") && !status.contains("seconds="), "{status}");
}

// RFC 2779 §2.1.2, §3.1.3, §4.4.3.
#[test]
fn a_tuple_names_another_inbox_and_other_means_than_messages() {
    let mut juliet = available("means@a.rules/home");
    let mut romeo = available("romeo8@b.rules/x");
    subscribe(&mut romeo, &mut juliet);
    // What nobody here knows stays with it. §3.1.4.
    let strange = "<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='m9'><status><basic>open</basic>\
                   <mind xmlns='urn:x:1'>made up</mind></status></tuple>";
    let means = [
        "im:letters@b.rules",
        "xmpp:letters@b.rules",
        "tel:+39-02-55",
        "sip:juliet@capulet.example",
        "mailto:j@a.rules",
    ];
    let tuples: String = means.iter().enumerate().map(|(n, uri)| tuple(&format!("m{n}"), uri)).collect();
    asks(&mut juliet, "set", "", &publish(&format!("{tuples}{strange}")));
    let seen = asks(&mut romeo, "get", &bare(&juliet), FETCH);
    assert!(between(&seen, "id='m9'", "</tuple>").contains("<mind xmlns='urn:x:1'>made up</mind>"), "{seen}");
    for (n, uri) in means.iter().enumerate() {
        let one = between(&seen, &format!("id='m{n}'"), "</tuple>");
        assert!(one.contains(&format!(">{uri}</contact>")) && one.contains("<basic>open</basic>"), "{seen}");
    }
    // She is there for messages no longer; the other means are as she said.
    juliet.send("<presence><priority>-1</priority></presence>");
    juliet.sync();
    let seen = asks(&mut romeo, "get", &bare(&juliet), FETCH);
    let own = seen.split("<tuple").find(|it| it.contains(&juliet.jid)).unwrap();
    assert!(own.contains("<basic>closed</basic>"), "{seen}");
    assert!(between(&seen, "id='m2'", "</tuple>").contains("<basic>open</basic>"), "{seen}");
}

// RFC 2779 §3.2.1.
#[test]
fn an_account_that_is_away_is_fetched_with_what_it_was_last_also_after_a_kill() {
    let mut server = Server::start("[limits]\nrates = false\n");
    let mut juliet = Client::available(&server, "juliet", "home");
    let mut romeo = Client::available(&server, "romeo", "x");
    asks(&mut romeo, "get", "", "<query xmlns='jabber:iq:roster'/>");
    subscribe(&mut romeo, &mut juliet);
    juliet.send("<presence type='unavailable'><status>gone riding</status></presence>");
    juliet.sync();
    let before = asks(&mut romeo, "get", "juliet@localhost", FETCH);
    assert!(before.contains("<basic>closed</basic>") && before.contains("<note>gone riding</note>"), "{before}");
    let at = between(&before, "<timestamp>", "</timestamp>").to_owned();
    // What is delivered is on disk, and so is what was said before it.
    juliet.send("<message to='romeo@localhost'><body>farewell</body></message>");
    romeo.expect("farewell");
    server.signal("KILL");
    server.ended();
    server.restart();
    let mut romeo = Client::available(&server, "romeo", "x");
    let after = asks(&mut romeo, "get", "juliet@localhost", FETCH);
    assert!(after.contains(&format!("<timestamp>{at}</timestamp>")) && after.contains("gone riding"), "{after}");
}

// The architecture, §4: a resource does not affect the identity. RFC 6121 §3.1.3.
#[test]
fn identity_is_the_bare_address_whatever_the_resource() {
    let mut juliet = available("identity@a.rules/home");
    let mut romeo = available("romeo9@b.rules/x");
    romeo.send(format!("<presence type='subscribe' to='{}'/>", juliet.jid));
    let request = juliet.expect("type='subscribe'") + &juliet.expect(">");
    assert!(request.contains(&format!("from='{}'", bare(&romeo))), "{request}");
    juliet.send(format!("<presence type='subscribed' to='{}'/>", romeo.jid));
    romeo.expect(&format!("from='{}'", bare(&juliet)));
    romeo.expect(&format!("from='{}'", juliet.jid));
    // A rule that names him holds for each of his clients.
    put(&mut juliet, &rule("p", &one(&romeo), &handling("polite-block"), ""));
    romeo.expect("type='unavailable'");
    let mut phone = available("romeo9@b.rules/phone");
    assert!(asks(&mut phone, "get", &bare(&juliet), FETCH).contains("<basic>closed</basic>"));
    let mut tablet = available("identity@a.rules/tablet");
    assert!(asks(&mut tablet, "get", "", &format!("<rules {NS}/>")).contains(&one(&romeo)));
}

// RFC 6121 §8.5.2: an inbox with no resource, one, several, and one that takes no messages.
#[test]
fn a_message_to_an_inbox_is_delivered_or_kept_whatever_resources_there_are() {
    let mut romeo = available("romeo10@b.rules/x");
    server("a.rules").ensure("inbox@a.rules");
    let says = |romeo: &mut Client, text: &str| {
        romeo.send(format!("<message type='chat' id='{text}' to='inbox@a.rules'><body>{text}</body></message>"));
        assert_eq!(romeo.sync(), "");
    };
    says(&mut romeo, "to nobody");
    let mut home = available("inbox@a.rules/home");
    home.expect("to nobody");
    says(&mut romeo, "to one");
    home.expect("to one");
    let mut quiet = session("inbox@a.rules/quiet");
    quiet.send("<presence><priority>-1</priority></presence>");
    quiet.sync();
    let mut phone = available("inbox@a.rules/phone");
    says(&mut romeo, "to several");
    home.expect("to several");
    phone.expect("to several");
    assert!(!quiet.sync().contains("<body>"));
    for client in [&mut home, &mut phone] {
        client.send("<presence type='unavailable'/>");
        client.sync();
    }
    says(&mut romeo, "to one that takes none");
    assert!(!quiet.sync().contains("<body>"));
    quiet.send("<presence/>");
    quiet.expect("to one that takes none");
}

// RFC 2778 §2.3, DELIVERY RULES.
#[test]
fn quiet_hours_and_anonymous_senders_are_rules_like_others() {
    let mut juliet = available("night@a.rules/home");
    let mut romeo = available("romeo11@b.rules/x");
    let mut guest = crate::rules::guest();
    let nobody = format!("<unauthenticated {NS}/>");
    put(&mut juliet, &rule("anon", &nobody, &format!("<message {NS}>refuse</message>"), ""));
    guest.send(format!("<message type='chat' id='g' to='{}'><body>psst</body></message>", bare(&juliet)));
    assert!(guest.expect("</message>").contains("<service-unavailable "));
    // All day.
    let hours = format!("<identity><many/></identity><hours {NS} from='00:00' until='00:00'/>");
    put(
        &mut juliet,
        &format!(
            "<rule xmlns='urn:ietf:params:xml:ns:common-policy' id='night'><conditions>{hours}</conditions>\
             <actions><message {NS}>store</message></actions></rule>"
        ),
    );
    romeo.send(format!("<message type='chat' id='n' to='{}'><body>good night</body></message>", bare(&juliet)));
    assert_eq!(romeo.sync(), "");
    assert!(!juliet.hear(Duration::from_millis(200)).contains("<body>"), "{}", juliet.transcript());
    // When the hours are over she has it; so when she comes next.
    let mut phone = available("night@a.rules/phone");
    phone.expect("good night");
}

// RFC 2779 §4.1.4, §4.1.5, §4.1.7: other addresses of the sender, typed content, text as it is written.
#[test]
fn a_message_carries_addresses_of_other_means_typed_content_and_text_as_it_is_written() {
    let mut juliet = available("carries@a.rules/home");
    let mut romeo = available("romeo12@b.rules/x");
    for content in [
        "<body>call me</body><reach xmlns='urn:xmpp:reach:0'><addr uri='tel:+39-02-55'><desc xml:lang='en'>desk</desc></addr></reach>",
        "<addresses xmlns='http://jabber.org/protocol/address'><address type='replyto' uri='mailto:romeo@montague.example'/></addresses>",
        "<body>*</body><content xmlns='urn:xmpp:content' type='text/markdown'>**Grüße**, 漢字</content>",
        "<rtt xmlns='urn:xmpp:rtt:0' seq='7' event='new'><t>Hel</t></rtt>",
        "<encrypted xmlns='eu.siacs.conversations.axolotl'><payload>AAEC</payload></encrypted>",
    ] {
        romeo.send(format!("<message type='chat' id='c' to='{}'>{content}</message>", juliet.jid));
        let heard = juliet.expect("</message>");
        assert!(heard.contains(content), "{heard}");
    }
}

// RFC 2779 §4.2.1; RFC 3860 §3.4.1.
#[test]
fn who_asks_is_told_what_became_of_a_message() {
    let mut romeo = available("romeo13@b.rules/x");
    server("a.rules").ensure("outcome@a.rules");
    let asks_of = |id: &str, to: &str| {
        format!(
            "<message type='chat' id='{id}' to='{to}'><body>hi</body><request xmlns='urn:waft:outcome:0'/></message>"
        )
    };
    // That he may see whether she is there she says first.
    let mut juliet = available("outcome@a.rules/home");
    subscribe(&mut romeo, &mut juliet);
    juliet.send("</stream:stream>");
    juliet.expect_end();
    romeo.expect("type='unavailable'");
    romeo.send(asks_of("m1", "outcome@a.rules"));
    let heard = romeo.expect("</message>");
    assert!(heard.contains("id='m1' state='stored'"), "{heard}");
    let mut juliet = available("outcome@a.rules/home");
    juliet.expect("<body>hi</body>");
    juliet.sync();
    let heard = romeo.expect("</message>");
    assert!(heard.contains("id='m1' state='delivered'"), "{heard}");
    romeo.send(asks_of("m2", "nobody@a.rules"));
    let heard = romeo.expect("</message>");
    assert!(heard.contains("type='error'") && heard.contains("<service-unavailable "), "{heard}");
}

// Four operation sets: counted, and logged, each by itself.
#[test]
fn each_operation_set_is_counted_and_logged_by_itself() {
    let server = Server::start("[log]\nlevel = \"info,operations=trace\"\n[limits]\nrates = false\n");
    let mut juliet = Client::session(&server, "juliet", "x");
    let lines =
        |set: &str| server.log().lines().filter(|line| line.contains("operations") && line.contains(set)).count();
    let before = (lines("operations_client_presence"), lines("operations_client_messages"));
    juliet.send("<presence/><presence><show>away</show></presence>");
    juliet.sync();
    juliet.send("<message to='juliet@localhost/x' type='chat'><body>secret words</body></message>");
    juliet.expect("secret words");
    let after = (lines("operations_client_presence"), lines("operations_client_messages"));
    assert!(after.0 >= before.0 + 2 && after.1 > before.1, "{before:?} {after:?}\n{}", server.log());
    assert!(!server.log().contains("secret words"));
    let counters = server.status()["counters"].clone();
    assert!(counters["operations_client_presence"].as_u64() >= Some(2), "{counters}");
    assert!(counters["operations_client_messages"].as_u64() >= Some(1), "{counters}");
}
