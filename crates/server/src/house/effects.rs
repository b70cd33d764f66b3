//! What becomes of each effect of a step: it happens, or waits at the gate.

use super::House;
use super::commits::{self, Note, is_upkeep};
use super::edges::StanzaTicket;
use super::entity::{CellItem, Turn};
use super::gate::Verdict;
use im::{Effect, Effects, Item, Ticket};
use std::sync::Arc;
use store::Change;
use xmpp::Stanza;
use xmpp::planted::{self, Bug};

thread_local! {
    /// Room for the effects of a step, and for those that wait for the next commit of theirs: the thread's.
    static EFFECTS: std::cell::Cell<Vec<Effect>> = const { std::cell::Cell::new(Vec::new()) };
    static TOLD: std::cell::Cell<Vec<Effect>> = const { std::cell::Cell::new(Vec::new()) };
}

/// More room than that is given back.
const POOLED_EFFECTS_MAX: usize = 64;

/// Room for the effects of a step; [`House::take_effects`] takes it back.
pub(super) fn room() -> Effects {
    Effects { list: EFFECTS.take() }
}

impl House {
    /// Of one step, in order: commits go to the store, the rest happens or waits for them.
    pub(super) fn take_effects(self: &Arc<House>, turn: &mut Turn<'_>, mut fx: Effects) {
        // A message is told to its recipient at once, but the sender's own row is in the store's queue before that: what
        // becomes of it becomes of the recipient's row too, or that alone is refused.
        let mut told = Vec::new();
        for effect in fx.list.drain(..) {
            if let Effect::Query { iq, session: Some(session), .. } = &effect {
                let edge = turn.resident.account.session(*session).and_then(|s| s.edge);
                turn.resident.questions.asks(iq, *session, edge.and_then(|edge| self.edges.get(edge)));
            }
            match effect {
                Effect::Commit { changes, bounce, ticket } => self.submit(turn, changes, bounce, ticket),
                // Timers and counters have no order to keep.
                Effect::WakeAt { mono_ms } => self.wake_at(turn, mono_ms),
                Effect::Count(name) => self.count(name),
                Effect::Limit(name) => self.limit(name),
                effect => match turn.resident.gate.pass(effect) {
                    Some(effect @ Effect::Tell { .. }) => {
                        if told.capacity() == 0 {
                            told = TOLD.take();
                        }
                        told.push(effect);
                        continue;
                    }
                    Some(effect) => {
                        told.drain(..).for_each(|effect| self.perform(turn, effect));
                        self.perform(turn, effect);
                        continue;
                    }
                    None => {}
                },
            }
            told.drain(..).for_each(|effect| self.perform(turn, effect));
        }
        told.drain(..).for_each(|effect| self.perform(turn, effect));
        for (room, pool) in [(told, &TOLD), (fx.list, &EFFECTS)] {
            if (1..=POOLED_EFFECTS_MAX).contains(&room.capacity()) {
                pool.set(room);
            }
        }
    }

    /// A commit's outcome is there: what is free happens. Gives what does not.
    pub(super) fn resolve(self: &Arc<House>, turn: &mut Turn<'_>, seq: u64, verdict: Verdict) -> Vec<Effect> {
        let resolved = turn.resident.gate.resolve(seq, verdict);
        for effect in resolved.free {
            self.perform(turn, effect);
        }
        for ticket in resolved.tickets {
            drop(turn.resident.later.keep(ticket));
        }
        turn.resident.questions.let_go(&resolved.dropped);
        resolved.dropped
    }

    fn submit(
        self: &Arc<House>,
        turn: &mut Turn<'_>,
        changes: Vec<Change>,
        bounce: Option<Arc<Stanza>>,
        ticket: Ticket,
    ) {
        let seq = turn.resident.gate.commit();
        let upkeep = changes.iter().all(is_upkeep);
        if let Some(ticket) = StanzaTicket::of(&ticket) {
            ticket.promise();
        }
        let (house, cell) = (self.clone(), turn.cell.clone());
        let ticket = if planted::is(Bug::AckBeforeCommit) { Ticket::default() } else { ticket };
        let since = std::time::Instant::now();
        self.commit_soon(
            turn.resident.fence,
            changes,
            Box::new(move |result| {
                crate::latency::COMMITS.add(since.elapsed());
                // On the writer's thread: only a note.
                let note = Note { cell, seq, result, bounce, upkeep, ticket };
                house.commits.push(note);
            }),
        );
    }

    fn wake_at(&self, turn: &mut Turn<'_>, mono_ms: u64) {
        if turn.resident.wake_at.is_none_or(|at| mono_ms < at) {
            turn.resident.wake_at = Some(mono_ms);
            self.timers.tick(mono_ms, turn.cell);
        }
    }

    /// Makes an effect happen, or what of it may happen in this step. The account's state is held; nothing here waits.
    pub(super) fn perform(self: &Arc<House>, turn: &mut Turn<'_>, effect: Effect) {
        let Some(effect) = turn.resident.later.now(effect) else { return };
        match effect {
            Effect::Tell { to, stanza, ingress, ticket } => self.tell(to, stanza, ingress, ticket, turn.ready),
            Effect::Fan { stanza, targets } => self.fan(&stanza, targets, turn.ready),
            Effect::Edge { edge, item } => self.edges.send(edge, item),
            Effect::Query { query, iq, session, then } => self.ask(turn, query, iq, session, then),
            Effect::ReadPending { after, .. } if planted::is(Bug::BacklogUnread) => {
                let (house, cell) = (self.clone(), turn.cell.clone());
                self.runtime.spawn(async move {
                    house.post_to(&cell, CellItem::Im(Item::Pending { after, records: Some(Vec::new()) }));
                });
            }
            Effect::ReadPending { after, limit } => {
                let (house, cell) = (self.clone(), turn.cell.clone());
                self.runtime.spawn(async move {
                    let records = house.pending_records(&cell.jid, after, limit).await;
                    house.post_to(&cell, CellItem::Im(Item::Pending { after, records }));
                });
            }
            Effect::Resumable { id, yes } => {
                if yes {
                    self.resumable.insert(id, turn.cell.jid.clone());
                } else {
                    self.resumable.remove(&id);
                }
            }
            Effect::TakeOver { session } => {
                commits::post(self, turn.cell.clone(), CellItem::Im(Item::TakeOver { session }), turn.ready);
            }
            Effect::Unload => turn.resident.fresh_until = 0,
            Effect::Report(report) => tracing::warn!(
                account = %turn.cell.jid, about = %report.about, reason = ?report.reason, text = ?report.text,
                messages = ?report.messages, "a user reports somebody"
            ),
            Effect::Reply(stanza) => {
                if let Some((_, tell)) = stanza.id.as_deref().and_then(|id| self.asks.remove(id)) {
                    // Whoever asked may have gone.
                    let _ = tell.send(stanza);
                }
            }
            Effect::Noted(what) => tracing::info!(account = %turn.cell.jid, "{what}"),
            Effect::Count(name) => self.count(name),
            Effect::Limit(name) => self.limit(name),
            Effect::WakeAt { mono_ms } => self.wake_at(turn, mono_ms),
            Effect::Commit { changes, bounce, ticket } => self.submit(turn, changes, bounce, ticket),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{house, juliet, next, says, session};
    use im::EdgeItem;
    use store::StoreError;

    /// Juliet comes, with stream management, and her stream is lost. Its id is `sm1`.
    async fn loses_her_stream(house: &Arc<House>) -> im::SessionId {
        let (session, edge) = session(house).await;
        says(house, session, 1, "<presence/>");
        let request = im::item::ManagementRequest { resume: true, max: None, id: "sm1".into() };
        house.post(&juliet(), Item::Manage { session, request });
        while !matches!(next(&edge).await, EdgeItem::Managed(_)) {}
        let reason = im::DetachReason::Lost;
        house.post(&juliet(), Item::Detached { session, edge: edge.id, reason, deliveries: 1, received: 1 });
        session
    }

    /// Juliet's stream is lost, and while the row of a message for her is on its way to the disk she resumes. What came
    /// over the new stream before the last answer.
    async fn resumes_before(outcome: Option<StoreError>) -> Vec<String> {
        let (house, memory) = house();
        let session = loses_her_stream(&house).await;
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

    // DESIGN.md D4: the effects behind a write that failed do not happen.
    #[tokio::test]
    async fn a_session_that_resumes_is_not_shown_a_message_whose_commit_fails_meanwhile() {
        assert_eq!(resumes_before(None).await, ["m", "last"]);
        assert_eq!(resumes_before(Some(StoreError::Full)).await, ["last"]);
    }

    #[tokio::test]
    async fn a_session_is_not_resumed_while_the_disk_is_full_and_its_client_hears_what_was_received() {
        let (house, memory) = house();
        let session = loses_her_stream(&house).await;
        house.post(&juliet(), Item::Settled { session, received: 1 });
        memory.fail_next(StoreError::Full);
        let resumes = |edge| house.post(&juliet(), Item::Resume { edge, id: "sm1".into(), h: 0 });
        let refused = house.edges.open(100, 1 << 20);
        resumes(refused.id);
        assert!(matches!(next(&refused).await, EdgeItem::ResumeRefused { h: Some(1) }));
        let resumed = house.edges.open(100, 1 << 20);
        resumes(resumed.id);
        assert!(matches!(next(&resumed).await, EdgeItem::Resumed { received: 1, .. }), "the disk has room again");
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
}
