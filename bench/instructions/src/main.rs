//! How many instructions the hot paths take: counted by callgrind, so that no noise moves them, and compared with what is
//! on record. Each path runs twice, with few and with many operations; the difference is what one costs.
//!
//! ```text
//! bench/instructions/run                  compares with record.txt; fails when a path has grown by more than 5 %
//! bench/instructions/run --record         writes record.txt anew, when the growth is on purpose
//! ```
//!
//! - [`paths`]: what is counted. [`house`], [`pipes`]: a whole server in memory for it.

mod house;
mod paths;
mod pipes;

use paths::PATHS;
use std::path::Path;
use std::process::{Command, ExitCode};

/// More than that, in percent, is a failure.
const GROWTH_MAX: f64 = 5.0;
/// Less by so much is one as well: something is not counted any more, or else it is worth a record of its own.
const SHRINKAGE_MAX: f64 = 25.0;
/// What is done for a stream, by the name of the function that polls it (whose parts are inlined).
const STREAM: &str = "*server::listen::turns::InTurn<F> as core::future*poll*";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["walk", path, count] => count.parse().map(|count| paths::walk(path, count)).map_err(|error| error.to_string()),
        ["compare", record] => compare(Path::new(record)),
        ["record", record] => count_all().and_then(|all| write(Path::new(record), &all)),
        _ => Err("usage: instructions compare RECORD | record RECORD | walk PATH COUNT".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn count_all() -> Result<Vec<(&'static str, f64)>, String> {
    PATHS
        .iter()
        .map(|(path, [few, many])| {
            let (less, more) = (count(path, *few)?, count(path, *many)?);
            Ok((*path, more.saturating_sub(less) as f64 / (many - few) as f64))
        })
        .collect()
}

/// Instructions of what the server does for its streams; of the store's path, of the whole process.
fn count(path: &str, operations: u64) -> Result<u64, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    if path != "append" {
        valgrind.arg(format!("--toggle-collect={STREAM}"));
    }
    let output = valgrind
        .arg(own)
        .args(["walk", path, &operations.to_string()])
        .output()
        .map_err(|error| format!("valgrind cannot be started: {error}; install it"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split("Collected : ").nth(1)?.split(' ').next()?.parse().ok());
    match collected {
        Some(0) => Err(format!("{path}: nothing was counted; has the function that is looked for another name?")),
        Some(collected) if output.status.success() => Ok(collected),
        _ => Err(format!("{path} {operations}: {}\n{said}", output.status)),
    }
}

fn write(record: &Path, all: &[(&str, f64)]) -> Result<(), String> {
    let lines: String = all.iter().map(|(path, instructions)| format!("{path} {instructions:.0}\n")).collect();
    print!("{lines}");
    std::fs::write(record, lines).map_err(|error| format!("{}: {error}", record.display()))
}

fn compare(record: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(record).map_err(|error| format!("{}: {error}", record.display()))?;
    let on_record = |path: &str| text.lines().find_map(|line| line.strip_prefix(path)?.trim().parse::<f64>().ok());
    let (mut grown, mut shrunk) = (Vec::new(), Vec::new());
    for (path, now) in count_all()? {
        let before = on_record(path).ok_or_else(|| format!("{} says nothing of {path}", record.display()))?;
        let percent = (now / before - 1.0) * 100.0;
        println!("{path}: {now:.0} instructions, on record {before:.0}, {percent:+.1} %");
        if percent > GROWTH_MAX {
            grown.push(path);
        }
        if percent < -SHRINKAGE_MAX {
            shrunk.push(path);
        }
    }
    if !shrunk.is_empty() {
        return Err(format!(
            "{} shrank by more than {SHRINKAGE_MAX} %: is all of it still counted? If so, write the record anew \
             (bench/instructions/run --record)",
            shrunk.join(", ")
        ));
    }
    match grown.is_empty() {
        true => Ok(()),
        false => Err(format!(
            "{} grew by more than {GROWTH_MAX} %: make it cheaper, or write the record anew on purpose \
             (bench/instructions/run --record)",
            grown.join(", ")
        )),
    }
}
