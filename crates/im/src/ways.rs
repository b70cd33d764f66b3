//! Who comes before whom on the way of a stanza. This file alone says it; there are no priority numbers.

use crate::account::Account;
use crate::effects::Effects;
use crate::item::{Ingress, Item, SessionId, Ticket};
use crate::{messages, presence, resume, session};
use std::sync::Arc;
use xmpp::{Jid, Kind, Stanza, StanzaError};

/// A stanza on its way through an account.
pub struct Passage {
    pub stanza: Arc<Stanza>,
    /// Where it goes; for OUTBOUND without `to`: the own bare JID.
    pub to: Jid,
    /// The own session that sent it (OUTBOUND).
    pub session: Option<SessionId>,
    pub ingress: Ingress,
    pub ticket: Ticket,
    /// Position in this account's log, once it has one.
    pub position: Option<i64>,
    /// Sessions that took it.
    pub taken_by: Vec<SessionId>,
}

/// What a step says of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow { Next, Done }

pub type Step = fn(&mut Account, &mut Passage, &mut Effects) -> Result<Flow, StanzaError>;

/// Dispatches an item to the one function that handles it.
pub fn step(account: &mut Account, item: Item, fx: &mut Effects) {
    match item {
        Item::Attach(attach) => session::attach(account, attach, fx),
        Item::Resume { edge, id, h } => resume::resume(account, edge, &id, h, fx),
        Item::Manage { session, request } => resume::manage(account, session, request, fx),
        Item::Acked { session, h } => resume::acked(account, session, h, fx),
        Item::ClientState { session, active } => session::client_state(account, session, active, fx),
        Item::Written { session, edge, deliveries } => crate::inbox::written(account, session, edge, deliveries, fx),
        Item::Detached { session, edge, reason, deliveries, received } => session::detached(account, session, edge, reason, deliveries, received, fx),
        Item::FromClient { session, stanza, ingress, ticket } => outbound(account, session, stanza, ingress, ticket, fx),
        Item::Inbound { stanza, to, ingress, ticket } => inbound(account, stanza, to, ingress, ticket, fx),
        Item::Answered { iq, session, answer, then } => then(account, &iq, session, answer, fx),
        Item::Pending { after, records } => crate::inbox::pending_page(account, after, records, fx),
        Item::CommitFailed { bounce, error, stored } => crate::inbox::commit_failed(account, bounce, error, stored, fx),
        Item::Tick => session::tick(account, fx),
        Item::Kick { resource, fault } => session::kick(account, resource.as_deref(), fault, fx),
        Item::Remove { ticket } => session::remove_account(account, ticket, fx),
        Item::ShutDown => session::shut_down(account, fx),
        Item::LedgerExpired => presence::ledger_expired(account, fx),
    }
}

/// OUTBOUND: a stanza from the account's own client.
fn outbound(account: &mut Account, session: SessionId, stanza: Stanza, ingress: Ingress, ticket: Ticket, fx: &mut Effects) {
    let _ = (account, session, stanza, ingress, ticket, fx, messages::outbound as Step, Kind::Message);
    todo!("stamp from, check, then the list of steps for its kind")
}

/// INBOUND: a stanza for the account or one of its resources.
fn inbound(account: &mut Account, stanza: Arc<Stanza>, to: Jid, ingress: Ingress, ticket: Ticket, fx: &mut Effects) {
    let _ = (account, stanza, to, ingress, ticket, fx);
    todo!()
}
