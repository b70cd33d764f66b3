//! vcard-temp, XEP-0054: one card an account, written by its owner.
//!
//! The card is public in XEP-0054; here whoever sees it is decided by [`crate::view`] (LIMITS.md §2 row 17). Telling
//! contacts of a new photo is the clients' part of XEP-0153 (§3.1): they put its hash into their presence.

use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected, unknown};
use crate::view::Exit;
use std::sync::Arc;
use store::Change;
use xmpp::{Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "vcard-temp";
/// Where the card is kept.
const SPACE: &str = "vcard-temp";
const KEY: &str = "vCard";

pub static MODULE: Module = Module {
    name: "vcard",
    specs: &[xep(54, "1.3.0"), xep(153, "1.1.1")],
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "vCard", Who::Viewer(Exit::VCard), read),
        (IqType::Set, NS, "vCard", Who::Owner, write),
    ],
    ..Module::EMPTY
};

fn read(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let query = Query::Blob {
        account: account.jid.clone(),
        space: SPACE.into(),
        key: KEY.into(),
    };
    Ok(Answer::Query(query, show))
}

/// No card: the owner hears `item-not-found` (XEP-0054 §3.1), others what an account that does not exist would say
/// (§3.3).
fn show(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    stored: QueryAnswer,
    fx: &mut Effects,
) {
    let content = match stored {
        QueryAnswer::Blob(Some(bytes)) => parse(&bytes).map(Some),
        QueryAnswer::Blob(None) if session.is_some() => Err(StanzaCondition::ItemNotFound.into()),
        QueryAnswer::Blob(None) => Err(unknown()),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}

fn parse(bytes: &[u8]) -> Result<Element, StanzaError> {
    Element::parse(bytes, NS).map_err(|_| StanzaCondition::InternalServerError.into())
}

fn write(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let value = iq.child.to_bytes("");
    if value.len() > account.policy.limits.vcard_bytes_max {
        return Err(
            StanzaError::from(StanzaCondition::NotAcceptable).with_text("the card is too big")
        );
    }
    let change = Change::BlobPut {
        account: account.jid.clone(),
        space: SPACE.into(),
        key: KEY.into(),
        value,
    };
    fx.commit(vec![change], Some(iq.stanza), iq.ticket);
    Ok(Answer::Result(None))
}
