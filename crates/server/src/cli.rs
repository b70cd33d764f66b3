//! The command line: which server is meant and how it serves here, the commands by what they are about below.

mod accounts;
mod client;
mod domains;
mod moving;

pub use accounts::*;
pub use client::*;
pub use domains::*;
pub use moving::*;

use crate::config::{ListenAddress, Overrides, Sources};
use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use xmpp::Jid;

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
    /// Show, set and remove what is told to new accounts, or to everybody once
    #[command(subcommand)]
    Notice(Notice),
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
    #[command(after_help = moving::IMPORT_HELP)]
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
