//! The cycles: how the server ends, again and again, and what is found after it.

use crate::client;
use crate::disk::layout::{call, fate, file};
use crate::disk::{Disk, Plan};
use crate::editor::Editor;
use crate::image::{self, Journal};
use crate::ledger::{Ledger, Wrong};
use crate::random::Random;
use crate::receiver::{Receiver, Way};
use crate::sender::Sender;
use crate::server::{self, Place, Server};
use crate::{Cycles, PASSWORD, PRINTED_MAX, RECEIVERS, seed_or_new};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

const EDITORS: [(&str, &[&str]); 2] = [("editor0", &["roster", "block"]), ("editor1", &["private", "card"])];
/// How long a failpoint is waited for.
const FAILPOINT_PATIENCE: Duration = Duration::from_millis(800);

/// How a cycle ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// SIGKILL at a random time.
    Kill,
    /// SIGKILL when an acknowledgement comes: before the client does anything else.
    KillAtAck,
    /// SIGKILL where the store writes.
    Failpoint(Failpoint),
    /// SIGTERM.
    Terminate,
    /// SIGKILL, and of what was not synced a part is lost.
    PowerCut,
    /// The disk fails.
    Fault(Fault),
}

/// Where the store is when it is killed. The log is SQLite's WAL.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Failpoint {
    BeforeAppend,
    WithinAppend,
    AfterAppend,
    BeforeSync,
    AfterSync,
    /// While pages go from the log into the file, at an end that was asked for.
    WithinCheckpoint,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// A sync of the log fails: the server must end, and say why.
    Sync,
    /// A write to the log fails: the same.
    Write,
    /// No space for a while: the server must stay, refuse, and go on by itself.
    Full,
}

const FAILPOINTS: [(&str, Failpoint, u32, u32, i64); 6] = [
    ("before-append", Failpoint::BeforeAppend, call::WRITE, file::WAL, fate::KILL_BEFORE),
    ("within-append", Failpoint::WithinAppend, call::WRITE, file::WAL, fate::KILL_WITHIN),
    ("after-append", Failpoint::AfterAppend, call::WRITE, file::WAL, fate::KILL_AFTER),
    ("before-fsync", Failpoint::BeforeSync, call::SYNC, file::WAL, fate::KILL_BEFORE),
    ("after-fsync", Failpoint::AfterSync, call::SYNC, file::WAL, fate::KILL_AFTER),
    ("mid-checkpoint", Failpoint::WithinCheckpoint, call::WRITE | call::SYNC, file::DATABASE, fate::KILL_WITHIN),
];

impl End {
    /// 70 % kill -9, and 10 % each of the others.
    fn choose(random: &mut Random, only: Option<&str>) -> End {
        let kind = match only {
            Some(only) => only,
            None => match random.below(20) {
                0..=5 => "kill",
                6..=8 => "ack",
                9..=13 => "failpoint",
                14..=15 => "term",
                16..=17 => "power",
                _ => "fault",
            },
        };
        match kind {
            "kill" => End::Kill,
            "ack" => End::KillAtAck,
            "failpoint" => End::Failpoint(FAILPOINTS[random.below(FAILPOINTS.len() as u64) as usize].1),
            "term" => End::Terminate,
            "power" => End::PowerCut,
            _ => End::Fault([Fault::Sync, Fault::Write, Fault::Full][random.below(3) as usize]),
        }
    }

    fn name(self) -> &'static str {
        match self {
            End::Kill => "killed",
            End::KillAtAck => "killed at an ack",
            End::Failpoint(point) => FAILPOINTS.iter().find(|it| it.1 == point).map_or("?", |it| it.0),
            End::Terminate => "SIGTERM",
            End::PowerCut => "power cut",
            End::Fault(Fault::Sync) => "failed sync",
            End::Fault(Fault::Write) => "failed write",
            End::Fault(Fault::Full) => "full disk",
        }
    }
}

/// Kills the server at the next acknowledgement, once armed.
pub struct Trap<'a> {
    armed: AtomicBool,
    server: &'a Server,
}

impl Trap<'_> {
    pub fn spring(&self) {
        if self.armed.swap(false, SeqCst) {
            self.server.kill();
        }
    }
}

/// # Errors
/// What keeps the test, not the server, from going on.
pub fn run(options: &Cycles) -> io::Result<bool> {
    let seed = seed_or_new(options.seed);
    let begun = Instant::now();
    let binaries = options.binaries.clone().ready()?;
    let (Some(waft), Some(disk)) = (&binaries.waft, &binaries.disk) else {
        return Err(io::Error::other("there is nothing to test"));
    };
    let folder = tempfile::Builder::new().prefix("waft-crash-").tempdir()?;
    let mut test = Test::new(options, seed, waft, disk, folder.path())?;
    let mut went = Ok(());
    let mut cycle = 0;
    while cycle < options.cycles || test.ledger.totals().0 < options.messages {
        went = test.cycle(cycle);
        let late = options.seconds > 0 && begun.elapsed() > Duration::from_secs(options.seconds);
        if went.is_err() || late || (options.first && !test.wrong.is_empty()) {
            break;
        }
        cycle += 1;
        if cycle % 100 == 0 {
            println!("after {cycle} cycles, {} s:", begun.elapsed().as_secs());
            test.print();
        }
    }
    if went.is_ok() {
        went = test.finish();
    }
    if let Err(error) = &went {
        println!("the server did not do its part: {error}");
        test.wrong.push(Wrong::Stuck(error.to_string()));
    }
    let good = test.print();
    if !good {
        println!("what is left lies in {}", folder.keep().display());
    }
    Ok(good)
}

struct Test {
    place: Place,
    disk: Disk,
    log: PathBuf,
    record: PathBuf,
    ledger: Ledger,
    random: Random,
    seed: u64,
    span_ms: u64,
    walk_every: u64,
    only: Option<String>,
    senders: Vec<Sender>,
    editors: Vec<Editor>,
    receivers: Vec<Receiver>,
    recovery: Vec<Duration>,
    /// By name.
    ends: Vec<(&'static str, u64)>,
    in_recovery: u64,
    /// When and how the last server ended.
    ended: Option<(Instant, End)>,
    /// How long it had waited for a processor shortly before, and the longest of all.
    starved: Duration,
    starved_max: Duration,
    wrong: Vec<Wrong>,
}

impl Test {
    fn new(options: &Cycles, seed: u64, waft: &Path, disk: &Path, folder: &Path) -> io::Result<Test> {
        let place = Place::new(waft, folder, &options.durability)?;
        let log = folder.join("waft.log");
        let ways = [Way::Managed, Way::Plain, Way::Away];
        let test = Test {
            log,
            record: folder.join("record"),
            disk: Disk::new(disk, &place.data, folder)?,
            ledger: Ledger::new(&folder.join("ledger"))?,
            random: Random::new(seed, 1),
            seed,
            span_ms: options.span.max(1),
            walk_every: options.walk_every.max(1),
            only: options.only.clone(),
            senders: (0..options.senders).map(|index| Sender::new(index, seed)).collect(),
            editors: (10..).zip(EDITORS).map(|(n, (name, kinds))| Editor::new(name, kinds, seed, n)).collect(),
            receivers: ways.into_iter().enumerate().map(|(index, way)| Receiver::new(index, way)).collect(),
            recovery: Vec::new(),
            ends: Vec::new(),
            in_recovery: 0,
            ended: None,
            starved: Duration::ZERO,
            starved_max: Duration::ZERO,
            wrong: Vec::new(),
            place,
        };
        let server = test.start(None)?;
        let senders: Vec<String> = (0..options.senders).map(|index| format!("sender{index}")).collect();
        let names =
            RECEIVERS.into_iter().chain(EDITORS.map(|(name, _)| name)).chain(senders.iter().map(String::as_str));
        server::add_accounts(&test.place, names, PASSWORD)?;
        server.kill();
        server.wait()?;
        Ok(test)
    }

    fn start(&self, record: Option<&Path>) -> io::Result<Server> {
        self.disk.calm()?;
        Server::start(&self.place, &self.log, |command| self.disk.under(command, record))
    }

    fn cycle(&mut self, cycle: u64) -> io::Result<()> {
        if self.random.one_in(10) {
            self.kill_in_recovery()?;
        }
        let end = End::choose(&mut self.random, self.only.as_deref());
        let mut journal = None;
        if end == End::PowerCut {
            let _ = std::fs::remove_file(&self.record);
            journal = Some(Journal::of(&self.place.data)?);
        }
        let server = self.start(journal.is_some().then_some(self.record.as_path()))?;
        self.look(&server, cycle, cycle % self.walk_every == self.walk_every - 1)?;
        self.load(&server, end)?;
        if let Some(journal) = journal {
            self.cut_power(journal)?;
        }
        Ok(())
    }

    /// Of what the server that was killed had written a part never came to the disk.
    fn cut_power(&mut self, mut journal: Journal) -> io::Result<()> {
        for entry in image::read(&self.record)? {
            journal.apply(&entry);
        }
        journal.cut(&self.place.data, &mut self.random)
    }

    /// Killed again right after its start.
    fn kill_in_recovery(&mut self) -> io::Result<()> {
        let server = self.start(None)?;
        std::thread::sleep(Duration::from_millis(self.random.below(30)));
        server.kill();
        server.wait()?;
        self.in_recovery += 1;
        Ok(())
    }

    /// All that should be there is looked for; the online receivers stay.
    fn look(&mut self, server: &Server, cycle: u64, whole: bool) -> io::Result<()> {
        let (address, ledger) = (self.place.address, &self.ledger);
        let resumes = cycle.is_multiple_of(2);
        let one = (cycle % self.senders.len().max(1) as u64) as usize;
        let mut came = Vec::new();
        let mut results = Vec::new();
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            let slowest = self.senders.iter().map(|sender| sender.slowest).max().unwrap_or_default();
            for receiver in &mut self.receivers {
                receiver.slowest = slowest.max(receiver.answered_in);
                receiver.starved = self.starved;
                receiver.forgives = self.ended.filter(|(_, end)| receiver.may_repeat(*end)).map(|(at, _)| at);
                threads.push(scope.spawn(move || receiver.come(address, ledger, resumes, whole).map(Some)));
            }
            for editor in &mut self.editors {
                threads.push(scope.spawn(move || editor.look(address, ledger).map(|()| None)));
            }
            for (index, sender) in self.senders.iter_mut().enumerate() {
                if whole || index == one {
                    threads.push(scope.spawn(move || sender.look(address, ledger, whole).map(|()| None)));
                }
            }
            for thread in threads {
                match thread.join() {
                    Ok(Ok(at)) => came.extend(at),
                    Ok(Err(error)) => results.push(error),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        self.gather();
        if let Some(status) = server.ended()? {
            self.wrong.push(Wrong::Stuck(format!("the server ended by itself: {status}")));
        }
        self.recovery.extend(came.into_iter().min().map(|at| at - server.started));
        results.into_iter().next().map_or(Ok(()), Err)
    }

    /// Work until the end.
    fn load(&mut self, server: &Server, end: End) -> io::Result<()> {
        let (address, ledger) = (self.place.address, &self.ledger);
        let time = Duration::from_micros(self.random.below(self.span_ms * 1_000));
        let trap = Trap { armed: AtomicBool::new(false), server };
        let trap = &trap;
        let mut stuck = Vec::new();
        let mut ended = Ok(None);
        match self.ends.iter_mut().find(|(name, _)| *name == end.name()) {
            Some((_, count)) => *count += 1,
            None => self.ends.push((end.name(), 1)),
        }
        let refuses = matches!(end, End::Fault(_));
        let over = &AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for sender in &mut self.senders {
                sender.may_lack = end == End::Fault(Fault::Full);
                threads.push(scope.spawn(move || sender.run(address, ledger, trap)));
            }
            for editor in &mut self.editors {
                editor.may_be_refused = refuses;
                threads.push(scope.spawn(move || editor.run(address, ledger, trap)));
            }
            for receiver in &mut self.receivers {
                threads.push(scope.spawn(move || receiver.stay(ledger)));
            }
            let starved = scope.spawn(move || server.starved(over));
            std::thread::sleep(time);
            let mut failed = None;
            ended = finish(server, end, trap, &self.disk, &mut self.random, &mut failed);
            over.store(true, SeqCst);
            self.starved = starved.join().unwrap_or_default();
            self.starved_max = self.starved_max.max(self.starved);
            // From when the disk failed on no mark was cleared.
            self.ended = Some((failed.unwrap_or_else(Instant::now), end));
            for thread in threads {
                match thread.join() {
                    Ok(Err(error)) if client::is_stuck(&error) => stuck.push(error),
                    // They end when the server does.
                    Ok(_) => {}
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
        });
        self.gather();
        self.wrong.extend(stuck.into_iter().map(|error| Wrong::Stuck(error.to_string())));
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(what)) => {
                println!("cycle {}: {what}", self.recovery.len());
                self.wrong.push(Wrong::Stuck(what));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Everything once more, without a crash behind it; then what SQLite says.
    fn finish(&mut self) -> io::Result<()> {
        let server = self.start(None)?;
        self.look(&server, 0, true)?;
        server.terminate()?;
        let status = server.wait()?;
        if !status.success() {
            self.wrong.push(Wrong::Stuck(format!("after SIGTERM the server ended with {status}")));
        }
        let path = self.place.data.join("waft.db");
        let database = rusqlite::Connection::open(path).map_err(io::Error::other)?;
        let verdict: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(io::Error::other)?;
        if verdict != "ok" {
            self.wrong.push(Wrong::Lost(format!("integrity_check: {verdict}")));
        }
        Ok(())
    }

    fn gather(&mut self) {
        let before = self.wrong.len();
        for sender in &mut self.senders {
            self.wrong.append(&mut sender.wrong);
        }
        for editor in &mut self.editors {
            self.wrong.append(&mut editor.wrong);
        }
        for receiver in &mut self.receivers {
            self.wrong.append(&mut receiver.wrong);
        }
        let how = self.ended.map_or("", |(_, end)| end.name());
        for (n, wrong) in self.wrong.iter().enumerate().skip(before) {
            let same = |other: &&Wrong| std::mem::discriminant(*other) == std::mem::discriminant(wrong);
            if self.wrong[..n].iter().filter(same).take(PRINTED_MAX).count() < PRINTED_MAX {
                println!("cycle {}, last end {how}: {wrong:?}", self.recovery.len());
            }
        }
    }

    /// Prints the figures; is all well?
    fn print(&mut self) -> bool {
        let count = |is: fn(&Wrong) -> bool| self.wrong.iter().filter(|wrong| is(wrong)).count();
        let sum = |of: fn(&Receiver) -> u64| self.receivers.iter().map(of).sum::<u64>();
        let (acked, values, refused) = self.ledger.totals();
        let found: usize = self.receivers.iter().map(Receiver::found).sum();
        let archived: usize = self.receivers.iter().map(|r| r.archive.ids.len()).sum();
        let ends: Vec<String> = self.ends.iter().map(|(name, count)| format!("{name} {count}")).collect();
        let cycles: u64 = self.ends.iter().map(|(_, count)| count).sum();
        println!("cycles {cycles} ({}; {} more in recovery)", ends.join(", "), self.in_recovery);
        println!("acked {acked} messages, {values} changes; found {found}, archived {archived}; refused {refused}");
        let resumed = sum(|r| r.resumed) + self.senders.iter().map(|s| s.resumed).sum::<u64>();
        let resent = self.senders.iter().map(|s| s.resent).sum::<u64>();
        println!("resumed {resumed} streams, sent again by clients {resent}");
        println!(
            "lost {}, doubled {}, repeated {}, reordered {}, invented {}, stuck {}",
            count(|w| matches!(w, Wrong::Lost(_))),
            count(|w| matches!(w, Wrong::Doubled(_))),
            sum(|r| r.repeated),
            count(|w| matches!(w, Wrong::Reordered(_))),
            count(|w| matches!(w, Wrong::Invented(_))),
            count(|w| matches!(w, Wrong::Stuck(_))),
        );
        let mut recovery = self.recovery.clone();
        recovery.sort_unstable();
        let at = |percent: usize| recovery.get(recovery.len() * percent / 100).map_or(0, |time| time.as_millis());
        println!("recovery to the first login: p50 {} ms, p99 {} ms", at(50), at(99));
        println!("threads of a server waited for a processor up to {} ms", self.starved_max.as_millis());
        println!("last seed {}", self.seed);
        self.wrong.is_empty()
    }
}

/// Ends the server; what is wrong with how it went. `failed`: when its disk did.
fn finish(
    server: &Server,
    end: End,
    trap: &Trap<'_>,
    disk: &Disk,
    random: &mut Random,
    failed: &mut Option<Instant>,
) -> io::Result<Option<String>> {
    match end {
        End::Kill | End::PowerCut => server.kill(),
        End::Terminate => server.terminate()?,
        End::KillAtAck => {
            trap.armed.store(true, SeqCst);
            let until = Instant::now() + Duration::from_millis(500);
            while trap.armed.load(SeqCst) && Instant::now() < until {
                std::thread::sleep(Duration::from_micros(200));
            }
            server.kill();
        }
        End::Failpoint(point) => {
            let Some((_, _, calls, files, fate)) = FAILPOINTS.iter().find(|it| it.1 == point).copied() else {
                return Ok(None);
            };
            disk.arm(Plan { calls, files, fate, from: 1 + random.below(20), count: 1 })?;
            if point == Failpoint::WithinCheckpoint {
                server.terminate()?;
            }
            let until = Instant::now() + FAILPOINT_PATIENCE;
            while server.ended()?.is_none() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            server.kill();
        }
        End::Fault(Fault::Sync | Fault::Write) => {
            let calls = if end == End::Fault(Fault::Sync) { call::SYNC } else { call::WRITE };
            disk.arm(Plan { calls, files: file::WAL, fate: fate::EIO, from: 1 + random.below(5), count: 1 })?;
            let until = Instant::now() + FAILPOINT_PATIENCE;
            while disk.chosen()? == 0 && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            if disk.chosen()? > 0 {
                *failed = Some(Instant::now());
                let status = server.wait()?;
                if status.success() {
                    return Ok(Some("after a write that failed the server ended as if all were well".into()));
                }
                return Ok(None);
            }
            server.kill();
        }
        End::Fault(Fault::Full) => {
            let calls = call::WRITE | call::OPEN | call::TRUNCATE;
            let files = file::DATABASE | file::WAL | file::INDEX;
            disk.arm(Plan { calls, files, fate: fate::ENOSPC, from: 1, count: u64::MAX })?;
            *failed = Some(Instant::now());
            std::thread::sleep(Duration::from_millis(50 + random.below(300)));
            disk.calm()?;
            // Some more work, now that there is space.
            std::thread::sleep(Duration::from_millis(random.below(300)));
            let ended = server.ended()?;
            server.kill();
            server.wait()?;
            return Ok(ended.map(|status| format!("the server ended by itself when the disk was full: {status}")));
        }
    }
    server.wait().map(|_| None)
}
