//! Delivery outcome, `docs/protocol/delivery-outcome.md`: what became of a message, told to a sender that asked.
//! RFC 3860 §3.4.1.
//!
//! A request is remembered with the message in the log, and forgotten with its pending mark; the report goes out just
//! before. What a report may say is decided by [`crate::view`]: to somebody who may not know whether anybody is there,
//! a message in the inbox is `stored`, whoever takes it.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::{Ingress, Ticket};
use crate::module::Module;
use crate::view::{Exit, view};
use std::collections::BTreeMap;
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::{BareJid, Element, Jid, MessageType, Stanza, ns};

pub const NS: &str = "urn:waft:outcome:0";
/// What the keys of requests begin with, in the space of settings; the position follows.
const KEY: &str = "outcome:";
/// Bytes of a message's id that a report repeats.
const ID_BYTES_MAX: usize = 256;

pub static MODULE: Module = Module { name: "outcome", host_features: &[NS], account_features: &[NS], ..Module::EMPTY };

/// A request: who asked, and what the message is called there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    from: Jid,
    id: Box<str>,
}

/// What a report says. A refusal that happens at once is told by the error of RFC 6120 §8.3 instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// In the recipient's inbox, for a resource to take.
    Stored,
    /// A resource took it.
    Delivered,
    /// It was in the inbox and cannot be delivered any more.
    Refused,
    /// Its time, or the time that any message may wait, was over before a resource took it.
    Expired,
}

impl State {
    fn name(self) -> &'static str {
        match self {
            State::Stored => "stored",
            State::Delivered => "delivered",
            State::Refused => "refused",
            State::Expired => "expired",
        }
    }
}

/// Does the message ask? It must have an id that the report can name.
pub fn asked(message: &Stanza) -> Option<Asked> {
    message.payload.child("request", NS)?;
    let id = message.id.as_deref().filter(|id| !id.is_empty() && id.len() <= ID_BYTES_MAX)?;
    Some(Asked { from: message.from.clone()?, id: id.into() })
}

/// May whoever asked know whether a resource has taken something?
pub(crate) fn may_know(account: &Account, asked: &Asked) -> bool {
    view(account, &asked.from, Exit::Resources).shows()
}

fn key(position: i64) -> Box<str> {
    format!("{KEY}{position}").into()
}

/// Is it a request, as they are kept?
pub fn is_key(space: &str, key: &str) -> bool {
    space == SETTINGS && key.starts_with(KEY)
}

/// The change that remembers a request; it goes with the message's own.
pub(crate) fn remember(account: &mut Account, position: i64, asked: Asked) -> Change {
    let value = Element::new("asked", NS).attr("from", asked.from.as_str()).attr("id", &asked.id).to_bytes("");
    account.outcomes.insert(position, asked);
    Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key: key(position), value }
}

fn forget(account: &Account, position: i64) -> Change {
    Change::BlobDelete { account: account.jid.clone(), space: SETTINGS.into(), key: key(position) }
}

/// As they were stored; of those in memory the ones that the store may not know of yet stay.
pub fn restored(
    settings: &[(Box<str>, Vec<u8>)],
    known: &BTreeMap<i64, Asked>,
    last_position: i64,
) -> BTreeMap<i64, Asked> {
    let read = |(key, value): &(Box<str>, Vec<u8>)| {
        let position = key.strip_prefix(KEY)?.parse().ok()?;
        let asked = Element::parse(value, NS).ok()?;
        let from = Jid::parse(asked.attribute("from")?).ok()?;
        Some((position, Asked { from, id: asked.attribute("id")?.into() }))
    };
    let newer = known.range(last_position.saturating_add(1)..).map(|(position, asked)| (*position, asked.clone()));
    settings.iter().filter_map(read).chain(newer).collect()
}

/// The marks of these positions are being cleared: their reports go out, and the requests are forgotten with the marks.
/// So is a request whose message was never written.
pub(crate) fn cleared(
    account: &mut Account,
    positions: &[i64],
    failed: &[(i64, State)],
    fx: &mut Effects,
) -> Vec<Change> {
    if account.outcomes.is_empty() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    for position in positions {
        let Some(asked) = account.outcomes.remove(position) else { continue };
        let state = failed.iter().find(|(at, _)| at == position).map_or(State::Delivered, |(_, state)| *state);
        report(account, *position, &asked, state, fx);
        changes.push(forget(account, *position));
    }
    let is_orphan = |position: &i64| !account.inbox.is_known(*position);
    let orphans: Vec<i64> = account.outcomes.keys().copied().filter(is_orphan).collect();
    for position in orphans {
        account.outcomes.remove(&position);
        changes.push(forget(account, position));
    }
    changes
}

/// The account is being removed, and with it all that waits.
pub(crate) fn refuse_all(account: &mut Account, fx: &mut Effects) {
    for (position, asked) in std::mem::take(&mut account.outcomes) {
        report(account, position, &asked, State::Refused, fx);
    }
}

/// Tells the sender's bare JID, so that it is kept there until one of its resources comes. The origin-id makes a report
/// that is told again after a crash known as the same.
pub(crate) fn report(account: &Account, position: i64, asked: &Asked, state: State, fx: &mut Effects) {
    if state != State::Stored && !may_know(account, asked) {
        return;
    }
    let message = told(asked, account.jid.clone(), account.archive_ids.text(position).as_ref(), state);
    fx.push(Effect::Count("delivery_outcomes"));
    fx.push(Effect::Tell {
        to: asked.from.to_bare().into(),
        stanza: Arc::new(message),
        ingress: Ingress { stream: 0, ordinal: 0 },
        ticket: Ticket::default(),
    });
}

/// The report on a message that waited for another domain in vain, if its sender asked: it waits for a resource of the
/// sender's, where the error finds nobody. `number` is that message's alone.
pub fn expired(message: &Stanza, to: &Jid, number: i64) -> Option<Stanza> {
    Some(told(&asked(message)?, to.to_bare(), &format!("{number:x}"), State::Expired))
}

fn told(asked: &Asked, recipient: BareJid, name: &str, state: State) -> Stanza {
    let outcome = Element::new("outcome", NS).attr("id", &asked.id).attr("state", state.name());
    let name = format!("{name}-{}", state.name());
    let origin = Element::new("origin-id", ns::SID).attr("id", &name);
    let children = [outcome, origin, Element::new("no-permanent-store", ns::HINTS)];
    let message = Stanza::message(MessageType::Normal).with_from(recipient).with_to(asked.from.to_bare());
    message.with_id(&name).with_children(children)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account_with, contact};
    use store::AccountRecord;

    /// Romeo sees juliet's presence, others do not.
    fn stored() -> AccountRecord {
        AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() }
    }

    fn juliet() -> Scene {
        account_with("juliet@capulet.example", stored())
    }

    fn asks(from: &str, more: &str) -> String {
        format!("<message type='chat' id='m1' from='{from}/x'><body>hi</body><request xmlns='{NS}'/>{more}</message>")
    }

    fn states(fx: &Fx) -> Vec<String> {
        let told = fx.told();
        let reports = told.iter().filter(|(_, xml)| xml.contains("<outcome "));
        reports
            .map(|(to, xml)| {
                assert!(xml.contains("from='juliet@capulet.example'") && xml.contains("id='m1'"), "{xml}");
                let state = xml.split("state='").nth(1).and_then(|rest| rest.split('\'').next()).expect("a state");
                format!("{to} {state}")
            })
            .collect()
    }

    #[test]
    fn a_message_that_waits_is_stored_and_when_a_client_has_taken_it_delivered() {
        let mut juliet = juliet();
        let fx = juliet.receive(&asks("romeo@montague.example", ""));
        assert_eq!(states(&fx), ["romeo@montague.example stored"]);
        // Not before the message is on disk.
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), |e| matches!(e, Effect::Tell { .. })));
        let record = fx.appended().remove(0);
        let mut juliet = juliet.connected("home");
        juliet.sends("home", "<presence/>");
        juliet.item(Item::Pending { after: record.position - 1, records: Some(vec![record]) });
        juliet.writes_all("home");
        let fx = juliet.after_ms(1_000);
        assert_eq!(states(&fx), ["romeo@montague.example delivered"]);
        assert!(
            fx.commits().iter().any(|change| matches!(change, Change::BlobDelete { key, .. } if is_key(SETTINGS, key)))
        );
        assert!(juliet.outcomes.is_empty());
    }

    #[test]
    fn a_message_that_a_client_takes_at_once_is_delivered_and_nothing_else() {
        let mut juliet = juliet().with("home", 0);
        assert_eq!(states(&juliet.receive(&asks("romeo@montague.example", ""))), [""; 0]);
        juliet.writes_all("home");
        assert_eq!(states(&juliet.after_ms(1_000)), ["romeo@montague.example delivered"]);
    }

    #[test]
    fn without_an_archive_the_outcome_is_known_all_the_same() {
        let mut juliet = juliet().with("home", 0).policy(|policy| policy.archive = false);
        juliet.receive(&asks("romeo@montague.example", ""));
        juliet.writes_all("home");
        assert_eq!(states(&juliet.after_ms(1_000)), ["romeo@montague.example delivered"]);
    }

    #[test]
    fn a_message_whose_time_is_over_is_expired() {
        let mut juliet = juliet();
        let fx = juliet.receive(&asks("romeo@montague.example", "<x xmlns='jabber:x:expire' seconds='10'/>"));
        let record = fx.appended().remove(0);
        juliet.after_ms(11_000);
        let mut juliet = juliet.connected("home");
        juliet.sends("home", "<presence/>");
        juliet.item(Item::Pending { after: record.position - 1, records: Some(vec![record]) });
        assert_eq!(states(&juliet.after_ms(1_000)), ["romeo@montague.example expired"]);
    }

    #[test]
    fn what_was_asked_days_ago_is_answered_after_a_restart() {
        let mut first = juliet();
        let fx = first.receive(&asks("romeo@montague.example", ""));
        let record = fx.appended().remove(0);
        let settings = fx.commits().into_iter().filter_map(|change| match change {
            Change::BlobPut { space, key, value, .. } if is_key(&space, &key) => Some((key, value)),
            _ => None,
        });
        let pending = vec![record.position];
        let stored =
            AccountRecord { settings: settings.collect(), pending, last_position: record.position, ..stored() };
        let mut juliet = account_with("juliet@capulet.example", stored);
        juliet.after_ms(3 * 24 * 3_600_000);
        let mut juliet = juliet.connected("home");
        juliet.sends("home", "<presence/>");
        juliet.item(Item::Pending { after: record.position - 1, records: Some(vec![record]) });
        juliet.writes_all("home");
        assert_eq!(states(&juliet.after_ms(1_000)), ["romeo@montague.example delivered"]);
    }

    // DESIGN.md D6; LIMITS.md §2 row 41.
    #[test]
    fn whoever_does_not_see_presence_hears_the_same_whether_anybody_is_there_or_not() {
        for mut juliet in [juliet(), juliet().with("home", 0)] {
            let fx = juliet.receive(&asks("paris@verona.example", ""));
            assert_eq!(states(&fx), ["paris@verona.example stored"]);
            if !juliet.sessions.is_empty() {
                juliet.writes_all("home");
            }
            assert_eq!(states(&juliet.after_ms(1_000)), [""; 0]);
        }
    }

    #[test]
    fn when_the_account_is_removed_what_waits_is_refused() {
        let mut juliet = juliet();
        juliet.receive(&asks("romeo@montague.example", ""));
        let fx = juliet.item(Item::Remove { ticket: Ticket::default() });
        assert_eq!(states(&fx), ["romeo@montague.example refused"]);
    }

    #[test]
    fn a_request_that_no_report_could_name_is_none() {
        let mut juliet = juliet();
        let fx = juliet.receive(&format!(
            "<message type='chat' from='romeo@montague.example/x'><body>hi</body><request xmlns='{NS}'/></message>"
        ));
        assert!(fx.told().is_empty() && juliet.outcomes.is_empty());
    }

    // A report never asks for one, and is kept for its recipient until it was delivered, but not for good.
    #[test]
    fn a_report_is_kept_until_it_is_delivered() {
        let mut juliet = juliet();
        let report = juliet.receive(&asks("romeo@montague.example", "")).told().remove(0).1;
        let report = crate::testing::stanza(&report);
        assert_eq!(crate::messages::keeping(&report), crate::messages::Keeping::Pending);
        assert_eq!(asked(&report), None);
    }
}
