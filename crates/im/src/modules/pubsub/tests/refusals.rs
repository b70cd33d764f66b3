//! Each refusal with its condition: XEP-0060 §6 to §8, §11.

use super::watchers::{with_access, with_contacts};
use super::*;

const ROMEO: &str = "romeo@montague.example";
const NURSE: &str = "nurse@capulet.example";

/// Who asks (`None`: the owner), type, namespace, request, condition, condition of pubsub.
type Row<'a> = (Option<&'a str>, &'a str, &'a str, &'a str, &'a str, &'a str);

/// Nodes: `NODE` for friends, `passing` that keeps nothing, `typed` for one namespace.
fn stage() -> Stage {
    let mut stage = with_contacts();
    stage.publishes("1", &with_access("roster"));
    for (node, field, value) in [("passing", "persist_items", "0"), ("typed", "type", "urn:a")] {
        let create = format!(
            "<create node='{node}'/><configure><x xmlns='jabber:x:data' type='submit'><field var='pubsub#{field}'>\
             <value>{value}</value></field></x></configure>"
        );
        let heard = stage.asks("set", NS, &create);
        assert!(heard[0].1.contains("type='result'"), "{heard:?}");
    }
    stage
}

fn check(rows: &[Row<'_>]) {
    for (who, kind, ns, request, condition, more) in rows {
        let mut stage = stage();
        let before = stage.blobs.clone();
        let request = request.replace("NODE", NODE);
        let heard = match who {
            None => stage.asks(kind, ns, &request),
            Some(who) => stage.is_asked(who, kind, ns, &request),
        };
        let answer = &heard[0].1;
        assert!(answer.contains(&format!("<{condition} ")), "{request}: {answer}");
        let more =
            if more.contains('=') { more.to_string() } else { format!("<{more} xmlns='{}'", crate::nodes::ERRORS) };
        assert!(
            more.len() <= 2 + "xmlns=''".len() + crate::nodes::ERRORS.len() || answer.contains(&more),
            "{request}: {answer}"
        );
        assert!(stage.blobs == before, "{request} changes nothing");
    }
}

#[test]
fn what_cannot_be_subscribed_to_is_refused_with_its_condition() {
    check(&[
        (Some(ROMEO), "set", NS, "<subscribe jid='romeo@montague.example'/>", "bad-request", "nodeid-required"),
        (Some(ROMEO), "set", NS, "<subscribe node='NODE'/>", "bad-request", "jid-required"),
        (Some(ROMEO), "set", NS, "<subscribe node='NODE' jid='nurse@capulet.example'/>", "bad-request", "invalid-jid"),
        (Some(ROMEO), "set", NS, "<subscribe node='NODE' jid='@'/>", "bad-request", "invalid-jid"),
        (Some(ROMEO), "set", NS, "<subscribe node='x' jid='romeo@montague.example'/>", "item-not-found", ""),
        (
            Some(NURSE),
            "set",
            NS,
            "<subscribe node='NODE' jid='nurse@capulet.example'/>",
            "not-authorized",
            "not-in-roster-group",
        ),
        (
            Some(ROMEO),
            "set",
            NS,
            "<subscribe node='NODE' jid='romeo@montague.example'/><options><x xmlns='jabber:x:data'/></options>",
            "feature-not-implemented",
            "feature='subscription-options'",
        ),
        (
            Some(ROMEO),
            "set",
            NS,
            "<unsubscribe node='NODE' jid='romeo@montague.example'/>",
            "unexpected-request",
            "not-subscribed",
        ),
        (Some(ROMEO), "set", NS, "<unsubscribe node='NODE' jid='nurse@capulet.example'/>", "forbidden", ""),
        (Some(ROMEO), "set", NS, "<unsubscribe node='x' jid='romeo@montague.example'/>", "item-not-found", ""),
        (
            Some(ROMEO),
            "get",
            NS,
            "<options node='NODE' jid='romeo@montague.example'/>",
            "feature-not-implemented",
            "feature='subscription-options'",
        ),
        (Some(ROMEO), "get", NS, "<default/>", "feature-not-implemented", "feature='retrieve-default-sub'"),
    ]);
}

#[test]
fn what_cannot_be_published_or_retrieved_is_refused_with_its_condition() {
    check(&[
        (None, "set", NS, "<publish><item><a xmlns='b'/></item></publish>", "bad-request", "nodeid-required"),
        (None, "set", NS, "<publish node='NODE'/>", "bad-request", "item-required"),
        (None, "set", NS, "<publish node='NODE'><item/></publish>", "bad-request", "payload-required"),
        (
            None,
            "set",
            NS,
            "<publish node='NODE'><item><a xmlns='b'/><a xmlns='b'/></item></publish>",
            "bad-request",
            "invalid-payload",
        ),
        (
            None,
            "set",
            NS,
            "<publish node='typed'><item><a xmlns='b'/></item></publish>",
            "bad-request",
            "invalid-payload",
        ),
        (None, "set", NS, "<retract node='NODE'/>", "bad-request", "item-required"),
        (None, "set", NS, "<retract><item id='1'/></retract>", "bad-request", "nodeid-required"),
        (None, "set", NS, "<retract node='NODE'><item id='x'/></retract>", "item-not-found", ""),
        (
            None,
            "set",
            NS,
            "<retract node='passing'><item id='x'/></retract>",
            "feature-not-implemented",
            "feature='persistent-items'",
        ),
        (None, "get", NS, "<items node='passing'/>", "feature-not-implemented", "feature='persistent-items'"),
        (None, "get", NS, "<items/>", "bad-request", "nodeid-required"),
        (None, "get", NS, "<items node='x'/>", "item-not-found", ""),
        (Some(NURSE), "get", NS, "<items node='NODE'/>", "not-authorized", "not-in-roster-group"),
        (Some(ROMEO), "set", NS, "<publish node='NODE'><item><a xmlns='b'/></item></publish>", "forbidden", ""),
        (Some(ROMEO), "set", NS, "<retract node='NODE'><item id='1'/></retract>", "forbidden", ""),
        (Some(ROMEO), "set", NS, "<create node='x'/>", "forbidden", ""),
    ]);
}

#[test]
fn what_cannot_be_done_with_a_node_is_refused_with_its_condition() {
    let access = |model: &str| {
        format!(
            "<x xmlns='jabber:x:data' type='submit'><field var='pubsub#access_model'><value>{model}</value></field></x>"
        )
    };
    let create = format!("<create node='x'/><configure>{}</configure>", access("authorize"));
    let configure = format!("<configure node='NODE'>{}</configure>", access("authorize"));
    let nowhere = format!("<configure node='x'>{}</configure>", access("open"));
    let unknown = "<configure node='NODE'><x xmlns='jabber:x:data' type='submit'><field var='urn:x'/></x></configure>";
    check(&[
        (None, "set", NS, "<create/>", "not-acceptable", "nodeid-required"),
        (None, "set", NS, "<create node='NODE'/>", "conflict", ""),
        (None, "set", NS, &create, "not-acceptable", "unsupported-access-model"),
        (None, "set", OWNER, &configure, "not-acceptable", "unsupported-access-model"),
        (None, "set", OWNER, unknown, "not-acceptable", ""),
        (None, "set", OWNER, &nowhere, "item-not-found", ""),
        (None, "get", OWNER, "<configure/>", "bad-request", "nodeid-required"),
        (None, "get", OWNER, "<configure node='x'/>", "item-not-found", ""),
        (None, "get", OWNER, "<subscriptions node='x'/>", "item-not-found", ""),
        (None, "get", OWNER, "<affiliations node='x'/>", "item-not-found", ""),
        (None, "set", OWNER, "<delete node='x'/>", "item-not-found", ""),
        (None, "set", OWNER, "<purge node='x'/>", "item-not-found", ""),
        (None, "set", OWNER, "<purge node='passing'/>", "feature-not-implemented", "feature='persistent-items'"),
        (Some(ROMEO), "get", OWNER, "<configure node='NODE'/>", "forbidden", ""),
        (Some(ROMEO), "set", OWNER, "<delete node='NODE'/>", "forbidden", ""),
        (Some(ROMEO), "set", OWNER, "<purge node='NODE'/>", "forbidden", ""),
        (Some(ROMEO), "get", OWNER, "<subscriptions node='NODE'/>", "forbidden", ""),
        (Some(ROMEO), "get", OWNER, "<affiliations node='NODE'/>", "forbidden", ""),
    ]);
}

// RFC 6121 §8.5.1 before all of the above.
#[test]
fn a_stranger_hears_at_every_request_what_an_account_that_does_not_exist_would_say() {
    for (kind, ns, request) in [
        ("get", NS, ""),
        ("set", NS, ""),
        ("get", NS, "<items/>"),
        ("get", NS, "<items node='NODE'/>"),
        ("get", NS, "<subscriptions/>"),
        ("get", NS, "<affiliations/>"),
        ("get", NS, "<options node='NODE'/>"),
        ("get", NS, "<default/>"),
        ("get", NS, "<something/>"),
        ("set", NS, "<subscribe/>"),
        ("set", NS, "<subscribe node='NODE' jid='x'/>"),
        ("set", NS, "<unsubscribe/>"),
        ("set", NS, "<unsubscribe node='NODE' jid='tybalt@capulet.example'/>"),
        ("set", NS, "<options node='NODE'/>"),
        ("set", NS, "<publish node='NODE'/>"),
        ("set", NS, "<something/>"),
        ("get", OWNER, ""),
        ("get", OWNER, "<configure node='NODE'/>"),
        ("set", OWNER, "<delete node='NODE'/>"),
    ] {
        let heard = stage().is_asked("tybalt@capulet.example", kind, ns, &request.replace("NODE", NODE));
        let error = "<error type='cancel'><service-unavailable xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>";
        assert!(heard.len() == 1 && heard[0].1.contains(error), "{request}: {heard:?}");
    }
}
