//! The extensions, one file each, with a card on top; and how an iq finds its handler.
//!
//! RFC 6120 §8.2.3 says what an iq is, RFC 6121 §8.5 who answers it: an account's bare JID is answered here on the
//! account's behalf, a full JID by its resource. There is one permission function, [`may_ask`], and one refusal,
//! [`unknown`]: an asker who may not know something hears what an account that does not exist would say.

pub mod caps;
pub mod carbons;
pub mod contact_addresses;
pub mod data_form;
pub mod delivery;
pub mod disco;
pub mod hints;
pub mod last_activity;
pub mod legacy_session;
pub mod ping;
pub mod private;
pub mod register;
pub mod time;
pub mod vcard;
pub mod version;

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects, QueryAnswer};
use crate::item::{Ingress, SessionId, Ticket};
use crate::module::{AccountHandler, Answer, Iq, Module, Who};
use crate::session;
use crate::view::{Exit, Seen, view};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use store::StoreError;
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError, StanzaType};

/// All cards, in the order of `docs/xeps.md`.
pub static MODULES: &[&Module] = &[
    &data_form::MODULE,
    &last_activity::MODULE,
    &disco::MODULE,
    &private::MODULE,
    &vcard::MODULE,
    &register::MODULE,
    &version::MODULE,
    &caps::MODULE,
    &contact_addresses::MODULE,
    &delivery::OFFLINE,
    &delivery::STREAM_MANAGEMENT,
    &ping::MODULE,
    &time::MODULE,
    &delivery::DELAYED,
    &carbons::MODULE,
    &hints::MODULE,
    &delivery::CLIENT_STATE,
    &delivery::STABLE_IDS,
    &legacy_session::MODULE,
];

/// The answer of an account that does not exist, and therefore of every account to whoever may not ask, and for what
/// nothing handles. RFC 6121 §8.5.1, §8.5.2.1.3.
pub fn unknown() -> StanzaError {
    StanzaCondition::ServiceUnavailable.into()
}

/// An iq from the own client to its own bare JID (or without `to`): handled here; anything else: told onwards.
///
/// # Errors
/// What the handler refuses, [`unknown`] if there is none; the answer for the client.
pub fn outbound_iq(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let to_account = passage.to == *account.jid;
    let is_request = matches!(kind, IqType::Get | IqType::Set);
    if is_request && (to_account || is_own_at_host(account, passage)) {
        handle(account, passage, kind, fx)?;
    } else if !to_account {
        fx.push(Effect::Tell {
            to: passage.to.clone(),
            stanza: passage.stanza.clone(),
            ingress: passage.ingress,
            ticket: passage.ticket.clone(),
        });
    }
    // A result or error for the account itself answers a push; nothing waits for it.
    Ok(Flow::Done)
}

/// An iq from somebody else: to the bare JID it is handled here, to a full JID delivered. RFC 6121 §8.5.
///
/// # Errors
/// What the handler refuses; [`unknown`] if there is none, if the asker may not ask, if there is no such resource or
/// the asker may not know of it.
pub fn inbound_iq(
    account: &mut Account,
    passage: &mut Passage,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let StanzaType::Iq(kind) = passage.stanza.kind else {
        return Ok(Flow::Next);
    };
    let is_request = matches!(kind, IqType::Get | IqType::Set);
    if passage.to.is_bare() {
        if is_request {
            handle(account, passage, kind, fx)?;
        }
        return Ok(Flow::Done);
    }
    let resource = account
        .sessions
        .iter()
        .find(|session| *session.jid == passage.to);
    let Some(resource) = resource else {
        return if is_request {
            Err(unknown())
        } else {
            Ok(Flow::Done)
        };
    };
    if is_request && !may_reach(account, resource, passage.stanza.from.as_ref()) {
        return Err(unknown());
    }
    let id = resource.id;
    session::deliver(account, id, plain(passage.stanza.clone()), fx);
    passage.taken_by.push(id);
    Ok(Flow::Done)
}

/// May `from` send this resource an iq? Only if it shares presence with it, by subscription or directed presence;
/// else the answer would tell that it is there. RFC 6121 §8.5.3.1.
fn may_reach(account: &Account, resource: &session::Session, from: Option<&Jid>) -> bool {
    let Some(from) = from else { return false };
    from.same_bare(&account.jid)
        || view(account, from, Exit::IqToResource) == Seen::All
        || resource
            .directed
            .iter()
            .any(|directed| directed.same_bare(from))
}

/// Is it an iq that clients send to their own domain though it is about their account?
fn is_own_at_host(account: &Account, passage: &Passage) -> bool {
    let to_host = passage.to.is_bare()
        && passage.to.local().is_none()
        && passage.to.domain() == account.jid.domain();
    to_host
        && passage.stanza.payload.first().is_some_and(|child| {
            MODULES.iter().any(|m| {
                m.own_at_host
                    && m.account_iq
                        .iter()
                        .any(|&(_, ns, name, ..)| ns == child.ns && name == child.name)
            })
        })
}

/// Finds the handler of an iq get or set, asks whether the asker may, and sends the answer.
fn handle(
    account: &mut Account,
    passage: &Passage,
    kind: IqType,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let stanza = &passage.stanza;
    let (Some(child), Some(from)) = (stanza.payload.first(), stanza.from.as_ref()) else {
        return Err(StanzaCondition::BadRequest.into());
    };
    let (who, handler) = find(kind, child.ns, child.name).ok_or_else(unknown)?;
    if !may_ask(account, who, from, passage.session) {
        return Err(unknown());
    }
    let child = child.to_element();
    let iq = Iq {
        stanza,
        from,
        child: &child,
        session: passage.session,
        ticket: &passage.ticket,
    };
    match handler(account, &iq, fx)? {
        Answer::Result(content) => send(
            account,
            stanza,
            passage.session,
            stanza.result(content),
            &passage.ticket,
            fx,
        ),
        Answer::Query(query, then) => fx.push(Effect::Query {
            query,
            iq: stanza.clone(),
            session: passage.session,
            then,
        }),
        Answer::Sent => {}
    }
    Ok(())
}

fn find(kind: IqType, ns: &str, name: &str) -> Option<(Who, AccountHandler)> {
    MODULES
        .iter()
        .flat_map(|module| module.account_iq)
        .find(|(its_kind, its_ns, its_name, ..)| {
            *its_kind == kind && *its_ns == ns && *its_name == name
        })
        .map(|&(.., who, handler)| (who, handler))
}

/// The one permission decision for what an account is asked. LIMITS.md §2 row 4.
fn may_ask(account: &Account, who: Who, from: &Jid, session: Option<SessionId>) -> bool {
    let is_owner = session.is_some();
    match who {
        Who::Owner => is_owner,
        Who::Viewer(exit) => is_owner || view(account, from, exit) == Seen::All,
        Who::Anyone => true,
    }
}

/// Sends the answer to an iq that waited for the store: to the session that asked, or to whoever else did.
pub fn answer(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    answer: Result<Option<Element>, StanzaError>,
    fx: &mut Effects,
) {
    let stanza = match answer {
        Ok(content) => Some(iq.result(content)),
        Err(error) => iq.error(&error),
    };
    if let Some(stanza) = stanza {
        send(account, iq, session, stanza, &Ticket::default(), fx);
    }
}

/// An answer by its way: a session of the account hears it on its stream, everybody else by address.
fn send(
    account: &mut Account,
    iq: &Arc<Stanza>,
    session: Option<SessionId>,
    answer: Stanza,
    ticket: &Ticket,
    fx: &mut Effects,
) {
    let stanza = Arc::new(answer);
    match (session, &iq.from) {
        (Some(id), _) if account.session(id).is_some() => {
            session::deliver(account, id, plain(stanza), fx)
        }
        (None, Some(from)) => {
            fx.push(Effect::Tell {
                to: from.clone(),
                stanza,
                ingress: UNCOUNTED,
                ticket: ticket.clone(),
            });
        }
        // The session has ended meanwhile.
        _ => {}
    }
}

/// Answers of the server enter by no stream.
const UNCOUNTED: Ingress = Ingress {
    stream: 0,
    ordinal: 0,
};

fn plain(stanza: Arc<Stanza>) -> Delivery {
    Delivery {
        stanza,
        to: None,
        more: Default::default(),
        position: None,
    }
}

/// What the asker hears when the store could not answer; the cause is logged by the house.
pub fn refusal(error: &StoreError) -> StanzaError {
    match error {
        StoreError::Busy | StoreError::Full => StanzaCondition::ResourceConstraint.into(),
        StoreError::Fenced | StoreError::Fatal(_) | StoreError::Damaged(_) => {
            StanzaCondition::InternalServerError.into()
        }
    }
}

/// An answer that is none of those a query can have, or a failure.
fn unexpected(answer: QueryAnswer) -> StanzaError {
    match answer {
        QueryAnswer::Refused(error) => error,
        QueryAnswer::Failed(error) => refusal(&error),
        _ => StanzaCondition::InternalServerError.into(),
    }
}
