use super::*;
use crate::item::{DetachReason, Item};
use crate::testing::{Fx, Scene, account, account_with};
use store::AccountRecord;

const NEW: EdgeRef = EdgeRef(900);
const JULIET: &str = "juliet@capulet.example";

fn asked(resume: bool, max: Option<u32>) -> ManagementRequest {
    ManagementRequest { resume, max, id: "sm1".into() }
}

/// Juliet at home, with stream management; resumption id `sm1`.
fn juliet() -> Scene {
    let mut juliet = account(JULIET).with("home", 0);
    let session = juliet.id("home");
    juliet.item(Item::Manage { session, request: asked(true, None) });
    juliet
}

fn chat(body: &str) -> String {
    format!("<message from='romeo@montague.example/x' type='chat'><body>{body}</body></message>")
}

fn presence(status: &str) -> String {
    format!("<presence from='romeo@montague.example/x'><status>{status}</status></presence>")
}

// XEP-0198 §5: "the 'h' attribute … if the server still knows".
#[test]
fn after_a_crash_a_client_hears_how_much_of_what_it_sent_was_done_before() {
    let mut juliet = juliet();
    let session = juliet.id("home");
    juliet.loses("home", 0, 5);
    // Not as long as something is on its way to the disk.
    assert!(rows(&juliet.after_ms(1_000)).iter().all(|row| row.received.is_none()));
    juliet.item(Item::Settled { session, received: 5 });
    let row = rows(&juliet.after_ms(1_000)).remove(0);
    assert_eq!(row.received, Some(5));

    let row = SessionRow { epoch: row.epoch - 1, ..row };
    let mut after = account_with(JULIET, AccountRecord { sessions: vec![row], ..AccountRecord::default() });
    assert_eq!(refused(&resumes(&mut after, 0)), Some(Some(5)));
    let other = after.item(Item::Resume { edge: NEW, id: "sm2".into(), h: 0 });
    assert_eq!(refused(&other), Some(None));
}

#[test]
fn the_ledger_forgets_what_was_received_before_a_client_that_resumed_is_told_more() {
    let mut juliet = juliet();
    let session = juliet.id("home");
    juliet.loses("home", 0, 5);
    juliet.item(Item::Settled { session, received: 5 });
    juliet.after_ms(1_000);
    let fx = resumes(&mut juliet, 0);
    let forgets = |it: &Change| matches!(it, Change::ReceivedDelete { resource, .. } if &**resource == "home");
    assert!(fx.commits().iter().any(forgets));
    let is_resumed = |e: &Effect| matches!(e, Effect::Edge { item: EdgeItem::Resumed { .. }, .. });
    assert!(fx.in_order(|e| matches!(e, Effect::Commit { .. }), is_resumed));
    // What settles late is of a stream that is gone.
    juliet.item(Item::Settled { session, received: 5 });
    assert!(rows(&juliet.after_ms(1_000)).is_empty());
}

// On a full disk: after a crash it would hear of less than it was told.
#[test]
fn where_the_ledger_cannot_forget_the_client_is_not_resumed_and_hears_what_was_received() {
    let mut juliet = juliet();
    let session = juliet.id("home");
    juliet.receive(&chat("1"));
    juliet.loses("home", 0, 5);
    juliet.item(Item::Settled { session, received: 5 });
    juliet.after_ms(1_000);
    let mut fx = Effects::default();
    let now = juliet.now;
    juliet.account.step(Item::Resume { edge: NEW, id: "sm1".into(), h: 0 }, now, &mut fx);
    let at = fx.list.iter().position(|e| matches!(e, Effect::Commit { .. })).expect("a commit");
    let fx = juliet.item(Item::Dropped { effects: fx.list.split_off(at + 1) });
    assert_eq!((refused(&fx), resumed(&fx)), (Some(Some(5)), None));
    juliet.item(Item::CommitFailed {
        bounce: None,
        error: store::StoreError::Full,
        ticket: Ticket::default(),
        stored: None,
    });
    assert_eq!(rows(&juliet.after_ms(1_000)).remove(0).received, Some(5), "as it was before");
    assert_eq!(resumed(&resumes(&mut juliet, 0)), Some((5, 0)), "it may try again");
}

#[test]
fn of_two_streams_that_resume_while_the_ledger_is_written_the_later_one_wins() {
    let mut juliet = juliet();
    juliet.loses("home", 0, 5);
    let mut fx = Effects::default();
    let now = juliet.now;
    for edge in [NEW, EdgeRef(901)] {
        juliet.account.step(Item::Resume { edge, id: "sm1".into(), h: 0 }, now, &mut fx);
    }
    assert_eq!(fx.list.iter().filter(|e| matches!(e, Effect::TakeOver { .. })).count(), 1);
    let closed =
        |e: &Effect| matches!(e, Effect::Edge { edge: NEW, item: EdgeItem::Close(StreamFault::ReplacedByNewSession) });
    assert!(fx.list.iter().any(closed));
    let session = juliet.id("home");
    assert_eq!(resumed(&juliet.item(Item::TakeOver { session })), Some((5, 0)));
    assert_eq!(juliet.sessions[0].edge, Some(EdgeRef(901)));
}

fn rows(fx: &Fx) -> Vec<SessionRow> {
    let put = |change| match change {
        Change::SessionPut { row, .. } => Some(row),
        _ => None,
    };
    fx.commits().into_iter().filter_map(put).collect()
}

fn resumes(juliet: &mut Scene, h: u32) -> Fx {
    juliet.item(Item::Resume { edge: NEW, id: "sm1".into(), h })
}

fn resumed(fx: &Fx) -> Option<(u32, u32)> {
    fx.edge_items().iter().find_map(|(_, item)| match item {
        EdgeItem::Resumed { received, sent, .. } => Some((*received, *sent)),
        _ => None,
    })
}

fn refused(fx: &Fx) -> Option<Option<u32>> {
    fx.edge_items().iter().find_map(|(_, item)| match item {
        EdgeItem::ResumeRefused { h } => Some(*h),
        _ => None,
    })
}

fn faults(fx: &Fx) -> Vec<StreamFault> {
    let fault = |(_, item): (String, &EdgeItem)| match item {
        EdgeItem::Close(fault) => Some(fault.clone()),
        _ => None,
    };
    fx.edge_items().into_iter().filter_map(fault).collect()
}

fn bodies(fx: &Fx, resource: &str) -> Vec<String> {
    let cut = |xml: String| {
        let (_, tail) = xml.split_once("<body>")?;
        tail.split_once("</body>").map(|(body, _)| body.to_owned())
    };
    fx.delivered(resource).into_iter().filter_map(cut).collect()
}

// XEP-0198 §3.
#[test]
fn enabling_is_answered_with_an_id_and_the_time_that_the_server_waits() {
    for (request, id, max) in [
        (asked(true, None), Some("sm1"), 300),
        (asked(true, Some(60)), Some("sm1"), 60),
        (asked(true, Some(100_000)), Some("sm1"), 900),
        (asked(false, None), None, 300),
    ] {
        let mut juliet = account(JULIET).with("home", 0);
        let session = juliet.id("home");
        let fx = juliet.item(Item::Manage { session, request });
        match &fx.edge_items()[..] {
            [(_, EdgeItem::Managed(managed))] => assert_eq!((managed.id.as_deref(), managed.max), (id, max)),
            other => panic!("{other:?}"),
        }
        let resumable = fx.list.iter().any(|e| matches!(e, Effect::Resumable { yes: true, .. }));
        assert_eq!(resumable, id.is_some());
    }
}

// XEP-0198 §3: "SHOULD respond with a stream error".
#[test]
fn enabling_twice_ends_the_stream() {
    let mut juliet = juliet();
    let session = juliet.id("home");
    let fx = juliet.item(Item::Manage { session, request: asked(true, None) });
    assert!(matches!(faults(&fx)[..], [StreamFault::Other(StreamCondition::PolicyViolation, _)]));
}

// XEP-0198 §6.
#[test]
fn acknowledging_what_was_never_sent_ends_the_stream() {
    let mut juliet = juliet();
    juliet.receive(&chat("1"));
    assert_eq!(faults(&juliet.acks("home", 2)), [StreamFault::AckTooHigh { h: 2, sent: 1 }]);
    assert_eq!(faults(&juliet.acks("home", u32::MAX)), [StreamFault::AckTooHigh { h: u32::MAX, sent: 1 }]);
    assert!(faults(&juliet.acks("home", 1)).is_empty());
    // Acknowledging less than before is acknowledging nearly all numbers.
    assert_eq!(faults(&juliet.acks("home", 0)), [StreamFault::AckTooHigh { h: 0, sent: 1 }]);
}

#[test]
fn what_is_acknowledged_is_taken_with_the_next_batch() {
    let mut juliet = juliet();
    let first = juliet.receive(&chat("1")).appended()[0].position;
    let second = juliet.receive(&chat("2")).appended()[0].position;
    assert!(juliet.acks("home", 1).taken().is_empty());
    assert!(juliet.after_ms(999).taken().is_empty());
    assert_eq!(juliet.after_ms(1).taken(), [first]);
    assert!(juliet.inbox.is_pending(second));
}

// XEP-0198 §7.
#[test]
fn a_session_that_lost_its_stream_is_still_there() {
    let mut juliet = juliet();
    let fx = juliet.loses("home", 0, 3);
    assert!(fx.told_to().is_empty() && fx.commits().is_empty());
    assert!(juliet.sessions[0].is_available() && juliet.sessions[0].edge.is_none());
}

#[test]
fn a_session_that_closed_its_stream_is_not() {
    for reason in [DetachReason::Closed, DetachReason::Fault] {
        let mut juliet = juliet();
        let (session, edge) = (juliet.id("home"), juliet.edge("home"));
        let fx = juliet.item(Item::Detached { session, edge, reason, deliveries: 0, received: 0 });
        assert!(juliet.sessions.is_empty());
        assert!(fx.list.iter().any(|e| matches!(e, Effect::Resumable { yes: false, .. })));
    }
}

#[test]
fn without_resumption_a_lost_stream_ends_the_session() {
    let mut juliet = account(JULIET).with("home", 0);
    let session = juliet.id("home");
    juliet.item(Item::Manage { session, request: asked(false, None) });
    juliet.loses("home", 0, 0);
    assert!(juliet.sessions.is_empty());
}

// XEP-0198 §5.
#[test]
fn a_resumed_session_is_given_in_order_what_it_did_not_handle() {
    let mut juliet = juliet();
    juliet.receive(&chat("1"));
    juliet.receive(&chat("2"));
    juliet.receive(&presence("3"));
    juliet.loses("home", 3, 17);
    assert!(juliet.receive(&chat("4")).written_to().is_empty());
    let fx = resumes(&mut juliet, 1);
    assert_eq!(resumed(&fx), Some((17, 1)));
    assert_eq!(fx.written_to(), ["home", "home", "home"]);
    let wire = fx.delivered("home");
    assert!(wire[0].contains("<body>2</body>"), "{wire:?}");
    assert!(wire[1].contains("<status>3</status>"), "{wire:?}");
    assert!(wire[2].contains("<body>4</body>"), "{wire:?}");
    let is_resumed = |e: &Effect| matches!(e, Effect::Edge { edge: NEW, item: EdgeItem::Resumed { .. } });
    assert!(fx.in_order(is_resumed, |e| matches!(e, Effect::Edge { item: EdgeItem::Deliver { .. }, .. })));
    assert_eq!(juliet.sessions[0].edge, Some(NEW));
    assert_eq!(juliet.sessions[0].queued, 3);
    // And the counters go on.
    juliet.receive(&chat("5"));
    assert!(faults(&juliet.acks("home", 5)).is_empty());
    assert_eq!(faults(&juliet.acks("home", 6)), [StreamFault::AckTooHigh { h: 6, sent: 5 }]);
}

#[test]
fn a_message_that_is_sent_again_carries_the_same_stanza_id() {
    let mut juliet = juliet();
    let fx = juliet.receive(&chat("1"));
    let first = fx.delivered("home").remove(0);
    juliet.loses("home", 1, 0);
    assert_eq!(resumes(&mut juliet, 0).delivered("home"), [first]);
}

// XEP-0023, XEP-0079 §3.3.2: "if the message would be delivered … after the specified datetime".
#[test]
fn a_message_whose_time_is_over_before_the_stream_is_resumed_is_not_given_any_more() {
    let short = chat("short").replace("</body>", "</body><x xmlns='jabber:x:expire' seconds='60'/>");
    let mut juliet = juliet();
    juliet.receive(&short.replace("short", "sent"));
    juliet.loses("home", 1, 0);
    let position = juliet.receive(&short).appended()[0].position;
    juliet.receive(&chat("long"));
    juliet.after_ms(61_000);
    let fx = resumes(&mut juliet, 0);
    assert_eq!(bodies(&fx, "home"), ["sent", "long"], "what may have been read counts, and comes again");
    assert!(faults(&juliet.acks("home", 2)).is_empty());
    assert_eq!(faults(&juliet.acks("home", 3)), [StreamFault::AckTooHigh { h: 3, sent: 2 }]);
    assert!(juliet.after_ms(1_000).taken().contains(&position));
}

#[test]
fn what_a_client_handled_before_it_lost_the_stream_is_taken() {
    let mut juliet = juliet();
    let position = juliet.receive(&chat("1")).appended()[0].position;
    juliet.loses("home", 1, 0);
    let fx = resumes(&mut juliet, 1);
    assert!(fx.written_to().is_empty());
    assert_eq!(juliet.after_ms(1_000).taken(), [position]);
}

#[test]
fn of_presence_that_waits_for_a_stream_only_the_last_of_a_resource_is_kept() {
    let mut juliet = juliet();
    juliet.receive(&presence("sent"));
    juliet.loses("home", 1, 0);
    juliet.receive(&presence("here"));
    juliet.receive("<presence from='nurse@capulet.example/x'/>");
    juliet.receive(&chat("1"));
    juliet.receive(&presence("away"));
    let wire = resumes(&mut juliet, 0).delivered("home");
    let statuses: Vec<bool> = wire.iter().map(|xml| xml.contains("<status>here")).collect();
    assert_eq!(statuses, [false; 4], "{wire:?}");
    assert!(wire[0].contains("<status>sent") && wire[3].contains("<status>away"), "{wire:?}");
    assert!(faults(&juliet.acks("home", 4)).is_empty());
}

// XEP-0352 §5.2.
#[test]
fn a_resumed_stream_is_active() {
    let mut juliet = juliet().having("home", |s| s.inactive = true);
    juliet.loses("home", 0, 0);
    resumes(&mut juliet, 0);
    assert!(!juliet.sessions[0].inactive);
}

// XEP-0198 §5: "SHOULD send a 'conflict' stream error and close that stream".
#[test]
fn a_stream_that_is_still_open_is_closed_before_its_session_is_resumed() {
    let mut juliet = juliet();
    juliet.receive(&chat("1"));
    let old = juliet.edge("home");
    let fx = resumes(&mut juliet, 0);
    assert_eq!(faults(&fx), [StreamFault::ReplacedByNewSession]);
    assert_eq!(resumed(&fx), None);
    // What comes meanwhile is not lost, nor out of order.
    juliet.receive(&chat("2"));
    let session = juliet.id("home");
    let reason = DetachReason::Fault;
    let fx = juliet.item(Item::Detached { session, edge: old, reason, deliveries: 1, received: 5 });
    assert_eq!(resumed(&fx), Some((5, 0)));
    assert_eq!(bodies(&fx, "home"), ["1", "2"]);
    assert_eq!(juliet.sessions[0].edge, Some(NEW));
}

#[test]
fn of_two_streams_that_resume_at_once_the_later_one_wins() {
    let mut juliet = juliet();
    let old = juliet.edge("home");
    resumes(&mut juliet, 0);
    let fx = juliet.item(Item::Resume { edge: EdgeRef(901), id: "sm1".into(), h: 0 });
    assert!(matches!(
        fx.list[..],
        [Effect::Edge { edge: NEW, item: EdgeItem::Close(StreamFault::ReplacedByNewSession) }]
    ));
    let session = juliet.id("home");
    let reason = DetachReason::Fault;
    juliet.item(Item::Detached { session, edge: old, reason, deliveries: 0, received: 0 });
    assert_eq!(juliet.sessions[0].edge, Some(EdgeRef(901)));
}

#[test]
fn an_unknown_id_is_not_resumed() {
    let mut juliet = juliet();
    let fx = juliet.item(Item::Resume { edge: NEW, id: "other".into(), h: 0 });
    assert_eq!(refused(&fx), Some(None));
    assert_eq!(juliet.sessions.len(), 1);
}

// XEP-0198 §5, example 14.
#[test]
fn a_client_that_comes_too_late_hears_what_was_received() {
    let mut juliet = juliet();
    juliet.loses("home", 0, 23);
    assert_eq!(juliet.after_ms(299_999).told_to().len(), 0);
    assert_eq!(juliet.sessions.len(), 1);
    juliet.after_ms(1);
    assert!(juliet.sessions.is_empty());
    assert_eq!(refused(&resumes(&mut juliet, 0)), Some(Some(23)));
}

#[test]
fn whoever_was_not_told_of_an_error_hears_nothing_of_what_was_received() {
    let mut juliet = juliet();
    let session = juliet.id("home");
    juliet.loses("home", 0, 23);
    juliet.receive("<message type='error' id='m23' from='romeo@montague.example' to='juliet@capulet.example/home'/>");
    juliet.item(Item::Settled { session, received: 23 });
    let rows = rows(&juliet.after_ms(1_000));
    assert!(rows.iter().all(|row| row.received.is_none()), "{rows:?}");
    juliet.after_ms(300_000);
    assert_eq!(refused(&resumes(&mut juliet, 0)), Some(None));
}

#[test]
fn resuming_with_a_count_too_high_ends_the_new_stream_and_leaves_the_session() {
    let mut juliet = juliet();
    juliet.loses("home", 0, 0);
    let fx = resumes(&mut juliet, 9);
    assert_eq!(faults(&fx), [StreamFault::AckTooHigh { h: 9, sent: 0 }]);
    assert!(juliet.sessions[0].edge.is_none());
    assert_eq!(resumed(&resumes(&mut juliet, 0)), Some((0, 0)));
}

// LIMITS.md: 8 hibernated sessions.
#[test]
fn of_too_many_waiting_sessions_the_oldest_ends() {
    let mut juliet = account(JULIET);
    for n in 0..9 {
        let resource = format!("r{n}");
        juliet = juliet.with(&resource, 0);
        let session = juliet.id(&resource);
        let id = format!("sm-{n}").into();
        juliet.item(Item::Manage { session, request: ManagementRequest { resume: true, max: None, id } });
        juliet.now.mono_ms += 1;
        juliet.loses(&resource, 0, 0);
    }
    assert_eq!(juliet.sessions.len(), 8);
    assert!(juliet.sessions.iter().all(|s| s.jid.resource_str() != "r0"));
}

// XEP-0198 §4: "delivery to an alternate resource".
#[test]
fn what_an_ended_session_did_not_acknowledge_is_read_for_another_resource() {
    let mut juliet = juliet().with("phone", -1);
    let after = juliet.receive(&chat("1")).appended()[0].position - 1;
    juliet.loses("home", 1, 0);
    let juliet = juliet.having("phone", |s| s.priority = 0);
    let mut juliet = juliet;
    let fx = juliet.after_ms(300_000);
    assert!(fx.list.iter().any(|e| matches!(e, Effect::ReadPending { after: a, .. } if *a == after)), "{:?}", fx.list);
}

// XEP-0198 §4, RFC 6121 §8.5.3.2.3.
#[test]
fn an_iq_that_an_ended_session_did_not_acknowledge_is_answered_with_an_error() {
    let mut juliet = juliet().having("home", |s| s.directed.push(crate::testing::jid("romeo@montague.example/x")));
    let iq = "<iq type='get' id='i1' from='romeo@montague.example/x' to='juliet@capulet.example/home'>\
        <query xmlns='jabber:iq:version'/></iq>";
    assert_eq!(juliet.receive(iq).written_to(), ["home"]);
    juliet.loses("home", 1, 0);
    let fx = juliet.after_ms(300_000);
    let told = fx.told();
    let error = told.iter().find(|(_, xml)| xml.starts_with("<iq")).expect("an answer");
    assert_eq!(error.0, "romeo@montague.example/x");
    assert!(error.1.contains("<service-unavailable") && error.1.contains("id='i1'"), "{error:?}");
}

#[test]
fn presence_that_an_ended_session_did_not_acknowledge_is_dropped() {
    let mut juliet = juliet().with("phone", 0);
    juliet.receive(&presence("here"));
    juliet.loses("home", 1, 0);
    let fx = juliet.after_ms(300_000);
    assert!(fx.delivered("phone").iter().all(|xml| !xml.contains("<status>here")), "{:?}", fx.list);
}

#[test]
fn what_was_queued_before_management_was_enabled_is_not_counted() {
    let mut juliet = account(JULIET).with("home", 0);
    let early = juliet.receive(&chat("1")).appended()[0].position;
    let session = juliet.id("home");
    juliet.item(Item::Manage { session, request: asked(true, None) });
    juliet.receive(&chat("2"));
    assert_eq!(faults(&juliet.acks("home", 2)), [StreamFault::AckTooHigh { h: 2, sent: 1 }]);
    let edge = juliet.edge("home");
    juliet.item(Item::Written { session, edge, deliveries: 1 });
    assert_eq!(juliet.after_ms(1_000).taken(), [early]);
}
