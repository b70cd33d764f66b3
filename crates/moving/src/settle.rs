//! From an account on its way to changes of the store.
//!
//! What is there already stays as it is: contacts, passwords and cards are added, never replaced, so that moving in a
//! second time changes nothing, and after more was said at the old server adds what is new.

use crate::account::{Account, LeftOut, Message};
use crate::pie;
use im::{HostPolicy, Now, archive_ids, nodes};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;
use store::{AccountRecord, Change, Credentials, Direction, Outcome, Record, RosterItem, SETTINGS, Store, StoreError};
use xmpp::{BareJid, Element, Jid, Stamp};

/// Where it is noted what was moved in.
const SPACE: &str = "moved";
const KEY: &str = "sha256";
/// Changes and bytes of one commit; more would hold up others.
const CHANGES_MAX: usize = 500;
const BYTES_MAX: usize = 1 << 20;
/// Records that are read at once.
const PAGE: usize = 500;
/// The time at which the archive and the offline store noted the same message, apart at most. Microseconds.
const SAME_WITHIN: i64 = 120_000_000;

/// What a move needs besides the account.
pub struct Place<'a> {
    pub store: &'a dyn Store,
    pub policy: Arc<HostPolicy>,
    pub now: Stamp,
    /// Random, for an account that has no archive yet.
    pub archive_key: [u8; 32],
    /// Keys for a password; `None` if it cannot be one.
    pub hash: &'a (dyn Fn(&str) -> Option<Credentials> + Sync),
    /// Nothing is written.
    pub dry: bool,
}

/// What became of one account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    pub jid: BareJid,
    pub state: State,
    pub contacts: u64,
    pub requests: u64,
    pub blocks: u64,
    /// Card, pieces of private XML, private nodes.
    pub others: u64,
    pub archived: u64,
    pub waiting: u64,
    pub left_out: LeftOut,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// There was none of that name.
    Made,
    /// There was one, and something was added.
    Added,
    /// There was one, with all of it.
    Unchanged,
}

/// Moves an account in. `commit` writes what it is given as one and waits for the disk.
///
/// # Errors
/// Those of the store; what was committed until then stays, and the next move goes on from there.
pub async fn settle<F>(
    place: &Place<'_>,
    mut account: Account,
    commit: impl Fn(Vec<Change>) -> F,
) -> Result<Settled, StoreError>
where
    F: Future<Output = Result<Vec<Outcome>, StoreError>>,
{
    let jid = account.jid.clone();
    let mut settled = Settled {
        jid: jid.clone(),
        state: State::Unchanged,
        contacts: 0,
        requests: 0,
        blocks: 0,
        others: 0,
        archived: 0,
        waiting: 0,
        left_out: std::mem::take(&mut account.left_out),
    };
    let digest = Sha256::digest(pie::document_of(&account)).to_vec();
    let found = place.store.load_account(&jid).await?;
    if found.is_some() && place.store.blob(&jid, SPACE, KEY).await?.as_deref() == Some(&digest) {
        return Ok(settled);
    }
    let is_new = found.is_none();
    let record = found.unwrap_or_default();
    let mut changes = Vec::new();
    if is_new {
        changes.extend(made(place, &account, &mut settled));
    }
    roster(&account, &record, &mut settled, &mut changes);
    pieces(place, &mut account, &record, is_new, &mut settled, &mut changes).await?;
    messages(place, &account, &record, &mut settled, &mut changes).await?;
    if is_new {
        settled.state = State::Made;
    } else if !changes.is_empty() {
        settled.state = State::Added;
    }
    let (space, key) = (SPACE.into(), KEY.into());
    changes.push(Change::BlobPut { account: jid, space, key, value: digest });
    if !place.dry {
        in_batches(changes, commit).await?;
    }
    Ok(settled)
}

async fn in_batches<F>(changes: Vec<Change>, commit: impl Fn(Vec<Change>) -> F) -> Result<(), StoreError>
where
    F: Future<Output = Result<Vec<Outcome>, StoreError>>,
{
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for change in changes {
        bytes += change.weight();
        batch.push(change);
        if batch.len() >= CHANGES_MAX || bytes >= BYTES_MAX {
            commit(std::mem::take(&mut batch)).await?;
            bytes = 0;
        }
    }
    if !batch.is_empty() {
        commit(batch).await?;
    }
    Ok(())
}

fn made(place: &Place<'_>, account: &Account, settled: &mut Settled) -> Vec<Change> {
    let keys = &account.keys;
    let mut credentials = Credentials { scram_sha1: keys.scram_sha1.clone(), scram_sha256: keys.scram_sha256.clone() };
    if let Some(password) = &keys.password
        && !place.dry
    {
        match (place.hash)(password) {
            Some(hashed) => credentials = hashed,
            None => settled.left_out.add("a password that RFC 8265 forbids: set another with `waft user passwd`"),
        }
    }
    if keys.is_empty() {
        settled.left_out.add("a password that could be taken along: set one with `waft user passwd`");
    }
    if keys.password.is_none() && keys.scram_sha1.is_some() && keys.scram_sha256.is_none() {
        settled.left_out.add(
            "keys of SCRAM-SHA-256, which cannot be made of those of SCRAM-SHA-1: where most accounts came so, the domain \
             offers SCRAM-SHA-1 alone until they have new passwords; else set new ones with `waft user passwd`",
        );
    }
    let owner = || account.jid.clone();
    let created = account.created.unwrap_or(place.now);
    let mut changes = vec![Change::AccountCreate { account: owner(), credentials, created }];
    if account.disabled {
        changes.push(Change::AccountDisable { account: owner(), disabled: true });
    }
    if let Some((left, status)) = &account.last_activity {
        changes.push(Change::LastActivity { account: owner(), left: *left, status: status.clone() });
    }
    changes
}

/// Contacts that are not there yet, requests of those that are unknown, blocks.
fn roster(account: &Account, record: &AccountRecord, settled: &mut Settled, changes: &mut Vec<Change>) {
    let owner = || account.jid.clone();
    let known: HashMap<&BareJid, &RosterItem> = record.roster.iter().map(|item| (&item.jid, item)).collect();
    let mut version = record.roster_version;
    for item in account.roster.iter().filter(|item| !known.contains_key(&item.jid)) {
        if item.listed {
            version += 1;
        }
        let item = RosterItem { version: if item.listed { version } else { 0 }, ..item.clone() };
        settled.contacts += u64::from(item.listed);
        changes.push(Change::RosterPut { account: owner(), item, version });
    }
    let waiting: HashSet<&BareJid> = record.requests.iter().map(|(contact, _, _)| contact).collect();
    for request in &account.requests {
        let state = known.get(&request.contact).map(|item| item.subscription).unwrap_or_default();
        if waiting.contains(&request.contact) || state.from || known.contains_key(&request.contact) {
            continue;
        }
        settled.requests += 1;
        changes.push(Change::RequestPut {
            account: owner(),
            contact: request.contact.clone(),
            stanza: request.stanza.clone(),
            received: request.received.unwrap_or_default(),
        });
    }
    for jid in account.blocks.iter().filter(|jid| !record.blocks.contains(jid)) {
        settled.blocks += 1;
        changes.push(Change::BlockPut { account: owner(), jid: jid.clone() });
    }
}

/// Card, private XML, private nodes, settings.
async fn pieces(
    place: &Place<'_>,
    account: &mut Account,
    record: &AccountRecord,
    is_new: bool,
    settled: &mut Settled,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let owner = account.jid.clone();
    let put = |space: &str, key: &str, value: Vec<u8>| Change::BlobPut {
        account: owner.clone(),
        space: space.into(),
        key: key.into(),
        value,
    };
    if is_new {
        for (key, value) in &account.settings {
            changes.push(put(SETTINGS, key, value.clone()));
        }
    }
    let (space, key) = im::modules::vcard::PLACE;
    if let Some(card) = &account.vcard
        && place.store.blob(&owner, space, key).await?.is_none()
    {
        settled.others += 1;
        changes.push(put(space, key, card.to_bytes("")));
    }
    let (space, key) = im::modules::private::PLACE;
    if !account.private.is_empty() {
        let stored = place.store.blob(&owner, space, key).await?.unwrap_or_default();
        let mut all = pie::elements(&stored);
        let before = all.len();
        for element in std::mem::take(&mut account.private) {
            if !all[..before].iter().any(|old| old.is(&element.name, &element.ns)) {
                all.push(element);
            }
        }
        if all.len() > before {
            settled.others += (all.len() - before) as u64;
            let query = Element::new("query", im::modules::private::NS).children_from(all);
            changes.push(put(space, key, query.to_bytes("")));
        }
    }
    if !account.nodes.is_empty() {
        let now = Now { utc: place.now, mono_ms: 0 };
        let mut house = im::Account::new(owner.clone(), place.policy.clone(), 0, record.clone());
        house.now = now;
        for node in account.nodes.iter().filter(|node| record_has_not(record, &node.name)) {
            // Who might see it where it comes from is not known here. Its owner's clients say so anew.
            let private = nodes::Config { access: nodes::Access::Whitelist, ..nodes::Config::default() };
            let config = if node.many { nodes::Config::private() } else { private };
            for (id, payload, at) in &node.items {
                house.now = Now { utc: at.unwrap_or(place.now), ..now };
                let item = (id.as_str().into(), payload.to_bytes(""));
                match nodes::publish(&mut house, &node.name, &config, &[item]) {
                    Ok(published) => changes.extend(published),
                    Err(error) => settled.left_out.add(format!(
                        "an item of the node {}, which is too much: {}",
                        node.name,
                        error.condition.name()
                    )),
                }
            }
            settled.others += 1;
        }
    }
    Ok(())
}

fn record_has_not(record: &AccountRecord, node: &str) -> bool {
    nodes::Nodes::from_stored(&record.settings).get(node).is_none()
}

/// A message as it would be logged.
struct Logged<'a> {
    message: &'a Message,
    archived: bool,
    pending: bool,
}

/// Archive and offline store become one log. What is in it already is known by its text, direction and second.
async fn messages(
    place: &Place<'_>,
    account: &Account,
    record: &AccountRecord,
    settled: &mut Settled,
    changes: &mut Vec<Change>,
) -> Result<(), StoreError> {
    let mut log: Vec<Logged<'_>> =
        account.archive.iter().map(|message| Logged { message, archived: true, pending: false }).collect();
    let by_id: HashMap<&str, usize> =
        account.archive.iter().enumerate().filter_map(|(at, it)| Some((it.id.as_deref()?, at))).collect();
    for message in &account.offline {
        let at = match &message.id {
            Some(id) if by_id.contains_key(&**id) => by_id.get(&**id).copied(),
            _ => log.iter().position(|it| !it.pending && is_same(it.message, message)),
        };
        match at.and_then(|at| log.get_mut(at)) {
            Some(logged) => logged.pending = true,
            None => log.push(Logged { message, archived: place.policy.archive, pending: true }),
        }
    }
    if log.is_empty() {
        return Ok(());
    }
    // Those without a time come last.
    let time = |message: &Message| if message.at == Stamp::default() { place.now } else { message.at };
    log.sort_by_key(|logged| time(logged.message));
    let mut known = Known::default();
    let mut after = i64::MIN;
    loop {
        let page = place.store.inbox_after(&account.jid, after, false, PAGE).await?;
        let Some(last) = page.last() else { break };
        after = last.position;
        page.iter().for_each(|record| known.note(record));
    }
    let mut last = record.last_position;
    let mut appended = Vec::new();
    for logged in log {
        let (direction, peer) = way(&account.jid, logged.message);
        if known.has(direction, logged.message) {
            continue;
        }
        let at = time(logged.message).0;
        if at < record.last_position && record.last_position > 0 {
            settled.left_out.add("a message that is older than what is in the account's log already");
            continue;
        }
        last = at.max(last + 1);
        settled.archived += u64::from(logged.archived);
        settled.waiting += u64::from(logged.pending);
        let record = Record {
            position: last,
            direction,
            peer,
            stanza: logged.message.stanza.clone(),
            pending: logged.pending,
            archived: logged.archived,
            dedupe: None,
            expires: None,
        };
        appended.push(Change::Append { account: account.jid.clone(), record });
    }
    let has_key = |settings: &[(Box<str>, Vec<u8>)]| settings.iter().any(|(key, _)| **key == *archive_ids::KEY);
    if !appended.is_empty() && !has_key(&record.settings) && !has_key(&account.settings) {
        changes.push(Change::BlobPut {
            account: account.jid.clone(),
            space: SETTINGS.into(),
            key: archive_ids::KEY.into(),
            value: place.archive_key.to_vec(),
        });
    }
    changes.extend(appended);
    Ok(())
}

/// Are they the same message, once in the archive and once waiting?
fn is_same(archived: &Message, waiting: &Message) -> bool {
    match (&archived.id, &waiting.id) {
        (Some(archived), Some(waiting)) => archived == waiting,
        _ => {
            let apart = (archived.at.0 - waiting.at.0).abs();
            archived.stanza == waiting.stanza && (waiting.at == Stamp::default() || apart <= SAME_WITHIN)
        }
    }
}

/// Which way it went, and who the other side is.
fn way(own: &BareJid, message: &Message) -> (Direction, Jid) {
    let is_own = |jid: &Option<Jid>| jid.as_ref().is_none_or(|jid| jid.same_bare(own));
    let peer = |jid: &Option<Jid>| jid.clone().unwrap_or_else(|| Jid::from(own.clone()));
    match (is_own(&message.from), is_own(&message.to)) {
        (true, false) => (Direction::Outgoing, peer(&message.to)),
        _ => (Direction::Incoming, peer(&message.from)),
    }
}

/// What is in the log.
#[derive(Default)]
struct Known {
    /// Direction, text and second.
    by_second: HashSet<[u8; 32]>,
    /// Direction and text.
    by_text: HashSet<[u8; 32]>,
}

impl Known {
    fn note(&mut self, record: &Record) {
        let at = Stamp(record.position);
        self.by_second.insert(print(record.direction, &record.stanza, Some(at)));
        self.by_text.insert(print(record.direction, &record.stanza, None));
    }

    fn has(&self, direction: Direction, message: &Message) -> bool {
        match message.at {
            Stamp(0) => self.by_text.contains(&print(direction, &message.stanza, None)),
            at => self.by_second.contains(&print(direction, &message.stanza, Some(at))),
        }
    }
}

fn print(direction: Direction, stanza: &[u8], at: Option<Stamp>) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update([u8::from(direction == Direction::Outgoing)]);
    hash.update(at.map_or(0, |at| at.0.div_euclid(1_000_000)).to_be_bytes());
    hash.update(stanza);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::leave;
    use store::memory::MemoryStore;
    use store::{Fence, Key};

    const JULIET: &str = "<server-data xmlns='urn:xmpp:pie:0'><host jid='capulet.example'><user name='juliet' password='x'>
        <query xmlns='jabber:iq:roster'><item jid='romeo@montague.example' subscription='both'/></query>
        <presence xmlns='jabber:client' type='subscribe' from='paris@example.org'/>
        <query xmlns='jabber:iq:private'><a xmlns='n:a'>1</a></query><vCard xmlns='vcard-temp'><FN>Juliet</FN></vCard>
        <pubsub xmlns='http://jabber.org/protocol/pubsub#owner'><configure node='n'><x xmlns='jabber:x:data'>
          <field var='pubsub#access_model'><value>whitelist</value></field></x></configure></pubsub>
        <pubsub xmlns='http://jabber.org/protocol/pubsub'><items node='n'><item id='i'><p xmlns='n:p'/></item></items></pubsub>
        <archive xmlns='urn:xmpp:pie:0#mam'>RESULTS</archive>
        <offline-messages>WAITING</offline-messages></user></host></server-data>";

    fn result(at: u32, id: &str, body: &str) -> String {
        format!(
            "<result xmlns='urn:xmpp:mam:2' id='{id}'><forwarded xmlns='urn:xmpp:forward:0'>\
             <delay xmlns='urn:xmpp:delay' stamp='2020-01-01T00:00:{at:02}Z'/><message xmlns='jabber:client' type='chat' \
             from='romeo@montague.example/y' to='juliet@capulet.example'><body>{body}</body></message></forwarded></result>"
        )
    }

    fn waiting(id: &str, body: &str) -> String {
        format!(
            "<message xmlns='jabber:client' type='chat' from='romeo@montague.example/y' to='juliet@capulet.example'>\
             <body>{body}</body><stanza-id xmlns='urn:xmpp:sid:0' by='juliet@capulet.example' id='{id}'/></message>"
        )
    }

    fn account(results: &str, waiting: &str) -> Account {
        let text = JULIET.replace("RESULTS", results).replace("WAITING", waiting);
        let mut found = None;
        pie::read(text.as_bytes(), &mut |account| {
            found = Some(account);
            Ok(())
        })
        .expect("is a document");
        found.expect("has an account")
    }

    async fn settled(store: &MemoryStore, account: Account, dry: bool) -> Settled {
        let policy = Arc::new(HostPolicy::of(BareJid::of_domain("capulet.example").expect("is a domain")));
        let hash = |_: &str| Some(Credentials { scram_sha1: None, scram_sha256: None });
        let now = Stamp(1_700_000_000_000_000);
        let place = Place { store, policy, now, archive_key: [7; 32], hash: &hash, dry };
        let fence = Fence { partition: Key::Bare(account.jid.clone()).partition(), epoch: store.epoch() };
        settle(&place, account, |changes| {
            let (tell, told) = tokio::sync::oneshot::channel();
            store.commit(fence, changes, Box::new(move |result| drop(tell.send(result))));
            async move { told.await.expect("memory answers") }
        })
        .await
        .expect("memory fails not")
    }

    async fn log(store: &MemoryStore) -> Vec<(bool, bool)> {
        let jid = BareJid::parse("juliet@capulet.example").expect("is a JID");
        let records = store.inbox_after(&jid, 0, false, 100).await.expect("memory fails not");
        records.iter().map(|record| (record.archived, record.pending)).collect()
    }

    #[tokio::test]
    async fn a_message_of_archive_and_offline_store_is_one() {
        let store = MemoryStore::new();
        let moved =
            account(&(result(1, "a", "one") + &result(1, "b", "two")), &(waiting("b", "two") + &waiting("c", "three")));
        let settled = settled(&store, moved, false).await;
        assert_eq!(settled.state, State::Made);
        assert_eq!((settled.contacts, settled.requests, settled.others), (1, 1, 3));
        assert_eq!(log(&store).await, [(true, false), (true, true), (true, true)]);
    }

    #[tokio::test]
    async fn a_second_move_changes_nothing_and_a_later_one_adds_what_is_new() {
        let store = MemoryStore::new();
        let first = account(&(result(1, "a", "one") + &result(1, "b", "one")), "");
        settled(&store, first.clone(), false).await;
        let again = settled(&store, first, false).await;
        assert_eq!((again.state, again.archived), (State::Unchanged, 0));
        let later = result(1, "a", "one") + &result(1, "b", "one") + &result(9, "c", "new") + &result(0, "d", "older");
        let later = settled(&store, account(&later, ""), false).await;
        assert_eq!((later.state, later.archived, later.contacts), (State::Added, 1, 0));
        assert_eq!(later.left_out.0.len(), 1, "{:?}", later.left_out);
        assert_eq!(log(&store).await.len(), 3);
    }

    #[tokio::test]
    async fn a_dry_run_says_the_same_and_writes_nothing() {
        let store = MemoryStore::new();
        let moved = account(&result(1, "a", "one"), &waiting("c", "three"));
        let dry = settled(&store, moved.clone(), true).await;
        let jid = moved.jid.clone();
        assert!(store.load_account(&jid).await.expect("memory fails not").is_none());
        assert_eq!(dry, settled(&store, moved, false).await);
    }

    #[tokio::test]
    async fn what_left_comes_back_the_same() {
        let store = MemoryStore::new();
        let moved = account(&(result(1, "a", "one") + &result(1, "b", "two")), &waiting("b", "two"));
        let jid = moved.jid.clone();
        settled(&store, moved, false).await;
        let left = leave::account(&store, &jid).await.expect("memory fails not").expect("is there");
        let other = MemoryStore::new();
        settled(&other, left.clone(), false).await;
        let mut again = leave::account(&other, &jid).await.expect("memory fails not").expect("is there");
        again.keys = left.keys.clone();
        assert_eq!(again, left);
        assert_eq!(log(&other).await, log(&store).await);
    }
}
