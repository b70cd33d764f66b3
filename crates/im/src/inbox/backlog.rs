//! The backlog on its way to a session: what is pending, read from the log page by page. DESIGN.md D5, XEP-0160.
//!
//! One session at a time is given it, as fast as it takes it; the others queue.

use super::{additions_of, marks, taken};
use crate::account::Account;
use crate::effects::{Delivery, Effect, Effects};
use crate::item::{SessionId, Ticket};
use crate::messages;
use crate::modules::expiry;
use crate::modules::outcome::State;
use crate::session::{self, Session};
use std::sync::Arc;
use store::Record;
use xmpp::{Jid, Stamp, Stanza};

/// Pending records read at a time.
pub const PAGE: usize = 50;

/// The backlog on its way to a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    pub(super) session: SessionId,
    /// Read up to here.
    after: i64,
    /// The last position when the pages under way were asked for.
    asked_at: i64,
    /// The last position when the backlog began: what is newer goes where a live message would go.
    backlog_to: i64,
    /// The session's queue is full: goes on when it has taken some.
    pub(super) paused: bool,
    /// The page under way is for this reading.
    asked: bool,
}

/// The session became able to take messages: give it what is pending. XEP-0160.
pub fn flush(account: &mut Account, id: SessionId, fx: &mut Effects) {
    match account.inbox.reading {
        Some(reading) if reading.session == id => return go_on(account, id, fx),
        Some(reading) if reading.paused => {
            // Whoever has a full queue waits for its turn.
            account.inbox.reading = None;
            if !account.inbox.queue.contains(&reading.session) {
                account.inbox.queue.push_back(reading.session);
            }
        }
        Some(_) if account.inbox.queue.contains(&id) => return,
        Some(_) => return account.inbox.queue.push_back(id),
        None => {}
    }
    if !takes_messages(account, id) {
        return;
    }
    let Some(first) = account.inbox.next_waiting(i64::MIN, id) else { return };
    let last = account.inbox.last_position;
    let reading =
        Reading { session: id, after: first - 1, asked_at: last, backlog_to: last, paused: false, asked: false };
    ask(account, reading, fx);
}

/// What waits goes to whoever is there to take it.
pub(crate) fn flush_waiting(account: &mut Account, fx: &mut Effects) {
    for id in messages::most_available(account) {
        flush(account, id, fx);
    }
    next_backlog(account, fx);
}

fn takes_messages(account: &Account, id: SessionId) -> bool {
    account.session(id).is_some_and(Session::takes_messages)
}

/// The session's queue is full: from this position on it is given what is in the log, when it has taken some.
pub(super) fn continue_later(account: &mut Account, id: SessionId, position: i64) {
    let backlog_to = account.inbox.last_position;
    match account.inbox.reading {
        None => {
            let after = position - 1;
            account.inbox.reading =
                Some(Reading { session: id, after, asked_at: 0, backlog_to, paused: true, asked: false });
        }
        Some(reading) if reading.session != id && !account.inbox.queue.contains(&id) => {
            account.inbox.queue.push_back(id);
        }
        Some(_) => {}
    }
}

/// Asks for all that is in the log now, page by page; at once, or when the session has room for it.
fn ask(account: &mut Account, mut reading: Reading, fx: &mut Effects) {
    reading.paused = !has_room(account, reading.session, 2);
    reading.asked = !reading.paused && !account.inbox.page_under_way;
    if reading.asked {
        // The page stands behind a commit, so that it shows what was appended before.
        if !fx.list.iter().any(|effect| matches!(effect, Effect::Commit { .. })) {
            let changes = marks(account, fx);
            fx.commit(changes, None, &Ticket::default());
        }
        reading.asked_at = account.inbox.last_position;
        read(account, &reading, fx);
    }
    account.inbox.reading = Some(reading);
}

/// The page that was asked for does not come.
pub(crate) fn ask_again(account: &mut Account, fx: &mut Effects) {
    account.inbox.page_under_way = false;
    if let Some(reading) = account.inbox.reading.filter(|reading| !reading.paused) {
        ask(account, reading, fx);
    }
}

fn read(account: &mut Account, reading: &Reading, fx: &mut Effects) {
    account.inbox.page_under_way = true;
    fx.push(Effect::ReadPending { after: reading.after, limit: PAGE });
}

/// Is the session's queue below (`quarters`/4) of its bounds?
fn has_room(account: &Account, id: SessionId, quarters: usize) -> bool {
    account.session(id).is_none_or(|session| session.has_room(&account.policy.limits, quarters))
}

/// The session has taken some: the backlog goes on if it waited for that.
pub(crate) fn go_on(account: &mut Account, id: SessionId, fx: &mut Effects) {
    let waits = account.inbox.reading.filter(|reading| reading.paused && reading.session == id);
    let Some(reading) = waits.filter(|_| has_room(account, id, 2)) else { return };
    ask(account, reading, fx);
}

/// A page of the backlog, oldest first.
pub fn pending_page(account: &mut Account, after: i64, records: Option<Vec<Record>>, fx: &mut Effects) {
    account.inbox.page_under_way = false;
    let Some(mut reading) = account.inbox.reading.filter(|reading| !reading.paused) else { return };
    let Some(records) = records else {
        // Tried often enough: it waits for the next that comes.
        account.inbox.reading = None;
        return;
    };
    if !reading.asked || reading.after != after {
        // It was for a session that left meanwhile.
        return ask(account, reading, fx);
    }
    account.inbox.reading = None;
    if !takes_messages(account, reading.session) {
        // It left meanwhile; whoever is there now begins anew.
        return flush_waiting(account, fx);
    }
    let full_page = records.len() >= PAGE;
    forget_unwritten(account, after, &records, full_page, &reading);
    let mut has_all = true;
    for record in records {
        if !has_room(account, reading.session, 3) {
            has_all = false;
            break;
        }
        reading.after = record.position;
        give(account, &reading, record, fx);
    }
    if full_page && has_all && has_room(account, reading.session, 2) {
        read(account, &reading, fx);
        account.inbox.reading = Some(reading);
        return;
    }
    // A page that is not full showed all that was there when it was asked for.
    let seen = if full_page { reading.after } else { reading.after.max(reading.asked_at) };
    let more = account.inbox.next_waiting(seen, reading.session);
    if !has_all || more.is_some() {
        ask(account, reading, fx);
    } else {
        next_backlog(account, fx);
    }
}

/// Positions that the store did not give although it should have: their commit failed.
fn forget_unwritten(account: &mut Account, after: i64, records: &[Record], full_page: bool, reading: &Reading) {
    let to = match records.last() {
        Some(last) if full_page => last.position,
        _ => reading.asked_at,
    };
    if to <= after {
        return;
    }
    let waiting = account.inbox.pending.range(after + 1..=to).filter(|(_, entry)| entry.holders.is_empty());
    let lost: Vec<i64> =
        waiting.map(|(p, _)| *p).filter(|p| records.binary_search_by_key(p, |r| r.position).is_err()).collect();
    lost.into_iter().for_each(|position| account.inbox.forget(position));
}

/// One record of the backlog.
fn give(account: &mut Account, reading: &Reading, record: Record, fx: &mut Effects) {
    let position = record.position;
    let Some(entry) = account.inbox.pending.get(&position) else { return };
    if !entry.holders.is_empty() || entry.had.contains(&reading.session) {
        return;
    }
    if is_too_old(account, position) {
        return is_over(account, position, fx);
    }
    if record.archived && account.session(reading.session).is_some_and(|s| position <= s.archive_to) {
        // XEP-0386 §3.2: without sending it.
        taken(account, [position], fx);
        return;
    }
    let Ok(stanza) = Stanza::parse(&record.stanza) else {
        // LIMITS.md §2 row 34: one record that cannot be read holds nothing back.
        fx.push(Effect::Count("inbox_records_damaged"));
        account.inbox.fail(position, State::Refused);
        taken(account, [], fx);
        return;
    };
    if has_lapsed(account, &record, &stanza, fx) {
        return is_over(account, position, fx);
    }
    let stanza = Arc::new(stanza);
    let mut ids = vec![reading.session];
    // (To a full JID it is this resource's, or that one is gone.)
    if position > reading.backlog_to && stanza.to.as_ref().is_none_or(Jid::is_bare) {
        let takers = messages::most_available(account);
        if takers.contains(&reading.session) {
            ids = takers;
        }
    }
    for id in ids {
        let delivery = Delivery {
            stanza: stanza.clone(),
            to: None,
            more: additions_of(account, position, record.archived, true),
            position: Some(position),
        };
        session::deliver(account, id, delivery, fx);
    }
}

/// Is the record's own time over? Whoever asked to be told of that is told.
fn has_lapsed(account: &mut Account, record: &Record, stanza: &Stanza, fx: &mut Effects) -> bool {
    let now = account.now.utc;
    expiry::is_over(account, stanza, Stamp(record.position), fx) || record.expires.is_some_and(|at| at <= now)
}

/// Nobody has come for these. What no session is being given ends here, so that its sender need not wait for the
/// recipient to hear what became of it.
pub fn overdue(account: &mut Account, records: &[Record], fx: &mut Effects) {
    for record in records {
        let waits = account.inbox.pending.get(&record.position).is_some_and(|entry| entry.holders.is_empty());
        let Ok(stanza) = Stanza::parse(&record.stanza) else { continue };
        if waits && has_lapsed(account, record, &stanza, fx) {
            is_over(account, record.position, fx);
        }
    }
    expire_old(account, fx);
    taken(account, [], fx);
}

/// Its time was over before a session took it.
fn is_over(account: &mut Account, position: i64, fx: &mut Effects) {
    fx.push(Effect::Count("messages_expired"));
    account.inbox.fail(position, State::Expired);
    taken(account, [], fx);
}

/// The same of what a session had in its queue, unless another session may still take it.
pub(crate) fn too_late(account: &mut Account, position: i64, id: SessionId, fx: &mut Effects) {
    account.inbox.unheld(position, id);
    if account.inbox.pending.get(&position).is_some_and(|entry| entry.holders.is_empty()) {
        is_over(account, position, fx);
    }
}

/// Has the record waited longer than any may?
fn is_too_old(account: &Account, position: i64) -> bool {
    let days = i64::from(account.policy.limits.offline_days_max);
    days > 0 && account.now.utc.seconds_since(Stamp(position)) > days * 24 * 3600
}

/// What waited too long waits no longer; if it is archived, it is in the archive only.
pub(crate) fn expire_old(account: &mut Account, fx: &mut Effects) {
    while let Some((&position, entry)) = account.inbox.pending.first_key_value() {
        if !entry.holders.is_empty() || !is_too_old(account, position) {
            return;
        }
        fx.push(Effect::Count("messages_expired"));
        account.inbox.fail(position, State::Expired);
    }
}

/// The next session that waits for the backlog.
pub(super) fn next_backlog(account: &mut Account, fx: &mut Effects) {
    while account.inbox.reading.is_none() {
        let Some(id) = account.inbox.queue.pop_front() else { return };
        flush(account, id, fx);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inbox::tests::*;
    use crate::item::Item;
    use crate::testing::{START, account, archive_id, stanza};
    use xmpp::write::to_stored;

    // XEP-0023, RFC 3860 §3.4.1.
    #[test]
    fn what_nobody_comes_for_in_time_ends_by_itself_and_who_asked_hears_it() {
        let romeo = crate::testing::contact("romeo@montague.example", "both");
        let stored = store::AccountRecord { roster: vec![romeo], ..store::AccountRecord::default() };
        let mut juliet = crate::testing::account_with(JULIET, stored);
        let asks = |more: &str| {
            chat("hi").replace("</message>", &format!("<request xmlns='urn:waft:outcome:0'/>{more}</message>"))
        };
        let short = juliet.receive(&asks("<x xmlns='jabber:x:expire' seconds='60'/>")).appended().remove(0);
        let long = juliet.receive(&asks("")).appended().remove(0);
        let records = || vec![short.clone(), long.clone()];
        juliet.now.utc = START.plus_seconds(59);
        juliet.item(Item::Overdue { records: records() });
        assert_eq!(juliet.after_ms(1_000).taken(), [0; 0]);
        juliet.now.utc = START.plus_seconds(60);
        juliet.item(Item::Overdue { records: records() });
        let fx = juliet.after_ms(1_000);
        assert_eq!(fx.taken(), [short.position]);
        let told = fx.told();
        assert!(told.len() == 1 && told[0].1.contains("state='expired'"), "{told:?}");
        // Longer than any may wait.
        juliet.now.utc = START.plus_seconds(31 * 24 * 3_600);
        juliet.item(Item::Overdue { records: Vec::new() });
        assert_eq!(juliet.after_ms(1_000).taken(), [long.position]);
    }

    #[test]
    fn what_a_session_is_being_given_does_not_end_under_its_hands() {
        let mut juliet = account(JULIET).with("home", 0);
        let lapses = chat("hi").replace("</message>", "<x xmlns='jabber:x:expire' seconds='60'/></message>");
        let record = juliet.receive(&lapses).appended().remove(0);
        juliet.now.utc = START.plus_seconds(61);
        juliet.item(Item::Overdue { records: vec![record.clone()] });
        assert!(juliet.inbox.is_pending(record.position));
    }

    // XEP-0160 §2, XEP-0203.
    #[test]
    fn who_comes_online_is_given_what_waited_with_the_time_that_it_came() {
        let mut juliet = account(JULIET);
        let first = juliet.receive(&chat("one")).appended()[0].position;
        juliet.now.utc = START.plus_seconds(60);
        juliet.receive(&chat("two"));
        let mut juliet = juliet.connected("home");
        assert_eq!(page_asked(&comes_online(&mut juliet, "home")), Some(first - 1));
        let fx = page(&mut juliet, first - 1, vec![record(first, "one"), record(START.0 + 60_000_000, "two")]);
        let wire = fx.delivered("home");
        assert_eq!(wire.len(), 2);
        let delay = "<delay xmlns='urn:xmpp:delay' from='capulet.example' stamp='2026-01-01T00:00:00Z'/>";
        assert!(wire[0].contains(delay) && wire[0].contains("<body>one</body>"), "{wire:?}");
        assert!(wire[0].contains(&format!("id='{}' by='{JULIET}'", archive_id(first))), "{wire:?}");
        assert!(wire[1].contains("2026-01-01T00:01:00Z"), "{wire:?}");
        assert_eq!(page_asked(&fx), None);
        juliet.writes_all("home");
        assert_eq!(juliet.after_ms(1_000).taken().len(), 2);
        assert!(!juliet.inbox.is_busy());
    }

    // RFC 6121 §8.5.2.1.1.
    #[test]
    fn a_resource_of_negative_priority_is_given_nothing() {
        let mut juliet = with_pending([earlier(0)]).connected("home");
        assert_eq!(page_asked(&juliet.sends("home", "<presence><priority>-1</priority></presence>")), None);
        // And when it changes its mind, it is.
        let fx = juliet.sends("home", "<presence><priority>1</priority></presence>");
        assert_eq!(page_asked(&fx), Some(earlier(0) - 1));
    }

    #[test]
    fn what_comes_while_the_backlog_is_read_comes_behind_it() {
        let mut juliet = with_pending([earlier(0)]).connected("home");
        comes_online(&mut juliet, "home");
        let fx = juliet.receive(&chat("new"));
        let new = fx.appended()[0].position;
        assert!(fx.written_to().is_empty());
        let fx = page(&mut juliet, earlier(0) - 1, vec![record(earlier(0), "old")]);
        assert_eq!(fx.delivered("home").len(), 1);
        assert_eq!(page_asked(&fx), Some(earlier(0)));
        let fx = page(&mut juliet, earlier(0), vec![record(new, "new")]);
        assert!(fx.delivered("home")[0].contains("<body>new</body>"));
        assert_eq!(page_asked(&fx), None);
        // Now it is live.
        assert_eq!(juliet.receive(&chat("live")).written_to(), ["home"]);
    }

    #[test]
    fn a_long_backlog_is_read_page_by_page() {
        let count = PAGE as i64 + 1;
        let mut juliet = with_pending((0..count).map(earlier)).connected("home");
        comes_online(&mut juliet, "home");
        let records = (0..count - 1).map(|n| record(earlier(n), "old")).collect();
        let fx = page(&mut juliet, earlier(0) - 1, records);
        assert_eq!(fx.written_to().len(), PAGE);
        assert_eq!(page_asked(&fx), Some(earlier(count - 2)));
        let fx = page(&mut juliet, earlier(count - 2), vec![record(earlier(count - 1), "old")]);
        assert_eq!((fx.written_to().len(), page_asked(&fx)), (1, None));
    }

    #[test]
    fn a_page_that_nobody_waits_for_is_ignored() {
        let mut juliet = with_pending([earlier(0)]).with("home", 0);
        assert!(page(&mut juliet, earlier(0) - 1, vec![record(earlier(0), "old")]).is_empty());
    }

    // LIMITS.md: 1,000 stanzas unacknowledged, 1,000 offline messages.
    #[test]
    fn a_backlog_longer_than_the_sessions_queue_comes_as_the_client_takes_it() {
        let mut juliet =
            with_pending((0..40).map(earlier)).policy(|p| p.limits.unacked_stanzas_max = 20).connected("home");
        comes_online(&mut juliet, "home");
        let mut given = 0;
        let mut after = earlier(0) - 1;
        for _ in 0..40 {
            let records = (0..40).map(earlier).filter(|p| *p > after).map(|p| record(p, "old")).collect();
            let fx = page(&mut juliet, after, records);
            given += fx.delivered("home").iter().filter(|xml| xml.contains("<body>")).count();
            assert!(juliet.sessions[0].unwritten.len() <= 20);
            match page_asked(&juliet.writes_all("home")) {
                Some(next) => after = next,
                None => break,
            }
        }
        assert_eq!(given, 40);
        assert_eq!(juliet.sessions.len(), 1);
    }

    #[test]
    fn a_session_whose_queue_is_full_is_given_the_rest_from_the_log() {
        let mut juliet = account(JULIET).with("home", 0).policy(|p| p.limits.unacked_stanzas_max = 4);
        let positions: Vec<i64> =
            (0..6).map(|n| juliet.receive(&chat(&n.to_string())).appended()[0].position).collect();
        assert_eq!(juliet.sessions[0].unwritten.len(), 4);
        let fx = juliet.writes_all("home");
        assert_eq!(page_asked(&fx), Some(positions[4] - 1));
        let fx = page(&mut juliet, positions[4] - 1, vec![record(positions[4], "4"), record(positions[5], "5")]);
        assert_eq!(fx.written_to(), ["home", "home"]);
        assert_eq!(juliet.receive(&chat("6")).written_to(), ["home"]);
    }

    #[test]
    fn what_waits_for_a_slow_reader_has_a_limit_too() {
        let mut juliet = account(JULIET).with("home", 0).policy(|p| {
            p.limits.unacked_stanzas_max = 2;
            p.limits.offline_messages_max = 3;
        });
        for n in 0..2 + 2 * 3 {
            assert_eq!(juliet.receive(&chat(&n.to_string())).appended().len(), 1, "{n}");
        }
        assert!(error_told(&juliet.receive(&chat("more")), "service-unavailable"));
    }

    #[test]
    fn a_resource_that_leaves_while_its_backlog_is_read_leaves_it_to_the_next() {
        let mut juliet = with_pending([earlier(0)]).connected("home").connected("phone");
        comes_online(&mut juliet, "home");
        comes_online(&mut juliet, "phone");
        juliet.closes("home");
        // The page for the one that left comes; what it shows may be old by now.
        let fx = page(&mut juliet, earlier(0) - 1, vec![record(earlier(0), "old")]);
        assert_eq!((fx.written_to().len(), page_asked(&fx)), (0, Some(earlier(0) - 1)));
        let fx = page(&mut juliet, earlier(0) - 1, vec![record(earlier(0), "old")]);
        assert_eq!(fx.written_to(), ["phone"]);
    }

    #[test]
    fn what_a_broken_stream_did_not_write_goes_to_another_resource_once() {
        let mut juliet = account(JULIET).with("home", 5).with("phone", 0);
        let position = juliet.receive(&chat("hi")).appended()[0].position;
        let fx = juliet.loses("home", 0, 0);
        assert_eq!(page_asked(&fx), Some(position - 1));
        assert_eq!(page(&mut juliet, position - 1, vec![record(position, "hi")]).written_to(), ["phone"]);
        let fx = juliet.loses("phone", 0, 0);
        assert_eq!(page_asked(&fx), None);
        assert_eq!(juliet.inbox.waiting(), 1);
        // The next that comes is given it.
        let mut juliet = juliet.connected("tablet");
        assert_eq!(page_asked(&comes_online(&mut juliet, "tablet")), Some(position - 1));
    }

    #[test]
    fn what_a_waiting_session_holds_is_not_given_to_who_comes_online() {
        let mut juliet = account(JULIET).with("home", 0).having("home", |session| {
            session.edge = None;
            session.management = Some(crate::resume::Management {
                id: Some("sm1".into()),
                max_seconds: 300,
                ends_at: Some(301_000),
                ..Default::default()
            });
        });
        juliet.receive(&chat("hi"));
        assert_eq!(juliet.inbox.waiting(), 0);
        let mut juliet = juliet.connected("phone");
        assert_eq!(page_asked(&comes_online(&mut juliet, "phone")), None);
        // Until the session ends.
        assert!(page_asked(&juliet.after_ms(300_000)).is_some());
    }

    #[test]
    fn row_34_a_record_that_cannot_be_read_holds_nothing_back() {
        let mut juliet = with_pending([earlier(0), earlier(1)]).connected("home");
        comes_online(&mut juliet, "home");
        let damaged = Record { stanza: b"<message><body>".to_vec(), ..record(earlier(0), "x") };
        let fx = page(&mut juliet, earlier(0) - 1, vec![damaged, record(earlier(1), "old")]);
        assert_eq!(fx.delivered("home").len(), 1);
        assert!(fx.list.iter().any(|e| matches!(e, Effect::Count("inbox_records_damaged"))));
        assert_eq!(juliet.after_ms(1_000).taken(), [earlier(0)]);
    }

    // LIMITS.md: 30 days.
    // XEP-0386 §3.2.
    #[test]
    fn a_client_that_binds_with_bind_2_takes_from_the_archive_what_is_there() {
        let juliet = with_pending([earlier(1), earlier(2)]).connected("home");
        let archive_to = juliet.inbox.last_position;
        let mut juliet = juliet.having("home", |s| s.archive_to = archive_to);
        juliet.receive(&chat("after the bind"));
        let new = juliet.inbox.last_position;
        let after = page_asked(&comes_online(&mut juliet, "home")).expect("a page");
        let not_archived = Record { archived: false, ..record(earlier(2), "2") };
        let records = vec![record(earlier(1), "1"), not_archived, record(new, "after the bind")];
        let fx = page(&mut juliet, after, records);
        let delivered = fx.delivered("home");
        assert_eq!(delivered.len(), 2, "{delivered:?}");
        assert!(delivered[0].contains("<body>2<") && delivered[1].contains("<body>after the bind<"), "{delivered:?}");
        assert_eq!(juliet.after_ms(1_000).taken(), [earlier(1)]);
    }

    #[test]
    fn what_waited_too_long_leaves_room_for_what_is_new() {
        let day = 24 * 3_600 * 1_000_000;
        let mut juliet = with_pending([START.0 - 31 * day, START.0 - 29 * day]);
        juliet.account.policy = {
            let mut policy = crate::HostPolicy::clone(&juliet.policy);
            policy.limits.offline_messages_max = 2;
            Arc::new(policy)
        };
        assert_eq!(juliet.receive(&chat("new")).appended().len(), 1);
        assert_eq!(juliet.after_ms(1_000).taken(), [START.0 - 31 * day]);
        assert_eq!(juliet.receive(&chat("one too many")).appended().len(), 0);
    }

    #[test]
    fn what_waited_too_long_expires() {
        let old = START.plus_seconds(-31 * 24 * 3600).0;
        let mut juliet = with_pending([old, earlier(0), earlier(1)]).connected("home");
        comes_online(&mut juliet, "home");
        let expired = Record { expires: Some(START), ..record(earlier(0), "x") };
        let fx = page(&mut juliet, old - 1, vec![record(old, "old"), expired, record(earlier(1), "new")]);
        assert!(fx.delivered("home").concat().contains("<body>new</body>"));
        assert_eq!(fx.delivered("home").len(), 1);
        assert_eq!(juliet.after_ms(1_000).taken(), [old, earlier(0)]);
    }

    #[test]
    fn a_read_that_failed_is_not_repeated_for_ever_and_loses_nothing() {
        let mut juliet = with_pending([earlier(0)]).connected("home");
        comes_online(&mut juliet, "home");
        let fx = juliet.item(Item::Pending { after: earlier(0) - 1, records: None });
        assert_eq!(page_asked(&fx), None);
        assert!(juliet.inbox.is_pending(earlier(0)));
    }

    // The store knew the message already, or its commit failed.
    #[test]
    fn what_the_log_does_not_have_is_not_waited_for() {
        let mut juliet = with_pending([earlier(0)]).connected("home");
        comes_online(&mut juliet, "home");
        let fx = page(&mut juliet, earlier(0) - 1, Vec::new());
        assert_eq!((page_asked(&fx), juliet.inbox.waiting()), (None, 0));
        assert_eq!(juliet.receive(&chat("live")).written_to(), ["home"]);
    }

    // RFC 6121 §8.5.3.1.
    #[test]
    fn a_message_to_a_full_jid_that_waits_for_the_backlog_goes_to_that_resource_alone() {
        let mut juliet = with_pending([earlier(0)]).with("phone", 0).connected("home");
        comes_online(&mut juliet, "home");
        let to_home = chat("new").replace(JULIET, "juliet@capulet.example/home");
        let new = juliet.receive(&to_home).appended()[0].position;
        let fx = page(&mut juliet, earlier(0) - 1, vec![record(earlier(0), "old")]);
        assert_eq!(page_asked(&fx), Some(earlier(0)));
        let kept = Record { stanza: to_stored(&stanza(&to_home)), ..record(new, "new") };
        assert_eq!(page(&mut juliet, earlier(0), vec![kept]).written_to(), ["home"]);
    }

    #[test]
    fn a_record_that_was_never_written_is_forgotten_when_the_log_is_read() {
        let mut juliet = with_pending([earlier(0), earlier(1)]).connected("home");
        comes_online(&mut juliet, "home");
        page(&mut juliet, earlier(0) - 1, vec![record(earlier(1), "old")]);
        assert!(!juliet.inbox.is_pending(earlier(0)));
    }
}
