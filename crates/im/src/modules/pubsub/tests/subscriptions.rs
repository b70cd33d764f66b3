//! Subscriptions to one node. XEP-0060 §5.6, §6.1, §6.2, §8.8.

use super::watchers::{COMES, interested, with_access, with_contacts};
use super::*;
use crate::nodes::SUBSCRIPTIONS_OF_ONE_MAX;

const ROMEO: &str = "romeo@montague.example";
const TYBALT: &str = "tybalt@capulet.example";

/// Romeo's friend's node with one item, and Romeo at its list by this address.
fn subscribed(access: &str, from: &str, address: &str) -> (Stage, Vec<(String, String)>) {
    let mut stage = with_contacts();
    stage.publishes("1", &with_access(access));
    let heard = stage.is_asked(from, "set", NS, &format!("<subscribe node='{NODE}' jid='{address}'/>"));
    (stage, heard)
}

fn publish(id: &str) -> String {
    format!("<publish node='{NODE}'><item id='{id}'><conference xmlns='{NODE}'/></item></publish>")
}

fn listed(stage: &mut Stage) -> String {
    stage.asks("get", OWNER, &format!("<subscriptions node='{NODE}'/>")).pop().expect("an answer").1
}

// §6.1.2, §6.1.7; XEP-0163 §4.3.1.
#[test]
fn who_subscribes_is_told_the_last_item_and_what_is_published_then_at_the_address_it_gave() {
    for address in [ROMEO, "romeo@montague.example/orchard"] {
        let (mut stage, heard) = subscribed("presence", "romeo@montague.example/orchard", address);
        assert_eq!(heard.len(), 2, "{heard:?}");
        let subscription = format!("<subscription jid='{address}' subscription='subscribed' node='{NODE}'/>");
        assert!(heard[0].1.contains("type='result'") && heard[0].1.contains(&subscription), "{heard:?}");
        assert!(heard[1].0 == address && heard[1].1.contains("<item id='1'>") && heard[1].1.contains("<delay "));
        assert_eq!(stage.tells(NS, &publish("2")), [address]);
        // Once more is no news, and changes nothing.
        let again = stage.is_asked(ROMEO, "set", NS, &format!("<subscribe node='{NODE}' jid='{address}'/>"));
        assert!(again.len() == 1 && again[0].1.contains("'subscribed'"), "{again:?}");
        assert_eq!(stage.tells(NS, &publish("3")), [address]);
        let ended = stage.is_asked(ROMEO, "set", NS, &format!("<unsubscribe node='{NODE}' jid='{address}'/>"));
        assert!(ended[0].1.contains("subscription='none'"), "{ended:?}");
        assert!(stage.tells(NS, &publish("4")).is_empty());
    }
}

// XEP-0163 §4.3.2.
#[test]
fn a_subscriber_whose_client_wants_to_be_told_is_told_there_and_once() {
    let (mut stage, _) = subscribed("presence", ROMEO, ROMEO);
    stage.is_asked(
        "romeo@montague.example/orchard",
        "set",
        NS,
        &format!("<subscribe node='{NODE}' jid='romeo@montague.example/orchard'/>"),
    );
    stage.scene.receive(COMES);
    stage.scene.receive(&interested(1));
    assert_eq!(stage.tells(NS, &publish("2")), ["romeo@montague.example/orchard"]);
}

// XEP-0163 §4 (1): no presence is shared.
#[test]
fn a_stranger_may_subscribe_to_a_node_that_is_open_and_hears_of_no_other() {
    let (mut stage, heard) = subscribed("open", TYBALT, TYBALT);
    assert!(heard[0].1.contains("'subscribed'"), "{heard:?}");
    assert_eq!(stage.tells(NS, &publish("2")), [TYBALT]);
    for access in ["presence", "roster", "whitelist"] {
        let (mut stage, heard) = subscribed(access, TYBALT, TYBALT);
        assert!(heard[0].1.contains("<service-unavailable "), "{access} {heard:?}");
        assert!(stage.tells(NS, &publish("2")).is_empty(), "{access}");
    }
}

#[test]
fn the_owners_resource_that_subscribes_is_told_though_its_client_says_nothing_of_it() {
    for address in ["juliet@capulet.example/balcony", "juliet@capulet.example"] {
        let mut stage = with_contacts();
        stage.publishes("1", &with_access("whitelist"));
        let heard = stage.asks("set", NS, &format!("<subscribe node='{NODE}' jid='{address}'/>"));
        assert!(heard[0].1.contains("'subscribed'") && heard[1].1.contains("<delay "), "{heard:?}");
        let heard = stage.asks("set", NS, &publish("2"));
        assert!(heard.iter().any(|(to, xml)| to == "balcony" && xml.contains("<event ")), "{heard:?}");
    }
}

// §8.4.2, §8.5.2, §7.2.2.1.
#[test]
fn a_subscriber_is_told_of_what_is_taken_back() {
    let (mut stage, _) = subscribed("open", TYBALT, TYBALT);
    assert_eq!(stage.tells(NS, &format!("<retract node='{NODE}'><item id='1'/></retract>")), [TYBALT]);
    assert_eq!(stage.tells(OWNER, &format!("<purge node='{NODE}'/>")), [TYBALT]);
    let iq = format!(
        "<iq type='set' id='d'><pubsub xmlns='{OWNER}'><delete node='{NODE}'><redirect uri='xmpp:x'/></delete></pubsub></iq>"
    );
    let told = stage.scene.sends("balcony", &iq).told();
    assert!(told[0].1.contains(&format!("<delete node='{NODE}'><redirect uri='xmpp:x'/></delete>")), "{told:?}");
    stage.publishes("1", &with_access("open"));
    assert!(stage.tells(NS, &publish("2")).is_empty(), "it went with the node");
}

// XEP-0163 §7.1: whatever takes the access ends the subscription.
#[test]
fn a_subscription_ends_when_its_subscriber_may_not_see_the_node_any_more() {
    let rules = "<rules xmlns='urn:waft:rules:0' etag='*'><rule xmlns='urn:ietf:params:xml:ns:common-policy' id='r'>\
        <conditions><identity><one id='xmpp:romeo@montague.example'/></identity></conditions>\
        <actions><sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>block</sub-handling></actions></rule></rules>";
    let config = format!(
        "<pubsub xmlns='{OWNER}'><configure node='{NODE}'><x xmlns='jabber:x:data' type='submit'>\
         <field var='pubsub#access_model'><value>whitelist</value></field></x></configure></pubsub>"
    );
    let set = |content: &str| format!("<iq type='set' id='x'>{content}</iq>");
    for (access, taken) in [
        ("presence", "<presence type='unsubscribed' to='romeo@montague.example'/>".to_owned()),
        (
            "roster",
            set(
                "<query xmlns='jabber:iq:roster'><item jid='romeo@montague.example'><group>Foes</group></item></query>",
            ),
        ),
        (
            "presence",
            set("<query xmlns='jabber:iq:roster'><item jid='romeo@montague.example' subscription='remove'/></query>"),
        ),
        ("open", set("<block xmlns='urn:xmpp:blocking'><item jid='romeo@montague.example'/></block>")),
        ("open", set(rules)),
        ("open", set(&config)),
    ] {
        let (mut stage, _) = subscribed(access, ROMEO, ROMEO);
        assert!(listed(&mut stage).contains(ROMEO), "{taken}");
        let fx = stage.scene.sends("balcony", &taken);
        assert!(fx.commits().iter().any(|change| matches!(change, Change::BlobPut { key, .. } if key.contains(NODE))));
        let told = stage.others(fx);
        assert!(told.iter().all(|(_, xml)| !xml.contains("<event ")), "nothing says why: {told:?}");
        assert!(!listed(&mut stage).contains(ROMEO), "{taken}");
        assert!(stage.tells(NS, &publish("2")).is_empty(), "{taken}");
    }
}

// A rule that holds in one sphere only: nothing is told meanwhile, and the subscription stays.
#[test]
fn a_rule_that_passes_keeps_events_back_and_ends_no_subscription() {
    let (mut stage, _) = subscribed("presence", ROMEO, ROMEO);
    let rules = "<iq type='set' id='x'><rules xmlns='urn:waft:rules:0' etag='*'>\
        <rule xmlns='urn:ietf:params:xml:ns:common-policy' id='r'>\
        <conditions><identity><one id='xmpp:romeo@montague.example'/></identity><sphere value='work'/></conditions>\
        <actions><sub-handling xmlns='urn:ietf:params:xml:ns:pres-rules'>block</sub-handling></actions></rule></rules></iq>";
    stage.scene.sends("balcony", rules);
    assert_eq!(stage.tells(NS, &publish("2")), [ROMEO]);
    let sphere = |name: &str| format!("<iq type='set' id='y'><sphere xmlns='urn:waft:rules:0'>{name}</sphere></iq>");
    stage.scene.sends("balcony", &sphere("work"));
    assert_eq!(stage.scene.account.rules.sphere(), ["work".into()]);
    stage.scene.sends(
        "balcony",
        "<iq type='set' id='z'><query xmlns='jabber:iq:roster'><item jid='x@y.example'/></query></iq>",
    );
    assert!(stage.tells(NS, &publish("3")).is_empty());
    stage.scene.sends("balcony", &sphere("home"));
    assert_eq!(stage.tells(NS, &publish("4")), [ROMEO]);
}

#[test]
fn subscriptions_are_there_after_a_restart() {
    let (mut stage, _) = subscribed("open", TYBALT, TYBALT);
    let settings = stage.blobs.iter().filter(|((space, _), _)| **space == *SETTINGS);
    let settings = settings.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    let stored = store::AccountRecord { settings, ..Default::default() };
    stage.scene = crate::testing::account_with("juliet@capulet.example", stored).with("balcony", 0);
    assert_eq!(stage.tells(NS, &publish("2")), [TYBALT]);
}

// §6.1.3.9.
#[test]
fn no_one_has_more_subscriptions_than_the_bound() {
    let (mut stage, _) = subscribed("open", TYBALT, TYBALT);
    let mut asks = |n: usize| {
        let address = format!("{TYBALT}/{n}");
        let heard = stage.is_asked(TYBALT, "set", NS, &format!("<subscribe node='{NODE}' jid='{address}'/>"));
        heard[0].1.clone()
    };
    for n in 1..SUBSCRIPTIONS_OF_ONE_MAX {
        assert!(asks(n).contains("'subscribed'"), "{n}");
    }
    let refused = asks(SUBSCRIPTIONS_OF_ONE_MAX);
    assert!(refused.contains("<policy-violation ") && refused.contains("<too-many-subscriptions "), "{refused}");
}

// §5.6.
#[test]
fn each_hears_of_its_own_subscriptions_alone() {
    let (mut stage, _) = subscribed("open", TYBALT, TYBALT);
    stage.is_asked(ROMEO, "set", NS, &format!("<subscribe node='{NODE}' jid='{ROMEO}/orchard'/>"));
    let own = format!("<subscription jid='{ROMEO}/orchard' subscription='subscribed' node='{NODE}'/>");
    for (asks, told) in [
        ("<subscriptions/>".to_owned(), format!("<subscriptions>{own}</subscriptions>")),
        (format!("<subscriptions node='{NODE}'/>"), format!("<subscriptions node='{NODE}'>{own}</subscriptions>")),
        ("<subscriptions node='another'/>".to_owned(), "<subscriptions node='another'/>".to_owned()),
    ] {
        let heard = stage.is_asked(ROMEO, "get", NS, &asks);
        assert!(heard[0].1.contains(&told), "{heard:?}");
    }
    let nobody = stage.is_asked("paris@verona.example", "get", NS, "<subscriptions/>");
    assert!(nobody[0].1.contains("<service-unavailable "), "{nobody:?}");
}

// §8.8.
#[test]
fn the_owner_sees_who_is_subscribed_and_may_end_it_but_subscribes_nobody() {
    let (mut stage, _) = subscribed("open", TYBALT, TYBALT);
    let entry = format!("<subscription jid='{TYBALT}' subscription='subscribed'/>");
    assert!(listed(&mut stage).contains(&format!("<subscriptions node='{NODE}'>{entry}</subscriptions>")));
    let sets = |who: &str, state: &str| {
        format!("<subscriptions node='{NODE}'><subscription jid='{who}' subscription='{state}'/></subscriptions>")
    };
    let refused = stage.asks("set", OWNER, &sets(ROMEO, "subscribed"));
    assert!(refused[0].1.contains("<not-acceptable "), "{refused:?}");
    assert_eq!(stage.tells(OWNER, &sets(TYBALT, "none")), [TYBALT]);
    assert!(stage.tells(NS, &publish("2")).is_empty());
}
