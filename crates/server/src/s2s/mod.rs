//! ⑥ Federation: servers of other domains.
//!
//! A *pair* of domains, ours and another, is the entity that stanzas to the other domain are told to (DESIGN.md D9).
//! - [`link`]: its queue, and the task that dials, proves who we are, and writes the queue out.
//! - [`incoming`]: a stream that another server opened.
//! - [`presence`]: presence of elsewhere is leased: it ends when the link ends (DESIGN.md D7).
//! - [`shown`], [`check`]: what the operator sees of it, and what is wrong.
//! - [`dns`]: where the other server is. [`trust`]: whose certificates count.
//!
//! ```text
//! house ── tell, fan ──► Federation::send ──► Link (queue) ──► outgoing stream, or an incoming one in both directions
//! house ◄── tell ─────── incoming stream ◄── verified pairs only
//! ```

pub mod check;
pub mod dns;
pub mod incoming;
pub mod link;
pub mod presence;
pub mod shown;
pub mod trust;

use crate::config::{Config, ListenAddress};
use crate::edge::EdgeLimits;
use crate::edge::rates::Rates;
use crate::house::{House, Ready};
use crate::listen::admission::Source;
use dashmap::DashMap;
use dns::Resolve;
use im::Ticket;
use link::{Link, Queued};
use parking_lot::{Mutex, RwLock};
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use stream::{Crypto, Pair, ServerConfig};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use trust::Trust;
use xmpp::error::ErrorType;
use xmpp::{Jid, PresenceType, Stanza, StanzaCondition, StanzaError, StanzaType};

/// Every pair that is in memory costs a queue; a sender that names domains without end must not fill it.
const LINKS_MAX: usize = 100_000;

/// Bounds and policy, as the configuration says now.
#[derive(Debug, Clone)]
pub struct Policy {
    pub stream: Arc<ServerConfig>,
    pub blocked: HashSet<Box<str>>,
    /// Empty: everybody.
    pub allowed: HashSet<Box<str>>,
    strict: bool,
    remotes: HashMap<Box<str>, (Option<bool>, Option<SocketAddr>)>,
    pub allow_private: bool,
    pub patience: Duration,
    pub idle: Duration,
    pub connect: Duration,
    pub retry_max: Duration,
    pub negotiation: Duration,
    pub handshake: Duration,
    pub queue_items_max: usize,
    pub queue_bytes_max: usize,
    pub bytes_per_second: u32,
    pub bytes_burst: u32,
}

impl Policy {
    pub fn of(config: &Config, secret: &[u8], crypto: &dyn Crypto) -> Policy {
        let federation = &config.federation;
        let limits = &config.limits;
        let seconds = |s: u32| Duration::from_secs(u64::from(s));
        let prepared = |domains: &[String]| {
            domains.iter().filter_map(|domain| xmpp::jid::prepare_domain(domain).ok()).map(Into::into).collect()
        };
        let rate = |value: u64| if limits.rates { u32::try_from(value).unwrap_or(u32::MAX) } else { 0 };
        let strict = |trust| trust == crate::config::Trust::Certificate;
        Policy {
            stream: Arc::new(ServerConfig {
                hosts: config.domains().map(Into::into).collect(),
                bidi: federation.bidi,
                limits_before_auth: limits.before_auth(),
                limits_after_auth: limits.after_auth_of_servers(),
                // Its own use of the secret: what dialback tells says nothing of other uses.
                secret: crypto.hmac(stream::Hash::Sha256, secret, b"dialback"),
                ..ServerConfig::default()
            }),
            blocked: prepared(&federation.blocked),
            allowed: prepared(&federation.allowed),
            strict: strict(federation.trust),
            remotes: config
                .remotes
                .iter()
                .map(|remote| {
                    let address = match remote.options.address {
                        Some(ListenAddress::At(address)) => Some(address),
                        Some(ListenAddress::Any(_)) | None => None,
                    };
                    (remote.domain.clone(), (remote.options.trust.map(strict), address))
                })
                .collect(),
            allow_private: federation.allow_private,
            patience: seconds(federation.patience_seconds),
            idle: seconds(federation.idle_seconds),
            connect: seconds(limits.s2s_connect_seconds),
            retry_max: seconds(limits.s2s_retry_seconds_max),
            negotiation: seconds(limits.authentication_seconds),
            handshake: seconds(limits.tls_handshake_seconds),
            queue_items_max: limits.s2s_queue_stanzas_max,
            queue_bytes_max: limits.s2s_queue_bytes_max,
            bytes_per_second: rate(limits.s2s_bytes_per_second),
            bytes_burst: rate(limits.s2s_bytes_burst),
        }
    }

    /// May we speak with this domain at all?
    pub fn allows(&self, domain: &str) -> bool {
        !self.blocked.contains(domain) && (self.allowed.is_empty() || self.allowed.contains(domain))
    }

    /// Does only a certificate prove this domain?
    pub fn is_strict(&self, domain: &str) -> bool {
        self.remotes.get(domain).and_then(|remote| remote.0).unwrap_or(self.strict)
    }

    /// How fast one stream is read.
    pub fn rates(&self) -> Rates {
        Rates::new(&EdgeLimits {
            bytes_per_second: self.bytes_per_second,
            bytes_burst: self.bytes_burst,
            stanzas_per_second: 0,
            ..EdgeLimits::default()
        })
    }

    /// Where the configuration says that its server is.
    pub fn pinned(&self, domain: &str) -> Option<SocketAddr> {
        self.remotes.get(domain).and_then(|remote| remote.1)
    }
}

pub struct Federation {
    pub house: Arc<House>,
    pub policy: RwLock<Arc<Policy>>,
    pub trust: RwLock<Arc<Trust>>,
    pub resolver: Box<dyn Resolve>,
    pub crypto: Arc<dyn Crypto>,
    links: DashMap<Pair, Arc<Link>>,
    pub presence: presence::Leases,
    pub verifications: Arc<Verifications>,
    pub streams: Arc<shown::Streams>,
    pub pings: check::Pings,
    /// Attempts to connect under way.
    pub dials: Semaphore,
    /// `true`: what is queued goes out, then the streams end.
    stopping: watch::Sender<bool>,
    /// Streams and dials that have not ended.
    running: AtomicU32,
}

impl Federation {
    pub fn new(
        house: Arc<House>,
        policy: Policy,
        trust: Trust,
        resolver: Box<dyn Resolve>,
        dials_max: usize,
    ) -> Arc<Federation> {
        let crypto = house.crypto.clone();
        let federation = Arc::new(Federation {
            house,
            policy: RwLock::new(Arc::new(policy)),
            trust: RwLock::new(Arc::new(trust)),
            resolver,
            crypto,
            links: DashMap::new(),
            presence: presence::Leases::default(),
            verifications: Arc::default(),
            streams: Arc::default(),
            pings: check::Pings::default(),
            dials: Semaphore::new(dials_max),
            stopping: watch::Sender::new(false),
            running: AtomicU32::new(0),
        });
        federation.house.runtime.spawn(presence::watch(Arc::downgrade(&federation)));
        federation
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// The link from one of our domains to another; made when there is none.
    pub fn link(&self, pair: &Pair) -> Option<Arc<Link>> {
        if let Some(link) = self.links.get(pair) {
            return Some(link.clone());
        }
        if self.links.len() >= LINKS_MAX {
            return None;
        }
        Some(self.links.entry(pair.clone()).or_insert_with(|| Arc::new(Link::new(pair.clone()))).clone())
    }

    /// Forgets a link in which nothing waits and nobody works.
    fn forget(&self, link: &Arc<Link>) {
        self.links.remove_if(&link.pair, |_, it| Arc::ptr_eq(it, link) && link.is_idle());
    }

    /// Queues a stanza for another domain; `stanza.from` is of one of ours.
    ///
    /// # Errors
    /// What its sender gets, with the ticket given back: the domain is not spoken with, or too much waits for it.
    pub fn send(
        self: &Arc<Federation>,
        to: Jid,
        stanza: &Arc<Stanza>,
        ticket: Ticket,
    ) -> Result<(), (StanzaError, Ticket)> {
        let policy = self.policy();
        let Some(from) = stanza.from.as_ref() else { return Ok(()) };
        if !policy.allows(to.domain()) || to.domain() == from.domain() {
            return Err((StanzaCondition::RemoteServerNotFound.into(), ticket));
        }
        let busy = || StanzaError::from(StanzaCondition::ResourceConstraint).with_type(ErrorType::Wait);
        let pair = Pair::new(from.domain(), to.domain());
        self.probing(stanza, &to);
        let mut queued = Queued { stanza: stanza.clone(), to, ticket, since: Instant::now() };
        // A link that is forgotten between look-up and push is looked up again.
        loop {
            let Some(link) = self.link(&pair) else { return Err((busy(), queued.ticket)) };
            match link.push(queued, &policy) {
                link::Pushed::Queued => {}
                link::Pushed::Dial => self.dial(link),
                link::Pushed::Full(back) => return Err((busy(), back.ticket)),
                link::Pushed::Gone(back) => {
                    queued = back;
                    self.links.remove_if(&pair, |_, it| Arc::ptr_eq(it, &link));
                    continue;
                }
            }
            return Ok(());
        }
    }

    /// Starts the link's task; the caller has just become the one who may.
    fn dial(self: &Arc<Federation>, link: Arc<Link>) {
        let federation = self.clone();
        let running = self.run();
        self.house.runtime.spawn(async move {
            link::run(&federation, &link).await;
            drop(running);
            federation.forget(&link);
        });
    }

    /// What waited in vain: an error to its sender, if it is one that waits for an answer.
    pub fn bounce(self: &Arc<Federation>, stanzas: impl IntoIterator<Item = Queued>, condition: StanzaCondition) {
        let mut ready = Ready::new();
        for queued in stanzas {
            self.house.count("s2s_bounced");
            if !is_answered(queued.stanza.kind) {
                continue;
            }
            let stanza = match &queued.stanza.to {
                Some(_) => queued.stanza.clone(),
                None => Arc::new((*queued.stanza).clone().with_to(queued.to.clone())),
            };
            self.house.answer_error(&stanza, &condition.into(), queued.ticket, &mut ready);
            self.house.work(&mut ready);
        }
    }

    /// Counts a stream or a dial until it is dropped.
    fn run(self: &Arc<Federation>) -> Run {
        self.running.fetch_add(1, Ordering::AcqRel);
        Run(self.clone())
    }

    pub fn stopping(&self) -> watch::Receiver<bool> {
        self.stopping.subscribe()
    }

    pub fn is_stopping(&self) -> bool {
        *self.stopping.borrow()
    }

    /// Lets what is queued go out, then ends all streams.
    pub async fn stop(&self, patience: Duration) {
        self.stopping.send_replace(true);
        let deadline = Instant::now() + patience;
        while self.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// What waits for the one domain with the most: stanzas, bytes.
    #[cfg(feature = "simulated")]
    pub fn longest_queue(&self) -> (usize, usize) {
        self.links.iter().map(|link| link.queued()).max().unwrap_or_default()
    }

    /// The process is gone: what goes on is a ghost, and ends soon.
    #[cfg(feature = "simulated")]
    pub fn abandon(&self) {
        self.stopping.send_replace(true);
    }

    /// Pairs in memory, and what waits for each: stanzas, bytes.
    fn waiting(&self) -> Vec<(Pair, u64, u64)> {
        let sizes = |link: &Link| {
            let (stanzas, bytes) = link.queued();
            (link.pair.clone(), stanzas as u64, bytes as u64)
        };
        self.links.iter().map(|link| sizes(&link)).collect()
    }

    /// A random number below `below`.
    pub fn random(&self, below: u32) -> u32 {
        let mut bytes = [0; 4];
        self.crypto.random(&mut bytes);
        u32::from_le_bytes(bytes) % below.max(1)
    }
}

/// Keys being verified for streams from one address: each makes us dial somebody.
const VERIFICATIONS_PER_ADDRESS_MAX: u32 = 64;

#[derive(Debug, Default)]
pub struct Verifications(Mutex<HashMap<Source, u32>>);

/// One verification under way, until it is dropped.
#[derive(Debug)]
pub struct Verification(Arc<Verifications>, Source);

impl Verifications {
    /// `None`: too many are under way for this address.
    pub fn enter(self: &Arc<Verifications>, address: IpAddr) -> Option<Verification> {
        let source = Source::of(address);
        let mut all = self.0.lock();
        let count = all.entry(source).or_default();
        if *count >= VERIFICATIONS_PER_ADDRESS_MAX {
            return None;
        }
        *count += 1;
        Some(Verification(self.clone(), source))
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        let mut all = self.0.0.lock();
        if let Some(count) = all.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.1);
            }
        }
    }
}

struct Run(Arc<Federation>);

impl Drop for Run {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Does its sender hear of it when it cannot be delivered? Not of presence that is only told: nobody waits for that.
fn is_answered(kind: StanzaType) -> bool {
    match kind {
        StanzaType::Message(_) | StanzaType::Iq(_) => true,
        StanzaType::Presence(kind) => match kind {
            PresenceType::Subscribe => true,
            PresenceType::Available
            | PresenceType::Unavailable
            | PresenceType::Subscribed
            | PresenceType::Unsubscribe
            | PresenceType::Unsubscribed
            | PresenceType::Probe
            | PresenceType::Error => false,
        },
    }
}

/// Stanzas taken in that are not done yet: a stream is not read while there are too many.
#[derive(Default)]
pub struct InFlight {
    count: AtomicU32,
    pub done: Notify,
}

/// LIMITS: as for clients.
const IN_FLIGHT_MAX: u32 = 512;

impl InFlight {
    pub fn ticket(self: &Arc<InFlight>) -> Ticket {
        self.count.fetch_add(1, Ordering::AcqRel);
        Ticket(Some(Arc::new(Done(self.clone()))))
    }

    pub fn is_full(&self) -> bool {
        self.count.load(Ordering::Acquire) >= IN_FLIGHT_MAX
    }
}

struct Done(Arc<InFlight>);

impl Drop for Done {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::AcqRel);
        self.0.done.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        let config =
            crate::config::parse(text, None, &crate::config::Sources::default()).expect("the test's file is right");
        Policy::of(&config, b"secret", &crate::crypto::AwsLc)
    }

    #[test]
    fn verifications_of_one_address_are_bounded_and_free_when_they_end() {
        let all = Arc::new(Verifications::default());
        let address: IpAddr = "192.0.2.1".parse().expect("a literal address");
        let mut held: Vec<_> = (0..64).map(|_| all.enter(address).expect("within the bound")).collect();
        assert!(all.enter(address).is_none());
        assert!(all.enter("192.0.2.2".parse().expect("a literal address")).is_some());
        held.pop();
        assert!(all.enter(address).is_some());
        held.clear();
        assert!(all.0.lock().is_empty());
    }

    #[test]
    fn blocked_domains_and_those_not_among_the_allowed_are_not_spoken_with() {
        let open = policy("[s2s]\nblocked = [\"Bad.example\"]");
        assert!(open.allows("good.example") && open.allows("sub.bad.example") && !open.allows("bad.example"));
        let closed = policy("[s2s]\nallowed = [\"good.example\"]");
        assert!(closed.allows("good.example") && !closed.allows("other.example"));
    }

    #[test]
    fn a_domain_s_own_table_wins() {
        let it = policy(
            "[s2s]\ntrust = \"certificate\"\n[s2s.domain.\"old.example\"]\ntrust = \"dialback\"\naddress = \"192.0.2.7:5269\"",
        );
        assert!(it.is_strict("new.example") && !it.is_strict("old.example"));
        assert_eq!(it.pinned("old.example").map(|address| address.port()), Some(5269));
        assert_eq!(it.pinned("new.example"), None);
    }

    #[test]
    fn dialback_has_a_secret_of_its_own() {
        let secret = policy("").stream.secret.clone();
        assert_eq!(secret.len(), 32);
        assert_ne!(secret, b"secret");
    }
}
