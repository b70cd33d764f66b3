//! The domain itself as an entity: answers what is addressed to it.

use crate::effects::Effects;
use crate::item::{Now, SessionId, Ticket};
use crate::policy::HostPolicy;
use std::sync::Arc;
use xmpp::{Jid, Stanza};

#[derive(Debug)]
pub struct Host {
    pub policy: Arc<HostPolicy>,
    pub now: Now,
    pub started: Now,
}

impl Host {
    /// A stanza addressed to the host (or a resource of it); `from` is stamped. Answers by `Effect::Tell`.
    /// `session` is unknown here: answers go by address.
    pub fn step(&mut self, stanza: Arc<Stanza>, to: Jid, ticket: Ticket, now: Now, fx: &mut Effects) { let _ = (stanza, to, ticket, now, fx, None::<SessionId>); todo!() }
}
