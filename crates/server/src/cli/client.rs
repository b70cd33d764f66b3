//! `waft client`: a small client.

use super::accounts::{RULES_HELP, named_value};
use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use xmpp::{BareJid, Jid};

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
