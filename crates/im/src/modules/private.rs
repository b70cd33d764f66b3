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
    account_iq: &[
        (IqType::Get, NS, "query", Who::Owner, read),
        (IqType::Set, NS, "query", Who::Owner, write),
    ],
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
    let query = Query::Blob {
        account: account.jid.clone(),
        space: SPACE.into(),
        key: key(wanted),
    };
    Ok(Answer::Query(query, show))
}

/// What is stored, or the empty element that was asked with.
fn show(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    stored: QueryAnswer,
    fx: &mut Effects,
) {
    let content = match stored {
        QueryAnswer::Blob(Some(bytes)) => Element::parse(&bytes, NS)
            .map(Some)
            .map_err(|_| StanzaCondition::InternalServerError.into()),
        QueryAnswer::Blob(None) => nothing_stored(iq).map(Some),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

fn nothing_stored(iq: &Stanza) -> Result<Element, StanzaError> {
    let query = iq
        .payload
        .first()
        .ok_or(StanzaCondition::BadRequest)?
        .to_element();
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
        let at = stored
            .iter()
            .position(|(other, _)| *other == key)
            .unwrap_or_else(|| {
                stored.push((key, Element::new("query", NS)));
                stored.len() - 1
            });
        if stored.len() > ELEMENTS_MAX {
            return Err(StanzaCondition::NotAcceptable.into());
        }
        stored[at]
            .1
            .nodes
            .push(xmpp::xml::Node::Element(child.clone()));
    }
    if stored.is_empty() {
        return Err(StanzaCondition::NotAcceptable.into());
    }
    let mut changes = Vec::with_capacity(stored.len());
    for (key, element) in stored {
        let value = element.to_bytes("");
        if value.len() > account.policy.limits.private_bytes_max {
            return Err(
                StanzaError::from(StanzaCondition::NotAcceptable).with_text("too big to be stored")
            );
        }
        changes.push(Change::BlobPut {
            account: account.jid.clone(),
            space: SPACE.into(),
            key,
            value,
        });
    }
    fx.commit(changes, Some(iq.stanza), iq.ticket);
    Ok(Answer::Result(None))
}
