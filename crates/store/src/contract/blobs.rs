//! Blobs, and those that are loaded with the account.

use super::{Subject, done, juliet, load, wait, with_juliet};
use crate::*;

pub fn a_blob_is_kept_under_its_space_and_key<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |space: &str, key: &str, value: &[u8]| Change::BlobPut {
        account: juliet(),
        space: space.into(),
        key: key.into(),
        value: value.to_vec(),
    };
    done(&subject, vec![put("private", "a", b"1"), put("private", "b", b"2"), put("private", "a", b"3")]);
    let blob = |space: &'static str, key: &'static str| {
        wait(subject.store().blob(&juliet(), space, key)).expect("the store reads")
    };
    assert_eq!(
        (blob("private", "a"), blob("private", "b"), blob("vcard", "a")),
        (Some(b"3".to_vec()), Some(b"2".to_vec()), None)
    );
    done(&subject, vec![Change::BlobDelete { account: juliet(), space: "private".into(), key: "a".into() }]);
    assert_eq!(blob("private", "a"), None);
}

pub fn the_photo_hash_is_loaded_with_the_account<S: Subject>() {
    let subject = with_juliet::<S>();
    let (space, key) = PHOTO_HASH;
    done(
        &subject,
        vec![Change::BlobPut { account: juliet(), space: space.into(), key: key.into(), value: b"a9993e36".to_vec() }],
    );
    assert_eq!(load(&subject).photo_hash.as_deref(), Some("a9993e36"));
}

pub fn settings_are_loaded_with_the_account<S: Subject>() {
    let subject = with_juliet::<S>();
    let put = |space: &str, key: &str, value: u8| Change::BlobPut {
        account: juliet(),
        space: space.into(),
        key: key.into(),
        value: vec![value],
    };
    done(&subject, vec![put(SETTINGS, "b", 1), put(SETTINGS, "a", 2), put("private", "all", 3), put(SETTINGS, "b", 4)]);
    assert_eq!(load(&subject).settings, [("a".into(), vec![2]), ("b".into(), vec![4])]);
}
