//! Access rules, through two servers of two domains: who sees, asks and writes what. RFC 2779 §2.3, §5.1–§5.4.

use crate::client::{Client, attribute, between};
use crate::server::{Server, eventually, free_address};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

/// `a.rules` and `b.rules`, which know where the other is; `guests.rules` lets in anybody.
static SERVERS: LazyLock<(Server, Server)> = LazyLock::new(|| {
    let (a, b) = (free_address(), free_address());
    let start = |hosts: &str, here, there, elsewhere: &[&str]| {
        let routes: String =
            elsewhere.iter().map(|name| format!("[s2s.domain.\"{name}\"]\naddress = \"{there}\"\n")).collect();
        Server::start(&format!(
            "{hosts}[limits]\nrates = false\n{routes}[[listen]]\nkind = \"s2s\"\naddress = \"{here}\"\n"
        ))
    };
    let of_a = "[host.\"a.rules\"]\nanonymous_domains = [\"guests.rules\"]\n";
    let of_b = "[host.\"b.rules\"]\n[host.\"guests.rules\"]\nanonymous = true\n";
    (start(of_a, a, b, &["b.rules", "guests.rules"]), start(of_b, b, a, &["a.rules"]))
});

pub fn server(domain: &str) -> &'static Server {
    if domain == "a.rules" { &SERVERS.0 } else { &SERVERS.1 }
}

/// A bound session: `user@domain/resource`.
pub fn session(jid: &str) -> Client {
    let (bare, resource) = jid.split_once('/').unwrap();
    let (user, domain) = bare.split_once('@').unwrap();
    let (mut client, _) = Client::authenticated(server(domain), user, domain);
    client.bind(resource);
    // An interested resource: RFC 6121 §2.2.
    client.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq>");
    client.expect("id='roster'");
    client.sync();
    client
}

pub fn available(jid: &str) -> Client {
    let mut client = session(jid);
    client.send("<presence/>");
    client.sync();
    client
}

pub fn bare(client: &Client) -> String {
    client.jid.split('/').next().unwrap().to_owned()
}

/// `watcher` is subscribed to `presentity`, and has heard so.
pub fn subscribe(watcher: &mut Client, presentity: &mut Client) {
    watcher.send(format!("<presence type='subscribe' to='{}'/>", bare(presentity)));
    presentity.expect("type='subscribe'");
    presentity.send(format!("<presence type='subscribed' to='{}'/>", bare(watcher)));
    watcher.expect("type='subscribed'");
    presentity.sync();
}

/// An iq of the client; gives its answer.
pub fn asks(client: &mut Client, kind: &str, to: &str, content: &str) -> String {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let id = format!("ask{}", NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
    let to = if to.is_empty() { String::new() } else { format!(" to='{to}'") };
    client.send(format!("<iq type='{kind}' id='{id}'{to}>{content}</iq>"));
    let before = client.expect(&format!("id='{id}'"));
    let start = before.rfind("<iq").unwrap();
    let mut answer = before[start..].to_owned();
    answer.push_str(&client.expect(">"));
    if !answer.ends_with("/>") {
        answer.push_str(&client.expect("</iq>"));
    }
    answer
}

const NS: &str = "xmlns='urn:waft:rules:0'";

pub fn rule(id: &str, identity: &str, actions: &str, transformations: &str) -> String {
    let conditions = match identity {
        "" => String::new(),
        identity => format!("<conditions><identity>{identity}</identity></conditions>"),
    };
    let transformations = match transformations {
        "" => String::new(),
        some => format!("<transformations>{some}</transformations>"),
    };
    format!(
        "<rule xmlns='urn:ietf:params:xml:ns:common-policy' id='{id}'>{conditions}<actions>{actions}</actions>{transformations}</rule>"
    )
}

pub fn handling(name: &str) -> String {
    format!("<sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>{name}</sub-handling>")
}

/// One rule, or the removal of one.
pub fn put(client: &mut Client, rule: &str) {
    let answer = asks(client, "set", "", &format!("<rules {NS} etag='*'>{rule}</rules>"));
    assert_eq!(attribute(&answer, "type"), "result", "{answer}");
}

pub fn one(of: &Client) -> String {
    format!("<one id='xmpp:{}'/>", bare(of))
}

// RFC 2779 §2.3.1, §2.3.2; RFC 5025.
#[test]
fn rules_are_read_and_edited_by_iq_and_a_stale_etag_is_a_conflict() {
    let mut juliet = session("edits@a.rules/home");
    let shown = asks(&mut juliet, "get", "", &format!("<rules {NS}/>"));
    let etag = attribute(&between(&shown, "<rules ", ">").replace("etag", " etag"), "etag").to_owned();
    let set = |etag: &str, content: &str| format!("<rules {NS} etag='{etag}'>{content}</rules>");
    let answer = asks(&mut juliet, "set", "", &set(&etag, &rule("one", "<many/>", &handling("confirm"), "")));
    assert_eq!(attribute(&answer, "type"), "result", "{answer}");
    let answer = asks(&mut juliet, "set", "", &set(&etag, &rule("two", "<many/>", &handling("allow"), "")));
    assert!(answer.contains("<conflict "), "{answer}");
    let shown = asks(&mut juliet, "get", "", &format!("<rules {NS}/>"));
    assert!(shown.contains("id='one'") && !shown.contains("id='two'"), "{shown}");
    let answer = asks(&mut juliet, "set", "", &set("*", "<remove id='one'/>"));
    assert_eq!(attribute(&answer, "type"), "result", "{answer}");
    let answer = asks(&mut juliet, "set", "", &set("*", &rule("x", "<nobody/>", "", "")));
    assert!(answer.contains("<not-acceptable "), "{answer}");
}

// RFC 2779 §2.3.3, §5.2.3; RFC 5025 §3.3.
#[test]
fn each_watcher_in_two_domains_is_shown_his_own_view_at_every_change_and_probe() {
    let mut juliet = available("views@a.rules/home");
    let (mut near, mut far, mut full) =
        (available("near@a.rules/x"), available("far@b.rules/x"), available("full@b.rules/x"));
    for watcher in [&mut near, &mut far, &mut full] {
        subscribe(watcher, &mut juliet);
        watcher.expect(&format!("from='{}'", juliet.jid));
    }
    let part = "<provide-services xmlns='urn:ietf:params:xml:ns:pres-rules'><all-services/></provide-services>";
    put(&mut juliet, &rule("far", &one(&far), &handling("allow"), part));
    let other = format!("{part}<other-status {NS}><show>away</show><status>busy</status></other-status>");
    put(&mut juliet, &rule("near", &one(&near), &handling("allow"), &other));
    assert!(near.expect("</presence>").contains("<show>away</show><status>busy</status>"));
    juliet.send("<presence><show>dnd</show><status>reading</status><priority>3</priority></presence>");
    assert!(full.expect("</presence>").contains("<show>dnd</show><status>reading</status>"));
    let heard = far.expect("</presence>");
    assert!(heard.contains("<priority>3") && !heard.contains("dnd") && !heard.contains("reading"), "{heard}");
    far.send(format!("<presence type='probe' to='{}'/>", bare(&juliet)));
    let heard = far.expect("</presence>");
    assert!(!heard.contains("reading"), "{heard}");
}

// RFC 2779 §5.1.15; RFC 5025 §3.2.1 polite-block.
#[test]
fn a_politely_blocked_watcher_of_another_domain_is_granted_a_subscription_and_sees_nobody() {
    let mut juliet = available("polite@a.rules/home");
    put(&mut juliet, &rule("p", "<many domain='b.rules'/>", &handling("polite-block"), ""));
    let mut iago = available("iago@b.rules/x");
    iago.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
    iago.expect("type='subscribed'");
    juliet.send("<presence><show>chat</show></presence>");
    juliet.sync();
    iago.send(format!("<presence type='probe' to='{}'/>", bare(&juliet)));
    let heard = iago.expect("type='unavailable'");
    assert!(!heard.contains("chat"), "{heard}");
    let iq = asks(&mut iago, "get", &juliet.jid, "<query xmlns='jabber:iq:version'/>");
    assert!(iq.contains("<service-unavailable "), "{iq}");
    let items = asks(&mut iago, "get", &bare(&juliet), "<query xmlns='http://jabber.org/protocol/disco#items'/>");
    assert!(items.contains("type='result'") && !items.contains("<item "), "{items}");
    iago.send(format!("<message type='chat' id='m' to='{}'><body>there?</body></message>", bare(&juliet)));
    assert_eq!(iago.sync(), "");
    assert_eq!(iago.hear(Duration::from_millis(300)), "");
    assert!(!juliet.sync().contains("there?"));
    // She comes again, and has what he wrote.
    let mut phone = available("polite@a.rules/phone");
    phone.expect("there?");
}

// RFC 2779 §5.1.5, §5.1.9, §5.1.13.
#[test]
fn whoever_a_rule_blocks_is_refused_and_told_so_and_a_subscription_that_was_ends() {
    let mut juliet = available("blocks@a.rules/home");
    let mut paris = available("paris@b.rules/x");
    subscribe(&mut paris, &mut juliet);
    paris.expect(&format!("from='{}'", juliet.jid));
    put(&mut juliet, &rule("b", &one(&paris), &handling("block"), ""));
    paris.expect("type='unavailable'");
    paris.expect("type='unsubscribed'");
    paris.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
    paris.expect("type='unsubscribed'");
    assert!(!juliet.sync().contains("type='subscribe'"));
}

// RFC 2779 §2.3.7.
#[test]
fn rules_hold_while_their_owner_is_away_and_over_a_restart() {
    let mut server = Server::start("[host.\"a.rules\"]\n[limits]\nrates = false\n");
    let log_in = |server: &Server, user: &str| {
        let (mut client, _) = Client::authenticated(server, user, "a.rules");
        client.bind("x");
        client.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>");
        client.sync();
        client
    };
    let mut juliet = log_in(&server, "juliet");
    put(&mut juliet, &rule("all", "<many domain='a.rules'/>", &handling("allow"), ""));
    drop(juliet);
    server.signal("TERM");
    server.ended();
    server.restart();
    let mut romeo = log_in(&server, "romeo");
    romeo.send("<presence type='subscribe' to='juliet@a.rules'/>");
    romeo.expect("type='subscribed'");
}

/// Somebody who is authenticated as nobody in particular.
pub fn guest() -> Client {
    let mut guest = Client::connect(SERVERS.1.plain);
    guest.open("guests.rules");
    guest.send("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='ANONYMOUS'>=</auth>");
    guest.expect("</success>|<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>");
    guest.open("guests.rules");
    guest.bind("x");
    guest.send("<iq type='get' id='roster'><query xmlns='jabber:iq:roster'/></iq><presence/>");
    guest.sync();
    guest
}

// RFC 2779 §5.1.3, §5.1.14.
#[test]
fn a_rule_speaks_of_watchers_who_are_nobody_in_particular() {
    let mut juliet = available("crowd@a.rules/home");
    put(&mut juliet, &rule("anon", &format!("<unauthenticated {NS}/>"), &handling("block"), ""));
    put(&mut juliet, &rule("rest", "<many/>", &handling("allow"), ""));
    let mut guest = guest();
    guest.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
    guest.expect("type='unsubscribed'");
    let mut known = available("known@b.rules/x");
    known.send(format!("<presence type='subscribe' to='{}'/>", bare(&juliet)));
    known.expect("type='subscribed'");
}

// RFC 2779 §2.3.5, §5.4.10.
#[test]
fn messages_are_delivered_stored_refused_or_dropped_by_rule_across_domains() {
    let mut juliet = available("letters@a.rules/home");
    for (name, heard, answered) in
        [("deliver", true, false), ("store", false, false), ("drop", false, false), ("refuse", false, true)]
    {
        let mut sender = available(&format!("to-{name}@b.rules/x"));
        put(&mut juliet, &rule(name, &one(&sender), &format!("<message {NS}>{name}</message>"), ""));
        sender.send(format!("<message type='chat' id='m' to='{}'><body>by {name}</body></message>", bare(&juliet)));
        if answered {
            assert!(sender.expect("</message>").contains("<service-unavailable "));
        }
        if heard {
            juliet.expect("by deliver");
        } else {
            assert_eq!(sender.sync(), "");
        }
    }
    assert!(!juliet.hear(Duration::from_millis(200)).contains("<body>by"), "{}", juliet.transcript());
    let mut phone = available("letters@a.rules/phone");
    let heard = phone.expect("by store");
    assert!(!heard.contains("by drop"));
}

// RFC 2779 §2.3.6.
#[test]
fn another_reads_the_inbox_by_a_grant_and_the_owner_sees_who_did() {
    let mut juliet = available("shared@a.rules/home");
    let (mut nurse, mut iago) = (available("nurse@b.rules/x"), available("spy@b.rules/x"));
    iago.send(format!("<message type='chat' id='m' to='{}'><body>a secret</body></message>", bare(&juliet)));
    juliet.expect("a secret");
    put(&mut juliet, &rule("r", &one(&nurse), &format!("<read {NS}>true</read>"), ""));
    let query = "<query xmlns='urn:xmpp:mam:2'/>";
    let refused = asks(&mut iago, "set", &bare(&juliet), query);
    assert!(refused.contains("<service-unavailable "), "{refused}");
    nurse.send(format!("<iq type='set' id='read' to='{}'>{query}</iq>", bare(&juliet)));
    let heard = nurse.expect("</iq>");
    assert!(heard.contains("a secret") && heard.contains("<fin "), "{heard}");
    let shown = asks(&mut juliet, "get", "", &format!("<readers {NS}/>"));
    assert!(shown.contains(&format!("jid='{}'", nurse.jid)) && !shown.contains("spy@"), "{shown}");
}

// RFC 2779 §5.3.2.
#[test]
fn only_solicited_presence_is_delivered_where_the_user_says_so_and_rooms_go_on() {
    let mut juliet = available("quiet@a.rules/home");
    let mut iago = available("loud@b.rules/x");
    iago.send(format!("<presence to='{}'><status>buy!</status></presence>", bare(&juliet)));
    juliet.expect("buy!");
    let answer = asks(&mut juliet, "set", "", &format!("<notifications {NS} take='solicited'/>"));
    assert!(answer.contains("take='solicited'"), "{answer}");
    iago.send(format!("<presence to='{}'><status>buy more!</status></presence>", bare(&juliet)));
    eventually("it is counted", || SERVERS.0.status()["counters"]["presence_unsolicited"].as_u64() > Some(0));
    assert!(!juliet.sync().contains("buy"));
    // As a room is, whoever was addressed may answer.
    juliet.send(format!("<presence to='{}'/>", iago.jid));
    iago.expect(&format!("from='{}'", juliet.jid));
    iago.send(format!("<presence to='{}'><status>welcome</status></presence>", juliet.jid));
    juliet.expect("welcome");
}

// XEP-0191, XEP-0016: views of the rules.
#[test]
fn the_block_list_and_the_rosters_subscriptions_are_rules_of_the_same_document() {
    let mut juliet = available("lists@a.rules/home");
    let mut romeo = available("lover@b.rules/x");
    subscribe(&mut romeo, &mut juliet);
    asks(&mut juliet, "set", "", "<block xmlns='urn:xmpp:blocking'><item jid='evil.example'/></block>");
    let shown = asks(&mut juliet, "get", "", &format!("<rules {NS}/>"));
    assert!(shown.contains("<many domain='evil.example'/>") && shown.contains(&one(&romeo)), "{shown}");
    let blocked = rule("blocked", "<one id='xmpp:foe@evil.example'/>", &handling("block"), "");
    put(&mut juliet, &blocked);
    let list = asks(&mut juliet, "get", "", "<blocklist xmlns='urn:xmpp:blocking'/>");
    assert!(list.contains("foe@evil.example") && !list.contains("jid='evil.example'"), "{list}");
    put(
        &mut juliet,
        &rule("subscribers", "", &handling("allow"), "")
            .replace("<actions>", "<conditions><identity/></conditions><actions>"),
    );
    romeo.expect("type='unsubscribed'");
}

// XEP-0050.
#[test]
fn a_client_that_knows_forms_alone_edits_the_rules() {
    let mut juliet = available("forms@a.rules/home");
    let to = bare(&juliet);
    let commands = "http://jabber.org/protocol/commands";
    let items = asks(
        &mut juliet,
        "get",
        &to,
        &format!("<query xmlns='http://jabber.org/protocol/disco#items' node='{commands}'/>"),
    );
    assert!(items.contains("urn:waft:rules:0#put"), "{items}");
    let node = format!("xmlns='{commands}' node='urn:waft:rules:0#put'");
    let form = asks(&mut juliet, "set", &to, &format!("<command {node} action='execute'/>"));
    let session = attribute(between(&form, "<command ", ">"), "sessionid").to_owned();
    let fields: String = [("id", "night"), ("who", "everyone"), ("hours", "00:00-00:00"), ("message", "store")]
        .map(|(var, value)| format!("<field var='{var}'><value>{value}</value></field>"))
        .concat();
    let filled = format!(
        "<command {node} sessionid='{session}' action='complete'><x xmlns='jabber:x:data' type='submit'>{fields}</x></command>"
    );
    let done = asks(&mut juliet, "set", &to, &filled);
    assert!(done.contains("status='completed'"), "{done}");
    let mut owl = available("owl@b.rules/x");
    owl.send(format!("<message type='chat' to='{to}'><body>awake?</body></message>"));
    assert_eq!(owl.sync(), "");
    assert!(!juliet.hear(Duration::from_millis(200)).contains("awake?"));
}

// What only the owner may do stays in his domain.
#[test]
fn another_domain_can_neither_read_nor_set_the_rules_of_an_account() {
    let juliet = available("own@a.rules/home");
    let mut iago = available("meddler@b.rules/x");
    for (kind, content) in [
        ("get", format!("<rules {NS}/>")),
        ("set", format!("<rules {NS} etag='*'>{}</rules>", rule("x", "", &handling("allow"), ""))),
        ("get", format!("<view {NS} jid='x@b.rules'/>")),
        ("get", format!("<readers {NS}/>")),
        ("set", format!("<notifications {NS} take='all'/>")),
    ] {
        let answer = asks(&mut iago, kind, &bare(&juliet), &content);
        assert!(answer.contains("<service-unavailable "), "{answer}");
    }
}

fn waft_rules(arguments: &[&str]) -> String {
    let run = Command::new(env!("CARGO_BIN_EXE_waft"))
        .arg("rules")
        .args(arguments)
        .arg("--data")
        .arg(&SERVERS.0.folder)
        .arg("--config")
        .arg(SERVERS.0.folder.join("waft.toml"))
        .output()
        .unwrap();
    String::from_utf8_lossy(if run.status.success() { &run.stdout } else { &run.stderr }).into_owned()
}

#[test]
fn an_operator_shows_changes_and_explains_rules_on_the_command_line() {
    let mut juliet = available("cli@a.rules/home");
    let mut boss = available("boss@b.rules/x");
    subscribe(&mut boss, &mut juliet);
    boss.expect(&format!("from='{}'", juliet.jid));
    let owner = "cli@a.rules";
    let done = waft_rules(&["put", owner, "boss", "who=boss@b.rules", "subscribe=polite-block"]);
    assert!(done.contains("boss: boss@b.rules; subscribe polite-block"), "{done}");
    boss.expect("type='unavailable'");
    let shown = waft_rules(&["show", owner]);
    assert!(shown.contains("subscribers: 1 (the roster's subscriptions)") && shown.contains("boss: "), "{shown}");
    let explained = waft_rules(&["explain", owner, "boss@b.rules"]);
    assert!(explained.contains("a message                   store"), "{explained}");
    assert!(waft_rules(&["put", owner, "x", "who=everyone", "dance=true"]).contains("a rule has no \"dance\""));
    assert!(waft_rules(&["remove", owner, "boss"]).contains("removed the rule boss"));
    boss.expect(&format!("from='{}'", juliet.jid));
    assert!(waft_rules(&["show", "nobody@a.rules"]).contains("there is no account"));
}
