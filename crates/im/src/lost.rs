//! Subscriptions that another server has lost: it answers `unsubscribed` to a probe, where no user of its has said so.
//! It is obeyed; what there was is remembered for 30 days, and asked for again once.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::Ticket;
use crate::presence::OWN;
use crate::subscription::{Act, managing, of_user};
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::{BareJid, Stamp};

/// Where they are kept, in the space of settings.
pub const KEY: &str = "lost subscriptions";
const KEPT_SECONDS: i64 = 30 * 86_400;
/// Contacts that are remembered so; the oldest go first.
const LOST_MAX: usize = 200;

/// The contacts whose subscriptions were lost, and when; the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lost(Vec<(BareJid, Stamp)>);

impl Lost {
    /// As they were stored: a line each, `microseconds contact`. What cannot be read is forgotten.
    pub fn from_stored(value: Option<&[u8]>) -> Lost {
        let text = value.and_then(|value| std::str::from_utf8(value).ok()).unwrap_or_default();
        let line = |line: &str| {
            let (at, contact) = line.split_once(' ')?;
            Some((BareJid::parse(contact).ok()?, Stamp(at.parse().ok()?)))
        };
        Lost(text.lines().filter_map(line).collect())
    }

    fn to_stored(&self) -> Vec<u8> {
        self.0.iter().map(|(contact, at)| format!("{} {contact}\n", at.0)).collect::<String>().into_bytes()
    }

    /// Whose server lost it, and when: of the last 30 days.
    pub fn recent(&self, now: Stamp) -> impl Iterator<Item = &(BareJid, Stamp)> {
        self.0.iter().filter(move |(_, at)| now.seconds_since(*at) < KEPT_SECONDS)
    }
}

/// The contact's server has answered a probe with `unsubscribed`, which the account has been told just now: it sees the
/// contact no more. Asks for the subscription again, unless that was done in the last 30 days.
pub fn again(account: &mut Account, contact: &BareJid, fx: &mut Effects) {
    let now = account.now.utc;
    account.lost.0.retain(|(_, at)| now.seconds_since(*at) < KEPT_SECONDS);
    if account.lost.0.iter().any(|(lost, _)| lost == contact) {
        return;
    }
    fx.push(Effect::Count("subscriptions_lost"));
    account.lost.0.push((contact.clone(), now));
    let over = account.lost.0.len().saturating_sub(LOST_MAX);
    account.lost.0.drain(..over);
    let remembered = Change::BlobPut {
        account: account.jid.clone(),
        space: SETTINGS.into(),
        key: KEY.into(),
        value: account.lost.to_stored(),
    };
    let before = account.roster.subscription(contact);
    let (mut changes, visible) = account.roster.subscribe(&account.jid, contact, of_user(before, Act::Subscribe).state);
    changes.push(remembered);
    fx.commit(changes, None, &Ticket::default());
    fx.push(Effect::Tell {
        to: contact.clone().into(),
        stanza: Arc::new(managing(&account.jid, contact, Act::Subscribe, Some("again"))),
        ingress: OWN,
        ticket: Ticket::default(),
    });
    if visible {
        crate::roster::push(account, contact, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Ingress, Item};
    use crate::testing::{account_with, bare, contact, stanza};
    use store::AccountRecord;

    const NO: &str = "<presence type='unsubscribed' from='romeo@montague.example' to='juliet@capulet.example'/>";

    fn juliet() -> crate::testing::Scene {
        let roster = vec![contact("romeo@montague.example", "both")];
        account_with("juliet@capulet.example", AccountRecord { roster, ..AccountRecord::default() }).with("home", 0)
    }

    fn lost(juliet: &mut crate::testing::Scene, xml: &str) -> crate::testing::Fx {
        let stanza = Arc::new(stanza(xml));
        let to = stanza.to.clone().expect("it has one");
        let ingress = Ingress { stream: 1, ordinal: 1 };
        juliet.item(Item::SubscriptionLost { stanza, to, ingress, ticket: Ticket::default() })
    }

    // MISSION 5.1.8.
    #[test]
    fn a_server_that_lost_a_subscription_is_obeyed_and_asked_again_once() {
        let mut juliet = juliet();
        let fx = lost(&mut juliet, NO);
        assert_eq!(fx.told_to(), ["romeo@montague.example"]);
        assert!(fx.told()[0].1.contains("type='subscribe'"), "{:?}", fx.told());
        let state = juliet.account.roster.subscription(&bare("romeo@montague.example"));
        assert!(state.from && state.pending_out && !state.to, "{state:?}");
        assert!(lost(&mut juliet, NO).told_to().is_empty(), "once");
    }

    #[test]
    fn what_was_lost_is_remembered_over_a_restart() {
        let mut juliet = juliet();
        let fx = lost(&mut juliet, NO);
        let value = fx.commits().into_iter().find_map(|change| match change {
            Change::BlobPut { key, value, .. } if *key == *KEY => Some(value),
            _ => None,
        });
        assert_eq!(Lost::from_stored(value.as_deref()), juliet.account.lost);
        assert_eq!(juliet.account.lost.recent(juliet.account.now.utc).count(), 1);
    }

    #[test]
    fn who_had_no_subscription_lost_none() {
        let mut juliet = juliet();
        let fx = lost(&mut juliet, &NO.replace("romeo@montague", "paris@verona"));
        assert!(fx.told_to().is_empty() && fx.commits().is_empty());
    }
}
