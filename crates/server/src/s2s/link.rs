//! A link's task: it finds the other server, connects, and begins again until nothing waits or all has waited too long.

use super::outgoing::attempt;
use super::queue::{Link, Queued};
use super::{Federation, outbox};
use std::sync::Arc;
use std::time::Duration;
use stream::{Pair, Verdict};
use tokio::time::{Instant, sleep_until};
use xmpp::{Stanza, StanzaCondition, StanzaError, StanzaType};

/// The first pause after a failed attempt; each is twice the one before. LIMITS.md §1.
pub const RETRY_FIRST: Duration = Duration::from_secs(2);
/// Somebody who writes anew to a domain that was not tried for so long, or for a quarter of what it is waited for, is
/// worth an attempt: nothing comes back untried.
const FRESH_AFTER: Duration = Duration::from_secs(30);

/// Why an attempt came to nothing, or a stream ended.
#[derive(Debug, Clone)]
pub enum End {
    /// Nothing more to do, or the peer closed in order.
    Done,
    /// The connection broke after it had been authenticated.
    Broken(String),
    /// There is no such server, or it does not serve the domain.
    Absent(&'static str),
    /// It does not take us, and will not the next time.
    Refused(StanzaCondition),
    /// Perhaps the next time.
    Failed(String),
}

impl End {
    /// What the senders of what waits in vain are told. RFC 6120 §8.3.3.16, §8.3.3.17.
    fn condition(&self) -> StanzaCondition {
        match self {
            End::Absent(_) => StanzaCondition::RemoteServerNotFound,
            End::Done | End::Broken(_) | End::Refused(_) | End::Failed(_) => StanzaCondition::RemoteServerTimeout,
        }
    }
}

/// Works for a link until nothing waits in it.
pub async fn run(federation: &Arc<Federation>, link: &Arc<Link>) {
    let mut pause = RETRY_FIRST;
    let mut last = End::Failed("no answer yet".into());
    let mut broke = false;
    loop {
        // When a connection broke, the other may be broken, too, and nobody has noticed.
        if !broke && federation.hand_over(link).await {
            return;
        }
        let end = tokio::select! {
            biased;
            end = attempt(federation, link) => end,
            () = expire(federation, link, &last) => return,
        };
        broke = !matches!(end, End::Done);
        let failed = match &end {
            End::Done | End::Broken(_) => {
                tracing::debug!(pair = %link.pair, why = outbox::why(&end), "stream to another server ended");
                pause = RETRY_FIRST;
                false
            }
            End::Absent(_) | End::Refused(_) | End::Failed(_) => {
                tracing::info!(pair = %link.pair, why = outbox::why(&end), "another server cannot be reached");
                federation.house.count("s2s_failures");
                federation.streams.failed(&link.pair, outbox::why(&end));
                true
            }
        };
        if failed {
            for question in link.take_questions() {
                // Who asked may have given up.
                let _ = question.answer.send(Verdict::Error(end.condition()));
            }
        }
        last = end;
        if failed || federation.is_stopping() {
            give_back(federation, link, &last);
        }
        federation.look_at_resumable(link, &last);
        if federation.is_stopping() || federation.may_leave(link) {
            return;
        }
        if failed {
            if !wait_for_next(federation, link, pause, &last).await {
                return;
            }
            pause = (pause * 2).min(federation.policy().retry_max);
        }
    }
}

/// Gives back what has waited too long. When the server stops, what is kept stays in the store; of the rest the senders
/// hear now.
fn give_back(federation: &Arc<Federation>, link: &Link, end: &End) {
    let old = if federation.is_stopping() {
        let kept = |queued: &Queued| queued.keeping != super::queue::Keeping::Memory;
        link.take_old(|queued| if kept(queued) { Duration::MAX } else { Duration::ZERO })
    } else {
        let policy = federation.policy();
        let absent = matches!(end, End::Absent(_));
        link.take_old(|queued| federation.patience(&policy, &link.pair, queued, absent))
    };
    federation.bounce(old, end.condition(), &outbox::why(end));
}

/// While an attempt is under way: what has waited too long goes back. Never ends.
async fn expire(federation: &Arc<Federation>, link: &Arc<Link>, last: &End) {
    let absent = matches!(last, End::Absent(_));
    loop {
        let policy = federation.policy();
        let next = link.next_old(|queued| federation.patience(&policy, &link.pair, queued, absent));
        let soon = Instant::now() + Duration::from_secs(10);
        sleep_until(next.map_or(soon, |next| next.min(soon)).max(Instant::now() + Duration::from_millis(100))).await;
        if !federation.is_stopping() {
            give_back(federation, link, last);
        }
    }
}

/// The pause between two attempts; what has waited too long meanwhile goes back. `false`: nothing waits any more.
async fn wait_for_next(federation: &Arc<Federation>, link: &Arc<Link>, pause: Duration, last: &End) -> bool {
    // A tenth more or less, so that many links do not dial as one.
    let tenth = u32::try_from(pause.as_millis() / 10).unwrap_or(u32::MAX);
    let began = Instant::now();
    let until = began + pause + Duration::from_millis(u64::from(federation.random(tenth)));
    let absent = matches!(last, End::Absent(_));
    let mut stopping = federation.stopping();
    let seen = federation.seen_of(&link.pair);
    let wakes = link.wake();
    loop {
        let policy = federation.policy();
        let expires = link.next_old(|queued| federation.patience(&policy, &link.pair, queued, absent));
        let mut wake = expires.map_or(until, |expires| until.min(expires));
        let fresh = began + FRESH_AFTER.min(policy.patience / 4);
        if link.has_fresh(began) {
            wake = wake.min(fresh);
        }
        tokio::select! {
            biased;
            () = sleep_until(wake) => {}
            () = wakes.notified() => {}
            () = stopping.stopped() => {}
        }
        give_back(federation, link, last);
        federation.look_at_resumable(link, last);
        if federation.is_stopping() || federation.may_leave(link) {
            return false;
        }
        // A verification is worth an attempt of its own, and so is a sign of life.
        let sign = link.has_questions() || link.takes_retry() || federation.seen_of(&link.pair) != seen;
        if Instant::now() >= until || sign || (Instant::now() >= fresh && link.has_fresh(began)) {
            return true;
        }
    }
}

impl Federation {
    /// Starts the link's task; the caller has just become the one who may.
    ///
    /// # Errors
    /// Its sender makes us dial too many domains: then the stanza is taken out again.
    pub fn dial(self: &Arc<Federation>, link: &Arc<Link>, stanza: &Stanza, id: i64) -> Result<(), StanzaError> {
        let may_wait_long = matches!(stanza.kind, StanzaType::Presence(_));
        match self.dials.turn(&link.dialler, may_wait_long) {
            Some(wait) => self.dial_in(link, wait),
            None => {
                link.take_out(id);
                if !link.leave() {
                    self.dial_in(link, Duration::ZERO);
                }
                self.house.count("s2s_dials_refused");
                self.house.limit("s2s_dials_max");
                let error = outbox::busy();
                return Err(error.with_text("You write to too many new domains at once."));
            }
        }
        Ok(())
    }

    /// The same where nobody waits for an answer now.
    pub fn dial_at_leisure(self: &Arc<Federation>, link: &Arc<Link>) {
        let wait = self.dials.turn(&link.dialler, true).unwrap_or_default();
        self.dial_in(link, wait);
    }

    pub fn dial_in(self: &Arc<Federation>, link: &Arc<Link>, wait: Duration) {
        let federation = self.clone();
        let link = link.clone();
        let running = self.run();
        self.house.runtime.spawn(async move {
            if !wait.is_zero() {
                let mut stopping = federation.stopping();
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(wait) => {}
                    () = stopping.stopped() => {}
                }
            }
            run(&federation, &link).await;
            drop(running);
            federation.forget_link(&link);
        });
    }

    fn may_leave(&self, link: &Link) -> bool {
        !self.resumable.contains_key(&link.pair) && link.leave()
    }

    /// How often the other server was seen: its streams of the pair, from there to here.
    fn seen_of(&self, pair: &Pair) -> u32 {
        self.presence.seen(&pair.inverse())
    }
}
