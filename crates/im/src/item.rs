//! What comes in to an entity. An entity's steps never overlap (CLUSTER rule 3); it hears of the world only by items
//! (rule 4).

use crate::effects::{Effect, QueryAnswer, Then};
use crate::roles::Roles;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use store::{AccountRecord, Record, StoreError};
use xmpp::{BareJid, Jid, Stamp, Stanza};

/// The time of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// UTC, for what people read and what is stored.
    pub utc: Stamp,
    /// Monotonic milliseconds since the process started, for timeouts.
    pub mono_ms: u64,
}

/// The stream at the edge, as an address: opaque here, resolved by the house.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EdgeRef(pub u64);

impl EdgeRef {
    /// No stream at all: what is sent there only stands in its place behind a commit.
    pub const NOBODY: EdgeRef = EdgeRef(0);
}

/// A session within its account; never used again while the account is in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u32);

impl SessionId {
    /// The operator, who asks in the owner's name: [`Item::Ask`].
    pub const OPERATOR: SessionId = SessionId(u32::MAX);
}

/// Where a stanza entered the house: the same when a client resends it after `<resume/>`. CLUSTER rule 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ingress {
    /// Incarnation of the stream: random with the epoch for a new session, kept over resumption.
    pub stream: u64,
    pub ordinal: u32,
}

/// Rides with everything that one stanza sets off; when the last clone is dropped, the stanza is *done* and may be
/// acknowledged (`h` is the prefix of what is done, CLUSTER rule 6).
#[derive(Clone, Default)]
pub struct Ticket(pub Option<Arc<dyn Any + Send + Sync>>);

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "Ticket" } else { "no ticket" })
    }
}

/// A stream asks its account for a session. RFC 6120 §7, XEP-0386.
#[derive(Debug, Clone)]
pub struct Attach {
    pub edge: EdgeRef,
    /// What the client asked for, prepared; `None`: the server chooses.
    pub resource: Option<Box<str>>,
    /// Random, for a resource chosen by the server and for ids. From the house, as this crate has no randomness.
    pub seed: u64,
    /// Stable id of the client software's installation, when it said one (SASL2 user-agent).
    pub client: Option<Box<str>>,
    /// By Bind 2: what is archived until now the client reads from the archive, and is not sent as backlog. XEP-0386
    /// §3.2.
    pub bind2: bool,
    /// Bind 2 asked to enable these inline.
    pub carbons: bool,
    pub inactive: bool,
    /// Bind 2 or `<enable/>` inline: the resumption id that the house made, and what was asked.
    pub management: Option<ManagementRequest>,
    /// XEP-0386 §... the session's stream identity for ingress ids.
    pub stream: u64,
    /// What the client, and its listener, want the session to be.
    pub roles: Roles,
    /// The connection is encrypted (for policies and `user list`).
    pub secure: bool,
}

/// `<enable/>`, XEP-0198 §3.
#[derive(Debug, Clone)]
pub struct ManagementRequest {
    pub resume: bool,
    /// Seconds the client prefers.
    pub max: Option<u32>,
    /// Made by the house: random, carries the epoch (CLUSTER rule 10).
    pub id: Box<str>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetachReason {
    /// `</stream:stream>`: the session ends at once.
    Closed,
    /// The connection broke: with stream management the session waits for resumption.
    Lost,
    /// A stream error ended it: the session ends at once.
    Fault,
}

#[derive(Debug)]
pub enum Item {
    // ---- from a stream to its session ----
    Attach(Attach),
    /// `<resume/>`: `h` is what the client has handled. XEP-0198 §5.
    Resume {
        edge: EdgeRef,
        id: Box<str>,
        h: u32,
    },
    FromClient {
        session: SessionId,
        /// Nobody else holds it yet.
        stanza: Arc<Stanza>,
        ingress: Ingress,
        ticket: Ticket,
    },
    /// A stanza that is in form, but wrong: the error that its client hears for it, in its turn.
    Malformed {
        session: SessionId,
        answer: Arc<Stanza>,
        ticket: Ticket,
    },
    /// `<enable/>` on a stream that is bound already.
    Manage {
        session: SessionId,
        request: ManagementRequest,
    },
    /// `<a h=…/>`.
    Acked {
        session: SessionId,
        h: u32,
    },
    /// XEP-0352.
    ClientState {
        session: SessionId,
        active: bool,
    },
    /// What the stream was given up to the delivery of this number has been written to the socket, or did not happen.
    Written {
        session: SessionId,
        edge: EdgeRef,
        deliveries: u64,
    },
    /// The stream is gone; `deliveries` as in `Written`, `received` stanzas were taken in (inbound `h`).
    Detached {
        session: SessionId,
        edge: EdgeRef,
        reason: DetachReason,
        deliveries: u64,
        received: u32,
    },
    /// The stream that resumes the session may have it; answers [`crate::Effect::TakeOver`].
    TakeOver {
        session: SessionId,
    },
    /// After `Detached`: all stanzas that the stream took in are done.
    Settled {
        session: SessionId,
        received: u32,
    },

    // ---- from another entity (or this one) ----
    /// A stanza for `to`, which is this account or one of its resources. `from` is stamped.
    Inbound {
        stanza: Arc<Stanza>,
        to: Jid,
        ingress: Ingress,
        ticket: Ticket,
    },

    // ---- from the house ----
    /// An iq get or set of the operator in the owner's name; the answer is an [`crate::Effect::Reply`].
    Ask {
        iq: Arc<Stanza>,
    },
    /// A query that a step asked for has its answer.
    Answered {
        iq: Arc<Stanza>,
        session: Option<SessionId>,
        answer: QueryAnswer,
        then: Then,
    },
    /// A page of pending records, oldest first; answers [`crate::Effect::ReadPending`].
    ///
    /// `None`: they could not be read.
    Pending {
        after: i64,
        records: Option<Vec<Record>>,
    },
    /// Effects that stood behind a commit of their step and did not happen: the commit failed (then
    /// [`Item::CommitFailed`] follows) or its record was in the log already ([`store::Outcome::Duplicate`]).
    Dropped {
        effects: Vec<Effect>,
    },
    /// A commit failed: its later effects were dropped; the stored part of the account was read again.
    CommitFailed {
        bounce: Option<Arc<Stanza>>,
        error: StoreError,
        /// Goes with the error that `bounce` is answered with: it is the outcome.
        ticket: Ticket,
        stored: Option<Box<AccountRecord>>,
    },
    /// A step panicked and none of its effects happened ([`Item::Dropped`] said so): the stored part of the account was
    /// read again, and the session whose step it was, if it was one's, ends.
    Panicked {
        session: Option<SessionId>,
        stored: Box<AccountRecord>,
    },
    /// The time that [`crate::Effect::WakeAt`] asked for has come. May come early or twice.
    Tick,
    /// Pending records whose time is over, or which came very long ago: found by looking through all that waits.
    Overdue {
        records: Vec<Record>,
    },
    /// End sessions: all, or one resource. The operator, or the account's removal.
    Kick {
        resource: Option<Box<str>>,
        fault: xmpp::StreamFault,
    },
    /// The operator puts a contact into the roster, each subscribed to the other as far as this account knows.
    Befriend {
        contact: BareJid,
        ticket: Ticket,
    },
    /// The operator says which roles the account has. Its sessions keep no other.
    SetRoles {
        roles: Roles,
        ticket: Ticket,
    },
    /// The owner has said beforehand, by an invitation, that this contact is welcome: as if a client had approved it and
    /// asked in its turn. XEP-0379 §3.5.
    Introduce {
        contact: xmpp::BareJid,
    },
    /// The operator lets nobody in any more (or again): it is stored already.
    Disabled(bool),
    /// The account itself is being removed: cascade to contacts, then `Unload`.
    Remove {
        ticket: Ticket,
    },
    /// The server shuts down: sessions' streams were told; write last things. The ticket goes when they are on disk.
    ShutDown {
        ticket: Ticket,
    },
    /// As [`Item::Inbound`]: `unsubscribed`, by which a contact's server has answered a probe. No user has said it.
    SubscriptionLost {
        stanza: Arc<Stanza>,
        to: Jid,
        ingress: Ingress,
        ticket: Ticket,
    },
    /// Rows of the ledger of an earlier process: their window is over, tell who must be told. DESIGN.md D11.
    LedgerExpired,
}
