//! What the owner does with whole nodes: XEP-0060 §8.

use super::configuration::{config_form, default, submitted};
use super::errors::node_of;
use super::notify::notify;
use super::{EVENT, NS, OWNER, commit};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq};
use crate::modules::interest;
use crate::nodes::{self, Config, ERRORS};
use xmpp::ns::DATA_FORM;
use xmpp::{Element, StanzaCondition, StanzaError};

/// §8.1, §8.1.3.
pub(super) fn create(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let nameless = || StanzaError::from(StanzaCondition::NotAcceptable).with_application("nodeid-required", ERRORS);
    let name = command.attribute("node").ok_or_else(nameless)?;
    let config = match iq.child.find("configure", NS) {
        Some(configure) if configure.elements().next().is_some() => submitted(Config::of(name), configure)?,
        _ => Config::of(name),
    };
    let changes = nodes::create(account, name, config)?;
    commit(changes, iq, fx);
    interest::look_around(account, fx);
    Ok(Answer::Result(None))
}

pub(super) fn get(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "configure" => {
            let name = node_of(command)?;
            let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
            let configure = Element::new("configure", OWNER).attr("node", name).child(config_form(&node.config));
            Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(configure))))
        }
        "default" => default(OWNER),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

pub(super) fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    let name = node_of(command)?;
    match &*command.name {
        "configure" => {
            let form = command.find("x", DATA_FORM).ok_or(StanzaCondition::BadRequest)?;
            let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
            if form.attribute("type") != Some("cancel") {
                let config = submitted(node.config.clone(), command)?;
                let changes = nodes::configure(account, name, config)?;
                commit(changes, iq, fx);
                interest::look_around(account, fx);
            }
        }
        "purge" => {
            let changes = nodes::purge(account, name)?;
            commit(changes, iq, fx);
            let config = account.nodes.get(name).map(|node| node.config.clone()).unwrap_or_default();
            notify(account, name, &config, Element::new("purge", EVENT).attr("node", name), fx);
        }
        "delete" => {
            let config = account.nodes.get(name).map(|node| node.config.clone());
            let changes = nodes::delete(account, name)?;
            commit(changes, iq, fx);
            if let Some(config) = config.filter(|config| config.notify_delete) {
                notify(account, name, &config, Element::new("delete", EVENT).attr("node", name), fx);
            }
        }
        _ => return Err(StanzaCondition::FeatureNotImplemented.into()),
    }
    Ok(Answer::Result(None))
}
