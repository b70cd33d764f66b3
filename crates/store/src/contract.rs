//! The sentences that every backend must keep.
//!
//! A backend implements [`Subject`] in its tests and says `store::contract_tests!(ItsSubject);`, which expands to one
//! `#[test]` a sentence. A file here for each part of what is kept.

mod accounts;
mod blobs;
mod commits;
mod contacts;
mod cuts;
mod log;
mod outbox;
mod pages;

pub use accounts::*;
pub use blobs::*;
pub use commits::*;
pub use contacts::*;
pub use cuts::*;
pub use log::*;
pub use outbox::*;
pub use pages::*;

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

fn trim(before: i64, bytes_max: u64) -> Change {
    Change::Trim { account: juliet(), before, records_max: None, bytes_max }
}
