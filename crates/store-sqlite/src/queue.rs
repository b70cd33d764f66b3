//! What waits for the writer, and whether it waits for more.

use crate::upkeep::Unreadable;
use std::collections::VecDeque;
use std::time::Duration;
use store::{Change, Committed, Fence};
use tokio::sync::oneshot;

/// Changes taken into one transaction (a single call may have more).
pub const BATCH_CHANGES_MAX: usize = 1_000;
/// When the last transaction had at least so many calls, the next waits for twice as many, but not for long. On one core the
/// writer would else have it as soon as the first comes, and make a transaction for each few of those who come together;
/// that took half as much CPU time again (docs/design/batching.md). Where little comes nothing waits.
const COMPANY_FROM: usize = 6;
const COMPANY_PATIENCE: Duration = Duration::from_micros(300);
/// What only keeps the books ([`Change::keeps_books`]) waits so long for whoever comes: when many log in, and little else is
/// written, a sync would else be had for each few of them. What is more than that is not waited with.
const BOOKS_PATIENCE: Duration = Duration::from_millis(2);
/// When nobody came so many times running, the books go at once so many times before that is tried again: one who logs in
/// alone would else wait for nothing.
const ALONE_FROM: u32 = 3;
const ALONE_SKIPS: u32 = 15;

#[derive(Default)]
pub struct Queue {
    pub calls: VecDeque<Call>,
    pub changes: usize,
    pub bytes: usize,
    /// Calls of [`Room::Again`].
    pub again: usize,
    pub unreadable: Vec<Unreadable>,
    /// The writer waits for so many calls, and is not woken before,
    enough: usize,
    /// … unless one comes that does more than keep the books. So many were here as that began.
    patient_from: Option<usize>,
    /// So many times running nobody came to the books,
    alone: u32,
    /// … which are not waited with so many times.
    skips: u32,
    /// Calls that do more than keep the books.
    pub urgent: usize,
    pub state: State,
    /// Who waits for the end.
    pub closers: Vec<oneshot::Sender<()>>,
}

#[derive(Default, PartialEq, Clone, Copy)]
pub enum State {
    #[default]
    Open,
    /// What is queued is still done.
    Closing,
    Closed,
}

pub struct Call {
    pub fence: Fence,
    pub changes: Vec<Change>,
    pub bytes: usize,
    /// It does more than keep the books.
    pub is_urgent: bool,
    pub room: Room,
    /// Taken when it is called.
    pub done: Option<Committed>,
}

/// What there was room for when it came.
#[derive(PartialEq, Clone, Copy)]
pub enum Room {
    All,
    /// An answer, if the log has it from before: that is not refused. Its stanzas are not kept.
    Again,
}

/// For what the writer has waited already before it begins.
#[derive(Default)]
pub struct Waited {
    for_books: bool,
    for_company: bool,
}

impl Queue {
    /// Is it time to wake the writer, who may wait for more?
    pub fn wants_writer(&self) -> bool {
        self.calls.len() >= self.enough || self.is_patient() && self.urgent > 0
    }

    /// How long the writer waits for more than what is here, if that is worth it; `last`: calls of the last transaction.
    pub fn wait_for_more(&mut self, last: usize, waited: &mut Waited) -> Option<Duration> {
        if self.state != State::Open || self.calls.is_empty() {
            return None;
        }
        if self.urgent == 0 {
            if std::mem::replace(&mut waited.for_books, true) {
                return None;
            }
            if let Some(less) = self.skips.checked_sub(1) {
                self.skips = less;
                return None;
            }
            (self.enough, self.patient_from) = (BATCH_CHANGES_MAX, Some(self.calls.len()));
            return Some(BOOKS_PATIENCE);
        }
        // Is it likely that there is soon twice as much?
        let is_likely = (COMPANY_FROM..=BATCH_CHANGES_MAX / 2).contains(&last) && self.calls.len() < 2 * last;
        if is_likely && !std::mem::replace(&mut waited.for_company, true) {
            self.enough = 2 * last;
            return Some(COMPANY_PATIENCE);
        }
        None
    }

    /// Does the writer wait with what only keeps the books?
    pub fn is_patient(&self) -> bool {
        self.patient_from.is_some()
    }

    /// The writer waits no more.
    pub fn wait_no_more(&mut self) {
        self.enough = 0;
        if let Some(before) = self.patient_from.take() {
            self.alone = if self.calls.len() > before { 0 } else { self.alone.saturating_add(1) };
            self.skips = if self.alone >= ALONE_FROM { ALONE_SKIPS } else { 0 };
        }
    }

    /// The calls of the next transaction.
    pub fn take(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        let mut changes = 0;
        while let Some(call) = self.calls.front() {
            if !calls.is_empty() && changes + call.changes.len() > BATCH_CHANGES_MAX {
                break;
            }
            changes += call.changes.len();
            self.bytes -= call.bytes;
            self.urgent -= usize::from(call.is_urgent);
            match call.room {
                Room::All => self.changes -= call.changes.len(),
                Room::Again => self.again -= 1,
            }
            calls.extend(self.calls.pop_front());
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xmpp::BareJid;

    fn queue(calls: &[bool]) -> Queue {
        let mut queue = Queue::default();
        calls.iter().for_each(|is_urgent| queue.put(*is_urgent));
        queue
    }

    impl Queue {
        fn put(&mut self, is_urgent: bool) {
            let account = BareJid::parse("juliet@capulet.example").expect("a bare JID in a test");
            let fence = store::Key::Bare(account).fence(1);
            self.urgent += usize::from(is_urgent);
            self.calls.push_back(Call { fence, changes: vec![], bytes: 0, is_urgent, room: Room::All, done: None });
        }
    }

    #[test]
    fn what_only_keeps_the_books_waits_a_moment_for_whoever_comes() {
        let mut queue = queue(&[false]);
        assert!(queue.wants_writer());
        let mut waited = Waited::default();
        assert_eq!(queue.wait_for_more(COMPANY_FROM, &mut waited), Some(BOOKS_PATIENCE));
        queue.put(false);
        assert!(!queue.wants_writer());
        queue.wait_no_more();
        assert_eq!(queue.wait_for_more(COMPANY_FROM, &mut waited), None, "it was waited for");
        assert_eq!(queue.take().len(), 2);
    }

    #[test]
    fn books_to_which_nobody_comes_are_not_waited_with_for_a_while() {
        let mut queue = queue(&[]);
        let mut waits = |comes: bool| {
            queue.put(false);
            let waits = queue.wait_for_more(0, &mut Waited::default()).is_some();
            if comes {
                queue.put(false);
            }
            queue.wait_no_more();
            queue.take();
            waits
        };
        for comes in [true, false, false, true, false, false, false] {
            assert!(waits(comes), "not three times running");
        }
        for _ in 0..2 {
            assert!((0..ALONE_SKIPS).all(|_| !waits(false)));
            assert!(waits(false), "it is tried again");
        }
        assert!((0..ALONE_SKIPS).all(|_| !waits(false)));
        assert!(waits(true) && waits(false), "somebody came");
    }

    #[test]
    fn what_does_more_wakes_the_writer_who_waits_with_the_books() {
        let mut queue = queue(&[false]);
        let mut waited = Waited::default();
        assert!(queue.wait_for_more(COMPANY_FROM, &mut waited).is_some() && queue.is_patient());
        queue.put(true);
        assert!(queue.wants_writer());
        queue.wait_no_more();
        assert_eq!(queue.wait_for_more(COMPANY_FROM, &mut waited), Some(COMPANY_PATIENCE), "it has company, too");
        queue.wait_no_more();
        assert_eq!(queue.wait_for_more(COMPANY_FROM, &mut waited), None);
        assert_eq!((queue.take().len(), queue.urgent), (2, 0));
    }

    #[test]
    fn behind_many_the_writer_waits_for_twice_as_many_and_behind_few_for_none() {
        for (last, expected) in [(COMPANY_FROM - 1, None), (COMPANY_FROM, Some(COMPANY_PATIENCE))] {
            let mut queue = queue(&[true]);
            assert_eq!(queue.wait_for_more(last, &mut Waited::default()), expected);
            assert!(!queue.is_patient());
            queue.put(true);
            assert_eq!(queue.wants_writer(), expected.is_none());
        }
    }

    #[test]
    fn a_store_that_closes_waits_for_nobody() {
        let mut queue = queue(&[false]);
        queue.state = State::Closing;
        assert_eq!(queue.wait_for_more(COMPANY_FROM, &mut Waited::default()), None);
    }
}
