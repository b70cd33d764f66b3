//! Commands about domains: a first configuration, DNS, certificates, other servers.

use super::{ActPlace, Place};
use crate::config::ListenAddress;
use clap::{Args, Subcommand, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub enum Domain {
    /// List them
    List {
        #[command(flatten)]
        place: ActPlace,
    },
    /// Host one more, with the options' defaults but for what is set, also after a restart
    Add {
        domain: String,
        /// An option of [host."DOMAIN"], such as registration=invite; may be given several times
        #[arg(long, value_name = "NAME=VALUE")]
        set: Vec<String>,
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
    /// Speak with a domain no more, from now on; *.example.net for all below one
    Block {
        domain: String,
        #[command(flatten)]
        place: ActPlace,
    },
    /// Speak again with a domain that was blocked so
    Unblock {
        domain: String,
        #[command(flatten)]
        place: ActPlace,
    },
    /// List the domains that were blocked at run time; those of the configuration stand there
    Blocked(ActPlace),
    /// Forget the key of a server that has a new one: the next contact is a first one again
    Forget {
        domain: String,
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
