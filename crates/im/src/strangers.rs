//! How many strangers a session may write to: distinct addresses, a minute. LIMITS.md §1, XEP-0205 §6.7.

use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::ways::{Flow, Passage};
use std::collections::VecDeque;
use std::hash::{DefaultHasher, Hash, Hasher};
use xmpp::error::ErrorType;
use xmpp::{Jid, MessageType, StanzaCondition, StanzaError, StanzaType};

/// Addresses that are remembered as written to; an older one counts as new again.
const KNOWN_MAX: usize = 1_000;
const MINUTE_US: u64 = 60_000_000;

/// Whom a session has written to, and how soon it may write to somebody new.
#[derive(Debug, Default)]
pub struct Strangers {
    /// Hashes of bare JIDs, oldest first.
    known: VecDeque<u64>,
    /// Monotonic microseconds: when nothing of the allowance is used any more.
    rested_at: u64,
}

impl Strangers {
    /// Was the address written to?
    pub fn knows(&self, address: &Jid) -> bool {
        let mut hasher = DefaultHasher::new();
        address.bare_str().hash(&mut hasher);
        self.known.contains(&hasher.finish())
    }

    /// May the session write to this address now? An allowance of `per_minute` comes back evenly within a minute.
    fn may_write_to(&mut self, address: &Jid, per_minute: u32, now_us: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        address.bare_str().hash(&mut hasher);
        let address = hasher.finish();
        if self.known.contains(&address) {
            return true;
        }
        let each = MINUTE_US / u64::from(per_minute.max(1));
        let rested_at = self.rested_at.max(now_us) + each;
        if rested_at > now_us + MINUTE_US {
            return false;
        }
        self.rested_at = rested_at;
        if self.known.len() >= KNOWN_MAX {
            self.known.pop_front();
        }
        self.known.push_back(address);
        true
    }
}

/// A message of the own client to somebody it does not share presence with, and has not written to.
///
/// # Errors
/// `policy-violation`, to be tried again later, if there were too many of them in the last minute.
pub fn outbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(per_minute) = account.policy.limits.strangers_per_minute else { return Ok(Flow::Next) };
    // What a room is sent the room judges.
    if matches!(passage.stanza.kind, StanzaType::Message(MessageType::Error | MessageType::Groupchat)) {
        return Ok(Flow::Next);
    }
    let to = &passage.to;
    if !is_stranger(account, to) {
        return Ok(Flow::Next);
    }
    let now_us = account.now.mono_ms * 1_000;
    let Some(session) = passage.session.and_then(|id| account.session_mut(id)) else { return Ok(Flow::Next) };
    if session.has_met(to) || session.strangers.may_write_to(to, per_minute, now_us) {
        return Ok(Flow::Next);
    }
    fx.push(Effect::Count("strangers_refused"));
    Err(StanzaError::from(StanzaCondition::PolicyViolation)
        .with_type(ErrorType::Wait)
        .with_text("Too many messages to people who are no contacts; try again in a minute.")
        .over("strangers_per_minute"))
}

/// Neither the account itself, nor its host, nor anybody with a subscription one way or the other.
fn is_stranger(account: &Account, to: &Jid) -> bool {
    let own = to.same_bare(&account.jid) || (to.is_domain() && to.domain() == account.jid.domain());
    let state = account.roster.subscription(to);
    !(own || state.to || state.from || state.pending_in)
}

/// Senders that are remembered; whoever was silent longest is forgotten.
const SENDERS_MAX: usize = 256;

/// How much strangers have sent the account lately.
#[derive(Debug, Default)]
pub struct Senders {
    /// Hashes of bare JIDs, and monotonic microseconds when nothing of the sender's allowance is used any more; whoever
    /// wrote last stands last.
    rested_at: VecDeque<(u64, u64)>,
}

impl Senders {
    /// One more from this sender. False if that is too much: an allowance of `per_minute` comes back evenly.
    fn may_write(&mut self, sender: &Jid, per_minute: u32, now_us: u64) -> bool {
        let mut hasher = DefaultHasher::new();
        sender.bare_str().hash(&mut hasher);
        let sender = hasher.finish();
        let known = self.rested_at.iter().position(|(known, _)| *known == sender);
        let rested_at = known.and_then(|at| self.rested_at.remove(at)).map_or(0, |(_, at)| at).max(now_us);
        let more = rested_at + MINUTE_US / u64::from(per_minute.max(1));
        let may = more <= now_us + MINUTE_US;
        if self.rested_at.len() >= SENDERS_MAX {
            self.rested_at.pop_front();
        }
        self.rested_at.push_back((sender, if may { more } else { rested_at }));
        may
    }
}

/// A message of somebody who is no contact, and whom no client of the account has written to: only so many a minute.
///
/// # Errors
/// `policy-violation`, to be tried again later, if there were too many in the last minute.
pub fn inbound(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Result<Flow, StanzaError> {
    let Some(per_minute) = account.policy.limits.stranger_messages_per_minute else { return Ok(Flow::Next) };
    let Some(from) = passage.stanza.from.as_ref() else { return Ok(Flow::Next) };
    if matches!(passage.stanza.kind, StanzaType::Message(MessageType::Error | MessageType::Groupchat))
        || !is_stranger(account, from)
        || account.sessions.iter().any(|session| session.has_met(from))
    {
        return Ok(Flow::Next);
    }
    let now_us = account.now.mono_ms * 1_000;
    if account.senders.may_write(from, per_minute, now_us) {
        return Ok(Flow::Next);
    }
    fx.push(Effect::Count("messages_of_strangers_refused"));
    Err(StanzaError::from(StanzaCondition::PolicyViolation)
        .with_type(ErrorType::Wait)
        .with_text("Too many messages to somebody who is no contact; try again in a minute.")
        .over("stranger_messages_per_minute"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fx, Scene, account_with, contact};
    use store::AccountRecord;

    /// Juliet, who may write to three strangers a minute; Romeo is a contact.
    fn juliet() -> Scene {
        let stored =
            AccountRecord { roster: vec![contact("romeo@montague.example", "both")], ..AccountRecord::default() };
        account_with("juliet@capulet.example", stored)
            .with("home", 0)
            .policy(|policy| policy.limits.strangers_per_minute = Some(3))
    }

    fn writes(scene: &mut Scene, to: &str) -> Fx {
        scene.sends("home", &format!("<message to='{to}' id='m1' type='chat'><body>hi</body></message>"))
    }

    // XEP-0205 §6.7.
    #[test]
    fn a_stranger_writes_so_much_a_minute_and_hears_why_not_more() {
        let mut juliet = juliet().policy(|policy| policy.limits.stranger_messages_per_minute = Some(5));
        let receives = |juliet: &mut Scene, from: &str| {
            let fx = juliet.receive(&format!("<message from='{from}' type='chat'><body>hi</body></message>"));
            !fx.told().iter().any(|(_, xml)| xml.contains("<policy-violation") && xml.contains("type='wait'"))
        };
        let many = |juliet: &mut Scene, from: &str| (0..20).filter(|_| receives(juliet, from)).count();
        assert_eq!(many(&mut juliet, &stranger(1)), 5);
        // Nobody pays for another, and a contact writes as much as it likes.
        assert_eq!(many(&mut juliet, &stranger(2)), 5);
        assert_eq!(many(&mut juliet, "romeo@montague.example/x"), 20);
        juliet.after_ms(12_000);
        assert_eq!(many(&mut juliet, &stranger(1)), 1);
        // Whom the user answers is no stranger any more.
        writes(&mut juliet, &stranger(1));
        assert_eq!(many(&mut juliet, &stranger(1)), 20);
    }

    #[test]
    fn of_many_senders_those_that_were_silent_longest_are_forgotten() {
        let mut senders = Senders::default();
        for n in 0..2 * SENDERS_MAX as u32 {
            let jid = crate::testing::jid(&stranger(n));
            assert!(senders.may_write(&jid, 5, 0));
        }
        assert_eq!(senders.rested_at.len(), SENDERS_MAX);
    }

    fn stranger(n: u32) -> String {
        format!("stranger{n}@example.org/x")
    }

    #[test]
    fn a_stranger_too_many_in_a_minute_is_not_written_to() {
        let mut juliet = juliet();
        for n in 0..3 {
            assert_eq!(writes(&mut juliet, &stranger(n)).told_to(), [stranger(n)]);
        }
        let fx = writes(&mut juliet, &stranger(3));
        assert!(fx.told_to().is_empty() && fx.commits().is_empty());
        let error = fx.delivered("home").remove(0);
        assert!(error.contains("<policy-violation") && error.contains("type='wait'"), "{error}");
    }

    #[test]
    fn whoever_was_written_to_once_counts_no_more() {
        let mut juliet = juliet();
        (0..3).for_each(|n| drop(writes(&mut juliet, &stranger(n))));
        assert_eq!(writes(&mut juliet, "stranger0@example.org/elsewhere").told_to().len(), 1);
    }

    #[test]
    fn the_allowance_comes_back_within_a_minute() {
        let mut juliet = juliet();
        (0..3).for_each(|n| drop(writes(&mut juliet, &stranger(n))));
        juliet.after_ms(20_000);
        assert_eq!(writes(&mut juliet, &stranger(3)).told_to().len(), 1);
        assert!(writes(&mut juliet, &stranger(4)).told_to().is_empty());
        juliet.after_ms(60_000);
        let written = (5..15).filter(|n| !writes(&mut juliet, &stranger(*n)).told_to().is_empty()).count();
        assert_eq!(written, 3);
    }

    #[test]
    fn contacts_rooms_and_the_own_host_are_no_strangers() {
        let mut juliet = juliet().having("home", |s| s.directed.push(crate::testing::jid("room@muc.example/me")));
        (0..3).for_each(|n| drop(writes(&mut juliet, &stranger(n))));
        for to in ["romeo@montague.example", "juliet@capulet.example", "capulet.example", "room@muc.example/nurse"] {
            assert_eq!(writes(&mut juliet, to).told_to(), [to]);
        }
        let fx = juliet.sends("home", "<message to='lobby@muc.example' type='groupchat'><body>hi</body></message>");
        assert_eq!(fx.told_to(), ["lobby@muc.example"]);
    }

    #[test]
    fn without_rates_anybody_may_be_written_to() {
        let mut juliet = juliet().policy(|policy| policy.limits.strangers_per_minute = None);
        let written = (0..50).filter(|n| !writes(&mut juliet, &stranger(*n)).told_to().is_empty()).count();
        assert_eq!(written, 50);
    }
}
