//! Who asked to be told of a node, and who is on its whitelist. XEP-0060 §6.1, §8.8, §8.9.
//!
//! A subscription lasts as long as its subscriber may see the node: when roster, block list, rules or the node change, all
//! are held against them again (XEP-0163 §7.1). Rules that speak at some times only end none; what is told is decided at
//! each event anyway.

use super::{Node, Nodes, not_found, refused, save, sees};
use crate::account::Account;
use crate::effects::Effects;
use crate::item::Ticket;
use crate::rules;
use crate::view::Exit;
use store::Change;
use xmpp::{BareJid, Jid, StanzaCondition, StanzaError, error::ErrorType};

/// Subscriptions to all nodes of one account.
pub const SUBSCRIPTIONS_MAX: usize = 1_000;
/// Those of one subscriber among them, with all its resources.
pub const SUBSCRIPTIONS_OF_ONE_MAX: usize = 32;
/// Entries on the whitelist of one node.
pub const MEMBERS_MAX: usize = 256;

/// What decides who sees a node, as stamps that change with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Grounds {
    roster: u64,
    blocks: u64,
    rules: u64,
}

impl Grounds {
    fn of(account: &Account) -> Grounds {
        Grounds { roster: account.roster.stamp(), blocks: account.blocks.stamp(), rules: account.rules.version() }
    }
}

impl Nodes {
    fn subscriptions(&self) -> impl Iterator<Item = &Jid> {
        self.nodes.values().flat_map(|node| &node.subscribers)
    }
}

/// Subscribes an address that may see the node; who is subscribed stays so. XEP-0060 §6.1.2, §6.1.6.
///
/// # Errors
/// `item-not-found` if there is no such node, `policy-violation` with `too-many-subscriptions` (§6.1.3.9).
pub fn subscribe(account: &mut Account, name: &str, who: &Jid) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.get(name).ok_or_else(not_found)?;
    if node.subscribers.contains(who) {
        return Ok(Vec::new());
    }
    let of_all = account.nodes.subscriptions().count();
    let of_one = account.nodes.subscriptions().filter(|known| known.same_bare(who)).count();
    if of_all >= SUBSCRIPTIONS_MAX || of_one >= SUBSCRIPTIONS_OF_ONE_MAX {
        return Err(refused(StanzaCondition::PolicyViolation, "too-many-subscriptions"));
    }
    account.nodes.nodes.get_mut(name).ok_or_else(not_found)?.subscribers.push(who.clone());
    Ok(save(account, name).into_iter().collect())
}

/// XEP-0060 §6.2.
///
/// # Errors
/// `item-not-found` if there is no such node, `unexpected-request` with `not-subscribed` (§6.2.3.2).
pub fn unsubscribe(account: &mut Account, name: &str, who: &Jid) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.nodes.get_mut(name).ok_or_else(not_found)?;
    let before = node.subscribers.len();
    node.subscribers.retain(|known| known != who);
    if node.subscribers.len() == before {
        return Err(refused(StanzaCondition::UnexpectedRequest, "not-subscribed").with_type(ErrorType::Cancel));
    }
    Ok(save(account, name).into_iter().collect())
}

/// Puts the first on the whitelist of a node, and takes the second off it. XEP-0060 §8.9.2.
///
/// # Errors
/// `item-not-found` if there is no such node, `resource-constraint` for more than [`MEMBERS_MAX`].
pub fn set_members(
    account: &mut Account,
    name: &str,
    new: Vec<BareJid>,
    gone: &[BareJid],
) -> Result<Vec<Change>, StanzaError> {
    let node = account.nodes.nodes.get_mut(name).ok_or_else(not_found)?;
    let mut members = node.members.clone();
    members.retain(|member| !gone.contains(member));
    members.extend(new);
    members.sort();
    members.dedup();
    if members.len() > MEMBERS_MAX {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_text("The whitelist is full."));
    }
    if node.members == members {
        return Ok(Vec::new());
    }
    node.members = members;
    account.nodes.settled = None;
    Ok(save(account, name).into_iter().collect())
}

/// Ends the subscriptions of those who may not see their node any more. To be called when a step is over: it looks at the
/// stamps of what decides, and at no more where nothing has changed. XEP-0163 §7.1.
///
/// They are not told, as it would say that a rule is new (§7.1: MAY).
pub fn settle(account: &mut Account, fx: &mut Effects) {
    let grounds = Grounds::of(account);
    if account.nodes.settled.replace(grounds) == Some(grounds) {
        return;
    }
    let ends = |(name, node): &(&str, &Node)| {
        let gone = |who: &&Jid| !may_stay(account, who, name, node);
        let gone: Vec<Jid> = node.subscribers.iter().filter(gone).cloned().collect();
        (!gone.is_empty()).then(|| ((*name).to_owned(), gone))
    };
    let ended: Vec<(String, Vec<Jid>)> = account.nodes.iter().filter_map(|each| ends(&each)).collect();
    let mut changes = Vec::new();
    for (name, gone) in ended {
        if let Some(node) = account.nodes.nodes.get_mut(&*name) {
            node.subscribers.retain(|who| !gone.contains(who));
        }
        changes.extend(save(account, &name));
    }
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
}

fn may_stay(account: &Account, who: &Jid, name: &str, node: &Node) -> bool {
    who.same_bare(&account.jid)
        || sees(account, who, name, node, Exit::PepEvent)
        || !account.blocks.blocks(who) && rules::is_passing(account, who)
}
