//! Who has read the account's inbox by a grant: kept, for its owner. RFC 2779 §2.3.6.

use crate::account::Account;
use crate::effects::Effects;
use crate::module::Iq;
use std::collections::VecDeque;
use store::{Change, SETTINGS};
use xmpp::{Element, Stamp};

pub const NS: &str = "urn:waft:rules:0";
/// Where it is kept, in the space of settings.
pub const KEY: &str = "inbox readers";
/// Entries that are kept, the newest.
const ENTRIES_MAX: usize = 500;
/// Reads of the same entity within so many seconds are one entry.
const TOGETHER_SECONDS: i64 = 600;

/// One reader's reading.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// Full, as the server of its domain says.
    who: Box<str>,
    first: Stamp,
    last: Stamp,
    /// Pages that were asked for.
    times: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    /// Oldest first.
    entries: VecDeque<Entry>,
}

impl Readers {
    /// As they were stored; what cannot be read is no entry.
    pub fn from_stored(value: Option<&[u8]>) -> Readers {
        let stored = value.and_then(|bytes| Element::parse(bytes, NS).ok());
        let entry = |element: &Element| {
            let number = |name: &str| element.attribute(name)?.parse().ok();
            let who = element.attribute("jid")?.into();
            Some(Entry {
                who,
                first: Stamp(number("first")?),
                last: Stamp(number("last")?),
                times: u32::try_from(number("times")?).ok()?,
            })
        };
        Readers { entries: stored.iter().flat_map(Element::elements).filter_map(entry).collect() }
    }

    fn to_stored(&self) -> Vec<u8> {
        self.to_element(|stamp| stamp.0.to_string()).to_bytes("")
    }

    fn to_element(&self, time: impl Fn(Stamp) -> String) -> Element {
        let entry = |entry: &Entry| {
            Element::new("reader", NS)
                .attr("jid", &entry.who)
                .attr("first", time(entry.first))
                .attr("last", time(entry.last))
                .attr("times", entry.times.to_string())
        };
        Element::new("readers", NS).children_from(self.entries.iter().map(entry))
    }

    /// For the owner.
    pub fn shown(&self) -> Element {
        self.to_element(Stamp::to_xmpp)
    }
}

/// Somebody who is granted it asks for a page of the inbox: it is on disk that he did, before he is answered.
pub fn note(account: &mut Account, iq: &Iq<'_>, fx: &mut Effects) {
    let now = account.now.utc;
    let entries = &mut account.readers.entries;
    let who: Box<str> = iq.from.as_str().into();
    let known = entries.iter_mut().rev().find(|it| it.who == who && now.seconds_since(it.last) < TOGETHER_SECONDS);
    match known {
        Some(entry) => {
            entry.last = now;
            entry.times = entry.times.saturating_add(1);
        }
        None => {
            if entries.len() >= ENTRIES_MAX {
                entries.pop_front();
            }
            entries.push_back(Entry { who, first: now, last: now, times: 1 });
        }
    }
    let value = account.readers.to_stored();
    let change = Change::BlobPut { account: account.jid.clone(), space: SETTINGS.into(), key: KEY.into(), value };
    fx.commit(vec![change], Some(iq.stanza), iq.ticket);
}
