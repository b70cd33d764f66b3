//! `waft archive`: what one account's archive holds, and an end to it.

use super::{Failure, say, status::unexpected, user::Accounts};
use crate::admin::{Answer, ArchiveRecord, Request};
use crate::cli;
use xmpp::{BareJid, Stamp};

pub fn archive(command: &cli::Archive) -> Result<(), Failure> {
    match command {
        cli::Archive::Export { jid, place } => export(&mut Accounts::reach(place)?, jid),
        cli::Archive::Purge { jid, before, place } => {
            let before = match before {
                Some(text) => Some(Stamp::from_xmpp(text).ok_or_else(|| {
                    Failure::Said(format!("\"{text}\" is no time\nwrite it as 2026-01-31T00:00:00Z"))
                })?),
                None => None,
            };
            purge(&mut Accounts::reach(place)?, jid, before)?;
            say(format_args!("the archive of {jid} is purged"));
            Ok(())
        }
    }
}

/// Prints one JSON object a message, oldest first.
fn export(accounts: &mut Accounts, jid: &BareJid) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let records = page(accounts, jid, after)?;
        for record in &records {
            say(serde_json::to_string(record).map_err(Failure::said)?);
        }
        match records.last() {
            Some(last) => after = last.position,
            None => return Ok(()),
        }
    }
}

fn page(accounts: &mut Accounts, jid: &BareJid, after: i64) -> Result<Vec<ArchiveRecord>, Failure> {
    if let Some(server) = accounts.server() {
        return match server.ask(&Request::ArchivePage { jid: jid.to_string(), after })? {
            Answer::Archive { records } => Ok(records),
            _ => Err(unexpected()),
        };
    }
    accounts.archive_page(jid, after)
}

fn purge(accounts: &mut Accounts, jid: &BareJid, before: Option<Stamp>) -> Result<(), Failure> {
    if let Some(server) = accounts.server() {
        let before = before.map(Stamp::to_xmpp);
        return match server.ask(&Request::ArchivePurge { jid: jid.to_string(), before })? {
            Answer::Done => Ok(()),
            _ => Err(unexpected()),
        };
    }
    accounts.archive_purge(jid, before)
}
