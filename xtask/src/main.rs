//! Chores of the workspace: `cargo xtask <chore>`.
//!
//! - `sim N`: N scenes of the simulator (`tests/sim`), optimised, and each planted mistake must be found; `sim N built`:
//!   by what the tests built, who look for the mistakes themselves. `fuzz SECONDS`: each fuzz target for so long.
//!   `attack`: hostile peers against the real server (`tests/attack`). `crash`: it dies again and again (`tests/crash`).
//! - `release`: the Debian package, the static program, the recipe for containers ([`release`]).
//!   `packages`: the package and the book, tried on a view of this machine that is thrown away (`tests/packages`).
//! - `impp`: the rows of `docs/impp.md`, and the tests that prove them ([`impp`]).
//! - `xeps`: prints `docs/xeps.md` from the extensions' cards ([`xeps`], [`elsewhere`], [`suites`]).

#[cfg(test)]
mod documents;
mod elsewhere;
mod impp;
mod release;
mod suites;
mod xeps;

use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let done =
        match chore.as_deref() {
            Some("xeps") => xeps::write(),
            Some("impp") => impp::chore(&std::env::args().skip(2).collect::<Vec<_>>()),
            Some("sim") => {
                let words: Vec<String> = std::env::args().skip(2).collect();
                simulate(words.first().map_or("500", |it| it), words.get(1).is_some_and(|it| it == "built"))
            }
            Some("packages") => {
                let words: Vec<String> = std::env::args().skip(2).collect();
                run("tests/packages/run", &words.iter().map(String::as_str).collect::<Vec<_>>())
            }
            Some("release") => release::release(std::env::args().skip(2)),
            Some("attack") => optimised("attack", std::env::args().skip(2)),
            Some("crash") => optimised("crash", std::env::args().skip(2)),
            Some("fuzz") => fuzz(std::env::args().nth(2).as_deref().unwrap_or("60")),
            _ => Err("usage: cargo run -p xtask -- xeps | impp [ROW…] | release | packages | sim N | fuzz SECONDS | attack | crash"
                .to_owned()),
        };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// The crates whose code the scenes spend their time in. They alone are optimised: what they stand on is as it is for the
/// other tests, and need not be built again.
const SIMULATED: [&str; 8] = ["xmpp", "stream", "im", "store", "store-sqlite", "cluster", "server", "sim"];

/// Many scenes, one seed each; then each planted mistake must be found. `built`: by what the tests built, who look for the
/// mistakes themselves.
fn simulate(seeds: &str, built: bool) -> Result<(), String> {
    let optimised = SIMULATED.map(|name| format!("profile.dev.package.{name}.opt-level=1"));
    let mut build = vec!["build", "--quiet", "--locked", "--workspace", "--bin", "sim"];
    if !built {
        build.extend(optimised.iter().flat_map(|it| ["--config", it]));
    }
    run("cargo", &build)?;
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let sim = own.with_file_name("sim").to_string_lossy().into_owned();
    run(&sim, &["--seeds", seeds])?;
    // The tests themselves look for the mistakes.
    if built { Ok(()) } else { run(&sim, &["--bug", "all"]) }
}

/// A program of the tests against the real server, both optimised; what follows is passed on.
fn optimised(package: &str, more: impl Iterator<Item = String>) -> Result<(), String> {
    let more: Vec<String> = more.collect();
    let begin = ["run", "--quiet", "--locked", "--release", "-p", package, "--"];
    let all: Vec<&str> = begin.into_iter().chain(more.iter().map(String::as_str)).collect();
    run("cargo", &all)
}

fn fuzz(seconds: &str) -> Result<(), String> {
    run("fuzz/run", &[seconds])
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = std::process::Command::new(program).args(arguments).status();
    match status.map_err(|error| format!("{program} cannot be started: {error}"))? {
        status if status.success() => Ok(()),
        status => Err(format!("{program} {}: {status}", arguments.join(" "))),
    }
}
