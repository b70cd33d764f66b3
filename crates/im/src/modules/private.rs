//! Private XML Storage, XEP-0049: whatever a client keeps for itself, by the name and namespace of its root.

use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use std::sync::Arc;
use store::Change;
use xmpp::{Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "jabber:iq:private";
const SPACE: &str = "private";
/// Different elements in one set.
const ELEMENTS_MAX: usize = 16;

pub static MODULE: Module = Module {
    name: "private",
    specs: &[xep(49, "1.2")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "query", Who::Owner, read), (IqType::Set, NS, "query", Who::Owner, write)],
    ..Module::EMPTY
};

fn key(element: &Element) -> Box<str> {
    format!("{{{}}}{}", element.ns, element.name).into()
}

/// Of other protocols, which keep them elsewhere. XEP-0049 §2.3.
fn is_reserved(ns: &str) -> bool {
    ns.is_empty() || ns.starts_with("jabber:") || ns == "vcard-temp"
}

/// The one child says what is wanted. XEP-0049 §2.3, example 2.
fn read(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let wanted = only_child(iq.child)?;
    let query = Query::Blob { account: account.jid.clone(), space: SPACE.into(), key: key(wanted) };
    Ok(Answer::Query(query, show))
}

/// What is stored, or the empty element that was asked with.
fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, stored: QueryAnswer, fx: &mut Effects) {
    let content = match stored {
        QueryAnswer::Blob(Some(bytes)) => {
            Element::parse(&bytes, NS).map(Some).map_err(|_| StanzaCondition::InternalServerError.into())
        }
        QueryAnswer::Blob(None) => nothing_stored(iq).map(Some),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

fn nothing_stored(iq: &Stanza) -> Result<Element, StanzaError> {
    let query = iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element();
    let wanted = only_child(&query)?;
    Ok(Element::new("query", NS).child(Element::new(&wanted.name, &wanted.ns)))
}

fn only_child(query: &Element) -> Result<&Element, StanzaError> {
    let mut children = query.elements();
    let child = children.next().ok_or(StanzaCondition::BadRequest)?;
    if children.next().is_some() {
        return Err(StanzaCondition::BadRequest.into());
    }
    if is_reserved(&child.ns) {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    Ok(child)
}

/// Replaces what was stored under each name; several elements of one name are kept together.
fn write(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let mut stored: Vec<(Box<str>, Element)> = Vec::new();
    for child in iq.child.elements() {
        if is_reserved(&child.ns) {
            return Err(StanzaCondition::NotAcceptable.into());
        }
        let key = key(child);
        let at = stored.iter().position(|(other, _)| *other == key).unwrap_or_else(|| {
            stored.push((key, Element::new("query", NS)));
            stored.len() - 1
        });
        if stored.len() > ELEMENTS_MAX {
            return Err(StanzaCondition::NotAcceptable.into());
        }
        stored[at].1.nodes.push(xmpp::xml::Node::Element(child.clone()));
    }
    if stored.is_empty() {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    let mut changes = Vec::with_capacity(stored.len());
    for (key, element) in stored {
        let value = element.to_bytes("");
        if value.len() > account.policy.limits.private_bytes_max {
            return Err(StanzaError::from(StanzaCondition::NotAcceptable).with_text("too big to be stored"));
        }
        changes.push(Change::BlobPut { account: account.jid.clone(), space: SPACE.into(), key, value });
    }
    fx.commit(changes, Some(iq.stanza), iq.ticket);
    Ok(Answer::Result(None))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effects::Effect;
    use crate::item::Item;
    use crate::testing::{Scene, account};

    fn hamlet() -> Scene {
        account("hamlet@shakespeare.example").with("denmark", 0)
    }

    fn set(content: &str) -> String {
        format!("<iq type='set' id='s1'><query xmlns='jabber:iq:private'>{content}</query></iq>")
    }

    fn get(content: &str) -> String {
        format!("<iq type='get' id='g1'><query xmlns='jabber:iq:private'>{content}</query></iq>")
    }

    /// Reads with what was written; `None` when nothing was.
    fn reads(scene: &mut Scene, xml: &str, written: &[Change]) -> String {
        let fx = scene.sends("denmark", xml);
        let asked = fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { query: Query::Blob { key, .. }, iq, session, then } => Some((key, iq, session, then)),
            _ => None,
        });
        let (wanted, iq, session, then) = asked.expect("a query");
        let blob = written.iter().find_map(|change| match change {
            Change::BlobPut { key, value, .. } if *key == wanted => Some(value.clone()),
            _ => None,
        });
        scene.item(Item::Answered { iq, session, answer: QueryAnswer::Blob(blob), then }).delivered("denmark").remove(0)
    }

    #[test]
    fn what_was_stored_under_a_name_is_read_back() {
        let mut hamlet = hamlet();
        let prefs = "<exodus xmlns='exodus:prefs'><defaultnick>Hamlet</defaultnick></exodus>";
        let written = hamlet.sends("denmark", &set(prefs)).commits();
        let read = reads(&mut hamlet, &get("<exodus xmlns='exodus:prefs'/>"), &written);
        assert!(read.contains(&format!("<query xmlns='jabber:iq:private'>{prefs}</query>")), "{read}");
    }

    #[test]
    fn what_was_never_stored_is_read_as_the_empty_element() {
        let read = reads(&mut hamlet(), &get("<storage xmlns='storage:bookmarks'/>"), &[]);
        assert!(
            read.contains("<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>"),
            "{read}"
        );
    }

    #[test]
    fn several_elements_of_one_name_are_kept_together() {
        let mut hamlet = hamlet();
        let notes = "<note xmlns='n:o'>one</note><note xmlns='n:o'>two</note>";
        let written = hamlet.sends("denmark", &set(notes)).commits();
        assert_eq!(written.len(), 1);
        assert!(reads(&mut hamlet, &get("<note xmlns='n:o'/>"), &written).contains(notes));
    }

    // XEP-0049 §2.3.
    #[test]
    fn a_set_without_content_or_in_a_reserved_namespace_is_not_acceptable() {
        for content in ["", "<query xmlns='jabber:iq:roster'/>", "<vCard xmlns='vcard-temp'/>"] {
            let fx = hamlet().sends("denmark", &set(content));
            assert!(fx.commits().is_empty());
            assert!(fx.delivered("denmark")[0].contains("not-acceptable"), "{content}");
        }
    }

    #[test]
    fn a_get_of_nothing_or_of_two_things_is_a_bad_request() {
        for content in ["", "<a xmlns='n:o'/><b xmlns='n:o'/>"] {
            assert!(hamlet().sends("denmark", &get(content)).delivered("denmark")[0].contains("bad-request"));
        }
    }

    #[test]
    fn what_is_beyond_the_limit_is_refused_and_nothing_of_the_set_is_kept() {
        let mut hamlet = hamlet().policy(|policy| policy.limits.private_bytes_max = 200);
        let big = format!("<small xmlns='n:o'/><big xmlns='n:o'>{}</big>", "x".repeat(200));
        let fx = hamlet.sends("denmark", &set(&big));
        assert!(fx.commits().is_empty());
        assert!(fx.delivered("denmark")[0].contains("not-acceptable"));
    }
}
