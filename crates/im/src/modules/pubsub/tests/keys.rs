//! What clients that encrypt do with the nodes, in their order: XEP-0384, 0.3 and 0.8.

use super::watchers::{COMES, with_contacts};
use super::*;

const STRANGER: &str = "tybalt@capulet.example/x";
const WANTS: &str = "<iq type='result' id='waft-interest-1' from='romeo@montague.example/orchard' \
    to='juliet@capulet.example'><query xmlns='http://jabber.org/protocol/disco#info'>\
    <feature var='eu.siacs.conversations.axolotl.devicelist+notify'/>\
    <feature var='urn:xmpp:omemo:2:devices+notify'/></query></iq>";

fn options(fields: &[(&str, &str)]) -> String {
    let fields = fields.iter().map(|(var, value)| format!("<field var='pubsub#{var}'><value>{value}</value></field>"));
    format!(
        "<publish-options><x xmlns='jabber:x:data' type='submit'><field var='FORM_TYPE' type='hidden'>\
         <value>{PUBLISH_OPTIONS}</value></field>{}</x></publish-options>",
        fields.collect::<String>()
    )
}

fn publish(node: &str, id: &str, payload: &str) -> String {
    format!("<publish node='{node}'><item id='{id}'>{payload}</item></publish>")
}

/// The list of devices and a bundle, as one namespace has it: node and payload of the list; node, item and payload of the
/// bundle; what each is published with.
type Keys<'a> = [(&'a str, &'a str, &'a str, &'a [(&'a str, &'a str)]); 2];

const OLD: Keys<'_> = [
    (
        "eu.siacs.conversations.axolotl.devicelist",
        "current",
        "<list xmlns='eu.siacs.conversations.axolotl'><device id='31415'/></list>",
        &[("access_model", "open")],
    ),
    (
        "eu.siacs.conversations.axolotl.bundles:31415",
        "current",
        "<bundle xmlns='eu.siacs.conversations.axolotl'/>",
        &[("access_model", "open")],
    ),
];
const NEW: Keys<'_> = [
    (
        "urn:xmpp:omemo:2:devices",
        "current",
        "<devices xmlns='urn:xmpp:omemo:2'><device id='31415'/></devices>",
        &[("access_model", "open")],
    ),
    (
        "urn:xmpp:omemo:2:bundles",
        "31415",
        "<bundle xmlns='urn:xmpp:omemo:2'/>",
        &[("access_model", "open"), ("max_items", "max")],
    ),
];

#[test]
fn keys_are_published_told_to_contacts_and_fetched_by_strangers() {
    for keys in [OLD, NEW] {
        let mut stage = with_contacts();
        stage.scene.receive(COMES);
        let mut told = Vec::new();
        for (node, id, payload, wants) in keys {
            let heard = stage.asks("set", NS, &format!("{}{}", publish(node, id, payload), options(wants)));
            assert!(heard[0].1.contains("type='result'"), "{heard:?}");
            // (The first node that is shown to anybody is when contacts' clients are asked what they want.)
            stage.scene.receive(WANTS);
            told.push(stage.tells(NS, &format!("{}{}", publish(node, id, payload), options(wants))));
        }
        // The list is wanted, the bundle is not.
        assert_eq!(told, [vec!["romeo@montague.example/orchard".to_owned()], Vec::new()]);
        for (node, id, payload, _) in keys {
            for content in
                [format!("<items node='{node}'/>"), format!("<items node='{node}'><item id='{id}'/></items>")]
            {
                let heard = stage.is_asked(STRANGER, "get", NS, &content);
                assert!(heard[0].1.contains(&format!("<item id='{id}'>{payload}</item>")), "{heard:?}");
            }
        }
    }
}

// XEP-0384 0.8 §5.3.1: one node for the bundles of all devices.
#[test]
fn the_bundles_of_all_devices_stand_beside_each_other() {
    let mut stage = with_contacts();
    let (node, _, payload, wants) = NEW[1];
    for id in ["31415", "27182"] {
        stage.asks("set", NS, &format!("{}{}", publish(node, id, payload), options(wants)));
    }
    let one = stage.is_asked(STRANGER, "get", NS, &format!("<items node='{node}'><item id='31415'/></items>"));
    assert!(one[0].1.contains("<item id='31415'>") && !one[0].1.contains("27182"), "{one:?}");
    stage.tells(NS, &format!("<retract node='{node}' notify='true'><item id='31415'/></retract>"));
    let all = stage.is_asked(STRANGER, "get", NS, &format!("<items node='{node}'/>"));
    assert!(all[0].1.contains("<item id='27182'>") && !all[0].1.contains("31415"), "{all:?}");
}

// What Conversations, Dino and Gajim do when the node is not as they want it.
#[test]
fn a_list_that_is_not_open_is_configured_and_published_again() {
    for keys in [OLD, NEW] {
        let (node, id, payload, wants) = keys[0];
        let mut stage = with_contacts();
        stage.asks("set", NS, &publish(node, id, payload));
        let again = format!("{}{}", publish(node, id, payload), options(wants));
        let heard = stage.asks("set", NS, &again);
        assert!(heard[0].1.contains("<conflict ") && heard[0].1.contains("<precondition-not-met "), "{heard:?}");
        let form = stage.asks("get", OWNER, &format!("<configure node='{node}'/>")).remove(0).1;
        // The whole form is sent back with one value changed, as clients do.
        let (_, form) = form.split_once("<x ").expect("a form");
        let (form, _) = form.split_once("</x>").expect("a form");
        let presence = "<value>presence</value><option>";
        assert!(form.contains(presence), "{form}");
        let form = form.replace("type='form'", "type='submit'").replace(presence, "<value>open</value><option>");
        let heard = stage.asks("set", OWNER, &format!("<configure node='{node}'><x {form}</x></configure>"));
        assert!(heard[0].1.contains("type='result'"), "{heard:?}");
        let heard = stage.asks("set", NS, &again);
        assert!(heard.iter().any(|(_, xml)| xml.contains("type='result'")), "{heard:?}");
        let heard = stage.is_asked(STRANGER, "get", NS, &format!("<items node='{node}'/>"));
        assert!(heard[0].1.contains(payload), "{heard:?}");
    }
}
