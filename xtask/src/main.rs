//! Chores of the workspace: `cargo run -p xtask -- <chore>`.
//!
//! - `sim N`: N scenes of the simulator (`tests/sim`), optimised. `fuzz SECONDS`: each fuzz target for so long.
//! - `xeps`: prints `docs/xeps.md` from the extensions' cards ([`xeps`], [`elsewhere`], [`suites`]).

#[cfg(test)]
mod documents;
mod elsewhere;
mod impp;
mod suites;
mod xeps;

use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let done = match chore.as_deref() {
        Some("xeps") => xeps::write(),
        Some("sim") => simulate(std::env::args().nth(2).as_deref().unwrap_or("500")),
        Some("fuzz") => fuzz(std::env::args().nth(2).as_deref().unwrap_or("60")),
        _ => Err("usage: cargo run -p xtask -- xeps | sim N | fuzz SECONDS".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Many scenes, one seed each.
fn simulate(seeds: &str) -> Result<(), String> {
    run("cargo", &["run", "--quiet", "--locked", "--profile", "sim", "-p", "sim", "--", "--seeds", seeds])
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
