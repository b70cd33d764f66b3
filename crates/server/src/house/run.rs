//! From a configuration to a server that serves, and its end.

use super::{House, HostEntry, accounts, commits, timers};
use crate::certificates::Certificates;
use crate::config::{Config, ListenTls, Listener};
use crate::edge::{EdgeConfig, EdgeLimits};
use crate::listen::admission::{Admission, Bounds};
use crate::listen::{self, ListenerContext};
use cluster::Local;
use im::{EdgeItem, Host, Item};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use store::Store;
use stream::Crypto;
use tokio::task::JoinHandle;
use xmpp::{Stamp, StreamFault};

/// The running parts, for reloads.
pub struct Running {
    pub house: Arc<House>,
    pub certificates: Arc<Certificates>,
    pub admission: Arc<Admission>,
    listeners: Vec<(Listener, Arc<ListenerContext>)>,
    tasks: Vec<JoinHandle<()>>,
}

pub fn hosts_of(config: &Config, old: &HashMap<Box<str>, Arc<HostEntry>>, now: im::Now) -> HashMap<Box<str>, Arc<HostEntry>> {
    let mut hosts = HashMap::new();
    for host in &config.hosts {
        let Ok(policy) = config.policy(host) else { continue };
        let policy = Arc::new(policy);
        let entry = match old.get(&host.domain) {
            Some(entry) => {
                *entry.policy.write() = policy.clone();
                entry.host.lock().policy = policy;
                entry.clone()
            }
            None => Arc::new(HostEntry { policy: RwLock::new(policy.clone()), host: Mutex::new(Host::new(policy, now)) }),
        };
        hosts.insert(host.domain.clone(), entry);
    }
    hosts
}

pub fn bounds_of(config: &Config) -> Bounds {
    let limits = &config.limits;
    let rates = limits.rates;
    Bounds {
        per_second: if rates { f64::from(limits.connections_per_second) } else { 0.0 },
        burst: f64::from(limits.connections_burst),
        unauthenticated_per_address_max: if rates { limits.unauthenticated_per_address_max as usize } else { usize::MAX },
        per_address_max: if rates { limits.connections_per_address_max as usize } else { usize::MAX },
        unauthenticated_max: (listen::files_max() * limits.unauthenticated_percent as usize / 100).max(16),
        failures_delay: if rates { limits.auth_failures_delay_after } else { 0 },
        failures_refuse: if rates { limits.auth_failures_refuse_after } else { 0 },
        failures_window_ms: u64::from(limits.auth_failures_window_seconds) * 1_000,
        refuse_ms: u64::from(limits.auth_refused_seconds) * 1_000,
        registrations_per_hour: if rates { limits.registrations_per_hour } else { 0 },
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
fn edge_config(config: &Config, listener: &Listener, certificates: &Arc<Certificates>, crypto: &Arc<dyn Crypto>, secret: &[u8], caps: &[u8]) -> EdgeConfig {
    let tls = match listener.tls {
        ListenTls::Required => stream::Tls::Required,
        ListenTls::Optional => stream::Tls::Optional,
        ListenTls::Direct => stream::Tls::Direct,
    };
    EdgeConfig {
        stream: Arc::new(stream::Config {
            hosts: config.hosts.iter().map(|h| (h.domain.clone(), host_auth(h))).collect(),
            default_host: config.hosts.first().map(|h| h.domain.clone()),
            tls,
            limits_before_auth: config.limits.before_auth(),
            limits_after_auth: config.limits.after_auth(),
            idle_seconds: Some(config.limits.idle_ping_seconds),
            secret: secret.to_vec(),
            caps: caps.to_vec(),
            ..stream::Config::default()
        }),
        certificates: certificates.clone(),
        direct_tls: listener.tls == ListenTls::Direct,
        crypto: crypto.clone(),
        limits: edge_limits_of(config),
    }
}

fn host_auth(host: &crate::config::Host) -> stream::HostAuth {
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
    if host.options.anonymous {
        mechanisms.push(Mechanism::Anonymous);
    }
    stream::HostAuth { mechanisms, registration_open: host.options.registration == crate::config::Registration::Open, ..stream::HostAuth::default() }
}

/// Why the server cannot start: what is wrong and what to do.
#[derive(Debug)]
pub struct StartError(pub String);

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Running {
    /// Opens everything and listens; streams are taken from here on.
    ///
    /// # Errors
    /// The first thing that cannot be had: an address, the caps of a host.
    pub async fn start(config: Arc<Config>, store: Arc<dyn Store>, certificates: Arc<Certificates>, crypto: Arc<dyn Crypto>, secret: Vec<u8>) -> Result<Running, StartError> {
        let now = im::Now { utc: Stamp(0), mono_ms: 0 };
        let hosts = hosts_of(&config, &HashMap::new(), now);
        let cluster = Box::new(Local::new(store.epoch()));
        let authenticator = Box::new(accounts::Internal(store.clone()));
        let house = House::new(config.clone(), store, cluster, hosts, authenticator, crypto.clone(), secret);
        let admission = Admission::new(bounds_of(&config));
        let mut running = Running { house: house.clone(), certificates, admission, listeners: Vec::new(), tasks: Vec::new() };
        running.tasks.push(tokio::spawn(commits::carry(house.clone())));
        running.tasks.push(tokio::spawn(timers::carry(house.clone())));
        for listener in &config.listeners {
            let context = Arc::new(ListenerContext {
                edge: RwLock::new(Arc::new(running.edge_config(&config, listener))),
                admission: running.admission.clone(),
                proxy_protocol: listener.proxy_protocol,
            });
            for socket in listen::bind(&listener.address).map_err(StartError)? {
                running.tasks.push(tokio::spawn(listen::accept(house.clone(), context.clone(), socket)));
            }
            running.listeners.push((listener.clone(), context));
        }
        house.clone().replay_ledger().await;
        Ok(running)
    }

    fn edge_config(&self, config: &Config, listener: &Listener) -> EdgeConfig {
        let caps = self.house.caps();
        edge_config(config, listener, &self.certificates, &self.house.crypto, &self.house.secret, &caps)
    }

    /// Takes what can be changed while running; streams that are there keep what they began with.
    ///
    /// # Errors
    /// A certificate that cannot be used; then nothing is changed.
    pub fn reload(&self, config: Arc<Config>) -> Result<(), String> {
        self.certificates.reload(&config).map_err(|e| e.to_string())?;
        let old = self.house.hosts.read().clone();
        *self.house.hosts.write() = hosts_of(&config, &old, self.house.now());
        self.admission.set_bounds(bounds_of(&config));
        for (listener, context) in &self.listeners {
            *context.edge.write() = Arc::new(self.edge_config(&config, listener));
        }
        *self.house.config.write() = config;
        Ok(())
    }

    /// Drains: no new streams, `system-shutdown` for those that are there, what is queued reaches the disk.
    pub async fn stop(self, patience: Duration) {
        self.house.draining.store(true, Ordering::Release);
        for task in self.tasks.iter().skip(2) {
            task.abort();
        }
        self.house.edges.send_all(|| EdgeItem::Close(StreamFault::SystemShutdown));
        let deadline = tokio::time::Instant::now() + patience;
        while self.house.edges.len() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        for cell in self.house.accounts_in_memory() {
            self.house.post_to(&cell, super::entity::CellItem::Im(Item::ShutDown));
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

impl House {
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
        let mut accounts: Vec<_> = rows.into_iter().filter(|(_, row)| row.epoch != self.store.epoch()).map(|(account, _)| account).collect();
        accounts.dedup();
        if accounts.is_empty() {
            return;
        }
        tracing::info!(accounts = accounts.len(), "sessions of before the restart are waited for");
        let window = Duration::from_secs(u64::from(self.config.read().limits.resume_after_restart_seconds));
        tokio::spawn(async move {
            tokio::time::sleep(window).await;
            for account in accounts {
                self.post(&account, Item::LedgerExpired);
                tokio::task::yield_now().await;
            }
        });
    }
}

impl House {
    /// XEP-0115 §6.3: what the host is, in the stream features.
    fn caps(&self) -> Vec<u8> {
        let hosts = self.hosts.read();
        let config = self.config.read();
        let Some(entry) = config.hosts.first().and_then(|h| hosts.get(&h.domain)) else { return Vec::new() };
        let policy = entry.policy.read().clone();
        im::modules::caps::stream_feature(&policy, crate::crypto::sha1).to_bytes(xmpp::ns::CLIENT)
    }
}
