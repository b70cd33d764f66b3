//! What the owner does with whole nodes: XEP-0060 §8.

use super::configuration::{config_form, default, submitted};
use super::errors::{must_own, node_of, refused, unsupported};
use super::notify::{notify, recipients, tell};
use super::{EVENT, NS, OWNER, affiliations, commit, subscriptions};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq};
use crate::modules::interest;
use crate::nodes::{self, Config};
use xmpp::ns::DATA_FORM;
use xmpp::{Element, StanzaCondition};

/// §8.1, §8.1.3.
pub(super) fn create(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    // There are no instant nodes. §8.1.1.
    let nameless = || refused(StanzaCondition::NotAcceptable, "nodeid-required");
    let name = command.attribute("node").ok_or_else(nameless)?;
    let config = match iq.child.find("configure", NS) {
        Some(configure) if configure.elements().next().is_some() => submitted(Config::of(name), configure)?,
        _ => Config::of(name),
    };
    let changes = nodes::create(account, name, config)?;
    commit(account, changes, iq, fx);
    interest::look_around(account, fx);
    Ok(Answer::Result(None))
}

pub(super) fn get(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    must_own(account, iq)?;
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "configure" => {
            let name = node_of(command)?;
            let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
            let configure =
                Element::new("configure", OWNER).attr("node", name).child(config_form("form", &node.config));
            Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(configure))))
        }
        "default" => default(),
        "subscriptions" => subscriptions::list(account, command),
        "affiliations" => affiliations::list(account, command),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

pub(super) fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    must_own(account, iq)?;
    let command = iq.child.elements().find(|child| *child.ns == *OWNER).ok_or(StanzaCondition::BadRequest)?;
    match &*command.name {
        "configure" => configure(account, iq, command, fx),
        "purge" => purge(account, iq, command, fx),
        "delete" => delete(account, iq, command, fx),
        "subscriptions" => subscriptions::modify(account, iq, command, fx),
        "affiliations" => affiliations::modify(account, iq, command, fx),
        _ => Err(StanzaCondition::FeatureNotImplemented.into()),
    }
}

/// §8.2.4.
fn configure(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let form = command.find("x", DATA_FORM).ok_or(StanzaCondition::BadRequest)?;
    let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
    if form.attribute("type") == Some("cancel") {
        return Ok(Answer::Result(None));
    }
    let config = submitted(node.config.clone(), command)?;
    let told = config.notify_config.then(|| config_form("result", &config));
    let changes = nodes::configure(account, name, config)?;
    commit(account, changes, iq, fx);
    interest::look_around(account, fx);
    if let Some(form) = told {
        // §8.2.5.3.
        notify(account, name, Element::new("configuration", EVENT).attr("node", name).child(form), fx);
    }
    Ok(Answer::Result(None))
}

/// §8.5.
fn purge(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    if account.nodes.get(name).is_some_and(|node| !node.config.persist) {
        return Err(unsupported("persistent-items"));
    }
    let changes = nodes::purge(account, name)?;
    commit(account, changes, iq, fx);
    notify(account, name, Element::new("purge", EVENT).attr("node", name), fx);
    Ok(Answer::Result(None))
}

/// §8.4; where the node is to be found now is passed on and not remembered.
fn delete(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let told = account.nodes.get(name).filter(|node| node.config.notify_delete).map(|_| recipients(account, name));
    let changes = nodes::delete(account, name)?;
    commit(account, changes, iq, fx);
    if let Some(told) = told {
        let uri = command.find("redirect", OWNER).and_then(|redirect| redirect.attribute("uri"));
        let redirect = uri.map(|uri| Element::new("redirect", EVENT).attr("uri", uri));
        tell(account, told, Element::new("delete", EVENT).attr("node", name).children_from(redirect), fx);
    }
    Ok(Answer::Result(None))
}
