//! Messages: delivery rules of RFC 6121 §5 and §8.5.

use crate::account::Account;
use crate::effects::Effects;
use crate::ways::{Flow, Passage};
use xmpp::StanzaError;

pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
