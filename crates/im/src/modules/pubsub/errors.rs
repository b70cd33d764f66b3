//! Refusals, with the conditions of XEP-0060 §11.

use crate::nodes::ERRORS;
use xmpp::{Element, StanzaCondition, StanzaError};

pub(super) fn bad(application: &'static str) -> StanzaError {
    StanzaError::from(StanzaCondition::BadRequest).with_application(application, ERRORS)
}

pub(super) fn node_of(command: &Element) -> Result<&str, StanzaError> {
    command.attribute("node").ok_or_else(|| bad("nodeid-required"))
}
