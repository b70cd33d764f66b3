//! Connected resources of an account. RFC 6121 §1: connected, available, interested.

use crate::item::{EdgeRef, SessionId};
use crate::resume::Management;
use std::collections::VecDeque;
use std::sync::Arc;
use xmpp::{FullJid, Jid, Stanza};

/// One bound resource. Its stream (the *edge*) may come and go.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub jid: FullJid,
    /// `None`: the stream broke and the session waits for resumption.
    pub edge: Option<EdgeRef>,
    /// Has asked for the roster. RFC 6121 §2.2.
    pub interested: bool,
    /// Has asked for the block list. XEP-0191 §3.
    pub knows_blocks: bool,
    pub carbons: bool,
    /// XEP-0352.
    pub inactive: bool,
    /// The last presence it broadcast; `None`: not available.
    pub presence: Option<Arc<Stanza>>,
    /// Of the last presence; RFC 6121 §4.7.2.3.
    pub priority: i8,
    /// Whom directed presence went to. RFC 6121 §4.6.
    pub directed: Vec<Jid>,
    /// Stream management, when enabled. XEP-0198.
    pub management: Option<Management>,
    /// Without stream management: logged messages queued to the stream and not yet known to be written:
    /// (number of the delivery on this stream, position).
    pub unwritten: VecDeque<(u64, i64)>,
    /// Deliveries queued to the present stream.
    pub queued: u64,
    /// Greatest position queued to it.
    pub cursor: i64,
    /// Stream identity for ingress ids; kept over resumption.
    pub stream: u64,
    pub client: Option<Box<str>>,
    pub since: xmpp::Stamp,
    /// Has its row in the ledger been committed, and with what presence?
    pub in_ledger: bool,
}

impl Session {
    /// RFC 6121 §1.4: has sent presence and not yet unavailable.
    pub fn is_available(&self) -> bool {
        self.presence.is_some()
    }
    /// May be given messages for the bare JID. RFC 6121 §8.5.2.1.
    pub fn takes_messages(&self) -> bool {
        self.presence.is_some() && self.priority >= 0
    }
}

use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{Attach, DetachReason, Ticket};

/// Binds a resource. RFC 6120 §7.
pub fn attach(account: &mut Account, attach: Attach, fx: &mut Effects) { let _ = (account, attach, fx); todo!() }
/// The stream is gone: the session ends, or waits for resumption.
pub fn detached(account: &mut Account, session: SessionId, edge: EdgeRef, reason: DetachReason, deliveries: u64, received: u32, fx: &mut Effects) { let _ = (account, session, edge, reason, deliveries, received, fx); todo!() }
/// Ends a session for good: presence unavailable (`presence::session_ended`), unacknowledged messages back (`inbox::return_untaken`), ledger row.
pub fn end(account: &mut Account, session: SessionId, fx: &mut Effects) { let _ = (account, session, fx); todo!() }
pub fn client_state(account: &mut Account, session: SessionId, active: bool, fx: &mut Effects) { let _ = (account, session, active, fx); todo!() }
/// Timeouts: hibernated sessions, unwritten marks, …
pub fn tick(account: &mut Account, fx: &mut Effects) { let _ = (account, fx); todo!() }
pub fn kick(account: &mut Account, resource: Option<&str>, fault: xmpp::StreamFault, fx: &mut Effects) { let _ = (account, resource, fault, fx); todo!() }
pub fn remove_account(account: &mut Account, ticket: Ticket, fx: &mut Effects) { let _ = (account, ticket, fx); todo!() }
pub fn shut_down(account: &mut Account, fx: &mut Effects) { let _ = (account, fx); todo!() }

/// The one way to give a session a stanza: queues it to the stream if there is one, and to the resumption queue when
/// management is on. Bounds apply here.
pub fn deliver(account: &mut Account, session: SessionId, delivery: Delivery, fx: &mut Effects) { let _ = (account, session, delivery, fx); todo!() }
/// The same stanza to several sessions of the account that `which` picks; says how many.
pub fn deliver_where(account: &mut Account, which: impl Fn(&Session) -> bool, stanza: &Arc<Stanza>, to: Option<&Jid>, fx: &mut Effects) -> usize { let _ = (account, &which, stanza, to, fx); todo!() }
