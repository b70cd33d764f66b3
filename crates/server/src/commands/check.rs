//! `waft check`: the way to another domain and back, step by step.

use super::status::{connect, unexpected};
use super::{Failure, say};
use crate::admin::{Answer, Check, CheckState, CheckStep, Request};
use crate::cli;

pub fn check(arguments: &cli::Check) -> Result<(), Failure> {
    let request = Request::Check { domain: arguments.domain.clone(), from: arguments.from.clone() };
    let Answer::Check(check) = connect(&arguments.place)?.ask(&request)? else { return Err(unexpected()) };
    if arguments.json {
        say(serde_json::to_string(&check).map_err(Failure::said)?);
    } else {
        say(format_args!("{} to {}", check.from, check.domain));
        for step in &check.steps {
            say(lines(step));
        }
    }
    match failed(&check) {
        None => Ok(()),
        Some(step) => {
            Err(Failure::Said(format!("{} cannot be reached: the step \"{}\" failed", check.domain, step.step)))
        }
    }
}

fn failed(check: &Check) -> Option<&CheckStep> {
    check.steps.iter().find(|step| step.state == CheckState::Failed)
}

fn lines(step: &CheckStep) -> String {
    let state = match step.state {
        CheckState::Ok => "ok",
        CheckState::Note => "note",
        CheckState::Failed => "FAILED",
        CheckState::Skipped => "-",
    };
    let time = match step.state {
        CheckState::Skipped => String::new(),
        CheckState::Ok | CheckState::Note | CheckState::Failed => format!("{} ms", step.milliseconds),
    };
    let mut out = format!("  {state:<6} {:<15} {time:>9}  {}", step.step, step.detail);
    if let Some(remedy) = &step.remedy {
        out.push_str(&format!("\n{:>36}{remedy}", "do: "));
    }
    out
}
