//! What a session is given: to its stream, to its queue for a resumption, or not after all.

use super::Session;
use crate::account::Account;
use crate::effects::{Delivery, EdgeItem, Effect, Effects};
use crate::inbox;
use crate::item::{EdgeRef, SessionId};
use crate::late;
use crate::messages;
use crate::modules::client_state;
use crate::resume;
use std::sync::Arc;
use xmpp::write::Additions;
use xmpp::{Jid, Stanza, StanzaType};

/// The one way to give a session a stanza: queues it to the stream if there is one, and to the resumption queue when
/// management is on.
///
/// A session whose queue would grow beyond `unacked_stanzas_max` or `unacked_bytes_max` ends with this step; what is
/// in the log stays pending. For an inactive client some things wait ([`client_state`]), and presence does where the
/// queue is full ([`late`]).
pub fn deliver(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    let Some(session) = account.sessions.iter_mut().find(|s| s.id == id) else { return };
    let mut now = Some(delivery);
    if session.inactive && !session.overrun {
        now = now.and_then(|delivery| session.held.hold(delivery));
        if now.is_some() {
            release(account, id, fx);
        }
    }
    if let Some(delivery) = now {
        give(account, id, delivery, fx);
    }
}

/// To the stream, or behind what waits for room in its queue.
fn give(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    if let Some(delivery) = late::wait(account, id, delivery, fx) {
        queue(account, id, delivery, fx);
    }
}

/// What waited for the client goes out.
pub(crate) fn release(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let Some(session) = account.session_mut(id) else { return };
    for delivery in session.held.take() {
        give(account, id, delivery, fx);
    }
}

/// Queues a stanza that need not wait.
pub(crate) fn queue(account: &mut Account, id: SessionId, delivery: Delivery, fx: &mut Effects) {
    let limits = &account.policy.limits;
    let Some(session) = account.sessions.iter_mut().find(|s| s.id == id) else { return };
    if session.overrun {
        return;
    }
    let keep = delivery.position.is_some() || inbox::is_kept(&account.jid, &delivery.stanza);
    let fits = match &mut session.management {
        Some(management) if session.edge.is_none() => management.push_unsent(delivery.clone(), limits),
        Some(management) => management.push(delivery.clone(), limits),
        None => !keep || session.unwritten.len() < limits.unacked_stanzas_max,
    };
    if !fits {
        let full = session.management.as_ref().is_none_or(|it| it.unacked.len() >= limits.unacked_stanzas_max);
        fx.push(Effect::Limit(if full { "unacked_stanzas_max" } else { "unacked_bytes_max" }));
        session.overrun = true;
        account.overrun = true;
        return;
    }
    if let Some(position) = delivery.position {
        session.cursor = session.cursor.max(position);
        account.inbox.held(position, id);
    }
    if let Some(edge) = session.edge {
        session.queued += 1;
        if session.management.is_none() {
            session.queued_bytes += delivery.stanza.weight();
        }
        if keep && session.management.is_none() {
            session.unwritten.push_back((session.queued, delivery.clone()));
        }
        fx.edge(edge, EdgeItem::Deliver { number: session.queued, delivery });
    } else if is_of_commit(account, &delivery) {
        // It waits for a stream to come. If the log had it already, or what it is the result of failed, `dropped` hears of
        // it; and a stream that resumes meanwhile stands behind the commit, too.
        fx.edge(EdgeRef::NOBODY, EdgeItem::Deliver { number: 0, delivery });
    }
}

/// The same stanza to several sessions of the account that `which` picks; says how many.
pub fn deliver_where(
    account: &mut Account,
    which: impl Fn(&Session) -> bool,
    stanza: &Arc<Stanza>,
    to: Option<&Jid>,
    fx: &mut Effects,
) -> usize {
    let mut count = 0;
    // (A delivery ends no session: that comes with the end of the step.)
    for at in 0..account.sessions.len() {
        let Some(id) = account.sessions.get(at).filter(|session| which(session)).map(|session| session.id) else {
            continue;
        };
        let delivery = Delivery { stanza: stanza.clone(), to: to.cloned(), more: Additions::default(), position: None };
        deliver(account, id, delivery, fx);
        count += 1;
    }
    count
}

/// The session's stream has written so many of its deliveries.
pub fn written(account: &mut Account, id: SessionId, edge: EdgeRef, deliveries: u64, fx: &mut Effects) {
    if let Some(session) = account.session_mut(id).filter(|s| s.edge == Some(edge)) {
        // (Each of what is left is as large as each of the rest was.)
        let (before, left) =
            (session.queued.saturating_sub(session.written), session.queued.saturating_sub(deliveries));
        session.queued_bytes = (session.queued_bytes as u64 * left / before.max(1)) as usize;
        session.written = deliveries;
    }
    inbox::written(account, id, edge, deliveries, fx);
    late::follow(account, id, fx);
}

/// Deliveries that did not happen, as the commit before them wrote nothing: the counters forget them.
pub fn dropped(account: &mut Account, effects: Vec<Effect>, fx: &mut Effects) {
    let (mut unlogged, mut held) = (Vec::new(), Vec::new());
    let mut page_was_dropped = false;
    for effect in effects {
        let (edge, number, delivery) = match effect {
            Effect::Edge { edge, item: EdgeItem::Deliver { number, delivery } } => (edge, number, delivery),
            // A stream waits for these whatever became of the commit.
            effect @ (Effect::Edge { .. } | Effect::Resumable { .. } | Effect::WakeAt { .. }) => {
                fx.push(effect);
                continue;
            }
            Effect::TakeOver { session } => {
                resume::not_taken_over(account, session, fx);
                continue;
            }
            Effect::ReadPending { .. } => {
                page_was_dropped = true;
                continue;
            }
            _ => continue,
        };
        if edge == EdgeRef::NOBODY {
            forget_waiting(account, &delivery);
            continue;
        }
        let Some(session) = account.sessions.iter_mut().find(|s| s.edge == Some(edge)) else {
            // The stream was lost meanwhile.
            if is_of_commit(account, &delivery) {
                forget_waiting(account, &delivery);
            }
            continue;
        };
        // Nothing is left to be written up to this number.
        fx.edge(edge, EdgeItem::Skipped { number });
        if let Some(management) = &mut session.management {
            management.forget(&delivery);
        }
        let at = session.unwritten.iter().position(|(_, d)| Arc::ptr_eq(&d.stanza, &delivery.stanza));
        at.and_then(|at| session.unwritten.remove(at));
        match delivery.position {
            // Its record may be in the log nevertheless: the commit need not have been its own.
            Some(position) => account.inbox.unheld(position, session.id),
            None if inbox::is_kept(&account.jid, &delivery.stanza) => unlogged.push(delivery.stanza),
            // It may have waited for any stanza, such as one that came twice.
            None if client_state::can_wait(&delivery.stanza) => held.push((session.id, delivery)),
            None => {}
        }
    }
    for (id, delivery) in held {
        deliver(account, id, delivery, fx);
    }
    for stanza in unlogged {
        messages::again(account, &stanza, fx);
    }
    if page_was_dropped {
        inbox::ask_again(account, fx);
    }
    inbox::flush_waiting(account, fx);
}

/// Is there nothing to deliver if the commit before it wrote nothing? So it is with what the log has, with copies, and with
/// results.
fn is_of_commit(account: &Account, delivery: &Delivery) -> bool {
    match delivery.stanza.kind {
        StanzaType::Message(_) => delivery.position.is_some() || !inbox::is_kept(&account.jid, &delivery.stanza),
        StanzaType::Iq(_) => true,
        StanzaType::Presence(_) => false,
    }
}

/// Sessions without a stream do not have it in their queues any more.
fn forget_waiting(account: &mut Account, delivery: &Delivery) {
    for session in account.sessions.iter_mut().filter(|session| session.edge.is_none()) {
        if let Some(management) = &mut session.management {
            management.forget_stanza(&delivery.stanza);
        }
        if let Some(position) = delivery.position {
            account.inbox.unheld(position, session.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::deliver;
    use crate::effects::Delivery;
    use crate::effects::EdgeItem;
    use crate::effects::Effect;
    use crate::effects::Effects;
    use crate::item::Item;
    use crate::resume::Management;
    use crate::session::testing::{asks, bound, closed, hibernated, juliet};
    use crate::testing::Scene;
    use std::sync::Arc;
    use xmpp::StreamFault;
    use xmpp::write::Additions;

    // LIMITS.md: 1,000 stanzas unacknowledged.
    #[test]
    fn a_session_whose_queue_runs_over_is_closed() {
        let mut juliet = juliet().with("home", 0).policy(|p| p.limits.unacked_stanzas_max = 3);
        let juliet =
            juliet.account.sessions.first_mut().map(|s| s.management = Some(Management::default())).map(|()| juliet);
        let mut juliet = juliet.expect("a session");
        let chat_state = "<message from='romeo@montague.example/x' to='juliet@capulet.example/home' type='chat'>\
            <composing xmlns='http://jabber.org/protocol/chatstates'/></message>";
        for _ in 0..3 {
            assert_eq!(juliet.receive(chat_state).written_to(), ["home"]);
        }
        let fx = juliet.receive(chat_state);
        assert_eq!(closed(&fx), [("home".to_owned(), StreamFault::SlowReader)]);
        assert!(fx.written_to().is_empty() && juliet.sessions.is_empty());
    }

    #[test]
    fn deliveries_behind_a_commit_that_wrote_nothing_leave_the_others_their_numbers() {
        let mut juliet = juliet().with("home", 0);
        let mut fx = juliet.receive("<message from='romeo@montague.example/x' type='chat'><body>1</body></message>");
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        let effects = fx.list.split_off(at + 1);
        juliet.receive("<message from='romeo@montague.example/x' type='chat'><body>2</body></message>");
        assert_eq!(juliet.sessions[0].queued, 2);
        let fx = juliet.item(Item::Dropped { effects });
        assert!(matches!(fx.edge_items()[0], (_, EdgeItem::Skipped { number: 1 })), "{:?}", fx.list);
        let numbers: Vec<u64> = juliet.sessions[0].unwritten.iter().map(|(n, _)| *n).collect();
        assert_eq!(numbers, [2]);
        // Nobody has it; whether it is in the log, the log says.
        assert_eq!(juliet.inbox.waiting(), 1);
        assert!(fx.list.iter().any(|e| matches!(e, Effect::ReadPending { .. })));
    }

    // A carbon copy of a message that came twice.
    #[test]
    fn a_message_behind_a_delivery_that_did_not_happen_is_taken_when_it_is_written() {
        let mut juliet = juliet().with("home", 0);
        let (edge, session) = (juliet.edge("home"), juliet.id("home"));
        let copy = "<message from='juliet@capulet.example' to='juliet@capulet.example/home'><sent xmlns='urn:xmpp:carbons:2'/></message>";
        let copy = Delivery {
            stanza: Arc::new(crate::testing::stanza(copy)),
            to: None,
            more: Additions::default(),
            position: None,
        };
        let mut fx = Effects::default();
        deliver(&mut juliet.account, session, copy, &mut fx);
        let position = juliet
            .receive("<message from='romeo@montague.example/x' type='chat'><body>1</body></message>")
            .appended()[0]
            .position;
        juliet.item(Item::Dropped { effects: fx.list });
        // The stream has written the one message and passed over the other delivery.
        juliet.item(Item::Written { session, edge, deliveries: 2 });
        assert_eq!(juliet.after_ms(1_000).taken(), [position]);
    }

    #[test]
    fn a_session_that_lost_its_stream_is_not_given_later_what_a_commit_that_failed_stood_before() {
        let mut juliet = hibernated(juliet(), "phone", 1_000).with("home", 0).having("phone", |s| s.carbons = true);
        let waits = |juliet: &Scene| -> usize {
            juliet.sessions.iter().filter_map(|s| s.management.as_ref()).map(|m| m.unacked.len()).sum()
        };
        let before = waits(&juliet);
        let to_home = "<message from='romeo@montague.example/x' to='juliet@capulet.example/home' type='chat'>\
            <body>1</body></message>";
        let mut fx = juliet.receive(to_home);
        assert_eq!(waits(&juliet), before + 1, "a copy");
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        assert_eq!(waits(&juliet), before);
    }

    #[test]
    fn a_stream_hears_that_it_is_bound_whatever_became_of_a_commit_before() {
        let mut juliet = juliet().with("home", 0);
        let mut fx = juliet.item(Item::Attach(asks(Some("home"))));
        let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
        let fx = juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
        assert_eq!(bound(&fx).resource_str(), "home");
    }
}
