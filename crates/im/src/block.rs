//! The block list, XEP-0191: a view of the access rules.

use crate::account::Account;
use crate::effects::Effects;
use crate::ways::{Flow, Passage};
use xmpp::{Jid, StanzaError};

#[derive(Debug, Default)]
pub struct Blocks {}

impl Blocks {
    pub fn from_stored(jids: Vec<Jid>) -> Blocks { let _ = jids; todo!() }
    /// Full JID, bare JID, domain/resource and domain match. XEP-0191 §3 (as XEP-0016 §2.1 matches JIDs).
    pub fn blocks(&self, jid: &Jid) -> bool { let _ = jid; todo!() }
}

/// Nothing goes to a blocked contact. XEP-0191 §3.3: `not-acceptable` with `<blocked/>`.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
/// Nothing comes from one: message and iq → `service-unavailable`, presence ignored.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
