//! What the operator does to an account and its sessions, and the account's removal.

use super::ending::{close_where, kick};
use crate::account::Account;
use crate::effects::{Effect, Effects};
use crate::item::Ticket;
use crate::modules;
use crate::presence;
use crate::roles::{self, Roles};
use store::Change;
use xmpp::{BareJid, StreamCondition, StreamFault};

/// The operator gives the account other roles. Sessions that have one that is taken away begin anew.
pub fn set_roles(account: &mut Account, roles: Roles, ticket: Ticket, fx: &mut Effects) {
    account.roles = roles;
    let (owner, space, key) = (account.jid.clone(), store::SETTINGS.into(), roles::KEY.into());
    let change = match roles {
        Roles::ALL => Change::BlobDelete { account: owner, space, key },
        some => Change::BlobPut { account: owner, space, key, value: some.to_element().to_bytes("") },
    };
    fx.commit_for_operator(vec![change], &ticket);
    close_where(
        account,
        |s| s.roles.and(roles) != s.roles,
        &StreamFault::Other(xmpp::StreamCondition::Reset, "other roles"),
        fx,
    );
}

/// Nobody logs in any more, and whoever is there goes; or all is as it was.
pub fn disable(account: &mut Account, disabled: bool, fx: &mut Effects) {
    account.disabled = disabled;
    if disabled {
        let fault = StreamFault::Other(StreamCondition::NotAuthorized, "The account is disabled.");
        kick(account, None, fault, fx);
    }
}

/// The account goes: contacts are told, sessions closed, rows deleted. XEP-0077 §3.2.
pub fn remove_account(account: &mut Account, ticket: Ticket, fx: &mut Effects) {
    account.removed = true;
    modules::outcome::refuse_all(account, fx);
    presence::leave_all_rosters(account, fx);
    // The client that asked hears of the success, then all streams are closed: both when nothing is left on disk.
    let mut last = Effects::default();
    if let Some((id, iq)) = account.leaving.take() {
        modules::answer(account, &iq, Some(id), Ok(None), &mut last);
    }
    let mut kicked = Effects::default();
    kick(account, None, StreamFault::AccountRemoved, &mut kicked);
    for effect in kicked.list {
        if matches!(effect, Effect::Edge { .. }) { last.push(effect) } else { fx.push(effect) }
    }
    let jid: BareJid = account.jid.clone();
    fx.commit(vec![Change::AccountRemove { account: jid }], None, &ticket);
    fx.list.append(&mut last.list);
    fx.push(Effect::Unload);
}

#[cfg(test)]
mod tests {
    use crate::effects::Effect;
    use crate::item::Item;
    use crate::item::Ticket;
    use crate::session::testing::{asks, bound, closed, hibernated, juliet, refused};
    use store::Change;
    use xmpp::StanzaCondition;
    use xmpp::StreamCondition;
    use xmpp::StreamFault;

    #[test]
    fn a_disabled_account_has_no_sessions_and_binds_nothing() {
        let mut juliet = juliet().with("home", 0);
        let fx = juliet.item(Item::Disabled(true));
        assert!(
            matches!(&closed(&fx)[..], [(home, StreamFault::Other(StreamCondition::NotAuthorized, _))] if home == "home")
        );
        assert!(juliet.sessions.is_empty());
        assert_eq!(refused(&juliet.item(Item::Attach(asks(None)))), StanzaCondition::NotAllowed);
        juliet.item(Item::Disabled(false));
        bound(&juliet.item(Item::Attach(asks(None))));
    }

    // XEP-0077 §3.2.
    #[test]
    fn a_removed_account_closes_its_streams_and_is_deleted_last() {
        let mut juliet = hibernated(juliet().with("home", 0), "phone", 1);
        let fx = juliet.item(Item::Remove { ticket: Ticket::default() });
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::AccountRemoved)]);
        assert!(juliet.sessions.is_empty() && juliet.removed);
        assert!(matches!(fx.commits().last(), Some(Change::AccountRemove { .. })));
        assert!(matches!(fx.list.last(), Some(Effect::Unload)));
        let fx = juliet.item(Item::Attach(asks(None)));
        assert_eq!(refused(&fx), StanzaCondition::NotAllowed);
    }
}
