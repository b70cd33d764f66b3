//! Accounts: created once, found, disabled, listed, removed with all that they had; their sessions and tokens.

use super::{
    Subject, append, bare, commit, create, credentials, done, inbox, item, jid, juliet, load, record, romeo, wait,
    with_juliet,
};
use crate::*;

fn credentials_of<S: Subject>(subject: &S, account: &BareJid) -> Result<Option<Credentials>, StoreError> {
    wait(subject.store().login(account)).map(|found| found.map(|login| login.credentials))
}

fn session(resource: &str, epoch: u64) -> SessionRow {
    SessionRow {
        resource: resource.into(),
        epoch,
        resume_id_hash: vec![7; 32],
        presence: b"<presence/>".to_vec(),
        directed: vec![jid("romeo@montague.example/garden"), jid("nurse@capulet.example")],
        since: Stamp(5),
        received: Some(u32::MAX),
    }
}

pub fn an_account_that_was_created_is_found<S: Subject>() {
    let subject = with_juliet::<S>();
    let expected = AccountRecord { created: Stamp(1_000_000), ..AccountRecord::default() };
    assert_eq!(load(&subject), expected);
    assert_eq!(wait(subject.store().load_account(&romeo())), Ok(None));
}

pub fn an_account_is_created_once<S: Subject>() {
    let subject = with_juliet::<S>();
    let again = Change::AccountCreate { account: juliet(), credentials: credentials(2), created: Stamp(2) };
    assert_eq!(commit(subject.store(), vec![again]), Ok(vec![Outcome::Exists]));
    assert_eq!(load(&subject).created, Stamp(1_000_000));
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(credentials(1))));
}

pub fn an_unknown_account_is_answered_and_the_rest_of_the_call_is_done<S: Subject>() {
    let subject = with_juliet::<S>();
    let changes = vec![
        Change::Append { account: romeo(), record: record(1) },
        append(record(1)),
        Change::AccountRemove { account: romeo() },
        Change::BlockPut { account: romeo(), jid: jid("tybalt@capulet.example") },
        Change::CredentialsSet { account: romeo(), credentials: credentials(3) },
    ];
    use Outcome::{Done, NoAccount};
    assert_eq!(commit(subject.store(), changes), Ok(vec![NoAccount, Done, NoAccount, NoAccount, NoAccount]));
    assert_eq!(inbox(&subject), [1]);
    assert_eq!(credentials_of(&subject, &romeo()), Ok(None));
}

pub fn a_removed_account_leaves_nothing_to_the_next_of_its_name<S: Subject>() {
    let subject = with_juliet::<S>();
    let key = Some([4; 16]);
    let token = Token {
        client: "c".into(),
        mechanism: "HT-SHA-256-NONE".into(),
        secret: vec![1],
        expires: Stamp(9),
        previous: None,
        count: 0,
    };
    done(
        &subject,
        vec![
            append(Record { dedupe: key, ..record(50) }),
            Change::RosterPut { account: juliet(), item: item("nurse@capulet.example", 3), version: 3 },
            Change::RequestPut { account: juliet(), contact: romeo(), stanza: vec![1], received: Stamp(1) },
            Change::SessionPut { account: juliet(), row: session("balcony", 0) },
            Change::BlobPut { account: juliet(), space: "s".into(), key: "k".into(), value: vec![1] },
            Change::BlockPut { account: juliet(), jid: jid("tybalt@capulet.example") },
            Change::TokenPut { account: juliet(), token },
            Change::LastActivity { account: juliet(), left: Stamp(1), status: "gone".into() },
            Change::AccountRemove { account: juliet() },
            Change::AccountCreate { account: juliet(), credentials: credentials(2), created: Stamp(2) },
            append(Record { dedupe: key, ..record(3) }),
        ],
    );
    let expected = AccountRecord {
        created: Stamp(2),
        last_position: 3,
        pending: vec![3],
        pending_bytes: record(3).stanza.len() as u64,
        ..AccountRecord::default()
    };
    assert_eq!(load(&subject), expected);
    assert_eq!(inbox(&subject), [3]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![]));
    assert_eq!(wait(subject.store().tokens(&juliet(), "c")), Ok(vec![]));
    assert_eq!(wait(subject.store().blob(&juliet(), "s", "k")), Ok(None));
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(credentials(2))));
}

pub fn credentials_are_replaced_as_a_whole<S: Subject>() {
    let subject = with_juliet::<S>();
    let only_sha256 = Credentials { scram_sha1: None, ..credentials(2) };
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: only_sha256.clone() }]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(only_sha256)));
}

pub fn keys_are_added_beside_those_of_the_same_password_alone<S: Subject>() {
    let subject = with_juliet::<S>();
    let (old, more) = (credentials(2), credentials(3));
    let only_sha1 = Credentials { scram_sha256: None, ..old.clone() };
    let add = |beside: &[u8]| Change::CredentialsAdd {
        account: juliet(),
        keys: Credentials { scram_sha1: None, ..more.clone() },
        beside: beside.to_vec(),
    };
    let all = |subject: &S| wait(subject.store().key_figures()).expect("the store reads");
    let figures = |subject: &S| all(subject).get("capulet.example").copied().unwrap_or_default();
    let stored = old.scram_sha1.as_ref().map(|keys| keys.stored_key.clone()).unwrap_or_default();
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: only_sha1.clone() }]);
    assert_eq!(figures(&subject), KeyFigures { sha1_alone: 1, ..KeyFigures::default() });
    let hosts: Vec<_> = all(&subject).into_keys().collect();
    assert_eq!(hosts, [Box::from("capulet.example")], "no other host has accounts");
    done(&subject, vec![add(b"of another password")]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(only_sha1.clone())));
    done(&subject, vec![add(&stored)]);
    let both = Credentials { scram_sha256: more.scram_sha256.clone(), ..only_sha1 };
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(both.clone())));
    assert_eq!(figures(&subject), KeyFigures { both: 1, ..KeyFigures::default() });
    // What is there is not replaced.
    let again = Change::CredentialsAdd { account: juliet(), keys: credentials(4), beside: stored };
    done(&subject, vec![again]);
    assert_eq!(credentials_of(&subject, &juliet()), Ok(Some(both)));
}

pub fn a_disabled_account_is_known_as_such<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![Change::AccountDisable { account: juliet(), disabled: true }]);
    assert!(load(&subject).disabled);
    assert!(wait(subject.store().login(&juliet())).is_ok_and(|found| found.is_some_and(|login| login.disabled)));
    done(&subject, vec![Change::AccountDisable { account: juliet(), disabled: false }]);
    assert!(!load(&subject).disabled);
    assert!(wait(subject.store().login(&juliet())).is_ok_and(|found| found.is_some_and(|login| !login.disabled)));
}

pub fn the_last_activity_is_kept<S: Subject>() {
    let subject = with_juliet::<S>();
    let left = |at, status: &str| Change::LastActivity { account: juliet(), left: Stamp(at), status: status.into() };
    done(&subject, vec![left(1, "asleep")]);
    done(&subject, vec![left(2, "")]);
    assert_eq!(load(&subject).last_activity, Some((Stamp(2), "".into())));
}

pub fn accounts_are_listed_by_name_a_host_at_a_time<S: Subject>() {
    let subject = S::fresh();
    let names = ["tybalt@capulet.example", "juliet@capulet.example", "romeo@montague.example", "nurse@capulet.example"];
    done(&subject, names.map(create).to_vec());
    done(
        &subject,
        vec![
            Change::AccountDisable { account: bare("tybalt@capulet.example"), disabled: true },
            Change::LastActivity { account: juliet(), left: Stamp(4), status: "".into() },
        ],
    );
    let list = |after, limit| wait(subject.store().accounts("capulet.example", after, limit)).expect("the store reads");
    let summary = |name, disabled, last_activity| AccountSummary {
        account: bare(name),
        created: Stamp(1_000_000),
        disabled,
        last_activity,
    };
    let nurse = summary("nurse@capulet.example", false, None);
    assert_eq!(list("", 2), [summary("juliet@capulet.example", false, Some(Stamp(4))), nurse.clone()]);
    assert_eq!(list("juliet", 10), [nurse, summary("tybalt@capulet.example", true, None)]);
    assert_eq!(list("nurse@capulet.example", 10).len(), 1);
    assert_eq!(list("tybalt", 10), []);
}

pub fn a_session_of_this_epoch_is_in_no_ledger<S: Subject>() {
    let subject = with_juliet::<S>();
    done(&subject, vec![Change::SessionPut { account: juliet(), row: session("balcony", subject.store().epoch()) }]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![]));
    assert_eq!(load(&subject).sessions, []);
}

pub fn a_session_of_an_earlier_epoch_is_in_the_ledger_until_deleted<S: Subject>() {
    let subject = with_juliet::<S>();
    let epoch = subject.store().epoch();
    let put = |row: &SessionRow| Change::SessionPut { account: juliet(), row: row.clone() };
    let balcony = session("balcony", epoch);
    let chamber = SessionRow { directed: vec![], presence: vec![], received: None, ..session("chamber", epoch) };
    done(&subject, vec![put(&chamber), put(&SessionRow { presence: vec![], ..balcony.clone() }), put(&balcony)]);
    let subject = subject.reopened();
    let mut ledger = wait(subject.store().session_ledger()).expect("the store reads");
    ledger.sort_by(|a, b| a.1.resource.cmp(&b.1.resource));
    assert_eq!(ledger, [(juliet(), balcony.clone()), (juliet(), chamber.clone())]);
    assert_eq!(load(&subject).sessions, [balcony.clone(), chamber.clone()]);
    let forget = |resource: &str| Change::ReceivedDelete { account: juliet(), resource: resource.into() };
    done(&subject, vec![forget("balcony"), forget("nowhere")]);
    assert_eq!(load(&subject).sessions, [SessionRow { received: None, ..balcony }, chamber.clone()]);
    done(&subject, vec![Change::SessionDelete { account: juliet(), resource: "balcony".into() }]);
    assert_eq!(wait(subject.store().session_ledger()), Ok(vec![(juliet(), chamber)]));
}

pub fn tokens_are_kept_by_client_and_mechanism<S: Subject>() {
    let subject = with_juliet::<S>();
    let token = |client: &str, mechanism: &str, count| Token {
        client: client.into(),
        mechanism: mechanism.into(),
        secret: vec![count as u8; 32],
        expires: Stamp(9),
        previous: (count > 1).then(|| (vec![3; 32], Stamp(4))),
        count,
    };
    let put = |token| Change::TokenPut { account: juliet(), token };
    done(&subject, vec![put(token("phone", "HT-A", 1)), put(token("phone", "HT-B", 1)), put(token("desk", "HT-A", 1))]);
    done(&subject, vec![put(token("phone", "HT-A", 2))]);
    let tokens = |client| wait(subject.store().tokens(&juliet(), client)).expect("the store reads");
    assert_eq!(tokens("phone"), [token("phone", "HT-A", 2), token("phone", "HT-B", 1)]);
    done(&subject, vec![Change::TokenDelete { account: juliet(), client: "phone".into(), mechanism: "HT-A".into() }]);
    assert_eq!(tokens("phone"), [token("phone", "HT-B", 1)]);
    assert_eq!(tokens("desk"), [token("desk", "HT-A", 1)]);
    assert_eq!(wait(subject.store().tokens(&romeo(), "phone")), Ok(vec![]));
    // What was given for the old password is good no more.
    done(&subject, vec![Change::CredentialsSet { account: juliet(), credentials: credentials(7) }]);
    assert_eq!((tokens("phone"), tokens("desk")), (vec![], vec![]));
}

pub fn an_account_has_so_many_tokens_and_those_that_expire_first_go<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |n: usize, expires: i64| {
        let token = Token {
            client: format!("client {n}").into(),
            mechanism: "HT-A".into(),
            secret: vec![1; 32],
            expires: Stamp(expires),
            previous: None,
            count: 0,
        };
        done(&subject, vec![Change::TokenPut { account: juliet(), token }]);
    };
    let there = |n: usize| {
        let tokens = wait(subject.store().tokens(&juliet(), &format!("client {n}"))).expect("the store reads");
        tokens.len()
    };
    (0..TOKENS_PER_ACCOUNT_MAX).for_each(|n| put(n, 1_000 - n as i64));
    put(TOKENS_PER_ACCOUNT_MAX, 2_000);
    assert_eq!(there(TOKENS_PER_ACCOUNT_MAX - 1), 0, "it would have expired first");
    assert_eq!((there(0), there(TOKENS_PER_ACCOUNT_MAX - 2), there(TOKENS_PER_ACCOUNT_MAX)), (1, 1, 1));
    // The same one anew takes nobody's place.
    put(0, 3_000);
    assert_eq!(there(TOKENS_PER_ACCOUNT_MAX - 2), 1);
}

pub fn figures_count<S: Subject>() {
    let subject = with_juliet::<S>();
    done(
        &subject,
        vec![create("romeo@montague.example"), append(record(1)), append(Record { archived: false, ..record(2) })],
    );
    let figures = subject.store().figures();
    assert_eq!((figures.accounts, figures.inbox_records, figures.queued_changes, figures.quarantined), (2, 2, 0, 0));
    assert_eq!((figures.commits, figures.changes), (2, 4));
    done(
        &subject,
        vec![Change::Taken { account: juliet(), positions: vec![2] }, Change::AccountRemove { account: romeo() }],
    );
    let figures = subject.store().figures();
    assert_eq!((figures.accounts, figures.inbox_records), (1, 1));
}
