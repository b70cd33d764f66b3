//! Subscriptions, RFC 6121 §3: what a transition ([`transitions`]) makes of an account.

mod transitions;

pub use transitions::{Act, Transition, of_contact, of_user, to_part};

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::SessionId;
use crate::roster::{self, Request};
use crate::rules::Handling;
use crate::watchers::{self, Event};
use crate::ways::{Flow, Passage};
use crate::{leases, modules, presence, pseudonyms, session, view};
use std::sync::Arc;
use store::Subscription;
use xmpp::write::{Additions, to_stored};
use xmpp::{BareJid, Jid, Stanza, StanzaCondition, StanzaError};

/// A request that weighs more is kept without its content. RFC 6121 §3.1.3, security warning.
const REQUEST_BYTES_MAX: usize = 8 * 1024;

/// subscribe, subscribed, unsubscribe, unsubscribed from the own client. RFC 6121 §3.
///
/// # Errors
/// `service-unavailable` if the host has no presence service; `not-allowed` for a request to oneself;
/// `resource-constraint` if the roster cannot take one more item.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(act) = Act::of(passage.stanza.kind) else { return Ok(Flow::Next) };
    if !account.policy.presence {
        return Err(StanzaCondition::ServiceUnavailable.into());
    }
    let contact = passage.to.to_bare();
    if contact == account.jid {
        // Everybody sees his own presence already (RFC 6121 §4.2.2); there is nothing to take back.
        return match act {
            Act::Subscribe | Act::Subscribed => Err(StanzaCondition::NotAllowed.into()),
            Act::Unsubscribe | Act::Unsubscribed => Ok(Flow::Done),
        };
    }
    let before = account.roster.subscription(&contact);
    let Transition { state, passes, .. } = of_user(before, act);
    let is_new = account.roster.get(&contact).is_none_or(|item| !item.listed);
    if is_new && (state.pending_out || state.from || state.approved) {
        let limits = &account.policy.limits;
        if account.roster.len() >= limits.roster_items_max {
            return Err(modules::roster::full("roster_items_max"));
        }
        if account.roster.exceeds(&contact, None, &[], limits.roster_bytes_max) {
            return Err(modules::roster::full("roster_bytes_max"));
        }
    }
    // With what ends a subscription it says why. RFC 3265 §3.2.4.
    let has_lease = matches!(act, Act::Subscribe | Act::Subscribed);
    let lease = if has_lease { leases::asked_in(&passage.stanza)? } else { None };
    let hides = pseudonyms::wanted(account, &contact, before, &passage.stanza)?;
    let (lease_change, lease) = leases::own_act(account, &contact, act, before, lease)?;
    // A subscription that is there is made shorter: the watcher hears of it.
    let passes = passes || (act == Act::Subscribed && lease_change.is_some());
    let (mut changes, visible) = account.roster.subscribe(&account.jid, &contact, state);
    changes.extend(lease_change);
    if hides {
        changes.push(pseudonyms::begin(account, &contact));
    }
    if !state.to {
        account.contacts.forget(&contact);
    }
    if !changes.is_empty() {
        fx.commit(changes, Some(&passage.stanza), &passage.ticket);
    }
    match act {
        Act::Subscribed if state.from && !before.from => {
            watchers::subscription(account, &contact, Event::Approved, fx);
        }
        Act::Unsubscribed if before.from || before.pending_in => {
            watchers::subscription(account, &contact, Event::Rejected, fx);
        }
        _ => {}
    }
    if before.from && !state.from {
        presence::hide_from(account, &contact, passage.ingress, &passage.ticket, fx);
    }
    let untold = act == Act::Unsubscribed && xmpp::planted::is(xmpp::planted::Bug::CancelUntold);
    if passes && !untold {
        // Subscriptions are of bare JIDs, on both sides. RFC 6121 §3, §3.1.2.
        let mut stanza = passage.stanza.as_ref().clone().with_from(account.jid.clone()).with_to(contact.clone());
        if act == Act::Subscribed {
            stanza = leases::with_lease(stanza, lease.as_ref());
        }
        fx.push(Effect::Tell {
            to: contact.clone().into(),
            stanza: Arc::new(stanza),
            ingress: passage.ingress,
            ticket: passage.ticket.clone(),
        });
    }
    if visible {
        roster::push(account, &contact, fx);
    }
    if !before.from && state.from {
        presence::show_to(account, &contact, passage.ingress, &passage.ticket, fx);
    }
    Ok(Flow::Done)
}

/// A contact whom the owner has welcomed beforehand, by an invitation: approved, and asked in turn. XEP-0379 §3.5.
pub fn introduce(account: &mut Account, contact: &BareJid, fx: &mut Effects) {
    if account.removed || account.blocks.blocks(contact) {
        return;
    }
    for act in [Act::Subscribed, Act::Subscribe] {
        let stanza = managing(&account.jid, contact, act, None);
        let mut passage = Passage::of(account, Arc::new(stanza));
        // What an owner could not do by hand (a full roster) an invitation does not do either.
        if let Err(error) = outbound(account, &mut passage, fx) {
            fx.push(Effect::Noted(format!("an invited contact was not taken: {}", error.condition.name())));
            return;
        }
    }
}

/// The same from a contact.
///
/// # Errors
/// `service-unavailable` for a request if the host has no presence service.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(act) = Act::of(passage.stanza.kind) else { return Ok(Flow::Next) };
    let Some(contact) = passage.stanza.from.as_ref().map(|from| from.to_bare()) else { return Ok(Flow::Done) };
    if contact == account.jid {
        return Ok(Flow::Done);
    }
    if !account.policy.presence {
        return if act == Act::Subscribe { Err(StanzaCondition::ServiceUnavailable.into()) } else { Ok(Flow::Done) };
    }
    // RFC 6121 §8.5.3.2.2; a request is taken as one to the bare JID all the same (§3.1.3).
    let is_to_nobody = !passage.to.is_bare() && account.sessions.iter().all(|session| *session.jid != passage.to);
    if is_to_nobody && act != Act::Subscribe {
        return Ok(Flow::Done);
    }
    let before = account.roster.subscription(&contact);
    let Transition { state, passes, reply } = by_rules(account, &contact, before, act);
    // Noted, and neither shown nor answered. XEP-0191 §3.3.
    let is_blocked = account.blocks.blocks(&contact);
    let is_request = state.pending_in && !before.pending_in;
    if is_request && account.roster.requests().len() >= account.policy.limits.requests_max {
        // Denied as by an account that does not exist, so that the asker does not wait for ever.
        fx.push(Effect::Limit("requests_max"));
        watchers::refused(account, &contact, fx);
        let told = managing(&account.jid, &contact, Act::Unsubscribed, passage.stanza.id.as_deref());
        tell(passage, &contact, told, fx);
        return Ok(Flow::Done);
    }
    let stanza = Arc::new(passage.stanza.as_ref().clone().with_from(contact.clone()).with_to(account.jid.clone()));
    let (lease_change, lease) = leases::contacts_act(account, &contact, act, before, reply, &stanza);
    let (mut changes, visible) = account.roster.subscribe(&account.jid, &contact, state);
    changes.extend(lease_change);
    if !state.to {
        account.contacts.forget(&contact);
    }
    if is_request {
        let request = Request { contact: contact.clone(), stanza: kept(&stanza), received: account.now.utc };
        changes.push(account.roster.keep_request(&account.jid, request));
    }
    if !changes.is_empty() {
        fx.commit(changes, Some(&passage.stanza), &passage.ticket);
    }
    match act {
        Act::Subscribe if reply == Some(Act::Subscribed) && !before.from => {
            watchers::subscription(account, &contact, Event::Approved, fx);
        }
        Act::Subscribe if reply == Some(Act::Unsubscribed) => watchers::refused(account, &contact, fx),
        Act::Subscribe if is_request => watchers::subscription(account, &contact, Event::Subscribe, fx),
        Act::Unsubscribe if before.from || before.pending_in => {
            watchers::subscription(account, &contact, Event::Timeout, fx);
        }
        _ => {}
    }
    if act == Act::Subscribe && stanza.payload.has("pseudonym", leases::NS) {
        watchers::is_pseudonym(account, &contact);
    }
    if before.from && !state.from && !is_blocked {
        presence::hide_from(account, &contact, passage.ingress, &passage.ticket, fx);
    }
    if let Some(reply) = reply {
        let told = managing(&account.jid, &contact, reply, passage.stanza.id.as_deref());
        tell(passage, &contact, leases::with_lease(told, lease.as_ref()), fx);
    }
    // That a subscription was refreshed, or made shorter, is news for whoever watches.
    let passes = passes || (act == Act::Subscribed && before.to && stanza.payload.has("lease", leases::NS));
    if passes && !is_blocked {
        match act {
            Act::Subscribe => session::deliver_where(account, |session| session.is_available(), &stanza, None, fx),
            // The client that shows a roster learns why it changes, before it does. RFC 6121 §3.1.6, §3.2.3, §3.3.3.
            _ => session::deliver_where(account, |session| session.interested, &stanza, None, fx),
        };
    }
    if visible {
        roster::push(account, &contact, fx);
    }
    if reply == Some(Act::Subscribed) {
        // Also to one who had the subscription already: that he asks again says that he lost what he knew.
        presence::show_to(account, &contact, passage.ingress, &passage.ticket, fx);
    }
    Ok(Flow::Done)
}

/// A request is answered as the access rules say, if they do; all else takes its course. RFC 5025 §3.2.1.
fn by_rules(account: &Account, contact: &BareJid, before: Subscription, act: Act) -> Transition {
    if act != Act::Subscribe || account.blocks.blocks(contact) {
        return of_contact(before, act);
    }
    let waits_no_more = Subscription { pending_in: false, ..before };
    match view::subscription_of(account, contact) {
        Handling::Confirm => of_contact(before, act),
        Handling::Block => {
            let state = Subscription { from: false, ..waits_no_more };
            Transition { state, passes: false, reply: Some(Act::Unsubscribed) }
        }
        // More subscribers than a roster can hold are asked about one by one.
        _ if !before.from && account.roster.len() >= account.policy.limits.roster_items_max => of_contact(before, act),
        // Whoever is politely blocked hears the same as whoever is let in.
        Handling::PoliteBlock | Handling::Allow => Transition {
            state: Subscription { from: true, ..waits_no_more },
            passes: false,
            reply: Some(Act::Subscribed),
        },
    }
}

/// The server's answer on the user's behalf, with the id of what it answers. RFC 6121 §3.1.3.
fn tell(passage: &Passage, contact: &BareJid, stanza: Stanza, fx: &mut Effects) {
    fx.push(Effect::Tell {
        to: contact.clone().into(),
        stanza: Arc::new(stanza),
        ingress: passage.ingress,
        ticket: passage.ticket.clone(),
    });
}

/// A subscription stanza of the account itself.
pub fn managing(from: &BareJid, to: &BareJid, act: Act, id: Option<&str>) -> Stanza {
    let stanza = Stanza::presence(act.presence_type()).with_from(from.clone()).with_to(to.clone());
    match id {
        Some(id) => stanza.with_id(id),
        None => stanza,
    }
}

/// The request as it is stored.
fn kept(stanza: &Stanza) -> Box<[u8]> {
    let bytes = to_stored(stanza);
    if bytes.len() <= REQUEST_BYTES_MAX {
        return bytes.into();
    }
    to_stored(&stanza.clone().with_children([])).into()
}

/// Gives a resource that became available all requests that still wait. RFC 6121 §3.1.3, rule 4.
pub fn deliver_requests(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let waiting: Vec<_> = account
        .roster
        .requests()
        .iter()
        .filter(|request| !account.blocks.blocks(&request.contact))
        .map(|request| (request.contact.clone(), request.stanza.clone(), request.received))
        .collect();
    for (contact, bytes, received) in waiting {
        // What cannot be read again is still a request.
        let stanza = Stanza::parse(&bytes).unwrap_or_else(|_| managing(&contact, &account.jid, Act::Subscribe, None));
        let more = Additions { delay: Some((Jid::from(account.jid.domain_jid()), received)), ..Additions::default() };
        session::deliver(account, id, Delivery { stanza: Arc::new(stanza), to: None, more, position: None }, fx);
    }
}

/// Asks again on other domains, where a request can have been lost on the way. RFC 6121 §3.1.2.
pub fn repeat_requests(account: &Account, fx: &mut Effects) {
    let unanswered = account
        .roster
        .all()
        .filter(|item| item.subscription.pending_out && item.jid.domain() != account.jid.domain())
        // Whoever is politely blocked would learn that somebody is here.
        .filter(|item| !account.blocks.blocks(&item.jid) && !view::as_subscriber(account, &item.jid).is_away());
    for item in unanswered {
        fx.push(Effect::Tell {
            to: item.jid.clone().into(),
            stanza: Arc::new(managing(&account.jid, &item.jid, Act::Subscribe, Some("again"))),
            ingress: presence::OWN,
            ticket: Default::default(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::roster::Roster;
    use crate::testing::{account, account_with, bare, contact};
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use store::{AccountRecord, Change, RosterItem};

    fn stored(roster: Vec<RosterItem>) -> AccountRecord {
        AccountRecord { roster_version: roster.len() as u64, roster, ..AccountRecord::default() }
    }

    #[test]
    fn a_request_is_told_from_bare_jid_to_bare_jid_after_the_commit_and_pushed() {
        let mut romeo = account("romeo@example.net").with("orchard", 0).having("orchard", |s| s.interested = true);
        let fx = romeo.sends("orchard", "<presence to='juliet@example.com/balcony' type='subscribe' id='xk3h1v69'/>");
        let (to, told) = fx.told().remove(0);
        assert_eq!(to, "juliet@example.com");
        assert!(
            told.contains("from='romeo@example.net'")
                && told.contains("to='juliet@example.com'")
                && told.contains("id='xk3h1v69'")
        );
        let push = fx.delivered("orchard").remove(0);
        assert!(push.contains("ask='subscribe'") && push.contains("subscription='none'"), "{push}");
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), |e| matches!(e, Effect::Tell { .. })));
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), |e| matches!(e, Effect::Edge { .. })));
    }

    #[test]
    fn a_request_to_oneself_is_not_allowed() {
        let mut romeo = account("romeo@example.net").with("orchard", 0);
        let fx = romeo.sends("orchard", "<presence to='romeo@example.net' type='subscribe'/>");
        assert!(fx.told().is_empty() && fx.commits().is_empty());
        assert!(fx.delivered("orchard")[0].contains("<not-allowed"));
    }

    #[test]
    fn a_request_is_delivered_to_available_resources_and_kept_without_an_item_in_the_roster() {
        let mut juliet = account("juliet@example.com").with("balcony", 0).connected("chamber");
        let fx = juliet
            .receive("<presence from='romeo@example.net/orchard' type='subscribe'><status>it is I</status></presence>");
        assert_eq!(fx.written_to(), ["balcony"]);
        assert!(fx.delivered("balcony")[0].contains("from='romeo@example.net'"));
        assert!(juliet.roster.is_empty() && juliet.roster.requests().len() == 1);
        assert!(
            fx.commits()
                .iter()
                .any(|c| matches!(c, Change::RequestPut { contact, .. } if *contact == bare("romeo@example.net")))
        );
        // The same again is neither delivered nor kept twice.
        let fx = juliet.receive("<presence from='romeo@example.net' type='subscribe'/>");
        assert!(fx.is_empty());
    }

    #[test]
    fn a_request_is_delivered_at_each_initial_presence_until_it_is_answered() {
        let mut juliet = account("juliet@example.com").connected("balcony").connected("chamber");
        juliet.receive(
            "<presence from='romeo@example.net' type='subscribe' id='once'><status>it is I</status></presence>",
        );
        let fx = juliet.sends("balcony", "<presence/>");
        let request =
            fx.delivered("balcony").into_iter().find(|s| s.contains("type='subscribe'")).expect("the request");
        assert!(request.contains("it is I") && request.contains("urn:xmpp:delay"), "{request}");
        let fx = juliet.sends("chamber", "<presence/>");
        assert!(fx.delivered("chamber").iter().any(|s| s.contains("type='subscribe'")));
        assert!(!fx.delivered("balcony").iter().any(|s| s.contains("type='subscribe'")));
        let fx = juliet.sends("balcony", "<presence type='unsubscribed' to='romeo@example.net'/>");
        assert!(fx.told()[0].1.contains("type='unsubscribed'"));
        assert!(fx.commits().iter().any(|c| matches!(c, Change::RequestDelete { .. })));
        juliet.sends("balcony", "<presence type='unavailable'/>");
        let fx = juliet.sends("balcony", "<presence/>");
        assert!(!fx.delivered("balcony").iter().any(|s| s.contains("type='subscribe'")));
    }

    #[test]
    fn an_approval_is_followed_by_a_push_and_the_presence_of_all_available_resources() {
        let mut juliet = account("juliet@example.com").with("balcony", 0).with("chamber", 1).connected("garden");
        juliet.account.sessions.iter_mut().for_each(|s| s.interested = true);
        juliet.receive("<presence from='romeo@example.net' type='subscribe'/>");
        let fx = juliet.sends("balcony", "<presence to='romeo@example.net' type='subscribed'/>");
        let told = fx.told();
        assert_eq!(told.len(), 3);
        assert!(told[0].1.contains("type='subscribed'") && told[0].1.contains("from='juliet@example.com'"));
        assert!(
            told[1].1.contains("from='juliet@example.com/balcony'")
                && told[2].1.contains("from='juliet@example.com/chamber'")
        );
        assert_eq!(fx.written_to(), ["balcony", "chamber", "garden"]);
        assert!(fx.delivered("garden")[0].contains("subscription='from'"));
        assert!(juliet.roster.requests().is_empty());
    }

    #[test]
    fn a_cancellation_sends_unavailable_before_unsubscribed_and_forgets_directed_presence() {
        let record = stored(vec![contact("romeo@example.net", "both")]);
        let mut juliet = account_with("juliet@example.com", record).with("balcony", 0).having("balcony", |s| {
            s.interested = true;
            s.directed.push(crate::testing::jid("romeo@example.net/orchard"));
        });
        let fx = juliet.sends("balcony", "<presence to='romeo@example.net' type='unsubscribed'/>");
        let told: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
        assert!(told[0].contains("type='unavailable'") && told[0].contains("/balcony'"), "{told:?}");
        assert!(told[1].contains("type='unsubscribed'") && told.len() == 2);
        assert!(fx.delivered("balcony")[0].contains("subscription='to'"));
        assert!(juliet.sessions[0].directed.is_empty());
    }

    #[test]
    fn an_approval_from_the_contact_reaches_interested_resources_before_the_push() {
        let mut romeo = account("romeo@example.net")
            .with("orchard", 0)
            .having("orchard", |s| s.interested = true)
            .with("street", 0);
        romeo.sends("orchard", "<presence to='juliet@example.com' type='subscribe'/>");
        let fx = romeo.receive("<presence from='juliet@example.com' type='subscribed'/>");
        assert_eq!(fx.written_to(), ["orchard", "orchard"]);
        let delivered = fx.delivered("orchard");
        assert!(delivered[0].contains("type='subscribed'"));
        assert!(delivered[1].contains("subscription='to'") && !delivered[1].contains("ask="));
        // One that was not asked for is ignored.
        assert!(romeo.receive("<presence from='paris@example.com' type='subscribed'/>").is_empty());
    }

    #[test]
    fn an_unsubscribe_from_a_watcher_is_answered_with_unavailable_of_each_resource() {
        let record = stored(vec![contact("romeo@example.net", "from")]);
        let mut juliet = account_with("juliet@example.com", record).with("balcony", 0).with("chamber", 0);
        let fx = juliet.receive("<presence from='romeo@example.net' type='unsubscribe' id='bye'/>");
        let told: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
        assert_eq!(told.iter().filter(|xml| xml.contains("type='unavailable'")).count(), 2);
        assert_eq!(told.len(), 2);
        assert_eq!(juliet.roster.subscription(&bare("romeo@example.net")), Subscription::default());
        assert_eq!(juliet.roster.len(), 1, "the item stays");
    }

    #[test]
    fn a_pre_approval_is_pushed_and_not_routed_and_answers_a_later_request() {
        let mut juliet = account("juliet@example.com").with("balcony", 0).having("balcony", |s| s.interested = true);
        let fx = juliet.sends("balcony", "<presence to='romeo@example.net' type='subscribed'/>");
        assert!(fx.told().is_empty());
        assert!(fx.delivered("balcony")[0].contains("approved='true'"));
        let fx = juliet.receive("<presence from='romeo@example.net' type='subscribe' id='pre'/>");
        let told: Vec<String> = fx.told().into_iter().map(|(_, xml)| xml).collect();
        assert!(told[0].contains("type='subscribed'") && told[0].contains("id='pre'"));
        assert!(told[1].contains("/balcony'"));
        assert_eq!(fx.delivered("balcony").len(), 1, "the push alone");
        assert!(fx.delivered("balcony")[0].contains("subscription='from'"));
    }

    #[test]
    fn a_request_of_one_who_is_subscribed_is_answered_at_once() {
        let record = stored(vec![contact("romeo@example.net", "from")]);
        let mut juliet = account_with("juliet@example.com", record).with("balcony", 0);
        let fx = juliet.receive("<presence from='romeo@example.net' type='subscribe'/>");
        assert!(fx.commits().is_empty() && fx.written_to().is_empty());
        assert!(fx.told()[0].1.contains("type='subscribed'"));
    }

    #[test]
    fn more_requests_than_the_limit_are_denied() {
        let mut juliet = account("juliet@example.com").policy(|p| p.limits.requests_max = 2).with("balcony", 0);
        for n in 0..2 {
            juliet.receive(&format!("<presence from='fan{n}@example.net' type='subscribe'/>"));
        }
        let fx = juliet.receive("<presence from='fan2@example.net' type='subscribe'/>");
        assert!(fx.commits().is_empty() && fx.written_to().is_empty());
        assert!(fx.told()[0].1.contains("type='unsubscribed'"));
        assert_eq!(juliet.roster.requests().len(), 2);
    }

    #[test]
    fn a_request_for_one_item_more_than_the_roster_takes_is_refused() {
        let mut romeo = account("romeo@example.net").policy(|p| p.limits.roster_items_max = 1).with("orchard", 0);
        romeo.sends("orchard", "<presence to='rosaline@example.com' type='subscribe'/>");
        let fx = romeo.sends("orchard", "<presence to='juliet@example.com' type='subscribe'/>");
        assert!(fx.told().is_empty() && fx.commits().is_empty());
        assert!(fx.delivered("orchard")[0].contains("<resource-constraint"));
    }

    #[test]
    fn a_request_that_weighs_too_much_is_kept_without_its_content() {
        let mut juliet = account("juliet@example.com");
        let status = "x".repeat(REQUEST_BYTES_MAX);
        juliet.receive(&format!(
            "<presence from='romeo@example.net' type='subscribe'><status>{status}</status></presence>"
        ));
        assert!(juliet.roster.requests()[0].stanza.len() < 200);
    }

    #[test]
    fn an_answer_to_a_resource_that_is_not_there_is_ignored_but_not_a_request() {
        let mut romeo = account("romeo@example.net").with("orchard", 0);
        romeo.sends("orchard", "<presence to='juliet@example.com' type='subscribe'/>");
        let fx = romeo.receive("<presence from='juliet@example.com' to='romeo@example.net/gone' type='subscribed'/>");
        assert!(fx.is_empty());
        let fx = romeo.receive("<presence from='juliet@example.com' to='romeo@example.net/gone' type='subscribe'/>");
        assert_eq!(fx.written_to(), ["orchard"]);
        assert!(fx.delivered("orchard")[0].contains("to='romeo@example.net'"));
    }

    #[test]
    fn an_unanswered_request_to_another_domain_is_repeated_when_the_user_comes_back() {
        let mut romeo = account("romeo@example.net").connected("orchard");
        romeo.sends("orchard", "<presence to='juliet@example.com' type='subscribe'/>");
        romeo.sends("orchard", "<presence to='rosaline@example.net' type='subscribe'/>");
        let fx = romeo.sends("orchard", "<presence/>");
        assert_eq!(fx.told_to(), ["juliet@example.com"]);
        assert!(fx.told()[0].1.contains("type='subscribe'"));
    }

    #[test]
    fn a_host_without_presence_service_refuses_requests() {
        let mut romeo = account("romeo@example.net").policy(|p| p.presence = false).connected("orchard");
        let fx = romeo.sends("orchard", "<presence to='juliet@example.com' type='subscribe'/>");
        assert!(fx.delivered("orchard")[0].contains("<service-unavailable"));
        assert!(fx.commits().is_empty());
    }

    /// What the store keeps of an account after these changes.
    fn store(record: &mut AccountRecord, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::RosterPut { item, version, .. } => {
                    record.roster.retain(|other| other.jid != item.jid);
                    record.roster.push(item);
                    record.roster_version = version;
                }
                Change::RosterDelete { contact, version, .. } => {
                    record.roster.retain(|other| other.jid != contact);
                    record.roster_version = version;
                }
                Change::RequestPut { contact, stanza, received, .. } => {
                    record.requests.retain(|(other, ..)| *other != contact);
                    record.requests.push((contact, stanza, received));
                }
                Change::RequestDelete { contact, .. } => record.requests.retain(|(other, ..)| *other != contact),
                _ => {}
            }
        }
    }

    /// What the user does: one of the four stanzas, a roster set or its removal.
    fn does() -> impl Strategy<Value = String> {
        let to_contact = |kind: &'static str| Just(format!("<presence to='%' type='{kind}'/>"));
        let set = |item: &'static str| {
            Just(format!("<iq type='set' id='1'><query xmlns='jabber:iq:roster'><item jid='%'{item}/></query></iq>"))
        };
        prop_oneof![
            to_contact("subscribe"),
            to_contact("subscribed"),
            to_contact("unsubscribe"),
            to_contact("unsubscribed"),
            set(" name='X'"),
            set(" subscription='remove'"),
        ]
    }

    proptest! {
        /// Appendix A on both sides: when nothing is under way, who is subscribed to whom is the same in both
        /// rosters; and what was committed is what is in memory.
        #[test]
        fn both_sides_agree_after_whatever_either_does(acts in prop::collection::vec((any::<bool>(), does()), 1..40)) {
            let names = ["romeo@example.net", "juliet@example.com"];
            let mut scenes = names.map(|name| account(name).with("r", 0).having("r", |s| s.interested = true));
            let mut records = [AccountRecord::default(), AccountRecord::default()];
            for (who, act) in acts {
                let actor = usize::from(who);
                let fx = scenes[actor].sends("r", &act.replace('%', names[1 - actor]));
                store(&mut records[actor], fx.commits());
                let mut under_way: VecDeque<(usize, String)> = fx.told().into_iter().map(|(_, xml)| (1 - actor, xml)).collect();
                while let Some((to, xml)) = under_way.pop_front() {
                    let fx = scenes[to].receive(&xml);
                    store(&mut records[to], fx.commits());
                    under_way.extend(fx.told().into_iter().map(|(_, xml)| (1 - to, xml)));
                }
                let [romeo, juliet] = [0, 1].map(|n| scenes[n].roster.subscription(&bare(names[1 - n])));
                prop_assert_eq!((romeo.to, romeo.from), (juliet.from, juliet.to), "{}", act);
                prop_assert_eq!((romeo.pending_out, romeo.pending_in), (juliet.pending_in, juliet.pending_out), "{}", act);
                for (scene, record) in scenes.iter().zip(&records) {
                    let stored = Roster::from_stored(record.roster_version, record.roster.clone(), record.requests.clone());
                    prop_assert!(stored.all().eq(scene.roster.all()), "{}", act);
                    prop_assert_eq!(stored.requests(), scene.roster.requests());
                    prop_assert_eq!((stored.version, stored.len()), (scene.roster.version, scene.roster.len()));
                }
            }
        }
    }

    // XEP-0379 §3.5, XEP-0401 §5.5.
    #[test]
    fn whoever_was_invited_needs_no_approval_and_is_asked_in_turn() {
        let mut romeo = account("romeo@montague.example").with("orchard", 0);
        romeo.sends("orchard", "<iq type='get' id='r'><query xmlns='jabber:iq:roster'/></iq>");
        let contact = xmpp::BareJid::parse("juliet@capulet.example").expect("an address");
        let fx = romeo.item(crate::item::Item::Introduce { contact });
        let told = fx.told();
        assert!(
            told.iter().any(|(to, xml)| to == "juliet@capulet.example" && xml.contains("type='subscribe'")),
            "{told:?}"
        );
        let fx = romeo.receive("<presence type='subscribe' from='juliet@capulet.example'/>");
        assert!(fx.told().iter().any(|(_, xml)| xml.contains("type='subscribed'")), "{:?}", fx.told());
        let push = fx.delivered("orchard").join("");
        assert!(push.contains("subscription='from'") && push.contains("ask='subscribe'"), "{push}");
        assert!(!push.contains("<presence"), "nobody is asked: {push}");
    }
}
