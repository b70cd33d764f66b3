//! One entity: a mailbox, a state, at most one runner at a time.
//!
//! There is no task per entity. Whoever posts an item into an idle mailbox becomes its runner and drains it on the
//! spot; who posts while somebody runs just leaves the item. So a step costs no wake-up, steps of one entity never
//! overlap, and items between two entities keep their order, because they are posted while the sender's step still
//! holds the sender's state. A runner never holds two states.

use parking_lot::Mutex;
use std::collections::VecDeque;

/// Items one mailbox holds before it refuses; LIMITS: a named bound for every queue.
pub const MAILBOX_ITEMS_MAX: usize = 20_000;
/// Items that are taken out of one mailbox before another entity has its turn.
pub const ITEMS_A_TURN: usize = 128;

#[derive(Debug)]
struct Mailbox<I> {
    items: VecDeque<I>,
    running: bool,
    gone: bool,
}

/// What became of an item that was posted.
#[derive(Debug)]
pub enum Posted<I> {
    /// The poster is the runner now: call [`Cell::run`].
    Run,
    /// Somebody runs the cell, or it is being loaded.
    Queued,
    /// The mailbox is full.
    Full(I),
    /// The entity was dropped from memory meanwhile: look it up again.
    Gone(I),
}

/// How a turn of a cell's runner ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ran {
    /// The mailbox is empty; nobody runs the cell any more.
    Idle,
    /// There is more in the mailbox: the caller is still the runner and must call [`Cell::run`] again.
    More,
    /// The cell closed for good: the caller takes it out of the registry.
    Gone,
}

#[derive(Debug)]
pub struct Cell<S, I> {
    mailbox: Mutex<Mailbox<I>>,
    /// `None` while it is being loaded. Locked by the runner only.
    state: Mutex<Option<S>>,
}

impl<S, I> Cell<S, I> {
    /// A cell whose state is being loaded: items queue until [`Cell::loaded`]. The caller is its runner.
    pub fn loading(first: Option<I>) -> Cell<S, I> {
        Cell {
            mailbox: Mutex::new(Mailbox { items: first.into_iter().collect(), running: true, gone: false }),
            state: Mutex::new(None),
        }
    }

    /// Leaves an item in the mailbox.
    pub fn post(&self, item: I) -> Posted<I> {
        let mut mailbox = self.mailbox.lock();
        if mailbox.gone {
            return Posted::Gone(item);
        }
        if mailbox.items.len() >= MAILBOX_ITEMS_MAX {
            return Posted::Full(item);
        }
        mailbox.items.push_back(item);
        if mailbox.running {
            Posted::Queued
        } else {
            mailbox.running = true;
            Posted::Run
        }
    }

    /// The state is there; the loader goes on as the runner: call [`Cell::run`].
    pub fn loaded(&self, state: S) {
        *self.state.lock() = Some(state);
    }

    /// Nothing could be loaded, or nothing can be done with what was: gives back what waits and closes the cell for good.
    /// The caller is the runner.
    pub fn close(&self) -> VecDeque<I> {
        let mut mailbox = self.mailbox.lock();
        mailbox.gone = true;
        std::mem::take(&mut mailbox.items)
    }

    /// Works through the mailbox, one item after the other, [`ITEMS_A_TURN`] at most; the caller must be the runner. When
    /// it is empty and `may_go` says so, the cell closes for good. What a step gives back is left of its work: it comes
    /// before all else, when others had their turn.
    pub fn run(&self, mut step: impl FnMut(&mut S, I) -> Option<I>, may_go: impl Fn(&S) -> bool) -> Ran {
        let mut guard = self.state.lock();
        let Some(state) = guard.as_mut() else { return Ran::Idle };
        for _ in 0..ITEMS_A_TURN {
            let item = {
                let mut mailbox = self.mailbox.lock();
                match mailbox.items.pop_front() {
                    Some(item) => item,
                    None => {
                        // Nothing may come in between this look and `running = false`: the lock is held.
                        if may_go(state) {
                            mailbox.gone = true;
                            drop(mailbox);
                            *guard = None;
                            return Ran::Gone;
                        }
                        if mailbox.items.capacity() > 64 {
                            mailbox.items = VecDeque::new();
                        }
                        mailbox.running = false;
                        return Ran::Idle;
                    }
                }
            };
            if let Some(rest) = step(state, item) {
                self.mailbox.lock().items.push_front(rest);
                break;
            }
        }
        Ran::More
    }

    /// Looks at the state from outside (operators' lists). Waits for the runner.
    pub fn peek<T>(&self, look: impl FnOnce(&S) -> T) -> Option<T> {
        self.state.lock().as_ref().map(look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn pushed(list: &mut Vec<u32>, item: u32) -> Option<u32> {
        list.push(item);
        None
    }

    fn counted(count: &mut usize, (): ()) -> Option<()> {
        *count += 1;
        None
    }

    #[test]
    fn what_is_left_of_a_step_comes_before_all_else_when_others_had_their_turn() {
        let cell: Cell<Vec<u32>, u32> = Cell::loading(None);
        cell.loaded(Vec::new());
        assert_eq!(cell.run(pushed, |_| false), Ran::Idle);
        assert!(matches!(cell.post(30), Posted::Run));
        assert!(matches!(cell.post(7), Posted::Queued));
        let halves = |list: &mut Vec<u32>, item: u32| {
            list.push(item);
            (item == 30).then_some(15)
        };
        assert_eq!(cell.run(halves, |_| true), Ran::More);
        assert_eq!(cell.peek(Clone::clone), Some(vec![30]));
        assert_eq!(cell.run(halves, |_| false), Ran::Idle);
        assert_eq!(cell.peek(Clone::clone), Some(vec![30, 15, 7]));
    }

    #[test]
    fn the_first_poster_runs_and_later_ones_leave_their_items() {
        let cell: Cell<Vec<u32>, u32> = Cell::loading(Some(1));
        assert!(matches!(cell.post(2), Posted::Queued));
        cell.loaded(Vec::new());
        assert_eq!(cell.run(pushed, |_| false), Ran::Idle);
        assert!(matches!(cell.post(3), Posted::Run));
        assert!(matches!(cell.post(4), Posted::Queued));
        assert_eq!(cell.run(pushed, |_| false), Ran::Idle);
        assert_eq!(cell.peek(Clone::clone), Some(vec![1, 2, 3, 4]));
    }

    #[test]
    fn a_cell_that_went_gives_the_item_back() {
        let cell: Cell<u32, u32> = Cell::loading(None);
        cell.loaded(0);
        assert_eq!(cell.run(|_, _| None, |_| true), Ran::Gone);
        assert!(matches!(cell.post(7), Posted::Gone(7)));
    }

    #[test]
    fn a_long_mailbox_leaves_others_their_turn() {
        let cell: Cell<usize, ()> = Cell::loading(None);
        cell.loaded(0);
        assert_eq!(cell.run(|_, ()| None, |_| false), Ran::Idle);
        assert!(matches!(cell.post(()), Posted::Run));
        for _ in 0..ITEMS_A_TURN {
            assert!(matches!(cell.post(()), Posted::Queued));
        }
        assert_eq!(cell.run(counted, |_| true), Ran::More);
        assert_eq!(cell.peek(|n| *n), Some(ITEMS_A_TURN));
        // Still its runner's: nobody else becomes that.
        assert!(matches!(cell.post(()), Posted::Queued));
        assert_eq!(cell.run(counted, |_| false), Ran::Idle);
        assert_eq!(cell.peek(|n| *n), Some(ITEMS_A_TURN + 2));
    }

    #[test]
    fn a_cell_that_is_closed_between_two_turns_gives_back_what_waits() {
        let cell: Cell<(), usize> = Cell::loading(None);
        cell.loaded(());
        assert_eq!(cell.run(|_, _| None, |_| false), Ran::Idle);
        let posted = (0..ITEMS_A_TURN + 2).filter(|n| matches!(cell.post(*n), Posted::Run)).count();
        assert_eq!(posted, 1, "the first of them");
        assert_eq!(cell.run(|_, _| None, |_| true), Ran::More);
        assert_eq!(cell.close(), [ITEMS_A_TURN, ITEMS_A_TURN + 1]);
        assert!(matches!(cell.post(7), Posted::Gone(7)));
    }

    #[test]
    fn a_full_mailbox_refuses() {
        let cell: Cell<(), usize> = Cell::loading(None);
        for i in 0..MAILBOX_ITEMS_MAX {
            assert!(matches!(cell.post(i), Posted::Queued));
        }
        assert!(matches!(cell.post(0), Posted::Full(0)));
    }

    #[test]
    fn steps_never_overlap_and_none_is_lost() {
        let cell: Arc<Cell<(u64, bool), u64>> = Arc::new(Cell::loading(None));
        cell.loaded((0, false));
        cell.run(|_, _| None, |_| false);
        let step = |s: &mut (u64, bool), i: u64| {
            assert!(!std::mem::replace(&mut s.1, true), "two steps at once");
            s.0 += i;
            s.1 = false;
            None
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        loop {
                            match cell.post(1) {
                                Posted::Run => {
                                    while cell.run(step, |_| false) == Ran::More {}
                                    break;
                                }
                                Posted::Queued => break,
                                Posted::Full(_) => std::thread::yield_now(),
                                Posted::Gone(_) => unreachable!("nobody lets it go"),
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(cell.peek(|s| s.0), Some(40_000));
    }
}
