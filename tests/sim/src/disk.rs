//! The disk of one server: the store in memory, with the time that a sync takes, and what can go wrong with it.

use crate::random::Random;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use store::memory::MemoryStore;
use store::{
    AccountRecord, AccountSummary, Change, Committed, Fence, Figures, KeyFigures, Login, OutboxRow, Overdue, Page,
    PageQuery, Record, Reply, SessionRow, Store, StoreError, Token, WaitingPlace,
};
use tokio::sync::Notify;
use tokio::time::sleep;
use xmpp::{BareJid, Stamp};

/// What is wrong with the disk at the moment.
#[derive(Debug, Default)]
pub struct Trouble {
    /// No space left.
    pub full: AtomicBool,
    /// Syncs take so many milliseconds more.
    pub slow_ms: AtomicU64,
    /// The next sync fails, and with it the store: it is opened anew by a restart.
    pub fails: AtomicBool,
    /// It has failed.
    pub failed: AtomicBool,
}

pub struct Disk {
    store: MemoryStore,
    queued: Notify,
    random: Mutex<Random>,
    pub trouble: Arc<Trouble>,
}

impl Disk {
    pub fn new(random: Random) -> Disk {
        Disk {
            store: MemoryStore::stepped(),
            queued: Notify::new(),
            random: Mutex::new(random),
            trouble: Arc::default(),
        }
    }

    /// After a crash: of what was queued a beginning is there, the rest is lost.
    pub fn reopened(&self) -> Disk {
        let mut random = self.random.lock();
        let written = random.below(self.store.queued() as u64 + 1) as usize;
        Disk {
            store: self.store.reopened_after(written),
            queued: Notify::new(),
            random: Mutex::new(Random::new(random.draw(), 1)),
            trouble: Arc::default(),
        }
    }

    /// Writes at once: for what was there before the scene begins.
    pub fn prepare(&self, fence: Fence, changes: Vec<Change>) {
        self.store.commit(fence, changes, Box::new(|outcome| drop(outcome.expect("the scene's own changes are good"))));
        self.store.step_all();
    }

    pub fn queue_length(&self) -> usize {
        self.store.queued()
    }

    /// The writer: takes what is queued, syncs, tells. Never returns.
    pub async fn write(self: Arc<Disk>) {
        loop {
            let batch = self.store.queued();
            if batch == 0 {
                self.queued.notified().await;
                continue;
            }
            let sync = self.random.lock().millis(1, 8);
            sleep(sync + Duration::from_millis(self.trouble.slow_ms.load(Ordering::Relaxed))).await;
            if self.trouble.fails.swap(false, Ordering::Relaxed) {
                self.store.fail_next(StoreError::Fatal("sync".into()));
                self.trouble.failed.store(true, Ordering::Relaxed);
            }
            for _ in 0..batch {
                if self.trouble.full.load(Ordering::Relaxed) {
                    self.store.fail_next(StoreError::Full);
                }
                self.store.step();
            }
        }
    }

    /// Reads take a moment too.
    async fn read(&self) {
        let pause = {
            let mut random = self.random.lock();
            match random.one_in(3) {
                true => random.millis(1, 6),
                false => Duration::ZERO,
            }
        };
        if !pause.is_zero() {
            sleep(pause).await;
        }
    }
}

impl Store for Disk {
    fn commit(&self, fence: Fence, changes: Vec<Change>, done: Committed) {
        self.store.commit(fence, changes, done);
        self.queued.notify_one();
    }

    fn load_account<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<AccountRecord>> {
        Box::pin(async move {
            self.read().await;
            self.store.load_account(account).await
        })
    }

    fn login<'a>(&'a self, account: &'a BareJid) -> Reply<'a, Option<Login>> {
        Box::pin(async move {
            self.read().await;
            self.store.login(account).await
        })
    }

    fn tokens<'a>(&'a self, account: &'a BareJid, client: &'a str) -> Reply<'a, Vec<Token>> {
        self.store.tokens(account, client)
    }

    fn inbox_after<'a>(
        &'a self,
        account: &'a BareJid,
        after: i64,
        only_pending: bool,
        limit: usize,
    ) -> Reply<'a, Vec<Record>> {
        Box::pin(async move {
            self.read().await;
            self.store.inbox_after(account, after, only_pending, limit).await
        })
    }

    fn overdue(&self, behind: Option<WaitingPlace>, limit: usize, now: Stamp, before: Stamp) -> Reply<'_, Overdue> {
        self.store.overdue(behind, limit, now, before)
    }

    fn inbox_page<'a>(&'a self, account: &'a BareJid, page: &'a PageQuery) -> Reply<'a, Page> {
        Box::pin(async move {
            self.read().await;
            self.store.inbox_page(account, page).await
        })
    }

    fn blob<'a>(&'a self, account: &'a BareJid, space: &'a str, key: &'a str) -> Reply<'a, Option<Vec<u8>>> {
        Box::pin(async move {
            self.read().await;
            self.store.blob(account, space, key).await
        })
    }

    fn accounts<'a>(&'a self, host: &'a str, after: &'a str, limit: usize) -> Reply<'a, Vec<AccountSummary>> {
        self.store.accounts(host, after, limit)
    }

    fn key_figures(&self) -> Reply<'_, BTreeMap<Box<str>, KeyFigures>> {
        self.store.key_figures()
    }

    fn session_ledger(&self) -> Reply<'_, Vec<(BareJid, SessionRow)>> {
        self.store.session_ledger()
    }

    fn outbox(&self, after: i64, limit: usize) -> Reply<'_, Vec<OutboxRow>> {
        self.store.outbox(after, limit)
    }

    fn domains_reached(&self) -> Reply<'_, Vec<(BareJid, Box<str>, Stamp)>> {
        self.store.domains_reached()
    }

    fn epoch(&self) -> u64 {
        self.store.epoch()
    }

    fn figures(&self) -> Figures {
        self.store.figures()
    }

    fn close(&self) -> Reply<'_, ()> {
        self.store.close()
    }
}
