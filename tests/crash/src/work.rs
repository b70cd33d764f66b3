//! A fixed piece of work on the store alone, done by a process of its own that may die at any of its writes; and the
//! comparison of what it left with what it was told.
//!
//! The calls are a function of the seed. What is found must be what the calls make that were done, in their order,
//! and of those without an answer the first few, each whole: it is compared with the store in memory, to which the
//! same calls were given.

use crate::disk::layout::MARKS;
use crate::random::Random;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use store::memory::MemoryStore;
use store::*;
use store_sqlite::{Options, SqliteStore};
use xmpp::{BareJid, Jid, Stamp};

/// How the process ends.
pub const FINISHED: u8 = 0;
/// The store said that it writes no more.
pub const FATAL: u8 = 10;
/// The store could not be opened, and said why.
pub const NOT_OPENED: u8 = 11;

const ACCOUNTS: u64 = 4;
const CALLS: usize = 120;
/// The store is closed and opened again so often on the way.
const PARTS: usize = 3;
const IN_FLIGHT_MAX: usize = 6;
/// The time, which stands still. Microseconds since 1970.
const NOW: i64 = 1_800_000_000_000_000;
const SPACE: &str = "private";
const KEYS: u64 = 3;

fn clock() -> Stamp {
    Stamp(NOW)
}

pub fn options() -> Options {
    Options { clock, ..Options::default() }
}

fn account(host: &str, index: u64) -> BareJid {
    BareJid::parse(&format!("a{index}@{host}")).expect("a bare JID of ours")
}

fn keys(seed: u64) -> ScramKeys {
    let bytes = |n: u64| (seed ^ n).to_be_bytes().repeat(4);
    ScramKeys { salt: bytes(1), iterations: 4096 + seed as u32 % 9, stored_key: bytes(2), server_key: bytes(3) }
}

/// The calls, one after the other.
pub fn calls(host: &str, seed: u64) -> Vec<Vec<Change>> {
    let mut random = Random::new(seed, 77);
    let mut plan = Plan { host, random: &mut random, positions: BTreeMap::new(), last: NOW, version: 0 };
    let mut calls: Vec<Vec<Change>> = (0..ACCOUNTS).map(|index| vec![plan.create(index)]).collect();
    while calls.len() < CALLS {
        let many = if plan.random.one_in(8) { 12 } else { 1 + plan.random.below(3) };
        let mut call: Vec<Change> = (0..many).map(|_| plan.change()).collect();
        new_beside_blobs(&mut call);
        calls.push(call);
    }
    calls
}

/// What is put beside a record belongs to it, and was written with it when the record is there already
/// ([`Store::commit`]): beside a record with the key of an earlier one there is no other blob.
fn new_beside_blobs(call: &mut [Change]) {
    if !call.iter().any(|change| matches!(change, Change::BlobPut { .. })) {
        return;
    }
    for change in call {
        if let Change::Append { record: Record { dedupe: Some(key), position, .. }, .. } = change {
            key[..8].copy_from_slice(&position.to_be_bytes());
        }
    }
}

struct Plan<'r> {
    host: &'r str,
    random: &'r mut Random,
    positions: BTreeMap<u64, Vec<i64>>,
    last: i64,
    version: u64,
}

impl Plan<'_> {
    fn create(&mut self, index: u64) -> Change {
        let seed = self.random.next();
        let credentials = Credentials { scram_sha1: Some(keys(seed)), scram_sha256: Some(keys(seed + 1)) };
        Change::AccountCreate { account: account(self.host, index), credentials, created: Stamp(NOW) }
    }

    fn change(&mut self) -> Change {
        let index = self.random.below(ACCOUNTS);
        let account = account(self.host, index);
        let n = self.random.next();
        let contact = BareJid::parse(&format!("c{}@contacts.example", n % 5)).expect("a bare JID of ours");
        self.version += 1;
        let version = self.version;
        match self.random.below(40) {
            0..=19 => self.append(index, account),
            20..=24 => {
                let known = self.positions.get(&index).map_or(&[][..], Vec::as_slice);
                let taken = known.iter().filter(|position| (**position as u64).wrapping_mul(n | 1) >> 62 == 0);
                Change::Taken { account, positions: taken.copied().collect() }
            }
            25..=26 => {
                let name = Some(format!("name {version}").into());
                let groups = vec!["a group".into(), format!("{n}").into()];
                let subscription = Subscription { to: n & 1 == 1, from: n & 2 == 2, ..Subscription::default() };
                let item = RosterItem { jid: contact, name, groups, subscription, listed: true, version };
                Change::RosterPut { account, item, version }
            }
            27 => Change::RosterDelete { account, contact, version },
            28 => Change::RequestPut { account, contact, stanza: vec![b'r'; 40], received: Stamp(NOW) },
            29..=31 => Change::BlobPut {
                account,
                space: SPACE.into(),
                key: format!("k{}", n % KEYS).into(),
                value: vec![n as u8; (n >> 8) as usize % 9_000],
            },
            32 => Change::BlobDelete { account, space: SPACE.into(), key: format!("k{}", n % KEYS).into() },
            33 => Change::BlockPut { account, jid: Jid::from(contact) },
            34 => Change::BlockDelete { account, jid: Jid::from(contact) },
            35 => Change::LastActivity { account, left: Stamp(NOW + (n % 1_000) as i64), status: "gone".into() },
            36 => {
                let credentials = Credentials { scram_sha1: None, scram_sha256: Some(keys(n)) };
                Change::CredentialsSet { account, credentials }
            }
            37 => {
                let up_to = self.positions.get(&index).and_then(|all| all.get(all.len() / 2)).copied().unwrap_or(0);
                Change::Prune { account, up_to }
            }
            38 => Change::SessionPut {
                account,
                row: SessionRow {
                    resource: format!("r{}", n % 3).into(),
                    // Of an earlier process, so that every one sees it.
                    epoch: 0,
                    resume_id_hash: vec![n as u8; 32],
                    presence: b"<presence/>".to_vec(),
                    directed: vec![Jid::from(contact)],
                    since: Stamp(NOW),
                    received: None,
                },
            },
            _ if n.is_multiple_of(4) => {
                self.positions.remove(&index);
                Change::AccountRemove { account }
            }
            _ => self.create(index),
        }
    }

    fn append(&mut self, index: u64, account: BareJid) -> Change {
        let n = self.random.next();
        self.last += 1 + (n % 100) as i64;
        let position = self.last;
        self.positions.entry(index).or_default().push(position);
        // Now and then the key of an earlier one.
        let key = if n.is_multiple_of(5) { n % 7 } else { position as u64 };
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&key.to_be_bytes());
        bytes[8..].copy_from_slice(&index.to_be_bytes());
        let (pending, archived) = [(true, true), (true, false), (false, true), (true, true)][(n >> 8) as usize % 4];
        let record = Record {
            position,
            direction: if pending { Direction::Incoming } else { Direction::Outgoing },
            peer: Jid::parse(&format!("b{}@peers.example/r", n % 3)).expect("a JID of ours"),
            stanza: format!("<message><body>{}</body></message>", "x".repeat((n >> 16) as usize % 900)).into_bytes(),
            pending,
            archived,
            dedupe: (!n.is_multiple_of(3)).then_some(bytes),
            expires: None,
        };
        Change::Append { account, record }
    }
}

// ---- the process ----

/// How many calls wait for an answer; and was one of them that nothing is written any more?
#[derive(Default)]
struct Flight {
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl Flight {
    fn change(&self, change: impl FnOnce(&mut (usize, bool))) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_all();
    }

    /// Waits until there are at most so many; is it over?
    fn down_to(&self, most: usize) -> bool {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        self.changed.wait_while(state, |(count, _)| *count > most).unwrap_or_else(PoisonError::into_inner).1
    }
}

/// Does the work, and says in the file of marks what was asked (`s`), done (`d`), refused (`f`), unanswered (`x`).
pub fn run(folder: &Path, host: &str, seed: u64) -> ExitCode {
    let marks = match File::options().create(true).truncate(false).write(true).open(folder.join(MARKS)) {
        Ok(mut file) => {
            // Behind what an earlier process wrote.
            if let Err(error) = io::Seek::seek(&mut file, io::SeekFrom::End(0)) {
                eprintln!("no marks can be made: {error}");
                return ExitCode::FAILURE;
            }
            Arc::new(Mutex::new(file))
        }
        Err(error) => {
            eprintln!("no marks can be made: {error}");
            return ExitCode::FAILURE;
        }
    };
    let mark = move |what: char, host: &str, nth: usize| {
        let mut file = marks.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(format!("{what} {host} {nth}\n").as_bytes()).expect("the marks never fail");
    };
    let calls = calls(host, seed);
    let mut nth = 0;
    for part in calls.chunks(calls.len().div_ceil(PARTS)) {
        let store = match SqliteStore::open(folder, options()) {
            Ok(store) => store,
            Err(error) => {
                println!("{error}");
                return ExitCode::from(NOT_OPENED);
            }
        };
        let fence = Fence { partition: Key::Bare(account(host, 0)).partition(), epoch: store.epoch() };
        let flight = Arc::new(Flight::default());
        for call in part {
            if flight.down_to(IN_FLIGHT_MAX - 1) {
                break;
            }
            flight.change(|state| state.0 += 1);
            mark('s', host, nth);
            let (done, mark, host) = (flight.clone(), mark.clone(), host.to_owned());
            let answer = move |answer: Result<Vec<Outcome>, StoreError>| {
                mark(
                    match &answer {
                        Ok(outcomes) if outcomes.iter().any(|it| matches!(it, Outcome::Duplicate(_))) => 'a',
                        Ok(_) => 'd',
                        Err(StoreError::Fatal(_)) => 'x',
                        Err(_) => 'f',
                    },
                    &host,
                    nth,
                );
                done.change(|(count, over)| {
                    *count -= 1;
                    *over |= matches!(answer, Err(StoreError::Fatal(_)));
                });
            };
            store.commit(fence, call.clone(), Box::new(answer));
            nth += 1;
        }
        let mut over = flight.down_to(0);
        let _ = wait(store.close());
        over |= store.fatal().is_some();
        if over {
            return ExitCode::from(FATAL);
        }
    }
    ExitCode::from(FINISHED)
}

/// Waits for a reply of the store.
pub fn wait<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut context = std::task::Context::from_waker(&waker);
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut context) {
            std::task::Poll::Ready(value) => return value,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

// ---- what it left ----

/// What became of each call, by the marks.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    /// It was there already. A store that has failed says so, too: what was asked before may be open.
    Again,
    Refused,
    /// Asked, and no answer came, or that nobody knows.
    Open,
}

fn fates(marks: &[u8], host: &str) -> Vec<Fate> {
    let mut fates = Vec::new();
    for line in String::from_utf8_lossy(marks).lines() {
        let mut words = line.split(' ');
        let (Some(what), Some(of), Some(Ok(nth))) = (words.next(), words.next(), words.next().map(str::parse::<usize>))
        else {
            continue;
        };
        if of != host {
            continue;
        }
        match what {
            "s" => fates.push(Fate::Open),
            "d" => fates[nth] = Fate::Done,
            "a" => fates[nth] = Fate::Again,
            "f" => fates[nth] = Fate::Refused,
            _ => {}
        }
    }
    fates
}

/// Opens what was left as the next process would, and compares. Gives what is wrong.
pub fn compare(folder: &Path, marks: &[u8], works: &[(&str, u64)]) -> Vec<String> {
    let store = match SqliteStore::open(folder, options()) {
        Ok(store) => store,
        Err(error) => return vec![format!("it cannot be opened any more: {error}")],
    };
    let mut wrong = Vec::new();
    match wait(store.integrity()) {
        Ok(lines) => wrong.extend(lines.into_iter().map(|line| format!("integrity: {line}"))),
        Err(error) => wrong.push(format!("integrity: {error}")),
    }
    for (host, seed) in works {
        if let Err(what) = compare_host(&store, marks, host, *seed) {
            wrong.push(what);
        }
    }
    let quarantined = store.figures().quarantined;
    if quarantined > 0 {
        wrong.push(format!("{quarantined} rows are in quarantine"));
    }
    wrong
}

fn compare_host(store: &SqliteStore, marks: &[u8], host: &str, seed: u64) -> Result<(), String> {
    let fates = fates(marks, host);
    let calls = calls(host, seed);
    let found = print(store, host);
    let model = MemoryStore::new();
    let fence = Fence { partition: Key::Bare(account(host, 0)).partition(), epoch: model.epoch() };
    let last = fates.iter().rposition(|fate| *fate == Fate::Done);
    let mut resent = Vec::new();
    let mut open = 0;
    for (nth, (fate, call)) in fates.iter().zip(&calls).enumerate() {
        let before_last = last.is_some_and(|last| nth <= last);
        if !before_last && found == print(&model, host) {
            break;
        }
        match fate {
            Fate::Refused => continue,
            Fate::Open if before_last => {
                return Err(format!("call {nth} of {host} has no answer, and a later one was done"));
            }
            Fate::Open => open += 1,
            Fate::Done | Fate::Again => {}
        }
        model.commit(fence, call.clone(), Box::new(drop));
        resent = call.clone();
    }
    let expected = print(&model, host);
    if found != expected {
        let differs = found.lines().zip(expected.lines()).find(|(found, expected)| found != expected);
        let (found, expected) = differs.unwrap_or(("(its length)", "(its length)"));
        let (found, expected) = around_difference(found, expected);
        return Err(format!(
            "{host} differs; of {} calls {open} open, not done {:?}:\n  found    {found}\n  expected {expected}",
            fates.len(),
            fates.iter().enumerate().filter(|(_, fate)| **fate != Fate::Done).collect::<Vec<_>>()
        ));
    }
    // The keys of the last call are known: what it appended is recognised.
    let keyed = |change: &Change| match change {
        Change::Append { account, record } if record.dedupe.is_some() => Some((account.clone(), record.clone())),
        _ => None,
    };
    let again: Vec<Change> = resent
        .iter()
        .filter_map(keyed)
        .map(|(account, record)| Change::Append { account, record: Record { position: i64::MAX, ..record } })
        .take(1)
        .collect();
    for change in again {
        let ask = |store: &dyn Store, epoch| {
            let (say, hear) = std::sync::mpsc::channel();
            let done = move |answer| drop(say.send(answer));
            store.commit(Fence { epoch, ..fence }, vec![change.clone()], Box::new(done));
            hear.recv().expect("done is called")
        };
        let (found, expected) = (ask(store, store.epoch()), ask(&model, model.epoch()));
        if found != expected {
            return Err(format!("what came last to {host} is sent again: {found:?} instead of {expected:?}"));
        }
    }
    Ok(())
}

/// A part of both lines, short enough to be read.
fn around_difference(found: &str, expected: &str) -> (String, String) {
    const BEFORE: usize = 60;
    const AFTER: usize = 100;
    let same = found.chars().zip(expected.chars()).take_while(|(a, b)| a == b).count();
    let part = |text: &str| text.chars().skip(same.saturating_sub(BEFORE)).take(BEFORE + AFTER).collect();
    (part(found), part(expected))
}

/// All that the store in a folder has of a host.
pub fn print_of(folder: &Path, host: &str) -> io::Result<String> {
    let store = SqliteStore::open(folder, options()).map_err(io::Error::other)?;
    Ok(print(&store, host))
}

/// All that a store has of a host, a line a thing.
fn print(store: &dyn Store, host: &str) -> String {
    let mut text = String::new();
    let accounts = wait(store.accounts(host, "", usize::MAX)).unwrap_or_default();
    for summary in accounts {
        let account = &summary.account;
        let _ = writeln!(text, "{summary:?}");
        let loaded = wait(store.load_account(account));
        let _ = writeln!(text, "{loaded:?}");
        match wait(store.login(account)).map(|login| login.map(|login| login.credentials)) {
            Ok(Some(Credentials { scram_sha1, scram_sha256 })) => {
                for keys in [scram_sha1, scram_sha256].into_iter().flatten() {
                    let ScramKeys { salt, iterations, stored_key, server_key } = keys;
                    let _ = writeln!(text, "{account} {iterations} {salt:?} {stored_key:?} {server_key:?}");
                }
            }
            other => {
                let _ = writeln!(text, "{account} {other:?}");
            }
        }
        match wait(store.inbox_after(account, 0, false, usize::MAX)) {
            Ok(records) => {
                for record in records {
                    let _ = writeln!(text, "{account} {record:?}");
                }
            }
            Err(error) => {
                let _ = writeln!(text, "{account} {error:?}");
            }
        }
        for key in (0..KEYS).map(|key| format!("k{key}")) {
            let _ = writeln!(text, "{account} {key} {:?}", wait(store.blob(account, SPACE, &key)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary folder can be made")
    }

    #[test]
    fn work_without_a_fault_leaves_what_the_model_says() {
        let folder = folder();
        run(folder.path(), "a.example", 1);
        let marks = std::fs::read(folder.path().join(MARKS)).expect("there are marks");
        assert!(fates(&marks, "a.example").iter().all(|fate| matches!(fate, Fate::Done | Fate::Again)));
        assert_eq!(compare(folder.path(), &marks, &[("a.example", 1)]), Vec::<String>::new());
    }

    #[test]
    fn a_call_that_was_done_and_is_not_there_is_found_out() {
        let folder = folder();
        run(folder.path(), "a.example", 1);
        let mut marks = std::fs::read(folder.path().join(MARKS)).expect("there are marks");
        marks.truncate(marks.len() / 2);
        let cut = fates(&marks, "a.example");
        assert!(cut.len() < CALLS);
        assert_ne!(compare(folder.path(), &marks, &[("a.example", 1)]), Vec::<String>::new());
    }
}
