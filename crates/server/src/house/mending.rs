//! An account whose stored part is read again, as a step panicked or a commit of it failed; and what waits for that.

use super::entity::{CellItem, Resident, Turn};
use super::gate::Verdict;
use super::{AccountCell, House, Ready};
use super::{commits, effects};
use im::{EdgeItem, Effect, Effects, Item, SessionId, Ticket};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use store::{AccountRecord, StoreError};
use xmpp::{Stanza, StreamFault};

/// Items that wait at most while an account is mended; beyond that its sessions end.
const ITEMS_MAX: usize = 10_000;

/// Whether the account's state is being mended, and what waits for that.
#[derive(Debug, Default)]
pub struct Mending {
    /// How many reads of the stored part are under way.
    reads: u32,
    /// What came meanwhile, in order.
    waiting: VecDeque<Item>,
    /// A step panicked, and what was to mend that did as well: nothing is done with this state any more.
    lost: bool,
}

impl Mending {
    pub fn is_under_way(&self) -> bool {
        self.reads > 0
    }

    pub fn is_lost(&self) -> bool {
        self.lost
    }

    /// Must what comes wait? What would be decided meanwhile would be decided by what is not so.
    pub fn keeps(&self) -> bool {
        self.is_under_way() || self.lost
    }

    /// Keeps what comes meanwhile; `false`: that is more than may wait.
    pub fn wait(&mut self, item: Item) -> bool {
        self.waiting.push_back(item);
        self.waiting.len() <= ITEMS_MAX
    }

    fn begins(&mut self) {
        self.reads += 1;
    }

    /// A read has ended. When no other is under way, gives what waited for that.
    fn ended(&mut self) -> VecDeque<Item> {
        self.reads = self.reads.saturating_sub(1);
        if self.keeps() { VecDeque::new() } else { std::mem::take(&mut self.waiting) }
    }

    /// What waited for a state that is lost: it is for the account that begins anew.
    pub fn left(&mut self) -> impl Iterator<Item = Item> {
        std::mem::take(&mut self.waiting).into_iter()
    }
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

impl Hurt {
    pub fn by(item: &Item) -> Hurt {
        match item {
            Item::FromClient { session, .. }
            | Item::Malformed { session, .. }
            | Item::Manage { session, .. }
            | Item::Acked { session, .. }
            | Item::ClientState { session, .. }
            | Item::Written { session, .. }
            | Item::TakeOver { session }
            | Item::Settled { session, .. } => Hurt { session: Some(*session), ..Hurt::default() },
            Item::Answered { session, .. } => Hurt { session: *session, ..Hurt::default() },
            Item::Inbound { stanza, ticket, .. } | Item::SubscriptionLost { stanza, ticket, .. } => {
                Hurt { session: None, bounce: Some(stanza.clone()), ticket: ticket.clone() }
            }
            _ => Hurt::default(),
        }
    }

    /// Does its sender hear of it?
    pub fn is_answered(&self) -> bool {
        self.bounce.is_some()
    }
}

/// A step panicked; the stored part was read again, if it could be.
#[derive(Debug)]
pub struct Mended {
    /// What stands behind the step waits for this, as for a commit.
    seq: u64,
    hurt: Hurt,
    stored: Option<Box<AccountRecord>>,
}

/// A commit that failed.
#[derive(Debug)]
pub struct Lapsed {
    pub error: StoreError,
    pub bounce: Option<Arc<Stanza>>,
    pub ticket: Ticket,
}

/// The stored part, read again after such a commit, if it could be.
pub type ReadAgain = (Lapsed, Option<Box<AccountRecord>>);

impl House {
    /// A commit failed: what stood behind it does not happen. If that was a change of the state, it is read again first.
    pub(super) fn failed(self: &Arc<House>, turn: &mut Turn<'_>, seq: u64, passes: bool, lapsed: Lapsed) {
        let verdict = if passes { Verdict::Committed } else { Verdict::Void };
        let dropped = self.resolve(turn, seq, verdict);
        if matches!(lapsed.error, StoreError::Fatal(_)) && !passes {
            // The server ends, and who knows whether the error arrives: what is not acknowledged is sent again.
            std::mem::forget(lapsed.ticket.clone());
        }
        turn.resident.gate.begin_step();
        let mut fx = effects::room();
        turn.resident.account.step(Item::Dropped { effects: dropped }, turn.now, &mut fx);
        self.take_effects(turn, fx);
        if lapsed.error != StoreError::Fenced && turn.resident.account.reads_again(lapsed.bounce.as_deref()) {
            turn.resident.mending.begins();
            self.read_again(turn.cell, lapsed);
        } else {
            self.lapsed(turn, lapsed, None);
        }
    }

    /// What is stored of the account, when all that was written behind the commit is there or failed as well.
    fn read_again(self: &Arc<House>, cell: &Arc<AccountCell>, lapsed: Lapsed) {
        let (house, cell) = (self.clone(), cell.clone());
        self.runtime.spawn(async move {
            while let Err(StoreError::Busy) = house.commit(&cell.jid, Vec::new()).await {
                tokio::time::sleep(commits::BUSY_RETRY).await;
            }
            let stored = house.store.load_account(&cell.jid).await.ok().flatten().map(Box::new);
            let mut ready = Ready::new();
            commits::post(&house, cell, CellItem::ReadAgain(Box::new((lapsed, stored))), &mut ready);
            house.work(&mut ready);
        });
    }

    pub(super) fn was_read_again(self: &Arc<House>, turn: &mut Turn<'_>, (lapsed, stored): ReadAgain) {
        self.lapsed(turn, lapsed, stored);
        self.go_on_mended(turn);
    }

    /// A step of its own: the error must not stand behind a write that is tried again.
    fn lapsed(
        self: &Arc<House>,
        turn: &mut Turn<'_>,
        Lapsed { error, bounce, ticket }: Lapsed,
        stored: Option<Box<AccountRecord>>,
    ) {
        let failed = Item::CommitFailed { bounce, error, ticket: ticket.clone(), stored };
        turn.resident.gate.begin_step();
        let mut fx = effects::room();
        turn.resident.account.step(failed, turn.now, &mut fx);
        self.take_effects(turn, fx);
        // The error is the outcome: it is acknowledged when that is on its way.
        let Resident { gate, later, .. } = &mut *turn.resident;
        drop(gate.keep(ticket).and_then(|ticket| later.keep(ticket)));
    }

    /// One session at most is hurt: that whose step it was. Nothing of the step happens; what is stored is read again,
    /// when all that was written before is there, and until then the account waits.
    pub(super) fn step_panicked(self: &Arc<House>, turn: &mut Turn<'_>, hurt: Hurt, fx: Effects) {
        self.count("panics");
        tracing::error!(account = %turn.cell.jid, session = ?hurt.session, "a step panicked; the account's state is read again");
        turn.resident.mending.begins();
        let dropped = fx.list.into_iter().filter(|effect| !matches!(effect, Effect::Commit { .. })).collect::<Vec<_>>();
        turn.resident.questions.let_go(&dropped);
        if !self.mending_step(turn, Item::Dropped { effects: dropped }) {
            return;
        }
        turn.resident.gate.begin_step();
        let seq = turn.resident.gate.commit();
        let (house, cell) = (self.clone(), turn.cell.clone());
        let done = move |_| {
            // On the writer's thread.
            let runtime = house.runtime.clone();
            runtime.spawn(async move {
                let stored = house.store.load_account(&cell.jid).await.ok().flatten().map(Box::new);
                house.post_to(&cell, CellItem::Mended(Box::new(Mended { seq, hurt, stored })));
            });
        };
        self.store.commit(turn.resident.fence, Vec::new(), Box::new(done));
    }

    pub(super) fn mended(self: &Arc<House>, turn: &mut Turn<'_>, mended: Mended) {
        let Mended { seq, hurt, stored } = mended;
        // (Commits are resolved in order: nothing is dropped that stood behind another.)
        self.resolve(turn, seq, Verdict::Committed);
        let Some(stored) = stored else { return self.give_up(turn) };
        let error = StoreError::Fatal("the step panicked".into());
        let Hurt { session, bounce, ticket } = hurt;
        let is_well = self.mending_step(turn, Item::Panicked { session, stored })
            && self.mending_step(turn, Item::CommitFailed { bounce, error, ticket, stored: None });
        if is_well {
            self.go_on_mended(turn);
        }
    }

    /// The stored part was read again. When no other read is under way, what waited for that comes.
    fn go_on_mended(self: &Arc<House>, turn: &mut Turn<'_>) {
        for item in turn.resident.mending.ended() {
            self.step(turn, CellItem::Im(item));
        }
    }

    /// A step that mends; `false`: it panicked, too.
    fn mending_step(self: &Arc<House>, turn: &mut Turn<'_>, item: Item) -> bool {
        let mut fx = Effects::default();
        turn.resident.gate.begin_step();
        let account = &mut turn.resident.account;
        if std::panic::catch_unwind(AssertUnwindSafe(|| account.step(item, turn.now, &mut fx))).is_err() {
            self.count("panics");
            self.give_up(turn);
            return false;
        }
        self.take_effects(turn, fx);
        true
    }

    /// The account's state cannot be mended: its streams are closed, and it begins anew from the store.
    pub(super) fn give_up(self: &Arc<House>, turn: &mut Turn<'_>) {
        tracing::error!(account = %turn.cell.jid, "the account's state is lost; its sessions are closed");
        turn.resident.mending.lost = true;
        for session in &turn.resident.account.sessions {
            if let Some(edge) = session.edge {
                self.edges.send(edge, EdgeItem::Close(StreamFault::InternalError));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::edges::EdgeHandle;
    use crate::house::testing::{another, bound, create, house, juliet, next, next_id, says, session};
    use im::{QueryAnswer, Then};
    use std::sync::atomic::Ordering;
    use std::time::Duration;
    use store::Store;

    fn kick(resource: &str) -> Item {
        Item::Kick { resource: Some(resource.into()), fault: StreamFault::InternalError }
    }

    fn named(items: impl IntoIterator<Item = Item>) -> Vec<String> {
        let name = |item| match item {
            Item::Kick { resource: Some(name), .. } => Some(name.into()),
            _ => None,
        };
        items.into_iter().filter_map(name).collect()
    }

    #[test]
    fn what_comes_during_reads_waits_in_order_until_the_last_has_ended() {
        let mut mending = Mending::default();
        assert!(!mending.keeps());
        mending.begins();
        mending.begins();
        assert!(mending.wait(kick("1")) && mending.wait(kick("2")));
        assert!(mending.ended().is_empty() && mending.keeps());
        assert!(mending.wait(kick("3")));
        assert_eq!(named(mending.ended()), ["1", "2", "3"]);
        assert!(!mending.keeps() && mending.left().next().is_none());
    }

    #[test]
    fn there_is_a_bound_to_what_waits_and_what_is_over_it_is_not_lost() {
        let mut mending = Mending::default();
        mending.begins();
        assert!((0..ITEMS_MAX).all(|n| mending.wait(kick(&n.to_string()))));
        assert!(!mending.wait(kick("one more")));
        assert_eq!(named(mending.left()).len(), ITEMS_MAX + 1);
    }

    #[test]
    fn what_waits_for_a_state_that_is_lost_does_not_come_to_it() {
        let mut mending = Mending::default();
        mending.begins();
        mending.lost = true;
        assert!(mending.keeps() && mending.wait(kick("1")));
        assert!(mending.ended().is_empty());
        assert_eq!(named(mending.left()), ["1"]);
    }

    // It was taken from its sender: nobody else has it any more.
    #[tokio::test]
    async fn a_message_that_waits_for_a_state_that_is_lost_then_is_kept_by_the_account_that_begins_anew() {
        let (house, memory) = house();
        let (_, edge) = session(&house).await;
        let answer = QueryAnswer::Done;
        house.post(&juliet(), Item::Answered { iq: question(), session: None, answer, then: panics() });
        let message = "<message from='a@b.example' to='juliet@capulet.example'><body>hi</body></message>";
        let stanza = Arc::new(Stanza::parse(message.as_bytes()).expect("a stanza in a test"));
        let (say, mut done) = tokio::sync::mpsc::channel::<()>(1);
        let ticket = Ticket(Some(Arc::new(say)));
        let ingress = im::Ingress { stream: 1, ordinal: 1 };
        house.post(&juliet(), Item::Inbound { stanza, to: juliet().into(), ingress, ticket });
        let lost = Mended { seq: 0, hurt: Hurt::default(), stored: None };
        house.post_to(&house.cell(&juliet()), CellItem::Mended(Box::new(lost)));
        assert!(matches!(next(&edge).await, EdgeItem::Close(StreamFault::InternalError)));
        let outcome = tokio::time::timeout(Duration::from_secs(60), done.recv()).await;
        assert_eq!(outcome, Ok(None));
        let kept = memory.inbox_after(&juliet(), 0, true, 10).await.expect("memory fails not");
        assert_eq!(kept.len(), 1);
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
}
