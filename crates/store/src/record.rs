//! What is read back.

use xmpp::{BareJid, Jid, Stamp};

/// Keys that prove a password, never the password. RFC 5802 §3, RFC 7677.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    pub scram_sha1: Option<ScramKeys>,
    pub scram_sha256: Option<ScramKeys>,
}

#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    pub salt: Vec<u8>,
    pub iterations: u32,
    pub stored_key: Vec<u8>,
    pub server_key: Vec<u8>,
}

impl std::fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScramKeys({} iterations)", self.iterations)
    }
}
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

/// Accounts by the mechanisms that they have keys of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyFigures {
    pub both: u64,
    pub sha1_alone: u64,
    pub sha256_alone: u64,
}

impl KeyFigures {
    /// Counts some accounts in.
    pub fn add(&mut self, sha1: bool, sha256: bool, accounts: u64) {
        match (sha1, sha256) {
            (true, true) => self.both += accounts,
            (true, false) => self.sha1_alone += accounts,
            (false, true) => self.sha256_alone += accounts,
            (false, false) => {}
        }
    }
}

/// What authentication needs of an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    pub credentials: Credentials,
    /// Proves its password in vain.
    pub disabled: bool,
}

/// What an account's entity keeps in memory.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccountRecord {
    pub created: Stamp,
    pub disabled: bool,
    pub roster_version: u64,
    pub roster: Vec<RosterItem>,
    /// Subscription requests that wait: contact, stanza as stored, when.
    pub requests: Vec<(BareJid, Vec<u8>, Stamp)>,
    pub blocks: Vec<Jid>,
    /// The greatest position in the log; 0 when empty.
    pub last_position: i64,
    /// Positions that are pending, oldest first; bounded by the offline limit.
    pub pending: Vec<i64>,
    /// Bytes of the pending records' stanzas.
    pub pending_bytes: u64,
    /// When the last resource left and with what status; `None` if never.
    pub last_activity: Option<(Stamp, Box<str>)>,
    /// Ledger rows of sessions that are of an earlier epoch.
    pub sessions: Vec<SessionRow>,
    /// The photo hash of the vCard (hex SHA-1), if there is one: the blob named [`PHOTO_HASH`]. XEP-0153.
    pub photo_hash: Option<Box<str>>,
    /// The blobs of the space [`SETTINGS`], by key.
    pub settings: Vec<(Box<str>, Vec<u8>)>,
}

/// Space and key of the blob that [`AccountRecord::photo_hash`] is read from; its value is the hex text in UTF-8.
pub const PHOTO_HASH: (&str, &str) = ("vcard-temp", "photo-sha1");

/// The space of small blobs that are loaded with the account.
pub const SETTINGS: &str = "settings";

/// RFC 6121 §2.1.2.5 and Appendix A.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Subscription {
    /// We get the contact's presence (`to`).
    pub to: bool,
    /// The contact gets ours (`from`).
    pub from: bool,
    /// We asked and wait (`ask='subscribe'`, "pending out").
    pub pending_out: bool,
    /// The contact asked and waits ("pending in"); not shown in the roster.
    pub pending_in: bool,
    /// We approved beforehand (`approved='true'`). RFC 6121 §3.4.
    pub approved: bool,
}

impl Subscription {
    /// The value of `subscription`. RFC 6121 §2.1.2.5.
    pub fn word(self) -> &'static str {
        match (self.to, self.from) {
            (false, false) => "none",
            (true, false) => "to",
            (false, true) => "from",
            (true, true) => "both",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RosterItem {
    pub jid: BareJid,
    pub name: Option<Box<str>>,
    pub groups: Vec<Box<str>>,
    pub subscription: Subscription,
    /// Is it in the roster, or only a request (`pending_in`) that the user has not seen an item for?
    pub listed: bool,
    /// The roster version that last changed it; a tombstone is no item. RFC 6121 §2.6.
    pub version: u64,
}

/// Which way a logged message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    Incoming,
    Outgoing,
}

/// One message in an account's log. DESIGN.md D5.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// Grows strictly within the account: microseconds since 1970 of arrival, or one more than the last. It is the
    /// stanza-id (XEP-0359), in decimal.
    pub position: i64,
    pub direction: Direction,
    /// The other side, with its resource if it had one.
    pub peer: Jid,
    /// As [`xmpp::write::to_stored`] writes it, `from` and `to` included.
    pub stanza: Vec<u8>,
    /// Must still be delivered.
    pub pending: bool,
    /// Is part of the archive (what is only queued for delivery is removed once taken).
    pub archived: bool,
    /// Recognises a resend: `ingress` always, or a hash over sender, origin-id and body; kept 24 h at least
    /// (a backend may go by the position's time).
    pub dedupe: Option<[u8; 16]>,
    /// UTC; delivery after it is pointless. XEP-0079 expire-at.
    pub expires: Option<Stamp>,
}

/// An XEP-0313 query, translated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PageQuery {
    /// Bare: any resource of it; full: exactly it.
    pub with: Option<Jid>,
    /// Inclusive, by position.
    pub start: Option<Stamp>,
    pub end: Option<Stamp>,
    /// Exclusive.
    pub after: Option<i64>,
    pub before: Option<i64>,
    pub ids: Vec<i64>,
    /// Only messages whose body has all these words. A backend may know none, and finds what came just now later.
    pub text: Option<Box<str>>,
    /// Take the last `limit` of the range instead of the first.
    pub backwards: bool,
    pub limit: usize,
    /// The page ends with the record by which its stanzas have more bytes than that.
    pub bytes_max: Option<usize>,
    pub want_count: bool,
}

impl PageQuery {
    /// Has a page with so many bytes of stanzas room for another record?
    pub fn has_room(&self, bytes: usize) -> bool {
        self.bytes_max.is_none_or(|max| bytes <= max)
    }

    /// Does the filter match the record, paging left out?
    pub fn matches(&self, record: &Record) -> bool {
        let with = match &self.with {
            Some(with) if with.is_bare() => with.same_bare(&record.peer),
            Some(with) => *with == record.peer,
            None => true,
        };
        with && self.first_position() <= record.position
            && record.position <= self.last_position()
            && (self.ids.is_empty() || self.ids.contains(&record.position))
            && self.text.as_deref().is_none_or(|text| has_words(&record.stanza, text))
    }

    /// Is the position within the page's bounds (`after`, `before`)?
    pub fn pages(&self, position: i64) -> bool {
        self.after.is_none_or(|after| position > after) && self.before.is_none_or(|before| position < before)
    }

    /// The least position that `start` lets pass.
    pub fn first_position(&self) -> i64 {
        self.start.map_or(i64::MIN, |start| start.0)
    }

    /// The greatest position that `end` lets pass.
    pub fn last_position(&self) -> i64 {
        self.end.map_or(i64::MAX, |end| end.0)
    }
}

/// Has the message's body all words of the text?
fn has_words(stanza: &[u8], text: &str) -> bool {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()).map(str::to_lowercase).collect()
    };
    let Ok(message) = xmpp::Stanza::parse(stanza) else { return false };
    let Some(body) = message.payload.child("body", xmpp::ns::CLIENT) else { return false };
    let body = words(&body.to_element().text_content());
    let wanted = words(text);
    !wanted.is_empty() && wanted.iter().all(|word| body.contains(word))
}

/// How many records a backend looks at, matches or not, before it may answer no count: some milliseconds. XEP-0059 §2.6
/// lets a count be left out.
pub const COUNT_MAX: u64 = 10_000;

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Page {
    /// Always oldest first.
    pub records: Vec<Record>,
    /// Nothing more in the direction of paging.
    pub complete: bool,
    /// All that the filter matches, paging left out; `None` if it was not wanted or would be too dear to say
    /// (a backend may stop at [`COUNT_MAX`] records, and earlier where one resource is asked for).
    pub count: Option<u64>,
    /// How many of the filter's matches come before the first record.
    pub first_index: Option<u64>,
}

/// A page of what waits, looked through for what waits too long. See [`crate::Store::overdue`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overdue {
    pub records: Vec<(BareJid, Record)>,
    /// Where the next page begins; `None`: this was the last.
    pub next: Option<WaitingPlace>,
}

/// A place among all that waits, as a backend orders it; only what it said itself means something to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitingPlace {
    pub account: i64,
    pub position: i64,
}

/// One session in the ledger. DESIGN.md D11.
#[derive(Debug, Clone, PartialEq)]
pub struct SessionRow {
    pub resource: Box<str>,
    /// Epoch of the process that held it.
    pub epoch: u64,
    /// SHA-256 of the resumption id; empty without stream management.
    pub resume_id_hash: Vec<u8>,
    /// The last presence, as stored bytes; empty if none was sent.
    pub presence: Vec<u8>,
    /// Whom directed presence went to and must be told `unavailable`.
    pub directed: Vec<Jid>,
    pub since: Stamp,
    /// Stanzas taken in under stream management, all of them done, when the stream was lost; `None` while there is a
    /// stream. XEP-0198 §5: the `h` of a resumption that comes too late.
    pub received: Option<u32>,
}

impl SessionRow {
    /// What stands in [`SessionRow::resume_id_hash`] for a resumption id.
    pub fn hash_of_resume_id(id: &str) -> Vec<u8> {
        use sha2::{Digest, Sha256};
        Sha256::digest(id.as_bytes()).to_vec()
    }
}

/// A stanza on its way to another domain. It ends when the other server has it or its sender an error.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Of all outboxes; grows in the order of writing.
    pub id: i64,
    /// The hosted domain.
    pub local: BareJid,
    pub remote: Box<str>,
    /// UTC; when its sender was promised that it is kept.
    pub accepted: Stamp,
    /// As [`xmpp::write::to_stored`] writes it, `from` and `to` included.
    pub stanza: Vec<u8>,
}

/// Tokens of one account; of more, those that expire first are forgotten.
pub const TOKENS_PER_ACCOUNT_MAX: usize = 64;

/// A FAST token. XEP-0484.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The client's id (SASL2 `<user-agent id=…/>`).
    pub client: Box<str>,
    pub mechanism: Box<str>,
    /// The current secret.
    pub secret: Vec<u8>,
    pub expires: Stamp,
    /// The one before, still good until the new one was used.
    pub previous: Option<(Vec<u8>, Stamp)>,
    /// Highest `count` seen; a replay has a lower one.
    pub count: u32,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({}, {})", self.client, self.mechanism)
    }
}

#[derive(Debug, Clone, PartialEq)]
pub struct AccountSummary {
    pub account: BareJid,
    pub created: Stamp,
    pub disabled: bool,
    pub last_activity: Option<Stamp>,
}
