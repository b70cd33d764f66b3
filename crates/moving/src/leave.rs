//! From the store to an account on its way, to be written by [`crate::pie`].

use crate::account::{Account, Node, Request};
use crate::pie;
use im::{archive_ids, nodes};
use store::{Store, StoreError};
use xmpp::{BareJid, Element, Stamp};

/// Records that are read at once.
const PAGE: usize = 500;

/// All that is kept of an account and can be taken along; `None` if there is none. What was moved in before is not told
/// apart from what came later.
///
/// # Errors
/// Those of the store.
pub async fn account(store: &dyn Store, jid: &BareJid) -> Result<Option<Account>, StoreError> {
    let (Some(record), Some(login)) = (store.load_account(jid).await?, store.login(jid).await?) else {
        return Ok(None);
    };
    let mut account = Account::new(jid.clone());
    account.keys.scram_sha1 = login.credentials.scram_sha1;
    account.keys.scram_sha256 = login.credentials.scram_sha256;
    account.created = Some(record.created);
    account.disabled = record.disabled;
    account.last_activity = record.last_activity;
    account.roster = record.roster.into_iter().map(|item| store::RosterItem { version: 0, ..item }).collect();
    account.roster.sort_by(|a, b| a.jid.cmp(&b.jid));
    account.requests = record
        .requests
        .into_iter()
        .map(|(contact, stanza, received)| {
            let received = (received != Stamp::default()).then_some(received);
            Request { contact, stanza, received }
        })
        .collect();
    account.blocks = record.blocks;
    account.blocks.sort();
    let (space, key) = im::modules::vcard::PLACE;
    account.vcard = store.blob(jid, space, key).await?.and_then(|card| Element::parse(&card, space).ok());
    let (space, key) = im::modules::private::PLACE;
    account.private = store.blob(jid, space, key).await?.map(|all| pie::elements(&all)).unwrap_or_default();
    for (name, node) in nodes::Nodes::from_stored(&record.settings).iter() {
        let mut items = Vec::new();
        for item in &node.items {
            let payload = store.blob(jid, nodes::SPACE, &nodes::item_key(name, &item.id)).await?;
            let payload = payload.and_then(|payload| Element::parse(&payload, "").ok());
            items.extend(payload.map(|payload| (item.id.to_string(), payload, Some(item.published))));
        }
        account.nodes.push(Node { name: name.into(), items, many: node.config.items_max != Some(1) });
    }
    let ids = record.settings.iter().find(|(key, _)| **key == *archive_ids::KEY);
    let ids = ids.and_then(|(_, value)| archive_ids::ArchiveIds::from_stored(Some(value)));
    account.settings = record.settings.into_iter().filter(|(key, _)| !nodes::is_key(key)).collect();
    let mut after = i64::MIN;
    loop {
        let page = store.inbox_after(jid, after, false, PAGE).await?;
        let Some(last) = page.last() else { return Ok(Some(account)) };
        after = last.position;
        for record in page {
            let id = ids.map_or_else(|| record.position.to_string(), |ids| ids.text(record.position));
            let Some(message) = pie::message_of(Stamp(record.position), Some(id.into()), record.stanza) else {
                continue;
            };
            if record.archived {
                account.archive.push(message.clone());
            }
            if record.pending {
                account.offline.push(message);
            }
        }
    }
}

/// Whose accounts there are on a host.
///
/// # Errors
/// Those of the store.
pub async fn accounts(store: &dyn Store, host: &str) -> Result<Vec<BareJid>, StoreError> {
    let (mut all, mut after) = (Vec::<BareJid>::new(), String::new());
    loop {
        let page = store.accounts(host, &after, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = last.account.local().unwrap_or_default().to_owned();
        all.extend(page.into_iter().map(|it| it.account).filter(|jid| jid.local().is_some()));
    }
}
