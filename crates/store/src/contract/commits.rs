//! Commits: by whom, in which order, and what survives.

use super::{Subject, append, commit, commit_as, done, fence, inbox, juliet, load, record, wait, with_juliet};
use crate::*;
use std::sync::mpsc;
use std::time::Duration;

/// The year 2100: a key of this position is not too old to be kept, whatever the clock says.
const LATE: i64 = 4_102_444_800_000_000;

pub fn a_commit_of_an_older_epoch_is_fenced<S: Subject>() {
    let subject = with_juliet::<S>();
    let older = Fence { epoch: subject.store().epoch() - 1, ..fence(subject.store()) };
    assert_eq!(commit_as(subject.store(), older, vec![append(record(1))]), Err(StoreError::Fenced));
    assert_eq!(inbox(&subject), []);
    done(&subject, vec![append(record(1))]);
}

pub fn commits_are_done_in_the_order_of_calls<S: Subject>() {
    let subject = with_juliet::<S>();
    let (say, hear) = mpsc::channel();
    for position in 1..=500 {
        let say = say.clone();
        let done = Box::new(move |outcome| say.send((position, outcome)).expect("the test waits for it"));
        subject.store().commit(fence(subject.store()), vec![append(record(position))], done);
    }
    for position in 1..=500 {
        assert_eq!(hear.recv_timeout(Duration::from_secs(30)), Ok((position, Ok(vec![Outcome::Done]))));
    }
    assert_eq!(inbox(&subject), (1..=500).collect::<Vec<i64>>());
}

pub fn a_read_sees_every_commit_that_was_done<S: Subject>() {
    let subject = with_juliet::<S>();
    for position in 1..=50 {
        done(&subject, vec![append(record(position))]);
        assert_eq!(load(&subject).last_position, position);
    }
}

pub fn what_was_done_survives_a_restart<S: Subject>() {
    let subject = with_juliet::<S>();
    let epoch = subject.store().epoch();
    let keyed = |position, key| append(Record { dedupe: Some([key; 16]), ..record(position) });
    let fleeting =
        |position, key| append(Record { dedupe: Some([key; 16]), pending: false, archived: false, ..record(position) });
    done(&subject, vec![keyed(LATE, 1), fleeting(LATE + 1, 2), append(record(LATE + 2))]);
    let before = load(&subject);
    let subject = subject.reopened();
    assert_eq!(subject.store().epoch(), epoch + 1);
    assert_eq!(load(&subject), before);
    assert_eq!(inbox(&subject), [LATE, LATE + 2]);
    let resent = vec![keyed(LATE + 3, 1), keyed(LATE + 3, 2), keyed(LATE + 3, 3)];
    let outcomes = [Outcome::Duplicate(LATE), Outcome::Duplicate(LATE + 1), Outcome::Done];
    assert_eq!(commit(subject.store(), resent), Ok(outcomes.to_vec()));
}

pub fn the_dedupe_key_of_a_pruned_record_survives_a_restart<S: Subject>() {
    let subject = with_juliet::<S>();
    let keyed = |position| append(Record { dedupe: Some([1; 16]), pending: false, ..record(position) });
    done(&subject, vec![keyed(LATE), Change::Prune { account: juliet(), up_to: LATE }]);
    let subject = subject.reopened();
    assert_eq!(inbox(&subject), []);
    assert_eq!(commit(subject.store(), vec![keyed(LATE + 1)]), Ok(vec![Outcome::Duplicate(LATE)]));
}

pub fn after_closing_all_is_done_and_nothing_more_is_written<S: Subject>() {
    let subject = with_juliet::<S>();
    let (say, hear) = mpsc::channel();
    for position in 1..=100 {
        let say = say.clone();
        let done = Box::new(move |outcome| say.send(outcome).expect("the test waits for it"));
        subject.store().commit(fence(subject.store()), vec![append(record(position))], done);
    }
    assert_eq!(wait(subject.store().close()), Ok(()));
    assert_eq!(hear.try_iter().filter(|outcome| *outcome == Ok(vec![Outcome::Done])).count(), 100);
    let late = commit(subject.store(), vec![append(record(101))]);
    assert!(matches!(late, Err(StoreError::Fatal(_))), "{late:?}");
    let subject = subject.reopened();
    assert_eq!(load(&subject).last_position, 100);
}
