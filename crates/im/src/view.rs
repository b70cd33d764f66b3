//! The one decision at every exit: may this watcher see that of this account, and what of it? DESIGN.md D6.
//!
//! Three things speak, the first that does prevails: the block list, the account's ACCESS RULES ([`crate::rules`]), the
//! roster's subscription. The owner sees all. What cannot be evaluated forbids.

use crate::account::Account;
use crate::rules::shape::Shape;
use crate::rules::{self, Decision, Delivery, Handling};
use crate::session::Session;
use std::sync::Arc;
use xmpp::{Jid, PresenceType, Stamp, Stanza, StanzaType};

/// One line an exit: its name, the permission of the rules that it asks for, and whether somebody who is away shows it all
/// the same. An exit is in all four places or in none; one without a column in the tables of the tests fails them.
macro_rules! exits {
    ($($(#[$doc:meta])* $exit:ident = $name:literal, $asks:ident, $away:literal;)*) => {
        /// Ways out of an account.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Exit {
            $($(#[$doc])* $exit,)*
        }

        impl Exit {
            pub const ALL: &'static [Exit] = &[$(Exit::$exit),*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Exit::$exit => $name,)*
                }
            }

            fn row(self) -> Row {
                match self {
                    $(Exit::$exit => Row { asks: Asks::$asks, shown_when_away: $away },)*
                }
            }
        }
    };
}

exits! {
    /// Presence as it changes. RFC 6121 §4.2.2, §4.4.2, §4.5.2.
    Broadcast = "broadcast", Subscribe, false;
    /// Presence on request. RFC 6121 §4.3.2.
    Probe = "probe", Subscribe, false;
    /// All presence information at once, without a subscription. RFC 2778 §2.3.
    Fetch = "fetch", Fetch, false;
    /// WATCHER INFORMATION. `Allow`: all of it; `Confirm`: the watcher's own row.
    Watchers = "watchers", Watch, true;
    /// Presence that a session sends to one entity. RFC 6121 §4.6.
    Directed = "directed", Will, false;
    /// When the account was last there. XEP-0012 §4.
    LastActivity = "last-activity", Fetch, false;
    /// What the bare JID says of itself: disco#info. XEP-0030 §8.
    AccountInfo = "account-info", Fetch, true;
    /// Which resources there are: disco#items. XEP-0030 §8.
    Resources = "resources", Fetch, false;
    /// The vCard, for whoever knows the account already; everybody sees it only where the host's policy says so.
    /// XEP-0054 §3.3, §5.
    VCard = "vcard", Fetch, true;
    /// An iq to a resource: its answer would tell that the resource is there. RFC 6121 §8.5.3.1. Directed presence shows
    /// the one resource that sent it; who delivers looks at that.
    IqToResource = "iq-to-resource", Fetch, false;
    /// An error about a message: the same that an account which does not exist gives.
    MessageError = "message-error", None, true;
    /// Events of the account's nodes. XEP-0163 §4.3.
    PepEvent = "pep-event", Subscribe, false;
    /// Items of the account's nodes, on request. XEP-0163 §5.
    PepItems = "pep-items", Fetch, false;
    /// Nodes that the account opened to everybody: keys (XEP-0384), mostly. XEP-0060 §4.5.
    OpenNode = "open-node", Fetch, true;
    /// Reserved: what a room's occupants see of an occupant.
    RoomPresence = "room-presence", Will, false;
    /// Reserved: NOTIFY to a SIP watcher. RFC 3856 §6.
    Sip = "sip", Subscribe, false;
}

/// What an exit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    /// Which permission of the rules it asks for.
    asks: Asks,
    /// Somebody who is away shows it all the same.
    shown_when_away: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    Subscribe,
    Fetch,
    Watch,
    /// The session's own will; a rule that names the addressee counts.
    Will,
    /// None: it tells nothing.
    None,
}

/// What the watcher sees at an exit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    pub handling: Handling,
    /// What of the presence is shown, if it is; `None`: all. Watchers of one class share it.
    pub shape: Option<Arc<Shape>>,
}

impl View {
    const fn of(handling: Handling) -> View {
        View { handling, shape: None }
    }

    /// The account is shown as it is, but for what `shape` cuts.
    pub fn shows(&self) -> bool {
        self.handling == Handling::Allow
    }

    /// The account is shown as if it were away: [`away_since`].
    pub fn is_away(&self) -> bool {
        self.handling == Handling::PoliteBlock
    }

    /// Do two views show the same, as far as can be told without looking at the presence?
    pub fn same_class(&self, other: &View) -> bool {
        self.handling == other.handling && self.shape == other.shape
    }

    /// Is a session with this presence shown?
    pub fn shows_session(&self, presence: &Stanza) -> bool {
        self.shows() && self.shape.as_ref().is_none_or(|shape| shape.shows_session(presence))
    }
}

/// Who stands before the exit, as the roster has it.
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
pub fn view(account: &Account, watcher: &Jid, exit: Exit) -> View {
    let row = exit.row();
    if exit == Exit::Probe && xmpp::planted::is(xmpp::planted::Bug::ViewSkipped) {
        return View::of(Handling::Allow);
    }
    match actor(account, watcher) {
        Actor::Owner => View::of(Handling::Allow),
        _ if row.asks == Asks::None => View::of(Handling::Allow),
        Actor::Blocked => View::of(Handling::Block),
        _ if account.rules.is_unreadable() => View::of(Handling::Block),
        actor => match rules::decide(account, watcher) {
            None => View::of(by_roster(account, actor, exit)),
            // Whoever a session addressed may ask it; rules that name nobody are not about rooms and callers.
            Some(decision) if actor == Actor::Addressee && exit == Exit::IqToResource && !decision.named => {
                View::of(Handling::Allow)
            }
            Some(decision) => by_rules(&decision, row, || by_roster(account, actor, exit)),
        },
    }
}

/// What the rules make of what the roster says.
fn by_rules(decision: &Decision, row: Row, otherwise: impl Fn() -> Handling) -> View {
    let said = match row.asks {
        Asks::Subscribe => decision.subscribe,
        Asks::Fetch => decision.fetch.or(decision.subscribe),
        Asks::Watch if decision.watch => Some(Handling::Allow),
        Asks::Watch if decision.subscribe == Some(Handling::Block) => Some(Handling::Block),
        Asks::Will if decision.named && decision.subscribe != Some(Handling::Confirm) => decision.subscribe,
        Asks::Watch | Asks::Will | Asks::None => None,
    };
    match said {
        Some(Handling::PoliteBlock) if row.shown_when_away => View::of(Handling::Allow),
        Some(Handling::Allow) => View { handling: Handling::Allow, shape: decision.shape.clone() },
        Some(handling) => View::of(handling),
        None => {
            let handling = otherwise();
            let shape = decision.shape.as_ref().filter(|_| handling == Handling::Allow);
            View { handling, shape: shape.cloned() }
        }
    }
}

/// Where no rule speaks.
fn by_roster(account: &Account, actor: Actor, exit: Exit) -> Handling {
    let shown = match (actor, exit) {
        (_, Exit::MessageError | Exit::Directed | Exit::RoomPresence | Exit::OpenNode) => true,
        (_, Exit::Watchers) => false,
        (Actor::Owner | Actor::Subscriber, _) => true,
        (Actor::Addressee | Actor::Acquaintance, Exit::VCard) => true,
        (Actor::Stranger, Exit::VCard) => account.policy.vcards_public,
        (Actor::Addressee, Exit::IqToResource) => true,
        (Actor::Addressee | Actor::Acquaintance | Actor::Stranger | Actor::Blocked, _) => false,
    };
    if shown { Handling::Allow } else { Handling::Confirm }
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

/// Watchers that see the same.
#[derive(Debug, Clone)]
pub struct Class {
    pub view: View,
    pub watchers: Vec<Jid>,
}

/// All subscribers that are shown the account's presence as it changes ([`Exit::Broadcast`]), as classes: the decision is
/// one for each. Without rules there is one class, and the block list alone is asked; with rules the classes are
/// remembered until something changes that they were made of.
pub fn classes(account: &Account) -> Vec<Class> {
    if account.rules.is_silent() {
        let subscribers = account.roster.watchers().filter(|watcher| !account.blocks.blocks(watcher));
        let watchers = subscribers.map(|watcher| Jid::from(watcher.clone())).collect();
        return vec![Class { view: View::of(Handling::Allow), watchers }];
    }
    if account.rules.is_unreadable() {
        return Vec::new();
    }
    account.rules.classes(account, || found_classes(account))
}

fn found_classes(account: &Account) -> Vec<Class> {
    let row = Exit::Broadcast.row();
    let mut classes: Vec<Class> = Vec::new();
    // The classes by the address of their decision: there are few of them.
    let mut known: Vec<(Arc<Decision>, Option<usize>)> = Vec::new();
    for watcher in account.roster.watchers().filter(|watcher| !account.blocks.blocks(watcher)) {
        let Some(decision) = rules::decide(account, watcher) else { continue };
        let at = match known.iter().find(|(other, _)| Arc::ptr_eq(other, &decision)) {
            Some((_, at)) => *at,
            None => {
                let view = by_rules(&decision, row, || by_roster(account, Actor::Subscriber, Exit::Broadcast));
                let at = view.shows().then(|| match classes.iter().position(|class| class.view.same_class(&view)) {
                    Some(at) => at,
                    None => {
                        classes.push(Class { view, watchers: Vec::new() });
                        classes.len() - 1
                    }
                });
                known.push((decision, at));
                at
            }
        };
        if let Some(at) = at {
            classes[at].watchers.push(watcher.clone().into());
        }
    }
    classes
}

/// The presence of a session as the view shows it; `None`: not at all. `unavailable` is asked about with the presence
/// that it ends: [`change_for`].
pub fn presence_for(view: &View, presence: &Arc<Stanza>) -> Option<Arc<Stanza>> {
    if !view.shows_session(presence) {
        return None;
    }
    Some(view.shape.as_ref().map_or_else(|| presence.clone(), |shape| shape.presence(presence)))
}

/// What the watcher hears when a session's presence was `before` and is `after`: the new one, that it is gone, or
/// nothing where neither was shown, or both show the same.
pub fn change_for(view: &View, before: Option<&Arc<Stanza>>, after: &Arc<Stanza>) -> Option<Arc<Stanza>> {
    let Some(shape) = &view.shape else { return view.shows().then(|| after.clone()) };
    let before = before.and_then(|before| presence_for(view, before));
    if after.kind == StanzaType::Presence(PresenceType::Available) {
        return match (before, presence_for(view, after)) {
            (Some(before), Some(after)) if before.payload.bytes() == after.payload.bytes() => None,
            (Some(before), None) => Some(Arc::new(gone(&before))),
            (_, after) => after,
        };
    }
    before.map(|_| shape.presence(after))
}

/// The session with this presence is no longer there.
pub(crate) fn gone(presence: &Stanza) -> Stanza {
    let stanza = Stanza::presence(PresenceType::Unavailable);
    match &presence.from {
        Some(from) => stanza.with_from(from.clone()),
        None => stanza,
    }
}

/// What a subscriber with this address is or was shown, whether it has the subscription still or not.
pub fn as_subscriber(account: &Account, watcher: &Jid) -> View {
    if account.blocks.blocks(watcher) || account.rules.is_unreadable() {
        return View::of(Handling::Block);
    }
    match rules::decide(account, watcher) {
        None => View::of(Handling::Allow),
        Some(decision) => by_rules(&decision, Exit::Broadcast.row(), || Handling::Allow),
    }
}

/// Since when the account is away, for whoever sees no session of it, and with what words it left. For those who are
/// politely blocked that time stands still.
pub fn last_seen(account: &Account, view: &View, watcher: &Jid) -> Option<(Stamp, Box<str>)> {
    let is_there = account.sessions.iter().any(Session::is_available);
    if view.is_away() || (is_there && view.shape.is_some()) {
        return account.rules.away_since(watcher);
    }
    account.last_activity.clone().filter(|_| !is_there)
}

/// The available sessions that the view shows.
pub fn sessions<'a>(account: &'a Account, view: &'a View) -> impl Iterator<Item = &'a Session> {
    account.sessions.iter().filter(|session| session.presence.as_ref().is_some_and(|it| view.shows_session(it)))
}

/// Answers to whoever asks for a subscription: `Confirm` where no rule speaks.
pub fn subscription_of(account: &Account, who: &Jid) -> Handling {
    if account.blocks.blocks(who) || account.rules.is_unreadable() {
        return Handling::Block;
    }
    rules::decide(account, who).and_then(|decision| decision.subscribe).unwrap_or(Handling::Confirm)
}

/// What may be done to the account, besides seeing it. The owner may; the blocked may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grant {
    /// Publish presence information in its name.
    Publish,
    /// Read its inbox.
    Read,
}

pub fn grants(account: &Account, who: &Jid, grant: Grant) -> bool {
    match actor(account, who) {
        Actor::Owner => true,
        Actor::Blocked => false,
        _ => rules::decide(account, who).is_some_and(|decision| match grant {
            Grant::Publish => decision.publish,
            Grant::Read => decision.read,
        }),
    }
}

/// What becomes of a message from `who`. Whoever is politely blocked and no rule speaks of his messages writes to
/// somebody who is away.
pub fn delivery_of(account: &Account, who: &Jid) -> Delivery {
    if who.same_bare(&account.jid) {
        return Delivery::Deliver;
    }
    if account.rules.is_unreadable() {
        return Delivery::Store;
    }
    let Some(decision) = rules::decide(account, who) else { return Delivery::Deliver };
    // What a room says to its occupants is no letter; rules that name nobody are not about rooms.
    if !decision.named && actor(account, who) == Actor::Addressee {
        return Delivery::Deliver;
    }
    match decision.message {
        Some(Delivery::Deliver) | None if is_polite(&decision) => Delivery::Store,
        Some(delivery) => delivery,
        None => Delivery::Deliver,
    }
}

fn is_polite(decision: &Decision) -> bool {
    decision.subscribe == Some(Handling::PoliteBlock) || decision.fetch == Some(Handling::PoliteBlock)
}

/// Does neither block list nor rule speak of `who`?
pub fn is_unjudged(account: &Account, who: &Jid) -> bool {
    !account.blocks.blocks(who) && !account.rules.is_unreadable() && rules::decide(account, who).is_none()
}

/// Is the account away for `who`, whatever it does? What its clients say to him by themselves would tell otherwise.
pub fn is_away_for(account: &Account, who: &Jid) -> bool {
    let is_known = who.same_bare(&account.jid) || account.blocks.blocks(who);
    !is_known && rules::decide(account, who).is_some_and(|decision| is_polite(&decision))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{account, account_with, contact, jid};
    use store::AccountRecord;

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
        // In the order of Exit::ALL; A: all, ?: what the owner has not said, -: nothing.
        for (watcher, seen) in [
            ("juliet@example.com/chamber", "AAAAAAAAAAAAAAAA"),
            ("romeo@example.net", "AAA?AAAAAAAAAAAA"),
            ("romeo@example.net/orchard", "AAA?AAAAAAAAAAAA"),
            ("nurse@example.com/x", "????A???A?A??AA?"),
            ("room@chat.example.com/juliet", "????A???AAA??AA?"),
            // Who asked, whom nobody knows.
            ("paris@example.com/x", "????A?????A??AA?"),
            ("stranger@example.org", "????A?????A??AA?"),
            ("example.com", "????A?????A??AA?"),
            // A blocked one sees nothing, subscription or not.
            ("tybalt@example.com/street", "----------A-----"),
        ] {
            let found: String = Exit::ALL.iter().map(|&exit| letter(&view(&juliet, &jid(watcher), exit))).collect();
            assert_eq!(found, seen, "{watcher}");
        }
    }

    fn letter(view: &View) -> char {
        match (view.handling, &view.shape) {
            (Handling::Allow, None) => 'A',
            (Handling::Allow, Some(_)) => 'S',
            (Handling::PoliteBlock, _) => 'o',
            (Handling::Confirm, _) => '?',
            (Handling::Block, _) => '-',
        }
    }

    #[test]
    fn a_stranger_sees_the_card_where_the_policy_says_so() {
        let juliet = account("juliet@example.com").policy(|policy| policy.vcards_public = true);
        assert!(view(&juliet, &jid("stranger@example.org"), Exit::VCard).shows());
        assert!(!view(&juliet, &jid("stranger@example.org"), Exit::AccountInfo).shows());
    }
}
