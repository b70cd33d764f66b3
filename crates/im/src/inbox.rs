//! The INSTANT INBOX: one log per account, with those still pending. DESIGN.md D5.

use crate::account::Account;
use crate::effects::Effects;
use crate::item::{EdgeRef, SessionId};
use std::sync::Arc;
use store::{AccountRecord, Record, StoreError};
use xmpp::Stanza;

#[derive(Debug, Default)]
pub struct Inbox {
    pub last_position: i64,
}

impl Inbox {
    pub fn restore(&mut self, last_position: i64, pending: Vec<i64>, pending_bytes: u64) { let _ = (last_position, pending, pending_bytes); todo!() }
    /// Marks not yet written, or a page of pending records under way.
    pub fn is_busy(&self) -> bool { todo!() }
}

/// The session became able to take messages: give it what is pending. XEP-0160.
pub fn flush(account: &mut Account, session: SessionId, fx: &mut Effects) { let _ = (account, session, fx); todo!() }
pub fn pending_page(account: &mut Account, after: i64, records: Vec<Record>, fx: &mut Effects) { let _ = (account, after, records, fx); todo!() }
pub fn written(account: &mut Account, session: SessionId, edge: EdgeRef, deliveries: u64, fx: &mut Effects) { let _ = (account, session, edge, deliveries, fx); todo!() }
pub fn commit_failed(account: &mut Account, bounce: Option<Arc<Stanza>>, error: StoreError, stored: Option<Box<AccountRecord>>, fx: &mut Effects) { let _ = (account, bounce, error, stored, fx); todo!() }
