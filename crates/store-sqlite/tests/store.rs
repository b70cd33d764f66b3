//! What this backend promises beyond the contract: one process, clear refusals, bounds, upkeep.

use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};
use store::contract::{append, bare, commit, create, fence, record, wait};
use store::*;
use store_sqlite::{FILE, OpenError, Options, Purpose, SqliteStore};
use tempfile::TempDir;
use xmpp::Stamp;

fn folder() -> TempDir {
    TempDir::new().expect("there is a folder for temporary files")
}

fn open(folder: &TempDir) -> SqliteStore {
    open_with(folder, Options::default())
}

fn open_with(folder: &TempDir, options: Options) -> SqliteStore {
    SqliteStore::open(folder.path(), options).expect("the folder is ours")
}

/// With juliet, to whom [`append`] appends.
fn with_juliet(folder: &TempDir, options: Options) -> SqliteStore {
    let store = open_with(folder, options);
    assert_eq!(commit(&store, vec![create("juliet@capulet.example")]), Ok(vec![Outcome::Done]));
    store
}

fn inbox(store: &SqliteStore) -> Vec<i64> {
    let juliet = bare("juliet@capulet.example");
    let records = wait(store.inbox_after(&juliet, 0, false, 100_000)).expect("the store reads");
    records.iter().map(|record| record.position).collect()
}

/// Another program's hands in the file.
fn raw(folder: &TempDir) -> Connection {
    Connection::open(folder.path().join(FILE)).expect("SQLite opens it")
}

/// Waits for the writer's upkeep, which nobody announces.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
        std::thread::yield_now();
    }
}

/// Keeps the writer busy until it is dropped, so that what is committed meanwhile makes one batch.
struct Held {
    _release: mpsc::Sender<()>,
}

impl Held {
    fn hold(store: &SqliteStore) -> Held {
        let (release, released) = mpsc::channel::<()>();
        let (say, hear) = mpsc::channel();
        let done = Box::new(move |_| {
            say.send(()).expect("the test waits for it");
            // An error is the release.
            let _ = released.recv();
        });
        store.commit(fence(store), vec![], done);
        hear.recv().expect("the writer comes to it");
        Held { _release: release }
    }
}

type Answers = mpsc::Receiver<(u32, Result<Vec<Outcome>, StoreError>)>;

/// Commits calls while the writer is busy with something else.
fn batch(store: &SqliteStore, calls: Vec<Vec<Change>>) -> Answers {
    let held = Held::hold(store);
    let (say, hear) = mpsc::channel();
    for (number, changes) in (1..).zip(calls) {
        let say = say.clone();
        let done = Box::new(move |answer| say.send((number, answer)).expect("the test waits for it"));
        store.commit(fence(store), changes, done);
    }
    drop(held);
    hear
}

// The writer waits for as much company as the last had, and is woken by nothing less meanwhile.
#[test]
fn who_comes_alone_after_many_is_answered_all_the_same() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let twenty = |from: i64| (from..from + 20).map(|position| vec![append(record(position))]).collect();
    for from in [1, 21] {
        assert_eq!(batch(&store, twenty(from)).iter().filter(|(_, answer)| answer.is_ok()).count(), 20);
        assert!(commit(&store, vec![]).is_ok());
    }
    assert_eq!(batch(&store, twenty(41)).iter().filter(|(_, answer)| answer.is_ok()).count(), 20);
    let (say, hear) = mpsc::channel();
    store.commit_soon(fence(&store), vec![], Box::new(move |answer| say.send(answer).expect("the test waits for it")));
    store.go();
    assert!(hear.recv().expect("it is answered").is_ok());
    assert_eq!(inbox(&store).len(), 60);
}

// What the system holds for written after a sync that failed need not be on disk.
#[test]
fn a_start_that_the_disk_lets_fail_leaves_word_for_the_next() {
    let folder = folder();
    wait(open(&folder).close()).expect("it closes");
    let lock = || fs::read_to_string(folder.path().join("waft.lock")).expect("it is there");
    assert!(!lock().contains("failed"));
    let wal = folder.path().join("waft.db-wal");
    let _ = fs::remove_file(&wal);
    fs::create_dir(&wal).expect("the folder can be written to");
    SqliteStore::open(folder.path(), Options::default()).err().expect("its log cannot be opened");
    assert!(lock().contains("failed"));
    fs::remove_dir(&wal).expect("it is empty");
    open(&folder);
    assert!(!lock().contains("failed"), "the log was written anew");
}

#[test]
fn a_second_process_is_refused_by_folder_and_pid() {
    let folder = folder();
    let store = open(&folder);
    let refused = SqliteStore::open(folder.path(), Options::default()).err().expect("it is held");
    let expected = format!(
        "another waft serves {} (pid {})\nstop it first: waft stop",
        folder.path().display(),
        std::process::id()
    );
    assert_eq!(refused.to_string(), expected);
    wait(store.close()).expect("it closes");
    open(&folder);
}

#[test]
fn a_store_that_was_dropped_can_be_opened_again() {
    let folder = folder();
    drop(with_juliet(&folder, Options::default()));
    assert_eq!(open(&folder).figures().accounts, 1);
}

#[test]
fn a_command_leaves_the_epoch_alone() {
    let folder = folder();
    assert_eq!(open(&folder).epoch(), 1);
    let store = open_with(&folder, Options { purpose: Purpose::Command, ..Options::default() });
    assert_eq!(store.epoch(), 1);
    assert_eq!(commit(&store, vec![create("juliet@capulet.example")]), Ok(vec![Outcome::Done]));
    drop(store);
    assert_eq!(open(&folder).epoch(), 2);
}

#[test]
fn an_older_process_is_fenced_by_the_epoch_in_the_file() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    raw(&folder).execute("UPDATE meta SET epoch = epoch + 1", []).expect("nobody holds a lock for long");
    assert_eq!(commit(&store, vec![append(record(1))]), Err(StoreError::Fenced));
    assert_eq!(inbox(&store), []);
}

#[test]
fn the_folder_and_its_files_are_private_and_one_file_is_left() {
    let folder = folder();
    let data = folder.path().join("data");
    let store = SqliteStore::open(&data, Options::default()).expect("it is made");
    let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in fs::read_dir(&data).expect("it is there") {
        assert_eq!(mode(&file.expect("it is there").path()), 0o600);
    }
    wait(store.close()).expect("it closes");
    let mut left: Vec<_> =
        fs::read_dir(&data).expect("it is there").map(|file| file.expect("it is").file_name()).collect();
    left.sort();
    assert_eq!(left, ["waft.db", "waft.lock"]);
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = folder();
    fs::write(folder.path().join(FILE), "a letter to juliet. ".repeat(1_000)).expect("the folder is ours");
    let refused = SqliteStore::open(folder.path(), Options::default()).err().expect("it is no database");
    assert!(matches!(&refused, OpenError::Damaged { .. }), "{refused}");
    assert!(refused.to_string().ends_with("is damaged (it is not an SQLite file): restore a backup"), "{refused}");
}

#[test]
fn a_file_that_was_cut_is_refused() {
    for keep in [50, 4096, 3 * 4096 + 17] {
        let folder = folder();
        drop(with_juliet(&folder, Options::default()));
        let file = fs::File::options().write(true).open(folder.path().join(FILE)).expect("it is there");
        file.set_len(keep).expect("it can be cut");
        let refused = SqliteStore::open(folder.path(), Options::default()).err().expect("it is cut");
        assert!(matches!(refused, OpenError::Damaged { .. }), "{refused}");
    }
}

#[test]
fn a_damaged_page_is_an_error_of_its_readers_alone() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let big = (1..=50).map(|position| append(Record { stanza: vec![b'x'; 3_000], ..record(position) })).collect();
    commit(&store, big).expect("it is written");
    drop(store);
    let connection = raw(&folder);
    let root = "SELECT rootpage FROM sqlite_schema WHERE name = 'log'";
    let root: i64 = connection.query_row(root, [], |row| row.get(0)).expect("there is a log");
    let root = root as usize;
    drop(connection);
    let mut bytes = fs::read(folder.path().join(FILE)).expect("it is there");
    bytes[(root - 1) * 4096..root * 4096].fill(0xA5);
    fs::write(folder.path().join(FILE), bytes).expect("it is ours");
    let store = open(&folder);
    let juliet = bare("juliet@capulet.example");
    let damaged = wait(store.inbox_after(&juliet, 0, false, 10));
    assert!(matches!(damaged, Err(StoreError::Damaged(_))), "{damaged:?}");
    assert!(wait(store.login(&juliet)).is_ok_and(|found| found.is_some()));
    assert!(!wait(store.integrity()).expect("it is looked through").is_empty());
}

#[test]
fn a_row_that_cannot_be_read_is_passed_over_and_set_aside() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    commit(&store, (1..=4).map(|position| append(record(position))).collect()).expect("it is written");
    let connection = raw(&folder);
    connection.execute("UPDATE log SET peer = 'a@b@c' WHERE position = 2", []).expect("it is written");
    connection.execute("UPDATE log SET dedupe = x'00' WHERE position = 4", []).expect("it is written");
    connection
        .execute("INSERT INTO blocks (account, jid) VALUES (1, '@'), (1, 'a.example')", [])
        .expect("it is written");
    let juliet = bare("juliet@capulet.example");
    let pending = wait(store.inbox_after(&juliet, 0, true, 2)).expect("the store reads");
    assert_eq!(pending.iter().map(|record| record.position).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(inbox(&store), [1, 3]);
    let blocks = wait(store.load_account(&juliet)).expect("the store reads").expect("juliet has an account").blocks;
    assert_eq!(blocks, [store::contract::jid("a.example")]);
    until("three rows are set aside", || store.figures().quarantined == 3);
    let loaded = wait(store.load_account(&juliet)).expect("the store reads").expect("juliet has an account");
    assert_eq!(loaded.pending, [1, 3], "nobody can take what nobody can read");
    let kept = connection.query_row("SELECT count(*) FROM log", [], |row| row.get::<_, i64>(0));
    assert_eq!(kept, Ok(4), "nothing is deleted");
    drop((connection, store));
    let store = open(&folder);
    assert_eq!((inbox(&store), store.figures().quarantined), (vec![1, 3], 3));
}

#[test]
fn a_bad_call_does_not_undo_the_others_of_its_batch() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let calls = [vec![1], vec![2, 2], vec![3], vec![4, 5, 1], vec![6]];
    let calls = calls.map(|positions| positions.into_iter().map(|position| append(record(position))).collect());
    let answers: Vec<_> = batch(&store, calls.to_vec()).iter().take(5).collect();
    let good: Vec<u32> = answers.iter().filter(|(_, answer)| answer.is_ok()).map(|(number, _)| *number).collect();
    assert_eq!((answers.len(), good), (5, vec![1, 3, 5]));
    assert!(answers.iter().map(|(number, _)| *number).eq(1..=5), "in order: {answers:?}");
    assert_eq!(inbox(&store), [1, 3, 6]);
    assert_eq!(store.figures().inbox_records, 3);
}

#[test]
fn a_full_disk_refuses_writes_and_serves_reads_until_space_returns() {
    let folder = folder();
    let page_limit = Arc::new(AtomicU64::new(0));
    let store = with_juliet(&folder, Options { page_limit: page_limit.clone(), ..Options::default() });
    commit(&store, vec![append(record(1))]).expect("there is space");
    page_limit.store(1, Relaxed);
    let big = |position| append(Record { stanza: vec![b'x'; 100_000], ..record(position) });
    let answers: Vec<_> = batch(&store, vec![vec![append(record(2))], vec![big(3)]]).iter().take(2).collect();
    assert_eq!(answers, [(1, Err(StoreError::Full)), (2, Err(StoreError::Full))]);
    assert_eq!((inbox(&store), store.fatal()), (vec![1], None));
    page_limit.store(0, Relaxed);
    assert_eq!(commit(&store, vec![append(record(2)), big(3)]), Ok(vec![Outcome::Done; 2]));
    assert_eq!((inbox(&store), store.figures().inbox_records), (vec![1, 2, 3], 3));
}

#[test]
fn what_is_archived_with_a_peer_is_found_by_the_peer_also_after_all_before_was_cut() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let juliet = bare("juliet@capulet.example");
    let day = 24 * 3_600_000_000;
    let peer = store::contract::jid("nurse@capulet.example/x");
    let says = |position| append(Record { peer: peer.clone(), pending: false, ..record(position) });
    let found = |backwards| {
        let with = Some(store::contract::jid("nurse@capulet.example"));
        let query = PageQuery { with, backwards, want_count: true, limit: 10, ..PageQuery::default() };
        let page = wait(store.inbox_page(&juliet, &query)).expect("the store reads");
        (page.records.iter().map(|record| record.position).collect::<Vec<_>>(), page.count)
    };
    let others = (2..8).map(|n| append(Record { pending: false, ..record(n * day) }));
    commit(&store, [says(day), says(day + 5)].into_iter().chain(others).chain([says(9 * day)]).collect())
        .expect("it is written");
    for backwards in [false, true] {
        assert_eq!(found(backwards), (vec![day, day + 5, 9 * day], Some(3)));
    }
    let cut = |before| Change::Trim { account: juliet.clone(), before, records_max: None, bytes_max: u64::MAX };
    commit(&store, vec![cut(8 * day)]).expect("it is written");
    assert_eq!(found(false), (vec![9 * day], Some(1)));
    commit(&store, vec![cut(i64::MAX)]).expect("it is written");
    let rows = raw(&folder).query_row("SELECT count(*) FROM peers", [], |row| row.get::<_, i64>(0));
    assert_eq!(rows, Ok(0));
    commit(&store, vec![says(9 * day + 1)]).expect("it is written");
    assert_eq!(found(true), (vec![9 * day + 1], Some(1)));
}

// Its sender has no acknowledgement and says it again; an error would be a second outcome.
#[test]
fn what_the_log_has_from_before_is_not_refused_by_a_full_disk() {
    let folder = folder();
    let page_limit = Arc::new(AtomicU64::new(0));
    let options = Options { page_limit: page_limit.clone(), clock: || Stamp(1), ..Options::default() };
    let store = with_juliet(&folder, options);
    let named = |position, key| append(Record { dedupe: Some([key; 16]), ..record(position) });
    commit(&store, vec![named(1, 1)]).expect("there is space");
    page_limit.store(1, Relaxed);
    let big = append(Record { stanza: vec![b'x'; 100_000], ..record(3) });
    let calls = vec![vec![named(2, 1)], vec![big], vec![named(4, 2)], vec![named(5, 1)]];
    let answers: Vec<_> = batch(&store, calls).iter().take(4).map(|(_, answer)| answer).collect();
    let again = Ok(vec![Outcome::Duplicate(1)]);
    assert_eq!(answers, [again.clone(), Err(StoreError::Full), Err(StoreError::Full), again]);
    page_limit.store(0, Relaxed);
    assert_eq!(inbox(&store), [1]);
}

#[test]
fn a_queue_that_is_full_answers_busy_at_once() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let held = Held::hold(&store);
    let (say, hear) = mpsc::channel();
    let unblock =
        Change::BlockDelete { account: bare("juliet@capulet.example"), jid: store::contract::jid("a.example") };
    for _ in 0..100 {
        let say = say.clone();
        let done = Box::new(move |answer: Result<_, _>| say.send(answer.map(|_| ())).expect("the test waits for it"));
        store.commit(fence(&store), vec![unblock.clone(); 1_000], done);
    }
    assert_eq!((hear.try_recv(), store.figures().queued_changes), (Err(mpsc::TryRecvError::Empty), 100_000));
    assert_eq!(commit(&store, vec![unblock]), Err(StoreError::Busy));
    drop(held);
    assert!(hear.iter().take(100).all(|answer| answer == Ok(())));
}

#[test]
fn what_the_log_has_from_before_is_not_refused_by_a_full_queue() {
    let folder = folder();
    let store = with_juliet(&folder, Options { clock: || Stamp(1), ..Options::default() });
    let named = |position, key| append(Record { dedupe: Some([key; 16]), ..record(position) });
    commit(&store, vec![named(1, 1)]).expect("there is room");
    let held = Held::hold(&store);
    let mut fill = Vec::new();
    fill.resize_with(100_000, || Change::BlockDelete {
        account: bare("juliet@capulet.example"),
        jid: store::contract::jid("a.example"),
    });
    // The last of them is in the queue only, and no less there.
    fill.pop();
    fill.push(named(2, 2));
    let (say, hear) = mpsc::channel();
    let ask = |name: &'static str, changes| {
        let say = say.clone();
        let done = Box::new(move |answer| say.send((name, answer)).expect("the test waits for it"));
        store.commit(fence(&store), changes, done);
    };
    ask("fills", fill);
    ask("unnamed", vec![append(record(3))]);
    assert_eq!(hear.try_recv(), Ok(("unnamed", Err(StoreError::Busy))));
    ask("written", vec![named(4, 1)]);
    ask("queued", vec![named(5, 2)]);
    ask("new", vec![named(6, 3)]);
    drop(held);
    let answers: Vec<_> = hear.iter().skip(1).take(3).collect();
    let again = |position| Ok(vec![Outcome::Duplicate(position)]);
    assert_eq!(answers, [("written", again(1)), ("queued", again(2)), ("new", Err(StoreError::Busy))]);
    assert_eq!((inbox(&store), store.figures().queued_changes), (vec![1, 2], 0));
}

#[test]
fn a_done_that_panics_harms_nobody_else() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let held = Held::hold(&store);
    let (say, hear) = mpsc::channel();
    let tell = move |answer: Result<_, _>| say.send(answer).expect("the test waits for it");
    store.commit(fence(&store), vec![append(record(1))], Box::new(|_| panic!("a bug of the test, on purpose")));
    store.commit(fence(&store), vec![append(record(2))], Box::new(tell));
    drop(held);
    assert_eq!(hear.recv(), Ok(Ok(vec![Outcome::Done])));
    assert_eq!(commit(&store, vec![append(record(3))]), Ok(vec![Outcome::Done]));
    assert_eq!((inbox(&store), store.fatal()), (vec![1, 2, 3], None));
}

#[test]
fn a_dedupe_key_is_forgotten_after_a_day() {
    static NOW: AtomicI64 = AtomicI64::new(1_800_000_000_000_000);
    const HOUR: i64 = 3_600_000_000;
    fn clock() -> Stamp {
        Stamp(NOW.load(Relaxed))
    }
    let options = || Options { clock, ..Options::default() };
    let folder = folder();
    let store = with_juliet(&folder, options());
    let now = || NOW.load(Relaxed);
    let key = |number: u32| Some([number.to_be_bytes(); 4].concat().try_into().expect("four times four bytes"));
    let fleeting =
        |position, number| append(Record { dedupe: key(number), pending: false, archived: false, ..record(position) });
    // Enough for the sweep to come round.
    commit(&store, (0..1_000).map(|number| fleeting(now() + i64::from(number), number)).collect()).expect("written");
    commit(&store, vec![append(Record { dedupe: key(1_000), ..record(now() + 1_000) })]).expect("written");
    drop(store);
    let resent =
        |store: &SqliteStore| commit(store, vec![fleeting(now(), 0), fleeting(now(), 1_000)]).expect("written");
    NOW.fetch_add(24 * HOUR - 1, Relaxed);
    let store = open_with(&folder, options());
    let first = 1_800_000_000_000_000;
    assert_eq!(resent(&store), [Outcome::Duplicate(first), Outcome::Duplicate(first + 1_000)]);
    NOW.fetch_add(HOUR + 1, Relaxed);
    for round in 0..10 {
        let others = (0..500).map(|n| fleeting(now() + round * 500 + i64::from(n), 10_000 + round as u32 * 500 + n));
        commit(&store, others.collect()).expect("written");
    }
    drop(store);
    let store = open_with(&folder, options());
    NOW.fetch_add(HOUR, Relaxed);
    assert_eq!(commit(&store, vec![fleeting(now(), 0)]), Ok(vec![Outcome::Done]));
    assert_eq!(commit(&store, vec![fleeting(now() + 1, 1_000)]), Ok(vec![Outcome::Done]));
    let left: i64 = raw(&folder).query_row("SELECT count(*) FROM dedupe", [], |row| row.get(0)).expect("it reads");
    assert_eq!(left, 5_002);
}

#[test]
fn the_log_of_a_removed_account_is_deleted_in_the_background() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let append = |position: i64| append(Record { dedupe: Some([1; 16]), ..record(position) });
    commit(&store, vec![append(1)]).expect("it is written");
    let more = (2..=2_000).map(|position| store::contract::append(record(position))).collect();
    commit(&store, more).expect("it is written");
    commit(&store, vec![Change::AccountRemove { account: bare("juliet@capulet.example") }]).expect("it is removed");
    until("the log is empty", || store.figures().inbox_records == 0);
    drop(store);
    let connection = raw(&folder);
    let left = "SELECT (SELECT count(*) FROM log) + (SELECT count(*) FROM dedupe) + (SELECT count(*) FROM pending)";
    assert_eq!(connection.query_row(left, [], |row| row.get(0)), Ok(0));
}

#[test]
fn what_a_removal_adds_to_the_log_of_pages_is_moved_bit_by_bit() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let long = |position| append(Record { stanza: vec![b'x'; 10_000], ..record(position) });
    commit(&store, (1..=500).map(long).collect()).expect("it is written");
    commit(&store, vec![Change::AccountRemove { account: bare("juliet@capulet.example") }]).expect("it is removed");
    until("the log is empty", || store.figures().inbox_records == 0);
    // 500 records are 1,500 pages, written when they came and when they went; that is no reason for a checkpoint.
    let pages = || {
        let checkpoint = "PRAGMA wal_checkpoint(PASSIVE)";
        raw(&folder).query_row(checkpoint, [], |row| row.get::<_, i64>(1)).expect("it is a log of pages")
    };
    until("few pages are in it", || pages() < 500);
}

#[test]
fn removal_goes_on_after_a_restart() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    commit(&store, (1..=2_000).map(|position| append(record(position))).collect()).expect("it is written");
    drop(store);
    let connection = raw(&folder);
    let remove = "DELETE FROM accounts; DELETE FROM pending; INSERT INTO removed (account) VALUES (1)";
    connection.execute_batch(remove).expect("it is written");
    drop(connection);
    let store = open(&folder);
    until("the log is empty", || {
        raw(&folder).query_row("SELECT count(*) FROM removed", [], |row| row.get::<_, i64>(0)) == Ok(0)
    });
    assert_eq!(store.figures().inbox_records, 0);
}

#[test]
fn of_a_removed_account_no_row_is_left_and_no_byte_in_a_copy() {
    use store_sqlite::remains;
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let juliet = bare("juliet@capulet.example");
    let secret = b"<message xmlns='jabber:client'><body>quoth the raven</body></message>";
    let of = |position| append(Record { stanza: secret.to_vec(), ..record(position) });
    commit(&store, (1..=300).map(of).collect()).expect("it is written");
    let (number, rows) = remains::of_account(folder.path(), &juliet).expect("can be read").expect("is there");
    assert_eq!((rows["log"], rows["accounts"]), (300, 1));
    commit(&store, vec![Change::AccountRemove { account: juliet.clone() }]).expect("it is written");
    until("nothing is left", || remains::of_number(folder.path(), number).is_ok_and(|rows| rows.is_empty()));
    assert_eq!(remains::of_account(folder.path(), &juliet), Ok(None));
    // (Fragments may be between rows of others; a file that is written anew has none.)
    let copy = folder.path().join("copy");
    wait(store.backup(&copy)).expect("it is written");
    let bytes = fs::read(copy).expect("it is there");
    assert!(!bytes.windows(16).any(|at| at == b"quoth the raven<"));
}

#[test]
fn records_are_counted_over_restarts() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    commit(&store, (1..=100).map(|position| append(record(position))).collect()).expect("it is written");
    drop(store);
    let store = open(&folder);
    commit(&store, vec![append(record(101))]).expect("it is written");
    until("101 records are counted", || store.figures().inbox_records == 101);
}

#[test]
fn a_read_that_nobody_waits_for_holds_up_nothing() {
    let folder = folder();
    let store = with_juliet(&folder, Options::default());
    let juliet = bare("juliet@capulet.example");
    for _ in 0..100 {
        let mut dropped = store.load_account(&juliet);
        let _ = dropped.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    }
    assert!(wait(store.load_account(&juliet)).is_ok_and(|found| found.is_some()));
}

#[test]
fn sql_is_never_put_together_from_values() {
    let sources = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("src")).expect("the sources are there");
    let mut seen = 0;
    for path in sources.map(|file| file.expect("it is there").path()).filter(|path| path.is_file()) {
        let text = fs::read_to_string(&path).expect("it is text");
        let text = text.split("mod tests").next().unwrap_or_default();
        for word in ["format!(", "concat!(", "push_str(", ".concat()", ".replace("] {
            for (at, _) in text.match_indices(word) {
                let line_start = text[..at].rfind('\n').unwrap_or(0);
                let statement = &text[line_start..text[at..].find(';').map_or(text.len(), |end| at + end)];
                for keyword in ["SELECT", "INSERT", "UPDATE", "DELETE", "PRAGMA", "WHERE"] {
                    assert!(!statement.contains(keyword), "{}: {statement}", path.display());
                }
                seen += 1;
            }
        }
    }
    assert!(seen > 10, "the sources were read");
}

// ---- words ----

fn said(position: i64, body: &str) -> Change {
    let stanza = format!("<message><body>{body}</body></message>").into_bytes();
    append(Record { stanza, pending: false, ..record(position) })
}

fn found(store: &SqliteStore, text: &str, backwards: bool) -> Vec<i64> {
    let query = PageQuery { text: Some(text.into()), limit: 10, backwards, ..PageQuery::default() };
    let page = wait(store.inbox_page(&bare("juliet@capulet.example"), &query)).expect("the store reads");
    page.records.iter().map(|record| record.position).collect()
}

/// The index follows when the writer is idle: looked at until it says so, with an end.
fn comes_to(store: &SqliteStore, text: &str, expected: &[i64]) {
    let until = Instant::now() + Duration::from_secs(20);
    while found(store, text, false) != expected {
        assert!(Instant::now() < until, "{text}: {:?}", found(store, text, false));
        std::thread::sleep(Duration::from_millis(5));
    }
}

// XEP-0431.
#[test]
fn words_are_found_in_the_account_that_has_them_and_leave_with_their_messages() {
    let folder = folder();
    // Before it is switched on.
    let store = with_juliet(&folder, Options::default());
    commit(&store, vec![said(1, "Wherefore art thou Romeo?")]).expect("it grows");
    wait(store.close()).expect("it closes");

    let store = open_with(&folder, Options { fulltext: true, ..Options::default() });
    commit(&store, vec![create("nurse@capulet.example")]).expect("it is new");
    let nurses = Record { stanza: b"<message><body>romeo</body></message>".to_vec(), pending: false, ..record(1) };
    commit(&store, vec![Change::Append { account: bare("nurse@capulet.example"), record: nurses }]).expect("it grows");
    commit(&store, vec![said(2, "Romeo, doff thy name"), said(3, "r\u{f4}meo"), said(4, "a rose")]).expect("it grows");
    comes_to(&store, "romeo", &[1, 2, 3]);
    assert_eq!(found(&store, "romeo", true), [1, 2, 3]);
    assert_eq!(found(&store, "NAME romeo", false), [2]);
    assert_eq!(found(&store, "tybalt", false), []);
    assert_eq!(found(&store, "\"*", false), []);

    let juliet = || bare("juliet@capulet.example");
    let tombstone = b"<message><retracted xmlns='urn:xmpp:message-retract:1' id='r'/></message>".to_vec();
    commit(&store, vec![Change::Rewrite { account: juliet(), position: 2, stanza: tombstone }]).expect("it is there");
    assert_eq!(found(&store, "romeo", false), [1, 3]);
    // All go; the next record may be given the place of one of them.
    commit(&store, vec![Change::Prune { account: juliet(), up_to: 4 }]).expect("they are there");
    assert_eq!(found(&store, "romeo", false), []);
    commit(&store, vec![said(5, "no more of romeo")]).expect("it grows");
    comes_to(&store, "romeo", &[5]);
    assert_eq!(found(&store, "rose", false), []);
}
