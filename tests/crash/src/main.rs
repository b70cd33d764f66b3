//! Crashes, faults and power cuts: the real server under load dies, is started again on the same folder, and what was
//! acknowledged is looked for.
//!
//! ```text
//! cargo run -p crash                          200 cycles; the binary is built first
//! cargo run -p crash -- walk                  each write of the store fails, or is the last of its process
//! cargo run -p crash -- cuts --images 10000   images of the disk as power cuts would leave it
//! cargo run -p crash -- scenes                a disk that fails, one that is full, backup and restore
//! cargo run -p crash -- all --full            all of it at full size
//! ```
//! A cycle: start; receivers come, take what waits and walk their archives; everything is compared with the ledger;
//! then senders and editors work until the server ends ([`End`]): 70 % by `kill -9` (at a random time, at the very
//! moment of an acknowledgement, at a failpoint), 10 % by SIGTERM, 10 % by a power cut, 10 % by a disk that fails.
//! One cycle in ten begins with a server that is killed while it recovers.
//! All figures but the first two must be 0: lost (acknowledged, and not there), doubled, reordered (per sender),
//! invented (there, and never sent, or sent otherwise, or refused), stuck (no answer). `repeated` counts what a crash
//! made the server send again, within the bound and under the same stanza-id.
//!
//! - [`server`]: the process. [`client`]: a small client. [`ledger`]: what was meant and what was acknowledged.
//! - [`sender`], [`receiver`], [`editor`]: those who work. [`cycles`]: the plan.
//! - [`disk`]: the disk under the process, which fails on command. [`image`]: the disk after a power cut.
//! - [`work`]: work on the store alone; [`walk`] and [`cuts`]: what is done to it.
//! - [`scenes`]: what users notice of a disk that fails.

mod client;
mod cuts;
mod cycles;
mod disk;
mod editor;
mod image;
mod ledger;
mod random;
mod receiver;
mod scenes;
mod sender;
mod server;
mod walk;
mod work;

use clap::{Args, Parser, Subcommand};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

pub const PASSWORD: &str = "secret of the tests";
pub const RECEIVERS: [&str; 3] = ["managed", "plain", "away"];
/// Violations that are printed, of one kind; all are counted.
pub const PRINTED_MAX: usize = 10;

/// Crash waft under load, again and again, and look for what it acknowledged.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    cycles: Cycles,
}

#[derive(Subcommand)]
enum Part {
    /// Crash the server under load (the default)
    Cycles(Cycles),
    /// Let each write of the store fail, one after the other
    Walk {
        #[arg(long)]
        seed: Option<u64>,
        /// Every so manieth position only
        #[arg(long, default_value_t = 1)]
        step: u64,
        #[command(flatten)]
        binaries: Binaries,
    },
    /// Cut the power at random moments of the store's work
    Cuts {
        #[arg(long)]
        seed: Option<u64>,
        #[arg(long, default_value_t = 1_000)]
        images: u64,
        #[command(flatten)]
        binaries: Binaries,
    },
    /// Play what users notice of a disk that fails
    Scenes(Binaries),
    /// All of it
    All {
        /// 1,000 cycles, 10,000 images, every position; else a small part of each
        #[arg(long)]
        full: bool,
        #[arg(long)]
        seed: Option<u64>,
        #[command(flatten)]
        binaries: Binaries,
    },
    /// Work on the store (started by the others)
    #[command(hide = true)]
    Work {
        folder: PathBuf,
        #[arg(long)]
        host: String,
        #[arg(long)]
        seed: u64,
    },
}

#[derive(Args, Clone, Default)]
pub struct Binaries {
    /// The waft binary; else $WAFT_BIN; else it is built
    #[arg(long, env = "WAFT_BIN")]
    pub waft: Option<PathBuf>,
    /// The library that stands for the disk; else $WAFT_DISK; else it is built
    #[arg(long, env = "WAFT_DISK")]
    pub disk: Option<PathBuf>,
}

#[derive(Args, Clone)]
pub struct Cycles {
    /// How often the server ends
    #[arg(long, default_value_t = 200)]
    pub cycles: u64,
    /// Go on beyond that until so many messages were acknowledged
    #[arg(long, default_value_t = 0)]
    pub messages: usize,
    /// No new cycle after so many seconds; 0 is no bound
    #[arg(long, default_value_t = 0)]
    pub seconds: u64,
    /// Of the plan; printed at the end
    #[arg(long)]
    pub seed: Option<u64>,
    #[arg(long, default_value_t = 8)]
    pub senders: usize,
    /// The longest time under load, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    pub span: u64,
    /// Walk the archives as a whole each so many cycles; else only what is new
    #[arg(long, default_value_t = 25)]
    pub walk_every: u64,
    /// Every cycle ends so: kill, ack, failpoint, term, power, fault
    #[arg(long)]
    pub only: Option<String>,
    /// `full`, or `os` (what was acknowledged may then be lost to a power cut, and that is found)
    #[arg(long, default_value = "full")]
    pub durability: String,
    /// End at the first cycle with a violation
    #[arg(long)]
    pub first: bool,
    #[command(flatten)]
    pub binaries: Binaries,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.part.unwrap_or(Part::Cycles(cli.cycles)) {
        Part::Work { folder, host, seed } => return work::run(&folder, &host, seed),
        Part::Cycles(options) => cycles::run(&options),
        Part::Walk { seed, step, binaries } => walk_all(seed_or_new(seed), step, &binaries),
        Part::Cuts { seed, images, binaries } => cut_all(seed_or_new(seed), images, &binaries),
        Part::Scenes(binaries) => scenes::play(&binaries),
        Part::All { full, seed, binaries } => all(full, seed, &binaries),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("the crash test cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

pub fn seed_or_new(seed: Option<u64>) -> u64 {
    seed.unwrap_or_else(|| u64::from(std::process::id()) ^ 0x5eed_0000)
}

fn all(full: bool, seed: Option<u64>, binaries: &Binaries) -> io::Result<bool> {
    let seed = seed_or_new(seed);
    let binaries = binaries.clone().ready()?;
    let mut good = walk_all(seed, if full { 1 } else { 10 }, &binaries)?;
    good &= cut_all(seed, if full { 10_000 } else { 200 }, &binaries)?;
    good &= scenes::play(&binaries)?;
    let words: &[&str] = if full {
        &["crash", "--cycles", "1000", "--messages", "1000000", "--walk-every", "100"]
    } else {
        &["crash", "--cycles", "50", "--span", "700"]
    };
    let options = Cli::parse_from(words).cycles;
    good &= cycles::run(&Cycles { seed: Some(seed), binaries, ..options })?;
    Ok(good)
}

/// On memory if there is some: nothing is kept there, and a sync costs nothing.
fn ground(binaries: &Binaries) -> io::Result<walk::Ground> {
    let shared = Path::new("/dev/shm");
    let mut builder = tempfile::Builder::new();
    builder.prefix("waft-crash-");
    let parent = if shared.is_dir() { builder.tempdir_in(shared)? } else { builder.tempdir()? };
    let library = binaries.clone().ready_disk()?;
    Ok(walk::Ground { library, parent })
}

fn walk_all(seed: u64, step: u64, binaries: &Binaries) -> io::Result<bool> {
    let walked = walk::walk(&ground(binaries)?, seed, step)?;
    for wrong in walked.wrong.iter().take(PRINTED_MAX) {
        println!("{wrong}");
    }
    println!(
        "walk: {} runs over {} positions, seed {seed}: {} went on, {} refused to go on, {} refused to start, {} died; wrong {}",
        walked.runs,
        walked.positions,
        walked.finished,
        walked.fatal,
        walked.not_opened,
        walked.killed,
        walked.wrong.len()
    );
    Ok(walked.wrong.is_empty())
}

fn cut_all(seed: u64, images: u64, binaries: &Binaries) -> io::Result<bool> {
    let cuts = cuts::cuts(&ground(binaries)?, seed, images)?;
    for wrong in cuts.wrong.iter().take(PRINTED_MAX) {
        println!("{wrong}");
    }
    println!("cuts: {} images of {} records, seed {seed}; wrong {}", cuts.images, cuts.records, cuts.wrong.len());
    Ok(cuts.wrong.is_empty())
}

impl Binaries {
    /// Builds what is not named.
    pub fn ready(mut self) -> io::Result<Binaries> {
        if self.waft.is_none() {
            self.waft = Some(build("server", &["--bin", "waft"])?.join("waft"));
        }
        self.disk = Some(self.clone().ready_disk()?);
        Ok(self)
    }

    fn ready_disk(self) -> io::Result<PathBuf> {
        match self.disk {
            Some(disk) => disk.canonicalize(),
            None => Ok(build("disk", &[])?.join("libdisk.so")),
        }
    }
}

/// Builds a package as this program was built, into the same target folder; gives the folder it is in.
fn build(package: &str, more: &[&str]) -> io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().filter(|f| !f.ends_with("deps")).or(own.parent().and_then(Path::parent));
    let folder = folder.ok_or_else(|| io::Error::other("where is this program?"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", package]).args(more);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?;
    if status.success() {
        Ok(folder.to_path_buf())
    } else {
        Err(io::Error::other(format!("{package} cannot be built")))
    }
}
