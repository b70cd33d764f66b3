//! Every write there is, and what came of it.

use crate::StoreError;
use crate::record::*;
use xmpp::{BareJid, Jid, Stamp};

/// Called once by the writer; one outcome a change, in their order. It runs on the writer's thread and holds up every
/// later commit: it must be short and must not wait. It may call [`Store::commit`](crate::Store::commit).
pub type Committed = Box<dyn FnOnce(Result<Vec<Outcome>, StoreError>) + Send>;

/// One write. `account` is always the entity's own bare JID (`local`: a hosted domain's, of a pair of domains); unless
/// said otherwise it must exist, else the outcome
/// is [`Outcome::NoAccount`] and the rest of the call is done nevertheless.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// [`Outcome::Exists`] if there is one of that name.
    AccountCreate {
        account: BareJid,
        credentials: Credentials,
        created: Stamp,
    },
    /// Removes the account and all its rows: roster, requests, inbox, pending marks, sessions, tokens, blobs, blocks.
    AccountRemove {
        account: BareJid,
    },
    /// Replaces the keys as a whole. Tokens that were given for the old password go with it.
    CredentialsSet {
        account: BareJid,
        credentials: Credentials,
    },
    /// Adds keys for the same password: those of `keys` of whose mechanism there are none yet, if the stored key of
    /// another mechanism is still `beside`. Tokens stay.
    CredentialsAdd {
        account: BareJid,
        keys: Credentials,
        beside: Vec<u8>,
    },
    AccountDisable {
        account: BareJid,
        disabled: bool,
    },
    /// Puts an item and sets the roster's version.
    RosterPut {
        account: BareJid,
        item: RosterItem,
        version: u64,
    },
    RosterDelete {
        account: BareJid,
        contact: BareJid,
        version: u64,
    },
    /// A subscription request that waits for an answer; one a contact (the latest).
    RequestPut {
        account: BareJid,
        contact: BareJid,
        stanza: Vec<u8>,
        received: Stamp,
    },
    RequestDelete {
        account: BareJid,
        contact: BareJid,
    },
    /// Appends to the inbox log, and marks it pending if it says so. [`Outcome::Duplicate`] if the same dedupe key is
    /// in the log already (then nothing is written). A record that is neither pending nor archived leaves its dedupe
    /// key alone. A position that is not greater than the last one appended is a bug of the caller: the whole call is
    /// refused with [`StoreError::Damaged`].
    Append {
        account: BareJid,
        record: Record,
    },
    /// Puts another stanza in place of a record's; nothing happens if there is no such record.
    Rewrite {
        account: BareJid,
        position: i64,
        stanza: Vec<u8>,
    },
    /// Clears pending marks; records that are not part of the archive leave the log with them.
    Taken {
        account: BareJid,
        positions: Vec<i64>,
    },
    /// Removes log records that are not pending, up to and including the position.
    Prune {
        account: BareJid,
        up_to: i64,
    },
    /// Cuts the archive from its oldest record on: all that is older than `before` (a position), all but the newest
    /// `records_max`, then as many as it takes until what is archived weighs no more than `bytes_max` (stanzas; what is
    /// pending counts). Pending records stay, and those that are not archived. One change removes [`TRIM_MAX`] at most;
    /// a store may do a part of that between the commits that follow.
    Trim {
        account: BareJid,
        before: i64,
        records_max: Option<u64>,
        bytes_max: u64,
    },
    SessionPut {
        account: BareJid,
        row: SessionRow,
    },
    SessionDelete {
        account: BareJid,
        resource: Box<str>,
    },
    /// The row of a session, if there is one, says no more how much was received ([`SessionRow::received`]).
    ReceivedDelete {
        account: BareJid,
        resource: Box<str>,
    },
    BlobPut {
        account: BareJid,
        space: Box<str>,
        key: Box<str>,
        value: Vec<u8>,
    },
    BlobDelete {
        account: BareJid,
        space: Box<str>,
        key: Box<str>,
    },
    BlockPut {
        account: BareJid,
        jid: Jid,
    },
    BlockDelete {
        account: BareJid,
        jid: Jid,
    },
    TokenPut {
        account: BareJid,
        token: Token,
    },
    TokenDelete {
        account: BareJid,
        client: Box<str>,
        mechanism: Box<str>,
    },
    /// When the last resource left, and the status text it left with. XEP-0012.
    LastActivity {
        account: BareJid,
        left: Stamp,
        status: Box<str>,
    },
    /// Keeps a stanza for another domain until [`Change::OutboxDelete`]. Its local domain need be no account. An id that
    /// is there already keeps its row.
    OutboxPut {
        row: OutboxRow,
    },
    OutboxDelete {
        local: BareJid,
        ids: Vec<i64>,
    },
    /// A server of another domain was spoken with, at this time.
    DomainReached {
        local: BareJid,
        remote: Box<str>,
        at: Stamp,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    Exists,
    NoAccount,
    /// The record was there already, at this position.
    Duplicate(i64),
}

impl Change {
    /// Whose row it is.
    pub fn account(&self) -> &BareJid {
        match self {
            Change::AccountCreate { account, .. }
            | Change::AccountRemove { account }
            | Change::CredentialsSet { account, .. }
            | Change::CredentialsAdd { account, .. }
            | Change::AccountDisable { account, .. }
            | Change::RosterPut { account, .. }
            | Change::RosterDelete { account, .. }
            | Change::RequestPut { account, .. }
            | Change::RequestDelete { account, .. }
            | Change::Append { account, .. }
            | Change::Rewrite { account, .. }
            | Change::Taken { account, .. }
            | Change::Prune { account, .. }
            | Change::Trim { account, .. }
            | Change::SessionPut { account, .. }
            | Change::SessionDelete { account, .. }
            | Change::ReceivedDelete { account, .. }
            | Change::BlobPut { account, .. }
            | Change::BlobDelete { account, .. }
            | Change::BlockPut { account, .. }
            | Change::BlockDelete { account, .. }
            | Change::TokenPut { account, .. }
            | Change::TokenDelete { account, .. }
            | Change::LastActivity { account, .. } => account,
            Change::OutboxPut { row } => &row.local,
            Change::OutboxDelete { local, .. } | Change::DomainReached { local, .. } => local,
        }
    }

    /// Does it only keep the books, which may be behind for a moment? Nobody waits for it but those who are told of a session.
    pub fn keeps_books(&self) -> bool {
        matches!(
            self,
            Change::SessionPut { .. }
                | Change::SessionDelete { .. }
                | Change::LastActivity { .. }
                | Change::Taken { .. }
                | Change::Trim { .. }
        )
    }

    /// What it weighs in a queue, in bytes; roughly.
    pub fn weight(&self) -> usize {
        let held = match self {
            Change::RequestPut { stanza, .. } | Change::Rewrite { stanza, .. } => stanza.len(),
            Change::Append { record, .. } => record.stanza.len() + record.peer.as_str().len(),
            Change::Taken { positions, .. } => positions.len() * size_of::<i64>(),
            Change::SessionPut { row, .. } => {
                row.presence.len() + row.directed.iter().map(|jid| jid.as_str().len() + 32).sum::<usize>()
            }
            Change::BlobPut { value, .. } => value.len(),
            Change::RosterPut { item, .. } => item.groups.iter().map(|group| group.len() + 16).sum::<usize>(),
            Change::LastActivity { status, .. } => status.len(),
            Change::OutboxPut { row } => row.stanza.len() + row.remote.len(),
            Change::OutboxDelete { ids, .. } => ids.len() * size_of::<i64>(),
            _ => 0,
        };
        size_of::<Change>() + self.account().as_str().len() + held
    }
}

/// Records that one [`Change::Trim`] removes at most, so that no commit takes long.
pub const TRIM_MAX: usize = 2_000;

/// Why a call after [`Store::close`](crate::Store::close) is answered with [`StoreError::Fatal`].
pub const CLOSED: &str = "the store is closed";

/// The reason of the [`StoreError::Damaged`] that answers an [`Change::Append`] whose position does not grow.
pub fn position_must_grow(position: i64, last: i64) -> String {
    format!("position {position} is not greater than {last}, the last one appended")
}
