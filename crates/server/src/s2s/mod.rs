//! ⑥ Federation: servers of other domains.
//!
//! A *pair* of domains, ours and another, is the entity that stanzas to the other domain are told to (DESIGN.md D9).
//! - [`queue`]: what waits in the *link* of the pair. [`outbox`]: that, and what of it is in the store;
//!   [`ahead`]: what goes out before it is.
//! - [`link`]: the link's task, attempt after attempt. [`dial`]: finding the other server and connecting to it.
//! - [`outgoing`]: a stream of ours: proves who we are, writes links' queues out. [`incoming`]: a stream that another
//!   server opened. [`hubs`]: which of them a link can use instead of dialling. [`peer`]: what both have in common, and
//!   [`flow`]: the stanzas on them, out and in, and what is acknowledged.
//! - [`presence`]: presence of elsewhere is leased: it ends when the link ends (DESIGN.md D7).
//! - [`shown`], [`check`]: what the operator sees of it, and what is wrong.
//! - [`dns`], [`nearby`]: where the other server is. [`trust`], [`known`], [`dane`]: whose certificates
//!   count. [`policy`]: the configuration.
//!
//! ```text
//! house ── tell, fan ──► Federation::send ──► Link (queue) ──► outgoing stream, or an incoming one in both directions
//! house ◄── tell ─────── incoming stream ◄── verified pairs only
//! ```

pub mod ahead;
pub mod check;
pub mod dane;
pub mod dial;
pub mod dns;
pub mod flow;
pub mod hubs;
pub mod incoming;
pub mod known;
pub mod link;
pub mod nearby;
pub mod outbox;
pub mod outgoing;
pub mod peer;
pub mod policy;
pub mod presence;
pub mod queue;
pub mod shown;
pub mod trust;

use crate::house::House;
use crate::listen::admission::Source;
use crate::stopping::{Stop, Stopping};
use dashmap::DashMap;
use dns::Resolve;
use parking_lot::{Mutex, RwLock};
pub use policy::Policy;
use queue::Link;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;
use stream::{Crypto, Pair};
use tokio::time::Instant;
use trust::Trust;
use xmpp::{BareJid, IqType, Stanza, StanzaType};

/// Every pair that is in memory costs a queue; a sender that names domains without end must not fill it.
const LINKS_MAX: usize = 100_000;

pub struct Federation {
    pub house: Arc<House>,
    pub policy: RwLock<Arc<Policy>>,
    pub trust: RwLock<Arc<Trust>>,
    pub resolver: Box<dyn Resolve>,
    pub crypto: Arc<dyn Crypto>,
    links: DashMap<Pair, Arc<Link>>,
    outbox: outbox::Outbox,
    ahead: ahead::Ahead,
    /// Pings whose answer says that what was sent before was taken: the way back, and who waits.
    pings: DashMap<Box<str>, (Pair, Weak<flow::Ping>)>,
    /// Streams that links may use, and what those of ours that broke left.
    hubs: hubs::Hubs,
    resumable: DashMap<Pair, outgoing::Resumable>,
    /// Streams of others that they may resume.
    resumptions: DashMap<Box<str>, incoming::Resumption>,
    pub presence: presence::Leases,
    pub verifications: Arc<Verifications>,
    pub streams: Arc<shown::Streams>,
    pub checks: check::Pings,
    pub known: known::Known,
    /// Attempts to connect under way.
    pub dials: dial::Dials,
    /// What is queued goes out, then the streams end.
    stopping: Stop,
    /// Streams and dials that have not ended.
    running: AtomicU32,
}

impl Federation {
    pub fn new(
        house: Arc<House>,
        policy: Policy,
        trust: Trust,
        resolver: Box<dyn Resolve>,
        known: known::Known,
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
            outbox: outbox::Outbox::default(),
            ahead: ahead::Ahead::default(),
            pings: DashMap::new(),
            hubs: hubs::Hubs::default(),
            resumable: DashMap::new(),
            resumptions: DashMap::new(),
            presence: presence::Leases::default(),
            verifications: Arc::default(),
            streams: Arc::default(),
            checks: check::Pings::default(),
            known,
            dials: dial::Dials::new(dials_max),
            stopping: Stop::default(),
            running: AtomicU32::new(0),
        });
        federation.house.runtime.spawn(presence::watch(Arc::downgrade(&federation)));
        federation
    }

    pub fn policy(&self) -> Arc<Policy> {
        self.policy.read().clone()
    }

    /// The link from one of our domains to another; made, for `dialler`, when there is none.
    fn link(&self, pair: &Pair, dialler: &BareJid) -> Option<Arc<Link>> {
        self.link_of(pair, dialler.as_str())
    }

    pub fn link_of(&self, pair: &Pair, dialler: &str) -> Option<Arc<Link>> {
        if let Some(link) = self.links.get(pair) {
            return Some(link.clone());
        }
        if self.links.len() >= LINKS_MAX {
            return None;
        }
        let new = || Arc::new(Link::new(pair.clone(), dialler));
        Some(self.links.entry(pair.clone()).or_insert_with(new).clone())
    }

    /// Forgets a link in which nothing waits and nobody works.
    fn forget_link(&self, link: &Arc<Link>) {
        self.links.remove_if(&link.pair, |_, it| Arc::ptr_eq(it, link) && link.is_idle());
    }

    /// The other server has shown itself: whoever waits to try again tries now.
    fn nudge(&self, pair: &Pair) {
        if let Some(link) = self.links.get(pair) {
            link.nudge();
        }
    }

    /// The policy has changed: whoever waits looks at it again.
    pub fn reconsider(&self) {
        self.links.iter().for_each(|link| link.nudge());
    }

    /// What stood between us and this domain is gone.
    pub fn try_again(&self, domain: &str) {
        self.links.iter().filter(|link| *link.pair.to == *domain).for_each(|link| link.retry());
    }

    /// Is it what a ping of ours was for? Then nobody else waits for it.
    fn is_answer_to_ping(&self, pair: &Pair, stanza: &Stanza) -> bool {
        if !matches!(stanza.kind, StanzaType::Iq(IqType::Result | IqType::Error)) {
            return false;
        }
        let Some(id) = stanza.id.as_deref() else { return false };
        match self.pings.remove_if(id, |_, (of, _)| of == pair) {
            Some((_, (_, ping))) => {
                if let Some(ping) = ping.upgrade() {
                    ping.answer();
                }
                true
            }
            None => false,
        }
    }

    /// Forgets what nobody waits for any more.
    fn sweep(self: &Arc<Federation>) {
        self.pings.retain(|_, (_, ping)| ping.strong_count() > 0);
        self.sweep_outbox();
    }

    /// Counts a stream or a dial until it is dropped.
    fn run(self: &Arc<Federation>) -> Run {
        self.running.fetch_add(1, Ordering::AcqRel);
        Run(self.clone())
    }

    pub fn stopping(&self) -> Stopping {
        self.stopping.listen()
    }

    pub fn is_stopping(&self) -> bool {
        self.stopping.is_said()
    }

    /// Lets what is queued go out, then ends all streams.
    pub async fn stop(self: &Arc<Federation>, patience: Duration) {
        self.stopping.say();
        let deadline = Instant::now() + patience;
        while self.running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while self.write_behind(Duration::ZERO) {}
    }

    /// What waits for the one domain with the most: stanzas, bytes.
    #[cfg(feature = "simulated")]
    pub fn longest_queue(&self) -> (usize, usize) {
        self.links.iter().map(|link| link.queued()).max().unwrap_or_default()
    }

    /// The process is gone: what goes on is a ghost, and ends soon.
    #[cfg(feature = "simulated")]
    pub fn abandon(&self) {
        self.stopping.say();
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
