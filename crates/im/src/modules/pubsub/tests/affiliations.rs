//! The whitelist of a node, and who hears of it. XEP-0060 §5.7, §8.9.

use super::watchers::{with_access, with_contacts};
use super::*;

const TYBALT: &str = "tybalt@capulet.example";

fn affiliation(who: &str, what: &str) -> String {
    format!("<affiliations node='{NODE}'><affiliation jid='{who}' affiliation='{what}'/></affiliations>")
}

// §4.5: within what the block list and the rules leave.
#[test]
fn who_is_on_the_whitelist_sees_the_node_until_taken_off_it() {
    let mut stage = with_contacts();
    stage.publishes("1", &with_access("whitelist"));
    let items = format!("<items node='{NODE}'/>");
    let sees = |stage: &mut Stage| stage.is_asked(TYBALT, "get", NS, &items).pop().expect("an answer").1;
    assert!(sees(&mut stage).contains("<service-unavailable "));
    assert!(stage.asks("set", OWNER, &affiliation(TYBALT, "member"))[0].1.contains("type='result'"));
    assert!(sees(&mut stage).contains("<item id='1'>"));
    let own = stage.is_asked(TYBALT, "get", NS, "<affiliations/>");
    assert!(own[0].1.contains(&format!("<affiliation node='{NODE}' affiliation='member'/>")), "{own:?}");
    let all = stage.asks("get", OWNER, &format!("<affiliations node='{NODE}'/>"));
    let list = "<affiliation jid='juliet@capulet.example' affiliation='owner'/>\
        <affiliation jid='tybalt@capulet.example' affiliation='member'/>";
    assert!(all[0].1.contains(list), "{all:?}");
    // And is told; once off the list, nothing.
    stage.is_asked(TYBALT, "set", NS, &format!("<subscribe node='{NODE}' jid='{TYBALT}'/>"));
    let publish = format!("<publish node='{NODE}'><item id='2'><a xmlns='b'/></item></publish>");
    assert_eq!(stage.tells(NS, &publish), [TYBALT]);
    stage.asks("set", OWNER, &affiliation(TYBALT, "none"));
    assert!(sees(&mut stage).contains("<service-unavailable "));
    assert!(stage.tells(NS, &publish).is_empty());
    stage.asks("set", OWNER, &affiliation(TYBALT, "member"));
    let block = format!("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{TYBALT}'/></block></iq>");
    stage.scene.sends("balcony", &block);
    assert!(sees(&mut stage).contains("<service-unavailable "));
}

// §8.9.2.3.
#[test]
fn what_nobody_can_be_is_refused_and_changes_nothing() {
    for (who, what, condition, more) in [
        (TYBALT, "outcast", "feature-not-implemented", "feature='outcast-affiliation'"),
        (TYBALT, "publisher", "feature-not-implemented", "feature='publisher-affiliation'"),
        (TYBALT, "publish-only", "feature-not-implemented", "feature='publish-only-affiliation'"),
        (TYBALT, "owner", "not-acceptable", ""),
        ("juliet@capulet.example", "none", "not-acceptable", ""),
        ("tybalt@capulet.example/x", "member", "bad-request", "<invalid-jid "),
        ("@", "member", "bad-request", "<invalid-jid "),
    ] {
        let mut stage = with_contacts();
        stage.publishes("1", &with_access("whitelist"));
        let heard = stage.asks("set", OWNER, &affiliation(who, what));
        assert!(heard[0].1.contains(&format!("<{condition} ")) && heard[0].1.contains(more), "{who} {what}: {heard:?}");
        let members = &stage.scene.nodes.get(NODE).expect("it is there").members;
        assert!(members.is_empty(), "{members:?}");
    }
}

// §5.2, §5.3, §5.4; XEP-0163 §6.2.
#[test]
fn discovery_shows_a_node_and_what_it_is_to_those_alone_who_see_it() {
    let disco = |what: &str, node: &str| {
        format!(
            "<iq type='get' id='d' from='romeo@montague.example/x'><query xmlns='http://jabber.org/protocol/disco#{what}'{node}/></iq>"
        )
    };
    for (access, sees) in [("presence", true), ("roster", true), ("open", true), ("whitelist", false)] {
        let mut stage = with_contacts();
        stage.publishes("1", &format!("{}<field var='pubsub#title'><value>Rooms</value></field>", with_access(access)));
        let items = stage.scene.receive(&disco("items", "")).told().remove(0).1;
        assert_eq!(items.contains(&format!("node='{NODE}' name='Rooms'")), sees, "{access}: {items}");
        let info = stage.scene.receive(&disco("info", &format!(" node='{NODE}'"))).told().remove(0).1;
        let what = "<identity category='pubsub' type='leaf'/>";
        let title = "<field var='pubsub#title' type='text-single'><value>Rooms</value></field>";
        assert_eq!(info.contains(what) && info.contains(title), sees, "{access}: {info}");
        assert_eq!(info.contains("<item-not-found "), !sees, "{access}: {info}");
    }
}

// §8.2.5.3.
#[test]
fn a_change_of_configuration_is_told_where_the_node_says_so() {
    let mut stage = with_contacts();
    stage.publishes("1", &with_access("open"));
    stage.is_asked(TYBALT, "set", NS, &format!("<subscribe node='{NODE}' jid='{TYBALT}'/>"));
    let configure = |field: &str, value: &str| {
        format!(
            "<configure node='{NODE}'><x xmlns='jabber:x:data' type='submit'><field var='pubsub#{field}'>\
             <value>{value}</value></field></x></configure>"
        )
    };
    assert!(stage.tells(OWNER, &configure("title", "A")).is_empty());
    assert_eq!(stage.tells(OWNER, &configure("notify_config", "1")), [TYBALT]);
    assert_eq!(stage.tells(OWNER, &configure("title", "B")), [TYBALT]);
}
