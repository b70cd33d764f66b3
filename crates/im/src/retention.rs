//! What leaves the log by age and size: a look at it when a session is bound, then at most once an hour with a batch of
//! marks, or sooner where much is written. The store counts and deletes, see [`Change::Trim`].

use crate::account::Account;
use crate::effects::Effects;
use crate::inbox;
use store::{Change, TRIM_MAX};
use xmpp::Stamp;

const HOUR_MS: u64 = 3_600_000;
/// So many records more are looked at before the hour is over: half of what one look can delete, so that it keeps up.
const APPENDED_MAX: usize = TRIM_MAX / 2;
const DAY_SECONDS: i64 = 24 * 3600;

#[derive(Debug, Default)]
pub struct Retention {
    /// Monotonic milliseconds of the next look; 0 at load.
    next_at: u64,
    /// Records since the last.
    appended: usize,
}

impl Retention {
    pub(crate) fn appended(&mut self) {
        self.appended += 1;
    }

    pub(crate) fn trimmed(&mut self, mono_ms: u64) {
        *self = Retention { next_at: mono_ms + HOUR_MS, appended: 0 };
    }

    fn is_due(&self, mono_ms: u64) -> bool {
        self.next_at <= mono_ms || self.appended >= APPENDED_MAX
    }
}

/// If it is time, the next batch looks at the log.
pub(crate) fn look(account: &mut Account, fx: &mut Effects) {
    if account.retention.is_due(account.now.mono_ms) {
        inbox::batch_soon(account, fx);
    }
}

/// The change that cuts the log, if it is time.
pub(crate) fn trim(account: &mut Account) -> Option<Change> {
    let now = account.now;
    if !account.retention.is_due(now.mono_ms) {
        return None;
    }
    account.retention.trimmed(now.mono_ms);
    let limits = &account.policy.limits;
    let Stamp(before) = now.utc.plus_seconds(-i64::from(limits.archive_days_max) * DAY_SECONDS);
    let (records_max, bytes_max) = (limits.archive_records_max, limits.archive_bytes_max);
    Some(Change::Trim { account: account.jid.clone(), before, records_max, bytes_max })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{START, Scene, account};

    fn juliet() -> Scene {
        account("juliet@capulet.example").with("home", 0)
    }

    fn is_written_to(scene: &mut Scene, n: usize) {
        for i in 0..n {
            let text = format!("<body>{i}</body><no-copy xmlns='urn:xmpp:hints'/>");
            scene.receive(&format!("<message type='chat' from='romeo@montague.example/x'>{text}</message>"));
            scene.writes_all("home");
        }
    }

    fn trims(scene: &mut Scene, ms: u64) -> Vec<Change> {
        let commits = scene.after_ms(ms).commits();
        commits.into_iter().filter(|change| matches!(change, Change::Trim { .. })).collect()
    }

    #[test]
    fn the_log_is_cut_with_a_batch_at_most_once_an_hour() {
        let mut juliet = juliet().policy(|policy| {
            policy.limits.archive_days_max = 10;
            policy.limits.archive_records_max = Some(70);
            policy.limits.archive_bytes_max = 4_000;
        });
        is_written_to(&mut juliet, 1);
        assert_eq!(trims(&mut juliet, 1_000), []);
        juliet.after_ms(HOUR_MS);
        is_written_to(&mut juliet, 2);
        let trimmed = trims(&mut juliet, 1_000);
        let before = START.plus_seconds(3_602 - 10 * DAY_SECONDS).0;
        let trim = Change::Trim { account: juliet.jid.clone(), before, records_max: Some(70), bytes_max: 4_000 };
        assert_eq!(trimmed, [trim]);
        is_written_to(&mut juliet, 2);
        assert_eq!(trims(&mut juliet, 1_000), []);
    }

    #[test]
    fn where_much_is_written_the_log_is_cut_sooner() {
        let mut juliet = juliet();
        is_written_to(&mut juliet, APPENDED_MAX);
        assert_eq!(trims(&mut juliet, 1_000).len(), 1);
        assert_eq!(trims(&mut juliet, 1_000), []);
    }

    #[test]
    fn an_account_that_was_just_loaded_is_looked_at_when_a_session_is_bound() {
        let mut juliet = juliet();
        juliet.account.retention = Retention::default();
        let mut fx = Effects::default();
        look(&mut juliet.account, &mut fx);
        assert_eq!(trims(&mut juliet, 1_000).len(), 1);
    }
}
