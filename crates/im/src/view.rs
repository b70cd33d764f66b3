//! The one decision at every exit: may this watcher see that of this account? DESIGN.md D6.
//!
//! Today's rules are the roster subscription and the block list; the ACCESS RULES document comes to stand here.

use crate::account::Account;
use xmpp::Jid;

/// Ways out of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit { Broadcast, Probe, LastActivity, AccountInfo, Resources, VCard, IqToResource, MessageError }

/// What the watcher sees there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen { All, Nothing }

pub fn view(account: &Account, watcher: &Jid, exit: Exit) -> Seen { let _ = (account, watcher, exit); todo!() }
