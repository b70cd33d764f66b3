//! What two servers hold of one subscription, and making them agree. RFC 2779 §5.1.10.
//!
//! A client asks its own account about a contact. The account says what it holds, asks the contact's account for the same,
//! and shows both. Asked by a set, it also repairs what differs: whether somebody may watch is the presentity's to say,
//! whether he wants to is the watcher's. What a server that does not answer holds is not known, and is shown as such.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::{SessionId, Ticket};
use crate::leases::{Lease, NS};
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::modules::unknown;
use crate::presence;
use crate::pseudonyms;
use crate::subscription::{self, Act};
use crate::ways::Passage;
use std::sync::Arc;
use store::Subscription;
use xmpp::{BareJid, Element, IqType, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Questions that wait for another server; one more is refused.
const WAITING_MAX: usize = 32;
/// How long it has.
const ANSWER_MS: u64 = 10_000;

pub static MODULE: Module = Module {
    name: "leases",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "status", Who::Anyone, status), (IqType::Set, NS, "status", Who::Owner, status)],
    offered: |policy| policy.presence,
    ..Module::EMPTY
};

/// A question of an own client that waits for the contact's server.
#[derive(Debug)]
pub struct Waiting {
    id: Box<str>,
    whom: BareJid,
    session: SessionId,
    iq: Arc<Stanza>,
    until: u64,
}

fn status(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    let Some(session) = iq.session else { return told_to_another(account, iq) };
    let whom = iq.child.attribute("jid").ok_or(StanzaCondition::BadRequest)?;
    let whom = BareJid::parse(whom).map_err(|fault| xmpp::error::jid_malformed(&fault))?;
    if whom == account.jid {
        return Err(StanzaCondition::BadRequest.into());
    }
    if account.status_asked.len() >= WAITING_MAX {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait));
    }
    let from = account.session(session).map(|s| s.jid.clone()).ok_or(StanzaCondition::BadRequest)?;
    // The question would tell who asks.
    if account.pseudonyms.has(&whom) {
        let waiting = Waiting { id: "".into(), whom, session, iq: iq.stanza.clone(), until: 0 };
        conclude(account, waiting, None, fx);
        return Ok(Answer::Sent);
    }
    account.fetches_made += 1;
    let id = format!("status-{}-{}", account.epoch, account.fetches_made);
    let question =
        Stanza::iq(IqType::Get, &id).with_from(from).with_to(whom.clone()).with_children([Element::new("status", NS)]);
    let until = account.now.mono_ms + ANSWER_MS;
    fx.push(Effect::WakeAt { mono_ms: until });
    account.status_asked.push(Waiting { id: id.into(), whom: whom.clone(), session, iq: iq.stanza.clone(), until });
    tell(&whom, question, fx);
    Ok(Answer::Sent)
}

/// The other side of a subscription asks what is held of it here. Who has none hears what an account that does not exist
/// would say.
fn told_to_another(account: &Account, iq: &Iq<'_>) -> Handled {
    let asker = iq.from.to_bare();
    let held = account.roster.subscription(&asker);
    let is_something = held.to || held.from || held.pending_in || held.pending_out;
    if !is_something || account.blocks.blocks(iq.from) {
        return Err(unknown());
    }
    Ok(Answer::Result(Some(side("status", account, &asker))))
}

/// What this account holds of it.
fn side(name: &str, account: &Account, whom: &BareJid) -> Element {
    let held = account.roster.subscription(whom);
    let yes = |is: bool| is.then_some("true");
    let lease = |name: &str, lease: Option<&Lease>| {
        lease.map(|lease| {
            Element::new(name, NS).attr("seconds", lease.seconds.to_string()).attr("until", lease.expires.to_xmpp())
        })
    };
    Element::new(name, NS)
        .attr_opt("to", yes(held.to))
        .attr_opt("from", yes(held.from))
        .attr_opt("asked", yes(held.pending_out))
        .attr_opt("waits", yes(held.pending_in))
        .attr_opt("pseudonym", pseudonyms::of(account, whom).map(|alias| alias.to_string()))
        .children_from(lease("granted", account.leases.granted(whom)))
        .children_from(lease("held", account.leases.held(whom)))
}

/// An iq result or error for one of the own clients. Says whether it was the answer to such a question.
pub(crate) fn answered(account: &mut Account, passage: &Passage, fx: &mut Effects) -> bool {
    let stanza = &passage.stanza;
    let StanzaType::Iq(kind @ (IqType::Result | IqType::Error)) = stanza.kind else { return false };
    let (Some(id), Some(from)) = (&stanza.id, &stanza.from) else { return false };
    let Some(at) = account.status_asked.iter().position(|w| w.id == *id && *w.whom == *from) else { return false };
    let waiting = account.status_asked.remove(at);
    let theirs = stanza.payload.child("status", NS).filter(|_| kind == IqType::Result).map(|it| it.to_element());
    conclude(account, waiting, theirs, fx);
    true
}

/// Those that have waited too long are answered with what is held here. Gives when the next one will have.
pub(crate) fn end_overdue(account: &mut Account, fx: &mut Effects) -> Option<u64> {
    let now = account.now.mono_ms;
    while let Some(at) = account.status_asked.iter().position(|w| w.until <= now) {
        let waiting = account.status_asked.remove(at);
        conclude(account, waiting, None, fx);
    }
    account.status_asked.iter().map(|w| w.until).min()
}

fn conclude(account: &mut Account, waiting: Waiting, theirs: Option<Element>, fx: &mut Effects) {
    let repairs = waiting.iq.kind == StanzaType::Iq(IqType::Set);
    let mine = account.roster.subscription(&waiting.whom);
    let mut content =
        Element::new("status", NS).attr("jid", waiting.whom.as_str()).child(side("mine", account, &waiting.whom));
    match theirs {
        None => {
            content = content.child(Element::new("theirs", NS).attr("unknown", "true"));
            // A server that keeps to RFC 6121 §4.3.2 rule 1 answers a probe of somebody who has no subscription with
            // `unsubscribed`: that repairs the one thing that can be repaired so.
            if repairs && mine.to {
                let probe = Stanza::presence(xmpp::PresenceType::Probe)
                    .with_from(account.jid.clone())
                    .with_to(waiting.whom.clone());
                tell(&waiting.whom, probe, fx);
                content = content.child(Element::new("probed", NS));
            }
        }
        Some(theirs) => {
            let there = Subscription {
                to: theirs.attribute("to").is_some(),
                from: theirs.attribute("from").is_some(),
                pending_out: theirs.attribute("asked").is_some(),
                pending_in: theirs.attribute("waits").is_some(),
                approved: false,
            };
            let drifts = drifts(mine, there);
            let repaired = repairs && !drifts.is_empty();
            content = content.child(Element { name: "theirs".into(), ..theirs });
            for drift in &drifts {
                content = content.child(
                    Element::new("drift", NS).attr("is", drift.name()).attr_opt("repaired", repairs.then_some("true")),
                );
            }
            if repaired {
                drifts.into_iter().for_each(|drift| repair(account, &waiting.whom, drift, fx));
            }
        }
    }
    super::answer(account, &waiting.iq, Some(waiting.session), Ok(Some(content)), fx);
}

/// How the two can differ, and who is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drift {
    /// We hold that we may watch; they, who say that, do not.
    NotGranted,
    /// They granted what we wait for, and we did not hear.
    GrantUnheard,
    /// We wait, and they know of no request.
    RequestLost,
    /// They let us watch, or keep our request; we, who say that, do not want to.
    NotWanted,
    /// We let them watch, or keep their request; they do not want to.
    TheyDoNotWant,
    /// They hold that they may watch, or wait for it; we do not let them.
    TheyAreNotGranted,
}

impl Drift {
    fn name(self) -> &'static str {
        match self {
            Drift::NotGranted => "not-granted",
            Drift::GrantUnheard => "grant-unheard",
            Drift::RequestLost => "request-lost",
            Drift::NotWanted => "not-wanted",
            Drift::TheyDoNotWant => "they-do-not-want",
            Drift::TheyAreNotGranted => "they-are-not-granted",
        }
    }
}

fn drifts(mine: Subscription, theirs: Subscription) -> Vec<Drift> {
    let own = match (mine.to, mine.pending_out) {
        (true, _) if !theirs.from => Some(Drift::NotGranted),
        (false, true) if theirs.from => Some(Drift::GrantUnheard),
        (false, true) if !theirs.pending_in => Some(Drift::RequestLost),
        (false, false) if theirs.from || theirs.pending_in => Some(Drift::NotWanted),
        _ => None,
    };
    let other = match (mine.from || mine.pending_in, theirs.to || theirs.pending_out) {
        (true, false) => Some(Drift::TheyDoNotWant),
        (false, true) => Some(Drift::TheyAreNotGranted),
        (true, true) if theirs.to && !mine.from => Some(Drift::TheyAreNotGranted),
        _ => None,
    };
    own.into_iter().chain(other).collect()
}

/// Ours is made right by what their server would have told us; theirs by telling them.
fn repair(account: &mut Account, whom: &BareJid, drift: Drift, fx: &mut Effects) {
    let told_us = match drift {
        Drift::NotGranted => Some(Act::Unsubscribed),
        Drift::GrantUnheard => Some(Act::Subscribed),
        // A request that waits here is none any more either: they will ask anew.
        Drift::TheyDoNotWant | Drift::TheyAreNotGranted => Some(Act::Unsubscribe),
        Drift::RequestLost | Drift::NotWanted => None,
    };
    let tell_them = match drift {
        Drift::RequestLost => Some(Act::Subscribe),
        // They may keep a request of ours that we hold to be granted: it ends on both sides.
        Drift::NotWanted | Drift::NotGranted => Some(Act::Unsubscribe),
        Drift::TheyAreNotGranted => Some(Act::Unsubscribed),
        Drift::GrantUnheard | Drift::TheyDoNotWant => None,
    };
    if let Some(act) = told_us {
        let stanza = subscription::managing(whom, &account.jid, act, None);
        let mut passage = Passage::of(account, Arc::new(stanza));
        // It has no sender who could hear of an error.
        let _ = subscription::inbound(account, &mut passage, fx);
    }
    if let Some(act) = tell_them {
        tell(whom, subscription::managing(&account.jid, whom, act, None), fx);
    }
    fx.push(Effect::Count("subscriptions_repaired"));
}

fn tell(to: &BareJid, stanza: Stanza, fx: &mut Effects) {
    let (to, stanza) = (to.clone().into(), Arc::new(stanza));
    fx.push(Effect::Tell { to, stanza, ingress: presence::OWN, ticket: Ticket::default() });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, Scene, account_with, contact, jid};
    use proptest::prelude::*;
    use store::AccountRecord;

    const ROMEO: &str = "romeo@montague.example";

    fn juliet(subscription: &str) -> Scene {
        let roster = vec![contact(ROMEO, subscription)];
        let record = AccountRecord { created: START, roster, ..AccountRecord::default() };
        account_with("juliet@capulet.example", record).with("home", 0)
    }

    fn question(kind: &str) -> String {
        format!("<iq type='{kind}' id='s1'><status xmlns='urn:waft:leases:0' jid='{ROMEO}'/></iq>")
    }

    fn reply(told: &str, content: &str) -> String {
        let id = told.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id");
        format!("<iq type='result' id='{id}' from='{ROMEO}' to='juliet@capulet.example/home'>{content}</iq>")
    }

    #[test]
    fn a_question_is_answered_with_what_both_sides_hold() {
        let mut juliet = juliet("both");
        let fx = juliet.sends("home", &question("get"));
        assert!(fx.written_to().is_empty());
        let told = fx.told().remove(0).1;
        let fx = juliet.receive(&reply(&told, "<status xmlns='urn:waft:leases:0' to='true' from='true'/>"));
        let answer = fx.delivered("home").remove(0);
        assert!(answer.contains("<mine to='true' from='true'/><theirs to='true' from='true'/>"), "{answer}");
        assert!(!answer.contains("drift"));
    }

    #[test]
    fn a_watcher_hears_what_is_held_of_it_and_a_stranger_nothing() {
        let asks = |who: &str| format!("<iq type='get' id='s' from='{who}'><status xmlns='urn:waft:leases:0'/></iq>");
        let answer = juliet("from").receive(&asks("romeo@montague.example/x")).told().remove(0).1;
        assert!(answer.contains("<status xmlns='urn:waft:leases:0' from='true'/>"), "{answer}");
        let answer = juliet("from").receive(&asks("tybalt@montague.example/x")).told().remove(0).1;
        assert!(answer.contains("<service-unavailable"), "{answer}");
    }

    #[test]
    fn a_get_shows_what_has_drifted_and_a_set_repairs_it() {
        let lost = "<status xmlns='urn:waft:leases:0'/>";
        let mut scene = juliet("to");
        let told = scene.sends("home", &question("get")).told().remove(0).1;
        let answer = scene.receive(&reply(&told, lost)).delivered("home").pop().expect("an answer");
        assert!(answer.contains("<drift is='not-granted'/>"), "{answer}");
        assert!(scene.roster.subscription(&jid(ROMEO)).to);
        let told = scene.sends("home", &question("set")).told().remove(0).1;
        let answer = scene.receive(&reply(&told, lost)).delivered("home").pop().expect("an answer");
        assert!(answer.contains("<drift is='not-granted' repaired='true'/>"), "{answer}");
        assert!(!scene.roster.subscription(&jid(ROMEO)).to);
        // The watcher does not want what the presentity grants: that is told to it.
        let mut scene = juliet("none");
        let told = scene.sends("home", &question("set")).told().remove(0).1;
        let fx = scene.receive(&reply(&told, "<status xmlns='urn:waft:leases:0' from='true'/>"));
        assert!(fx.told()[0].1.contains("type='unsubscribe'"), "{fx:?}");
    }

    #[test]
    fn a_server_that_does_not_answer_is_not_known_and_is_probed() {
        let mut juliet = juliet("to");
        juliet.sends("home", &question("set"));
        let fx = juliet.after_ms(10_000);
        assert!(fx.told()[0].1.contains("type='probe'"), "{fx:?}");
        let answer = fx.delivered("home").remove(0);
        assert!(answer.contains("<theirs unknown='true'/><probed/>"), "{answer}");
        assert!(juliet.roster.subscription(&jid(ROMEO)).to, "nothing is known, nothing is changed");
    }

    #[test]
    fn more_questions_than_may_wait_are_refused() {
        let mut juliet = juliet("to");
        for _ in 0..WAITING_MAX {
            juliet.sends("home", &question("get"));
        }
        assert!(juliet.sends("home", &question("get")).delivered("home")[0].contains("<resource-constraint"));
    }

    fn any_state() -> impl Strategy<Value = Subscription> {
        (0..3u8, 0..3u8).prop_map(|(out, inn)| Subscription {
            to: out == 2,
            pending_out: out == 1,
            from: inn == 2,
            pending_in: inn == 1,
            approved: false,
        })
    }

    fn state_of(account: &Account, whom: &str) -> Subscription {
        Subscription { approved: false, ..account.roster.subscription(&jid(whom)) }
    }

    proptest! {
        /// Whatever the two sides held, after one repair and what it tells they agree: nobody watches who was not let, and
        /// nobody is let who does not want to.
        #[test]
        fn after_a_repair_both_sides_agree(mine in any_state(), theirs in any_state()) {
            let scene = |own: &str, other: &str, state: Subscription| {
                let mut item = contact(other, "none");
                item.subscription = state;
                let record = AccountRecord { created: START, roster: vec![item], ..AccountRecord::default() };
                account_with(own, record).with("home", 0)
            };
            let mut juliet = scene("juliet@capulet.example", ROMEO, mine);
            let mut romeo = scene(ROMEO, "juliet@capulet.example", theirs);
            let mut to_romeo: Vec<String> =
                juliet.sends("home", &question("set")).told().into_iter().map(|(_, xml)| xml).collect();
            for _ in 0..8 {
                let mut to_juliet = Vec::new();
                for xml in to_romeo.drain(..) {
                    to_juliet.extend(romeo.receive(&xml).told().into_iter().map(|(_, xml)| xml));
                }
                for xml in to_juliet {
                    to_romeo.extend(juliet.receive(&xml).told().into_iter().map(|(_, xml)| xml));
                }
            }
            let (mine, theirs) = (state_of(&juliet.account, ROMEO), state_of(&romeo.account, "juliet@capulet.example"));
            prop_assert!(theirs == Subscription::default() || drifts(mine, theirs).is_empty(), "{mine:?} {theirs:?}");
        }
    }
}
