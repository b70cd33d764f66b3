//! Archives of those who do not come any more: accounts in use cut their own archive ([`im::retention`]); once a day the
//! others are looked at, one after the other.

use super::House;
use std::sync::Arc;
use std::time::Duration;
use store::{AccountSummary, Change};
use tokio::time::sleep;
use xmpp::Stamp;

const BEFORE_THE_FIRST_ROUND: Duration = Duration::from_secs(3_600);
const BETWEEN_ROUNDS: Duration = Duration::from_secs(24 * 3_600);
/// Between two accounts: nobody waits for this.
const PAUSE: Duration = Duration::from_millis(20);
/// Accounts read at a time.
const PAGE: usize = 100;
const DAY_SECONDS: i64 = 24 * 3_600;

/// Round by round until the house is dropped.
pub async fn carry(house: Arc<House>) {
    sleep(BEFORE_THE_FIRST_ROUND).await;
    loop {
        round(&house).await;
        sleep(BETWEEN_ROUNDS).await;
    }
}

/// All accounts of all hosts once.
async fn round(house: &House) {
    let mut domains: Vec<Box<str>> = house.hosts.read().keys().cloned().collect();
    domains.sort();
    for domain in domains {
        let mut after = String::new();
        loop {
            let accounts = match house.store.accounts(&domain, &after, PAGE).await {
                Ok(accounts) => accounts,
                Err(error) => {
                    tracing::error!(%domain, ?error, "the accounts could not be listed to cut their archives");
                    break;
                }
            };
            let Some(last) = accounts.last() else { break };
            after = last.account.local().unwrap_or_default().to_owned();
            for account in &accounts {
                cut(house, account).await;
            }
        }
    }
}

async fn cut(house: &House, summary: &AccountSummary) {
    let now = house.now().utc;
    let used = summary.last_activity.is_some_and(|left| now.seconds_since(left) < DAY_SECONDS);
    let Some(policy) = house.policy(summary.account.domain()).filter(|_| !used) else { return };
    let Stamp(before) = now.plus_seconds(-i64::from(policy.limits.archive_days_max) * DAY_SECONDS);
    let account = summary.account.clone();
    let (records_max, bytes_max) = (policy.limits.archive_records_max, policy.limits.archive_bytes_max);
    let change = Change::Trim { account, before, records_max, bytes_max };
    if let Err(error) = house.commit(&summary.account, vec![change]).await {
        tracing::warn!(account = %summary.account, ?error, "the archive could not be cut; it is tried again tomorrow");
    }
    sleep(PAUSE).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{create, house, juliet, record};
    use store::{PageQuery, Store};

    #[tokio::test(start_paused = true)]
    async fn the_archive_of_whoever_does_not_come_any_more_is_cut() {
        let (house, memory) = house();
        create(&house).await;
        let now = house.now().utc.0;
        for position in [7_000_000, now] {
            let change = Change::Append { account: juliet(), record: record(position) };
            house.commit(&juliet(), vec![change]).await.expect("it grows");
        }
        round(&house).await;
        let all = PageQuery { limit: 10, ..PageQuery::default() };
        let page = memory.inbox_page(&juliet(), &all).await.expect("memory fails not");
        assert_eq!(page.records.iter().map(|record| record.position).collect::<Vec<_>>(), [now]);
    }
}
