//! How fast messages become durable: rows/s, CPU and latency of a commit, by how many are in flight.
//!
//! `cargo run --release -p store-sqlite --example append_speed [ROWS [FOLDER [MODE]]]`: ROWS are loaded beforehand (default a
//! million), in FOLDER (default a temporary one; what is there already is used). A row is a message of 500 bytes to one
//! of 10,000 accounts. MODE is `archive` (log alone), `pending` (log, pending mark, dedupe key) or `taken` (and the
//! mark cleared by a later call); default all.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::mpsc;
use std::time::{Duration, Instant};
use store::contract::wait;
use store::{Change, Credentials, Direction, Fence, Outcome, Partition, Record, Store};
use store_sqlite::{Options, SqliteStore};
use xmpp::{BareJid, Jid, Stamp};

const ACCOUNTS: u64 = 10_000;
const STANZA_BYTES: usize = 500;
const MODES: [&str; 3] = ["archive", "taken", "pending"];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rows: u64 = arguments.next().map_or(1_000_000, |rows| rows.parse().expect("ROWS is a number"));
    let temporary = tempfile::tempdir().expect("there is a folder for temporary files");
    let folder = arguments.next().map_or(temporary.path().to_path_buf(), PathBuf::from);
    let modes = arguments.next();
    let opening = Instant::now();
    let store = SqliteStore::open(&folder, Options::default()).expect("the store opens");
    println!("opened in {:?}", opening.elapsed());
    let mut load = Load::new(&store);
    if store.figures().accounts == 0 {
        load.create_accounts();
        let loading = Instant::now();
        load.run("archive", 2_000, rows);
        println!("loaded {rows} rows in {:.1?}", loading.elapsed());
    }
    println!("| mode | in flight | rows/s | CPU µs/row: all | writer | KB written/row | commit p50 | p99 | max |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for mode in MODES.into_iter().filter(|mode| modes.as_deref().is_none_or(|only| only == *mode)) {
        for in_flight in [1, 8, 100, 1_000] {
            let rows = [5_000, 20_000, 100_000, 200_000][(in_flight as f64).log10().floor() as usize];
            let report = load.run(mode, in_flight, rows);
            println!("| {mode} | {in_flight} | {report} |");
        }
    }
    let figures = store.figures();
    println!("{} records, {} MB", figures.inbox_records, figures.file_bytes >> 20);
    let closing = Instant::now();
    wait(store.close()).expect("it closes");
    println!("closed in {:?}", closing.elapsed());
}

struct Load<'s> {
    store: &'s SqliteStore,
    fence: Fence,
    accounts: Vec<BareJid>,
    peers: Vec<Jid>,
    position: i64,
    random: u64,
}

impl<'s> Load<'s> {
    fn new(store: &'s SqliteStore) -> Load<'s> {
        let account = |n| BareJid::parse(&format!("user{n}@capulet.example")).expect("it is a JID");
        let peer = |n| Jid::parse(&format!("friend{n}@montague.example/phone")).expect("it is a JID");
        let since = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970");
        Load {
            store,
            fence: Fence { partition: Partition(0), epoch: store.epoch() },
            accounts: (0..ACCOUNTS).map(account).collect(),
            peers: (0..ACCOUNTS).map(peer).collect(),
            position: since.as_micros() as i64,
            random: since.as_nanos() as u64 | 1,
        }
    }

    fn create_accounts(&self) {
        let create = |account: &BareJid| Change::AccountCreate {
            account: account.clone(),
            credentials: Credentials { scram_sha1: None, scram_sha256: None },
            created: Stamp(1),
        };
        let (say, hear) = mpsc::channel();
        let changes = self.accounts.iter().map(create).collect();
        self.store.commit(self.fence, changes, Box::new(move |outcome| say.send(outcome).expect("it is waited for")));
        hear.recv().expect("done is called").expect("the accounts are created");
    }

    /// xorshift.
    fn random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// The change and its account's number.
    fn append(&mut self, mode: &str) -> (Change, usize) {
        self.position += 1;
        let (account, peer) = (self.random() % ACCOUNTS, self.random() % ACCOUNTS);
        let key = [self.random().to_be_bytes(), self.random().to_be_bytes()].concat();
        let record = Record {
            position: self.position,
            direction: Direction::Incoming,
            peer: self.peers[peer as usize].clone(),
            stanza: vec![b'x'; STANZA_BYTES],
            pending: mode != "archive",
            archived: true,
            dedupe: (mode != "archive").then(|| key.try_into().expect("two words are 16 bytes")),
            expires: None,
        };
        (Change::Append { account: self.accounts[account as usize].clone(), record }, account as usize)
    }

    /// Keeps as many appends in flight until so many rows are durable.
    fn run(&mut self, mode: &str, in_flight: usize, rows: u64) -> Report {
        let (say, hear) = mpsc::channel();
        let (mut sent, mut durable) = (0, 0);
        let mut latencies = Vec::with_capacity(rows as usize);
        let mut marks: Vec<Vec<i64>> = vec![Vec::new(); if mode == "taken" { ACCOUNTS as usize } else { 0 }];
        let mut untaken: VecDeque<usize> = VecDeque::new();
        let (begun, cpu) = (Instant::now(), cpu());
        while durable < rows {
            while sent < rows && sent - durable < in_flight as u64 {
                let (change, index) = self.append(mode);
                if mode == "taken" {
                    marks[index].push(self.position);
                    untaken.push_back(index);
                }
                let (say, at) = (say.clone(), Instant::now());
                let done = move |outcome| say.send((at.elapsed(), outcome)).expect("it is waited for");
                self.store.commit(self.fence, vec![change], Box::new(done));
                sent += 1;
                // What was appended a while ago is taken now.
                if untaken.len() > 2_000
                    && let Some(index) = untaken.pop_front()
                {
                    let positions = std::mem::take(&mut marks[index]);
                    if !positions.is_empty() {
                        let account = self.accounts[index].clone();
                        let taken = Change::Taken { account, positions };
                        self.store.commit(self.fence, vec![taken], Box::new(|outcome| assert!(outcome.is_ok())));
                    }
                }
            }
            let (latency, outcome): (Duration, Result<Vec<Outcome>, _>) = hear.recv().expect("done is called");
            assert_eq!(outcome, Ok(vec![Outcome::Done]));
            latencies.push(latency);
            durable += 1;
        }
        let (elapsed, spent) = (begun.elapsed(), self::cpu().since(&cpu));
        latencies.sort_unstable();
        Report { rows, elapsed, spent, latencies }
    }
}

struct Report {
    rows: u64,
    elapsed: Duration,
    spent: Cpu,
    /// Sorted.
    latencies: Vec<Duration>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let latency = |part: f64| self.latencies[((self.latencies.len() - 1) as f64 * part) as usize];
        let a_row = |spent: Duration| spent.as_secs_f64() * 1e6 / self.rows as f64;
        let speed = self.rows as f64 / self.elapsed.as_secs_f64();
        let (all, writer) = (a_row(self.spent.all), a_row(self.spent.writer));
        let kilobytes = self.spent.written as f64 / 1024.0 / self.rows as f64;
        write!(f, "{speed:.0} | {all:.1} | {writer:.1} | {kilobytes:.1} | ")?;
        write!(f, "{:.2?} | {:.2?} | {:.2?}", latency(0.5), latency(0.99), latency(1.0))
    }
}

/// Time on a processor, of the process and of the writer's thread, and what was written. Linux only; elsewhere zero.
struct Cpu {
    all: Duration,
    writer: Duration,
    /// Bytes given to the file system.
    written: u64,
}

impl Cpu {
    fn since(&self, earlier: &Cpu) -> Cpu {
        Cpu {
            all: self.all - earlier.all,
            writer: self.writer - earlier.writer,
            written: self.written - earlier.written,
        }
    }
}

fn cpu() -> Cpu {
    let mut cpu = Cpu { all: Duration::ZERO, writer: Duration::ZERO, written: 0 };
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let spent = read("schedstat").split(' ').next().and_then(|spent| spent.parse().ok()).unwrap_or(0);
        let spent = Duration::from_nanos(spent);
        cpu.all += spent;
        if read("comm").trim() == "store-write" {
            cpu.writer += spent;
        }
    }
    let io = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let written = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    cpu.written = written.and_then(|bytes| bytes.parse().ok()).unwrap_or(0);
    cpu
}
