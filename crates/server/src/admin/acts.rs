//! Acts of administration that the commands and the forms of clients (XEP-0050) have in common: what is asked, as data.
//!
//! The answer to an act is a JSON value, which the commands print as it is or in lines for people.

use crate::audit;
use crate::house::notices::Occasion;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Act {
    /// Moves an account in, of a file (XEP-0227, one account) that lies in the folder `import` of the data folder.
    MoveIn {
        jid: String,
        file: String,
        dry: bool,
    },
    /// Writes an account into a file (XEP-0227) in the folder `export` of the data folder; gives its path.
    MoveOut {
        jid: String,
    },
    /// Ends the sessions of an account (bare), or one (full).
    SessionEnd {
        jid: String,
    },
    /// What there is to know of an account, but for what it keeps.
    UserShow {
        jid: String,
    },
    /// A headline to everybody who is there: of one domain, or of all.
    Announce {
        domain: Option<String>,
        subject: Option<String>,
        text: String,
    },
    RosterList {
        jid: String,
    },
    /// Puts a contact into an account's roster. `both`: each is subscribed to the other; both must have accounts here.
    RosterPut {
        jid: String,
        contact: String,
        name: Option<String>,
        groups: Vec<String>,
        both: bool,
    },
    /// Takes a contact out. `both`: the account out of the contact's roster too.
    RosterRemove {
        jid: String,
        contact: String,
        both: bool,
    },
    DomainList,
    /// Hosts one more domain from now on, with these options (`NAME=VALUE`) and the defaults of the others.
    DomainAdd {
        domain: String,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        options: Vec<String>,
    },
    /// Ends one that was added so; its accounts stay in the store.
    DomainRemove {
        domain: String,
    },
    /// What is told to whoever comes or has a new account.
    Notices,
    /// Sets what is told; without a text nothing is.
    NoticeSet {
        occasion: Occasion,
        subject: Option<String>,
        text: Option<String>,
    },
    /// How many accounts of a domain there are of a kind.
    Count {
        domain: String,
        only: AccountKind,
    },
    /// The addresses of accounts of a domain, of a kind; at most so many.
    Accounts {
        domain: String,
        only: AccountKind,
        max: usize,
    },
    /// Domains that were blocked at run time.
    Blocked,
    /// Speaks with a domain no more (`*.example.net`: with all below it), or again.
    Block {
        domain: String,
        blocked: bool,
    },
    /// What waits: for the disk, for other domains, for components, for slow clients.
    Queues,
    /// How often each bound was met since the start; those that were met.
    Limits,
    /// What is logged from now on, until the next reload; without `level` what is.
    LogLevel {
        level: Option<String>,
    },
    /// Takes no new connections from now on, or takes them again; streams that are there stay.
    Drain {
        on: bool,
    },
}

/// A kind of accounts. XEP-0133 §4.13 to §4.17.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccountKind {
    Registered,
    Disabled,
    /// With a session that has a stream.
    Online,
    /// Online, and available with one of them at least, not away.
    Active,
    /// Online, and not active.
    Idle,
}

impl Act {
    /// For the audit log; `None`: it only looks.
    pub fn audited(&self) -> Option<Map<String, Value>> {
        match self {
            Act::MoveIn { dry: true, .. }
            | Act::UserShow { .. }
            | Act::RosterList { .. }
            | Act::DomainList
            | Act::Notices
            | Act::Count { .. }
            | Act::Accounts { .. }
            | Act::Blocked
            | Act::Queues
            | Act::Limits
            | Act::LogLevel { level: None } => None,
            other => audit::general(serde_json::to_value(other).ok()?),
        }
    }
}
