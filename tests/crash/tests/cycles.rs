//! A short run of the crash test, and proof that it would find what it looks for.
//!
//! The binary under test is `$WAFT_BIN` if that is set, else `cargo build -p server` makes it, with the profile and in
//! the target folder of these tests. The one with a mistake planted is built into a folder of its own within, so that
//! nobody takes it for the real one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// One after the other, where the runner does not see to it: a build beside them would make clocks tell tales.
static ALONE: Mutex<()> = Mutex::new(());

/// The folder of the profile (`target/debug`) and the target folder.
fn folders() -> (PathBuf, PathBuf) {
    let profile = Path::new(env!("CARGO_BIN_EXE_crash")).parent().expect("a program lies in a folder");
    (profile.to_path_buf(), profile.parent().expect("a profile's folder lies in the target folder").to_path_buf())
}

fn run(waft: Option<&Path>, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash"));
    command.args(arguments);
    if let Some(waft) = waft {
        command.arg("--waft").arg(waft);
    }
    let Output { status, stdout, stderr } = command.output().expect("the crash test starts");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    println!("{text}");
    (status.success(), text)
}

#[test]
fn over_fifty_crashes_nothing_acknowledged_is_lost_doubled_reordered_or_invented() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, text) = run(None, &["--cycles", "50", "--span", "700"]);
    assert!(passed && text.contains("lost 0, doubled 0,"), "see above");
}

#[test]
fn a_server_that_acknowledges_before_it_commits_is_found_out() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (profile, target) = folders();
    let planted = target.join("planted");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "server", "--bin", "waft"]);
    cargo.args(["--no-default-features", "--features", "planted-early-ack"]).arg("--target-dir").arg(&planted);
    let mut folder = "debug";
    if profile.ends_with("release") {
        cargo.arg("--release");
        folder = "release";
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "waft cannot be built with the mistake planted");
    let waft = planted.join(folder).join("waft");
    let (passed, text) = run(Some(&waft), &["--cycles", "20", "--span", "500", "--seed", "7", "--first"]);
    assert!(!passed, "the mistake was not found");
    assert!(text.contains("Lost("), "it was found as something else");
}
