//! One scene: servers, accounts and devices by a seed, a storm of faults over them, calm, and the checkers.

use crate::device::{Device, Phase, Phases, Shared};
use crate::ledger::{CHECKERS, Ledger, Trouble, Violation};
use crate::network::{Crash, Net};
use crate::node::{self, Names, Node};
use crate::random::Random;
use crate::stream::PASSWORD;
use parking_lot::Mutex;
use server::crypto;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use store::{Change, Credentials, Fence, Key, RosterItem, Store, Subscription};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use xmpp::planted::Bug;
use xmpp::{BareJid, Stamp};

/// What was under way when the storm ended is through by then: a link that fell silent is given up within 90 seconds,
/// a session that is not resumed within 30.
const CALM: Duration = Duration::from_secs(150);
/// For looking at it all.
const LOOK: Duration = Duration::from_secs(40);

#[derive(Debug, Clone, Default)]
pub struct Options {
    pub seed: u64,
    /// Every event is kept, to be read.
    pub keep_log: bool,
    /// … or printed at once to standard error.
    pub live: bool,
    /// A mistake that the servers make.
    pub bug: Option<Bug>,
}

#[derive(Debug, Clone, Default)]
pub struct Report {
    pub seed: u64,
    pub violations: Vec<Violation>,
    /// Of all that was said and heard, with its time.
    pub hash: u64,
    pub events: u64,
    pub messages: usize,
    pub acked: usize,
    pub refused: usize,
    pub shown: usize,
    pub crashes: u64,
    pub faults: u64,
    pub log: Vec<String>,
}

/// Runs one scene to its end, on a virtual clock of its own.
pub fn run(options: &Options) -> Report {
    xmpp::planted::plant(options.bug);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without I/O needs nothing");
    runtime.block_on(Scene::play(options))
}

struct Scene {
    random: Random,
    net: Net,
    names: Arc<Names>,
    nodes: Vec<Node>,
    shared: Arc<Shared>,
    /// Of each device: its address, its server.
    devices: Vec<(IpAddr, usize)>,
    /// What may happen here.
    faults: Vec<Fault>,
    happened: u64,
    /// What must be set right again, and when.
    repairs: Vec<(Instant, Repair)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    CutClient,
    WallClient,
    CutServers,
    WallServers,
    Crash,
    Stop,
    Delay,
    Dns,
    DiskFull,
    DiskSlow,
    DiskFails,
    Clock,
}

const FAULTS: [Fault; 12] = [
    Fault::CutClient,
    Fault::WallClient,
    Fault::CutServers,
    Fault::WallServers,
    Fault::Crash,
    Fault::Stop,
    Fault::Delay,
    Fault::Dns,
    Fault::DiskFull,
    Fault::DiskSlow,
    Fault::DiskFails,
    Fault::Clock,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    Start(usize),
    Crash(usize),
    Open(IpAddr, IpAddr),
    Space(usize),
    Speed(usize),
}

impl Scene {
    async fn play(options: &Options) -> Report {
        let mut scene = Scene::set(options).await;
        let storm = scene.random.millis(15_000, 45_000);
        scene.storm(storm).await;
        scene.heal().await;
        scene.shared.phases.go_on(Phase::Calm);
        scene.watch(CALM).await;
        scene.shared.phases.go_on(Phase::Look);
        scene.watch(LOOK).await;
        scene.at_rest();
        scene.shared.phases.go_on(Phase::End);
        sleep(Duration::from_secs(10)).await;
        scene.report(options)
    }

    async fn set(options: &Options) -> Scene {
        let mut random = Random::new(options.seed, 0);
        let servers = random.between(2, 5) as usize;
        let net = Net::new(Random::new(random.draw(), 1));
        let names = Arc::new(Names { servers, ..Names::default() });
        let mut accounts = Vec::new();
        for n in 0..servers {
            for user in 0..random.between(1, 4) {
                accounts.push((n, format!("u{user}@{}", node::domain(n))));
            }
        }
        let mut devices = Vec::new();
        for account in 0..accounts.len() {
            for _ in 0..random.between(1, 3) {
                devices.push(account);
            }
        }
        let mut nodes: Vec<Node> = Vec::new();
        for n in 0..servers {
            let mut node = Node::new(n, &net, &names, Random::new(random.draw(), 2));
            prepare(&mut node, &accounts);
            nodes.push(node);
        }
        let mut ledger = Ledger::new(accounts.clone(), devices.clone(), servers, options.keep_log);
        ledger.live = options.live;
        let friends = befriend(&mut random, &mut nodes, &accounts, &mut ledger);
        for node in &mut nodes {
            node.start().await;
        }
        let pace_ms = random.between(200, 2_000);
        // Each scene has some kinds of faults only, now and then none, so that what one kind hides another shows.
        let share = random.below(5);
        let faults: Vec<Fault> = FAULTS.into_iter().filter(|_| random.below(4) < share).collect();
        let (ledger, leases) = (Mutex::new(ledger), !faults.contains(&Fault::Clock));
        let shared = Arc::new(Shared { ledger, phases: Phases::default(), friends, pace_ms, leases });
        let mut places = Vec::new();
        for (n, account) in devices.iter().enumerate() {
            let address = IpAddr::V4(Ipv4Addr::new(8, 8, 8, n as u8 + 1));
            places.push((address, accounts[*account].0));
            let device = Device::new(n, *account, net.host(address), Random::new(random.draw(), 4), shared.clone());
            tokio::spawn(device.live());
        }
        Scene { random, net, names, nodes, shared, devices: places, faults, happened: 0, repairs: Vec::new() }
    }

    async fn storm(&mut self, length: Duration) {
        let end = Instant::now() + length;
        let often = self.random.between(500, 6_000);
        while Instant::now() < end {
            self.watch(self.random.clone().millis(100, often)).await;
            self.random.draw();
            if let Some(fault) = self.random.of(&self.faults.clone()) {
                self.happen(*fault).await;
            }
        }
    }

    /// Time passes: repairs are made, and bounds looked at.
    async fn watch(&mut self, length: Duration) {
        let end = Instant::now() + length;
        loop {
            self.bounds();
            let next = self.repairs.iter().map(|(at, _)| *at).min().unwrap_or(end);
            let until = next.min(end).min(Instant::now() + Duration::from_secs(1));
            sleep_until(until).await;
            let now = Instant::now();
            while let Some(due) = self.repairs.iter().position(|(at, _)| *at <= now) {
                let (_, repair) = self.repairs.remove(due);
                self.repair(repair).await;
            }
            if now >= end {
                return;
            }
        }
    }

    fn trace(&self, what: &str) {
        self.shared.ledger.lock().trace("world", what);
    }

    fn trouble(&self, one: usize, other: Option<usize>, length: Duration) {
        let now = Instant::now();
        self.shared.ledger.lock().troubles.push(Trouble { one, other, from: now, until: now + length });
    }

    fn server(&mut self) -> usize {
        self.random.below(self.nodes.len() as u64) as usize
    }

    /// Two different servers.
    fn two(&mut self) -> (usize, usize) {
        let one = self.server();
        let other = (one + 1 + self.random.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        (one, other)
    }

    async fn happen(&mut self, fault: Fault) {
        self.happened += 1;
        match fault {
            Fault::CutClient => {
                let Some(&(client, server)) = self.random.of(&self.devices) else { return };
                self.trace(&format!("cut {client} d{server}"));
                self.net.cut(client, node::address(server));
            }
            Fault::WallClient => {
                let Some(&(client, server)) = self.random.of(&self.devices) else { return };
                let length = self.random.millis(500, 25_000);
                self.trace(&format!("wall {client} d{server} for {length:?}"));
                self.wall(client, node::address(server), length);
            }
            Fault::CutServers => {
                let (one, other) = self.two();
                self.trace(&format!("cut d{one} d{other}"));
                self.trouble(one, Some(other), Duration::ZERO);
                self.net.cut(node::address(one), node::address(other));
            }
            Fault::WallServers => {
                let (one, other) = self.two();
                let length = self.random.millis(500, 40_000);
                self.trace(&format!("wall d{one} d{other} for {length:?}"));
                self.trouble(one, Some(other), length);
                self.wall(node::address(one), node::address(other), length);
            }
            Fault::Crash => {
                let n = self.server();
                if self.random.one_in(2) {
                    // While much is on its way to the disk.
                    self.nodes[n].disk.trouble.slow_ms.store(1_500, Ordering::Relaxed);
                    self.repairs.push((Instant::now() + self.random.millis(100, 1_200), Repair::Crash(n)));
                    return;
                }
                let how = if self.random.one_in(3) { Crash::Machine } else { Crash::Process };
                self.crash(n, how);
            }
            Fault::Stop => {
                let n = self.server();
                self.stop(n).await;
            }
            Fault::Delay => {
                let delay = *self.random.of(&[2, 20, 80, 400]).unwrap_or(&20);
                self.trace(&format!("delay {delay} ms"));
                self.net.set_delay(delay);
            }
            Fault::Dns => {
                let (length, pause) = (self.random.millis(1_000, 15_000), self.random.millis(1, 9_000));
                self.trace(&format!("no DNS for {length:?}"));
                for n in 0..self.nodes.len() {
                    self.trouble(n, None, length);
                }
                *self.names.trouble.lock() = Some((Instant::now() + length, pause));
            }
            Fault::DiskFull => {
                let n = self.server();
                let length = self.random.millis(50, 4_000);
                self.trace(&format!("disk of d{n} full for {length:?}"));
                self.nodes[n].disk.trouble.full.store(true, Ordering::Relaxed);
                self.shared.ledger.lock().full_disks += 1;
                self.repairs.push((Instant::now() + length, Repair::Space(n)));
            }
            Fault::DiskSlow => {
                let n = self.server();
                let (length, slow) = (self.random.millis(500, 8_000), self.random.between(20, 2_000));
                self.trace(&format!("disk of d{n} slow by {slow} ms for {length:?}"));
                self.nodes[n].disk.trouble.slow_ms.store(slow, Ordering::Relaxed);
                self.repairs.push((Instant::now() + length, Repair::Speed(n)));
            }
            Fault::DiskFails => {
                // A server whose disk fails stops by itself, and is started again.
                let n = self.server();
                self.trace(&format!("disk of d{n} fails"));
                self.nodes[n].disk.trouble.fails.store(true, Ordering::Relaxed);
                let soon = Instant::now() + self.random.millis(10, 600);
                self.repairs.push((soon, Repair::Crash(n)));
            }
            Fault::Clock => {
                let n = self.server();
                let jump = self.random.below(7_200_000_000) as i64 - 3_600_000_000;
                self.trace(&format!("clock of d{n} jumps by {} ms", jump / 1000));
                self.nodes[n].skew.fetch_add(jump, Ordering::Relaxed);
            }
        }
    }

    fn wall(&mut self, one: IpAddr, other: IpAddr, length: Duration) {
        let ways = self.random.between(1, 4);
        let until = Instant::now() + length;
        for (bit, (from, to)) in [(1, (one, other)), (2, (other, one))] {
            if ways & bit != 0 {
                self.net.wall(from, to);
                self.repairs.push((until, Repair::Open(from, to)));
            }
        }
    }

    fn crash(&mut self, n: usize, how: Crash) {
        if self.nodes[n].running.is_none() {
            return;
        }
        let length = self.random.millis(100, 12_000);
        self.trace(&format!("d{n} crashes ({how:?}) for {length:?}"));
        self.shared.ledger.lock().crashes[n] += 1;
        self.trouble(n, None, length);
        self.nodes[n].crash(how);
        self.repairs.push((Instant::now() + length, Repair::Start(n)));
    }

    async fn stop(&mut self, n: usize) {
        let Some(running) = self.nodes[n].running.take() else { return };
        let length = self.random.millis(100, 5_000);
        self.trace(&format!("d{n} stops for {length:?}"));
        self.shared.ledger.lock().crashes[n] += 1;
        self.trouble(n, None, length + Duration::from_secs(10));
        // A stop that does not end is ended.
        if timeout(Duration::from_secs(20), running.stop(Duration::from_secs(5))).await.is_err() {
            self.shared.ledger.lock().wrong("bounds", format!("d{n} did not stop within its time"));
        }
        self.nodes[n].running = Some(running);
        self.nodes[n].crash(Crash::Process);
        self.repairs.push((Instant::now() + length, Repair::Start(n)));
    }

    async fn repair(&mut self, repair: Repair) {
        match repair {
            Repair::Start(n) => {
                if self.nodes[n].running.is_none() {
                    self.trace(&format!("d{n} starts"));
                    self.nodes[n].start().await;
                }
            }
            Repair::Crash(n) => self.crash(n, Crash::Process),
            Repair::Open(from, to) => {
                self.trace(&format!("open {from} {to}"));
                self.net.open(from, to);
            }
            Repair::Space(n) => self.nodes[n].disk.trouble.full.store(false, Ordering::Relaxed),
            Repair::Speed(n) => self.nodes[n].disk.trouble.slow_ms.store(0, Ordering::Relaxed),
        }
    }

    /// The storm is over: all that is broken is mended. Now and then one server does not come back.
    async fn heal(&mut self) {
        self.trace("the storm is over");
        let gone = (self.nodes.len() > 2 && self.random.one_in(4)).then(|| self.server());
        if let Some(n) = gone {
            self.trace(&format!("d{n} is gone for good"));
            let how = if self.random.one_in(2) { Crash::Machine } else { Crash::Process };
            self.crash(n, how);
            self.trouble(n, None, CALM + LOOK);
            let devices = &self.devices;
            self.shared.ledger.lock().expected.retain(|device| devices[*device].1 != n);
        }
        for n in 0..self.nodes.len() {
            // One that failed and was to be restarted is.
            if self.nodes[n].disk.trouble.failed.load(Ordering::Relaxed)
                || self.nodes[n].disk.trouble.fails.load(Ordering::Relaxed)
            {
                self.crash(n, Crash::Process);
            }
        }
        self.net.open_all();
        self.net.set_delay(20);
        *self.names.trouble.lock() = None;
        self.repairs.clear();
        for n in 0..self.nodes.len() {
            self.nodes[n].disk.trouble.full.store(false, Ordering::Relaxed);
            self.nodes[n].disk.trouble.fails.store(false, Ordering::Relaxed);
            self.nodes[n].disk.trouble.slow_ms.store(0, Ordering::Relaxed);
            if self.nodes[n].running.is_none() && gone != Some(n) {
                self.trace(&format!("d{n} starts"));
                self.nodes[n].start().await;
            }
        }
    }

    /// No queue beyond its bound, at any time.
    fn bounds(&self) {
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let house = &running.house;
            let limits = house.config.read().limits.clone();
            let streams_max = self.devices.len() * 4 + 8;
            let (items, _) = house.edges.longest_queue();
            let mut wrong = Vec::new();
            if house.edges.len() > streams_max {
                wrong.push(format!("{} streams of {} devices", house.edges.len(), self.devices.len()));
            }
            // Much may come at once for a stream that is not slow: eight times its bound.
            if items > 8 * limits.send_queue_stanzas_max + 64 {
                wrong.push(format!("{items} items wait for one stream"));
            }
            if let Some(federation) = house.federation.get() {
                let (stanzas, bytes) = federation.longest_queue();
                if stanzas > limits.s2s_queue_stanzas_max || bytes > limits.s2s_queue_bytes_max {
                    wrong.push(format!("{stanzas} stanzas, {bytes} bytes wait for one domain"));
                }
            }
            for what in wrong {
                self.shared.ledger.lock().wrong("bounds", format!("d{}: {what}", node.n));
            }
        }
    }

    /// When all is calm only what is in use is held.
    fn at_rest(&self) {
        for node in &self.nodes {
            let Some(running) = &node.running else { continue };
            let connected = {
                let ledger = self.shared.ledger.lock();
                ledger.finals.iter().filter(|(device, it)| it.online && self.devices[**device].1 == node.n).count()
            };
            let streams = running.house.edges.len();
            if streams > connected {
                let what = format!("d{} holds {streams} streams of {connected} devices", node.n);
                self.shared.ledger.lock().wrong("bounds", what);
            }
            let waiting = node.disk.queue_length();
            if waiting > 64 {
                let what = format!("{waiting} writes wait at the disk of d{}", node.n);
                self.shared.ledger.lock().wrong("bounds", what);
            }
            for (name, count) in
                [("panics", running.house.counted("panics")), ("fenced", running.house.counted("fenced"))]
            {
                if count > 0 {
                    self.shared.ledger.lock().wrong("bounds", format!("d{} counts {count} {name}", node.n));
                }
            }
        }
    }

    fn report(&self, options: &Options) -> Report {
        let mut ledger = self.shared.ledger.lock();
        let mut violations: Vec<Violation> = std::mem::take(&mut ledger.found);
        for (name, check) in CHECKERS {
            let mut found = Vec::new();
            check(&ledger, &mut found);
            violations.extend(found.into_iter().map(|what| Violation { checker: name, what }));
        }
        let messages = ledger.messages.values();
        Report {
            seed: options.seed,
            violations,
            hash: ledger.hash,
            events: ledger.events,
            messages: ledger.messages.len(),
            acked: messages.clone().filter(|it| it.acked).count(),
            refused: messages.filter(|it| it.error.is_some()).count(),
            shown: ledger.receipts.values().map(Vec::len).sum(),
            crashes: ledger.crashes.iter().sum(),
            faults: self.happened,
            log: ledger.log.take().unwrap_or_default(),
        }
    }
}

/// The accounts of a server, before it is first started.
pub fn prepare(node: &mut Node, accounts: &[(usize, String)]) {
    static CREDENTIALS: LazyLock<Credentials> =
        LazyLock::new(|| crypto::credentials(PASSWORD, 4096).expect("it can be a password"));
    for (_, jid) in accounts.iter().filter(|(n, _)| *n == node.n) {
        let account = BareJid::parse(jid).expect("the scene's own JIDs are good");
        let create = Change::AccountCreate {
            account: account.clone(),
            credentials: CREDENTIALS.clone(),
            created: Stamp(1_700_000_000_000_000),
        };
        write(node, &account, create);
    }
}

pub fn write(node: &Node, account: &BareJid, change: Change) {
    let partition = Key::Bare(account.clone()).partition();
    node.disk.prepare(Fence { partition, epoch: node.disk.epoch() }, vec![change]);
}

/// Who knows whom at the beginning.
fn befriend(
    random: &mut Random,
    nodes: &mut [Node],
    accounts: &[(usize, String)],
    ledger: &mut Ledger,
) -> Vec<Vec<usize>> {
    let mut friends = vec![Vec::new(); accounts.len()];
    let mut versions = vec![0; accounts.len()];
    for one in 0..accounts.len() {
        for other in one + 1..accounts.len() {
            let (sees, is_seen) = match random.below(5) {
                0 | 1 => (true, true),
                2 => (true, false),
                3 => (false, true),
                _ => continue,
            };
            for (here, there, to, from) in [(one, other, sees, is_seen), (other, one, is_seen, sees)] {
                friends[here].push(there);
                versions[here] += 1;
                let item = RosterItem {
                    jid: BareJid::parse(&accounts[there].1).expect("the scene's own JIDs are good"),
                    name: None,
                    groups: Vec::new(),
                    subscription: Subscription { to, from, ..Subscription::default() },
                    listed: true,
                    version: versions[here],
                };
                let account = BareJid::parse(&accounts[here].1).expect("the scene's own JIDs are good");
                let put = Change::RosterPut { account: account.clone(), item, version: versions[here] };
                write(&nodes[accounts[here].0], &account, put);
                if from {
                    ledger.allow(here, there, true);
                }
            }
        }
    }
    friends
}
