//! Where the user is. RFC 4745 §7.2: as the user has set it; else what presence says of it, as RFC 5025 §3.1.2 has it: one
//! of the parts says so, and no other says something else.
//!
//! Parts are the presence of the own resources, and the persons that the owner has published; both carry RPID's
//! `<sphere/>` (RFC 4480 §3.11). What others publish by a grant does not move the user.

use super::shape::RPID;
use crate::account::Account;
use crate::item::SessionId;
use crate::pidf;
use xmpp::{Element, Stanza};

/// What presence says; empty where it says nothing, or several things, or where no rule asks. `instead`: with this
/// presence of a session, in place of what it has sent.
pub fn heard(account: &Account, instead: Option<(SessionId, &Stanza)>) -> Vec<Box<str>> {
    if !account.rules.ask_for_sphere() {
        return Vec::new();
    }
    let of_sessions = account.sessions.iter().filter_map(|session| match instead {
        Some((id, stanza)) if id == session.id => said_in(stanza),
        _ => said_in(session.presence.as_deref()?),
    });
    let own = account.publications.all().iter().filter(|one| one.publisher.is_none() && one.expires > account.now.utc);
    let persons = own.flat_map(|one| &one.elements).filter(|element| element.is("person", pidf::DATA_MODEL));
    let of_persons = persons.filter_map(|person| values(person.find("sphere", RPID)?));
    let mut all = of_sessions.chain(of_persons);
    match all.next() {
        Some(first) if all.all(|other| other == first) => first,
        _ => Vec::new(),
    }
}

/// Where the user is with this presence of a session, if that is elsewhere than now.
pub fn moves(account: &Account, id: SessionId, stanza: &Stanza) -> Option<Vec<Box<str>>> {
    if !account.rules.ask_for_sphere() {
        return None;
    }
    Some(heard(account, Some((id, stanza)))).filter(|sphere| *sphere != account.sphere)
}

fn said_in(presence: &Stanza) -> Option<Vec<Box<str>>> {
    values(&presence.payload.child("sphere", RPID)?.to_element())
}

/// `<sphere><work/></sphere>`, or the words within. RFC 4480 §3.11.
fn values(sphere: &Element) -> Option<Vec<Box<str>>> {
    let mut values: Vec<Box<str>> = sphere.elements().map(|child| child.name.to_string().into()).collect();
    if values.is_empty() {
        values = sphere.text_content().split_whitespace().map(Into::into).collect();
    }
    values.sort();
    // RFC 4480 §3.11: <unknown/> says nothing.
    values.retain(|value| **value != *"unknown" && value.len() <= super::document::VALUE_BYTES_MAX);
    (!values.is_empty()).then_some(values)
}
