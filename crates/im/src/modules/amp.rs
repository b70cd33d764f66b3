//! Advanced Message Processing, XEP-0079, of its conditions the one that messages of this house need: what waited until
//! its time was over.
//!
//! A rule is looked at where the message enters its sender's account (is it one that this server knows?), where it comes
//! to its recipient's, and whenever a client is given what waited ([`overdue`]).

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::Ticket;
use crate::module::{Module, xep};
use crate::policy::HostPolicy;
use crate::presence::OWN;
use crate::session;
use crate::view::{Exit, view};
use crate::ways::{Flow, Passage};
use std::sync::Arc;
use xmpp::error::ErrorType;
use xmpp::write::Additions;
use xmpp::{BareJid, Element, Jid, MessageType, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

pub const NS: &str = "http://jabber.org/protocol/amp";
const ERRORS: &str = "http://jabber.org/protocol/amp#errors";
const EXPIRE_AT: &str = "expire-at";
/// Rules of one message that are read; one with more is refused.
const RULES_MAX: usize = 16;

pub static MODULE: Module = Module {
    name: "amp",
    specs: &[xep(79, "1.2").without("deliver and match-resource, asking the next server first (§2.2.4)")],
    host_features: &[NS],
    host_nodes: &[(NS, details)],
    ..Module::EMPTY
};

/// The conditions and actions that there are. §2.1.1, example 4.
fn details(_: &HostPolicy) -> Element {
    let feature = |var: String| Element::new("feature", ns::DISCO_INFO).attr("var", var);
    let actions = [Action::Alert, Action::Drop, Action::Error, Action::Notify];
    let features = actions.map(|action| feature(format!("{NS}?action={}", action.name())));
    let identity = Element::new("identity", ns::DISCO_INFO).attr("category", "im").attr("type", "server");
    Element::new("query", ns::DISCO_INFO)
        .child(identity)
        .child(feature(NS.to_owned()))
        .children_from(features)
        .child(feature(format!("{NS}?condition={EXPIRE_AT}")))
}

/// What a rule does when its condition is met. §3.4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Alert,
    Drop,
    Error,
    Notify,
}

impl Action {
    fn of(name: &str) -> Option<Action> {
        [Action::Alert, Action::Drop, Action::Error, Action::Notify].into_iter().find(|action| action.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Action::Alert => "alert",
            Action::Drop => "drop",
            Action::Error => "error",
            Action::Notify => "notify",
        }
    }
}

/// A rule that is met from a time on.
struct Rule<'a> {
    at: Stamp,
    action: Action,
    element: &'a Element,
}

/// Rules that are not taken, and why. §6.1.
struct Refusal<'a> {
    condition: StanzaCondition,
    kind: &'static str,
    rules: Vec<&'a Element>,
}

/// What the sender asked for; an answer of a server, which has a status, asks for nothing. §4.1.
fn request(message: &Stanza) -> Option<Element> {
    if matches!(message.kind, StanzaType::Message(MessageType::Error)) {
        return None;
    }
    let amp = message.payload.child("amp", NS)?.to_element();
    amp.attribute("status").is_none().then_some(amp)
}

/// The rules in their order, if all are known and well written. §2.2.1. `seen`: the sender may know whether the
/// recipient is there; who may not hears nothing of a message that waits (§9).
fn rules(amp: &Element, seen: bool) -> Result<Vec<Rule<'_>>, Refusal<'_>> {
    let elements: Vec<&Element> = amp.elements().filter(|child| child.is("rule", NS)).collect();
    let refused = |condition, kind, which: &dyn Fn(&Element) -> bool| {
        let rules: Vec<&Element> = elements.iter().copied().filter(|rule| which(rule)).collect();
        if rules.is_empty() { Ok(()) } else { Err(Refusal { condition, kind, rules }) }
    };
    let action = |rule: &Element| rule.attribute("action").and_then(Action::of);
    let at = |rule: &Element| rule.attribute("value").and_then(Stamp::from_xmpp);
    let bad = StanzaCondition::BadRequest;
    refused(bad, "unsupported-conditions", &|rule| rule.attribute("condition") != Some(EXPIRE_AT))?;
    refused(bad, "unsupported-actions", &|rule| action(rule).is_none())?;
    let too_many = elements.len() > RULES_MAX;
    refused(StanzaCondition::NotAcceptable, "invalid-rules", &|rule| {
        too_many || at(rule).is_none() || (!seen && action(rule) != Some(Action::Drop))
    })?;
    Ok(elements.iter().filter_map(|rule| Some(Rule { at: at(rule)?, action: action(rule)?, element: rule })).collect())
}

/// When the message is not to be delivered any more; the earliest time that a rule says.
pub(super) fn expires(message: &Stanza) -> Option<Stamp> {
    let amp = request(message)?;
    let rules = rules(&amp, true).ok()?;
    rules.iter().filter(|rule| rule.action != Action::Notify).map(|rule| rule.at).min()
}

/// Rules that this server does not know are refused at once; the others are told onwards with the addresses that
/// belong to them (§4.1).
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(amp) = request(&passage.stanza) else { return Ok(Flow::Next) };
    if let Err(refusal) = rules(&amp, true) {
        return Ok(refuse(account, passage, &amp, &refusal, fx));
    }
    let from = passage.stanza.from.as_ref().map(Jid::as_str);
    let amp = amp.attr_opt("from", from).attr("to", passage.to.as_str());
    let payload = passage.stanza.payload.without(|child| child.is("amp", NS)).with([amp]);
    passage.stanza = Arc::new(Stanza { payload, ..Stanza::clone(&passage.stanza) });
    Ok(Flow::Next)
}

/// What comes too late already goes no further.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(amp) = request(&passage.stanza) else { return Ok(Flow::Next) };
    let seen = passage.stanza.from.as_ref().is_some_and(|from| may_know(account, from));
    let rules = match rules(&amp, seen) {
        Ok(rules) => rules,
        Err(refusal) => return Ok(refuse(account, passage, &amp, &refusal, fx)),
    };
    let stanza = passage.stanza.clone();
    if apply(account, &stanza, &amp, &rules, false, &passage.ticket, fx) {
        fx.push(Effect::Count("messages_expired"));
        return Ok(Flow::Done);
    }
    Ok(Flow::Next)
}

fn may_know(account: &Account, sender: &Jid) -> bool {
    sender.same_bare(&account.jid) || view(account, sender, Exit::Resources).shows()
}

/// A message that waited is about to be delivered: is it too late for that? Whoever wanted to be told is told, if he may
/// still know whether the recipient is there.
pub(crate) fn overdue(account: &mut Account, message: &Stanza, fx: &mut Effects) -> bool {
    let Some(amp) = request(message) else { return false };
    let Ok(rules) = rules(&amp, true) else { return false };
    apply(account, message, &amp, &rules, true, &Ticket::default(), fx)
}

/// The rules one after the other, until one that is met keeps the message from its recipient. §2.2.3.
fn apply(
    account: &mut Account,
    message: &Stanza,
    amp: &Element,
    rules: &[Rule<'_>],
    waited: bool,
    ticket: &Ticket,
    fx: &mut Effects,
) -> bool {
    let now = account.now.utc;
    for rule in rules.iter().filter(|rule| rule.at <= now) {
        if rule.action != Action::Drop {
            tell(account, message, amp, rule, waited, ticket, fx);
        }
        if rule.action != Action::Notify {
            return true;
        }
    }
    false
}

/// The event, to the sender. §2.2.5, examples 7 to 9.
fn tell(
    account: &mut Account,
    message: &Stanza,
    amp: &Element,
    rule: &Rule<'_>,
    waited: bool,
    ticket: &Ticket,
    fx: &mut Effects,
) {
    let Some(from) = message.from.as_ref().filter(|from| may_know(account, from)) else { return };
    let event = event(message, amp, rule, from, waited, account.policy.domain.clone());
    send(account, event, ticket, fx);
}

/// Where the message waited, what is no error goes to the bare JID: the client that sent it may be gone for long.
fn event(message: &Stanza, amp: &Element, rule: &Rule<'_>, from: &Jid, waited: bool, domain: BareJid) -> Stanza {
    let to = amp.attribute("to").or(message.to.as_ref().map(Jid::as_str));
    let event = Element::new("amp", NS)
        .attr("status", rule.action.name())
        .attr("from", from.as_str())
        .attr_opt("to", to)
        .child(rule.element.clone());
    if rule.action == Action::Error {
        let failed = Element::new("failed-rules", ERRORS).child(rule.element.clone());
        let error = error(ErrorType::Modify, &StanzaCondition::UndefinedCondition, failed);
        return reply(message, MessageType::Error, from.clone(), [event, error], domain);
    }
    let to = if waited { from.to_bare().into() } else { from.clone() };
    let passing = Element::new("no-permanent-store", ns::HINTS);
    reply(message, MessageType::Normal, to, [event, passing], domain)
}

/// What the sender is told of a message that waited for another domain until its time was over. It may know that: it
/// says nothing of whether the recipient is there.
pub fn over_in_transit(message: &Stanza, now: Stamp) -> Vec<Stanza> {
    let (Some(amp), Some(from)) = (request(message), message.from.as_ref()) else { return Vec::new() };
    let (Ok(rules), Ok(domain)) = (rules(&amp, true), BareJid::of_domain(from.domain())) else { return Vec::new() };
    let mut events = Vec::new();
    for rule in rules.iter().filter(|rule| rule.at <= now) {
        if rule.action != Action::Drop {
            events.push(event(message, &amp, rule, from, true, domain.clone()));
        }
        if rule.action != Action::Notify {
            break;
        }
    }
    events
}

/// Example 17 and the like.
fn refuse(account: &mut Account, passage: &Passage, amp: &Element, refusal: &Refusal<'_>, fx: &mut Effects) -> Flow {
    let copies = || refusal.rules.iter().copied().cloned();
    let why = Element::new(refusal.kind, NS).children_from(copies());
    let error = error(ErrorType::Modify, &refusal.condition, why);
    if let Some(to) = passage.stanza.from.clone() {
        let event = Element::new("amp", NS).attr("status", "error").children_from(amp.elements().cloned());
        let domain = account.policy.domain.clone();
        let answer = reply(&passage.stanza, MessageType::Error, to, [event, error], domain);
        send(account, answer, &passage.ticket, fx);
    }
    Flow::Done
}

fn error(kind: ErrorType, condition: &StanzaCondition, application: Element) -> Element {
    StanzaError::from(*condition).with_type(kind).to_element().child(application)
}

/// From the server, as the examples have it.
fn reply(message: &Stanza, kind: MessageType, to: Jid, children: [Element; 2], domain: BareJid) -> Stanza {
    let stanza = Stanza::message(kind).with_from(domain).with_to(to);
    let stanza = match message.id.as_deref() {
        Some(id) => stanza.with_id(id),
        None => stanza,
    };
    stanza.with_children(children)
}

fn send(account: &mut Account, stanza: Stanza, ticket: &Ticket, fx: &mut Effects) {
    let Some(to) = stanza.to.clone() else { return };
    let stanza = Arc::new(stanza);
    match account.sessions.iter().find(|session| *session.jid == to).map(|session| session.id) {
        Some(id) => {
            let delivery = Delivery { stanza, to: None, more: Additions::default(), position: None };
            session::deliver(account, id, delivery, fx);
        }
        None => fx.push(Effect::Tell { to, stanza, ingress: OWN, ticket: ticket.clone() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, START, Scene, account_with, contact};
    use store::AccountRecord;

    const PAST: &str = "2025-12-31T23:59:59Z";
    const SOON: &str = "2026-01-01T00:01:00Z";

    /// Romeo sees juliet's presence, others do not.
    fn juliet() -> Scene {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", stored)
    }

    fn rule(action: &str, value: &str) -> String {
        format!("<rule condition='expire-at' action='{action}' value='{value}'/>")
    }

    fn message(from: &str, to: &str, rules: &str) -> String {
        format!(
            "<message type='chat' id='m1' from='{from}' to='{to}'><body>hi</body><amp xmlns='{NS}'>{rules}</amp></message>"
        )
    }

    fn receives(juliet: &mut Scene, from: &str, rules: &str) -> Fx {
        juliet.receive(&message(from, "juliet@capulet.example", rules))
    }

    const ROMEO: &str = "romeo@montague.example/x";

    // §3.4.
    #[test]
    fn a_message_that_comes_too_late_is_dropped_and_who_wants_to_be_told_is_told() {
        for (action, kind, told) in [
            ("drop", "", None),
            ("alert", "", Some("<amp xmlns='http://jabber.org/protocol/amp' status='alert'")),
            ("error", "type='error'", Some("<failed-rules xmlns='http://jabber.org/protocol/amp#errors'>")),
        ] {
            let mut juliet = juliet().with("home", 0);
            let fx = receives(&mut juliet, ROMEO, &rule(action, PAST));
            assert!(fx.appended().is_empty() && fx.written_to().is_empty(), "{action}: {:?}", fx.list);
            match (told, &fx.told()[..]) {
                (None, []) => {}
                (Some(text), [(to, xml)]) => {
                    assert_eq!(to, ROMEO);
                    assert!(xml.contains(text) && xml.contains(kind) && xml.contains("id='m1'"), "{xml}");
                    assert!(xml.contains("from='capulet.example'") && !xml.contains("<body"), "{xml}");
                }
                other => panic!("{action}: {other:?}"),
            }
            assert_eq!(receives(&mut juliet, ROMEO, &rule(action, SOON)).written_to(), ["home"]);
        }
    }

    // §3.4.4, §2.2.3.
    #[test]
    fn a_notification_does_not_keep_the_message_back_and_rules_count_in_their_order() {
        let mut juliet = juliet().with("home", 0);
        let fx = receives(&mut juliet, ROMEO, &rule("notify", PAST));
        assert_eq!(fx.written_to(), ["home"]);
        assert!(fx.told()[0].1.contains("status='notify'"), "{:?}", fx.told());
        let both = format!("{}{}{}", rule("notify", PAST), rule("alert", PAST), rule("error", PAST));
        let told = receives(&mut juliet, ROMEO, &both).told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].1.contains("status='notify'") && told[1].1.contains("status='alert'"), "{told:?}");
    }

    // §2.2.1, §6.
    #[test]
    fn rules_that_are_not_known_come_back_to_who_wrote_them() {
        let other = "<rule condition='deliver' action='drop' value='stored'/>";
        for (rules, condition, kind) in [
            (other.to_owned(), "<bad-request", "<unsupported-conditions"),
            (rule("explode", SOON), "<bad-request", "<unsupported-actions"),
            (rule("drop", "soon"), "<not-acceptable", "<invalid-rules"),
            (rule("drop", SOON).repeat(RULES_MAX + 1), "<not-acceptable", "<invalid-rules"),
        ] {
            let sent = message("juliet@capulet.example/home", ROMEO, &rules);
            let fx = juliet().with("home", 0).sends("home", &sent);
            let error = fx.delivered("home").remove(0);
            assert!(error.contains(condition) && error.contains(kind) && error.contains("id='m1'"), "{error}");
            assert!(fx.told_to().is_empty() && fx.commits().is_empty(), "{:?}", fx.list);
            let fx = receives(&mut juliet(), ROMEO, &rules);
            let (to, error) = fx.told().remove(0);
            assert!(to == ROMEO && error.contains(condition) && error.contains(kind), "{error}");
            assert!(fx.commits().is_empty(), "{:?}", fx.list);
        }
    }

    // §4.1.
    #[test]
    fn rules_go_onwards_with_the_addresses_they_belong_to() {
        let mut juliet = juliet().with("home", 0);
        let told = juliet.sends("home", &message("juliet@capulet.example/home", ROMEO, &rule("drop", SOON))).told();
        assert!(told[0].1.contains(&format!("from='juliet@capulet.example/home' to='{ROMEO}'")), "{told:?}");
        assert!(told[0].1.contains("condition='expire-at'") && told[0].1.contains("<body>hi</body>"), "{told:?}");
    }

    // §9.
    #[test]
    fn a_stranger_may_have_a_message_dropped_and_learn_nothing() {
        let mut juliet = juliet();
        let stranger = "tybalt@capulet.example/x";
        for action in ["alert", "error", "notify"] {
            let told = receives(&mut juliet, stranger, &rule(action, SOON)).told();
            assert!(told[0].1.contains("<not-acceptable") && told[0].1.contains("<invalid-rules"), "{told:?}");
        }
        let fx = receives(&mut juliet, stranger, &rule("drop", SOON));
        assert_eq!(fx.appended()[0].expires, Some(START.plus_seconds(60)));
    }

    #[test]
    fn of_what_waited_for_another_domain_too_long_its_sender_hears_what_the_rules_say() {
        let sent = |rules: &str| crate::testing::stanza(&message("juliet@capulet.example/home", ROMEO, rules));
        let told = |rules: &str, now: Stamp| -> Vec<String> {
            let events = over_in_transit(&sent(rules), now);
            events.iter().map(|event| String::from_utf8_lossy(&xmpp::write::to_stored(event)).into_owned()).collect()
        };
        let late = START.plus_seconds(60);
        for (action, kind, to) in
            [("alert", "<amp ", "juliet@capulet.example"), ("error", "<error ", "juliet@capulet.example/home")]
        {
            let events = told(&rule(action, SOON), late);
            assert_eq!(events.len(), 1, "{events:?}");
            let addresses = ["from='capulet.example'".to_owned(), format!("to='{to}'"), "id='m1'".to_owned()];
            assert!(events[0].contains(kind) && addresses.iter().all(|part| events[0].contains(part)), "{events:?}");
            assert!(told(&rule(action, SOON), START).is_empty());
        }
        let both = format!("{}{}{}", rule("notify", PAST), rule("drop", PAST), rule("alert", PAST));
        assert_eq!(told(&both, late).len(), 1);
        assert!(told(&rule("drop", PAST), late).is_empty());
    }

    // §8.5 of RFC 6121: an answer is never answered.
    #[test]
    fn an_event_is_delivered_as_any_message() {
        let mut juliet = juliet().with("home", 0);
        let event = message("montague.example", "juliet@capulet.example/home", &rule("alert", PAST));
        let event = event.replace("<amp ", "<amp status='alert' ");
        assert_eq!(juliet.receive(&event).written_to(), ["home"]);
    }

    #[test]
    fn of_what_waited_too_long_the_sender_hears_when_it_would_have_been_delivered() {
        for (action, delivered) in [("drop", false), ("alert", false), ("error", false), ("notify", true)] {
            let mut juliet = juliet();
            let record = receives(&mut juliet, ROMEO, &rule(action, SOON)).appended().remove(0);
            let mut juliet = juliet.connected("home");
            juliet.now.utc = START.plus_seconds(61);
            juliet.sends("home", "<presence/>");
            let after = record.position - 1;
            let fx = juliet.item(crate::Item::Pending { after, records: Some(vec![record]) });
            assert_eq!(!fx.written_to().is_empty(), delivered, "{action}: {:?}", fx.list);
            let told = fx.told();
            let events: Vec<_> = told.iter().filter(|(_, xml)| xml.contains("<amp ")).collect();
            match (action, &events[..]) {
                ("drop", []) => {}
                ("error", [(to, _)]) => assert_eq!(to, ROMEO),
                (_, [(to, _)]) => assert_eq!(to, "romeo@montague.example"),
                other => panic!("{other:?}"),
            }
        }
    }
}
