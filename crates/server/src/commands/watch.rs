//! `waft watch`: the stanzas of one session, account or domain, as they pass the running server.

use super::{Failure, say};
use crate::admin::{Answer, Request};
use crate::cli;
use std::time::Duration;

/// Nothing may pass for long; the server says so now and then that it is there.
const SILENCE_MAX: Duration = Duration::from_secs(120);

pub fn watch(arguments: &cli::Watch) -> Result<(), Failure> {
    let mut server = super::status::connect(&arguments.place)?;
    server.wait(SILENCE_MAX)?;
    let mut answer = server.ask(&Request::Watch { who: arguments.who.to_string() })?;
    let mut seen = 0;
    loop {
        match answer {
            Answer::Watched { line: Some(line) } => {
                if line.left_out > 0 && !arguments.json {
                    say(format_args!("({} stanzas came too fast and are left out)", line.left_out));
                }
                if arguments.json {
                    say(serde_json::to_string(&line).map_err(Failure::said)?);
                } else {
                    say(format_args!("{} {} {} {}", line.at, line.way.arrow(), line.of, line.stanza));
                }
                seen += 1;
                if arguments.count.is_some_and(|count| seen >= count) {
                    return Ok(());
                }
            }
            // A sign of life.
            Answer::Watched { line: None } => {}
            _ => return Err(super::status::unexpected()),
        }
        answer = server.next()?;
    }
}
