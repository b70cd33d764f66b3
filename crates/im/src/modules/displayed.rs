//! Message Displayed Synchronization, XEP-0490: what one client has shown, the others need not show as new.
//!
//! The node is one of [`super::pubsub`]; here is what spares a client the publication: a message that carries a marker
//! for the sender (XEP-0333) may carry the one for the own clients, too.

use super::pubsub;
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::module::{Module, xep};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::{Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "urn:xmpp:mds:displayed:0";
const ASSIST: &str = "urn:xmpp:mds:server-assist:0";

pub static MODULE: Module =
    Module { name: "displayed", specs: &[xep(490, "1.0.1")], account_features: &[ASSIST], ..Module::EMPTY };

/// §4.5.3: cuts the marker for the own clients out of a message and publishes it. It comes before archive and carbons,
/// and behind every step that refuses (§5.2).
///
/// # Errors
/// `bad-request` for a message that was nothing else (§4.5.3).
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(marker) = passage.stanza.payload.child("displayed", NS).map(|child| child.to_element()) else {
        return Ok(Flow::Next);
    };
    let payload = passage.stanza.payload.without(|child| child.is("displayed", NS));
    if payload.children().next().is_none() {
        return Err(StanzaCondition::BadRequest.into());
    }
    passage.stanza = Arc::new(Stanza { payload, ..Stanza::clone(&passage.stanza) });
    let item = passage.to.as_str().to_owned();
    // What the limits of nodes refuse holds no message back.
    if pubsub::publish_aside(account, NS, &item, &marker, None, fx).is_err() {
        fx.push(Effect::Count("displayed_markers_refused"));
    }
    Ok(Flow::Next)
}
