//! What clients ask of the nodes, on a stage with the store behind it.

mod affiliations;
mod keys;
mod refusals;
mod subscriptions;
mod watchers;

use super::*;
use crate::effects::{Effect, Query, QueryAnswer};
use crate::item::Item;
use crate::nodes::{Access, Config, SPACE};
use crate::testing::{Fx, Scene, account, contact};
use std::collections::BTreeMap;
use store::SETTINGS;

const NODE: &str = "urn:example:rooms";
const PRIVATE: &str = "<field var='pubsub#persist_items'><value>true</value></field>\
    <field var='pubsub#max_items'><value>max</value></field>\
    <field var='pubsub#send_last_published_item'><value>never</value></field>\
    <field var='pubsub#access_model'><value>whitelist</value></field>";

/// An account and what its store holds.
struct Stage {
    scene: Scene,
    blobs: BTreeMap<(Box<str>, Box<str>), Vec<u8>>,
}

impl Stage {
    fn new() -> Stage {
        let scene = account("juliet@capulet.example").with("balcony", 0).with("chamber", 0);
        let mut stage = Stage { scene, blobs: BTreeMap::new() };
        for resource in ["balcony", "chamber"] {
            stage.wants(resource, NODE);
        }
        stage
    }

    fn wants(&mut self, resource: &str, node: &str) {
        let caps = "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";
        self.scene.sends(resource, caps);
        let info = format!(
            "<iq type='result' id='waft-interest-1'><query xmlns='http://jabber.org/protocol/disco#info'>\
             <feature var='{node}+notify'/></query></iq>"
        );
        let fx = self.scene.sends(resource, &info);
        self.settle(fx);
    }

    /// What a step gave, with the store's answers to what it asked.
    fn settle(&mut self, fx: Fx) -> Vec<(String, String)> {
        let mut heard = Vec::new();
        for change in fx.commits() {
            match change {
                Change::BlobPut { space, key, value, .. } => drop(self.blobs.insert((space, key), value)),
                Change::BlobDelete { space, key, .. } => drop(self.blobs.remove(&(space, key))),
                _ => {}
            }
        }
        for resource in ["balcony", "chamber"] {
            heard.extend(fx.delivered(resource).into_iter().map(|xml| (resource.to_owned(), xml)));
        }
        for effect in fx.list {
            let Effect::Query { query: Query::Blobs { space, keys, .. }, iq, session, then } = effect else {
                continue;
            };
            let found = keys.into_iter().filter_map(|key| {
                let value = self.blobs.get(&(space.clone(), key.clone()))?.clone();
                Some((key, value))
            });
            let answer = QueryAnswer::Blobs(found.collect());
            let fx = self.scene.item(Item::Answered { iq, session, answer, then });
            heard.extend(self.settle(fx));
        }
        heard
    }

    /// What others hear of a step, with the store's answers to what it asked.
    fn others(&mut self, fx: Fx) -> Vec<(String, String)> {
        for change in fx.commits() {
            match change {
                Change::BlobPut { space, key, value, .. } => drop(self.blobs.insert((space, key), value)),
                Change::BlobDelete { space, key, .. } => drop(self.blobs.remove(&(space, key))),
                _ => {}
            }
        }
        let mut heard = fx.told();
        for effect in fx.list {
            let Effect::Query { query: Query::Blobs { space, keys, .. }, iq, session, then } = effect else { continue };
            let found = keys.into_iter().filter_map(|key| {
                let value = self.blobs.get(&(space.clone(), key.clone()))?.clone();
                Some((key, value))
            });
            let answer = QueryAnswer::Blobs(found.collect());
            let fx = self.scene.item(Item::Answered { iq, session, answer, then });
            heard.extend(self.others(fx));
        }
        heard
    }

    /// Somebody else asks; what others hear.
    fn is_asked(&mut self, from: &str, kind: &str, ns: &str, content: &str) -> Vec<(String, String)> {
        let iq = format!("<iq type='{kind}' id='s1' from='{from}'><pubsub xmlns='{ns}'>{content}</pubsub></iq>");
        let fx = self.scene.receive(&iq);
        self.others(fx)
    }

    /// The owner asks; whom of the others it is told to as an event.
    fn tells(&mut self, ns: &str, content: &str) -> Vec<String> {
        let fx = self
            .scene
            .sends("balcony", &format!("<iq type='set' id='p1'><pubsub xmlns='{ns}'>{content}</pubsub></iq>"));
        let heard = self.others(fx);
        heard.into_iter().filter(|(_, xml)| xml.contains("<event ")).map(|(to, _)| to).collect()
    }

    fn asks(&mut self, kind: &str, ns: &str, content: &str) -> Vec<(String, String)> {
        let iq = format!("<iq type='{kind}' id='p1'><pubsub xmlns='{ns}'>{content}</pubsub></iq>");
        let fx = self.scene.sends("balcony", &iq);
        self.settle(fx)
    }

    fn publishes(&mut self, id: &str, options: &str) -> Vec<(String, String)> {
        let options = format!(
            "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
             <value>{PUBLISH_OPTIONS}</value></field>{options}</x></publish-options>"
        );
        let item = format!("<item id='{id}'><conference xmlns='{NODE}' name='{id}'/></item>");
        self.asks("set", NS, &format!("<publish node='{NODE}'>{item}</publish>{options}"))
    }

    fn items(&mut self, content: &str) -> String {
        self.asks("get", NS, content).pop().expect("an answer").1
    }
}

fn ids(answer: &str) -> Vec<&str> {
    answer.split("<item id='").skip(1).filter_map(|rest| rest.split('\'').next()).collect()
}

// XEP-0060 §5.1; XEP-0163 §6.1.
#[test]
fn the_host_shows_what_accounts_nodes_can_and_only_accounts_are_services() {
    let stage = Stage::new();
    let host = crate::modules::disco::info_of_host(&stage.scene.account.policy);
    let has = |feature: &str| host.elements().any(|child| child.attribute("var") == Some(feature));
    assert!(has("http://jabber.org/protocol/pubsub#access-whitelist") && !has(NS), "{host:?}");
    assert!(MODULE.account_features.contains(&NS));
}

// XEP-0223 §1.2: example 2; XEP-0060 §7.1.2.
#[test]
fn what_is_published_is_told_to_the_own_resources_and_answered_behind_the_commit() {
    let mut stage = Stage::new();
    let heard = stage.publishes("room@muc.example", PRIVATE);
    let event = |resource: &str| {
        (
            resource.to_owned(),
            format!(
                "<message from='juliet@capulet.example' to='juliet@capulet.example/{resource}' type='headline'>\
             <event xmlns='{EVENT}'><items node='{NODE}'><item id='room@muc.example'>\
             <conference xmlns='{NODE}' name='room@muc.example'/></item></items></event></message>"
            ),
        )
    };
    assert_eq!(heard[0], event("balcony"));
    assert_eq!(heard[2], event("chamber"));
    assert!(heard[1].1.contains(&format!(
        "type='result'><pubsub xmlns='{NS}'><publish node='{NODE}'><item id='room@muc.example'/></publish></pubsub>"
    )));
    let stored = stage.items(&format!("<items node='{NODE}'/>"));
    assert!(stored.contains(&format!("<conference xmlns='{NODE}' name='room@muc.example'/>")), "{stored}");
}

#[test]
fn who_does_not_want_to_know_is_not_told() {
    let mut stage = Stage::new();
    stage.scene.sends("chamber", "<presence/>");
    let heard = stage.publishes("1", PRIVATE);
    assert_eq!(heard.iter().filter(|(resource, _)| resource == "chamber").count(), 0, "{heard:?}");
}

// LIMITS.md §2 row 17; XEP-0060 §7.1.5.
#[test]
fn options_are_honoured_or_the_publication_fails() {
    for (options, succeeds) in [
        (PRIVATE, true),
        ("", true),
        ("<field var='pubsub#access_model'><value>open</value></field>", true),
        ("<field var='pubsub#access_model'><value>presence</value></field>", true),
        ("<field var='pubsub#access_model'><value>roster</value></field>", true),
        ("<field var='pubsub#access_model'><value>authorize</value></field>", false),
        ("<field var='pubsub#itemreply'><value>publisher</value></field>", true),
        ("<field var='pubsub#publish_model'><value>open</value></field>", false),
        ("<field var='pubsub#max_items'><value>0</value></field>", false),
        ("<field var='pubsub#something_else'><value>1</value></field>", false),
    ] {
        let mut stage = Stage::new();
        let heard = stage.publishes("1", options);
        assert_eq!(heard.iter().any(|(_, xml)| xml.contains("type='result'")), succeeds, "{options} {heard:?}");
        if !succeeds {
            let error = &heard[0].1;
            assert!(error.contains("<conflict") && error.contains("<precondition-not-met"), "{error}");
            assert_eq!(stage.blobs.len(), 0);
        }
    }
}

#[test]
fn a_node_that_is_otherwise_configured_takes_no_publication_until_it_is_configured_anew() {
    let mut stage = Stage::new();
    stage.publishes("1", "");
    assert!(stage.publishes("2", PRIVATE)[0].1.contains("<precondition-not-met"));
    let configure = format!(
        "<configure node='{NODE}'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
         <value>{NODE_CONFIG}</value></field>{PRIVATE}</x></configure>"
    );
    assert!(stage.asks("set", OWNER, &configure)[0].1.contains("type='result'"));
    stage.publishes("2", PRIVATE);
    assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["1", "2"]);
}

#[test]
fn a_node_of_one_item_keeps_the_last() {
    let mut stage = Stage::new();
    stage.publishes("1", "");
    stage.publishes("2", "");
    assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["2"]);
    assert_eq!(stage.blobs.iter().filter(|((space, _), _)| &**space == SPACE).count(), 1);
}

// XEP-0060 §6.5.
#[test]
fn items_are_told_by_number_by_id_and_page_by_page() {
    let mut stage = Stage::new();
    for id in ["a", "b", "c", "d"] {
        stage.publishes(id, PRIVATE);
    }
    let set = |content: &str| format!("<set xmlns='http://jabber.org/protocol/rsm'>{content}</set>");
    let items = format!("<items node='{NODE}'/>");
    for (request, expected) in [
        (items.clone(), vec!["a", "b", "c", "d"]),
        (format!("<items node='{NODE}' max_items='2'/>"), vec!["c", "d"]),
        (format!("<items node='{NODE}'><item id='b'/><item id='x'/></items>"), vec!["b"]),
        (format!("{items}{}", set("<max>3</max>")), vec!["a", "b", "c"]),
        (format!("{items}{}", set("<max>3</max><after>c</after>")), vec!["d"]),
        (format!("{items}{}", set("<max>2</max><before/>")), vec!["c", "d"]),
        (format!("{items}{}", set("<max>2</max><before>c</before>")), vec!["a", "b"]),
    ] {
        let answer = stage.items(&request);
        assert_eq!(ids(&answer), expected, "{request}");
    }
    let page = stage.items(&format!("{items}{}", set("<max>1</max><after>a</after>")));
    assert!(page.contains("<first index='1'>b</first><last>b</last><count>4</count>"), "{page}");
    let gone = stage.items(&format!("{items}{}", set("<after>x</after>")));
    assert!(gone.contains("<item-not-found"), "{gone}");
}

#[test]
fn an_answer_is_cut_to_its_bound_and_says_so() {
    let mut stage = Stage::new();
    let text = "x".repeat(60 << 10);
    for id in ["a", "b", "c", "d"] {
        let item = format!("<item id='{id}'><note xmlns='urn:n'>{text}</note></item>");
        stage.asks("set", NS, &format!("<publish node='n'>{item}</publish>"));
        if id == "a" {
            let form = format!(
                "<configure node='n'><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE'>\
                 <value>{NODE_CONFIG}</value></field>{PRIVATE}</x></configure>"
            );
            stage.asks("set", OWNER, &form);
        }
    }
    let answer = stage.items("<items node='n'/>");
    assert_eq!(ids(&answer), ["a", "b", "c"]);
    assert!(answer.contains("<last>c</last><count>4</count>"));
}

// XEP-0060 §7.2, §8.4, §8.5.
#[test]
fn items_and_nodes_go_and_the_own_resources_hear_of_it() {
    let mut stage = Stage::new();
    stage.publishes("1", PRIVATE);
    stage.publishes("2", PRIVATE);
    let heard = stage.asks("set", NS, &format!("<retract node='{NODE}'><item id='1'/></retract>"));
    assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<retract id='1'/>")), "{heard:?}");
    assert!(
        stage.asks("set", NS, &format!("<retract node='{NODE}'><item id='1'/></retract>"))[0]
            .1
            .contains("<item-not-found")
    );
    let heard = stage.asks("set", OWNER, &format!("<purge node='{NODE}'/>"));
    assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<purge node=")), "{heard:?}");
    let heard = stage.asks("set", OWNER, &format!("<delete node='{NODE}'/>"));
    assert!(heard.iter().any(|(r, xml)| r == "chamber" && xml.contains("<delete node=")), "{heard:?}");
    assert_eq!(stage.blobs.len(), 0);
    assert!(stage.items(&format!("<items node='{NODE}'/>")).contains("<item-not-found"));
}

// XEP-0163 §4.3.3, §4.3.4.
#[test]
fn a_resource_that_becomes_available_is_told_the_last_item_where_the_node_says_so() {
    for (options, told) in [("", 1), (PRIVATE, 0)] {
        let mut stage = Stage::new();
        stage.publishes("1", options);
        stage.scene.sends("chamber", "<presence type='unavailable'/>");
        let caps = "<presence><c xmlns='http://jabber.org/protocol/caps' hash='sha-1' node='n' ver='1'/></presence>";
        let fx = stage.scene.sends("chamber", caps);
        let heard = stage.settle(fx);
        let events = heard.iter().filter(|(_, xml)| xml.contains("<event ")).collect::<Vec<_>>();
        assert_eq!(events.len(), told, "{events:?}");
        assert!(events.iter().all(|(r, xml)| r == "chamber" && xml.contains("<delay xmlns='urn:xmpp:delay' stamp=")));
        let fx = stage.scene.sends("chamber", caps);
        assert!(stage.settle(fx).iter().all(|(_, xml)| !xml.contains("<event ")));
    }
}

#[test]
fn what_is_published_is_there_after_a_restart() {
    let mut stage = Stage::new();
    stage.publishes("1", PRIVATE);
    let settings = stage.blobs.iter().filter(|((space, _), _)| **space == *SETTINGS);
    let settings = settings.map(|((_, key), value)| (key.clone(), value.clone())).collect();
    let stored = store::AccountRecord { settings, ..Default::default() };
    stage.scene = crate::testing::account_with("juliet@capulet.example", stored).with("balcony", 0);
    assert_eq!(ids(&stage.items(&format!("<items node='{NODE}'/>"))), ["1"]);
}

// XEP-0490 §4.5.
#[test]
fn a_marker_for_the_own_clients_is_cut_out_of_the_message_and_published() {
    let mut stage = Stage::new();
    stage.wants("chamber", crate::modules::displayed::NS);
    let marker = "<displayed xmlns='urn:xmpp:mds:displayed:0'>\
        <stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='0f71'/></displayed>";
    let shown = "<displayed xmlns='urn:xmpp:chat-markers:0' id='m1'/>";
    let fx = stage.scene.sends("balcony", &format!("<message to='romeo@montague.example'>{shown}{marker}</message>"));
    let told = fx.told();
    assert!(told[0].1.contains(shown) && !told[0].1.contains("mds"), "{told:?}");
    assert!(fx.appended().iter().all(|record| !String::from_utf8_lossy(&record.stanza).contains("mds")));
    stage.settle(fx);
    let answer = stage.items("<items node='urn:xmpp:mds:displayed:0'/>");
    assert!(answer.contains(&format!("<item id='romeo@montague.example'>{marker}</item>")), "{answer}");
    let nothing_else =
        stage.scene.sends("balcony", &format!("<message to='romeo@montague.example'>{marker}</message>"));
    assert!(nothing_else.told().is_empty() && nothing_else.delivered("balcony")[0].contains("<bad-request"));
}
