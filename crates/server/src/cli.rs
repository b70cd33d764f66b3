//! The command line.

use crate::config::{ListenAddress, Overrides, Sources};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use xmpp::{BareJid, Jid};

/// An instant messaging and presence server (XMPP).
///
/// Without a command, waft serves: it makes its data folder, a self-signed certificate and a store, and listens on
/// ports 5222 (STARTTLS) and 5223 (direct TLS) for the domain localhost. Of a domain that others can find it also
/// listens for their servers, on 5269 and 5270.
#[derive(Debug, Parser)]
#[command(name = "waft", version, args_conflicts_with_subcommands = true, max_term_width = 100, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Option<Command>,
    #[command(flatten)]
    pub serve: Serve,
}

const AFTER_HELP: &str = "\
Start here:
  waft                               serve localhost with the defaults
  waft user add alice@localhost      add an account, while the server runs or not
  waft client --jid alice@localhost send bob@localhost \"Hello\"

Folders and files:
  data      --data DIR, else $WAFT_DATA, else /var/lib/waft (root) or ~/.local/share/waft
  config    --config FILE, else $WAFT_CONFIG, else /etc/waft/waft.toml if it is there";

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve until told to stop (the default)
    Serve(Serve),
    /// Write the configuration for a domain, and say what DNS must say of it
    Init(Init),
    /// Add, change, remove and list accounts, in the running server or in the data folder
    #[command(subcommand)]
    User(User),
    /// Show and change an account's access rules: who sees what of it, and who may write
    #[command(subcommand)]
    Rules(Rules),
    /// Export or purge the archive of one account, in the running server or in the data folder
    #[command(subcommand)]
    Archive(Archive),
    /// List sessions, and end them
    #[command(subcommand)]
    Session(Session),
    /// Look at an account's roster, and change it for its owner
    #[command(subcommand)]
    Roster(Roster),
    /// List the domains that are served, add and remove some while the server runs
    #[command(subcommand)]
    Domain(Domain),
    /// Write to everybody who is there
    Announce(Announce),
    /// Show what waits: for the disk, other domains, components, slow clients
    Queues(ActPlace),
    /// Show which bounds were met since the start, and how often
    Limits(ActPlace),
    /// Show what is logged, or change it until the next reload
    LogLevel {
        /// error, warn, info, debug, trace, or as waft=debug,info
        level: Option<String>,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Take no new connections; streams that are there stay
    Drain {
        /// Take them again
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Move accounts in from Prosody, ejabberd or a file of XEP-0227, with passwords, contacts and messages; safe to
    /// run twice
    #[command(after_help = IMPORT_HELP)]
    Import(Import),
    /// Write one account or all into a file that other servers read too (XEP-0227), with passwords' keys and messages
    Export(Export),
    /// Check the configuration, or show the one in effect
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Look at the running server: what it serves, who is connected
    Status(Status),
    /// Say what DNS must say of the domains here, and what it does say
    Dns(Dns),
    /// Show what the running server does, anew every few seconds
    Top(Top),
    /// Show the stanzas of a session, an account or a domain as they pass, without what people write
    Watch(Watch),
    /// Walk the way to another domain and back, and say what is wrong
    Check(Check),
    /// Look at the streams with servers of other domains
    #[command(subcommand)]
    S2s(S2s),
    /// Invite people: links by which they make accounts
    #[command(subcommand)]
    Invite(Invite),
    /// Look at the certificates, and have them renewed
    #[command(subcommand)]
    Certificates(Certificates),
    /// List who watches an account, who did lately, and who was refused
    Watchers(Watchers),
    /// Show an account's presence information, as its owner or another sees it (PIDF)
    Fetch(Fetch),
    /// Tell the running server to read its configuration and certificates again
    Reload(Place),
    /// Tell the running server to stop: streams are told, what is queued is written
    Stop(Place),
    /// Write all that is kept (store, secrets, certificates) into one file, while the server runs or not
    Backup {
        /// The file, which must not be there yet; only its owner can read it
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Make a data folder of a backup; no server may run on it
    Restore {
        /// The backup
        file: PathBuf,
        #[command(flatten)]
        place: Place,
        /// Move what is in the data folder into a folder within it first
        #[arg(long)]
        replace: bool,
    },
    /// A small XMPP client, for scripts and for a first look
    Client(Client),
}

#[derive(Debug, Clone, Default, Args)]
pub struct Serve {
    #[command(flatten)]
    pub place: Place,
    /// Host this domain, and none that is not named so; may be given several times [default: localhost]
    #[arg(long, value_name = "D")]
    pub domain: Vec<String>,
    /// Listen here for clients with STARTTLS; may be given several times [default: *:5222]
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub c2s: Vec<OrNone>,
    /// Listen here for clients with TLS from the first byte; may be given several times [default: *:5223]
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub direct_tls: Vec<OrNone>,
    /// Listen here for servers of other domains; may be given several times [default: *:5269, and *:5270 with TLS from
    /// the first byte, unless only local domains are hosted or another listener is named]
    #[arg(long, value_name = "ADDR:PORT", value_parser = listen_address)]
    pub s2s: Vec<OrNone>,
    /// Serve this machine's users on the local network, without DNS and without the internet: the domain is the host
    /// name under .local, other servers are found by multicast DNS and trusted on first use
    #[arg(long)]
    pub ad_hoc: bool,
}

/// A listener's address, or none of that kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OrNone(pub Option<ListenAddress>);

fn listen_address(text: &str) -> Result<OrNone, String> {
    if text == "none" {
        return Ok(OrNone(None));
    }
    text.parse()
        .map(|address| OrNone(Some(address)))
        .map_err(|()| "write *:5222, 127.0.0.1:5222, [::1]:5222, or none".to_string())
}

/// Which server is meant.
#[derive(Debug, Clone, Default, Args)]
pub struct Place {
    /// The data folder
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Which server is meant, and how it shows what it says.
#[derive(Debug, Clone, Default, Args)]
pub struct ActPlace {
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

impl Place {
    pub fn sources(&self) -> Sources {
        Sources { file: self.config.clone(), overrides: Overrides { data: self.data.clone(), ..Overrides::default() } }
    }
}

impl Serve {
    pub fn sources(&self) -> Sources {
        let mut sources = self.place.sources();
        sources.overrides.domains.clone_from(&self.domain);
        sources.overrides.c2s = self.c2s.iter().map(|it| it.0).collect();
        sources.overrides.ad_hoc = self.ad_hoc;
        sources.overrides.direct_tls = self.direct_tls.iter().map(|it| it.0).collect();
        sources.overrides.s2s = self.s2s.iter().map(|it| it.0).collect();
        sources
    }
}

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

fn named_value(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

const RULES_HELP: &str = "\
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
pub enum Domain {
    /// List them
    List {
        #[command(flatten)]
        place: ActPlace,
    },
    /// Host one more, with the options' defaults, also after a restart
    Add {
        domain: String,
        #[command(flatten)]
        place: ActPlace,
    },
    /// End one that was added so; its accounts stay in the store
    Remove {
        domain: String,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Origin {
    /// Prosody's data folder, or its prosody.sqlite
    Prosody,
    /// What `ejabberdctl export_piefxis` wrote, and `export2sql` for the archives
    Ejabberd,
    /// A file of XEP-0227, or a folder of them
    Xep0227,
}

#[derive(Debug, Args)]
pub struct Import {
    /// Which server wrote it
    #[arg(value_enum)]
    pub from: Origin,
    /// The folder or file
    pub path: PathBuf,
    /// Only the accounts of this domain
    #[arg(long, value_name = "D")]
    pub domain: Option<String>,
    /// Of ejabberd: archives as SQL; may be given several times [default: *.sql in the folder]
    #[arg(long, value_name = "FILE")]
    pub archive: Vec<PathBuf>,
    /// Say what would be moved in and what left out, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// The report as JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

const IMPORT_HELP: &str = "\
Stop the other server first: what it writes meanwhile is not moved. waft itself may run or not.
What is in waft already is never replaced; moving in again adds what is new.

Examples:
  waft import prosody /var/lib/prosody --dry-run
  ejabberdctl export_piefxis /var/lib/ejabberd/out
  ejabberdctl export2sql example.org /var/lib/ejabberd/out/example.org.sql
  waft import ejabberd /var/lib/ejabberd/out";

#[derive(Debug, Args)]
pub struct Export {
    /// The account, such as alice@localhost [default: all]
    pub jid: Option<BareJid>,
    /// All accounts of this domain alone
    #[arg(long, value_name = "D", conflicts_with = "jid")]
    pub domain: Option<String>,
    /// The file, which must not be there yet; only its owner can read it [default: standard output]
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say everything that is wrong, each with file, line and remedy
    Check(Serve),
    /// Print the configuration in effect, as a file that would give the same
    Show {
        #[command(flatten)]
        serve: Serve,
        /// Print every option with its meaning and default instead
        #[arg(long)]
        defaults: bool,
        /// With --defaults: as the reference, in Markdown
        #[arg(long, requires = "defaults")]
        markdown: bool,
    },
}

#[derive(Debug, Args)]
pub struct Status {
    #[command(flatten)]
    pub place: Place,
    /// List the sessions too
    #[arg(long)]
    pub sessions: bool,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = INIT_HELP)]
pub struct Init {
    /// The domain of the accounts, such as example.org [default: asked for]
    pub domain: Option<String>,
    /// The file that is written [default: /etc/waft/waft.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Replace the file if it is there
    #[arg(long)]
    pub force: bool,
    /// Ask nothing: what is not said is as usual
    #[arg(long)]
    pub yes: bool,
    /// The data folder that the file names [default: none; see `waft --help`]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// The name of this machine in DNS [default: the domain]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Let users invite others
    #[arg(long)]
    pub invites: bool,
    /// Get a certificate by ACME, the domain being proved so
    #[arg(long, value_enum, value_name = "CHALLENGE", conflicts_with_all = ["certificate", "key"])]
    pub acme: Option<Challenge>,
    /// Agree to the terms of service of the authority
    #[arg(long)]
    pub agree: bool,
    /// Where the authority may write to
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// The authority [default: Let's Encrypt]
    #[arg(long, value_name = "URL")]
    pub acme_directory: Option<String>,
    /// Whom to trust as that authority, PEM, beside those of the system
    #[arg(long, value_name = "FILE")]
    pub acme_ca: Option<PathBuf>,
    /// Where the authority is answered [default: *:80, or *:443 with tls-alpn-01]
    #[arg(long, value_name = "ADDR:PORT", value_parser = acme_address)]
    pub acme_address: Option<ListenAddress>,
    /// The certificate chain, PEM, if there is one
    #[arg(long, value_name = "FILE", requires = "key")]
    pub certificate: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub key: Option<PathBuf>,
    /// Do not ask DNS
    #[arg(long)]
    pub offline: bool,
    /// Ask this name server instead of the system's
    #[arg(long, value_name = "ADDR:PORT")]
    pub dns: Option<SocketAddr>,
}

const INIT_HELP: &str = "\
Example:
  waft init example.org --host xmpp.example.org --acme http-01 --email me@example.org --agree";

/// How a name is proved to an authority.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Challenge {
    /// The authority asks port 80 of the name
    #[value(name = "http-01")]
    Http01,
    /// It asks port 443
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
}

impl Challenge {
    pub fn word(self) -> &'static str {
        match self {
            Challenge::Http01 => "http-01",
            Challenge::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

fn acme_address(text: &str) -> Result<ListenAddress, String> {
    text.parse().map_err(|()| "write *:80 or 127.0.0.1:8080".to_string())
}

#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2.0)]
    pub interval: f64,
    /// Once, then end
    #[arg(long)]
    pub once: bool,
    /// One JSON object a look: all figures, rates, times
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
#[command(after_help = WATCH_HELP)]
pub struct Watch {
    /// Whom: alice@localhost/phone, alice@localhost, or a domain, of users here or elsewhere
    pub who: Jid,
    /// End after so many stanzas
    #[arg(long)]
    pub count: Option<u64>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

const WATCH_HELP: &str = "\
C> comes from a client, C< goes to one; S> comes from another server, S< goes to one.
Texts are shown as their lengths, attributes whose meaning is not known as …";

#[derive(Debug, Args)]
pub struct Dns {
    /// The name of this machine in DNS [default: the domain]
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Ask this name server instead of the system's
    #[arg(long, value_name = "ADDR:PORT")]
    pub dns: Option<SocketAddr>,
    /// One JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Args)]
pub struct Check {
    /// The other domain; one that is served here is looked at as others see it
    pub domain: String,
    /// From this domain of the server [default: its first]
    #[arg(long, value_name = "D")]
    pub from: Option<String>,
    /// As JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub place: Place,
}

#[derive(Debug, Subcommand)]
pub enum S2s {
    /// List the links: direction, what proves the other domain, what waits, since when
    List {
        /// Only those with this domain
        domain: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List the servers on the local network, and those whose keys were noted at first contact
    Known {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// List subscriptions of the last 30 days that other servers lost; each was asked for again once
    Lost {
        /// Only those to contacts of this domain
        domain: Option<String>,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Forget the key of a server that has a new one: the next contact is a first one again
    Forget {
        domain: String,
        #[command(flatten)]
        place: Place,
    },
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

#[derive(Debug, Subcommand)]
pub enum Certificates {
    /// List the domains' certificates: where they are from, until when they are good, what DNS may say of them
    List {
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        place: Place,
    },
    /// Get the certificate of a domain anew from its authority (ACME), whatever its age
    Renew {
        domain: String,
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

#[derive(Debug, Args)]
#[command(after_help = CLIENT_HELP)]
pub struct Client {
    /// Who logs in, such as alice@localhost
    #[arg(long, value_name = "JID")]
    pub jid: Jid,
    /// Where the server is, when the domain's own address is not it [port: 5222, or 5223 with --direct-tls]
    #[arg(long, value_name = "ADDR[:PORT]")]
    pub host: Option<String>,
    /// TLS from the first byte instead of STARTTLS
    #[arg(long)]
    pub direct_tls: bool,
    /// Trust the certificates (PEM) in this file, and no others
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    pub ca: Option<PathBuf>,
    /// Trust any certificate: whoever is on the way can then read and change everything
    #[arg(long)]
    pub insecure: bool,
    /// Trust the certificates in this data folder besides the system's [default: the local server's folder]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Read the password from the first line of standard input [else $WAFT_PASSWORD, else asks]
    #[arg(long)]
    pub password_stdin: bool,
    /// Authenticate so and no other way
    #[arg(long, value_enum, ignore_case = true)]
    pub mechanism: Option<ClientMechanism>,
    /// Print one JSON object a line
    #[arg(long)]
    pub json: bool,
    #[command(subcommand)]
    pub action: Action,
}

const CLIENT_HELP: &str = "\
Lines that are printed (fields as JSON with --json):
  message FROM: TEXT
  presence FROM TYPE [SHOW] [STATUS]
  sent ID";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientMechanism {
    #[value(name = "SCRAM-SHA-256-PLUS")]
    ScramSha256Plus,
    #[value(name = "SCRAM-SHA-1-PLUS")]
    ScramSha1Plus,
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-1")]
    ScramSha1,
    #[value(name = "PLAIN")]
    Plain,
}

#[derive(Debug, Subcommand)]
pub enum Action {
    /// Send a message; ends when the server has taken it
    Send {
        to: Jid,
        text: String,
        /// The message's type
        #[arg(long = "type", value_enum, default_value = "chat")]
        kind: SendType,
    },
    /// Become available and print messages and presence as they come
    Watch {
        /// End after so many lines
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        /// End after so many seconds
        #[arg(long, value_name = "S")]
        seconds: Option<u64>,
        /// Print who watches, too, as they come
        #[arg(long)]
        watchers: bool,
    },
    /// Fetch what there is to know of somebody, once, and print the document (PIDF)
    Fetch {
        whom: BareJid,
        /// Under a name that tells nobody who asks
        #[arg(long)]
        pseudonym: bool,
        /// Wait so many seconds for the answer
        #[arg(long, value_name = "S", default_value_t = 20)]
        seconds: u64,
    },
    /// List who watches the own account; with --live also who does from now on
    Watchers {
        /// Another account of the domain: the own row, or all by a grant
        #[arg(conflicts_with = "live")]
        whom: Option<BareJid>,
        /// Go on, and print each watcher as it comes
        #[arg(long)]
        live: bool,
        /// End after so many seconds
        #[arg(long, value_name = "S")]
        seconds: Option<u64>,
    },
    /// Publish a tuple of the own presence that stays when this client goes; prints its tag
    Publish {
        /// Its id; publishing the same again replaces it
        id: String,
        /// A few words
        note: Option<String>,
        /// Where to reach the presentity, such as tel:+39-02-55-51-29
        #[arg(long, value_name = "URI")]
        contact: Option<String>,
        /// Seconds that it lasts
        #[arg(long, value_name = "S", default_value_t = 3600)]
        expires: u32,
        /// For this account, which has granted it
        #[arg(long = "for", value_name = "JID")]
        whom: Option<BareJid>,
    },
    /// Show the own access rules; with an id and NAME=VALUE add or replace one
    #[command(after_help = RULES_HELP)]
    Rules {
        /// The rule's name
        id: Option<String>,
        /// What it says, each as NAME=VALUE
        #[arg(value_name = "NAME=VALUE", value_parser = named_value)]
        values: Vec<(String, String)>,
        /// Remove the rule
        #[arg(long, requires = "id", conflicts_with = "values")]
        remove: bool,
    },
    /// Subscribe to somebody's presence, for a while or without end; ends when the server has taken it
    Subscribe {
        whom: BareJid,
        /// Seconds that the subscription shall last
        #[arg(long, value_name = "S")]
        lease: Option<u32>,
        /// Under a name that tells nobody who watches
        #[arg(long)]
        pseudonym: bool,
    },
    /// End the own subscription to somebody's presence
    Unsubscribe { whom: BareJid },
    /// Let somebody see the own presence no more, or refuse a request
    Refuse {
        whom: BareJid,
        /// Why, in a word: rejected, deactivated, giveup
        #[arg(long, value_name = "WORD")]
        reason: Option<String>,
    },
    /// Let somebody see the own presence, for a while or without end
    Approve {
        whom: BareJid,
        /// At most so many seconds
        #[arg(long, value_name = "S")]
        lease: Option<u32>,
    },
    /// Show what both servers hold of the subscriptions between the own account and another
    Subscription {
        whom: BareJid,
        /// Make them agree
        #[arg(long)]
        repair: bool,
    },
    /// Ask for a contact's presence and print the answer
    Probe {
        contact: BareJid,
        /// Wait so many seconds for answers
        #[arg(long, value_name = "S", default_value_t = 3)]
        seconds: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SendType {
    Chat,
    Normal,
    Headline,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn without_a_command_the_options_are_those_of_serve() {
        let cli = Cli::try_parse_from([
            "waft",
            "--domain",
            "a.example",
            "--domain",
            "b.example",
            "--direct-tls",
            "none",
            "--c2s",
            "*:6222",
        ])
        .expect("is correct");
        assert!(cli.command.is_none());
        let sources = cli.serve.sources();
        assert_eq!(sources.overrides.domains, ["a.example", "b.example"]);
        assert_eq!(sources.overrides.direct_tls, [None]);
        assert_eq!(sources.overrides.c2s, [Some(ListenAddress::Any(6222))]);
    }
}
