//! What each command does.
//!
//! - [`serve`]: the server, from its start to its end.
//! - [`user`]: accounts, in the running server or in the store.
//! - [`rules`]: the access rules of an account.
//! - [`archive`]: one account's archive, exported or purged.
//! - [`acts`]: sessions, rosters, domains, announcements, what waits and what was refused.
//! - [`moving`]: accounts from other servers, to them, and erased.
//! - [`backup`]: all that is kept in one file, and back.
//! - [`init`]: a first configuration. [`dns`]: what DNS must say. [`config`]: check and show. [`status`]: status, watchers, fetch, reload, stop.
//! - [`s2s`]: links to other servers. [`check`]: what is wrong on the way to one.
//! - [`top`], [`watch`]: what the running server does.
//! - [`invite`]: links by which people make accounts.
//! - [`certificates`]: what is shown, and until when.
//! - [`password`]: how a password is asked for.

pub mod acts;
pub mod archive;
pub mod backup;
pub mod certificates;
pub mod check;
pub mod config;
pub mod dns;
pub mod init;
pub mod invite;
pub mod moving;
pub mod password;
pub mod rules;
pub mod s2s;
pub mod serve;
pub mod status;
pub mod top;
pub mod user;
pub mod watch;

use crate::admin::acts::Act;
use crate::cli::{Cli, Command};
use crate::config::Problems;
use std::fmt;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// What is wrong; further lines say what to do.
    Said(String),
    Config(Problems),
}

impl Failure {
    pub fn said(what: impl fmt::Display) -> Failure {
        Failure::Said(what.to_string())
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Failure {
        Failure::Config(problems)
    }
}

impl From<String> for Failure {
    fn from(what: String) -> Failure {
        Failure::Said(what)
    }
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(arguments) => serve::serve(&arguments),
        Command::User(arguments) => user::user(&arguments),
        Command::Rules(arguments) => rules::rules(&arguments),
        Command::Archive(arguments) => archive::archive(&arguments),
        Command::Session(arguments) => acts::session(&arguments),
        Command::Roster(arguments) => acts::roster(&arguments),
        Command::Domain(arguments) => acts::domain(&arguments),
        Command::Announce(arguments) => acts::announce(&arguments),
        Command::Notice(arguments) => acts::notice(&arguments),
        Command::Queues(place) => acts::act(Act::Queues, &place),
        Command::Limits(place) => acts::act(Act::Limits, &place),
        Command::LogLevel { level, place } => acts::act(Act::LogLevel { level }, &place),
        Command::Drain { off, place } => acts::act(Act::Drain { on: !off }, &place),
        Command::Import(arguments) => moving::import(&arguments),
        Command::Export(arguments) => moving::export(&arguments),
        Command::Config(arguments) => config::config(&arguments),
        Command::Status(arguments) => status::status(&arguments),
        Command::Init(arguments) => init::init(&arguments),
        Command::Dns(arguments) => dns::dns(&arguments),
        Command::Check(arguments) => check::check(&arguments),
        Command::S2s(arguments) => s2s::s2s(&arguments),
        Command::Top(arguments) => top::top(&arguments),
        Command::Watch(arguments) => watch::watch(&arguments),
        Command::Invite(arguments) => invite::invite(&arguments),
        Command::Certificates(arguments) => certificates::certificates(&arguments),
        Command::Watchers(arguments) => status::watchers(&arguments),
        Command::Fetch(arguments) => status::fetch(&arguments),
        Command::Reload(place) => status::reload(&place),
        Command::Stop(place) => status::stop(&place),
        Command::Backup { file, place } => backup::backup(&file, &place),
        Command::Restore { file, place, replace } => backup::restore(&file, &place, replace),
        Command::Client(arguments) => crate::client::client(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            tell(&failure);
            ExitCode::FAILURE
        }
    }
}

/// To standard error: what is wrong, then what to do.
fn tell(failure: &Failure) {
    let mut out = std::io::stderr().lock();
    let coloured = out.is_terminal();
    let _ = match failure {
        Failure::Config(problems) => write!(out, "{}{}", problems.render(coloured), summary(problems)),
        Failure::Said(what) => {
            let mut lines = what.lines();
            let first = lines.next().unwrap_or_default();
            let rest: Vec<&str> = lines.collect();
            let error = if coloured { "\x1b[1;31merror\x1b[0m" } else { "error" };
            writeln!(out, "{error}: {first}").and_then(|()| rest.iter().try_for_each(|line| writeln!(out, "  {line}")))
        }
    };
}

fn summary(problems: &Problems) -> String {
    match problems.list.len() {
        1 => "1 error in the configuration\n".into(),
        several => format!("{several} errors in the configuration\n"),
    }
}

/// A line to standard output; a reader that went away is no error.
pub fn say(line: impl fmt::Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
