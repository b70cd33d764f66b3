//! Who is what at a node: its owner, or a member, which is to be on the whitelist. XEP-0060 §4.1, §5.7, §8.9.

use super::errors::{bad, may_know, node_of, unsupported};
use super::{NS, OWNER, commit};
use crate::account::Account;
use crate::effects::Effects;
use crate::module::{Answer, Handled, Iq};
use crate::modules::interest;
use crate::nodes;
use xmpp::{BareJid, Element, Jid, StanzaCondition, StanzaError};

/// What the asker is; at one node, or all. §5.7.
pub(super) fn own(account: &mut Account, iq: &Iq<'_>, command: &Element) -> Handled {
    let only = command.attribute("node");
    let nodes = account.nodes.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
    let own = nodes.filter_map(|(name, node)| {
        let affiliation = match iq.session {
            Some(_) => "owner",
            None if node.is_member(iq.from) => "member",
            None => return None,
        };
        Some(Element::new("affiliation", NS).attr("node", name).attr("affiliation", affiliation))
    });
    let own: Vec<Element> = own.collect();
    if own.is_empty() {
        may_know(account, iq)?;
    }
    let affiliations = Element::new("affiliations", NS).attr_opt("node", only).children_from(own);
    Ok(Answer::Result(Some(Element::new("pubsub", NS).child(affiliations))))
}

/// All of a node, for its owner. §8.9.1.
pub(super) fn list(account: &Account, command: &Element) -> Handled {
    let name = node_of(command)?;
    let node = account.nodes.get(name).ok_or(StanzaCondition::ItemNotFound)?;
    let affiliation =
        |who: &BareJid, what| Element::new("affiliation", OWNER).attr("jid", who.as_str()).attr("affiliation", what);
    let members = node.members.iter().map(|who| affiliation(who, "member"));
    let all = std::iter::once(affiliation(&account.jid, "owner")).chain(members);
    let all = Element::new("affiliations", OWNER).attr("node", name).children_from(all);
    Ok(Answer::Result(Some(Element::new("pubsub", OWNER).child(all))))
}

/// Puts others on the whitelist and takes them off it: all that are named, or none. §8.9.2.
///
/// # Errors
/// `feature-not-implemented` for what nobody can be here, `not-acceptable` for another owner or another rank of this one,
/// `bad-request` for what cannot be read or is named twice.
pub(super) fn modify(account: &mut Account, iq: &Iq<'_>, command: &Element, fx: &mut Effects) -> Handled {
    let name = node_of(command)?;
    let (mut new, mut gone): (Vec<BareJid>, Vec<BareJid>) = (Vec::new(), Vec::new());
    for entry in command.elements().filter(|child| child.is("affiliation", OWNER)) {
        let who = address(entry)?;
        if new.contains(&who) || gone.contains(&who) {
            return Err(StanzaCondition::BadRequest.into());
        }
        match (entry.attribute("affiliation"), who == account.jid) {
            (None, _) | (Some("owner"), true) => {}
            (Some("member"), false) => new.push(who),
            (Some("none"), false) => gone.push(who),
            (Some("outcast"), false) => return Err(unsupported("outcast-affiliation")),
            (Some("publisher"), false) => return Err(unsupported("publisher-affiliation")),
            (Some("publish-only"), false) => return Err(unsupported("publish-only-affiliation")),
            (Some(_), _) => return Err(StanzaCondition::NotAcceptable.into()),
        }
    }
    let changes = nodes::set_members(account, name, new, &gone)?;
    commit(account, changes, iq, fx);
    interest::look_around(account, fx);
    Ok(Answer::Result(None))
}

/// All affiliations are of bare JIDs. §4.1.
fn address(entry: &Element) -> Result<BareJid, StanzaError> {
    let text = entry.attribute("jid").ok_or_else(|| bad("jid-required"))?;
    Jid::parse(text).ok().filter(Jid::is_bare).map(|who| who.to_bare()).ok_or_else(|| bad("invalid-jid"))
}
