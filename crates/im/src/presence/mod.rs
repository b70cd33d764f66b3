//! Presence, RFC 6121 §4: initial, broadcast, probe, directed, unavailable.
//!
//! - [`own`]: what the own sessions say of themselves, and when the last one left.
//! - [`directed`]: whom a session has told by itself.
//! - [`ledger`]: what must be told of sessions after a crash.
//! - [`shown`]: what the account's watchers are told of it, and answers to their probes.
//! - [`contacts`]: what the account is told of its contacts.

mod contacts;
mod directed;
mod ledger;
mod own;
mod shown;
#[cfg(test)]
mod tests;

pub use contacts::Contacts;
pub use ledger::ledger_expired;
pub use own::session_ended;
pub use shown::{conceal_from, hide_from, leave_all_rosters, reveal_to, show_to};

pub(crate) use contacts::probe;
pub(crate) use shown::fan;

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::{Ingress, Ticket};
use crate::modules::fetch;
use crate::subscription::Act;
use crate::view;
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::{FullJid, Jid, PresenceType, Stanza, StanzaError, StanzaType};

/// What the account itself generates enters by no stream.
pub const OWN: Ingress = Ingress { stream: 0, ordinal: 0 };

/// available, unavailable and probe from the own client, with and without `to`.
///
/// # Errors
/// `service-unavailable` if the host has no presence service; what the client says of its priority counts for messages
/// all the same. `resource-constraint` for directed presence to more than `directed_max` entities.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(kind) = passage.stanza.kind else { return Ok(Flow::Next) };
    let Some(id) = passage.session else { return Ok(Flow::Done) };
    match (kind, passage.stanza.to.is_some()) {
        (PresenceType::Available, false) => own::available(account, id, passage, fx)?,
        (PresenceType::Unavailable, false) => own::unavailable(account, id, passage, fx)?,
        (PresenceType::Available | PresenceType::Unavailable, true) => {
            directed::directed(account, id, kind, passage, fx)?
        }
        // A client need not probe, but may. RFC 6121 §4.3.
        // Of an account it is a fetch; of one resource, or an occupant of a room, it stays what it is. Whoever is politely
        // blocked is not asked: nobody is here for him.
        (PresenceType::Probe | PresenceType::Error, true) if view::is_away_for(account, &passage.to) => {}
        (PresenceType::Probe, true) if account.policy.presence && is_of_another_account(account, &passage.to) => {
            fetch::probe(account, id, passage, fx);
        }
        (PresenceType::Probe | PresenceType::Error, true) if account.policy.presence => tell_on(passage, fx),
        (PresenceType::Probe | PresenceType::Error, _) => {}
        _ => {}
    }
    Ok(Flow::Next)
}

/// available, unavailable, probe, error from others.
///
/// # Errors
/// None.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let StanzaType::Presence(kind) = passage.stanza.kind else { return Ok(Flow::Next) };
    if Act::of(passage.stanza.kind).is_some() {
        return Ok(Flow::Next);
    }
    if !account.policy.presence {
        return Ok(Flow::Done);
    }
    match kind {
        PresenceType::Probe => shown::probed(account, passage, fx),
        PresenceType::Unavailable => {
            fetch::heard(account, &passage.stanza);
            directed::forget(account, passage);
            contacts::deliver(account, passage, fx);
        }
        _ => {
            fetch::heard(account, &passage.stanza);
            contacts::deliver(account, passage, fx);
        }
    }
    Ok(Flow::Done)
}

fn is_of_another_account(account: &Account, to: &Jid) -> bool {
    to.is_bare() && to.local().is_some() && !to.same_bare(&account.jid)
}

fn tell(to: &Jid, stanza: Stanza, ingress: Ingress, ticket: &Ticket, fx: &mut Effects) {
    fx.push(Effect::Tell { to: to.clone(), stanza: Arc::new(stanza), ingress, ticket: ticket.clone() });
}

fn tell_on(passage: &Passage, fx: &mut Effects) {
    fx.push(Effect::Tell {
        to: passage.to.clone(),
        stanza: passage.stanza.clone(),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
}

fn plain(kind: PresenceType, from: &FullJid) -> Stanza {
    Stanza::presence(kind).with_from(from.clone())
}
