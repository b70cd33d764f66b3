//! Which certificates were got by ACME, which are due, and what became of the last attempt. Knows no clock, no network.

use super::schedule::{self, Life};
use crate::certificates::read_chain;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// A certificate that a domain is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub domain: Box<str>,
    /// In DNS; the domain's own first.
    pub names: Vec<String>,
    pub file: PathBuf,
}

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// For people.
    pub why: String,
    pub kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The authority says that it was asked too often.
    TooOften,
    /// The authority refused the nonces that it had given itself, which says nothing of the order.
    Nonce,
    Other,
}

impl From<String> for Trouble {
    fn from(why: String) -> Trouble {
        Trouble { why, kind: Kind::Other }
    }
}

pub type Issuing<'a> = Pin<Box<dyn Future<Output = Result<Issued, Trouble>> + Send + 'a>>;

/// Chain and key, PEM.
pub struct Issued {
    pub chain: String,
    pub key: String,
}

/// Gives certificates.
pub trait Issue: Send + Sync {
    /// `key`: PEM, of the certificate before, if it is to stay.
    fn issue<'a>(&'a self, names: &'a [String], key: Option<String>) -> Issuing<'a>;
    /// Is a certificate's key kept when it is renewed?
    fn keeps_keys(&self) -> bool;
}

/// After so many seconds at the earliest an authority is asked again that was asked too often.
const TOO_OFTEN_PAUSE: i64 = 3_600;

#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Not before this, after a failure.
    not_before: i64,
    failure: Option<String>,
    /// From 0 to 1; another one for each certificate.
    jitter: Option<f64>,
    due: i64,
    /// Somebody wants another one, whatever its age; until it is there.
    asked: bool,
    attempts: u64,
}

/// What is known of one domain's renewal, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Renewal {
    pub domain: String,
    /// When the next attempt is, seconds since the epoch.
    pub next: i64,
    pub failures: u32,
    pub failure: Option<String>,
    /// Since the server was started.
    pub attempts: u64,
}

/// How the keeper and those who ask about it meet.
#[derive(Default)]
pub struct Renewals {
    shown: Mutex<Vec<Renewal>>,
    asked: Mutex<BTreeSet<String>>,
    pub wake: tokio::sync::Notify,
}

impl Renewals {
    pub fn shown(&self) -> Vec<Renewal> {
        self.shown.lock().clone()
    }

    pub fn set(&self, renewals: Vec<Renewal>) {
        *self.shown.lock() = renewals;
    }

    /// The domain's certificate is got anew now. `false`: it is not one that is got by ACME.
    pub fn ask(&self, domain: &str) -> bool {
        let known = self.shown.lock().iter().any(|it| it.domain == domain);
        if known {
            self.asked.lock().insert(domain.to_owned());
            self.wake.notify_one();
        }
        known
    }

    pub fn take_asked(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.asked.lock())
    }
}

#[derive(Default)]
pub struct Keeper {
    states: BTreeMap<Box<str>, State>,
}

impl Keeper {
    /// These are due now, whatever their age.
    pub fn renew_now(&mut self, domains: &BTreeSet<String>) {
        for domain in domains {
            let state = self.states.entry(domain.as_str().into()).or_default();
            (state.asked, state.not_before) = (true, 0);
        }
    }

    /// Gets what is due, one after the other; gives when the next is, if any is wanted. `show` makes the server show what
    /// was got. What fails leaves the certificate that is there.
    pub async fn step(
        &mut self,
        wanted: &[Wanted],
        issuer: &dyn Issue,
        first_pause: i64,
        now: &(dyn Fn() -> i64 + Sync),
        random: &mut (dyn FnMut() -> f64 + Send),
        show: &(dyn Fn() -> Result<(), String> + Sync),
    ) -> Option<i64> {
        self.states.retain(|domain, _| wanted.iter().any(|it| it.domain == *domain));
        for it in wanted {
            let state = self.states.entry(it.domain.clone()).or_default();
            let jitter = *state.jitter.get_or_insert_with(&mut *random);
            state.due = state.due_of(held(&it.file).as_ref(), it, jitter);
            if state.due > now() {
                continue;
            }
            state.attempts += 1;
            let key = if issuer.keeps_keys() { key_of(&it.file) } else { None };
            let got = match issuer.issue(&it.names, key).await {
                Ok(issued) => keep(it, &issued).and_then(|()| show().map_err(Trouble::from)),
                Err(trouble) => Err(trouble),
            };
            let jitter = random();
            match got {
                Ok(()) => {
                    tracing::info!(domain = %it.domain, names = ?it.names, "a new certificate is shown from now on");
                    *state = State { jitter: Some(jitter), attempts: state.attempts, ..State::default() };
                    state.due = state.due_of(held(&it.file).as_ref(), it, jitter);
                }
                Err(trouble) => {
                    state.failures = state.failures.saturating_add(1);
                    let mut pause = schedule::pause(state.failures, first_pause, jitter);
                    if trouble.kind == Kind::TooOften {
                        pause = pause.max(TOO_OFTEN_PAUSE);
                    }
                    state.not_before = now() + pause;
                    state.due = state.not_before;
                    tracing::warn!(domain = %it.domain, failures = state.failures, again_in_seconds = pause, why = %trouble.why, "no certificate by ACME; the one from before is still shown");
                    state.failure = Some(trouble.why);
                }
            }
        }
        self.states.values().map(|state| state.due).min()
    }

    pub fn shown(&self) -> Vec<Renewal> {
        let shown = self.states.iter().map(|(domain, state)| Renewal {
            domain: domain.to_string(),
            next: state.due,
            failures: state.failures,
            failure: state.failure.clone(),
            attempts: state.attempts,
        });
        shown.collect()
    }
}

impl State {
    fn due_of(&self, held: Option<&Held>, wanted: &Wanted, jitter: f64) -> i64 {
        if self.asked {
            return self.not_before;
        }
        let due = match held {
            // One with other names is not what is wanted.
            Some(held) if wanted.names.iter().all(|name| held.names.contains(name)) => {
                schedule::renewal(held.life, jitter)
            }
            _ => i64::MIN,
        };
        due.max(self.not_before)
    }
}

/// A certificate that is there.
struct Held {
    life: Life,
    names: Vec<String>,
}

fn held(file: &Path) -> Option<Held> {
    let chain = read_chain(file).ok()?;
    let (_, parsed) = X509Certificate::from_der(chain.first()?).ok()?;
    let validity = parsed.validity();
    let life = Life { from: validity.not_before.timestamp(), until: validity.not_after.timestamp() };
    let names = parsed.subject_alternative_name().ok()??.value.general_names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Some(Held { life, names: names.collect() })
}

/// The key of a file with chain and key, PEM.
fn key_of(file: &Path) -> Option<String> {
    let text = std::fs::read_to_string(file).ok()?;
    let begin = text.find("-----BEGIN PRIVATE KEY-----")?;
    let end = "-----END PRIVATE KEY-----\n";
    let length = text[begin..].find(end)? + end.len();
    Some(text[begin..begin + length].to_owned())
}

/// Writes what was got, if it is what was wanted.
fn keep(wanted: &Wanted, issued: &Issued) -> Result<(), Trouble> {
    crate::certificates::check_pair(&issued.chain, &issued.key)
        .map_err(|why| format!("what the authority gave cannot be used: {why}"))?;
    super::write_pair(&wanted.file, &issued.chain, &issued.key)
        .map_err(|error| format!("{} cannot be written: {error}", wanted.file.display()).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    const DAY: i64 = 86_400;

    /// Gives certificates of 90 days from the clock's time, unless it fails.
    #[derive(Default)]
    struct Fake {
        clock: AtomicI64,
        fails: Mutex<Option<Trouble>>,
        asked: AtomicU32,
        keys: Mutex<Vec<Option<String>>>,
        shown: AtomicU32,
    }

    impl Issue for Fake {
        fn issue<'a>(&'a self, names: &'a [String], key: Option<String>) -> Issuing<'a> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            self.keys.lock().push(key.clone());
            Box::pin(async move {
                if let Some(trouble) = self.fails.lock().clone() {
                    return Err(trouble);
                }
                let now = self.clock.load(Ordering::Relaxed);
                Ok(made(names, now, now + 90 * DAY, key))
            })
        }
        fn keeps_keys(&self) -> bool {
            true
        }
    }

    fn made(names: &[String], from: i64, until: i64, key: Option<String>) -> Issued {
        let key = key.map_or_else(rcgen::KeyPair::generate, |pem| rcgen::KeyPair::from_pem(&pem)).expect("a key");
        let mut parameters = rcgen::CertificateParams::new(names.to_vec()).expect("names");
        let at =
            |seconds: i64| rcgen::date_time_ymd(1970, 1, 1) + std::time::Duration::from_secs(seconds.unsigned_abs());
        (parameters.not_before, parameters.not_after) = (at(from), at(until));
        Issued { chain: parameters.self_signed(&key).expect("signed").pem(), key: key.serialize_pem() }
    }

    struct World {
        _folder: tempfile::TempDir,
        keeper: Keeper,
        fake: Fake,
        wanted: Vec<Wanted>,
    }

    fn world() -> World {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("acme/example.org.pem");
        let wanted = vec![Wanted { domain: "example.org".into(), names: vec!["example.org".into()], file }];
        let fake = Fake::default();
        fake.clock.store(1_000 * DAY, Ordering::Relaxed);
        World { _folder: folder, keeper: Keeper::default(), fake, wanted }
    }

    impl World {
        async fn step(&mut self) -> i64 {
            let fake = &self.fake;
            let now = || fake.clock.load(Ordering::Relaxed);
            let show = || {
                fake.shown.fetch_add(1, Ordering::Relaxed);
                Ok(())
            };
            self.keeper.step(&self.wanted, fake, 300, &now, &mut || 0.5, &show).await.expect("something is wanted")
        }

        fn asked(&self) -> u32 {
            self.fake.asked.load(Ordering::Relaxed)
        }

        fn file(&self) -> String {
            std::fs::read_to_string(&self.wanted[0].file).unwrap_or_default()
        }
    }

    #[tokio::test]
    async fn a_certificate_is_got_at_once_and_renewed_when_two_thirds_of_its_life_are_over_with_the_same_key() {
        let mut world = world();
        let due = world.step().await;
        assert_eq!((world.asked(), world.fake.shown.load(Ordering::Relaxed)), (1, 1));
        assert!(due > 1_057 * DAY && due < 1_060 * DAY, "{due}");
        let first = world.file();
        // Nothing happens until then.
        world.fake.clock.store(due - 1, Ordering::Relaxed);
        assert_eq!(world.step().await, due);
        assert_eq!(world.asked(), 1);
        world.fake.clock.store(due, Ordering::Relaxed);
        assert!(world.step().await > due + 50 * DAY);
        assert_eq!(world.asked(), 2);
        assert_ne!(world.file(), first);
        assert_eq!(world.fake.keys.lock()[1], key_of(&world.wanted[0].file));
        assert!(world.fake.keys.lock()[1].is_some());
    }

    #[tokio::test]
    async fn what_fails_is_tried_again_after_pauses_that_double_and_the_old_certificate_stays() {
        let mut world = world();
        let due = world.step().await;
        let old = world.file();
        *world.fake.fails.lock() = Some(Trouble::from("the challenge was wrong".to_owned()));
        world.fake.clock.store(due, Ordering::Relaxed);
        let mut pauses = Vec::new();
        for _ in 0..4 {
            let now = world.fake.clock.load(Ordering::Relaxed);
            let next = world.step().await;
            pauses.push(next - now);
            world.fake.clock.store(next, Ordering::Relaxed);
        }
        assert_eq!(pauses, [300, 600, 1_200, 2_400]);
        assert_eq!(world.file(), old);
        assert_eq!(world.keeper.shown()[0].failure.as_deref(), Some("the challenge was wrong"));
        *world.fake.fails.lock() = None;
        world.step().await;
        assert_ne!(world.file(), old);
        let shown = &world.keeper.shown()[0];
        assert_eq!((shown.failures, &shown.failure, shown.attempts), (0, &None, 6));
    }

    #[tokio::test]
    async fn an_authority_that_was_asked_too_often_has_an_hour() {
        let mut world = world();
        *world.fake.fails.lock() = Some(Trouble { why: "rateLimited".into(), kind: Kind::TooOften });
        assert_eq!(world.step().await, 1_000 * DAY + 3_600);
    }

    #[tokio::test]
    async fn a_certificate_that_lacks_a_wanted_name_is_got_anew() {
        let mut world = world();
        world.step().await;
        world.wanted[0].names.push("irc.example.org".into());
        world.step().await;
        assert_eq!(world.asked(), 2);
        world.step().await;
        assert_eq!(world.asked(), 2);
    }

    #[tokio::test]
    async fn who_asks_for_a_renewal_has_it_now_even_after_a_failure() {
        let mut world = world();
        world.step().await;
        let asks = BTreeSet::from(["example.org".to_owned()]);
        *world.fake.fails.lock() = Some(Trouble::from("the challenge was wrong".to_owned()));
        world.keeper.renew_now(&asks);
        // What was asked for is tried until it is there.
        assert_eq!(world.step().await, 1_000 * DAY + 300);
        world.step().await;
        assert_eq!(world.asked(), 2);
        *world.fake.fails.lock() = None;
        world.keeper.renew_now(&asks);
        world.step().await;
        world.step().await;
        assert_eq!(world.asked(), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_used_is_not_written() {
        struct Wrong;
        impl Issue for Wrong {
            fn issue<'a>(&'a self, names: &'a [String], _: Option<String>) -> Issuing<'a> {
                let (one, other) = (made(names, 0, DAY, None), made(names, 0, DAY, None));
                Box::pin(async move { Ok(Issued { chain: one.chain, key: other.key }) })
            }
            fn keeps_keys(&self) -> bool {
                false
            }
        }
        let mut world = world();
        let now = || 1_000 * DAY;
        world.keeper.step(&world.wanted, &Wrong, 300, &now, &mut || 0.5, &|| Ok(())).await;
        assert_eq!(world.file(), "");
        assert!(world.keeper.shown()[0].failure.as_deref().is_some_and(|why| why.contains("cannot be used")));
    }
}
