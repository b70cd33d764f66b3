//! Rosters, requests and blocks.

use super::{Subject, done, item, jid, juliet, load, romeo, with_juliet};
use crate::*;

pub fn a_roster_item_is_put_and_replaced_and_deleted_under_a_version<S: Subject>() {
    let subject = with_juliet::<S>();
    let nurse = item("nurse@capulet.example", 1);
    let mut romeo = item("romeo@montague.example", 2);
    let put = |item: &RosterItem| Change::RosterPut { account: juliet(), item: item.clone(), version: item.version };
    done(&subject, vec![put(&romeo), put(&nurse)]);
    romeo = RosterItem {
        name: None,
        groups: vec![],
        subscription: Subscription { approved: true, from: true, ..Subscription::default() },
        listed: false,
        version: 3,
        ..romeo
    };
    done(&subject, vec![put(&romeo)]);
    let loaded = load(&subject);
    assert_eq!((loaded.roster, loaded.roster_version), (vec![nurse.clone(), romeo.clone()], 3));
    done(&subject, vec![Change::RosterDelete { account: juliet(), contact: romeo.jid, version: 4 }]);
    let loaded = load(&subject);
    assert_eq!((loaded.roster, loaded.roster_version), (vec![nurse], 4));
}

pub fn of_a_contacts_requests_the_latest_is_kept<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |stanza: &[u8], received| Change::RequestPut {
        account: juliet(),
        contact: romeo(),
        stanza: stanza.to_vec(),
        received: Stamp(received),
    };
    done(&subject, vec![put(b"first", 1), put(b"second", 2)]);
    assert_eq!(load(&subject).requests, [(romeo(), b"second".to_vec(), Stamp(2))]);
    done(&subject, vec![Change::RequestDelete { account: juliet(), contact: romeo() }]);
    assert_eq!(load(&subject).requests, []);
}

pub fn blocks_are_kept_once_each<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |text| Change::BlockPut { account: juliet(), jid: jid(text) };
    done(
        &subject,
        vec![
            put("tybalt@capulet.example"),
            put("montague.example/x"),
            put("montague.example"),
            put("montague.example"),
        ],
    );
    assert_eq!(
        load(&subject).blocks,
        [jid("montague.example"), jid("montague.example/x"), jid("tybalt@capulet.example")]
    );
    done(&subject, vec![Change::BlockDelete { account: juliet(), jid: jid("montague.example") }]);
    assert_eq!(load(&subject).blocks, [jid("montague.example/x"), jid("tybalt@capulet.example")]);
}
