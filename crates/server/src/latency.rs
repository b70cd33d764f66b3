//! How long things take: histograms that cost a few instructions to add to, and nothing to keep.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Upper bounds, microseconds: from 50 µs to 25 s, about three in each power of ten.
const BOUNDS_MICROS: [u64; 18] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 25_000_000,
];

/// From a client's stanza having come to its being done: what it sets off is on disk, and queued to whom it is for.
pub static STANZAS: Histogram = Histogram::new();
/// From a change being queued to its being on disk.
pub static COMMITS: Histogram = Histogram::new();
/// From a connection to its being authenticated.
pub static LOGINS: Histogram = Histogram::new();

/// One stanza of so many is timed: a clock costs more than all else here.
const EACH: u32 = 8;

#[derive(Debug)]
pub struct Histogram {
    /// One more than the bounds: what took longer.
    buckets: [AtomicU64; BOUNDS_MICROS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    const fn new() -> Histogram {
        Histogram { buckets: [const { AtomicU64::new(0) }; BOUNDS_MICROS.len() + 1], micros: AtomicU64::new(0) }
    }

    pub fn add(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[at].fetch_add(1, Ordering::Relaxed);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn seen(&self) -> Seen {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        Seen { counts, micros: self.micros.load(Ordering::Relaxed) }
    }
}

/// Is this stanza, by its ordinal, one that is timed? Then from now on.
pub fn timed(ordinal: u32) -> Option<Instant> {
    ordinal.is_multiple_of(EACH).then(Instant::now)
}

/// A histogram of one moment.
#[derive(Debug)]
pub struct Seen {
    counts: Vec<u64>,
    micros: u64,
}

impl EncodeMetric for Seen {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        let bounds = BOUNDS_MICROS.iter().map(|micros| *micros as f64 / 1e6).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(self.counts.iter().copied()).collect();
        let count = self.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(self.micros as f64 / 1e6, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    #[test]
    fn what_took_as_long_as_a_bound_is_within_it_and_buckets_add_up() {
        let histogram = Histogram::new();
        for micros in [1, 50, 51, 1_000_000, u64::from(u32::MAX)] {
            histogram.add(Duration::from_micros(micros));
        }
        let mut registry = Registry::with_prefix("waft");
        registry.register("x_seconds", "Time", histogram.seen());
        let mut text = String::new();
        encode(&mut text, &registry).expect("a string takes all");
        for line in [
            "waft_x_seconds_bucket{le=\"0.00005\"} 2",
            "waft_x_seconds_bucket{le=\"0.0001\"} 3",
            "waft_x_seconds_bucket{le=\"1.0\"} 4",
            "waft_x_seconds_bucket{le=\"+Inf\"} 5",
            "waft_x_seconds_count 5",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
