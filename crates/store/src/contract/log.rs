//! The log of an account: what is appended once, waits, is taken.

use super::{
    Subject, append, commit, create, done, inbox, jid, juliet, load, page, positions, record, romeo, trim, wait,
    with_juliet,
};
use crate::*;

pub fn a_record_is_read_as_it_was_written<S: Subject>() {
    let subject = with_juliet::<S>();
    let first = Record { dedupe: Some([9; 16]), expires: Some(Stamp(77)), ..record(10) };
    let second = Record {
        direction: Direction::Outgoing,
        peer: jid("montague.example"),
        stanza: vec![0, 255, b'<'],
        pending: false,
        ..record(1_700_000_000_000_000)
    };
    let third = Record { archived: false, stanza: vec![], ..record(i64::MAX) };
    done(&subject, [&first, &second, &third].map(|record| append(record.clone())).to_vec());
    let records = wait(subject.store().inbox_after(&juliet(), 0, false, 10)).expect("the store reads");
    assert_eq!(records, [first.clone(), second.clone(), third]);
    assert_eq!(page(&subject, PageQuery { limit: 10, ..PageQuery::default() }).records, [first, second]);
}

pub fn the_inbox_is_read_oldest_first_after_a_position<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, (1..=6).map(|position| append(record(position))).collect());
    let after = |after, limit| {
        positions(wait(subject.store().inbox_after(&juliet(), after, false, limit)).expect("the store reads"))
    };
    assert_eq!(after(2, 3), [3, 4, 5]);
    assert_eq!(after(5, 3), [6]);
    assert_eq!(after(6, 3), []);
    assert_eq!(after(-5, 0), []);
    assert_eq!(load(&subject).last_position, 6);
}

pub fn pending_records_are_counted_and_read_alone<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, (1..=6).map(|position| append(Record { pending: position % 2 == 0, ..record(position) })).collect());
    let loaded = load(&subject);
    assert_eq!((loaded.last_position, loaded.pending), (6, vec![2, 4, 6]));
    assert_eq!(loaded.pending_bytes, 3 * record(2).stanza.len() as u64);
    let pending = wait(subject.store().inbox_after(&juliet(), 2, true, 10)).expect("the store reads");
    assert_eq!(positions(pending), [4, 6]);
    let pending = wait(subject.store().inbox_after(&juliet(), 0, true, 2)).expect("the store reads");
    assert_eq!(positions(pending), [2, 4]);
}

/// Sparing what is in the archive only, and what may wait on.
pub fn what_waits_too_long_is_found_page_by_page_over_all_accounts<S: Subject>() {
    let subject = with_juliet::<S>();
    let romeo = romeo();
    done(&subject, vec![create(romeo.as_str())]);
    let waits = |position, expires: Option<i64>| Record { expires: expires.map(Stamp), ..record(position) };
    let archived = Record { pending: false, ..waits(4, Some(10)) };
    let records = [waits(2, None), waits(3, Some(10)), archived, waits(5, Some(11)), waits(6, None)];
    done(&subject, records.into_iter().map(append).collect());
    done(&subject, vec![Change::Append { account: romeo.clone(), record: waits(1, None) }]);
    done(&subject, vec![Change::Append { account: romeo.clone(), record: waits(7, Some(9)) }]);
    for limit in [1, 2, 3, 100] {
        let (mut found, mut behind, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = subject.store().overdue(behind, limit, Stamp(10), Stamp(3));
            let page = wait(page).expect("the store reads");
            found.extend(page.records.into_iter().map(|(account, record)| (account, record.position)));
            pages += 1;
            match page.next {
                Some(next) => behind = Some(next),
                None => break,
            }
        }
        found.sort_by_key(|(_, position)| *position);
        let expected = [(romeo.clone(), 1), (juliet(), 2), (juliet(), 3), (romeo.clone(), 7)];
        assert_eq!(found, expected, "{limit} at a time");
        assert_eq!(pages, 6 / limit + 1);
    }
}

pub fn a_taken_record_stays_in_the_archive<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, (1..=3).map(|position| append(record(position))).collect());
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![1, 3, 99] }]);
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![1] }]);
    let loaded = load(&subject);
    assert_eq!((loaded.pending, loaded.pending_bytes), (vec![2], record(2).stanza.len() as u64));
    let records = wait(subject.store().inbox_after(&juliet(), 0, false, 10)).expect("the store reads");
    assert_eq!(records, [Record { pending: false, ..record(1) }, record(2), Record { pending: false, ..record(3) }]);
}

pub fn a_taken_record_that_is_not_archived_is_gone<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, (1..=3).map(|position| append(Record { archived: false, ..record(position) })).collect());
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![1, 2] }]);
    assert_eq!(inbox(&subject), [3]);
    assert_eq!(load(&subject).pending, [3]);
}

pub fn a_resent_record_is_told_where_it_is<S: Subject>() {
    let subject = with_juliet::<S>();
    let keyed = |position, key| append(Record { dedupe: Some([key; 16]), ..record(position) });
    let outcomes = commit(subject.store(), vec![keyed(1, 1), keyed(2, 2), keyed(3, 1)]);
    assert_eq!(outcomes, Ok(vec![Outcome::Done, Outcome::Done, Outcome::Duplicate(1)]));
    assert_eq!(commit(subject.store(), vec![keyed(4, 2), keyed(3, 3)]), Ok(vec![Outcome::Duplicate(2), Outcome::Done]));
    assert_eq!(inbox(&subject), [1, 2, 3]);
}

pub fn a_dedupe_key_is_of_one_account_and_outlives_its_record<S: Subject>() {
    let subject = with_juliet::<S>();
    let keyed = |position| Record { dedupe: Some([1; 16]), archived: false, ..record(position) };
    done(
        &subject,
        vec![create("romeo@montague.example"), Change::Append { account: romeo(), record: keyed(1) }, append(keyed(2))],
    );
    done(&subject, vec![Change::Taken { account: juliet(), positions: vec![2] }]);
    assert_eq!(commit(subject.store(), vec![append(keyed(3))]), Ok(vec![Outcome::Duplicate(2)]));
    assert_eq!(inbox(&subject), []);
}

pub fn a_record_neither_pending_nor_archived_leaves_its_key_alone<S: Subject>() {
    let subject = with_juliet::<S>();
    let fleeting =
        |position| append(Record { dedupe: Some([1; 16]), pending: false, archived: false, ..record(position) });
    assert_eq!(commit(subject.store(), vec![fleeting(5), fleeting(6)]), Ok(vec![Outcome::Done, Outcome::Duplicate(5)]));
    assert_eq!((inbox(&subject), load(&subject).last_position), (vec![], 0));
}

pub fn a_position_that_does_not_grow_is_refused_with_its_whole_call<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![append(record(5))]);
    for position in [5, 4] {
        let changes = vec![
            append(record(6)),
            Change::BlockPut { account: juliet(), jid: jid("tybalt@capulet.example") },
            append(record(position)),
        ];
        let outcome = commit(subject.store(), changes);
        assert!(matches!(outcome, Err(StoreError::Damaged(_))), "{outcome:?}");
    }
    assert_eq!((inbox(&subject), load(&subject).blocks), (vec![5], vec![]));
    done(&subject, vec![append(record(6))]);
    assert_eq!(inbox(&subject), [5, 6]);
}

pub fn a_record_that_is_rewritten_keeps_its_place_and_weighs_what_it_weighs<S: Subject>() {
    let subject = with_juliet::<S>();
    let sized = |position| append(Record { pending: false, stanza: vec![b'x'; 100], ..record(position) });
    done(&subject, (1..=4).map(sized).collect());
    // Weighed once.
    done(&subject, vec![trim(0, 400)]);
    let rewrite = |position| Change::Rewrite { account: juliet(), position, stanza: b"short".to_vec() };
    done(&subject, vec![rewrite(3), rewrite(99)]);
    let page = wait(subject.store().inbox_page(&juliet(), &PageQuery { limit: 10, ..PageQuery::default() }));
    let page = page.expect("a page");
    assert_eq!(page.records.iter().map(|record| record.position).collect::<Vec<_>>(), [1, 2, 3, 4]);
    assert_eq!(page.records[2].stanza, b"short");
    done(&subject, vec![trim(0, 305)]);
    assert_eq!(inbox(&subject), [1, 2, 3, 4]);
    done(&subject, vec![trim(0, 304)]);
    assert_eq!(inbox(&subject), [2, 3, 4]);
}
