//! WATCHER INFORMATION, RFC 2778 §2.3: who watches, who did within a while, and who tried to.
//!
//! Who is subscribed stands in the roster; what each broadcast tells whom follows from the roster and the view. So only
//! *events* are written down: a subscription begins or ends, somebody fetches, somebody is refused. They are written
//! behind, some seconds later, all together. What notifications a subscriber got is counted by one counter of the account.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::SessionId;
use crate::session;
use std::sync::Arc;
use store::{Change, SETTINGS};
use xmpp::{BareJid, Element, Jid, MessageType, Stamp, Stanza, ns};

pub const NS: &str = "urn:waft:watchers:0";
/// RFC 3858.
pub const WATCHERINFO: &str = "urn:ietf:params:xml:ns:watcherinfo";

/// Where the ledger is kept, in the space of settings.
pub const KEY: &str = "watchers";
/// How long what was noted waits for the disk.
const BEHIND_MS: u64 = 5_000;
/// Fetches within [`POLLER_SECONDS`] that make a fetcher a poller. RFC 2778 §2.2.
const POLLER_FETCHES: usize = 3;
const POLLER_SECONDS: i64 = 86_400;
/// Bytes of a ledger that is read.
const STORED_BYTES_MAX: usize = 512 << 10;

/// What a watcher did last, in the words of RFC 3857 §4.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Subscribe,
    Approved,
    /// The presentity ended it, or refused.
    Rejected,
    /// The watcher ended it, or its time is over.
    Timeout,
}

impl Event {
    const ALL: [Event; 4] = [Event::Subscribe, Event::Approved, Event::Rejected, Event::Timeout];

    fn name(self) -> &'static str {
        match self {
            Event::Subscribe => "subscribe",
            Event::Approved => "approved",
            Event::Rejected => "rejected",
            Event::Timeout => "timeout",
        }
    }

    /// RFC 3857 §4.7.1, figure 1.
    fn status(self) -> &'static str {
        match self {
            Event::Subscribe => "pending",
            Event::Approved => "active",
            Event::Rejected | Event::Timeout => "terminated",
        }
    }
}

/// How it is known that the watcher is who it says. Of another domain's users this server knows that it is the domain
/// that speaks for them; how the domain has shown that is what stands here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Authenticated {
    /// By this server.
    Here,
    /// As nobody in particular. RFC 4505.
    Anonymous,
    /// Its domain, by a certificate that is good for it. RFC 6120 §13.7.2.
    Certificate,
    /// Its domain, by being where DNS says that it is. XEP-0220.
    Dialback,
    /// Its domain is a component of this server. XEP-0114.
    Component,
    /// Its domain, in a way that is not known any more.
    Domain,
}

impl Authenticated {
    const ALL: [Authenticated; 6] = [
        Authenticated::Here,
        Authenticated::Anonymous,
        Authenticated::Certificate,
        Authenticated::Dialback,
        Authenticated::Component,
        Authenticated::Domain,
    ];

    fn name(self) -> &'static str {
        match self {
            Authenticated::Here => "server",
            Authenticated::Anonymous => "anonymous",
            Authenticated::Certificate => "certificate",
            Authenticated::Dialback => "dialback",
            Authenticated::Component => "component",
            Authenticated::Domain => "domain",
        }
    }
}

/// One watcher, for as long as it watches and a while longer.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub who: BareJid,
    pub authenticated: Authenticated,
    /// When it was first and last heard of.
    pub first: Stamp,
    pub last: Stamp,
    /// Of its subscription: what happened last, when, and the account's counter of notifications then.
    pub subscription: Option<(Event, Stamp, u64)>,
    /// Notifications of subscriptions that are over.
    pub notified: u64,
    /// Fetches that were answered, and when the latest were, at most [`POLLER_FETCHES`], oldest first.
    pub fetches: u64,
    pub recent: Vec<Stamp>,
    pub poller: bool,
    /// Attempts that were refused.
    pub refused: u64,
    /// It asked under another name than its own.
    pub pseudonym: bool,
}

impl Row {
    fn new(who: BareJid, authenticated: Authenticated, now: Stamp) -> Row {
        Row {
            who,
            authenticated,
            first: now,
            last: now,
            subscription: None,
            notified: 0,
            fetches: 0,
            recent: Vec::new(),
            poller: false,
            refused: 0,
            pseudonym: false,
        }
    }

    /// It never saw anything.
    fn is_of_attempts_alone(&self) -> bool {
        self.fetches == 0 && !matches!(self.subscription, Some((Event::Approved | Event::Timeout, ..)))
    }

    fn to_stored(&self) -> Element {
        let number = |n: u64| Some(n).filter(|n| *n != 0).map(|n| n.to_string());
        let recent: Vec<String> = self.recent.iter().map(|at| at.0.to_string()).collect();
        let row = Element::new("row", NS)
            .attr("who", self.who.as_str())
            .attr("auth", self.authenticated.name())
            .attr("first", self.first.0.to_string())
            .attr("last", self.last.0.to_string())
            .attr_opt("notified", number(self.notified))
            .attr_opt("fetches", number(self.fetches))
            .attr_opt("refused", number(self.refused))
            .attr_opt("recent", Some(recent.join(" ")).filter(|text| !text.is_empty()))
            .attr_opt("poller", self.poller.then_some("1"))
            .attr_opt("pseudonym", self.pseudonym.then_some("1"));
        match self.subscription {
            Some((event, at, base)) => {
                row.attr("event", event.name()).attr("since", at.0.to_string()).attr("base", base.to_string())
            }
            None => row,
        }
    }

    fn from_stored(row: &Element) -> Option<Row> {
        let stamp = |name: &str| Some(Stamp(row.attribute(name)?.parse().ok()?));
        let number = |name: &str| row.attribute(name).and_then(|n| n.parse().ok()).unwrap_or(0);
        let event = row.attribute("event").and_then(|name| Event::ALL.into_iter().find(|e| e.name() == name));
        let auth = row.attribute("auth")?;
        Some(Row {
            who: BareJid::parse(row.attribute("who")?).ok()?,
            authenticated: Authenticated::ALL.into_iter().find(|a| a.name() == auth)?,
            first: stamp("first")?,
            last: stamp("last")?,
            subscription: event.and_then(|event| Some((event, stamp("since")?, number("base")))),
            notified: number("notified"),
            fetches: number("fetches"),
            recent: row
                .attribute("recent")
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|at| at.parse().ok().map(Stamp))
                .take(POLLER_FETCHES)
                .collect(),
            poller: row.attribute("poller").is_some(),
            refused: number("refused"),
            pseudonym: row.attribute("pseudonym").is_some(),
        })
    }
}

/// The ledger of one account.
#[derive(Debug, Default)]
pub struct Watchers {
    /// By address.
    rows: Vec<Row>,
    /// Attempts of those for whom there was no room.
    unlisted: u64,
    /// Broadcasts of the account, and when the last one was.
    pub notifications: u64,
    pub notified_at: Option<Stamp>,
    /// Of the documents that live updates bring. RFC 3858 §4.1.
    version: u32,
    /// Monotonic milliseconds when what is new is written.
    due_at: Option<u64>,
}

impl Watchers {
    /// As it was stored; empty if it cannot be read.
    pub fn from_stored(value: Option<&[u8]>) -> Watchers {
        let stored = value.filter(|bytes| bytes.len() <= STORED_BYTES_MAX);
        let Some(ledger) = stored.and_then(|bytes| Element::parse(bytes, NS).ok()) else { return Watchers::default() };
        let number = |name: &str| ledger.attribute(name).and_then(|n| n.parse().ok());
        let mut rows: Vec<Row> = ledger.elements().filter_map(Row::from_stored).collect();
        rows.sort_by(|a, b| a.who.cmp(&b.who));
        rows.dedup_by(|a, b| a.who == b.who);
        Watchers {
            rows,
            unlisted: number("unlisted").unwrap_or(0),
            notifications: number("notifications").unwrap_or(0),
            notified_at: ledger.attribute("notified-at").and_then(|at| at.parse().ok().map(Stamp)),
            version: 0,
            due_at: None,
        }
    }

    fn to_stored(&self) -> Vec<u8> {
        Element::new("ledger", NS)
            .attr("unlisted", self.unlisted.to_string())
            .attr("notifications", self.notifications.to_string())
            .attr_opt("notified-at", self.notified_at.map(|at| at.0.to_string()))
            .children_from(self.rows.iter().map(Row::to_stored))
            .to_bytes("")
    }

    /// Has nothing been noted yet?
    pub fn is_new(&self) -> bool {
        self.rows.is_empty() && self.unlisted == 0 && self.notifications == 0
    }

    /// A write failed: it is tried again.
    pub fn again(&mut self, mono_ms: u64) {
        if !self.is_new() && self.due_at.is_none() {
            self.due_at = Some(mono_ms + BEHIND_MS);
        }
    }

    /// Is there something that is not on disk?
    pub fn is_behind(&self) -> bool {
        self.due_at.is_some()
    }

    pub fn due_at(&self) -> Option<u64> {
        self.due_at
    }

    /// The change that writes what is new, if it is time; `None` if nothing is.
    fn write(&mut self, account: &BareJid, now: Stamp, mono_ms: u64, window_days: u32) -> Option<Change> {
        self.due_at.filter(|at| *at <= mono_ms)?;
        self.due_at = None;
        self.prune(now, window_days);
        let (account, space, key) = (account.clone(), SETTINGS.into(), KEY.into());
        Some(Change::BlobPut { account, space, key, value: self.to_stored() })
    }

    /// Takes out who has not been heard of within the window. Subscribers stay: the roster has them.
    fn prune(&mut self, now: Stamp, window_days: u32) {
        let since = now.plus_seconds(-i64::from(window_days) * 86_400);
        let is_kept =
            |row: &Row| row.last >= since || matches!(row.subscription, Some((Event::Approved | Event::Subscribe, ..)));
        self.rows.retain(is_kept);
    }

    pub fn row(&self, who: &Jid) -> Option<&Row> {
        self.find(who).ok().map(|at| &self.rows[at])
    }

    fn find(&self, who: &Jid) -> Result<usize, usize> {
        self.rows.binary_search_by(|row| row.who.as_str().cmp(who.bare_str()))
    }

    /// The row of a watcher, made if need be. At most `rows_max`: then somebody goes who has only tried, or has been gone
    /// for longest. `None`: only more important ones are there, and the attempt is counted with those of no name.
    fn entry(
        &mut self,
        who: &Jid,
        authenticated: Authenticated,
        attempt: bool,
        now: Stamp,
        rows_max: usize,
    ) -> Option<&mut Row> {
        let at = match self.find(who) {
            Ok(at) => at,
            Err(at) => {
                let at = at - self.make_room(at, attempt, rows_max)?;
                self.rows.insert(at, Row::new(who.to_bare(), authenticated, now));
                at
            }
        };
        Some(&mut self.rows[at])
    }

    /// Says how many rows in front of `at` went.
    fn make_room(&mut self, at: usize, attempt: bool, rows_max: usize) -> Option<usize> {
        // Those who have only tried have a quarter of the room: they never push out who has seen something.
        let of_attempts = || self.rows.iter().enumerate().filter(|(_, row)| row.is_of_attempts_alone());
        let tried = of_attempts().count();
        let oldest_attempt = of_attempts().min_by_key(|(_, row)| row.last).map(|(at, _)| at);
        if attempt && tried >= (rows_max / 4).max(1) {
            self.unlisted = self.unlisted.saturating_add(self.rows[oldest_attempt?].refused);
            self.rows.remove(oldest_attempt?);
            return Some(usize::from(oldest_attempt? < at));
        }
        if self.rows.len() < rows_max {
            return Some(0);
        }
        let is_over = |row: &Row| !matches!(row.subscription, Some((Event::Approved, ..)));
        let seen = self.rows.iter().enumerate().filter(|(_, row)| is_over(row)).min_by_key(|(_, row)| row.last);
        let goes = oldest_attempt.or(seen.map(|(at, _)| at))?;
        self.rows.remove(goes);
        Some(usize::from(goes < at))
    }
}

/// How this watcher is authenticated. RFC 2779 §5.1.12.
fn authenticated(account: &Account, who: &Jid) -> Authenticated {
    account.policy.authenticated(who)
}

/// Somebody was answered a fetch.
pub fn fetched(account: &mut Account, who: &Jid, pseudonym: bool, fx: &mut Effects) {
    let now = account.now.utc;
    note(account, who, false, fx, |row| {
        row.fetches += 1;
        row.pseudonym |= pseudonym;
        if row.recent.len() == POLLER_FETCHES {
            row.recent.remove(0);
        }
        row.recent.push(now);
        row.poller |= row.recent.len() == POLLER_FETCHES && now.seconds_since(row.recent[0]) <= POLLER_SECONDS;
    });
}

/// Somebody wanted to see something and was refused.
pub fn refused(account: &mut Account, who: &Jid, fx: &mut Effects) {
    note(account, who, true, fx, |row| row.refused += 1);
}

/// Something became of the subscription of a contact to the account's presence.
pub fn subscription(account: &mut Account, who: &Jid, event: Event, fx: &mut Effects) {
    let (now, notifications) = (account.now.utc, account.watchers.notifications);
    note(account, who, event == Event::Subscribe, fx, |row| {
        if let Some((Event::Approved, _, base)) = row.subscription
            && event != Event::Approved
        {
            row.notified += notifications - base.min(notifications);
        }
        match row.subscription {
            // To ask again changes nothing.
            Some((Event::Approved, ..)) if event == Event::Approved => {}
            _ => row.subscription = Some((event, now, notifications)),
        }
        row.refused += u64::from(event == Event::Rejected);
    });
}

/// The watcher's server says that this is not its own name. Goes to the disk with what was noted of it.
pub fn is_pseudonym(account: &mut Account, who: &Jid) {
    if let Ok(at) = account.watchers.find(who) {
        account.watchers.rows[at].pseudonym = true;
    }
}

/// The presence of a resource was told to all watchers. Nothing is written for it.
pub fn notified(account: &mut Account) {
    account.watchers.notifications += 1;
    account.watchers.notified_at = Some(account.now.utc);
}

fn note(account: &mut Account, who: &Jid, attempt: bool, fx: &mut Effects, change: impl FnOnce(&mut Row)) {
    if who.same_bare(&account.jid) || who.local().is_none() && account.policy.domain == who.to_bare() {
        return;
    }
    let how = authenticated(account, who);
    let (now, rows_max) = (account.now.utc, account.policy.limits.watchers_max);
    let watchers = &mut account.watchers;
    match watchers.entry(who, how, attempt, now, rows_max) {
        Some(row) => {
            row.last = now;
            row.authenticated = how;
            change(row);
        }
        None => watchers.unlisted += 1,
    }
    if watchers.due_at.is_none() {
        let due_at = account.now.mono_ms + BEHIND_MS;
        watchers.due_at = Some(due_at);
        fx.push(Effect::WakeAt { mono_ms: due_at });
    }
    tell(account, who, fx);
}

/// What is new, if it is time to write it.
pub fn write(account: &mut Account) -> Option<Change> {
    let (now, days) = (account.now, account.policy.limits.watchers_days_max);
    account.watchers.write(&account.jid, now.utc, now.mono_ms, days)
}

/// What was counted of broadcasts goes to the disk with what is written anyway, as the last resource leaves.
pub fn settle(account: &mut Account) -> Option<Change> {
    if account.watchers.rows.is_empty() {
        return None;
    }
    account.watchers.due_at = Some(0);
    write(account)
}

/// Sessions that asked for it hear of the change at once. RFC 3857 §4.7.2.
fn tell(account: &mut Account, who: &Jid, fx: &mut Effects) {
    let interested: Vec<SessionId> = account.sessions.iter().filter(|s| s.watches_watchers).map(|s| s.id).collect();
    if interested.is_empty() {
        return;
    }
    account.watchers.version += 1;
    let event = Element::new("event", NS).child(document(account, Shown::One(who), "partial"));
    for id in interested {
        let Some(session) = account.session(id) else { continue };
        let stanza = Stanza::message(MessageType::Headline)
            .with_from(account.jid.clone())
            .with_to(session.jid.clone())
            .with_children([event.clone(), Element::new("no-store", ns::HINTS)]);
        let delivery = Delivery::plain(Arc::new(stanza));
        session::deliver(account, id, delivery, fx);
    }
}

/// Whose rows.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    All,
    One(&'a Jid),
}

/// The document, RFC 3858 §4: one list of watchers, each with a row of what the RFC has no word for.
pub fn document(account: &Account, shown: Shown<'_>, state: &str) -> Element {
    let mut all: Vec<(Element, Element)> = Vec::new();
    let is_shown = |who: &Jid| match shown {
        Shown::All => true,
        Shown::One(one) => one.same_bare(who),
    };
    let since = account.now.utc.plus_seconds(-i64::from(account.policy.limits.watchers_days_max) * 86_400);
    for row in account.watchers.rows.iter().filter(|row| is_shown(&row.who)) {
        if row.last >= since || account.roster.subscription(&row.who).from {
            all.push(entry(account, &row.who, Some(row)));
        }
    }
    // Who subscribed before there was a ledger, or while there was no room in it.
    let unknown = account.roster.all().filter(|it| it.subscription.from || it.subscription.pending_in);
    for item in unknown.filter(|it| is_shown(&it.jid) && account.watchers.row(&it.jid).is_none()) {
        all.push(entry(account, &item.jid, None));
    }
    let (watchers, rows): (Vec<Element>, Vec<Element>) = all.into_iter().unzip();
    let unlisted = account.watchers.unlisted;
    let unlisted = matches!(shown, Shown::All).then_some(unlisted).filter(|n| *n != 0);
    let unlisted = unlisted.map(|n| Element::new("unlisted", NS).attr("refused", n.to_string()));
    let list = Element::new("watcher-list", WATCHERINFO)
        .attr("resource", format!("pres:{}", account.jid.as_str()))
        .attr("package", "presence")
        .children_from(watchers)
        .children_from(rows)
        .children_from(unlisted);
    let version = if state == "full" { 0 } else { account.watchers.version };
    Element::new("watcherinfo", WATCHERINFO).attr("version", version.to_string()).attr("state", state).child(list)
}

/// What stands in the document about one watcher: its line of RFC 3858, and its row.
fn entry(account: &Account, who: &BareJid, row: Option<&Row>) -> (Element, Element) {
    let subscription = account.roster.subscription(who);
    let event = match row.and_then(|row| row.subscription) {
        _ if subscription.from => Event::Approved,
        _ if subscription.pending_in => Event::Subscribe,
        Some((event, ..)) if event.status() == "terminated" => event,
        // Somebody answered it meanwhile, or nobody can any more.
        Some(_) => Event::Rejected,
        None if row.is_some_and(|row| row.fetches > 0) => Event::Timeout,
        None => Event::Rejected,
    };
    let kind = match row {
        _ if subscription.from || subscription.pending_in => "subscriber",
        Some(row) if row.poller => "poller",
        Some(row) if row.fetches > 0 => "fetcher",
        Some(row) if row.subscription.is_some() => "subscriber",
        _ => "refused",
    };
    let since = row.and_then(|row| row.subscription).filter(|_| subscription.from).map(|(_, at, _)| at);
    let id = crate::pidf::opaque_id(account.created.0, who.as_str());
    let ends = account.leases.granted(who).map(|lease| lease.expires);
    let now = account.now.utc;
    let watcher = Element::new("watcher", WATCHERINFO)
        .attr("id", &id)
        .attr("status", event.status())
        .attr("event", event.name())
        .attr_opt("duration-subscribed", since.map(|at| now.seconds_since(at).max(0).to_string()))
        .attr_opt("expiration", ends.map(|at| at.seconds_since(now).max(0).to_string()))
        .text(crate::pidf::uri_of(who));
    let counts = row.map_or(0, |row| {
        let base = row.subscription.map_or(account.watchers.notifications, |(_, _, base)| base);
        let running = if subscription.from {
            account.watchers.notifications - base.min(account.watchers.notifications)
        } else {
            0
        };
        row.notified + running
    });
    let last = row.map(|row| row.last);
    let last = if subscription.from { last.max(account.watchers.notified_at) } else { last };
    let details = Element::new("row", NS)
        .attr("id", &id)
        .attr("jid", who.as_str())
        .attr("kind", kind)
        .attr("auth", row.map_or_else(|| authenticated(account, who), |row| row.authenticated).name())
        .attr_opt("first", row.map(|row| row.first.to_xmpp()))
        .attr_opt("last", last.map(|at| at.to_xmpp()))
        .attr("notifications", counts.to_string())
        .attr("fetches", row.map_or(0, |row| row.fetches).to_string())
        .attr("refused", row.map_or(0, |row| row.refused).to_string())
        .attr_opt("pseudonym", row.filter(|row| row.pseudonym).map(|_| "true"));
    (watcher, details)
}

/// What another watcher may read: its own row, if it has a subscription, asked for one, or was answered. Whoever was only
/// refused hears nothing, else the answer would tell that there is an account.
pub fn own_row(account: &Account, who: &Jid) -> bool {
    let subscription = account.roster.subscription(who);
    let answered = account.watchers.row(who).is_some_and(|row| row.fetches > 0);
    !account.blocks.blocks(who) && (subscription.from || subscription.pending_in || answered)
}
