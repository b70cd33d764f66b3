//! One account's archive for those who run the server: read page by page, purged in small steps. Both with the store
//! alone, in the running server and without one.

use crate::admin::{ARCHIVE_PAGE, ArchiveRecord};
use std::future::Future;
use store::{Change, Outcome, PageQuery, Record, Store, StoreError};
use xmpp::{BareJid, Stamp};

/// Bytes of stanzas in one page, so that a line of the admin socket takes it.
const PAGE_BYTES: usize = 1 << 20;

/// The next messages of an archive, oldest first; an empty page is the end.
///
/// # Errors
/// Those of the store.
pub async fn page(store: &dyn Store, account: &BareJid, after: i64) -> Result<Vec<ArchiveRecord>, StoreError> {
    let query = PageQuery { after: Some(after), limit: ARCHIVE_PAGE, ..PageQuery::default() };
    let found = store.inbox_page(account, &query).await?;
    let mut records = Vec::with_capacity(found.records.len());
    let mut bytes = 0;
    for record in &found.records {
        bytes += record.stanza.len();
        if bytes > PAGE_BYTES && !records.is_empty() {
            break;
        }
        records.push(ArchiveRecord::from(record));
    }
    Ok(records)
}

impl From<&Record> for ArchiveRecord {
    fn from(record: &Record) -> ArchiveRecord {
        ArchiveRecord {
            position: record.position,
            at: Stamp(record.position).to_xmpp(),
            direction: match record.direction {
                store::Direction::Incoming => "in".into(),
                store::Direction::Outgoing => "out".into(),
            },
            with: record.peer.to_string(),
            pending: record.pending,
            stanza: String::from_utf8_lossy(&record.stanza).into_owned(),
        }
    }
}

/// Removes all that is older than `before`, or all, but for what still waits for delivery. Each step is a commit of its
/// own, so that nobody waits long for the disk meanwhile.
///
/// # Errors
/// Those of the store; what was removed until then stays so.
pub async fn purge<F>(
    store: &dyn Store,
    account: &BareJid,
    before: Option<Stamp>,
    commit: impl Fn(Change) -> F,
) -> Result<(), StoreError>
where
    F: Future<Output = Result<Vec<Outcome>, StoreError>>,
{
    let before = before.map_or(i64::MAX, |before| before.0);
    let mut oldest = None;
    loop {
        let found = oldest_settled(store, account, before).await?;
        // What cannot be removed is not tried for ever.
        if found.is_none() || found == oldest {
            return Ok(());
        }
        oldest = found;
        let (records_max, bytes_max) = (None, u64::MAX);
        commit(Change::Trim { account: account.clone(), before, records_max, bytes_max }).await?;
    }
}

/// The oldest archived message that waits for nobody.
async fn oldest_settled(store: &dyn Store, account: &BareJid, before: i64) -> Result<Option<i64>, StoreError> {
    let mut after = i64::MIN;
    loop {
        let query = PageQuery { after: Some(after), before: Some(before), limit: 500, ..PageQuery::default() };
        let page = store.inbox_page(account, &query).await?;
        if let Some(found) = page.records.iter().find(|record| !record.pending) {
            return Ok(Some(found.position));
        }
        // As many are pending as wait for one account.
        match page.records.last() {
            Some(last) if !page.complete => after = last.position,
            _ => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::house::testing::{create, house, juliet, record};
    use store::TRIM_MAX;

    async fn filled(count: i64) -> (std::sync::Arc<crate::house::House>, std::sync::Arc<store::memory::MemoryStore>) {
        let (house, memory) = house();
        create(&house).await;
        for position in 1..=count {
            let record = Record { pending: position == 2, ..record(position) };
            house.commit(&juliet(), vec![Change::Append { account: juliet(), record }]).await.expect("it grows");
        }
        (house, memory)
    }

    async fn exported(store: &dyn Store) -> Vec<i64> {
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let page = page(store, &juliet(), after).await.expect("memory fails not");
            let Some(last) = page.last() else { return all };
            after = last.position;
            all.extend(page.iter().map(|record| record.position));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_archive_is_exported_whole_and_in_order() {
        let (_house, memory) = filled(ARCHIVE_PAGE as i64 + 5).await;
        assert_eq!(exported(&*memory).await, (1..=ARCHIVE_PAGE as i64 + 5).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn a_purge_leaves_what_waits_and_what_is_newer() {
        let count = TRIM_MAX as i64 + 20;
        let (house, memory) = filled(count).await;
        let juliet = juliet();
        let commit = |change| {
            let (house, juliet) = (house.clone(), juliet.clone());
            async move { house.commit(&juliet, vec![change]).await }
        };
        purge(&*memory, &juliet, Some(Stamp(count - 1)), commit).await.expect("memory fails not");
        assert_eq!(exported(&*memory).await, [2, count - 1, count]);
        purge(&*memory, &juliet, None, commit).await.expect("memory fails not");
        assert_eq!(exported(&*memory).await, [2]);
    }
}
