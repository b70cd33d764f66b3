//! Connected resources of an account. RFC 6121 §1: connected, available, interested.
//!
//! Here: the state of one. [`binding`]: it begins. [`deliveries`]: what it is given. [`ending`]: its stream goes, and it
//! ends. [`upkeep`]: what is due of all. [`operator`]: what is done to an account from outside.

mod binding;
mod deliveries;
mod ending;
mod operator;
#[cfg(test)]
mod testing;
mod upkeep;

pub use binding::attach;
pub use deliveries::{deliver, deliver_where, dropped, written};
pub(crate) use deliveries::{queue, release};
pub(crate) use ending::end_overrun;
pub use ending::{detached, end, kick, panicked};
pub use operator::{disable, remove_account, set_roles};
pub use upkeep::{shut_down, tick, touch_ledger};

use crate::effects::Delivery;
use crate::item::{EdgeRef, SessionId};
use crate::late::Late;
use crate::modules::{client_state::Held, interest::Interest};
use crate::policy::Limits;
use crate::resume::{self, Management};
use crate::roles::Roles;
use crate::strangers::Strangers;
use std::collections::VecDeque;
use std::sync::Arc;
use store::SessionRow;
use xmpp::write::to_stored;
use xmpp::{FullJid, Jid, Stamp, Stanza};

/// One bound resource. Its stream (the *edge*) may come and go.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub jid: FullJid,
    /// The resource is random: nobody can know it but whom it was shown.
    pub is_secret: bool,
    /// `None`: the stream broke and the session waits for resumption.
    pub edge: Option<EdgeRef>,
    /// Has asked for the roster. RFC 6121 §2.2.
    pub interested: bool,
    /// Hears of each watcher. See [`crate::watchers`].
    pub watches_watchers: bool,
    /// Has asked for the block list. XEP-0191 §3.
    pub knows_blocks: bool,
    /// Has asked for the access rules.
    pub knows_rules: bool,
    pub carbons: bool,
    /// XEP-0352.
    pub inactive: bool,
    /// What waits while it is.
    pub held: Held,
    /// The last presence it broadcast; `None`: not available.
    pub presence: Option<Arc<Stanza>>,
    /// When it was sent.
    pub presence_at: Stamp,
    /// Of the last presence; RFC 6121 §4.7.2.3.
    pub priority: i8,
    /// What it is.
    pub roles: Roles,
    /// It is there, and is no presentity: nobody is shown it.
    pub unseen: bool,
    /// Whom directed presence went to. RFC 6121 §4.6.
    pub directed: Vec<Jid>,
    /// The latest of those whom it was taken back from.
    pub parted: VecDeque<Jid>,
    /// Stream management, when enabled. XEP-0198.
    pub management: Option<Management>,
    /// Without stream management: messages to keep that were queued to the stream and are not yet known to be written,
    /// with the number of the delivery on this stream.
    pub unwritten: VecDeque<(u64, Delivery)>,
    /// Deliveries queued to the present stream.
    pub queued: u64,
    /// … and of these, how many it said that it has written (not with stream management).
    pub written: u64,
    /// Rough bytes of those that it has not.
    pub queued_bytes: usize,
    /// Presence that waits for room in its queue.
    pub late: Option<Box<Late>>,
    /// Greatest position queued to it.
    pub cursor: i64,
    /// Stream identity for ingress ids; kept over resumption.
    pub stream: u64,
    /// What is archived up to this position the client reads from the archive by itself. XEP-0386 §3.2.
    pub archive_to: i64,
    pub client: Option<Box<str>>,
    pub since: Stamp,
    /// Has its row in the ledger been committed, and with what presence?
    pub in_ledger: bool,
    /// The row is behind; written with the next batch.
    pub ledger_touched: bool,
    /// What its client wants to be told of. XEP-0163 §4.2.
    pub interest: Interest,
    /// What the server has put into its presence of the avatar: the hash, or that there is none (empty). XEP-0398 §4.
    pub avatar_told: Option<Box<str>>,
    /// Whom it has written to.
    pub strangers: Strangers,
    /// A bound was passed: the session ends with this step and is given nothing more.
    pub overrun: bool,
}

impl Session {
    /// A resource that is connected and nothing more.
    pub fn new(id: SessionId, jid: FullJid, edge: EdgeRef, since: Stamp) -> Session {
        Session {
            id,
            jid,
            is_secret: false,
            edge: Some(edge),
            interested: false,
            watches_watchers: false,
            knows_blocks: false,
            knows_rules: false,
            carbons: false,
            inactive: false,
            held: Held::default(),
            presence: None,
            roles: Roles::ALL,
            unseen: false,
            presence_at: since,
            priority: 0,
            directed: Vec::new(),
            parted: VecDeque::new(),
            management: None,
            unwritten: VecDeque::new(),
            queued: 0,
            written: 0,
            queued_bytes: 0,
            late: None,
            cursor: 0,
            stream: 0,
            archive_to: 0,
            client: None,
            since,
            in_ledger: false,
            ledger_touched: false,
            interest: Interest::default(),
            avatar_told: None,
            strangers: Strangers::default(),
            overrun: false,
        }
    }

    /// What its client has not taken yet, in stanzas and rough bytes: not acknowledged (XEP-0198), or not written to its
    /// stream.
    pub fn waiting(&self) -> (u64, usize) {
        match &self.management {
            Some(management) => (management.unacked.len() as u64, management.unacked_bytes),
            None => (self.queued.saturating_sub(self.written), self.queued_bytes),
        }
    }

    /// RFC 6121 §1.4: has sent presence and not yet unavailable.
    pub fn is_available(&self) -> bool {
        self.presence.is_some()
    }

    /// May be given messages for the bare JID. RFC 6121 §8.5.2.1.
    pub fn takes_messages(&self) -> bool {
        (self.presence.is_some() || self.unseen) && self.priority >= 0 && self.roles.inbox && !self.overrun
    }

    /// Is it given the presence of others?
    pub fn hears_presence(&self) -> bool {
        (self.presence.is_some() || self.unseen) && self.roles.watcher
    }

    /// Has it sent this address presence or a message?
    pub fn has_met(&self, address: &Jid) -> bool {
        self.directed.iter().any(|directed| directed.same_bare(address)) || self.strangers.knows(address)
    }

    /// Is its queue of what is not yet taken below (`quarters`/4) of its bounds?
    pub(crate) fn has_room(&self, limits: &Limits, quarters: usize) -> bool {
        let (stanzas, bytes) = match &self.management {
            Some(management) => (management.unacked.len(), management.unacked_bytes),
            None => (self.unwritten.len(), 0),
        };
        let stanzas_max = limits.unacked_stanzas_max * quarters / 4;
        let bytes_max = limits.unacked_bytes_max * quarters / 4;
        stanzas == 0 || (stanzas < stanzas_max && bytes < bytes_max)
    }

    /// Stanzas and bytes that it may be given at once, and have a quarter of its queue left.
    pub(crate) fn room(&self, limits: &Limits) -> (usize, usize) {
        let of = |max: usize, used: usize| (max - max / 4).saturating_sub(used);
        match &self.management {
            Some(management) => (
                of(limits.unacked_stanzas_max, management.unacked.len() + 1),
                of(limits.unacked_bytes_max, management.unacked_bytes),
            ),
            None => (limits.unacked_stanzas_max, limits.unacked_bytes_max),
        }
    }

    /// May it be given this message to keep, and stay within its bounds?
    pub(crate) fn fits(&self, stanza: &Stanza, limits: &Limits) -> bool {
        match &self.management {
            Some(management) => management.fits(resume::weight(stanza), limits),
            None => self.has_room(limits, 4),
        }
    }

    /// Its row of the ledger, as it should be now. DESIGN.md D11.
    pub fn ledger_row(&self, epoch: u64) -> SessionRow {
        let resumption = self.management.as_ref().and_then(|m| m.id.as_deref());
        SessionRow {
            resource: self.jid.resource_str().into(),
            epoch,
            resume_id_hash: resumption.map(SessionRow::hash_of_resume_id).unwrap_or_default(),
            presence: self.presence.as_deref().map(to_stored).unwrap_or_default(),
            directed: self.directed.clone(),
            since: self.since,
            received: self
                .management
                .as_ref()
                .filter(|m| m.settled && m.successor.is_none())
                .and_then(|m| m.received_for_good()),
        }
    }
}
