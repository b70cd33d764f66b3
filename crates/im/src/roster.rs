//! The roster, RFC 6121 §2.

use store::RosterItem;
use xmpp::{BareJid, Stamp};

#[derive(Debug, Default)]
pub struct Roster {
    pub version: u64,
}

impl Roster {
    pub fn from_stored(version: u64, items: Vec<RosterItem>, requests: Vec<(BareJid, Vec<u8>, Stamp)>) -> Roster { let _ = (version, items, requests); todo!() }
}
