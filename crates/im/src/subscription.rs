//! Subscriptions, RFC 6121 §3 and Appendix A: pure transitions, then what they make of an account.

use crate::account::Account;
use crate::effects::Effects;
use crate::ways::{Flow, Passage};
use xmpp::StanzaError;

/// subscribe, subscribed, unsubscribe, unsubscribed from the own client. RFC 6121 §3.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
/// The same from a contact.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
