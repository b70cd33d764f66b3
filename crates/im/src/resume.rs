//! Stream management at the session's end of it, XEP-0198: what was sent and not acknowledged, and resumption.

use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{EdgeRef, ManagementRequest, SessionId};
use std::collections::VecDeque;

/// Counters of one managed session. RFC numbers wrap at 2^32.
#[derive(Debug, Default)]
pub struct Management {
    /// `None`: acknowledgements only, no resumption.
    pub id: Option<Box<str>>,
    pub max_seconds: u32,
    /// Sent and not acknowledged, oldest first; bounded by `unacked_stanzas_max`, `unacked_bytes_max`.
    pub unacked: VecDeque<Delivery>,
    pub unacked_bytes: usize,
    /// The `h` the client acknowledged last.
    pub acked: u32,
    /// Inbound `h` when the stream was lost.
    pub received: u32,
    /// Monotonic milliseconds when a hibernated session ends.
    pub ends_at: Option<u64>,
}

pub fn manage(account: &mut Account, session: SessionId, request: ManagementRequest, fx: &mut Effects) { let _ = (account, session, request, fx); todo!() }
pub fn acked(account: &mut Account, session: SessionId, h: u32, fx: &mut Effects) { let _ = (account, session, h, fx); todo!() }
pub fn resume(account: &mut Account, edge: EdgeRef, id: &str, h: u32, fx: &mut Effects) { let _ = (account, edge, id, h, fx); todo!() }
