//! Strangers take turns. Thousands who all have something to say at once would stand in the threads' queues before everybody
//! who is known; so a few of them are worked for each time that all else which is ready has had its turn.
//!
//! There is no task for that: who stands first in the line goes around once behind all that is ready, and then lets itself
//! in and some of those behind it.

use crate::house::after_others;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

/// Strangers' streams that are worked for before all else that is ready has its turn: so many at least,
const A_TURN: usize = 16;
/// … and so many for each thread that can run, or a large machine would have idle ones.
const A_TURN_OF_A_THREAD: usize = 8;

/// The turns of all strangers.
#[derive(Debug)]
pub struct Turns(Arc<Mutex<Line>>);

#[derive(Debug)]
struct Line {
    /// How many have their turn at once.
    a_turn: usize,
    /// So many may go at once, if nobody stands before them.
    free: usize,
    /// Those who wait, by the order in which they came.
    waiting: BTreeMap<u64, Waker>,
    next: u64,
    /// The first of them, and whether it goes around already.
    first: Option<(u64, bool)>,
}

impl Default for Turns {
    fn default() -> Turns {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        // What a simulation does is the same on every machine.
        let threads = if cfg!(feature = "simulated") { 1 } else { threads };
        Turns::new(A_TURN.max(A_TURN_OF_A_THREAD * threads))
    }
}

impl Turns {
    fn new(a_turn: usize) -> Turns {
        let line = Line { a_turn, free: a_turn, waiting: BTreeMap::new(), next: 0, first: None };
        Turns(Arc::new(Mutex::new(line)))
    }

    pub fn of(&self, known: Known) -> Turn {
        Turn { known, turns: self.0.clone(), place: None }
    }
}

impl Line {
    /// Somebody else is first now: it is woken, and goes around.
    fn call_first(&mut self) {
        self.first = self.waiting.first_key_value().map(|(place, waker)| {
            waker.wake_by_ref();
            (*place, false)
        });
    }

    /// All else has had its turn: the first is let in, and those behind it.
    fn let_in(&mut self, first: u64) {
        self.waiting.remove(&first);
        self.free = self.a_turn - 1;
        while self.free > 0
            && let Some((_, waker)) = self.waiting.pop_first()
        {
            self.free -= 1;
            waker.wake();
        }
        self.call_first();
    }
}

/// So many connections are taken for each time that all else which is ready has its turn.
#[derive(Debug, Default)]
pub struct Pace(usize);

impl Pace {
    /// Before each.
    pub async fn keep(&mut self) {
        self.0 += 1;
        if self.0.is_multiple_of(A_TURN) {
            after_others().await;
        }
    }
}

/// Whether a peer has shown yet who it is.
#[derive(Debug, Clone, Default)]
pub struct Known(Arc<AtomicBool>);

impl Known {
    pub fn is_known(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A stranger's part in the turns.
#[derive(Debug)]
pub struct Turn {
    known: Known,
    turns: Arc<Mutex<Line>>,
    /// Where it stands in the line.
    place: Option<u64>,
}

impl Turn {
    /// What is done for the stranger has its turns until it is known.
    pub fn take<F: Future>(self, work: F) -> InTurn<F> {
        InTurn { turn: Some(self), work }
    }

    /// Ready: it is the stranger's turn, once.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut line = self.turns.lock();
        let Some(place) = self.place else {
            if line.free > 0 && line.waiting.is_empty() {
                line.free -= 1;
                return Poll::Ready(());
            }
            let place = line.next;
            line.next += 1;
            line.waiting.insert(place, cx.waker().clone());
            self.place = Some(place);
            if line.first.is_none() {
                line.first = Some((place, true));
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        };
        match line.first {
            // It was let in.
            _ if !line.waiting.contains_key(&place) => {}
            Some((first, true)) if first == place => line.let_in(place),
            first => {
                line.waiting.insert(place, cx.waker().clone());
                if first == Some((place, false)) {
                    line.first = Some((place, true));
                    cx.waker().wake_by_ref();
                }
                return Poll::Pending;
            }
        }
        self.place = None;
        Poll::Ready(())
    }
}

/// Whoever goes leaves the line, and if it was the first another is.
impl Drop for Turn {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut line = self.turns.lock();
        line.waiting.remove(&place);
        if line.first.is_some_and(|(first, _)| first == place) {
            line.call_first();
        }
    }
}

pin_project! {
    /// What is done for one peer, each time in its turn until the peer is known.
    pub struct InTurn<F> {
        turn: Option<Turn>,
        #[pin]
        work: F,
    }
}

impl<F: Future> Future for InTurn<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Some(turn) = this.turn {
            if turn.known.is_known() {
                *this.turn = None;
            } else {
                ready!(turn.poll(cx));
            }
        }
        this.work.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinHandle;

    /// Who was worked for, in that order.
    type Order = Arc<Mutex<Vec<&'static str>>>;

    fn comes(turns: &Turns, known: &Known, order: &Order, who: &'static str) -> JoinHandle<()> {
        let order = order.clone();
        tokio::spawn(turns.of(known.clone()).take(async move { order.lock().push(who) }))
    }

    #[tokio::test]
    async fn of_many_strangers_a_few_go_before_who_is_known_and_the_others_after_that() {
        let (turns, order) = (Turns::new(A_TURN), Order::default());
        let strangers: Vec<_> =
            (0..10 * A_TURN).map(|_| comes(&turns, &Known::default(), &order, "stranger")).collect();
        let known = Known::default();
        known.set();
        comes(&turns, &known, &order, "known").await.expect("it ends");
        assert_eq!(order.lock().iter().position(|who| *who == "known"), Some(A_TURN));
        for stranger in strangers {
            stranger.await.expect("it ends");
        }
        assert_eq!(order.lock().len(), 10 * A_TURN + 1);
        assert!(turns.0.lock().waiting.is_empty());
    }

    #[test]
    fn a_stranger_who_goes_while_it_waits_holds_up_nobody() {
        let turns = Turns::new(A_TURN);
        let mut cx = Context::from_waker(Waker::noop());
        let stranger = || Some(Box::pin(turns.of(Known::default()).take(async {})));
        let mut all: Vec<_> = (0..3 * A_TURN).map(|_| stranger()).collect();
        let mut look = |all: &mut Vec<Option<Pin<Box<_>>>>| {
            for it in all.iter_mut() {
                if it.as_mut().is_some_and(|work: &mut Pin<Box<InTurn<_>>>| work.as_mut().poll(&mut cx).is_ready()) {
                    *it = None;
                }
            }
            all.iter().flatten().count()
        };
        assert_eq!(look(&mut all), 2 * A_TURN);
        // The first of the line, and one behind it.
        all[A_TURN] = None;
        all[A_TURN + 5] = None;
        // Once to hear that it is the first, once around.
        let left: Vec<usize> = (0..3).map(|_| look(&mut all)).collect();
        assert!(left.last() < Some(&A_TURN), "{left:?}");
        while look(&mut all) > 0 {}
        assert!(turns.0.lock().waiting.is_empty());
    }

    #[tokio::test]
    async fn whoever_takes_connections_lets_others_have_their_turn() {
        let order = Order::default();
        let accepting = {
            let order = order.clone();
            tokio::spawn(async move {
                let mut pace = Pace::default();
                for _ in 0..3 * A_TURN {
                    pace.keep().await;
                    order.lock().push("accepted");
                }
            })
        };
        let known = Known::default();
        known.set();
        comes(&Turns::new(A_TURN), &known, &order, "known").await.expect("it ends");
        assert_eq!(order.lock().iter().position(|who| *who == "known"), Some(A_TURN - 1));
        accepting.await.expect("it ends");
    }

    #[tokio::test]
    async fn strangers_who_come_again_and_again_wait_each_time_behind_those_who_were_there() {
        let (turns, order) = (Turns::new(A_TURN), Order::default());
        let busy = |who: &'static str| {
            let order = order.clone();
            let work = async move {
                for _ in 0..3 {
                    order.lock().push(who);
                    tokio::task::yield_now().await;
                }
            };
            tokio::spawn(turns.of(Known::default()).take(work))
        };
        let early: Vec<_> = (0..2 * A_TURN).map(|_| busy("early")).collect();
        let late = busy("late");
        for task in early.into_iter().chain([late]) {
            task.await.expect("it ends");
        }
        let order = order.lock();
        let first = order.iter().position(|who| *who == "late").expect("it had a turn");
        assert!(first <= 4 * A_TURN, "{first}");
    }
}
