//! Messages that come twice: how they are recognised, and the keys of those that came lately. DESIGN.md D5.

use crate::item::Ingress;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use store::Direction;
use xmpp::{Jid, Stamp, Stanza, ns};

/// Dedupe keys kept in memory; the store knows the older ones.
const RECENT_MAX: usize = 64;
const RECENT_SECONDS: i64 = 24 * 3600;
/// A commit has either failed after so long (then nothing is remembered here), or is on disk. Before, the store is asked: what
/// comes again must not be acknowledged on the strength of a commit that may fail yet.
const SETTLED_SECONDS: i64 = 60;

#[derive(Debug, Default)]
pub(super) struct Recent {
    keys: HashMap<[u8; 16], Stamp>,
    order: VecDeque<(Stamp, [u8; 16])>,
}

impl Recent {
    /// Is a message with this key in the log for sure?
    pub(super) fn has(&mut self, key: &[u8; 16], now: Stamp) -> bool {
        while self.order.front().is_some_and(|(at, _)| now.seconds_since(*at) > RECENT_SECONDS) {
            self.pop();
        }
        self.keys.get(key).is_some_and(|at| now.seconds_since(*at) >= SETTLED_SECONDS)
    }

    pub(super) fn add(&mut self, key: [u8; 16], now: Stamp) {
        if let Entry::Vacant(entry) = self.keys.entry(key) {
            entry.insert(now);
            self.order.push_back((now, key));
        }
        while self.order.len() > RECENT_MAX {
            self.pop();
        }
    }

    fn pop(&mut self) {
        if let Some((_, key)) = self.order.pop_front() {
            self.keys.remove(&key);
        }
    }
}

/// Recognises a message that was sent twice: by its origin-id (XEP-0359 §3.2) with peer and content, else by where it
/// entered the house. `None` for what entered nowhere: the house says it once.
pub(super) fn dedupe_key(stanza: &Stanza, direction: Direction, ingress: Option<Ingress>) -> Option<[u8; 16]> {
    if xmpp::planted::is(xmpp::planted::Bug::NothingRecognised) {
        return None;
    }
    let origin = stanza.payload.child("origin-id", ns::SID).and_then(|child| child.attribute("id").map(String::from));
    let ingress = ingress.filter(|ingress| ingress.stream != 0);
    if origin.is_none() && ingress.is_none() {
        return None;
    }
    let peer = match direction {
        Direction::Incoming => &stanza.from,
        Direction::Outgoing => &stanza.to,
    };
    let half = |salt: u8| {
        let mut hasher = DefaultHasher::new();
        (salt, direction).hash(&mut hasher);
        match &origin {
            Some(id) => {
                id.hash(&mut hasher);
                peer.as_ref().map(Jid::to_bare).hash(&mut hasher);
                let has_body = stanza.payload.has("body", ns::CLIENT);
                for child in stanza.payload.children() {
                    // A client that sends again adds a delay.
                    if child.ns != ns::DELAY && (!has_body || child.name == "body") {
                        child.raw.hash(&mut hasher);
                    }
                }
            }
            None => ingress.map(|ingress| (ingress.stream, ingress.ordinal)).hash(&mut hasher),
        }
        hasher.finish().to_be_bytes()
    };
    let mut key = [0; 16];
    key[..8].copy_from_slice(&half(1));
    key[8..].copy_from_slice(&half(2));
    Some(key)
}
