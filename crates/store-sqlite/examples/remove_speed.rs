//! How long commits of others wait while the archive of a removed account is deleted in pieces, or an archive is cut.
//!
//! `cargo run --release -p store-sqlite --example remove_speed [MEGABYTES [cut]]` (default 100). Latencies of one commit
//! after the other, before the removal and while it goes on. With `cut` all of the archive leaves it for its age, as many
//! records at once as one look at it may remove.

use std::sync::mpsc;
use std::time::{Duration, Instant};
use store::contract::{bare, create, jid, wait};
use store::{Change, Direction, Fence, Partition, Record, Store};
use store_sqlite::{Options, SqliteStore};

const STANZA_BYTES: usize = 500;
const BATCH: i64 = 1_000;
const BEFORE: usize = 2_000;

fn main() {
    let megabytes: i64 = std::env::args().nth(1).map_or(100, |word| word.parse().expect("a number"));
    let cuts = std::env::args().nth(2).is_some_and(|word| word == "cut");
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    let store = SqliteStore::open(folder.path(), Options::default()).expect("the store opens");
    let rows = (megabytes << 20) / STANZA_BYTES as i64;
    commit(&store, vec![create("gone@example.org"), create("stays@example.org")]);
    for first in (1..=rows).step_by(BATCH as usize) {
        let changes = (first..(first + BATCH).min(rows + 1)).map(|position| append("gone@example.org", position));
        commit(&store, changes.collect());
    }
    println!("{rows} rows, {} MB", store.figures().file_bytes >> 20);
    let mut position = 0;
    let mut one = || {
        position += 1;
        commit(&store, vec![append("stays@example.org", position)])
    };
    report("before", (0..BEFORE).map(|_| one()).collect());
    let began = Instant::now();
    let account = bare("gone@example.org");
    let cut = Change::Trim { account: account.clone(), before: i64::MAX, records_max: None, bytes_max: u64::MAX };
    let removal = if cuts { cut.clone() } else { Change::AccountRemove { account } };
    println!("the removal itself took {:?}", commit(&store, vec![removal]));
    let mut while_removing = Vec::new();
    let mut others = 0;
    let mut left = rows as u64;
    while store.figures().inbox_records > others + BEFORE as u64 {
        while_removing.push(one());
        others += 1;
        let now_left = store.figures().inbox_records.saturating_sub(others + BEFORE as u64);
        if cuts && left.saturating_sub(now_left) >= store::TRIM_MAX as u64 {
            left = now_left;
            while_removing.push(commit(&store, vec![cut.clone()]));
        }
    }
    println!("the log was gone after {:.1?}", began.elapsed());
    report("meanwhile", while_removing);
    wait(store.close()).expect("it closes");
}

fn append(account: &str, position: i64) -> Change {
    let record = Record {
        position,
        direction: Direction::Incoming,
        peer: jid("romeo@example.org/orchard"),
        stanza: vec![b'x'; STANZA_BYTES],
        pending: false,
        archived: true,
        dedupe: None,
        expires: None,
    };
    Change::Append { account: bare(account), record }
}

fn commit(store: &SqliteStore, changes: Vec<Change>) -> Duration {
    let (say, hear) = mpsc::channel();
    let began = Instant::now();
    let done = move |answer: Result<_, _>| say.send(answer.is_ok()).expect("it is waited for");
    store.commit(Fence { partition: Partition(0), epoch: store.epoch() }, changes, Box::new(done));
    assert_eq!(hear.recv(), Ok(true));
    began.elapsed()
}

fn report(when: &str, mut latencies: Vec<Duration>) {
    latencies.sort_unstable();
    let at = |per_mille: usize| latencies[(latencies.len() * per_mille / 1_000).min(latencies.len() - 1)];
    println!(
        "{when}: {} commits, p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
        latencies.len(),
        at(500),
        at(990),
        at(999),
        at(1_000)
    );
}
