//! The extensions, one file each, with a card on top; and how an iq finds its handler.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::Module;
use crate::ways::{Flow, Passage};
use xmpp::StanzaError;

/// All cards, in the order of `docs/xeps.md`.
pub static MODULES: &[&Module] = &[];

/// An iq from the own client to its own bare JID (or without `to`): handled here; anything else: told onwards.
pub fn outbound_iq(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
/// An iq from somebody else: to the bare JID it is handled here, to a full JID delivered. RFC 6121 §8.5.
pub fn inbound_iq(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> { let _ = (account, passage, fx); todo!() }
