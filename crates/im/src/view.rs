//! The one decision at every exit: may this watcher see that of this account? DESIGN.md D6.
//!
//! Today's rules are the roster subscription and the block list; the ACCESS RULES document comes to stand here.

use crate::account::Account;
use xmpp::{BareJid, Jid};

/// Ways out of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
    /// Presence as it changes. RFC 6121 §4.2.2, §4.4.2, §4.5.2.
    Broadcast,
    /// Presence on request. RFC 6121 §4.3.2.
    Probe,
    /// When the account was last there. XEP-0012 §4.
    LastActivity,
    /// What the bare JID says of itself: disco#info. XEP-0030 §8.
    AccountInfo,
    /// Which resources there are: disco#items. XEP-0030 §8.
    Resources,
    /// The vCard, for whoever knows the account already; everybody sees it only where the host's policy says so.
    /// XEP-0054 §3.3, §5.
    VCard,
    /// An iq to a resource: its answer would tell that the resource is there. RFC 6121 §8.5.3.1. Directed presence shows
    /// the one resource that sent it; who delivers looks at that.
    IqToResource,
    /// An error about a message: the same that an account which does not exist gives.
    MessageError,
}

/// What the watcher sees there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    All,
    Nothing,
}

/// Who stands before the exit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Actor {
    /// The account itself, or one of its resources: implicitly subscribed to itself (RFC 6121 §4.2.2), and never
    /// blocked (XEP-0191 §5).
    Owner,
    Blocked,
    /// Has a subscription: `from` or `both`.
    Subscriber,
    /// One of the resources has sent it directed presence. RFC 6121 §4.6.
    Addressee,
    /// The account watches it, or asked to: so it is known there. RFC 6121 §3.1.
    Acquaintance,
    /// Nobody, or somebody whose request waits.
    Stranger,
}

/// What `watcher` sees of `account` at this exit. A subscription is of a bare JID: the watcher's resource matters to the
/// block list alone.
pub fn view(account: &Account, watcher: &Jid, exit: Exit) -> Seen {
    decide(account, actor(account, watcher), exit)
}

/// All subscribers that see the account at this exit. The decision is one for their class; for each of them the block
/// list alone is asked.
pub fn watchers(account: &Account, exit: Exit) -> impl Iterator<Item = &BareJid> {
    let seen = decide(account, Actor::Subscriber, exit) == Seen::All;
    account.roster.watchers().filter(move |watcher| seen && !account.blocks.blocks(watcher))
}

fn decide(account: &Account, actor: Actor, exit: Exit) -> Seen {
    let seen = match (actor, exit) {
        (Actor::Blocked, Exit::MessageError) => true,
        (Actor::Blocked, _) => false,
        (Actor::Owner | Actor::Subscriber, _) => true,
        (_, Exit::MessageError) => true,
        (Actor::Addressee | Actor::Acquaintance, Exit::VCard) => true,
        (Actor::Stranger, Exit::VCard) => account.policy.vcards_public,
        (Actor::Addressee, Exit::IqToResource) => true,
        (Actor::Addressee | Actor::Acquaintance | Actor::Stranger, _) => false,
    };
    if seen { Seen::All } else { Seen::Nothing }
}

fn actor(account: &Account, watcher: &Jid) -> Actor {
    if watcher.same_bare(&account.jid) {
        return Actor::Owner;
    }
    if account.blocks.blocks(watcher) {
        return Actor::Blocked;
    }
    let subscription = account.roster.subscription(watcher);
    if subscription.from {
        Actor::Subscriber
    } else if account.sessions.iter().any(|session| session.directed.iter().any(|to| to.same_bare(watcher))) {
        Actor::Addressee
    } else if subscription.to || subscription.pending_out {
        Actor::Acquaintance
    } else {
        Actor::Stranger
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, account_with, contact, jid};
    use store::AccountRecord;

    const EXITS: [Exit; 8] = [
        Exit::Broadcast,
        Exit::Probe,
        Exit::LastActivity,
        Exit::AccountInfo,
        Exit::Resources,
        Exit::VCard,
        Exit::IqToResource,
        Exit::MessageError,
    ];

    #[test]
    fn each_kind_of_watcher_sees_at_each_exit_what_the_table_says() {
        let record = AccountRecord {
            roster: vec![
                contact("romeo@example.net", "both"),
                contact("nurse@example.com", "to"),
                contact("tybalt@example.com", "both"),
            ],
            blocks: vec![jid("tybalt@example.com")],
            ..AccountRecord::default()
        };
        let mut juliet = account_with("juliet@example.com", record)
            .with("balcony", 0)
            .having("balcony", |session| session.directed.push(jid("room@chat.example.com/juliet")));
        juliet.receive("<presence from='paris@example.com' type='subscribe'/>");
        // In the order of EXITS; A: all, -: nothing.
        for (watcher, seen) in [
            ("juliet@example.com/chamber", "AAAAAAAA"),
            ("romeo@example.net", "AAAAAAAA"),
            ("romeo@example.net/orchard", "AAAAAAAA"),
            ("nurse@example.com/x", "-----A-A"),
            ("room@chat.example.com/juliet", "-----AAA"),
            // Who asked, whom nobody knows.
            ("paris@example.com/x", "-------A"),
            ("stranger@example.org", "-------A"),
            ("example.com", "-------A"),
            // A blocked one sees nothing, subscription or not.
            ("tybalt@example.com/street", "-------A"),
        ] {
            let found: String = EXITS
                .iter()
                .map(|&exit| if view(&juliet, &jid(watcher), exit) == Seen::All { 'A' } else { '-' })
                .collect();
            assert_eq!(found, seen, "{watcher}");
        }
    }

    #[test]
    fn a_stranger_sees_the_card_where_the_policy_says_so() {
        let juliet = account("juliet@example.com").policy(|policy| policy.vcards_public = true);
        assert_eq!(view(&juliet, &jid("stranger@example.org"), Exit::VCard), Seen::All);
        assert_eq!(view(&juliet, &jid("stranger@example.org"), Exit::AccountInfo), Seen::Nothing);
    }
}
