//! In-Band Registration, XEP-0077, for those who have an account: what is on file, a new password, removal.
//!
//! Whose account it is, the session says, never the request (LIMITS.md §2 row 24). Registration of strangers happens
//! before a session exists; [`form`] and [`request`] are its words.

use super::data_form;
use crate::account::Account;
use crate::effects::{Effects, Query, QueryAnswer, Secret};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who, xep};
use crate::modules::{answer, unexpected};
use std::sync::Arc;
use xmpp::{BareJid, Element, IqType, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "jabber:iq:register";
const FORM_TYPES: &[&str] = &[NS, "jabber:iq:register:changepassword"];
/// As long as an address part may be, RFC 7622 §3.1.
const PASSWORD_BYTES_MAX: usize = 1023;

pub static MODULE: Module = Module {
    name: "register",
    specs: &[xep(77, "2.4")],
    host_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "query", Who::Owner, on_file),
        (IqType::Set, NS, "query", Who::Owner, change),
    ],
    own_at_host: true,
    ..Module::EMPTY
};

/// What strangers are asked for. XEP-0077 §3.1, example 2.
pub fn form() -> Element {
    Element::new("query", NS)
        .child(Element::new("instructions", NS).text("Choose a username and password."))
        .child(Element::new("username", NS))
        .child(Element::new("password", NS))
}

/// Username, as it came, and password of a set, from its plain fields or its form.
///
/// # Errors
/// `not-acceptable` when one is missing or empty, or the password is too long. XEP-0077 §3.1.
pub fn request(query: &Element) -> Result<(String, Secret), StanzaError> {
    let form = data_form::submitted(query, FORM_TYPES);
    let read = |name: &str| match form {
        Some(form) => data_form::value(form, name),
        None => query.find(name, NS).map(Element::text_content),
    };
    let given = |name: &str| read(name).filter(|text| !text.is_empty());
    match (given("username"), given("password")) {
        (Some(username), Some(password)) if password.len() <= PASSWORD_BYTES_MAX => {
            Ok((username, Secret(password)))
        }
        _ => Err(StanzaCondition::NotAcceptable.into()),
    }
}

/// XEP-0077 §3.1, example 3. The password is not on file.
fn on_file(account: &mut Account, _: &Iq<'_>, _: &mut Effects) -> Handled {
    let username = account.jid.local().unwrap_or_default();
    let query = Element::new("query", NS)
        .child(Element::new("registered", NS))
        .child(Element::new("username", NS).text(username))
        .child(Element::new("password", NS));
    Ok(Answer::Result(Some(query)))
}

fn change(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    if iq.child.find("remove", NS).is_some() {
        remove(account, iq)
    } else {
        change_password(account, iq)
    }
}

/// XEP-0077 §3.2.
fn remove(account: &mut Account, iq: &Iq<'_>) -> Handled {
    if iq.child.elements().count() != 1 {
        return Err(StanzaCondition::BadRequest.into());
    }
    if !account.policy.account_removal {
        return Err(StanzaCondition::NotAllowed.into());
    }
    Ok(Answer::Query(
        Query::RemoveAccount {
            account: account.jid.clone(),
        },
        done,
    ))
}

/// XEP-0077 §3.3.
fn change_password(account: &mut Account, iq: &Iq<'_>) -> Handled {
    if !account.policy.password_change {
        return Err(StanzaCondition::NotAllowed.into());
    }
    let (username, password) = request(iq.child).map_err(|_| StanzaCondition::BadRequest)?;
    if !names(&username, &account.jid) {
        return Err(StanzaCondition::NotAllowed.into());
    }
    Ok(Answer::Query(
        Query::ChangePassword {
            account: account.jid.clone(),
            password,
        },
        done,
    ))
}

/// Is it the account's localpart, or (COMPAT: forms, example 24) its bare JID?
fn names(username: &str, account: &BareJid) -> bool {
    let is_local = || {
        xmpp::jid::prepare_local(username)
            .is_ok_and(|local| Some(local.as_str()) == account.local())
    };
    if username.contains('@') {
        BareJid::parse(username).is_ok_and(|jid| jid == *account)
    } else {
        is_local()
    }
}

fn done(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    came: QueryAnswer,
    fx: &mut Effects,
) {
    let content = match came {
        QueryAnswer::Done => Ok(None),
        other => Err(unexpected(other)),
    };
    answer(account, iq, session, content, fx);
}
