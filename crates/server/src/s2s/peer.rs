//! What a stream to another server is, whoever opened it: the line, the stanzas on it, how fast they come, and why its
//! task wakes.

use super::flow::Flow;
use super::shown::Showing;
use super::{Federation, Policy};
use crate::edge::line::{Io, Line};
use crate::edge::rates::Rates;
use crate::edge::socket::Socket;
use crate::stopping::Stopping;
use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use stream::Pair;
use tokio::sync::{Notify, broadcast};
use tokio::time::{Instant, sleep_until};

pub struct Peer {
    pub federation: Arc<Federation>,
    pub policy: Arc<Policy>,
    pub line: Line,
    pub flow: Flow,
    pub rates: Rates,
    pub showing: Showing,
    /// Signed records vouch for its certificate.
    pub by_dane: bool,
    /// The condition of its stream error, if it said one.
    pub error: Option<Box<str>>,
    pub began: Instant,
    /// When a stanza or a question last went either way.
    pub active: Instant,
    stopping: Stopping,
    cuts: broadcast::Receiver<Pair>,
}

/// Why a stream's task woke.
pub enum Woke {
    /// It is time to look at the clock.
    Deadline,
    /// This pair's presence is cut off, as nobody seems to be there.
    Cut(Pair),
    Read,
    /// The connection was closed, or broke.
    Gone(Option<io::Error>),
    /// There is something to write, to acknowledge, or the server stops: each turn looks at these.
    Told,
}

impl Peer {
    pub fn new(federation: &Arc<Federation>, policy: &Arc<Policy>, socket: Socket, showing: Showing) -> Peer {
        Peer {
            line: Line::new(socket),
            flow: Flow::new(federation),
            rates: policy.rates(),
            showing,
            by_dane: false,
            error: None,
            began: Instant::now(),
            active: Instant::now(),
            stopping: federation.stopping(),
            cuts: federation.presence.cuts(),
            policy: policy.clone(),
            federation: federation.clone(),
        }
    }

    /// From now on it is heard when the server stops, and whose presence is cut off.
    pub fn listen(&mut self) {
        self.stopping = self.federation.stopping();
        self.cuts = self.federation.presence.cuts();
    }

    /// Is there room for what comes?
    pub fn may_take(&self) -> bool {
        !self.flow.in_flight.is_full() && self.rates.may_read()
    }

    /// When to look at the clock again, where `at` is what else there is to wait for.
    pub fn deadline(&self, at: Instant) -> Instant {
        self.rates.deadline(self.line.deadline(at))
    }

    /// Sleeps until something is to be done. Sends what is unsent meanwhile. (Cut short, it has forgotten nothing that
    /// the next turn does not look at.)
    pub async fn woke(&mut self, may_read: bool, deadline: Instant) -> Woke {
        let (wake, in_flight) = (self.flow.wake.clone(), self.flow.in_flight.clone());
        tokio::select! {
            // The rarest first, so that none starves the others; and a run can be repeated.
            biased;
            () = self.stopping.changed() => {
                self.active = Instant::now();
                Woke::Told
            }
            cut = self.cuts.recv() => cut.map_or(Woke::Told, Woke::Cut),
            () = sleep_until(deadline) => Woke::Deadline,
            io = self.line.progress(may_read) => match io {
                Ok(Io::Read(true)) => {
                    if self.rates.read(self.line.input.len()) {
                        self.federation.house.limit("s2s_bytes_per_second");
                    }
                    Woke::Read
                }
                Ok(Io::Flushed) => {
                    self.flow.flushed();
                    Woke::Told
                }
                Ok(Io::Read(false)) => Woke::Gone(None),
                Err(error) => Woke::Gone(Some(error)),
            },
            () = told(&wake, &in_flight.done) => Woke::Told,
        }
    }

    /// Writes what waits in the links.
    pub fn write_stanzas(&mut self) {
        let room = self.line.room();
        if self.flow.write(&mut self.line.out, room) {
            self.active = Instant::now();
        }
    }

    /// Hands over what is to go.
    pub fn send(&mut self) -> io::Result<()> {
        if self.line.send()? {
            self.flow.flushed();
        }
        Ok(())
    }

    /// By what a pair is proved, for the operator.
    pub fn proof(&self, certified: bool) -> &'static str {
        match (certified, self.by_dane) {
            (true, true) => "dane",
            (true, false) => "certificate",
            (false, _) => "dialback",
        }
    }
}

/// Either of the two was told of something, and all that is ready on this thread has had its turn: what others have for
/// the stream goes in one write.
async fn told(wake: &Notify, done: &Notify) {
    let (mut wake, mut done) = (pin!(wake.notified()), pin!(done.notified()));
    // Both are looked at: what both tell of is one turn.
    poll_fn(|cx| match (wake.as_mut().poll(cx), done.as_mut().poll(cx)) {
        (Poll::Pending, Poll::Pending) => Poll::Pending,
        _ => Poll::Ready(()),
    })
    .await;
    tokio::task::yield_now().await;
}
