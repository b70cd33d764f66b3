//! Load on real servers, side by side: CPU time of the server per operation, throughput, latency, memory.
//!
//! ```text
//! cargo run --release -p bench                                          everything, once
//! cargo run --release -p bench -- --only chat --servers waft,waft-live  waft alone
//! bench/run                                                             what docs/performance.md shows
//! ```
//! Server on core 0, load on core 1; the peers are Debian's `prosody` and `ejabberd`.
//!
//! - [`workloads`]: what is measured, and what is wanted of it; [`work`]: how. [`client`]: a client that costs little.
//! - [`between`]: the load of chat between domains.
//! - [`servers`]: the servers compared; [`relay`]: the floor.
//! - [`report`]: the table, and what it says of the goals; [`plot`]: the pictures.

mod between;
mod client;
mod plot;
mod relay;
mod report;
mod servers;
mod work;
mod workloads;

use clap::Parser;
use report::Results;
use servers::{Kind, Server};
use std::path::PathBuf;
use std::process::ExitCode;
use workloads::WORKLOADS;

#[derive(Parser)]
struct Options {
    /// Only these of the servers that a workload is for.
    #[arg(long, value_delimiter = ',')]
    servers: Vec<Kind>,
    /// The waft binary.
    #[arg(long, default_value = "target/release/waft")]
    waft: PathBuf,
    /// Runs of each, all servers in turn; medians are printed, and the spread. What takes minutes to set up is run once.
    #[arg(long, default_value_t = 1)]
    runs: usize,
    /// Seconds of each measured span.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// Only workloads whose name contains one of these.
    #[arg(long, value_delimiter = ';')]
    only: Vec<String>,
    /// Not those whose name contains one of these.
    #[arg(long, value_delimiter = ';')]
    without: Vec<String>,
    /// The core of the server.
    #[arg(long, default_value_t = 0)]
    core: usize,
    /// Puts the table between the marks of `performance.md` in this folder, and the plots into `performance`.
    #[arg(long)]
    write: Option<PathBuf>,
    /// Is the relay at this port, and nothing else.
    #[arg(long, hide = true)]
    relay: Option<u16>,
    /// The same, from one to all others.
    #[arg(long, hide = true)]
    fan: Option<u16>,
    /// Chats between the users of these two servers, which run, and measures nothing else.
    #[arg(long, hide = true)]
    between: Vec<between::Side>,
    /// Messages that a pair between domains keeps on the way.
    #[arg(long, hide = true, default_value_t = 2)]
    window: usize,
    /// Between domains with stream management (XEP-0198).
    #[arg(long, hide = true)]
    managed: bool,
    /// Pairs between domains.
    #[arg(long, hide = true, default_value_t = 20)]
    pairs: usize,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let relay = match (options.relay, options.fan) {
        (Some(port), _) => Some(runtime.block_on(relay::pairs(port))),
        (None, fan) => fan.map(|port| runtime.block_on(relay::fan(port))),
    };
    if let Some(ended) = relay {
        return match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    if let [here, there] = options.between.as_slice() {
        let chat = between::run([here, there], options.pairs, options.window, options.managed, options.seconds);
        let ran = runtime.block_on(chat);
        return match ran {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("between domains: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let is_wanted = |name: &str| {
        (options.only.is_empty() || options.only.iter().any(|it| name.contains(it.as_str())))
            && !options.without.iter().any(|it| name.contains(it.as_str()))
    };
    keep_off(options.core);
    let mut results = Results::default();
    let mut failed = false;
    for (w, workload) in WORKLOADS.iter().enumerate().filter(|(_, it)| is_wanted(it.name)) {
        for _ in 0..if workload.is_long() { 1 } else { options.runs } {
            for kind in workload.servers {
                if !options.servers.is_empty() && !options.servers.contains(kind) {
                    continue;
                }
                let outcome = Server::start(*kind, &options.waft, options.core)
                    .and_then(|server| runtime.block_on(workload.run(&server, options.seconds)));
                match outcome {
                    Ok(figure) => results.add(w, *kind, figure),
                    Err(error) => {
                        failed = true;
                        eprintln!("{} on {}: {error}", workload.name, kind.name());
                    }
                }
            }
        }
        eprintln!("{}", results.row(w));
    }
    println!("{}", results.table());
    if let Some(folder) = &options.write
        && let Err(error) = results.write(folder)
    {
        eprintln!("{}: {error}", folder.display());
        failed = true;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The load runs on the cores that are not the server's: beside it, it would wait for it, and it for the load. Where that
/// cannot be had, it is said.
fn keep_off(core: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let moved = core < CpuSet::MAX_CPU
        && sched_getaffinity(None).is_ok_and(|mut cores| {
            cores.unset(core);
            cores.count() > 0 && sched_setaffinity(None, &cores).is_ok()
        });
    if !moved {
        eprintln!("the load may run on the server's core: what it costs and what it waits is counted, too");
    }
}
