//! Presence, RFC 6121 §4: initial, broadcast, probe, directed, unavailable.

use crate::account::Account;
use crate::effects::Effects;
use crate::session::Session;
use crate::ways::{Flow, Passage};
use xmpp::StanzaError;

/// available, unavailable and probe from the own client, with and without `to`.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
/// available, unavailable, probe, error from others.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
/// The session ended (already taken out of the account): tell who saw it. RFC 6121 §4.5, §4.6.
pub fn session_ended(account: &mut Account, session: Session, fx: &mut Effects) { let _ = (account, session, fx); todo!() }
/// The window of sessions that an earlier process left is over.
pub fn ledger_expired(account: &mut Account, fx: &mut Effects) { let _ = (account, fx); todo!() }
/// The account is removed: unsubscribe and unsubscribed to all contacts, both ways.
pub fn leave_all_rosters(account: &mut Account, fx: &mut Effects) { let _ = (account, fx); todo!() }
