//! Short runs of the crash tests, and proof that they would find what they look for.
//!
//! The binary under test is `$WAFT_BIN` if that is set, else `cargo build -p server` makes it, with the profile and in
//! the target folder of these tests. The one with a mistake planted is built in the same folder and copied aside, and
//! then the right one is put back, so that nobody takes one for the other.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// One after the other, where the runner does not see to it: a build beside them would make clocks tell tales.
static ALONE: Mutex<()> = Mutex::new(());

/// The folder of the profile (`target/debug`).
fn folder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_crash")).parent().expect("a program lies in a folder").to_path_buf()
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

/// Builds waft, as these tests were built.
fn build(more: &[&str]) {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "server", "--bin", "waft"]).args(more);
    cargo.arg("--target-dir").arg(folder().parent().expect("a profile's folder lies in the target folder"));
    if folder().ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "waft cannot be built");
}

#[test]
fn over_fifty_crashes_nothing_acknowledged_is_lost_doubled_reordered_or_invented() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, text) = run(None, &["--cycles", "50", "--span", "700"]);
    assert!(passed && text.contains("lost 0, doubled 0,"), "see above");
}

#[test]
fn a_store_whose_writes_fail_one_after_the_other_has_what_it_said_it_has() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, text) = run(None, &["walk", "--step", "10"]);
    assert!(passed && text.contains("wrong 0"), "see above");
}

#[test]
fn after_a_power_cut_at_any_moment_the_store_has_what_it_said_it_has() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, text) = run(None, &["cuts", "--images", "500"]);
    assert!(passed && text.contains("wrong 0"), "see above");
}

#[test]
fn users_hear_of_a_disk_that_fails_or_is_full_and_are_served_again() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (passed, _) = run(None, &["scenes"]);
    assert!(passed, "see above");
}

#[test]
fn a_server_that_acknowledges_before_it_commits_is_found_out() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    build(&["--features", "planted-early-ack"]);
    let planted = folder().join("waft-planted");
    std::fs::copy(folder().join("waft"), &planted).expect("it was built");
    build(&[]);
    let arguments = ["--cycles", "20", "--span", "500", "--seed", "7", "--only", "ack", "--first"];
    let (passed, text) = run(Some(&planted), &arguments);
    assert!(!passed, "the mistake was not found");
    assert!(text.contains("Lost("), "it was found as something else");
}

#[test]
fn a_server_that_acknowledges_before_it_syncs_is_found_out_by_power_cuts() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let arguments =
        ["--cycles", "20", "--span", "500", "--seed", "7", "--only", "power", "--durability", "os", "--first"];
    let (passed, text) = run(None, &arguments);
    assert!(!passed, "the mistake was not found");
    assert!(text.contains("Lost("), "it was found as something else");
}
