//! Others: what they see of the nodes, and are told.

use super::*;

pub(super) fn with_access(model: &str) -> String {
    format!(
        "<field var='pubsub#access_model'><value>{model}</value></field>\
         <field var='pubsub#roster_groups_allowed'><value>Friends</value></field>"
    )
}

/// Romeo is a friend, the nurse is a contact; nobody knows Tybalt.
pub(super) fn with_contacts() -> Stage {
    let friend = store::RosterItem { groups: vec!["Friends".into()], ..contact("romeo@montague.example", "both") };
    let roster = vec![friend, contact("nurse@capulet.example", "from")];
    let stored = store::AccountRecord { roster, ..Default::default() };
    let scene = crate::testing::account_with("juliet@capulet.example", stored).with("balcony", 0);
    Stage { scene, blobs: BTreeMap::new() }
}

fn told(fx: Fx, stage: &mut Stage) -> Vec<String> {
    let mut all: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
    for effect in fx.list {
        if let Effect::Query { query: Query::Blobs { space, keys, .. }, iq, session, then } = effect {
            let found = keys.into_iter().filter_map(|key| {
                let value = stage.blobs.get(&(space.clone(), key.clone()))?.clone();
                Some((key, value))
            });
            let answer = QueryAnswer::Blobs(found.collect());
            let fx = stage.scene.item(Item::Answered { iq, session, answer, then });
            all.extend(fx.told().into_iter().map(|(_, xml)| xml));
        }
    }
    all
}

// XEP-0060 §4.5, §6.5.9.
#[test]
fn who_sees_a_node_is_what_its_access_model_says() {
    let heard = |access: &str, watcher: &str, node: &str| {
        let mut stage = with_contacts();
        stage.publishes("1", &with_access(access));
        let fx = stage.scene.receive(&format!(
            "<iq type='get' id='d' from='{watcher}/x'><pubsub xmlns='{NS}'><items node='{node}'/></pubsub></iq>"
        ));
        told(fx, &mut stage).pop().expect("an answer")
    };
    let (romeo, nurse, tybalt) = ("romeo@montague.example", "nurse@capulet.example", "tybalt@capulet.example");
    for (access, watcher, expected) in [
        ("open", romeo, "<item id='1'>"),
        ("open", tybalt, "<item id='1'>"),
        ("presence", nurse, "<item id='1'>"),
        ("presence", tybalt, "<service-unavailable "),
        ("roster", romeo, "<item id='1'>"),
        ("roster", nurse, "<not-in-roster-group "),
        ("roster", tybalt, "<service-unavailable "),
        ("whitelist", romeo, "<closed-node "),
        ("whitelist", tybalt, "<service-unavailable "),
    ] {
        let answer = heard(access, watcher, NODE);
        assert!(answer.contains(expected), "{access} {watcher}: {answer}");
    }
    assert!(heard("open", romeo, "nothing").contains("<item-not-found "));
    assert!(heard("open", tybalt, "nothing").contains("<service-unavailable "));
    // A rule and the block list say more than the node.
    let mut stage = with_contacts();
    stage.publishes("1", &with_access("open"));
    stage.scene.sends(
        "balcony",
        &format!("<iq type='set' id='b'><block xmlns='urn:xmpp:blocking'><item jid='{tybalt}'/></block></iq>"),
    );
    let fx = stage.scene.receive(&format!(
        "<iq type='get' id='d' from='{tybalt}/x'><pubsub xmlns='{NS}'><items node='{NODE}'/></pubsub></iq>"
    ));
    assert!(fx.told()[0].1.contains("<service-unavailable "));
}

// LIMITS.md §2 row 17.
#[test]
fn what_clients_keep_for_themselves_is_private_though_they_do_not_say_so() {
    let mut stage = with_contacts();
    stage.asks("set", NS, "<publish node='urn:xmpp:bookmarks:1'><item id='a'><conference xmlns='x'/></item></publish>");
    let fx = stage.scene.receive(&format!(
        "<iq type='get' id='d' from='romeo@montague.example/x'><pubsub xmlns='{NS}'>\
         <items node='urn:xmpp:bookmarks:1'/></pubsub></iq>"
    ));
    assert!(fx.told()[0].1.contains("<closed-node "), "{:?}", fx.told());
    assert_eq!(Config::of("urn:xmpp:avatar:metadata").access, Access::Presence);
}

pub(super) const COMES: &str = "<presence from='romeo@montague.example/orchard'>\
    <c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";

pub(super) fn interested(number: u32) -> String {
    format!(
        "<iq type='result' id='waft-interest-{number}' from='romeo@montague.example/orchard' \
         to='juliet@capulet.example'><query xmlns='http://jabber.org/protocol/disco#info'>\
         <feature var='{NODE}+notify'/></query></iq>"
    )
}

// XEP-0163 §4.3.
#[test]
fn a_contacts_client_is_asked_what_it_wants_and_told_that_and_no_more() {
    let mut stage = with_contacts();
    stage.publishes("1", "");
    let asked = stage.scene.receive(COMES).told();
    assert!(asked.iter().any(|(to, xml)| to == "romeo@montague.example/orchard" && xml.contains("node='n#1'")));
    // What was published last, as it has just come.
    let fx = stage.scene.receive(&interested(1));
    let last = told(fx, &mut stage);
    assert!(last.len() == 1 && last[0].contains("<item id='1'>") && last[0].contains("<delay "), "{last:?}");
    // The same again is no news.
    assert!(stage.scene.receive(COMES).told().is_empty());
    assert!(stage.scene.receive(&interested(1)).told().is_empty());
    let event =
        |stage: &mut Stage, node: &str, options: &str| {
            let fx = stage.scene.sends("balcony", &format!(
            "<iq type='set' id='p'><pubsub xmlns='{NS}'><publish node='{node}'><item id='2'><a xmlns='b'/></item>\
             </publish>{options}</pubsub></iq>"
        ));
            fx.told().into_iter().filter(|(_, xml)| xml.contains("<event ")).map(|(to, _)| to).collect::<Vec<_>>()
        };
    assert_eq!(event(&mut stage, NODE, ""), ["romeo@montague.example/orchard"]);
    assert!(event(&mut stage, "urn:other", "").is_empty());
    // No subscription, no events; nor for a client that has gone.
    stage.scene.receive("<presence from='romeo@montague.example/orchard' type='unavailable'/>");
    assert!(event(&mut stage, NODE, "").is_empty());
    stage.scene.receive(COMES);
    stage.scene.receive(&interested(2));
    assert_eq!(event(&mut stage, NODE, "").len(), 1);
    stage.scene.sends("balcony", "<presence type='unsubscribed' to='romeo@montague.example'/>");
    assert!(event(&mut stage, NODE, "").is_empty());
}

#[test]
fn contacts_that_were_there_before_the_first_node_are_told_too() {
    let mut stage = with_contacts();
    assert!(stage.scene.receive(COMES).told().is_empty());
    stage.publishes("1", "");
    let last = {
        let fx = stage.scene.receive(&interested(1));
        told(fx, &mut stage)
    };
    assert!(last.len() == 1 && last[0].contains("<item id='1'>"), "{last:?}");
}

#[test]
fn an_answer_that_was_not_asked_for_says_nothing() {
    let mut stage = with_contacts();
    stage.publishes("1", "");
    assert!(stage.scene.receive(&interested(1)).told().is_empty());
    stage.scene.receive(COMES);
    assert!(stage.scene.receive(&interested(7)).told().is_empty());
    assert_eq!(stage.scene.clients.wanting(NODE).count(), 0);
}

// XEP-0060 §5.2; nothing of it for strangers.
#[test]
fn private_nodes_are_shown_to_their_owner_alone() {
    let mut stage = Stage::new();
    stage.publishes("1", PRIVATE);
    let items = "<query xmlns='http://jabber.org/protocol/disco#items'/>";
    let fx = stage.scene.sends("balcony", &format!("<iq type='get' id='d'>{items}</iq>"));
    assert!(fx.delivered("balcony")[0].contains(&format!("node='{NODE}'")));
    for request in [format!("<items node='{NODE}'/>"), "<items node='nothing'/>".to_owned()] {
        let iq = format!(
            "<iq type='get' id='d' from='romeo@montague.example/x'><pubsub xmlns='{NS}'>{request}</pubsub></iq>"
        );
        let told = stage.scene.receive(&iq).told();
        assert!(told[0].1.contains("<service-unavailable"), "{told:?}");
    }
}
