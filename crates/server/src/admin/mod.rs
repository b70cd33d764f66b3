//! Commands to the running server: one JSON object a line, over a unix socket that only its owner and root may use.
//!
//! - [`acts`]: what commands and clients' forms have in common.
//! - [`server`]: the socket; who may speak; requests to [`AdminOps`].
//! - [`client`]: the other end, for `waft user`, `waft status` and the like.
//!
//! A connection carries any number of requests, one after the other; each gets one [`Answer`]:
//!
//! ```text
//! → {"do":"user-add","jid":"alice@localhost","password":"…"}
//! ← {"is":"done"}
//! → {"do":"user-add","jid":"alice@localhost","password":"…"}
//! ← {"is":"refused","why":"alice@localhost exists already"}
//! ```

pub mod acts;
pub mod client;
pub mod server;

use serde::{Deserialize, Serialize};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use xmpp::{BareJid, Jid, Stamp};
use zeroize::Zeroize;

/// Longest line that is read; an answer of [`USERS_PER_PAGE`] accounts fits.
pub const LINE_BYTES_MAX: usize = 4 << 20;
/// Accounts or sessions of one answer.
pub const USERS_PER_PAGE: usize = 1_000;
/// Messages of one answer, unless they are long.
pub const ARCHIVE_PAGE: usize = 500;

/// What is asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    UserAdd {
        jid: String,
        password: Secret,
    },
    UserPasswd {
        jid: String,
        password: Secret,
    },
    UserDel {
        jid: String,
    },
    /// Nobody logs in to it any more; or again.
    UserDisable {
        jid: String,
        disabled: bool,
    },
    /// Accounts of a host, by name, those after `after`; at most [`USERS_PER_PAGE`].
    UserList {
        host: String,
        after: String,
    },
    /// The roles that an account may have, by their names; all four take the bound away.
    UserRoles {
        jid: String,
        roles: Vec<String>,
    },
    /// Who watches an account, and who did.
    Watchers {
        jid: String,
    },
    /// An account's presence information, as `watcher` sees it; else as its owner does.
    Fetch {
        jid: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        watcher: Option<String>,
    },
    /// An iq that the account's owner may send, as XML: `set` or else get.
    Ask {
        jid: String,
        set: bool,
        content: String,
    },
    /// Messages of an account's archive behind this position, oldest first; at most [`ARCHIVE_PAGE`].
    ArchivePage {
        jid: String,
        after: i64,
    },
    /// Removes what is older than a time (XEP-0082), or all, from an account's archive.
    ArchivePurge {
        jid: String,
        before: Option<String>,
    },
    Sessions,
    Status,
    /// Streams with servers of other domains, and what waits for them.
    Links,
    /// Servers nearby, and those whose keys were noted at first contact.
    Known,
    /// Subscriptions that other servers lost, of a page of accounts: those behind `after`, a bare JID, or the first.
    LostSubscriptions {
        after: String,
    },
    /// The next contact with the domain is a first one again.
    Forget {
        domain: String,
    },
    /// Walks the way to a domain and back; `from`: a domain here, else the first host.
    Check {
        domain: String,
        #[serde(default)]
        from: Option<String>,
    },
    /// Puts an account into a class; without one into none.
    UserClass {
        jid: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        class: Option<String>,
    },
    InviteCreate(InviteWish),
    InviteList,
    /// Takes back the invitation of this id.
    InviteRevoke {
        id: String,
    },
    /// All figures, as OpenMetrics text.
    Metrics,
    /// The stanzas of a session, an account or a domain from now on: [`Answer::Watched`] again and again, until the
    /// connection is closed.
    Watch {
        who: String,
    },
    /// The certificates that are shown, and when they are renewed.
    Certificates,
    /// Gets a domain's certificate anew from the authority that gives it.
    CertificateRenew {
        domain: String,
    },
    Reload,
    Stop,
    /// Write a backup into the data folder.
    Backup,
    /// What clients with the right can do by forms too, and more like it.
    Act {
        act: acts::Act,
    },
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub enum Answer {
    Done,
    /// Nothing was changed; for people.
    Refused {
        why: String,
    },
    Users {
        users: Vec<User>,
    },
    /// What the account answered, as XML; empty: nothing but yes.
    Told {
        content: String,
    },
    Archive {
        records: Vec<ArchiveRecord>,
    },
    Sessions {
        sessions: Vec<Session>,
    },
    Watchers {
        watchers: Vec<Watcher>,
        /// Refused attempts of those for whom there was no room.
        unlisted: u64,
    },
    /// A PIDF document, RFC 3863; none: the watcher sees nothing.
    Document {
        xml: Option<String>,
    },
    Status(Box<Status>),
    Links {
        links: Vec<Link>,
    },
    Check(Box<Check>),
    Servers {
        servers: Vec<KnownServer>,
    },
    Certificates {
        certificates: Vec<Certificate>,
    },
    Metrics {
        text: String,
    },
    /// A stanza; or only that the server is there.
    Watched {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        line: Option<crate::watches::Line>,
    },
    /// A new invitation and its link, which nobody is told again.
    Invited {
        uri: String,
        invitation: Invite,
    },
    Invites {
        invites: Vec<Invite>,
    },
    /// `next`: where the next page begins, if there is one.
    LostSubscriptions {
        lost: Vec<LostSubscription>,
        next: Option<String>,
    },
    /// Where the backup lies, for the command to fetch, and what it holds.
    Backup {
        path: String,
        accounts: u64,
        records: u64,
        bytes: u64,
        left_out: Vec<String>,
    },
    /// What an act came to.
    Value {
        value: serde_json::Value,
    },
    /// Sentences on what took effect and what did not.
    Notes {
        notes: Vec<String>,
    },
}

/// A password on its way; not printed, wiped after use.
#[derive(Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// An account as it is listed. Times as XEP-0082 writes them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct User {
    pub jid: String,
    pub created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub disabled: bool,
}

impl From<store::AccountSummary> for User {
    fn from(it: store::AccountSummary) -> User {
        User {
            jid: it.account.to_string(),
            created: it.created.to_xmpp(),
            last_activity: it.last_activity.map(|at| at.to_xmpp()),
            disabled: it.disabled,
        }
    }
}

/// A message of an archive as it is exported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArchiveRecord {
    /// Where it stands in the log.
    pub position: i64,
    /// When it came, as XEP-0082 writes it.
    pub at: String,
    /// `in` or `out`.
    pub direction: String,
    /// The other side.
    pub with: String,
    /// Nobody has taken it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
    /// The message, in `jabber:client`.
    pub stanza: String,
}

/// A session as it is listed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Full.
    pub jid: String,
    /// `available`, `connected` (no presence sent), `suspended` (waits to be resumed).
    pub state: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<i8>,
}

/// A watcher as it is listed. Times as XEP-0082 writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Watcher {
    pub jid: String,
    /// `subscriber`, `fetcher`, `poller`, `refused`.
    pub kind: String,
    /// RFC 3858 §4.3: `pending`, `active`, `terminated`, and what happened last.
    pub status: String,
    pub event: String,
    /// How it is known who it is: `server`, `domain`, `anonymous`.
    pub auth: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
    pub notifications: u64,
    pub fetches: u64,
    pub refused: u64,
    /// Seconds until its subscription ends, if that has an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expiration: Option<u64>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pseudonym: bool,
}

/// The running server at a glance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    pub pid: u32,
    pub uptime_seconds: u64,
    pub hosts: Vec<String>,
    pub listeners: Vec<String>,
    pub data: String,
    pub streams: u64,
    #[serde(default)]
    pub components: Vec<Component>,
    pub accounts: u64,
    /// Changes that wait for the disk.
    pub store_queue: u64,
    pub store_bytes: u64,
    /// By name; what they count is in the documentation.
    pub counters: std::collections::BTreeMap<String, u64>,
}

/// An external component.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Component {
    pub domain: String,
    /// Since when, as XEP-0082 writes it; not there: it is away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Stanzas that wait for it, and their bytes.
    pub queue: u64,
    pub queue_bytes: u64,
}

/// A pair of domains, ours and another: a stream of it, or that there is none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Link {
    pub local: String,
    pub remote: String,
    /// `out`, `in`, `both` (one stream in both directions), `none` (something waits and no stream is there).
    pub direction: String,
    /// What proves the other domain: `certificate`, `dialback`; `none` while nothing does.
    pub trust: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// When the stream began, as XEP-0082 writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Stanzas that wait to go to the other domain, and their bytes.
    pub queue: u64,
    pub queue_bytes: u64,
    /// Why the last attempt to reach it came to nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// A contact saw the account's user no more because its server had lost the subscription; it was asked for again once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostSubscription {
    pub account: String,
    pub contact: String,
    /// When it was lost. XEP-0082.
    pub lost: String,
    /// What there is now, as in the roster: `none`, `to`, `from`, `both`.
    pub subscription: String,
    /// The contact was asked and has not answered yet.
    pub asked: bool,
}

/// Another server that was seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KnownServer {
    pub domain: String,
    /// It announces itself on the local network.
    pub nearby: bool,
    /// SHA-256 of the certificate that it showed at first contact, in hexadecimal digits, and when that was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

/// What is wished of a new invitation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct InviteWish {
    /// For an account of this domain. Without one: of the inviter's, else of the first host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// An account here, whose contact the invited becomes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inviter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub days: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uses: Option<u32>,
}

/// An invitation as it is listed. Times as XEP-0082 writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Invite {
    pub id: String,
    pub domain: String,
    /// An account may be made with it.
    pub account: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inviter: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    pub created: String,
    pub expires: String,
    pub uses_left: u32,
}

impl From<crate::invites::Invitation> for Invite {
    fn from(it: crate::invites::Invitation) -> Invite {
        let at = |seconds: i64| Stamp(seconds.saturating_mul(1_000_000)).to_xmpp();
        Invite {
            id: it.id().to_owned(),
            domain: it.domain,
            account: it.account,
            username: it.username,
            inviter: it.inviter,
            class: it.class,
            created: at(it.created),
            expires: at(it.expires),
            uses_left: it.uses_left,
        }
    }
}

/// A domain's certificate. Times as XEP-0082 writes them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    pub domain: String,
    /// `acme`, `file`, `self-signed`.
    pub source: String,
    pub file: String,
    pub names: Vec<String>,
    pub issuer: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Until it ends; negative: since it has.
    pub days: i64,
    /// What a TLSA record may say: `3 1 1` and the digest of the key (RFC 6698).
    pub tlsa: String,
    /// What a CAA record may say, where the authority and the account there are known (RFC 8657).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caa: Option<String>,
    /// When it is renewed next, or tried to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<String>,
    /// Attempts in a row that came to nothing, and why the last did.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Why there is none that can be used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wrong: Option<String>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a walk to a domain and back has found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    pub domain: String,
    pub from: String,
    /// No step failed.
    pub ok: bool,
    pub steps: Vec<CheckStep>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckStep {
    /// `policy`, `srv`, `addresses`, `tcp`, `tls`, `certificate`, `features`, `external`, `dialback`, `bidi`, `sm`,
    /// `there and back`.
    pub step: String,
    pub state: CheckState,
    pub milliseconds: u64,
    /// For people.
    pub detail: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckState {
    Ok,
    /// Not as good as it could be; it goes on.
    Note,
    Failed,
    Skipped,
}

/// What a command comes to; the error is for people.
pub type Doing<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// What the running server does on command. Names were parsed; who asks was checked.
pub trait AdminOps: Send + Sync + 'static {
    fn user_add(&self, jid: BareJid, password: Secret) -> Doing<'_, ()>;
    fn user_passwd(&self, jid: BareJid, password: Secret) -> Doing<'_, ()>;
    fn user_del(&self, jid: BareJid) -> Doing<'_, ()>;
    fn user_disable(&self, jid: BareJid, disabled: bool) -> Doing<'_, ()>;
    /// Asks an account as its owner; gives the content of its answer.
    fn ask(&self, jid: BareJid, set: bool, content: String) -> Doing<'_, String>;
    fn user_list(&self, host: String, after: String) -> Doing<'_, Vec<User>>;
    fn user_roles(&self, jid: BareJid, roles: Vec<String>) -> Doing<'_, ()>;
    /// Gives the watchers, and how many attempts are not listed.
    fn watchers(&self, jid: BareJid) -> Doing<'_, (Vec<Watcher>, u64)>;
    fn fetch(&self, jid: BareJid, watcher: Option<Jid>) -> Doing<'_, Option<String>>;
    fn archive_page(&self, jid: BareJid, after: i64) -> Doing<'_, Vec<ArchiveRecord>>;
    fn archive_purge(&self, jid: BareJid, before: Option<Stamp>) -> Doing<'_, ()>;
    fn sessions(&self) -> Doing<'_, Vec<Session>>;
    fn status(&self) -> Doing<'_, Status>;
    fn links(&self) -> Doing<'_, Vec<Link>>;
    fn known(&self) -> Doing<'_, Vec<KnownServer>>;
    /// Of a page of accounts, and where the next page begins.
    fn lost_subscriptions(&self, after: String) -> Doing<'_, (Vec<LostSubscription>, Option<String>)>;
    fn forget(&self, domain: String) -> Doing<'_, ()>;
    fn check(&self, domain: String, from: Option<String>) -> Doing<'_, Check>;
    fn metrics(&self) -> Doing<'_, String>;
    /// Stanzas from now on, until the receiver is dropped.
    fn watch(&self, who: Jid) -> Doing<'_, tokio::sync::mpsc::Receiver<crate::watches::Line>>;
    fn user_class(&self, jid: BareJid, class: Option<String>) -> Doing<'_, ()>;
    /// Gives the link too.
    fn invite_create(&self, wish: InviteWish) -> Doing<'_, (String, Invite)>;
    fn invite_list(&self) -> Doing<'_, Vec<Invite>>;
    fn invite_revoke(&self, id: String) -> Doing<'_, ()>;
    fn certificates(&self) -> Doing<'_, Vec<Certificate>>;
    fn certificate_renew(&self, domain: String) -> Doing<'_, ()>;
    /// Gives sentences on what waits for a restart.
    fn reload(&self) -> Doing<'_, Vec<String>>;
    /// Gives where it lies.
    fn backup(&self) -> Doing<'_, (std::path::PathBuf, store::BackupFigures)>;
    /// Does one of the acts; who asks was checked.
    fn act(&self, act: acts::Act) -> Doing<'_, serde_json::Value> {
        Box::pin(async move { Err(format!("this server cannot do that: {act:?}")) })
    }
    /// Notes an act in the audit log: who gave it, what it is, and why it was refused.
    fn audit(&self, by: &str, act: serde_json::Map<String, serde_json::Value>, refused: Option<&str>) {
        tracing::info!(by, ?act, refused, "not noted: there is no audit log");
    }
    /// Begins to stop; answers at once.
    fn stop(&self) -> Doing<'_, ()>;
}
