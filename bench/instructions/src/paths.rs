//! The paths whose instructions are counted; each does its work so many times.

use crate::house::{DOMAIN, House};
use std::sync::mpsc;
use store::{Change, Credentials, Direction, Fence, Outcome, Partition, Record, Store};
use store_sqlite::{Options, SqliteStore};
use xmpp::{BareJid, Jid, Stamp};

/// Name, and the numbers of operations that are compared.
pub const PATHS: &[(&str, [u64; 2])] =
    &[("message", [200, 1_200]), ("broadcast", [10, 60]), ("login", [20, 120]), ("append", [500, 2_500])];

const WATCHERS: usize = 10;
/// Appends that are committed together.
const BATCH: u64 = 20;

pub fn walk(path: &str, count: u64) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime can be built");
    match path {
        "message" => runtime.block_on(message(count)),
        "broadcast" => runtime.block_on(broadcast(count)),
        "login" => runtime.block_on(login(count)),
        "append" => append(count),
        other => panic!("no path {other}"),
    }
}

/// Parse, route, write: a chat message of 100 characters from one client to another.
async fn message(count: u64) {
    let house = House::start().await;
    let (romeo, mut juliet) = (house.come("romeo").await, house.come("juliet").await);
    let text = "x".repeat(100);
    let message = format!("<message to='juliet@{DOMAIN}/r' type='chat' id='m'><body>{text}</body></message>");
    for _ in 0..count {
        romeo.send(&message);
        juliet.hear("</message>", 1).await;
    }
}

/// A presence that changes, to ten who see it.
async fn broadcast(count: u64) {
    let house = House::start().await;
    let mut star = house.come("star").await;
    let mut watchers = Vec::new();
    for n in 0..WATCHERS {
        let mut watcher = house.come(&format!("watcher{n}")).await;
        watcher.send(&format!("<presence type='subscribe' to='star@{DOMAIN}'/>"));
        star.hear("type='subscribe'", 1).await;
        star.send(&format!("<presence type='subscribed' to='watcher{n}@{DOMAIN}'/>"));
        watcher.hear(&format!("<presence from='star@{DOMAIN}/r'"), 1).await;
        watchers.push(watcher);
    }
    for round in 0..count {
        let status = format!("<status>round-{round}-</status>");
        star.send(&format!("<presence>{status}</presence>"));
        for watcher in &mut watchers {
            watcher.hear(&status, 1).await;
        }
    }
}

/// SCRAM-SHA-256 (its hashing is not counted), binding, first presence, end.
async fn login(count: u64) {
    let house = House::start().await;
    house.register("romeo").await;
    for _ in 0..count {
        let mut romeo = house.login("romeo").await;
        romeo.ask("<presence/>", "<presence").await;
        romeo.ask("</stream:stream>", "</stream:stream>").await;
    }
}

/// Messages into inboxes of the store: the row, its pending mark, its key against doubles.
fn append(count: u64) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let store = SqliteStore::open(folder.path(), Options::default()).expect("the store opens");
    let fence = Fence { partition: Partition(0), epoch: store.epoch() };
    let commit = |changes: Vec<Change>| {
        let (say, hear) = mpsc::channel();
        store.commit(fence, changes, Box::new(move |outcome| drop(say.send(outcome))));
        let outcomes = hear.recv().expect("it answers").expect("it commits");
        assert!(outcomes.iter().all(|it| *it == Outcome::Done));
    };
    let accounts: Vec<BareJid> =
        (0..BATCH).map(|n| BareJid::parse(&format!("user{n}@{DOMAIN}")).expect("it is a JID")).collect();
    let nothing = || Credentials { scram_sha1: None, scram_sha256: None };
    let create =
        |it: &BareJid| Change::AccountCreate { account: it.clone(), credentials: nothing(), created: Stamp(1) };
    commit(accounts.iter().map(create).collect());
    let peer = Jid::parse("juliet@capulet.example/balcony").expect("it is a JID");
    for batch in 0..count / BATCH {
        let append = |(n, account): (usize, &BareJid)| {
            let number = batch * BATCH + n as u64;
            let record = Record {
                position: 1_800_000_000_000_000 + number as i64,
                direction: Direction::Incoming,
                peer: peer.clone(),
                stanza: vec![b'x'; 500],
                pending: true,
                archived: true,
                dedupe: Some((u128::from(number) << 64 | 7).to_be_bytes()),
                expires: None,
            };
            Change::Append { account: account.clone(), record }
        };
        commit(accounts.iter().enumerate().map(append).collect());
    }
}
