//! Private XML Storage, XEP-0049: whatever a client keeps for itself, by the name and namespace of its root.
//!
//! All of it is one value in the store, so that one limit bounds it. A set reads the value and writes it anew; sets
//! wait for each other.

use crate::account::Account;
use crate::effects::{Effect, Effects, Query, QueryAnswer};
use crate::item::{SessionId, Ticket};
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use std::sync::Arc;
use store::Change;
use xmpp::xml::Node;
use xmpp::{Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "jabber:iq:private";
/// Where the value is kept.
const SPACE: &str = "private";
const KEY: &str = "all";
/// The same, space and key, for whoever moves accounts.
pub const PLACE: (&str, &str) = (SPACE, KEY);
/// Sets that wait for one under way.
const WRITES_MAX: usize = 16;

pub static MODULE: Module = Module {
    name: "private",
    specs: &[xep(49, "1.2")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "query", Who::Owner, read), (IqType::Set, NS, "query", Who::Owner, write)],
    ..Module::EMPTY
};

/// A set that waits.
#[derive(Debug)]
pub struct Write {
    iq: Arc<Stanza>,
    session: Option<SessionId>,
    ticket: Ticket,
}

/// Of other protocols, which keep them elsewhere. XEP-0049 §2.3.
fn is_reserved(ns: &str) -> bool {
    ns.is_empty() || ns.starts_with("jabber:") || ns == "vcard-temp"
}

fn stored(account: &Account) -> Query {
    Query::Blob { account: account.jid.clone(), space: SPACE.into(), key: KEY.into() }
}

/// The value as a tree; an empty one if nothing is stored.
fn parse(came: QueryAnswer) -> Result<Element, StanzaError> {
    match came {
        QueryAnswer::Blob(Some(bytes)) => {
            Element::parse(&bytes, NS).map_err(|_| StanzaCondition::InternalServerError.into())
        }
        QueryAnswer::Blob(None) => Ok(Element::new("query", NS)),
        other => Err(unexpected(other)),
    }
}

/// The one child says what is wanted. XEP-0049 §2.3, example 2.
fn read(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    only_child(iq.child)?;
    Ok(Answer::Query(stored(account), show))
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

fn show(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let content = parse(came).and_then(|all| wanted(&all, iq));
    answer(account, iq, session, content.map(Some), fx);
}

/// What is stored under the name, or the empty element that was asked with.
fn wanted(all: &Element, iq: &Stanza) -> Result<Element, StanzaError> {
    let query = iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element();
    let wanted = only_child(&query)?;
    let mut found: Vec<Element> = all.elements().filter(|child| child.is(&wanted.name, &wanted.ns)).cloned().collect();
    if found.is_empty() {
        found.push(Element::new(&wanted.name, &wanted.ns));
    }
    Ok(Element::new("query", NS).children_from(found))
}

/// Replaces what is stored under each name; several elements of one name are kept together.
fn write(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    // A set without content, or with what is kept elsewhere. XEP-0049 §2.3.
    if iq.child.elements().next().is_none() || iq.child.elements().any(|child| is_reserved(&child.ns)) {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    if account.private_writes.len() > WRITES_MAX {
        return Err(StanzaCondition::ResourceConstraint.into());
    }
    account.private_writes.push_back(Write { iq: iq.stanza.clone(), session: iq.session, ticket: iq.ticket.clone() });
    // If another one is under way, this one follows it.
    Ok(if account.private_writes.len() == 1 { Answer::Query(stored(account), merge) } else { Answer::Sent })
}

/// The value was read: written anew, and answered when that is on disk. The next set reads what this one wrote, for
/// its query stands behind the commit.
fn merge(account: &mut Account, iq: &Arc<Stanza>, session: Option<SessionId>, came: QueryAnswer, fx: &mut Effects) {
    let ticket = account.private_writes.pop_front().map(|write| write.ticket).unwrap_or_default();
    let merged = parse(came).and_then(|all| merged(all, iq, account.policy.limits.private_bytes_max));
    let outcome = merged.map(|value| {
        let change = Change::BlobPut { account: account.jid.clone(), space: SPACE.into(), key: KEY.into(), value };
        fx.commit(vec![change], Some(iq), &ticket);
        None
    });
    answer(account, iq, session, outcome, fx);
    if let Some(next) = account.private_writes.front() {
        let (iq, session) = (next.iq.clone(), next.session);
        fx.push(Effect::Query { query: stored(account), iq, session, then: merge });
    }
}

/// # Errors
/// `not-acceptable` if it would be too much to store, or more than can be read again.
fn merged(mut all: Element, iq: &Stanza, bytes_max: usize) -> Result<Vec<u8>, StanzaError> {
    let set = iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element();
    let is_replaced = |old: &Element| set.elements().any(|new| old.is(&new.name, &new.ns));
    all.nodes.retain(|node| matches!(node, Node::Element(old) if !is_replaced(old)));
    all.nodes.extend(set.elements().cloned().map(Node::Element));
    let value = all.to_bytes("");
    if value.len() > bytes_max || Element::parse(&value, NS).is_err() {
        return Err(StanzaError::from(StanzaCondition::NotAcceptable)
            .with_text("too much to be stored")
            .over("private_bytes_max"));
    }
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account};

    const PREFS: &str = "<exodus xmlns='exodus:prefs'><defaultnick>Hamlet</defaultnick></exodus>";

    /// Hamlet and what his store holds.
    struct Kept {
        scene: Scene,
        value: Option<Vec<u8>>,
    }

    fn hamlet() -> Kept {
        Kept { scene: account("hamlet@shakespeare.example").with("denmark", 0).with("england", 0), value: None }
    }

    impl Kept {
        /// Sends an iq, and answers queries as the store would, until there are no more.
        fn sends(&mut self, xml: &str) -> Vec<String> {
            let fx = self.scene.sends("denmark", xml);
            self.settles(fx)
        }

        fn settles(&mut self, fx: Fx) -> Vec<String> {
            let mut delivered = fx.delivered("denmark");
            for effect in fx.list {
                match effect {
                    Effect::Commit { changes, .. } => match &changes[..] {
                        [Change::BlobPut { value, .. }] => self.value = Some(value.clone()),
                        other => panic!("{other:?}"),
                    },
                    Effect::Query { iq, session, then, .. } => {
                        let answer = QueryAnswer::Blob(self.value.clone());
                        let fx = self.scene.item(Item::Answered { iq, session, answer, then });
                        delivered.extend(self.settles(fx));
                    }
                    _ => {}
                }
            }
            delivered
        }

        fn sets(&mut self, content: &str) -> String {
            self.sends(&set(content)).remove(0)
        }

        fn gets(&mut self, content: &str) -> String {
            self.sends(&format!("<iq type='get' id='g1'><query xmlns='{NS}'>{content}</query></iq>")).remove(0)
        }
    }

    fn set(content: &str) -> String {
        format!("<iq type='set' id='s1'><query xmlns='{NS}'>{content}</query></iq>")
    }

    #[test]
    fn what_was_stored_under_a_name_is_read_back() {
        let mut hamlet = hamlet();
        assert!(hamlet.sets(PREFS).contains("type='result'"));
        assert!(hamlet.sets("<storage xmlns='storage:bookmarks'/>").contains("type='result'"));
        let read = hamlet.gets("<exodus xmlns='exodus:prefs'/>");
        assert!(read.contains(&format!("<query xmlns='{NS}'>{PREFS}</query>")), "{read}");
    }

    #[test]
    fn what_was_never_stored_is_read_as_the_empty_element() {
        let read = hamlet().gets("<storage xmlns='storage:bookmarks'/>");
        assert!(
            read.contains("<query xmlns='jabber:iq:private'><storage xmlns='storage:bookmarks'/></query>"),
            "{read}"
        );
    }

    #[test]
    fn a_set_replaces_what_had_its_name_and_nothing_else() {
        let mut hamlet = hamlet();
        hamlet.sets(&format!("{PREFS}<note xmlns='n:o'>old</note>"));
        hamlet.sets("<note xmlns='n:o'>new</note>");
        let read = hamlet.gets("<note xmlns='n:o'/>");
        assert!(read.contains("new") && !read.contains("old"), "{read}");
        assert!(hamlet.gets("<exodus xmlns='exodus:prefs'/>").contains(PREFS));
    }

    #[test]
    fn several_elements_of_one_name_are_kept_together() {
        let mut hamlet = hamlet();
        let notes = "<note xmlns='n:o'>one</note><note xmlns='n:o'>two</note>";
        hamlet.sets(notes);
        assert!(hamlet.gets("<note xmlns='n:o'/>").contains(notes));
    }

    #[test]
    fn a_set_is_answered_after_its_commit() {
        let mut hamlet = hamlet().scene;
        let fx = hamlet.sends("denmark", &set(PREFS));
        let (iq, session, then) = query_of(fx).expect("a query");
        let fx = hamlet.item(Item::Answered { iq, session, answer: QueryAnswer::Blob(None), then });
        assert!(fx.in_order(
            |effect| matches!(effect, Effect::Commit { .. }),
            |effect| matches!(effect, Effect::Edge { .. })
        ));
    }

    type Asked = (Arc<Stanza>, Option<SessionId>, crate::Then);

    fn query_of(fx: Fx) -> Option<Asked> {
        fx.list.into_iter().find_map(|effect| match effect {
            Effect::Query { iq, session, then, .. } => Some((iq, session, then)),
            _ => None,
        })
    }

    #[test]
    fn two_sets_at_once_wait_for_each_other_and_none_is_lost() {
        let mut hamlet = hamlet();
        let first = hamlet.scene.sends("denmark", &set("<a xmlns='n:o'/>"));
        assert!(query_of(hamlet.scene.sends("england", &set("<b xmlns='n:o'/>"))).is_none());
        hamlet.settles(first);
        let value = String::from_utf8(hamlet.value.expect("stored")).expect("UTF-8");
        assert!(value.contains("<a xmlns='n:o'/>") && value.contains("<b xmlns='n:o'/>"), "{value}");
        assert!(hamlet.scene.private_writes.is_empty());
    }

    #[test]
    fn more_sets_at_once_than_the_limit_are_refused() {
        let mut hamlet = hamlet().scene;
        for _ in 0..=WRITES_MAX {
            assert!(hamlet.sends("denmark", &set(PREFS)).delivered("denmark").is_empty());
        }
        assert!(hamlet.sends("denmark", &set(PREFS)).delivered("denmark")[0].contains("resource-constraint"));
    }

    // XEP-0049 §2.3.
    #[test]
    fn a_set_without_content_or_in_a_reserved_namespace_is_not_acceptable() {
        for content in ["", "<query xmlns='jabber:iq:roster'/>", "<vCard xmlns='vcard-temp'/>"] {
            let mut hamlet = hamlet();
            assert!(hamlet.sets(content).contains("not-acceptable"), "{content}");
            assert!(hamlet.value.is_none());
        }
    }

    #[test]
    fn a_get_of_nothing_or_of_two_things_is_a_bad_request() {
        for content in ["", "<a xmlns='n:o'/><b xmlns='n:o'/>"] {
            assert!(hamlet().gets(content).contains("bad-request"));
        }
    }

    #[test]
    fn all_that_is_stored_together_is_bound_by_the_limit() {
        let mut hamlet = hamlet();
        hamlet.scene = hamlet.scene.policy(|policy| policy.limits.private_bytes_max = 300);
        assert!(hamlet.sets(&format!("<a xmlns='n:o'>{}</a>", "x".repeat(150))).contains("type='result'"));
        let before = hamlet.value.clone();
        assert!(hamlet.sets(&format!("<b xmlns='n:o'>{}</b>", "x".repeat(150))).contains("not-acceptable"));
        assert_eq!(hamlet.value, before);
        // What replaces something may take its room.
        assert!(hamlet.sets(&format!("<a xmlns='n:o'>{}</a>", "y".repeat(150))).contains("type='result'"));
    }
}
