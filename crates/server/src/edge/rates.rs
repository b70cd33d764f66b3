//! How fast a client may send: bytes and stanzas, each a bucket. Over it, reading waits; nothing is lost.

use super::EdgeLimits;
use std::time::Duration;
use tokio::time::Instant;

#[derive(Debug)]
struct Bucket {
    per_second: f64,
    burst: f64,
    level: f64,
    at: Instant,
}

impl Bucket {
    fn new(per_second: u32, burst: u32) -> Option<Bucket> {
        (per_second > 0).then(|| Bucket {
            per_second: f64::from(per_second),
            burst: f64::from(burst),
            level: f64::from(burst),
            at: Instant::now(),
        })
    }

    /// Says whether the burst is spent by this.
    fn take(&mut self, amount: f64) -> bool {
        let had = self.level >= 0.0;
        let now = Instant::now();
        self.level =
            (self.level + now.duration_since(self.at).as_secs_f64() * self.per_second).min(self.burst) - amount;
        self.at = now;
        had && self.level < 0.0
    }

    /// When the bucket is no longer in debt; `None`: it is not.
    fn free_at(&self) -> Option<Instant> {
        (self.level < 0.0).then(|| self.at + Duration::from_secs_f64(-self.level / self.per_second))
    }
}

#[derive(Debug)]
pub struct Rates {
    bytes: Option<Bucket>,
    stanzas: Option<Bucket>,
}

impl Rates {
    pub fn new(limits: &EdgeLimits) -> Rates {
        Rates {
            bytes: Bucket::new(limits.bytes_per_second, limits.bytes_burst),
            stanzas: Bucket::new(limits.stanzas_per_second, limits.stanzas_burst),
        }
    }

    /// So many bytes were read. Says whether reading waits from now on.
    pub fn read(&mut self, bytes: usize) -> bool {
        self.bytes.as_mut().is_some_and(|bucket| bucket.take(bytes as f64))
    }

    /// … a stanza.
    pub fn stanza(&mut self) -> bool {
        self.stanzas.as_mut().is_some_and(|bucket| bucket.take(1.0))
    }

    /// While reading waits: until when. A debt whose time is over is none, also if nothing was read since.
    pub fn paused_until(&self) -> Option<Instant> {
        let until = [&self.bytes, &self.stanzas].into_iter().flatten().filter_map(Bucket::free_at).max()?;
        (Instant::now() < until).then_some(until)
    }

    /// When to look again, where `at` is what else there is to wait for: while nothing may be read, nothing else is due.
    pub fn deadline(&self, at: Instant) -> Instant {
        match self.paused_until() {
            Some(until) if at <= Instant::now() => until,
            Some(until) => at.min(until),
            None => at,
        }
    }

    pub fn may_read(&self) -> bool {
        self.paused_until().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn reading_waits_when_the_burst_is_spent_and_goes_on_at_the_rate() {
        let mut rates = Rates::new(&EdgeLimits { bytes_per_second: 1_000, bytes_burst: 500, ..EdgeLimits::default() });
        rates.read(500);
        assert!(rates.may_read());
        rates.read(100);
        assert!(!rates.may_read());
        tokio::time::advance(Duration::from_millis(101)).await;
        assert!(rates.may_read());
        // Nothing more is read, and nobody is woken for it again.
        assert_eq!(rates.paused_until(), None);
    }

    #[test]
    fn a_rate_of_zero_is_no_rate() {
        let limits = EdgeLimits { bytes_per_second: 0, stanzas_per_second: 0, ..EdgeLimits::default() };
        assert!(Rates::new(&limits).bytes.is_none());
    }
}
