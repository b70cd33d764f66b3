//! ACCESS RULES: who may do and see what, one document an account. RFC 2778 §2.2; RFC 4745, RFC 5025.
//!
//! - [`document`]: the rules as they are written; [`xml`]: on the wire and in the store.
//! - [`compiled`]: the rules made ready, and what they say for one watcher.
//! - [`shape`]: what of the presence is shown.
//! - [`short`]: rules in short, for forms and the command line.
//! - [`sphere`]: where the user is, as presence says it.
//! - [`edit`], [`change`]: a new document, and whom it concerns.
//!
//! What the rules say stands above the roster's subscription and beneath the block list; [`crate::view`] puts the three
//! together.

pub mod change;
pub mod compiled;
pub mod document;
pub mod edit;
#[cfg(test)]
mod polite;
pub mod shape;
pub mod short;
pub mod sphere;
#[cfg(test)]
mod tests;
pub mod xml;

use crate::account::Account;
use crate::policy::HostPolicy;
use crate::view::Class;
use compiled::{Asked, Compiled};
use document::{Document, Rule};
use shape::Shape;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use xmpp::{Element, Jid, Stamp};

/// Where the document is kept, in the space of settings.
pub const KEY: &str = "access rules";

/// The answer to whoever asks for presence, in the order of RFC 5025 §3.2.1: of several, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Handling {
    /// Refused, and told so.
    Block,
    /// The owner is asked; until then nothing.
    Confirm,
    /// Granted in appearance: whoever asks sees somebody who is away.
    PoliteBlock,
    Allow,
}

/// What becomes of a message; of several, the greatest counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Delivery {
    /// The sender hears what an account that does not exist would say.
    Refuse,
    /// Taken as by an account that is away, and thrown away.
    Drop,
    /// Kept, and delivered when a resource comes next or the rule ends.
    Store,
    Deliver,
}

/// What the rules say for one watcher; `None` where no rule speaks. All watchers for whom the same rules speak share
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Decision {
    pub subscribe: Option<Handling>,
    pub fetch: Option<Handling>,
    /// WATCHER INFORMATION: all rows.
    pub watch: bool,
    /// Presence information in the account's name.
    pub publish: bool,
    /// The inbox.
    pub read: bool,
    pub message: Option<Delivery>,
    pub shape: Option<Arc<Shape>>,
    /// A rule names the watcher itself.
    pub named: bool,
}

/// An account's document, ready.
#[derive(Debug, Default)]
pub struct Rules {
    ready: Option<Box<Ready>>,
}

#[derive(Debug, Default)]
struct Ready {
    document: Document,
    compiled: Compiled,
    /// It was stored and cannot be read: everything is forbidden.
    unreadable: bool,
    /// The user's sphere as it was set. RFC 4745 §7.2.
    sphere: Vec<Box<str>>,
    /// A rule holds in some sphere only.
    by_sphere: bool,
    /// Since when whoever is politely blocked sees the account away.
    away: Away,
    /// The time at which watchers were last told what they see.
    told_at: Option<Stamp>,
    /// The watchers by what they see, as long as nothing changes.
    classes: RefCell<Option<Known>>,
}

/// Watchers by what they see, and what that was made of.
#[derive(Debug)]
struct Known {
    roster: u64,
    blocks: u64,
    sphere: Box<[Box<str>]>,
    policy: Weak<HostPolicy>,
    /// From when (inclusive) until when (exclusive) the rules say so.
    since: Stamp,
    until: Option<Stamp>,
    classes: Vec<Class>,
}

impl Known {
    fn holds(&self, account: &Account) -> bool {
        let now = account.now.utc;
        self.roster == account.roster.stamp()
            && self.blocks == account.blocks.stamp()
            && *self.sphere == *account.sphere
            && std::ptr::eq(self.policy.as_ptr(), Arc::as_ptr(&account.policy))
            && self.since <= now
            && self.until.is_none_or(|until| now < until)
    }
}

/// What those who are politely blocked are told of when the user left.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Away {
    /// Those of whom nothing better is known: when the user was last there, as it was when the first such rule came.
    pub since: Option<(Stamp, Box<str>)>,
    /// Who saw the user leave when it began, by bare JID.
    pub by_watcher: BTreeMap<Box<str>, Stamp>,
}

impl Rules {
    /// As they were stored. What cannot be read forbids everything.
    pub fn from_stored(value: Option<&[u8]>) -> Rules {
        let Some(value) = value else { return Rules::default() };
        let stored = Element::parse(value, xml::NS).ok();
        let read = stored.and_then(|stored| {
            let version = stored.attribute("version")?.parse().ok()?;
            let sphere = stored.attribute("sphere").unwrap_or_default().split_whitespace().map(Into::into).collect();
            let document = Document::of(stored.find("ruleset", xml::COMMON)?).ok()?;
            Some((Document { version, ..document }, sphere, Away::of(stored.find("away", xml::NS)?)?))
        });
        match read {
            Some((document, sphere, away)) => Rules::of(document, sphere, away),
            None => Rules { ready: Some(Box::new(Ready { unreadable: true, ..Ready::default() })) },
        }
    }

    pub fn of(document: Document, sphere: Vec<Box<str>>, away: Away) -> Rules {
        if document == Document::default() && sphere.is_empty() {
            return Rules::default();
        }
        let compiled = Compiled::of(&document.rules);
        let by_sphere = document.rules.iter().any(|rule| rule.conditions.sphere.is_some());
        let ready = Ready {
            document,
            compiled,
            unreadable: false,
            sphere,
            by_sphere,
            away,
            told_at: None,
            classes: Default::default(),
        };
        Rules { ready: Some(Box::new(ready)) }
    }

    /// As [`Rules::from_stored`] reads them.
    pub fn to_stored(&self) -> Vec<u8> {
        let away = self.ready.as_ref().map(|ready| ready.away.to_element());
        Element::new("rules", xml::NS)
            .attr("version", self.version().to_string())
            .attr("sphere", self.sphere().join(" "))
            .child(self.document().map_or_else(|| Document::default().to_element(), Document::to_element))
            .child(away.unwrap_or_else(|| Away::default().to_element()))
            .to_bytes("")
    }

    /// Does no rule say anything, whoever it is?
    pub fn is_silent(&self) -> bool {
        self.ready.as_ref().is_none_or(|ready| ready.document.rules.is_empty() && !ready.unreadable)
    }

    /// Nothing is known of what the owner wants.
    pub fn is_unreadable(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.unreadable)
    }

    pub fn document(&self) -> Option<&Document> {
        self.ready.as_ref().map(|ready| &ready.document)
    }

    pub fn rules(&self) -> &[Rule] {
        self.document().map_or(&[], |document| &document.rules)
    }

    pub fn version(&self) -> u64 {
        self.document().map_or(0, |document| document.version)
    }

    pub fn sphere(&self) -> &[Box<str>] {
        self.ready.as_ref().map_or(&[], |ready| &ready.sphere)
    }

    /// Is there a rule that holds in some sphere only, and has the user not said where he is?
    pub fn ask_for_sphere(&self) -> bool {
        self.ready.as_ref().is_some_and(|ready| ready.by_sphere && ready.sphere.is_empty())
    }

    pub fn away(&self) -> Away {
        self.ready.as_ref().map_or_else(Away::default, |ready| ready.away.clone())
    }

    /// Since when the account is away for `watcher`, who is politely blocked.
    pub fn away_since(&self, watcher: &Jid) -> Option<(Stamp, Box<str>)> {
        let away = &self.ready.as_ref()?.away;
        match away.by_watcher.get(watcher.bare_str()) {
            Some(since) => Some((*since, Box::default())),
            None => away.since.clone(),
        }
    }

    fn set_away(&mut self, away: Away) {
        if let Some(ready) = &mut self.ready {
            ready.away = away;
        }
    }

    fn told_at(&self) -> Option<Stamp> {
        self.ready.as_ref()?.told_at
    }

    /// Watchers know what they see at this time.
    fn told(&mut self, now: Stamp) {
        if let Some(ready) = &mut self.ready {
            ready.told_at = Some(now);
        }
    }

    /// The watchers by what they see, if that is known; else as `find` has it. For who has rules that can be read.
    pub fn classes(&self, account: &Account, find: impl FnOnce() -> Vec<Class>) -> Vec<Class> {
        let Some(ready) = &self.ready else { return find() };
        let mut known = ready.classes.borrow_mut();
        if let Some(known) = known.as_ref().filter(|known| known.holds(account)) {
            return known.classes.clone();
        }
        let classes = find();
        let now = account.now.utc;
        *known = Some(Known {
            roster: account.roster.stamp(),
            blocks: account.blocks.stamp(),
            sphere: account.sphere.clone().into(),
            policy: Arc::downgrade(&account.policy),
            since: now,
            until: ready.compiled.next_edge(now),
            classes: classes.clone(),
        });
        classes
    }

    /// When the answer may next change by itself.
    pub fn next_edge(&self, now: Stamp) -> Option<Stamp> {
        self.ready.as_ref()?.compiled.next_edge(now)
    }
}

impl Away {
    fn of(element: &Element) -> Option<Away> {
        let stamp = |element: &Element| element.attribute("since")?.parse().ok().map(Stamp);
        let mut away = Away { since: stamp(element).map(|at| (at, element.text_content().into())), ..Away::default() };
        for watcher in element.elements() {
            away.by_watcher.insert(watcher.attribute("jid")?.into(), stamp(watcher)?);
        }
        Some(away)
    }

    fn to_element(&self) -> Element {
        let element = Element::new("away", xml::NS);
        let element = match &self.since {
            Some((at, status)) => element.attr("since", at.0.to_string()).text(status),
            None => element,
        };
        element.children_from(
            self.by_watcher
                .iter()
                .map(|(jid, at)| Element::new("watcher", xml::NS).attr("jid", jid).attr("since", at.0.to_string())),
        )
    }
}

/// What the account's rules say for `who`; `None`: nothing, as there are none.
pub fn decide(account: &Account, who: &Jid) -> Option<Arc<Decision>> {
    let ready = account.rules.ready.as_ref()?;
    if ready.unreadable || ready.document.rules.is_empty() {
        return None;
    }
    Some(ready.compiled.decide(asked(account, ready, who)))
}

/// The same of those rules alone that hold at all times and in all spheres.
fn decide_lasting(account: &Account, who: &Jid) -> Option<Decision> {
    let ready = account.rules.ready.as_ref()?;
    (!ready.unreadable).then(|| ready.compiled.decide_lasting(asked(account, ready, who)))
}

/// Is what the rules say of `who` at this moment something else than what they say of him at all times?
pub(crate) fn is_passing(account: &Account, who: &Jid) -> bool {
    if account.rules.is_unreadable() {
        return true;
    }
    let now = decide(account, who);
    now.is_some_and(|now| decide_lasting(account, who).is_none_or(|lasting| *now != lasting))
}

fn asked<'a>(account: &'a Account, ready: &'a Ready, who: &'a Jid) -> Asked<'a> {
    let groups = account.roster.get(who).filter(|item| item.listed).map(|item| &*item.groups);
    let authenticated = !account.policy.is_anonymous(who);
    let sphere = if ready.sphere.is_empty() { &account.sphere } else { &ready.sphere };
    Asked { who, authenticated, groups, sphere, now: account.now.utc }
}
