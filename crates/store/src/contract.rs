//! The sentences that every backend must keep.
//!
//! A backend implements [`Subject`] in its tests and says `store::contract_tests!(ItsSubject);`, which expands to one
//! `#[test]` a sentence.

use crate::*;
use std::future::Future;
use std::sync::mpsc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;
use xmpp::Jid;

/// One store on one disk.
pub trait Subject: Sized {
    type Store: Store;
    /// Opens an empty one for serving.
    fn fresh() -> Self;
    fn store(&self) -> &Self::Store;
    /// Ends the process that holds it, and opens what it left for serving.
    fn reopened(self) -> Self;
}

/// Expands to one test a sentence of the contract, for a type that implements [`Subject`].
#[macro_export]
macro_rules! contract_tests {
    ($subject:ty) => {
        $crate::contract_tests!(@each $subject:
            an_account_that_was_created_is_found,
            an_account_is_created_once,
            an_unknown_account_is_answered_and_the_rest_of_the_call_is_done,
            a_removed_account_leaves_nothing_to_the_next_of_its_name,
            credentials_are_replaced_as_a_whole,
            keys_are_added_beside_those_of_the_same_password_alone,
            a_disabled_account_is_known_as_such,
            a_roster_item_is_put_and_replaced_and_deleted_under_a_version,
            of_a_contacts_requests_the_latest_is_kept,
            blocks_are_kept_once_each,
            the_last_activity_is_kept,
            a_record_is_read_as_it_was_written,
            the_inbox_is_read_oldest_first_after_a_position,
            pending_records_are_counted_and_read_alone,
            what_waits_too_long_is_found_page_by_page_over_all_accounts,
            a_taken_record_stays_in_the_archive,
            a_taken_record_that_is_not_archived_is_gone,
            a_resent_record_is_told_where_it_is,
            a_dedupe_key_is_of_one_account_and_outlives_its_record,
            a_record_neither_pending_nor_archived_leaves_its_key_alone,
            a_position_that_does_not_grow_is_refused_with_its_whole_call,
            pruning_spares_what_is_pending_and_what_is_later,
            an_archive_is_cut_by_age_from_its_oldest_record_on,
            an_archive_is_cut_by_size_from_its_oldest_record_on,
            an_archive_is_cut_by_number_from_its_oldest_record_on,
            pages_partition_an_archive_whatever_is_asked_for,
            a_record_that_is_rewritten_keeps_its_place_and_weighs_what_it_weighs,
            no_cut_removes_more_than_it_may,
            a_page_is_the_first_or_last_of_what_its_bounds_let_pass,
            a_page_says_when_nothing_more_comes,
            a_page_is_bound_by_times_inclusively,
            a_page_with_a_bare_jid_has_all_its_resources_and_a_full_one_has_one,
            a_page_of_ids_has_these_alone,
            a_page_ends_with_the_record_by_which_it_has_enough_bytes,
            a_page_tells_how_many_match_and_where_it_starts,
            a_page_of_none_is_a_count,
            what_is_only_queued_is_in_no_page,
            a_session_of_this_epoch_is_in_no_ledger,
            a_session_of_an_earlier_epoch_is_in_the_ledger_until_deleted,
            tokens_are_kept_by_client_and_mechanism,
            an_account_has_so_many_tokens_and_those_that_expire_first_go,
            a_blob_is_kept_under_its_space_and_key,
            the_photo_hash_is_loaded_with_the_account,
            settings_are_loaded_with_the_account,
            what_waits_for_other_domains_is_read_in_order_until_deleted,
            a_domain_is_remembered_as_last_reached,
            accounts_are_listed_by_name_a_host_at_a_time,
            a_commit_of_an_older_epoch_is_fenced,
            commits_are_done_in_the_order_of_calls,
            a_read_sees_every_commit_that_was_done,
            what_was_done_survives_a_restart,
            the_dedupe_key_of_a_pruned_record_survives_a_restart,
            after_closing_all_is_done_and_nothing_more_is_written,
            figures_count,
        );
    };
    (@each $subject:ty: $($sentence:ident,)*) => {
        $(#[test]
        fn $sentence() {
            $crate::contract::$sentence::<$subject>();
        })*
    };
}

/// Waits for a future on the calling thread.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => thread::park(),
        }
    }
}

/// The right to write, as the only node has it.
pub fn fence(store: &impl Store) -> Fence {
    Fence { partition: Partition(0), epoch: store.epoch() }
}

/// Commits and waits for what came of it.
pub fn commit(store: &impl Store, changes: Vec<Change>) -> Result<Vec<Outcome>, StoreError> {
    commit_as(store, fence(store), changes)
}

fn commit_as(store: &impl Store, fence: Fence, changes: Vec<Change>) -> Result<Vec<Outcome>, StoreError> {
    let (say, hear) = mpsc::channel();
    store.commit(fence, changes, Box::new(move |outcome| say.send(outcome).expect("the test waits for it")));
    hear.recv_timeout(Duration::from_secs(30)).expect("done is called")
}

pub fn bare(text: &str) -> BareJid {
    BareJid::parse(text).expect("a bare JID of the test")
}

pub fn jid(text: &str) -> Jid {
    Jid::parse(text).expect("a JID of the test")
}

/// Keys that differ by `seed`.
pub fn credentials(seed: u8) -> Credentials {
    let keys = |size| ScramKeys {
        salt: vec![seed; 16],
        iterations: 10_000,
        stored_key: vec![seed; size],
        server_key: vec![!seed; size],
    };
    Credentials { scram_sha1: Some(keys(20)), scram_sha256: Some(keys(32)) }
}

pub fn create(account: &str) -> Change {
    Change::AccountCreate { account: bare(account), credentials: credentials(1), created: Stamp(1_000_000) }
}

/// A record of the archive that is also pending, from the garden.
pub fn record(position: i64) -> Record {
    Record {
        position,
        direction: Direction::Incoming,
        peer: jid("romeo@montague.example/garden"),
        stanza: format!("<message><body>{position}</body></message>").into_bytes(),
        pending: true,
        archived: true,
        dedupe: None,
        expires: None,
    }
}

pub fn append(record: Record) -> Change {
    Change::Append { account: juliet(), record }
}

/// The year 2100: a key of this position is not too old to be kept, whatever the clock says.
const LATE: i64 = 4_102_444_800_000_000;

fn juliet() -> BareJid {
    bare("juliet@capulet.example")
}

fn romeo() -> BareJid {
    bare("romeo@montague.example")
}

/// A store with juliet in it.
fn with_juliet<S: Subject>() -> S {
    let subject = S::fresh();
    done(&subject, vec![create("juliet@capulet.example")]);
    subject
}

fn done<S: Subject>(subject: &S, changes: Vec<Change>) {
    let outcomes = commit(subject.store(), changes).expect("the commit is done");
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Done), "{outcomes:?}");
}

fn load<S: Subject>(subject: &S) -> AccountRecord {
    wait(subject.store().load_account(&juliet())).expect("the store reads").expect("juliet has an account")
}

fn credentials_of<S: Subject>(subject: &S, account: &BareJid) -> Result<Option<Credentials>, StoreError> {
    wait(subject.store().login(account)).map(|found| found.map(|login| login.credentials))
}

fn inbox<S: Subject>(subject: &S) -> Vec<i64> {
    positions(wait(subject.store().inbox_after(&juliet(), 0, false, 1000)).expect("the store reads"))
}

fn page<S: Subject>(subject: &S, query: PageQuery) -> Page {
    wait(subject.store().inbox_page(&juliet(), &query)).expect("the store reads")
}

fn positions(records: Vec<Record>) -> Vec<i64> {
    records.iter().map(|record| record.position).collect()
}

fn item(contact: &str, version: u64) -> RosterItem {
    RosterItem {
        jid: bare(contact),
        name: Some("Röslein, 3:x".into()),
        groups: vec!["Friends".into(), "a,\nb".into(), "".into()],
        subscription: Subscription { to: true, pending_in: true, ..Subscription::default() },
        listed: true,
        version,
    }
}

fn session(resource: &str, epoch: u64) -> SessionRow {
    SessionRow {
        resource: resource.into(),
        epoch,
        resume_id_hash: vec![7; 32],
        presence: b"<presence/>".to_vec(),
        directed: vec![jid("romeo@montague.example/garden"), jid("nurse@capulet.example")],
        since: Stamp(5),
        received: Some(u32::MAX),
    }
}

pub fn an_account_that_was_created_is_found<S: Subject>() {
    let subject = with_juliet::<S>();
    let expected = AccountRecord { created: Stamp(1_000_000), ..AccountRecord::default() };
    assert_eq!(load(&subject), expected);
    assert_eq!(wait(subject.store().load_account(&romeo())), Ok(None));
}

pub fn an_account_is_created_once<S: Subject>() {
    let subject = with_juliet::<S>();
    let again = Change::AccountCreate { account: juliet(), credentials: credentials(2), created: Stamp(2) };
    assert_eq!(commit(subject.store(), vec![again]), Ok(vec![Outcome::Exists]));
    assert_eq!(load(&subject).created, Stamp(1_000_000));
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(credentials(1))));
}

pub fn an_unknown_account_is_answered_and_the_rest_of_the_call_is_done<S: Subject>() {
    let subject = with_juliet::<S>();
    let changes = vec![
        Change::Append { account: romeo(), record: record(1) },
        append(record(1)),
        Change::AccountRemove { account: romeo() },
        Change::BlockPut { account: romeo(), jid: jid("tybalt@capulet.example") },
        Change::CredentialsSet { account: romeo(), credentials: credentials(3) },
    ];
    use Outcome::{Done, NoAccount};
    assert_eq!(commit(subject.store(), changes), Ok(vec![NoAccount, Done, NoAccount, NoAccount, NoAccount]));
    assert_eq!(inbox(&subject), [1]);
    assert_eq!(credentials_of(&subject, &romeo()), Ok(None));
}

pub fn a_removed_account_leaves_nothing_to_the_next_of_its_name<S: Subject>() {
    let subject = with_juliet::<S>();
    let key = Some([4; 16]);
    let token = Token {
        client: "c".into(),
        mechanism: "HT-SHA-256-NONE".into(),
        secret: vec![1],
        expires: Stamp(9),
        previous: None,
        count: 0,
    };
    done(
        &subject,
        vec![
            append(Record { dedupe: key, ..record(50) }),
            Change::RosterPut { account: juliet(), item: item("nurse@capulet.example", 3), version: 3 },
            Change::RequestPut { account: juliet(), contact: romeo(), stanza: vec![1], received: Stamp(1) },
            Change::SessionPut { account: juliet(), row: session("balcony", 0) },
            Change::BlobPut { account: juliet(), space: "s".into(), key: "k".into(), value: vec![1] },
            Change::BlockPut { account: juliet(), jid: jid("tybalt@capulet.example") },
            Change::TokenPut { account: juliet(), token },
            Change::LastActivity { account: juliet(), left: Stamp(1), status: "gone".into() },
            Change::AccountRemove { account: juliet() },
            Change::AccountCreate { account: juliet(), credentials: credentials(2), created: Stamp(2) },
            append(Record { dedupe: key, ..record(3) }),
        ],
    );
    let expected = AccountRecord {
        created: Stamp(2),
        last_position: 3,
        pending: vec![3],
        pending_bytes: record(3).stanza.len() as u64,
        ..AccountRecord::default()
    };
    assert_eq!(load(&subject), expected);
    assert_eq!(inbox(&subject), [3]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![]));
    assert_eq!(wait(subject.store().tokens(&juliet(), "c")), Ok(vec![]));
    assert_eq!(wait(subject.store().blob(&juliet(), "s", "k")), Ok(None));
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(credentials(2))));
}

pub fn credentials_are_replaced_as_a_whole<S: Subject>() {
    let subject = with_juliet::<S>();
    let only_sha256 = Credentials { scram_sha1: None, ..credentials(2) };
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: only_sha256.clone() }]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(only_sha256)));
}

pub fn keys_are_added_beside_those_of_the_same_password_alone<S: Subject>() {
    let subject = with_juliet::<S>();
    let (old, more) = (credentials(2), credentials(3));
    let only_sha1 = Credentials { scram_sha256: None, ..old.clone() };
    let add = |beside: &[u8]| Change::CredentialsAdd {
        account: juliet(),
        keys: Credentials { scram_sha1: None, ..more.clone() },
        beside: beside.to_vec(),
    };
    let all = |subject: &S| wait(subject.store().key_figures()).expect("the store reads");
    let figures = |subject: &S| all(subject).get("capulet.example").copied().unwrap_or_default();
    let stored = old.scram_sha1.as_ref().map(|keys| keys.stored_key.clone()).unwrap_or_default();
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: only_sha1.clone() }]);
    assert_eq!(figures(&subject), KeyFigures { sha1_alone: 1, ..KeyFigures::default() });
    let hosts: Vec<_> = all(&subject).into_keys().collect();
    assert_eq!(hosts, [Box::from("capulet.example")], "no other host has accounts");
    done(&subject, vec![add(b"of another password")]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(only_sha1.clone())));
    done(&subject, vec![add(&stored)]);
    let both = Credentials { scram_sha256: more.scram_sha256.clone(), ..only_sha1 };
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(both.clone())));
    assert_eq!(figures(&subject), KeyFigures { both: 1, ..KeyFigures::default() });
    // What is there is not replaced.
    let again = Change::CredentialsAdd { account: juliet(), keys: credentials(4), beside: stored };
    done(&subject, vec![again]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(both)));
}

pub fn a_disabled_account_is_known_as_such<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![Change::AccountDisable { account: juliet(), disabled: true }]);
    assert!(load(&subject).disabled);
    assert!(wait(subject.store().login(&juliet())).is_ok_and(|found| found.is_some_and(|login| login.disabled)));
    done(&subject, vec![Change::AccountDisable { account: juliet(), disabled: false }]);
    assert!(!load(&subject).disabled);
    assert!(wait(subject.store().login(&juliet())).is_ok_and(|found| found.is_some_and(|login| !login.disabled)));
}

pub fn a_roster_item_is_put_and_replaced_and_deleted_under_a_version<S: Subject>() {
    let subject = with_juliet::<S>();
    let nurse = item("nurse@capulet.example", 1);
    let mut romeo = item("romeo@montague.example", 2);
    let put = |item: &RosterItem| Change::RosterPut { account: juliet(), item: item.clone(), version: item.version };
    done(&subject, vec![put(&romeo), put(&nurse)]);
    romeo = RosterItem {
        name: None,
        groups: vec![],
        subscription: Subscription { approved: true, from: true, ..Subscription::default() },
        listed: false,
        version: 3,
        ..romeo
    };
    done(&subject, vec![put(&romeo)]);
    let loaded = load(&subject);
    assert_eq!((loaded.roster, loaded.roster_version), (vec![nurse.clone(), romeo.clone()], 3));
    done(&subject, vec![Change::RosterDelete { account: juliet(), contact: romeo.jid, version: 4 }]);
    let loaded = load(&subject);
    assert_eq!((loaded.roster, loaded.roster_version), (vec![nurse], 4));
}

pub fn of_a_contacts_requests_the_latest_is_kept<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |stanza: &[u8], received| Change::RequestPut {
        account: juliet(),
        contact: romeo(),
        stanza: stanza.to_vec(),
        received: Stamp(received),
    };
    done(&subject, vec![put(b"first", 1), put(b"second", 2)]);
    assert_eq!(load(&subject).requests, [(romeo(), b"second".to_vec(), Stamp(2))]);
    done(&subject, vec![Change::RequestDelete { account: juliet(), contact: romeo() }]);
    assert_eq!(load(&subject).requests, []);
}

pub fn blocks_are_kept_once_each<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |text| Change::BlockPut { account: juliet(), jid: jid(text) };
    done(
        &subject,
        vec![
            put("tybalt@capulet.example"),
            put("montague.example/x"),
            put("montague.example"),
            put("montague.example"),
        ],
    );
    assert_eq!(
        load(&subject).blocks,
        [jid("montague.example"), jid("montague.example/x"), jid("tybalt@capulet.example")]
    );
    done(&subject, vec![Change::BlockDelete { account: juliet(), jid: jid("montague.example") }]);
    assert_eq!(load(&subject).blocks, [jid("montague.example/x"), jid("tybalt@capulet.example")]);
}

pub fn the_last_activity_is_kept<S: Subject>() {
    let subject = with_juliet::<S>();
    let left = |at, status: &str| Change::LastActivity { account: juliet(), left: Stamp(at), status: status.into() };
    done(&subject, vec![left(1, "asleep")]);
    done(&subject, vec![left(2, "")]);
    assert_eq!(load(&subject).last_activity, Some((Stamp(2), "".into())));
}

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

fn trim(before: i64, bytes_max: u64) -> Change {
    Change::Trim { account: juliet(), before, records_max: None, bytes_max }
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

/// Numbers that look random and are the same each time.
fn numbers(mut state: u64) -> impl FnMut(u64) -> u64 {
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
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

pub fn a_session_of_this_epoch_is_in_no_ledger<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![Change::SessionPut { account: juliet(), row: session("balcony", subject.store().epoch()) }]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![]));
    assert_eq!(load(&subject).sessions, []);
}

pub fn a_session_of_an_earlier_epoch_is_in_the_ledger_until_deleted<S: Subject>() {
    let subject = with_juliet::<S>();
    let epoch = subject.store().epoch();
    let put = |row: &SessionRow| Change::SessionPut { account: juliet(), row: row.clone() };
    let balcony = session("balcony", epoch);
    let chamber = SessionRow { directed: vec![], presence: vec![], received: None, ..session("chamber", epoch) };
    done(&subject, vec![put(&chamber), put(&SessionRow { presence: vec![], ..balcony.clone() }), put(&balcony)]);
    let subject = subject.reopened();
    let mut ledger = wait(subject.store().session_ledger()).expect("the store reads");
    ledger.sort_by(|a, b| a.1.resource.cmp(&b.1.resource));
    assert_eq!(ledger, [(juliet(), balcony.clone()), (juliet(), chamber.clone())]);
    assert_eq!(load(&subject).sessions, [balcony, chamber.clone()]);
    done(&subject, vec![Change::SessionDelete { account: juliet(), resource: "balcony".into() }]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![(juliet(), chamber)]));
}

pub fn tokens_are_kept_by_client_and_mechanism<S: Subject>() {
    let subject = with_juliet::<S>();
    let token = |client: &str, mechanism: &str, count| Token {
        client: client.into(),
        mechanism: mechanism.into(),
        secret: vec![count as u8; 32],
        expires: Stamp(9),
        previous: (count > 1).then(|| (vec![3; 32], Stamp(4))),
        count,
    };
    let put = |token| Change::TokenPut { account: juliet(), token };
    done(&subject, vec![put(token("phone", "HT-A", 1)), put(token("phone", "HT-B", 1)), put(token("desk", "HT-A", 1))]);
    done(&subject, vec![put(token("phone", "HT-A", 2))]);
    let tokens = |client| wait(subject.store().tokens(&juliet(), client)).expect("the store reads");
    assert_eq!(tokens("phone"), [token("phone", "HT-A", 2), token("phone", "HT-B", 1)]);
    done(&subject, vec![Change::TokenDelete { account: juliet(), client: "phone".into(), mechanism: "HT-A".into() }]);
    assert_eq!(tokens("phone"), [token("phone", "HT-B", 1)]);
    assert_eq!(tokens("desk"), [token("desk", "HT-A", 1)]);
    assert_eq!(wait(subject.store().tokens(&romeo(), "phone")), Ok(vec![]));
    // What was given for the old password is good no more.
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: credentials(7) }]);
    assert_eq!((tokens("phone"), tokens("desk")), (vec![], vec![]));
}

pub fn an_account_has_so_many_tokens_and_those_that_expire_first_go<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |n: usize, expires: i64| {
        let token = Token {
            client: format!("client {n}").into(),
            mechanism: "HT-A".into(),
            secret: vec![1; 32],
            expires: Stamp(expires),
            previous: None,
            count: 0,
        };
        done(&subject, vec![Change::TokenPut { account: juliet(), token }]);
    };
    let there = |n: usize| {
        let tokens = wait(subject.store().tokens(&juliet(), &format!("client {n}"))).expect("the store reads");
        tokens.len()
    };
    (0..TOKENS_PER_ACCOUNT_MAX).for_each(|n| put(n, 1_000 - n as i64));
    put(TOKENS_PER_ACCOUNT_MAX, 2_000);
    assert_eq!(there(TOKENS_PER_ACCOUNT_MAX - 1), 0, "it would have expired first");
    assert_eq!((there(0), there(TOKENS_PER_ACCOUNT_MAX - 2), there(TOKENS_PER_ACCOUNT_MAX)), (1, 1, 1));
    // The same one anew takes nobody's place.
    put(0, 3_000);
    assert_eq!(there(TOKENS_PER_ACCOUNT_MAX - 2), 1);
}

pub fn a_blob_is_kept_under_its_space_and_key<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |space: &str, key: &str, value: &[u8]| Change::BlobPut {
        account: juliet(),
        space: space.into(),
        key: key.into(),
        value: value.to_vec(),
    };
    done(&subject, vec![put("private", "a", b"1"), put("private", "b", b"2"), put("private", "a", b"3")]);
    let blob = |space: &'static str, key: &'static str| {
        wait(subject.store().blob(&juliet(), space, key)).expect("the store reads")
    };
    assert_eq!(
        (blob("private", "a"), blob("private", "b"), blob("vcard", "a")),
        (Some(b"3".to_vec()), Some(b"2".to_vec()), None)
    );
    done(&subject, vec![Change::BlobDelete { account: juliet(), space: "private".into(), key: "a".into() }]);
    assert_eq!(blob("private", "a"), None);
}

pub fn the_photo_hash_is_loaded_with_the_account<S: Subject>() {
    let subject = with_juliet::<S>();
    let (space, key) = PHOTO_HASH;
    done(
        &subject,
        vec![Change::BlobPut { account: juliet(), space: space.into(), key: key.into(), value: b"a9993e36".to_vec() }],
    );
    assert_eq!(load(&subject).photo_hash.as_deref(), Some("a9993e36"));
}

pub fn settings_are_loaded_with_the_account<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |space: &str, key: &str, value: u8| Change::BlobPut {
        account: juliet(),
        space: space.into(),
        key: key.into(),
        value: vec![value],
    };
    done(&subject, vec![put(SETTINGS, "b", 1), put(SETTINGS, "a", 2), put("private", "all", 3), put(SETTINGS, "b", 4)]);
    assert_eq!(load(&subject).settings, [("a".into(), vec![2]), ("b".into(), vec![4])]);
}

fn outbox<S: Subject>(subject: &S, after: i64, limit: usize) -> Vec<i64> {
    let rows = wait(subject.store().outbox(after, limit)).expect("the store reads");
    rows.into_iter().map(|row| row.id).collect()
}

/// The local domain is no account.
pub fn what_waits_for_other_domains_is_read_in_order_until_deleted<S: Subject>() {
    let subject = S::fresh();
    let local = bare("capulet.example");
    let row = |id| OutboxRow {
        id,
        local: local.clone(),
        remote: "montague.example".into(),
        accepted: Stamp(id),
        stanza: b"<message/>".to_vec(),
    };
    done(&subject, vec![Change::OutboxPut { row: row(7) }, Change::OutboxPut { row: row(5) }]);
    let again = OutboxRow { stanza: b"<iq/>".to_vec(), ..row(5) };
    done(&subject, vec![Change::OutboxPut { row: again }, Change::OutboxPut { row: row(9) }]);
    let subject = subject.reopened();
    assert_eq!(wait(subject.store().outbox(4, 1)), Ok(vec![row(5)]));
    assert_eq!(outbox(&subject, 5, 10), [7, 9]);
    done(&subject, vec![Change::OutboxDelete { local: local.clone(), ids: vec![5, 9, 11] }]);
    assert_eq!(outbox(&subject, i64::MIN, 10), [7]);
}

pub fn a_domain_is_remembered_as_last_reached<S: Subject>() {
    let subject = S::fresh();
    let local = bare("capulet.example");
    let reached =
        |remote: &str, at| Change::DomainReached { local: local.clone(), remote: remote.into(), at: Stamp(at) };
    done(&subject, vec![reached("montague.example", 1), reached("verona.example", 2), reached("montague.example", 3)]);
    let subject = subject.reopened();
    let mut found = wait(subject.store().domains_reached()).expect("the store reads");
    found.sort();
    let of = |remote: &str, at| (local.clone(), Box::from(remote), Stamp(at));
    assert_eq!(found, [of("montague.example", 3), of("verona.example", 2)]);
}

pub fn accounts_are_listed_by_name_a_host_at_a_time<S: Subject>() {
    let subject = S::fresh();
    let names = ["tybalt@capulet.example", "juliet@capulet.example", "romeo@montague.example", "nurse@capulet.example"];
    done(&subject, names.map(create).to_vec());
    done(
        &subject,
        vec![
            Change::AccountDisable { account: bare("tybalt@capulet.example"), disabled: true },
            Change::LastActivity { account: juliet(), left: Stamp(4), status: "".into() },
        ],
    );
    let list = |after, limit| wait(subject.store().accounts("capulet.example", after, limit)).expect("the store reads");
    let summary = |name, disabled, last_activity| AccountSummary {
        account: bare(name),
        created: Stamp(1_000_000),
        disabled,
        last_activity,
    };
    let nurse = summary("nurse@capulet.example", false, None);
    assert_eq!(list("", 2), [summary("juliet@capulet.example", false, Some(Stamp(4))), nurse.clone()]);
    assert_eq!(list("juliet", 10), [nurse, summary("tybalt@capulet.example", true, None)]);
    assert_eq!(list("nurse@capulet.example", 10).len(), 1);
    assert_eq!(list("tybalt", 10), []);
}

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

pub fn figures_count<S: Subject>() {
    let subject = with_juliet::<S>();
    done(
        &subject,
        vec![create("romeo@montague.example"), append(record(1)), append(Record { archived: false, ..record(2) })],
    );
    let figures = subject.store().figures();
    assert_eq!((figures.accounts, figures.inbox_records, figures.queued_changes, figures.quarantined), (2, 2, 0, 0));
    assert_eq!((figures.commits, figures.changes), (2, 4));
    done(
        &subject,
        vec![Change::Taken { account: juliet(), positions: vec![2] }, Change::AccountRemove { account: romeo() }],
    );
    let figures = subject.store().figures();
    assert_eq!((figures.accounts, figures.inbox_records), (1, 1));
}
