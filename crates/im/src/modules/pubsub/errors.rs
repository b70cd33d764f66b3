//! Refusals, with the conditions of XEP-0060 §11, and who may hear them: whoever may not know that there is an account
//! hears what one that does not exist would say.

use crate::account::Account;
use crate::module::Iq;
use crate::modules::unknown;
use crate::nodes::{Access, ERRORS, Node, sees};
use crate::rules::Handling;
use crate::view::{Exit, view};
use xmpp::{Element, Jid, StanzaCondition, StanzaError};

pub(super) fn refused(condition: StanzaCondition, application: &'static str) -> StanzaError {
    StanzaError::from(condition).with_application(application, ERRORS)
}

pub(super) fn bad(application: &'static str) -> StanzaError {
    refused(StanzaCondition::BadRequest, application)
}

/// What is not offered, by the name that its feature has in §10.
pub(super) fn unsupported(feature: &'static str) -> StanzaError {
    refused(StanzaCondition::FeatureNotImplemented, "unsupported").with_feature(feature)
}

pub(super) fn node_of(command: &Element) -> Result<&str, StanzaError> {
    command.attribute("node").ok_or_else(|| bad("nodeid-required"))
}

/// `None`: the owner.
pub(super) fn is_seen(account: &Account, viewer: Option<&Jid>, name: &str, node: &Node) -> bool {
    viewer.is_none_or(|viewer| sees(account, viewer, name, node, Exit::PepItems))
}

/// May the asker know that there is an account?
///
/// # Errors
/// That of one that does not exist.
pub(super) fn may_know(account: &Account, iq: &Iq<'_>) -> Result<(), StanzaError> {
    let knows = iq.session.is_some() || view(account, iq.from, Exit::PepItems).handling >= Handling::PoliteBlock;
    if knows { Ok(()) } else { Err(unknown()) }
}

/// Only the owner may do it. §7.1.3.1, §8.1.1, §8.2.3.2 and others.
///
/// # Errors
/// `forbidden`, for those who may know that there is an account.
pub(super) fn must_own(account: &Account, iq: &Iq<'_>) -> Result<(), StanzaError> {
    may_know(account, iq)?;
    if iq.session.is_some() { Ok(()) } else { Err(StanzaCondition::Forbidden.into()) }
}

/// The node that is asked about, if the asker sees it; the owner may name any.
///
/// # Errors
/// Those of [`may_see`]; `bad-request` with `nodeid-required`.
pub(super) fn seen_node<'a>(account: &Account, iq: &Iq<'_>, command: &'a Element) -> Result<&'a str, StanzaError> {
    match command.attribute("node") {
        None => may_know(account, iq)?,
        Some(name) if iq.session.is_none() => may_see(account, iq.from, name)?,
        Some(_) => {}
    }
    node_of(command)
}

/// May somebody else see this node, and therefore have its items (§6.5.9) and subscribe to it (§6.1.3)?
///
/// # Errors
/// What is amiss, for those who may know that there is an account; for everybody else, that of one that does not exist.
pub(super) fn may_see(account: &Account, watcher: &Jid, name: &str) -> Result<(), StanzaError> {
    let node = account.nodes.get(name);
    if node.is_some_and(|node| is_seen(account, Some(watcher), name, node)) {
        return Ok(());
    }
    let view = view(account, watcher, Exit::PepItems);
    if view.handling < Handling::PoliteBlock {
        return Err(unknown());
    }
    // Who is politely blocked, or is shown a part, knows of nothing else.
    let is_whole = view.shows() && view.shape.is_none();
    Err(match node.map(|node| node.config.access).filter(|_| is_whole) {
        Some(Access::Roster) => refused(StanzaCondition::NotAuthorized, "not-in-roster-group"),
        Some(Access::Whitelist) => refused(StanzaCondition::NotAllowed, "closed-node"),
        None | Some(Access::Open | Access::Presence) => StanzaCondition::ItemNotFound.into(),
    })
}
