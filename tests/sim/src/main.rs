//! Runs scenes and prints what was wrong with them.

use clap::Parser;
use sim::scene::{Options, Report, run};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;
use xmpp::planted::Bug;

/// Simulate whole servers under faults, one seed a scene.
#[derive(Parser)]
struct Arguments {
    /// How many scenes.
    #[arg(long, default_value_t = 500)]
    seeds: u64,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// This one alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Print every event.
    #[arg(long)]
    log: bool,
    /// What the servers log, in the manner of `RUST_LOG`, to standard error, with every event at its virtual time.
    #[arg(long)]
    trace: Option<String>,
    /// A mistake that the servers make, or `all`, one after the other.
    #[arg(long)]
    bug: Option<String>,
    /// Threads, each with scenes of its own.
    #[arg(long, default_value_t = processors())]
    threads: u64,
}

fn processors() -> u64 {
    std::thread::available_parallelism().map_or(2, |it| it.get() as u64)
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (from, seeds) = match arguments.seed {
        Some(seed) => (seed, 1),
        None => (arguments.from, arguments.seeds),
    };
    if let Some(level) = &arguments.trace {
        server::log::start(&server::config::Log { level: level.clone(), ..server::config::Log::default() });
    }
    if let Some(name) = &arguments.bug {
        return find(name, from, seeds, arguments.threads);
    }
    let began = Instant::now();
    let next = AtomicU64::new(from);
    let failed = Mutex::new(Vec::new());
    let total = Mutex::new(Report::default());
    std::thread::scope(|scope| {
        for _ in 0..arguments.threads.clamp(1, seeds.max(1)) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= from + seeds {
                        return;
                    }
                    let report = run(&Options {
                        seed,
                        keep_log: arguments.log,
                        live: arguments.trace.is_some(),
                        ..Options::default()
                    });
                    print(&report);
                    let mut all = total.lock().expect("nobody panics with it");
                    all.events += report.events;
                    all.messages += report.messages;
                    all.acked += report.acked;
                    all.refused += report.refused;
                    all.shown += report.shown;
                    all.crashes += report.crashes;
                    all.faults += report.faults;
                    if !report.violations.is_empty() {
                        failed.lock().expect("nobody panics with it").push(report.seed);
                    }
                }
            });
        }
    });
    let all = total.into_inner().expect("nobody panicked with it");
    let mut failed = failed.into_inner().expect("nobody panicked with it");
    failed.sort_unstable();
    println!(
        "{seeds} scenes in {:.1} s: {} messages, {} acknowledged, {} refused, {} shown; {} faults, {} restarts; {} events",
        began.elapsed().as_secs_f64(),
        all.messages,
        all.acked,
        all.refused,
        all.shown,
        all.faults,
        all.crashes,
        all.events
    );
    if failed.is_empty() {
        println!("nothing was wrong");
        return ExitCode::SUCCESS;
    }
    println!(
        "{} scenes went wrong; again, with every event: cargo run -p sim -- --log --seed {}",
        failed.len(),
        failed[0]
    );
    println!("seeds: {failed:?}");
    ExitCode::FAILURE
}

fn print(report: &Report) {
    for line in &report.log {
        println!("{line}");
    }
    for violation in report.violations.iter().take(10) {
        println!("seed {}: {}: {}", report.seed, violation.checker, violation.what);
    }
    if report.violations.len() > 10 {
        println!("seed {}: … and {} more", report.seed, report.violations.len() - 10);
    }
}

/// Prints for each planted mistake the first seed that shows it, and by which checker.
fn find(name: &str, from: u64, seeds: u64, threads: u64) -> ExitCode {
    let bugs: Vec<Bug> = Bug::ALL.iter().copied().filter(|bug| name == "all" || format!("{bug:?}") == name).collect();
    let next = AtomicUsize::new(0);
    let all_found = AtomicBool::new(!bugs.is_empty());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(bug) = bugs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let checker = sim::planted::checker_for(*bug);
                    match sim::planted::find(*bug, checker, from, seeds) {
                        Some((seed, what)) => println!("{bug:?}: {checker} in scene {seed}: {what}"),
                        None => {
                            println!("{bug:?}: {checker} found nothing in {seeds} scenes");
                            all_found.store(false, Ordering::Relaxed);
                        }
                    }
                }
            });
        }
    });
    if all_found.into_inner() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
