//! Fetch, tuples that last, who watches, leases, roles and the four operation sets, as clients meet them; also between two
//! domains, each with a server of its own.

use crate::client::{Client, attribute, between};
use crate::server::{Server, free_address};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::LazyLock;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start("[limits]\nrates = false\n"));

const FETCH: &str = "<fetch xmlns='urn:waft:fetch:0'/>";
const WATCHERS: &str = "<iq type='get' id='w'><query xmlns='urn:waft:watchers:0'/></iq>";

/// A bound session on a host that need not be `localhost`.
fn session_at(server: &Server, user: &str, host: &str, resource: &str) -> Client {
    let (mut client, _) = Client::authenticated(server, user, host);
    client.bind(resource);
    client
}

/// Asks, and gives the whole answer.
#[track_caller]
fn ask(client: &mut Client, iq: &str) -> String {
    client.send(iq);
    let id = attribute(iq, "id").to_owned();
    loop {
        let head = client.expect(&format!(" id='{id}'"));
        if !head[head.rfind('<').expect("a tag")..].starts_with("<iq") {
            continue;
        }
        let start = head[head.rfind("<iq").expect("an iq")..].to_owned();
        let open = start + &client.expect(">");
        return if open.ends_with("/>") { open } else { open + &client.expect("</iq>") };
    }
}

#[track_caller]
fn fetch(client: &mut Client, whom: &str, id: &str) -> String {
    ask(client, &format!("<iq type='get' id='{id}' to='{whom}'>{FETCH}</iq>"))
}

/// The watcher subscribes, the presentity approves; both have a session.
#[track_caller]
fn befriend(watcher: &mut Client, presentity: &mut Client) {
    let bare = |client: &Client| client.jid.split('/').next().expect("an address").to_owned();
    watcher.send(format!("<presence type='subscribe' to='{}'/>", bare(presentity)));
    presentity.expect("type='subscribe'");
    presentity.send(format!("<presence type='subscribed' to='{}'/>", bare(watcher)));
    watcher.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    watcher.expect("id='r'");
    let granted = |text: &str| text.contains("subscription='to'") || text.contains("subscription='both'");
    let roster = watcher.expect("subscription='to'|subscription='both'|</iq>|</query></iq>");
    if !granted(&roster) {
        watcher.expect("subscription='to'|subscription='both'");
        watcher.expect("</iq>");
    }
}

fn tuple(id: &str, more: &str) -> String {
    format!("<tuple xmlns='urn:ietf:params:xml:ns:pidf' id='{id}'><status><basic>open</basic></status>{more}</tuple>")
}

/// Two servers, each with its own domain, that know where the other is.
struct Pair {
    capulet: Server,
    montague: Server,
}

static PAIR: LazyLock<Pair> = LazyLock::new(pair);

/// The server of `own`, at `at` for servers, that knows `other` to be at `there`.
fn federated(own: &str, other: &str, at: SocketAddr, there: SocketAddr, host: &str) -> Server {
    Server::start(&format!(
        "[host.\"{own}\"]\n{host}\n[limits]\nrates = false\n[s2s.domain.\"{other}\"]\naddress = \"{there}\"\n\
         [[listen]]\nkind = \"s2s\"\naddress = \"{at}\"\n"
    ))
}

fn pair() -> Pair {
    let (c, m) = (free_address(), free_address());
    Pair {
        capulet: federated("capulet.test", "montague.test", c, m, ""),
        montague: federated("montague.test", "capulet.test", m, c, ""),
    }
}

fn juliet_at(name: &str) -> Client {
    let mut juliet = session_at(&PAIR.capulet, name, "capulet.test", "balcony");
    juliet.send("<presence/>");
    juliet.sync();
    juliet
}

fn romeo_at(name: &str) -> Client {
    let mut romeo = session_at(&PAIR.montague, name, "montague.test", "orchard");
    romeo.send("<presence/>");
    romeo.sync();
    romeo
}

#[test]
fn a_watcher_of_another_domain_fetches_and_is_listed_and_hears_nothing_afterwards() {
    let (mut juliet, mut romeo) = (juliet_at("juliet1"), romeo_at("romeo1"));
    befriend(&mut romeo, &mut juliet);
    juliet.send("<presence><show>away</show><status>tea</status></presence>");
    juliet.sync();
    let document = fetch(&mut romeo, "juliet1@capulet.test", "f1");
    assert!(document.contains("entity='pres:juliet1@capulet.test'"), "{document}");
    assert!(document.contains("<basic>open</basic>") && document.contains("<note>tea</note>"), "{document}");
    assert!(document.contains("xmpp:juliet1@capulet.test/balcony"), "{document}");
    let listed = ask(&mut juliet, WATCHERS);
    let row = between(&listed, "jid='romeo1@montague.test'", "/>");
    assert!(row.contains("auth='dialback'") && row.contains("fetches='1'"), "{listed}");
    // Her server keeps no watcher of somebody who only fetches.
    let mut stranger = romeo_at("stranger1");
    let refused = fetch(&mut stranger, "juliet1@capulet.test", "f1");
    let missing = fetch(&mut stranger, "nobody1@capulet.test", "f2");
    assert!(refused.contains("<service-unavailable"), "{refused}");
    assert_eq!(refused.replace("juliet1", "nobody1").replace("'f1'", "'f2'"), missing, "like one that is not there");
    juliet.send("<presence><show>dnd</show></presence>");
    juliet.sync();
    assert!(!stranger.sync().contains("juliet1"));
    assert!(ask(&mut juliet, WATCHERS).contains("jid='stranger1@montague.test' kind='refused'"));
}

#[test]
fn a_clients_probe_over_domains_is_answered_with_presence_and_ends_no_subscription() {
    let (mut juliet, mut romeo) = (juliet_at("juliet2"), romeo_at("romeo2"));
    befriend(&mut romeo, &mut juliet);
    romeo.sync();
    romeo.send("<presence type='probe' id='p1' to='juliet2@capulet.test'/>");
    romeo.expect("from='juliet2@capulet.test/balcony'");
    romeo.expect("</presence>");
    // Of somebody whom he may not see, or who is nobody: what there is stays. RFC 6121 §8.5.1.
    romeo.send("<presence type='probe' id='p2' to='nobody2@capulet.test'/>");
    let refused = romeo.expect("/>");
    assert!(refused.contains("type='unsubscribed'") && refused.contains("from='nobody2@capulet.test'"), "{refused}");
    assert!(
        ask(&mut romeo, "<iq type='get' id='r2'><query xmlns='jabber:iq:roster'/></iq>").contains("subscription='to'")
    );
}

#[test]
fn what_is_published_is_there_with_its_time_after_the_server_was_killed() {
    let mut server = Server::start("[limits]\nrates = false\n");
    let mut juliet = Client::available(&server, "juliet", "balcony");
    let mut romeo = Client::available(&server, "romeo", "orchard");
    befriend(&mut romeo, &mut juliet);
    let published = ask(
        &mut juliet,
        &format!(
            "<iq type='set' id='p'><publish xmlns='urn:waft:tuples:0' expires='3600'>{}</publish></iq>",
            tuple("desk", "<contact>tel:+39-02-55-51-29</contact><note>at the desk</note>")
        ),
    );
    assert!(published.contains("etag='") && published.contains("expires='3600'"), "{published}");
    let before = fetch(&mut romeo, "juliet@localhost", "f1");
    let at = between(before.split("id='desk'").nth(1).expect("the tuple"), "<timestamp>", "</timestamp>").to_owned();
    server.signal("KILL");
    server.ended();
    server.restart();
    let mut romeo = Client::available(&server, "romeo", "orchard");
    let after = fetch(&mut romeo, "juliet@localhost", "f2");
    let desk = after.split("id='desk'").nth(1).unwrap_or_else(|| panic!("{after}"));
    assert_eq!(between(desk, "<timestamp>", "</timestamp>"), at);
    assert!(desk.contains("at the desk") && desk.contains("<basic>open</basic>"), "{after}");
    // Her resource is of the process that was killed: its client may come back, and takes no messages now.
    let balcony = after.split("<tuple").find(|it| it.contains("balcony")).unwrap_or_else(|| panic!("{after}"));
    assert!(balcony.contains("<basic>closed</basic>"), "{after}");
    // Refreshed with its tag, and removed.
    let mut juliet = Client::session(&server, "juliet", "balcony");
    let etag = attribute(&published, "etag");
    let stale = "<iq type='set' id='p1'><publish xmlns='urn:waft:tuples:0' etag='none'/></iq>";
    assert!(ask(&mut juliet, stale).contains("<precondition-failed"));
    let gone = format!("<iq type='set' id='p2'><publish xmlns='urn:waft:tuples:0' expires='0' etag='{etag}'/></iq>");
    assert!(ask(&mut juliet, &gone).contains("type='result'"));
    assert!(!fetch(&mut romeo, "juliet@localhost", "f3").contains("desk"));
}

#[test]
fn a_resource_is_open_when_a_message_would_be_delivered_and_closed_else() {
    let mut juliet = Client::available(&SERVER, "juliet3", "balcony");
    let mut romeo = Client::available(&SERVER, "romeo3", "orchard");
    befriend(&mut romeo, &mut juliet);
    for (presence, basic, delivered) in [
        ("<presence><priority>1</priority></presence>", "open", true),
        ("<presence><priority>-1</priority></presence>", "closed", false),
    ] {
        juliet.send(presence);
        juliet.sync();
        let document = fetch(&mut romeo, "juliet3@localhost", "f");
        assert!(document.contains(&format!("<basic>{basic}</basic>")), "{document}");
        romeo.send("<message type='chat' to='juliet3@localhost'><body>hi</body></message>");
        romeo.sync();
        assert_eq!(juliet.sync().contains("<body>hi</body>"), delivered, "{presence}");
    }
}

#[test]
fn pollers_flashes_and_refused_are_listed_after_she_logs_in_and_each_watcher_sees_its_own_row() {
    let mut juliet = Client::available(&SERVER, "juliet4", "balcony");
    let mut romeo = Client::available(&SERVER, "romeo4", "orchard");
    befriend(&mut romeo, &mut juliet);
    juliet.send("</stream:stream>");
    juliet.expect_end();
    for n in 0..3 {
        assert!(fetch(&mut romeo, "juliet4@localhost", &format!("f{n}")).contains("type='result'"));
    }
    let mut flash = Client::available(&SERVER, "flash4", "x");
    flash.send(
        "<presence type='subscribe' to='juliet4@localhost'/><presence type='unsubscribe' to='juliet4@localhost'/>",
    );
    flash.sync();
    let mut tybalt = Client::available(&SERVER, "tybalt4", "x");
    fetch(&mut tybalt, "juliet4@localhost", "f");
    let mut juliet = Client::available(&SERVER, "juliet4", "balcony");
    let listed = ask(&mut juliet, WATCHERS);
    let row = |who: &str| between(&listed, &format!("jid='{who}@localhost'"), "/>").to_owned();
    assert!(row("romeo4").contains("fetches='3'") && row("romeo4").contains("kind='subscriber'"), "{listed}");
    assert!(row("flash4").contains("kind='subscriber'") && row("tybalt4").contains("kind='refused'"), "{listed}");
    assert!(listed.contains("status='terminated' event='timeout'"), "{listed}");
    assert!(listed.contains("<watcherinfo xmlns='urn:ietf:params:xml:ns:watcherinfo' version='0' state='full'>"));
    let own = "<iq type='get' id='o' to='juliet4@localhost'><query xmlns='urn:waft:watchers:0'/></iq>";
    let seen = ask(&mut romeo, own);
    assert!(seen.contains("jid='romeo4@localhost'") && !seen.contains("tybalt4"), "{seen}");
    assert!(ask(&mut tybalt, own).contains("<service-unavailable"));
    // He is no subscriber any more: what he did makes him a poller.
    romeo.send("<presence type='unsubscribe' to='juliet4@localhost'/>");
    romeo.sync();
    let listed = ask(&mut juliet, WATCHERS);
    assert!(between(&listed, "jid='romeo4@localhost'", "/>").contains("kind='poller'"), "{listed}");
}

#[test]
fn who_asked_for_it_hears_of_watchers_as_they_come() {
    let mut juliet = Client::available(&SERVER, "juliet5", "balcony");
    let answer = ask(&mut juliet, "<iq type='set' id='w'><watch xmlns='urn:waft:watchers:0'/></iq>");
    assert!(answer.contains("state='full'"), "{answer}");
    let mut romeo = Client::available(&SERVER, "romeo5", "orchard");
    fetch(&mut romeo, "juliet5@localhost", "f");
    let event = juliet.expect("</message>");
    assert!(event.contains("state='partial'") && event.contains("romeo5@localhost"), "{event}");
}

#[test]
fn what_is_the_domains_own_does_not_pass_to_another_domain() {
    let (mut juliet, mut romeo) = (juliet_at("juliet6"), romeo_at("romeo6"));
    befriend(&mut romeo, &mut juliet);
    for content in [
        "<query xmlns='urn:waft:watchers:0'/>".to_owned(),
        format!("<publish xmlns='urn:waft:tuples:0'>{}</publish>", tuple("forged", "")),
        "<watch xmlns='urn:waft:watchers:0'/>".to_owned(),
        "<roles xmlns='urn:waft:roles:0'><watcher/></roles>".to_owned(),
    ] {
        let kind = if content.starts_with("<query") { "get" } else { "set" };
        let answer = ask(&mut romeo, &format!("<iq type='{kind}' id='x' to='juliet6@capulet.test'>{content}</iq>"));
        assert!(answer.contains("<service-unavailable"), "{content}: {answer}");
    }
    assert!(!fetch(&mut romeo, "juliet6@capulet.test", "f").contains("forged"));
}

#[test]
fn a_lease_is_chosen_by_the_watcher_and_made_shorter_by_the_presentity_over_domains() {
    let (mut juliet, mut romeo) = (juliet_at("juliet7"), romeo_at("romeo7"));
    romeo.send("<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
    romeo.sync();
    let lease = |seconds: u32| format!("<lease xmlns='urn:waft:leases:0' seconds='{seconds}'/>");
    romeo.send(format!("<presence type='subscribe' to='juliet7@capulet.test'>{}</presence>", lease(7_200)));
    assert!(juliet.expect("</presence>").contains("seconds='7200'"));
    juliet.send(format!("<presence type='subscribed' to='romeo7@montague.test'>{}</presence>", lease(600)));
    romeo.expect("type='subscribed'");
    let granted = romeo.expect("</presence>");
    assert!(granted.contains("seconds='600'") && granted.contains("until='"), "{granted}");
    // Refreshed: for what was approved, not for more.
    romeo.send(format!("<presence type='subscribe' to='juliet7@capulet.test'>{}</presence>", lease(7_200)));
    romeo.expect("type='subscribed'");
    assert!(romeo.expect("</presence>").contains("seconds='600'"));
    // Both sides hold the same.
    let status = "<iq type='get' id='s'><status xmlns='urn:waft:leases:0' jid='juliet7@capulet.test'/></iq>";
    let answer = ask(&mut romeo, status);
    assert!(answer.contains("<mine to='true'>") && answer.contains("<theirs from='true'>"), "{answer}");
    assert!(answer.contains("<held seconds='600'") && answer.contains("<granted seconds='600'"), "{answer}");
    assert!(!answer.contains("drift"), "{answer}");
    // And the watcher's end shows in the ledger.
    assert!(ask(&mut juliet, WATCHERS).contains("expiration='"));
    // Too short is an error, and nothing is asked.
    romeo.send(format!("<presence type='subscribe' id='e' to='juliet7@capulet.test'>{}</presence>", lease(5)));
    assert!(romeo.expect("</presence>").contains("<interval-too-brief"));
}

/// Copies the files of a server that has ended.
fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("can be made");
    for entry in std::fs::read_dir(from).expect("is there").map_while(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_file()) {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("can be copied");
        }
    }
}

#[test]
fn a_subscription_that_drifted_apart_is_shown_and_repaired() {
    let mut pair = pair();
    let mut juliet = session_at(&pair.capulet, "juliet", "capulet.test", "balcony");
    let mut romeo = session_at(&pair.montague, "romeo", "montague.test", "orchard");
    romeo.send("<presence/>");
    romeo.sync();
    befriend(&mut juliet, &mut romeo);
    // Her server is saved, he subscribes, and her server is given back what was saved.
    pair.capulet.signal("TERM");
    pair.capulet.ended();
    let saved = pair.capulet.folder.join("saved");
    copy_files(&pair.capulet.folder, &saved);
    pair.capulet.restart();
    let mut juliet = session_at(&pair.capulet, "juliet", "capulet.test", "balcony");
    juliet.send("<presence/>");
    juliet.sync();
    befriend(&mut romeo, &mut juliet);
    let question = |kind: &str| {
        format!("<iq type='{kind}' id='s'><status xmlns='urn:waft:leases:0' jid='juliet@capulet.test'/></iq>")
    };
    let answer = ask(&mut romeo, &question("get"));
    assert!(answer.contains("<mine to='true' from='true'/><theirs to='true' from='true'/>"), "{answer}");
    // Nobody who is there makes his server probe.
    romeo.send("<presence type='unavailable'/>");
    romeo.sync();
    pair.capulet.signal("TERM");
    pair.capulet.ended();
    copy_files(&saved, &pair.capulet.folder);
    pair.capulet.restart();
    let answer = ask(&mut romeo, &question("get"));
    assert!(answer.contains("<mine to='true' from='true'/><theirs to='true'/>"), "{answer}");
    assert!(answer.contains("<drift is='not-granted'/>"), "{answer}");
    let answer = ask(&mut romeo, &question("set"));
    assert!(answer.contains("<drift is='not-granted' repaired='true'/>"), "{answer}");
    let answer = ask(&mut romeo, &question("get"));
    assert!(answer.contains("<mine from='true'/><theirs to='true'/>") && !answer.contains("drift"), "{answer}");
    // Somebody who is not there cannot be asked: that is said.
    let unknown = "<iq type='get' id='n'><status xmlns='urn:waft:leases:0' jid='nobody@capulet.test'/></iq>";
    assert!(ask(&mut romeo, unknown).contains("<theirs unknown='true'/>"));
}

#[test]
fn a_session_that_only_watches_is_seen_by_nobody_and_sees_all() {
    let mut juliet = Client::available(&SERVER, "juliet9", "balcony");
    let mut romeo = Client::session(&SERVER, "romeo9", "orchard");
    befriend(&mut romeo, &mut juliet);
    juliet.send("<presence type='subscribe' to='romeo9@localhost'/>");
    juliet.sync();
    romeo.send("<presence type='subscribed' to='juliet9@localhost'/>");
    romeo.sync();
    let mut watcher = Client::session(&SERVER, "romeo9", "lookout");
    let set = "<iq type='set' id='r'><roles xmlns='urn:waft:roles:0'><watcher/></roles></iq>";
    assert!(ask(&mut watcher, set).contains("<roles xmlns='urn:waft:roles:0'><watcher/></roles>"));
    watcher.send("<presence/>");
    watcher.expect("from='juliet9@localhost/balcony'");
    juliet.send("<presence><show>away</show></presence>");
    watcher.expect("<show>away</show>");
    assert!(!juliet.sync().contains("lookout"), "she does not see it");
    watcher.send("<message to='juliet9@localhost' id='m'><body>hi</body></message>");
    assert!(watcher.expect("</message>").contains("<role-missing"));
}

#[test]
fn roles_are_said_as_a_client_binds() {
    SERVER.ensure("juliet10@localhost");
    let mut client = Client::direct(&SERVER);
    let features = client.open("localhost");
    assert!(features.contains("<feature var='urn:waft:roles:0'/>"), "{features}");
    let initial = crate::client::plain("", "juliet10", "juliet10");
    client.send(format!(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'><initial-response>{initial}</initial-response>\
         <bind xmlns='urn:xmpp:bind:0'><tag>lookout</tag><roles xmlns='urn:waft:roles:0'><watcher/></roles></bind>\
         </authenticate>"
    ));
    client.expect("</stream:features>");
    let roles = ask(&mut client, "<iq type='get' id='r'><roles xmlns='urn:waft:roles:0'/></iq>");
    assert!(roles.contains("<roles xmlns='urn:waft:roles:0'><watcher/></roles>"), "{roles}");
}

#[test]
fn an_account_may_be_given_one_role_alone() {
    let server = Server::start("[limits]\nrates = false\n");
    let mut romeo = Client::available(&server, "romeo", "orchard");
    for (role, message, subscribe) in [("inbox", true, false), ("presentity", false, true)] {
        let name = format!("just-{role}");
        server.ensure(&format!("{name}@localhost"));
        let answer =
            server.ask(&serde_json::json!({"do": "user-roles", "jid": format!("{name}@localhost"), "roles": [role]}));
        assert_eq!(answer["is"], "done", "{answer}");
        // The account has to be read first: what is refused comes when it comes, and before what is sent later.
        romeo.send(format!("<message id='m{role}' type='chat' to='{name}@localhost'><body>hi</body></message>"));
        romeo.send(format!("<presence id='s{role}' type='subscribe' to='{name}@localhost'/>"));
        let refused = romeo.expect("</message>|</presence>");
        assert_eq!(refused.contains("<message "), !message, "{role}: {refused}");
        assert_eq!(refused.contains("<presence "), !subscribe, "{role}: {refused}");
        assert!(refused.contains("<service-unavailable"), "{role}: {refused}");
        let mut client = Client::session(&server, &name, "x");
        client.send("<message to='romeo@localhost'><body>hi</body></message>");
        assert!(client.expect("</message>").contains("<role-missing"), "{role} is no sender");
    }
    let wrong = server.ask(&serde_json::json!({"do": "user-roles", "jid": "romeo@localhost", "roles": ["king"]}));
    assert_eq!(wrong["is"], "refused", "{wrong}");
}

#[test]
fn a_client_that_sends_no_presence_sends_messages_and_gets_the_replies() {
    let mut juliet = Client::available(&SERVER, "juliet11", "balcony");
    let mut romeo = Client::session(&SERVER, "romeo11", "orchard");
    romeo.send("<message type='chat' to='juliet11@localhost'><body>hi</body></message>");
    let came = juliet.expect("</message>");
    let from = attribute(&came, "from").to_owned();
    juliet.send(format!("<message type='chat' to='{from}'><body>ho</body></message>"));
    romeo.expect("<body>ho</body>");
}

#[test]
fn a_port_for_presence_and_a_port_for_messages_each_refuse_the_other() {
    let (presence, messages) = (free_address(), free_address());
    let listener = |address, operations: &str| {
        format!("[[listen]]\naddress = \"{address}\"\ntls = \"optional\"\noperations = \"{operations}\"\n")
    };
    let server = Server::start(&format!(
        "[limits]\nrates = false\n{}{}",
        listener(presence, "presence"),
        listener(messages, "messages")
    ));
    let session = |address, user: &str| {
        server.ensure(&format!("{user}@localhost"));
        let mut client = Client::connect(address);
        client.open("localhost");
        client.scram("SCRAM-SHA-1", user, user, ("n,,", b"")).unwrap_or_else(|why| panic!("{why}"));
        client.open("localhost");
        client.bind("x");
        client
    };
    let mut romeo = Client::available(&server, "romeo", "orchard");
    let mut there = session(presence, "juliet");
    befriend(&mut there, &mut romeo);
    there.send("<presence/>");
    there.expect("from='romeo@localhost/orchard'");
    there.send("<message id='m' to='romeo@localhost'><body>hi</body></message>");
    assert!(there.expect("</message>").contains("<role-missing"));
    let mut writes = session(messages, "nurse");
    writes.send("<presence id='p'/>");
    assert!(writes.expect("</presence>").contains("<role-missing"));
    writes.send("<presence id='s' type='subscribe' to='romeo@localhost'/>");
    assert!(writes.expect("</presence>").contains("<role-missing"));
    writes.send("<message type='chat' to='romeo@localhost'><body>from the nurse</body></message>");
    romeo.expect("from the nurse");
    romeo.send("<message type='chat' to='nurse@localhost'><body>to the nurse</body></message>");
    writes.expect("to the nurse");
}

#[test]
fn each_operation_set_of_the_clients_can_be_off_alone() {
    for (off, message, presence) in [("client_messages", false, true), ("client_presence", true, false)] {
        let server = Server::start(&format!("[host.\"localhost\"]\n{off} = false\n[limits]\nrates = false\n"));
        let mut romeo = Client::session(&server, "romeo", "orchard");
        server.ensure("juliet@localhost");
        romeo.send("<message id='m' type='chat' to='juliet@localhost'><body>hi</body></message>");
        assert_eq!(!romeo.sync().contains("<service-unavailable"), message, "{off}");
        romeo.send("<presence id='p' type='subscribe' to='juliet@localhost'/>");
        assert_eq!(!romeo.sync().contains("<service-unavailable"), presence, "{off}");
        let disco = "<iq type='get' id='d' to='localhost'><query xmlns='http://jabber.org/protocol/disco#info'/></iq>";
        assert!(ask(&mut romeo, disco).contains("type='result'"), "{off}: iqs pass");
        let counters = server.status()["counters"].clone();
        for name in ["operations_client_messages", "operations_client_presence", "operations_client_iq"] {
            assert!(counters[name].as_u64().is_some_and(|n| n >= 1), "{name}: {counters}");
        }
    }
}

#[test]
fn each_operation_set_between_servers_can_be_off_alone() {
    for (off, message, presence) in [("server_messages", false, true), ("server_presence", true, false)] {
        let (ours, theirs) = (free_address(), free_address());
        let here = federated("here.test", "there.test", ours, theirs, &format!("{off} = false"));
        let there = federated("there.test", "here.test", theirs, ours, "");
        here.ensure("juliet@here.test");
        // Inside the domain nothing is different.
        let mut nurse = session_at(&here, "nurse", "here.test", "x");
        nurse.send("<presence/>");
        nurse.send("<message id='m' type='chat' to='juliet@here.test'><body>hi</body></message>");
        nurse.send("<presence id='p' type='subscribe' to='juliet@here.test'/>");
        assert!(!nurse.sync().contains("<service-unavailable"), "{off}");
        // In to it.
        let mut romeo = session_at(&there, "romeo", "there.test", "x");
        romeo.send("<presence/>");
        romeo.sync();
        let ping = |id: &str| format!("<iq type='get' id='{id}' to='here.test'><ping xmlns='urn:xmpp:ping'/></iq>");
        romeo.send("<message id='m' type='chat' to='juliet@here.test'><body>hi</body></message>");
        romeo.send("<presence id='p' type='subscribe' to='juliet@here.test'/>");
        romeo.send(ping("behind"));
        let came = romeo.expect("id='behind'");
        let refused = |kind: &str| came.contains(&format!("<{kind} ")) && came.contains("<service-unavailable");
        assert_eq!(!refused("message"), message, "{off}: {came}");
        assert_eq!(!refused("presence"), presence, "{off}: {came}");
        // Out of it: what is refused comes back at once.
        nurse.sync();
        nurse.send("<message id='m2' type='chat' to='romeo@there.test'><body>hi</body></message>");
        nurse.send("<presence id='p2' type='subscribe' to='romeo@there.test'/>");
        let came = nurse.expect("</message>|</presence>");
        assert!(came.contains("<service-unavailable"), "{off}: {came}");
        assert_eq!(came.contains("<message "), !message, "{off}: {came}");
        assert_eq!(came.contains("<presence "), !presence, "{off}: {came}");
    }
}

#[test]
fn the_commands_show_who_watches_and_what_is_seen() {
    let mut juliet = Client::available(&SERVER, "juliet12", "balcony");
    let mut romeo = Client::available(&SERVER, "romeo12", "orchard");
    befriend(&mut romeo, &mut juliet);
    fetch(&mut romeo, "juliet12@localhost", "f");
    let answer = SERVER.ask(&serde_json::json!({"do": "watchers", "jid": "juliet12@localhost"}));
    let watcher = &answer["watchers"][0];
    assert_eq!((&watcher["jid"], &watcher["status"]), (&"romeo12@localhost".into(), &"active".into()), "{answer}");
    assert_eq!(watcher["fetches"], 1, "{answer}");
    let seen = |who: Option<&str>| {
        let mut request = serde_json::json!({"do": "fetch", "jid": "juliet12@localhost"});
        if let Some(who) = who {
            request["watcher"] = who.into();
        }
        SERVER.ask(&request)["xml"].as_str().map(str::to_owned)
    };
    assert!(seen(None).is_some_and(|xml| xml.contains("balcony")));
    assert!(seen(Some("romeo12@localhost")).is_some_and(|xml| xml.contains("<basic>open</basic>")));
    assert_eq!(seen(Some("tybalt@localhost")), None);
}

#[test]
fn who_fetches_under_another_name_is_listed_by_that_name_and_can_be_blocked() {
    let (mut juliet, mut romeo) = (juliet_at("juliet13"), romeo_at("romeo13"));
    let hidden = |id: &str| {
        format!(
            "<iq type='get' id='{id}' to='juliet13@capulet.test'><fetch xmlns='urn:waft:fetch:0' pseudonym='true'/></iq>"
        )
    };
    let answer = ask(&mut romeo, &hidden("h1"));
    assert!(answer.contains("to='romeo13@montague.test/orchard'"), "{answer}");
    let listed = ask(&mut juliet, WATCHERS);
    assert!(listed.contains("@montague.test'") && !listed.contains("romeo13"), "{listed}");
    let name = between(&listed, "jid='~", "'").to_owned();
    ask(
        &mut juliet,
        &format!("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='~{name}'/></block></iq>"),
    );
    assert!(ask(&mut romeo, &hidden("h2")).contains("<service-unavailable"));
    let again = ask(&mut juliet, WATCHERS);
    let row = between(&again, &format!("jid='~{name}'"), "/>").to_owned();
    assert!(row.contains("refused='2'") || row.contains("refused='1'"), "{row}");
}
