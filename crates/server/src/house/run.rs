//! From a configuration to a server that serves, and its end.

use super::operations::Operations;
use super::{HostEntry, House, Seams, accounts, commits, old_keys, overdue, retention, timers};
use crate::admin::AdminOps;
use crate::admin::server::AdminSocket;
use crate::certificates::Certificates;
use crate::component;
use crate::config::{Config, ListenKind, ListenOperations, ListenTls, Listener};
use crate::crypto::AwsLc;
use crate::data;
use crate::edge::{EdgeConfig, EdgeLimits};
use crate::listen::admission::{Admission, Bounds};
use crate::listen::{self, ListenerContext};
use crate::s2s;
use crate::s2s::dns::Resolve;
use crate::s2s::nearby::{self, Nearby};
use crate::signals::{Signal, Signals};
use crate::systemd::{self, Inherited};
use crate::world::{Listening, World};
use cluster::Local;
use im::{EdgeItem, Host, Item};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;
use store::Store;
use store_sqlite::SqliteStore;
use stream::Crypto;
use tokio::task::JoinHandle;
use xmpp::{Stamp, StreamCondition, StreamFault};

/// The running parts, for reloads.
pub struct Running {
    pub house: Arc<House>,
    pub certificates: Arc<Certificates>,
    pub admission: Arc<Admission>,
    listeners: Vec<(Listener, Arc<ListenerContext>)>,
    tasks: Vec<JoinHandle<()>>,
}

/// What clients' listeners give to streams that begin.
pub struct Streams {
    certificates: Arc<Certificates>,
    listeners: Box<[(Listener, Arc<ListenerContext>)]>,
}

impl Streams {
    /// By the configuration and the accounts of now.
    pub fn renew(&self, house: &House) {
        let config = house.config.read().clone();
        for (listener, context) in &self.listeners {
            *context.edge.write() = Arc::new(edge_config(&config, listener, &self.certificates, house));
        }
    }
}

pub fn hosts_of(
    config: &Config,
    old: &HashMap<Box<str>, Arc<HostEntry>>,
    now: im::Now,
    seams: &Seams,
) -> HashMap<Box<str>, Arc<HostEntry>> {
    let mut hosts = HashMap::new();
    for host in &config.hosts {
        let Ok(mut policy) = config.policy(host) else { continue };
        seams.put_behind(&mut policy);
        let policy = Arc::new(policy);
        let entry = match old.get(&host.domain) {
            Some(entry) => {
                *entry.policy.write() = policy.clone();
                entry.host.lock().policy = policy;
                entry.clone()
            }
            None => Arc::new(HostEntry {
                policy: RwLock::new(policy.clone()),
                host: Mutex::new(Host { policy, now, started: now }),
            }),
        };
        hosts.insert(host.domain.clone(), entry);
    }
    hosts
}

/// Servers nearby are services that the hosts list (XEP-0030 §4): so users find them.
async fn list_nearby(house: Weak<House>, nearby: Arc<Nearby>) {
    loop {
        nearby.changed.notified().await;
        let Some(house) = house.upgrade() else { return };
        let domains = nearby.domains();
        let seen = || domains.iter().filter_map(|domain| xmpp::BareJid::of_domain(domain).ok());
        let (config, hosts) = (house.config.read().clone(), house.hosts.read().clone());
        for host in &config.hosts {
            let (Ok(mut policy), Some(entry)) = (config.policy(host), hosts.get(&host.domain)) else { continue };
            policy.services.extend(seen().map(|jid| (jid.into(), "A server nearby".to_owned())));
            let policy = Arc::new(policy);
            *entry.policy.write() = policy.clone();
            entry.host.lock().policy = policy;
        }
    }
}

pub fn bounds_of(config: &Config) -> Bounds {
    let limits = &config.limits;
    let rates = limits.rates;
    Bounds {
        per_second: if rates { f64::from(limits.connections_per_second) } else { 0.0 },
        burst: f64::from(limits.connections_burst),
        unauthenticated_per_address_max: if rates {
            limits.unauthenticated_per_address_max as usize
        } else {
            usize::MAX
        },
        per_address_max: if rates { limits.connections_per_address_max as usize } else { usize::MAX },
        unauthenticated_max: (listen::files_max() * limits.unauthenticated_percent as usize / 100).max(16),
        failures_delay: if rates { limits.auth_failures_delay_after } else { 0 },
        failures_refuse: if rates { limits.auth_failures_refuse_after } else { 0 },
        failures_window_ms: u64::from(limits.auth_failures_window_seconds) * 1_000,
        refuse_ms: u64::from(limits.auth_refused_seconds) * 1_000,
        registrations_per_hour: if rates { limits.registrations_per_hour } else { 0 },
        invited_per_hour: if rates { limits.invited_registrations_per_hour } else { 0 },
    }
}

pub fn edge_limits_of(config: &Config) -> EdgeLimits {
    let limits = &config.limits;
    let seconds = |s: u32| Duration::from_secs(u64::from(s));
    let rate = |value: u64| if limits.rates { u32::try_from(value).unwrap_or(u32::MAX) } else { 0 };
    EdgeLimits {
        first_byte_timeout: seconds(limits.first_byte_seconds),
        tls_handshake_timeout: seconds(limits.tls_handshake_seconds),
        negotiation_timeout: seconds(limits.authentication_seconds),
        idle_ping_after: seconds(limits.idle_ping_seconds),
        idle_close_after: seconds(limits.idle_close_seconds),
        ack_timeout: seconds(limits.ack_seconds),
        write_timeout: seconds(limits.write_seconds),
        queue_items_max: limits.send_queue_stanzas_max,
        queue_bytes_max: limits.send_queue_bytes_max,
        bytes_per_second: rate(limits.inbound_bytes_per_second),
        bytes_burst: u32::try_from(limits.inbound_bytes_burst).unwrap_or(u32::MAX),
        stanzas_per_second: rate(u64::from(limits.stanzas_per_second)),
        stanzas_burst: limits.stanzas_burst,
        ..EdgeLimits::default()
    }
}

/// What a listener's streams are given.
fn edge_config(config: &Config, listener: &Listener, certificates: &Arc<Certificates>, house: &House) -> EdgeConfig {
    let sha1_first = |domain: &str| house.old_keys.of(domain).sha1_first;
    let tls = match listener.tls {
        ListenTls::Required => stream::Tls::Required,
        ListenTls::Optional => stream::Tls::Optional,
        ListenTls::Direct => stream::Tls::Direct,
    };
    EdgeConfig {
        stream: Arc::new(stream::Config {
            hosts: config
                .hosts
                .iter()
                .map(|h| (h.domain.clone(), host_auth(h, sha1_first(&h.domain), house.caps(&h.domain))))
                .collect(),
            default_host: config.hosts.first().map(|h| h.domain.clone()),
            tls,
            limits_before_auth: config.limits.before_auth(),
            limits_after_auth: config.limits.after_auth(),
            idle_seconds: Some(config.limits.idle_ping_seconds),
            secret: house.secret.clone(),
            auth_attempts_max: u8::try_from(config.limits.auth_failures_per_connection_max).unwrap_or(u8::MAX),
            iterations_sha1: config.accounts.scram_iterations,
            iterations_sha256: config.accounts.scram_iterations,
            bind_features: vec![im::roles::NS],
            ..stream::Config::default()
        }),
        certificates: certificates.clone(),
        direct_tls: listener.tls == ListenTls::Direct,
        crypto: house.crypto.clone(),
        roles: match listener.operations {
            ListenOperations::All => im::roles::Roles::ALL,
            ListenOperations::Presence => im::roles::Roles::PRESENCE,
            ListenOperations::Messages => im::roles::Roles::MESSAGES,
        },
        limits: edge_limits_of(config),
    }
}

fn host_auth(host: &crate::config::Host, sha1_first: bool, caps: Vec<u8>) -> stream::HostAuth {
    use crate::config::Mechanism as Named;
    use stream::sasl::Mechanism;
    let mut mechanisms: Vec<Mechanism> = Vec::new();
    if host.options.client_ca.is_some() {
        mechanisms.push(Mechanism::External);
    }
    mechanisms.extend(host.options.mechanisms.iter().map(|m| match m {
        Named::ScramSha256Plus => Mechanism::ScramSha256Plus,
        Named::ScramSha1Plus => Mechanism::ScramSha1Plus,
        Named::ScramSha256 => Mechanism::ScramSha256,
        Named::ScramSha1 => Mechanism::ScramSha1,
        Named::Plain => Mechanism::Plain,
    }));
    let is_sha1 = |it: &Mechanism| matches!(it, Mechanism::ScramSha1Plus | Mechanism::ScramSha1);
    if sha1_first && mechanisms.iter().any(is_sha1) {
        mechanisms.retain(|it| !matches!(it, Mechanism::ScramSha256Plus | Mechanism::ScramSha256));
    }
    if host.options.anonymous {
        mechanisms.push(Mechanism::Anonymous);
    }
    stream::HostAuth {
        mechanisms,
        registration_open: host.options.registration == crate::config::Registration::Open,
        invitations: host.options.registration == crate::config::Registration::Invite,
        caps,
        ..stream::HostAuth::default()
    }
}

/// Of the tasks, the first so many go on until the store is closed: what carries commits, and time.
const LASTING: usize = 3;
/// For what accounts write last, however long the rest took.
const LAST_THINGS: Duration = Duration::from_secs(5);

impl Running {
    /// Opens everything and listens; streams are taken from here on.
    ///
    /// # Errors
    /// The first thing that cannot be had: an address, the caps of a host.
    pub async fn start(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        certificates: Arc<Certificates>,
        secret: Vec<u8>,
        mut inherited: Inherited,
        mut world: World,
    ) -> Result<Running, String> {
        let now = im::Now { utc: Stamp(0), mono_ms: 0 };
        let seams = Seams::new(&secret, world.crypto.clone());
        let hosts = hosts_of(&config, &HashMap::new(), now, &seams);
        let cluster = Box::new(Local::new(store.epoch()));
        let authenticator = Box::new(accounts::Internal(store.clone()));
        let house = House::new(config.clone(), store, cluster, hosts, authenticator, &world, seams);
        house.invitations.open(config.data.join("invitations"))?;
        house.notices.open(config.data.join(super::notices::FILE))?;
        house.decide_claims().await.map_err(|error| format!("the store cannot be read: {error}"))?;
        house.old_keys.open(config.data.join(old_keys::FILE));
        let counted = old_keys::count(&house).await;
        counted.map_err(|error| format!("the store cannot be read: {error}"))?;
        let admission = Admission::new(bounds_of(&config));
        let mut running =
            Running { house: house.clone(), certificates, admission, listeners: Vec::new(), tasks: Vec::new() };
        running.tasks.push(tokio::spawn(commits::carry(house.clone())));
        running.tasks.push(tokio::spawn(commits::hand_over(house.clone())));
        running.tasks.push(tokio::spawn(timers::carry(house.clone())));
        running.tasks.push(tokio::spawn(retention::carry(house.clone())));
        running.tasks.push(tokio::spawn(overdue::carry(house.clone())));
        running.tasks.push(tokio::spawn(super::classes::carry(house.clone())));
        house.components.set(component::Policy::of(&config)?);
        running.federate(&config, &mut world).await?;
        for listener in &config.listeners {
            let context = Arc::new(ListenerContext {
                edge: RwLock::new(Arc::new(running.edge_config(&config, listener))),
                admission: running.admission.clone(),
                proxy_protocol: listener.proxy_protocol,
            });
            let sockets = match inherited.claim(&listener.address) {
                Some(socket) => vec![Listening::Tcp(
                    tokio::net::TcpListener::from_std(socket)
                        .map_err(|e| format!("the socket that systemd passed cannot be used: {e}"))?,
                )],
                None => world.network.listen(&listener.address)?,
            };
            for socket in sockets {
                running.tasks.push(match listener.kind {
                    ListenKind::C2s => tokio::spawn(listen::accept(house.clone(), context.clone(), socket)),
                    ListenKind::S2s => tokio::spawn(listen::accept_servers(house.clone(), context.clone(), socket)),
                });
            }
            running.listeners.push((listener.clone(), context));
        }
        let streams =
            Streams { certificates: running.certificates.clone(), listeners: running.listeners.clone().into() };
        running.tasks.push(tokio::spawn(old_keys::carry(house.clone(), streams)));
        for address in config.component_addresses() {
            for socket in world.network.listen(&address)? {
                let admission = running.admission.clone();
                running.tasks.push(tokio::spawn(listen::accept_components(house.clone(), admission, socket)));
            }
        }
        if let Some(address) = &config.metrics.address {
            for socket in world.network.listen(address)? {
                running.tasks.push(tokio::spawn(crate::metrics::serve(
                    house.clone(),
                    running.certificates.clone(),
                    socket,
                )));
            }
        }
        let answers = &running.certificates.answers;
        running.tasks.extend(crate::acme::listen(&house, &config, answers, &world.network)?);
        running.tasks.push(tokio::spawn(crate::acme::carry(house.clone(), running.certificates.clone())));
        for address in inherited.unclaimed() {
            tracing::warn!(%address, "systemd passed a socket that no [[listen]] table names; it is not used");
        }
        house.clone().replay_ledger().await;
        Ok(running)
    }

    /// Other domains' servers can be spoken with from here on, if a listener is for them.
    async fn federate(&self, config: &Config, world: &mut World) -> Result<(), String> {
        if !config.federates() {
            return Ok(());
        }
        let policy = s2s::Policy::of(config, &self.house.secret, &*self.house.crypto);
        let trust = s2s::trust::Trust::load(&config.federation, self.certificates.clone())?;
        let resolver = self.resolver(config, world)?;
        let known = s2s::known::Known::load(config.data.join("known-servers"))?;
        let dials_max = config.limits.s2s_dials_max;
        let federation = s2s::Federation::new(self.house.clone(), policy, trust, resolver, known, dials_max);
        // Set once, here.
        let _ = self.house.federation.set(federation.clone());
        federation.take_up().await.map_err(|error| format!("what waits for other domains cannot be read: {error}"))?;
        Ok(())
    }

    /// Who knows where other servers are: DNS, and with `--ad-hoc` the local network.
    fn resolver(&self, config: &Config, world: &mut World) -> Result<Box<dyn Resolve>, String> {
        if !config.ad_hoc {
            let federation = &config.federation;
            return world.take_resolver(federation.dane, federation.dane_anchors.as_deref());
        }
        let domains: Vec<String> = config.domains().map(Into::into).collect();
        let port = |kind| {
            config
                .listeners
                .iter()
                .find(|it| it.kind == kind && it.tls != ListenTls::Direct)
                .map(|it| it.address.port())
        };
        let servers =
            port(ListenKind::S2s).ok_or("with --ad-hoc one [[listen]] with kind = \"s2s\" must not be direct TLS")?;
        let nearby = Arc::new(Nearby::start(&domains, servers, port(ListenKind::C2s))?);
        tokio::spawn(list_nearby(Arc::downgrade(&self.house), nearby.clone()));
        // Set once, here.
        let _ = self.house.nearby.set(nearby.clone());
        Ok(Box::new(nearby::Shared(nearby)))
    }

    fn edge_config(&self, config: &Config, listener: &Listener) -> EdgeConfig {
        edge_config(config, listener, &self.certificates, &self.house)
    }

    /// Takes what can be changed while running; streams that are there keep what they began with.
    ///
    /// # Errors
    /// A certificate that cannot be used; then nothing is changed.
    pub fn reload(&self, config: Arc<Config>) -> Result<(), String> {
        let federation = self.house.federation.get();
        let trust = match federation {
            Some(_) => Some(s2s::trust::Trust::load(&config.federation, self.certificates.clone())?),
            None => None,
        };
        let components = component::Policy::of(&config)?;
        self.certificates.reload(&config).map_err(|e| e.to_string())?;
        self.house.components.set(components);
        if let (Some(federation), Some(trust)) = (federation, trust) {
            *federation.trust.write() = Arc::new(trust);
            *federation.policy.write() = Arc::new(s2s::Policy::of(&config, &self.house.secret, &*self.house.crypto));
            federation.reconsider();
        }
        let old = self.house.hosts.read().clone();
        let hosts = hosts_of(&config, &old, self.house.now(), &self.house.seams);
        let gone: Vec<Box<str>> = old.keys().filter(|domain| !hosts.contains_key(*domain)).cloned().collect();
        *self.house.hosts.write() = hosts;
        self.house.end_sessions_of(&gone);
        if let Some(nearby) = self.house.nearby.get() {
            nearby.changed.notify_one();
        }
        self.admission.set_bounds(bounds_of(&config));
        for (listener, context) in &self.listeners {
            *context.edge.write() = Arc::new(self.edge_config(&config, listener));
        }
        *self.house.config.write() = config;
        // (Of domains that came.)
        self.house.old_keys.look();
        self.certificates.renewals.wake.notify_one();
        Ok(())
    }

    /// The configuration from where it came, applied as far as it can be. Gives what waits for a restart.
    ///
    /// # Errors
    /// For people; then nothing is changed.
    pub fn reload_from_sources(&self) -> Result<Vec<String>, String> {
        let old = self.house.config.read().clone();
        let new = Arc::new(old.sources.load().map_err(|problems| problems.to_string())?);
        let notes = old.unreloadable(&new);
        self.reload(new.clone())?;
        crate::log::set_level(&new.log);
        for note in &notes {
            tracing::warn!("{note}");
        }
        tracing::info!("the configuration was read again");
        Ok(notes)
    }

    pub fn addresses(&self) -> Vec<String> {
        self.listeners
            .iter()
            .map(|(listener, _)| {
                let how = match listener.tls {
                    ListenTls::Required => "STARTTLS",
                    ListenTls::Direct => "TLS",
                    ListenTls::Optional => "TLS optional",
                };
                format!("{} ({how})", listener.address)
            })
            .collect()
    }

    /// Ends as a process does that is killed, as far as this is possible from within: nothing is told, nothing written.
    #[cfg(feature = "simulated")]
    pub fn abandon(self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(federation) = self.house.federation.get() {
            federation.abandon();
        }
    }

    /// Drains: no new streams, `system-shutdown` for those that are there, what is queued reaches the disk.
    pub async fn stop(&self, patience: Duration) {
        self.house.draining.store(true, Ordering::Release);
        for task in self.tasks.iter().skip(LASTING) {
            task.abort();
        }
        self.house.edges.send_all(|| EdgeItem::Close(StreamFault::SystemShutdown));
        let deadline = tokio::time::Instant::now() + patience;
        while !self.house.edges.is_empty() && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if let Some(nearby) = self.house.nearby.get() {
            nearby.leave().await;
        }
        // Other servers hear the last presence, then their streams end.
        if let Some(federation) = self.house.federation.get() {
            federation.stop(deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        }
        self.house.components.stop(deadline.saturating_duration_since(tokio::time::Instant::now())).await;
        let (ticket, mut written) = tokio::sync::mpsc::channel::<()>(1);
        for cell in self.house.accounts_in_memory() {
            let ticket = im::Ticket(Some(Arc::new(ticket.clone())));
            self.house.post_to(&cell, super::entity::CellItem::Im(Item::ShutDown { ticket }));
        }
        drop(ticket);
        // Accounts that are at work find it in their mailbox: nothing they write may come after the store's end. (What is
        // received is the end of the last ticket.)
        let at_least = tokio::time::Instant::now() + LAST_THINGS;
        if tokio::time::timeout_at(deadline.max(at_least), written.recv()).await.is_err() {
            tracing::warn!("not all accounts have written their last things");
        }
        if let Err(error) = self.house.store.close().await {
            tracing::error!(?error, "the store could not be closed in order");
        }
        // What the last commits set off (answers, marks) needs a moment of the carriers.
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Serves until told to stop: from a checked configuration to the last write.
///
/// # Errors
/// Why it cannot start, for people: what, where, what to do.
pub async fn serve(config: Config, inherited: Inherited) -> Result<(), String> {
    let config = Arc::new(config);
    data::make_private(&config.data)?;
    let mut signals = Signals::listen().map_err(|e| format!("signals cannot be listened for: {e}"))?;
    let (stop, mut stopped) = tokio::sync::mpsc::channel(1);
    let fatal = stop.clone();
    let options = store_sqlite::Options {
        durability: match config.store.durability {
            crate::config::Durability::Full => store_sqlite::Durability::Full,
            crate::config::Durability::Os => store_sqlite::Durability::Os,
        },
        fulltext: config.store.fulltext,
        on_fatal: Some(Box::new(move |why| {
            tracing::error!(
                why,
                "the store takes no more writes; the server stops and recovers from its log when it is started again"
            );
            FAILED.store(true, Ordering::Release);
            let _ = fatal.try_send(());
        })),
        ..store_sqlite::Options::default()
    };
    let store = SqliteStore::open(&config.data, options).map_err(|e| e.to_string())?;
    let certificates = Arc::new(Certificates::load(&config).map_err(|e| e.to_string())?);
    let secret = secret(&config.data)?;
    let running = Arc::new(
        Running::start(config.clone(), Arc::new(store), certificates, secret, inherited, World::real()).await?,
    );
    let socket = AdminSocket::open(&config.admin_socket())?;
    if !config.admin.uids.is_empty() {
        socket
            .open_to_others()
            .map_err(|e| format!("the admin socket cannot be opened to the uids of [admin]: {e}"))?;
    }
    let operations: Arc<dyn AdminOps> = Arc::new(Operations { running: running.clone(), stop });
    let house = running.house.clone();
    // Set once, here.
    let _ = house.admin.set(operations.clone());
    let admin = tokio::spawn(socket.carry(operations, move || house.config.read().admin.uids.clone()));

    let renewals = tokio::spawn(crate::certificates::watch::carry(running.house.clone(), running.certificates.clone()));

    let status = running.greet(&config);
    systemd::ready(&status);
    let mut alive = systemd::watchdog().map(tokio::time::interval);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Signal::Reload => {
                    systemd::reloading();
                    if let Err(problems) = running.reload_from_sources() {
                        tracing::error!("the configuration was not read again; all stays as it was:\n{problems}");
                    }
                    systemd::ready(&status);
                }
                Signal::Stop => break,
            },
            _ = stopped.recv() => break,
            _ = tick(&mut alive) => systemd::alive(),
        }
    }
    systemd::stopping();
    if FAILED.load(Ordering::Acquire) {
        // Until then every write is answered with an error, on streams that are still there.
        tokio::time::sleep(FAILED_GRACE).await;
    }
    tracing::info!("stopping: streams are told, what is queued is written");
    let patience = Duration::from_secs(u64::from(running.house.config.read().limits.shutdown_seconds));
    tokio::select! {
        () = running.stop(patience) => {}
        // A second signal ends it at once; what was acknowledged is on disk all the same.
        Signal::Stop = signals.next() => {}
    }
    admin.abort();
    renewals.abort();
    if FAILED.load(Ordering::Acquire) {
        return Err("the store could not be written; see the log above\nfree the disk or replace it, then start waft again: nothing acknowledged is lost".into());
    }
    Ok(())
}

/// How long those whose writes failed have to hear of it before their streams end.
const FAILED_GRACE: Duration = Duration::from_secs(1);

/// The store said that it takes no more writes.
static FAILED: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);

async fn tick(alive: &mut Option<tokio::time::Interval>) {
    match alive {
        Some(interval) => {
            interval.tick().await;
        }
        None => std::future::pending().await,
    }
}

/// 32 random bytes that stay over restarts: salts for unknown users, stable resourceparts.
fn secret(data: &Path) -> Result<Vec<u8>, String> {
    let path = data.join("secret");
    match std::fs::read(&path) {
        Ok(bytes) if bytes.len() >= 32 => Ok(bytes),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot read {}: {error}\nlet the user that runs waft read it", path.display()))
        }
        // None yet, or one whose writing was cut short.
        Ok(_) | Err(_) => {
            let mut bytes = vec![0; 32];
            AwsLc.random(&mut bytes);
            data::write_secret(&path, &bytes).map_err(|e| {
                format!("cannot write {}: {e}\nlet the user that runs waft write in the data folder", path.display())
            })?;
            Ok(bytes)
        }
    }
}

impl Running {
    /// Says on stdout what is served, where the data lies and how to go on; gives the line for systemd.
    fn greet(&self, config: &Config) -> String {
        let hosts: Vec<&str> = config.hosts.iter().map(|h| &*h.domain).collect();
        let status = format!("serves {} on {}", hosts.join(", "), self.addresses().join(", "));
        let first = hosts.first().copied().unwrap_or("localhost");
        let at = if crate::config::default_data_folder() == config.data {
            String::new()
        } else {
            format!(" --data {}", config.data.display())
        };
        let mut out = std::io::stdout().lock();
        // Nobody may be reading: that is no reason not to serve.
        let _ = writeln!(out, "waft {} {status}", env!("CARGO_PKG_VERSION"));
        let _ = writeln!(out, "data lies in {}", config.data.display());
        let _ = writeln!(out, "add an account: waft user add alice@{first}{at}");
        if config.ad_hoc
            && let Some(own) = self.certificates.own(first)
            && let Some(certificate) = own.cert.first()
        {
            let fingerprint = s2s::known::fingerprint(&*self.house.crypto, certificate);
            let _ =
                writeln!(out, "servers nearby meet this one as {first} with the certificate of SHA-256 {fingerprint}");
        }
        let _ = writeln!(out, "ready");
        let _ = out.flush();
        status
    }
}

impl House {
    /// Domains that are not served any more: their users' streams end. RFC 6120 §4.9.3.5.
    fn end_sessions_of(self: &Arc<House>, domains: &[Box<str>]) {
        if domains.is_empty() {
            return;
        }
        let fault = StreamFault::Other(StreamCondition::HostGone, "This domain is not served here any more.");
        for cell in self.accounts_in_memory() {
            if domains.iter().any(|domain| **domain == *cell.jid.domain()) {
                let kick = Item::Kick { resource: None, fault: fault.clone() };
                self.post_to(&cell, super::entity::CellItem::Im(kick));
            }
        }
    }

    /// Sessions that an earlier process left in the ledger: after the window for resumption those who saw them are
    /// told. DESIGN.md D11.
    async fn replay_ledger(self: Arc<House>) {
        let rows = match self.store.session_ledger().await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(?error, "the session ledger could not be read");
                return;
            }
        };
        let mut accounts: Vec<_> =
            rows.into_iter().filter(|(_, row)| row.epoch != self.store.epoch()).map(|(account, _)| account).collect();
        accounts.dedup();
        if accounts.is_empty() {
            return;
        }
        let _ = self.cut_off.set(accounts.iter().cloned().collect());
        tracing::info!(accounts = accounts.len(), "sessions of before the restart are waited for");
        let window = Duration::from_secs(u64::from(self.config.read().limits.resume_after_restart_seconds));
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            for account in accounts {
                self.post(&account, Item::LedgerExpired);
                super::after_others().await;
            }
        });
    }
}

impl House {
    /// XEP-0115 §6.3: what the domain is, in the stream features.
    fn caps(&self, domain: &str) -> Vec<u8> {
        let hosts = self.hosts.read();
        let Some(entry) = hosts.get(domain) else { return Vec::new() };
        let policy = entry.policy.read().clone();
        im::modules::caps::stream_feature(&policy, sha1).to_bytes(xmpp::ns::CLIENT)
    }
}

fn sha1(bytes: &[u8]) -> [u8; 20] {
    let digest = crate::crypto::AwsLc.digest(stream::Hash::Sha1, bytes);
    let mut out = [0; 20];
    out.copy_from_slice(&digest);
    out
}
