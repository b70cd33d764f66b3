//! Editing: the document as it is shown, with the roster's subscriptions and the block list as rules of it, and what
//! becomes of a new one.

use super::change::{self, act_as_user};
use super::document::Rule;
use super::xml::{self, COMMON, PRES, bad};
use crate::account::Account;
use crate::block;
use crate::effects::{Effect, Effects};
use crate::item::Ticket;
use crate::subscription::Act;
use std::sync::Arc;
use xmpp::{BareJid, Element, Jid, Stanza, StanzaCondition, StanzaError};

/// The rule that shows the roster's subscriptions.
pub const SUBSCRIBERS: &str = "subscribers";
/// The rule that shows the block list.
pub const BLOCKED: &str = "blocked";

/// Changes whenever what [`shown`] gives does.
pub fn etag(account: &Account) -> String {
    // FNV-1a: the same in every build.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |text: &str| {
        for byte in text.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    account.roster.watchers().for_each(|watcher| add(watcher.as_str()));
    add("\n");
    account.blocks.iter().for_each(|jid| add(jid.as_str()));
    format!("{}-{hash:016x}", account.rules.version())
}

/// The document with the two rules that are shown.
pub fn shown(account: &Account) -> Element {
    let written = account.rules.rules().iter().map(Rule::to_element);
    Element::new("ruleset", COMMON).child(blocked(account)).children_from(written).child(subscribers(account))
}

fn generated(id: &str, identities: impl Iterator<Item = Element>, handling: &str) -> Element {
    let identity = Element::new("identity", COMMON).children_from(identities);
    let handling = Element::new("sub-handling", PRES).text(handling);
    Element::new("rule", COMMON)
        .attr("id", id)
        .child(Element::new("conditions", COMMON).child(identity))
        .child(Element::new("actions", COMMON).child(handling))
}

fn one(jid: &Jid) -> Element {
    Element::new("one", COMMON).attr("id", format!("xmpp:{}", jid.as_str()))
}

fn subscribers(account: &Account) -> Element {
    generated(SUBSCRIBERS, account.roster.watchers().map(|watcher| one(watcher)), "allow")
}

fn blocked(account: &Account) -> Element {
    let entry = |jid: &Jid| match jid.is_domain() && jid.is_bare() {
        true => Element::new("many", COMMON).attr("domain", jid.as_str()),
        false => one(jid),
    };
    generated(BLOCKED, account.blocks.iter().map(entry), "block")
}

/// What is to become of the document; `None`: stays as it is.
#[derive(Debug, Default)]
pub struct Edit {
    pub rules: Option<Vec<Rule>>,
    pub subscribers: Option<Vec<BareJid>>,
    pub blocked: Option<Vec<Jid>>,
}

impl Edit {
    /// A whole ruleset. Of the two rules that are shown, one that is left out stays as it is.
    ///
    /// # Errors
    /// As [`super::document::Document::of`].
    pub fn whole(ruleset: &Element) -> Result<Edit, StanzaError> {
        let mut edit = Edit { rules: Some(Vec::new()), ..Edit::default() };
        for rule in ruleset.elements() {
            if !rule.is("rule", COMMON) {
                return Err(bad(format!("<{}/> in <ruleset/> is not known here", rule.name)));
            }
            if !edit.is_shown(rule)? {
                edit.rules.get_or_insert_default().push(Rule::of(rule)?);
            }
        }
        edit.checked()
    }

    /// One rule, in the place of the one with its id, or at the end.
    ///
    /// # Errors
    /// As [`super::document::Document::of`].
    pub fn put(account: &Account, rule: &Element) -> Result<Edit, StanzaError> {
        let mut edit = Edit::default();
        if !edit.is_shown(rule)? {
            return Edit::put_rule(account, Rule::of(rule)?);
        }
        edit.checked()
    }

    /// The same with a rule that was made here.
    ///
    /// # Errors
    /// As [`super::document::Document::of`].
    pub fn put_rule(account: &Account, rule: Rule) -> Result<Edit, StanzaError> {
        let mut rules = account.rules.rules().to_vec();
        match rules.iter_mut().find(|other| other.id == rule.id) {
            Some(other) => *other = rule,
            None => rules.push(rule),
        }
        Edit { rules: Some(rules), ..Edit::default() }.checked()
    }

    /// # Errors
    /// `item-not-found` if there is none of that id, `not-acceptable` for one that is only shown.
    pub fn remove(account: &Account, id: &str) -> Result<Edit, StanzaError> {
        if [SUBSCRIBERS, BLOCKED].contains(&id) {
            return Err(bad(format!("the rule \"{id}\" can be emptied and not removed")));
        }
        let mut rules = account.rules.rules().to_vec();
        let before = rules.len();
        rules.retain(|rule| *rule.id != *id);
        if rules.len() == before {
            return Err(StanzaCondition::ItemNotFound.into());
        }
        Ok(Edit { rules: Some(rules), ..Edit::default() })
    }

    fn checked(self) -> Result<Edit, StanzaError> {
        if let Some(rules) = &self.rules {
            xml::check(rules)?;
        }
        Ok(self)
    }

    /// Takes in one of the two rules that are shown.
    fn is_shown(&mut self, rule: &Element) -> Result<bool, StanzaError> {
        let id = rule.attribute("id").unwrap_or_default();
        if ![SUBSCRIBERS, BLOCKED].contains(&id) {
            return Ok(false);
        }
        let conditions = rule.find("conditions", COMMON);
        let identity = conditions.and_then(|conditions| conditions.find("identity", COMMON));
        let (Some(conditions), Some(identity)) = (conditions, identity) else {
            return Err(bad(format!("the rule \"{id}\" has an <identity/>")));
        };
        if conditions.elements().count() != 1 || rule.elements().any(|part| part.is("transformations", COMMON)) {
            return Err(bad(format!("the rule \"{id}\" has an <identity/> and nothing else")));
        }
        let jids = identity.elements().map(|it| entry(it, id)).collect::<Result<Vec<Jid>, StanzaError>>()?;
        if id == BLOCKED {
            self.blocked = Some(jids);
        } else {
            self.subscribers = Some(jids.iter().map(|jid| jid.to_bare()).collect());
        }
        Ok(true)
    }
}

/// One identity of a rule that is shown.
fn entry(element: &Element, rule: &str) -> Result<Jid, StanzaError> {
    let text = match (&*element.ns, &*element.name) {
        (COMMON, "one") => element.attribute("id").map(|id| id.strip_prefix("xmpp:").unwrap_or(id)),
        (COMMON, "many") if rule == BLOCKED && element.elements().next().is_none() => element.attribute("domain"),
        _ => None,
    };
    let text = text.ok_or_else(|| bad(format!("the rule \"{rule}\" names addresses")))?;
    Jid::parse(text).map_err(|fault| xmpp::error::jid_malformed(&fault))
}

/// Makes an edit: one commit, behind it what everybody hears of it.
///
/// # Errors
/// Those of the block list; then nothing has changed.
pub fn make(
    account: &mut Account,
    edit: Edit,
    bounce: Option<&Arc<Stanza>>,
    ticket: &Ticket,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let mut parts = Effects::default();
    if let Some(blocked) = edit.blocked {
        let gone: Vec<Jid> = account.blocks.iter().filter(|jid| !blocked.contains(jid)).cloned().collect();
        // The only part that can be refused comes first.
        block::add(account, blocked, &gone, &mut parts)?;
        block::remove(account, gone, false, &mut parts);
    }
    if let Some(subscribers) = edit.subscribers {
        let ended: Vec<BareJid> =
            account.roster.watchers().filter(|watcher| !subscribers.contains(watcher)).cloned().collect();
        let begun: Vec<BareJid> =
            subscribers.into_iter().filter(|who| !account.roster.subscription(who).from).collect();
        ended.iter().for_each(|who| act_as_user(account, who, Act::Unsubscribed, &mut parts));
        begun.iter().for_each(|who| act_as_user(account, who, Act::Subscribed, &mut parts));
    }
    let mut changes = Vec::new();
    if let Some(rules) = edit.rules {
        changes.push(change::replace(account, rules, &mut parts));
    }
    let mut rest = Vec::new();
    for effect in parts.list {
        match effect {
            Effect::Commit { changes: more, .. } => changes.extend(more),
            effect => rest.push(effect),
        }
    }
    if !changes.is_empty() {
        fx.commit(changes, bounce, ticket);
    }
    fx.list.append(&mut rest);
    change::wake(account, fx);
    Ok(())
}
