//! What the operator allows a host's accounts; shared by all of them, replaced as a whole on reload.

use crate::capabilities::Capabilities;
use crate::watchers::Authenticated;
use std::sync::Arc;
use xmpp::{BareJid, Jid};

/// Bounds, with LIMITS.md's names and defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    pub sessions_per_account_max: usize,
    pub roster_items_max: usize,
    /// Addresses, names and groups of a roster.
    pub roster_bytes_max: usize,
    pub groups_per_item_max: usize,
    pub block_items_max: usize,
    pub offline_messages_max: usize,
    pub offline_bytes_max: u64,
    pub offline_days_max: u32,
    pub unacked_stanzas_max: usize,
    pub unacked_bytes_max: usize,
    pub resume_seconds_default: u32,
    pub resume_seconds_max: u32,
    pub hibernated_per_account_max: usize,
    /// Directed presence remembered per session.
    pub directed_max: usize,
    pub private_bytes_max: usize,
    pub vcard_bytes_max: usize,
    /// What an account publishes to itself: nodes, items of one, bytes of an item, bytes in all.
    pub pep_nodes_max: usize,
    pub pep_items_max: usize,
    pub pep_item_bytes_max: usize,
    pub pep_bytes_max: u64,
    /// Subscription requests of strangers kept per account.
    pub requests_max: usize,
    /// Distinct addresses that are no contacts and that a session may write to for the first time, a minute; `None`:
    /// any number.
    pub strangers_per_minute: Option<u32>,
    /// Messages of one sender that is no contact, a minute; `None`: any number.
    pub stranger_messages_per_minute: Option<u32>,
    /// What is archived goes when it is older than so many days, or when all of it weighs more than so many bytes.
    pub archive_days_max: u32,
    /// … or when so many are newer; `None`: any number.
    pub archive_records_max: Option<u64>,
    pub archive_bytes_max: u64,
    /// Messages in one answer of the archive: when the client does not say, and at most.
    pub archive_page_default: usize,
    pub archive_page_max: usize,
    /// Watchers that the ledger of an account knows besides its roster, and for how long after they were last heard of.
    pub watchers_max: usize,
    pub watchers_days_max: u32,
    /// Fetches of one watcher, and of one domain together, that an account answers.
    pub fetches_per_minute: u32,
    pub fetches_per_domain_per_minute: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            sessions_per_account_max: 16,
            roster_items_max: 2_000,
            roster_bytes_max: 1_048_576,
            groups_per_item_max: 32,
            block_items_max: 2_000,
            offline_messages_max: 1_000,
            offline_bytes_max: 10 << 20,
            offline_days_max: 30,
            unacked_stanzas_max: 1_000,
            unacked_bytes_max: 4 << 20,
            resume_seconds_default: 300,
            resume_seconds_max: 900,
            hibernated_per_account_max: 8,
            directed_max: 1_000,
            private_bytes_max: 256 << 10,
            vcard_bytes_max: 256 << 10,
            pep_nodes_max: 200,
            pep_items_max: 256,
            pep_item_bytes_max: 64 << 10,
            pep_bytes_max: 64 << 20,
            requests_max: 1_000,
            strangers_per_minute: Some(20),
            stranger_messages_per_minute: Some(6_000),
            archive_days_max: 365,
            archive_records_max: None,
            archive_bytes_max: 1 << 30,
            archive_page_default: 50,
            archive_page_max: 100,
            watchers_max: 500,
            watchers_days_max: 30,
            fetches_per_minute: 30,
            fetches_per_domain_per_minute: 600,
        }
    }
}

/// A hosted domain.
#[derive(Debug, Clone)]
pub struct HostPolicy {
    pub domain: BareJid,
    pub limits: Limits,
    /// Keep messages in the log also when they were delivered (archive). Off: only what is pending is kept.
    pub archive: bool,
    /// The archive can be searched for words. XEP-0431.
    pub fulltext: bool,
    /// Services that may be switched off: presence, instant messages (MISSION rows 5, 8).
    pub presence: bool,
    pub messages: bool,
    /// Presence is delivered only from whom it was asked of, unless an account says otherwise. RFC 2779 §5.3.2.
    pub solicited_presence: bool,
    /// Domains whose users are nobody in particular (SASL ANONYMOUS), sorted. RFC 2779 §5.1.14.
    pub anonymous_domains: Vec<Box<str>>,
    /// The four operation sets one by one, see [`crate::operations`].
    pub client_presence: bool,
    pub client_messages: bool,
    pub server_presence: bool,
    pub server_messages: bool,
    /// What to do when a resource is asked for that is bound already.
    pub resource_conflict: ResourceConflict,
    /// May strangers read vCards (XEP-0054 §5), or only who sees presence?
    pub vcards_public: bool,
    /// XEP-0157: (`abuse-addresses`, [`mailto:…`]) …
    pub contact_addresses: Vec<(String, Vec<String>)>,
    /// XEP-0077: may strangers register (the form is shown)?
    pub registration_open: bool,
    /// The same with an invitation. XEP-0445.
    pub registration_by_invitation: bool,
    /// May users invite others? XEP-0401.
    pub user_invites: bool,
    /// XEP-0077 for those who have an account: may they change their password, remove their account?
    pub password_change: bool,
    pub account_removal: bool,
    /// What the host's disco#items shows: address and name (which may be empty).
    pub services: Vec<(Jid, String)>,
    /// STUN and TURN servers that the host's users are told of. XEP-0215.
    pub external_services: Vec<ExternalService>,
    /// How TURN credentials are made; `None`: none are given.
    pub turn: Option<Turn>,
    /// Where clients are told to resume their streams. XEP-0198 §3.
    pub resume_location: Option<Box<str>>,
    /// How other domains have shown that they are who they say.
    pub peers: Peers,
    /// Names under which users watch who do not want to be known.
    pub aliases: Aliases,
    /// What clients of contacts want to be told of.
    pub capabilities: Capabilities,
    /// Name and version, for XEP-0092 and the host's identity. The operating system is not told.
    pub software: (&'static str, &'static str),
}

impl HostPolicy {
    pub fn of(domain: BareJid) -> HostPolicy {
        HostPolicy {
            domain,
            limits: Limits::default(),
            archive: true,
            fulltext: false,
            presence: true,
            messages: true,
            solicited_presence: false,
            anonymous_domains: Vec::new(),
            client_presence: true,
            client_messages: true,
            server_presence: true,
            server_messages: true,
            resource_conflict: ResourceConflict::ReplaceOld,
            vcards_public: false,
            contact_addresses: Vec::new(),
            registration_open: false,
            registration_by_invitation: false,
            user_invites: false,
            password_change: true,
            account_removal: true,
            services: Vec::new(),
            external_services: Vec::new(),
            turn: None,
            resume_location: None,
            peers: Peers::default(),
            aliases: Aliases::default(),
            capabilities: Capabilities::default(),
            software: ("waft", env!("CARGO_PKG_VERSION")),
        }
    }
}

impl HostPolicy {
    /// Is whoever has this address authenticated as nobody in particular?
    pub fn is_anonymous(&self, who: &Jid) -> bool {
        self.anonymous_domains.binary_search_by(|domain| (**domain).cmp(who.domain())).is_ok()
    }

    /// How it is known who this is. RFC 2779 §5.1.12.
    pub fn authenticated(&self, who: &Jid) -> Authenticated {
        match () {
            () if self.is_anonymous(who) => Authenticated::Anonymous,
            () if who.domain() == self.domain.as_str() => Authenticated::Here,
            () => self.peers.proved(&self.domain, who.domain()).unwrap_or(Authenticated::Domain),
        }
    }
}

/// A server of another kind. XEP-0215 §2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalService {
    /// `stun`, `stuns`, `turn` or `turns`.
    pub kind: Box<str>,
    pub host: Box<str>,
    pub port: u16,
    /// `udp` or `tcp`.
    pub transport: Box<str>,
}

impl ExternalService {
    /// Does it relay, and therefore want credentials?
    pub fn is_relay(&self) -> bool {
        self.kind.starts_with("turn")
    }
}

/// Credentials for TURN servers.
#[derive(Debug, Clone)]
pub struct Turn {
    /// How long they are good.
    pub seconds: u32,
    pub sign: Signer,
}

/// Knows how other domains have proved themselves to this server.
#[derive(Clone, Default)]
pub struct Peers(pub Option<Arc<Proved>>);

/// Ours, theirs: how.
pub type Proved = dyn Fn(&str, &str) -> Option<Authenticated> + Send + Sync;

impl Peers {
    /// How `theirs` was last proved to `ours`; `None` if it was not, or that is not known.
    pub fn proved(&self, ours: &BareJid, theirs: &str) -> Option<Authenticated> {
        self.0.as_ref().and_then(|peers| peers(ours.as_str(), theirs))
    }
}

impl std::fmt::Debug for Peers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Peers")
    }
}

/// Makes localparts, each for one account and one whom it watches, of which nobody but this server can say whose they are.
#[derive(Clone, Default)]
pub struct Aliases(pub Option<Arc<Named>>);

/// The account's localpart, whom it watches: a localpart.
pub type Named = dyn Fn(&str, &BareJid) -> Option<String> + Send + Sync;

impl Aliases {
    /// The name of `account` for `whom`; always the same. `None`: the host gives none.
    pub fn of(&self, account: &BareJid, whom: &BareJid) -> Option<BareJid> {
        let local = self.0.as_ref()?(account.local()?, whom)?;
        BareJid::parse(&format!("{local}@{}", account.domain())).ok()
    }
}

impl std::fmt::Debug for Aliases {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aliases")
    }
}

/// Makes a password of a name, with a key that this crate does not know.
#[derive(Clone)]
pub struct Signer(pub Arc<dyn Fn(&str) -> String + Send + Sync>);

impl std::fmt::Debug for Signer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signer")
    }
}

/// RFC 6120 §7.7.2.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceConflict {
    /// The old session is ended with `conflict`.
    ReplaceOld,
    /// The new stream gets another resourcepart.
    Rename,
    /// The new stream gets `conflict`.
    RefuseNew,
}
