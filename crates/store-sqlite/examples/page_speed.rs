//! How fast a page of a large archive is read.
//!
//! `cargo run --release -p store-sqlite --example page_speed [ROWS [FOLDER]]`: ROWS messages of one account (default a million)
//! with 200 others, in FOLDER (default a temporary one; what is there already is used). Most were exchanged with few: the
//! n-th partner has about 1/n of the first one's. Each line is 200 pages of 50 messages at random places.

use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use store::contract::wait;
use store::{Change, Credentials, Direction, Fence, PageQuery, Partition, Record, Store};
use store_sqlite::{Options, SqliteStore};
use xmpp::{BareJid, Jid, Stamp};

const PARTNERS: u64 = 200;
const STANZA_BYTES: usize = 500;
const BATCH: i64 = 2_000;
const SAMPLES: usize = 200;
/// Half a minute between messages: a million are a year.
const STEP: i64 = 30_000_000;
const BEGAN: i64 = 1_735_689_600_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows: i64 = arguments.next().map_or(1_000_000, |rows| rows.parse().expect("ROWS is a number"));
    let temporary = tempfile::tempdir().expect("there is a folder for temporary files");
    let folder = arguments.next().map_or(temporary.path().to_path_buf(), PathBuf::from);
    let store = SqliteStore::open(&folder, Options::default()).expect("the store opens");
    let account = BareJid::parse("juliet@capulet.example").expect("it is a JID");
    if store.figures().accounts == 0 {
        let loading = Instant::now();
        load(&store, &account, rows);
        println!("loaded {rows} messages in {:.1?}", loading.elapsed());
    }
    let partner = |n: u64| Jid::parse(&format!("partner{n}@montague.example")).expect("it is a JID");
    let place = |random: u64| BEGAN + (random % rows as u64) as i64 * STEP;
    println!("| page | p50 µs | p99 µs | max µs |");
    println!("|---|---|---|---|");
    let page = PageQuery { limit: 50, ..PageQuery::default() };
    report(&store, &account, "the last", |_| PageQuery { backwards: true, ..page.clone() });
    report(&store, &account, "behind an id", |random| PageQuery { after: Some(place(random)), ..page.clone() });
    report(&store, &account, "before an id", |random| PageQuery {
        before: Some(place(random)),
        backwards: true,
        ..page.clone()
    });
    report(&store, &account, "from a time", |random| PageQuery { start: Some(Stamp(place(random))), ..page.clone() });
    report(&store, &account, "one by its id", |random| PageQuery { ids: vec![place(random)], ..page.clone() });
    for n in [1, 10, 200] {
        report(&store, &account, &format!("the last with partner {n}"), |_| PageQuery {
            with: Some(partner(n)),
            backwards: true,
            ..page.clone()
        });
        report(&store, &account, &format!("with partner {n} before an id"), |random| PageQuery {
            with: Some(partner(n)),
            before: Some(place(random)),
            backwards: true,
            ..page.clone()
        });
    }
    let counted = PageQuery { backwards: true, want_count: true, ..page.clone() };
    report(&store, &account, "the last, counted", |_| counted.clone());
    for n in [1, 10, 200] {
        let with = Some(partner(n));
        report(&store, &account, &format!("the last with partner {n}, counted"), |_| PageQuery {
            with: with.clone(),
            ..counted.clone()
        });
    }
    let with = Jid::parse("partner10@montague.example/r").ok();
    report(&store, &account, "the last with a resource of partner 10, counted", |_| PageQuery {
        with: with.clone(),
        ..counted.clone()
    });
    let days = |random: u64| Some(Stamp(place(random)));
    report(&store, &account, "a week, counted", |random| PageQuery {
        start: days(random),
        end: days(random).map(|start| start.plus_seconds(7 * 86_400)),
        ..counted.clone()
    });
    wait(store.close()).expect("it closes");
}

fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// The n-th partner with a weight of 1/n.
fn partner(random: u64) -> u64 {
    let total: f64 = (1..=PARTNERS).map(|n| 1.0 / n as f64).sum();
    let mut left = (random % 1_000_000) as f64 / 1_000_000.0 * total;
    for n in 1..=PARTNERS {
        left -= 1.0 / n as f64;
        if left <= 0.0 {
            return n;
        }
    }
    PARTNERS
}

fn load(store: &SqliteStore, account: &BareJid, rows: i64) {
    let fence = Fence { partition: Partition(0), epoch: store.epoch() };
    let (done, told) = mpsc::sync_channel(64);
    let mut under_way = 0;
    let mut commit = |changes: Vec<Change>| {
        let done = done.clone();
        store.commit(fence, changes, Box::new(move |result| done.send(result).expect("it is waited for")));
        under_way += 1;
        if under_way >= 16 {
            told.recv().expect("it is told").expect("it is written");
            under_way -= 1;
        }
    };
    let credentials = Credentials { scram_sha1: None, scram_sha256: None };
    commit(vec![Change::AccountCreate { account: account.clone(), credentials, created: Stamp(BEGAN) }]);
    let mut random = 7;
    for first in (0..rows).step_by(BATCH as usize) {
        let batch = (first..rows.min(first + BATCH)).map(|n| {
            let peer = Jid::parse(&format!("partner{}@montague.example/r", partner(next(&mut random)))).expect("a JID");
            let text = format!("<message from='{peer}' to='{account}' type='chat'><body>{n} ");
            let stanza = format!("{text:x<width$}</body></message>", width = STANZA_BYTES - 17).into_bytes();
            let (direction, pending, archived) = (Direction::Incoming, false, true);
            let position = BEGAN + n * STEP;
            let record = Record { position, direction, peer, stanza, pending, archived, dedupe: None, expires: None };
            Change::Append { account: account.clone(), record }
        });
        commit(batch.collect());
    }
    while under_way > 0 {
        told.recv().expect("it is told").expect("it is written");
        under_way -= 1;
    }
}

fn report(store: &SqliteStore, account: &BareJid, name: &str, query: impl Fn(u64) -> PageQuery) {
    let mut random = 42;
    let mut times: Vec<Duration> = (0..SAMPLES)
        .map(|_| {
            let query = query(next(&mut random));
            let began = Instant::now();
            let page = wait(store.inbox_page(account, &query)).expect("a page");
            let time = began.elapsed();
            assert!(page.records.len() <= query.limit);
            time
        })
        .collect();
    times.sort();
    let micros = |at: usize| times[at.min(SAMPLES - 1)].as_micros();
    println!("| {name} | {} | {} | {} |", micros(SAMPLES / 2), micros(SAMPLES * 99 / 100), micros(SAMPLES));
}
