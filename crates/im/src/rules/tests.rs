//! Rules as their owner writes them, and what the watchers hear of it.

use super::*;
use crate::effects::Effect;
use crate::testing::{Fx, START, Scene, account_with, contact, jid};
use crate::view::{Exit, view};
use store::{AccountRecord, Change};

const COMMON: &str = "xmlns='urn:ietf:params:xml:ns:common-policy'";
const PRES: &str = "xmlns='urn:ietf:params:xml:ns:pres-rules'";
const NS: &str = "xmlns='urn:waft:rules:0'";

fn record() -> AccountRecord {
    let mut nurse = contact("nurse@capulet.example", "both");
    nurse.groups = vec!["kin".into()];
    let roster = vec![
        contact("romeo@montague.example", "both"),
        nurse,
        contact("paris@verona.example", "from"),
        contact("tybalt@capulet.example", "from"),
    ];
    AccountRecord { created: START, roster_version: 1, roster, ..AccountRecord::default() }
}

fn juliet() -> Scene {
    let scene = account_with("juliet@capulet.example", record()).with("home", 5);
    scene.having("home", |session| {
        let xml = "<presence from='juliet@capulet.example/home'><show>dnd</show><status>reading</status>\
                   <priority>5</priority><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='v'/>\
                   <idle xmlns='urn:xmpp:idle:1' since='2026-01-01T00:00:00Z'/></presence>";
        session.presence = Some(Arc::new(crate::testing::stanza(xml)));
    })
}

fn rule(id: &str, identity: &str, actions: &str, transformations: &str) -> String {
    let transformations = match transformations {
        "" => String::new(),
        some => format!("<transformations>{some}</transformations>"),
    };
    let conditions = match identity {
        "" => String::new(),
        some => format!("<conditions><identity>{some}</identity></conditions>"),
    };
    format!("<rule {COMMON} id='{id}'>{conditions}<actions>{actions}</actions>{transformations}</rule>")
}

fn handling(name: &str) -> String {
    format!("<sub-handling {PRES}>{name}</sub-handling>")
}

fn one(who: &str) -> String {
    format!("<one id='xmpp:{who}'/>")
}

fn sets(scene: &mut Scene, etag: &str, content: &str) -> Fx {
    scene.sends("home", &format!("<iq type='set' id='r1'><rules {NS} etag='{etag}'>{content}</rules></iq>"))
}

fn put(scene: &mut Scene, rule: &str) -> Fx {
    let fx = sets(scene, "*", rule);
    let answer = fx.delivered("home").pop().expect("an answer");
    assert!(answer.contains("type='result'"), "{answer}");
    fx
}

fn document(scene: &mut Scene) -> String {
    let fx = scene.sends("home", &format!("<iq type='get' id='g1'><rules {NS}/></iq>"));
    fx.delivered("home").pop().expect("an answer")
}

fn etag(scene: &mut Scene) -> String {
    let shown = document(scene);
    shown.split("etag='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an etag").to_owned()
}

fn error(fx: &Fx) -> String {
    let answer = fx.delivered("home").pop().expect("an answer");
    assert!(answer.contains("type='error'"), "{answer}");
    answer
}

/// Kinds of watchers × kinds of rules × exits: everything that leaves the account passes this table.
///
/// In the order of [`Exit::ALL`]: A all, S in part, o as if away, ? what the owner has not said, - nothing.
#[test]
fn every_exit_shows_each_kind_of_watcher_what_each_kind_of_rule_says() {
    let kinds = [
        ("owner", "juliet@capulet.example/x"),
        ("subscriber", "romeo@montague.example/x"),
        ("kin", "nurse@capulet.example"),
        ("blocked", "tybalt@capulet.example"),
        ("addressee", "room@chat.example/me"),
        ("stranger", "iago@venice.example"),
        ("anonymous", "x7@anonymous.example"),
    ];
    let part = format!("<provide-services {PRES}><all-services/></provide-services>");
    let table: &[(&str, String, [&str; 7])] = &[
        (
            "no rule",
            String::new(),
            [
                "AAAAAAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "????A?????A??AA?",
            ],
        ),
        (
            "allow a subscriber in part",
            rule("r", &one("romeo@montague.example"), &handling("allow"), &part),
            [
                "AAAAAAAAAAAAAAAA",
                "SSS?SSSSSSASSSSS",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "????A?????A??AA?",
            ],
        ),
        (
            "block everybody",
            rule("r", "", &handling("block"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "----A-----A---A-",
                "----A-----A---A-",
                "----------A-----",
                "----A----AA---A-",
                "----A-----A---A-",
                "----A-----A---A-",
            ],
        ),
        (
            "block one by name",
            rule("r", &one("romeo@montague.example"), &handling("block"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "----------A-----",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "????A?????A??AA?",
            ],
        ),
        (
            "confirm",
            rule("r", "<many/>", &handling("confirm"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "????A?????A???A?",
                "????A?????A???A?",
                "----------A-----",
                "????A????AA???A?",
                "????A?????A???A?",
                "????A?????A??AA?",
            ],
        ),
        (
            "block one politely",
            rule("r", &one("romeo@montague.example"), &handling("polite-block"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "ooo?ooAoAoAooAoo",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "????A?????A??AA?",
            ],
        ),
        (
            "allow the anonymous",
            rule("r", &format!("<unauthenticated {NS}/>"), &handling("allow"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "AAA?AAAAAAAAAAAA",
            ],
        ),
        (
            "fetch, and no subscription",
            rule(
                "r",
                "<many domain='venice.example'/>",
                &format!("<fetch {NS}>allow</fetch>{}", handling("block")),
                "",
            ),
            [
                "AAAAAAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "--A-AAAAAAA-AAA-",
                "????A?????A??AA?",
            ],
        ),
        (
            "watch",
            rule("r", &format!("<group {NS} name='kin'/>"), &format!("<watch {NS}>true</watch>"), ""),
            [
                "AAAAAAAAAAAAAAAA",
                "AAA?AAAAAAAAAAAA",
                "AAAAAAAAAAAAAAAA",
                "----------A-----",
                "????A???AAA??AA?",
                "????A?????A??AA?",
                "????A?????A??AA?",
            ],
        ),
    ];
    for (what, rule, rows) in table {
        let mut scene = juliet()
            .policy(|policy| policy.anonymous_domains = vec!["anonymous.example".into()])
            .having("home", |session| session.directed.push(jid("room@chat.example/me")));
        scene.blocks.insert(jid("tybalt@capulet.example"));
        if !rule.is_empty() {
            let parsed = document::Rule::of(&Element::parse(rule.as_bytes(), "").expect("XML")).expect("a rule");
            let document = Document { version: 1, rules: vec![parsed] };
            scene.rules = Rules::of(document, Vec::new(), Away::default());
        }
        for ((kind, who), row) in kinds.iter().zip(rows) {
            let found: String = Exit::ALL.iter().map(|&exit| letter(&scene, who, exit)).collect();
            assert_eq!(found, *row, "{kind}, {what}");
        }
    }
}

fn letter(scene: &Scene, who: &str, exit: Exit) -> char {
    let view = view(scene, &jid(who), exit);
    match (view.handling, &view.shape) {
        (Handling::Allow, None) => 'A',
        (Handling::Allow, Some(_)) => 'S',
        (Handling::PoliteBlock, _) => 'o',
        (Handling::Confirm, _) => '?',
        (Handling::Block, _) => '-',
    }
}

#[test]
fn a_rule_is_committed_then_those_it_concerns_are_told_then_it_is_acknowledged() {
    let mut juliet = juliet();
    let fx = put(&mut juliet, &rule("r", &one("romeo@montague.example"), &handling("polite-block"), ""));
    assert_eq!(fx.told_to(), ["romeo@montague.example"]);
    assert!(fx.told()[0].1.contains("type='unavailable'"), "{:?}", fx.told());
    assert!(matches!(&fx.commits()[..], [Change::BlobPut { .. }]));
    assert!(matches!(fx.list[0], Effect::Commit { .. }));
    assert!(fx.in_order(|it| matches!(it, Effect::Fan { .. }), |it| matches!(it, Effect::Edge { .. })));
    // The same again concerns nobody.
    let fx = put(&mut juliet, &rule("r", &one("romeo@montague.example"), &handling("polite-block"), ""));
    assert!(fx.told().is_empty(), "{:?}", fx.told());
}

#[test]
fn transformations_cut_what_they_do_not_provide_at_every_exit() {
    let mut juliet = juliet();
    let parts =
        format!("<provide-services {PRES}><all-services/></provide-services><provide-show {NS}>true</provide-show>");
    let fx = put(&mut juliet, &rule("r", "<many domain='montague.example'/>", &handling("allow"), &parts));
    let told = fx.told();
    assert_eq!(told.len(), 1, "only his view has changed: {told:?}");
    for cut in ["<status", "urn:xmpp:idle", "caps"] {
        assert!(!told[0].1.contains(cut), "{}", told[0].1);
    }
    assert!(told[0].1.contains("<show>dnd</show>") && told[0].1.contains("<priority>5"), "{}", told[0].1);
    let fx = juliet.receive("<presence type='probe' from='romeo@montague.example'/>");
    assert!(fx.told()[0].1.contains("dnd") && !fx.told()[0].1.contains("reading"), "{:?}", fx.told());
    // A change of what he is not shown is none to him.
    let fx =
        juliet.sends("home", "<presence><show>dnd</show><status>writing</status><priority>5</priority></presence>");
    assert!(!fx.told_to().contains(&"romeo@montague.example".to_owned()), "{:?}", fx.told());
    assert!(fx.told_to().contains(&"paris@verona.example".to_owned()));
}

#[test]
fn an_audience_is_shown_another_status() {
    let mut juliet = juliet();
    let other = format!("<other-status {NS}><show>away</show><status>at mass</status></other-status>");
    let parts = format!("<provide-services {PRES}><all-services/></provide-services>{other}");
    let fx = put(&mut juliet, &rule("r", &format!("<group {NS} name='kin'/>"), &handling("allow"), &parts));
    let (to, told) = fx.told().remove(0);
    assert_eq!(to, "nurse@capulet.example");
    assert!(told.contains("<show>away</show><status>at mass</status>") && !told.contains("dnd"), "{told}");
}

#[test]
fn a_resource_that_is_not_shown_is_not_there() {
    let mut juliet = juliet().with("phone", 0);
    let parts = format!(
        "<provide-services {PRES}><occurrence-id>phone</occurrence-id></provide-services>\
                         <provide-all-attributes {PRES}/>"
    );
    let fx = put(&mut juliet, &rule("r", &one("romeo@montague.example"), &handling("allow"), &parts));
    let told = fx.told();
    assert!(told.len() == 1 && told[0].1.contains("unavailable") && told[0].1.contains("/home"), "{told:?}");
    let ask = |kind: &str| {
        format!("<iq type='get' id='q' from='romeo@montague.example/x' to='juliet@capulet.example'>{kind}</iq>")
    };
    let fx = juliet.receive(&ask("<query xmlns='http://jabber.org/protocol/disco#items'/>"));
    assert!(fx.told()[0].1.contains("/phone") && !fx.told()[0].1.contains("/home"), "{:?}", fx.told());
    let fx = juliet.receive("<iq type='get' id='q' from='romeo@montague.example/x' to='juliet@capulet.example/home'><ping xmlns='urn:xmpp:ping'/></iq>");
    assert!(fx.told()[0].1.contains("service-unavailable"), "{:?}", fx.told());
    // It leaves, and he hears nothing of it.
    let fx = juliet.closes("home");
    assert!(!fx.told_to().contains(&"romeo@montague.example".to_owned()), "{:?}", fx.told());
}

#[test]
fn a_stale_etag_is_a_conflict_and_changes_nothing() {
    let mut juliet = juliet();
    let known = etag(&mut juliet);
    put(&mut juliet, &rule("a", "<many/>", &handling("confirm"), ""));
    let fx = sets(&mut juliet, &known, &rule("b", "<many/>", &handling("allow"), ""));
    assert!(error(&fx).contains("<conflict") && fx.commits().is_empty());
    let now = etag(&mut juliet);
    let fx = sets(&mut juliet, &now, &rule("b", "<many/>", &handling("allow"), ""));
    assert!(fx.delivered("home")[0].contains("type='result'"));
}

#[test]
fn what_is_not_known_in_a_document_refuses_it_whole() {
    let mut juliet = juliet();
    for wrong in [
        rule("r", "<one id='xmpp:@'/>", &handling("allow"), ""),
        rule("r", "<any/>", &handling("allow"), ""),
        rule("r", "<many/>", &handling("perhaps"), ""),
        rule("r", "<many/>", &format!("<dance {NS}>true</dance>"), ""),
        rule("r", "<many/>", "", &format!("<provide-all {PRES}/>")),
        format!("<rule {COMMON} id='r'><conditions><phase-of-the-moon xmlns='x'/></conditions></rule>"),
        format!("<rule {COMMON} id=''/>"),
    ] {
        let fx = sets(&mut juliet, "*", &wrong);
        assert!(error(&fx).contains("<not-acceptable") && fx.commits().is_empty(), "{wrong}");
    }
    let twice = format!("<ruleset {COMMON}>{0}{0}</ruleset>", rule("r", "<many/>", "", ""));
    assert!(error(&sets(&mut juliet, "*", &twice)).contains("two rules"));
}

#[test]
fn rules_that_cannot_be_read_again_forbid_all_but_to_the_owner() {
    let mut stored = record();
    stored.settings = vec![(KEY.into(), b"<rules xmlns='urn:waft:rules:0' version='1'><nonsense/></rules>".to_vec())];
    let juliet = account_with("juliet@capulet.example", stored).with("home", 0);
    assert!(juliet.rules.is_unreadable());
    for &exit in Exit::ALL {
        assert_eq!(letter(&juliet, "juliet@capulet.example/x", exit), 'A');
        let seen = letter(&juliet, "romeo@montague.example", exit);
        assert_eq!(seen, if exit == Exit::MessageError { 'A' } else { '-' }, "{exit:?}");
    }
}

#[test]
fn what_is_stored_is_read_again() {
    let mut juliet = juliet();
    put(
        &mut juliet,
        &rule(
            "r",
            "<many domain='*.montague.example'><except id='xmpp:romeo@montague.example'/></many>",
            &handling("polite-block"),
            "",
        ),
    );
    juliet.sends("home", &format!("<iq type='set' id='s'><sphere {NS}>work home</sphere></iq>"));
    let stored = juliet.rules.to_stored();
    let again = Rules::from_stored(Some(&stored));
    assert!(!again.is_unreadable());
    assert_eq!(again.to_stored(), stored);
    assert_eq!((again.version(), again.sphere().len(), again.rules().len()), (1, 2, 1));
}

// RFC 5025 §3.2.1; RFC 2779 §5.1.5, §5.1.9.
#[test]
fn a_rule_that_blocks_ends_the_subscription_and_says_so() {
    let mut juliet = juliet().having("home", |session| session.interested = true);
    let fx = put(&mut juliet, &rule("r", "<many domain='verona.example'/>", &handling("block"), ""));
    let told = fx.told();
    assert!(told.iter().all(|(to, _)| to == "paris@verona.example"), "{told:?}");
    assert!(told[0].1.contains("type='unavailable'") && told[1].1.contains("type='unsubscribed'"), "{told:?}");
    assert_eq!(told.len(), 2);
    assert!(!juliet.roster.subscription(&jid("paris@verona.example")).from);
    assert!(fx.delivered("home")[0].contains("subscription='none'"), "{:?}", fx.delivered("home"));
    let commits = fx.list.iter().filter(|it| matches!(it, Effect::Commit { .. })).count();
    assert_eq!(commits, 1, "rule and roster are one write");
}

#[test]
fn requests_are_answered_as_the_rules_say() {
    for (name, answer) in [("allow", "subscribed"), ("polite-block", "subscribed"), ("block", "unsubscribed")] {
        let mut juliet = juliet();
        put(&mut juliet, &rule("r", "<many domain='venice.example'/>", &handling(name), ""));
        let fx = juliet.receive("<presence type='subscribe' id='s1' from='iago@venice.example'/>");
        let told = fx.told();
        assert!(told[0].1.contains(&format!("type='{answer}'")), "{name}: {told:?}");
        assert_eq!(told.len(), if name == "allow" { 2 } else { 1 }, "{name}: {told:?}");
        assert_eq!(juliet.roster.subscription(&jid("iago@venice.example")).from, name != "block");
        assert!(juliet.roster.requests().is_empty());
    }
    let mut juliet = juliet();
    put(&mut juliet, &rule("r", "<many domain='venice.example'/>", &handling("confirm"), ""));
    juliet.receive("<presence type='subscribe' id='s1' from='iago@venice.example'/>");
    assert_eq!(juliet.roster.requests().len(), 1);
    // The rule that lets him in answers it.
    let fx = put(&mut juliet, &rule("r", "<many domain='venice.example'/>", &handling("allow"), ""));
    assert!(fx.told().iter().any(|(to, xml)| to == "iago@venice.example" && xml.contains("type='subscribed'")));
    assert!(juliet.roster.requests().is_empty());
}

/// RFC 6121 §4.3.2, rule 1: what a rule lets somebody see is no subscription.
#[test]
fn a_server_that_probes_for_a_subscription_that_is_not_there_is_told_so_whatever_the_rules_allow() {
    for name in ["allow", "polite-block", "block", "confirm"] {
        let mut juliet = juliet();
        put(&mut juliet, &rule("r", "<many domain='venice.example'/>", &handling(name), ""));
        let told = juliet.receive("<presence type='probe' id='p1' from='iago@venice.example'/>").told();
        assert_eq!(told.len(), 1, "{name}: {told:?}");
        assert!(told[0].1.contains("type='unsubscribed'") && told[0].1.contains("id='p1'"), "{name}: {told:?}");
        // A client that asks by itself fetches.
        let told = juliet.receive("<presence type='probe' id='p2' from='iago@venice.example/ship'/>").told();
        let expected = match name {
            "allow" => "<show>dnd</show>",
            "polite-block" => "type='unavailable'",
            _ => "type='unsubscribed'",
        };
        assert!(told.len() == 1 && told[0].1.contains(expected), "{name}: {told:?}");
        // Whoever is told so asks again, and what is granted is in both rosters then.
        if name == "allow" {
            juliet.receive("<presence type='subscribe' id='s1' from='iago@venice.example'/>");
            let told = juliet.receive("<presence type='probe' id='p3' from='iago@venice.example'/>").told();
            assert!(told[0].1.contains("<show>dnd</show>"), "{told:?}");
        }
    }
}

#[test]
fn the_rosters_subscriptions_and_the_block_list_are_rules_of_the_document() {
    let mut juliet = juliet();
    let shown = document(&mut juliet);
    assert!(shown.contains("id='subscribers'") && shown.contains("<one id='xmpp:paris@verona.example'/>"), "{shown}");
    juliet.sends("home", "<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='iago@venice.example'/><item jid='evil.example'/></block></iq>");
    let shown = document(&mut juliet);
    let blocked = shown.split("id='blocked'").nth(1).and_then(|rest| rest.split("</rule>").next()).expect("the rule");
    assert!(
        blocked.contains("<many domain='evil.example'/>") && blocked.contains("xmpp:iago@venice.example"),
        "{shown}"
    );
    // Changing the rule changes the list.
    let fx = put(&mut juliet, &rule("blocked", &one("romeo@montague.example"), &handling("block"), ""));
    assert!(juliet.blocks.contains(&jid("romeo@montague.example")) && juliet.blocks.len() == 1);
    assert!(fx.told().iter().any(|(to, xml)| to == "romeo@montague.example" && xml.contains("unavailable")));
    // And the roster.
    let fx = put(&mut juliet, &rule("subscribers", &one("nurse@capulet.example"), &handling("allow"), ""));
    let ended: Vec<String> =
        fx.told().into_iter().filter(|(_, xml)| xml.contains("'unsubscribed'")).map(|it| it.0).collect();
    assert_eq!(ended, ["paris@verona.example", "romeo@montague.example", "tybalt@capulet.example"]);
    assert_eq!(juliet.roster.watchers().count(), 1);
}

#[test]
fn a_rule_for_some_time_is_told_of_when_it_begins_and_when_it_ends() {
    let mut juliet = juliet();
    let validity = "<validity><from>2026-01-01T00:10:00Z</from><until>2026-01-01T00:20:00Z</until></validity>";
    let identity = format!("<identity>{}</identity>{validity}", one("romeo@montague.example"));
    let rule = format!(
        "<rule {COMMON} id='r'><conditions>{identity}</conditions><actions>{}</actions></rule>",
        handling("polite-block")
    );
    let fx = put(&mut juliet, &rule);
    assert!(fx.told().is_empty());
    assert!(
        fx.list.iter().any(|it| matches!(it, Effect::WakeAt { mono_ms } if *mono_ms == 1_000 + 600_001)),
        "{:?}",
        fx.list
    );
    assert!(juliet.after_ms(599_000).told().is_empty());
    let fx = juliet.after_ms(2_000);
    assert!(fx.told().len() == 1 && fx.told()[0].1.contains("unavailable"), "{:?}", fx.told());
    let fx = juliet.after_ms(600_000);
    assert!(fx.told().len() == 1 && fx.told()[0].1.contains("<show>dnd</show>"), "{:?}", fx.told());
    assert!(juliet.after_ms(600_000).told().is_empty());
}

#[test]
fn a_rule_of_a_sphere_holds_while_the_user_is_there() {
    let mut juliet = juliet();
    let conditions = format!("<identity>{}</identity><sphere value='work'/>", one("romeo@montague.example"));
    put(
        &mut juliet,
        &format!(
            "<rule {COMMON} id='r'><conditions>{conditions}</conditions><actions>{}</actions></rule>",
            handling("block")
        ),
    );
    let at = |scene: &mut Scene, sphere: &str| {
        scene.sends("home", &format!("<iq type='set' id='s'><sphere {NS}>{sphere}</sphere></iq>")).told()
    };
    let told = at(&mut juliet, "work");
    assert!(told.len() == 1 && told[0].1.contains("unavailable"), "{told:?}");
    assert!(juliet.roster.subscription(&jid("romeo@montague.example")).from, "nothing is ended for the time being");
    let told = at(&mut juliet, "home");
    assert!(told.len() == 1 && told[0].1.contains("dnd"), "{told:?}");
}

/// Romeo sees her at home alone.
fn seen_at_home() -> Scene {
    let mut juliet = juliet().with("phone", 0);
    let conditions = format!("<identity>{}</identity><sphere value='home'/>", one("romeo@montague.example"));
    let rest = format!("<identity>{}</identity>", one("romeo@montague.example"));
    for (id, conditions, name) in [("home", conditions, "allow"), ("else", rest, "polite-block")] {
        let actions = handling(name);
        put(
            &mut juliet,
            &format!(
                "<rule {COMMON} id='{id}'><conditions>{conditions}</conditions><actions>{actions}</actions></rule>"
            ),
        );
    }
    juliet
}

const RPID: &str = "xmlns='urn:ietf:params:xml:ns:pidf:rpid'";

// RFC 5025 §3.1.2.
#[test]
fn presence_says_in_which_sphere_the_user_is() {
    let mut juliet = seen_at_home();
    let to_romeo = |fx: &Fx| -> Vec<String> {
        fx.told().into_iter().filter(|(to, _)| to.starts_with("romeo@")).map(|(_, xml)| xml).collect()
    };
    // The change of place and of presence is one: he is shown the new presence, never the old one.
    let fx =
        juliet.sends("home", &format!("<presence><status>supper</status><sphere {RPID}><home/></sphere></presence>"));
    let told = to_romeo(&fx);
    assert!(told.len() == 2 && told.iter().any(|xml| xml.contains("supper")), "{told:?}");
    assert!(told.iter().all(|xml| !xml.contains("reading")), "{told:?}");
    // At another place at the same time: nowhere.
    let fx = juliet.sends("phone", &format!("<presence><sphere {RPID}>work</sphere></presence>"));
    let told = to_romeo(&fx);
    assert!(told.len() == 2 && told.iter().all(|xml| xml.contains("type='unavailable'")), "{told:?}");
    // That one leaves; the other stays.
    let told = to_romeo(&juliet.sends("phone", "<presence type='unavailable'/>"));
    assert!(told.len() == 1 && told[0].contains("supper"), "{told:?}");
    // What the user says outright prevails.
    let fx = juliet.sends("home", &format!("<iq type='set' id='s'><sphere {NS}>work</sphere></iq>"));
    assert!(to_romeo(&fx)[0].contains("type='unavailable'"), "{fx:?}");
    let told = to_romeo(&juliet.sends("home", &format!("<iq type='set' id='s'><sphere {NS}/></iq>")));
    assert!(told.len() == 1 && told[0].contains("supper"), "{told:?}");
}

#[test]
fn a_published_person_says_in_which_sphere_the_user_is_over_a_restart() {
    let mut juliet = seen_at_home();
    let person =
        format!("<person xmlns='urn:ietf:params:xml:ns:pidf:data-model' id='me'><sphere {RPID}>home</sphere></person>");
    let publish =
        format!("<iq type='set' id='p'><publish xmlns='urn:waft:tuples:0' expires='60'>{person}</publish></iq>");
    let fx = juliet.sends("home", &publish);
    assert!(fx.told().iter().any(|(to, xml)| to.starts_with("romeo@") && xml.contains("reading")), "{:?}", fx.told());
    let kept = |key: &str, fx: &Fx| {
        let value = fx.commits().into_iter().find_map(|change| match change {
            Change::BlobPut { key: of, value, .. } if *of == *key => Some(value),
            _ => None,
        });
        (Box::<str>::from(key), value.unwrap_or_default())
    };
    let rules = (Box::<str>::from(KEY), juliet.rules.to_stored());
    let again = account_with(
        "juliet@capulet.example",
        AccountRecord { settings: vec![rules, kept("tuples", &fx)], ..record() },
    );
    assert_eq!(again.sphere, [Box::<str>::from("home")]);
    // It ends with what says so.
    let told = juliet.after_ms(60_001).told();
    assert!(told.iter().any(|(to, xml)| to.starts_with("romeo@") && xml.contains("type='unavailable'")), "{told:?}");
}

#[test]
fn messages_are_delivered_stored_refused_or_dropped_as_the_rules_say() {
    let says = |name: &str| {
        let mut juliet = juliet();
        put(&mut juliet, &rule("r", "<many domain='venice.example'/>", &format!("<message {NS}>{name}</message>"), ""));
        let fx = juliet.receive("<message type='chat' id='m1' from='iago@venice.example/x'><body>hi</body></message>");
        (
            fx.written_to().len(),
            fx.appended().len(),
            fx.told().first().is_some_and(|it| it.1.contains("service-unavailable")),
        )
    };
    assert_eq!(says("deliver"), (1, 1, false));
    assert_eq!(says("store"), (0, 1, false));
    assert_eq!(says("drop"), (0, 0, false));
    assert_eq!(says("refuse"), (0, 0, true));
}

#[test]
fn quiet_hours_keep_messages_until_they_are_over() {
    let mut juliet = juliet();
    let hours = format!("<hours {NS} from='23:00' until='00:30'/>");
    let actions = format!("<message {NS}>store</message>");
    put(
        &mut juliet,
        &format!("<rule {COMMON} id='night'><conditions>{hours}</conditions><actions>{actions}</actions></rule>"),
    );
    let fx = juliet.receive("<message type='chat' id='m1' from='romeo@montague.example/x'><body>hi</body></message>");
    assert!(fx.written_to().is_empty() && fx.appended().len() == 1);
    let fx = juliet.after_ms(1_800_100);
    assert!(fx.list.iter().any(|it| matches!(it, Effect::ReadPending { .. })), "what waits is read: {:?}", fx.list);
    let fx = juliet.receive("<message type='chat' id='m2' from='romeo@montague.example/x'><body>up?</body></message>");
    assert_eq!(fx.appended().len(), 1);
}

#[test]
fn quiet_hours_hold_back_letters_and_nothing_else() {
    let mut juliet = juliet().having("home", |session| session.directed.push(jid("hall@rooms.example/me")));
    put(&mut juliet, &rule("night", "", &format!("<message {NS}>store</message>"), ""));
    for (kind, from, content, given) in [
        ("chat", "romeo@montague.example/x", "<body>hi</body>", 0),
        ("normal", "iago@venice.example/x", "<body>hi</body>", 0),
        ("chat", "romeo@montague.example/x", "<composing xmlns='http://jabber.org/protocol/chatstates'/>", 1),
        ("headline", "romeo@montague.example", "<event xmlns='http://jabber.org/protocol/pubsub#event'/>", 1),
        ("groupchat", "hall@rooms.example/romeo", "<body>hi all</body>", 1),
        ("error", "iago@venice.example/x", "<body>hi</body>", 1),
    ] {
        let fx = juliet.receive(&format!(
            "<message type='{kind}' from='{from}' to='juliet@capulet.example/home'>{content}</message>"
        ));
        assert_eq!(fx.written_to().len(), given, "{kind} from {from}");
        assert!(fx.told().is_empty(), "{kind} from {from}");
    }
}

#[test]
fn directed_presence_to_whom_a_rule_names_is_refused_and_to_rooms_is_not() {
    let mut juliet = juliet();
    put(&mut juliet, &rule("r", &one("iago@venice.example"), &handling("polite-block"), ""));
    put(&mut juliet, &rule("rest", "<many/>", &handling("block"), ""));
    let fx = juliet.sends("home", "<presence to='iago@venice.example'/>");
    assert!(error(&fx).contains("<not-acceptable") && fx.told().is_empty());
    let fx = juliet.sends("home", "<presence to='room@chat.example/me'/>");
    assert_eq!(fx.told_to(), ["room@chat.example/me"]);
}

#[test]
fn other_resources_that_know_the_rules_hear_of_changes() {
    let mut juliet = juliet().with("phone", 0);
    juliet.sends("phone", &format!("<iq type='get' id='g1'><rules {NS}/></iq>"));
    let fx = put(&mut juliet, &rule("r", "<many/>", &handling("confirm"), ""));
    let push = fx.delivered("phone");
    assert!(push.len() == 1 && push[0].contains("type='set'") && push[0].contains("etag='1-"), "{push:?}");
}

#[test]
fn any_client_edits_rules_by_a_form() {
    let mut juliet = juliet();
    let items = "<iq type='get' id='i' to='juliet@capulet.example'><query xmlns='http://jabber.org/protocol/disco#items' node='http://jabber.org/protocol/commands'/></iq>";
    let shown = juliet.sends("home", items).delivered("home").remove(0);
    assert!(shown.contains("node='urn:waft:rules:0#put'"), "{shown}");
    let command = |inside: &str, more: &str| {
        format!(
            "<iq type='set' id='c'><command xmlns='http://jabber.org/protocol/commands' node='urn:waft:rules:0#put'{more}>{inside}</command></iq>"
        )
    };
    let form = juliet.sends("home", &command("", "")).delivered("home").remove(0);
    assert!(form.contains("status='executing'") && form.contains("var='subscribe'"), "{form}");
    let session = form.split("sessionid='").nth(1).and_then(|rest| rest.split('\'').next()).expect("one").to_owned();
    let field = |var: &str, value: &str| format!("<field var='{var}'><value>{value}</value></field>");
    let fields = [
        ("FORM_TYPE", "urn:waft:rules:0#put"),
        ("id", "kin"),
        ("who", "group:kin"),
        ("subscribe", "polite-block"),
        ("read", "0"),
    ];
    let fields: String = fields.iter().map(|(var, value)| field(var, value)).collect();
    let filled = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
    let fx = juliet.sends("home", &command(&filled, &format!(" sessionid='{session}' action='complete'")));
    assert!(fx.delivered("home")[0].contains("status='completed'"), "{:?}", fx.delivered("home"));
    assert_eq!(fx.told_to(), ["nurse@capulet.example"]);
    // The form was for the rules as they were.
    let fx = juliet.sends("home", &command(&filled, &format!(" sessionid='{session}' action='complete'")));
    assert!(error(&fx).contains("<conflict"));
}

#[test]
fn a_rule_is_chosen_shown_in_all_its_parts_and_changed_by_a_form() {
    let mut juliet = juliet();
    let whole = format!(
        "<rule {COMMON} id='work'><conditions><identity><many domain='*.work.example'><except id='xmpp:boss@work.example'/>\
         </many></identity><sphere value='work'/><validity><from>2026-01-01T00:00:00Z</from><until>2027-01-01T00:00:00Z\
         </until></validity><hours {NS} from='08:00' until='17:00' days='mon' tzo='+01:00'/></conditions><actions>{}\
         <message {NS}>store</message><watch {NS}>true</watch></actions><transformations><provide-services {PRES}>\
         <occurrence-id>desk</occurrence-id><service-uri-scheme>tel</service-uri-scheme></provide-services>\
         <provide-activities {PRES}>true</provide-activities><provide-pep {NS}><node>urn:tune</node></provide-pep>\
         <other-status {NS}><show>away</show></other-status></transformations></rule>",
        handling("allow")
    );
    put(&mut juliet, &whole);
    let before = juliet.rules.rules()[0].clone();
    let command = |inside: &str, more: &str| {
        format!(
            "<iq type='set' id='c'><command xmlns='http://jabber.org/protocol/commands' node='urn:waft:rules:0#edit'{more}>{inside}</command></iq>"
        )
    };
    let form = juliet.sends("home", &command("", "")).delivered("home").remove(0);
    assert!(form.contains("<option label='work'><value>work</value>"), "{form}");
    let session = form.split("sessionid='").nth(1).and_then(|rest| rest.split('\'').next()).expect("one").to_owned();
    let submit = |scene: &mut Scene, fields: &str| {
        let filled = format!("<x xmlns='jabber:x:data' type='submit'>{fields}</x>");
        let fx = scene.sends("home", &command(&filled, &format!(" sessionid='{session}' action='complete'")));
        fx.delivered("home").pop().expect("an answer")
    };
    let form = submit(&mut juliet, "<field var='id'><value>work</value></field>");
    let shown = Element::parse(form.as_bytes(), "").expect("XML");
    let shown = shown.elements().next().and_then(|it| it.find("x", "jabber:x:data")).expect("a form").clone();
    // As it is, it is the same rule.
    let fields: String = shown
        .elements()
        .filter(|field| field.find("value", "jabber:x:data").is_some())
        .map(|field| String::from_utf8(field.to_bytes("jabber:x:data")).expect("UTF-8"))
        .collect();
    assert!(submit(&mut juliet, &fields).contains("status='completed'"), "{fields}");
    assert_eq!(juliet.rules.rules(), [before]);
}

/// What each watcher knows: by watcher and resource, the payload last told.
type Known = std::collections::BTreeMap<(String, String), Vec<u8>>;

fn learn(known: &mut Known, fx: &Fx, exactly: bool) {
    for effect in &fx.list {
        let Effect::Fan { stanza, targets } = effect else { continue };
        let resource = stanza.from.as_ref().and_then(|from| from.resource()).unwrap_or_default().to_owned();
        for target in targets {
            let key = (target.to_string(), resource.clone());
            let told = match stanza.kind {
                xmpp::StanzaType::Presence(xmpp::PresenceType::Available) => Some(stanza.payload.bytes().to_vec()),
                _ => None,
            };
            assert!(!exactly || known.get(&key) != told.as_ref(), "{key:?} hears what it knows");
            match told {
                Some(told) => known.insert(key, told),
                None => known.remove(&key),
            };
        }
    }
}

fn should_know(scene: &Scene) -> Known {
    let mut should = Known::new();
    for watcher in scene.roster.watchers() {
        let view = view(scene, watcher, Exit::Broadcast);
        for session in &scene.sessions {
            let shown = session.presence.as_ref().and_then(|presence| crate::view::presence_for(&view, presence));
            if let Some(shown) = shown {
                let key = (watcher.to_string(), session.jid.resource_str().to_owned());
                should.insert(key, shown.payload.bytes().to_vec());
            }
        }
    }
    should
}

proptest::proptest! {
    #[test]
    fn after_any_change_each_watcher_knows_what_he_is_shown_and_nobody_hears_what_he_knows(
        steps in proptest::collection::vec((0_usize..7, 0_usize..6, 0_usize..5, 0_usize..4), 1..25),
    ) {
        let mut juliet = juliet().with("phone", 0);
        let mut known = should_know(&juliet);
        let identities = [
            one("romeo@montague.example"), "<many/>".to_owned(), format!("<group {NS} name='kin'/>"),
            "<many domain='*.example'><except domain='capulet.example'/></many>".to_owned(),
            "<many domain='verona.example'/>".to_owned(), String::new(),
        ];
        let all = format!("<provide-services {PRES}><all-services/></provide-services>");
        let shapes = [
            String::new(),
            format!("{all}<provide-show {NS}>true</provide-show>"),
            format!("<provide-services {PRES}><occurrence-id>home</occurrence-id></provide-services><provide-all-attributes {PRES}/>"),
            format!("{all}<other-status {NS}><status>out</status></other-status>"),
            all.clone(),
        ];
        for (step, identity, shape, name) in steps {
            let names = ["block", "confirm", "polite-block", "allow"];
            let is_rule_change = step < 4;
            let fx = match step {
                0..=2 => put(&mut juliet, &rule(&format!("r{step}"), &identities[identity], &handling(names[name]), &shapes[shape])),
                3 => sets(&mut juliet, "*", &format!("<remove id='r{}'/>", name % 3)),
                4 => juliet.sends("home", &format!("<presence><show>{}</show><status>s{shape}</status></presence>", ["dnd", "xa", "away"][shape % 3])),
                5 => juliet.sends("phone", &format!("<presence><status>p{shape}</status></presence>")),
                _ => juliet.sends("phone", "<presence type='unavailable'/>"),
            };
            learn(&mut known, &fx, is_rule_change);
            // Whoever a rule blocks is no watcher any more, and was told so.
            proptest::prop_assert_eq!(&known, &should_know(&juliet));
        }
    }
}
