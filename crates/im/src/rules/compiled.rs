//! The rules made ready: who stands before the account is looked up, not searched for.

use super::Decision;
use super::document::{Domain, Except, Identity, Many, Rule};
use super::shape::Shape;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;
use xmpp::{Jid, Stamp};

/// Sets of rules whose decision is remembered; beyond that all are forgotten.
const CLASSES_MAX: usize = 1_024;

/// Whom the rules are asked about, and when.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub who: &'a Jid,
    /// Is it somebody in particular?
    pub authenticated: bool,
    /// Groups of its item; `None`: not in the roster.
    pub groups: Option<&'a [Arc<str>]>,
    pub sphere: &'a [Box<str>],
    pub now: Stamp,
}

/// One way to come to a rule.
#[derive(Debug, Clone, Copy)]
struct Way {
    rule: u16,
    /// Of [`Compiled::excepts`].
    except: Option<u32>,
    /// It names the watcher itself.
    named: bool,
}

/// Whom a `many` leaves out.
#[derive(Debug, Default)]
struct Excepts {
    ones: Vec<Box<str>>,
    domains: Vec<Domain>,
}

#[derive(Debug, Default)]
pub struct Compiled {
    rules: Vec<Rule>,
    excepts: Vec<Excepts>,
    /// By bare JID.
    ones: HashMap<Box<str>, Vec<Way>>,
    domains: HashMap<Box<str>, Vec<Way>>,
    /// `*.domain`, by the domain.
    below: HashMap<Box<str>, Vec<Way>>,
    groups: HashMap<Box<str>, Vec<Way>>,
    /// Whoever is in the roster.
    listed: Vec<Way>,
    /// Whoever is authenticated.
    many: Vec<Way>,
    unauthenticated: Vec<Way>,
    anybody: Vec<Way>,
    shapes: Vec<Option<Arc<Shape>>>,
    /// Decisions by the rules that match and whether one of them names the watcher.
    classes: RefCell<HashMap<Matching, Arc<Decision>>>,
    nothing: Arc<Decision>,
}

/// Rules that match, in their order.
type Matching = (smallvec::SmallVec<[u16; 8]>, bool);

impl Compiled {
    pub fn of(rules: &[Rule]) -> Compiled {
        let mut compiled = Compiled { rules: rules.to_vec(), ..Compiled::default() };
        compiled.shapes = rules.iter().map(|rule| rule.shape.clone().map(Arc::new)).collect();
        for (index, rule) in (0u16..).zip(rules) {
            let way = Way { rule: index, except: None, named: false };
            match &rule.conditions.identity {
                None => compiled.anybody.push(way),
                Some(identities) => identities.iter().for_each(|identity| compiled.add(identity, way)),
            }
        }
        compiled
    }

    fn add(&mut self, identity: &Identity, way: Way) {
        let by = match identity {
            Identity::One(who) => {
                let way = Way { named: true, ..way };
                return self.ones.entry(who.as_str().into()).or_default().push(way);
            }
            Identity::Many(Many { domain, except }) => {
                let way = Way { except: self.except(except), ..way };
                match domain {
                    None => return self.many.push(way),
                    Some(domain) => {
                        let by = if domain.below { &mut self.below } else { &mut self.domains };
                        return by.entry(domain.name.clone()).or_default().push(way);
                    }
                }
            }
            Identity::Group(Some(group)) => return self.groups.entry(group.clone()).or_default().push(way),
            Identity::Group(None) => &mut self.listed,
            Identity::Unauthenticated => &mut self.unauthenticated,
        };
        by.push(way);
    }

    fn except(&mut self, except: &[Except]) -> Option<u32> {
        if except.is_empty() {
            return None;
        }
        let mut excepts = Excepts::default();
        for one in except {
            match one {
                Except::One(who) => excepts.ones.push(who.as_str().into()),
                Except::Domain(domain) => excepts.domains.push(domain.clone()),
            }
        }
        excepts.ones.sort();
        self.excepts.push(excepts);
        u32::try_from(self.excepts.len() - 1).ok()
    }

    /// What the rules say. RFC 4745 §10: permissions of all rules that match add up.
    pub fn decide(&self, asked: Asked<'_>) -> Arc<Decision> {
        let mut matching = Matching::default();
        self.each_way(asked, |way| {
            if self.leads(way, asked) {
                matching.0.push(way.rule);
                matching.1 |= way.named;
            }
        });
        if matching.0.is_empty() {
            return self.nothing.clone();
        }
        matching.0.sort_unstable();
        matching.0.dedup();
        let mut classes = self.classes.borrow_mut();
        if let Some(known) = classes.get(&matching) {
            return known.clone();
        }
        if classes.len() >= CLASSES_MAX {
            classes.clear();
        }
        let decision = Arc::new(self.combined(&matching.0, matching.1));
        classes.insert(matching, decision.clone());
        decision
    }

    fn each_way(&self, asked: Asked<'_>, mut see: impl FnMut(Way)) {
        let mut all = |ways: Option<&Vec<Way>>| ways.into_iter().flatten().for_each(|way| see(*way));
        all(Some(&self.anybody));
        if !asked.authenticated {
            return all(Some(&self.unauthenticated));
        }
        all(Some(&self.many));
        if !self.ones.is_empty() {
            all(self.ones.get(asked.who.bare_str()));
        }
        if !self.domains.is_empty() {
            all(self.domains.get(asked.who.domain()));
        }
        if !self.below.is_empty() {
            parents(asked.who.domain()).for_each(|domain| all(self.below.get(domain)));
        }
        if let Some(groups) = asked.groups {
            all(Some(&self.listed));
            if !self.groups.is_empty() {
                groups.iter().for_each(|group| all(self.groups.get(&**group)));
            }
        }
    }

    /// Nobody excepted, and the other conditions hold?
    fn leads(&self, way: Way, asked: Asked<'_>) -> bool {
        let excepts = way.except.and_then(|at| self.excepts.get(at as usize));
        if excepts.is_some_and(|excepts| excepts.has(asked.who)) {
            return false;
        }
        let conditions = &self.rules[usize::from(way.rule)].conditions;
        let sphere =
            conditions.sphere.as_ref().is_none_or(|wanted| wanted.iter().any(|one| asked.sphere.contains(one)));
        let valid =
            |spans: &Vec<(Stamp, Stamp)>| spans.iter().any(|(from, until)| (*from..*until).contains(&asked.now));
        sphere
            && conditions.validity.as_ref().is_none_or(valid)
            && conditions.hours.as_ref().is_none_or(|hours| hours.iter().any(|hours| hours.holds(asked.now)))
    }

    fn combined(&self, rules: &[u16], named: bool) -> Decision {
        let mut decision = Decision { named, ..Decision::default() };
        let mut shapes = Vec::new();
        for index in rules.iter().map(|rule| usize::from(*rule)) {
            let actions = &self.rules[index].actions;
            decision.subscribe = decision.subscribe.max(actions.subscribe);
            decision.fetch = decision.fetch.max(actions.fetch);
            decision.message = decision.message.max(actions.message);
            decision.watch |= actions.watch == Some(true);
            decision.publish |= actions.publish == Some(true);
            decision.read |= actions.read == Some(true);
            shapes.extend(self.shapes[index].as_ref());
        }
        decision.shape = match shapes[..] {
            [] => None,
            [one] => Some(one.clone()),
            [first, ref more @ ..] => {
                let mut shape = Shape::clone(first);
                more.iter().for_each(|more| shape.join(more));
                Some(Arc::new(shape))
            }
        };
        decision
    }

    /// When the answer may next change by itself.
    pub fn next_edge(&self, now: Stamp) -> Option<Stamp> {
        let conditions = || self.rules.iter().map(|rule| &rule.conditions);
        let spans = conditions().filter_map(|all| all.validity.as_ref()).flatten();
        let edges = spans.flat_map(|&(from, until)| [from, until]).filter(|edge| *edge > now);
        let hours = conditions().filter_map(|all| all.hours.as_ref()).flatten().map(|hours| hours.next_edge(now));
        edges.chain(hours).min()
    }
}

impl Excepts {
    fn has(&self, who: &Jid) -> bool {
        self.ones.binary_search_by(|one| (**one).cmp(who.bare_str())).is_ok()
            || self.domains.iter().any(|domain| domain.holds(who.domain()))
    }
}

impl Domain {
    /// Is it the domain, or below it where that counts?
    pub fn holds(&self, domain: &str) -> bool {
        if self.below { parents(domain).any(|parent| *parent == *self.name) } else { *domain == *self.name }
    }
}

/// `a.b.c`, `b.c`, `c`.
fn parents(domain: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(domain), |domain| Some(domain.split_once('.')?.1))
}
