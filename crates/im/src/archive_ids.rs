//! Positions of the log as clients know them. XEP-0313 §2: an id "MUST be unpredictable and unique within the archive".
//!
//! A position is a time, more or less. Its id is the position under a keyed permutation of 64 bits: unique as the
//! position is, of one size, and read back without an index. The key is the account's own and stays with it.

use crate::account::Account;
use crate::effects::Effects;
use crate::item::Ticket;
use crate::module::Iq;
use sha2::{Digest, Sha256};
use store::{Change, SETTINGS};

/// Where the key is kept, in the space of settings.
pub const KEY: &str = "archive ids";
pub type Key = [u8; 32];

/// Of a Feistel network: four make a permutation that nobody without the key tells from a random one, asked both ways
/// (Luby and Rackoff).
const ROUNDS: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveIds {
    key: Secret,
    /// Is the key in the store? Until then it goes there with the next append.
    stored: bool,
}

/// Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Secret(Key);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl ArchiveIds {
    /// For an account that has none: random, from the house.
    pub fn fresh(key: Key) -> ArchiveIds {
        ArchiveIds { key: Secret(key), stored: false }
    }

    /// As it was stored. `None` if it is not there.
    pub fn from_stored(value: Option<&[u8]>) -> Option<ArchiveIds> {
        Some(ArchiveIds { key: Secret(value?.try_into().ok()?), stored: true })
    }

    pub fn is_stored(&self) -> bool {
        self.stored
    }

    /// The same, to be stored anew: the commit that held it failed, or it was not committed yet.
    pub(crate) fn unstored(self) -> ArchiveIds {
        ArchiveIds { stored: false, ..self }
    }

    fn round(&self, round: u8, half: u32) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.key.0);
        hash.update([round]);
        hash.update(half.to_be_bytes());
        hash.finalize().iter().take(4).fold(0, |word, byte| word << 8 | u32::from(*byte))
    }

    /// What a client is told; sixteen hexadecimal digits as text.
    pub fn id(&self, position: i64) -> u64 {
        let position = position as u64;
        let (mut left, mut right) = ((position >> 32) as u32, position as u32);
        for round in 0..ROUNDS {
            (left, right) = (right, left ^ self.round(round, right));
        }
        u64::from(left) << 32 | u64::from(right)
    }

    pub fn text(&self, position: i64) -> String {
        format!("{:016x}", self.id(position))
    }

    /// The position behind an id. `None` for what no id looks like. (An id that was never told leads nowhere.)
    pub fn position(&self, text: &str) -> Option<i64> {
        let is_hex = text.len() == 16 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let id = u64::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        let (mut left, mut right) = ((id >> 32) as u32, id as u32);
        for round in (0..ROUNDS).rev() {
            (left, right) = (right ^ self.round(round, left), left);
        }
        Some((u64::from(left) << 32 | u64::from(right)) as i64)
    }
}

/// The change that keeps the key, if it is not kept yet: with the first ids that are told.
pub(crate) fn keep(account: &mut Account) -> Option<Change> {
    if account.archive_ids.stored {
        return None;
    }
    account.archive_ids.stored = true;
    let value = account.archive_ids.key.0.to_vec();
    Some(Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key: KEY.into(), value })
}

/// The same by a commit of its own, before ids are told that a process before this one made. If it fails, `iq` is
/// answered with the error: what it asks stands behind this, and does not happen.
pub(crate) fn keep_now(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) {
    let change = keep(account);
    if let Some(change) = change {
        fx.commit(vec![change], Some(iq.stanza), &Ticket::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn an_id_leads_back_to_its_position(position: i64, key: Key) {
            let ids = ArchiveIds::fresh(key);
            prop_assert_eq!(ids.position(&ids.text(position)), Some(position));
        }

        #[test]
        fn what_is_no_id_leads_nowhere(text in "[0-9A-Fa-f+ -]{0,20}") {
            let ids = ArchiveIds::fresh([1; 32]);
            if let Some(position) = ids.position(&text) {
                prop_assert_eq!(ids.text(position), text);
            }
        }
    }

    #[test]
    fn ids_of_one_second_share_nothing_that_could_be_guessed() {
        let ids = ArchiveIds::fresh([7; 32]);
        let told: Vec<u64> = (0..1_000).map(|n| ids.id(1_767_225_600_000_000 + n)).collect();
        assert_eq!(told.iter().collect::<BTreeSet<_>>().len(), 1_000);
        // Neighbours differ in half of their bits, more or less, and are in no order.
        let differing: u32 = told.windows(2).map(|pair| (pair[0] ^ pair[1]).count_ones()).sum();
        assert!((31_000..33_000).contains(&differing), "{differing}");
        let ascents = told.windows(2).filter(|pair| pair[0] < pair[1]).count();
        assert!((430..570).contains(&ascents), "{ascents}");
    }

    #[test]
    fn each_account_has_its_own() {
        assert_ne!(ArchiveIds::fresh([1; 32]).id(5), ArchiveIds::fresh([2; 32]).id(5));
    }
}
