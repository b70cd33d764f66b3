//! The writing half of a stream: its wire, and what is remembered of what was written there.
//!
//! The stream's task writes here, and so does whoever has presence for its client: what a turn of the house leaves for many
//! is written at the end of that turn, one socket after the other, and no task is woken for it (docs/design/batching.md).

use super::wire::Wire;
use crate::house::edges::{self, EdgeHandle};
use im::{Delivery, EdgeItem};
use parking_lot::{Mutex, MutexGuard};
use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;
use stream::Counting;
use tokio::time::Instant;
use xmpp::Stanza;

/// Without stream management: logged messages written to the socket are told to the account after this time.
const TOLD_AFTER: Duration = Duration::from_millis(300);
/// … or after so many. Other stanzas are told of when they are as many, or so many bytes.
const TOLD_EVERY: u64 = 64;
const TOLD_EVERY_BYTES: usize = 64 << 10;
/// A larger buffer is given back.
const POOLED_BYTES_MAX: usize = 256 << 10;

thread_local! {
    /// Where deliveries are serialised; belongs to the thread, not to the stream.
    static BYTES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer to serialise into.
pub(crate) fn buffer() -> Vec<u8> {
    BYTES.take()
}

/// Done with a buffer.
pub(crate) fn recycle(mut bytes: Vec<u8>) {
    bytes.clear();
    if bytes.capacity() <= POOLED_BYTES_MAX {
        BYTES.set(bytes);
    }
}

pub struct Outlet(Mutex<Out>);

pub(crate) struct Out {
    pub wire: Wire,
    /// The number of the last delivery that was written to the wire on this stream.
    deliveries: u64,
    /// … of the last that the account has been told of.
    deliveries_told: u64,
    /// Bytes of those that it has not been told of.
    bytes_untold: usize,
    /// What the account waits to hear of was written: when it is told.
    pub told_due: Option<Instant>,
    /// An `<r/>` of ours is out since.
    pub ack_asked: Option<Instant>,
    /// Behind an `<r/>` the client has so long.
    ack_timeout: Duration,
    /// With stream management.
    counting: Option<Arc<Counting>>,
    framing: xmpp::write::Wire,
    /// All that must be said before a delivery is said: others than the stream's task may write.
    is_open: bool,
    /// When the stream's task looks by itself what is due,
    looks_at: Instant,
    /// … and that it must look now, as somebody else has written.
    must_look: bool,
}

impl Outlet {
    pub fn new(wire: Wire, ack_timeout: Duration) -> Outlet {
        Outlet(Mutex::new(Out {
            wire,
            deliveries: 0,
            deliveries_told: 0,
            bytes_untold: 0,
            told_due: None,
            ack_asked: None,
            ack_timeout,
            counting: None,
            framing: xmpp::write::Wire::Client,
            is_open: false,
            looks_at: Instant::now(),
            must_look: false,
        }))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Out> {
        self.0.lock()
    }

    /// Writes what is queued, if nothing but deliveries is and nothing stands before them. False: the stream's task must
    /// look, for that or for what comes of it.
    ///
    /// `bytes`: empty, before and after.
    pub(crate) fn write_through(&self, handle: &EdgeHandle, bytes: &mut Vec<u8>) -> bool {
        let Some(mut out) = self.0.try_lock() else { return false };
        if !out.is_open || out.wire.unsent() > 0 {
            return false;
        }
        let mut queue = VecDeque::new();
        if !handle.take_deliveries(&mut queue) {
            return false;
        }
        for item in queue.drain(..) {
            match item {
                EdgeItem::Deliver { number, delivery } => out.put(number, &delivery, &delivery.stanza, bytes),
                EdgeItem::Skipped { number } => out.skip(number),
                // (None was taken.)
                _ => {}
            }
        }
        edges::recycle(queue);
        out.drained(bytes);
        let written = out.wire.write(bytes);
        bytes.clear();
        // What was not taken is there still: the task meets with the same error.
        out.must_look = written.is_err() || out.wire.unsent() > 0 || out.due().is_some_and(|at| at < out.looks_at);
        !out.must_look
    }

    /// Last bytes, and TLS's end.
    pub(super) async fn say_last(&self, bytes: &[u8]) {
        self.lock().wire.put_last(bytes);
        super::wire::flush_last(poll_fn(|cx| self.lock().wire.poll_flush(cx))).await;
    }

    /// See [`Wire::hear_out`].
    pub(super) async fn hear_out(&self) {
        let mut rest = Vec::new();
        super::wire::hear_out(|cx| {
            rest.clear();
            self.lock().wire.poll_read(cx, &mut rest)
        })
        .await;
    }
}

impl Out {
    /// Appends a delivery to what will be written. `stanza`: what is said in its place.
    pub fn put(&mut self, number: u64, delivery: &Delivery, stanza: &Stanza, bytes: &mut Vec<u8>) {
        let before = bytes.len();
        xmpp::write::write_stanza(bytes, stanza, delivery.to.as_ref(), &delivery.more, self.framing);
        self.bytes_untold += bytes.len() - before;
        if let Some(counting) = &self.counting {
            counting.sent(bytes);
        }
        self.skip(number);
        // (A message without a position may live in the session's queue alone.)
        if self.told_due.is_none() && self.counting.is_none() && (stanza.is_message() || self.are_many()) {
            self.told_due = Some(Instant::now() + TOLD_AFTER);
        }
    }

    /// Up to this number nothing is left to be written.
    pub fn skip(&mut self, number: u64) {
        self.deliveries = self.deliveries.max(number);
    }

    /// Nothing more is queued.
    pub fn drained(&mut self, bytes: &mut Vec<u8>) {
        if let Some(counting) = &self.counting {
            counting.drained(bytes);
        }
        self.note_asked();
    }

    /// Since when is an `<a/>` awaited?
    pub fn note_asked(&mut self) {
        let awaits_ack = self.counting.as_ref().is_some_and(|it| it.awaits_ack());
        self.ack_asked = awaits_ack.then(|| self.ack_asked.unwrap_or_else(Instant::now));
    }

    /// Stream management begins, or not.
    pub fn count(&mut self, counting: Option<&Arc<Counting>>) {
        self.counting = counting.cloned();
    }

    /// The stream is bound, and its client has heard so: deliveries may follow.
    pub fn open(&mut self, framing: xmpp::write::Wire) {
        self.framing = framing;
        self.is_open = true;
    }

    /// Nobody but the stream's task writes any more.
    pub fn close(&mut self) {
        self.is_open = false;
    }

    /// The stream's task has looked, and looks again at this time, if not before.
    pub fn looks_at(&mut self, at: Instant) {
        self.looks_at = at;
        self.must_look = false;
    }

    /// Has somebody else written since, so that it must look now?
    pub fn must_look(&self) -> bool {
        self.must_look
    }

    /// The nearest time at which something that was written wants a look.
    fn due(&self) -> Option<Instant> {
        let many = self.told_due.filter(|_| self.are_many()).map(|due| due - TOLD_AFTER);
        [many, self.told_due, self.ack_asked.map(|asked| asked + self.ack_timeout)].into_iter().flatten().min()
    }

    fn are_many(&self) -> bool {
        self.deliveries - self.deliveries_told >= TOLD_EVERY || self.bytes_untold >= TOLD_EVERY_BYTES
    }

    /// The number up to which the account is told now that the kernel has its deliveries, if it is time: their pending marks
    /// can go. While the wire is being written to without a pause, this is asked each time, as the timer may not get its turn.
    pub fn tell(&mut self) -> Option<u64> {
        let due = self.told_due?;
        let now = Instant::now();
        if now < due && !self.are_many() {
            return None;
        }
        if self.wire.unsent() > 0 {
            if now >= due {
                self.told_due = Some(now + TOLD_AFTER);
            }
            return None;
        }
        self.told_due = None;
        self.deliveries_told = self.deliveries;
        self.bytes_untold = 0;
        Some(self.deliveries)
    }

    /// Up to where the kernel has all deliveries, as far as that is known.
    pub fn known_written(&self) -> u64 {
        if self.wire.unsent() == 0 { self.deliveries } else { self.deliveries_told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::testing::connection;
    use crate::house::edges::{Edges, write_through};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Wake, Waker};
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpStream;
    use xmpp::StreamFault;

    /// How often a stream's task was woken.
    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A bound stream whose task sleeps.
    struct Scene {
        edges: Edges,
        handle: Arc<EdgeHandle>,
        outlet: Arc<Outlet>,
        far: TcpStream,
        woken: Arc<Woken>,
        sent: u64,
    }

    async fn scene() -> Scene {
        let (near, far) = connection().await;
        let edges = Edges::default();
        let handle = edges.open(10, 1 << 20);
        let outlet = Arc::new(Outlet::new(Wire::new(near), Duration::from_secs(60)));
        assert!(handle.outlet.set(Arc::downgrade(&outlet)).is_ok());
        outlet.lock().open(xmpp::write::Wire::Client);
        let scene = Scene { edges, handle, outlet, far, woken: Arc::default(), sent: 0 };
        scene.sleeps(Duration::from_secs(300));
        scene
    }

    impl Scene {
        /// Its task has looked, and will again then.
        fn sleeps(&self, time: Duration) {
            self.outlet.lock().looks_at(Instant::now() + time);
            self.handle.has_some(&Waker::from(self.woken.clone()));
        }

        fn queue(&mut self, xml: &str) {
            let stanza = Arc::new(Stanza::parse(xml.as_bytes()).expect("a stanza in a test"));
            self.sent += 1;
            let item = EdgeItem::Deliver { number: self.sent, delivery: Delivery::plain(stanza) };
            self.edges.send(self.handle.id, item);
        }

        fn woken(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }

        async fn hears(&mut self, expected: &str) {
            let mut heard = vec![0; expected.len()];
            self.far.read_exact(&mut heard).await.expect("it is written");
            assert_eq!(String::from_utf8_lossy(&heard), expected);
        }

        async fn hears_nothing(&mut self) {
            assert!(self.far.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock));
        }

        fn left(&self) -> usize {
            self.edges.queued()
        }
    }

    const HERE: &str = "<presence from='romeo@montague.example/orchard'/>";
    const SAYS: &str = "<message from='romeo@montague.example/orchard'><body>so</body></message>";
    const R: &str = "<r xmlns='urn:xmpp:sm:3'/>";

    #[tokio::test]
    async fn presence_is_written_at_the_end_of_the_turn_and_wakes_no_task() {
        let mut scene = scene().await;
        scene.queue(HERE);
        scene.queue(HERE);
        scene.hears_nothing().await;
        write_through(false);
        scene.hears(&[HERE, HERE].concat()).await;
        assert_eq!((scene.woken(), scene.outlet.lock().known_written()), (0, 2));
    }

    #[tokio::test]
    async fn what_was_queued_before_is_written_before_and_what_comes_behind_behind() {
        let mut scene = scene().await;
        for stanza in [SAYS, HERE] {
            scene.queue(stanza);
        }
        // The message has woken the task, which writes both.
        write_through(false);
        assert_eq!((scene.woken(), scene.left()), (1, 2));
        scene.handle.take(&mut VecDeque::new());
        for stanza in [HERE, SAYS] {
            scene.queue(stanza);
        }
        write_through(false);
        scene.hears(&[HERE, SAYS].concat()).await;
    }

    #[tokio::test]
    async fn what_is_no_delivery_is_left_to_the_task_with_all_that_is_queued() {
        let mut scene = scene().await;
        scene.queue(HERE);
        scene.handle.send(EdgeItem::Close(StreamFault::SystemShutdown));
        write_through(false);
        assert_eq!((scene.woken(), scene.left()), (1, 2));
        scene.hears_nothing().await;
    }

    #[tokio::test]
    async fn nothing_is_written_before_the_stream_is_bound_or_behind_its_end() {
        for bound_later in [true, false] {
            let mut scene = scene().await;
            scene.outlet.lock().close();
            scene.queue(HERE);
            write_through(false);
            assert_eq!((scene.woken(), scene.left()), (1, 1), "{bound_later}");
            scene.hears_nothing().await;
            if bound_later {
                scene.outlet.lock().open(xmpp::write::Wire::Client);
                assert!(scene.outlet.write_through(&scene.handle, &mut Vec::new()));
                scene.hears(HERE).await;
            }
        }
    }

    #[tokio::test]
    async fn whoever_looks_on_is_shown_it_by_the_task() {
        let mut scene = scene().await;
        scene.queue(HERE);
        write_through(true);
        assert_eq!((scene.woken(), scene.left()), (1, 1));
    }

    #[tokio::test]
    async fn a_task_that_writes_is_not_waited_for_and_looks_again() {
        let mut scene = scene().await;
        scene.queue(HERE);
        let outlet = scene.outlet.clone();
        let writing = outlet.lock();
        write_through(false);
        assert_eq!((scene.woken(), scene.left()), (1, 1));
        drop(writing);
    }

    // XEP-0198 §4.
    #[tokio::test]
    async fn with_stream_management_it_is_counted_and_the_task_looks_in_time_whether_it_was_acknowledged() {
        let mut scene = scene().await;
        let counting = Arc::<Counting>::default();
        scene.outlet.lock().count(Some(&counting));
        scene.queue(HERE);
        write_through(false);
        scene.hears(&[HERE, R].concat()).await;
        assert!(counting.awaits_ack() && scene.outlet.lock().must_look());
        assert_eq!(scene.woken(), 1);
        // It will be awake before the acknowledgement is due: it need not be woken for the next.
        scene.sleeps(Duration::from_secs(59));
        scene.queue(HERE);
        write_through(false);
        scene.hears(HERE).await;
        assert_eq!(scene.woken(), 1);
    }

    #[tokio::test]
    async fn what_the_peer_does_not_take_waits_for_it_and_the_task_sees_to_that() {
        let mut scene = scene().await;
        while scene.outlet.lock().wire.unsent() == 0 {
            scene.outlet.lock().wire.write(&[b' '; 64 << 10]).expect("it is queued");
        }
        scene.queue(HERE);
        write_through(false);
        assert_eq!((scene.woken(), scene.left()), (1, 1), "it stands behind what is unsent");
    }

    #[tokio::test]
    async fn what_a_broken_connection_did_not_take_is_not_told_as_written() {
        let mut scene = scene().await;
        scene.outlet.lock().wire.shutdown();
        scene.queue(SAYS);
        assert!(!scene.outlet.write_through(&scene.handle, &mut Vec::new()));
        let out = scene.outlet.lock();
        assert!(out.must_look() && out.known_written() == 0, "{}", out.deliveries);
    }

    #[tokio::test]
    async fn the_account_is_told_of_every_sixty_four() {
        let mut scene = scene().await;
        for n in 1..=2 * TOLD_EVERY {
            scene.queue(HERE);
            write_through(false);
            let told = scene.outlet.lock().must_look();
            assert_eq!(told, n % TOLD_EVERY == 0, "{n}");
            if told {
                assert_eq!(scene.outlet.lock().tell(), Some(n));
                scene.sleeps(Duration::from_secs(300));
            }
        }
        assert_eq!(scene.woken(), 2);
    }
}
