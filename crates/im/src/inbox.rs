//! The INSTANT INBOX: one log per account, with those still pending. DESIGN.md D5.
//!
//! The log itself is in the store. Here is what the account must know of it: the last position, which positions are
//! pending and who has them in its queue, marks that wait for the next batch, and who is being given the backlog.

use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{EdgeRef, Ingress, SessionId, Ticket};
use crate::messages::{self, Keeping};
use crate::session::{self, Session};
use crate::ways::{Flow, Passage};
use smallvec::SmallVec;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use store::{AccountRecord, Change, Direction, Record, StoreError};
use xmpp::write::{Additions, to_stored};
use xmpp::{IqType, Jid, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType, ns};

/// Pending records read at a time.
pub const PAGE: usize = 50;
/// Marks are committed after so many milliseconds at the latest.
pub const BATCH_MS: u64 = 1_000;
/// Marks are committed at once when there are so many.
const BATCH_MAX: usize = 500;
/// Marks of earlier batches that are remembered, in case their commit failed.
const LATELY_MAX: usize = 1_000;
/// Dedupe keys kept in memory; the store knows the older ones.
const RECENT_MAX: usize = 256;
const RECENT_SECONDS: i64 = 24 * 3600;

#[derive(Debug, Default)]
pub struct Inbox {
    pub last_position: i64,
    pending: BTreeMap<i64, Pending>,
    /// Pending and in no session's queue: the offline messages.
    waiting: usize,
    waiting_bytes: u64,
    /// Taken, for the next batch.
    taken: Vec<i64>,
    /// Taken, in batches before.
    lately: VecDeque<i64>,
    /// Monotonic milliseconds when the batch is due.
    batch_at: Option<u64>,
    reading: Option<Reading>,
    /// Sessions that are given the backlog when the present one has it.
    queue: VecDeque<SessionId>,
    recent: Recent,
}

/// A record that no resource has taken yet.
#[derive(Debug, Default)]
struct Pending {
    bytes: u64,
    /// Sessions that have it queued or unacknowledged.
    holders: SmallVec<[SessionId; 2]>,
    /// Sessions that ended with it untaken: they are not given it again.
    had: SmallVec<[SessionId; 1]>,
}

/// The backlog on its way to a session.
#[derive(Debug, Clone, Copy)]
struct Reading {
    session: SessionId,
    /// Read up to here.
    after: i64,
    /// The last position when the page under way was asked for.
    asked_at: i64,
    /// The last position when the backlog began: what is newer goes where a live message would go.
    backlog_to: i64,
    /// The session's queue is full: goes on when it has taken some.
    paused: bool,
}

#[derive(Debug, Default)]
struct Recent {
    keys: HashSet<[u8; 16]>,
    order: VecDeque<(Stamp, [u8; 16])>,
}

impl Recent {
    fn has(&mut self, key: &[u8; 16], now: Stamp) -> bool {
        while self.order.front().is_some_and(|(at, _)| now.seconds_since(*at) > RECENT_SECONDS) {
            self.pop();
        }
        self.keys.contains(key)
    }

    fn add(&mut self, key: [u8; 16], now: Stamp) {
        if self.keys.insert(key) {
            self.order.push_back((now, key));
        }
        while self.order.len() > RECENT_MAX {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }
}

impl Inbox {
    /// What the store says. Sessions keep what they have in their queues.
    pub fn restore(&mut self, last_position: i64, pending: Vec<i64>, pending_bytes: u64) {
        self.last_position = self.last_position.max(last_position);
        let mean = pending_bytes / (pending.len().max(1) as u64);
        let mut before = std::mem::take(&mut self.pending);
        (self.waiting, self.waiting_bytes) = (0, 0);
        self.recent = Recent::default();
        for position in pending {
            if self.taken.contains(&position) {
                continue;
            }
            if self.lately.contains(&position) {
                self.taken.push(position);
                continue;
            }
            let entry = before.remove(&position).unwrap_or(Pending { bytes: mean, ..Pending::default() });
            if entry.holders.is_empty() {
                self.waiting += 1;
                self.waiting_bytes += entry.bytes;
            }
            self.pending.insert(position, entry);
        }
    }

    /// Marks not yet written, or a page of pending records under way.
    pub fn is_busy(&self) -> bool {
        !self.taken.is_empty() || self.batch_at.is_some() || self.reading.is_some()
    }

    /// Messages that no session has in its queue.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Is the position still to be taken?
    pub fn is_pending(&self, position: i64) -> bool {
        self.pending.contains_key(&position)
    }

    pub(crate) fn batch_is_due(&self, mono_ms: u64) -> bool {
        self.batch_at.is_some_and(|at| at <= mono_ms)
    }

    pub(crate) fn batch_at(&self) -> Option<u64> {
        self.batch_at
    }

    /// The position of the next record: microseconds since 1970, or one more than the last.
    fn next_position(&mut self, now: Stamp) -> i64 {
        self.last_position = now.0.max(self.last_position + 1);
        self.last_position
    }

    fn add(&mut self, position: i64, bytes: u64) {
        self.pending.insert(position, Pending { bytes, ..Pending::default() });
        self.waiting += 1;
        self.waiting_bytes += bytes;
    }

    /// A session has the record in its queue.
    pub(crate) fn held(&mut self, position: i64, id: SessionId) {
        let Some(entry) = self.pending.get_mut(&position) else {
            return;
        };
        if entry.holders.is_empty() {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
        }
        if !entry.holders.contains(&id) {
            entry.holders.push(id);
        }
    }

    /// A session has it no more and did not take it.
    fn release(&mut self, position: i64, id: SessionId) {
        let Some(entry) = self.pending.get_mut(&position) else {
            return;
        };
        if !entry.holders.contains(&id) {
            return;
        }
        entry.holders.retain(|holder| *holder != id);
        entry.had.push(id);
        if entry.holders.is_empty() {
            self.waiting += 1;
            self.waiting_bytes += entry.bytes;
        }
    }

    /// The record was never written.
    pub(crate) fn forget(&mut self, position: i64) {
        let Some(entry) = self.pending.remove(&position) else {
            return;
        };
        if entry.holders.is_empty() {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
        }
    }

    fn take(&mut self, position: i64) {
        if self.pending.contains_key(&position) {
            self.forget(position);
            self.taken.push(position);
        }
    }

    /// The first record after `after` that waits and that the session has not had.
    fn next_waiting(&self, after: i64, id: SessionId) -> Option<i64> {
        let mut newer = self.pending.range(after.saturating_add(1)..);
        newer.find(|(_, entry)| entry.holders.is_empty() && !entry.had.contains(&id)).map(|(position, _)| *position)
    }
}

// ---- into the log ----

/// What becomes of a message for sessions that would take it; `ids` may be empty.
///
/// A message to keep is appended as pending and delivered behind the commit; one that need not be kept is delivered at
/// once. Without an archive a message that a connected stream takes is not logged. A session that is being given the
/// backlog, or whose queue is full, gets the message from the log in its turn.
///
/// Done means that it is in the log already.
///
/// # Errors
/// `service-unavailable`: nobody takes it and the offline limit is reached (XEP-0160 §2), or it must not be stored.
pub(crate) fn accept(
    account: &mut Account,
    passage: &mut Passage,
    ids: &[SessionId],
    keeping: Keeping,
    ingress: Option<Ingress>,
    fx: &mut Effects,
) -> Result<Flow, StanzaError> {
    let archived = keeping == Keeping::Archive && account.policy.archive;
    if keeping == Keeping::No || (!archived && is_taken_live(account, ids, &passage.stanza)) {
        if ids.is_empty() {
            return Err(StanzaCondition::ServiceUnavailable.into());
        }
        give_to(account, passage, ids, Additions::default(), fx);
        return Ok(Flow::Next);
    }

    let key = ingress.map(|ingress| dedupe_key(&passage.stanza, Direction::Incoming, ingress));
    if key.is_some_and(|key| account.inbox.recent.has(&key, account.now.utc)) {
        fx.push(Effect::Count("messages_duplicate"));
        return Ok(Flow::Done);
    }
    let stored = to_stored(&passage.stanza);
    if ids.is_empty() {
        let limits = &account.policy.limits;
        let bytes = account.inbox.waiting_bytes + stored.len() as u64;
        let full = account.inbox.waiting >= limits.offline_messages_max;
        if full || bytes > limits.offline_bytes_max {
            fx.push(Effect::Count("offline_limit_reached"));
            return Err(StanzaCondition::ServiceUnavailable.into());
        }
    }
    append(account, passage, Direction::Incoming, stored, archived, key, fx);
    match account.inbox.reading {
        // The backlog comes first.
        Some(reading) if !reading.paused && ids.contains(&reading.session) => {
            passage.taken_by.extend_from_slice(ids);
        }
        _ => {
            let more = additions(account, passage, false);
            give_to(account, passage, ids, more, fx);
        }
    }
    Ok(Flow::Next)
}

/// Is there a stream that takes the message now, so that it need not be logged?
fn is_taken_live(account: &Account, ids: &[SessionId], stanza: &Stanza) -> bool {
    let reads = |id| account.inbox.reading.is_some_and(|reading| reading.session == id);
    let takes = |s: &Session| s.edge.is_some() && !reads(s.id) && s.fits(stanza, &account.policy.limits);
    ids.iter().filter_map(|id| account.session(*id)).any(takes)
}

/// Delivers; a session that cannot take more now is given the message from the log when it can.
fn give_to(account: &mut Account, passage: &mut Passage, ids: &[SessionId], more: Additions, fx: &mut Effects) {
    for id in ids {
        passage.taken_by.push(*id);
        if let Some(position) = passage.position {
            let is_reading = account.inbox.reading.is_some_and(|reading| reading.session == *id);
            let fits = account.session(*id).is_some_and(|s| s.fits(&passage.stanza, &account.policy.limits));
            if is_reading || !fits {
                continue_later(account, *id, position);
                continue;
            }
        }
        let delivery =
            Delivery { stanza: passage.stanza.clone(), to: None, more: more.clone(), position: passage.position };
        session::deliver(account, *id, delivery, fx);
    }
}

/// The session's queue is full: from this position on it is given what is in the log, when it has taken some.
fn continue_later(account: &mut Account, id: SessionId, position: i64) {
    let backlog_to = account.inbox.last_position;
    match account.inbox.reading {
        None => {
            let after = position - 1;
            account.inbox.reading = Some(Reading { session: id, after, asked_at: 0, backlog_to, paused: true });
        }
        Some(reading) if reading.session != id && !account.inbox.queue.contains(&id) => {
            account.inbox.queue.push_back(id);
        }
        Some(_) => {}
    }
}

/// A message that the account sent becomes part of its archive. XEP-0313 §6.1.1. Done means that it is there already.
pub(crate) fn log_outgoing(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Flow {
    let key = dedupe_key(&passage.stanza, Direction::Outgoing, passage.ingress);
    if account.inbox.recent.has(&key, account.now.utc) {
        return Flow::Done;
    }
    let stored = to_stored(&passage.stanza);
    append(account, passage, Direction::Outgoing, stored, true, Some(key), fx);
    Flow::Next
}

fn append(
    account: &mut Account,
    passage: &mut Passage,
    direction: Direction,
    stanza: Vec<u8>,
    archived: bool,
    dedupe: Option<[u8; 16]>,
    fx: &mut Effects,
) {
    let now = account.now.utc;
    let position = account.inbox.next_position(now);
    if let Some(key) = dedupe {
        account.inbox.recent.add(key, now);
    }
    let incoming = direction == Direction::Incoming;
    if incoming {
        account.inbox.add(position, stanza.len() as u64);
    }
    let own = || Jid::from(account.jid.clone());
    let peer = match direction {
        Direction::Incoming => passage.stanza.from.clone().unwrap_or_else(own),
        Direction::Outgoing => passage.to.clone(),
    };
    let record = Record { position, direction, peer, stanza, pending: incoming, archived, dedupe, expires: None };
    // An outgoing message was told to its recipient already, whose own log answers for it.
    let bounce = incoming.then_some(&passage.stanza);
    fx.commit(vec![Change::Append { account: account.jid.clone(), record }], bounce, &passage.ticket);
    passage.position = Some(position);
    passage.archived = archived;
}

/// What the server adds to a logged message: the stanza-id of what is archived, the delay of what waited.
pub(crate) fn additions(account: &Account, passage: &Passage, delayed: bool) -> Additions {
    let Some(position) = passage.position else {
        return Additions::default();
    };
    additions_of(account, position, passage.archived, delayed)
}

fn additions_of(account: &Account, position: i64, archived: bool, delayed: bool) -> Additions {
    Additions {
        stanza_id: archived.then(|| (position, account.jid.clone().into())),
        delay: delayed.then(|| (account.policy.domain.clone().into(), Stamp(position))),
    }
}

/// Recognises a message that was sent twice: by its origin-id (XEP-0359 §3.2) with peer and content, else by where it
/// entered the house.
fn dedupe_key(stanza: &Stanza, direction: Direction, ingress: Ingress) -> [u8; 16] {
    let origin = stanza.payload.child("origin-id", ns::SID).and_then(|child| child.attribute("id").map(String::from));
    let peer = match direction {
        Direction::Incoming => &stanza.from,
        Direction::Outgoing => &stanza.to,
    };
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, direction).hash(&mut hasher);
        match &origin {
            Some(id) => {
                id.hash(&mut hasher);
                peer.as_ref().map(Jid::to_bare).hash(&mut hasher);
                let has_body = stanza.payload.has("body", ns::CLIENT);
                for child in stanza.payload.children() {
                    // A client that sends again adds a delay.
                    if child.ns != ns::DELAY && (!has_body || child.name == "body") {
                        child.raw.hash(&mut hasher);
                    }
                }
            }
            None => (ingress.stream, ingress.ordinal).hash(&mut hasher),
        }
        hasher.finish().to_be_bytes()
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&half(1));
    key[8..].copy_from_slice(&half(2));
    key
}

/// Must a session take this message for it to be delivered? (Else nobody minds if it is lost with its stream: what
/// the account itself says, too, such as carbons.)
pub(crate) fn is_kept(own: &Jid, stanza: &Stanza) -> bool {
    stanza.is_message()
        && stanza.from.as_ref().is_some_and(|from| from != own)
        && messages::keeping(stanza) != Keeping::No
}

// ---- taken ----

/// The session's stream has written so many of its deliveries: enough where nothing is acknowledged.
pub fn written(account: &mut Account, id: SessionId, edge: EdgeRef, deliveries: u64, fx: &mut Effects) {
    let Some(session) = account.session_mut(id).filter(|s| s.edge == Some(edge)) else {
        return;
    };
    let mut positions: SmallVec<[i64; 8]> = SmallVec::new();
    while session.unwritten.front().is_some_and(|(number, _)| *number <= deliveries) {
        positions.extend(session.unwritten.pop_front().and_then(|(_, delivery)| delivery.position));
    }
    taken(account, positions, fx);
    go_on(account, id, fx);
}

/// A resource took these: their marks go with the next batch.
pub(crate) fn taken(account: &mut Account, positions: impl IntoIterator<Item = i64>, fx: &mut Effects) {
    positions.into_iter().for_each(|position| account.inbox.take(position));
    if account.inbox.taken.len() >= BATCH_MAX {
        let changes = marks(account);
        fx.commit(changes, None, &Ticket::default());
    } else if !account.inbox.taken.is_empty() {
        batch_soon(account, fx);
    }
}

/// A batch is committed within a second.
pub(crate) fn batch_soon(account: &mut Account, fx: &mut Effects) {
    if account.inbox.batch_at.is_none() {
        let at = account.now.mono_ms + BATCH_MS;
        account.inbox.batch_at = Some(at);
        fx.push(Effect::WakeAt { mono_ms: at });
    }
}

/// The batch is being committed.
pub(crate) fn batch_done(account: &mut Account) {
    account.inbox.batch_at = None;
}

/// The change that clears the marks of what was taken, if there are any.
pub(crate) fn marks(account: &mut Account) -> Vec<Change> {
    let mut positions = std::mem::take(&mut account.inbox.taken);
    if positions.is_empty() {
        return Vec::new();
    }
    positions.sort_unstable();
    let lately = &mut account.inbox.lately;
    lately.extend(&positions);
    let surplus = lately.len().saturating_sub(LATELY_MAX);
    lately.drain(..surplus);
    vec![Change::Taken { account: account.jid.clone(), positions }]
}

// ---- untaken ----

/// What an ended session had not taken: messages in the log wait again, and go to another resource if there is one
/// that has not had them; other stanzas are treated as for an unavailable resource. XEP-0198 §4.
pub(crate) fn return_untaken(account: &mut Account, id: SessionId, untaken: Vec<Delivery>, fx: &mut Effects) {
    account.inbox.queue.retain(|queued| *queued != id);
    if account.inbox.reading.is_some_and(|reading| reading.session == id) {
        account.inbox.reading = None;
    }
    for delivery in untaken {
        match delivery.position {
            Some(position) => account.inbox.release(position, id),
            None if account.removed => {}
            None => return_unlogged(account, &delivery.stanza, fx),
        }
    }
    for other in messages::most_available(account) {
        flush(account, other, fx);
    }
    next_backlog(account, fx);
}

fn return_unlogged(account: &mut Account, stanza: &Arc<Stanza>, fx: &mut Effects) {
    match stanza.kind {
        StanzaType::Message(_) if is_kept(&account.jid, stanza) => messages::again(account, stanza, fx),
        StanzaType::Iq(IqType::Get | IqType::Set) => {
            let Some(from) = stanza.from.clone().filter(|from| !from.same_bare(&account.jid) || !from.is_bare()) else {
                return;
            };
            let error = StanzaError::from(StanzaCondition::ServiceUnavailable);
            crate::ways::answer(account, &from, stanza, &error, &Ticket::default(), fx);
        }
        _ => {}
    }
}

/// Messages that live in a session's queue alone become pending: the process ends.
pub(crate) fn keep_unlogged(account: &mut Account, fx: &mut Effects) {
    let managed = account.sessions.iter().filter_map(|s| s.management.as_ref()).flat_map(|m| &m.unacked);
    let plain = account.sessions.iter().flat_map(|s| &s.unwritten).map(|(_, delivery)| delivery);
    let mut unlogged: Vec<Arc<Stanza>> = Vec::new();
    for delivery in managed.chain(plain) {
        let known = unlogged.iter().any(|stanza| Arc::ptr_eq(stanza, &delivery.stanza));
        if delivery.position.is_none() && !known && is_kept(&account.jid, &delivery.stanza) {
            unlogged.push(delivery.stanza.clone());
        }
    }
    for stanza in unlogged {
        let mut passage = Passage::of(account, stanza);
        let stored = to_stored(&passage.stanza);
        append(account, &mut passage, Direction::Incoming, stored, false, None, fx);
    }
}

// ---- the backlog ----

/// The session became able to take messages: give it what is pending. XEP-0160.
pub fn flush(account: &mut Account, id: SessionId, fx: &mut Effects) {
    match account.inbox.reading {
        Some(reading) if reading.session == id => return go_on(account, id, fx),
        Some(reading) if reading.paused => {
            // Whoever has a full queue waits for its turn.
            account.inbox.reading = None;
            account.inbox.queue.push_back(reading.session);
        }
        Some(_) if account.inbox.queue.contains(&id) => return,
        Some(_) => return account.inbox.queue.push_back(id),
        None => {}
    }
    if !takes_messages(account, id) {
        return;
    }
    let Some(first) = account.inbox.next_waiting(i64::MIN, id) else {
        return;
    };
    let last = account.inbox.last_position;
    let reading = Reading { session: id, after: first - 1, asked_at: last, backlog_to: last, paused: false };
    ask(account, reading, fx);
}

fn takes_messages(account: &Account, id: SessionId) -> bool {
    account.session(id).is_some_and(Session::takes_messages)
}

/// Asks for the next page, now or when the session has room for it.
fn ask(account: &mut Account, mut reading: Reading, fx: &mut Effects) {
    reading.asked_at = account.inbox.last_position;
    reading.paused = !has_room(account, reading.session, 2);
    if !reading.paused {
        fx.push(Effect::ReadPending { after: reading.after, limit: PAGE });
    }
    account.inbox.reading = Some(reading);
}

/// Is the session's queue below (`quarters`/4) of its bounds?
fn has_room(account: &Account, id: SessionId, quarters: usize) -> bool {
    account.session(id).is_none_or(|session| session.has_room(&account.policy.limits, quarters))
}

/// The session has taken some: the backlog goes on if it waited for that.
pub(crate) fn go_on(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let waits = account.inbox.reading.filter(|reading| reading.paused && reading.session == id);
    let Some(reading) = waits.filter(|_| has_room(account, id, 2)) else {
        return;
    };
    ask(account, reading, fx);
}

/// A page of the backlog, oldest first.
pub fn pending_page(account: &mut Account, after: i64, records: Vec<Record>, fx: &mut Effects) {
    let Some(mut reading) = account.inbox.reading.filter(|r| r.after == after && !r.paused) else {
        return;
    };
    account.inbox.reading = None;
    if !takes_messages(account, reading.session) {
        // It left meanwhile; whoever is there now begins anew.
        for id in messages::most_available(account) {
            flush(account, id, fx);
        }
        next_backlog(account, fx);
        return;
    }
    let full_page = records.len() >= PAGE;
    forget_unwritten(account, after, &records, full_page, &reading);
    let mut has_all = true;
    for record in records {
        if !has_room(account, reading.session, 3) {
            has_all = false;
            break;
        }
        reading.after = record.position;
        give(account, &reading, record, fx);
    }
    // A page that is not full showed all that was there when it was asked for.
    let seen = if full_page { reading.after } else { reading.after.max(reading.asked_at) };
    let more = account.inbox.next_waiting(seen, reading.session);
    if !has_all || full_page || more.is_some() {
        ask(account, reading, fx);
    } else {
        next_backlog(account, fx);
    }
}

/// Positions that the store did not give although it should have: their commit failed.
fn forget_unwritten(account: &mut Account, after: i64, records: &[Record], full_page: bool, reading: &Reading) {
    let to = match records.last() {
        Some(last) if full_page => last.position,
        _ => reading.asked_at,
    };
    if records.is_empty() || to <= after {
        // (A read that failed gives nothing, too.)
        return;
    }
    let waiting = account.inbox.pending.range(after + 1..=to).filter(|(_, entry)| entry.holders.is_empty());
    let lost: Vec<i64> =
        waiting.map(|(p, _)| *p).filter(|p| records.binary_search_by_key(p, |r| r.position).is_err()).collect();
    lost.into_iter().for_each(|position| account.inbox.forget(position));
}

/// One record of the backlog.
fn give(account: &mut Account, reading: &Reading, record: Record, fx: &mut Effects) {
    let position = record.position;
    let Some(entry) = account.inbox.pending.get(&position) else {
        return;
    };
    if !entry.holders.is_empty() || entry.had.contains(&reading.session) {
        return;
    }
    let now = account.now.utc;
    let days = i64::from(account.policy.limits.offline_days_max);
    let too_old = days > 0 && now.seconds_since(Stamp(position)) > days * 24 * 3600;
    if too_old || record.expires.is_some_and(|expires| expires <= now) {
        fx.push(Effect::Count("messages_expired"));
        taken(account, [position], fx);
        return;
    }
    let Ok(stanza) = Stanza::parse(&record.stanza) else {
        // LIMITS.md §2 row 34: one record that cannot be read holds nothing back.
        fx.push(Effect::Count("inbox_records_damaged"));
        taken(account, [position], fx);
        return;
    };
    let stanza = Arc::new(stanza);
    let mut ids = vec![reading.session];
    if position > reading.backlog_to {
        let takers = messages::most_available(account);
        if takers.contains(&reading.session) {
            ids = takers;
        }
    }
    for id in ids {
        let delivery = Delivery {
            stanza: stanza.clone(),
            to: None,
            more: additions_of(account, position, record.archived, true),
            position: Some(position),
        };
        session::deliver(account, id, delivery, fx);
    }
}

/// The next session that waits for the backlog.
fn next_backlog(account: &mut Account, fx: &mut Effects) {
    while account.inbox.reading.is_none() {
        let Some(id) = account.inbox.queue.pop_front() else {
            return;
        };
        flush(account, id, fx);
    }
}

// ---- failures ----

/// A commit failed: the stored part of the state is what the store says, and the sender hears of it.
pub fn commit_failed(
    account: &mut Account,
    bounce: Option<Arc<Stanza>>,
    error: StoreError,
    stored: Option<Box<AccountRecord>>,
    fx: &mut Effects,
) {
    let condition = match error {
        StoreError::Fenced => {
            // Somebody else owns the account now.
            fx.push(Effect::Unload);
            return;
        }
        StoreError::Busy | StoreError::Full => StanzaCondition::ResourceConstraint,
        StoreError::Fatal(_) | StoreError::Damaged(_) => StanzaCondition::InternalServerError,
    };
    if let Some(stanza) = &bounce {
        for session in account.sessions.iter_mut().filter(|s| s.edge.is_none()) {
            // Queued for a stream to come; with a stream, `Dropped` said so.
            if let Some(management) = &mut session.management {
                management.forget_stanza(stanza);
            }
        }
    }
    match stored {
        Some(stored) => account.restore(*stored),
        None => {
            account.inbox.recent = Recent::default();
            let lately = std::mem::take(&mut account.inbox.lately);
            account.inbox.taken.extend(lately);
        }
    }
    for session in account.sessions.iter_mut().filter(|s| s.in_ledger) {
        session.ledger_touched = true;
    }
    if account.sessions.iter().any(|s| s.ledger_touched) || !account.inbox.taken.is_empty() {
        batch_soon(account, fx);
    }
    if let Some(stanza) = bounce
        && let Some(from) = stanza.from.clone()
    {
        crate::ways::answer(account, &from, &stanza, &condition.into(), &Ticket::default(), fx);
    }
}
