//! A commit failed: the state is as the store has it, and the sender hears of it.

use super::batch_soon;
use super::recent::Recent;
use crate::account::Account;
use crate::doubts;
use crate::effects::{Effect, Effects};
use crate::item::Ticket;
use std::sync::Arc;
use store::{AccountRecord, StoreError};
use xmpp::{Stanza, StanzaCondition, StanzaType};

/// Was this to change roster, requests or blocks?
pub(crate) fn changes_the_record(stanza: Option<&Stanza>) -> bool {
    stanza.is_some_and(|stanza| match stanza.kind {
        StanzaType::Iq(_) => true,
        StanzaType::Presence(kind) => crate::ways::is_subscription(kind),
        StanzaType::Message(_) => false,
    })
}

/// A commit failed: the stored part of the state is what the store says, and the sender hears of it.
pub fn commit_failed(
    account: &mut Account,
    bounce: Option<Arc<Stanza>>,
    error: StoreError,
    ticket: &Ticket,
    stored: Option<Box<AccountRecord>>,
    fx: &mut Effects,
) {
    let condition = match error {
        StoreError::Fenced => {
            // Somebody else owns the account now.
            fx.push(Effect::Unload);
            return;
        }
        StoreError::Busy | StoreError::Full => StanzaCondition::ResourceConstraint,
        StoreError::Fatal(_) | StoreError::Damaged(_) => StanzaCondition::InternalServerError,
    };
    if let Some(stanza) = &bounce {
        account.inbox.forget_stanza(stanza);
        for session in account.sessions.iter_mut().filter(|s| s.edge.is_none()) {
            // Queued for a stream to come; with a stream, `Dropped` said so.
            if let Some(management) = &mut session.management {
                management.forget_stanza(stanza);
            }
        }
    }
    match stored {
        Some(stored) if account.reads_again(bounce.as_deref()) => {
            account.restore_for_sessions(*stored, fx);
            // (Its removal may be what failed.)
            account.removed = false;
        }
        // A message, marks, or rows of the ledger: what was read may be older than what is known here of the rest.
        _ => {
            // The key of its ids may have been in what failed: it is written again, with the next.
            account.archive_ids = account.archive_ids.unstored();
            account.inbox.recent = Recent::default();
            account.inbox.marks.again();
        }
    }
    for session in account.sessions.iter_mut().filter(|s| s.in_ledger) {
        session.ledger_touched = true;
    }
    account.watchers.again(account.now.mono_ms);
    if let Some(mono_ms) = account.watchers.due_at() {
        fx.push(Effect::WakeAt { mono_ms });
    }
    if account.sessions.iter().any(|s| s.ledger_touched) || account.inbox.marks.is_any() {
        batch_soon(account, fx);
    }
    if let Some(stanza) = &bounce {
        doubts::refused(account, stanza, fx);
    }
    if let Some(stanza) = bounce
        && !xmpp::planted::is(xmpp::planted::Bug::SilentFailure)
        && let Some(from) = stanza.from.clone()
    {
        crate::ways::answer(account, &from, &stanza, &condition.into(), ticket, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::*;
    use crate::item::Item;
    use crate::testing::{Fx, Scene, account, account_with};

    fn fails(scene: &mut Scene, fx: &Fx, error: StoreError, stored: Option<AccountRecord>) -> Fx {
        let bounce = fx.list.iter().find_map(|e| match e {
            Effect::Commit { bounce, .. } => Some(bounce.clone()),
            _ => None,
        });
        let bounce = bounce.expect("a commit");
        scene.item(Item::CommitFailed { bounce, error, ticket: Ticket::default(), stored: stored.map(Box::new) })
    }

    #[test]
    fn the_sender_hears_of_a_message_that_could_not_be_stored() {
        for (error, condition) in [
            (StoreError::Busy, "resource-constraint"),
            (StoreError::Full, "resource-constraint"),
            (StoreError::Fatal("disk".into()), "internal-server-error"),
            (StoreError::Damaged("row".into()), "internal-server-error"),
        ] {
            let mut juliet = account(JULIET);
            let fx = juliet.receive(&chat("hi"));
            let fx = fails(&mut juliet, &fx, error, Some(AccountRecord::default()));
            assert!(error_told(&fx, condition), "{:?}", fx.told());
            assert_eq!(juliet.inbox.waiting(), 0);
        }
    }

    #[test]
    fn a_message_that_could_not_be_stored_may_be_sent_again() {
        let mut juliet = account(JULIET);
        let message = "<message from='romeo@montague.example/x' type='chat'><body>hi</body>\
            <origin-id xmlns='urn:xmpp:sid:0' id='o1'/></message>";
        let fx = juliet.receive(message);
        fails(&mut juliet, &fx, StoreError::Full, Some(AccountRecord::default()));
        assert_eq!(juliet.receive(message).appended().len(), 1);
    }

    #[test]
    fn marks_that_could_not_be_written_are_written_with_a_later_batch() {
        let mut juliet = account(JULIET).with("home", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        juliet.writes_all("home");
        let fx = juliet.after_ms(1_000);
        assert_eq!(fx.taken(), [position]);
        let stored = AccountRecord {
            last_position: position,
            pending: vec![position],
            pending_bytes: 100,
            ..Default::default()
        };
        fails(&mut juliet, &fx, StoreError::Full, Some(stored));
        assert_eq!(juliet.inbox.waiting(), 0);
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
    }

    // What was read for the failure of one commit does not know of those under way.
    #[test]
    fn a_message_that_could_not_be_stored_leaves_the_roster_as_it_is() {
        let mut juliet = account_with(
            JULIET,
            AccountRecord {
                roster: vec![crate::testing::contact("nurse@capulet.example", "both")],
                ..Default::default()
            },
        );
        let fx = juliet.receive(&chat("hi"));
        fails(&mut juliet, &fx, StoreError::Busy, Some(AccountRecord::default()));
        assert_eq!(juliet.roster.all().count(), 1);
    }

    #[test]
    fn nobody_hears_anything_from_an_owner_that_is_none_any_more() {
        let mut juliet = account(JULIET);
        let fx = juliet.receive(&chat("hi"));
        let fx = fails(&mut juliet, &fx, StoreError::Fenced, None);
        assert!(matches!(fx.list[..], [Effect::Unload]), "{:?}", fx.list);
    }
}
