//! The streams of this node, by reference: where entities leave what a stream must hear.

use crate::edge::outlet::{self, Outlet};
use dashmap::DashMap;
use im::{EdgeItem, EdgeRef};
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Poll, Waker};
use xmpp::StreamFault;
use xmpp::planted::{self, Bug};

/// So many times its bounds a queue may be beyond them, while the peer takes what it is sent.
const BURST_TIMES: usize = 8;

thread_local! {
    /// Room for queues: a stream has some only while something is queued.
    static POOL: RefCell<Vec<VecDeque<EdgeItem>>> = const { RefCell::new(Vec::new()) };
    /// Streams for which presence was queued in this turn: see [`write_through`]. Bounded by the turn, which ends when they
    /// are many.
    static UNWRITTEN: RefCell<Vec<Arc<EdgeHandle>>> = const { RefCell::new(Vec::new()) };
}

/// Queues a thread keeps room for, and the items each may have room for.
const POOL_MAX: usize = 64;
const POOLED_ITEMS_MAX: usize = 256;

/// Done with a queue; what is left in it is dropped.
pub fn recycle(mut queue: VecDeque<EdgeItem>) {
    queue.clear();
    if (1..=POOLED_ITEMS_MAX).contains(&queue.capacity()) {
        POOL.with_borrow_mut(|pool| {
            if pool.len() < POOL_MAX {
                pool.push(queue);
            }
        });
    }
}

/// How many streams this turn has left presence for.
pub fn unwritten() -> usize {
    UNWRITTEN.with_borrow(Vec::len)
}

/// The turn ends: what it queued of presence is written, without the tasks of the streams that it is for. They are woken
/// for what they must look at themselves; all of them, if somebody `watches` what they write. False: nothing was.
pub fn write_through(watches: bool) -> bool {
    let mut unwritten = UNWRITTEN.take();
    if unwritten.is_empty() {
        return false;
    }
    let mut bytes = outlet::buffer();
    for handle in unwritten.drain(..) {
        let outlet = handle.outlet.get().filter(|_| !watches).and_then(Weak::upgrade);
        if !outlet.is_some_and(|outlet| outlet.write_through(&handle, &mut bytes)) {
            handle.wake();
        }
    }
    outlet::recycle(bytes);
    UNWRITTEN.set(unwritten);
    true
}

/// What one stream has waiting; LIMITS: send queue per session.
#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<EdgeItem>,
    /// Rough bytes of the deliveries queued.
    weight: usize,
    waker: Option<Waker>,
    /// The stream's task is gone or has been told to go: nothing more is taken.
    closed: bool,
}

impl Queue {
    /// False: there is nothing.
    fn take(&mut self, into: &mut VecDeque<EdgeItem>) -> bool {
        if self.items.is_empty() {
            return false;
        }
        std::mem::swap(&mut self.items, into);
        self.weight = 0;
        true
    }

    fn register(&mut self, waker: &Waker) {
        match &self.waker {
            Some(w) if w.will_wake(waker) => {}
            _ => self.waker = Some(waker.clone()),
        }
    }
}

/// Called once.
type Then = Box<dyn FnOnce() + Send>;

/// The house's end of a stream: its task holds the other.
pub struct EdgeHandle {
    pub id: EdgeRef,
    queue: Mutex<Queue>,
    /// Queries under way whose answers must come before the next stanza is read. DESIGN.md D10.
    holds: AtomicU32,
    /// Stanzas taken in whose tickets are still out.
    pub in_flight: AtomicU32,
    /// The stream waits for stanzas to be done (an ack was asked for, or too many are in flight).
    pub wants_done: AtomicBool,
    done: Mutex<Done>,
    /// For the time when nothing is in flight any more.
    when_done: Mutex<Option<Then>>,
    queue_items_max: usize,
    queue_bytes_max: usize,
    /// The peer does not take what was written: the bounds of the queue hold.
    pub blocked: AtomicBool,
    /// It went over its bounds and was closed for that.
    pub overran: AtomicBool,
    /// Where the stream writes, if others may write there, too.
    pub outlet: OnceLock<Weak<Outlet>>,
}

impl std::fmt::Debug for EdgeHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EdgeHandle").field("id", &self.id).finish_non_exhaustive()
    }
}

/// `h` is the longest prefix of stanzas that are done (CLUSTER rule 6).
#[derive(Debug, Default)]
struct Done {
    prefix: u32,
    /// Ordinals beyond the prefix that are done already.
    later: Vec<u32>,
}

impl EdgeHandle {
    /// Queues something, and wakes the stream's task if it is the first.
    pub fn send(&self, item: EdgeItem) {
        if self.put(item) {
            self.wake();
        }
    }

    /// Queues something. True: it is the first, and nobody knows of it yet.
    fn put(&self, item: EdgeItem) -> bool {
        let mut queue = self.queue.lock();
        if queue.closed {
            return false;
        }
        if let EdgeItem::Deliver { delivery, .. } = &item {
            queue.weight += delivery.stanza.weight();
            let over = |times| {
                queue.items.len() >= times * self.queue_items_max || queue.weight > times * self.queue_bytes_max
            };
            // A stream whose task had no turn yet is not slow: much may come at once, such as the presence of all
            // contacts.
            if over(BURST_TIMES) || over(1) && self.blocked.load(Ordering::Relaxed) {
                // What is queued is not written any more: the session's own queue has it, or the log.
                self.overran.store(true, Ordering::Relaxed);
                queue.items.clear();
                queue.items.push_back(EdgeItem::Close(StreamFault::SlowReader));
                queue.closed = true;
                return true;
            }
        }
        let was_empty = queue.items.is_empty();
        if queue.items.capacity() == 0 {
            queue.items = POOL.with_borrow_mut(Vec::pop).unwrap_or_default();
        }
        queue.items.push_back(item);
        was_empty
    }

    /// Takes all that is queued; false if there is nothing.
    pub fn take(&self, into: &mut VecDeque<EdgeItem>) -> bool {
        self.queue.lock().take(into)
    }

    /// The same, if nothing but deliveries is queued; else it stays, and the answer is false.
    pub fn take_deliveries(&self, into: &mut VecDeque<EdgeItem>) -> bool {
        let mut queue = self.queue.lock();
        let is_delivery = |item: &EdgeItem| matches!(item, EdgeItem::Deliver { .. } | EdgeItem::Skipped { .. });
        if !queue.items.iter().all(is_delivery) {
            return false;
        }
        queue.take(into);
        true
    }

    /// The first that is queued; when there is nothing, whoever queues something wakes.
    pub fn poll_first(&self, waker: &Waker) -> Poll<EdgeItem> {
        let mut queue = self.queue.lock();
        match queue.items.pop_front() {
            Some(item) => Poll::Ready(item),
            None => {
                queue.register(waker);
                Poll::Pending
            }
        }
    }

    /// Is something queued? Whoever queues something into an empty queue wakes.
    pub fn has_some(&self, waker: &Waker) -> bool {
        let mut queue = self.queue.lock();
        queue.register(waker);
        !queue.items.is_empty()
    }

    pub fn close(&self) {
        let mut queue = self.queue.lock();
        queue.closed = true;
        queue.items = VecDeque::new();
        queue.waker = None;
    }

    fn wake(&self) {
        if let Some(waker) = self.queue.lock().waker.take() {
            waker.wake();
        }
    }

    fn hold(&self) {
        self.holds.fetch_add(1, Ordering::AcqRel);
    }

    fn release(&self) {
        self.holds.fetch_sub(1, Ordering::AcqRel);
        self.wake();
    }

    pub fn is_held(&self) -> bool {
        self.holds.load(Ordering::Acquire) > 0
    }

    /// The ordinals done so far, as one number.
    pub fn done_prefix(&self) -> u32 {
        self.done.lock().prefix
    }

    pub fn set_done_prefix(&self, prefix: u32) {
        *self.done.lock() = Done { prefix, later: Vec::new() };
    }

    /// Calls `then` once nothing is in flight any more; for a stream that takes in nothing more.
    pub fn when_done(&self, then: Then) {
        *self.when_done.lock() = Some(then);
        if self.in_flight.load(Ordering::Acquire) == 0 {
            self.is_done();
        }
    }

    fn is_done(&self) {
        let then = self.when_done.lock().take();
        if let Some(then) = then {
            then();
        }
    }

    fn mark_done(&self, ordinal: u32) {
        {
            let mut done = self.done.lock();
            if ordinal == done.prefix.wrapping_add(1) {
                done.prefix = ordinal;
                while let Some(i) = done.later.iter().position(|&o| o == done.prefix.wrapping_add(1)) {
                    done.prefix = done.later.swap_remove(i);
                }
            } else {
                // Bounded by the stanzas in flight.
                done.later.push(ordinal);
            }
        }
        if self.in_flight.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.is_done();
        }
        if self.wants_done.swap(false, Ordering::AcqRel) {
            self.wake();
        }
    }
}

/// A stream that waits for an answer, until it is dropped.
#[derive(Debug)]
pub struct Hold(Arc<EdgeHandle>);

impl Hold {
    pub fn new(edge: Arc<EdgeHandle>) -> Hold {
        edge.hold();
        Hold(edge)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.release();
    }
}

/// Dropped when all that a stanza set off is done.
pub struct StanzaTicket {
    edge: Arc<EdgeHandle>,
    ordinal: u32,
    /// It is acknowledged when it is done, or something of it is on its way to the disk.
    promised: AtomicBool,
    /// Of some, when they were taken in.
    since: Option<std::time::Instant>,
}

impl StanzaTicket {
    /// A ticket for a stanza just taken in, of a client who is told when it is done (XEP-0198) or not.
    pub fn issue(edge: &Arc<EdgeHandle>, ordinal: u32, is_told: bool) -> im::Ticket {
        edge.in_flight.fetch_add(1, Ordering::AcqRel);
        im::Ticket(Some(Arc::new(StanzaTicket {
            edge: edge.clone(),
            ordinal,
            promised: AtomicBool::new(is_told),
            since: crate::latency::timed(ordinal),
        })))
    }

    pub fn of(ticket: &im::Ticket) -> Option<&StanzaTicket> {
        ticket.0.as_ref()?.downcast_ref()
    }

    /// Something of the stanza is on its way to the disk.
    pub fn promise(&self) {
        self.promised.store(true, Ordering::Relaxed);
    }

    /// Must the stanza be on disk before anything comes of it?
    pub fn is_promised(&self) -> bool {
        self.promised.load(Ordering::Relaxed)
    }
}

impl Drop for StanzaTicket {
    fn drop(&mut self) {
        if let Some(since) = self.since {
            crate::latency::STANZAS.add(since.elapsed());
        }
        self.edge.mark_done(self.ordinal);
    }
}

/// Numbers that we give ourselves, one after the other, need no keyed hash.
#[derive(Debug, Default)]
struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        // 2^64 divided by the golden ratio: consecutive numbers are spread over the upper bits.
        self.0 = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// All streams of this node.
#[derive(Debug, Default)]
pub struct Edges {
    map: DashMap<u64, Arc<EdgeHandle>, BuildHasherDefault<NumberHasher>>,
    next: AtomicU64,
}

impl Edges {
    /// Items that wait to be written, of all streams.
    pub fn queued(&self) -> usize {
        self.map.iter().map(|edge| edge.queue.lock().items.len()).sum()
    }

    pub fn open(&self, queue_items_max: usize, queue_bytes_max: usize) -> Arc<EdgeHandle> {
        let id = EdgeRef(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let handle = Arc::new(EdgeHandle {
            id,
            queue: Mutex::default(),
            holds: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            wants_done: AtomicBool::new(false),
            done: Mutex::default(),
            when_done: Mutex::default(),
            queue_items_max,
            queue_bytes_max,
            blocked: AtomicBool::new(false),
            overran: AtomicBool::new(false),
            outlet: OnceLock::new(),
        });
        self.map.insert(id.0, handle.clone());
        handle
    }

    pub fn get(&self, edge: EdgeRef) -> Option<Arc<EdgeHandle>> {
        self.map.get(&edge.0).map(|h| h.clone())
    }

    /// Queues something for a stream. Presence is written when the turn ends, see [`write_through`]; for anything else its
    /// task is woken.
    pub fn send(&self, edge: EdgeRef, item: EdgeItem) {
        let Some(handle) = self.map.get(&edge.0) else { return };
        let is_presence = matches!(&item, EdgeItem::Deliver { delivery, .. } if delivery.stanza.is_presence());
        if !is_presence || handle.outlet.get().is_none() {
            handle.send(item);
        } else if handle.put(item) {
            UNWRITTEN.with_borrow_mut(|unwritten| unwritten.push(handle.clone()));
        }
    }

    pub fn close(&self, handle: &EdgeHandle) {
        handle.close();
        if !planted::is(Bug::EdgeLeak) {
            self.map.remove(&handle.id.0);
        }
    }

    /// The same for every stream (shutdown).
    pub fn send_all(&self, make: impl Fn() -> EdgeItem) {
        let mut all: Vec<_> = self.map.iter().map(|entry| entry.value().clone()).collect();
        all.sort_by_key(|handle| handle.id.0);
        for handle in all {
            handle.send(make());
        }
    }

    pub fn len(&self) -> usize {
        self.map.len()
    }

    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }

    /// What waits for the one stream with the most: items, rough bytes.
    #[cfg(feature = "simulated")]
    pub fn longest_queue(&self) -> (usize, usize) {
        let queues = self.map.iter().map(|handle| {
            let queue = handle.queue.lock();
            (queue.items.len(), queue.weight)
        });
        queues.max().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // CLUSTER rule 6, XEP-0198 §4.
    #[test]
    fn h_is_the_prefix_of_what_is_done_whatever_is_done_first() {
        let edge = Edges::default().open(10, 1_000);
        let mut tickets: Vec<_> = (1..=5).map(|ordinal| Some(StanzaTicket::issue(&edge, ordinal, true))).collect();
        let mut heard = Vec::new();
        for done in [2, 4, 1, 5, 3] {
            tickets[done - 1] = None;
            heard.push(edge.done_prefix());
        }
        assert_eq!(heard, [0, 0, 2, 2, 5]);
        assert_eq!(edge.in_flight.load(Ordering::Acquire), 0);
    }

    #[test]
    fn a_stanza_is_done_when_the_last_that_it_set_off_is() {
        let edge = Edges::default().open(10, 1_000);
        let ticket = StanzaTicket::issue(&edge, 1, true);
        let at_the_store = ticket.clone();
        drop(ticket);
        assert_eq!((edge.done_prefix(), edge.in_flight.load(Ordering::Acquire)), (0, 1));
        drop(at_the_store);
        assert_eq!((edge.done_prefix(), edge.in_flight.load(Ordering::Acquire)), (1, 0));
    }

    #[test]
    fn the_count_goes_on_beyond_32_bits() {
        let edge = Edges::default().open(10, 1_000);
        edge.set_done_prefix(u32::MAX - 1);
        let last = StanzaTicket::issue(&edge, u32::MAX, true);
        let first = StanzaTicket::issue(&edge, 0, true);
        drop(first);
        assert_eq!(edge.done_prefix(), u32::MAX - 1);
        drop(last);
        assert_eq!(edge.done_prefix(), 0);
    }

    #[test]
    fn whoever_waits_hears_when_nothing_is_in_flight() {
        let edge = Edges::default().open(10, 1_000);
        let ticket = StanzaTicket::issue(&edge, 1, true);
        let heard = Arc::new(AtomicBool::new(false));
        let tell = heard.clone();
        edge.when_done(Box::new(move || tell.store(true, Ordering::Relaxed)));
        assert!(!heard.load(Ordering::Relaxed));
        drop(ticket);
        assert!(heard.load(Ordering::Relaxed));
    }
}
