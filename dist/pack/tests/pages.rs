//! What is written is there, for every command.

use clap::CommandFactory;
use std::path::Path;
use std::process::Command;

fn names(command: &clap::Command, before: &str, into: &mut Vec<String>) {
    let name =
        if before.is_empty() { command.get_name().to_owned() } else { format!("{before}-{}", command.get_name()) };
    for below in command.get_subcommands().filter(|it| it.get_name() != "help") {
        names(below, &name, into);
    }
    into.push(name);
}

#[test]
fn each_command_has_a_man_page_and_the_shells_know_its_options() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pages");
    let written = Command::new(env!("CARGO_BIN_EXE_pack")).arg(&folder).status().expect("the program starts");
    assert!(written.success());
    let mut all = Vec::new();
    names(&server::cli::Cli::command(), "", &mut all);
    assert!(all.iter().any(|name| name == "waft-user-add"), "{all:?}");
    for name in all {
        let page = folder.join("man").join(format!("{name}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS"), "{name}");
    }
    for file in ["waft.bash", "_waft", "waft.fish"] {
        let text = std::fs::read_to_string(folder.join("completions").join(file)).expect("it is there");
        assert!(text.contains("dry-run"), "{file}");
    }
}
