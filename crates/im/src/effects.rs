//! What goes out of a step, in order.

use crate::account::Account;
use crate::item::{EdgeRef, Ingress, SessionId, Ticket};
use crate::modules::reports::Report;
use std::sync::Arc;
use store::{Change, Page, PageQuery, StoreError};
use xmpp::write::Additions;
use xmpp::{BareJid, FullJid, IqType, Jid, Stanza, StanzaError, StreamFault};

/// One stanza for one session's stream.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub stanza: Arc<Stanza>,
    /// Replaces the stanza's `to` when the payload is shared by many.
    pub to: Option<Jid>,
    pub more: Additions,
    /// Of the recipient's log, when the message is in it.
    pub position: Option<i64>,
}

impl Delivery {
    /// The stanza as it is, and nothing more; it is in no log.
    pub fn plain(stanza: Arc<Stanza>) -> Delivery {
        Delivery { stanza, to: None, more: Additions::default(), position: None }
    }
}

/// What a session's stream hears. If the stream is gone when [`EdgeItem::Attached`] or [`EdgeItem::Resumed`] comes for
/// it, the account hears [`crate::Item::Detached`] as it does of any other.
#[derive(Debug)]
pub enum EdgeItem {
    Attached {
        session: SessionId,
        jid: FullJid,
        management: Option<Managed>,
    },
    /// Binding failed: `conflict`, `resource-constraint`, …
    AttachRefused(StanzaError),
    /// `number`: the session counts what is for this stream, from 1. (0: nobody is there.)
    Deliver {
        number: u64,
        delivery: Delivery,
    },
    /// The delivery of this number did not happen. Comes behind all of smaller numbers, and maybe behind larger ones.
    Skipped {
        number: u64,
    },
    /// Answers `<enable/>`. The stream counts deliveries from here.
    Managed(Managed),
    /// Answers `<resume/>`; what the client has not handled follows as `Deliver`. `received` is our inbound `h`,
    /// `sent` our outbound counter at the client's `h`.
    Resumed {
        session: SessionId,
        jid: FullJid,
        id: Box<str>,
        received: u32,
        sent: u32,
        stream: u64,
    },
    /// XEP-0198 §5: no such session. `h` when it is still known.
    ResumeRefused {
        h: Option<u32>,
    },
    /// Ends the stream with an error.
    Close(StreamFault),
}

#[derive(Debug, Clone)]
pub struct Managed {
    /// `None`: resumption was not asked for, or is refused.
    pub id: Option<Box<str>>,
    /// Seconds a broken session waits.
    pub max: u32,
    /// Where the server wants a broken stream to be resumed.
    pub location: Option<Box<str>>,
}

/// A read that an answer needs; runs without entity state, the stream's later stanzas wait.
#[derive(Debug, Clone)]
pub enum Query {
    Blob {
        account: BareJid,
        space: Box<str>,
        key: Box<str>,
    },
    /// Those of the keys that there are, in their order.
    Blobs {
        account: BareJid,
        space: Box<str>,
        keys: Vec<Box<str>>,
    },
    /// The same of several spaces: spaces and keys. Those that there are come as [`QueryAnswer::Blobs`], by their keys.
    Places {
        account: BareJid,
        places: Vec<(Box<str>, Box<str>)>,
    },
    Page {
        account: BareJid,
        query: Box<PageQuery>,
    },
    /// Credentials of the own account were changed: the house hashes (never on this path) and commits. XEP-0077 §3.3.
    ChangePassword {
        account: BareJid,
        password: Secret,
    },
    /// Removes the own account everywhere. XEP-0077 §3.2.
    RemoveAccount {
        account: BareJid,
    },
    /// A new invitation of the account's owner: the house makes and keeps it. XEP-0401 §5.1.
    Invite {
        account: BareJid,
    },
    /// Uptime of the server, in seconds. XEP-0012 §… to a server.
    Uptime,
}

/// Never printed, wiped after use.
#[derive(Clone)]
pub struct Secret(pub String);

impl Drop for Secret {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.0);
    }
}
impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

#[derive(Debug)]
pub enum QueryAnswer {
    Blob(Option<Vec<u8>>),
    Blobs(Vec<(Box<str>, Vec<u8>)>),
    Page(Page),
    Done,
    /// A link, and until when it is good.
    Invitation {
        uri: String,
        expires: xmpp::Stamp,
    },
    Seconds(u64),
    Refused(StanzaError),
    Failed(StoreError),
}

/// What to do with a query's answer; a plain function, so that items stay data.
pub type Then = fn(&mut Account, &Arc<Stanza>, Option<SessionId>, QueryAnswer, &mut Effects);

#[derive(Debug)]
pub enum Effect {
    /// Writes, all or nothing. Every effect behind it in this and later steps waits for it, except [`Effect::Tell`]s
    /// and others that stand *before* it in the same step and are not themselves behind an earlier one.
    /// If it fails, the effects behind it of the same step do not happen ([`crate::Item::Dropped`] gives them back), and
    /// `bounce` is answered with an error.
    Commit { changes: Vec<Change>, bounce: Option<Arc<Stanza>>, ticket: Ticket },
    /// To the entity that owns `to`: an account here, the host itself, another domain. Never a loop of these for a
    /// broadcast (CLUSTER rule 8): see `Fan`.
    Tell { to: Jid, stanza: Arc<Stanza>, ingress: Ingress, ticket: Ticket },
    /// One stanza to many entities.
    Fan { stanza: Arc<Stanza>, targets: Vec<Jid> },
    /// To a session's stream.
    Edge { edge: EdgeRef, item: EdgeItem },
    /// Ask the store; answered by [`crate::Item::Answered`].
    Query { query: Query, iq: Arc<Stanza>, session: Option<SessionId>, then: Then },
    /// Read pending records after a position; answered by [`crate::Item::Pending`].
    ReadPending { after: i64, limit: usize },
    /// A [`crate::Item::Tick`] at this monotonic millisecond (an earlier wish stands beside a later one).
    WakeAt { mono_ms: u64 },
    /// A resumption id now belongs to this account (or no longer), so that `<resume/>` finds its owner.
    Resumable { id: Box<str>, yes: bool },
    /// The ledger says no more how much the session received: its successor may have it. Answered by
    /// [`crate::Item::TakeOver`].
    TakeOver { session: SessionId },
    /// Nothing holds this entity in memory any more.
    Unload,
    /// A user reports somebody to the operator. XEP-0377.
    Report(Report),
    /// Answers [`crate::Item::Ask`]; the stanza's id is that of the iq.
    Reply(Arc<Stanza>),
    /// Something an operator may want to read in the log, about this account.
    Noted(String),
    /// Something an operator counts: a name from the metrics table.
    Count(&'static str),
    /// A limit was hit, by the name of its option.
    Limit(&'static str),
}

/// The effects of one step, in order.
#[derive(Debug, Default)]
pub struct Effects {
    pub list: Vec<Effect>,
}

impl Effects {
    pub fn push(&mut self, effect: Effect) {
        self.list.push(effect);
    }

    /// Counts the limit that led to this error, if one did.
    pub fn refused(&mut self, error: &StanzaError) {
        self.list.extend(error.limit.map(Effect::Limit));
    }

    pub fn edge(&mut self, edge: EdgeRef, item: EdgeItem) {
        self.push(Effect::Edge { edge, item });
    }

    /// Writes with an error answer for `bounce` on failure.
    pub fn commit(&mut self, changes: Vec<Change>, bounce: Option<&Arc<Stanza>>, ticket: &Ticket) {
        self.push(Effect::Commit { changes, bounce: bounce.cloned(), ticket: ticket.clone() });
    }

    /// Writes what the operator asked for: of the iq of somebody who has no address. On failure the state is as it was
    /// before, as for each iq, and nobody is answered.
    pub fn commit_for_operator(&mut self, changes: Vec<Change>, ticket: &Ticket) {
        let asked = Arc::new(Stanza::iq(IqType::Set, "operator"));
        self.commit(changes, Some(&asked), ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Copies of up to 128 bytes are made in place; larger ones are calls, and there are a dozen on the way of each effect.
    #[test]
    fn an_effect_is_copied_without_a_call() {
        assert!(size_of::<Effect>() <= 128, "{}", size_of::<Effect>());
        assert!(size_of::<crate::Item>() <= 128, "{}", size_of::<crate::Item>());
    }
}
