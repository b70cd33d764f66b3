//! What the operator is shown of the streams with other servers.

use super::Federation;
use crate::admin;
use dashmap::DashMap;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use stream::Pair;
use xmpp::Stamp;

/// Domains of which the last failure is remembered; beyond it the table begins anew.
const FAILURES_MAX: usize = 10_000;

/// Streams that are there, and the last failures.
#[derive(Debug, Default)]
pub struct Streams {
    all: DashMap<u64, Arc<Shown>>,
    next: AtomicU64,
    /// By pair, ours first: why the last attempt came to nothing.
    failures: Mutex<HashMap<Pair, String>>,
}

/// Who opened it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    Here,
    There,
}

/// One stream, as its task tells of it.
#[derive(Debug)]
pub struct Shown {
    pub opened: Opened,
    pub address: IpAddr,
    pub since: Stamp,
    proved: Mutex<Vec<Proved>>,
}

#[derive(Debug, Clone)]
struct Proved {
    /// Ours.
    local: Box<str>,
    remote: Box<str>,
    trust: &'static str,
    both: bool,
}

/// Takes the stream out when it is dropped.
#[derive(Debug)]
pub struct Showing {
    streams: Arc<Streams>,
    number: u64,
    shown: Arc<Shown>,
}

impl Drop for Showing {
    fn drop(&mut self) {
        self.streams.all.remove(&self.number);
    }
}

impl Streams {
    /// A stream begins.
    pub fn begin(self: &Arc<Streams>, opened: Opened, address: IpAddr, since: Stamp) -> Showing {
        let shown = Arc::new(Shown { opened, address, since, proved: Mutex::default() });
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.all.insert(number, shown.clone());
        Showing { streams: self.clone(), number, shown }
    }

    /// An attempt to reach the pair's other domain came to nothing.
    pub fn failed(&self, pair: &Pair, why: String) {
        let mut failures = self.failures.lock();
        if failures.len() >= FAILURES_MAX && !failures.contains_key(pair) {
            failures.clear();
        }
        failures.insert(pair.clone(), why);
    }
}

impl Streams {
    /// Why the last attempt came to nothing, if the last one did.
    pub fn failure(&self, pair: &Pair) -> Option<String> {
        self.failures.lock().get(pair).cloned()
    }

    pub fn forget_failure(&self, pair: &Pair) {
        self.failures.lock().remove(pair);
    }
}

impl Showing {
    /// A pair was proved on it; `pair` is from ours to the other. `trust`: by what, such as `certificate`.
    pub fn proved(&self, pair: &Pair, trust: &'static str, both: bool) {
        self.streams.failures.lock().remove(pair);
        self.shown.proved.lock().push(Proved { local: pair.from.clone(), remote: pair.to.clone(), trust, both });
    }
}

impl Showing {
    /// The stream carries the way back of a pair, too; `pair` is from ours to the other.
    pub fn carries_back(&self, pair: &Pair) {
        let mut proved = self.shown.proved.lock();
        for it in proved.iter_mut().filter(|it| it.local == pair.from && it.remote == pair.to) {
            it.both = true;
        }
    }
}

impl Federation {
    /// All links: one entry a pair and stream, and one for each pair that waits without.
    pub fn shown(&self) -> Vec<admin::Link> {
        let mut out = Vec::new();
        for stream in self.streams.all.iter() {
            for proved in stream.proved.lock().iter() {
                out.push(admin::Link {
                    local: proved.local.to_string(),
                    remote: proved.remote.to_string(),
                    direction: match (proved.both, stream.opened) {
                        (true, _) => "both",
                        (false, Opened::Here) => "out",
                        (false, Opened::There) => "in",
                    }
                    .into(),
                    trust: proved.trust.into(),
                    address: Some(stream.address.to_string()),
                    since: Some(stream.since.to_xmpp()),
                    ..admin::Link::default()
                });
            }
        }
        let failures = self.streams.failures.lock().clone();
        for (pair, queue, bytes) in self.waiting() {
            let takes =
                |it: &&mut admin::Link| *it.local == *pair.from && *it.remote == *pair.to && it.direction != "in";
            match out.iter_mut().find(takes) {
                Some(link) => (link.queue, link.queue_bytes) = (queue, bytes),
                None if queue > 0 || failures.contains_key(&pair) => out.push(none(&pair, queue, bytes)),
                None => {}
            }
        }
        for (pair, why) in failures {
            let is_it = |it: &&mut admin::Link| *it.local == *pair.from && *it.remote == *pair.to;
            match out.iter_mut().find(is_it) {
                Some(link) => link.failure = Some(why),
                None => out.push(admin::Link { failure: Some(why), ..none(&pair, 0, 0) }),
            }
        }
        out.sort_by(|a, b| (&a.remote, &a.local, &a.direction).cmp(&(&b.remote, &b.local, &b.direction)));
        out
    }
}

fn none(pair: &Pair, queue: u64, queue_bytes: u64) -> admin::Link {
    admin::Link {
        local: pair.from.to_string(),
        remote: pair.to.to_string(),
        direction: "none".into(),
        trust: "none".into(),
        queue,
        queue_bytes,
        ..admin::Link::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_shown_until_its_task_ends_and_a_failure_until_it_is_proved() {
        let streams = Arc::new(Streams::default());
        let pair = Pair::new("capulet.example", "montague.example");
        streams.failed(&pair, "TLS: no answer".into());
        let address = IpAddr::from([192, 0, 2, 1]);
        let showing = streams.begin(Opened::Here, address, Stamp(0));
        assert_eq!((streams.all.len(), streams.failures.lock().len()), (1, 1));
        showing.proved(&pair, "certificate", false);
        assert!(streams.failures.lock().is_empty());
        drop(showing);
        assert!(streams.all.is_empty());
    }

    #[test]
    fn failures_that_are_remembered_are_bounded() {
        let streams = Streams::default();
        for n in 0..FAILURES_MAX + 5 {
            streams.failed(&Pair::new("capulet.example", &format!("d{n}.example")), "no".into());
        }
        assert!(streams.failures.lock().len() <= FAILURES_MAX);
    }
}
