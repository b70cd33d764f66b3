//! Who may connect, how often, and how many at once: per address, and in all.

use super::turns::{Known, Turn, Turns};
use crate::house::edges::EdgeHandle;
use im::EdgeItem;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;
use xmpp::{BareJid, StreamFault};

/// Bounds of [`Admission`]; LIMITS: new connections per IPv4 or IPv6 /64, auth failures.
#[derive(Debug, Clone, PartialEq)]
pub struct Bounds {
    /// New connections a second from one address, and the burst. 0: no rate.
    pub per_second: f64,
    pub burst: f64,
    pub unauthenticated_per_address_max: usize,
    pub per_address_max: usize,
    pub unauthenticated_max: usize,
    /// Failures within `failures_window_ms` before each attempt is delayed.
    pub failures_delay: u32,
    /// Failures within the window before the address is refused.
    pub failures_refuse: u32,
    pub failures_window_ms: u64,
    pub refuse_ms: u64,
    /// Accounts that one address may register an hour, without an invitation and with one. 0: no limit.
    pub registrations_per_hour: u32,
    pub invited_per_hour: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            per_second: 20.0,
            burst: 50.0,
            unauthenticated_per_address_max: 200,
            per_address_max: 1_000,
            unauthenticated_max: 100_000,
            failures_delay: 10,
            failures_refuse: 20,
            failures_window_ms: 300_000,
            refuse_ms: 900_000,
            registrations_per_hour: 1,
            invited_per_hour: 20,
        }
    }
}

/// Names that an address may try for each account that it may register: trying tells which are taken, and costs a hash.
const TRIES_PER_REGISTRATION: u32 = 10;

/// Accounts whose failed logins are counted at once; of more nothing is known.
const ACCOUNTS_MAX: usize = 10_000;

/// An IPv4 address, or the /64 of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source(u64, bool);

impl Source {
    pub fn of(address: IpAddr) -> Source {
        match address.to_canonical() {
            IpAddr::V4(v4) => Source(u64::from(u32::from(v4)), false),
            IpAddr::V6(v6) => Source((u128::from(v6) >> 64) as u64, true),
        }
    }
}

#[derive(Debug, Default)]
struct PerSource {
    connections: usize,
    unauthenticated: usize,
    tokens: f64,
    refilled_ms: u64,
    failures: u32,
    failures_since_ms: u64,
    refused_until_ms: u64,
    registrations: u32,
    registration_tries: u32,
    registrations_since_ms: u64,
}

/// Failed logins to one account, whether it exists or not.
#[derive(Debug)]
struct PerAccount {
    failures: u32,
    since_ms: u64,
}

#[derive(Debug, Default)]
struct All {
    sources: HashMap<Source, PerSource>,
    accounts: HashMap<BareJid, PerAccount>,
    /// Connections that are not authenticated, oldest first, and how to end them.
    strangers: BTreeMap<u64, Option<Arc<EdgeHandle>>>,
    next: u64,
    swept_ms: u64,
}

#[derive(Debug)]
pub struct Admission {
    bounds: Mutex<Bounds>,
    all: Mutex<All>,
    turns: Turns,
}

/// Why a connection is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    TooFast,
    TooManyFromAddress,
    TooManyStrangersFromAddress,
    TooManyInAll,
    /// Too many failed logins from there.
    Failures,
}

/// The place of a connection whose PROXY header has not come; giving it up frees it.
#[derive(Debug)]
pub struct Unnamed {
    admission: Arc<Admission>,
    /// Among the strangers.
    number: u64,
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        self.admission.all.lock().strangers.remove(&self.number);
    }
}

impl Refused {
    /// The option that says so.
    pub fn limit(self) -> &'static str {
        match self {
            Refused::TooFast => "connections_per_second",
            Refused::TooManyFromAddress => "connections_per_address_max",
            Refused::TooManyStrangersFromAddress => "unauthenticated_per_address_max",
            Refused::TooManyInAll => "unauthenticated_percent",
            Refused::Failures => "auth_failures_refuse_after",
        }
    }
}

/// One connection's place; giving it up frees it.
#[derive(Debug)]
pub struct Permit {
    admission: Arc<Admission>,
    source: Source,
    /// Among the strangers.
    number: u64,
    known: Known,
}

impl Admission {
    pub fn new(bounds: Bounds) -> Arc<Admission> {
        Arc::new(Admission { bounds: Mutex::new(bounds), all: Mutex::default(), turns: Turns::default() })
    }

    pub fn set_bounds(&self, bounds: Bounds) {
        *self.bounds.lock() = bounds;
    }

    /// A connection from `address` at monotonic `now_ms`.
    pub fn admit(self: &Arc<Admission>, address: IpAddr, now_ms: u64) -> Result<Permit, Refused> {
        let bounds = self.bounds.lock().clone();
        let source = Source::of(address);
        let mut all = self.all.lock();
        all.sweep(&bounds, now_ms);
        let entry = all.sources.entry(source).or_insert_with(|| PerSource {
            tokens: bounds.burst,
            refilled_ms: now_ms,
            ..PerSource::default()
        });
        if now_ms < entry.refused_until_ms {
            return Err(Refused::Failures);
        }
        if bounds.per_second > 0.0 {
            let passed = now_ms.saturating_sub(entry.refilled_ms) as f64 / 1000.0;
            entry.tokens = (entry.tokens + passed * bounds.per_second).min(bounds.burst);
            entry.refilled_ms = now_ms;
            if entry.tokens < 1.0 {
                return Err(Refused::TooFast);
            }
            entry.tokens -= 1.0;
        }
        if entry.connections >= bounds.per_address_max {
            return Err(Refused::TooManyFromAddress);
        }
        if entry.unauthenticated >= bounds.unauthenticated_per_address_max {
            return Err(Refused::TooManyStrangersFromAddress);
        }
        entry.connections += 1;
        entry.unauthenticated += 1;
        let (number, place) = all.stranger(&bounds);
        drop(all);
        let permit = Permit { admission: self.clone(), source, number, known: Known::default() };
        place.take()?;
        Ok(permit)
    }

    /// A connection whose address a PROXY header will tell: until then it is nobody's, and one of the strangers.
    pub fn unnamed(self: &Arc<Admission>) -> Result<Unnamed, Refused> {
        let bounds = self.bounds.lock().clone();
        let (number, place) = self.all.lock().stranger(&bounds);
        let unnamed = Unnamed { admission: self.clone(), number };
        place.take()?;
        Ok(unnamed)
    }

    /// May this address register an account now? Counts it if so. LIMITS.md §2 row 43.
    pub fn may_register(&self, address: IpAddr, invited: bool, now_ms: u64) -> bool {
        let limit = match (self.bounds.lock(), invited) {
            (bounds, false) => bounds.registrations_per_hour,
            (bounds, true) => bounds.invited_per_hour,
        };
        if limit == 0 {
            return true;
        }
        let mut all = self.all.lock();
        let entry = all.sources.entry(Source::of(address)).or_default();
        if now_ms.saturating_sub(entry.registrations_since_ms) >= 3_600_000 {
            entry.registrations = 0;
            entry.registration_tries = 0;
            entry.registrations_since_ms = now_ms;
        }
        if entry.registrations >= limit || entry.registration_tries >= limit.saturating_mul(TRIES_PER_REGISTRATION) {
            return false;
        }
        entry.registrations += 1;
        entry.registration_tries += 1;
        true
    }

    /// What [`Admission::may_register`] counted came to nothing: the name was taken, the password none.
    pub fn not_registered(&self, address: IpAddr) {
        if let Some(entry) = self.all.lock().sources.get_mut(&Source::of(address)) {
            entry.registrations = entry.registrations.saturating_sub(1);
        }
    }
}

/// Whether there is one among the strangers.
enum Place {
    Free,
    /// That of the oldest, who is told so.
    Of(Arc<EdgeHandle>),
    None,
}

impl Place {
    fn take(self) -> Result<(), Refused> {
        match self {
            Place::Free => Ok(()),
            Place::Of(oldest) => {
                oldest.send(EdgeItem::Close(StreamFault::TooManyConnections));
                Ok(())
            }
            Place::None => Err(Refused::TooManyInAll),
        }
    }
}

impl All {
    /// One stranger more. The oldest that can be told gives its place; a flood faster than that is refused.
    fn stranger(&mut self, bounds: &Bounds) -> (u64, Place) {
        self.next += 1;
        let number = self.next;
        self.strangers.insert(number, None);
        if self.strangers.len() <= bounds.unauthenticated_max {
            return (number, Place::Free);
        }
        let oldest = self.strangers.iter().find_map(|(number, edge)| edge.clone().map(|edge| (*number, edge)));
        match oldest {
            Some((oldest, edge)) => {
                self.strangers.remove(&oldest);
                (number, Place::Of(edge))
            }
            None if self.strangers.len() > 2 * bounds.unauthenticated_max => (number, Place::None),
            None => (number, Place::Free),
        }
    }

    /// One failed login more to this account; gives how many there were within the window.
    fn account_failed(&mut self, account: &BareJid, bounds: &Bounds, now_ms: u64) -> u32 {
        let is_new = |it: &PerAccount| now_ms.saturating_sub(it.since_ms) < bounds.failures_window_ms;
        if self.accounts.len() >= ACCOUNTS_MAX && !self.accounts.contains_key(account) {
            self.accounts.retain(|_, it| is_new(it));
            if self.accounts.len() >= ACCOUNTS_MAX {
                return 0;
            }
        }
        let fresh = || PerAccount { failures: 0, since_ms: now_ms };
        let entry = self.accounts.entry(account.clone()).or_insert_with(fresh);
        if !is_new(entry) {
            *entry = fresh();
        }
        entry.failures += 1;
        entry.failures
    }

    /// Forgets addresses that nothing is known of any more; once a minute.
    fn sweep(&mut self, bounds: &Bounds, now_ms: u64) {
        if now_ms.saturating_sub(self.swept_ms) < 60_000 {
            return;
        }
        self.swept_ms = now_ms;
        self.accounts.retain(|_, it| now_ms.saturating_sub(it.since_ms) < bounds.failures_window_ms);
        self.sources.retain(|_, s| {
            s.connections > 0
                || now_ms < s.refused_until_ms
                || now_ms.saturating_sub(s.failures_since_ms) < bounds.failures_window_ms && s.failures > 0
                || now_ms.saturating_sub(s.registrations_since_ms) < 3_600_000 && s.registration_tries > 0
                || now_ms.saturating_sub(s.refilled_ms) < 60_000
        });
    }
}

impl Permit {
    /// How to end the connection when there are too many strangers.
    pub fn reached_by(&self, edge: &Arc<EdgeHandle>) {
        if let Some(stranger) = self.admission.all.lock().strangers.get_mut(&self.number) {
            *stranger = Some(edge.clone());
        }
    }

    /// What is done for the peer has its turns until the peer is known.
    pub fn turn(&self) -> Turn {
        self.admission.turns.of(self.known.clone())
    }

    /// The stream is authenticated: it no longer counts as a stranger's.
    pub fn authenticated(&mut self) {
        if !self.known.is_known() {
            self.known.set();
            let mut all = self.admission.all.lock();
            all.strangers.remove(&self.number);
            if let Some(entry) = all.sources.get_mut(&self.source) {
                entry.unauthenticated -= 1;
                entry.failures = 0;
            }
        }
    }

    /// See [`Admission::not_registered`].
    pub fn not_registered(&self, address: IpAddr) {
        self.admission.not_registered(address);
    }

    /// May the address of this connection register an account now? Counts it if so.
    pub fn may_register(&self, address: IpAddr, invited: bool, now_ms: u64) -> bool {
        self.admission.may_register(address, invited, now_ms)
    }

    /// A login, to this account if it named one, failed. Gives the milliseconds to wait before the answer. An account
    /// is only answered more slowly, from wherever, and never locked: XEP-0205 advises against that.
    pub fn failed(&self, account: Option<&BareJid>, now_ms: u64) -> u64 {
        let bounds = self.admission.bounds.lock().clone();
        let mut all = self.admission.all.lock();
        let of_account = account.map_or(0, |account| all.account_failed(account, &bounds, now_ms));
        let Some(entry) = all.sources.get_mut(&self.source) else { return 0 };
        if now_ms.saturating_sub(entry.failures_since_ms) >= bounds.failures_window_ms {
            entry.failures = 0;
            entry.failures_since_ms = now_ms;
        }
        entry.failures += 1;
        if bounds.failures_refuse > 0 && entry.failures >= bounds.failures_refuse {
            entry.refused_until_ms = now_ms + bounds.refuse_ms;
            entry.failures = 0;
        }
        let slow = entry.failures.max(of_account) >= bounds.failures_delay;
        if bounds.failures_delay > 0 && slow { 1_000 } else { 0 }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut all = self.admission.all.lock();
        if !self.known.is_known() {
            all.strangers.remove(&self.number);
        }
        if let Some(entry) = all.sources.get_mut(&self.source) {
            entry.connections -= 1;
            if !self.known.is_known() {
                entry.unauthenticated -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    #[test]
    fn a_burst_is_admitted_and_then_the_rate() {
        let admission = Admission::new(Bounds { per_second: 2.0, burst: 3.0, ..Bounds::default() });
        let a = address("192.0.2.1");
        let _held: Vec<_> = (0..3).map(|_| admission.admit(a, 1_000).expect("within the burst")).collect();
        assert_eq!(admission.admit(a, 1_000).err(), Some(Refused::TooFast));
        assert!(admission.admit(a, 1_500).is_ok());
        assert!(admission.admit(address("192.0.2.2"), 1_500).is_ok());
    }

    #[test]
    fn two_addresses_of_one_ipv6_64_count_as_one() {
        assert_eq!(Source::of(address("2001:db8::1")), Source::of(address("2001:db8::ffff:2")));
        assert_ne!(Source::of(address("2001:db8::1")), Source::of(address("2001:db8:0:1::1")));
        assert_eq!(Source::of(address("::ffff:192.0.2.1")), Source::of(address("192.0.2.1")));
    }

    #[test]
    fn a_place_is_free_again_when_its_permit_is_dropped() {
        let admission = Admission::new(Bounds { per_address_max: 1, per_second: 0.0, ..Bounds::default() });
        let a = address("192.0.2.1");
        let permit = admission.admit(a, 0).expect("the first");
        assert_eq!(admission.admit(a, 0).err(), Some(Refused::TooManyFromAddress));
        drop(permit);
        assert!(admission.admit(a, 0).is_ok());
    }

    #[test]
    fn unauthenticated_connections_have_their_own_bound() {
        let admission =
            Admission::new(Bounds { unauthenticated_per_address_max: 1, per_second: 0.0, ..Bounds::default() });
        let a = address("192.0.2.1");
        let mut first = admission.admit(a, 0).expect("the first");
        assert!(admission.admit(a, 0).is_err());
        first.authenticated();
        assert!(admission.admit(a, 0).is_ok());
    }

    #[test]
    fn with_too_many_strangers_the_oldest_gives_its_place() {
        let admission = Admission::new(Bounds { unauthenticated_max: 1, per_second: 0.0, ..Bounds::default() });
        let edges = crate::house::edges::Edges::default();
        let (first, second) = (edges.open(10, 1_000), edges.open(10, 1_000));
        let a = address("192.0.2.1");
        let oldest = admission.admit(a, 0).expect("the first");
        oldest.reached_by(&first);
        let newer = admission.admit(a, 0).expect("in place of the oldest");
        newer.reached_by(&second);
        let told = |edge: &EdgeHandle| {
            let mut queue = std::collections::VecDeque::new();
            edge.take(&mut queue);
            queue.len()
        };
        assert_eq!((told(&first), told(&second)), (1, 0));
        drop(oldest);
        assert!(admission.admit(a, 0).is_ok());
        assert_eq!(told(&second), 1);
    }

    #[test]
    fn many_failed_logins_delay_and_then_refuse_the_address() {
        let admission = Admission::new(Bounds { per_second: 0.0, ..Bounds::default() });
        let a = address("192.0.2.1");
        let permit = admission.admit(a, 0).expect("the first");
        let delays: Vec<u64> = (0..20).map(|_| permit.failed(None, 10)).collect();
        assert_eq!(delays[8], 0);
        assert_eq!(delays[9], 1_000);
        assert_eq!(admission.admit(a, 20).err(), Some(Refused::Failures));
        assert!(admission.admit(a, 10 + 900_000).is_ok());
    }

    #[test]
    fn failed_logins_to_one_account_from_many_addresses_delay_and_lock_nothing() {
        let admission = Admission::new(Bounds { per_second: 0.0, ..Bounds::default() });
        let juliet = BareJid::parse("juliet@capulet.example").expect("a bare JID");
        let nurse = BareJid::parse("nurse@capulet.example").expect("a bare JID");
        let from = |n: u8| admission.admit(IpAddr::from([192, 0, 2, n]), 0).expect("admitted");
        let delays: Vec<u64> = (0..30).map(|n| from(n).failed(Some(&juliet), 10)).collect();
        assert_eq!(delays[..9], [0; 9]);
        assert!(delays[9..].iter().all(|&delay| delay == 1_000));
        assert_eq!(from(40).failed(Some(&nurse), 10), 0);
        assert_eq!(from(41).failed(Some(&juliet), 10 + 300_000), 0);
    }

    #[test]
    fn the_accounts_that_are_counted_have_a_bound() {
        let admission = Admission::new(Bounds { per_second: 0.0, failures_delay: 1, ..Bounds::default() });
        let permit = |n: u64| admission.admit(IpAddr::from((n as u32).to_be_bytes()), n).expect("admitted");
        let name = |n: u64| BareJid::parse(&format!("a{n}@capulet.example")).expect("a bare JID");
        for n in 0..ACCOUNTS_MAX as u64 + 10 {
            permit(n).failed(Some(&name(n)), 10);
        }
        assert_eq!(admission.all.lock().accounts.len(), ACCOUNTS_MAX);
        // They make place when they are old.
        permit(20_000).failed(Some(&name(20_000)), 400_000);
        assert!(admission.all.lock().accounts.len() < 10);
    }

    #[test]
    fn one_address_registers_one_account_an_hour() {
        let admission = Admission::new(Bounds::default());
        let a = address("192.0.2.1");
        assert!(admission.may_register(a, false, 4_000_000));
        assert!(!admission.may_register(a, false, 4_000_001));
        assert!(admission.may_register(a, false, 4_000_000 + 3_600_000));
    }

    #[test]
    fn a_name_that_was_taken_uses_up_no_place_but_may_not_be_tried_for_ever() {
        let admission = Admission::new(Bounds::default());
        let a = address("192.0.2.1");
        for _ in 0..TRIES_PER_REGISTRATION {
            assert!(admission.may_register(a, false, 4_000_000));
            admission.not_registered(a);
        }
        assert!(!admission.may_register(a, false, 4_000_000));
    }
}
