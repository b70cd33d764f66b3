//! Kills the real server under load, starts it again on the same folder, and looks for what was acknowledged.
//!
//! ```text
//! cargo run -p crash -- --cycles 1000 --seed 1            the binary is built first
//! cargo run -p crash -- --cycles 50 --waft path/to/waft
//! ```
//! A cycle: start; receivers come, take what waits and walk their archives; everything is compared with the ledger;
//! then senders and editors work until the server is killed: at a random time, at the very moment of an
//! acknowledgement, while it recovers, or, one time in ten, by SIGTERM. All figures but the first two must be 0:
//! lost (acknowledged, and not there), doubled, reordered (per sender), invented (there, and never sent, or sent
//! otherwise), stuck (no answer). `repeated` counts what a crash made the server send again, within the bound and
//! under the same stanza-id.
//!
//! - [`server`]: the process. [`client`]: a small client. [`ledger`]: what was meant and what was acknowledged.
//! - [`sender`], [`receiver`], [`editor`]: those who work.

mod client;
mod editor;
mod ledger;
mod random;
mod receiver;
mod sender;
mod server;

use clap::Parser;
use editor::Editor;
use ledger::{Ledger, Wrong};
use random::Random;
use receiver::{Receiver, Way};
use sender::Sender;
use server::{Place, Server};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

pub const PASSWORD: &str = "secret of the tests";
pub const RECEIVERS: [&str; 3] = ["managed", "plain", "away"];
const EDITORS: [(&str, &[&str]); 2] = [("editor0", &["roster", "block"]), ("editor1", &["private", "card"])];
/// A whole walk of all archives each so many cycles; else only what is new.
const WHOLE_WALK_EVERY: u64 = 25;
/// Violations of one kind that are printed; all are counted.
const PRINTED_MAX: usize = 10;

/// Kill waft under load, again and again, and look for what it acknowledged.
#[derive(Parser)]
struct Options {
    /// How often it is killed.
    #[arg(long, default_value_t = 200)]
    cycles: u64,
    /// Of the plan; printed at the end.
    #[arg(long)]
    seed: Option<u64>,
    /// The waft binary; else $WAFT_BIN; else it is built.
    #[arg(long, env = "WAFT_BIN")]
    waft: Option<PathBuf>,
    #[arg(long, default_value_t = 8)]
    senders: usize,
    /// The longest time under load, in milliseconds.
    #[arg(long, default_value_t = 2_000)]
    span: u64,
    /// End at the first cycle with a violation.
    #[arg(long)]
    first: bool,
}

/// How a cycle ends.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum End {
    /// SIGKILL at a random time.
    Kill,
    /// SIGKILL when an acknowledgement comes: before the client does anything else.
    KillAtAck,
    /// SIGTERM.
    Terminate,
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

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the crash test cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<bool> {
    let seed = options.seed.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed_0000);
    let binary = match &options.waft {
        Some(path) => path.clone(),
        None => build()?,
    };
    let folder = tempfile::Builder::new().prefix("waft-crash-").tempdir()?;
    let mut test = Test::new(options, seed, &binary, folder.path())?;
    let mut went = Ok(());
    for cycle in 0..options.cycles {
        went = test.cycle(cycle);
        if went.is_err() || (options.first && !test.wrong.is_empty()) {
            break;
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

/// Builds waft as this program was built, into the same target folder.
fn build() -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().filter(|f| !f.ends_with("deps")).or(own.parent().and_then(Path::parent));
    let folder = folder.ok_or_else(|| io::Error::other("where is this program?"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "server", "--bin", "waft"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    if status.success() { Ok(folder.join("waft")) } else { Err(io::Error::other("waft cannot be built")) }
}

struct Test {
    place: Place,
    log: PathBuf,
    ledger: Ledger,
    random: Random,
    seed: u64,
    span_ms: u64,
    senders: Vec<Sender>,
    editors: Vec<Editor>,
    receivers: Vec<Receiver>,
    recovery: Vec<Duration>,
    ends: [u64; 4],
    /// When and how the last server ended.
    ended: Option<(Instant, End)>,
    wrong: Vec<Wrong>,
}

impl Test {
    fn new(options: &Options, seed: u64, binary: &Path, folder: &Path) -> io::Result<Test> {
        let place = Place::new(binary, folder)?;
        let log = folder.join("waft.log");
        let ways = [Way::Managed, Way::Plain, Way::Away];
        let test = Test {
            log,
            ledger: Ledger::new(&folder.join("ledger"))?,
            random: Random::new(seed, 1),
            seed,
            span_ms: options.span.max(1),
            senders: (0..options.senders).map(|index| Sender::new(index, seed)).collect(),
            editors: (10..).zip(EDITORS).map(|(n, (name, kinds))| Editor::new(name, kinds, seed, n)).collect(),
            receivers: ways.into_iter().enumerate().map(|(index, way)| Receiver::new(index, way)).collect(),
            recovery: Vec::new(),
            ends: [0; 4],
            ended: None,
            wrong: Vec::new(),
            place,
        };
        let server = Server::start(&test.place, &test.log)?;
        let senders: Vec<String> = (0..options.senders).map(|index| format!("sender{index}")).collect();
        let names =
            RECEIVERS.into_iter().chain(EDITORS.map(|(name, _)| name)).chain(senders.iter().map(String::as_str));
        server::add_accounts(&test.place, names, PASSWORD)?;
        server.kill();
        server.wait()?;
        Ok(test)
    }

    fn cycle(&mut self, cycle: u64) -> io::Result<()> {
        if self.random.one_in(10) {
            self.kill_in_recovery()?;
        }
        let server = Server::start(&self.place, &self.log)?;
        self.look(&server, cycle, cycle % WHOLE_WALK_EVERY == WHOLE_WALK_EVERY - 1)?;
        let end = match self.random.below(10) {
            0 => End::Terminate,
            1..=4 => End::KillAtAck,
            _ => End::Kill,
        };
        self.load(&server, end)
    }

    /// Killed again right after its start.
    fn kill_in_recovery(&mut self) -> io::Result<()> {
        let server = Server::start(&self.place, &self.log)?;
        std::thread::sleep(Duration::from_millis(self.random.below(30)));
        server.kill();
        server.wait()?;
        self.ends[3] += 1;
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
            for receiver in &mut self.receivers {
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
        let mut ended = Ok(());
        self.ends[end as usize] += 1;
        std::thread::scope(|scope| {
            let mut threads = Vec::new();
            for sender in &mut self.senders {
                threads.push(scope.spawn(move || sender.run(address, ledger, trap)));
            }
            for editor in &mut self.editors {
                threads.push(scope.spawn(move || editor.run(address, ledger, trap)));
            }
            for receiver in &mut self.receivers {
                threads.push(scope.spawn(move || receiver.stay(ledger)));
            }
            std::thread::sleep(time);
            ended = finish(server, end, trap);
            self.ended = Some((Instant::now(), end));
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
        ended
    }

    /// Everything once more, without a crash behind it; then what SQLite says.
    fn finish(&mut self) -> io::Result<()> {
        let server = Server::start(&self.place, &self.log)?;
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
        for (n, wrong) in self.wrong.iter().enumerate().skip(before) {
            let same = |other: &&Wrong| std::mem::discriminant(*other) == std::mem::discriminant(wrong);
            if self.wrong[..n].iter().filter(same).take(PRINTED_MAX).count() < PRINTED_MAX {
                println!("cycle {}: {wrong:?}", self.recovery.len());
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
        let [kills, at_acks, terms, recoveries] = self.ends;
        let cycles = kills + at_acks + terms;
        println!(
            "cycles {cycles} (killed {kills}, killed at an ack {at_acks}, SIGTERM {terms}; {recoveries} in recovery)"
        );
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
        self.recovery.sort_unstable();
        let at =
            |percent: usize| self.recovery.get(self.recovery.len() * percent / 100).map_or(0, |time| time.as_millis());
        println!("recovery to the first login: p50 {} ms, p99 {} ms", at(50), at(99));
        println!("last seed {}", self.seed);
        self.wrong.is_empty()
    }
}

/// Ends the server.
fn finish(server: &Server, end: End, trap: &Trap<'_>) -> io::Result<()> {
    match end {
        End::Kill => server.kill(),
        End::Terminate => server.terminate()?,
        End::KillAtAck => {
            trap.armed.store(true, SeqCst);
            let until = Instant::now() + Duration::from_millis(500);
            while trap.armed.load(SeqCst) && Instant::now() < until {
                std::thread::sleep(Duration::from_micros(200));
            }
            server.kill();
        }
    }
    server.wait().map(drop)
}
