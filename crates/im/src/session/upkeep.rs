//! What is due: timeouts, and what is written in batches.

use crate::account::Account;
use crate::doubts;
use crate::effects::{Effect, Effects};
use crate::inbox;
use crate::item::{SessionId, Ticket};
use crate::leases;
use crate::modules::{fetch, subscription_status};
use crate::resume;
use crate::retention;
use crate::rules::change;
use crate::watchers;
use store::Change;

/// Timeouts: sessions that nobody resumed, marks and ledger rows that are due. Asks to be woken for the next.
pub fn tick(account: &mut Account, fx: &mut Effects) {
    resume::end_overdue(account, fx);
    change::tick(account, fx);
    if account.inbox.batch_is_due(account.now.mono_ms) {
        commit_batch(account, fx);
    }
    if let Some(change) = watchers::write(account) {
        fx.commit(vec![change], None, &Ticket::default());
    }
    let probes = fetch::end_overdue(account, fx);
    let questions = subscription_status::end_overdue(account, fx);
    // (This tick may have been asked for by somebody else, and early.)
    doubts::ask(account, fx);
    let timers = [
        account.inbox.batch_at(),
        account.watchers.due_at(),
        account.doubts.due_at(),
        probes,
        questions,
        leases::due_at(account),
    ];
    let next = resume::next_end(account).into_iter().chain(timers.into_iter().flatten()).min();
    if let Some(mono_ms) = next {
        fx.push(Effect::WakeAt { mono_ms });
    }
}

/// Commits what was left for the next batch: pending marks and rows of the ledger.
pub(crate) fn commit_batch(account: &mut Account, fx: &mut Effects) {
    inbox::expire_old(account, fx);
    let mut changes = inbox::marks(account, fx);
    changes.extend(retention::trim(account));
    for session in &mut account.sessions {
        if std::mem::take(&mut session.ledger_touched) && session.in_ledger {
            changes.push(Change::SessionPut { account: account.jid.clone(), row: session.ledger_row(account.epoch) });
        }
    }
    inbox::batch_done(account);
    if !changes.is_empty() {
        fx.commit(changes, None, &Ticket::default());
    }
}

/// The row of the ledger is behind: it is written within a second.
pub fn touch_ledger(account: &mut Account, id: SessionId, fx: &mut Effects) {
    if let Some(session) = account.session_mut(id) {
        session.ledger_touched = true;
        inbox::batch_soon(account, fx);
    }
}

/// Last things: marks and rows of the ledger. The ledger tells the next process whose sessions these were.
pub fn shut_down(account: &mut Account, ticket: &Ticket, fx: &mut Effects) {
    inbox::keep_unlogged(account, fx);
    commit_batch(account, fx);
    let last = watchers::settle(account);
    // The last commit, though there be nothing in it: those before are done when it is.
    fx.commit(last.into_iter().collect(), None, ticket);
}

#[cfg(test)]
mod tests {
    use super::touch_ledger;
    use crate::effects::Effect;
    use crate::effects::Effects;
    use crate::session::testing::{hibernated, juliet};
    use store::Change;

    #[test]
    fn a_touched_row_of_the_ledger_is_written_within_a_second() {
        let mut juliet = juliet().with("home", 0);
        let id = juliet.id("home");
        let mut fx = Effects::default();
        touch_ledger(&mut juliet.account, id, &mut fx);
        assert!(matches!(fx.list[..], [Effect::WakeAt { mono_ms: 2_000 }]), "{:?}", fx.list);
        assert!(juliet.after_ms(999).commits().is_empty());
        let commits = juliet.after_ms(1).commits();
        let row = match &commits[..] {
            [Change::SessionPut { row, .. }] => row,
            other => panic!("{other:?}"),
        };
        assert_eq!((&*row.resource, row.epoch), ("home", 7));
        assert!(String::from_utf8_lossy(&row.presence).contains("<priority>0</priority>"));
        assert!(juliet.after_ms(5_000).commits().is_empty());
    }

    #[test]
    fn a_tick_asks_for_the_next_one() {
        let mut juliet = hibernated(juliet(), "home", 1_000);
        let fx = juliet.after_ms(10);
        assert!(matches!(fx.list[..], [Effect::WakeAt { mono_ms: 301_000 }]), "{:?}", fx.list);
    }
}
