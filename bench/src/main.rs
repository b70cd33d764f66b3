//! Load on real servers, side by side: CPU time of the server per operation, throughput, latency, memory.
//!
//! ```text
//! cargo run --release -p bench -- --servers waft,waft-live            a table of waft alone
//! cargo run --release -p bench -- --servers waft-live,prosody,ejabberd --runs 3
//! ```
//! Server on core 0, load on core 1; the peers are Debian's `prosody` and `ejabberd`.
//!
//! - `client`: a client that costs little. `servers`: the servers compared. `work`: the workloads.

mod client;
mod servers;
mod work;

use clap::Parser;
use servers::{Kind, Server};
use std::collections::BTreeMap;
use std::path::PathBuf;
use work::Figure;

#[derive(Parser)]
struct Options {
    /// Compared, in this order, alternately.
    #[arg(long, value_delimiter = ',', default_value = "waft,waft-live")]
    servers: Vec<Kind>,
    /// The waft binary.
    #[arg(long, default_value = "target/release/waft")]
    waft: PathBuf,
    /// Runs of each; medians are printed, and the spread.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Seconds of each measured span.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only workloads whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    #[arg(long, default_value_t = 1_000)]
    idle: usize,
    #[arg(long, default_value_t = 0)]
    core: usize,
}

const WORKLOADS: &[&str] = &[
    "chat window 2",
    "chat window 20",
    "chat TLS window 2",
    "chat 2 kB",
    "chat paced 1000/s",
    "presence 20 watchers",
    "login SCRAM-SHA-1",
    "login TLS",
    "offline store",
    "idle",
    "idle TLS",
];

async fn run(name: &str, server: &Server, options: &Options) -> std::io::Result<Figure> {
    let seconds = options.seconds;
    match name {
        "chat window 2" => work::chat(server, false, 100, 2, 100, seconds).await,
        "chat window 20" => work::chat(server, false, 100, 20, 100, seconds).await,
        "chat TLS window 2" => work::chat(server, true, 100, 2, 100, seconds).await,
        "chat 2 kB" => work::chat(server, false, 100, 2, 2_000, seconds).await,
        "chat paced 1000/s" => work::paced(server, 100, 1_000, seconds).await,
        "presence 20 watchers" => work::presence(server, 20, seconds).await,
        "login SCRAM-SHA-1" => work::login(server, false, seconds).await,
        "login TLS" => work::login(server, true, seconds).await,
        "offline store" => work::offline(server, 8, seconds).await,
        "idle" => work::idle(server, false, options.idle).await,
        "idle TLS" => work::idle(server, true, options.idle).await,
        other => Err(std::io::Error::other(format!("no workload {other}"))),
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() -> std::process::ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let mut table: BTreeMap<(usize, usize), Vec<Figure>> = BTreeMap::new();
    let mut failed = false;
    for _ in 0..options.runs {
        for (w, name) in WORKLOADS.iter().enumerate().filter(|(_, n)| n.contains(&options.only)) {
            for (s, kind) in options.servers.iter().enumerate() {
                let outcome = Server::start(*kind, &options.waft, options.core)
                    .and_then(|server| runtime.block_on(run(name, &server, &options)));
                match outcome {
                    Ok(figure) => table.entry((w, s)).or_default().push(figure),
                    Err(error) => {
                        failed = true;
                        eprintln!("{name} on {}: {error}", kind.name());
                    }
                }
            }
        }
    }
    println!("| workload | server | CPU µs/op (spread) | op/s | p50 ms | p99 ms | bytes each |");
    println!("|---|---|---|---|---|---|---|");
    for ((w, s), figures) in &table {
        let of = |pick: fn(&Figure) -> f64| median(&mut figures.iter().map(pick).collect::<Vec<_>>());
        let mut cpu: Vec<f64> = figures.iter().map(|f| f.cpu_us).collect();
        cpu.sort_by(f64::total_cmp);
        let spread = format!("{:.1}–{:.1}", cpu.first().copied().unwrap_or(0.0), cpu.last().copied().unwrap_or(0.0));
        println!(
            "| {} | {} | {:.1} ({spread}) | {:.0} | {:.3} | {:.3} | {:.0} |",
            WORKLOADS[*w],
            options.servers[*s].name(),
            of(|f| f.cpu_us),
            of(|f| f.per_second),
            of(|f| f.p50),
            of(|f| f.p99),
            of(|f| f.bytes)
        );
    }
    if failed { std::process::ExitCode::FAILURE } else { std::process::ExitCode::SUCCESS }
}
