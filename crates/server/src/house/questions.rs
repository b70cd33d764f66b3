//! What the store is asked while the account goes on; the session whose iq it was waits for the answer.

use super::House;
use super::edges::{EdgeHandle, Hold};
use super::entity::{CellItem, Turn};
use im::{Effect, Item, Query, QueryAnswer, SessionId, Then};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use store::StoreError;
use xmpp::planted::{self, Bug};
use xmpp::{BareJid, Stanza};

/// Who waits for answers, and what they said since.
#[derive(Debug, Default)]
pub struct Questions {
    /// Iqs whose queries are not asked yet, and the streams that wait for their answers.
    holds: Vec<(Arc<Stanza>, Hold)>,
    /// Sessions that wait for the answers of so many queries.
    asking: Vec<(SessionId, u32)>,
    /// What such a session said since, in order: it was in the mailbox when the query began, or was read before its
    /// stream knew. Bounded by the stanzas that a stream may have in flight.
    behind: VecDeque<(SessionId, Item)>,
}

impl Questions {
    /// The session's stream waits from now on, also while the query itself stands behind a commit.
    pub fn asks(&mut self, iq: &Arc<Stanza>, session: SessionId, stream: Option<Arc<EdgeHandle>>) {
        match self.asking.iter_mut().find(|(id, _)| *id == session) {
            Some((_, queries)) => *queries += 1,
            None => self.asking.push((session, 1)),
        }
        self.holds.extend(stream.map(|stream| (iq.clone(), Hold::new(stream))));
    }

    pub fn answered(&mut self, session: SessionId) {
        if let Some(at) = self.asking.iter().position(|(id, _)| *id == session) {
            self.asking[at].1 -= 1;
            if self.asking[at].1 == 0 {
                self.asking.swap_remove(at);
            }
        }
    }

    /// These do not happen: no stream waits for them.
    pub fn let_go(&mut self, dropped: &[Effect]) {
        for effect in dropped {
            if let Effect::Query { iq, session, .. } = effect {
                self.take_hold(iq);
                session.iter().for_each(|session| self.answered(*session));
            }
        }
    }

    /// Gives the item back, unless it must wait for an answer that its session waits for. RFC 6120 §10.1, DESIGN.md D10.
    pub fn put_behind(&mut self, item: Item) -> Option<Item> {
        match &item {
            // The end of a stream comes behind what was said on it.
            Item::FromClient { session, .. }
            | Item::Malformed { session, .. }
            | Item::Manage { session, .. }
            | Item::Detached { session, .. }
                if self.is_asking(*session) || self.behind.iter().any(|(id, _)| id == session) =>
            {
                self.behind.push_back((*session, item));
                None
            }
            _ => Some(item),
        }
    }

    /// The next item whose session waits for nothing any more.
    pub fn next_behind(&mut self) -> Option<Item> {
        let at = self.behind.iter().position(|(session, _)| !self.is_asking(*session))?;
        self.behind.remove(at).map(|(_, item)| item)
    }

    fn is_asking(&self, session: SessionId) -> bool {
        self.asking.iter().any(|(id, _)| *id == session)
    }

    fn take_hold(&mut self, iq: &Arc<Stanza>) -> Option<Hold> {
        let at = self.holds.iter().position(|(held, _)| Arc::ptr_eq(held, iq))?;
        Some(self.holds.swap_remove(at).1)
    }
}

/// A read of pending messages that failed is tried again after so long.
const PENDING_RETRY_MS: [u64; 7] = [50, 100, 200, 500, 1_000, 2_000, 4_000];

impl House {
    /// Runs a query without the account's state; the session's stream waits for the answer.
    pub(super) fn ask(
        self: &Arc<House>,
        turn: &mut Turn<'_>,
        query: Query,
        iq: Arc<Stanza>,
        session: Option<SessionId>,
        then: Then,
    ) {
        let hold = turn.resident.questions.take_hold(&iq);
        let (house, cell) = (self.clone(), turn.cell.clone());
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

    /// A page of pending records. A store that is busy is asked again, a few times.
    pub(super) async fn pending_records(
        &self,
        account: &BareJid,
        after: i64,
        limit: usize,
    ) -> Option<Vec<store::Record>> {
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{house, juliet, next_id, says, session};
    use im::Ticket;

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
}
