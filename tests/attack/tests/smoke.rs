//! Each attack for a moment. `cargo run -p xtask -- attack` does them at full size.

use std::process::Command;

#[test]
fn row_35_under_each_attack_others_are_served_and_memory_stays_bounded() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_attack"));
    let output = command.args(["--smoke"]).output().expect("the attacks start");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{text}");
    assert!(output.status.success() && text.contains("nothing was wrong"), "see above");
}
