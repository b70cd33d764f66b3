//! Subscriptions with a duration. RFC 3859 §3.4.1: the watcher chooses it, the presentity may make it shorter; 0 seconds are
//! a fetch. A subscription without a lease is one of the roster, without end.
//!
//! Both servers keep the lease, each by its own clock: the presentity's ends it with a reason; the watcher's ends it by
//! itself if it does not hear of the end, or if the presentity's server knows no leases.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::modules::publish;
use crate::presence;
use crate::roster;
use crate::session;
use crate::subscription::{self, Act};
use crate::watchers::{self, Event};
use std::sync::Arc;
use store::{Change, SETTINGS, Subscription};
use xmpp::{BareJid, Element, Stamp, Stanza, StanzaCondition, StanzaError};

pub const NS: &str = "urn:waft:leases:0";

/// Where leases are kept, in the space of settings.
pub const KEY: &str = "leases";
/// The shortest lease, in seconds, and the longest; what is longer is made so long.
pub const SECONDS_MIN: u32 = 60;
pub const SECONDS_MAX: u32 = 366 * 86_400;
/// Leases of one account, granted, held and asked for together.
pub const LEASES_MAX: usize = 2_000;
/// How long the watcher's server waits for the other to end a lease.
const GRACE_SECONDS: i64 = 30;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    pub who: BareJid,
    /// How long it lasts from each refresh on.
    pub seconds: u32,
    pub expires: Stamp,
}

#[derive(Debug, Default, PartialEq)]
pub struct Leases {
    /// To watchers of this account.
    granted: Vec<Lease>,
    /// Of presentities that this account watches.
    held: Vec<Lease>,
    /// What was asked for and not yet answered; `expires` says since when.
    asked: Vec<Lease>,
}

impl Leases {
    /// As they were stored; what cannot be read is left out.
    pub fn from_stored(value: Option<&[u8]>) -> Leases {
        let stored = value.and_then(|bytes| Element::parse(bytes, NS).ok());
        let read = |name: &str| -> Vec<Lease> {
            let all = stored.iter().flat_map(|all| all.elements()).filter(|it| it.is(name, NS));
            all.filter_map(|it| {
                Some(Lease {
                    who: BareJid::parse(it.attribute("jid")?).ok()?,
                    seconds: it.attribute("seconds")?.parse().ok()?,
                    expires: Stamp::from_xmpp(it.attribute("until")?)?,
                })
            })
            .collect()
        };
        Leases { granted: read("granted"), held: read("held"), asked: read("asked") }
    }

    fn kept(&self, account: &BareJid) -> Change {
        let lists = [("granted", &self.granted), ("held", &self.held), ("asked", &self.asked)];
        let all = lists.into_iter().flat_map(|(name, list)| {
            list.iter().map(move |lease| {
                Element::new(name, NS)
                    .attr("jid", lease.who.as_str())
                    .attr("seconds", lease.seconds.to_string())
                    .attr("until", lease.expires.to_xmpp())
            })
        });
        let value = Element::new("leases", NS).children_from(all).to_bytes("");
        let (account, space, key) = (account.clone(), SETTINGS.into(), KEY.into());
        if *self == Leases::default() {
            return Change::BlobDelete { account, space, key };
        }
        Change::BlobPut { account, space, key, value }
    }

    /// What a watcher has, if its subscription has an end.
    pub fn granted(&self, who: &BareJid) -> Option<&Lease> {
        self.granted.iter().find(|lease| lease.who == *who)
    }

    /// What the account has of a presentity.
    pub fn held(&self, who: &BareJid) -> Option<&Lease> {
        self.held.iter().find(|lease| lease.who == *who)
    }

    /// The nearest end, of either side.
    pub fn next_end(&self) -> Option<Stamp> {
        let held = self.held.iter().map(|lease| lease.expires.plus_seconds(GRACE_SECONDS));
        self.granted.iter().map(|lease| lease.expires).chain(held).min()
    }

    fn len(&self) -> usize {
        self.granted.len() + self.held.len() + self.asked.len()
    }
}

fn set(list: &mut Vec<Lease>, who: &BareJid, seconds: Option<u32>, now: Stamp) {
    list.retain(|lease| lease.who != *who);
    if let Some(seconds) = seconds {
        list.push(Lease { who: who.clone(), seconds, expires: now.plus_seconds(i64::from(seconds)) });
    }
}

/// How long the stanza wants the subscription to last; `None`: without end.
///
/// # Errors
/// `bad-request` for what is no number, `not-acceptable` for less than [`SECONDS_MIN`].
pub fn asked_in(stanza: &Stanza) -> Result<Option<u32>, StanzaError> {
    let Some(lease) = stanza.payload.child("lease", NS) else { return Ok(None) };
    let seconds = lease.attribute("seconds").and_then(|text| text.parse::<u32>().ok());
    match seconds {
        None => Err(StanzaError::from(StanzaCondition::BadRequest).with_text("a lease has seconds")),
        Some(seconds) if seconds < SECONDS_MIN => Err(StanzaError::from(StanzaCondition::NotAcceptable)
            .with_text(format!("at least {SECONDS_MIN} seconds"))
            .with_application("interval-too-brief", NS)),
        Some(seconds) => Ok(Some(seconds.min(SECONDS_MAX))),
    }
}

/// `<lease seconds='…' until='…'/>`, for the watcher.
fn element(lease: &Lease) -> Element {
    Element::new("lease", NS).attr("seconds", lease.seconds.to_string()).attr("until", lease.expires.to_xmpp())
}

/// A stanza with the lease that the server says, and no other.
pub fn with_lease(stanza: Stanza, lease: Option<&Lease>) -> Stanza {
    let payload = stanza.payload.without(|child| child.is("lease", NS)).with(lease.map(element));
    Stanza { payload, ..stanza }
}

/// The account's own client has done this; the state was `before`. Gives what must be stored, and, for "subscribed", the
/// lease that the contact is told.
///
/// # Errors
/// `resource-constraint` if there are too many leases.
pub fn own_act(
    account: &mut Account,
    contact: &BareJid,
    act: Act,
    before: Subscription,
    seconds: Option<u32>,
) -> Result<(Option<Change>, Option<Lease>), StanzaError> {
    let now = account.now.utc;
    if seconds.is_some() && account.leases.len() >= LEASES_MAX {
        return Err(StanzaError::from(StanzaCondition::ResourceConstraint).with_text("too many leases"));
    }
    let was = (account.leases.len(), account.leases.granted(contact).cloned(), account.leases.held(contact).cloned());
    let leases = &mut account.leases;
    match act {
        Act::Subscribe => set(&mut leases.asked, contact, seconds, now),
        Act::Unsubscribe => {
            set(&mut leases.asked, contact, None, now);
            set(&mut leases.held, contact, None, now);
        }
        // Of a subscription that is there: shorter, never longer than it was approved.
        Act::Subscribed if before.from => {
            if let Some(seconds) = seconds {
                let most = leases.granted(contact).map_or(SECONDS_MAX, |lease| lease.seconds);
                set(&mut leases.granted, contact, Some(seconds.min(most)), now);
            }
        }
        Act::Subscribed if before.pending_in => {
            let asked = account.roster.requests().iter().find(|request| request.contact == *contact);
            let asked = asked.and_then(|request| Stanza::parse(&request.stanza).ok());
            let asked = asked.and_then(|stanza| asked_in(&stanza).ok().flatten());
            let seconds = [asked, seconds].into_iter().flatten().min();
            set(&mut leases.granted, contact, seconds, now);
        }
        Act::Subscribed => {}
        Act::Unsubscribed => set(&mut leases.granted, contact, None, now),
    }
    let is = (account.leases.len(), account.leases.granted(contact).cloned(), account.leases.held(contact).cloned());
    let told = is.1.clone().filter(|_| act == Act::Subscribed);
    let changed = was != is || (act == Act::Subscribe && seconds.is_some());
    let change = changed.then(|| account.leases.kept(&account.jid));
    if changed {
        account.terms_due = Stamp::default();
    }
    Ok((change, told))
}

/// The contact is taken out of the roster, and all leases with it. Gives what must be stored.
pub fn part(account: &mut Account, contact: &BareJid) -> Option<Change> {
    let leases = &mut account.leases;
    let before = leases.len();
    for list in [&mut leases.granted, &mut leases.held, &mut leases.asked] {
        set(list, contact, None, account.now.utc);
    }
    (leases.len() != before).then(|| leases.kept(&account.jid))
}

/// The same of a contact's act. `reply`: what the server answers by itself.
pub fn contacts_act(
    account: &mut Account,
    contact: &BareJid,
    act: Act,
    before: Subscription,
    reply: Option<Act>,
    stanza: &Stanza,
) -> (Option<Change>, Option<Lease>) {
    let now = account.now.utc;
    let said = asked_in(stanza).ok().flatten();
    let room = account.leases.len() < LEASES_MAX;
    let was =
        (account.leases.granted(contact).cloned(), account.leases.held(contact).cloned(), account.leases.asked.len());
    let leases = &mut account.leases;
    match act {
        // It is refreshed: for as long as was approved, at most.
        Act::Subscribe if before.from => {
            if let Some(approved) = leases.granted(contact).map(|lease| lease.seconds) {
                set(&mut leases.granted, contact, Some(said.unwrap_or(approved).min(approved)), now);
            }
        }
        Act::Subscribe if reply == Some(Act::Subscribed) && room => set(&mut leases.granted, contact, said, now),
        Act::Subscribe => {}
        Act::Unsubscribe => set(&mut leases.granted, contact, None, now),
        Act::Subscribed if before.to || before.pending_out => {
            // A server that knows no leases says none: then what was asked for is kept here.
            let asked = leases.asked.iter().find(|lease| lease.who == *contact).map(|lease| lease.seconds);
            let seconds = said.or(asked);
            if before.pending_out || said.is_some() || asked.is_some() {
                set(&mut leases.held, contact, seconds, now);
                set(&mut leases.asked, contact, None, now);
            }
        }
        Act::Subscribed => {}
        Act::Unsubscribed => {
            set(&mut leases.held, contact, None, now);
            set(&mut leases.asked, contact, None, now);
        }
    }
    let is =
        (account.leases.granted(contact).cloned(), account.leases.held(contact).cloned(), account.leases.asked.len());
    let told = is.0.clone().filter(|_| reply == Some(Act::Subscribed));
    let changed = was != is;
    if changed {
        account.terms_due = Stamp::default();
    }
    (changed.then(|| account.leases.kept(&account.jid)), told)
}

/// Ends leases and publications that are over, and asks to be woken for the next end. Called with every step, before all else: an account that was
/// not in memory shows nobody what he may not see any more.
pub fn look(account: &mut Account, fx: &mut Effects) {
    if account.terms_due > account.now.utc {
        return;
    }
    let now = account.now.utc;
    if account.leases.next_end().is_some_and(|at| at <= now) && !account.removed {
        let over: Vec<BareJid> = ended(&account.leases.granted, now, 0);
        for watcher in over {
            end_granted(account, &watcher, fx);
        }
        let over: Vec<BareJid> = ended(&account.leases.held, now, GRACE_SECONDS);
        for presentity in over {
            end_held(account, &presentity, fx);
        }
    }
    publish::end_overdue(account, fx);
    let next = account.leases.next_end().into_iter().chain(account.publications.next_end()).min();
    account.terms_due = next.unwrap_or(Stamp(i64::MAX));
    if let Some(mono_ms) = due_at(account) {
        fx.push(Effect::WakeAt { mono_ms });
    }
}

/// When [`look`] has something to do again, monotonic milliseconds.
pub(crate) fn due_at(account: &Account) -> Option<u64> {
    let left = account.terms_due.0.checked_sub(account.now.utc.0).filter(|_| account.terms_due.0 != i64::MAX)?;
    Some(account.now.mono_ms + left.max(0) as u64 / 1_000 + 1)
}

fn ended(list: &[Lease], now: Stamp, grace: i64) -> Vec<BareJid> {
    list.iter().filter(|lease| lease.expires.plus_seconds(grace) <= now).map(|lease| lease.who.clone()).collect()
}

/// Why it ended, for the other side and the own clients.
fn over(stanza: Stanza) -> Stanza {
    stanza.with_children([Element::new("lease", NS).attr("seconds", "0").attr("reason", "timeout")])
}

/// A watcher's time is over: it sees nothing more, and is told why.
fn end_granted(account: &mut Account, watcher: &BareJid, fx: &mut Effects) {
    set(&mut account.leases.granted, watcher, None, account.now.utc);
    let before = account.roster.subscription(watcher);
    // There was nothing left to end.
    if !before.from {
        return fx.commit(vec![account.leases.kept(&account.jid)], None, &Default::default());
    }
    let state = Subscription { from: false, approved: false, ..before };
    let (mut changes, visible) = account.roster.subscribe(&account.jid, watcher, state);
    changes.push(account.leases.kept(&account.jid));
    fx.commit(changes, None, &Default::default());
    presence::hide_from(account, watcher, presence::OWN, &Default::default(), fx);
    let told = over(subscription::managing(&account.jid, watcher, Act::Unsubscribed, None));
    tell(watcher, told, fx);
    watchers::subscription(account, watcher, Event::Timeout, fx);
    if visible {
        roster::push(account, watcher, fx);
    }
}

/// The account's own time with a presentity is over, and nobody said so.
fn end_held(account: &mut Account, presentity: &BareJid, fx: &mut Effects) {
    set(&mut account.leases.held, presentity, None, account.now.utc);
    let before = account.roster.subscription(presentity);
    // There was nothing left to end; a request that waits is another one.
    if !before.to {
        return fx.commit(vec![account.leases.kept(&account.jid)], None, &Default::default());
    }
    let state = Subscription { to: false, pending_out: false, ..before };
    account.contacts.forget(presentity);
    let (mut changes, visible) = account.roster.subscribe(&account.jid, presentity, state);
    changes.push(account.leases.kept(&account.jid));
    fx.commit(changes, None, &Default::default());
    tell(presentity, over(subscription::managing(&account.jid, presentity, Act::Unsubscribe, None)), fx);
    let told = Arc::new(over(subscription::managing(presentity, &account.jid, Act::Unsubscribed, None)));
    session::deliver_where(account, |session| session.interested, &told, None, fx);
    if visible {
        roster::push(account, presentity, fx);
    }
}

fn tell(to: &BareJid, stanza: Stanza, fx: &mut Effects) {
    fx.push(Effect::Tell {
        to: to.clone().into(),
        stanza: Arc::new(stanza),
        ingress: presence::OWN,
        ticket: Default::default(),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, START, Scene, account_with, bare, contact, jid};
    use store::AccountRecord;

    const ROMEO: &str = "romeo@montague.example";

    fn juliet(roster: Vec<store::RosterItem>) -> Scene {
        let record = AccountRecord { created: START, roster, ..AccountRecord::default() };
        account_with("juliet@capulet.example", record)
            .with("home", 0)
            .having("home", |session| session.interested = true)
    }

    fn lease(seconds: u32) -> String {
        format!("<lease xmlns='urn:waft:leases:0' seconds='{seconds}'/>")
    }

    fn asks(scene: &mut Scene, seconds: u32) -> Fx {
        scene.receive(&format!("<presence type='subscribe' from='{ROMEO}'>{}</presence>", lease(seconds)))
    }

    /// What the account's store holds after these changes.
    fn settings(fx: &Fx) -> Vec<(Box<str>, Vec<u8>)> {
        let puts = fx.commits().into_iter().filter_map(|change| match change {
            Change::BlobPut { key, value, .. } => Some((key, value)),
            _ => None,
        });
        puts.collect()
    }

    #[test]
    fn the_presentity_grants_what_was_asked_for_and_its_server_ends_it_with_a_reason() {
        let mut juliet = juliet(vec![]);
        asks(&mut juliet, 600);
        let fx = juliet.sends("home", &format!("<presence type='subscribed' to='{ROMEO}'/>"));
        let told = fx.told();
        assert!(told[0].1.contains("seconds='600' until='2026-01-01T00:10:00Z'"), "{told:?}");
        assert!(told.iter().any(|(_, xml)| !xml.contains("type=")), "and sees who is there");
        assert!(juliet.after_ms(599_000).told().is_empty());
        let fx = juliet.after_ms(1_000);
        let told = fx.told();
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].1.contains("type='unavailable'"), "{told:?}");
        assert!(told[1].1.contains("type='unsubscribed'") && told[1].1.contains("reason='timeout'"), "{told:?}");
        assert!(!juliet.roster.subscription(&jid(ROMEO)).from);
        assert!(fx.delivered("home")[0].contains("<item jid='romeo@montague.example' subscription='none'"), "{fx:?}");
        let changed = juliet.sends("home", "<presence><show>away</show></presence>").told();
        assert!(changed.is_empty(), "nothing more: {changed:?}");
    }

    #[test]
    fn the_presentity_makes_it_shorter_and_never_longer() {
        for (said, granted) in [(60, 60), (6_000, 600)] {
            let mut juliet = juliet(vec![]);
            asks(&mut juliet, 600);
            let xml = format!("<presence type='subscribed' to='{ROMEO}'>{}</presence>", lease(said));
            let told = juliet.sends("home", &xml).told();
            assert!(told[0].1.contains(&format!("seconds='{granted}'")), "{told:?}");
            assert_eq!(told[0].1.matches("<lease").count(), 1);
        }
        // One that runs, too; also of a subscription that had no end.
        let mut juliet = juliet(vec![contact(ROMEO, "from")]);
        let xml = format!("<presence type='subscribed' to='{ROMEO}'>{}</presence>", lease(90));
        let told = juliet.sends("home", &xml).told();
        assert!(told.len() == 1 && told[0].1.contains("seconds='90'"), "{told:?}");
        juliet.after_ms(90_001);
        assert!(!juliet.roster.subscription(&jid(ROMEO)).from);
    }

    #[test]
    fn the_watcher_refreshes_it_for_as_long_as_was_approved() {
        let mut juliet = juliet(vec![]);
        asks(&mut juliet, 600);
        juliet.sends("home", &format!("<presence type='subscribed' to='{ROMEO}'/>"));
        juliet.after_ms(500_000);
        // Longer, or without end: that was not approved.
        let told = asks(&mut juliet, 6_000).told();
        assert!(told[0].1.contains("type='subscribed'") && told[0].1.contains("seconds='600'"), "{told:?}");
        juliet.after_ms(500_000);
        let told = juliet.receive(&format!("<presence type='subscribe' from='{ROMEO}'/>")).told();
        assert!(told[0].1.contains("seconds='600'"), "{told:?}");
        juliet.after_ms(599_000);
        assert!(juliet.roster.subscription(&jid(ROMEO)).from);
        juliet.after_ms(1_000);
        assert!(!juliet.roster.subscription(&jid(ROMEO)).from);
    }

    #[test]
    fn a_lease_outlives_a_restart_and_one_that_is_over_meanwhile_shows_nothing() {
        let mut juliet = juliet(vec![]);
        asks(&mut juliet, 600);
        let fx = juliet.sends("home", &format!("<presence type='subscribed' to='{ROMEO}'/>"));
        let stored = || AccountRecord {
            created: START,
            roster: vec![contact(ROMEO, "from")],
            settings: settings(&fx),
            ..AccountRecord::default()
        };
        let fetch = format!("<iq type='get' id='f' from='{ROMEO}/x'><fetch xmlns='urn:waft:fetch:0'/></iq>");
        let mut again = account_with("juliet@capulet.example", stored());
        again.after_ms(599_000);
        assert!(again.receive(&fetch).told()[0].1.contains("type='result'"));
        let mut later = account_with("juliet@capulet.example", stored());
        later.now.utc = START.plus_seconds(601);
        let told = later.receive(&fetch).told();
        assert!(told[0].1.contains("type='unsubscribed'") && told[1].1.contains("<service-unavailable"), "{told:?}");
    }

    #[test]
    fn the_watchers_server_holds_what_it_was_granted_and_ends_it_by_itself() {
        let mut juliet = juliet(vec![]);
        let xml = format!("<presence type='subscribe' to='{ROMEO}'>{}</presence>", lease(600));
        assert!(juliet.sends("home", &xml).told()[0].1.contains("seconds='600'"));
        let granted = "<lease xmlns='urn:waft:leases:0' seconds='300' until='2026-01-01T00:05:00Z'/>";
        let fx = juliet.receive(&format!("<presence type='subscribed' from='{ROMEO}'>{granted}</presence>"));
        assert!(fx.delivered("home")[0].contains("seconds='300'"), "the client learns it");
        assert!(juliet.roster.subscription(&jid(ROMEO)).to);
        // The presentity's server has some time to say so itself.
        juliet.after_ms(329_000);
        assert!(juliet.roster.subscription(&jid(ROMEO)).to);
        let fx = juliet.after_ms(1_000);
        assert!(!juliet.roster.subscription(&jid(ROMEO)).to);
        assert!(fx.told()[0].1.contains("type='unsubscribe'"), "{fx:?}");
        assert!(fx.delivered("home")[0].contains("reason='timeout'"), "{fx:?}");
    }

    #[test]
    fn where_the_other_server_knows_no_leases_the_watchers_own_ends_it() {
        let mut juliet = juliet(vec![]);
        juliet.sends("home", &format!("<presence type='subscribe' to='{ROMEO}'>{}</presence>", lease(600)));
        juliet.receive(&format!("<presence type='subscribed' from='{ROMEO}'/>"));
        assert_eq!(juliet.leases.held(&bare(ROMEO)).map(|lease| lease.seconds), Some(600));
        let told = juliet.after_ms(630_000).told();
        assert!(told[0].1.contains("type='unsubscribe'"), "{told:?}");
    }

    #[test]
    fn a_lease_that_is_none_or_too_short_is_refused() {
        for (text, condition) in [("30", "interval-too-brief"), ("", "bad-request"), ("soon", "bad-request")] {
            let mut juliet = juliet(vec![]);
            let xml =
                format!("<presence type='subscribe' to='{ROMEO}'><lease xmlns='{NS}' seconds='{text}'/></presence>");
            let fx = juliet.sends("home", &xml);
            assert!(fx.delivered("home")[0].contains(condition) && fx.told().is_empty(), "{fx:?}");
        }
    }

    #[test]
    fn a_subscription_of_the_roster_has_no_end() {
        let mut juliet = juliet(vec![contact(ROMEO, "both")]);
        juliet.receive(&format!("<presence type='subscribe' from='{ROMEO}'/>"));
        juliet.after_ms(10 * 366 * 86_400_000);
        let state = juliet.roster.subscription(&jid(ROMEO));
        assert!(state.from && state.to && juliet.leases == Leases::default());
    }

    #[test]
    fn what_ends_a_subscription_ends_its_lease() {
        let mut juliet = juliet(vec![]);
        asks(&mut juliet, 600);
        juliet.sends("home", &format!("<presence type='subscribed' to='{ROMEO}'/>"));
        juliet.receive(&format!("<presence type='unsubscribe' from='{ROMEO}'/>"));
        assert_eq!(juliet.leases, Leases::default());
        assert!(juliet.after_ms(700_000).told().is_empty());
    }

    #[test]
    fn a_contact_that_is_removed_leaves_no_lease_that_could_end_a_later_request() {
        let mut juliet = juliet(vec![contact(ROMEO, "none")]);
        juliet.sends("home", &format!("<presence type='subscribe' to='{ROMEO}'>{}</presence>", lease(60)));
        juliet.receive(&format!("<presence type='subscribed' from='{ROMEO}'>{}</presence>", lease(60)));
        let item = format!("<item jid='{ROMEO}' subscription='remove'/>");
        juliet.sends("home", &format!("<iq type='set' id='r'><query xmlns='jabber:iq:roster'>{item}</query></iq>"));
        assert_eq!(juliet.leases, Leases::default());
        juliet.sends("home", &format!("<presence type='subscribe' to='{ROMEO}'/>"));
        juliet.after_ms(700_000);
        assert!(juliet.roster.subscription(&jid(ROMEO)).pending_out);
    }

    #[test]
    fn a_lease_without_its_subscription_ends_and_nothing_else_does() {
        let mut juliet = juliet(vec![contact(ROMEO, "none")]);
        set(&mut juliet.leases.held, &bare(ROMEO), Some(60), START);
        set(&mut juliet.leases.granted, &bare(ROMEO), Some(60), START);
        juliet.terms_due = Stamp::default();
        juliet.sends("home", &format!("<presence type='subscribe' to='{ROMEO}'/>"));
        let fx = juliet.after_ms(700_000);
        assert!(fx.told().is_empty(), "{fx:?}");
        assert!(juliet.roster.subscription(&jid(ROMEO)).pending_out && juliet.leases == Leases::default());
    }
}
