//! Posting to accounts, and the turns in which they run.
//!
//! Whoever posts to an account that rests becomes its runner, and that of those to which it posts in its turn. A turn is
//! short, whatever was asked for; what is left of the work goes on behind all that is ready to run on this thread.

use super::entity::CellItem;
use super::{AccountCell, House, edges};
use cluster::Posted;
use im::Item;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;
use xmpp::BareJid;

/// Cells whose runner the present task has become.
pub type Ready = VecDeque<Arc<AccountCell>>;

thread_local! {
    /// Room for those that are ready: the thread's. Empty between two uses.
    static READY: std::cell::Cell<Ready> = const { std::cell::Cell::new(Ready::new()) };
}

/// More room than that is given back to the system.
const READY_ROOM_MAX: usize = 1_024;

fn give_back(ready: Ready) {
    if ready.capacity() <= READY_ROOM_MAX {
        READY.set(ready);
    }
}

/// Cells that are run before all else that waits for this thread has its turn: so many, or fewer if they take long. (A message
/// waits for some four such rounds: until it is read, committed, delivered, sent.)
pub(super) const CELLS_A_TURN: usize = 32;
const TURN_TIME: Duration = Duration::from_micros(25);
/// … or if they leave presence for so many streams: each is a call of the kernel, several times what a cell takes.
const WRITES_A_TURN: usize = 8;
/// Both are looked at behind so many cells.
const CELLS_A_LOOK: usize = 4;

/// So many calls to the store are worth a transaction, whoever else is ready: a millisecond or so of work for one thread.
pub(super) const COMMITS_TOGETHER: usize = 64;

/// Cells whose runner the holder is and that have had no turn yet. Whoever drops them lets a task of their own run them.
#[must_use]
pub struct Rest {
    house: Arc<House>,
    ready: Ready,
    /// The turn before wrote to streams.
    wrote: bool,
}

impl Rest {
    /// Runs them, and all that they set off, a turn at a time.
    pub async fn work(mut self) {
        turns(&self.house, &mut self.ready, self.wrote).await;
    }
}

async fn turns(house: &Arc<House>, ready: &mut Ready, mut wrote: bool) {
    while !ready.is_empty() {
        // What was written wakes nobody on this thread: the next turn comes behind a look at the sockets, or who has something
        // to say would not be heard for many of them.
        match wrote {
            true => tokio::task::yield_now().await,
            false => after_others().await,
        }
        wrote = house.turn(ready);
    }
}

/// Goes on behind all that is ready to run on this thread, and what the present task has woken. (Tokio's own `yield_now`
/// comes back at the next look at the sockets, before most of them: what is woken piles up faster than it runs.)
pub(crate) async fn after_others() {
    let mut went = false;
    std::future::poll_fn(|cx| match std::mem::replace(&mut went, true) {
        true => std::task::Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            std::task::Poll::Pending
        }
    })
    .await;
}

impl Drop for Rest {
    fn drop(&mut self) {
        if self.ready.is_empty() {
            return;
        }
        let (house, mut ready, wrote) = (self.house.clone(), std::mem::take(&mut self.ready), self.wrote);
        // (Not as a `Rest`: a runtime that ends drops it unrun.)
        self.house.runtime.spawn(async move { turns(&house, &mut ready, wrote).await });
    }
}

impl House {
    /// Posts an item to an account and does all the work that follows from it on this task.
    pub fn post(self: &Arc<House>, account: &BareJid, item: Item) {
        let mut ready = READY.take();
        self.leave(account, CellItem::Im(item), &mut ready);
        self.work(&mut ready);
        give_back(ready);
    }

    /// The same when the cell is at hand (a stream posting to its own account).
    pub fn post_to(self: &Arc<House>, cell: &Arc<AccountCell>, item: CellItem) {
        drop(self.post_some(cell, item));
    }

    /// The same, for who can wait: more than a turn of work comes back, to be gone on with.
    pub fn post_some(self: &Arc<House>, cell: &Arc<AccountCell>, item: CellItem) -> Option<Rest> {
        let mut ready = READY.take();
        match cell.cell.post(item) {
            Posted::Run => ready.push_back(cell.clone()),
            Posted::Queued => {}
            Posted::Full(item) => self.refuse_full(item, &mut ready),
            Posted::Gone(item) => self.leave(&cell.jid, item, &mut ready),
        }
        let wrote = self.turn(&mut ready);
        if ready.is_empty() {
            give_back(ready);
            return None;
        }
        Some(Rest { house: self.clone(), ready, wrote })
    }

    /// Runs cells until none is left. More than a turn of work goes on in a task of its own.
    pub fn work(self: &Arc<House>, ready: &mut Ready) {
        let wrote = self.turn(ready);
        if !ready.is_empty() {
            drop(Rest { house: self.clone(), ready: std::mem::take(ready), wrote });
        }
    }

    /// Runs some cells: what one sets off for thousands must not keep a thread from everybody else. True: it
    /// wrote to streams.
    fn turn(self: &Arc<House>, ready: &mut Ready) -> bool {
        // (Most turns are of one cell or two: one look at the clock does for them.)
        let (mut since, mut now) = (None, None);
        for n in 1..=CELLS_A_TURN {
            let Some(cell) = ready.pop_front() else { break };
            self.run_cell(&cell, ready, now.get_or_insert_with(|| self.now()));
            if n % CELLS_A_LOOK == 0 && !ready.is_empty() {
                let at = Instant::now();
                if edges::unwritten() >= WRITES_A_TURN || at - *since.get_or_insert(at) >= TURN_TIME {
                    break;
                }
                now = None;
            }
        }
        let wrote = edges::write_through(self.watches.any());
        self.commit_in_turn();
        self.store.give_way();
        wrote
    }

    /// What [`House::commit_soon`] queued goes when all that is ready has had its turn: what came together from many is one
    /// batch. Or at once, if it is one already.
    pub(super) fn commit_in_turn(&self) {
        match self.uncommitted.load(Ordering::Acquire) {
            0 => {}
            1..COMMITS_TOGETHER => self.commits.wants.notify_one(),
            _ => self.commit_now(),
        }
    }

    /// What [`House::commit_soon`] queued goes.
    pub fn commit_now(&self) {
        if self.uncommitted.swap(0, Ordering::AcqRel) > 0 {
            self.store.go();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::outlet::Outlet;
    use crate::edge::testing::connection;
    use crate::edge::wire::Wire;
    use crate::house::testing::{attach, house, next};
    use im::{EdgeItem, Ingress, Ticket};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use xmpp::{Jid, Stanza};

    const MANY: usize = 4 * WRITES_A_TURN;

    /// Somebody who is there, and is to hear presence.
    struct Watcher {
        cell: Arc<AccountCell>,
        far: TcpStream,
        _outlet: Arc<Outlet>,
    }

    impl Watcher {
        async fn new(house: &Arc<House>, n: usize) -> Watcher {
            let bare = BareJid::parse(&format!("{n}@capulet.example")).expect("a bare JID in a test");
            assert!(house.open_anonymous(&bare));
            let edge = house.edges.open(100, 1 << 20);
            house.post(&bare, Item::Attach(attach(edge.id)));
            assert!(matches!(next(&edge).await, EdgeItem::Attached { .. }));
            let (near, far) = connection().await;
            let outlet = Arc::new(Outlet::new(Wire::new(near), Duration::from_secs(60)));
            assert!(edge.outlet.set(Arc::downgrade(&outlet)).is_ok());
            outlet.lock().open(xmpp::write::Wire::Client);
            Watcher { cell: house.cell(&bare), far, _outlet: outlet }
        }

        fn has_heard(&self) -> bool {
            self.far.try_read(&mut [0; 1_024]).is_ok_and(|bytes| bytes > 0)
        }
    }

    /// Many who have presence in their mailboxes.
    async fn many(house: &Arc<House>) -> (Vec<Watcher>, Ready) {
        let (mut watchers, mut ready) = (vec![], Ready::new());
        for n in 0..MANY {
            watchers.push(Watcher::new(house, n).await);
        }
        let stanza = Arc::new(Stanza::parse(b"<presence from='romeo@montague.example/orchard'/>").expect("a stanza"));
        for watcher in &watchers {
            let (stanza, ingress) = (stanza.clone(), Ingress { stream: 9, ordinal: 1 });
            let to = Jid::parse(&format!("{}/home", watcher.cell.jid)).expect("a JID in a test");
            let item = Item::Inbound { stanza, to, ingress, ticket: Ticket::default() };
            assert!(matches!(watcher.cell.cell.post(CellItem::Im(item)), Posted::Run));
            ready.push_back(watcher.cell.clone());
        }
        (watchers, ready)
    }

    #[tokio::test]
    async fn a_turn_ends_when_it_has_presence_for_many_streams() {
        let (house, _) = house();
        let (watchers, mut ready) = many(&house).await;
        let mut turns = 0;
        while !ready.is_empty() {
            let before = ready.len();
            assert!(house.turn(&mut ready));
            assert!(before - ready.len() < WRITES_A_TURN + CELLS_A_LOOK, "{before} {}", ready.len());
            turns += 1;
        }
        assert!(turns > 2, "{turns}");
        for watcher in &watchers {
            watcher.far.readable().await.expect("it is written");
            assert!(watcher.has_heard());
        }
    }

    #[tokio::test]
    async fn whoever_has_something_to_say_is_heard_between_turns_that_write() {
        let (house, _) = house();
        let (watchers, ready) = many(&house).await;
        let (near, mut far) = connection().await;
        let heard = tokio::spawn(async move { far.read_u8().await });
        // It waits by then.
        tokio::task::yield_now().await;
        assert_eq!(near.try_write(&[7]).ok(), Some(1));
        let rest = Rest { house, ready, wrote: true };
        let written = tokio::spawn(rest.work());
        assert!(heard.await.is_ok_and(|byte| byte.is_ok()));
        let written_before = watchers.iter().filter(|watcher| watcher.has_heard()).count();
        assert!(written_before < MANY / 2, "{written_before}");
        written.await.expect("it ends");
    }
}
