//! What a session had and did not take, when it ends or the process does. XEP-0198 §4.

use super::{append, flush_waiting, is_kept};
use crate::account::Account;
use crate::effects::{Delivery, Effects};
use crate::item::{SessionId, Ticket};
use crate::messages;
use crate::ways::Passage;
use std::sync::Arc;
use store::Direction;
use xmpp::write::to_stored;
use xmpp::{IqType, Stanza, StanzaCondition, StanzaError, StanzaType};

/// What an ended session had not taken: messages in the log wait again, and go to another resource if there is one
/// that has not had them; other stanzas are treated as for an unavailable resource. XEP-0198 §4.
pub(crate) fn return_untaken(account: &mut Account, id: SessionId, untaken: Vec<Delivery>, fx: &mut Effects) {
    account.inbox.queue.retain(|queued| *queued != id);
    if account.inbox.reading.is_some_and(|reading| reading.session == id) {
        account.inbox.reading = None;
    }
    for delivery in untaken {
        match delivery.position {
            Some(position) => account.inbox.release(position, id),
            None if account.removed => {}
            None => return_unlogged(account, &delivery.stanza, fx),
        }
    }
    flush_waiting(account, fx);
}

fn return_unlogged(account: &mut Account, stanza: &Arc<Stanza>, fx: &mut Effects) {
    match stanza.kind {
        StanzaType::Message(_) if is_kept(&account.jid, stanza) => messages::again(account, stanza, fx),
        StanzaType::Iq(IqType::Get | IqType::Set) => {
            let Some(from) = stanza.from.clone().filter(|from| !from.same_bare(&account.jid) || !from.is_bare()) else {
                return;
            };
            let error = StanzaError::from(StanzaCondition::ServiceUnavailable);
            crate::ways::answer(account, &from, stanza, &error, &Ticket::default(), fx);
        }
        _ => {}
    }
}

/// Messages that live in a session's queue alone become pending: the process ends.
pub(crate) fn keep_unlogged(account: &mut Account, fx: &mut Effects) {
    let managed = account.sessions.iter().filter_map(|s| s.management.as_ref()).flat_map(|m| &m.unacked);
    let plain = account.sessions.iter().flat_map(|s| &s.unwritten).map(|(_, delivery)| delivery);
    let mut unlogged: Vec<Arc<Stanza>> = Vec::new();
    for delivery in managed.chain(plain) {
        let known = unlogged.iter().any(|stanza| Arc::ptr_eq(stanza, &delivery.stanza));
        if delivery.position.is_none() && !known && is_kept(&account.jid, &delivery.stanza) {
            unlogged.push(delivery.stanza.clone());
        }
    }
    for stanza in unlogged {
        let mut passage = Passage::of(account, stanza);
        let stored = to_stored(&passage.stanza);
        append(account, &mut passage, Direction::Incoming, stored, false, None, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;
    use crate::item::Item;
    use crate::testing::account;

    #[test]
    fn what_lives_in_a_queue_alone_is_kept_when_the_server_stops() {
        let mut juliet = account(JULIET).with("home", 0).policy(|p| p.archive = false);
        assert_eq!(juliet.receive(&chat("hi")).written_to(), ["home"]);
        let fx = juliet.item(Item::ShutDown { ticket: Ticket::default() });
        assert_eq!(fx.appended().len(), 1);
        assert!(fx.appended()[0].pending);
    }
}
