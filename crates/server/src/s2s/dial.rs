//! Finding another domain's server and connecting to it, within bounds: attempts at once in all and for one who makes
//! us dial, and how fast those may follow each other. LIMITS.md §1.

use super::dns::{self, Nowhere, Place, Target};
use super::link::End;
use super::{Federation, Policy, trust};
use crate::edge::socket::Socket;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The next address is tried when the one before has not answered so long. RFC 8305 §5.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// Domains that one user, or one address, may make us dial in a second.
const PER_SECOND: u32 = 4;
/// … and at once: the others' must find room too.
const AT_ONCE: usize = 4;
/// Whoever would wait longer for a first attempt is told to write to fewer domains.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Those who make us dial that are remembered.
const DIALLERS_MAX: usize = 10_000;

/// Bounds of dialling.
#[derive(Debug)]
pub struct Dials {
    all: Arc<Semaphore>,
    by: DashMap<Box<str>, Arc<Semaphore>>,
    /// When all that somebody has asked for so far is paid off.
    paid: Mutex<HashMap<Box<str>, Instant>>,
}

impl Dials {
    pub fn new(at_once: usize) -> Dials {
        Dials { all: Arc::new(Semaphore::new(at_once)), by: DashMap::new(), paid: Mutex::default() }
    }

    /// How long a domain that was not dialled yet must wait for its turn; `None`: somebody asks for too many.
    pub fn turn(&self, dialler: &str, may_wait_long: bool) -> Option<Duration> {
        let now = Instant::now();
        let mut paid = self.paid.lock();
        if paid.len() >= DIALLERS_MAX {
            paid.retain(|_, at| *at > now);
        }
        let until = paid.get(dialler).copied().unwrap_or(now).max(now);
        // Four may begin at once.
        let wait = (until - now).saturating_sub(Duration::from_secs(1) - Duration::from_secs(1) / PER_SECOND);
        if wait > WAIT_MAX && !may_wait_long {
            return None;
        }
        paid.insert(dialler.into(), until + Duration::from_secs(1) / PER_SECOND);
        Some(wait)
    }

    async fn enter(&self, dialler: &str) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        if self.by.len() >= DIALLERS_MAX {
            self.by.retain(|_, at_once| Arc::strong_count(at_once) > 1 || at_once.available_permits() < AT_ONCE);
        }
        let own = self.by.entry(dialler.into()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE))).clone();
        let own = own.acquire_owned().await.ok()?;
        Some((own, self.all.clone().acquire_owned().await.ok()?))
    }
}

/// Where the other server may be, the best first.
pub async fn find(federation: &Federation, policy: &Policy, domain: &str) -> Result<Vec<Target>, End> {
    if let Some(address) = policy.pinned(domain) {
        return Ok(vec![Target { address, direct_tls: false, delegation: None }]);
    }
    let name = trust::ascii(domain).ok_or(End::Absent("the domain has no name in DNS"))?;
    let mut random = |below| federation.random(below);
    let found = match policy.pinned_name(domain) {
        Some((name, port)) => {
            let name = trust::ascii(name).unwrap_or_default();
            let place = Place { name, port, direct_tls: false, secure: false };
            dns::addresses_of(&*federation.resolver, vec![place], policy.allow_private).await
        }
        None => dns::targets(&*federation.resolver, &name, policy.allow_private, &mut random).await,
    };
    match found {
        Ok(targets) => Ok(targets),
        Err(Nowhere::Absent) => Err(End::Absent("there is no such domain, or it has no server")),
        Err(Nowhere::Private) => Err(End::Absent("its addresses are private ones")),
        Err(Nowhere::Failed(why)) => Err(End::Failed(format!("DNS: {why}"))),
    }
}

/// Connects to the first address that answers.
pub async fn connect(federation: &Federation, policy: &Policy, targets: Vec<Target>) -> Result<(Socket, Target), End> {
    let mut attempts = JoinSet::new();
    let mut targets = targets.into_iter();
    let mut why = String::from("no address");
    loop {
        match targets.next() {
            Some(target) => {
                let (patience, house) = (policy.connect, federation.house.clone());
                attempts.spawn(async move {
                    match timeout(patience, house.network.connect(target.address)).await {
                        Ok(Ok(socket)) => Ok((socket, target)),
                        Ok(Err(error)) => Err(format!("TCP: {}: {error}", target.address)),
                        Err(_) => {
                            house.limit("s2s_connect_seconds");
                            Err(format!("TCP: {}: no answer", target.address))
                        }
                    }
                });
            }
            None if attempts.is_empty() => return Err(End::Failed(why)),
            None => {}
        }
        let next = match targets.len() {
            0 => attempts.join_next().await,
            _ => timeout(NEXT_ADDRESS_AFTER, attempts.join_next()).await.unwrap_or(None),
        };
        match next {
            Some(Ok(Ok(connected))) => return Ok(connected),
            Some(Ok(Err(failure))) => why = failure,
            Some(Err(_)) | None => {}
        }
    }
}

impl Federation {
    /// Holds a place among the attempts under way until it is dropped.
    pub async fn place_to_dial(&self, dialler: &str) -> impl Sized + use<> {
        self.dials.enter(dialler).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // LIMITS.md §1: 4 per sender and second.
    #[tokio::test(start_paused = true)]
    async fn one_user_makes_us_dial_four_domains_a_second_and_others_do_not_wait_for_that() {
        let dials = Dials::new(32);
        let turns: Vec<_> = (0..6).map(|_| dials.turn("romeo@montague.example", false)).collect();
        let milliseconds: Vec<_> = turns.into_iter().flatten().map(|turn| turn.as_millis()).collect();
        assert_eq!(milliseconds, [0, 0, 0, 0, 250, 500]);
        assert_eq!(dials.turn("juliet@capulet.example", false), Some(Duration::ZERO));
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(dials.turn("romeo@montague.example", false), Some(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_for_far_too_many_is_refused_and_presence_waits() {
        let dials = Dials::new(32);
        let taken = (0..200).filter(|_| dials.turn("romeo@montague.example", false).is_some()).count();
        assert_eq!(taken, 44);
        assert!(dials.turn("romeo@montague.example", true).is_some());
    }

    #[tokio::test]
    async fn one_user_s_attempts_leave_room_for_others() {
        let dials = Dials::new(8);
        let mut held = Vec::new();
        for _ in 0..AT_ONCE {
            held.push(dials.enter("romeo@montague.example").await);
        }
        assert!(timeout(Duration::from_millis(10), dials.enter("romeo@montague.example")).await.is_err());
        assert!(timeout(Duration::from_millis(10), dials.enter("juliet@capulet.example")).await.is_ok());
        held.pop();
        assert!(timeout(Duration::from_millis(10), dials.enter("romeo@montague.example")).await.is_ok());
    }
}
