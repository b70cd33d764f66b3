//! What a hop between two entities costs, by where an entity's step runs. See docs/design/entity-steps.md.
//!
//! `cargo run --release -p cluster --example entity_steps [ROUNDS [SECONDS]]`: default 7 rounds of 1 second each.
//!
//! A hop is: the task of A's stream has an item, A's step makes it one for B, B's step gives it to the queue of B's
//! stream, whose task wakes. [`Way`] says who runs the steps; the steps, the state, the streams' queues and the load are
//! the same. The ways are measured one after the other within each round, in changing order.

use cluster::{Cell, Posted};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

const ACCOUNTS: usize = 1_000;
/// Hops that are under way all the time, in a saturated load.
const IN_FLIGHT: usize = 1_000;
/// Hops that are begun in a second, in a paced one.
const PACE: u32 = 1_000;
const STANZA_BYTES: usize = 500;
/// Of a mailbox (as in the server) and of a worker's channel.
const ITEMS_MAX: usize = 20_000;
const PARTITIONS: usize = 16_384;
/// Items a worker takes from its channel at once.
const TAKEN_MAX: usize = 64;
const WARM_UP: Duration = Duration::from_millis(300);
const THREADS: [usize; 3] = [1, 2, 4];

fn main() {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments.next().map_or(7, |rounds| rounds.parse().expect("ROUNDS is a number"));
    let seconds: f64 = arguments.next().map_or(1.0, |seconds| seconds.parse().expect("SECONDS is a number"));
    let mut reports: HashMap<(Load, usize, Kind), Vec<Report>> = HashMap::new();
    for round in 0..rounds {
        for load in Load::ALL {
            for threads in THREADS {
                for turn in 0..Kind::ALL.len() {
                    let kind = Kind::ALL[(round + turn) % Kind::ALL.len()];
                    let report = measure(load, threads, kind, Duration::from_secs_f64(seconds));
                    reports.entry((load, threads, kind)).or_default().push(report);
                }
            }
        }
        eprintln!("round {} of {rounds}", round + 1);
    }
    println!(
        "| load | threads | steps run on | CPU ns/hop | × caller | hops/s | processors | sleeps/1000 hops | p50 µs | p99 µs |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for load in Load::ALL {
        for threads in THREADS {
            for kind in Kind::ALL {
                let own = &reports[&(load, threads, kind)];
                let callers = &reports[&(load, threads, Kind::Caller)];
                let all = |figure: fn(&Report) -> f64| Spread::of(own.iter().map(figure));
                let ratio = Spread::of(own.iter().zip(callers).map(|(own, caller)| own.cpu_ns / caller.cpu_ns));
                let (cpu, speed) = (all(|r| r.cpu_ns), all(|r| r.hops_per_second));
                print!("| {load:?} | {threads} | {kind:?} | {cpu:.0} | {ratio:.2} | {speed:.0} | ");
                print!("{:.2} | {:.1} | ", all(|r| r.processors), all(|r| r.sleeps));
                match load {
                    Load::Paced => println!("{:.0} | {:.0} |", all(|r| r.p50_us), all(|r| r.p99_us)),
                    Load::Saturated | Load::Hot => println!(" |  |"),
                }
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Load {
    /// [`PACE`]; nothing to do in between.
    Paced,
    /// As fast as it goes, [`IN_FLIGHT`] at once, between any two.
    Saturated,
    /// The same, but one hop in four goes to one and the same account.
    Hot,
}

impl Load {
    const ALL: [Load; 3] = [Load::Paced, Load::Saturated, Load::Hot];
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The calling task, under the entity's mailbox.
    Caller,
    /// A task for each thread of the runtime; each owns its share of the entities.
    WorkerPerThread,
    /// A task for each of 16,384 partitions: next to none has two of the entities.
    WorkerPerPartition,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Caller, Kind::WorkerPerThread, Kind::WorkerPerPartition];
}

type Name = Arc<str>;

// ---- the entity, the same for all ----

struct State {
    stream: usize,
    said: u64,
    heard: u64,
    /// The last ids that came in.
    seen: [u64; 32],
}

struct Stanza {
    id: u64,
    payload: Arc<[u8]>,
    /// When A's stream took it up; in a paced load.
    begun: Option<Instant>,
}

enum Item {
    Say { to: Name, stanza: Stanza },
    Hear(Stanza),
}

enum Effect {
    Tell { to: Name, stanza: Stanza },
    Deliver { stream: usize, stanza: Stanza },
}

impl State {
    fn step(&mut self, item: Item) -> Vec<Effect> {
        match item {
            Item::Say { to, stanza } => {
                self.said += 1;
                vec![Effect::Tell { to, stanza }]
            }
            Item::Hear(stanza) => {
                if self.seen.contains(&stanza.id) {
                    return Vec::new();
                }
                self.seen[self.heard as usize % self.seen.len()] = stanza.id;
                self.heard += 1;
                vec![Effect::Deliver { stream: self.stream, stanza }]
            }
        }
    }
}

// ---- the streams, the same for all ----

enum ForStream {
    /// Its client sent a stanza.
    Read {
        to: usize,
    },
    Deliver(Stanza),
}

#[derive(Default)]
struct Queue {
    items: VecDeque<ForStream>,
    waker: Option<Waker>,
}

#[derive(Default)]
struct Stream {
    queue: Mutex<Queue>,
    delivered: AtomicU64,
    bytes: AtomicU64,
    latencies: Mutex<Vec<Duration>>,
}

impl Stream {
    fn send(&self, item: ForStream) {
        let mut queue = self.queue.lock();
        queue.items.push_back(item);
        if let Some(waker) = queue.waker.take() {
            drop(queue);
            waker.wake();
        }
    }

    fn poll_take(&self, into: &mut VecDeque<ForStream>, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.items.is_empty() {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut queue.items, into);
        Poll::Ready(())
    }
}

async fn serve(world: Arc<World>, me: usize) {
    let mut queue = VecDeque::new();
    let mut random = Random(me as u64 + 1);
    loop {
        poll_fn(|cx| world.streams[me].poll_take(&mut queue, cx)).await;
        while let Some(item) = queue.pop_front() {
            match item {
                ForStream::Read { to } => world.say(me, to, random.next()),
                ForStream::Deliver(stanza) => {
                    let own = &world.streams[me];
                    own.delivered.fetch_add(1, Relaxed);
                    own.bytes.fetch_add(stanza.payload.len() as u64, Relaxed);
                    match stanza.begun {
                        Some(begun) => own.latencies.lock().push(begun.elapsed()),
                        None => world.say(me, world.load.target(me, &mut random), random.next()),
                    }
                }
            }
        }
    }
}

impl Load {
    fn target(self, me: usize, random: &mut Random) -> usize {
        let to =
            if self == Load::Hot && random.next().is_multiple_of(4) { 0 } else { random.next() as usize % ACCOUNTS };
        if to == me { (to + 1) % ACCOUNTS } else { to }
    }
}

/// xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

// ---- who runs the steps ----

struct World {
    load: Load,
    names: Vec<Name>,
    payload: Arc<[u8]>,
    streams: Vec<Stream>,
    way: Way,
}

enum Way {
    Caller(Cells),
    Workers(Workers),
}

impl World {
    fn say(&self, from: usize, to: usize, id: u64) {
        let begun = (self.load == Load::Paced).then(Instant::now);
        let stanza = Stanza { id, payload: self.payload.clone(), begun };
        let item = Item::Say { to: self.names[to].clone(), stanza };
        match &self.way {
            Way::Caller(cells) => cells.say(self, from, item),
            Way::Workers(workers) => {
                let (worker, slot) = workers.homes[from];
                workers.send(worker, Mail { whom: Whom::Slot(slot), item });
            }
        }
    }
}

type AccountCell = Cell<State, Item>;

/// As the house has them: streams hold the cell of their account, others look it up in a map with a lock a shard.
struct Cells {
    own: Vec<Arc<AccountCell>>,
    shards: Vec<RwLock<HashMap<Name, Arc<AccountCell>>>>,
    hasher: RandomState,
}

const SHARDS: usize = 64;

impl Cells {
    fn new(names: &[Name]) -> Cells {
        let mut cells = Cells {
            own: Vec::new(),
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
        };
        for (stream, name) in names.iter().enumerate() {
            let cell = Arc::new(AccountCell::loading(None));
            cell.loaded(State::new(stream));
            cell.run(|_, _| None, |_| false);
            cells.shard(name).write().insert(name.clone(), cell.clone());
            cells.own.push(cell);
        }
        cells
    }

    fn shard(&self, name: &Name) -> &RwLock<HashMap<Name, Arc<AccountCell>>> {
        &self.shards[self.hasher.hash_one(name) as usize % SHARDS]
    }

    /// Leaves the item and does all that follows from it on this task.
    fn say(&self, world: &World, from: usize, item: Item) {
        let mut ready = VecDeque::new();
        leave(&self.own[from], item, &mut ready);
        while let Some(cell) = ready.pop_front() {
            let mut step = |state: &mut State, item| {
                for effect in state.step(item) {
                    match effect {
                        Effect::Deliver { stream, stanza } => world.streams[stream].send(ForStream::Deliver(stanza)),
                        Effect::Tell { to, stanza } => {
                            let told = self.shard(&to).read().get(&to).cloned();
                            leave(&told.expect("all accounts are there"), Item::Hear(stanza), &mut ready);
                        }
                    }
                }
                None
            };
            while cell.run(&mut step, |_| false) == cluster::Ran::More {}
        }
    }
}

fn leave(cell: &Arc<AccountCell>, item: Item, ready: &mut VecDeque<Arc<AccountCell>>) {
    match cell.post(item) {
        Posted::Run => ready.push_back(cell.clone()),
        Posted::Queued => {}
        Posted::Full(_) | Posted::Gone(_) => unreachable!("fewer are in flight than a mailbox holds, and none goes"),
    }
}

/// What streams and workers leave for a worker.
struct Mail {
    whom: Whom,
    item: Item,
}

enum Whom {
    /// A stream knows where its account is.
    Slot(usize),
    Name(Name),
}

struct Workers {
    channels: Vec<mpsc::Sender<Mail>>,
    /// For each account: its worker, and its place there.
    homes: Vec<(usize, usize)>,
    hasher: RandomState,
    /// Fewer are in flight than a channel holds, so this stays 0.
    refused: AtomicU64,
}

/// One task's share of the entities. Nobody else has them, so there is no lock.
struct Worker {
    me: usize,
    states: Vec<State>,
    slots: HashMap<Name, usize>,
    mail: mpsc::Receiver<Mail>,
}

impl Workers {
    fn new(names: &[Name], count: usize) -> (Workers, Vec<Worker>) {
        let hasher = RandomState::new();
        let (channels, mut workers): (Vec<_>, Vec<_>) = (0..count)
            .map(|me| {
                let (channel, mail) = mpsc::channel(ITEMS_MAX);
                (channel, Worker { me, states: Vec::new(), slots: HashMap::new(), mail })
            })
            .unzip();
        let mut homes = Vec::new();
        for (stream, name) in names.iter().enumerate() {
            let worker = &mut workers[hasher.hash_one(name) as usize % count];
            homes.push((worker.me, worker.states.len()));
            worker.slots.insert(name.clone(), worker.states.len());
            worker.states.push(State::new(stream));
        }
        workers.retain(|worker| !worker.states.is_empty());
        (Workers { channels, homes, hasher, refused: AtomicU64::new(0) }, workers)
    }

    fn worker_of(&self, name: &Name) -> usize {
        self.hasher.hash_one(name) as usize % self.channels.len()
    }

    fn send(&self, worker: usize, mail: Mail) {
        if let Err(mpsc::error::TrySendError::Full(_)) = self.channels[worker].try_send(mail) {
            self.refused.fetch_add(1, Relaxed);
        }
    }
}

impl Worker {
    async fn run(mut self, world: Arc<World>) {
        let Way::Workers(workers) = &world.way else { return };
        let mut taken = Vec::with_capacity(TAKEN_MAX);
        // What its own entities tell each other needs no channel.
        let mut own = VecDeque::new();
        while self.mail.recv_many(&mut taken, TAKEN_MAX).await > 0 {
            for mail in taken.drain(..) {
                own.push_back(mail);
                while let Some(Mail { whom, item }) = own.pop_front() {
                    let slot = match whom {
                        Whom::Slot(slot) => slot,
                        Whom::Name(name) => self.slots[&name],
                    };
                    for effect in self.states[slot].step(item) {
                        match effect {
                            Effect::Deliver { stream, stanza } => {
                                world.streams[stream].send(ForStream::Deliver(stanza))
                            }
                            Effect::Tell { to, stanza } => {
                                let worker = workers.worker_of(&to);
                                let mail = Mail { whom: Whom::Name(to), item: Item::Hear(stanza) };
                                if worker == self.me {
                                    own.push_back(mail);
                                } else {
                                    workers.send(worker, mail);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl State {
    fn new(stream: usize) -> State {
        State { stream, said: 0, heard: 0, seen: [0; 32] }
    }
}

// ---- measuring ----

struct Report {
    cpu_ns: f64,
    hops_per_second: f64,
    /// How many were busy for it: the rest is what others on the machine took, or sleep.
    processors: f64,
    /// Times that a thread of the runtime gave up its processor by itself: it had nothing to do or met a lock.
    sleeps: f64,
    p50_us: f64,
    p99_us: f64,
}

fn measure(load: Load, threads: usize, kind: Kind, time: Duration) -> Report {
    let names: Vec<Name> = (0..ACCOUNTS).map(|n| format!("user{n}@capulet.example").into()).collect();
    let (way, workers) = match kind {
        Kind::Caller => (Way::Caller(Cells::new(&names)), Vec::new()),
        Kind::WorkerPerThread | Kind::WorkerPerPartition => {
            let count = if kind == Kind::WorkerPerThread { threads } else { PARTITIONS };
            let (workers, tasks) = Workers::new(&names, count);
            (Way::Workers(workers), tasks)
        }
    };
    let streams = (0..ACCOUNTS).map(|_| Stream::default()).collect();
    let world = Arc::new(World { load, names, payload: vec![b'x'; STANZA_BYTES].into(), streams, way });
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(threads).thread_name(THREAD).enable_all().build().expect("a runtime starts");
    for me in 0..ACCOUNTS {
        runtime.spawn(serve(world.clone(), me));
    }
    for worker in workers {
        runtime.spawn(worker.run(world.clone()));
    }
    let mut random = Random(0x5eed);
    if load != Load::Paced {
        for n in 0..IN_FLIGHT {
            let from = n % ACCOUNTS;
            world.streams[from].send(ForStream::Read { to: load.target(from, &mut random) });
        }
    }
    world.pass(WARM_UP, &mut random);
    world.streams.iter().for_each(|stream| stream.latencies.lock().clear());
    let (begun, before, hops) = (Instant::now(), spent(), world.hops());
    world.pass(time, &mut random);
    let (elapsed, after, hops) = (begun.elapsed(), spent(), world.hops() - hops);
    runtime.shutdown_timeout(Duration::from_secs(5));
    if let Way::Workers(workers) = &world.way {
        assert_eq!(workers.refused.load(Relaxed), 0, "a channel was full");
    }
    let mut latencies: Vec<Duration> = Vec::new();
    world.streams.iter().for_each(|stream| latencies.append(&mut stream.latencies.lock()));
    latencies.sort_unstable();
    let latency = |part: f64| {
        let at = (latencies.len().saturating_sub(1)) as f64 * part;
        latencies.get(at as usize).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    };
    let cpu = after.cpu - before.cpu;
    Report {
        cpu_ns: cpu.as_nanos() as f64 / hops as f64,
        hops_per_second: hops as f64 / elapsed.as_secs_f64(),
        processors: cpu.as_secs_f64() / elapsed.as_secs_f64(),
        sleeps: (after.sleeps - before.sleeps) as f64 * 1e3 / hops as f64,
        p50_us: latency(0.5),
        p99_us: latency(0.99),
    }
}

impl World {
    /// Lets so much time pass; paces, from this thread, which is not of the runtime.
    fn pass(&self, time: Duration, random: &mut Random) {
        if self.load != Load::Paced {
            return std::thread::sleep(time);
        }
        let begun = Instant::now();
        for n in 1..=(time.as_secs_f64() * f64::from(PACE)) as u32 {
            std::thread::sleep((Duration::from_secs(1) / PACE * n).saturating_sub(begun.elapsed()));
            let from = random.next() as usize % ACCOUNTS;
            self.streams[from].send(ForStream::Read { to: self.load.target(from, random) });
        }
    }

    fn hops(&self) -> u64 {
        self.streams.iter().map(|stream| stream.delivered.load(Relaxed)).sum()
    }
}

const THREAD: &str = "steps";

/// What the runtime's threads have used. Linux only; elsewhere zero.
#[derive(Default)]
struct Spent {
    cpu: Duration,
    sleeps: u64,
}

fn spent() -> Spent {
    let mut spent = Spent::default();
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() == THREAD {
            let cpu = read("schedstat").split(' ').next().and_then(|cpu| cpu.parse().ok()).unwrap_or(0);
            spent.cpu += Duration::from_nanos(cpu);
            let status = read("status");
            let sleeps = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            spent.sleeps += sleeps.and_then(|sleeps| sleeps.trim().parse::<u64>().ok()).unwrap_or(0);
        }
    }
    spent
}

/// Median, and the least and the most.
struct Spread([f64; 3]);

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Spread {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_unstable_by(f64::total_cmp);
        Spread([figures[figures.len() / 2], figures[0], figures[figures.len() - 1]])
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [median, least, most] = self.0;
        let digits = f.precision().unwrap_or(1);
        write!(f, "{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}
