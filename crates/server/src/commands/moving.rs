//! `waft import`, `waft export`, `waft user erase`: accounts that come from other servers, go to them, or go for good.

use super::user::Accounts;
use super::{Failure, say, status::unexpected};
use crate::admin::acts::Act;
use crate::admin::{Answer, Request};
use crate::cli::{self, Origin};
use crate::data;
use crate::house::moving::{self as house, IMPORT};
use moving::archive_sql::WithArchives;
use moving::settle::{Settled, State};
use moving::{Account, LeftOut, Problem, Source, pie, prosody};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use store_sqlite::remains;
use xmpp::BareJid;

/// How long one account may take.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// How long the rows of an erased account may take to go.
const ERASE_MAX: Duration = Duration::from_secs(600);
/// Accounts that the report names for each thing that was left out.
const NAMED_MAX: usize = 3;

/// What a move came to, for people or as JSON.
#[derive(Default, Serialize)]
struct Report {
    dry_run: bool,
    accounts: u64,
    made: u64,
    added_to: u64,
    unchanged: u64,
    contacts: u64,
    requests: u64,
    blocks: u64,
    others: u64,
    archived: u64,
    waiting: u64,
    left_out: BTreeMap<String, Missing>,
    failed: BTreeMap<String, Missing>,
}

#[derive(Default, Serialize)]
struct Missing {
    count: u64,
    accounts: Vec<String>,
}

impl Missing {
    fn add(&mut self, count: u64, jid: &str) {
        self.count += count;
        if self.accounts.len() < NAMED_MAX && !jid.is_empty() {
            self.accounts.push(jid.into());
        }
    }
}

impl Report {
    fn add(&mut self, settled: Settled) {
        self.accounts += 1;
        match settled.state {
            State::Made => self.made += 1,
            State::Added => self.added_to += 1,
            State::Unchanged => self.unchanged += 1,
        }
        self.contacts += settled.contacts;
        self.requests += settled.requests;
        self.blocks += settled.blocks;
        self.others += settled.others;
        self.archived += settled.archived;
        self.waiting += settled.waiting;
        self.miss(settled.left_out, settled.jid.as_str());
    }

    fn miss(&mut self, left_out: LeftOut, jid: &str) {
        for (what, count) in left_out.0 {
            self.left_out.entry(what).or_default().add(count, jid);
        }
    }

    fn say(&self) {
        let Report { made, added_to, unchanged, contacts, requests, blocks, others, archived, waiting, .. } = self;
        if self.dry_run {
            say("this was a dry run: nothing was written");
        }
        say(format_args!(
            "{made} accounts were made, {added_to} had something added, {unchanged} had all of it already"
        ));
        say(format_args!("{contacts} contacts, {requests} subscription requests, {blocks} blocked addresses"));
        say(format_args!("{others} cards, pieces of private data and private nodes"));
        say(format_args!("{archived} archived messages, {waiting} messages that wait to be delivered"));
        let list = |title: &str, missing: &BTreeMap<String, Missing>| {
            for (at, (what, missing)) in missing.iter().enumerate() {
                if at == 0 {
                    say(title);
                }
                let more = if missing.accounts.len() >= NAMED_MAX { ", …" } else { "" };
                let of = match missing.accounts.join(", ") {
                    names if names.is_empty() => String::new(),
                    names => format!(" ({names}{more})"),
                };
                say(format_args!("  {} × {what}{of}", missing.count));
            }
        };
        list("left out:", &self.left_out);
        list("failed:", &self.failed);
    }
}

/// One line on a terminal that says how far it is.
struct Progress {
    total: u64,
    done: u64,
    shown: Option<Instant>,
    on: bool,
}

impl Progress {
    fn new(total: u64) -> Progress {
        Progress { total, done: 0, shown: None, on: std::io::stderr().is_terminal() }
    }

    fn next(&mut self, jid: &BareJid) {
        const WIDTH: u64 = 30;
        const EVERY: Duration = Duration::from_millis(100);
        self.done += 1;
        if !self.on || self.shown.is_some_and(|shown| shown.elapsed() < EVERY) {
            return;
        }
        self.shown = Some(Instant::now());
        let filled = (self.done * WIDTH / self.total.max(1)).min(WIDTH) as usize;
        let bar = "#".repeat(filled) + &".".repeat(WIDTH as usize - filled);
        let _ = write!(std::io::stderr().lock(), "\r\x1b[K[{bar}] {}/{} {jid}", self.done, self.total);
    }

    fn end(&self) {
        if self.on {
            let _ = write!(std::io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn wrong(problem: Problem) -> Failure {
    let text = problem.to_string();
    let remedy =
        if text.contains('\n') { "" } else { "\nname what the other server wrote; `waft import --help` says how" };
    Failure::Said(format!("{text}{remedy}"))
}

fn source(arguments: &cli::Import) -> Result<Box<dyn Source>, Failure> {
    let (path, only) = (arguments.path.as_path(), arguments.domain.as_deref());
    Ok(match arguments.from {
        Origin::Prosody => Box::new(prosody::open(path, only).map_err(wrong)?),
        Origin::Xep0227 => Box::new(pie::open(path, only).map_err(wrong)?),
        Origin::Ejabberd => {
            let mut archives = arguments.archive.clone();
            if archives.is_empty() && path.is_dir() {
                let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
                archives = entries.flatten().map(|it| it.path()).collect();
                archives.retain(|file| file.extension().is_some_and(|it| it == "sql"));
                archives.sort();
            }
            Box::new(WithArchives::new(pie::open(path, only).map_err(wrong)?, archives))
        }
    })
}

pub fn import(arguments: &cli::Import) -> Result<(), Failure> {
    let source = source(arguments)?;
    let total = source.count().map_err(wrong)?;
    let mut accounts = Accounts::reach(&arguments.place)?;
    let mut report = Report { dry_run: arguments.dry_run, ..Report::default() };
    let mut progress = Progress::new(total);
    let mut warned = Vec::new();
    let moved = source.each(&mut |account| {
        progress.next(&account.jid);
        let jid = account.jid.clone();
        if !warned.contains(&jid.domain().to_owned()) {
            warned.push(jid.domain().to_owned());
            // A word of warning where no server runs.
            let _ = accounts.check_domain(&jid);
        }
        match move_in(&mut accounts, account, arguments.dry_run) {
            Ok(settled) => report.add(settled),
            Err(why) => report.failed.entry(why).or_default().add(1, jid.as_str()),
        }
        Ok(())
    });
    progress.end();
    if moved.is_ok() && report.accounts == 0 && report.failed.is_empty() {
        return Err(Failure::Said(format!(
            "no accounts are in {}\nname what the other server wrote; `waft import --help` says how",
            arguments.path.display()
        )));
    }
    match moved {
        Ok(left_out) => report.miss(left_out, ""),
        // What was moved in until then is in.
        Err(problem) => report.failed.entry(problem.to_string()).or_default().add(1, ""),
    }
    if arguments.json {
        say(serde_json::to_string(&report).map_err(Failure::said)?);
    } else {
        report.say();
    }
    match report.failed.values().map(|missing| missing.count).sum::<u64>() {
        0 => Ok(()),
        failed => Err(Failure::Said(format!(
            "{failed} could not be moved in, as said above\nmend that and run the same command again: what is in stays as it is"
        ))),
    }
}

fn text(failure: Failure) -> String {
    match failure {
        Failure::Said(what) => what,
        Failure::Config(problems) => problems.to_string(),
    }
}

/// By the running server, which finds it as a file in its data folder; else into the store.
fn move_in(accounts: &mut Accounts, account: Account, dry: bool) -> Result<Settled, String> {
    let data = accounts.data();
    let Some(server) = accounts.server() else { return accounts.settle(account, dry).map_err(text) };
    let folder = data.join(IMPORT);
    let jid = account.jid.to_string();
    let left_out = account.left_out.clone();
    data::make_subfolder(&folder)
        .and_then(|()| data::own_as(&data, &folder))
        .map_err(|error| format!("{} cannot be used: {error}", folder.display()))?;
    let file = format!("{}.xml", std::process::id());
    let path = folder.join(&file);
    let written = house::write(&path, &account).and_then(|()| data::own_as(&data, &path));
    written.map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
    let asked = server.wait(PATIENCE).and_then(|()| server.ask(&Request::Act { act: Act::MoveIn { jid, file, dry } }));
    let _ = std::fs::remove_file(&path);
    match asked? {
        Answer::Value { value } => {
            let mut settled = settled_of(&account.jid, &value).ok_or_else(|| text(unexpected()))?;
            settled.left_out.extend(left_out);
            Ok(settled)
        }
        _ => Err(text(unexpected())),
    }
}

/// What became of an account, as JSON.
pub fn value_of(settled: &Settled) -> serde_json::Value {
    let state = match settled.state {
        State::Made => "made",
        State::Added => "added",
        State::Unchanged => "unchanged",
    };
    serde_json::json!({
        "jid": settled.jid.as_str(), "state": state, "contacts": settled.contacts, "requests": settled.requests,
        "blocks": settled.blocks, "others": settled.others, "archived": settled.archived, "waiting": settled.waiting,
        "left_out": settled.left_out.0,
    })
}

fn settled_of(jid: &BareJid, value: &serde_json::Value) -> Option<Settled> {
    let number = |name: &str| value.get(name)?.as_u64();
    Some(Settled {
        jid: jid.clone(),
        state: match value.get("state")?.as_str()? {
            "made" => State::Made,
            "added" => State::Added,
            _ => State::Unchanged,
        },
        contacts: number("contacts")?,
        requests: number("requests")?,
        blocks: number("blocks")?,
        others: number("others")?,
        archived: number("archived")?,
        waiting: number("waiting")?,
        left_out: LeftOut(serde_json::from_value(value.get("left_out")?.clone()).ok()?),
    })
}

// ---- export ----

pub fn export(arguments: &cli::Export) -> Result<(), Failure> {
    let mut accounts = Accounts::reach(&arguments.place)?;
    let whose = match (&arguments.jid, &arguments.domain) {
        (Some(jid), _) => vec![jid.clone()],
        (None, domain) => accounts.all(domain.as_deref())?,
    };
    // (Who is not there leaves no file.)
    let mut first = whose.first().map(|jid| leave(&mut accounts, jid)).transpose()?;
    let out: Box<dyn Write> = match &arguments.to {
        Some(path) => {
            let file = File::options().write(true).create_new(true).mode(0o600).open(path);
            Box::new(file.map_err(|error| match error.kind() {
                std::io::ErrorKind::AlreadyExists => format!("{} is there already\nname another file", path.display()),
                _ => format!("{} cannot be written: {error}\nname another file", path.display()),
            })?)
        }
        None => Box::new(std::io::stdout().lock()),
    };
    let failed = |error: std::io::Error| Failure::Said(format!("the export could not be written: {error}"));
    let mut writer = pie::Writer::new(BufWriter::new(out)).map_err(failed)?;
    let mut progress = Progress::new(whose.len() as u64);
    for jid in &whose {
        progress.next(jid);
        let account = match first.take() {
            Some(account) => account,
            None => leave(&mut accounts, jid)?,
        };
        writer
            .account(&account)
            .and_then(|()| writer.messages(false, jid, &account.archive))
            .and_then(|()| writer.messages(true, jid, &account.offline))
            .and_then(|()| writer.end())
            .map_err(failed)?;
    }
    progress.end();
    writer.finish().map_err(failed)?;
    if let Some(path) = &arguments.to {
        say(format_args!("{}: {} accounts", path.display(), whose.len()));
    }
    Ok(())
}

fn leave(accounts: &mut Accounts, jid: &BareJid) -> Result<Account, Failure> {
    let Some(server) = accounts.server() else { return accounts.leave(jid) };
    server.wait(PATIENCE)?;
    let Answer::Value { value } = server.ask(&Request::Act { act: Act::MoveOut { jid: jid.to_string() } })? else {
        return Err(unexpected());
    };
    let path = PathBuf::from(value.get("path").and_then(|path| path.as_str()).ok_or_else(unexpected)?);
    let account = house::read(&path)?;
    let _ = std::fs::remove_file(&path);
    Ok(account)
}

// ---- erase ----

/// What was there, what is left, and what others have of it.
#[derive(Serialize)]
struct Proof {
    jid: String,
    erased_at: String,
    removed: remains::Rows,
    remaining: remains::Rows,
    elsewhere: remains::Rows,
}

/// Removes an account as `waft user del` does, and looks into the file until no row of it is there.
pub fn erase(jid: &BareJid, json: bool, place: &cli::Place) -> Result<(), Failure> {
    let mut accounts = Accounts::reach(place)?;
    let data = accounts.data();
    let found = remains::of_account(&data, jid)?;
    let Some((number, removed)) = found else {
        return Err(Failure::Said(format!("there is no account {jid}\n`waft user list` shows those there are")));
    };
    accounts.remove(jid)?;
    let until = Instant::now() + ERASE_MAX;
    let mut remaining = remains::of_number(&data, number)?;
    while !remaining.is_empty() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(100));
        remaining = remains::of_number(&data, number)?;
    }
    let at = accounts.now();
    let elsewhere = remains::elsewhere(&data, jid)?;
    let proof = Proof { jid: jid.to_string(), erased_at: at.to_xmpp(), removed, remaining, elsewhere };
    if json {
        say(serde_json::to_string(&proof).map_err(Failure::said)?);
    } else {
        show(&proof, &data);
    }
    if proof.remaining.is_empty() {
        return Ok(());
    }
    Err(Failure::Said(
        "rows of the account are left\nlook into the log of the server, and run the command again".into(),
    ))
}

fn show(proof: &Proof, data: &Path) {
    say(format_args!("{} was erased at {}", proof.jid, proof.erased_at));
    for (table, rows) in &proof.removed {
        let left = proof.remaining.get(table).copied().unwrap_or(0);
        say(format_args!("  {table:<12} {rows} rows removed, {left} left"));
    }
    for (place, rows) in &proof.elsewhere {
        say(format_args!("  {rows} × in {place}, whose they are"));
    }
    say(
        "the file itself may keep fragments until their place is needed: `waft backup` and `waft restore` write it anew",
    );
    say("not looked at: other servers, clients, and backups of this one, which keep what they have");
    say(format_args!("the act is noted in {}", data.join(crate::audit::FILE).display()));
}
