//! Items on request: XEP-0060 §6.5.

use super::NS;
use super::errors::{may_see, node_of, seen_node, unsupported};
use super::notify::{item, publisher};
use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq};
use crate::modules::{answer, rsm, unexpected};
use crate::nodes::{self, SPACE, item_key};
use std::sync::Arc;
use xmpp::{Element, Stanza, StanzaCondition, StanzaError};

/// Bytes of payloads in one answer; what is beyond is asked for page by page. XEP-0060 §6.5.4.
const ANSWER_BYTES_MAX: usize = 192 << 10;

/// §6.5: all, the most recent, some by id, or a page; the last published last.
pub(super) fn items(account: &mut Account, iq: &Iq<'_>, command: &Element, _: &mut Effects) -> Handled {
    seen_node(account, iq, command)?;
    let wanted = Wanted::of(account, iq.child, command)?;
    let keys = wanted.ids.iter().map(|id| item_key(wanted.node, id)).collect();
    Ok(Answer::Query(Query::Blobs { account: account.jid.clone(), space: SPACE.into(), keys }, show_items))
}

/// The items that a request wants.
struct Wanted<'a> {
    node: &'a str,
    ids: Vec<Box<str>>,
    /// Index of the first, and how many there are in all; when not all are told.
    part: Option<(usize, usize)>,
}

impl<'a> Wanted<'a> {
    fn of(account: &Account, pubsub: &Element, command: &'a Element) -> Result<Wanted<'a>, StanzaError> {
        let name = node_of(command)?;
        let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
        if !node.config.persist {
            // §6.5.9.4.
            return Err(unsupported("persistent-items"));
        }
        let named: Vec<&str> = command.elements().filter_map(|item| item.attribute("id")).collect();
        let bad_request = || StanzaError::from(StanzaCondition::BadRequest);
        let newest = match command.attribute("max_items") {
            Some(max) => Some(max.parse::<usize>().map_err(|_| bad_request())?),
            None => None,
        };
        let all: Vec<&nodes::Item> =
            node.items.iter().filter(|item| named.is_empty() || named.contains(&&*item.id)).collect();
        let from = newest.map_or(0, |newest| all.len().saturating_sub(newest));
        let (mut from, mut to) = (from, all.len());
        let mut backwards = newest.is_some();
        if let Some(set) = pubsub.find("set", rsm::NS) {
            let at = |name: &str| -> Result<Option<usize>, StanzaError> {
                let Some(id) = set.find(name, rsm::NS).map(Element::text_content).filter(|id| !id.is_empty()) else {
                    return Ok(None);
                };
                let at = all.iter().position(|item| *item.id == *id);
                Ok(Some(at.ok_or(StanzaCondition::ItemNotFound)?))
            };
            from = at("after")?.map_or(from, |at| at + 1);
            to = at("before")?.unwrap_or(to).max(from);
            backwards = set.find("before", rsm::NS).is_some();
            if let Some(max) = set.find("max", rsm::NS) {
                let max: usize = max.text_content().trim().parse().map_err(|_| bad_request())?;
                if backwards {
                    from = from.max(to.saturating_sub(max));
                } else {
                    to = to.min(from.saturating_add(max));
                }
            }
        }
        let part = &all[from..to];
        let mut bytes = 0;
        let mut fits = |item: &&&nodes::Item| {
            bytes += item.bytes + item.id.len();
            bytes <= ANSWER_BYTES_MAX || bytes == item.bytes + item.id.len()
        };
        let count = match backwards {
            true => part.iter().rev().take_while(&mut fits).count(),
            false => part.iter().take_while(&mut fits).count(),
        };
        let shown = if backwards { &part[part.len() - count..] } else { &part[..count] };
        let first = if backwards { to - count } else { from };
        let ids = shown.iter().map(|item| item.id.clone()).collect();
        let is_part = count < all.len() || pubsub.find("set", rsm::NS).is_some();
        Ok(Wanted { node: name, ids, part: is_part.then_some((first, all.len())) })
    }
}

fn show_items(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let found = match came {
        QueryAnswer::Blobs(found) => Ok(found),
        other => Err(unexpected(other)),
    };
    let content = found.and_then(|found| {
        let pubsub = iq.payload.first().ok_or(StanzaCondition::BadRequest)?.to_element();
        let command = pubsub.find("items", NS).ok_or(StanzaCondition::BadRequest)?;
        // As the node was when the store was asked: an item that went since is not in `found`.
        let node = node_of(command)?;
        if let Some(watcher) = iq.from.as_ref().filter(|_| session.is_none()) {
            // The store took its time.
            may_see(account, watcher, node)?;
        }
        let publisher = publisher(account, node);
        let items =
            found.iter().filter_map(|(key, payload)| item(key.split_once('\u{1f}')?.1, payload, publisher.as_deref()));
        let items: Vec<Element> = items.map(|item| in_namespace(item, NS)).collect();
        let wanted = Wanted::of(account, &pubsub, command).ok();
        let set = wanted.and_then(|wanted| wanted.part).map(|(index, count)| {
            let id = |item: Option<&Element>| item.and_then(|item| item.attribute("id")).map(str::to_owned);
            let first =
                id(items.first()).map(|id| Element::new("first", rsm::NS).attr("index", index.to_string()).text(id));
            let last = id(items.last()).map(|id| Element::new("last", rsm::NS).text(id));
            let count = Element::new("count", rsm::NS).text(count.to_string());
            Element::new("set", rsm::NS).children_from(first).children_from(last).child(count)
        });
        let items = Element::new("items", NS).attr("node", node).children_from(items);
        Ok(Element::new("pubsub", NS).child(items).children_from(set))
    });
    answer(account, iq, session, content.map(Some), fx);
}

fn in_namespace(element: Element, ns: &str) -> Element {
    Element { ns: ns.into(), ..element }
}
