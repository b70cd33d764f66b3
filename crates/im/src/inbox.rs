//! The INSTANT INBOX: one log per account, with those still pending. DESIGN.md D5.
//!
//! The log itself is in the store. Here is what the account must know of it: the last position, which positions are
//! pending and who has them in its queue, marks that wait for the next batch ([`marks`]), what came lately ([`recent`]), and
//! who is being given the backlog ([`backlog`]: reading it). [`untaken`]: what comes back from a session. [`failures`]: what
//! comes to nothing.

mod backlog;
mod failures;
mod marks;
mod recent;
mod untaken;

pub use backlog::{PAGE, flush, overdue, pending_page};
pub(crate) use backlog::{ask_again, expire_old, flush_waiting, go_on, too_late};
pub(crate) use failures::changes_the_record;
pub use failures::commit_failed;
pub use marks::BATCH_MS;
pub(crate) use marks::{batch_done, batch_soon, marks, taken};
pub(crate) use untaken::{keep_unlogged, return_untaken};

use crate::account::Account;
use crate::archive_ids;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{EdgeRef, Ingress, SessionId};
use crate::messages::{self, Keeping};
use crate::modules::expiry;
use crate::modules::outcome::{self, State};
use crate::retention;
use crate::session;
use crate::ways::{Flow, Passage};
use backlog::{Reading, continue_later};
use marks::Marks;
use recent::{Recent, dedupe_key};
use smallvec::SmallVec;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};
use store::{Change, Direction, Record};
use xmpp::write::{Additions, to_stored};
use xmpp::{Jid, Stamp, Stanza, StanzaCondition, StanzaError};

#[derive(Debug, Default)]
pub struct Inbox {
    pub last_position: i64,
    pending: BTreeMap<i64, Pending>,
    /// Pending and in no session's queue: the offline messages.
    waiting: usize,
    waiting_bytes: u64,
    marks: Marks,
    reading: Option<Reading>,
    /// A page was asked for and has not come: one at a time, or one could be taken for another.
    page_under_way: bool,
    /// Sessions that are given the backlog when the present one has it.
    queue: VecDeque<SessionId>,
    recent: Recent,
    /// The last appends, so that a message whose commit fails is found by its position.
    appended: VecDeque<(i64, Weak<Stanza>)>,
}

/// Appends that are remembered; more are not under way at once.
const APPENDED_MAX: usize = 64;

/// A record that no resource has taken yet.
#[derive(Debug, Default)]
struct Pending {
    bytes: u64,
    /// Sessions that have it queued or unacknowledged.
    holders: SmallVec<[SessionId; 2]>,
    /// Sessions that ended with it untaken: they are not given it again.
    had: SmallVec<[SessionId; 1]>,
}

impl Inbox {
    /// What the store says; sessions keep what they have in their queues. The store may say less than is known here,
    /// as commits of later steps are still under way: what is newer than it knows is pending nevertheless.
    pub fn restore(&mut self, last_position: i64, pending: Vec<i64>, pending_bytes: u64) {
        let mean = pending_bytes / (pending.len().max(1) as u64);
        let mut entries: BTreeMap<i64, Pending> = BTreeMap::new();
        for (position, entry) in std::mem::take(&mut self.pending) {
            if !entry.holders.is_empty() || position > last_position {
                entries.insert(position, entry);
            }
        }
        for position in pending {
            if !self.marks.has_or_had(position) {
                entries.entry(position).or_insert(Pending { bytes: mean, ..Pending::default() });
            }
        }
        let waiting = || entries.values().filter(|entry| entry.holders.is_empty());
        self.waiting = waiting().count();
        self.waiting_bytes = waiting().map(|entry| entry.bytes).sum();
        self.pending = entries;
        self.last_position = self.last_position.max(last_position);
        self.recent = Recent::default();
    }

    /// The message's record was not written.
    fn forget_stanza(&mut self, stanza: &Arc<Stanza>) {
        let at = self.appended.iter().position(|(_, of)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(stanza)));
        if let Some((position, _)) = at.and_then(|at| self.appended.remove(at)) {
            self.forget(position);
        }
    }

    /// Marks not yet written, or a page of pending records under way.
    pub fn is_busy(&self) -> bool {
        self.marks.is_busy() || self.reading.is_some()
    }

    /// Messages that no session has in its queue.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Is the position still to be taken?
    pub fn is_pending(&self, position: i64) -> bool {
        self.pending.contains_key(&position)
    }

    /// Is there a mark of it that was not cleared yet?
    pub(crate) fn is_known(&self, position: i64) -> bool {
        self.pending.contains_key(&position) || self.marks.has(position)
    }

    /// Monotonic milliseconds when the next batch of marks is due.
    pub(crate) fn batch_at(&self) -> Option<u64> {
        self.marks.batch_at
    }

    pub(crate) fn batch_is_due(&self, mono_ms: u64) -> bool {
        self.batch_at().is_some_and(|at| at <= mono_ms)
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
        let Some(entry) = self.pending.get_mut(&position) else { return };
        if entry.holders.is_empty() {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
        }
        if !entry.holders.contains(&id) {
            entry.holders.push(id);
        }
    }

    /// A session was not given it after all.
    pub(crate) fn unheld(&mut self, position: i64, id: SessionId) {
        let Some(entry) = self.pending.get_mut(&position).filter(|e| e.holders.contains(&id)) else { return };
        entry.holders.retain(|holder| *holder != id);
        if entry.holders.is_empty() {
            self.waiting += 1;
            self.waiting_bytes += entry.bytes;
        }
    }

    /// A session has it no more and did not take it.
    fn release(&mut self, position: i64, id: SessionId) {
        self.unheld(position, id);
        if let Some(entry) = self.pending.get_mut(&position) {
            entry.had.push(id);
        }
    }

    /// The record was never written.
    pub(crate) fn forget(&mut self, position: i64) {
        let Some(entry) = self.pending.remove(&position) else { return };
        if entry.holders.is_empty() {
            self.waiting -= 1;
            self.waiting_bytes -= entry.bytes;
        }
    }

    fn take(&mut self, position: i64) {
        if self.pending.contains_key(&position) {
            self.forget(position);
            self.marks.add(position);
        }
    }

    /// No resource takes it any more.
    fn fail(&mut self, position: i64, state: State) {
        self.take(position);
        self.marks.failed(position, state);
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
/// once. Without an archive a message that one stream takes is not logged. A session that is being given the
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
    let peer = passage.stanza.from.as_ref();
    let preferred = peer.is_none_or(|peer| account.archive_preferences.archive(peer, &account.roster));
    let archived = keeping == Keeping::Archive && account.policy.archive && preferred;
    let asked = outcome::asked(&passage.stanza).filter(|_| keeping != Keeping::No);
    let is_taken_live = || !archived && asked.is_none() && is_taken_live(account, ids, &passage.stanza);
    if keeping == Keeping::No || is_taken_live() {
        if ids.is_empty() {
            return Err(StanzaCondition::ServiceUnavailable.into());
        }
        give_to(account, passage, ids, Additions::default(), fx);
        return Ok(Flow::Next);
    }

    let key = dedupe_key(&passage.stanza, Direction::Incoming, ingress);
    if key.is_some_and(|key| account.inbox.recent.has(&key, account.now.utc)) {
        fx.push(Effect::Count("messages_duplicate"));
        return Ok(Flow::Done);
    }
    let stored = to_stored(&passage.stanza);
    if !ids.iter().any(|id| is_given_now(account, *id, &passage.stanza)) {
        if account.inbox.waiting >= account.policy.limits.offline_messages_max {
            expire_old(account, fx);
            taken(account, [], fx);
        }
        let limits = &account.policy.limits;
        // Whoever is there and slow, or has just come, is on its way to take some.
        let times = if ids.is_empty() { 1 } else { 2 };
        let stanzas_max = limits.offline_messages_max * times;
        let bytes_max = limits.offline_bytes_max * times as u64;
        let bytes = account.inbox.waiting_bytes + stored.len() as u64;
        if account.inbox.waiting >= stanzas_max || bytes > bytes_max {
            fx.push(Effect::Count("offline_limit_reached"));
            let full = account.inbox.waiting >= stanzas_max;
            let limit = if full { "offline_messages_max" } else { "offline_bytes_max" };
            return Err(StanzaError::from(StanzaCondition::ServiceUnavailable).over(limit));
        }
    }
    append(account, passage, Direction::Incoming, stored, archived, key, fx);
    if let (Some(asked), Some(position)) = (asked, passage.position)
        && (ids.is_empty() || !outcome::may_know(account, &asked))
    {
        outcome::report(account, position, &asked, State::Stored, fx);
    }
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

/// Is there one stream that takes the message now, so that it need not be logged? (With several the log must say
/// whether one of them took it.)
fn is_taken_live(account: &Account, ids: &[SessionId], stanza: &Stanza) -> bool {
    let [id] = ids else { return false };
    account.session(*id).is_some_and(|s| s.edge.is_some()) && is_given_now(account, *id, stanza)
}

/// Has the session room for the message, and is it not being given the backlog?
fn is_given_now(account: &Account, id: SessionId, stanza: &Stanza) -> bool {
    let reads = account.inbox.reading.is_some_and(|reading| reading.session == id);
    !reads && account.session(id).is_some_and(|s| s.fits(stanza, &account.policy.limits))
}

/// Delivers; a session that cannot take more now is given the message from the log when it can.
fn give_to(account: &mut Account, passage: &mut Passage, ids: &[SessionId], more: Additions, fx: &mut Effects) {
    for id in ids {
        passage.taken_by.push(*id);
        if let Some(position) = passage.position
            && !is_given_now(account, *id, &passage.stanza)
        {
            continue_later(account, *id, position);
            continue;
        }
        let delivery =
            Delivery { stanza: passage.stanza.clone(), to: None, more: more.clone(), position: passage.position };
        session::deliver(account, *id, delivery, fx);
    }
}

/// A message that the account sent becomes part of its archive. XEP-0313 §6.1.1. Done means that it is there already.
pub(crate) fn log_outgoing(account: &mut Account, passage: &mut Passage, fx: &mut Effects) -> Flow {
    let key = dedupe_key(&passage.stanza, Direction::Outgoing, Some(passage.ingress));
    if key.is_some_and(|key| account.inbox.recent.has(&key, account.now.utc)) {
        return Flow::Done;
    }
    let stored = to_stored(&passage.stanza);
    append(account, passage, Direction::Outgoing, stored, true, key, fx);
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
        let inbox = &mut account.inbox;
        inbox.add(position, stanza.len() as u64);
        if inbox.appended.len() >= APPENDED_MAX {
            inbox.appended.pop_front();
        }
        inbox.appended.push_back((position, Arc::downgrade(&passage.stanza)));
    }
    let own = || Jid::from(account.jid.clone());
    let peer = match direction {
        Direction::Incoming => passage.stanza.from.clone().unwrap_or_else(own),
        Direction::Outgoing => passage.to.clone(),
    };
    let expires = if incoming { expiry::of(&passage.stanza, now) } else { None };
    let record = Record { position, direction, peer, stanza, pending: incoming, archived, dedupe, expires };
    // An outgoing message was told to its recipient already, whose own log answers for it.
    let bounce = incoming.then_some(&passage.stanza);
    let asked = if incoming { outcome::asked(&passage.stanza) } else { None };
    let mut changes = Vec::with_capacity(1);
    if archived || asked.is_some() {
        changes.extend(archive_ids::keep(account));
    }
    changes.push(Change::Append { account: account.jid.clone(), record });
    if let Some(asked) = asked.filter(|asked| outcome::may_know(account, asked)) {
        changes.push(outcome::remember(account, position, asked));
    }
    fx.commit(changes, bounce, &passage.ticket);
    passage.position = Some(position);
    passage.archived = archived;
    if archived {
        account.retention.appended();
        if !account.sessions.is_empty() {
            retention::look(account, fx);
        }
    }
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
        stanza_id: archived.then(|| (account.archive_ids.id(position), account.jid.clone().into())),
        delay: delayed.then(|| (account.policy.domain.clone().into(), Stamp(position))),
    }
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
    let Some(session) = account.session_mut(id).filter(|s| s.edge == Some(edge)) else { return };
    let mut positions: SmallVec<[i64; 8]> = SmallVec::new();
    while session.unwritten.front().is_some_and(|(number, _)| *number <= deliveries) {
        positions.extend(session.unwritten.pop_front().and_then(|(_, delivery)| delivery.position));
    }
    taken(account, positions, fx);
    go_on(account, id, fx);
}

#[cfg(test)]
mod tests {
    use super::marks::BATCH_MAX;
    use super::*;
    use crate::item::{Item, Ticket};
    use crate::testing::{Fx, START, Scene, account, account_with, archive_id, stanza};
    use store::AccountRecord;
    use xmpp::write::to_stored;

    pub(super) const JULIET: &str = "juliet@capulet.example";

    pub(super) fn chat(body: &str) -> String {
        format!(
            "<message from='romeo@montague.example/x' to='{JULIET}' type='chat' id='{body}'><body>{body}</body></message>"
        )
    }

    /// A pending record, as the store gives it.
    pub(super) fn record(position: i64, body: &str) -> Record {
        let stanza = stanza(&chat(body));
        Record {
            position,
            direction: Direction::Incoming,
            peer: stanza.from.clone().expect("a sender"),
            stanza: to_stored(&stanza),
            pending: true,
            archived: true,
            dedupe: None,
            expires: None,
        }
    }

    pub(super) fn with_pending(positions: impl IntoIterator<Item = i64>) -> Scene {
        let pending: Vec<i64> = positions.into_iter().collect();
        account_with(
            JULIET,
            AccountRecord {
                created: START,
                last_position: pending.last().copied().unwrap_or_default(),
                pending_bytes: 100 * pending.len() as u64,
                pending,
                ..AccountRecord::default()
            },
        )
    }

    /// Positions of messages that came a little before the scene began.
    pub(super) fn earlier(n: i64) -> i64 {
        START.0 - 1_000 + n
    }

    pub(super) fn comes_online(scene: &mut Scene, resource: &str) -> Fx {
        scene.sends(resource, "<presence/>")
    }

    pub(super) fn page_asked(fx: &Fx) -> Option<i64> {
        fx.list.iter().find_map(|effect| match effect {
            Effect::ReadPending { after, .. } => Some(*after),
            _ => None,
        })
    }

    pub(super) fn page(scene: &mut Scene, after: i64, records: Vec<Record>) -> Fx {
        scene.item(Item::Pending { after, records: Some(records) })
    }

    pub(super) fn error_told(fx: &Fx, condition: &str) -> bool {
        fx.told().iter().any(|(to, xml)| to == "romeo@montague.example/x" && xml.contains(&format!("<{condition}")))
    }

    // DESIGN.md D4: deliver after commit.
    #[test]
    fn a_message_is_delivered_behind_the_commit_that_holds_it() {
        let mut juliet = account(JULIET).with("home", 0);
        let fx = juliet.receive(&chat("hi"));
        let record = &fx.appended()[0];
        assert!(record.pending && record.archived && record.dedupe.is_some());
        assert_eq!(record.position, START.0);
        assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), |e| matches!(e, Effect::Edge { .. })));
        let wire = fx.delivered("home").remove(0);
        assert!(
            wire.contains(&format!("<stanza-id xmlns='urn:xmpp:sid:0' id='{}' by='{JULIET}'/>", archive_id(START.0))),
            "{wire}"
        );
        assert!(!wire.contains("<delay"), "{wire}");
        let stored = String::from_utf8(record.stanza.clone()).expect("UTF-8");
        assert!(!stored.contains("stanza-id"), "{stored}");
    }

    #[test]
    fn positions_grow_even_when_the_clock_does_not() {
        let mut juliet = account(JULIET);
        let mut positions: Vec<i64> =
            (0..3).map(|n| juliet.receive(&chat(&n.to_string())).appended()[0].position).collect();
        juliet.now.utc = Stamp(START.0 - 5_000_000);
        positions.push(juliet.receive(&chat("back in time")).appended()[0].position);
        assert_eq!(positions, [START.0, START.0 + 1, START.0 + 2, START.0 + 3]);
    }

    // Without an archive a message that is taken live leaves no trace.
    #[test]
    fn without_an_archive_a_message_that_a_stream_takes_is_not_logged() {
        let mut juliet = account(JULIET).with("home", 0).policy(|p| p.archive = false);
        let fx = juliet.receive(&chat("hi"));
        assert!(fx.commits().is_empty());
        assert!(!fx.delivered("home")[0].contains("stanza-id"));
    }

    #[test]
    fn without_an_archive_a_message_that_nobody_takes_is_kept_until_it_is() {
        let mut juliet = account(JULIET).policy(|p| p.archive = false);
        let fx = juliet.receive(&chat("hi"));
        assert!(fx.appended()[0].pending && !fx.appended()[0].archived);
        // A hint says the same for one message.
        let mut juliet = account(JULIET);
        let off_the_record = "<message from='romeo@montague.example/x' type='chat'><body>hi</body>\
            <no-permanent-store xmlns='urn:xmpp:hints'/></message>";
        let fx = juliet.receive(off_the_record);
        assert!(fx.appended()[0].pending && !fx.appended()[0].archived);
    }

    // Else the store could be closed before, and what arrived came again after a stop that was asked for.
    #[test]
    fn that_the_server_may_end_is_known_when_all_marks_are_on_disk() {
        let mut juliet = account(JULIET).with("home", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        juliet.writes_all("home");
        let fx = juliet.item(Item::ShutDown { ticket: Ticket(Some(Arc::new(()))) });
        assert_eq!(fx.taken(), [position]);
        assert!(matches!(fx.list.last(), Some(Effect::Commit { ticket, .. }) if ticket.0.is_some()), "{:?}", fx.list);
    }

    #[test]
    fn what_is_written_to_a_stream_without_acknowledgements_is_taken() {
        let mut juliet = account(JULIET).with("home", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        let fx = juliet.writes_all("home");
        assert!(matches!(fx.list[..], [Effect::WakeAt { mono_ms: 2_000 }]), "{:?}", fx.list);
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
        assert_eq!(juliet.inbox.waiting(), 0);
    }

    #[test]
    fn marks_are_written_at_once_when_a_session_ends() {
        let mut juliet = account(JULIET).with("home", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        assert_eq!(juliet.closes("home").taken(), [position]);
    }

    #[test]
    fn many_marks_do_not_wait_for_the_batch() {
        let mut juliet = account(JULIET).with("home", 0);
        for n in 0..BATCH_MAX {
            juliet.receive(&chat(&n.to_string()));
        }
        assert_eq!(juliet.writes_all("home").taken().len(), BATCH_MAX);
    }

    #[test]
    fn of_two_resources_that_have_a_message_the_first_to_take_it_is_enough() {
        let mut juliet = account(JULIET).with("home", 0).with("phone", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        juliet.writes_all("home");
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
        juliet.writes_all("phone");
        assert!(juliet.after_ms(1_000).taken().is_empty());
        assert_eq!(page_asked(&juliet.loses("phone", 0, 0)), None);
    }

    // DESIGN.md D5, D10.
    #[test]
    fn a_message_that_is_sent_again_is_there_once() {
        let mut juliet = account(JULIET).with("home", 0);
        let ingress = Ingress { stream: 3, ordinal: 9 };
        let mut receive = |xml: &str, ingress| {
            juliet.now.utc = juliet.now.utc.plus_seconds(60);
            let stanza = Arc::new(stanza(xml));
            let to = stanza.to.clone().expect("an address");
            juliet.item(Item::Inbound { stanza, to, ingress, ticket: Ticket::default() }).written_to().len()
        };
        assert_eq!(receive(&chat("hi"), ingress), 1);
        assert_eq!(receive(&chat("hi"), ingress), 0);
        assert_eq!(receive(&chat("hi"), Ingress { stream: 4, ordinal: 9 }), 1);
        // With an origin-id: wherever it enters.
        let origin = |id: &str, body: &str, from: &str| {
            format!(
                "<message from='{from}' to='{JULIET}' type='chat'><body>{body}</body>\
                 <origin-id xmlns='urn:xmpp:sid:0' id='{id}'/></message>"
            )
        };
        assert_eq!(receive(&origin("o1", "hi", "romeo@montague.example/x"), Ingress { stream: 5, ordinal: 1 }), 1);
        assert_eq!(receive(&origin("o1", "hi", "romeo@montague.example/y"), Ingress { stream: 6, ordinal: 1 }), 0);
        assert_eq!(receive(&origin("o1", "ho", "romeo@montague.example/y"), Ingress { stream: 6, ordinal: 2 }), 1);
        assert_eq!(receive(&origin("o2", "hi", "romeo@montague.example/y"), Ingress { stream: 6, ordinal: 3 }), 1);
        assert_eq!(receive(&origin("o1", "hi", "paris@capulet.example/z"), Ingress { stream: 7, ordinal: 1 }), 1);
    }

    #[test]
    fn after_a_day_a_message_may_be_said_again() {
        let mut juliet = account(JULIET);
        let again = "<message from='romeo@montague.example/x' type='chat'><body>good night</body>\
            <origin-id xmlns='urn:xmpp:sid:0' id='o1'/></message>";
        assert_eq!(juliet.receive(again).appended().len(), 1);
        juliet.now.utc = START.plus_seconds(60);
        assert_eq!(juliet.receive(again).appended().len(), 0);
        juliet.now.utc = START.plus_seconds(24 * 3600 + 1);
        assert_eq!(juliet.receive(again).appended().len(), 1);
    }

    // DESIGN.md D4: an acknowledgement means durable, and the first commit may fail yet.
    #[test]
    fn what_comes_again_at_once_is_for_the_store_to_recognise() {
        let mut juliet = account(JULIET);
        let again = "<message from='romeo@montague.example/x' type='chat'><body>good night</body>\
            <origin-id xmlns='urn:xmpp:sid:0' id='o1'/></message>";
        let (first, second) = (juliet.receive(again).appended().remove(0), juliet.receive(again).appended().remove(0));
        assert!(first.dedupe.is_some() && first.dedupe == second.dedupe && first.position < second.position);
    }

    #[test]
    fn what_the_house_says_itself_is_never_taken_for_a_repetition() {
        let mut juliet = account(JULIET);
        for _ in 0..2 {
            let stanza = Arc::new(stanza(&chat("the server stops at noon")));
            let (to, ingress) = (juliet.jid.clone().into(), crate::presence::OWN);
            let fx = juliet.item(Item::Inbound { stanza, to, ingress, ticket: Ticket::default() });
            assert_eq!(fx.appended().len(), 1);
            assert_eq!(fx.appended()[0].dedupe, None);
        }
    }

    // LIMITS.md: 1,000 messages or 10 MiB; XEP-0160 §2.
    #[test]
    fn more_offline_messages_than_the_limit_are_refused() {
        let mut juliet = account(JULIET).policy(|p| p.limits.offline_messages_max = 2);
        assert_eq!(juliet.receive(&chat("1")).appended().len(), 1);
        assert_eq!(juliet.receive(&chat("2")).appended().len(), 1);
        let fx = juliet.receive(&chat("3"));
        assert!(fx.appended().is_empty() && error_told(&fx, "service-unavailable"));
        // Who is online is not concerned.
        let mut juliet = juliet.with("home", 0);
        assert_eq!(juliet.receive(&chat("4")).written_to(), ["home"]);
    }

    #[test]
    fn more_offline_bytes_than_the_limit_are_refused() {
        let mut juliet = account(JULIET).policy(|p| p.limits.offline_bytes_max = 1_000);
        assert_eq!(juliet.receive(&chat("1")).appended().len(), 1);
        let fx = juliet.receive(&chat(&"x".repeat(1_000)));
        assert!(fx.appended().is_empty() && error_told(&fx, "service-unavailable"));
        // What was there when the account was loaded counts.
        let mut juliet = with_pending([earlier(0)]).policy(|p| p.limits.offline_bytes_max = 150);
        assert!(error_told(&juliet.receive(&chat("1")), "service-unavailable"));
    }

    #[test]
    fn an_account_with_marks_to_write_is_not_idle() {
        let mut juliet = account(JULIET).with("home", 0);
        juliet.receive(&chat("hi"));
        juliet.writes_all("home");
        assert!(juliet.inbox.is_busy());
        juliet.after_ms(1_000);
        assert!(!juliet.inbox.is_busy());
    }
}
