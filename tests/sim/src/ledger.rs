//! What the clients did, what they were told, and what they saw; and the checkers that compare it.
//!
//! Each checker is one function in [`CHECKERS`]. They look when all is calm: what the network and the disks did before
//! is over, and the stated bounds have passed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;
use tokio::time::Instant;

/// A message's name: device, number.
pub type Id = (usize, u64);

#[derive(Debug, Clone)]
pub struct Message {
    pub from: usize,
    pub to: usize,
    pub body: String,
    /// Number of the sender's binding in which it was first sent.
    pub binding: u64,
    pub at: Instant,
    pub managed: bool,
    pub acked: bool,
    pub error: Option<String>,
    /// It was sent again in another binding, and the copy may have been refused.
    pub again: bool,
    /// Errors that came; more than one is one too many.
    pub errors: u32,
}

/// A live delivery.
#[derive(Debug, Clone)]
pub struct Receipt {
    pub device: usize,
    pub binding: u64,
    pub stanza_id: Option<String>,
    pub crashes: u64,
}

/// A line of an archive.
#[derive(Debug, Clone)]
pub struct Entry {
    pub stanza_id: String,
    pub from: String,
    pub to: String,
    pub id: Option<String>,
    pub body: String,
}

/// A status that a device published: its number is its index.
#[derive(Debug, Clone)]
pub struct Published {
    pub at: Instant,
    /// The server surely has something newer since.
    pub over: Option<Instant>,
}

/// From when till when an account allowed another to see its presence.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub from: Instant,
    pub until: Option<Instant>,
}

/// What an account's access rules say of one watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// Nothing: the roster decides.
    Silent,
    /// He sees nothing; `polite`: he sees somebody who is away.
    Hidden { polite: bool },
    /// He sees all but the words.
    Wordless,
}

impl Rule {
    /// Are his requests granted without the owner?
    fn grants(self) -> bool {
        matches!(self, Rule::Wordless | Rule::Hidden { polite: true })
    }
}

/// A rule that was surely in force, from when till when.
#[derive(Debug, Clone, Copy)]
pub struct Ruled {
    pub rule: Rule,
    pub from: Instant,
    pub until: Option<Instant>,
}

/// All that an account's rules said of one watcher.
#[derive(Debug, Clone, Default)]
pub struct RulesOf {
    sure: Vec<Ruled>,
    /// The last edit was not answered: it is in force, or is not.
    doubtful: bool,
    ever_polite: bool,
    ever_wordless: bool,
}

#[derive(Debug, Clone)]
pub struct Question {
    pub device: usize,
    pub binding: u64,
    pub at: Instant,
    /// Its answer comes from another domain: it may be lost on the way.
    pub far: bool,
    /// Crashes of the own server when it was asked.
    pub crashes: u64,
    pub answers: u32,
    pub what: String,
}

/// A device as it is when all is calm.
#[derive(Debug, Clone, Default)]
pub struct Final {
    pub online: bool,
    pub managed: bool,
    pub binding: u64,
    /// Of its last presence; `None`: not available.
    pub status: Option<u64>,
    pub jid: String,
    /// Available full JIDs and their statuses, as it was told.
    pub view: BTreeMap<String, String>,
    /// Bare JID and subscription, as the server says when asked.
    pub roster: BTreeMap<String, (String, bool)>,
    /// The same, by the pushes it had.
    pub pushed: BTreeMap<String, (String, bool)>,
    pub archive: Vec<Entry>,
    pub unacked: usize,
    /// Who asked for a subscription and has no answer.
    pub requests: BTreeSet<String>,
}

/// When two servers were troubled: cut, walled, or one of them down.
#[derive(Debug, Clone, Copy)]
pub struct Trouble {
    pub one: usize,
    /// `None`: with all.
    pub other: Option<usize>,
    pub from: Instant,
    pub until: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Violation {
    pub checker: &'static str,
    pub what: String,
}

pub struct Ledger {
    pub began: Instant,
    /// Of each account: its server. Its bare JID.
    pub accounts: Vec<(usize, String)>,
    /// Of each device: its account.
    pub devices: Vec<usize>,
    /// Of each device: does it acknowledge?
    pub managed: Vec<bool>,
    pub messages: BTreeMap<Id, Message>,
    pub receipts: BTreeMap<Id, Vec<Receipt>>,
    pub published: BTreeMap<usize, Vec<Published>>,
    /// By the roster.
    pub allowed: BTreeMap<(usize, usize), Vec<Allowed>>,
    /// By a rule that grants whatever is asked for.
    pub granted: BTreeMap<(usize, usize), Vec<Allowed>>,
    pub rules: BTreeMap<(usize, usize), RulesOf>,
    pub questions: BTreeMap<(usize, String), Question>,
    pub finals: BTreeMap<usize, Final>,
    /// Devices that must be there when all is calm.
    pub expected: Vec<usize>,
    pub troubles: Vec<Trouble>,
    pub crashes: Vec<u64>,
    pub full_disks: u64,
    /// What is seen at once to be wrong.
    pub found: Vec<Violation>,
    /// Of all that was said and heard, with its time.
    pub hash: u64,
    pub events: u64,
    /// Kept only when somebody wants to read it.
    pub log: Option<Vec<String>>,
    /// Events are printed as they happen, between what the servers log.
    pub live: bool,
}

impl Ledger {
    pub fn new(accounts: Vec<(usize, String)>, devices: Vec<usize>, servers: usize, keep_log: bool) -> Ledger {
        Ledger {
            began: Instant::now(),
            accounts,
            managed: vec![true; devices.len()],
            devices,
            messages: BTreeMap::new(),
            receipts: BTreeMap::new(),
            published: BTreeMap::new(),
            allowed: BTreeMap::new(),
            granted: BTreeMap::new(),
            rules: BTreeMap::new(),
            questions: BTreeMap::new(),
            finals: BTreeMap::new(),
            expected: Vec::new(),
            troubles: Vec::new(),
            crashes: vec![0; servers],
            full_disks: 0,
            found: Vec::new(),
            hash: 0xcbf2_9ce4_8422_2325,
            events: 0,
            log: keep_log.then(Vec::new),
            live: false,
        }
    }

    /// One line of what happens.
    pub fn trace(&mut self, who: &str, what: &str) {
        self.events += 1;
        let at = self.began.elapsed().as_millis() as u64;
        for byte in at.to_le_bytes().iter().chain(who.as_bytes()).chain(what.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
        if self.live {
            eprintln!("{:>4}.{:03} {who} {what}", at / 1000, at % 1000);
        } else if let Some(log) = &mut self.log {
            log.push(format!("{:>4}.{:03} {who} {what}", at / 1000, at % 1000));
        }
    }

    pub fn wrong(&mut self, checker: &'static str, what: String) {
        self.trace("wrong", &what);
        self.found.push(Violation { checker, what });
    }

    pub fn account_of(&self, jid: &str) -> Option<usize> {
        let bare = jid.split('/').next().unwrap_or_default();
        self.accounts.iter().position(|(_, it)| it == bare)
    }

    fn server_of(&self, account: usize) -> usize {
        self.accounts[account].0
    }

    // ---- what happens ----

    pub fn delivered(&mut self, device: usize, binding: u64, id: Id, stanza_id: Option<String>) {
        let crashes = self.crashes[self.server_of(self.devices[device])];
        self.receipts.entry(id).or_default().push(Receipt { device, binding, stanza_id, crashes });
    }

    /// Is this a message that was sent to this account? Then its name.
    pub fn recognise(&self, account: usize, from: &str, body: &str) -> Result<Id, String> {
        let mut parts = body.split(':').skip(1);
        let number = |text: Option<&str>| text.and_then(|it| it.parse::<u64>().ok());
        let (Some(device), Some(number)) = (number(parts.next()), number(parts.next())) else {
            return Err(format!("nobody wrote {body:?}"));
        };
        let id = (device as usize, number);
        match self.messages.get(&id) {
            None => Err(format!("{id:?} was never sent: {body:?}")),
            Some(message) if message.body != body => Err(format!("{id:?} was {:?} and came as {body:?}", message.body)),
            Some(message) if message.to != account && message.from != account => {
                Err(format!("{id:?} came to somebody else: {}", self.accounts[account].1))
            }
            Some(message) if self.account_of(from) != Some(message.from) => {
                Err(format!("{id:?} came from {from} and was sent by {}", self.accounts[message.from].1))
            }
            Some(_) => Ok(id),
        }
    }

    pub fn said_again(&mut self, id: Option<Id>) {
        if let Some(message) = id.and_then(|id| self.messages.get_mut(&id)) {
            message.again = true;
        }
    }

    pub fn publish(&mut self, device: usize) -> u64 {
        let all = self.published.entry(device).or_default();
        all.push(Published { at: Instant::now(), over: None });
        all.len() as u64 - 1
    }

    /// The server has what was said after this status.
    pub fn superseded(&mut self, device: usize, before: u64) {
        let now = Instant::now();
        if let Some(all) = self.published.get_mut(&device) {
            for status in all.iter_mut().take(before as usize) {
                status.over.get_or_insert(now);
            }
        }
    }

    pub fn allow(&mut self, presentity: usize, watcher: usize, yes: bool) {
        let now = Instant::now();
        let all = self.allowed.entry((presentity, watcher)).or_default();
        let open = all.last_mut().filter(|it| it.until.is_none());
        match (yes, open) {
            (true, None) => all.push(Allowed { from: now, until: None }),
            // Said a moment ago: this may be the echo of something older.
            (false, Some(it)) if now.duration_since(it.from) > Duration::from_secs(60) => it.until = Some(now),
            (true, Some(it)) => it.from = it.from.min(now),
            (false, _) => {}
        }
    }

    /// An account asks its server for another rule: the old one is no longer sure.
    pub fn rule_sent(&mut self, presentity: usize, watcher: usize, rule: Rule) {
        let now = Instant::now();
        let of = self.rules.entry((presentity, watcher)).or_default();
        of.doubtful = true;
        of.ever_polite |= rule == Rule::Hidden { polite: true };
        of.ever_wordless |= rule == Rule::Wordless;
        if let Some(open) = of.sure.last_mut().filter(|it| it.until.is_none() && it.rule != rule) {
            open.until = Some(now);
        }
        if rule.grants() {
            let granted = self.granted.entry((presentity, watcher)).or_default();
            if granted.last().is_none_or(|it| it.until.is_some()) {
                granted.push(Allowed { from: now, until: None });
            }
        }
    }

    /// … and hears that the one it asked for last is in force.
    pub fn rule_in_force(&mut self, presentity: usize, watcher: usize, rule: Rule) {
        let now = Instant::now();
        let of = self.rules.entry((presentity, watcher)).or_default();
        of.doubtful = false;
        if of.sure.last().is_none_or(|it| it.until.is_some()) {
            of.sure.push(Ruled { rule, from: now, until: None });
        }
        if !rule.grants()
            && let Some(open) = self.granted.get_mut(&(presentity, watcher)).and_then(|all| all.last_mut())
        {
            open.until.get_or_insert(now);
        }
    }

    /// The rule when all is calm; `None`: who knows?
    fn rule_now(&self, presentity: usize, watcher: usize) -> Option<Rule> {
        match self.rules.get(&(presentity, watcher)) {
            None => Some(Rule::Silent),
            Some(of) if of.doubtful => None,
            Some(of) => of.sure.last().filter(|it| it.until.is_none()).map(|it| it.rule),
        }
    }

    /// Were these words, published then and not outdated before `until`, kept from the watcher by a rule all the time?
    fn ruled_out(&self, presentity: usize, watcher: usize, published: Instant, until: Instant) -> bool {
        self.rules.get(&(presentity, watcher)).is_some_and(|of| {
            of.sure
                .iter()
                .any(|it| it.rule != Rule::Silent && it.from <= published && it.until.is_none_or(|over| over >= until))
        })
    }

    /// A device was shown somebody's presence.
    pub fn saw(&mut self, device: usize, from: &str, status: &str) {
        let watcher = self.devices[device];
        if status.is_empty()
            && let Some(presentity) = self.account_of(from)
            && self.rules.get(&(presentity, watcher)).is_some_and(|it| it.ever_wordless)
        {
            return;
        }
        let mut parts = status.split(':').skip(1).map(str::parse::<u64>);
        let (Some(presentity), Some(Ok(whose)), Some(Ok(number))) = (self.account_of(from), parts.next(), parts.next())
        else {
            return self.wrong("presence", format!("device {device} saw {from} with a status of nobody: {status:?}"));
        };
        if presentity == watcher {
            return;
        }
        let Some(published) = self.published.get(&(whose as usize)).and_then(|all| all.get(number as usize)) else {
            return self.wrong("presence", format!("device {device} saw {from} with {status:?}, never published"));
        };
        let of = |allowed: &BTreeMap<(usize, usize), Vec<Allowed>>| {
            allowed.get(&(presentity, watcher)).is_some_and(|all| {
                all.iter().any(|it| {
                    published.over.is_none_or(|over| it.from <= over)
                        && it.until.is_none_or(|until| until >= published.at)
                })
            })
        };
        let until = published.over.unwrap_or_else(Instant::now);
        let ruled_out = self.ruled_out(presentity, watcher, published.at, until);
        if ruled_out || !(of(&self.allowed) || of(&self.granted)) {
            let what = format!("device {device} of {} saw {from} {status:?}", self.accounts[watcher].1);
            self.wrong("view", what);
        }
    }

    fn troubled(&self, one: usize, other: usize, from: Instant, until: Instant) -> bool {
        self.troubles.iter().any(|it| {
            let these = match it.other {
                Some(it_other) => (it.one, it_other) == (one, other) || (it.one, it_other) == (other, one),
                None => it.one == one || it.one == other,
            };
            these && it.from <= until && it.until >= from
        })
    }

    /// Could the way of this message have failed between two servers?
    fn doubtful_way(&self, message: &Message) -> bool {
        let (one, other) = (self.server_of(message.from), self.server_of(message.to));
        one != other
            && self.troubled(one, other, message.at.checked_sub(BEFORE).unwrap_or(self.began), message.at + AFTER)
    }

    /// Does a request of this contact wait for an answer? Then the account's server says neither yes nor no.
    fn is_asked(&self, account: usize, contact: &str) -> bool {
        self.finals.iter().any(|(device, it)| self.devices[*device] == account && it.requests.contains(contact))
    }

    fn online(&self, account: usize) -> impl Iterator<Item = (&usize, &Final)> {
        self.finals.iter().filter(move |(device, it)| it.online && self.devices[**device] == account)
    }

    /// The archive of an account, as one of its devices read it.
    fn archive(&self, account: usize) -> Option<&[Entry]> {
        self.online(account).next().map(|(_, it)| it.archive.as_slice())
    }
}

/// Trouble so long before or after a message was sent may have hit it between two servers.
const BEFORE: Duration = Duration::from_secs(120);
const AFTER: Duration = Duration::from_secs(120);

pub type Checker = fn(&Ledger, &mut Vec<String>);

/// All checkers, by name.
pub const CHECKERS: &[(&str, Checker)] = &[
    ("lost", lost),
    ("doubled", doubled),
    ("reordered", reordered),
    ("invented", invented),
    ("outcome", outcome),
    ("undelivered", undelivered),
    ("answers", answers),
    ("presence", presence),
    ("ghosts", ghosts),
    ("subscriptions", subscriptions),
    ("pushes", pushes),
    ("view", nothing),
    ("bounds", nothing),
];

/// Those whose findings are made at once, while the scene goes on.
fn nothing(_: &Ledger, _: &mut Vec<String>) {}

fn entry_id(entry: &Entry) -> Option<Id> {
    let mut parts = entry.body.split(':').skip(1).map(str::parse::<u64>);
    Some((parts.next()?.ok()? as usize, parts.next()?.ok()?))
}

/// How often each message is in an account's archive, as received or as sent.
fn archived(ledger: &Ledger, account: usize) -> Option<BTreeMap<Id, u32>> {
    let mut all = BTreeMap::new();
    for entry in ledger.archive(account)? {
        if let Some(id) = entry_id(entry) {
            *all.entry(id).or_insert(0) += 1;
        }
    }
    Some(all)
}

/// What was acknowledged and not refused is in the archives of both.
fn lost(ledger: &Ledger, out: &mut Vec<String>) {
    for (account, (_, jid)) in ledger.accounts.iter().enumerate() {
        let Some(archive) = archived(ledger, account) else { continue };
        for (id, message) in &ledger.messages {
            if !message.acked || message.error.is_some() || archive.contains_key(id) {
                continue;
            }
            // Without space the sender's own copy is dispensed with.
            if message.from == account && ledger.full_disks == 0
                || message.to == account && !ledger.doubtful_way(message)
            {
                out.push(format!("{id:?} was acknowledged and is not in the archive of {jid}"));
            }
        }
    }
}

fn doubled(ledger: &Ledger, out: &mut Vec<String>) {
    for (account, (_, jid)) in ledger.accounts.iter().enumerate() {
        for (id, times) in archived(ledger, account).unwrap_or_default() {
            let both = ledger.messages.get(&id).is_some_and(|it| it.from == it.to);
            if times > 1 + u32::from(both) {
                out.push(format!("{id:?} is {times} times in the archive of {jid}"));
            }
        }
    }
    for (id, receipts) in &ledger.receipts {
        let to = ledger.messages.get(id).map(|it| it.to);
        let of_receiver = receipts.iter().filter(|it| to == Some(ledger.devices[it.device]));
        let names: BTreeSet<_> = of_receiver.filter_map(|it| it.stanza_id.as_ref()).collect();
        if names.len() > 1 {
            out.push(format!("{id:?} was shown under several ids: {names:?}"));
        }
        for (n, receipt) in receipts.iter().enumerate() {
            // A crash, or a binding that was not resumed, may forget what was taken; the id is the same then.
            let again = receipts[..n].iter().any(|earlier| {
                (earlier.device, earlier.binding, earlier.crashes) == (receipt.device, receipt.binding, receipt.crashes)
            });
            if again {
                out.push(format!("{id:?} was shown twice to device {}", receipt.device));
            }
        }
    }
}

/// What one binding of a device sent to one account stands in its order.
fn reordered(ledger: &Ledger, out: &mut Vec<String>) {
    for (account, (_, jid)) in ledger.accounts.iter().enumerate() {
        let mut newest: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        for entry in ledger.archive(account).unwrap_or_default() {
            let Some((id, message)) = entry_id(entry).and_then(|id| Some((id, ledger.messages.get(&id)?))) else {
                continue;
            };
            // What was said again in another binding comes when it comes; so does what a full disk elsewhere refused and
            // the own server says again, because the refusal was lost with the connection.
            let refused = ledger.full_disks > 0 && ledger.doubtful_way(message);
            if message.to != account || message.again || refused {
                continue;
            }
            let last = newest.entry((id.0, message.binding)).or_insert(id.1);
            if *last > id.1 {
                out.push(format!("{id:?} stands behind {last} of the same sender in the archive of {jid}"));
            }
            *last = (*last).max(id.1);
        }
    }
}

fn invented(ledger: &Ledger, out: &mut Vec<String>) {
    for (account, (_, jid)) in ledger.accounts.iter().enumerate() {
        for entry in ledger.archive(account).unwrap_or_default() {
            if let Err(why) = ledger.recognise(account, &entry.from, &entry.body) {
                out.push(format!("in the archive of {jid}: {why}"));
            }
        }
    }
}

/// Every message has one outcome, and its sender knows which.
fn outcome(ledger: &Ledger, out: &mut Vec<String>) {
    for (id, message) in &ledger.messages {
        let sender = ledger.finals.get(&id.0);
        // A server that crashed after it gave a message back gives it back again.
        let from = ledger.server_of(message.from);
        let crashed = |it: &Trouble| it.other.is_none() && it.one == from && it.until >= message.at;
        if message.errors > 1 && !message.again && !ledger.troubles.iter().any(crashed) {
            out.push(format!("{id:?} was refused {} times", message.errors));
        }
        if message.managed
            && !message.acked
            && message.error.is_none()
            && sender.is_some_and(|it| it.online && it.managed)
        {
            out.push(format!("{id:?} was neither acknowledged nor refused"));
        }
        if let Some(error) = &message.error
            && message.from != message.to
            && !(ledger.doubtful_way(message) || message.again)
            && archived(ledger, message.to).is_some_and(|archive| archive.contains_key(id))
        {
            out.push(format!("{id:?} was refused with {error} and is in the archive of its receiver"));
        }
    }
}

/// What waits in a log is shown to whoever is there to take it.
fn undelivered(ledger: &Ledger, out: &mut Vec<String>) {
    for (account, (_, jid)) in ledger.accounts.iter().enumerate() {
        // To a client that acknowledges nothing a message is shown when the kernel has it.
        let all_acknowledge =
            ledger.managed.iter().zip(&ledger.devices).all(|(managed, it)| *managed || *it != account);
        if !all_acknowledge || !ledger.online(account).any(|(_, it)| it.status.is_some()) {
            continue;
        }
        for id in archived(ledger, account).unwrap_or_default().keys() {
            let shown =
                ledger.receipts.get(id).is_some_and(|all| all.iter().any(|it| ledger.devices[it.device] == account));
            // What somebody wrote who was politely blocked waits until the rule is gone.
            let waits = |from| ledger.rules.get(&(account, from)).is_some_and(|it| it.ever_polite);
            let is_for_it = |it: &Message| it.to == account && it.from != account && !waits(it.from);
            if ledger.messages.get(id).is_some_and(is_for_it) && !shown {
                out.push(format!("{id:?} lies in the log of {jid} and was shown to none of its devices"));
            }
        }
    }
}

/// Every request is answered once, and whoever wants to be there is.
fn answers(ledger: &Ledger, out: &mut Vec<String>) {
    for device in &ledger.expected {
        if !ledger.finals.get(device).is_some_and(|it| it.online) {
            out.push(format!("device {device} could not come back"));
        }
    }
    for ((device, id), question) in &ledger.questions {
        // Between servers a question is asked again when the connection broke, and so may be answered again.
        let here = ledger.server_of(ledger.devices[*device]);
        let broke =
            |it: &Trouble| it.until >= question.at && (it.other.is_none() || it.one == here || it.other == Some(here));
        if question.answers > 1 && !(question.far && ledger.troubles.iter().any(broke)) {
            out.push(format!("{id} of device {device} was answered {} times: {}", question.answers, question.what));
        }
        let here = ledger.finals.get(device).is_some_and(|it| it.online && it.binding == question.binding);
        let crashed = ledger.crashes[ledger.server_of(ledger.devices[*device])] != question.crashes;
        if question.answers == 0 && here && !question.far && !crashed {
            out.push(format!("{id} of device {device} was never answered: {}", question.what));
        }
    }
}

/// Whoever may see a contact sees it as it is: its available devices, with what they last said.
fn presence(ledger: &Ledger, out: &mut Vec<String>) {
    watch(ledger, |watcher, jid, truth, seen| match (truth, seen) {
        (Some(truth), Some(seen)) if truth == seen => {}
        (Some(truth), seen) => out.push(format!("{watcher} sees {jid} as {seen:?}; it is {truth:?}")),
        (None, _) => {}
    });
}

/// Nobody is seen who is not there.
fn ghosts(ledger: &Ledger, out: &mut Vec<String>) {
    watch(ledger, |watcher, jid, truth, seen| {
        if let (None, Some(seen)) = (truth, seen) {
            out.push(format!("{watcher} sees {jid} as {seen:?}; it is not there"));
        }
    });
}

fn watch(ledger: &Ledger, mut look: impl FnMut(&str, &str, Option<&str>, Option<&str>)) {
    for (device, watcher) in ledger.finals.iter().filter(|(_, it)| it.online && it.status.is_some()) {
        let account = ledger.devices[*device];
        let mut truth: BTreeMap<&str, String> = BTreeMap::new();
        let own = &ledger.accounts[account].1;
        let mut doubtful = BTreeSet::new();
        for (other, it) in &ledger.finals {
            let presentity = ledger.devices[*other];
            let watches = presentity == account || watcher.sees(&ledger.accounts[presentity].1);
            // It ended the subscription, and what said so was lost on the way to the other domain.
            // (Or by a crash between its own row and the other's: what was not acknowledged this client does not repeat.)
            let far = ledger.server_of(presentity) != ledger.server_of(account);
            if !watches && it.is_seen_by(own) && (far || ledger.crashes[ledger.server_of(account)] > 0) {
                doubtful.insert(it.jid.as_str());
            }
            let rule = if presentity == account { Some(Rule::Silent) } else { ledger.rule_now(presentity, account) };
            // Whoever blocks somebody politely does not ask for his presence either.
            let blocks = ledger.rules.get(&(account, presentity)).is_some_and(|it| it.ever_polite);
            let Some(rule) = rule.filter(|_| !blocks && !ledger.is_asked(presentity, own)) else {
                doubtful.insert(it.jid.as_str());
                continue;
            };
            if let Some(status) = it.status.filter(|_| it.online && watches && other != device) {
                match rule {
                    Rule::Silent => drop(truth.insert(&it.jid, format!("s:{other}:{status}"))),
                    Rule::Wordless => drop(truth.insert(&it.jid, String::new())),
                    Rule::Hidden { .. } => {}
                }
            }
        }
        let name = format!("device {device} ({})", watcher.jid);
        let all: BTreeSet<&str> = truth.keys().copied().chain(watcher.view.keys().map(|it| it.as_str())).collect();
        for jid in all {
            if *jid == *watcher.jid || doubtful.contains(jid) {
                continue;
            }
            look(&name, jid, truth.get(jid).map(|it| it.as_str()), watcher.view.get(jid).map(|it| it.as_str()));
        }
    }
}

impl Final {
    /// Does its roster say that this contact sees it?
    fn is_seen_by(&self, contact: &str) -> bool {
        self.roster.get(contact).is_some_and(|(subscription, _)| subscription == "from" || subscription == "both")
    }

    /// Does its roster say that it sees this contact?
    fn sees(&self, contact: &str) -> bool {
        self.roster.get(contact).is_some_and(|(subscription, _)| subscription == "to" || subscription == "both")
    }
}

/// Who has a subscription has it on both sides.
fn subscriptions(ledger: &Ledger, out: &mut Vec<String>) {
    let rosters: BTreeMap<usize, &Final> =
        ledger.finals.iter().filter(|(_, it)| it.online).map(|(device, it)| (ledger.devices[*device], it)).collect();
    for (one, here) in &rosters {
        for (other, there) in &rosters {
            let (one_jid, other_jid) = (&ledger.accounts[*one].1, &ledger.accounts[*other].1);
            let has = |it: &Final, jid: &str, which: &str| {
                it.roster.get(jid).is_some_and(|(subscription, _)| subscription == which || subscription == "both")
            };
            // … or whoever is politely blocked, who is not to notice that it ended.
            // (And who blocks politely does not ask.)
            let polite = |one, other| ledger.rules.get(&(one, other)).is_some_and(|it| it.ever_polite);
            let ruled = polite(*other, *one) || polite(*one, *other);
            let waits = ruled || ledger.is_asked(*other, one_jid);
            if one != other && has(here, other_jid, "to") && !has(there, one_jid, "from") && !waits {
                out.push(format!("{one_jid} has a subscription to {other_jid}, who does not know of it"));
            }
        }
    }
}

/// By the pushes alone a device knows the roster.
fn pushes(ledger: &Ledger, out: &mut Vec<String>) {
    for (device, it) in ledger.finals.iter().filter(|(_, it)| it.online) {
        if it.roster != it.pushed {
            let mut what = format!("device {device} ({}) was not told of its whole roster:", it.jid);
            for jid in it.roster.keys().chain(it.pushed.keys()).collect::<BTreeSet<_>>() {
                let (is, knows) = (it.roster.get(jid), it.pushed.get(jid));
                if is != knows {
                    let _ = write!(what, " {jid} is {is:?}, told {knows:?};");
                }
            }
            out.push(what);
        }
    }
}
