//! An account in memory: its state, its gate, and what becomes of each effect.

use super::edges::Hold;
use super::gate::{Gate, Verdict};
use super::{AccountCell, House, Ready};
use cluster::Ran;
use im::{Account, EdgeItem, Effect, Effects, Item, Now, Query, QueryAnswer, SessionId, Then, Ticket};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::{AccountRecord, Change, Fence, Outcome, StoreError};
use xmpp::planted::{self, Bug};
use xmpp::{BareJid, Stanza, StreamFault};

/// A read of pending messages that failed is tried again after so long.
const PENDING_RETRY_MS: [u64; 7] = [50, 100, 200, 500, 1_000, 2_000, 4_000];
/// How long an account stays in memory after its last use, milliseconds.
const IDLE_MS: u64 = 30_000;

#[derive(Debug)]
pub struct Resident {
    pub account: Account,
    pub gate: Gate,
    fence: Fence,
    /// The nearest tick that was asked for, monotonic milliseconds.
    wake_at: Option<u64>,
    /// Stays in memory until then, monotonic milliseconds.
    pub fresh_until: u64,
    sweep_at: Option<u64>,
    may_go: bool,
    /// A step panicked, and what was to mend that did as well: nothing is done with this state any more.
    broken: bool,
    /// The stored part is read again, as a step panicked or a commit of it failed: what comes meanwhile, in order.
    mending: Option<VecDeque<Item>>,
    /// How many such reads are under way.
    reads: u32,
    /// Iqs whose queries are not asked yet, and the streams that wait for their answers.
    holds: Vec<(Arc<Stanza>, Hold)>,
    /// Sessions that wait for the answers of so many queries.
    asking: Vec<(SessionId, u32)>,
    /// What such a session said since, in order: it was in the mailbox when the query began, or was read before its
    /// stream knew. Bounded by the stanzas that a stream may have in flight.
    behind: VecDeque<(SessionId, Item)>,
}

impl Resident {
    pub fn new(account: Account, fence: Fence) -> Resident {
        Resident {
            account,
            gate: Gate::default(),
            fence,
            wake_at: None,
            fresh_until: 0,
            sweep_at: None,
            may_go: false,
            broken: false,
            mending: None,
            reads: 0,
            holds: Vec::new(),
            asking: Vec::new(),
            behind: VecDeque::new(),
        }
    }
}

impl Resident {
    fn take_hold(&mut self, iq: &Arc<Stanza>) -> Option<Hold> {
        let at = self.holds.iter().position(|(held, _)| Arc::ptr_eq(held, iq))?;
        Some(self.holds.swap_remove(at).1)
    }

    /// These do not happen: no stream waits for them.
    fn let_go(&mut self, dropped: &[Effect]) {
        for effect in dropped {
            if let Effect::Query { iq, session, .. } = effect {
                self.take_hold(iq);
                session.iter().for_each(|session| self.answered(*session));
            }
        }
    }

    fn asks(&mut self, session: SessionId) {
        match self.asking.iter_mut().find(|(id, _)| *id == session) {
            Some((_, queries)) => *queries += 1,
            None => self.asking.push((session, 1)),
        }
    }

    fn answered(&mut self, session: SessionId) {
        if let Some(at) = self.asking.iter().position(|(id, _)| *id == session) {
            self.asking[at].1 -= 1;
            if self.asking[at].1 == 0 {
                self.asking.swap_remove(at);
            }
        }
    }

    fn is_asking(&self, session: SessionId) -> bool {
        self.asking.iter().any(|(id, _)| *id == session)
    }

    /// Must the item wait for an answer that its session waits for? RFC 6120 §10.1, DESIGN.md D10.
    fn comes_behind(&self, item: &Item) -> Option<SessionId> {
        match item {
            // The end of a stream comes behind what was said on it.
            Item::FromClient { session, .. }
            | Item::Malformed { session, .. }
            | Item::Manage { session, .. }
            | Item::Detached { session, .. } => {
                let waits = self.is_asking(*session) || self.behind.iter().any(|(id, _)| id == session);
                waits.then_some(*session)
            }
            _ => None,
        }
    }

    /// The next item whose session waits for nothing any more.
    fn next_behind(&mut self) -> Option<Item> {
        let at = self.behind.iter().position(|(session, _)| !self.is_asking(*session))?;
        self.behind.remove(at).map(|(_, item)| item)
    }
}

/// What lies in an account's mailbox.
#[derive(Debug)]
pub enum CellItem {
    Im(Item),
    /// The writer says: this commit is on disk, with these outcomes.
    Committed {
        seq: u64,
        outcomes: Vec<Outcome>,
        ticket: Ticket,
    },
    /// The writer says: this commit failed. If it `passes`, what stands behind it happens nevertheless.
    Failed {
        seq: u64,
        passes: bool,
        error: StoreError,
        bounce: Option<Arc<Stanza>>,
        ticket: Ticket,
    },
    /// The stored part, read again after such a commit, if it could be.
    ReadAgain(Box<(Lapsed, Option<Box<AccountRecord>>)>),
    /// A step panicked; the stored part was read again, if it could be.
    Mended(Box<Mended>),
    /// Look whether anybody needs the account in memory.
    Sweep,
    /// Leave memory, if nobody is there.
    Rest,
}

/// Whom a step that panicked was for.
#[derive(Debug, Default)]
pub struct Hurt {
    /// Its session: it ends.
    session: Option<SessionId>,
    /// Somebody else's stanza: it is answered with an error, which is its outcome.
    bounce: Option<Arc<Stanza>>,
    ticket: Ticket,
}

/// A commit that failed.
#[derive(Debug)]
pub struct Lapsed {
    error: StoreError,
    bounce: Option<Arc<Stanza>>,
    ticket: Ticket,
}

#[derive(Debug)]
pub struct Mended {
    /// What stands behind the step waits for this, as for a commit.
    seq: u64,
    hurt: Hurt,
    stored: Option<Box<AccountRecord>>,
}

impl Hurt {
    fn by(item: &Item) -> Hurt {
        match item {
            Item::FromClient { session, .. }
            | Item::Malformed { session, .. }
            | Item::Manage { session, .. }
            | Item::Acked { session, .. }
            | Item::ClientState { session, .. }
            | Item::Written { session, .. }
            | Item::Settled { session, .. } => Hurt { session: Some(*session), ..Hurt::default() },
            Item::Answered { session, .. } => Hurt { session: *session, ..Hurt::default() },
            Item::Inbound { stanza, ticket, .. } | Item::SubscriptionLost { stanza, ticket, .. } => {
                Hurt { session: None, bounce: Some(stanza.clone()), ticket: ticket.clone() }
            }
            _ => Hurt::default(),
        }
    }
}

/// Items that wait at most while an account is mended; beyond that its sessions end.
const MENDING_ITEMS_MAX: usize = 10_000;

/// Does the change only keep the books, which can be behind for a while? Presence and messages between those who are
/// there go on without it, and it is tried again.
pub fn is_upkeep(change: &Change) -> bool {
    matches!(
        change,
        Change::SessionPut { .. }
            | Change::SessionDelete { .. }
            | Change::LastActivity { .. }
            | Change::Taken { .. }
            | Change::Trim { .. }
    ) || is_ledger_of_watchers(change)
        || matches!(change, Change::BlobDelete { space, key, .. } if im::modules::outcome::is_key(space, key))
}

fn is_ledger_of_watchers(change: &Change) -> bool {
    matches!(change, Change::BlobPut { space, key, .. } if (&**space, &**key) == (store::SETTINGS, im::watchers::KEY))
}

thread_local! {
    /// Room for the effects of a step, and for those that wait for the next commit of theirs: the thread's.
    static EFFECTS: std::cell::Cell<Vec<Effect>> = const { std::cell::Cell::new(Vec::new()) };
    static TOLD: std::cell::Cell<Vec<Effect>> = const { std::cell::Cell::new(Vec::new()) };
}

/// More room than that is given back.
const POOLED_EFFECTS_MAX: usize = 64;

/// So many stanzas of one mailbox may pass between two looks at the clock.
const STANZAS_A_LOOK: u32 = 32;

impl House {
    /// One turn of a cell; its caller is the runner. What is left in its mailbox waits behind the others that are ready.
    pub(super) fn run_cell(self: &Arc<House>, cell: &Arc<AccountCell>, ready: &mut Ready) {
        let mut orphans = Vec::new();
        // One look at the clock serves the stanzas that wait.
        let mut now = self.now();
        let mut looked = 0;
        let ran = cell.cell.run(
            |resident, item| {
                let stanza = matches!(item, CellItem::Im(Item::FromClient { .. } | Item::Inbound { .. }));
                looked += 1;
                if looked > 1 && (!stanza || looked % STANZAS_A_LOOK == 0) {
                    now = self.now();
                }
                if resident.broken {
                    orphans.push(item);
                } else {
                    self.step(cell, resident, item, now, ready);
                }
            },
            |resident| {
                resident.broken
                    || (resident.may_go
                        && resident.mending.is_none()
                        && resident.account.is_idle()
                        && resident.gate.is_empty())
            },
        );
        match ran {
            Ran::Idle => {}
            // What is left is for the account that begins anew, as what came before it is.
            Ran::More if !orphans.is_empty() => {
                orphans.extend(cell.cell.close());
                self.forget(cell);
            }
            Ran::More => ready.push_back(cell.clone()),
            Ran::Gone => self.forget(cell),
        }
        for item in orphans {
            self.leave(&cell.jid, item, ready);
        }
    }

    fn step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: CellItem,
        now: Now,
        ready: &mut Ready,
    ) {
        if let (CellItem::Im(_), Some(waiting)) = (&item, &mut resident.mending) {
            if waiting.len() >= MENDING_ITEMS_MAX {
                return self.give_up(cell, resident);
            }
            if let CellItem::Im(item) = item {
                waiting.push_back(item);
            }
            return;
        }
        match item {
            CellItem::Im(item) => match resident.comes_behind(&item) {
                Some(session) => resident.behind.push_back((session, item)),
                None => self.one_step(cell, resident, CellItem::Im(item), now, ready),
            },
            item => self.one_step(cell, resident, item, now, ready),
        }
        while !resident.broken
            && resident.mending.is_none()
            && let Some(item) = resident.next_behind()
        {
            self.one_step(cell, resident, CellItem::Im(item), now, ready);
        }
    }

    fn one_step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: CellItem,
        now: Now,
        ready: &mut Ready,
    ) {
        resident.may_go = false;
        let mut fx = Effects { list: EFFECTS.take() };
        // What is done is acknowledged: with an error as its outcome not before that is on its way.
        let mut kept = None;
        match item {
            CellItem::Im(item) => {
                // Kept over the step: what a panic leaves undone must never be acknowledged.
                let ticket = match &item {
                    Item::FromClient { ticket, .. }
                    | Item::Inbound { ticket, .. }
                    | Item::SubscriptionLost { ticket, .. } => Some(ticket.clone()),
                    _ => None,
                };
                let hurt = Hurt::by(&item);
                let asker = match &item {
                    Item::Attach(attach) => Some(attach.edge),
                    Item::Resume { edge, .. } => Some(*edge),
                    _ => None,
                };
                let is_error = matches!(&item, Item::Inbound { stanza, .. } if stanza.is_error());
                if matches!(item, Item::Tick) {
                    resident.wake_at = None;
                }
                if let Item::Answered { session: Some(session), .. } = &item {
                    resident.answered(*session);
                }
                resident.gate.begin_step();
                let account = &mut resident.account;
                let outcome = std::panic::catch_unwind(AssertUnwindSafe(|| account.step(item, now, &mut fx)));
                if outcome.is_err() {
                    if let Some(ticket) = ticket.filter(|_| hurt.bounce.is_none()) {
                        std::mem::forget(ticket);
                    }
                    if let Some(edge) = asker {
                        self.edges.send(edge, EdgeItem::Close(StreamFault::InternalError));
                    }
                    return self.step_panicked(cell, resident, hurt, fx, now, ready);
                }
                kept = ticket.filter(|_| is_error);
            }
            CellItem::Committed { seq, outcomes, ticket } => {
                let void = outcomes.iter().any(|o| matches!(o, Outcome::Duplicate(_)));
                let resolved = resident.gate.resolve(seq, if void { Verdict::Void } else { Verdict::Committed });
                for effect in resolved.free {
                    self.perform(cell, resident, effect, ready);
                }
                drop(resolved.tickets);
                resident.let_go(&resolved.dropped);
                if !resolved.dropped.is_empty() {
                    resident.gate.begin_step();
                    resident.account.step(Item::Dropped { effects: resolved.dropped }, now, &mut fx);
                }
                if void && planted::is(Bug::TicketForgotten) {
                    std::mem::forget(ticket);
                    return;
                }
                drop(ticket);
            }
            CellItem::Failed { seq, passes, error, bounce, ticket } => {
                let resolved = resident.gate.resolve(seq, if passes { Verdict::Committed } else { Verdict::Void });
                for effect in resolved.free {
                    self.perform(cell, resident, effect, ready);
                }
                drop(resolved.tickets);
                if matches!(error, StoreError::Fatal(_)) && !passes {
                    // The server ends, and who knows whether the error arrives: what is not acknowledged is sent again.
                    std::mem::forget(ticket.clone());
                }
                resident.let_go(&resolved.dropped);
                resident.gate.begin_step();
                resident.account.step(Item::Dropped { effects: resolved.dropped }, now, &mut fx);
                self.take_effects(cell, resident, std::mem::take(&mut fx), ready);
                if error != StoreError::Fenced && resident.account.reads_again(bounce.as_deref()) {
                    // What is decided meanwhile would be decided by what is not so.
                    resident.mending.get_or_insert_default();
                    resident.reads += 1;
                    super::commits::read_again(self, cell, Lapsed { error, bounce, ticket });
                } else {
                    // A step of its own: the error must not stand behind a write that is tried again.
                    resident.gate.begin_step();
                    let failed = Item::CommitFailed { bounce, error, ticket: ticket.clone(), stored: None };
                    resident.account.step(failed, now, &mut fx);
                    kept = Some(ticket);
                }
            }
            CellItem::ReadAgain(read) => {
                let (Lapsed { error, bounce, ticket }, stored) = *read;
                resident.gate.begin_step();
                let failed = Item::CommitFailed { bounce, error, ticket: ticket.clone(), stored };
                resident.account.step(failed, now, &mut fx);
                self.take_effects(cell, resident, std::mem::take(&mut fx), ready);
                drop(resident.gate.keep(ticket));
                self.go_on_mended(cell, resident, now, ready);
            }
            CellItem::Mended(mended) => return self.mended(cell, resident, *mended, now, ready),
            CellItem::Rest => {
                resident.fresh_until = 0;
                resident.may_go = resident.account.is_idle();
            }
            CellItem::Sweep => {
                resident.sweep_at = None;
                resident.may_go = resident.account.is_idle() && now.mono_ms >= resident.fresh_until;
            }
        }
        self.take_effects(cell, resident, fx, ready);
        if let Some(ticket) = kept {
            drop(resident.gate.keep(ticket));
        }
        if !resident.may_go && resident.sweep_at.is_none() && resident.account.is_idle() {
            resident.fresh_until = resident.fresh_until.max(now.mono_ms + IDLE_MS);
            resident.sweep_at = Some(resident.fresh_until);
            self.timers.sweep(resident.fresh_until, cell);
        }
    }

    /// Of one step, in order: commits go to the store, the rest happens or waits for them.
    fn take_effects(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        mut fx: Effects,
        ready: &mut Ready,
    ) {
        // A message is told to its recipient at once, but the sender's own row is in the store's queue before that: what
        // becomes of it becomes of the recipient's row too, or that alone is refused.
        let mut told = TOLD.take();
        for effect in fx.list.drain(..) {
            if let Effect::Query { session: Some(session), .. } = &effect {
                resident.asks(*session);
            }
            if let Effect::Query { iq, session: Some(session), .. } = &effect
                && let Some(edge) = resident.account.session(*session).and_then(|s| s.edge)
                && let Some(handle) = self.edges.get(edge)
            {
                // From now on, also while the query itself stands behind a commit.
                resident.holds.push((iq.clone(), Hold::new(handle)));
            }
            match effect {
                Effect::Commit { changes, bounce, ticket } => self.submit(cell, resident, changes, bounce, ticket),
                // Timers and counters have no order to keep.
                Effect::WakeAt { mono_ms } => self.wake_at(cell, resident, mono_ms),
                Effect::Count(name) => self.count(name),
                Effect::Limit(name) => self.limit(name),
                effect => {
                    if let Some(effect) = resident.gate.pass(effect) {
                        told.push(effect);
                        if !matches!(told.last(), Some(Effect::Tell { .. })) {
                            told.drain(..).for_each(|effect| self.perform(cell, resident, effect, ready));
                        }
                        continue;
                    }
                }
            }
            told.drain(..).for_each(|effect| self.perform(cell, resident, effect, ready));
        }
        told.drain(..).for_each(|effect| self.perform(cell, resident, effect, ready));
        for (room, pool) in [(told, &TOLD), (fx.list, &EFFECTS)] {
            if room.capacity() <= POOLED_EFFECTS_MAX {
                pool.set(room);
            }
        }
    }

    fn submit(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        changes: Vec<Change>,
        bounce: Option<Arc<Stanza>>,
        ticket: Ticket,
    ) {
        let seq = resident.gate.commit();
        let upkeep = changes.iter().all(is_upkeep);
        let (house, cell) = (self.clone(), cell.clone());
        let ticket = if planted::is(Bug::AckBeforeCommit) { Ticket::default() } else { ticket };
        let since = std::time::Instant::now();
        self.store.commit_soon(
            resident.fence,
            changes,
            Box::new(move |result| {
                crate::latency::COMMITS.add(since.elapsed());
                // On the writer's thread: only a note.
                let note = super::commits::Note { cell, seq, result, bounce, upkeep, ticket };
                house.commits.push(note);
            }),
        );
        self.uncommitted.store(true, Ordering::Release);
    }

    fn wake_at(&self, cell: &Arc<AccountCell>, resident: &mut Resident, mono_ms: u64) {
        if resident.wake_at.is_none_or(|at| mono_ms < at) {
            resident.wake_at = Some(mono_ms);
            self.timers.tick(mono_ms, cell);
        }
    }

    /// Makes an effect happen. The account's state is held; nothing here waits.
    fn perform(self: &Arc<House>, cell: &Arc<AccountCell>, resident: &mut Resident, effect: Effect, ready: &mut Ready) {
        match effect {
            Effect::Tell { to, stanza, ingress, ticket } => self.tell(to, stanza, ingress, ticket, ready),
            Effect::Fan { stanza, targets } => self.fan(&stanza, targets, ready),
            Effect::Edge { edge, item } => self.edges.send(edge, item),
            Effect::Query { query, iq, session, then } => self.ask(cell, resident, query, iq, session, then),
            Effect::ReadPending { after, .. } if planted::is(Bug::BacklogUnread) => {
                let (house, cell) = (self.clone(), cell.clone());
                self.runtime.spawn(async move {
                    house.post_to(&cell, CellItem::Im(Item::Pending { after, records: Some(Vec::new()) }));
                });
            }
            Effect::ReadPending { after, limit } => {
                let (house, cell) = (self.clone(), cell.clone());
                self.runtime.spawn(async move {
                    let records = house.pending_records(&cell.jid, after, limit).await;
                    house.post_to(&cell, CellItem::Im(Item::Pending { after, records }));
                });
            }
            Effect::Resumable { id, yes } => {
                if yes {
                    self.resumable.insert(id, cell.jid.clone());
                } else {
                    self.resumable.remove(&id);
                }
            }
            Effect::Unload => resident.fresh_until = 0,
            Effect::Report(report) => tracing::warn!(
                account = %cell.jid, about = %report.about, reason = ?report.reason, text = ?report.text,
                messages = ?report.messages, "a user reports somebody"
            ),
            Effect::Reply(stanza) => {
                if let Some((_, tell)) = stanza.id.as_deref().and_then(|id| self.asks.remove(id)) {
                    // Whoever asked may have gone.
                    let _ = tell.send(stanza);
                }
            }
            Effect::Noted(what) => tracing::info!(account = %cell.jid, "{what}"),
            Effect::Count(name) => self.count(name),
            Effect::Limit(name) => self.limit(name),
            Effect::WakeAt { mono_ms } => self.wake_at(cell, resident, mono_ms),
            Effect::Commit { changes, bounce, ticket } => self.submit(cell, resident, changes, bounce, ticket),
        }
    }

    /// A page of pending records. A store that is busy is asked again, a few times.
    async fn pending_records(&self, account: &BareJid, after: i64, limit: usize) -> Option<Vec<store::Record>> {
        for wait in PENDING_RETRY_MS {
            match self.store.inbox_after(account, after, true, limit).await {
                Ok(records) => return Some(records),
                Err(error) => {
                    self.count("pending_read_failures");
                    tracing::warn!(%account, ?error, "pending messages could not be read");
                }
            }
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        tracing::error!(%account, "pending messages could not be read; they wait for the next resource that comes");
        None
    }

    /// Runs a query without the account's state; the session's stream waits for the answer.
    fn ask(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        query: Query,
        iq: Arc<Stanza>,
        session: Option<SessionId>,
        then: Then,
    ) {
        let hold = resident.take_hold(&iq);
        let (house, cell) = (self.clone(), cell.clone());
        self.runtime.spawn(async move {
            let is_lost = planted::is(Bug::AnswerLost) && matches!(query, Query::Page { .. });
            // (The session waits for an answer in any case, also if finding it should panic.)
            let found = tokio::spawn({
                let house = house.clone();
                async move { house.answer(query).await }
            });
            let answer = found.await.unwrap_or_else(|error| {
                house.count("panics");
                tracing::error!(account = %cell.jid, %error, "a query panicked");
                QueryAnswer::Failed(StoreError::Fatal("the query panicked".into()))
            });
            if is_lost {
                return;
            }
            house.post_to(&cell, CellItem::Im(Item::Answered { iq, session, answer, then }));
            // What the stream reads now comes behind the answer.
            drop(hold);
        });
    }

    /// Those of the places, spaces and keys, where there is something.
    async fn blobs(&self, account: &BareJid, places: Vec<(Box<str>, Box<str>)>) -> QueryAnswer {
        let mut found = Vec::with_capacity(places.len());
        for (space, key) in places {
            match self.store.blob(account, &space, &key).await {
                Ok(value) => found.extend(value.map(|value| (key, value))),
                Err(error) => return QueryAnswer::Failed(error),
            }
        }
        QueryAnswer::Blobs(found)
    }

    async fn answer(self: &Arc<House>, query: Query) -> QueryAnswer {
        match query {
            Query::Blob { account, space, key } => match self.store.blob(&account, &space, &key).await {
                Ok(value) => QueryAnswer::Blob(value),
                Err(error) => QueryAnswer::Failed(error),
            },
            Query::Blobs { account, space, keys } => {
                self.blobs(&account, keys.into_iter().map(|key| (space.clone(), key)).collect()).await
            }
            Query::Places { account, places } => self.blobs(&account, places).await,
            Query::Page { account, query } => match self.store.inbox_page(&account, &query).await {
                Ok(page) => QueryAnswer::Page(page),
                Err(error) => QueryAnswer::Failed(error),
            },
            Query::ChangePassword { account, password } => match self.set_password(&account, &password.0).await {
                Ok(()) => QueryAnswer::Done,
                Err(error) => QueryAnswer::Refused(error),
            },
            Query::RemoveAccount { account } => match self.remove_account(&account).await {
                Ok(()) => QueryAnswer::Done,
                Err(error) => QueryAnswer::Refused(error),
            },
            Query::Invite { account } => match self.invite(&account).await {
                Ok((uri, expires)) => QueryAnswer::Invitation { uri, expires },
                Err(error) => QueryAnswer::Refused(error),
            },
            Query::Uptime => QueryAnswer::Seconds(self.started.elapsed().as_secs()),
        }
    }

    /// One session at most is hurt: that whose step it was. Nothing of the step happens; what is stored is read again,
    /// when all that was written before is there, and until then the account waits.
    fn step_panicked(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        hurt: Hurt,
        fx: Effects,
        now: Now,
        ready: &mut Ready,
    ) {
        self.count("panics");
        tracing::error!(account = %cell.jid, session = ?hurt.session, "a step panicked; the account's state is read again");
        resident.mending.get_or_insert_default();
        resident.reads += 1;
        let dropped = fx.list.into_iter().filter(|effect| !matches!(effect, Effect::Commit { .. })).collect::<Vec<_>>();
        resident.let_go(&dropped);
        if !self.mending_step(cell, resident, Item::Dropped { effects: dropped }, now, ready) {
            return;
        }
        resident.gate.begin_step();
        let seq = resident.gate.commit();
        let (house, cell) = (self.clone(), cell.clone());
        let done = move |_| {
            // On the writer's thread.
            let runtime = house.runtime.clone();
            runtime.spawn(async move {
                let stored = house.store.load_account(&cell.jid).await.ok().flatten().map(Box::new);
                house.post_to(&cell, CellItem::Mended(Box::new(Mended { seq, hurt, stored })));
            });
        };
        self.store.commit(resident.fence, Vec::new(), Box::new(done));
    }

    fn mended(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        mended: Mended,
        now: Now,
        ready: &mut Ready,
    ) {
        let Mended { seq, hurt, stored } = mended;
        let resolved = resident.gate.resolve(seq, Verdict::Committed);
        for effect in resolved.free {
            self.perform(cell, resident, effect, ready);
        }
        drop(resolved.tickets);
        let Some(stored) = stored else { return self.give_up(cell, resident) };
        let error = StoreError::Fatal("the step panicked".into());
        let Hurt { session, bounce, ticket } = hurt;
        let is_well = self.mending_step(cell, resident, Item::Panicked { session, stored }, now, ready)
            && self.mending_step(
                cell,
                resident,
                Item::CommitFailed { bounce, error, ticket, stored: None },
                now,
                ready,
            );
        if !is_well {
            return;
        }
        self.go_on_mended(cell, resident, now, ready);
    }

    /// The stored part was read again. When no other read is under way, what waited for that comes.
    fn go_on_mended(self: &Arc<House>, cell: &Arc<AccountCell>, resident: &mut Resident, now: Now, ready: &mut Ready) {
        resident.reads = resident.reads.saturating_sub(1);
        if resident.reads > 0 {
            return;
        }
        for item in resident.mending.take().unwrap_or_default() {
            self.step(cell, resident, CellItem::Im(item), now, ready);
        }
    }

    /// A step that mends; `false`: it panicked, too.
    fn mending_step(
        self: &Arc<House>,
        cell: &Arc<AccountCell>,
        resident: &mut Resident,
        item: Item,
        now: Now,
        ready: &mut Ready,
    ) -> bool {
        let mut fx = Effects::default();
        resident.gate.begin_step();
        let account = &mut resident.account;
        if std::panic::catch_unwind(AssertUnwindSafe(|| account.step(item, now, &mut fx))).is_err() {
            self.count("panics");
            self.give_up(cell, resident);
            return false;
        }
        self.take_effects(cell, resident, fx, ready);
        true
    }

    /// The account's state cannot be mended: its streams are closed, and it begins anew from the store.
    fn give_up(self: &Arc<House>, cell: &Arc<AccountCell>, resident: &mut Resident) {
        tracing::error!(account = %cell.jid, "the account's state is lost; its sessions are closed");
        resident.broken = true;
        resident.mending = None;
        for session in &resident.account.sessions {
            if let Some(edge) = session.edge {
                self.edges.send(edge, EdgeItem::Close(StreamFault::InternalError));
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::config;
    use crate::house::{accounts, commits, edges::EdgeHandle, run};
    use std::collections::{HashMap, VecDeque};
    use store::memory::MemoryStore;
    use store::{Credentials, Store};
    use xmpp::Stamp;

    pub fn juliet() -> BareJid {
        BareJid::parse("juliet@capulet.example").expect("a bare JID in a test")
    }

    /// A house with one account, on a store in memory.
    pub fn house() -> (Arc<House>, Arc<MemoryStore>) {
        let text = "[host.\"capulet.example\"]\n";
        let config = Arc::new(config::parse(text, None, &config::Sources::default()).expect("it is good"));
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn Store> = memory.clone();
        let now = im::Now { utc: Stamp(0), mono_ms: 0 };
        let world = crate::world::World::real();
        let seams = super::super::Seams::new(&[], world.crypto.clone());
        let hosts = run::hosts_of(&config, &HashMap::new(), now, &seams);
        let cluster = Box::new(cluster::Local::new(store.epoch()));
        let authenticator = Box::new(accounts::Internal(store.clone()));
        let house = House::new(config, store, cluster, hosts, authenticator, &world, seams);
        tokio::spawn(commits::carry(house.clone()));
        (house, memory)
    }

    /// A record of the archive.
    pub fn record(position: i64) -> store::Record {
        store::Record {
            position,
            direction: store::Direction::Incoming,
            peer: juliet().into(),
            stanza: b"<message/>".to_vec(),
            pending: false,
            archived: true,
            dedupe: None,
            expires: None,
        }
    }

    pub async fn create(house: &House) {
        let credentials = Credentials { scram_sha1: None, scram_sha256: None };
        let change = Change::AccountCreate { account: juliet(), credentials, created: Stamp(0) };
        house.commit(&juliet(), vec![change]).await.expect("there is none of that name");
    }

    async fn next(edge: &EdgeHandle) -> EdgeItem {
        let mut queue = VecDeque::new();
        // Everything runs on this one task's thread: what is to come comes when the others had their turn.
        for _ in 0..1_000 {
            edge.take(&mut queue, None);
            match queue.pop_front() {
                Some(item) => {
                    // The others for later.
                    queue.into_iter().for_each(|rest| edge.send(rest));
                    return item;
                }
                None => tokio::task::yield_now().await,
            }
        }
        panic!("the stream hears nothing")
    }

    /// Juliet binds a resource.
    async fn session(house: &Arc<House>) -> (SessionId, Arc<EdgeHandle>) {
        create(house).await;
        bound(house).await
    }

    async fn bound(house: &Arc<House>) -> (SessionId, Arc<EdgeHandle>) {
        let edge = house.edges.open(100, 1 << 20);
        house.post(&juliet(), Item::Attach(attach(edge.id)));
        let session = match next(&edge).await {
            EdgeItem::Attached { session, .. } => session,
            other => panic!("{other:?}"),
        };
        (session, edge)
    }

    fn attach(edge: im::EdgeRef) -> im::Attach {
        im::Attach {
            edge,
            resource: Some("home".into()),
            seed: 1,
            client: None,
            bind2: false,
            carbons: false,
            inactive: false,
            management: None,
            stream: 1,
            roles: im::roles::Roles::ALL,
            secure: true,
        }
    }

    fn says(house: &Arc<House>, session: SessionId, ordinal: u32, xml: &str) {
        let stanza = Arc::new(Stanza::parse(xml.as_bytes()).expect("a stanza in a test"));
        let ingress = im::Ingress { stream: 1, ordinal };
        house.post(&juliet(), Item::FromClient { session, stanza, ingress, ticket: Ticket::default() });
    }

    async fn next_id(edge: &EdgeHandle) -> String {
        match next(edge).await {
            EdgeItem::Deliver { delivery, .. } => delivery.stanza.id.as_deref().unwrap_or_default().to_owned(),
            other => panic!("{other:?}"),
        }
    }

    // RFC 6120 §10.1, DESIGN.md D10.
    #[tokio::test]
    async fn what_a_stream_said_behind_an_iq_that_waits_for_the_store_comes_behind_its_answer() {
        let (house, _) = house();
        let (session, edge) = session(&house).await;
        // Nothing gives the query a turn before all are said, as when another thread runs the account meanwhile.
        says(&house, session, 1, "<iq type='get' id='stored'><vCard xmlns='vcard-temp'/></iq>");
        says(&house, session, 2, "<iq type='get' id='known'><query xmlns='jabber:iq:roster'/></iq>");
        says(&house, session, 3, "<iq type='get' id='again'><vCard xmlns='vcard-temp'/></iq>");
        says(&house, session, 4, "<iq type='get' id='nobody'><query xmlns='nobody:knows'/></iq>");
        let answer = Stanza::parse(b"<iq type='error' id='wrong'/>").expect("a stanza in a test");
        let answer = Arc::new(answer);
        house.post(&juliet(), Item::Malformed { session, answer, ticket: Ticket::default() });
        for id in ["stored", "known", "again", "nobody", "wrong"] {
            assert_eq!(next_id(&edge).await, id);
        }
    }

    #[tokio::test]
    async fn a_stream_that_ends_behind_such_an_iq_ends_when_that_is_answered() {
        let (house, _) = house();
        let (session, edge) = session(&house).await;
        says(&house, session, 1, "<iq type='get' id='stored'><vCard xmlns='vcard-temp'/></iq>");
        let reason = im::DetachReason::Closed;
        house.post(&juliet(), Item::Detached { session, edge: edge.id, reason, deliveries: 0, received: 1 });
        assert_eq!(next_id(&edge).await, "stored");
        for _ in 0..1_000 {
            tokio::task::yield_now().await;
        }
        let sessions = house.cell(&juliet()).cell.peek(|resident| resident.account.sessions.len());
        assert_eq!(sessions, Some(0));
    }

    async fn another(house: &Arc<House>, resource: &str) -> (SessionId, Arc<EdgeHandle>) {
        let edge = house.edges.open(100, 1 << 20);
        let mut attach = attach(edge.id);
        attach.resource = Some(resource.into());
        attach.stream = 2;
        house.post(&juliet(), Item::Attach(attach));
        match next(&edge).await {
            EdgeItem::Attached { session, .. } => (session, edge),
            other => panic!("{other:?}"),
        }
    }

    fn panics() -> Then {
        |_, _, _, _, _| panic!("planted")
    }

    fn question() -> Arc<Stanza> {
        Arc::new(Stanza::parse(b"<iq type='get' id='1'><x xmlns='u'/></iq>").expect("a stanza in a test"))
    }

    // One session at most is hurt.
    #[tokio::test]
    async fn a_step_that_panics_ends_the_session_whose_step_it_was_and_no_other() {
        let (house, _) = house();
        let (hurt, edge) = session(&house).await;
        let (well, other) = another(&house, "phone").await;
        let answer = QueryAnswer::Done;
        house.post(&juliet(), Item::Answered { iq: question(), session: Some(hurt), answer, then: panics() });
        // What comes in the same moment waits, and is not lost.
        says(&house, well, 1, "<iq type='get' id='at once'><query xmlns='jabber:iq:roster'/></iq>");
        assert!(matches!(next(&edge).await, EdgeItem::Close(StreamFault::InternalError)));
        assert_eq!(next_id(&other).await, "at once");
        assert_eq!(house.counters.get("panics").map(|it| it.load(Ordering::Relaxed)), Some(1));
        // What is left of the old stream reaches an account that knows nothing of it.
        says(&house, hurt, 1, "<iq type='get' id='old'><query xmlns='jabber:iq:roster'/></iq>");
        says(&house, well, 2, "<iq type='set' id='set'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>");
        // The push, as it has asked for the roster.
        assert!(!next_id(&other).await.is_empty());
        assert_eq!(next_id(&other).await, "set");
        let (again, edge) = bound(&house).await;
        says(&house, again, 1, "<iq type='get' id='new'><query xmlns='jabber:iq:roster'/></iq>");
        assert_eq!(next_id(&edge).await, "new");
    }

    #[tokio::test]
    async fn a_step_that_panics_and_is_of_no_session_ends_none() {
        let (house, _) = house();
        let (session, edge) = session(&house).await;
        house.post(
            &juliet(),
            Item::Answered { iq: question(), session: None, answer: QueryAnswer::Done, then: panics() },
        );
        says(&house, session, 1, "<iq type='get' id='next'><query xmlns='jabber:iq:roster'/></iq>");
        assert_eq!(next_id(&edge).await, "next");
    }

    #[tokio::test]
    async fn what_waits_behind_a_state_that_is_lost_reaches_the_account_that_begins_anew() {
        let (house, _) = house();
        create(&house).await;
        // It is being loaded: all this waits in its mailbox, more than one turn of it.
        let cell = house.cell(&juliet());
        let lost = Mended { seq: 0, hurt: Hurt::default(), stored: None };
        house.post_to(&cell, CellItem::Mended(Box::new(lost)));
        let (say, mut done) = tokio::sync::mpsc::channel::<()>(1);
        for n in 0..3 * cluster::cell::ITEMS_A_TURN {
            let message = format!("<message from='a@b.example' to='{}' id='{n}'><body>{n}</body></message>", juliet());
            house.post(
                &juliet(),
                Item::Inbound {
                    stanza: Arc::new(Stanza::parse(message.as_bytes()).expect("a stanza in a test")),
                    to: juliet().into(),
                    ingress: im::Ingress { stream: 1, ordinal: n as u32 },
                    ticket: Ticket(Some(Arc::new(say.clone()))),
                },
            );
        }
        drop(say);
        let each = tokio::time::timeout(Duration::from_secs(60), done.recv()).await;
        assert_eq!(each, Ok(None), "each has its outcome");
        assert!(!Arc::ptr_eq(&cell, &house.cell(&juliet())));
    }

    #[tokio::test]
    async fn presence_goes_on_while_the_disk_is_full() {
        let (house, memory) = house();
        let (session, edge) = session(&house).await;
        memory.fail_next(StoreError::Full);
        says(&house, session, 1, "<presence/>");
        match next(&edge).await {
            EdgeItem::Deliver { delivery, .. } => assert!(delivery.stanza.is_presence(), "{delivery:?}"),
            other => panic!("{other:?}"),
        }
    }

    // XEP-0386 §3.2.
    #[tokio::test]
    async fn a_client_that_binds_hears_where_its_archive_begins_and_ends() {
        let (house, _) = house();
        create(&house).await;
        let metadata = async || house.archive_metadata(&juliet()).await.expect("there is an archive");
        assert_eq!(metadata().await.elements().count(), 0);
        let key = [7; 32];
        let ids = im::archive_ids::ArchiveIds::from_stored(Some(&key)).expect("a key");
        let (space, name) = (store::SETTINGS.into(), im::archive_ids::KEY.into());
        let kept = Change::BlobPut { account: juliet(), space, key: name, value: key.to_vec() };
        house.commit(&juliet(), vec![kept]).await.expect("it is kept");
        for position in [7_000_000, 8_000_000, 9_000_000] {
            let change = Change::Append { account: juliet(), record: record(position) };
            house.commit(&juliet(), vec![change]).await.expect("it grows");
        }
        let text = String::from_utf8(metadata().await.to_bytes("")).expect("UTF-8");
        let start = format!("<start id='{:016x}' timestamp='1970-01-01T00:00:07Z'/>", ids.id(7_000_000));
        let end = format!("<end id='{:016x}' timestamp='1970-01-01T00:00:09Z'/>", ids.id(9_000_000));
        assert_eq!(text, format!("<metadata xmlns='urn:xmpp:mam:2'>{start}{end}</metadata>"));
    }

    /// Juliet's stream is lost, and while the row of a message for her is on its way to the disk she resumes. What came
    /// over the new stream before the last answer.
    async fn resumes_before(outcome: Option<StoreError>) -> Vec<String> {
        let (house, memory) = house();
        let (session, edge) = session(&house).await;
        says(&house, session, 1, "<presence/>");
        let request = im::item::ManagementRequest { resume: true, max: None, id: "sm1".into() };
        house.post(&juliet(), Item::Manage { session, request });
        while !matches!(next(&edge).await, EdgeItem::Managed(_)) {}
        let reason = im::DetachReason::Lost;
        house.post(&juliet(), Item::Detached { session, edge: edge.id, reason, deliveries: 1, received: 1 });
        // Nothing gives the writer's answer a turn before all is said.
        outcome.into_iter().for_each(|error| memory.fail_next(error));
        let message = "<message from='romeo@montague.example/x' to='juliet@capulet.example' type='chat' id='m'>\
            <body>m</body></message>";
        let stanza = Arc::new(Stanza::parse(message.as_bytes()).expect("a stanza in a test"));
        let ingress = im::Ingress { stream: 2, ordinal: 1 };
        let (to, ticket) = (juliet().into(), Ticket::default());
        house.post(&juliet(), Item::Inbound { stanza, to, ingress, ticket });
        let edge = house.edges.open(100, 1 << 20);
        house.post(&juliet(), Item::Resume { edge: edge.id, id: "sm1".into(), h: 0 });
        says(&house, session, 2, "<iq type='get' id='last'><query xmlns='jabber:iq:roster'/></iq>");
        let mut came = Vec::new();
        loop {
            if let EdgeItem::Deliver { delivery, .. } = next(&edge).await {
                came.extend(delivery.stanza.id.as_deref().map(str::to_owned));
                if came.last().is_some_and(|id| id == "last") {
                    return came;
                }
            }
        }
    }

    /// What the stream was told of the roster until the answer of that id, that included.
    async fn of_the_roster(edge: &EdgeHandle, last: &str) -> Vec<String> {
        let mut told = Vec::new();
        loop {
            let EdgeItem::Deliver { delivery, .. } = next(edge).await else { continue };
            told.push(String::from_utf8(xmpp::write::to_stored(&delivery.stanza)).expect("UTF-8"));
            if delivery.stanza.id.as_deref() == Some(last) {
                return told;
            }
        }
    }

    // RFC 6121 §2.1.6.
    #[tokio::test]
    async fn who_read_a_change_of_the_roster_that_is_refused_then_is_told_how_it_stands() {
        let (house, memory) = house();
        let (session, edge) = session(&house).await;
        let roster = "jabber:iq:roster";
        memory.fail_next(StoreError::Full);
        // The second change is good, and its row may be on its way when the first is refused.
        for (n, jid) in [(1, "lost@b.example"), (2, "kept@b.example")] {
            let set = format!("<iq type='set' id='set{n}'><query xmlns='{roster}'><item jid='{jid}'/></query></iq>");
            says(&house, session, n, &set);
        }
        says(&house, session, 3, &format!("<iq type='get' id='get'><query xmlns='{roster}'/></iq>"));
        let mut told = of_the_roster(&edge, "set1").await;
        says(&house, session, 4, &format!("<iq type='get' id='last'><query xmlns='{roster}'/></iq>"));
        told.extend(of_the_roster(&edge, "last").await);
        let at = |what: &str| told.iter().position(|it| it.contains(what));
        let (read, mended) = (at("id='get'"), at("jid='lost@b.example' subscription='remove'"));
        assert!(told[read.expect("it was read")].contains("lost@"), "{told:?}");
        assert!(mended > read, "{told:?}");
        let last = told.last().expect("an answer");
        assert!(last.contains("kept@") && !last.contains("lost@"), "{told:?}");
        // Whoever has the version of what came to nothing does not take a later one for it.
        let ver = |text: &str| text.split("ver='").nth(1).and_then(|it| it.split('\'').next()).map(str::to_owned);
        assert!(ver(&told[read.expect("it was read")]) != ver(last), "{told:?}");
    }

    // DESIGN.md D4: the effects behind a write that failed do not happen.
    #[tokio::test]
    async fn a_session_that_resumes_is_not_shown_a_message_whose_commit_fails_meanwhile() {
        assert_eq!(resumes_before(None).await, ["m", "last"]);
        assert_eq!(resumes_before(Some(StoreError::Full)).await, ["last"]);
    }

    #[test]
    fn only_what_keeps_the_books_passes_a_full_disk() {
        let account = juliet();
        let left = Change::LastActivity { account: account.clone(), left: Stamp(0), status: "".into() };
        assert!(is_upkeep(&left));
        assert!(is_upkeep(&Change::SessionDelete { account: account.clone(), resource: "home".into() }));
        assert!(is_upkeep(&Change::Taken { account: account.clone(), positions: vec![1] }));
        assert!(!is_upkeep(&Change::RequestDelete { account: account.clone(), contact: account }));
    }
}
