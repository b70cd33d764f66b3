//! Pages of an archive. XEP-0313, XEP-0059.

use super::{Subject, append, done, jid, juliet, page, positions, record, romeo, wait, with_juliet};
use crate::*;

/// Numbers that look random and are the same each time.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

/// Positions of all pages, oldest first.
fn walk<S: Subject>(subject: &S, query: &PageQuery, most: usize) -> Vec<i64> {
    let mut found = Vec::new();
    let mut query = query.clone();
    // One page more than there can be.
    for _ in 0..=most + 1 {
        let page = wait(subject.store().inbox_page(&juliet(), &query)).expect("a page");
        assert!(page.records.len() <= query.limit);
        let positions: Vec<i64> = page.records.iter().map(|record| record.position).collect();
        if query.backwards {
            query.before = positions.first().copied().or(query.before);
            found.splice(0..0, positions);
        } else {
            query.after = positions.last().copied().or(query.after);
            found.extend(positions);
        }
        if page.complete {
            return found;
        }
    }
    panic!("it never ends: {query:?}");
}

/// Juliet with records 1 to 9, alternating between Romeo's garden (odd) and his orchard (even).
fn with_archive<S: Subject>() -> S {
    let subject = with_juliet::<S>();
    let peer = |position| {
        jid(if position % 2 == 0 { "romeo@montague.example/orchard" } else { "romeo@montague.example/garden" })
    };
    done(
        &subject,
        (1..=9).map(|position| append(Record { peer: peer(position), pending: false, ..record(position) })).collect(),
    );
    subject
}

// XEP-0313 §4.3: whoever walks an archive page by page, from either end, finds each message once and in order.
pub fn pages_partition_an_archive_whatever_is_asked_for<S: Subject>() {
    const PEERS: [&str; 4] =
        ["romeo@montague.example/a", "romeo@montague.example/b", "nurse@capulet.example", "paris@x.example"];
    for seed in 1..4 {
        let mut random = numbers(seed);
        let subject = with_juliet::<S>();
        let mut position = 0;
        let records: Vec<Record> = (0..120)
            .map(|_| {
                position += 1 + random(3) as i64;
                let peer = jid(PEERS[random(4) as usize]);
                Record { pending: random(4) == 0, archived: random(5) > 0, peer, ..record(position) }
            })
            .collect();
        done(&subject, records.iter().cloned().map(append).collect());
        for _ in 0..40 {
            let with = (random(2) == 0).then(|| PEERS[random(4) as usize]);
            let with = with.map(|peer| if random(2) == 0 { jid(peer) } else { jid(peer).to_bare().into() });
            let mut bound = || (random(3) == 0).then(|| Stamp(random(position as u64 + 10) as i64));
            let filter = PageQuery { with, start: bound(), end: bound(), ..PageQuery::default() };
            let limit = [1, 2, 7, 50][random(4) as usize];
            let expected: Vec<i64> =
                records.iter().filter(|r| r.archived && filter.matches(r)).map(|r| r.position).collect();
            for backwards in [false, true] {
                let walked = walk(&subject, &PageQuery { limit, backwards, ..filter.clone() }, expected.len());
                assert_eq!(walked, expected, "{filter:?}, {limit} at a time, backwards: {backwards}");
            }
        }
    }
}

pub fn a_page_is_the_first_or_last_of_what_its_bounds_let_pass<S: Subject>() {
    let subject = with_archive::<S>();
    let page = |after, before, backwards| {
        positions(page(&subject, PageQuery { after, before, backwards, limit: 3, ..PageQuery::default() }).records)
    };
    assert_eq!(page(None, None, false), [1, 2, 3]);
    assert_eq!(page(Some(3), None, false), [4, 5, 6]);
    assert_eq!(page(None, None, true), [7, 8, 9]);
    assert_eq!(page(None, Some(7), true), [4, 5, 6]);
    assert_eq!(page(Some(2), Some(5), false), [3, 4]);
    assert_eq!(page(Some(9), None, false), []);
}

pub fn a_page_says_when_nothing_more_comes<S: Subject>() {
    let subject = with_archive::<S>();
    let complete = |after, before, backwards, limit| {
        page(&subject, PageQuery { after, before, backwards, limit, ..PageQuery::default() }).complete
    };
    assert!(!complete(None, None, false, 8));
    assert!(complete(None, None, false, 9));
    assert!(!complete(None, None, true, 8));
    assert!(complete(None, Some(3), true, 2));
    assert!(complete(Some(9), None, false, 1));
}

pub fn a_page_is_bound_by_times_inclusively<S: Subject>() {
    let subject = with_archive::<S>();
    let query = PageQuery { start: Some(Stamp(3)), end: Some(Stamp(5)), limit: 10, ..PageQuery::default() };
    assert_eq!(positions(page(&subject, query).records), [3, 4, 5]);
}

pub fn a_page_with_a_bare_jid_has_all_its_resources_and_a_full_one_has_one<S: Subject>() {
    let subject = with_archive::<S>();
    done(
        &subject,
        vec![
            append(Record { peer: jid("romeo@montague.example"), ..record(10) }),
            append(Record { peer: jid("nurse@capulet.example"), ..record(11) }),
        ],
    );
    let with = |text| {
        let query =
            PageQuery { with: Some(jid(text)), after: Some(6), limit: 10, want_count: true, ..PageQuery::default() };
        let page = page(&subject, query);
        (positions(page.records), page.count)
    };
    assert_eq!(with("romeo@montague.example"), (vec![7, 8, 9, 10], Some(10)));
    assert_eq!(with("romeo@montague.example/garden"), (vec![7, 9], Some(5)));
    assert_eq!(with("nurse@capulet.example"), (vec![11], Some(1)));
    assert_eq!(with("tybalt@capulet.example"), (vec![], Some(0)));
}

pub fn a_page_ends_with_the_record_by_which_it_has_enough_bytes<S: Subject>() {
    let subject = with_archive::<S>();
    let one = record(1).stanza.len();
    let told = |bytes_max, backwards, with: Option<&str>| {
        let with = with.map(jid);
        let query = PageQuery { bytes_max: Some(bytes_max), backwards, with, limit: 9, ..PageQuery::default() };
        let page = page(&subject, query);
        (positions(page.records), page.complete)
    };
    assert_eq!(told(2 * one, false, None), (vec![1, 2, 3], false));
    assert_eq!(told(2 * one, true, None), (vec![7, 8, 9], false));
    assert_eq!(told(0, true, None), (vec![9], false), "one there is always");
    assert_eq!(told(one, false, Some("romeo@montague.example/orchard")), (vec![2, 4], false));
    assert!(told(9 * one, false, None).1);
    assert_eq!(told(9 * one, false, None).0.len(), 9);
}

pub fn a_page_of_ids_has_these_alone<S: Subject>() {
    let subject = with_archive::<S>();
    let query = PageQuery { ids: vec![8, 2, 77, 5, 2], limit: 2, want_count: true, ..PageQuery::default() };
    let first = page(&subject, query.clone());
    assert_eq!((first.complete, first.count, first.first_index), (false, Some(3), Some(0)));
    assert_eq!(positions(first.records), [2, 5]);
    let rest = page(&subject, PageQuery { after: Some(5), ..query });
    assert_eq!((rest.complete, rest.first_index, positions(rest.records)), (true, Some(2), vec![8]));
}

pub fn a_page_tells_how_many_match_and_where_it_starts<S: Subject>() {
    let subject = with_archive::<S>();
    let query = PageQuery { start: Some(Stamp(2)), after: Some(5), limit: 2, want_count: true, ..PageQuery::default() };
    let with_count = page(&subject, query.clone());
    assert_eq!((with_count.count, with_count.first_index), (Some(8), Some(4)));
    let last = page(&subject, PageQuery { after: None, backwards: true, ..query.clone() });
    assert_eq!((positions(last.records), last.first_index), (vec![8, 9], Some(6)));
    let without = page(&subject, PageQuery { want_count: false, ..query });
    assert_eq!((without.count, without.first_index), (None, None));
}

pub fn a_page_of_none_is_a_count<S: Subject>() {
    let subject = with_archive::<S>();
    let none = page(&subject, PageQuery { limit: 0, want_count: true, ..PageQuery::default() });
    assert_eq!(none, Page { records: vec![], complete: false, count: Some(9), first_index: None });
    let stranger = wait(subject.store().inbox_page(&romeo(), &PageQuery { limit: 5, ..PageQuery::default() }));
    assert_eq!(stranger, Ok(Page { complete: true, ..Page::default() }));
}

pub fn what_is_only_queued_is_in_no_page<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![append(Record { archived: false, ..record(1) }), append(record(2))]);
    let query = PageQuery { limit: 10, want_count: true, ..PageQuery::default() };
    let all = page(&subject, query.clone());
    assert_eq!((all.count, positions(all.records)), (Some(1), vec![2]));
    assert_eq!(page(&subject, PageQuery { ids: vec![1, 2], ..query }).count, Some(1));
}
