//! Commands about accounts: they themselves, their rules, archives, sessions, rosters, invitations.

use super::{ActPlace, Place};
use crate::house::notices::Occasion;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use xmpp::{BareJid, Jid};

#[derive(Debug, Subcommand)]
pub enum User {
    /// Add an account; asks for its password
    Add(WithPassword),
    /// Change the password of an account; asks for the new one
    Passwd(WithPassword),
    /// Remove an account and all that is kept of it
    Del {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Show an account: since when, last seen, roles, sessions, how much is kept of it
    Show {
        /// The account, such as alice@localhost
        jid: BareJid,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Remove an account, and show what was removed and that nothing is left
    Erase {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Say which parts an account may play; without any, all four
    Roles {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// presentity, watcher, sender, inbox
        roles: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Put an account into a class ([account_class] of the configuration) from now on; without one, into none
    Class {
        /// The account, such as alice@localhost
        jid: BareJid,
        class: Option<String>,
        #[command(flatten)]
        place: Place,
    },
    /// Let nobody log in to an account any more and end its sessions; nothing that is kept of it goes
    Disable {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Let its user log in to a disabled account again
    Enable {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List accounts, those of all hosts or of one
    List {
        /// The host
        domain: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum Rules {
    /// List the rules of an account, a line each
    Show {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// The whole document, as XML
        #[arg(long, conflicts_with = "json")]
        xml: bool,
        /// One JSON object a rule; its values are those that `put` takes
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Add a rule, or replace the one of that name
    #[command(after_help = RULES_HELP)]
    Put {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// The rule's name
        id: String,
        /// What it says, each as NAME=VALUE
        #[arg(required = true, value_name = "NAME=VALUE", value_parser = named_value)]
        values: Vec<(String, String)>,
        #[command(flatten)]
        place: Place,
    },
    /// Remove a rule
    Remove {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// The rule's name
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Replace all rules by those of a file (XML, as `show --xml` prints them); - reads standard input
    Set {
        /// The account, such as alice@localhost
        jid: BareJid,
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Say what somebody sees of an account, and may do
    Explain {
        /// The account, such as alice@localhost
        jid: BareJid,
        /// Who looks
        watcher: Jid,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Subcommand)]
pub enum Archive {
    /// Print all messages of the archive, oldest first, one JSON object a line
    Export {
        /// The account, such as alice@localhost
        jid: BareJid,
        #[command(flatten)]
        place: Place,
    },
    /// Remove the messages of the archive; what still waits for delivery stays
    Purge {
        /// The account
        jid: BareJid,
        /// Only what is older than this, such as 2026-01-31T00:00:00Z
        #[arg(long, value_name = "TIME")]
        before: Option<String>,
        #[command(flatten)]
        place: Place,
    },
}

pub(super) fn named_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

pub(super) const RULES_HELP: &str = "\
Whom it speaks of, when:
  who=        an address, a domain, *.domain, group:NAME, roster, authenticated, anonymous, everyone, nobody; each may
              come several times; 'example.org but boss@example.org' leaves out somebody
  except=     an address or domain    sphere=work    hours='22:00-07:00 +01:00 mon tue'
  from= until=                        2026-12-24T18:00:00Z
  valid=      FROM/UNTIL, if there are several spans
What it lets them do:
  subscribe= fetch=                   block, confirm, polite-block, allow
  message=                            deliver, store, drop, refuse
  watch= publish= read=               true, false
What of the presence is shown (nothing said: all):
  shown=      presence, no-resource, show, status, idle, notes, attributes, devices, persons, nodes, all
  resource=   a resource, or the id of a published tuple; class= uri= scheme= pick tuples, too
  device= device-name= device-class= person= person-class=
  attribute=  activities, mood, …     extension={namespace}name     node= a PEP node
  other-show= other-status=           shown instead of the real one

Example:
  waft rules put alice@localhost boss who=boss@work.example subscribe=polite-block message=store";

#[derive(Debug, Args)]
pub struct WithPassword {
    /// The account, such as alice@localhost
    pub jid: BareJid,
    /// Read the password from the first line of standard input instead of asking
    #[arg(long)]
    pub password_stdin: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum Session {
    /// List the sessions of an account, of a domain, or all
    List {
        /// An account or a domain
        of: Option<String>,
        #[command(flatten)]
        place: ActPlace,
    },
    /// End a session, or all of an account
    End {
        /// An account, or with a resource one session of it
        jid: Jid,
        #[command(flatten)]
        place: ActPlace,
    },
}

#[derive(Debug, Subcommand)]
pub enum Roster {
    /// List the contacts of an account
    List {
        /// The account, such as alice@localhost
        jid: BareJid,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Put a contact into the roster, or give it another name and groups
    Put {
        /// The account, such as alice@localhost
        jid: BareJid,
        contact: BareJid,
        #[arg(long)]
        name: Option<String>,
        /// May be given several times
        #[arg(long)]
        group: Vec<String>,
        /// Each is in the roster of the other, and subscribed to the other; both have accounts here
        #[arg(long)]
        both: bool,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Take a contact out of the roster, with all subscriptions
    Remove {
        /// The account, such as alice@localhost
        jid: BareJid,
        contact: BareJid,
        /// The account out of the contact's roster too
        #[arg(long)]
        both: bool,
        #[command(flatten)]
        place: ActPlace,
    },
}

#[derive(Debug, Subcommand)]
pub enum Notice {
    /// Show what is told
    Show(ActPlace),
    /// Tell this from now on
    Set {
        occasion: Occasion,
        text: String,
        #[arg(long)]
        subject: Option<String>,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Tell nothing any more
    Remove {
        occasion: Occasion,
        #[command(flatten)]
        place: ActPlace,
    },
}

#[derive(Debug, Args)]
pub struct Announce {
    pub text: String,
    #[arg(long)]
    pub subject: Option<String>,
    /// To the users of this domain alone
    #[arg(long, value_name = "D")]
    pub domain: Option<String>,
    #[command(flatten)]
    pub place: ActPlace,
}

#[derive(Debug, Subcommand)]
pub enum Invite {
    /// Make an invitation; prints its link and a QR code, once
    Create {
        /// The domain of the account [default: the inviter's, else the server's first]
        domain: Option<String>,
        /// The name that the account has; nobody else registers under it meanwhile
        #[arg(long, value_name = "NAME")]
        username: Option<String>,
        /// Whoever comes by it and this account become each other's contacts
        #[arg(long, value_name = "JID")]
        inviter: Option<BareJid>,
        /// The class of the account, see [account_class] of the configuration
        #[arg(long, value_name = "CLASS")]
        class: Option<String>,
        /// Days for which it is good [default: invite_days of the host]
        #[arg(long)]
        days: Option<u32>,
        /// Accounts that can be made with it [default: 1]
        #[arg(long)]
        uses: Option<u32>,
        /// One JSON object, and no QR code
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List the invitations that can still be used; their links are known to those alone who have them
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Take an invitation back
    Revoke {
        /// As `waft invite list` shows it; its first letters suffice
        id: String,
        #[command(flatten)]
        place: Place,
    },
}

#[derive(Debug, Args)]
pub struct Watchers {
    /// The account, such as alice@localhost
    pub jid: BareJid,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Fetch {
    /// The account, such as alice@localhost
    pub jid: BareJid,
    /// As this watcher sees it [default: as the owner does]
    #[arg(long = "as", value_name = "JID")]
    pub watcher: Option<Jid>,
    /// One JSON object a tuple
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}
