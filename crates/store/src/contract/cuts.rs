//! What is cut off an archive, and what is spared.

use super::{Subject, append, done, inbox, jid, juliet, load, record, trim, with_juliet};
use crate::*;

pub fn pruning_spares_what_is_pending_and_what_is_later<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, (1..=6).map(|position| append(Record { pending: position == 2, ..record(position) })).collect());
    done(&subject, vec![Change::Prune { account: juliet(), up_to: 4 }]);
    assert_eq!(inbox(&subject), [2, 5, 6]);
    done(
        &subject,
        vec![Change::Taken { account: juliet(), positions: vec![2] }, Change::Prune { account: juliet(), up_to: 4 }],
    );
    assert_eq!(inbox(&subject), [5, 6]);
    assert_eq!(load(&subject).last_position, 6);
}

pub fn an_archive_is_cut_by_age_from_its_oldest_record_on<S: Subject>() {
    let subject = with_juliet::<S>();
    let kept = |position| Record { pending: position == 2, archived: position != 3, ..record(position) };
    done(&subject, (1..=6).map(|position| append(kept(position))).collect());
    done(&subject, vec![append(Record { pending: true, archived: false, ..record(7) })]);
    done(&subject, vec![trim(5, u64::MAX)]);
    // 3 was neither pending nor archived.
    assert_eq!(inbox(&subject), [2, 5, 6, 7]);
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![2] }, trim(6, u64::MAX)]);
    assert_eq!(inbox(&subject), [6, 7]);
    assert_eq!(load(&subject).last_position, 7);
}

pub fn an_archive_is_cut_by_number_from_its_oldest_record_on<S: Subject>() {
    let subject = with_juliet::<S>();
    let kept = |position| Record { pending: position == 1, archived: position != 4, ..record(position) };
    done(&subject, (1..=6).map(|position| append(kept(position))).collect());
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![4] }]);
    let trim = |max| Change::Trim { account: juliet(), before: 0, records_max: Some(max), bytes_max: u64::MAX };
    done(&subject, vec![trim(5)]);
    assert_eq!(inbox(&subject), [1, 2, 3, 5, 6]);
    done(&subject, vec![trim(2)]);
    assert_eq!(inbox(&subject), [1, 5, 6]);
    done(&subject, vec![trim(0)]);
    assert_eq!(inbox(&subject), [1]);
}

pub fn an_archive_is_cut_by_size_from_its_oldest_record_on<S: Subject>() {
    let subject = with_juliet::<S>();
    let sized =
        |position, bytes| append(Record { pending: position == 1, stanza: vec![b'x'; bytes], ..record(position) });
    done(&subject, (1..=5).map(|position| sized(position, 100)).collect());
    done(&subject, vec![trim(0, 500)]);
    assert_eq!(inbox(&subject), [1, 2, 3, 4, 5]);
    done(&subject, vec![trim(0, 350)]);
    assert_eq!(inbox(&subject), [1, 4, 5]);
    done(&subject, vec![sized(6, 300), trim(0, 450)]);
    assert_eq!(inbox(&subject), [1, 6]);
    let subject = subject.reopened();
    done(&subject, vec![sized(7, 100), trim(0, 400)]);
    assert_eq!(inbox(&subject), [1, 7]);
    done(&subject, vec![trim(0, 0)]);
    assert_eq!(inbox(&subject), [1]);
}

pub fn no_cut_removes_more_than_it_may<S: Subject>() {
    let subject = with_juliet::<S>();
    let many = TRIM_MAX as i64 + 10;
    done(&subject, (1..=many).map(|position| append(Record { pending: false, ..record(position) })).collect());
    done(&subject, vec![trim(i64::MAX, 0)]);
    // A store may go on with it between the commits that follow.
    for _ in 0..many {
        if inbox(&subject).len() <= 10 {
            break;
        }
        done(&subject, vec![Change::BlockDelete { account: juliet(), jid: jid("a.example") }]);
    }
    assert_eq!(inbox(&subject).len(), 10);
}
