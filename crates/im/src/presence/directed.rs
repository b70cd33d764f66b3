//! Directed presence: whom a session has told by itself, and who must hear when it is gone. RFC 6121 §4.6.

use super::ledger;
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::SessionId;
use crate::modules::solicited;
use crate::session;
use crate::view::{Exit, view};
use crate::ways::Passage;
use xmpp::{PresenceType, StanzaCondition, StanzaError};

/// Presence for one entity. It is remembered, so that the entity hears when the resource is gone. RFC 6121 §4.6.3.
pub(super) fn directed(
    account: &mut Account,
    id: SessionId,
    kind: PresenceType,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    if !account.policy.presence {
        return Err(StanzaCondition::ServiceUnavailable.into());
    }
    let max = account.policy.limits.directed_max;
    let view = view(account, &passage.to, Exit::Directed);
    if !view.shows() && kind == PresenceType::Available {
        let why = "Your access rules hide you from this address.";
        return Err(StanzaError::from(StanzaCondition::NotAcceptable).with_text(why));
    }
    // The own resources hear of each other without it.
    let is_own = passage.to.same_bare(&account.jid);
    let Some(session) = account.session_mut(id) else { return Ok(()) };
    let known = session.directed.iter().position(|to| *to == passage.to);
    match (kind, known) {
        (PresenceType::Available, None) if !is_own => {
            if session.directed.len() >= max {
                return Err(StanzaError::from(StanzaCondition::ResourceConstraint)
                    .with_text("Directed presence to too many.")
                    .over("directed_presence_max"));
            }
            session.directed.push(passage.to.clone());
            ledger::write(account, id, passage, fx);
        }
        (PresenceType::Unavailable, Some(at)) => {
            let parted = session.directed.swap_remove(at);
            if session.parted.len() >= solicited::PARTED_MAX {
                session.parted.pop_front();
            }
            session.parted.push_back(parted);
            session::touch_ledger(account, id, fx);
        }
        _ => {}
    }
    let stanza = view.shape.as_ref().map_or_else(|| passage.stanza.clone(), |shape| shape.presence(&passage.stanza));
    fx.push(Effect::Tell { to: passage.to.clone(), stanza, ingress: passage.ingress, ticket: passage.ticket.clone() });
    Ok(())
}

/// Who is gone need not hear that we are. RFC 6121 §4.6.1.
pub(super) fn forget(account: &mut Account, passage: &Passage) {
    let Some(from) = &passage.stanza.from else { return };
    for session in &mut account.sessions {
        if passage.to.is_bare() || *session.jid == passage.to {
            session.directed.retain(|to| to != from);
        }
    }
}
