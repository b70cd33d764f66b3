//! Messages that go ahead of their rows.
//!
//! Whoever acknowledges nothing to a sender has promised nothing. A message of a client without stream management, of which
//! nothing else is to be written either, goes out at once where a stream carries its link; its row is written when the
//! other server has not acknowledged it within [`WRITTEN_AFTER`]. Mostly it has, and nothing is written.

use super::Federation;
use super::outbox::{fence, row_of};
use super::queue::{Link, Queued};
use crate::house::after_others;
use crate::house::edges::StanzaTicket;
use im::Ticket;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::Change;
use stream::Pair;
use tokio::time::{Instant, sleep};
use xmpp::{Jid, Stamp, Stanza};

/// What has not been acknowledged for so long is written, at the next look at it. LIMITS.md §1.
pub const WRITTEN_AFTER: Duration = Duration::from_millis(50);
/// So many at most are ahead of their rows; beyond that a row comes first.
const AHEAD_MAX: usize = 4_096;
/// Rows that are written before others have their turn.
const A_TURN: usize = 128;

/// By their numbers in the outbox, the oldest first.
#[derive(Debug, Default)]
pub struct Ahead(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    messages: BTreeMap<i64, Message>,
    /// A task looks at them.
    is_watched: bool,
}

#[derive(Debug)]
struct Message {
    link: Arc<Link>,
    stanza: Arc<Stanza>,
    to: Jid,
    accepted: Stamp,
    since: Instant,
    ticket: Ticket,
}

/// Was nobody promised anything of this message, and is nothing of it on its way to the disk?
pub fn may_go_ahead(stanza: &Stanza, ticket: &Ticket) -> bool {
    stanza.is_message() && StanzaTicket::of(ticket).is_some_and(|ticket| !ticket.is_promised())
}

impl Federation {
    /// The message goes into the link without a row. Called before it does: whoever acknowledges it finds it here. `false`:
    /// there is no room; else the ticket is taken.
    pub(super) fn put_ahead(
        self: &Arc<Federation>,
        link: &Arc<Link>,
        queued: &Queued,
        accepted: Stamp,
        ticket: &mut Ticket,
    ) -> bool {
        let mut waiting = self.ahead.0.lock();
        if waiting.messages.len() >= AHEAD_MAX {
            return false;
        }
        let message = Message {
            link: link.clone(),
            stanza: queued.stanza.clone(),
            to: queued.to.clone(),
            accepted,
            since: queued.since,
            ticket: std::mem::take(ticket),
        };
        waiting.messages.insert(queued.id, message);
        if !std::mem::replace(&mut waiting.is_watched, true) {
            let federation = self.clone();
            self.house.runtime.spawn(async move {
                loop {
                    sleep(WRITTEN_AFTER).await;
                    while federation.write_behind(WRITTEN_AFTER) {
                        after_others().await;
                    }
                    if !federation.watches() {
                        return;
                    }
                }
            });
        }
        true
    }

    /// It is not in the link after all. Gives its ticket back.
    pub(super) fn take_from_ahead(self: &Arc<Federation>, pair: &Pair, id: i64) -> Ticket {
        let message = self.ahead.0.lock().messages.remove(&id);
        match message {
            Some(message) => message.ticket,
            None => {
                // It has a row already.
                self.done(pair, vec![id]);
                Ticket::default()
            }
        }
    }

    /// What became of these is known. Leaves those that have rows.
    pub(super) fn settle_ahead(&self, ids: &mut Vec<i64>) {
        let mut settled = Vec::new();
        {
            let mut waiting = self.ahead.0.lock();
            if !waiting.messages.is_empty() {
                ids.retain(|id| match waiting.messages.remove(id) {
                    Some(message) => {
                        settled.push(message);
                        false
                    }
                    None => true,
                });
            }
        }
        // Their tickets go here, without the lock.
        drop(settled);
    }

    /// Writes the rows of those that went so long ago, the first of them. `true`: there may be others.
    pub(super) fn write_behind(self: &Arc<Federation>, age: Duration) -> bool {
        let mut written = 0;
        {
            let mut waiting = self.ahead.0.lock();
            // A row is with the writer before whoever acknowledges it can have it deleted: the lock is held.
            while written < A_TURN
                && let Some(first) = waiting.messages.first_entry()
                && first.get().since.elapsed() >= age
            {
                let (id, message) = first.remove_entry();
                self.write_one(id, message);
                written += 1;
            }
        }
        if written > 0 {
            self.house.commit_now();
        }
        written == A_TURN
    }

    fn write_one(self: &Arc<Federation>, id: i64, message: Message) {
        let Message { link, stanza, to, accepted, ticket, .. } = message;
        let row = row_of(&stanza, &to, id, accepted);
        let pair = link.pair.clone();
        self.house.commit_soon(
            fence(self, &link.pair),
            vec![Change::OutboxPut { row }],
            Box::new(move |result| {
                if let Err(error) = result {
                    // It is on its way, and waits here as long as this process lives. (The store says by itself that it
                    // is full or broken.)
                    tracing::debug!(%pair, ?error, "a message that is on its way to another domain could not be kept");
                }
                drop(ticket);
            }),
        );
    }

    /// Must the task that looks at them look again?
    fn watches(&self) -> bool {
        let mut waiting = self.ahead.0.lock();
        waiting.is_watched = !waiting.messages.is_empty();
        waiting.is_watched
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::House;
    use crate::house::testing::house;
    use crate::s2s::outbox::testing::federation;
    use store::Store;
    use store::memory::MemoryStore;
    use tokio::sync::Notify;

    /// A link, carried by a stream or not, and a client whose messages go into it.
    struct Scene {
        house: Arc<House>,
        memory: Arc<MemoryStore>,
        federation: Arc<Federation>,
        link: Arc<Link>,
        edge: Arc<crate::house::edges::EdgeHandle>,
    }

    impl Scene {
        fn new(carried: bool) -> Scene {
            let (house, memory) = house();
            let federation = federation(&house);
            let pair = Pair::new("capulet.example", "montague.example");
            let link = federation.link(&pair, &juliet().to_bare()).expect("there is room");
            assert!(link.attach(&Arc::new(Notify::new())));
            link.set_carried(carried);
            let edge = house.edges.open(10, 1_000);
            Scene { house, memory, federation, link, edge }
        }

        fn send(&self, stanza: &str, is_told: bool) {
            let stanza = Arc::new(Stanza::parse(stanza.as_bytes()).expect("a stanza in a test"));
            let to = stanza.to.clone().expect("it has one");
            let sent = self.federation.send(to, &stanza, StanzaTicket::issue(&self.edge, 1, is_told));
            assert!(sent.is_ok());
        }

        async fn rows(&self) -> usize {
            self.house.commit_now();
            self.memory.outbox(i64::MIN, 1_000).await.expect("memory can be read").len()
        }

        fn is_done(&self) -> bool {
            self.edge.done_prefix() == 1
        }
    }

    fn juliet() -> Jid {
        Jid::parse("juliet@capulet.example/x").expect("it is a JID")
    }

    const MESSAGE: &str =
        "<message from='juliet@capulet.example/x' to='romeo@montague.example'><body>hi</body></message>";
    const SUBSCRIPTION: &str = "<presence type='subscribe' from='juliet@capulet.example' to='romeo@montague.example'/>";

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_acknowledged_at_once_is_never_written() {
        let scene = Scene::new(true);
        scene.send(MESSAGE, false);
        let queued = scene.link.take_stanza().expect("it may go");
        assert!(!scene.is_done());
        scene.federation.done_in_time(&scene.link.pair, vec![queued.id]);
        assert!(scene.is_done());
        sleep(4 * WRITTEN_AFTER).await;
        assert_eq!(scene.rows().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_is_not_acknowledged_is_written_and_the_row_goes_when_it_is() {
        let scene = Scene::new(true);
        scene.send(MESSAGE, false);
        let queued = scene.link.take_stanza().expect("it may go");
        sleep(3 * WRITTEN_AFTER).await;
        assert_eq!(scene.rows().await, 1);
        assert!(scene.is_done(), "it is on disk");
        scene.federation.done(&scene.link.pair, vec![queued.id]);
        assert_eq!(scene.rows().await, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_ahead_is_written_when_the_server_stops() {
        let scene = Scene::new(true);
        scene.send(MESSAGE, false);
        scene.federation.stop(Duration::from_secs(1)).await;
        assert_eq!(scene.rows().await, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn all_that_are_not_acknowledged_are_written_however_many() {
        let scene = Scene::new(true);
        (0..2 * A_TURN + 1).for_each(|_| scene.send(MESSAGE, false));
        sleep(3 * WRITTEN_AFTER).await;
        assert_eq!(scene.rows().await, 2 * A_TURN + 1);
        assert!(!scene.federation.ahead.0.lock().is_watched);
    }

    #[tokio::test(start_paused = true)]
    async fn a_row_comes_first_where_the_sender_is_told_or_no_stream_is_there_or_it_is_no_message() {
        for (carried, told, stanza) in [(true, true, MESSAGE), (false, false, MESSAGE), (true, false, SUBSCRIPTION)] {
            let scene = Scene::new(carried);
            // (What the store is told to do waits for the next commit.)
            scene.send(stanza, told);
            assert!(scene.federation.ahead.0.lock().messages.is_empty(), "{stanza}");
            assert_eq!(scene.rows().await, 1, "{stanza}");
        }
    }

    // DESIGN.md D4: the sender's own copy and what the other server gets are one outcome.
    #[tokio::test]
    async fn a_message_of_which_something_is_on_its_way_to_the_disk_does_not_go_ahead() {
        let (house, _) = house();
        let edge = house.edges.open(10, 1_000);
        let stanza = Stanza::parse(MESSAGE.as_bytes()).expect("a stanza in a test");
        let ticket = StanzaTicket::issue(&edge, 1, false);
        assert!(may_go_ahead(&stanza, &ticket));
        StanzaTicket::of(&ticket).expect("it is one").promise();
        assert!(!may_go_ahead(&stanza, &ticket));
        assert!(!may_go_ahead(&stanza, &Ticket::default()), "nobody knows whose it is");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_ahead_of_their_rows_and_no_more() {
        let scene = Scene::new(true);
        (0..AHEAD_MAX + 1).for_each(|_| scene.send(MESSAGE, false));
        assert_eq!(scene.federation.ahead.0.lock().messages.len(), AHEAD_MAX);
        assert_eq!(scene.rows().await, 1);
    }

    #[tokio::test]
    async fn what_a_full_link_refuses_is_not_ahead_and_its_sender_has_the_ticket_back() {
        let scene = Scene::new(true);
        let body = "x".repeat(32 << 10);
        let stanza = Arc::new(Stanza::parse(MESSAGE.replace("hi", &body).as_bytes()).expect("a stanza in a test"));
        let to = stanza.to.clone().expect("it has one");
        let send = || scene.federation.send(to.clone(), &stanza, StanzaTicket::issue(&scene.edge, 1, false));
        let refused = (0..AHEAD_MAX).find_map(|accepted| Some((accepted, send().err()?.1)));
        let (accepted, ticket) = refused.expect("a link has a bound");
        assert!(ticket.0.is_some() && accepted > 0);
        assert_eq!(scene.federation.ahead.0.lock().messages.len(), accepted);
    }

    #[tokio::test]
    async fn what_is_refused_when_it_has_its_row_already_leaves_no_row() {
        let scene = Scene::new(true);
        scene.send(MESSAGE, false);
        let queued = scene.link.take_stanza().expect("it may go");
        scene.federation.write_behind(Duration::ZERO);
        assert_eq!(scene.rows().await, 1);
        let ticket = scene.federation.take_from_ahead(&scene.link.pair, queued.id);
        assert!(ticket.0.is_none(), "it went with the row");
        assert_eq!(scene.rows().await, 0);
    }
}
