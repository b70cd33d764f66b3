//! Access rules, `urn:waft:rules:0`: who may see, ask and write what, as the owner's clients read and edit it.
//!
//! The document is a ruleset of RFC 4745 and 5025. Two of its rules are not written but shown: `subscribers` is the
//! roster's subscriptions, `blocked` the block list; setting them changes those. See docs/protocol/access-rules.md.

use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::rules::xml::{COMMON, NS, bad};
use crate::rules::{self, change, edit};
use crate::session;
use crate::view::{self, Exit, view};
use std::sync::Arc;
use xmpp::{Element, IqType, Jid, Stanza, StanzaCondition, StanzaError};

pub static MODULE: Module = Module {
    name: "access rules",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[
        (IqType::Get, NS, "rules", Who::Owner, show),
        (IqType::Set, NS, "rules", Who::Owner, set),
        (IqType::Set, NS, "sphere", Who::Owner, sphere),
        (IqType::Get, NS, "view", Who::Owner, explain),
    ],
    own_at_host: true,
    ..Module::EMPTY
};

/// The whole document, or one rule of it; who asks for it hears of changes.
fn show(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    if let Some(session) = iq.session.and_then(|id| account.session_mut(id)) {
        session.knows_rules = true;
    }
    let shown = edit::shown(account);
    let ruleset = match iq.child.attribute("rule") {
        None => shown,
        Some(id) => {
            let is_asked = |rule: &&Element| rule.attribute("id") == Some(id);
            let rule = shown.elements().find(is_asked).ok_or(StanzaCondition::ItemNotFound)?;
            Element::new("ruleset", COMMON).child(rule.clone())
        }
    };
    Ok(Answer::Result(Some(head(account).child(ruleset))))
}

fn head(account: &Account) -> Element {
    let sphere = Some(account.rules.sphere().join(" ")).filter(|sphere| !sphere.is_empty());
    Element::new("rules", NS).attr("etag", edit::etag(account)).attr_opt("sphere", sphere)
}

/// The whole document, one rule, or one rule less: if the document is still the one that the client knows.
fn set(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let known = iq.child.attribute("etag").ok_or_else(|| bad("<rules/> has no 'etag'"))?;
    if known != "*" && known != edit::etag(account) {
        return Err(StanzaError::from(StanzaCondition::Conflict).with_text("The rules were changed meanwhile."));
    }
    let mut commands = iq.child.elements();
    let (Some(command), None) = (commands.next(), commands.next()) else {
        return Err(bad("<rules/> holds one of <ruleset/>, <rule/>, <remove/>"));
    };
    let id = || command.attribute("id").ok_or_else(|| bad("which rule?"));
    let edit = match (&*command.ns, &*command.name) {
        (COMMON, "ruleset") => edit::Edit::whole(command)?,
        (COMMON, "rule") => edit::Edit::put(account, command)?,
        (NS, "remove") => edit::Edit::remove(account, id()?)?,
        _ => return Err(bad("<rules/> holds one of <ruleset/>, <rule/>, <remove/>")),
    };
    edit::make(account, edit, Some(iq.stanza), iq.ticket, fx)?;
    push(account, iq.session, fx);
    Ok(Answer::Result(Some(head(account))))
}

/// Where the user is: `<sphere>work</sphere>`; empty: nowhere in particular. RFC 4745 §7.2.
fn sphere(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let text = iq.child.text_content();
    if text.len() > rules::document::VALUE_BYTES_MAX {
        return Err(bad("too long"));
    }
    let sphere = text.split_whitespace().map(Into::into).collect();
    change::set_sphere(account, sphere, Some(iq.stanza), iq.ticket, fx);
    push(account, iq.session, fx);
    Ok(Answer::Result(None))
}

/// What somebody sees and may do: for users and operators who want to know what their rules come to.
fn explain(account: &mut Account, iq: &Iq<'_>, _: &mut Effects) -> Handled {
    let jid = iq.child.attribute("jid").ok_or_else(|| bad("<view/> has no 'jid'"))?;
    let who = Jid::parse(jid).map_err(|fault| xmpp::error::jid_malformed(&fault))?;
    let exits = Exit::ALL.iter().map(|&exit| {
        let view = view(account, &who, exit);
        let element = Element::new("exit", NS).attr("name", exit.name()).attr("handling", view.handling.name());
        element.attr_opt("shape", view.shape.map(|_| "transformed"))
    });
    let grant = |grant, name: &str| view::grants(account, &who, grant).then(|| Element::new(name, NS));
    let message = if account.blocks.blocks(&who) { rules::Delivery::Refuse } else { view::delivery_of(account, &who) };
    let grants = [grant(view::Grant::Publish, "publish"), grant(view::Grant::Read, "read")];
    let shown = Element::new("view", NS)
        .attr("jid", who.as_str())
        .attr("subscribe", view::subscription_of(account, &who).name())
        .attr("message", message.name())
        .children_from(exits)
        .children_from(grants.into_iter().flatten());
    Ok(Answer::Result(Some(shown)))
}

/// To the other resources that have asked for the rules.
pub fn push(account: &mut Account, but: Option<SessionId>, fx: &mut Effects) {
    let knowing: Vec<(SessionId, Jid)> = account
        .sessions
        .iter()
        .filter(|s| s.knows_rules && Some(s.id) != but)
        .map(|s| (s.id, s.jid.clone().into()))
        .collect();
    if knowing.is_empty() {
        return;
    }
    let id = format!("rules-{}", account.rules.version());
    let stanza = Arc::new(Stanza::iq(IqType::Set, &id).with_children([head(account)]));
    for (id, to) in knowing {
        let delivery = Delivery { stanza: stanza.clone(), to: Some(to), more: Default::default(), position: None };
        session::deliver(account, id, delivery, fx);
    }
}
