//! Attacks: hostile peers against the real server, which runs with its default limits, while a canary, a session like
//! any other, measures how long it waits for answers, and the server's memory and files are looked at.
//!
//! ```text
//! cargo run -p xtask -- attack                all of them at full size, optimised
//! cargo run -p attack -- --smoke              each for a moment
//! cargo run -p attack -- --only dialback      one
//! ```
//! It fails if the canary gets no answer, if the server ends or panics, if its memory passes the bound, or does not come
//! back, or if files stay open. The canary's latency is told; the goal is 50 ms for 99 of 100 answers.
//!
//! - [`attacks`]: what is done. [`canary`]: who measures. [`server`]: the process. [`peer`]: hostile connections.

mod attacks;
mod canary;
#[path = "../../crash/src/client.rs"]
#[allow(dead_code, reason = "shared with the crash tests")]
mod client;
mod peer;
mod server;

use canary::Canary;
use clap::Parser;
use server::Server;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Attack waft, and see how others are served meanwhile.
#[derive(Parser)]
struct Cli {
    /// The program. Unset: it is built as this one was.
    #[arg(long, env = "WAFT_BIN")]
    waft: Option<PathBuf>,
    /// Each attack for a moment, with few connections.
    #[arg(long)]
    smoke: bool,
    /// Seconds that each attack lasts.
    #[arg(long)]
    seconds: Option<u64>,
    /// Connections of an attack that is about their number.
    #[arg(long)]
    connections: Option<usize>,
    /// How often all of them follow each other, on the same server: what each time leaves behind is a leak.
    #[arg(long)]
    rounds: Option<u32>,
    /// Those whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

/// How much of it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub length: Duration,
    pub connections: usize,
}

/// What the server may grow by under any attack: the bound that its limits add up to for so many connections.
const GROWTH_MAX: u64 = 256 << 20;
/// … and what may be left of it a while after: the store's caches are full then, and the allocator gives back late.
const LEFT_MAX: u64 = 96 << 20;
/// The rounds in which those caches fill up.
const FILLING: u32 = 2;
/// … and what a further round may add to the least that those before it left.
const LEAK_MAX: u64 = 24 << 20;
/// How long the server has to come back to itself. It may still be asking for thousands of domains that are not there,
/// thirty-two at a time.
const REST: Duration = Duration::from_secs(150);

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> std::io::Result<bool> {
    let (seconds, connections) = if cli.smoke { (1, 150) } else { (10, 4_000) };
    let size = Size {
        length: Duration::from_secs(cli.seconds.unwrap_or(seconds)),
        connections: cli.connections.unwrap_or(connections),
    };
    let binary = match &cli.waft {
        Some(binary) => binary.clone(),
        None => build()?,
    };
    let server = Server::start(&binary)?;
    let canary = Canary::start(&server)?;
    // What everything needs once: caches, thread stacks, the first of each kind of connection.
    std::thread::sleep(Duration::from_millis(500));
    canary.take();
    let (memory, files) = (server.resident_bytes(), server.open_files());
    println!(
        "{:<16} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9} {:>7}  what",
        "attack", "done", "canary", "p50 ms", "p99 ms", "max ms", "RSS MiB", "CPU s"
    );
    let mut wrong = Vec::new();
    let rounds = cli.rounds.unwrap_or(if cli.smoke { 1 } else { 3 });
    let mut left = memory + LEFT_MAX;
    for round in 1..=rounds {
        attack_all(cli, &server, &canary, size, memory, &mut wrong)?;
        if !wrong.is_empty() {
            break;
        }
        wrong.extend(come_back(&server, left, files));
        if round >= FILLING {
            left = left.min(server.resident_bytes() + LEAK_MAX);
        }
        println!("round {round}: {} MiB are left, {} files", server.resident_bytes() >> 20, server.open_files());
    }
    let panics = server.counter("panics");
    println!(
        "memory {} MiB before, {} MiB after; files {files} before, {} after; panics {panics}",
        memory >> 20,
        server.resident_bytes() >> 20,
        server.open_files()
    );
    println!("limits hit: {}", server.limits_hit().join(", "));
    if panics > 0 {
        wrong.push(format!("{panics} panics"));
    }
    for what in &wrong {
        println!("WRONG {what}");
    }
    if wrong.is_empty() {
        println!("nothing was wrong");
    }
    Ok(wrong.is_empty())
}

/// One after the other.
fn attack_all(
    cli: &Cli,
    server: &Server,
    canary: &Canary,
    size: Size,
    memory: u64,
    wrong: &mut Vec<String>,
) -> std::io::Result<()> {
    for (name, what, attack) in attacks::ALL.iter().filter(|(name, ..)| name.contains(&cli.only)) {
        server.begin_watching();
        let worked = server.processor_seconds();
        let done = attack(server, size)?;
        let measured = canary.take();
        let peak = server.peak_bytes();
        println!(
            "{name:<16} {done:>9} {:>8} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>7.2}  {what}",
            measured.len(),
            canary::percentile(&measured, 50),
            canary::percentile(&measured, 99),
            canary::percentile(&measured, 100),
            peak as f64 / f64::from(1 << 20),
            server.processor_seconds() - worked,
        );
        if measured.is_empty() {
            wrong.push(format!("{name}: the canary heard nothing"));
        }
        if let Some(why) = canary.failed() {
            wrong.push(format!("{name}: the canary: {why}"));
            return Ok(());
        }
        if server.has_ended() {
            wrong.push(format!("{name}: the server has ended"));
            return Ok(());
        }
        if peak > memory + GROWTH_MAX {
            wrong.push(format!("{name}: memory grew by {} MiB", (peak - memory) >> 20));
        }
    }
    Ok(())
}

/// Waits until the server has so little memory and so few files again; gives what it has not.
fn come_back(server: &Server, memory: u64, files: usize) -> Vec<String> {
    let until = Instant::now() + REST;
    loop {
        let (now, open) = (server.resident_bytes(), server.open_files());
        let well = now <= memory && open <= files + 8;
        if well {
            return Vec::new();
        }
        if Instant::now() > until {
            let grown = now.saturating_sub(memory) >> 20;
            let more = open.saturating_sub(files);
            return vec![format!("{grown} MiB more memory than may be left, and {more} more files than before")];
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Builds the server as this program was built, into the same target folder.
fn build() -> std::io::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or_else(|| std::io::Error::other("where is this program?"))?;
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--locked", "-p", "server", "--bin", "waft"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    match cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status()?.success() {
        true => Ok(folder.join("waft")),
        false => Err(std::io::Error::other("waft cannot be built")),
    }
}
