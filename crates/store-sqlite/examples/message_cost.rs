//! What a message between two accounts here costs the store, for counting instructions: a row in the sender's log, one
//! in the recipient's with pending mark and dedupe key, and later the mark cleared.
//!
//! ```text
//! cargo build --release -p store-sqlite --example message_cost
//! valgrind --tool=callgrind target/release/examples/message_cost MESSAGES BATCH
//! ```
//! The same work each time; run it with two numbers of messages and take the difference. A batch is one transaction.

use std::sync::mpsc;
use store::contract::{create, wait};
use store::{Change, Direction, Fence, Partition, Record, Store};
use store_sqlite::{Durability, Options, SqliteStore};
use xmpp::{BareJid, Jid};

const PAIRS: u64 = 100;
/// Of the body.
const TEXT_BYTES: usize = 100;
/// Microseconds since 1970.
const START: i64 = 1_800_000_000_000_000;

fn main() {
    let mut arguments = std::env::args().skip(1).map(|word| word.parse::<u64>().expect("a number"));
    let messages = arguments.next().unwrap_or(10_000);
    let batch = arguments.next().unwrap_or(50).max(1);
    let folder = tempfile::tempdir().expect("there is a folder for temporary files");
    // A sync costs time, and nearly no instructions.
    let options = Options { durability: Durability::Os, ..Options::default() };
    let store = SqliteStore::open(folder.path(), options).expect("the store opens");
    let fence = Fence { partition: Partition(0), epoch: store.epoch() };
    let name = |side: char, pair: u64| format!("{side}{pair}@example.org");
    let accounts = ['a', 'b'].map(|side| (0..PAIRS).map(|pair| name(side, pair)).collect::<Vec<_>>());
    commit(&store, fence, accounts.iter().flatten().map(|name| vec![create(name)]).collect());
    let bare = accounts.each_ref().map(|side| side.iter().map(|name| jid::<BareJid>(name)).collect::<Vec<_>>());
    let mut taken: Vec<(usize, usize, i64)> = Vec::new();
    for first in (0..messages).step_by(batch as usize) {
        let mut calls = Vec::new();
        for nth in first..(first + batch).min(messages) {
            let (pair, way) = ((nth % PAIRS) as usize, (nth / PAIRS % 2) as usize);
            let position = START + nth as i64 * 50;
            for (owner, direction) in [(way, Direction::Outgoing), (1 - way, Direction::Incoming)] {
                let incoming = direction == Direction::Incoming;
                let peer: Jid = jid(&format!("{}/phone-{pair}", accounts[1 - owner][pair]));
                let mut key = [0; 16];
                key[..8].copy_from_slice(&nth.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
                key[8..].copy_from_slice(&(nth + 1).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
                let stanza = format!(
                    "<message from='{}/phone-{pair}' to='{}' type='chat' id='m{nth}'><body>{}</body></message>",
                    accounts[way][pair],
                    accounts[1 - way][pair],
                    "x".repeat(TEXT_BYTES)
                );
                let record = Record {
                    position,
                    direction,
                    peer,
                    stanza: stanza.into_bytes(),
                    pending: incoming,
                    archived: true,
                    dedupe: Some(key),
                    expires: None,
                };
                calls.push(vec![Change::Append { account: bare[owner][pair].clone(), record }]);
                if incoming {
                    taken.push((owner, pair, position));
                }
            }
        }
        // What came with the batch before is acknowledged, an account at a time.
        if first / batch % 8 == 7 {
            for (side, accounts) in bare.iter().enumerate() {
                for (pair, account) in accounts.iter().enumerate() {
                    let of = |it: &&(usize, usize, i64)| it.0 == side && it.1 == pair;
                    let positions: Vec<i64> = taken.iter().filter(of).map(|it| it.2).collect();
                    if !positions.is_empty() {
                        calls.push(vec![Change::Taken { account: account.clone(), positions }]);
                    }
                }
            }
            taken.clear();
        }
        commit(&store, fence, calls);
    }
    wait(store.close()).expect("it closes");
}

fn jid<T: std::str::FromStr>(text: &str) -> T {
    text.parse().unwrap_or_else(|_| panic!("{text} is no JID"))
}

/// One batch.
fn commit(store: &SqliteStore, fence: Fence, calls: Vec<Vec<Change>>) {
    let (say, hear) = mpsc::channel();
    let count = calls.len();
    for changes in calls {
        let say = say.clone();
        let done = move |answer: Result<_, _>| say.send(answer.is_ok()).expect("it is waited for");
        store.commit_soon(fence, changes, Box::new(done));
    }
    store.go();
    assert!(hear.iter().take(count).all(|done| done), "the disk is well");
}
