//! Every write there is, and what came of it.

use crate::StoreError;
use crate::record::*;
use xmpp::{BareJid, Jid, Stamp};

/// Called once by the writer; one outcome a change, in their order.
pub type Committed = Box<dyn FnOnce(Result<Vec<Outcome>, StoreError>) + Send>;

/// One write. `account` is always the entity's own bare JID; unless said otherwise it must exist, else the outcome
/// is [`Outcome::NoAccount`] and the rest of the call is done nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// [`Outcome::Exists`] if there is one of that name.
    AccountCreate { account: BareJid, credentials: Credentials, created: Stamp },
    /// Removes the account and all its rows: roster, requests, inbox, pending marks, sessions, tokens, blobs, blocks.
    AccountRemove { account: BareJid },
    CredentialsSet { account: BareJid, credentials: Credentials },
    AccountDisable { account: BareJid, disabled: bool },
    /// Puts an item and sets the roster's version.
    RosterPut { account: BareJid, item: RosterItem, version: u64 },
    RosterDelete { account: BareJid, contact: BareJid, version: u64 },
    /// A subscription request that waits for an answer; one a contact (the latest).
    RequestPut { account: BareJid, contact: BareJid, stanza: Vec<u8>, received: Stamp },
    RequestDelete { account: BareJid, contact: BareJid },
    /// Appends to the inbox log, and marks it pending if it says so. [`Outcome::Duplicate`] if the same dedupe key is
    /// in the log already (then nothing is written).
    Append { account: BareJid, record: Record },
    /// Clears pending marks.
    Taken { account: BareJid, positions: Vec<i64> },
    /// Removes log records that are not pending, up to and including the position.
    Prune { account: BareJid, up_to: i64 },
    SessionPut { account: BareJid, row: SessionRow },
    SessionDelete { account: BareJid, resource: Box<str> },
    BlobPut { account: BareJid, space: Box<str>, key: Box<str>, value: Vec<u8> },
    BlobDelete { account: BareJid, space: Box<str>, key: Box<str> },
    BlockPut { account: BareJid, jid: Jid },
    BlockDelete { account: BareJid, jid: Jid },
    TokenPut { account: BareJid, token: Token },
    TokenDelete { account: BareJid, client: Box<str>, mechanism: Box<str> },
    /// When the last resource left, and the status text it left with. XEP-0012.
    LastActivity { account: BareJid, left: Stamp, status: Box<str> },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Exists,
    NoAccount,
    /// The record was there already, at this position.
    Duplicate(i64),
}
