//! A resource is bound: which one, and who makes room for it. RFC 6120 §7.

use super::Session;
use super::ending::{close_where, end};
use crate::account::Account;
use crate::effects::{EdgeItem, Effects};
use crate::item::{Attach, SessionId};
use crate::policy::ResourceConflict;
use crate::resume;
use crate::retention;
use crate::rules::change;
use xmpp::{FullJid, StanzaCondition, StanzaError, StreamFault};

/// Binds a resource. RFC 6120 §7.
pub fn attach(account: &mut Account, attach: Attach, fx: &mut Effects) {
    let edge = attach.edge;
    match bind(account, attach, fx) {
        Ok(item) => fx.edge(edge, item),
        Err(error) => {
            fx.refused(&error);
            fx.edge(edge, EdgeItem::AttachRefused(error));
        }
    }
}

fn bind(account: &mut Account, attach: Attach, fx: &mut Effects) -> Result<EdgeItem, StanzaError> {
    if account.removed || account.disabled {
        return Err(StanzaCondition::NotAllowed.into());
    }
    if let Some(client) = attach.client.as_deref() {
        replace_where(account, |s| s.client.as_deref() == Some(client), fx);
    }
    let jid = choose_resource(account, attach.resource.as_deref(), attach.seed)?;
    replace_where(account, |s| s.jid == jid, fx);
    make_room(account, fx)?;

    let id = SessionId(account.next_session);
    account.next_session += 1;
    let mut session = Session::new(id, jid.clone(), attach.edge, account.now.utc);
    session.is_secret = attach.resource.is_none();
    session.stream = attach.stream;
    session.client = attach.client;
    if attach.bind2 {
        session.archive_to = account.inbox.last_position;
    }
    session.roles = attach.roles.and(account.roles);
    session.carbons = attach.carbons && session.roles.inbox;
    session.inactive = attach.inactive;
    let management = attach.management.map(|request| resume::enable(account, &mut session, request, fx));
    account.sessions.push(session);
    change::begin(account, fx);
    retention::look(account, fx);
    Ok(EdgeItem::Attached { session: id, jid, management })
}

/// The full JID to bind: what was asked for, or another one if that is in use and the policy says so, or a random one.
fn choose_resource(account: &Account, asked: Option<&str>, seed: u64) -> Result<FullJid, StanzaError> {
    let Some(asked) = asked else {
        return unused_resource(account, "", seed);
    };
    let bad = |_| StanzaError::from(StanzaCondition::BadRequest);
    let jid = account.jid.with_resource(asked).map_err(bad)?;
    // Only a resource with a stream is in the way; one that waits for resumption has none to lose.
    let in_use = account.sessions.iter().any(|s| s.jid == jid && s.edge.is_some());
    match account.policy.resource_conflict {
        ResourceConflict::RefuseNew if in_use => {
            Err(StanzaError::from(StanzaCondition::Conflict).with_type(xmpp::error::ErrorType::Modify))
        }
        ResourceConflict::Rename if in_use => unused_resource(account, &format!("{asked}."), seed),
        _ => Ok(jid),
    }
}

/// `prefix` and 13 random letters and digits (64 bits). RFC 6120 §7.6.
fn unused_resource(account: &Account, prefix: &str, mut seed: u64) -> Result<FullJid, StanzaError> {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    for _ in 0..16 {
        let random: String = (0..13).map(|i| char::from(LETTERS[(seed >> (5 * i) & 31) as usize])).collect();
        let text = format!("{prefix}{random}");
        let jid = account.jid.with_resource(&text).or_else(|_| account.jid.with_resource(&random));
        let jid = jid.map_err(|_| StanzaError::from(StanzaCondition::BadRequest))?;
        if account.sessions.iter().all(|s| s.jid != jid) {
            return Ok(jid);
        }
        seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f).rotate_left(23);
    }
    Err(StanzaCondition::Conflict.into())
}

/// Room for one session more; the one that waits longest for resumption goes first. RFC 6120 §7.6.2.1.
fn make_room(account: &mut Account, fx: &mut Effects) -> Result<(), StanzaError> {
    while account.sessions.len() >= account.policy.limits.sessions_per_account_max {
        let Some(oldest) = resume::oldest_hibernated(account) else {
            return Err(StanzaError::from(StanzaCondition::ResourceConstraint).over("sessions_per_account_max"));
        };
        end(account, oldest, fx);
    }
    Ok(())
}

/// Ends sessions that a new one replaces. RFC 6120 §7.7.2.2; XEP-0386 §3.2.
fn replace_where(account: &mut Account, which: impl Fn(&Session) -> bool, fx: &mut Effects) {
    close_where(account, which, &StreamFault::ReplacedByNewSession, fx);
}

#[cfg(test)]
mod tests {
    use crate::effects::EdgeItem;
    use crate::effects::Effect;
    use crate::item::Attach;
    use crate::item::Item;
    use crate::item::ManagementRequest;
    use crate::policy::ResourceConflict;
    use crate::session::testing::{EDGE, asks, bound, closed, hibernated, juliet, refused};
    use xmpp::StanzaCondition;
    use xmpp::StreamFault;

    #[test]
    fn a_client_is_bound_to_the_resource_that_it_asks_for() {
        let mut juliet = juliet();
        let fx = juliet.item(Item::Attach(asks(Some("balcony"))));
        assert_eq!(bound(&fx).as_str(), "juliet@capulet.example/balcony");
        assert_eq!(juliet.sessions.len(), 1);
        assert_eq!(juliet.sessions[0].stream, 42);
        assert!(!juliet.sessions[0].is_available());
    }

    // RFC 6120 §7.6.
    #[test]
    fn a_client_that_asks_for_none_is_bound_to_a_random_resource() {
        let mut juliet = juliet();
        let first = bound(&juliet.item(Item::Attach(asks(None))));
        assert!(first.resource_str().len() >= 12, "{first}");
        // The same seed again: not the same resource.
        let second = bound(&juliet.item(Item::Attach(asks(None))));
        assert_ne!(first, second);
        assert_eq!(juliet.sessions.len(), 2);
    }

    // RFC 6120 §7.7.2.2, behaviour 3.
    #[test]
    fn a_resource_in_use_goes_to_the_new_client() {
        let mut juliet = juliet().with("home", 0);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::ReplacedByNewSession)]);
        assert_eq!(bound(&fx).resource_str(), "home");
        assert_eq!(juliet.sessions.len(), 1);
        assert_eq!(juliet.sessions[0].edge, Some(EDGE));
    }

    // RFC 6120 §7.7.2.2, behaviour 1.
    #[test]
    fn a_resource_in_use_is_renamed_where_the_policy_says_so() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.resource_conflict = ResourceConflict::Rename);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert!(bound(&fx).resource_str().starts_with("home."), "{}", bound(&fx));
        assert_eq!(juliet.sessions.len(), 2);
    }

    // RFC 6120 §7.7.2.2, behaviour 2.
    #[test]
    fn a_resource_in_use_is_refused_where_the_policy_says_so() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.resource_conflict = ResourceConflict::RefuseNew);
        let fx = juliet.item(Item::Attach(asks(Some("home"))));
        assert_eq!(refused(&fx), StanzaCondition::Conflict);
        assert_eq!(juliet.sessions.len(), 1);
    }

    #[test]
    fn a_resource_whose_stream_is_lost_is_in_nobodys_way() {
        for policy in [ResourceConflict::RefuseNew, ResourceConflict::Rename, ResourceConflict::ReplaceOld] {
            let mut juliet = hibernated(juliet(), "home", 1).policy(|p| p.resource_conflict = policy);
            let fx = juliet.item(Item::Attach(asks(Some("home"))));
            assert_eq!(bound(&fx).resource_str(), "home", "{policy:?}");
            assert_eq!(juliet.sessions.len(), 1);
        }
    }

    // XEP-0386 §3.2.
    #[test]
    fn a_client_that_comes_back_ends_its_earlier_session() {
        let mut juliet = juliet().with("home.1", 0).having("home.1", |s| s.client = Some("installation".into()));
        let fx = juliet.item(Item::Attach(Attach { client: Some("installation".into()), ..asks(Some("home.2")) }));
        assert_eq!(closed(&fx), [("home.1".to_owned(), StreamFault::ReplacedByNewSession)]);
        assert_eq!(juliet.sessions.len(), 1);
    }

    // RFC 6120 §7.6.2.1; LIMITS.md: 16 sessions.
    #[test]
    fn one_session_too_many_is_refused() {
        let mut juliet = (0..16).fold(juliet(), |scene, n| scene.with(&format!("r{n}"), 0));
        assert_eq!(refused(&juliet.item(Item::Attach(asks(Some("one"))))), StanzaCondition::ResourceConstraint);
        assert_eq!(juliet.sessions.len(), 16);
    }

    #[test]
    fn the_session_that_waits_longest_makes_room_for_a_new_one() {
        let scene = (0..14).fold(juliet(), |scene, n| scene.with(&format!("r{n}"), 0));
        let mut juliet = hibernated(hibernated(scene, "younger", 20), "older", 10);
        let fx = juliet.item(Item::Attach(asks(Some("one"))));
        assert_eq!(bound(&fx).resource_str(), "one");
        let left: Vec<&str> = juliet.sessions.iter().map(|s| s.jid.resource_str()).collect();
        assert!(left.contains(&"younger") && !left.contains(&"older"), "{left:?}");
    }

    // XEP-0386 §3.2: carbons, client state and stream management with the bind.
    #[test]
    fn what_the_bind_asks_for_is_on_from_the_start() {
        let mut juliet = juliet();
        let management = Some(ManagementRequest { resume: true, max: None, id: "sm".into() });
        let fx = juliet.item(Item::Attach(Attach { carbons: true, inactive: true, management, ..asks(Some("home")) }));
        let managed = match fx.edge_items().pop() {
            Some((_, EdgeItem::Attached { management, .. })) => management.clone().expect("managed"),
            other => panic!("{other:?}"),
        };
        assert_eq!((managed.id.as_deref(), managed.max), (Some("sm"), 300));
        assert!(fx.list.iter().any(|e| matches!(e, Effect::Resumable { id, yes: true } if **id == *"sm")));
        assert!(juliet.sessions[0].carbons && juliet.sessions[0].inactive);
    }

    // XEP-0352.
    #[test]
    fn client_state_is_a_flag_of_the_session() {
        let mut juliet = juliet().with("home", 0);
        let session = juliet.id("home");
        juliet.item(Item::ClientState { session, active: false });
        assert!(juliet.sessions[0].inactive);
        juliet.item(Item::ClientState { session, active: true });
        assert!(!juliet.sessions[0].inactive);
    }
}
