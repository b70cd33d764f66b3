//! Messages that wait until nobody wants them any more: a recipient that comes finds out itself ([`im::inbox`]); for
//! those that do not come all that waits is looked through, so that senders who asked hear what became of theirs.

use super::House;
use im::Item;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use store::{Record, StoreError};
use tokio::time::{Instant, sleep};
use xmpp::{BareJid, Stamp};

/// Between two rounds, at least.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(60);
/// A round is followed by a pause that is so many times as long: it takes next to nothing of the store.
const PAUSE_TIMES: u32 = 200;
/// Records looked at in one read.
const PAGE: usize = 500;
const DAY_SECONDS: i64 = 24 * 3_600;

/// Round by round until the house is dropped.
pub async fn carry(house: Arc<House>) {
    loop {
        sleep(BETWEEN_ROUNDS).await;
        let began = Instant::now();
        if let Err(error) = round(&house).await {
            tracing::warn!(?error, "what waits could not be looked through; it is tried again");
        }
        sleep(began.elapsed() * PAUSE_TIMES).await;
    }
}

/// All that waits, once.
async fn round(house: &Arc<House>) -> Result<(), StoreError> {
    let now = house.now().utc;
    let days = i64::from(house.config.read().limits.offline_days_max);
    let before = if days > 0 { now.plus_seconds(-days * DAY_SECONDS) } else { Stamp(i64::MIN) };
    let mut behind = None;
    loop {
        let page = house.store.overdue(behind, PAGE, now, before).await?;
        let mut of_accounts: BTreeMap<BareJid, Vec<Record>> = BTreeMap::new();
        for (account, record) in page.records {
            of_accounts.entry(account).or_default().push(record);
        }
        for (account, records) in of_accounts {
            house.post(&account, Item::Overdue { records });
        }
        match page.next {
            Some(next) => behind = Some(next),
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{create, house, juliet, record};
    use store::{Change, Store};

    #[tokio::test(start_paused = true)]
    async fn a_message_that_nobody_comes_for_in_time_waits_no_longer() {
        let (house, memory) = house();
        create(&house).await;
        let now = house.now().utc;
        let waits = |position, expires| Record { pending: true, expires, ..record(position) };
        for record in [waits(now.0, Some(now)), waits(now.0 + 1, None)] {
            house.commit(&juliet(), vec![Change::Append { account: juliet(), record }]).await.expect("it grows");
        }
        round(&house).await.expect("memory fails not");
        // Marks are cleared within a second, or before the end.
        house.post(&juliet(), Item::ShutDown { ticket: im::Ticket::default() });
        let pending = async || memory.inbox_after(&juliet(), 0, true, 10).await.expect("memory fails not");
        for _ in 0..100 {
            if pending().await.len() < 2 {
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        let left: Vec<i64> = pending().await.iter().map(|record| record.position).collect();
        assert_eq!(left, [now.0 + 1]);
    }
}
