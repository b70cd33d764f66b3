//! The backend of tests and simulations: the same contract, in memory.
//!
//! By default a commit is applied at once. A store made with [`MemoryStore::stepped`] queues commits until
//! [`MemoryStore::step`] is called, so that a test can look at the world between an event and its commit. Failures are
//! injected with [`MemoryStore::fail_next`]; a crash is [`MemoryStore::reopened`].

use crate::*;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use xmpp::Jid;

/// The store of one simulated disk, or one handle to it: see [`MemoryStore::reopened`].
pub struct MemoryStore {
    disk: Disk,
    epoch: u64,
    stepped: bool,
    queue: Mutex<Queue>,
}

/// What survives a crash; shared by the handles that were opened on it.
type Disk = std::sync::Arc<Mutex<World>>;

#[derive(Default)]
struct World {
    /// The greatest epoch that a handle was opened with.
    epoch: u64,
    accounts: BTreeMap<BareJid, Account>,
    outbox: BTreeMap<i64, OutboxRow>,
    domains: BTreeMap<(BareJid, Box<str>), Stamp>,
    commits: u64,
    changes: u64,
}

#[derive(Default)]
struct Queue {
    calls: VecDeque<(Fence, Vec<Change>, Committed)>,
    /// Somebody is calling `done`s at the moment; whoever commits meanwhile leaves its call to them, for the order.
    busy: bool,
    fail_next: VecDeque<StoreError>,
    /// Why nothing is written any more.
    fatal: Option<String>,
}

#[derive(Clone)]
struct Account {
    created: Stamp,
    disabled: bool,
    credentials: Credentials,
    roster_version: u64,
    roster: BTreeMap<BareJid, RosterItem>,
    requests: BTreeMap<BareJid, (Vec<u8>, Stamp)>,
    blocks: BTreeSet<Jid>,
    log: BTreeMap<i64, Record>,
    /// The greatest position ever appended.
    appended: i64,
    dedupe: HashMap<[u8; 16], i64>,
    sessions: BTreeMap<Box<str>, SessionRow>,
    tokens: BTreeMap<(Box<str>, Box<str>), Token>,
    blobs: BTreeMap<(Box<str>, Box<str>), Vec<u8>>,
    last_activity: Option<(Stamp, Box<str>)>,
}

impl Default for MemoryStore {
    fn default() -> MemoryStore {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// Applies each commit at once.
    pub fn new() -> MemoryStore {
        MemoryStore::open(Disk::default(), false)
    }

    /// Applies a commit when [`step`](MemoryStore::step) is called.
    pub fn stepped() -> MemoryStore {
        MemoryStore::open(Disk::default(), true)
    }

    /// What a restart after a crash finds: what is queued is lost (its `done` is never called), the epoch is one
    /// greater, and commits through `self` are fenced from now on.
    pub fn reopened(&self) -> MemoryStore {
        self.queue.lock().calls.clear();
        MemoryStore::open(self.disk.clone(), self.stepped)
    }

    /// The same after a crash in the midst of a write: the first `written` of what is queued are on disk, though nobody
    /// was told so (their `done` is never called).
    pub fn reopened_after(&self, written: usize) -> MemoryStore {
        for _ in 0..written {
            let Some((fence, changes, _)) = self.queue.lock().calls.pop_front() else { break };
            // Nobody waits for what came of it.
            let _ = self.apply(fence, &changes);
        }
        self.reopened()
    }

    fn open(disk: Disk, stepped: bool) -> MemoryStore {
        let epoch = {
            let mut world = disk.lock();
            world.epoch += 1;
            world.epoch
        };
        MemoryStore { disk, epoch, stepped, queue: Mutex::default() }
    }

    /// The next commit that is applied fails with `error`, the one after it with the next that was given, and so on.
    /// After [`StoreError::Fatal`] all fail.
    pub fn fail_next(&self, error: StoreError) {
        self.queue.lock().fail_next.push_back(error);
    }

    /// How many commits wait for a [`step`](MemoryStore::step).
    pub fn queued(&self) -> usize {
        self.queue.lock().calls.len()
    }

    /// Applies the oldest queued commit and calls its `done`. False if there was none.
    pub fn step(&self) -> bool {
        let Some((fence, changes, done)) = self.queue.lock().calls.pop_front() else {
            return false;
        };
        done(self.apply(fence, &changes));
        true
    }

    /// Steps until nothing is queued; how many there were.
    pub fn step_all(&self) -> usize {
        let mut steps = 0;
        while self.step() {
            steps += 1;
        }
        steps
    }

    /// Calls all that is queued, in order, unless somebody is at it.
    fn drain(&self) {
        loop {
            let (fence, changes, done) = {
                let mut queue = self.queue.lock();
                if queue.busy {
                    return;
                }
                let Some(call) = queue.calls.pop_front() else {
                    return;
                };
                queue.busy = true;
                call
            };
            done(self.apply(fence, &changes));
            self.queue.lock().busy = false;
        }
    }

    fn apply(&self, fence: Fence, changes: &[Change]) -> Result<Vec<Outcome>, StoreError> {
        let failed = self.failed();
        let mut world = self.disk.lock();
        if fence.epoch != self.epoch || self.epoch != world.epoch {
            return Err(failed.unwrap_or(StoreError::Fenced));
        }
        match failed {
            // What is there from before is not refused.
            Some(error) => world.said_again(changes).ok_or(error),
            None => world.call(changes),
        }
    }

    /// The error that the next commit fails with.
    fn failed(&self) -> Option<StoreError> {
        let mut queue = self.queue.lock();
        if let Some(reason) = &queue.fatal {
            return Some(StoreError::Fatal(reason.clone()));
        }
        let error = queue.fail_next.pop_front();
        if let Some(StoreError::Fatal(reason)) = &error {
            queue.fatal = Some(reason.clone());
        }
        error
    }

    fn read<T>(&self, account: &BareJid, read: impl FnOnce(&Account) -> T) -> Option<T> {
        self.disk.lock().accounts.get(account).map(read)
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> Reply<'a, T> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Store for MemoryStore {
    fn commit(&self, fence: Fence, changes: Vec<Change>, done: Committed) {
        self.queue.lock().calls.push_back((fence, changes, done));
        if !self.stepped {
            self.drain();
        }
    }

    fn load_account<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<AccountRecord>> {
        ready(self.read(account, |found| found.record(self.epoch)))
    }

    fn login<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<Login>> {
        ready(self.read(account, |found| Login { credentials: found.credentials.clone(), disabled: found.disabled }))
    }

    fn tokens<'a>(&'a self, account: &'a BareJid, client: &'a str) -> Reply<'a, Vec<Token>> {
        let tokens = self
            .read(account, |found| found.tokens.values().filter(|token| &*token.client == client).cloned().collect());
        ready(tokens.unwrap_or_default())
    }

    fn inbox_after<'a>(
        &'a self,
        account: &'a BareJid,
        after: i64,
        only_pending: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Record>> {
        let records = self.read(account, |found| {
            let later = found.log.values().filter(|record| record.position > after);
            later.filter(|record| record.pending || !only_pending).take(limit).cloned().collect()
        });
        ready(records.unwrap_or_default())
    }

    fn overdue(&self, behind: Option<WaitingPlace>, limit: usize, now: Stamp, before: Stamp) -> Reply<'_, Overdue> {
        let world = self.disk.lock();
        let mut accounts: Vec<_> = world.accounts.iter().collect();
        accounts.sort_by(|(one, _), (other, _)| one.as_str().cmp(other.as_str()));
        let waiting = (0..).zip(accounts).flat_map(|(number, (jid, account))| {
            let pending = account.log.values().filter(|record| record.pending);
            pending.map(move |record| (WaitingPlace { account: number, position: record.position }, jid, record))
        });
        let is_behind =
            |place: &WaitingPlace| behind.is_none_or(|it| (place.account, place.position) > (it.account, it.position));
        let page: Vec<_> = waiting.filter(|(place, ..)| is_behind(place)).take(limit).collect();
        let is_over = |record: &Record| record.position < before.0 || record.expires.is_some_and(|at| at <= now);
        let over = page.iter().filter(|(_, _, record)| is_over(record));
        ready(Overdue {
            records: over.map(|(_, jid, record)| ((*jid).clone(), (*record).clone())).collect(),
            next: page.last().filter(|_| page.len() == limit).map(|(place, ..)| *place),
        })
    }

    fn inbox_page<'a>(&'a self, account: &'a BareJid, page: &'a PageQuery) -> Reply<'a, Page> {
        ready(self.read(account, |found| found.page(page)).unwrap_or(Page { complete: true, ..Page::default() }))
    }

    fn blob<'a>(&'a self, account: &'a BareJid, space: &'a str, key: &'a str) -> Reply<'a, Option<Vec<u8>>> {
        ready(self.read(account, |found| found.blobs.get(&(space.into(), key.into())).cloned()).flatten())
    }

    fn accounts<'a>(&'a self, host: &'a str, after: &'a str, limit: usize) -> Reply<'a, Vec<AccountSummary>> {
        let after = after.split('@').next().unwrap_or_default();
        let world = self.disk.lock();
        let mut found: Vec<AccountSummary> = world
            .accounts
            .iter()
            .filter(|(jid, _)| jid.domain() == host && (after.is_empty() || jid.local().unwrap_or_default() > after))
            .map(|(jid, account)| AccountSummary {
                account: jid.clone(),
                created: account.created,
                disabled: account.disabled,
                last_activity: account.last_activity.as_ref().map(|(left, _)| *left),
            })
            .collect();
        found.sort_by(|a, b| a.account.local().cmp(&b.account.local()));
        found.truncate(limit);
        ready(found)
    }

    fn key_figures(&self) -> Reply<'_, BTreeMap<Box<str>, KeyFigures>> {
        let world = self.disk.lock();
        let mut figures: BTreeMap<Box<str>, KeyFigures> = BTreeMap::new();
        for (jid, account) in &world.accounts {
            let Credentials { scram_sha1, scram_sha256 } = &account.credentials;
            figures.entry(jid.domain().into()).or_default().add(scram_sha1.is_some(), scram_sha256.is_some(), 1);
        }
        ready(figures)
    }

    fn session_ledger(&self) -> Reply<'_, Vec<(BareJid, SessionRow)>> {
        let world = self.disk.lock();
        let rows =
            world.accounts.iter().flat_map(|(jid, account)| account.sessions.values().map(move |row| (jid, row)));
        ready(rows.filter(|(_, row)| row.epoch < self.epoch).map(|(jid, row)| (jid.clone(), row.clone())).collect())
    }

    fn outbox(&self, after: i64, limit: usize) -> Reply<'_, Vec<OutboxRow>> {
        let world = self.disk.lock();
        ready(world.outbox.range(after.saturating_add(1)..).take(limit).map(|(_, row)| row.clone()).collect())
    }

    fn domains_reached(&self) -> Reply<'_, Vec<(BareJid, Box<str>, Stamp)>> {
        let world = self.disk.lock();
        ready(world.domains.iter().map(|((local, remote), at)| (local.clone(), remote.clone(), *at)).collect())
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn figures(&self) -> Figures {
        let queued_changes = self.queue.lock().calls.iter().map(|(_, changes, _)| changes.len() as u64).sum();
        let world = self.disk.lock();
        Figures {
            queued_changes,
            commits: world.commits,
            changes: world.changes,
            inbox_records: world.accounts.values().map(|account| account.log.len() as u64).sum(),
            accounts: world.accounts.len() as u64,
            ..Figures::default()
        }
    }

    fn close(&self) -> Reply<'_, ()> {
        self.step_all();
        self.queue.lock().fatal.get_or_insert_with(|| CLOSED.into());
        ready(())
    }
}

impl World {
    /// One call, all or nothing.
    fn call(&mut self, changes: &[Change]) -> Result<Vec<Outcome>, StoreError> {
        let before = self.doubtful(changes).then(|| (self.accounts.clone(), self.outbox.clone(), self.domains.clone()));
        let outcomes: Result<Vec<Outcome>, StoreError> = changes.iter().map(|change| self.change(change)).collect();
        match (&outcomes, before) {
            (Err(_), Some(before)) => (self.accounts, self.outbox, self.domains) = before,
            (Err(error), None) => {
                unreachable!("only a position that does not grow fails, and that was foreseen: {error:?}")
            }
            (Ok(_), _) => {
                self.commits += 1;
                self.changes += changes.len() as u64;
            }
        }
        outcomes
    }

    /// The outcomes of a call that only says again what the log has; `None` if it says more.
    fn said_again(&self, changes: &[Change]) -> Option<Vec<Outcome>> {
        let known = |change: &Change| match change {
            Change::Append { account, record } => {
                let position = self.accounts.get(account)?.dedupe.get(&record.dedupe?)?;
                Some(Outcome::Duplicate(*position))
            }
            // What belongs to a record was written with it.
            Change::BlobPut { .. } => Some(Outcome::Done),
            _ => None,
        };
        let appends = changes.iter().any(|change| matches!(change, Change::Append { .. }));
        if appends { changes.iter().map(known).collect() } else { None }
    }

    /// Could a position be refused? Then the call may have to be undone.
    fn doubtful(&self, changes: &[Change]) -> bool {
        let mut last = HashMap::new();
        changes.iter().any(|change| {
            let Change::Append { account, record } = change else {
                return false;
            };
            let appended = self.accounts.get(account).map_or(0, |found| found.appended);
            let last = last.entry(account).or_insert(appended);
            let doubtful = record.position <= *last;
            *last = record.position;
            doubtful
        })
    }

    fn change(&mut self, change: &Change) -> Result<Outcome, StoreError> {
        if let Change::AccountCreate { account, credentials, created } = change {
            if self.accounts.contains_key(account) {
                return Ok(Outcome::Exists);
            }
            self.accounts.insert(account.clone(), Account::new(credentials.clone(), *created));
            return Ok(Outcome::Done);
        }
        if let Change::AccountRemove { account } = change {
            return Ok(if self.accounts.remove(account).is_some() { Outcome::Done } else { Outcome::NoAccount });
        }
        match change {
            Change::OutboxPut { row } => {
                self.outbox.entry(row.id).or_insert_with(|| row.clone());
                return Ok(Outcome::Done);
            }
            Change::OutboxDelete { ids, .. } => {
                ids.iter().for_each(|id| drop(self.outbox.remove(id)));
                return Ok(Outcome::Done);
            }
            Change::DomainReached { local, remote, at } => {
                self.domains.insert((local.clone(), remote.clone()), *at);
                return Ok(Outcome::Done);
            }
            _ => {}
        }
        match self.accounts.get_mut(change.account()) {
            Some(account) => account.change(change),
            None => Ok(Outcome::NoAccount),
        }
    }
}

impl Account {
    fn new(credentials: Credentials, created: Stamp) -> Account {
        Account {
            created,
            disabled: false,
            credentials,
            roster_version: 0,
            roster: BTreeMap::new(),
            requests: BTreeMap::new(),
            blocks: BTreeSet::new(),
            log: BTreeMap::new(),
            appended: 0,
            dedupe: HashMap::new(),
            sessions: BTreeMap::new(),
            tokens: BTreeMap::new(),
            blobs: BTreeMap::new(),
            last_activity: None,
        }
    }

    fn change(&mut self, change: &Change) -> Result<Outcome, StoreError> {
        match change {
            Change::AccountCreate { .. } | Change::AccountRemove { .. } => {
                unreachable!("handled by the world")
            }
            Change::CredentialsSet { credentials, .. } => {
                self.credentials = credentials.clone();
                self.tokens.clear();
            }
            Change::CredentialsAdd { keys, beside, .. } => {
                let own = &mut self.credentials;
                let is_beside = |keys: &ScramKeys| keys.stored_key == *beside;
                if own.scram_sha1.iter().chain(&own.scram_sha256).any(is_beside) {
                    own.scram_sha1 = own.scram_sha1.take().or_else(|| keys.scram_sha1.clone());
                    own.scram_sha256 = own.scram_sha256.take().or_else(|| keys.scram_sha256.clone());
                }
            }
            Change::AccountDisable { disabled, .. } => self.disabled = *disabled,
            Change::RosterPut { item, version, .. } => {
                self.roster.insert(item.jid.clone(), item.clone());
                self.roster_version = *version;
            }
            Change::RosterDelete { contact, version, .. } => {
                self.roster.remove(contact);
                self.roster_version = *version;
            }
            Change::RequestPut { contact, stanza, received, .. } => {
                self.requests.insert(contact.clone(), (stanza.clone(), *received));
            }
            Change::RequestDelete { contact, .. } => {
                self.requests.remove(contact);
            }
            Change::Append { record, .. } => return self.append(record),
            Change::Rewrite { position, stanza, .. } => {
                if let Some(record) = self.log.get_mut(position) {
                    record.stanza = stanza.clone();
                }
            }
            Change::Taken { positions, .. } => {
                for position in positions {
                    let Some(record) = self.log.get_mut(position) else {
                        continue;
                    };
                    record.pending = false;
                    if !record.archived {
                        self.log.remove(position);
                    }
                }
            }
            Change::Prune { up_to, .. } => self.log.retain(|position, record| record.pending || position > up_to),
            Change::Trim { before, records_max, bytes_max, .. } => self.trim(*before, *records_max, *bytes_max),
            Change::SessionPut { row, .. } => {
                self.sessions.insert(row.resource.clone(), row.clone());
            }
            Change::SessionDelete { resource, .. } => {
                self.sessions.remove(resource);
            }
            Change::ReceivedDelete { resource, .. } => {
                if let Some(row) = self.sessions.get_mut(resource) {
                    row.received = None;
                }
            }
            Change::BlobPut { space, key, value, .. } => {
                self.blobs.insert((space.clone(), key.clone()), value.clone());
            }
            Change::BlobDelete { space, key, .. } => {
                self.blobs.remove(&(space.clone(), key.clone()));
            }
            Change::BlockPut { jid, .. } => {
                self.blocks.insert(jid.clone());
            }
            Change::BlockDelete { jid, .. } => {
                self.blocks.remove(jid);
            }
            Change::TokenPut { token, .. } => {
                self.tokens.insert((token.client.clone(), token.mechanism.clone()), token.clone());
                while self.tokens.len() > TOKENS_PER_ACCOUNT_MAX {
                    let first = self.tokens.iter().min_by_key(|(name, token)| (token.expires, (*name).clone()));
                    let Some(name) = first.map(|(name, _)| name.clone()) else { break };
                    self.tokens.remove(&name);
                }
            }
            Change::TokenDelete { client, mechanism, .. } => {
                self.tokens.remove(&(client.clone(), mechanism.clone()));
            }
            Change::LastActivity { left, status, .. } => self.last_activity = Some((*left, status.clone())),
            Change::OutboxPut { .. } | Change::OutboxDelete { .. } | Change::DomainReached { .. } => {
                unreachable!("of no account")
            }
        }
        Ok(Outcome::Done)
    }

    fn append(&mut self, record: &Record) -> Result<Outcome, StoreError> {
        if let Some(position) = record.dedupe.and_then(|key| self.dedupe.get(&key)) {
            return Ok(Outcome::Duplicate(*position));
        }
        if record.position <= self.appended {
            return Err(StoreError::Damaged(position_must_grow(record.position, self.appended)));
        }
        self.appended = record.position;
        if let Some(key) = record.dedupe {
            self.dedupe.insert(key, record.position);
        }
        if record.pending || record.archived {
            self.log.insert(record.position, record.clone());
        }
        Ok(Outcome::Done)
    }

    fn trim(&mut self, before: i64, records_max: Option<u64>, bytes_max: u64) {
        let archived = || self.log.values().filter(|record| record.archived);
        let surplus = records_max.and_then(|max| archived().rev().nth(max as usize));
        let before = surplus.map_or(before, |newest| before.max(newest.position + 1));
        let mut bytes: u64 = archived().map(|record| record.stanza.len() as u64).sum();
        let mut gone = Vec::new();
        for record in archived().filter(|record| !record.pending).take(TRIM_MAX) {
            if record.position >= before && bytes <= bytes_max {
                break;
            }
            bytes -= record.stanza.len() as u64;
            gone.push(record.position);
        }
        for position in gone {
            self.log.remove(&position);
        }
    }

    fn record(&self, epoch: u64) -> AccountRecord {
        let pending = || self.log.values().filter(|record| record.pending);
        let (space, key) = PHOTO_HASH;
        let photo_hash = self.blobs.get(&(space.into(), key.into()));
        AccountRecord {
            created: self.created,
            disabled: self.disabled,
            roster_version: self.roster_version,
            roster: self.roster.values().cloned().collect(),
            requests: self
                .requests
                .iter()
                .map(|(contact, (stanza, received))| (contact.clone(), stanza.clone(), *received))
                .collect(),
            blocks: self.blocks.iter().cloned().collect(),
            last_position: self.log.last_key_value().map_or(0, |(position, _)| *position),
            pending: pending().map(|record| record.position).collect(),
            pending_bytes: pending().map(|record| record.stanza.len() as u64).sum(),
            last_activity: self.last_activity.clone(),
            sessions: self.sessions.values().filter(|row| row.epoch < epoch).cloned().collect(),
            photo_hash: photo_hash.and_then(|value| std::str::from_utf8(value).ok()).map(Into::into),
            settings: self
                .blobs
                .iter()
                .filter(|((space, _), _)| **space == *SETTINGS)
                .map(|((_, key), value)| (key.clone(), value.clone()))
                .collect(),
        }
    }

    fn page(&self, query: &PageQuery) -> Page {
        let matches: Vec<&Record> =
            self.log.values().filter(|record| record.archived && query.matches(record)).collect();
        let paged: Vec<&Record> = matches.iter().copied().filter(|record| query.pages(record.position)).collect();
        let mut bytes = 0;
        let fits = |record: &&Record| {
            let fits = query.has_room(bytes);
            bytes += record.stanza.len();
            fits
        };
        let all = paged.len();
        let mut records: Vec<Record> = if query.backwards {
            paged.into_iter().rev().take(query.limit).take_while(fits).cloned().collect()
        } else {
            paged.into_iter().take(query.limit).take_while(fits).cloned().collect()
        };
        if query.backwards {
            records.reverse();
        }
        let told = records.iter().map(|record| record.stanza.len()).sum();
        let complete = records.len() == all && query.has_room(told);
        let first_index = records
            .first()
            .map(|first| matches.iter().filter(|record| record.position < first.position).count() as u64);
        Page {
            complete,
            count: query.want_count.then_some(matches.len() as u64),
            first_index: first_index.filter(|_| query.want_count),
            records,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{self, Subject};
    use std::sync::Arc;

    struct InMemory(MemoryStore);

    impl Subject for InMemory {
        type Store = MemoryStore;
        fn fresh() -> InMemory {
            InMemory(MemoryStore::new())
        }
        fn store(&self) -> &MemoryStore {
            &self.0
        }
        fn reopened(self) -> InMemory {
            InMemory(self.0.reopened())
        }
    }

    crate::contract_tests!(InMemory);

    type Heard = Arc<Mutex<Vec<Result<Vec<Outcome>, StoreError>>>>;

    fn create(store: &MemoryStore, heard: &Heard) {
        let heard = heard.clone();
        store.commit(
            contract::fence(store),
            vec![contract::create("juliet@capulet.example")],
            Box::new(move |outcome| heard.lock().push(outcome)),
        );
    }

    #[test]
    fn a_stepped_store_commits_when_it_is_told_to() {
        let store = MemoryStore::stepped();
        let heard = Arc::default();
        create(&store, &heard);
        assert!(heard.lock().is_empty());
        assert_eq!((store.queued(), store.figures().accounts), (1, 0));
        assert!(store.step());
        assert_eq!(*heard.lock(), [Ok(vec![Outcome::Done])]);
        assert!(!store.step());
    }

    #[test]
    fn a_crash_loses_what_is_queued_and_fences_the_old_handle() {
        let store = MemoryStore::stepped();
        let heard = Arc::default();
        create(&store, &heard);
        let reopened = store.reopened();
        assert_eq!((store.step_all(), reopened.figures().accounts), (0, 0));
        create(&store, &heard);
        store.step();
        assert_eq!(*heard.lock(), [Err(StoreError::Fenced)]);
    }

    #[test]
    fn a_crash_in_the_midst_of_a_write_leaves_its_beginning_untold() {
        let store = MemoryStore::stepped();
        let heard = Arc::default();
        create(&store, &heard);
        create(&store, &heard);
        let reopened = store.reopened_after(1);
        assert_eq!(reopened.figures().accounts, 1);
        assert!(heard.lock().is_empty());
    }

    #[test]
    fn an_injected_failure_hits_one_commit_and_a_fatal_one_all() {
        let store = MemoryStore::new();
        let heard = Arc::default();
        store.fail_next(StoreError::Full);
        create(&store, &heard);
        create(&store, &heard);
        store.fail_next(StoreError::Fatal("fsync".into()));
        create(&store, &heard);
        create(&store, &heard);
        let fatal = || Err(StoreError::Fatal("fsync".into()));
        assert_eq!(*heard.lock(), [Err(StoreError::Full), Ok(vec![Outcome::Done]), fatal(), fatal()]);
    }

    #[test]
    fn a_failure_does_not_refuse_what_is_there_from_before() {
        let store = MemoryStore::new();
        let heard = Arc::default();
        create(&store, &heard);
        let say = |position, key| {
            let heard = Arc::clone(&heard);
            let record = Record { dedupe: Some([key; 16]), ..contract::record(position) };
            let change = Change::Append { account: contract::bare("juliet@capulet.example"), record };
            store.commit(contract::fence(&store), vec![change], Box::new(move |answer| heard.lock().push(answer)));
        };
        say(1, 1);
        store.fail_next(StoreError::Fatal("fsync".into()));
        say(2, 2);
        say(3, 1);
        let fatal = Err(StoreError::Fatal("fsync".into()));
        assert_eq!(heard.lock()[2..], [fatal, Ok(vec![Outcome::Duplicate(1)])]);
    }

    #[test]
    fn a_commit_from_within_done_is_done_after_it() {
        let store = Arc::new(MemoryStore::new());
        let heard = Arc::default();
        let (again, outer) = (store.clone(), Arc::clone(&heard));
        let done = Box::new(move |outcome| {
            create(&again, &outer);
            outer.lock().push(outcome);
        });
        store.commit(contract::fence(&*store), vec![contract::create("romeo@montague.example")], done);
        assert_eq!(*heard.lock(), [Ok(vec![Outcome::Done]), Ok(vec![Outcome::Done])]);
        assert_eq!(store.figures().accounts, 2);
    }
}
