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
        sort(&mut matching);
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

    /// What those rules say that hold whatever the time and the sphere.
    pub fn decide_lasting(&self, asked: Asked<'_>) -> Decision {
        let mut matching = Matching::default();
        self.each_way(asked, |way| {
            let conditions = &self.rules[usize::from(way.rule)].conditions;
            if conditions.are_lasting() && self.leads(way, asked) {
                matching.0.push(way.rule);
                matching.1 |= way.named;
            }
        });
        sort(&mut matching);
        self.combined(&matching.0, matching.1)
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

fn sort(matching: &mut Matching) {
    matching.0.sort_unstable();
    matching.0.dedup();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::document::{ALL_DAYS, Actions, Conditions, Document, Hours};
    use crate::rules::shape::{Allowed, Other, Pick};
    use crate::rules::{Delivery, Handling};
    use proptest::prelude::*;
    use xmpp::BareJid;

    const USERS: [&str; 3] = ["romeo", "nurse", "tybalt"];
    const DOMAINS: [&str; 5] = ["a.example", "b.example", "x.b.example", "y.x.b.example", "anon.example"];
    const GROUPS: [&str; 2] = ["friends", "kin"];
    const SPHERES: [&str; 2] = ["work", "home"];

    fn bare() -> impl Strategy<Value = BareJid> {
        let user = proptest::sample::select(&USERS[..]);
        let domain = proptest::sample::select(&DOMAINS[..]);
        (user, domain).prop_map(|(user, domain)| BareJid::parse(&format!("{user}@{domain}")).expect("a JID"))
    }

    fn domain() -> impl Strategy<Value = Domain> {
        let name = proptest::sample::select(&["a.example", "b.example", "x.b.example", "example"][..]);
        (name, any::<bool>()).prop_map(|(name, below)| Domain { name: name.into(), below })
    }

    fn identity() -> impl Strategy<Value = Identity> {
        let except = prop_oneof![bare().prop_map(Except::One), domain().prop_map(Except::Domain)];
        let many = (proptest::option::of(domain()), proptest::collection::vec(except, 0..3));
        let group = proptest::option::of(proptest::sample::select(&GROUPS[..]));
        prop_oneof![
            bare().prop_map(Identity::One),
            many.prop_map(|(domain, except)| Identity::Many(Many { domain, except })),
            group.prop_map(|name| Identity::Group(name.map(Into::into))),
            Just(Identity::Unauthenticated),
        ]
    }

    fn conditions() -> impl Strategy<Value = Conditions> {
        let sphere = proptest::collection::vec(proptest::sample::select(&SPHERES[..]).prop_map(Into::into), 1..3);
        // Seconds of one day; the watcher is asked about one of them.
        let span = (0_i64..86_400, 0_i64..86_400).prop_map(|(a, b)| (seconds(a.min(b)), seconds(a.max(b))));
        let hours = (0_u16..1_440, 0_u16..1_440, 1_u8..=ALL_DAYS, -720_i16..=720);
        let hours = hours.prop_map(|(from, until, days, offset)| Hours { from, until, days, offset });
        (
            proptest::option::of(proptest::collection::vec(identity(), 0..4)),
            proptest::option::weighted(0.2, sphere),
            proptest::option::weighted(0.2, proptest::collection::vec(span, 1..3)),
            proptest::option::weighted(0.2, proptest::collection::vec(hours, 1..3)),
        )
            .prop_map(|(identity, sphere, validity, hours)| Conditions { identity, sphere, validity, hours })
    }

    fn actions() -> impl Strategy<Value = Actions> {
        let handling = || {
            let all = [Handling::Block, Handling::Confirm, Handling::PoliteBlock, Handling::Allow];
            proptest::option::of(proptest::sample::select(all.to_vec()))
        };
        let delivery = vec![Delivery::Refuse, Delivery::Drop, Delivery::Store, Delivery::Deliver];
        let delivery = proptest::option::of(proptest::sample::select(delivery));
        let grant = || proptest::option::of(any::<bool>());
        (handling(), handling(), grant(), grant(), grant(), delivery).prop_map(
            |(subscribe, fetch, watch, publish, read, message)| Actions {
                subscribe,
                fetch,
                watch,
                publish,
                read,
                message,
            },
        )
    }

    fn names(of: &'static [&'static str]) -> impl Strategy<Value = Allowed<Box<str>>> {
        let some = proptest::sample::subsequence(of, 0..=of.len());
        some.prop_map(|some| Allowed::These(some.into_iter().map(Into::into).collect()))
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let picks = |more: Pick| {
            prop_oneof![
                Just(Allowed::All),
                Just(Allowed::default()),
                Just(Allowed::These([Pick::Occurrence("phone".into()), Pick::Class("biz".into()), more].into())),
            ]
        };
        let sets = (
            picks(Pick::Scheme("tel".into())),
            picks(Pick::DeviceId("urn:x".into())),
            picks(Pick::Class("own".into())),
            names(&["activities", "mood", "user-input"]),
            names(&["{urn:x}y", "{http://a/}b"]),
            prop_oneof![Just(Allowed::All), names(&["urn:tune", "urn:mood"])],
        );
        let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        let text =
            |of: &'static [&'static str]| proptest::option::of(proptest::sample::select(of).prop_map(Into::into));
        let other = (text(&["away", "dnd"]), text(&["out", "gone fishing"]));
        let other = proptest::option::weighted(0.2, other.prop_map(|(show, status)| Other { show, status }));
        (sets, flags, other).prop_map(
            |((services, devices, persons, attributes, unknown, pep), (show, status, idle, notes, all), other)| {
                let mut shape =
                    Shape { services, devices, persons, show, status, idle, notes, attributes, unknown, pep, other };
                if all {
                    crate::rules::xml::everything(&mut shape);
                }
                shape
            },
        )
    }

    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let rule = (conditions(), actions(), proptest::option::of(shape()));
        proptest::collection::vec(rule, 0..12).prop_map(|rules| {
            let numbered = rules.into_iter().enumerate();
            let rule =
                |(n, (conditions, actions, shape))| Rule { id: format!("r{n}").into(), conditions, actions, shape };
            numbered.map(rule).collect()
        })
    }

    fn seconds(of_day: i64) -> Stamp {
        Stamp(1_767_225_600_000_000 + of_day * 1_000_000)
    }

    /// RFC 4745, sentence by sentence, rule by rule.
    fn naive(rules: &[Rule], asked: Asked<'_>) -> Decision {
        let mut decision = Decision::default();
        for rule in rules {
            let identities = rule.conditions.identity.as_deref();
            let matching = |identity: &&Identity| match identity {
                Identity::One(who) => asked.authenticated && asked.who.bare_str() == who.as_str(),
                Identity::Many(many) => {
                    let within = many.domain.as_ref().is_none_or(|domain| within_of(domain, asked.who.domain()));
                    let excepted = many.except.iter().any(|except| match except {
                        Except::One(who) => asked.who.bare_str() == who.as_str(),
                        Except::Domain(domain) => within_of(domain, asked.who.domain()),
                    });
                    asked.authenticated && within && !excepted
                }
                Identity::Group(None) => asked.authenticated && asked.groups.is_some(),
                Identity::Group(Some(name)) => {
                    asked.authenticated && asked.groups.is_some_and(|groups| groups.iter().any(|it| **it == **name))
                }
                Identity::Unauthenticated => !asked.authenticated,
            };
            let by: Vec<&Identity> = identities.into_iter().flatten().filter(matching).collect();
            let Conditions { sphere, validity, hours, .. } = &rule.conditions;
            let holds = (identities.is_none() || !by.is_empty())
                && sphere.as_ref().is_none_or(|wanted| wanted.iter().any(|it| asked.sphere.contains(it)))
                && validity.as_ref().is_none_or(|spans| spans.iter().any(|it| it.0 <= asked.now && asked.now < it.1))
                && hours.as_ref().is_none_or(|hours| hours.iter().any(|it| slow_hours(it, asked.now)));
            if !holds {
                continue;
            }
            let greatest = |a: Option<Handling>, b: Option<Handling>| match (a, b) {
                (Some(a), Some(b)) => Some(if a > b { a } else { b }),
                (a, b) => a.or(b),
            };
            decision.named |= by.iter().any(|identity| matches!(identity, Identity::One(_)));
            decision.subscribe = greatest(decision.subscribe, rule.actions.subscribe);
            decision.fetch = greatest(decision.fetch, rule.actions.fetch);
            decision.message = match (decision.message, rule.actions.message) {
                (Some(a), Some(b)) => Some(if a > b { a } else { b }),
                (a, b) => a.or(b),
            };
            decision.watch |= rule.actions.watch.unwrap_or(false);
            decision.publish |= rule.actions.publish.unwrap_or(false);
            decision.read |= rule.actions.read.unwrap_or(false);
            if let Some(shape) = &rule.shape {
                let mut all = decision.shape.take().map_or_else(Shape::default, |shape| Shape::clone(&shape));
                all.join(shape);
                decision.shape = Some(Arc::new(all));
            }
        }
        decision
    }

    fn within_of(domain: &Domain, of: &str) -> bool {
        *of == *domain.name || (domain.below && of.ends_with(&format!(".{}", domain.name)))
    }

    /// Minute by minute from its last beginning on.
    fn slow_hours(hours: &Hours, now: Stamp) -> bool {
        let local = now.0.div_euclid(60_000_000) + i64::from(hours.offset);
        let length = (i64::from(hours.until) - i64::from(hours.from)).rem_euclid(1_440);
        let length = if length == 0 { 1_440 } else { length };
        (0..length).any(|back| {
            let begin = local - back;
            let weekday = (begin.div_euclid(1_440) + 3).rem_euclid(7);
            begin.rem_euclid(1_440) == i64::from(hours.from) && hours.days & (1 << weekday) != 0
        })
    }

    fn watcher() -> impl Strategy<Value = (BareJid, bool, Option<Vec<&'static str>>, Vec<&'static str>, i64)> {
        let groups = proptest::option::of(proptest::sample::subsequence(&GROUPS[..], 0..=2));
        let sphere = proptest::sample::subsequence(&SPHERES[..], 0..=2);
        (bare(), any::<bool>(), groups, sphere, 0_i64..86_400)
    }

    proptest! {
        #[test]
        fn the_compiled_rules_say_what_the_rfc_says_rule_by_rule(
            rules in rules(),
            watchers in proptest::collection::vec(watcher(), 1..12),
        ) {
            let compiled = Compiled::of(&rules);
            for (who, authenticated, groups, sphere, at) in watchers {
                let groups: Option<Vec<Arc<str>>> = groups.map(|groups| groups.into_iter().map(Into::into).collect());
                let sphere: Vec<Box<str>> = sphere.into_iter().map(Into::into).collect();
                let who = Jid::from(who);
                let asked = Asked { who: &who, authenticated, groups: groups.as_deref(), sphere: &sphere, now: seconds(at) };
                prop_assert_eq!(&*compiled.decide(asked), &naive(&rules, asked));
                // The same again, from what was remembered.
                prop_assert_eq!(&*compiled.decide(asked), &naive(&rules, asked));
            }
        }

        #[test]
        fn nothing_changes_before_the_next_edge(rules in rules(), who in bare(), at in 0_i64..86_400, part in 0_i64..1_000) {
            let compiled = Compiled::of(&rules);
            let who = Jid::from(who);
            let asked = Asked { who: &who, authenticated: true, groups: None, sphere: &[], now: seconds(at) };
            let Some(edge) = compiled.next_edge(asked.now) else { return Ok(()) };
            prop_assert!(edge > asked.now);
            let between = Stamp(asked.now.0 + (edge.0 - 1 - asked.now.0) / 1_000 * part);
            prop_assert_eq!(compiled.decide(asked), compiled.decide(Asked { now: between, ..asked }));
        }

        #[test]
        fn what_is_written_is_read_again(rules in rules()) {
            let document = Document { version: 0, rules };
            let bytes = document.to_element().to_bytes("");
            let read = xmpp::Element::parse(&bytes, "").expect("well-formed");
            prop_assert_eq!(Document::of(&read), Ok(document));
        }

        #[test]
        fn what_is_said_in_short_is_the_whole_rule(rules in rules()) {
            for rule in rules {
                let values: Vec<(String, String)> =
                    crate::rules::short::values(&rule).into_iter().map(|(name, value)| (name.into(), value)).collect();
                prop_assert_eq!(crate::rules::short::rule(&rule.id, &values), Ok(rule), "{:?}", values);
            }
        }
    }

    #[test]
    fn a_wildcard_is_the_domain_and_all_below_it() {
        let below = Domain { name: "b.example".into(), below: true };
        let found: Vec<bool> =
            ["b.example", "x.b.example", "y.x.b.example", "ab.example", "example"].map(|it| below.holds(it)).into();
        assert_eq!(found, [true, true, true, false, false]);
    }
}
