//! Chores of the workspace: `cargo run -p xtask -- <chore>`.
//!
//! - `xeps`: prints `docs/xeps.md` from the extensions' cards ([`xeps`], [`elsewhere`], [`suites`]).

mod elsewhere;
mod impp;
mod suites;
mod xeps;

use std::process::ExitCode;

fn main() -> ExitCode {
    let chore = std::env::args().nth(1);
    let done = match chore.as_deref() {
        Some("xeps") => xeps::write(),
        _ => Err("usage: cargo run -p xtask -- xeps".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
