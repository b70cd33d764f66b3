//! The house: entities and what carries items between them, the store, and streams.
//!
//! - [`routing`]: who owns an address, and how it is told.
//! - [`entity`]: an account in memory and its turns. [`effects`]: what becomes of each effect of a step. [`gate`]: effects
//!   wait for the commits they stand behind. [`questions`]: sessions wait for what the store is asked. [`mending`]: what is
//!   stored is read again after a commit that failed, or a panic.
//! - [`edges`]: the streams of this node and their queues.
//! - [`timers`]: ticks. [`commits`]: what the writer says. [`accounts`]: create, remove, passwords.
//! - [`retention`]: archives of those who do not come any more. [`overdue`]: what waits for them in vain.
//! - [`moving`]: accounts that come from other servers and go to them. [`acts`]: acts of administration. [`adhoc`]: the
//!   same by forms.
//! - [`operations`]: what an operator's commands do. [`run`]: from a configuration to a server that serves, and its end.

pub mod accounts;
pub mod acts;
pub mod adhoc;
pub mod aliases;
pub mod classes;
pub mod commits;
pub mod edges;
mod effects;
pub mod entity;
pub mod gate;
mod later;
pub mod mending;
pub mod moving;
pub mod notices;
pub mod old_keys;
pub mod operations;
pub mod overdue;
pub mod questions;
pub mod retention;
mod routing;
pub mod run;
#[cfg(test)]
pub mod testing;
pub mod timers;
mod turns;

use crate::component::Components;
use crate::config::Config;
use crate::invites::Invitations;
use crate::s2s::Federation;
use crate::s2s::nearby::Nearby;
use crate::watches::{Watches, Way};
use crate::world::{Network, Wall, World};
use cluster::{Cell, Cluster, Posted};
use dashmap::DashMap;
use edges::Edges;
use entity::{CellItem, Resident};
use im::operations::{Link, Operation};
use im::watchers::Authenticated;
use im::{Account, Host, HostPolicy, Item, Now};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use store::{Key, Store};
use stream::Crypto;
use tokio::time::Instant;
pub(crate) use turns::after_others;
pub use turns::{Ready, Rest};
use xmpp::{BareJid, Stamp, Stanza, StanzaCondition, StanzaError};

/// An account's cell, and its name.
#[derive(Debug)]
pub struct AccountCell {
    pub jid: BareJid,
    pub cell: Cell<Resident, CellItem>,
}

/// A hosted domain.
pub struct HostEntry {
    pub policy: RwLock<Arc<HostPolicy>>,
    pub host: Mutex<Host>,
}

/// How domains have proved themselves while they have a stream: ours, theirs; a component's for all of ours (empty).
pub type Proofs = DashMap<(Box<str>, Box<str>), Authenticated>;

/// What accounts ask the house about others: it stands behind the policy of each host.
#[derive(Clone)]
pub struct Seams {
    secret: Vec<u8>,
    pub aliases: Arc<aliases::Aliases>,
    pub proofs: Arc<Proofs>,
}

impl Seams {
    pub fn new(secret: &[u8], crypto: Arc<dyn Crypto>) -> Seams {
        let aliases = Arc::new(aliases::Aliases::new(secret, crypto));
        Seams { secret: secret.to_vec(), aliases, proofs: Arc::default() }
    }

    /// Gives a host's policy its answers.
    pub fn put_behind(&self, policy: &mut HostPolicy) {
        let (aliases, domain) = (self.aliases.clone(), policy.domain.clone());
        let make = move |local: &str, whom: &BareJid| aliases.make(local, domain.as_str(), whom);
        policy.aliases = im::policy::Aliases(Some(Arc::new(make)));
        let proofs = self.proofs.clone();
        let proved = move |ours: &str, theirs: &str| {
            let of = |ours: &str| proofs.get(&(Box::from(ours), Box::from(theirs))).map(|how| *how);
            of(ours).or_else(|| of(""))
        };
        policy.peers = im::policy::Peers(Some(Arc::new(proved)));
    }
}

pub struct House {
    pub config: RwLock<Arc<Config>>,
    pub store: Arc<dyn Store>,
    pub cluster: Box<dyn Cluster>,
    pub hosts: RwLock<HashMap<Box<str>, Arc<HostEntry>>>,
    cells: DashMap<BareJid, Arc<AccountCell>>,
    /// Whose sessions ended with the process before this one, without a farewell: [`House::tell`].
    pub(super) cut_off: OnceLock<HashSet<BareJid>>,
    pub edges: Edges,
    /// Resumption ids and whose they are.
    pub resumable: DashMap<Box<str>, BareJid>,
    /// What accounts ask the house about others.
    pub seams: Seams,
    /// The operator's questions to accounts that wait for their answers, by the iq's id.
    pub asks: DashMap<Box<str>, tokio::sync::oneshot::Sender<Arc<Stanza>>>,
    pub timers: timers::Timers,
    pub commits: commits::Commits,
    pub counters: DashMap<&'static str, AtomicU64>,
    /// Bounds that were hit, by the names of their options.
    pub limits_hit: DashMap<&'static str, AtomicU64>,
    pub started: Instant,
    pub runtime: tokio::runtime::Handle,
    /// Who is who: the local policy of the domains.
    pub authenticator: Box<dyn accounts::Authenticator>,
    pub crypto: Arc<dyn Crypto>,
    pub network: Network,
    /// For salts that unknown users are given; kept over restarts.
    pub secret: Vec<u8>,
    /// Calls queued to the store since its writer was last woken.
    uncommitted: AtomicUsize,
    /// Servers of other domains; not there: the server does not federate.
    pub federation: OnceLock<Arc<Federation>>,
    /// Servers on the local network; not there: they are not looked for.
    pub nearby: OnceLock<Arc<Nearby>>,
    /// Services of their own domains beside this server.
    pub components: Components,
    pub invitations: Invitations,
    pub notices: notices::Notices,
    /// One account is made after the other, where more is written with it.
    making: tokio::sync::Mutex<()>,
    /// Which domains have accounts that can use SCRAM-SHA-1 alone.
    pub old_keys: old_keys::OldKeys,
    /// Operators who look on.
    pub watches: Watches,
    /// What commands do, for those that come by forms.
    pub admin: OnceLock<Arc<dyn crate::admin::AdminOps>>,
    /// No new streams, no new sessions.
    pub draining: AtomicBool,
    clock: Clock,
}

/// UTC that does not jump backwards within the process, and monotonic milliseconds.
struct Clock {
    wall: Wall,
    started: Instant,
    last_utc: AtomicU64,
}

impl House {
    pub fn new(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        cluster: Box<dyn Cluster>,
        hosts: HashMap<Box<str>, Arc<HostEntry>>,
        authenticator: Box<dyn accounts::Authenticator>,
        world: &World,
        seams: Seams,
    ) -> Arc<House> {
        Arc::new(House {
            config: RwLock::new(config),
            store,
            cluster,
            hosts: RwLock::new(hosts),
            cells: DashMap::new(),
            edges: Edges::default(),
            resumable: DashMap::new(),
            secret: seams.secret.clone(),
            seams,
            asks: DashMap::new(),
            timers: timers::Timers::default(),
            cut_off: OnceLock::new(),
            commits: commits::Commits::default(),
            counters: DashMap::new(),
            limits_hit: DashMap::new(),
            started: Instant::now(),
            runtime: tokio::runtime::Handle::current(),
            authenticator,
            crypto: world.crypto.clone(),
            network: world.network.clone(),
            uncommitted: AtomicUsize::new(0),
            federation: OnceLock::new(),
            nearby: OnceLock::new(),
            components: Components::default(),
            invitations: Invitations::default(),
            notices: notices::Notices::default(),
            making: tokio::sync::Mutex::new(()),
            old_keys: old_keys::OldKeys::default(),
            watches: Watches::default(),
            admin: OnceLock::new(),
            draining: AtomicBool::new(false),
            clock: Clock { wall: world.wall.clone(), started: Instant::now(), last_utc: AtomicU64::new(0) },
        })
    }

    pub fn now(&self) -> Now {
        let wall = self.clock.wall.micros();
        let utc = self.clock.last_utc.fetch_max(wall, Ordering::AcqRel).max(wall);
        Now { utc: Stamp(utc as i64), mono_ms: self.clock.started.elapsed().as_millis() as u64 }
    }

    /// Counts a stanza with the operation set that it is of, and logs it there.
    pub fn operation(&self, stanza: &Stanza, link: Link) -> Operation {
        let operation = Operation::of(stanza, link);
        self.count(operation.name());
        if link == Link::Server && self.watches.any() {
            // From whom we do not serve it has come.
            let is_ours = stanza.from.as_ref().is_some_and(|from| self.host(from.domain()).is_some());
            let way = if is_ours { Way::ToServer } else { Way::FromServer };
            self.watches.see(self.now().utc, way, None, stanza);
        }
        tracing::trace!(target: "operations", set = operation.name(), kind = ?stanza.kind, from = ?stanza.from, to = ?stanza.to);
        operation
    }

    pub fn count(&self, name: &'static str) {
        match self.counters.get(name) {
            Some(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.counters.entry(name).or_default().fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// A bound was hit: that of the option of this name.
    pub fn limit(&self, name: &'static str) {
        match self.limits_hit.get(name) {
            Some(counter) => {
                counter.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                self.limits_hit.entry(name).or_default().fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// How often something was counted.
    #[cfg(feature = "simulated")]
    pub fn counted(&self, name: &str) -> u64 {
        self.counters.get(name).map_or(0, |counter| counter.load(Ordering::Relaxed))
    }

    pub fn host(&self, domain: &str) -> Option<Arc<HostEntry>> {
        self.hosts.read().get(domain).cloned()
    }

    pub fn policy(&self, domain: &str) -> Option<Arc<HostPolicy>> {
        self.host(domain).map(|h| h.policy.read().clone())
    }

    pub fn accounts_in_memory(&self) -> Vec<Arc<AccountCell>> {
        let mut cells: Vec<_> = self.cells.iter().map(|c| c.value().clone()).collect();
        // In one order always: a run can be repeated.
        cells.sort_by(|a, b| a.jid.cmp(&b.jid));
        cells
    }

    /// Queues changes to the store; they go with those of the work under way, see [`House::work`].
    pub fn commit_soon(&self, fence: store::Fence, changes: Vec<store::Change>, done: store::Committed) {
        self.store.commit_soon(fence, changes, done);
        self.uncommitted.fetch_add(1, Ordering::AcqRel);
    }

    /// The cell of an account that is in memory.
    pub fn resident(&self, account: &BareJid) -> Option<Arc<AccountCell>> {
        self.cells.get(account).map(|c| c.clone())
    }

    /// The cell of an account, loading it if need be.
    pub fn cell(self: &Arc<House>, account: &BareJid) -> Arc<AccountCell> {
        if let Some(cell) = self.resident(account) {
            return cell;
        }
        match self.cells.entry(account.clone()) {
            dashmap::Entry::Occupied(entry) => entry.get().clone(),
            dashmap::Entry::Vacant(entry) => {
                let cell = Arc::new(AccountCell { jid: account.clone(), cell: Cell::loading(None) });
                entry.insert(cell.clone());
                self.load(cell.clone());
                cell
            }
        }
    }

    /// Leaves an item in an account's mailbox; a cell that this task must run goes to `ready`.
    pub fn leave(self: &Arc<House>, account: &BareJid, item: CellItem, ready: &mut Ready) {
        let mut item = item;
        // A cell that goes between look-up and post is looked up again; each round ends another cell's life.
        loop {
            let cell = self.cell(account);
            match cell.cell.post(item) {
                Posted::Run => return ready.push_back(cell),
                Posted::Queued => return,
                Posted::Full(item) => return self.refuse_full(item, ready),
                Posted::Gone(back) => {
                    self.forget(&cell);
                    item = back;
                }
            }
        }
    }

    fn forget(&self, cell: &Arc<AccountCell>) {
        self.cells.remove_if(&cell.jid, |_, c| Arc::ptr_eq(c, cell));
    }

    /// A mailbox was full: a stanza gets an error, anything else is dropped with a word in the log.
    fn refuse_full(self: &Arc<House>, item: CellItem, ready: &mut Ready) {
        self.count("mailbox_full");
        match item {
            CellItem::Im(Item::Inbound { stanza, ticket, .. } | Item::FromClient { stanza, ticket, .. }) => {
                let busy =
                    StanzaError::from(StanzaCondition::ResourceConstraint).with_type(xmpp::error::ErrorType::Wait);
                self.answer_error(&stanza, &busy, ticket, ready);
            }
            other => {
                tracing::error!(item = ?std::mem::discriminant(&other), "an account's mailbox is full; an item was dropped")
            }
        }
    }

    /// Reads an account's record and lets its cell run.
    fn load(self: &Arc<House>, cell: Arc<AccountCell>) {
        let house = self.clone();
        self.runtime.spawn(async move {
            let loaded = house.store.load_account(&cell.jid).await;
            let mut ready = Ready::new();
            let policy = house.policy(cell.jid.domain());
            match (loaded, policy) {
                (Ok(Some(record)), Some(policy)) => {
                    let resident = house.resident_of(cell.jid.clone(), policy, record);
                    cell.cell.loaded(resident);
                    ready.push_back(cell);
                }
                (Ok(_), _) => {
                    house.forget(&cell);
                    for item in cell.cell.close() {
                        house.no_such_account(item, &mut ready);
                    }
                }
                (Err(error), _) => {
                    tracing::error!(account = %cell.jid, ?error, "account could not be read");
                    house.forget(&cell);
                    for item in cell.cell.close() {
                        house.not_now(item, &mut ready);
                    }
                }
            }
            house.work(&mut ready);
        });
    }

    fn resident_of(&self, jid: BareJid, policy: Arc<HostPolicy>, record: store::AccountRecord) -> Resident {
        let fence = match self.cluster.place(&Key::Bare(jid.clone())) {
            cluster::Place::Here(fence) => fence,
            // One node: never. The fence of epoch 0 is refused by the store.
            cluster::Place::There(_) | cluster::Place::Moving => {
                store::Fence { partition: Key::Bare(jid.clone()).partition(), epoch: 0 }
            }
        };
        let policy = classes::policy_of(&self.config.read(), policy, &record.settings);
        let mut account = Account::new(jid, policy, self.store.epoch(), record);
        account.now = self.now();
        let mut key = [0; 32];
        self.crypto.random(&mut key);
        account.offer_key(key);
        Resident::new(account, fence)
    }

    /// An account that lives in memory only: SASL ANONYMOUS (RFC 4505).
    pub fn open_anonymous(self: &Arc<House>, jid: &BareJid) -> bool {
        let Some(policy) = self.policy(jid.domain()) else { return false };
        match self.cells.entry(jid.clone()) {
            dashmap::Entry::Occupied(_) => false,
            dashmap::Entry::Vacant(entry) => {
                let cell = Arc::new(AccountCell { jid: jid.clone(), cell: Cell::loading(None) });
                let mut resident = self.resident_of(jid.clone(), policy, store::AccountRecord::default());
                resident.fresh_until = self.now().mono_ms + 60_000;
                cell.cell.loaded(resident);
                entry.insert(cell.clone());
                let mut ready = Ready::from([cell]);
                self.work(&mut ready);
                true
            }
        }
    }
}
