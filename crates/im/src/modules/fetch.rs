//! FETCH, RFC 2778 §2.2, RFC 2779 §3.2.1: what there is to know of somebody now, in one answer, and nothing afterwards.
//!
//! The presentity's server answers an iq to the bare JID with the document of all tuples that the watcher may see
//! ([`crate::tuples`]), whether anybody is there or not. No subscription is made, needed or ended by it. What a client
//! asks by `<presence type='probe'/>` becomes such an iq, and the answer becomes presence again.
//!
//! A server that has no FETCH answers with an error. If the asker is subscribed there, the watcher's own server then
//! probes (RFC 6121 §4.3), and makes the document of what comes until an iq sent behind the probe is answered, and a
//! moment longer.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::SessionId;
use crate::module::{Answer, Handled, Iq, Module, Who};
use crate::modules::{ping, unknown};
use crate::pidf::{self, Tuple};
use crate::presence;
use crate::session;
use crate::tuples;
use crate::view::Exit;
use crate::watchers;
use crate::ways::Passage;
use std::sync::Arc;
use xmpp::{BareJid, Element, IqType, Jid, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

pub const NS: &str = "urn:waft:fetch:0";

/// Fetches of an account's clients that wait for an answer; the oldest is forgotten first, and then gets none but what the
/// other server says.
const WAITING_MAX: usize = 64;
/// How long the answers to a probe are waited for.
const PROBE_MS: u64 = 10_000;
/// How long they may come behind the answer to what was asked after the probe.
const LATE_MS: u64 = 1_000;
/// How long an answer to a fetch under another name is waited for.
const ALIAS_MS: u64 = 60_000;
/// Presence stanzas that are taken as answers to one probe.
const ANSWERS_MAX: usize = 64;

pub static MODULE: Module = Module {
    name: "fetch",
    host_features: &[NS],
    account_features: &[NS],
    account_iq: &[(IqType::Get, NS, "fetch", Who::Viewer(Exit::Fetch), fetch)],
    offered: |policy| policy.presence,
    ..Module::EMPTY
};

/// A fetch of an own client that waits.
#[derive(Debug)]
pub struct Waiting {
    /// Of the iq under way.
    id: Box<str>,
    whom: BareJid,
    session: SessionId,
    asked: Asked,
    /// The name that the client asked under, if it is not its own, and until when it is kept (monotonic milliseconds).
    alias: Option<(BareJid, u64)>,
    /// Once the other server has no FETCH: what has come, and until when (monotonic milliseconds) it is waited for.
    probed: Option<(Vec<Stanza>, u64)>,
}

/// How the client asked, and is answered.
#[derive(Debug)]
enum Asked {
    Iq(Arc<Stanza>),
    /// With the id of the probe.
    Probe(Option<Box<str>>),
}

/// The document. Whoever sees nothing has been refused by [`Who::Viewer`].
///
/// # Errors
/// `resource-constraint`, to be tried again, for whoever asks too often.
fn fetch(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) -> Handled {
    if iq.session.is_none() {
        let (now, limits) = (account.now.mono_ms, &account.policy.limits);
        if !account.pollers.admits(iq.from, limits.fetches_per_minute, limits.fetches_per_domain_per_minute, now) {
            fx.push(Effect::Count("fetches_limited"));
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint)
                .with_type(xmpp::error::ErrorType::Wait)
                .with_text("too many fetches; subscribe instead")
                .over("fetches_per_minute"));
        }
        let pseudonym = iq.child.attribute("pseudonym") == Some("true");
        watchers::fetched(account, iq.from, pseudonym, fx);
    }
    let document = tuples::compose(account, iq.from).ok_or_else(unknown)?;
    fx.push(Effect::Count("fetches"));
    let version = version(&document);
    let is_known = iq.child.attribute("version") == Some(&version);
    let answer = Element::new("fetch", NS).attr("version", version);
    Ok(Answer::Result(Some(if is_known { answer.attr("unchanged", "true") } else { answer.child(document) })))
}

/// Says whether a copy that somebody has is still what he would be given. RFC 2779 §3.3. FNV-1a: the same in every build.
fn version(document: &Element) -> String {
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    format!("{:016x}", document.to_bytes("").iter().fold(0xcbf2_9ce4_8422_2325, hash))
}

/// An iq of the own client goes out: if it is a fetch, its answer is looked out for. Says whether it has gone already, under
/// another name.
///
/// # Errors
/// None that a client could bring about.
pub(crate) fn sent(account: &mut Account, passage: &Passage, fx: &mut Effects) -> Result<bool, StanzaError> {
    let (Some(session), Some(id)) = (passage.session, &passage.stanza.id) else { return Ok(false) };
    let is_fetch = passage.stanza.kind == StanzaType::Iq(IqType::Get) && passage.stanza.payload.has("fetch", NS);
    if is_fetch && passage.to.is_bare() && passage.to.local().is_some() {
        let asked = Asked::Iq(passage.stanza.clone());
        let mut waiting =
            Waiting { id: id.clone(), whom: passage.to.to_bare(), session, asked, alias: None, probed: None };
        let hides = wants_pseudonym(&passage.stanza) || account.pseudonyms.has(&waiting.whom);
        if hides && !passage.to.same_bare(&account.jid) {
            send_under_alias(account, &mut waiting, passage.stanza.as_ref().clone(), passage, fx)?;
            wait(account, waiting);
            return Ok(true);
        }
        wait(account, waiting);
    }
    Ok(false)
}

fn wants_pseudonym(iq: &Stanza) -> bool {
    let asked = iq.payload.child("fetch", NS).and_then(|it| it.attribute("pseudonym").map(|it| it.into_owned()));
    matches!(asked.as_deref(), Some("true" | "1"))
}

/// RFC 2779 §8.1.1 A3: the presentity hears a name that tells nobody who asks, and is the same each time this account asks
/// about it, so that it can be blocked. Answers to it come here.
fn send_under_alias(
    account: &mut Account,
    waiting: &mut Waiting,
    iq: Stanza,
    passage: &Passage,
    fx: &mut Effects,
) -> Result<(), StanzaError> {
    let alias = account.policy.aliases.of(&account.jid, &waiting.whom).ok_or(StanzaCondition::FeatureNotImplemented)?;
    let id = fresh_id(account);
    let from = alias.with_resource(&id).map_err(|_| StanzaError::from(StanzaCondition::InternalServerError))?;
    let known = iq.payload.child("fetch", NS).and_then(|it| it.attribute("version").map(|it| it.into_owned()));
    let said = Element::new("fetch", NS).attr("pseudonym", "true").attr_opt("version", known);
    let iq = Stanza { id: Some(id.as_str().into()), ..iq }.with_from(from).with_children([said]);
    waiting.id = id.into();
    fx.push(Effect::Count("fetches_under_alias"));
    fx.push(Effect::Tell {
        to: passage.to.clone(),
        stanza: Arc::new(iq),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
    let until = account.now.mono_ms + ALIAS_MS;
    fx.push(Effect::WakeAt { mono_ms: until });
    waiting.alias = Some((alias, until));
    Ok(())
}

/// A probe of the own client becomes a fetch. RFC 6121 §4.3.
pub(crate) fn probe(account: &mut Account, session: SessionId, passage: &Passage, fx: &mut Effects) {
    let Some(from) = account.session(session).map(|s| s.jid.clone()) else { return };
    let whom = passage.to.to_bare();
    let id = fresh_id(account);
    let iq =
        Stanza::iq(IqType::Get, &id).with_from(from).with_to(whom.clone()).with_children([Element::new("fetch", NS)]);
    let asked = Asked::Probe(passage.stanza.id.clone());
    let mut waiting = Waiting { id: id.into(), whom: whom.clone(), session, asked, alias: None, probed: None };
    if account.pseudonyms.has(&whom) {
        if send_under_alias(account, &mut waiting, iq, passage, fx).is_ok() {
            wait(account, waiting);
        }
        return;
    }
    wait(account, waiting);
    fx.push(Effect::Tell {
        to: whom.into(),
        stanza: Arc::new(iq),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
}

fn fresh_id(account: &mut Account) -> String {
    account.fetches_made += 1;
    format!("fetch-{}-{}", account.epoch, account.fetches_made)
}

fn wait(account: &mut Account, waiting: Waiting) {
    if account.fetches.len() >= WAITING_MAX {
        account.fetches.remove(0);
    }
    account.fetches.push(waiting);
}

/// An iq result or error for one of the own clients. Says whether it was the answer to a fetch that goes another way than
/// to the client as it is.
pub(crate) fn answered(account: &mut Account, passage: &Passage, fx: &mut Effects) -> bool {
    let stanza = &passage.stanza;
    let StanzaType::Iq(kind @ (IqType::Result | IqType::Error)) = stanza.kind else { return false };
    let (Some(id), Some(from)) = (&stanza.id, &stanza.from) else { return false };
    let session = account.sessions.iter().find(|s| *s.jid == passage.to).map(|s| s.id);
    let is_for = |w: &Waiting| match &w.alias {
        Some((alias, _)) => alias.same_bare(&passage.to),
        None => Some(w.session) == session,
    };
    let is_it = |w: &Waiting| w.id == *id && *w.whom == *from && is_for(w);
    let Some(at) = account.fetches.iter().position(is_it) else { return false };
    let mut waiting = account.fetches.remove(at);
    match (&waiting.asked, kind) {
        // What was sent behind the probe has come back.
        // COMPAT: ejabberd answers an iq before a probe that came before it; so a moment more.
        _ if waiting.probed.is_some() => {
            let late = account.now.mono_ms + LATE_MS;
            if let Some((_, until)) = &mut waiting.probed {
                *until = late.min(*until);
            }
            fx.push(Effect::WakeAt { mono_ms: late });
            wait(account, waiting);
        }
        // Whoever does not want to be known does not probe.
        (_, IqType::Error) if waiting.alias.is_none() && falls_back(account, &waiting.whom, stanza) => {
            begin_probe(account, &mut waiting, fx);
            wait(account, waiting);
        }
        (Asked::Iq(iq), _) if waiting.alias.is_some() => {
            let Some(jid) = account.session(waiting.session).map(|session| session.jid.clone()) else { return true };
            let answer = Stanza { id: iq.id.clone(), ..stanza.as_ref().clone() }.with_to(jid);
            let delivery = Delivery::plain(Arc::new(answer));
            session::deliver(account, waiting.session, delivery, fx);
        }
        (Asked::Iq(_), _) => return false,
        (Asked::Probe(probe_id), IqType::Result) => {
            let document = stanza.payload.child("fetch", NS).map(|it| it.to_element());
            let document = document.as_ref().and_then(|it| it.find("presence", pidf::NS));
            let told = presences(document, &waiting.whom);
            let probe_id = probe_id.clone();
            tell_presences(account, waiting.session, told, probe_id.as_deref(), fx);
        }
        (Asked::Probe(probe_id), _) => {
            let refused = refused(account, &waiting.whom, stanza);
            let probe_id = probe_id.clone();
            tell_presences(account, waiting.session, vec![refused], probe_id.as_deref(), fx);
        }
    }
    true
}

/// What a client that probed hears of a refusal: whom it has no subscription to shows it nothing, or is nobody at all, and
/// that is "unsubscribed" (RFC 6121 §4.3.2 rule 1, §8.5.1). A subscription that there is does not end so.
fn refused(account: &Account, whom: &BareJid, answer: &Stanza) -> Stanza {
    let error = answer.payload.child("error", ns::CLIENT).map(|it| it.to_element());
    let shows_nothing = error.as_ref().is_some_and(|error| {
        ["forbidden", "service-unavailable", "item-not-found"]
            .iter()
            .any(|name| error.find(name, ns::STANZA_ERRORS).is_some())
    });
    match shows_nothing && !account.roster.subscription(whom).to {
        true => Stanza::presence(PresenceType::Unsubscribed).with_from(whom.clone()),
        false => Stanza::presence(PresenceType::Error).with_from(whom.clone()).with_children(error),
    }
}

/// Has the other server no FETCH, and would it answer a probe? Only for a contact elsewhere that we are subscribed to:
/// a stock server ends what a probe of somebody else could hope for with `unsubscribed` (RFC 6121 §4.3.2 rule 1).
fn falls_back(account: &Account, whom: &BareJid, error: &Stanza) -> bool {
    let unknown = error.payload.child("error", ns::CLIENT).map(|it| it.to_element()).is_some_and(|error| {
        ["service-unavailable", "feature-not-implemented"]
            .iter()
            .any(|name| error.find(name, ns::STANZA_ERRORS).is_some())
    });
    unknown && whom.domain() != account.jid.domain() && account.roster.subscription(whom).to
}

/// From the bare JID, as RFC 6121 §4.3.1 has it; and behind it an iq, whose answer says that there is no more.
fn begin_probe(account: &mut Account, waiting: &mut Waiting, fx: &mut Effects) {
    let Some(from) = account.session(waiting.session).map(|s| s.jid.clone()) else { return };
    let id = fresh_id(account);
    let whom = &waiting.whom;
    let probe = Stanza::presence(PresenceType::Probe).with_from(account.jid.clone()).with_to(whom.clone());
    let behind = Stanza::iq(IqType::Get, &id)
        .with_from(from)
        .with_to(whom.clone())
        .with_children([Element::new("ping", ping::NS)]);
    for stanza in [probe, behind] {
        let (to, stanza) = (whom.clone().into(), Arc::new(stanza));
        fx.push(Effect::Tell { to, stanza, ingress: presence::OWN, ticket: Default::default() });
    }
    let until = account.now.mono_ms + PROBE_MS;
    fx.push(Effect::WakeAt { mono_ms: until });
    fx.push(Effect::Count("fetches_by_probe"));
    waiting.id = id.into();
    waiting.probed = Some((Vec::new(), until));
}

/// Presence came: it may be what a probe asked for.
pub(crate) fn heard(account: &mut Account, stanza: &Stanza) {
    let Some(from) = &stanza.from else { return };
    for waiting in &mut account.fetches {
        if let Some((came, _)) = &mut waiting.probed
            && from.same_bare(&waiting.whom)
            && came.len() < ANSWERS_MAX
        {
            came.push(stanza.clone());
        }
    }
}

/// The answers to probes that have taken too long. Gives when the next one will have.
pub(crate) fn end_overdue(account: &mut Account, fx: &mut Effects) -> Option<u64> {
    let now = account.now.mono_ms;
    while let Some(at) = account.fetches.iter().position(|w| w.probed.as_ref().is_some_and(|(_, until)| *until <= now))
    {
        let waiting = account.fetches.remove(at);
        conclude(account, waiting, fx);
    }
    while let Some(at) = account.fetches.iter().position(|w| w.alias.as_ref().is_some_and(|(_, until)| *until <= now)) {
        account.fetches.remove(at);
    }
    let until = |w: &Waiting| w.probed.as_ref().map(|(_, until)| *until).or(w.alias.as_ref().map(|(_, until)| *until));
    account.fetches.iter().filter_map(until).min()
}

/// What the probe brought is the answer.
fn conclude(account: &mut Account, waiting: Waiting, fx: &mut Effects) {
    let came = waiting.probed.map(|(came, _)| came).unwrap_or_default();
    match waiting.asked {
        Asked::Probe(id) => {
            let mut told = latest(&came);
            if told.is_empty() {
                told.push(Stanza::presence(PresenceType::Unavailable).with_from(waiting.whom.clone()));
            }
            tell_presences(account, waiting.session, told, id.as_deref(), fx);
        }
        Asked::Iq(iq) => {
            let tuples = latest(&came).into_iter().filter_map(|stanza| {
                let jid = stanza.from.clone()?;
                let mut tuple = Tuple::of(&stanza);
                let delay = stanza.payload.child("delay", ns::DELAY);
                tuple.at = delay.and_then(|it| xmpp::Stamp::from_xmpp(&it.attribute("stamp")?));
                tuple.id = pidf::opaque_id(0u8, jid.as_str());
                tuple.open = tuple.priority.is_some_and(|priority| priority >= 0);
                tuple.contact = Some(pidf::uri_of(&jid));
                Some(tuple.to_element())
            });
            let document = pidf::document(&waiting.whom, tuples.collect::<Vec<_>>());
            let content = Element::new("fetch", NS).attr("by", "probe").child(document);
            super::answer(account, &iq, Some(waiting.session), Ok(Some(content)), fx);
        }
    }
}

/// Of each resource the last word.
fn latest(came: &[Stanza]) -> Vec<Stanza> {
    let mut last: Vec<Stanza> = Vec::new();
    for stanza in came {
        last.retain(|old| old.from != stanza.from);
        last.push(stanza.clone());
    }
    let is_there = |stanza: &Stanza| stanza.kind == StanzaType::Presence(PresenceType::Available);
    if last.iter().any(is_there) {
        last.retain(is_there);
    }
    last
}

/// A document as the stanzas that a client knows.
fn presences(document: Option<&Element>, whom: &Jid) -> Vec<Stanza> {
    let tuples = document.into_iter().flat_map(|it| it.elements()).filter(|it| it.is("tuple", pidf::NS));
    let all: Vec<Stanza> = tuples.map(|tuple| Tuple::parse(tuple).to_presence(whom)).take(ANSWERS_MAX).collect();
    let mut told = latest(&all);
    if told.is_empty() {
        told.push(Stanza::presence(PresenceType::Unavailable).with_from(whom.clone()));
    }
    told
}

fn tell_presences(account: &mut Account, to: SessionId, told: Vec<Stanza>, id: Option<&str>, fx: &mut Effects) {
    let Some(jid) = account.session(to).map(|session| session.jid.clone()) else { return };
    for mut stanza in told {
        stanza.id = id.map(Into::into);
        let stanza = Arc::new(stanza.with_to(jid.clone()));
        session::deliver(account, to, Delivery::plain(stanza), fx);
    }
}

/// How often each watcher, and each domain, has fetched lately. RFC 2779 §8.1.4's pollers have their bound here.
#[derive(Debug, Default)]
pub struct Pollers {
    /// (whom it counts, fetches left, monotonic milliseconds when that was so).
    buckets: Vec<(Box<str>, f64, u64)>,
}

/// Buckets of one account; the one that was not used for longest goes first.
const BUCKETS_MAX: usize = 256;

impl Pollers {
    /// May this watcher fetch now? A bucket holds what a minute allows.
    fn admits(&mut self, who: &Jid, per_minute: u32, per_domain_per_minute: u32, now_ms: u64) -> bool {
        self.takes(who.domain(), per_domain_per_minute, now_ms) && self.takes(who.bare_str(), per_minute, now_ms)
    }

    fn takes(&mut self, name: &str, per_minute: u32, now_ms: u64) -> bool {
        let most = f64::from(per_minute);
        let at = match self.buckets.iter().position(|(whose, ..)| **whose == *name) {
            Some(at) => at,
            None => {
                if self.buckets.len() >= BUCKETS_MAX
                    && let Some(oldest) = (0..self.buckets.len()).min_by_key(|at| self.buckets[*at].2)
                {
                    self.buckets.swap_remove(oldest);
                }
                self.buckets.push((name.into(), most, now_ms));
                self.buckets.len() - 1
            }
        };
        let (_, left, since) = &mut self.buckets[at];
        *left = (*left + now_ms.saturating_sub(*since) as f64 * most / 60_000.0).min(most);
        *since = now_ms;
        if *left < 1.0 {
            return false;
        }
        *left -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, START, Scene, account_with, contact, jid};
    use store::AccountRecord;

    const FETCH: &str = "<fetch xmlns='urn:waft:fetch:0'/>";

    fn juliet() -> Scene {
        let roster = vec![contact("romeo@montague.example", "from"), contact("nurse@elsewhere.example", "to")];
        account_with("juliet@capulet.example", AccountRecord { created: START, roster, ..AccountRecord::default() })
    }

    fn asks(from: &str) -> String {
        format!("<iq type='get' id='f1' from='{from}' to='juliet@capulet.example'>{FETCH}</iq>")
    }

    fn only(fx: &Fx) -> String {
        let told = fx.told();
        assert_eq!(told.len(), 1, "{told:?}");
        told.into_iter().next().expect("one").1
    }

    /// The nurse's server answers the iq that was told last.
    fn error_of(told: &str, condition: &str) -> String {
        let id = told.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id");
        format!(
            "<iq type='error' id='{id}' from='nurse@elsewhere.example' to='juliet@capulet.example/home'>\
             <error type='cancel'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error></iq>"
        )
    }

    #[test]
    fn a_subscriber_is_answered_with_the_document_and_nothing_else_happens() {
        let mut juliet = juliet().with("home", 5);
        let fx = juliet.receive(&asks("romeo@montague.example/x"));
        let answer = only(&fx);
        assert!(answer.contains("type='result'") && answer.contains("<basic>open</basic>"), "{answer}");
        assert!(answer.contains("entity='pres:juliet@capulet.example'"));
        assert!(fx.commits().is_empty() && fx.written_to().is_empty());
    }

    // LIMITS.md §2 row 41.
    #[test]
    fn a_stranger_hears_what_an_account_that_does_not_exist_would_say() {
        let answer = only(&juliet().with("home", 5).receive(&asks("tybalt@capulet.example/x")));
        assert!(answer.contains("<service-unavailable") && !answer.contains("tuple"), "{answer}");
    }

    #[test]
    fn a_poller_that_asks_too_often_waits_and_others_do_not() {
        let mut juliet = juliet().policy(|policy| policy.limits.fetches_per_minute = 3);
        for _ in 0..3 {
            assert!(only(&juliet.receive(&asks("romeo@montague.example/x"))).contains("type='result'"));
        }
        let refused = only(&juliet.receive(&asks("romeo@montague.example/y")));
        assert!(refused.contains("<resource-constraint") && refused.contains("type='wait'"), "{refused}");
        juliet.after_ms(20_000);
        assert!(only(&juliet.receive(&asks("romeo@montague.example/x"))).contains("type='result'"));
    }

    #[test]
    fn a_domain_that_asks_too_often_waits() {
        let mut pollers = Pollers::default();
        for n in 0..5 {
            assert!(pollers.admits(&jid(&format!("u{n}@x.example")), 10, 5, 0));
        }
        assert!(!pollers.admits(&jid("u5@x.example"), 10, 5, 0));
        assert!(pollers.admits(&jid("u5@y.example"), 10, 5, 0));
        for n in 0..1_000 {
            pollers.admits(&jid(&format!("u{n}@d{n}.example")), 10, 5_000, 1);
        }
        assert_eq!(pollers.buckets.len(), BUCKETS_MAX);
    }

    #[test]
    fn a_probe_of_the_own_client_is_a_fetch_and_its_answer_presence() {
        let mut juliet = juliet().with("home", 0);
        let fx = juliet.sends("home", "<presence type='probe' id='p1' to='nurse@elsewhere.example'/>");
        let told = only(&fx);
        assert!(told.starts_with("<iq ") && told.contains(FETCH), "{told}");
        let id = told.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id");
        let tuple = |id: &str, basic: &str, more: &str| {
            format!("<tuple id='{id}'><status><basic>{basic}</basic></status>{more}</tuple>")
        };
        let fx = juliet.receive(&format!(
            "<iq type='result' id='{id}' from='nurse@elsewhere.example' to='juliet@capulet.example/home'>\
             <fetch xmlns='urn:waft:fetch:0'><presence xmlns='urn:ietf:params:xml:ns:pidf' entity='pres:nurse@elsewhere.example'>{}{}\
             </presence></fetch></iq>",
            tuple("a", "open", "<contact>xmpp:nurse@elsewhere.example/kitchen</contact><note>soup</note>"),
            tuple("b", "closed", "<contact>tel:+1</contact>"),
        ));
        let delivered = fx.delivered("home");
        assert_eq!(delivered.len(), 1, "{delivered:?}");
        assert!(delivered[0].contains("from='nurse@elsewhere.example/kitchen'") && delivered[0].contains("id='p1'"));
        assert!(delivered[0].contains("<status>soup</status>"), "{delivered:?}");
        assert!(juliet.fetches.is_empty());
    }

    #[test]
    fn a_probe_that_is_refused_is_answered_with_the_error_and_ends_no_subscription() {
        let mut juliet = juliet().with("home", 0);
        let told = only(&juliet.sends("home", "<presence type='probe' to='nurse@elsewhere.example'/>"));
        let fx = juliet.receive(&error_of(&told, "forbidden"));
        assert!(fx.delivered("home")[0].contains("<presence ") && fx.delivered("home")[0].contains("<forbidden"));
        assert!(juliet.roster.subscription(&jid("nurse@elsewhere.example")).to);
    }

    // RFC 6121 §4.3.2 rule 1, §8.5.1.
    #[test]
    fn a_probe_of_whom_one_is_not_subscribed_to_and_who_shows_nothing_is_answered_unsubscribed() {
        for condition in ["forbidden", "service-unavailable", "item-not-found"] {
            let mut juliet = juliet().with("home", 0);
            let told = only(&juliet.sends("home", "<presence type='probe' id='p1' to='nobody@elsewhere.example'/>"));
            let fx = juliet.receive(&error_of(&told, condition).replace("nurse@", "nobody@"));
            let answer = fx.delivered("home").remove(0);
            assert!(answer.contains("type='unsubscribed'") && answer.contains("id='p1'"), "{answer}");
        }
        // What may be different in a minute is an error.
        let mut juliet = juliet().with("home", 0);
        let told = only(&juliet.sends("home", "<presence type='probe' to='nobody@elsewhere.example'/>"));
        let fx = juliet.receive(&error_of(&told, "remote-server-timeout").replace("nurse@", "nobody@"));
        assert!(fx.delivered("home")[0].contains("type='error'"), "{fx:?}");
    }

    #[test]
    fn where_there_is_no_fetch_a_subscriber_probes_and_gets_the_document_of_what_came() {
        let mut juliet = juliet().with("home", 0);
        let told =
            only(&juliet.sends("home", &format!("<iq type='get' id='f1' to='nurse@elsewhere.example'>{FETCH}</iq>")));
        let fx = juliet.receive(&error_of(&told, "service-unavailable"));
        let told = fx.told();
        assert!(fx.written_to().is_empty(), "the error is not the answer");
        assert!(told[0].1.contains("type='probe'") && told[0].1.contains("from='juliet@capulet.example'"), "{told:?}");
        assert!(told[1].1.contains("from='juliet@capulet.example/home'"), "{told:?}");
        juliet.receive(
            "<presence from='nurse@elsewhere.example/kitchen'><show>dnd</show><priority>2</priority></presence>",
        );
        juliet.receive("<presence from='nurse@elsewhere.example/cellar'><priority>-1</priority></presence>");
        assert!(juliet.receive(&error_of(&told[1].1, "service-unavailable")).written_to().is_empty());
        let fx = juliet.after_ms(LATE_MS);
        let answer = fx.delivered("home").remove(0);
        assert!(
            answer.contains("type='result'") && answer.contains("id='f1'") && answer.contains("by='probe'"),
            "{answer}"
        );
        assert_eq!(answer.matches("<tuple").count(), 2, "{answer}");
        assert_eq!(answer.matches("<basic>open").count(), 1, "{answer}");
        assert!(answer.contains("kitchen") && answer.contains("dnd"));
    }

    #[test]
    fn a_server_that_answers_no_probe_leaves_an_empty_document_after_a_while() {
        let mut juliet = juliet().with("home", 0);
        let told =
            only(&juliet.sends("home", &format!("<iq type='get' id='f1' to='nurse@elsewhere.example'>{FETCH}</iq>")));
        juliet.receive(&error_of(&told, "feature-not-implemented"));
        assert!(juliet.after_ms(9_000).written_to().is_empty());
        let fx = juliet.after_ms(1_000);
        assert!(fx.delivered("home")[0].contains("by='probe'"), "{fx:?}");
    }

    // RFC 2779 §8.1.1 A3.
    // RFC 2779 §3.3.1, §3.3.2.
    #[test]
    fn whoever_says_which_version_he_has_is_told_that_it_is_still_the_one_or_given_the_new_one() {
        let mut juliet = juliet();
        let asks = |juliet: &mut Scene, version: &str| {
            let xml = format!(
                "<iq type='get' id='f' from='romeo@montague.example/x'><fetch xmlns='urn:waft:fetch:0'{version}/></iq>"
            );
            juliet.receive(&xml).told().remove(0).1
        };
        let first = asks(&mut juliet, "");
        let version = first.split("version='").nth(1).and_then(|rest| rest.split('\'').next()).expect("one").to_owned();
        let again = asks(&mut juliet, &format!(" version='{version}'"));
        assert!(again.contains("unchanged='true'") && !again.contains("<presence"), "{again}");
        juliet = juliet.with("balcony", 0);
        let changed = asks(&mut juliet, &format!(" version='{version}'"));
        assert!(changed.contains("balcony") && !changed.contains("unchanged"), "{changed}");
    }

    #[test]
    fn a_client_may_fetch_under_a_name_that_is_the_same_each_time_and_not_its_own() {
        let mut juliet = juliet().with("home", 0);
        let fetch = "<iq type='get' id='f1' to='nurse@elsewhere.example'><fetch xmlns='urn:waft:fetch:0' pseudonym='true'/></iq>";
        let mut names = Vec::new();
        for _ in 0..2 {
            let fx = juliet.sends("home", fetch);
            let told = only(&fx);
            assert!(!told.contains("juliet") && told.contains("pseudonym='true'"), "{told}");
            let from = told.split("from='").nth(1).and_then(|rest| rest.split('\'').next()).expect("a name").to_owned();
            let id = told.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).expect("an id").to_owned();
            let answer = format!("<iq type='result' id='{id}' from='nurse@elsewhere.example' to='{from}'>{FETCH}</iq>");
            let fx = juliet.receive(&answer);
            let delivered = fx.delivered("home").remove(0);
            assert!(
                delivered.contains("id='f1'") && delivered.contains("to='juliet@capulet.example/home'"),
                "{delivered}"
            );
            names.push(from.split('/').next().expect("bare").to_owned());
        }
        assert_eq!(names[0], names[1]);
        assert!(names[0].ends_with("@capulet.example"));
        let other = only(&juliet.sends("home", &fetch.replace("nurse@", "friar@")));
        assert!(!other.contains(&names[0]), "another presentity cannot compare them");
    }

    #[test]
    fn without_a_subscription_the_error_is_the_answer_and_nobody_is_probed() {
        let mut juliet = juliet().with("home", 0);
        let fetch = format!("<iq type='get' id='f1' to='friar@elsewhere.example'>{FETCH}</iq>");
        let told = only(&juliet.sends("home", &fetch));
        let fx = juliet.receive(&error_of(&told, "service-unavailable").replace("nurse@", "friar@"));
        assert!(fx.told().is_empty());
        assert!(fx.delivered("home")[0].contains("<service-unavailable"), "{fx:?}");
    }

    #[test]
    fn more_fetches_than_are_remembered_are_still_answered_by_the_other_server() {
        let mut juliet = juliet().with("home", 0);
        for n in 0..=WAITING_MAX {
            juliet.sends("home", &format!("<iq type='get' id='f{n}' to='nurse@elsewhere.example'>{FETCH}</iq>"));
        }
        assert_eq!(juliet.fetches.len(), WAITING_MAX);
        let fx = juliet.receive(&error_of(" id='f0'", "service-unavailable"));
        assert!(fx.delivered("home")[0].contains("<service-unavailable"));
    }
}
