//! The outbox: what waits for other domains and must survive a restart, as rows of the store.
//!
//! A kept stanza is promised to its sender when its row is on disk, and goes out then. The row goes when the other
//! server has the stanza, or its sender an error. (What nobody is promised may go ahead of its row: [`super::ahead`].)

use super::ahead::may_go_ahead;
use super::queue::{Keeping, Queued, is_kept};
use super::{Federation, Policy, link};
use crate::house::Ready;
use dashmap::DashMap;
use im::{Ingress, Ticket};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;
use store::{Change, Key, OutboxRow, StoreError};
use stream::Pair;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};
use xmpp::error::ErrorType;
use xmpp::write::to_stored;
use xmpp::{BareJid, Jid, PresenceType, Stamp, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Rows that are read at a time.
const PAGE: usize = 500;
/// A domain that was spoken with so recently is expected to come back.
const REACHED_SECONDS: i64 = 7 * 86_400;
/// How often it is written down that a domain is spoken with.
const REACHED_EVERY_SECONDS: i64 = 3_600;
/// At the start of the process, before others are dialled.
const LISTENERS_FIRST: Duration = Duration::from_millis(500);
/// An acknowledgement waits so long for an error that is nowhere but in memory. Less than the time after which the other
/// server would hear of what is done at all ([`super::flow`]): it does not break its stream, and sends nothing twice,
/// because we cannot reach it.
const UNWRITTEN_PATIENCE: Duration = Duration::from_secs(10);
/// Told presence waits so long for a server that does not come back.
const STATE_PATIENCE: Duration = Duration::from_secs(86_400);

/// Numbers of stanzas, rows whose deletion is to be tried again, and when domains were last spoken with.
#[derive(Debug, Default)]
pub struct Outbox {
    last: AtomicI64,
    undeleted: Mutex<Vec<(Pair, i64)>>,
    reached: DashMap<Pair, Stamp>,
}

impl Outbox {
    /// Greater than all before, also than those of earlier processes.
    fn next(&self, now: Stamp) -> i64 {
        let next = |last: i64| now.0.max(last.saturating_add(1));
        let update = self.last.fetch_update(Ordering::AcqRel, Ordering::Acquire, |last| Some(next(last)));
        update.map_or(now.0, next)
    }
}

impl Federation {
    /// Queues a stanza for another domain; `stanza.from` is of one of ours. The ticket goes when the stanza cannot be
    /// lost any more, or at once if nobody was promised anything.
    ///
    /// # Errors
    /// What its sender gets, with the ticket given back: the domain is not spoken with, or too much waits for it.
    pub fn send(
        self: &Arc<Federation>,
        to: Jid,
        stanza: &Arc<Stanza>,
        ticket: Ticket,
    ) -> Result<(), (StanzaError, Ticket)> {
        let policy = self.policy();
        let Some(from) = stanza.from.as_ref() else { return Ok(()) };
        if !policy.allows(to.domain()) || to.domain() == from.domain() {
            let error = StanzaError::from(StanzaCondition::RemoteServerNotFound);
            return Err((error.with_text("This server does not speak with that domain."), ticket));
        }
        self.probing(stanza, &to);
        let kept = is_kept(stanza);
        let now = self.house.now().utc;
        let id = self.outbox.next(now);
        let mut queued = Queued {
            stanza: stanza.clone(),
            to,
            id,
            keeping: if kept { Keeping::Writing } else { Keeping::Memory },
            since: Instant::now(),
            before: Duration::ZERO,
            life: life(stanza, now),
            again: false,
            awaited: None,
        };
        let pair = Pair::new(from.domain(), queued.to.domain());
        if kept {
            tracing::trace!(%pair, row = id, stanza = stanza.id.as_deref().unwrap_or_default(), "queued for another domain");
        }
        let may_go_ahead = kept && may_go_ahead(stanza, &ticket);
        let mut ticket = ticket;
        // A link that is forgotten between look-up and push is looked up again.
        loop {
            let Some(link) = self.link(&pair, &from.to_bare()) else { return Err((busy(), ticket)) };
            let is_ahead = may_go_ahead && link.is_carried() && self.put_ahead(&link, &queued, now, &mut ticket);
            if is_ahead {
                queued.keeping = Keeping::Row;
            }
            let row = (queued.keeping == Keeping::Writing).then(|| row_of(stanza, &queued.to, id, now));
            let refused = match link.push(queued, &policy) {
                super::queue::Pushed::Queued => None,
                super::queue::Pushed::Dial => self.dial(&link, stanza, id).err(),
                super::queue::Pushed::Full(_) => {
                    self.house.count("s2s_queue_full");
                    self.house.limit("s2s_queue_stanzas_max");
                    Some(busy())
                }
                super::queue::Pushed::Gone(back) => {
                    queued = back;
                    self.forget_link(&link);
                    if is_ahead {
                        queued.keeping = Keeping::Writing;
                        ticket = self.take_from_ahead(&pair, id);
                    }
                    continue;
                }
            };
            if let Some(error) = refused {
                return Err((error, if is_ahead { self.take_from_ahead(&pair, id) } else { ticket }));
            }
            if let Some(row) = row {
                self.keep(link, row, ticket);
            }
            return Ok(());
        }
    }

    /// What was sent on a stream that broke, and was not acknowledged, goes first.
    pub fn requeue(self: &Arc<Federation>, pair: &Pair, mut sent: Vec<Queued>) {
        let Some(dialler) = sent.first().and_then(|queued| queued.stanza.from.as_ref()).map(Jid::to_bare) else {
            return;
        };
        // A link that is forgotten meanwhile is looked up again.
        while let Some(link) = self.link(pair, &dialler) {
            match link.push_back_first(sent) {
                super::queue::Pushed::Dial => return self.dial_at_leisure(&link),
                super::queue::Pushed::Queued | super::queue::Pushed::Full(_) => return,
                super::queue::Pushed::Gone(back) => {
                    sent = back;
                    self.forget_link(&link);
                }
            }
        }
    }

    fn keep(self: &Arc<Federation>, link: Arc<super::queue::Link>, row: OutboxRow, ticket: Ticket) {
        let id = row.id;
        let federation = self.clone();
        self.house.commit_soon(
            fence(self, &link.pair),
            vec![Change::OutboxPut { row }],
            Box::new(move |result| match result {
                Ok(_) => {
                    link.written(id);
                    drop(ticket);
                }
                Err(error) => federation.unkept(&link, id, error, ticket),
            }),
        );
    }

    /// On the writer's thread: the row could not be written. What it answers is acknowledged when the error that goes
    /// without a row is on the wire: whoever kills this process before has it sent again, and refused again.
    fn unkept(self: &Arc<Federation>, link: &super::queue::Link, id: i64, error: StoreError, ticket: Ticket) {
        let (awaited, on_the_wire) = oneshot::channel();
        if matches!(error, StoreError::Full | StoreError::Busy) && link.goes_unwritten(id, awaited) {
            self.house.runtime.spawn(async move {
                // Said, or the time for that is over.
                let _ = timeout(UNWRITTEN_PATIENCE, on_the_wire).await;
                drop(ticket);
            });
            return;
        }
        let Some(queued) = link.take_out(id) else { return };
        tracing::error!(pair = %link.pair, ?error, "a message for another domain could not be kept");
        let error = match error {
            StoreError::Full | StoreError::Busy => busy(),
            StoreError::Fenced => return,
            StoreError::Fatal(_) | StoreError::Damaged(_) => StanzaCondition::InternalServerError.into(),
        };
        let federation = self.clone();
        self.house.runtime.spawn(async move { federation.answer(queued, &error, ticket) });
    }

    /// The other server has these.
    pub fn done(self: &Arc<Federation>, pair: &Pair, ids: Vec<i64>) {
        self.delete(pair, ids, false);
    }

    /// The same of messages that it would know again: their rows go with the next that is written, within seconds.
    pub fn done_in_time(self: &Arc<Federation>, pair: &Pair, ids: Vec<i64>) {
        self.delete(pair, ids, true);
    }

    fn delete(self: &Arc<Federation>, pair: &Pair, mut ids: Vec<i64>, may_wait: bool) {
        self.settle_ahead(&mut ids);
        if ids.is_empty() {
            return;
        }
        let local = match BareJid::of_domain(&pair.from) {
            Ok(local) => local,
            Err(_) => return,
        };
        let (federation, of, again) = (self.clone(), pair.clone(), ids.clone());
        let changes = vec![Change::OutboxDelete { local, ids }];
        let done: store::Committed = Box::new(move |result| match result {
            Ok(_) => tracing::trace!(pair = %of, rows = ?again, "rows of the outbox are gone"),
            Err(StoreError::Full | StoreError::Busy) => {
                federation.outbox.undeleted.lock().extend(again.into_iter().map(|id| (of.clone(), id)));
            }
            Err(StoreError::Fenced | StoreError::Fatal(_) | StoreError::Damaged(_)) => {}
        });
        match may_wait {
            true => self.house.commit_soon(fence(self, pair), changes, done),
            false => self.house.store.commit(fence(self, pair), changes, done),
        }
    }

    /// Deletes what waited for something else to be written, and tries again what could not be deleted.
    pub fn sweep_outbox(self: &Arc<Federation>) {
        self.house.commit_now();
        let undeleted = std::mem::take(&mut *self.outbox.undeleted.lock());
        let mut by_pair = std::collections::BTreeMap::<Pair, Vec<i64>>::new();
        for (pair, id) in undeleted {
            by_pair.entry(pair).or_default().push(id);
        }
        for (pair, ids) in by_pair {
            self.done(&pair, ids);
        }
    }

    /// What waited in vain: an error to its sender, if it is one that waits for an answer. `why` is for people.
    pub fn bounce(
        self: &Arc<Federation>,
        stanzas: impl IntoIterator<Item = Queued>,
        condition: StanzaCondition,
        why: &str,
    ) {
        for queued in stanzas {
            if queued.is_over() {
                self.drop_over(queued);
                continue;
            }
            self.house.count("s2s_bounced");
            tracing::trace!(row = queued.id, condition = condition.name(), why, "given back to its sender");
            let ticket = self.end_of(&queued);
            let report = im::modules::outcome::expired(&queued.stanza, &queued.to, queued.id);
            self.answer(queued, &StanzaError::from(condition).with_text(why), ticket.clone());
            if let Some(report) = report {
                self.report(report, ticket);
            }
        }
    }

    /// Its time was over while it waited: it does not go, and its sender is told as it asked to be.
    pub fn drop_over(self: &Arc<Federation>, queued: Queued) {
        self.house.count("messages_expired");
        tracing::trace!(row = queued.id, "not delivered: its time is over");
        let ticket = self.end_of(&queued);
        let events = im::modules::amp::over_in_transit(&queued.stanza, self.house.now().utc);
        let report = im::modules::outcome::expired(&queued.stanza, &queued.to, queued.id);
        for told in events.into_iter().chain(report) {
            self.report(told, ticket.clone());
        }
    }

    /// To a sender who asked what became of a message; an error finds nobody when the sender is away (RFC 6121
    /// §8.5.2.2.1), and this waits in the inbox.
    fn report(self: &Arc<Federation>, report: Stanza, ticket: Ticket) {
        let Some(to) = report.to.clone().filter(|to| self.house.host(to.domain()).is_some()) else { return };
        let mut ready = Ready::new();
        self.house.tell(to, Arc::new(report), Ingress { stream: 0, ordinal: 0 }, ticket, &mut ready);
        self.house.work(&mut ready);
    }

    /// Its row goes when the ticket does.
    fn end_of(self: &Arc<Federation>, queued: &Queued) -> Ticket {
        let from = queued.stanza.from.as_ref().map_or("", |from| from.domain());
        match queued.keeping {
            Keeping::Memory => Ticket::default(),
            Keeping::Writing | Keeping::Row => Ticket(Some(Arc::new(Ending {
                federation: self.clone(),
                pair: Pair::new(from, queued.to.domain()),
                id: queued.id,
            }))),
        }
    }

    fn answer(self: &Arc<Federation>, queued: Queued, error: &StanzaError, ticket: Ticket) {
        if !is_answered(queued.stanza.kind) {
            return;
        }
        let stanza = match &queued.stanza.to {
            Some(_) => queued.stanza.clone(),
            None => Arc::new((*queued.stanza).clone().with_to(queued.to.clone())),
        };
        let mut ready = Ready::new();
        self.house.answer_error(&stanza, error, ticket, &mut ready);
        self.house.work(&mut ready);
    }

    /// How long a stanza waits for a domain that does not answer.
    pub fn patience(&self, policy: &Policy, pair: &Pair, queued: &Queued, absent: bool) -> Duration {
        let patience = match queued.keeping {
            _ if absent => policy.absent,
            Keeping::Memory if queued.is_state() => STATE_PATIENCE,
            Keeping::Memory => policy.patience,
            Keeping::Writing | Keeping::Row if self.was_reached(pair) => policy.keep.max(policy.patience),
            Keeping::Writing | Keeping::Row => policy.patience,
        };
        queued.life.map_or(patience, |life| life.min(patience))
    }

    fn was_reached(&self, pair: &Pair) -> bool {
        let now = self.house.now().utc;
        self.outbox.reached.get(pair).is_some_and(|at| now.seconds_since(*at) <= REACHED_SECONDS)
    }

    /// The other domain's server is there.
    pub fn reached(&self, pair: &Pair) {
        let now = self.house.now().utc;
        if self.outbox.reached.get(pair).is_some_and(|at| now.seconds_since(*at) < REACHED_EVERY_SECONDS) {
            return;
        }
        self.outbox.reached.insert(pair.clone(), now);
        let Ok(local) = BareJid::of_domain(&pair.from) else { return };
        let change = Change::DomainReached { local, remote: pair.to.clone(), at: now };
        // It is only looked at after a restart, and written again in an hour.
        self.house.store.commit(fence(self, pair), vec![change], Box::new(|_| {}));
    }

    /// Takes up what an earlier process left.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn take_up(self: &Arc<Federation>) -> Result<(), StoreError> {
        let now = self.house.now().utc;
        for (local, remote, at) in self.house.store.domains_reached().await? {
            if now.seconds_since(at) <= REACHED_SECONDS {
                self.outbox.reached.insert(Pair::new(local.domain(), &remote), at);
            }
        }
        let (mut after, mut count) = (i64::MIN, 0);
        loop {
            let rows = self.house.store.outbox(after, PAGE).await?;
            let Some(last) = rows.last() else { break };
            after = last.id;
            self.outbox.last.fetch_max(last.id, Ordering::AcqRel);
            count += rows.len();
            for row in rows {
                self.take_up_row(row, now);
            }
        }
        if count > 0 {
            tracing::info!(stanzas = count, "what was on its way to other domains before the restart goes on");
        }
        Ok(())
    }

    fn take_up_row(self: &Arc<Federation>, row: OutboxRow, now: Stamp) {
        let pair = Pair::new(row.local.domain(), &row.remote);
        let stanza = match Stanza::parse(&row.stanza) {
            Ok(stanza) => stanza,
            Err(fault) => {
                tracing::error!(%pair, id = row.id, fault = ?fault.error.condition, "a row of the outbox is no stanza; it is dropped");
                return self.done(&pair, vec![row.id]);
            }
        };
        let (Some(from), Some(to)) = (stanza.from.clone(), stanza.to.clone()) else {
            return self.done(&pair, vec![row.id]);
        };
        let is_ours = self.house.host(from.domain()).is_some() || self.house.components.get(from.domain()).is_some();
        if !is_ours {
            tracing::warn!(%pair, "a message waits for another domain, and ours is not hosted any more; it stays in the store");
            return;
        }
        let waited = u64::try_from(now.0.saturating_sub(row.accepted.0)).unwrap_or(0);
        let queued = Queued {
            life: life(&stanza, row.accepted),
            stanza: Arc::new(stanza),
            to,
            id: row.id,
            keeping: Keeping::Row,
            since: Instant::now(),
            before: Duration::from_micros(waited),
            again: true,
            awaited: None,
        };
        // It was within the bounds once.
        let mut unbounded = (*self.policy()).clone();
        (unbounded.queue_items_max, unbounded.queue_bytes_max) = (usize::MAX, usize::MAX);
        let Some(link) = self.link(&pair, &from.to_bare()) else { return };
        if let super::queue::Pushed::Dial = link.push(queued, &unbounded) {
            // Our own listeners are not there yet, and the other server will want to ask us.
            let turn = self.dials.turn(&link.dialler, true).unwrap_or_default();
            self.dial_in(&link, turn + LISTENERS_FIRST);
        }
    }
}

pub(super) fn row_of(stanza: &Stanza, to: &Jid, id: i64, accepted: Stamp) -> OutboxRow {
    let stanza = Stanza { to: Some(to.clone()), ..stanza.clone() };
    let local = stanza.from.as_ref().map_or("", |from| from.domain());
    OutboxRow {
        id,
        local: BareJid::of_domain(local).unwrap_or_else(|_| to.to_bare()),
        remote: to.domain().into(),
        accepted,
        stanza: to_stored(&stanza),
    }
}

/// Deletes a row when it is dropped.
struct Ending {
    federation: Arc<Federation>,
    pair: Pair,
    id: i64,
}

impl Drop for Ending {
    fn drop(&mut self) {
        self.federation.done(&self.pair, vec![self.id]);
    }
}

/// From when it was accepted on.
fn life(stanza: &Stanza, accepted: Stamp) -> Option<Duration> {
    let over = im::modules::expiry::of(stanza, accepted).filter(|_| stanza.is_message())?;
    Some(Duration::from_micros(u64::try_from(over.0.saturating_sub(accepted.0)).unwrap_or(0)))
}

pub(super) fn fence(federation: &Federation, pair: &Pair) -> store::Fence {
    let key = Key::Pair { local: pair.from.clone(), remote: pair.to.clone() };
    match federation.house.cluster.place(&key) {
        cluster::Place::Here(fence) => fence,
        // One node: never. The fence of epoch 0 is refused by the store.
        cluster::Place::There(_) | cluster::Place::Moving => key.fence(0),
    }
}

pub fn busy() -> StanzaError {
    let error = StanzaError::from(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
    error.with_text("Too much waits for that domain.")
}

/// Does its sender hear of it when it cannot be delivered? Not of presence that is only told: nobody waits for that.
fn is_answered(kind: StanzaType) -> bool {
    match kind {
        StanzaType::Message(_) | StanzaType::Iq(_) => true,
        StanzaType::Presence(kind) => match kind {
            PresenceType::Subscribe => true,
            PresenceType::Available
            | PresenceType::Unavailable
            | PresenceType::Subscribed
            | PresenceType::Unsubscribe
            | PresenceType::Unsubscribed
            | PresenceType::Probe
            | PresenceType::Error => false,
        },
    }
}

/// For the log and for users: which step towards the other server failed.
pub fn why(end: &link::End) -> String {
    match end {
        link::End::Done => "the stream ended in order".into(),
        link::End::Broken(why) => format!("the connection broke: {why}"),
        link::End::Absent(why) => why.to_string(),
        link::End::Refused(condition) => format!("it refuses us: {}", condition.name()),
        link::End::Failed(why) => why.clone(),
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::certificates::Certificates;
    use crate::house::House;
    use crate::s2s::dns::{Answer, Resolve, Srv};
    use crate::s2s::{known::Known, trust::Trust};
    use std::future::pending;
    use std::net::IpAddr;

    /// The other server is never found.
    struct Silent;

    impl Resolve for Silent {
        fn srv<'a>(&'a self, _: &'a str) -> Answer<'a, Srv> {
            Box::pin(pending())
        }

        fn addresses<'a>(&'a self, _: &'a str) -> Answer<'a, IpAddr> {
            Box::pin(pending())
        }
    }

    /// One that finds nobody.
    pub fn federation(house: &Arc<House>) -> Arc<Federation> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut config = (**house.config.read()).clone();
        config.data = folder.path().into();
        let certificates = Arc::new(Certificates::load(&config).expect("they can be made"));
        let trust = Trust::load(&config.federation, certificates).expect("it names no file");
        let policy = Policy::of(&config, b"secret", &*house.crypto);
        Federation::new(house.clone(), policy, trust, Box::new(Silent), Known::default(), 1)
    }
}

#[cfg(test)]
mod tests {
    use super::testing::federation;
    use super::*;
    use crate::house::testing::house;
    use tokio::sync::mpsc;

    // The error was in memory alone: whoever was killed then had acknowledged the message, and nobody heard of its refusal.
    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_acknowledged_when_its_error_is_on_the_wire_or_could_not_be_for_a_while() {
        for is_taken in [true, false] {
            let (house, memory) = house();
            let federation = federation(&house);
            let error = "<message type='error' from='juliet@capulet.example' to='romeo@montague.example/x'/>";
            let error = Arc::new(Stanza::parse(error.as_bytes()).expect("a stanza in a test"));
            let to = error.to.clone().expect("it has one");
            let (say, mut done) = mpsc::channel::<()>(1);
            memory.fail_next(StoreError::Full);
            let began = Instant::now();
            let sent = federation.send(to, &error, Ticket(Some(Arc::new(say))));
            assert!(sent.is_ok());
            house.commit_now();
            if is_taken {
                let pair = Pair::new("capulet.example", "montague.example");
                let link = federation.links.get(&pair).expect("it waits there").clone();
                let queued = loop {
                    match link.take_stanza() {
                        Some(queued) => break queued,
                        None => tokio::time::sleep(Duration::from_millis(1)).await,
                    }
                };
                assert_eq!(done.try_recv(), Err(mpsc::error::TryRecvError::Empty));
                drop(queued);
            }
            assert_eq!(done.recv().await, None);
            assert_eq!(began.elapsed() >= UNWRITTEN_PATIENCE, !is_taken, "{:?}", began.elapsed());
        }
    }
}
