//! What waits for other domains.

use super::{Subject, bare, done, wait};
use crate::*;

fn outbox<S: Subject>(subject: &S, after: i64, limit: usize) -> Vec<i64> {
    let rows = wait(subject.store().outbox(after, limit)).expect("the store reads");
    rows.into_iter().map(|row| row.id).collect()
}

/// The local domain is no account.
pub fn what_waits_for_other_domains_is_read_in_order_until_deleted<S: Subject>() {
    let subject = S::fresh();
    let local = bare("capulet.example");
    let row = |id| OutboxRow {
        id,
        local: local.clone(),
        remote: "montague.example".into(),
        accepted: Stamp(id),
        stanza: b"<message/>".to_vec(),
    };
    done(&subject, vec![Change::OutboxPut { row: row(7) }, Change::OutboxPut { row: row(5) }]);
    let again = OutboxRow { stanza: b"<iq/>".to_vec(), ..row(5) };
    done(&subject, vec![Change::OutboxPut { row: again }, Change::OutboxPut { row: row(9) }]);
    let subject = subject.reopened();
    assert_eq!(wait(subject.store().outbox(4, 1)), Ok(vec![row(5)]));
    assert_eq!(outbox(&subject, 5, 10), [7, 9]);
    done(&subject, vec![Change::OutboxDelete { local: local.clone(), ids: vec![5, 9, 11] }]);
    assert_eq!(outbox(&subject, i64::MIN, 10), [7]);
}

pub fn a_domain_is_remembered_as_last_reached<S: Subject>() {
    let subject = S::fresh();
    let local = bare("capulet.example");
    let reached =
        |remote: &str, at| Change::DomainReached { local: local.clone(), remote: remote.into(), at: Stamp(at) };
    done(&subject, vec![reached("montague.example", 1), reached("verona.example", 2), reached("montague.example", 3)]);
    let subject = subject.reopened();
    let mut found = wait(subject.store().domains_reached()).expect("the store reads");
    found.sort();
    let of = |remote: &str, at| (local.clone(), Box::from(remote), Stamp(at));
    assert_eq!(found, [of("montague.example", 3), of("verona.example", 2)]);
}
